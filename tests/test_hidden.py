"""The scores of what is left where features are hidden, as metrics and searches ask for them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.hiding import hidden
from keras_explain.core.hiding.hidden import Hidden
from tests import check, models, naive
from tests.test_bad_input import complaint

RNG = np.random.default_rng(0)
TABLE = naive.inputs((5,))
CLASSES = np.array([[0, 2], [1, 1], [2, 0]])


def masked(score, x, labels, visible, fills):
    """Scores `[B, passes, K]`, one sample, pass and fill at a time.

    Args:
        score: `[1, ...]` to `[K]`, and the number of the sample.
        x: The input.
        labels: The feature of each number of it; -1 for none.
        visible: `[B, passes, M]`.
        fills: What takes the place of what is hidden: for each sample, rows `[N, ...]`.
    """
    found = []
    for b, of_sample in enumerate(visible):
        always = np.append(of_sample, np.ones_like(of_sample[:, :1]), axis=1).astype(float)
        shares = [seen[labels[b]] for seen in always]  # -1 is what is always there
        rows = [[f + s * (x[b].astype(float) - f) for f in fills[b]] for s in shares]
        found.append([np.mean([score(row[None], b) for row in every], axis=0) for every in rows])
    return np.array(found)


def of_net(model, index):
    net = naive.Net([model])
    return lambda row, b: net.scores(row)[0, index[b]]


def drawn(*shape):
    return RNG.uniform(size=shape) < 0.5


@pytest.mark.parametrize("partly", [False, True], ids=["wholly", "in part"])
@pytest.mark.parametrize("shared", [False, True], ids=["by sample", "for all"])
def test_tables(partly, shared):
    model, groups = naive.perceptron(), [0, 2, 2, -1, 7]
    shape = (7, 3) if shared else (3, 7, 3)
    visible = RNG.uniform(size=shape).astype("float32") if partly else drawn(*shape)
    asked = Hidden(model, TABLE, CLASSES, groups=groups, baseline=0.3)
    labels = np.tile([0, 1, 1, -1, 2], (3, 1))
    np.testing.assert_array_equal(asked.labels, labels)
    np.testing.assert_array_equal(asked.counts, [3, 3, 3])
    found = asked.scores(visible)
    assert found.dtype == np.float32
    every = np.broadcast_to(visible, (3, 7, 3))
    score = of_net(model, CLASSES)
    naive.close(found, masked(score, TABLE, labels, every, np.full((3, 1, 5), 0.3)))


@pytest.mark.parametrize("partly", [False, True], ids=["wholly", "in part"])
def test_a_background_is_averaged_over(partly):
    model, rows = naive.perceptron(), naive.inputs((5,), rows=4, seed=9)
    visible = RNG.uniform(size=(3, 6, 5)) if partly else drawn(3, 6, 5)
    found = Hidden(model, TABLE, 1, background=rows).scores(visible)
    labels, score = np.tile(np.arange(5), (3, 1)), of_net(model, np.ones((3, 1), int))
    naive.close(found, masked(score, TABLE, labels, visible, [rows] * 3))


SEGMENTS = RNG.integers(0, 4, size=(3, 8, 6))
SEGMENTS[1] %= 2
SEGMENTS[2, 0] = -1


@pytest.mark.parametrize("shared", [False, True], ids=["by sample", "for all"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_segments_of_which_samples_have_different_numbers(shared, batch_size):
    """What a sample without the last two segments is said of them has no part."""
    model, x = naive.network(), naive.inputs((8, 6, 2))
    visible = drawn(5, 4) if shared else drawn(3, 5, 4)
    segments = kx.features.Segments(labels=SEGMENTS)
    asked = Hidden(model, x, 1, features=segments, batch_size=batch_size)
    np.testing.assert_array_equal(asked.labels, SEGMENTS)
    np.testing.assert_array_equal(asked.counts, [4, 2, 4])
    found, every = asked.scores(visible), np.broadcast_to(visible, (3, 5, 4))
    labels = np.broadcast_to(SEGMENTS[..., None], x.shape)
    score = of_net(model, np.ones((3, 1), int))
    naive.close(found, masked(score, x, labels, every, np.zeros((3, 1, *x.shape[1:]))))
    other = np.array(every)
    other[1, :, 2:] ^= True
    np.testing.assert_allclose(asked.scores(other), found, atol=1e-6)


def test_channels_first():
    model, x = naive.network(), naive.inputs((8, 6, 2))
    first = keras.Input((2, 8, 6))
    turned = keras.Model(first, model(layers.Permute((2, 3, 1))(first)))
    visible, patches = drawn(3, 5, 4), kx.features.Patches((4, 3))
    expected = Hidden(model, x, 1, features=patches)
    moved = np.moveaxis(x, -1, 1)
    found = Hidden(turned, moved, 1, features=patches, data_format="channels_first")
    np.testing.assert_array_equal(found.labels, expected.labels)
    naive.close(found.scores(visible), expected.scores(visible))


def test_inputs_by_name_with_token_ids():
    """Every feature of both inputs, padding apart, one after the other."""
    model, x = models.get("mixed_inputs").model, dict(models.get("mixed_inputs").x)
    x["text"] = x["text"].copy()
    x["text"][1, 2:] = 0
    features = {"text": kx.features.Tokens(mask=1), "table": None}
    asked = Hidden(model, x, 1, features=features)
    there = (x["text"] != 0).sum(axis=1)
    np.testing.assert_array_equal(asked.counts, there + 3)
    # leaves come by name, and numbers go on
    np.testing.assert_array_equal(asked.labels["table"], np.tile(np.arange(3), (len(there), 1)))
    assert (asked.labels["text"][1] == [3, 4, -1, -1, -1, -1]).all()
    ablation = kx.FeatureAblation(features=features)(model, x, 1)
    most = asked.counts.max()
    found = asked.scores(np.concatenate([~np.eye(most, dtype=bool), np.ones((1, most), bool)]))
    for name, labels in asked.labels.items():
        for b, i in np.ndindex(labels.shape):
            lost = found[b, -1, 0] - found[b, labels[b, i], 0] if labels[b, i] >= 0 else 0.0
            np.testing.assert_allclose(ablation.values[name][b, i], lost, atol=1e-6)


def test_what_shapley_values_are_made_of():
    """The values and the base value, by their formula, of the scores of all coalitions."""
    model, groups = naive.perceptron(), [0, 1, 1, 2, 2]
    asked = Hidden(model, TABLE, groups=groups)
    scores = asked.scores((np.arange(8)[:, None] >> np.arange(3) & 1).astype(bool))[..., 0]
    for explainer in (kx.ExactShapley, kx.KernelSHAP):
        explanation = explainer(groups=groups)(model, TABLE)
        np.testing.assert_allclose(explanation.extras["base_values"], scores[:, 0], atol=1e-6)
        np.testing.assert_allclose(explanation.scores, scores[:, 7], atol=1e-6)
        alone, last = scores[:, 1] - scores[:, 0], scores[:, 7] - scores[:, 6]
        between = scores[:, 3] - scores[:, 2] + scores[:, 5] - scores[:, 4]
        expected = alone / 3 + between / 6 + last / 3
        np.testing.assert_allclose(explanation.values[:, 0], expected, atol=1e-6)


def test_nothing_is_traced_again_for_other_lengths():
    model = naive.perceptron(4)
    x = naive.inputs((4,), rows=2)
    asked = Hidden(model, x, 1)
    for shape, other in (((3, 4), (9, 6)), ((2, 3, 4), (2, 7, 5))):
        for made in (drawn, lambda *shape: RNG.uniform(size=shape)):
            asked.scores(made(*shape))
            with check.nothing_traced():
                asked.scores(made(*other))
                Hidden(model, x + 1, 2).scores(made(*other))


def test_many_passes_are_taken_in_parts(monkeypatch):
    visible, asked = drawn(3, 7, 5), Hidden(naive.perceptron(), TABLE, 1)
    expected = asked.scores(visible)
    monkeypatch.setattr(hidden, "MANY", 60)
    np.testing.assert_allclose(asked.scores(visible), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        (np.ones(5, bool), ["[passes, 5] or [3, passes, 5]", "(5,)"]),
        (np.ones((2, 4), bool), ["(2, 4)"]),
        (np.ones((2, 6, 5), bool), ["(2, 6, 5)"]),
        (np.ones((0, 5), bool), ["(0, 5)"]),
        (np.full((2, 5), 1.5), ["from 0 to 1", "1.5"]),
        (np.full((2, 5), np.nan), ["from 0 to 1", "nan"]),
        (np.full((2, 5), "yes"), ["booleans"]),
    ],
)
def test_what_is_no_visibility(visible, words):
    with complaint(ValueError, *words):
        Hidden(naive.perceptron(), TABLE).scores(visible)


def test_scores_that_are_not_finite():
    ids = keras.Input((3,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4, mask_zero=True)(ids))
    model = naive.randomize(keras.Model(ids, layers.Dense(2)(h)))
    asked = Hidden(model, np.array([[4, 5, 6], [4, 0, 0]]), 1)
    assert np.isfinite(asked.scores(np.ones((1, 3), bool))).all()
    with complaint(ValueError, "where features are hidden", "sample 1", "baseline"):
        asked.scores(np.array([[False, True, True]]))


def test_what_an_explainer_refuses_is_refused():
    with complaint(ValueError, "Received: both"):
        Hidden(naive.perceptron(), TABLE, baseline=1.0, background=TABLE)
    with complaint(ValueError, "one sample's shape"):
        Hidden(naive.perceptron(), TABLE, groups=[0, 1])
    with complaint(ValueError, "batch_size of 1 or more"):
        Hidden(naive.perceptron(), TABLE, batch_size=0).scores(np.ones((1, 5), bool))


def test_what_is_missing_is_seen_or_hidden_wholly():
    x = keras.Input((5,))
    imputed = layers.Lambda(lambda v: ops.where(ops.isnan(v), 9.0, v))(x)
    model = naive.randomize(keras.Model(x, layers.Dense(3)(imputed)))
    gaps, filled = TABLE.copy(), TABLE.copy()
    gaps[1, 2], filled[1, 2], visible = np.nan, 9.0, drawn(6, 5)
    expected = Hidden(model, filled, 1).scores(visible)
    np.testing.assert_allclose(Hidden(model, gaps, 1).scores(visible), expected, atol=1e-5)
    with complaint(ValueError, "`x`", "seen", "row 1"):
        Hidden(model, gaps, 1).scores(visible.astype(float))
    with complaint(ValueError, "`background`", "row 1"):
        Hidden(model, filled, 1, background=gaps).scores(visible.astype(float))


def test_id_0_is_padding_where_hiding_it_changes_nothing():
    ids = keras.Input((3,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(9, 4)(ids))
    model, x = keras.Model(ids, layers.Dense(2)(h)), np.array([[4, 5, 0], [4, 0, 5]])
    for options in ({}, {"baseline": kx.baselines.Zeros()}):
        np.testing.assert_array_equal(Hidden(model, x, 1, **options).counts, [2, 2])
    for options in ({"baseline": 1}, {"background": x}):
        np.testing.assert_array_equal(Hidden(model, x, 1, **options).counts, [3, 3])
