"""How much of the score each backward method leaves unexplained, by architecture.

The gap of a sample is what the values miss, as a share of the larger of |score change| and
sum |values|. DeepLIFT and DeepSHAP miss `convergence_delta`, which is rounding alone; LRP misses
`residual`, which biases have taken unless they are zero.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

import keras_explain as kx

L = keras.layers
NAMES = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "VGG16"),
    *("DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3", "Xception"),
    *("NASNetMobile", "ConvNeXtTiny"),
)
ARCHITECTURES = {name: getattr(keras.applications, name) for name in NAMES}
SIZE = 96
BOUND = 1e-3


@dataclass(frozen=True)
class Case:
    """A column of the table: an explainer, and whether the model's biases are zero."""

    name: str
    explainer: Callable[[np.ndarray], kx.Explainer]
    without_biases: bool = False
    bounded: bool = True


CASES = (
    Case("DeepLIFT", lambda background: kx.DeepLIFT()),
    Case("DeepLIFT, reveal-cancel", lambda background: kx.DeepLIFT(rule="reveal_cancel")),
    Case("DeepSHAP", lambda background: kx.DeepSHAP(background=background)),
    Case("LRP epsilon, no biases", lambda background: kx.LRP(rules="epsilon"), True),
    Case("LRP epsilon+", lambda background: kx.LRP(rules="epsilon_plus"), bounded=False),
    Case("LRP alpha2 beta1", lambda background: kx.LRP(rules="alpha2_beta1"), bounded=False),
)


def calibrated(name: str, size: int = SIZE) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network of `keras.applications` with random weights, 4 pictures, and 4 as a background.

    The statistics of its BatchNormalizations are those of the pictures. ConvNeXt's LayerScales are
    1 in place of 1e-6, with which its branches would not count.
    """
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES[name](
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    layers = model._flatten_layers()
    x = pictures(size)
    if not any(isinstance(layer, (L.Rescaling, L.Normalization)) for layer in layers):
        x = x / 127.5 - 1
    for layer in layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    model(x, training=True)
    return model, x[:4], x[4:]


def pictures(size: int) -> np.ndarray:
    """8 photographs that scikit-image brings along, `[8, size, size, 3]`, from 0 to 255."""
    from skimage import data

    whole = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    corners = [photo[:300, :300] for photo in whole] + [photo[-300:, -300:] for photo in whole]
    resized = keras.ops.image.resize(np.stack(corners).astype("float32"), (size, size))
    return np.asarray(resized)


def remove_biases(model: keras.Model) -> None:
    """Sets to zero what a layer adds: biases, shifts and the means of normalizations."""
    for layer in model._flatten_layers():
        for name in ("bias", "beta", "moving_mean"):
            variable = getattr(layer, name, None)
            if variable is not None:
                variable.assign(np.zeros(variable.shape))


def gaps(
    model: keras.Model, x: np.ndarray, background: np.ndarray
) -> Iterator[tuple[Case, float, kx.Explanation]]:
    """The largest gap of each case over the samples; leaves the model without biases."""
    for without in (False, True):
        if without:
            remove_biases(model)
        for case in CASES:
            if case.without_biases == without:
                explained = case.explainer(background)(model, x)
                yield case, float(gap(explained).max()), explained


def gap(explained: kx.Explanation) -> np.ndarray:
    """What the values miss of each sample's score change, `[B]`, as a share of their size."""
    values = explained.values.reshape(len(explained.values), -1).astype(np.float64)
    extras = explained.extras
    change = explained.scores - extras.get("base_values", 0.0)
    missing = extras["convergence_delta" if "base_values" in extras else "residual"]
    return np.abs(missing) / np.maximum(np.abs(change), np.abs(values).sum(axis=1))


def most_lost(model: keras.Model, explained: kx.Explanation) -> str:
    """The layers that lose most of the relevance, for a method that says so."""
    explainer = explained.explainer
    if not hasattr(explainer, "residuals"):
        return f"{gap(explained).max():.1e}"
    lost = explainer.residuals(model, explained.x, explained.target.index)
    largest = sorted(lost, key=lambda path: -np.abs(lost[path]).max())[:3]
    return ", ".join(
        f"{path or 'outside of layers'} {np.abs(lost[path]).max():.1e}" for path in largest
    )
