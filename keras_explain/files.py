"""Files that are whole, or as they were: written beside, then moved into place."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def written(path: str | os.PathLike[str], *, text: bool = False) -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` once it is whole.

    After an error, `path` is as it was before, and nothing else is left. Links are followed, a file
    that is replaced keeps its permissions, and what is no regular file (`/dev/stdout`, a pipe) is
    written to directly.

    Args:
        path: The file.
        text: Whether it is written as UTF-8 text, with no newline translated, or as bytes.

    Raises:
        OSError: It can't be written there; says so of `path` itself.
    """
    place = os.path.realpath(path)
    options: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if text else {}
    mode = "w" if text else "wb"
    if os.path.exists(place) and not os.path.isfile(place):
        with open(path, mode, **options) as file:
            yield file
        return
    with _beside(place, os.fspath(path)) as (descriptor, beside):
        with open(descriptor, mode, **options) as file:
            yield file
        os.replace(beside, place)


@contextlib.contextmanager
def _beside(place: str, asked: str) -> Iterator[tuple[int, str]]:
    """A new file in the folder of `place`, open, which is gone afterwards unless it was moved."""
    beside = os.path.join(os.path.dirname(place), f".{secrets.token_hex(8)}.tmp")
    try:
        permissions = _permissions(place)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Expected a file that can be written, in a folder where files can be made "
            f"({error.strerror}). Received",
            asked,
        ) from error
    try:
        if permissions is not None:
            os.chmod(beside, permissions)
        yield descriptor, beside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


_BINARY = getattr(os, "O_BINARY", 0)  # on Windows


def _permissions(place: str) -> int | None:
    """Those of the file that is to be replaced; None where there is none.

    Raises:
        PermissionError: It is not to be written.
    """
    with contextlib.suppress(FileNotFoundError):
        permissions = stat.S_IMODE(os.stat(place).st_mode)
        os.close(os.open(place, os.O_WRONLY | _BINARY))
        return permissions
    return None
