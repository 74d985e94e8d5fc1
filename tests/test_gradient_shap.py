"""GradientSHAP against a loop over its passes in float64, and in expectation."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import stats

import keras_explain as kx
from keras_explain import backend
from tests import naive

CLASSES = np.array([0, 3, 1])


def expected_gradients(net, x, target, references, alpha):
    """Erion et al., 2021, equation 3: the mean over pairs of a reference and a position."""
    terms = [
        naive.integrated_gradients(
            lambda v: net.gradient(v, target), x, np.broadcast_to(row, x.shape), ([a], [1.0])
        )
        for row, a in zip(references, alpha, strict=True)
    ]
    return np.mean(terms, axis=0)


def by_passes(explainer, net, x, target, seed=0, background=None):
    passes = explainer.passes(seed)
    rows = (explainer.background if background is None else background)[passes["reference"]]
    return expected_gradients(net, x, target, rows, passes["alpha"]), rows


def total(values, first=1):
    return values.reshape(*values.shape[:first], -1).sum(axis=-1, dtype=np.float64)


@pytest.fixture(scope="module")
def picture():
    model = naive.network()
    background = naive.inputs((8, 6, 2), rows=5, seed=9)
    return model, naive.Net([model]), naive.inputs((8, 6, 2)), background


@pytest.fixture(scope="module")
def dense():
    model = naive.perceptron()
    return model, naive.Net([model]), naive.inputs((5,)), naive.inputs((5,), rows=4, seed=9)


# The formula


@pytest.mark.parametrize("samples", [1, 3, 5, 12])
def test_it_is_the_mean_over_the_passes(picture, samples):
    model, net, x, background = picture
    explainer = kx.GradientSHAP(background=background, samples=samples)
    explanation = explainer(model, x, CLASSES, seed=2)
    expected, rows = by_passes(explainer, net, x, CLASSES, seed=2)
    naive.close(explanation.values, expected)
    naive.close(explanation.scores, net.score(x, CLASSES))
    base = np.mean([net.score(np.stack([row] * 3), CLASSES) for row in rows], axis=0)
    naive.close(explanation.extras["base_values"], base)


@pytest.mark.parametrize("options", [{"shape": (9, 2)}, {"shape": (5, 4, 4, 1)}, {}], ids=str)
def test_series_volumes_and_rectifiers(options):
    model = naive.network(activation="relu", pool="max", **options)
    shape = model.input_shape[1:]
    net, x = naive.Net([model]), naive.inputs(shape)
    explainer = kx.GradientSHAP(background=naive.inputs(shape, rows=4, seed=9), samples=6)
    naive.close(explainer(model, x, CLASSES).values, by_passes(explainer, net, x, CLASSES)[0])


def test_many_classes_at_once(picture):
    model, net, x, background = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explainer = kx.GradientSHAP(background=background, samples=6)
    explanation = explainer(model, x, many)
    expected = [by_passes(explainer, net, x, many[:, k])[0] for k in range(2)]
    naive.close(explanation.values, np.stack(expected, axis=1))
    rows = background[explainer.passes(0)["reference"]]
    naive.close(explanation.extras["base_values"], net.scores(rows).mean(axis=0)[many])


def test_the_convergence_delta_is_the_gap(picture):
    model, net, x, background = picture
    explainer = kx.GradientSHAP(background=background, samples=7)
    explanation = explainer(model, x, CLASSES, seed=1)
    expected, rows = by_passes(explainer, net, x, CLASSES, seed=1)
    gap = total(expected) - (net.score(x, CLASSES) - net.scores(rows).mean(axis=0)[CLASSES])
    assert np.abs(gap).min() > 1e-3
    naive.close(explanation.extras["convergence_delta"], gap, 1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_batch_size_only_rounds(picture, batch_size):
    model, net, x, background = picture
    explainer = kx.GradientSHAP(background=background, samples=7)
    explanation = explainer(model, x, CLASSES, batch_size=batch_size)
    expected, rows = by_passes(explainer, net, x, CLASSES)
    naive.close(explanation.values, expected)
    naive.close(explanation.extras["base_values"], net.scores(rows).mean(axis=0)[CLASSES])


def test_a_row_alone_is_the_row_in_a_batch(dense):
    model, _, x, background = dense
    explainer = kx.GradientSHAP(background=background, samples=6, noise=0.1)
    together = explainer(model, x, 1, seed=5).values
    for i in range(3):
        naive.close(explainer(model, x[i : i + 1], 1, seed=5).values, together[i : i + 1], 1e-6)


def test_the_seed_decides(dense):
    model, _, x, background = dense
    explainer = kx.GradientSHAP(background=background, samples=6)
    once, again, other = (explainer(model, x, 1, seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert np.abs(other - once).max() > 1e-3


def test_one_reference_and_many_samples_are_integrated_gradients(dense):
    """Stratified positions are a Riemann sum of the integral."""
    model, net, x, background = dense
    values = kx.GradientSHAP(background=background[:1], samples=200)(model, x, 1).values
    start = np.broadcast_to(background[:1], x.shape)
    ig = naive.integrated_gradients(
        lambda v: net.gradient(v, 1), x, start, naive.gauss_legendre(30)
    )
    naive.close(values, ig, 2e-3)


def test_a_fixed_batch_size_and_mixed_precision():
    stack = [
        keras.Input((5,), batch_size=2),
        layers.Dense(4, activation="tanh", dtype="mixed_bfloat16"),
        layers.Dense(3, dtype="mixed_bfloat16"),
    ]
    model = naive.randomize(keras.Sequential(stack))
    net, x = naive.Net([model]), naive.inputs((5,), rows=5)
    explainer = kx.GradientSHAP(background=naive.inputs((5,), rows=3, seed=9), samples=7)
    explanation = explainer(model, x, 1)
    expected, rows = by_passes(explainer, net, x, 1)
    naive.close(explanation.values, expected)
    naive.close(explanation.extras["base_values"], np.full(5, net.score(rows, 1).mean()))


def test_integer_pictures_with_a_background_of_fractions(picture):
    model, net, _, background = picture
    x = np.random.default_rng(0).integers(0, 4, (3, 8, 6, 2)).astype(np.uint8)
    explainer = kx.GradientSHAP(background=background, samples=6)
    naive.close(explainer(model, x, CLASSES).values, by_passes(explainer, net, x, CLASSES)[0])


def test_a_background_that_is_not_finite(dense):
    model, _, x, background = dense
    background = background.copy()
    background[2, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        kx.GradientSHAP(background=background)(model, x)


# The draws


@pytest.mark.parametrize(("rows", "samples"), [(5, 5), (5, 15), (5, 12), (5, 3), (1, 4)])
def test_each_reference_is_taken_equally_often(rows, samples):
    explainer = kx.GradientSHAP(background=naive.inputs((2,), rows=rows), samples=samples)
    for seed in range(5):
        reference = explainer.passes(seed)["reference"]
        counts = np.bincount(reference, minlength=rows)
        assert counts.sum() == samples
        assert counts.max() - counts.min() <= 1


def test_over_seeds_each_reference_is_as_likely_for_each_sample():
    explainer = kx.GradientSHAP(background=naive.inputs((2,), rows=4), samples=6)
    drawn = np.stack([explainer.passes(seed)["reference"] for seed in range(400)])
    for sample in drawn.T:
        assert stats.chisquare(np.bincount(sample, minlength=4)).pvalue > 1e-4


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_positions_are_uniform_in_each_stratum(samples):
    """One position in each of `samples` equal parts of [0, 1], anywhere in it."""
    explainer = kx.GradientSHAP(background=naive.inputs((2,), rows=4), samples=samples)
    within = []
    for seed in range(400):
        scaled = np.sort(explainer.passes(seed)["alpha"].astype(np.float64)) * samples
        assert np.floor(scaled).tolist() == list(range(samples))
        within.append(scaled - np.arange(samples))
    for stratum in np.transpose(within):
        assert stats.kstest(stratum, "uniform").pvalue > 1e-4


def test_positions_and_references_are_independent():
    explainer = kx.GradientSHAP(background=naive.inputs((2,), rows=2), samples=2)
    passes = [explainer.passes(seed) for seed in range(600)]
    first = np.array([p["alpha"][p["reference"] == 0][0] for p in passes])
    assert stats.kstest(first, "uniform").pvalue > 1e-4
    order = np.array([p["reference"][0] for p in passes])
    assert abs(np.corrcoef(order, [p["alpha"][0] for p in passes])[0, 1]) < 5 / np.sqrt(600)


# In expectation


def test_the_mean_over_seeds_is_the_double_integral(dense):
    """Integrated Gradients, averaged over the background, within five standard errors."""
    model, net, x, background = dense
    explainer = kx.GradientSHAP(background=background, samples=2)
    draws = np.stack([explainer(model, x, 1, seed=seed).values for seed in range(300)])
    integral = np.mean(
        [
            naive.integrated_gradients(
                lambda v: net.gradient(v, 1),
                x,
                np.broadcast_to(row, x.shape),
                naive.gauss_legendre(20),
            )
            for row in background
        ],
        axis=0,
    )
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - integral) < 5 * error).all()
    assert error.max() < 0.1 * np.abs(integral).max()


def test_the_values_sum_to_the_change_of_the_score_in_expectation(dense):
    model, net, x, background = dense
    explainer = kx.GradientSHAP(background=background, samples=8)
    deltas = np.stack(
        [explainer(model, x, 1, seed=s).extras["convergence_delta"] for s in range(100)]
    )
    error = deltas.std(axis=0, ddof=1) / np.sqrt(len(deltas))
    assert (np.abs(deltas.mean(axis=0)) < 5 * error).all()
    many = kx.GradientSHAP(background=background, samples=3200)(model, x, 1)
    change = net.score(x, 1) - net.score(background, 1).mean()
    naive.close(total(many.values), change, 0.02)


def test_a_linear_model_needs_each_reference_once():
    model = naive.randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    x, background = naive.inputs((4,)), naive.inputs((4,), rows=5, seed=9)
    explanation = kx.GradientSHAP(background=background, samples=5)(model, x, 2)
    kernel = model.get_weights()[0][:, 2]
    naive.close(explanation.values, kernel * (x - background.mean(axis=0)), 1e-6)
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-6)


def test_a_product_is_shared_alike():
    """For x0 x1 and references at zero, each feature gets half, whatever the positions' mean."""
    x_in = keras.Input((2,))
    model = keras.Model(x_in, ops.prod(x_in, axis=-1, keepdims=True))
    x = np.array([[2.0, -3.0]], np.float32)
    explainer = kx.GradientSHAP(background=np.zeros((1, 2), np.float32), samples=9)
    alpha = explainer.passes(0)["alpha"].astype(np.float64)
    naive.close(explainer(model, x).values, [[-6 * alpha.mean()] * 2], 1e-6)


