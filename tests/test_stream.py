"""Batches in, batches out: `Explainer.stream`."""

import contextlib
import itertools
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import tree

import keras_explain as kx
from keras_explain.core.run import stream
from tests import check, models

ROWS = 7
X = np.random.default_rng(5).normal(size=(ROWS, *models.PICTURE)).astype("float32")
Y = np.arange(ROWS) % models.CLASSES
CUTS = [slice(0, 3), slice(3, 4), slice(4, ROWS)]  # of unequal length, one of one row
GRID = kx.features.Grid(3)


@pytest.fixture(scope="module")
def model():
    return models.get("sequential").model


@pytest.fixture(scope="module")
def whole(model):
    return kx.Saliency()(model, X)


def classes(explanation):
    return explanation.target.index.tolist()


# As one call


@pytest.mark.parametrize(
    "explainer",
    [
        kx.Saliency(),
        kx.IntegratedGradients(steps=3),
        kx.SmoothGrad(samples=3),
        kx.GradCAM(),
        kx.KernelSHAP(features=GRID, samples=40),
        kx.LIME(features=GRID, samples=30),
        kx.RISE(masks=30),
    ],
    ids=lambda explainer: type(explainer).__name__,
)
def test_joined_it_is_what_one_call_gives_and_nothing_is_traced_anew(explainer, model):
    expected = explainer(model, X, seed=3)
    with check.nothing_traced():
        parts = list(explainer.stream(model, (X[cut] for cut in CUTS), seed=3))
    assert list(map(len, parts)) == [3, 1, 3]
    joined = kx.Explanation.join(parts)
    check.assert_same(joined, expected)
    np.testing.assert_array_equal(joined.x, X)
    assert classes(joined) == classes(expected)
    assert joined.explainer == explainer


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("seed", -1), ("data_format", "nowhere")]
)
def test_options_are_those_of_a_call(name, value, model):
    with pytest.raises(ValueError, match=f"Expected .*{name}.*Received: .*{value}"):
        next(kx.Saliency().stream(model, [X], **{name: value}))


def test_a_bar_counts_samples(model, monkeypatch):
    done = []

    @contextlib.contextmanager
    def bar(name, total, shown):
        done.append((name, total, shown))
        yield done.append

    monkeypatch.setattr(stream, "bar", bar)
    list(kx.Saliency().stream(model, [X, X[:2]], progress=True))
    assert done == [("Saliency", None, True), ROWS, 2]


# What batches come in


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[CUTS[index % 3]], Y[CUTS[index % 3]]


class Finite(Endless):
    num_batches = 3


BATCHES = {
    "list": lambda: [X[cut] for cut in CUTS],
    "tuple": lambda: tuple(X[cut] for cut in CUTS),
    "generator": lambda: (X[cut] for cut in CUTS),
    "tuples_of_one": lambda: [(X[cut],) for cut in CUTS],
    "pairs": lambda: [(X[cut], Y[cut]) for cut in CUTS],
    "pairs_in_lists": lambda: [[X[cut], Y[cut]] for cut in CUTS],
    "with_weights": lambda: [(X[cut], Y[cut], np.ones(len(Y[cut]))) for cut in CUTS],
    "tensors": lambda: [tf.constant(X[cut]) for cut in CUTS],
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(3),
    "dataset_of_pairs": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),
    "py_dataset": lambda: Finite(),
    "endless_py_dataset": lambda: Endless(),
}


@pytest.mark.parametrize("name", BATCHES)
def test_kinds_of_batches(name, model, whole):
    parts = itertools.islice(kx.Saliency().stream(model, BATCHES[name]()), 3)
    check.assert_same(kx.Explanation.join(parts), whole)


def test_a_table_in_parts():
    table = pd.DataFrame({"a": [0, 1, 0, 1], "b": [1.5, 2.0, 2.5, 3.0], "c": 1, "d": 0, "e": 2.0})
    model, explainer = models.get("tabular").model, kx.FeatureAblation()
    joined = kx.Explanation.join(explainer.stream(model, [table[:3], table[3:]]))
    check.assert_same(joined, explainer(model, table))


