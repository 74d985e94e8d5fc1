"""Keras models that explain themselves while they train.

Nothing is loaded before it is used: TensorBoard loads `keras_explain.tensorboard` alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_explain import callbacks, plots, sinks, terms, trees
    from keras_explain.core import rules
    from keras_explain.core.data import baselines
    from keras_explain.core.explainer import Explainer, get
    from keras_explain.core.hiding import features
    from keras_explain.core.model import targets
    from keras_explain.core.record.explanation import Explanation
    from keras_explain.explainers import (
        CAM,
        LIME,
        LRP,
        RISE,
        XRAI,
        AblationCAM,
        BlurIG,
        Deconvnet,
        DeepLIFT,
        DeepSHAP,
        DeepTaylor,
        EigenCAM,
        ExactShapley,
        ExtremalPerturbation,
        FeatureAblation,
        GradCAM,
        GradCAMPlusPlus,
        GradientSHAP,
        GuidedBackprop,
        GuidedGradCAM,
        GuidedIG,
        HiResCAM,
        HSICAttribution,
        InputXGradient,
        IntegratedGradients,
        InternalInfluence,
        KernelSHAP,
        LayerCAM,
        LayerConductance,
        MeaningfulPerturbation,
        Occlusion,
        PartitionSHAP,
        Saliency,
        ScoreCAM,
        ShapleySampling,
        SmoothGrad,
        SobolAttribution,
        SquareGrad,
        VarGrad,
        XGradCAM,
    )
    from keras_explain.tensorboard.report import report
    from keras_explain.training.regularized import Regularized
    from keras_explain.trees import TreeRegularization

__version__ = "0.1.0"
__all__ = [
    "CAM",
    "LIME",
    "LRP",
    "RISE",
    "XRAI",
    "AblationCAM",
    "BlurIG",
    "Deconvnet",
    "DeepLIFT",
    "DeepSHAP",
    "DeepTaylor",
    "EigenCAM",
    "ExactShapley",
    "Explainer",
    "Explanation",
    "ExtremalPerturbation",
    "FeatureAblation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "GuidedIG",
    "HSICAttribution",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "InternalInfluence",
    "KernelSHAP",
    "LayerCAM",
    "LayerConductance",
    "MeaningfulPerturbation",
    "Occlusion",
    "PartitionSHAP",
    "Regularized",
    "Saliency",
    "ScoreCAM",
    "ShapleySampling",
    "SmoothGrad",
    "SobolAttribution",
    "SquareGrad",
    "TreeRegularization",
    "VarGrad",
    "XGradCAM",
    "baselines",
    "callbacks",
    "features",
    "get",
    "plots",
    "report",
    "rules",
    "sinks",
    "targets",
    "terms",
    "trees",
]

_HOMES = {
    "Explainer": "core.explainer",
    "Explanation": "core.record.explanation",
    "Regularized": "training.regularized",
    "TreeRegularization": "trees",
    "get": "core.explainer",
    "report": "tensorboard.report",
}
_MODULES = {
    "baselines": "core.data.baselines",
    "callbacks": "callbacks",
    "features": "core.hiding.features",
    "plots": "plots",
    "rules": "core.rules",
    "sinks": "sinks",
    "targets": "core.model.targets",
    "terms": "terms",
    "trees": "trees",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = _MODULES.get(name, _HOMES.get(name, "explainers"))
    found = importlib.import_module(f"{__name__}.{module}")
    value = found if name in _MODULES else getattr(found, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