def test_a_feature_without_influence_or_without_change_gets_zero():
    stack = [keras.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    weights = model.get_weights()
    weights[0][1] = 0
    model.set_weights(weights)
    x, background = naive.inputs((4,)), naive.inputs((4,), rows=5, seed=9)
    x[:, 3] = background[:, 3] = 0.5
    values = kx.GradientSHAP(background=background, samples=6)(model, x, 1).values
    assert (values[:, [1, 3]] == 0).all()
    assert (values[:, [0, 2]] != 0).all()


# Noise


def test_the_noise_moves_the_input_before_the_line_is_drawn():
    """For a linear model, values / weights + reference is the noisy input."""
    kernel = np.array([[1.0], [-2.0], [0.5], [4.0]], np.float32)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    model.set_weights([kernel])
    x = np.array([[0.0, 1.0, 2.0, 4.0], [0.0, 0.1, 0.2, 0.4]], np.float32)
    background = naive.inputs((4,), rows=3, seed=9)
    explainer = kx.GradientSHAP(background=background, samples=1, noise=0.2)
    normal = []
    for seed in range(250):
        row = background[explainer.passes(seed)["reference"]]
        values = explainer(model, x, seed=seed).values
        normal.append((values / kernel[:, 0] + row - x) / (0.2 * np.array([[4.0], [0.4]])))
    normal = np.stack(normal)  # [seeds, rows, features]
    for row in (0, 1):
        z = normal[:, row].ravel()
        assert abs(z.mean()) < 5 / np.sqrt(z.size)
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)


