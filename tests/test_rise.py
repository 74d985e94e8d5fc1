"""RISE: the masks, and the estimate made of their scores, in float64."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.hiding.covariances import covariances
from keras_explain.core.hiding.masks import CellMasks, FeatureMasks
from tests import models, naive

CLASSES = np.array([0, 3, 1])


# The method once more


def masks_of(explainer, x, seed=0):
    """The masks `[masks, *places]` of pictures, interpolated by `np.interp` axis by axis."""
    passes = explainer.perturbations(x, set(), 0, seed)
    sides = x.shape[1:-1]
    found = []
    for grid, offset in zip(passes["cells"]["0"], passes["offset"]["0"], strict=True):
        mask = grid.astype(np.float64)
        for axis, side in enumerate(sides):
            cells = min(explainer.cells, side)
            at = np.arange(side) * cells / side + float(offset[axis])
            along = lambda knots, at=at: np.interp(at, np.arange(len(knots)), knots)  # noqa: E731
            mask = np.apply_along_axis(along, axis, mask)
        found.append(mask)
    return np.array(found)


def covariance_of_places(sides, cells):
    """That of masks at each two places, `[N, N]`, where a cell's variance is 1: over offsets."""
    total = np.ones((1, 1))
    for side in sides:
        n = min(cells, side)
        along = np.zeros((side, side))
        for offset in (np.arange(1000) + 0.5) / 1000:
            at = np.arange(side) * n / side + offset
            tent = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n + 2)))
            along += tent @ tent.T / 1000
        total = np.kron(total, along)
    return total


