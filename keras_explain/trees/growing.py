"""How trees are grown, by CART."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.trees.nodes import LEAF, Nodes
from keras_explain.trees.pruning import pruned
from keras_explain.trees.rows import Rows

HELD_BACK = 0.3


class Pruned(NamedTuple):
    """A tree that was pruned.

    Attributes:
        nodes: Its nodes.
        agreement: The share of the held-out rows for which it says what the model says, or NaN.
        pruned_on: How many rows were held out.
    """

    nodes: Nodes
    agreement: float
    pruned_on: int


@dataclasses.dataclass(frozen=True, eq=False)
class Grown:
    """A tree as it was grown, and the rows to prune it on.

    Splits are made in the order of what they gain (the impurity of Gini that all rows lose), and
    each adds two nodes to those before. So the first `2 L - 1` nodes are the tree that would have
    been grown to `L` leaves, also where two splits gain the same.

    Attributes:
        nodes: All nodes, in the order in which they were added.
        held_out: How many held-out rows of each class come to each node, ints `[nodes, classes]`.
    """

    nodes: Nodes
    held_out: npt.NDArray[np.int64]

    def pruned(self, max_leaf_nodes: int | None = None) -> Pruned:
        """The tree that was grown to at most so many leaves, and pruned."""
        nodes, held_out = self.nodes, self.held_out
        if max_leaf_nodes is not None:
            is_early = nodes.left < 2 * max_leaf_nodes - 1
            nodes, held_out = nodes.with_leaves(~is_early), held_out[: 2 * max_leaf_nodes - 1]
        rows = int(held_out[0].sum())
        if not rows:
            return Pruned(nodes, float("nan"), 0)
        nodes, errors = pruned(nodes, held_out)
        return Pruned(nodes, 1 - errors / rows, rows)


@dataclasses.dataclass(frozen=True)
class Growth:
    """How trees are grown: the arguments of `SurrogateTree.fit`."""

    min_samples_leaf: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        checks.count("min_samples_leaf", self.min_samples_leaf)

    def grown(self, rows: Rows, prune_on: Rows | None = None) -> Grown:
        """A tree without a limit.

        Args:
            rows: The rows that the tree mimics the model on.
            prune_on: Rows to prune it on; `None` keeps some of the others back.

        Raises:
            ValueError: There are fewer rows than a leaf needs.
        """
        grown_on, kept = rows.split(HELD_BACK, self.seed) if prune_on is None else (rows, prune_on)
        if len(grown_on.features) < self.min_samples_leaf:
            raise ValueError(
                f"Expected at least min_samples_leaf={self.min_samples_leaf} reference rows to "
                f"grow the tree on. Received: {len(rows.features)} rows, {len(grown_on.features)} "
                "of them to grow on. Give more rows, or a smaller min_samples_leaf."
            )
        nodes = self._cart(grown_on)
        counts = nodes.count(rows.features, rows.classes)
        held_out = nodes.count(kept.features, kept.classes)
        return Grown(dataclasses.replace(nodes, counts=counts), held_out)

    def _cart(self, rows: Rows) -> Nodes:
        from sklearn.tree import DecisionTreeClassifier

        leaves = max(2, len(rows.features) // self.min_samples_leaf)  # there can't be more
        cart = DecisionTreeClassifier(
            min_samples_leaf=self.min_samples_leaf, max_leaf_nodes=leaves, random_state=self.seed
        ).fit(rows.features, rows.classes)
        nodes = cart.tree_
        return Nodes(
            feature=np.where(nodes.children_left == LEAF, LEAF, nodes.feature).astype(np.int32),
            threshold=_at_most(nodes.threshold),
            left=nodes.children_left.astype(np.int32),
            right=nodes.children_right.astype(np.int32),
            label=cart.classes_[nodes.value[:, 0].argmax(axis=1)].astype(np.int32),
            counts=np.zeros((nodes.node_count, rows.units), np.int64),
        )


def _at_most(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The greatest float32 numbers up to `threshold`: float32 values compare the same to both."""
    rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