def test_the_noise_differs_between_samples_and_averages_out():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((4, 1), np.float32)])
    x = np.array([[0.0, 1.0, 2.0, 4.0]], np.float32)
    background = naive.inputs((4,), rows=2, seed=9)
    explainer = kx.GradientSHAP(background=background, samples=400, noise=0.2)
    noise = explainer(model, x).values - (x - background.mean(axis=0))
    assert np.abs(noise).max() < 5 * 0.2 * 4 / np.sqrt(400)
    assert np.abs(noise).max() > 1e-4


def test_noise_of_zero_is_none(dense):
    model, net, x, background = dense
    explainer = kx.GradientSHAP(background=background, samples=4, noise=0.0)
    naive.close(explainer(model, x, 1).values, by_passes(explainer, net, x, 1)[0])


# Several inputs, and tokens


@pytest.mark.parametrize("nest", [list, dict])
def test_several_inputs_take_their_references_from_the_same_row(nest):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(layers.Concatenate()([a, b])))
    model = naive.randomize(keras.Model([a, b] if nest is list else {"a": a, "b": b}, head))
    net = naive.Net(model.layers[-2:])

    def packed(first, second):
        return [first, second] if nest is list else {"b": second, "a": first}

    x = naive.inputs((4,)), naive.inputs((3,), seed=1)
    rows = naive.inputs((4,), rows=4, seed=2), naive.inputs((3,), rows=4, seed=3)
    explainer = kx.GradientSHAP(background=packed(*rows), samples=6)
    explanation = explainer(model, packed(*x), 1)
    joined = np.concatenate(rows, axis=1)
    expected, taken = by_passes(explainer, net, np.concatenate(x, axis=1), 1, background=joined)
    of_a, of_b = keras.tree.flatten(explanation.values)
    naive.close(of_a, expected[:, :4])
    naive.close(of_b, expected[:, 4:])
    naive.close(explanation.extras["base_values"], np.full(3, net.score(taken, 1).mean()))


