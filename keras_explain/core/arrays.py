"""Arrays of whatever a user passes as data: tables, tensors, sparse matrices, lists."""

import datetime
import decimal
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_explain import backend

_REMEDIES = {
    "M": "Turn dates into numbers, such as days: `(dates - start) / np.timedelta64(1, 'D')`.",
    "m": "Turn durations into numbers, such as days: `durations / np.timedelta64(1, 'D')`.",
    "c": "Give the real part, or the magnitude, as an input of its own.",
    "V": "Stack the fields of a structured array: `np.stack([a[n] for n in a.dtype.names], -1)`.",
    "U": (
        "Give text as numbers: categories as `pandas.get_dummies` makes them, texts as token ids; "
        "or to a model with an input for each column as `dict(df)`."
    ),
    "O": "Give one number a place; arrays of equal shape become one by `np.stack(list(...))`.",
}


def plain(value: Any, name: str) -> np.ndarray:
    """A NumPy array of booleans, numbers or strings, in native byte order.

    What is missing (None, NA, a masked place) becomes NaN. Sparse matrices become dense, as
    attributions to them are. The columns of a table (pandas) become one array.

    Args:
        value: An array, a table or one of its columns, a tensor, a variable, a sparse matrix, a
            number, or nested lists of numbers.
        name: What an error calls it.

    Raises:
        ValueError: It can't be converted; the column is named.
    """
    if is_table(value):
        return _joined(columns(value), name)
    array = _array(value, name)
    if array.dtype.kind == "O":
        array = _of_objects(array, value, name)
    elif array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        array = array.astype(np.float32)
    if array.dtype.kind not in "biufU":
        raise _refusal(array.dtype.kind, str(getattr(value, "dtype", array.dtype)), name)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def is_array(value: Any) -> bool:
    """Whether a value is an array, a table, a tensor or a sparse matrix, which `plain` takes."""
    known = hasattr(value, "__array__") or hasattr(value, "toarray") or backend.is_tensor(value)
    return hasattr(value, "shape") and known


def is_table(value: Any) -> bool:
    """Whether a value is a table with named columns, such as a pandas DataFrame."""
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def columns(table: Any) -> list[tuple[Any, Any]]:
    """The names of a table's columns, and the columns."""
    at = table.iloc if hasattr(table, "iloc") else table  # names may be there twice
    return [(name, at[:, i]) for i, name in enumerate(table.columns)]


def names_of(table: Any) -> tuple[str, ...] | None:
    """The names of a table's columns; None of no table, or where they are no different strings."""
    if not is_table(table):
        return None
    names = tuple(name for name in table.columns if isinstance(name, str))
    return names if len(set(names)) == len(table.columns) else None


def named_columns(table: Any, name: str) -> dict[str, np.ndarray] | None:
    """The columns by name, arrays `[N]`; None where their names are no different strings."""
    if names_of(table) is None:
        return None
    return {key: plain(part, f"column {key!r} of {name}") for key, part in columns(table)}


def order_of(names: Sequence[str], wanted: Sequence[str] | None, name: str) -> list[int]:
    """The position of each wanted column among those of a table; without any, they stay.

    Raises:
        ValueError: The table has other columns.
    """
    if wanted is None:
        return list(range(len(names)))
    if sorted(names) != sorted(wanted):
        raise ValueError(
            f"Expected {name} with the columns of `x`, {', '.join(map(repr, wanted))}. "
            f"Received: {', '.join(map(repr, names))}."
        )
    return [list(names).index(column) for column in wanted]


def stacked(
    named: dict[str, Any], name: str, wanted: Sequence[str] | None = None
) -> np.ndarray | None:
    """Columns `[N]` by name as a table `[N, columns]`; None where they are no columns.

    Args:
        named: The columns.
        name: What an error calls them.
        wanted: Their names in the order of the result; by default as they come.

    Raises:
        ValueError: Some of them hold texts, or they are not the wanted ones.
    """
    shapes = {np.shape(part) if is_array(part) else () for part in named.values()}
    alike = len(shapes) == 1 and len(next(iter(shapes))) == 1
    if not alike:
        return None
    found = list(named.items())
    return _joined([found[i] for i in order_of(list(named), wanted, name)], name)


def _joined(found: list[tuple[Any, Any]], name: str) -> np.ndarray:
    if not found:
        raise ValueError(f"Expected a table with columns as {name}. Received: one without any.")
    parts = [plain(part, f"column {key!r} of {name}") for key, part in found]
    texts = [pair for pair, part in zip(found, parts, strict=True) if part.dtype.kind == "U"]
    if texts and len(texts) < len(parts):
        which = ", ".join(repr(key) for key, _ in texts)
        raise _refusal("U", str(texts[0][1].dtype), f"column {which} of {name}")
    return np.stack(parts, axis=1)


def _array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        return np.ma.filled(value.astype(np.float64), np.nan) if value.mask.any() else value.data
    if hasattr(value, "toarray"):
        return np.asarray(value.toarray())
    try:
        return backend.to_numpy(value)
    except Exception as error:  # of whatever library the value is
        shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise ValueError(
            f"Expected an array [B, ...] as {name}, whose rows have one length. "
            f"Received: {shown}, which is none. Fill up rows of different lengths, such as by "
            "`keras.utils.pad_sequences`, or of a ragged tensor by `to_tensor()`."
        ) from error


def _of_objects(array: np.ndarray, value: Any, name: str) -> np.ndarray:
    """Python objects as strings, where they are, or as float64."""
    flat = array.ravel().tolist()
    dtype = str(getattr(value, "dtype", "object"))
    if flat and all(isinstance(item, (str, bytes)) for item in flat):
        texts = [item.decode() if isinstance(item, bytes) else item for item in flat]
        return np.array(texts, dtype=str).reshape(array.shape)
    if any(isinstance(item, (str, bytes)) for item in flat):
        gaps = all(isinstance(item, (str, bytes)) or is_missing(item) for item in flat)
        if gaps:
            raise ValueError(
                f"Expected a text in every row of {name}. Received: gaps (None or NaN) in "
                f"{sum(map(is_missing, flat))} of {len(flat)}. Fill them, as by `fillna('')`."
            )
        raise _refusal("U", dtype, name)
    odd = [i for i in flat if not is_missing(i) and _kind(i) != "f"]
    if odd:
        raise _refusal(_kind(odd[0]), f"{dtype} ({type(odd[0]).__name__})", name)
    found = [np.nan if is_missing(item) else float(item) for item in flat]
    return np.array(found, np.float64).reshape(array.shape)


def _kind(item: Any) -> str:
    """What a single value is, as NumPy's kinds of dtype; "f" for any number."""
    if isinstance(item, (datetime.date, np.datetime64)):
        return "M"
    if isinstance(item, (datetime.timedelta, np.timedelta64)):
        return "m"
    if isinstance(item, (numbers.Real, decimal.Decimal)):
        return "f"
    return "c" if isinstance(item, numbers.Complex) else "O"


def is_missing(item: Any) -> bool:
    """Whether a single value says that there is none: None, NaN, or pandas's NA and NaT."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(item, float) and item != item


def _refusal(kind: str, dtype: str, name: str) -> ValueError:
    return ValueError(
        f"Expected real numbers as {name}. Received: dtype {dtype}. {_REMEDIES[kind]}"
    )
