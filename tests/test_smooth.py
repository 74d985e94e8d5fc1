"""SmoothGrad, SquareGrad and VarGrad: at the very points that the noise makes, in float64."""

import keras
import numpy as np
import pytest
from keras import layers, ops, tree
from scipy import stats

import keras_explain as kx
from keras_explain.core.run.reductions import Each
from tests import naive

SIGNED = kx.Saliency(absolute=False)
CLASSES = np.array([0, 3, 1])


class _Point(kx.Explainer):
    """Explains a point by itself: what a noisy explainer wraps is where it is called."""

    def step(self, probe, x, target, pass_):
        return x


class _Points(kx.SmoothGrad):
    """The noisy points themselves."""

    reduce = Each()


class _PointsOfVarGrad(kx.VarGrad):
    """Those of `VarGrad`."""

    reduce = Each()


def points(model, x, *, seed=0, kind=_Points, **options):
    """Where `SmoothGrad(**options)` evaluates, or `VarGrad`: `[rows, samples, ...]`."""
    values = kind(explainer=_Point(), **options)(model, x, 0, seed=seed).values
    return tree.map_structure(lambda v: v.astype(np.float64), values)


def at_points(fn, noisy):
    """`fn([rows, ...])` at each point, `[rows, samples, ...]`."""
    return np.stack([fn(noisy[:, i]) for i in range(noisy.shape[1])], axis=1)


def span(x):
    flat = x.reshape(len(x), -1).astype(np.float64)
    return (flat.max(axis=1) - flat.min(axis=1)).reshape(-1, *(1 for _ in x.shape[1:]))


@pytest.fixture(scope="module")
def picture():
    """A model, the same in NumPy, and inputs of different ranges."""
    model = naive.network()
    x = naive.inputs((8, 6, 2)) * np.array([1, 4, 0.2], np.float32).reshape(3, 1, 1, 1)
    return model, naive.Net([model]), x


# The formulas, at the points


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_smooth_grad_is_the_mean_gradient_at_the_noisy_points(picture, samples):
    model, net, x = picture
    noisy = points(model, x, samples=samples, noise=0.3)
    gradients = at_points(lambda v: net.gradient(v, CLASSES), noisy)
    explanation = kx.SmoothGrad(samples=samples, noise=0.3)(model, x, CLASSES)
    naive.close(explanation.values, gradients.mean(axis=1))
    naive.close(explanation.scores, net.score(x, CLASSES))
    assert explanation.values.shape == x.shape


def test_it_averages_signed_gradients(picture):
    model, net, x = picture
    noisy = points(model, x, samples=6, noise=1.0)
    gradients = at_points(lambda v: net.gradient(v, CLASSES), noisy)
    signed = kx.SmoothGrad(samples=6, noise=1.0)(model, x, CLASSES).values
    magnitudes = kx.SmoothGrad(explainer=kx.Saliency(), samples=6, noise=1.0)(
        model, x, CLASSES
    ).values
    naive.close(magnitudes, np.abs(gradients).mean(axis=1))
    assert (signed < 0).any()
    assert (np.abs(signed) < 0.5 * magnitudes).any()  # signs cancel


def test_square_grad_is_the_mean_of_the_squares(picture):
    model, net, x = picture
    gradients = at_points(
        lambda v: net.gradient(v, CLASSES), points(model, x, samples=5, noise=0.3)
    )
    values = kx.SquareGrad(samples=5, noise=0.3)(model, x, CLASSES).values
    naive.close(values, (gradients**2).mean(axis=1))


def test_var_grad_is_the_variance(picture):
    model, net, x = picture
    noisy = points(model, x, kind=_PointsOfVarGrad, samples=5, noise=0.3)
    gradients = at_points(lambda v: net.gradient(v, CLASSES), noisy)
    values = kx.VarGrad(samples=5, noise=0.3)(model, x, CLASSES).values
    naive.close(values, gradients.var(axis=1))


class _MirroredVarGrad(kx.VarGrad):
    mirrored = True


