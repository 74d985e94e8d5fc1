"""What penalties by the tree itself share."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.trees import arrays
from keras_explain.trees.penalties.base import Network, Penalty, Sizes


class ByTree(Penalty, abc.ABC):
    """A penalty that knows the tree of each region, pruned and of a few leaves.

    Args:
        max_leaf_nodes: How many leaves a tree has at most.
    """

    max_leaf_nodes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("max_leaf_nodes", self.max_leaf_nodes, least=2)

    def state(self, sizes: Sizes) -> dict[str, npt.NDArray[Any]]:
        return arrays.empty(sizes.regions, self.max_leaf_nodes, sizes.classes)

    def refit(
        self, network: Network, state: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        trees = network.trees(self.max_leaf_nodes)
        return arrays.of(trees, self.max_leaf_nodes, network.sizes.classes)
