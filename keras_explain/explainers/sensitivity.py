"""Global sensitivity analysis of what is visible: Sobol indices, and HSIC."""

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding import designs
from keras_explain.core.hiding.features import Features, Grid
from keras_explain.core.hiding.perturbation import Coalitions
from keras_explain.core.run import sureness
from keras_explain.core.run.plan import Plan
from keras_explain.core.run.precision import rounding
from keras_explain.core.sampled import Sampled


class _Sensitivity(Sampled, Coalitions, abc.ABC):
    """What both share: a coarse grid over pictures, and nothing is made of rounding."""

    of_features: ClassVar[frozenset[str]] = frozenset({"standard_error"})
    fewest: ClassVar[int] = 2

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit=None, signed=False)  # shares of variance

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        if x.ndim == 4:
            return Grid(8)
        return super().default_features(x, are_tokens)

    def values_of(self, present: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        scores = np.swapaxes(scores, 1, 2)  # [n, K, passes]
        constant = np.ptp(scores, axis=-1) <= rounding(scores, axis=-1)
        values, errors = np.zeros((2, *whole.shape, present.shape[1]))
        errors[sureness.unseen(np.swapaxes(scores, 1, 2), whole)] = np.nan
        for at in map(tuple, np.argwhere(~constant)):
            values[at], errors[at] = self.indices(present, scores[at])
        return values, {"standard_error": errors}

    @abc.abstractmethod
    def indices(self, present: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The index of each feature and its standard error, each `[M]`, of scores of one class.

        Args:
            present: What `coalitions` returned, `[passes, M]`.
            scores: Float64 `[passes]`, which are not constant.
        """


_BLOCKS = 16  # of designs
_POINTS = 16  # of designs from which on there is a control, and that "auto" begins with


class SobolAttribution(_Sensitivity):
    """The share of the score's variance that each feature has a part in: its total Sobol index.

    Features are seen in part, by independent shares in [0, 1] (0 is the baseline, 1 the input). A
    and B are N = `designs` points of these each, and A_i is A with feature i's column from B. With
    m and V the mean and variance of the scores at A and B:

    `total_i = sum (S(A_i) - S(A))^2 / (2 N V)` (Jansen's estimator)
    `first_i = sum (S(A_i) - S(A)) (S(B) - m) / (N V)` (Saltelli's)

    From 16 designs on there is a control variate: the part of a score that is linear in the shares,
    `sum_i beta_i (share_i - 1/2)`, in the terms of these sums and in those of V is replaced by its
    expectations, `beta_i^2 / 12` and `sum_i beta_i^2 / 12`. The slopes beta of a block of points
    are of all other blocks (least squares of S(A_i) - S(A)), so that it adds no bias.

    `values` of the total order are never negative. They have the input's shape, without channels
    where a feature takes all of them (`[B, H, W]`, `[B, T]`). There are `designs * (M + 2)` passes
    for M features; a sample whose score is constant has zeros. `extras["standard_error"]` is by the
    delta method, `sqrt(sum over R blocks of (s_r - index * V_r)^2 / (R (R - 1))) / V` with s_r and
    V_r the means of the sum's terms and of V's in each of up to R = 16 blocks of points; below 16
    designs it is too small.

    Args:
        features: As in `FeatureAblation`, but that pictures are cut into `Grid(8)`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.
        designs: The number of points N, a power of two, 2 or more (scrambled Sobol sequences); or
            `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample, by default 16384; the last designs
            are the power of two that it has room for.
        order: `"total"`: the variance in which feature i has a part, alone or with others;
            `"first"`: that of feature i alone.

    Reference:
        - [Fel et al., 2021](https://arxiv.org/abs/2111.04138), section 3
        - [Jansen, 1999](https://doi.org/10.1016/S0010-4655(98)00154-4)
        - [Saltelli et al., 2010](https://doi.org/10.1016/j.cpc.2009.09.018), table 2 (b), (f)
    """

    counted: ClassVar[str] = "designs"

    designs: int | Literal["auto"] = 32
    order: Literal["total", "first"] = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.designs != "auto" and self.designs & (self.designs - 1):
            raise ValueError(
                "Expected `designs` to be a power of two, for which Sobol sequences are balanced. "
                f"Received: designs={self.designs}."
            )
        checks.choice("order", self.order, ("total", "first"))

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        points = self._most(count) if self.designs == "auto" else self.designs
        columns = backend.random_permutation(seed, 2 * count, stream=1)  # which differ in quality
        a, b = np.split(backend.random_sobol(seed, points, 2 * count)[:, columns], 2, axis=1)
        swapped = np.where(np.eye(count, dtype=bool), b[:, None], a[:, None])  # [points, M, M]
        return np.concatenate([a[:, None], b[:, None], swapped], axis=1).reshape(-1, count)

    def stops(self, count: int) -> Sequence[int]:
        if not self.is_auto:
            return ()
        return [(count + 2) * n for n in sureness.doubled(_POINTS, self._most(count))]

    def _most(self, count: int) -> int:
        """The greatest power of two of designs, 2 or more, that `max_passes` have room for."""
        room = self.limit // (count + 2)
        if room < self.fewest:
            raise ValueError(
                f"Expected max_passes of {self.fewest * (count + 2)} or more for {count} features: "
                f"{self.fewest} designs of {count + 2}. Received: max_passes={self.limit}."
            )
        return 2 ** (room.bit_length() - 1)

    def indices(self, present: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = present.shape[1]
        points = present.reshape(-1, count + 2, count)[:, :2].astype(np.float64)  # A and B
        scores = scores.reshape(-1, count + 2)
        change, away = scores[:, 2:] - scores[:, :1], scores[:, :2] - scores[:, :2].mean()
        terms, spread = self._parts(change, away)
        if not spread.any():  # only some A_i differ
            return np.zeros(count), np.zeros(count)
        if len(points) >= _POINTS:
            terms, spread = self._controlled(terms, spread, change, points)
        index = terms.mean(axis=0) / spread.mean()
        blocks = (terms - index * spread[:, None]).reshape(min(_BLOCKS, len(points)), -1, count)
        error = np.std(blocks.mean(axis=1), axis=0, ddof=1) / np.sqrt(len(blocks)) / spread.mean()
        return np.maximum(index, 0) if self.order == "total" else index, error

    def _parts(self, change: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the sums over points are of, `[N, M]`, and the squares that the variance is of.

        Args:
            change: S(A_i) - S(A), `[N, M]`.
            away: S(A) - m and S(B) - m, `[N, 2]`.
        """
        terms = change**2 / 2 if self.order == "total" else change * away[:, 1:]
        return terms, (away**2).mean(axis=1)

    def _controlled(
        self, terms: np.ndarray, spread: np.ndarray, change: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same less the parts of a score that is linear in the shares, plus their means."""
        moved = points[:, 1] - points[:, 0]
        slopes = _slopes(change, moved)
        linear = ((points - 0.5) * slopes[:, None]).sum(axis=-1)
        known_terms, known_spread = self._parts(slopes * moved, linear)
        variances = slopes**2 / 12
        less = spread - known_spread + variances.sum(axis=1)
        if less.mean() <= 0:
            return terms, spread
        return terms - known_terms + variances, less


def _slopes(change: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """By least squares how much the score changes by each share, `[N, M]`: of the other blocks."""
    blocks = _BLOCKS, -1, change.shape[1]
    along, length = ((part * moved).reshape(blocks).sum(axis=1) for part in (change, moved))
    slopes = (along.sum(axis=0) - along) / (length.sum(axis=0) - length)
    return np.repeat(slopes, len(change) // _BLOCKS, axis=0)


_MASKS = 2**14


class HSICAttribution(_Sensitivity):
    """How much the score depends on whether each feature is present, in any way.

    The Hilbert-Schmidt independence criterion of the feature's presence and the score, estimated
    from n = `samples` masks, of which each feature is present in half (from two a feature on they
    are a random folded-over fraction of all, which spreads them evenly):

    `value of feature i = trace(K_i H L H) / (n - 1)^2`, `H = I - 1/n`

    with the kernels `K_i = 1/2` where two masks agree on feature i, else `-1/2`, and
    `L = exp(-(S - S')^2 / (2 s^2))`, s the median distance of two scores (the root mean
    square one, where most scores are alike). `values` are never negative: 0 means independent in
    the limit, and chance alone leaves about (1 - mean of L) / (2 n). They have the input's shape,
    without channels where a feature takes all of them (`[B, H, W]`, `[B, T]`). A sample whose score
    is constant has zeros.

    The value is twice the squared length of m, the mean over masks of the centred presence times
    the score's feature vector f of the kernel L. `extras["standard_error"]` is the root of a
    squared spread and a squared bias, that which chance leaves:
    `(sum over r of (4 q_r)^2 / (R (R - 1)) + ((1 - mean of L) / (2 n))^2)^(1/2) * (n / (n - 1))^2`.
    q_r is the mean over the r-th of R = 16 blocks of masks, less that of all, of the presence times
    what is left of m . f without its part that is linear in all presences, to which the design adds
    no error. Once half of all coalitions are masks, it is too large. It is NaN where all masks have
    one score, and the input another.

    Args:
        features: As in `FeatureAblation`, but that pictures are cut into `Grid(8)`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.
        samples: The number of masks, 2 or more; or `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 4096, as the kernel is
            a matrix of all masks.

    Reference:
        - [Novello et al., 2022](https://arxiv.org/abs/2206.06219), section 3
        - [Gretton et al., 2005](https://doi.org/10.1007/11564089_7), definition 2
    """

    most: ClassVar[int] = 2**12

    samples: int | Literal["auto"] = 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count > _MASKS:
            raise ValueError(
                f"Expected at most {_MASKS} masks, as their kernel is a matrix that must fit into "
                f"memory. Received: {self.count}."
            )

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        return designs.halves(seed, self.limit if self.samples == "auto" else self.samples, count)

    def stops(self, count: int) -> Sequence[int]:
        return designs.stops(count, self.limit) if self.is_auto else ()

    def indices(self, present: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, kernel = len(scores), _kernel(scores)
        signs = (present - present.mean(axis=0)).astype(np.float32)  # centred, K_i is 2 s s'
        along = backend.matmul(kernel, signs)
        square = (signs * along).sum(axis=0, dtype=np.float64) / n**2  # of m, the mean of signs x L
        bias = (1 - kernel.mean(dtype=np.float64)) / (2 * n)
        scale = (n / (n - 1)) ** 2
        return 2 * scale * square, scale * np.hypot(_spread(signs, along), bias)


def _kernel(scores: np.ndarray) -> np.ndarray:
    """How alike scores are, float32 `[n, n]`."""
    from scipy.spatial.distance import pdist, squareform

    apart = pdist(scores[:, None], "sqeuclidean")
    width = np.median(apart)  # of the squares: the median's square
    if width <= rounding(scores) ** 2:
        width = apart.mean()
    kernel = squareform(np.exp((-apart / (2 * width)).astype(np.float32)))
    np.fill_diagonal(kernel, 1.0)
    return kernel


def _spread(signs: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The standard error of 2 |m|^2 by how blocks of masks differ, `[M]`; NaN of one block.

    Args:
        signs: The centred presence, `[n, M]`.
        along: n m times the feature vector of each mask's score, `[n, M]`.
    """
    n = len(signs)
    starts = np.arange(0, n, designs.block_size(n))
    if len(starts) == 1:
        return np.full(signs.shape[1], np.nan)
    rest = along - along.mean(axis=0)
    rest -= backend.matmul(signs, backend.matmul(signs.T, rest)) * (4 / n)
    parts, counts = 4 / n * signs * rest, np.diff(starts, append=n)[:, None]
    means = np.add.reduceat(parts, starts, axis=0, dtype=np.float64) / counts
    away = np.square(means - parts.mean(axis=0, dtype=np.float64)).sum(axis=0)
    return np.sqrt(away / (len(starts) * (len(starts) - 1)))
