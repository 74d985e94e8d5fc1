"""How long Integrated Gradients takes to a completeness gap of 1 %, by kind of sum.

The gap of a batch is `sum |sum of values - (S(x) - S(0))| / sum |S(x) - S(0)|`. Peers' sums are
made from the same compiled gradients, so that only the number of points differs.
"""

from collections.abc import Callable

import keras
import numpy as np

import keras_explain as kx

GOAL = 0.01
POINTS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96)


def points_to_goal(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, int | None]:
    """The least number of `POINTS` with a gap below 1 %; None where there is none."""
    difference = _score(model, x, y) - _score(model, np.zeros_like(x), y)

    def least(total: Callable[[int], np.ndarray]) -> int | None:
        for points in POINTS:
            if np.abs(total(points) - difference).sum() / np.abs(difference).sum() < GOAL:
                return points
        return None

    def gauss_legendre(points: int) -> np.ndarray:
        return _sums(kx.IntegratedGradients(steps=points)(model, x, y).values)

    slopes: dict[float, np.ndarray] = {}

    def slope(alpha: float) -> np.ndarray:
        if alpha not in slopes:
            at = kx.Saliency(absolute=False)(model, (alpha * x).astype("float32"), y).values
            slopes[alpha] = _sums(at * x)
        return slopes[alpha]

    return {
        "Gauss-Legendre (keras_explain)": least(gauss_legendre),
        "trapezoids (xplique)": least(
            lambda n: np.trapezoid([slope(a) for a in np.linspace(0, 1, n)], dx=1 / (n - 1), axis=0)
        ),
        "mean with both ends (tf-explain)": least(
            lambda n: np.mean([slope(a) for a in np.linspace(0, 1, n)], axis=0)
        ),
    }


def _score(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(model(x), np.float64)[np.arange(len(y)), y]


def _sums(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
