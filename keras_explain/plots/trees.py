"""Decision trees: as lines of text, in the language of Graphviz, and as a figure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.plots.sheet import PALE
from keras_explain.plots.tree_drawing import Drawing
from keras_explain.plots.tree_words import (
    EDGE,
    QUESTION,
    Tree,
    Words,
    children_of,
    drawn_nodes,
    flow_width,
    tinted,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LEAVES = 60  # that are drawn, unless it is said how deep
_PICTURE = 900  # pixels
_MOST_IN_A_PICTURE = 24  # leaves
_READABLE = 80  # pixels in an inch


def to_text(tree: Tree) -> str:
    """Writes a tree as indented lines: its questions, and the answer and rows at each leaf.

    ```
    average path length 1.57, 3 leaves, depth 2, agreement 95.3 %

    mean radius <= 15.05
    ├── yes: worst texture <= 29.4
    │   ├── yes: benign (212 rows, 97 %)
    │   └── no:  malignant (30 rows, 90 %)
    └── no:  malignant (180 rows, 99 %)
    ```

    The first line has the average number of questions that a row is asked. The percentage of a
    leaf is the share of its rows for which the model says the same. Thresholds of a feature are
    written with as many digits as tell them apart.
    """
    words = Words(tree)
    lines, waiting = [", ".join(words.summary()), ""], [(0, "", "")]
    while waiting:
        node, before, below = waiting.pop()
        if tree.is_leaf[node]:
            lines.append(f"{before}{words.answer(node)} ({', '.join(words.reached(node))})")
            continue
        lines.append(f"{before}{words.feature(node)} <= {words.thresholds[node]}")
        waiting.append((tree.right[node], f"{below}└── no:  ", f"{below}    "))
        waiting.append((tree.left[node], f"{below}├── yes: ", f"{below}│   "))
    return "\n".join(lines)


def to_graphviz(tree: Tree) -> str:
    """Writes a tree in the DOT language of Graphviz, its nodes coloured as in `plot`."""
    words = Words(tree)
    font = 'fontname="Helvetica"'
    title = " · ".join(words.summary())
    lines = [
        "digraph tree {",
        f"    graph [label={_quoted(title)}, labelloc=t, ordering=out, {font}];",
        f'    node [shape=box, style="rounded,filled", color="{EDGE}", {font}];',
        f'    edge [color="{PALE}", {font}];',
    ]
    for node in drawn_nodes(tree, tree.depth):
        leaf = bool(tree.is_leaf[node])
        label = words.answered(node) if leaf else words.asked(node)
        fill = tinted(tree, node) if leaf else QUESTION
        lines.append(f'    {node} [label={_quoted(*label)}, fillcolor="{fill}"];')
        for child, answer in () if leaf else children_of(tree, node):
            width = flow_width(tree, child)
            lines.append(f'    {node} -> {child} [label="{answer}", penwidth={width:.2f}];')
    return "\n".join([*lines, "}"])


def plot(tree: Tree, max_depth: int | None = None) -> Figure:
    """Draws a tree: its questions, "yes" at the left and "no" at the right, down to the answers.

    Leaves stand evenly; a question stands above the middle of its two answers. The width of an edge
    is the share of all rows that take it. A leaf has the colour of its class, the paler the fewer
    of its rows the model gives that class; the bar at the bottom of a node shows how many of its
    rows the model gives each class.

    Args:
        tree: A `trees.SurrogateTree`.
        max_depth: At most so many questions are drawn below each other; of what is left out, it is
            said how many leaves it has. `None` draws all of a tree of up to 60 leaves, and of a
            larger one the top levels that have no more.

    Returns:
        A matplotlib figure, which notebooks show by themselves.
    """
    if max_depth is not None:
        checks.count("max_depth", max_depth, least=0)
    most = _most(tree, MOST_LEAVES) if max_depth is None else min(max_depth, tree.depth)
    return Drawing(tree, most).draw()


def picture(tree: Tree) -> npt.NDArray[np.uint8]:
    """Draws a tree as `plot` does, as a picture `[H, W, 3]`, red first.

    It is 900 pixels wide, or as many more as a tree of many leaves needs to be read; of a tree with
    more than 24 leaves, the top levels are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = plot(tree, _most(tree, _MOST_IN_A_PICTURE))
    inches = figure.get_figwidth()
    figure.dpi = max((_PICTURE + 0.5) / inches, _READABLE)  # pixels are rounded down
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _most(tree: Tree, leaves: int) -> int:
    """The depth down to which a tree is drawn with at most so many leaves."""
    ended = np.bincount(tree.depths[tree.is_leaf], minlength=tree.depth + 1).cumsum()
    going_on = np.bincount(tree.depths[~tree.is_leaf], minlength=tree.depth + 1)
    return int(np.flatnonzero(ended + going_on <= leaves)[-1])


def _quoted(*lines: str) -> str:
    """A label in DOT, where quotes, backslashes and HTML's entities mean something."""
    escaped = [
        html.escape(line, quote=False).replace("\\", "\\\\").replace('"', '\\"') for line in lines
    ]
    return '"' + "\\n".join(escaped) + '"'
