"""PartitionSHAP: Owen values over a hierarchy of the features."""

import functools
import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from keras import tree

from keras_explain.core import arrays, checks
from keras_explain.core.data import background as backgrounds
from keras_explain.core.hiding.cut import placed
from keras_explain.core.hiding.features import Columns, Features, Pixels
from keras_explain.core.hiding.perturbation import Perturbation
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.core.run.precision import rounding
from keras_explain.core.run.reductions import Each, Reduction

_AT_ONCE = 16  # coalitions; not the batch size, on which the values must not depend


class PartitionSHAP(Perturbation):
    """Owen values: Shapley values of features that join in a hierarchy of clusters.

    A cluster's two halves share what it adds to the score, each half by its own halves, and so on:

    `value of half A of A + B = 1/2 [v(Q + A) - v(Q)] + 1/2 [v(Q + A + B) - v(Q + B)]`

    with v the score where only some features are seen, and Q what else is. The halves that add most
    are looked at first; when the samples are spent, features of one cluster share equally. The
    values sum to `score - base value`; where all scores are the same but for rounding, they are
    zero. `values` have the input's shape, without channels for
    pictures and series (`[B, H, W]`, `[B, T]`).

    Args:
        samples: How many coalitions are looked at (2 at least, and one more where it is odd).
        clustering: The hierarchy, as SciPy's and shap's functions return it, `[M - 1, 4]` for M
            features, such as `shap.utils.hclust(rows, y)`. By default that of a table's columns
            comes from the correlations in the background (where it has 3 rows or more, and no
            groups are given); all else is halved along its longest side, again and again.
        features: As in `FeatureAblation`; by default columns, tokens, and single places of
            pictures, series and volumes.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.

    Reference:
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874); Owen, 1977: Values of games
          with a priori unions.
    """

    samples: int = 500
    clustering: Any = None

    reduce: ClassVar[Reduction] = Each()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("samples", self.samples)

    @property
    def plan(self) -> Plan:
        return replace(
            super().plan,
            classes="one",  # which coalitions are looked at depends on the class
            unit=None,  # a difference may be shared by any number of features
            search=self.search,
        )

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features:
        if are_tokens:
            return self.default_tokens()
        return Columns() if x.ndim <= 2 else Pixels()

    def perturbations(self, x: Any, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        if self.clustering is not None:
            self._check_clustering(count)
        return {"present": np.ones((1, max(1, count)), bool)}

    def _check_clustering(self, count: int) -> None:
        from scipy.cluster.hierarchy import is_valid_linkage

        clustering = arrays.plain(self.clustering, "`clustering`")
        if clustering.dtype.kind == "U" or clustering.shape != (count - 1, 4):
            raise ValueError(
                f"Expected a clustering of {count} features, of shape {(count - 1, 4)}. "
                f"Received: clustering of shape {clustering.shape}, dtype {clustering.dtype}."
            )
        if count > 1 and not is_valid_linkage(clustering):
            raise ValueError(
                "Expected a clustering as `scipy.cluster.hierarchy.linkage` returns it: in each "
                "row two clusters made before, their distance, and how many features they are. "
                f"Received: {clustering.tolist()}."
            )

    def shares(self, forward: Forward, seed: int) -> list[Share]:
        def most(passes: np.ndarray) -> np.ndarray:
            return np.broadcast_to(passes[:1], (self.samples * len(passes), *passes.shape[1:]))

        return [
            replace(share, passes=tree.map_structure(most, share.passes))
            for share in super().shares(forward, seed)
        ]

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        return self.hiding.scores_of_present(probe, target, pass_)

    def search(
        self, x: Any, share: Share, reduced: Callable[[dict[str, Any]], Any]
    ) -> dict[str, Any]:
        every: list[np.ndarray] = []

        def scores(present: np.ndarray) -> np.ndarray:
            found = reduced(self.hiding.against({"present": present}))
            every.append(self.hiding.averaged(found)[0, :, 0])
            return every[-1]

        labels = [share.own["labels"][str(i)][0] for i in range(len(tree.flatten(x)))]
        count = share.passes["present"].shape[1]
        if count == 1:
            base, whole = scores(np.array([[False], [True]]))
            values = np.array([whole - base])
        else:
            values, base = owen(scores, self._hierarchy(x, labels, count), self.samples)
        if np.ptp(np.concatenate(every)) <= rounding(np.concatenate(every)):
            values = np.zeros_like(values)
        return {"values": values[None], "base_values": np.array([base])}

    def _hierarchy(self, x: Any, labels: list[np.ndarray], count: int) -> np.ndarray:
        if self.clustering is not None:
            return np.asarray(self.clustering, np.float64)
        if self._has_correlations(x, labels):
            return _by_correlation(np.asarray(tree.flatten(self.background)[0], np.float64))
        positions = _positions(labels, count)
        return _halved(positions.tobytes(), positions.shape)

    def _has_correlations(self, x: Any, labels: list[np.ndarray]) -> bool:
        if self.background is None or backgrounds.size(self.background) < 3:
            return False
        leaf = tree.flatten(x)[0]
        alone = len(labels) == 1 and leaf.ndim == 2 and leaf.dtype.kind == "f"
        return alone and np.array_equal(labels[0], np.arange(leaf.shape[1]))

    def afterwards(self, x: Any, result: dict[str, Any], share: Share) -> dict[str, Any]:
        super().afterwards(x, result, share)
        values = result["values"]
        at_places = placed(values[:, None], share.own["labels"], x)  # [1, 1, ...]
        made = {"values": at_places, **self.feature_maps(x, at_places, share)}
        base = result["base_values"]
        delta = values.sum(axis=1) - (result["scores"].astype(np.float64) - base)
        return {
            **tree.map_structure(lambda leaf: leaf[:, 0], made),
            "base_values": base.astype(np.float32),
            "convergence_delta": delta.astype(np.float32),
        }


class _Part(NamedTuple):
    """A cluster, or one feature, whose features are to share a change of the score."""

    number: int
    start: int  # of its features in the order of the hierarchy's leaves
    others: np.ndarray  # booleans [M]: what else is seen
    without: float  # the score
    whole: float  # the score with the cluster
    weight: float

    @property
    def change(self) -> float:
        return self.weight * (self.whole - self.without)


class _Hierarchy:
    """Which features the clusters of a hierarchy have; those of each are neighbours in `order`."""

    def __init__(self, clustering: np.ndarray) -> None:
        from scipy.cluster.hierarchy import leaves_list

        self.order = leaves_list(clustering)
        self.count = len(self.order)
        self.pairs = clustering[:, :2].astype(int).tolist()
        self.sizes = [1] * self.count
        for first, second in self.pairs:
            self.sizes.append(self.sizes[first] + self.sizes[second])

    def features(self, part: _Part) -> np.ndarray:
        return self.order[part.start : part.start + self.sizes[part.number]]

    def halves(self, part: _Part) -> list[_Part]:
        """The two halves of a part, of the same others."""
        first, second = self.pairs[part.number - self.count]
        after = part.start + self.sizes[first]
        halved = part._replace(number=first, weight=part.weight / 2)
        return [halved, halved._replace(number=second, start=after)]

    def seen(self, part: _Part) -> np.ndarray:
        seen = part.others.copy()
        seen[self.features(part)] = True
        return seen


def owen(
    scores: Callable[[np.ndarray], np.ndarray], clustering: np.ndarray, samples: int
) -> tuple[np.ndarray, float]:
    """The Owen values of M features in a hierarchy, float64 `[M]`, and the score of none.

    The cluster of the largest change is parted first. What is not parted when the samples are spent
    shares its change equally.

    Args:
        scores: The scores `[n]` of coalitions, booleans `[n, M]`.
        clustering: `[M - 1, 4]`, as SciPy has it.
        samples: How many coalitions are looked at.
    """
    hierarchy = _Hierarchy(clustering)
    nothing = np.zeros(hierarchy.count, bool)
    base, whole = scores(np.array([nothing, ~nothing]))
    root = _Part(len(hierarchy.sizes) - 1, 0, nothing, base, whole, 1.0)
    values, turn, left = np.zeros(hierarchy.count), itertools.count(), samples - 2
    heap = [(0.0, next(turn), root)]
    while heap and left > 0:
        parted: list[_Part] = []
        while heap and 2 * len(parted) < min(_AT_ONCE, left):
            part = heapq.heappop(heap)[-1]
            if part.number < hierarchy.count:
                values[part.number] += part.change
            else:
                parted.append(part)
        left -= 2 * len(parted)
        for half in _parted(hierarchy, parted, scores):
            heapq.heappush(heap, (-abs(half.change), next(turn), half))
    for _, _, part in heap:
        values[hierarchy.features(part)] += part.change / hierarchy.sizes[part.number]
    return values, base


def _parted(hierarchy: _Hierarchy, parts: list[_Part], scores: Callable) -> Iterator[_Part]:
    """The two halves of each part, each without and with the other one."""
    halves = [half for part in parts for half in hierarchy.halves(part)]
    seen = np.array([hierarchy.seen(half) for half in halves])
    found = scores(seen) if halves else seen
    for i, half in enumerate(halves):
        other = i ^ 1
        yield half._replace(whole=found[i])
        yield half._replace(others=seen[other], without=found[other])


def _by_correlation(rows: np.ndarray) -> np.ndarray:
    """Columns by single linkage of 1 - correlation; a constant one is like no other."""
    from scipy.cluster.hierarchy import single

    there = ~np.isnan(rows)
    means = np.where(there, rows, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
    rows = np.where(there, rows, means)
    deviations = np.where(np.ptp(rows, axis=0) > 0, rows - rows.mean(axis=0), 0)
    lengths = np.linalg.norm(deviations, axis=0)
    units = deviations / np.where(lengths > 0, lengths, 1)
    first, second = np.triu_indices(rows.shape[1], 1)
    return single(np.maximum(0, 1 - (units.T @ units)[first, second]))


def _positions(labels: list[np.ndarray], count: int) -> np.ndarray:
    """The mean position of each feature, `[M, axes]`; those of another input are far away."""
    positions = np.zeros((count, 2 + max(numbers.ndim for numbers in labels)))
    for i, numbers in enumerate(map(np.atleast_1d, labels)):
        there = numbers >= 0
        sizes = np.maximum(np.bincount(numbers[there], minlength=count), 1)
        for axis, at in enumerate(np.nonzero(there), start=1):
            positions[:, axis] += np.bincount(numbers[there], at, minlength=count) / sizes
        positions[np.unique(numbers[there]), 0] = 1e9 * i
    positions[:, -1] = 1e-6 * np.arange(count) / count  # tells apart what is at the same place
    return positions


@functools.lru_cache(maxsize=16)
def _halved(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """A hierarchy `[M - 1, 4]` of points: each cluster is halved along its longest side.

    Args:
        data: The points' coordinates, float64, no two points alike.
        shape: `[M, axes]`.
    """
    points = np.frombuffer(data, np.float64).reshape(shape)
    levels = [np.zeros(len(points), np.intp)]  # the cluster of each point, from the top down
    while levels[-1].max() < len(points) - 1:
        levels.append(_finer(points, levels[-1]))
    ids = np.argsort(levels[-1])  # of the clusters of a level; points first, from the bottom up
    found, known = [], len(points)
    for finer, cluster in zip(levels[:0:-1], levels[-2::-1], strict=True):
        of = np.empty(len(ids), np.intp)
        of[finer] = cluster
        first = np.searchsorted(of, np.arange(of[-1] + 1))
        parted = np.flatnonzero(np.bincount(of) == 2)
        left, right = ids[first[parted]], ids[first[parted] + 1]
        sizes = np.bincount(cluster)[parted]
        found.append(np.stack([left, right, np.ones_like(sizes), sizes], axis=1))
        ids = ids[first]
        ids[parted] = known + np.arange(len(parted))
        known += len(parted)
    return np.concatenate(found).astype(np.float64)


def _finer(points: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The clusters of points after each is halved, numbered so that halves are neighbours."""
    shape = cluster.max() + 1, points.shape[1]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(low, cluster, points)
    np.maximum.at(high, cluster, points)
    longest = np.argmax(high - low, axis=1)
    middle = (low + high)[np.arange(len(low)), longest] / 2
    beyond = points[np.arange(len(points)), longest[cluster]] > middle[cluster]
    return np.unique(2 * cluster + beyond, return_inverse=True)[1]
