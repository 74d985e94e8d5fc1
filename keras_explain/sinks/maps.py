"""Records as the Explain tab's events."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_explain.core.hiding.words import word_finder
from keras_explain.plots import notes
from keras_explain.sinks import events
from keras_explain.sinks.base import Record

if TYPE_CHECKING:
    from keras_explain.plots import explained

_KINDS = {"picture": "pictures", "table": "table", "tokens": "text", "series": "series"}


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """What of a record the tab shows: one input of B samples, and K maps over each.

    Attributes:
        kind: One of `events.KINDS`.
        x: The input: pictures uint8 `[B, H, W, 3]`, else as it was given, `[B, ...]`.
        maps: `[B, K, ...]`: of pictures `[B, K, H, W]`.
        words: The words of each text, without the padding at its end.
        feature_names: Names of the columns of a table, or of the channels of a series.
        reliable: Whether each map can be told from zero, `[B, K]`; None if all can.
    """

    kind: str
    x: npt.NDArray[Any]
    maps: npt.NDArray[np.float32]
    words: list[list[str]] | None = None
    feature_names: list[str] | None = None
    reliable: npt.NDArray[np.bool_] | None = None

    @property
    def digest(self) -> str:
        """Tells samples from others."""
        return hashlib.sha256(repr(self.x.shape).encode() + self.x.tobytes()).hexdigest()[:16]


def shown(record: Record) -> Shown | None:
    """What of a record can be shown.

    The first input that is a picture; else the only input with values of its own; of several such,
    all their columns side by side, as a table.

    Returns:
        It, or None where no values lie over an input: those at a layer, and of volumes.
    """
    if record.pictures is not None and record.maps is not None:
        reliable = None if record.reliable is None else record.reliable[:, None]
        maps = np.asarray(record.maps)[:, None]
        return Shown("pictures", record.pictures, maps, reliable=reliable)
    if not is_shown(record):
        return None
    from keras_explain.plots import explained

    explanation = record.explanation
    names = None if record.feature_names is None else list(record.feature_names)
    inputs = explained.every_input(explanation, len(explanation), None, feature_names=names)
    inputs = [one for one in inputs if one.kind in _KINDS]
    pictures = [one for one in inputs if one.kind == "picture"]
    if pictures:
        found, inputs = _picture(pictures[0], record.to_image), pictures[:1]
    elif len(inputs) > 1:
        found = _side_by_side(inputs)
    else:
        found = _alone(inputs[0], names, record.vocabulary)
    reliable = np.any([_by_class(one, one.reliable) for one in inputs], axis=0)
    return dataclasses.replace(found, reliable=reliable)


def is_shown(record: Record) -> bool:
    """Whether there is something of a record to show."""
    if record.pictures is not None and record.maps is not None:
        return True
    from keras_explain.plots import explained

    kinds = explained.kinds_of(record.explanation, feature_names=record.feature_names)
    return any(kind in _KINDS for kind in kinds)


def samples(record: Record, shown: Shown) -> events.Blobs:
    """The event of the samples."""
    pictures = shown.kind == "pictures"
    header = {
        "kind": shown.kind,
        "id": shown.digest,
        "count": len(shown.x),
        "labels": None if record.labels is None else record.labels.tolist(),
        "class_names": None if record.class_names is None else list(record.class_names),
        "shape": list(shown.x.shape[1:]),
        "feature_names": shown.feature_names,
        "words": shown.words,
        "values": None if pictures or shown.words is not None else _rounded(shown.x),
    }
    return events.samples_blobs(header, shown.x if pictures else None)


def maps(record: Record, shown: Shown, sample: int) -> events.Blobs:
    """The event of the maps of a sample."""

    def of(values: Any) -> Any:
        return None if values is None else values[sample].item()

    def shares(of: Any) -> Any:
        return None if of is None else np.atleast_1d(of[sample]).tolist()

    header = {
        "kind": shown.kind,
        "samples": shown.digest,
        "classes": None if record.explained is None else record.explained[sample].tolist(),
        "scores": np.atleast_1d(record.explanation.scores[sample]).tolist(),
        "predicted": of(record.predicted),
        "probability": of(record.probabilities),
        "limit": float(record.limit),
        "signed": bool(record.signed),
        "reliable": None if shown.reliable is None else shown.reliable[sample].tolist(),
        "gap": shares(notes.completeness_gaps(record.explanation)),
        "error": shares(notes.errors(record.explanation)),
    }
    return events.map_blobs(header, shown.maps[sample])


def predictions(record: Record, shown: Shown) -> events.Blobs | None:
    """The event of a step's predictions; None where no classes are predicted."""
    if record.predicted is None:
        return None
    likely = record.probabilities
    header = {
        "samples": shown.digest,
        "predicted": record.predicted.tolist(),
        "probability": [None] * len(record.predicted) if likely is None else likely.tolist(),
    }
    return events.prediction_blobs(header)


