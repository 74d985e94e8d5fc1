"""Learned masks: the least that hides the score, and the part of a given area that keeps it."""

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.data.layout import Layout
from keras_explain.core.hiding.engine import looked_up
from keras_explain.core.hiding.features import Columns, Features
from keras_explain.core.hiding.perturbation import Perturbation
from keras_explain.core.hiding.places import places
from keras_explain.core.model.overlay import resize
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.optimise import Judged, optimise
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.core.run.precision import difference
from keras_explain.core.run.reductions import Mean, Reduction

Tensor = Any


class _LearnedMask(Perturbation, abc.ABC):
    """A mask, learned for each row: 1 where the input is seen, 0 where the fill is.

    A subclass defines the loss, and what numbers the mask is made of. What the fields mean is said
    in `MeaningfulPerturbation`.
    """

    cells: int = 14
    steps: int = 200
    rate: float = 0.1
    jitter: float = 0.02
    area_weight: float = 1.0
    variation_weight: float = 1.0

    reduce: ClassVar[Reduction] = Mean()
    start: ClassVar[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("cells", self.cells)
        checks.count("steps", self.steps)
        for name in ("rate", "jitter", "area_weight", "variation_weight"):
            checks.share(name, getattr(self, name))
        if self.rate == 0 or self.jitter >= 1:
            raise ValueError(
                "Expected a `rate` above 0 and a `jitter` below 1. "
                f"Received: rate={self.rate!r}, jitter={self.jitter!r}."
            )

    @abc.abstractmethod
    def optimizer(self) -> keras.optimizers.Optimizer:
        """What the numbers are learned by."""

    @abc.abstractmethod
    def mask_of(self, numbers: Tensor) -> Tensor:
        """The mask `[n, P]`, in [0, 1], of the numbers that are learned."""

    @abc.abstractmethod
    def loss(self, score: Tensor, mask: Tensor, done: Tensor) -> Tensor:
        """What is made least, but for the variation, `[n]`.

        Args:
            score: The score of the masked input, `[n]`: 0 is that of the fill, 1 of the input.
            mask: `[n, P]`.
            done: The share of the steps that are done.
        """

    @abc.abstractmethod
    def importance(self, mask: Tensor) -> Tensor:
        """The values of features and cells, `[n, P]`, of the mask that was learned."""

    def counts(self, gain: Tensor) -> Tensor:
        """Whether a mask says anything, by how much higher the input's score is, `[n]`."""
        return ops.not_equal(gain, 0)

    def bounded(self, numbers: Tensor) -> Tensor:
        """What is learned, back where it must stay after a step."""
        return numbers

    @property
    def plan(self) -> Plan:
        return replace(super().plan, classes="one", unit=None)  # a mask

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        if are_tokens:
            return self.default_tokens()
        return Columns() if x.ndim <= 2 else None

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        passes: dict[str, Any] = {"cells": {}, "shift": {}}
        for i, leaf in enumerate(tree.flatten(x)):
            if str(i) not in labelled:
                sides = places(leaf.shape)
                shape = tuple(min(self.cells, side) for side in sides)
                numbers = np.arange(count, count + np.prod(shape), dtype=np.int32)
                passes["cells"][str(i)] = numbers.reshape(1, *shape)
                passes["shift"][str(i)] = self._shifts(sides, seed, stream=i)
                count += numbers.size
        return {"present": np.full((1, max(1, count)), self.start, np.float32), **passes}

    def _shifts(self, sides: tuple[int, ...], seed: int, stream: int) -> np.ndarray:
        """By how many places the mask is moved in each step, ints `[1, steps, axes]`."""
        most = (self.jitter * np.array(sides)).astype(int)
        drawn = backend.random_uniform(seed, (1, self.steps, len(sides)), stream)
        return np.floor(drawn * (2 * most + 1) - most).astype(np.int32)

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        probe.gradient(x, target)  # where there is none, this says so
        fill, laid = probe.point(self.hiding.fill_of_rows(probe, pass_)), _Laid(probe, pass_)

        def score_of(mask: Tensor, shift: Any = None) -> Tensor:
            seen = laid.over_places(mask, shift)
            return probe.scores(_mixed(fill, x, seen, probe.layouts), target)[:, 0]

        hidden = score_of(ops.zeros_like(pass_["present"]))
        gain = difference(probe.scores(x, target)[:, 0], hidden)
        unit = ops.where(gain == 0, 1.0, ops.abs(gain))

        def objective(numbers: Tensor, i: Tensor) -> Judged:
            mask, done = self.mask_of(numbers), ops.cast(i, "float32") / self.steps
            loss = self.loss((score_of(mask, i) - hidden) / unit, mask, done)
            return Judged(loss + self.variation_weight * laid.variation(mask))

        def late_mask(numbers: Tensor, i: Tensor) -> Tensor:
            return ops.where(2 * (i + 1) > self.steps, self.mask_of(numbers), 0.0)

        found = optimise(
            objective,
            pass_["present"],
            self.optimizer,
            steps=self.steps,
            project=self.bounded,
            watch=late_mask,
        )
        mask = found.watched / (self.steps - self.steps // 2)
        mask = ops.where(ops.isfinite(found.loss)[:, None], mask, np.nan)
        values = ops.where(self.counts(gain)[:, None], self.importance(mask), 0.0)
        return {"values": laid.values(values), "score": score_of(mask)}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return tree.pack_sequence_as(probe.inputs, total["values"])

    def extras(self, total: Any) -> dict[str, Any]:
        return {"masked_scores": total["score"]}

    def afterwards(self, x: Any, result: dict[str, Any], share: Share) -> dict[str, Any]:
        more = super().afterwards(x, result, share)
        if len(share.own["labels"]) < len(tree.flatten(x)):
            return more
        values = tree.map_structure(lambda leaf: leaf[:, None], result["values"])
        maps = self.feature_maps(x, values, share)
        return more | tree.map_structure(lambda leaf: leaf[:, 0], maps)


class MeaningfulPerturbation(_LearnedMask):
    """The least that must be hidden for the score to go: a mask that is learned.

    `m* = argmin ReLU(s(m)) + area_weight * mean(1 - m) + variation_weight * mean |dm|^3`,
    `s(m) = (S_c(m x + (1 - m) x') - S_c(x')) / |S_c(x) - S_c(x')|`, `values = 1 - m*`

    The mask m, in [0, 1], has a coarse grid of cells for pictures, series and volumes, interpolated
    linearly, and a number for each column of a table, each token of a text (whose embedding it
    hides) or each of the `features`. `dm` are differences between cells side by side. It is learned
    by Adam from m = 0.01 on (at 1 a saturated model has no slope), and moved a little in each step,
    so that it does not fit single pixels; m* is its mean over the second half of the steps.

    The paper takes a probability for s. Here it is any score, as a share of the way from the
    fill's, below which there is no more to hide, to the input's; so one setting serves all models.
    Where both scores are the same but for rounding, as of a constant model, the values are zero;
    where the fill's is higher, nothing need be hidden. `values` have the input's shape without
    channels (`[B, H, W]`, `[B, T]`); of tables and token ids its shape. `extras["masked_scores"]`
    `[B]` is the score that the mask leaves.

    Args:
        cells: The number of cells along each axis (fewer where it is shorter).
        steps: The number of steps of Adam.
        rate: Its learning rate.
        jitter: How far the mask is moved at most, as a share of each side.
        area_weight: How much it costs to hide all. At 1, hiding a place pays if it takes more of
            the score than an average one; less hides more.
        variation_weight: How much it costs that cells differ from those beside them.
        features: As in `FeatureAblation`; a mask of whole features is learned in place of cells. By
            default columns of a table, and tokens of a text.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`; the paper's is a blur, `keras_explain.baselines.Blur()`.
        background: As in `FeatureAblation`; the values are the mean of a mask for each row of it.

    Reference:
        - [Fong and Vedaldi, 2017](https://arxiv.org/abs/1704.03296), section 4.3, equation 4
    """

    start: ClassVar[float] = 0.01  # at 0, rounding would say on which side of the ReLU s is

    def optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(float(self.rate), epsilon=1e-9)

    def mask_of(self, numbers: Tensor) -> Tensor:
        return numbers

    def counts(self, gain: Tensor) -> Tensor:
        return gain > 0

    def bounded(self, numbers: Tensor) -> Tensor:
        return ops.clip(numbers, 0.0, 1.0)

    def loss(self, score: Tensor, mask: Tensor, done: Tensor) -> Tensor:
        return ops.relu(score) + self.area_weight * ops.mean(1 - mask, axis=1)

    def importance(self, mask: Tensor) -> Tensor:
        return 1 - mask


class ExtremalPerturbation(_LearnedMask):
    """The part of a given area that keeps the score best: a mask that is learned.

    `m* = argmax s(m) - area_weight * mean (sorted(m) - r)^2 - variation_weight * mean |dm|^3`,
    `values = m*`, with s as in `MeaningfulPerturbation`

    The reference r is 0 but for the last `area` of its places, where it is 1: sorted like it, the
    mask is made to have that area, and to be 0 or 1. The mask is a sigmoid of numbers that are
    learned from m = 1/2 on, by Adam with one scale for all of them, so that those the score rises
    most with come first. The area's weight rises to its full one over the first half of the steps.
    What the mask is made of, `values` and `extras` are as in `MeaningfulPerturbation`; its cells,
    interpolated, stand for the paper's smooth maximum. Of an area larger than what the score
    depends on, what the rest covers means nothing.

    Args:
        area: The share of cells, or of features, that the mask keeps (at least one of them).
        cells: As in `MeaningfulPerturbation`.
        steps: As in `MeaningfulPerturbation`.
        rate: As in `MeaningfulPerturbation`.
        jitter: As in `MeaningfulPerturbation`.
        area_weight: How much it costs not to have the area.
        variation_weight: As in `MeaningfulPerturbation`.
        features: As in `MeaningfulPerturbation`.
        groups: As in `FeatureAblation`.
        baseline: As in `MeaningfulPerturbation`.
        background: As in `MeaningfulPerturbation`.

    Reference:
        - [Fong et al., 2019](https://arxiv.org/abs/1910.08485), section 3.1, equations 2 to 4
    """

    area: float = 0.1
    rate: float = 0.3
    area_weight: float = 50.0
    variation_weight: float = 5.0

    start: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("area", self.area)
        if not 0 < self.area <= 1:
            raise ValueError(f"Expected `area` above 0, up to 1. Received: area={self.area!r}.")

    def optimizer(self) -> keras.optimizers.Optimizer:
        return _OneScale(float(self.rate))

    def mask_of(self, numbers: Tensor) -> Tensor:
        return ops.sigmoid(numbers)

    def loss(self, score: Tensor, mask: Tensor, done: Tensor) -> Tensor:
        count = ops.cast(ops.shape(mask)[1], "float32")
        kept = ops.maximum(self.area * count, 1.0)
        after = ops.arange(1, ops.shape(mask)[1] + 1, dtype="float32") - (count - kept)
        wanted = ops.clip(after, 0.0, 1.0)
        off = ops.mean(ops.square(ops.sort(mask, axis=1) - wanted), axis=1)
        return ops.minimum(2 * done, 1.0) * self.area_weight * off - score

    def importance(self, mask: Tensor) -> Tensor:
        return mask


class _Laid:
    """Masks `[n, P]` of features and cells, laid over the places of the input's leaves.

    Args:
        probe: The opened model.
        pass_: What the step received.
    """

    def __init__(self, probe: Probe, pass_: Pass) -> None:
        self._cells, self._shift = pass_["cells"], pass_["shift"]
        self._labels = pass_.for_rows(pass_.shared["labels"]) | self._cells
        self._sides = probe.overlay.sides

    def over_places(self, mask: Tensor, step: Any = None) -> list[Tensor]:
        """How much of each place is seen, `[n, *places]` a leaf, with the mask moved in a step."""
        seen = [self._resized(looked_up(mask, self._labels[i]), i) for i in self._leaves]
        if step is None:
            return seen
        return [self._moved(s, i, step) for s, i in zip(seen, self._leaves, strict=True)]

    def values(self, values: Tensor) -> list[Tensor]:
        """Values at each place; 0 at what is of no feature."""
        labels = [self._labels[i] for i in self._leaves]
        found = [ops.where(where < 0, 0.0, looked_up(values, where)) for where in labels]
        return [self._resized(v, i) for v, i in zip(found, self._leaves, strict=True)]

    def variation(self, mask: Tensor) -> Tensor:
        """The mean of `|dm|^3` between cells side by side, summed over axes and leaves, `[n]`."""
        total = ops.zeros_like(mask[:, 0])
        for labels in self._cells.values():
            grid = looked_up(mask, labels)
            axes = tuple(range(1, len(grid.shape)))
            cells = float(np.prod(grid.shape[1:]))
            for axis in axes:
                change = ops.abs(ops.diff(grid, axis=axis))
                total = total + ops.sum(change**3, axis=axes) / cells
        return total

    @property
    def _leaves(self) -> list[str]:
        return [str(i) for i in range(len(self._sides))]

    def _resized(self, mask: Tensor, leaf: str) -> Tensor:
        sides = self._sides[int(leaf)]
        return mask if tuple(mask.shape[1:]) == sides else resize(mask, sides)

    def _moved(self, seen: Tensor, leaf: str, step: Any) -> Tensor:
        if leaf not in self._cells:
            return seen
        shift = ops.take(self._shift[leaf][0], step, axis=0)  # rows share what is drawn
        return ops.roll(seen, shift, axis=tuple(range(1, len(seen.shape))))


def _mixed(fill: Any, x: Any, seen: list[Tensor], layouts: Sequence[Layout]) -> Any:
    """The points `fill + seen * (x - fill)` of nests."""
    parts = zip(tree.flatten(fill), tree.flatten(x), seen, layouts, strict=True)
    leaves = [f + at.over_channels(s, len(f.shape)) * (a - f) for f, a, s, at in parts]
    return tree.pack_sequence_as(x, leaves)


class _OneScale(keras.optimizers.Optimizer):
    """Adam, but for the scale of its steps: that of all numbers, in place of each one's own."""

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        made = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        (self.momentum,), (self.velocity,) = made

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        square = ops.mean(ops.square(gradient))
        self.assign(self.momentum, 0.9 * self.momentum + 0.1 * gradient)
        self.assign(self.velocity, 0.999 * self.velocity + 0.001 * square)
        t = ops.cast(self.iterations + 1, variable.dtype)
        mean, square = self.momentum / (1 - 0.9**t), self.velocity / (1 - 0.999**t)
        self.assign_sub(variable, learning_rate * mean / (ops.sqrt(square) + 1e-8))
