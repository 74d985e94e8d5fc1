"""Decision trees: as lines of text, in the language of Graphviz, and as a figure."""

from __future__ import annotations

import dataclasses
import functools
import html
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from keras_explain.core import checks
from keras_explain.plots.sections import GAP, LINE, MARGIN
from keras_explain.plots.sheet import PALE, Sheet, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Those of Okabe and Ito (2008), then three of Tol's muted ones: the colour-blind tell them apart.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
    "#56b4e9", "#f0e442", "#332288", "#882255", "#999999",
)  # fmt: skip

MOST_LEAVES = 60  # that are drawn, unless it is said how deep

_QUESTION = "#f6f8fa"
_EDGE = "#c9d1d9"

# Inches.
_WIDEST = 12.0  # of the leaves together, unless they would be narrower than:
_NARROWEST_LEAF = 0.125  # for each point of the size of its letters
_WIDEST_LEAF = 1.6  # for the name of its class
_MOST_FOR_A_QUESTION = 2.4
_BETWEEN = 0.08  # leaves side by side
_PAD = 0.06
_MIX = 0.05  # the bar that shows the classes of a node's rows
_BELOW = (0.36, 0.9)  # from a level to the next
_MOST_FOR_A_CLASS = 2.0  # in the legend

# Points.
_SIZES = (5.5, 8.0)
_FLOW = (0.6, 10.0)  # an edge that no row takes, or all

_SPREAD = 1.08  # text on a coarse grid of pixels is so much wider than in outlines
_TOGETHER = 10  # leaves that have rows and share in one line
_PICTURE = 900  # pixels
_MOST_IN_A_PICTURE = 24  # leaves
_READABLE = 80  # pixels in an inch
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
    words = _Words(tree)
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
    words = _Words(tree)
    font = 'fontname="Helvetica"'
    title = " · ".join(words.summary())
    lines = [
        "digraph tree {",
        f"    graph [label={_quoted(title)}, labelloc=t, ordering=out, {font}];",
        f'    node [shape=box, style="rounded,filled", color="{_EDGE}", {font}];',
        f'    edge [color="{PALE}", {font}];',
    ]
    for node in _drawn(tree, tree.depth):
        leaf = bool(tree.is_leaf[node])
        label = words.answered(node) if leaf else words.asked(node)
        fill = _tinted(tree, node) if leaf else _QUESTION
        lines.append(f'    {node} [label={_quoted(*label)}, fillcolor="{fill}"];')
        for child, answer in () if leaf else _children(tree, node):
            width = _width(tree, child)
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
    return _Drawing(tree, most).draw()


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


class _Words:
    """What is said about a tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.thresholds = _thresholds(tree)

    def summary(self) -> list[str]:
        """The tree in numbers."""
        tree = self.tree
        said = [
            f"average path length {tree.average_path_length:.3g}",
            _counted(tree.leaves, "leaf", "leaves"),
            f"depth {tree.depth}",
        ]
        known = not math.isnan(tree.agreement)
        return [*said, f"agreement {_percent(tree.agreement, 1)}"] if known else said

    def feature(self, node: int) -> str:
        """The name of the feature that a node asks about."""
        return _one_line(self.tree.feature_names[self.tree.feature[node]])

    def answer(self, node: int) -> str:
        """The name of a node's class."""
        return _one_line(self.tree.class_names[self.tree.label[node]])

    def reached(self, node: int) -> list[str]:
        """How many rows come to a node, and for which share of them the model says the same."""
        rows = int(self.tree.counts[node].sum())
        said = _counted(rows, "row", "rows")
        return [said, _percent(_purity(self.tree, node))] if rows else [said]

    def answered(self, node: int) -> list[str]:
        """The lines in a leaf of a graph."""
        return [self.answer(node), *self.reached(node)]

    def asked(self, node: int) -> list[str]:
        """The lines in a question of a graph."""
        threshold = self.thresholds[node].replace("-", "\N{MINUS SIGN}")
        return [self.feature(node), f"≤ {threshold}"]


class _Fonts(NamedTuple):
    """The fonts of nodes."""

    size: float
    bold: FontProperties

    @classmethod
    def of(cls, leaves: int) -> _Fonts:
        """The more leaves, the smaller."""
        size = float(np.clip(9 - leaves / 12, *_SIZES))
        return cls(size, FontProperties(size=size, weight="bold"))

    @property
    def line(self) -> float:
        """The height of a line in inches."""
        return 1.35 * self.size / 72

    def width(self, text: str, bold: bool = False) -> float:
        """The width of a text in inches."""
        font = self.bold if bold else FontProperties(size=self.size)
        return _SPREAD * shortened(text, font, np.inf)[1]

    def wrapped(self, name: str, width: float) -> list[str]:
        """A bold name in two lines at most, cut between words, each shortened to a width."""
        first, *others = re.findall(r"[^\s_/.-]*[\s_/.-]*", name)[:-1] or [name]
        while others and self.width((first + others[0]).rstrip(), bold=True) <= width:
            first += others.pop(0)
        if others and self.width(others[0].rstrip(), bold=True) > width:
            return [shortened(name, self.bold, width / _SPREAD)[0]]
        lines = [line.strip() for line in (first, "".join(others))]
        return [shortened(line, self.bold, width / _SPREAD)[0] for line in lines if line]


