"""Explained token ids: the words, coloured; as a figure and as HTML."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from keras_explain.plots import render
from keras_explain.plots.explained import ClassNames, Explained, every_input, kinds_of
from keras_explain.plots.sections import Panels
from keras_explain.plots.sheet import PALE, Sheet

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation

Vocabulary = Sequence[str] | Mapping[int, str] | Callable[[int], str] | None

# Inches.
_LINE = 0.25
_BOX = 0.2
_PAD = 0.03
_SPACE = 0.02
_SIZE = 9.0  # points

_PALE = 0.65  # the share of the diverging colours that ink can be read on
_OPAQUE = 0.5  # of the HTML's colours at the limit: over black and over white


@dataclasses.dataclass(frozen=True, eq=False)
class TextSection(Panels):
    """The words of each row, on colours as pale as their values are small."""

    what: ClassVar[str] = "token ids"
    panel_width: ClassVar[float] = 7.2

    vocabulary: Vocabulary = None

    def panel(self, sheet: Sheet, row: int, x: float, y: float) -> float:
        words, values = words_of(self.explained, row, self.vocabulary)
        values = values * self.explained.reliable[row]
        colours = _pale(values, limit_of(self.explained))
        if not words:
            sheet.text("no tokens", x, y + _LINE / 2, size=_SIZE, colour=PALE)
        at, lines = 0.0, 1
        for word, colour in zip(words, colours, strict=True):
            width = min(sheet.width_of(word, _SIZE) + 2 * _PAD, self.panel_width)
            if at and at + width > self.panel_width:
                at, lines = 0.0, lines + 1
            middle = y + (lines - 0.5) * _LINE
            sheet.box(x + at, middle - _BOX / 2, width, _BOX, colour)
            room = width - 2 * _PAD + 1e-6
            sheet.text(word, x + at + _PAD, middle, size=_SIZE, width=room)
            at += width + _SPACE
        return y + lines * _LINE

    def legend(self, sheet: Sheet, x: float, y: float, width: float) -> None:
        limit = limit_of(self.explained)
        low = -limit if render.is_signed(self.explained.values) else 0.0
        ramp = np.linspace(low, limit, 257, dtype=np.float32)
        sheet.colour_bar(x, y, width, low, limit, _pale(ramp, limit))


def to_html(
    explanation: Explanation,
    *,
    vocabulary: Vocabulary = None,
    class_names: ClassNames = None,
    max_samples: int = 8,
) -> str | None:
    """Writes explained token ids as HTML: words on colours, with their values as tooltips.

    Red speaks for the class, blue against it. It has no scripts, asks nothing of the network, and
    takes the page's own text colour, so it can be read on light and on dark pages.

    Args:
        explanation: An explanation of token ids.
        vocabulary: As in `plot`.
        class_names: As in `plot`.
        max_samples: How many samples are written at most.

    Returns:
        A `<div>`, or None where there is no sample, or no input is token ids.
    """
    if not len(explanation) or "tokens" not in kinds_of(explanation):
        return None
    inputs = every_input(explanation, max_samples, class_names)
    texts = [explained for explained in inputs if explained.kind == "tokens"]
    parts = [f"<p><b>{_escaped(type(explanation.explainer).__name__)}</b></p>"]
    for text in texts:
        parts += [f"<p>{_escaped(text.name)}</p>"] if text.name else []
        parts += [_row(text, row, vocabulary) for row in range(len(text.scores))]
    left_out = [explained.name for explained in inputs if explained.kind != "tokens"]
    if left_out:
        parts.append(f"<p><small>not shown: {_escaped(', '.join(left_out))}</small></p>")
    more = len(explanation) - len(texts[0].x)
    if more:
        parts.append(f"<p><small>{more} more not shown</small></p>")
    return f'<div style="line-height:1.9;max-width:60em">{"".join(parts)}</div>'


def words_of(explained: Explained, row: int, vocabulary: Vocabulary) -> tuple[list[str], Any]:
    """The words of a row and their values `[t]`, without the padding at the end.

    Padding is id 0 with the value 0.
    """
    sample = explained.sample(row)
    ids, values = explained.x[sample], explained.values[row]
    used = np.flatnonzero((ids != 0) | (values != 0))
    length = int(used[-1]) + 1 if used.size else 0
    if vocabulary is None and explained.words is not None:
        words = [str(word) for word in explained.words[sample][:length]]
    else:
        words = [_word(int(token), vocabulary) for token in ids[:length]]
    return [_printable(word) for word in words], values[:length]


def limit_of(explained: Explained) -> float:
    """The largest |value| of all rows that can be told from zero."""
    return render.limit_of(explained.told, 100)


def _word(token: int, vocabulary: Vocabulary) -> str:
    if vocabulary is None:
        return str(token)
    if isinstance(vocabulary, Mapping):
        return str(vocabulary.get(token, token))
    if callable(vocabulary):
        return str(vocabulary(token))
    if not 0 <= token < len(vocabulary):
        raise ValueError(
            f"Expected a word for every id in `vocabulary`. Received: {len(vocabulary)} words, "
            f"and id {token}."
        )
    return str(vocabulary[token])


def _printable(word: str) -> str:
    """A word as it can be seen: escapes for what has no shape, a sign for blanks."""
    if not word.strip(" "):
        return "\N{OPEN BOX}" * max(1, len(word))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in word)


def _pale(values: Any, limit: float) -> Any:
    """Colours `[t, 3]` that ink can be read on."""
    return render.colorize(np.asarray(values)[None, None], limit / _PALE, signed=True)[0, 0]


def _row(explained: Explained, row: int, vocabulary: Vocabulary) -> str:
    words, values = words_of(explained, row, vocabulary)
    limit = (limit_of(explained) or 1.0) if explained.reliable[row] else np.inf
    name, score = explained.numbered_captions()[row]
    spans = " ".join(
        f'<span style="background-color:{_transparent(float(value) / limit)};padding:0.1em 0.2em;'
        f'border-radius:0.2em" title="{value:.4g}">{_escaped(word)}</span>'
        for word, value in zip(words, values, strict=True)
    )
    return f"<p>{_escaped(name)} <small>{score}</small><br>{spans or '<i>no tokens</i>'}</p>"


def _transparent(share: float) -> str:
    """The colour of a share of the limit, over whatever the page has."""
    if np.isnan(share):
        red, green, blue, opacity = (*render.NAN_COLOUR, _OPAQUE)
    else:
        red, green, blue = render.sign_colours()[int(share > 0)].tolist()
        opacity = _OPAQUE * min(abs(share), 1.0)
    return f"rgba({red},{green},{blue},{opacity:.3f})"


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