def blocks_of(sides, cells):
    """Which share each place has in the mean of each block, `[blocks, N]`: a block for a cell."""
    total = np.ones((1, 1))
    for side in sides:
        count = min(cells + 2, side)
        edges = [i * side // count for i in range(count + 1)]
        spans = itertools.pairwise(edges)
        along = np.array([[(a <= p < b) / (b - a) for p in range(side)] for a, b in spans])
        total = np.kron(total, along)
    return total


def draws_of(count):
    """128 draws, their complements, and from then on each draw with its own."""
    return np.array([i % 128 if i < 256 else i // 2 for i in range(count)])


def rise(scores, masks, keep, blocks, covariance):
    """`Cov(S, m) / keep` and its standard error, `[N]`, of scores `[n]` and masks `[n, N]`."""
    controls = (masks - keep) @ blocks.T
    near = keep * (1 - keep) * blocks @ covariance
    draws = draws_of(len(scores))
    folds = draws * min(16, draws.max() + 1) // (draws.max() + 1)
    q, estimates, shares = len(blocks), [], []
    for fold in range(folds.max() + 1):
        others, own = folds != fold, folds == fold
        x = np.column_stack([np.ones(others.sum()), controls[others]])
        ridge = np.zeros((q + 1, q + 1))
        ridge[1:, 1:] = 0.1 * q * near @ blocks.T
        model = np.linalg.solve(x.T @ x + ridge, x.T @ scores[others])
        rest = scores[own] - model[0] - controls[own] @ model[1:]
        products = rest[:, None] * (masks[own] - keep)
        estimates.append((model[1:] @ near + products.mean(axis=0)) / keep)
        shares.append(own.mean())
    mean = np.average(estimates, axis=0, weights=shares)
    spread = np.average((estimates - mean) ** 2, axis=0, weights=shares)
    return mean, np.sqrt(spread / folds.max())


@pytest.mark.parametrize(
    ("shape", "count"), [((8, 6, 2), 300), ((12, 2), 30), ((6, 4, 5, 1), 200), ((3, 9, 2), 140)]
)
def test_the_formula(shape, count):
    model, x = naive.network(shape), naive.inputs(shape)
    net, explainer = naive.Net([model]), kx.RISE(masks=count, cells=3, keep=0.6, baseline=0.2)
    masks = masks_of(explainer, x, seed=5)
    hidden = [0.2 + mask[None, ..., None] * (x - 0.2) for mask in masks]
    scores = np.array([net.score(h, CLASSES) for h in hidden])
    known = blocks_of(shape[:-1], 3), covariance_of_places(shape[:-1], 3)
    flat = masks.reshape(count, -1)
    expected = [rise(scores[:, i], flat, 0.6, *known) for i in range(3)]
    explanation = explainer(model, x, CLASSES, seed=5)
    for found, which in ((explanation.values, 0), (explanation.extras["standard_error"], 1)):
        naive.close(found.reshape(3, -1), [each[which] for each in expected], 3e-5)
    assert (explanation.extras["passes"] == count).all()


def test_the_formula_of_features():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    net, explainer = naive.Net([model]), kx.RISE(masks=270, keep=0.3)
    present = explainer.perturbations(x, {"0"}, 5, 0)["present"]
    scores = np.array([net.score(z * x, CLASSES) for z in present])
    expected = [rise(s, present, 0.3, np.eye(5), np.eye(5)) for s in scores.T]
    explanation = explainer(model, x, CLASSES)
    naive.close(explanation.values, [each[0] for each in expected], 1e-5)
    naive.close(explanation.extras["standard_error"], [each[1] for each in expected], 1e-5)


# The masks


def test_masks_keep_their_share_of_each_place():
    masks = masks_of(kx.RISE(masks=3000, cells=4, keep=0.3), np.zeros((1, 20, 30, 1)))
    assert masks.min() == 0
    assert masks.max() == 1
    deviation = masks.std(axis=0) / np.sqrt(len(masks))
    assert (np.abs(masks.mean(axis=0) - 0.3) < 5 * deviation).all()
    assert np.abs(np.diff(masks, axis=1)).max() <= 4 / 20 + 1e-6  # linear between the cells


def test_how_far_a_grid_is_moved_says_nothing_of_its_cells():
    passes = kx.RISE(masks=4000, cells=4).perturbations(np.zeros((1, 20, 30, 1)), set(), 0, 0)
    cells = passes["cells"]["0"].reshape(4000, -1)
    both = np.concatenate([cells, passes["offset"]["0"]], axis=1)
    between = np.corrcoef(both.T)[: cells.shape[1], cells.shape[1] :]
    assert np.abs(between).max() < 5 / np.sqrt(4000)
    numbers = passes["offset"]["0"].ravel()[: cells.size]
    assert 0.2 < np.mean((numbers < 0.5) != cells.ravel()[: len(numbers)]) < 0.8


def test_every_draw_is_followed_by_its_complement():
    x = np.zeros((1, 9, 12, 1))
    masks = masks_of(kx.RISE(masks=400), x)
    for draw in range(200):
        first, second = masks[draws_of(400) == draw]
        np.testing.assert_allclose(first + second, 1, atol=1e-12)
    assert len(np.unique(masks[:128].round(6), axis=0)) == 128
    assert np.abs(masks[:128] + masks[1:129] - 1).max(axis=(1, 2)).min() > 0.1  # no pairs yet


@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_fewer_masks_are_the_beginning_of_more(keep):
    x = np.zeros((1, 9, 12, 1))
    more = kx.RISE(masks=700, keep=keep).perturbations(x, set(), 3, 1)
    for count in (1, 100, 128, 200, 256, 301):
        fewer = kx.RISE(masks=count, keep=keep).perturbations(x, set(), 3, 1)
        for name in ("cells", "offset"):
            np.testing.assert_array_equal(fewer[name]["0"], more[name]["0"][:count])
        np.testing.assert_array_equal(fewer["present"], more["present"][:count])


@pytest.mark.parametrize(("sides", "cells"), [((28,), 7), ((5, 11), 3), ((3, 4, 6), 4)])
def test_what_is_known_of_cells(sides, cells):
    explainer, x = kx.RISE(masks=40, cells=cells), np.zeros((1, *sides, 1))
    passes = explainer.perturbations(x, set(), 0, 0)
    masks = CellMasks(passes["cells"]["0"], passes["offset"]["0"], sides, 0.5)
    blocks, covariance = blocks_of(sides, cells), covariance_of_places(sides, cells)
    flat = masks_of(explainer, x).reshape(40, -1)
    naive.close(masks.controls, (flat - 0.5) @ blocks.T, 1e-6)
    naive.close(masks.gram, blocks @ covariance @ blocks.T, 1e-5)
    weights = np.random.default_rng(0).normal(size=(len(blocks), 2))
    expected = weights.T @ blocks @ covariance
    naive.close(masks.covariance(weights).reshape(2, -1), expected, 1e-5)
    products = masks.products(np.asarray(weights[:9]), np.arange(20, 29))
    naive.close(products.reshape(2, -1), weights[:9].T @ (flat[20:29] - 0.5), 1e-5)


def test_large_masks_are_made_in_parts(monkeypatch):
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2))
    classes = [[0, 3, 1]] * 3
    whole = kx.RISE(masks=300, cells=3)(model, x, classes)
    monkeypatch.setattr("keras_explain.core.hiding.masks.ELEMENTS", 500)
    monkeypatch.setattr("keras_explain.core.hiding.covariances.ELEMENTS", 500)
    parts = kx.RISE(masks=300, cells=3)(model, x, classes)
    naive.close(parts.values, whole.values, 1e-5)
    naive.close(parts.extras["standard_error"], whole.extras["standard_error"], 1e-5)


# The estimate


def features_and_cells(count, seed):
    """Masks of three features and of a series of 6 places, 2 cells."""
    explainer = kx.RISE(masks=count, cells=2, keep=0.4)
    nest = [np.zeros((1, 3)), np.zeros((1, 6, 1))]
    passes = explainer.perturbations(nest, {"0"}, 3, seed)
    cells = CellMasks(passes["cells"]["1"], passes["offset"]["1"], (6,), 0.4)
    return FeatureMasks(passes["present"], 0.4), cells


def score_of(features, cells):
    """Far from linear, of both."""
    a = features @ [1.0, -2.0, 1.5]
    return np.tanh(a * (cells @ [2.0, 1, 0, -1, 0.5, 0])) + cells[:, 1] * cells[:, 2] ** 2 + a


def exact_covariances():
    """All features, all grids, and the offset by Gauss-Legendre quadrature."""
    z = np.array(list(itertools.product([0.0, 1], repeat=3)))
    grids = np.array(list(itertools.product([0.0, 1], repeat=4)))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = [0.0, 0.0, 0.0, 0.0, 0.0]
    # the places are thirds of a cell apart, between which masks are smooth in the offset
    for third, (node, weight) in itertools.product(range(3), zip(nodes, weights, strict=True)):
        offset = (third + (node + 1) / 2) / 3
        for features, grid in itertools.product(z, grids):
            mask = np.interp(np.arange(6) / 3 + offset, np.arange(4), grid)
            p = weight / 6 * np.prod(np.where(np.append(features, grid) == 1, 0.4, 0.6))
            score = score_of(features[None], mask[None])[0]
            new = 1, score, score * (features - 0.4), score * (mask - 0.4), 0
            total = [t + p * n for t, n in zip(total, new, strict=True)]
    assert abs(total[0] - 1) < 1e-12
    return total[2], total[3]


@pytest.mark.parametrize("count", [40, 300])
def test_values_are_unbiased_and_their_errors_hold(count):
    """Over 200 seeds, against the sum over all masks."""
    exact, found = np.concatenate(exact_covariances()), []
    for seed in range(200):
        features, cells = features_and_cells(count, seed)
        score = score_of(features.present, np.asarray(cells.seen))
        pairs = covariances(score[:, None], [features, cells], draws_of(count), 0.24)
        found.append(np.concatenate([np.stack(pair)[:, 0] for pair in pairs], axis=1))
    values, errors = np.moveaxis(found, 1, 0)  # [seeds, places]
    deviation = values.std(axis=0, ddof=1)
    assert (np.abs(values.mean(axis=0) - exact) < 4 * deviation / np.sqrt(200)).all()
    assert 0.8 < (np.abs(values - exact) <= 1.645 * errors).mean() < 0.98
    np.testing.assert_allclose(np.sqrt((errors**2).mean(axis=0)), deviation, rtol=0.2)


def test_errors_hold_for_a_network():
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2))
    truth = kx.RISE(masks=2**15, cells=3)(model, x, CLASSES, seed=99).values
    held, error = [], []
    for seed in range(20):
        explanation = kx.RISE(masks=500, cells=3)(model, x, CLASSES, seed=seed)
        held.append(
            np.abs(explanation.values - truth) <= 1.645 * explanation.extras["standard_error"]
        )
        error.append(explanation.extras["relative_error"])
    assert 0.8 < np.mean(held) < 0.98
    assert np.mean(error) < 0.1


