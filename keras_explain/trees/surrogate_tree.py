"""A decision tree that mimics a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.trees.growing import Growth, Pruned
from keras_explain.trees.nodes import Nodes
from keras_explain.trees.rows import RowReader, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Nest = Any
Names = Sequence[str] | None


@dataclasses.dataclass(frozen=True, eq=False)
class SurrogateTree(Nodes):
    """A decision tree fitted to what a model predicts, and pruned.

    A tree is grown by CART (Breiman et al., 1984; scikit-learn's, best split first) on the classes
    that the model predicts for reference rows, then pruned by its errors on rows that it was not
    grown on (Quinlan, 1987): from the leaves up, a split becomes a leaf where that makes no more
    errors. The *average path length* is how many questions the tree asks about a reference row,

        APL = (1 / N) sum_n depth(leaf of row n),

    the measure that tree regularization keeps small (Wu et al., "Beyond Sparsity: Tree
    Regularization of Deep Models for Interpretability", AAAI 2018,
    https://arxiv.org/abs/1711.06178). A constant model has 0, one question 1, the four corners of
    XOR 2.

    A model predicts the class with the highest score; where it has one unit, class 1 above a
    probability of 0.5. Made by `SurrogateTree.fit` from a model, or by
    `SurrogateTree.from_predictions` from predictions of anything.

    Attributes:
        feature: The column that a node asks about, ints `[nodes]`; -1 at a leaf. Node 0 is the
            root, and a node stands before those below it.
        threshold: Rows whose value is at most this go left, float32 `[nodes]`.
        left: The node for those rows, ints `[nodes]`; -1 at a leaf.
        right: The node for the others.
        label: The class that a node would answer, ints `[nodes]`.
        counts: How many reference rows of each predicted class come to a node, ints
            `[nodes, classes]`.
        agreement: The share of the rows it was pruned on for which the tree says what the model
            says; NaN for a tree that was not pruned.
        pruned_on: How many rows it was pruned on.
        feature_names: A name per column.
        class_names: A name per class.
        reader: How rows are read from the model, if it was fitted to one.

    Example:

    ```python
    tree = kx.trees.SurrogateTree.fit(model, x_train, feature_names=names)
    print(tree.to_text(), tree.average_path_length, tree.fidelity(x_test))
    ```
    """

    agreement: float = float("nan")
    pruned_on: int = 0
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    reader: RowReader | None = None

    @classmethod
    def fit(
        cls,
        model: keras.Model,
        x: Nest,
        *,
        prune_on: Nest | None = None,
        min_samples_leaf: int = 5,
        max_leaf_nodes: int | None = None,
        layer: str | None = None,
        feature_names: Names = None,
        class_names: Names = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Fits a tree to what a model predicts.

        Args:
            model: A built classifier with one output: a logit or a sigmoid `[B, 1]`, logits or a
                softmax `[B, C]`, or one of these at each time step, `[B, T, C]`.
            x: The reference: what the model takes, `[B, ...]`. The columns of a table `[B, D]` are
                what the tree asks about. Where the model predicts at each time step, every step is
                a row of its own, `[T, D]`; else a series is a row `T * D` long.
            prune_on: Other inputs, to prune the tree on. `None` keeps 30 % of `x` back for it,
                drawn by `seed`.
            min_samples_leaf: No leaf gets fewer of the rows that the tree is grown on.
            max_leaf_nodes: At most so many leaves are grown, those first that gain most.
            layer: A layer, by name or path, whose units the tree asks about in place of the
                input; of a map or a sequence `[B, ..., C]`, their means over positions.
            feature_names: A name per column; by default those of a data frame, else `x0`, `x1`, ...
            class_names: A name per class; by default their numbers.
            batch_size: How many rows go through the model at once.
            seed: Draws the rows kept back, and decides between splits that are equally good.

        Raises:
            ValueError: The model is not built or is no classifier with one output, `x` is not what
                it takes, or fewer rows than `min_samples_leaf` are left to grow the tree on.
        """
        reader = RowReader(model, layer)
        rows = reader.read(x, batch_size)
        other = None if prune_on is None else reader.read(prune_on, batch_size)
        tree = cls.of_rows(rows, other, min_samples_leaf, max_leaf_nodes, seed)
        tree = dataclasses.replace(tree, reader=reader)
        columns = reader.column_names(x, rows.features.shape[1])
        return tree.named(columns, None).named(feature_names, class_names)

    @classmethod
    def from_predictions(
        cls,
        x: Any,
        predicted: Any,
        *,
        prune_on: tuple[Any, Any] | None = None,
        min_samples_leaf: int = 5,
        max_leaf_nodes: int | None = None,
        feature_names: Names = None,
        class_names: Names = None,
        seed: int = 0,
    ) -> Self:
        """Fits a tree to predictions, whatever they come from.

        Args:
            x: The reference rows `[N, D]`.
            predicted: Their predicted classes, ints `[N]`.
            prune_on: Other rows and their predicted classes, to prune the tree on; `None` keeps
                30 % of `x` back.
            min_samples_leaf: As in `fit`.
            max_leaf_nodes: As in `fit`.
            feature_names: As in `fit`.
            class_names: As in `fit`.
            seed: As in `fit`.

        Raises:
            ValueError: Shapes do not fit, or fewer rows than `min_samples_leaf` are left.
        """
        given = [predicted] if prune_on is None else [predicted, prune_on[1]]
        units = len(class_names) if class_names is not None else _units(given)
        rows = Rows.of(x, predicted, units)
        other = None if prune_on is None else Rows.of(*prune_on, units)
        tree = cls.of_rows(rows, other, min_samples_leaf, max_leaf_nodes, seed)
        columns = getattr(x, "columns", None)
        return tree.named(columns, None).named(feature_names, class_names)

    @classmethod
    def of_rows(
        cls,
        rows: Rows,
        prune_on: Rows | None = None,
        min_samples_leaf: int = 5,
        max_leaf_nodes: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Fits a tree to rows that are read already; for the arguments see `fit`."""
        if max_leaf_nodes is not None:
            checks.count("max_leaf_nodes", max_leaf_nodes, least=2)
        grown = Growth(min_samples_leaf, seed).grown(rows, prune_on)
        return cls.of(grown.pruned(max_leaf_nodes), rows)

    @classmethod
    def of(cls, tree: Pruned, rows: Rows) -> Self:
        """A tree that was grown on rows, with their numbers as names."""
        return cls(
            **vars(tree.nodes),
            agreement=tree.agreement,
            pruned_on=tree.pruned_on,
            feature_names=tuple(f"x{i}" for i in range(rows.features.shape[1])),
            class_names=tuple(map(str, range(rows.units))),
        )

    # What it measures

    @property
    def average_path_length(self) -> float:
        """How many questions are asked about a reference row, on average."""
        reached = self.counts.sum(axis=1)[self.is_leaf]
        return float(reached @ self.depths[self.is_leaf] / reached.sum())

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return int(self.is_leaf.sum())

    @property
    def depth(self) -> int:
        """How many questions are asked at most."""
        return int(self.depths.max())

    def predict(self, x: Nest) -> npt.NDArray[np.int32]:
        """The tree's classes: ints `[B]`, or `[B, T]` where the model predicts at each time step.

        Args:
            x: Inputs of the model, or rows `[N, D]` of a tree made from predictions.
        """
        if self.reader is None:
            return self.label[self.leaf_of(np.asarray(x, np.float32))]
        rows = self.reader.read(x, masked=True)
        return self.label[self.leaf_of(rows.features)].reshape(rows.shape)

    def fidelity(self, x: Nest, predicted: Any = None) -> float:
        """The share of rows for which the tree says what the model says now.

        Args:
            x: Inputs of the model, best those that neither has seen.
            predicted: The model's classes, ints `[N]`, for a tree made from predictions.
        """
        if self.reader is not None:
            rows = self.reader.read(x)
        elif predicted is not None:
            rows = Rows.of(x, predicted)
        else:
            raise ValueError(
                "Expected `predicted`, the classes to compare with, since this tree was made from "
                "predictions and knows no model. Received: predicted=None."
            )
        return float(np.mean(self.label[self.leaf_of(rows.features)] == rows.classes))

    # Its nodes

    def leaf_of(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The leaf that each row `[N, D]` comes to, ints `[N]`."""
        self._check_columns(features)
        return super().leaf_of(features)

    def _check_columns(self, features: npt.NDArray[np.float32]) -> None:
        expected = len(self.feature_names)
        if features.ndim != 2 or features.shape[1] != expected:
            raise ValueError(
                f"Expected rows [N, {expected}], as the tree was fitted on. "
                f"Received: shape {features.shape}."
            )

    # How it is shown

    def named(self, feature_names: Names = None, class_names: Names = None) -> Self:
        """The same tree with other names; `None` leaves them as they are.

        Raises:
            ValueError: There are more or fewer names than columns or classes.
        """
        return dataclasses.replace(
            self,
            feature_names=_names("feature_names", feature_names, self.feature_names),
            class_names=_names("class_names", class_names, self.class_names),
        )

    def to_text(self, feature_names: Names = None, class_names: Names = None) -> str:
        """The tree as indented lines: its questions, and the answer and rows at each leaf."""
        from keras_explain.plots import trees

        return trees.to_text(self.named(feature_names, class_names))

    def to_graphviz(self, feature_names: Names = None, class_names: Names = None) -> str:
        """The tree in the DOT language of Graphviz."""
        from keras_explain.plots import trees

        return trees.to_graphviz(self.named(feature_names, class_names))

    def plot(self, feature_names: Names = None, class_names: Names = None) -> Figure:
        """Draws the tree: a question per node, a colour per class, edges as wide as their rows."""
        from keras_explain.plots import trees

        return trees.plot(self.named(feature_names, class_names))

    def to_dict(self, feature_names: Names = None, class_names: Names = None) -> dict[str, Any]:
        """The tree as plain values, for JSON.

        Returns:
            `features` and `classes` (names), `rows`, `average_path_length`, `leaves`, `depth`,
            `fidelity` (on the rows it was pruned on, or None) and the node `root`. A node has
            `class`, `rows` and `counts` (per class), and, unless it is a leaf, `feature` (a
            column), `threshold`, `left` (at most the threshold) and `right`.
        """
        tree = self.named(feature_names, class_names)
        return {
            "features": list(tree.feature_names),
            "classes": list(tree.class_names),
            "rows": int(tree.counts[0].sum()),
            "average_path_length": tree.average_path_length,
            "leaves": tree.leaves,
            "depth": tree.depth,
            "fidelity": None if np.isnan(tree.agreement) else tree.agreement,
            "root": tree._node(0),
        }

    def _node(self, node: int) -> dict[str, Any]:
        described: dict[str, Any] = {
            "class": int(self.label[node]),
            "rows": int(self.counts[node].sum()),
            "counts": self.counts[node].tolist(),
        }
        if self.is_leaf[node]:
            return described
        return described | {
            "feature": int(self.feature[node]),
            "threshold": float(self.threshold[node]),
            "left": self._node(int(self.left[node])),
            "right": self._node(int(self.right[node])),
        }

    def __repr__(self) -> str:
        return (
            f"SurrogateTree(average_path_length={self.average_path_length:.3g}, "
            f"leaves={self.leaves}, depth={self.depth}, agreement={self.agreement:.3g})"
        )


def _units(predicted: Sequence[Any]) -> int | None:
    """How many classes there are at least; None where they are no numbers."""
    arrays = [np.asarray(classes) for classes in predicted]
    if any(array.dtype.kind not in "biuf" for array in arrays):
        return None
    return max(2, *(1 + int(np.max(array, initial=0)) for array in arrays))


def _names(what: str, given: Names, known: tuple[str, ...]) -> tuple[str, ...]:
    if given is None:
        return known
    names = tuple(map(str, given))
    if len(names) != len(known):
        raise ValueError(
            f"Expected {len(known)} names as `{what}`. Received: {len(names)} names, {names}."
        )
    return names
