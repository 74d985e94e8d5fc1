"""Guided Integrated Gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data import baselines
from keras_explain.core.explainer import Explainer
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


class GuidedIG(Explainer):
    """Integrated Gradients along a path that first goes where the gradient is small.

    `values = integral of dS_c(z) / dz dz`, along a path of z from a baseline x' to the input x

    Each of the steps goes an equal share of the L1 distance from x' to x. It spends it on the
    features with the least |gradient|: the least `fraction` of all features go towards x, at one
    common rate; where they have arrived and the step is not spent, the next ones go. So noise from
    where the gradient is large, off the data, is left out. No feature's share of its way is further
    than `max_distance` from that of the straight line.

    The integral is a trapezoid sum: the gradients before and after each step count half. (The
    paper's takes the one before alone, and errs by an order more.) The values, of the input's
    shape, sum to about `S_c(x) - S_c(x')`; how far they are from it is in
    `extras["convergence_delta"]` `[B]`, and `S_c(x')` in `extras["base_values"]` `[B]`.

    Args:
        steps: The number of steps, one after the other.
        fraction: The share of the features that go together, in (0, 1].
        max_distance: How far from the straight line, as a share of the way: 0 is the straight line
            (Integrated Gradients by the trapezoid rule), 1 does not bound the path.
        baseline: As in `IntegratedGradients`.

    Reference:
        - [Kapishnikov et al., 2021](https://arxiv.org/abs/2106.09788), section 4 and algorithm 1
    """

    steps: int = 50
    fraction: float = 0.25
    max_distance: float = 0.02
    baseline: Any = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("steps", self.steps)
        for name in ("fraction", "max_distance"):
            checks.share(name, getattr(self, name))
        if not 0 < self.fraction <= 1:
            raise ValueError(
                f"Expected `fraction` above 0, up to 1. Received: fraction={self.fraction}."
            )

    @property
    def plan(self) -> Plan:
        return replace(
            super().plan, unit="score", measured_from="own reference", references=self._reference
        )

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        # The loop may use what was made before it, but what is made inside stays inside.
        probe.scores(x, target)
        start = probe.point(probe.baseline(self.baseline))
        way = _flat(tree.map_structure(ops.subtract, x, start))  # [n, N]

        def go_on(i: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
            share, moved, total = state
            point = tree.map_structure(ops.add, start, _like(start, share * way))
            gradient = _flat(probe.gradient(point, target))
            alpha = ops.minimum(ops.cast(i + 1, "float32") / self.steps, 1.0)
            further = self._further(share, gradient, ops.abs(way), alpha)
            move = (further - share) * way
            return further, move, total + gradient * (moved + move) / 2

        state = (ops.zeros_like(way),) * 3
        return _like(start, ops.fori_loop(0, self.steps + 1, go_on, state)[2])

    def _reference(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return probe.baseline(self.baseline)

    def _further(self, share: Any, gradient: Any, length: Any, alpha: Any) -> Any:
        """The share of its way that each feature has gone after a step, `[n, N]`.

        Args:
            share: That before the step.
            gradient: The gradient there.
            length: How long each feature's whole way is.
            alpha: The mean share, weighted by length, after the step.
        """
        low = ops.maximum(alpha - self.max_distance, 0.0)
        high = ops.minimum(alpha + self.max_distance, 1.0)
        share = ops.maximum(share, low)
        left = ops.sum(length * (alpha - share), axis=1, keepdims=True)
        room = length * ops.maximum(high - share, 0.0)
        size = ops.where(room > 0, ops.abs(gradient), np.inf)
        return share + _rates(size, room, ops.maximum(left, 0.0), self.fraction) * (high - share)


def _rates(size: Any, room: Any, left: Any, fraction: float) -> Any:
    """The share of its room that each feature goes, the least sizes first, `[n, N]`.

    Args:
        size: What the features are ordered by, `[n, N]`; infinite for those that stay.
        room: How far each can go, `[n, N]`.
        left: How far they go together, `[n, 1]`.
        fraction: The share of the features that go at one rate; equal sizes go together.
    """
    n = size.shape[1]
    block = int(fraction * (n - 1)) + 1
    ordered = ops.sort(size, axis=1)

    def some_left(rates: Any, gone: Any, largest: Any, left: Any) -> Any:
        return ops.any(ops.logical_and(left > 0, gone < n))

    def next_block(rates: Any, gone: Any, largest: Any, left: Any) -> tuple[Any, ...]:
        last = ops.minimum(gone + block, n) - 1
        up_to = ops.take_along_axis(ordered, last, axis=1)
        members = (size > largest) & (size <= up_to) & (size < np.inf)
        total = ops.sum(ops.where(members, room, 0.0), axis=1, keepdims=True)
        rate = ops.where(total > left, left / ops.maximum(total, left), 1.0)
        rates = ops.where(members, rate, rates)
        gone = ops.sum(ops.cast(size <= up_to, "int32"), axis=1, keepdims=True)
        return rates, gone, up_to, ops.maximum(left - total, 0.0)

    none = ops.zeros_like(left)
    state = (ops.zeros_like(size), ops.cast(none, "int32"), none - 1, left)
    return ops.while_loop(some_left, next_block, state, maximum_iterations=-(-n // block))[0]


def _flat(point: Any) -> Any:
    """The features `[n, N]` of a nest `[n, ...]`."""
    rows = [ops.reshape(leaf, (-1, _features(leaf))) for leaf in tree.flatten(point)]
    return ops.concatenate(rows, axis=1)


def _like(point: Any, features: Any) -> Any:
    """Features `[n, N]` as a nest of the shapes of `point`."""
    leaves = tree.flatten(point)
    ends = np.cumsum([_features(leaf) for leaf in leaves])
    shaped = [
        ops.reshape(features[:, end - _features(leaf) : end], (-1, *leaf.shape[1:]))
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return tree.pack_sequence_as(point, shaped)


def _features(leaf: Any) -> int:
    return int(np.prod(leaf.shape[1:]))
