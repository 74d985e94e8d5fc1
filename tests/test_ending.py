"""What a model's output is taken for: logits, a probability, or neither; against NumPy."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special

import keras_explain as kx
from keras_explain.callbacks import predictions
from tests import models

FEATURES, UNITS = 5, 4
X = models.numbers(FEATURES, seed=3)
WARNING = "explained as it is: a softmax or sigmoid leads to it"
softmax, expit = functools.partial(special.softmax, axis=-1), special.expit


@dataclass(frozen=True)
class Twin:
    """A head on two Dense layers of logits `z` and `q`, `[B, units]`, and the same in NumPy.

    `logits` are None where the output has none; `p` where its probabilities are not known; `warns`
    says whether a softmax or sigmoid is hidden in what is explained as it is.
    """

    head: Callable[[Any, Any], Any]
    y: Callable[[Any, Any], Any]
    logits: Callable[[Any, Any], Any] | None = None
    p: Callable[[Any, Any], Any] | None = None
    warns: bool = False
    units: int = UNITS

    @functools.cached_property
    def model(self) -> keras.Model:
        x = keras.Input((FEATURES,))
        z, q = (layers.Dense(self.units, name=name)(x) for name in ("z", "q"))
        return models.filled(keras.Model(x, self.head(z, q)))

    @functools.cached_property
    def sums(self) -> list[np.ndarray]:
        """`z` and `q` in float64."""
        named = {layer.name: layer for layer in self.model.layers}
        weights = [named[n].get_weights() if n in named else None for n in ("z", "q")]
        return [X.astype("float64") @ w[0] + w[1] if w else np.zeros(()) for w in weights]

    def of(self, name: str) -> np.ndarray:
        """`"y"`, `"logits"` or `"p"`, `[B, C]`."""
        found = getattr(self, name)(*self.sums)
        return found[:, None] if found.ndim == 1 else found


def activated(head, y, logits, **options):
    """An output that has logits, and is a probability."""
    return Twin(head, y, logits, y, **options)


def share(head, y, warns=True, **options):
    """An output that is a probability and has no logits."""
    return Twin(head, y, None, y, warns, **options)


def unknown(head, y, warns=False, **options):
    """An output of which nothing is known."""
    return Twin(head, y, None, None, warns, **options)


def sums(head, y, **options):
    """An output that is logits."""
    units = options.get("units", UNITS)
    p = (lambda z, q: expit(y(z, q))) if units == 1 else (lambda z, q: softmax(y(z, q)))
    return Twin(head, y, y, p, **options)


def by_sum(e):
    return e / ops.sum(e, axis=-1, keepdims=True)


def normal(p):
    return p / p.sum(axis=-1, keepdims=True)


def of_softmax(written):
    """A softmax that is written in another way."""
    return activated(lambda z, q: written(z), lambda z, q: softmax(z), lambda z, q: z)


def of_sigmoid(written):
    return activated(lambda z, q: written(z), lambda z, q: expit(z), lambda z, q: z)


def of_log(written, log, exp):
    return Twin(lambda z, q: written(z), lambda z, q: log(z), lambda z, q: z, lambda z, q: exp(z))


def flat(z, q=None):
    return np.reshape(z, (len(z), -1))


def clipped(z):
    return ops.clip(ops.softmax(z), 0.1, 0.6)


def clipped_twin(z):
    return softmax(z).clip(0.1, 0.6)


LOOKED_THROUGH = {
    "temperature": activated(
        lambda z, q: ops.softmax(z / 2.0), lambda z, q: softmax(z / 2), lambda z, q: z / 2
    ),
    "masked_classes": activated(
        lambda z, q: ops.softmax(ops.where(np.arange(4) < 3, z, -1e9)),
        lambda z, q: softmax(np.where(np.arange(4) < 3, z, -1e9)),
        lambda z, q: np.where(np.arange(4) < 3, z, -1e9),
    ),
    "exp_of_log_softmax": of_softmax(lambda z: ops.exp(ops.log_softmax(z))),
    "exp_less_logsumexp": of_softmax(
        lambda z: ops.exp(z - ops.logsumexp(z, axis=-1, keepdims=True))
    ),
    "by_hand": of_softmax(lambda z: by_sum(ops.exp(z))),
    "by_hand_twice": of_softmax(lambda z: ops.exp(z) / ops.sum(ops.exp(z), -1, keepdims=True)),
    "by_hand_less_max": of_softmax(
        lambda z: by_sum(ops.exp(z - ops.max(z, axis=-1, keepdims=True)))
    ),
    "by_hand_shifted": activated(
        lambda z, q: by_sum(ops.exp(z - 1.0)), lambda z, q: softmax(z), lambda z, q: z - 1
    ),
    "new_axis": of_softmax(lambda z: (lambda e: e / ops.sum(e, axis=-1)[:, None])(ops.exp(z))),
    "renormalized": of_softmax(lambda z: by_sum(ops.softmax(z))),
    "renormalized_part": activated(
        lambda z, q: by_sum(ops.softmax(z)[:, :3]),
        lambda z, q: softmax(z[:, :3]),
        lambda z, q: z[:, :3],
    ),
    "reversed": activated(
        lambda z, q: ops.softmax(z)[:, ::-1],
        lambda z, q: softmax(z)[:, ::-1],
        lambda z, q: z[:, ::-1],
    ),
    "last_step": activated(
        lambda z, q: ops.softmax(ops.stack([q, z], axis=1))[:, -1],
        lambda z, q: softmax(z),
        lambda z, q: z,
    ),
    "over_two_axes": activated(
        lambda z, q: layers.Flatten()(layers.Softmax(axis=(1, 2))(layers.Reshape((2, 2))(z))),
        lambda z, q: softmax(z),
        lambda z, q: z,
    ),
    "over_the_first_axis": activated(
        lambda z, q: layers.Flatten()(layers.Softmax(axis=1)(layers.Reshape((4, 1))(z))),
        lambda z, q: softmax(z),
        lambda z, q: z,
    ),
    "log_of_softmax": of_log(lambda z: ops.log(ops.softmax(z)), special.log_softmax, softmax),
    "less_logsumexp": of_log(
        lambda z: z - ops.logsumexp(z, axis=-1, keepdims=True),
        functools.partial(special.log_softmax, axis=-1),
        softmax,
    ),
    "log_sigmoid": of_log(ops.log_sigmoid, special.log_expit, expit),
    "log_of_sigmoid": of_log(lambda z: ops.log(ops.sigmoid(z)), special.log_expit, expit),
    "exp_of_log_sigmoid": of_sigmoid(lambda z: ops.exp(ops.log_sigmoid(z))),
    "sigmoid_by_hand": of_sigmoid(lambda z: 1 / (1 + ops.exp(-z))),
    "sigmoid_by_hand_rising": of_sigmoid(lambda z: ops.exp(z) / (1 + ops.exp(z))),
    "sigmoid_by_reciprocal": of_sigmoid(lambda z: ops.reciprocal(ops.exp(-z) + 1)),
    "rest": activated(
        lambda z, q: 1 - ops.sigmoid(z), lambda z, q: expit(-z), lambda z, q: -z, units=1
    ),
    "both_classes": activated(
        lambda z, q: (lambda p: ops.concatenate([1 - p, p], axis=-1))(ops.sigmoid(z)),
        lambda z, q: np.concatenate([expit(-z), expit(z)], axis=-1),
        lambda z, q: np.concatenate([-z, z], axis=-1),
        units=1,
    ),
    "heads": activated(
        lambda z, q: layers.Concatenate()([ops.sigmoid(z), layers.Activation("sigmoid")(q)]),
        lambda z, q: expit(np.concatenate([z, q], axis=-1)),
        lambda z, q: np.concatenate([z, q], axis=-1),
    ),
    "stack": activated(
        lambda z, q: ops.stack([ops.sigmoid(z)[:, 0], ops.sigmoid(q)[:, 0]], axis=-1),
        lambda z, q: expit(np.concatenate([z, q], axis=-1)),
        lambda z, q: np.concatenate([z, q], axis=-1),
        units=1,
    ),
    "part_of_sigmoids": activated(
        lambda z, q: ops.take(ops.sigmoid(z), [2, 0], axis=-1),
        lambda z, q: expit(z[:, [2, 0]]),
        lambda z, q: z[:, [2, 0]],
    ),
}
SHARES = {
    "mean_of_two": share(
        lambda z, q: (ops.softmax(z) + ops.softmax(q)) / 2,
        lambda z, q: (softmax(z) + softmax(q)) / 2,
    ),
    "average_layer": share(
        lambda z, q: layers.Average()([layers.Softmax()(z), layers.Softmax()(q)]),
        lambda z, q: (softmax(z) + softmax(q)) / 2,
    ),
    "mean_of_a_stack": share(
        lambda z, q: ops.mean(ops.stack([ops.sigmoid(z), ops.sigmoid(q)]), axis=0),
        lambda z, q: (expit(z) + expit(q)) / 2,
    ),
    "convex": share(
        lambda z, q: 0.3 * ops.softmax(z) + 0.7 * ops.softmax(q),
        lambda z, q: 0.3 * softmax(z) + 0.7 * softmax(q),
    ),
    "weighed": share(
        lambda z, q: (lambda g: g * ops.softmax(z) + (1 - g) * ops.softmax(q))(ops.sigmoid(q)),
        lambda z, q: expit(q) * softmax(z) + (1 - expit(q)) * softmax(q),
    ),
    "experts": share(
        lambda z, q: ops.sum(
            ops.softmax(q)[:, :, None] * ops.softmax(ops.stack([z, q, z, q], axis=1)), axis=1
        ),
        lambda z, q: np.einsum(
            "bk,bkc->bc", softmax(q), np.stack([softmax(v) for v in (z, q, z, q)], 1)
        ),
    ),
    "experts_by_product": share(
        lambda z, q: ops.matmul(
            ops.softmax(q)[:, None], ops.softmax(ops.stack([z, q, z, q], axis=1))
        )[:, 0],
        lambda z, q: np.einsum(
            "bk,bkc->bc", softmax(q), np.stack([softmax(v) for v in (z, q, z, q)], 1)
        ),
    ),
    "clipped": share(lambda z, q: clipped(z), lambda z, q: clipped_twin(z)),
    "clipped_sigmoid": share(
        lambda z, q: ops.clip(ops.sigmoid(z), 0.3, 0.7),
        lambda z, q: expit(z).clip(0.3, 0.7),
        units=1,
    ),
    "clipped_and_renormalized": share(
        lambda z, q: by_sum(clipped(z)), lambda z, q: normal(clipped_twin(z))
    ),
    "renormalized_with_epsilon": share(
        lambda z, q: (lambda p: p / (ops.sum(p, axis=-1, keepdims=True) + 1e-7))(clipped(z)),
        lambda z, q: normal(clipped_twin(z)),
    ),
    "product": share(
        lambda z, q: ops.softmax(z) * ops.softmax(q), lambda z, q: softmax(z) * softmax(q)
    ),
    "masked": share(
        lambda z, q: ops.softmax(z) * ops.cast(q > 0, "float32"), lambda z, q: softmax(z) * (q > 0)
    ),
    "minimum": share(
        lambda z, q: ops.minimum(ops.softmax(z), ops.softmax(q)),
        lambda z, q: np.minimum(softmax(z), softmax(q)),
    ),
    "with_a_constant": share(
        lambda z, q: ops.maximum(ops.sigmoid(z), 0.2), lambda z, q: np.maximum(expit(z), 0.2)
    ),
    "any_of": share(
        lambda z, q: 1 - ops.prod(1 - ops.sigmoid(z), axis=-1, keepdims=True),
        lambda z, q: 1 - np.prod(expit(-z), axis=-1, keepdims=True),
    ),
    "several_classes_at_once": share(
        lambda z, q: ops.sum(ops.softmax(z)[:, 1:3], axis=-1, keepdims=True),
        lambda z, q: softmax(z)[:, 1:3].sum(-1, keepdims=True),
    ),
    "part_of_a_softmax": share(lambda z, q: ops.softmax(z)[:, :2], lambda z, q: softmax(z)[:, :2]),
    "unit_of_a_softmax": share(lambda z, q: ops.softmax(z)[:, 1], lambda z, q: softmax(z)[:, 1]),
    "two_softmaxes_side_by_side": share(
        lambda z, q: layers.Concatenate()([ops.softmax(z), ops.softmax(q)]),
        lambda z, q: np.concatenate([softmax(z), softmax(q)], -1),
    ),
    "steps_in_a_row": share(
        lambda z, q: layers.Flatten()(ops.softmax(ops.stack([z, q], axis=1))),
        lambda z, q: np.concatenate([softmax(z), softmax(q)], -1),
    ),
    "square": share(lambda z, q: ops.square(ops.sigmoid(z)), lambda z, q: expit(z) ** 2),
    "padded": share(
        lambda z, q: ops.pad(ops.sigmoid(z), [[0, 0], [0, 1]]),
        lambda z, q: np.pad(expit(z), [[0, 0], [0, 1]]),
    ),
    "hard_sigmoid": share(
        lambda z, q: ops.hard_sigmoid(z), lambda z, q: (z / 6 + 0.5).clip(0, 1), warns=False
    ),
    "half_tanh": share(
        lambda z, q: 0.5 * ops.tanh(z) + 0.5, lambda z, q: 0.5 * np.tanh(z) + 0.5, warns=False
    ),
    "clipped_sum": share(lambda z, q: ops.clip(z, 0, 1), lambda z, q: z.clip(0, 1), warns=False),
}
SUMS = {
    "dense": sums(lambda z, q: z, lambda z, q: z),
    "one_unit": sums(lambda z, q: z, lambda z, q: z, units=1),
    "no_axis": sums(lambda z, q: z[:, 0], lambda z, q: z, units=1),
    "scaled": sums(lambda z, q: 3 * z / 2.0 - 1, lambda z, q: 1.5 * z - 1),
    "residual": sums(lambda z, q: z + ops.relu(q), lambda z, q: z + q.clip(0)),
    "mean_of_logits": sums(lambda z, q: (z + q) / 2, lambda z, q: (z + q) / 2),
    "beside": sums(
        lambda z, q: layers.Concatenate()([z, q]), lambda z, q: np.concatenate([z, q], -1)
    ),
    "pooled": sums(
        lambda z, q: layers.GlobalAveragePooling1D()(ops.stack([z, q], axis=1)),
        lambda z, q: (z + q) / 2,
    ),
}
UNKNOWN = {
    "relu": unknown(lambda z, q: ops.relu(z), lambda z, q: z.clip(0)),
    "tanh": unknown(lambda z, q: ops.tanh(z), lambda z, q: np.tanh(z)),
    "product": unknown(lambda z, q: z * q, lambda z, q: z * q),
    "inverse": unknown(lambda z, q: 2.0 / z, lambda z, q: 2 / z),
    "minimum": unknown(lambda z, q: ops.minimum(z, q), lambda z, q: np.minimum(z, q)),
    "swish": unknown(lambda z, q: ops.silu(z), lambda z, q: z * expit(z)),
    "gated": unknown(lambda z, q: z * ops.sigmoid(q), lambda z, q: z * expit(q)),
    "log_of_a_mean": unknown(
        lambda z, q: ops.log((ops.softmax(z) + ops.softmax(q)) / 2),
        lambda z, q: np.log((softmax(z) + softmax(q)) / 2),
        warns=True,
    ),
    "sum_of_two": unknown(
        lambda z, q: ops.softmax(z) + ops.softmax(q),
        lambda z, q: softmax(z) + softmax(q),
        warns=True,
    ),
    "log_with_epsilon": unknown(
        lambda z, q: ops.log(ops.softmax(z) + 1e-3),
        lambda z, q: np.log(softmax(z) + 1e-3),
        warns=True,
    ),
}
ALL = {
    f"{kind}-{name}": twin
    for kind, twins in {
        "activated": LOOKED_THROUGH,
        "share": SHARES,
        "sum": SUMS,
        "unknown": UNKNOWN,
    }.items()
    for name, twin in twins.items()
}
each = pytest.mark.parametrize("twin", ALL.values(), ids=ALL)


def scores_of(model, target, x=X):
    """The scores of a target, and whether it was said that the output is explained as it is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explanation = kx.Saliency()(model, x, target)
    return explanation, sum(WARNING in str(warning.message) for warning in caught)


