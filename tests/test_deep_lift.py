"""DeepLIFT and DeepSHAP against the paper's rules in float64, known values and their axioms."""

import functools
import itertools
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.graph.computation import Computation
from tests import check, naive
from tests import naive_rules as nr

CLASSES = np.array([0, 2, 1])
STACKS = {
    "dense relu": (
        (6,),
        lambda: [layers.Dense(8, activation="relu"), layers.ReLU(), layers.Dense(3)],
    ),
    "dense tanh": (
        (6,),
        lambda: [layers.Dense(8, activation="tanh"), layers.Dense(5, activation="gelu")],
    ),
    "picture": (
        (6, 5, 2),
        lambda: [
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(max_value=6.0),
            layers.MaxPooling2D(2, strides=1),
            layers.DepthwiseConv2D(2, activation="silu"),
            layers.Conv2D(3, 2, activation="elu"),
            layers.GlobalAveragePooling2D(),
        ],
    ),
    "series": (
        (9, 2),
        lambda: [
            layers.Conv1D(4, 3, strides=2, activation="elu"),
            layers.LayerNormalization(),
            layers.GlobalMaxPooling1D(),
            layers.Dense(4, activation="softmax"),
        ],
    ),
}


@functools.cache
def stack(name):
    """A model, the same in NumPy, an input and a reference for each row."""
    shape, make = STACKS[name]
    head = layers.Dense(3, activation="softmax", name="scores")
    model = nr.with_weights(keras.Sequential([keras.Input(shape), *make(), head]))
    return model, nr.Graph(model), naive.inputs(shape), naive.inputs(shape, seed=9)


def total(values):
    return nr.flat(values).sum(axis=1)


def assert_complete(values, change, names):
    """Each input's values sum to what its branch changes the score by."""
    for name, value, wanted in zip(names, values, change, strict=True):
        limit = 1e-3 * max(np.abs(wanted).max(), np.abs(nr.flat(value)).sum(axis=1).max())
        np.testing.assert_allclose(total(value), wanted, rtol=0, atol=limit, err_msg=name)


