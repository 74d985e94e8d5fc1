"""Score-CAM and Ablation-CAM against loops over channels in float64, and plain Keras models."""

import functools
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from keras_explain.explainers.score_cams import AblationCAM, ScoreCAM
from tests import naive

CLASSES = np.array([[0, 3], [1, 2], [2, 0]])
BOTH = [ScoreCAM, AblationCAM]
NETWORKS = {
    "picture, features of either sign": ({}, "norm"),
    "series": ({"shape": (9, 2)}, "conv_b"),
    "volume": ({"shape": (6, 4, 5, 1)}, "norm"),
}


def spread(weights, maps):
    """Weights `[n]` and maps `[n, ...]`, multiplied."""
    return weights.reshape(-1, *(1 for _ in maps.shape[1:])) * maps


def masks(maps, size):
    """Maps at the input's size, each scaled to [0, 1]; None for one that is constant."""
    large = naive.bilinear(maps, size)
    low, high = (f(large.reshape(len(large), -1), axis=1) for f in (np.min, np.max))
    if (high == low).any():
        return None
    return spread(1 / (high - low), large - spread(low, np.ones_like(large)))


def softmaxed(weights, activation):
    return sum(spread(w, activation[..., k]) for k, w in enumerate(naive.softmax(weights).T))


def score_cam(score, activation, x, start=0.0, channels=None):
    """Wang et al., 2020, algorithm 1, with `score(inputs)` `[B]`, before the ReLU."""
    weights = np.full((len(x), activation.shape[-1]), -np.inf)
    for k in range(activation.shape[-1]) if channels is None else channels:
        mask = masks(activation[..., k], x.shape[1:-1])
        if mask is not None:
            seen = start + mask[..., None] * (x - start)
            weights[:, k] = score(seen) - score(x * 0 + start)
    return softmaxed(weights, activation)


def ablation_cam(after, activation):
    """Desai and Ramaswamy, 2020, without the division; `after(activation)` is the score `[B]`."""
    total = np.zeros(activation.shape[:-1])
    for k in range(activation.shape[-1]):
        without = activation.copy()
        without[..., k] = 0
        total += spread(after(activation) - after(without), activation[..., k])
    return total


def scores_after(net, layer):
    """The logits as a function of a layer's output."""

    def scores(activation):
        for part in net.parts[net._after(layer) :]:
            activation = part.forward(activation)
        return activation

    return scores


def by_definition(cls, net, x, target, layer, **options):
    """The map before the ReLU, of a `naive.Net`."""
    x, rows = np.asarray(x, np.float64), np.arange(len(x))
    activation = net.activation(x, layer)
    if cls is ScoreCAM:
        return score_cam(lambda z: net.score(z, target), activation, x, **options)
    return ablation_cam(lambda a: scores_after(net, layer)(a)[rows, target], activation)


def check(explanation, maps, size):
    """The map and its upsampling are those of the equations."""
    assert maps.any()
    naive.close(explanation.extras["map"], maps, 1e-4)
    naive.close(explanation.values, naive.bilinear(maps, size), 1e-4)


# The equations


