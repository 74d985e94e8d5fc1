"""What the model returns, its classes by name, and which of them are explained."""

from __future__ import annotations

import argparse
import re
import warnings
from typing import Any

import keras
import numpy as np

from keras_explain.cli.errors import CommandError, UsageError
from keras_explain.cli.files import lines_of
from keras_explain.cli.models import Source
from keras_explain.core.model import forward, targets
from keras_explain.core.model.reading import ModelReader
from keras_explain.core.names import nearest


def outputs_of(model: Any, x: np.ndarray, options: argparse.Namespace) -> np.ndarray | None:
    """What the model returns for each class, `[B, C]`; None where it returns something else."""
    found = ModelReader(model).outputs(x, options.batch_size)
    outputs = np.asarray(_chosen(found, model, options), np.float32)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    return outputs if outputs.ndim == 2 else None


def _chosen(outputs: Any, model: Any, options: argparse.Namespace) -> Any:
    """The output that `--output-name` says, or the only one."""
    if not isinstance(outputs, (dict, list, tuple)):
        return outputs
    if isinstance(outputs, dict):
        by_name = {str(name): output for name, output in outputs.items()}
    else:
        names = getattr(model, "output_names", None) or range(len(outputs))
        by_name = dict(zip(map(str, names), outputs, strict=True))
    wanted = options.output_name
    if wanted is not None and wanted.isdecimal() and int(wanted) < len(by_name):
        return list(by_name.values())[int(wanted)]
    if wanted in by_name:
        return by_name[wanted]
    if wanted is None and len(by_name) == 1:
        return next(iter(by_name.values()))
    raise UsageError(
        f"Expected --output-name, one of {', '.join(by_name)}, since the model has several "
        f"outputs. Received: {wanted or 'none'}."
    )


def class_names(path: str | None, source: Source, outputs: np.ndarray | None) -> list[str] | None:
    """A name for each class, of a file or of ImageNet.

    Raises:
        CommandError: There are more or fewer names than classes.
    """
    classes = None if outputs is None else max(outputs.shape[1], 2)
    if path is None:
        is_imagenet = source.application is not None and source.trained and classes == 1000
        return _imagenet_names() if is_imagenet else None
    names = lines_of(path)
    if classes is not None and len(names) != classes:
        raise CommandError(
            f"Expected a name for each of the {classes} classes. Received: {len(names)} names in "
            f"{path!r}."
        )
    return names


def both_classes(
    model: Any, x: np.ndarray, outputs: np.ndarray | None, options: argparse.Namespace
) -> np.ndarray | None:
    """Probabilities `[B, 2]` of the two named classes that one unit stands for; else `outputs`."""
    if outputs is None or outputs.shape[1] != 1:
        return outputs
    label = targets.Label(of="probability", output=_output(options))
    found = forward.predict(model, x, label, options.batch_size)
    second = np.where(found.classes == 1, found.scores, 1 - found.scores)
    return np.stack([1 - second, second], axis=1)


def _output(options: argparse.Namespace) -> str | int | None:
    """The output's name, or its position."""
    name = options.output_name
    return int(name) if name is not None and name.isdecimal() else name


def _imagenet_names() -> list[str] | None:
    """The names of ImageNet's classes, which Keras downloads once."""
    decode = keras.applications.imagenet_utils.decode_predictions
    try:
        decoded = decode(np.eye(1000, dtype=np.float32), top=1)
    except Exception as error:
        warnings.warn(
            f"ImageNet's class names could not be downloaded ({error}); classes have their "
            "numbers. --class-names takes a file of names.",
            stacklevel=2,
        )
        return None
    return [best[0][1].replace("_", " ") for best in decoded]


def target_of(
    options: argparse.Namespace, outputs: np.ndarray | None, names: list[str] | None
) -> Any:
    """What is explained: the prediction, or a class (or several) for each sample.

    Raises:
        CommandError: The model has no such class, or no classes.
    """
    output = _output(options)
    # With two names, one unit stands for both classes; of two units, a label is the class.
    kind = targets.Label if names is not None and len(names) == 2 else targets.Class
    words = [word for text in options.target or [] for word in _words(text, names)]
    if all(word == "predicted" for word in words):
        return kind(output=output)
    if outputs is None:
        raise CommandError(
            "Expected a model that returns a score for each class, [B, classes], for --target. "
            "Received: one with another output. Explain it in Python, with keras_explain.targets."
        )
    columns = [column for word in words for column in _columns(word, outputs, names)]
    index = np.stack(columns, axis=1)
    return kind(index[:, 0] if len(columns) == 1 else index, output=output)


def _words(text: str, names: list[str] | None) -> list[str]:
    """The classes in a text with commas, which may be part of a name."""
    if not text.strip(" ,"):
        raise UsageError(f"Expected --target to say a class. Received: {text!r}.")
    if _plainly(text) in map(_plainly, names or []):
        return [text]
    return [word.strip() for word in text.split(",") if word.strip()]


def _plainly(name: str) -> str:
    return name.replace("_", " ").strip().lower()


def _columns(word: str, outputs: np.ndarray, names: list[str] | None) -> list[np.ndarray]:
    """The class of each sample that a word stands for, ints `[B]`; several for `top3`."""
    count = outputs.shape[1]
    if ranked := re.fullmatch(r"top-?(\d+)|predicted", word):
        best = int(ranked[1] or 1)
        if not 1 <= best <= outputs.shape[1]:
            raise UsageError(
                f"Expected --target top1 to top{outputs.shape[1]}, for the model's classes. "
                f"Received: {word!r}."
            )
        return list(np.argsort(-outputs, axis=1, kind="stable")[:, :best].T)
    number = int(word) if word.isascii() and word.isdigit() else _number_of(word, names)
    if number >= count:
        raise UsageError(f"Expected a class from 0 to {count - 1}. Received: --target {word}.")
    return [np.full(len(outputs), number)]


def _number_of(word: str, names: list[str] | None) -> int:
    """The class of a name, or of one of the names that a class has between commas."""
    if names is None:
        raise UsageError(
            "Expected --target to be a number, topN or predicted, since the classes have no names. "
            f"Received: {word!r}. --class-names takes a file with names."
        )
    whole = [i for i, name in enumerate(names) if _plainly(name) == _plainly(word)]
    part = [i for i, name in enumerate(names) if _plainly(word) in map(_plainly, name.split(","))]
    found = whole or part
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"Expected the name of one class. Received: {word!r}, which the classes "
            f"{', '.join(map(str, found))} have. Give the number."
        )
    raise UsageError(f"Expected the name of a class. Received: {word!r}. {_near(word, names)}")


def _near(word: str, names: list[str]) -> str:
    near = nearest(word, names)
    return near if near.startswith("Did") or len(names) <= 20 else "No name is like it."
