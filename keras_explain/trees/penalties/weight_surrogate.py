"""The path length, predicted from the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_explain.core import checks
from keras_explain.trees.penalties.base import Floats, Network, Sizes, Step
from keras_explain.trees.penalties.surrogates import Surrogate, mixtures

Tensor = Any


class WeightSurrogate(Surrogate):
    """The path length as a small network predicts it from the model's weights: the paper's penalty.

        Omega(theta) = MLP(flattened theta)

    Wu et al., "Beyond Sparsity: Tree Regularization of Deep Models for Interpretability", AAAI
    2018, https://arxiv.org/abs/1711.06178, with what "Regional Tree Regularization for
    Interpretability in Deep Neural Networks", AAAI 2020, https://arxiv.org/abs/1908.04494, adds:
    augmentation, deterministic trees, pruning.

    It is there to compare with the paper. A few hundred pairs say little about a function of
    thousands of weights: on a network of 11,000 the rank correlation with path lengths that came
    later was about 0. On five tasks (`docs/frontier.md`) strengths up to 10 hardly changed path
    lengths, and larger ones cost accuracy for little. Look at
    `surrogate_rank_correlation` in the logs before trusting it, and prefer `TreeDistillation`.
    What a model does not train (such as the moving averages of BatchNormalization) stays as it is
    while other weights are measured.

    Args:
        augmented_kept: From how many of the latest augmented weights it learns.
        mixtures: How many of these are made at a fit as means of the weights of the latest refits,
            by shares drawn from Dirichlet(1). Few by default: they lie close to their centre.
        max_weights: A model of more trainable weights is an error.
    """

    augmented_kept: int = 120
    mixtures: int = 10
    max_weights: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("mixtures", self.mixtures, least=0)
        checks.count("max_weights", self.max_weights)

    def check(self, sizes: Sizes) -> None:
        if sizes.weights > self.max_weights:
            raise ValueError(
                f"Expected a model of at most {self.max_weights} trainable weights, since the "
                "surrogate has 25 for each of them, and keeps a copy of all per pair it learns "
                f"from. Received: {sizes.weights}. Use `kx.trees.TreeDistillation()` or "
                "`kx.trees.OutputSurrogate()`, whose size does not depend on the model's."
            )

    def size(self, sizes: Sizes) -> int:
        return sizes.weights

    def seen(self, weights: Floats, outputs: Floats) -> Floats:
        return weights

    def seen_in(self, step: Step) -> Tensor:
        return step.weights()

    def augmented(self, network: Network, recent: Floats, stream: int) -> Floats:
        mixed = mixtures(recent, self.mixtures, self.seed, stream + 3)
        return np.concatenate([super().augmented(network, recent, stream), mixed])
