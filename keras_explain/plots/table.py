"""Explained rows of tables: bars, or a waterfall from the base value to the score."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from keras_explain.plots import render
from keras_explain.plots.explained import Explained, FeatureNames
from keras_explain.plots.sections import GAP, LINE, Panels
from keras_explain.plots.sheet import INK, PALE, Sheet, number

# Inches.
_BAR = 0.13
_MOST_FOR_NAMES = 2.2
_SPACE = 0.04
_SIZE = 7.5  # points

_MUTED = "#c8ccd1"  # of bars that are below float precision

_LEAST_GAP = 0.01  # of the largest step of a waterfall: a smaller one is rounding


class Feature(NamedTuple):
    """A column, or columns that go together."""

    name: str
    given: str  # the value of the feature; "" of what has none
    value: float


class _Line(NamedTuple):
    """A line of a panel: a bar from one number to another, in the units of the score."""

    name: str
    given: str
    start: float
    end: float
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class TableSection(Panels):
    """A bar for each feature of a row, the largest first."""

    what: ClassVar[str] = "rows of a table"
    shows: ClassVar[tuple[str, ...]] = ("bar", "waterfall")
    panel_width: ClassVar[float] = 4.8
    most_side_by_side: ClassVar[int] = 2

    feature_names: FeatureNames = None
    max_features: int = 10
    show: Literal["bar", "waterfall"] = "bar"

    def __post_init__(self) -> None:
        if self.max_features < 1:
            raise ValueError(
                f"Expected `max_features` of 1 or more. Received: {self.max_features}."
            )
        names = names_of(self.feature_names, self.explained.name)
        columns = self.explained.x[0].size
        if names is not None and len(names) != columns:
            raise ValueError(
                f"Expected a name for each of the {columns} columns in `feature_names`. "
                f"Received: {len(names)}."
            )
        if self.show == "waterfall" and self.explained.base_values is None:
            raise ValueError(
                "Expected an explanation that starts at a base value for show='waterfall': its "
                "extras have 'base_values' where the values sum to score - base value, as those of "
                "IntegratedGradients, DeepLIFT, GradientSHAP or KernelSHAP do. Received: one "
                "without. show='bar' draws any explanation."
            )

    def features(self, row: int) -> list[Feature]:
        """What is explained of a row: the largest features, and the sum of all others."""
        every = sorted(self._features(row), key=lambda feature: -_size(feature.value))
        shown, others = every[: self.max_features], every[self.max_features :]
        if others:
            word = "feature" if len(others) == 1 else "features"
            total = sum(_finite(feature.value) for feature in others)
            shown.append(Feature(f"{len(others)} other {word}", "", total))
        return shown

    def panel(self, sheet: Sheet, row: int, x: float, y: float) -> float:
        colours: Any = render.sign_colours() if self.explained.reliable[row] else [_MUTED] * 2
        for place, line in enumerate(self._lines[row]):
            middle = y + (place + 0.5) * LINE
            self._name(sheet, line, x, middle)
            left, right = sorted(self._at(np.array([line.start, line.end]), x))
            if line.start == line.end:
                sheet.box(left - 0.005, middle - _BAR / 2, 0.01, _BAR, PALE)
            else:
                colour = colours[int(line.end > line.start)]
                sheet.box(left, middle - _BAR / 2, right - left, _BAR, colour)
            negative = line.end < line.start
            at, align = (left - GAP, "right") if negative else (right + GAP, "left")
            sheet.text(line.text, at, middle, size=_SIZE - 1, colour=PALE, align=align)
        bottom = y + len(self._lines[row]) * LINE
        self._guides(sheet, row, x, y)
        return bottom

    def legend(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        lower, raised = render.sign_colours()
        keys = [(lower, "lowers the score"), (raised, "raises the score")]
        if not self.explained.is_signed:
            keys = [(raised, "how much it matters")]
        sheet.key(x, y, width, keys)

    def _features(self, row: int) -> list[Feature]:
        sample = self.explained.sample(row)
        x, values = self.explained.x[sample].reshape(-1), self.explained.values[row].reshape(-1)
        names = names_of(self.feature_names, self.explained.name)
        names = [f"feature {i}" for i in range(len(x))] if names is None else names
        groups = self.explained.features
        numbers = np.arange(len(x)) if groups is None else groups[row].reshape(-1)
        features = []
        for group in dict.fromkeys(numbers[numbers >= 0].tolist()):
            columns = np.flatnonzero(numbers == group)
            shown = columns if self.feature_names is None else _category(x, columns)
            name = ", ".join(str(names[i]) for i in shown)
            given = ", ".join(_given(x[i]) for i in shown) if len(shown) == len(columns) else ""
            features.append(Feature(name, given, float(values[columns[0]])))
        return features

    @functools.cached_property
    def _lines(self) -> list[list[_Line]]:
        """The lines of each panel."""
        rows = range(len(self.explained.scores))
        spelled = _signed if self.explained.is_signed else number
        if self.show == "waterfall":
            return [_waterfall(self.explained, row, self.features(row)) for row in rows]
        return [
            [_Line(f.name, f.given, 0.0, _finite(f.value), spelled(f.value)) for f in features]
            for features in map(self.features, rows)
        ]

    @functools.cached_property
    def _names_width(self) -> float:
        widths = [
            Sheet.width_of(line.name, _SIZE) + _SPACE + Sheet.width_of(_equals(line), _SIZE)
            for panel in self._lines
            for line in panel
        ]
        return min(max(widths), _MOST_FOR_NAMES) + 2 * GAP

    @functools.cached_property
    def _span(self) -> tuple[float, float, float, float]:
        """Where bars begin and end in a panel, and which numbers stand there: one for all."""
        lines = [line for panel in self._lines for line in panel]
        ends = [end for line in lines for end in (line.start, line.end)]
        room = GAP + max(Sheet.width_of(line.text, _SIZE - 1) for line in lines)
        falling = any(line.end < line.start for line in lines)
        left = self._names_width + (room if falling else 0.0)
        return left, self.panel_width - room, min(ends), max(ends)

    def _at(self, numbers: Any, x: float) -> Any:
        """Where numbers stand in a panel at `x`."""
        left, right, low, high = self._span
        return x + left + (numbers - low) / ((high - low) or 1.0) * (right - left)

    def _name(self, sheet: Sheet, line: _Line, x: float, y: float) -> None:
        """The name of a feature, cut so that its value fits behind it."""
        width, given = self._names_width - GAP, _equals(line)
        room = sheet.width_of(given, _SIZE) + _SPACE
        used = sheet.text(line.name, x, y, size=_SIZE, width=max(width - room, width / 2)) + _SPACE
        if given:
            sheet.text(given, x + used, y, size=_SIZE, colour=PALE, width=width - used)

    def _guides(self, sheet: Sheet, row: int, x: float, y: float) -> None:
        """The line at zero; in a waterfall, thin lines from each bar to the next."""
        lines = self._lines[row]
        if self.show == "bar":
            zero = float(self._at(0.0, x))
            sheet.lines([[(zero, y), (zero, y + len(lines) * LINE)]], [INK])
            return
        ends = [
            (float(self._at(line.end, x)), y + (i + 0.5) * LINE) for i, line in enumerate(lines)
        ]
        steps = [[(at, middle), (at, middle + LINE)] for at, middle in ends[:-1]]
        sheet.lines(steps, [PALE] * len(steps), width=0.4)


def names_of(names: FeatureNames, of: str) -> Any:
    """The names for one of several inputs, where they are given by input."""
    return names.get(of) if isinstance(names, Mapping) else names


def _waterfall(explained: Explained, row: int, features: list[Feature]) -> list[_Line]:
    """From the base value to the score; what no feature of this input has is said apart."""
    assert explained.base_values is not None
    base, score = float(explained.base_values[row]), float(explained.scores[row])
    steps = [*features]
    if explained.elsewhere is not None:
        steps.append(Feature("other inputs", "", float(explained.elsewhere[row])))
    missing = score - base - sum(_finite(step.value) for step in steps)
    if abs(missing) > _LEAST_GAP * max((_size(step.value) for step in steps), default=0.0):
        steps.append(Feature("not attributed", "", missing))
    lines, at = [_Line("base value", "", base, base, number(base))], base
    for step in steps:
        end = at + _finite(step.value)
        lines.append(_Line(step.name, step.given, at, end, _signed(step.value)))
        at = end
    return [*lines, _Line("score", "", score, score, number(score))]


def _category(x: Any, columns: Any) -> Any:
    """Of one-hot columns the one that is 1, whose name says all; of others, all."""
    numbers = x[columns]
    one_hot = len(columns) > 1 and np.isin(numbers, (0, 1)).all() and numbers.sum() == 1
    return columns[numbers == 1] if one_hot else columns


def _equals(line: _Line) -> str:
    return f"= {line.given}" if line.given else ""


def _given(value: Any) -> str:
    """The value of a feature: whole numbers as they are."""
    if value.dtype.kind == "f":
        whole = np.isfinite(value) and value == np.rint(value) and abs(value) < 1e6
        return number(value) if not whole else f"{value:.0f}".replace("-", "\N{MINUS SIGN}")
    return str(value).replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _size(value: float) -> float:
    return abs(_finite(value))
