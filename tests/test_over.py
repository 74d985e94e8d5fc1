"""Which input a layer's map lies over, and which call of a layer it is of."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_explain as kx
from keras_explain.callbacks.pictures import Pictures
from keras_explain.plots.explained import every_input
from tests import check, naive

pytestmark = pytest.mark.filterwarnings("ignore:.* is zero everywhere")  # a map may be

RGB, DEPTH = (12, 10, 3), (9, 8, 1)
MAPS = [
    kx.GradCAM,
    kx.HiResCAM,
    kx.EigenCAM,
    kx.ScoreCAM,
    kx.AblationCAM,
]


def tower(name):
    first = layers.Conv2D(3, 3, padding="same", activation="softplus", name=f"{name}_first")
    last = layers.Conv2D(4, 3, padding="same", activation="softplus", name=f"{name}_last")
    return lambda x: last(first(x))


@pytest.fixture(scope="module")
def two_pictures():
    """A network of a picture and its depths, which meet when both are averaged."""
    inputs = {"rgb": keras.Input(RGB, name="rgb"), "depth": keras.Input(DEPTH, name="depth")}
    ends = [layers.GlobalAveragePooling2D()(tower(name)(x)) for name, x in inputs.items()]
    model = keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(ends)))
    x = {name: naive.inputs(tensor.shape[1:], rows=2) for name, tensor in inputs.items()}
    return naive.randomize(model), x


@pytest.fixture(scope="module")
def siamese():
    """One encoder of two pictures, and its twin of a layer for each call."""
    x = keras.Input((12, 10, 2))
    conv = layers.Conv2D(4, 3, padding="same", activation="softplus", name="conv")
    encoder = keras.Model(x, layers.GlobalAveragePooling2D()(conv(x)), name="encoder")
    pair = [keras.Input((12, 10, 2)) for _ in range(2)]
    ends = [encoder(x) for x in pair]
    model = naive.randomize(keras.Model(pair, layers.Dense(4)(layers.Concatenate()(ends))))
    apart = [layers.Conv2D(4, 3, padding="same", activation="softplus") for _ in range(2)]
    ends = [layers.GlobalAveragePooling2D()(c(x)) for c, x in zip(apart, pair, strict=True)]
    twin = keras.Model(pair, layers.Dense(4)(layers.Concatenate()(ends)))
    for layer in apart:
        layer.set_weights(conv.get_weights())
    twin.layers[-1].set_weights(model.layers[-1].get_weights())
    x = [naive.inputs((12, 10, 2), rows=2, seed=seed) for seed in (0, 1)]
    return model, twin, [layer.name for layer in apart], x


# The record


@pytest.mark.parametrize("cls", MAPS)
@pytest.mark.parametrize(("name", "over"), [("depth", 0), ("rgb", 1)])  # by name, as they are kept
def test_a_map_lies_over_the_input_that_leads_to_its_layer(cls, name, over, two_pictures):
    model, x = two_pictures
    explanation = cls(layer=f"{name}_last")(model, x, 1)
    assert explanation.over == over
    assert explanation.values.shape == x[name].shape[:3]


@pytest.mark.parametrize("cls", [kx.Saliency, kx.LayerConductance, kx.InternalInfluence])
def test_so_do_values_at_a_layer(cls, two_pictures):
    model, x = two_pictures
    explanation = cls(layer="rgb_first")(model, x, 1)
    assert (explanation.over, explanation.layer_channels) == (1, -1)
    assert explanation.values.shape == (2, 12, 10, 3)


def test_values_of_inputs_lie_over_each(two_pictures):
    assert kx.Saliency()(*two_pictures, 1).over is None


def test_guided_grad_cam_is_of_the_input_below_the_map(two_pictures):
    model, x = two_pictures
    explanation = kx.GuidedGradCAM(layer="rgb_first")(model, x, 1)
    cam = kx.GradCAM(layer="rgb_first")(model, x, 1).values
    guided = kx.GuidedBackprop()(model, x, 1).values["rgb"]
    assert explanation.over == 1
    naive.close(explanation.values["rgb"], cam[..., None] * guided)
    assert not explanation.values["depth"].any()


def test_a_table_beside_a_series_is_not_what_its_map_lies_over():
    table, series = keras.Input((6,)), keras.Input((20, 3))
    scale = layers.Reshape((1, 4))(layers.Dense(4)(table))
    h = layers.Conv1D(4, 3, padding="same", activation="softplus")(series)
    h = layers.Multiply(name="scaled")([h, scale])
    y = layers.Dense(4)(layers.GlobalAveragePooling1D()(h))
    model = naive.randomize(keras.Model([table, series], y))
    x = [naive.inputs(shape, rows=2) for shape in ((6,), (20, 3))]
    explanation = kx.HiResCAM(layer="scaled")(model, x, 1)
    assert (explanation.over, explanation.values.shape) == (1, (2, 20))


def test_inputs_of_other_sizes_that_meet_before_the_layer_are_said():
    a, b = keras.Input((12, 10, 3)), keras.Input((6, 5, 3))
    joined = layers.Add()([layers.MaxPooling2D(2)(a), b])
    h = layers.Conv2D(4, 3, activation="softplus", name="fused")(joined)
    y = layers.Dense(4)(layers.GlobalAveragePooling2D()(h))
    model = naive.randomize(keras.Model([a, b], y))
    x = [naive.inputs(shape, rows=2) for shape in ((12, 10, 3), (6, 5, 3))]
    with pytest.warns(UserWarning, match=r"lies over the input '0'.*input '1' too"):
        assert kx.HiResCAM()(model, x, 1).over == 0


# The call


@pytest.mark.parametrize(
    "cls",
    check.first_of([kx.GradCAM, kx.GuidedGradCAM, kx.LayerConductance, kx.Saliency, *MAPS[1:]], 4),
)
@pytest.mark.parametrize("call", [0, 1])
def test_the_call_of_a_shared_layer(cls, call, siamese):
    model, twin, names, x = siamese
    found = cls(layer="encoder/conv", call=call)(model, x, 1)
    expected = cls(layer=names[call])(twin, x, 1)
    assert found.over == expected.over == call
    keras.tree.map_structure(lambda a, b: naive.close(a, b, 1e-4), found.values, expected.values)


def test_by_default_it_is_the_last_one_over_what_it_is_of(siamese):
    model, _, _, x = siamese
    found = kx.HiResCAM(layer="encoder/conv")(model, x, 1)
    assert found.over == 1
    naive.close(found.values, kx.HiResCAM(layer="encoder/conv", call=1)(model, x, 1).values, 1e-6)
    assert len(kx.Saliency(layer="encoder/conv")(model, x, 1).values) == 2


def test_a_neuron_of_a_call(siamese):
    model, _, _, x = siamese
    for call in (0, 1):
        target = kx.targets.Neuron("encoder/conv", 2, call=call)
        values = kx.Saliency(absolute=False)(model, x, target).values
        assert [bool(leaf.any()) for leaf in values] == [call == 0, call == 1]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_channel_of_a_layer_is_a_channel(data_format):
    first = data_format == "channels_first"
    x = keras.Input((2, 6, 5) if first else (6, 5, 2))
    conv = layers.Conv2D(4, 3, data_format=data_format, name="conv")
    model = naive.randomize(keras.Model(x, layers.Dense(3)(layers.Flatten()(conv(x)))))
    x = naive.inputs((2, 6, 5) if first else (6, 5, 2), rows=2)
    scores = kx.Saliency()(model, x, kx.targets.Neuron("conv", 3)).scores
    a = np.asarray(conv(x))
    naive.close(scores, a[:, 3].mean((1, 2)) if first else a[..., 3].mean((1, 2)))


def test_calls_that_there_are_not(siamese):
    model, _, _, x = siamese
    with pytest.raises(ValueError, match=r"`call` below 2.*'encoder/conv'.*call=2"):
        kx.GradCAM(layer="encoder/conv", call=2)(model, x, 1)
    with pytest.raises(ValueError, match=r"`call` below 2"):
        kx.IntegratedGradients(layer="encoder/conv", call=5)(model, x, 1)
    with pytest.raises(ValueError, match="the `layer` that is called"):
        kx.GradCAM(call=0)
    with pytest.raises(ValueError, match="`call` to be a whole number of 0 or more"):
        kx.Saliency(layer="conv", call=-1)


# Where it is drawn


@pytest.mark.parametrize("name", ["rgb", "depth"])
@pytest.mark.parametrize(
    "explainer", [kx.GradCAM, kx.GuidedGradCAM, kx.Saliency, kx.LayerConductance]
)
def test_it_is_drawn_over_that_input(explainer, name, two_pictures, tmp_path):
    model, x = two_pictures
    explanation = explainer(layer=f"{name}_last")(model, x, 1)
    explanation.save(tmp_path / "saved.npz")
    for one in (explanation, kx.Explanation.load(tmp_path / "saved.npz")):
        (drawn,) = every_input(one, 2, None)
        assert drawn.name == name
        np.testing.assert_array_equal(drawn.x, x[name])
        pictures, maps, *_ = Pictures(x, None).under(one)
        assert pictures.shape[:3] == maps.shape == x[name].shape[:3]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one.plot()


def test_pictures_of_channels_first_are_drawn_as_those_of_channels_last():
    """31 bands, and one: neither can be known by its size."""
    for shape in ((16, 14, 31), (16, 14, 3), (3, 12, 4)):
        drawn = []
        for data_format in ("channels_last", "channels_first"):
            first = data_format == "channels_first"
            x = keras.Input((shape[2], *shape[:2]) if first else shape)
            conv = layers.Conv2D(4, 3, padding="same", data_format=data_format, name="conv")
            y = layers.GlobalAveragePooling2D(data_format=data_format)(conv(x))
            model = naive.randomize(keras.Model(x, layers.Dense(4)(y)))
            x = naive.inputs(shape, rows=2)
            explanation = kx.InputXGradient()(model, np.moveaxis(x, -1, 1) if first else x, 1)
            (one,) = every_input(explanation, 2, None)
            pictures, maps, *_ = Pictures(explanation.x, None).under(explanation)
            drawn.append((one.x, one.values, one.maps, one.pictures(None), pictures, maps))
            explanation.plot()
        for a, b in zip(*drawn, strict=True):
            naive.close(a, b, 1e-5)


def test_two_pictures_are_drawn_below_each_other(two_pictures):
    figure = kx.Saliency()(*two_pictures, 1).plot()
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    said += [text.get_text() for text in figure.texts]
    assert {"rgb", "depth"} <= set(said)


@pytest.mark.parametrize(("where", "axis"), [("channels_first", 1), ("channels_last", -1)])
def test_values_at_a_layer_say_where_its_channels_are(where, axis):
    given = keras.Input((3, 6, 5) if axis == 1 else (6, 5, 3))
    h = keras.layers.Conv2D(2, 3, data_format=where, name="conv")(given)
    model = keras.Model(given, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    assert kx.InputXGradient(layer="conv")(model, x, 1).layer_channels == axis
