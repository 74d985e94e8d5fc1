"""Rows x passes through compiled functions, in chunks with a free batch dimension.

A sample with one target is a *row*; a method goes over each row in one or more *passes*. Rows are
taken in groups, and each group with as many passes as fit the batch size. Everything between the
arrays that come in and those that go out stays in tensors.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.probe import Compiled, OpenModel, Probe, find_sites, specs
from keras_explain.core.targets import Target

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any


def default_batch_size(x: Nest) -> int:
    """The power of two nearest `2**21 / elements per row`, within 8..256."""
    elements = sum(max(1, leaf[0].size) for leaf in tree.flatten(x))
    return 2 ** min(8, max(3, round(math.log2(2**21 / elements))))


def run(
    explainer: "Explainer",
    opened: OpenModel,
    x: Nest,
    target: Target,
    batch_size: int | None,
    seed: int,
) -> dict[str, Any]:
    """Explains every row; the fields of an `Explanation` but for `x` and `explainer`."""
    batch = tree.flatten(x)[0].shape[0]
    index, many = target.rows(batch)  # [B, K]
    rows, classes = np.repeat(np.arange(batch, dtype=np.int32), index.shape[1]), index.shape[1]
    size = _batch_size(batch_size, opened, x)
    work = _Work(explainer, opened, x, target, size, seed)
    parts = [
        work.group(rows[i : i + n], index.reshape(-1, 1)[i : i + n])
        for i, n in _groups(len(rows), size)
    ]

    def joined(*pieces: np.ndarray) -> np.ndarray:
        whole = np.concatenate(pieces)
        return whole.reshape(batch, classes, *whole.shape[1:]) if many else whole

    result = tree.map_structure(joined, *parts)
    explained = result.pop("index")[..., 0]
    return {
        "values": result.pop("values"),
        "scores": result.pop("scores")[..., 0],
        "target": target.replace(index=explained) if target.takes_index else target,
        "extras": result,
    }


def _batch_size(batch_size: int | None, opened: OpenModel, x: Nest) -> int:
    if batch_size is None:
        batch_size = default_batch_size(x)
    if isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"Expected a batch_size of 1 or more. Received: {batch_size}.")
    return min(batch_size, opened.fixed_batch or batch_size)


def _groups(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and length of groups of about equal length, at most `size`."""
    count = math.ceil(rows / size)
    edges = [round(rows * i / count) for i in range(count + 1)]
    return ((a, b - a) for a, b in zip(edges, edges[1:], strict=False))


