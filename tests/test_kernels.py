"""Products with constant kernels that move numbers are as good as a reshape, for every rule."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from tests import naive
from tests import naive_rules as nr

ORDER = np.random.default_rng(0).permutation(6)
LONG = np.random.default_rng(1).permutation(24)
KEPT = tf.constant(np.eye(24, dtype="float32")[LONG])
"""So many numbers that a traced function takes them for an input."""


def entries(shape, *places):
    """A kernel of ones at some places."""
    kernel = np.zeros(shape, "float32")
    kernel[tuple(np.transpose(places))] = 1
    return kernel


SHIFTS = entries((3, 2, 2), (0, 0, 1), (2, 1, 0))
NEIGHBOURS = entries((2, 2, 2, 2), (0, 0, 0, 0), (1, 1, 0, 1), (0, 1, 1, 0), (1, 0, 1, 1))
TO_FOUR = entries((2, 2, 2, 2), *((i, j, c, c) for i in (0, 1) for j in (0, 1) for c in (0, 1)))
TO_THREE = entries((4, 2, 2), *((i, c, c) for i in (1, 2, 3) for c in (0, 1)))
MASK = (np.arange(12) % 3 > 0).astype("float32").reshape(6, 2)


def patches(x):
    h = ops.reshape(x, (-1, 2, 2, 3, 2, 2))
    return ops.reshape(ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, 2, 3, 8))


def volumes(x):
    h = ops.reshape(x, (-1, 1, 2, 2, 2, 2, 2, 1))
    return ops.reshape(ops.transpose(h, (0, 1, 3, 5, 2, 4, 6, 7)), (-1, 1, 2, 2, 8))


def extracted(x, size, rate, padding):
    return tf.image.extract_patches(x, (1, size, size, 1), (1,) * 4, (1, rate, rate, 1), padding)


def neighbours(x):
    a, b = x[..., 0], x[..., 1]
    parts = [a[:, :-1, :-1], a[:, 1:, 1:], b[:, :-1, 1:], b[:, 1:, :-1]]
    return ops.stack(parts, axis=-1)


def masked(x):
    places = np.where(MASK.ravel() > 0, np.arange(12), 12)
    return ops.take(ops.pad(ops.reshape(x, (-1, 12)), ((0, 0), (0, 1))), places, axis=1)


def flat(x):
    return ops.reshape(x, (-1, 24))


FORMS = {
    "patches": (nr.PICTURE, lambda x: ops.image.extract_patches(x, 2), patches),
    "overlapping patches": (
        nr.PICTURE,
        lambda x: ops.image.extract_patches(x, 3, strides=1, padding="same"),
        lambda x: extracted(x, 3, 1, "SAME"),
    ),
    "dilated patches": (
        nr.PICTURE,
        lambda x: ops.image.extract_patches(x, 2, strides=1, dilation_rate=2),
        lambda x: extracted(x, 2, 2, "VALID"),
    ),
    "patches of volumes": (
        (2, 4, 4, 1),
        lambda x: ops.image.extract_patches_3d(x, 2),
        volumes,
    ),
    "one-hot rows": (
        (4, 3),
        lambda x: ops.matmul(ops.one_hot(np.array([3, 1, 1, 0]), 4), x),
        lambda x: ops.take(x, np.array([3, 1, 1, 0]), axis=1),
    ),
    "permutation": (
        nr.SERIES,
        lambda x: ops.einsum("...tc,ts->...sc", x, np.eye(6, dtype="float32")[ORDER]),
        lambda x: ops.take(x, np.argsort(ORDER), axis=1),
    ),
    "kept by the layer": (
        (4, 3, 2),
        lambda x: ops.matmul(flat(x), KEPT),
        lambda x: ops.take(flat(x), np.argsort(LONG), axis=1),
    ),
    "shifts": (
        nr.SERIES,
        lambda x: ops.conv(x, SHIFTS),
        lambda x: ops.stack([x[:, 2:, 1], x[:, :-2, 0]], axis=-1),
    ),
    "neighbours": (nr.PICTURE, lambda x: ops.depthwise_conv(x, NEIGHBOURS), neighbours),
    "each to four": (
        (2, 3, 2),
        lambda x: ops.conv_transpose(x, TO_FOUR, strides=2),
        lambda x: ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2),
    ),
    "each to three": (  # by a kernel that is no multiple of the strides
        nr.SERIES,
        lambda x: ops.conv_transpose(x, TO_THREE, strides=3),
        lambda x: ops.pad(ops.repeat(x, 3, axis=1), ((0, 0), (1, 0), (0, 0))),
    ),
    "mask": (nr.SERIES, lambda x: ops.reshape(x * MASK, (-1, 12)), masked),
    "means": (
        nr.PICTURE,
        lambda x: ops.depthwise_conv(x, ops.full((2, 2, 2, 1), 0.25)),
        lambda x: ops.average_pool(x, 2, strides=1),
    ),
    "one mean": (
        nr.SERIES,
        lambda x: ops.einsum("btc,t->bc", x, ops.ones((6,)) / 6),
        lambda x: ops.mean(x, axis=1),
    ),
}
if not hasattr(ops.image, "extract_patches_3d"):  # before Keras 3.13
    del FORMS["patches of volumes"]


def at_first(form):
    """Before the first learned layer."""
    return lambda x: layers.Dense(3, activation="relu")(layers.Lambda(form)(x))


def between(form):
    """Between a learned layer and an activation."""
    return lambda x: layers.Dense(3)(
        layers.Activation("tanh")(layers.Lambda(form)(layers.Dense(x.shape[-1])(x)))
    )


def of_a_gate(form):
    def gated(x):
        gate = layers.Lambda(form)(layers.Dense(2, activation="sigmoid")(x))
        return layers.Multiply()([layers.Dense(2)(x), gate])

    return gated


@functools.cache
def models(place, names):
    """The same function by products with constant kernels, and by operations that move numbers."""
    found = []
    for i in (1, 2):
        kinds = {name: (FORMS[name][0], place(FORMS[name][i])) for name in names}
        kinds["gate"] = (nr.SERIES, of_a_gate(FORMS["permutation"][i]))
        found.append(nr.branches(kinds))
    return (*found, kinds)


BOX = at_first, kx.LRP(rules=kx.rules.epsilon_gamma_box(low=-4, high=4))
REVEAL_CANCEL = between, kx.DeepLIFT(baseline=0.3, rule="reveal_cancel")
SOME = ("permutation", "each to four", "mask", "means")


@pytest.mark.parametrize(
    ("place", "explainer", "names"),
    [
        pytest.param(*BOX, SOME, id="some-box"),
        pytest.param(*BOX, tuple(FORMS), id="box", marks=pytest.mark.slow),
        pytest.param(*REVEAL_CANCEL, SOME[1:3], id="some-reveal-cancel", marks=pytest.mark.slow),
        pytest.param(*REVEAL_CANCEL, tuple(FORMS), id="reveal-cancel", marks=pytest.mark.slow),
    ],
)
def test_a_product_that_moves_numbers_is_as_good_as_a_reshape(place, explainer, names):
    products, moves, kinds = models(place, names)
    for one, two in zip(products.features(products.x), moves.features(products.x), strict=True):
        naive.close(one, two)
    each = [explainer(found.model, products.x, 1).values for found in (products, moves)]
    for name, value, wanted in zip(kinds, *each, strict=True):
        assert wanted.any(), name
        naive.close(value, wanted, 1e-4)


def test_the_first_layer_behind_patches_is_the_first():
    stack = [layers.Lambda(lambda x: ops.image.extract_patches(x, 2)), layers.Dense(3, name="one")]
    model = keras.Sequential([keras.Input(nr.PICTURE), *stack, layers.Flatten(), layers.Dense(3)])
    x = naive.inputs(nr.PICTURE)
    nr.with_weights(model)
    first, named = (kx.LRP(rules=[(where, kx.rules.Flat())]) for where in ("first", "one"))
    naive.close(first(model, x, 1).values, named(model, x, 1).values)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_constant_kernel_of_both_signs_is_a_weighted_sum(sign):
    """As that of a cosine transform: its rule is the layer's."""
    kernel = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    kernel = kernel if sign < 0 else np.abs(kernel)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Lambda(lambda x: ops.matmul(x, kernel)), layers.Dense(3)]
    )
    x = naive.inputs((6,))
    nr.with_weights(model)
    flat_first, plain = (
        kx.LRP(rules=rules)(model, x, 1).values
        for rules in ([("first", kx.rules.Flat())], "epsilon")
    )
    is_first = np.abs(flat_first[:, :1] - flat_first).max() < 1e-6
    assert is_first == (sign < 0)
    assert np.abs(flat_first - plain).max() > 1e-3
