"""Integrated Gradients against the paper's integral in float64, known values and its axioms."""

import functools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
from tests import naive

IG = kx.IntegratedGradients
CLASSES = np.array([0, 3, 1])
SMOOTH = {
    "picture": {},
    "tanh, max": {"activation": "tanh", "pool": "max"},
    "series": {"shape": (9, 2)},
    "volume": {"shape": (5, 4, 4, 1)},
}


def numpy_ig(net, x, target, start=0.0, rule=None):
    start = np.broadcast_to(start, x.shape)
    rule = naive.midpoints(100) if rule is None else rule
    return naive.integrated_gradients(lambda v: net.gradient(v, target), x, start, rule)


def total(values, first=1):
    return values.reshape(*values.shape[:first], -1).sum(axis=-1, dtype=np.float64)


def functional(fn, features, *, units=None):
    """A model without weights: `fn` of a symbolic `[B, features]`, or weighted to some units."""
    x = keras.Input((features,))
    y = fn(x) if units is None else layers.Dense(units)(fn(x))
    return naive.randomize(keras.Model(x, y))


def power(x, exponent):
    return functools.reduce(ops.multiply, [x] * exponent)


@pytest.fixture(scope="module")
def picture():
    model = naive.network()
    return model, naive.Net([model]), naive.inputs((8, 6, 2))


@pytest.fixture(scope="module")
def dense():
    model = naive.perceptron()
    return model, naive.Net([model]), naive.inputs((5,))


# The integral


@pytest.mark.parametrize("options", SMOOTH.values(), ids=SMOOTH)
def test_it_is_the_papers_integral(options):
    model = naive.network(**options)
    net, x = naive.Net([model]), naive.inputs(model.input_shape[1:])
    explanation = IG()(model, x, CLASSES)
    # A sum of 100 midpoints is itself off by about its square.
    naive.close(explanation.values, numpy_ig(net, x, CLASSES), 1e-4)
    naive.close(explanation.scores, net.score(x, CLASSES))
    assert explanation.values.shape == x.shape
    assert explanation.values.dtype == np.float32


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_it_is_the_gauss_legendre_sum(steps, activation):
    model = naive.network(activation=activation, pool="max")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    values = IG(steps=steps, baseline=-0.3)(model, x, CLASSES).values
    expected = numpy_ig(net, x, CLASSES, -0.3, naive.gauss_legendre(steps))
    naive.close(values, expected)


def test_one_step_is_the_gradient_halfway(dense):
    model, net, x = dense
    values = IG(steps=1)(model, x, 1).values
    naive.close(values, x * net.gradient(x / 2, 1))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_steps_are_exact_for_a_gradient_of_degree_below_twice_their_number(steps):
    model = functional(lambda x: power(x, 2 * steps), 3, units=2)
    x = np.array([[1.5, -1.1, 0.7], [-0.4, 1.2, -1.3]], np.float32)
    kernel = model.get_weights()[0]
    values = IG(steps=steps, baseline=0.5)(model, x, 1).values
    naive.close(values, kernel[:, 1] * (x.astype(np.float64) ** (2 * steps) - 0.5 ** (2 * steps)))


