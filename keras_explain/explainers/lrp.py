"""Layer-wise relevance propagation, and Deep Taylor decomposition."""

import abc
from collections import defaultdict
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain.core import rules, selection
from keras_explain.core.data import inputs
from keras_explain.core.explainer import Attribution, Explainer
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.operations import (
    AFFINE,
    CONVOLUTIONS,
    ELEMENTWISE,
    MAXIMA,
    PRODUCTS,
    ROUTING,
)
from keras_explain.core.graph.steps import Affine, Call, Step
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.probe import Probe
from keras_explain.core.model.targets import as_target
from keras_explain.core.rules import Composite
from keras_explain.core.run import chunks
from keras_explain.core.run.plan import Pass, Plan

Tensor = Any
HELD = ("Rsqrt",)
"""Operations whose results are held constant: the deviations of normalization layers."""


class _Relevance(Attribution, abc.ABC):
    """Relevance that goes back from the score, layer by layer."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit="score")

    @property
    @abc.abstractmethod
    def composite(self) -> Composite:
        """Which layer takes which rule."""

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        computation, rule = self.computation(probe, x, target)
        relevance = computation.backward(computation.result, rule)
        score = computation.result[:, 0]
        lost = score - sum(_per_sample(r, ops.shape(score)[0]) for r in relevance)
        return {"values": tree.pack_sequence_as(x, relevance), "residual": lost}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return total["values"]

    def extras(self, total: Any) -> dict[str, Any]:
        return {"residual": total["residual"]}

    def residuals(
        self,
        model: keras.Model,
        x: Any,
        target: Any = None,
        *,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The relevance that each layer loses (or, where negative, makes), `[B]` by layer path.

        They sum to `extras["residual"]`. What is lost outside of any layer is under `""`; layers
        that only arrange numbers for the next one may not be listed.

        Args:
            model: Any built Keras model.
            x: The input.
            target: As for the explainer itself.
            batch_size: As for the explainer itself.
        """
        x = inputs.checked(model, x)
        opened = OpenModel.of(model)
        work = _Residuals(explainer=self)
        target = as_target(target)
        lost = chunks.run(work, Forward(opened, x, target), target, batch_size, 0)["values"]
        return {path: lost[path] for path in ("", *opened.nodes) if path in lost}

    def computation(self, probe: Probe, x: Any, target: Tensor) -> tuple[Computation, "_Backward"]:
        """What leads to the score, and how relevance goes back through its steps."""
        passed = probe.forward(x, target, own=True)
        found = passed.computation(opaque=self._is_opaque, held=HELD)
        for where, _ in self.composite:
            selection.check_selectors("rules", where, found.calls)
        return found, _Backward(self.composite, found)

    def _is_opaque(self, call: Call) -> bool:
        rule = next(
            (rule for where, rule in self.composite if selection.matches(where, call)), None
        )
        return selection.is_recurrent(call) or isinstance(rule, (rules.Pass, rules.Gradient))


