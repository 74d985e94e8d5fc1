"""Paths of operations through a traced graph: what depends on what, and by which of them."""

from collections.abc import Callable, Collection, Container, Iterator, Sequence
from operator import attrgetter
from typing import Any

from keras_explain.core.graph.operations import CONSTANTS

Tensor = Any


def behind(tensor: Tensor, follow: Callable[[Any], bool] = lambda op: True) -> Iterator[Tensor]:
    """A tensor and all that it is made of, also outside of the loop or branch that it is in.

    Args:
        tensor: The tensor.
        follow: Whether to go on behind an operation.
    """
    seen, stack = set(), [tensor]
    while stack:
        current = stack.pop()
        yield current
        if id(current.op) not in seen and follow(current.op):
            seen.add(id(current.op))
            stack.extend(current.op.inputs)
            outside = captured(current)
            stack += [outside] if hasattr(outside, "graph") else []


def captured(placeholder: Tensor) -> Any:
    """What a placeholder stands for outside of its graph, an eager tensor or one of another graph.

    None for an argument, and for what is no placeholder.
    """
    if placeholder.op.type != "Placeholder":
        return None
    pairs = getattr(placeholder.graph, "captures", ())
    return next((outer for outer, inner in pairs if inner is placeholder), None)


def depends_on(tensor: Tensor, source: Tensor, through: Container[str] | None = None) -> bool:
    """Whether a path of operations leads from `source` to `tensor`; `through` names their types."""

    def follow(op: Any) -> bool:
        return through is None or op.type in through

    return any(found is source for found in behind(tensor, follow))


def is_parameter(tensor: Tensor) -> bool:
    """Whether a tensor is made of variables and constants alone, and of no input."""
    return all(map(_is_no_input, behind(tensor, lambda op: op.type not in CONSTANTS)))


def _is_no_input(tensor: Tensor) -> bool:
    op = tensor.op
    own = op.inputs or op.type in CONSTANTS or op.type in ("Const", "VarHandleOp")
    return bool(own) or captured(tensor) is not None


def order(
    outputs: Sequence[Tensor],
    ends: Container[int],
    maker: Callable[[Tensor], Any] = attrgetter("op"),
    operands: Callable[[Any], Collection[Tensor]] = attrgetter("inputs"),
) -> list[Any]:
    """The operations that make some tensors, each behind those that make its operands.

    Args:
        outputs: The tensors.
        ends: The ids of tensors that are given.
        maker: What is taken as the operation that makes a tensor.
        operands: What is taken as its operands.
    """
    found, done, opened = [], set(), set()
    stack = list(outputs)
    while stack:
        tensor = stack[-1]
        op = maker(tensor)
        if id(tensor) in ends or id(op) in done:
            stack.pop()
        elif id(op) in opened:
            done.add(id(op))
            found.append(op)
            stack.pop()
        else:
            opened.add(id(op))
            stack += operands(op)
    return found


def between(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    carries: Callable[[Tensor], bool] | None = None,
) -> list[Any]:
    """The operations by which some tensors are made of others, from the first to the last.

    Args:
        outputs: The tensors.
        inputs: The others.
        carries: Whether a path may go through a tensor; by default through any.
    """
    ends = frozenset(map(id, inputs))

    def operands(op: Any) -> Collection[Tensor]:
        if op.type in CONSTANTS:
            return ()
        if carries is None:
            return op.inputs
        return [t for t in op.inputs if id(t) in ends or carries(t)]

    active, found = set(ends), []
    for op in order(outputs, ends, operands=operands):
        if any(id(t) in active for t in operands(op)):
            active |= {id(t) for t in op.outputs}
            found.append(op)
    return found


def is_continuous(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers: no other one carries a derivative."""
    return tensor.dtype.is_floating


def crossings(score: Tensor, source: Tensor) -> set[int]:
    """The ids of the tensors that every path from `source` to `score` crosses.

    Paths are of numbers, also through loops; a mask of booleans is none.
    """

    def carries(tensor: Tensor) -> bool:
        return tensor.dtype.is_floating or tensor.dtype == "variant"

    found = between([score], [source], carries)
    last_use = {id(t): i for i, op in enumerate(found) for t in op.inputs} | {id(score): len(found)}
    ends, crossed = [last_use.get(id(source), -1)], {id(source)}
    for i, op in enumerate(found):
        made = [t for t in op.outputs if carries(t) and last_use.get(id(t), -1) > i]
        ends = [end for end in ends if end > i] + [last_use[id(t)] for t in made]
        if len(ends) == 1:  # nothing but it is read by what follows
            crossed.add(id(made[0]))
    return crossed
