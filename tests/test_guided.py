"""Guided backpropagation, the deconvolutional network and Guided Grad-CAM in float64."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from tests import naive
from tests import naive_rules as nr

CLASSES = np.array([0, 2, 1])
METHODS = {
    "guided": (kx.GuidedBackprop, nr.guided),
    "deconvnet": (kx.Deconvnet, functools.partial(nr.guided, mask=False)),
}
by_method = pytest.mark.parametrize(("cls", "formula"), METHODS.values(), ids=METHODS)


def fused():
    return [
        layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
        layers.Conv2D(4, 2, activation="relu6"),
        layers.MaxPooling2D(2, strides=1),
        layers.Conv2D(4, 2, activation="tanh"),
        layers.Flatten(),
        layers.Dense(6, activation="relu"),
    ]


def separate():
    return [
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Activation("relu"),
        layers.DepthwiseConv2D(2),
        layers.ReLU(max_value=6.0),
        layers.Flatten(),
        layers.Dense(6),
        layers.LeakyReLU(negative_slope=0.1),
        layers.Dense(6, activation="gelu"),
    ]


def shared():
    relu, conv = layers.ReLU(), layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")
    return [conv, conv, layers.Conv2D(3, 2), relu, layers.Conv2D(3, 2), relu, layers.Flatten()]


def nested():
    inner = keras.Sequential([keras.Input((6, 5, 3)), layers.Conv2D(4, 2), layers.ReLU()])
    given = keras.Input((6, 5, 2))
    backbone = keras.Model(given, inner(layers.Conv2D(3, 1, activation="relu")(given)))
    return [backbone, layers.ReLU(), layers.GlobalAveragePooling2D()]


STACKS = {make.__name__: make for make in (fused, separate, shared, nested)}
LARGE = 12.0
"""Inputs so large that some units are above the 6 of a ReLU6."""


def made(stack):
    """A functional model of a stack, in which a layer may be twice."""
    x = h = keras.Input((6, 5, 2))
    for layer in [*stack, layers.Dense(3, activation="softmax")]:
        h = layer(h)
    return nr.with_weights(keras.Model(x, h))


@pytest.fixture(scope="module", params=STACKS.values(), ids=STACKS)
def case(request):
    """A model, the same in NumPy, and an input."""
    model = made(request.param())
    return model, nr.Graph(model), LARGE * naive.inputs((6, 5, 2))


def clipped(graph, x):
    """Whether some unit is above 6 where a ReLU6 reads it."""
    values = graph.values(x)
    six = [n.sources[0] for n in graph.nodes if getattr(n.part, "name", "") == "relu6"]
    return any((values[i] > 6).any() for i in six)


@by_method
def test_it_is_the_formula_at_every_relu(case, cls, formula):
    model, graph, x = case
    explanation = cls()(model, x, CLASSES)
    expected = formula(graph, x, CLASSES)
    assert expected.any()
    naive.close(explanation.values, expected, 1e-4)
    naive.close(explanation.scores, graph.score(x, CLASSES))
    assert explanation.values.dtype == np.float32
    gradient = nr.gradient(graph, x, CLASSES)
    assert np.abs(expected - gradient).max() > 1e-3 * np.abs(gradient).max()


def test_the_inputs_reach_the_upper_end_of_a_relu6():
    for make in (fused, separate):
        assert clipped(nr.Graph(made(make())), LARGE * naive.inputs((6, 5, 2)))


class Raw(keras.Model):
    """ReLUs as raw operations."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, padding="same")
        self.dense, self.head = layers.Dense(6), layers.Dense(3)

    def call(self, x):
        h = ops.relu(self.conv(x))
        h = ops.mean(h + ops.relu6(self.conv(x) - 1.0), axis=(1, 2))
        return ops.softmax(self.head(ops.relu(self.dense(h))))


@by_method
def test_relus_as_raw_operations(cls, formula):
    model, x = Raw(), LARGE * naive.inputs((6, 5, 2))
    model(x)
    nr.with_weights(model)
    given = keras.Input((6, 5, 2))
    six = layers.ReLU(max_value=6.0)(layers.Rescaling(1.0, offset=-1.0)(model.conv(given)))
    h = layers.Add()([layers.ReLU()(model.conv(given)), six])
    h = layers.ReLU()(model.dense(layers.GlobalAveragePooling2D()(h)))
    graph = nr.Graph(keras.Model(given, model.head(h)))
    naive.close(cls()(model, x, CLASSES).values, formula(graph, x, CLASSES), 1e-4)


