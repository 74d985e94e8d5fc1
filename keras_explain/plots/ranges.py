"""Model inputs back into pictures, undoing the usual preprocessing.

The decision is made once for a batch, never for each of its pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.data.layout import Layout

Pictures = npt.NDArray[np.uint8]  # [B, H, W, 3]

_SLACK = 0.05  # resampling overshoots a range by about this share of it


@dataclasses.dataclass(frozen=True)
class _Range:
    """A preprocessing that `x * scale + shift` undoes, giving a picture in [0, 1]."""

    scale: Any = 1.0  # a number, or one for each channel
    shift: Any = 0.0
    least: float = 0.0  # what |x| must reach somewhere, else x is of a smaller range
    reverse: bool = False  # blue comes first

    def undo(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        unit = x * np.float32(self.scale) + np.float32(self.shift)
        return unit[..., ::-1] if self.reverse else unit

    def fits(self, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> bool:
        if np.size(self.shift) not in (1, len(low)):
            return False
        unit = self.undo(np.stack([low, high]))
        inside = (unit >= -_SLACK).all() and (unit <= 1 + _SLACK).all()
        return bool(inside and max(-low.min(), high.max()) >= self.least)


# The first that fits counts. A [0, 255] batch is above 64 somewhere; digits of [0, 16] are not.
_RANGES = {
    "unit": _Range(),
    "half": _Range(shift=0.5),
    "symmetric": _Range(scale=0.5, shift=0.5),
    "torch": _Range(scale=(0.229, 0.224, 0.225), shift=(0.485, 0.456, 0.406)),
    "byte": _Range(scale=1 / 255, least=64),
    "caffe": _Range(
        scale=1 / 255,
        shift=(103.939 / 255, 116.779 / 255, 123.68 / 255),
        least=8,
        reverse=True,
    ),
}


def to_uint8(
    x: Any, to_image: Callable[[Any], Any] | None = None, layout: Layout | None = None
) -> Pictures:
    """Turns model inputs back into pictures, undoing the usual preprocessing.

    Without `to_image`, `guess_range(x)` says how. The decision is made once for the batch, never
    per picture. A batch that does not show its range (all of [-1, 1] above zero, say) can be
    guessed wrong: then give `to_image`.

    Args:
        x: Inputs `[B, H, W, C]` or `[B, H, W]`, or of the `layout`. One channel is grey, three are
            colours, the fourth of four is left out; any other number is averaged.
        to_image: A function `x -> pictures`, `[B, H, W, C]`, `[B, H, W]` or of the layout of `x`,
            in [0, 1] or [0, 255].
        layout: Where the channels of `x` are, if they are not last.

    Returns:
        Pictures `[B, H, W, 3]`.

    Raises:
        ValueError: If `x`, or what `to_image` makes of it, is not a batch of pictures.
    """
    pictures = np.asarray(x)
    if to_image is not None and not callable(to_image):
        raise TypeError(f"Expected `to_image` to be a function. Received: {to_image!r}.")
    first = layout is not None and layout.channels == 1 and layout.rank == 4
    if to_image is not None:
        sides = pictures.shape[2:] if first else None
        pictures = _made_by(to_image, x)
        first = first and pictures.ndim == 4 and pictures.shape[1:3] != sides
    channels = _colour_channels(np.moveaxis(pictures, 1, -1) if first else pictures)
    kind = guess_range(channels) if to_image is None else _plain_range(channels)
    undo = (_RANGES.get(kind) or _stretched(channels)).undo
    levels = np.rint(255 * undo(channels.astype(np.float32)))
    levels = np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return np.repeat(levels.astype(np.uint8), 3 // levels.shape[-1], axis=-1)


def guess_range(x: Any) -> str:
    """Names the preprocessing that a batch of pictures went through, from its extremes.

    The first that holds, up to a few per cent of overshoot:

    | name       | range                                        | shown as                      |
    |------------|----------------------------------------------|-------------------------------|
    | `unit`     | [0, 1]; a dim batch stays dim                | `x`                           |
    | `half`     | [-0.5, 0.5]                                  | `x + 0.5`                     |
    | `symmetric`| [-1, 1] (`x / 127.5 - 1`)                    | `(x + 1) / 2`                 |
    | `torch`    | 3 channels in `([0, 1] - mean) / std`        | `x * std + mean`              |
    | `byte`     | [0, 255], 64 or more somewhere; all uint8    | `x / 255`                     |
    | `caffe`    | 3 channels in [0, 255] - mean, blue first    | `(x + mean) / 255`, red first |
    | `minmax`   | anything else                                | `(x - min) / (max - min)`     |

    The means and deviations are ImageNet's. Non-finite values are ignored.

    Args:
        x: Pictures `[B, H, W, C]`, channels last.

    Returns:
        One of the names above.
    """
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return "byte"
    low, high = _extremes(x)
    fitting = (name for name, kind in _RANGES.items() if kind.fits(low, high))
    return next(fitting, "minmax")


def no_pictures(what: str, received: npt.NDArray[Any]) -> str:
    """What to say of an array that is no batch of pictures."""
    return (
        f"Expected {what} of shape [B, H, W, C] or [B, H, W]. "
        f"Received: an array of shape {received.shape}."
    )


def _made_by(to_image: Callable[[Any], Any], x: Any) -> npt.NDArray[Any]:
    """The user's pictures, checked: as many as there are inputs."""
    pictures = np.asarray(to_image(x))
    if pictures.ndim not in (3, 4) or len(pictures) != len(x):
        raise ValueError(
            f"Expected `to_image` to return pictures of shape [{len(x)}, H, W, C] or "
            f"[{len(x)}, H, W] for inputs of shape {np.shape(x)}. "
            f"Received: an array of shape {pictures.shape}."
        )
    return pictures


