"""An explanation as the shap package's own, for all that draws these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.optional import shap
from keras_explain.plots import ranges, render
from keras_explain.plots.explained import ClassNames, Explained, FeatureNames, every_input
from keras_explain.plots.table import names_of

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation

Floats = npt.NDArray[np.float64]

_PLACES = {"table": "feature", "series": "step", "volume": "place"}
_JOINED = 3  # names of one feature


def to_shap(
    explanation: Explanation, feature_names: FeatureNames = None, class_names: ClassNames = None
) -> Any:
    """`Explanation.to_shap`."""
    by_target = np.ndim(explanation.scores) == 2
    inputs = every_input(explanation, len(explanation), class_names, None, feature_names)
    made = {one.name: _one_input(one, by_target, feature_names) for one in inputs}
    several = len(made) > 1 or isinstance(explanation.x, (dict, list, tuple))
    return made if several else made[""]


def _one_input(explained: Explained, by_target: bool, feature_names: FeatureNames) -> Any:
    """One input's `shap.Explanation`."""
    rows = len(explained.x)
    make = {"picture": _pictures, "tokens": _tokens}.get(explained.kind, _columns)
    values, data, names = make(explained, names_of(feature_names, explained.name))
    given, outputs = explained.base_values, None
    base = np.zeros(len(values)) if given is None else given.astype(np.float64)
    if by_target:
        values, base = _targets_last(values, rows), base.reshape(rows, -1)
        outputs = _output_names(explained.classes, values)
    return shap().Explanation(values, base, data, feature_names=names, output_names=outputs)


def _targets_last(values: Floats, rows: int) -> Floats:
    """Values `[B * K, ...]` as `[B, ..., K]`."""
    return np.moveaxis(values.reshape(rows, -1, *values.shape[1:]), 1, -1)


def _output_names(classes: list[str], values: Floats) -> Any:
    """A name for each of the K targets of values `[B, ..., K]`.

    Where they differ between samples, they are `[B, K]`: shap takes these for two axes of outputs
    if the values happen to end in such axes, and gets no classes then.
    """
    rows, targets = len(values), values.shape[-1]
    by_row = np.array([name or f"output {i % targets}" for i, name in enumerate(classes)])
    by_row = by_row.reshape(rows, targets)
    if (by_row == by_row[0]).all():
        return by_row[0].tolist()
    return [f"target {i}" for i in range(targets)] if values.shape[-2] == rows else by_row


def _pictures(explained: Explained, names: Any) -> tuple[Floats, Any, None]:
    """Values `[n * K, H, W, C]`, and pictures of the range that can be shown."""
    values = _shared(explained)
    values = values[..., None] if values.ndim == 3 else values
    return values, ranges.to_uint8(explained.x), None


def _tokens(explained: Explained, names: Any) -> tuple[Floats, Any, None]:
    """Values `[n * K, T]`, and words that end in a blank."""
    words = explained.x if explained.words is None else explained.words
    spaced = [[f"{word} " if str(word) else "" for word in row] for row in words.tolist()]
    return _shared(explained), np.array(spaced), None


def _shared(explained: Explained) -> Floats:
    """The values, each feature's in equal shares at its places."""
    values = explained.values.astype(np.float64)
    if explained.features is None:
        return values
    return values * render.shares_of(explained.features)


def _columns(explained: Explained, names: Any) -> tuple[Floats, Floats, list[str]]:
    """A column for each feature: values `[n * K, M]`, data `[B, M]` and names."""
    values, x, features = explained.values, explained.x.astype(np.float64), explained.features
    if x.ndim > values.ndim:
        x = x.mean(axis=-1)  # a place's channels
    shape = values.shape[1:]
    numbers = np.arange(values[0].size) if features is None else features[0].reshape(-1)
    alike = features is None or (features == features[:1]).all()
    if not alike:
        numbers = np.arange(values[0].size)
    flat = (values.astype(np.float64) if alike else _shared(explained)).reshape(len(values), -1)
    x, names = x.reshape(len(x), -1), _place_names(explained.kind, shape, names)
    groups = [np.flatnonzero(numbers == n) for n in dict.fromkeys(numbers[numbers >= 0].tolist())]
    given = [_given(x[:, places], explained.kind) for places in groups]
    joined = [_joined([names[i] for i in places]) for places in groups]
    return flat[:, [places[0] for places in groups]], np.stack(given, axis=1), joined


def _given(x: Floats, kind: str) -> Floats:
    """What stands for a feature's numbers `[B, places]`."""
    if x.shape[1] == 1:
        return x[:, 0]
    one_hot = kind == "table" and np.isin(x, (0, 1)).all() and (x.sum(axis=1) == 1).all()
    return x.argmax(axis=1).astype(np.float64) if one_hot else x.mean(axis=1)


def _place_names(kind: str, shape: tuple[int, ...], names: Any) -> list[str]:
    count = int(np.prod(shape))
    if names is None:
        return [f"{_PLACES[kind]} {', '.join(map(str, index))}" for index in np.ndindex(shape)]
    if len(names) != count:
        raise ValueError(
            f"Expected a name for each of the {count} columns in `feature_names`. "
            f"Received: {len(names)}."
        )
    return list(map(str, names))


def _joined(names: list[str]) -> str:
    return " + ".join(names if len(names) <= _JOINED else [names[0], "...", names[-1]])
