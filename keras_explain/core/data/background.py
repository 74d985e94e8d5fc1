"""Backgrounds: rows `[N, ...]` that stand for "a feature is not known"."""

from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data.inputs import check_finite

Tensor = Any
Nest = Any


def check(background: Nest, x: Nest, *, missing: bool = False) -> None:
    """Raises a `ValueError` where a background does not suit the input `x` (arrays `[B, ...]`).

    Args:
        background: The rows.
        x: The input.
        missing: Whether NaN is allowed.
    """
    checks.same_names("a background", background, x)
    if isinstance(background, dict) and not isinstance(x, dict):
        raise ValueError(
            f"Expected a background of the input's nest, {type(x).__name__}. Received: a dict of "
            f"{', '.join(map(repr, background))}."
        )
    rows, leaves = tree.flatten(background), tree.flatten(x)
    received = [np.shape(row) for row in rows]
    alike = [shape[1:] for shape in received] == [leaf.shape[1:] for leaf in leaves]
    if () in received or not alike or len({shape[0] for shape in received} - {0}) != 1:
        expected = ", ".join(str(("N", *leaf.shape[1:])) for leaf in leaves).replace("'", "")
        raise ValueError(
            f"Expected a background of shape {expected}, N rows like the input's. "
            f"Received: {', '.join(map(str, received))}."
        )
    for row in rows:
        check_finite(row, "`background`", missing=missing)


def size(background: Nest) -> int:
    """The number of rows."""
    return len(tree.flatten(background)[0])


def rows(background: Nest, x: Nest, position: Tensor) -> Nest:
    """Some rows, of the nest and dtypes of `x`."""
    found = [
        _as(ops.take(rows, position, axis=0), leaf.dtype)
        for rows, leaf in zip(tree.flatten(background), tree.flatten(x), strict=True)
    ]
    return tree.pack_sequence_as(x, found)


def _as(rows: Tensor, dtype: Any) -> Tensor:
    return rows if dtype == "string" else ops.cast(rows, dtype)
