"""The arguments of a callback, checked."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_explain.callbacks.samples import Samples
from keras_explain.core.model import targets
from keras_explain.core.names import nearest
from keras_explain.plots.places import layer_of
from keras_explain.sinks import Record, Sink

_TARGETS = ("label", "predicted")


def options(update_freq: Any, max_samples: Any, on_error: Any) -> None:
    """Raises a `ValueError` where one of these can't be meant."""
    every = update_freq == "epoch" or _is_count(update_freq)
    _expect(every, "update_freq", "'epoch' or an int above 0", update_freq)
    _expect(_is_count(max_samples), "max_samples", "an int above 0", max_samples)
    _expect(on_error in ("warn", "raise"), "on_error", "'warn' or 'raise'", on_error)


def sinks(given: Any) -> list[Sink]:
    """The sinks of a list. Raises a `TypeError` where something in it is none."""
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, Sink) for one in found):
        raise TypeError(
            "Expected `sinks` to be a list of `keras_explain.sinks.Sink`, such as "
            f"[kx.sinks.Memory()], or None. Received: sinks={given!r}."
        )
    return found


def is_label(target: Any) -> bool:
    """Whether the samples' labels are asked for as target."""
    return isinstance(target, str) and target == "label"


def target(given: Any, samples: Samples) -> Any:
    """What the explainers get as target.

    Args:
        given: `None`, `"label"`, `"predicted"`, or what an explainer takes. If it has an entry for
            each sample that was given, those of the samples taken count.
        samples: The samples.

    Returns:
        A `Label` of the labels, `None` for the predicted classes, or what was given.

    Raises:
        ValueError: If labels are asked for and there are none, or the string is another one.
    """
    if isinstance(given, str) and given not in _TARGETS:
        raise ValueError(
            f"Expected `target` to be None, 'label', 'predicted' or what an explainer takes. "
            f"Received: target={given!r}. {nearest(given, _TARGETS)}"
        )
    by_label = given is None or is_label(given)
    if by_label and samples.labels is not None:
        return targets.Label(samples.labels)
    if given is None or (isinstance(given, str) and given == "predicted"):
        return None
    if isinstance(given, str):
        raise ValueError(
            "Expected labels, since target='label'. Received: no `y`, or batches without one. "
            "Give `y`, or leave `target` out to explain the predicted classes."
        )
    return _cut(targets.as_target(given), samples)


def unseen(record: Record) -> str:
    """What to say of a record with values that lie over no input."""
    shapes = [np.shape(leaf)[1:] for leaf in keras.tree.flatten(record.explanation.values)]
    layer = layer_of(record.explanation)
    given = "" if layer is None else " without `layer=`"
    return (
        f"explainer {record.name!r} has no maps in TensorBoard's Explain tab and the report, which "
        f"show values that lie over an input; its scalars are logged all the same. Expected values "
        f"over an input. Received: values of shapes {shapes} per sample"
        f"{'' if layer is None else f', at layer {layer!r}'}. Explain the input itself{given}."
    )


def _cut(given: targets.Target, samples: Samples) -> targets.Target:
    shape = np.shape(given.index) if given.index is not None else ()
    if shape[:1] != (samples.total,) or samples.total == len(samples):
        return given
    return given.replace(index=np.asarray(given.index)[: len(samples)])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _expect(fits: bool, name: str, expected: str, received: Any) -> None:
    if not fits:
        raise ValueError(f"Expected `{name}` to be {expected}. Received: {name}={received!r}.")
