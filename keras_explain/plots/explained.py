"""What the figures need of an explanation of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.targets import Class, Region
from keras_explain.plots import render
from keras_explain.plots.places import layer_of, matches, over_pictures, pairs_of
from keras_explain.plots.sheet import number

if TYPE_CHECKING:
    from keras_explain.core.explanation import Explanation

ToImage = Callable[[Any], Any] | None
ClassNames = Sequence[str] | Mapping[int, str] | None
Caption = tuple[str, str]  # class, score


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """The first samples of an explanation: n samples, K targets each."""

    x: npt.NDArray[Any]  # [n, ...]
    maps: render.Maps  # [n * K, H, W]
    classes: list[str]  # [n * K]; "" where the target names no class or unit
    scores: npt.NDArray[np.float32]  # [n * K]
    targets: int  # K

    def __str__(self) -> str:
        return f"inputs {self.x.shape} with {self.targets} target(s)"

    def captions(self) -> list[Caption]:
        """Class and score of each row."""
        return [
            (name, number(score)) for name, score in zip(self.classes, self.scores, strict=True)
        ]

    def pictures(self, to_image: ToImage) -> render.Pictures:
        """The inputs as pictures, each K times, `[n * K, H, W, 3]`."""
        return render.to_uint8(self.x, to_image).repeat(self.targets, axis=0)


def opened(explanation: Explanation, max_samples: int, class_names: ClassNames) -> Explained:
    """Takes the first samples of an explanation.

    Raises:
        ValueError: If it is not an explanation of pictures.
    """
    if max_samples < 1:
        raise ValueError(f"Expected `max_samples` of 1 or more. Received: {max_samples}.")
    scores = np.asarray(explanation.scores)
    explanation = over_pictures(explanation)
    x, values = _picture_input(explanation, scores.ndim == 2)
    classes = _classes(explanation.target, scores.shape, max_samples, class_names)
    x, values, scores = x[:max_samples], values[:max_samples], scores[:max_samples]
    if scores.ndim == 2:
        values = values.reshape(-1, *values.shape[2:])
    return Explained(
        x,
        render.to_maps(values),
        classes,
        scores.reshape(-1),
        scores.size // len(scores),
    )


def opened_together(
    explanations: Mapping[Any, Explanation], max_samples: int, class_names: ClassNames
) -> dict[Any, Explained]:
    """Opens several explanations of the same inputs and the same number of targets.

    Raises:
        ValueError: If one is not of pictures, and as `together` does.
    """
    every = {key: opened(e, max_samples, class_names) for key, e in explanations.items()}
    together(every)
    return every


def together(every: Mapping[Any, Explained]) -> None:
    """Checks that explanations can stand in the same rows.

    Raises:
        ValueError: If there is none, or one has other inputs or another number of targets than the
            first.
    """
    if not every:
        raise ValueError("Expected at least one explanation to draw. Received: none.")
    (name, first), *others = every.items()
    for other_name, other in others:
        if other.targets != first.targets or not np.array_equal(other.x, first.x):
            raise ValueError(
                "Expected explanations of the same inputs (equal in value and order), with as many "
                "targets each. Received: "
                f"{name!r} of {first} and {other_name!r} of {other}."
            )


def _picture_input(explanation: Explanation, by_target: bool) -> tuple[Any, Any]:
    """The one input that is a batch of pictures, and its values."""
    pairs = pairs_of(explanation.x, explanation.values)
    fitting = [(x, values) for x, values in pairs if matches(x, values, by_target)]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(f"x {np.shape(x)} with values {np.shape(v)}" for x, v in pairs)
    layer = layer_of(explanation)
    raise ValueError(
        "Expected an explanation of one input of pictures: x of shape [B, H, W, C] or [B, H, W] "
        "(sides of at least 8) and values of that shape or [B, H, W], with an axis K after B for "
        f"K targets. Received: {shapes}. "
        + (
            "Of a model with several picture inputs, plot one at a time: "
            "`dataclasses.replace(explanation, x=explanation.x[0], values=explanation.values[0])`."
            if layer is None
            else f"The values are at layer {layer!r}; they can be drawn where it has one output "
            "of maps, [B, h, w, C]."
        )
    )


def _classes(
    target: Any, shape: tuple[int, ...], max_samples: int, class_names: ClassNames
) -> list[str]:
    """What each score of the first samples is of, by name or number, `[n * K]`."""
    if target.index is None:
        return [""] * np.zeros(shape)[:max_samples].size
    word = "class" if isinstance(target, (Class, Region)) else "unit"
    indices = np.broadcast_to(target.index, shape)[:max_samples].flat
    return [_class(int(index), class_names, word) for index in indices]


def _class(index: int, class_names: ClassNames, word: str) -> str:
    if class_names is None or (isinstance(class_names, Mapping) and index not in class_names):
        return f"{word} {index}"
    if not isinstance(class_names, Mapping) and index >= len(class_names):
        raise ValueError(
            f"Expected a name for every class. Received: {len(class_names)} class names, and an "
            f"explanation of class {index}."
        )
    return str(class_names[index])
