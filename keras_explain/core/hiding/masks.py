"""Random masks of features and of cells: the masks, and what is known of their covariances."""

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from keras_explain import backend
from keras_explain.core.model.reading import groups

Tensor = Any

_CELLS, _PLACES = "abcd", "wxyz"  # axes of grids and of masks

CONTROLS = 512
"""Of so many controls at most the covariances with masks are estimated apart."""

ELEMENTS = 2**24
"""Masks are made in parts of so many elements at most."""


class Masks(abc.ABC):
    """Masks of the places of an input, `[n, *places]`, each of the mean `keep` at each place.

    Controls are numbers of each mask, linear in it, whose covariance with the masks is known. All
    covariances here are in units of `keep * (1 - keep)`.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many numbers are made with a mask."""

    @property
    @abc.abstractmethod
    def controls(self) -> np.ndarray:
        """The controls of each mask, less their mean, float64 `[n, q]`."""

    @property
    @abc.abstractmethod
    def gram(self) -> np.ndarray:
        """The covariance of the controls, `[q, q]`."""

    @abc.abstractmethod
    def covariance(self, weights: np.ndarray) -> np.ndarray:
        """The covariance of weighted sums of the controls (`[q, k]`) with masks, `[k, *places]`."""

    @abc.abstractmethod
    def centred(self, some: np.ndarray) -> np.ndarray:
        """Some of the masks, less their mean, float32 `[m, *places]`."""

    def products(self, weights: np.ndarray, some: np.ndarray) -> np.ndarray:
        """Sums over some of the masks (ints `[m]`), less their mean, times weights `[m, k]`.

        Returns:
            float64 `[k, *places]`.
        """
        total: Any = 0.0
        for part in self._parts(len(some)):
            masks = self.centred(some[part])
            flat = masks.reshape(len(masks), -1)
            product = backend.matmul(weights[part].T.astype(np.float32), flat)
            total = total + product.reshape(-1, *masks.shape[1:]).astype(np.float64)
        return total

    def _parts(self, count: int) -> Iterator[slice]:
        """Which of so many masks are made together."""
        return groups(count, max(1, ELEMENTS // self.size))


@dataclass(frozen=True, eq=False)
class FeatureMasks(Masks):
    """Whole features; the controls are the features themselves, where they are few.

    Attributes:
        present: Which of the features are seen, independent of each other, `[n, M]`.
        keep: The probability that a feature is seen.
    """

    present: np.ndarray
    keep: float

    @property
    def size(self) -> int:
        return self.present.shape[1]

    @property
    def controls(self) -> np.ndarray:
        return self.present[:, : len(self.gram)] - self.keep

    @property
    def gram(self) -> np.ndarray:
        return np.eye(self.size if self.size <= CONTROLS else 0)

    def covariance(self, weights: np.ndarray) -> np.ndarray:
        return weights.T if len(weights) else np.zeros((weights.shape[1], self.size))

    def centred(self, some: np.ndarray) -> np.ndarray:
        return self.present[some] - np.float32(self.keep)


@dataclass(frozen=True, eq=False)
class CellMasks(Masks):
    """Coarse grids of cells, interpolated at random offsets; the controls are means of blocks.

    A mask is a sum of its cells times tents, so at two places `d` cells apart the covariance is the
    tent's autocorrelation at `d`, the cubic B-spline, a factor for each axis.

    Attributes:
        grid: Which cells are seen, independent of each other, float32 `[n, *(cells + 2)]`.
        offset: How far each grid is moved along each axis, in [0, 1) cells, `[n, axes]`.
        places: The number of places along each axis.
        keep: The probability that a cell is seen.
    """

    grid: np.ndarray
    offset: np.ndarray
    places: tuple[int, ...]
    keep: float

    @property
    def size(self) -> int:
        tents = np.dot(self.places, self.grid.shape[1:])
        return math.prod(self.places) + int(tents)

    @property
    def seen(self) -> Tensor:
        """The masks; also in a graph, where `grid` and `offset` are tensors."""
        return interpolated(self.grid, self._tents(slice(None)))

    @property
    def controls(self) -> np.ndarray:
        every = [self._controls(part) for part in self._parts(len(self.grid))]
        return np.concatenate(every).astype(np.float64)

    def _controls(self, some: slice) -> np.ndarray:
        along = [
            _means(shares, edges)
            for shares, edges in zip(self._tents(some), self._edges, strict=True)
        ]
        means = np.asarray(interpolated(self.grid[some] - np.float32(self.keep), along))
        return means.reshape(len(means), -1)

    @property
    def gram(self) -> np.ndarray:
        product = np.ones((1, 1))
        for near, edges in zip(self._near, self._edges, strict=True):
            product = np.kron(product, _means(near.T[None], edges)[0])
        return product

    def covariance(self, weights: np.ndarray) -> np.ndarray:
        maps = weights.T.reshape(-1, *(len(near) for near in self._near))
        for near in self._near:
            maps = np.moveaxis(maps, 1, -1)
            over_axis = backend.matmul(maps.reshape(-1, len(near)), near)
            maps = over_axis.reshape(*maps.shape[:-1], near.shape[1])
        return maps

    def centred(self, some: np.ndarray) -> np.ndarray:
        return self._made(some) if self._whole is None else self._whole[some]

    @cached_property
    def _whole(self) -> np.ndarray | None:
        """All masks, where they are few: made at once, and not part by part."""
        return self._made(slice(None)) if len(self.grid) * self.size <= ELEMENTS else None

    def _made(self, some: Any) -> np.ndarray:
        grid = self.grid[some] - np.float32(self.keep)
        return np.asarray(interpolated(grid, self._tents(some)))

    def _tents(self, some: Any) -> list[Tensor]:
        return [
            tents(self.offset[some, axis], side, self.grid.shape[axis + 1] - 2)
            for axis, side in enumerate(self.places)
        ]

    @cached_property
    def _edges(self) -> list[np.ndarray]:
        """Where the blocks of each axis begin, and the last one ends: a block for each cell."""
        most = int(CONTROLS ** (1 / len(self.places)) + 1e-9)
        counts = [min(c, s, most) for c, s in zip(self.grid.shape[1:], self.places, strict=True)]
        return [
            np.arange(count + 1) * side // count
            for count, side in zip(counts, self.places, strict=True)
        ]

    @cached_property
    def _near(self) -> list[np.ndarray]:
        """For each axis the covariance of the blocks' means with the places, `[blocks, side]`."""
        found = []
        for axis, (side, edges) in enumerate(zip(self.places, self._edges, strict=True)):
            step = (self.grid.shape[axis + 1] - 2) / side
            total = np.cumsum(cubic_spline(np.arange(-side, side + 1) * step))
            until = total[side + np.arange(side) - edges[:, None]]  # at places after each edge
            found.append(-np.diff(until, axis=0) / np.diff(edges)[:, None])
        return found


def tents(offset: Tensor, side: int, cells: int) -> Tensor:
    """How much of each place is of each cell, `[n, side, cells + 2]`, of grids moved by shares."""
    position = ops.arange(side, dtype="float32") * (cells / side)
    place = position[None, :, None] + ops.reshape(offset, (-1, 1, 1))
    knots = ops.arange(cells + 2, dtype="float32")
    return ops.relu(1 - ops.abs(place - knots))


def interpolated(grid: Tensor, along: Sequence[Tensor]) -> Tensor:
    """Sums of cells `[n, *cells]`, `[n, *places]`, by their weights `[n, side, cells]` an axis."""
    for i, weights in enumerate(along):
        done, left = _PLACES[:i], _CELLS[i + 1 : len(along)]
        place, cell = _PLACES[i], _CELLS[i]
        grid = ops.einsum(
            f"n{done}{cell}{left},n{place}{cell}->n{done}{place}{left}", grid, weights
        )
    return grid


def cubic_spline(x: np.ndarray) -> np.ndarray:
    """The cubic B-spline of knots at whole numbers: the integral of tents at a distance `x`."""
    x = np.abs(x)
    inner, outer = 2 / 3 - x**2 * (1 - x / 2), (2 - x) ** 3 / 6
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _means(values: Tensor, edges: np.ndarray) -> np.ndarray:
    """Means over blocks of the middle axis, of `[n, side, m]`."""
    total = np.add.reduceat(np.asarray(values), edges[:-1], axis=1)
    return total / np.diff(edges)[:, None].astype(total.dtype)
