"""The nodes of a decision tree, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt

LEAF = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of a decision tree; node 0 is the root, and one stands before those below it.

    Attributes:
        feature: The column that a node asks about, ints `[nodes]`; -1 at a leaf.
        threshold: Rows whose value is at most this go left, float32 `[nodes]`.
        left: The node for those rows, ints `[nodes]`; -1 at a leaf.
        right: The node for the others.
        label: The class that a node would answer, ints `[nodes]`.
        counts: How many reference rows of each predicted class come to a node, ints
            `[nodes, classes]`.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]

    @property
    def is_leaf(self) -> npt.NDArray[np.bool_]:
        """Which nodes are leaves, `[nodes]`."""
        return self.feature == LEAF

    @property
    def depths(self) -> npt.NDArray[np.int32]:
        """How many questions lead to each node, ints `[nodes]`."""
        depths = np.zeros(len(self.feature), np.int32)
        for node in np.flatnonzero(~self.is_leaf):
            depths[[self.left[node], self.right[node]]] = depths[node] + 1
        return depths

    def leaf_of(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The leaf that each row `[N, D]` comes to, ints `[N]`."""
        at = np.zeros(len(features), np.int32)
        for _ in range(self.depths.max()):
            asked = np.maximum(self.feature[at], 0)
            goes_left = features[np.arange(len(at)), asked] <= self.threshold[at]
            below = np.where(goes_left, self.left[at], self.right[at])
            at = np.where(self.is_leaf[at], at, below)
        return at

    def path_to(self, node: int) -> Iterator[int]:
        """The nodes from the root to `node`."""
        above = np.flatnonzero((self.left == node) | (self.right == node)) if node else ()
        for parent in above:
            yield from self.path_to(int(parent))
        yield node

    def count(
        self, features: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """How many rows of each class come to each node, ints as `counts`."""
        counts = np.zeros_like(self.counts)
        np.add.at(counts, (self.leaf_of(features), classes), 1)
        for node in np.flatnonzero(~self.is_leaf)[::-1]:
            counts[node] = counts[self.left[node]] + counts[self.right[node]]
        return counts

    def with_leaves(self, leaves: npt.NDArray[np.bool_]) -> Self:
        """The tree in which some nodes `[nodes]` are leaves, without those below them."""
        feature = np.where(leaves, LEAF, self.feature)
        kept = [0]
        for node in kept:  # grows while it is walked through
            kept += [] if feature[node] == LEAF else [self.left[node], self.right[node]]
        order = np.sort(kept)
        new = np.full(len(feature) + 1, LEAF, np.int32)  # the last one for LEAF itself
        new[order] = np.arange(len(order))
        return dataclasses.replace(
            self,
            feature=feature[order],
            threshold=self.threshold[order],
            left=np.where(leaves, LEAF, new[self.left])[order],
            right=np.where(leaves, LEAF, new[self.right])[order],
            label=self.label[order],
            counts=self.counts[order],
        )
