"""Bounds that the numbers of a traced graph keep, whatever the input: interval arithmetic."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np

from keras_explain.core.graph import traced
from keras_explain.core.graph.activation import activation_of
from keras_explain.core.graph.expressions import (
    entries,
    is_rest,
    is_same,
    origin,
    reduced_axes,
    stood_for,
    sum_of,
)
from keras_explain.core.graph.operations import ALIASES, COMPARISONS, FILLING, ROUTING

Tensor = Any
ROUNDING = 1e-6
"""By so much a probability may leave [0, 1]: sums of shares round."""
DEEPEST = 200
"""So many operations are followed one behind the other."""


class Bounds(NamedTuple):
    """The least and the largest number that there can be."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def are_probabilities(self) -> bool:
        """Whether all is within [0, 1]."""
        return self.low >= -ROUNDING and self.high <= 1 + ROUNDING

    def map(self, rising: Callable[[float], float]) -> Self:
        """The bounds of a function that nowhere falls."""
        return self._replace(low=rising(self.low), high=rising(self.high))

    def __or__(self, other: "Bounds") -> "Bounds":
        return Bounds(min(self.low, other.low), max(self.high, other.high))

    def __neg__(self) -> "Bounds":
        return Bounds(-self.high, -self.low)

    def plus(self, other: "Bounds") -> "Bounds":
        """The bounds of sums."""
        return Bounds(self.low + other.low, self.high + other.high)

    def times(self, other: "Bounds") -> "Bounds":
        """The bounds of products."""
        ends = [0.0 if 0 in (a, b) else a * b for a in self for b in other]
        return Bounds(min(ends), max(ends))

    @property
    def reciprocal(self) -> "Bounds":
        """The bounds of 1 / x."""
        return Bounds(1 / self.high, 1 / self.low) if self.low > 0 else ANY


ANY = Bounds()
SHARE = Bounds(0.0, 1.0)
NOTHING = Bounds(0.0, 0.0)


def bounds(tensor: Tensor) -> Bounds:
    """The bounds of a tensor's entries; infinite where nothing is known."""
    return _Reader().of(tensor)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


_RISING: dict[str, Callable[[float], float]] = {
    "Sigmoid": _logistic,
    "Tanh": math.tanh,
    "Erf": math.erf,
    "Atan": math.atan,
    "Softsign": lambda x: math.copysign(1, x) if math.isinf(x) else x / (1 + abs(x)),
    "Relu": lambda x: max(x, 0.0),
    "Relu6": lambda x: min(max(x, 0.0), 6.0),
    "Softplus": lambda x: _log(1 + _exp(x)) if x < 700 else x,
    "Elu": lambda x: x if x > 0 else _exp(x) - 1,
    "Exp": _exp,
    "Expm1": lambda x: _exp(x) - 1,
    "Log": _log,
    "Log1p": lambda x: _log(1 + x),
    "Sqrt": lambda x: math.sqrt(max(x, 0.0)),
    **dict.fromkeys(("Round", "Rint"), lambda x: float(np.rint(x))),
    "Floor": lambda x: float(np.floor(x)),
    "Ceil": lambda x: float(np.ceil(x)),
}
_WITHIN = {
    "Softmax": SHARE,
    "LogSoftmax": Bounds(-math.inf, 0.0),
    **dict.fromkeys(("Sin", "Cos", "Sign"), Bounds(-1.0, 1.0)),
    **dict.fromkeys(COMPARISONS, SHARE),
}
_AMONG = frozenset(
    {
        *("Mean", "Max", "Min", "AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D"),
        *("ResizeBilinear", "ResizeNearestNeighbor", "Cast"),
    }
)
"""Each entry of the output is one of the input, or lies between some of them."""


