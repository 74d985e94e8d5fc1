"""Integrated Gradients."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from keras_explain.core import checks
from keras_explain.core.data import baselines
from keras_explain.core.explainer import Attribution
from keras_explain.core.model.points import between, per_row
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


class IntegratedGradients(Attribution):
    """The gradient averaged along the straight line from a baseline x' to the input x.

    `values = (x - x') * integral over a in [0, 1] of dS_c(x' + a (x - x')) / dx`

    The integral is a Gauss-Legendre sum, which is exact for polynomials of degree `2 steps - 1`.
    The values sum to `S_c(x) - S_c(x')`; how far they are from it is in
    `extras["convergence_delta"]` `[B]`, and `S_c(x')` in `extras["base_values"]` `[B]`.

    That gap says little of the values, whose errors cancel in it. `extras["value_error"]` `[B]`
    estimates the relative error of the values themselves, `||values - integral|| / ||values||`, at
    no further pass: by half the difference of the two interpolatory sums over every other point,
    divided by `sqrt(3)`, since a jump of the gradient between two points is missed by an error that
    is uniform within that half difference. It is NaN for one step. Beside 1,000 and more midpoints
    it was 0.7 to 1.2 times the true error for networks with rectifiers, whose gradients jump at
    many places (a CNN of 28 x 28 pictures, MobileNetV2; 8 to 200 steps), 0.4 to 2.7 times for one
    with few (an MLP; from 8 steps on, and down to 0.2 times for single rows at 5 and fewer), and
    above the true error for smooth ones, whose error 50 steps leave below rounding.

    Args:
        steps: The number of points on the line.
        baseline: A number, an array of one sample's shape or `[B, ...]`, or an object of
            `keras_explain.baselines`; for several inputs also a list or dict of these. For token
            ids, the ids whose embeddings are the baseline.
        multiply_by_inputs: Whether to multiply by `x - x'`; without it the values are the averaged
            gradient (and have no convergence delta).

    Reference:
        - [Sundararajan et al., 2017](https://arxiv.org/abs/1703.01365), equation 1
    """

    steps: int = 50
    baseline: Any = 0.0
    multiply_by_inputs: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("steps", self.steps)

    @property
    def plan(self) -> Plan:
        if not self.multiply_by_inputs:
            return replace(super().plan, unit="score per input", value_error=self._error)
        return replace(
            super().plan,
            unit="score",
            measured_from="own reference",
            references=self._reference,
            value_error=self._error,
        )

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def passes(self, seed: int) -> dict[str, Any]:
        node, weight = np.polynomial.legendre.leggauss(self.steps)
        passes = {
            "alpha": (node + 1) / 2,
            "weight": weight / 2,
            "error": _half_difference(node, weight) / math.sqrt(3) / weight,
        }
        return {name: of.astype(np.float32) for name, of in passes.items()}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        point = between(self._start(probe), x, pass_["alpha"])
        gradient = probe.gradient(point, target, weight=pass_["weight"])
        error = tree.map_structure(lambda g: g * per_row(pass_["error"], g), gradient)
        return {"gradient": gradient, "error": error}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return self._attributed(probe, total["gradient"], x)

    def _error(self, probe: Probe, total: Any, x: Any) -> Any:
        return self._attributed(probe, total["error"], x)

    def _attributed(self, probe: Probe, gradient: Any, x: Any) -> Any:
        if not self.multiply_by_inputs:
            return gradient
        return tree.map_structure(lambda g, a, b: g * (b - a), gradient, self._start(probe), x)

    def _reference(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return probe.baseline(self.baseline)

    def _start(self, probe: Probe) -> Any:
        return probe.point(probe.baseline(self.baseline))


def _half_difference(node: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weights `[steps]` of half the difference of two sums, each of every other node.

    Each sum is of the polynomial through its nodes, which the rule of all nodes integrates exactly:
    the weight of a node that it lacks goes to its own. One node has no other.
    """
    if len(node) == 1:
        return np.full(1, np.nan)
    difference = np.empty(len(node))
    for first, sign in ((0, 0.5), (1, -0.5)):
        own, lacking = slice(first, None, 2), slice(1 - first, None, 2)
        shared = weight[lacking, None] * _lagrange(node[own], node[lacking])
        difference[own] = sign * (weight[own] + shared.sum(axis=0))
    return difference


def _lagrange(node: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The Lagrange polynomials of nodes in [-1, 1] at other places, `[places, nodes]`."""
    apart = 2 * (node[:, None] - node)  # doubled, so that products stay of an order
    np.fill_diagonal(apart, 1)
    share = 1 / apart.prod(axis=1) / (at[:, None] - node)
    return share / share.sum(axis=1, keepdims=True)
