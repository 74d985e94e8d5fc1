"""Guided Integrated Gradients against the paper's loop in float64, and what its path promises."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from tests import naive

GIG = kx.GuidedIG
CLASSES = np.array([0, 3, 1])
OPTIONS = {
    "default": {},
    "unbounded": {"max_distance": 1.0},
    "few go together": {"fraction": 0.05, "max_distance": 0.3},
    "all go together": {"fraction": 1.0, "max_distance": 0.5},
    "one by one": {"fraction": 1e-6, "max_distance": 1.0},
    "within a step": {"max_distance": 0.05},
}


def naive_path(gradient, x, start, steps, fraction, max_distance):
    """The points of the paper's algorithm, for one row of features `[N]`."""
    z, whole, points = start.copy(), np.abs(x - start).sum(), [start]
    for step in range(1, steps + 1):
        alpha, slope, z = step / steps, np.abs(gradient(z)), z.copy()
        low = start + max(alpha - max_distance, 0) * (x - start)
        high = start + min(alpha + max_distance, 1) * (x - start)
        behind = np.abs(z - start) < np.abs(low - start)
        z[behind] = low[behind]
        gamma = np.inf
        while gamma > 1:
            too_far = np.abs(x - z).sum() - (1 - alpha) * whole
            slope[np.abs(z - high) < 1e-12] = np.inf
            if too_far < 1e-9 * whole or np.isinf(slope).all():
                break
            threshold = np.sort(slope)[int(fraction * (len(slope) - 1))]
            chosen = (slope <= threshold) & np.isfinite(slope)
            gamma = too_far / np.abs(high - z)[chosen].sum()
            z[chosen] += min(gamma, 1) * (high - z)[chosen]
        points.append(z)
    return np.array(points)


def naive_guided_ig(net, x, target, start=0.0, steps=50, fraction=0.25, max_distance=0.02):
    x = np.asarray(x, np.float64)
    start = np.broadcast_to(np.asarray(start, np.float64), x.shape)
    target, values = np.broadcast_to(target, len(x)), np.zeros_like(x)
    for i in range(len(x)):

        def gradient(z, i=i):
            return net.gradient(z.reshape(1, *x.shape[1:]), target[i]).reshape(-1)

        points = naive_path(
            gradient, x[i].reshape(-1), start[i].reshape(-1), steps, fraction, max_distance
        )
        slopes = np.array([gradient(z) for z in points])
        moves = np.diff(points, axis=0) * (slopes[1:] + slopes[:-1]) / 2
        values[i] = moves.sum(axis=0).reshape(x.shape[1:])
    return values


def total(values):
    return values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)


@pytest.fixture(scope="module")
def dense():
    model = naive.perceptron()
    return model, naive.Net([model]), naive.inputs((5,))


# The algorithm


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_the_papers_path(options):
    model = naive.network((5, 4, 2))
    net, x = naive.Net([model]), naive.inputs((5, 4, 2))
    explanation = GIG(steps=12, baseline=0.2, **options)(model, x, CLASSES)
    expected = naive_guided_ig(net, x, CLASSES, 0.2, steps=12, **options)
    naive.close(explanation.values, expected, 1e-4)
    naive.close(explanation.scores, net.score(x, CLASSES))
    naive.close(explanation.extras["base_values"], net.score(np.full(x.shape, 0.2), CLASSES))


@pytest.mark.parametrize("shape", [(6, 2), (4, 3, 3, 1)], ids=["series", "volume"])
def test_it_is_the_papers_path_for_other_ranks(shape):
    model = naive.network(shape)
    net, x = naive.Net([model]), naive.inputs(shape)
    values = GIG(steps=6, max_distance=0.2)(model, x, 2).values
    naive.close(values, naive_guided_ig(net, x, 2, steps=6, max_distance=0.2), 1e-4)


