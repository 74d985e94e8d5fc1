"""How the results of a row's passes become one: sum, mean, mean square, variance.

A reduction makes statistics of a chunk `[passes, rows, ...]`, merges those of two chunks, and turns
the last ones into the result. Values may be nests.
"""

import abc
from typing import Any

from keras import ops, tree

Nest = Any
Stats = dict[str, Any]


class Reduction(abc.ABC):
    """Combines the passes of a row. Stateless; the statistics are a dict of nests."""

    @abc.abstractmethod
    def of(self, values: Nest) -> Stats:
        """The statistics of values `[passes, rows, ...]`."""

    def merge(self, a: Stats, b: Stats) -> Stats:
        """The statistics of two sets of passes together."""
        return tree.map_structure(ops.add, a, b)

    @abc.abstractmethod
    def result(self, stats: Stats) -> Nest:
        """The combined values `[rows, ...]`."""


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


class MeanSquare(Mean):
    """The mean of the squares over passes."""

    def of(self, values: Nest) -> Stats:
        return super().of(tree.map_structure(ops.square, values))


class Variance(Reduction):
    """The (population) variance over passes, merged stably.

    Reference:
        - Chan, Golub and LeVeque, 1983: Algorithms for computing the sample variance.
    """

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


def _count(values: Nest) -> Any:
    return ops.cast(ops.shape(tree.flatten(values)[0])[0], "float32")
