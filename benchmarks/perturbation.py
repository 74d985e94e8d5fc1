"""The perturbation family beside plain compiled forward passes and other libraries.

Each function prepares a contestant and returns a function without arguments that does the work.
"""

import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer

import keras_explain as kx
from benchmarks.subjects import mobilenet, small_cnn
from keras_explain.core.model.reading import rows_at_once

L = keras.layers
Work = Callable[[], object]
MASKS = 500
WINDOWS = {224: (56, 28), 32: (8, 4)}  # by the side of the pictures: patch, stride

SUBJECTS = {
    "MobileNetV2, 224 x 224, 2 pictures": lambda: mobilenet(2),
    "small CNN, 32 x 32, 8 pictures": lambda: small_cnn(8),
}


def bare(model: keras.Model, x: np.ndarray, y: np.ndarray, passes: int) -> Work:
    """`passes` forward passes of each row, with as many rows at once as keras_explain takes."""

    @tf.function(autograph=False, input_signature=[_free(x), tf.TensorSpec([None], tf.int64)])
    def score(x, y):
        return tf.gather(model(x, training=False), y, axis=1, batch_dims=1)

    copies = max(1, rows_at_once(x, None, None) // len(x))
    counts = [min(copies, passes - i) for i in range(0, passes, copies)]
    inputs = {n: tf.constant(np.tile(x, (n, *(1 for _ in x.shape[1:])))) for n in set(counts)}
    targets = {n: tf.constant(np.tile(y, n), tf.int64) for n in set(counts)}
    return lambda: [np.asarray(score(inputs[n], targets[n])) for n in counts][-1]


def segments(x: np.ndarray) -> np.ndarray:
    """Segments of each picture, `[B, H, W]`: their making is not timed."""
    return kx.features.Segments().numbered(x)


def ours(make: Callable[[np.ndarray], kx.Explainer]) -> Callable[..., Work]:
    def prepare(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
        explainer = make(x)
        return lambda: explainer(model, x, y)

    return prepare


def passes_of(method: str, x: np.ndarray) -> int:
    """How many forward passes of each picture a method makes."""
    if method.startswith("Occlusion"):
        side, (patch, stride) = x.shape[1], WINDOWS[x.shape[1]]
        return ((side - patch) // stride + 1) ** 2
    return MASKS


def _given_segments(x: np.ndarray) -> kx.features.Segments:
    return kx.features.Segments(labels=segments(x))


def _occlusion(x: np.ndarray) -> kx.Explainer:
    patch, stride = WINDOWS[x.shape[1]]
    return kx.Occlusion(patch=patch, stride=stride)


# Other libraries


def xplique_rise(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import Rise

    explainer = Rise(model, batch_size=rows_at_once(x, None, None), nb_samples=MASKS)
    return _xplique(explainer, model, x, y)


def xplique_occlusion(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import Occlusion

    patch, stride = WINDOWS[x.shape[1]]
    size = rows_at_once(x, None, None)
    return _xplique(
        Occlusion(model, batch_size=size, patch_size=patch, patch_stride=stride), model, x, y
    )


def xplique_lime(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import Lime

    return _xplique(Lime(model, **_xplique_options(x)), model, x, y)


def xplique_kernel_shap(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import KernelShap

    return _xplique(KernelShap(model, **_xplique_options(x)), model, x, y)


def _xplique_options(x: np.ndarray) -> dict:
    maps = {picture.tobytes(): tf.constant(m) for picture, m in zip(x, segments(x), strict=True)}
    return {
        "batch_size": rows_at_once(x, None, None),
        "nb_samples": MASKS,
        "map_to_interpret_space": lambda picture: maps[np.asarray(picture).tobytes()],
    }


def _xplique(explainer, model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    one_hot = np.eye(model.output_shape[-1], dtype="float32")[y]
    return lambda: np.asarray(explainer(x, one_hot))


def tf_explain_occlusion(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

    patch, _ = WINDOWS[x.shape[1]]  # it has no stride: its windows lie side by side
    return lambda: [
        OcclusionSensitivity(batch_size=rows_at_once(x, None, None)).get_sensitivity_map(
            model, picture, int(c), patch
        )
        for picture, c in zip(x, y, strict=True)
    ]


def lime(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    """As its users call it: `model.predict`, and pictures one by one."""
    from lime.lime_image import LimeImageExplainer

    cut = segments(x)
    explainer = LimeImageExplainer(random_state=0)

    def predict(pictures: np.ndarray) -> np.ndarray:
        return model.predict(np.asarray(pictures, "float32"), verbose=0)

    return lambda: [
        explainer.explain_instance(
            picture.astype("double"),
            predict,
            labels=(int(c),),
            top_labels=None,
            hide_color=0,
            num_samples=MASKS,
            batch_size=rows_at_once(x, None, None),
            segmentation_fn=lambda _, labels=labels: labels,
        )
        for picture, labels, c in zip(x, cut, y, strict=True)
    ]


METHODS: dict[str, dict[str, Callable[..., Work]]] = {
    f"RISE, {MASKS} masks": {
        "keras_explain": ours(lambda x: kx.RISE(masks=MASKS)),
        "xplique": xplique_rise,
    },
    "Occlusion": {
        "keras_explain": ours(_occlusion),
        "xplique": xplique_occlusion,
        "tf-explain": tf_explain_occlusion,
    },
    f"LIME, {MASKS} samples": {
        "keras_explain": ours(lambda x: kx.LIME(samples=MASKS, features=_given_segments(x))),
        "xplique": xplique_lime,
        "lime": lime,
    },
    f"KernelSHAP, {MASKS} samples": {
        "keras_explain": ours(lambda x: kx.KernelSHAP(samples=MASKS, features=_given_segments(x))),
        "xplique": xplique_kernel_shap,
    },
}


# KernelSHAP of a table

ROWS = 64


def breast_cancer() -> tuple[keras.Model, np.ndarray]:
    """A network trained for a moment on scikit-learn's table, and the table, standardised."""
    keras.utils.set_random_seed(0)
    data = load_breast_cancer()
    x = ((data.data - data.data.mean(0)) / data.data.std(0)).astype("float32")
    hidden = [L.Dense(32, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((30,)), *hidden, L.Dense(1)])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, data.target, epochs=10, verbose=0)
    return model, x


def kernel_shap(model: keras.Model, x: np.ndarray, background: np.ndarray) -> dict[str, Work]:
    """KernelSHAP of 64 rows, all 30 columns, with shap's default number of samples."""
    import shap

    predict = tf.function(
        lambda x: model(x, training=False)[:, 0],
        input_signature=[tf.TensorSpec([None, 30], tf.float32)],
    )

    def compiled(x: np.ndarray) -> np.ndarray:
        return np.asarray(predict(tf.constant(x, tf.float32)))

    def as_called(x: np.ndarray) -> np.ndarray:
        return model.predict(x, verbose=0, batch_size=4096)[:, 0]

    def values(explainer: shap.KernelExplainer) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the regression's own numbers
            return explainer.shap_values(x[:ROWS], silent=True, l1_reg=False)

    by_predict = shap.KernelExplainer(as_called, background)
    by_compiled = shap.KernelExplainer(compiled, background)
    ours = kx.KernelSHAP(background=background)
    return {
        "keras_explain": lambda: ours(model, x[:ROWS], 0).values,
        "shap, compiled predict": lambda: values(by_compiled),
        "shap, model.predict": lambda: values(by_predict),
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The mean over rows of Spearman's correlation of two arrays `[B, F]`."""
    return float(np.mean([spearmanr(p, q).statistic for p, q in zip(a, b, strict=True)]))


def _free(x: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec([None, *x.shape[1:]], tf.float32)
