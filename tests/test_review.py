"""Inputs and configurations that once gave wrong results without a word."""

import keras
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import keras_explain as kx


def table(units=1):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])


def test_integers_beyond_32_bits_keep_their_value():
    model = table()
    model.set_weights([np.ones((2, 1)), np.zeros(1)])
    scores = kx.Saliency()(model, np.array([[3_000_000_000, 1]])).scores
    np.testing.assert_allclose(scores, [3e9], rtol=1e-6)


def test_gradient_shap_with_noise_claims_no_completeness():
    x = np.ones((2, 2), "float32")
    background = np.zeros((3, 2), "float32")
    plain = kx.GradientSHAP(background=background, samples=4)
    assert "convergence_delta" in plain(table(), x).extras
    assert not plain.replace(noise=0.1)(table(), x).extras


def test_blur_along_given_axes():
    pictures = np.random.default_rng(0).normal(size=(2, 9, 7)).astype("float32")
    blurred = np.asarray(kx.baselines.Blur(2.0, axes=(1, 2))(pictures, None))
    expected = gaussian_filter(pictures.astype(float), (0, 2, 2), mode="nearest")
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.5, kx.baselines.Mean(np.ones((3, 4)))])
def test_a_baseline_that_is_no_token_id(baseline):
    layers = [keras.layers.Embedding(9, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,), dtype="int32"), *layers])
    with pytest.raises(ValueError, match="token ids"):
        kx.IntegratedGradients(steps=2, baseline=baseline)(model, np.ones((2, 4), "int32"))


def test_class_names_by_number():
    x = np.ones((2, 2), "float32")
    named = kx.callbacks.ExplanationLogger("saliency", x, class_names={1: "dog", 0: "cat"})
    assert named.class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="every class"):
        kx.callbacks.ExplanationLogger("saliency", x, class_names={1: "dog"})
