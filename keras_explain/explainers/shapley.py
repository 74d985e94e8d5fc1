"""Shapley values: what a feature adds to the score, on average over all orders of features."""

import abc
import functools
import itertools
import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.perturbation import Coalitions
from keras_explain.core.run.plan import Plan

MOST = 20  # features of which all coalitions are taken: about a million


class _Shapley(Coalitions, abc.ABC):
    """What the methods share: `v(S)` is the score of coalition S less that of the empty one.

    The first pass is the empty coalition; the whole one needs none.
    """

    @property
    def plan(self) -> Plan:
        return replace(super().plan, missing=True)

    @abc.abstractmethod
    def shapley(
        self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The Shapley values, and extras.

        Args:
            present: The coalitions but for the empty one, `[S, M]`.
            gains: `v` of each, `[n, S, K]`.
            gain: `v` of the whole one, `[n, K]`.

        Returns:
            Values `[n, K, M]`, and extras `[n, K, ...]`.
        """

    def values_of(self, present: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        base = scores[:, 0]
        gain = whole - base
        values, extras = self.shapley(present[1:], scores[:, 1:] - base[:, None], gain)
        delta = values.sum(axis=-1) - gain
        return values, {"base_values": base, "convergence_delta": delta, **extras}


class ExactShapley(_Shapley):
    """Shapley values by their formula, from all `2^M` coalitions S of M features.

    `value of feature i = sum over S without i of |S|! (M - |S| - 1)! / M! * (v(S + i) - v(S))`

    `v(S)` is the score where only the features in S are visible. The values of the features sum to
    `S_c(x) - v(nothing)`; each place of a feature has the feature's whole value.
    `extras["base_values"]` `[B]` is `v(nothing)`, `extras["convergence_delta"]` `[B]` the sum over
    features less what it should be.

    Args:
        features: As in `FeatureAblation`, at most 20 in a sample.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Raises:
        ValueError: A sample has more than 20 features.

    Reference:
        - Shapley, 1953: A value for n-person games
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874), equation 4
    """

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        if count > MOST:
            raise ValueError(
                f"Expected at most {MOST} features for ExactShapley, which looks at all 2^M "
                f"coalitions of M features. Received: {count} features. Join some, by `groups=` or "
                "`features=` (of pictures "
                '`keras_explain.features.Segments(options={"n_segments": 15})`), or take '
                "KernelSHAP, which samples."
            )
        number = np.arange(2**count - 1)  # bit i of a coalition's number is feature i
        return (number[:, None] >> np.arange(count) & 1).astype(bool)

    def shapley(self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray) -> Any:
        n, M, K = len(gains), present.shape[1], gains.shape[-1]
        gains = np.concatenate([np.zeros((n, 1, K)), gains, gain[:, None]], axis=1)  # [n, 2^M, K]
        without = np.concatenate([[0], present.sum(axis=1), [M]])
        share = np.array([1 / (M * math.comb(M - 1, size)) for size in range(M)])
        values = np.empty((n, K, M))
        for i in range(M):
            absent, there = np.moveaxis(gains.reshape(n, -1, 2, 2**i, K), 2, 0)
            weight = share[without.reshape(-1, 2, 2**i)[:, 0]]
            values[..., i] = np.einsum("nabk,ab->nk", there - absent, weight)
        return values, {}


class KernelSHAP(_Shapley):
    """Shapley values by a weighted regression of the score on which features are visible.

    `values = argmin of sum over S of p(S) (v(S) - base - sum over i in S of values_i)^2`,
    `p(S) = (M - 1) / (C(M, |S|) |S| (M - |S|))`, where the values sum to `S_c(x) - base` exactly

    `v(S)` is the score where only the features in S are visible, and `base` that where none is. As
    long as `samples` reaches for all coalitions, the values are exact. Else those of whole sizes
    are taken from the outside in (1 and M - 1, 2 and M - 2, ...), and of the others some are drawn
    at random, none twice, each together with its complement; they bear the weight of all.

    Each place of a feature has the feature's whole value. `extras["base_values"]` `[B]` is `base`,
    `extras["convergence_delta"]` `[B]` the sum over features less what it should be.

    Args:
        samples: The number of coalitions, apart from the empty and the whole one; by default
            `2 M + 2048`.
        features: As in `FeatureAblation`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Raises:
        ValueError: `samples` are fewer than the coalitions of one feature, or of all but one.

    Reference:
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874), theorem 2
        - [Covert and Lee, 2021](https://arxiv.org/abs/2012.01536): paired sampling
    """

    samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None:
            checks.count("samples", self.samples)

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        samples = 2 * count + 2048 if self.samples is None else self.samples
        least = min(2 * count, 2**count - 2)
        if samples < least:
            raise ValueError(
                f"Expected at least {least} samples for {count} features, two a feature. "
                f"Received: samples={samples}. Take more, or fewer features, by `groups=` or "
                "`features=`."
            )
        return _outside_in(count, samples, seed)

    def shapley(self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray) -> Any:
        M = present.shape[1]
        project, even = _regression(present.tobytes(), M)
        by_row = np.moveaxis(gains, 1, -1).reshape(gain.size, len(present))  # [n * K, S]
        fit = backend.matmul(by_row, project.T).reshape(*gain.shape, M) - gain[..., None] * even
        return gain[..., None] / M + fit, {}


class ShapleySampling(_Shapley):
    """Shapley values as means over random orders in which features appear, one after the other.

    `value of feature i = mean over orders of v(those before i, and i) - v(those before i)`

    `v(S)` is the score where only the features in S are visible. Each order is also taken
    backwards. In every order the values of the features sum to `S_c(x) - v(nothing)`, so they do on
    average. Each place of a feature has the feature's whole value.

    `extras["standard_errors"]`, of the shape of `values`, is the standard deviation of the means of
    an order and its reverse, divided by the root of `samples`. `extras["base_values"]` `[B]` is
    `v(nothing)`, `extras["convergence_delta"]` `[B]` the sum over features less what it should be.

    Args:
        samples: The number of orders with their reverse, 2 or more: the score is asked
            `2 * samples * (M - 1)` times for M features.
        features: As in `FeatureAblation`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Reference:
        - [Castro et al., 2009](https://doi.org/10.1016/j.cor.2008.04.004)
        - [Strumbelj and Kononenko, 2010](https://jmlr.org/papers/v11/strumbelj10a.html),
          algorithm 1
        - [Mitchell et al., 2022](https://arxiv.org/abs/2104.12199): reversed orders
    """

    samples: int = 25

    of_features: ClassVar[frozenset[str]] = frozenset({"standard_errors"})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("samples", self.samples)
        if self.samples < 2:
            raise ValueError(
                "Expected `samples` to be 2 or more, as standard errors are made from how they "
                f"differ. Received: samples={self.samples}."
            )

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        rank = np.argsort(backend.random_uniform(seed, (self.samples, count)), axis=1)
        before = rank[:, None] < np.arange(1, count)[:, None]  # [samples, M - 1, M]
        both = np.stack([before, ~before[:, ::-1]], axis=1)
        return np.concatenate([np.zeros((1, count), bool), both.reshape(-1, count)])

    def shapley(self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray) -> Any:
        n, M, K = len(gains), present.shape[1], gains.shape[-1]
        chains = (self.samples, 2, M - 1)
        ends = np.zeros((n, *chains[:2], 1, K))
        whole = ends + gain[:, None, None, None]
        steps = np.diff(gains.reshape(n, *chains, K), axis=3, prepend=ends, append=whole)
        rank = M - 1 - present.reshape(*chains, M).sum(axis=2)  # [samples, 2, M]
        added = np.take_along_axis(steps, rank[None, ..., None], axis=3)  # [n, samples, 2, M, K]
        means = np.swapaxes(added.mean(axis=2), 2, 3)
        errors = means.std(axis=1, ddof=1) / math.sqrt(self.samples)
        return means.mean(axis=1), {"standard_errors": errors}


# The coalitions of KernelSHAP


@functools.lru_cache(maxsize=32)
def _outside_in(count: int, samples: int, seed: int) -> np.ndarray:
    """The empty coalition, all of the outer sizes, and some of the others, `[passes, count]`."""
    sizes = range(1, count // 2 + 1)
    twice = [1 if 2 * size == count else 2 for size in sizes]  # with the complements' size
    number = [k * math.comb(count, size) for k, size in zip(twice, sizes, strict=True)]
    mass = np.array([k / (size * (count - size)) for k, size in zip(twice, sizes, strict=True)])
    filled = 0
    while filled < len(number) and _fits(number, mass, filled, samples):
        samples -= number[filled]
        filled += 1
    parts = [np.zeros((1, count), bool)]
    parts += [_all_of(count, size) for size in sizes[:filled]]
    chosen = _allotted(mass[filled:], samples // 2, seed)
    parts += [
        _some_of(count, size, k, seed) for size, k in zip(sizes[filled:], chosen, strict=True)
    ]
    found = np.concatenate(parts)
    found.setflags(write=False)
    return found


def _fits(number: list[int], mass: np.ndarray, at: int, samples: int) -> bool:
    """Whether all coalitions of a size are no more than its part of the samples that are left."""
    part = samples * mass[at] / mass[at:].sum()
    return at == 0 or number[at] <= part * (1 + 1e-9)


def _allotted(mass: np.ndarray, pairs: int, seed: int) -> np.ndarray:
    """How many pairs each size gets: in expectation by its mass, and never off by one or more."""
    if not len(mass):
        return np.zeros(0, int)
    upper = np.cumsum(mass) / mass.sum() * pairs
    points = np.arange(pairs) + backend.random_uniform(seed, (1,))
    position = np.minimum(np.searchsorted(upper, points, side="right"), len(mass) - 1)
    return np.bincount(position, minlength=len(mass))


def _all_of(count: int, size: int) -> np.ndarray:
    """All coalitions of a size, and their complements."""
    chosen = np.array(list(itertools.combinations(range(count), size)))
    present = np.zeros((len(chosen), count), bool)
    np.put_along_axis(present, chosen, True, axis=1)
    return present if 2 * size == count else np.concatenate([present, ~present])


def _some_of(count: int, size: int, pairs: int, seed: int) -> np.ndarray:
    """Random coalitions of a size, no two alike, and their complements, `[2 pairs, count]`."""
    found = np.zeros((0, count), bool)
    for attempt in itertools.count():
        if len(found) >= pairs:
            break
        keys = backend.random_uniform(seed, (2 * pairs, count), stream=size * 2**16 + attempt)
        drawn = keys.argsort(axis=1).argsort(axis=1) < size
        if 2 * size == count:
            drawn ^= ~drawn[:, :1]  # of a pair of equal sizes the one with the first feature
        found = np.concatenate([found, drawn])
        _, first = np.unique(np.packbits(found, axis=1), axis=0, return_index=True)
        found = found[np.sort(first)]
    return np.concatenate([found[:pairs], ~found[:pairs]])


@functools.lru_cache(maxsize=8)
def _regression(data: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What the scores are multiplied by for the values less their mean, which sum to zero.

    It is the weighted least-squares fit to what scores differ from `gain * |S| / M`: what they
    would be if all features were worth the same.

    Args:
        data: The coalitions `[S, count]`, booleans.
        count: The number of features.

    Returns:
        `[count, S]` for the coalitions' scores, and `[count]` for the whole one's, to be taken off.
    """
    present = np.frombuffer(data, bool).reshape(-1, count)
    share = present.mean(axis=1)
    centred = present - share[:, None]
    weighted = (centred * _weights(present)[:, None]).T
    gram = backend.matmul(weighted, centred)
    gram += np.trace(gram) / count**2 or 1.0  # so that it can be inverted; fits sum to 0 as before
    project = backend.solve(gram, weighted)
    return project, backend.matmul(project, share[:, None])[:, 0]


def _weights(present: np.ndarray) -> np.ndarray:
    """The kernel's weight of each coalition, `[S]`.

    Those of sizes that are not complete weigh alike, and together as all of these sizes would.
    """
    M, size = present.shape[1], present.sum(axis=1)
    sizes = range(1, M)
    mass = np.array([(M - 1) / (s * (M - s)) for s in sizes])  # of all coalitions of a size
    number = np.bincount(size, minlength=M)[1:]
    complete = np.array([n == math.comb(M, s) for n, s in zip(number, sizes, strict=True)], bool)
    drawn = mass[~complete].sum() / max(1, number[~complete].sum())
    return np.where(complete, mass / np.maximum(1, number), drawn)[size - 1]
