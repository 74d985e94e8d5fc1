"""Explanations inside a training step: their derivatives by the weights, in float64."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from tests import naive
from tests import naive_rules as nr

SHAPE, CLASSES = (5, 4, 2), np.array([1, 0], "int32")
X = naive.inputs(SHAPE, rows=2)
REFERENCES = naive.inputs(SHAPE, rows=2, seed=1)
R = kx.rules


def network(dtype):
    """A small network whose explanations change smoothly with its weights."""
    conv = functools.partial(layers.Conv2D, dtype=dtype)
    model = keras.Sequential(
        [
            keras.Input(SHAPE, dtype=dtype),
            conv(3, 2),
            layers.BatchNormalization(dtype=dtype),
            layers.Activation("softplus", name="map", dtype=dtype),
            conv(2, 2, strides=(2, 1), padding="same", activation="softplus"),
            layers.Flatten(dtype=dtype),
            layers.Dense(2, dtype=dtype),
        ]
    )
    return naive.randomize(model)


def directions(model):
    """Each trainable variable, with numbers of its shape."""
    rng = np.random.default_rng(3)
    return [(v, rng.normal(size=v.shape)) for v in model.trainable_variables]


def change(model, loss, step=1e-5):
    """The derivative of a loss where all variables move in their directions."""
    found, before = [], model.get_weights()
    for sign in (1, -1):
        for variable, way in directions(model):
            variable.assign_add(sign * step * way)
        found.append(loss())
        model.set_weights(before)
    return (found[0] - found[1]) / (2 * step)


def by_tape(explainer, model, x, target, mix):
    """The values, and the derivative of `sum(mix * values)` as of `change`, in a training step."""
    variables = [v.value for v in model.trainable_variables]

    @tf.function
    def step(x, target):
        with tf.GradientTape() as tape:
            values = explainer.attribute(model, x, target)
            loss = ops.sum(mix * values)
        return values, tape.gradient(loss, variables, unconnected_gradients="zero")

    values, gradients = step(*map(ops.convert_to_tensor, (x, target)))
    pairs = zip(directions(model), gradients, strict=True)
    return values, sum(np.sum(way * g) for (_, way), g in pairs)


def compare(explainer, model, twin, formula, x, target):
    """The explainer's values, mixed at random, and their derivative are those of the formula."""
    mix = np.random.default_rng(2).normal(size=formula().shape)

    values, derivative = by_tape(explainer, model, x, target, mix.astype("float32"))
    naive.close(values, formula(), 1e-5)
    naive.close(derivative, change(twin, lambda: np.sum(mix * formula())), 1e-4)


def lrp(rule):
    return lambda model: nr.lrp(nr.Graph(model), X, CLASSES, default=rule).values


def deep_shap(model):
    graph, each = nr.Graph(model), range(len(REFERENCES))
    found = [nr.deep_lift(graph, X, REFERENCES[[i, i]], CLASSES) for i in each]
    return np.mean(found, axis=0)


def grad_cam(model):
    maps = naive.grad_cam(naive.Net([model]), X, CLASSES, "map")
    return naive.bilinear(maps, SHAPE[:2])


def integrated_gradients(model):
    net = naive.Net([model])
    rule = naive.gauss_legendre(4)
    return naive.integrated_gradients(lambda x: net.gradient(x, CLASSES), X, 0 * X, rule)


def smooth_grad(model):
    first, second = np.asarray(backend.random_normal(backend.random_keys(0, 3, 2), SHAPE))[:2]
    flat = X.reshape(len(X), -1)
    span = (flat.max(axis=1) - flat.min(axis=1)).reshape(-1, 1, 1, 1)
    net = naive.Net([model])
    return np.mean(
        [net.gradient(X + 0.2 * span * n, CLASSES) for n in (first, -first, second)], axis=0
    )


METHODS = {
    "z_plus": (kx.LRP(rules=[(layers.Layer, R.ZPlus())]), lrp(nr.z_plus())),
    "gamma": (kx.LRP(rules=[(layers.Layer, R.Gamma())]), lrp(nr.gamma())),
    "alpha_beta": (kx.LRP(rules=[(layers.Layer, R.AlphaBeta())]), lrp(nr.alpha_beta(2, 1))),
    "epsilon": (kx.LRP(rules=[(layers.Layer, R.Epsilon(epsilon=0.3))]), lrp(nr.epsilon(0.3))),
    "rescale": (
        kx.DeepLIFT(baseline=REFERENCES[0]),
        lambda model: nr.deep_lift(nr.Graph(model), X, REFERENCES[[0, 0]], CLASSES),
    ),
    "reveal_cancel": (
        kx.DeepLIFT(baseline=REFERENCES[0], rule="reveal_cancel"),
        lambda model: nr.reveal_cancel(nr.Graph(model), X, REFERENCES[[0, 0]], CLASSES),
    ),
    "deep_shap": (kx.DeepSHAP(background=REFERENCES), deep_shap),
    "grad_cam": (kx.GradCAM(layer="map"), grad_cam),
    "integrated_gradients": (kx.IntegratedGradients(steps=4), integrated_gradients),
    "smooth_grad": (kx.SmoothGrad(samples=3, noise=0.2), smooth_grad),
}


@pytest.fixture(scope="module")
def networks():
    """A network and its twin in float64."""
    return network("float32"), network("float64")


@pytest.mark.parametrize("name", METHODS)
def test_the_derivative_by_the_weights_is_that_of_the_formula(networks, name):
    model, twin = networks
    explainer, formula = METHODS[name]
    compare(explainer, model, twin, lambda: formula(twin), X, CLASSES)


class Choosing(keras.Model):
    """Lets through where the input is above a threshold: a decision on it."""

    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.hidden = layers.Dense(4, "softplus", dtype=dtype)
        self.chosen = layers.Dense(3, "softplus", dtype=dtype)
        self.last = layers.Dense(2, dtype=dtype)

    def call(self, x):
        return self.last(self.chosen(ops.where(x > 0.2, self.hidden(x), 0.0)))


def test_decisions_are_those_of_the_input_on_a_tape_too():
    x = naive.inputs((4,), rows=2)
    models = [Choosing(dtype) for dtype in ("float32", "float64")]
    for model in models:
        model(x)
        naive.randomize(model)

    def formula():
        w, b, v, c, last, _ = models[1].get_weights()

        def gradient(point):
            z = point @ w + b
            through = naive.sigmoid((x > 0.2) * np.logaddexp(0, z) @ v + c) * last[:, CLASSES].T
            return ((x > 0.2) * naive.sigmoid(z) * (through @ v.T)) @ w.T

        return naive.integrated_gradients(gradient, x, 0 * x, naive.gauss_legendre(4))

    compare(kx.IntegratedGradients(steps=4), *models, formula, x, CLASSES)
