"""The format of the events that TensorBoard's Explain tab reads, written and checked.

It is described in docs/events.md. This module stands on NumPy alone, since the tab is served
without Keras and TensorFlow.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = 1
PLUGIN = "keras_explain"
SAMPLES = "keras_explain/samples"
PREDICTIONS = "keras_explain/predictions"
TREE = "keras_explain/tree"
MAPS = "keras_explain/maps/"
KINDS = ("pictures", "table", "text", "series")

# What a header may have at most: one that is larger was not written by this package.
LARGEST_MAP_HEADER = 2**20  # bytes
LARGEST_HEADER = 2**25
MOST_ITEMS = 2**21  # numbers and texts
LARGEST_MAP = 2**24  # values
MOST_CLASSES = 10_000
DEEPEST_TREE = 100

_FINE = 64 * 64  # values up to which a map costs so little that it gets 16 bits
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB = 0, 2  # colour types of PNG
_MISSING = 255  # in the blue channel: this value is not a number

Json = Any
Blobs = list[bytes]
Codes = npt.NDArray[np.uint8]  # [h, w], or [h, w, 3]


class FormatError(ValueError):
    """An event is not as this version of the package writes it."""


# Tags


def map_tag(method: str, sample: int) -> str:
    """The tag of the maps of a method and a sample."""
    return f"{MAPS}{method}/{sample}"


def method_and_sample(tag: str) -> tuple[str, int] | None:
    """What `map_tag` was made of; None of any other tag."""
    method, _, sample = tag.removeprefix(MAPS).rpartition("/")
    of_map = tag.startswith(MAPS) and method and sample.isascii() and sample.isdecimal()
    return (method, int(sample)) if of_map and len(sample) <= 9 else None


def content() -> bytes:
    """What the plugin's summary metadata hold."""
    return dumps({"schema": SCHEMA})


# Writing


def samples_blobs(header: Mapping[str, Json], pictures: Any = None) -> Blobs:
    """The samples of a run.

    Args:
        header: `kind`, `count`, `labels`, `class_names`, `shape`, `feature_names`, `words` and
            `values`, as docs/events.md says.
        pictures: The inputs as pictures, uint8 `[B, H, W, 3]`.

    Returns:
        The header, and a PNG per picture.
    """
    blobs = [png(picture) for picture in (() if pictures is None else pictures)]
    return [dumps({"schema": SCHEMA, **header}), *blobs]


def map_blobs(header: Mapping[str, Json], maps: Any) -> Blobs:
    """The maps of one sample.

    Args:
        header: `classes`, `scores`, `predicted`, `probability`, `limit`, `signed`, `samples`,
            `reliable`, `gap` and `error`, as docs/events.md says.
        maps: The maps, a row per class: `[K, H, W]`, `[K, T]`, `[K, T, F]` or `[K, F]`.

    Returns:
        The header with what was added by quantising, and a PNG per class.
    """
    maps = np.asarray(maps, np.float32)
    fine = header["kind"] != "pictures" or maps[0].size <= _FINE or not np.isfinite(maps).all()
    bits = 16 if fine else 8
    quantised = [quantise(one, bits) for one in maps]
    described = {
        "schema": SCHEMA,
        **{key: value for key, value in header.items() if key != "kind"},
        "bits": bits,
        "shape": list(maps.shape[1:]),
        "range": [list(ends) for _, ends in quantised],
    }
    return [dumps(described), *(png(codes) for codes, _ in quantised)]


def prediction_blobs(header: Mapping[str, Json]) -> Blobs:
    """What is predicted at a step.

    Args:
        header: `samples`, `predicted` and `probability`, a number per sample.

    Returns:
        The JSON, as the only blob.
    """
    return [dumps({"schema": SCHEMA, **header})]


