"""What a model decides by its input (masks, lengths, conditions) is that of the input, wherever a
method moves the point; the masks of twins are given to them as a second input."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from keras_explain.core.graph import traced
from keras_explain.core.graph.decisions import Decisions
from tests import check, models

pytestmark = pytest.mark.filterwarnings("ignore:The input '1' holds integers or booleans")
STEPS, WIDTH = 6, 3


def padded(*lengths):
    """Series of these lengths, filled up with zeros, and which steps are there."""
    there = np.arange(STEPS) < np.array(lengths)[:, None]
    return models.numbers(STEPS, WIDTH) * there[..., None], there


X, THERE = padded(6, 4, 2, 5)
BACKGROUND = models.numbers(STEPS, WIDTH, seed=1) + 0.5

HEADS = {
    "lstm": lambda: layers.LSTM(4),
    "unrolled": lambda: layers.SimpleRNN(4, unroll=True),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(2)),
    "pooling": lambda: layers.GlobalAveragePooling1D(),
    "attention": lambda: _Attention(),
}


class _Attention(layers.Layer):
    """Self-attention and pooling by a mask."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.attend = layers.MultiHeadAttention(2, 2)

    def build(self, shape):
        self.attend.build(shape, shape)

    def call(self, x, mask=None):
        y = self.attend(x, x, attention_mask=mask[:, None, :])
        return ops.sum(y * ops.cast(mask, "float32")[..., None], 1)


def masking(head, before=lambda x: x):
    """A model with a mask that it makes of its input, and its twin that is given the mask."""
    x, there = keras.Input((STEPS, WIDTH)), keras.Input((STEPS,), dtype="bool")
    body, last = HEADS[head](), layers.Dense(2)
    model = keras.Model(x, last(body(layers.Masking()(before(x)))))
    shown = before(x) * ops.cast(there[..., None], "float32")
    return model, keras.Model([x, there], last(body(shown, mask=there)))


MOVING = {
    "IntegratedGradients": (
        kx.IntegratedGradients(steps=8, baseline=0.3),
        kx.IntegratedGradients(steps=8, baseline=[0.3, THERE]),
    ),
    "GradientSHAP": (
        kx.GradientSHAP(background=BACKGROUND, samples=6),
        kx.GradientSHAP(background=[BACKGROUND, np.ones((4, STEPS), bool)], samples=6),
    ),
    "SmoothGrad": (kx.SmoothGrad(samples=4),) * 2,
    "VarGrad": (kx.VarGrad(samples=4),) * 2,
}


@pytest.mark.parametrize(
    ("head", "method"),
    [
        *check.first_of([(head, "IntegratedGradients") for head in HEADS], 1),
        *(("attention", method) for method in MOVING if method != "IntegratedGradients"),
    ],
)
def test_a_mask_made_of_the_input_is_that_of_the_input(head, method):
    model, twin = masking(head)
    explainer, on_twin = MOVING[method]
    result, expected = explainer(model, X, 0), on_twin(twin, [X, THERE], 0)
    np.testing.assert_allclose(result.values, expected.values[0], atol=1e-6)
    assert not result.values[~THERE].any()
    for name in expected.extras.keys() - {"reliable"}:  # which is said of each input
        first = keras.tree.flatten(expected.extras[name])[0]
        np.testing.assert_allclose(result.extras[name], first, atol=1e-6)


@pytest.mark.parametrize("explainer", [kx.GuidedIG(steps=40), kx.BlurIG(steps=200)], ids=repr)
def test_paths_of_other_forms_are_complete_under_the_mask(explainer):
    result = explainer(masking("pooling")[0], X, 0)
    assert not result.values[~THERE].any() or isinstance(explainer, kx.BlurIG)
    change = np.abs(result.scores - result.extras["base_values"]).max()
    assert np.abs(result.extras["convergence_delta"]).max() < 0.01 * change


