"""Shapley values: against the mean over all orders, their axioms, and errors as large as derived.

Most of it is tried on games: arrays of numbers `[n, K, 2^M]`, one for each coalition of M features,
whose number has a bit for each feature in it. The rest is about what a model's score is as a game.
"""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from scipy import stats

import keras_explain as kx
from keras_explain import ExactShapley, KernelSHAP, ShapleySampling
from keras_explain.explainers import shapley
from keras_explain.explainers.kernel_shap import SOLVERS
from tests import naive

EXACT = {"exact": ExactShapley(), "kernel": KernelSHAP()}
SAMPLED = {"few coalitions": KernelSHAP(samples=24), "orders": ShapleySampling(samples=3)}
PROCESSES = {name: KernelSHAP(samples=24, solver=name) for name in SOLVERS[1:]}
ALL = EXACT | SAMPLED
seeds, features = st.integers(0, 2**16), st.integers(1, 6)


# Naive formulas


def permuted(game, M):
    """The Shapley values `[M, ...]` of `game(set)`: the mean over all orders."""
    score, values = functools.cache(game), [0.0] * M
    for order in itertools.permutations(range(M)):
        for position, i in enumerate(order):
            before = frozenset(order[:position])
            values[i] = values[i] + score(before | {i}) - score(before)
    return np.array(values) / math.factorial(M)


def kernel(M, size):
    """Lundberg and Lee, 2017, theorem 2."""
    return (M - 1) / (math.comb(M, size) * size * (M - size))


def fitted(sets, weights, game, M):
    """Least squares over coalitions, where the last feature gets what the others leave."""
    whole, base = game(frozenset(range(M))), game(frozenset())
    rows, targets = [], []
    for chosen in sets:
        last = M - 1 in chosen
        rows.append([(i in chosen) - last for i in range(M - 1)])
        targets.append(game(chosen) - base - last * (whole - base))
    root = np.sqrt(weights)[:, None]
    first = np.linalg.lstsq(root * np.array(rows, float), root[:, 0] * targets)[0]
    return np.append(first, whole - base - first.sum())


def weights_of(sets, M):
    """Those of a size stand for all of it; of sizes that are drawn from, as many are expected."""
    found = {size: sum(len(chosen) == size for chosen in sets) for size in range(1, M)}
    partial = [size for size, number in found.items() if number < math.comb(M, size)]
    drawn = sum(found[size] for size in partial) / len(partial) or 1
    stands_for = {size: math.comb(M, size) / drawn if size in partial else 1 for size in found}
    return np.array([kernel(M, len(chosen)) * stands_for[len(chosen)] for chosen in sets])


# Games


def random_games(M, seed=0, n=1, K=1):
    return np.random.default_rng(seed).normal(size=(n, K, 2**M)) + 5


def numbers(present):
    return present @ 2 ** np.arange(present.shape[1])


def played(explainer, games, seed=0):
    """The values `[n, K, M]` of games, and extras."""
    M = int(math.log2(games.shape[-1]))
    present = explainer.coalitions(M, seed)
    scores = np.swapaxes(games[..., numbers(present)], 1, 2)
    values, extras = explainer.values_of(present, scores, games[..., -1])
    assert np.isfinite(values).all()
    return values, extras


def values_of(explainer, games, seed=0):
    return played(explainer, games, seed)[0]


def sets_of(explainer, M, seed=0):
    """The coalitions as sets of features."""
    return [frozenset(np.flatnonzero(row)) for row in explainer.coalitions(M, seed)]


def by_set(game):
    return lambda chosen: game[sum(2 ** int(i) for i in chosen)]


def by_size(M):
    """The number of features in each of the `2^M` coalitions."""
    return np.array([bin(number).count("1") for number in range(2**M)])


