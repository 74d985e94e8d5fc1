"""Saliency and Input x Gradient."""

from dataclasses import replace
from typing import Any

from keras import ops, tree

from keras_explain.core.explainer import Attribution
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


class Saliency(Attribution):
    """How strongly the score reacts to each input feature: its gradient.

    `values = |dS_c / dx|`, of the input's shape; signed with `absolute=False`.

    Args:
        absolute: Whether to take the magnitude.

    Reference:
        - [Simonyan et al., 2014](https://arxiv.org/abs/1312.6034), section 3.1
    """

    absolute: bool = True

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit="score per input", signed=not self.absolute)

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        gradient = probe.gradient(x, target)
        return tree.map_structure(ops.absolute, gradient) if self.absolute else gradient


class InputXGradient(Attribution):
    """The first-order share of each feature in the score.

    `values = x * dS_c / dx`, of the input's shape. For a network of ReLUs without biases they sum
    to the score.

    Reference:
        - [Shrikumar et al., 2016](https://arxiv.org/abs/1605.01713)
    """

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit="score")

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        return tree.map_structure(ops.multiply, x, probe.gradient(x, target))
