"""Keras models that explain themselves while they train."""

from keras_explain import backend

backend.require_tensorflow()

from keras_explain import callbacks, plots, sinks  # noqa: E402
from keras_explain.core import baselines, targets  # noqa: E402
from keras_explain.core.explainer import Explainer, get  # noqa: E402
from keras_explain.core.explanation import Explanation  # noqa: E402
from keras_explain.explainers import (  # noqa: E402
    GradCAM,
    GradientSHAP,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    SquareGrad,
    VarGrad,
)

__version__ = "0.1.0"
__all__ = [
    "Explainer",
    "Explanation",
    "GradCAM",
    "GradientSHAP",
    "InputXGradient",
    "IntegratedGradients",
    "Saliency",
    "SmoothGrad",
    "SquareGrad",
    "VarGrad",
    "baselines",
    "callbacks",
    "get",
    "plots",
    "sinks",
    "targets",
]
