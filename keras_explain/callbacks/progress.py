"""A line on the terminal while something takes long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

PATIENCE = 5.0  # seconds that pass without a line


@contextlib.contextmanager
def announced(what: str, expected: float) -> Iterator[None]:
    """Says what is going on, where a person watches and it is expected to take long.

    The line goes to standard error, only if that is a terminal, and is wiped at the end.

    Args:
        what: What is going on.
        expected: How many seconds it took the last time; 0 if that is not known.
    """
    shown = expected > PATIENCE and sys.stderr is not None and sys.stderr.isatty()
    if shown:
        sys.stderr.write(f"\r\033[K{what}, about {expected:.0f} s")
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
