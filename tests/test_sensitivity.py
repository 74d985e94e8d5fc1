"""Sobol indices and HSIC: the papers' formulas by loops, and functions whose indices are known."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_explain import features
from keras_explain.explainers.sensitivity import HSICAttribution, SobolAttribution
from tests import models, naive

CLASSES = np.array([0, 3, 1])
BOTH = (SobolAttribution, HSICAttribution)


# The formulas, by loops


def sobol(present, scores, order="total"):
    """The indices of scores at A, B, and each A with a column of B, one point after the other.

    From 16 points on, the part that is linear in the shares is exchanged for its expectations.
    """
    count = present.shape[1]
    points = present.reshape(-1, count + 2, count).astype(np.float64)
    y, n = scores.reshape(-1, count + 2), len(points)
    mean = y[:, :2].mean()
    terms, variance = np.zeros((n, count)), np.zeros(n)
    for p in range(n):
        a, b, *others = y[p]
        variance[p] = ((a - mean) ** 2 + (b - mean) ** 2) / 2
        for i, other in enumerate(others):
            total = (other - a) ** 2 / 2
            terms[p, i] = total if order == "total" else (other - a) * (b - mean)
    for p in range(n if n >= 16 else 0):
        rest = [q for q in range(n) if q // (n // 16) != p // (n // 16)]
        slope = np.zeros(count)
        for i in range(count):
            moved = [points[q, 1, i] - points[q, 0, i] for q in rest]
            slope[i] = np.dot(moved, [y[q, 2 + i] - y[q, 0] for q in rest]) / np.dot(moved, moved)
        at_a, at_b = (slope @ (points[p, k] - 0.5) for k in (0, 1))
        variance[p] += (slope @ slope) / 12 - (at_a**2 + at_b**2) / 2
        for i in range(count):
            change = slope[i] * (points[p, 1, i] - points[p, 0, i])
            total = change**2 / 2
            terms[p, i] += slope[i] ** 2 / 12 - (total if order == "total" else change * at_b)
    return terms.mean(axis=0) / variance.mean()


def hsic(present, scores):
    """The trace of the paper, with each matrix written out."""
    n = len(scores)
    apart = [abs(scores[i] - scores[j]) for i in range(n) for j in range(i)]
    s, center = np.median(apart) or np.sqrt(np.mean(np.square(apart))), np.eye(n) - 1 / n
    out = np.array([[np.exp(-((p - q) ** 2) / (2 * s**2)) for q in scores] for p in scores])
    found = []
    for column in present.T:
        inside = np.array([[0.5 if p == q else -0.5 for q in column] for p in column])
        found.append(np.trace(inside @ center @ out @ center) / (n - 1) ** 2)
    return np.array(found)


def of(explainer, fn, count, seed=0):
    """The indices of a NumPy function of the shares of `count` features, `[count]`."""
    return sure(explainer, fn, count, seed)[0]


def sure(explainer, fn, count, seed=0):
    """The same, and their standard errors."""
    present = explainer.coalitions(count, seed)
    scores = np.asarray(fn(present.astype(np.float64)), np.float64)
    values, extras = explainer.values_of(present, scores[None, :, None], np.zeros((1, 1)))
    return values[0, 0], extras["standard_error"][0, 0]


def seen(score, x, present, labels):
    """The scores `[n, passes, K]` of inputs whose features are scaled by their shares."""
    found = []
    for z in present.astype(np.float64):
        visible = z[labels]
        visible = visible.reshape(*visible.shape, *(1 for _ in range(x.ndim - 1 - visible.ndim)))
        found.append(score(visible * x))
    return np.stack(found, axis=1)


def ishigami(z):
    a, b, c = (2 * np.pi * z - np.pi).T
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


COEFFICIENTS = np.array([0.0, 1.0, 4.5, 9.0, 99.0])


def g_function(z):
    return np.prod((np.abs(4 * z - 2) + COEFFICIENTS) / (1 + COEFFICIENTS), axis=1)


# Sobol


@pytest.mark.parametrize("order", ["total", "first"])
def test_ishigami(order):
    expected = {"total": [0.5576, 0.4424, 0.2437], "first": [0.3139, 0.4424, 0.0]}[order]
    found = of(SobolAttribution(designs=1024, order=order), ishigami, 3)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("order", ["total", "first"])
def test_the_g_function(order):
    parts = 1 / (3 * (1 + COEFFICIENTS) ** 2)
    variance = np.prod(1 + parts) - 1
    others = np.prod(1 + parts) / (1 + parts)
    expected = parts * (others if order == "total" else 1) / variance
    found = of(SobolAttribution(designs=1024, order=order), g_function, 5)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("order", ["total", "first"])
def test_an_additive_function_has_the_shares_of_its_variance(order):
    weights = np.array([3.0, -2.0, 1.0, 0.0])
    found = of(SobolAttribution(designs=256, order=order), lambda z: z @ weights, 4)
    np.testing.assert_allclose(found, weights**2 / (weights**2).sum(), atol=0.02)


@pytest.mark.parametrize("order", ["total", "first"])
def test_alike_features_have_like_indices_and_a_dummy_has_none(order):
    explainer = SobolAttribution(designs=512, order=order)
    found = of(explainer, lambda z: z[:, 0] * z[:, 1], 3)
    np.testing.assert_allclose(found[0], found[1], atol=0.03)
    assert found[2] == 0
    interaction = 1 / 7  # variances: 1/48 each alone, 1/144 of both
    expected = {"total": 1 + interaction, "first": 1 - interaction}[order]
    np.testing.assert_allclose(found.sum(), expected, atol=0.03)


@pytest.mark.parametrize("order", ["total", "first"])
@pytest.mark.parametrize("designs", [2, 8, 16, 64])
def test_it_is_the_papers_estimator(designs, order):
    explainer = SobolAttribution(designs=designs, order=order)
    present = explainer.coalitions(5, 0)
    noise = np.random.default_rng(0).normal(size=(2, len(present), 3))
    scores = noise + 3 * present[:, :3] * present[:, 1:4]
    values, extras = explainer.values_of(present, scores, scores[:, 0])
    assert values.shape == extras["standard_error"].shape == (2, 3, 5)
    for i, k in np.ndindex(2, 3):
        naive.close(values[i, k], sobol(present, scores[i, :, k], order), 1e-9)


@pytest.mark.parametrize("order", ["total", "first"])
def test_a_linear_score_has_exact_indices(order):
    weights = np.array([3.0, -2.0, 1.0, 0.0])
    found, error = sure(SobolAttribution(designs=16, order=order), lambda z: 5 + z @ weights, 4)
    atol = 1e-3 if order == "total" else 0.15  # but for the mean of all scores
    np.testing.assert_allclose(found, weights**2 / (weights**2).sum(), atol=atol)
    assert found[3] == error[3] == 0
    assert (error < 10 * atol).all()


def pairs(z, strength=1.0):
    """A score with interactions, whose variances are known."""
    away = z - 0.5
    crossed = 4 * away[:, 0] * away[:, 1] + 3 * away[:, 2] * away[:, 3]
    return away @ [2.0, -1.0, 0.5, 0.0, 0.0] + strength * crossed


LINEAR, CROSSED = np.array([4, 1, 0.25, 0, 0]) / 12, np.array([16, 16, 9, 9, 0]) / 144
PAIRS = {"total": LINEAR + CROSSED, "first": LINEAR}


@pytest.mark.parametrize("order", ["total", "first"])
@pytest.mark.parametrize("designs", [16, 64])
def test_the_error_of_indices_holds(designs, order):
    expected = PAIRS[order] / (LINEAR.sum() + CROSSED.sum() / 2)
    held, off = [], []
    for seed in range(60):
        found, error = sure(SobolAttribution(designs=designs, order=order), pairs, 5, seed)
        held.append(np.abs(found - expected)[:4] <= 1.645 * error[:4])
        off.append(found - expected)
    assert 0.8 <= np.mean(held) <= 0.98
    if order == "total":
        assert not np.any(found[4] + error[4])  # what does nothing is known to do nothing


@pytest.mark.parametrize("order", ["total", "first"])
def test_the_control_is_unbiased_and_better(order):
    """Of the sums over points; their ratio is not quite."""
    explainer = SobolAttribution(designs=16, order=order)
    plain, controlled = [], []
    for seed in range(200):
        present = explainer.coalitions(5, seed).astype(float)
        points, scores = present.reshape(16, 7, 5)[:, :2], pairs(present, 0.2).reshape(16, 7)
        change, away = scores[:, 2:] - scores[:, :1], scores[:, :2]
        parts = explainer._parts(change, away)
        less = explainer._controlled(*parts, change, points)
        for kept, (terms, spread) in ((plain, parts), (controlled, less)):
            kept.append([*terms.mean(axis=0), spread.mean()])
    plain, controlled = np.array(plain), np.array(controlled)
    crossed = 0.2**2 * CROSSED
    expected = LINEAR + (crossed if order == "total" else 0)
    expected = np.append(expected, LINEAR.sum() + crossed.sum() / 2)
    limit = 4 * controlled.std(axis=0) / np.sqrt(200)
    assert (np.abs(controlled.mean(axis=0) - expected) <= limit + 1e-9).all()
    assert (controlled.std(axis=0)[[0, 1, -1]] < 0.6 * plain.std(axis=0)[[0, 1, -1]]).all()


def test_designs_are_two_points_sets_with_columns_exchanged():
    present = SobolAttribution(designs=8).coalitions(4, 0)
    assert present.shape == (8 * 6, 4)
    assert 0 <= present.min() < present.max() <= 1
    a, b, *others = present.reshape(8, 6, 4).transpose(1, 0, 2)
    assert (a != b).all()
    for i, other in enumerate(others):
        np.testing.assert_array_equal(other[:, i], b[:, i])
        np.testing.assert_array_equal(np.delete(other, i, axis=1), np.delete(a, i, axis=1))


def test_designs_are_spread_evenly():
    """In each column one point lies in each eighth."""
    present = SobolAttribution(designs=8).coalitions(6, 0)
    points = present.reshape(8, 8, 6)[:, :2]
    for column in points.transpose(1, 2, 0).reshape(-1, 8):
        np.testing.assert_array_equal(np.sort(np.floor(column * 8)), np.arange(8))


# HSIC


def test_it_is_the_trace():
    explainer = HSICAttribution(samples=31)
    present = explainer.coalitions(4, 0)
    scores = np.random.default_rng(0).normal(size=(2, 31, 2)) + present[:, :2]
    values, extras = explainer.values_of(present, scores, scores[:, 0])
    assert values.shape == extras["standard_error"].shape == (2, 2, 4)
    for i, k in np.ndindex(2, 2):
        naive.close(values[i, k], hsic(present, scores[i, :, k]), 1e-6)


@pytest.mark.parametrize("samples", [4, 31, 64, 100])
def test_the_error_of_hsic_is_of_the_means_of_blocks(samples):
    explainer = HSICAttribution(samples=samples)
    present = explainer.coalitions(3, 0)
    scores = np.random.default_rng(0).normal(size=samples) + present[:, 0]
    found = explainer.values_of(present, scores[None, :, None], np.zeros((1, 1)))[1]
    apart = np.abs(scores[:, None] - scores)
    width = np.median(apart[np.triu_indices(samples, 1)])
    similar = np.exp(-(apart**2) / (2 * width**2))
    lengths, vectors = np.linalg.eigh(similar)
    feature = vectors * np.sqrt(np.maximum(lengths, 0))  # whose products are the kernel
    starts = range(0, samples, 2 * int(np.ceil(samples / 32)))
    signs = present - present.mean(axis=0)
    bias = (1 - similar.mean()) / (2 * samples)
    for i in range(3):
        m = (signs[:, i, None] * feature).mean(axis=0)
        along = feature @ m - (feature @ m).mean()
        rest = along - sum(4 * np.mean(along * sign) * sign for sign in signs.T)
        parts = signs[:, i] * rest
        means = [parts[start : start + starts.step].mean() for start in starts]
        away = sum((4 * (mean - parts.mean())) ** 2 for mean in means)
        spread = away / (len(means) * (len(means) - 1))
        expected = (samples / (samples - 1)) ** 2 * np.sqrt(spread + bias**2)
        np.testing.assert_allclose(found["standard_error"][0, 0, i], expected, rtol=1e-4)


def test_a_feature_that_says_nothing_is_near_zero_and_lowest():
    weights = np.array([3.0, 2.0, 1.0, 0.0, 0.0])
    found = of(HSICAttribution(samples=1000), lambda z: z @ weights, 5)
    assert (np.diff(found[:4]) < 0).all()
    assert (found >= 0).all()
    assert (found[3:] < 5 / 2000).all()
    assert found[2] > 5 * found[3:].max()


def test_noise_is_independent_of_every_feature():
    noise = np.random.default_rng(3).normal(size=1000)
    found, error = sure(HSICAttribution(samples=1000), lambda z: noise, 6)
    assert (found < 5 / 2000).all()
    assert 0.1 / 2000 < found.mean() < 2 / 2000  # what chance leaves
    assert (error > 0.3 / 2000).all()
    assert 0.5 / 2000 < error.mean() < 3 / 2000


EVERY = (np.arange(2**10)[:, None] >> np.arange(10) & 1).astype(bool)


@pytest.mark.parametrize("samples", [64, 256])
def test_the_error_of_hsic_holds_beside_all_masks(samples):
    """Of 10 features, of which 3 say nothing."""
    rng = np.random.default_rng(0)
    first, second = np.vstack([rng.normal(size=(7, 12)), np.zeros((3, 12))]), rng.normal(size=12)
    fn = lambda z: np.tanh((z - 0.5) @ first) @ second  # noqa: E731
    expected, said, true, worse = hsic_of(EVERY, fn) * (1023 / 1024) ** 2, [], [], []
    for seed in range(40):
        found, error = sure(HSICAttribution(samples=samples), fn, 10, seed)
        said.append(error)
        true.append(np.abs(found - expected))
        drawn = np.random.default_rng(seed).random((samples, 10)) < 0.5
        worse.append(np.abs(hsic_of(drawn, fn) - expected).sum() > np.abs(found - expected).sum())
    assert np.mean(true <= 1.645 * np.array(said)) >= 0.8
    assert 1 < np.sqrt(np.mean(np.square(said)) / np.mean(np.square(true))) < 2
    assert np.mean(worse) > 0.8  # the design is better than independent draws


def test_no_error_of_hsic_is_below_what_chance_leaves():
    """Of 20 features the last 10 say nothing, so their values are bias alone, however many masks.

    Blocks of masks don't show it: which features go with which others is alike in all of them.
    """
    rng = np.random.default_rng(0)
    first, second = 0.6 * rng.normal(size=(10, 50)), rng.normal(size=50)
    fn = lambda z: np.maximum(0, (2 * z[:, :10] - 1) @ first) @ second  # noqa: E731
    runs = [sure(HSICAttribution(samples=1024), fn, 20, seed) for seed in range(20)]
    values, errors = np.array(runs)[..., 10:].swapaxes(0, 1)
    assert values.mean() < errors.min() < 5 * values.mean()


def hsic_of(present, fn):
    scores = fn(present.astype(float))[None, :, None]
    return HSICAttribution().values_of(present, scores, np.zeros((1, 1)))[0][0, 0]


def test_a_feature_without_correlation_that_matters_is_found():
    """With feature 0 the score is +-1 by features 1 and 2, without it 0: the mean is alike."""
    fn = lambda z: z[:, 0] * (2 * z[:, 1] - 1) * (2 * z[:, 2] - 1)  # noqa: E731
    explainer = HSICAttribution(samples=800)
    present, found = explainer.coalitions(4, 0), of(explainer, fn, 4)
    assert abs(np.corrcoef(present[:, 0], fn(present.astype(float)))[0, 1]) < 0.1
    assert found[0] > 20 * found[3]


def test_scores_that_are_mostly_alike_have_a_bandwidth():
    """More than half of all pairs are equal here, so their median distance is 0."""
    explainer, fn = HSICAttribution(samples=60), lambda z: z[:, 0] * z[:, 1] * z[:, 2]
    present, found = explainer.coalitions(4, 0), of(explainer, fn, 4)
    naive.close(found, hsic(present, fn(present.astype(float))), 1e-6)
    rounded = lambda z: 5 + fn(z) + 1e-7 * np.arange(len(z))  # noqa: E731
    naive.close(of(explainer, rounded, 4), found, 1e-5)
    assert found[:3].min() > 2 * found[3]


def test_each_feature_is_present_in_half_of_the_masks():
    present = HSICAttribution(samples=300).coalitions(9, 0)
    assert present.dtype == bool
    np.testing.assert_array_equal(present.sum(axis=0), 150)
    assert np.abs(np.corrcoef(present.T) - np.eye(9)).max() < 0.3


# Both


@pytest.mark.parametrize("cls", BOTH)
def test_masks_depend_on_the_seed_alone(cls):
    explainer = cls()
    np.testing.assert_array_equal(explainer.coalitions(9, 1), explainer.coalitions(9, 1))
    assert (explainer.coalitions(9, 1) != explainer.coalitions(9, 2)).any()


@pytest.mark.parametrize(
    ("explainer", "formula"),
    [
        (SobolAttribution(designs=8), sobol),
        (SobolAttribution(designs=16), sobol),
        (HSICAttribution(samples=40), hsic),
    ],
)
def test_a_picture_and_many_classes(explainer, formula):
    model, x = naive.network(), naive.inputs((8, 6, 2))
    explainer = explainer.replace(features=features.Grid(2))
    many = np.array([[0, 1], [3, 0], [1, 2]])
    explanation = explainer(model, x, many, seed=3)
    labels = np.arange(8)[:, None] // 4 * 2 + np.arange(6) // 3
    present = explainer.coalitions(4, 3)
    scores = seen(naive.Net([model]).scores, x, present, labels)
    assert explanation.values.shape == (3, 2, 8, 6)
    for i, k in np.ndindex(3, 2):
        expected = formula(present, scores[i, :, many[i, k]])
        naive.close(explanation.values[i, k], expected[labels], 1e-4)


@pytest.mark.parametrize("explainer", [SobolAttribution(designs=4), HSICAttribution(samples=30)])
def test_tokens_and_padding(explainer):
    case, explainer = models.get("tokens_int"), explainer.replace(features=features.Tokens(mask=1))
    values = explainer(case.model, case.x).values
    assert not values[case.x == 0].any()
    assert np.isfinite(values).all()
    assert values.any()


@pytest.mark.parametrize("cls", BOTH)
def test_what_is_cut_by_default(cls):
    def count(shape):
        x = np.zeros((1, *shape), np.float32)
        return int(cls().default_features(x, False).numbered(x).max()) + 1

    assert count((50, 30, 3)) == 64
    assert count((7,)) == 7
    assert count((100, 2)) == 20


@pytest.mark.parametrize("cls", BOTH)
def test_scores_that_differ_by_rounding_are_constant(cls):
    rounding = np.random.default_rng(0).integers(-1, 2, 10_000) * 1e-6
    for level in (0.0, 12.0):
        found = of(cls(), lambda z, level=level: level + (level > 0) * rounding[: len(z)], 5)
        np.testing.assert_array_equal(found, np.zeros(5))


@pytest.mark.parametrize("explainer", [SobolAttribution(designs=2), HSICAttribution(samples=20)])
def test_a_constant_model_has_zeros(explainer):
    x = keras.Input((4,))
    dense = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Model(x, dense(x))
    with pytest.warns(UserWarning, match="is zero everywhere"):
        values = explainer(model, naive.inputs((4,)), 1).values
    assert not values.any()


@pytest.mark.parametrize("order", ["total", "first"])
def test_one_feature_has_all_the_variance(order):
    found = of(SobolAttribution(designs=64, order=order), lambda z: z[:, 0] ** 2, 1)
    np.testing.assert_allclose(found, 1, atol=0.1)


def test_one_feature_depends_as_much_as_can_be():
    """Of two scores, half of them each: the kernels are 1/2 and -1/2, and 1 and 1/sqrt(e)."""
    found = of(HSICAttribution(samples=200), lambda z: z[:, 0], 1)
    np.testing.assert_allclose(found, 0.25 * (1 - np.exp(-0.5)) * (200 / 199) ** 2, rtol=1e-5)


@pytest.mark.parametrize("samples", [2, 3])
def test_hardly_any_masks_are_finite(samples):
    assert np.isfinite(of(HSICAttribution(samples=samples), lambda z: z.sum(axis=1), 3)).all()
    found = of(SobolAttribution(designs=2), lambda z: np.arange(len(z)) % samples, 3)
    assert np.isfinite(found).all()


def test_scores_that_are_equal_but_where_a_column_is_exchanged():
    explainer = SobolAttribution(designs=2)
    present = explainer.coalitions(3, 0)
    scores = np.tile([1.0, 1, 0, 0, 0], 2)[None, :, None]
    np.testing.assert_array_equal(explainer.values_of(present, scores, scores[:, 0])[0], 0)


# Bad input


@pytest.mark.parametrize("designs", [0, 1, -2, 2.0, True])
def test_too_few_designs(designs):
    with pytest.raises(ValueError, match="`designs` to be a whole number of 2 or more"):
        SobolAttribution(designs=designs)


@pytest.mark.parametrize("designs", [3, 12, 100])
def test_designs_that_are_no_power_of_two(designs):
    with pytest.raises(ValueError, match=f"a power of two, .* Received: designs={designs}"):
        SobolAttribution(designs=designs)


def test_an_unknown_order():
    with pytest.raises(ValueError, match="`order` to be one of 'total', 'first'"):
        SobolAttribution(order="second")


@pytest.mark.parametrize("samples", [0, 1, -5, 2.5, True])
def test_too_few_samples(samples):
    with pytest.raises(ValueError, match="`samples` to be a whole number of 2 or more"):
        HSICAttribution(samples=samples)
