"""The methods, one short file each."""

from keras_explain.explainers.ablation import FeatureAblation as FeatureAblation
from keras_explain.explainers.blur_ig import BlurIG as BlurIG
from keras_explain.explainers.cams import CAM as CAM
from keras_explain.explainers.cams import EigenCAM as EigenCAM
from keras_explain.explainers.cams import GradCAM as GradCAM
from keras_explain.explainers.cams import GradCAMPlusPlus as GradCAMPlusPlus
from keras_explain.explainers.cams import HiResCAM as HiResCAM
from keras_explain.explainers.cams import LayerCAM as LayerCAM
from keras_explain.explainers.cams import XGradCAM as XGradCAM
from keras_explain.explainers.deep_lift import DeepLIFT as DeepLIFT
from keras_explain.explainers.deep_lift import DeepSHAP as DeepSHAP
from keras_explain.explainers.gradient_shap import GradientSHAP as GradientSHAP
from keras_explain.explainers.guided import Deconvnet as Deconvnet
from keras_explain.explainers.guided import GuidedBackprop as GuidedBackprop
from keras_explain.explainers.guided import GuidedGradCAM as GuidedGradCAM
from keras_explain.explainers.guided_ig import GuidedIG as GuidedIG
from keras_explain.explainers.integrated_gradients import (
    IntegratedGradients as IntegratedGradients,
)
from keras_explain.explainers.kernel_shap import KernelSHAP as KernelSHAP
from keras_explain.explainers.layers import InternalInfluence as InternalInfluence
from keras_explain.explainers.layers import LayerConductance as LayerConductance
from keras_explain.explainers.lime import LIME as LIME
from keras_explain.explainers.lrp import LRP as LRP
from keras_explain.explainers.lrp import DeepTaylor as DeepTaylor
from keras_explain.explainers.meaningful import ExtremalPerturbation as ExtremalPerturbation
from keras_explain.explainers.meaningful import MeaningfulPerturbation as MeaningfulPerturbation
from keras_explain.explainers.occlusion import Occlusion as Occlusion
from keras_explain.explainers.partition_shap import PartitionSHAP as PartitionSHAP
from keras_explain.explainers.rise import RISE as RISE
from keras_explain.explainers.saliency import InputXGradient as InputXGradient
from keras_explain.explainers.saliency import Saliency as Saliency
from keras_explain.explainers.score_cams import AblationCAM as AblationCAM
from keras_explain.explainers.score_cams import ScoreCAM as ScoreCAM
from keras_explain.explainers.sensitivity import HSICAttribution as HSICAttribution
from keras_explain.explainers.sensitivity import SobolAttribution as SobolAttribution
from keras_explain.explainers.shapley import ExactShapley as ExactShapley
from keras_explain.explainers.shapley import ShapleySampling as ShapleySampling
from keras_explain.explainers.smooth import SmoothGrad as SmoothGrad
from keras_explain.explainers.smooth import SquareGrad as SquareGrad
from keras_explain.explainers.smooth import VarGrad as VarGrad
from keras_explain.explainers.xrai import XRAI as XRAI
