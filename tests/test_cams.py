"""Class activation maps against their equations and a bilinear upsampling in float64."""

import functools
import json
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from tests import naive

NETWORKS = {
    "picture": {},
    "relu, max": {"activation": "relu", "pool": "max"},
    "wide picture": {"shape": (5, 11, 1)},
    "series": {"shape": (9, 2)},
    "volume": {"shape": (6, 4, 5, 1)},
}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def case(request):
    """A model, the same in NumPy, and an input; heights and widths differ."""
    model = naive.network(**request.param)
    return model, naive.Net([model]), naive.inputs(model.input_shape[1:])


@pytest.fixture(scope="module")
def picture():
    model = naive.network()
    return model, naive.Net([model]), naive.inputs((8, 6, 2))


def chain(*stack, shape=(8, 6, 2), seed=0):
    """A Sequential model with random weights, and the same in NumPy."""
    model = naive.randomize(keras.Sequential([keras.Input(shape), *stack]), seed)
    return model, naive.Net([model])


def check(explanation, net, x, target, layer):
    """The map and its upsampling are those of the equations."""
    expected = naive.grad_cam(net, x, target, layer)
    assert (expected.reshape(len(x), -1).max(axis=1) > 0).all()
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, x.shape[1:-1]))
    naive.close(explanation.scores, net.score(x, target))


# Grad-CAM: the equations


@pytest.mark.parametrize("layer", ["conv_a", "norm", "conv_b"])
def test_it_is_the_weighted_sum_of_the_layers_channels(case, layer):
    model, net, x = case
    target = naive.speaking(net, x, layer)
    explanation = kx.GradCAM(layer=layer)(model, x, target)
    check(explanation, net, x, target, layer)
    assert explanation.values.shape == x.shape[:-1]
    assert explanation.values.dtype == explanation.extras["map"].dtype == np.float32
    assert (explanation.values >= 0).all()


def test_by_default_it_is_the_last_layer_with_a_spatial_extent(case):
    model, net, x = case
    target = naive.speaking(net, x, "conv_b")
    check(kx.GradCAM()(model, x, target), net, x, target, "conv_b")


def test_a_map_of_one_pixel_is_not_spatial():
    stack = [
        layers.Conv2D(3, 3, activation="softplus", name="conv"),
        layers.AveragePooling2D((6, 4)),  # 1 x 1
        layers.Flatten(),
        layers.Dense(4, name="scores"),
    ]
    model, net = chain(*stack)
    x = naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "conv")
    check(kx.GradCAM()(model, x, target), net, x, target, "conv")


def test_a_map_of_one_row_is():
    stack = [
        layers.Conv2D(3, 3, activation="softplus", name="conv"),
        layers.AveragePooling2D((6, 1), name="row"),  # 1 x 4
        layers.Flatten(),
        layers.Dense(4),
    ]
    model, net = chain(*stack)
    x = naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "row")
    explanation = kx.GradCAM()(model, x, target)
    assert explanation.extras["map"].shape == (3, 1, 4)
    check(explanation, net, x, target, "row")


def test_negative_evidence_is_cut_off():
    model = naive.network(activation="tanh")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "norm")
    weights = net.gradient(x, target, "norm").mean(axis=(1, 2), keepdims=True)
    signed = (net.activation(x, "norm") * weights).sum(axis=-1)
    assert (signed < 0).any()
    explanation = kx.GradCAM(layer="norm")(model, x, target)
    naive.close(explanation.extras["map"], np.maximum(signed, 0))


def test_the_gradient_is_that_of_the_logit(picture):
    _, net, x = picture
    target = naive.speaking(net, x, "conv_b")
    logits = kx.GradCAM(layer="conv_b")(naive.network(head=None), x, target)
    check(logits, net, x, target, "conv_b")


def test_a_probability_has_another_map(picture):
    model, net, x = picture
    p = naive.softmax(net.scores(x))
    upstream = p[:, [1]] * (np.eye(4)[1] - p)
    gradient = net.backward(x, upstream, "conv_a").mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((gradient * net.activation(x, "conv_a")).sum(axis=-1), 0)
    keep = expected.max(axis=(1, 2)) > 0
    assert keep.any()
    target = kx.targets.Class(1, of="probability")
    explanation = kx.GradCAM(layer="conv_a")(model, x[keep], target)
    naive.close(explanation.extras["map"], expected[keep])


def test_many_classes_at_once(picture):
    model, net, x = picture
    masses = [naive.grad_cam(net, x, c, "conv_a").sum(axis=(1, 2)) for c in range(4)]
    best = np.argsort(masses, axis=0)[::-1][:2].T  # [B, 2]
    explanation = kx.GradCAM(layer="conv_a")(model, x, best)
    maps = np.stack([naive.grad_cam(net, x, best[:, k], "conv_a") for k in range(2)], axis=1)
    assert (maps.max(axis=(2, 3)) > 0).all()
    naive.close(explanation.extras["map"], maps)
    assert explanation.values.shape == (3, 2, 8, 6)
    for k in range(2):
        naive.close(explanation.values[:, k], naive.bilinear(maps[:, k], (8, 6)))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_rows_keep_their_places_in_small_batches(batch_size):
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2), rows=5)
    target = naive.speaking(net, x, "conv_b")
    check(kx.GradCAM()(model, x, target, batch_size=batch_size), net, x, target, "conv_b")


# Which layer


def test_a_layer_object_is_its_name(picture):
    model, net, x = picture
    target = naive.speaking(net, x, "conv_a")
    explainer = kx.GradCAM(layer=model.get_layer("conv_a"))
    assert explainer == kx.GradCAM(layer="conv_a")
    check(explainer(model, x, target), net, x, target, "conv_a")