@each
def test_a_logit_or_the_output_as_it_is(twin):
    expected = twin.of("y" if twin.logits is None else "logits")
    explanation, said = scores_of(twin.model, kx.targets.Class(expected.shape[1] - 1))
    np.testing.assert_allclose(explanation.scores, expected[:, -1], rtol=1e-4, atol=1e-6)
    assert said == twin.warns


@pytest.mark.parametrize("twin", UNKNOWN.values(), ids=UNKNOWN)
def test_no_probability_of_what_is_not_known(twin):
    with pytest.raises(ValueError, match=r'of="probability".*Regression.*Function'):
        kx.Saliency()(twin.model, X, kx.targets.Class(0, of="probability"))


@pytest.mark.parametrize(
    "name", ["activated-heads", "activated-less_logsumexp", "share-convex", "sum-residual"]
)
def test_a_probability(name):
    twin = ALL[name]
    expected = twin.of("p")
    target = kx.targets.Class(expected.shape[1] - 1, of="probability")
    explanation, said = scores_of(twin.model, target)
    np.testing.assert_allclose(explanation.scores, expected[:, -1], rtol=1e-4, atol=1e-6)
    assert not said


@each
def test_the_predicted_class_is_that_of_the_output(twin):
    explanation, _ = scores_of(twin.model, None)
    y = twin.of("y")
    np.testing.assert_array_equal(explanation.target.index, y.argmax(axis=1))


