"""Where an input's channels are: found in the layers that it meets, never in its sizes."""

import dataclasses
import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.opened import OpenModel
from tests import check, naive

LAST, FIRST = "channels_last", "channels_first"


@pytest.fixture(params=[LAST, FIRST])
def configured(request):
    """Keras as it is configured, which must not matter where layers say it themselves."""
    keras.config.set_image_data_format(request.param)
    yield request.param
    keras.config.set_image_data_format(LAST)


def first(x):
    """Arrays `[B, ..., C]` as `[B, C, ...]`."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


# Twins: what is the same but for the layout is explained alike


def network(data_format, *shape):
    """Convolutions that end in one place, so that `Flatten` and averages are alike in twins."""
    convolution = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[len(shape) - 1]
    *sides, channels = shape
    options = {"data_format": data_format, "activation": "softplus"}
    x = keras.Input(shape if data_format == LAST else (channels, *sides))
    h = convolution(3, 3, padding="same", name="early", **options)(x)
    h = convolution(4, 3, padding="same", name="late", **options)(h)
    h = convolution(2, sides, name="whole", **options)(h)
    y = layers.Dense(4, name="head")(layers.Flatten(name="flat")(h))
    return naive.randomize(keras.Model(x, y))


CLASSES = np.array([[0, 1], [2, 3]])


@functools.cache
def twins(*shape):
    models = [network(data_format, *shape) for data_format in (LAST, FIRST)]
    x = naive.inputs(shape, rows=2) + 0.5
    return (models[0], x), (models[1], first(x))


def moved(value, rank):
    """Configurations with what is given like the input `[..., C]` in the other layout."""
    if isinstance(value, kx.Explainer | kx.baselines.Baseline | kx.features.Features):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return value.replace(**{name: moved(part, rank) for name, part in fields.items()})
    if isinstance(value, tuple):
        return tuple(moved(part, rank) for part in value)
    if isinstance(value, np.ndarray) and value.ndim >= rank - 1:
        return np.moveaxis(value, -1, value.ndim - rank + 1)
    return value


def assert_alike(explainer, *shape):
    """The values of the twins are those of each other."""
    (model, x), (twin, other) = twins(*shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is zero everywhere")
        expected = explainer(model, x, CLASSES)
        found = moved(explainer, x.ndim)(twin, other, CLASSES)
    values = found.values
    if values.ndim == x.ndim + 1:  # with the classes
        values = np.moveaxis(values, 2, -1)
    naive.close(values, expected.values, 1e-4)
    assert np.abs(expected.values).max() > 0
    assert (expected.channels, found.channels) == ((-1,), (1,))


GRADIENT = kx.IntegratedGradients(steps=3)
SENSITIVE = [
    kx.Saliency(),
    GRADIENT.replace(baseline=kx.baselines.Blur(1.5)),
    GRADIENT.replace(baseline=kx.baselines.Mean()),
    GRADIENT.replace(baseline=np.arange(7 * 6 * 3, dtype=np.float32).reshape(7, 6, 3) / 99),
    GRADIENT.replace(layer="early"),
    kx.BlurIG(steps=3, max_sigma=3.0),
    pytest.param(kx.SmoothGrad(samples=3), marks=pytest.mark.slow),
    kx.HiResCAM(),
    pytest.param(kx.HiResCAM(layer="early"), marks=pytest.mark.slow),
    kx.GuidedGradCAM(layer="early"),
    kx.ScoreCAM(layer="late"),
    pytest.param(kx.AblationCAM(layer="late", relu=False), marks=pytest.mark.slow),
    kx.Occlusion(patch=(3, 2)),
    kx.RISE(masks=20, cells=3),
    kx.FeatureAblation(features=kx.features.Patches(2)),
    kx.FeatureAblation(groups=np.arange(7 * 6 * 3).reshape(7, 6, 3) % 5),
    kx.FeatureAblation(groups=np.arange(7 * 6).reshape(7, 6) % 5),
    kx.ExtremalPerturbation(steps=5, cells=3),
    kx.XRAI(explainer=GRADIENT, min_size=1, scales=(50, 250)),
    kx.LRP(rules="epsilon_plus"),
    kx.LRP(rules="alpha2_beta1"),
]


@pytest.mark.parametrize("explainer", SENSITIVE, ids=repr)
def test_channels_first_pictures_are_explained_as_channels_last_ones(explainer):
    shape = (9, 8, 3) if isinstance(explainer, kx.XRAI) else (7, 6, 3)
    assert_alike(explainer, *shape)


@pytest.mark.parametrize(
    "shape", [(16, 14, 31), (31, 16, 14), (9, 8, 1), (16, 14), (5, 9), (4, 3, 5, 2)], ids=str
)
def test_sizes_do_not_matter(shape):
    if shape not in ((31, 16, 14), (5, 9)):
        assert_alike(kx.HiResCAM(layer="early"), *shape)
    if shape not in ((16, 14, 31), (9, 8, 1)):
        assert_alike(kx.FeatureAblation(features=kx.features.Grid(2)), *shape)


@pytest.mark.slow
@pytest.mark.parametrize("cls", check.explainer_classes(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("shape", [(9, 8, 3), (12, 10), (4, 3, 5, 2)], ids=str)
def test_every_explainer_takes_both(cls, shape):
    model, x = twins(*shape)[0]
    explainer = check.explainer_for(cls, x, model)
    refused = (cls in (kx.XRAI,) and len(shape) != 3) or cls is kx.CAM
    if refused:
        pytest.skip("Refused for either layout.")
    assert_alike(explainer, *shape)


# What the layers say


def subclassed(*inner):
    """A model whose call is raw operations, then layers."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = list(inner)
            self.head = layers.Dense(4)

        def call(self, x):
            x = ops.tanh(x / 2 + 0.1)
            for layer in self.inner:
                x = layer(x)
            return self.head(ops.reshape(x, (ops.shape(x)[0], int(np.prod(x.shape[1:])))))

    return Model()