def tree_blobs(description: Mapping[str, Json]) -> Blobs:
    """The surrogate decision trees of a step.

    Args:
        description: `{"trees": [{"region": ..., "tree": ...}], "rows": ...}`, as docs/events.md
            says.

    Returns:
        The JSON, as the only blob.
    """
    return [dumps({"schema": SCHEMA, **description})]


def quantise(values: Any, bits: int) -> tuple[Codes, tuple[float, float]]:
    """Whole numbers of 8 or 16 bits that stand for the values of one map.

    `value = lo + (hi - lo) * code / (2**bits - 1)`, within half a step. Zero is kept exactly.
    Infinities become the nearest end; what is not a number is marked where there are 16 bits.

    Args:
        values: One map, of one or two axes.
        bits: 8 or 16.

    Returns:
        The codes as they are written to a PNG, `[h, w]` of 8 bits, `[h, w, 3]` of 16 (high byte,
        low byte, 255 where not a number), and the range `(lo, hi)`.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    lo, hi = _range(values, 2**bits - 1)
    unknown = np.isnan(values)
    share = (np.where(unknown, min(max(0.0, lo), hi), values).clip(lo, hi) - lo) / ((hi - lo) or 1)
    codes = np.rint(share * (2**bits - 1)).astype(np.uint16)
    if bits == 8:
        return codes.astype(np.uint8), (lo, hi)
    parts = [codes >> 8, codes & 255, np.where(unknown, _MISSING, 0)]
    return np.stack(parts, axis=-1).astype(np.uint8), (lo, hi)


def _range(values: npt.NDArray[np.float64], most: int) -> tuple[float, float]:
    """The ends of a map's values, moved outwards so that zero between them has a code."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    lo, hi = float(finite.min()), float(finite.max())
    if not lo < 0 < hi:
        return lo, hi
    below = min(max(round(-lo / (hi - lo) * most), 1), most - 1)
    step = max(-lo / below, hi / (most - below))
    return -below * step, (most - below) * step


def png(picture: Codes) -> bytes:
    """A picture `[h, w]` or `[h, w, 3]` as PNG."""
    height, width = picture.shape[:2]
    colour = _GRAY if picture.ndim == 2 else _RGB
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    rows = _filtered(picture.reshape(height, -1), 1 if colour == _GRAY else 3)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in parts)


def _filtered(rows: Codes, channels: int) -> bytes:
    """The rows, or their differences to the left or above: what has the smallest numbers."""
    left, above = rows.copy(), rows.copy()
    left[:, channels:] -= rows[:, :-channels]
    above[1:] -= rows[:-1]
    kinds = [rows, left, above]
    sizes = [np.abs(kind.view(np.int8).astype(np.int16)).sum() for kind in kinds]
    best = int(np.argmin(sizes))
    return np.insert(kinds[best], 0, best, axis=1).tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# Reading


def read_samples(blob: bytes) -> dict[str, Json]:
    """The header of a run's samples.

    Raises:
        FormatError: It is broken, or of another schema.
    """
    header = _loads(blob, LARGEST_HEADER, "the header of the samples")
    count: Json = header.get("count")
    shape: Json = header.get("shape")
    _expect(header.get("kind") in KINDS, f"a `kind` of {KINDS}", header.get("kind"))
    _expect(_is_count(count), "a `count` of samples", count)
    _expect(_is_shape(shape), "a `shape`", shape)
    labels, words, values = (header.setdefault(key, None) for key in ("labels", "words", "values"))
    for key, given in (("labels", labels), ("words", words), ("values", values)):
        fits = given is None or (isinstance(given, list) and len(given) == count)
        _expect(fits, f"`{key}` for each of {count} samples", given)
    _expect(all(map(_is_int_or_none, labels or ())), "whole `labels`", labels)
    _expect(all(map(_are_texts, words or ())), "`words` as lists of texts", words)
    fits = values is None or _has_shape(values, [count, *shape])
    _expect(fits, f"`values` of the shape {[count, *shape]}", values)
    for key in ("class_names", "feature_names"):
        given = header.setdefault(key, None)
        _expect(given is None or _are_texts(given), f"`{key}` as a list of texts", given)
    return header


