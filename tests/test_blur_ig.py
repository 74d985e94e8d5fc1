"""Blur Integrated Gradients against the paper's path integral in float64, and its axioms."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.explainers.blur_ig import blurred
from tests import naive

CLASSES = np.array([0, 3, 1])
SMOOTH = {
    "picture": {},
    "series": {"shape": (9, 2)},
    "volume": {"shape": (5, 4, 4, 1)},
}


def naive_blur(x, sigma, axes=None):
    """Each element as the Gaussian mean of those on a line with it, axis after axis."""
    x = np.array(x, np.float64)
    for axis in range(1, x.ndim - 1) if axes is None else axes:
        lines, means = np.moveaxis(x, axis, 0), []
        for i in range(len(lines)):
            distance = np.arange(len(lines)) - i
            weights = np.exp(-(distance**2) / (2 * sigma**2)) if sigma else distance == 0
            means.append(np.tensordot(weights / weights.sum(), lines, 1))
        x = np.moveaxis(np.array(means), 0, axis)
    return x


def naive_blur_ig(net, x, target, steps, max_sigma, axes=None):
    """The sum over the pieces of the path, whose ends are the sums of the rule's weights."""
    nodes, weights = naive.gauss_legendre(steps)
    nodes, weights = nodes[::-1], weights[::-1]  # from 0 to 1
    ends = np.concatenate([[0], np.cumsum(weights)])
    ends[-1] = 1

    def at(a):
        return naive_blur(x, max_sigma * (1 - a) ** 2, axes)

    moves = [at(b) - at(a) for a, b in itertools.pairwise(ends)]
    return sum(net.gradient(at(a), target) * move for a, move in zip(nodes, moves, strict=True))


def integral(net, x, target, max_sigma, pieces=800):
    """The paper's equation: the blur's standard deviation falls evenly; ends count half."""
    path = [naive_blur(x, max_sigma * (1 - i / pieces)) for i in range(pieces + 1)]
    slopes = [net.gradient(point, target) for point in path]
    return sum((slopes[i] + slopes[i + 1]) / 2 * (path[i + 1] - path[i]) for i in range(pieces))


def total(values):
    return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)


@pytest.fixture(scope="module")
def picture():
    model = naive.network()
    return model, naive.Net([model]), naive.inputs((8, 6, 2))


# The blur


@pytest.mark.parametrize("shape", [(7,), (7, 2), (6, 5, 2), (4, 3, 5, 2)])
def test_the_blur_is_a_mean_with_gaussian_weights(shape):
    x, axes = naive.inputs(shape), tuple(range(1, max(2, len(shape))))
    for sigma in (0.3, 1.5, 20.0):
        received = blurred(ops.convert_to_tensor(x), ops.full((1,), sigma), axes)
        naive.close(received, naive_blur(x, sigma, axes), 1e-6)


def test_each_row_is_blurred_by_its_own_sigma():
    x = naive.inputs((6, 5, 2))
    sigmas = [0.0, 0.7, 30.0]
    received = blurred(ops.convert_to_tensor(x), ops.convert_to_tensor(sigmas), (1, 2))
    expected = [naive_blur(x[i : i + 1], sigma)[0] for i, sigma in enumerate(sigmas)]
    naive.close(received, expected, 1e-6)
    np.testing.assert_array_equal(received[0], x[0])


# The integral


@pytest.mark.parametrize("options", SMOOTH.values(), ids=SMOOTH)
def test_it_is_the_sum_over_the_pieces_of_the_path(options):
    model = naive.network(**options)
    net, x = naive.Net([model]), naive.inputs(model.input_shape[1:])
    explanation = kx.BlurIG(steps=7, max_sigma=3.0)(model, x, CLASSES, batch_size=5)
    naive.close(explanation.values, naive_blur_ig(net, x, CLASSES, 7, 3.0))
    naive.close(explanation.scores, net.score(x, CLASSES))
    naive.close(explanation.extras["base_values"], net.score(naive_blur(x, 3.0), CLASSES))


def test_it_is_the_papers_integral():
    model = naive.network((9, 2))
    net, x = naive.Net([model]), naive.inputs((9, 2))
    values = kx.BlurIG(max_sigma=5.0)(model, x, CLASSES).values
    naive.close(values, integral(net, x, CLASSES, 5.0), 1e-3)


def test_the_values_sum_to_the_change_of_the_score(picture):
    model, net, x = picture
    few, many = (kx.BlurIG(steps=n, max_sigma=4.0)(model, x, CLASSES) for n in (2, 50))
    change = net.score(x, CLASSES) - net.score(naive_blur(x, 4.0), CLASSES)
    naive.close(total(many.values), change, 5e-3)
    assert np.abs(many.extras["convergence_delta"]).max() < 5e-3 * np.abs(change).max()
    gap = total(few.values) - change
    assert np.abs(gap).max() > 0.02 * np.abs(change).max()
    np.testing.assert_allclose(few.extras["convergence_delta"], gap, atol=1e-5)