@pytest.mark.parametrize("kind", ["inputs_list", "inputs_dict"])
def test_several_inputs(kind):
    case = models.get(kind)
    x = tuple(case.x) if isinstance(case.x, list) else case.x
    cut = [tree.map_structure(lambda leaf, rows=rows: leaf[rows], x) for rows in CUTS[:2]]
    batches = [(part,) for part in cut] if isinstance(x, tuple) else cut
    joined = kx.Explanation.join(kx.Saliency().stream(case.model, batches))
    check.assert_same(joined, kx.Saliency()(case.model, x))
    assert type(joined.x) is type(x)


WORDS = ["", "film", "good", "bad", "the", "boring"]
TEXTS = ["good film", "the film", "bad the boring film"]


def ids_of(texts, length=None):
    ids = [[WORDS.index(word) for word in text.split()] for text in texts]
    return keras.utils.pad_sequences(ids, length, padding="post")


def text_explainer(tokenizer):
    return kx.FeatureAblation(features=kx.features.Tokens(mask=7, tokenizer=tokenizer))


@pytest.mark.parametrize("batch", [list, tuple, np.array])
def test_texts(batch):
    model, explainer = models.get("tokens_int").model, text_explainer(lambda t: ids_of(t, 7))
    batches = [batch(TEXTS[:2]), batch(TEXTS[2:])]
    joined = kx.Explanation.join(explainer.stream(model, batches))
    whole = explainer(model, TEXTS)
    np.testing.assert_allclose(joined.values, whole.values, atol=1e-6)
    np.testing.assert_array_equal(joined.extras["tokens"], whole.extras["tokens"])


# What is explained


@pytest.mark.parametrize("y", [Y, Y[:, None], np.eye(4)[Y], Y.astype("float32")], ids=np.shape)
def test_labels(y, model):
    dataset = tf.data.Dataset.from_tensor_slices((X, y)).batch(3)
    joined = kx.Explanation.join(kx.Saliency().stream(model, dataset, "label"))
    assert type(joined.target) is kx.targets.Label
    assert classes(joined) == Y.tolist()
    check.assert_same(joined, kx.Saliency()(model, X, kx.targets.Label(Y)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda y: y, Y.tolist()),
        (lambda y: kx.targets.Class(3 - y, of="probability"), (3 - Y).tolist()),
        (lambda y: np.stack([y, 3 - y], axis=1), np.stack([Y, 3 - Y], axis=1).tolist()),
        (kx.targets.Label, Y.tolist()),
        (lambda y: 2, [2] * ROWS),
    ],
    ids=["classes", "target", "several", "a_class_of_targets", "one"],
)
def test_a_function_of_the_labels(function, expected, model):
    received = []

    def of(y):
        received.append(type(y))
        return function(y)

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    joined = kx.Explanation.join(kx.Saliency().stream(model, dataset, of))
    assert classes(joined) == expected
    assert set(received) == {np.ndarray}


@pytest.mark.parametrize("target", [2, np.int64(2), kx.targets.Class(2)], ids=repr)
def test_one_class_for_all(target, model):
    joined = kx.Explanation.join(kx.Saliency().stream(model, BATCHES["pairs"](), target))
    assert classes(joined) == [2] * ROWS


# One batch at a time


def test_a_batch_is_read_when_it_is_asked_for(model):
    read = []
    batches = (read.append(i) or X[cut] for i, cut in enumerate(CUTS))
    explanations = kx.Saliency().stream(model, batches)
    assert read == []
    next(explanations)
    assert read == [0]
    next(explanations)
    assert read == [0, 1]


def test_nothing_of_a_batch_is_kept(model):
    seen = []

    def batches():
        for cut in [*CUTS, *CUTS]:
            x = X[cut].copy()
            seen.append(weakref.ref(x))
            yield x
            del x

    for part in kx.IntegratedGradients(steps=2).stream(model, batches()):
        assert [ref() for ref in seen[:-3]] == [None] * (len(seen) - 3)
        seen += [weakref.ref(part), weakref.ref(part.values)]
        del part
    assert [ref() for ref in seen] == [None] * len(seen)


# Errors


@pytest.mark.parametrize("batches", [X, tf.constant(X), {"x": X}, "texts", 3, None], ids=type)
def test_what_is_no_batches(batches, model):
    with pytest.raises(ValueError, match=r"Expected `batches` to be .* by `explainer\(model, x\)`"):
        kx.Saliency().stream(model, batches)


