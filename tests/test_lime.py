"""LIME: its local model by plain normal equations in float64, lime's own, and what it promises."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from sklearn import linear_model

from keras_explain import features
from keras_explain.explainers import lime
from keras_explain.explainers.lime import LIME
from tests import naive

CLASSES = np.array([0, 3, 1])
SELECTIONS = ("forward_selection", "highest_weights", "lasso_path")


# The local model, by loops


def proximity(present, width=0.25, distance="cosine"):
    weights = []
    for z in np.asarray(present, np.float64):
        one = np.ones_like(z)
        if distance == "hamming":
            d = np.mean(z != one)
        else:
            d = 1 - (z @ one) / np.sqrt(z @ z) / np.sqrt(one @ one) if z.any() else 1.0
        weights.append(np.sqrt(np.exp(-(d**2) / width**2)))
    return np.array(weights)


def ridge(z, y, weights, alpha):
    """b and w of the penalised normal equations, b not penalised; alpha is for 1000 samples."""
    ones = np.column_stack([np.ones(len(z)), z])
    penalty = alpha * len(z) / 1000 * np.eye(ones.shape[1])
    penalty[0, 0] = 0
    solved = np.linalg.solve(ones.T @ (weights[:, None] * ones) + penalty, ones.T @ (weights * y))
    return solved[0], solved[1:]


def lasso(z, y, weights, alpha, rounds=400):
    """b and w of the least `sum weights (y - b - z w)^2 + alpha sum |w|`, one w at a time.

    alpha is for 1000 samples.
    """
    z, w = np.asarray(z, np.float64), np.zeros(z.shape[1])
    alpha = alpha * len(z) / 1000
    for _ in range(rounds):
        b = np.average(y - z @ w, weights=weights)
        for i in range(len(w)):
            rest = y - b - z @ w + z[:, i] * w[i]
            pull = (weights * z[:, i] * rest).sum()
            w[i] = np.sign(pull) * max(abs(pull) - alpha / 2, 0) / (weights * z[:, i] ** 2).sum()
    return b, w


def error(z, y, weights, used):
    """What a weighted least squares fit by some features leaves."""
    root = np.sqrt(weights)
    ones = np.column_stack([np.ones(len(z)), z[:, used]])
    w = np.linalg.lstsq(root[:, None] * ones, root * y, rcond=None)[0]
    return (weights * (y - ones @ w) ** 2).sum()


def forward(z, y, weights, top):
    used = []
    for _ in range(top):
        left = [i for i in range(z.shape[1]) if i not in used]
        used.append(min(left, key=lambda i: error(z, y, weights, [*used, i])))
    return used


def r2(z, y, weights, b, w):
    mean = np.average(y, weights=weights)
    return 1 - (weights * (y - b - z @ w) ** 2).sum() / (weights * (y - mean) ** 2).sum()


def example(count=8, passes=60, seed=0, noise=0.5):
    """Coalitions, and scores `[1, passes, 2]` that are not linear in them."""
    rng = np.random.default_rng(seed)
    present = LIME(samples=passes).coalitions(count, seed)
    linear = present @ rng.normal(size=(count, 2))
    pairs = np.stack([present[:, 0] & present[:, 1], present[:, 2] | present[:, 3]], axis=1)
    scores = linear + pairs + noise * rng.normal(size=(passes, 2))
    return present, scores[None], scores[None, 0]


def seen(score, x, present, labels, fill=0.0):
    """The scores `[n, passes, K]` of inputs of which the features are seen that are present."""
    found = []
    for z in present:
        visible = z[labels] | (labels < 0)
        visible = visible.reshape(*visible.shape, *(1 for _ in range(x.ndim - 1 - visible.ndim)))
        found.append(score(np.where(visible, x, fill)))
    return np.stack(found, axis=1)


# The formula


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
@pytest.mark.parametrize("width", [0.1, 0.25, 2.0])
def test_the_weights_of_samples(distance, width):
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    weights = LIME(distance=distance, kernel_width=width)._proximity(present.astype(float))
    naive.close(weights, proximity(present, width, distance), 1e-12)
    assert weights[0] == 1
    np.testing.assert_allclose(weights[3], np.exp(-1 / (2 * width**2)))


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
@pytest.mark.parametrize("alpha", [0.0, 5.0, 80.0])
def test_ridge_is_the_penalised_normal_equations(alpha, distance):
    present, scores, whole = example()
    lime = LIME(alpha=alpha, distance=distance, kernel_width=0.4)
    values, extras = lime.values_of(present, scores, whole)
    weights = proximity(present, 0.4, distance)
    for k in range(2):
        b, w = ridge(present, scores[0, :, k], weights, alpha)
        naive.close(values[0, k], w, 1e-9)
        naive.close(extras["intercept"][0, k], b, 1e-9)
        naive.close(extras["local_prediction"][0, k], b + w.sum(), 1e-9)
        naive.close(extras["r2"][0, k], r2(present, scores[0, :, k], weights, b, w), 1e-9)


@pytest.mark.parametrize("alpha", [8.0, 50.0, 300.0])
def test_lasso_is_the_least_of_its_formula(alpha):
    present, scores, whole = example(count=6)
    values, extras = LIME(regression="lasso", alpha=alpha).values_of(present, scores, whole)
    for k in range(2):
        b, w = lasso(present, scores[0, :, k], proximity(present), alpha)
        naive.close(values[0, k], w, 2e-3)
        naive.close(extras["intercept"][0, k], b, 2e-3)
    assert alpha < 300 or (values == 0).any()


def test_a_lasso_without_penalty_is_least_squares():
    present, scores, whole = example()
    values = LIME(regression="lasso", alpha=0).values_of(present, scores, whole)[0]
    naive.close(values, LIME(alpha=0).values_of(present, scores, whole)[0], 1e-9)


def test_a_lasso_with_a_huge_penalty_leaves_the_mean():
    present, scores, whole = example()
    lime = LIME(regression="lasso", alpha=1e6)
    values, extras = lime.values_of(present, scores, whole)
    assert not values.any()
    mean = np.average(scores[0], axis=0, weights=proximity(present))
    naive.close(extras["intercept"][0], mean, 1e-9)
    np.testing.assert_allclose(extras["r2"], 0, atol=1e-12)


@naive.few
@given(seed=st.integers(0, 1000), count=st.integers(1, 9), width=st.floats(0.1, 3))
def test_a_linear_score_is_found_exactly(seed, count, width):
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=(count, 3)), rng.normal(size=3)
    present = LIME(samples=60).coalitions(count, seed)
    scores = (present @ w + b)[None]
    lime = LIME(alpha=0, kernel_width=width)
    values, extras = lime.values_of(present, scores, scores[:, 0])
    np.testing.assert_allclose(values[0], w.T, atol=1e-8)
    np.testing.assert_allclose(extras["intercept"][0], b, atol=1e-8)
    np.testing.assert_allclose(extras["local_prediction"], scores[:, 0], atol=1e-8)
    np.testing.assert_allclose(extras["r2"], 1, atol=1e-8)


def test_a_narrower_kernel_is_more_local():
    """Of the square of how many of 10 features are present, the last one adds 19."""
    present = LIME(samples=4000).coalitions(10, 0)
    scores = (present.sum(axis=1, keepdims=True)[None] ** 2).astype(np.float64)
    slopes = [
        LIME(alpha=0, kernel_width=width).values_of(present, scores, scores[:, 0])[0].mean()
        for width in (0.03, 0.1, 0.25, 5)
    ]
    assert slopes == sorted(slopes, reverse=True)
    np.testing.assert_allclose(slopes[0], 19, atol=1.5)
    np.testing.assert_allclose(slopes[-1], 10, atol=0.5)


def test_rows_and_classes_are_fitted_apart():
    parts = [example(seed=seed, passes=40) for seed in range(3)]
    present = parts[0][0]
    scores = np.concatenate([part[1] for part in parts])
    for options in ({}, {"top_features": 3}, {"top_features": 7}):
        lime = LIME(**options)
        values, extras = lime.values_of(present, scores, scores[:, 0])
        assert values.shape == (3, 2, 8)
        for i, k in np.ndindex(3, 2):
            alone = scores[i : i + 1, :, k : k + 1]
            value, extra = lime.values_of(present, alone, alone[:, 0])
            naive.close(values[i, k], value[0, 0], 1e-9)
            for name in ("r2", "intercept", "local_prediction"):
                naive.close(extras[name][i, k], extra[name][0, 0], 1e-9)


# Samples


def test_the_first_sample_is_the_input_and_the_others_hide_half():
    present = LIME(samples=3000).coalitions(7, 3)
    assert present.shape == (3000, 7)
    assert present.dtype == bool
    assert present[0].all()
    np.testing.assert_allclose(present[1:].mean(axis=0), 0.5, atol=5 * 0.5 / np.sqrt(3000))
    np.testing.assert_allclose(np.cov(present[1:].T), 0.25 * np.eye(7), atol=0.03)


def test_samples_depend_on_the_seed_alone():
    lime = LIME(samples=50)
    np.testing.assert_array_equal(lime.coalitions(9, 1), lime.coalitions(9, 1))
    assert (lime.coalitions(9, 1) != lime.coalitions(9, 2)).any()


# Few features


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("top", [1, 3, 7])
def test_forward_selection_takes_what_explains_most(top, seed):
    present, scores, whole = example(seed=seed)
    lime = LIME(top_features=top, selection="forward_selection")
    values = lime.values_of(present, scores, whole)[0]
    for k in range(2):
        used = forward(present, scores[0, :, k], proximity(present), top)
        check_used(values[0, k], present, scores[0, :, k], used)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("top", [1, 3, 7])
def test_the_highest_weights_are_those_of_a_slight_ridge(top, seed):
    present, scores, whole = example(seed=seed)
    lime = LIME(top_features=top, selection="highest_weights")
    values = lime.values_of(present, scores, whole)[0]
    for k in range(2):
        w = ridge(present, scores[0, :, k], proximity(present), 0.01)[1]
        used = sorted(range(8), key=lambda i, w=w: -abs(w[i]))[:top]
        check_used(values[0, k], present, scores[0, :, k], used)


@pytest.mark.parametrize("top", [1, 3, 6])
def test_the_lasso_path_keeps_what_a_growing_penalty_drops_last(top):
    present, scores, whole = example(passes=40)
    lime = LIME(top_features=top, selection="lasso_path")
    values = lime.values_of(present, scores, whole)[0]
    for k in range(2):
        y, weights = scores[0, :, k], proximity(present)
        few, many = 1e5, 1e-2  # penalties with at most `top` features, and with more
        while few / many > 1.001:
            alpha = np.sqrt(few * many)
            used = np.flatnonzero(lasso(present, y, weights, alpha, rounds=60)[1])
            few, many = (alpha, many) if len(used) <= top else (few, alpha)
        used = np.flatnonzero(lasso(present, y, weights, few, rounds=60)[1])
        check_used(values[0, k], present, y, list(used))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["binary", "normal", "few_rows", "repeated", "tied"])
def test_the_lasso_path_is_that_of_scikit_learn(kind, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(5 if kind == "few_rows" else 30, 9))
    if kind in ("binary", "tied"):
        z = (z > 0).astype(float)
    if kind == "repeated":
        z[:, 3], z[:, 4], z[:, 7] = z[:, 0], 2 * z[:, 1] - z[:, 2], 0
    y = z[:, :2].sum(axis=1) if kind == "tied" else rng.normal(size=len(z))
    found = np.array(list(lime._lasso_path(z.T @ z, z.T @ y)))
    with warnings.catch_warnings(action="ignore"):
        expected = linear_model.lars_path(z, y, method="lasso")[2].T
    np.testing.assert_allclose(z @ found[-1], z @ np.linalg.lstsq(z, y)[0], atol=1e-7)
    if kind not in ("repeated", "tied"):  # where features say the same, either may have the weight
        naive.close(found[: len(expected)], expected, 1e-7)
    for w in found:  # each knot is a lasso: none goes with what is left more than those with weight
        toward, has = z.T @ (y - z @ w), w != 0
        if has.any():
            penalty = np.abs(toward[has]).max()
            np.testing.assert_allclose(toward[has], np.sign(w[has]) * penalty, atol=1e-8)
            assert np.abs(toward).max() <= penalty + 1e-8


def test_a_lasso_path_of_what_is_constant():
    assert list(lime._lasso_path(np.eye(3), np.zeros(3))) == []
    assert list(lime._lasso_path(np.zeros((3, 3)), np.zeros(3))) == []


def check_used(values, present, y, used):
    """Some features alone have values, those of the ridge model by them."""
    assert set(np.flatnonzero(values)) == set(used)
    naive.close(values[used], ridge(present[:, used], y, proximity(present), 1.0)[1], 1e-9)


def test_auto_selects_forward_up_to_six_features():
    present, scores, whole = example(count=12, noise=2.0)
    for top, selection in ((6, "forward_selection"), (7, "highest_weights")):
        values = LIME(top_features=top).values_of(present, scores, whole)[0]
        named = LIME(top_features=top, selection=selection).values_of(present, scores, whole)[0]
        np.testing.assert_array_equal(values, named)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_more_features_than_there_are_is_all_of_them(selection):
    present, scores, whole = example()
    everything = LIME().values_of(present, scores, whole)[0]
    for top in (8, 100):
        lime = LIME(top_features=top, selection=selection)
        np.testing.assert_array_equal(lime.values_of(present, scores, whole)[0], everything)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_features_that_are_always_together_are_finite(selection):
    """Two features that are alike in all samples, one that is never hidden, and few samples."""
    present, scores, whole = example(passes=7)
    present[:, 1], present[:, 2] = present[:, 0], True
    lime = LIME(top_features=5, selection=selection, alpha=0)
    values, extras = lime.values_of(present, scores, whole)
    errors = extras.pop("standard_error")
    assert np.isnan(errors).all()  # three pairs of samples, without one of them
    assert all(np.isfinite(array).all() for array in (values, *extras.values()))
    assert np.abs(values).max() < 100 * np.abs(scores).max()
    assert (np.count_nonzero(values, axis=-1) <= 5).all()


# Against the lime package


@pytest.mark.parametrize("regression", ["ridge", "lasso"])
@pytest.mark.parametrize("top", [None, 2, 5, 9])
@pytest.mark.parametrize("selection", ["auto", *SELECTIONS])
def test_it_agrees_with_the_lime_package(selection, top, regression):
    """Given the same masks, scores, weights and regressor."""
    lime_base = pytest.importorskip("lime.lime_base")
    linear_model = pytest.importorskip("sklearn.linear_model")
    present, scores, whole = example(count=12, passes=120, noise=1.0)
    data, weights = present.astype(np.float64), proximity(present)
    regressor = linear_model.Ridge(alpha=2.0)
    if regression == "lasso":
        regressor = linear_model.Lasso(alpha=2.0 / (2 * weights.sum()), tol=1e-9)
    base = lime_base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    alpha = 2.0 * 1000 / 120  # theirs does not grow with the samples
    lime = LIME(top_features=top, selection=selection, regression=regression, alpha=alpha)
    values, extras = lime.values_of(present, scores, whole)
    distances = 1 - np.sqrt(data.mean(axis=1))
    for k in range(2):
        b, pairs, score, prediction = base.explain_instance_with_data(
            data, scores[0], distances, k, top or 12, selection if top else "none", regressor
        )
        expected = np.zeros(12)
        for feature, weight in pairs:
            expected[feature] = weight
        naive.close(values[0, k], expected, 1e-4 if regression == "lasso" else 1e-9)
        for name, theirs in (("intercept", b), ("r2", score), ("local_prediction", prediction[0])):
            np.testing.assert_allclose(extras[name][0, k], theirs, atol=1e-3, err_msg=name)


# Through models


def test_patches_of_a_picture_and_many_classes():
    model, x = naive.network(), naive.inputs((8, 6, 2))
    lime = LIME(samples=40, features=features.Patches((4, 3)), baseline=0.3)
    many = np.array([[0, 1], [3, 0], [1, 2]])
    explanation = lime(model, x, many, seed=7)
    labels = np.arange(8)[:, None] // 4 * 2 + np.arange(6) // 3
    present = lime.coalitions(4, 7)
    scores = seen(naive.Net([model]).scores, x, present, labels, 0.3)
    assert explanation.values.shape == (3, 2, 8, 6)
    for i, k in np.ndindex(3, 2):
        y = scores[i, :, many[i, k]]
        b, w = ridge(present, y, proximity(present), 1.0)
        naive.close(explanation.values[i, k], w[labels], 2e-5)
        naive.close(explanation.extras["intercept"][i, k], b, 2e-5)
        naive.close(explanation.extras["local_prediction"][i, k], b + w.sum(), 2e-5)
        expected = r2(present, y, proximity(present), b, w)
        np.testing.assert_allclose(explanation.extras["r2"][i, k], expected, atol=1e-4)


def test_segments_of_a_picture_of_which_some_are_never_hidden():
    model, x = naive.network(), naive.inputs((8, 6, 2))
    labels = np.add.outer(np.arange(8) // 3, np.arange(6) // 2) - 1
    lime = LIME(samples=30, features=features.Segments(labels=labels), top_features=2)
    explanation = lime(model, x, CLASSES)
    present = lime.coalitions(4, 0)
    scores = seen(naive.Net([model]).scores, x, present, labels)
    for i, c in enumerate(CLASSES):
        y, weights, w = scores[i, :, c], proximity(present), np.zeros(5)
        used = forward(present, y, weights, 2)
        w[used] = ridge(present[:, used], y, weights, 1.0)[1]
        naive.close(explanation.values[i], np.where(labels < 0, 0, w[labels]), 2e-5)


def test_tokens_that_tell_the_class_and_padding():
    """A sum of a weight for each token: each has its own, and padding has none."""
    weights = np.array([0.0, 3.0, -2.0, 0.5, 1.0], np.float32)
    ids = keras.Input((5,), dtype="int32")
    looked_up = layers.Embedding(5, 1)(ids)
    model = keras.Model(ids, layers.GlobalAveragePooling1D()(looked_up))
    model.set_weights([weights[:, None]])
    x = np.array([[1, 2, 3, 4, 1], [4, 4, 2, 0, 0], [3, 0, 0, 0, 0]])
    lime = LIME(samples=80, alpha=0, features=features.Tokens(mask=0, padding=0))
    explanation = lime(model, x, 0)
    naive.close(explanation.values, weights[x] / 5)
    np.testing.assert_allclose(explanation.extras["r2"], 1, atol=1e-5)
    np.testing.assert_allclose(explanation.extras["intercept"], 0, atol=1e-5)


def test_a_linear_table_against_a_baseline_and_a_background():
    model = naive.perceptron(activation="linear", classes=4)
    net, x = naive.Net([model]), naive.inputs((5,))
    slope, background = net.gradient(x, CLASSES), naive.inputs((5,), rows=4, seed=1)
    for options, start in (({"baseline": 0.5}, 0.5), ({"background": background}, background)):
        start = np.broadcast_to(np.mean(np.atleast_2d(start), axis=0), x.shape)
        explanation = LIME(samples=60, alpha=0, **options)(model, x, CLASSES)
        naive.close(explanation.values, slope * (x - start))
        extras = explanation.extras
        np.testing.assert_allclose(extras["intercept"], net.score(start, CLASSES), atol=1e-5)
        np.testing.assert_allclose(extras["local_prediction"], explanation.scores, atol=1e-5)


def test_groups_of_columns():
    model = naive.perceptron(activation="linear", classes=4)
    net, x = naive.Net([model]), naive.inputs((5,))
    values = LIME(samples=30, alpha=0, groups=[0, 1, 1, -1, 0])(model, x, CLASSES).values
    each = net.gradient(x, CLASSES) * x
    first, second = each[:, [0, 4]].sum(axis=1), each[:, 1:3].sum(axis=1)
    naive.close(values, np.stack([first, second, second, 0 * first, first], axis=1))


# Bad input


def test_a_constant_model_has_zeros():
    x = keras.Input((4,))
    dense = layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Model(x, dense(x))
    with pytest.warns(UserWarning, match="LIME is zero everywhere"):
        explanation = LIME(samples=30)(model, naive.inputs((4,)), 1)
    assert not explanation.values.any()
    for name, expected in (("r2", 1), ("intercept", 1), ("local_prediction", 1)):
        np.testing.assert_array_equal(explanation.extras[name], np.full(3, expected))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_constant_score_has_zeros_however_features_are_selected(selection):
    present = LIME(samples=30).coalitions(5, 0)
    scores = np.full((2, 30, 1), -7.3)
    for regression in ("ridge", "lasso"):
        lime = LIME(top_features=2, selection=selection, regression=regression)
        values, extras = lime.values_of(present, scores, scores[:, 0])
        assert not values.any()
        np.testing.assert_array_equal(extras["intercept"], scores[:, 0])


def test_a_kernel_so_narrow_that_only_the_input_counts():
    present, scores, whole = example()
    for options in ({}, {"alpha": 0}, {"top_features": 2}, {"regression": "lasso"}):
        values, extras = LIME(kernel_width=1e-4, **options).values_of(present, scores, whole)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(extras["local_prediction"], whole, atol=1e-6)


def test_one_feature():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    net = naive.Net([model])
    explanation = LIME(samples=20, alpha=0, groups=[0] * 5)(model, x, CLASSES)
    gain = net.score(x, CLASSES) - net.score(0 * x, CLASSES)
    naive.close(explanation.values, np.repeat(gain[:, None], 5, axis=1))


@pytest.mark.parametrize("samples", [0, 1, -5, 2.5, True, None])
def test_too_few_samples(samples):
    with pytest.raises(ValueError, match="`samples` to be a whole number of 2 or more"):
        LIME(samples=samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_width": 0}, "`kernel_width` above 0"),
        ({"kernel_width": -1.0}, "`kernel_width` to be a number of 0 or more"),
        ({"kernel_width": np.inf}, "`kernel_width` to be a number"),
        ({"alpha": -0.1}, "`alpha` to be a number of 0 or more"),
        ({"top_features": 0}, "`top_features` to be a whole number of 1 or more"),
        ({"top_features": 2.0}, "`top_features` to be a whole number"),
        ({"distance": "l2"}, "`distance` to be one of 'cosine', 'hamming'"),
        ({"regression": "lars"}, "`regression` to be one of 'ridge', 'lasso'"),
        ({"selection": "none"}, "`selection` to be one of 'auto', 'forward_selection'"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        LIME(**options)
