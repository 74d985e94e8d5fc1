"""Baselines: their values, and that each sample gets its own."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import ndimage

import keras_explain as kx
from keras_explain import baselines
from tests import naive

SHAPE = (7, 5, 2)


def values(baseline, x, row=None):
    row = np.arange(len(x)) if row is None else row
    made = baselines.get(baseline)(ops.convert_to_tensor(x), ops.convert_to_tensor(row))
    return ops.convert_to_numpy(ops.broadcast_to(made, x.shape))


# The objects


def test_zeros_and_constants():
    x = naive.inputs(SHAPE)
    assert not values(baselines.Zeros(), x).any()
    np.testing.assert_array_equal(values(baselines.Constant(-1.5), x), np.full_like(x, -1.5))


def test_a_number_and_an_array_become_objects():
    assert baselines.get(0.0) == baselines.get(0) == baselines.Zeros()
    assert baselines.get(2) == baselines.Constant(2.0)
    assert baselines.get(np.float32(2)) == baselines.Constant(2.0)
    one = naive.inputs(SHAPE)[0]
    assert baselines.get(one) == baselines.Given(one)
    assert baselines.get(baselines.Blur(3.0)) == baselines.Blur(3.0)


def test_one_sample_serves_every_row():
    x, one = naive.inputs(SHAPE), naive.inputs(SHAPE, seed=1)[0]
    np.testing.assert_array_equal(values(one, x), np.stack([one] * 3))
    np.testing.assert_array_equal(values(one[None], x), np.stack([one] * 3))


def test_one_sample_a_row_is_taken_by_the_rows_position():
    x, own = naive.inputs(SHAPE, rows=4), naive.inputs(SHAPE, rows=6, seed=1)
    row = np.array([5, 0, 3, 3])
    np.testing.assert_array_equal(values(own, x, row), own[row])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_the_mean_of_data(dtype):
    data = np.random.default_rng(0).uniform(0, 255, (50, *SHAPE)).astype(dtype)
    x = naive.inputs(SHAPE)
    naive.close(values(baselines.Mean(data), x), np.stack([data.mean(axis=0)] * 3), 1e-6)


def test_the_mean_of_many_large_numbers_keeps_its_digits():
    data = np.full((50_000, 3), 1000.1, np.float32)  # summed in float32, 0.1 off
    made = values(baselines.Mean(data), np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(made, np.float32(1000.1), rtol=1e-7)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("shape", [(9, 2), (7, 5, 2), (5, 4, 3, 1), (1, 6, 3)], ids=str)
def test_a_blur_is_a_gaussian_along_the_spatial_axes(shape, sigma):
    x = naive.inputs(shape)
    sigmas = (0, *(sigma for _ in shape[:-1]), 0)
    expected = ndimage.gaussian_filter(x.astype(np.float64), sigmas, mode="nearest")
    naive.close(values(baselines.Blur(sigma), x), expected, 1e-5)


def test_a_blur_in_known_numbers():
    """Of a step, the cumulated Gaussian; of a flat picture, itself."""
    x = np.repeat(np.array([0, 1], np.float32), 20).reshape(1, 40, 1)
    taps = np.exp(-0.5 * (np.arange(-12, 13) / 3.0) ** 2)  # 4 sigma to either side
    edge = np.cumsum(taps / taps.sum())[11:13]  # the two pixels beside the step
    naive.close(values(baselines.Blur(3.0), x)[0, 19:21, 0], edge, 1e-5)
    flat = np.full((1, 6, 5, 2), 0.7, np.float32)
    naive.close(values(baselines.Blur(3.0), flat), flat, 1e-6)


def test_each_channel_and_each_sample_is_blurred_alone():
    x = naive.inputs(SHAPE)
    x[1:], x[..., 1] = 0, 0
    blurred = values(baselines.Blur(2.0), x)
    assert not blurred[1:].any()
    assert not blurred[..., 1].any()
    assert (blurred[0, ..., 0] != 0).all()


# In an explainer. For a linear model the values are the weights times (x - baseline).


@pytest.fixture(scope="module")
def linear():
    stack = [layers.Flatten(), layers.Dense(3)]
    model = naive.randomize(keras.Sequential([keras.Input(SHAPE), *stack]))
    return model, model.get_weights()[0].reshape(*SHAPE, 3)


def check(linear, baseline, start, x, target=1, **options):
    model, kernel = linear
    explanation = kx.IntegratedGradients(steps=2, baseline=baseline)(model, x, target, **options)
    naive.close(explanation.values, kernel[..., target] * (x - start))
    base = naive.Net([model]).score(np.broadcast_to(start, x.shape), target)
    naive.close(explanation.extras["base_values"], base)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_each_row_has_its_own_baseline_in_small_batches(linear, batch_size):
    x, own = naive.inputs(SHAPE, rows=5), naive.inputs(SHAPE, rows=5, seed=1)
    check(linear, own, own, x, batch_size=batch_size)
    check(linear, baselines.Given(own), own, x, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_each_row_has_its_own_baseline_for_every_class(linear, batch_size):
    model, kernel = linear
    x, own = naive.inputs(SHAPE, rows=5), naive.inputs(SHAPE, rows=5, seed=1)
    many = np.array([[0, 1], [2, 2], [1, 0], [0, 2], [1, 1]])
    explainer = kx.IntegratedGradients(steps=2, baseline=own)
    explanation = explainer(model, x, many, batch_size=batch_size)
    change = (x - own)[:, None]
    naive.close(explanation.values, np.moveaxis(kernel[..., many], (3, 4), (0, 1)) * change)
    base = np.take_along_axis(naive.Net([model]).scores(own), many, axis=1)
    naive.close(explanation.extras["base_values"], base)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_every_kind_of_baseline(linear, batch_size):
    x, data = naive.inputs(SHAPE), naive.inputs(SHAPE, rows=9, seed=1)
    blurred = ndimage.gaussian_filter(x.astype(np.float64), (0, 2, 2, 0), mode="nearest")
    for baseline, start in [
        (0, 0.0),
        (-0.5, -0.5),
        (baselines.Zeros(), 0.0),
        (baselines.Constant(3.0), 3.0),
        (data[0], data[0]),
        (data[:1], data[0]),
        (baselines.Mean(data), data.mean(axis=0, dtype=np.float64)),
        (baselines.Blur(2.0), blurred),
    ]:
        check(linear, baseline, start, x, batch_size=batch_size)


def test_two_arrays_of_one_shape_do_not_share_a_compiled_value(linear):
    x = naive.inputs(SHAPE)
    for seed in (1, 2):
        own = naive.inputs(SHAPE, seed=seed)
        check(linear, own, own, x)


def test_two_numbers_do_not_share_a_compiled_value(linear):
    for number in (0.25, 0.5, 0.0):
        check(linear, number, number, naive.inputs(SHAPE))


def test_the_users_array_may_change_afterwards(linear):
    x, own = naive.inputs(SHAPE), naive.inputs(SHAPE, seed=1)
    kept, explainer = own.copy(), kx.IntegratedGradients(steps=2, baseline=own)
    own[:] = 99
    naive.close(explainer(linear[0], x, 1).values, linear[1][..., 1] * (x - kept))


def test_fractions_for_integer_pictures(linear):
    x = np.random.default_rng(0).integers(0, 9, (3, *SHAPE)).astype(np.uint8)
    data = naive.inputs(SHAPE, rows=4, seed=1)
    check(linear, baselines.Mean(data), data.mean(axis=0, dtype=np.float64), x)
    blurred = ndimage.gaussian_filter(x.astype(np.float64), (0, 2, 2, 0), mode="nearest")
    check(linear, baselines.Blur(2.0), blurred, x)


@pytest.fixture(scope="module")
def two_inputs():
    """Linear in a picture `b` and a vector `a`."""
    a, b = keras.Input((4,), name="a"), keras.Input((3, 2, 1), name="b")
    y = layers.Dense(2)(layers.Concatenate()([a, layers.Flatten()(b)]))
    model = naive.randomize(keras.Model({"a": a, "b": b}, y))
    x = {"a": naive.inputs((4,)), "b": naive.inputs((3, 2, 1), seed=1)}
    kernel = model.get_weights()[0][:, 1]
    return model, x, {"a": kernel[:4], "b": kernel[4:].reshape(3, 2, 1)}


def test_a_baseline_for_each_input(two_inputs):
    model, x, kernel = two_inputs
    own, data = naive.inputs((4,), seed=2), naive.inputs((3, 2, 1), rows=5, seed=3)
    for baseline, starts in [
        (0.5, {"a": 0.5, "b": 0.5}),
        ({"b": 1.0, "a": own}, {"a": own, "b": 1.0}),
        ({"a": 2, "b": baselines.Mean(data)}, {"a": 2, "b": data.mean(axis=0, dtype=np.float64)}),
        ({"a": own[0], "b": data[:3]}, {"a": own[0], "b": data[:3]}),
    ]:
        explainer = kx.IntegratedGradients(steps=2, baseline=baseline)
        explained = explainer(model, x, 1, batch_size=2).values
        for name, start in starts.items():
            naive.close(explained[name], kernel[name] * (x[name] - start))


def test_a_list_of_numbers_is_the_baseline_of_a_table():
    model = naive.randomize(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    x, column = naive.inputs((3,)), model.get_weights()[0][:, 0]
    for baseline in ([0.5, -1.0, 2.0], (0.5, -1.0, 2.0)):
        explained = kx.IntegratedGradients(steps=1, baseline=baseline)(model, x, 0).values
        naive.close(explained, column * (x - np.array([0.5, -1.0, 2.0])))


# What does not fit


@pytest.mark.parametrize("rows", [2, 4, 0])
def test_a_baseline_of_another_number_of_rows(linear, rows):
    explainer = kx.IntegratedGradients(baseline=np.zeros((rows, *SHAPE), np.float32))
    with pytest.raises(ValueError, match=rf"\(7, 5, 2\).*\(3, 7, 5, 2\).*\({rows}, 7, 5, 2\)"):
        explainer(linear[0], naive.inputs(SHAPE))


@pytest.mark.parametrize("shape", [(5, 7, 2), (7, 5), (7, 5, 1), (3, 7, 5, 1)])
def test_a_baseline_of_another_shape(linear, shape):
    explainer = kx.IntegratedGradients(baseline=np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="Expected a baseline of one sample's shape"):
        explainer(linear[0], naive.inputs(SHAPE))


def test_data_of_another_shape(linear):
    explainer = kx.IntegratedGradients(baseline=baselines.Mean(np.zeros((9, 7, 5, 1))))
    with pytest.raises(ValueError, match=r"\(N, 7, 5, 2\).*\(7, 5, 1\)"):
        explainer(linear[0], naive.inputs(SHAPE))


def test_a_blur_of_a_table():
    model = naive.perceptron()
    explainer = kx.IntegratedGradients(baseline=baselines.Blur())
    with pytest.raises(ValueError, match=r"spatial axes.*\(3, 5\)"):
        explainer(model, naive.inputs((5,)))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_blur_without_width(linear, sigma):
    explainer = kx.IntegratedGradients(baseline=baselines.Blur(sigma))
    with pytest.raises(ValueError, match="sigma above 0"):
        explainer(linear[0], naive.inputs(SHAPE))


@pytest.mark.parametrize("baseline", ["blur", None, True, lambda x: x])
def test_what_is_no_baseline(linear, baseline):
    with pytest.raises(TypeError, match=r"Expected a baseline( of numbers)?: a number, an array"):
        kx.IntegratedGradients(baseline=baseline)(linear[0], naive.inputs(SHAPE))


def test_another_number_of_baselines_than_inputs(two_inputs):
    model, x, _ = two_inputs
    for baseline in ([0.0, 1.0, 2.0], {"a": 0.0}):
        with pytest.raises(ValueError, match=r"one baseline for each of the 2 inputs"):
            kx.IntegratedGradients(baseline=baseline)(model, x, 1)


def test_baselines_under_names_of_no_input(two_inputs):
    model, x, _ = two_inputs
    with pytest.raises(ValueError, match=r"\bc\b"):
        kx.IntegratedGradients(baseline={"a": 0.0, "c": 1.0})(model, x, 1)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_baseline_that_is_not_finite(linear, number):
    for baseline in (number, np.full(SHAPE, number, np.float32)):
        with pytest.raises(ValueError, match="finite"):
            kx.IntegratedGradients(baseline=baseline)(linear[0], naive.inputs(SHAPE), 1)


@pytest.mark.parametrize("baseline", [1e300, np.full((3,), -1e300)])
def test_what_float32_can_not_hold_is_refused(baseline):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="which float32 can hold, as `baseline`"):
        kx.IntegratedGradients(baseline=baseline)(model, np.ones((2, 3), np.float32), 0)
