"""How sure values are that come from draws, and after how many draws a method may be done."""

import itertools
from typing import Any

import numpy as np
from keras import tree

from keras_explain.core.run.precision import rounding


def of(result: dict[str, Any], passes: int) -> dict[str, np.ndarray]:
    """How sure each row is, and how many passes that took.

    `relative_error = ||standard error||_2 / ||values||_2` over all that is explained of a row, 0
    where the standard error is. What has none (NaN) is left out; NaN where nothing has one.

    Args:
        result: `"values"`, `"standard_error"` (a nest like the values) and `"scores"` `[n]` or
            `[n, K]`.
        passes: How many passes each row took.
    """
    shape = result["scores"].shape
    values, error = (_flat(result[name], shape) for name in ("values", "standard_error"))
    known = ~np.isnan(error)
    wrong = np.sqrt(np.sum(error**2, axis=-1, where=known))
    size = np.sqrt(np.sum(values**2, axis=-1, where=known))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(wrong == 0, 0.0, wrong / size)
    relative = np.where(known.any(axis=-1), relative, np.nan).astype(np.float32)
    return {"relative_error": relative, "passes": np.full(shape, passes, np.int32)}


def _flat(nest: Any, shape: tuple[int, ...]) -> np.ndarray:
    """All numbers of each row, float64 `[*shape, N]`."""
    leaves = [np.reshape(leaf, (*shape, -1)) for leaf in tree.flatten(nest)]
    return np.concatenate(leaves, axis=-1).astype(np.float64)


def unseen(scores: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Whether all passes had one score, and the input itself another: what matters was not seen.

    Args:
        scores: `[n, passes, K]`.
        whole: `[n, K]`.
    """
    first = scores[:, 0]
    constant = np.ptp(scores, axis=1) <= rounding(scores, axis=1)
    return constant & (np.abs(whole - first) > rounding(np.stack([whole, first]), axis=0))


def at_least(result: dict[str, Any]) -> np.ndarray:
    """The `"value_error"` of a result, which its `"convergence_delta"` shows a least size of.

    Errors of n values that sum to delta have an L2 norm of `|delta| / sqrt(n)` or more.
    """
    shape, delta = result["scores"].shape, np.abs(result["convergence_delta"])
    values = _flat(result["values"], shape)
    known = np.stack([result["scores"], result["base_values"]])
    delta = np.where(delta > rounding(known, axis=0), delta, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = delta / np.sqrt(values.shape[-1] * np.sum(values**2, axis=-1))
    return np.maximum(result["value_error"], np.where(delta > 0, least, 0.0)).astype(np.float32)


def doubled(first: int, most: int) -> list[int]:
    """`first`, twice as many, four times as many, ... and at last `most`."""
    counts = (first * 2**i for i in itertools.count())
    return [*itertools.takewhile(lambda count: count < most, counts), most]


def halved(most: int, least: int = 32) -> list[int]:
    """Numbers of which each is half the next one, from below `2 * least` to no more than `most`."""
    times = max(0, (most // least).bit_length() - 1)
    return [(most >> times) << i for i in range(times + 1)]
