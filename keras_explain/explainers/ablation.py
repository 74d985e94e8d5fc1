"""Feature ablation: each feature hidden alone."""

from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from keras_explain.core.hiding.perturbation import ByFeature
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan


class FeatureAblation(ByFeature):
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

    @property
    def plan(self) -> Plan:
        return replace(super().plan, missing=True)

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        return {"hidden": np.arange(max(1, count), dtype=np.int32)}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        hidden, all_labels = pass_.once["hidden"], pass_.shared["labels"]
        visible = []
        for i in range(len(all_labels)):
            labels = all_labels[str(i)]
            one = ops.reshape(hidden, (-1,) + (1,) * len(labels.shape))
            visible.append(ops.not_equal(labels[None], one))
        return self.hiding.scores(probe, target, pass_, visible)

    def values_of(self, passes: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        return np.swapaxes(whole[:, None] - scores, 1, 2), {}
