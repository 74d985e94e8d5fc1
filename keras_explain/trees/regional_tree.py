"""A tree for each region of the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from keras_explain.trees.rows import RowReader, Rows
from keras_explain.trees.surrogate_tree import Names, SurrogateTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Nest = Any


@dataclasses.dataclass(frozen=True, eq=False)
class RegionalTree:
    """Trees that mimic a model, one for each region of the input.

    Wu et al., "Regional Tree Regularization for Interpretability in Deep Neural Networks", AAAI
    2020, https://arxiv.org/abs/1908.04494.

    Attributes:
        trees: The tree of each region.
        reader: How rows are read from the model.
        region_of: The region of each row `[N, D]`, ints `[N]`.
    """

    trees: tuple[SurrogateTree, ...]
    reader: RowReader
    region_of: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]

    @property
    def average_path_length(self) -> float:
        """How many questions are asked about a reference row, on average over all regions."""
        lengths = [tree.average_path_length for tree in self.trees]
        return float(np.average(lengths, weights=[tree.counts[0].sum() for tree in self.trees]))

    @property
    def leaves(self) -> int:
        """How many leaves all trees have."""
        return sum(tree.leaves for tree in self.trees)

    @property
    def depth(self) -> int:
        """How many questions are asked at most."""
        return max(tree.depth for tree in self.trees)

    @property
    def agreement(self) -> float:
        """The share of held-out rows for which their region's tree says what the model says."""
        pruned = [tree for tree in self.trees if tree.pruned_on]
        if not pruned:
            return float("nan")
        shares = [tree.agreement for tree in pruned]
        return float(np.average(shares, weights=[tree.pruned_on for tree in pruned]))

    def predict(self, x: Nest) -> npt.NDArray[np.int32]:
        """The trees' classes: ints `[B]`, or `[B, T]` where the model predicts each time step."""
        rows = self.reader.read(x, masked=True)
        return self._labels(rows).reshape(rows.shape)

    def fidelity(self, x: Nest) -> float:
        """The share of rows for which the tree of their region says what the model says now."""
        rows = self.reader.read(x)
        return float(np.mean(self._labels(rows) == rows.classes))

    def named(self, feature_names: Names = None, class_names: Names = None) -> Self:
        """The same trees with other names; `None` leaves them as they are."""
        trees = tuple(tree.named(feature_names, class_names) for tree in self.trees)
        return dataclasses.replace(self, trees=trees)

    def to_text(self, feature_names: Names = None, class_names: Names = None) -> str:
        """All trees as indented lines."""
        texts = [tree.to_text(feature_names, class_names) for tree in self.trees]
        return "\n\n".join(f"Region {i}\n{text}" for i, text in enumerate(texts))

    def to_dict(self, feature_names: Names = None, class_names: Names = None) -> dict[str, Any]:
        """All trees as plain values, for JSON: `trees`, a list of `SurrogateTree.to_dict()`."""
        return {"trees": [tree.to_dict(feature_names, class_names) for tree in self.trees]}

    def to_graphviz(self, feature_names: Names = None, class_names: Names = None) -> list[str]:
        """Each tree in the DOT language of Graphviz."""
        return [tree.to_graphviz(feature_names, class_names) for tree in self.trees]

    def plot(self, feature_names: Names = None, class_names: Names = None) -> list[Figure]:
        """Draws each tree."""
        return [tree.plot(feature_names, class_names) for tree in self.trees]

    def _labels(self, rows: Rows) -> npt.NDArray[np.int32]:
        regions = self.region_of(rows.features)
        if regions.max() >= len(self.trees):
            raise ValueError(
                f"Expected rows of the {len(self.trees)} regions that the reference has. "
                f"Received: a row of region {regions.max()}, which has no tree."
            )
        labels = np.zeros(len(regions), np.int32)
        for region, tree in enumerate(self.trees):
            here = regions == region
            labels[here] = tree.label[tree.leaf_of(rows.features[here])]
        return labels

    def __repr__(self) -> str:
        return (
            f"RegionalTree(regions={len(self.trees)}, "
            f"average_path_length={self.average_path_length:.3g}, leaves={self.leaves}, "
            f"agreement={self.agreement:.3g})"
        )