def test_features_with_the_same_gradient_go_together():
    """Here six whose gradient is zero, which are more than make a block."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2, activation="relu")])
    kernel = np.zeros((8, 2), np.float32)
    kernel[6:] = [[1, 2], [3, 4]]
    model.set_weights([kernel, np.ones(2, np.float32)])
    net, x = naive.Net([model]), 1 + np.abs(naive.inputs((8,)))
    options = {"steps": 4, "fraction": 0.2, "max_distance": 1.0}
    values = GIG(**options)(model, x, 1).values
    naive.close(values, naive_guided_ig(net, x, 1, **options))
    assert (values[:, :6] == 0).all()


def test_features_with_small_gradients_go_first():
    """Of a b, with b zero at first, a goes all its way while that is for nothing."""
    x_in = keras.Input((2,))
    model = keras.Model(x_in, ops.prod(x_in, axis=-1, keepdims=True))
    x = np.array([[1.0, 2.0]], np.float32)
    guided = GIG(steps=10, fraction=0.5, max_distance=1.0, baseline=[0.5, 0.0])(model, x)
    straight = kx.IntegratedGradients(steps=2, baseline=[0.5, 0.0])(model, x)
    naive.close(guided.values, [[0.0, 2.0]])
    naive.close(straight.values, [[0.5, 1.5]])


def test_the_whole_way_in_one_step_is_the_mean_of_both_ends(dense):
    model, net, x = dense
    values = GIG(steps=1)(model, x, 1).values
    naive.close(values, x * (net.gradient(0 * x, 1) + net.gradient(x, 1)) / 2)


def test_without_any_distance_it_is_the_straight_line(dense):
    model, net, x = dense
    values = GIG(steps=8, max_distance=0.0, baseline=0.3)(model, x, 1).values
    weights = np.full(9, 1 / 8)
    weights[[0, -1]] /= 2
    rule = np.linspace(0, 1, 9), weights
    start = np.full(x.shape, 0.3)
    expected = naive.integrated_gradients(lambda z: net.gradient(z, 1), x, start, rule)
    naive.close(values, expected)


# Axioms


def test_more_steps_are_more_complete():
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    few, many = (GIG(steps=n, max_distance=0.1)(model, x, CLASSES) for n in (5, 60))
    gaps = [np.abs(e.extras["convergence_delta"]).max() for e in (few, many)]
    change = net.score(x, CLASSES) - net.score(0 * x, CLASSES)
    naive.close(total(many.values), change, 1e-3)
    assert gaps[1] < 1e-3 * np.abs(change).max() < gaps[0]
    gap = total(few.values) - change
    np.testing.assert_allclose(few.extras["convergence_delta"], gap, atol=1e-5)


def test_a_linear_model_is_its_weights_times_the_change():
    model = naive.randomize(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    x = naive.inputs((4,))
    explanation = GIG(steps=3, baseline=0.25, max_distance=1.0)(model, x, 2)
    naive.close(explanation.values, (x - 0.25) * model.get_weights()[0][:, 2])
    np.testing.assert_allclose(explanation.extras["convergence_delta"], 0, atol=1e-5)


def test_a_feature_without_change_gets_zero_and_takes_no_way(dense):
    model, net, x = dense
    x = x.copy()
    x[:, 3] = 0.5
    values = GIG(steps=7, baseline=0.5, max_distance=0.2)(model, x, 1).values
    assert (values[:, 3] == 0).all()
    naive.close(values, naive_guided_ig(net, x, 1, 0.5, steps=7, max_distance=0.2), 1e-4)


def test_at_the_baseline_nothing_is_attributed(dense):
    model, _, x = dense
    with pytest.warns(UserWarning, match="GuidedIG is zero everywhere for all"):
        assert not GIG(steps=3, baseline=x)(model, x, 1).values.any()


# Targets, batches, inputs


def test_the_class_of_the_input_is_followed_all_along(dense):
    model, net, x = dense
    predicted = net.scores(x).argmax(axis=1)
    assert (predicted != net.scores(-2 * x).argmax(axis=1)).any()
    explanation = GIG(steps=9, baseline=-2 * x, max_distance=0.3)(model, x)
    assert explanation.target.index.tolist() == predicted.tolist()
    expected = naive_guided_ig(net, x, predicted, -2 * x, steps=9, max_distance=0.3)
    naive.close(explanation.values, expected, 1e-4)
    naive.close(explanation.extras["base_values"], net.score(-2 * x, predicted))


def test_many_classes_and_small_batches(dense):
    model, net, x = dense
    many = np.array([[0, 1], [2, 2], [1, 0]])
    values = GIG(steps=5, max_distance=0.3)(model, x, many, batch_size=2).values
    for k in range(2):
        expected = naive_guided_ig(net, x, many[:, k], steps=5, max_distance=0.3)
        naive.close(values[:, k], expected, 1e-4)


def test_the_features_of_several_inputs_go_by_one_order():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    head = [layers.Dense(6, activation="tanh"), layers.Dense(3)]
    y = head[1](head[0](layers.Concatenate()([a, b])))
    model = naive.randomize(keras.Model([a, b], y))
    x = naive.inputs((5,))
    values = GIG(steps=6, max_distance=0.5, baseline=[0.1, 0.2])(model, [x[:, :3], x[:, 3:]], 1)
    start = np.tile([0.1, 0.1, 0.1, 0.2, 0.2], (3, 1))
    expected = naive_guided_ig(naive.Net(head), x, 1, start, steps=6, max_distance=0.5)
    naive.close(np.concatenate(values.values, axis=1), expected, 1e-4)


def test_tokens_are_moved_between_embeddings():
    stack = [layers.Embedding(9, 4), layers.Conv1D(5, 2, activation="tanh"), layers.Flatten()]
    stack = [*stack, layers.Dense(3)]
    model = naive.randomize(keras.Sequential([keras.Input((4,), dtype="int32"), *stack]))
    ids = np.random.default_rng(0).integers(1, 9, (3, 4))
    table, net = model.layers[0].get_weights()[0], naive.Net(model.layers[1:])
    start = np.broadcast_to(table[2], (3, 4, 4))
    expected = naive_guided_ig(net, table[ids], 1, start, steps=6, max_distance=0.2)
    values = GIG(steps=6, max_distance=0.2, baseline=2)(model, ids, 1).values
    naive.close(values, expected.sum(axis=-1), 1e-4)


def test_inside_another_explainer(dense):
    model, _, x = dense
    inner = GIG(steps=4, max_distance=0.3)
    around = kx.SmoothGrad(explainer=inner, samples=2, noise=0.0)
    naive.close(around(model, x, 1).values, inner(model, x, 1).values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "`steps` to be a whole number of 1 or more"),
        ({"fraction": 0.0}, "`fraction` above 0, up to 1"),
        ({"fraction": 1.5}, "`fraction` above 0, up to 1"),
        ({"max_distance": -0.1}, "`max_distance` to be a number of 0 or more"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        GIG(**options)
