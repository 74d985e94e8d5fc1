"""Features and fills: what the model really receives where features are hidden, and the values.

A model keeps every input that it is run on. What it received is compared with masking in plain
NumPy, and the values of `FeatureAblation` with the model's own scores of these inputs.
"""

import contextlib
import functools
import io
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from scipy import ndimage

import keras_explain as kx
from keras_explain import baselines, features
from keras_explain.core.data import kinds
from keras_explain.core.hiding.perturbation import Coalitions
from tests import naive

ALL_AT_ONCE = 4096


# A model that keeps what it receives


class Net:
    """A small network behind a function that keeps what goes through it."""

    def __init__(self, shape, dtype="float32", batch_size=None):
        self.seen = []
        x = keras.Input(shape, dtype=dtype, batch_size=batch_size)
        h = layers.Flatten()(ops.cast(layers.Lambda(self._kept)(x), "float32"))
        h = layers.Dense(3)(layers.Dense(5, activation="tanh")(h))
        self.model = naive.randomize(keras.Model(x, h))

    def _kept(self, x):
        def keep(array):
            self.seen.append(array.copy())
            return array

        same = tf.numpy_function(keep, [x], x.dtype)
        same.set_shape(x.shape)
        return same

    def explained(self, explainer, x, target=1, **options):
        """The explanation, and what the model received beside `x`, in one array."""
        self.seen.clear()
        explanation = explainer(self.model, x, target, **{"batch_size": ALL_AT_ONCE} | options)
        first, *rest = self.seen
        if len(first) == len(x):
            np.testing.assert_array_equal(first, x)
            return explanation, np.concatenate(rest)
        rows = np.concatenate(self.seen)  # of samples with numbers of features of their own
        whole = [any(np.array_equal(row, sample) for sample in x) for row in rows]
        assert sum(whole) == len(x)
        return explanation, rows[~np.array(whole)]

    def scores(self, x, target=1):
        return self.model.predict(np.asarray(x), ALL_AT_ONCE, verbose=0).astype(np.float64)[
            :, target
        ]


net = functools.cache(Net)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def without(x, labels, feature, fill, channels=-1):
    """`x` with the fill where `labels` name the feature."""
    hidden = labels == feature
    if hidden.ndim < x.ndim:
        hidden = np.expand_dims(hidden, channels)
    return np.where(hidden, fill, x)


def check(explainer, x, labels, fill=0.0, *, of=None, channels=-1, tolerance=0.0, **options):
    """Compares an ablation with masking by labels `[n, *places]` in NumPy."""
    of = net(x.shape[1:]) if of is None else of
    explanation, received = of.explained(explainer, x, **options)
    counts = labels.reshape(len(x), -1).max(axis=1) + 1
    passes = [without(x, labels, feature, fill, channels) for feature in range(counts.max())]
    scores = of.scores(np.concatenate(passes)).reshape(-1, len(x))
    expected = np.zeros(labels.shape)
    for feature, change in enumerate(of.scores(x) - scores):
        change = change.reshape(-1, *(1 for _ in labels.shape[1:]))
        expected += np.where(labels == feature, change, 0)
    naive.close(explanation.values, expected)
    assert len(received) == counts.sum()
    if (counts == counts[0]).all():
        np.testing.assert_allclose(received, np.concatenate(passes), rtol=0, atol=tolerance)
    return explanation


def each(labels, rows):
    return np.repeat(np.asarray(labels)[None], rows, axis=0)