class _Sheet(Sheet):
    """A sheet with boxes that have round corners, and edges that bend."""

    def card(
        self, x: float, y: float, width: float, height: float, fill: str, line: str, dashed: bool
    ) -> None:
        """Draws a box with round corners."""
        self._axes.add_artist(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=fill,
                edgecolor=line, linewidth=0.8, linestyle=(0, (3, 2)) if dashed else "-", zorder=0.8,
            )
        )  # fmt: skip

    def edge(
        self, start: tuple[float, float], end: tuple[float, float], width: float, colour: str
    ) -> None:
        """Draws a line that leaves straight down and arrives straight down."""
        (x0, y0), (x1, y1) = start, end
        middle = (y0 + y1) / 2
        path = Path([(x0, y0), (x0, middle), (x1, middle), (x1, y1)], [1, 4, 4, 4])
        self._axes.add_artist(
            PathPatch(
                path, facecolor="none", edgecolor=colour, linewidth=width, capstyle="butt",
                zorder=0.5,
            )
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class _Drawing:
    """A tree down to a depth, laid out in inches."""

    tree: Tree
    most: int

    def draw(self) -> Figure:
        """Title, legend, edges, nodes."""
        sheet = _Sheet(2 * MARGIN + max(self._title_width, self.slot * len(self.ends)))
        self._title(sheet, MARGIN + 0.08)
        top = self._legend(sheet, MARGIN + 0.34) + 0.1
        for node in self.nodes:
            self._edges(sheet, node, top)
        for node in self.nodes:
            self._node(sheet, node, top)
        self._yes_and_no(sheet, top)
        return sheet.finish(top + self._tops[-1] + MARGIN)

    # Where things stand

    @functools.cached_property
    def nodes(self) -> list[int]:
        """Those that are drawn."""
        return list(_drawn(self.tree, self.most))

    @functools.cached_property
    def ends(self) -> list[int]:
        """Those below which nothing is drawn, from left to right."""
        return [node for node in self.nodes if self._is_end(node)]

    @functools.cached_property
    def places(self) -> dict[int, float]:
        """The middle of each node, in leaves from the left."""
        places = {node: place + 0.5 for place, node in enumerate(self.ends)}
        for node in reversed(self.nodes):
            if node not in places:
                places[node] = (places[self.tree.left[node]] + places[self.tree.right[node]]) / 2
        return places

    @functools.cached_property
    def slot(self) -> float:
        """The width that each leaf has."""
        ends, fonts, room = self.ends, self._fonts, 2 * _PAD + _BETWEEN
        asked = [self._words.asked(node) for node in self.nodes if not self._is_end(node)]
        numbers = [line for node in ends for line in self._answered(node)[1:]]
        names = [fonts.width(self._words.answer(node), bold=True) for node in ends]
        in_two_lines = [fonts.width(name, bold=True) / 1.7 for name, _ in asked]
        thresholds = [fonts.width(threshold) for _, threshold in asked]
        # A question can be as wide as two leaves.
        needed = max([fonts.width(line) + room for line in numbers] + _halves(thresholds, room))
        wanted = max([name + room for name in names] + _halves(in_two_lines, room))
        most = max(_WIDEST / len(ends), _NARROWEST_LEAF * fonts.size)
        return max(needed, min(wanted, most, _WIDEST_LEAF))

    @functools.cached_property
    def _words(self) -> _Words:
        return _Words(self.tree)

    @functools.cached_property
    def _fonts(self) -> _Fonts:
        return _Fonts.of(len(self.ends))

    @functools.cached_property
    def _leaf(self) -> npt.NDArray[np.bool_]:
        return self.tree.is_leaf

    @functools.cached_property
    def _depths(self) -> npt.NDArray[Any]:
        return self.tree.depths

    @functools.cached_property
    def _levels(self) -> list[list[int]]:
        """The nodes of each depth, from left to right."""
        levels: list[list[int]] = [[] for _ in range(self.most + 1)]
        for node in self.nodes:
            levels[self._depths[node]].append(node)
        return levels

    @functools.cached_property
    def _texts(self) -> dict[int, list[str]]:
        """The lines of each node, cut to fit beside what stands at the same depth."""
        lines = {}
        for level in self._levels:
            for place, node in enumerate(level):
                beside = level[max(place - 1, 0) : place] + level[place + 1 : place + 2]
                end = self._is_end(node)
                name, *others = self._answered(node) if end else self._words.asked(node)
                room = self.slot - _BETWEEN if end else self._room(node, beside)
                width = min(room - 2 * _PAD, _MOST_FOR_A_QUESTION)
                lines[node] = [*self._fonts.wrapped(name, width), *others]
        return lines

    @functools.cached_property
    def _heights(self) -> list[float]:
        """The height of the nodes of each level."""
        lines = [max(len(self._texts[node]) for node in level) for level in self._levels]
        return [count * self._fonts.line + _MIX + 3 * _PAD for count in lines]

    @functools.cached_property
    def _tops(self) -> list[float]:
        """Where each level begins, and the last one ends."""
        tops = [0.0]
        for level, height in zip(self._levels, self._heights, strict=True):
            spans = [
                abs(self.places[child] - self.places[node]) * self.slot
                for node in level
                if not self._is_end(node)
                for child, _ in _children(self.tree, node)
            ]
            below = float(np.clip(0.2 * max(spans), *_BELOW)) if spans else 0.0
            tops.append(tops[-1] + height + below)
        return tops

    def _is_end(self, node: int) -> bool:
        return bool(self._leaf[node] or self._depths[node] >= self.most)

    def _room(self, node: int, beside: list[int]) -> float:
        """How wide a question can be, leaving as much to others, but to leaves what they have."""
        at, count = self.places[node], len(self.ends)
        free = [2 * at, 2 * (count - at)]
        for other in beside:
            distance = abs(self.places[other] - at)
            free.append(2 * distance - 1 if self._is_end(other) else distance)
        return min(free) * self.slot - _BETWEEN

    # What is drawn

    @property
    def _title_width(self) -> float:
        return 0.1 + sum(width for _, width in self._title_words())

    def _title_words(self) -> list[tuple[str, float]]:
        """The first words, which are large, and the others; with their widths."""
        first, *others = self._words.summary()
        others.append(_counted(int(self.tree.counts[0].sum()), "row", "rows"))
        left_out = self.tree.leaves - int(self._leaf[self.ends].sum())
        if left_out:
            others.append(f"{_counted(left_out, 'leaf', 'leaves')} not drawn")
        first, other = first[0].upper() + first[1:], " · ".join(others)
        large = shortened(first, FontProperties(size=11, weight="bold"), np.inf)[1]
        return [(first, _SPREAD * large), (other, _SPREAD * Sheet.width_of(other, 8))]

    def _title(self, sheet: Sheet, y: float) -> None:
        (first, width), (others, _) = self._title_words()
        sheet.text(first, MARGIN, y, size=11, bold=True)
        sheet.text(others, MARGIN + width + 0.1, y, size=8, colour=PALE)

    def _legend(self, sheet: Sheet, y: float) -> float:
        """A key of the classes that the rows have, in as many lines as it takes."""
        labels = self.tree.label[self.ends]
        shown = np.union1d(np.flatnonzero(self.tree.counts[0]), labels).tolist()
        entries = [(_colour(k), _one_line(self.tree.class_names[k])) for k in shown]
        each = min(max(Sheet.width_of(word, 6.5) for _, word in entries), _MOST_FOR_A_CLASS) + 0.35
        across = max(1, int((sheet.width - 2 * MARGIN) / each))
        for first in range(0, len(entries), across):
            row = entries[first : first + across]
            sheet.key(MARGIN, y, each * len(row), row)
            y += LINE
        return y

    def _edges(self, sheet: _Sheet, node: int, top: float) -> None:
        """The edges below a node, beside each other where they begin."""
        if self._is_end(node):
            return
        depth = self._depths[node]
        begins = top + self._tops[depth] + self._heights[depth]
        children = _children(self.tree, node)
        widths = [_width(self.tree, child) for child, _ in children]
        starts = np.array([-widths[1], widths[0]]) / 2 / 72 + self._across(sheet, node)
        for (child, _), width, start in zip(children, widths, starts, strict=True):
            end = (self._across(sheet, child), top + self._tops[depth + 1])
            sheet.edge((float(start), begins), end, width, _EDGE)

    def _node(self, sheet: _Sheet, node: int, top: float) -> None:
        lines, fonts, end = self._texts[node], self._fonts, self._is_end(node)
        depth = self._depths[node]
        x, y, height = self._across(sheet, node), top + self._tops[depth], self._heights[depth]
        width = self.slot - _BETWEEN if end else self._question_width(node)
        colour = _tint(_colour(self.tree.label[node]), 0.8) if end else _EDGE
        cut = end and not self._leaf[node]
        fill = _tinted(self.tree, node) if end else _QUESTION
        sheet.card(x - width / 2, y, width, height, fill, colour, dashed=cut)
        self._mix(sheet, node, x - width / 2 + _PAD, y + height - _PAD - _MIX, width - 2 * _PAD)
        bold = len(lines) - (len(self._answered(node)) - 1 if end else 1)  # those of the name
        first = y + _PAD + (height - _MIX - 3 * _PAD - len(lines) * fonts.line) / 2
        for place, line in enumerate(lines):
            middle = first + (place + 0.5) * fonts.line
            sheet.text(line, x, middle, size=fonts.size, align="center", bold=place < bold)

    def _mix(self, sheet: Sheet, node: int, x: float, y: float, width: float) -> None:
        """The bar of the classes of a node's rows."""
        counts = self.tree.counts[node]
        for k in np.flatnonzero(counts).tolist():
            share = width * counts[k] / counts.sum()
            sheet.box(x, y, share, _MIX, _colour(k))
            x += share

    def _yes_and_no(self, sheet: Sheet, top: float) -> None:
        """Beside the first edges: which is for rows at most the threshold."""
        if self._is_end(0):
            return
        for child, answer in _children(self.tree, 0):
            side, align = (-1, "right") if answer == "yes" else (1, "left")
            aside = _width(self.tree, child) / 2 / 72 + GAP
            x, y = self._across(sheet, child) + side * aside, top + self._tops[1] - 0.1
            sheet.text(answer, x, y, size=7.5, colour=PALE, align=align)

    def _across(self, sheet: Sheet, node: int) -> float:
        left = (sheet.width - self.slot * len(self.ends)) / 2
        return left + self.places[node] * self.slot

    def _answered(self, node: int) -> list[str]:
        """The lines of an end; its rows and their share are one line where there is room."""
        name, *numbers = self._words.answered(node)
        if len(self.ends) <= _TOGETHER:
            numbers = [" · ".join(numbers)]
        if not self._leaf[node]:
            numbers.append(f"… {_counted(_leaves_below(self.tree, node), 'leaf', 'leaves')}")
        return [name, *numbers]

    def _question_width(self, node: int) -> float:
        *names, threshold = self._texts[node]
        widths = [self._fonts.width(name, bold=True) for name in names]
        return max(*widths, self._fonts.width(threshold), 0.3) + 2 * _PAD


def _drawn(tree: Tree, most: int) -> Iterator[int]:
    """The nodes down to a depth; a node stands before those at its left, they before the others."""
    depths, is_leaf, waiting = tree.depths, tree.is_leaf, [0]
    while waiting:
        node = waiting.pop()
        yield node
        if not is_leaf[node] and depths[node] < most:
            waiting += [int(tree.right[node]), int(tree.left[node])]


def _halves(widths: list[float], room: float) -> list[float]:
    return [(width + room) / 2 for width in widths]


def _most(tree: Tree, leaves: int) -> int:
    """The depth down to which a tree is drawn with at most so many leaves."""
    ended = np.bincount(tree.depths[tree.is_leaf], minlength=tree.depth + 1).cumsum()
    going_on = np.bincount(tree.depths[~tree.is_leaf], minlength=tree.depth + 1)
    return int(np.flatnonzero(ended + going_on <= leaves)[-1])


def _children(tree: Tree, node: int) -> tuple[tuple[int, str], tuple[int, str]]:
    return (int(tree.left[node]), "yes"), (int(tree.right[node]), "no")


def _leaves_below(tree: Tree, node: int) -> int:
    below, waiting = 0, [node]
    while waiting:
        at = waiting.pop()
        below += int(tree.is_leaf[at])
        waiting += [] if tree.is_leaf[at] else [tree.left[at], tree.right[at]]
    return below


def _purity(tree: Tree, node: int) -> float:
    """The share of a node's rows to which the model gives its class."""
    counts = tree.counts[node]
    return float(counts[tree.label[node]] / max(counts.sum(), 1))


def _width(tree: Tree, child: int) -> float:
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


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _one_line(name: str) -> str:
    """A name without line breaks and what else can't be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _quoted(*lines: str) -> str:
    """A label in DOT, where quotes, backslashes and HTML's entities mean something."""
    escaped = [
        html.escape(line, quote=False).replace("\\", "\\\\").replace('"', '\\"') for line in lines
    ]
    return '"' + "\\n".join(escaped) + '"'


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _tinted(tree: Tree, node: int) -> str:
    """The colour of a leaf."""
    return _tint(_colour(tree.label[node]), 0.1 + 0.3 * _purity(tree, node))


def _tint(colour: str, strength: float) -> str:
    """A colour mixed with white."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - part)):02x}" for part in parts)