@pytest.mark.parametrize("explainer", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("M", range(1, 7))
def test_the_mean_over_all_orders(explainer, M):
    games = random_games(M, n=2, K=2)
    values, extras = played(explainer, games)
    for n, k in np.ndindex(2, 2):
        np.testing.assert_allclose(values[n, k], permuted(by_set(games[n, k]), M), atol=1e-12)
    np.testing.assert_array_equal(extras["base_values"], games[..., 0])


@pytest.mark.parametrize("explainer", EXACT.values(), ids=EXACT)
def test_one_left_and_two_right_gloves(explainer):
    """A pair is worth 1: Shapley's 2/3, 1/6 and 1/6."""
    gloves = [min(number & 1, number >> 1 & 1 | number >> 2 & 1) for number in range(8)]
    values = values_of(explainer, np.array(gloves, float)[None, None])
    np.testing.assert_allclose(values, [[[2 / 3, 1 / 6, 1 / 6]]], atol=1e-14)


@pytest.mark.parametrize("explainer", EXACT.values(), ids=EXACT)
def test_the_longest_runway_is_paid_by_those_who_need_it(explainer):
    """Littlechild and Owen's airport game: each stretch is shared by those who use it."""
    need = np.array([1.0, 2.0, 4.0, 7.0])
    costs = [max([n for i, n in enumerate(need) if s >> i & 1], default=0.0) for s in range(16)]
    expected = np.cumsum(np.diff(need, prepend=0.0) / [4, 3, 2, 1])
    np.testing.assert_allclose(values_of(explainer, np.array([[costs]]))[0, 0], expected)


@pytest.mark.parametrize("M", [7, 9, 11, 12])
def test_an_enumerated_regression_is_exact(M):
    games = random_games(M, seed=M, n=2)
    explainer = KernelSHAP(samples=2**M - 2)
    assert len(explainer.coalitions(M, 0)) == 2**M - 1
    np.testing.assert_allclose(
        values_of(explainer, games), values_of(ExactShapley(), games), atol=1e-10
    )


# Axioms


@naive.few
@given(M=features, seed=seeds)
def test_efficiency(M, seed):
    games = 1e3 * random_games(M, seed, n=2, K=2)
    for explainer in (ALL | PROCESSES).values():
        values, extras = played(explainer, games, seed)
        gain = games[..., -1] - games[..., 0]
        np.testing.assert_allclose(values.sum(axis=-1), gain, atol=1e-9)
        delta = extras["convergence_delta"]
        np.testing.assert_array_equal(delta, values.sum(axis=-1) - gain)


@naive.few
@given(M=st.integers(2, 6), seed=seeds, data=st.data())
def test_symmetry(M, seed, data):
    i, j = data.draw(st.permutations(range(M)))[:2]
    every = np.arange(2**M)
    swap = every & ~(1 << i | 1 << j) | (every >> i & 1) << j | (every >> j & 1) << i
    games = random_games(M, seed)
    games = games + games[..., swap]
    for explainer in EXACT.values():
        values = values_of(explainer, games)[0, 0]
        np.testing.assert_allclose(values[i], values[j], atol=1e-12)


@naive.few
@given(M=features, seed=seeds, data=st.data())
def test_a_dummy_gets_what_it_brings_alone(M, seed, data):
    i = data.draw(st.integers(0, M - 1))
    every = np.arange(2**M)
    for alone in (0.0, 2.5):
        games = random_games(M, seed)[..., every & ~(1 << i)] + alone * (every >> i & 1)
        for explainer in (*EXACT.values(), SAMPLED["orders"]):
            values = values_of(explainer, games)[0, 0, i]
            np.testing.assert_allclose(values, alone, atol=1e-12)


@naive.few
@given(M=features, seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linearity(M, seed, a, b):
    first, second = random_games(M, seed), random_games(M, seed + 1)
    for explainer in ALL.values():
        together = values_of(explainer, a * first + b * second)
        apart = a * values_of(explainer, first) + b * values_of(explainer, second)
        np.testing.assert_allclose(together, apart, atol=1e-10)


@pytest.mark.parametrize("explainer", (ALL | PROCESSES).values(), ids=ALL | PROCESSES)
@pytest.mark.parametrize("M", [1, 2, 6])
def test_a_constant_game_is_zero(explainer, M):
    values, extras = played(explainer, np.full((2, 3, 2**M), 0.1))
    assert not values.any()
    assert not any(extras[name].any() for name in extras.keys() - {"base_values"})


@pytest.mark.parametrize("explainer", SAMPLED.values(), ids=SAMPLED)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_exact_where_no_more_than_two_features_act_together(explainer, seed):
    rng, M = np.random.default_rng(seed), 7
    present = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    games = (present @ rng.normal(size=M) + ((present @ rng.normal(size=(M, M))) * present).sum(1))[
        None, None
    ]
    values, extras = played(explainer, games, seed)
    np.testing.assert_allclose(values, values_of(ExactShapley(), games), atol=1e-12)
    np.testing.assert_allclose(extras.get("standard_error", 0), 0, atol=1e-12)


# Coalitions of the regression


@pytest.mark.parametrize(
    ("M", "samples"),
    [
        (1, 1),
        (2, 2),
        (5, 29),
        (6, 12),
        (7, 40),
        (8, 253),
        (9, 101),
        (10, 700),
        (40, 300),
        (300, 601),
    ],
)
def test_coalitions_are_different_and_come_with_their_complements(M, samples):
    empty, *sets = sets_of(KernelSHAP(samples=samples), M)
    assert not empty
    assert len(sets) == len(set(sets))
    assert {frozenset(range(M)) - chosen for chosen in sets} == set(sets)
    assert sum(len(chosen) == 1 for chosen in sets) == (M > 1) * M
    most = min(samples, 2**M - 2)
    assert len(sets) == most - most % 2


@pytest.mark.parametrize(("M", "pairs"), [(7, 30), (12, 300), (40, 130), (300, 900)])
def test_after_those_of_one_feature_each_size_gets_as_many(M, pairs):
    sizes = np.array([len(chosen) for chosen in sets_of(KernelSHAP(samples=2 * pairs), M)[1:]])
    found = np.bincount(sizes, minlength=M)[1:]
    number = np.array([math.comb(M, size) for size in range(1, M)], float)
    assert found[0] == found[-1] == M
    np.testing.assert_array_equal(found, found[::-1])
    left = found < number
    left[[0, -1]] = False
    whole = found[~left]
    assert np.ptp(found[left]) <= 2  # a pair, which of size M / 2 counts twice
    assert (whole == number[~left]).all()
    assert (whole[1:-1] <= found[left].max(initial=math.inf if not left.any() else 0)).all()
    assert (sizes[: 2 * M : 2] == 1).all()


def test_every_size_has_the_same_chance_of_one_more():
    """Of 40 features and 33 pairs beside those of one feature, over the seeds."""
    seeds, found = 300, []
    for seed in range(seeds):
        sizes = [len(chosen) for chosen in sets_of(KernelSHAP(samples=80 + 66), 40, seed)]
        found.append(np.bincount([min(s, 40 - s) for s in sizes], minlength=21)[2:] / 2)
    share = np.append(np.ones(18), 0.5)
    expected = 33 * share / share.sum()
    error = np.std(found, axis=0) / math.sqrt(seeds)
    assert (np.abs(np.mean(found, axis=0) - expected) <= 4 * error + 0.05).all()


@pytest.mark.parametrize("M", [2, 3, 5, 8, 11, 12, 40])
def test_fewer_coalitions_are_the_beginning(M):
    every = 2 ** (M - 1) - 1
    most = KernelSHAP(samples=2 * min(every, 700)).coalitions(M, 3)
    for pairs in {min(every, M), min(every, M + 1), min(every, 3 * M), min(every, 200)}:
        few = KernelSHAP(samples=2 * pairs).coalitions(M, 3)
        np.testing.assert_array_equal(few, most[: 1 + 2 * pairs])
    orders = ShapleySampling(samples=9).coalitions(M, 3)
    few = ShapleySampling(samples=4).coalitions(M, 3)
    np.testing.assert_array_equal(few, orders[: len(few)])


def test_the_default_is_two_a_feature_and_2048():
    assert len(KernelSHAP().coalitions(11, 0)) == 2**11 - 1
    assert len(KernelSHAP().coalitions(12, 0)) == 1 + 24 + 2048
    assert len(KernelSHAP().coalitions(100, 0)) == 1 + 200 + 2048


@pytest.mark.parametrize(("M", "samples"), [(6, 12), (6, 20), (7, 40), (8, 100), (9, 101)])
def test_the_regression(M, samples):
    explainer, games = KernelSHAP(samples=samples), random_games(M, n=1, K=2)
    sets = sets_of(explainer, M, seed=3)[1:]
    values = values_of(explainer, games, seed=3)
    for k in range(2):
        expected = fitted(sets, weights_of(sets, M), by_set(games[0, k]), M)
        np.testing.assert_allclose(values[0, k], expected, atol=1e-10)


def test_drawn_coalitions_stand_for_all():
    """The mean of weighted sums over coalitions is the kernel's sum over all."""
    M, samples, draws = 7, 40, 300
    games = random_games(M)[0, 0]
    every = [frozenset(c) for size in range(1, M) for c in itertools.combinations(range(M), size)]
    expected = sum(kernel(M, len(chosen)) * _moments(chosen, games, M) for chosen in every)
    found = []
    for seed in range(draws):
        sets = sets_of(KernelSHAP(samples=samples), M, seed)[1:]
        weights = weights_of(sets, M)
        found.append(sum(w * _moments(s, games, M) for w, s in zip(weights, sets, strict=True)))
    error = np.std(found, axis=0, ddof=1) / math.sqrt(draws)
    assert error.max() > 1e-3
    assert (np.abs(np.mean(found, axis=0) - expected) < 4.5 * error + 1e-9).all()


def _moments(chosen, game, M):
    """What least squares sum up over coalitions: which features meet, and the score with each."""
    z = np.array([i in chosen for i in range(M)], float)
    return np.append(np.outer(z, z), by_set(game)(chosen) * z)


@pytest.mark.parametrize(("M", "samples"), [(11, 60), (11, 240), (12, 960)])
def test_the_error_of_the_regression(M, samples):
    """It is that of a mean over independent pairs, or less, as no pair is drawn twice.

    With the residuals e of the exact fit, the error is `G^-1 sum of weights * z (e(z) - e(not z))`
    to first order, where z has the mean 0 and the matrix G of moments is a multiple of one.
    """
    every = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    rng = np.random.default_rng(M)
    games = np.tanh(2 * every @ rng.normal(size=(M, 8)) / math.sqrt(M)) @ rng.normal(size=8)
    exact = values_of(ExactShapley(), games[None, None])[0, 0]

    size, inner = by_size(M), slice(1, -1)
    p = np.array([kernel(M, s) for s in size[inner]])
    z = (every - size[:, None] / M)[inner]
    G = np.trace((z.T * p) @ z) / (M - 1)
    e = (games - games[0] - every @ exact)[inner]
    found = np.bincount(KernelSHAP(samples=samples).coalitions(M, 0).sum(axis=1), minlength=M)
    partial = np.array([found[s] < math.comb(M, s) for s in size[inner]])
    left, pairs = p[partial].sum(), sum(found[s] for s in set(size[inner][partial])) / 2
    terms = z[partial] * (e - e[::-1])[partial, None]  # of two complements the numbers sum to 2^M-1
    share = p[partial, None] / left
    variance = (share * (terms - (share * terms).sum(axis=0)) ** 2).sum()
    expected = math.sqrt((left / 2) ** 2 / pairs * variance) / G

    errors = [
        values_of(KernelSHAP(samples=samples), games[None, None], seed)[0, 0] - exact
        for seed in range(60)
    ]
    observed = math.sqrt(np.mean(np.sum(np.square(errors), axis=1)))
    assert 0.5 * expected < observed < 1.2 * expected


def test_four_times_the_samples_halve_the_error():
    M = 14
    every = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    rng = np.random.default_rng(0)
    games = np.tanh(every @ rng.normal(size=(M, 8)) / 2) @ rng.normal(size=8)
    exact = values_of(ExactShapley(), games[None, None])
    for few, many in (
        (KernelSHAP(samples=150), KernelSHAP(samples=600)),
        (ShapleySampling(samples=10), ShapleySampling(samples=40)),
    ):
        rms = [
            np.std([values_of(e, games[None, None], seed) - exact for seed in range(30)])
            for e in (few, many)
        ]
        assert 1.6 < rms[0] / rms[1] < 2.8


# Orders


def walked(present, game, M, samples):
    """The means and standard errors over orders, read from the coalitions one by one."""
    sets = [frozenset(np.flatnonzero(row)) for row in present[1:]]
    pairs = []
    for t in range(samples):
        total = np.zeros(M)
        for way in range(2):
            start = (2 * t + way) * (M - 1)
            chain = [frozenset(), *sets[start : start + M - 1], frozenset(range(M))]
            for before, after in itertools.pairwise(chain):
                (i,) = after - before
                total[i] += game(after) - game(before)
        pairs.append(total / 2)
    return np.mean(pairs, axis=0), np.std(pairs, axis=0, ddof=1) / math.sqrt(samples)


@pytest.mark.parametrize("M", [1, 2, 5, 30])
def test_orders_are_walked_forth_and_back(M):
    explainer = ShapleySampling(samples=4)
    present = explainer.coalitions(M, 0)
    table = dict(zip(map(frozenset, map(np.flatnonzero, present)), range(10**6), strict=False))
    noise = np.random.default_rng(0).normal(size=(2, len(present) + 1, 3))
    position = [table[frozenset(np.flatnonzero(row))] for row in present]
    values, extras = explainer.values_of(present, noise[:, position], noise[:, -1])
    for n, k in np.ndindex(2, 3):
        score = noise[n, :, k]
        game = lambda s, score=score: score[table[s]] if len(s) < M else score[-1]  # noqa: E731
        mean, error = walked(present, game, M, 4)
        np.testing.assert_allclose(values[n, k], mean, atol=1e-12)
        np.testing.assert_allclose(extras["standard_error"][n, k], error, atol=1e-12)
    forth = present[1:].reshape(4, 2, M - 1, M)
    np.testing.assert_array_equal(forth[:, 1], ~forth[:, 0, ::-1])


def test_every_order_is_as_likely():
    present = ShapleySampling(samples=6000).coalitions(3, 0)[1:].reshape(6000, 2, 2, 3)
    orders = numbers(present[:, 0].reshape(-1, 3)).reshape(-1, 2) @ [1, 8]
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(6000 * 5 / 36)


def test_means_are_unbiased_and_standard_error_true():
    M, samples, draws = 6, 20, 500
    games = random_games(M)
    exact = values_of(ExactShapley(), games)[0, 0]
    found = [played(ShapleySampling(samples=samples), games, seed) for seed in range(draws)]
    values = np.array([value[0, 0] for value, _ in found])
    errors = np.array([extras["standard_error"][0, 0] for _, extras in found])
    spread = values.std(axis=0, ddof=1)
    assert (np.abs(values.mean(axis=0) - exact) < 4.5 * spread / math.sqrt(draws)).all()
    said = np.sqrt((errors**2).mean(axis=0))
    assert (said > 0.95 * spread).all()  # orders at right angles make up for one another
    assert (said < 1.5 * spread).all()
    covered = np.abs(values - exact) < stats.t.ppf(0.95, samples - 1) * errors
    assert (covered.mean(axis=0) > 0.9 - 4.5 * math.sqrt(0.9 * 0.1 / draws)).all()
    assert covered.mean() < 0.98


def test_orders_at_right_angles_are_nearer_than_independent_ones(monkeypatch):
    def rms():
        off = [values_of(ShapleySampling(samples=25), games, seed) - exact for seed in range(60)]
        return np.sqrt(np.mean(np.square(off)))

    every = (np.arange(2**10)[:, None] >> np.arange(10) & 1).astype(float)
    rng = np.random.default_rng(0)
    games = (np.tanh(every @ rng.normal(size=(10, 8))) @ rng.normal(size=8))[None, None]
    exact = values_of(ExactShapley(), games)
    orthogonal = rms()
    monkeypatch.setattr(shapley, "TOGETHER", 1)
    assert orthogonal < 0.9 * rms()


@pytest.mark.parametrize("explainer", SAMPLED.values(), ids=SAMPLED)
def test_seeds(explainer):
    games = random_games(6)
    np.testing.assert_array_equal(values_of(explainer, games, 4), values_of(explainer, games, 4))
    assert np.abs(values_of(explainer, games, 5) - values_of(explainer, games, 4)).max() > 1e-3


# Models


def shapley_of(score, x, labels, fills):
    """The values at each place of one sample, by hiding features one set at a time.

    Args:
        score: `[n, ...]` to `[n]`.
        x: The sample.
        labels: The feature of each number of it, -1 for none.
        fills: What takes the place of what is hidden, `[N, ...]`; the score is averaged over it.
    """

    def game(chosen):
        seen = np.isin(labels, [-1, *chosen])
        return np.mean([score(np.where(seen, x, fill)[None])[0] for fill in fills])

    values = np.append(permuted(game, labels.max() + 1), 0)
    return values[labels], game(())  # -1 is the zero at the end


def check_model(explanation, scores, x, labels, fills, index):
    """Values `[B, ...]` and base values of classes `[B]`."""
    for b in range(len(x)):
        score = lambda v, c=index[b]: scores(v)[:, c]  # noqa: E731
        values, base = shapley_of(score, x[b], labels[b], fills)
        naive.close(explanation.values[b], values, 3e-5)
        np.testing.assert_allclose(explanation.extras["base_values"][b], base, atol=1e-5)
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-6)


@pytest.fixture(scope="module")
def dense():
    model = naive.perceptron()
    return model, naive.Net([model]), naive.inputs((5,))


GROUPS = [0, 2, 2, -1, 7]  # as given; numbered 0, 1, 1, none, 2
LABELS = np.tile([0, 1, 1, -1, 2], (3, 1))
INDEX = np.array([0, 2, 1])


@pytest.mark.parametrize("explainer", [ExactShapley, KernelSHAP])
def test_groups_of_columns(dense, explainer):
    model, net, x = dense
    explanation = explainer(groups=GROUPS, baseline=0.3)(model, x, INDEX)
    check_model(explanation, net.scores, x, LABELS, [0.3], INDEX)
    np.testing.assert_array_equal(explanation.values[:, 1], explanation.values[:, 2])


@pytest.mark.parametrize("explainer", [ExactShapley, KernelSHAP])
def test_a_background_is_averaged_over(dense, explainer):
    model, net, x = dense
    rows = naive.inputs((5,), rows=4, seed=9)
    explanation = explainer(background=rows)(model, x, INDEX, batch_size=7)
    check_model(explanation, net.scores, x, np.tile(np.arange(5), (3, 1)), rows, INDEX)


def test_several_classes(dense):
    model, _, x = dense
    many = np.array([[0, 1], [2, 2], [1, 0]])
    smooth = KernelSHAP(samples=16, solver="gaussian_process")
    for explainer in (ExactShapley(), KernelSHAP(samples=16), smooth, ShapleySampling(samples=2)):
        together = explainer(model, x, many)
        assert together.extras["base_values"].shape == (3, 2)
        for k in range(2):
            alone = explainer(model, x, many[:, k])
            naive.close(together.values[:, k], alone.values)
            for name, extra in alone.extras.items():
                np.testing.assert_allclose(together.extras[name][:, k], extra, atol=1e-5)


def test_orders_of_a_model_and_their_errors_at_each_place(dense):
    model, net, x = dense
    explainer = ShapleySampling(groups=GROUPS, samples=40)
    explanation = explainer(model, x, 1, seed=2)
    exact = ExactShapley(groups=GROUPS)(model, x, 1)
    errors = explanation.extras["standard_error"]
    assert errors.shape == explanation.values.shape
    assert not errors[:, 3].any()
    np.testing.assert_array_equal(errors[:, 1], errors[:, 2])
    assert (np.abs(explanation.values - exact.values) <= 5 * errors + 1e-6).all()
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-6)
    total = explanation.values[:, [0, 1, 4]].sum(axis=1)
    naive.close(total, net.score(x, 1) - net.score(np.where(LABELS < 0, x, 0), 1))
    assert np.abs(explainer(model, x, 1, seed=3).values - explanation.values).max() > 1e-4


