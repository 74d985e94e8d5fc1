"""Guided backpropagation, the deconvolutional network and Guided Grad-CAM in float64."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
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


# ReLUs out of reach

KERNEL = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")


def unit(x, activation=ops.relu):
    return activation(ops.matmul(x, KERNEL))


def conditional(x, activation=ops.relu):
    return ops.cond(ops.sum(x) > -1e9, lambda: unit(x, activation), lambda: x)


def looped(x, activation=ops.relu):
    return ops.fori_loop(0, 2, lambda i, h: unit(h, activation), x)


def mapped(x, activation=ops.relu):
    return ops.map(lambda row: looped(row, activation), x)


def only_in_its_condition(x, activation=ops.tanh):
    is_low = lambda i, h: ops.sum(ops.relu(h)) + ops.cast(i, "float32") < 2.0  # noqa: E731
    return ops.while_loop(is_low, lambda i, h: (i + 1, unit(h, activation)), (0, x))[1]


def of_other_numbers(x, activation=ops.tanh):
    return ops.fori_loop(0, 2, lambda i, h: unit(h, activation) * ops.relu(KERNEL[0]), x)


def on_lines(function):
    stack = [layers.Lambda(function, name="odd"), layers.Flatten(), layers.Dense(3)]
    return nr.with_weights(keras.Sequential([keras.Input((4, 3)), *stack]))


@pytest.mark.parametrize("cls", [kx.GuidedBackprop, kx.Deconvnet])
@pytest.mark.parametrize("function", [conditional, looped, mapped])
def test_a_relu_inside_of_a_function_is_an_error(cls, function):
    x = naive.inputs((4, 3))
    with pytest.raises(ValueError, match=rf"ReLUs that {cls.__name__} can reach.*'odd' \(Lambda"):
        cls()(on_lines(function), x, 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: looped(x, ops.tanh),
        lambda x: mapped(x, ops.tanh),
        only_in_its_condition,
        of_other_numbers,
    ],
    ids=["looped", "mapped", "condition", "other numbers"],
)
def test_functions_without_relus_on_the_way_go_by_the_gradient(function):
    model, x = on_lines(function), naive.inputs((4, 3))
    values = kx.GuidedBackprop()(model, x, 1).values
    naive.close(values, kx.Saliency(absolute=False)(model, x, 1).values)


def test_a_vectorized_map_is_no_function():
    model = on_lines(lambda x: ops.vectorized_map(unit, x))
    plain, x = on_lines(unit), naive.inputs((4, 3))
    naive.close(kx.GuidedBackprop()(model, x, 1).values, kx.GuidedBackprop()(plain, x, 1).values)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Lambda(lambda x: tf.recompute_grad(unit)(x)),
        lambda: layers.Lambda(tf.custom_gradient(lambda x: (unit(x), lambda u: 7.0 * u))),
    ],
    ids=["recomputed", "custom"],
)
def test_a_relu_behind_a_custom_gradient_counts(layer):
    found = []
    for odd in (layer(), layers.Lambda(unit)):
        model = keras.Sequential([keras.Input((4, 3)), odd, layers.Flatten(), layers.Dense(3)])
        found.append(kx.GuidedBackprop()(nr.with_weights(model), naive.inputs((4, 3)), 1).values)
    naive.close(*found)


def test_a_custom_gradient_of_what_has_no_relu_is_the_gradient():
    odd = tf.custom_gradient(lambda x: (ops.tanh(x), lambda u: 7.0 * u))
    model, x = on_lines(odd), naive.inputs((4, 3))
    values = kx.GuidedBackprop()(model, x, 1).values
    naive.close(values, 7 * np.float64(model.layers[-1].kernel)[:, 1].reshape(1, 4, 3) + 0 * x)


@pytest.mark.filterwarnings("ignore:GuidedBackprop is zero everywhere for some")
def test_a_recurrent_layer_with_relus_is_unrolled():
    def recurrent(**options):
        stack = [layers.SimpleRNN(4, activation="relu", **options), layers.Dense(3)]
        return nr.with_weights(keras.Sequential([keras.Input((4, 3)), *stack]))

    x = naive.inputs((4, 3))
    with pytest.raises(ValueError, match=r"'simple_rnn.*\(SimpleRNN\).*unroll=True"):
        kx.GuidedBackprop()(recurrent(), x, 1)
    unrolled = recurrent(unroll=True)
    kernel, own, bias, last = (np.float64(w) for w in unrolled.get_weights()[:4])
    states = [np.zeros((3, 4))]
    for t in range(4):
        states.append(np.maximum(x[:, t] @ kernel + states[-1] @ own + bias, 0))
    back, expected = np.tile(last[:, 1], (3, 1)), np.zeros((3, 4, 3))
    for t in reversed(range(4)):
        back = np.maximum(back, 0) * (states[t + 1] > 0)
        expected[:, t] = back @ kernel.T
        back = back @ own.T
    naive.close(kx.GuidedBackprop()(unrolled, x, 1).values, expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with a saved function with ReLUs inside, and the layer of it."""
    stack = [layers.Dense(5, activation="relu"), layers.Dense(4, activation="relu")]
    inner = nr.with_weights(keras.Sequential([keras.Input((6,)), *stack]))
    path = str(tmp_path_factory.mktemp("saved"))
    inner.export(path, verbose=False)
    layer = layers.TFSMLayer(path, call_endpoint="serve", name="saved")
    x = keras.Input((6,))
    return keras.Model(x, layers.Dense(3)(layer(x)))


def test_a_saved_function_goes_by_its_gradient_or_is_an_error(saved):
    x = naive.inputs((6,))

    def score(v):
        return np.float64(saved(np.float32(v)))[:, 1]

    slope = naive.central_differences(score, x, 1e-2)
    naive.close(kx.Saliency(absolute=False)(saved, x, 1).values, slope, 1e-2)
    for explainer in (kx.GuidedBackprop(), kx.LRP(), kx.DeepLIFT()):
        with pytest.raises(ValueError, match=r"StatefulPartitionedCall.*'saved' \(TFSMLayer\)"):
            explainer(saved, x, 1)
    values = kx.DeepLIFT(opaque="saved")(saved, x, 1).values
    naive.close(values, x * kx.Saliency(absolute=False)(saved, x, 1).values)


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
