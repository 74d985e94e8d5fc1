"""Learned masks against loops in float64, and what they promise."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from keras_explain.explainers.meaningful import ExtremalPerturbation, MeaningfulPerturbation
from tests import naive

BOTH = [MeaningfulPerturbation, ExtremalPerturbation]


# The loops


def over_places(cells, size):
    """How much of each cell is at each place, `[cells, *size]`."""
    count = int(np.prod(cells))
    return naive.bilinear(np.eye(count).reshape(count, *cells), size)


def variation(grid):
    """The mean of |dm|^3 over cells side by side, and its derivative."""
    total, slope = 0.0, np.zeros_like(grid)
    for axis in range(grid.ndim):
        for at in np.ndindex(*grid.shape):
            if at[axis] + 1 < grid.shape[axis]:
                next_ = tuple(i + (a == axis) for a, i in enumerate(at))
                change = grid[next_] - grid[at]
                total += abs(change) ** 3
                slope[next_] += 3 * change * abs(change)
                slope[at] -= 3 * change * abs(change)
    return total / grid.size, slope / grid.size


def hide_least(mask, score, slope, done, options):
    """The derivative of Fong and Vedaldi's equation 4, without the variation."""
    return (score > 0) * slope - options.get("area_weight", 1.0) / mask.size


def keep_best(mask, score, slope, done, options):
    """That of Fong et al., 2019, with the area's loss on sorted values."""
    kept = max(options.get("area", 0.1) * mask.size, 1)
    wanted = np.clip(np.arange(1, mask.size + 1) - (mask.size - kept), 0, 1)
    rank = np.argsort(np.argsort(mask, kind="stable"), kind="stable")
    weight = min(2 * done, 1) * options.get("area_weight", 50.0)
    return weight * 2 * (mask - wanted[rank]) / mask.size - slope


def learned(cls, net, x, target, parts, *, fill=0.0, cells=None, shifts=None, **options):
    """The mask of one sample `[*places, C]`, which is made of `parts` `[P, *places]`."""
    extremal, steps = cls is ExtremalPerturbation, options["steps"]
    rate = options.get("rate", 0.3 if extremal else 0.1)
    fill = np.broadcast_to(fill, x.shape).astype(np.float64)
    base = net.score(fill[None], [target])[0]
    gain = abs(net.score(x[None], [target])[0] - base)
    numbers = np.full(len(parts), 0.0 if extremal else 0.01)
    first, second, late = 0 * numbers, 0 * numbers, []
    for i in range(steps):
        mask = naive.sigmoid(numbers) if extremal else numbers
        moved = parts if shifts is None else np.roll(parts, shifts[i], tuple(range(1, parts.ndim)))
        seen = np.tensordot(mask, moved, 1).reshape(*x.shape[:-1], -1)
        point = (fill + seen * (x - fill))[None]
        back = net.gradient(point, [target])[0] * (x - fill) / gain
        back = back.sum(axis=-1) if seen.shape != x.shape else back
        slope = moved.reshape(len(parts), -1) @ back.reshape(-1)
        score = (net.score(point, [target])[0] - base) / gain
        slope = (keep_best if extremal else hide_least)(mask, score, slope, i / steps, options)
        if cells is not None:
            weight = options.get("variation_weight", 5.0 if extremal else 1.0)
            slope = slope + weight * variation(mask.reshape(cells))[1].reshape(-1)
        slope = slope * mask * (1 - mask) if extremal else slope
        power = np.mean(slope**2) if extremal else slope**2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * power
        mean, square = first / (1 - 0.9 ** (i + 1)), second / (1 - 0.999 ** (i + 1))
        numbers = numbers - rate * mean / (np.sqrt(square) + 1e-8)
        numbers = numbers if extremal else np.clip(numbers, 0, 1)
        if 2 * (i + 1) > steps:
            late.append(naive.sigmoid(numbers) if extremal else numbers)
    mask = np.mean(late, axis=0)
    return mask if extremal else 1 - mask


