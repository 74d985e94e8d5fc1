"""From numbers to coloured pictures: NumPy table look-ups on the whole batch, nothing else.

Every function takes and returns a batch, and treats its pictures alike: one range, one colour
scale. So two pictures of a batch can be compared, and a picture coloured alone (with the same
limit) is the same as in its batch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_explain.plots.ranges import Pictures as Pictures
from keras_explain.plots.ranges import no_pictures

Maps = npt.NDArray[np.float32]  # [B, H, W]

NAN_COLOUR = (128, 128, 128)

_HALF_STEPS = 128  # a diverging table has this many colours on each side of zero
_LUMA = np.array([299, 587, 114], np.int32)  # per mille; integers, so a batch rounds as one row


@dataclasses.dataclass(frozen=True)
class _Blend:
    """How colours lie over a greyed picture.

    The picture fades towards the colour of zero (black or white), so that all colours stand out,
    and shades the colours, so that the object is seen through the most opaque ones.
    """

    black: float  # the backdrop of a black pixel, in [0, 1]
    white: float
    shade: float  # what a colour is multiplied by over a black pixel; 1 over a white one
    power: float  # opacity grows as |map| ** power
    vivid: float  # the colours nearest zero, dark or pale, are not used: this share of each side


_BLENDS = {
    False: _Blend(black=0.05, white=0.65, shade=0.7, power=0.9, vivid=0.3),
    True: _Blend(black=0.3, white=0.95, shade=0.7, power=0.6, vivid=0.75),
}
_TONE = 0.8  # below 1 brightens dark pictures
_ROUNDING = 1e-9  # relative, of sums
_TINT = 0.6  # the opacity of flat colours
_FADED = (170, 0.27)  # grey = first + second * luma: paler, and with less contrast
_OUTLINE = (31, 35, 40)
_MOST_OUTLINE = 0.35  # of the area inside


def to_maps(values: Any) -> Maps:
    """Sums attributions over the channels, with their signs; maps without channels pass through.

    Args:
        values: Attributions `[B, H, W, C]`, or maps `[B, H, W]`.

    Returns:
        Maps `[B, H, W]`.

    Raises:
        ValueError: If `values` has another rank.
    """
    maps: Maps = np.asarray(values, np.float32)
    if maps.ndim not in (3, 4):
        raise ValueError(no_pictures("attributions", maps))
    return maps if maps.ndim == 3 else maps.sum(axis=-1)


def limit_of(maps: Any, percentile: float = 99.5) -> float:
    """The one colour limit of a batch: a high percentile of |map| that a few outliers don't move.

    Where more pixels than that are zero, the maximum takes its place.

    Args:
        maps: Maps of any shape. Non-finite values are ignored.
        percentile: In (0, 100]; 100 is the maximum.

    Returns:
        A limit for both signs: colours span [-limit, limit] or [0, limit]. 0 if all is zero.
    """
    size = np.abs(np.asarray(maps, np.float32))
    size = size[np.isfinite(size)]
    if size.size == 0:
        return 0.0
    return float(np.percentile(size, percentile)) or float(size.max())


def is_signed(maps: Any) -> bool:
    """Whether maps have negative values, and so want the diverging colours."""
    return bool((np.asarray(maps) < 0).any())


def colorize(maps: Any, limit: float, signed: bool | None = None) -> Pictures:
    """Colours maps: zero to limit in a sequential table, or -limit to limit in a diverging one.

    Both tables can be told apart by the colour-blind. Zero is the first colour of the sequential
    table and the exact centre of the diverging one; what lies outside is clipped.

    Args:
        maps: Maps `[B, H, W]`. NaN becomes `NAN_COLOUR`.
        limit: What the last colour stands for, as `limit_of` finds it.
        signed: Which table; `None` takes the diverging one if any value is negative. Say it where
            several batches are to be compared.

    Returns:
        Pictures `[B, H, W, 3]`.
    """
    signed = is_signed(maps) if signed is None else signed
    return colour_table(signed)[_levels(maps, limit, signed)]


def overlay(
    pictures: Pictures,
    maps: Any,
    limit: float,
    signed: bool | None = None,
    strength: float = 0.9,
) -> Pictures:
    """Lays maps over greyed pictures: the larger |map|, the more opaque.

    `(1 - a) * grey + a * colour * shade`, with the opacity `a = strength * (|map| / limit) ** p`:
    where a map is zero, nothing hides the picture; where it is largest, the colour is darker over
    dark pixels. Both `grey` and `shade` grow with the pixel's brightness.

    Args:
        pictures: Pictures `[B, H, W, 3]` uint8.
        maps: Maps `[B, H, W]` of the same size. NaN becomes `NAN_COLOUR`.
        limit: As in `colorize`.
        signed: As in `colorize`.
        strength: Opacity at the limit, in [0, 1].

    Returns:
        Pictures `[B, H, W, 3]`.

    Raises:
        ValueError: If the sizes of pictures and maps differ.
    """
    maps = np.asarray(maps)
    if maps.shape != pictures.shape[:3]:
        raise ValueError(
            "Expected maps of the pictures' size. "
            f"Received: maps of shape {maps.shape}, pictures of shape {pictures.shape}. "
            "Resize the maps to [B, H, W] of the pictures first."
        )
    signed = is_signed(maps) if signed is None else signed
    opacity, colour, backdrop, shade = _overlay_tables(signed)
    levels = _levels(maps, limit, signed)
    brightness = (pictures @ _LUMA + 500) // 1000
    a = (strength * opacity)[levels]
    mixed = (a * shade[brightness])[..., None] * colour[levels]
    mixed += ((1 - a) * backdrop[brightness])[..., None]
    mixed[np.isnan(maps)] = NAN_COLOUR
    return mixed.round().astype(np.uint8)


def most_of(maps: Any, keep: float, features: Any = None) -> npt.NDArray[np.bool_]:
    """The fewest places of each map that hold a share of the sum of its positive values.

    Places that are equal to the least of them are taken too: a superpixel is taken as a whole.

    Args:
        maps: Maps `[B, H, W]`. Non-finite values count as zero.
        keep: The share, in (0, 1].
        features: Ints `[B, H, W]`: the number of the feature that a place belongs to, such as its
            superpixel. The places of a feature have one value, which counts once.

    Returns:
        Whether a place is among them, `[B, H, W]`. None is where no value is positive.
    """
    maps = np.asarray(maps, np.float32)
    flat = np.where(np.isfinite(maps), maps, 0).clip(0).reshape(len(maps), -1)
    weights = np.ones(maps.shape) if features is None else shares_of(features)
    falling = np.argsort(-flat, axis=1)
    held = np.take_along_axis(flat * weights.reshape(flat.shape), falling, axis=1).cumsum(axis=1)
    last = (held < keep * held[:, -1:] * (1 - _ROUNDING)).sum(axis=1, keepdims=True)
    least = np.take_along_axis(flat, np.take_along_axis(falling, last, axis=1), axis=1)
    return ((flat >= least) & (flat > 0)).reshape(maps.shape)


def shares_of(features: Any) -> npt.NDArray[np.float64]:
    """What share each place `[B, ...]` is of its feature: one over the number of its places."""
    shares = np.empty(np.shape(features))
    for row, numbers in enumerate(features):
        _, at, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        shares[row] = (1 / counts)[at].reshape(numbers.shape)
    return shares


def pros_and_cons(pictures: Pictures, maps: Any, keep: float, features: Any = None) -> Pictures:
    """Tints what speaks for the class and what against it, in two flat colours, with outlines.

    Args:
        pictures: Pictures `[B, H, W, 3]`.
        maps: Maps `[B, H, W]`.
        keep: The places are tinted that hold this share of the sum of |map|, as in `most_of`.
        features: As in `most_of`. Those which are tinted get outlines of their own.

    Returns:
        Pictures `[B, H, W, 3]`.
    """
    sides = np.where(most_of(np.abs(maps), keep, features), np.sign(maps), 0)
    laid = overlay(pictures, np.zeros_like(sides), 1.0, signed=True).astype(np.float32)
    for sign, colour in zip((-1, 1), sign_colours(), strict=True):
        laid[sides == sign] = (1 - _TINT) * laid[sides == sign] + _TINT * colour
    edges = _edges(sides)
    if features is not None:
        edges |= _edges(np.where(sides == 0, -1, features))
    return _outlined(laid.round().astype(np.uint8), edges, sides != 0)


def masked(pictures: Pictures, maps: Any, keep: float, features: Any = None) -> Pictures:
    """Leaves the places that speak most for the class as they are, and fades the others to grey.

    Args:
        pictures: Pictures `[B, H, W, 3]`.
        maps: Maps `[B, H, W]`.
        keep: The share of the sum of the positive values that the places hold, as in `most_of`.
        features: As in `most_of`.

    Returns:
        Pictures `[B, H, W, 3]`.
    """
    kept = most_of(maps, keep, features)
    shown = np.where(kept[..., None], pictures, faded(pictures))
    return _outlined(shown, _edges(kept), kept)


def faded(pictures: Pictures) -> Pictures:
    """Pictures `[B, H, W, 3]` in pale grey, which words can be read on."""
    grey = np.rint(_FADED[0] + _FADED[1] * (pictures @ _LUMA) / 1000).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def sign_colours() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The two colours `[3]` of what speaks against and what for a class."""
    against, pro = colorize([[[-0.8, 0.8]]], 1.0, signed=True)[0, 0]
    return against, pro