@pytest.mark.parametrize("name", ["LayerConductance", "InternalInfluence"])
def test_layers_along_a_path_see_the_mask_of_the_input(name):
    model, twin = masking("lstm")
    lstm = model.layers[-2].name
    result = getattr(kx, name)(layer=lstm, steps=6, baseline=0.2)(model, X, 0)
    expected = getattr(kx, name)(layer=lstm, steps=6, baseline=[0.2, THERE])(twin, [X, THERE], 0)
    np.testing.assert_allclose(result.values, expected.values, atol=1e-6)


@pytest.mark.parametrize(
    "before",
    [
        lambda x: ops.reshape(ops.reshape(x, (-1, STEPS * WIDTH)), (-1, STEPS, WIDTH)),
        lambda x: ops.concatenate([x, 2 * x], axis=-1),
        layers.Normalization(mean=0.0, variance=4.0),
    ],
    ids=["reshape", "concatenate", "normalization"],
)
def test_masks_behind_layers_that_learn_nothing(before):
    model, twin = masking("pooling", before)
    explainer, on_twin = MOVING["IntegratedGradients"]
    expected = on_twin(twin, [X, THERE], 0)
    np.testing.assert_allclose(explainer(model, X, 0).values, expected.values[0], atol=1e-6)


def test_the_mask_of_an_explained_layer_is_that_of_its_output():
    """Between the layer and `Masking`, nothing is learned."""
    model = masking("pooling", layers.Normalization(mean=0.0, variance=4.0))[0]
    layer = next(each.name for each in model.layers if "normalization" in each.name)
    explainer = kx.IntegratedGradients(steps=8, baseline=0.3)
    result = explainer.replace(layer=layer)(model, X, 0)
    assert not result.values[~THERE].any()
    np.testing.assert_allclose(result.values, explainer(model, X, 0).values, atol=1e-6)


def test_a_fixed_batch_size_changes_nothing():
    model = masking("attention")[0]
    x = keras.Input((STEPS, WIDTH), batch_size=3)  # of 4 rows, two batches are filled up
    fixed = keras.Model(x, model(x))
    for explainer in (MOVING["IntegratedGradients"][0], kx.VarGrad(samples=4)):
        expected = explainer(model, X, 0)
        np.testing.assert_allclose(explainer(fixed, X, 0).values, expected.values, atol=1e-6)


# Decisions by raw operations


class Decided(keras.Model):
    """A score by `use(x, decide(x))`; a twin is given what is decided."""

    def __init__(self, decide, use, given=None):
        super().__init__()
        self.decide, self.use, self.given = decide, use, given
        self.inner, self.outer = layers.Dense(4, activation="tanh"), layers.Dense(2)

    def call(self, x):
        given = x
        if self.given is not None:
            times = ops.shape(x)[0] // len(self.given)
            given = ops.tile(self.given, (times,) + (1,) * (len(x.shape) - 1))
        return self.outer(self.use(x, self.decide(given), self.inner))


def mean_of(x, there, inner):
    there = ops.cast(there, "float32")
    return ops.sum(inner(x) * there[..., None], 1) / ops.sum(there, 1, keepdims=True)


def mean_up_to(x, length, inner):
    return mean_of(x, ops.arange(STEPS)[None, :] < length[:, None], inner)


def length_of(there):
    return ops.sum(ops.cast(there, "int32"), 1)


def any_of(x):
    return ops.any(ops.not_equal(x, 0), -1)


