"""How the results of a row's passes become one: sum, mean, mean square, variance, or a list.

A reduction makes statistics of a chunk `[passes, rows, ...]`, merges those of two chunks, and turns
the last ones into the result. Values may be nests.
"""

import abc
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from keras import ops, tree

Nest = Any
Stats = dict[str, Any]


class Reduction(abc.ABC):
    """Combines the passes of a row. Stateless; the statistics are a dict of nests."""

    grows: ClassVar[bool] = False
    """Whether the statistics have an entry for each pass."""
    squares: ClassVar[bool] = False
    """Whether the result is in squares of the values' unit."""
    together: ClassVar[int] = 1
    """So many passes, one after the other, are in one chunk, since they are one draw."""
    collapses: ClassVar[bool] = False
    """Whether `of_chunk` sums values over embeddings, of which the sum's error is to be known."""

    @property
    def plain(self) -> "Reduction":
        """The same without what is kept for a standard error."""
        return self

    @abc.abstractmethod
    def of(self, values: Nest) -> Stats:
        """The statistics of values `[passes, rows, ...]`."""

    def of_chunk(self, values: Nest, collapse: Callable[[Nest], Nest]) -> Stats:
        """As `of`; `collapse` makes of values of a point those of the input."""
        return self.of(values)

    def of_one(self, values: Nest) -> Stats:
        """The statistics of one pass, `[rows, ...]`."""
        return self.of(tree.map_structure(lambda v: v[None], values))

    def merge(self, a: Stats, b: Stats) -> Stats:
        """The statistics of two sets of passes together."""
        return tree.map_structure(ops.add, a, b)

    def merged(self, parts: Iterable[Stats]) -> Stats:
        """The statistics of all sets of passes together, taken one after the other."""
        return functools.reduce(self.merge, parts)

    @abc.abstractmethod
    def result(self, stats: Stats) -> Nest:
        """The combined values `[rows, ...]`."""

    def standard_error(self, stats: Stats, collapse: Callable[[Nest], Nest]) -> Nest | None:
        """The standard error of `result`, where the passes are draws; else None."""
        return None


class Sum(Reduction):
    """The sum over passes."""

    def of(self, values: Nest) -> Stats:
        return {"sum": tree.map_structure(lambda v: ops.sum(v, axis=0), values)}

    def result(self, stats: Stats) -> Nest:
        return stats["sum"]


class Mean(Reduction):
    """The mean over passes."""

    def of(self, values: Nest) -> Stats:
        return {"count": _count(values), **Sum().of(values)}

    def result(self, stats: Stats) -> Nest:
        return tree.map_structure(lambda s: s / stats["count"], stats["sum"])


class Each(Reduction):
    """Each pass for itself: values `[rows, passes, ...]`."""

    grows = True

    def of(self, values: Nest) -> Stats:
        return {"each": tree.map_structure(lambda v: ops.swapaxes(v, 0, 1), values)}

    def merge(self, a: Stats, b: Stats) -> Stats:
        return self.merged([a, b])

    def merged(self, parts: Iterable[Stats]) -> Stats:
        return tree.map_structure(lambda *leaves: ops.concatenate(leaves, axis=1), *parts)

    def result(self, stats: Stats) -> Nest:
        return stats["each"]


class Weighted(Reduction):
    """Sums over passes of weights times scores, `[rows, K, ...]`.

    Values are a dict of `"weight"`, a nest of `[passes, rows, ...]`, and `"score"`,
    `[passes, rows, K]`. The result is a dict of `"sum"`, the nest of sums of both's products
    `[rows, K, ...]`; `"weight"`, the nest of sums of weights `[rows, ...]`; `"score"`, the sum of
    scores `[rows, K]`; and `"count"`, the number of passes.
    """

    def of(self, values: Nest) -> Stats:
        weight, score = values["weight"], values["score"]
        return {
            "sum": tree.map_structure(lambda w: ops.einsum("pn...,pnk->nk...", w, score), weight),
            "weight": tree.map_structure(lambda w: ops.sum(w, axis=0), weight),
            "score": ops.sum(score, axis=0),
            "count": _count(score),
        }

    def result(self, stats: Stats) -> Nest:
        return stats


