"""LRP against the rules' formulas in float64, and what its composites and maps choose."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from tests import naive
from tests import naive_rules as nr

R = kx.rules
RULES = {
    "epsilon": (R.Epsilon(), nr.epsilon()),
    "epsilon_large": (R.Epsilon(epsilon=0.3), nr.epsilon(0.3)),
    "z_plus": (R.ZPlus(), nr.z_plus()),
    "alpha2_beta1": (R.AlphaBeta(), nr.alpha_beta(2, 1)),
    "alpha1_beta0": (R.AlphaBeta(alpha=1.0, beta=0.0), nr.alpha_beta(1, 0)),
    "gamma": (R.Gamma(), nr.gamma()),
    "gamma_large": (R.Gamma(gamma=2.0), nr.gamma(2.0)),
    "w_square": (R.WSquare(), nr.w_square()),
    "flat": (R.Flat(), nr.flat_rule()),
    "z_box": (R.ZBox(), nr.z_box()),
    "z_box_given": (R.ZBox(low=-4.0, high=5.0), nr.z_box(-4, 5)),
}
SOME = ("alpha2_beta1", "gamma", "flat", "z_box")
"""Rules that differ in what they take of a layer: of its weights, bias, output and input."""
MAP = [(f"{name}_*", rule) for name, (rule, _) in RULES.items()][::-1]  # the longer names first
CLASSES = np.array([0, 2, 1])
BETWEEN = [group for group in nr.KINDS if group != "weighted"]
"""Groups of what is between weighted layers."""


def naive_rules_of(model):
    """The naive rule of each layer that is named after one."""
    found = {}
    for layer in model.layers:
        fits = [name for name in RULES if layer.name.startswith(f"{name}_")]
        if fits:
            found[layer.name] = RULES[max(fits, key=len)][1]
    return found


def for_each(rules, shape, make):
    """The kinds `{rule: (shape, make(name of a layer))}` of `nr.branches`."""
    return {rule: (shape, make(f"{rule}_layer")) for rule in rules}


def compare(values, expected, names, tolerance=1e-4):
    """Several inputs' values, with the name of the one that differs."""
    for name, value, wanted in zip(names, values, expected, strict=True):
        try:
            naive.close(value, wanted, tolerance)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def chain(*stack, shape=(6,), seed=0):
    """A Sequential model with random weights, the same in NumPy, and an input."""
    model = nr.with_weights(keras.Sequential([keras.Input(shape), *stack]), seed)
    return model, nr.Graph(model), naive.inputs(shape)


def total(values):
    return nr.flat(values).sum(axis=1)


def picture_stack():
    """Convolutions, one with a BatchNormalization behind it, and dense layers."""
    return [
        layers.Conv2D(4, 3, padding="same", name="conv_a"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.MaxPooling2D(2, name="pool"),
        layers.Conv2D(5, 2, activation="relu", name="conv_b"),
        layers.Flatten(name="flatten"),
        layers.Dense(6, activation="relu", name="dense_a"),
        layers.Dense(3, activation="softmax", name="dense_b"),
    ]


@pytest.fixture(scope="module")
def picture():
    return chain(*picture_stack(), shape=(6, 5, 2), seed=11)  # of which no row is dead


# The naive formulas themselves


@pytest.mark.parametrize("group", BETWEEN)
def test_the_naive_graph_is_the_model_and_conserves_relevance(group):
    found, graph = nr.case(group)[:2]
    naive.close(graph.scores(found.x), ops.convert_to_numpy(found.model(found.x)))
    relevance = nr.lrp(graph, found.x, CLASSES)
    explained = sum(map(total, relevance.values))
    np.testing.assert_allclose(relevance.scores - explained, sum(relevance.lost.values()))


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"epsilon_large"}))
def test_the_naive_rules_conserve_relevance_without_a_bias(name):
    _, graph, x = chain(layers.Dense(5, use_bias=False, name="one"))
    relevance = nr.lrp(graph, x, 1, {"one": RULES[name][1]})
    wanted = relevance.scores
    if name in ("alpha2_beta1", "alpha1_beta0"):  # each unit here has inputs of both kinds
        assert (np.sign(x[:, :, None] * graph.nodes[-1].part.kernel) > 0).any(axis=1).all()
    naive.close(total(relevance.values), wanted, 1e-4)


# Each rule


def plain(make):
    return lambda name: lambda x: make(activation="tanh", name=name)(x)


