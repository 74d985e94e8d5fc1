"""Trees as arrays of fixed shapes, so that a compiled step can take any tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain.trees.surrogate_tree import SurrogateTree

Tensor = Any
Arrays = dict[str, npt.NDArray[Any]]

_NOWHERE = 1e6  # a depth that no path has


def empty(regions: int, leaves: int, classes: int) -> Arrays:
    """Trees of one leaf each.

    Returns:
        `feature` and `threshold` `[R, L - 1]`: what each inner node asks. `path` `[R, L - 1, L]`: 1
        where the way to a leaf goes left at a node, -1 right, 0 elsewhere. `depth` `[R, L]`: how
        many questions lead to a leaf. `label` `[R, L, C]`: its class, one-hot. Unused places are
        never reached.
    """
    depth = np.full((regions, leaves), _NOWHERE, np.float32)
    depth[:, 0] = 0
    return {
        "feature": np.zeros((regions, leaves - 1), np.int32),
        "threshold": np.zeros((regions, leaves - 1), np.float32),
        "path": np.zeros((regions, leaves - 1, leaves), np.float32),
        "depth": depth,
        "label": np.zeros((regions, leaves, classes), np.float32),
    }


def of(trees: Sequence[SurrogateTree], leaves: int, classes: int) -> Arrays:
    """Trees of at most `leaves` leaves."""
    arrays = empty(len(trees), leaves, classes)
    for region, tree in enumerate(trees):
        inner, outer = np.flatnonzero(~tree.is_leaf), np.flatnonzero(tree.is_leaf)
        arrays["feature"][region, : len(inner)] = tree.feature[inner]
        arrays["threshold"][region, : len(inner)] = tree.threshold[inner]
        arrays["depth"][region, : len(outer)] = tree.depths[outer]
        arrays["label"][region, range(len(outer)), tree.label[outer]] = 1
        place = {int(node): i for i, node in enumerate(inner)}
        for i, leaf in enumerate(outer):
            *above, _ = way = list(tree.path_to(int(leaf)))
            for node, below in zip(above, way[1:], strict=True):
                arrays["path"][region, place[node], i] = 1 if tree.left[node] == below else -1
    return arrays


def leaf_of(trees: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Which leaf rows `[n, D]` come to, one-hot float32 `[n, R, L]`, in the graph."""
    asked = ops.take(features, trees["feature"], axis=1)  # [n, R, L - 1]
    turn = ops.where(asked <= trees["threshold"], 1.0, -1.0)
    return ops.cast(ops.equal(product(turn, trees["path"]), trees["depth"]), "float32")


def product(rows: Tensor, of_region: Tensor) -> Tensor:
    """`[n, R, I]` times the matrix of each region `[R, I, J]`: `[n, R, J]`."""
    if rows.shape[1] == 1:  # as one product, which costs less than the many of an einsum
        return ops.matmul(rows[:, 0], of_region[0])[:, None]
    return ops.einsum("nri,rij->nrj", rows, of_region)
