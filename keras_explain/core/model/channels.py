"""Where the channels of a tensor are, by the layers that it meets."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, tree

from keras_explain.core.data.layout import FORMATS
from keras_explain.core.graph.expressions import alike
from keras_explain.core.graph.steps import Call

Tensor = Any
Nest = Any

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