@pytest.mark.parametrize(("options", "layer"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("cls", BOTH)
def test_they_are_the_papers_loops_over_channels(cls, options, layer):
    model = naive.network(**options)
    net, x = naive.Net([model]), naive.inputs(model.input_shape[1:])
    explanation = cls(layer=layer, relu=False)(model, x, CLASSES)
    assert explanation.values.shape == (3, 2, *x.shape[1:-1])
    assert explanation.values.dtype == explanation.extras["map"].dtype == np.float32
    for k in range(2):
        maps = by_definition(cls, net, x, CLASSES[:, k], layer)
        assert maps.any()
        naive.close(explanation.extras["map"][:, k], maps, 1e-4)
        naive.close(explanation.values[:, k], naive.bilinear(maps, x.shape[1:-1]), 1e-4)


@pytest.mark.parametrize("cls", BOTH)
def test_by_default_it_is_the_last_layer_with_a_spatial_extent_and_signs_may_stay(cls):
    model = naive.network(activation="tanh")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    signed = by_definition(cls, net, x, 1, "conv_b")
    assert (signed < 0).any()
    check(cls(relu=False)(model, x, 1), signed, (8, 6))
    keep = (signed > 0).any(axis=(1, 2))
    check(cls()(model, x[keep], 1), np.maximum(signed[keep], 0), (8, 6))


def test_what_is_not_seen_is_the_baseline():
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    maps = by_definition(ScoreCAM, net, x, 1, "norm", start=0.7)
    check(ScoreCAM(layer="norm", relu=False, baseline=0.7)(model, x, 1), maps, (8, 6))
    start = naive.inputs((8, 6, 2), seed=5)
    maps = by_definition(ScoreCAM, net, x, 1, "norm", start=start)
    check(ScoreCAM(layer="norm", relu=False, baseline=start)(model, x, 1), maps, (8, 6))


@pytest.mark.parametrize("cls", BOTH)
def test_only_the_channels_that_vary_most(cls):
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2), rows=1)
    activation = net.activation(x, "norm")
    two = np.argsort(activation[0].var(axis=(0, 1)))[::-1][:2]
    if cls is ScoreCAM:
        maps = by_definition(cls, net, x, 1, "norm", channels=two)
    else:
        after = scores_after(net, "norm")
        maps = np.zeros(activation.shape[:-1])
        for k in two:
            without = activation.copy()
            without[..., k] = 0
            maps += (after(activation) - after(without))[:, 1] * activation[..., k]
    check(cls(layer="norm", relu=False, max_channels=2)(model, x, 1), maps, (8, 6))
    many = cls(layer="norm", relu=False, max_channels=99)(model, x, 1)
    np.testing.assert_array_equal(many.values, cls(layer="norm", relu=False)(model, x, 1).values)


# What they promise


@pytest.mark.parametrize("cls", BOTH)
def test_a_row_alone_and_small_batches(cls):
    """Chunks of one channel, of some, and of all of them at once."""
    model, x = naive.network(), naive.inputs((8, 6, 2), rows=5)
    explainer = cls(layer="norm", relu=False)
    target = np.arange(5) % 4
    whole = explainer(model, x, target)
    for batch_size in (1, 2, 7):
        some = explainer(model, x, target, batch_size=batch_size)
        naive.close(some.values, whole.values)
    with mock.patch.object(backend, "compile", side_effect=AssertionError):
        alone = explainer(model, x[3:4], 3)
    naive.close(alone.values, whole.values[3:4])


def test_score_cam_weighs_channels_that_light_up_where_the_model_looks():
    """Of channels that see the top and the bottom alone, the one that brings the score about."""
    inputs = keras.Input((8, 6, 2))
    h = layers.Conv2D(2, 1, use_bias=False, name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="scores")(layers.Flatten()(h)))
    kernel = np.zeros((8, 6, 2, 1), "float32")
    kernel[:4] = 1.0
    model.set_weights([np.eye(2, dtype="float32")[None, None], kernel.reshape(-1, 1), np.zeros(1)])
    x = np.zeros((1, 8, 6, 2), "float32")
    x[:, :4, :, 0], x[:, 4:, :, 1] = 1.0, 1.0
    maps = ScoreCAM()(model, x).extras["map"][0]
    assert maps[:4].min() > 0.99
    assert maps[4:].max() < 0.01
    maps = AblationCAM()(model, x).extras["map"][0]
    naive.close(maps, 24.0 * x[0, ..., 0])