def compare(values, expected, names, tolerance=1e-4):
    for name, value, wanted in zip(names, values, expected, strict=True):
        try:
            naive.close(value, wanted, tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


# The naive formulas themselves


@pytest.mark.parametrize("group", nr.KINDS)
@pytest.mark.parametrize("rule", [nr.deep_lift, nr.reveal_cancel])
def test_the_naive_rules_are_complete(group, rule):
    found, graph, start = nr.case(group)
    change = graph.score(found.x, CLASSES) - graph.score(start, CLASSES)
    np.testing.assert_allclose(sum(map(total, rule(graph, found.x, start, CLASSES))), change)


@pytest.mark.parametrize("name", STACKS)
def test_the_naive_gradient_is_the_slope_of_the_naive_score(name):
    model, graph, x, _ = stack(name)
    slope = naive.central_differences(lambda v: graph.score(v, CLASSES), x)
    naive.close(nr.gradient(graph, x, CLASSES), slope, 1e-6)
    scores = ops.convert_to_numpy(model(x))
    naive.close(scores, naive.softmax(graph.scores(x)))


# Rescale


@pytest.mark.parametrize("name", STACKS)
def test_it_is_the_rescale_rule(name):
    model, graph, x, start = stack(name)
    explanation = kx.DeepLIFT(baseline=start)(model, x, CLASSES)
    naive.close(explanation.values, nr.deep_lift(graph, x, start, CLASSES), 1e-4)
    naive.close(explanation.scores, graph.score(x, CLASSES))
    naive.close(explanation.extras["base_values"], graph.score(start, CLASSES))
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-4
    assert explanation.values.dtype == np.float32


def changes(found, start, target):
    """What each branch adds to the score's change."""
    pairs = zip(
        found.contributions(found.x, target), found.contributions(start, target), strict=True
    )
    return [a - b for a, b in pairs]


@pytest.mark.parametrize("group", nr.KINDS)
def test_every_kind_of_layer_is_its_rule_and_complete(group):
    """From zero, too, where many entries share a maximum."""
    found, graph, start = nr.case(group)
    explanation = kx.DeepLIFT(baseline=start)(found.model, found.x, 1)
    compare(explanation.values, nr.deep_lift(graph, found.x, start, 1), nr.KINDS[group])
    assert_complete(explanation.values, changes(found, start, 1), nr.KINDS[group])
    start = [0 * x for x in start]
    explanation = kx.DeepLIFT(baseline=start)(found.model, found.x, 1)
    assert_complete(explanation.values, changes(found, start, 1), nr.KINDS[group])
    naive.close(explanation.extras["base_values"], graph.score(start, 1))


class Attending(layers.Layer):
    """Divisions, powers and roots by raw operations."""

    def call(self, x):
        e = ops.exp(x - ops.max(x, axis=-1, keepdims=True))
        share = e / ops.sum(e, axis=-1, keepdims=True)
        return share * ops.sqrt(1 + ops.square(x)) / (1 + ops.abs(x))


def transformer(x):
    h = layers.LayerNormalization()(x)
    h = x + layers.MultiHeadAttention(2, 3)(h, h)
    return h + layers.Dense(x.shape[-1])(layers.Dense(6, activation="gelu")(h))


def added(x):
    return layers.AdditiveAttention()([layers.Dense(4)(x), layers.Dense(4)(x)])


def distributed(x):
    return layers.TimeDistributed(layers.Dense(3, activation="relu"))(x)


HARDER = {
    "transformer": (nr.SERIES, transformer),
    "additive attention": (nr.SERIES, added),
    "time distributed": (nr.SERIES, distributed),
    "raw": (nr.ROW, lambda x: layers.Dense(4)(Attending()(layers.Dense(4)(x)))),
    "unit": (nr.SERIES, lambda x: layers.UnitNormalization()(layers.Dense(4)(x))),
    "bicubic": (nr.PICTURE, lambda x: layers.Resizing(3, 5, interpolation="bicubic")(x)),
    "log softmax": (nr.ROW, lambda x: ops.log_softmax(layers.Dense(5)(x))),
    "logsumexp": (nr.SERIES, lambda x: ops.logsumexp(layers.Dense(5)(x), axis=-1)),
    "min of axes": (nr.SERIES, lambda x: ops.min(layers.Dense(5)(x), axis=(1, 2), keepdims=True)),
    "variance": (nr.SERIES, lambda x: ops.var(layers.Dense(5)(x), axis=1)),
    "shared gelu": (nr.ROW, lambda x: shared_activation(layers.Activation("gelu"), x)),
    "lambda": (nr.ROW, lambda x: layers.Lambda(lambda v: v * ops.sin(v))(layers.Dense(4)(x))),
}


def shared_activation(same, x):
    return same(layers.Dense(4)(same(layers.Dense(4)(x))))


@functools.cache
def harder():
    found = nr.branches(HARDER)
    rows = [np.roll(x, 1, axis=0) for x in found.x]
    return found, [rows, [0 * x for x in rows], [0.9 * x + 0.2 for x in found.x]]


def test_it_is_complete_on_what_has_no_naive_formula():
    found, starts = harder()
    for start in starts:
        explanation = kx.DeepLIFT(baseline=start)(found.model, found.x, 1)
        assert_complete(explanation.values, changes(found, start, 1), HARDER)


def model_of(fn, features):
    """A model without weights: `fn` of a symbolic `[B, features]`."""
    x = keras.Input((features,))
    return keras.Model(x, fn(x))


def test_the_papers_saturation():
    """Figure 1: 1 - relu(1 - i1 - i2) at (1, 1), where the gradient is zero: a half each."""
    model = model_of(lambda x: 1 - ops.relu(1 - x[:, :1] - x[:, 1:]), 2)
    x = np.array([[1.0, 1.0], [2.0, 1.0]], "float32")
    naive.close(kx.DeepLIFT()(model, x).values, [[1 / 2, 1 / 2], [2 / 3, 1 / 3]])


def test_the_papers_step():
    """Figure 2: relu(x - 10) has no jump in its contributions."""
    model = model_of(lambda x: ops.relu(x - 10), 1)
    x = np.array([[10.01], [11.0], [9.9]], "float32")
    with pytest.warns(UserWarning, match="zero everywhere"):
        values = kx.DeepLIFT()(model, x).values
    np.testing.assert_allclose(values, [[0.01], [1.0], [0.0]], atol=1e-6)


def test_a_product_is_shared_by_the_mean_of_the_other_factor():
    model = model_of(lambda x: x[:, :1] * x[:, 1:], 2)
    x, start = np.array([[3.0, 5.0]], "float32"), np.array([[1.0, -1.0]], "float32")
    values = kx.DeepLIFT(baseline=start)(model, x).values
    naive.close(values, [[(3 - 1) * (5 - 1) / 2, (5 + 1) * (3 + 1) / 2]])


def test_a_division_is_a_product_with_the_inverse():
    model = model_of(lambda x: x[:, :1] / x[:, 1:], 2)
    x, start = np.array([[3.0, 2.0]], "float32"), np.array([[1.0, 4.0]], "float32")
    values = kx.DeepLIFT(baseline=start)(model, x).values
    naive.close(values, [[2 * (1 / 2 + 1 / 4) / 2, (1 / 2 - 1 / 4) * (3 + 1) / 2]])
    values = kx.DeepLIFT(baseline=start)(model_of(lambda x: 6.0 / x[:, :1], 2), x).values
    naive.close(values, [[6 / 3 - 6 / 1, 0]])


def test_a_maximum_goes_to_who_made_it_rise_or_fall():
    model = model_of(lambda x: ops.max(x, axis=-1, keepdims=True), 3)
    x = np.array([[5.0, 1.0, 0.0], [0.5, 1.0, 0.0]], "float32")
    start = np.array([[0.0, 2.0, 0.0], [0.0, 2.0, 0.0]], "float32")
    values = kx.DeepLIFT(baseline=start)(model, x).values
    naive.close(values, [[3.0, 0, 0], [0, -1.0, 0]])


@pytest.mark.filterwarnings("ignore:DeepLIFT is below float precision for some")
def test_the_slope_where_nothing_changes_is_the_derivative():
    """One unit stays where it is; the other's multiplier does not suffer."""
    model, graph, x, start = stack("dense tanh")
    start = start.copy()
    start[0] = x[0] * (1 + 1e-7)
    start[1, :5] = x[1, :5]
    explanation = kx.DeepLIFT(baseline=start)(model, x, CLASSES)
    assert np.isfinite(explanation.values).all()
    change = graph.score(x, CLASSES) - graph.score(start, CLASSES)
    np.testing.assert_allclose(total(explanation.values), change, atol=1e-5)
    assert (explanation.values[1, :5] == 0).all()


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("name", STACKS)
def test_at_the_reference_nothing_is_attributed(name, rule):
    model, graph, x, _ = stack(name)
    with pytest.warns(UserWarning, match="DeepLIFT is zero everywhere for all"):
        explanation = kx.DeepLIFT(baseline=x, rule=rule)(model, x, CLASSES)
    assert not explanation.values.any()
    naive.close(explanation.extras["base_values"], graph.score(x, CLASSES))
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-6


# Reveal-cancel


@pytest.mark.parametrize("name", STACKS)
def test_it_is_the_reveal_cancel_rule(name):
    model, graph, x, start = stack(name)
    explanation = kx.DeepLIFT(baseline=start, rule="reveal_cancel")(model, x, CLASSES)
    naive.close(explanation.values, nr.reveal_cancel(graph, x, start, CLASSES), 1e-4)
    rescale = kx.DeepLIFT(baseline=start)(model, x, CLASSES).values
    assert np.abs(explanation.values - rescale).max() > 1e-3 * np.abs(rescale).max()


MIXED = (
    *("multiply", "subtract", "maximum", "concatenate", "gate", "twice", "unmerged"),
    *("max2d", "average2d", "padding1d", "softmax", "hard_silu", "layer"),
)


def test_reveal_cancel_is_complete_whatever_is_between():
    every = {name: kind for group in nr.KINDS.values() for name, kind in group.items()}
    found = nr.branches({name: every[name] for name in MIXED})
    start = [0.5 * np.roll(x, 1, axis=0) + 0.1 for x in found.x]
    explanation = kx.DeepLIFT(baseline=start, rule="reveal_cancel")(found.model, found.x, 1)
    assert_complete(explanation.values, changes(found, start, 1), MIXED)
    expected = nr.reveal_cancel(nr.Graph(found.model), found.x, start, 1)
    compare(explanation.values, expected, MIXED)


def residual():
    x = keras.Input((5, 4, 2))
    h = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    short = layers.Conv2D(3, 1)(h)
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(h))
    h = layers.ReLU()(layers.Add()([short, h]))
    h = layers.Activation("tanh")(layers.Reshape((60,))(layers.Conv2D(3, 1)(h)))
    return keras.Model(x, layers.Dense(3)(h))


