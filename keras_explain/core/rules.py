"""Rules by which relevance goes back through a weighted sum, and which layer takes which rule.

A rule is data: some terms, each of which gives the inputs shares of the output's relevance. A term
is made of pairs of modified inputs x' and weights w', which the shares are proportional to:

`R_i = sum over terms, j of x'_i w'_ij / (z'_j + stabiliser) * f_j R_j`, `z' = sum x' w' + b'`

`(where, rule)` pairs say which layer takes which rule: the first pair that matches a layer does.
A `where` is a layer, its name or path, or a pattern of these as in `fnmatch` (`"backbone/*"`), a
class of layers or its name (a base class matches too), `"first"` or `"last"` of all weighted sums,
`"convolution"`, or several of these. The path of a nested model stands for all that is in it.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_explain.core import checks
from keras_explain.core.config import Config
from keras_explain.core.data.inputs import check_finite
from keras_explain.core.graph.steps import Affine, Step
from keras_explain.core.names import nearest
from keras_explain.core.selection import CONVOLUTIONS, EVERYTHING, selectors

__all__ = [
    "COMPOSITES",
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gradient",
    "Pass",
    "Rule",
    "WSquare",
    "ZBox",
    "ZPlus",
    "deep_taylor",
    "epsilon_gamma_box",
]

Tensor = Any
Composite = tuple[tuple[tuple[str, ...], "Rule"], ...]
TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Term:
    """Shares of the relevance in proportion to a modified sum.

    Args:
        pairs: Modified inputs x' and weights w'.
        bias: The modified bias b'; None for none.
        factor: A number, or numbers of the output's shape, that multiply the relevance.
    """

    pairs: list[tuple[Tensor, Tensor]]
    bias: Tensor | None = None
    factor: Any = 1.0


class Rule(Config, abc.ABC, kw_only=False):
    """How relevance goes back through a weighted sum `z = x w + b`, or through a whole layer."""

    home = "rules"

    @abc.abstractmethod
    def back(self, step: Any, relevance: Tensor) -> Tensor:
        """The relevance of the input, from that of the output."""


class _Shares(Rule, abc.ABC, kw_only=False):
    """A rule made of terms."""

    @abc.abstractmethod
    def terms(self, step: Affine) -> list[Term]:
        """What the shares of the inputs are proportional to."""

    def back(self, step: Affine, relevance: Tensor) -> Tensor:
        return sum(self._share(step, term, relevance) for term in self.terms(step))

    def _share(self, step: Affine, term: Term, relevance: Tensor) -> Tensor:
        sums = [step.sum(x, w) for x, w in term.pairs]
        z = sum(z for z, _ in sums)
        z = z if term.bias is None else z + term.bias
        share = over(term.factor * relevance, z)
        return sum(x * pull(share) for (x, _), (_, pull) in zip(term.pairs, sums, strict=True))


class Epsilon(Rule, kw_only=False):
    """`R_i = sum_j x_i w_ij / (z_j + e_j) R_j`, the share of each input in the sum.

    `e_j = epsilon * sign(z_j) * (root mean square of z over a sample)`. The bias keeps its share.

    Args:
        epsilon: The stabiliser. More of it takes relevance from weak and contradictory sums.

    Reference:
        - [Bach et al., 2015](https://doi.org/10.1371/journal.pone.0130140), equation 58
    """

    epsilon: float = TINY

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("epsilon", self.epsilon)

    def back(self, step: Affine, relevance: Tensor) -> Tensor:
        return step.x * step.pull([over(relevance, step.z, self.epsilon)])[0]


class ZPlus(_Shares, kw_only=False):
    """`R_i = sum_j (x_i w_ij)+ / sum_i (x_i w_ij)+ R_j`, what speaks for the output alone.

    Without the bias, so that no relevance is lost.

    Reference:
        - [Montavon et al., 2017](https://doi.org/10.1016/j.patcog.2016.11.008), section 4.1
    """

    def terms(self, step: Affine) -> list[Term]:
        return [Term(_signed(step, 1))]


class AlphaBeta(_Shares, kw_only=False):
    """`R_i = sum_j (alpha (x_i w_ij)+ / z_j+ - beta (x_i w_ij)- / z_j-) R_j`.

    The positive part of a bias counts in `z_j+`, the negative part in `z_j-`.

    Args:
        alpha: The weight of what speaks for the output.
        beta: The weight of what speaks against it; `alpha - beta = 1`.

    Reference:
        - [Bach et al., 2015](https://doi.org/10.1371/journal.pone.0130140), equation 60
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("alpha", self.alpha)
        checks.share("beta", self.beta)
        if abs(self.alpha - self.beta - 1) > 1e-6:
            raise ValueError(
                "Expected a beta of 0 or more and alpha - beta = 1, which keeps the sum of the "
                f"relevance. Received: alpha={self.alpha}, beta={self.beta}."
            )

    def terms(self, step: Affine) -> list[Term]:
        positive = Term(_signed(step, 1), _part(step.bias, 1), self.alpha)
        negative = Term(_signed(step, -1), _part(step.bias, -1), -self.beta)
        return [positive, negative] if self.beta else [positive]


class Gamma(_Shares, kw_only=False):
    """What agrees with the output's sign counts `1 + gamma` times.

    `R_i = sum_j (z_ij + gamma z_ij+) / sum_i (z_ij + gamma z_ij+) R_j`, `z_ij = x_i w_ij`, where
    `z_j > 0`; with `z_ij-` where `z_j < 0`. The bias likewise.

    Args:
        gamma: How much more it counts.

    Reference:
        - [Montavon et al., 2019](https://doi.org/10.1007/978-3-030-28954-6_10), section 10.2.3
        - [Andéol et al., 2021](https://arxiv.org/abs/2108.09841), for inputs of both signs
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("gamma", self.gamma)

    def terms(self, step: Affine) -> list[Term]:
        return [self._term(step, sign) for sign in (1, -1)]

    def _term(self, step: Affine, sign: int) -> Term:
        x, w, b = step.x, step.w, step.bias
        pairs = [(_part(x, 1), w + self.gamma * _part(w, sign))]
        if not step.is_not_negative:
            pairs.append((_part(x, -1), w + self.gamma * _part(w, -sign)))
        bias = None if b is None else b + self.gamma * _part(b, sign)
        agrees = step.z >= 0 if sign > 0 else step.z < 0
        return Term(pairs, bias, ops.cast(agrees, x.dtype))


class WSquare(_Shares, kw_only=False):
    """`R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j`, for a first layer whose input has no bounds.

    Reference:
        - [Montavon et al., 2017](https://doi.org/10.1016/j.patcog.2016.11.008), section 4.1
    """

    def terms(self, step: Affine) -> list[Term]:
        return [Term([(ops.ones_like(step.x), ops.square(step.w))])]


class Flat(_Shares, kw_only=False):
    """`R_i = sum_j R_j / (number of inputs of j)`: every input of a sum alike.

    Reference:
        - [Lapuschkin et al., 2019](https://doi.org/10.1038/s41467-019-08987-4), supplement
    """

    def terms(self, step: Affine) -> list[Term]:
        return [Term([(ops.ones_like(step.x), ops.ones_like(step.w))])]


class ZBox(_Shares, kw_only=False):
    """For a first layer whose input lies in a box, such as pixels.

    `R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / sum_i (x_i w_ij - l_i w_ij+ - h_i w_ij-) R_j`

    Args:
        low: The least value l: a number, or an array that broadcasts to the layer's input `[n,
            ...]`; None for each sample's own least value.
        high: The largest value h, likewise.

    Reference:
        - [Montavon et al., 2017](https://doi.org/10.1016/j.patcog.2016.11.008), section 4.1
    """

    low: Any = None
    high: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            object.__setattr__(self, name, _number_or_array(name, getattr(self, name)))
        if self.low is not None and self.high is not None and np.any(self.low > self.high):
            raise ValueError(
                f"Expected low <= high. Received: low={self.low!r}, high={self.high!r}."
            )

    def terms(self, step: Affine) -> list[Term]:
        x, w = step.x, step.w
        low, high = _bound(x, self.low, ops.min), _bound(x, self.high, ops.max)
        return [Term([(x, w), (low, -_part(w, 1)), (high, -_part(w, -1))])]


def _number_or_array(name: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected `{name}` to be numbers. Received: {value!r}.") from error
    check_finite(np.atleast_1d(array), f"`{name}`")
    return float(array) if array.ndim == 0 else array


def z_box(low: Any, high: Any) -> ZBox:
    """A `ZBox` of bounds that were checked, or are a graph's tensors."""
    box = object.__new__(ZBox)
    object.__setattr__(box, "low", low)
    object.__setattr__(box, "high", high)
    return box


class Pass(Rule, kw_only=False):
    """`R_i = R_i`: a layer that keeps the shape passes relevance on as it is."""

    def back(self, step: Step, relevance: Tensor) -> Tensor:
        x, z = step.inputs[0], step.outputs[0]
        if not len(step.inputs) == len(step.outputs) == 1 or x.shape[1:] != z.shape[1:]:
            raise ValueError(
                "Expected a layer with one input, of the shape of its one output, to pass "
                f"relevance on. Received: {step.where}, from {tuple(x.shape)} to "
                f"{tuple(z.shape)}. Give it another rule, such as `keras_explain.rules.Gradient()`."
            )
        return relevance


class Gradient(Rule, kw_only=False):
    """A whole layer as one step: shares in proportion to input x gradient.

    `R_i = x_i sum_j dy_j/dx_i R_j / (y_j + e_j)`, for layers whose inside has no rules. Relevance
    is lost, or gained, where the layer is not linear.
    """

    def back(self, step: Step, relevance: Tensor) -> Tensor:
        return self.shares(step, [relevance])[0]

    def shares(self, step: Step, relevance: list[Tensor | None]) -> list[Tensor | None]:
        """The relevance of each input of a step, from that of each output."""
        share = [
            None if r is None else over(r, y) for r, y in zip(relevance, step.outputs, strict=True)
        ]
        back = step.pull(share)
        return [None if b is None else x * b for x, b in zip(step.inputs, back, strict=True)]


def over(relevance: Tensor, z: Tensor, epsilon: float = TINY) -> Tensor:
    """`R / (z + e)`, with the stabiliser e relative to the size of z in each row; 0 for 0 / 0."""
    axes = tuple(range(1, len(z.shape)))
    size = ops.sqrt(ops.mean(ops.square(z), axis=axes, keepdims=True))
    z = z + ops.where(z < 0, -epsilon, epsilon) * size
    return ops.where(z == 0, 0.0, relevance / ops.where(z == 0, 1.0, z))


def _part(value: Any, sign: int) -> Any:
    """The positive or the negative part."""
    if value is None:
        return None
    return ops.maximum(value, 0.0) if sign > 0 else ops.minimum(value, 0.0)


def _signed(step: Affine, sign: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and weights whose products are the positive (negative) ones of all `x_i w_ij`."""
    pairs = [(_part(step.x, 1), _part(step.w, sign))]
    if not step.is_not_negative:
        pairs.append((_part(step.x, -1), _part(step.w, -sign)))
    return pairs


def _bound(x: Tensor, given: Any, extreme: Callable) -> Tensor:
    if given is None:
        given = extreme(x, axis=tuple(range(1, len(x.shape))), keepdims=True)
    shape, inside = tuple(np.shape(given)), tuple(x.shape[1:])
    known = shape[-len(inside) :] if inside else ()
    if any(n not in (1, None, m) for n, m in zip(known[::-1], inside[::-1], strict=False)):
        raise ValueError(
            f"Expected bounds that broadcast to the first layer's input {inside}. "
            f"Received: bounds of shape {shape}."
        )
    return ops.broadcast_to(ops.cast(given, x.dtype), ops.shape(x))


# Sets of rules


def epsilon_gamma_box(low: Any = None, high: Any = None) -> Composite:
    """Gamma in convolutions, epsilon elsewhere, and z-box in the first layer.

    Args:
        low: The least value of an input, as in `ZBox`.
        high: The largest.
    """
    return ((("first",), ZBox(low, high)), (CONVOLUTIONS, Gamma()), (EVERYTHING, Epsilon()))


def deep_taylor(low: Any = None, high: Any = None) -> Composite:
    """Z-box in the first layer and z+ in all others.

    Args:
        low: The least value of an input, as in `ZBox`.
        high: The largest.
    """
    return ((("first",), z_box(low, high)), (EVERYTHING, ZPlus()))


COMPOSITES: dict[str, Composite] = {
    "epsilon": ((EVERYTHING, Epsilon()),),
    "epsilon_plus": ((CONVOLUTIONS, ZPlus()), (EVERYTHING, Epsilon())),
    "epsilon_plus_flat": (
        (("first",), Flat()),
        (CONVOLUTIONS, ZPlus()),
        (EVERYTHING, Epsilon()),
    ),
    "epsilon_gamma_box": epsilon_gamma_box(),
    "alpha1_beta0": ((EVERYTHING, AlphaBeta(1.0, 0.0)),),
    "alpha2_beta1": ((EVERYTHING, AlphaBeta(2.0, 1.0)),),
    "epsilon_alpha2_beta1": ((CONVOLUTIONS, AlphaBeta(2.0, 1.0)), (EVERYTHING, Epsilon())),
    "deep_taylor": deep_taylor(),
}
"""Sets of rules by name; layers that none names take `Epsilon()`."""


def composite(rules: Any) -> Composite:
    """A name of `COMPOSITES`, or a user's `(where, rule)` pairs (also a dict), as pairs.

    Raises:
        ValueError: No composite has the name.
    """
    if isinstance(rules, str):
        if rules not in COMPOSITES:
            raise ValueError(
                "Expected the name of a set of rules, or a list of (where, rule) pairs. "
                f"Received: rules={rules!r}. {nearest(rules, COMPOSITES)}"
            )
        return COMPOSITES[rules]
    pairs = rules.items() if isinstance(rules, dict) else rules
    if not isinstance(rules, (dict, list, tuple)):
        pairs = [rules]
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[1], Rule):
            raise TypeError(
                "Expected (where, rule) pairs, such as `(keras.layers.Dense, "
                f"keras_explain.rules.Epsilon())`. Received: {pair!r}."
            )
    return tuple((selectors(where), rule) for where, rule in pairs)