def test_behind_a_linear_layer_ablation_is_what_each_channel_gives():
    """`w_k` is the channel's part of the score: the map is that of XGradCAM times sum(A_k)."""
    inputs = keras.Input((8, 6, 2))
    h = layers.Conv2D(3, 3, activation="softplus", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="scores")(layers.Flatten()(h)))
    model, x = naive.randomize(model), naive.inputs((8, 6, 2))
    net = naive.Net([model])
    a, g = net.activation(x, "conv"), net.gradient(x, 2, "conv")
    expected = ((a * g).sum(axis=(1, 2), keepdims=True) * a).sum(axis=-1)
    check(AblationCAM(relu=False)(model, x, 2), expected, (8, 6))


def constant(model):
    """The model with a head that sees nothing."""
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([0 * kernel, bias])
    return model


@pytest.mark.parametrize("cls", BOTH)
def test_a_constant_model_has_a_map_of_zeros(cls):
    model = constant(keras.models.clone_model(naive.network()))
    with pytest.warns(UserWarning, match="zero everywhere"):
        explanation = cls(layer="norm", relu=False)(model, naive.inputs((8, 6, 2)), 1)
    assert not explanation.values.any()
    assert not explanation.extras["map"].any()


def test_a_constant_score_that_is_not_zero_has_a_map_of_zeros():
    model = constant(keras.models.clone_model(naive.network()))
    model.get_layer("scores").bias.assign([3.0, 3.0, 3.0, 3.0])
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert not ScoreCAM(layer="norm", relu=False)(
            model, naive.inputs((8, 6, 2)), 1
        ).values.any()


def test_only_a_later_chunk_has_a_channel_that_counts():
    """The score sees the second channel alone; the passes go one by one."""
    inputs = keras.Input((4, 4, 2))
    h = layers.Conv2D(2, 1, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(h)))
    kernel = np.zeros((4, 4, 2, 1), "float32")
    kernel[:, 2:, 1] = 1.0
    model.set_weights([np.eye(2, dtype="float32")[None, None], kernel.reshape(-1, 1), np.zeros(1)])
    x = np.zeros((1, 4, 4, 2), "float32")
    x[:, :, :2, 0], x[:, :, 2:, 1] = 1.0, 1.0
    one_by_one = ScoreCAM(relu=False)(model, x, 0, batch_size=1)
    assert one_by_one.values.any()
    naive.close(one_by_one.values, ScoreCAM(relu=False)(model, x, 0).values)


def test_a_channel_that_varies_by_rounding_alone_gets_no_weight():
    inputs = keras.Input((4, 4, 2))
    h = layers.Conv2D(2, 1, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(h)))
    head = np.full((4, 4, 2, 1), -1.0, "float32")
    head[0, 0] = 1.0  # were it scaled to [0, 1], the first channel would show this place alone
    model.set_weights([np.eye(2, dtype="float32")[None, None], head.reshape(-1, 1), np.zeros(1)])
    x = naive.inputs((4, 4, 2), rows=1)
    x[..., 0] = 1000.0
    x[0, 0, 0, 0] = np.nextafter(np.float32(1000), np.float32(2000))
    naive.close(ScoreCAM(relu=False)(model, x).extras["map"], x[..., 1])


@pytest.mark.parametrize("sign", [1, -1])
def test_constant_channels_get_no_weight_and_large_scores_are_finite(sign):
    inputs = keras.Input((8, 6, 2))
    h = layers.Conv2D(3, 2, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="scores")(layers.Flatten()(h)))
    naive.randomize(model)
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 0], bias[0] = 0.0, 5.0  # the same everywhere, and large
    model.get_layer("conv").set_weights([kernel, bias])
    head, shift = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([sign * 1e3 * head, shift])
    x, net = naive.inputs((8, 6, 2)), naive.Net([model])
    check(ScoreCAM(relu=False)(model, x, 1), by_definition(ScoreCAM, net, x, 1, "conv"), (8, 6))
    assert np.isfinite(AblationCAM(relu=False)(model, x, 1).values).all()


