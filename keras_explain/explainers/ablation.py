"""Feature ablation: each feature hidden alone."""

from typing import Any

import numpy as np

from keras_explain.core.masking import Coalitions


class FeatureAblation(Coalitions):
    """What the score loses when one feature is hidden.

    `value of feature i = S_c(x) - S_c(x without i)`

    Every place of a feature has the feature's whole value. `values` have the input's shape, without
    channels where a feature takes all of them (`[B, H, W]`, `[B, T]`).

    Args:
        features: What is hidden together: an object of `keras_explain.features`, or one for each
            input. By default columns of a table, tokens of a text, windows of a series, segments of
            a picture, blocks of a volume.
        groups: In its place, ints of one sample's shape that number what belongs together.
        baseline: What takes the place of hidden features: a number, an array, or an object of
            `keras_explain.baselines`.
        background: In its place, rows `[N, ...]`: the score is averaged over them (the marginal
            expectation).

    Reference:
        - [Zeiler and Fergus, 2014](https://arxiv.org/abs/1311.2901), section 4.2
    """

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        return ~np.eye(count, dtype=bool)

    def attribute(self, present: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        return np.swapaxes(whole[:, None] - scores, 1, 2), {}
