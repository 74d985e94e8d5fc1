"""The loop that optimises inputs: beside Keras's optimizers, and what it promises."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_explain import backend
from keras_explain.core.run.optimise import Judged, best_of, optimise
from tests import naive

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 3, 2)).astype("float32")
SCALES = RNG.uniform(0.5, 2.0, (4, 3, 2)).astype("float32")
START = np.full((4, 3, 2), 0.2, "float32")

SGD = functools.partial(keras.optimizers.SGD, 0.1)


def bumpy(values, scales, centres):
    """A quadratic with ripples, `[n]`."""
    return ops.sum(scales * (values - centres) ** 2 + 0.1 * ops.cos(3 * values), axis=(-2, -1))


def loop(optimizer, done=None, **options):
    """The compiled loop on bumpy rows: what it returns, as arrays."""

    def run(start, centres, scales):
        def objective(values, step):
            loss = bumpy(values, scales, centres)
            return Judged(loss, done=None if done is None else done(values, loss))

        return optimise(objective, start, optimizer, **{"steps": 60} | options)

    compiled = backend.compile(run, *[backend.spec(START)] * 3)

    def found(start, centres, scales):
        result = compiled(*map(tf.constant, (start, centres, scales)))
        return keras.tree.map_structure(np.asarray, result)

    return found


def found(optimizer, start=START, centres=CENTRES, scales=SCALES, **options):
    return loop(optimizer, **options)(start, centres, scales)


def in_python(make, row, steps):
    """One row by Keras's optimizer itself."""
    variable, optimizer = keras.Variable(START[row]), make()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = bumpy(variable, SCALES[row], CENTRES[row])
        optimizer.apply([tape.gradient(loss, variable.value)], [variable])
    return variable.numpy()


# Optimizers


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(keras.optimizers.Adam, 0.05, amsgrad=True),
        functools.partial(keras.optimizers.SGD, 0.02, momentum=0.9, nesterov=True),
        functools.partial(keras.optimizers.RMSprop, 0.01),
        functools.partial(keras.optimizers.AdamW, 0.05, weight_decay=0.3),
        functools.partial(keras.optimizers.Nadam, 0.05),
        functools.partial(keras.optimizers.Adam, 0.05, clipnorm=0.1),
        functools.partial(keras.optimizers.Adafactor, 0.05),
        functools.partial(
            keras.optimizers.SGD, keras.optimizers.schedules.CosineDecay(0.1, 40), clipvalue=0.5
        ),
    ],
    ids=["adam", "momentum", "rmsprop", "decay", "nadam", "clipped", "adafactor", "schedule"],
)
def test_a_row_gets_what_the_optimizer_makes_of_it(make):
    """Also where it keeps numbers of its own, or takes norms over all that it is given."""
    rows = [in_python(make, row, steps=20) for row in range(4)]
    assert np.ptp(rows - START) > 0.3
    naive.close(found(make, steps=20).values, rows, 1e-6)


def test_an_optimizer_that_is_given_stays_as_it_is():
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build([keras.Variable(np.zeros(7))])
    expected = found(functools.partial(keras.optimizers.Adam, 0.05)).values
    np.testing.assert_array_equal(found(optimizer).values, expected)
    assert optimizer.iterations == 0
    assert optimizer.variables[2].shape == (7,)


def test_an_optimizer_can_be_made_where_variables_cannot():
    with keras.StatelessScope():
        assert np.isfinite(found(SGD).values).all()


@pytest.mark.parametrize(
    "options",
    [{"use_ema": True}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 2.0}],
)
def test_an_optimizer_over_several_steps_is_refused(options):
    with pytest.raises(ValueError, match="updates what it is given at each step"):
        found(functools.partial(SGD, **options))


def test_a_wrapped_optimizer_is_refused():
    with pytest.raises(ValueError, match="LossScaleOptimizer"):
        found(lambda: keras.optimizers.LossScaleOptimizer(SGD()))


# Optima


def quadratic(start, steps=80, **options):
    """`(v - (2, -3))^2` for each row and nest of values, by Adam."""

    def run(start):
        def objective(values, step):
            leaves = keras.tree.flatten(values)
            return Judged(sum(ops.sum((v - (2.0, -3.0)) ** 2, axis=1) for v in leaves))

        return optimise(objective, start, SGD, steps=steps, **options)

    specs = keras.tree.map_structure(backend.spec, start)
    result = backend.compile(run, specs)(backend.to_tensors(start))
    return keras.tree.map_structure(np.asarray, result)


def test_the_optimum_of_a_convex_loss():
    result = quadratic(np.zeros((3, 2), "float32"))
    naive.close(result.values, [[2, -3]] * 3, 1e-6)
    assert (result.steps == 80).all()
    assert not result.done.any()
    assert np.abs(result.loss).max() < 1e-9