class LRP(_Relevance):
    """Layer-wise relevance propagation: the score, handed back layer by layer to the input.

    `R_i = sum_j (share of i in j) R_j`, from `R = S_c(x)` at the output; the `rules` say what the
    shares are proportional to. The score less the sum of the values, which biases (and rules that
    do not conserve) have taken, is in `extras["residual"]` `[B]`; `residuals` has it by layer.

    A weighted sum takes its layer's rule, with its bias and a BatchNormalization that follows it
    merged in. Elsewhere: activations pass relevance on; sums, means and BatchNormalizations that
    follow no weighted sum share it out by `Epsilon()`; a maximum gives it to the largest; of a
    product, a gate (a factor that is broadcast, or made by a sigmoid or softmax) gets nothing, and
    two other factors half each; the deviation in a normalization layer is held constant; scaling
    of the model's input passes it on.

    LRP is covered by a patent claim of its authors' institutions; see whether it concerns you
    before commercial use.

    Args:
        layer: The layer whose output is explained in place of the input.
        rules: The name of a set of rules (`keras_explain.rules.COMPOSITES`): `"epsilon"`,
            `"epsilon_plus"`, `"epsilon_plus_flat"`, `"epsilon_gamma_box"`, `"alpha1_beta0"`,
            `"alpha2_beta1"`, `"epsilon_alpha2_beta1"`, `"deep_taylor"`; or `(where, rule)` pairs,
            of which the first that matches a layer counts, as in
            `[("first", kx.rules.ZBox(-1, 1)), (keras.layers.Dense, kx.rules.Epsilon(0.25)),
            ("backbone/*", kx.rules.Gamma())]`. What nothing matches takes `Epsilon()`.

    Raises:
        ValueError: An operation that depends on the input has no rule.

    Reference:
        - [Bach et al., 2015](https://doi.org/10.1371/journal.pone.0130140)
        - [Montavon et al., 2019](https://doi.org/10.1007/978-3-030-28954-6_10), for the rule sets
        - [Arras et al., 2017](https://arxiv.org/abs/1706.07206), for gates
        - [Ali et al., 2022](https://arxiv.org/abs/2202.07304), for normalization and attention
    """

    rules: Any = "epsilon_plus"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = rules.composite(self.rules)
        if not isinstance(self.rules, str):
            object.__setattr__(self, "rules", known)

    @property
    def composite(self) -> Composite:
        return rules.composite(self.rules)


class DeepTaylor(_Relevance):
    """Deep Taylor decomposition: LRP by z+ in all layers and z-box in the first.

    It shows what speaks for the score, not what speaks against it. The score less the sum of the
    values is in `extras["residual"]` `[B]`.

    Args:
        layer: The layer whose output is explained in place of the input.
        low: The least value that the first layer's input can have, a number or an array; None for
            each sample's own.
        high: The largest, likewise.

    Reference:
        - [Montavon et al., 2017](https://doi.org/10.1016/j.patcog.2016.11.008)
    """

    low: Any = None
    high: Any = None

    def __post_init__(self) -> None:
        box = rules.ZBox(self.low, self.high)  # checks them
        object.__setattr__(self, "low", box.low)
        object.__setattr__(self, "high", box.high)
        super().__post_init__()

    @property
    def composite(self) -> Composite:
        return rules.deep_taylor(self.low, self.high)


class _Residuals(Explainer):
    """The relevance that each layer loses, by its path."""

    explainer: Any

    @property
    def plan(self) -> Plan:
        return Plan(layer=self.explainer.layer, call=self.explainer.call)

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        computation, rule = self.explainer.computation(probe, x, target)
        rows = ops.shape(computation.result)[0]
        lost: dict[str, Any] = defaultdict(float)

        def recorded(step: Step, upstream: list[Tensor]) -> list[Tensor]:
            back = rule(step, upstream)
            path = step.call.path if step.call is not None else ""
            for sign, messages in ((1, upstream), (-1, back)):
                for message in messages:
                    if message is not None:
                        lost[path] += sign * _per_sample(message, computation.samples)[:rows]
            return back

        computation.backward(computation.result, recorded)
        return dict(lost)


