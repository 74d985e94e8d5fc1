"""Where the places of an input are, and where its channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data.kinds import Kind, kind_of

Tensor = Any
Nest = Any

FORMATS: dict[str, int | None] = {"channels_last": -1, "channels_first": 1, "no_channels": None}
"""What a user says, and the axis of the channels that it stands for."""


@dataclass(frozen=True)
class Layout:
    """Which axes of an array `[B, ...]` are places.

    A *place* is a position of a picture, series or volume with all its channels, or a number of a
    table.

    Args:
        rank: The number of axes, that of the batch among them.
        channels: The axis of the channels: -1, 1, or 2 where time is before them; None where there
            are none, as in tables.
    """

    rank: int
    channels: int | None

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the places."""
        without = None if self.channels is None else self.channels % self.rank
        return tuple(axis for axis in range(1, self.rank) if axis != without)

    def sides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The lengths of the axes of the places, of the array's shape."""
        return tuple(shape[axis] for axis in self.axes)

    def kind(self, *, are_tokens: bool = False) -> Kind:
        """What the array is; `are_tokens` says whether numbers `[B, T]` are token ids."""
        if self.rank <= 2:
            return "tokens" if are_tokens else "table"
        kinds: dict[int, Kind] = {1: "series", 2: "picture"}
        return kinds.get(len(self.axes), "volume")

    def last(self, array: Any) -> Any:
        """An array or tensor with its channels last, `[B, *places, C]`; a table as it is."""
        if self.rank <= 2 or self.channels == -1:
            return array
        if self.channels is None:
            return array[..., None]
        move = np.moveaxis if isinstance(array, np.ndarray) else ops.moveaxis
        return move(array, self.channels, -1)

    def back(self, array: Any) -> Any:
        """What `last` returned, or alike, with its channels where they were."""
        if self.rank <= 2 or self.channels == -1:
            return array
        if self.channels is None:
            return array[..., 0]
        move = np.moveaxis if isinstance(array, np.ndarray) else ops.moveaxis
        return move(array, -1, self.channels)

    def over_channels(self, array: Tensor, rank: int, lead: int = 1) -> Tensor:
        """What is of places, `[..., *places]`, with an axis for the channels, where it has none.

        Args:
            array: A tensor with `lead` axes before the places.
            rank: The rank of what it is to meet: the array, or the embeddings of its token ids.
            lead: The number of axes before the places.
        """
        if len(array.shape) - lead == rank - 1:
            return array
        at = self.channels if rank == self.rank and self.channels is not None else -1
        return ops.expand_dims(array, at if at == -1 else at - 1 + lead)


def assumed(shape: Sequence[int]) -> Layout:
    """The layout where neither layers nor the user say anything: as Keras is configured."""
    rank = len(shape)
    if rank <= 2 or (rank == 3 and kind_of(tuple(shape)) == "picture"):
        return Layout(rank, None)
    return Layout(rank, FORMATS[keras.config.image_data_format()])


def per_input(data_format: Any, x: Nest, said: Sequence[set[int | None]]) -> list[Layout]:
    """The layout of each leaf of `x` `[B, ...]`.

    Args:
        data_format: What the user says: one of `FORMATS`, or a nest of these like `x`; None, also
            in the nest, where the layers decide.
        x: The input.
        said: For each leaf what the layers say (`channels_of`).

    Raises:
        ValueError: `data_format` is something else.
    """
    leaves = tree.flatten(x)
    checks.same_names("data formats", data_format, x)
    nested = isinstance(data_format, (list, tuple, dict))
    words = checks.flat(data_format) if nested else [data_format] * len(leaves)
    if len(words) != len(leaves):
        raise ValueError(
            f"Expected one `data_format` for each of the {len(leaves)} inputs. "
            f"Received: {len(words)}."
        )
    parts = zip(words, leaves, said, strict=True)
    return [_layout(word, tuple(leaf.shape), axes) for word, leaf, axes in parts]


def _layout(word: str | None, shape: tuple[int, ...], said: set[int | None]) -> Layout:
    if word is not None:
        checks.choice("data_format", word, list(FORMATS))
    if len(shape) <= 2:
        return Layout(len(shape), None)
    if word is not None:
        return Layout(len(shape), FORMATS[word])
    return Layout(len(shape), *said) if len(said) == 1 else assumed(shape)