def test_the_square_is_the_variance_and_the_squared_mean(picture):
    model, _, x = picture
    options = {"samples": 9, "noise": 0.4}
    smooth, square, var = (
        kind(**options)(model, x, CLASSES, batch_size=4).values
        for kind in (kx.SmoothGrad, kx.SquareGrad, _MirroredVarGrad)
    )
    naive.close(square, var + smooth.astype(np.float64) ** 2)


def test_many_classes_share_the_points(picture):
    model, net, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    noisy = points(model, x, samples=3)
    expected = [
        at_points(lambda v, k=k: net.gradient(v, many[:, k]), noisy).mean(axis=1) for k in range(2)
    ]
    values = kx.SmoothGrad(samples=3)(model, x, many).values
    naive.close(values, np.stack(expected, axis=1))


def test_without_noise_every_point_is_the_input(picture):
    model, _, x = picture
    options = {"explainer": _Point(), "samples": 4, "noise": 0.0}
    naive.close(kx.SmoothGrad(**options)(model, x, 0).values, x, 1e-7)
    naive.close(kx.SquareGrad(**options)(model, x, 0).values, x**2, 1e-7)
    with pytest.warns(UserWarning, match="VarGrad is zero everywhere for all"):
        assert not kx.VarGrad(**options)(model, x, 0).values.any()


def test_the_variance_keeps_its_digits_around_a_large_mean():
    """Points of a mean 1000 times their deviation, taken in many chunks."""
    model = naive.perceptron()
    x = (1000 + naive.inputs((5,), rows=2)).astype(np.float32)
    options = {"samples": 40, "noise": 0.3}
    noisy = points(model, x, kind=_PointsOfVarGrad, **options)
    assert (np.abs(noisy.mean(axis=1)) > 500 * noisy.std(axis=1)).all()
    explainer = kx.VarGrad(explainer=_Point(), **options)
    for batch_size in (2, 6, 256):
        values = explainer(model, x, 0, batch_size=batch_size).values
        np.testing.assert_allclose(values, noisy.var(axis=1), rtol=2e-3)


# Around other methods


def test_around_input_x_gradient_the_noisy_input_counts(picture):
    model, net, x = picture
    noisy = points(model, x, samples=3)
    expected = at_points(lambda v: v * net.gradient(v, CLASSES), noisy).mean(axis=1)
    values = kx.SmoothGrad(explainer=kx.InputXGradient(), samples=3)(model, x, CLASSES).values
    naive.close(values, expected)


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_around_integrated_gradients(picture, batch_size):
    model, net, x = picture
    start = np.roll(x, 1, axis=0)
    noisy = points(model, x, samples=3)
    rule = naive.gauss_legendre(4)

    def ig(v):
        return naive.integrated_gradients(lambda p: net.gradient(p, CLASSES), v, start, rule)

    inner = kx.IntegratedGradients(steps=4, baseline=start)
    explanation = kx.SmoothGrad(explainer=inner, samples=3)(
        model, x, CLASSES, batch_size=batch_size
    )
    naive.close(explanation.values, at_points(ig, noisy).mean(axis=1))


def test_one_sample_around_integrated_gradients_is_integrated_gradients_at_the_point(picture):
    model, _, x = picture
    inner = kx.IntegratedGradients(steps=5, baseline=0.1)
    at = kx.SmoothGrad(explainer=_Point(), samples=1)(model, x, CLASSES, seed=3).values
    smooth = kx.SmoothGrad(explainer=inner, samples=1)(model, x, CLASSES, seed=3).values
    naive.close(smooth, inner(model, at, CLASSES).values)


def test_around_grad_cam(picture):
    model, net, x = picture
    target = naive.speaking(net, x, "conv_b")
    noisy = points(model, x, samples=3, noise=0.2)
    maps = at_points(lambda v: naive.grad_cam(net, v, target, "conv_b"), noisy)
    values = kx.SmoothGrad(explainer=kx.GradCAM(layer="conv_b"), samples=3, noise=0.2)(
        model, x, target
    ).values
    naive.close(values, naive.bilinear(maps.mean(axis=1), (8, 6)))