def _colour_channels(pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`[B, H, W, 1 or 3]`."""
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.ndim != 4:
        raise ValueError(no_pictures("pictures", pictures))
    if pictures.shape[-1] not in (1, 3, 4):
        mean = pictures.mean(axis=-1, keepdims=True, dtype=np.float32)
        return mean.round().astype(np.uint8) if pictures.dtype == np.uint8 else mean
    return pictures if pictures.shape[-1] == 1 else pictures[..., :3]


def _plain_range(pictures: npt.NDArray[Any]) -> str:
    """[0, 1] or [0, 255], which is what a `to_image` may return."""
    lows, highs = _extremes(pictures)
    low, high = float(lows.min()), float(highs.max())
    if pictures.dtype == np.uint8 or (2 < high <= 255 * (1 + _SLACK) and low >= -255 * _SLACK):
        return "byte"
    if high <= 2 and low >= -_SLACK:
        return "unit"
    raise ValueError(
        "Expected `to_image` to return pictures in [0, 1] or [0, 255]. "
        f"Received: values from {low:.4g} to {high:.4g}."
    )


def _stretched(pictures: npt.NDArray[Any]) -> _Range:
    """Least to greatest value of the whole batch, all channels alike."""
    low, high = _extremes(pictures)
    least, span = low.min(), high.max() - low.min()
    return _Range(scale=1 / span, shift=-least / span) if span else _Range(scale=0.0)


def _extremes(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The least and greatest finite value of each channel, `[C]` each; 0 where there is none."""
    axes = tuple(range(x.ndim - 1))
    if x.dtype.kind in "bui":
        return x.min(axis=axes).astype(np.float32), x.max(axis=axes).astype(np.float32)
    x = x.astype(np.float32)
    finite = np.isfinite(x)
    low = x.min(axis=axes, where=finite, initial=np.inf)
    high = x.max(axis=axes, where=finite, initial=-np.inf)
    return np.where(low > high, 0, low), np.where(low > high, 0, high)
