"""LIME: a linear model that is true near the input."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding import designs
from keras_explain.core.hiding.perturbation import Coalitions
from keras_explain.core.sampled import Sampled

_DISTANCES = ("cosine", "hamming")
_REGRESSIONS = ("ridge", "lasso")
_SELECTIONS = ("auto", "forward_selection", "highest_weights", "lasso_path")
_FEW = 6  # up to so many features, "auto" selects forward, as the authors' code does
_KNOTS = 500  # of a lasso's path that are looked at
_SLIGHT = 0.01  # the penalty of the model whose highest weights are looked for
_SAMPLES = 1000  # whose penalty is alpha
_ENTRIES = 2**24  # of the matrices of blocks that are in memory at once


class LIME(Sampled, Coalitions):
    """The weights of a linear model that agrees with the score near the input.

    Each sample hides every feature with probability 1/2; z' in {0, 1}^M says which are present, and
    the first sample hides none. From two samples a feature on they are a random folded-over
    fraction of all coalitions, which spreads them evenly; fewer are drawn independently. Of n
    samples, the local model g minimises

    `sum over z' of pi(z') * (S_c(z') - g(z'))^2 + alpha * n / 1000 * penalty(w)`,
    `g(z') = b + w . z'`, `pi(z') = exp(-d(z')^2 / (2 * kernel_width^2))`

    `values` are w at each place of a feature: what is positive speaks for the score (pros), what is
    negative against it (cons). They have the input's shape, without channels where a feature takes
    all of them (`[B, H, W]`, `[B, T]`). In `extras`:

    - `"standard_error"` of the values, beside what infinitely many samples would give: of the
      weights without each of R = 16 blocks of consecutive samples in turn,
      `sqrt((R - 1) / R * sum over blocks of (w without it - w)^2)`. It is for the features that
      are used; others have NaN, as all have where the rest of the samples does not say what each
      feature does. With fewer than about three samples a feature it is too large; that other
      samples might select other features, it does not know.
    - each `[B]`: `"r2"`, how much of the score's weighted variance the local model explains (1 at
      most; also 1 for a constant score); `"intercept"`, b; `"local_prediction"`, g at the input
      itself; `"relative_error"` and `"passes"`, as for each method that draws samples.

    Args:
        features: As in `FeatureAblation`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.
        samples: The number of samples, 2 or more, the input among them; or `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        kernel_width: How near a sample must be to count, in units of `distance` (which is 1 where
            all is hidden).
        distance: `"cosine"`, `1 - sqrt(share of features present)`, as in the authors' code; or
            `"hamming"`, the share of features hidden.
        regression: `"ridge"`, with the penalty `sum of w^2`, or `"lasso"`, `sum of |w|`.
        alpha: The factor of the penalty for 1000 samples, which grows with their number, so that
            the values do not depend on it; 0 for least squares.
        top_features: How many features the local model may use at most; by default all. The values
            of the others are 0.
        selection: How these are found. `"forward_selection"`: one by one, each time the one that
            explains most; `"highest_weights"`: the greatest |w| of a slight ridge model of all
            features; `"lasso_path"`: those that the lasso keeps longest as its penalty grows;
            `"auto"`: forward up to 6 features, else the highest weights.

    Reference:
        - [Ribeiro et al., 2016](https://arxiv.org/abs/1602.04938), equations 1 and 2
    """

    of_features: ClassVar[frozenset[str]] = frozenset({"standard_error"})
    fewest: ClassVar[int] = 2

    samples: int | Literal["auto"] = 1000
    kernel_width: float = 0.25
    distance: Literal["cosine", "hamming"] = "cosine"
    regression: Literal["ridge", "lasso"] = "ridge"
    alpha: float = 1.0
    top_features: int | None = None
    selection: Literal["auto", "forward_selection", "highest_weights", "lasso_path"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("alpha", self.alpha)
        checks.share("kernel_width", self.kernel_width)
        if self.kernel_width == 0:
            raise ValueError("Expected `kernel_width` above 0. Received: kernel_width=0.")
        if self.top_features is not None:
            checks.count("top_features", self.top_features)
        checks.choice("distance", self.distance, _DISTANCES)
        checks.choice("regression", self.regression, _REGRESSIONS)
        checks.choice("selection", self.selection, _SELECTIONS)

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        number = self.limit if self.samples == "auto" else self.samples
        present = designs.halves(seed, number, count)
        present[0] = True
        return present

    def stops(self, count: int) -> Sequence[int]:
        return designs.stops(count, self.limit) if self.is_auto else ()

    def values_of(self, present: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        n, passes, classes = scores.shape
        z = present.astype(np.float64)
        rises = np.moveaxis(scores - whole[:, None], 1, 0).reshape(passes, n * classes)
        weights = self._proximity(z)
        w, b, errors = self._local_models(z, rises, weights)
        fitted = backend.matmul(z, w) + b
        extras = {
            "r2": _explained(rises, fitted, weights),
            "intercept": whole.reshape(-1) + b,
            "local_prediction": whole.reshape(-1) + fitted[0],
        }
        extras = {name: extra.reshape(n, classes) for name, extra in extras.items()}
        errors = np.where(rises.any(axis=0), errors, 0.0)
        extras["standard_error"] = errors.T.reshape(n, classes, -1)
        return w.T.reshape(n, classes, -1), extras

    def _proximity(self, z: np.ndarray) -> np.ndarray:
        share = z.mean(axis=1)
        distance = 1 - np.sqrt(share) if self.distance == "cosine" else 1 - share
        return np.exp(-((distance / self.kernel_width) ** 2) / 2)

    def _local_models(
        self, z: np.ndarray, y: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A linear model for each column of `y` `[passes, n]`.

        Its w `[M, n]`, b `[n]`, and the standard errors of w, NaN where a feature is not used.
        """
        top = self.top_features
        if top is None or top >= z.shape[1]:
            w, b = self._regressed(z, y, weights)
            return w, b, self._errors(z, y, weights, w)
        w, b = np.zeros((z.shape[1], y.shape[1])), np.zeros(y.shape[1])
        errors = np.full_like(w, np.nan)
        for i, used in enumerate(self._selected(z, y, weights, top)):
            one = slice(i, i + 1)
            found, b[one] = self._regressed(z[:, used], y[:, one], weights)
            w[used, one] = found
            errors[used, one] = self._errors(z[:, used], y[:, one], weights, found)
        return w, b, errors

    def _errors(
        self, z: np.ndarray, y: np.ndarray, weights: np.ndarray, w: np.ndarray
    ) -> np.ndarray:
        """The standard errors of weights `[M, n]`; of a lasso, those of what it keeps."""
        penalty = self._penalty(z)
        if self.regression == "ridge" or penalty == 0:
            return _jackknifed(z, y, weights, w, penalty)
        errors = np.full_like(w, np.nan)
        for i, kept in enumerate(w.T != 0):
            one = slice(i, i + 1)
            slope = penalty / 2 * np.sign(w[kept, one])
            part = z[:, kept], y[:, one], weights, w[kept, one]
            errors[kept, one] = _jackknifed(*part, slope=slope)
        return errors

    def _penalty(self, z: np.ndarray) -> float:
        return self.alpha * len(z) / _SAMPLES

    def _regressed(
        self, z: np.ndarray, y: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import Lasso

        if z.shape[1] == 0:
            return np.zeros((0, y.shape[1])), np.average(y, axis=0, weights=weights)
        penalty = self._penalty(z)
        if penalty == 0:
            w = np.linalg.lstsq(_centred(z, weights), _centred(y, weights))[0]
            return w, _intercept(z, y, weights, w)
        if self.regression == "ridge":
            return _ridge(z, y, weights, penalty)
        w, b = np.zeros((z.shape[1], y.shape[1])), np.average(y, axis=0, weights=weights)
        varies = _centred(y, weights).any(axis=0)  # a lasso of what is constant does not converge
        if varies.any():
            # scikit-learn's lasso has half the mean of the squares where ours has their sum
            model = Lasso(penalty / (2 * weights.sum()), tol=1e-6, random_state=0)
            # Without the first it draws from NumPy's global generator; its checks of the input
            # would change the process's filters of warnings for a moment.
            model.fit(np.asfortranarray(z), y[:, varies], weights, check_input=False)
            w[:, varies] = model.coef_.reshape(-1, z.shape[1]).T
            b[varies] = model.intercept_
        return w, b

    def _selected(
        self, z: np.ndarray, y: np.ndarray, weights: np.ndarray, top: int
    ) -> list[np.ndarray]:
        """The features that the local model of each column of `y` may use."""
        selection = self.selection
        if selection == "auto":
            selection = "forward_selection" if top <= _FEW else "highest_weights"
        if selection == "highest_weights":
            w = self.replace(regression="ridge", alpha=_SLIGHT)._regressed(z, y, weights)[0]
            return list(np.argsort(-np.abs(w), axis=0, kind="stable")[:top].T)
        select = _forward if selection == "forward_selection" else _on_lasso_path
        z, y = _centred(z, weights), _centred(y, weights)
        return [select(z, column, top) for column in y.T]


def _ridge(
    z: np.ndarray, y: np.ndarray, weights: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """The weights `[M, n]` and intercepts `[n]` of a ridge regression."""
    centred = _centred(z, weights)
    gram = backend.matmul(centred.T, centred) + alpha * np.eye(z.shape[1])
    w = backend.solve(gram, backend.matmul(centred.T, _centred(y, weights)))
    return w, _intercept(z, y, weights, w)


def _jackknifed(
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    w: np.ndarray,
    ridge: float = 0.0,
    slope: np.ndarray | float = 0.0,
) -> np.ndarray:
    """How weights `[M, n]` change where blocks of consecutive samples are left out.

    A block is left out of the normal equations of z and 1, with its part of the penalty
    `ridge * w^2 + 2 * slope * w`. NaN where the rest does not determine the weights.
    """
    size = designs.block_size(len(z))
    if size >= len(z):
        return np.full_like(w, np.nan)
    root = np.sqrt(weights)[:, None]
    z, y = np.concatenate([z, np.ones_like(root)], axis=1) * root, y * root
    penalty, slopes = ridge * np.eye(z.shape[1]), np.zeros((z.shape[1], 1))
    penalty[-1, -1], slopes[:-1] = 0, slope
    gram, toward = backend.matmul(z.T, z) + penalty, backend.matmul(z.T, y) - slopes
    share = _in_blocks(np.full_like(root, 1 / len(z)), size).sum(axis=1, keepdims=True)
    z, y = _in_blocks(z, size), _in_blocks(y, size)
    squares, at_once = np.zeros_like(w), max(1, _ENTRIES // gram.size)
    for some in (slice(i, i + at_once) for i in range(0, len(z), at_once)):
        own = z[some].transpose(0, 2, 1)
        rest = gram - backend.matmul(own, z[some]) - share[some] * penalty
        others = toward - backend.matmul(own, y[some]) + share[some] * slopes
        found = _solved(rest, others, 0 if ridge else 1e-12 * np.trace(gram))
        squares += np.square(found[:, :-1] - w).sum(axis=0)
    return np.sqrt((len(z) - 1) / len(z) * squares)


def _in_blocks(array: np.ndarray, size: int) -> np.ndarray:
    """Rows `[n, ...]` in blocks, `[blocks, size, ...]`, of which the last is filled up with 0."""
    return np.pad(array, ((0, -len(array) % size), (0, 0))).reshape(-1, size, array.shape[1])


def _solved(grams: np.ndarray, toward: np.ndarray, least: float) -> np.ndarray:
    """The solutions of several normal equations; NaN of all where one has none.

    `least` is the eigenvalue that counts as 0, where no penalty keeps them from it.
    """
    if least and (np.linalg.matrix_rank(grams, least, hermitian=True) < grams.shape[-1]).any():
        return np.full_like(toward, np.nan)
    try:
        return backend.solve(grams, toward)
    except np.linalg.LinAlgError:
        return np.full_like(toward, np.nan)


def _intercept(z: np.ndarray, y: np.ndarray, weights: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What is left of the means, `[n]`."""
    middle = np.average(z, axis=0, weights=weights)[None]
    return np.average(y, axis=0, weights=weights) - backend.matmul(middle, w)[0]


def _explained(y: np.ndarray, fitted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted R^2 of each column; of a constant 1 where it is met, else 0."""
    left = weights @ np.square(y - fitted)
    total = np.square(_centred(y, weights)).sum(axis=0)
    return np.where(total > 0, 1 - left / np.where(total > 0, total, 1.0), left == 0)


def _centred(array: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Columns less their weighted means, so that plain least squares of them is weighted."""
    return (array - np.average(array, axis=0, weights=weights)) * np.sqrt(weights)[:, None]


def _forward(z: np.ndarray, y: np.ndarray, top: int) -> np.ndarray:
    """Features of `z` `[passes, M]` one by one, each the one that lowers the error of `y` most.

    What the features already taken explain is taken out of the columns left (Gram and Schmidt), so
    a column's squared projection is what the error loses by it.
    """
    used: list[int] = []
    z, lengths = z.copy(), np.sqrt((z**2).sum(axis=0))
    for _ in range(top):
        left = np.sqrt((z**2).sum(axis=0))
        new = left > 1e-9 * lengths  # of what the others say already, rounding is left
        new[used] = False
        unit = np.where(new, z, 0) / np.where(new, left, 1)
        gain = np.where(new, (y @ unit) ** 2, -1)
        gain[used] = -2
        used.append(int(np.argmax(gain)))
        z -= np.outer(unit[:, used[-1]], unit[:, used[-1]] @ z)
    return np.array(used)


def _on_lasso_path(z: np.ndarray, y: np.ndarray, top: int) -> np.ndarray:
    """The features of `z` `[passes, M]` at the last knot of the lasso's path with `top` at most."""
    found = np.array([], int)
    for w in _lasso_path(z.T @ z, z.T @ y):
        if np.count_nonzero(w) <= top:
            found = np.flatnonzero(w)
    return found


def _lasso_path(gram: np.ndarray, toward: np.ndarray) -> Iterator[np.ndarray]:
    """The weights at each knot of the lasso's path, as its penalty falls from the largest to none.

    Between the knots, at which a feature joins or leaves, weights move along straight lines (least
    angle regression, Efron et al., 2004). What others say already does not join.

    Args:
        gram: How the features go with each other, `[M, M]`.
        toward: How they go with what is to be explained, `[M]`.
    """
    w, active, may = np.zeros(len(gram)), np.zeros(len(gram), bool), np.diag(gram) > 0
    penalty, left = np.abs(toward).max(initial=0, where=may), -1
    for _ in range(_KNOTS if penalty > 0 else 0):
        along = np.zeros_like(w)
        along[active] = np.linalg.solve(gram[active][:, active], np.sign(toward[active]))
        fall = gram @ along
        after = np.where(active, _leaving(w, along), _joining(toward, fall, penalty))
        after[~(active | may)] = after[left if left >= 0 else []] = np.inf
        at = int(np.argmin(after))
        step = min(after[at], penalty)
        w, toward, penalty = w + step * along, toward - step * fall, penalty - step
        left = at if active[at] else -1
        if after[at] > step:
            yield w
            return
        if active[at]:
            w[at], active[at], may = 0, False, np.diag(gram) > 0
        else:
            active[at] = may[at] = _is_new(gram, active, at)
        yield w


def _leaving(w: np.ndarray, along: np.ndarray) -> np.ndarray:
    """After which step each weight is 0."""
    return np.divide(-w, along, out=np.full_like(w, np.inf), where=w * along < 0)


def _joining(toward: np.ndarray, fall: np.ndarray, penalty: float) -> np.ndarray:
    """After which step each feature goes with what is left as much as those with a weight."""
    ahead = np.maximum(0, [penalty - toward, penalty + toward])
    nearer = np.array([1 - fall, 1 + fall])
    return np.divide(ahead, nearer, out=np.full_like(ahead, np.inf), where=nearer > 1e-9).min(
        axis=0
    )


def _is_new(gram: np.ndarray, active: np.ndarray, at: int) -> bool:
    """Whether a feature says what no sum of the active ones does."""
    said = gram[at, active] @ np.linalg.solve(gram[active][:, active], gram[active, at])
    return bool(gram[at, at] - said > 1e-9 * gram[at, at])
