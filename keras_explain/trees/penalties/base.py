"""What a penalty is: refitted on the host, evaluated in the training step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain.core.config import Config
from keras_explain.trees.surrogate_tree import SurrogateTree

Tensor = Any
Floats = npt.NDArray[np.float32]


class Sizes(NamedTuple):
    """What the shapes of a penalty's state depend on.

    Attributes:
        classes: How many classes the model has.
        regions: How many regions have a tree of their own.
        weights: How many trainable weights the model has.
        outputs: How many probabilities the model returns for the probe rows.
    """

    classes: int
    regions: int
    weights: int
    outputs: int


class Network(abc.ABC):
    """The model as a penalty sees it on the host.

    Attributes:
        sizes: What shapes depend on.
    """

    sizes: Sizes

    @abc.abstractmethod
    def trees(self, max_leaf_nodes: int | None = None) -> list[SurrogateTree]:
        """A tree per region, of at most so many leaves; the measured ones without a limit."""

    @abc.abstractmethod
    def weights(self) -> Floats:
        """All trainable weights, `[weights]`."""

    @property
    @abc.abstractmethod
    def ends(self) -> list[int]:
        """Where in `weights()` each of the model's tensors ends, but the last."""

    @abc.abstractmethod
    def outputs(self) -> Floats:
        """Probabilities for the probe rows, `[outputs]`."""

    @abc.abstractmethod
    def at(self, weights: Floats) -> tuple[Floats, Floats]:
        """Probabilities for the probe rows `[outputs]` and path lengths `[regions]`, elsewhere."""


class Step(NamedTuple):
    """One training step as a penalty sees it in the graph.

    Attributes:
        features: What trees ask about, for the rows of the batch, float32 `[n, D]`.
        logits: The model's scores, float32 `[n, C]`.
        weight: How much each row counts in each region, float32 `[n, R]`.
        weights: A function that returns all trainable weights, float32 `[weights]`.
        probe: A function that returns the probabilities for the probe rows, float32 `[outputs]`.
    """

    features: Tensor
    logits: Tensor
    weight: Tensor
    weights: Callable[[], Tensor]
    probe: Callable[[], Tensor]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `[n, R]` over the rows of each region, `[R]`; 0 for a region without rows."""
        total = ops.sum(self.weight, axis=0)
        return ops.sum(self.weight * values, axis=0) / ops.maximum(total, 1)


class Penalty(Config, abc.ABC):
    """A term of the loss, as a configuration.

    What it learns on the host, it keeps in arrays of fixed shapes, its *state*, which are
    variables of the model: a training step reads them, and refits change them.
    """

    home = "trees"

    @property
    def probe_rows(self) -> int:
        """How many rows of the reference it wants the model's outputs for, in each step."""
        return 0

    def check(self, sizes: Sizes) -> None:
        """Raises a `ValueError` where it can't serve a model of these sizes."""

    @abc.abstractmethod
    def state(self, sizes: Sizes) -> dict[str, npt.NDArray[Any]]:
        """The state before the first refit."""

    @abc.abstractmethod
    def refit(
        self, network: Network, state: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the state that change, for the model as it is now."""

    @abc.abstractmethod
    def penalty(self, state: Mapping[str, Tensor], step: Step) -> Tensor:
        """The term of each region, float32 `[R]`, in `keras.ops`."""

    def scalars(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Further scalars for the logs, by name."""
        return {}
