"""Files that are read or written."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_explain.cli.errors import CommandError

PICTURES = (
    *(".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    ".webp",
)
"""Endings of files that are taken for pictures."""


def check_free(paths: Sequence[Path], force: bool) -> None:
    """Raises a `CommandError` where files would be replaced and may not."""
    taken = [path for path in paths if path.exists() and not (force and path.is_file())]
    if not taken:
        return
    more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
    what = "is a directory" if taken[0].is_dir() else "is there already"
    raise CommandError(
        f"Expected files that can be made. Received: {str(taken[0])!r}, which {what}{more}. "
        "--force replaces files; -o writes to another place."
    )


def check_folder(folder: Path) -> None:
    """Raises a `CommandError` where a folder is not there and can't be made, or not written to."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        what = "may not be written to" if nearest.is_dir() else "is a file"
        raise CommandError(
            f"Expected a folder that can be written to, for -o. Received: {str(folder)!r}; "
            f"{str(nearest)!r} {what}."
        )


def lines_of(path: str) -> list[str]:
    """The names in a file: one a line, or a JSON list."""
    try:
        text = Path(path).read_text("utf-8-sig")
        if Path(path).suffix.lower() != ".json":
            return [line.strip() for line in text.rstrip().split("\n")]
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"Expected a text file in UTF-8 with a name a line, or a JSON list of names. Received: "
            f"{path!r}: {error}"
        ) from error
    if not isinstance(names, list):
        raise CommandError(
            f"Expected a JSON list of names. Received: {path!r} with a {type(names).__name__}."
        )
    return [str(name).encode(errors="replace").decode() for name in names]


def load_modules(names: Sequence[str]) -> None:
    """Imports modules of the user's, also from the current directory.

    Raises:
        CommandError: There is none of a name.
    """
    if names and "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise CommandError(
                f"Expected a module that can be imported from here. Received: --import {name} "
                f"({error})."
            ) from error


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with `_2` and so on where a file system might take two for one."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        number, free = 1, name
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free.lower())
        distinct.append(free)
    return distinct
