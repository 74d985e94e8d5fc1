"""What a model decides by its input: masks, lengths and conditions.

A method that moves the point (along a path, by noise, to a reference) asks how the score changes
with the input's numbers. What the model decides by them is that of the user's input: padding stays
padding, and a missing value missing.

A *decision* is made where an operation turns floating-point numbers of the point, with no learned
number in between, into booleans or integers (a comparison, a cast, an argmax), or rounds them. It
is a *function* instead, which follows the point, where it only chooses, entry by entry, between
functions of the very same entry, as in `where(x > 0, x, 0.1 * x)`, or goes as a number of its own
into a weighted sum. Tests for equality or NaN of the point's own entries are always decisions:
they ask for a value that stands for something else. So is what blocks entries when it is added to
the scores of an attention, `(1 - mask) * -1e9`. An input of integers that is decided by as a whole
is a mask, and stays as it is wherever it enters.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_explain.core.graph import traced
from keras_explain.core.graph.operations import ALIASES, CONSTANTS, ELEMENTWISE, ROUTING
from keras_explain.core.graph.steps import is_of_one_shape

Tensor = Any

_LEARNED = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
_ROUNDING = frozenset({"Sign", "Floor", "Ceil", "Round", "Rint", "FloorDiv"})
_SENTINELS = frozenset({"Equal", "NotEqual", "IsNan", "IsInf", "IsFinite"})
_BLOCKING = -1e4
_ENTRYWISE = ELEMENTWISE | ALIASES
_ARRANGING = ROUTING - {"GatherV2", "GatherNd"}


class Decisions:
    """The decisions among some operations of a graph.

    Args:
        operations: Operations in the order of their making.
        point: Tensors that they start from.
        integers: Those of them that stand for integers of the user's.

    Attributes:
        found: The decisions: tensors.
        loops: Loops and branches that decide by the point inside, where it can't be changed.
    """

    def __init__(
        self,
        operations: Sequence[Any],
        point: Sequence[Tensor],
        integers: Sequence[Tensor] = (),
    ) -> None:
        self._operations, self._point = operations, set(map(id, point))
        self.raw = self._unlearned(frozenset())
        candidates = [t for t in self._discrete() if t.consumers()]
        self.found = list(self._decided(candidates)) if candidates else []
        self.found += [mask for mask in integers if self._is_mask(mask)] if self.found else []
        self.raw = self._unlearned(frozenset(map(id, self.found))) if self.found else self.raw
        self.loops = [op for op in operations if self._reads(op, self.raw) and self._inside(op)]

    def _unlearned(self, cut: frozenset[int]) -> set[int]:
        """The tensors that depend on the point with no learned number in between, by their ids."""
        raw, learned = set(self._point), set[int]()
        for op in self._operations:
            ids = {id(t) for t in op.inputs}
            if op.type in _LEARNED or not learned.isdisjoint(ids):
                learned |= {id(t) for t in op.outputs}
            elif not raw.isdisjoint(ids) and op.type not in CONSTANTS:
                raw |= {id(t) for t in op.outputs} - cut
        self._learned = learned
        return raw

    @staticmethod
    def _reads(op: Any, some: set[int]) -> bool:
        return op.type not in CONSTANTS and any(id(t) in some for t in op.inputs)

    def _discrete(self) -> Iterator[Tensor]:
        """What operations make discrete of the point's numbers."""
        for op in self._operations:
            if self._reads(op, self.raw) and not any(id(t) in self._learned for t in op.inputs):
                numbers = any(id(t) in self.raw and not _is_discrete(t) for t in op.inputs)
                steps = op.type in _ROUNDING or _blocks(op)
                yield from (t for t in op.outputs if numbers and (steps or _is_discrete(t)))

    def _decided(self, candidates: list[Tensor]) -> Iterator[Tensor]:
        self._follow()
        steps = self._descendants(candidates)
        for tensor in candidates:
            if not self._is_function(tensor, steps):
                yield tensor

    def _follow(self) -> None:
        """Notes of what depends on the point the tensor that it is an elementwise function of."""
        self._active, self._entries = set(self._point), set(self._point)
        self._roots: dict[int, Any] = {}
        for op in self._operations:
            if not self._reads(op, self._active):
                continue
            live = [t for t in op.inputs if id(t) in self._active]
            self._active |= {id(t) for t in op.outputs}
            roots = {self._roots.get(id(t), id(t)) for t in live}
            if op.type in _ENTRYWISE and len(roots) == 1 and is_of_one_shape([*live, *op.outputs]):
                self._roots |= dict.fromkeys(map(id, op.outputs), roots.pop())
            elif op.type in ROUTING:
                self._roots |= {id(t): self._arrangement(op, i) for i, t in enumerate(op.outputs)}
            if op.type in _ENTRYWISE | ROUTING and all(id(t) in self._entries for t in live):
                self._entries |= {id(t) for t in op.outputs}

    def _arrangement(self, op: Any, output: int) -> Any:
        """What names an arrangement of numbers alike wherever it is made: `x[..., 0]`, twice."""
        constants = [traced.constant(t) for t in op.inputs]
        operands = (
            self._roots.get(id(t), id(t)) if value is None else value.tobytes()
            for t, value in zip(op.inputs, constants, strict=True)
        )
        return op.type, output, str(sorted(op.node_def.attr.items(), key=str)), *operands

    def _descendants(self, some: list[Tensor], among: set[int] | None = None) -> set[int]:
        """What is made of some discrete tensors alone, entry by entry or by arranging them."""
        found = set(map(id, some))
        for op in self._operations:
            if op.type in _ENTRYWISE | _ARRANGING and self._reads(op, found):
                live = {id(t) for t in op.inputs} & self._active
                if live <= (found if among is None else among):
                    found |= {id(t) for t in op.outputs}
        return found

    def _is_function(self, tensor: Tensor, steps: set[int]) -> bool:
        root = self._roots.get(id(tensor))
        if (
            root is None
            or _blocks(tensor.op)
            or (tensor.op.type in _SENTINELS and id(tensor) in self._entries)
        ):
            return False
        own = self._descendants([tensor], steps)
        return all(
            self._chooses(op, root, own, steps) for op in self._operations if self._reads(op, own)
        )

    def _chooses(self, op: Any, root: Any, own: set[int], steps: set[int]) -> bool:
        """Whether an operation takes a step for a choice of an entry, or for a number."""
        made = {id(t) for t in op.outputs}
        if made <= steps:
            return True
        if op.type in _ENTRYWISE:
            return all(self._roots.get(i) == root for i in made)
        as_numbers = all(t.dtype.is_floating for t in op.inputs if id(t) in own)
        return as_numbers and (op.type in ROUTING or not made.isdisjoint(self._learned))

    def _is_mask(self, leaf: Tensor) -> bool:
        """Whether a decision is made by all entries of a leaf, and by nothing else."""
        whole = {id(leaf)}
        for op in self._operations:
            live = {id(t) for t in op.inputs} & self._active
            if live and live <= whole and op.type in _ENTRYWISE | ROUTING:
                whole |= {id(t) for t in op.outputs if _covers(t, leaf)}
        return any(id(tensor) in whole for tensor in self.found)

    def _inside(self, op: Any) -> bool:
        """Whether a loop or branch makes decisions in its body."""
        return any(self._decides(op, graph) for graph in traced.bodies(op))

    def _decides(self, op: Any, graph: Any) -> bool:
        operands = op.inputs[len(op.inputs) - len(graph.inputs) :]
        pairs = zip(operands, graph.inputs, strict=True)
        point = [inner for outer, inner in pairs if id(outer) in self.raw]
        while True:
            body = Decisions(graph.get_operations(), point)
            again = zip(graph.inputs, graph.outputs, strict=False) if "While" in op.type else ()
            more = [start for start, end in again if id(end) in body.raw]
            more = [start for start in more if all(start is not t for t in point)]
            if body.found or body.loops or not more:
                return bool(body.found or body.loops)
            point += more