class MeanSquare(Mean):
    """The mean of the squares over passes."""

    squares = True

    def of(self, values: Nest) -> Stats:
        return super().of(tree.map_structure(ops.square, values))


class Variance(Reduction):
    """The (population) variance over passes, merged stably.

    Reference:
        - Chan, Golub and LeVeque, 1983: Algorithms for computing the sample variance.
    """

    squares = True

    def of(self, values: Nest) -> Stats:
        mean = tree.map_structure(lambda v: ops.mean(v, axis=0), values)
        deviations = tree.map_structure(
            lambda v, m: ops.sum(ops.square(v - m[None]), axis=0), values, mean
        )
        return {"count": _count(values), "mean": mean, "deviations": deviations}

    def merge(self, a: Stats, b: Stats) -> Stats:
        count = a["count"] + b["count"]
        share = b["count"] / count
        return {
            "count": count,
            "mean": tree.map_structure(lambda x, y: x + share * (y - x), a["mean"], b["mean"]),
            "deviations": tree.map_structure(
                lambda x, y, p, q: x + y + a["count"] * share * ops.square(q - p),
                a["deviations"],
                b["deviations"],
                a["mean"],
                b["mean"],
            ),
        }

    def result(self, stats: Stats) -> Nest:
        return tree.map_structure(lambda d: d / stats["count"], stats["deviations"])


class PairedMean(Variance):
    """The mean over passes of which each two, one after the other, are an independent draw.

    `standard_error = sqrt(sum over pairs of (mean of the pair - mean)^2 / (J (J - 1)))` of J pairs;
    a last pass without a partner counts half. NaN of fewer than two pairs.
    """

    squares = False
    together = 2
    collapses = True

    @property
    def plain(self) -> Reduction:
        return Mean()

    def of_chunk(self, values: Nest, collapse: Callable[[Nest], Nest]) -> Stats:
        return self.of(collapse(values))

    def of(self, values: Nest) -> Stats:
        passes = ops.shape(tree.flatten(values)[0])[0]
        count = passes // 2
        single = ops.cast(passes - 2 * count, "float32")

        def deviations(leaf: Any, mean: Any) -> Any:
            pairs = ops.reshape(leaf[: 2 * count], (count, 2, *ops.shape(leaf)[1:]))
            pairs = ops.mean(pairs, axis=1)
            last = single * ops.square(leaf[-1] - mean)
            return 2 * ops.sum(ops.square(pairs - mean[None]), axis=0) + last

        mean = tree.map_structure(lambda v: ops.mean(v, axis=0), values)
        return {
            "count": _count(values),
            "mean": mean,
            "deviations": tree.map_structure(deviations, values, mean),
        }

    def result(self, stats: Stats) -> Nest:
        return stats["mean"]

    def standard_error(self, stats: Stats, collapse: Callable[[Nest], Nest]) -> Nest:
        pairs = stats["count"] / 2
        share = 1 / ops.where(pairs > 1, 2 * pairs * (pairs - 1), np.nan)
        return tree.map_structure(lambda d: ops.sqrt(d * share), stats["deviations"])


class PairedMeanSquare(PairedMean):
    """The mean of the squares over passes of which each two are an independent draw."""

    squares = True

    @property
    def plain(self) -> Reduction:
        return MeanSquare()

    def of_chunk(self, values: Nest, collapse: Callable[[Nest], Nest]) -> Stats:
        return self.of(collapse(tree.map_structure(ops.square, values)))


