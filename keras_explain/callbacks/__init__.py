"""Explanations while a model trains."""

from keras_explain.callbacks.explanation_logger import ExplanationLogger as ExplanationLogger