def pin(found: list[Tensor], moved: list[Tensor], original: list[Tensor]) -> dict[int, Tensor]:
    """Puts in place of decisions what they are for the user's input.

    Args:
        found: The decisions.
        moved: The point.
        original: What the point is for the user's input; a later part may depend on earlier ones.

    Returns:
        By the id of each decision what stands in its place.
    """
    given: list[Tensor] = []
    for i, tensor in enumerate(original):
        given += traced.repeated([tensor], moved[:i], given)
    places = dict(zip(map(id, found), traced.repeated(found, moved, given), strict=True))
    for tensor in found:
        traced.redirect(tensor, places[id(tensor)])
    return places


def _blocks(op: Any) -> bool:
    """Whether numbers are multiplied by a large negative one, as to block them in a softmax."""
    if op.type != "Mul":
        return False
    factors = (traced.constant(t) for t in op.inputs)
    return any(f is not None and f.size == 1 and f.item() <= _BLOCKING for f in factors)


def _covers(tensor: Tensor, leaf: Tensor) -> bool:
    """Whether a tensor may have as many entries a sample, at least, on known and on free axes."""
    if tensor.shape.rank is None or leaf.shape.rank is None:
        return False
    shapes = [t.shape.as_list()[1:] for t in (tensor, leaf)]
    known = [math.prod(n for n in shape if n is not None) for shape in shapes]
    return known[0] >= known[1] and shapes[0].count(None) >= shapes[1].count(None)


def _is_discrete(tensor: Tensor) -> bool:
    return tensor.dtype.is_bool or tensor.dtype.is_integer or tensor.dtype == "string"
