"""XRAI: the regions of a picture that matter."""

import functools
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data.baselines import Baseline
from keras_explain.core.data.kinds import SMALLEST_SIDE
from keras_explain.core.data.layout import Layout
from keras_explain.core.explainer import Explainer, get
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.explainers.integrated_gradients import IntegratedGradients

_SIDE = 224  # lengths and sizes are in pixels of a picture of this height and width


class Darkest(Baseline, kw_only=False):
    """The least number of each sample, everywhere: black."""

    makes_ids = False

    def __call__(self, x: Any, row: Any) -> Any:
        return ops.broadcast_to(ops.min(x, _but_first(x), keepdims=True), ops.shape(x))


class Lightest(Baseline, kw_only=False):
    """The greatest number of each sample, everywhere: white."""

    makes_ids = False

    def __call__(self, x: Any, row: Any) -> Any:
        return ops.broadcast_to(ops.max(x, _but_first(x), keepdims=True), ops.shape(x))


class XRAI(Explainer):
    r"""The regions of a picture that say most for the class, one after the other.

    The attributions of an explainer are summed over channels, and the picture is cut into
    overlapping regions, fine and coarse. Then the region s is added, again and again, that gains
    most a pixel to the pixels M that are there already:

    `gain(s) = mean of the attributions over s \ M`

    `values` `[B, H, W]` has at each pixel the gain with which it was added, and
    `extras["segments"]` `[B, H, W]`, int32, the number of the region with which it was: 0 is the
    first one.

    Args:
        explainer: An explainer of the input, or several, whose mean is taken. By default Integrated
            Gradients from black and from white: each picture's own least and greatest number.
        scales: How coarse the regions are: each of these scales of Felzenszwalb's method cuts the
            whole picture into regions (of more than three channels, the three principal
            components).
        min_size: The least size of a region, in pixels. What would add less than a third of it is
            passed over, and all that is left at the end is one region.
        dilation: By how many pixels each region is made wider, so that it has its edges in it.
            These pixels are those of a picture of 224 x 224; for other sizes in proportion.

    Reference:
        - [Kapishnikov et al., 2019](https://arxiv.org/abs/1906.02825), section 3
        - [Felzenszwalb and Huttenlocher, 2004](https://doi.org/10.1023/B:VISI.0000022288.19776.77)
    """

    explainer: Any = (
        IntegratedGradients(baseline=Darkest()),
        IntegratedGradients(baseline=Lightest()),
    )
    scales: tuple[float, ...] = (50, 100, 150, 250, 500, 1200)
    min_size: float = 150
    dilation: float = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.explainer if isinstance(self.explainer, tuple) else (self.explainer,)
        object.__setattr__(self, "explainer", tuple(map(get, given)))
        for name in ("min_size", "dilation"):
            checks.share(name, getattr(self, name))
        checks.several("scales", self.scales, float, above=0)
        if not self.explainer:
            raise ValueError("Expected one explainer or more. Received: explainer=().")
        for inner in self.explainer:
            if isinstance(inner, XRAI) or inner.plan.layer is not None:
                raise ValueError(f"Expected explainers of the input's pixels. Received: {inner}.")

    @property
    def plan(self) -> Plan:
        units = {inner.plan.unit for inner in self.explainer}
        unit = units.pop() if len(units) == 1 else None
        return Plan(unit=unit, afterwards=self._in_regions)

    def check(self, x: Any) -> None:
        leaves = tree.flatten(x)
        shape = leaves[0].shape
        if len(leaves) > 1 or not (
            len(shape) == 4 or (len(shape) == 3 and min(shape[1:]) >= SMALLEST_SIDE)
        ):
            raise ValueError(
                "Expected one input of pictures, [B, H, W, C] or [B, H, W] (sides of at least "
                f"{SMALLEST_SIDE}). Received: {', '.join(str(leaf.shape) for leaf in leaves)}."
            )
        for inner in self.explainer:
            inner.check(x)

    def passes(self, seed: int) -> dict[str, Any]:
        inner = [explainer.passes(seed) for explainer in self.explainer]
        one = tree.map_structure(lambda p: np.asarray(p)[None], inner)
        return {"inner": one} if tree.flatten(one) else {}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        inner = pass_.each.get("inner", [{}] * len(self.explainer))
        maps = [
            _summed(explainer.within(probe, x, target, passes), probe.layouts[0])
            for explainer, passes in zip(self.explainer, inner, strict=True)
        ]
        return sum(maps) / len(maps)

    def _in_regions(self, x: Any, result: dict[str, Any], share: Share) -> dict[str, Any]:
        pictures = tree.flatten(x)[0]
        least = self.min_size / 3 * _zoom(pictures[0]) ** 2
        added = [
            add_regions(map_, self._regions(picture), least)
            for picture, map_ in zip(pictures, result["values"], strict=True)
        ]
        values, segments = (np.stack(arrays) for arrays in zip(*added, strict=True))
        return {"values": values, "segments": segments}

    def _regions(self, picture: np.ndarray) -> Any:
        what = picture.tobytes(), picture.shape, picture.dtype.str
        return _regions(*what, self.scales, self.min_size, self.dilation)