def test_tokens_with_padding():
    stack = [layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3, activation="tanh")]
    stack = [keras.Input((5,), dtype="int32"), *stack, layers.Dense(2)]
    model = naive.randomize(keras.Sequential(stack))
    table, net = model.layers[0].get_weights()[0], naive.Net(model.layers[1:])
    ids = np.array([[3, 1, 4, 0, 0], [5, 2, 6, 5, 3], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    labels = np.where(ids == 0, -1, np.arange(5))
    explainer = KernelSHAP(features=kx.features.Tokens(mask=7))
    with pytest.warns(UserWarning, match="zero everywhere for some"):  # the empty text
        explanation = explainer(model, ids, 1)
    check_model(explanation, lambda v: net.scores(table[v]), ids, labels, [7], [1, 1, 1, 1])
    with pytest.warns(UserWarning, match="zero everywhere for some"):
        orders = ShapleySampling(features=explainer.features, samples=2)(model, ids, 1)
    assert not orders.extras["standard_error"][ids == 0].any()
    naive.close(orders.values[2, 0], explanation.values[2, 0])


def test_patches_of_a_picture():
    model, x = naive.network(), naive.inputs((8, 6, 2), rows=2)
    explainer = KernelSHAP(features=kx.features.Patches(4), baseline=-0.2)
    explanation = explainer(model, x, [3, 0])
    patch = np.arange(8)[:, None] // 4 * 2 + np.arange(6) // 4
    labels = np.tile(patch[None, ..., None], (2, 1, 1, 2))
    assert explanation.values.shape == (2, 8, 6)
    twice = kx.Explanation(  # at each number, as the naive formula has it
        **{**vars(explanation), "values": np.repeat(explanation.values[..., None], 2, axis=-1)}
    )
    check_model(twice, naive.Net([model]).scores, x, labels, [-0.2], [3, 0])
    np.testing.assert_array_equal(explanation.extras["features"], labels[..., 0])


def test_several_inputs_play_together():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(layers.Concatenate()([a, b])))
    model = naive.randomize(keras.Model({"a": a, "b": b}, head))
    net, xa, xb = naive.Net(model.layers[-2:]), naive.inputs((3,)), naive.inputs((2,), seed=1)
    x = np.concatenate([xa, xb], axis=1)
    explanation = ExactShapley(groups={"a": [0, 0, 1], "b": [0, 1]})(model, {"a": xa, "b": xb}, 1)
    joined = kx.Explanation(
        **{**vars(explanation), "values": np.concatenate([*explanation.values.values()], axis=1)}
    )
    check_model(joined, net.scores, x, np.tile([0, 0, 1, 2, 3], (3, 1)), [0.0], [1, 1, 1])
    errors = ShapleySampling(samples=2)(model, {"b": xb, "a": xa}, 1).extras["standard_error"]
    assert {name: error.shape for name, error in errors.items()} == {"a": (3, 3), "b": (3, 2)}


@pytest.mark.parametrize("explainer", ALL.values(), ids=ALL)
def test_a_constant_model_gets_zeros(explainer):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, "relu"), layers.Dense(2)])
    model.layers[-1].set_weights([np.zeros((2, 2)), np.full(2, 0.1)])
    with pytest.warns(UserWarning, match="is zero everywhere for all samples"):
        explanation = explainer(model, naive.inputs((6,)), 1)
    assert not explanation.values.any()
    np.testing.assert_allclose(explanation.extras["base_values"], 0.1)
    assert not explanation.extras["convergence_delta"].any()


