"""DeepSHAP beside shap's DeepExplainer, on networks that it takes: of ReLUs, without ReLU6."""

import warnings
from collections.abc import Callable

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_explain as kx
from benchmarks.subjects import small_cnn

L = keras.layers
Work = Callable[[], np.ndarray]
Network = tuple[keras.Model, np.ndarray, np.ndarray]
BACKGROUND = 32


def cnn(samples: int = 16) -> Network:
    """The small CNN of the other tables, samples `[B, 32, 32, 3]` and a background of 32."""
    model, x, _ = small_cnn(samples + BACKGROUND)
    return model, x[:samples], x[samples:]


def dense(samples: int = 128) -> Network:
    """Three dense layers, trained for a moment on handwritten digits `[B, 64]`."""
    keras.utils.set_random_seed(0)
    x = (load_digits().data / 16).astype("float32")
    hidden = [L.Dense(128, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, L.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, load_digits().target, epochs=5, verbose=0)
    return model, x[:samples], x[samples : samples + BACKGROUND]


NETWORKS = {"small CNN, 32 x 32, 16 samples": cnn, "dense network, 64 inputs, 128 samples": dense}


def predicted_class(model: keras.Model, x: np.ndarray, background: np.ndarray) -> tuple[Work, Work]:
    """Values `[B, ...]` of the class of the largest logit, by us and by shap."""
    shap_values = _shap_values(model, x, background)
    return (
        lambda: kx.DeepSHAP(background=background)(model, x).values,
        lambda: shap_values(ranked_outputs=1)[0][..., 0],
    )


def all_classes(model: keras.Model, x: np.ndarray, background: np.ndarray) -> tuple[Work, Work]:
    """Values `[B, K, ...]` of all K classes."""
    classes = np.tile(np.arange(model.output_shape[-1]), (len(x), 1))
    shap_values = _shap_values(model, x, background)
    return (
        lambda: kx.DeepSHAP(background=background)(model, x, classes).values,
        lambda: np.moveaxis(shap_values(), -1, 1),
    )


CONTESTS = {"predicted": predicted_class, "all 10": all_classes}


def _shap_values(model: keras.Model, x: np.ndarray, background: np.ndarray) -> Callable:
    """`DeepExplainer.shap_values` of x; the check of additivity fails for ranked outputs."""
    import shap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the version of TensorFlow
        explainer = shap.DeepExplainer(model, background)

    def shap_values(**kwargs: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the nest of the inputs
            return explainer.shap_values(x, check_additivity=False, **kwargs)

    return shap_values


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays of the same shape, as a share of the largest value."""
    if a.shape != b.shape:
        raise ValueError(f"Expected equal shapes. Received: {a.shape} and {b.shape}.")
    return float(np.abs(a - b).max() / np.abs(b).max())