def read_predictions(blob: bytes, count: int) -> dict[str, Json]:
    """What is predicted for `count` samples at a step.

    Raises:
        FormatError: It is broken, or of another schema.
    """
    header = _loads(blob, LARGEST_MAP_HEADER, "predictions")
    checks = {"predicted": _is_int_or_none, "probability": _is_number}
    for key, fits in checks.items():
        given: Json = header.get(key)
        whole = isinstance(given, list) and len(given) == count and all(map(fits, given))
        _expect(whole, f"`{key}` for each of {count} samples", given)
    return header


def read_map(blob: bytes) -> dict[str, Json]:
    """The header of the maps of one sample.

    Raises:
        FormatError: It is broken, or of another schema.
    """
    header = _loads(blob, LARGEST_MAP_HEADER, "the header of a map")
    shape: Json = header.get("shape")
    scores: Json = header.get("scores")
    ends: Json = header.get("range")
    _expect(header.get("bits") in (8, 16), "`bits` of 8 or 16", header.get("bits"))
    size = math.prod(shape) if _is_shape(shape) and 1 <= len(shape) <= 2 else 0
    _expect(0 < size <= LARGEST_MAP, "a `shape` of one or two axes", shape)
    count = len(scores) if _are_numbers(scores) else 0
    _expect(0 < count <= MOST_CLASSES, "`scores`", scores)
    classes: Json = header.setdefault("classes", None)
    fits = isinstance(classes, list) and len(classes) == count and all(map(_is_int, classes))
    _expect(classes is None or fits, f"`classes` for {count} scores", classes)
    fits = isinstance(ends, list) and len(ends) == count
    fits = fits and all(_are_finite(pair) and len(pair) == 2 for pair in ends)
    _expect(fits, f"a `range` [lo, hi] for each of {count} maps", ends)
    _expect(_are_finite([header.get("limit")]), "a `limit`", header.get("limit"))
    _expect(isinstance(header.get("signed"), bool), "`signed`", header.get("signed"))
    for key, fit in (("reliable", _is_bool), ("gap", _is_number), ("error", _is_number)):
        given: Json = header.setdefault(key, None)  # logs of before have none
        fits = isinstance(given, list) and len(given) == count and all(map(fit, given))
        _expect(given is None or fits, f"`{key}` for {count} scores", given)
    _expect(_is_int_or_none(header.setdefault("predicted", None)), "`predicted`", header)
    _expect(_is_number(header.setdefault("probability", None)), "a `probability`", header)
    return header


def read_tree(blob: bytes) -> dict[str, Json]:
    """The surrogate decision trees of a step.

    Raises:
        FormatError: They are broken, or of another schema.
    """
    described = _loads(blob, LARGEST_HEADER, "a decision tree")
    trees: Json = described.get("trees")
    fits = isinstance(trees, list) and all(
        isinstance(one, dict) and isinstance(one.get("tree"), dict) for one in trees
    )
    _expect(fits, "`trees` with a `tree` each", trees)
    rows: Json = described.get("rows")
    _expect(rows is None or isinstance(rows, str), "`rows` as a text", rows)
    for one in trees:
        tree = one["tree"]
        for key in ("features", "classes"):
            _expect(_are_texts(tree.get(key)), f"`{key}` as a list of texts", tree.get(key))
        _check_nodes(tree.get("root"), len(tree["features"]))
    return described