def test_parts_are_kept_through_sums_and_reshapes():
    model = nr.with_weights(residual())
    x, start = naive.inputs((5, 4, 2)), naive.inputs((5, 4, 2), seed=9)
    values = kx.DeepLIFT(baseline=start, rule="reveal_cancel")(model, x, CLASSES).values
    naive.close(values, nr.reveal_cancel(nr.Graph(model), x, start, CLASSES), 1e-4)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("rescale", [[0.0, 3.0], [4.0, 0.0]]),  # for i1 > i2 the one, else the other
        ("reveal_cancel", [[1.5, 1.5], [2.0, 2.0]]),
    ],
)
def test_the_papers_minimum(rule, expected):
    """Figure 3: min(i1, i2) = i1 - relu(i1 - i2): shared alike only where cancelling shows."""
    x_in = keras.Input((2,))
    h = layers.Dense(2, name="first", activation="relu")(x_in)
    model = keras.Model(x_in, layers.Dense(1, name="second")(h))
    model.set_weights(
        [
            np.array([[1.0, 1.0], [0.0, -1.0]], "float32"),
            np.zeros(2, "float32"),
            np.array([[1.0], [-1.0]], "float32"),
            np.zeros(1, "float32"),
        ]
    )
    x = np.array([[7.0, 3.0], [4.0, 9.0]], "float32")
    naive.close(kx.DeepLIFT(rule=rule)(model, x).values, expected)


