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


def sobol(scores, designs, order="total"):
    """The indices of scores `[designs * (M + 2)]`: at A, at B, and at each A with a column of B."""
    a, b, *others = [scores[i : i + designs] for i in range(0, len(scores), designs)]
    pooled = np.concatenate([a, b])
    mean = pooled.mean()
    variance = sum((y - mean) ** 2 for y in pooled) / len(pooled)
    found = []
    for other in others:
        if order == "total":
            part = sum((p - q) ** 2 for p, q in zip(a, other, strict=True)) / 2
        else:
            part = sum((r - mean) * (q - p) for p, q, r in zip(a, other, b, strict=True))
        found.append(part / designs / variance)
    return np.array(found)


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
    present = explainer.coalitions(count, seed)
    scores = np.asarray(fn(present.astype(np.float64)), np.float64)
    return explainer.values_of(present, scores[None, :, None], np.zeros((1, 1)))[0][0, 0]


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
def test_it_is_the_papers_estimator(order):
    explainer = SobolAttribution(designs=16, order=order)
    present = explainer.coalitions(5, 0)
    scores = np.random.default_rng(0).normal(size=(2, len(present), 3))
    values, extras = explainer.values_of(present, scores, scores[:, 0])
    assert values.shape == (2, 3, 5)
    assert extras == {}
    for i, k in np.ndindex(2, 3):
        naive.close(values[i, k], sobol(scores[i, :, k], 16, order), 1e-9)


def test_designs_are_two_points_sets_with_columns_exchanged():
    present = SobolAttribution(designs=8).coalitions(4, 0)
    assert present.shape == (8 * 6, 4)
    assert 0 <= present.min() < present.max() <= 1
    a, b, *others = present.reshape(-1, 8, 4)
    assert (a != b).all()
    for i, other in enumerate(others):
        np.testing.assert_array_equal(other[:, i], b[:, i])
        np.testing.assert_array_equal(np.delete(other, i, axis=1), np.delete(a, i, axis=1))


def test_designs_are_spread_evenly():
    """In each column one point lies in each eighth."""
    present = SobolAttribution(designs=8).coalitions(6, 0)
    for column in present[:16].reshape(2, 8, 6).transpose(0, 2, 1).reshape(-1, 8):
        np.testing.assert_array_equal(np.sort(np.floor(column * 8)), np.arange(8))


# HSIC


def test_it_is_the_trace():
    explainer = HSICAttribution(samples=31)
    present = explainer.coalitions(4, 0)
    scores = np.random.default_rng(0).normal(size=(2, 31, 2)) + present[:, :2]
    values, extras = explainer.values_of(present, scores, scores[:, 0])
    assert values.shape == (2, 2, 4)
    assert extras == {}
    for i, k in np.ndindex(2, 2):
        naive.close(values[i, k], hsic(present, scores[i, :, k]), 1e-6)


def test_a_feature_that_says_nothing_is_near_zero_and_lowest():
    weights = np.array([3.0, 2.0, 1.0, 0.0, 0.0])
    found = of(HSICAttribution(samples=1000), lambda z: z @ weights, 5)
    assert (np.diff(found[:4]) < 0).all()
    assert (found >= 0).all()
    assert (found[3:] < 5 / 2000).all()
    assert found[2] > 5 * found[3:].max()


def test_noise_is_independent_of_every_feature():
    noise = np.random.default_rng(3).normal(size=1000)
    found = of(HSICAttribution(samples=1000), lambda z: noise, 6)
    assert (found < 5 / 2000).all()
    assert 0.1 / 2000 < found.mean() < 2 / 2000  # what chance leaves


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
    assert found[:3].min() > 5 * found[3]


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
        (SobolAttribution(designs=8), lambda present, y: sobol(y, 8)),
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
    scores = np.r_[np.ones(6), np.zeros(4)][None, :, None]
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