TABLE = models.numbers(5)
TABLE[0, 1] = TABLE[2, 3] = -1
RAW = {
    "mask": (X, any_of, mean_of),
    "mask by size": (X, lambda x: ops.sum(ops.abs(x), -1) > 0, mean_of),
    "mask by sign": (X, lambda x: ops.sign(ops.max(ops.abs(x), -1)), mean_of),
    "boolean mask": (
        X,
        any_of,
        lambda x, there, inner: tf.math.unsorted_segment_sum(
            tf.boolean_mask(inner(x), there), tf.where(there)[:, 0], ops.shape(x)[0]
        ),
    ),
    "length": (X, lambda x: length_of(any_of(x)), mean_up_to),
    "length of entries": (X, lambda x: length_of(x[..., 0] != 0), mean_up_to),
    "count": (
        X,
        lambda x: ops.sum(ops.cast(x > 0.1, "float32"), (1, 2)),
        lambda x, count, inner: ops.sum(inner(x), 1) / count[:, None],
    ),
    "last step": (
        X,
        lambda x: length_of(any_of(x)) - 1,
        lambda x, last, inner: ops.take_along_axis(inner(x), last[:, None, None], 1)[:, 0],
    ),
    "sentinel": (TABLE, lambda x: x == -1, lambda x, gone, inner: inner(ops.where(gone, 0.3, x))),
    "indicator": (
        TABLE,
        lambda x: x == -1,
        lambda x, gone, inner: inner(ops.concatenate([x, ops.cast(gone, "float32")], -1)),
    ),
    "category": (
        TABLE,
        lambda x: ops.cast(x[:, 1] * 2 + 3, "int32"),
        lambda x, kind, inner: inner(x[:, 2:]) + ops.one_hot(kind, 4),
    ),
    "argmax": (
        TABLE,
        lambda x: ops.argmax(x, -1),
        lambda x, best, inner: inner(x) + ops.one_hot(best, 4),
    ),
    "above the mean": (
        TABLE,
        lambda x: x > ops.mean(x, -1, keepdims=True),
        lambda x, above, inner: inner(ops.where(above, x, 0)),
    ),
    "condition": (
        TABLE,
        lambda x: ops.sum(x, -1) > 0,
        lambda x, positive, inner: inner(ops.where(positive[:, None], x, x**2)),
    ),
    "additive mask": (
        TABLE,
        lambda x: (1 - x) * -1e9,
        lambda x, blocked, inner: inner(x) * ops.softmax(blocked[:, :4]),
    ),
}


@pytest.mark.parametrize("kind", RAW)
def test_decisions_by_operations_are_those_of_the_input(kind):
    x, decide, use = RAW[kind]
    model, twin = Decided(decide, use), Decided(decide, use, x)
    model(x), twin(x)
    twin.set_weights(model.get_weights())
    explainers = [kx.IntegratedGradients(steps=6, baseline=0.2)]
    explainers += [kx.SmoothGrad(samples=3)] if kind in ("mask", "condition") else []
    for explainer in explainers:
        check.assert_same(explainer(model, x, 0), explainer(twin, x, 0))


FUNCTIONS = {
    "leaky ReLU": lambda x: ops.where(x > 0, x, 0.1 * x),
    "of a part": lambda x: ops.where(x[:, 1:] > 0, x[:, 1:], 0.1 * x[:, 1:]),
    "gated": lambda x: x * ops.cast(x > 0.1, "float32"),
    "band": lambda x: ops.where(ops.logical_and(x > -1, x < 1), x, 0.5 * x),
    "symlog": lambda x: ops.sign(x) * ops.log1p(ops.abs(x)),
    "rest": lambda x: x - ops.floor(x),
    "step": lambda x: ops.concatenate([x, ops.cast(x > 0, "float32")], -1),
    "safe division": lambda x: x / _or_one(ops.sum(x * x, -1, keepdims=True)),
    "logsumexp": lambda x: x - ops.logsumexp(x, axis=-1, keepdims=True),
    "sorted": lambda x: ops.sort(x, -1),
    "ReLU": lambda x: ops.relu(x) + ops.clip(x, -0.5, 0.5),
    "learned": lambda x: ops.where(_dense(x) > 0, _dense(x), 0),
}


def _or_one(x):
    return ops.where(x == 0, 1.0, x)


def _dense(x):
    return x @ _WEIGHT[:5]


_WEIGHT = keras.Variable(np.eye(10, 5, dtype="float32"), name="weight")


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_an_entry_follow_the_point(kind):
    found = []

    def trace(x):
        y = FUNCTIONS[kind](x)
        _ = y @ _WEIGHT[: y.shape[-1]]
        found.extend(Decisions(traced.operations(), [x]).found)
        return x

    backend.compile(trace, backend.spec(TABLE))
    assert found == []


