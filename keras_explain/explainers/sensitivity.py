"""Global sensitivity analysis of what is visible: Sobol indices, and HSIC."""

import abc
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.features import Features, Grid
from keras_explain.core.hiding.perturbation import Coalitions
from keras_explain.core.run.plan import Plan
from keras_explain.core.run.precision import rounding


class _Sensitivity(Coalitions, abc.ABC):
    """What both share: a coarse grid over pictures, and nothing is made of rounding."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit=None, signed=False)  # shares of variance

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        if x.ndim == 4:
            return Grid(8)
        return super().default_features(x, are_tokens)

    def values_of(self, present: np.ndarray, scores: np.ndarray, whole: np.ndarray) -> Any:
        scores = np.swapaxes(scores, 1, 2)  # [n, K, passes]
        constant = np.ptp(scores, axis=-1) <= rounding(scores, axis=-1)
        values = np.zeros((*whole.shape, present.shape[1]))
        for at in np.argwhere(~constant):
            values[tuple(at)] = self.indices(present, scores[tuple(at)])
        return values, {}

    @abc.abstractmethod
    def indices(self, present: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The index of each feature, `[M]`, of one sample's scores of one class.

        Args:
            present: What `coalitions` returned, `[passes, M]`.
            scores: Float64 `[passes]`, which are not constant.
        """


class SobolAttribution(_Sensitivity):
    """The share of the score's variance that each feature has a part in: its total Sobol index.

    Features are seen in part, by independent shares in [0, 1] (0 is the baseline, 1 the input). A
    and B are N = `designs` points of these each, and A_i is A with feature i's column from B. With
    m and V the mean and variance of the scores at A and B:

    `total_i = sum (S(A_i) - S(A))^2 / (2 N V)` (Jansen's estimator)
    `first_i = sum (S(A_i) - S(A)) (S(B) - m) / (N V)` (Saltelli's)

    `values` of the total order are never negative. They have the input's shape, without channels
    where a feature takes all of them (`[B, H, W]`, `[B, T]`). There are `designs * (M + 2)` passes
    for M features; a sample whose score is constant has zeros.

    Args:
        features: As in `FeatureAblation`, but that pictures are cut into `Grid(8)`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.
        designs: The number of points N, a power of two, 2 or more (scrambled Sobol sequences).
        order: `"total"`: the variance in which feature i has a part, alone or with others;
            `"first"`: that of feature i alone.

    Reference:
        - [Fel et al., 2021](https://arxiv.org/abs/2111.04138), section 3
        - [Jansen, 1999](https://doi.org/10.1016/S0010-4655(98)00154-4)
        - [Saltelli et al., 2010](https://doi.org/10.1016/j.cpc.2009.09.018), table 2 (b), (f)
    """

    designs: int = 32
    order: Literal["total", "first"] = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("designs", self.designs, least=2)
        if self.designs & (self.designs - 1):
            raise ValueError(
                "Expected `designs` to be a power of two, for which Sobol sequences are balanced. "
                f"Received: designs={self.designs}."
            )
        checks.choice("order", self.order, ("total", "first"))

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        a, b = np.split(backend.random_sobol(seed, self.designs, 2 * count), 2, axis=1)
        swapped = np.where(np.eye(count, dtype=bool)[:, None], b, a)  # [M, designs, M]
        return np.concatenate([a, b, swapped.reshape(-1, count)])

    def indices(self, present: np.ndarray, scores: np.ndarray) -> np.ndarray:
        a, b, *swapped = scores.reshape(-1, self.designs)
        variance = np.var([a, b])
        if variance == 0:  # only some A_i differ
            return np.zeros(len(swapped))
        if self.order == "total":
            return np.mean((np.array(swapped) - a) ** 2, axis=1) / (2 * variance)
        return (np.array(swapped) - a) @ (b - np.mean([a, b])) / (self.designs * variance)


class HSICAttribution(_Sensitivity):
    """How much the score depends on whether each feature is present, in any way.

    The Hilbert-Schmidt independence criterion of the feature's presence and the score, estimated
    from n = `samples` masks, of which each feature is present in half:

    `value of feature i = trace(K_i H L H) / (n - 1)^2`, `H = I - 1/n`

    with the kernels `K_i = 1/2` where two masks agree on feature i, else `-1/2`, and
    `L = exp(-(S - S')^2 / (2 s^2))`, s the median distance of two scores (the root mean
    square one, where most scores are alike). `values` are never negative: 0 means independent in
    the limit, and chance alone leaves up to about 1 / (2 n). They have the input's shape, without
    channels where a feature takes all of them (`[B, H, W]`, `[B, T]`). A sample whose score is
    constant has zeros.

    Args:
        features: As in `FeatureAblation`, but that pictures are cut into `Grid(8)`.
        groups: As in `FeatureAblation`.
        baseline: As in `FeatureAblation`.
        background: As in `FeatureAblation`.
        samples: The number of masks, 2 or more.

    Reference:
        - [Novello et al., 2022](https://arxiv.org/abs/2206.06219), section 3
        - [Gretton et al., 2005](https://doi.org/10.1007/11564089_7), definition 2
    """

    samples: int = 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("samples", self.samples, least=2)

    def coalitions(self, count: int, seed: int) -> np.ndarray:
        uniform = backend.random_uniform(seed, (self.samples, count))
        return np.argsort(uniform, axis=0) % 2 == 0

    def indices(self, present: np.ndarray, scores: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import pdist, squareform

        apart = pdist(scores[:, None], "sqeuclidean")
        width = np.median(apart)  # of the squares: the median's square
        if width <= rounding(scores) ** 2:
            width = apart.mean()
        kernel = squareform(np.exp((-apart / (2 * width)).astype(np.float32)))
        np.fill_diagonal(kernel, 1.0)
        signs = (present - present.mean(axis=0)).astype(np.float32)  # centred, K_i is 2 s s'
        traces = 2 * (signs * backend.matmul(kernel, signs)).sum(axis=0, dtype=np.float64)
        return traces / (len(scores) - 1) ** 2
