"""Paths of operations through a traced graph: what depends on what, and by which of them."""

from collections.abc import Callable, Container
from typing import Any

Tensor = Any


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
        return tensor.dtype.is_floating or tensor.dtype == "variant"

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
