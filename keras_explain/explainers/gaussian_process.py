"""Shapley values of a game of which some pairs of coalitions are known, by a Gaussian process.

Shapley values see only the odd part of a game, `o(x) = (v(S) - v(not S)) / 2`, where x has 1 for
each feature in S and -1 for each other one. It is a sum of `a_T prod of x_i over i in T` over the
sets T of an odd number of features, of which the value of feature i is
`sum over T with i of 2 a_T / |T|`. The coefficients `a_T` are taken for independent normal numbers,
whose variances fall with |T|; so `o` is a Gaussian process, and its values at some pairs tell the
Shapley values, and how sure these are.

With the variance `prod of l_i over i in T`, the covariance of `o(x)` and `o(y)` is
`(prod (1 + l_i x_i y_i) - prod (1 - l_i x_i y_i)) / 2 = exp(s) sinh(sum of x_i y_i atanh(l_i))`,
`s = sum of log(1 - l_i^2) / 2`. The prior is a sum of such terms with `l_i = c / M`, from
`c = 1/4` (games that are nearly linear) to 16 (wild ones); each is worth `decay` times the one
before. The decay and the variance as a whole are those that make the scores likeliest. A wide
term is linear.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_explain import backend

STRENGTHS = (0.25, 1.0, 4.0, 16.0)
DECAYS = tuple(4.0**-power for power in range(6))
LINEAR = 10.0
NOISE = 1e-9  # of the variance: what float32 leaves of scores
STRONGEST = 0.9  # l_i
LEAST = 0.1  # scale of a feature
NODES = 40


class Prior(NamedTuple):
    """What is thought of a game before its scores.

    Attributes:
        covariance: Of the odd part at the pairs and at others, `[P, Q]`.
        cross: Of the Shapley values with it, `[M, P]`.
        variance: Of the Shapley values, `[M]`.
    """

    covariance: np.ndarray
    cross: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class Process:
    """A prior, with the pairs at which a game is known.

    Attributes:
        factor: The Cholesky factor of the covariance, `[P, P]`.
        weights: By which the odd part is multiplied for the Shapley values, `[M, P]`.
        variance: Of the Shapley values where the odd part is known, `[M]`.
        log_determinant: Of the covariance.
    """

    factor: np.ndarray
    weights: np.ndarray
    variance: np.ndarray
    log_determinant: float

    @classmethod
    def of(cls, prior: Prior) -> "Process":
        """The last pair, whole and empty, is known exactly."""
        noise = np.full(len(prior.covariance), NOISE * prior.covariance[-1, -1])
        noise[-1] = 0.0
        factor = backend.cholesky(prior.covariance + np.diag(noise))
        weights = backend.cholesky_solve(factor, prior.cross.T).T
        variance = prior.variance - (weights * prior.cross).sum(axis=1)
        log_determinant = 2 * float(np.log(np.diag(factor)).sum())
        return cls(factor, weights, np.maximum(variance, 0), log_determinant)

    @functools.cached_property
    def precision(self) -> np.ndarray:
        """The diagonal of the covariance's inverse, `[P]`."""
        inverse = backend.triangular_solve(self.factor, np.eye(len(self.factor)))
        return (inverse**2).sum(axis=0)

    def likelihood(self, odd: np.ndarray) -> np.ndarray:
        """The logarithm of the density of the odd parts `[P, R]` of R games, each at its level."""
        level = np.maximum(self._level(odd), np.finfo(float).tiny)
        return -(len(odd) * np.log(level) + self.log_determinant) / 2

    def values(self, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Shapley values of R games and their standard errors, `[R, M]`.

        What each pair is off from what the others foretell, in units of how sure they are, is 1 on
        average (of squares) where the prior suits the game. Where it is more, the errors are that
        much larger.
        """
        solved = backend.cholesky_solve(self.factor, odd)[:-1]
        off = (solved**2 / self.precision[:-1, None]).mean(axis=0)
        level = np.maximum(self._level(odd), off)
        return backend.matmul(self.weights, odd).T, np.sqrt(level[:, None] * self.variance)

    def _level(self, odd: np.ndarray) -> np.ndarray:
        """By what the variances are multiplied where a game is likeliest, `[R]`."""
        return (backend.triangular_solve(self.factor, odd) ** 2).mean(axis=0)


def solve(
    present: np.ndarray, odd: np.ndarray, gain: np.ndarray, *, scaled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The Shapley values of R games, and their standard errors, `[R, M]`.

    Args:
        present: Which features are in one coalition of each pair, booleans `[P, M]`.
        odd: Half of how much higher the score is there than at the complement, `[P, R]`.
        gain: How much higher the score of the whole is than that of nothing, `[R]`.
        scaled: Whether each feature of each game has a scale of its own, by the root of the value
            that it has with one scale for all, where that makes the scores likelier.
    """
    M = present.shape[1]
    ends = np.concatenate([present, np.ones((1, M), bool)])
    odd = np.concatenate([odd, gain[None] / 2])
    data = ends.tobytes()
    likelihood = [_by_count(data, M, decay).likelihood(odd) for decay in DECAYS]
    best = np.argmax(likelihood, axis=0)
    values, error = np.empty((2, len(gain), M))
    for number in np.unique(best):
        some = np.flatnonzero(best == number)
        values[some], error[some] = _by_count(data, M, DECAYS[number]).values(odd[:, some])
    for r in np.flatnonzero(odd.any(axis=0)) if scaled else ():
        own = Process.of(scaled_prior(ends, ends, DECAYS[best[r]], _scales(values[r])))
        if own.likelihood(odd[:, [r]])[0] > likelihood[best[r]][r]:
            values[[r]], error[[r]] = own.values(odd[:, [r]])
    return values + (gain - values.sum(axis=1))[:, None] / M, error


def operations(pairs: int, M: int, *, scaled: bool) -> float:
    """About how many multiplications `solve` takes for one game.

    What is made of the coalitions alone is kept, and taken to serve 16 games.
    """
    shared = (len(DECAYS) / 3 + 1) * pairs**3 / 16
    own = 2 * len(DECAYS) * pairs**2
    return shared + own + scaled * (pairs**3 + len(STRENGTHS) * pairs**2 * (2 * M + 30))


# Priors


@functools.lru_cache(maxsize=len(DECAYS))
def _by_count(data: bytes, M: int, decay: float) -> Process:
    """With one scale for all features.

    Covariances then depend on counts alone, so they are looked up: that of two pairs by how many
    features are in both or in neither, that of a value with a pair by whether the feature is there
    and how many are.
    """
    present = np.frombuffer(data, bool).reshape(-1, M)
    first = np.tri(M + 1, M, -1, dtype=bool)  # the first k features, for each k
    table = scaled_prior(first, first[-1:], decay, np.ones(M))
    signs = _signs(present)
    alike = ((backend.matmul(signs, signs.T) + M) / 2).round().astype(int)
    count = present.sum(axis=1)
    cross = np.where(present, table.cross[0, count][:, None], table.cross[-1, count][:, None])
    return Process.of(Prior(table.covariance[alike, 0], cross.T, table.variance))


def scaled_prior(
    present: np.ndarray, others: np.ndarray, decay: float, scales: np.ndarray
) -> Prior:
    """The prior with `l_i = c * scales_i / M`, and the linear term.

    Args:
        present: One coalition of each pair, booleans `[P, M]`.
        others: Those with which their covariance is, `[Q, M]`.
        decay: What each strength c is worth, of what the one before is.
        scales: `[M]`.
    """
    signs, other, M = _signs(present), _signs(others), present.shape[1]
    terms = [_term(signs, other, np.minimum(c / M * scales, STRONGEST)) for c in STRENGTHS]
    linear = LINEAR / M
    covariance, cross, variance = (
        sum(decay**power * part for power, part in enumerate(parts))
        for parts in zip(*terms, strict=True)
    )
    return Prior(
        covariance + linear * backend.matmul(signs, other.T),
        cross + 2 * linear * signs.T,
        variance + 4 * linear,
    )


def _term(signs: np.ndarray, others: np.ndarray, lengths: np.ndarray) -> Prior:
    """The prior of one strength, less its scale: that of the whole has the variance 1.

    Args:
        signs: 1 for each feature that is there, -1 for others, `[P, M]`.
        others: Likewise, `[Q, M]`.
        lengths: The `l_i`, `[M]`.
    """
    angles = np.arctanh(lengths)
    most = angles.sum()
    exponent = backend.matmul(signs * angles, others.T)
    covariance = np.exp(exponent - most) - np.exp(-exponent - most)
    size = (1 - np.exp(-2 * most)) * np.exp(most + np.log1p(-(lengths**2)).sum() / 2) / 2
    cross, variance = _cross(signs, lengths), _variance(lengths)
    return Prior(covariance / (1 - np.exp(-2 * most)), cross / size, variance / size)


def _cross(signs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`l_i y_i` times the integral over u in [-1, 1] of `prod of (1 + u l_j y_j) over j but i`."""
    u, weight = _legendre(len(lengths))
    each = u[:, None] * lengths  # [nodes, M]
    exponent = backend.matmul(signs, np.arctanh(each).T) + np.log1p(-(each**2)).sum(axis=1) / 2
    product = np.exp(exponent) * weight  # [P, nodes]
    there, absent = (backend.matmul(product, 1 / (1 + sign * each)) for sign in (1, -1))
    return (lengths * signs * np.where(signs > 0, there, absent)).T


def _variance(lengths: np.ndarray) -> np.ndarray:
    """`4 l_i` times the integral of the even part of `prod of (1 + t l_j) over j but i`.

    It is over t = u v, for u and v in [0, 1].
    """
    u, weight = _legendre(len(lengths))
    t, weight = np.outer(u, (u + 1) / 2).ravel(), np.outer(weight, weight / 2).ravel()
    each = t[:, None] * lengths
    product = np.exp(np.log1p(each).sum(axis=1)) * weight / 2
    return 4 * lengths * (product[:, None] / (1 + each)).sum(axis=0)


def _legendre(M: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in [-1, 1], and weights, that are exact for the products of M - 1 factors."""
    return np.polynomial.legendre.leggauss(min(M // 2 + 2, NODES))


def _signs(present: np.ndarray) -> np.ndarray:
    return 2.0 * present - 1


def _scales(values: np.ndarray) -> np.ndarray:
    """The scale of each feature: 1 on average, and more where its value `[M]` is larger."""
    root = np.sqrt(np.abs(values))
    return (1 - LEAST) * root / root.mean() + LEAST