def spoken_for(net, x, *fills):
    """Rows with the class that what is hidden says most for, whichever fill takes its place."""
    gain = np.min([net.scores(x) - net.scores(fill) for fill in fills], axis=0)
    keep = gain.max(axis=1) > 0.1
    assert keep.sum() > 1
    return x[keep], gain[keep].argmax(axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 7, "jitter": 0},
        {"steps": 6, "jitter": 0.4, "rate": 0.05, "variation_weight": 9.0, "area_weight": 0.5},
    ],
    ids=["default", "moved"],
)
@pytest.mark.parametrize("cls", BOTH)
def test_pictures(cls, options):
    model = naive.network((5, 4, 2))
    net, x = naive.Net([model]), naive.inputs((5, 4, 2), rows=6)
    parts = over_places((3, 3), (5, 4))
    drawn = backend.random_uniform(7, (options["steps"], 2))
    most = np.floor(options["jitter"] * np.array([5, 4]))
    shifts = np.floor(drawn * (2 * most + 1) - most).astype(int)
    x, target = spoken_for(net, x, 0 * x + 0.3)
    explanation = cls(cells=3, baseline=0.3, **options)(model, x, target, seed=7)
    masks = [
        learned(cls, net, *row, parts, fill=0.3, cells=(3, 3), shifts=shifts, **options)
        for row in zip(x.astype(np.float64), target, strict=True)
    ]
    assert np.std(masks) > 0.01
    naive.close(explanation.values, np.tensordot(masks, parts, 1), 1e-3)
    assert (np.abs(shifts).max() > 0) == (options["jitter"] > 0)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (MeaningfulPerturbation, {}),
        (MeaningfulPerturbation, {"groups": [0, 1, 1, 2, -1]}),
        (ExtremalPerturbation, {"groups": [0, 1, 1, 2, -1]}),
    ],
)
def test_tables(cls, options):
    """A number for each column or group; what is of none is never hidden."""
    model = naive.perceptron()
    net, x = naive.Net([model]), naive.inputs((5,), rows=6)
    groups = np.array(options.get("groups", np.arange(5)))
    x, target = spoken_for(net, x, np.where(groups < 0, x, 0.0))
    explanation = cls(steps=8, area_weight=0.1, **options)(model, x, target)
    parts = (groups == np.arange(groups.max() + 1)[:, None]) * 1.0
    for i, row in enumerate(x.astype(np.float64)):
        fill = np.where(groups < 0, row, 0.0)
        mask = learned(cls, net, row, target[i], parts, fill=fill, steps=8, area_weight=0.1)
        naive.close(explanation.values[i], mask @ parts, 1e-3)
    assert ("features" in explanation.extras) == ("groups" in options)


@pytest.mark.parametrize("cls", BOTH)
def test_the_score_that_the_mask_leaves(cls):
    model = naive.perceptron()
    net, x = naive.Net([model]), naive.inputs((5,), rows=6)
    x, target = spoken_for(net, x, 0 * x)
    explanation = cls(steps=8, area_weight=0.1)(model, x, target)
    mask = 1 - explanation.values if cls is MeaningfulPerturbation else explanation.values
    naive.close(explanation.extras["masked_scores"], net.score(mask * x, target), 1e-4)
    naive.close(explanation.scores, net.score(x, target))


# What they promise


def patchy(shape=(12, 10, 1)):
    """A model whose score is the sum over a patch alone: rows 3 to 5, columns 2 to 6."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(layers.Flatten()(inputs)))
    kernel = np.zeros((*shape, 2), "float32")
    kernel[3:6, 2:7, :, 1] = 1.0
    kernel[6:, :, :, 0] = 1.0
    model.set_weights([kernel.reshape(-1, 2), np.ones(2)])
    return model


@pytest.fixture(scope="module")
def patch():
    x = np.random.default_rng(0).uniform(0.5, 1.5, (3, 12, 10, 1)).astype("float32")
    inside = np.zeros((12, 10), bool)
    inside[3:6, 2:7] = True
    return patchy(), x, inside


@pytest.mark.parametrize("cls", BOTH)
def test_it_covers_what_the_model_looks_at(patch, cls):
    """15 of 120 places, by a mask of single places."""
    model, x, inside = patch
    area = {"area": 15 / 120} if cls is ExtremalPerturbation else {}
    explainer = cls(cells=12, steps=80, variation_weight=0.01, **area)
    explanation = explainer(model, x, 1)
    assert explanation.values[:, inside].min() > 0.8
    assert explanation.values[:, ~inside].max() < 0.2
    gain = explanation.scores - 1
    left = (explanation.extras["masked_scores"] - 1) / gain
    if cls is ExtremalPerturbation:
        assert (left > 0.9).all()
        assert abs(explanation.values.mean() - 15 / 120) < 0.02
    else:
        assert (left < 0.1).all()


@pytest.mark.parametrize(("area", "kept"), [(0.01, 1), (0.5, 3)])
def test_the_area_goes_to_what_counts_most(area, kept):
    """In whatever order the columns are."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, use_bias=False)])
    weights = np.array([3.0, 1.0, 6.0, 4.0, 2.0, 5.0])
    model.set_weights([weights[:, None]])
    values = ExtremalPerturbation(area=area)(model, np.ones((1, 6), "float32")).values[0]
    largest = np.argsort(weights)[-kept:]
    assert values[largest].min() > 0.8
    assert np.delete(values, largest).max() < 0.2


