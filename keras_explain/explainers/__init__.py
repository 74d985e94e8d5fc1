"""The methods, one short file each."""

from keras_explain.explainers.grad_cam import GradCAM as GradCAM
from keras_explain.explainers.gradient_shap import GradientSHAP as GradientSHAP
from keras_explain.explainers.integrated_gradients import (
    IntegratedGradients as IntegratedGradients,
)
from keras_explain.explainers.saliency import InputXGradient as InputXGradient
from keras_explain.explainers.saliency import Saliency as Saliency
from keras_explain.explainers.smooth import SmoothGrad as SmoothGrad
from keras_explain.explainers.smooth import SquareGrad as SquareGrad
from keras_explain.explainers.smooth import VarGrad as VarGrad
