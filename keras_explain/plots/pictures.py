"""Figures of explained pictures: one explanation, several methods, or the epochs of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from keras_explain.plots import render
from keras_explain.plots.explained import (
    Caption,
    ClassNames,
    Explained,
    ToImage,
    opened,
    opened_together,
    together,
)
from keras_explain.plots.sheet import PALE, Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explain.core.explanation import Explanation

Show = Literal["overlay", "map"]

# Inches.
_WIDEST = 10.0
_MARGIN = 0.15
_GAP = 0.06
_LINE = 0.2
_HEADING = 0.34
_LARGEST_CELL = 1.6
_LARGEST_EPOCH_CELL = 1.1


def plot(
    explanation: Explanation,
    *,
    to_image: ToImage = None,
    class_names: ClassNames = None,
    max_samples: int = 8,
) -> Figure:
    """Draws explained pictures: the input, its map, and the map over the input.

    A row per sample, with the explained class and its score. Where K targets were explained, the
    input and an overlay per target. One colour scale for all: to the 99.5th percentile of |map|,
    centred at zero if any value is negative.

    Args:
        explanation: An explanation of pictures.
        to_image: A function `x -> pictures` in [0, 1] or [0, 255] that undoes the preprocessing;
            without it, `render.guess_range` finds out.
        class_names: A name for each class, as a sequence or a mapping.
        max_samples: How many samples are drawn at most.

    Returns:
        A matplotlib figure. It belongs to no window: save it, or let a notebook show it.

    Raises:
        ValueError: If the explanation is not one of pictures.
    """
    rows = opened(explanation, max_samples, class_names)
    scale = _Scale.of(rows.maps)
    shows: tuple[Show, ...] = ("map", "overlay") if rows.targets == 1 else ("overlay",)
    pictures = rows.pictures(to_image)
    columns = [_Column("input", pictures[:: rows.targets])]
    for show in shows:
        drawn = scale.draw(pictures, rows.maps, show)
        for k in range(rows.targets):
            heading = show if rows.targets == 1 else ""
            mine = slice(k, None, rows.targets)
            captions = rows.captions()[mine]
            bar = scale if k == 0 else None
            columns.append(_Column(heading, drawn[mine], captions, bar, show))
    return _table(columns, title=type(explanation.explainer).__name__)


def grid(
    explanations: Mapping[str, Explanation],
    *,
    to_image: ToImage = None,
    class_names: ClassNames = None,
    max_samples: int = 8,
    show: Show = "overlay",
) -> Figure:
    """Compares methods on the same pictures: samples down, methods across.

    The first column is the input. Each method has its own colour scale. Where K targets were
    explained, a sample has K rows.

    Args:
        explanations: Method name -> its explanation; all of the same inputs.
        to_image: As in `plot`.
        class_names: As in `plot`.
        max_samples: How many samples are drawn at most.
        show: `"overlay"` draws the maps over the pictures, `"map"` draws them alone.

    Returns:
        A matplotlib figure, as of `plot`.

    Raises:
        ValueError: If there is nothing to draw, an explanation is not one of pictures, or they are
            of different inputs.
    """
    _check_show(show)
    methods = opened_together(explanations, max_samples, class_names)
    pictures = next(iter(methods.values())).pictures(to_image)
    columns = [_Column("input", pictures)]
    for name, rows in methods.items():
        scale = _Scale.of(rows.maps)
        drawn = scale.draw(pictures, rows.maps, show)
        columns.append(_Column(name, drawn, rows.captions(), scale, show))
    return _table(columns)


def epochs(
    history: Mapping[str, Sequence[tuple[int, Explanation]]],
    *,
    to_image: ToImage = None,
    class_names: ClassNames = None,
    max_samples: int = 4,
    max_steps: int = 10,
    step_name: str = "epoch",
    show: Show = "overlay",
) -> Figure:
    """Draws how explanations change in training: samples down, steps across, a band per explainer.

    The first column is the input, with the explained class below it; below each map stands the
    score of that class at that step (after the class itself where it changes). An explainer has
    one colour scale over all its steps, drawn or not, so its maps can be compared.

    Args:
        history: Explainer name -> its explanations by step, as `sinks.Memory.history()` gives it;
            all of the same inputs.
        to_image: As in `plot`.
        class_names: As in `plot`.
        max_samples: How many samples are drawn at most.
        max_steps: How many steps are drawn at most: the first, the last, and evenly between them.
        step_name: What a step is, in the headings.
        show: `"overlay"` draws the maps over the pictures, `"map"` draws them alone.

    Returns:
        A matplotlib figure, as of `plot`, at most 10 inches wide.

    Raises:
        ValueError: If there is nothing to draw, an explanation is not one of pictures, or they are
            of different inputs.
    """
    _check_show(show)
    bands = {
        name: opened_together(dict(by_step), max_samples, class_names)
        for name, by_step in history.items()
    }
    firsts = {name: next(iter(by_step.values())) for name, by_step in bands.items()}
    together(firsts)
    steps = _spread(sorted(set().union(*bands.values())), max_steps)
    pictures = next(iter(firsts.values())).pictures(to_image)
    cell = _cell_size(pictures, len(steps) + 1, _LARGEST_EPOCH_CELL)
    sheet = Sheet(_sheet_width(cell[0], len(steps) + 1))
    y = _MARGIN
    for name, by_step in bands.items():
        band = _Band(name, by_step, steps, pictures, show, step_name)
        y = band.draw(sheet, y, cell)
    return sheet.finish(y)


@dataclasses.dataclass(frozen=True)
class _Scale:
    """One colour scale."""

    limit: float
    signed: bool

    @classmethod
    def of(cls, maps: render.Maps) -> _Scale:
        return cls(render.limit_of(maps), render.is_signed(maps))

    def draw(self, pictures: render.Pictures, maps: render.Maps, show: Show) -> render.Pictures:
        if show == "map":
            return render.colorize(maps, self.limit, self.signed)
        return render.overlay(pictures, maps, self.limit, self.signed)

    def bar(self, sheet: Sheet, x: float, y: float, width: float, show: Show) -> None:
        sheet.colour_bar(x, y, width, self.limit, self.signed, mixed=show == "overlay")


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of a table of pictures."""

    heading: str
    pictures: render.Pictures  # [R, H, W, 3]
    captions: list[Caption] | None = None
    scale: _Scale | None = None
    show: Show = "overlay"