def test_three_steps_of_a_fourth_power():
    model = functional(lambda x: ops.sum(power(x, 4), axis=-1, keepdims=True), 2)
    values = IG(steps=3)(model, np.array([[2.0, -3.0]], np.float32)).values
    naive.close(values, [[16.0, 81.0]], 1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_degree_more_is_off_by_the_rules_known_error(steps):
    """The n-point rule is short of the integral of t^2n by n!^4 / ((2n + 1) (2n)!^2)."""
    exponent = 2 * steps + 1
    model = functional(lambda x: ops.sum(power(x, exponent), axis=-1, keepdims=True), 2)
    x = np.array([[1.3, -0.8]], np.float32)
    explanation = IG(steps=steps)(model, x)
    short = x.astype(np.float64) ** exponent / math.comb(2 * steps, steps) ** 2
    naive.close(explanation.values, x.astype(np.float64) ** exponent - short, 1e-6)
    np.testing.assert_allclose(
        explanation.extras["convergence_delta"], -short.sum(axis=1), atol=1e-5
    )


def test_a_product_is_shared_alike():
    model = functional(lambda x: ops.prod(x, axis=-1, keepdims=True), 3)
    x = np.array([[2.0, -3.0, 0.5], [1.0, 4.0, 2.0]], np.float32)
    values = IG(steps=2)(model, x).values
    naive.close(values, np.repeat(x.prod(axis=1, keepdims=True) / 3, 3, axis=1), 1e-6)


def test_without_the_multiplication_it_is_the_averaged_gradient(picture):
    model, net, x = picture
    explanation = IG(steps=8, baseline=0.2, multiply_by_inputs=False)(model, x, CLASSES)
    start = np.full_like(x, 0.2)
    rule = naive.gauss_legendre(8)
    expected = naive.averaged_gradient(lambda v: net.gradient(v, CLASSES), x, start, rule)
    naive.close(explanation.values, expected)
    assert not {"convergence_delta", "base_values"} & set(explanation.extras)


def test_many_classes_at_once(picture):
    model, net, x = picture
    many = np.array([[0, 1, 2], [3, 3, 0], [2, 0, 1]])
    values = IG(steps=6)(model, x, many).values
    rule = naive.gauss_legendre(6)
    expected = np.stack([numpy_ig(net, x, many[:, k], rule=rule) for k in range(3)], axis=1)
    naive.close(values, expected)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_batch_size_only_rounds(picture, batch_size):
    model, net, x = picture
    explanation = IG(steps=7)(model, x, CLASSES, batch_size=batch_size)
    naive.close(explanation.values, numpy_ig(net, x, CLASSES, rule=naive.gauss_legendre(7)))


def test_a_row_alone_is_the_row_in_a_batch(dense):
    model, _, x = dense
    start = np.roll(x, 1, axis=0)
    together = IG(steps=5, baseline=start)(model, x, 1).values
    for i in range(3):
        alone = IG(steps=5, baseline=start[i])(model, x[i : i + 1], 1).values
        naive.close(alone, together[i : i + 1], 1e-6)


def test_a_model_of_fixed_batch_size():
    stack = [keras.Input((5,), batch_size=2), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    net, x = naive.Net([model]), naive.inputs((5,), rows=5)
    explanation = IG(steps=5)(model, x, 1)
    naive.close(explanation.values, numpy_ig(net, x, 1, rule=naive.gauss_legendre(5)))
    naive.close(explanation.extras["base_values"], net.score(0 * x, 1))


def test_mixed_precision_explains_the_weights():
    stack = [
        layers.Dense(6, activation="tanh", dtype="mixed_float16"),
        layers.Dense(3, activation="softmax", dtype="mixed_float16"),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((5,)), *stack]))
    net, x = naive.Net([model]), naive.inputs((5,))
    explanation = IG(steps=9)(model, x, 2)
    naive.close(explanation.values, numpy_ig(net, x, 2, rule=naive.gauss_legendre(9)))


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integer_pictures_are_explained_as_numbers(picture, baseline):
    model, net, _ = picture
    x = np.random.default_rng(0).integers(0, 4, (3, 8, 6, 2)).astype(np.uint8)
    explanation = IG(steps=6, baseline=baseline)(model, x, CLASSES)
    expected = numpy_ig(net, x, CLASSES, baseline, naive.gauss_legendre(6))
    naive.close(explanation.values, expected)
    naive.close(explanation.extras["base_values"], net.score(np.full(x.shape, baseline), CLASSES))


# Completeness


def baselines():
    rng = np.random.default_rng(7)
    shape = (8, 6, 2)
    return {
        "number": -0.5,
        "sample": rng.normal(size=shape).astype(np.float32),
        "rows": rng.normal(size=(3, *shape)).astype(np.float32),
        "mean": kx.baselines.Mean(rng.normal(size=(9, *shape))),
        "blur": kx.baselines.Blur(2.0),
    }


