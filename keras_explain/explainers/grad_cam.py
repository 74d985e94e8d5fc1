"""Grad-CAM."""

from typing import Any

from keras import ops

from keras_explain.core.explainer import Explainer
from keras_explain.core.probe import Probe


class GradCAM(Explainer):
    """Where in the picture a layer's features speak for the class.

    `a_k = mean over positions of dS_c / dA_k`, `map = ReLU(sum_k a_k A_k)`

    The map `[B, h, w]` at the layer's resolution is in `extras["map"]`; `values` `[B, H, W]` is its
    bilinear upsampling to the input's size. Series and volumes work alike.

    Args:
        layer: The layer whose output A is weighted: the layer, its name, or a path into nested
            models (`"backbone/conv_last"`). By default the last one whose output has a spatial
            extent above 1.

    Reference:
        - [Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391), equations 1 and 2
    """

    layer: Any = None

    def step(self, probe: Probe, x: Any, target: Any, pass_: dict[str, Any]) -> Any:
        activation, gradient = probe.at(self.layer, x, target)  # [n, h, w, k]
        positions = tuple(range(1, len(activation.shape) - 1))
        weights = ops.mean(gradient, axis=positions, keepdims=True)
        return ops.relu(ops.sum(weights * activation, axis=-1))

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return probe.upsample(total)

    def extras(self, total: Any) -> dict[str, Any]:
        return {"map": total}