class SureVariance(Variance):
    """The variance over passes that are independent draws, with its standard error.

    Half the squared difference of two passes, d, has the variance as its mean. The variance s^2 of
    all n passes has a squared standard error of `(mean of d^2 - 2 s^4) 2 / n`, taken to be no less
    than that of normal numbers, `2 s^4 / n`. NaN of fewer than two pairs.
    """

    together = 2

    @property
    def plain(self) -> Reduction:
        return Variance()

    def of_chunk(self, values: Nest, collapse: Callable[[Nest], Nest]) -> Stats:
        count = ops.shape(tree.flatten(values)[0])[0] // 2

        def halved(leaf: Any) -> Any:
            pairs = ops.reshape(leaf[: 2 * count], (count, 2, *ops.shape(leaf)[1:]))
            return ops.square(pairs[:, 0] - pairs[:, 1]) / 2

        differences = collapse(tree.map_structure(halved, values))
        squares = tree.map_structure(lambda d: ops.sum(ops.square(d), axis=0), differences)
        return {**self.of(values), "pairs": ops.cast(count, "float32"), "squares": squares}

    def merge(self, a: Stats, b: Stats) -> Stats:
        added = ({name: part[name] for name in ("pairs", "squares")} for part in (a, b))
        return super().merge(a, b) | tree.map_structure(ops.add, *added)

    def standard_error(self, stats: Stats, collapse: Callable[[Nest], Nest]) -> Nest:
        pairs = ops.where(stats["pairs"] > 1, stats["pairs"], np.nan)
        variance = tree.map_structure(lambda d: d / (stats["count"] - 1), stats["deviations"])

        def error(squares: Any, variance: Any, normal: Any) -> Any:
            excess = squares / pairs - ops.square(variance) - normal
            return ops.sqrt(ops.maximum(excess, normal) / pairs)

        normal = collapse(tree.map_structure(ops.square, variance))
        return tree.map_structure(error, stats["squares"], collapse(variance), normal)


class BalancedMean(Reduction):
    """The mean of what rows of a background give, each of which is taken equally often.

    Values are a dict of `"value"`, and `"apart"`: how far the row is from what is explained, a nest
    alike. What a regression on that explains of a value is the same in each round of all rows; with
    e what is left of it and E what is explained, sums of squares over n passes,
    `standard_error^2 = (e / (n - 2) + c E / (n - 1)) / n`, `c = r (1 - r / rows) / n` for r passes
    beyond whole rounds. NaN of fewer than three passes. The result is a dict of `"value"`. Sums are
    in float64, as little may be left of large ones.
    """

    collapses = True

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    @property
    def plain(self) -> Reduction:
        return Mean()

    def of_chunk(self, values: Nest, collapse: Callable[[Nest], Nest]) -> Stats:
        return self.of({name: collapse(values[name]) for name in ("value", "apart")})

    def of(self, values: Nest) -> Stats:
        values = tree.map_structure(lambda leaf: ops.cast(leaf, "float64"), values)
        f, z = values["value"], values["apart"]

        def sums(*leaves: Any) -> Nest:
            return tree.map_structure(lambda *of: ops.sum(math.prod(of), axis=0), *leaves)

        squares = {"ff": sums(f, f), "zz": sums(z, z), "fz": sums(f, z)}
        return {"count": _count(f), "f": sums(f), "z": sums(z), **squares}

    def result(self, stats: Stats) -> Nest:
        means = tree.map_structure(lambda s: s / ops.cast(stats["count"], s.dtype), stats["f"])
        return {"value": tree.map_structure(lambda mean: ops.cast(mean, "float32"), means)}

    def standard_error(self, stats: Stats, collapse: Callable[[Nest], Nest]) -> Nest:
        n, rows = (ops.cast(of, "float64") for of in (stats["count"], self._rows))
        beyond = n - rows * ops.floor(n / rows)
        share = beyond * (1 - beyond / rows) / n
        free = ops.where(n > 2, n - 2, np.nan)

        def error(f: Any, z: Any, ff: Any, zz: Any, fz: Any) -> Any:
            total, spread, common = ff - f * f / n, zz - z * z / n, fz - f * z / n
            varies = spread > 1e-12 * zz
            known = ops.where(varies, common**2 / ops.where(varies, spread, 1.0), 0.0)
            known = ops.minimum(known, total)
            found = ((total - known) / free + share * known / (n - 1)) / n
            return ops.cast(ops.sqrt(ops.maximum(found, 0.0)), "float32")

        return tree.map_structure(error, *(stats[name] for name in ("f", "z", "ff", "zz", "fz")))


def _count(values: Nest) -> Any:
    return ops.cast(ops.shape(tree.flatten(values)[0])[0], "float32")