@functools.lru_cache(maxsize=16)
def _regions(
    data: bytes,
    shape: tuple[int, ...],
    dtype: str,
    scales: tuple[float, ...],
    min_size: float,
    dilation: float,
) -> Any:
    """The regions of a picture; kept, as a callback asks for the same ones in every epoch."""
    picture = np.frombuffer(data, dtype).reshape(shape)
    return widened(cut(picture, scales, min_size), dilation * _zoom(picture))


def cut(picture: np.ndarray, scales: tuple[float, ...], min_size: float) -> list[np.ndarray]:
    """A picture `[H, W, C]` cut into regions by each scale: their numbers from 0, `[H, W]`."""
    from skimage.segmentation import felzenszwalb

    low, high, zoom = picture.min(), picture.max(), _zoom(picture)
    unit = (picture.astype(np.float64) - low) / ((high - low) or 1) * 2 - 1
    least = max(1, round(min_size * zoom**2))
    unit = _three_channels(unit)
    return [felzenszwalb(unit, scale=s, sigma=0.8 * zoom, min_size=least) for s in scales]


def _three_channels(picture: np.ndarray) -> np.ndarray:
    """A picture `[H, W, C]`; where it has more than three channels, its principal components.

    What distances in colour there are is kept as far as three numbers can.
    """
    if picture.shape[-1] <= 3:
        return picture
    flat = picture.reshape(-1, picture.shape[-1])
    axes = np.linalg.eigh(np.cov(flat.T))[1][:, -3:]
    return (picture - flat.mean(axis=0)) @ axes


def widened(cuts: list[np.ndarray], by: float) -> Any:
    """All regions of all cuts `[H, W]` with the pixels around them, sparse `[regions, H * W]`."""
    from scipy import ndimage, sparse

    shape = cuts[0].shape
    members = []
    for labels in cuts:
        for number, box in enumerate(ndimage.find_objects(labels + 1)):
            wider = tuple(
                slice(max(0, int(side.start - by)), int(side.stop + by + 1)) for side in box
            )
            near = ndimage.distance_transform_edt(labels[wider] != number) <= by
            rows, columns = np.nonzero(near)
            members.append((rows + wider[0].start) * shape[1] + columns + wider[1].start)
    indices = np.concatenate(members)
    ends = np.cumsum([0, *map(len, members)])
    ones = np.ones(len(indices), np.int8)
    return sparse.csr_matrix((ones, indices, ends), (len(members), shape[0] * shape[1]))


def add_regions(map_: np.ndarray, regions: Any, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Adds region after region, that of the greatest gain first.

    Args:
        map_: Attributions `[H, W]`.
        regions: Regions of pixels, sparse `[regions, H * W]` of zeros and ones.
        least: A region that would add fewer pixels is passed over.

    Returns:
        The gain with which each pixel was added, float32 `[H, W]`, and the number of its region in
        the order in which they were added, int32 `[H, W]`.
    """
    flat = map_.reshape(-1).astype(np.float64)
    values, order = np.zeros_like(flat), np.full(flat.shape, -1, np.int32)
    of_pixels = regions.tocsc()
    sums, sizes = regions @ flat, regions @ np.ones_like(flat)
    number = 0
    while (open_ := sizes >= max(least, 0.5)).any():
        best = np.argmax(np.where(open_, sums / np.maximum(sizes, 1), -np.inf))
        pixels = regions.indices[regions.indptr[best] : regions.indptr[best + 1]]
        pixels = pixels[order[pixels] < 0]
        values[pixels], order[pixels] = flat[pixels].mean(), number
        touched = of_pixels[:, pixels]
        sums -= touched @ flat[pixels]
        sizes -= touched @ np.ones(len(pixels))
        number += 1
    rest = order < 0
    if rest.any():
        values[rest], order[rest] = flat[rest].mean(), number
    return values.astype(np.float32).reshape(map_.shape), order.reshape(map_.shape)


def _summed(values: Any, layout: Layout) -> Any:
    """Attributions to pictures without their channels, `[n, H, W]`."""
    if len(layout.axes) != 2:
        raise ValueError(
            "Expected pictures. Received: x of shape [B, T, C], which the model's layers take for "
            "series. Pictures [B, H, W] are said to be such by `data_format='no_channels'`."
        )
    leaf = tree.flatten(values)[0]
    is_map = layout.channels is None or len(leaf.shape) < layout.rank
    return leaf if is_map else ops.sum(leaf, axis=layout.channels)


def _zoom(picture: np.ndarray) -> float:
    return float(np.sqrt(picture.shape[0] * picture.shape[1])) / _SIDE


def _but_first(x: Any) -> tuple[int, ...]:
    return tuple(range(1, len(x.shape)))
