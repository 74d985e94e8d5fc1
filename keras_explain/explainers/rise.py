"""RISE: random masks, weighed by the scores that they leave."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from keras import tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.covariances import covariances
from keras_explain.core.hiding.cut import placed_in
from keras_explain.core.hiding.engine import seen
from keras_explain.core.hiding.features import Columns, Features
from keras_explain.core.hiding.masks import CellMasks, FeatureMasks, Masks
from keras_explain.core.hiding.perturbation import Perturbation
from keras_explain.core.hiding.places import places
from keras_explain.core.model.probe import Probe
from keras_explain.core.run import sureness
from keras_explain.core.run.plan import Pass, Share
from keras_explain.core.run.reductions import Each, Reduction
from keras_explain.core.sampled import Sampled

_ALONE = 128  # so many masks come first, before their complements
_FEATURES = "features"


class RISE(Sampled, Perturbation):
    """How much better the score is where a place is seen, over random masks.

    `value of a place = E[S_c(x masked by m) | the place is seen] - E[S_c(x masked by m)]
    = Cov(S_c(x masked by m), m) / keep`

    A mask is a coarse grid of zeros and ones, each 1 with probability `keep`, interpolated
    bilinearly at a random offset. The mean score, which the paper's map has on top, is taken off,
    so that the values are signed, and 0 where the score depends on nothing. `values` have the
    input's shape without channels (`[B, H, W]`, `[B, T]`); of tables and token ids its shape.

    The paper's estimate `sum_i S_i m_i / sum_i m_i` is made of a part of the score alone. The rest,
    what a ridge regression on the means of the mask's blocks (or on the features) explains of it,
    has a covariance with the mask that is known. The regression for each 16th of the masks is
    fitted to the others, so that the values are unbiased. `extras["standard_error"]` of the values
    is that of the mean over these 16ths; of one mask alone NaN.

    The first 128 masks are independent draws; the next are their complements (`keep` of 1/2; else
    the same draws mirrored), and from then on each draw is followed by its own.

    Args:
        masks: The number of masks; or `"auto"`: 256, 512, ... until `error` is reached.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        cells: The number of cells of the grid along each axis.
        keep: The probability that a cell, or a feature, is seen.
        features: As in `FeatureAblation`; whole features are then seen or hidden in place of cells.
            By default columns of a table, and tokens of a text.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Reference:
        - [Petsiuk et al., 2018](https://arxiv.org/abs/1806.07421), equations 3 to 6
        - [Owen, 2013](https://artowen.su.domains/mc/), chapter 8: antithetic sampling, and
          regression on what has a known mean (control variates)
    """

    masks: int | Literal["auto"] = 4000
    cells: int = 7
    keep: float = 0.5

    counted = "masks"
    reduce: ClassVar[Reduction] = Each()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("cells", self.cells)
        if not isinstance(self.keep, (int, float)) or not 0 < self.keep < 1:
            raise ValueError(f"Expected `keep` between 0 and 1. Received: keep={self.keep!r}.")

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        if are_tokens:
            return self.default_tokens()
        return Columns() if x.ndim <= 2 else None

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        draws, flipped = _draws(self.limit if self.is_auto else int(self.masks))

        def uniform(*shape: int, stream: int) -> np.ndarray:
            return backend.random_uniform(seed, (draws.max() + 1, *shape), stream)

        def kept(*shape: int, stream: int) -> np.ndarray:
            u = uniform(*shape, stream=stream)
            other = flipped.reshape(-1, *(1 for _ in shape))
            return np.where(other, (u >= 1 - self.keep)[draws], (u < self.keep)[draws])

        present = kept(max(1, count), stream=0)
        passes: dict[str, Any] = {"present": present, "cells": {}, "offset": {}}
        for i, leaf in enumerate(tree.flatten(x)):
            if str(i) not in labelled:
                sides = places(leaf.shape)
                grid = kept(*(min(self.cells, side) + 2 for side in sides), stream=2 * i + 1)
                passes["cells"][str(i)] = grid.astype(np.float32)
                passes["offset"][str(i)] = uniform(len(sides), stream=2 * i + 2)[draws]
        return passes

    def stops(self, count: int) -> Sequence[int]:
        return sureness.doubled(2 * _ALONE, self.limit) if self.is_auto else ()

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        visible = [
            self._visible(str(i), sides, pass_) for i, sides in enumerate(probe.overlay.sides)
        ]
        return self.hiding.scores(probe, target, pass_, visible)

    def _visible(self, leaf: str, sides: tuple[int, ...], pass_: Pass) -> Any:
        """How much of each place of a leaf is seen, `[passes, samples, *sides]`."""
        if leaf in pass_.shared["labels"]:
            return seen(pass_, leaf)
        grid, offset = pass_.once["cells"][leaf], pass_.once["offset"][leaf]
        return CellMasks(grid, offset, sides, self.keep).seen[:, None]

    def afterwards(self, x: Any, result: dict[str, Any], share: Share) -> dict[str, Any]:
        super().afterwards(x, result, share)
        masks, (n, classes) = self._masks(x, share), result["scores"].shape
        change = self.hiding.averaged(result["values"]) - result["scores"][:, None]
        change = np.swapaxes(change, 0, 1).reshape(-1, n * classes)  # of a constant model exactly 0
        draws, variance = _draws(len(change))[0], self.keep * (1 - self.keep)
        found = covariances(change, list(masks.values()), draws, variance)

        def nest(maps: Sequence[np.ndarray]) -> Any:
            shaped = [m.reshape(n, classes, *m.shape[1:]) / self.keep for m in maps]
            return _placed(dict(zip(masks, shaped, strict=True)), share.own["labels"], x)

        scores = self.hiding.averaged(result["values"])
        unseen = sureness.unseen(scores, result["scores"].astype(np.float64)).reshape(-1)
        found = [
            (m, np.where(unseen.reshape(-1, *(1 for _ in m.shape[1:])), np.nan, e))
            for m, e in found
        ]
        values, errors = (nest(maps) for maps in zip(*found, strict=True))
        return {"values": values, "standard_error": errors}

    def _masks(self, x: Any, share: Share) -> dict[str, Masks]:
        """The masks of features, and of the cells of each leaf that has none."""
        passes = tree.map_structure(lambda p: p[:: share.repeats], share.passes)
        masks: dict[str, Masks] = {}
        if share.own["labels"]:
            masks[_FEATURES] = FeatureMasks(passes["present"], self.keep)
        for i, leaf in enumerate(tree.flatten(x)):
            if (name := str(i)) in passes["cells"]:
                grid, offset = passes["cells"][name], passes["offset"][name]
                masks[name] = CellMasks(grid, offset, places(leaf.shape), self.keep)
        return masks


def _draws(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which draw each of so many masks is made of, and whether of its complement."""
    i = np.arange(count)
    early = i < 2 * _ALONE
    return np.where(early, i % _ALONE, i // 2), np.where(early, i >= _ALONE, i % 2 == 1)


def _placed(maps: dict[str, np.ndarray], labels: dict[str, np.ndarray], x: Any) -> Any:
    """Maps `[n, K, *places]`, of features `[n, K, M]`, as a nest like `x`."""
    leaves = [
        placed_in(maps[_FEATURES], labels[str(i)])
        if str(i) in labels
        else maps[str(i)].astype(np.float32)
        for i in range(len(tree.flatten(x)))
    ]
    return tree.pack_sequence_as(x, leaves)