def backbone(kind):
    """Two convolutions as a model of their own."""
    stack = [
        layers.Conv2D(3, 2, activation="softplus", name="first"),
        layers.Conv2D(4, 3, strides=2, activation="softplus", name="last"),
    ]
    if kind == "sequential":
        return keras.Sequential([keras.Input((8, 6, 2)), *stack], name="backbone")
    x = keras.Input((8, 6, 2))
    return keras.Model(x, stack[1](stack[0](x)), name="backbone")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.backbone = backbone("functional")
        self.head = layers.Dense(4)

    def call(self, x):
        return ops.softmax(self.head(ops.mean(self.backbone(x), axis=(1, 2))))


def transfer(kind):
    """A classifier on a backbone."""
    if kind == "subclassed":
        model = Subclassed()
        model(np.zeros((1, 8, 6, 2), "float32"))
    elif kind == "functional":
        x = keras.Input((8, 6, 2))
        y = layers.GlobalAveragePooling2D()(backbone("functional")(x, training=False))
        model = keras.Model(x, layers.Dense(4, activation="softmax")(y))
    else:
        head = [layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")]
        model = keras.Sequential([keras.Input((8, 6, 2)), backbone("sequential"), *head])
    return naive.randomize(model)


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
def test_layers_of_a_nested_model(kind):
    model, twin = transfer(kind), transfer("sequential")
    net, x = naive.Net([twin]), naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "last")
    for layer in ("backbone/last", "last", None):
        check(kx.GradCAM(layer=layer)(model, x, target), net, x, target, "last")
    target = naive.speaking(net, x, "first")
    check(kx.GradCAM(layer="backbone/first")(model, x, target), net, x, target, "first")


def test_the_output_of_a_nested_model_is_its_last_layers():
    model = transfer("functional")
    net, x = naive.Net([transfer("sequential")]), naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "last")
    check(kx.GradCAM(layer="backbone")(model, x, target), net, x, target, "last")


def test_a_layer_called_twice_counts_where_it_is_called_last():
    x = keras.Input((8, 6, 2))
    shared = layers.Conv2D(2, 3, padding="same", activation="tanh", name="shared")
    y = layers.GlobalAveragePooling2D()(shared(shared(x)))
    model = naive.randomize(keras.Model(x, layers.Dense(4)(y)))
    # In NumPy the second call has a name of its own.
    again = layers.Conv2D(2, 3, padding="same", activation="tanh", name="again")
    again.build((None, 8, 6, 2))
    again.set_weights(shared.get_weights())
    net = naive.Net([shared, again, *model.layers[-2:]])
    x = naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "again")
    check(kx.GradCAM(layer="shared")(model, x, target), net, x, target, "again")


@pytest.mark.parametrize("skip", ["layer", "operation"])
def test_a_layer_that_is_skipped_over_gets_both_paths(skip):
    """y = A + tanh(A): the derivative by A sums over the branch and the skip."""
    x = keras.Input((8, 6, 2))
    a = layers.Conv2D(3, 2, name="conv")(x)
    branch = layers.Activation("tanh")(a)
    y = layers.Add()([a, branch]) if skip == "layer" else a + branch
    y = layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(y))
    model = naive.randomize(keras.Model(x, y))
    x = naive.inputs((8, 6, 2))
    activation = naive.Net([model.get_layer("conv")]).scores(x)
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("scores").get_weights())
    positions = activation[0, ..., 0].size
    slope = (2 - np.tanh(activation) ** 2).mean(axis=(1, 2))  # [B, C]
    maps = np.einsum("bk,kc,bhwk->cbhw", slope / positions, kernel, activation)
    target = np.maximum(maps, 0).sum(axis=(2, 3)).argmax(axis=0)
    expected = np.maximum(maps[target, np.arange(3)], 0)
    explanation = kx.GradCAM(layer="conv")(model, x, target)
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, (8, 6)))
    score = (activation + np.tanh(activation)).mean(axis=(1, 2)) @ kernel + bias
    naive.close(explanation.scores, score[np.arange(3), target])


def test_the_map_lies_over_the_input_that_the_layer_sees():
    small, large = keras.Input((4, 3, 1), name="small"), keras.Input((8, 6, 2), name="large")
    seen = layers.Conv2D(3, 2, activation="softplus", name="seen")(large)
    other = layers.Conv2D(3, 2, activation="softplus", name="other")(small)
    pooled = [layers.GlobalAveragePooling2D()(y) for y in (other, seen)]
    y = layers.Dense(4, name="scores")(layers.Concatenate()(pooled))
    model = naive.randomize(keras.Model([small, large], y))
    x = [naive.inputs((4, 3, 1)), naive.inputs((8, 6, 2))]
    kernel = model.get_layer("scores").get_weights()[0].astype(np.float64)
    for i, (layer, size) in enumerate([("other", (4, 3)), ("seen", (8, 6))]):
        activation = naive.Net([model.get_layer(layer)]).activation(x[i], layer)
        share = kernel[3 * i : 3 * i + 3] / activation[0, ..., 0].size
        maps = np.maximum(np.einsum("kc,bhwk->cbhw", share, activation), 0)
        target = maps.sum(axis=(2, 3)).argmax(axis=0)
        explanation = kx.GradCAM(layer=layer)(model, x, target)
        naive.close(explanation.extras["map"], maps[target, np.arange(3)])
        naive.close(explanation.values, naive.bilinear(maps[target, np.arange(3)], size))


def test_the_sequence_of_a_text():
    stack = [
        layers.Embedding(9, 4, name="words"),
        layers.Conv1D(5, 3, activation="softplus", name="conv"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(4),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((7,), dtype="int32"), *stack]))
    ids = np.random.default_rng(0).integers(0, 9, (3, 7))
    net, embedded = naive.Net(model.layers[1:]), model.layers[0].get_weights()[0][ids]
    target = naive.speaking(net, embedded, "conv")
    explanation = kx.GradCAM()(model, ids, target)
    expected = naive.grad_cam(net, embedded, target, "conv")
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, (7,)))


