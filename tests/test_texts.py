"""Texts that a model takes itself: categories, which are replaced by those of other rows."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers

import keras_explain as kx
from keras_explain.sinks import events, maps
from tests import check, models
from tests.test_bad_input import complaint

JOBS = ["clerk", "cook", "pilot"]
ROWS = 6
TABLE = pd.DataFrame(
    {
        "age": np.random.default_rng(0).normal(size=ROWS),
        "job": ["cook", "clerk", "pilot", "cook", "unknown", "clerk"],
    }
)


def coded(kind, job):
    if kind == "embedding":
        ids = layers.StringLookup(vocabulary=JOBS)(job)
        return layers.Flatten()(layers.Embedding(4, 3, name="embedding")(ids))
    if kind == "hashed":
        return layers.Hashing(5, output_mode="one_hot", name="code")(job)
    return layers.StringLookup(vocabulary=JOBS, output_mode="one_hot", name="code")(job)


def made(kind):
    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    h = layers.Dense(5, activation="tanh")(layers.Concatenate()([age, coded(kind, job)]))
    return models.made({"age": age, "job": job}, layers.Dense(3, name="logits")(h))


MODELS = {kind: made(kind) for kind in ("embedding", "one_hot", "hashed")}


def scores(model, ages, jobs, target=1):
    columns = {"age": np.asarray(ages, "float32"), "job": np.asarray(list(jobs))}
    x = {name: keras.ops.convert_to_tensor(column[:, None]) for name, column in columns.items()}
    return np.asarray(model(x))[:, target]


@pytest.mark.parametrize("kind", MODELS)
def test_categories_are_replaced_by_those_of_the_background(kind):
    model = MODELS[kind]
    found = kx.FeatureAblation(background=TABLE)(model, dict(TABLE), 1)
    whole = scores(model, TABLE["age"], TABLE["job"])
    np.testing.assert_allclose(found.scores, whole, rtol=1e-5)
    for i in range(ROWS):
        without = scores(model, [TABLE["age"][i]] * ROWS, TABLE["job"]).mean()
        np.testing.assert_allclose(found.values["job"][i, 0], whole[i] - without, atol=1e-5)
    shap = kx.ExactShapley(background=TABLE)(model, TABLE, 1)
    kernel = kx.KernelSHAP(background=TABLE)(model, TABLE, 1)
    for values in (shap.values, kernel.values):
        total = values["age"][:, 0] + values["job"][:, 0]
        np.testing.assert_allclose(total, whole - whole.mean(), atol=1e-5)
    np.testing.assert_allclose(kernel.values["job"], shap.values["job"], atol=1e-4)


def test_a_category_that_stands_for_not_known():
    model, baseline = MODELS["embedding"], {"age": 0.0, "job": "cook"}
    whole = scores(model, TABLE["age"], TABLE["job"])
    changed = scores(model, TABLE["age"], ["cook"] * ROWS)
    for explainer in (kx.FeatureAblation(baseline=baseline), kx.Occlusion(baseline=baseline)):
        found = explainer(model, TABLE, 1)
        np.testing.assert_allclose(found.values["job"][:, 0], whole - changed, atol=1e-5)
    found = kx.LIME(baseline=baseline, samples=20)(model, TABLE, 1)
    assert found.values["job"].any()


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_at_the_first_numbers_behind_a_category(kind):
    """Input x gradient of a linear model is what is lost with the category's own numbers."""
    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    h = layers.Concatenate()([age, coded(kind, job)])
    model = models.made({"age": age, "job": job}, layers.Dense(3, name="logits")(h))
    found = kx.InputXGradient()(model, dict(TABLE), 1)
    assert found.values["job"].shape == (ROWS, 1)
    kernel, bias = model.get_layer("logits").get_weights()
    own = scores(model, TABLE["age"], TABLE["job"]) - bias[1] - kernel[0, 1] * TABLE["age"]
    np.testing.assert_allclose(found.values["job"][:, 0], own, atol=1e-5)
    baseline = {"age": 0.0, "job": "cook"}
    integrated = kx.IntegratedGradients(steps=8, baseline=baseline)(MODELS[kind], TABLE, 1)
    start = scores(MODELS[kind], [0.0], ["cook"])
    np.testing.assert_allclose(integrated.extras["base_values"], [start[0]] * ROWS, rtol=1e-4)


@pytest.mark.parametrize("batches", [False, True])
def test_categories_in_a_training(tmp_path, batches):
    """Values of numbers and of categories are logged; the Explain tab has numbers alone."""
    model = made("one_hot")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = {name: np.array(list(column))[:, None] for name, column in TABLE.items()}
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(ROWS) % 3)).batch(4)
    sinks = [kx.sinks.Memory(), kx.sinks.TensorBoard(tmp_path)]
    explainers = [kx.KernelSHAP(background=TABLE), kx.Saliency()]
    samples = data if batches else x
    logger = kx.callbacks.ExplanationLogger(explainers, samples, sinks=sinks, max_samples=3)
    model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[logger])
    assert logger.failures == {}
    record = sinks[0].records[0]
    expected = kx.KernelSHAP(background=TABLE)(model, TABLE[:3], record.explanation.target)
    for name in x:
        np.testing.assert_allclose(
            record.explanation.values[name], expected.values[name], atol=1e-5
        )
    shown = maps.shown(record)
    (header,) = maps.samples(record, shown)
    found = events.read_samples(header)
    assert found["feature_names"] == ["age", "job"]
    assert [row[1] for row in found["values"]] == [None] * 3
    np.testing.assert_allclose([row[0] for row in found["values"]], TABLE["age"][:3], rtol=1e-6)


