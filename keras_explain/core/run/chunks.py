"""Rows x passes through compiled functions, in chunks with a free batch dimension.

A sample with one target is a *row*; a method goes over each row in one or more *passes*. Rows are
taken in groups, and each group with as many passes as fit the batch size. Everything between the
arrays that come in and those that go out stays in tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.opened import Compiled
from keras_explain.core.model.reading import groups
from keras_explain.core.model.targets import Target
from keras_explain.core.run import precision, sureness
from keras_explain.core.run.functions import SIZE, Functions
from keras_explain.core.run.plan import Reduced, Share
from keras_explain.core.run.progress import bar

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any

MANY = 1 / 16
"""From this share of a batch on, samples are many enough to take passes one at a time."""

LOOP = 32
"""So many passes are a loop of the graph at most."""

SCORES = 2**24
"""So many scores of passes are kept at most, where a method needs them one by one."""


def run(
    explainer: "Explainer",
    forward: Forward,
    target: Target,
    batch_size: int | None,
    seed: int,
    progress: bool | None = False,
    shares: list[Share] | None = None,
) -> dict[str, Any]:
    """Explains every row; the fields of an `Explanation` but for `x` and `explainer`.

    `shares` are the samples by the passes that they take, where the plan does not say.
    """
    batch = tree.flatten(forward.x)[0].shape[0]
    index, many = target.rows(batch)  # [B, K]
    work = _Work(explainer, forward, batch_size)
    shares = work.shares(seed) if shares is None else shares
    tasks = [task for share in shares for task in work.tasks(share, index[share.rows])]
    total = sum(len(share.rows) * share.size for share, _ in tasks)
    with bar(type(explainer).__name__, total, progress) as advance:
        parts = [work.explain(share, classes, advance) for share, classes in tasks]
    order = np.argsort(np.concatenate([share.rows for share, _ in tasks]), kind="stable")

    def joined(*pieces: np.ndarray) -> np.ndarray:
        whole = np.concatenate(pieces)[order]
        if explainer.plan.classes == "one":
            whole = whole.reshape(index.shape + whole.shape[1:])
        return whole if many else whole[:, 0]

    result = tree.map_structure(joined, *parts)
    explained = result.pop("index")
    return {
        "values": result.pop("values"),
        "scores": result.pop("scores"),
        "target": target.replace(index=explained) if target.takes_index else target,
        "extras": result,
        "units": work.output.width,
        "as_it_is": work.output.as_it_is,
        "over": work.values.over,
        "layer_channels": work.values.layer_channels,
        "channels": tuple(layout.channels for layout in forward.layouts),
    }


class _Rows(NamedTuple):
    """Rows that are explained together, as tensors `[rows, ...]`."""

    x: Nest
    position: Tensor
    index: Tensor
    scores: Tensor
    shared: dict[str, Tensor]

    def taken(self, some: np.ndarray) -> "_Rows":
        return tree.map_structure(lambda leaf: ops.take(leaf, some, axis=0), self)


class _Work:
    """One call of an explainer: groups of rows, and the functions that they go through.

    Attributes:
        output: What was learned of the output that is explained.
        values: What was learned of where the values lie.
    """

    def __init__(self, explainer: "Explainer", forward: Forward, batch_size: int | None) -> None:
        self._explainer, self._plan, self._forward = explainer, explainer.plan, forward
        self._functions = Functions(explainer, forward)
        self._takes_all = self._plan.classes == "all"
        self._size = forward.batch_size(batch_size, scores_alone=self._takes_all)
        samples = len(tree.flatten(forward.x)[0])
        self._are_many = samples >= MANY * forward.batch_size(None)  # whatever size is asked for
        self.output = self.values = Learned()

    def shares(self, seed: int) -> list[Share]:
        """The samples by the passes that they take."""
        if self._plan.shares is not None:
            shares = self._plan.shares(self._forward, seed)
        else:
            rows = np.arange(len(tree.flatten(self._forward.x)[0]), dtype=np.int32)
            shares = [Share(rows, self._passes(seed), stops=self._plan.stops)]
        as_arrays = (tree.map_structure(np.asarray, (s.passes, s.own)) for s in shares)
        return [
            replace(share, passes=passes, own=own)
            for share, (passes, own) in zip(shares, as_arrays, strict=True)
        ]

    def _passes(self, seed: int) -> dict[str, Any]:
        if self._plan.passes is None:
            return self._explainer.passes(seed)
        return self._plan.passes(self._functions.prepare.call.structured_outputs)

    def tasks(self, share: Share, index: np.ndarray) -> list[tuple[Share, np.ndarray]]:
        """A share in groups of rows that are explained together, each with its classes.

        Args:
            share: The samples.
            index: Their classes, ints `[samples, K]`.
        """
        size, classes = max(1, self._size // self._explainer.reduce.together), index.shape[1]
        if not self._takes_all:
            share, index = share.repeated(classes), index.reshape(-1, 1)
        if self._plan.search is not None:
            size = 1
        elif self._takes_all and self._explainer.reduce.grows:
            size = min(size, max(1, SCORES // (share.size * classes)))
        return [(share.cut(some), index[some]) for some in groups(len(share.rows), size)]

    def explain(
        self, share: Share, index: np.ndarray, advance: Callable[[int], object]
    ) -> dict[str, Any]:
        """Explains some rows; arrays `[rows, ...]`, or for all classes `[rows, K, ...]`.

        Args:
            share: The rows and their passes.
            index: Their classes, ints `[rows, K]`.
            advance: Called with the number of rows that went through the model.
        """
        if not share.passes:
            return self._at_once(share, index, advance)
        rows = self._begun(share, index)
        function = self._of_passes(rows, share)
        if self._plan.search is not None:
            found = self._plan.search(
                self._taken(share.rows), share, self._reduced(rows, function, advance)
            )
            return self._result(rows, found, share)
        return self._until_sure(rows, share, function, advance)

    def _at_once(
        self, share: Share, index: np.ndarray, advance: Callable[[int], object]
    ) -> dict[str, Any]:
        """By a method of one pass."""
        x, position, classes = self._forward.tensors(share.rows, index)
        whole = self._functions.whole
        self._forward.check(classes, whole.learned)
        self.output = self.values = whole.learned
        found = whole.call(x, position, classes, self._functions.arrays)
        advance(len(share.rows))
        rows = _Rows(x, position, found.pop("index"), found.pop("scores"), {})
        return self._result(rows, found, share)

    def _begun(self, share: Share, index: np.ndarray) -> "_Rows":
        x, position, classes = self._forward.tensors(share.rows, index)
        scores, classes = self._forward.score(x, x, position, classes)
        self.output = self._forward.learned
        shared = backend.to_tensors(share.own)
        if self._plan.prepare is not None:
            arrays = self._functions.arrays
            shared |= self._functions.prepare.call(x, position, classes, arrays)
        return _Rows(x, position, classes, scores, shared)

    def _of_passes(self, rows: "_Rows", share: Share) -> Compiled:
        looped = self._plan.ahead is not None and self._are_many
        function = self._functions.looped if looped else self._functions.chunk
        return function(share, rows.shared, self._own_scores(rows))

    def _own_scores(self, rows: "_Rows") -> Tensor | None:
        return rows.scores if self._takes_all else None

    def _until_sure(
        self, rows: "_Rows", share: Share, function: Compiled, advance: Callable[[int], object]
    ) -> dict[str, Any]:
        """The result of all passes, or of so many that each row is sure enough."""
        reduce, finish = self._explainer.reduce, self._functions.finish(function)
        self.values = finish.learned
        stats, done, left = None, 0, np.arange(len(share.rows))
        parts: list[dict[str, Any]] = []
        places: list[np.ndarray] = []
        for stop in share.stops or (share.size,):
            new = reduce.merged(self._chunks(rows, function, share.between(done, stop), advance))
            stats = new if stats is None else reduce.merge(stats, new)
            found = finish.call(rows.x, rows.position, stats, self._functions.arrays)
            result = self._result(rows, found, share.between(0, stop))
            if stop == share.size and not parts:
                return result
            sure = self._are_sure(result) if stop < share.size else np.ones(len(left), bool)
            parts.append(tree.map_structure(lambda leaf, sure=sure: leaf[sure], result))
            places.append(left[sure])
            advance(int(sure.sum()) * (share.size - stop))
            if sure.all():
                break
            some, done = np.flatnonzero(~sure), stop
            left, share, rows = left[some], share.cut(some), rows.taken(some)
            stats = _of_rows(stats, some)
        order = np.argsort(np.concatenate(places))
        return tree.map_structure(lambda *leaves: np.concatenate(leaves)[order], *parts)

    def _are_sure(self, result: dict[str, Any]) -> np.ndarray:
        """Which rows are sure enough, or have no values beyond rounding to be sure of."""
        reliable, error = np.any(tree.flatten(result["reliable"]), axis=0), result["relative_error"]
        enough = (error <= self._plan.error) | ~(reliable | np.isnan(error))
        return enough.reshape(len(enough), -1).all(axis=1)

    def _chunks(
        self, rows: "_Rows", function: Compiled, share: Share, advance: Callable[[int], object]
    ) -> Iterator[Any]:
        """The statistics of passes, chunk by chunk."""
        n, together = len(rows.position), self._explainer.reduce.together
        at_once = max(together, self._size // n // together * together)
        if self._plan.ahead is not None and self._are_many:
            at_once = LOOP
        where = rows.x, rows.position, rows.index, rows.shared, self._own_scores(rows)
        for i in range(0, share.size, at_once):
            part = share.between(i, i + at_once)
            yield function.call(*where, part.passes, self._functions.arrays)
            advance(n * part.size)

    def _reduced(
        self, rows: "_Rows", function: Compiled, advance: Callable[[int], object]
    ) -> Reduced:
        reduce = self._explainer.reduce

        def reduced(passes: dict[str, Any]) -> Nest:
            share = Share(np.asarray(rows.position), passes)
            values = reduce.result(reduce.merged(self._chunks(rows, function, share, advance)))
            return tree.map_structure(np.asarray, values)

        return reduced

    def _result(self, rows: "_Rows", found: dict[str, Any], share: Share) -> dict[str, Any]:
        """The parts of a result on the host, completed and judged.

        Args:
            rows: The rows.
            found: Their values and extras.
            share: The passes that they took.
        """
        known = {"scores": rows.scores, "index": rows.index, **found}
        result = tree.map_structure(np.asarray, known)
        if not self._takes_all:
            result |= {name: result[name][:, 0] for name in ("scores", "index")}
        if self._plan.measured_from is not None:
            result |= _completeness(result, self._base_values(rows, share, result))
        _check_rows(result["values"], len(share.rows))
        size = result.pop(SIZE, 1.0)
        if self._plan.afterwards is not None:
            result |= self._plan.afterwards(self._taken(share.rows), result, share)
        if {"value_error", "convergence_delta"} <= result.keys():
            result["value_error"] = sureness.at_least(result)
        if "standard_error" in result:
            result |= sureness.of(result, share.size // share.repeats)
        return result | {"reliable": precision.reliable(self._explainer, result, size)}

    def _taken(self, rows: np.ndarray) -> Nest:
        """Rows of the input, the channels last."""
        x = tree.map_structure(lambda leaf: leaf[rows], self._forward.x)
        return self._forward.channels_last(x)

    def _base_values(self, rows: "_Rows", share: Share, result: dict[str, Any]) -> np.ndarray:
        """The score `[rows]` that each row's attributions are measured from."""
        if self._plan.measured_from == "base values":
            return result["base_values"]
        x, position, index = rows.x, rows.position, rows.index
        references = self._functions.references(share)
        points = references.call(x, position, share.passes, self._functions.arrays)
        if self._plan.measured_from == "own reference":
            return np.asarray(self._forward.score(x, points, position, index)[0])[:, 0]
        return np.asarray(self._mean_score(x, points, position, index))[:, 0]

    def _mean_score(self, x: Nest, points: Nest, rows: Tensor, index: Tensor) -> Tensor:
        """The mean score `[rows, 1]` of shared references, for each row's class.

        Mostly the score of a reference depends on the row's class alone, so each reference is seen
        once, with the classes of all rows; else beside each row.
        """
        count = len(tree.flatten(points)[0])
        beside = self._forward.sees_the_input
        at_once = 1 if beside else self._size
        total = 0.0
        for i in range(0, count, at_once):
            some = tree.map_structure(lambda p, i=i: p[i : i + at_once], points)
            if beside:
                some = tree.map_structure(lambda p, v: ops.broadcast_to(p, ops.shape(v)), some, x)
                total += self._forward.score(x, some, rows, index)[0]
            else:
                n = len(tree.flatten(some)[0])
                every = ops.tile(ops.reshape(index, (1, -1)), (n, 1))  # [n, rows]
                scores = self._forward.score(some, some, ops.zeros((n,), "int32"), every)[0]
                total += ops.sum(scores, axis=0)[:, None]
        return total / count


def _of_rows(stats: Nest, some: np.ndarray) -> Nest:
    """The statistics of some rows; numbers are of all."""
    return tree.map_structure(
        lambda leaf: ops.take(leaf, some, axis=0) if len(leaf.shape) else leaf, stats
    )


def _check_rows(values: Nest, rows: int) -> None:
    for leaf in tree.flatten(values):
        if len(leaf) != rows:
            raise ValueError(
                f"Expected values for each of {rows} rows. Received: {len(leaf)}. A function that "
                "arranges values, such as `reshape=`, must leave the first axis as it is."
            )


def _completeness(result: dict[str, Any], base: np.ndarray) -> dict[str, np.ndarray]:
    """The base values, and the sum of the attributions less the difference they should sum to."""
    leaves = [leaf.reshape(len(leaf), -1) for leaf in tree.flatten(result["values"])]
    with np.errstate(invalid="ignore"):  # infinite values are told by what calls the explainer
        total = sum(leaf.sum(axis=1, dtype=np.float64) for leaf in leaves)
        delta = total - (result["scores"].astype(np.float64) - base)
    return {"base_values": base, "convergence_delta": delta.astype(np.float32)}
