"""Reduced-error pruning (Quinlan, "Simplifying decision trees", 1987)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keras_explain.trees.nodes import Nodes


def pruned(nodes: Nodes, held_out: npt.NDArray[np.int64]) -> tuple[Nodes, int]:
    """The tree whose splits are leaves where that makes no more errors.

    Args:
        nodes: A tree.
        held_out: How many held-out rows of each class come to each node, ints `[nodes, classes]`.

    Returns:
        The pruned tree, and how many of the held-out rows it gets wrong.
    """
    right = np.take_along_axis(held_out, nodes.label[:, None], axis=1)[:, 0]
    as_leaf = held_out.sum(axis=1) - right
    errors, leaves = as_leaf.copy(), nodes.is_leaf
    for node in np.flatnonzero(~leaves)[::-1]:
        below = errors[nodes.left[node]] + errors[nodes.right[node]]
        leaves[node] = as_leaf[node] <= below
        if not leaves[node]:
            errors[node] = below
    return nodes.with_leaves(leaves), int(errors[0])
