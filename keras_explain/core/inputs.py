"""What a user passes as `x`: converted, and checked against the model before anything runs."""

from typing import Any

import keras
import numpy as np
from keras import tree

from keras_explain import backend

Nest = Any


def checked(model: keras.Model, x: Nest) -> Nest:
    """The arrays of `x` as float32, integer or boolean NumPy arrays that the model can take.

    Raises:
        ValueError: `x` is empty, holds numbers that are not finite, differs in the number of rows
            between its arrays, or has another shape or structure than the model's input.
    """
    x = tree.map_structure(_array, x)
    leaves = tree.flatten(x)
    if not leaves or any(leaf.ndim == 0 for leaf in leaves):
        raise ValueError(
            "Expected arrays [B, ...] as `x`. Received: numbers, or nothing. Nested lists become "
            "an array with `np.asarray(x)`."
        )
    _check_structure(model, x)
    x = _as_declared(model, x)
    leaves = tree.flatten(x)
    rows = {leaf.shape[0] for leaf in leaves}
    if len(rows) > 1:
        raise ValueError(
            "Expected arrays with the same number of rows. "
            f"Received: shapes {[leaf.shape for leaf in leaves]}."
        )
    if rows == {0}:
        raise ValueError(f"Expected at least one sample. Received: x of shape {leaves[0].shape}.")
    for leaf in leaves:
        check_finite(leaf, "`x`")
    return x


def _array(value: Any) -> np.ndarray:
    array = backend.to_numpy(value)
    _check_kind(array)
    if np.issubdtype(array.dtype, np.integer):
        fits = array.size == 0 or np.iinfo(np.int32).min <= array.min() <= array.max() < 2**31
        return array.astype(np.int32 if fits else np.float32, copy=False)
    if array.dtype == bool:
        return array
    try:
        return array.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Expected numbers as `x`; text is passed as the token ids that the model's layers "
            f"take. Received: an array of dtype {array.dtype}."
        ) from error


def _check_kind(array: np.ndarray) -> None:
    """Refuses dates and complex numbers, of which NumPy would take the days and the real part."""
    other = (np.datetime64, np.timedelta64, np.complexfloating, complex)
    found = array.dtype.type if issubclass(array.dtype.type, other) else None
    if array.dtype == object:
        found = next((type(value) for value in array.flat if isinstance(value, other)), None)
    if found is not None:
        raise ValueError(
            f"Expected real numbers as `x`. Received: {found.__name__}, in an array of dtype "
            f"{array.dtype}. Give the numbers that the model was trained on."
        )


def check_ids(array: np.ndarray) -> None:
    """Raises a `ValueError` where token ids, which may come as floats, are no whole numbers."""
    if array.dtype.kind != "f":
        return
    broken = array != np.rint(array)
    if broken.any():
        row = int(np.nonzero(broken)[0][0])
        raise ValueError(
            "Expected whole numbers as token ids, since they enter an Embedding. Received: "
            f"{array[broken][0]} in row {row}."
        )


def check_finite(array: np.ndarray, name: str) -> None:
    """Raises a `ValueError` where rows of an array hold NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        raise ValueError(
            f"Expected finite numbers as {name}. Received: NaN or infinity in "
            f"{int(bad.sum())} of {len(array)} rows, the first at row {int(bad.argmax())}."
        )


def _check_structure(model: keras.Model, x: Nest) -> None:
    expected = tree.flatten(getattr(model, "inputs", None) or [])
    leaves = tree.flatten(x)
    if not expected:
        return
    if isinstance(x, dict):
        struct = model.input
        by_name = struct if isinstance(struct, dict) else {t.name: t for t in expected}
        if set(by_name) != set(x):
            raise ValueError(
                f"Expected arrays named {', '.join(map(repr, by_name))}, as {model.name!r} takes. "
                f"Received: {', '.join(map(repr, x))}."
            )
        expected = [by_name[name] for name in sorted(x)]
    if len(leaves) != len(expected):
        raise ValueError(
            f"Expected {len(expected)} input array(s) of shape "
            f"{', '.join(str(tuple(t.shape)) for t in expected)}, as {model.name!r} takes. "
            f"Received: {len(leaves)} array(s) of shape {', '.join(str(a.shape) for a in leaves)}."
        )
    for array, wanted in zip(leaves, expected, strict=True):
        _check_shape(array, wanted)


def _as_declared(model: keras.Model, x: Nest) -> Nest:
    """Booleans as numbers where the model declares a numeric input."""
    declared = tree.flatten(getattr(model, "inputs", None) or [])
    leaves = tree.flatten(x)
    if len(declared) == len(leaves) == 1 and declared[0].dtype != "bool":
        leaves = [leaf.astype(np.float32) if leaf.dtype == bool else leaf for leaf in leaves]
    return tree.pack_sequence_as(x, leaves)


def _check_shape(array: np.ndarray, wanted: Any) -> None:
    shape = tuple(wanted.shape)
    fits = array.ndim == len(shape) and all(
        n in (None, m) for n, m in zip(shape[1:], array.shape[1:], strict=True)
    )
    if fits:
        return
    hint = ""
    if array.ndim == len(shape) - 1:
        hint = " A single sample needs a batch axis: `x[None]`."
        alone = all(n in (None, m) for n, m in zip(shape[1:], array.shape, strict=True))
        if shape[-1] == 1 and not alone:
            hint = " Add the axis of the one channel: `x[..., None]`."
    raise ValueError(
        f"Expected `x` of shape {('B', *shape[1:])} for input {wanted.name!r}. "
        f"Received: shape {array.shape}.{hint}".replace("'B'", "B")
    )
