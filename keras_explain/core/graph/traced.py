"""Single operations of the graph that is being traced: read, taken backwards, made again."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_explain.core import private
from keras_explain.core.graph import paths
from keras_explain.core.graph.operations import CONSTANTS

Tensor = Any


def is_here(value: Any) -> bool:
    """Whether `value` is a tensor of the graph that is being traced (not of a loop's body)."""
    return tf.is_tensor(value) and getattr(value, "graph", None) is tf.compat.v1.get_default_graph()


def pull(op: Any, upstream: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The vector-Jacobian product of one operation: for each of its inputs, a tensor or None.

    Args:
        op: An operation of the graph that is being traced.
        upstream: What comes back to each of its outputs; None for nothing.
    """
    try:
        gradient = private.get("get_gradient_function")(op)
    except LookupError as error:
        raise ValueError(without_gradient(op)) from error
    if gradient is None:
        return [None] * len(op.inputs)
    filled = [_zeros(y) if u is None else u for y, u in zip(op.outputs, upstream, strict=True)]
    back = gradient(op, *filled)
    back = list(back) if isinstance(back, (list, tuple)) else [back]
    return [None if b is None else tf.convert_to_tensor(b) for b in back]


def pull_from(tensor: Tensor, message: Tensor) -> list[Tensor | None]:
    """The same of the operation that made a tensor, and nothing else."""
    return pull(tensor.op, [message])


def _zeros(tensor: Tensor) -> Tensor | None:
    changes = tensor.dtype.is_floating or tensor.dtype == tf.variant
    return tf.zeros_like(tensor) if changes else None


def replay(op: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of an operation of the traced graph for other inputs, seen by an active tape.

    They are made where the function that is traced is now: it may be in a loop's body.

    What takes the place of its gradient is left out: it goes on about the original's inputs.
    """
    attributes = {k: v for k, v in op.node_def.attr.items() if k != _CUSTOM_GRADIENT}
    made = tf.compat.v1.get_default_graph().create_op(
        op.type, list(inputs), [y.dtype for y in op.outputs], attrs=attributes
    )
    _record(made)
    return list(made.outputs)


_CUSTOM_GRADIENT = "_gradient_op_type"


def _record(op: Any) -> None:
    """Shows an operation to the tapes that are active, as its making by a function does."""
    names = [attribute.name for attribute in op.op_def.attr]
    attributes = tuple(part for name in names for part in (name, op.get_attr(name)))
    record = private.get("record_gradient")
    record(op.type, list(op.inputs), attributes, list(op.outputs))


def repeated(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], others: Sequence[Tensor]
) -> list[Tensor]:
    """What some tensors are where others take the place of the inputs that they are made of."""
    made = replayed(paths.between(outputs, inputs), inputs, others)
    return [made.get(id(tensor), tensor) for tensor in outputs]


def replayed(
    operations: Sequence[Any], inputs: Sequence[Tensor], others: Sequence[Tensor]
) -> dict[int, Tensor]:
    """By the id of each tensor, what operations make in its place of other inputs."""
    made = {id(old): tensor for old, tensor in zip(inputs, others, strict=True)}
    for op in operations:
        outputs = replay(op, [made.get(id(t), t) for t in op.inputs])
        made |= {id(old): tensor for old, tensor in zip(op.outputs, outputs, strict=True)}
    return made


def lacking_gradient(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
    """The last operation from some tensors to others that has no gradient, also one in a loop."""
    for op in reversed(paths.between(outputs, inputs, paths.is_continuous)):
        inside = (lacking_gradient(body.outputs, body.inputs) for body in bodies(op))
        found = op if not _has_gradient(op) else next(filter(None, inside), None)
        if found is not None:
            return found
    return None


def _has_gradient(op: Any) -> bool:
    try:
        private.get("get_gradient_function")(op)
    except LookupError:
        return op.type in _CALLING
    return True


def without_gradient(op: Any) -> str:
    """What to say of an operation that has no gradient."""
    return (
        f"Expected operations with a gradient. Received: {op.type!r} ({op.name}), which TensorFlow "
        "has none for. Explain a layer after it, or use a method without gradients."
    )


def operations() -> list[Any]:
    """All operations of the graph that is being traced, in the order of their making."""
    return tf.compat.v1.get_default_graph().get_operations()


def calls_functions() -> bool:
    """Whether the graph that is being traced calls functions, in which nothing can be seen."""
    return any(op.type in _CALLS for op in operations())


_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


def redirect(tensor: Tensor, other: Tensor) -> None:
    """Makes all operations that read a tensor of the traced graph read another one."""
    lead = private.get("_update_input")
    for op in tensor.consumers():
        for i, operand in enumerate(op.inputs):
            if operand is tensor:
                lead(op, i, other)
        if _CUSTOM_GRADIENT not in op.node_def.attr:
            _record(op)


_CALLING = _CALLS | {"While", "If", "Case"}


def bodies(op: Any, *, conditions: bool = True) -> list[tf.Graph]:
    """The graphs of the functions that an operation calls: a loop's, or those of branches.

    Args:
        op: The operation.
        conditions: Whether the condition of a loop is among them.
    """
    if op.type.removeprefix("Stateless") not in _CALLING:
        return []
    function = functools.partial(private.get("_get_function"), op.graph)
    attributes = [a for name, a in op.node_def.attr.items() if conditions or name != "cond"]
    called = [f.name for a in attributes for f in (a.func, *a.list.func) if f.name]
    return [function(name).graph for name in called]


def types_inside(op: Any) -> set[str]:
    """The types of operations by which functions inside of `op` make what they return.

    Functions are the bodies of loops, the branches of conditions, and those of a SavedModel. Only
    operations that depend on an argument of theirs count.
    """
    found: set[str] = set()
    for body in bodies(op, conditions=False):
        point = [tensor for tensor in body.inputs if tensor.dtype != tf.resource]
        for inner in paths.between(body.outputs, point):
            found |= {inner.type, *types_inside(inner)}
    return found


# Numbers that are known while tracing


def constant(tensor: Tensor) -> np.ndarray | None:
    """The value of a tensor that is constant in the graph, else None."""
    value = tf.get_static_value(tensor)
    if value is None and tensor.dtype.is_integer and tensor.op.type in _OF_AXES:
        parts = [constant(part) for part in tensor.op.inputs]
        known = [part for part in parts if part is not None]
        return _OF_AXES[tensor.op.type](*known) if len(known) == len(parts) else None
    return value


_OF_AXES: dict[str, Callable[..., np.ndarray]] = {
    "Sub": np.subtract,
    "AddV2": np.add,
    "Range": np.arange,
    "Pack": lambda *numbers: np.stack(numbers),
    "ConcatV2": lambda *parts: np.concatenate(parts[:-1], int(parts[-1])),
}
"""What TensorFlow computes orders of axes by, some of which `get_static_value` leaves out."""


def literal(tensor: Tensor) -> np.ndarray | None:
    """The value of a tensor that is made of numbers from the code alone, else None.

    Unlike `constant`, it sees through operations of any kind (`eye`, `one_hot`, transposes, casts).
    """
    operations: dict[int, Any] = {}
    given: dict[str, Any] = {}
    for current in paths.behind(tensor):
        if is_number(current):
            given[current.name] = paths.captured(current)
        elif current.op.op_def.is_stateful or current.op.type == "Placeholder":
            return None
        else:
            operations[id(current.op)] = current.op
    value = given.get(tensor.name, tf.get_static_value(tensor))
    return (
        _evaluated(tensor, list(operations.values()), given) if value is None else np.asarray(value)
    )


def is_number(tensor: Tensor) -> bool:
    """Whether a placeholder stands for a tensor of the user's that is no variable."""
    outside = paths.captured(tensor)
    return outside is not None and not hasattr(outside, "graph") and tensor.dtype != tf.resource


def is_literal(tensor: Tensor) -> bool:
    """Whether a tensor is made of numbers from the code alone, and of the shapes of others."""

    def is_given(part: Tensor) -> bool:
        return part.op.type in ("ReadVariableOp", "Placeholder") and not is_number(part)

    return not any(map(is_given, paths.behind(tensor, lambda op: op.type not in CONSTANTS)))


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
