"""Names for explainers and metrics in the log."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_explain.callbacks import scalars
from keras_explain.core import explainer as core
from keras_explain.core.hiding.features import Tokens
from keras_explain.core.names import snake_name


def named_explainers(explainers: Any) -> dict[str, Any]:
    """Explainers by name.

    Args:
        explainers: One explainer, a list of them, or a dict of name -> explainer. A string or a
            config takes the place of an explainer, as in `keras_explain.get`.

    Returns:
        Name -> explainer. In a list the name is the class name in snake case, and a second one of
        the same class gets `_2`.

    Raises:
        ValueError: If there is none, or a name is empty.
        TypeError: If something is no explainer.
    """
    if isinstance(explainers, dict) and "class_name" not in explainers:
        named = {str(name): _explainer(given) for name, given in explainers.items()}
    else:
        several = isinstance(explainers, (list, tuple))
        found = [_explainer(given) for given in (explainers if several else [explainers])]
        named = _numbered((snake_name(type(explainer).__name__), explainer) for explainer in found)
    if not named or "" in named:
        raise ValueError(
            "Expected at least one explainer, each with a name that is not empty. "
            f"Received: explainers={explainers!r}."
        )
    return named


def named_metrics(metrics: Any) -> dict[str, Callable[..., Any]]:
    """Metrics by name: their `name`, else their `__name__`, else their class name in snake case.

    Args:
        metrics: One metric or several.

    Returns:
        Name -> metric. A second one of the same name gets `_2`.

    Raises:
        TypeError: If something can't be called.
        ValueError: If a metric has the name of a scalar that is logged anyway.
    """
    found = list(metrics) if isinstance(metrics, Iterable) else [metrics]
    for metric in found:
        if not callable(metric) or inspect.isclass(metric):
            raise TypeError(
                "Expected metrics to be functions or objects that are called with "
                "`(model, x, target, explainer, explanation=...)`. "
                f"Received: {metric!r} of type {type(metric).__name__}."
            )
    named = _numbered((_metric_name(metric), metric) for metric in found)
    if taken := scalars.NAMES & named.keys():
        raise ValueError(
            f"Expected metrics with names other than {sorted(scalars.NAMES)}, which are logged "
            f"anyway. Received: {sorted(taken)}. Give the metric another `name` attribute."
        )
    return named


def class_names(given: Any) -> tuple[str, ...] | None:
    """Names of classes 0, 1, ... from a list or a dict by number.

    Raises:
        ValueError: If a dict leaves a number out.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise ValueError(
            "Expected `class_names` as a list, or a dict by number. "
            f"Received: one string, {given!r}."
        )
    if not isinstance(given, Mapping):
        return tuple(map(str, given))
    if set(given) != set(range(len(given))):
        raise ValueError(
            f"Expected `class_names` with a name for every class from 0 to {len(given) - 1}. "
            f"Received: names for {list(given)}."
        )
    return tuple(str(given[number]) for number in range(len(given)))


def vocabulary(given: Any, explainers: Iterable[Any]) -> Any:
    """The word of each token id: what was given, or what an explainer's `Tokens` know."""
    features = (getattr(explainer, "features", None) for explainer in explainers)
    known = (one.known_vocabulary for one in features if isinstance(one, Tokens))
    return given if given is not None else next((one for one in known if one is not None), None)


def _explainer(given: Any) -> Any:
    explainer = core.get(given) if isinstance(given, (str, dict)) else given
    if not callable(explainer) or inspect.isclass(explainer):
        raise TypeError(
            "Expected an explainer, such as `kx.GradCAM()`, or its name, such as 'grad_cam'. "
            f"Received: {given!r} of type {type(given).__name__}."
        )
    return explainer


def _metric_name(metric: Any) -> str:
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    return name or snake_name(type(metric).__name__)


def _numbered(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in pairs:
        number, free = 1, name
        while free in named:
            number += 1
            free = f"{name}_{number}"
        named[free] = value
    return named