@pytest.mark.parametrize("kind", baselines())
def test_the_values_sum_to_the_change_of_the_score(picture, kind):
    model, net, x = picture
    explanation = IG(baseline=baselines()[kind])(model, x, CLASSES, batch_size=7)
    change = explanation.scores - explanation.extras["base_values"]
    naive.close(total(explanation.values), change, 1e-4)
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-4 * np.abs(change).max()
    if kind != "blur":
        start = getattr(baselines()[kind], "data", baselines()[kind])
        base = net.score(np.broadcast_to(start, x.shape), CLASSES)
        naive.close(explanation.extras["base_values"], base)


def test_they_sum_to_it_for_every_class(picture):
    model, net, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = IG(baseline=0.4)(model, x, many, batch_size=7)
    base = np.take_along_axis(net.scores(np.full(x.shape, 0.4)), many, axis=1)
    naive.close(explanation.extras["base_values"], base)
    naive.close(total(explanation.values, 2), explanation.scores - base, 1e-4)
    assert explanation.extras["convergence_delta"].shape == (3, 2)


def test_the_convergence_delta_is_the_gap_of_few_steps():
    model = naive.network(activation="relu", pool="max")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    explanation = IG(steps=2, baseline=0.3)(model, x, CLASSES)
    values = numpy_ig(net, x, CLASSES, 0.3, naive.gauss_legendre(2))
    change = net.score(x, CLASSES) - net.score(np.full(x.shape, 0.3), CLASSES)
    gap = total(values) - change
    assert np.abs(gap).min() > 1e-3
    naive.close(explanation.extras["convergence_delta"], gap, 1e-3)


def test_a_probability_is_complete_too(dense):
    model, net, x = dense
    explanation = IG()(model, x, kx.targets.Class(2, of="probability"))
    p, base = naive.softmax(net.scores(x))[:, 2], naive.softmax(net.scores(0 * x))[:, 2]
    naive.close(explanation.extras["base_values"], base)
    naive.close(total(explanation.values), p - base, 1e-4)


def test_the_baseline_is_scored_for_the_class_of_the_input(dense):
    model, net, x = dense
    start = -2 * x
    predicted = net.scores(x).argmax(axis=1)
    assert (predicted != net.scores(start).argmax(axis=1)).any()
    explanation = IG(baseline=start)(model, x)
    naive.close(explanation.extras["base_values"], net.score(start, predicted))


def test_at_the_baseline_nothing_is_attributed(dense):
    model, _, x = dense
    with pytest.warns(UserWarning, match="IntegratedGradients is zero everywhere for all"):
        explanation = IG(baseline=x)(model, x, 1)
    assert not explanation.values.any()
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-6)


@pytest.fixture(scope="module")
def perceptron():
    """A model to change the weights of."""
    stack = [layers.Dense(6, activation="softplus"), layers.Dense(3)]
    return keras.Sequential([keras.Input((4,)), *stack])


@naive.few
@given(seed=st.integers(0, 2**16), start=st.floats(-3, 3), target=st.integers(0, 2))
def test_complete_for_any_weights_inputs_and_baseline(perceptron, seed, start, target):
    model = naive.randomize(perceptron, seed)
    net, x = naive.Net([model]), naive.inputs((4,), seed=seed)
    given = np.full((3, 4), start, np.float32)
    explanation = IG(baseline=given)(model, x, target)
    change = net.score(x, target) - net.score(given, target)
    np.testing.assert_allclose(total(explanation.values), change, atol=1e-4)
    naive.close(explanation.values, numpy_ig(net, x, target, given), 1e-3)


# The other axioms


