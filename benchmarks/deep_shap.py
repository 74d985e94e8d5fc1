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
SAMPLES, BACKGROUND = 16, 32


def cnn() -> Network:
    """The small CNN of the other tables, samples `[16, 32, 32, 3]` and a background of 32."""
    model, x, _ = small_cnn(SAMPLES + BACKGROUND)
    return model, x[:SAMPLES], x[SAMPLES:]


def dense() -> Network:
    """Three dense layers, trained for a moment on handwritten digits `[B, 64]`."""
    keras.utils.set_random_seed(0)
    x = (load_digits().data / 16).astype("float32")
    hidden = [L.Dense(128, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, L.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, load_digits().target, epochs=5, verbose=0)
    return model, x[:SAMPLES], x[SAMPLES : SAMPLES + BACKGROUND]


NETWORKS = {"small CNN, 32 x 32": cnn, "dense network, 64 inputs": dense}


def contestants(
    model: keras.Model, x: np.ndarray, background: np.ndarray
) -> dict[str, tuple[Work, Work]]:
    """Our work and shap's, of the predicted class and of all classes, `[B, classes, ...]`.

    shap's check of additivity is off: it looks for ranked outputs in the wrong columns.
    """
    import shap

    ours = kx.DeepSHAP(background=background)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = shap.DeepExplainer(model, background)
    classes = np.arange(model.output_shape[-1])

    def shaps(**kwargs: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = theirs.shap_values(x, check_additivity=False, **kwargs)
        values = found[0] if kwargs else found
        return np.moveaxis(np.asarray(values), -1, 1)

    return {
        "the predicted one": (
            lambda: ours(model, x).values[:, None],
            lambda: shaps(ranked_outputs=1),
        ),
        "all": (
            lambda: ours(model, x, np.tile(classes, (len(x), 1))).values,
            lambda: shaps(),
        ),
    }


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays of the same shape, as a share of the largest value."""
    if a.shape != b.shape:
        raise ValueError(f"Expected equal shapes. Received: {a.shape} and {b.shape}.")
    return float(np.abs(a - b).max() / np.abs(b).max())
