"""Which values lie over which input: of the input's shape, maps over it, or at a layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_explain.core.data.layout import Layout, assumed
from keras_explain.core.model.overlay import resize

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation


def layouts_of(explanation: Explanation) -> list[Layout]:
    """Where the places and the channels of each input are.

    Raises:
        ValueError: `channels` is not one for each input, and which is which can't be known.
    """
    shapes, axes = [np.shape(x) for x in keras.tree.flatten(explanation.x)], explanation.channels
    if axes is None:
        return [assumed(shape) for shape in shapes]
    if len(set(axes)) == 1:
        axes = axes[:1] * len(shapes)  # also where the user took some of the inputs
    if len(axes) != len(shapes):
        raise ValueError(
            f"Expected `channels` for each of the {len(shapes)} inputs. Received: {axes}. Where "
            "inputs are taken out, give theirs: `dataclasses.replace(explanation, x=..., "
            "values=..., channels=explanation.channels[:1])`."
        )
    pairs = zip(shapes, axes, strict=True)
    return [Layout(len(shape), axis if len(shape) > 2 else None) for shape, axis in pairs]


def over_pictures(explanation: Explanation) -> Explanation:
    """An explanation at a layer with maps, laid over the picture below: `values` `[B, H, W]`.

    They are summed over channels and interpolated bilinearly. Any other explanation is returned as
    it is.
    """
    values, lead = explanation.values, np.ndim(explanation.scores)
    if layer_of(explanation) is None or np.ndim(values) != lead + 3:
        return explanation
    over = _below(explanation)
    if over is None:
        return explanation
    layout, x = layouts_of(explanation)[over], keras.tree.flatten(explanation.x)[over]
    size = layout.sides(np.shape(x))
    axis = explanation.layer_channels
    if axis is None:
        axis = assumed(np.shape(values)[lead - 1 :]).channels or -1
    maps = np.sum(values, axis=axis if axis < 0 else lead - 1 + axis)
    flat = np.asarray(resize(maps.reshape(-1, *maps.shape[lead:]), size))
    return dataclasses.replace(
        explanation, values=flat.reshape(*maps.shape[:lead], *size), over=over, layer_channels=None
    )


def _below(explanation: Explanation) -> int | None:
    """The picture that values at a layer lie over: the one that it depends on, or the only one."""
    kinds = [layout.kind() for layout in layouts_of(explanation)]
    if explanation.over is not None:
        return explanation.over if kinds[explanation.over] == "picture" else None
    return kinds.index("picture") if kinds.count("picture") == 1 else None


def layer_of(explanation: Explanation) -> str | None:
    """The layer that the values are at; None where they are of the input, or maps over it.

    Of rows of numbers, which have no places, the values at a layer are never those of the input,
    though the layer may have as many units.
    """
    explainer: Any = explanation.explainer
    by_target, pairs = np.ndim(explanation.scores) == 2, pairs_of(explanation.x, explanation.values)
    parts = zip(pairs, layouts_of(explanation), strict=False)
    if explanation.layer_channels is None and any(
        x.ndim > 2 and matches(x, values, by_target, layout) for (x, values), layout in parts
    ):
        return None
    return explainer.plan.layer or getattr(explainer, "layer", None)


def pairs_of(x: Any, values: Any) -> list[tuple[Any, Any]]:
    """Each input of a nest with its values; one array of values goes with every input."""
    inputs, parts = keras.tree.flatten(x), keras.tree.flatten(values)
    parts = parts * len(inputs) if len(parts) == 1 else parts
    return [(np.asarray(a), np.asarray(b)) for a, b in zip(inputs, parts, strict=False)]


def matches(x: Any, values: Any, by_target: bool, layout: Layout) -> bool:
    """Whether values are of the shape of an input, or maps over its places."""
    shape = values.shape[:1] + values.shape[2:] if by_target else values.shape
    return shape in (x.shape, (len(x), *layout.sides(x.shape)))
