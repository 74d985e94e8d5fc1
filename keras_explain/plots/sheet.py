"""A sheet of paper measured in inches, on which the plots lay pictures and text.

One matplotlib axes holds everything: hundreds of pictures as axes of their own take ten times as
long to set up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

INK = "#1f2328"
PALE = "#6e7781"

_BAR_HEIGHT = 0.08
_SPACE = 0.05
_POINTS = 72  # in an inch


class SheetFigure(Figure):
    """A figure that notebooks show by themselves, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        import io

        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


class Sheet:
    """Pictures and text at places given in inches from the top left corner."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._figure = SheetFigure(figsize=(width, 1), dpi=144, facecolor="white")
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.axis("off")

    def picture(self, picture: Any, x: float, y: float, width: float, height: float) -> None:
        """Lays a picture `[H, W, 3]` into a box, as large as it fits, in its middle."""
        rows, columns = picture.shape[:2]
        scale = min(width / columns, height / rows)
        w, h = columns * scale, rows * scale
        self._image(picture, x + (width - w) / 2, y + (height - h) / 2, w, h)

    def text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        size: float = 8,
        width: float = np.inf,
        colour: str = INK,
        align: str = "left",
        bold: bool = False,
    ) -> float:
        """Writes one line with its middle at `y`, shortened to `width`, and returns its width."""
        font = FontProperties(size=size, weight="bold" if bold else "normal")
        text, used = shortened(text, font, width)
        self._axes.text(
            x, y, text, font=font, color=colour, ha=align, va="center_baseline", parse_math=False
        )
        return used

    @staticmethod
    def width_of(text: str, size: float) -> float:
        """The width of a line in inches."""
        return _width(text, FontProperties(size=size))

    def colour_bar(
        self, x: float, y: float, width: float, low: float, high: float, colours: Any
    ) -> None:
        """Draws a bar of colours `[N, 3]` between its two numbers."""
        left = self.text(number(low, 2), x, y, size=6.5, colour=PALE) + _SPACE
        right = self.text(number(high, 2), x + width, y, size=6.5, colour=PALE, align="right")
        inner = width - left - right - _SPACE
        self._image(np.asarray(colours)[None], x + left, y - _BAR_HEIGHT / 2, inner, _BAR_HEIGHT)

    def key(self, x: float, y: float, width: float, entries: Any) -> None:
        """Explains flat colours: a box and its word for each of `(colour, word)`, side by side."""
        each = width / len(entries)
        for place, (colour, word) in enumerate(entries):
            left = x + place * each
            self.box(left, y - _BAR_HEIGHT / 2, _BAR_HEIGHT, _BAR_HEIGHT, colour)
            after = _BAR_HEIGHT + _SPACE
            self.text(word, left + after, y, size=6.5, colour=PALE, width=each - after - _SPACE)

    def box(self, x: float, y: float, width: float, height: float, colour: Any) -> None:
        """Fills a box with a colour, a name or `[3]` of 0..255."""
        self._axes.add_artist(Rectangle((x, y), width, height, color=_colour(colour), linewidth=0))

    def lines(self, lines: Any, colours: Any, width: float = 0.7) -> None:
        """Draws lines `[N, points, 2]`, each in one of the colours, `width` points wide."""
        colours = [_colour(colour) for colour in colours]
        self._axes.add_collection(
            LineCollection(list(lines), colors=colours, linewidths=width, capstyle="round"),
            autolim=False,
        )

    def finish(self, height: float) -> Figure:
        """Cuts the sheet to its height."""
        self._axes.set(xlim=(0, self.width), ylim=(height, 0))
        self._figure.set_size_inches(self.width, height)
        return self._figure

    def _image(self, picture: Any, x: float, y: float, width: float, height: float) -> None:
        extent = (x, x + width, y + height, y)
        self._axes.imshow(picture, extent=extent, aspect="auto", interpolation="antialiased")


def shortened(text: str, font: FontProperties, width: float) -> tuple[str, float]:
    """Cuts a text to a width in inches, with an ellipsis; returns it and the width it takes."""
    used = _width(text, font)
    kept = text
    while used > width and kept:
        kept = kept[: min(len(kept) - 1, int(len(kept) * width / used) + 1)]
        text = kept.rstrip() + "…"
        used = _width(text, font)
    return text, used


def number(value: float, digits: int = 3) -> str:
    """A number in about so many digits, with a true minus sign."""
    value = float(value)
    if value == 0:
        return "0"
    plain = 10 ** (digits - 1) <= abs(value) < 1e6
    text = f"{value:.0f}" if plain else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", "\N{MINUS SIGN}")


def _colour(colour: Any) -> Any:
    return colour if isinstance(colour, str) else tuple(np.asarray(colour) / 255)


def _width(text: str, font: FontProperties) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / _POINTS
