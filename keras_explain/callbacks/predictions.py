"""Classes: what a model predicts, and what an explanation is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.model import forward, targets
from keras_explain.core.record.explanation import Explanation

Classes = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts.

    Attributes:
        classes: Predicted classes, ints `[B]`. A one-unit output stands for two classes, and
            predicts 1 where its logit is above 0.
        units: How many units the output has.
        probabilities: Those of the predicted classes, floats `[B]`; `None` where the output is
            neither known to hold probabilities nor to be logits.
    """

    classes: Classes
    units: int
    probabilities: npt.NDArray[np.floating] | None


def predict(
    model: Any, x: Any, target: Any, batch_size: int | None, class_names: Sequence[str] | None
) -> Predictions | None:
    """Predicts classes, at the output that a target speaks of.

    Args:
        model: The model.
        x: The input: a nest of arrays `[B, ...]`.
        target: What is explained.
        batch_size: How many rows go through the model at once.
        class_names: A name per class, whose number is checked.

    Returns:
        The predictions; `None` if the target speaks of no class.

    Raises:
        ValueError: If there are more or fewer names than classes.
    """
    target = targets.as_target(target)
    if not isinstance(target, targets.Class):
        return None
    asked = targets.Label(of=target.of, output=target.output)
    found = forward.predict(model, x, asked, batch_size)
    units, likely = found.width, None
    if class_names is not None and len(class_names) != max(units, 2):
        raise ValueError(
            f"Expected a name for each of the {max(units, 2)} classes of the model's output. "
            f"Received: {len(class_names)} names, class_names={tuple(class_names)}."
        )
    if found.has_probabilities:
        likely = forward.predict(model, x, asked.replace(of="probability"), batch_size).scores
    return Predictions(found.classes.astype(np.int64), units, likely)


def explained_classes(explanation: Explanation, predicted: Predictions | None) -> Classes | None:
    """The classes that were explained.

    Args:
        explanation: An explanation.
        predicted: What `predict` found.

    Returns:
        Ints `[B, K]`; `None` if the target names no class. The unit of a one-unit output is none,
        but a label of it is.
    """
    target = explanation.target
    one_unit = predicted is not None and predicted.units == 1
    if one_unit and not isinstance(target, targets.Label):
        return None
    if not isinstance(target, (targets.Class, targets.Region)):
        return None
    index = np.asarray(target.index, np.int64)
    return index.reshape(len(index), -1)