def sentence(mask):
    stack = [
        layers.Embedding(9, 4, mask_zero=mask),
        layers.GlobalAveragePooling1D(),
        layers.Dense(5, activation="tanh"),
        layers.Dense(2),
    ]
    return naive.randomize(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))


def test_tokens_are_explained_at_their_embeddings():
    model = sentence(mask=False)
    table, net = model.layers[0].get_weights()[0], naive.Net(model.layers[1:])
    ids, background = np.random.default_rng(0).integers(0, 9, (2, 4, 6))
    explainer = kx.GradientSHAP(background=background, samples=6)
    explanation = explainer(model, ids, 1, batch_size=5)
    expected, rows = by_passes(explainer, net, table[ids], 1, background=table[background])
    naive.close(explanation.values, expected.sum(axis=-1))
    naive.close(explanation.extras["base_values"], np.full(4, net.score(rows, 1).mean()))


def test_masked_tokens_get_zero_and_references_are_read_under_the_inputs_mask():
    model = sentence(mask=True)
    table, net = model.layers[0].get_weights()[0], naive.Net(model.layers[2:])
    ids = np.array([[3, 1, 4, 0, 0, 0], [5, 2, 0, 0, 0, 0], [8, 7, 6, 5, 4, 3]])
    background = np.random.default_rng(0).integers(1, 9, (4, 6))
    kept = (ids > 0)[..., None] / (ids > 0).sum(axis=1)[:, None, None]

    class Masked:
        def gradient(self, embedded, target):
            mean = (embedded * kept).sum(axis=1)
            return kept * net.gradient(mean, target)[:, None]

    explainer = kx.GradientSHAP(background=background, samples=5)
    expected, rows = by_passes(explainer, Masked(), table[ids], 1, background=table[background])
    explanation = explainer(model, ids, 1)
    naive.close(explanation.values, expected.sum(axis=-1))
    base = [net.score((row * kept).sum(axis=1), 1) for row in rows]
    naive.close(explanation.extras["base_values"], np.mean(base, axis=0))