@pytest.mark.parametrize("kind", nr.WEIGHTED)
def test_the_rules_are_their_formulas(kind):
    shape, make = nr.WEIGHTED[kind]
    rules = RULES if kind == "dense" else SOME
    found = nr.branches(for_each(rules, shape, plain(make)))
    explanation = kx.LRP(rules=MAP)(found.model, found.x, CLASSES)
    expected = nr.lrp(nr.Graph(found.model), found.x, CLASSES, naive_rules_of(found.model))
    compare(explanation.values, expected.values, rules)
    naive.close(explanation.scores, expected.scores)
    gap = expected.scores - sum(map(total, expected.values))
    np.testing.assert_allclose(
        explanation.extras["residual"], gap, atol=1e-4 * np.abs(expected.scores).max()
    )


def merged(make, after):
    def of(name):
        return lambda x: layers.ReLU()(after()(make(name=name)(x)))

    return of


def normalization():
    return layers.BatchNormalization()


def rescaling():
    return layers.Rescaling(-0.7, offset=0.4)


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("dense", normalization),
        ("conv2d", normalization),
        ("depthwise2d", normalization),
        ("conv2d transposed", normalization),
        ("separable2d", normalization),
        ("einsum", rescaling),
    ],
)
def test_what_scales_each_channel_is_merged_into_the_weights(kind, after):
    shape, make = nr.WEIGHTED[kind]
    rules = ("alpha2_beta1", "gamma")
    found = nr.branches(for_each(rules, shape, merged(make, after)), seed=1)
    graph = nr.Graph(found.model)
    names = {node.name for node in graph.nodes if getattr(node.part, "ones", None) is not None}
    assert names >= {f"{rule}_layer" for rule in rules}
    explanation = kx.LRP(rules=MAP)(found.model, found.x, CLASSES)
    expected = nr.lrp(graph, found.x, CLASSES, naive_rules_of(found.model))
    compare(explanation.values, expected.values, rules)


class Shifted(layers.Layer):
    """A learned shift: the sum less it, or it less the sum."""

    def __init__(self, first, **options):
        super().__init__(**options)
        self.first = first

    def build(self, shape):
        self.shift = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.shift - x if self.first else x - self.shift


@pytest.mark.parametrize("first", [False, True])
def test_a_learned_shift_is_the_bias_that_it_acts_as(first):
    model, _, x = chain(layers.Dense(4, name="sum"), Shifted(first), layers.Dense(3))
    twin, _, _ = chain(layers.Dense(4, name="sum"), layers.Dense(3))
    kernel, bias = model.layers[0].get_weights()
    (shift,), sign = model.layers[1].get_weights(), -1 if first else 1
    twin.layers[0].set_weights([sign * kernel, sign * (bias - shift)])
    twin.layers[1].set_weights(model.layers[2].get_weights())
    theirs, ours = RULES["alpha2_beta1"]
    values = kx.LRP(rules=[("sum", theirs)])(model, x, CLASSES).values
    naive.close(values, nr.lrp(nr.Graph(twin), x, CLASSES, {"sum": ours}).values, 1e-4)


def test_a_scale_behind_tied_weights_belongs_to_their_columns():
    """`x w^T`, whose kernel has the output's channels first."""
    model, x = Tied(), naive.inputs((6,))
    model(x)
    nr.with_weights(model)
    twin, _, _ = chain(layers.Dense(5, use_bias=False, name="sum"), layers.Dense(3))
    kernel = model.scale.numpy() * model.kernel.numpy().T
    twin.layers[0].set_weights([kernel])
    twin.layers[1].set_weights(model.head.get_weights())
    theirs, ours = RULES["gamma"]
    values = kx.LRP(rules=[("*", theirs)])(model, x, CLASSES).values
    expected = nr.lrp(nr.Graph(twin), x, CLASSES, default=ours)
    naive.close(values, expected.values, 1e-4)


class Tied(keras.Model):
    def __init__(self):
        super().__init__()
        self.kernel = self.add_weight(shape=(5, 6))
        self.scale = self.add_weight(shape=(5,))
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(tf.matmul(x, self.kernel, transpose_b=True) * self.scale)


