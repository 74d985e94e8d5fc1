"""The activation at the end of a traced graph, looked through where that is exact.

The graph is read backwards, so it makes no difference whether the activation was an argument of the
last layer, a layer of its own, a raw operation in a subclassed `call`, or written by hand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from keras_explain.core.graph import traced
from keras_explain.core.graph.expressions import (
    entries,
    is_constant,
    is_same,
    reduced_axes,
    slices,
    sum_of,
)
from keras_explain.core.graph.operations import ALIASES, FILLING, ROUTING

Tensor = Any


@dataclass(frozen=True)
class Activation:
    """An activation that a tensor is the result of.

    Args:
        logits: What it was applied to, arranged like its result.
        name: `"Softmax"`, `"LogSoftmax"`, `"Sigmoid"` or `"LogSigmoid"`.
        axis: The axis of the classes that a softmax is over; None where it is not known.
        alone: Whether a row has one such set of classes.
        whole: Whether no class was cut off.
    """

    logits: Tensor
    name: str
    axis: int | None = None
    alone: bool = True
    whole: bool = True

    @property
    def is_over_classes(self) -> bool:
        """Whether it is a softmax."""
        return self.name in ("Softmax", "LogSoftmax")

    @property
    def gives_logits(self) -> bool:
        """Whether its logits can be compared along the last axis, as its results are."""
        return not self.is_over_classes or (self.whole and (self.alone or self.axis is not None))


def activation_of(y: Tensor) -> Activation | None:
    """The activation whose result `y` is, where it can be looked through exactly, else None.

    Of a softmax whose classes were cut, the logits are no logits of `y`; see `gives_logits`.
    """
    op = y.op
    if y.shape.rank is None or not y.dtype.is_floating:
        return None
    if op.type in ("Softmax", "LogSoftmax"):
        return _softmax(op.inputs[0], (len(y.shape) - 1,), op.type)
    if op.type == "Sigmoid":
        return Activation(op.inputs[0], "Sigmoid")
    if op.type in _MOVING:
        return _moved(y)
    by_hand = _BY_HAND.get(op.type)
    return None if by_hand is None else by_hand(op)


def _softmax(logits: Tensor, axes: Sequence[int], name: str = "Softmax") -> Activation:
    shape = logits.shape
    alone = all(n == 1 for i, n in enumerate(shape) if i > 0 and i not in axes)
    return Activation(logits, name, axes[0] if len(axes) == 1 else None, alone)


# Results that are moved

_MOVING = ALIASES | (ROUTING - FILLING) | {"Cast"}


def _moved(y: Tensor) -> Activation | None:
    parts = entries(y)
    found = [activation_of(part) for part in parts]
    first = found[0]
    if first is None or not all(part is not None and _agree(first, part) for part in found):
        return None
    logits = {id(p): a.logits for p, a in zip(parts, found, strict=True) if a is not None}
    inputs = [logits.get(id(tensor), tensor) for tensor in y.op.inputs]
    moved = replace(first, logits=traced.replay(y.op, inputs)[y.value_index])
    return _still_over_classes(y.op, moved) if first.is_over_classes else moved


def _agree(a: Activation, b: Activation) -> bool:
    return (a.name, a.axis, a.whole) == (b.name, b.axis, b.whole)


def _still_over_classes(op: Any, found: Activation) -> Activation | None:
    """Where the classes of a softmax are after they were moved."""
    if op.type in ALIASES or op.type == "Cast":
        return found
    if op.type in ("Reshape", "Squeeze", "ExpandDims"):
        return replace(found, axis=_reshaped_axis(op, found.axis))
    if found.axis is None:
        return None
    return _places(op, found)


def _reshaped_axis(op: Any, axis: int | None) -> int | None:
    """The axis with as much before it and after it, if there is one."""
    before, after = list(op.inputs[0].shape), list(op.outputs[0].shape)
    if axis is None or before[axis] is None:
        return None
    behind = _size(before[axis + 1 :])
    fits = [
        i
        for i, n in enumerate(after)
        if n == before[axis] and i > 0 and _size(after[i + 1 :]) == behind
    ]
    return fits[0] if len(fits) == 1 and behind is not None else None


def _size(shape: list[int | None]) -> int | None:
    known = [n for n in shape if n is not None]
    return math.prod(known) if len(known) == len(shape) else None


def _places(op: Any, found: Activation) -> Activation | None:
    """Follows the axis of the classes through an operation that moves places."""
    assert found.axis is not None
    shape = list(entries(op.outputs[0])[0].shape)
    classes = shape[found.axis]
    if classes is None or classes < 2:
        return None
    moves = _MOVES.get(op.type)
    axis = None if moves is None else moves(op, found.axis)
    if axis is not None:
        only_turned = op.type in ("Transpose", "ReverseV2")
        return replace(found, axis=axis, alone=found.alone and only_turned)
    if op.type not in ("StridedSlice", "Slice"):
        return None
    index = slices(op)
    if index is None:
        return None
    numbers = np.arange(classes).reshape([-1 if i == found.axis else 1 for i in range(len(shape))])
    numbers = np.broadcast_to(numbers, [n or _LONG for n in shape])
    return _cut(found, numbers[index], classes)


_LONG = 2**14
"""Taken for the length of an axis that may have any: it costs nothing, since it is broadcast."""


def _cut(found: Activation, numbers: np.ndarray, classes: int) -> Activation:
    varies = [i for i, stride in enumerate(numbers.strides) if stride and numbers.shape[i] > 1]
    if len(varies) != 1:
        return replace(found, axis=None, whole=False)
    whole = numbers.shape[varies[0]] == classes
    return replace(found, axis=varies[0], whole=found.whole and whole)


def _transposed(op: Any, axis: int) -> int | None:
    order = traced.constant(op.inputs[1])
    return None if order is None else int(np.flatnonzero(order == axis)[0])


def _joined(op: Any, axis: int) -> int | None:
    along = traced.constant(op.inputs[-1])
    rank = len(op.outputs[0].shape)
    return None if along is None or int(along) % rank == axis else axis


def _stacked(op: Any, axis: int) -> int | None:
    along = op.get_attr("axis") % len(op.outputs[0].shape)
    return axis + (along <= axis)


def _repeated_alike(op: Any, axis: int) -> int | None:
    times = traced.constant(op.inputs[1])
    return axis if times is not None and times[axis] == 1 else None


_MOVES = {
    "Transpose": _transposed,
    "ConcatV2": _joined,
    "Pack": _stacked,
    "Tile": _repeated_alike,
    "ReverseV2": lambda op, axis: axis,
    "ResizeNearestNeighbor": lambda op, axis: axis if axis == 3 else None,
}


# Activations that are written by hand


def _exp(op: Any) -> Activation | None:
    found = activation_of(op.inputs[0])
    plain = {"LogSoftmax": "Softmax", "LogSigmoid": "Sigmoid"}
    return replace(found, name=plain[found.name]) if found and found.name in plain else None


def _log(op: Any) -> Activation | None:
    found = activation_of(op.inputs[0])
    logs = {"Softmax": "LogSoftmax", "Sigmoid": "LogSigmoid"}
    return replace(found, name=logs[found.name]) if found and found.name in logs else None


def _difference(op: Any) -> Activation | None:
    """`1 - sigmoid(x)`, or `x - logsumexp(x)`."""
    x, y = op.inputs
    if is_constant(x, 1):
        found = activation_of(y)
        negative = found is not None and found.name == "Sigmoid"
        return replace(found, logits=ops.negative(found.logits)) if found and negative else None
    total = _log_sum_exp(y)
    if total is None or not is_same(total[0], x):
        return None
    kept = [1 if i in total[1] else n for i, n in enumerate(x.shape)]
    if list(y.shape) != kept:
        return None
    return _softmax(_unshifted(x), total[1], "LogSoftmax")


def _log_sum_exp(y: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
    """`x` and the axes of `log(sum(exp(x)))`, or of `log(sum(exp(x - m))) + m`."""
    if y.op.type in ("AddV2", "Add"):
        for log, most in (y.op.inputs, reversed(list(y.op.inputs))):
            inner = _log_sum_exp(log)
            if inner and inner[0].op.type == "Sub" and is_same(inner[0].op.inputs[1], most):
                return inner[0].op.inputs[0], inner[1]
        return None
    summed = y.op.inputs[0].op if y.op.type == "Log" else None
    if summed is None or summed.type != "Sum" or summed.inputs[0].op.type != "Exp":
        return None
    axes = reduced_axes(summed)
    return None if not axes else (summed.inputs[0].op.inputs[0], axes)


def _quotient(op: Any) -> Activation | None:
    """`exp(x) / sum(exp(x))`, `p / sum(p)` of a softmax, or a sigmoid."""
    x, y = op.inputs
    if is_constant(x, 1):
        return _one_over(y)
    if x.op.type == "Exp" and _is_one_more(y, x):
        return Activation(x.op.inputs[0], "Sigmoid")
    total = sum_of(y)
    if total is None or not is_same(total[0], x):
        return None
    if x.op.type == "Exp":
        return _softmax(_unshifted(x.op.inputs[0]), total[1])
    found = activation_of(x)
    if found and found.name == "Softmax" and total[1] == (found.axis,):
        return replace(found, whole=True)
    return None


def _reciprocal(op: Any) -> Activation | None:
    return _one_over(op.inputs[0])


def _one_over(y: Tensor) -> Activation | None:
    """`1 / (1 + exp(-x))`."""
    if y.op.type not in ("AddV2", "Add"):
        return None
    powers = [tensor for tensor in y.op.inputs if tensor.op.type == "Exp"]
    if len(powers) != 1 or not _is_one_more(y, powers[0]):
        return None
    return Activation(_negative(powers[0].op.inputs[0]), "Sigmoid")


def _is_one_more(y: Tensor, x: Tensor) -> bool:
    if y.op.type not in ("AddV2", "Add"):
        return False
    a, b = y.op.inputs
    return any(is_same(p, x) and is_constant(q, 1) for p, q in ((a, b), (b, a)))


def _negative(x: Tensor) -> Tensor:
    return x.op.inputs[0] if x.op.type == "Neg" else ops.negative(x)


def _unshifted(x: Tensor) -> Tensor:
    """`z` where `x` is `z - max z`, so that its exponentials are finite."""
    if x.op.type != "Sub":
        return x
    z, most = x.op.inputs
    while most.op.type in ALIASES:
        most = entries(most)[0]
    return z if most.op.type == "Max" and is_same(most.op.inputs[0], z) else x


def _negated(op: Any) -> Activation | None:
    """`-softplus(-x)`."""
    inner = op.inputs[0].op
    if inner.type != "Softplus":
        return None
    return Activation(_negative(inner.inputs[0]), "LogSigmoid")


_BY_HAND = {
    "Exp": _exp,
    "Log": _log,
    "Sub": _difference,
    "RealDiv": _quotient,
    "DivNoNan": _quotient,
    **dict.fromkeys(("Reciprocal", "Inv"), _reciprocal),
    "Neg": _negated,
}
