"""The same work by keras_explain, by a bare compiled loop, and by other libraries.

Each function prepares a contestant and returns a function without arguments that does the work.
"""

import importlib.util
from collections.abc import Callable
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import keras_explain as kx
from keras_explain import backend
from keras_explain.core.model.opened import CACHE
from keras_explain.core.model.reading import rows_at_once

Work = Callable[[], object]
STEPS = 50
CAMS = (kx.CAM, kx.GradCAMPlusPlus, kx.HiResCAM, kx.XGradCAM, kx.LayerCAM, kx.EigenCAM)


def ours_grad_cam(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    return lambda: kx.GradCAM()(model, x, y)


def bare_grad_cam(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    """One forward pass, and one backward pass to the last feature map."""
    layer = model.get_layer(_last_map(model))
    opened = keras.Model(model.inputs, [layer.output, model.output])

    @tf.function(autograph=False, input_signature=[_free(x), tf.TensorSpec([None], tf.int64)])
    def gradient(x, y):
        with tf.GradientTape() as tape:
            activation, logits = opened(x, training=False)
            tape.watch(activation)
            score = tf.gather(logits, y, axis=1, batch_dims=1)
        return activation, tape.gradient(score, activation)

    def work() -> object:
        return [np.asarray(v) for v in gradient(tf.constant(x), tf.constant(y, tf.int64))]

    return work


def ours_integrated_gradients(
    model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int = STEPS
) -> Work:
    return lambda: kx.IntegratedGradients(steps=steps)(model, x, y)


def bare_gradients(model: keras.Model, x: np.ndarray, y: np.ndarray, steps: int = STEPS) -> Work:
    """`steps` gradients of each row, with as many rows at once as keras_explain takes."""

    @tf.function(autograph=False, input_signature=[_free(x), tf.TensorSpec([None], tf.int64)])
    def gradient(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.gather(model(x, training=False), y, axis=1, batch_dims=1)
        return tape.gradient(score, x)

    copies = max(1, rows_at_once(x, None, None) // len(x))
    counts = [min(copies, steps - i) for i in range(0, steps, copies)]

    def work() -> object:
        inputs = {n: tf.constant(np.tile(x, (n, 1, 1, 1))) for n in set(counts)}
        targets = {n: tf.constant(np.tile(y, n), tf.int64) for n in set(counts)}
        return [np.asarray(gradient(inputs[n], targets[n])) for n in counts][-1]

    return work


def xplique_grad_cam(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import GradCAM

    explainer = GradCAM(model, batch_size=len(x), conv_layer=_last_map(model))
    one_hot = _one_hot(model, y)
    return lambda: np.asarray(explainer(x, one_hot))


def xplique_integrated_gradients(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from xplique.attributions import IntegratedGradients

    size = rows_at_once(x, None, None)
    explainer = IntegratedGradients(model, steps=STEPS, batch_size=size)
    one_hot = _one_hot(model, y)
    return lambda: np.asarray(explainer(x, one_hot))


def tf_explain_grad_cam(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from tf_explain.core.grad_cam import GradCAM

    layer = _last_map(model)
    return lambda: [
        GradCAM().explain((x[i : i + 1], None), model, int(y[i]), layer, use_guided_grads=False)
        for i in range(len(x))
    ]


def tf_explain_integrated_gradients(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Work:
    from tf_explain.core.integrated_gradients import IntegratedGradients

    return lambda: [
        IntegratedGradients().explain((x[i : i + 1], None), model, int(y[i]), n_steps=STEPS)
        for i in range(len(x))
    ]


METHODS: dict[str, dict[str, Callable[..., Work]]] = {
    "Grad-CAM": {
        "keras_explain": ours_grad_cam,
        "bare": bare_grad_cam,
        "xplique": xplique_grad_cam,
        "tf-explain": tf_explain_grad_cam,
    },
    f"Integrated Gradients, {STEPS} steps": {
        "keras_explain": ours_integrated_gradients,
        "bare": bare_gradients,
        "xplique": xplique_integrated_gradients,
        "tf-explain": tf_explain_integrated_gradients,
    },
}


def _gradient_method(make: Callable[[np.ndarray], kx.Explainer], passes: int) -> dict:
    return {
        "keras_explain": lambda model, x, y: lambda: make(x)(model, x, y),
        "bare": lambda model, x, y: bare_gradients(model, x, y, passes),
    }


METHODS |= {
    "Saliency": _gradient_method(lambda x: kx.Saliency(), 1),
    "Input x Gradient": _gradient_method(lambda x: kx.InputXGradient(), 1),
    "SmoothGrad, 50 samples": _gradient_method(lambda x: kx.SmoothGrad(samples=50), 50),
    "VarGrad, 50 samples": _gradient_method(lambda x: kx.VarGrad(samples=50), 50),
    "GradientSHAP, 50 samples": _gradient_method(
        lambda x: kx.GradientSHAP(background=x[:8], samples=50), 50
    ),
}


def _map_method(make: Callable[[], kx.Explainer]) -> dict:
    return {
        "keras_explain": lambda model, x, y: lambda: make()(model, x, y),
        "bare": bare_grad_cam,
    }


METHODS |= {cls.__name__: _map_method(cls) for cls in CAMS} | {
    "GuidedBackprop": _gradient_method(lambda x: kx.GuidedBackprop(), 1),
    "Deconvnet": _gradient_method(lambda x: kx.Deconvnet(), 1),
    "GuidedGradCAM": _gradient_method(lambda x: kx.GuidedGradCAM(), 1),
    "LRP, epsilon": _gradient_method(lambda x: kx.LRP(rules="epsilon"), 1),
    "LRP, epsilon_plus": _gradient_method(lambda x: kx.LRP(rules="epsilon_plus"), 1),
    "LRP, alpha2_beta1": _gradient_method(lambda x: kx.LRP(rules="alpha2_beta1"), 1),
    "DeepTaylor": _gradient_method(lambda x: kx.DeepTaylor(), 1),
    "DeepLIFT": _gradient_method(lambda x: kx.DeepLIFT(), 1),
    "DeepLIFT, reveal_cancel": _gradient_method(lambda x: kx.DeepLIFT(rule="reveal_cancel"), 1),
    "DeepSHAP, background of 4": _gradient_method(lambda x: kx.DeepSHAP(background=x[:4]), 4),
    "DeepSHAP, background of 8": _gradient_method(lambda x: kx.DeepSHAP(background=x[:8]), 8),
}


def suits(method: str, model: keras.Model) -> bool:
    """Whether a method explains a model: `CAM` takes those that end in an average and a Dense."""
    averages = any(isinstance(v, keras.layers.GlobalAveragePooling2D) for v in model.layers)
    return method != "CAM" or averages


def compilations(
    make: Callable[..., Work], model: keras.Model, x: np.ndarray, y: np.ndarray
) -> tuple[int, int]:
    """How many functions the first call compiles, and a later one: more rows, other classes."""
    model.__dict__.pop(CACHE, None)
    with mock.patch.object(backend, "compile", wraps=backend.compile) as compiled:
        make(model, x, y)()
        first = compiled.call_count
        make(model, np.concatenate([x, x[:1]]), np.concatenate([y[::-1], y[:1]]))()
        return first, compiled.call_count - first


def installed(name: str) -> bool:
    """Whether a contestant can run here."""
    modules = {"xplique": "xplique", "tf-explain": "tf_explain", "shap": "shap", "lime": "lime"}
    module = modules.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def _last_map(model: keras.Model) -> str:
    return next(v.name for v in reversed(model.layers) if len(v.output.shape) == 4)


def _free(x: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec([None, *x.shape[1:]], tf.float32)


def _one_hot(model: keras.Model, y: np.ndarray) -> np.ndarray:
    return np.eye(model.output_shape[-1], dtype="float32")[y]
