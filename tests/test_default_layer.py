"""The layer that class activation maps take by default: one that all paths to the score cross."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from tests import naive

PICTURE = (8, 6, 2)
MAPS = [kx.GradCAM, kx.HiResCAM, kx.EigenCAM, kx.ScoreCAM, kx.AblationCAM, kx.GuidedGradCAM]


def conv(name, **options):
    options = {"padding": "same", "activation": "softplus", "name": name} | options
    return layers.Conv2D(3, 3, **options)


def pooled(*maps):
    """Scores of maps that are averaged apart."""
    means = [layers.GlobalAveragePooling2D()(h) for h in maps]
    return layers.Dense(4)(layers.Concatenate()(means) if len(means) > 1 else means[0])


def beside(first, last):
    """Scores of maps of two networks, the first of which is run earlier."""
    means = [layers.GlobalAveragePooling2D()(h) for h in (first, last)]
    return layers.Dense(4)(layers.Concatenate()([layers.Dense(3)(means[0]), means[1]]))


def branches(x):
    """What follows a stem is averaged apart, the one branch later than the other."""
    h = conv("stem")(x)
    return pooled(conv("left")(h), conv("right", strides=2)(h))


def inception(x):
    """Behind the last layer with a map, the branches' maps are of one place."""
    h = layers.Concatenate(name="mixed")([conv("a")(x), conv("b")(x)])
    narrow = conv("narrow")(h)
    small = [conv("c", strides=8)(narrow), layers.AveragePooling2D((8, 6))(h)]
    return layers.Dense(4)(layers.Flatten()(layers.Concatenate()(small)))


def residual(x):
    h = conv("stem")(x)
    return pooled(layers.Add(name="sum")([h, conv("branch")(h)]))


def squeeze_excite(x):
    h = conv("stem")(x)
    weight = layers.Dense(3)(layers.GlobalAveragePooling2D(keepdims=True)(h))
    return pooled(layers.Multiply(name="weighted")([h, weight]))


def dense(x):
    h = x
    for name in ("first", "second"):
        h = layers.Concatenate(name=f"{name}_joined")([h, conv(name)(h)])
    return pooled(layers.Activation("relu", name="end")(h))


def skipped(x):
    """Deep supervision: the first layer's map is read beside the last one's."""
    h = conv("early")(x)
    return pooled(h, conv("later")(conv("middle")(h)))


MODELS = {
    branches: "stem",
    inception: "mixed",
    residual: "sum",
    squeeze_excite: "weighted",
    dense: "end",
    skipped: "early",
}


def towers(x):
    """Two networks side by side, behind what only scales the input."""
    h = layers.Rescaling(0.5, name="scaled")(x)
    return beside(conv("left")(h), conv("right")(h))


def model_of(make, shape=PICTURE):
    x = keras.Input(shape)
    return naive.randomize(keras.Model(x, make(x)))


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_all_paths_cross_it(make):
    model, x = model_of(make), naive.inputs(PICTURE)
    expected = kx.HiResCAM(layer=MODELS[make])(model, x, 1)
    naive.close(kx.HiResCAM()(model, x, 1).values, expected.values, 1e-6)


@pytest.mark.parametrize("cls", MAPS)
def test_every_map_takes_the_same(cls):
    model, x = model_of(branches), naive.inputs(PICTURE)
    expected = cls(layer="stem")(model, x, 1)
    naive.close(cls()(model, x, 1).values, expected.values, 1e-6)


def test_where_there_is_none_the_last_one_is_taken_and_said():
    model, x = model_of(towers), naive.inputs(PICTURE)
    with pytest.warns(UserWarning, match=re.escape("map is of 'right'")) as caught:
        found, _ = (kx.HiResCAM()(model, x, target) for target in (1, 2))
    assert len(caught) == 1
    naive.close(found.values, kx.HiResCAM(layer="right")(model, x, 1).values, 1e-6)


