"""Differentiation, compilation, conversion and random numbers: what depends on TensorFlow.

What reads or makes single operations of a graph is in `core.graph`. Everything else in the package
is written in `keras.ops`. The functions here that take symbolic tensors (`gradients`, `own`) work
inside a function that `compile` traces.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_explain.core import private
from keras_explain.core.graph import cost, traced

Tensor = Any
Nest = Any

_COMPILING = threading.RLock()
_THREAD = threading.local()


def require_tensorflow() -> None:
    """Raises an `ImportError` where Keras runs on another backend."""
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "keras_explain needs Keras on the TensorFlow backend. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}. "
            'Set the environment variable KERAS_BACKEND to "tensorflow" before importing keras.'
        )


require_tensorflow()


# Compilation


def spec(array: np.ndarray, *, free_axes: int = 1) -> tf.TensorSpec:
    """The signature of an array whose first axes take any length."""
    shape = (None,) * min(free_axes, len(array.shape)) + tuple(array.shape[free_axes:])
    return tf.TensorSpec(shape, tf.as_dtype(array.dtype))


def specs_of(nest: Nest, *, free: bool = False) -> Nest:
    """The signatures of tensors; with `free` their first axis takes any length."""

    def spec_of(tensor: Tensor) -> tf.TensorSpec:
        shape = (None, *tensor.shape[1:]) if free else tensor.shape
        return tf.TensorSpec(shape, tensor.dtype)

    return keras.tree.map_structure(spec_of, nest)


def int_spec(*shape: int | None) -> tf.TensorSpec:
    """The signature of integers; None is an axis of any length."""
    return tf.TensorSpec(shape, tf.int32)


def output_specs(function: Any) -> Nest:
    """The signatures of what a compiled function returns."""
    return keras.tree.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), function.structured_outputs
    )


def compile(fn: Callable, *specs: Nest) -> Any:
    """Traces `fn` once for arguments like `specs` and returns the compiled function.

    A `tf.function` of the user's that `fn` reaches is inlined: inside a call of its own, its layers
    and its last activation could be neither seen nor replaced.
    """
    with _COMPILING:
        return _Function(_compile(fn, *specs))


class _Function:
    """A compiled function whose errors, of TensorFlow's kernels, are told in the user's terms."""

    def __init__(self, concrete: Any) -> None:
        self._concrete = concrete
        self.structured_outputs = concrete.structured_outputs

    @property
    def multiplications(self) -> int:
        """How many it takes for a row, or more."""
        return cost.multiplications(self._concrete)

    def __call__(self, *args: Nest) -> Nest:
        try:
            return self._concrete(*args)
        except tf.errors.ResourceExhaustedError as error:
            raise ValueError(
                "Expected a batch that fits into memory. Received: one that does not. Take a "
                "smaller `batch_size`."
            ) from error
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                "Expected a model, and a function of its outputs, that can be computed for these "
                "rows. Received: an error of one of their operations, the cause above."
            ) from error


def _compile(fn: Callable, *specs: Nest) -> Any:
    calls = []

    def noted(*args: Nest) -> Nest:
        try:
            return fn(*args)
        finally:
            calls.append(traced.calls_functions())

    try:
        concrete = tf.function(noted, autograph=False).get_concrete_function(*specs)
    except Exception:
        if not any(calls):
            raise
    else:
        if not calls[-1]:
            return concrete
    return _compile_inlined(fn, *specs)


def _compile_inlined(fn: Callable, *specs: Nest) -> Callable:
    _let_threads_inline()
    before, _THREAD.inlines = getattr(_THREAD, "inlines", False), True
    try:
        return tf.function(fn, autograph=False).get_concrete_function(*specs)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise ValueError(
            "The model calls a tf.function with Python control flow on tensors, which can't be "
            "opened to explain what is inside. Remove its @tf.function decorator, or write the "
            f"control flow with keras.ops.cond and keras.ops.while_loop. Cause: {error}"
        ) from error
    finally:
        _THREAD.inlines = before


@functools.cache
def _let_threads_inline() -> None:
    """Lets a thread run what is inside of each `tf.function` that it calls.

    TensorFlow's switch for this, `tf.config.run_functions_eagerly`, is one for all threads. Each
    `tf.function` asks whether it is set; its answer is the same as before in all other threads.
    """
    name = "_run_functions_eagerly"
    before = private.get(name).fget
    inlines = property(lambda f: getattr(_THREAD, "inlines", False) or before(f))
    setattr(type(tf.function(lambda: None)), name, inlines)


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor, also a sparse or ragged one."""
    return keras.ops.is_tensor(value)


