"""Which values lie over which input: of the input's shape, maps over it, or at a layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_explain.core.kinds import Kind, kind_of
from keras_explain.core.probe import resize
from keras_explain.plots import render

if TYPE_CHECKING:
    from keras_explain.core.explanation import Explanation


def over_pictures(explanation: Explanation) -> Explanation:
    """An explanation at a layer with maps, laid over the one picture input: `values` `[B, H, W]`.

    They are summed over channels and interpolated bilinearly. Any other explanation is returned as
    it is.
    """
    sizes = [render.picture_size(x) for x in keras.tree.flatten(explanation.x)]
    found = [size for size in sizes if size is not None]
    values, lead = explanation.values, np.ndim(explanation.scores)
    if layer_of(explanation) is None or len(found) != 1 or np.ndim(values) != lead + 3:
        return explanation
    first = keras.config.image_data_format() == "channels_first"
    maps = np.sum(values, axis=lead if first else -1)
    flat = np.asarray(resize(maps.reshape(-1, *maps.shape[lead:]), found[0]))
    return dataclasses.replace(explanation, values=flat.reshape(*maps.shape[:lead], *found[0]))


def layer_of(explanation: Explanation) -> str | None:
    """The layer that the values are at; None where they are of the input, or maps over it.

    Of rows of numbers, which have no places, the values at a layer are never those of the input,
    though the layer may have as many units.
    """
    explainer: Any = explanation.explainer
    by_target = np.ndim(explanation.scores) == 2
    pairs = pairs_of(explanation.x, explanation.values)
    if any(x.ndim > 2 and matches(x, values, by_target) for x, values in pairs):
        return None
    return explainer.explained_layer or getattr(explainer, "layer", None)


def pairs_of(x: Any, values: Any) -> list[tuple[Any, Any]]:
    """Each input of a nest with its values; one array of values goes with every input."""
    inputs, parts = keras.tree.flatten(x), keras.tree.flatten(values)
    parts = parts * len(inputs) if len(parts) == 1 else parts
    return [(np.asarray(a), np.asarray(b)) for a, b in zip(inputs, parts, strict=False)]


def matches(x: Any, values: Any, by_target: bool, kind: Kind | None = None) -> bool:
    """Whether values are of the shape of an input, or maps over its places."""
    shape = values.shape[:1] + values.shape[2:] if by_target else values.shape
    return shape in (x.shape, (len(x), *places_of(x, kind or kind_of(x.shape))))


def places_of(x: Any, kind: Kind) -> tuple[int, ...]:
    """The axes of an input `[B, ...]` that are places: neither the batch nor channels."""
    if kind == "picture":
        return render.sides_of(x)
    if kind == "series":
        return x.shape[1:2]
    return x.shape[1:-1] if kind == "volume" else x.shape[1:]
