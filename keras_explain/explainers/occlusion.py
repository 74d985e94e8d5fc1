"""Occlusion: a window slides over the input and hides it."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.hiding.engine import for_rows
from keras_explain.core.hiding.features import Features
from keras_explain.core.hiding.perturbation import Perturbation
from keras_explain.core.hiding.places import per_axis, places
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.reductions import Weighted


class Occlusion(Perturbation):
    """What the score loses when a window of the input is hidden.

    `value of a place = mean over the windows w that cover it of S_c(x) - S_c(x without w)`

    The windows slide over all spatial axes; the last ones end at the edge. `values` have the
    input's shape without channels (`[B, H, W]`, `[B, T]`); of tables and token ids its shape.

    Args:
        patch: The length of the window, or one for each spatial axis. By default 1 for tables and
            tokens, a 20th of a series, an 8th of each side of pictures and volumes.
        stride: How far the window moves, likewise; by default half its length.
        features: As in `FeatureAblation`; the window then covers so many features, in the order of
            their numbers. By default tokens of a text; all else is hidden place by place.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Reference:
        - [Zeiler and Fergus, 2014](https://arxiv.org/abs/1311.2901), section 4.2
    """

    patch: Any = None
    stride: Any = None

    reduce = Weighted()

    @property
    def plan(self) -> Plan:
        return replace(super().plan, missing=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patch", "stride"):
            value = getattr(self, name)
            for length in value if isinstance(value, tuple) else (value,):
                if length is not None:
                    checks.count(name, length)

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        return self.default_tokens() if are_tokens else None

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        """Windows as ints: the input, or -1 for features, and the first place along each axis."""
        windows = [[_FEATURES, *start] for start in _starts((count,), *self._along_features())]
        for i, leaf in enumerate(tree.flatten(x)):
            if str(i) not in labelled:
                sides = places(leaf.shape)
                starts = _starts(sides, *self._along_axes(sides, leaf.ndim <= 2))
                windows += [[i, *start] for start in starts]
        width = max(map(len, windows))
        return {"window": np.array([w + [0] * (width - len(w)) for w in windows], np.int32)}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        labels, window = pass_.shared["labels"], pass_.once["window"]
        covered = []  # [passes, samples or 1, *places]
        for i, sides in enumerate(probe.overlay.sides):
            if str(i) in labels:
                inside = _inside(labels[str(i)][None], window[:, 1], self._along_features()[0][0])
            else:
                lengths = self._along_axes(sides, probe.layouts[i].rank <= 2)[0]
                inside = _box(sides, window[:, 1:], lengths)[:, None]
            mine = ops.equal(window[:, 0], _FEATURES if str(i) in labels else i)
            covered.append(inside & ops.reshape(mine, (-1,) + (1,) * (len(inside.shape) - 1)))
        score = self.hiding.scores(probe, target, pass_, [ops.logical_not(c) for c in covered])
        lost = pass_.for_rows(pass_.scores) - score
        return {"weight": [for_rows(ops.cast(c, "float32"), pass_) for c in covered], "score": lost}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        leaves = [
            lost / ops.maximum(count, 1.0)[:, None]
            for lost, count in zip(total["sum"], total["weight"], strict=True)
        ]
        return tree.pack_sequence_as(probe.inputs, leaves)

    def _along_features(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Length and stride of the window over features."""
        patch = self.patch if isinstance(self.patch, int) else 1
        stride = self.stride if isinstance(self.stride, int) else -(-patch // 2)
        return (patch,), (stride,)

    def _along_axes(
        self, sides: tuple[int, ...], are_columns: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Length and stride of the window along each axis of an input's places."""
        parts = sides if are_columns else (20,) if len(sides) == 1 else (8,) * len(sides)
        default = tuple(math.ceil(n / m) for n, m in zip(sides, parts, strict=True))
        patch = per_axis("patch", self.patch or default, sides)
        patch = tuple(min(length, side) for length, side in zip(patch, sides, strict=True))
        halves = tuple(math.ceil(length / 2) for length in patch)
        stride = per_axis("stride", self.stride or halves, sides)
        if any(step > length for length, step in zip(patch, stride, strict=True)):
            raise ValueError(
                "Expected a stride of at most the window's length, so that every place is "
                f"covered. Received: stride={stride}, for windows of {patch}."
            )
        return patch, stride


_FEATURES = -1


def _starts(
    sides: tuple[int, ...], patch: tuple[int, ...], stride: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Where windows begin along each axis; the last one ends at the edge."""
    along = [
        [*range(0, side - length, step), max(0, side - length)] if side else []
        for side, length, step in zip(sides, patch, stride, strict=True)
    ]
    return list(itertools.product(*along))


def _box(sides: tuple[int, ...], start: Any, lengths: tuple[int, ...]) -> Any:
    """Whether each place is inside a window, `[n, *sides]`, of its first place, `[n, axes]`."""
    inside = ops.ones((ops.shape(start)[0], *(1 for _ in sides)), "bool")
    for axis, (side, length) in enumerate(zip(sides, lengths, strict=True)):
        along = _inside(ops.arange(side)[None], start[:, axis], length)
        shape = [-1, *(side if i == axis else 1 for i in range(len(sides)))]
        inside = inside & ops.reshape(along, shape)
    return inside


def _inside(position: Any, start: Any, length: int) -> Any:
    start = ops.reshape(start, (-1,) + (1,) * (len(position.shape) - 1))
    return (position >= start) & (position < start + length)
