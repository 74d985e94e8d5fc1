"""KernelSHAP's solvers: against formulas written once more, their errors, and which is taken."""

import functools
import itertools
import math

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from keras_explain import ExactShapley, KernelSHAP
from keras_explain.explainers import gaussian_process, kernel_shap
from keras_explain.explainers.kernel_shap import SOLVERS
from tests import naive
from tests.test_shapley import numbers, played, random_games, values_of

REGRESSION, SMOOTH, SCALED = SOLVERS


@functools.cache
def smooth_game(M, seed=0, sharpness=2.0):
    """A layer of tanh, `[1, 1, 2^M]`."""
    every = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    rng = np.random.default_rng(seed)
    hidden = np.tanh(sharpness * every @ rng.normal(size=(M, 8)) / math.sqrt(M))
    return (hidden @ rng.normal(size=8))[None, None]


@functools.cache
def exact_of(M, seed=0, sharpness=2.0):
    return values_of(ExactShapley(), smooth_game(M, seed, sharpness))[0, 0]


# The Gaussian process


class Parities:
    """The prior by its definition: a coefficient for each odd set of features.

    Args:
        present: One coalition of each pair, and the whole, `[P, M]`.
        decay: What each strength is worth of the one before.
        scales: Of the features, `[M]`.
    """

    def __init__(self, present, decay, scales):
        M = present.shape[1]
        odd = [T for k in range(1, M + 1, 2) for T in itertools.combinations(range(M), k)]
        variance = np.array([10 / M if len(T) == 1 else 0.0 for T in odd])
        for power, c in enumerate((0.25, 1, 4, 16)):
            lengths = np.minimum(c * scales / M, 0.9)
            new = np.array([lengths[list(T)].prod() for T in odd])
            variance += decay**power * new / new.sum()
        signs = 2.0 * present - 1
        parity = np.array([signs[:, list(T)].prod(axis=1) for T in odd])  # [sets, P]
        of = np.array([[2 / len(T) if i in T else 0 for T in odd] for i in range(M)])  # [M, sets]
        self.covariance = (parity.T * variance) @ parity
        self.covariance += np.diag([*[1e-9 * self.covariance[-1, -1]] * (len(present) - 1), 0])
        self.cross, self.variance = (of * variance) @ parity, (of**2 * variance).sum(axis=1)

    def level(self, o):
        return o @ np.linalg.solve(self.covariance, o) / len(o)

    def likelihood(self, o):
        log_determinant = np.linalg.slogdet(self.covariance)[1]
        return -(len(o) * np.log(self.level(o)) + log_determinant) / 2

    def off(self, o):
        """The mean square of how far each pair is off, left out, in standard errors."""
        found = []
        for p in range(len(o) - 1):
            rest = np.arange(len(o)) != p
            to_rest = np.linalg.solve(self.covariance[np.ix_(rest, rest)], self.covariance[rest, p])
            spread = self.covariance[p, p] - self.covariance[p, rest] @ to_rest
            found.append((o[p] - to_rest @ o[rest]) ** 2 / spread)
        return np.mean(found)

    def posterior(self, o):
        mean = self.cross @ np.linalg.solve(self.covariance, o)
        left = self.cross @ np.linalg.solve(self.covariance, self.cross.T)
        scale = max(self.level(o), self.off(o))
        return mean, np.sqrt(scale * (self.variance - np.diag(left)))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_process(scaled, seed):
    M, pairs = 5, 11
    whole = np.ones((1, M), bool)
    present = KernelSHAP(samples=2 * pairs).coalitions(M, seed)[1::2]
    game = [random_games(M, seed)[0, 0] - 5, smooth_game(M, seed)[0, 0]][seed % 2]
    odd = (game[numbers(present)] - game[numbers(~present)]) / 2
    gain = game[-1] - game[0]
    o, ends = np.append(odd, gain / 2), np.concatenate([present, whole])
    priors = [Parities(ends, 4.0**-power, np.ones(M)) for power in range(6)]
    best = max(range(6), key=lambda power: priors[power].likelihood(o))
    chosen = priors[best]
    expected, error = chosen.posterior(o)
    if scaled:
        root = np.sqrt(np.abs(expected))
        own = Parities(ends, 4.0**-best, 0.9 * root / root.mean() + 0.1)
        if own.likelihood(o) > chosen.likelihood(o):
            expected, error = own.posterior(o)
    found = gaussian_process.solve(present, odd[:, None], np.array([gain]), scaled=scaled)
    np.testing.assert_allclose(expected.sum(), gain, rtol=1e-6)
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[1][0], error, rtol=1e-4)


