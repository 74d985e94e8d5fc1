"""DeepLIFT's multipliers: how they go back through each kind of step."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_explain.core.graph import traced
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.operations import ELEMENTWISE, MAXIMA, PRODUCTS, ROUTING
from keras_explain.core.graph.steps import Affine, Step
from keras_explain.core.selection import no_rule

Tensor = Any


class Rescale:
    """Multipliers of the steps between two runs of a model: on x, and on a reference.

    Each returns, for the multipliers `m` of a step's output, those of its inputs, so that over all
    entries `sum m_in * (x_in - r_in) = sum m_out * (x_out - r_out)`.
    """

    def __init__(self, computation: Computation, reference: Computation) -> None:
        self._computation = computation
        self._reference = computation.twins(reference)

    def multipliers(self) -> list[Tensor]:
        """Those of the point, for a multiplier of 1 at the score."""
        return self._computation.backward(ops.ones_like(self._computation.result), self)

    def at_reference(self, tensor: Tensor) -> Tensor:
        """What a tensor of the run on x is in the run on the reference."""
        if id(tensor) not in self._reference and self._computation.depends(tensor):
            raise RuntimeError(f"{tensor.name} depends on the input, but has no reference.")
        return self._reference.get(id(tensor), tensor)

    def change(self, tensor: Tensor) -> Tensor:
        """The difference of a tensor from its reference."""
        return tensor - self.at_reference(tensor)

    def __call__(self, step: Step, upstream: list[Tensor]) -> list[Tensor]:
        rule = self._rule(step)
        return step.pull(upstream) if rule is None else rule(step, upstream[0])

    def _rule(self, step: Step) -> Callable[[Step, Tensor], list[Tensor]] | None:
        """The rule of a step; None where it is linear."""
        if step.type == "Layer" or (step.is_linear and step.is_continuous):
            return None
        one_number = step.type in ELEMENTWISE and len(step.inputs) == 1
        if step.type == "Function" or (one_number and step.keeps_shape and step.is_continuous):
            return self._function
        if step.type in _OF_TYPE and step.is_continuous and len(step.inputs) <= 2:
            return getattr(self, _OF_TYPE[step.type])
        raise no_rule("DeepLIFT", step, 'DeepLIFT(opaque=("{layer}",))')

    def _function(self, step: Step, m: Tensor) -> list[Tensor]:
        """Of a function of one number: its slope between reference and x."""
        x, dx, dy = step.inputs[0], self.change(step.inputs[0]), self.change(step.outputs[0])
        if step.type in _STRAIGHT:  # its slopes are exact wherever dx is not 0
            return [m * ops.where(dx == 0, _derivative(step), dy / ops.where(dx == 0, 1.0, dx))]
        return [m * _slope(dy, dx, _derivative(step), self._size(x))]

    def _size(self, x: Tensor) -> Tensor:
        """The size of the numbers that a change is a difference of."""
        return ops.abs(x) + ops.abs(self.at_reference(x))

    def _product(self, step: Step, m: Tensor) -> list[Tensor]:
        """Of a product: the mean of the other factor."""
        return step.replay([self._middle(t) for t in step.inputs]).pull([m])

    def _quotient(self, step: Step, m: Tensor) -> list[Tensor]:
        """Of a / b: that of the product of a and 1 / b."""
        a, b = step.arguments
        r = self.at_reference(b)
        product = ops.multiply(self._middle(a), (1 / b + 1 / r) / 2)
        m_a, m_inverse = traced.pull_from(product, m)
        assert m_inverse is not None
        return [(m_a, -m_inverse / (b * r))[i] for i in step.positions or ()]

    def _squared_difference(self, step: Step, m: Tensor) -> list[Tensor]:
        a, b = step.arguments
        d = ops.subtract(a, b)
        back = traced.pull_from(d, m * (d + self.at_reference(a) - self.at_reference(b)))
        return [back[i] for i in step.positions or ()]

    def _maximum(self, step: Step, m: Tensor) -> list[Tensor]:
        """Of a maximum: its rise is due to the largest of x, its fall to that of the reference."""
        sign = -1.0 if step.type.startswith("Min") else 1.0
        dy = self.change(step.outputs[0])
        rises = sign * dy > 0
        at_r = step.replay([self._reference_like(t) for t in step.inputs])
        shares = zip(
            step.inputs,
            step.pull([ops.where(rises, m * dy, 0.0)]),
            at_r.pull([ops.where(rises, 0.0, m * dy)]),
            step.pull([ops.where(dy == 0, m, 0.0)]),
            strict=True,
        )
        return [_divided(a + b, self.change(x), slope) for x, a, b, slope in shares]

    def _softmax(self, step: Step, m: Tensor) -> list[Tensor]:
        """Of `e / sum e`, `e = exp(x - max x)`, by the rules of its parts."""
        x = step.inputs[0]
        both = (x, self.at_reference(x))
        u, u_r = (ops.maximum(z - ops.max(z, axis=-1, keepdims=True), _LEAST) for z in both)
        e, e_r = ops.exp(u), ops.exp(u_r)
        s, s_r = (ops.sum(v, axis=-1, keepdims=True) for v in (e, e_r))
        if step.type == "Softmax":
            through_sum = ops.sum(m * (e + e_r) / 2, axis=-1, keepdims=True) / (s * s_r)
            m_e = m * (1 / s + 1 / s_r) / 2 - through_sum
            m_u = m_e * _slope(e - e_r, u - u_r, e, 1.0)
        else:
            m_log = -ops.sum(m, axis=-1, keepdims=True)
            slope = _slope(ops.log(s / s_r), s - s_r, 1 / s, s)
            m_u = m + m_log * slope * _slope(e - e_r, u - u_r, e, 1.0)
        return [m_u - self._through_max(x, ops.sum(m_u, axis=-1, keepdims=True))]

    def _through_max(self, x: Tensor, m: Tensor) -> Tensor:
        r = self._reference_like(x)
        y, y_r = (ops.max(z, axis=-1, keepdims=True) for z in (x, r))
        first = [ops.one_hot(ops.argmax(z, axis=-1), x.shape[-1], dtype=x.dtype) for z in (x, r)]
        share = m * (y - y_r) * ops.where(y > y_r, *first)
        return _divided(share, x - r, ops.where(y == y_r, m * first[0], 0.0))

    def _middle(self, tensor: Tensor) -> Tensor:
        return (tensor + self.at_reference(tensor)) / 2

    def _reference_like(self, tensor: Tensor) -> Tensor:
        return ops.broadcast_to(self.at_reference(tensor), ops.shape(tensor))


class RevealCancel(Rescale):
    """Multipliers m+ and m- of the positive and the negative part of each tensor's change.

    The parts of a weighted sum, or of a sum, are made by its positive and negative terms, and are
    kept until they enter a nonlinearity; elsewhere a change is all positive or all negative.
    """

    def __init__(self, computation: Computation, reference: Computation) -> None:
        super().__init__(computation, reference)
        self._made_by = {id(t): step for step in computation.steps for t in step.outputs}
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}

    def multipliers(self) -> list[Tensor]:
        one = ops.ones_like(self._computation.result)
        found = self._computation.backward((one, one), self)
        return [
            self._joined(source, pair) if isinstance(pair, tuple) else pair
            for source, pair in zip(self._computation.sources, found, strict=True)
        ]

    def __call__(self, step: Step, upstream: list[Any]) -> list[Any]:
        if isinstance(step, Affine):
            return [self._of_sum(step, *upstream[0])]
        if step.type in _SUMS:
            return self._of_terms(step, *upstream[0])
        if step.type in ROUTING and step.is_continuous:
            return self._of_routing(step, upstream)
        if self._rule(step) == self._function:
            return [self._of_function(step, *upstream[0])]
        plain = [
            None if pair is None else self._joined(tensor, pair)
            for tensor, pair in zip(step.outputs, upstream, strict=True)
        ]
        return [None if m is None else (m, m) for m in super().__call__(step, plain)]

    def _joined(self, tensor: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        """One multiplier for a change that is all positive or all negative."""
        return ops.where(self.change(tensor) < 0, pair[1], pair[0])

    def parts(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The positive and the negative part of a tensor's change."""
        if id(tensor) not in self._parts:
            self._parts[id(tensor)] = self._find_parts(tensor)
        return self._parts[id(tensor)]

    def _find_parts(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        step = self._made_by.get(id(tensor))
        if isinstance(step, Affine):
            (up, down), (gain, loss) = _signs(self.change(step.x)), _signs(step.w)
            positive = step.sum(up, gain)[0] + step.sum(down, loss)[0]
            return positive, step.sum(up, loss)[0] + step.sum(down, gain)[0]
        if step is not None and step.type in _SUMS:
            terms = [self._term(step, i) * self.change(t) for i, t in enumerate(step.inputs)]
            positives, negatives = zip(*map(_signs, terms), strict=True)
            like = ops.zeros_like(tensor)
            return sum(positives, like), sum(negatives, like)
        if step is not None and step.type in ROUTING and step.is_continuous:
            i = [t is tensor for t in step.outputs].index(True)
            none = step.replay([ops.zeros_like(t) for t in step.inputs]).outputs[i]  # constants
            positives, negatives = zip(*map(self.parts, step.inputs), strict=True)
            return tuple(step.replay(p).outputs[i] - none for p in (positives, negatives))
        return _signs(self.change(tensor))

    @staticmethod
    def _term(step: Step, i: int) -> float:
        """The sign of a term in a sum."""
        return -1.0 if step.type == "Sub" and (step.positions or [])[i] == 1 else 1.0

    def _of_sum(self, step: Affine, m_up: Tensor, m_down: Tensor) -> tuple[Tensor, Tensor]:
        dx = self.change(step.x)
        pulls = [step.sum(step.x, w)[1] for w in _signs(step.w)]
        rises = pulls[0](m_up) + pulls[1](m_down)
        falls = pulls[1](m_up) + pulls[0](m_down)
        m = ops.where(dx > 0, rises, ops.where(dx < 0, falls, (rises + falls) / 2))
        return m, m

    @staticmethod
    def _of_routing(step: Step, upstream: list[Any]) -> list[tuple[Tensor, Tensor] | None]:
        sides = ([None if pair is None else pair[i] for pair in upstream] for i in (0, 1))
        ups, downs = map(step.pull, sides)
        return [None if m is None else (m, down) for m, down in zip(ups, downs, strict=True)]

    def _of_terms(self, step: Step, m_up: Tensor, m_down: Tensor) -> list[tuple[Tensor, Tensor]]:
        ups, downs = step.pull([m_up]), step.pull([m_down])
        found = []
        for i, (x, up, down) in enumerate(zip(step.inputs, ups, downs, strict=True)):
            change = self._term(step, i) * self.change(x)
            m = ops.where(change > 0, up, ops.where(change < 0, down, (up + down) / 2))
            found.append((m, m))
        return found

    def _of_function(self, step: Step, m_up: Tensor, m_down: Tensor) -> tuple[Tensor, Tensor]:
        """Each part's effect, averaged over which of the two comes first."""
        x, y = step.inputs[0], step.outputs[0]
        m = self._joined(y, (m_up, m_down))
        up, down = self.parts(x)
        r, y_r = self.at_reference(x), self.at_reference(y)
        y_up, y_down = (step.replay([r + part]).outputs[0] for part in (up, down))
        effects = ((y_up - y_r + y - y_down) / 2, (y_down - y_r + y - y_up) / 2)
        both_ends = (step, step.replay([self._reference_like(x)]))
        derivative = sum(map(_derivative, both_ends)) / 2
        return tuple(
            m * _slope(effect, part, derivative, self._size(x))
            for effect, part in zip(effects, (up, down), strict=True)
        )


def _signs(value: Tensor) -> tuple[Tensor, Tensor]:
    """The positive and the negative part."""
    return ops.maximum(value, 0.0), ops.minimum(value, 0.0)


_LEAST = -1e9  # masks may be -inf, whose differences are NaN
_STRAIGHT = ("Relu", "Relu6")
_SUMS = ("AddV2", "Add", "AddN", "Sub")
_OF_TYPE = {
    **dict.fromkeys(PRODUCTS, "_product"),
    **dict.fromkeys(MAXIMA, "_maximum"),
    **dict.fromkeys(("RealDiv", "Div"), "_quotient"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "_softmax"),
    "SquaredDifference": "_squared_difference",
}


def _derivative(step: Step) -> Tensor:
    """That of a function of one number."""
    found = step.pull([ops.ones_like(step.outputs[0])])[0]
    return ops.zeros_like(step.inputs[0]) if found is None else found


def _divided(a: Tensor, b: Tensor, limit: Tensor) -> Tensor:
    """`a / b`, and what that tends to where b is 0."""
    return ops.where(b == 0, limit, a / ops.where(b == 0, 1.0, b))


def _slope(dy: Tensor, dx: Tensor, derivative: Tensor, size: Tensor) -> Tensor:
    """`dy / dx`, and the derivative where dx vanishes beside the numbers it is a difference of."""
    tiny = ops.abs(dx) <= 1e-5 * size
    return ops.where(tiny, derivative, dy / ops.where(tiny, 1.0, dx))
