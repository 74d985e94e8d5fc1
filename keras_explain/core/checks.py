"""Checks that several configurations share."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

MOST = 2**22
"""No count of steps, samples or features needs more; NumPy would ask for their memory at once."""


def count(name: str, value: Any, least: int = 1, most: int = MOST) -> None:
    """Raises a `ValueError` unless `value` is a whole number from `least` to `most`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"Expected `{name}` to be a whole number of {least} or more. "
            f"Received: {name}={value!r}."
        )
    if int(value) > most:
        raise ValueError(f"Expected `{name}` of at most {most}. Received: {name}={value!r}.")


def call_of(layer: Any, call: Any) -> None:
    """Raises a `ValueError` unless `call` is None, or the number of a call of a named layer."""
    if call is None:
        return
    count("call", call, least=0)
    if layer is None:
        raise ValueError(f"Expected the `layer` that is called. Received: call={call} alone.")


def choice(name: str, value: Any, names: Sequence[str]) -> None:
    """Raises a `ValueError` unless `value` is one of some names."""
    if value not in names:
        raise ValueError(
            f"Expected `{name}` to be one of {', '.join(map(repr, names))}. "
            f"Received: {name}={value!r}."
        )


def share(name: str, value: Any) -> None:
    """Raises a `ValueError` unless `value` is a finite number of 0 or more."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(
            f"Expected `{name}` to be a number of 0 or more. Received: {name}={value!r}."
        )


def several(name: str, value: Any, kind: Any = int, above: float = -math.inf) -> None:
    """Raises a `ValueError` unless `value` is one or more numbers, each of a type and `above`."""
    right = isinstance(value, tuple) and all(
        isinstance(item, (int, kind)) and not isinstance(item, bool) and item > above
        for item in value
    )
    if not right or not value:
        what = "whole numbers" if kind is int else "numbers"
        least = "" if above == -math.inf else f" above {above:g}"
        raise ValueError(f"Expected `{name}`{least}, a list of {what}. Received: {name}={value!r}.")


def same_names(what: str, given: Any, x: Any) -> None:
    """Raises a `ValueError` where parts of a dict of inputs have other keys, or several have none.

    Their order would be a guess.
    """
    if not isinstance(x, dict):
        return
    unnamed = isinstance(given, (list, tuple)) and len(given) == len(x) > 1
    if unnamed or (isinstance(given, dict) and set(given) != set(x)):
        received = f"a {type(given).__name__}" if unnamed else ", ".join(map(repr, given))
        raise ValueError(
            f"Expected {what} by name, for the inputs {', '.join(map(repr, x))}. "
            f"Received: {received}."
        )


def flat(nest: Any) -> list[Any]:
    """The parts of a nest that may hold None, in the order of `keras.tree.flatten`."""
    if isinstance(nest, dict):
        return [part for key in sorted(nest) for part in flat(nest[key])]
    if isinstance(nest, (list, tuple)):
        return [part for item in nest for part in flat(item)]
    return [nest]
