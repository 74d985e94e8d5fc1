"""Rows x passes through compiled functions, in chunks with a free batch dimension.

A sample with one target is a *row*; a method goes over each row in one or more *passes*. Rows are
taken in groups, and each group with as many passes as fit the batch size. Everything between the
arrays that come in and those that go out stays in tensors.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model.forward import ANY_CLASSES, ONE_CLASS, ROWS, Forward, groups
from keras_explain.core.model.opened import Compiled
from keras_explain.core.model.probe import Probe
from keras_explain.core.model.targets import Target
from keras_explain.core.run import precision
from keras_explain.core.run.progress import bar

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any

MANY = 1 / 16
"""From this share of the batch size on, rows are many enough to take passes apart."""

SCORES = 2**24
"""So many scores of passes are kept at most, where a method needs them one by one."""

_SIZE = "size of the point"


@dataclasses.dataclass(frozen=True)
class Share:
    """Samples that take the same passes.

    Attributes:
        rows: Their positions in the user's batch, ints `[n]`.
        passes: Small data for each pass over a sample, `[passes, ...]`; none for one pass.
        own: Data of each sample that passes may use, `[n, ...]`, such as a picture's regions.
    """

    rows: np.ndarray
    passes: dict[str, Any]
    own: dict[str, Any] = dataclasses.field(default_factory=dict)

    def cut(self, some: slice) -> "Share":
        """The same for some of the samples."""
        return self._of(lambda leaf: leaf[some])

    def repeated(self, times: int) -> "Share":
        """The same with each sample so many times."""
        return self._of(lambda leaf: np.repeat(leaf, times, axis=0))

    def _of(self, fn: Callable[[np.ndarray], np.ndarray]) -> "Share":
        return Share(fn(self.rows), self.passes, tree.map_structure(fn, self.own))

    @property
    def size(self) -> int:
        """The number of passes."""
        leaves = tree.flatten(self.passes)
        return len(leaves[0]) if leaves else 1


def run(
    explainer: "Explainer",
    forward: Forward,
    target: Target,
    batch_size: int | None,
    seed: int,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Explains every row; the fields of an `Explanation` but for `x` and `explainer`."""
    batch = tree.flatten(forward.x)[0].shape[0]
    index, many = target.rows(batch)  # [B, K]
    work = _Work(explainer, forward, batch_size)
    tasks = [task for share in work.shares(seed) for task in work.tasks(share, index[share.rows])]
    total = sum(len(share.rows) * share.size for share, _ in tasks)
    with bar(type(explainer).__name__, total, progress) as advance:
        parts = [work.explain(share, classes, advance) for share, classes in tasks]
    order = np.argsort(np.concatenate([share.rows for share, _ in tasks]), kind="stable")

    def joined(*pieces: np.ndarray) -> np.ndarray:
        whole = np.concatenate(pieces)[order]
        if not explainer.takes_classes:
            whole = whole.reshape(index.shape + whole.shape[1:])
        return whole if many else whole[:, 0]

    result = tree.map_structure(joined, *parts)
    explained = result.pop("index")
    return {
        "values": result.pop("values"),
        "scores": result.pop("scores"),
        "target": target.replace(index=explained) if target.takes_index else target,
        "extras": result,
        "units": work.facts.get("width"),
        "as_it_is": work.facts.get("as_it_is", False),
        "over": work.where.get("over"),
        "layer_channels": work.where.get("layer_channels"),
        "channels": tuple(layout.channels for layout in forward.layouts),
    }