class _InLoop(layers.Layer):
    """It tests each row for what is not there, in a loop."""

    def call(self, x):
        return ops.map(lambda row: ops.where(ops.any(row != 0), row, 1.0), x)


def test_a_decision_in_a_loop_is_an_error_where_the_point_is_moved():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(_InLoop(name="in_loop")(x)))
    rows = models.numbers(4)
    kx.Saliency()(model, rows, 0)
    with pytest.raises(ValueError, match=r"outside of loops.*'in_loop'"):
        kx.IntegratedGradients()(model, rows, 0)
    with pytest.raises(ValueError, match="outside of loops"):
        kx.SmoothGrad(samples=2)(model, rows, 0)


def test_hiding_runs_the_model_on_what_is_left():
    """A hidden step is masked."""
    model = masking("pooling")[0]
    features = kx.features.Windows(1)
    result = kx.FeatureAblation(features=features, baseline=0.0)(model, X, 0)
    less = X.copy()
    less[:, 1] = 0
    expected = (model(X) - model(less))[:, 0]
    np.testing.assert_allclose(result.values[:, 1], expected, atol=1e-6)


def test_a_gradient_that_a_decision_cuts_off_is_an_error():
    model = Decided(lambda x: ops.argmax(x, -1), lambda x, best, inner: inner(ops.one_hot(best, 5)))
    model(TABLE)
    with pytest.raises(ValueError, match="cut off"):
        kx.Saliency()(model, TABLE, 0)


# Methods by rules: a mask is no source, and passes on to what it selects

RULES = {
    "DeepLIFT": kx.DeepLIFT(baseline=0.1),
    "reveal-cancel": kx.DeepLIFT(baseline=0.1, rule="reveal_cancel"),
    "LRP": kx.LRP(rules="epsilon"),
    "flat LRP": kx.LRP(rules="epsilon_plus_flat"),
    "guided": kx.GuidedBackprop(),
}


class Scored(keras.Model):
    """Attention by hand and pooling, under a mask that it makes of its input, or that is given."""

    def __init__(self, blocked, there=None):
        super().__init__()
        self.blocked, self.there = blocked, there
        self.query, self.key, self.value = (layers.Dense(4) for _ in range(3))
        self.inner, self.outer = layers.Dense(4, activation="relu"), layers.Dense(2)

    def call(self, x):
        there = ops.any(x != 0, -1) if self.there is None else self.there
        pairs = ops.matmul(self.query(x), ops.transpose(self.key(x), (0, 2, 1)))
        weights = ops.softmax(self.blocked(pairs, there[:, None, :]))
        y = self.inner(ops.matmul(weights, self.value(x)) + x @ _SPREAD)
        return self.outer(mean_of(y, there, lambda y: y))


_SPREAD = np.eye(WIDTH, 4, dtype="float32")
BLOCKED = {
    "where": lambda pairs, there: ops.where(there, pairs, -1e9),
    "infinite": lambda pairs, there: ops.where(there, pairs, -np.inf),
    "additive": lambda pairs, there: pairs + (1 - ops.cast(there, "float32")) * -1e9,
}


@functools.cache
def scored(how):
    model, twin = Scored(BLOCKED[how]), Scored(BLOCKED[how], THERE)
    model(X), twin(X)
    twin.set_weights(model.get_weights())
    return model, twin


@pytest.mark.parametrize("how", check.first_of(BLOCKED, 2))
@pytest.mark.parametrize("method", RULES)
def test_rules_take_a_mask_of_the_input_for_a_constant(how, method):
    model, twin = scored(how)
    result = RULES[method](model, X, 0)
    check.assert_same(result, RULES[method](twin, X, 0))
    assert not result.values[~THERE].any()