def is_symbolic(value: Any) -> bool:
    """Whether `value` is a tensor of a graph."""
    return tf.is_tensor(value) and not hasattr(value, "numpy")


def to_numpy(value: Any) -> np.ndarray:
    """An array of anything array-like: also of a tensor, a sparse one, or a variable.

    Raises:
        TypeError: A ragged tensor, which Keras would fill up with zeros, that may be data.
    """
    if isinstance(value, keras.Variable):
        return value.numpy()
    if isinstance(value, tf.RaggedTensor):
        raise TypeError("Expected rows of one length. Received: a ragged tensor.")
    if isinstance(value, tf.SparseTensor):
        return tf.sparse.to_dense(value).numpy()
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)


def choose(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where the condition holds, else `b`; of texts too, which `keras.ops.where` refuses."""
    return tf.where(condition, a, b)


def text_like(x: Tensor, text: str) -> Tensor:
    """One text everywhere, of the shape of `x`."""
    return tf.fill(tf.shape(x), text)


def to_tensors(nest: Nest) -> Nest:
    """The arrays of a nest as tensors, so that repeated calls don't convert them again."""
    return keras.tree.map_structure(tf.convert_to_tensor, nest)


# Linear algebra on the host: where BLAS takes several threads, they go on spinning for a while
# beside TensorFlow's, and how many it takes is a setting of the whole process.


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of two matrices of one dtype."""
    return tf.linalg.matmul(a, b).numpy()


def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """X of `a x = b`, matrices of one dtype, or stacks of them.

    Raises:
        numpy.linalg.LinAlgError: `a` has no inverse.
    """
    try:
        return tf.linalg.solve(a, b).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise np.linalg.LinAlgError(error.message) from error


def cholesky(a: np.ndarray) -> np.ndarray:
    """The lower triangular L with `L L^T = a`.

    Raises:
        numpy.linalg.LinAlgError: `a` is not positive definite.
    """
    try:
        return tf.linalg.cholesky(a).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise np.linalg.LinAlgError(error.message) from error


def cholesky_solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """X of `L L^T x = b`."""
    return tf.linalg.cholesky_solve(factor, b).numpy()


def triangular_solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """X of `L x = b`."""
    return tf.linalg.triangular_solve(factor, b).numpy()


# Differentiation


def gradients(score: Tensor, sources: Sequence[Tensor]) -> list[Tensor | None]:
    """The derivative of the sum of `score` by each source; None where no path leads to it."""
    try:
        found = tf.gradients(score, list(sources))
    except LookupError as error:
        op = traced.lacking_gradient([score], sources)
        if op is None:
            raise
        raise ValueError(traced.without_gradient(op)) from error
    return [None if grad is None else tf.convert_to_tensor(grad) for grad in found]


as_written = tf.autograph.experimental.do_not_convert
"""Decorates what a user's `tf.function` calls, so that it is run and not translated."""


def reduced(fn: Callable[[Tensor], Nest], merge: Callable[[Nest, Nest], Nest], count: Any) -> Nest:
    """`merge` of `fn(0)`, `fn(1)`, ... and `fn(count - 1)`, in a loop of the graph.

    Where the count is a number, so is the loop's bound, which XLA asks for to go back through it.
    """
    most = count - 1 if isinstance(count, int) else None
    first = fn(tf.constant(0))
    if most == 0:
        return first
    return tf.while_loop(
        lambda i, _: i < count,
        lambda i, stats: (i + 1, merge(stats, fn(i))),
        (1, first),
        maximum_iterations=most,
    )[1]


def own(tensor: Tensor) -> Tensor:
    """The same values as a new node of the current graph, to differentiate by."""
    return tf.identity(tensor)


def fixed(choice: Tensor) -> Tensor:
    """The same integers or booleans, marked as a choice that is no part of what is explained."""
    return tf.raw_ops.PreventGradient(input=choice)


def outside(fn: Callable[[], Any]) -> Any:
    """What a function returns outside of the graph that is being traced, and of Keras's scopes.

    Both are a thread's own. There, variables can be made.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(fn).result()


# Distribution


def replica() -> tuple[int, int]:
    """Which replica of how many this is, under a `tf.distribute` strategy; else 0 of 1."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, tf.distribute.get_strategy().num_replicas_in_sync
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


# Random numbers


Seed = int | Tensor
"""A number draws on the host; a tensor of an int draws in the graph, other numbers."""


def random_uniform(seed: Seed, shape: Sequence[int], stream: int = 0) -> np.ndarray | Tensor:
    """Numbers in [0, 1) that depend on `seed` and `stream` alone."""
    if tf.is_tensor(seed):
        return tf.random.stateless_uniform(shape, _both(seed, stream))
    return np.random.default_rng((seed, stream)).random(shape, dtype=np.float32)


def random_permutation(seed: Seed, n: int, stream: int = 0) -> np.ndarray | Tensor:
    """The integers below `n` in an order that depends on `seed` and `stream` alone."""
    if tf.is_tensor(seed):
        return tf.argsort(tf.random.stateless_uniform((n,), _both(seed, stream)))
    return np.random.default_rng((seed, stream)).permutation(n).astype(np.int32)


def random_strata(seed: Seed, n: int) -> np.ndarray | Tensor:
    """A number in each n-th of [0, 1), float32 `[n]`.

    They are in random order, but the first half of an even number is what half as many are.
    """
    stream = 2**16 + n  # no other draws are of it
    if n % 2:
        return _within(seed, random_permutation(seed, n, stream), n, stream)
    first = random_strata(seed, n // 2)
    taken = first * n // 1
    free = taken + 1 - 2 * (taken % 2)  # the other halves of the n / 2 parts
    order, in_graph = random_permutation(seed, n // 2, stream), tf.is_tensor(seed)
    second = _within(seed, tf.gather(free, order) if in_graph else free[order], n, stream)
    return tf.concat([first, second], 0) if in_graph else np.concatenate([first, second])


def _within(seed: Seed, part: np.ndarray | Tensor, n: int, stream: int) -> np.ndarray | Tensor:
    """A number in each of some n-ths of [0, 1)."""
    share = random_uniform(seed, part.shape, stream)
    if tf.is_tensor(seed):
        return (tf.cast(part, tf.float32) + share) / n
    return ((part + share) / n).astype(np.float32)


def random_rows(seed: Seed, n: int, count: int) -> np.ndarray | Tensor:
    """`count` integers below `n` in random order, none again before all were drawn."""
    orders = [random_permutation(seed, n, stream=1 + i) for i in range(-(-count // n))]
    joined = tf.concat(orders, 0) if tf.is_tensor(seed) else np.concatenate(orders)
    return joined[:count]


def _both(seed: Tensor, stream: int) -> Tensor:
    return tf.stack([tf.cast(seed, tf.int32), stream])


def random_sobol(seed: int, n: int, dimensions: int, stream: int = 0) -> np.ndarray:
    """Points of a scrambled Sobol sequence in [0, 1), float32 `[n, dimensions]`.

    They depend on `seed` and `stream` alone.
    """
    from scipy.stats import qmc

    rng = np.random.default_rng((seed, stream))
    return qmc.Sobol(dimensions, seed=rng).random(n).astype(np.float32)


def random_directions(seed: int, count: int, dimensions: int, stream: int = 0) -> np.ndarray:
    """Random directions at right angles to each other and to (1, ..., 1), `[count, dimensions]`.

    They depend on `seed` and `stream` alone, and on `count`, which is below `dimensions`.
    """
    normal = np.random.default_rng((seed, stream)).standard_normal((dimensions, count))
    columns = np.concatenate([np.ones((dimensions, 1)), normal], axis=1)
    q, r = tf.linalg.qr(columns)
    return (q * tf.sign(tf.linalg.diag_part(r))).numpy().T[1:]


def random_keys(seed: Seed, n: int, stream: int = 0) -> np.ndarray | Tensor:
    """Keys `[n, 2]` for `random_normal`, one a pass."""
    if tf.is_tensor(seed):
        first = tf.random.stateless_uniform((), _both(seed, stream), 0, 2**31 - 1, tf.int32)
        return tf.stack([tf.repeat(first, n), tf.range(n)], axis=1)
    number = np.random.default_rng((seed, stream)).integers(2**31 - 1)
    return np.stack([np.full(n, number), np.arange(n)], axis=1).astype(np.int32)


def random_normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers `[n, *shape]`, a draw for each key (`[n, 2]`)."""
    if keys.shape[0] == 1:
        return tf.random.stateless_normal(shape, keys[0])[None]
    return tf.map_fn(
        lambda key: tf.random.stateless_normal(shape, key), keys, fn_output_signature=tf.float32
    )


def random_normal_once(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """As `random_normal`, with one draw for all equal keys: cheap where rows share them."""
    unique, position = tf.raw_ops.UniqueV2(x=keys, axis=[0])
    return ops.take(random_normal(unique, shape), position, axis=0)
