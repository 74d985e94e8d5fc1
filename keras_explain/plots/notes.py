"""What is said beside maps that are not to be taken at face value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core.run import sureness
from keras_explain.core.run.precision import gaps

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation

BELOW = "below float precision"
NOTHING = "zero everywhere"
LEAST = 0.1  # smaller gaps and errors are not said


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


def errors(explanation: Explanation, part: int | None = None) -> npt.NDArray[np.float64] | None:
    """By which share the values are off, of the scores' shape; None where none is estimated.

    It is the relative standard error of what is drawn, or what is known of an integral's values;
    NaN where it can't be told.

    Args:
        explanation: An explanation.
        part: The position of an array in the nest of the values; None for all of them.
    """
    extras = explanation.extras
    drawn = keras.tree.flatten(extras.get("standard_error", []))
    if part is not None and len(drawn) > 1:
        values = keras.tree.flatten(explanation.values)[part]
        own = {"values": values, "standard_error": drawn[part], "scores": explanation.scores}
        return np.asarray(sureness.of(own, 0)["relative_error"], np.float64)
    found = extras.get("relative_error", extras.get("value_error"))
    return None if found is None else np.asarray(found, np.float64)


def words(explanation: Explanation, known: Any = None) -> npt.NDArray[np.object_]:
    """What is said of each map, of the scores' shape: below precision, or its gap and error.

    Args:
        explanation: An explanation.
        known: Whether maps can be told from zero; by default any of their inputs' values.
    """
    known = reliable(explanation) if known is None else known
    shares = completeness_gaps(explanation), errors(explanation)
    said = np.full(known.shape, "", object)
    for at in map(tuple, np.argwhere(known)):
        said[at] = ", ".join(filter(None, of_shares(*(s if s is None else s[at] for s in shares))))
    for at in map(tuple, np.argwhere(~known)):
        leaves = keras.tree.flatten(explanation.values)
        said[at] = unreliable([np.any(leaf[at]) for leaf in leaves])
    return said


def unreliable(values: Any) -> str:
    """What to say in place of values that can't be told from zero."""
    return BELOW if np.any(values) else NOTHING


def of_shares(gap: float | None, error: float | None) -> tuple[str, str]:
    """Such as "gap 34 %" and "error 12 %"; "" of what is small, or not known."""
    return _of_share("gap", gap), _of_share("error", error)


def _of_share(name: str, share: float | None) -> str:
    if name == "error" and share is not None and np.isnan(share):
        return "error unknown"
    if share is None or not share > LEAST:
        return ""
    return f"{name} {share:.0%}".replace("%", " %") if share < 10 else f"{name} > 999 %"
