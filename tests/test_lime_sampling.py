"""LIME's samples: how sure its weights are, by refitting without blocks, and how many it takes."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from keras_explain import features
from keras_explain.explainers.lime import LIME
from tests import models, naive
from tests.test_lime import CLASSES, example, lasso, proximity, ridge

COUNT = 8
EVERY = (np.arange(2**COUNT)[:, None] >> np.arange(COUNT) & 1).astype(bool)


def score_of(z, seed=0):
    """A score `[n]` of coalitions, of single features, pairs and threes."""
    rng, signs = np.random.default_rng(seed), 2.0 * z - 1
    pairs = np.triu(rng.normal(size=(z.shape[1], z.shape[1])), 1)
    pairs -= np.triu(np.ones_like(pairs), 1) * pairs[pairs != 0].mean()
    linear = signs @ rng.normal(size=z.shape[1])
    return linear + 0.3 * ((signs @ pairs) * signs).sum(axis=1) + signs[:, :3].prod(axis=1)


def fitted(lime, samples, seed, count=COUNT):
    """Values and standard errors `[M]` of `score_of`."""
    present = lime.replace(samples=samples).coalitions(count, seed)
    scores = score_of(present.astype(float))[None, :, None]
    values, extras = lime.values_of(present, scores, scores[:, 0])
    return values[0, 0], extras["standard_error"][0, 0]


def without_blocks(present, fit):
    """The spread of what `fit(rest)` finds without each of up to 16 blocks of samples."""
    n = len(present)
    size = 2 * int(np.ceil(n / 32))
    whole, squares = fit(np.ones(n, bool)), []
    for start in range(0, n, size):
        rest = np.ones(n, bool)
        rest[start : start + size] = False
        squares.append((fit(rest) - whole) ** 2)
    return np.sqrt((len(squares) - 1) / len(squares) * np.sum(squares, axis=0))


# The standard error


@pytest.mark.parametrize("alpha", [0.0, 5.0, 80.0])
@pytest.mark.parametrize("passes", [60, 64, 131])
def test_ridge_is_fitted_again_without_each_block(alpha, passes):
    present, scores, whole = example(passes=passes)
    weights = proximity(present)
    errors = LIME(alpha=alpha).values_of(present, scores, whole)[1]["standard_error"]
    for k in range(2):
        y = scores[0, :, k]
        expected = without_blocks(
            present, lambda rest, y=y: ridge(present[rest], y[rest], weights[rest], alpha)[1]
        )
        naive.close(errors[0, k], expected, 1e-8)


@pytest.mark.parametrize("alpha", [2.0, 100.0])
def test_lasso_is_fitted_again_with_what_it_keeps(alpha):
    """Where no block changes what it keeps, that is the lasso without the block."""
    present, scores, whole = example(count=6, passes=128, noise=0.1)
    weights = proximity(present)
    lime = LIME(regression="lasso", alpha=alpha)
    values, extras = lime.values_of(present, scores, whole)
    for k in range(2):
        y, kept = scores[0, :, k], values[0, k] != 0
        found = []

        def fit(rest, y=y, found=found):
            found.append(lasso(present[rest], y[rest], weights[rest], alpha)[1])
            return found[-1]

        expected = without_blocks(present, fit)
        assert ((np.array(found) != 0) == kept).all()
        naive.close(extras["standard_error"][0, k, kept], expected[kept], 2e-2)
        assert np.isnan(extras["standard_error"][0, k, ~kept]).all()


@pytest.mark.parametrize("selection", ["forward_selection", "highest_weights", "lasso_path"])
def test_features_that_are_not_used_have_no_error(selection):
    present, scores, whole = example(passes=90)
    weights = proximity(present)
    lime = LIME(top_features=3, selection=selection)
    values, extras = lime.values_of(present, scores, whole)
    for k in range(2):
        used, y = values[0, k] != 0, scores[0, :, k]
        z = present[:, used]
        expected = without_blocks(
            present, lambda rest, z=z, y=y: ridge(z[rest], y[rest], weights[rest], 1.0)[1]
        )
        naive.close(extras["standard_error"][0, k, used], expected, 1e-9)
        assert np.isnan(extras["standard_error"][0, k, ~used]).all()


@pytest.mark.parametrize("samples", [18, 40, 128, 1000])
@pytest.mark.parametrize(
    "lime", [LIME(), LIME(alpha=0), LIME(alpha=200.0), LIME(regression="lasso", alpha=30.0)]
)
def test_the_error_holds_beside_infinitely_many_samples(lime, samples):
    """All coalitions equally often are infinitely many.

    Errors are too large of few samples, and of more than there are coalitions.
    """
    fit = lasso if lime.regression == "lasso" else ridge
    truth = fit(EVERY, score_of(EVERY), proximity(EVERY), lime.alpha)[1]
    held = []
    for seed in range(40):
        values, errors = fitted(lime, samples, seed)
        known = ~np.isnan(errors)
        held.append(np.abs(values - truth)[known] <= 1.645 * errors[known])
    most = 0.98 if 3 * COUNT < samples < 2**COUNT else 1
    assert 0.8 <= np.concatenate(held).mean() <= most


def test_the_error_holds_given_the_selection():
    held = []
    for seed in range(40):
        values, errors = fitted(LIME(top_features=4), 100, seed)
        used = ~np.isnan(errors)
        truth = ridge(EVERY[:, used], score_of(EVERY), proximity(EVERY), 1.0)[1]
        held.append(np.abs(values[used] - truth) <= 1.645 * errors[used])
    assert 0.8 <= np.mean(held) <= 0.98


def test_the_error_of_independent_draws_holds():
    truth = ridge(EVERY, score_of(EVERY), proximity(EVERY), 1.0)[1]
    held = []
    for seed in range(40):
        present = np.random.default_rng(seed).random((100, COUNT)) < 0.5
        scores = score_of(present)[None, :, None]
        values, extras = LIME().values_of(present, scores, scores[:, 0])
        held.append(np.abs(values - truth) <= 1.645 * extras["standard_error"])
    assert 0.8 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("samples", [2, 12])
def test_what_samples_do_not_say_has_no_error(samples):
    """One pair of samples, and least squares of fewer than features."""
    values, errors = fitted(LIME(alpha=0), samples, 0)
    assert np.isfinite(values).all()
    assert np.isnan(errors).all() == (samples < 12)
    values, errors = fitted(LIME(alpha=0), samples, 0, count=14)
    assert np.isfinite(values).all()
    assert np.isnan(errors).all()


# The number of samples


@pytest.mark.parametrize("alpha", [2.0, 100.0])
@pytest.mark.parametrize("regression", ["ridge", "lasso"])
def test_values_do_not_depend_on_the_number_of_samples(regression, alpha):
    lime = LIME(regression=regression, alpha=alpha)
    fit = lasso if regression == "lasso" else ridge
    truth = fit(EVERY, score_of(EVERY), proximity(EVERY), alpha)[1]
    for samples in (300, 1000, 4000):
        found = np.mean([fitted(lime, samples, seed)[0] for seed in range(5)], axis=0)
        np.testing.assert_allclose(found, truth, atol=0.04 * np.abs(truth).max())


def test_the_design_needs_fewer_samples_than_draws():
    """The same error with half as many samples, and better."""
    truth = ridge(EVERY, score_of(EVERY), proximity(EVERY), 1.0)[1]
    ours, drawn = [], []
    for seed in range(20):
        ours.append(fitted(LIME(), 64, seed)[0] - truth)
        present = np.random.default_rng(seed).random((64, COUNT)) < 0.5
        drawn.append(ridge(present, score_of(present), proximity(present), 1.0)[1] - truth)
    assert np.linalg.norm(ours) < np.linalg.norm(drawn) / np.sqrt(2)


def test_it_goes_on_until_it_is_sure():
    model, x = naive.perceptron(7, classes=4), naive.inputs((7,))
    many, table = np.array([[0, 1], [3, 0], [1, 2]]), pd.DataFrame(x)
    found = LIME(samples="auto", error=0.02)(model, table, many)
    passes, sure = found.extras["passes"], found.extras["relative_error"]
    assert (sure <= 0.02).all()
    assert 64 < passes.max() < LIME.most
    assert (passes == passes[:, :1]).all()
    for row, count in enumerate(passes[:, 0]):
        fixed = LIME(samples=int(count))(model, x, many)
        np.testing.assert_array_equal(found.values[row], fixed.values[row])
        np.testing.assert_array_equal(
            found.extras["standard_error"][row], fixed.extras["standard_error"][row]
        )
        before = LIME(samples=max(64, int(count) // 2))(model, x, many)
        assert count == 64 or before.extras["relative_error"][row].max() > 0.02


def test_tokens_of_several_lengths_and_a_maximum():
    case = models.get("tokens_int")
    lime = LIME(features=features.Tokens(mask=1), samples="auto", error=1e-6, max_passes=100)
    with pytest.warns(UserWarning, match="LIME has not reached the relative standard error"):
        found = lime(case.model, case.x)
    fixed = lime.replace(samples=100, error=None, max_passes=None)(case.model, case.x)
    np.testing.assert_array_equal(found.values, fixed.values)
    assert found.extras["standard_error"].shape == found.values.shape
    assert not found.extras["standard_error"][case.x == 0].any()
    assert (found.extras["passes"] == 100).all()


def test_a_constant_model_is_sure():
    x = keras.Input((4,))
    dense = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Model(x, dense(x))
    for options in ({}, {"regression": "lasso"}, {"top_features": 2}, {"alpha": 0}):
        with pytest.warns(UserWarning, match="LIME is zero everywhere"):
            found = LIME(samples="auto", **options)(model, naive.inputs((4,)), CLASSES % 2)
        assert not found.extras["standard_error"].any()
        assert not found.extras["relative_error"].any()
        assert (found.extras["passes"] == 64).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": "auto", "error": 0}, "`error` as a share"),
        ({"samples": "many"}, '`samples` to be a whole number, or "auto"'),
        ({"error": 0.1}, '`error` with samples="auto"'),
        ({"samples": 100, "max_passes": 200}, '`max_passes` with samples="auto"'),
    ],
)
def test_bad_numbers_of_samples(options, message):
    with pytest.raises(ValueError, match=message):
        LIME(**options)
