"""Saliency and Input x Gradient."""

from typing import Any

from keras import ops, tree

from keras_explain.core.explainer import Attribution
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.precision import Unit


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
    def unit(self) -> Unit | None:
        return "score per input"

    @property
    def is_signed(self) -> bool:
        return not self.absolute

    def step(self, probe: Probe, x: Any, target: Any, pass_: dict[str, Any]) -> Any:
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
    def unit(self) -> Unit | None:
        return "score"

    def step(self, probe: Probe, x: Any, target: Any, pass_: dict[str, Any]) -> Any:
        return tree.map_structure(ops.multiply, x, probe.gradient(x, target))
