"""DeepLIFT and DeepSHAP."""

import abc
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from keras import ops, tree

from keras_explain.core.data import background, baselines
from keras_explain.core.explainer import Attribution
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.steps import Call
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.reductions import Mean
from keras_explain.core.selection import (
    check_selectors,
    is_recurrent,
    matches,
    selectors,
    warn_of_one_step,
)
from keras_explain.explainers.multipliers import Rescale, RevealCancel

Tensor = Any
Nest = Any


class _Differences(Attribution, abc.ABC):
    """Contributions to the score's difference from that of a reference."""

    opaque: Any = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "opaque", selectors(self.opaque))

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit="score", measured_from="base values")

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return total["values"]

    def extras(self, total: Any) -> dict[str, Any]:
        return {"base_values": total["base"]}

    def contributions(
        self,
        probe: Probe,
        x: Nest,
        start: Nest,
        shared: Tensor | bool,
        target: Tensor,
        rule: type[Rescale],
        computation: Computation | None = None,
    ) -> dict[str, Any]:
        """`m * (x - x')`, and the score of the reference x' for each row.

        Args:
            probe: The opened model.
            x: The point.
            start: References, inputs `[n, ...]`.
            shared: Whether all rows have the same one, of which one row is enough then.
            target: Ints `[n, 1]`.
            rule: How multipliers go back.
            computation: That of the scores at the point, where it is made.
        """
        computation = computation or self.computation(probe, x, target)
        if probe.takes_any_rows and computation.keeps_rows and shared is not False:
            rows = ops.where(shared, 1, ops.shape(probe.row)[0])
            start = tree.map_structure(lambda leaf: leaf[:rows], start)
        start = probe.point(start)
        reference = self.computation(probe, start, target)
        for step in computation.steps:
            if step.type == "Layer" and not matches(self.opaque, step.call):
                warn_of_one_step(step)
        m = tree.pack_sequence_as(x, rule(computation, reference).multipliers())
        values = tree.map_structure(lambda m, a, b: m * (a - b), m, x, start)
        return {"values": values, "base": reference.result[:, 0]}

    def computation(self, probe: Probe, x: Nest, target: Tensor) -> Computation:
        """What leads from a point to the scores."""
        found = probe.forward(x, target, own=True).computation(opaque=self._is_opaque)
        check_selectors("opaque", self.opaque, found.calls)
        return found

    def _is_opaque(self, call: Call) -> bool:
        return is_recurrent(call) or matches(self.opaque, call)


class DeepLIFT(_Differences):
    """Shares of the score's change from a reference, by one pass back through the model.

    `values = m * (x - x')`, where the multipliers m go back from the score by the chain rule:
    through a linear layer as the gradient does, through a nonlinearity f as its slope
    `(f(z) - f(z')) / (z - z')`. Products, maxima and softmax have rules of their own, so the values
    sum to `S_c(x) - S_c(x')` on any architecture; by how much they fail to, in float32, is in
    `extras["convergence_delta"]` `[B]`, and `S_c(x')` in `extras["base_values"]` `[B]`.

    Args:
        layer: The layer whose output is explained in place of the input.
        baseline: The reference x', as in `IntegratedGradients`.
        rule: `"rescale"`, or `"reveal_cancel"`, which treats the positive and the negative part of
            what enters a nonlinearity apart, and so sees what cancels out.
        opaque: Layers that are taken as one step each, by their gradient, because an operation in
            them has no rule: classes, names of classes, or patterns of layer paths as in `fnmatch`.
            What comes before one sums to its gradient times the change of its input, which is the
            score's change only approximately. Recurrent layers always are.

    Raises:
        ValueError: An operation that depends on the input has no rule.

    Reference:
        - [Shrikumar et al., 2017](https://arxiv.org/abs/1704.02685), sections 3.2 to 3.5
    """

    baseline: Any = 0.0
    rule: Literal["rescale", "reveal_cancel"] = "rescale"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in _RULES:
            raise ValueError(f"Expected a rule of {tuple(_RULES)}. Received: rule={self.rule!r}.")

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        start = probe.baseline(self.baseline)
        shared = baselines.is_shared(self.baseline, probe.inputs)
        return self.contributions(probe, x, start, shared, target, _RULES[self.rule])


class DeepSHAP(_Differences):
    """DeepLIFT in expectation over a background: approximate Shapley values.

    `values = mean over x' of DeepLIFT(x, x')`, x' the rows of the background. They sum to the score
    less the mean score of the background, which is in `extras["base_values"]` `[B]`; what is
    missing is in `extras["convergence_delta"]` `[B]`.

    Args:
        layer: The layer whose output is explained in place of the input.
        background: Rows `[N, ...]` that stand for "a feature is not known", of the input's nest.
        opaque: As in `DeepLIFT`.

    Reference:
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874), section 4.2
    """

    background: Any

    reduce = Mean()

    @property
    def plan(self) -> Plan:
        return replace(super().plan, ahead=self._ahead)

    def _ahead(self, probe: Probe, x: Nest, target: Tensor) -> tuple[Computation, Nest]:
        made = self.computation(probe, x, target)
        zeros = {
            "values": tree.map_structure(ops.zeros_like, x),
            "base": ops.zeros_like(made.result[:, 0]),
        }
        return made, zeros

    def check(self, x: Any) -> None:
        background.check(self.background, x)

    def passes(self, seed: int) -> dict[str, Any]:
        return {"reference": np.arange(background.size(self.background), dtype=np.int32)}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        reference = pass_["reference"]
        start = background.rows(self.background, probe.inputs, reference)
        shared = ops.all(reference == reference[:1])
        return self.contributions(probe, x, start, shared, target, Rescale, pass_.ahead)


_RULES = {"rescale": Rescale, "reveal_cancel": RevealCancel}
