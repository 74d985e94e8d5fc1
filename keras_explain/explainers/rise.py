"""RISE: random masks, weighed by the scores that they leave."""

from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.engine import for_rows, seen
from keras_explain.core.hiding.features import Columns, Features
from keras_explain.core.hiding.perturbation import Perturbation
from keras_explain.core.hiding.places import places
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass
from keras_explain.core.run.reductions import Weighted


class RISE(Perturbation):
    """How much better the score is where a place is seen, over random masks.

    `value of a place = E[S_c(x masked by m) | the place is seen] - E[S_c(x masked by m)]`,
    estimated by `sum_i S_i m_i / sum_i m_i - mean of S_i`

    A mask is a coarse grid of zeros and ones, each 1 with probability `keep`, interpolated
    bilinearly at a random offset. The mean score, which the paper's map has on top, is taken off,
    so that the values are signed, and 0 where the score depends on nothing. `values` have the
    input's shape without channels (`[B, H, W]`, `[B, T]`); of tables and token ids its shape.

    Args:
        masks: The number of masks.
        cells: The number of cells of the grid along each axis.
        keep: The probability that a cell, or a feature, is seen.
        features: As in `FeatureAblation`; whole features are then seen or hidden in place of cells.
            By default columns of a table, and tokens of a text.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Reference:
        - [Petsiuk et al., 2018](https://arxiv.org/abs/1806.07421), equations 3 to 6
    """

    masks: int = 4000
    cells: int = 7
    keep: float = 0.5

    reduce = Weighted()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("masks", self.masks)
        checks.count("cells", self.cells)
        if not isinstance(self.keep, (int, float)) or not 0 < self.keep < 1:
            raise ValueError(f"Expected `keep` between 0 and 1. Received: keep={self.keep!r}.")

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        if are_tokens:
            return self.default_tokens()
        return Columns() if x.ndim <= 2 else None

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        def kept(*shape: int, stream: int) -> np.ndarray:
            return backend.random_uniform(seed, (self.masks, *shape), stream) < self.keep

        passes: dict[str, Any] = {
            "present": kept(max(1, count), stream=0),
            "cells": {},
            "offset": {},
        }
        for i, leaf in enumerate(tree.flatten(x)):
            if str(i) not in labelled:
                sides = places(leaf.shape)
                grid = kept(*(self._cells(side) + 2 for side in sides), stream=2 * i + 1)
                passes["cells"][str(i)] = grid.astype(np.float32)
                offset = backend.random_uniform(seed, (self.masks, len(sides)), stream=2 * i + 2)
                passes["offset"][str(i)] = offset
        return passes

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        visible = [
            self._visible(str(i), sides, pass_) for i, sides in enumerate(probe.overlay.sides)
        ]
        score = self.hiding.scores(probe, target, pass_, visible)
        change = score - pass_.for_rows(pass_.scores)  # of a constant model exactly 0
        labels = pass_.shared["labels"]
        weight = [
            v & (labels[str(i)] >= 0) if str(i) in labels else v for i, v in enumerate(visible)
        ]
        weight = [for_rows(ops.cast(w, "float32"), pass_) for w in weight]
        return {"weight": weight, "score": change}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        mean = total["score"] / total["count"]  # [n, K]

        def of_seen(weighted: Any, weight: Any) -> Any:
            weight = weight[:, None]
            known = ops.where(weight > 0, weighted / ops.where(weight > 0, weight, 1.0), 0.0)
            base = ops.reshape(mean, (*ops.shape(mean), *(1 for _ in weight.shape[2:])))
            return ops.where(weight > 0, known - base, 0.0)

        leaves = [of_seen(s, w) for s, w in zip(total["sum"], total["weight"], strict=True)]
        return tree.pack_sequence_as(probe.inputs, leaves)

    def _visible(self, leaf: str, sides: tuple[int, ...], pass_: Pass) -> Any:
        """How much of each place of a leaf is seen, `[passes, samples, *sides]`."""
        if leaf in pass_.shared["labels"]:
            return seen(pass_, leaf)
        once = pass_.once
        return self._interpolated(once["cells"][leaf], once["offset"][leaf], sides)[:, None]

    def _cells(self, side: int) -> int:
        return min(self.cells, side)

    def _interpolated(self, cells: Any, offset: Any, sides: tuple[int, ...]) -> Any:
        """Masks `[n, *sides]` of grids `[n, cells + 2, ...]`, moved by shares of a cell."""
        masks = cells
        for axis, side in enumerate(sides):
            position = ops.arange(side, dtype="float32") * (self._cells(side) / side)
            place = position[None, :, None] + offset[:, axis, None, None]  # [n, side, 1]
            knots = ops.arange(cells.shape[axis + 1], dtype="float32")
            tent = ops.relu(1 - ops.abs(place - knots))  # [n, side, cells + 2]
            masks = ops.einsum("npg,ng...->n...p", tent, masks)
        return masks
