"""A decision tree that mimics a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.trees.pruning import prune
from keras_explain.trees.rows import RowReader, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Nest = Any
Names = Sequence[str] | None

LEAF = -1
HELD_BACK = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class SurrogateTree:
    """A decision tree fitted to what a model predicts, and pruned.

    A tree is grown by CART (Breiman et al., 1984; scikit-learn's) on the classes that the model
    predicts for reference rows, then pruned by its errors on rows that it was not grown on
    (Quinlan, 1987): from the leaves up, a split becomes a leaf where that makes no more errors.
    The *average path length* is how many questions the tree asks about a reference row,

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

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
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
        checks.count("min_samples_leaf", min_samples_leaf)
        if max_leaf_nodes is not None:
            checks.count("max_leaf_nodes", max_leaf_nodes, least=2)
        grown_on, kept = rows.split(HELD_BACK, seed) if prune_on is None else (rows, prune_on)
        if len(grown_on.features) < min_samples_leaf:
            raise ValueError(
                f"Expected at least min_samples_leaf={min_samples_leaf} reference rows to grow the "
                f"tree on. Received: {len(rows.features)} rows, {len(grown_on.features)} of them "
                "to grow on. Give more rows, or a smaller min_samples_leaf."
            )
        grown = cls._grown(grown_on, min_samples_leaf, max_leaf_nodes, seed)
        errors = prune(grown, _counts(grown, kept)) if len(kept.features) else None
        tree = grown._without_orphans()
        agreement = float("nan") if errors is None else 1 - errors / len(kept.features)
        return dataclasses.replace(
            tree, counts=_counts(tree, rows), agreement=agreement, pruned_on=len(kept.features)
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
        self._check_columns(features)
        at = np.zeros(len(features), np.int32)
        for _ in range(self.depth):
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

    def _check_columns(self, features: npt.NDArray[np.float32]) -> None:
        expected = len(self.feature_names)
        if features.ndim != 2 or features.shape[1] != expected:
            raise ValueError(
                f"Expected rows [N, {expected}], as the tree was fitted on. "
                f"Received: shape {features.shape}."
            )

    @classmethod
    def _grown(
        cls, rows: Rows, min_samples_leaf: int, max_leaf_nodes: int | None, seed: int
    ) -> Self:
        """CART's tree, all its nodes."""
        from sklearn.tree import DecisionTreeClassifier

        cart = DecisionTreeClassifier(
            min_samples_leaf=min_samples_leaf, max_leaf_nodes=max_leaf_nodes, random_state=seed
        ).fit(rows.features, rows.classes)
        nodes = cart.tree_
        return cls(
            feature=np.where(nodes.children_left == LEAF, LEAF, nodes.feature).astype(np.int32),
            threshold=_at_most(nodes.threshold),
            left=nodes.children_left.astype(np.int32),
            right=nodes.children_right.astype(np.int32),
            label=cart.classes_[nodes.value[:, 0].argmax(axis=1)].astype(np.int32),
            counts=np.zeros((nodes.node_count, rows.units), np.int64),
            feature_names=tuple(f"x{i}" for i in range(rows.features.shape[1])),
            class_names=tuple(map(str, range(rows.units))),
        )

    def _without_orphans(self) -> Self:
        """The same tree without nodes that pruning has cut off."""
        kept = [0]
        for node in kept:  # grows while it is walked through
            kept += [] if self.feature[node] == LEAF else [self.left[node], self.right[node]]
        order = np.sort(kept)
        new = np.full(len(self.feature) + 1, LEAF, np.int32)  # the last one for LEAF itself
        new[order] = np.arange(len(order))
        return dataclasses.replace(
            self,
            feature=self.feature[order],
            threshold=self.threshold[order],
            left=new[self.left[order]],
            right=new[self.right[order]],
            label=self.label[order],
            counts=self.counts[order],
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


def _at_most(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The greatest float32 numbers up to `threshold`: float32 values compare the same to both."""
    rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _counts(tree: SurrogateTree, rows: Rows) -> npt.NDArray[np.int64]:
    """How many rows of each class come to each node, ints `[nodes, classes]`."""
    counts = np.zeros((len(tree.feature), rows.units), np.int64)
    np.add.at(counts, (tree.leaf_of(rows.features), rows.classes), 1)
    for node in np.flatnonzero(~tree.is_leaf)[::-1]:
        counts[node] = counts[tree.left[node]] + counts[tree.right[node]]
    return counts