def test_around_gradient_shap(picture):
    model, net, x = picture
    background = naive.inputs((8, 6, 2), rows=4, seed=5)
    smooth = kx.SmoothGrad(explainer=kx.GradientSHAP(background=background, samples=6), samples=2)
    noisy = points(model, x, samples=2, seed=4)
    passes = smooth.passes(4)["inner"]

    def shap(i):
        terms = [
            naive.integrated_gradients(
                lambda p: net.gradient(p, CLASSES),
                noisy[:, i],
                np.broadcast_to(background[reference], x.shape),
                ([alpha], [1.0]),
            )
            for reference, alpha in zip(passes["reference"][i], passes["alpha"][i], strict=True)
        ]
        return np.mean(terms, axis=0)

    values = smooth(model, x, CLASSES, seed=4).values
    naive.close(values, (shap(0) + shap(1)) / 2)


def test_around_itself_the_two_noises_are_independent(picture):
    model, _, x = picture
    once = kx.SmoothGrad(explainer=_Point(), samples=1, noise=0.01)
    twice = kx.SmoothGrad(explainer=once, samples=1, noise=0.01)
    first = once(model, x, 0).values[0] - x[0]
    both = twice(model, x, 0).values[0] - x[0]
    z = np.stack([first, both - first]).reshape(2, -1)
    assert abs(np.corrcoef(z)[0, 1]) < 5 / np.sqrt(z.shape[1])


# The noise


@pytest.fixture(scope="module")
def noise(picture):
    """The standard normal numbers behind the points, `[rows, samples, ...]`."""
    model, _, x = picture
    noisy = points(model, x, samples=800, noise=0.25)[:, ::2]
    return (noisy - x[:, None]) / (0.25 * span(x)[:, None])


def test_the_noise_is_normal_with_a_share_of_each_samples_range_as_deviation(noise):
    for row in noise:
        n = row.size
        assert abs(row.mean()) < 5 / np.sqrt(n)
        assert abs(row.var() - 1) < 5 * np.sqrt(2 / n)
        assert stats.kstest(row.ravel(), "norm").pvalue > 1e-3


def test_the_noise_is_independent_between_samples_and_features(noise):
    flat = noise[0].reshape(len(noise[0]), -1)  # [samples, features]
    n, features = flat.shape
    between = np.corrcoef(flat.T)[np.triu_indices(features, 1)]
    assert np.abs(between).max() < 6 / np.sqrt(n)
    following = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(following) < 5 / np.sqrt(flat.size)
    assert len(np.unique(flat)) > 0.99 * flat.size


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_each_second_point_mirrors_the_one_before(picture, samples):
    model, _, x = picture
    for seed in range(3):
        moved = points(model, x, samples=samples, noise=0.4, seed=seed) - x[:, None]
        pairs = samples // 2
        np.testing.assert_allclose(moved[:, : 2 * pairs : 2], -moved[:, 1::2], atol=1e-6)
        firsts = moved[:, ::2].reshape(3, -1, x[0].size)
        assert np.abs(np.diff(firsts, axis=1)).max(axis=2).all()


def test_the_points_of_fewer_samples_are_the_first_of_more(picture):
    model, _, x = picture
    for kind in (_Points, _PointsOfVarGrad):
        few, many = (points(model, x, kind=kind, samples=n, noise=0.3) for n in (5, 12))
        np.testing.assert_array_equal(few, many[:, :5])


def test_the_points_of_var_grad_are_independent(picture):
    model, _, x = picture
    moved = points(model, x, kind=_PointsOfVarGrad, samples=400) - x[:, None]
    flat = moved[0].reshape(400, -1)
    following = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(following) < 5 / np.sqrt(flat.size)


def test_the_variance_of_the_points_is_the_noises(picture):
    model, _, x = picture
    samples = 300
    values = kx.VarGrad(explainer=_Point(), samples=samples, noise=0.15)(model, x, 0).values
    expected = (0.15 * span(x)) ** 2
    ratio = (values / expected).reshape(3, -1)
    assert np.abs(ratio.mean(axis=1) - 1).max() < 5 * np.sqrt(2 / (samples * ratio.shape[1]))
    assert np.abs(ratio - 1).max() < 6 * np.sqrt(2 / samples)


