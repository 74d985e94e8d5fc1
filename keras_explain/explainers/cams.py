"""Class activation maps: CAM, Grad-CAM and its kin. What differs is how channels are weighted."""

import abc
import math
from typing import Any

from keras import ops

from keras_explain.core import checks
from keras_explain.core.data.layout import Layout
from keras_explain.core.explainer import Explainer
from keras_explain.core.graph.averages import not_affine
from keras_explain.core.model.passed import Activations, ForwardPass
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.precision import ROUNDING

Tensor = Any


class LayerMap(Explainer, abc.ABC):
    """A map made of a layer's output. What the fields mean is said in `GradCAM`."""

    layer: Any = None
    reshape: Any = None
    relu: bool = True
    call: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.call_of(self.layer, self.call)
        grid = self.reshape
        if grid is None or callable(grid):
            return
        if not isinstance(grid, tuple) or not grid or not all(map(_is_length, grid)):
            raise ValueError(
                "Expected `reshape` to be a grid of whole numbers, such as (14, 14), or a function "
                f"of tokens [B, T, C] to [B, h, w, C]. Received: reshape={grid!r}."
            )

    def at_layer(self, probe: Probe, passed: ForwardPass) -> Activations:
        """The layer's output in a forward pass."""
        arrange = None if self.reshape is None else self._arrange
        return probe.activations(passed, self.layer, arrange, self.call)

    def _arrange(self, tokens: Tensor, path: str) -> Tensor:
        """Tokens `[n, T, C]` of the layer `path` as a grid `[n, h, w, C]`."""
        count, channels = tokens.shape[1:]
        if callable(self.reshape):
            grid = ops.convert_to_tensor(self.reshape(tokens))
            _check_grid(tuple(grid.shape[1:]), count, channels, path)
            return grid
        size = math.prod(self.reshape)
        if not size <= count <= size + max(self.reshape):
            grid = " x ".join(map(str, self.reshape))
            raise ValueError(
                f"Expected layer {path!r} to have the {grid} = {size} tokens of `reshape`, and a "
                f"few class tokens at most. Received: {count} tokens. Give the grid of the layer's "
                "tokens, or a function that arranges them."
            )
        return ops.reshape(tokens[:, count - size :], (-1, *self.reshape, channels))


class _CAM(LayerMap, abc.ABC):
    """The channels of a layer's output A, weighted and summed: `map = sum_k w_k A_k`.

    A subclass defines the weights.
    """

    @property
    def plan(self) -> Plan:
        return Plan(unit="score")

    @abc.abstractmethod
    def weights(self, features: Activations) -> Tensor:
        """What the activation `[n, h, w, K]` is multiplied by, of a shape that broadcasts to it."""

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        return self.map_of(probe, probe.forward(x, target))

    def map_of(self, probe: Probe, passed: ForwardPass) -> Tensor:
        """The map `[n, h, w]` of the layer in a forward pass."""
        features = self.at_layer(probe, passed)
        cam = ops.sum(self.weights(features) * features.values, axis=-1)
        return ops.relu(cam) if self.relu else cam

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return probe.upsample(total)

    def extras(self, total: Any) -> dict[str, Any]:
        return {"map": total}


class CAM(_CAM):
    """Where a layer's features speak for the class, where the score is linear in their average.

    `S_c = sum_k w_k mean(A_k) + b`, `map = sum_k w_k A_k`

    For models that end in global average pooling and a linear layer, whose own weights the `w_k`
    are. The map is signed, and its mean is the score without the bias. `values` and `extras` are as
    in `GradCAM`.

    Args:
        layer: The layer that is averaged. By default as in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.

    Raises:
        ValueError: Something else than averaging and linear layers leads to the score.

    Reference:
        - [Zhou et al., 2016](https://arxiv.org/abs/1512.04150), equation 2
    """

    relu: bool = False

    def weights(self, features: Activations) -> Tensor:
        _check_is_linear_in_the_average(features)
        gradient = features.gradient  # w_k over the number of positions, at each of them
        count = math.prod(features.call.output.shape[1:]) // gradient.shape[-1]
        return count * ops.mean(gradient, axis=_positions(gradient), keepdims=True)


