"""Layers as a user names them: which a rule is for, and which are taken as one step."""

import fnmatch
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import keras

from keras_explain.core.graph.steps import Call, Step
from keras_explain.core.names import nearest

CONVOLUTIONS = ("convolution",)
EVERYTHING = ("*",)
KINDS = ("first", "last", *CONVOLUTIONS, *EVERYTHING)


def selectors(where: Any) -> tuple[str, ...]:
    """Layers as a user names them, as names of classes and patterns of paths."""
    if isinstance(where, (list, tuple)):
        return tuple(name for part in where for name in selectors(part))
    if isinstance(where, type):
        return (where.__name__,)
    if not isinstance(where, str):
        raise TypeError(
            "Expected layers as classes, names of classes or patterns of layer paths. "
            f"Received: {where!r} of type {type(where).__name__}."
        )
    return (where,)


def matches(where: Sequence[str], call: Call | None) -> bool:
    """Whether a layer is among those named."""
    if call is None:
        return "*" in where
    classes = {cls.__name__ for cls in type(call.node).__mro__}
    parts = call.path.split("/")
    paths = ["/".join(parts[: i + 1]) for i in range(len(parts))] + parts[-1:]
    return any(
        name in classes or any(fnmatch.fnmatchcase(path, name) for path in paths) for name in where
    )


def check_selectors(argument: str, where: Sequence[str], calls: Collection[Call]) -> None:
    """Raises a `ValueError` where something is named that no layer of the model is."""
    for name in where:
        # A set of rules may suit many models: classes and patterns need not be found in each.
        known = name in KINDS or hasattr(keras.layers, name) or any(c in name for c in "*?[")
        if not known and not any(matches([name], call) for call in calls):
            paths = dict.fromkeys(call.path for call in calls)
            raise ValueError(
                f"Expected `{argument}` to name layers of the model by class, name or path. "
                f"Received: {name!r}, which matches none. {nearest(name, paths)}"
            )


def is_recurrent(call: Call) -> bool:
    """Whether a call is that of a recurrent layer, whose loop has no rules."""
    return isinstance(call.node, keras.layers.RNN)


def warn_of_one_step(step: Step) -> None:
    """Warns that a layer's inside is not looked at."""
    warnings.warn(
        f"The inside of {step.where} has no rules: it is one opaque step, taken by its gradient. "
        "The attributions need not sum to the score's change.",
        stacklevel=2,
    )


def no_rule(method: str, step: Step, how: str) -> ValueError:
    """An error that names an operation without a rule; `how` has a place for the layer's class."""
    layer = "YourLayer" if step.call is None else type(step.call.node).__name__
    first = "Put it into a layer of its own, and take" if step.call is None else "Take"
    operands = f" of {len(step.inputs)} operands" if len(step.inputs) > 1 else ""
    return ValueError(
        f"Expected operations that {method} has a rule for. Received: {step.type!r}{operands} "
        f"({step.name}), in {step.where}. {first} that layer as one step, by its gradient: "
        f"{how.format(layer=layer)}."
    )
