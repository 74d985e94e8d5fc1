"""Explainers of a user's own: what a step returns is checked."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from tests import models


class Broadcast(kx.Explainer):
    def passes(self, seed):
        return {"a": np.linspace(0, 1, 4, dtype=np.float32)}

    def step(self, probe, x, target, pass_):
        return probe.gradient(x, target) * pass_["a"]


class Silent(kx.Explainer):
    def step(self, probe, x, target, pass_):
        probe.gradient(x, target)


class Total(kx.Explainer):
    def step(self, probe, x, target, pass_):
        return ops.sum(probe.gradient(x, target))


WAYS = {
    "call": lambda explainer, model, x: explainer(model, x, 0),
    "graph": lambda explainer, model, x: explainer.attribute(model, x, 0),
    "inside": lambda explainer, model, x: kx.SmoothGrad(explainer=explainer, samples=2)(
        model, x, 0
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("cls", "said"),
    [(Broadcast, "must be reshaped"), (Silent, "Received: None"), (Total, "for each row")],
)
def test_a_step_returns_values_of_each_row(cls, said, way):
    explain = WAYS[way]
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=f"step` of {cls.__name__}.*{said}"):
        explain(cls(), model, np.ones((3, 4, 4, 1), np.float32))


class Weighed(Broadcast):
    def step(self, probe, x, target, pass_):
        return probe.gradient(x, target) * ops.reshape(pass_["a"], (-1, 1, 1, 1))


def test_a_number_of_a_row_multiplies_its_values():
    case = models.get("subclassed")
    expected = 2 * kx.Saliency(absolute=False)(case.model, case.x, 0).values
    np.testing.assert_allclose(
        Weighed()(case.model, case.x, 0).values, expected, rtol=1e-4, atol=1e-6
    )