def test_a_linear_model_is_its_weights_times_the_change():
    stack = [layers.Flatten(), layers.Dense(3)]
    model = naive.randomize(keras.Sequential([keras.Input((6, 5, 2)), *stack]))
    x = naive.inputs((6, 5, 2))
    explanation = kx.BlurIG(steps=3, max_sigma=4.0)(model, x, 2)
    kernel = model.get_weights()[0][:, 2].reshape(6, 5, 2)
    naive.close(explanation.values, (x - naive_blur(x, 4.0)) * kernel)
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-5)


def test_a_picture_that_is_even_has_nothing_to_attribute(picture):
    model, _, x = picture
    even = np.ones_like(x) * np.array([2.0, -1.0], np.float32)
    assert np.abs(kx.BlurIG(steps=3)(model, even, 1).values).max() < 1e-5


def test_many_classes_at_once(picture):
    model, net, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = kx.BlurIG(steps=4, max_sigma=2.0)(model, x, many)
    for k in range(2):
        naive.close(explanation.values[:, k], naive_blur_ig(net, x, many[:, k], 4, 2.0))
    assert explanation.extras["convergence_delta"].shape == (3, 2)


def test_several_inputs_are_blurred_together():
    a, b = keras.Input((5, 2), name="a"), keras.Input((4, 1), name="b")
    head = [layers.Dense(6, activation="tanh"), layers.Dense(3)]
    flat = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    model = naive.randomize(keras.Model({"a": a, "b": b}, head[1](head[0](flat))))
    net, xa, xb = naive.Net(head), naive.inputs((5, 2)), naive.inputs((4, 1), seed=1)

    def joined(sigma):
        parts = (naive_blur(x, sigma).reshape(3, -1) for x in (xa, xb))
        return np.concatenate(list(parts), axis=1)

    explanation = kx.BlurIG(steps=40, max_sigma=3.0)(model, {"a": xa, "b": xb}, 1)
    base = net.score(joined(3.0), 1)
    naive.close(explanation.extras["base_values"], base)
    of_both = total(explanation.values["a"]) + total(explanation.values["b"])
    naive.close(of_both, net.score(joined(0), 1) - base, 1e-3)
    assert explanation.values["a"].any()
    assert explanation.values["b"].any()


# Axes


def flat_model(shape):
    stack = [layers.Flatten(), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    return naive.randomize(keras.Sequential([keras.Input(shape), *stack]))


@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_given_axes_are_blurred(axes):
    model, x = flat_model((7, 6)), naive.inputs((7, 6))
    values = kx.BlurIG(steps=5, max_sigma=2.0, axes=axes)(model, x, 1).values
    naive.close(values, naive_blur_ig(naive.Net([model]), x, 1, 5, 2.0, axes))


def test_channels_first_pictures_keep_their_channels_apart():
    model, x = flat_model((2, 7, 6)), naive.inputs((2, 7, 6))
    keras.config.set_image_data_format("channels_first")
    try:
        values = kx.BlurIG(steps=5, max_sigma=2.0)(model, x, 1).values
    finally:
        keras.config.set_image_data_format("channels_last")
    naive.close(values, naive_blur_ig(naive.Net([model]), x, 1, 5, 2.0, axes=(2, 3)))


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "`steps` to be a whole number of 1 or more"),
        ({"max_sigma": 0}, "`max_sigma` above 0"),
        ({"max_sigma": -1.0}, "`max_sigma` to be a number of 0 or more"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        kx.BlurIG(**options)


def test_a_table_can_not_be_blurred():
    words = r"Expected inputs with spatial axes .* x of shape \(3, 5\) and axes=None"
    with pytest.raises(ValueError, match=words):
        kx.BlurIG()(naive.perceptron(), naive.inputs((5,)), 1)


@pytest.mark.parametrize("axes", [(0,), (1, 4)])
def test_axes_that_there_are_not(picture, axes):
    model, _, x = picture
    with pytest.raises(ValueError, match=r"spatial axes .* axes=\("):
        kx.BlurIG(axes=axes)(model, x, 1)


def test_token_ids_can_not_be_blurred():
    stack = [layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,), dtype="int32"), *stack])
    ids = np.ones((2, 4), "int32")
    with pytest.raises(ValueError, match=r"can be blurred.* Received: token ids"):
        kx.BlurIG(axes=(1,))(model, ids, 1)