def test_scales_are_taken_where_they_suit():
    """Of ten features, two matter."""
    every = (np.arange(2**10)[:, None] >> np.arange(10) & 1).astype(float)
    game = np.tanh(3 * every[:, 0] - 2 * every[:, 7] + 0.1 * every @ np.ones(10))[None, None]
    exact = values_of(ExactShapley(), game)
    off = {
        solver: np.abs(values_of(KernelSHAP(samples=80, solver=solver), game) - exact).max()
        for solver in (SMOOTH, SCALED)
    }
    assert off[SCALED] < off[SMOOTH] / 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_names_of_features_do_not_matter(solver):
    M = 7
    order = np.random.default_rng(1).permutation(M)
    game, explainer = smooth_game(M, 3), KernelSHAP(samples=40, solver=solver)
    present = explainer.coalitions(M, 0)
    values, extras = explainer.values_of(present, game[0, :, numbers(present)][None], game[..., -1])
    relabelled = present[:, order]  # feature i is called order[i] in the game
    moved, error = explainer.values_of(
        relabelled, game[0, :, numbers(present)][None], game[..., -1]
    )
    np.testing.assert_allclose(moved, values[..., order], atol=1e-9)
    np.testing.assert_allclose(
        error["standard_error"], extras["standard_error"][..., order], rtol=1e-4, atol=1e-12
    )


@pytest.mark.parametrize("solver", [SMOOTH, SCALED])
def test_the_unit_of_scores_does_not_matter(solver):
    explainer, game = KernelSHAP(samples=60, solver=solver), smooth_game(8)
    values, extras = played(explainer, game)
    for unit in (1e-6, -1e5):
        times, errors = played(explainer, unit * game + 3 * unit)
        np.testing.assert_allclose(times, unit * values, rtol=1e-6)
        error = abs(unit) * extras["standard_error"]
        np.testing.assert_allclose(errors["standard_error"], error, rtol=1e-5)


def test_pairs_that_say_the_same_twice():
    game = smooth_game(8)[0, 0]
    present = np.repeat(KernelSHAP(samples=40).coalitions(8, 0)[1::2], 2, axis=0)
    odd = (game[numbers(present)] - game[numbers(~present)])[:, None] / 2
    gain = game[-1:] - game[0]
    twice = gaussian_process.solve(present, odd, gain, scaled=False)
    once = gaussian_process.solve(present[::2], odd[::2], gain, scaled=False)
    assert (np.abs(twice[0] - once[0]) < 2 * once[1]).all()  # another decay may be likelier
    np.testing.assert_allclose(twice[0].sum(), gain[0])


@pytest.mark.parametrize("solver", [REGRESSION, SMOOTH])
def test_a_thousand_features(solver):
    """Of so many, the number of coalitions of a size is beyond floating-point numbers."""
    M = 1100
    weight = np.random.default_rng(0).normal(size=M)
    explainer = KernelSHAP(samples=2 * M + 20, solver=solver)
    present = explainer.coalitions(M, 0)
    whole = np.array([[weight.sum()]])
    values, extras = explainer.values_of(present, (present @ weight)[None, :, None], whole)
    assert np.isnan(extras["standard_error"]).all()
    assert np.abs(values[0, 0] - weight).max() < 0.01 * np.abs(weight).max()


# How far off values are


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("M", [3, 6, 9])
def test_all_coalitions_leave_no_error(M, solver):
    games = random_games(M, n=2, K=2)
    values, extras = played(KernelSHAP(samples=2**M - 2, solver=solver), games)
    np.testing.assert_allclose(values, values_of(ExactShapley(), games), atol=1e-10)
    assert not extras["standard_error"].any()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("sharpness", "samples"), [(2.0, 60), (8.0, 60), (8.0, 300)])