def test_a_model_of_fixed_batch_size():
    stack = [
        layers.Conv2D(3, 2, activation="softplus", name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
    ]
    model = keras.Sequential([keras.Input((8, 6, 2), batch_size=2), *stack])
    net, x = naive.Net([naive.randomize(model)]), naive.inputs((8, 6, 2), rows=5)
    target = naive.speaking(net, x, "conv")
    check(kx.GradCAM()(model, x, target), net, x, target, "conv")


def test_mixed_precision_explains_the_weights():
    stack = [
        layers.Conv2D(3, 2, activation="softplus", name="conv", dtype="mixed_float16"),
        layers.Flatten(dtype="mixed_float16"),
        layers.Dense(4, activation="softmax", dtype="mixed_float16"),
    ]
    model, net = chain(*stack)
    x = naive.inputs((8, 6, 2))
    target = naive.speaking(net, x, "conv")
    check(kx.GradCAM()(model, x, target), net, x, target, "conv")


def channels_first(twin=False):
    """A model whose layers take the channels first, or its twin with the channels last."""
    order = {} if twin else {"data_format": "channels_first"}
    stack = [
        layers.DepthwiseConv2D(2, name="conv", **order),
        layers.Activation("softplus", name="act"),
        layers.GlobalAveragePooling2D(**order),
        layers.Dense(4),
    ]
    if not twin:
        stack.insert(0, layers.Permute((3, 1, 2)))
    return naive.randomize(keras.Sequential([keras.Input((8, 6, 2)), *stack]))


@pytest.mark.parametrize("layer", ["conv", "act", None])
def test_channels_first(layer):
    """What follows a layer with the channels first has them first too."""
    model, twin = channels_first(), channels_first(twin=True)
    x = naive.inputs((8, 6, 2))
    target = np.argmax(model.get_weights()[-2].sum(axis=0))
    expected = kx.GradCAM(layer=layer)(twin, x, target)
    explanation = kx.GradCAM(layer=layer)(model, x, target)
    naive.close(explanation.extras["map"], expected.extras["map"])
    naive.close(explanation.values, expected.values)


# Properties that Grad-CAM's paper claims


def test_behind_global_average_pooling_it_is_the_class_activation_map():
    """Section 3.1: Grad-CAM's weights are CAM's, the dense layer's, over the number of pixels."""
    stack = [
        layers.Conv2D(5, 3, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4, activation="softmax", name="scores"),
    ]
    model, net = chain(*stack)
    x = naive.inputs((8, 6, 2))
    activation = net.activation(x, "conv")
    kernel = model.get_layer("scores").get_weights()[0].astype(np.float64)
    target = naive.speaking(net, x, "conv")
    cam = np.einsum("bhwk,kb->bhw", activation, kernel[:, target])
    expected = np.maximum(cam, 0) / activation[0, ..., 0].size
    naive.close(kx.GradCAM()(model, x, target).extras["map"], expected)


def test_a_scaled_score_scales_the_map(picture):
    _, net, x = picture
    model = naive.network(head=None)
    target = naive.speaking(net, x, "conv_b")[0]
    once = kx.GradCAM()(model, x[:1], target).values
    tripled = kx.targets.Function(lambda y: 3 * y[:, target] - 1)
    naive.close(kx.GradCAM()(model, x[:1], tripled).values, 3 * once)


def test_a_layer_that_says_nothing_for_the_class_gives_zeros_and_one_warning():
    stack = [
        layers.Conv2D(3, 2, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, name="scores"),
    ]
    model, _ = chain(*stack)
    kernel = np.array([[1.0, -1.0]] * 3, np.float32)
    model.get_layer("scores").set_weights([kernel, np.zeros(2, np.float32)])
    x = naive.inputs((8, 6, 2))
    with pytest.warns(UserWarning, match="GradCAM is zero everywhere for some") as w:
        explanation = kx.GradCAM()(model, x, np.array([1, 0, 1]))
    assert len(w) == 1
    assert not explanation.values[[0, 2]].any()
    assert not explanation.extras["map"][[0, 2]].any()
    assert explanation.values[1].any()


# The upsampling


def planted(size, low, seed):
    """A model whose map for class 0 is its input, average-pooled to the size `low`."""
    factors = tuple(n // m for n, m in zip(size, low, strict=True))
    rank = len(size)
    stack = [
        getattr(layers, f"AveragePooling{rank}D")(factors, name="map"),
        getattr(layers, f"GlobalAveragePooling{rank}D")(),
        layers.Dense(1, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((*size, 1)), *stack])
    model.set_weights([np.full((1, 1), np.prod(low), np.float32)])
    return model, np.abs(naive.inputs((*size, 1), rows=2, seed=seed))


@pytest.mark.parametrize(
    ("size", "low"),
    [
        ((12,), (3,)),
        ((13,), (2,)),
        ((8, 6), (4, 2)),
        ((6, 16), (3, 2)),
        ((5, 9), (1, 3)),
        ((4, 6, 8), (2, 3, 4)),
        ((4, 7, 3), (2, 1, 3)),
    ],
    ids=str,
)
def test_maps_are_interpolated_between_the_pixels_centres(size, low):
    model, x = planted(size, low, seed=0)
    explanation = kx.GradCAM(layer="map")(model, x)
    assert explanation.extras["map"].shape == (2, *low)
    naive.close(explanation.values, naive.bilinear(explanation.extras["map"], size), 1e-6)


def test_known_values_of_the_interpolation():
    model, _ = planted((4,), (2,), seed=0)
    x = np.array([0, 0, 4, 4], np.float32).reshape(1, 4, 1)
    explanation = kx.GradCAM(layer="map")(model, x)
    naive.close(explanation.extras["map"], [[0.0, 4.0]], 1e-6)
    naive.close(explanation.values, [[0.0, 1.0, 3.0, 4.0]], 1e-6)


@pytest.fixture(scope="module")
def pooled():
    return planted((8, 6), (4, 2), seed=0)[0]


@naive.few
@given(seed=st.integers(0, 2**16))
def test_the_upsampling_keeps_constants_corners_and_range(pooled, seed):
    x = np.abs(naive.inputs((8, 6, 1), rows=2, seed=seed))
    explanation = kx.GradCAM(layer="map")(pooled, x)
    low = explanation.extras["map"]
    assert explanation.values.min() >= low.min() - 1e-6
    assert explanation.values.max() <= low.max() + 1e-6
    naive.close(explanation.values[:, ::7, ::5], low[:, ::3, ::1], 1e-6)
    flat = kx.GradCAM(layer="map")(pooled, np.full_like(x, 0.5 + seed / 2**16))
    naive.close(flat.values, np.full((2, 8, 6), flat.extras["map"][0, 0, 0]), 1e-6)


# The other weightings


def grad_cam_plus_plus(a, g):
    """Chattopadhay et al., 2018, equation 19 without exp(S), for features of 0 or more."""
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(g**2 / (2 * g**2 + np.maximum(a, 0).sum() * g**3))
    return (share * np.maximum(g, 0)).sum() * a


def xgrad_cam(a, g):
    """Fu et al., 2020: the gradient, averaged by the share of the activation at each place."""
    return (a / a.sum() * g).sum() * a if a.any() else 0 * a


FORMULAS = {
    kx.GradCAM: lambda a, g: g.mean() * a,
    kx.GradCAMPlusPlus: grad_cam_plus_plus,
    kx.HiResCAM: lambda a, g: g * a,
    kx.LayerCAM: lambda a, g: np.maximum(g, 0) * a,
    kx.XGradCAM: xgrad_cam,
}
SIGNED = (kx.CAM, kx.EigenCAM, kx.HiResCAM, kx.XGradCAM)


def numpy_map(formula, a, g, relu=False):
    """A formula of one channel of one sample, summed over the channels."""
    rows = [
        sum(formula(a[i, ..., k], g[i, ..., k]) for k in range(a.shape[-1])) for i in range(len(a))
    ]
    return np.maximum(rows, 0) if relu else np.stack(rows)


def of_net(cls, net, x, target, layer, relu=False):
    a, g = net.activation(x, layer), net.gradient(x, target, layer)
    return numpy_map(FORMULAS[cls], a, g, relu)


def most_said_for(cls, net, x, layer):
    """For each row the class whose map has the largest number, `[B]`."""
    maps = [of_net(cls, net, x, c, layer) for c in range(net.scores(x).shape[1])]
    return np.max(np.reshape(maps, (len(maps), len(x), -1)), axis=-1).argmax(axis=0)


@pytest.mark.parametrize("name", ["relu, max", "series", "volume"])
@pytest.mark.parametrize("cls", FORMULAS)
def test_the_weights_are_those_of_the_equations(cls, name):
    """Behind the normalization the features have either sign."""
    model = naive.network(**NETWORKS[name])
    net, x = naive.Net([model]), naive.inputs(model.input_shape[1:])
    target = most_said_for(cls, net, x, "norm")
    expected = of_net(cls, net, x, target, "norm", relu=cls not in SIGNED)
    explanation = cls(layer="norm")(model, x, target)
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, x.shape[1:-1]))
    naive.close(explanation.scores, net.score(x, target))