@pytest.mark.parametrize("cls", BOTH)
def test_rows_and_classes_are_learned_apart(patch, cls):
    model, x, _ = patch
    explainer = cls(cells=4, steps=12, jitter=0.1)
    both = explainer(model, x, [[0, 1]] * 3)
    assert both.values.shape == (3, 2, 12, 10)
    assert both.extras["masked_scores"].shape == (3, 2)
    for batch_size in (1, 4):
        some = explainer(model, x, [[0, 1]] * 3, batch_size=batch_size)
        naive.close(some.values, both.values, 1e-4)
    naive.close(explainer(model, x[1:2], 1).values[0], both.values[1, 1], 1e-4)
    assert np.abs(explainer(model, x, 1, seed=1).values - both.values[:, 1]).max() > 1e-3


@pytest.mark.parametrize("cls", BOTH)
def test_rows_of_a_background_take_turns(cls):
    model, x = naive.perceptron(), naive.inputs((5,), rows=8)
    rows = naive.inputs((5,), rows=2, seed=4)
    net = naive.Net([model])
    x, target = spoken_for(net, x, *(0 * x + row for row in rows))
    explanation = cls(steps=8, background=rows, area_weight=0.1)(model, x, target)
    each = [cls(steps=8, baseline=row, area_weight=0.1)(model, x, target).values for row in rows]
    naive.close(explanation.values, np.mean(each, axis=0), 1e-4)


def constant(shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))
    model.set_weights([np.zeros((int(np.prod(shape)), 2)), np.ones(2)])
    return model


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("shape", [(6, 5, 2), (1,)], ids=["picture", "one column"])
def test_a_constant_model_has_zeros(cls, shape):
    with pytest.warns(UserWarning, match="zero everywhere"):
        explanation = cls(steps=4)(constant(shape), naive.inputs(shape), 1)
    assert not explanation.values.any()


def test_a_saturated_model_is_no_obstacle():
    """Where all is seen, the score has no slope."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, 5 * ops.tanh(2 * (inputs[:, :1] + inputs[:, 1:2])))
    explanation = MeaningfulPerturbation()(model, np.ones((1, 6), "float32"))
    np.testing.assert_allclose(explanation.values[0], [1, 1, 0, 0, 0, 0], atol=0.05)
    assert explanation.extras["masked_scores"] < 0.5


def test_where_the_fill_scores_higher_nothing_need_be_hidden(patch):
    model, x, _ = patch
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert not MeaningfulPerturbation(steps=5, cells=4)(model, -x, 1).values.any()


# Inputs


@pytest.mark.parametrize("cls", BOTH)
def test_texts_are_hidden_by_token_and_padding_never(cls):
    """Id 7 speaks for class 1; the texts differ in length."""
    inputs = keras.Input((6,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(9, 2, name="words")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="scores")(h))
    table = np.full((9, 2), 0.1, "float32")
    table[0], table[7] = 0.0, 2.0
    model.set_weights([table, np.array([[0, 1], [0, 1]], "float32"), np.zeros(2)])
    ids = np.array([[1, 7, 2, 0, 0, 0], [3, 4, 5, 2, 7, 1]])
    values = cls(steps=60)(model, ids, 1).values
    assert values.shape == (2, 6)
    assert (values.argmax(axis=1) == [1, 4]).all()
    assert (values[[0, 1], [1, 4]] > 0.8).all()
    assert not values[0, 3:].any()


@pytest.mark.parametrize("cls", BOTH)
def test_inputs_beside_each_other_share_a_mask(cls):
    """A series and a table, of which the table's second column alone counts."""
    series, table = keras.Input((9, 2), name="series"), keras.Input((3,), name="table")
    h = layers.Concatenate()([layers.Flatten()(series), table])
    model = keras.Model({"series": series, "table": table}, layers.Dense(1)(h))
    kernel = np.full((21, 1), 1e-3, "float32")
    kernel[19] = 1.0
    model.set_weights([kernel, np.zeros(1)])
    x = {"series": np.ones((2, 9, 2), "float32"), "table": np.ones((2, 3), "float32")}
    values = cls(steps=60, cells=4)(model, x).values
    assert values["series"].shape == (2, 9)
    assert values["table"].shape == (2, 3)
    assert (values["table"][:, 1] > 0.8).all()
    assert values["series"].max() < 0.2
    assert values["table"][:, [0, 2]].max() < 0.2