@by_method
def test_without_relus_it_is_the_gradient(cls, formula):
    model = naive.network(activation="tanh", pool="max")
    x = naive.inputs((8, 6, 2))
    net = naive.Net([model])
    naive.close(cls()(model, x, CLASSES).values, net.gradient(x, CLASSES), 1e-4)


def known():
    """Two units of x, of which one is closed: 3 relu(x) - 2 relu(-x) + relu(2 x)."""
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(3, activation="relu"), layers.Dense(1)]
    )
    weights = [[[1.0, -1.0, 2.0]], [0.0, 0.0, 0.0], [[3.0], [-2.0], [1.0]], [0.0]]
    model.set_weights([np.array(w, "float32") for w in weights])
    return model


@pytest.mark.parametrize(
    ("cls", "expected"),
    [(kx.GuidedBackprop, [[3.0 + 2.0], [0.0]]), (kx.Deconvnet, [[3.0 + 2.0], [3.0 + 2.0]])],
)
def test_known_values(cls, expected):
    x = np.array([[1.0], [-1.0]], "float32")
    if cls is kx.GuidedBackprop:
        with pytest.warns(UserWarning, match="zero everywhere for some"):
            values = cls()(known(), x).values
    else:
        values = cls()(known(), x).values
    np.testing.assert_array_equal(values, expected)


@by_method
def test_at_a_layer(cls, formula):
    model = made(fused())
    graph, x = nr.Graph(model), naive.inputs((6, 5, 2))
    values = cls(layer="conv")(model, x, CLASSES).values
    naive.close(values, formula(graph, x, CLASSES, "conv"), 1e-4)


@by_method
def test_weights_are_read_at_each_call(cls, formula):
    model, x = made(fused()), naive.inputs((6, 5, 2))
    cls()(model, x, CLASSES)
    nr.with_weights(model, seed=3)
    naive.close(cls()(model, x, CLASSES).values, formula(nr.Graph(model), x, CLASSES), 1e-4)


@by_method
def test_the_model_still_has_its_own_gradient(cls, formula):
    model, x = made(separate()), naive.inputs((6, 5, 2))
    saliency = kx.Saliency(absolute=False)
    before = saliency(model, x, CLASSES).values
    cls()(model, x, CLASSES)
    np.testing.assert_array_equal(saliency(model, x, CLASSES).values, before)


@by_method
def test_tokens(cls, formula):
    stack = [layers.Embedding(9, 4), layers.Conv1D(5, 2, activation="relu")]
    stack += [layers.Flatten(), layers.Dense(4, activation="relu"), layers.Dense(3)]
    model = nr.with_weights(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]), seed=4)
    ids = np.random.default_rng(0).integers(0, 9, (3, 6))
    naive.close(cls()(model, ids, CLASSES).values, formula(nr.Graph(model), ids, CLASSES), 1e-4)


# Guided Grad-CAM


@pytest.mark.parametrize("layer", [None, "conv_a", "conv_b"])
def test_guided_grad_cam_is_the_product_with_the_map(layer):
    model = naive.network(activation="relu", pool="max")
    net, graph, x = naive.Net([model]), nr.Graph(model), naive.inputs((8, 6, 2))
    at = layer or "conv_b"
    target = naive.speaking(net, x, at)
    cam = naive.bilinear(naive.grad_cam(net, x, target, at), (8, 6))
    expected = nr.guided(graph, x, target) * cam[..., None]
    assert expected.any()
    explanation = kx.GuidedGradCAM(layer=layer)(model, x, target)
    naive.close(explanation.values, expected, 1e-4)
    assert explanation.values.shape == x.shape
    naive.close(explanation.scores, net.score(x, target))


def test_guided_grad_cam_of_series():
    model = naive.network((9, 2), activation="relu")
    net, x = naive.Net([model]), naive.inputs((9, 2))
    target = naive.speaking(net, x, "conv_b")
    cam = naive.bilinear(naive.grad_cam(net, x, target, "conv_b"), (9,))
    expected = nr.guided(nr.Graph(model), x, target) * cam[..., None]
    naive.close(kx.GuidedGradCAM()(model, x, target).values, expected, 1e-4)


def test_guided_grad_cam_needs_a_map():
    with pytest.raises(ValueError, match="spatial extent above 1"):
        kx.GuidedGradCAM()(naive.perceptron(), naive.inputs((5,)), 1)