@each
def test_the_probabilities_of_a_callback(twin):
    found = predictions.predict(twin.model, X, kx.targets.Class(), None, None)
    if twin.p is None:
        assert found.probabilities is None
        return
    p = twin.of("p")
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    np.testing.assert_array_equal(found.classes, p.argmax(axis=1))
    np.testing.assert_allclose(found.probabilities, p.max(axis=1), rtol=1e-4, atol=1e-6)


# One unit


@pytest.mark.parametrize("name", ["clipped_sigmoid", "any_of", "unit_of_a_softmax"])
@pytest.mark.parametrize("of", ["logit", "probability"])
def test_the_labels_of_a_probability_without_a_logit(name, of):
    labels, p = np.array([1, 0, 0, 1]), SHARES[name].of("p")[:, 0]
    model = SHARES[name].model
    explanation, _ = scores_of(model, kx.targets.Label(labels, of=of))
    expected = np.where(labels, p, 1 - p)
    np.testing.assert_allclose(explanation.scores, expected, rtol=1e-4, atol=1e-6)
    predicted, _ = scores_of(model, kx.targets.Label(of=of))
    np.testing.assert_array_equal(predicted.target.index, p > 0.5)


# Maps


def segmentation(head, classes=3):
    x = keras.Input((6, 5, 3))
    logits = layers.Conv2D(classes, 1, name="z")(x)
    model = models.filled(keras.Model(x, head(logits)), seed=5)
    pictures = models.numbers(6, 5, 3)
    kernel, bias = model.get_layer("z").get_weights()
    return model, pictures, pictures.astype("float64") @ kernel[0, 0] + bias