@pytest.mark.parametrize("name", ["alpha2_beta1", "gamma"])
def test_what_is_joined_of_both_signs_is_taken_for_both_signs(name):
    """Beside what a ReLU made stands what may be negative."""
    given = keras.Input((6,))
    h = layers.Concatenate()([layers.Dense(4, "relu")(given), layers.Dense(4)(given)])
    model = nr.with_weights(keras.Model(given, layers.Dense(3, name="joined")(h)))
    x, (theirs, ours) = naive.inputs((6,)), RULES[name]
    values = kx.LRP(rules=[("joined", theirs)])(model, x, CLASSES).values
    expected = nr.lrp(nr.Graph(model), x, CLASSES, {"joined": ours})
    naive.close(values, expected.values, 1e-4)


def test_a_grouped_convolution_is_its_formula():
    stack = [layers.Conv2D(6, 2, groups=2, name="conv"), layers.Flatten(), layers.Dense(3)]
    model, graph, x = chain(*stack, shape=(4, 3, 4))
    theirs, ours = RULES["alpha2_beta1"]
    values = kx.LRP(rules=[("conv", theirs)])(model, x, CLASSES).values
    naive.close(values, nr.lrp(graph, x, CLASSES, {"conv": ours}).values, 1e-4)


def test_bounds_may_be_given_for_each_channel():
    low, high = np.array([-3.0, -5.0], "float32"), np.array([4.0, 3.5], "float32")
    stack = [layers.Conv2D(3, 2, name="conv"), layers.Flatten(), layers.Dense(3)]
    model, graph, x = chain(*stack, shape=(4, 5, 2))
    values = kx.LRP(rules=[("conv", R.ZBox(low=low, high=high))])(model, x, CLASSES).values
    expected = nr.lrp(graph, x, CLASSES, {"conv": nr.z_box(low, high)})
    naive.close(values, expected.values, 1e-4)


def test_pass_hands_relevance_on():
    model, graph, x = chain(layers.Dense(6, name="one"), layers.Dense(3))
    values = kx.LRP(rules=[("one", R.Pass())])(model, x, CLASSES).values
    expected = nr.lrp(graph, x, CLASSES, {"one": nr.pass_on()})
    naive.close(values, expected.values)
    hidden = nr.lrp(graph, x, CLASSES, layer="one").values
    naive.close(values, hidden)


def test_the_gradient_rule_takes_a_layer_as_one():
    stack = [
        layers.Dense(5, activation="tanh", name="one"),
        layers.Dense(4, activation="softplus", name="two"),
        layers.Dense(3),
    ]
    model, _, x = chain(*stack)
    values = kx.LRP(rules=[("two", R.Gradient())])(model, x, CLASSES).values
    expected = nr.lrp(nr.Graph(model, opaque=("two",)), x, CLASSES)
    naive.close(values, expected.values, 1e-4)
    assert np.abs(values - kx.LRP(rules="epsilon")(model, x, CLASSES).values).max() > 1e-3


def test_linear_layers_as_one_step_conserve_relevance():
    found = nr.branches(nr.ODD)
    nr.without_shifts(found.model)
    lrp = kx.LRP(rules=[("odd_*", R.Gradient()), ("*", R.Epsilon())])
    with warnings.catch_warnings(action="error"):  # it was asked for
        values = lrp(found.model, found.x, 1).values
    compare(map(total, values), found.contributions(found.x, 1), nr.ODD, 1e-3)


def test_the_relevance_at_a_point_inside_of_a_layer_that_is_one_step():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="a"), layers.Dense(4)])
    x_in = keras.Input((6,))
    model = nr.with_weights(keras.Model(x_in, layers.Dense(3)(inner(x_in))))
    nr.without_shifts(model)
    rules, x = [(inner.name, R.Gradient())], naive.inputs((6,))
    values, plain = (
        kx.LRP(layer=f"{inner.name}/a", rules=r)(model, x, 1).values for r in (rules, "epsilon")
    )
    naive.close(values, plain, 1e-4)


def test_a_layer_that_does_nothing_passes_relevance_on():
    model, graph, x = chain(layers.Dense(5), layers.Dropout(0.5), layers.Dense(3))
    for rule in (R.Pass(), R.Gradient()):
        values = kx.LRP(rules=[("Dropout", rule), ("*", R.Epsilon())])(model, x, CLASSES).values
        naive.close(values, nr.lrp(graph, x, CLASSES).values, 1e-4)


def test_relevance_is_not_passed_on_from_several_outputs():
    x_in = keras.Input((3, 4))
    parts = layers.LSTM(4, return_sequences=True, return_state=True, name="cell")(x_in)
    model = keras.Model(x_in, layers.Dense(3)(layers.Concatenate()(parts[1:])))
    with pytest.raises(ValueError, match=r"its one output.*'cell'"):
        kx.LRP(rules=[("cell", R.Pass())])(model, naive.inputs((3, 4)), 1)


