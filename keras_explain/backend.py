"""Differentiation, compilation and random numbers: all that depends on TensorFlow.

Everything else in the package is written in `keras.ops`. The functions here that take symbolic
tensors (`gradients`, `depends_on`) work inside a function that `compile` traces.
"""

import functools
import re
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.python.framework.ops import get_gradient_function

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

    def __call__(self, *args: Nest) -> Nest:
        try:
            return self._concrete(*args)
        except tf.errors.ResourceExhaustedError as error:
            raise ValueError(
                "Expected a batch that fits into memory. Received: one that does not. Take a "
                "smaller `batch_size`."
            ) from error
        except tf.errors.InvalidArgumentError as error:
            found = re.search(r"indices\[.*?\] = (-?\d+) is not in \[0, (\d+)\)", str(error))
            if found is None:
                raise ValueError(
                    "Expected a model, and a function of its outputs, that can be computed for "
                    "these rows. Received: an error of one of their operations, the cause above."
                ) from error
            raise ValueError(
                f"Expected token ids from 0 to {int(found[2]) - 1}, the entries of an Embedding. "
                f"Received: {found[1]}, in the input, the baseline or the background."
            ) from error


def _compile(fn: Callable, *specs: Nest) -> Any:
    graphs = []

    def noted(*args: Nest) -> Nest:
        graphs.append(tf.compat.v1.get_default_graph())
        return fn(*args)

    try:
        concrete = tf.function(noted, autograph=False).get_concrete_function(*specs)
    except Exception:
        if not (graphs and _calls_functions(graphs[0])):
            raise
    else:
        if not _calls_functions(concrete.graph):
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
    function, name = type(tf.function(lambda: None)), "_run_functions_eagerly"
    asked = vars(function).get(name)
    if not isinstance(asked, property):
        raise RuntimeError(
            f"Expected a tf.function to have the property {name!r}. Received: TensorFlow "
            f"{tf.__version__}, in which it has none. Remove the @tf.function decorators in the "
            "model, or use a version that keras-explanations is tested with."
        )
    before: Any = asked.fget
    setattr(function, name, property(lambda f: getattr(_THREAD, "inlines", False) or before(f)))


def _calls_functions(graph: tf.Graph) -> bool:
    called = {"PartitionedCall", "StatefulPartitionedCall"}
    return any(op.type in called for op in graph.get_operations())


def is_tensor(value: Any) -> bool:
    """Whether `value` is a tensor, also a sparse or ragged one."""
    return keras.ops.is_tensor(value)


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
    """X of `a x = b`, matrices of one dtype.

    Raises:
        numpy.linalg.LinAlgError: `a` has no inverse.
    """
    try:
        return tf.linalg.solve(a, b).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise np.linalg.LinAlgError(error.message) from error


# Differentiation


def gradients(score: Tensor, sources: Sequence[Tensor]) -> list[Tensor | None]:
    """The derivative of the sum of `score` by each source; None where no path leads to it."""
    try:
        found = tf.gradients(score, list(sources))
    except LookupError as error:
        missing = re.search(r"operation ?'(.+?)' \(op type: (\w+)\)", str(error))
        if missing is None:
            raise
        raise ValueError(_without_gradient(missing[2], missing[1])) from error
    return [None if grad is None else tf.convert_to_tensor(grad) for grad in found]


def own(tensor: Tensor) -> Tensor:
    """The same values as a new node of the current graph, to differentiate by."""
    return tf.identity(tensor)


def fixed(choice: Tensor) -> Tensor:
    """The same integers or booleans, marked as a choice that is no part of what is explained."""
    return tf.raw_ops.PreventGradient(input=choice)


def is_here(value: Any) -> bool:
    """Whether `value` is a tensor of the graph that is being traced (not of a loop's body)."""
    return tf.is_tensor(value) and getattr(value, "graph", None) is tf.compat.v1.get_default_graph()


def depends_on(tensor: Tensor, source: Tensor, through: Container[str] | None = None) -> bool:
    """Whether a path of operations leads from `source` to `tensor`; `through` names their types."""
    seen, stack = set(), [tensor]
    while stack:
        current = stack.pop()
        if current is source:
            return True
        if id(current.op) not in seen and (through is None or current.op.type in through):
            seen.add(id(current.op))
            stack.extend(current.op.inputs)
            stack.extend(_captured(current))
    return False