@pytest.mark.parametrize("of", ["logit", "probability"])
def test_a_region_of_probabilities_without_logits(of):
    model, x, z = segmentation(lambda z: ops.clip(ops.softmax(z), 0.2, 0.6))
    p = softmax(z).clip(0.2, 0.6)
    mask = np.arange(30).reshape(6, 5) < 12
    explanation, said = scores_of(model, kx.targets.Region(1, mask=mask, of=of), x)
    np.testing.assert_allclose(explanation.scores, p[:, mask, 1].mean(axis=1), rtol=1e-4)
    assert said == (of == "logit")


@pytest.mark.parametrize(
    ("head", "of"),
    [
        (ops.sigmoid, "probability"),
        (lambda z: z, "probability"),
        (lambda z: ops.clip(ops.sigmoid(z), 0.2, 0.8), "logit"),
    ],
)
def test_where_the_only_class_of_a_segmentation_is(head, of):
    model, x, z = segmentation(head, classes=1)
    p, there = expit(z[..., 0]), z[..., 0] > 0
    p = p.clip(0.2, 0.8) if of == "logit" else p
    explanation, _ = scores_of(model, kx.targets.Region(of=of), x)
    expected = [row[inside].mean() for row, inside in zip(p, there, strict=True)]
    np.testing.assert_allclose(explanation.scores, expected, rtol=1e-4)