class _Work:
    """One call of an explainer: its compiled functions, and the arrays that go into them."""

    def __init__(self, explainer: "Explainer", forward: Forward, batch_size: int | None) -> None:
        self.explainer, self.forward = explainer, forward
        self.facts: dict[str, Any] = {}  # of the output that is explained
        self.where: dict[str, Any] = {}  # the values lie
        self.size = forward.batch_size(batch_size, scores_alone=explainer.takes_classes)
        self.arrays = backend.to_tensors(explainer.arrays()) + forward.target_arrays

    def shares(self, seed: int) -> list[Share]:
        """The samples by the passes that they take."""
        forward = self.forward
        facts = {"tokens": forward.are_tokens, "layouts": forward.layouts} | self._known
        shares = self.explainer.shares(self.forward.x, facts, seed)
        as_arrays = (tree.map_structure(np.asarray, (s.passes, s.own)) for s in shares)
        return [Share(s.rows, *arrays) for s, arrays in zip(shares, as_arrays, strict=True)]

    def tasks(self, share: Share, index: np.ndarray) -> list[tuple[Share, np.ndarray]]:
        """A share in groups of rows that are explained together, each with its classes.

        Args:
            share: The samples.
            index: Their classes, ints `[samples, K]`.
        """
        size, classes = self.size, index.shape[1]
        if not self.explainer.takes_classes:
            share, index = share.repeated(classes), index.reshape(-1, 1)
        if self._defines("search"):
            size = 1
        elif self.explainer.takes_classes and self.explainer.reduce.grows:
            size = min(size, max(1, SCORES // (share.size * classes)))
        return [(share.cut(some), index[some]) for some in groups(len(share.rows), size)]

    def explain(
        self, share: Share, index: np.ndarray, advance: Callable[[int], object]
    ) -> dict[str, Any]:
        """Explains some rows; arrays `[rows, ...]`, or `[rows, K, ...]` with `takes_classes`.

        Args:
            share: The rows and their passes.
            index: Their classes, ints `[rows, K]`.
            advance: Called with the number of rows that went through the model.
        """
        x, row, classes = self.forward.tensors(share.rows, index)
        if share.passes:
            scores, classes = self.forward.score(x, x, row, classes)
            self.facts = self.forward.facts
            values = self._in_passes(x, row, classes, scores, share, advance)
            result = {"scores": scores, "index": classes, **values}
        else:
            whole = self._function("whole", self._whole)
            self.forward.check(classes, whole)
            self.facts = whole.facts
            self.where |= whole.facts
            result = whole.call(x, row, classes, self.arrays)
            classes = result["index"]
            advance(len(share.rows))
        result = tree.map_structure(np.asarray, result)
        if not self.explainer.takes_classes:
            result |= {name: result[name][:, 0] for name in ("scores", "index")}
        if self.explainer.measured_from is not None:
            result |= _completeness(result, self._base_values(x, row, classes, share, result))
        _check_rows(result["values"], len(share.rows))
        size = result.pop(_SIZE, 1.0)
        result |= self.explainer.afterwards(self._taken(share.rows), result, share)
        return result | {"reliable": precision.reliable(self.explainer, result, size)}

    def _taken(self, rows: np.ndarray) -> Nest:
        """Rows of the input, the channels last."""
        leaves = zip(self.forward.layouts, tree.flatten(self.forward.x), strict=True)
        taken = [layout.last(leaf[rows]) for layout, leaf in leaves]
        return tree.pack_sequence_as(self.forward.x, taken)

    def _in_passes(
        self,
        x: Nest,
        rows: Tensor,
        index: Tensor,
        scores: Tensor,
        share: Share,
        advance: Callable[[int], object],
    ) -> dict[str, Any]:
        own, reduce = backend.to_tensors(share.own), self.explainer.reduce
        if self.explainer.takes_classes:
            own["score"] = scores
        if self._defines("prepare"):
            prepare = self._function("prepare", self._prepare)
            own |= prepare.call(x, rows, index, self.arrays)
        chunk = self._function("chunk", lambda: self._chunk(share, own))
        apart = self.explainer.passes_apart and len(rows) >= MANY * self.size
        at_once = 1 if apart else max(1, self.size // len(rows))

        def chunks(passes: dict[str, Any]) -> Iterator[Any]:
            count = len(tree.flatten(passes)[0])
            for i in range(0, count, at_once):
                some = slice(i, i + at_once)
                part = tree.map_structure(operator.itemgetter(some), passes)
                yield chunk.call(x, rows, index, own, part, self.arrays)
                advance(len(rows) * min(at_once, count - i))

        if self._defines("search"):
            return self._searched(share, lambda passes: reduce.merged(chunks(passes)))
        stats = reduce.merged(chunks(share.passes))
        finish = self._function("finish", lambda: self._finish(chunk))
        self.where |= chunk.facts | finish.facts
        return finish.call(x, rows, stats, self.arrays)

    def _searched(self, share: Share, merged: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        def reduced(passes: dict[str, Any]) -> Nest:
            values = self.explainer.reduce.result(merged(passes))
            return tree.map_structure(np.asarray, values)

        return self.explainer.search(self._taken(share.rows), share, reduced)

    def _base_values(
        self, x: Nest, rows: Tensor, index: Tensor, share: Share, result: dict[str, Any]
    ) -> np.ndarray:
        """The score `[rows]` that each row's attributions are measured from."""
        if self.explainer.measured_from == "base values":
            return result["base_values"]
        return np.asarray(self._reference_scores(x, rows, index, share))[:, 0]

    def _reference_scores(self, x: Nest, rows: Tensor, index: Tensor, share: Share) -> Tensor:
        references = self._function("references", lambda: self._references(share))
        points = references.call(x, rows, share.passes, self.arrays)
        if self.explainer.measured_from == "own reference":
            return self.forward.score(x, points, rows, index)[0]
        return self._mean_score(x, points, rows, index)

    def _mean_score(self, x: Nest, points: Nest, rows: Tensor, index: Tensor) -> Tensor:
        """The mean score `[rows, 1]` of shared references, for each row's class.

        Mostly the score of a reference depends on the row's class alone, so each reference is seen
        once, with the classes of all rows; else beside each row.
        """
        count = len(tree.flatten(points)[0])
        beside = self.forward.sees_the_input
        at_once = 1 if beside else self.size
        total = 0.0
        for i in range(0, count, at_once):
            some = tree.map_structure(lambda p, i=i: p[i : i + at_once], points)
            if beside:
                some = tree.map_structure(lambda p, v: ops.broadcast_to(p, ops.shape(v)), some, x)
                total += self.forward.score(x, some, rows, index)[0]
            else:
                n = len(tree.flatten(some)[0])
                every = ops.tile(ops.reshape(index, (1, -1)), (n, 1))  # [n, rows]
                scores = self.forward.score(some, some, ops.zeros((n,), "int32"), every)[0]
                total += ops.sum(scores, axis=0)[:, None]
        return total / count

    def _found(
        self, probe: Probe, explainer: "Explainer", total: Nest, point: Nest
    ) -> dict[str, Any]:
        """The values and extras, and what is needed to judge them."""
        values = explainer.finish(probe, total, point)
        values = probe.collapse(values) if explainer.of_the_point else values
        sized = {_SIZE: precision.size_of(point)} if explainer.unit == "score per input" else {}
        return {"values": values, **sized, **explainer.extras(total)}

    # Compiled functions

    @property
    def _classes(self) -> Any:
        return ANY_CLASSES if self.explainer.takes_classes else ONE_CLASS

    def _defines(self, name: str) -> bool:
        from keras_explain.core.explainer import Explainer

        return getattr(type(self.explainer), name) is not getattr(Explainer, name)

    @property
    def _known(self) -> dict[str, Any]:
        """What `prepare` noted while it was traced."""
        return self._function("prepare", self._prepare).facts if self._defines("prepare") else {}

    def _function(self, name: str, build: Callable[[], Compiled]) -> Compiled:
        key = (name, *self.forward.key, self.explainer.structure)
        return self.forward.opened.compiled(key, build)

    def _compile(
        self, fn: Callable[..., Any], *signature: Any, known: dict[str, Any] | None = None
    ) -> Compiled:
        """Compiles `fn(probe_of, explainer, *inputs)`, which finds the facts `known`."""

        def bound(probe_of: Callable, tensors: list[Tensor], *values: Any) -> Any:
            return fn(probe_of, self.explainer.bind(tensors), *values)

        return self.forward.compile(bound, *signature, arrays=self.arrays, known=known)

    def _whole(self) -> Compiled:
        def whole(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor) -> Any:
            probe = probe_of(x, rows)
            point = probe.point(x)
            probe.begin(point)
            found = self._found(probe, explainer, explainer.step(probe, point, index, {}), point)
            scores, index = probe.begun(index)
            return {"scores": scores, "index": index, **found}

        return self._compile(whole, self.forward.specs, ROWS, ONE_CLASS)

    def _prepare(self) -> Compiled:
        def prepare(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor
        ) -> Any:
            probe = probe_of(x, rows)
            return explainer.prepare(probe, probe.point(x), index)

        return self._compile(prepare, self.forward.specs, ROWS, self._classes)

    def _chunk(self, share: Share, own: dict[str, Tensor]) -> Compiled:
        def chunk(
            probe_of: Callable,
            explainer: Any,
            x: Nest,
            rows: Tensor,
            index: Tensor,
            own: dict[str, Tensor],
            passes: dict[str, Tensor],
        ) -> Any:
            n = ops.shape(rows)[0]
            p = ops.shape(tree.flatten(passes)[0])[0]
            pass_ = tree.map_structure(lambda t: ops.repeat(t, n, axis=0), passes)
            if own:
                pass_ |= {"inputs": x, "once": passes, "sample": _tile(ops.arange(n), p), **own}
            x, rows, index = tree.map_structure(lambda t: _tile(t, p), (x, rows, index))
            probe = probe_of(x, rows)
            values = explainer.step(probe, probe.point(x), index, pass_)
            values = tree.map_structure(
                lambda v: ops.reshape(v, (p, n, *ops.shape(v)[1:])), values
            )  # [p, n, ...]
            return explainer.reduce.of(values)

        ragged = self.explainer.ragged | {"score"}

        def specs(named: dict[str, Any]) -> dict[str, Any]:
            return {
                name: tree.map_structure(
                    functools.partial(backend.spec, free_axes=2 if name in ragged else 1), nest
                )
                for name, nest in named.items()
            }

        own_and_passes = specs(own), specs(share.passes)
        signature = (self.forward.specs, ROWS, self._classes, *own_and_passes)
        return self._compile(chunk, *signature, known=self._known)

    def _finish(self, chunk: Compiled) -> Compiled:
        def finish(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, stats: Any) -> Any:
            probe = probe_of(x, rows)
            return self._found(probe, explainer, explainer.reduce.result(stats), probe.point(x))

        signature = (self.forward.specs, ROWS, backend.output_specs(chunk.call))
        return self._compile(finish, *signature, known=self._known)

    def _references(self, share: Share) -> Compiled:
        def references(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, passes: Any
        ) -> Any:
            return explainer.references(probe_of(x, rows), passes)

        passes = tree.map_structure(lambda p: backend.spec(p, free_axes=0), share.passes)
        return self._compile(references, self.forward.specs, ROWS, passes)


def _check_rows(values: Nest, rows: int) -> None:
    for leaf in tree.flatten(values):
        if len(leaf) != rows:
            raise ValueError(
                f"Expected values for each of {rows} rows. Received: {len(leaf)}. A function that "
                "arranges values, such as `reshape=`, must leave the first axis as it is."
            )


def _tile(tensor: Tensor, times: Tensor) -> Tensor:
    tiled = ops.tile(tensor, (times,) + (1,) * (len(tensor.shape) - 1))
    return ops.reshape(tiled, (-1, *ops.shape(tensor)[1:]))


def _completeness(result: dict[str, Any], base: np.ndarray) -> dict[str, np.ndarray]:
    """The base values, and the sum of the attributions less the difference they should sum to."""
    leaves = [leaf.reshape(len(leaf), -1) for leaf in tree.flatten(result["values"])]
    with np.errstate(invalid="ignore"):  # infinite values are told by what calls the explainer
        total = sum(leaf.sum(axis=1, dtype=np.float64) for leaf in leaves)
        delta = total - (result["scores"].astype(np.float64) - base)
    return {"base_values": base, "convergence_delta": delta.astype(np.float32)}