def test_where_all_channels_are_constant_there_is_no_map():
    model = naive.network(activation="relu")
    x = np.zeros((2, 8, 6, 2), "float32")
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert not ScoreCAM(layer="conv_a")(model, x, 1).values.any()


# Models


def stack():
    return [
        layers.Conv2D(3, 2, activation="softplus", name="conv"),
        layers.Flatten(name="flat"),
        layers.Dense(4, name="scores"),
    ]


@functools.cache
def plain():
    return naive.randomize(keras.Sequential([keras.Input((8, 6, 2)), *stack()]))


def fixed_batch():
    return keras.Sequential([keras.Input((8, 6, 2), batch_size=2), *stack()]), "conv"


def nested():
    conv, *rest = stack()
    body = keras.Sequential([keras.Input((8, 6, 2)), conv], name="body")
    return keras.Sequential([keras.Input((8, 6, 2)), body, *rest]), "body"


def called_twice():
    """The layer's last call counts."""
    inputs, (conv, flat, scores) = keras.Input((8, 6, 2)), stack()
    nothing = 0.0 * ops.mean(conv(inputs + 1.0))
    return keras.Model(inputs, scores(flat(conv(inputs + nothing)))), "conv"


def channels_first():
    conv, *rest = stack()
    layer = layers.DepthwiseConv2D(1, data_format="channels_first", use_bias=False, name="first")
    moved = [layers.Permute((3, 1, 2)), layer, layers.Permute((2, 3, 1))]
    return keras.Sequential([keras.Input((8, 6, 2)), conv, *moved, *rest]), "first"


@pytest.mark.parametrize("make", [fixed_batch, nested, called_twice, channels_first])
@pytest.mark.parametrize("cls", BOTH)
def test_models_are_opened_as_they_are(cls, make):
    """Against the same layers as a plain model."""
    simple, x = plain(), naive.inputs((8, 6, 2))
    model, layer = make()
    weights = simple.get_weights()
    if make is channels_first:
        weights.insert(2, np.ones((1, 1, 3, 1)))
    model.set_weights(weights)
    expected = cls(relu=False)(simple, x, 1)
    explanation = cls(layer=layer, relu=False)(model, x, 1)
    naive.close(explanation.values, expected.values)
    naive.close(explanation.extras["map"], expected.extras["map"])


@pytest.mark.parametrize("cls", BOTH)
def test_the_map_lies_over_the_input_that_the_layer_sees(cls):
    """And that input alone is masked; the layer's own input is of another size than the first."""
    small, large = keras.Input((4, 3, 1), name="small"), keras.Input((8, 6, 2), name="large")
    seen = layers.Conv2D(3, 2, activation="softplus", name="seen")(large)
    other = layers.Flatten()(small)
    y = layers.Dense(4, name="scores")(layers.Concatenate()([other, layers.Flatten()(seen)]))
    model = naive.randomize(keras.Model([small, large], y))
    x = [naive.inputs((4, 3, 1)), naive.inputs((8, 6, 2))]
    explanation = cls(layer="seen", relu=False)(model, x, 1)
    assert explanation.values.shape == (3, 8, 6)
    kernel, bias = model.get_layer("scores").get_weights()
    stack = [layers.Conv2D(3, 2, activation="softplus", name="seen"), layers.Flatten()]
    alone = keras.Sequential([keras.Input((8, 6, 2)), *stack, layers.Dense(4, name="scores")])
    alone.set_weights([*model.get_layer("seen").get_weights(), kernel[12:], bias])
    naive.close(explanation.values, cls(relu=False)(alone, x[1], 1).values, 1e-4)


