"""Explained pictures: one explanation, several methods, or the epochs of a training."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from keras_explain.plots import render
from keras_explain.plots.explained import (
    Caption,
    ClassNames,
    Explained,
    ToImage,
    opened_together,
    together,
)
from keras_explain.plots.sections import GAP, HEADING, LINE, MARGIN, Section, caption
from keras_explain.plots.sheet import PALE, Sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explain.core.record.explanation import Explanation

Show = Literal["overlay", "map", "signed", "masked"]
SHOWS = ("overlay", "map", "signed", "masked")

# Inches.
_WIDEST = 10.0
_LARGEST_CELL = 1.6
_LARGEST_EPOCH_CELL = 1.1
_NOTE_LINE = 0.12
_NOTE_LENGTH = 11  # characters in a line

_DRAWN_SIDE = 256  # pixels that outlines are drawn among, at least


@dataclasses.dataclass(frozen=True, eq=False)
class PictureSection(Section):
    """A row of pictures for each sample: the input, and what `show` makes of it for each target."""

    what: ClassVar[str] = "pictures"
    shows: ClassVar[tuple[str, ...]] = SHOWS

    to_image: ToImage = None
    show: Show = "overlay"
    keep: float = 0.5

    def __post_init__(self) -> None:
        check_keep(self.keep)

    @property
    def width(self) -> float:
        return _sheet_width(self._cell[0], len(self._columns))

    def draw(self, sheet: Sheet, top: float) -> float:
        return _table(sheet, top, self._columns, self._cell)

    @property
    def _cell(self) -> tuple[float, float]:
        return _cell_size(self._columns[0].pictures, len(self._columns), _LARGEST_CELL)

    @functools.cached_property
    def _columns(self) -> list[_Column]:
        rows, one = self.explained, self.explained.targets == 1
        with_map = one and self.show == "overlay"
        shows: tuple[Show, ...] = ("map", "overlay") if with_map else (self.show,)
        pictures = rows.pictures(self.to_image)
        columns = [_Column("input", pictures[:: rows.targets])]
        for show in shows:
            look = _Look(_Scale.of(rows.told_maps), show, self.keep)
            drawn = look.draw(pictures, rows)
            for k in range(rows.targets):
                mine = slice(k, None, rows.targets)
                heading, legend = show if one else "", look if k == 0 else None
                captions, notes = rows.captions()[mine], rows.notes()[mine]
                columns.append(_Column(heading, drawn[mine], captions, notes, legend))
        return columns


def grid(
    explanations: Mapping[str, Explanation],
    *,
    to_image: ToImage = None,
    class_names: ClassNames = None,
    max_samples: int = 8,
    show: Show = "overlay",
    keep: float = 0.5,
) -> Figure:
    """Compares methods on the same pictures: samples down, methods across.

    The first column is the input. Each method has its own colour scale. Where K targets were
    explained, a sample has K rows.

    Args:
        explanations: Method name -> its explanation; all of the same inputs.
        to_image: As in `plot`.
        class_names: As in `plot`.
        max_samples: How many samples are drawn at most.
        show: As in `plot`.
        keep: As in `plot`.

    Returns:
        A matplotlib figure, as of `plot`.

    Raises:
        ValueError: If there is nothing to draw, an explanation is not one of pictures, or they are
            of different inputs.
    """
    check_show(show)
    check_keep(keep)
    methods = opened_together(explanations, max_samples, class_names)
    pictures = next(iter(methods.values())).pictures(to_image)
    columns = [_Column("input", pictures)]
    for name, rows in methods.items():
        look = _Look(_Scale.of(rows.told_maps), show, keep)
        drawn = look.draw(pictures, rows)
        columns.append(_Column(name, drawn, rows.captions(), rows.notes(), look))
    cell = _cell_size(pictures, len(columns), _LARGEST_CELL)
    sheet = Sheet(_sheet_width(cell[0], len(columns)))
    return sheet.finish(_table(sheet, MARGIN, columns, cell) + MARGIN)


def epochs(
    history: Mapping[str, Sequence[tuple[int, Explanation]]],
    *,
    to_image: ToImage = None,
    class_names: ClassNames = None,
    max_samples: int = 4,
    max_steps: int = 10,
    step_name: str = "epoch",
    show: Show = "overlay",
    keep: float = 0.5,
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
        show: As in `plot`.
        keep: As in `plot`.

    Returns:
        A matplotlib figure, as of `plot`, at most 10 inches wide.

    Raises:
        ValueError: If there is nothing to draw, an explanation is not one of pictures, or they are
            of different inputs.
    """
    check_show(show)
    check_keep(keep)
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
    y = MARGIN
    for name, by_step in bands.items():
        band = _Band(name, by_step, steps, pictures, show, keep, step_name)
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