class GradCAM(_CAM):
    """Where in the picture a layer's features speak for the class.

    `a_k = mean over positions of dS_c / dA_k`, `map = ReLU(sum_k a_k A_k)`

    The map `[B, h, w]` at the layer's resolution is in `extras["map"]`; `values` `[B, H, W]` is its
    bilinear upsampling to the input's size. Series and volumes work alike. A mean that is nothing
    but rounding, as before a normalization over positions, counts as 0. Of several inputs, the
    map lies over the first that leads to the layer and has as many axes of places; which one it is
    says `Explanation.over`.

    Args:
        layer: The layer whose output A is weighted: the layer, its name, or a path into nested
            models (`"backbone/conv_last"`). By default the last one whose output has a spatial
            extent above 1 and is crossed by all paths from the input to the score, so that it is no
            branch among others. Where there is none, the last one, with a warning.
        reshape: For transformers: the grid of a layer of tokens `[B, T, C]`, such as `(14, 14)`,
            which its last 14 * 14 tokens fill row by row (class tokens stand in front), or a
            function that arranges tokens `[B, T, C]` as `[B, h, w, C]`; it is applied to the output
            and to its gradient. With it, `layer` is by default the last one of tokens; where the
            score is read from a class token, the last one before the last attention.
        relu: Whether what speaks against the score is cut off.
        call: Which call of a layer that is called more than once, from 0 on. By default the last.

    Reference:
        - [Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391), equations 1 and 2
    """

    def weights(self, features: Activations) -> Tensor:
        axes = _positions(features.gradient)
        mean = ops.mean(features.gradient, axis=axes, keepdims=True)
        size = ops.mean(ops.abs(features.gradient), axis=axes, keepdims=True)
        return ops.where(ops.abs(mean) > ROUNDING * size, mean, 0.0)


class GradCAMPlusPlus(_CAM):
    """Grad-CAM with weights that count each place of an object alike, however large it is.

    `w_k = sum over positions of a_k ReLU(g_k)`, `a_k = g_k^2 / (2 g_k^2 + g_k^3 sum(A_k))`,
    `map = ReLU(sum_k w_k A_k)`, with `g_k = dS_c / dA_k`

    This is the paper's closed form, for `exp(S_c)` and networks of ReLUs. The factor `exp(S_c)`,
    which all weights share, is left out: maps are finite for any score, and differ from the paper's
    by it. It supposes features of 0 or more; where a layer has others, `sum(A_k)` counts the
    positive ones, so that no denominator is near 0. `values` and `extras` are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.

    Reference:
        - [Chattopadhay et al., 2018](https://arxiv.org/abs/1710.11063), equations 5 and 19
    """

    def weights(self, features: Activations) -> Tensor:
        a, g = features.values, ops.relu(features.gradient)
        total = ops.sum(ops.relu(a), axis=_positions(a), keepdims=True)
        return ops.sum(g / (2 + g * total), axis=_positions(a), keepdims=True)


class HiResCAM(_CAM):
    """Where a layer's features are used for the class: the gradient is not averaged.

    `map = sum_k dS_c / dA_k * A_k`, signed

    Where one linear layer leads from A to the score, the map sums to the score without the bias.
    `values` and `extras` are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.

    Reference:
        - [Draelos and Carin, 2020](https://arxiv.org/abs/2011.08891), section 3
    """

    relu: bool = False

    def weights(self, features: Activations) -> Tensor:
        return features.gradient


class XGradCAM(_CAM):
    """Grad-CAM whose weights average the gradient by how strong the feature is at each place.

    `w_k = sum over positions of A_k / sum(A_k) * dS_c / dA_k`, `map = sum_k w_k A_k`, signed

    Where one linear layer leads from A to the score, the map sums to the score without the bias. A
    channel whose `sum(A_k)` is 0, or within rounding of it, gets no weight. `values` and `extras`
    are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.

    Reference:
        - [Fu et al., 2020](https://arxiv.org/abs/2008.02312), section 3
    """

    relu: bool = False

    def weights(self, features: Activations) -> Tensor:
        a, axes = features.values, _positions(features.values)
        total = ops.sum(a, axis=axes, keepdims=True)
        counts = ops.abs(total) > 1e-6 * ops.sum(ops.abs(a), axis=axes, keepdims=True)
        weighted = ops.sum(a * features.gradient, axis=axes, keepdims=True)
        return ops.where(counts, weighted / ops.where(counts, total, 1.0), 0.0)