# The other axioms


def test_a_part_that_hardly_changes_has_the_slope_of_both_ends():
    """Before the other part and after it, as for parts that can be told from rounding."""
    model = model_of(lambda x: ops.tanh(x[:, :1] + x[:, 1:]), 2)
    x, start = np.array([[0.500001, 0.5]], "float32"), np.array([[0.5, 1.5]], "float32")
    values = kx.DeepLIFT(baseline=start, rule="reveal_cancel")(model, x).values
    slopes = 1 - np.tanh([x.sum(), start.sum()]) ** 2
    naive.close(values[0, 0] / (x - start)[0, 0], slopes.mean())


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_symmetric_features_get_the_same(rule):
    model, _, x, _ = stack("dense relu")
    weights = model.get_weights()
    twin = keras.models.clone_model(model)
    weights[0][2] = weights[0][0]
    twin.set_weights(weights)
    x = x.copy()
    x[:, 2] = x[:, 0]
    values = kx.DeepLIFT(rule=rule)(twin, x, 1).values
    naive.close(values[:, 2], values[:, 0], 1e-5)
    assert np.abs(values[:, 1] - values[:, 0]).min() > 1e-5


def test_a_linear_model_is_its_weights_times_the_change():
    model = nr.with_weights(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    x = naive.inputs((4,))
    for rule in ("rescale", "reveal_cancel"):
        explanation = kx.DeepLIFT(rule=rule, baseline=0.25)(model, x, 2)
        naive.close(explanation.values, (x - 0.25) * model.get_weights()[0][:, 2], 1e-5)


def test_a_reference_for_each_row_is_that_of_the_row_alone():
    model, _, x, start = stack("picture")
    together = kx.DeepLIFT(baseline=start)(model, x, 1).values
    for i in range(3):
        alone = kx.DeepLIFT(baseline=start[i])(model, x[i : i + 1], 1)
        naive.close(alone.values, together[i : i + 1], 1e-5)


class Folding(layers.Layer):
    """Makes a row of each time step, and back."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4, "tanh")

    def call(self, x):
        steps, channels = x.shape[1:]
        return ops.reshape(self.dense(ops.reshape(x, (-1, channels))), (-1, steps, 4))


def test_one_reference_serves_a_model_that_makes_rows_of_time_steps():
    given = keras.Input((3, 2))
    head = layers.Dense(3)
    folded = keras.Model(given, head(layers.Flatten()(Folding()(given))))
    naive.randomize(folded)
    dense = folded.layers[1].dense
    plain = keras.Model(given, head(layers.Flatten()(dense(given))))
    x, start = naive.inputs((3, 2)), naive.inputs((3, 2), rows=1, seed=1)
    values = kx.DeepLIFT(baseline=start)(folded, x, 1).values
    naive.close(values, kx.DeepLIFT(baseline=start)(plain, x, 1).values)


def test_a_number_that_stays_at_zero_has_no_share():
    """Neither changes nor has a size: 0 / 0."""
    model = model_of(lambda x: ops.sum(ops.tanh(x), axis=-1, keepdims=True), 2)
    values = kx.DeepLIFT()(model, np.array([[0.0, 0.5]], "float32")).values
    naive.close(values, [[0.0, np.tanh(0.5)]])


@pytest.mark.parametrize(
    "baseline", [0.3, kx.baselines.Mean(naive.inputs((6, 5, 2), 5, seed=3)), kx.baselines.Blur(1.0)]
)
def test_baselines_are_those_of_integrated_gradients(baseline):
    model, _, x, _ = stack("picture")
    explanation = kx.DeepLIFT(baseline=baseline)(model, x, 1)
    other = kx.IntegratedGradients(baseline=baseline, steps=2)(model, x, 1)
    naive.close(explanation.extras["base_values"], other.extras["base_values"], 1e-5)
    change = explanation.scores - explanation.extras["base_values"]
    np.testing.assert_allclose(total(explanation.values), change, atol=1e-4)


def test_several_classes_and_the_prediction():
    model, graph, x, start = stack("dense tanh")
    many = np.array([[0, 1], [2, 2], [1, 0]])
    values = kx.DeepLIFT(baseline=start)(model, x, many).values
    for k in range(2):
        naive.close(values[:, k], nr.deep_lift(graph, x, start, many[:, k]), 1e-4)
    predicted = graph.scores(x).argmax(axis=1)
    naive.close(
        kx.DeepLIFT(baseline=start)(model, x).values,
        nr.deep_lift(graph, x, start, predicted),
        1e-4,
    )


def test_a_probability_is_complete_too():
    model, graph, x, start = stack("dense tanh")
    explanation = kx.DeepLIFT(baseline=start)(model, x, kx.targets.Class(2, of="probability"))
    p, q = (naive.softmax(graph.scores(v))[:, 2] for v in (x, start))
    naive.close(explanation.extras["base_values"], q)
    naive.close(total(explanation.values), p - q, 1e-4)


@pytest.mark.parametrize("of", ["dense", "conv2d"])
def test_at_a_layer_the_change_is_that_layers(of):
    name = {"dense": "dense tanh", "conv2d": "picture"}[of]
    model, graph, x, start = stack(name)
    layer = model.layers[0 if of == "dense" else 2].name
    explanation = kx.DeepLIFT(baseline=start, layer=layer)(model, x, CLASSES)
    expected = nr.deep_lift(graph, x, start, CLASSES, layer)
    naive.close(explanation.values, expected, 1e-4)
    change = graph.score(x, CLASSES) - graph.score(start, CLASSES)
    naive.close(total(explanation.values), change, 1e-4)


def test_tokens_change_by_their_embeddings():
    stack_ = [
        layers.Embedding(9, 4),
        layers.Conv1D(5, 2, activation="relu"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ]
    model = nr.with_weights(keras.Sequential([keras.Input((6,), dtype="int32"), *stack_]))
    ids = np.random.default_rng(0).integers(1, 9, (3, 6))
    table = model.layers[0].get_weights()[0]
    inner = nr.Graph(keras.Sequential([keras.Input((6, 4)), *model.layers[1:]]))
    start = np.broadcast_to(table[2], (3, 6, 4))
    expected = nr.deep_lift(inner, table[ids], start, CLASSES).sum(axis=-1)
    explanation = kx.DeepLIFT(baseline=2)(model, ids, CLASSES)
    naive.close(explanation.values, expected, 1e-4)


class Raw(keras.Model):
    """A shared activation and raw operations in a call."""

    def __init__(self):
        super().__init__()
        self.a, self.b = layers.Dense(4), layers.Dense(4)
        self.act, self.head = layers.Activation("tanh"), layers.Dense(3)

    def call(self, x):
        h = self.act(self.a(x))
        h = self.act(self.b(ops.relu(h)) + h)
        return ops.softmax(self.head(h * ops.sigmoid(self.a(x))))


def test_raw_operations_and_a_shared_activation_in_a_call():
    model, x, start = Raw(), naive.inputs((5,)), naive.inputs((5,), seed=9)
    model(x)
    nr.with_weights(model)
    given = keras.Input((5,))
    z = model.a(given)
    h = layers.Activation("tanh")(z)
    h = layers.Activation("tanh")(layers.Add()([model.b(layers.ReLU()(h)), h]))
    h = layers.Multiply()([h, layers.Activation("sigmoid")(z)])
    graph = nr.Graph(keras.Model(given, model.head(h)))
    values = kx.DeepLIFT(baseline=start)(model, x, CLASSES).values
    naive.close(values, nr.deep_lift(graph, x, start, CLASSES), 1e-4)


@pytest.fixture(scope="module")
def perceptron():
    """A model to change the weights of."""
    stack_ = [
        layers.Dense(6, activation="relu"),
        layers.Dense(4, activation="silu"),
        layers.Dense(3),
    ]
    return keras.Sequential([keras.Input((4,)), *stack_])


@naive.few
@given(seed=st.integers(0, 2**16), start=st.floats(-3, 3), target=st.integers(0, 2))
def test_the_rule_holds_for_any_weights_inputs_and_reference(perceptron, seed, start, target):
    model, x = nr.with_weights(perceptron, seed), naive.inputs((4,), seed=seed)
    rows = np.full((3, 4), start, "float32")
    explanation = kx.DeepLIFT(baseline=rows)(model, x, target)
    naive.close(explanation.values, nr.deep_lift(nr.Graph(model), x, rows, target), 1e-3)


# DeepSHAP


@pytest.mark.parametrize("batch_size", [None, 4], ids=["few rows", "many rows"])
@pytest.mark.parametrize("name", ["dense tanh", "picture"])
def test_deep_shap_is_the_mean_over_the_background(name, batch_size):
    """Also where there are so many rows that the references come one after the other."""
    model, graph, x, _ = stack(name)
    background = naive.inputs(x.shape[1:], rows=5, seed=4)
    explainer = kx.DeepSHAP(background=background)
    explanation = explainer(model, x, CLASSES, batch_size=batch_size)
    each = [nr.deep_lift(graph, x, np.broadcast_to(row, x.shape), CLASSES) for row in background]
    naive.close(explanation.values, np.mean(each, axis=0), 1e-4)
    base = graph.scores(background).mean(axis=0)[CLASSES]
    naive.close(explanation.extras["base_values"], base)
    change = graph.score(x, CLASSES) - base
    naive.close(total(explanation.values), change, 1e-4)
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-4


class Counted(layers.Layer):
    """Notes how many rows each run of it has."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, x):
        tf.py_function(lambda n: self.rows.append(int(n)), [tf.shape(x)[0]], [])
        return x


def test_many_rows_are_run_once_for_all_references():
    """One more run is for their own scores; each reference is one row."""
    counted = Counted()
    model = naive.perceptron()
    inputs = keras.Input((5,))
    counting = keras.Model(inputs, model(counted(inputs)))
    x, background = naive.inputs((5,), rows=256), naive.inputs((5,), rows=7, seed=3)
    explainer = kx.DeepSHAP(background=background)
    values = explainer(counting, x, 1).values
    assert sorted(counted.rows) == [1] * 7 + [256] * 2
    few = explainer(model, x[:255], 1).values
    naive.close(values[:255], few, 1e-5)


@pytest.mark.filterwarnings("ignore:The inside of layer 'lstm")
@pytest.mark.parametrize("name", check.first_of(["attention", "lstm"], 1))
def test_references_one_after_the_other(name):
    """In a loop of the graph, as beside each other."""
    inputs = keras.Input((6, 4))
    h = (
        layers.LSTM(5)(inputs)
        if name == "lstm"
        else layers.MultiHeadAttention(2, 4)(inputs, inputs)
    )
    h = layers.Flatten()(layers.Dense(4, activation="gelu")(h))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(h))
    x, background = naive.inputs((6, 4), rows=16), naive.inputs((6, 4), rows=4, seed=3)
    explainer = kx.DeepSHAP(background=background)
    loop, beside = explainer(model, x, 1), explainer(model, x[:15], 1)
    naive.close(loop.values[:15], beside.values, 1e-5)
    naive.close(loop.extras["base_values"][:15], beside.extras["base_values"], 1e-5)


