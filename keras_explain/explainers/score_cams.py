"""Class activation maps without gradients: what the score does says how much a channel weighs."""

import abc
from typing import Any, ClassVar

import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.data import baselines
from keras_explain.core.model.passed import Activations
from keras_explain.core.model.points import per_row
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.precision import difference
from keras_explain.core.run.reductions import Reduction, Stats, Weighted
from keras_explain.explainers.cams import LayerMap

Tensor = Any

_LEAST = -1e30


class _ByChannel(LayerMap, abc.ABC):
    """A map whose passes are the channels of a layer's output.

    A subclass says in `prepare` which (`_order`) and reduces them to `total["sum"]`, the maps
    `[n, K, ...]` of K classes.
    """

    max_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_channels is not None:
            checks.count("max_channels", self.max_channels)

    @property
    def plan(self) -> Plan:
        ragged = frozenset({"base"})
        return Plan("input", "all", ragged=ragged, passes=_by_channel, prepare=self.prepared)

    @abc.abstractmethod
    def prepared(self, probe: Probe, x: Any, target: Any) -> dict[str, Any]:
        """What passes share, among it `"order"`, as of `_order`."""

    def _order(self, features: Activations) -> Tensor:
        """The channel of each pass, ints `[n, passes]`."""
        activation = features.values
        channels = activation.shape[-1]
        count = min(self.max_channels or channels, channels)
        variance = ops.var(activation, axis=tuple(range(1, len(activation.shape) - 1)))
        if count < channels:
            return ops.top_k(variance, count)[1]
        return ops.broadcast_to(ops.arange(channels), ops.shape(variance))

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        maps = self._maps(total)
        upsampled = probe.upsample(ops.reshape(maps, (-1, *maps.shape[2:])))
        return ops.reshape(upsampled, (-1, ops.shape(maps)[1], *upsampled.shape[1:]))

    def extras(self, total: Any) -> dict[str, Any]:
        return {"map": self._maps(total)}

    def _maps(self, total: Any) -> Tensor:
        return ops.relu(total["sum"]) if self.relu else total["sum"]


def _by_channel(prepared: dict[str, Any]) -> dict[str, Any]:
    """A pass for each channel."""
    return {"place": np.arange(prepared["order"].shape[1], dtype=np.int32)}


class _SoftmaxMean(Reduction):
    """The mean over passes, weighed by the softmax of their scores.

    Values are a dict of `"map"`, `[passes, rows, ...]`; `"score"`, `[passes, rows, K]`; and
    `"counts"`, `[passes, rows]`, whether a pass is taken. The result has the mean as `"sum"`,
    `[rows, K, ...]`. It is zero where no pass is taken, or all scores that are taken are 0.
    """

    def of(self, values: Any) -> Stats:
        counts, score = values["counts"][..., None], values["score"]
        top = ops.max(ops.where(counts, score, _LEAST), axis=0)
        weight = ops.where(counts, ops.exp(ops.minimum(score - top, 0.0)), 0.0)
        return {
            "top": top,
            "largest": ops.max(ops.where(counts, ops.abs(score), 0.0), axis=0),
            "weight": ops.sum(weight, axis=0),
            "sum": ops.einsum("pn...,pnk->nk...", values["map"], weight),
        }

    def merge(self, a: Stats, b: Stats) -> Stats:
        top = ops.maximum(a["top"], b["top"])
        first, second = ops.exp(a["top"] - top), ops.exp(b["top"] - top)
        return {
            "top": top,
            "largest": ops.maximum(a["largest"], b["largest"]),
            "weight": first * a["weight"] + second * b["weight"],
            "sum": _times(first, a["sum"]) + _times(second, b["sum"]),
        }

    def result(self, stats: Stats) -> Any:
        known = ops.logical_and(stats["weight"] > 0, stats["largest"] > 0)
        share = ops.where(known, 1 / ops.where(known, stats["weight"], 1.0), 0.0)
        return {"sum": _times(share, stats["sum"])}