def test_what_takes_the_place_of_a_category_must_be_said():
    for explainer in (kx.FeatureAblation(), kx.IntegratedGradients(), kx.KernelSHAP()):
        with complaint(ValueError, "text", "Zeros()", "background", "'job': 'clerk'"):
            explainer(MODELS["embedding"], TABLE)
    with complaint(TypeError, "'cook'", "numbers"):
        kx.FeatureAblation(baseline="cook")(models.get("tabular").model, models.numbers(5))


def test_numbers_where_a_text_belongs():
    x = {"age": TABLE["age"], "job": np.arange(ROWS)}
    with complaint(ValueError, "text", "`x`['job']", "astype(str)"):
        kx.Saliency()(MODELS["embedding"], x)


def test_texts_of_any_length_are_one_kind():
    model, explainer = MODELS["embedding"], kx.Saliency()
    explainer(model, TABLE, 1)
    with check.nothing_traced():
        explainer(model, TABLE.assign(job=["a very long text"] * ROWS), 1)


def texts_model():
    x = keras.Input((1,), dtype="string")
    words = layers.TextVectorization(
        vocabulary=["good", "bad", "film"], output_sequence_length=4, name="words"
    )
    h = layers.Embedding(5, 3, name="embedding")(words(x))
    return models.made(x, layers.Dense(2)(layers.Flatten()(h)))


def test_a_map_of_words_does_not_lie_over_their_text():
    """One number a text would be the mean over its words."""
    with complaint(ValueError, "an input with 1 spatial axes to lay the map over"):
        kx.GradCAM()(texts_model(), np.array([["good film"], ["bad film film"]]), 1)


def test_the_advice_for_words_works():
    model, texts = texts_model(), np.array([["good film"], ["bad film film"], ["a film"]])
    with complaint(
        ValueError, "TextVectorization", "keras.Model(vectorizer.output, model.outputs)"
    ):
        kx.Saliency()(model, texts, 1)
    words = model.get_layer("words")
    behind = keras.Model(words.output, model.outputs)
    ids = words(keras.ops.convert_to_tensor(texts))
    found = kx.InputXGradient()(behind, ids, 1)
    assert found.values.shape == (3, 4)
    total = found.scores - model.layers[-1].bias[1]
    np.testing.assert_allclose(found.values.sum(1), total, atol=1e-5)
    tokens = kx.features.Tokens(tokenizer=words)
    hidden = kx.FeatureAblation(features=tokens)(behind, [t for (t,) in texts.tolist()], 1)
    assert hidden.extras["tokens"][0].tolist()[:2] == ["good", "film"]
    background = np.array([["bad film"], ["good"]])
    whole = kx.FeatureAblation(background=background)(model, texts, 1)
    assert whole.values.shape == (3, 1)
    np.testing.assert_allclose(whole.scores, found.scores, rtol=1e-5)


def test_a_feature_space():
    space = keras.utils.FeatureSpace(
        {"age": "float", "job": keras.utils.FeatureSpace.string_categorical()}, output_mode="concat"
    )
    columns = {"age": TABLE["age"].to_numpy("float32"), "job": TABLE["job"].to_numpy(object)}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns))
    h = layers.Dense(4, activation="tanh")(space.get_encoded_features())
    model = models.made(dict(space.get_inputs()), layers.Dense(3)(h))
    found = kx.ExactShapley(background=TABLE)(model, dict(TABLE), 1)
    total = found.values["age"][:, 0] + found.values["job"][:, 0]
    np.testing.assert_allclose(total, found.scores - found.scores.mean(), atol=1e-5)
    gradients = kx.InputXGradient()(model, dict(TABLE), 1)
    assert gradients.values["job"].shape == (ROWS, 1)
    assert gradients.values["job"].any()


@pytest.mark.filterwarnings("ignore:.* below float precision")  # of texts of the mean length
def test_numbers_of_a_text_and_another_input_together():
    """What one layer makes of both can't be told apart."""

    class Both(layers.Layer):
        def call(self, age, job):
            return tf.concat([age, tf.cast(tf.strings.length(job), "float32")], axis=-1)

    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    model = models.made({"age": age, "job": job}, layers.Dense(3)(Both()(age, job)))
    with complaint(ValueError, "'job'", "of it alone", "KernelSHAP"):
        kx.InputXGradient()(model, TABLE, 1)
    assert kx.KernelSHAP(background=TABLE)(model, TABLE, 1).values["job"].any()