def test_deep_shap_is_linear_in_the_background():
    model, _, x, _ = stack("dense relu")
    one, two = naive.inputs((6,), rows=2, seed=1), naive.inputs((6,), rows=6, seed=2)
    both = kx.DeepSHAP(background=np.concatenate([one, two]))(model, x, 1)
    apart = [kx.DeepSHAP(background=rows)(model, x, 1) for rows in (one, two)]
    naive.close(both.values, 0.25 * apart[0].values + 0.75 * apart[1].values, 1e-5)
    bases = [e.extras["base_values"] for e in apart]
    naive.close(both.extras["base_values"], 0.25 * bases[0] + 0.75 * bases[1], 1e-5)


def test_deep_shap_from_one_row_is_deep_lift():
    model, _, x, start = stack("picture")
    shap = kx.DeepSHAP(background=start[:1])(model, x, 1)
    lift = kx.DeepLIFT(baseline=start[0])(model, x, 1)
    naive.close(shap.values, lift.values, 1e-6)


def test_deep_shap_is_exact_shapley_values_where_features_enter_apart():
    """sum_i relu(w_i x_i + b_i): the order in which features are known does not matter."""
    x_in = keras.Input((4,))
    h = layers.PReLU()(layers.Rescaling(-1.5, offset=0.4)(x_in))
    model = keras.Model(x_in, layers.Dense(2)(h))
    nr.with_weights(model)
    graph, x, background = nr.Graph(model), naive.inputs((4,)), naive.inputs((4,), 5, seed=4)

    def worth(known):
        """The mean score with some features of x and the rest of the background."""
        mask = np.isin(np.arange(4), known)
        rows = np.where(mask, x[:, None], background[None]).reshape(-1, 4)
        return graph.score(rows, 1).reshape(3, 5).mean(axis=1)

    expected = np.zeros((3, 4))
    for order in itertools.permutations(range(4)):
        for k, i in enumerate(order):
            gain = worth(order[: k + 1]) - worth(order[:k])
            expected[:, i] += gain / math.factorial(4)
    naive.close(kx.DeepSHAP(background=background)(model, x, 1).values, expected, 1e-4)


