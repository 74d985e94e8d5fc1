"""Numbers that say how good and how stable explanations are, each the mean over the samples."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core.record.explanation import Explanation
from keras_explain.plots.places import layer_of, layouts_of

Maps = npt.NDArray[np.float64]  # [rows, N]
NAMES = {
    "completeness_gap",
    "relative_error",
    "value_error",
    "drift",
    "concentration",
    "score",
    "scale",
}


def flat_maps(explanation: Explanation) -> Maps:
    """The maps that scalars are computed on: one row per sample and explained class.

    Values of pictures `[B, H, W, C]` are summed over their channels, other values are taken as they
    are, and the leaves of a nest are put end to end.

    Args:
        explanation: An explanation of `B` samples, and of `K` classes each where the target had
            that axis.

    Returns:
        Maps `[B * K, N]`.
    """
    rows = np.size(explanation.scores)
    lead = np.ndim(explanation.scores)
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(explanation.values)]
    folded = [leaf.reshape(rows, *leaf.shape[lead:]) for leaf in leaves]
    summed = [_without_channels(explanation, i, leaf) for i, leaf in enumerate(folded)]
    flat = [leaf.reshape(rows, -1) for leaf in summed]
    return np.concatenate(flat, axis=1).astype(np.float64)


def _without_channels(explanation: Explanation, place: int, values: Maps) -> Maps:
    """Values of pictures `[rows, H, W, C]` summed over the channels, and any others."""
    if values.ndim != 4:
        return values
    if layer_of(explanation) is not None:
        return values.sum(axis=explanation.layer_channels or -1)
    layout = layouts_of(explanation)[explanation.over or place]
    whole = layout.rank == 4 and layout.channels is not None
    return values.sum(axis=layout.channels) if whole else values


def measure(
    explanation: Explanation, maps: Maps, ranks: Maps, previous: Maps | None
) -> dict[str, float]:
    """All scalars of one explanation.

    Args:
        explanation: An explanation.
        maps: Its `flat_maps`.
        ranks: Their `centred_ranks`.
        previous: The ranks at the step before; `None` at the first step.

    Returns:
        `completeness_gap` where the explanation has a convergence delta, `relative_error` and
        `value_error` where it has these, `drift` from the second step on, `concentration`, and
        `score`.
    """
    scalars = {}
    if {"convergence_delta", "base_values"} <= explanation.extras.keys():
        scalars["completeness_gap"] = completeness_gap(explanation)
    for name in {"relative_error", "value_error"} & explanation.extras.keys():
        scalars[name] = float(np.mean(explanation.extras[name], dtype=np.float64))
    if previous is not None:
        scalars["drift"] = drift(ranks, previous)
    scalars["concentration"] = concentration(maps)
    scalars["score"] = float(np.mean(explanation.scores, dtype=np.float64))
    return scalars


def completeness_gap(explanation: Explanation) -> float:
    """How much of the scores' changes the values leave unexplained.

    `sum_i |delta_i| / sum_i |score_i - base_i|`, where `delta_i` is the sum of sample `i`'s values
    minus `score_i - base_i`.

    Args:
        explanation: An explanation with `extras["convergence_delta"]` and `extras["base_values"]`.

    Returns:
        The gap: 0 is complete. 0 if both sums are 0, infinity if only the lower one is.
    """
    delta = np.abs(_float64(explanation.extras["convergence_delta"])).sum()
    change = np.abs(_float64(explanation.scores) - explanation.extras["base_values"]).sum()
    if change == 0:
        return 0.0 if delta == 0 else float("inf")
    return float(delta / change)


def centred_ranks(maps: Maps) -> Maps:
    """The rank of each value in its row, less the mean rank; equal values share their mean rank.

    Args:
        maps: Maps `[rows, N]`.

    Returns:
        Ranks `[rows, N]`, from `-(N - 1) / 2` to `(N - 1) / 2`; all 0 for a constant row.
    """
    from scipy import stats

    return np.asarray(stats.rankdata(maps, axis=1)) - (maps.shape[1] + 1) / 2


def drift(ranks: Maps, previous: Maps) -> float:
    """How much the order of importance has changed: mean of 1 - Spearman's rank correlation.

    A sample counts 0 where both its maps are constant, and 1 where exactly one is.

    Args:
        ranks: `centred_ranks` of the maps, `[rows, N]`.
        previous: Those of the same samples at the step before, `[rows, N]`.

    Returns:
        A value in [0, 2]: 0 for the same order, 1 for an unrelated one, 2 for the reverse.
    """
    sizes = np.sqrt((ranks**2).sum(axis=1) * (previous**2).sum(axis=1))
    alike = (ranks * previous).sum(axis=1) / np.where(sizes == 0, 1, sizes)
    both_constant = ~(ranks.any(axis=1) | previous.any(axis=1))
    return float(np.mean(np.where(both_constant, 0.0, 1 - alike)))


def concentration(maps: Maps) -> float:
    """How few features the importance rests on: mean Gini coefficient of |map|.

    `sum_j (2 j - N - 1) v_j / (N sum_j v_j)`, with `v_1 <= ... <= v_N` the sorted |map|. A map that
    is all zero counts 0.

    Args:
        maps: Maps `[rows, N]`.

    Returns:
        A value in [0, 1): 0 if all features matter alike, `1 - 1 / N` if only one does.
    """
    sizes = np.sort(np.abs(maps), axis=1)
    n = sizes.shape[1]
    weighted = sizes @ (2.0 * np.arange(1, n + 1) - n - 1)
    totals = sizes.sum(axis=1)
    return float(np.mean(weighted / (n * np.where(totals == 0, 1, totals))))


def _float64(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(values, np.float64)