def test_a_softmax_over_channels_that_come_first():
    model, x, z = segmentation(lambda z: layers.Softmax(axis=1)(ops.transpose(z, (0, 3, 1, 2))))
    target = kx.targets.Function(lambda y: y[:, 0, 0, 0])
    expected, said = scores_of(model, target, x)
    np.testing.assert_allclose(expected.scores, softmax(z)[:, 0, 0, 0], rtol=1e-4)
    region = kx.targets.Region(0, mask=np.eye(3, 6)[:, :, None].any(axis=-1))
    explanation, said = scores_of(model, region, x)
    first = np.moveaxis(z, -1, 1)[..., 0]  # [B, 3, 6]
    np.testing.assert_allclose(
        explanation.scores, np.mean([first[:, i, i] for i in range(3)], 0), rtol=1e-4
    )
    assert not said


# Models


LAST = {
    "batch_norm": lambda h: layers.BatchNormalization()(layers.Dense(3)(h)),
    "no_bias": lambda h: layers.Dense(3, use_bias=False)(h),
    "reshaped": lambda h: layers.Reshape((3,))(layers.Dense(3)(h)),
    "einsum": lambda h: layers.EinsumDense("bf,fc->bc", 3)(h),
    "conv": lambda h: layers.GlobalAveragePooling1D()(
        layers.Conv1D(3, 2)(layers.Reshape((5, 1))(h))
    ),
    "depthwise": lambda h: (
        layers.GlobalMaxPooling1D()(layers.SeparableConv1D(3, 2)(layers.Reshape((5, 1))(h)))
        + layers.Dense(3)(h)
    ),
    "transposed": lambda h: layers.GlobalAveragePooling1D()(
        layers.Conv1DTranspose(3, 2)(layers.Reshape((5, 1))(h))
    ),
    "time_distributed": lambda h: layers.GlobalAveragePooling1D()(
        layers.TimeDistributed(layers.Dense(3))(layers.Reshape((5, 1))(h))
    ),
    "dropout": lambda h: layers.Dropout(0.5)(layers.Dense(3)(h)),
    "recurrent": lambda h: layers.Dense(3)(layers.LSTM(4)(layers.Reshape((5, 1))(h))),
    "attention": lambda h: layers.Dense(3)(
        layers.Flatten()(
            layers.MultiHeadAttention(2, 3)(layers.Reshape((5, 1))(h), layers.Reshape((5, 1))(h))
        )
    ),
    "squeeze_excite": lambda h: layers.Dense(3)(h * layers.Dense(5, activation="sigmoid")(h)),
    "bfloat16": lambda h: layers.Dense(3, dtype="mixed_bfloat16")(h),
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_a_model_that_ends_in_a_weighted_sum(last):
    x = keras.Input((FEATURES,))
    model = models.filled(keras.Model(x, last(x)))
    logits, said = scores_of(model, 1)
    y = model.predict(X, verbose=0).astype("float64")
    tolerance = 2e-2 if model.layers[-1].compute_dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(logits.scores, y[:, 1], rtol=tolerance, atol=tolerance)
    p, _ = scores_of(model, kx.targets.Class(1, of="probability"))
    np.testing.assert_allclose(p.scores, softmax(y)[:, 1], rtol=tolerance)
    assert not said


def test_a_sum_of_embeddings_is_logits():
    x = keras.Input((6,), dtype="int32")
    summed = ops.sum(layers.Embedding(20, 3)(x), axis=1)
    model, ids = models.filled(keras.Model(x, summed)), models.tokens(6, 20)
    explanation, _ = scores_of(model, kx.targets.Class(1, of="probability"), ids)
    y = model.predict(ids, verbose=0).astype("float64")
    np.testing.assert_allclose(explanation.scores, softmax(y)[:, 1], rtol=1e-4)


@pytest.mark.parametrize("explainer", [kx.Saliency(layer="z"), kx.DeepLIFT(layer="z")])
@pytest.mark.parametrize("name", ["sum-dense", "share-convex", "activated-by_hand"])
def test_the_layer_that_is_explained_does_not_change_the_rule(name, explainer):
    twin = ALL[name]
    explanation = explainer(twin.model, X, kx.targets.Class(1, of="probability"))
    np.testing.assert_allclose(explanation.scores, twin.of("p")[:, 1], rtol=1e-4)


def test_one_of_several_outputs_by_the_same_rule():
    x = keras.Input((FEATURES,))
    z = layers.Dense(UNITS, name="z")(x)
    mean = (ops.softmax(z) + 0.25) / 2
    model = models.filled(keras.Model(x, {"mean": mean, "sum": z}))
    kernel, bias = model.get_layer("z").get_weights()
    z = X.astype("float64") @ kernel + bias
    for output, p, warns in (("mean", (softmax(z) + 0.25) / 2, True), ("sum", softmax(z), False)):
        target = kx.targets.Class(1, of="probability", output=output)
        np.testing.assert_allclose(scores_of(model, target)[0].scores, p[:, 1], rtol=1e-4)
        assert scores_of(model, kx.targets.Class(1, output=output))[1] == warns


# Trees


@pytest.mark.parametrize(
    "name", ["mean_of_two", "clipped_and_renormalized", "convex", "any_of", "clipped_sigmoid"]
)
def test_a_tree_of_probabilities_without_logits(name):
    from keras_explain.trees.rows import RowReader

    twin = SHARES[name]
    rows = RowReader(twin.model).read(X)
    p = twin.of("p")
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else normal(p)
    np.testing.assert_allclose(rows.probabilities, p, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows.classes, p.argmax(axis=1))
    eager = RowReader(twin.model).table(X, twin.model(X))
    np.testing.assert_allclose(softmax(np.asarray(eager.logits)), p, rtol=1e-4, atol=1e-6)


def test_a_tree_of_what_is_no_score_of_a_class():
    with pytest.raises(ValueError, match=r"scores of classes.*'Relu'.*Activation"):
        kx.trees.SurrogateTree.fit(UNKNOWN["relu"].model, X)
