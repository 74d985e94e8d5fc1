"""An input is optimised: one compiled loop, with an optimizer of Keras's for each row."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model import intercept
from keras_explain.core.model.points import per_row

Tensor = Any
Nest = Any
MakeOptimizer = Callable[[], keras.optimizers.Optimizer]


class Judged(NamedTuple):
    """What an objective says of values, for each row of that row alone.

    Attributes:
        loss: What is made least, `[n]`.
        done: Whether the values are good enough, booleans `[n]`: they stay as they are then.
        rank: What the values to be kept have least of, `[n]`; by default the loss.
    """

    loss: Tensor
    done: Tensor | None = None
    rank: Tensor | None = None


class Optimised(NamedTuple):
    """What `optimise` found.

    Attributes:
        values: The values that are kept, a nest `[n, ...]`.
        loss: The loss where a row stopped, or before its last update, `[n]`. Where it is not
            finite, that is why the row stopped.
        rank: The rank of the values that are kept, `[n]`; of the last values, before their update.
        done: Whether a row was done, booleans `[n]`.
        steps: How many updates a row made, int32 `[n]`.
        watched: The sum over these of what was watched, a nest `[n, ...]`.
    """

    values: Nest
    loss: Tensor
    rank: Tensor
    done: Tensor
    steps: Tensor
    watched: Nest


class _State(NamedTuple):
    """What the loop carries; `slots` are the variables of the rows' optimizers."""

    values: Nest
    slots: list[Tensor]
    goes_on: Tensor
    found: Optimised


def optimise(
    objective: Callable[[Nest, Tensor], Judged],
    start: Nest,
    optimizer: keras.optimizers.Optimizer | MakeOptimizer,
    *,
    steps: int,
    project: Callable[[Nest], Nest] = lambda values: values,
    watch: Callable[[Nest, Tensor], Nest] = lambda values, step: (),
    keep: Literal["last", "best"] = "last",
) -> Optimised:
    """Makes a loss least, for each row by itself, in one loop of the graph.

    A row gets what it gets alone: its optimizer is its own, also where that clips or scales by
    norms. It stops where it is done or its loss is not finite, and the loop ends when all rows have
    stopped. Several starts of a sample are rows one after the other, see `best_of`.

    Args:
        objective: Judges values `[n, ...]` at a step, an int32. What it draws is keyed by a seed
            and the step, and equal for all rows.
        start: The values to begin with, a nest of float tensors `[n, ...]`. Where other axes are of
            free length, it is one tensor.
        optimizer: Any of Keras's, which is left as it is. In a function that is being compiled none
            can be made; there, a function that makes it.
        steps: How many updates a row makes at most.
        project: Takes values back to where they must be, after an update.
        watch: What of the values after an update, and of its step, is to be summed.
        keep: Which values are returned: the last ones, or those of the least rank among all that
            were judged, which the last ones are not; the start, where every rank is infinite.

    Raises:
        ValueError: The loss does not depend on all the values, or the optimizer can't be one of a
            row: it averages or accumulates over steps.
    """
    leaves = tree.flatten(start)
    optimizers = _Optimizers(optimizer, leaves)

    def step_from(step: Tensor, state: _State) -> tuple[Tensor, _State]:
        values = tree.map_structure(backend.own, state.values)
        judged = objective(values, step)
        slopes = _slopes(judged.loss, tree.flatten(values))
        moved, slots = optimizers.updated(state.slots, slopes, tree.flatten(values))
        moved = project(tree.pack_sequence_as(values, moved))
        found, goes_on = _noted(state, judged, keep)
        values, slots = _where(goes_on, (moved, slots), (state.values, state.slots))
        found = found._replace(
            steps=found.steps + ops.cast(goes_on, "int32"),
            watched=_added(found.watched, watch(values, step), goes_on),
        )
        return step + 1, _State(values, slots, goes_on, found)

    n, dtype = ops.shape(leaves[0])[0], leaves[0].dtype
    none = ops.zeros((n,), dtype=bool)
    unknown = ops.full((n,), np.inf, dtype=dtype)
    watched = tree.map_structure(ops.zeros_like, watch(start, ops.convert_to_tensor(0)))
    found = Optimised(start, unknown, unknown, none, ops.zeros((n,), dtype="int32"), watched)
    _, last = ops.while_loop(
        lambda step, state: ops.any(state.goes_on),
        step_from,
        (ops.convert_to_tensor(0), _State(start, optimizers.slots(leaves), ~none, found)),
        maximum_iterations=steps,
    )
    return last.found._replace(values=last.values) if keep == "last" else last.found