@pytest.mark.parametrize("cls", FORMULAS)
def test_the_relu_can_be_chosen(cls):
    """And comes before the upsampling."""
    model = naive.network(activation="tanh")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    target = most_said_for(cls, net, x, "norm")
    assert (of_net(cls, net, x, target, "norm") < 0).any()
    relu = cls in SIGNED
    assert cls().relu == (not relu)
    expected = of_net(cls, net, x, target, "norm", relu)
    values = cls(layer="norm", relu=relu)(model, x, target).values
    naive.close(values, naive.bilinear(expected, (8, 6)))


@pytest.mark.parametrize("cls", [*FORMULAS, kx.CAM, kx.EigenCAM])
def test_one_function_is_compiled(cls):
    model, _ = pooling_head(2)
    with mock.patch.object(backend, "compile", wraps=backend.compile) as compiled:
        cls(relu=False)(model, naive.inputs((8, 6, 2)))
        cls(relu=False)(model, naive.inputs((8, 6, 2), rows=5), 1)
    assert compiled.call_count == 1


def test_grad_cam_plus_plus_is_the_papers_but_for_a_factor():
    """The factor is exp(S_c): the paper's score is exp(S_c), of which these are derivatives."""
    model = naive.network(activation="relu")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    y = np.exp(net.score(x, 1))

    def papers(a, g, y):
        with np.errstate(invalid="ignore"):
            share = np.nan_to_num(y * g**2 / (2 * y * g**2 + a.sum() * y * g**3))
        return (share * np.maximum(y * g, 0)).sum() * a

    a, g = net.activation(x, "conv_b"), net.gradient(x, 1, "conv_b")
    expected = [
        sum(papers(a[i, ..., k], g[i, ..., k], y[i]) for k in range(a.shape[-1])) for i in range(3)
    ]
    values = kx.GradCAMPlusPlus()(model, x, 1).extras["map"]
    naive.close(values * y[:, None, None], expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_grad_cam_plus_plus_at_scores_of_a_thousand(sign):
    model, _ = pooling_head(2)
    x = naive.inputs((8, 6, 2))
    head = model.get_layer("scores")
    kernel, bias = head.get_weights()
    head.set_weights([sign * np.abs(kernel) * 2e4, bias])
    net = naive.Net([model])
    assert (sign * net.score(x, 1) > 1000).all()
    explainer = kx.GradCAMPlusPlus(relu=False)
    if sign > 0:
        values = explainer(model, x, 1).extras["map"]
        naive.close(values, of_net(kx.GradCAMPlusPlus, net, x, 1, "conv"))
    else:
        with pytest.warns(UserWarning, match="zero everywhere"):
            assert not explainer(model, x, 1).values.any()


def test_grad_cam_plus_plus_where_the_papers_denominator_is_zero():
    """With g = 1, it is 2 + sum(A): features of either sign, that sum to -2."""
    model, _ = planted((4, 4), (2, 2), seed=0)
    a = np.array([[0.5, -1.0], [-2.0, 0.5]], np.float32)
    x = np.kron(a, np.ones((2, 2)))[None, ..., None]
    model.set_weights([np.full((1, 1), 4.0, np.float32)])
    values = kx.GradCAMPlusPlus(relu=False, layer="map")(model, x).extras["map"]
    naive.close(values[0], 4 / (2 + 1) * a)


@pytest.mark.parametrize("cls", [kx.HiResCAM, kx.XGradCAM])
@pytest.mark.parametrize("shape", [(9, 2), (8, 6, 2), (6, 4, 5, 1)], ids=str)
def test_the_map_sums_to_the_score_of_one_linear_layer_without_its_bias(cls, shape):
    """Completeness (Draelos), and conservation (Fu)."""
    conv = getattr(layers, f"Conv{len(shape) - 1}D")(3, 2, activation="tanh", name="conv")
    stack = [conv, layers.Flatten(), layers.Dense(4, activation="softmax", name="scores")]
    model, net = chain(*stack, shape=shape)
    x = naive.inputs(shape)
    values = cls()(model, x, 2).extras["map"]
    bias = model.get_layer("scores").get_weights()[1][2]
    naive.close(values.reshape(3, -1).sum(axis=1), net.score(x, 2) - bias)


def test_hirescam_shows_only_what_is_used():
    """Section 3: Grad-CAM also highlights where the model does not look."""
    stack = [
        layers.Conv2D(3, 3, padding="same", activation="relu", name="conv"),
        layers.Flatten(),
        layers.Dense(2, name="scores"),
    ]
    model, _ = chain(*stack)
    kernel = model.get_layer("scores").get_weights()[0].reshape(8, 6, 3, 2)
    kernel[3:] = 0
    model.get_layer("scores").set_weights([np.abs(kernel).reshape(-1, 2), np.zeros(2)])
    x = naive.inputs((8, 6, 2))
    used = kx.HiResCAM()(model, x, 1).extras["map"]
    assert used[:, :3].any()
    assert not used[:, 3:].any()
    assert kx.GradCAM()(model, x, 1).extras["map"][:, 3:].any()


def test_xgrad_cam_of_a_channel_that_sums_to_zero():
    stack = [
        layers.AveragePooling2D(2, name="map"),
        layers.Flatten(),
        layers.Dense(1, use_bias=False, name="scores"),
    ]
    model, net = chain(*stack)
    x = naive.inputs((8, 6, 2))
    x[:, 4:, :, 0] = -x[:, :4, :, 0]
    a, g = net.activation(x, "map"), net.gradient(x, 0, "map")
    expected = numpy_map(xgrad_cam, a[..., 1:], g[..., 1:])
    naive.close(kx.XGradCAM()(model, x).extras["map"], expected)


def test_behind_an_average_they_are_one_map():
    """HiResCAM generalises CAM (its section 3), and so do Grad-CAM and XGrad-CAM."""
    model, _ = pooling_head(2, activation="tanh")
    x = naive.inputs((8, 6, 2))
    expected = kx.CAM()(model, x, 1).extras["map"] / (6 * 4)
    for cls in (kx.GradCAM, kx.HiResCAM, kx.XGradCAM):
        naive.close(cls(relu=False)(model, x, 1).extras["map"], expected)


# The first principal component


def principal(a):
    """`A v_1` by NumPy's singular value decomposition, its sum not negative."""
    flat = a.reshape(len(a), -1, a.shape[-1])
    maps = [m @ np.linalg.svd(m, full_matrices=False)[2][0] for m in flat]
    return np.reshape([m * np.sign(m.sum()) for m in maps], a.shape[:-1])


def test_eigen_cam_is_the_first_singular_component(case):
    model, net, x = case
    expected = principal(net.activation(x, "norm"))
    explanation = kx.EigenCAM(layer="norm")(model, x)
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, x.shape[1:-1]))
    assert (explanation.extras["map"].reshape(3, -1).sum(axis=1) > 0).all()


