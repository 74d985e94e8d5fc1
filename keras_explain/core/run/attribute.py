"""An explanation as a part of a user's graph: of a training step, or an exported signature."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.opened import Compiled
from keras_explain.core.model.points import per_row
from keras_explain.core.model.targets import as_target
from keras_explain.core.run.functions import stepped
from keras_explain.core.run.plan import Pass

if TYPE_CHECKING:
    from keras_explain.core.explainer import Explainer

Tensor = Any
Nest = Any

LENGTH = 64
"""What stands for a length that is not known, where only the kind of the input counts."""


def as_tensors(x: Nest) -> Nest | None:
    """An input of tensors, which stay what they are, so that a tape sees through; else None."""
    if not any(map(backend.is_tensor, tree.flatten(x))):
        return None
    return tree.map_structure(ops.convert_to_tensor, x)


def example_of(tensors: Nest) -> Nest:
    """One row of arrays like tensors, to be checked in their place."""
    return tree.map_structure(_like, tensors)


def _like(tensor: Tensor) -> np.ndarray:
    """One row of zeros, or of empty texts, like a tensor."""
    shape = (1, *(LENGTH if n is None else n for n in tensor.shape[1:]))
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return np.full(shape, "") if dtype == "string" else np.zeros(shape, dtype)


def attribute(explainer: "Explainer", forward: Forward, x: Nest, target: Any, seed: Any) -> Nest:
    """The values, as `Explainer.attribute` describes them.

    They are made in a function of their own, which is differentiated as it is when it is finished.

    Args:
        explainer: The explainer.
        forward: The model and the kind of input.
        x: The input, a nest of tensors.
        target: What is explained.
        seed: A number or a tensor.
    """
    _check_in_graph(explainer)
    plan, in_graph = explainer.plan, backend.is_tensor(seed)
    arrays = backend.to_tensors(explainer.arrays()) + forward.target_arrays
    rows = ops.shape(tree.flatten(x)[0])[0]
    classes = _classes(target, rows)
    index = ops.broadcast_to(classes, (rows, 1))
    known = in_graph or plan.passes is not None  # else passes are data, as in a call
    given = [seed] if in_graph else [] if known else backend.to_tensors(explainer.passes(seed))

    def values(
        probe_of: Callable, tensors: list[Tensor], x: Nest, index: Tensor, given: Any
    ) -> tuple[Nest, Learned]:
        def passes_of(prepared: dict[str, Tensor]) -> dict[str, Any]:
            if plan.passes is not None:
                return plan.passes(prepared)
            return explainer.passes(given[0]) if in_graph else given

        x = forward.as_numbers(x)
        return _values(explainer.bind(tensors), passes_of, probe_of, x, index)

    def build() -> Compiled:
        specs = backend.specs_of((x, index), free=not inside), backend.specs_of(given)
        return forward.compile(values, *specs[0], specs[1], arrays=arrays)

    inside = any(map(backend.is_symbolic, tree.flatten((x, index, given))))
    if inside:
        function = build()  # its variables may be those of one replica
    else:
        key = ("attribute", in_graph, *forward.key, explainer.structure)
        function = forward.opened.compiled(key, build)
    if backend.is_symbolic(classes):
        _check_units(function.learned.units)
    else:
        forward.check(classes, function.learned)
    return function.call(x, index, given, arrays)


def _values(
    explainer: "Explainer", passes_of: Callable, probe_of: Callable, x: Nest, index: Tensor
) -> tuple[Nest, Learned]:
    """The values of one traced function; passes are a loop whose length is known.

    A graph can't raise: values for a class that the model does not have are NaN.
    """
    rows, plan, reduce = ops.arange(ops.shape(index)[0]), explainer.plan, explainer.reduce.plain
    probe = probe_of(x, rows)
    point = probe.point(x)
    probe.begin(point)
    prepared = {} if plan.prepare is None else plan.prepare(probe, point, index)
    passes = passes_of(prepared)

    def statistics(i: Tensor) -> dict[str, Any]:
        pass_ = Pass.one(i, passes, ops.shape(rows)[0], prepared, x, scores, rows)
        here = tree.map_structure(backend.own, x)
        inner = probe_of(here, rows, probe.learned)
        value = stepped(explainer, inner, inner.point(here), passed.index, pass_)
        return reduce.of_one(value)

    if passes:
        passed = probe.begun(index)
        scores = passed.scores if plan.classes == "all" else None
        count = int(tree.flatten(passes)[0].shape[0])
        total = reduce.result(backend.reduced(statistics, reduce.merge, count))
    else:
        total = stepped(explainer, probe, point, index, Pass())
    values = explainer.finish(probe, total, point)
    values = probe.space.collapse(values) if plan.values == "point" else values
    if plan.classes == "all":
        values = tree.map_structure(lambda v: v[:, 0], values)
    if (units := probe.learned.units) is not None:
        known = ops.where(index[:, 0] < units, 1.0, np.nan)
        values = tree.map_structure(lambda v: v * per_row(known, v), values)
    return values, probe.learned


def _classes(target: Any, rows: Any) -> Tensor:
    """The class of each row, or of all, ints `[n, 1]` or `[1, 1]`; `rows` is how many there are."""
    if backend.is_tensor(target):
        if not keras.backend.is_int_dtype(target.dtype) or len(target.shape) > 1:
            raise ValueError(
                "Expected a tensor of ints as target, [] or [B]: one class for each row. "
                f"Received: shape {tuple(target.shape)}, dtype {target.dtype}. Labels [B, 1] "
                'become that by `ops.cast(ops.reshape(y, (-1,)), "int32")`, one-hot ones by '
                "`ops.argmax(y, axis=-1)`; for K classes ask K times."
            )
        index = ops.reshape(ops.cast(target, "int32"), (-1, 1))
    else:
        target = as_target(target)
        index, many = target.rows(1 if np.ndim(target.index) == 0 else len(target.index))
        if many:
            raise ValueError(
                f"Expected one class for each row, ints [B]. Received: target of shape "
                f"{index.shape}. For K classes ask K times."
            )
    if isinstance(rows, int) and index.shape[0] not in (1, rows, None):
        raise ValueError(
            f"Expected one class for each of {rows} rows, or one for all. "
            f"Received: {index.shape[0]}."
        )
    return index


def _check_units(units: int | None) -> None:
    """A one-unit output has one class: what a graph gives as classes are labels."""
    if units == 1:
        raise ValueError(
            "Expected no classes for an output of one unit, whose logit is explained. Received: a "
            "tensor. Of 0/1 labels it is explained by `target=keras_explain.targets.Label(), "
            "index=y`."
        )


def _check_in_graph(explainer: "Explainer") -> None:
    if explainer.plan.error is not None:
        raise ValueError(
            "Expected a number of passes, as they are a loop of known length in a graph. "
            f"Received: {explainer!r}."
        )
    parts = {"shares": "cuts what is explained into features", "search": "chooses its passes"}
    parts["afterwards"] = "makes its values of the scores"
    found = [what for part, what in parts.items() if getattr(explainer.plan, part) is not None]
    if found:
        raise ValueError(
            "Expected an explainer whose work is all in the graph, as that of gradients, class "
            f"activation maps and rules is. Received: {type(explainer).__name__}, which "
            f"{found[0]} on the host, in NumPy. Call it on arrays, outside of the training step."
        )