@dataclasses.dataclass(frozen=True)
class _Look:
    """How maps are shown."""

    scale: _Scale
    show: Show
    keep: float

    def draw(self, pictures: render.Pictures, rows: Explained) -> render.Pictures:
        """The maps; pale grey takes the place of those that can't be told from zero."""
        drawn = self._drawn(pictures, rows)
        if not rows.reliable.all():
            below = render.enlarge(pictures, max(drawn.shape[1:3]))[~rows.reliable]
            below = np.full_like(below, 255) if self.show == "map" else below
            drawn[~rows.reliable] = render.faded(below)
        return drawn

    def _drawn(self, pictures: render.Pictures, rows: Explained) -> render.Pictures:
        limit, signed = self.scale.limit, self.scale.signed
        if self.show == "map":
            return render.colorize(rows.maps, limit, signed)
        if self.show == "overlay":
            return render.overlay(pictures, rows.maps, limit, signed)
        large = render.enlarge(pictures, _DRAWN_SIDE)
        maps = render.enlarge(rows.maps, _DRAWN_SIDE)
        features = rows.features
        features = None if features is None else render.enlarge(features, _DRAWN_SIDE)
        draw = render.masked if self.show == "masked" else render.pros_and_cons
        return draw(large, maps, self.keep, features)

    def legend(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        """Says what the colours stand for."""
        if self.show == "masked":
            text = f"{self.keep:.0%} of what speaks for it"
            sheet.text(text, x, y, size=6.5, colour=PALE, width=width)
        elif self.show == "signed":
            sheet.key(
                x, y, width, list(zip(render.sign_colours(), ("against", "for"), strict=True))
            )
        else:
            self._bar(sheet, x, y, width)

    def _bar(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        """The colour bar; over grey where overlays show the colours so."""
        limit, signed = self.scale.limit, self.scale.signed
        low = -limit if signed else 0.0
        ramp = np.linspace(low, limit, 257, dtype=np.float32)[None, None]
        colours = render.colorize(ramp, limit, signed)
        if self.show == "overlay":
            colours = render.overlay(np.full_like(colours, 128), ramp, limit, signed)
        sheet.colour_bar(x, y, width, low, limit, colours[0, 0])


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of a table of pictures."""

    heading: str
    pictures: render.Pictures  # [R, H, W, 3]
    captions: list[Caption] | None = None
    notes: list[str] | None = None
    look: _Look | None = None


def _table(sheet: Sheet, y: float, columns: list[_Column], cell: tuple[float, float]) -> float:
    """Headings, rows of pictures with their captions above, colour bars at the bottom."""
    width, height = cell
    places = list(zip(columns, _lefts(width, len(columns)), strict=True))
    if any(column.heading for column in columns[1:]):
        for column, x in places:
            sheet.text(column.heading, x, y + 0.06, width=width, colour=PALE)
        y += LINE
    for row in range(len(columns[0].pictures)):
        _caption_row(sheet, places, row, y + 0.1, width)
        y += LINE
        for column, x in places:
            sheet.picture(column.pictures[row], x, y, width, height)
            _note(sheet, column.notes[row] if column.notes else "", x, y, cell)
        y += height + GAP
    for column, x in places:
        if column.look is not None:
            column.look.legend(sheet, x + GAP, y + 0.08, width - 2 * GAP)
    return y + 0.16


def _note(sheet: Sheet, note: str, x: float, y: float, cell: tuple[float, float]) -> None:
    """Words in the middle of a picture."""
    width, height = cell
    lines = textwrap.wrap(note, _NOTE_LENGTH)
    for place, line in enumerate(lines):
        middle = y + height / 2 + (place - (len(lines) - 1) / 2) * _NOTE_LINE
        sheet.text(line, x + width / 2, middle, size=7, align="center", width=width)


def _caption_row(
    sheet: Sheet, places: list[tuple[_Column, float]], row: int, y: float, width: float
) -> None:
    """Captions above a row of pictures; one for all, at the left, where they are the same."""
    captions = [(column.captions[row], x) for column, x in places if column.captions]
    if len({words for words, _ in captions}) == 1:
        captions = [(captions[0][0], places[0][1])]
        width = sheet.width - 2 * MARGIN
    for words, x in captions:
        caption(sheet, words, x, y, width, size=8)


@dataclasses.dataclass(frozen=True)
class _Band:
    """One explainer on the sheet of `epochs`."""

    name: str
    by_step: Mapping[int, Explained]
    steps: list[int]  # the drawn ones
    pictures: render.Pictures  # [R, H, W, 3]
    show: Show
    keep: float
    step_name: str

    def draw(self, sheet: Sheet, top: float, cell: tuple[float, float]) -> float:
        """Draws heading, steps and rows, and returns where the next band begins."""
        width, height = cell
        lefts = _lefts(width, len(self.steps) + 1)
        scale = _Scale.of(
            np.concatenate([explained.told_maps for explained in self.by_step.values()])
        )
        look = _Look(scale, self.show, self.keep)
        self._heading(sheet, top, look)
        y = top + HEADING
        for label, x in zip(self._labels(), lefts, strict=True):
            sheet.text(label, x + width / 2, y, size=7.5, colour=PALE, align="center", width=width)
        y += 0.1
        blank = [""] * len(self.pictures)
        self._column(sheet, self.pictures, self._classes(), blank, lefts[0], y, cell)
        for step, x in zip(self.steps, lefts[1:], strict=True):
            explained = self.by_step.get(step)
            if explained is not None:
                drawn = look.draw(self.pictures, explained)
                scores, notes = self._scores(explained), explained.notes()
                self._column(sheet, drawn, scores, notes, x, y, cell)
        return y + len(self.pictures) * (height + LINE) + LINE

    def _heading(self, sheet: Sheet, y: float, look: _Look) -> None:
        inner = sheet.width - 2 * MARGIN
        bar = min(2.0, 0.45 * inner)
        sheet.text(self.name, MARGIN, y + 0.08, size=11, bold=True, width=inner - bar - GAP)
        look.legend(sheet, MARGIN + inner - bar, y + 0.08, bar)

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
        notes: list[str],
        x: float,
        top: float,
        cell: tuple[float, float],
    ) -> None:
        width, height = cell
        rows = zip(pictures, captions, notes, strict=True)
        for row, (picture, words, note) in enumerate(rows):
            y = top + row * (height + LINE)
            sheet.picture(picture, x, y, width, height)
            _note(sheet, note, x, y, cell)
            middle, below = x + width / 2, y + height + 0.09
            sheet.text(words, middle, below, size=7, align="center", colour=PALE, width=width)


def _cell_size(pictures: render.Pictures, columns: int, largest: float) -> tuple[float, float]:
    """Width and height of a cell in a sheet that is not too wide."""
    width = min(largest, (_WIDEST - 2 * MARGIN + GAP) / columns - GAP)
    return width, width * pictures.shape[1] / pictures.shape[2]


def _sheet_width(cell: float, columns: int) -> float:
    return 2 * MARGIN + columns * (cell + GAP) - GAP


def _lefts(cell: float, columns: int) -> list[float]:
    return [MARGIN + i * (cell + GAP) for i in range(columns)]


def _spread(steps: list[int], at_most: int) -> list[int]:
    """The first, the last, and evenly between them."""
    if at_most < 1:
        raise ValueError(f"Expected `max_steps` of 1 or more. Received: {at_most}.")
    if at_most == 1:
        return steps[-1:]
    places = np.linspace(0, len(steps) - 1, min(at_most, len(steps)))
    return [steps[round(place)] for place in places]


def check_show(show: str) -> None:
    """Raises a `ValueError` where pictures can't be shown so."""
    if show not in SHOWS:
        *others, last = map(repr, SHOWS)
        expected = f"{', '.join(others)} or {last}"
        raise ValueError(f"Expected `show` of pictures to be {expected}. Received: {show!r}.")


def check_keep(keep: float) -> None:
    """Raises a `ValueError` where `keep` is no share."""
    if not 0 < keep <= 1:
        raise ValueError(f"Expected `keep` above 0, and 1 at most. Received: {keep}.")