def enlarge(pictures: npt.NDArray[Any], at_least: int = 128) -> npt.NDArray[Any]:
    """Enlarges pictures by a whole factor, so that tiny ones can be seen; pixels stay squares.

    Args:
        pictures: Pictures, or maps, `[B, H, W, ...]`.
        at_least: What the longer side shall have at least, in pixels.

    Returns:
        Pictures `[B, f * H, f * W, ...]` with the smallest such `f`.
    """
    factor = max(1, -(-at_least // max(pictures.shape[1:3])))
    return np.repeat(np.repeat(pictures, factor, axis=1), factor, axis=2)


@functools.cache
def colour_table(signed: bool) -> npt.NDArray[np.uint8]:
    """The colours `[N + 1, 3]` of `colorize`: N from the lowest value to the highest, then NaN's.

    The diverging table has an odd N, so that zero has a colour of its own in the middle.
    """
    from matplotlib import colormaps

    if signed:
        colours = colormaps["RdBu_r"](np.linspace(0.08, 0.92, 2 * _HALF_STEPS + 1))
    else:
        colours = colormaps["inferno"](np.arange(256))
    table = np.vstack([np.rint(255 * colours[:, :3]), NAN_COLOUR]).astype(np.uint8)
    table.flags.writeable = False
    return table


@functools.cache
def _overlay_tables(signed: bool) -> tuple[npt.NDArray[Any], ...]:
    """Opacity `[N + 1]` and colour `[N + 1, 3]` by level, backdrop and shade `[256]` by grey."""
    blend = _BLENDS[signed]
    table = colour_table(signed).astype(np.float32)
    share = np.zeros(len(table), np.float32)  # the last is NaN's
    share[:-1] = np.linspace(-1 if signed else 0, 1, len(table) - 1)
    vivid = np.sign(share) * (blend.vivid + (1 - blend.vivid) * np.abs(share))
    tone = (np.linspace(0, 1, 256) ** _TONE).astype(np.float32)
    return (
        np.abs(share) ** blend.power,
        table[_levels(vivid, 1.0, signed)],
        255 * (blend.black + (blend.white - blend.black) * tone),
        blend.shade + (1 - blend.shade) * tone,
    )


def _levels(maps: Any, limit: float, signed: bool) -> npt.NDArray[np.intp]:
    """The row of the colour table for each value."""
    values = np.asarray(maps, np.float32)
    unknown = np.isnan(values)
    share = np.where(unknown, 0, values).clip(-limit, limit) / (limit or 1.0)
    last = len(colour_table(signed)) - 2
    share = (share + 1) / 2 if signed else share.clip(0)
    return np.where(unknown, last + 1, np.rint(share * last).astype(np.intp))


def _outlined(
    pictures: Pictures, edges: npt.NDArray[np.bool_], shown: npt.NDArray[np.bool_]
) -> Pictures:
    """Draws edges; not where they would hide much of what is shown, as around single pixels."""
    fine = edges.sum(axis=(1, 2)) <= _MOST_OUTLINE * shown.sum(axis=(1, 2))
    pictures[edges & fine[:, None, None]] = _OUTLINE
    return pictures


def _edges(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The places of `[B, H, W]` whose neighbour above or at the left differs."""
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    return edges
