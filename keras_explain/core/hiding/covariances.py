"""Covariances of scores with random masks, by a regression whose part is known exactly."""

from collections.abc import Iterable, Sequence

import numpy as np

from keras_explain import backend
from keras_explain.core.hiding.masks import Masks
from keras_explain.core.model.reading import groups

FOLDS = 16
"""So many parts of the passes, each explained by a regression on the others."""

LEAST = 4
"""Fewer folds do not tell how they spread."""

RIDGE = 0.1
"""The regression's prior weighs as many passes as there are controls, times this."""

ELEMENTS = 2**24
"""So many numbers of maps are made together at most."""


def covariances(
    scores: np.ndarray, masks: Sequence[Masks], draws: np.ndarray, variance: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`Cov(score, mask)` at each place, and its standard error.

    In each fold of the passes, a regression on the masks' controls that was fitted to the *other*
    folds explains a part of the scores; the covariance of that part with the masks is known, and
    that of the rest is the mean of its products with the masks. As folds are independent, this is
    unbiased whatever the regression. The error is that of the mean of the folds' estimates.

    Args:
        scores: The score of each pass, of k samples and classes, float64 `[passes, k]`.
        masks: The masks of each input in these passes.
        draws: Which draw each pass is of, ints `[passes]`, from 0 on; draws are independent.
        variance: That of a cell or feature, `keep * (1 - keep)`.

    Returns:
        For each of `masks` both, float64 `[k, *places]`. The error is NaN of fewer than 4 draws.
    """
    count = draws.max() + 1
    number = draws * min(FOLDS, count) // count
    folds = [np.flatnonzero(number == i) for i in range(number.max() + 1)]
    models = _fitted(scores, masks, folds, variance)
    found, start = [], 1
    for part in masks:
        own = slice(start, start := start + len(part.gram))
        pairs = []
        for some in groups(scores.shape[1], max(1, ELEMENTS // part.size)):
            chosen = ((variance * model[own, some], rest[:, some]) for model, rest in models)
            maps = (
                part.covariance(model) + part.products(rest, fold) / len(fold)
                for (model, rest), fold in zip(chosen, folds, strict=True)
            )
            pairs.append(_mean(maps, [len(fold) for fold in folds]))
        values, errors = zip(*pairs, strict=True)
        found.append((np.concatenate(values), np.concatenate(errors)))
    return found


def _fitted(
    scores: np.ndarray, masks: Sequence[Masks], folds: Sequence[np.ndarray], variance: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each fold the regression on the others `[1 + q, k]`, and what it leaves in the fold."""
    x = np.concatenate([np.ones((len(scores), 1)), *(part.controls for part in masks)], axis=1)
    prior, start = np.zeros((x.shape[1], x.shape[1])), 1
    for part in masks:
        own = slice(start, start := start + len(part.gram))
        prior[own, own] = RIDGE * (x.shape[1] - 1) * variance * part.gram
    if len(folds) == 1:
        return [(np.zeros((x.shape[1], scores.shape[1])), scores)]
    parts = [(x[fold], scores[fold]) for fold in folds]
    # of each fold x'x beside x'y
    moments = np.array([backend.matmul(mine.T, np.hstack([mine, y])) for mine, y in parts])
    others = moments.sum(axis=0) - moments
    width = x.shape[1]
    models = backend.solve(others[..., :width] + prior, others[..., width:])
    return [
        (model, y - backend.matmul(mine, model))
        for model, (mine, y) in zip(models, parts, strict=True)
    ]


def _mean(maps: Iterable[np.ndarray], counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of independent estimates by so many passes each, and its standard error."""
    mean, spread, total = np.zeros(()), np.zeros(()), 0
    for one, count in zip(maps, counts, strict=True):
        total += count
        apart = one - mean
        mean = mean + apart * (count / total)
        spread = spread + count * apart * (one - mean)
    if len(counts) < LEAST:
        return mean, np.full_like(mean, np.nan)
    return mean, np.sqrt(spread / total / (len(counts) - 1))