def test_a_nest_is_optimised_together():
    start = {"a": np.zeros((3, 2), "float32"), "b": [np.ones((3, 2), "float32")]}
    values = quadratic(start).values
    naive.close(values["a"], [[2, -3]] * 3, 1e-6)
    naive.close(values["b"][0], [[2, -3]] * 3, 1e-6)


def test_a_projection_holds_exactly():
    result = quadratic(np.zeros((3, 2), "float32"), project=lambda v: ops.clip(v, -1.5, 1.5))
    np.testing.assert_array_equal(result.values, [[1.5, -1.5]] * 3)


def test_axes_of_free_length():
    """One compiled function serves all of them."""

    def run(start):
        return optimise(lambda v, _: Judged(ops.sum((v - 2) ** 2, axis=1)), start, adam, steps=30)

    adam = functools.partial(keras.optimizers.Adam, 0.1)
    compiled = backend.compile(run, backend.spec(np.zeros((1, 1), "float32"), free_axes=2))
    by_one = np.asarray(compiled(tf.zeros((1, 1))).values)
    for shape in (2, 5), (1, 3):
        naive.close(compiled(tf.zeros(shape)).values, np.full(shape, by_one[0, 0]), 1e-6)
    assert 1 < by_one[0, 0] < 3


# Stopping


def below(threshold):
    return lambda values, loss: loss < threshold


def test_each_row_stops_by_itself_and_stays_as_it_was():
    """As a row does that makes so many steps without a rule."""
    result = found(functools.partial(keras.optimizers.Adam, 0.05), done=below(2.0), steps=40)
    assert len(set(result.steps)) > 2
    np.testing.assert_array_equal(result.done, result.steps < 40)
    np.testing.assert_array_equal(result.done, result.loss < 2)
    for row, steps in enumerate(result.steps):
        make = functools.partial(keras.optimizers.Adam, 0.05)
        naive.close(result.values[row], in_python(make, row, steps), 1e-6)


def test_the_loop_ends_when_all_rows_have_stopped():
    judged = tf.Variable(0)

    def run(start):
        def objective(values, step):
            judged.assign_add(1)
            return Judged(ops.sum(values**2, axis=1), done=step >= ops.convert_to_tensor([1, 3]))

        return optimise(objective, start, SGD, steps=50).steps

    steps = backend.compile(run, backend.spec(np.ones((2, 2), "float32")))(tf.ones((2, 2)))
    np.testing.assert_array_equal(steps, [1, 3])
    assert judged.numpy() == 4


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_row_alone_is_as_in_a_batch(keep):
    adam = functools.partial(keras.optimizers.Adam, 0.2, global_clipnorm=1.0)
    find = loop(adam, done=below(2.0), keep=keep, watch=lambda values, step: values)
    together = find(START, CENTRES, SCALES)
    for row in range(4):
        some = slice(row, row + 1)
        alone = find(START[some], CENTRES[some], SCALES[some])
        for of_all, of_one in zip(together, alone, strict=True):
            naive.close(of_one[0], of_all[row], 1e-6)


def test_a_row_stops_where_its_loss_is_not_finite():
    start, centres = START[:2], np.array(CENTRES[:2])
    centres[1] = np.nan
    result = found(
        SGD, start, centres, SCALES[:2], watch=lambda values, step: ops.ones_like(values)
    )
    np.testing.assert_array_equal(result.steps, [60, 0])
    np.testing.assert_array_equal(result.values[1], start[1])
    np.testing.assert_array_equal(result.watched[:, 0, 0], [60, 0])
    assert np.isnan(result.loss[1])
    assert not result.done.any()


def test_a_row_that_has_stopped_stays_so():
    """Whatever is said of it later: a loss that was not finite does not become good enough."""

    def run(start):
        def objective(values, step):
            broken = ops.convert_to_tensor([True, False]) & (step == 1)
            loss = ops.where(broken, np.inf, ops.sum(values**2, axis=1))
            return Judged(loss, done=ops.broadcast_to(step >= 3, (2,)))

        return optimise(objective, start, SGD, steps=50)

    result = backend.compile(run, backend.spec(np.ones((2, 2), "float32")))(tf.ones((2, 2)))
    np.testing.assert_array_equal(result.steps, [1, 3])
    np.testing.assert_array_equal(result.done, [False, True])
    naive.close(result.values, [[0.8, 0.8], [0.512, 0.512]], 1e-6)


# What is kept


