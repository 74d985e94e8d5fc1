"""Reduced-error pruning (Quinlan, "Simplifying decision trees", 1987)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from keras_explain.trees.surrogate_tree import SurrogateTree


def prune(tree: SurrogateTree, counts: npt.NDArray[np.int64]) -> int:
    """Turns splits into leaves, in place, where that makes no more errors.

    Args:
        tree: A tree whose nodes stand before those below them.
        counts: How many held-out rows of each class come to each node, ints `[nodes, classes]`.

    Returns:
        How many of the held-out rows the pruned tree gets wrong.
    """
    as_leaf = counts.sum(axis=1) - np.take_along_axis(counts, tree.label[:, None], axis=1)[:, 0]
    errors = as_leaf.copy()
    for node in np.flatnonzero(tree.left >= 0)[::-1]:
        below = errors[tree.left[node]] + errors[tree.right[node]]
        if as_leaf[node] <= below:
            tree.feature[node] = tree.left[node] = tree.right[node] = -1
        else:
            errors[node] = below
    return int(errors[0])
