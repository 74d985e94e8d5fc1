"""Explained series: lines coloured by attribution."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
from matplotlib.ticker import MaxNLocator

from keras_explain.plots import render
from keras_explain.plots.explained import FeatureNames
from keras_explain.plots.sections import GAP, LINE, Panels
from keras_explain.plots.sheet import PALE, Sheet, number
from keras_explain.plots.table import names_of

# Inches.
_STRIP = 0.75
_STRIP_OF_SEVERAL = 0.5
_DASH = 0.1
_MOST_FOR_NAMES = 1.2
_SIZE = 6.5  # points
_LINE_WIDTH = 2.0  # points
_GREY = 120  # of the line where nothing is attributed


@dataclasses.dataclass(frozen=True, eq=False)
class SeriesSection(Panels):
    """A strip for each channel of a row, over one axis of time."""

    what: ClassVar[str] = "series"
    panel_width: ClassVar[float] = 7.2

    feature_names: FeatureNames = None
    max_channels: int = 6

    def __post_init__(self) -> None:
        if self.max_channels < 1:
            raise ValueError(
                f"Expected `max_channels` of 1 or more. Received: {self.max_channels}."
            )
        names = names_of(self.feature_names, self.explained.name)
        if names is not None and len(names) != self._x.shape[2]:
            raise ValueError(
                f"Expected a name for each of the {self._x.shape[2]} channels in `feature_names`. "
                f"Received: {len(names)}."
            )

    @property
    def channels(self) -> list[int]:
        """Those which are drawn: with the largest sums of |value| over all rows, in order."""
        sizes = np.abs(np.nan_to_num(self._values)).sum(axis=(0, 1), dtype=np.float64)
        return sorted(np.argsort(-sizes, kind="stable")[: self.max_channels].tolist())

    def panel(self, sheet: Sheet, row: int, x: float, y: float) -> float:
        left, width = x + self._left, self.panel_width - self._left
        height = _STRIP if len(self.channels) == 1 else _STRIP_OF_SEVERAL
        for channel in self.channels:
            self._strip(sheet, row, channel, (left, y, width, height))
            name = self._names[channel]
            sheet.text(name, x, y + height / 2, size=7.5, width=_MOST_FOR_NAMES, colour=PALE)
            y += height + GAP
        return self._time(sheet, left, y, width)

    def legend(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        limit = self._limit
        low = -limit if render.is_signed(self._values) else 0.0
        ramp = np.linspace(low, limit, 257, dtype=np.float32)
        sheet.colour_bar(x, y, width, low, limit, self._colours(ramp))
        others = self._x.shape[2] - len(self.channels)
        if others:
            text = f"{others} other {'channel' if others == 1 else 'channels'} not drawn"
            sheet.text(text, x + width + 4 * GAP, y, size=_SIZE, colour=PALE)

    @functools.cached_property
    def _x(self) -> Any:
        """`[n, T, C]`."""
        x = np.asarray(self.explained.x, np.float64)
        return x if x.ndim == 3 else x[..., None]

    @functools.cached_property
    def _values(self) -> Any:
        """`[n * K, T, C]`; those of a time step are of all its channels."""
        values = self.explained.values
        values = values if values.ndim == 3 else values[..., None]
        return np.broadcast_to(values, (*values.shape[:2], self._x.shape[2]))

    @functools.cached_property
    def _limit(self) -> float:
        return render.limit_of(self._values[self.explained.reliable])

    @functools.cached_property
    def _names(self) -> list[str]:
        names = names_of(self.feature_names, self.explained.name)
        if names is not None:
            return [str(name) for name in names]
        count = self._x.shape[2]
        return [""] if count == 1 else [f"channel {i}" for i in range(count)]

    @functools.cached_property
    def _left(self) -> float:
        """The room for names and for the numbers of the vertical axes."""
        names = max(Sheet.width_of(self._names[channel], 7.5) for channel in self.channels)
        ends = [number(end) for channel in self.channels for end in self._ends(channel)]
        numbers = max(Sheet.width_of(end, _SIZE) for end in ends)
        return min(names, _MOST_FOR_NAMES) + numbers + 3 * GAP

    def _ends(self, channel: int) -> tuple[float, float]:
        """The least and the greatest number of a channel in all samples."""
        x = self._x[..., channel]
        finite = x[np.isfinite(x)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

    def _strip(self, sheet: Sheet, row: int, channel: int, box: tuple[float, ...]) -> None:
        left, top, width, height = box
        low, high = self._ends(channel)
        x = self._x[self.explained.sample(row), :, channel]
        across = left + width * _shares(len(x))
        down = top + height * (1 - (x - low) / (high - low) if high > low else 0.5 + 0 * x)
        colours = self._colours(self._values[row, :, channel] * self.explained.reliable[row])
        sheet.lines(around(np.stack([across, down], axis=1)), colours, _LINE_WIDTH)
        for end, at in ((high, top + 0.04), (low, top + height - 0.04)):
            sheet.text(number(end), left - 1.5 * GAP, at, size=_SIZE, colour=PALE, align="right")
        frame = [[(left - GAP, top), (left - GAP, top + height)]]
        sheet.lines(frame, [PALE], width=0.4)

    def _time(self, sheet: Sheet, left: float, y: float, width: float) -> float:
        """The axis of time below the strips: its ticks, by number of the time step."""
        last = self._x.shape[1] - 1
        sheet.lines([[(left, y), (left + width, y)]], [PALE], width=0.4)
        steps = np.asarray(MaxNLocator(8, integer=True).tick_values(0, last))
        for step in steps[(steps >= 0) & (steps <= last)]:
            at = left + width * (step / last if last else 0.0)
            sheet.lines([[(at, y), (at, y + 0.03)]], [PALE], width=0.4)
            sheet.text(f"{step:.0f}", at, y + 0.1, size=_SIZE, colour=PALE, align="center")
        sheet.text("time", left - 2 * GAP, y + 0.1, size=_SIZE, colour=PALE, align="right")
        return y + LINE

    def _colours(self, values: Any) -> Any:
        """Grey at zero, `[T, 3]`."""
        values = np.asarray(values)[None, None]
        grey = np.full((*values.shape, 3), _GREY, np.uint8)
        return render.overlay(grey, values, self._limit, signed=True)[0, 0]


def around(points: Any) -> Any:
    """For each point `[T, 2]` the piece of line around it, from middle to middle, `[T, 3, 2]`.

    A single point is a dash.
    """
    middles = (points[1:] + points[:-1]) / 2
    dash = (_DASH, 0.0) if len(points) == 1 else (0.0, 0.0)
    before = np.concatenate([points[:1], middles])
    after = np.concatenate([middles, points[-1:] + dash])
    return np.stack([before, points, after], axis=1)


def _shares(count: int) -> Any:
    return np.arange(count) / max(count - 1, 1)