# What is between weighted layers


@pytest.mark.parametrize("group", BETWEEN)
def test_every_kind_of_layer_is_its_formula_and_conserves_relevance_without_biases(group):
    found, graph, _ = nr.case(group)
    lrp = kx.LRP(rules="epsilon")
    explanation = lrp(found.model, found.x, CLASSES)
    compare(explanation.values, nr.lrp(graph, found.x, CLASSES).values, nr.KINDS[group])
    naive.close(explanation.scores, graph.score(found.x, CLASSES))
    weights = found.model.get_weights()
    try:
        nr.without_shifts(found.model)
        values = lrp(found.model, found.x, 1).values
        compare(map(total, values), found.contributions(found.x, 1), nr.KINDS[group], 1e-3)
    finally:
        found.model.set_weights(weights)


def test_a_batch_normalization_of_its_own_passes_relevance_on():
    model, graph, x = chain(layers.BatchNormalization(), layers.Dense(5), layers.Dense(3))
    values = kx.LRP(rules="epsilon")(model, x, CLASSES).values
    shifted = graph.values(x)[1]
    inner = nr.Graph(keras.Sequential([keras.Input((6,)), *model.layers[1:]]))
    naive.close(values, nr.lrp(inner, shifted, CLASSES).values, 1e-4)


def test_a_gate_gets_nothing_and_a_factor_gets_half():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    one, two = layers.Dense(3)(a), layers.Dense(3)(b)
    gated = keras.Model([a, b], layers.Dense(2)(one * ops.sigmoid(two)))
    hard = keras.Model([a, b], layers.Dense(2)(ops.hard_sigmoid(two) * one))
    both = keras.Model([a, b], layers.Dense(2)(one * ops.tanh(two)))
    x = [naive.inputs((4,)), naive.inputs((4,), seed=1)]
    lrp = kx.LRP(rules="epsilon")
    for model in (gated, hard, both):
        nr.without_shifts(nr.with_weights(model))
    for model in (gated, hard):
        first, second = lrp(model, x, 1).values
        assert not second.any()
        naive.close(total(first), lrp(model, x, 1).scores, 1e-4)
    halves = lrp(both, x, 1).values
    for half in halves:
        naive.close(total(half), nr.Graph(both).score(x, 1) / 2, 1e-4)


class Attending(layers.Layer):
    """Attention by raw operations: softmax(q k) v."""

    def __init__(self, **options):
        super().__init__(**options)
        self.q, self.k, self.v = (layers.Dense(4) for _ in range(3))

    def build(self, shape):
        for part in (self.q, self.k, self.v):
            part.build(shape)

    def call(self, x):
        weights = ops.matmul(self.q(x), ops.transpose(self.k(x), (0, 2, 1)))
        return ops.matmul(ops.softmax(weights / 2.0), self.v(x))


def test_attention_weights_are_held_constant():
    stack = [Attending(), layers.Flatten(), layers.Dense(3)]
    model = nr.with_weights(keras.Sequential([keras.Input((5, 3)), *stack]))
    nr.without_shifts(model)
    x = naive.inputs((5, 3))
    q, k, v, last = (np.asarray(w, np.float64) for w in model.get_weights()[0:8:2])
    a = naive.softmax(np.einsum("bti,bsi->bts", x @ q, x @ k) / 2)
    y = np.einsum("bts,bsi->bti", a, x @ v)
    back = np.einsum("bts,bti->bsi", a, last[:, 1].reshape(1, 5, 4) * np.ones_like(y))
    values = kx.LRP(rules="epsilon")(model, x, 1).values
    naive.close(values, x * (back @ v.T), 1e-3)
    naive.close(total(values), total(y) * 0 + nr.flat(y) @ last[:, 1], 1e-3)