def of(model, x):
    """The axes of the channels that an explanation of a model has."""
    return tuple(at.channels for at in Forward(OpenModel.of(model), x, kx.targets.Class()).layouts)


def found(x, *stack):
    """The same of a chain of layers."""
    if len(stack) == 1 and isinstance(stack[0], keras.Model):
        model = stack[0]
    else:
        model = keras.Sequential([keras.Input(x.shape[1:]), *stack])
        model = keras.Sequential([*model.layers, layers.Flatten(), layers.Dense(4)])
    model(x)
    return of(model, x)


def conv(data_format, rank=2):
    convolution = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    return convolution(2, 3, padding="same", data_format=data_format)


PICTURE = naive.inputs((12, 9, 10), rows=2)  # either of its ends may be channels
BEFORE = {
    "nothing": lambda: [],
    "rescaling": lambda: [layers.Rescaling(2.0)],
    "normalization": lambda: [layers.BatchNormalization(axis=1), layers.ReLU()],
    "dropout": lambda: [layers.Dropout(0.5), layers.GaussianNoise(1.0)],
    "activation": lambda: [layers.Activation("gelu"), layers.PReLU()],
    "nested": lambda: [keras.Sequential([keras.Input((12, 9, 10)), layers.LeakyReLU()])],
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("data_format", "axis"), [(FIRST, 1), (LAST, -1)])
def test_it_is_what_the_first_layer_with_a_say_says(before, data_format, axis, configured):
    assert found(PICTURE, *BEFORE[before](), conv(data_format)) == (axis,)


@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling2D,
        layers.ZeroPadding2D,
        layers.Cropping2D,
        layers.UpSampling2D,
        layers.RandomFlip,
        functools.partial(layers.SpatialDropout2D, 0.5),
        layers.GlobalAveragePooling2D,
    ],
)
def test_every_layer_of_pictures_has_a_say(layer, configured):
    assert found(PICTURE, layer(data_format=FIRST)) == (1,)


def test_models_of_all_kinds(configured):
    assert found(PICTURE, subclassed(conv(FIRST))) == (1,)
    assert found(PICTURE, subclassed(conv(LAST))) == (-1,)
    inner = keras.Sequential([keras.Input((12, 9, 10)), layers.Rescaling(2.0), conv(FIRST)])
    assert found(PICTURE, inner, layers.ReLU()) == (1,)
    x = keras.Input(batch_shape=(3, 12, 9, 10))
    fixed = keras.Model(x, layers.Dense(4)(layers.Flatten()(conv(FIRST)(x))))
    assert of(fixed, PICTURE) == (1,)


def test_volumes_and_films(configured):
    x = naive.inputs((4, 5, 6, 7), rows=2)
    assert found(x, conv(FIRST, 3)) == (1,)
    assert found(x, layers.TimeDistributed(conv(FIRST))) == (2,)
    assert found(x, layers.ConvLSTM2D(2, 3, data_format=FIRST)) == (2,)
    assert found(x, layers.ConvLSTM2D(2, 3, data_format=LAST)) == (-1,)


def test_series_and_pictures_without_channels(configured):
    x = naive.inputs((16, 14), rows=2)  # as of pictures
    assert found(x, conv(FIRST, 1)) == (1,)
    assert found(x, conv(LAST, 1)) == (-1,)
    assert found(x, layers.LSTM(3)) == (-1,)
    assert found(x, layers.Bidirectional(layers.GRU(3, return_sequences=True))) == (-1,)
    assert found(x, layers.Dense(3), layers.GlobalAveragePooling1D(data_format=LAST)) == (-1,)
    assert found(x, layers.Reshape((16, 14, 1)), conv(LAST)) == (None,)
    assert found(x, layers.Reshape((1, 16, 14)), conv(FIRST)) == (None,)
    assert found(x, layers.Flatten()) == (None,)  # nothing says, and pictures look so
    assert found(naive.inputs((40, 3), rows=2), layers.Reshape((40, 3, 1)), conv(LAST)) == (None,)