def test_segments_are_features(patch):
    model, x, inside = patch
    labels = np.where(inside, 2, np.arange(12)[:, None] // 6)
    explainer = MeaningfulPerturbation(
        features=kx.features.Segments(labels=labels), steps=40, area_weight=0.3
    )
    explanation = explainer(model, x, 1)
    assert explanation.values[:, inside].min() > 0.5
    assert np.ptp(explanation.values[:, inside], axis=1).max() == 0
    assert not explanation.values[:, ~inside].any()
    np.testing.assert_array_equal(explanation.extras["features"], np.stack([labels] * 3))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "`cells` to be a whole number"),
        ({"steps": 0}, "`steps` to be a whole number"),
        ({"rate": 0}, "`rate` above 0"),
        ({"jitter": 1.5}, "`jitter` below 1"),
        ({"area_weight": -1}, "`area_weight` to be a number of 0 or more"),
        ({"variation_weight": "much"}, "`variation_weight` to be a number of 0 or more"),
    ],
)
@pytest.mark.parametrize("cls", BOTH)
def test_bad_configurations(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


@pytest.mark.parametrize("area", [0, -0.1, 1.5, "half"])
def test_an_area_is_a_share(area):
    with pytest.raises(ValueError, match="Expected `area`"):
        ExtremalPerturbation(area=area)


def test_what_does_not_suit_the_input():
    x = naive.inputs((5,))
    with pytest.raises(ValueError, match="spatial axes"):
        MeaningfulPerturbation(baseline=kx.baselines.Blur())(naive.perceptron(), x, 1)
    with pytest.raises(ValueError, match="groups of one sample's shape"):
        MeaningfulPerturbation(groups=[0, 1])(naive.perceptron(), x, 1)


def test_a_gradient_that_is_cut_off_is_an_error():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(1)(keras.ops.floor(inputs)))
    with pytest.raises(ValueError, match="gradient of the score"):
        MeaningfulPerturbation(steps=2)(model, naive.inputs((5,)))


@pytest.mark.parametrize("cls", BOTH)
def test_a_rate_may_be_a_whole_number(cls):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, ops.sum(inputs, axis=1, keepdims=True))
    values = cls(rate=1, steps=2)(model, np.ones((1, 5), "float32")).values
    assert np.isfinite(values).all()


@pytest.mark.parametrize("cls", BOTH)
def test_what_is_not_defined_on_the_way_is_an_error(cls):
    """Where the input and the fill have finite scores, and a mask that is kept would too."""
    inputs = keras.Input((3,))
    parts = ops.log(ops.absolute(inputs - 0.25) - 0.2)
    model = keras.Model(inputs, ops.sum(parts, axis=1, keepdims=True) * 0.1 + inputs[:, :1])
    with pytest.raises(ValueError, match="Expected finite scores"):
        cls(steps=60, rate=0.05)(model, np.ones((1, 3), "float32"))


@pytest.mark.parametrize("cls", BOTH)
def test_a_configuration_comes_back(cls):
    explainer = cls(cells=5, steps=9, groups=[0, 0, 1])
    assert cls.from_config(explainer.get_config()) == explainer