def _table(columns: list[_Column], title: str = "") -> Figure:
    """Headings, rows of pictures with their captions above, colour bars at the bottom."""
    width, height = _cell_size(columns[0].pictures, len(columns), _LARGEST_CELL)
    sheet = Sheet(_sheet_width(width, len(columns)))
    places = list(zip(columns, _lefts(width, len(columns)), strict=True))
    y = _MARGIN
    if title:
        sheet.text(title, _MARGIN, y + 0.1, size=11, bold=True, width=sheet.width - 2 * _MARGIN)
        y += _HEADING
    if any(column.heading for column in columns[1:]):
        for column, x in places:
            sheet.text(column.heading, x, y + 0.06, width=width, colour=PALE)
        y += _LINE
    for row in range(len(columns[0].pictures)):
        _caption_row(sheet, places, row, y + 0.1, width)
        y += _LINE
        for column, x in places:
            sheet.picture(column.pictures[row], x, y, width, height)
        y += height + _GAP
    for column, x in places:
        if column.scale is not None:
            column.scale.bar(sheet, x + _GAP, y + 0.08, width - 2 * _GAP, column.show)
    return sheet.finish(y + 0.16 + _MARGIN)


def _caption_row(
    sheet: Sheet, places: list[tuple[_Column, float]], row: int, y: float, width: float
) -> None:
    """Captions above a row of pictures; one for all, at the left, where they are the same."""
    captions = [(column.captions[row], x) for column, x in places if column.captions]
    if len({caption for caption, _ in captions}) == 1:
        captions = [(captions[0][0], places[0][1])]
        width = sheet.width - 2 * _MARGIN
    for caption, x in captions:
        _write_caption(sheet, caption, x, y, width, size=8)


def _write_caption(
    sheet: Sheet, caption: Caption, x: float, y: float, width: float, size: float
) -> None:
    """The class, cut so that its score fits behind it."""
    name, score = caption
    left = width - sheet.width_of(score, size) - _GAP
    used = sheet.text(name, x, y, size=size, width=left)
    sheet.text(score, x + used + (_GAP if name else 0), y, size=size, colour=PALE)