def test_what_arranges_axes_ends_the_search(configured):
    by_default = 1 if configured == FIRST else -1
    for layer in (layers.Permute((3, 1, 2)), layers.Reshape((9, 12, 10))):
        for data_format in (FIRST, LAST):
            assert found(PICTURE, layer, conv(data_format)) == (by_default,)


def test_layers_that_disagree_and_models_of_raw_operations(configured):
    x = keras.Input((12, 9, 10))
    ends = [layers.Flatten()(conv(data_format)(x)) for data_format in (FIRST, LAST)]
    model = keras.Model(x, layers.Dense(4)(layers.Concatenate()(ends)))
    by_default = 1 if configured == FIRST else -1
    assert of(model, PICTURE) == (by_default,)
    assert kx.Saliency()(model, PICTURE, 1, data_format=FIRST).channels == (1,)
    assert found(PICTURE, subclassed()) == (by_default,)


def test_inputs_of_different_layouts():
    inputs = [
        keras.Input((9, 8, 3)),
        keras.Input((3, 7, 6)),
        keras.Input((5,)),
        keras.Input((8, 9)),
    ]
    a, b, table, series = inputs
    ends = [conv(LAST)(a), conv(FIRST)(b), table, conv(FIRST, 1)(series)]
    y = layers.Dense(4)(layers.Concatenate()([layers.Flatten()(end) for end in ends]))
    model = naive.randomize(keras.Model(inputs, y))
    x = [naive.inputs(tensor.shape[1:], rows=2) for tensor in inputs]
    explanation = kx.FeatureAblation(features=[kx.features.Pixels(), None, None, None])(model, x, 1)
    assert explanation.channels == (-1, 1, None, 1)
    shapes = [leaf.shape for leaf in explanation.values]
    assert shapes == [(2, 9, 8), (2, 7, 6), (2, 5), (2, 9)]


# What the user says


def test_the_user_says_it():
    model = subclassed()
    model(PICTURE)
    for data_format, axis in ((LAST, -1), (FIRST, 1)):
        explanation = kx.Occlusion(patch=2)(model, PICTURE, 1, data_format=data_format)
        assert explanation.channels == (axis,)
        sides = tuple(n for i, n in enumerate(PICTURE.shape) if i != axis % 4)
        assert explanation.values.shape == sides


def test_the_callback_says_it():
    model, memory = subclassed(), kx.sinks.Memory()
    model(PICTURE)
    model.compile("sgd", "mse")
    logger = kx.callbacks.ExplanationLogger(
        kx.Occlusion(patch=3), PICTURE, sinks=[memory], data_format=FIRST
    )
    model.fit(PICTURE, np.zeros((2, 4)), epochs=1, verbose=0, callbacks=[logger])
    (record,) = memory.records
    assert record.explanation.channels == (1,)
    assert record.maps.shape == (2, 9, 10)
    assert record.pictures.shape == (2, 9, 10, 3)


def test_one_word_an_input():
    inputs = {"a": keras.Input((9, 8, 3), name="a"), "b": keras.Input((16, 14), name="b")}
    ends = [layers.Flatten()(tensor) for tensor in inputs.values()]
    model = naive.randomize(keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(ends))))
    x = {name: naive.inputs(tensor.shape[1:], rows=2) for name, tensor in inputs.items()}
    words = {"a": FIRST, "b": "no_channels"}
    assert kx.Saliency()(model, x, 1, data_format=words).channels == (1, None)
    words = {"a": None, "b": LAST}
    assert kx.Saliency()(model, x, 1, data_format=words).channels == (-1, -1)
    with pytest.raises(ValueError, match="Expected data formats by name, for the inputs 'a', 'b'"):
        kx.Saliency()(model, x, 1, data_format={"a": FIRST})
    with pytest.raises(ValueError, match="Expected `data_format` to be one of 'channels_last'"):
        kx.Saliency()(model, x, 1, data_format="NCHW")
    with pytest.raises(ValueError, match="one `data_format` for each of the 2 inputs"):
        kx.Saliency()(model, x, 1, data_format=[FIRST])


def test_xrai_needs_pictures():
    model = network(LAST, 16, 14)
    with pytest.raises(ValueError, match="layers take for series"):
        kx.XRAI(explainer=kx.Saliency())(model, naive.inputs((16, 14), rows=2), 1)


def test_it_is_kept_in_a_file(tmp_path):
    (_, _), (model, x) = twins(7, 6, 3)
    explanation = kx.Saliency()(model, x, 1)
    explanation.save(tmp_path / "saved.npz")
    assert kx.Explanation.load(tmp_path / "saved.npz").channels == (1,)
