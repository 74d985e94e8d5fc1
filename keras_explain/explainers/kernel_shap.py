"""KernelSHAP: Shapley values from the scores of some coalitions."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.cut import Cut
from keras_explain.core.model.forward import Forward
from keras_explain.core.run.plan import Share
from keras_explain.core.run.sureness import doubled
from keras_explain.core.sampled import Sampled
from keras_explain.explainers import gaussian_process
from keras_explain.explainers.shapley import ShapleyValues

Nest = Any
Solver = Literal["regression", "gaussian_process", "scaled_gaussian_process"]

PROCESSES = ("gaussian_process", "scaled_gaussian_process")
SOLVERS = ("regression", *PROCESSES)
SLOWER = 5.0  # an operation of a solve than one of a network, as measured
MOST_PAIRS = 2048  # of a Gaussian process: its matrices must fit into memory
LISTED = 4096  # coalitions of a size, up to which they are listed to draw from


class KernelSHAP(Sampled, ShapleyValues):
    """Shapley values from the scores of some coalitions S of M features, and of their complements.

    `values = argmin of sum over S of p(S) (v(S) - base - sum over i in S of values_i)^2`,
    `p(S) = (M - 1) / (C(M, |S|) |S| (M - |S|))`, where the values sum to `S_c(x) - base` exactly

    `v(S)` is the score where only the features in S are visible, and `base` that where none is. As
    long as `samples` reaches for all coalitions, the values are exact. Else those of one feature
    are taken, and of the others some are drawn at random, none twice and as many of each size.

    `solver="regression"` solves this for the coalitions drawn, each of which stands for those of
    its size. `"gaussian_process"` takes the values that are to be expected of games that are as
    smooth as the scores say (0.6 of the error on networks with ReLU, less where they are smooth),
    and `"scaled_gaussian_process"` does so with a scale for each feature, at more work a sample.
    `"auto"` takes the last of these that takes less time than the passes, by the number of
    operations of each. `extras["solver"]` says which it was: 0, 1 or 2, in this order.

    `extras["standard_error"]`, of the shape of the values, is 0 where they are exact; by a Gaussian
    process it is larger where pairs are further off than the others foretell. Each place of a
    feature has the feature's whole value. `extras["base_values"]` `[B]` is `base`,
    `extras["convergence_delta"]` `[B]` the sum over features less what it should be.

    Args:
        samples: The number of coalitions, apart from the empty and the whole one; by default
            `2 M + 2048`. With `"auto"`, a sample takes as many as it needs, from `4 M` on.
        solver: `"auto"`, `"regression"`, `"gaussian_process"` or `"scaled_gaussian_process"`. The
            latter two take at most 4096 samples.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        features: As in `FeatureAblation`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Raises:
        ValueError: `samples` are fewer than the coalitions of one feature, or of all but one; or
            more than a Gaussian process takes.

    Reference:
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874), theorem 2
        - [Covert and Lee, 2021](https://arxiv.org/abs/2012.01536): paired sampling
        - [Musco and Witter, 2024](https://arxiv.org/abs/2410.01917): as many of each size
    """

    samples: int | Literal["auto"] | None = None
    solver: Literal["auto"] | Solver = "auto"

    of_features: ClassVar[frozenset[str]] = frozenset({"standard_error"})

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("solver", self.solver, ("auto", *SOLVERS))

    # The coalitions

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        return _sequence(count, self._pairs(count), seed)

    def stops(self, count: int) -> Sequence[int]:
        if not self.is_auto:
            return ()
        most = self._pairs(count)
        return [1 + 2 * pairs for pairs in doubled(min(2 * count, most), most)]

    def _pairs(self, count: int) -> int:
        """The most pairs of coalitions that a sample of so many features takes."""
        every = 2 ** (count - 1) - 1
        least = 2 * min(count, every)
        name, given = ("max_passes", self.limit) if self.is_auto else ("samples", self.samples)
        samples = 2 * count + 2048 if given is None else int(given) - self.is_auto
        if samples < least:
            raise ValueError(
                f"Expected at least {least + self.is_auto} {name} for {count} features, two a "
                f"feature. Received: {name}={given}. Take more, or fewer features, by `groups=` or "
                "`features=`."
            )
        pairs = min(samples // 2, every)
        if self.solver in PROCESSES and pairs > MOST_PAIRS:
            if self.is_auto:
                return MOST_PAIRS
            if pairs < every:
                raise ValueError(
                    f"Expected at most {2 * MOST_PAIRS} samples for a Gaussian process, whose "
                    f"matrices must fit into memory. Received: {2 * pairs}, for {count} features, "
                    f'and solver={self.solver!r}. Take fewer, or solver="regression".'
                )
        return pairs

    # The solver

    def shares(self, forward: Forward, seed: int) -> list[Share]:
        shares = super().shares(forward, seed)
        if self.solver != "auto":
            return shares
        cost = self.hiding.rows * forward.multiplications
        return [replace(share, kept=_Costed(**vars(share.kept), cost=cost)) for share in shares]

    def afterwards(self, x: Nest, result: dict[str, Any], share: Share) -> dict[str, Any]:
        if self.solver == "auto":
            present = share.passes["present"]
            pairs, M = (len(present) // self.hiding.rows - 1) // 2, present.shape[1]
            solver = _worth(pairs, M, 2 * pairs * share.kept.cost)
            chosen = self.mapped(lambda name, value: solver if name == "solver" else value)
            return chosen.afterwards(x, result, share)
        found = super().afterwards(x, result, share)
        number = np.full(result["scores"].shape, SOLVERS.index(self.solver), np.int32)
        return found | {"solver": number}

    def shapley(self, present: np.ndarray, gains: np.ndarray, gain: np.ndarray) -> Any:
        S, M = present.shape
        exact = S == 2**M - 2
        if exact:
            order = _outside_in(present)
            present, gains = present[order], gains[:, order]
        by_row = np.moveaxis(gains, 1, -1).reshape(gain.size, S)  # [n * K, S]
        if self.solver in PROCESSES and not exact:
            odd = (by_row[:, ::2] - by_row[:, 1::2]).T / 2
            scaled = self.solver == PROCESSES[-1]
            found = gaussian_process.solve(present[::2], odd, gain.ravel(), scaled=scaled)
        else:
            found = _regressed(present, by_row, gain.reshape(-1, 1))
        values, error = (part.reshape(*gain.shape, M) for part in found)
        if not exact and S < 3 * M:  # too few beside those of one feature
            varies = by_row.any(axis=1).reshape(*gain.shape, 1)
            error = np.where(varies, np.nan, error)
        return values, {"standard_error": error}


@dataclass(frozen=True, eq=False)
class _Costed(Cut):
    """Features, and how many multiplications the scores of a coalition take."""

    cost: int


def _worth(pairs: int, M: int, network: float) -> str:
    """The best solver that takes less time than the passes.

    What is counted is the same on every machine, so that values are.

    Args:
        pairs: The number of pairs of coalitions.
        M: The number of features.
        network: How many multiplications their scores take.
    """
    if pairs == 2 ** (M - 1) - 1:
        return "regression"  # which is exact
    for solver in reversed(PROCESSES):
        scaled = solver == PROCESSES[-1]
        cost = SLOWER * gaussian_process.operations(pairs, M, scaled=scaled)
        if pairs <= MOST_PAIRS and cost <= network:
            return solver
    return "regression"


# The coalitions: those of one feature, then as many of each size


@functools.lru_cache(maxsize=32)
def _sequence(count: int, pairs: int, seed: int) -> np.ndarray:
    """The empty coalition, then pairs of one and its complement, `[1 + 2 * pairs, count]`.

    Fewer pairs are the beginning.
    """
    size = _sizes(count, pairs, seed)
    found = np.zeros((pairs, count), bool)
    for number in np.unique(size):
        places = size == number
        found[places] = _drawn(count, int(number), int(places.sum()), seed)
    both = np.stack([found, ~found], axis=1).reshape(-1, count)
    sequence = np.concatenate([np.zeros((1, count), bool), both])
    sequence.setflags(write=False)
    return sequence


def _sizes(count: int, pairs: int, seed: int) -> np.ndarray:
    """The size of the smaller one of each pair, `[pairs]`.

    After those of one feature each size has one pair a round, as long as there are any, and of two
    equal sizes one in two rounds: the places of a size within a round are random.
    """
    sizes = np.arange(2, count // 2 + 1)
    singles = np.ones(min(pairs, _number(count, 1)), int)
    left = pairs - len(singles)
    if not left:
        return singles
    number = np.array([min(left, _number(count, int(size))) for size in sizes])
    rounds, every = 1, np.where(2 * sizes == count, 2, 1)
    while np.minimum(number, rounds // every).sum() < left:
        rounds *= 2
    number = np.minimum(number, rounds)
    offset = backend.random_uniform(seed, (len(sizes),))
    parts = zip(every, number, offset, strict=True)
    times = np.concatenate([each * (np.arange(n) + first) for each, n, first in parts])
    order = np.argsort(times, kind="stable")[:left]
    return np.concatenate([singles, np.repeat(sizes, number)[order]])


def _number(count: int, size: int) -> int:
    """How many pairs have a coalition of a size."""
    return math.comb(count, size) // (1 + (2 * size == count))


def _drawn(count: int, size: int, pairs: int, seed: int) -> np.ndarray:
    """Random coalitions of a size, no two alike or complements, `[pairs, count]`.

    Fewer are the beginning.
    """
    number = _number(count, size)
    if number <= LISTED:
        listed = itertools.islice(itertools.combinations(range(count), size), number)
        order = backend.random_permutation(seed, number, stream=size)[:pairs]
        present = np.zeros((pairs, count), bool)
        np.put_along_axis(present, np.array(list(listed))[order], True, axis=1)
        return present
    draws = pairs
    while True:
        keys = backend.random_uniform(seed, (draws, count), stream=size)
        drawn = keys.argsort(axis=1).argsort(axis=1) < size
        if 2 * size == count:
            drawn ^= ~drawn[:, :1]  # of a pair of equal sizes the one with the first feature
        _, first = np.unique(np.packbits(drawn, axis=1), axis=0, return_index=True)
        if len(first) >= pairs:
            return drawn[np.sort(first)[:pairs]]
        draws *= 2


def _outside_in(present: np.ndarray) -> np.ndarray:
    """The order of all coalitions in which sizes go from the outside in, each as it is counted."""
    M, size = present.shape[1], present.sum(axis=1)
    smaller = np.where((2 * size > M)[:, None], ~present, present)
    number = smaller @ 2 ** np.arange(M)[::-1]
    return np.lexsort((-number, 2 * size > M, np.minimum(size, M - size)))


# The regression


def _regressed(
    present: np.ndarray, gains: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values of R games and their standard errors, `[R, M]`.

    `variance of value i = sum over pairs of (1 - f) (a_i e / (1 - h))^2`, where `a_i` is the pair's
    weight in the value, `e / (1 - h)` how far it is off from what the others foretell (e from the
    fit, of which it has the leverage h), and f the share of its size that was taken.

    Args:
        present: The coalitions, each followed by its complement where they are not all, `[S, M]`.
        gains: `v` of each, `[R, S]`.
        gain: `v` of the whole one, `[R, 1]`.
    """
    S, M = present.shape
    project, even = _regression(present.tobytes(), M)
    values = gain / M + (backend.matmul(gains, project.T) - gain * even)
    if S == 2**M - 2:
        return values, np.zeros_like(values)
    taken = _taken(present)[::2]
    if 2 * (taken < 1).sum() < M:  # too few were drawn
        return values, np.where(gains.any(axis=1, keepdims=True), np.nan, 0 * values)
    signs, weight = 2.0 * present[::2] - 1, project[:, ::2] - project[:, 1::2]
    leverage = (signs.T * weight).sum(axis=0) / 2
    residual = (gains[:, ::2] - gains[:, 1::2] - backend.matmul(values, signs.T)) / 2
    spread = weight**2 * (1 - taken) / (1 - leverage) ** 2
    return values, np.sqrt(backend.matmul(residual**2, spread.T))


def _taken(present: np.ndarray) -> np.ndarray:
    """The share of the coalitions of its size that was taken with each, `[S]`."""
    M, size = present.shape[1], present.sum(axis=1)
    number = np.bincount(size, minlength=M)
    return np.array([int(n) / math.comb(M, s) for s, n in enumerate(number)])[size]


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
    """The kernel's weight of each coalition, `[S]`: those drawn weigh as all of their size would.

    As many are drawn of each size, in expectation.
    """
    M, size = present.shape[1], present.sum(axis=1)
    sizes = range(1, M)
    mass = np.array([(M - 1) / (s * (M - s)) for s in sizes])  # of all coalitions of a size
    number = np.bincount(size, minlength=M)[1:]
    partial = np.array([n < math.comb(M, s) for n, s in zip(number, sizes, strict=True)], bool)
    expected = np.where(partial, number[partial].sum() / max(1, partial.sum()), number)
    return (mass / np.maximum(expected, 1))[size - 1]
