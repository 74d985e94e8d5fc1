"""The pictures that are logged: the input, and the map over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keras_explain.plots import render
from keras_explain.sinks.base import Record

GAP = 4  # pixels between the two
AT_LEAST = 128  # pixels that the longer side of each has at least
WHITE = 255


def pairs(record: Record) -> npt.NDArray[np.uint8] | None:
    """Draws a picture per sample: the input at the left, the map over it at the right.

    All samples share one colour scale, `record.limit`.

    Args:
        record: A record.

    Returns:
        Pictures `[B, h, 2 * w + GAP, 3]`, where `h` and `w` are the input's size times a whole
        number; `None` if the record has no pictures.
    """
    if record.pictures is None:
        return None
    mapped = render.overlay(record.pictures, record.maps, record.limit, signed=record.signed)
    left, right = (render.enlarge(side, AT_LEAST) for side in (record.pictures, mapped))
    gap = np.full((*left.shape[:2], GAP, 3), WHITE, np.uint8)
    return np.concatenate([left, gap, right], axis=2)
