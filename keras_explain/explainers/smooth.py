"""SmoothGrad, SquareGrad and VarGrad: any explainer, averaged over noisy copies of the input."""

import abc
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.explainer import get
from keras_explain.core.model.points import per_row
from keras_explain.core.model.probe import Probe
from keras_explain.core.run import sureness
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.reductions import PairedMean, PairedMeanSquare, SureVariance
from keras_explain.core.sampled import Sampled
from keras_explain.explainers.saliency import Saliency


def noisy(probe: Probe, x: Any, noise: float, pass_: Pass) -> Any:
    """`x` plus Gaussian noise of `noise` times each sample's own range (max - min).

    The noise is that of the pass's `"key"`, times its `"sign"` where it has one.
    """
    sign = pass_.each.get("sign")

    def add(leaf: Any, normal: Any) -> Any:
        axes = tuple(range(1, len(leaf.shape)))
        span = ops.max(leaf, axes, keepdims=True) - ops.min(leaf, axes, keepdims=True)
        size = noise if sign is None else per_row(noise * sign, leaf)
        return leaf + size * span * normal

    once = bool(pass_.once)
    keys = pass_.once["key"] if once else pass_["key"]
    return tree.map_structure(add, x, probe.space.noise(keys, x, of_passes=once))


_FIRST = 32  # samples that "auto" begins with


class _Noisy(Sampled, abc.ABC):
    """What the three share; they differ in how the samples are reduced.

    Where samples are `mirrored`, each two of them add the same noise, and take it away: what is
    odd in it cancels. An odd number leaves the last one single.
    """

    mirrored: ClassVar[bool] = True

    explainer: Any = Saliency(absolute=False)
    samples: int | Literal["auto"] = 50
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "explainer", get(self.explainer))
        checks.share("noise", self.noise)

    @property
    def plan(self) -> Plan:
        inner = self.explainer.plan
        signed = type(self.reduce) is PairedMean and inner.signed
        return replace(
            super().plan,
            values=inner.values,
            layer=inner.layer,
            call=inner.call,
            unit=inner.unit,
            signed=signed,
            stops=sureness.doubled(min(_FIRST, self.limit), self.limit) if self.is_auto else (),
        )

    def check(self, x: Any) -> None:
        self.explainer.check(x)

    def passes(self, seed: int) -> dict[str, Any]:
        inner = self.explainer.passes(seed + 1)  # else one inside another draws the same noise
        count = self.count
        passes = {
            "key": backend.random_keys(seed, count, stream=2),
            "inner": tree.map_structure(lambda p: ops.broadcast_to(p, (count, *p.shape)), inner),
        }
        if not self.mirrored:
            return passes
        pair, second = np.divmod(np.arange(count), 2)
        sign = (1 - 2 * second).astype(np.float32)
        return passes | {"key": ops.take(passes["key"], pair, axis=0), "sign": sign}

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        x = noisy(probe, x, self.noise, pass_)
        return self.explainer.within(probe, x, target, pass_["inner"])


class SmoothGrad(_Noisy):
    """The mean of an explanation over noisy copies of the input.

    `values = mean over g of E(x + g)`, `g ~ N(0, (noise * (max x - min x))^2)`, signed.

    Noise is antithetic: each g is followed by -g, so that the part of E that is odd in g cancels,
    which takes 1.5 to 14 times fewer samples for the same error. An odd number leaves the last g
    single.

    Args:
        explainer: The explainer E; by default the signed gradient, as in the paper.
        samples: The number of noisy copies, or `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        noise: The standard deviation of the noise, as a share of each sample's own range.

    The extras of E, such as a map at its own resolution, are not kept.

    Reference:
        - [Smilkov et al., 2017](https://arxiv.org/abs/1706.03825)
    """

    reduce = PairedMean()


class SquareGrad(_Noisy):
    """The mean of the squares of an explanation over noisy copies of the input.

    `values = mean over g of E(x + g)^2`, `g ~ N(0, (noise * (max x - min x))^2)`, antithetic as in
    `SmoothGrad`.

    Args:
        explainer: The explainer E; by default the signed gradient.
        samples: The number of noisy copies, or `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        noise: The standard deviation of the noise, as a share of each sample's own range.

    Reference:
        - [Hooker et al., 2019](https://arxiv.org/abs/1806.10758), section 3
    """

    reduce = PairedMeanSquare()


class VarGrad(_Noisy):
    """The variance of an explanation over noisy copies of the input.

    `values = mean over g of (E(x + g) - mean E)^2`, `g ~ N(0, (noise * (max x - min x))^2)`

    The draws of g are independent: for an E that is linear in g, -g has the square that g has.

    Args:
        explainer: The explainer E; by default the signed gradient.
        samples: The number of noisy copies, or `"auto"`.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample; by default 16384.
        noise: The standard deviation of the noise, as a share of each sample's own range.

    Reference:
        - [Adebayo et al., 2018](https://arxiv.org/abs/1810.03307), section 2
    """

    fewest = 2
    mirrored = False
    reduce = SureVariance()