def test_a_flat_sample_stays_as_it_is(picture):
    model, net, x = picture
    x = x.copy()
    x[1] = 0.7
    noisy = points(model, x, samples=2)
    np.testing.assert_array_equal(noisy[1], np.stack([x[1]] * 2))
    values = kx.SmoothGrad(samples=2)(model, x, CLASSES).values
    naive.close(values[1], net.gradient(x, CLASSES)[1])


@pytest.mark.parametrize("kind", [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad])
def test_a_seed_gives_the_same_whatever_the_batch(picture, kind):
    model, _, x = picture
    explainer = kind(samples=7)
    whole = explainer(model, x, CLASSES, seed=1).values
    np.testing.assert_array_equal(explainer(model, x, CLASSES, seed=1).values, whole)
    for batch_size in (1, 2, 5):
        some = explainer(model, x, CLASSES, seed=1, batch_size=batch_size).values
        naive.close(some, whole)
    alone = explainer(model, x[2:], CLASSES[2:], seed=1).values
    naive.close(alone, whole[2:])
    other = explainer(model, x, CLASSES, seed=2).values
    assert np.abs(other - whole).max() > 1e-2 * np.abs(whole).max()


def test_a_quadratic_score_needs_one_pair():
    """Its gradient is linear in the noise, which cancels."""
    x_in = keras.Input((3,))
    model = keras.Model(x_in, ops.sum(ops.square(x_in), axis=-1, keepdims=True))
    x = np.array([[1.0, -2.0, 0.5]], np.float32)
    naive.close(kx.SmoothGrad(samples=2, noise=0.2)(model, x).values, 2 * x, 1e-6)
    single = kx.SmoothGrad(samples=3, noise=0.2)(model, x).values
    assert np.abs(single - 2 * x).max() > 1e-2
    square = kx.SquareGrad(samples=500, noise=0.2)(model, x).values
    expected, variance = 4 * x**2 + (2 * 0.2 * 3) ** 2, 2 * (2 * 0.2 * 3) ** 4
    assert np.abs(square - expected).max() < 5 * np.sqrt(variance / 250)
    var = kx.VarGrad(samples=500, noise=0.2)(model, x).values
    np.testing.assert_allclose(var, (2 * 0.2 * 3) ** 2, rtol=5 * np.sqrt(2 / 500))


def test_a_linear_model_has_a_gradient_without_variance():
    model = naive.randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    x, column = naive.inputs((4,)), model.get_weights()[0][:, 1]
    naive.close(kx.SmoothGrad(samples=4)(model, x, 1).values, np.tile(column, (3, 1)), 1e-6)
    naive.close(kx.SquareGrad(samples=4)(model, x, 1).values, np.tile(column**2, (3, 1)), 1e-6)
    with pytest.warns(UserWarning, match="VarGrad is zero everywhere"):
        np.testing.assert_allclose(kx.VarGrad(samples=4)(model, x, 1).values, 0, atol=1e-12)


# Inputs of other kinds


def test_several_inputs_get_noise_of_their_own():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(layers.Concatenate()([a, b])))
    model = naive.randomize(keras.Model({"a": a, "b": b}, head))
    net = naive.Net(model.layers[-2:])
    x = {"a": naive.inputs((4,)), "b": 5 * naive.inputs((4,), seed=1)}
    noisy = points(model, x, samples=300, noise=0.2)
    normal = {k: (noisy[k] - x[k][:, None]) / (0.2 * span(x[k])[:, None]) for k in x}
    for z in normal.values():
        assert abs(z[0].var() - 1) < 5 * np.sqrt(2 / z[0].size)
    together = np.corrcoef(normal["a"][0].ravel(), normal["b"][0].ravel())[0, 1]
    assert abs(together) < 5 / np.sqrt(normal["a"][0].size)

    noisy = points(model, x, samples=4, noise=0.2)
    both = np.concatenate([noisy["a"], noisy["b"]], axis=-1)
    expected = at_points(lambda v: net.gradient(v, 1), both).mean(axis=1)
    values = kx.SmoothGrad(samples=4, noise=0.2)(model, x, 1).values
    naive.close(values["a"], expected[:, :4])
    naive.close(values["b"], expected[:, 4:])


