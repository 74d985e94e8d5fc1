"""Single operations and paths of a traced graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_explain import backend
from keras_explain.core.graph import averages, expressions, paths, tokens, traced


def in_a_graph(fn, *shapes):
    """What `fn` returns while it is traced for float32 inputs."""
    found = []

    def trace(*inputs):
        found.append(fn(*inputs))
        return inputs

    backend.compile(trace, *[tf.TensorSpec(shape, tf.float32) for shape in shapes])
    return found[-1]


def evaluated(fn, *arrays):
    """What `fn` returns for arrays, when traced."""
    specs = [tf.TensorSpec(np.shape(a), tf.float32) for a in arrays]
    return backend.compile(fn, *specs)(*map(tf.constant, arrays))


def types(operations):
    return [op.type for op in operations]


X = np.array([[1.0, -2.0, 3.0]], np.float32)


# Paths


def test_what_depends_on_what():
    def trace(x, y):
        a = tf.exp(x)
        b = tf.cast(tf.reduce_sum(a, axis=1) > 0, tf.int32)
        return (
            paths.depends_on(a, x),
            paths.depends_on(a, y),
            paths.depends_on(x, x),
            paths.depends_on(b, x),
            paths.depends_on(b, x, through={"Cast", "Greater"}),
            paths.depends_on(b, a, through={"Cast", "Greater", "Sum"}),
        )

    assert in_a_graph(trace, (2, 3), (2, 3)) == (True, False, True, True, False, True)


def test_what_a_loop_makes_of_tensors_around_it():
    seen = []

    def trace(x):
        def body(i, y):
            made = y * tf.exp(x)
            seen.append((paths.depends_on(made, x), paths.depends_on(i, x)))
            return i + 1, made

        tf.while_loop(lambda i, y: i < 2, body, [0, tf.zeros((2, 3))])

    in_a_graph(trace, (2, 3))
    assert seen == [(True, False)]


def test_parameters_are_made_of_no_input():
    weight = tf.Variable(np.ones((3, 3), np.float32))
    given = tf.constant(X)

    def trace(x):
        shaped = weight * tf.raw_ops.OnesLike(x=x[:1])
        return [paths.is_parameter(t) for t in (weight + given, shaped, x @ weight, x)]

    assert in_a_graph(trace, (2, 3)) == [True, True, False, False]


def test_operations_between_are_those_of_both_ends():
    def trace(x):
        before = tf.exp(x)
        middle = tf.tanh(before)
        tf.sin(before)  # leads to nothing
        after = tf.square(middle) + tf.cos(before) * tf.zeros_like(before)
        return sorted(types(paths.between([after], [before])))

    assert in_a_graph(trace, (2, 3)) == ["AddV2", "Cos", "Mul", "Square", "Tanh"]


def test_operations_between_come_behind_those_that_they_read():
    def trace(x):
        y = tf.exp(x)
        for _ in range(3):
            y = tf.concat([y, tf.tanh(y) * y], axis=1)
        found = paths.between([y], [x])
        made = [id(t) for op in found for t in op.outputs]
        place = {key: i for i, key in enumerate(made)}
        reads = [
            (place[id(op.outputs[0])], place.get(id(t), -1)) for op in found for t in op.inputs
        ]
        return len(found), all(here > there for here, there in reads)

    assert in_a_graph(trace, (2, 3)) == (10, True)


def test_a_mask_is_no_path_of_numbers():
    def trace(x):
        mask = tf.cast(x > 0, tf.float32)
        y = tf.exp(x) * mask
        numbers = types(paths.between([y], [x], paths.is_continuous))
        return sorted(types(paths.between([y], [x]))), numbers

    assert in_a_graph(trace, (2, 3)) == (["Cast", "Exp", "Greater", "Mul"], ["Exp", "Mul"])


def test_what_all_paths_cross():
    def trace(x):
        one = tf.exp(x)
        left, right = tf.tanh(one), tf.sin(one)
        both = left + right
        last = tf.square(both)
        crossed = paths.crossings(last, x)
        return [id(t) in crossed for t in (x, one, left, right, both, last)]

    assert in_a_graph(trace, (2, 3)) == [True, True, False, False, True, True]


def test_a_path_beside_a_loop_crosses_nothing_in_it():
    def trace(x):
        around = tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y * 2.0), [0, x])[1]
        alone = tf.square(around)
        beside = alone + x
        return [id(t) in paths.crossings(beside, x) for t in (alone, beside)] + [
            id(alone) in paths.crossings(tf.exp(alone), x)
        ]

    assert in_a_graph(trace, (2, 3)) == [False, True, True]


def test_a_path_goes_through_lists_of_tensors_and_starts_at_integers():
    def trace(x):
        each = tf.map_fn(tf.exp, x)
        whole = tf.cast(x, tf.int32)
        number = tf.cast(whole, tf.float32)
        return (
            id(each) in paths.crossings(tf.square(each), x),
            id(number) in paths.crossings(tf.square(number), whole),
        )

    assert in_a_graph(trace, (2, 3)) == (True, True)


# Single operations


@pytest.mark.parametrize(
    "fn",
    [
        tf.exp,
        lambda x: tf.concat([x, x], axis=1),
        lambda x: tf.split(x, 3, axis=1)[1],
        lambda x: tf.identity_n([x, 2 * x])[1],
        lambda x: tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * y), [0, x])[1],
        lambda x: tf.raw_ops.Squeeze(input=x[:, None], axis=[1]),
        lambda x: tf.nn.conv1d(x[..., None], tf.ones((2, 1, 4)), 1, "SAME"),
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x * 3),
        lambda x: tf.nn.silu(x),
    ],
)
def test_a_replayed_operation_is_the_same_of_other_inputs(fn):
    def trace(x, other):
        y = fn(x)
        return traced.repeated([y], [x], [other])[0], fn(other)

    found, expected = evaluated(trace, X, 2 * X - 1)
    np.testing.assert_array_equal(found, expected)


def test_a_tape_sees_what_is_replayed():
    weight = tf.Variable(np.eye(3, dtype=np.float32))

    def trace(x):
        with tf.GradientTape() as tape:
            product = x @ weight
            again = traced.replay(product.op, [x * weight[0], 1.0 * weight])[0]
            loss = tf.reduce_sum(traced.replay(tf.square(x).op, [again])[0])
        return tape.gradient(loss, weight)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square((X * weight[0]) @ weight))
    np.testing.assert_allclose(evaluated(trace, X), tape.gradient(loss, weight), rtol=1e-6)


def test_a_tape_sees_what_is_led_to_another_tensor():
    weight = tf.Variable(2.0)

    def trace(x):
        with tf.GradientTape() as tape:
            some, others = x > 0, x < 0
            loss = tf.where(some, weight * x, 0.0)
            traced.redirect(some, others)
        return loss, tape.gradient(loss, weight)

    loss, slope = evaluated(trace, X)
    np.testing.assert_array_equal(loss, [[0.0, -4.0, 0.0]])
    assert slope == -2


def test_a_replayed_operation_has_its_own_gradient():
    @tf.custom_gradient
    def doubled(x):
        return 1.0 * x, lambda upstream: 2.0 * upstream * x

    def trace(x):
        y = doubled(x)
        again = traced.replay(y.op, [tf.exp(t) for t in y.op.inputs])[y.value_index]
        return tf.gradients(y, x)[0], tf.gradients(again, x)[0]

    found, again = evaluated(trace, X)
    np.testing.assert_array_equal(found, 2 * X)
    np.testing.assert_allclose(again, np.exp(X), rtol=1e-6)


def test_what_an_operation_sends_back():
    def trace(x):
        product = tf.multiply(x, 2 * x)
        halves = tf.split(x, [1, 2], axis=1)
        return (
            traced.pull(product.op, [x]),
            traced.pull_from(product, x),
            traced.pull(halves[0].op, [None, halves[1]])[0],
            traced.pull(tf.argmax(x).op, [None]),
        )

    by_op, by_tensor, of_one, of_none = evaluated(trace, X)
    for back in (by_op, by_tensor):
        np.testing.assert_array_equal(back, [2 * X * X, X * X])
    np.testing.assert_array_equal(of_one, [[0, *X[0, 1:]]])
    assert of_none == [None, None]


def lacking(x):
    """A number without a registered gradient."""
    return tf.raw_ops.SparseReduceMax(
        input_indices=[[0, 0]], input_values=x[0, :1], input_shape=[1, 1], reduction_axes=[1]
    )


def test_an_operation_without_a_gradient_is_named():
    with pytest.raises(ValueError, match=r"Expected operations with a gradient.*SparseReduceMax"):
        in_a_graph(lambda x: traced.pull(lacking(x).op, [tf.ones(1)]), (1, 3))
    with pytest.raises(ValueError, match=r"Expected operations with a gradient.*SparseReduceMax"):
        in_a_graph(lambda x: backend.gradients(tf.exp(lacking(tf.exp(x))), [x]), (1, 3))


def test_an_operation_without_a_gradient_is_found_in_a_loop():
    def trace(x):
        y = tf.while_loop(
            lambda i, y: i < 2, lambda i, y: (i + 1, y * lacking(y)), [0, x], maximum_iterations=2
        )[1]
        backend.gradients(y, [x])

    with pytest.raises(ValueError, match=r"Expected operations with a gradient.*SparseReduceMax"):
        in_a_graph(trace, (1, 3))


def test_all_that_read_a_tensor_read_another_one():
    def trace(x):
        y = tf.exp(x)
        readers = tf.concat([y, 2 * y], axis=1), y * y
        traced.redirect(y, tf.zeros_like(y))
        return (*readers, y)

    joined, squared, y = evaluated(trace, X)
    assert not np.any(joined)
    assert not np.any(squared)
    np.testing.assert_allclose(y, np.exp(X), rtol=1e-6)


def test_the_bodies_of_loops_and_branches():
    def trace(x):
        loop = tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, tf.tanh(y)), [0, x])[1]
        while loop.op.type == "Identity":
            loop = loop.op.inputs[0]
        choice = tf.cond(x[0, 0] > 0, lambda: tf.exp(x), lambda: tf.sin(x))
        while choice.op.type == "Identity":
            choice = choice.op.inputs[0]
        inside = [
            {op.type for body in traced.bodies(t.op) for op in body.get_operations()}
            for t in (loop, choice)
        ]
        return (
            "Tanh" in inside[0],
            {"Exp", "Sin"} <= inside[1],
            traced.bodies(tf.exp(x).op),
            traced.types_inside(loop.op) & {"Tanh", "Less"},
            traced.types_inside(tf.exp(x).op),
        )

    assert in_a_graph(trace, (2, 3)) == (True, True, [], {"Tanh"}, set())


# Known numbers


def test_constants():
    def trace(x):
        rank = tf.constant(3)
        order = tf.concat([[0], tf.range(2, rank), [1]], axis=0)
        stacked = tf.stack([rank - 1, rank + 1])
        known = [traced.constant(t) for t in (order, stacked, tf.shape(x), tf.constant(X), x)]
        return [None if value is None else value.tolist() for value in known]

    assert in_a_graph(trace, (2, 3)) == [[0, 2, 1], [2, 4], [2, 3], X.tolist(), None]


def test_numbers_from_the_code_alone():
    given, variable = tf.constant(X), tf.Variable(X)

    def trace(x):
        eye = tf.transpose(tf.one_hot([2, 0], 3)) * 2.0
        tensors = (eye, given * 2.0, variable * 1.0, x, tf.random.uniform((3,)))
        values = [traced.literal(t) for t in tensors]
        shaped = tf.ones(tf.shape(x)) * 2.0
        return (
            [None if v is None else np.asarray(v).tolist() for v in values],
            [traced.is_literal(t) for t in (*tensors[:4], shaped)],
            [traced.is_number(t) for t in (x, eye)],
        )

    values, literal, numbers = in_a_graph(trace, (None, 3))
    assert values == [[[0, 2], [0, 0], [2, 0]], (2 * X).tolist(), None, None, None]
    assert literal == [True, True, False, False, True]
    assert numbers == [False, False]


# What is read off the graph for others


def test_single_tokens_and_tokens_that_meet():
    def trace(x):
        flat = tf.reduce_sum(x, axis=1)
        attended = tf.matmul(x, x, transpose_b=True) @ x
        weighted = tf.reshape(x, (-1, 3)) @ tf.ones((3, 3))
        return (
            tokens.is_read_singly(x, x[:, 0] * 2.0),
            tokens.is_read_singly(x, x[:, 1:2] * 2.0),
            tokens.is_read_singly(x, x[:, 1:3] * 2.0),
            tokens.is_read_singly(x, flat),
            tokens.meet(x, attended),
            tokens.meet(x, weighted),
            tokens.is_weighted(weighted, [x]),
            tokens.is_weighted(flat, [x]),
        )

    assert in_a_graph(trace, (2, 4, 3)) == (True, True, False, False, True, False, True, False)


def test_scores_of_an_average():
    def trace(x):
        mean = tf.reduce_mean(x, axis=[1, 2])
        broken = averages.not_affine(tf.exp(mean), x, (1, 2))
        return (
            averages.not_affine(mean @ tf.ones((3, 2)) + 1.0, x, (1, 2)),
            broken.partition(" ")[0],
            averages.not_affine(tf.reduce_mean(x, axis=[1]), x, (1, 2)).partition(" ")[0],
            averages.not_affine(mean * mean, x, (1, 2)).partition(" ")[0],
        )

    assert in_a_graph(trace, (2, 4, 5, 3)) == (None, "'Exp'", "'Mean'", "'Mul'")


def test_what_keeps_the_axes_of_a_tensor():
    def trace(x):
        made = [tf.exp(x), tf.expand_dims(x, -1), tf.expand_dims(x, 1)]
        tf.reduce_sum(x, axis=1)
        names = {id(t): i for i, t in enumerate(made)}
        alike = expressions.alike(x, grows=True)
        same = expressions.alike(x, grows=False)
        return (
            sorted((names[id(t)], axis) for t, axis in alike if axis is not None),
            [names[id(t)] for t, axis in same],
        )

    assert in_a_graph(trace, (2, 4, 5)) == ([(1, -1), (2, 1)], [0])


def test_a_tensor_of_another_graph_is_not_here():
    inside = []

    def trace(x):
        def body(i, y):
            inside.append(y)
            return i + 1, y * 2

        tf.while_loop(lambda i, y: i < 2, body, [0, x])
        return [traced.is_here(t) for t in (x, inside[0], tf.exp(x), X, None)]

    assert in_a_graph(trace, (2, 3)) == [True, False, True, False, False]
    assert not traced.is_here(keras.ops.ones(2))