class LayerCAM(_CAM):
    """Grad-CAM that weighs each place by its own positive gradient; also for early layers.

    `map = ReLU(sum_k ReLU(dS_c / dA_k) * A_k)`

    `values` and `extras` are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether what speaks against the score is cut off.
        call: As in `GradCAM`.

    Reference:
        - [Jiang et al., 2021](https://doi.org/10.1109/TIP.2021.3089943), equations 6 to 8
    """

    def weights(self, features: Activations) -> Tensor:
        return ops.relu(features.gradient)


class EigenCAM(_CAM):
    """What most of a layer's output has in common: its first principal component.

    `A = U S V^T` with positions as rows and channels as columns, `map = A v_1`

    It looks at no score and no gradient, and is the same for every class. The sign of `v_1`, which
    is free, is chosen so that the map's sum is not negative. A is not centred, as in the paper.
    `values` and `extras` are as in `GradCAM`.

    Args:
        layer: As in `GradCAM`.
        reshape: As in `GradCAM`.
        relu: Whether negative values are cut off.
        call: As in `GradCAM`.

    Reference:
        - [Muhammad and Yeasin, 2020](https://arxiv.org/abs/2008.00299), section III
    """

    relu: bool = False

    @property
    def plan(self) -> Plan:
        return Plan()

    def weights(self, features: Activations) -> Tensor:
        activation = features.values
        *spatial, channels = activation.shape[1:]
        a = ops.reshape(activation, (-1, math.prod(spatial), channels))  # [n, P, K]
        largest = ops.max(ops.abs(a), axis=(1, 2), keepdims=True)
        a = a / ops.where(largest > 0, largest, 1.0)  # its squares are neither 0 nor infinite
        v = _first_direction(a)
        v = ops.where(ops.sum(ops.matmul(a, v), axis=1, keepdims=True) < 0, -v, v)
        return ops.reshape(v, (-1, *(1 for _ in spatial), channels))


def _first_direction(a: Tensor) -> Tensor:
    """The first right singular vector `[n, K, 1]` of `[n, P, K]`, by the smaller Gram matrix."""
    transposed = ops.swapaxes(a, 1, 2)
    if a.shape[1] > a.shape[2]:
        return ops.eigh(ops.matmul(transposed, a))[1][..., -1:]
    u = ops.eigh(ops.matmul(a, transposed))[1][..., -1:]
    v = ops.matmul(transposed, u)
    length = ops.sqrt(ops.sum(v * v, axis=1, keepdims=True))
    return v / ops.where(length > 0, length, 1.0)


def _positions(features: Tensor) -> tuple[int, ...]:
    """The axes between that of the samples and that of the channels."""
    return tuple(range(1, len(features.shape) - 1))


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_grid(shape: tuple[Any, ...], count: int, channels: int, path: str) -> None:
    fixed = len(shape) > 1 and None not in shape
    if not (fixed and shape[-1] == channels and 1 < math.prod(shape[:-1]) <= count):
        received = ", ".join(map(str, ("B", *shape)))
        raise ValueError(
            f"Expected `reshape` to arrange the tokens [B, {count}, {channels}] of layer {path!r} "
            f"as [B, h, w, {channels}], with fixed h and w. Received: [{received}]."
        )


def _check_is_linear_in_the_average(features: Activations) -> None:
    """Raises a `ValueError` unless the score is an affine function of the output's average."""
    output = features.call.output
    positions = Layout(len(output.shape), features.channels).axes
    broken = not_affine(features.scores, output, positions)
    if broken:
        raise ValueError(
            "Expected a score that is linear in the global average of layer "
            f"{features.call.path!r}, as behind GlobalAveragePooling2D and Dense. "
            f"Received: operation {broken} between them. Use GradCAM, which explains any model: "
            "behind a global average its map is this one's positive part, over the number of "
            "positions."
        )