def _captured(tensor: Tensor) -> list[Tensor]:
    """What a placeholder in the body of a loop or branch stands for outside of it."""
    captures = getattr(tensor.graph, "captures", ())
    return [outer for outer, inner in captures if inner is tensor and hasattr(outer, "graph")]


def is_parameter(tensor: Tensor) -> bool:
    """Whether a tensor is made of variables and constants alone, and of no input."""
    captured = {id(inner) for _, inner in getattr(tensor.graph, "captures", ())}
    seen, stack = set(), [tensor]
    while stack:
        op = stack.pop().op
        if id(op) in seen or op.type in _OF_NO_VALUE:
            continue
        seen.add(id(op))
        is_own = op.type in ("Const", "VarHandleOp") or id(op.outputs[0]) in captured
        if not op.inputs and not is_own:
            return False
        stack.extend(op.inputs)
    return True


_OF_NO_VALUE = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})


# Single operations of the traced graph


def pull(op: Any, upstream: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The vector-Jacobian product of one operation: for each of its inputs, a tensor or None.

    Args:
        op: An operation of the graph that is being traced.
        upstream: What comes back to each of its outputs; None for nothing.
    """
    try:
        gradient = get_gradient_function(op)
    except LookupError as error:
        raise ValueError(_without_gradient(op.type, op.name)) from error
    if gradient is None:
        return [None] * len(op.inputs)
    filled = [_zeros(y) if u is None else u for y, u in zip(op.outputs, upstream, strict=True)]
    back = gradient(op, *filled)
    back = list(back) if isinstance(back, (list, tuple)) else [back]
    return [None if b is None else tf.convert_to_tensor(b) for b in back]


def _without_gradient(kind: str, name: str) -> str:
    return (
        f"Expected operations with a gradient. Received: {kind!r} ({name}), which TensorFlow has "
        "none for. Explain a layer after it, or use a method without gradients."
    )


def _zeros(tensor: Tensor) -> Tensor | None:
    changes = tensor.dtype.is_floating or tensor.dtype == tf.variant
    return tf.zeros_like(tensor) if changes else None


def replay(op: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of an operation of the traced graph for other inputs."""
    repeated = op.graph.create_op(
        op.type, list(inputs), [y.dtype for y in op.outputs], attrs=dict(op.node_def.attr)
    )
    return list(repeated.outputs)


def repeated(op: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """As `replay`, for an operation of TensorFlow's own, and recorded on an active tape."""
    definition, left = op.op_def, list(inputs)
    inferred, arguments = set(), {}
    for arg in definition.input_arg:
        inferred |= {arg.type_attr, arg.number_attr, arg.type_list_attr}
        count = op.get_attr(arg.number_attr) if arg.number_attr else 1
        arguments[arg.name] = left[:count] if arg.number_attr else left[0]
        left = left[count:]
    arguments |= {a.name: op.get_attr(a.name) for a in definition.attr if a.name not in inferred}
    axis = {"dim": "axis", "split_dim": "axis", "squeeze_dims": "axis"}  # as Python names them
    found = getattr(tf.raw_ops, op.type)(**{axis.get(k, k): v for k, v in arguments.items()})
    return list(found) if isinstance(found, (list, tuple)) else [found]


def operations() -> list[Any]:
    """All operations of the graph that is being traced, in the order of their making."""
    return tf.compat.v1.get_default_graph().get_operations()


def redirect(tensor: Tensor, other: Tensor) -> None:
    """Makes all operations that read a tensor of the traced graph read another one."""
    update_input = _private(tf.Operation, "_update_input")
    for op in tensor.consumers():
        for i, operand in enumerate(op.inputs):
            if operand is tensor:
                update_input(op, i, other)


_CALLING = frozenset({"While", "If", "Case", "PartitionedCall", "StatefulPartitionedCall"})


def bodies(op: Any) -> list[tf.Graph]:
    """The graphs of the functions that an operation calls: a loop's, or those of branches."""
    if op.type.removeprefix("Stateless") not in _CALLING:
        return []
    function = functools.partial(_private(tf.Graph, "_get_function"), op.graph)
    attributes = op.node_def.attr.values()
    called = [f.name for a in attributes for f in (a.func, *a.list.func) if f.name]
    return [function(name).graph for name in called]


def _private(cls: type, name: str) -> Callable:
    """A method of TensorFlow's that is no part of its public interface."""
    if not hasattr(cls, name):
        raise ImportError(
            f"Expected a TensorFlow whose graphs can be read and changed. Received: version "
            f"{tf.__version__}, in which tf.{cls.__name__} has no {name!r}. Install a version that "
            "this release of keras_explain was tested with."
        )
    return getattr(cls, name)


# Distribution


def replica() -> tuple[int, int]:
    """Which replica of how many this is, under a `tf.distribute` strategy; else 0 of 1."""
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0, tf.distribute.get_strategy().num_replicas_in_sync
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


# Random numbers


def random_uniform(seed: int, shape: Sequence[int], stream: int = 0) -> np.ndarray:
    """Numbers in [0, 1) that depend on `seed` and `stream` alone."""
    return np.random.default_rng((seed, stream)).random(shape, dtype=np.float32)


def random_permutation(seed: int, n: int, stream: int = 0) -> np.ndarray:
    """The integers below `n` in an order that depends on `seed` and `stream` alone."""
    return np.random.default_rng((seed, stream)).permutation(n).astype(np.int32)


def random_sobol(seed: int, n: int, dimensions: int, stream: int = 0) -> np.ndarray:
    """Points of a scrambled Sobol sequence in [0, 1), float32 `[n, dimensions]`.

    They depend on `seed` and `stream` alone.
    """
    from scipy.stats import qmc

    rng = np.random.default_rng((seed, stream))
    return qmc.Sobol(dimensions, seed=rng).random(n).astype(np.float32)


def random_keys(seed: int, n: int, stream: int = 0) -> np.ndarray:
    """Keys `[n, 2]` for `random_normal`, one a pass."""
    first = np.random.default_rng((seed, stream)).integers(2**31 - 1)
    return np.stack([np.full(n, first), np.arange(n)], axis=1).astype(np.int32)


def random_normal(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers `[n, *shape]`; equal keys (`[n, 2]`) draw equal numbers.

    Rows of the same key share one draw, which makes noise independent of the batch it is drawn
    for, and cheap.
    """
    unique, position = tf.raw_ops.UniqueV2(x=keys, axis=[0])
    noise = tf.map_fn(
        lambda key: tf.random.stateless_normal(shape, key), unique, fn_output_signature=tf.float32
    )
    return ops.take(noise, position, axis=0)


# Operations of the traced graph


def operations_between(score: Tensor, source: Tensor) -> list[Any]:
    """The operations by which `score` changes with `source`, from the first to the last.

    Only paths of floating-point tensors count: others carry no derivative.
    """
    return _operations_between(score, source, lambda t: t.dtype.is_floating)


def crossings(score: Tensor, source: Tensor) -> set[int]:
    """The ids of the tensors that every path from `source` to `score` crosses.

    Paths are of numbers, also through loops; a mask of booleans is none.
    """

    def carries(tensor: Tensor) -> bool:
        return tensor.dtype.is_floating or tensor.dtype == tf.variant

    found = _operations_between(score, source, carries)
    last_use = {id(t): i for i, op in enumerate(found) for t in op.inputs} | {id(score): len(found)}
    ends, crossed = [last_use.get(id(source), -1)], {id(source)}
    for i, op in enumerate(found):
        made = [t for t in op.outputs if carries(t) and last_use.get(id(t), -1) > i]
        ends = [end for end in ends if end > i] + [last_use[id(t)] for t in made]
        if len(ends) == len(made) == 1:  # nothing but it is read by what follows
            crossed.add(id(made[0]))
    return crossed


def _operations_between(
    score: Tensor, source: Tensor, carries: Callable[[Tensor], bool]
) -> list[Any]:
    reached, found = {id(source)}, []
    for op in score.graph.get_operations():  # in the order of their making
        if any(id(t) in reached for t in op.inputs):
            reached |= {id(t) for t in op.outputs if carries(t)}
            found.append(op)
    needed, between = {id(score)}, []
    for op in reversed(found):
        if any(id(t) in needed and id(t) in reached for t in op.outputs):
            needed |= {id(t) for t in op.inputs}
            between.append(op)
    return between[::-1]


def consumers(tensor: Tensor) -> list[Any]:
    """The operations that read a tensor of the traced graph."""
    return tensor.consumers()


def constant(tensor: Tensor) -> np.ndarray | None:
    """The value of a tensor that is constant in the graph, else None."""
    value = tf.get_static_value(tensor)
    if value is None and tensor.dtype.is_integer and tensor.op.type in _OF_AXES:
        inputs = [constant(part) for part in tensor.op.inputs]
        if not any(part is None for part in inputs):
            with tf.init_scope():  # eagerly
                return repeated(tensor.op, [tf.constant(part) for part in inputs])[0].numpy()
    return value


_OF_AXES = frozenset({"Sub", "AddV2", "Range", "Pack", "ConcatV2"})
"""What TensorFlow computes orders of axes by, some of which `get_static_value` leaves out."""


def literal(tensor: Tensor) -> np.ndarray | None:
    """The value of a tensor that is made of numbers from the code alone, else None.

    Unlike `constant`, it sees through operations of any kind (`eye`, `one_hot`, transposes, casts).
    """
    seen, stack = {}, [tensor]
    given: dict[str, Any] = {}
    while stack:
        current = stack.pop()
        value = _from_outside(current)
        if value is not None:
            given[current.name] = value
        elif id(current.op) not in seen:
            if current.op.op_def.is_stateful or current.op.type == "Placeholder":
                return None
            seen[id(current.op)] = current.op
            stack.extend(current.op.inputs)
    value = given.get(tensor.name, tf.get_static_value(tensor))
    return _evaluated(tensor, list(seen.values()), given) if value is None else np.asarray(value)


def is_number(tensor: Tensor) -> bool:
    """Whether a placeholder stands for a tensor of the user's that is no variable."""
    return _from_outside(tensor) is not None


def _from_outside(placeholder: Tensor) -> Any:
    """The eager tensor that a placeholder of the traced graph stands for, or None."""
    if placeholder.op.type != "Placeholder" or placeholder.dtype == tf.resource:
        return None
    pairs = getattr(placeholder.graph, "captures", ())
    outer = next((outer for outer, inner in pairs if inner is placeholder), None)
    return None if outer is None or hasattr(outer, "graph") else outer


def _evaluated(tensor: Tensor, operations: list[Any], given: dict[str, Any]) -> np.ndarray | None:
    """The value of a tensor by operations without state, computed now."""
    graph_def = tf.compat.v1.GraphDef(versions=tensor.graph.graph_def_versions)
    for op in operations:
        node = graph_def.node.add()
        node.CopyFrom(op.node_def)
        if any(attr.HasField("func") for attr in node.attr.values()):
            return None
        data = [name for name in node.input if not name.startswith("^")]
        node.input[:] = data
    with tf.init_scope():
        pruned = tf.compat.v1.wrap_function(
            lambda: tf.import_graph_def(graph_def, given, [tensor.name], name=""), []
        )
        return pruned()[0].numpy()


# Functions inside of the traced graph


def types_inside(op: Any) -> set[str]:
    """The types of operations by which functions inside of `op` make what they return.

    Functions are the bodies of loops, the branches of conditions, and those of a SavedModel. Only
    operations that depend on an argument of theirs count.
    """
    if not any(attribute.type in ("func", "list(func)") for attribute in op.op_def.attr):
        return set()
    library = {f.signature.name: f for f in op.graph.as_graph_def().library.function}
    found: set[str] = set()
    seen, stack = set(), _functions_of(op.node_def)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            nodes = _nodes_between(library[name])
            found |= {node.op for node in nodes}
            stack += [inner for node in nodes for inner in _functions_of(node)]
    return found


def _functions_of(node: Any) -> list[str]:
    """The names of the functions that a node calls, but for the condition of a loop."""
    attributes = [value for key, value in node.attr.items() if key != "cond"]
    single = [value.func.name for value in attributes if value.HasField("func")]
    return single + [function.name for value in attributes for function in value.list.func]


def _nodes_between(function: Any) -> list[Any]:
    """The nodes of a function by which what it returns depends on its arguments."""
    arguments = function.signature.input_arg
    reached = {arg.name for arg in arguments if tf.as_dtype(arg.type) != tf.resource}
    after: list[Any] = []
    for node in function.node_def:  # in the order of their making
        if reached & set(_read_by(node.input)):
            reached.add(node.name)
            after.append(node)
    needed, nodes = set(_read_by(function.ret.values())), []
    for node in reversed(after):
        if node.name in needed:
            needed |= set(_read_by(node.input))
            nodes.append(node)
    return nodes


def _read_by(names: Iterable[str]) -> list[str]:
    return [name.split(":")[0] for name in names if not name.startswith("^")]
