"""`plot`: one explanation, each of its inputs drawn as its kind is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_explain.core.data.kinds import Kind
from keras_explain.plots.explained import (
    ClassNames,
    Explained,
    FeatureNames,
    ToImage,
    every_input,
)
from keras_explain.plots.pictures import PictureSection
from keras_explain.plots.sections import HEADING, LINE, MARGIN, Section
from keras_explain.plots.series import SeriesSection
from keras_explain.plots.sheet import PALE, Sheet
from keras_explain.plots.table import TableSection
from keras_explain.plots.text import TextSection, Vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explain.core.record.explanation import Explanation

SECTIONS: dict[Kind, type[Section]] = {
    "picture": PictureSection,
    "series": SeriesSection,
    "tokens": TextSection,
    "table": TableSection,
}  # in the order from top to bottom
_SAID: dict[str, Kind] = {
    "picture": "picture",
    "table": "table",
    "text": "tokens",
    "series": "series",
}


def plot(
    explanation: Explanation,
    kind: Literal["picture", "table", "text", "series"] | None = None,
    *,
    class_names: ClassNames = None,
    max_samples: int = 8,
    show: str | None = None,
    to_image: ToImage = None,
    keep: float | None = None,
    feature_names: FeatureNames = None,
    max_features: int | None = None,
    vocabulary: Vocabulary = None,
    max_channels: int | None = None,
) -> Figure:
    """Draws an explanation as its input is: pictures, rows of a table, text or series.

    Each sample stands with the explained class and its score; where K targets were explained, once
    for each. All samples have one scale. Of several inputs, each that has values is a section of
    the figure, with a scale of its own.

    - **Pictures**: a row of the input and, by `show`, `"overlay"`: its map, and the map over the
      input; `"map"`: the map alone; `"signed"`: what speaks for the class and what against it, in
      two flat colours, with outlines of superpixels where there are any; `"masked"`: what speaks
      most for the class, the rest grey. Colours go to the 99.5th percentile of |map|, and are
      centred at zero if any value is negative.
    - **Tables**: bars of the features with the largest |values|, and the sum of the others.
      Columns that are one feature (`extras["features"]`) have one bar.
      `show="waterfall"` leads from the base value to the score; what is missing between them is
      said to be "not attributed".
    - **Text**: the words, coloured; padding at the end (id 0 with value 0) is left out.
    - **Series**: the line of each channel, coloured. Where a time step has one value, all its
      channels have its colour.

    Whole numbers `[B, T]` are token ids, unless they have `feature_names`. Volumes are not drawn.

    Args:
        explanation: An explanation.
        kind: What the input is taken for; of several inputs, those which can't be are left out. By
            default, its shape and dtype say.
        class_names: A name for each class, as a sequence or a mapping.
        max_samples: How many samples are drawn at most.
        show: How pictures or tables are drawn, as above.
        to_image: A function `x -> pictures` in [0, 1] or [0, 255] that undoes the preprocessing;
            without it, `ranges.guess_range` finds out.
        keep: What `"masked"` and `"signed"` show: the fewest places of a picture that hold this
            share of the sum of its positive values, or of all |values|. A superpixel counts once.
            By default 0.5.
        feature_names: A name for each column of a table or channel of a series; of several inputs,
            names by the input's name.
        max_features: How many features have bars of their own at most. By default 10.
        vocabulary: The word of each id: a sequence, a mapping, or a function. By default
            `extras["tokens"]`, and else the ids.
        max_channels: How many channels of series are drawn at most, those with the largest sums of
            |values|. By default 6.

    Returns:
        A matplotlib figure. It belongs to no window: save it, or let a notebook show it.

    Raises:
        ValueError: If nothing can be drawn, or an option is given that no input has.
    """
    if kind is not None and kind not in _SAID:
        *others, last = map(repr, _SAID)
        raise ValueError(f"Expected `kind` {', '.join(others)} or {last}. Received: {kind!r}.")
    said = None if kind is None else _SAID[kind]
    inputs = every_input(explanation, max_samples, class_names, said, feature_names)
    options = {
        "show": show,
        "to_image": to_image,
        "keep": keep,
        "feature_names": feature_names,
        "max_features": max_features,
        "vocabulary": vocabulary,
        "max_channels": max_channels,
    }
    sections = _sections(inputs, {name: o for name, o in options.items() if o is not None})
    sheet = Sheet(max(section.width for section in sections))
    title = type(explanation.explainer).__name__
    sheet.text(title, MARGIN, MARGIN + 0.1, size=11, bold=True, width=sheet.width - 2 * MARGIN)
    y = MARGIN + HEADING
    for section in sections:
        if section.explained.name:
            sheet.text(section.explained.name, MARGIN, y + 0.08, size=9, bold=True)
            y += LINE + 0.05
        y = section.draw(sheet, y) + MARGIN
    return sheet.finish(_volumes_left_out(sheet, inputs, y))


def _volumes_left_out(sheet: Sheet, inputs: list[Explained], y: float) -> float:
    """Says which inputs are not drawn; where the sheet goes on."""
    for explained in inputs:
        if explained.kind == "volume":
            text = f"{explained.name}: a volume is not drawn"
            sheet.text(text, MARGIN, y, size=7, colour=PALE, width=sheet.width - 2 * MARGIN)
            y += LINE
    return y


def _sections(inputs: list[Explained], options: dict[str, Any]) -> list[Section]:
    """The inputs that can be drawn, each with the options of its kind."""
    drawn = [explained for explained in inputs if explained.kind in SECTIONS]
    if not drawn:
        raise ValueError(_volumes(inputs[0]))
    drawn.sort(key=lambda explained: list(SECTIONS).index(explained.kind))
    kinds = [SECTIONS[explained.kind] for explained in drawn]
    _check_options(kinds, options)
    return [
        section(explained, **{n: o for n, o in options.items() if _has(section, n, o)})
        for section, explained in zip(kinds, drawn, strict=True)
    ]


def _has(section: type[Section], name: str, option: Any) -> bool:
    return option in section.shows if name == "show" else name in section.options()


def _check_options(kinds: list[type[Section]], options: dict[str, Any]) -> None:
    """Raises a `ValueError` for an option that none of the kinds has."""
    of = {kind.what: kind for kind in kinds}
    for name, option in options.items():
        if any(_has(kind, name, option) for kind in kinds):
            continue
        if name == "show" and any(kind.shows for kind in kinds):
            can = "; ".join(f"of {what}: {', '.join(map(repr, k.shows))}" for what, k in of.items())
            raise ValueError(f"Expected `show` {can}. Received: {option!r}.")
        takes = "; ".join(f"{what} take {', '.join(k.options())}" for what, k in of.items())
        owners = [kind.what for kind in SECTIONS.values() if name in kind.options()]
        raise ValueError(
            f"Expected options of what is drawn: {takes}. "
            f"Received: {name}, which is an option of {' and '.join(owners)}. "
            "`kind` says what an input is taken for."
        )


def _volumes(explained: Explained) -> str:
    """What to do with volumes: the slice with the largest sum of |values|, as a picture."""
    values = np.abs(np.nan_to_num(explained.values))
    depth = int(values.sum(axis=(0, *range(2, values.ndim))).argmax())
    first = ":, " * (explained.layout.axes[0] - 1)
    channels = ", channels=(1,)" if explained.layout.channels == 2 else ""
    maps = values.ndim < explained.layout.rank
    before = ("" if explained.targets == 1 else ":, ") + ("" if maps else first)
    return (
        "Expected an input that can be drawn: pictures, rows of a table, token ids or series. "
        f"Received: volumes of shape {explained.x.shape}. Plot a slice, such as the one with the "
        f"largest |values|: `dataclasses.replace(explanation, x=explanation.x[:, {first}{depth}], "
        f"values=explanation.values[:, {before}{depth}]{channels}).plot()`."
    )