class _Reader:
    """Reads bounds from a graph, each tensor's once."""

    def __init__(self) -> None:
        self._known: dict[int, Bounds] = {}
        self._depth = 0

    def of(self, tensor: Tensor) -> Bounds:
        tensor = stood_for(tensor)
        if id(tensor) not in self._known:
            self._depth += 1
            found = ANY if self._depth > DEEPEST else self._read(tensor)
            self._depth -= 1
            self._known[id(tensor)] = ANY if any(map(math.isnan, found)) else found
        return self._known[id(tensor)]

    def _read(self, tensor: Tensor) -> Bounds:
        op = tensor.op
        if op.type == "Const":
            return _constant(tensor)
        if op.type in _WITHIN:
            return _WITHIN[op.type]
        if op.type in _RISING:
            return self.of(op.inputs[0]).map(_RISING[op.type])
        if op.type in _AMONG:
            return SHARE if op.inputs[0].dtype == "bool" else self.of(op.inputs[0])
        if op.type in ALIASES | ROUTING:
            return self._routed(tensor)
        rule = getattr(self, "_" + _RULES.get(op.type, "unknown"))
        return rule(op, *op.inputs)

    def _unknown(self, op: Any, *inputs: Tensor) -> Bounds:
        return ANY

    def _routed(self, tensor: Tensor) -> Bounds:
        found = [self.of(entry) for entry in entries(tensor)]
        if tensor.op.type in FILLING:
            found.append(NOTHING)
        return functools.reduce(operator.or_, found, found[0])

    def _sum(self, op: Any, *terms: Tensor) -> Bounds:
        total = functools.reduce(Bounds.plus, map(self.of, terms))
        return (self._mixture(*terms) if len(terms) == 2 else None) or total

    def _mixture(self, x: Tensor, y: Tensor) -> Bounds | None:
        """Bounds of `a p + (1 - a) q`, with a share `a` that may depend on the input."""
        if x.op.type != "Mul" or y.op.type != "Mul":
            return None
        for a, p in (x.op.inputs, reversed(list(x.op.inputs))):
            for b, q in (y.op.inputs, reversed(list(y.op.inputs))):
                if (is_rest(b, a) or is_rest(a, b)) and self.of(a).are_probabilities:
                    return self.of(p) | self.of(q)
        return None

    def _difference(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        return self.of(x).plus(-self.of(y))

    def _negative(self, op: Any, x: Tensor) -> Bounds:
        return -self.of(x)

    def _product(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        found = self.of(x).times(self.of(y))
        return found._replace(low=max(found.low, 0.0)) if x is y else found

    def _square(self, op: Any, x: Tensor) -> Bounds:
        return self._product(op, x, x)

    def _quotient(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        if self.of(x).low >= 0 and self._exceeds(y, x):
            return SHARE
        return self.of(x).times(self.of(y).reciprocal)

    def _reciprocal(self, op: Any, x: Tensor) -> Bounds:
        return self.of(x).reciprocal

    def _root_reciprocal(self, op: Any, x: Tensor) -> Bounds:
        return self.of(x).map(_RISING["Sqrt"]).reciprocal

    def _magnitude(self, op: Any, x: Tensor) -> Bounds:
        low, high = self.of(x)
        least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return Bounds(least, max(abs(low), abs(high)))

    def _power(self, op: Any, x: Tensor, exponent: Tensor) -> Bounds:
        known, base = self.of(exponent), self.of(x)
        if known.low < 0 or math.isinf(known.high) or base.low < 0:
            return ANY
        ends = [b**e for b in base for e in known]
        return Bounds(min(ends), max(ends))

    def _larger(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        return Bounds(*map(max, zip(self.of(x), self.of(y), strict=True)))

    def _smaller(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        return Bounds(*map(min, zip(self.of(x), self.of(y), strict=True)))

    def _clipped(self, op: Any, x: Tensor, low: Tensor, high: Tensor) -> Bounds:
        least, most = self.of(low), self.of(high)
        return self.of(x).map(lambda v: min(max(v, least.low), most.high))

    def _chosen(self, op: Any, condition: Tensor, x: Tensor, y: Tensor) -> Bounds:
        return self.of(x) | self.of(y)

    def _one_hot(self, op: Any, at: Tensor, depth: Tensor, on: Tensor, off: Tensor) -> Bounds:
        return self.of(on) | self.of(off)

    def _total(self, op: Any, x: Tensor, axes: Tensor) -> Bounds:
        shares = [x] if x.op.type != "Mul" else list(x.op.inputs)
        for share in shares:
            if _sums_to_one(share, reduced_axes(op)):
                rest = [self.of(other) for other in shares if other is not share]
                return functools.reduce(operator.or_, rest, NOTHING if rest else SHARE)
        count = _count(op)
        return Bounds(*(end * count if end else 0.0 for end in self.of(x)))

    def _matrix_product(self, op: Any, x: Tensor, y: Tensor) -> Bounds:
        """Means of rows of `y` that are weighed by a softmax `x`."""
        turned = "transpose_a" if op.type == "MatMul" else "adj_x"
        last = (len(x.shape) - 1,)
        weighed = not op.get_attr(turned) and _sums_to_one(x, last)
        return self.of(y) | NOTHING if weighed else ANY

    def _total_product(self, op: Any, x: Tensor, axes: Tensor) -> Bounds:
        return SHARE if self.of(x).are_probabilities else ANY

    def _exceeds(self, total: Tensor, part: Tensor) -> bool:
        """Whether a number of 0 or more is at most `total`, which is its sum with others."""
        op = origin(total).op
        if op.type in ("AddV2", "Add", "Maximum"):
            x, y = op.inputs
            return any(
                (is_same(a, part) or self._exceeds(a, part)) and self.of(b).low >= 0
                for a, b in ((x, y), (y, x))
            )
        summed = sum_of(total)
        if summed is None:
            return False
        x = summed[0].op.inputs[0] if summed[0].op.type == "Abs" else summed[0]
        return is_same(x, part)


_RULES = {
    **dict.fromkeys(("AddV2", "Add", "AddN", "BiasAdd"), "sum"),
    "Sub": "difference",
    "Neg": "negative",
    "Mul": "product",
    "Square": "square",
    **dict.fromkeys(("RealDiv", "DivNoNan"), "quotient"),
    **dict.fromkeys(("Reciprocal", "Inv"), "reciprocal"),
    "Rsqrt": "root_reciprocal",
    "Abs": "magnitude",
    "Pow": "power",
    "Maximum": "larger",
    "Minimum": "smaller",
    "ClipByValue": "clipped",
    **dict.fromkeys(("SelectV2", "Select"), "chosen"),
    "OneHot": "one_hot",
    "Sum": "total",
    "Prod": "total_product",
    **dict.fromkeys(("MatMul", "BatchMatMulV2", "BatchMatMulV3"), "matrix_product"),
}


def _sums_to_one(share: Tensor, axes: tuple[int, ...] | None) -> bool:
    """Whether shares are of 0 or more and sum to 1, or less, over one axis."""
    found = activation_of(share)
    return found is not None and found.name == "Softmax" and axes == (found.axis,)


def _count(op: Any) -> float:
    """How many numbers each entry of a sum is the sum of."""
    axes, shape = reduced_axes(op), op.inputs[0].shape
    lengths = [math.inf] if axes is None else [shape[axis] or math.inf for axis in axes]
    return math.prod(lengths)


def _constant(tensor: Tensor) -> Bounds:
    value = traced.constant(tensor)
    if value is None or value.dtype.kind not in "fiub" or not value.size:
        return ANY
    return Bounds(float(value.min()), float(value.max()))
