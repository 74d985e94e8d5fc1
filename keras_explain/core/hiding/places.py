"""Places of an input, and numbers of what they are of."""

from typing import Any

import numpy as np

Labels = np.ndarray  # int32 [B, ...]: the number of each place's feature, -1 where it is none's


def places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an input `[B, F]` or `[B, *places, C]` without its samples and channels."""
    return tuple(shape[1:] if len(shape) <= 2 else shape[1:-1])


def per_axis(name: str, value: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    """A number for each spatial axis of an input whose places are so many along each."""
    axes = len(sides)
    values = value if isinstance(value, tuple) else (value,) * axes
    if len(values) != axes:
        raise ValueError(
            f"Expected `{name}` to be a number, or one for each of {axes} spatial axes. "
            f"Received: {name}={value!r} for places of shape {sides}."
        )
    return values


def blocks(shape: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """The number of the block that each place is of, of blocks of a size side by side."""
    return crossed([np.arange(n) // length for n, length in zip(shape, size, strict=True)])


def crossed(along: list[np.ndarray]) -> np.ndarray:
    """The number of each cell of a grid, of the numbers along its axes."""
    numbers = np.zeros((), np.int64)
    for axis in along:
        numbers = numbers[..., None] * (axis.max() + 1) + axis
    return numbers


def renumbered(groups: np.ndarray) -> np.ndarray:
    """Groups numbered from 0 on, without gaps."""
    known, numbers = np.unique(groups, return_inverse=True)
    missing = int(np.count_nonzero(known < 0))
    numbers = numbers.reshape(groups.shape) - missing
    return np.maximum(numbers, -1).astype(np.int32)


def for_each(labels: np.ndarray, x: np.ndarray) -> Labels:
    """The labels of one sample for each sample of `x`."""
    return np.broadcast_to(labels.astype(np.int32), (len(x), *labels.shape))


def whole_numbers(value: Any, name: str) -> np.ndarray:
    """What a user gave as an array of ints; `name` says as what, in the error."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"Expected `{name}` to be whole numbers, one for each place: [0, 0, 1] joins the first "
            f"two. Received: {brief(value)}."
        )
    return array


def brief(value: Any) -> str:
    """A value, spelled for an error."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