def _check_nodes(root: Json, features: int) -> None:
    nodes = [(root, 0)]
    while nodes:
        node, depth = nodes.pop()
        _expect(depth <= DEEPEST_TREE, f"at most {DEEPEST_TREE} splits one below another", depth)
        fits = isinstance(node, dict) and _is_int(node.get("class")) and _is_int(node.get("rows"))
        _expect(fits, "nodes with `class` and `rows`", node)
        _expect(_are_numbers(node.get("counts")), "nodes with `counts`", node)
        if "feature" not in node:
            continue
        column = node["feature"]
        _expect(_is_int(column) and 0 <= column < features, f"a `feature` below {features}", column)
        _expect(_are_finite([node.get("threshold")]), "a `threshold`", node.get("threshold"))
        nodes += [(node.get("left"), depth + 1), (node.get("right"), depth + 1)]


def check_map_png(blob: bytes, header: Mapping[str, Json]) -> None:
    """Checks that a blob is the PNG of a map, of no other size than the header says.

    Raises:
        FormatError: It is not.
    """
    shape = header["shape"]
    size = (1, *shape)[-2:]
    found = png_size(blob)
    _expect(found == size, f"a PNG of {size[1]} x {size[0]} pixels", found)


def png_size(blob: bytes) -> tuple[int, int]:
    """Height and width of a PNG.

    Raises:
        FormatError: It is none.
    """
    fits = len(blob) >= 24 and blob[:8] == _SIGNATURE and blob[12:16] == b"IHDR"
    _expect(fits, "a PNG", blob[:16])
    width, height = struct.unpack(">II", blob[16:24])
    return height, width


def envelope(header: Mapping[str, Json], blobs: Sequence[bytes]) -> bytes:
    """Blobs with a JSON header in one: its length (uint32, little-endian), the JSON, the blobs."""
    described = dumps({**header, "blobs": [len(blob) for blob in blobs]})
    return b"".join([struct.pack("<I", len(described)), described, *blobs])


def _loads(blob: bytes, most: int, what: str) -> dict[str, Json]:
    """A JSON object of this schema, in which no number is infinite or not a number."""
    if len(blob) > most:
        raise FormatError(f"Expected {what} of at most {most} bytes. Received: {len(blob)} bytes.")
    items = blob.count(b",") + 1  # at least
    if items > MOST_ITEMS:
        raise FormatError(f"Expected {what} of at most {MOST_ITEMS} items. Received: {items}.")
    try:
        header = clean(json.loads(blob))
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"Expected {what} as JSON. Received: {_brief(blob)} ({type(error).__name__})."
        ) from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else header
        raise FormatError(
            f"Expected {what} of schema {SCHEMA}. Received: schema {_brief(found)}. Read it with "
            "the version of keras-explanations that wrote it, or with a later one."
        )
    return header


def dumps(value: Json) -> bytes:
    """JSON, with null for each number that is infinite or none."""
    return json.dumps(clean(value), allow_nan=False, separators=(",", ":")).encode()


def clean(value: Json) -> Json:
    """JSON with null for each number that is infinite or none, and text that can be encoded."""
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _expect(fits: bool, expected: str, received: Json) -> None:
    if not fits:
        raise FormatError(f"Expected {expected}. Received: {_brief(received)}.")


def _brief(value: Json) -> str:
    text = repr(value[:60] if isinstance(value, (bytes, str, list)) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_bool(value: Json) -> bool:
    return isinstance(value, bool)


def _is_int(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_int_or_none(value: Json) -> bool:
    return value is None or _is_int(value)


def _is_count(value: Json) -> bool:
    return _is_int(value) and 0 < value < 10**6


def _is_shape(value: Json) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(map(_is_count, value))


def _has_shape(values: Json, shape: list[int]) -> bool:
    if not shape:
        return _is_number(values)
    fits = isinstance(values, list) and len(values) == shape[0]
    return fits and all(_has_shape(value, shape[1:]) for value in values)


def _is_number(value: Json) -> bool:
    """Null too, which stands for what is not finite."""
    return value is None or _is_int(value) or isinstance(value, float)


def _are_numbers(values: Json) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _are_finite(values: Json) -> bool:
    return _are_numbers(values) and None not in values


def _are_texts(values: Json) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
