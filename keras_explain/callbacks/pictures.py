"""Which of the inputs are pictures, and which map lies over which picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core.data.layout import Layout
from keras_explain.core.record.explanation import Explanation
from keras_explain.plots import notes, ranges, render
from keras_explain.plots.places import layer_of, layouts_of, over_pictures

Shown = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.bool_]]


class Pictures:
    """The pictures among the leaves of an input, turned into bytes once.

    A leaf of rank 4 is a picture, laid out as the explanation of it says. Where there is none,
    `to_image` makes pictures of the first leaf, whatever its rank.

    Args:
        x: The input: a nest of arrays `[B, ...]`.
        to_image: A function from a leaf to pictures; `None` guesses the range.
    """

    def __init__(self, x: Any, to_image: Callable[[Any], Any] | None) -> None:
        leaves = keras.tree.flatten(x)
        shown = [number for number, leaf in enumerate(leaves) if leaf.ndim == 4]
        if not shown and to_image is not None:
            shown = [0]
        self._inputs, self._shown, self._to_image = leaves, shown, to_image
        self._bytes: dict[tuple[int, Layout], npt.NDArray[np.uint8]] = {}

    def under(self, explanation: Explanation) -> Shown | None:
        """The first picture that the explanation has a map of.

        Args:
            explanation: An explanation of the same input.

        Returns:
            Pictures `[B, H, W, 3]`, maps `[B, H, W]`, and whether each can be told from zero,
            `[B]`; `None` if no input is a picture, if several classes per sample are explained, or
            if a layer is that has no maps.

        Raises:
            ValueError: If there are pictures and maps, but of different sizes.
        """
        if not self._shown or np.ndim(explanation.scores) > 1:
            return None
        explanation = over_pictures(explanation)
        for pictures, maps, part in self._candidates(explanation):
            if pictures.shape[:3] == maps.shape:
                return pictures, maps, notes.reliable(explanation, part)
        if layer_of(explanation) is not None or explanation.over not in (None, *self._shown):
            return None
        shapes = [leaf.shape for leaf in keras.tree.flatten(explanation.values)]
        raise ValueError(
            f"Expected values of the size of the pictures, which have the shapes "
            f"{[pictures.shape for pictures in self._bytes.values()]}. "
            f"Received: values of shapes {shapes}. "
            "If `to_image` is given, it must keep the size of its input."
        )

    def _candidates(
        self, explanation: Explanation
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], int]]:
        """Values of each input, or one map for all of them, and their position in the nest."""
        values = [np.asarray(leaf) for leaf in keras.tree.flatten(explanation.values)]
        layouts = layouts_of(explanation)
        for number in self._shown:
            layout = layouts[number]
            pictures = self._pictures(number, layout)
            part = number if len(values) == len(self._inputs) else 0
            leaf = values[part]
            if explanation.over in (None, number) and leaf.ndim in (3, 4):
                whole = leaf.ndim == layout.rank == 4 and layout.channels is not None
                yield pictures, render.to_maps(layout.last(leaf) if whole else leaf), part

    def _pictures(self, number: int, layout: Layout) -> npt.NDArray[np.uint8]:
        known = self._bytes.get((number, layout))
        if known is None:
            known = ranges.to_uint8(self._inputs[number], self._to_image, layout)
            self._bytes[number, layout] = known
        return known