@pytest.mark.parametrize(
    ("channels", "scale"), [(2, 1.0), (12, 1.0), (20, 1.0), (2, 1e-25), (20, 1e25)]
)
def test_eigen_cam_with_fewer_as_many_and_more_channels_than_positions(channels, scale):
    model, net = chain(
        layers.Conv2D(channels, 2, use_bias=False, name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
        shape=(5, 4, 2),
    )
    x = naive.inputs((5, 4, 2)) * np.float32(scale)
    values = kx.EigenCAM()(model, x).extras["map"]
    naive.close(values / scale, principal(net.activation(x, "conv") / scale))


def test_eigen_cam_needs_no_gradient_and_no_class():
    model, x = (
        with_head(lambda h: layers.Dense(4)(average()(ops.round(h)))),
        naive.inputs((8, 6, 2)),
    )
    values = kx.EigenCAM(layer="conv")(model, x, np.arange(3)).values
    naive.close(values, kx.EigenCAM(layer="conv")(model, x, 3).values, 1e-7)
    with pytest.raises(ValueError, match="cut off at 'round"):
        kx.GradCAM(layer="conv")(model, x)


def test_eigen_cam_of_dead_features():
    model, _ = pooling_head(2)
    model.get_layer("conv").bias.assign([-1e3] * 5)
    with pytest.warns(UserWarning, match="EigenCAM is zero everywhere"):
        assert not kx.EigenCAM()(model, naive.inputs((8, 6, 2))).values.any()


# CAM: the dense layer's own weights


def pooling_head(rank, activation="relu", head="softmax", seed=0):
    """Convolution, global average and a dense layer."""
    stack = [
        getattr(layers, f"Conv{rank}D")(5, 3, activation=activation, name="conv"),
        getattr(layers, f"GlobalAveragePooling{rank}D")(),
        layers.Dense(4, activation=head, name="scores"),
    ]
    return chain(*stack, shape=(*(8, 6, 5)[:rank], 2), seed=seed)


def by_definition(activation, kernel, target):
    """Zhou et al., 2016, equation 2."""
    target = np.broadcast_to(target, len(activation))
    return np.einsum("b...k,kb->b...", activation, kernel.astype(np.float64)[:, target])


@pytest.mark.parametrize(("rank", "head"), [(1, "softmax"), (2, None), (3, "sigmoid")])
def test_cam_is_defined_by_the_dense_layers_weights(rank, head):
    model, net = pooling_head(rank, "tanh", head)
    x = naive.inputs(model.input_shape[1:])
    kernel, bias = model.get_layer("scores").get_weights()
    activation = net.activation(x, "conv")
    explanation = kx.CAM()(model, x)
    target = net.scores(x).argmax(axis=1)
    expected = by_definition(activation, kernel, target)
    assert (expected < 0).any()
    naive.close(explanation.extras["map"], expected)
    naive.close(explanation.values, naive.bilinear(expected, x.shape[1:-1]))
    means = explanation.extras["map"].reshape(3, -1).mean(axis=1)
    naive.close(means + bias[target], explanation.scores)


def average(**options):
    return layers.GlobalAveragePooling2D(**options)


LINEAR_HEADS = {
    "dense": lambda h: layers.Dense(4, name="scores")(average()(h)),
    "1 x 1 convolution": lambda h: layers.Flatten()(
        layers.Conv2D(4, 1, name="scores")(average(keepdims=True)(h))
    ),
    "pooling of all": lambda h: layers.Dense(4, name="scores")(
        layers.Flatten()(layers.AveragePooling2D((6, 4))(layers.Dropout(0.5)(h)))
    ),
    "operation": lambda h: layers.Dense(4, name="scores")(ops.mean(h, axis=(-3, -2))),
    "scaled": lambda h: layers.Dense(4, name="scores")(layers.Rescaling(2.0, offset=1.0)(h_(h))),
    "divided": lambda h: layers.Dense(4, name="scores")(h_(h) / 0.5 - 1.0),
    "beside others": lambda h: layers.Dense(4, name="scores")(
        layers.Concatenate()([2 * average()(h), layers.GlobalMaxPooling2D()(other(h))])
    ),
    "probabilities": lambda h: layers.Softmax()(2 * layers.Dense(4, name="scores")(average()(h))),
}


def h_(h):
    return average()(h)


def other(h):
    """A branch that does not come from the layer."""
    return layers.Conv2D(2, 2, activation="relu")(h._keras_history.operation.input)


def with_head(head, shape=(8, 6, 2)):
    x = keras.Input(shape)
    h = layers.Conv2D(5, 3, activation="tanh", name="conv")(x)
    return naive.randomize(keras.Model(x, head(h)))


@pytest.mark.parametrize("name", LINEAR_HEADS)
def test_cam_of_heads_that_are_linear_in_the_average(name):
    model, x = with_head(LINEAR_HEADS[name]), naive.inputs((8, 6, 2))
    activation = naive.Net([model.get_layer("conv")]).scores(x)
    kernel = model.get_layer("scores").get_weights()[0].reshape(-1, 4)[:5]
    factor = 1 if name in ("dense", "1 x 1 convolution", "pooling of all", "operation") else 2
    expected = factor * by_definition(activation, kernel, 2)
    naive.close(kx.CAM(layer="conv")(model, x, 2).extras["map"], expected)


def test_cam_of_two_dense_layers_without_an_activation_is_that_of_their_product():
    model = with_head(lambda h: layers.Dense(4, name="b")(layers.Dense(3, name="a")(average()(h))))
    x = naive.inputs((8, 6, 2))
    activation = naive.Net([model.get_layer("conv")]).scores(x)
    kernel = model.get_layer("a").get_weights()[0] @ model.get_layer("b").get_weights()[0]
    naive.close(kx.CAM()(model, x, 1).extras["map"], by_definition(activation, kernel, 1))


def test_cam_of_a_nested_model():
    model, twin = transfer("functional"), transfer("sequential")
    net, x = naive.Net([twin]), naive.inputs((8, 6, 2))
    kernel = twin.layers[-1].get_weights()[0]
    expected = by_definition(net.activation(x, "last"), kernel, 3)
    for case in (model, transfer("subclassed")):
        naive.close(kx.CAM()(case, x, 3).extras["map"], expected)


def gated(h):
    """Each channel times a gate that the average makes."""
    mean = average()(h)
    return layers.Dense(4)(mean * layers.Dense(5, activation="linear")(mean))


OTHER_HEADS = {
    "Reshape": lambda h: layers.Dense(4)(layers.Flatten(name="flatten")(h)),
    "Relu": lambda h: layers.Dense(4)(layers.Dense(3, activation="relu")(average()(h))),
    "Max": lambda h: layers.Dense(4)(layers.GlobalMaxPooling2D()(h)),
    "Mean": lambda h: layers.Dense(4)(layers.Flatten()(ops.mean(h, axis=1))),
    "Mul": gated,
    "RealDiv": lambda h: layers.Dense(4)(1 / average()(h)),
    "Conv2D": lambda h: layers.Dense(4)(average()(layers.Conv2D(3, 2)(h))),
    "Tanh": lambda h: layers.Dense(4)(ops.tanh(average()(h))),
    "StopGradient": lambda h: layers.Dense(4)(layers.Lambda(ops.stop_gradient)(average()(h))),
}


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_cam_of_other_heads_is_an_error_that_names_the_operation(name):
    model, x = with_head(OTHER_HEADS[name]), naive.inputs((8, 6, 2))
    with pytest.raises(ValueError, match=rf"average of layer 'conv'.*'{name}'.*Use GradCAM"):
        kx.CAM(layer="conv")(model, x)


@pytest.mark.parametrize(
    "pooling",
    [
        layers.AveragePooling2D((6, 4), strides=1, padding="same"),
        layers.AveragePooling2D((6, 2)),
        layers.AveragePooling2D((2, 2)),
    ],
)
def test_cam_of_averages_of_parts_is_an_error(pooling):
    model = with_head(lambda h: layers.Dense(4)(layers.Flatten()(pooling(h))))
    with pytest.raises(ValueError, match="'AvgPool'"):
        kx.CAM(layer="conv")(model, naive.inputs((8, 6, 2)))


def test_the_error_of_cam_says_in_which_layer_the_operation_is():
    model, x = with_head(OTHER_HEADS["Reshape"]), naive.inputs((8, 6, 2))
    with pytest.raises(ValueError, match="/flatten"):
        kx.CAM()(model, x)


def test_cam_of_a_layer_that_is_averaged_and_used_beside_it():
    def head(h):
        return layers.Dense(4)(layers.Concatenate()([average()(h), layers.Flatten()(h)]))

    with pytest.raises(ValueError, match=r"'(Reshape|ConcatV2)'"):
        kx.CAM(layer="conv")(with_head(head), naive.inputs((8, 6, 2)))


def test_cam_of_a_probability_is_an_error():
    model, _ = pooling_head(2)
    target = kx.targets.Class(1, of="probability")
    with pytest.raises(ValueError, match="'Softmax'"):
        kx.CAM()(model, naive.inputs((8, 6, 2)), target)


def test_cam_of_a_channel_is_the_channel():
    model, net = pooling_head(2)
    x = naive.inputs((8, 6, 2))
    values = kx.CAM()(model, x, kx.targets.Neuron("conv", 3)).extras["map"]
    naive.close(values, net.activation(x, "conv")[..., 3])


def test_cam_inside_another_method():
    """Where the graph that is read is the body of a loop."""
    model, _ = pooling_head(2)
    x = naive.inputs((8, 6, 2))
    values = kx.SmoothGrad(explainer=kx.CAM(), samples=2, noise=0.0)(model, x, 1).values
    naive.close(values, kx.CAM()(model, x, 1).values)


# Transformers


class ClassToken(layers.Layer):
    """Tokens `[B, T, C]` with one more in front, and positions."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="positions")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1) + self.positions


GRID = (2, 3)


def block(h, i):
    """A block of a transformer, as layers with names."""
    a = layers.LayerNormalization(name=f"before_{i}")(h)
    h = layers.Add(name=f"first_{i}")([h, layers.MultiHeadAttention(2, 4, name=f"see_{i}")(a, a)])
    a = layers.LayerNormalization(name=f"between_{i}")(h)
    a = layers.Dense(8, name=f"down_{i}")(layers.Dense(9, activation="gelu", name=f"up_{i}")(a))
    return layers.Add(name=f"second_{i}")([h, a])


@functools.cache
def transformer(reads="class token", blocks=1):
    """Patches of a picture as tokens, blocks, and a head on the class token or an average."""
    x = keras.Input((8, 12, 2))
    h = layers.Reshape((6, 8), name="tokens")(layers.Conv2D(8, 4, strides=4, name="patches")(x))
    if reads == "class token":
        h = ClassToken(name="start")(h)
    for i in range(blocks):
        h = block(h, i)
    h = layers.LayerNormalization(name="after")(h)
    h = h[:, 0] if reads == "class token" else layers.GlobalAveragePooling1D()(h)
    return naive.randomize(keras.Model(x, layers.Dense(4, activation="softmax", name="scores")(h)))


def output_of(model, x, name):
    """The output of a layer of a flat model."""
    return keras.Model(model.input, model.get_layer(name).output)(x, training=False)


def at_the_last_attention(model, x, target, blocks=1):
    """What enters the last block's attention, and the logit's gradient by it, `[B, 2, 3, C]`."""
    names = ("see", "between", "up", "down")
    see, between, up, down = (model.get_layer(f"{name}_{blocks - 1}") for name in names)
    head = model.get_layer("scores")
    residual = output_of(model, x, f"second_{blocks - 2}" if blocks > 1 else "start")
    h = output_of(model, x, f"before_{blocks - 1}")
    with tf.GradientTape() as tape:
        tape.watch(h)
        y = residual + see(h, h)
        y = model.get_layer("after")(y + down(up(between(y))))[:, 0]
        score = (y @ head.kernel + head.bias)[:, target]
    gradient = tape.gradient(score, h)
    return [np.asarray(t, np.float64)[:, 1:].reshape(-1, *GRID, 8) for t in (h, gradient)]


@pytest.mark.parametrize(
    ("cls", "layer", "blocks"),
    [(kx.GradCAM, "before_0", 1), (kx.GradCAM, None, 1), (kx.HiResCAM, None, 2)],
)
def test_a_grid_of_tokens(cls, layer, blocks):
    """By default where the patches speak for the class token: later, their gradient is zero."""
    model, x = transformer(blocks=blocks), naive.inputs((8, 12, 2))
    expected = numpy_map(FORMULAS[cls], *at_the_last_attention(model, x, 1, blocks))
    explanation = cls(reshape=GRID, layer=layer, relu=False)(model, x, 1)
    naive.close(explanation.extras["map"], expected, 1e-4)
    naive.close(explanation.values, naive.bilinear(expected, (8, 12)), 1e-4)


def test_eigen_cam_of_a_grid_of_tokens():
    model, x = transformer(), naive.inputs((8, 12, 2))
    a, _ = at_the_last_attention(model, x, 1)
    naive.close(kx.EigenCAM(reshape=GRID)(model, x).extras["map"], principal(a), 1e-4)


def test_a_function_that_arranges_tokens():
    """Here from right to left."""
    model, x = transformer(), naive.inputs((8, 12, 2))

    def mirrored(tokens):
        return ops.flip(ops.reshape(tokens[:, 1:], (-1, *GRID, 8)), axis=2)

    expected = numpy_map(FORMULAS[kx.HiResCAM], *at_the_last_attention(model, x, 1))[:, :, ::-1]
    explanation = kx.HiResCAM(reshape=mirrored)(model, x, 1)
    naive.close(explanation.extras["map"], expected, 1e-4)
    naive.close(explanation.values, naive.bilinear(expected, (8, 12)), 1e-4)


def test_tokens_that_are_averaged():
    model, x = transformer("average"), naive.inputs((8, 12, 2))
    kernel = model.get_layer("scores").get_weights()[0]
    a = np.asarray(output_of(model, x, "after"), np.float64).reshape(-1, *GRID, 8)
    expected = by_definition(a, kernel, 2)
    naive.close(kx.CAM(reshape=GRID)(model, x, 2).extras["map"], expected)
    signed = kx.GradCAM(reshape=GRID, relu=False)(model, x, 2)
    naive.close(signed.extras["map"], expected / 6)


def test_without_a_grid_the_map_is_that_of_the_patches():
    """The inside of an attention, `[B, T, heads, C]`, is no picture."""
    model, x = transformer(), naive.inputs((8, 12, 2))
    expected = principal(np.asarray(output_of(model, x, "patches"), np.float64))
    naive.close(kx.EigenCAM()(model, x).extras["map"], expected, 1e-4)


def test_a_series_of_tokens_needs_no_grid_and_may_have_one():
    x = keras.Input((7, 8))
    h = layers.LayerNormalization(name="after")(layers.Dense(8)(x))
    y = layers.Dense(4, name="scores")(layers.GlobalAveragePooling1D()(h))
    model, x = naive.randomize(keras.Model(x, y)), naive.inputs((7, 8))
    explanation = kx.CAM()(model, x, 1)
    kernel = model.get_layer("scores").get_weights()[0]
    after = np.asarray(output_of(model, x, "after"))
    naive.close(explanation.values, by_definition(after, kernel, 1))
    naive.close(kx.CAM(reshape=(7,))(model, x, 1).values, explanation.values, 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reshape": (2, 2)}, r"layer 'before_0' .* 2 x 2 = 4 tokens.*Received: 7 tokens"),
        ({"reshape": (3, 3), "layer": "start"}, r"'start'.*3 x 3 = 9 tokens.*Received: 7 tokens"),
        ({"reshape": GRID, "layer": "patches"}, r"of tokens, \[B, T, C\].*'after'"),
        ({"reshape": GRID, "layer": "see_0/query"}, r"of tokens, \[B, T, C\].*\(None, 7, 2, 4\)"),
        ({"layer": "see_0/query"}, r"spatial extent above 1.*\(None, 7, 2, 4\)"),
        ({"layer": "before_0"}, r"spatial axes.*reshape=\(14, 14\)"),
        ({"reshape": lambda t: ops.mean(t, axis=-1)}, r"\[B, 7, 8\] of layer 'before_0'.*\[B, 7\]"),
        ({"reshape": lambda t: t[:, 1:, :4]}, r"as \[B, h, w, 8\].*Received: \[B, 6, 4\]"),
    ],
)
def test_a_grid_that_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        kx.HiResCAM(**options)(transformer(), naive.inputs((8, 12, 2)))


def test_attention_scores_are_no_picture():
    """`[B, heads, T, T]`, which an attention's own softmax returns."""
    x = keras.Input((7, 8))
    h, _ = layers.MultiHeadAttention(2, 4, name="see")(x, x, return_attention_scores=True)
    y = layers.Dense(4)(layers.GlobalAveragePooling1D()(h))
    model = naive.randomize(keras.Model(x, y))
    inside = model.get_layer("see")._flatten_layers()
    (softmax,) = [layer.name for layer in inside if isinstance(layer, layers.Softmax)]
    for options in ({}, {"reshape": (7,)}):
        with pytest.raises(ValueError, match=r"\(None, 2, 7, 7\)"):
            kx.GradCAM(layer=softmax, **options)(model, naive.inputs((7, 8)))


def test_a_grid_for_a_model_without_tokens():
    model, _ = pooling_head(2)
    with pytest.raises(ValueError, match=r"layer of tokens, \[B, T, C\]"):
        kx.GradCAM(reshape=(6, 4))(model, naive.inputs((8, 6, 2)))


@pytest.mark.parametrize("reshape", [14, "14", (), (14, 0), (14.0, 14), (True, 14), None])
def test_a_grid_is_whole_numbers(reshape):
    if reshape is None:
        assert kx.GradCAM(reshape=[14, np.int64(7)]).reshape == (14, 7)
    else:
        with pytest.raises(ValueError, match=r"such as \(14, 14\)"):
            kx.GradCAM(reshape=reshape)


def test_a_configuration_with_a_grid_comes_back():
    explainer = kx.LayerCAM(layer="a/b", reshape=(3, 2), relu=False)
    config = json.loads(json.dumps({"class_name": "LayerCAM", "config": explainer.get_config()}))
    assert kx.get(config) == explainer
    assert kx.get("grad_cam_plus_plus") == kx.GradCAMPlusPlus()