def test_what_is_linear_in_the_masks_is_nearly_exact():
    """A table's columns; below, blocks of a picture as large as the controls'."""
    weights = np.array([3.0, -2.0, 0.0, 1.0], np.float32)
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1, use_bias=False)(x))
    model.set_weights([weights[:, None]])
    rows = np.array([[1, 1, 5, 2], [2, -1, 0, 0.5]], np.float32)
    values = kx.RISE(masks=500, keep=0.25)(model, rows, 0).values
    naive.close(values, 0.75 * weights * rows, 1e-3)


def test_a_linear_model_of_a_picture():
    weights = np.kron(np.random.default_rng(0).normal(size=(5, 5)), np.ones((2, 2)))
    x = keras.Input((10, 10, 1))
    model = keras.Model(x, ops.sum(x * weights[..., None].astype("float32"), axis=(1, 2)))
    explanation = kx.RISE(masks=500, cells=3)(model, np.ones((1, 10, 10, 1), "float32"), 0)
    expected = 0.5 * covariance_of_places((10, 10), 3) @ weights.ravel()
    naive.close(explanation.values.ravel(), expected, 5e-3)
    assert explanation.extras["relative_error"][0] < 5e-3


def test_the_values_are_those_of_far_more_masks_by_the_paper():
    """`sum S m / sum m - mean S`, over masks of another seed."""
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2), rows=1)
    passes = kx.RISE(masks=20000, cells=3).perturbations(x, set(), 0, 7)
    masks = np.asarray(CellMasks(passes["cells"]["0"], passes["offset"]["0"], (8, 6), 0.5).seen)
    scores = naive.Net([model]).score(masks[..., None] * x, 2)
    weighted = np.tensordot(scores, masks, 1) / masks.sum(axis=0)
    values = kx.RISE(masks=1000, cells=3)(model, x, 2).values[0]
    naive.close(values, weighted - scores.mean(), 0.05)