def test_sensitivity_where_the_gradient_is_zero():
    """The paper's 1 - ReLU(1 - x) at 2: the gradient is 0, the attribution 1."""
    model = functional(lambda x: 1 - ops.relu(1 - x), 1)
    x = np.array([[2.0]], np.float32)
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert kx.InputXGradient()(model, x).values == 0
    naive.close(IG(steps=50)(model, x).values, [[1.0]], 1e-6)


def one(x):
    return ops.relu(ops.relu(x[:, :1]) - 1 - ops.relu(x[:, 1:]))


def another(x):
    return ops.relu(ops.relu(x[:, :1] - 1) - ops.relu(x[:, 1:]))


@pytest.mark.parametrize("fn", [one, another])
def test_implementation_invariance(fn):
    """The paper's two networks of one function (figure 7): 1.5 and -0.5 for both."""
    values = IG(steps=50)(functional(fn, 2), np.array([[3.0, 1.0]], np.float32)).values
    naive.close(values, [[1.5, -0.5]], 1e-6)


def test_implementation_invariance_of_linear_and_its_two_halves(dense):
    """x -> x and x -> ReLU(x) - ReLU(-x), before the same network."""
    model, net, x = dense
    x_in = keras.Input((5,))
    twin = keras.Model(x_in, model(ops.relu(x_in) - ops.relu(-x_in)))
    explanation = IG(steps=9, baseline=0.3)(twin, x, 1)
    naive.close(explanation.values, numpy_ig(net, x, 1, 0.3, naive.gauss_legendre(9)))


def test_linearity(picture):
    _, _, x = picture
    model = naive.network(head=None)
    ig = IG(steps=5, baseline=0.1)
    mixed = ig(model, x, kx.targets.Function(lambda y: 2 * y[:, 0] - 3 * y[:, 1])).values
    naive.close(mixed, 2 * ig(model, x, 0).values - 3 * ig(model, x, 1).values)


def test_a_linear_model_is_its_weights_times_the_change():
    model = naive.randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    x = naive.inputs((4,))
    explanation = IG(steps=1, baseline=0.25)(model, x, 2)
    naive.close(explanation.values, (x - 0.25) * model.get_weights()[0][:, 2], 1e-6)
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-6)


