"""The event file of the trees of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from keras_explain.sinks import NotWrittenError
from keras_explain.sinks.trees import TreeLog


class TrainingLog:
    """Writes the trees of a training, if there is a directory; it goes on where that can't be.

    Args:
        log_dir: The directory that TensorBoard is started on, or None.
        say: What is told where a tree was not written.
    """

    def __init__(self, log_dir: Any, say: Callable[[str], None]) -> None:
        self._file, self._say = None if log_dir is None else TreeLog(log_dir), say
        self._step = -1  # of the last epoch
        self._lost: list[tuple[int, str]] = []  # steps whose trees were not written, and why

    def elsewhere(self) -> Self:
        """That of a copy, in a directory of its own."""
        log = copy.copy(self)
        log._file = copy.copy(self._file)
        return log

    def open(self) -> None:
        """Opens the event file.

        Raises:
            OSError: It can't be written.
        """
        self._lost = []
        if self._file is not None:
            self._file.open()

    def begin_step(self, epoch: int) -> None:
        """The step is the epoch's number, or the next one if that was had before."""
        self._step = max(epoch, self._step + 1)

    def write(self, tree: Any) -> None:
        """Queues a tree."""
        if self._file is not None:
            self._try(self._step, self._file.write, self._step, tree)

    def close(self) -> None:
        """Waits until all is written, and says how much was not."""
        if self._file is not None:
            self._try(-1, self._file.close)
        if len(self._lost) > 1:
            step, cause = self._lost[-1]
            self._say(f"{len(self._lost)} trees were not logged, lastly at step {step}: {cause}")

    def _try(self, step: int, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except (NotWrittenError, ValueError) as error:
            first = not self._lost
            self._lost += getattr(error, "failures", [(step, str(error))])
            if first:
                self._say(f"A tree was not logged, training goes on. {error}")
