"""What tree regularization asks of the loss and the labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from keras_explain import backend
from keras_explain.core.names import snake_name

_REGRESSION = {
    "cosine_similarity",
    "huber",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
}


_OF_PROBABILITIES = {
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "dice",
    "kl_divergence",
    "sparse_categorical_crossentropy",
    "tversky",
}


def check_loss(loss: Any, *, of_logits: bool = False) -> None:
    """Raises a `ValueError` for a loss of regression, or one that takes logits for probabilities.

    Args:
        loss: What was passed to `compile`.
        of_logits: Whether the model is known to end without a sigmoid or softmax.
    """
    for given in tree.flatten(loss):
        found = keras.losses.get(given)
        name = getattr(found, "__name__", None) or snake_name(type(found).__name__)
        if name in _REGRESSION:
            raise ValueError(
                "Expected a loss of classification, such as 'binary_crossentropy' or "
                "'sparse_categorical_crossentropy', since the trees mimic predicted classes. "
                f"Received: loss={given!r}. For a regression, make classes of the target, such as "
                "`np.digitize(y, thresholds)`, and train a classifier of those. For a squared "
                "error between probabilities (the Brier score), pass a function of your own."
            )
        if of_logits and name in _OF_PROBABILITIES and not getattr(found, "from_logits", False):
            raise ValueError(
                "Expected a loss with `from_logits=True`, since no sigmoid or softmax was found at "
                f"the end of the model. Received: loss={given!r}, which takes probabilities. If "
                "the model does return probabilities, end it with `keras.layers.Activation`."
            )


def check_labels(y: Any, classes: int, output_rank: int) -> None:
    """Raises a `ValueError` where an array of labels has one class only.

    Args:
        y: What was passed to `fit`.
        classes: How many classes the model has.
        output_rank: How many axes its output has.
    """
    if not (hasattr(y, "__array__") and hasattr(y, "shape")):
        return  # a dataset, or nothing: its labels come with the batches
    labels = backend.to_numpy(y)
    if labels.ndim == output_rank and labels.shape[-1] == classes:  # one-hot
        labels = labels.argmax(axis=-1)
    found = np.unique(labels)
    if len(found) == 1:
        raise ValueError(
            "Expected labels of at least two classes to train a classifier on. "
            f"Received: {labels.size} labels that are all {found[0]}."
        )
