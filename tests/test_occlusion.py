"""Occlusion: every window hidden by a loop in NumPy, in float64."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import keras_explain as kx
from tests import models, naive

CLASSES = np.array([0, 3, 1])


def starts(side, length, step):
    """Every `step`, and the last window at the edge."""
    return sorted({*range(0, side - length, step), side - length})


def occlusion(score, x, patch, stride, fill=0.0):
    """The mean loss over the windows that cover a place, by loops over windows and places."""
    sides = x.shape[1 : 1 + len(patch)]
    lost, count = np.zeros(x.shape[: 1 + len(patch)]), np.zeros(sides)
    along = [starts(*three) for three in zip(sides, patch, stride, strict=True)]
    for start in itertools.product(*along):
        window = tuple(slice(s, s + length) for s, length in zip(start, patch, strict=True))
        hidden = x.astype(np.float64).copy()
        hidden[(slice(None), *window)] = fill
        drop = score(x) - score(hidden)
        lost[(slice(None), *window)] += drop.reshape(-1, *(1 for _ in patch))
        count[window] += 1
    return lost / count


@pytest.mark.parametrize(
    ("patch", "stride"),
    [((3, 2), (2, 1)), ((1, 1), (1, 1)), ((8, 6), (8, 6)), ((3, 4), (3, 4)), ((5, 1), (2, 1))],
)
def test_pictures_that_are_not_square(patch, stride):
    model, x = naive.network(), naive.inputs((8, 6, 2))
    net = naive.Net([model])
    values = kx.Occlusion(patch=patch, stride=stride, baseline=0.3)(model, x, CLASSES).values
    expected = occlusion(lambda v: net.score(v, CLASSES), x, patch, stride, 0.3)
    naive.close(values, expected)


def test_one_number_is_for_all_axes_and_the_stride_half_of_it():
    model, x = naive.network(), naive.inputs((8, 6, 2))
    short = kx.Occlusion(patch=3)(model, x, CLASSES).values
    long = kx.Occlusion(patch=(3, 3), stride=(2, 2))(model, x, CLASSES).values
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [((45, 2), (3,), (2,)), ((12, 4, 5, 1), (2, 1, 1), (1, 1, 1)), ((5,), (1,), (1,))],
    ids=["series", "volume", "table"],
)
def test_the_default_windows(shape, patch, stride):
    model = naive.perceptron(classes=4) if len(shape) == 1 else naive.network(shape)
    x, net = naive.inputs(shape), naive.Net([model])
    values = kx.Occlusion()(model, x, CLASSES).values
    naive.close(values, occlusion(lambda v: net.score(v, CLASSES), x, patch, stride))


def test_a_picture_is_hidden_in_eighths():
    model = seeing(20, 37, (40, 80))
    values = kx.Occlusion()(model, np.ones((1, 40, 80, 1), "float32"), 0).values[0]
    rows, columns = np.nonzero(values)
    # Windows of 5 x 10 by steps of 3 x 5 that cover the place, and what else they cover.
    assert (rows.min(), rows.max() + 1) == (18, 23)
    assert (columns.min(), columns.max() + 1) == (30, 45)
    assert values[20, 37] == values.max() == 1


def seeing(row, column, size):
    """A model whose score is one pixel."""
    x = keras.Input((*size, 1))
    return keras.Model(x, ops.reshape(x[:, row, column], (-1, 1)))


def test_tokens_without_padding():
    case = models.get("tokens_int")
    values = kx.Occlusion(patch=2, stride=1)(case.model, case.x).values
    for row, ids in enumerate(case.x):
        length = int((ids != 0).sum())
        score = lambda v: _logit(case.model, v)  # noqa: E731
        expected = np.zeros(len(ids))
        lost, count = np.zeros(length), np.zeros(length)
        for start in range(length - 1):
            hidden = ids.copy()
            hidden[start : start + 2] = 0
            lost[start : start + 2] += score(ids) - score(hidden)
            count[start : start + 2] += 1
        expected[:length] = lost / count
        np.testing.assert_allclose(values[row], expected, atol=1e-5)


def _logit(model, ids):
    p = float(ops.convert_to_numpy(model(ids[None]))[0, 0])
    return np.log(p / (1 - p))


def test_groups_are_hidden_one_after_the_other():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    groups = [0, 1, 1, -1, 2]
    occluded = kx.Occlusion(groups=groups)(model, x, CLASSES).values
    ablated = kx.FeatureAblation(groups=groups)(model, x, CLASSES).values
    naive.close(occluded, ablated)
    assert not occluded[:, 3].any()


def test_a_background_is_averaged_over():
    model, x = naive.perceptron(classes=4), naive.inputs((5,))
    rows, net = naive.inputs((5,), rows=4, seed=1), naive.Net([model])
    values = kx.Occlusion(background=rows)(model, x, CLASSES).values
    expected = np.zeros(x.shape)
    for i in range(x.shape[1]):
        for row in rows:
            hidden = x.astype(np.float64).copy()
            hidden[:, i] = row[i]
            expected[:, i] += (net.score(x, CLASSES) - net.score(hidden, CLASSES)) / len(rows)
    naive.close(values, expected)


def test_several_inputs_are_hidden_one_at_a_time():
    case = models.get("inputs_dict")
    values = kx.Occlusion(patch=4, stride=4)(case.model, case.x, 1).values
    score = lambda x: _logits(case.model, x)[:, 1]  # noqa: E731
    for name in case.x:
        for top, left in itertools.product((0, 4), (0, 4)):
            hidden = {key: value.copy() for key, value in case.x.items()}
            hidden[name][:, top : top + 4, left : left + 4] = 0
            lost = score(case.x) - score(hidden)
            got = values[name][:, top : top + 4, left : left + 4]
            np.testing.assert_allclose(
                got, np.broadcast_to(lost[:, None, None], got.shape), atol=2e-5
            )


def _logits(model, x):
    """The logits of a model that ends in a Dense layer with softmax."""
    head = model.layers[-1]
    before = keras.Model(model.inputs, head.input)
    flat = [x[tensor.name] for tensor in model.inputs]
    features = ops.convert_to_numpy(before(flat)).astype(np.float64)
    kernel, bias = (np.asarray(weight, np.float64) for weight in head.get_weights())
    return features @ kernel + bias


def test_a_constant_model_gives_zeros():
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, ops.zeros_like(x[:, 0, 0]) + 2.0)
    with pytest.warns(UserWarning, match="zero everywhere"):
        values = kx.Occlusion()(model, np.ones((2, 4, 4, 1), "float32"), 0).values
    assert not values.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": 0}, "`patch` to be a whole number of 1 or more"),
        ({"stride": 1.5}, "`stride` to be a whole number of 1 or more"),
        ({"patch": (2, 0)}, "`patch` to be a whole number of 1 or more"),
        ({"patch": (2, 2, 2)}, "one for each of 2 spatial axes"),
        ({"patch": 2, "stride": 3}, "stride of at most the window's length"),
        ({"baseline": np.zeros((3, 3))}, "baseline of one sample's shape"),
    ],
)
def test_bad_options(options, words):
    model, x = naive.network(), naive.inputs((8, 6, 2))
    with pytest.raises(ValueError, match=words):
        kx.Occlusion(**options)(model, x, CLASSES)
