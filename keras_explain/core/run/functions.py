"""The compiled functions of one method on one model: what runs in the graph."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model.forward import ANY_CLASSES, ONE_CLASS, ROWS, Forward
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.opened import Compiled
from keras_explain.core.model.probe import Probe
from keras_explain.core.run import precision
from keras_explain.core.run.plan import Pass, Share

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any
Found = tuple[Nest, Learned]

SIZE = "size of the point"


class _Given(NamedTuple):
    """What a function of passes takes: rows with their classes, and what `Pass` has of samples."""

    x: Nest
    rows: Tensor
    index: Tensor
    shared: dict[str, Tensor]
    scores: Tensor | None
    passes: dict[str, Tensor]


class Functions:
    """The compiled functions of an explainer, made when they are asked for and kept with the model.

    Args:
        explainer: The explainer.
        forward: The model, the input and the target.
    """

    def __init__(self, explainer: "Explainer", forward: Forward) -> None:
        self._explainer, self._forward, self.plan = explainer, forward, explainer.plan
        self.arrays = backend.to_tensors(explainer.arrays()) + forward.target_arrays

    @property
    def whole(self) -> Compiled:
        """All of a method of one pass: `(x, rows, index, arrays)` to the parts of a result."""

        def whole(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor
        ) -> Found:
            probe = probe_of(x, rows)
            point = probe.point(x)
            probe.begin(point)
            values = stepped(explainer, probe, point, index, Pass())
            found = _found(probe, explainer, values, point)
            passed = probe.begun(index)
            return {"scores": passed.scores, "index": passed.index, **found}, probe.learned

        return self._function("whole", whole, lambda: (ROWS, ONE_CLASS))

    @property
    def prepare(self) -> Compiled:
        """What all passes over a sample share."""

        def prepare(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, index: Tensor
        ) -> Found:
            probe = probe_of(x, rows)
            return explainer.plan.prepare(probe, probe.point(x), index), probe.learned

        return self._function("prepare", prepare, lambda: (ROWS, self._classes))

    def chunk(self, share: Share, shared: dict[str, Tensor], scores: Tensor | None) -> Compiled:
        """The statistics of some passes over some rows."""

        def chunk(probe_of: Callable, explainer: Any, given: _Given) -> Found:
            n, p = ops.shape(given.rows)[0], ops.shape(tree.flatten(given.passes)[0])[0]
            each = tree.map_structure(lambda t: ops.repeat(t, n, axis=0), given.passes)
            sample = _tile(ops.arange(n), p)
            pass_ = Pass(each, given.passes, given.shared, given.x, given.scores, sample)
            where = given.x, given.rows, given.index
            x, rows, index = tree.map_structure(lambda t: _tile(t, p), where)
            probe = probe_of(x, rows)
            values = stepped(explainer, probe, probe.point(x), index, pass_)
            values = tree.map_structure(
                lambda v: ops.reshape(v, (p, n, *ops.shape(v)[1:])), values
            )  # [p, n, ...]
            return explainer.reduce.of_chunk(values, _collapse(probe, explainer)), probe.learned

        return self._of_passes("chunk", chunk, share, shared, scores)

    def looped(self, share: Share, shared: dict[str, Tensor], scores: Tensor | None) -> Compiled:
        """As `chunk`, the passes one at a time, with what they need of the rows made once."""

        def looped(probe_of: Callable, explainer: Any, given: _Given) -> Found:
            probe, n = probe_of(given.x, given.rows), ops.shape(given.rows)[0]
            point = probe.point(given.x)
            made, zeros = explainer.plan.ahead(probe, point, given.index)
            shares = given.shared, given.x, given.scores, ops.arange(n), made

            def with_next(i: Any, stats: dict[str, Any]) -> dict[str, Any]:
                pass_ = Pass.one(i, given.passes, n, *shares)
                values = stepped(explainer, probe, point, given.index, pass_)
                return explainer.reduce.merge(stats, explainer.reduce.of_one(values))

            none = tree.map_structure(ops.zeros_like, explainer.reduce.of_one(zeros))
            count = ops.shape(tree.flatten(given.passes)[0])[0]
            return ops.fori_loop(0, count, with_next, none), probe.learned

        return self._of_passes("looped", looped, share, shared, scores)

    def _of_passes(
        self,
        name: str,
        fn: Callable[[Callable, Any, "_Given"], Found],
        share: Share,
        shared: dict[str, Tensor],
        scores: Tensor | None,
    ) -> Compiled:
        def taken(probe_of: Callable, explainer: Any, *given: Any) -> Found:
            return fn(probe_of, explainer, _Given(*given))

        def signature() -> tuple[Any, ...]:
            own_and_passes = self._specs(shared), _score_spec(scores), self._specs(share.passes)
            return ROWS, self._classes, *own_and_passes

        prepared = None if self.plan.prepare is None else self.prepare.learned
        kinds = [
            (part, *(str(leaf.dtype) for leaf in tree.flatten(nest)))
            for part, nest in (shared | share.passes).items()
        ]
        return self._function((name, *kinds), taken, signature, prepared)

    def finish(self, chunk: Compiled) -> Compiled:
        """The parts of a result, of the statistics of all passes."""

        def finish(probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, stats: Any) -> Found:
            probe = probe_of(x, rows)
            total = explainer.reduce.result(stats)
            found = _found(probe, explainer, total, probe.point(x))
            collapse = probe.space.collapse if self.plan.values == "point" else lambda v: v
            error = explainer.reduce.standard_error(stats, collapse)
            known = {} if error is None else {"standard_error": error}
            return found | known, probe.learned

        def signature() -> tuple[Any, ...]:
            return ROWS, backend.output_specs(chunk.call)

        return self._function("finish", finish, signature, chunk.learned)

    def references(self, share: Share) -> Compiled:
        """The inputs that attributions are measured from."""

        def references(
            probe_of: Callable, explainer: Any, x: Nest, rows: Tensor, passes: Any
        ) -> Found:
            probe = probe_of(x, rows)
            return explainer.plan.references(probe, passes), probe.learned

        def signature() -> tuple[Any, ...]:
            return ROWS, tree.map_structure(backend.spec, share.passes)

        return self._function("references", references, signature)

    @property
    def _classes(self) -> Any:
        return ANY_CLASSES if self.plan.classes == "all" else ONE_CLASS

    def _specs(self, named: dict[str, Any]) -> dict[str, Any]:
        """Signatures of passes, or of what is of samples."""
        return {
            name: tree.map_structure(
                functools.partial(backend.spec, free_axes=1 + (name in self.plan.ragged)), nest
            )
            for name, nest in named.items()
        }

    def _function(
        self,
        name: Any,
        fn: Callable[..., Found],
        signature: Callable[[], tuple[Any, ...]],
        learned: Learned | None = None,
    ) -> Compiled:
        """`fn(probe_of, explainer, x, *inputs)`, compiled where it was not yet."""

        def bound(probe_of: Callable, tensors: list[Tensor], *values: Any) -> Found:
            return fn(probe_of, self._explainer.bind(tensors), *values)

        def build() -> Compiled:
            inputs = self._forward.specs, *signature()
            return self._forward.compile(bound, *inputs, arrays=self.arrays, learned=learned)

        key = (name, *self._forward.key, self._explainer.structure)
        return self._forward.opened.compiled(key, build)


def stepped(explainer: "Explainer", probe: Probe, point: Nest, index: Tensor, pass_: Pass) -> Nest:
    """What a step returns.

    Raises:
        ValueError: It can't be values of each row. Numbers of rows `[n]` that meet a point's last
            axis make one of unknown length, which would else be values of another sample.
    """
    values = explainer.step(probe, point, index, pass_)
    leaves, name = tree.flatten(values), type(explainer).__name__
    if not leaves or not all(backend.is_tensor(leaf) and len(leaf.shape) for leaf in leaves):
        raise ValueError(
            f"Expected the `step` of {name} to return values for each row, tensors [n, ...]. "
            f"Received: {values!r}."
        )
    known = all(None not in leaf.shape[1:] for leaf in tree.flatten(point))
    plain = explainer.plan.values == "point" and explainer.plan.classes == "one"
    mixed = [tuple(leaf.shape) for leaf in leaves if None in leaf.shape[1:]]
    if known and plain and mixed:
        raise ValueError(
            f"Expected the `step` of {name} to return values for each row, of known length on all "
            f"axes but the first. Received: shape {mixed[0]}. Numbers of rows [n], such as those "
            "of a pass, must be reshaped before they meet a point: `ops.reshape(a, (-1, 1, 1, 1))`."
        )
    return values


def _found(probe: Probe, explainer: "Explainer", total: Nest, point: Nest) -> dict[str, Any]:
    """The values and extras, and what is needed to judge them."""
    plan, values = explainer.plan, explainer.finish(probe, total, point)
    if plan.values == "point" and not explainer.reduce.collapses:
        values = probe.space.collapse(values)
    found = {"values": values, **explainer.extras(total)}
    if plan.unit == "score per input":
        found[SIZE] = precision.size_of(point)
    if plan.value_error is not None:
        error = probe.space.collapse(plan.value_error(probe, total, point))
        found["value_error"] = _beside(error, values)
    return found


def _beside(error: Nest, values: Nest) -> Tensor:
    """The L2 norm of a row's errors over that of its values, `[n]`; 0 where nothing is off."""

    def norm(nest: Nest) -> Tensor:
        leaves = (ops.cast(leaf, "float64") for leaf in tree.flatten(nest))
        squares = (ops.sum(ops.square(leaf), tuple(range(1, len(leaf.shape)))) for leaf in leaves)
        return ops.sqrt(sum(squares))

    off, size = norm(error), norm(values)
    return ops.cast(ops.where(off == 0, off, off / size), "float32")


def _collapse(probe: Probe, explainer: "Explainer") -> Callable[[Nest], Nest]:
    """What makes of values of a point, `[passes, rows, ...]`, those of the input."""

    def collapse(values: Nest) -> Nest:
        if explainer.plan.values != "point":
            return values
        counts = ops.shape(tree.flatten(values)[0])[:2]
        flat = tree.map_structure(lambda v: ops.reshape(v, (-1, *ops.shape(v)[2:])), values)
        return tree.map_structure(
            lambda v: ops.reshape(v, (*counts, *ops.shape(v)[1:])), probe.space.collapse(flat)
        )

    return collapse


def _score_spec(scores: Tensor | None) -> Any:
    return None if scores is None else backend.spec(scores, free_axes=2)


def _tile(tensor: Tensor, times: Tensor) -> Tensor:
    tiled = ops.tile(tensor, (times,) + (1,) * (len(tensor.shape) - 1))
    return ops.reshape(tiled, (-1, *ops.shape(tensor)[1:]))