class Raw(keras.Model):
    """Raw operations between layers, two of which are shared."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, padding="same", name="conv")
        self.same = layers.Conv2D(4, 3, padding="same", activation="tanh", name="same")
        self.head = layers.Dense(3, activation="softmax", name="head")

    def call(self, x):
        h = ops.relu(self.conv(x))
        h = h + self.same(self.same(h))
        return self.head(ops.reshape(ops.max(h, axis=(1, 2)), (-1, 4)))


@pytest.fixture(scope="module")
def raw():
    """A subclassed model, and a functional one of the same layers in NumPy."""
    model, x = Raw(), naive.inputs((5, 4, 2))
    model(x)
    nr.with_weights(model)
    given = keras.Input((5, 4, 2))
    h = layers.ReLU()(model.conv(given))
    h = layers.Add()([h, model.same(model.same(h))])
    twin = keras.Model(given, model.head(layers.GlobalMaxPooling2D()(h)))
    return model, nr.Graph(twin), x


@pytest.mark.parametrize("name", ["alpha2_beta1", "gamma"])
def test_raw_operations_in_a_call(raw, name):
    model, graph, x = raw
    theirs, ours = RULES[name]
    explanation = kx.LRP(rules=[("conv", theirs), ("same", theirs)])(model, x, CLASSES)
    expected = nr.lrp(graph, x, CLASSES, {"conv": ours, "same": ours})
    naive.close(explanation.values, expected.values, 1e-4)


def test_a_product_with_a_constant_matrix_is_a_weighted_layer():
    matrix = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")

    class Projecting(layers.Layer):
        def call(self, x):
            return ops.matmul(x, matrix)

    model, _, x = chain(Projecting(name="project"), layers.Dense(3))
    twin = keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False, name="project")])
    twin.add(model.layers[-1])
    twin.layers[0].set_weights([matrix])
    values = kx.LRP(rules=[(Projecting, R.ZPlus())])(model, x, CLASSES).values
    expected = nr.lrp(nr.Graph(twin), x, CLASSES, {"project": nr.z_plus()})
    naive.close(values, expected.values, 1e-4)


# Composites


def chosen(conv, dense, first=None):
    rules = {"conv_a": conv, "conv_b": conv, "dense_a": dense, "dense_b": dense}
    return rules | ({"conv_a": first} if first else {})


COMPOSITES = {
    "epsilon": chosen(nr.epsilon(), nr.epsilon()),
    "epsilon_plus": chosen(nr.z_plus(), nr.epsilon()),
    "epsilon_plus_flat": chosen(nr.z_plus(), nr.epsilon(), nr.flat_rule()),
    "epsilon_gamma_box": chosen(nr.gamma(), nr.epsilon(), nr.z_box()),
    "alpha1_beta0": chosen(nr.alpha_beta(1, 0), nr.alpha_beta(1, 0)),
    "alpha2_beta1": chosen(nr.alpha_beta(2, 1), nr.alpha_beta(2, 1)),
    "epsilon_alpha2_beta1": chosen(nr.alpha_beta(2, 1), nr.epsilon()),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites(picture, name):
    model, graph, x = picture
    explanation = kx.LRP(rules=name)(model, x, CLASSES)
    expected = nr.lrp(graph, x, CLASSES, COMPOSITES[name])
    naive.close(explanation.values, expected.values, 1e-4)
    naive.close(explanation.scores, graph.score(x, CLASSES))
    gap = explanation.scores - total(explanation.values)
    scale = np.abs(explanation.scores).max()
    np.testing.assert_allclose(explanation.extras["residual"], gap, atol=1e-5 * scale)
    assert explanation.values.dtype == explanation.extras["residual"].dtype == np.float32


def test_the_default_is_epsilon_plus():
    assert kx.LRP() == kx.LRP(rules="epsilon_plus")


def test_the_box_of_a_composite_may_be_given(picture):
    model, graph, x = picture
    rules = R.epsilon_gamma_box(low=-3.0, high=4.0)
    values = kx.LRP(rules=rules)(model, x, CLASSES).values
    expected = nr.lrp(graph, x, CLASSES, chosen(nr.gamma(), nr.epsilon(), nr.z_box(-3, 4)))
    naive.close(values, expected.values, 1e-4)


def test_deep_taylor_is_z_plus_above_a_z_box(picture):
    model, graph, x = picture
    plus = nr.z_plus()
    expected = nr.lrp(graph, x, CLASSES, chosen(plus, plus, nr.z_box(-3, 4)))
    values = kx.DeepTaylor(low=-3.0, high=4.0)(model, x, CLASSES).values
    naive.close(values, expected.values, 1e-4)
    expected = nr.lrp(graph, x, CLASSES, chosen(plus, plus, nr.z_box()))
    naive.close(kx.DeepTaylor()(model, x, CLASSES).values, expected.values, 1e-4)


def test_deep_taylor_keeps_the_sign_of_the_score(picture):
    model, graph, x = picture
    values = kx.DeepTaylor()(model, x, CLASSES).values
    sign = np.sign(graph.score(x, CLASSES))
    assert (sign.reshape(-1, 1, 1, 1) * values >= 0).all()


# Maps of one's own


def test_the_first_entry_that_fits_wins(picture):
    model, graph, x = picture
    rules = [
        ("first", R.Flat()),
        ("last", R.Gamma()),
        ("dense_*", R.ZPlus()),
        (layers.Conv2D, R.AlphaBeta()),
        ("*", R.WSquare()),
    ]
    expected = {
        "conv_a": nr.flat_rule(),
        "conv_b": nr.alpha_beta(2, 1),
        "dense_a": nr.z_plus(),
        "dense_b": nr.gamma(),
    }
    values = kx.LRP(rules=rules)(model, x, CLASSES).values
    naive.close(values, nr.lrp(graph, x, CLASSES, expected).values, 1e-4)
    values = kx.LRP(rules=[("*", R.ZPlus()), *rules])(model, x, CLASSES).values
    everywhere = dict.fromkeys(expected, nr.z_plus())
    naive.close(values, nr.lrp(graph, x, CLASSES, everywhere).values, 1e-4)


def test_a_class_by_its_name_or_a_base_class_or_a_list(picture):
    model, graph, x = picture
    base = layers.Conv2D.__mro__[1]
    expected = nr.lrp(graph, x, CLASSES, {"conv_a": nr.z_plus(), "conv_b": nr.z_plus()}).values
    for where in (layers.Conv2D, "Conv2D", base, base.__name__, ["first", "conv_b"]):
        naive.close(kx.LRP(rules=[(where, R.ZPlus())])(model, x, CLASSES).values, expected, 1e-4)


def test_a_pattern_is_one_of_paths_into_nested_models():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu", name="one")])
    outer = keras.Input((6,))
    h = layers.Dense(5, activation="relu", name="one")(outer)
    backbone = keras.Model(outer, inner(h), name="backbone")
    x_in = keras.Input((6,))
    model = nr.with_weights(keras.Model(x_in, layers.Dense(3, name="head")(backbone(x_in))))
    x = naive.inputs((6,))
    values = kx.LRP(rules=[("backbone/*", R.ZPlus())])(model, x, CLASSES).values
    expected = nr.lrp(nr.Graph(model), x, CLASSES, {"one": nr.z_plus()})
    naive.close(values, expected.values, 1e-4)
    unlike = kx.LRP(rules=[("head", R.ZPlus())])(model, x, CLASSES).values
    assert np.abs(values - unlike).max() > 1e-3 * np.abs(values).max()


def test_first_and_last_are_the_weighted_layers_next_to_input_and_score():
    """Two layers read the input; what is behind the last weights has none."""
    x_in = keras.Input((6,))
    h = layers.BatchNormalization()(x_in)
    one, two = layers.Dense(5, name="one")(h), layers.Dense(5, name="two")(h)
    h = layers.Dense(4, name="three")(layers.Activation("tanh")(layers.Add()([one, two])))
    y = layers.Activation("gelu")(layers.Dense(3, name="four")(h))
    model, x = nr.with_weights(keras.Model(x_in, y)), naive.inputs((6,))
    values = kx.LRP(rules=[("first", R.Flat()), ("last", R.ZPlus())])(model, x, CLASSES).values
    rules = {"one": nr.flat_rule(), "two": nr.flat_rule(), "four": nr.z_plus()}
    naive.close(values, nr.lrp(nr.Graph(model), x, CLASSES, rules).values, 1e-4)


def test_a_layer_of_ones_own_goes_by_the_gradient():
    class Odd(layers.Layer):
        def call(self, x):
            return ops.cumprod(1 + 0.1 * x, axis=-1)

    model, _, x = chain(Odd(name="odd"), layers.Dense(3))
    kernel, bias = (np.asarray(w, np.float64) for w in model.get_weights())
    y = np.cumprod(1 + 0.1 * np.float64(x), axis=-1)
    score = y @ kernel[:, 1] + bias[1]
    each = kernel[:, 1] * (score / nr.stab(y @ kernel + bias)[:, 1])[:, None]
    # By the rule, R_i = x_i sum_j (R_j / y_j) dy_j / dx_i; and here R_j = y_j each_j.
    expected = naive.central_differences(lambda v: (np.cumprod(1 + 0.1 * v, -1) * each).sum(1), x)
    values = kx.LRP(rules=[(Odd, R.Gradient())])(model, x, 1).values
    naive.close(values, x * expected, 1e-4)


# Equal configurations, files, and other parts of the contract


def test_a_map_survives_a_file(picture):
    model, _, x = picture
    low = np.array([-3.0, -4.0], "float32")
    lrp = kx.LRP(
        rules=[
            (["first", "nothing/*"], R.ZBox(low=low, high=4.0)),
            (layers.Conv2D, R.Gamma(gamma=0.5)),
            ("dense_*", R.AlphaBeta(alpha=3.0, beta=2.0)),
        ]
    )
    text = json.dumps({"class_name": "LRP", "config": lrp.get_config()})
    again = kx.get(json.loads(text))
    assert again == lrp
    assert hash(again) == hash(lrp)
    np.testing.assert_array_equal(again(model, x, CLASSES).values, lrp(model, x, CLASSES).values)
    assert again != kx.LRP(rules="epsilon")
    for name in COMPOSITES:
        lrp = kx.LRP(rules=name)
        assert kx.LRP.from_config(json.loads(json.dumps(lrp.get_config()))) == lrp


def test_live_weights_and_no_change_of_the_model(picture):
    model, _, x = picture
    before = model.get_weights()
    kx.LRP()(model, x, 1)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    try:
        nr.with_weights(model, seed=5)
        expected = nr.lrp(nr.Graph(model), x, 1, COMPOSITES["epsilon_plus"])
        naive.close(kx.LRP()(model, x, 1).values, expected.values, 1e-4)
    finally:
        model.set_weights(before)


def test_at_a_layer_it_is_the_relevance_there(picture):
    model, graph, x = picture
    rules = COMPOSITES["epsilon_plus"]
    for layer in ("relu", "conv_b"):
        values = kx.LRP(layer=layer)(model, x, CLASSES).values
        naive.close(values, nr.lrp(graph, x, CLASSES, rules, layer).values, 1e-4)


def test_tokens_get_the_relevance_of_their_embeddings():
    stack = [
        layers.Embedding(9, 4),
        layers.Conv1D(5, 2, activation="relu", name="conv"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3, activation="softmax"),
    ]
    model = nr.with_weights(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    ids = np.random.default_rng(0).integers(0, 9, (3, 6))
    values = kx.LRP()(model, ids, CLASSES).values
    expected = nr.lrp(nr.Graph(model), ids, CLASSES, {"conv": nr.z_plus()})
    naive.close(values, expected.values, 1e-4)


# Axioms and the residual


def test_epsilon_is_the_gradient_times_the_input_without_biases():
    stack = [
        layers.Conv2D(4, 3, use_bias=False, activation="relu"),
        layers.MaxPooling2D(2, strides=1),
        layers.Conv2D(4, 2, use_bias=False, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, use_bias=False, activation="softmax"),
    ]
    model, graph, x = chain(*stack, shape=(6, 5, 2))
    explanation = kx.LRP(rules="epsilon")(model, x, CLASSES)
    naive.close(explanation.values, x * nr.gradient(graph, x, CLASSES), 1e-4)
    naive.close(total(explanation.values), explanation.scores, 1e-4)
    limit = 1e-4 * np.abs(explanation.scores).max()
    assert np.abs(explanation.extras["residual"]).max() < limit


def test_the_residual_is_the_biases_share():
    model, graph, x = chain(layers.Dense(3, name="one"))
    explanation = kx.LRP(rules="epsilon")(model, x, CLASSES)
    naive.close(explanation.extras["residual"], model.get_weights()[1][CLASSES], 1e-4)
    naive.close(
        graph.score(x, CLASSES) - total(explanation.values), graph.nodes[1].part.bias[CLASSES], 1e-4
    )


@pytest.mark.parametrize("rules", ["epsilon", "epsilon_plus_flat", "alpha2_beta1"])
def test_residuals_say_where_relevance_is_lost(picture, rules):
    model, graph, x = picture
    lrp = kx.LRP(rules=rules)
    lost = lrp.residuals(model, x, CLASSES)
    expected = nr.lrp(graph, x, CLASSES, COMPOSITES[rules])
    scale = np.abs(expected.scores).max()
    residual = lrp(model, x, CLASSES).extras["residual"]
    np.testing.assert_allclose(sum(lost.values()), residual, atol=1e-4 * scale)
    for name in ("conv_b", "dense_a", "dense_b"):
        np.testing.assert_allclose(lost[name], expected.lost[name], atol=1e-4 * scale)
        assert lost[name].shape == (3,)
    assert set(lost) <= {"", *(layer.name for layer in model.layers)}
    first = lost.get("conv_a", 0) + lost.get("norm", 0)
    np.testing.assert_allclose(first, expected.lost["conv_a"], atol=1e-4 * scale)


def test_residuals_of_nested_models_and_the_predicted_class(raw):
    model, graph, x = raw
    predicted = graph.scores(x).argmax(axis=1)
    lost = kx.LRP(rules="epsilon").residuals(model, x)
    expected = nr.lrp(graph, x, predicted)
    scale = np.abs(expected.scores).max()
    for name in ("conv", "same", "head"):
        np.testing.assert_allclose(lost[name], expected.lost[name], atol=1e-4 * scale)


class StepsFirst(layers.Layer):
    """A Dense layer of series `[B, T, C]`, on `[T, B, C]`."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.transpose(self.dense(ops.transpose(x, (1, 0, 2))), (1, 0, 2))


