"""Distillation towards a small tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from keras_explain.trees import arrays
from keras_explain.trees.penalties.base import Step
from keras_explain.trees.penalties.by_tree import ByTree

Tensor = Any


class TreeDistillation(ByTree):
    """The cross-entropy between the model and the small tree that mimics it now.

    At each refit a pruned tree of a few leaves is fitted to the model's own predictions; until the
    next one, the model is drawn towards its answers,

        Omega = - mean_n log p(tree(x_n) | x_n),

    over the rows of the batch, whose scores the training step has anyway. This minimises the task's
    loss plus a distance to the nearest small tree by turns, in the model and in the tree. Its cost
    does not depend on the size of the model.

    Args:
        max_leaf_nodes: How many leaves the tree has at most.
    """

    max_leaf_nodes: int = 6

    def penalty(self, state: Mapping[str, Tensor], step: Step) -> Tensor:
        leaves = arrays.leaf_of(state, step.features)
        answer = arrays.product(leaves, state["label"])  # [n, R, C]
        log_p = ops.log_softmax(step.logits, axis=-1)
        return step.mean(-ops.sum(answer * log_p[:, None], axis=-1))