def test_the_best_values_are_kept():
    """A step that is too long leaves the optimum; the best is among those that were judged."""
    judged = [START.astype(float)]
    for _ in range(11):
        v = judged[-1]
        judged.append(v - 0.55 * (2 * SCALES * (v - CENTRES) - 0.3 * np.sin(3 * v)))
    losses = np.array([np.asarray(bumpy(v, SCALES, CENTRES)) for v in judged])
    best = losses.argmin(axis=0)
    assert len(set(best)) > 1
    sgd = functools.partial(keras.optimizers.SGD, 0.55)
    result = found(sgd, steps=12, keep="best")
    naive.close(result.values, [judged[i][row] for row, i in enumerate(best)], 1e-6)
    naive.close(result.rank, losses.min(axis=0), 1e-6)
    naive.close(result.loss, losses[-1], 1e-4)


def test_values_of_the_least_rank_are_kept():
    """The shortest of those that are good enough, and the start where none is."""

    def run(start):
        def objective(values, step):
            size = ops.sum(values**2, axis=1)
            rank = ops.where(values[:, 0] >= ops.convert_to_tensor([1.0, 9.0]), size, np.inf)
            return Judged(-values[:, 0], rank=rank)

        return optimise(objective, start, SGD, steps=20, keep="best")

    result = backend.compile(run, backend.spec(np.ones((2, 1), "float32")))(tf.zeros((2, 1)))
    naive.close(result.values, [[1.0], [0.0]], 1e-6)
    assert np.asarray(result.rank)[1] == np.inf


def test_what_is_watched_is_summed():
    late = found(
        SGD, steps=5, watch=lambda values, step: {"v": values * ops.cast(step > 2, "float32")}
    )
    naive.close(late.watched["v"], found(SGD, steps=4).values + found(SGD, steps=5).values, 1e-6)


def test_the_best_of_several_starts():
    """Of a loss with two valleys, the lower one is found from a start in it."""

    def run(start):
        def objective(values, step):
            v = values[:, 0]
            return Judged((v**2 - 1) ** 2 + 0.3 * v)

        sgd = functools.partial(keras.optimizers.SGD, 0.05)
        return optimise(objective, start, sgd, steps=60, keep="best")

    starts = np.array([[2.0], [-2.0], [0.5], [-0.5], [-0.4], [0.6]], "float32")
    all_ = backend.compile(run, backend.spec(starts))(tf.constant(starts))
    signs = np.sign(np.asarray(all_.values))
    np.testing.assert_array_equal(signs, np.sign(starts))
    best = best_of(all_, 2)
    assert (np.asarray(best.values) < -1).all()
    np.testing.assert_array_equal(best.loss, np.asarray(all_.loss)[[1, 3, 4]])


def test_a_start_without_a_rank_is_not_the_best():
    found_ = keras.tree.map_structure(
        ops.convert_to_tensor, found(SGD, START[:2], CENTRES[:2], SCALES[:2])
    )
    broken = found_._replace(rank=ops.convert_to_tensor([np.nan, 1.0]))
    np.testing.assert_array_equal(best_of(broken, 2).values[0], found_.values[1])


# The graph


def test_it_is_one_loop_under_xla():
    def run(start):
        objective = lambda v, _: Judged(bumpy(v, SCALES, CENTRES))  # noqa: E731
        adam = functools.partial(keras.optimizers.Adam, 0.05)
        return optimise(objective, start, adam, steps=60, keep="best").values

    compiled = tf.function(run, autograph=False, jit_compile=True)(tf.constant(START))
    expected = found(functools.partial(keras.optimizers.Adam, 0.05), keep="best").values
    naive.close(compiled, expected, 1e-5)


def test_noise_keyed_by_seed_and_step():
    """Rows share what is drawn, and other steps draw other numbers."""

    def run(start, seed):
        def objective(values, step):
            noise = backend.random_normal(ops.stack([[seed, step]]), (2,))
            return Judged(ops.sum((values - noise) ** 2, axis=1))

        return optimise(objective, start, SGD, steps=3).values

    def of(rows, seed):
        specs = backend.spec(np.ones((1, 2), "float32")), backend.int_spec()
        return np.asarray(backend.compile(run, *specs)(tf.zeros((rows, 2)), tf.constant(seed)))

    together = of(3, seed=5)
    np.testing.assert_array_equal(together, [together[0]] * 3)
    np.testing.assert_array_equal(of(1, seed=5)[0], together[0])
    draws = [tf.random.stateless_normal((2,), (5, step)).numpy() for step in range(3)]
    expected = np.zeros(2)
    for draw in draws:
        expected = expected - 0.2 * (expected - draw)
    naive.close(together[0], expected, 1e-6)
    assert np.abs(of(1, seed=6) - together[0]).max() > 0.01


def test_a_loss_that_does_not_change_is_an_error():
    def run(start):
        return optimise(
            lambda v, _: Judged(ops.sum(v[0], axis=1)), [start, start + 1], SGD, steps=2
        )

    with pytest.raises(ValueError, match="changes with each of the values"):
        backend.compile(run, backend.spec(np.ones((2, 2), "float32")))
