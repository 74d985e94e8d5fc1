"""A section of a sheet: one input of an explanation, drawn as its kind is."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from keras_explain.plots.explained import Caption, Explained
from keras_explain.plots.sheet import PALE, Sheet

# Inches.
MARGIN = 0.15
GAP = 0.06
LINE = 0.2
HEADING = 0.34

_BETWEEN = 0.35  # panels side by side
_BELOW = 0.12
_BAR_WIDTH = 2.2


@dataclasses.dataclass(frozen=True, eq=False)
class Section(abc.ABC):
    """One input on a sheet. The fields behind the first are the options of its kind."""

    what: ClassVar[str]
    shows: ClassVar[tuple[str, ...]] = ()

    explained: Explained

    @property
    @abc.abstractmethod
    def width(self) -> float:
        """How wide the sheet must be, in inches."""

    @abc.abstractmethod
    def draw(self, sheet: Sheet, top: float) -> float:
        """Draws all rows, and returns where the next section begins."""

    @classmethod
    def options(cls) -> list[str]:
        """The names of the options, in order."""
        _, *options = dataclasses.fields(cls)
        return [option.name for option in options]


@dataclasses.dataclass(frozen=True, eq=False)
class Panels(Section):
    """A section of panels, one for each row, under its class and score; a legend at the bottom."""

    panel_width: ClassVar[float]
    most_side_by_side: ClassVar[int] = 1

    @property
    def width(self) -> float:
        across = self._across
        return 2 * MARGIN + across * self.panel_width + (across - 1) * _BETWEEN

    def draw(self, sheet: Sheet, top: float) -> float:
        captions, y = self.explained.numbered_captions(), top
        for first in range(0, len(captions), self._across):
            bottoms = []
            for place, row in enumerate(range(first, min(first + self._across, len(captions)))):
                x = MARGIN + place * (self.panel_width + _BETWEEN)
                caption(sheet, captions[row], x, y + LINE / 2, self.panel_width, size=8)
                bottoms.append(self.panel(sheet, row, x, y + LINE + GAP))
            y = max(bottoms) + _BELOW
        self.legend(sheet, MARGIN, y + GAP, min(_BAR_WIDTH, self.panel_width))
        return y + LINE

    @abc.abstractmethod
    def panel(self, sheet: Sheet, row: int, x: float, y: float) -> float:
        """Draws a row below its caption, and returns where it ends."""

    @abc.abstractmethod
    def legend(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        """Says what the colours stand for."""

    @property
    def _across(self) -> int:
        return min(self.most_side_by_side, len(self.explained.scores))


def caption(sheet: Sheet, words: Caption, x: float, y: float, width: float, size: float) -> None:
    """The class, cut so that its score fits behind it."""
    name, score = words
    left = width - sheet.width_of(score, size) - GAP
    used = sheet.text(name, x, y, size=size, width=left)
    sheet.text(score, x + used + (GAP if name else 0), y, size=size, colour=PALE)
