"""What float32 can tell from zero, beside the size of the scores that are explained."""

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any

ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""By which share scores may differ that are equal but for rounding.

The sums of a network's last layers are each rounded to half a step of float32 (`eps` or less of
the score), which together makes a few steps.
"""


def rounding(scores: Any, axis: int | None = None) -> Any:
    """By how much scores may differ along an axis that are equal but for rounding.

    0 where one is not finite.
    """
    largest = np.abs(scores).max(axis=axis).astype(np.float64)
    return np.where(np.isfinite(largest), ROUNDING * largest, 0.0)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """`a - b`; 0 where it is nothing but rounding."""
    change = a - b
    return ops.where(ops.abs(change) <= ROUNDING * ops.maximum(ops.abs(a), ops.abs(b)), 0.0, change)


def size_of(point: Nest) -> Tensor:
    """The largest number of each row of a point, `[n]`, or 1 where all are smaller.

    It stands for how far an input can change; a row may happen to be near 0.
    """
    leaves = [ops.abs(ops.cast(leaf, "float32")) for leaf in tree.flatten(point)]
    largest = [ops.max(leaf, axis=tuple(range(1, len(leaf.shape)))) for leaf in leaves]
    return ops.max(ops.stack([ops.ones_like(largest[0]), *largest]), axis=0)


def reliable(explainer: "Explainer", result: dict[str, Any], size: Any = 1.0) -> Nest:
    """Whether each array of the values can be told from zero.

    What is compared with the rounding of the score, and of the base value where there is one:

    - of values in units of the score, their sum of |values|: all that they can do together;
    - of differences of scores, each of which is made of rounding steps, the largest;
    - of values in units of the score per input, the sum times the size of the inputs.

    Values in other units are told from zero by what made them, or not judged. Of a map that was
    upsampled, the one at its own resolution counts.

    Args:
        explainer: What made the values.
        result: `"values"`, `"scores"` `[n]` or `[n, K]`, and the extras.
        size: The size of the inputs, `[n]`.

    Returns:
        Booleans of the scores' shape, in the nest of the values.
    """
    scores, unit = result["scores"], explainer.plan.unit
    known = [scores, result.get("base_values", scores)]
    least = 0.0 if unit is None else rounding(known, axis=0)

    def judged(leaf: np.ndarray) -> np.ndarray:
        each = np.abs(leaf.reshape(*scores.shape, -1))
        if explainer.reduce.squares:
            each = np.sqrt(each)
        if unit in (None, "difference"):
            effect = each.max(axis=-1, initial=0.0)
        else:
            effect = each.sum(axis=-1) * (size if unit == "score per input" else 1.0)
        return ~(effect <= least)  # of what is not a number nothing is said

    own = result.get("map")
    return tree.map_structure(lambda leaf: judged(leaf if own is None else own), result["values"])


def gaps(scores: Any, base_values: Any, deltas: Any) -> np.ndarray:
    """How much of each score's change its values leave unexplained: `|delta| / |score - base|`.

    A delta within the scores' rounding is no gap, and no change counts as less than that.

    Args:
        scores: The explained scores.
        base_values: What they are measured from.
        deltas: The sum of the values less what it should be.

    Returns:
        Gaps of the scores' shape, float64: 0 is complete.
    """
    scores, base, size = (np.asarray(a, np.float64) for a in (scores, base_values, np.abs(deltas)))
    least = rounding([scores, base], axis=0)
    change = np.maximum(np.abs(scores - base), least)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size <= least, 0.0, size / change)
