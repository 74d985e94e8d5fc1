"""RISE: the masks, and the average of the scores over them, in float64."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_explain as kx
from tests import models, naive

CLASSES = np.array([0, 3, 1])


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


def rise(score, x, masks, fill=0.0):
    """E[S | seen] - E[S], by a loop over masks."""
    scores = []
    for mask in masks:
        seen = mask[None, ..., None]
        scores.append(score(fill + seen * (x - fill)))
    scores = np.array(scores)  # [masks, n]
    weighted = np.einsum("pn,p...->n...", scores, masks)
    mean = scores.mean(axis=0).reshape(-1, *(1 for _ in masks.shape[1:]))
    return weighted / masks.sum(axis=0) - mean


@pytest.mark.parametrize("shape", [(8, 6, 2), (12, 2), (6, 4, 5, 1)])
def test_the_formula(shape):
    model, x = naive.network(shape), naive.inputs(shape)
    net, explainer = naive.Net([model]), kx.RISE(masks=30, cells=3, keep=0.6, baseline=0.2)
    masks = masks_of(explainer, x, seed=5)
    expected = rise(lambda v: net.score(v, CLASSES), x, masks, 0.2)
    values = explainer(model, x, CLASSES, seed=5).values
    naive.close(values, expected, 3e-5)


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


def test_columns_of_a_table_are_whole():
    """An additive model: what a column adds, seen or not, within the error of the masks."""
    weights = np.array([3.0, -2.0, 0.0, 1.0], np.float32)
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1, use_bias=False)(x))
    model.set_weights([weights[:, None]])
    rows = np.array([[1, 1, 5, 2], [2, -1, 0, 0.5]], np.float32)
    values = kx.RISE(masks=4000, keep=0.25)(model, rows, 0).values
    np.testing.assert_allclose(values, 0.75 * weights * rows, atol=0.35)
    assert values.shape == rows.shape


def test_padding_has_no_value():
    case = models.get("tokens_int")
    tokens = kx.features.Tokens(mask=3)
    values = kx.RISE(masks=50, features=tokens)(case.model, case.x).values
    assert not values[case.x == 0].any()
    assert values[case.x != 0].all()


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


def test_a_constant_model_gives_zeros():
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, ops.zeros_like(x[:, 0, 0]) + 2.0)
    with pytest.warns(UserWarning, match="zero everywhere"):
        explanation = kx.RISE(masks=64)(model, np.ones((2, 4, 4, 1), "float32"), 0)
    assert not explanation.values.any()


def test_a_place_that_no_mask_shows_has_no_value():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    explainer = kx.RISE(masks=2, keep=0.2)
    seen = explainer.perturbations(x, {"0"}, 5, 0)["present"].any(axis=0)
    assert not seen.all()
    values = explainer(model, x, CLASSES).values
    assert np.isfinite(values).all()
    assert not values[:, ~seen].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"masks": 0}, "`masks` to be a whole number of 1 or more"),
        ({"cells": 0}, "`cells` to be a whole number of 1 or more"),
        ({"keep": 0}, "`keep` between 0 and 1"),
        ({"keep": 1.0}, "`keep` between 0 and 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        kx.RISE(**options)