def test_a_layer_that_is_asked_for_is_never_warned_of():
    model, x = model_of(towers), naive.inputs(PICTURE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kx.HiResCAM(layer="right")(model, x, 1)


@pytest.mark.parametrize("loop", [layers.LSTM, layers.GRU])
def test_a_path_through_a_loop_counts(loop):
    x = keras.Input((9, 2))
    h = layers.Conv1D(3, 3, activation="tanh", name="both")(x)
    late = layers.Conv1D(3, 3, activation="tanh", name="late")(h)
    joined = layers.Concatenate()([loop(3)(h), layers.GlobalAveragePooling1D()(late)])
    model, x = naive.randomize(keras.Model(x, layers.Dense(4)(joined))), naive.inputs((9, 2))
    expected = kx.HiResCAM(layer="both")(model, x, 1)
    naive.close(kx.HiResCAM()(model, x, 1).values, expected.values, 1e-6)


def test_a_mask_is_no_path():
    x = keras.Input((9, 2))
    h = layers.Dense(3, activation="tanh", name="last")(layers.Masking()(x))
    y = layers.Dense(4)(layers.GlobalAveragePooling1D()(h))
    model, x = naive.randomize(keras.Model(x, y)), naive.inputs((9, 2))
    expected = kx.HiResCAM(layer="last")(model, x, 1)
    naive.close(kx.HiResCAM()(model, x, 1).values, expected.values, 1e-6)


def test_of_two_inputs_the_one_that_it_lies_over_counts():
    first, second = keras.Input(PICTURE), keras.Input(PICTURE)
    y = beside(conv("a")(first), conv("b")(second))
    model, x = naive.randomize(keras.Model([first, second], y)), naive.inputs(PICTURE)
    found = kx.HiResCAM()(model, [x, x[::-1]], 1)
    naive.close(found.values, kx.HiResCAM(layer="b")(model, [x, x[::-1]], 1).values, 1e-6)


def test_what_stems_from_no_input_is_no_map_of_it():
    """A learned map that is added at the end, as positional embeddings are."""

    class Learned(layers.Layer):
        def build(self, shape):
            self.map = self.add_weight(shape=(1, 8, 6, 3))

        def call(self, x):
            return ops.sum(x * layers.Activation("tanh")(self.map), axis=(1, 2))

    x = keras.Input(PICTURE)
    h = conv("last")(x)
    model, x = naive.randomize(keras.Model(x, layers.Dense(4)(Learned()(h)))), naive.inputs(PICTURE)
    expected = kx.HiResCAM(layer="last")(model, x, 1)
    naive.close(kx.HiResCAM()(model, x, 1).values, expected.values, 1e-6)


def test_tokens():
    x = keras.Input((8, 12, 2))
    h = layers.Reshape((6, 8), name="tokens")(layers.Conv2D(8, 4, strides=4)(x))
    ends = [layers.Dense(4, activation="tanh", name=name)(h) for name in ("left", "right")]
    means = [layers.GlobalAveragePooling1D()(end) for end in ends]
    y = layers.Dense(4)(layers.Concatenate()(means))
    model, x = naive.randomize(keras.Model(x, y)), naive.inputs((8, 12, 2))
    expected = kx.HiResCAM(layer="tokens", reshape=(2, 3))(model, x, 1)
    naive.close(kx.HiResCAM(reshape=(2, 3))(model, x, 1).values, expected.values, 1e-6)


def test_single_tokens_that_meet_on_the_way():
    """As in a score of two of them: before, no token has spoken for another one."""
    x = keras.Input((6, 4))
    first = layers.Dense(3, activation="tanh", name="first")(x)
    h = layers.Dense(3, activation="tanh", name="last")(first)
    product = ops.einsum("nic,njc->nij", h[:, :1], h[:, 1:2])
    y = layers.Dense(4)(layers.Flatten()(product))
    model, x = naive.randomize(keras.Model(x, y)), naive.inputs((6, 4))
    expected = kx.HiResCAM(layer="last", reshape=(2, 3))(model, x, 1)
    naive.close(kx.HiResCAM(reshape=(2, 3))(model, x, 1).values, expected.values, 1e-6)


def test_a_score_beside_which_nothing_leads():
    """Of a network without branches, it is the last layer, as ever."""
    model, x = model_of(lambda x: pooled(conv("b")(conv("a")(x)))), naive.inputs(PICTURE)
    naive.close(kx.HiResCAM()(model, x, 1).values, kx.HiResCAM(layer="b")(model, x, 1).values, 1e-6)
    assert np.abs(kx.HiResCAM()(model, x, 1).values).max() > 0
