"""The samples that a callback explains: read once, whatever they come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_explain.core import arrays
from keras_explain.core.data.batches import Labels, batches_of, class_labels

Nest = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Samples to explain.

    Attributes:
        x: The input: a nest of arrays `[B, ...]`.
        labels: True classes, ints `[B]`, or `None`.
        total: How many samples were given where that is known, of which `x` has the first.
    """

    x: Nest
    labels: Labels | None
    total: int | None

    def __len__(self) -> int:
        return len(keras.tree.flatten(self.x)[0])


def read(x: Any, y: Any, max_samples: int, *, need_labels: bool = False) -> Samples:
    """Takes the first samples of arrays, or of as many batches as that needs.

    Args:
        x: An array `[N, ...]`, a nest of them, or batches: a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or any iterable of `x`, `(x, y)` or `(x, y, sample_weight)`.
        y: Classes, as `class_labels` takes them; `None` takes them from the batches, where these
            have them.
        max_samples: How many samples to take at most.
        need_labels: Whether batches whose `y` holds no classes are an error.

    Returns:
        The samples, copied.

    Raises:
        ValueError: If there are no samples, the lengths differ, or `y` holds no classes.
    """
    if any(isinstance(leaf, str) for leaf in keras.tree.flatten(x)):
        raise ValueError(
            "Expected arrays as `x`. Received: a list of texts. Give their token ids, as "
            "`keras_explain.features.Tokens(tokenizer=...).ids(texts)` makes them, or for a model "
            "that takes texts itself an array, `np.array(texts)`."
        )
    arrays = _is_nest_of_arrays(x)
    x, found, total = _from_arrays(x, max_samples) if arrays else _from_batches(x, max_samples)
    rows = len(keras.tree.flatten(x)[0])
    if y is not None:
        return Samples(x, _given_labels(y, rows, total), total)
    return Samples(x, None if found is None else _found_labels(found, rows, need_labels), total)


def _is_nest_of_arrays(x: Any) -> bool:
    return isinstance(x, (list, tuple, dict)) or hasattr(x, "shape")


def _from_arrays(x: Nest, max_samples: int) -> tuple[Nest, None, int]:
    x = keras.tree.map_structure(lambda leaf: arrays.plain(leaf, "`x`"), x)
    lengths = sorted({len(leaf) if leaf.ndim else 0 for leaf in keras.tree.flatten(x)})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ValueError(
            "Expected `x` to be an array [B, ...], or a nest of arrays of one length, with at "
            f"least one sample. Received: arrays of lengths {lengths}."
        )
    return _first(x, max_samples), None, lengths[0]


def _from_batches(batches: Any, max_samples: int) -> tuple[Nest, Any, None]:
    taken, missing = [], max_samples
    for batch in batches_of(batches, _EXPECTED):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        taken.append((_first(x, missing), None if y is None else _first(y, missing)))
        missing -= len(keras.tree.flatten(taken[-1][0])[0])
        if missing <= 0:
            break
    if missing == max_samples:
        raise ValueError(f"Expected `x` to yield at least one sample. Received: {batches!r}.")
    xs, ys = zip(*taken, strict=True)
    return _joined(xs), None if ys[0] is None else _joined(ys), None


def _first(nest: Nest, rows: int) -> Nest:
    return keras.tree.map_structure(lambda leaf: arrays.plain(leaf, "`x`")[:rows].copy(), nest)


_EXPECTED = (
    "Expected `x` to be an array, a nest of arrays, a `tf.data.Dataset`, or an iterable of batches."
)


def _joined(nests: Sequence[Nest]) -> Nest:
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *nests)


def _given_labels(y: Any, samples: int, total: int | None) -> Labels:
    labels = class_labels(y)
    if len(labels) not in (samples, total):
        expected = samples if total is None else total
        raise ValueError(f"Expected {expected} labels, one per sample. Received: {len(labels)}.")
    return labels[:samples]


def _found_labels(y: Any, samples: int, needed: bool) -> Labels | None:
    """A data set's `y` need not hold classes, unless they were asked for."""
    try:
        return _given_labels(y, samples, None)
    except ValueError:
        if needed:
            raise
        return None
