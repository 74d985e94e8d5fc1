"""A decision tree as a figure."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from keras_explain.plots.sections import GAP, LINE, MARGIN
from keras_explain.plots.sheet import PALE, Sheet, shortened
from keras_explain.plots.tree_words import (
    EDGE,
    QUESTION,
    Tree,
    Words,
    children_of,
    class_colour,
    counted,
    drawn_nodes,
    flow_width,
    one_line,
    tint,
    tinted,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_SPREAD = 1.08  # text on a coarse grid of pixels is so much wider than in outlines
_TOGETHER = 10  # leaves that have rows and share in one line


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
class Drawing:
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
        return list(drawn_nodes(self.tree, self.most))

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
    def _words(self) -> Words:
        return Words(self.tree)

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
                for child, _ in children_of(self.tree, node)
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
        others.append(counted(int(self.tree.counts[0].sum()), "row", "rows"))
        left_out = self.tree.leaves - int(self._leaf[self.ends].sum())
        if left_out:
            others.append(f"{counted(left_out, 'leaf', 'leaves')} not drawn")
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
        entries = [(class_colour(k), one_line(self.tree.class_names[k])) for k in shown]
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
        children = children_of(self.tree, node)
        widths = [flow_width(self.tree, child) for child, _ in children]
        starts = np.array([-widths[1], widths[0]]) / 2 / 72 + self._across(sheet, node)
        for (child, _), width, start in zip(children, widths, starts, strict=True):
            end = (self._across(sheet, child), top + self._tops[depth + 1])
            sheet.edge((float(start), begins), end, width, EDGE)

    def _node(self, sheet: _Sheet, node: int, top: float) -> None:
        lines, fonts, end = self._texts[node], self._fonts, self._is_end(node)
        depth = self._depths[node]
        x, y, height = self._across(sheet, node), top + self._tops[depth], self._heights[depth]
        width = self.slot - _BETWEEN if end else self._question_width(node)
        colour = tint(class_colour(self.tree.label[node]), 0.8) if end else EDGE
        cut = end and not self._leaf[node]
        fill = tinted(self.tree, node) if end else QUESTION
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
            sheet.box(x, y, share, _MIX, class_colour(k))
            x += share

    def _yes_and_no(self, sheet: Sheet, top: float) -> None:
        """Beside the first edges: which is for rows at most the threshold."""
        if self._is_end(0):
            return
        for child, answer in children_of(self.tree, 0):
            side, align = (-1, "right") if answer == "yes" else (1, "left")
            aside = flow_width(self.tree, child) / 2 / 72 + GAP
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
            numbers.append(f"… {counted(_leaves_below(self.tree, node), 'leaf', 'leaves')}")
        return [name, *numbers]

    def _question_width(self, node: int) -> float:
        *names, threshold = self._texts[node]
        widths = [self._fonts.width(name, bold=True) for name in names]
        return max(*widths, self._fonts.width(threshold), 0.3) + 2 * _PAD


def _halves(widths: list[float], room: float) -> list[float]:
    return [(width + room) / 2 for width in widths]


def _leaves_below(tree: Tree, node: int) -> int:
    below, waiting = 0, [node]
    while waiting:
        at = waiting.pop()
        below += int(tree.is_leaf[at])
        waiting += [] if tree.is_leaf[at] else [tree.left[at], tree.right[at]]
    return below
