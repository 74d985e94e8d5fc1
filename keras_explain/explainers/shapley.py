"""Shapley values: what a feature adds to the score, on average over all orders of features."""

import abc
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from keras_explain import backend
from keras_explain.core.hiding.perturbation import Coalitions
from keras_explain.core.run.plan import Plan
from keras_explain.core.run.sureness import doubled
from keras_explain.core.sampled import Sampled

TOGETHER = 64  # orders at right angles
MOST = 20  # features of which all coalitions are taken: about a million


class ShapleyValues(Coalitions, abc.ABC):
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


class ExactShapley(ShapleyValues):
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


class ShapleySampling(Sampled, ShapleyValues):
    """Shapley values as means over random orders in which features appear, one after the other.

    `value of feature i = mean over orders of v(those before i, and i) - v(those before i)`

    `v(S)` is the score where only the features in S are visible. Each order is also taken
    backwards. Orders are those of the numbers in random directions at right angles, so that they
    make up for one another. In every order the values of the features sum to `S_c(x) - v(nothing)`,
    so they do on average. Each place of a feature has the feature's whole value.

    `extras["standard_error"]`, of the shape of `values`, is the standard deviation of the means of
    an order and its reverse, divided by the root of their number, which is a little more than the
    error, as orders are not independent. `extras["base_values"]` `[B]` is
    `v(nothing)`, `extras["convergence_delta"]` `[B]` the sum over features less what it should be.

    Args:
        samples: The number of orders with their reverse, 2 or more: the score is asked
            `2 * samples * (M - 1)` times for M features. With `"auto"`, a sample takes as many as
            it needs, from 8 on.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        features: As in `FeatureAblation`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Raises:
        ValueError: `max_passes` are fewer than those of two orders and their reverse.

    Reference:
        - [Castro et al., 2009](https://doi.org/10.1016/j.cor.2008.04.004)
        - [Strumbelj and Kononenko, 2010](https://jmlr.org/papers/v11/strumbelj10a.html),
          algorithm 1
        - [Mitchell et al., 2022](https://arxiv.org/abs/2104.12199): reversed, orthogonal
    """

    samples: int | Literal["auto"] = 25

    of_features: ClassVar[frozenset[str]] = frozenset({"standard_error"})
    fewest: ClassVar[int] = 2

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        rank = _ranks(count, self._orders(count), seed)
        before = rank[:, None] < np.arange(1, count)[:, None]  # [orders, M - 1, M]
        both = np.stack([before, ~before[:, ::-1]], axis=1)
        return np.concatenate([np.zeros((1, count), bool), both.reshape(-1, count)])

    def stops(self, count: int) -> Sequence[int]:
        if not self.is_auto:
            return ()
        most = self._orders(count)
        return [1 + 2 * orders * (count - 1) for orders in doubled(min(8, most), most)]

    def _orders(self, count: int) -> int:
        """The most orders that a sample of so many features takes."""
        if not isinstance(self.samples, str):
            return self.samples
        orders = (self.limit - 1) // (2 * max(1, count - 1))
        if orders < 2:
            raise ValueError(
                f"Expected max_passes of {4 * count - 3} or more for {count} features: those of "
                f"two orders and their reverse. Received: max_passes={self.limit}."
            )
        return orders

    def shapley(self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray) -> Any:
        n, M, K = len(gains), present.shape[1], gains.shape[-1]
        orders = len(present) // (2 * (M - 1)) if M > 1 else self.fewest
        chains = (orders, 2, M - 1)
        ends = np.zeros((n, *chains[:2], 1, K))
        whole = ends + gain[:, None, None, None]
        steps = np.diff(gains.reshape(n, *chains, K), axis=3, prepend=ends, append=whole)
        rank = M - 1 - present.reshape(*chains, M).sum(axis=2)  # [orders, 2, M]
        added = np.take_along_axis(steps, rank[None, ..., None], axis=3)  # [n, orders, 2, M, K]
        means = np.swapaxes(added.mean(axis=2), 2, 3)
        error = means.std(axis=1, ddof=1) / math.sqrt(orders)
        return means.mean(axis=1), {"standard_error": error}


def _ranks(count: int, orders: int, seed: int) -> np.ndarray:
    """The place of each feature in random orders, `[orders, count]`; fewer are the beginning."""
    if count == 1:
        return np.zeros((orders, 1), int)
    at_once = min(count - 1, TOGETHER)
    streams = range(-(-orders // at_once))
    blocks = [backend.random_directions(seed, at_once, count, stream) for stream in streams]
    return np.concatenate(blocks)[:orders].argsort(axis=1).argsort(axis=1)