class _Work:
    """One call of an explainer: its compiled functions, and the arrays that go into them."""

    def __init__(
        self,
        explainer: "Explainer",
        opened: OpenModel,
        x: Nest,
        target: Target,
        size: int,
        seed: int,
    ) -> None:
        self.explainer, self.opened, self.x, self.size = explainer, opened, x, size
        self.target = target.without_index()
        self.passes = tree.map_structure(np.asarray, explainer.passes(seed))
        self.own_arrays = backend.to_tensors(explainer.arrays())
        self.target_arrays = backend.to_tensors(self.target.arrays())
        self.specs = specs(x)
        signature = tuple((leaf.shape[1:], leaf.dtype.str) for leaf in tree.flatten(x))
        structure = repr(tree.map_structure(lambda _: 0, x))
        self.sites = opened.compiled(
            ("sites", signature, structure),
            lambda: Compiled(find_sites, {"sites": find_sites(opened, x)}),
        ).facts["sites"]
        self.key = (signature, structure)
        self._target_structure = self.target.structure

    def group(self, rows: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        """Explains some rows; arrays `[rows, ...]`."""
        x = tree.map_structure(lambda leaf: leaf[rows], self.x)
        x, rows, index = backend.to_tensors((x, rows, index))
        if self.passes:
            scores, index = self._score(x, x, rows, index)
            values = self._in_passes(x, rows, index)
            result = {"scores": scores, "index": index, **values}
        else:
            whole = self._function("whole", self._whole)
            self._check(index, whole)
            result = whole.call(x, rows, index, self._arrays)
        result = tree.map_structure(np.asarray, result)
        if self.explainer.measured_from is not None:
            index = backend.to_tensors(result["index"])
            result |= _completeness(result, np.asarray(self._base_values(x, rows, index))[:, 0])
        return result

    def _in_passes(self, x: Nest, rows: Tensor, index: Tensor) -> dict[str, Any]:
        chunk = self._function("chunk", self._chunk)
        at_once = max(1, self.size // len(rows))
        stats = None
        for i in range(0, len(tree.flatten(self.passes)[0]), at_once):
            passes = tree.map_structure(lambda p, i=i: p[i : i + at_once], self.passes)
            more = chunk.call(x, rows, index, passes, self._arrays)
            stats = more if stats is None else self.explainer.reduce.merge(stats, more)
        finish = self._function("finish", lambda: self._finish(chunk))
        return finish.call(x, rows, stats, self._arrays)

    def _score(self, x: Nest, at: Nest, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and indices `[rows, K]` of inputs `x`, moved to the points of inputs `at`."""
        key = ("forward", self.key, self._target_structure)
        forward = self.opened.compiled(key, self._forward)
        self._check(index, forward)
        return forward.call(x, at, rows, index, self.target_arrays)

    def _base_values(self, x: Nest, rows: Tensor, index: Tensor) -> Tensor:
        references = self._function("references", self._references)
        points = references.call(x, rows, self.passes, self._arrays)
        if self.explainer.measured_from == "own reference":
            return self._score(x, points, rows, index)[0]
        return self._mean_score(x, points, rows, index)

    def _mean_score(self, x: Nest, points: Nest, rows: Tensor, index: Tensor) -> Tensor:
        """The mean score `[rows, 1]` of shared references, for each row's class.

        Without sites the score of a reference depends on the row's class alone, so each reference
        is seen once, with the classes of all rows; else (masks) beside each row.
        """
        count = len(tree.flatten(points)[0])
        at_once = 1 if any(self.sites) else self.size
        total = 0.0
        for i in range(0, count, at_once):
            some = tree.map_structure(lambda p, i=i: p[i : i + at_once], points)
            if any(self.sites):
                some = tree.map_structure(lambda p, v: ops.broadcast_to(p, ops.shape(v)), some, x)
                total += self._score(x, some, rows, index)[0]
            else:
                n = len(tree.flatten(some)[0])
                every = ops.tile(ops.reshape(index, (1, -1)), (n, 1))  # [n, rows]
                scores = self._score(some, some, ops.zeros((n,), "int32"), every)[0]
                total += ops.sum(scores, axis=0)[:, None]
        return total / count

    def _check(self, index: Tensor, function: Compiled) -> None:
        self.target.check(np.asarray(index), function.facts["units"])

    # Compiled functions

    @property
    def _arrays(self) -> list[Tensor]:
        return self.own_arrays + self.target_arrays

    def _function(self, name: str, build: Callable[[], Compiled]) -> Compiled:
        key = (name, self.key, self._target_structure, self.explainer.structure)
        return self.opened.compiled(key, build)

    def _compile(self, fn: Callable, *parts: Any, arrays: list[Tensor]) -> Compiled:
        """Compiles `fn(probe_of, explainer, *parts)`, with arrays as its last argument."""
        facts: dict[str, Any] = {}
        own = len(arrays) - len(self.target_arrays)

        def traced(*args: Any) -> Any:
            explainer = self.explainer.bind(args[-1][:own]) if own else self.explainer
            target = self.target.bind(args[-1][own:])

            def probe_of(x: Nest, rows: Tensor) -> Probe:
                return Probe(self.opened, x, target, self.sites, rows, facts)

            return fn(probe_of, explainer, *args[:-1])

        signature = [backend.spec(a, free_rows=False) for a in arrays]
        return Compiled(backend.compile(traced, *parts, signature), facts)

    def _whole(self) -> Compiled:
        def whole(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor) -> Any:
            probe = probe_of(x, rows)
            point = probe.point(x)
            total = explainer.step(probe, point, index, {})
            values = probe.collapse(explainer.finish(probe, total, point))
            extras = explainer.extras(total)
            return {"values": values, "scores": probe.last_scores, "index": probe.index, **extras}

        return self._compile(whole, self.specs, _ROWS, _ONE_CLASS, arrays=self._arrays)

    def _forward(self) -> Compiled:
        def forward(
            probe_of: Callable, _: Any, x: Nest, at: Nest, rows: Tensor, index: Tensor
        ) -> Any:
            probe = probe_of(x, rows)
            return probe.scores(probe.point(at), index), probe.index

        parts = (self.specs, self.specs, _ROWS, _ANY_CLASSES)
        return self._compile(forward, *parts, arrays=self.target_arrays)

    def _chunk(self) -> Compiled:
        def chunk(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor, passes: Any
        ) -> Any:
            n = ops.shape(rows)[0]
            p = ops.shape(tree.flatten(passes)[0])[0]
            x, rows, index = tree.map_structure(lambda t: _tile(t, p), (x, rows, index))
            pass_ = tree.map_structure(lambda t: ops.repeat(t, n, axis=0), passes)
            probe = probe_of(x, rows)
            values = explainer.step(probe, probe.point(x), index, pass_)
            values = tree.map_structure(
                lambda v: ops.reshape(v, (-1, n, *v.shape[1:])), values
            )  # [p, n, ...]
            return explainer.reduce.of(values)

        passes = tree.map_structure(lambda p: backend.spec(p, free_rows=True), self.passes)
        return self._compile(chunk, self.specs, _ROWS, _ONE_CLASS, passes, arrays=self._arrays)

    def _finish(self, chunk: Compiled) -> Compiled:
        def finish(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, stats: Any) -> Any:
            probe = probe_of(x, rows)
            total = explainer.reduce.result(stats)
            values = probe.collapse(explainer.finish(probe, total, probe.point(x)))
            return {"values": values, **explainer.extras(total)}

        stats = backend.output_specs(chunk.call)
        return self._compile(finish, self.specs, _ROWS, stats, arrays=self._arrays)

    def _references(self) -> Compiled:
        def references(
            _: Callable, explainer: Any, x: Nest, rows: Tensor, passes: Any
        ) -> Any:
            return explainer.references(x, rows, passes)

        passes = tree.map_structure(lambda p: backend.spec(p, free_rows=False), self.passes)
        return self._compile(references, self.specs, _ROWS, passes, arrays=self._arrays)


_ROWS = backend.int_spec(None)
_ONE_CLASS = backend.int_spec(None, 1)
_ANY_CLASSES = backend.int_spec(None, None)


def _tile(tensor: Tensor, times: Tensor) -> Tensor:
    tiled = ops.tile(tensor, (times,) + (1,) * (len(tensor.shape) - 1))
    return ops.reshape(tiled, (-1, *tensor.shape[1:]))


def _completeness(result: dict[str, Any], base: np.ndarray) -> dict[str, np.ndarray]:
    """The base values, and the sum of the attributions less the difference they should sum to."""
    total = sum(
        leaf.reshape(len(leaf), -1).sum(axis=1, dtype=np.float64)
        for leaf in tree.flatten(result["values"])
    )
    delta = total - (result["scores"][:, 0].astype(np.float64) - base)
    return {"base_values": base, "convergence_delta": delta.astype(np.float32)}