# How sure the values are


@pytest.mark.parametrize("samples", [12, 19])
@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_the_standard_error_is_of_what_rows_do_not_explain(picture, batch_size, samples):
    model, net, x, background = picture
    explainer = kx.GradientSHAP(background=background, samples=samples)
    passes, rows = explainer.passes(0), len(background)
    terms = np.array(
        [
            expected_gradients(net, x, CLASSES, background[[row]], [alpha])
            for row, alpha in zip(passes["reference"], passes["alpha"], strict=True)
        ]
    ).reshape(samples, -1)
    apart = (x - background[passes["reference"]][:, None]).reshape(samples, -1).astype(float)
    beyond = samples % rows
    share = beyond * (1 - beyond / rows) / samples
    expected = []
    for f, d in zip(terms.T, apart.T, strict=True):
        fit = np.polynomial.Polynomial.fit(d, f, 1)(d) if np.ptp(d) else np.full(samples, f.mean())
        left, explained = np.sum((f - fit) ** 2), np.sum((fit - f.mean()) ** 2)
        square = left / (samples - 2) + share * explained / (samples - 1)
        expected.append(np.sqrt(square / samples))
    extras = explainer(model, x, CLASSES, batch_size=batch_size).extras
    found = extras["standard_error"].ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.max(expected))


def test_a_linear_score_has_no_error_in_whole_rounds():
    inputs = keras.Input((4,))
    model = naive.randomize(keras.Model(inputs, layers.Dense(2)(inputs)))
    x, background = np.random.default_rng(0).normal(size=(2, 10, 4)).astype(np.float32)
    found = kx.GradientSHAP(background=background, samples=20)(model, x, 1)
    assert (found.extras["relative_error"] < 1e-3).all()
    some = kx.GradientSHAP(background=background, samples=15)(model, x, 1)
    assert (some.extras["relative_error"] > 1e-2).all()


def test_standard_errors_hold(dense):
    model, _, x, background = dense
    truth = kx.GradientSHAP(background=background, samples=2**13)(model, x, 1, seed=1000).values
    hold, said, true = [], 0.0, 0.0
    for seed in range(60):
        found = kx.GradientSHAP(background=background, samples=18)(model, x, 1, seed=seed)
        off, error = found.values - truth, found.extras["standard_error"]
        hold.append(np.abs(off) <= 1.645 * error)
        said, true = said + np.square(error).sum(), true + np.square(off).sum()
    assert 0.8 < np.mean(hold) < 0.98
    assert 0.8 < np.sqrt(said / true) < 2


def test_until_it_is_sure_it_draws_what_a_number_draws(dense):
    model, _, x, background = dense
    options = {"background": background}
    auto = kx.GradientSHAP(samples="auto", error=0.1, max_passes=4095, **options)(model, x, 1)
    assert (auto.extras["relative_error"] <= 0.1).all()
    for row, passes in enumerate(auto.extras["passes"]):
        fixed = kx.GradientSHAP(samples=int(passes), **options)(model, x, 1)
        naive.close(auto.values[row], fixed.values[row], 1e-6)
        base = fixed.extras["base_values"][row]
        np.testing.assert_allclose(auto.extras["base_values"][row], base, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 50, 96])
def test_the_first_half_of_the_positions_are_those_of_half_as_many(n):
    few, many = backend.random_strata(3, n // 2), backend.random_strata(3, n)
    np.testing.assert_array_equal(few, many[: n // 2])
    in_graph = backend.random_strata(ops.convert_to_tensor(3), n)
    for drawn in (many, np.asarray(in_graph)):
        assert np.floor(np.sort(drawn) * n).tolist() == list(range(n))
