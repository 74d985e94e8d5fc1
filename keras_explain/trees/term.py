"""The term that draws a model towards a small decision tree."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras

from keras_explain.core import checks
from keras_explain.training.term import Batch, Term
from keras_explain.trees.live import LiveTree
from keras_explain.trees.penalties import Penalty, TreeDistillation
from keras_explain.trees.reference import LATER, NO_REFERENCE

Tensor = Any
Nest = Any


class Tree(Term):
    """The term that draws a model towards a small decision tree.

    To the loss of the task is added while training

        strength * ramp(epoch) * Omega,

    where Omega measures how far the model is from a small tree that is fitted to it, again every
    few epochs. The trees in `tree` and in the logs are the ones people read: grown without a limit
    on the reference, pruned on rows held out.

    Wu et al., "Beyond Sparsity: Tree Regularization of Deep Models for Interpretability", AAAI
    2018, https://arxiv.org/abs/1711.06178. Regions: Wu et al., "Regional Tree Regularization for
    Interpretability in Deep Neural Networks", AAAI 2020, https://arxiv.org/abs/1908.04494.

    At the end of an epoch, `logs` has

    | scalar          | what                                                                     |
    |-----------------|--------------------------------------------------------------------------|
    | `tree/apl`      | average path length of the tree over the reference rows                  |
    | `tree/leaves`   | how many leaves it has                                                   |
    | `tree/fidelity` | the share of held-out rows for which it says what the model says         |
    | `tree/penalty`  | mean of what was added to the loss                                       |

    The model is a classifier with one output: a logit or sigmoid `[B, 1]`, logits or a softmax
    `[B, C]`, or one of these at each time step `[B, T, C]`. `model.terms["tree"].tree` is the tree
    that mimics it as it is now.

    Args:
        reference: The inputs on which the tree mimics the model, as a rule the training inputs. It
            is not saved with a model: after loading, set `model.terms["tree"].reference` again.
        prune_on: Other inputs, to prune trees on; `None` keeps 30 % of the reference back for it.
        strength: The weight of the penalty.
        penalty: What is added, a `kx.trees.Penalty`; by default `kx.trees.TreeDistillation()`.
        subsample: At most so many reference rows are used; `None` uses all.
        regions: How many regions of the input have a tree of their own, found by k-means, or a
            function from rows `[n, D]` to their regions, ints `[n]` from 0, in `keras.ops`.
        over_regions: How the penalties of the regions make one: `"sum"`, `"max"`, or `"sparsemax"`,
            their mean weighted by `sparsemax(penalties)`.
        layer: A layer, by name or path, whose units the tree asks about in place of the input.
        min_samples_leaf: No leaf of a tree gets fewer of the rows that it is grown on.
        feature_names: A name per column, for `tree`.
        class_names: A name per class, for `tree`.
        log_dir: The directory that TensorBoard is started on: every fitted tree is written to
            `<log_dir>/explain`, as text, as a picture and for the Explain tab. With an
            `ExplanationLogger` on the same directory, the tab shows its samples' ways through it.
            A copy of the model writes to `<log_dir>/copy_1/explain`, or the next that is free.
        batch_size: How many reference rows go through the model at once.
        seed: Seed of all that is drawn.

    Raises:
        ValueError: The reference is missing, not what the model takes, or too small; or the model
            is no classifier with one output, or can predict one class only.
    """

    reference: Nest = dataclasses.field(default=None, compare=False)
    prune_on: Nest = dataclasses.field(default=None, compare=False)
    penalty: Penalty = TreeDistillation()
    warmup: float = 0.5
    ramp: float = 0.1
    subsample: int | None = 5_000
    regions: int | Callable[[Tensor], Tensor] | None = None
    over_regions: str = "sparsemax"
    layer: str | None = None
    min_samples_leaf: int = 5
    feature_names: Sequence[str] | None = None
    class_names: Sequence[str] | None = None
    log_dir: str | os.PathLike[str] | None = None
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reference is None:
            raise ValueError(NO_REFERENCE)
        given: dict[str, Any] = {"log_dir": self.log_dir and os.fspath(self.log_dir)}
        if self.penalty is None:
            given["penalty"] = TreeDistillation()
        for name in ("feature_names", "class_names"):
            names = getattr(self, name)
            given[name] = None if names is None else tuple(map(str, names))
        for name, value in given.items():
            object.__setattr__(self, name, value)
        super().__post_init__()
        if not isinstance(self.penalty, Penalty):
            raise TypeError(
                "Expected a penalty such as `kx.trees.TreeDistillation()`. "
                f"Received: penalty={self.penalty!r} of type {type(self.penalty).__name__}."
            )
        checks.count("min_samples_leaf", self.min_samples_leaf)
        checks.choice("over_regions", self.over_regions, ("sum", "max", "sparsemax"))
        if self.subsample is not None:
            checks.count("subsample", self.subsample)
        self._check_regions()

    def _check_regions(self) -> None:
        if self.regions is None or callable(self.regions):
            return
        checks.count("regions", self.regions)
        if self.regions > 1 and self.layer is not None:
            raise ValueError(
                "Expected `regions` to be a function of the layer's units, which change while the "
                f"model trains, so that k-means finds no lasting regions. Received: "
                f"regions={self.regions}, layer={self.layer!r}."
            )

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.layer is None else (self.layer,)

    def live(self, name: str, model: keras.Model, retrace: Callable[[], None]) -> LiveTree:
        return LiveTree(self, name, model, retrace)

    def loss(self, batch: Batch) -> Tensor:
        """By `LiveTree`, which has the reference.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("Expected the term at work. Received: its configuration alone.")

    def get_config(self) -> dict[str, Any]:
        """The fields as plain values, without the data."""
        if getattr(self.regions, "__name__", "") == "<lambda>":
            raise ValueError(
                "Expected `regions` to be a function with a name, to save a model with it. "
                "Received: a lambda."
            )
        return super().get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The configuration that `get_config` described, whose reference is to be set later."""
        return super().from_config({"reference": LATER, **config})
