"""Integrated Gradients."""

from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from keras_explain.core import checks
from keras_explain.core.data import baselines
from keras_explain.core.explainer import Attribution
from keras_explain.core.model.points import between
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


class IntegratedGradients(Attribution):
    """The gradient averaged along the straight line from a baseline x' to the input x.

    `values = (x - x') * integral over a in [0, 1] of dS_c(x' + a (x - x')) / dx`

    The integral is a Gauss-Legendre sum, which is exact for polynomials of degree `2 steps - 1`.
    The values sum to `S_c(x) - S_c(x')`; how far they are from it is in
    `extras["convergence_delta"]` `[B]`, and `S_c(x')` in `extras["base_values"]` `[B]`.

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
            return replace(super().plan, unit="score per input")
        return replace(
            super().plan, unit="score", measured_from="own reference", references=self._reference
        )

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def passes(self, seed: int) -> dict[str, Any]:
        node, weight = np.polynomial.legendre.leggauss(self.steps)
        return {
            "alpha": ((node + 1) / 2).astype(np.float32),
            "weight": (weight / 2).astype(np.float32),
        }

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        point = between(self._start(probe), x, pass_["alpha"])
        return probe.gradient(point, target, weight=pass_["weight"])

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        if not self.multiply_by_inputs:
            return total
        return tree.map_structure(lambda t, a, b: t * (b - a), total, self._start(probe), x)

    def _reference(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return probe.baseline(self.baseline)

    def _start(self, probe: Probe) -> Any:
        return probe.point(probe.baseline(self.baseline))
