"""Rows x passes through compiled functions, in chunks with a free batch dimension.

A sample with one target is a *row*; a method goes over each row in one or more *passes*. Rows are
taken in groups, and each group with as many passes as fit the batch size. Everything between the
arrays that come in and those that go out stays in tensors.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.reading import groups
from keras_explain.core.model.targets import Target
from keras_explain.core.run import precision
from keras_explain.core.run.functions import SIZE, Functions
from keras_explain.core.run.plan import Share
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
            shares = [Share(rows, self._passes(seed))]
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
        size, classes = self._size, index.shape[1]
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
        x, row, classes = self._forward.tensors(share.rows, index)
        if share.passes:
            scores, classes = self._forward.score(x, x, row, classes)
            self.output = self._forward.learned
            values = self._in_passes(x, row, classes, scores, share, advance)
            result = {"scores": scores, "index": classes, **values}
        else:
            whole = self._functions.whole
            self._forward.check(classes, whole.learned)
            self.output = self.values = whole.learned
            result = whole.call(x, row, classes, self._functions.arrays)
            classes = result["index"]
            advance(len(share.rows))
        result = tree.map_structure(np.asarray, result)
        if not self._takes_all:
            result |= {name: result[name][:, 0] for name in ("scores", "index")}
        if self._plan.measured_from is not None:
            result |= _completeness(result, self._base_values(x, row, classes, share, result))
        _check_rows(result["values"], len(share.rows))
        size = result.pop(SIZE, 1.0)
        if self._plan.afterwards is not None:
            result |= self._plan.afterwards(self._taken(share.rows), result, share)
        return result | {"reliable": precision.reliable(self._explainer, result, size)}

    def _taken(self, rows: np.ndarray) -> Nest:
        """Rows of the input, the channels last."""
        x = tree.map_structure(lambda leaf: leaf[rows], self._forward.x)
        return self._forward.channels_last(x)

    def _in_passes(
        self,
        x: Nest,
        rows: Tensor,
        index: Tensor,
        scores: Tensor,
        share: Share,
        advance: Callable[[int], object],
    ) -> dict[str, Any]:
        arrays, reduce = self._functions.arrays, self._explainer.reduce
        shared, own_scores = backend.to_tensors(share.own), scores if self._takes_all else None
        if self._plan.prepare is not None:
            shared |= self._functions.prepare.call(x, rows, index, arrays)
        looped = self._plan.ahead is not None and self._are_many
        function = self._functions.looped if looped else self._functions.chunk
        chunk = function(share, shared, own_scores)
        at_once = LOOP if looped else max(1, self._size // len(rows))

        def chunks(passes: dict[str, Any]) -> Iterator[Any]:
            count = len(tree.flatten(passes)[0])
            for i in range(0, count, at_once):
                some = slice(i, i + at_once)
                part = tree.map_structure(operator.itemgetter(some), passes)
                yield chunk.call(x, rows, index, shared, own_scores, part, arrays)
                advance(len(rows) * min(at_once, count - i))

        if self._plan.search is not None:

            def reduced(passes: dict[str, Any]) -> Nest:
                values = reduce.result(reduce.merged(chunks(passes)))
                return tree.map_structure(np.asarray, values)

            return self._plan.search(self._taken(share.rows), share, reduced)
        stats = reduce.merged(chunks(share.passes))
        finish = self._functions.finish(chunk)
        self.values = finish.learned
        return finish.call(x, rows, stats, arrays)

    def _base_values(
        self, x: Nest, rows: Tensor, index: Tensor, share: Share, result: dict[str, Any]
    ) -> np.ndarray:
        """The score `[rows]` that each row's attributions are measured from."""
        if self._plan.measured_from == "base values":
            return result["base_values"]
        references = self._functions.references(share)
        points = references.call(x, rows, share.passes, self._functions.arrays)
        if self._plan.measured_from == "own reference":
            return np.asarray(self._forward.score(x, points, rows, index)[0])[:, 0]
        return np.asarray(self._mean_score(x, points, rows, index))[:, 0]

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
