"""A bar that says how far long work has come."""

import contextlib
import sys
from collections.abc import Callable, Iterator

PATIENCE = 2.0  # seconds that pass without a bar


@contextlib.contextmanager
def bar(name: str, total: int | None, shown: bool | None) -> Iterator[Callable[[int], object]]:
    """Yields a function that is called with the number of rows that are done.

    Args:
        name: What is going on.
        total: How many rows there are, where that is known.
        shown: Whether the bar is shown; None shows it after a moment, where a person watches.
    """
    if shown is False or (shown is None and not _is_watched()):
        yield lambda done: None
        return
    from tqdm.auto import tqdm

    delay = PATIENCE if shown is None else 0.0
    with tqdm(total=total, desc=name, unit="row", delay=delay, leave=False) as shown_bar:
        yield shown_bar.update


def _is_watched() -> bool:
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