def test_intervals_hold(solver, sharpness, samples):
    M, inside = 11, []
    for seed in range(20):
        game = smooth_game(M, seed, sharpness)
        explainer = KernelSHAP(samples=samples, solver=solver)
        values, extras = played(explainer, game, seed)
        off = np.abs(values[0, 0] - exact_of(M, seed, sharpness))
        inside.append(off <= 1.645 * extras["standard_error"][0, 0])
    assert 0.8 <= np.mean(inside) <= 0.98


def rms_of(solver, M, samples, sharpness, draws):
    """The root of the mean square of how far values are off, over games and seeds."""
    explainer = KernelSHAP(samples=samples, solver=solver)
    off = [
        values_of(explainer, smooth_game(M, seed, sharpness), seed) - exact_of(M, seed, sharpness)
        for seed in range(draws)
    ]
    return np.sqrt(np.mean(np.square(off)))


@pytest.mark.parametrize("solver", [SMOOTH, SCALED])
def test_a_process_needs_half_as_many_evaluations(solver):
    assert rms_of(solver, 11, 300, 1.0, 8) < rms_of(REGRESSION, 11, 600, 1.0, 8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_samples_help_from_the_first_on(solver):
    """Beyond those of one feature, a few that are drawn must not spoil the values."""
    rms = [rms_of(solver, 12, samples, 6.0, 12) for samples in (24, 48, 96, 192)]
    assert (np.diff(rms) < 0).all()
    assert rms[2] < 0.8 * rms[0]


def drawn_off(solver, draws):
    """How far the values of a game are off, `[draws, M]`."""
    explainer, game = KernelSHAP(samples=90, solver=solver), smooth_game(8, 5, 6.0)
    found = [values_of(explainer, game, seed)[0, 0] for seed in range(draws)]
    return np.array(found) - exact_of(8, 5, 6.0)


def test_the_regression_is_right_on_average():
    off = drawn_off(REGRESSION, 200)
    error = off.std(axis=0, ddof=1) / math.sqrt(200)
    assert (np.abs(off.mean(axis=0)) < 4.5 * error).all()


def test_a_process_is_nearer_though_what_it_expects_shows():
    off = drawn_off(SMOOTH, 60)
    assert (np.abs(off.mean(axis=0)) < 0.6 * off.std(axis=0)).all()
    assert (off**2).mean() < (drawn_off(REGRESSION, 60) ** 2).mean()


@pytest.mark.parametrize("solver", SOLVERS)
def test_errors_of_too_few_draws_are_unknown(solver):
    game = smooth_game(10)
    for samples, known in ((20, False), (28, False), (30, True)):
        _, extras = played(KernelSHAP(samples=samples, solver=solver), game)
        assert np.isfinite(extras["standard_error"]).all() == known


# Which solver is taken


def deep(units, columns=12):
    stack = [keras.Input((columns,)), layers.Dense(units, "tanh"), layers.Dense(units, "tanh")]
    return naive.randomize(keras.Sequential([*stack, layers.Dense(3)]))


def test_the_solver_is_what_the_model_pays_for():
    x = naive.inputs((12,))
    for number, units in enumerate((8, 60, 600)):
        model = deep(units)
        found = KernelSHAP(samples=100)(model, x, [[0, 1]] * 3)
        named = KernelSHAP(samples=100, solver=SOLVERS[number])(model, x, [[0, 1]] * 3)
        for explanation in (found, named):
            assert explanation.extras["solver"].tolist() == [[number] * 2] * 3
        np.testing.assert_array_equal(found.values, named.values)
    many = KernelSHAP(samples=100, background=naive.inputs((12,), rows=50, seed=1))
    assert many(deep(8), x, 0).extras["solver"].tolist() == [1, 1, 1]


def test_a_process_is_not_taken_where_its_matrices_are_too_large():
    assert kernel_shap._worth(2048, 50, 1e15) == SCALED
    assert kernel_shap._worth(2049, 50, 1e15) == REGRESSION


# Until it is sure


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_a_sample_that_is_done_has_the_values_of_so_many(solver):
    model, x = deep(60), naive.inputs((12,), rows=4)
    found = KernelSHAP(samples="auto", error=0.02, solver=solver)(model, x, 1)
    assert (found.extras["relative_error"] <= 0.02).all()
    assert found.extras["passes"].min() >= 1 + 4 * 12
    for n, passes in enumerate(found.extras["passes"]):
        fixed = KernelSHAP(samples=int(passes) - 1, solver=solver)(model, x, 1)
        naive.close(found.values[n], fixed.values[n], 1e-6)
        assert found.extras["solver"][n] == fixed.extras["solver"][n]


def test_few_features_end_with_all_coalitions():
    model, x = deep(60, columns=7), naive.inputs((7,))
    found = KernelSHAP(samples="auto", error=1e-9)(model, x, 1)
    assert (found.extras["passes"] == 127).all()
    assert not found.extras["relative_error"].any()
    naive.close(found.values, ExactShapley()(model, x, 1).values)


def test_the_most_passes():
    explainer = KernelSHAP(samples="auto", error=1e-9, max_passes=200, solver=SMOOTH)
    with pytest.warns(UserWarning, match="has not reached the relative standard error"):
        found = explainer(deep(60), naive.inputs((12,)), 1)
    assert (found.extras["passes"] == 199).all()
    process = KernelSHAP(samples="auto", solver=SMOOTH)
    assert [process.stops(100)[0], process.stops(100)[-1]] == [401, 4097]
    assert KernelSHAP(samples="auto").stops(100)[-1] == 16383


# What a model is given


@pytest.mark.parametrize("solver", [SMOOTH, SCALED])
def test_tokens_of_several_lengths(solver):
    stack = [layers.Embedding(9, 4), layers.Flatten(), layers.Dense(20, "tanh"), layers.Dense(2)]
    model = naive.randomize(keras.Sequential([keras.Input((9,), dtype="int32"), *stack]))
    ids = np.array([[3, 1, 4, 2, 7, 5, 6, 0, 0], [5, 2, 6, 5, 3, 1, 2, 3, 4], [8] + [0] * 8])
    found = KernelSHAP(samples=60, solver=solver)(model, ids, 1)
    assert not found.values[ids == 0].any()
    assert not found.extras["standard_error"][ids == 0].any()
    assert found.extras["solver"].tolist() == [SOLVERS.index(solver)] * 3
    exact = ExactShapley()(model, ids, 1)
    off = np.abs(found.values - exact.values)
    assert (off <= 5 * found.extras["standard_error"] + 1e-6).all()
    for n in range(3):
        alone = KernelSHAP(samples=60, solver=solver)(model, ids[n : n + 1], 1)
        naive.close(alone.values[0], found.values[n])


def test_a_data_frame():
    model, x = deep(20), naive.inputs((12,))
    table = pd.DataFrame(x, columns=[f"c{i}" for i in range(12)])
    explainer = KernelSHAP(samples=60, solver=SMOOTH)
    np.testing.assert_array_equal(explainer(model, table, 1).values, explainer(model, x, 1).values)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_a_constant_model_is_sure_of_nothing_at_once(solver):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(2, "relu"), layers.Dense(2)])
    model.layers[-1].set_weights([np.zeros((2, 2)), np.full(2, 0.1)])
    with pytest.warns(UserWarning, match="is zero everywhere for all samples"):
        found = KernelSHAP(samples="auto", solver=solver)(model, naive.inputs((12,)), 1)
    assert not found.values.any()
    assert not found.extras["standard_error"].any()
    assert (found.extras["passes"] == 1 + 4 * 12).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "lasso"}, "solver"),
        ({"samples": 5000, "solver": SMOOTH}, "at most 4096 samples for a Gaussian process"),
        ({"samples": 25, "solver": SMOOTH}, "at least 26 samples for 13 features"),
        ({"samples": "auto", "max_passes": 26}, "at least 27 max_passes for 13 features"),
        ({"samples": "auto", "error": 0}, "`error` as a share"),
        ({"samples": 100, "error": 0.1}, '`error` with samples="auto"'),
    ],
)
def test_bad_configurations(options, said):
    with pytest.raises(ValueError, match=said):
        KernelSHAP(**options)(deep(4, columns=13), naive.inputs((13,)), 0)
