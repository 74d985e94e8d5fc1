"""Blur Integrated Gradients."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain.core import checks
from keras_explain.core.explainer import Explainer
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.explainers.layers import pieces


class BlurIG(Explainer):
    """The gradient along the path on which a blurred picture becomes sharp.

    `values = integral over a in [0, 1] of dS_c / dx(a) * dx(a) / da da`, where `x(a)` is the input
    x blurred by a Gaussian of standard deviation `max_sigma (1 - a)^2`

    The path introduces no new features, and needs no baseline. The integral is a sum over pieces of
    the path: the gradient at a Gauss-Legendre node times the change of the picture over the piece.
    The values, of the input's shape, sum to the score less that of the most blurred input, which is
    in `extras["base_values"]` `[B]`; how far they are from it is in `extras["convergence_delta"]`
    `[B]`.

    Args:
        steps: The number of pieces of the path.
        max_sigma: The standard deviation at its beginning, in pixels.
        axes: The axes to blur. By default those of the places, as the model's layers say.

    Reference:
        - [Xu et al., 2020](https://arxiv.org/abs/2004.03383), equation 7
    """

    steps: int = 50
    max_sigma: float = 50.0
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("steps", self.steps)
        checks.share("max_sigma", self.max_sigma)
        if self.axes is not None:
            checks.several("axes", self.axes)
        if self.max_sigma == 0:
            raise ValueError("Expected `max_sigma` above 0. Received: max_sigma=0.")

    @property
    def plan(self) -> Plan:
        return replace(
            super().plan,
            unit="score",
            measured_from="own reference",
            references=self._reference,
        )

    def check(self, x: Any) -> None:
        for leaf in tree.flatten(x):
            axes = self.axes or range(1, leaf.ndim - 1)
            if not axes or not all(0 < axis < leaf.ndim for axis in axes):
                raise ValueError(
                    "Expected inputs with spatial axes [B, ..., C], or `axes` of them, to blur. "
                    f"Received: x of shape {leaf.shape} and axes={self.axes}."
                )

    def passes(self, seed: int) -> dict[str, Any]:
        found = pieces(self.steps)
        return {
            name: np.float32(self.max_sigma) * (1 - found[name]) ** 2
            for name in ("node", "begin", "end")
        }

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        _refuse_ids(probe.inputs)
        node, before, after = (
            self._blurred(probe, x, pass_[name]) for name in ("node", "begin", "end")
        )
        gradient = probe.gradient(node, target)
        return tree.map_structure(lambda g, a, b: g * (b - a), gradient, before, after)

    def _reference(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return self._blurred(probe, probe.inputs, ops.full((1,), self.max_sigma))

    def _blurred(self, probe: Probe, x: Any, sigma: Any) -> Any:
        leaves = zip(tree.flatten(x), probe.layouts, strict=True)
        moved = [blurred(leaf, sigma, self.axes or layout.axes) for leaf, layout in leaves]
        return tree.pack_sequence_as(x, moved)


def blurred(x: Any, sigma: Any, axes: tuple[int, ...]) -> Any:
    """`x` `[n, ...]` blurred along some axes by Gaussians of standard deviations `[n]` or `[1]`.

    What would lie outside takes no part. A standard deviation of 0 changes nothing.
    """
    scale = 2 * ops.maximum(ops.square(sigma), 1e-12)[:, None, None]
    for axis in axes:
        length = x.shape[axis]
        at = np.arange(length, dtype=np.float32)
        kernel = ops.exp(-ops.square(at[:, None] - at) / scale)  # [n or 1, length, length]
        kernel = kernel / ops.sum(kernel, axis=-1, keepdims=True)
        moved = ops.moveaxis(x, axis, 1)
        flat = ops.matmul(kernel, ops.reshape(moved, (-1, length, _size(moved.shape[2:]))))
        x = ops.moveaxis(ops.reshape(flat, (-1, *moved.shape[1:])), 1, axis)
    return x


def _size(shape: Any) -> int:
    return int(np.prod(shape))


def _refuse_ids(inputs: Any) -> None:
    if any(keras.backend.is_int_dtype(leaf.dtype) for leaf in tree.flatten(inputs)):
        raise ValueError(
            "Expected inputs that can be blurred, such as pictures. Received: token ids. Use "
            "`IntegratedGradients`, with the ids of a neutral text as `baseline`."
        )