def test_deep_shap_of_several_inputs():
    group = dict(list(nr.JOINING.items())[:2])
    found = nr.branches(group)
    background = [naive.inputs(shape, 4, seed=5) for shape, _ in group.values()]
    values = kx.DeepSHAP(background=background)(found.model, found.x, 1).values
    graph = nr.Graph(found.model)
    each = [
        nr.deep_lift(
            graph,
            found.x,
            [np.broadcast_to(b[i], x.shape) for b, x in zip(background, found.x, strict=True)],
            1,
        )
        for i in range(4)
    ]
    compare(values, [np.mean(rows, axis=0) for rows in zip(*each, strict=True)], group)


# Errors


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match=r"rescale.*reveal_cancel.*Received"):
        kx.DeepLIFT(rule="reveal")


@pytest.mark.parametrize(
    "background", [np.zeros((0, 6)), np.zeros((3, 5)), np.full((2, 6), np.nan)]
)
def test_a_background_that_does_not_fit(background):
    model, _, x, _ = stack("dense relu")
    with pytest.raises(ValueError, match="background"):
        kx.DeepSHAP(background=background)(model, x, 1)


class Sorting(layers.Layer):
    def call(self, x):
        return ops.sort(x, axis=-1)


class Cumulating(layers.Layer):
    def call(self, x):
        return ops.cumprod(x, axis=-1)