def blocks(shape, lengths):
    """The number of the block of each place, counted by plain loops."""
    counts = [-(-n // length) for n, length in zip(shape, lengths, strict=True)]
    labels = np.zeros(shape, int)
    for at in np.ndindex(shape):
        block = [i // length for i, length in zip(at, lengths, strict=True)]
        labels[at] = np.ravel_multi_index(block, counts)
    return labels


# Pictures


PICTURES = numbers(2, 8, 10, 3)


@pytest.mark.parametrize(
    ("what", "lengths"),
    [
        (features.Pixels(), (1, 1)),
        (features.Patches(3), (3, 3)),
        (features.Patches((4, 5)), (4, 5)),
        (features.Patches(99), (99, 99)),
        (features.Grid(2), (4, 5)),
        (features.Grid(8), None),
    ],
    ids=repr,
)
def test_blocks_of_pictures(what, lengths):
    if lengths is None:  # 10 columns in 8 blocks: the first of each are 0, 2, 3, 4, 5, 7, 8, 9
        across = np.searchsorted([0, 2, 3, 4, 5, 7, 8, 9], np.arange(10), side="right") - 1
        labels = 8 * np.arange(8)[:, None] + across
    else:
        labels = blocks((8, 10), lengths)
    explanation = check(kx.FeatureAblation(features=what), PICTURES, each(labels, 2))
    assert ("features" in explanation.extras) == (what != features.Pixels())
    if "features" in explanation.extras:
        np.testing.assert_array_equal(explanation.extras["features"], each(labels, 2))


def patchwork(rows, size=40):
    """Pictures of four flat areas with a little noise, each picture of its own range."""
    areas = blocks((size, size), (size // 2, size // 2))
    colours = np.random.default_rng(1).uniform(size=(rows, 4, 3))
    scale = 1 + 50 * np.arange(rows).reshape(-1, 1, 1, 1)
    return (scale * (colours[:, areas] + 0.01 * numbers(rows, size, size, 3))).astype("float32")


DOCUMENTED = {
    "slic": {"n_segments": 50, "compactness": 10, "sigma": 1},
    "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2},
    "felzenszwalb": {"scale": 100, "sigma": 0.5, "min_size": 50},
}


@pytest.mark.parametrize("method", DOCUMENTED)
def test_segments_are_those_of_scikit_image(method):
    from skimage import segmentation

    x = patchwork(2)
    labels = []
    for picture in x.astype(np.float64):
        unit = (picture - picture.min()) / (picture.max() - picture.min())
        found = getattr(segmentation, method)(unit, **DOCUMENTED[method])
        labels.append(np.unique(found, return_inverse=True)[1].reshape(40, 40))
    assert labels[0].max() >= 3
    what = features.Segments(method)
    explanation = check(kx.FeatureAblation(features=what), x, np.stack(labels))
    np.testing.assert_array_equal(explanation.extras["features"], labels)
    if method == "slic":  # the default of pictures
        again = kx.FeatureAblation()(net(x.shape[1:]).model, x, 1)
        np.testing.assert_array_equal(again.values, explanation.values)


def test_options_of_segments_reach_scikit_image():
    few = features.Segments(options={"n_segments": 4, "sigma": 0})
    x = patchwork(1)
    assert few.numbered(x).max() < features.Segments().numbered(x).max()
    with pytest.raises(TypeError, match="n_segmens"):
        features.Segments(options={"n_segmens": 4}).numbered(x)


def test_grey_pictures_and_those_of_many_channels_are_segmented():
    x = patchwork(1)
    for other in (x[..., :1], np.concatenate([x, x], axis=-1), x[..., :2]):
        labels = features.Segments().numbered(other)
        assert labels.shape == (1, 40, 40)
        assert labels.max() > 1
    np.testing.assert_array_equal(
        features.Segments().numbered(np.concatenate([x, -x], axis=-1)),
        features.Segments().numbered(x),
    )


def test_a_flat_picture_is_one_or_more_whole_segments():
    x = np.full((1, 16, 16, 3), 0.3, np.float32)
    explanation = kx.FeatureAblation()(net(x.shape[1:]).model, x, 1)
    assert np.isfinite(explanation.values).all()
    assert (explanation.extras["features"] >= 0).all()


def test_a_label_map_serves_every_picture():
    labels = blocks((8, 10), (4, 5))
    odd = np.array([7, 3, 12, 40])[labels]  # of any numbers: features are counted in their order
    numbered = np.array([1, 0, 2, 3])[labels]
    explanation = check(
        kx.FeatureAblation(features=features.Segments(labels=odd)), PICTURES, each(numbered, 2)
    )
    np.testing.assert_array_equal(explanation.extras["features"], each(numbered, 2))


def test_label_maps_of_each_picture_with_places_that_are_never_hidden():
    first = blocks((8, 10), (4, 5))
    second = np.where(np.arange(10) < 6, blocks((8, 10), (8, 3)), -1) + 0 * first
    maps = np.stack([first, second])  # 4 features, and 2
    what = features.Segments(labels=maps)
    explanation = check(kx.FeatureAblation(features=what), PICTURES, maps)
    assert not explanation.values[1, :, 6:].any()
    assert explanation.values[1, :, :6].all()
    of = net(PICTURES.shape[1:])
    _, received = of.explained(kx.FeatureAblation(features=what), PICTURES)
    assert len(received) == 4 + 2
    kept = received[(received[:, :, 6:] == PICTURES[1, :, 6:]).all(axis=(1, 2, 3))]
    assert len(kept) == 2


def test_label_maps_of_each_picture_that_have_equally_many_features():
    """Two samples in one share, whose places belong to other features."""
    maps = np.stack([blocks((8, 10), (4, 5)), blocks((8, 10), (8, 3))])  # 4 features each
    explainer = kx.ExactShapley(features=features.Segments(labels=maps))
    values = explainer(net(PICTURES.shape[1:]).model, PICTURES, 1).values
    for labels, picture, found in zip(maps, PICTURES, values, strict=True):
        alone = kx.ExactShapley(features=features.Segments(labels=labels))
        expected = alone(net(PICTURES.shape[1:]).model, picture[None], 1).values[0]
        naive.close(found, expected)


def test_pictures_without_channels():
    x = numbers(2, 9, 8)
    labels = blocks((9, 8), (3, 4))
    check(kx.FeatureAblation(features=features.Patches((3, 4))), x, each(labels, 2))
    what = features.Segments(labels=labels)
    check(kx.FeatureAblation(features=what, baseline=0.5), x, each(labels, 2), 0.5)


def test_channels_first(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    x = np.ascontiguousarray(np.moveaxis(PICTURES, -1, 1))
    what = features.Patches((4, 5))
    labels = each(blocks((8, 10), (4, 5)), 2)
    explanation = check(kx.FeatureAblation(features=what), x, labels, channels=1)
    assert explanation.values.shape == (2, 8, 10)


def test_volumes():
    x = numbers(2, 4, 6, 5, 2)
    labels = blocks((4, 6, 5), (2, 3, 4))
    what = features.Patches((2, 3, 4))
    check(kx.FeatureAblation(features=what), x, each(labels, 2))
    default = kx.FeatureAblation()(net(x.shape[1:]).model, x, 1)
    along = [np.arange(n) * 4 // n for n in (4, 6, 5)]  # 4 blocks along each axis
    blocks_of = 16 * along[0][:, None, None] + 4 * along[1][:, None] + along[2]
    np.testing.assert_array_equal(default.extras["features"], each(blocks_of, 2))


# Tables and series


TABLE = numbers(3, 6)


def test_columns():
    explanation = check(kx.FeatureAblation(), TABLE, each(np.arange(6), 3))
    assert explanation.extras.keys() == {"reliable"}


@pytest.mark.parametrize("explicit", [False, True])
def test_groups_of_columns_go_together(explicit):
    groups = [0, 4, 4, 4, -1, 2]  # a one-hot category, a column that is never hidden
    labels = each([0, 2, 2, 2, -1, 1], 3)
    given = {"features": features.Columns(groups)} if explicit else {"groups": groups}
    explanation = check(kx.FeatureAblation(**given), TABLE, labels)
    np.testing.assert_array_equal(explanation.extras["features"], labels)
    assert not explanation.values[:, 4].any()


def test_groups_of_one_input_by_its_name():
    x = keras.Input((6,), name="table")
    net_ = naive.randomize(keras.Model({"table": x}, layers.Dense(3)(x)))
    groups = [0, 0, 1, 2, 2, 3]
    named = kx.FeatureAblation(groups={"table": groups})(net_, {"table": TABLE}, 1)
    alone = kx.FeatureAblation(groups=groups)(net_, {"table": TABLE}, 1)
    np.testing.assert_array_equal(named.values["table"], alone.values["table"])


def test_all_negative_groups_are_never_hidden():
    explainer = kx.FeatureAblation(groups=[-1, 0, -2, 1, -2, 0])
    check(explainer, TABLE, each([-1, 0, -1, 1, -1, 0], len(TABLE)))


def test_groups_of_places_and_of_single_numbers():
    x = numbers(2, 5, 2)
    check(kx.FeatureAblation(groups=[0, 0, 1, 1, 2]), x, each([0, 0, 1, 1, 2], 2))
    single = blocks((5, 2), (5, 1))  # the two channels
    check(kx.FeatureAblation(groups=single), x, each(single, 2))


def test_windows_of_a_series():
    x = numbers(2, 41, 2)
    check(kx.FeatureAblation(features=features.Windows(7)), x, each(np.arange(41) // 7, 2))
    check(kx.FeatureAblation(), x, each(np.arange(41) // 3, 2))  # 41 / 20, rounded up
    flat = numbers(2, 41)
    check(kx.FeatureAblation(features=features.Windows(20)), flat, each(np.arange(41) // 20, 2))


@pytest.mark.parametrize(
    ("shape", "are_tokens", "kind"),
    [
        ((2,), False, "table"),
        ((2, 9), False, "table"),
        ((2, 9), True, "tokens"),
        ((2, 9, 1), False, "series"),
        ((2, 28, 28), False, "picture"),
        ((2, 8, 16), False, "picture"),
        ((2, 8, 17), False, "series"),
        ((2, 7, 7), False, "series"),
        ((2, 500, 12), False, "series"),
        ((2, 4, 4, 3), False, "picture"),
        ((2, 4, 4, 4, 1), False, "volume"),
    ],
)
def test_what_an_input_is_by_its_shape(shape, are_tokens, kind):
    assert kinds.kind_of(shape, are_tokens=are_tokens) == kind


# What takes the place


@pytest.mark.parametrize("own", [False, True])
def test_an_array_takes_the_place(own):
    fill = numbers(3, 6, seed=1) if own else numbers(6, seed=1)
    check(kx.FeatureAblation(baseline=fill), TABLE, each(np.arange(6), 3), fill)


def test_the_mean_of_each_samples_own_places_takes_the_place():
    labels = each(blocks((8, 10), (4, 5)), 2)
    what = kx.FeatureAblation(features=features.Patches((4, 5)), baseline=baselines.Mean())
    fill = PICTURES.astype(np.float64).mean(axis=(1, 2), keepdims=True)
    check(what, PICTURES, labels, fill, tolerance=1e-6)
    row = TABLE.astype(np.float64).mean(axis=1, keepdims=True)
    table = kx.FeatureAblation(baseline=baselines.Mean())
    check(table, TABLE, each(np.arange(6), 3), row, tolerance=1e-6)


def test_blur_takes_the_place():
    labels = each(blocks((8, 10), (4, 5)), 2)
    what = kx.FeatureAblation(features=features.Patches((4, 5)), baseline=baselines.Blur(2.0))
    fill = ndimage.gaussian_filter(PICTURES.astype(np.float64), (0, 2, 2, 0), mode="nearest")
    check(what, PICTURES, labels, fill, tolerance=1e-5)


def test_noise_has_the_mean_and_deviation_of_its_surroundings():
    """With one and the same draw of a normal distribution for each picture."""
    x = np.random.default_rng(0).normal(size=(2, 20, 24)) * [[[1.0]], [[3.0]]]
    x[1, :, 12:] += 10.0  # an edge, near which the deviation is large
    mean = ndimage.gaussian_filter(x, (0, 2, 2), mode="nearest")
    square = ndimage.gaussian_filter(x**2, (0, 2, 2), mode="nearest")
    noise = baselines.Noise(2.0)(ops.convert_to_tensor(x[..., None], "float32"), ops.arange(2))
    drawn = (ops.convert_to_numpy(noise)[..., 0] - mean) / np.sqrt(square - mean**2)
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-3)
    assert abs(drawn[0].mean()) < 5 / np.sqrt(480)
    assert abs(drawn[0].std() - 1) < 5 / np.sqrt(2 * 480)


def test_noise_depends_on_its_own_seed_alone():
    explainer = kx.FeatureAblation(features=features.Patches((4, 5)), baseline=baselines.Noise(3))
    model = net(PICTURES.shape[1:]).model
    values = explainer(model, PICTURES, 1).values
    np.testing.assert_array_equal(explainer(model, PICTURES, 1, seed=5).values, values)
    naive.close(explainer(model, PICTURES[1:], 1).values, values[1:])
    other = explainer.replace(baseline=baselines.Noise(3, seed=1))(model, PICTURES, 1).values
    assert np.abs(other - values).max() > 1e-3


def test_rows_of_a_background_take_the_place_and_scores_are_averaged():
    background = numbers(4, 6, seed=2)
    groups = np.array([0, 0, 1, 1, 1, 2])
    of = net((6,))
    explainer = kx.FeatureAblation(groups=groups, background=background)
    explanation, received = of.explained(explainer, TABLE)
    expected, values = [], np.zeros((3, 6))
    for group in range(3):
        rows = [np.where(groups == group, row, TABLE) for row in background]
        expected += rows
        change = of.scores(TABLE) - np.mean([of.scores(row) for row in rows], axis=0)
        values += np.where(groups == group, change[:, None], 0)
    np.testing.assert_array_equal(received, np.concatenate(expected))
    naive.close(explanation.values, values)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_make_no_difference(batch_size):
    explainer = kx.FeatureAblation(background=numbers(3, 6, seed=2))
    model = net((6,)).model
    whole, parts = explainer(model, TABLE, 1), explainer(model, TABLE, 1, batch_size=batch_size)
    naive.close(parts.values, whole.values)


def test_integers_and_booleans():
    pictures = (255 * PICTURES).astype("uint8")
    labels = each(blocks((8, 10), (4, 5)), 2)
    what = features.Patches((4, 5))
    check(kx.FeatureAblation(features=what, baseline=127.5), pictures, labels, 127.5)
    flags = TABLE > 0.5
    of = net((6,), "bool")
    explanation, received = of.explained(kx.FeatureAblation(), flags)
    assert received.dtype == bool
    passes = [np.where(np.arange(6) == i, False, flags) for i in range(6)]
    np.testing.assert_array_equal(received, np.concatenate(passes))
    assert not explanation.values[~flags].any()  # hidden, they are what they were
    assert explanation.values[flags].all()


def test_a_model_of_a_fixed_batch_size():
    of, free = net((6,), batch_size=4), net((6,))
    of.model.set_weights(free.model.get_weights())
    of.seen.clear()
    values = kx.FeatureAblation()(of.model, TABLE, 1).values
    naive.close(values, kx.FeatureAblation()(free.model, TABLE, 1).values)
    assert {len(part) for part in of.seen} == {4}


# Token ids and texts


def text_score(ids):
    """The mean over tokens that are no padding, which is defined of none too."""
    there = ops.cast(ops.not_equal(ids, 0), "float32")[..., None]
    h = layers.Embedding(20, 4)(ids) * there
    return ops.sum(h, axis=1) / (1 + ops.sum(there, axis=1))


class Read:
    """A network that reads token ids, padding apart, and keeps what it receives."""

    def __init__(self):
        self.seen = []
        ids = keras.Input((None,), dtype="int32")
        h = layers.Dense(4, activation="tanh")(text_score(layers.Lambda(self._kept)(ids)))
        self.model = naive.randomize(keras.Model(ids, layers.Dense(3)(h)))

    _kept, scores = Net._kept, Net.scores

    def explained(self, explainer, x):
        """The explanation, and what the model received other than `x`."""
        self.seen.clear()
        explanation = explainer(self.model, x, 1)
        rows = np.concatenate(self.seen)
        return explanation, [row for row in map(tuple, rows) if row not in set(map(tuple, x))]


read = functools.cache(Read)
IDS = np.array([[3, 4, 5, 6, 7], [8, 9, 0, 0, 0], [0, 12, 3, 0, 0]], "int32")


@pytest.mark.parametrize(
    ("explainer", "padding", "mask"),
    [
        (kx.FeatureAblation(), 0, 0),
        (kx.FeatureAblation(features=features.Tokens(mask=1)), 0, 1),
        (kx.FeatureAblation(features=features.Tokens(padding=3), baseline=2), 3, 2),
    ],
    ids=repr,
)
def test_tokens_are_masked_and_padding_is_never_hidden(explainer, padding, mask):
    explanation, received = read().explained(explainer, IDS)
    expected, hidden = np.zeros(IDS.shape), []
    for row, at in np.argwhere(padding != IDS):
        masked = IDS[row].copy()
        masked[at] = mask
        hidden.append(masked)
        whole, less = read().scores(np.stack([IDS[row], masked]))
        expected[row, at] = whole - less
    naive.close(explanation.values, expected)
    assert sorted(received) == sorted(map(tuple, hidden))
    assert explanation.extras.keys() == {"reliable"}


def test_id_0_is_a_token_like_any_other_where_nothing_is_padding():
    what = features.Tokens(mask=1, padding=None)
    values = kx.FeatureAblation(features=what)(categories(), CODES, 1).values
    expected = np.zeros(CODES.shape)
    for at in np.ndindex(CODES.shape):
        masked = CODES.copy()
        masked[at] = 1
        expected[at] = (scores_of(categories(), CODES) - scores_of(categories(), masked))[at[0]]
    assert expected[CODES == 0].all()
    naive.close(values, expected)


@pytest.mark.parametrize(
    "instead", [{"background": np.array([[1, 2, 3], [4, 4, 1]])}, {"baseline": 1}]
)
def test_id_0_is_hidden_where_something_else_takes_its_place(instead):
    rows = instead.get("background", [[1, 1, 1]])
    values = kx.FeatureAblation(**instead)(categories(), CODES, 1).values
    expected = np.zeros(CODES.shape)
    for n, i in np.ndindex(CODES.shape):
        masked = np.repeat(CODES[n : n + 1], len(rows), axis=0)
        masked[:, i] = np.array(rows)[:, i]
        expected[n, i] = scores_of(categories(), CODES)[n] - scores_of(categories(), masked).mean()
    naive.close(values, expected)


def test_an_id_that_is_half_there_is_there():
    """A share of exactly .5, which can only be all or nothing of an id."""
    half = HalfThere(features=features.Tokens(mask=1, padding=None))
    whole = scores_of(categories(), CODES)
    naive.close(half(categories(), CODES, 1).values, np.repeat(whole[:, None], 3, axis=1))


class HalfThere(Coalitions):
    """The score where half of everything is seen."""

    def coalitions(self, count, seed):
        return np.full((1, count), 0.5, np.float32)

    def values_of(self, present, scores, whole):
        return np.repeat(np.swapaxes(scores, 1, 2), present.shape[1], axis=2), {}


CODES = np.array([[0, 4, 2], [3, 0, 0]], "int32")


@functools.cache
def categories():
    """A network that reads ids as codes, of which 0 is one."""
    ids = keras.Input((3,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(5, 4)(ids))
    return naive.randomize(keras.Model(ids, layers.Dense(3)(layers.Dense(4, "tanh")(h))))


def scores_of(model, x, target=1):
    return model.predict(x, verbose=0).astype(np.float64)[:, target]


def test_a_text_that_is_all_padding_has_no_attributions():
    ids = np.array([[0, 0, 0], [4, 5, 0]], "int32")
    with pytest.warns(UserWarning, match="zero everywhere for some"):
        explanation = kx.FeatureAblation(features=features.Tokens(mask=1))(read().model, ids, 1)
    assert not explanation.values[0].any()
    assert explanation.values[1, :2].all()


def test_a_model_that_is_not_defined_without_tokens_is_refused_with_advice():
    ids = keras.Input((None,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4, mask_zero=True)(ids))
    model = naive.randomize(keras.Model(ids, layers.Dense(3)(h)))
    with pytest.raises(ValueError, match=r"an average over no tokens .*Tokens\(mask=1\)"):
        kx.FeatureAblation()(model, np.array([[4, 0, 0]]), 1)
    with pytest.raises(ValueError, match=r"for sample 1: "):  # of samples in groups by their length
        kx.FeatureAblation()(model, np.array([[4, 5, 0], [4, 0, 0]]), 1)
    masked = kx.FeatureAblation(features=features.Tokens(mask=1))(model, np.array([[4, 0, 0]]), 1)
    assert masked.values[0, 0] != 0


TEXTS = ["good film", "a really bad film", "bad"]
WORDS = ["", "[UNK]", "film", "bad", "good", "a", "really"]
TEXT_IDS = np.array([[4, 2, 0, 0], [5, 6, 3, 2], [3, 0, 0, 0]])


def split(texts):
    return [[WORDS.index(word) for word in text.split()] for text in texts]


def test_texts_pass_through_a_text_vectorization():
    layer = layers.TextVectorization(vocabulary=WORDS[2:])
    what = features.Tokens(tokenizer=layer, mask=1)
    for given in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object)):
        explanation = kx.FeatureAblation(features=what)(read().model, given, 1)
        np.testing.assert_array_equal(explanation.x, TEXT_IDS)
        np.testing.assert_array_equal(explanation.extras["tokens"], np.array(WORDS)[TEXT_IDS])
    ids = kx.FeatureAblation(features=features.Tokens(mask=1))(read().model, TEXT_IDS, 1)
    np.testing.assert_array_equal(explanation.values, ids.values)


@pytest.mark.parametrize(
    "vocabulary", [WORDS, dict(enumerate(WORDS)), WORDS.__getitem__], ids=["list", "dict", "call"]
)
def test_texts_pass_through_a_function_and_lists_of_unequal_length_are_padded(vocabulary):
    what = features.Tokens(tokenizer=split, vocabulary=vocabulary)
    explanation = kx.FeatureAblation(features=what)(read().model, TEXTS, 1)
    np.testing.assert_array_equal(explanation.x, TEXT_IDS)
    np.testing.assert_array_equal(explanation.extras["tokens"], np.array(WORDS)[TEXT_IDS])


def test_words_without_a_vocabulary_are_ids_and_padding_is_as_asked():
    what = features.Tokens(tokenizer=split, padding=7)
    x, extras = kx.FeatureAblation(features=what).encode(TEXTS)
    assert x.tolist() == [[4, 2, 7, 7], [5, 6, 3, 2], [3, 7, 7, 7]]
    assert extras["tokens"].tolist() == [["4", "2", "", ""], list("5632"), ["3", "", "", ""]]
    unknown = features.Tokens(vocabulary={4: "good"}).words(TEXT_IDS[:1])
    assert unknown.tolist() == [["good", "2", "", ""]]


# Several inputs


def two_inputs(nest):
    ids, table = keras.Input((None,), dtype="int32", name="text"), keras.Input((3,), name="table")
    h = layers.Dense(4, activation="tanh")(layers.Concatenate()([text_score(ids), table]))
    return naive.randomize(keras.Model(nest(ids, table), layers.Dense(3)(h)))


NESTS = {
    "dict": lambda text, table: {"text": text, "table": table},
    "list": lambda text, table: [text, table],
}


@pytest.mark.parametrize("kind", NESTS)
def test_each_input_has_features_of_its_own(kind):
    nest = NESTS[kind]
    model, table = two_inputs(nest), numbers(3, 3)
    what = nest(features.Tokens(mask=1), features.Columns([0, 1, 1]))
    explanation = kx.FeatureAblation(features=what)(model, nest(IDS, table), 2)

    def scores(ids, table):
        return model.predict(nest(ids, table), verbose=0).astype(np.float64)[:, 2]

    text, whole = np.zeros(IDS.shape), scores(IDS, table)
    for at in range(IDS.shape[1]):
        hidden = np.where((np.arange(5) == at) & (IDS != 0), 1, IDS)
        text[:, at] = whole - scores(hidden, table)
    first = whole - scores(IDS, table * [0, 1, 1])
    both = whole - scores(IDS, table * [1, 0, 0])
    columns = np.stack([first, both, both], axis=1)
    values = nest("text", "table")
    for key, expected in zip(values, (text, columns), strict=True) if kind == "dict" else []:
        naive.close(explanation.values[key], expected)
    if kind == "list":
        naive.close(explanation.values[0], text)
        naive.close(explanation.values[1], columns)
    place = 1 if kind == "list" else "table"
    labels = explanation.extras["features"][place]
    assert (labels[:, 1] == labels[:, 2]).all()
    assert (labels[:, 0] != labels[:, 1]).all()


def test_texts_and_defaults_in_a_dict_of_inputs():
    model = two_inputs(NESTS["dict"])
    what = {"text": features.Tokens(tokenizer=split, vocabulary=WORDS), "table": None}
    x = {"text": TEXTS, "table": numbers(3, 3)}
    explanation = kx.FeatureAblation(features=what)(model, x, 1)
    np.testing.assert_array_equal(explanation.x["text"], TEXT_IDS)
    np.testing.assert_array_equal(explanation.extras["tokens"], np.array(WORDS)[TEXT_IDS])
    again = kx.FeatureAblation(baseline={"table": 0.0, "text": 0})(model, x | {"text": TEXT_IDS}, 1)
    np.testing.assert_array_equal(explanation.values["table"], again.values["table"])
    np.testing.assert_array_equal(explanation.values["text"], again.values["text"])


# Feature ablation itself


def test_several_classes_are_explained_as_one_each_would():
    model, explainer = net((6,)).model, kx.FeatureAblation(groups=[0, 0, 1, 2, 2, 3])
    target = np.array([[0, 2], [1, 0], [2, 1]])
    both = explainer(model, TABLE, target)
    assert both.values.shape == (3, 2, 6)
    assert both.extras["features"].shape == (3, 2, 6)
    for place in range(2):
        one = explainer(model, TABLE, target[:, place])
        naive.close(both.values[:, place], one.values)
        np.testing.assert_array_equal(both.extras["features"][:, place], one.extras["features"])
    predicted = explainer(model, TABLE)
    best = model.predict(TABLE, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(predicted.target.index, best)
    naive.close(predicted.values, explainer(model, TABLE, best).values)


def test_a_constant_model_has_no_attributions():
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")(x))
    with pytest.warns(UserWarning, match="zero everywhere for all samples"):
        explanation = kx.FeatureAblation()(model, TABLE, 1)
    np.testing.assert_array_equal(explanation.values, np.zeros((3, 6)))


def test_one_feature_alone():
    explanation = check(kx.FeatureAblation(groups=[0] * 6), TABLE, each([0] * 6, 3))
    of = net((6,))
    naive.close(explanation.values[:, 0], of.scores(TABLE) - of.scores(0 * TABLE))


def test_it_is_no_step_of_another_method():
    smooth = kx.SmoothGrad(explainer=kx.FeatureAblation())
    with pytest.raises(ValueError, match="FeatureAblation, part of whose work is not in the graph"):
        smooth(net((6,)).model, TABLE)


def test_it_survives_being_described():
    what = [features.Tokens(mask=1), features.Segments("quickshift", {"ratio": 1.0})]
    explainer = kx.FeatureAblation(features=[*what, features.Patches((2, 3))], baseline=0.5)
    assert kx.FeatureAblation.from_config(explainer.get_config()) == explainer
    assert "Tokens(mask=1)" in repr(explainer)
    mapped = kx.FeatureAblation(features=features.Segments(labels=np.eye(8, dtype=int)))
    assert kx.FeatureAblation.from_config(mapped.get_config()) == mapped


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"),
    [(True, False, True), (False, True, False), (None, False, False), (None, True, False)],
)
def test_a_bar_is_shown_where_it_is_asked_for(monkeypatch, progress, terminal, shown):
    """None shows it on a terminal after a moment; this is done before."""
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    kx.FeatureAblation()(net((6,)).model, TABLE, 1, progress=progress)
    assert ("FeatureAblation" in stderr.getvalue()) == shown
    if not shown:
        assert stderr.getvalue() == ""


def test_the_bar_on_a_terminal_counts_rows(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("keras_explain.core.run.progress.PATIENCE", 0.0)
    kx.FeatureAblation()(net((6,)).model, TABLE, 1, progress=None, batch_size=3)
    assert "0/18" in stderr.getvalue()


def test_the_bar_ends_full_where_passes_are_no_multiple_of_a_chunk(monkeypatch):
    totals, done = [], []

    @contextlib.contextmanager
    def bar(name, total, shown):
        totals.append(total)
        yield done.append

    monkeypatch.setattr("keras_explain.core.run.chunks.bar", bar)
    kx.FeatureAblation()(net((6,)).model, TABLE, 1, batch_size=12)
    assert (totals, done) == ([18], [12, 6])


# Bad input


MODEL_INPUT = {"table": TABLE, "picture": PICTURES, "ids": IDS, "text": TEXTS}


def empty(texts):
    return []


def short(texts):
    return [[1, 2]]


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        (
            "picture",
            lambda: {"features": features.Segments(labels=np.ones((8, 10), int))},
            "at least two segments. Received: one that is all equal",
        ),
        (
            "picture",
            lambda: {"features": features.Segments(labels=blocks((2, 80), (1, 10)))},
            r"label map of shape \(8, 10\), or one a sample, \(2, 8, 10\). Received: labels of "
            r"shape \(2, 80\)",
        ),
        (
            "table",
            lambda: {"features": features.Segments()},
            r"Expected pictures .* Received: x of shape \(3, 6\)",
        ),
        (
            "table",
            lambda: {"groups": [0, 1, 1]},
            r"groups of one sample's shape \(6,\). Received: groups of shape \(3,\)",
        ),
        ("table", lambda: {"groups": [-1] * 6}, "groups that are all -1"),
        (
            "table",
            lambda: {"groups": [0.0, 1, 2, 3, 4, 5]},
            "`groups` to be whole numbers, one for each place",
        ),
        (
            "table",
            lambda: {"groups": [0] * 6, "features": features.Columns()},
            "Expected `features`, or `groups` .* Received: both",
        ),
        (
            "table",
            lambda: {"features": (features.Columns(), features.Columns())},
            "for each of the 1 inputs. Received: 2",
        ),
        (
            "table",
            lambda: {"baseline": numbers(5)},
            r"baseline of one sample's shape \(6,\).* Received: baseline of shape \(5,\)",
        ),
        ("table", lambda: {"background": numbers(4, 5)}, r"background of shape \(N, 6\)"),
        ("table", lambda: {"baseline": baselines.Noise()}, "spatial axes .* to blur"),
        ("table", lambda: {"features": features.Tokens(padding=9)}, None),
        ("picture", lambda: {"features": features.Tokens()}, r"Expected token ids \[B, T\]"),
        ("picture", lambda: {"features": features.Windows()}, "blocks are `Patches`"),
        (
            "picture",
            lambda: {"features": features.Patches((2, 2, 2))},
            r"`size` to be a number, or one for each of 2 spatial axes. Received: size=\(2, 2, 2\)",
        ),
        ("ids", lambda: {"baseline": 0.5}, "baseline of token ids for an input of token ids"),
        ("text", lambda: {}, r"Expected a tokenizer to explain texts: `Tokens\(tokenizer=...\)`"),
        (
            "text",
            lambda: {"features": features.Tokens(tokenizer=lambda texts: None)},
            r"ids \[B, T\] for 3 texts. Received: None",
        ),
        ("text", lambda: {"features": features.Tokens(tokenizer=empty)}, r"Received: \[\]"),
        ("text", lambda: {"features": features.Tokens(tokenizer=short)}, r"Received: \[\[1, 2\]\]"),
        (
            "text",
            lambda: {"features": features.Tokens(tokenizer=lambda texts: [["a"]] * 3)},
            r"Received: \[\['a'\], \['a'\], \['a'\]\]",
        ),
        (
            "text",
            lambda: {"features": features.Tokens(tokenizer=lambda texts: [[], [], []])},
            "Received: .*",
        ),
    ],
)
def test_what_does_not_fit_is_refused(kind, make, message):
    of = read() if kind in ("ids", "text") else net(MODEL_INPUT[kind].shape[1:])
    if message is None:
        kx.FeatureAblation(**make())(of.model, MODEL_INPUT[kind], 1)
        return
    with pytest.raises(ValueError, match=message):
        kx.FeatureAblation(**make())(of.model, MODEL_INPUT[kind], 1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: features.Segments("slick"), ValueError, "'slic', 'quickshift', 'felzenszwalb'"),
        (lambda: features.Segments(labels=np.eye(3)), ValueError, "`labels` to be whole numbers"),
        (lambda: features.Patches(0), ValueError, "`size` .* Received: size=0"),
        (lambda: features.Patches((3, 0)), ValueError, "size=0"),
        (lambda: features.Grid(2.5), ValueError, "`cells` .* Received: cells=2.5"),
        (lambda: features.Windows(-1), ValueError, "`length` .* Received: length=-1"),
        (lambda: features.Tokens(mask=0.5), ValueError, "`mask` to be a token id"),
        (lambda: features.Tokens(padding=True), ValueError, "`padding` to be a token id"),
        (lambda: features.Tokens(tokenizer="gpt"), TypeError, "`tokenizer` to be"),
    ],
)
def test_features_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_things_that_are_no_features_are_refused():
    for given in (np.eye(6), 3, "slic"):
        with pytest.raises(TypeError, match=r"an object of `keras_explain.features`"):
            kx.FeatureAblation(features=given)(net((6,)).model, TABLE, 1)