@dataclasses.dataclass(frozen=True)
class _Band:
    """One explainer on the sheet of `epochs`."""

    name: str
    by_step: Mapping[int, Explained]
    steps: list[int]  # the drawn ones
    pictures: render.Pictures  # [R, H, W, 3]
    show: Show
    step_name: str

    def draw(self, sheet: Sheet, top: float, cell: tuple[float, float]) -> float:
        """Draws heading, steps and rows, and returns where the next band begins."""
        width, height = cell
        lefts = _lefts(width, len(self.steps) + 1)
        scale = _Scale.of(np.stack([explained.maps for explained in self.by_step.values()]))
        self._heading(sheet, top, scale)
        y = top + _HEADING
        for label, x in zip(self._labels(), lefts, strict=True):
            sheet.text(label, x + width / 2, y, size=7.5, colour=PALE, align="center", width=width)
        y += 0.1
        self._column(sheet, self.pictures, self._classes(), lefts[0], y, cell)
        for step, x in zip(self.steps, lefts[1:], strict=True):
            explained = self.by_step.get(step)
            if explained is not None:
                drawn = scale.draw(self.pictures, explained.maps, self.show)
                self._column(sheet, drawn, self._scores(explained), x, y, cell)
        return y + len(self.pictures) * (height + _LINE) + _LINE

    def _heading(self, sheet: Sheet, y: float, scale: _Scale) -> None:
        inner = sheet.width - 2 * _MARGIN
        bar = min(2.0, 0.45 * inner)
        sheet.text(self.name, _MARGIN, y + 0.08, size=11, bold=True, width=inner - bar - _GAP)
        scale.bar(sheet, _MARGIN + inner - bar, y + 0.08, bar, self.show)

    def _labels(self) -> list[str]:
        first, *others = map(str, self.steps)
        return ["input", f"{self.step_name} {first}", *others]

    def _steady(self) -> list[bool]:
        """For each row, whether one class is explained at all steps."""
        classes = zip(*(explained.classes for explained in self.by_step.values()), strict=True)
        return [len(set(names)) == 1 for names in classes]

    def _classes(self) -> list[str]:
        names = next(iter(self.by_step.values())).classes
        return [name if one else "" for name, one in zip(names, self._steady(), strict=True)]

    def _scores(self, explained: Explained) -> list[str]:
        rows = zip(explained.captions(), self._steady(), strict=True)
        return [score if one else f"{name} · {score}" for (name, score), one in rows]

    @staticmethod
    def _column(
        sheet: Sheet,
        pictures: render.Pictures,
        captions: list[str],
        x: float,
        top: float,
        cell: tuple[float, float],
    ) -> None:
        width, height = cell
        for row, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            y = top + row * (height + _LINE)
            sheet.picture(picture, x, y, width, height)
            middle, below = x + width / 2, y + height + 0.09
            sheet.text(caption, middle, below, size=7, align="center", colour=PALE, width=width)


def _cell_size(pictures: render.Pictures, columns: int, largest: float) -> tuple[float, float]:
    """Width and height of a cell in a sheet that is not too wide."""
    width = min(largest, (_WIDEST - 2 * _MARGIN + _GAP) / columns - _GAP)
    return width, width * pictures.shape[1] / pictures.shape[2]


def _sheet_width(cell: float, columns: int) -> float:
    return 2 * _MARGIN + columns * (cell + _GAP) - _GAP


def _lefts(cell: float, columns: int) -> list[float]:
    return [_MARGIN + i * (cell + _GAP) for i in range(columns)]


def _spread(steps: list[int], at_most: int) -> list[int]:
    """The first, the last, and evenly between them."""
    if at_most < 1:
        raise ValueError(f"Expected `max_steps` of 1 or more. Received: {at_most}.")
    if at_most == 1:
        return steps[-1:]
    places = np.linspace(0, len(steps) - 1, min(at_most, len(steps)))
    return [steps[round(place)] for place in places]


def _check_show(show: str) -> None:
    if show not in ("overlay", "map"):
        raise ValueError(f"Expected `show` to be 'overlay' or 'map'. Received: {show!r}.")
