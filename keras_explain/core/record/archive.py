"""A header and arrays in an `.npz` file, read so that a broken or hostile one costs little."""

import collections
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_explain import files

_LARGEST_HEADER = 2**24  # bytes
_EXPANDS = 1032  # deflate makes at most so many bytes of one
_KINDS = "biufcSUMm"  # of dtypes: no objects, and nothing of several fields
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a header of JSON and arrays to an `.npz` file, which is whole or as it was.

    Raises:
        ValueError: An array has objects, or several fields.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise ValueError(
                f"Expected arrays of numbers or texts to save. Received: {name!r} of dtype "
                f"{array.dtype}. Convert it first."
            )
    digests = {name: _digest(array) for name, array in arrays.items()}
    text = json.dumps({**header, "digests": digests}).encode()
    with files.written(path) as file:
        np.savez_compressed(file, **arrays, header=np.frombuffer(text, np.uint8))  # type: ignore[arg-type]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays that `write` wrote.

    Time and memory are at most proportional to the size of the file.

    Raises:
        OSError: The file can't be opened.
        ValueError: It is broken. Its readers may raise other exceptions for it, too.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        size = os.fstat(file.fileno()).st_size
        _expect(sum(m.file_size for m in members) <= _EXPANDS * size, "sizes that can be")
        counts = collections.Counter(member.filename for member in members)
        _expect(max(counts.values(), default=1) == 1, "arrays of different names")
        arrays = {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    header = _header(arrays)
    for name, digest in header.get("digests", {}).items():
        _expect(_digest(arrays[name]) == digest, f"the array {name!r} that was saved")
    return header, arrays


def _header(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    _expect("header" in arrays, "a header")
    text = arrays["header"].tobytes()
    _expect(len(text) <= _LARGEST_HEADER, f"a header of at most {_LARGEST_HEADER} bytes")
    header = json.loads(text)
    _expect(isinstance(header, dict), "a header by names")
    return header


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    _expect(member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), "deflated arrays")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size)
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        _expect(not stream.read(1), "no more than an array")  # at the end, the checksum is compared
    return array


def _check_header(stream: IO[bytes], size: int) -> None:
    """Checks what an array says of itself before room is made for it."""
    version = np.lib.format.read_magic(stream)
    _expect(version in _HEADERS, "an array of version 1 or 2")
    shape, _, dtype = _HEADERS[version](stream)
    fits = dtype.kind in _KINDS and dtype.itemsize > 0 and all(n >= 0 for n in shape)
    _expect(fits and math.prod(shape) * dtype.itemsize <= size, "an array of its size")


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"Expected {what}.")


def _digest(array: np.ndarray) -> str:
    """A short text that tells arrays of other content, shape or dtype apart."""
    found = hashlib.blake2b(repr((array.shape, array.dtype.str)).encode(), digest_size=8)
    found.update(array.tobytes())
    return found.hexdigest()