class ScoreCAM(_ByChannel):
    """Where features lie that bring about the score when the input is seen through them alone.

    `H_k = A_k`, upsampled to the input and scaled to [0, 1],
    `C_k = S_c(H_k x + (1 - H_k) x') - S_c(x')`, `w = softmax of C over the channels`,
    `map = ReLU(sum_k w_k A_k)`

    The model runs once for each channel, for all classes of a sample together, and without
    gradients. A channel that is the same everywhere gets no weight. A `C_k` that is within rounding
    counts as 0; where all are, as of a constant model, the map is zero. `values` and `extras` are
    as in `GradCAM`. Of token ids, it is the embeddings that are seen.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether negative values are cut off.
        call: As in `GradCAM`.
        max_channels: How many channels are tried at most, those which vary most over the places;
            the others get no weight. By default all.
        baseline: The input x', which stands where nothing is seen: a number, an array, or an object
            of `keras_explain.baselines`.

    Reference:
        - [Wang et al., 2020](https://arxiv.org/abs/1910.01279), definition 3 and algorithm 1
    """

    baseline: Any = 0.0

    reduce: ClassVar[Reduction] = _SoftmaxMean()

    def check(self, x: Any) -> None:
        baselines.check(self.baseline, x)

    def prepared(self, probe: Probe, x: Any, target: Any) -> dict[str, Any]:
        features = self.at_layer(probe, probe.forward(x, target))
        maps = ops.moveaxis(features.values, -1, 1)  # [n, channels, ...]
        start = probe.point(probe.baseline(self.baseline))
        return {
            "order": self._order(features),
            "maps": maps,
            "start": start,
            "base": probe.scores(start, target),
        }

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        shared, sample = pass_.shared, pass_.sample
        maps = _entry(shared["maps"], sample, _entry(shared["order"], sample, pass_["place"]))
        visible, counts = _scaled(probe.upsample(maps))
        leaves, at = tree.flatten(x), probe.under(maps)
        start = pass_.for_rows(tree.flatten(shared["start"])[at])
        visible = probe.layouts[at].over_channels(visible, len(start.shape))
        leaves[at] = start + visible * (leaves[at] - start)
        score = probe.scores(tree.pack_sequence_as(x, leaves), target)
        base = pass_.for_rows(shared["base"])
        return {"map": maps, "score": difference(score, base), "counts": counts}


class AblationCAM(_ByChannel):
    """Where features lie that the score falls without.

    `w_k = S_c - S_c where channel k is zero`, `map = ReLU(sum_k w_k A_k)`

    What follows the layer runs once for each channel, for all classes of a sample together, and
    without gradients; what leads to the layer runs once. The paper divides `w_k` by `S_c`. As a
    logit may be 0 or negative, this is left out: it changes the map's scale alone, or its sign. A
    `w_k` that is within rounding counts as 0, so a constant model has a map of zeros. `values` and
    `extras` are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.
        max_channels: As in `ScoreCAM`.

    Reference:
        - [Desai and Ramaswamy, 2020](https://doi.org/10.1109/WACV45572.2020.9093360), section 3
    """

    reduce: ClassVar[Reduction] = Weighted()

    def prepared(self, probe: Probe, x: Any, target: Any) -> dict[str, Any]:
        features = self.at_layer(probe, probe.forward(x, target))
        return {"order": self._order(features), "output": features.output}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        passed = probe.forward(x, target)  # says which call it is; it is not computed
        features = self.at_layer(probe, passed)
        output = pass_.for_rows(pass_.shared["output"])
        arranged = features.arranged(output)
        chosen = _entry(pass_.shared["order"], pass_.sample, pass_["place"])
        kept = 1 - _mark(chosen, output, features.channels)
        score = probe.scores_with(features.call, output * kept, x, target)
        whole = pass_.for_rows(pass_.scores)
        maps = ops.sum(arranged * _mark(chosen, arranged, -1), axis=-1)
        return {"weight": maps, "score": difference(whole, score)}


def _entry(array: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The entries `array[first[i], second[i]]`, `[rows, ...]`, of `[n, m, ...]`."""
    flat = ops.reshape(array, (-1, *array.shape[2:]))
    return ops.take(flat, first * ops.shape(array)[1] + second, axis=0)


def _mark(channel: Tensor, like: Tensor, axis: int) -> Tensor:
    """One at a channel of each row and zero at others, to multiply a tensor with them."""
    marks = ops.one_hot(channel, like.shape[axis], dtype=like.dtype)
    shape = [1] * len(like.shape)
    shape[0], shape[axis] = -1, like.shape[axis]
    return ops.reshape(marks, shape)


def _scaled(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[n, ...]` scaled to [0, 1], and whether each differs over its places, `[n]`."""
    axes = tuple(range(1, len(maps.shape)))
    low, high = ops.min(maps, axis=axes), ops.max(maps, axis=axes)
    size = ops.maximum(ops.abs(low), ops.abs(high))
    counts = high - low > 1e-6 * size  # not within rounding
    extent = ops.where(counts, high - low, 1.0)
    return (maps - per_row(low, maps)) / per_row(extent, maps), counts


def _times(share: Tensor, maps: Tensor) -> Tensor:
    """Maps `[n, K, ...]`, each times its share `[n, K]`."""
    return ops.reshape(share, (*ops.shape(share), *(1 for _ in maps.shape[2:]))) * maps
