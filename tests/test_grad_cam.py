"""Grad-CAM against its equations and a bilinear upsampling in float64."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
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


# The equations


@pytest.mark.parametrize("layer", ["conv_a", "pool", "norm", "conv_b"])
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


# Properties that the paper claims


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
