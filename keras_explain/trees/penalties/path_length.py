"""A differentiable path length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from keras_explain.core import checks
from keras_explain.trees import arrays
from keras_explain.trees.penalties.base import Step
from keras_explain.trees.penalties.by_tree import ByTree

Tensor = Any


class PathLength(ByTree):
    """The average path length of the current tree, each question counted as far as it is worth it.

    With the tree held fixed, and p_n the model's probabilities for row n of the batch, a node i
    that n_i of N rows come to has the impurity G_i = (n_i / N) Gini(mean of p_n in i), and a split
    gains what its leaves are purer by:

        gain_i = G_i - sum of G over the leaves below i
        Omega = sum over splits i of (n_i / N) (1 - exp(-gain_i / tau))

    Where every split is worth it, Omega is the average path length; its gradient closes the
    branches that gain least.

    Args:
        tau: The gain at which a question counts 63 %.
        max_leaf_nodes: How many leaves the tree has at most.
    """

    tau: float = 0.01
    max_leaf_nodes: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("tau", self.tau)
        if not self.tau:
            raise ValueError("Expected `tau` to be above 0. Received: tau=0.")

    def penalty(self, state: Mapping[str, Tensor], step: Step) -> Tensor:
        rows = step.weight / ops.maximum(ops.sum(step.weight, axis=0), 1)  # [n, R]
        share = rows[..., None] * arrays.leaf_of(state, step.features)  # [n, R, L]
        p = ops.softmax(step.logits, axis=-1)
        in_leaf = ops.tensordot(share, p, axes=[[0], [0]])  # [R, L, C]
        below = ops.absolute(state["path"])  # [R, L - 1, L]
        in_node = ops.matmul(below, in_leaf)  # [R, L - 1, C]
        of_leaves = ops.matmul(below, _purity(in_leaf))
        gain = ops.maximum(of_leaves - _purity(in_node), 0)  # in purity, since shares add up
        share_of_node = ops.stop_gradient(ops.sum(in_node, axis=-1))
        return -ops.sum(share_of_node * ops.expm1(gain[..., 0] / -self.tau), axis=-1)


def _purity(p: Tensor) -> Tensor:
    """`share * (1 - Gini(p / share))` `[..., 1]`, for sums of probabilities `[..., C]`."""
    share = ops.sum(p, axis=-1, keepdims=True)
    return ops.sum(ops.square(p), axis=-1, keepdims=True) / ops.maximum(share, 1e-12)
