"""The pictures that are logged: the input, and the map over it."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt

from keras_explain.plots import notes, render
from keras_explain.sinks.base import Record

GAP = 4  # pixels between the two
AT_LEAST = 128  # pixels that the longer side of each has at least
WHITE = 255
INK = (31, 35, 40)
LINE_LENGTH = 11  # characters, for which even narrow pictures have room
SMALLEST = 10  # pixels of the words


def pairs(record: Record) -> npt.NDArray[np.uint8] | None:
    """Draws a picture per sample: the input at the left, the map over it at the right.

    All samples share one colour scale, `record.limit`. In place of a map that can't be told from
    zero, the right side is pale, with words that say so.

    Args:
        record: A record.

    Returns:
        Pictures `[B, h, 2 * w + GAP, 3]`, where `h` and `w` are the input's size times a whole
        number; `None` if the record has no pictures.
    """
    if record.pictures is None or record.maps is None:
        return None
    mapped = render.overlay(record.pictures, record.maps, record.limit, signed=record.signed)
    left, right = (render.enlarge(side, AT_LEAST) for side in (record.pictures, mapped))
    for sample in np.flatnonzero(~record.reliable) if record.reliable is not None else ():
        words = notes.unreliable(record.maps[sample])
        right[sample] = _written(render.faded(left[sample : sample + 1])[0], words)
    gap = np.full((*left.shape[:2], GAP, 3), WHITE, np.uint8)
    return np.concatenate([left, gap, right], axis=2)


def _written(picture: npt.NDArray[np.uint8], words: str) -> npt.NDArray[np.uint8]:
    """A picture `[h, w, 3]` with dark words in its middle."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    lines = "\n".join(textwrap.wrap(words, LINE_LENGTH))
    draw, (height, width) = ImageDraw.Draw(image), picture.shape[:2]
    size = max(SMALLEST, width // (2 * LINE_LENGTH))
    draw.multiline_text(
        (width / 2, height / 2), lines, INK, anchor="mm", align="center", font_size=size
    )
    return np.asarray(image)
