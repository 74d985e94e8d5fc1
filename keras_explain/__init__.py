"""Keras models that explain themselves while they train."""

from keras_explain import backend

backend.require_tensorflow()

from keras_explain import callbacks, plots, sinks  # noqa: E402
from keras_explain.core import baselines, features, rules, targets  # noqa: E402
from keras_explain.core.explainer import Explainer, get  # noqa: E402
from keras_explain.core.explanation import Explanation  # noqa: E402
from keras_explain.explainers import (  # noqa: E402
    CAM,
    LRP,
    RISE,
    XRAI,
    BlurIG,
    Deconvnet,
    DeepLIFT,
    DeepSHAP,
    DeepTaylor,
    EigenCAM,
    FeatureAblation,
    GradCAM,
    GradCAMPlusPlus,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    GuidedIG,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    InternalInfluence,
    LayerCAM,
    LayerConductance,
    Occlusion,
    Saliency,
    SmoothGrad,
    SquareGrad,
    VarGrad,
    XGradCAM,
)

__version__ = "0.1.0"
__all__ = [
    "CAM",
    "LRP",
    "RISE",
    "XRAI",
    "BlurIG",
    "Deconvnet",
    "DeepLIFT",
    "DeepSHAP",
    "DeepTaylor",
    "EigenCAM",
    "Explainer",
    "Explanation",
    "FeatureAblation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "GuidedIG",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "InternalInfluence",
    "LayerCAM",
    "LayerConductance",
    "Occlusion",
    "Saliency",
    "SmoothGrad",
    "SquareGrad",
    "VarGrad",
    "XGradCAM",
    "baselines",
    "callbacks",
    "features",
    "get",
    "plots",
    "rules",
    "sinks",
    "targets",
]
