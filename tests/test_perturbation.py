"""The perturbation family on networks that were trained on something known."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_explain as kx

METHODS = {
    "FeatureAblation": {},
    "Occlusion": {},
    "RISE": {"masks": 600},
    "LIME": {"samples": 300},
    "KernelSHAP": {"samples": 200},
    "ShapleySampling": {"samples": 10},
    "ExactShapley": {},
    "PartitionSHAP": {"samples": 100},
    "SobolAttribution": {},
    "HSICAttribution": {"samples": 400},
}


@pytest.fixture(params=METHODS)
def method(request):
    """A class, and arguments with which it is quick; skipped where it needs what is not there."""
    if request.param == "PartitionSHAP":
        pytest.importorskip("shap")
    return lambda **options: getattr(kx, request.param)(**METHODS[request.param], **options)


# Text with trigger words

WORDS = [f"word{i}" for i in range(30)]
GOOD, BAD = ["wonderful", "superb"], ["awful", "dull"]


@pytest.fixture(scope="module")
def text():
    """A network that tells good from bad by four words, its tokenizer, and texts."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    texts, trigger, labels = [], [], []
    for i in range(400):
        words = list(rng.choice(WORDS, rng.integers(4, 9)))
        label = i % 2
        trigger.append(rng.choice(GOOD if label else BAD))
        words.insert(rng.integers(len(words) + 1), trigger[-1])
        texts.append(" ".join(words))
        labels.append(label)
    tokenizer = layers.TextVectorization(output_sequence_length=12)
    tokenizer.adapt(texts)
    ids = kx.features.Tokens(tokenizer=tokenizer).ids(texts)
    model = keras.Sequential(
        [
            keras.Input((12,), dtype="int32"),
            layers.Embedding(len(tokenizer.get_vocabulary()), 8, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(ids, np.array(labels), epochs=8, batch_size=50, verbose=0)
    assert model.evaluate(ids, np.array(labels), verbose=0)[1] == 1
    return model, tokenizer, texts[:8], trigger[:8]


def test_trigger_words_come_first(method, text):
    model, tokenizer, texts, trigger = text
    tokens = kx.features.Tokens(mask=1, tokenizer=tokenizer)
    explanation = method(features=tokens)(model, texts)
    words = explanation.extras["tokens"]
    top = words[np.arange(8), np.abs(explanation.values).argmax(axis=1)]
    assert list(top) == trigger
    assert not explanation.values[words == ""].any()
    named = " ".join(words[0]).split()
    assert named == texts[0].split()


# Series with bumps


@pytest.fixture(scope="module")
def bumps():
    """A network that says whether a noisy series has a bump, series, and where their bumps are."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.2, (400, 60, 1)).astype("float32")
    at = rng.integers(5, 50, 400)
    y = np.arange(400) % 2
    time = np.arange(60)
    shape = 2 * np.exp(-(((time - at[:, None]) / 2.0) ** 2))
    x[y == 1, :, 0] += shape[y == 1]
    model = keras.Sequential(
        [
            keras.Input((60, 1)),
            layers.Conv1D(8, 7, activation="relu", padding="same"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x, y, epochs=6, batch_size=40, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.97
    return model, x[1:16:2], at[1:16:2]


def test_bumps_come_first(method, bumps):
    model, x, at = bumps
    name = type(method()).__name__
    windows = {} if name in ("Occlusion", "RISE") else {"features": kx.features.Windows(5)}
    windows = {"features": kx.features.Windows(10)} if name == "ExactShapley" else windows
    values = method(**windows)(model, x, 1).values
    assert values.shape == (8, 60)
    peak = np.abs(values).argmax(axis=1)
    length = 10 if name in ("ExactShapley", "RISE") else 5
    assert (np.abs(peak - at) <= length).mean() >= 7 / 8
