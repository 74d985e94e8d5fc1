"""A model is run on the rows of a chunk, and what its layers return is seen, or replaced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras import ops, tree

from keras_explain.core.data.layout import Layout
from keras_explain.core.graph import decisions, traced
from keras_explain.core.graph.expressions import stand_in
from keras_explain.core.graph.steps import Call, maker, where
from keras_explain.core.model.intercept import intercept
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.outputs import Outputs

Tensor = Any
Nest = Any
CallKey = tuple[str, int]
"""The path of a layer, and the number of its call."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A point, as the model takes it.

    Attributes:
        inputs: What the model runs on.
        sites: The outputs of the calls that make the point.
        moves: Whether the point may be another one than that of the user's input.
    """

    inputs: Nest
    sites: dict[CallKey, list[Tensor]] = field(default_factory=dict)
    moves: bool = True


@dataclass(frozen=True, eq=False)
class _Moved:
    """A tensor of the point in a forward pass.

    `original` is what it is for the user's input, `integer` whether that held integers.
    """

    tensor: Tensor
    original: Tensor
    integer: bool = False


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs an opened model, inside one traced function.

    Args:
        opened: The model.
        inputs: The user's input, a nest of tensors `[n, ...]`, by which the model decides.
        layouts: For each leaf of the input, where its places and channels are.
        integer: For each leaf of the user's input, whether it held integers.
    """

    opened: OpenModel
    inputs: Nest
    layouts: Sequence[Layout] = ()
    integer: Sequence[bool] = ()

    def run(self, inputs: Nest) -> Outputs:
        """Runs the model on inputs, by which it decides itself."""
        return self._run(Placed(inputs), {}, decides_anew=True)

    def run_at(
        self, placed: Placed, replaced: dict[CallKey, list[Tensor]] | None = None
    ) -> Outputs:
        """Runs the model at a point, with the decisions of the user's input.

        Args:
            placed: Where to evaluate.
            replaced: Other outputs of calls.
        """
        return self._run(placed, replaced or {}, decides_anew=False)

    def _run(
        self, placed: Placed, replaced: dict[CallKey, list[Tensor]], *, decides_anew: bool
    ) -> Outputs:
        calls: list[Call] = []
        moved: list[_Moved] = []
        hook = self._recorder(placed.sites, replaced, calls, moved)
        padded, rows = self._padded(placed.inputs)
        model = self.opened.model
        nodes = [model, *self.opened.nodes.values()]
        before = len(traced.operations())
        with intercept(nodes, hook, self.opened.zero_states()):
            raw = model(padded, training=False)
        made, decides = traced.operations()[before:], False
        if not decides_anew:
            moved = self._moved(placed.inputs, padded) + moved
            raw, calls, decides = _decided(raw, calls, made, moved, placed.moves)
        leaves = tree.flatten(padded)
        return Outputs(self.opened, raw, calls, rows, made, leaves, self.layouts, decides)

    def _recorder(
        self,
        sites: dict[CallKey, list[Tensor]],
        replaced: dict[CallKey, list[Tensor]],
        calls: list[Call],
        moved: list[_Moved],
    ) -> Callable:
        """A hook that replaces outputs of calls, and notes the calls and what moved at sites."""
        counts: dict[str, int] = {}
        others = sites | replaced

        def hook(node: Any, call: Callable, *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if node is self.opened.model:
                return output
            path = self.opened.paths[id(node)]
            number = counts[path] = counts.get(path, -1) + 1
            if (path, number) in others:
                parts, _ = self._padded(others[path, number])
                for part, original in zip(parts, tree.flatten(output), strict=True):
                    stand_in(part, original)
                if (path, number) in sites:
                    moved.extend(map(_Moved, parts, tree.flatten(output)))
                output = tree.pack_sequence_as(output, parts)
            seen = [t for t in tree.flatten((args, kwargs)) if traced.is_here(t)]
            if all(map(traced.is_here, tree.flatten(output))):
                calls.append(Call(path, node, number, seen, output))
            return output

        return hook

    def _padded(self, inputs: Nest) -> tuple[Nest, Tensor | None]:
        """Inputs filled up to the rows that the model insists on, and how many were given."""
        size = self.opened.fixed_batch
        if size is None:
            return inputs, None
        rows = ops.shape(tree.flatten(inputs)[0])[0]

        def pad(x: Tensor) -> Tensor:
            x = ops.take(x, ops.minimum(ops.arange(size), ops.shape(x)[0] - 1), axis=0)
            return ops.reshape(x, (size, *x.shape[1:]))

        return tree.map_structure(pad, inputs), rows

    def _moved(self, inputs: Nest, padded: Nest) -> list[_Moved]:
        """The leaves of the input that are not those of the user's."""
        flat = zip(*map(tree.flatten, (inputs, padded, self.inputs)), strict=True)
        return [
            _Moved(leaf, self._padded(own)[0], whole)
            for (given, leaf, own), whole in zip(flat, self.integer, strict=True)
            if given is not own
        ]


def _decided(
    raw: Nest, calls: list[Call], made: list[Any], moved: list[_Moved], moves: bool
) -> tuple[Nest, list[Call], bool]:
    """Outputs and calls with the decisions of the user's input, and whether there are any.

    Args:
        raw: The model's output.
        calls: The calls of its layers.
        made: The operations of the pass.
        moved: The tensors of the point.
        moves: As for `Placed`.
    """
    point = [part.tensor for part in moved]
    integers = [part.tensor for part in moved if part.integer]
    found = decisions.Decisions(made, point, integers)
    if found.loops and moves:
        raise _undecided(found.loops[0], calls)
    if not found.found:
        return raw, calls, False
    places = decisions.pin(found.found, point, [part.original for part in moved])

    def placed(nest: Nest) -> Nest:
        return tree.map_structure(lambda t: places.get(id(t), t), nest)

    calls = [replace(c, inputs=placed(c.inputs), output=placed(c.output)) for c in calls]
    return placed(raw), calls, True


def _undecided(op: Any, calls: list[Call]) -> ValueError:
    return ValueError(
        "Expected decisions on the input (masks, lengths, conditions) outside of loops and "
        "branches, since they are to be those of the input while it is moved. Received: one inside "
        f"of {op.type!r} ({op.name}), in {where(maker(op, calls))}. Decide before the loop, "
        "explain a layer after it, or use a method that does not move the input."
    )