def _picture(one: explained.Explained, to_image: Any) -> Shown:
    return Shown("pictures", one.pictures(to_image)[:: one.targets], _by_class(one, one.maps))


def _alone(one: explained.Explained, names: list[str] | None, vocabulary: Any) -> Shown:
    maps = _by_class(one, one.values)
    if one.kind == "tokens":
        return Shown("text", one.x, maps, _words(one, vocabulary))
    if one.kind == "series":
        return Shown("series", one.x, maps, None, names)
    return Shown("table", _flat(one.x, 1), _flat(maps, 2), None, names)


def _side_by_side(inputs: list[explained.Explained]) -> Shown:
    maps = [_by_class(one, one.values) for one in inputs]
    x = [_over(_numbers(one.x), part.ndim - 1) for one, part in zip(inputs, maps, strict=True)]
    names = []
    for one, part in zip(inputs, x, strict=True):
        count = part[0].size
        names += [one.name] if count == 1 else [f"{one.name} {i}" for i in range(count)]
    return Shown(
        "table",
        np.concatenate([_flat(part, 1) for part in x], axis=1),
        np.concatenate([_flat(part, 2) for part in maps], axis=2),
        None,
        names,
    )


def _words(one: explained.Explained, vocabulary: Any) -> list[list[str]]:
    """The words of each text up to the last id that is not 0, which is padding."""
    if one.x.dtype.kind == "U":
        return [[str(text) for text in row] for row in one.x]
    word_of = word_finder(vocabulary)
    found = []
    for row, ids in enumerate(one.x):
        used = ids[: np.flatnonzero(ids)[-1] + 1] if ids.any() else ids[:0]
        if vocabulary is None and one.words is not None:
            found.append([str(word) for word in one.words[row][: len(used)]])
        else:
            found.append([word_of(int(id_)) for id_ in used])
    return found


def _numbers(x: Any) -> Any:
    """An input as numbers, of which the events are made: NaN for text."""
    return np.full(x.shape, np.nan, np.float32) if x.dtype.kind == "U" else x


def _by_class(one: explained.Explained, values: Any) -> Any:
    """Values `[B * K, ...]` as `[B, K, ...]`."""
    return values.reshape(-1, one.targets, *values.shape[1:])


def _over(x: Any, axes: int) -> Any:
    """An input averaged over its last axes, so that it has as many as its values."""
    return x.mean(axis=tuple(range(axes, x.ndim))) if x.ndim > axes else x


def _flat(array: Any, lead: int) -> Any:
    return array.reshape(*array.shape[:lead], -1)


def _rounded(x: Any) -> Any:
    """Numbers as lists; of float32 no more digits than it has."""
    if x.dtype.kind != "f":
        return x.astype(np.int64).tolist()
    return np.vectorize(lambda value: float(f"{value:.7g}"), otypes=[np.float64])(x).tolist()
