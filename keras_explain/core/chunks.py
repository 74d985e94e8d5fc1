"""Rows x passes through compiled functions, in chunks with a free batch dimension.

A sample with one target is a *row*; a method goes over each row in one or more *passes*. Rows are
taken in groups, and each group with as many passes as fit the batch size. Everything between the
arrays that come in and those that go out stays in tensors.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.forward import ONE_CLASS, ROWS, Forward, groups
from keras_explain.core.opened import Compiled, OpenModel
from keras_explain.core.probe import Probe
from keras_explain.core.targets import Target

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any

MANY = 1 / 16
"""From this share of the batch size on, rows are many enough to take passes apart."""


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
    classes = index.shape[1]
    rows = np.repeat(np.arange(batch, dtype=np.int32), classes)
    index = index.reshape(-1, 1)
    work = _Work(explainer, Forward(opened, x, target, explainer.explained_layer), batch_size, seed)
    parts = [work.explain(rows[g], index[g]) for g in groups(len(rows), work.size)]

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


class _Work:
    """One call of an explainer: its compiled functions, and the arrays that go into them."""

    def __init__(
        self, explainer: "Explainer", forward: Forward, batch_size: int | None, seed: int
    ) -> None:
        self.explainer, self.forward = explainer, forward
        self.size = forward.batch_size(batch_size)
        self.passes = tree.map_structure(np.asarray, explainer.passes(seed))
        self.arrays = backend.to_tensors(explainer.arrays()) + forward.target_arrays

    def explain(self, rows: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        """Explains some rows; arrays `[rows, ...]`."""
        x, row, classes = self.forward.tensors(rows, index)
        if self.passes:
            scores, classes = self.forward.score(x, x, row, classes)
            values = self._in_passes(x, row, classes)
            result = {"scores": scores, "index": classes, **values}
        else:
            whole = self._function("whole", self._whole)
            self.forward.check(classes, whole)
            result = whole.call(x, row, classes, self.arrays)
            classes = result["index"]
        result = tree.map_structure(np.asarray, result)
        if self.explainer.measured_from is not None:
            result |= _completeness(result, self._base_values(x, row, classes, result))
        _check_rows(result["values"], len(rows))
        x = tree.map_structure(lambda leaf: leaf[rows], self.forward.x)
        return result | self.explainer.afterwards(x, result)

    def _in_passes(self, x: Nest, rows: Tensor, index: Tensor) -> dict[str, Any]:
        chunk = self._function("chunk", self._chunk)
        apart = self.explainer.passes_apart and len(rows) >= MANY * self.size
        at_once = 1 if apart else max(1, self.size // len(rows))
        stats = None
        for i in range(0, len(tree.flatten(self.passes)[0]), at_once):
            passes = tree.map_structure(lambda p, i=i: p[i : i + at_once], self.passes)
            more = chunk.call(x, rows, index, passes, self.arrays)
            stats = more if stats is None else self.explainer.reduce.merge(stats, more)
        finish = self._function("finish", lambda: self._finish(chunk))
        return finish.call(x, rows, stats, self.arrays)

    def _base_values(
        self, x: Nest, rows: Tensor, index: Tensor, result: dict[str, Any]
    ) -> np.ndarray:
        """The score `[rows]` that each row's attributions are measured from."""
        if self.explainer.measured_from == "base values":
            return result["base_values"]
        return np.asarray(self._reference_scores(x, rows, index))[:, 0]

    def _reference_scores(self, x: Nest, rows: Tensor, index: Tensor) -> Tensor:
        references = self._function("references", self._references)
        points = references.call(x, rows, self.passes, self.arrays)
        if self.explainer.measured_from == "own reference":
            return self.forward.score(x, points, rows, index)[0]
        return self._mean_score(x, points, rows, index)

    def _mean_score(self, x: Nest, points: Nest, rows: Tensor, index: Tensor) -> Tensor:
        """The mean score `[rows, 1]` of shared references, for each row's class.

        Without sites the score of a reference depends on the row's class alone, so each reference
        is seen once, with the classes of all rows; else (masks, branches) beside each row.
        """
        count = len(tree.flatten(points)[0])
        sites = self.forward.sites
        beside = any(sites.inputs) or bool(sites.layer)
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

    def _of_input(self, probe: Probe, values: Nest) -> Nest:
        return probe.collapse(values) if self.explainer.of_the_point else values

    # Compiled functions

    def _function(self, name: str, build: Callable[[], Compiled]) -> Compiled:
        key = (name, *self.forward.key, self.explainer.structure)
        return self.forward.opened.compiled(key, build)

    def _compile(self, fn: Callable[..., Any], *signature: Any) -> Compiled:
        """Compiles `fn(probe_of, explainer, *inputs)`."""

        def bound(probe_of: Callable, tensors: list[Tensor], *values: Any) -> Any:
            return fn(probe_of, self.explainer.bind(tensors), *values)

        return self.forward.compile(bound, *signature, arrays=self.arrays)

    def _whole(self) -> Compiled:
        def whole(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor) -> Any:
            probe = probe_of(x, rows)
            point = probe.point(x)
            probe.begin(point)
            total = explainer.step(probe, point, index, {})
            values = self._of_input(probe, explainer.finish(probe, total, point))
            scores, index = probe.begun(index)
            return {"values": values, "scores": scores, "index": index, **explainer.extras(total)}

        return self._compile(whole, self.forward.specs, ROWS, ONE_CLASS)

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
        return self._compile(chunk, self.forward.specs, ROWS, ONE_CLASS, passes)

    def _finish(self, chunk: Compiled) -> Compiled:
        def finish(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, stats: Any) -> Any:
            probe = probe_of(x, rows)
            total = explainer.reduce.result(stats)
            values = self._of_input(probe, explainer.finish(probe, total, probe.point(x)))
            return {"values": values, **explainer.extras(total)}

        return self._compile(finish, self.forward.specs, ROWS, backend.output_specs(chunk.call))

    def _references(self) -> Compiled:
        def references(_: Callable, explainer: Any, x: Nest, rows: Tensor, passes: Any) -> Any:
            return explainer.references(x, rows, passes)

        passes = tree.map_structure(lambda p: backend.spec(p, free_rows=False), self.passes)
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
    return ops.reshape(tiled, (-1, *tensor.shape[1:]))


def _completeness(result: dict[str, Any], base: np.ndarray) -> dict[str, np.ndarray]:
    """The base values, and the sum of the attributions less the difference they should sum to."""
    total = sum(
        leaf.reshape(len(leaf), -1).sum(axis=1, dtype=np.float64)
        for leaf in tree.flatten(result["values"])
    )
    delta = total - (result["scores"][:, 0].astype(np.float64) - base)
    return {"base_values": base, "convergence_delta": delta.astype(np.float32)}