class _Offset(kx.Explainer):
    """The squared distance of a point from the unmoved one: noise that does not cancel in a sum."""

    def step(self, probe, x, target, pass_):
        return ops.square(x - probe.point(probe.inputs))


def sentence():
    stack = [
        layers.Embedding(9, 4),
        layers.GlobalAveragePooling1D(),
        layers.Dense(5, activation="tanh"),
        layers.Dense(3),
    ]
    return naive.randomize(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))


def test_tokens_get_noise_at_their_embeddings():
    model = sentence()
    ids = np.array([[1, 2, 3, 4, 5, 6], [8, 8, 8, 8, 8, 8]])
    embedded = model.layers[0].get_weights()[0][ids]
    values = kx.SmoothGrad(explainer=_Offset(), samples=400, noise=0.2)(model, ids, 0).values
    expected = 4 * (0.2 * span(embedded)[..., 0]) ** 2  # summed over the embedding's 4 axes
    np.testing.assert_allclose(
        values, np.broadcast_to(expected, values.shape), rtol=5 * np.sqrt(2 / 1600)
    )
    assert kx.SmoothGrad(samples=3)(model, ids, 0).values.shape == ids.shape


def test_a_model_of_fixed_batch_size():
    stack = [keras.Input((5,), batch_size=2), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    net, x = naive.Net([model]), naive.inputs((5,), rows=5)
    noisy = points(model, x, samples=3)
    expected = at_points(lambda v: net.gradient(v, 1), noisy)
    naive.close(kx.SmoothGrad(samples=3)(model, x, 1).values, expected.mean(axis=1))
    noisy = points(model, x, kind=_PointsOfVarGrad, samples=3)
    expected = at_points(lambda v: net.gradient(v, 1), noisy)
    naive.close(kx.VarGrad(samples=3)(model, x, 1).values, expected.var(axis=1))


def test_integer_pictures_get_noise_too(picture):
    model, net, _ = picture
    x = np.random.default_rng(0).integers(0, 4, (3, 8, 6, 2)).astype(np.uint8)
    noisy = points(model, x, samples=3)
    assert not np.array_equal(noisy, noisy.round())
    expected = at_points(lambda v: net.gradient(v, CLASSES), noisy).mean(axis=1)
    naive.close(kx.SmoothGrad(samples=3)(model, x, CLASSES).values, expected)


# How sure the values are


def pair_means(values):
    """The means of each two samples, `[rows, pairs, ...]`."""
    pairs = values.shape[1] // 2
    return values[:, : 2 * pairs].reshape(len(values), pairs, 2, *values.shape[2:]).mean(axis=2)


def error_of_pairs(values):
    """The standard error of a mean of pairs, from their spread."""
    pairs = pair_means(values)
    count = pairs.shape[1]
    squares = np.square(pairs - values.mean(axis=1)[:, None]).sum(axis=1)
    return np.sqrt(squares / (count * (count - 1)))


def error_of_variance(values):
    """That of a variance, from half the squared differences of each two samples."""
    halves = np.square(np.diff(values, axis=1)[:, ::2]) / 2
    normal = np.square(values.var(axis=1, ddof=1))
    excess = np.square(halves).mean(axis=1) - 2 * normal
    return np.sqrt(np.maximum(excess, normal) / halves.shape[1])


@pytest.mark.parametrize("batch_size", [1, 6, 7, None])
@pytest.mark.parametrize(
    ("kind", "of_points", "error"),
    [
        (kx.SmoothGrad, _Points, error_of_pairs),
        (kx.SquareGrad, _Points, lambda v: error_of_pairs(v**2)),
        (kx.VarGrad, _PointsOfVarGrad, error_of_variance),
    ],
)
def test_the_standard_error(picture, kind, of_points, error, batch_size):
    model, net, x = picture
    noisy = points(model, x, kind=of_points, samples=12, noise=0.5)
    gradients = at_points(lambda v: net.gradient(v, CLASSES), noisy)
    extras = kind(samples=12, noise=0.5)(model, x, CLASSES, batch_size=batch_size).extras
    naive.close(extras["standard_error"], error(gradients), 1e-4)
    assert extras["passes"].tolist() == [12, 12, 12]


@pytest.mark.parametrize(
    ("kind", "samples"), [(kx.SmoothGrad, 1), (kx.SquareGrad, 2), (kx.VarGrad, 3)]
)
def test_too_few_samples_have_no_standard_error(picture, kind, samples):
    model, _, x = picture
    extras = kind(samples=samples)(model, x, CLASSES).extras
    assert np.isnan(extras["standard_error"]).all()
    assert np.isnan(extras["relative_error"]).all()


@pytest.mark.parametrize("kind", [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad])
def test_standard_errors_hold_as_often_as_they_say(kind):
    """90 % intervals, over features and seeds, on a network with rectifiers."""
    model = naive.perceptron(8, hidden=24, activation="relu")
    x = naive.inputs((8,), rows=2)
    truth = kind(samples=2**14)(model, x, 1, seed=1000).values
    hold = []
    for seed in range(60):
        found = kind(samples=40)(model, x, 1, seed=seed)
        hold.append(np.abs(found.values - truth) <= 1.645 * found.extras["standard_error"])
    assert 0.8 < np.mean(hold) < 0.98


@pytest.mark.parametrize("kind", [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad])
def test_until_it_is_sure_it_draws_what_a_number_draws(picture, kind):
    model, _, x = picture
    auto = kind(samples="auto", error=0.2, max_passes=2048, noise=0.3)(model, x, CLASSES)
    assert (auto.extras["relative_error"] <= 0.2).all()
    for row, passes in enumerate(auto.extras["passes"]):
        fixed = kind(samples=int(passes), noise=0.3)(model, x, CLASSES)
        naive.close(auto.values[row], fixed.values[row], 1e-6)
        error = fixed.extras["standard_error"][row]
        naive.close(auto.extras["standard_error"][row], error, 1e-5)


def test_squares_and_variances_are_right_on_average_over_seeds():
    """For a score of squares, whose gradient is 2 (x + g)."""
    x_in = keras.Input((3,))
    model = keras.Model(x_in, ops.sum(ops.square(x_in), axis=-1, keepdims=True))
    x = np.array([[1.0, -2.0, 0.5]], np.float32)
    variance = (2 * 0.2 * 3) ** 2
    for kind, expected in ((kx.SquareGrad, 4 * x**2 + variance), (kx.VarGrad, variance * 5 / 6)):
        drawn = [kind(samples=6, noise=0.2)(model, x, seed=seed).values for seed in range(200)]
        error = np.std(drawn, axis=0, ddof=1) / np.sqrt(200)
        assert (np.abs(np.mean(drawn, axis=0) - expected) < 5 * error).all()


@pytest.mark.filterwarnings("ignore:.*zero everywhere")
@pytest.mark.parametrize("kind", [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad])
def test_a_constant_model_is_sure_at_once(kind):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.set_weights([np.zeros((4, 3)), np.ones(3)])
    extras = kind(samples="auto", max_passes=256)(model, naive.inputs((4,)), 1).extras
    assert not extras["relative_error"].any()
    assert extras["passes"].tolist() == [32, 32, 32]


@pytest.mark.parametrize("kind", [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad])
def test_standard_errors_of_tokens_are_of_their_values(kind):
    model = sentence()
    ids = np.array([[1, 2, 3, 4, 5, 6], [8, 7, 6, 5, 4, 3]])
    found = [kind(samples=64, noise=0.3)(model, ids, 0, seed=seed) for seed in range(40)]
    spread = np.std([f.values for f in found], axis=0, ddof=1)
    said = np.sqrt(np.mean([f.extras["standard_error"] ** 2 for f in found], axis=0))
    assert said.shape == ids.shape
    assert 0.7 < np.median(said / spread) < 1.6


@pytest.mark.parametrize(
    "options",
    [{"samples": "many"}, {"samples": 9, "error": 0.1}, {"samples": "auto", "error": 0}],
)
def test_numbers_of_samples_that_are_none(options):
    with pytest.raises(ValueError, match="Expected"):
        kx.SmoothGrad(**options)
