"""Layer conductance and internal influence: what a layer does for a score, along an input path."""

import abc
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data import baselines
from keras_explain.core.explainer import Explainer
from keras_explain.core.model.points import between, per_row
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


def pieces(steps: int) -> dict[str, np.ndarray]:
    """The Gauss-Legendre nodes of [0, 1], each with the ends of the piece that it stands for.

    The pieces are as long as the weights. The sum of `f(node) (g(end) - g(begin))` is the integral
    of `f dg`, exactly where f is constant, and where g is linear and f of degree `2 steps - 1`.

    Args:
        steps: The number of nodes.

    Returns:
        `"node"`, `"begin"`, `"end"` and `"weight"`, float32 `[steps]`.
    """
    node, weight = np.polynomial.legendre.leggauss(steps)
    edges = np.concatenate([[0.0], np.cumsum(weight / 2)[:-1], [1.0]])
    found = {"node": (node + 1) / 2, "begin": edges[:-1], "end": edges[1:], "weight": weight / 2}
    return {name: values.astype(np.float32) for name, values in found.items()}


class _AlongThePath(Explainer, abc.ABC):
    """What the two share: the straight line of inputs from a baseline."""

    layer: Any
    steps: int = 50
    baseline: Any = 0.0
    call: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.call_of(self.layer, self.call)
        checks.count("steps", self.steps)

    @property
    def plan(self) -> Plan:
        return Plan(values="input")

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def passes(self, seed: int) -> dict[str, Any]:
        return pieces(self.steps)

    def _start(self, probe: Probe) -> Any:
        return probe.point(probe.baseline(self.baseline))


class LayerConductance(_AlongThePath):
    """How much of the change from a baseline x' to the input x flows through each unit of a layer.

    `values_j = integral over a in [0, 1] of dS_c / dy_j * dy_j / da da`, at `x' + a (x - x')`

    y is the layer's output, whose shape the values have, `[B, ...]`; a layer that is called more
    than once gives a list, in the order in which Keras runs the calls. The integral is a sum over
    pieces of the line: the gradient at a Gauss-Legendre node times the change of y over the piece,
    which needs no derivative of y.

    Where every way from the input to the score leads through the layer (once), the values sum to
    `S_c(x) - S_c(x')`. How far they are from it is in `extras["convergence_delta"]` `[B]`, and
    `S_c(x')` in `extras["base_values"]` `[B]`.

    Args:
        layer: The layer, its name, or a path into nested models (`"backbone/conv_last"`).
        steps: The number of pieces.
        baseline: As in `IntegratedGradients`.
        call: Which call of a layer that is called more than once, from 0 on. By default all.

    Reference:
        - [Dhamdhere et al., 2018](https://arxiv.org/abs/1805.12233), equation 2
    """

    @property
    def plan(self) -> Plan:
        return replace(
            super().plan, unit="score", measured_from="own reference", references=self._reference
        )

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        start = self._start(probe)
        gradient = probe.inside(self.layer, between(start, x, pass_["node"]), target, self.call)[1]
        before = probe.output_of(self.layer, between(start, x, pass_["begin"]), self.call)
        after = probe.output_of(self.layer, between(start, x, pass_["end"]), self.call)
        return tree.map_structure(lambda g, a, b: g * (b - a), gradient, before, after)

    def _reference(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return probe.baseline(self.baseline)


class InternalInfluence(_AlongThePath):
    """How strongly the score reacts to each unit of a layer, on the way from a baseline to x.

    `values_j = integral over a in [0, 1] of dS_c / dy_j da`, at `x' + a (x - x')`

    y is the layer's output, whose shape the values have, `[B, ...]`; a layer that is called more
    than once gives a list, in the order in which Keras runs the calls. The integral is a
    Gauss-Legendre sum.

    Args:
        layer: The layer, its name, or a path into nested models (`"backbone/conv_last"`).
        steps: The number of points on the line.
        baseline: As in `IntegratedGradients`.
        call: Which call of a layer that is called more than once, from 0 on. By default all.

    Reference:
        - [Leino et al., 2018](https://arxiv.org/abs/1802.03788), definition 1, with the inputs of
          the line spread evenly as distribution of interest
    """

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        point = between(self._start(probe), x, pass_["node"])
        gradient = probe.inside(self.layer, point, target, self.call)[1]
        return tree.map_structure(lambda g: ops.multiply(g, per_row(pass_["weight"], g)), gradient)
