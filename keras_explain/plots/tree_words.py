"""What is said about a decision tree, and in which colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    pass


# Those of Okabe and Ito (2008), then three of Tol's muted ones: the colour-blind tell them apart.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
    "#56b4e9", "#f0e442", "#332288", "#882255", "#999999",
)  # fmt: skip

QUESTION = "#f6f8fa"

EDGE = "#c9d1d9"

_FLOW = (0.6, 10.0)  # an edge that no row takes, or all

_DIGITS = range(4, 10)  # nine tell all float32 numbers apart


class Tree(Protocol):
    """What is shown of a tree; for the arrays see `trees.SurrogateTree`."""

    @property
    def feature(self) -> npt.NDArray[Any]: ...
    @property
    def threshold(self) -> npt.NDArray[Any]: ...
    @property
    def left(self) -> npt.NDArray[Any]: ...
    @property
    def right(self) -> npt.NDArray[Any]: ...
    @property
    def label(self) -> npt.NDArray[Any]: ...
    @property
    def counts(self) -> npt.NDArray[Any]: ...
    @property
    def is_leaf(self) -> npt.NDArray[np.bool_]: ...
    @property
    def depths(self) -> npt.NDArray[Any]: ...
    @property
    def agreement(self) -> float: ...
    @property
    def average_path_length(self) -> float: ...
    @property
    def leaves(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def feature_names(self) -> tuple[str, ...]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...


class Words:
    """What is said about a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.thresholds = _thresholds(tree)

    def summary(self) -> list[str]:
        """The tree in numbers."""
        tree = self.tree
        said = [
            f"average path length {tree.average_path_length:.3g}",
            counted(tree.leaves, "leaf", "leaves"),
            f"depth {tree.depth}",
        ]
        known = not math.isnan(tree.agreement)
        return [*said, f"agreement {_percent(tree.agreement, 1)}"] if known else said

    def feature(self, node: int) -> str:
        """The name of the feature that a node asks about."""
        return one_line(self.tree.feature_names[self.tree.feature[node]])

    def answer(self, node: int) -> str:
        """The name of a node's class."""
        return one_line(self.tree.class_names[self.tree.label[node]])

    def reached(self, node: int) -> list[str]:
        """How many rows come to a node, and for which share of them the model says the same."""
        rows = int(self.tree.counts[node].sum())
        said = counted(rows, "row", "rows")
        return [said, _percent(_purity(self.tree, node))] if rows else [said]

    def answered(self, node: int) -> list[str]:
        """The lines in a leaf of a graph."""
        return [self.answer(node), *self.reached(node)]

    def asked(self, node: int) -> list[str]:
        """The lines in a question of a graph."""
        threshold = self.thresholds[node].replace("-", "\N{MINUS SIGN}")
        return [self.feature(node), f"≤ {threshold}"]


def drawn_nodes(tree: Tree, most: int) -> Iterator[int]:
    """The nodes down to a depth; a node stands before those at its left, they before the others."""
    depths, is_leaf, waiting = tree.depths, tree.is_leaf, [0]
    while waiting:
        node = waiting.pop()
        yield node
        if not is_leaf[node] and depths[node] < most:
            waiting += [int(tree.right[node]), int(tree.left[node])]


def children_of(tree: Tree, node: int) -> tuple[tuple[int, str], tuple[int, str]]:
    """The nodes below a question, each with the answer that leads there."""
    return (int(tree.left[node]), "yes"), (int(tree.right[node]), "no")


def _purity(tree: Tree, node: int) -> float:
    """The share of a node's rows to which the model gives its class."""
    counts = tree.counts[node]
    return float(counts[tree.label[node]] / max(counts.sum(), 1))


def flow_width(tree: Tree, child: int) -> float:
    """The width in points of the edge to a node."""
    least, most = _FLOW
    return max(least, most * float(tree.counts[child].sum() / max(tree.counts[0].sum(), 1)))


def _thresholds(tree: Tree) -> list[str]:
    """The threshold of each node in as few digits, from four, as tell those of a feature apart."""
    written = [""] * len(tree.feature)
    for column in np.unique(tree.feature[~tree.is_leaf]):
        nodes = np.flatnonzero(tree.feature == column)
        values = [float(value) + 0.0 for value in tree.threshold[nodes]]  # no negative zero
        for digits in _DIGITS:
            texts = [_number(value, digits) for value in values]
            if len(set(texts)) == len(set(values)):
                break
        for node, text in zip(nodes, texts, strict=True):
            written[node] = text
    return written


def _number(value: float, digits: int) -> str:
    """A number in so many digits; more where an exponent would be written below ten millions."""
    whole = len(f"{abs(value):.0f}")
    return f"{value:.{max(digits, whole) if whole <= 7 else digits}g}"


def _percent(share: float, decimals: int = 0) -> str:
    """A share; what is not quite none or all is not rounded to it."""
    percent, least = 100 * share, 10.0**-decimals
    if 0 < share < 1:
        percent = min(max(percent, least), 100 - least)
    return f"{percent:.{decimals}f}".removesuffix(".0") + " %"


def counted(count: int, one: str, several: str) -> str:
    """A number and what is counted."""
    return f"{count:,} {one if count == 1 else several}"


def one_line(name: str) -> str:
    """A name without line breaks and what else can't be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def class_colour(label: int) -> str:
    """The colour of a class."""
    return COLOURS[label % len(COLOURS)]


def tinted(tree: Tree, node: int) -> str:
    """The colour of a leaf."""
    return tint(class_colour(tree.label[node]), 0.1 + 0.3 * _purity(tree, node))


def tint(colour: str, strength: float) -> str:
    """A colour mixed with white."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - part)):02x}" for part in parts)