# Until it is sure


def test_auto_is_the_same_as_so_many_masks():
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2))
    explanation = kx.RISE(masks="auto", error=0.02, cells=3)(model, x, CLASSES)
    passes = explanation.extras["passes"]
    assert set(passes) <= {256 * 2**i for i in range(7)}
    assert (explanation.extras["relative_error"] <= 0.02).all()
    assert passes.max() > 256
    for row, count in enumerate(passes):
        part = slice(row, row + 1)
        fixed = kx.RISE(masks=int(count), cells=3)(model, x[part], CLASSES[part])
        naive.close(fixed.values[0], explanation.values[row], 1e-5)


def test_auto_says_where_it_is_not_sure():
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2))
    explainer = kx.RISE(masks="auto", error=1e-4, max_passes=300, cells=3)
    with pytest.warns(UserWarning, match="has not reached"):
        explanation = explainer(model, x, CLASSES)
    assert (explanation.extras["passes"] == 300).all()


def test_the_batch_size_changes_nothing():
    model, x = naive.network((8, 6, 2)), naive.inputs((8, 6, 2))
    explain = kx.RISE(masks=300, cells=3)
    whole = explain(model, x, CLASSES)
    for size in (1, 7, 4096):
        other = explain(model, x, CLASSES, batch_size=size)
        naive.close(other.values, whole.values, 2e-6)
    alone = explain(model, x[1:2], CLASSES[1:2])
    naive.close(alone.values[0], whole.values[1], 2e-6)


# What is explained


def test_features_of_one_input_and_cells_of_another():
    """An additive model: each has the values that it would have by itself."""
    table, picture = keras.Input((3,)), keras.Input((6, 8, 1))
    weights = np.array([[2.0], [-1.0], [0.5]], np.float32)
    of_table = keras.layers.Dense(1, use_bias=False)
    of_picture = ops.reshape(ops.sum(picture[:, :3, :4], axis=(1, 2)), (-1, 1))
    model = keras.Model([table, picture], of_table(table) + of_picture)
    of_table.set_weights([weights])
    x = [naive.inputs((3,), 2), np.ones((2, 6, 8, 1), np.float32)]
    explanation = kx.RISE(masks=600, cells=2)(model, x, 0)
    values, errors = explanation.values, explanation.extras["standard_error"]
    np.testing.assert_allclose(values[0], 0.5 * weights[:, 0] * x[0], atol=0.01)
    corner = np.zeros((6, 8))
    corner[:3, :4] = 1
    expected = 0.5 * covariance_of_places((6, 8), 2) @ corner.ravel()
    naive.close(values[1][0].ravel(), expected, 0.03)
    assert [e.shape for e in errors] == [v.shape for v in values]
    assert explanation.extras["relative_error"].shape == (2,)


def test_a_background_and_several_classes():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    net, background = naive.Net([model]), naive.inputs((5,), rows=2, seed=3)
    explainer = kx.RISE(masks=140, background=background)
    present = explainer.perturbations(x, {"0"}, 5, 0)["present"]
    hidden = np.array([[np.where(z, x, row) for row in background] for z in present])
    scores = net.scores(hidden.reshape(-1, 5)).reshape(140, 2, 3, 4).mean(axis=1)
    explanation = explainer(model, x, [[2, 0]] * 3)
    for k, label in enumerate((2, 0)):
        expected = [rise(s, present, 0.5, np.eye(5), np.eye(5))[0] for s in scores[..., label].T]
        naive.close(explanation.values[:, k], expected, 1e-5)


