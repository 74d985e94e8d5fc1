"""An input cut into features: the number of each place's feature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import tree

from keras_explain.core.data.layout import Layout
from keras_explain.core.hiding.features import Features

Nest = Any


@dataclass(frozen=True, eq=False)
class Cut:
    """The features of an input.

    Attributes:
        labels: By the position of each leaf that is cut, `"0"`, ..., the feature of each of its
            places, int32 `[B, *places]`, as the model has them; -1 for none. The numbers of a
            sample go on from leaf to leaf.
        counts: How many features each sample has, ints `[B]`.
        joins: Whether a feature can be of several places.
    """

    labels: dict[str, np.ndarray]
    counts: np.ndarray
    joins: bool

    @classmethod
    def of(
        cls,
        features: Sequence[Features | None],
        leaves: Sequence[np.ndarray],
        layouts: Sequence[Layout],
    ) -> "Cut":
        """Cuts the leaves of an input.

        Args:
            features: Those of each leaf; None for what is not cut.
            leaves: Arrays `[B, ...]`, their channels last.
            layouts: Where the model has them.
        """
        counts, labels = np.zeros(len(leaves[0]), np.int32), {}
        for i, (part, leaf, layout) in enumerate(zip(features, leaves, layouts, strict=True)):
            if part is not None:
                numbers = _numbered(part, leaf, layout)
                first = counts.reshape(-1, *(1 for _ in numbers.shape[1:]))
                labels[str(i)] = np.where(numbers < 0, -1, numbers + first).astype(np.int32)
                counts = counts + numbers.reshape(len(leaf), -1).max(axis=1) + 1
        return cls(labels, counts, any(part is not None and part.joins for part in features))


def placed(values: np.ndarray, labels: dict[str, np.ndarray], x: Nest) -> Nest:
    """Values of features `[n, K, M]` at each place, 0 at none's.

    Args:
        values: The values.
        labels: As in `Cut`, of every leaf.
        x: An input of this nest.

    Returns:
        A nest like `x` of float32 `[n, K, *places]`.
    """
    return tree.pack_sequence_as(x, [placed_in(values, labels[str(i)]) for i in range(len(labels))])


def placed_in(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """As `placed`, of one leaf, whose places are of the features with these numbers."""
    padded = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    flat = numbers.reshape(len(numbers), 1, -1)
    found = np.take_along_axis(padded, flat, axis=-1)  # -1 is the zero at the end
    return found.reshape(*values.shape[:2], *numbers.shape[1:]).astype(np.float32)


def _numbered(part: Features, x: np.ndarray, layout: Layout) -> np.ndarray:
    """The features of an input with its channels last, at its places as the model has them."""
    part = part.laid(layout)
    part.check(x)
    labels = part.numbered(x)
    return layout.back(labels) if labels.ndim == x.ndim else labels
