"""Whether all that is returned is finite; if not, which part of the model it comes from."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.graph.steps import Call
from keras_explain.core.model.forward import ROWS, Forward
from keras_explain.core.model.opened import Compiled, OpenModel
from keras_explain.core.model.targets import Target

Tensor = Any
Nest = Any

MAY_BE_UNKNOWN = frozenset({"standard_error", "relative_error", "value_error"})
"""Extras that say how far off values may be: NaN where that can't be known."""


class NotFiniteError(Exception):
    """The model's score of a sample is not finite, so there is nothing to explain."""

    def __init__(self, message: str, sample: int) -> None:
        super().__init__(message)
        self.sample = sample


def finite_rows(result: dict[str, Any]) -> np.ndarray:
    """The samples whose values, scores and extras are all finite, booleans `[B]`."""
    parts = [leaf for part in _parts(result).values() for leaf in tree.flatten(part)]
    return np.all([_are_finite(leaf) for leaf in parts], axis=0)


def warn(name: str, opened: OpenModel, x: Nest, target: Target, result: dict[str, Any]) -> None:
    """Says which parts of a result are not finite, and where in the model that begins.

    The text has no numbers, so that Python shows it once, and not at every epoch of a training.

    Args:
        name: Of the explainer.
        opened: The model.
        x: The checked input, a nest of arrays `[B, ...]`.
        target: What is explained.
        result: `"values"`, `"scores"` and `"extras"`.
    """
    good = {part: _rows(leaves) for part, leaves in _parts(result).items()}
    broken = [part for part, rows in good.items() if not rows.all()]
    rows = np.all(list(good.values()), axis=0)
    many = "some" if rows.any() else "all"
    warnings.warn(
        f"{name} has NaN or infinite {', '.join(broken)} for {many} samples. "
        f"{cause(opened, x, target, int(rows.argmin()))}.",
        stacklevel=3,
    )


def _parts(result: dict[str, Any]) -> dict[str, Nest]:
    extras = {name: part for name, part in result["extras"].items() if name not in MAY_BE_UNKNOWN}
    named = {"values": result["values"], "scores": result["scores"], **extras}
    return {name: part for name, part in named.items() if tree.flatten(part)}


def _rows(part: Nest) -> np.ndarray:
    return np.all([_are_finite(leaf) for leaf in tree.flatten(part)], axis=0)


def _are_finite(leaf: Any) -> np.ndarray:
    """For each sample whether all its numbers are finite, `[B]`."""
    array = np.asarray(leaf)
    if array.dtype.kind != "f":
        return np.ones(len(array), bool)
    return np.isfinite(array).reshape(len(array), -1).all(axis=1)


def cause(opened: OpenModel, x: Nest, target: Target, sample: int) -> str:
    """Where in the model what is not finite begins, for a sample of `x`."""
    found = _first_layer(Forward(opened, x, target), sample)
    if found is not None:
        path, what = found
        weight = _broken_weight(opened, path)
        holds = f", which holds {weight[1]} in its {weight[0]}" if weight else ""
        return f"{what} begins in the output of layer {path!r}{holds}"
    for path in opened.nodes:
        if weight := _broken_weight(opened, path):
            return f"Layer {path!r} holds {weight[1]} in its {weight[0]}"
    return (
        "The outputs of all layers are finite for the input itself: not finite are the model's own "
        "last operations, gradients, or the outputs for what the input is compared with"
    )


def _first_layer(forward: Forward, row: int) -> tuple[str, str] | None:
    """The path of the first layer whose output is not finite for a sample, and what it holds.

    NaN comes first: infinity may be meant, as in the logits of classes that are masked.
    """
    function = forward.opened.compiled(("finite", *forward.key), lambda: _compiled(forward))
    x, rows, _ = forward.tensors(np.array([row], np.int32), np.zeros((1, 1), np.int32))
    found = np.asarray(function.call(x, rows, forward.target_arrays))  # [calls, 2]
    for what, broken in zip(("NaN", "Infinity"), found.T, strict=True):
        if broken.any():
            return function.learned[int(broken.argmax())], what
    return None


def _compiled(forward: Forward) -> Compiled:
    def broken(probe_of: Callable, _: list, x: Nest, rows: Tensor) -> tuple[Tensor, list[str]]:
        return _broken_calls(probe_of(x, rows).outputs().calls)

    return forward.compile(broken, forward.specs, ROWS, arrays=forward.target_arrays)


def _broken_calls(calls: Sequence[Call]) -> tuple[Tensor, list[str]]:
    """For each call of a layer whether its output holds NaN, and infinity, and the paths.

    The first are booleans `[calls, 2]`.
    """
    found, paths = [], []
    for call in calls:
        parts = [t for t in tree.flatten(call.output) if t.dtype.is_floating]
        flat = [ops.reshape(ops.cast(part, "float32"), (-1,)) for part in parts]
        tests = [[ops.any(test(part)) for part in flat] for test in (ops.isnan, ops.isinf)]
        if flat:
            found.append(ops.stack([ops.any(ops.stack(one)) for one in tests]))
            paths.append(call.path)
    return (ops.stack(found) if found else ops.zeros((0, 2), "bool")), paths


def _broken_weight(opened: OpenModel, path: str) -> tuple[str, str] | None:
    """The name of the first weight of a layer that is not finite, and what it holds."""
    for variable in getattr(opened.nodes[path], "weights", []):
        values = backend.to_numpy(variable)
        if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
            continue
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            return variable.name, "NaN" if np.isnan(values).any() else "infinity"
    return None