@pytest.mark.parametrize("cls", [Sorting, Cumulating])
def test_an_operation_without_a_rule_is_named(cls):
    stack_ = [layers.Dense(4), cls(name="odd"), layers.Dense(3)]
    model = nr.with_weights(keras.Sequential([keras.Input((5,)), *stack_]))
    x = naive.inputs((5,))
    with pytest.raises(ValueError, match=rf"'odd'.*{cls.__name__}") as caught:
        kx.DeepLIFT()(model, x, 1)
    assert f'opaque=("{cls.__name__}",)' in str(caught.value)
    gradient = kx.InputXGradient()(model, x, 1).values  # all else is linear, from zero
    with warnings.catch_warnings(action="ignore"):
        for opaque in ((cls.__name__,), cls, "od*"):
            naive.close(kx.DeepLIFT(opaque=opaque)(model, x, 1).values, gradient)
        shap = kx.DeepSHAP(background=0 * x[:1], opaque=(cls,))
        naive.close(shap(model, x, 1).values, gradient)


def test_a_recurrent_layer_is_one_step_with_a_warning():
    stack_ = [layers.LSTM(4), layers.Dense(3)]
    model = nr.with_weights(keras.Sequential([keras.Input((4, 3)), *stack_]))
    x = naive.inputs((4, 3))
    with pytest.warns(UserWarning, match="one opaque step"):
        values = kx.DeepLIFT()(model, x, 1).values
    naive.close(values, kx.InputXGradient()(model, x, 1).values, 1e-5)
    with warnings.catch_warnings(action="error"):  # what is said once for a model is enough
        kx.DeepLIFT()(model, x, 1)


# Before a layer that is one step


def opaque_stack():
    return [
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2, strides=1),
        layers.Conv2D(3, 2, activation="tanh", name="odd_conv"),
        layers.Flatten(),
        layers.Dense(5, activation="gelu", name="odd_dense"),
        layers.Dense(4, activation="elu", name="odd_too"),
        layers.Dense(3, activation="softmax"),
    ]


@pytest.mark.parametrize(
    ("rule", "formula"), [("rescale", nr.deep_lift), ("reveal_cancel", nr.reveal_cancel)]
)
def test_before_a_layer_that_is_one_step_the_rules_go_on(rule, formula):
    model = nr.with_weights(keras.Sequential([keras.Input((6, 5, 2)), *opaque_stack()]))
    graph = nr.Graph(model, opaque=("odd_conv", "odd_dense", "odd_too"))
    x, start = naive.inputs((6, 5, 2)), naive.inputs((6, 5, 2), seed=9)
    with warnings.catch_warnings(action="error"):  # it was asked for
        values = kx.DeepLIFT(baseline=start, rule=rule, opaque="odd_*")(model, x, CLASSES).values
    naive.close(values, formula(graph, x, start, CLASSES), 1e-4)
    values = kx.DeepLIFT(baseline=0.2, rule=rule, opaque="odd_*")(model, x, CLASSES).values
    naive.close(values, formula(graph, x, 0 * x + 0.2, CLASSES), 1e-4)


def by_the_heads_gradient(given, features, head, x, start):
    """(gradient of the head's class 1 at the features of x) . (their change), `[B]`."""
    found = keras.Model(given, features)
    h, h0 = (keras.tree.flatten(found(v)) for v in (x, start))
    with tf.GradientTape() as tape:
        tape.watch(h)
        score = head(*h)[:, 1]
    slopes = tape.gradient(score, h)
    return sum(total(g * (a - b)) for g, a, b in zip(slopes, h, h0, strict=True))


def series_cnn(recurrent):
    given = keras.Input((12, 2))
    h = layers.Conv1D(4, 3, activation="relu")(given)
    h = layers.MaxPooling1D(2)(layers.BatchNormalization()(h))
    return given, [h], lambda h: recurrent(h)


def video_cnn():
    given = keras.Input((3, 5, 4, 2))
    h = layers.TimeDistributed(layers.Conv2D(3, 2, activation="relu"))(given)
    recurrent, flatten = layers.ConvLSTM2D(2, 2), layers.Flatten()
    return given, [h], lambda h: flatten(recurrent(h))


