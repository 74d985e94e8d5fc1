"""Where the places of an input are, and where its channels: by the layers that it meets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from keras_explain.core import checks
from keras_explain.core.data.kinds import Kind, kind_of
from keras_explain.core.graph.expressions import alike
from keras_explain.core.graph.steps import Call

Tensor = Any
Nest = Any

FORMATS: dict[str, int | None] = {"channels_last": -1, "channels_first": 1, "no_channels": None}
"""What a user says, and the axis of the channels that it stands for."""

_LAST = (
    layers.RNN,
    layers.Bidirectional,
    layers.MultiHeadAttention,
    layers.GroupQueryAttention,
    layers.Attention,
    layers.AdditiveAttention,
)
"""Layers of series `[B, T, C]` that have no `data_format`."""

_OF_VOLUMES = (layers.Conv3D, layers.MaxPooling3D, layers.AveragePooling3D)
"""They may take `[B, D, H, W]` with an axis added for the channels."""


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


def is_told(nodes: Sequence[Any], x: Nest) -> bool:
    """Whether layers may say another layout of `x` `[B, ...]` than is assumed without them."""
    ranks = {len(leaf.shape) for leaf in tree.flatten(x)}
    said = {_said(node) for node in nodes} - {None}
    if 4 in ranks and any(isinstance(node, _OF_VOLUMES) for node in nodes):
        return True
    differs = bool(said - {FORMATS[keras.config.image_data_format()]})
    return bool(3 in ranks and said) or (max(ranks) > 3 and differs)


def channels_of(leaf: Tensor, calls: Sequence[Call]) -> set[int | None]:
    """Where the channels of an input are, by the first layers with a say that it meets.

    On the way there, operations keep the axes, or add one of length 1 for the channels.

    Args:
        leaf: A tensor `[n, ...]` that a traced model runs on.
        calls: The model's calls.

    Returns:
        Axes of the channels; None where a layer takes the input with an axis added.
    """
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    said: set[int | None] = set()
    seen: set[int] = set()
    ahead: list[tuple[Tensor, int | None]] = [(leaf, None)]  # with the axis that was added
    while ahead:
        tensor, added = ahead.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        here = readers.get(id(tensor), [])
        axes = {axis for axis in (_said(call.node) for call in here) if axis is not None}
        if axes:
            said |= axes if added is None else {None} if axes == {added} else set()
            continue
        dense = [call.output for call in here if isinstance(call.node, layers.Dense)]
        ahead += [(output, added) for output in dense]
        ahead += [(made, axis or added) for made, axis in alike(tensor, grows=added is None)]
    return said


def _has_format(node: Any) -> bool:
    """Whether a layer says where the channels are; `Flatten` need not know."""
    return hasattr(node, "data_format") and not isinstance(node, layers.Flatten)


def _said(node: Any) -> int | None:
    """The axis of the channels of what a layer takes; None where it does not say."""
    if isinstance(node, layers.TimeDistributed):
        inner = [node.layer, *getattr(node.layer, "layers", ())]
        formats = {layer.data_format for layer in inner if _has_format(layer)}
        return {("channels_first",): 2, ("channels_last",): -1}.get(tuple(formats))
    if _has_format(node):
        timed = isinstance(node, layers.RNN)  # ConvLSTM
        return -1 if node.data_format == "channels_last" else 2 if timed else 1
    return -1 if isinstance(node, _LAST) else None


def said_after(node: Any) -> int | None:
    """The axis of the channels of what a layer returns; None where it does not say."""
    said = -1 if isinstance(node, layers.Dense) else _said(node)
    timeless = isinstance(node, layers.RNN) and not node.return_sequences
    return 1 if said == 2 and timeless else said
