"""Single operations of the graph that is being traced: read, taken backwards, made again.

This and `paths` are all that reads TensorFlow's graphs.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.ops import get_gradient_function

from keras_explain import backend

Tensor = Any


def is_here(value: Any) -> bool:
    """Whether `value` is a tensor of the graph that is being traced (not of a loop's body)."""
    return tf.is_tensor(value) and getattr(value, "graph", None) is tf.compat.v1.get_default_graph()


def consumers(tensor: Tensor) -> list[Any]:
    """The operations that read a tensor of the traced graph."""
    return tensor.consumers()


def pull(op: Any, upstream: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The vector-Jacobian product of one operation: for each of its inputs, a tensor or None.

    Args:
        op: An operation of the graph that is being traced.
        upstream: What comes back to each of its outputs; None for nothing.
    """
    try:
        gradient = get_gradient_function(op)
    except LookupError as error:
        raise ValueError(backend.without_gradient(op.type, op.name)) from error
    if gradient is None:
        return [None] * len(op.inputs)
    filled = [_zeros(y) if u is None else u for y, u in zip(op.outputs, upstream, strict=True)]
    back = gradient(op, *filled)
    back = list(back) if isinstance(back, (list, tuple)) else [back]
    return [None if b is None else tf.convert_to_tensor(b) for b in back]


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


# Numbers that are known while tracing


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