def states():
    """A layer of three inputs and three outputs, of which one goes nowhere."""
    given = keras.Input((4, 2))
    h = layers.Dense(3, activation="relu")(given)
    s = layers.Dense(3, activation="elu")(layers.Flatten()(given))
    recurrent = layers.LSTM(3, return_sequences=True, return_state=True)
    flatten, join = layers.Flatten(), layers.Concatenate()

    def head(h, s):
        sequence, _, state = recurrent(h, initial_state=[s, s])
        return join([flatten(sequence), state])

    return given, [h, s], head


RECURRENT = {
    "lstm": lambda: series_cnn(layers.LSTM(4)),
    "gru": lambda: series_cnn(layers.GRU(4)),
    "bidirectional": lambda: series_cnn(layers.Bidirectional(layers.SimpleRNN(3))),
    "convolutional": video_cnn,
    "states": states,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "gru" else pytest.mark.slow) for n in RECURRENT],
)
@pytest.mark.filterwarnings("ignore:The inside of layer")
def test_before_a_recurrent_layer_the_change_of_its_input_is_shared_out(name):
    given, features, recurrent = RECURRENT[name]()
    scores = layers.Dense(3)
    model = nr.with_weights(keras.Model(given, scores(recurrent(*features))))
    x, start = (naive.inputs(given.shape[1:], seed=seed) for seed in (0, 9))

    def wanted(start):
        return by_the_heads_gradient(given, features, lambda *h: scores(recurrent(*h)), x, start)

    for baseline, rows in ((start, start), (0.0, 0 * x)):
        values = kx.DeepLIFT(baseline=baseline)(model, x, 1).values
        naive.close(total(values), wanted(rows), 1e-4)
    if name == "gru":
        values = kx.DeepLIFT(baseline=start, rule="reveal_cancel")(model, x, 1).values
        naive.close(total(values), wanted(start), 1e-4)
        each = [wanted(np.broadcast_to(row, x.shape)) for row in start]
        values = kx.DeepSHAP(background=start)(model, x, 1).values
        naive.close(total(values), np.mean(each, axis=0), 1e-4)


ROWS = {
    "inside": (nr.SERIES, lambda x: out_of_rows(layers.Activation("tanh")(into_rows(x)))),
    "distributed": (nr.SERIES, nr.odd(lambda dense, h: distributed_by(dense)(h))),
    "side by side": (nr.ROW, lambda x: side_by_side(layers.Dense(4)(x))),
}


def into_rows(x):
    return nr.Odd(lambda dense, h: ops.reshape(dense(h), (-1, 4)))(layers.Dense(4, "tanh")(x))


def out_of_rows(x):
    return nr.Odd(lambda dense, h: ops.reshape(dense(h), (-1, 6, 4)))(x)


def distributed_by(dense):
    return lambda h: ops.reshape(dense(ops.reshape(h, (-1, 4))), (-1, 6, 4))


def side_by_side(x):
    """Rows beside their doubles, as the two branches of a Siamese network may be."""
    both = ops.tanh(ops.concatenate([x, 2 * x], axis=0))
    return ops.subtract(*ops.split(both, 2, axis=0))


@pytest.mark.parametrize(
    ("kinds", "many"), [(nr.ODD, True), (ROWS, False)], ids=["odd-many", "rows-one"]
)
def test_a_linear_layer_as_one_step_changes_nothing(kinds, many):
    found = nr.branches(kinds)
    start = [np.roll(x, 1, axis=0) if many else 0 * x[0] + 0.2 for x in found.x]
    values, plain = (
        kx.DeepLIFT(baseline=start, opaque=opaque)(found.model, found.x, 1).values
        for opaque in ("odd_*", ())
    )
    compare(values, plain, kinds)
    rows = [np.broadcast_to(r, x.shape) for r, x in zip(start, found.x, strict=True)]
    assert_complete(values, changes(found, rows, 1), kinds)


def test_a_point_inside_of_a_layer_that_is_one_step():
    stack_ = [layers.Dense(5, activation="tanh", name="a"), layers.Dense(4, "tanh", name="b")]
    inner, head = keras.Sequential([keras.Input((6,)), *stack_], name="enc"), layers.Dense(3)
    x_in = keras.Input((6,))
    model = nr.with_weights(keras.Model(x_in, head(inner(x_in))))
    x, start = naive.inputs((6,)), naive.inputs((6,), seed=9)
    values = kx.DeepLIFT(layer="enc/a", baseline=start, opaque="enc")(model, x, 1).values
    by_gradient = by_the_heads_gradient(
        x_in, [stack_[0](x_in)], lambda h: head(stack_[1](h)), x, start
    )
    naive.close(total(values), by_gradient, 1e-5)


def test_what_has_no_reference_is_an_error(monkeypatch):
    model, _, x, _ = stack("dense relu")
    monkeypatch.setattr(Computation, "twins", lambda self, other: {})
    with pytest.raises(RuntimeError, match="has no reference"):
        kx.DeepLIFT(baseline=0.125)(keras.models.clone_model(model), x, 1)