def best_of(found: Optimised, starts: int) -> Optimised:
    """Of every so many rows, one after the other, the one of the least rank."""
    rank = ops.where(ops.isnan(found.rank), np.inf, found.rank)
    best = ops.argmin(ops.reshape(rank, (-1, starts)), axis=1)
    rows = ops.arange(ops.shape(best)[0], dtype=best.dtype) * starts + best
    return tree.map_structure(lambda leaf: ops.take(leaf, rows, axis=0), found)


def _noted(state: _State, judged: Judged, keep: str) -> tuple[Optimised, Tensor]:
    """What is found with a judgement of the values, and which rows go on."""
    found, rank = state.found, judged.loss if judged.rank is None else judged.rank
    done = found.done if judged.done is None else found.done | (state.goes_on & judged.done)
    kept = state.goes_on if keep == "last" else state.goes_on & (rank < found.rank)
    found = found._replace(
        values=_where(kept, state.values, found.values) if keep == "best" else found.values,
        loss=ops.where(state.goes_on, judged.loss, found.loss),
        rank=ops.where(kept, rank, found.rank),
        done=done,
    )
    return found, state.goes_on & ~done & ops.isfinite(judged.loss)


def _slopes(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    slopes = backend.gradients(loss, leaves)
    if any(slope is None for slope in slopes):
        raise ValueError(
            "Expected a loss that changes with each of the values that are optimised. Received: "
            "one without a gradient by some of them."
        )
    return slopes


def _where(rows: Tensor, a: Nest, b: Nest) -> Nest:
    """Nest `a` in some rows, `b` in the others."""
    return tree.map_structure(lambda a, b: ops.where(per_row(rows, b), a, b), a, b)


def _added(total: Nest, more: Nest, rows: Tensor) -> Nest:
    """The total, with more in some rows."""
    return _where(rows, tree.map_structure(ops.add, total, more), total)


class _Optimizers:
    """One optimizer of Keras's for each row, whose variables are tensors `[n, ...]`.

    Args:
        optimizer: What is made a copy of, or makes it.
        leaves: The tensors that are optimised.
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer | MakeOptimizer, leaves: list[Tensor]
    ) -> None:
        # A stand-in for a row has length 1 where the row's length is free.
        like = [
            np.zeros([size or 1 for size in t.shape[1:]], keras.backend.standardize_dtype(t.dtype))
            for t in leaves
        ]

        def build() -> tuple[keras.optimizers.Optimizer, list[Any], list[np.ndarray]]:
            made = optimizer if isinstance(optimizer, keras.optimizers.Optimizer) else optimizer()
            values = [keras.Variable(array) for array in like]
            copy = intercept.stateless(made, values)
            return copy, values, [variable.numpy() for variable in copy.variables]

        self._optimizer, self._values, self._initial = backend.outside(build)

    def slots(self, leaves: list[Tensor]) -> list[Tensor]:
        """The optimizers' variables before the first update."""
        shape = ops.shape(leaves[0])
        free = None in leaves[0].shape[1:]

        def repeated(array: np.ndarray) -> Tensor:
            like_a_row = free and array.shape == tuple(self._values[0].shape)
            return ops.broadcast_to(array, (shape[0], *(shape[1:] if like_a_row else array.shape)))

        return [repeated(array) for array in self._initial]

    def updated(
        self, slots: list[Tensor], slopes: list[Tensor], leaves: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The leaves after one update, and the variables."""
        return ops.vectorized_map(self._update, (slots, slopes, leaves))

    def _update(self, row: tuple[list[Tensor], list[Tensor], list[Tensor]]) -> Any:
        slots, slopes, leaves = row
        known = [*self._values, *self._optimizer.variables]
        with keras.StatelessScope(initialize_variables=False) as scope:
            for variable, value in zip(known, [*leaves, *slots], strict=True):
                scope.add_update((variable, value))
            self._optimizer.apply(slopes)
            new = [scope.get_current_value(variable) for variable in known]
        return new[: len(leaves)], new[len(leaves) :]
