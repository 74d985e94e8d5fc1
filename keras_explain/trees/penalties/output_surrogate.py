"""The path length, predicted from the model's outputs."""

from __future__ import annotations

from typing import Any

from keras_explain.core import checks
from keras_explain.trees.penalties.base import Floats, Sizes, Step
from keras_explain.trees.penalties.surrogates import Surrogate

Tensor = Any


class OutputSurrogate(Surrogate):
    """The path length as a small network predicts it from the model's outputs.

        Omega(theta) = MLP(p(x_1), ..., p(x_k))

    where x_1, ..., x_k are a few rows of the reference, drawn once by the seed of the training. It
    is the surrogate of `WeightSurrogate`, but its size does not depend on the model's.

    It predicts path lengths better than from the weights, but only close to what it has seen. On
    the parabola of the paper strengths of 0.07 to 0.1 made trees a tenth shorter for nearly the
    same accuracy; on the other tasks in `docs/frontier.md` it cost accuracy for little or nothing.
    `TreeDistillation` is safer.

    Args:
        probes: How many rows of the reference it looks at. Each step runs the model on them too.
    """

    probes: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("probes", self.probes)

    @property
    def probe_rows(self) -> int:
        return self.probes

    def size(self, sizes: Sizes) -> int:
        return sizes.outputs

    def seen(self, weights: Floats, outputs: Floats) -> Floats:
        return outputs

    def seen_in(self, step: Step) -> Tensor:
        return step.probe()
