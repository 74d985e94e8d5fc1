"""Data that comes in batches, and the classes in its labels."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]  # [B]


def batches_of(batches: Any, expected: str) -> Iterable[Any]:
    """The batches of a `tf.data.Dataset`, a `keras.utils.PyDataset` or any other iterable.

    Args:
        batches: What a user passed.
        expected: A sentence that says what it should be, for an error.

    Raises:
        ValueError: It can't be iterated over.
    """
    if isinstance(batches, keras.utils.PyDataset):
        return _by_index(batches)
    if isinstance(batches, Iterable):
        return batches
    raise ValueError(f"{expected} Received: {batches!r} of type {type(batches).__name__}.")


def _by_index(dataset: keras.utils.PyDataset) -> Iterator[Any]:
    """Iterating over an endless `PyDataset` would ask for its length."""
    index = 0
    while dataset.num_batches is None or index < dataset.num_batches:
        yield dataset[index]
        index += 1


def class_labels(y: Any) -> Labels:
    """Classes as ints `[B]`.

    Args:
        y: Ints `[B]` or `[B, 1]`, or one-hot or soft labels `[B, C]`, of which the largest counts.

    Returns:
        Ints `[B]`.

    Raises:
        ValueError: If `y` is none of these.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    numbers = y.dtype.kind in "buif"
    if numbers and y.ndim == 1 and _are_indices(y):
        return y.astype(np.int64)
    if numbers and y.ndim == 2:
        largest = y == y.max(axis=1, keepdims=True)
        if (largest.sum(axis=1) == 1).all():
            return y.argmax(axis=1)
    raise ValueError(
        "Expected `y` to hold one class per sample: ints of shape [B] or [B, 1], or one-hot or "
        "soft labels of shape [B, C] with one largest entry per row. "
        f"Received: shape {y.shape}, dtype {y.dtype}, beginning {str(y)[:60]!r}. "
        "Leave `y` out to explain what the model predicts, or say with `target=` what to explain."
    )


def _are_indices(y: np.ndarray) -> bool:
    return bool(((y >= 0) & (y <= np.iinfo(np.int32).max) & (y == np.floor(y))).all())
