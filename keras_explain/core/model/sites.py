"""Where a model is explained: at its input, at Embeddings of token ids, or at a layer."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree

from keras_explain import backend
from keras_explain.core.graph import paths
from keras_explain.core.graph.operations import ALIASES, ROUTING
from keras_explain.core.graph.steps import Call
from keras_explain.core.model import channels
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.outputs import Outputs, Site
from keras_explain.core.model.running import Runner

Tensor = Any
Nest = Any


@dataclass(frozen=True)
class Sites:
    """Where a model is explained.

    Args:
        inputs: For each leaf of the input, the Embedding calls that it enters as token ids.
        layer: The calls of the layer that is explained in place of the input.
        ids: For each leaf of the input, how many token ids there are, where its numbers are such:
            those that are looked up as they are. None where they are not; infinite where a table
            makes ids of any whole numbers.
        channels: For each leaf, where the layers that it meets say that its channels are.
    """

    inputs: list[list[Site]]
    layer: list[Site] = field(default_factory=list)
    ids: list[float | None] = field(default_factory=list)
    channels: list[set[int | None]] = field(default_factory=list)


def specs(nest: Nest) -> Nest:
    """Signatures of arrays whose first axis is rows."""
    return tree.map_structure(lambda array: backend.spec(array), nest)


def find_sites(
    opened: OpenModel, inputs: Nest, layer: str | None, number: int | None = None
) -> Sites:
    """Where a model is explained: at a layer, or at the Embeddings that token ids enter.

    It is traced for this only where it has such layers, or such as have the channels elsewhere
    than is assumed.
    """
    leaves, nodes = tree.flatten(inputs), list(opened.nodes.values())
    sites = Sites([[] for _ in leaves], channels=[set() for _ in leaves])
    is_text = [leaf.dtype.kind == "U" for leaf in leaves]
    embeds = any(isinstance(node, keras.layers.Embedding) for node in nodes)
    told = channels.is_told(nodes, inputs)
    if layer is None and not embeds and not told and not any(is_text):
        return sites

    def trace(inputs: Nest) -> Nest:
        outputs = Runner(opened, inputs).run(inputs)
        _note_inputs(sites, tree.flatten(inputs), is_text, outputs.calls)
        if layer is not None:
            sites.layer.extend(site_of(call) for call in outputs.calls_of(layer, number))
        if told:
            for leaf, said in zip(outputs.inputs, sites.channels, strict=True):
                said |= channels.channels_of(leaf, outputs.calls)
        return inputs

    backend.compile(trace, specs(inputs))
    return sites


def _note_inputs(
    sites: Sites, leaves: list[Tensor], is_text: list[bool], calls: list[Call]
) -> None:
    """Notes which calls make numbers of token ids and texts."""
    embeds = [c for c in calls if isinstance(c.node, keras.layers.Embedding)]
    for leaf, found, text in zip(leaves, sites.inputs, is_text, strict=True):
        if text:
            found += _first_numbers(leaf, leaves, calls)
        else:
            found += [site_of(c) for c in embeds if _enters(leaf, c)]
        sites.ids.append(_known_ids(leaf, embeds))


def site_of(call: Call) -> Site:
    """A call as a site.

    Raises:
        ValueError: Its output holds no floating-point numbers.
    """
    for tensor in tree.flatten(call.output):
        if not keras.backend.is_float_dtype(tensor.dtype):
            raise ValueError(
                "Expected a layer whose output holds floating-point numbers to explain. "
                f"Received: layer={call.path!r}, whose output is of dtype {tensor.dtype.name}."
            )
    shape = tree.flatten(call.output)[0].shape
    return Site(call.path, call.number, shape[-1])


def layer_values(outputs: Outputs, calls: list[Call]) -> Nest:
    """The outputs of calls of a layer: a list, where there are several."""
    flat = [outputs.cut(tensor) for call in calls for tensor in tree.flatten(call.output)]
    return flat[0] if len(flat) == 1 else flat


def _first_numbers(leaf: Tensor, leaves: list[Tensor], calls: list[Call]) -> list[Site]:
    """The calls that first make numbers of a leaf of texts, and of no other one.

    One-hot categories may be integers.
    """
    found: list[Call] = []
    for call in calls:
        outputs = tree.flatten(call.output)
        coded = getattr(call.node, "output_mode", "int") != "int"
        are_numbers = coded or keras.backend.is_float_dtype(outputs[0].dtype)
        if len(outputs) == 1 and are_numbers and _enters(leaf, call):
            behind = [c.output for c in found]
            if not any(paths.depends_on(outputs[0], output) for output in behind):
                found.append(call)
    alone = [c for c in found if not any(_enters(x, c) for x in leaves if x is not leaf)]
    return [Site(c.path, c.number, c.output.shape[-1]) for c in alone] if alone == found else []


def _enters(leaf: Tensor, call: Call, through: Collection[str] | None = None) -> bool:
    return any(paths.depends_on(tensor, leaf, through) for tensor in call.inputs)


def _known_ids(leaf: Tensor, embeds: list[Call]) -> float | None:
    """How many ids a leaf may hold, as in `Sites.ids`."""
    by_table = _KEPT | {"LookupTableFindV2"}
    looked_up = [call for call in embeds if _enters(leaf, call, by_table)]
    sizes = [call.node.input_dim for call in looked_up if _enters(leaf, call, _KEPT)]
    return min(sizes, default=math.inf) if looked_up else None


_KEPT = ALIASES | ROUTING | {"Cast"}
"""Operations behind which the entries of a leaf are as they were."""