def test_residuals_are_of_samples_also_where_the_steps_come_first():
    rest = [layers.Activation("tanh"), layers.Flatten(), layers.Dense(3)]
    model, x = keras.Sequential([keras.Input((4, 2)), StepsFirst(), *rest]), naive.inputs((4, 2))
    nr.with_weights(model)
    twin = keras.Sequential([keras.Input((4, 2)), layers.Dense(3, name="plain"), *rest])
    twin.set_weights(model.get_weights())
    lost = kx.LRP(rules="epsilon").residuals(model, x, 1)[f"{model.layers[0].name}/dense"]
    naive.close(lost, nr.lrp(nr.Graph(twin), x, 1).lost["plain"], 1e-4)


# Errors


def test_an_unknown_composite_is_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match="epsilon_plus"):
        kx.LRP(rules="epsilon_pluss")


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (1.0, 1.0), (0.0, 1.0)])
def test_alpha_and_beta_are_one_apart(alpha, beta):
    with pytest.raises(ValueError, match=r"alpha - beta"):
        R.AlphaBeta(alpha=alpha, beta=beta)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: R.ZBox(low=1.0, high=0.0), "low"),
        (lambda: R.ZBox(low=np.array([0.0, 2.0]), high=1.0), "low"),
        (lambda: R.epsilon_gamma_box(low=2.0, high=1.0), "low"),
        (lambda: R.Epsilon(epsilon=-1.0), "epsilon"),
        (lambda: R.Gamma(gamma=-0.1), "gamma"),
    ],
)
def test_a_rule_of_impossible_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "rules", [5, [R.ZPlus()], [("conv", "z_plus")], [(3, R.ZPlus())], ["conv"], [("a", "b", "c")]]
)
def test_what_is_no_map(rules):
    with pytest.raises((TypeError, ValueError), match="Received"):
        kx.LRP(rules=rules)