def test_more_features_than_controls():
    """Each by its products with the scores alone."""
    model, x = naive.perceptron(600, classes=4), naive.inputs((600,))
    present = kx.RISE(masks=64).perturbations(x, {"0"}, 600, 0)["present"]
    scores = np.array([naive.Net([model]).score(z * x, CLASSES) for z in present])
    others = scores.sum(axis=0) - scores.reshape(16, 4, 3).sum(axis=1)  # of each fold, 60
    rest = scores - others.repeat(4, axis=0) / 60
    values = kx.RISE(masks=64)(model, x, CLASSES).values
    naive.close(values, rest.T @ (present - 0.5) / 64 / 0.5, 1e-5)


def test_padding_has_no_value():
    case = models.get("tokens_int")
    tokens = kx.features.Tokens(mask=3)
    explanation = kx.RISE(masks=50, features=tokens)(case.model, case.x)
    for found in (explanation.values, explanation.extras["standard_error"]):
        assert not found[case.x == 0].any()
        assert found[case.x != 0].all()


def test_a_model_that_is_not_defined_without_tokens():
    """An average over no tokens."""
    case = models.get("tokens_int")
    with pytest.raises(ValueError, match="finite scores where features are hidden"):
        kx.RISE(masks=200)(case.model, case.x)


def test_groups_take_the_place_of_cells():
    case = models.get("series")
    groups = np.arange(12) // 4
    values = kx.RISE(masks=60, groups=groups)(case.model, case.x).values
    assert values.shape == (4, 12)
    by_group = values.reshape(4, 3, 4)
    np.testing.assert_array_equal(by_group, np.broadcast_to(by_group[..., :1], by_group.shape))
    assert len(np.unique(by_group[0, :, 0])) == 3


def test_the_peak_is_where_the_model_looks():
    x = keras.Input((24, 36, 1))
    model = keras.Model(x, ops.reshape(ops.mean(x[:, 2:8, 24:32], axis=(1, 2)), (-1, 1)))
    values = kx.RISE(masks=500)(model, np.ones((1, 24, 36, 1), "float32"), 0).values[0]
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert 2 <= row < 8
    assert 24 <= column < 32
    assert np.maximum(values, 0)[0:12, 18:36].sum() > 0.8 * np.maximum(values, 0).sum()


@pytest.mark.parametrize("masks", [64, "auto"])
def test_a_constant_model_gives_zeros(masks):
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, ops.zeros_like(x[:, 0, 0]) + 2.0)
    with pytest.warns(UserWarning, match="zero everywhere"):
        explanation = kx.RISE(masks=masks)(model, np.ones((2, 4, 4, 1), "float32"), 0)
    assert not explanation.values.any()
    assert not explanation.extras["standard_error"].any()
    assert not explanation.extras["relative_error"].any()


def test_a_place_that_no_mask_shows():
    """What it adds is not known, and said to be unsure."""
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    explainer = kx.RISE(masks=4, keep=0.1)
    seen = explainer.perturbations(x, {"0"}, 5, 0)["present"].any(axis=0)
    assert not seen.all()
    explanation = explainer(model, x, CLASSES)
    assert np.isfinite(explanation.values).all()
    assert (explanation.extras["standard_error"][:, ~seen] > 0).all()


def test_the_error_of_one_mask_is_not_known():
    explanation = kx.RISE(masks=1)(naive.perceptron(classes=4), naive.inputs((5,)), CLASSES)
    assert np.isfinite(explanation.values).all()
    assert np.isnan(explanation.extras["standard_error"]).all()
    assert np.isnan(explanation.extras["relative_error"]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"masks": 0}, "`masks` to be a whole number of 1 or more"),
        ({"masks": "many"}, '`masks` to be a whole number, or "auto"'),
        ({"masks": "auto", "error": 0}, "`error` as a share"),
        ({"masks": "auto", "max_passes": 0}, "`max_passes` to be a whole number of 1 or more"),
        ({"error": 0.1}, '`error` with masks="auto"'),
        ({"cells": 0}, "`cells` to be a whole number of 1 or more"),
        ({"keep": 0}, "`keep` between 0 and 1"),
        ({"keep": 1.0}, "`keep` between 0 and 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        kx.RISE(**options)


@pytest.mark.filterwarnings("ignore:RISE is below float precision")
@pytest.mark.filterwarnings("ignore:RISE is zero everywhere")
def test_an_error_is_not_known_where_no_mask_shows_what_matters():
    inputs = keras.Input((20,))
    both = layers.Lambda(lambda v: ops.prod(v, -1, keepdims=True), output_shape=(1,))
    model = keras.Model(inputs, both(inputs))
    found = kx.RISE(masks=100)(model, np.ones((1, 20), np.float32))
    np.testing.assert_allclose(found.values, 0, atol=1e-12)
    assert np.isnan(found.extras["standard_error"]).all()
    assert np.isnan(found.extras["relative_error"]).all()
