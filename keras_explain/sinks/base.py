"""What a callback has found out, and where it can go."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.record.explanation import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One explainer at one step.

    Attributes:
        step: Epoch, or number of batches.
        name: The explainer's name in the log.
        explanation: What the explainer returned.
        scalars: Scalar name -> value, without the explainer's name.
        limit: The colour limit that all samples of this record share.
        signed: Whether the maps have negative values.
        pictures: The inputs as they are shown, uint8 `[B, H, W, 3]`; `None` where nothing can be
            shown as a picture, or several classes per sample are explained.
        maps: The maps over them, float32 `[B, H, W]`; `None` together with `pictures`.
        reliable: Whether each of the maps can be told from zero, `[B]`; `None` if all can.
        labels: True classes, ints `[B]`.
        predicted: Predicted classes at this step, ints `[B]`.
        explained: Explained classes, ints `[B, K]`; `None` where what is explained is no class.
        class_names: A name per class.
        probabilities: The probability of each predicted class, floats `[B]`.
        feature_names: Names of the columns of a table, or of the channels of a series.
        vocabulary: The word of each token id: a sequence, a mapping or a function.
        to_image: A function from inputs to pictures; `None` guesses their range.
    """

    step: int
    name: str
    explanation: Explanation
    scalars: dict[str, float]
    limit: float
    signed: bool
    pictures: npt.NDArray[np.uint8] | None = None
    maps: npt.NDArray[np.float32] | None = None
    reliable: npt.NDArray[np.bool_] | None = None
    labels: npt.NDArray[np.int64] | None = None
    predicted: npt.NDArray[np.int64] | None = None
    explained: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    probabilities: npt.NDArray[np.floating] | None = None
    feature_names: tuple[str, ...] | None = None
    vocabulary: Any = None
    to_image: Callable[[Any], Any] | None = None

    def class_name(self, index: Any) -> str:
        """The name of a class, or its number where it has none."""
        names = self.class_names or ()
        return names[int(index)] if index < len(names) else str(int(index))


class NotWrittenError(RuntimeError):
    """What a sink was given before, and could not write.

    Attributes:
        failures: A step and a message for each record that was lost.
    """

    def __init__(self, message: str, failures: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)


class Sink(abc.ABC):
    """A place for records. After `close`, the next `write` opens it again.

    A logger is copied with its sinks (KerasTuner does so for each trial): a copy of a sink, by
    `copy.deepcopy` or `pickle`, must write to a place of its own.
    """

    def open(self, names: Sequence[str] = ()) -> None:  # noqa: B027, most have nothing to do
        """Begins a training. What can't be written to is an error here; by default nothing is done.

        Args:
            names: Those of the explainers that the training will log.
        """

    @abc.abstractmethod
    def write(self, record: Record) -> None:
        """Takes a record. It may be kept, so its arrays must not change afterwards."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Ends a step: what was written so far becomes readable soon, without waiting for it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Waits until everything is written, and lets go of files and threads."""