@pytest.mark.parametrize("cls", BOTH)
def test_the_sequence_of_a_text(cls):
    """Masks lie on the embeddings."""
    stack = [
        layers.Embedding(9, 4, name="words"),
        layers.Conv1D(5, 3, activation="softplus", name="conv"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(4),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((7,), dtype="int32"), *stack]))
    ids = np.random.default_rng(0).integers(0, 9, (3, 7))
    table = model.layers[0].get_weights()[0].astype(np.float64)
    net = naive.Net(model.layers[1:])
    options = {"start": table[2]} if cls is ScoreCAM else {}
    expected = by_definition(cls, net, table[ids], 1, "conv", **options)
    check(cls(relu=False, **({"baseline": 2} if options else {}))(model, ids, 1), expected, (7,))


@pytest.mark.parametrize("cls", BOTH)
def test_a_grid_of_tokens(cls):
    """The last 12 of 13 tokens; of a channel that is zero, the first one is too."""
    inputs = keras.Input((8, 6, 2))
    h = layers.Conv2D(5, 2, strides=2, activation="softplus")(inputs)
    h = layers.Reshape((12, 5))(h)
    h = layers.ZeroPadding1D((1, 0))(h)
    tokens = layers.Dense(5, activation="softplus", name="tokens")(h)
    outputs = layers.Dense(3)(layers.Flatten()(tokens))
    model = naive.randomize(keras.Model(inputs, outputs))
    x, before = naive.inputs((8, 6, 2)), keras.Model(inputs, tokens)
    after = keras.Model(tokens, outputs)
    a = before.predict(x, verbose=0)
    if cls is AblationCAM:
        maps = ablation_cam(lambda a: after.predict(a, verbose=0)[:, 1], a)
    else:
        grid = a[:, 1:].reshape(3, 4, 3, 5)
        maps = score_cam(lambda z: model.predict(z, verbose=0)[:, 1], grid, x)
    maps = maps[:, 1:].reshape(3, 4, 3) if cls is AblationCAM else maps
    check(cls(layer="tokens", reshape=(4, 3), relu=False)(model, x, 1), maps, (8, 6))


def test_what_leads_to_the_layer_is_not_computed_again():
    """A layer before it that counts its own calls: one for the score, one for all channels."""
    seen = []

    class Counting(layers.Layer):
        def call(self, x):
            import tensorflow as tf

            def note(value):
                seen.append(len(value))
                return value

            return tf.ensure_shape(tf.numpy_function(note, [x], x.dtype, stateful=False), x.shape)

    stack = [layers.Conv2D(5, 2, name="conv"), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 6, 2)), Counting(), *stack])
    explainer, x = AblationCAM(layer="conv", relu=False), naive.inputs((8, 6, 2), rows=2)
    explainer(model, x, 1, batch_size=2)
    seen.clear()
    explainer(model, x, 1, batch_size=2)
    assert seen == [2, 2]


# Bad input


@pytest.mark.parametrize("cls", BOTH)
def test_bad_configurations(cls):
    with pytest.raises(ValueError, match="`max_channels` to be a whole number of 1 or more"):
        cls(max_channels=0)
    with pytest.raises(ValueError, match="Expected `reshape` to be a grid"):
        cls(reshape=(0, 2))
    with pytest.raises(ValueError, match="spatial extent above 1"):
        cls(layer="scores")(naive.network(), naive.inputs((8, 6, 2)), 1)
    with pytest.raises(ValueError, match="layer whose output has a spatial extent"):
        cls()(naive.perceptron(), naive.inputs((5,)), 1)
    with pytest.raises(ValueError, match="can be a step of another one"):
        kx.SmoothGrad(explainer=cls())(naive.network(), naive.inputs((8, 6, 2)), 1)


def test_a_baseline_that_does_not_fit():
    with pytest.raises(ValueError, match="baseline of one sample's shape"):
        ScoreCAM(baseline=np.zeros((3, 3)))(naive.network(), naive.inputs((8, 6, 2)), 1)


@pytest.mark.parametrize("cls", BOTH)
def test_a_configuration_comes_back(cls):
    explainer = cls(layer="conv_b", max_channels=3)
    assert cls.from_config(explainer.get_config()) == explainer