def test_symmetric_features_get_the_same():
    stack = [keras.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    weights = model.get_weights()
    weights[0][2] = weights[0][0]
    model.set_weights(weights)
    x = naive.inputs((4,))
    x[:, 2] = x[:, 0]
    values = IG(steps=9)(model, x, 1).values
    naive.close(values[:, 2], values[:, 0], 1e-6)
    assert np.abs(values[:, 1] - values[:, 0]).min() > 1e-3


def test_a_feature_without_influence_or_without_change_gets_zero():
    stack = [keras.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    weights = model.get_weights()
    weights[0][1] = 0
    model.set_weights(weights)
    x = naive.inputs((4,))
    x[:, 3] = 0.5
    values = IG(steps=9, baseline=0.5)(model, x, 1).values
    assert (values[:, [1, 3]] == 0).all()
    assert (values[:, [0, 2]] != 0).all()


# Several inputs, and tokens


@pytest.mark.parametrize("nest", [list, dict])
def test_several_inputs_with_a_baseline_each(nest):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(layers.Concatenate()([a, b])))
    model = naive.randomize(keras.Model([a, b] if nest is list else {"a": a, "b": b}, head))
    net = naive.Net(model.layers[-2:])
    xa, xb = naive.inputs((4,)), naive.inputs((3,), seed=1)
    start = np.concatenate([np.full((3, 4), 0.5), xb[::-1]], axis=1)
    x = np.concatenate([xa, xb], axis=1)
    expected = numpy_ig(net, x, 1, start, naive.gauss_legendre(8))

    def packed(first, second):
        return [first, second] if nest is list else {"b": second, "a": first}

    explanation = IG(steps=8, baseline=packed(0.5, xb[::-1]))(model, packed(xa, xb), 1)
    of_a, of_b = keras.tree.flatten(explanation.values)
    naive.close(of_a, expected[:, :4])
    naive.close(of_b, expected[:, 4:])
    naive.close(explanation.extras["base_values"], net.score(start, 1))
    gap = expected.sum(axis=1) - (net.score(x, 1) - net.score(start, 1))
    np.testing.assert_allclose(explanation.extras["convergence_delta"], gap, atol=1e-6)


@pytest.fixture(scope="module")
def sentence():
    stack = [
        layers.Embedding(9, 4),
        layers.Conv1D(5, 2, activation="tanh"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3, activation="softmax"),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    table = model.layers[0].get_weights()[0]
    return (
        model,
        naive.Net(model.layers[1:]),
        table,
        np.random.default_rng(0).integers(1, 9, (3, 6)),
    )


def padding(ids):
    return 0, np.zeros_like(ids)


def one_sentence(ids):
    return np.arange(6), np.tile(np.arange(6), (3, 1))


def sentence_each(ids):
    return np.roll(ids, 1, axis=0), np.roll(ids, 1, axis=0)


@pytest.mark.parametrize("start", [padding, one_sentence, sentence_each])
def test_tokens_are_explained_from_the_embeddings_of_the_baselines_ids(sentence, start):
    model, net, table, ids = sentence
    baseline, start_ids = start(ids)
    explanation = IG(steps=6, baseline=baseline)(model, ids, 1, batch_size=4)
    start = table[start_ids]
    expected = numpy_ig(net, table[ids], 1, start, naive.gauss_legendre(6))
    naive.close(explanation.values, expected.sum(axis=-1))
    naive.close(explanation.extras["base_values"], net.score(start, 1))
    naive.close(total(explanation.values), net.score(table[ids], 1) - net.score(start, 1), 1e-3)


def test_masked_tokens_get_zero_and_the_rest_sums_to_the_change():
    stack = [
        layers.Embedding(9, 4, mask_zero=True),
        layers.GlobalAveragePooling1D(),
        layers.Dense(5, activation="tanh"),
        layers.Dense(2),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    table, net = model.layers[0].get_weights()[0], naive.Net(model.layers[2:])
    ids = np.array([[3, 1, 4, 0, 0, 0], [5, 2, 0, 0, 0, 0], [8, 7, 6, 5, 4, 3]])
    kept = (ids > 0)[..., None] / (ids > 0).sum(axis=1)[:, None, None]

    def gradient(embedded):  # the mask of the input holds all along the line
        mean = (embedded * kept).sum(axis=1)
        return kept * net.gradient(mean, 1)[:, None]

    start = np.broadcast_to(table[0], (3, 6, 4))
    rule = naive.gauss_legendre(10)
    expected = naive.integrated_gradients(gradient, table[ids], start, rule).sum(axis=-1)
    explanation = IG(steps=10)(model, ids, 1)
    naive.close(explanation.values, expected)
    assert (explanation.values[ids == 0] == 0).all()
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-4)


def test_one_sequence_of_tokens_with_two_embeddings():
    ids = keras.Input((6,), dtype="int32")
    words, styles = layers.Embedding(9, 4), layers.Embedding(9, 2)
    both = layers.Concatenate()([words(ids), styles(ids)])
    head = [layers.GlobalAveragePooling1D(), layers.Dense(5, activation="tanh"), layers.Dense(2)]
    y = both
    for layer in head:
        y = layer(y)
    model = naive.randomize(keras.Model(ids, y))
    table = np.concatenate([words.get_weights()[0], styles.get_weights()[0]], axis=1)
    ids = np.random.default_rng(0).integers(0, 9, (3, 6))
    net, start = naive.Net(head), np.broadcast_to(table[0], (3, 6, 6))
    expected = numpy_ig(net, table[ids], 1, start, naive.gauss_legendre(7)).sum(axis=-1)
    naive.close(IG(steps=7)(model, ids, 1).values, expected)


def test_tokens_beside_numbers():
    ids, numbers = keras.Input((4,), dtype="int32", name="ids"), keras.Input((3,), name="numbers")
    embedding = layers.Embedding(9, 2)
    flat = layers.Concatenate()([layers.Flatten()(embedding(ids)), numbers])
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(flat))
    model = naive.randomize(keras.Model({"ids": ids, "numbers": numbers}, head))
    net, table = naive.Net(model.layers[-2:]), embedding.get_weights()[0]
    ids, numbers = np.random.default_rng(0).integers(0, 9, (3, 4)), naive.inputs((3,))
    point = np.concatenate([table[ids].reshape(3, 8), numbers], axis=1)
    start = np.concatenate([np.tile(table[2], (3, 4)), np.full((3, 3), 0.5)], axis=1)
    expected = numpy_ig(net, point, 1, start, naive.gauss_legendre(8))
    explainer = IG(steps=8, baseline={"ids": 2, "numbers": 0.5})
    explanation = explainer(model, {"ids": ids, "numbers": numbers}, 1)
    naive.close(explanation.values["ids"], expected[:, :8].reshape(3, 4, 2).sum(axis=-1))
    naive.close(explanation.values["numbers"], expected[:, 8:])
    naive.close(explanation.extras["base_values"], net.score(start, 1))


# How far off the values are


def every_other(node):
    """The interpolatory weights over [0, 1] of every other node, by moments, `[2, n]`."""
    weights = np.zeros((2, len(node)))
    for i in (0, 1):
        some = node[i::2]
        powers = np.vander(some, increasing=True).T
        weights[i, i::2] = np.linalg.solve(powers, 1 / np.arange(1, len(some) + 1))
    return weights


def numpy_error(net, x, target, start, steps):
    """Half the difference of the two sums over every other node, by sqrt(3), of each value."""
    node = np.sort(naive.gauss_legendre(steps)[0])
    sums = [numpy_ig(net, x, target, start, (node, weight)) for weight in every_other(node)]
    return (sums[0] - sums[1]) / 2 / np.sqrt(3)


def relative(error, values):
    def norm(a):
        return np.linalg.norm(np.reshape(a, (len(a), -1)), axis=1)

    return norm(error) / norm(values)


@pytest.mark.parametrize("steps", [2, 3, 7, 12])
@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_the_error_is_half_the_difference_of_two_sums(steps, batch_size):
    model = naive.network(activation="relu", pool="max")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = IG(steps=steps, baseline=-0.3)(model, x, many, batch_size=batch_size)
    rule = naive.gauss_legendre(steps)
    for k in range(2):
        error = numpy_error(net, x, many[:, k], -0.3, steps)
        values = numpy_ig(net, x, many[:, k], -0.3, rule)
        found = explanation.extras["value_error"][:, k]
        np.testing.assert_allclose(found, relative(error, values), rtol=1e-3)


def test_the_error_of_the_averaged_gradient(picture):
    model, net, x = picture
    start = np.roll(x, 1, axis=0)
    explanation = IG(steps=5, baseline=start, multiply_by_inputs=False)(model, x, CLASSES)
    error = numpy_error(net, x, CLASSES, start, 5) / (x - start)
    values = numpy_ig(net, x, CLASSES, start, naive.gauss_legendre(5)) / (x - start)
    np.testing.assert_allclose(
        explanation.extras["value_error"], relative(error, values), rtol=1e-3
    )


def test_the_error_of_tokens_is_that_of_their_sums(sentence):
    model, net, table, ids = sentence
    explanation = IG(steps=3)(model, ids, 1)
    x, start = table[ids], np.broadcast_to(table[0], (3, 6, 4))
    error = numpy_error(net, x, 1, start, 3).sum(axis=-1)
    values = numpy_ig(net, x, 1, start, naive.gauss_legendre(3)).sum(axis=-1)
    np.testing.assert_allclose(
        explanation.extras["value_error"], relative(error, values), rtol=1e-3
    )


def test_the_error_of_several_inputs_is_one_and_at_a_layer_is_the_layers():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate(name="joined")([a, b])
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(joined))
    model = naive.randomize(keras.Model([a, b], head))
    net, x = naive.Net(model.layers[-2:]), [naive.inputs((4,)), naive.inputs((3,), seed=1)]
    both = np.concatenate(x, axis=1)
    error = numpy_error(net, both, 1, 0.0, 4)
    expected = relative(error, numpy_ig(net, both, 1, 0.0, naive.gauss_legendre(4)))
    for explainer in (IG(steps=4), IG(steps=4, layer="joined")):
        found = explainer(model, x, 1).extras["value_error"]
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_no_error_of_polynomials_that_half_the_nodes_integrate(steps):
    model = functional(lambda x: power(x, steps // 2), 3, units=2)
    explanation = IG(steps=steps, baseline=0.5)(model, naive.inputs((3,)), 1)
    assert explanation.extras["value_error"].max() < 1e-6


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_the_error_of_many_kinks_is_right(steps):
    """relu(x - t) from 0 is x - t, and its gradient jumps at t / x."""
    rng = np.random.default_rng(0)
    place = rng.uniform(size=400).astype(np.float32)
    x = rng.uniform(1, 3, size=(3, 400)).astype(np.float32)
    model = functional(lambda v: ops.sum(ops.relu(v - place), axis=-1, keepdims=True), 400)
    explanation = IG(steps=steps)(model, x)
    truth = x.astype(np.float64) - place
    error = relative(explanation.values - truth, explanation.values)
    ratio = explanation.extras["value_error"] / error
    assert (ratio > 0.8).all()
    assert (ratio < 1.25).all()
    gap = np.abs(explanation.extras["convergence_delta"]) / explanation.scores
    assert (gap < 0.3 * error).all()  # the errors cancel in the sum


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_the_error_of_a_smooth_network_is_not_below_the_true_one(picture, steps):
    model, net, x = picture
    explanation = IG(steps=steps)(model, x, CLASSES)
    truth = numpy_ig(net, x, CLASSES, rule=naive.gauss_legendre(60))
    error = relative(explanation.values - truth, explanation.values)
    assert (explanation.extras["value_error"] > error).all()


def test_one_step_has_nothing_to_compare_with(dense):
    model, _, x = dense
    assert np.isnan(IG(steps=1)(model, x, 1).extras["value_error"]).all()


def test_values_that_are_zero_have_no_error(dense):
    model, _, x = dense
    start = x.copy()
    start[0] += 1
    with pytest.warns(UserWarning, match="zero everywhere for some"):
        error = IG(steps=4, baseline=start)(model, x, 1).extras["value_error"]
    assert error[0] > 0
    assert not error[1:].any()


@pytest.mark.parametrize("steps", [2, 3, 50, 51, 300, 1000])
def test_sums_over_every_other_node_are_stable(steps):
    passes = IG(steps=steps).passes(0)
    off = np.sqrt(3) * passes["error"].astype(np.float64) * passes["weight"]
    np.testing.assert_allclose(np.abs(off).sum(), 1, rtol=1e-5)  # two halves, of no other sign
    np.testing.assert_allclose(off.sum(), 0, atol=1e-6)


def test_a_gap_shows_how_far_off_the_values_are_at_least():
    """All points miss the step, so all rules agree; the gap tells that they are wrong."""
    inputs = keras.Input((4,))
    step = layers.Lambda(
        lambda v: ops.tanh(400 * (ops.mean(v, -1, keepdims=True) - 0.5)), output_shape=(1,)
    )
    model = keras.Model(inputs, step(inputs))
    found = kx.IntegratedGradients(steps=50)(model, np.ones((1, 4), np.float32))
    true = np.linalg.norm(found.values - 0.5) / np.linalg.norm(found.values)
    np.testing.assert_allclose(found.extras["value_error"], true, rtol=1e-4)
