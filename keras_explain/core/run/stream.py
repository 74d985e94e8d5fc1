"""Data that comes in batches, explained one batch after the other."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_explain.core import arrays
from keras_explain.core.data.batches import batches_of, class_labels
from keras_explain.core.model.targets import Label, Target, as_target
from keras_explain.core.record.explanation import Explanation
from keras_explain.core.record.rows import over_samples
from keras_explain.core.run.progress import bar

Explain = Callable[[Any, Any], Explanation]
"""Explains an input, of a target."""

_END = object()
_BATCHES = (
    "Expected `batches` to be a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an iterable of "
    "inputs, alone or as (x, y). An input by itself is explained by `explainer(model, x)`."
)
_TARGET = (
    "Expected `target` to be None, an int, an object of `keras_explain.targets` for all batches, "
    "'label', or a function of a batch's labels."
)


def explained(
    explain: Explain, name: str, batches: Any, target: Any, progress: bool | None
) -> Iterator[Explanation]:
    """The explanations of batches, as `Explainer.stream` describes them.

    Args:
        explain: Explains one batch.
        name: Of the explainer.
        batches: The batches.
        target: What is explained.
        progress: Whether a bar shows how many rows are done.
    """
    if arrays.is_array(batches) or isinstance(batches, (str, dict)):
        raise ValueError(f"{_BATCHES} Received: one of type {type(batches).__name__}.")
    found, target_of = batches_of(batches, _BATCHES), _target_of(target)

    def explained_batch(batch: Any) -> Explanation:
        x, y = _parts(batch)
        explanation = explain(x, target_of(y))
        _check_serves_any(explanation)
        return explanation

    return _one_by_one(name, found, explained_batch, progress)


def _one_by_one(
    name: str, batches: Iterable[Any], explain: Callable[[Any], Explanation], progress: bool | None
) -> Iterator[Explanation]:
    iterator, done = iter(batches), 0
    with bar(name, None, progress) as advance:
        for number in itertools.count():
            batch = None
            try:
                batch = next(iterator, _END)
                found = None if batch is _END else explain(batch)
            except Exception as error:
                error.add_note(_where(number, done, batch))
                raise
            if found is None:
                break
            done += len(found)
            advance(len(found))
            yield found
            del found, batch  # before the next ones need room
    if done == 0:
        raise ValueError(
            "Expected at least one batch. Received: none. A generator can be read only once."
        )


def _where(number: int, done: int, batch: Any) -> str:
    """Where in the data an error was."""
    where = f"In batch {number} (the first is 0), which begins with sample {done}."
    if not isinstance(batch, (list, tuple)):
        return where
    return f"{where} The first part of a tuple or list is x: several inputs are ((a, b),)."


def _parts(batch: Any) -> tuple[Any, Any]:
    """The input and the labels of a batch, as Keras tells them apart; a list of texts is one."""
    if isinstance(batch, (list, tuple)) and batch and all(isinstance(i, str) for i in batch):
        return list(batch), None
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return x, y


def _target_of(target: Any) -> Callable[[Any], Any]:
    """What is explained of a batch, by its labels."""
    if isinstance(target, str) and target == "label":
        return lambda y: Label(class_labels(_given(y)))
    if isinstance(target, str):
        raise ValueError(f"{_TARGET} Received: {target!r}.")
    if callable(target) and not isinstance(target, Target):
        return lambda y: target(_given(y))
    fixed = as_target(target)
    index = np.asarray(fixed.index)
    if index.ndim:
        raise ValueError(
            f"{_TARGET} Received: classes of shape {index.shape}. Give each batch its "
            "own, as (x, classes) with `target=lambda y: y`."
        )
    return lambda y: fixed


def _given(y: Any) -> Any:
    """Labels in NumPy."""
    if y is None:
        raise ValueError("Expected batches of (x, y), as `target` asks for y. Received: x alone.")

    def of(leaf: Any) -> Any:
        return arrays.plain(leaf, "`y`") if arrays.is_array(leaf) else leaf

    return tree.map_structure(of, y)


def _check_serves_any(explanation: Explanation) -> None:
    """Raises a `ValueError` where an explainer has a row for each sample of one batch."""
    sizes: list[int] = []

    def noted(array: np.ndarray) -> np.ndarray:
        sizes.append(len(array))
        return array

    over_samples(explanation.explainer, explanation.x, noted)
    if any(size != 1 for size in sizes):
        raise ValueError(
            "Expected an explainer that serves the samples of every batch. Received: "
            f"{explanation.explainer}, with a row for each of {max(sizes)} samples. Explain each "
            "batch with an explainer of its own, and join them: `kx.Explanation.join(parts)`."
        )
