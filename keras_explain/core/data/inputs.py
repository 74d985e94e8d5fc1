"""What a user passes as `x`: converted, and checked against the model before anything runs."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_explain.core import arrays

Nest = Any


def checked(model: keras.Model, x: Nest, name: str = "`x`", *, missing: bool = False) -> Nest:
    """The arrays of `x` as float32, integer or boolean NumPy arrays that the model can take.

    Args:
        model: The model.
        x: What a user passed.
        name: What an error calls it.
        missing: Whether NaN is allowed, which a model may know what to do with.

    Raises:
        ValueError: `x` is empty, holds numbers that are not finite, differs in the number of rows
            between its arrays, or has another shape or structure than the model's input.
    """
    x = converted(model, x, name)
    leaves = tree.flatten(x)
    if not leaves or any(leaf.ndim == 0 for leaf in leaves):
        raise ValueError(
            f"Expected arrays [B, ...] as {name}. Received: numbers, or nothing. Nested lists "
            "become an array with `np.asarray(x)`."
        )
    _check_structure(model, x, name)
    rows = {leaf.shape[0] for leaf in leaves}
    if len(rows) > 1:
        raise ValueError(
            "Expected arrays with the same number of rows. "
            f"Received: shapes {[leaf.shape for leaf in leaves]}."
        )
    if rows == {0}:
        raise ValueError(
            f"Expected at least one sample. Received: {name} of shape {leaves[0].shape}."
        )
    for leaf in leaves:
        check_finite(leaf, name, missing=missing)
    return x


def converted(model: keras.Model, x: Nest, name: str) -> Nest:
    """Data of the model's input as a nest of NumPy arrays: float32, int32 or booleans.

    A table becomes one array, or for a model with an input for each column a dict of them. Rows
    `[B]` of an input `[B, 1]` get its axis, as in Keras. Nothing is checked but that it can be
    converted.

    Args:
        model: The model that takes it.
        x: What a user passed as `x`, or as rows like it.
        name: What an error calls it.

    Raises:
        ValueError: A part can't be converted.
    """
    return _converted(x, structure_of(model), name)


def structure_of(model: keras.Model) -> Nest:
    """The nest of symbolic inputs that a model declares; None for one that declares none."""
    declared = getattr(model, "inputs", None)
    if not declared:
        return None
    # A Sequential has an `input` only once it was called.
    return declared[0] if isinstance(model, keras.Sequential) else model.input


def takes_text(model: keras.Model) -> bool:
    """Whether an input of a model is declared to hold text."""
    return any(
        leaf.dtype == "string" for leaf in tree.flatten(getattr(model, "inputs", None) or [])
    )


def rows_like(
    model: keras.Model, rows: Nest, x: Nest, name: str, columns: tuple[str, ...] | None = None
) -> Nest:
    """Rows like those of a converted `x`, converted as it was.

    A configuration keeps a table as its columns: for a model that takes one array, they become it,
    in the order of the `columns` that `x` was given with.
    """
    if isinstance(rows, dict) and isinstance(x, dict) and set(x) < set(rows):
        rows = {key: rows[key] for key in x}
    elif isinstance(rows, dict) and isinstance(x, np.ndarray):
        table = arrays.stacked(rows, name, columns)
        return converted(model, rows if table is None else table, name)
    return converted(model, rows, name)


def _converted(x: Any, struct: Nest, name: str) -> Nest:
    if isinstance(struct, (list, tuple)) and len(struct) == 1 and not _is_nest(x):
        struct = struct[0]
    if arrays.is_table(x) and isinstance(struct, dict):
        named = dict(arrays.columns(x))
        x = {key: named[key] for key in struct} if set(struct) <= set(named) else named
    if isinstance(x, Mapping):
        declared = [] if struct is None else tree.flatten(struct)
        by_name = struct if isinstance(struct, dict) else {t.name: t for t in declared}
        return {k: _converted(v, by_name.get(k), f"{name}[{k!r}]") for k, v in x.items()}
    pairs = isinstance(x, (list, tuple)) and isinstance(struct, (list, tuple))
    if _is_nest(x) or (pairs and len(x) == len(struct)):
        inside = struct if pairs and len(x) == len(struct) else [None] * len(x)
        found = [_converted(v, inside[i], f"{name}[{i}]") for i, v in enumerate(x)]
        return tuple(found) if isinstance(x, tuple) else found
    if isinstance(x, (list, tuple)) and struct is None:
        return tree.map_structure(lambda leaf: _narrowed(arrays.plain(leaf, name), name), x)
    array = arrays.plain(x, name)
    takes_text = getattr(struct, "dtype", None) == "string"
    if takes_text and array.dtype.kind != "U":
        raise ValueError(
            f"Expected text as {name}, as input {struct.name!r} takes. "
            f"Received: dtype {array.dtype}. Numbers become text by `.astype(str)`."
        )
    if array.dtype.kind == "U" and not takes_text:
        raise ValueError(
            f"Expected numbers as {name}; text is passed as the token ids that the model's layers "
            f"take. Received: an array of dtype {array.dtype}."
        )
    return _as_declared(_narrowed(array, name), struct)


def _is_nest(x: Any) -> bool:
    """Whether `x` holds several arrays, and not the numbers of one."""
    return isinstance(x, (list, tuple)) and any(map(arrays.is_array, tree.flatten(x)))


def _narrowed(array: np.ndarray, name: str) -> np.ndarray:
    """In 32 bits, as the model computes."""
    if array.dtype.kind in "iu":
        fits = array.size == 0 or np.iinfo(np.int32).min <= array.min() <= array.max() < 2**31
        return array.astype(np.int32 if fits else np.float32, copy=False)
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32, copy=False)
    if (np.isinf(narrow) & np.isfinite(array)).any():
        raise ValueError(
            f"Expected numbers below 3.4e38, which float32 can hold, as {name}. "
            f"Received: {array[np.isinf(narrow)].flat[0]:g}. Scale it."
        )
    return narrow


def _as_declared(array: np.ndarray, declared: Any) -> np.ndarray:
    """With the last axis of an input `[B, 1]`, and booleans as numbers, where it takes these."""
    if declared is None:
        return array
    if array.ndim == 1 and tuple(declared.shape[1:]) == (1,):
        array = array[:, None]
    elif array.ndim == 2 and array.shape[1] == 1 and len(declared.shape) == 1:
        array = array[:, 0]
    as_number = array.dtype == bool and declared.dtype != "bool"
    return array.astype(np.float32) if as_number else array


def check_ids(array: np.ndarray, count: float, name: str = "`x`") -> None:
    """Raises a `ValueError` where an array holds what is no token id.

    Args:
        array: Ids, which may come as floats.
        count: How many there are. Keras counts negative ones from the last.
        name: What the array is, for messages.
    """
    if array.dtype.kind not in "iuf":
        return
    if (broken := array != np.rint(array)).any():
        expected = f"whole numbers as token ids in {name}, since they enter an Embedding"
    elif (broken := (array < -count) | (array >= count)).any():
        expected = f"token ids from 0 to {count - 1} in {name}, the entries of an Embedding"
    else:
        return
    row = int(np.nonzero(np.atleast_1d(broken))[0][0])
    raise ValueError(f"Expected {expected}. Received: {array[broken][0]} in row {row}.")


def check_finite(array: np.ndarray, name: str, *, missing: bool = False) -> None:
    """Raises a `ValueError` where rows of an array hold infinity, or NaN unless it is `missing`.

    What float32 can't hold would be infinite.
    """
    if array.dtype.kind != "f":
        return
    good = np.isfinite(array) | (np.isnan(array) if missing else False)
    if not good.all():
        bad = ~good.reshape(len(array), -1).all(axis=1)
        raise ValueError(
            f"Expected finite numbers as {name}. Received: NaN or infinity in "
            f"{int(bad.sum())} of {len(array)} rows, the first at row {int(bad.argmax())}."
        )
    _narrowed(array, name)


def _check_structure(model: keras.Model, x: Nest, name: str) -> None:
    expected = tree.flatten(getattr(model, "inputs", None) or [])
    leaves = tree.flatten(x)
    if not expected:
        return
    if isinstance(x, dict):
        struct = structure_of(model)
        by_name = struct if isinstance(struct, dict) else {t.name: t for t in expected}
        if set(by_name) != set(x):
            raise ValueError(
                f"Expected {_named(by_name, struct)}, as {model.name!r} takes. "
                f"Received: a dict of {', '.join(map(repr, x))}.{_hint(x, struct)}"
            )
        expected = [by_name[key] for key in sorted(x)]
    if len(leaves) != len(expected):
        raise ValueError(
            f"Expected {len(expected)} input array(s) of shape "
            f"{', '.join(str(tuple(t.shape)) for t in expected)}, as {model.name!r} takes. "
            f"Received: {len(leaves)} array(s) of shape {', '.join(str(a.shape) for a in leaves)}."
        )
    for array, wanted in zip(leaves, expected, strict=True):
        _check_shape(array, wanted, name)


def _named(by_name: dict[str, Any], struct: Nest) -> str:
    if isinstance(struct, (dict, list, tuple)):
        return f"arrays named {', '.join(map(repr, by_name))}"
    return f"one array of shape {('B', *struct.shape[1:])}".replace("'B'", "B")


def _hint(x: dict[str, Any], struct: Nest) -> str:
    if isinstance(struct, (dict, list, tuple)):
        return ""
    if len(x) > 1:
        return " Columns become one array by `np.stack(list(x.values()), axis=1)`."
    return f" Give `x[{next(iter(x))!r}]`."


def _check_shape(array: np.ndarray, wanted: Any, name: str) -> None:
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
        f"Expected {name} of shape {('B', *shape[1:])} for input {wanted.name!r}. "
        f"Received: shape {array.shape}.{hint}".replace("'B'", "B")
    )