def test_a_table_is_no_batches():
    with pytest.raises(ValueError, match=r"Expected `batches` .*Received: one of .*DataFrame"):
        kx.Saliency().stream(models.get("tabular").model, pd.DataFrame({"a": [1.0]}))


@pytest.mark.parametrize("target", [[1, 2], Y, kx.targets.Label(Y), "predicted"], ids=type)
def test_what_is_no_target_for_all(target, model):
    with pytest.raises(
        ValueError, match=r"Expected `target` to be .* function of a batch's labels"
    ):
        kx.Saliency().stream(model, [X], target)


@pytest.mark.parametrize("batches", [[], iter([]), tf.data.Dataset.range(0)], ids=type)
def test_no_batches(batches, model):
    with pytest.raises(ValueError, match=r"at least one batch.*Received: none"):
        next(kx.Saliency().stream(model, batches))


def note_of(explanations):
    """The error of a stream, and what is added to it."""
    with pytest.raises((ValueError, OSError)) as caught:
        list(explanations)
    (note,) = caught.value.__notes__
    return str(caught.value), note


def test_an_error_names_the_batch(model):
    bad = np.full_like(X[:2], np.nan)
    error, note = note_of(kx.Saliency().stream(model, [X[:3], X[3:4], bad]))
    assert "NaN or infinity" in error
    assert note == "In batch 2 (the first is 0), which begins with sample 4."


def test_an_error_of_the_data_names_the_batch_too(model):
    def batches():
        yield X
        raise OSError("the disk is gone")

    error, note = note_of(kx.Saliency().stream(model, batches()))
    assert error == "the disk is gone"
    assert note.startswith(f"In batch 1 (the first is 0), which begins with sample {ROWS}.")


def test_a_data_set_without_batches(model):
    dataset = tf.data.Dataset.from_tensor_slices(X)
    error, note = note_of(kx.Saliency().stream(model, dataset))
    assert "A single sample needs a batch axis" in error
    assert note.startswith("In batch 0")


def test_several_inputs_in_a_tuple_are_an_input_and_labels():
    case = models.get("inputs_list")
    error, note = note_of(kx.Saliency().stream(case.model, [tuple(case.x)]))
    assert "Expected 2 input array(s)" in error
    assert note.endswith("The first part of a tuple or list is x: several inputs are ((a, b),).")


@pytest.mark.parametrize("target", ["label", lambda y: y], ids=["label", "function"])
def test_labels_that_are_not_there(target, model):
    error, _ = note_of(kx.Saliency().stream(model, [X], target))
    assert "Expected batches of (x, y)" in error


def test_a_baseline_for_each_sample_is_of_one_batch(model):
    """The rows of the first batch would be those of the second one too."""
    explainer = kx.SmoothGrad(explainer=kx.IntegratedGradients(steps=2, baseline=X[:3]), samples=2)
    error, note = note_of(explainer.stream(model, [X[3:6], X[:3]]))
    assert "Expected an explainer that serves the samples of every batch" in error
    assert note.startswith("In batch 0")


@pytest.mark.parametrize("baseline", [X[0], X[:1], kx.baselines.Mean(X)], ids=lambda b: np.shape(b))
def test_a_baseline_of_all_samples_serves_every_batch(baseline, model):
    explainer = kx.IntegratedGradients(steps=2, baseline=baseline)
    joined = kx.Explanation.join(explainer.stream(model, [X[1:4], X[4:]]))
    check.assert_same(joined, explainer(model, X[1:]))
    assert joined.explainer == explainer


def test_texts_of_other_lengths_are_not_joined():
    model = models.made(*_pooled())
    parts = list(text_explainer(ids_of).stream(model, [TEXTS[:2], TEXTS[2:]]))
    assert [part.values.shape for part in parts] == [(2, 2), (1, 4)]
    with pytest.raises(ValueError, match=r"shape of values.*\[B, 2\].*\[B, 4\].*one length"):
        kx.Explanation.join(parts)


def _pooled():
    x = keras.Input((None,), dtype="int32")
    h = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 4)(x))
    return x, keras.layers.Dense(3)(h)
