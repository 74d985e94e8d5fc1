"""What a user gives as features: one for each input, and texts as token ids."""

from typing import Any

import numpy as np
from keras import tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.hiding.features import (
    Columns,
    Features,
    Grid,
    Segments,
    Tokens,
    Windows,
)
from keras_explain.core.hiding.places import brief

Nest = Any


def default(x: np.ndarray) -> Features:
    """The features of an input, other than token ids and as in `numbered`, by default."""
    by_axes = {1: Columns, 2: Columns, 3: Windows, 4: Segments}
    return by_axes[x.ndim]() if x.ndim in by_axes else Grid(4)


def per_input(features: Any, groups: Any, x: Nest) -> list[Features | None]:
    """What a user gave as features of each leaf of `x`; None where nothing was said.

    Raises:
        ValueError: Both `features` and `groups` are given, or not one for each input.
        TypeError: They are not features.
    """
    if features is not None and groups is not None:
        raise ValueError(
            "Expected `features`, or `groups` for `features=Columns(groups=...)`. Received: both."
        )
    leaves = tree.flatten(x)
    if groups is not None:
        nested = len(leaves) > 1 or isinstance(groups, dict)
        parts = _matched(groups, x) if nested else [groups]
        return [None if part is None else Columns(part) for part in parts]
    parts = _matched(features, x) if isinstance(features, (dict, tuple, list)) else [features]
    for part in parts:
        if part is not None and not isinstance(part, Features):
            raise TypeError(
                "Expected features: an object of `keras_explain.features`, or one for each input. "
                f"Received: {brief(part)}. Numbers of groups are `groups=`; a label map is "
                "`keras_explain.features.Segments(labels=...)`."
            )
    return parts if len(parts) == len(leaves) else parts * len(leaves)


def encoded(x: Any, features: Any) -> tuple[Nest, dict[str, np.ndarray]]:
    """An input with its texts as token ids, and the words, `{"tokens": [B, T]}`."""
    if isinstance(x, str):
        raise ValueError(f"Expected a list of texts. Received: one text. Explain `[{brief(x)}]`.")
    if _are_texts(x):
        tokens = features if isinstance(features, Tokens) else Tokens()
        ids = tokens.ids([_as_str(text) for text in backend.to_numpy(x).reshape(-1)])
        return ids, {"tokens": tokens.words(ids)}
    if isinstance(x, dict):
        keys = list(x)
    elif isinstance(x, (list, tuple)):
        keys = list(range(len(x)))
    else:
        return x, {}
    if not any(_are_texts(x[key]) for key in keys):
        return x, {}
    new: dict[Any, Any] = {}
    extras: dict[str, np.ndarray] = {}
    for key in keys:
        new[key], more = encoded(x[key], _part(features, key))
        extras |= {name if name not in extras else f"{name}_{key}": v for name, v in more.items()}
    return (new if isinstance(x, dict) else type(x)(new.values())), extras


def _part(features: Any, key: Any) -> Any:
    if isinstance(features, dict):
        return features.get(key)
    many = isinstance(features, tuple) and isinstance(key, int) and key < len(features)
    return features[key] if many else features


def _are_texts(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, str) for item in value)
    if not hasattr(value, "dtype"):
        return False
    if value.dtype == "string":  # of TensorFlow, and of pandas
        return True
    if getattr(value.dtype, "kind", "") not in ("U", "S", "O"):
        return False
    return all(isinstance(item, (str, bytes)) for item in np.asarray(value).flat)


def _as_str(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


def _matched(given: Any, x: Nest) -> list[Any]:
    """Of a nest of one part for each input, the parts in the order of the inputs."""
    if isinstance(given, dict) and isinstance(x, dict) and set(given) <= set(x):
        given = {key: given.get(key) for key in x}
    checks.same_names("features", given, x)
    if not isinstance(given, (dict, tuple, list)):
        raise TypeError(
            f"Expected features or groups for each of the {len(tree.flatten(x))} inputs, in a list "
            f"or a dict. Received: {brief(given)}."
        )
    parts = [given[key] for key in sorted(given)] if isinstance(given, dict) else list(given)
    if len(parts) != len(tree.flatten(x)):
        raise ValueError(
            f"Expected features or groups for each of the {len(tree.flatten(x))} inputs. "
            f"Received: {len(parts)}."
        )
    return parts