def test_masked_pooling_by_the_rules_of_the_papers():
    """`mean of relu(x w)` over what is there, by NumPy in float64."""
    x = keras.Input((STEPS, WIDTH))
    dense = layers.Dense(4, activation="relu", use_bias=False)
    last = layers.Dense(2, use_bias=False)
    model = keras.Model(x, last(layers.GlobalAveragePooling1D()(dense(layers.Masking()(x)))))
    w, v = (layer.kernel.numpy().astype(np.float64) for layer in (dense, last))
    share = THERE[..., None] / THERE.sum(1)[:, None, None] * v[:, 0]  # [n, T, 4]
    z, r = X.astype(np.float64) @ w, np.full_like(X, 0.1, np.float64) @ w
    slope = (np.maximum(z, 0) - np.maximum(r, 0)) / (z - r)
    expected = (share * slope) @ w.T * (X - 0.1)
    values = kx.DeepLIFT(baseline=0.1)(model, X, 0).values
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_allclose(
        kx.LRP(rules="epsilon")(model, X, 0).values, (share * (z > 0)) @ w.T * X, atol=1e-5
    )


# Masks that are an input of their own

ATTENTION = {
    "multi-head": lambda x, m: layers.MultiHeadAttention(2, 2)(x, x, attention_mask=m[:, None, :]),
    "causal": lambda x, m: layers.MultiHeadAttention(2, 2)(
        x, x, attention_mask=ops.cast(m, "bool")[:, None, :], use_causal_mask=True
    ),
    "grouped": lambda x, m: layers.GroupQueryAttention(2, 2, 1)(
        x, x, attention_mask=ops.cast(m, "bool")[:, None, :]
    ),
    "additive": lambda x, m: ops.matmul(
        ops.softmax(
            ops.matmul(x, ops.transpose(x, (0, 2, 1)))
            + ((1 - ops.cast(m, "float32")) * -1e9)[:, None, :]
        ),
        layers.Dense(3)(x),
    ),
}


@pytest.mark.parametrize("kind", check.first_of(ATTENTION, 1))
def test_an_input_of_integers_that_masks_has_no_share(kind):
    x, m = keras.Input((STEPS, WIDTH)), keras.Input((STEPS,), dtype="int32")
    y = layers.LayerNormalization()(x + ATTENTION[kind](x, m))
    there = ops.cast(m, "float32")[..., None]
    mean = ops.sum(y * there, 1) / ops.sum(there, 1)
    model = keras.Model([x, m], layers.Dense(2)(mean))
    mask = THERE.astype("int32")
    explainers = [
        (kx.DeepLIFT(baseline=0.1), kx.DeepLIFT(baseline=[0.1, mask])),
        (kx.LRP(), kx.LRP()),
        (kx.IntegratedGradients(steps=4), kx.IntegratedGradients(steps=4, baseline=[0.0, mask])),
    ]
    for explainer, named in explainers:
        result = explainer(model, [X, mask], 0)
        check.assert_same(result, named(model, [X, mask], 0))
        assert result.values[0].any()
        assert not result.values[1].any()
        assert not result.values[0][~THERE].any()
    delta = kx.DeepLIFT(baseline=0.1)(model, [X, mask], 0).extras["convergence_delta"]
    np.testing.assert_allclose(delta, 0, atol=1e-5)


def test_integers_that_are_decided_by_in_part_have_shares():
    """A table with a column of categories."""
    x = keras.Input((4,), dtype="int32")
    kind = ops.one_hot(ops.cast(x[:, 0], "int32"), 3)
    rest = layers.Dense(3)(ops.cast(x[:, 1:], "float32"))
    model = keras.Model(x, layers.Dense(2)(kind + rest))
    table = np.random.default_rng(0).integers(0, 3, (4, 4))
    result = kx.IntegratedGradients(steps=2, baseline=-1.0)(model, table, 0)
    assert not result.values[:, 0].any()
    assert result.values[:, 1:].all()
    np.testing.assert_allclose(result.extras["convergence_delta"], 0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer 'flatten")
def test_relevance_stays_where_a_mask_lets_nothing_through():
    """A flat rule shares out among all entries, also those that the mask has set to zero."""
    x = keras.Input((STEPS, WIDTH))
    model = models.made(x, layers.Dense(2)(layers.Flatten()(layers.Masking()(x))))
    values = kx.LRP(rules=[("first", kx.rules.Flat())])(model, X, 0).values
    assert values[THERE].all()
    assert not values[~THERE].any()