class _Backward:
    """How relevance goes back through each step of a computation."""

    def __init__(self, composite: Composite, computation: Computation) -> None:
        self._composite = composite
        self._made_by = {id(t): step for step in computation.steps for t in step.outputs}
        self._first, self._last = computation.ends()
        self._raw = set(map(id, computation.sources))
        for step in computation.steps:
            moves = step.type in AFFINE | ROUTING or step.selects
            if moves and all(id(t) in self._raw for t in step.inputs):
                self._raw |= set(map(id, step.outputs))

    def __call__(self, step: Step, upstream: list[Tensor]) -> list[Tensor]:
        if step.type == "Layer":
            return self._layer(step, upstream)
        if not step.is_continuous:
            raise _no_rule(step)
        if isinstance(step, Affine):
            return [self._rule(step).back(step, upstream[0])]
        moves = step.type in ROUTING or step.selects
        if moves or (step.type in MAXIMA and not _is_function(step)):
            return step.pull(upstream)
        if _is_function(step) and (not step.is_linear or self._passes(step)):
            return [_unless_masked(step, upstream[0])]
        if step.is_linear:
            return rules.Gradient().shares(step, upstream)
        if step.type in PRODUCTS:
            return self._product(step, upstream)
        if step.type in ("RealDiv", "Div"):
            return [rules.Gradient().shares(step, upstream)[0], *[None] * (len(step.inputs) - 1)]
        if step.type in ("Softmax", "LogSoftmax"):
            return list(upstream)
        raise _no_rule(step)

    def _passes(self, step: Step) -> bool:
        """Whether a scale or shift is of the model's input, or part of an activation's formula."""
        return id(step.inputs[0]) in self._raw or step.is_literal

    def _rule(self, step: Affine) -> rules.Rule:
        for where, rule in self._composite:
            named = (
                ("first" in where and step in self._first)
                or ("last" in where and step in self._last)
                or ("convolution" in where and step.product.type in CONVOLUTIONS)
            )
            if named or selection.matches(where, step.call):
                return rule
        return rules.Epsilon()

    def _layer(self, step: Step, upstream: list[Tensor]) -> list[Tensor]:
        assert step.call is not None
        for where, rule in self._composite:
            if isinstance(rule, rules.Pass) and selection.matches(where, step.call):
                return [rule.back(step, upstream[0])]
            if isinstance(rule, rules.Gradient) and selection.matches(where, step.call):
                return rule.shares(step, upstream)
        selection.warn_of_one_step(step)
        return rules.Gradient().shares(step, upstream)

    def _product(self, step: Step, upstream: list[Tensor]) -> list[Tensor]:
        """Of a gate and a signal all to the signal, else half to each factor."""
        a, b = step.inputs
        shares = rules.Gradient().shares(step, upstream)
        broadcasts = step.type == "Mul"
        gates = [self._is_gate(a, b, broadcasts), self._is_gate(b, a, broadcasts)]
        if gates[0] == gates[1]:
            return [None if share is None else share / 2 for share in shares]
        return [None if gate else share for gate, share in zip(gates, shares, strict=True)]

    def _is_gate(self, factor: Tensor, other: Tensor, broadcasts: bool) -> bool:
        """Whether a factor is broadcast onto the other one, or lies in 0..1 by its making."""
        pairs = zip(factor.shape, other.shape, strict=False)
        same_rank = len(factor.shape) == len(other.shape)
        if broadcasts and same_rank and any(n == 1 and m != 1 for n, m in pairs):
            return True
        made = self._source_of(factor)
        if made is None or made.type not in ("RealDiv", "Mul"):
            return made is not None and made.type in ("Sigmoid", "Softmax")
        relu = self._source_of(made.inputs[0])  # hard sigmoid: relu6(x + 3) / 6
        if relu is None or relu.type != "Relu6":
            return False
        shift = self._made_by.get(id(relu.inputs[0]))
        return shift is not None and shift.type == "AddV2"

    def _source_of(self, tensor: Tensor) -> Step | None:
        """What made a tensor, before it was moved."""
        step = self._made_by.get(id(tensor))
        while step is not None and step.type in ROUTING:
            step = self._made_by.get(id(step.inputs[0]))
        return step


def _no_rule(step: Step) -> ValueError:
    how = 'LRP(rules=[("{layer}", keras_explain.rules.Gradient()), ...])'
    return selection.no_rule("LRP", step, how)


def _is_function(step: Step) -> bool:
    """Whether it maps each number of one tensor by itself."""
    elementwise = step.type == "Function" or step.type in ELEMENTWISE
    return elementwise and len(step.inputs) == 1 and step.keeps_shape


def _unless_masked(step: Step, relevance: Tensor) -> Tensor:
    """The relevance of a function's input: none where it is multiplied by 0."""
    if step.type != "Mul":
        return relevance
    (factor,) = step.others
    return ops.where(factor == 0, 0.0, relevance)


def _per_sample(tensor: Tensor, samples: Tensor) -> Tensor:
    rows = next((i for i, n in enumerate(tensor.shape) if n is None), 0)  # not 0: steps come first
    tensor = ops.moveaxis(tensor, rows, 0)
    return ops.sum(ops.reshape(tensor, (samples, -1)), axis=1)
