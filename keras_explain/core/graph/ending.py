"""What a model's output is: one rule for all that asks for a logit or a probability.

- Where the output is the result of a softmax, a log-softmax or a sigmoid, it has logits.
- Else, where it is within [0, 1] whatever the input, it is a probability, and has no logits.
- Else, where it ends in a weighted sum, as of a Dense layer without an activation, it is logits.
- Else nothing is known of it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_explain.core.graph import paths
from keras_explain.core.graph.activation import Activation, activation_of
from keras_explain.core.graph.bounds import bounds
from keras_explain.core.graph.expressions import entries, stood_for
from keras_explain.core.graph.operations import ALIASES, COMPARISONS, ROUTING, WEIGHTED

Tensor = Any


class Kind(enum.Enum):
    """What is known of an output."""

    ACTIVATED = "the result of an activation"
    PROBABILITY = "a probability without a logit"
    LOGITS = "a weighted sum"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Ending:
    """What a model's output is.

    Attributes:
        y: The output.
        kind: What is known of it.
        activation: The activation that it is the result of.
    """

    y: Tensor
    kind: Kind
    activation: Activation | None = None

    @property
    def logits(self) -> Tensor:
        """The logits, or where there are none the output as it is."""
        return self.y if self.activation is None else self.activation.logits

    @property
    def class_logits(self) -> Tensor:
        """The logits of classes, also where the output is probabilities that have none.

        Raises:
            ValueError: It is not known what the output's numbers are.
        """
        name = self.name
        if self.kind is not Kind.PROBABILITY:
            return self.logits
        return logits_of(self.y if len(self.y.shape) > 1 else self.y[:, None], name)

    @property
    def probabilities(self) -> Tensor:
        """The probabilities: of logits by softmax, or by a sigmoid where there is one unit.

        Raises:
            ValueError: It is not known what the output's numbers are.
        """
        if self.kind is Kind.UNKNOWN:
            raise self._unknown(
                'probabilities or logits, for `of="probability"`',
                "Explain it as it is, by `keras_explain.targets.Regression` or "
                '`of="logit"`, or give the formula, by `keras_explain.targets.Function`.',
            )
        if self.kind is Kind.LOGITS:
            units = self.y.shape[-1] if len(self.y.shape) > 1 else 1
            return ops.sigmoid(self.y) if units == 1 else ops.softmax(self.y)
        is_log = self.activation is not None and self.activation.name.startswith("Log")
        return ops.exp(self.y) if is_log else self.y

    @property
    def name(self) -> str:
        """The name of the activation; without one `"Probability"` or `"Logits"`.

        Raises:
            ValueError: It is not known what the output's numbers are.
        """
        if self.kind is Kind.UNKNOWN:
            raise self._unknown(
                "the scores of classes",
                "Where these are logits, put `keras.layers.Activation('softmax')` (for one unit "
                "'sigmoid') behind the model.",
            )
        if self.activation is not None:
            return self.activation.name
        return "Probability" if self.kind is Kind.PROBABILITY else "Logits"

    def _unknown(self, expected: str, remedy: str) -> ValueError:
        return ValueError(
            f"Expected a model that returns {expected}: one that ends in a softmax or a sigmoid, "
            "in numbers that are always within [0, 1], or in a weighted sum. Received: an output "
            f"that ends in the operation {_last(self.y)!r}. {remedy}"
        )

    @property
    def hides_an_activation(self) -> bool:
        """Whether a softmax or sigmoid leads to the output, and has no logit that stands for it."""
        unseen = self.kind in (Kind.PROBABILITY, Kind.UNKNOWN)
        return unseen and bool(activations_before(self.y))


def ending_of(y: Tensor) -> Ending:
    """What an output of the traced graph is."""
    activation = activation_of(y)
    if activation is not None and activation.gives_logits:
        return Ending(y, Kind.ACTIVATED, activation)
    if bounds(y).are_probabilities:
        return Ending(y, Kind.PROBABILITY)
    return Ending(y, Kind.LOGITS if is_weighted_sum(y) else Kind.UNKNOWN)


def logits_of(y: Tensor, name: str) -> Tensor:
    """The logits of numbers `[..., C]`, where there is no graph to find them in.

    Args:
        y: What a model returned; `[..., 1]` is of two classes.
        name: `Ending.name` of the model's output.
    """
    least = keras.config.epsilon()
    if name == "LogSigmoid":
        y = ops.exp(y)
    if name in ("Sigmoid", "LogSigmoid") or (name == "Probability" and y.shape[-1] == 1):
        y = ops.clip(y, least, 1 - least)
        return ops.log(y) - ops.log1p(-y)
    return ops.log(ops.maximum(y, least)) if name in ("Softmax", "Probability") else y


_SUMS = frozenset({"AddV2", "Add", "AddN", "Sub", "BiasAdd"})
_MEANS = frozenset({"Mean", "Sum", "AvgPool", "AvgPool3D", "ResizeBilinear", "Neg", "Cast"})
_LOOPS = frozenset({"While", "StatelessWhile", "If", "StatelessIf"})
_SEEN = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})


def is_weighted_sum(y: Tensor) -> bool:
    """Whether `y` ends in a weighted sum of what depends on the input, with a model's weights.

    Behind it may be a bias, a scale, BatchNormalization, sums with others, means and routing.
    """
    y = stood_for(y)
    op = y.op
    if op.type in WEIGHTED or op.type == "ResourceGather":
        return _has_weights(op)
    if op.type == "GatherV2" and _has_weights(op):
        return True
    if op.type in _SUMS:
        return any(map(is_weighted_sum, op.inputs))
    if op.type in ("Mul", "RealDiv"):
        a, b = op.inputs
        pairs = ((a, b), (b, a)) if op.type == "Mul" else ((a, b),)
        return any(paths.is_parameter(q) and is_weighted_sum(p) for p, q in pairs)
    if op.type in _MEANS:
        return is_weighted_sum(op.inputs[0])
    return op.type in ALIASES | ROUTING and all(map(is_weighted_sum, entries(y)))


def _has_weights(op: Any) -> bool:
    """Whether one operand of a product, or the table of a look-up, is a model's own."""
    operands = WEIGHTED.get(op.type, (0,))
    return any(paths.is_parameter(op.inputs[i]) for i in operands)


def activations_before(y: Tensor) -> set[str]:
    """The types of softmax and sigmoid that lead to `y` without a weighted sum in between.

    One that only gates features, as in `x * sigmoid(x)`, does not count.
    """
    found, seen, stack = set(), set(), [y]
    while stack:
        op = stood_for(stack.pop()).op
        if id(op) in seen or op.type in _LOOPS:
            continue
        seen.add(id(op))
        if op.type in _SEEN:
            found.add(op.type)
        elif op.type == "Mul":
            a, b = op.inputs
            stack += [p for p, q in ((a, b), (b, a)) if not _are_features(q)]
        elif not (op.type in WEIGHTED and _has_weights(op)):
            stack += op.inputs
    return found


def _are_features(factor: Tensor) -> bool:
    """Whether a weighted sum leads to a factor, with no softmax, sigmoid or choice in between."""
    seen, stack = set(), [factor]
    while stack:
        op = stood_for(stack.pop()).op
        if id(op) in seen or op.type in _SEEN or op.type in COMPARISONS:
            continue
        if op.type in WEIGHTED and _has_weights(op):
            return True
        seen.add(id(op))
        stack += op.inputs
    return False


def _last(y: Tensor) -> str:
    while y.op.type in ALIASES:
        y = entries(y)[0]
    return y.op.type
