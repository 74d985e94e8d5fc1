"""What is said beside maps that are not to be taken at face value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core.run.precision import gaps

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation

BELOW = "below float precision"
NOTHING = "zero everywhere"
LEAST_GAP = 0.1  # a smaller one is not said


def reliable(explanation: Explanation, part: int | None = None) -> npt.NDArray[np.bool_]:
    """Whether values can be told from zero, of the scores' shape; True where nothing is known.

    Args:
        explanation: An explanation.
        part: The position of an array in the nest of the values; None for any of them.
    """
    known = keras.tree.flatten(explanation.extras.get("reliable", []))
    if part is not None and len(known) == len(keras.tree.flatten(explanation.values)):
        return np.asarray(known[part])
    return np.any(known, axis=0) if known else np.ones(np.shape(explanation.scores), bool)


def completeness_gaps(explanation: Explanation) -> npt.NDArray[np.float64] | None:
    """`core.precision.gaps` of the scores' shape; None where values need not sum to anything."""
    base, delta = map(explanation.extras.get, ("base_values", "convergence_delta"))
    return None if base is None or delta is None else gaps(explanation.scores, base, delta)


def words(explanation: Explanation, known: Any = None) -> npt.NDArray[np.object_]:
    """What is said of each map, of the scores' shape: that it is below precision, or its gap.

    Args:
        explanation: An explanation.
        known: Whether maps can be told from zero; by default any of their inputs' values.
    """
    known, rates = reliable(explanation) if known is None else known, completeness_gaps(explanation)
    said = np.full(known.shape, "", object)
    for at in map(tuple, np.argwhere(known)):
        said[at] = "" if rates is None else of_gap(rates[at])
    for at in map(tuple, np.argwhere(~known)):
        leaves = keras.tree.flatten(explanation.values)
        said[at] = unreliable([np.any(leaf[at]) for leaf in leaves])
    return said


def unreliable(values: Any) -> str:
    """What to say in place of values that can't be told from zero."""
    return BELOW if np.any(values) else NOTHING


def of_gap(gap: float | None) -> str:
    """Such as "gap 34 %"; "" of a gap that is small, or not known."""
    if gap is None or not gap > LEAST_GAP:
        return ""
    return f"gap {gap:.0%}".replace("%", " %") if gap < 10 else "gap > 999 %"