class Sorting(layers.Layer):
    def call(self, x):
        return ops.sort(x, axis=-1)


class Cumulating(layers.Layer):
    def call(self, x):
        return ops.cumprod(x, axis=-1)


@pytest.mark.parametrize("cls", [Sorting, Cumulating])
def test_an_operation_without_a_rule_is_named(cls):
    model, _, x = chain(cls(name="odd"), layers.Dense(3))
    with pytest.raises(ValueError, match=rf"'odd'.*{cls.__name__}") as caught:
        kx.LRP()(model, x, 1)
    assert f'("{cls.__name__}", keras_explain.rules.Gradient())' in str(caught.value)


class Ordering(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(ops.sort(x, axis=-1))


def test_an_operation_without_a_rule_in_the_models_own_call():
    model, x = Ordering(), naive.inputs((6,))
    model(x)
    with pytest.raises(ValueError, match=r"(?i)sort|topk"):
        kx.LRP()(model, x, 1)


def test_a_recurrent_layer_is_one_step_with_a_warning():
    model, _, x = chain(layers.LSTM(4, name="cell"), layers.Dense(3), shape=(4, 3))
    with pytest.warns(UserWarning, match="one opaque step"):
        explanation = kx.LRP()(model, x, 1)
    assert np.isfinite(explanation.values).all()
    assert explanation.values.any()
    with warnings.catch_warnings(action="error"):  # it was asked for here
        asked = kx.LRP(rules=[(layers.LSTM, R.Gradient())])(model, x, 1)
    naive.close(asked.values, explanation.values)
