"""How many designs and masks sensitivity analysis takes, where it goes on until it is sure."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops

from keras_explain import features
from keras_explain.explainers.sensitivity import HSICAttribution, SobolAttribution
from tests import models, naive

BOTH = [(SobolAttribution, "designs", 6 + 2), (HSICAttribution, "samples", 1)]


@pytest.mark.parametrize(("cls", "counted", "each"), BOTH)
def test_fewer_passes_are_the_beginning_of_more(cls, counted, each):
    whole = cls(**{counted: 256}).coalitions(6, 3)
    auto = cls(**{counted: "auto"}, max_passes=256 * each)
    np.testing.assert_array_equal(auto.coalitions(6, 3), whole)
    stops = auto.stops(6)
    assert stops[-1] == 256 * each
    for stop in stops:
        fixed = cls(**{counted: stop // each})
        np.testing.assert_array_equal(fixed.coalitions(6, 3), whole[:stop])
        assert fixed.stops(6) == ()


@pytest.mark.parametrize(("cls", "counted", "each"), BOTH)
def test_it_goes_on_until_it_is_sure(cls, counted, each):
    model, x = naive.perceptron(6, classes=4), naive.inputs((6,))
    many, auto = np.array([[0, 1], [3, 0], [1, 2]]), cls(**{counted: "auto"}, error=0.15)
    found = auto(model, pd.DataFrame(x), many)
    passes = found.extras["passes"]
    assert (found.extras["relative_error"] <= 0.15).all()
    assert auto.stops(6)[0] < passes.max() < auto.limit
    for row, count in enumerate(passes[:, 0]):
        fixed = cls(**{counted: int(count) // each})(model, x, many)
        np.testing.assert_array_equal(found.values[row], fixed.values[row])
        error = fixed.extras["standard_error"][row]
        np.testing.assert_array_equal(found.extras["standard_error"][row], error)


@pytest.mark.parametrize(("cls", "counted"), [both[:2] for both in BOTH])
def test_tokens_of_several_lengths_and_a_maximum(cls, counted):
    case, limit = models.get("tokens_int"), 100
    explainer = cls(
        features=features.Tokens(mask=1), **{counted: "auto"}, error=1e-6, max_passes=limit
    )
    with pytest.warns(UserWarning, match="has not reached the relative standard error"):
        found = explainer(case.model, case.x)
    passes = found.extras["passes"]
    assert (passes <= limit).all()
    if cls is SobolAttribution:
        counts = (case.x != 0).sum(axis=1)
        np.testing.assert_array_equal(
            passes, 2 ** np.floor(np.log2(limit / (counts + 2))) * (counts + 2)
        )
    assert found.extras["standard_error"].shape == found.values.shape
    assert not found.extras["standard_error"][case.x == 0].any()


@pytest.mark.parametrize(("cls", "counted", "each"), BOTH)
def test_a_constant_model_is_sure(cls, counted, each):
    x = keras.Input((6,))
    dense = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model, auto = keras.Model(x, dense(x)), cls(**{counted: "auto"})
    with pytest.warns(UserWarning, match="is zero everywhere"):
        found = auto(model, naive.inputs((6,)), 1)
    assert not found.extras["standard_error"].any()
    assert not found.extras["relative_error"].any()
    assert (found.extras["passes"] == auto.stops(6)[0]).all()


def test_one_pair_of_masks_has_no_error():
    found = HSICAttribution(samples=2)(naive.perceptron(3), naive.inputs((3,)), 0)
    assert np.isfinite(found.values).all()
    assert np.isnan(found.extras["standard_error"]).all()
    assert np.isnan(found.extras["relative_error"]).all()


@pytest.mark.parametrize(("cls", "counted"), [both[:2] for both in BOTH])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": "auto", "error": 0}, "`error` as a share"),
        ({"n": "many"}, 'to be a whole number, or "auto"'),
        ({"n": None}, "to be a whole number of 2 or more"),
        ({"n": 32, "error": 0.1}, "`error` with"),
        ({"n": 32, "max_passes": 9}, "`max_passes` with"),
    ],
)
def test_bad_numbers(cls, counted, options, message):
    options = {counted if name == "n" else name: value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        cls(**options)


@pytest.mark.filterwarnings("ignore:.* is zero everywhere")
@pytest.mark.parametrize("explainer", [HSICAttribution(samples=128), SobolAttribution(designs=8)])
def test_an_error_is_not_known_where_nothing_that_matters_was_seen(explainer):
    inputs = keras.Input((16,))
    whole = layers.Lambda(
        lambda v: ops.cast(ops.all(v > 0.99, -1, keepdims=True), "float32"), output_shape=(1,)
    )
    found = explainer(keras.Model(inputs, whole(inputs)), np.ones((1, 16), np.float32))
    assert not found.values.any()
    assert np.isnan(found.extras["relative_error"]).all()


def test_more_masks_than_fit_into_memory_are_refused():
    with pytest.raises(ValueError, match=r"at most 16384 masks.*Received: 60000"):
        HSICAttribution(samples=60000)
    with pytest.raises(ValueError, match=r"at most 16384 masks.*Received: 20000"):
        HSICAttribution(samples="auto", max_passes=20000)


def test_passes_that_have_no_room_for_designs_are_refused():
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="max_passes of 64 or more for 30 features"):
        SobolAttribution(designs="auto", max_passes=10)(model, np.ones((1, 30), np.float32))