# Bad input


@pytest.mark.parametrize(("cls", "least"), [(KernelSHAP, 1), (ShapleySampling, 2)])
@pytest.mark.parametrize("samples", [0, -3, 2.5, True])
def test_samples_are_a_whole_number(cls, least, samples):
    with pytest.raises(ValueError, match=f"`samples` to be a whole number of {least} or more"):
        cls(samples=samples)


def test_one_order_has_no_error():
    with pytest.raises(ValueError, match=r"whole number of 2 or more.*Received: samples=1\."):
        ShapleySampling(samples=1)


def test_too_many_features_for_all_coalitions():
    model = naive.perceptron(21)
    hint = r"at most 20 features for ExactShapley.*Received: 21 features.*`groups=`.*KernelSHAP"
    with pytest.raises(ValueError, match=hint):
        ExactShapley()(model, naive.inputs((21,)))
    assert ExactShapley().coalitions(20, 0).shape == (2**20 - 1, 20)


def test_too_few_samples_for_the_features(dense):
    model, _, x = dense
    hint = r"Expected at least 10 samples for 5 features.*Received: samples=9\. Take more, or fewer"
    with pytest.raises(ValueError, match=hint):
        KernelSHAP(samples=9)(model, x)
    assert KernelSHAP(samples=10)(model, x).values.any()
    assert KernelSHAP(samples=2, groups=[0, 0, 1, 1, 1])(model, x).values.any()
