"""Work for one thread, in order, through a bounded queue."""

from __future__ import annotations

import collections
import threading
import warnings
import weakref
from collections.abc import Callable

from keras_explain.sinks.base import NotWrittenError

Job = Callable[[], None]


class Background:
    """Runs jobs one after another on a thread that lives only while there are any.

    The thread is not a daemon: at exit the interpreter waits until the queue is empty, and no
    longer, since the thread ends then, whether or not anyone calls `join`.

    An error in a job does not stop those after it. It is raised at the next `report` or `join`,
    or warned about when the object goes away before that: at the latest at interpreter exit.

    Args:
        name: What is done, for the thread's name and the messages.
        capacity: How many jobs may wait. `submit` blocks while there are as many.
    """

    def __init__(self, name: str, capacity: int = 16) -> None:
        self.name = name
        self._capacity = capacity
        self._changed = threading.Condition()
        self._jobs: collections.deque[tuple[int, Job]] = collections.deque()
        self._submitted = self._done = 0
        self._busy = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None  # the first of the unheard
        self._unheard: list[tuple[int, str]] = []  # an error's frames would keep this object alive
        weakref.finalize(self, _warn, name, self._unheard)

    def submit(self, job: Job, step: int = 0) -> None:
        """Queues a job, which belongs to a step."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) < self._capacity)
            self._jobs.append((step, job))
            self._submitted += 1
            if not self._busy:
                self._thread = threading.Thread(target=self._drain, name=self.name)
                self._thread.start()
                self._busy = True

    def wait(self) -> None:
        """Waits until all jobs that are queued by now are done."""
        with self._changed:
            submitted = self._submitted
            self._changed.wait_for(lambda: self._done >= submitted)

    def report(self) -> None:
        """Says what has failed since the last report.

        Raises:
            NotWrittenError: A job failed.
        """
        with self._changed:
            error, self._error = self._error, None
            failures = self._unheard[:]
            self._unheard.clear()
        if failures:
            raise NotWrittenError(_message(self.name, failures), failures) from error

    def join(self) -> None:
        """Waits until all jobs are done and the thread has ended.

        Raises:
            NotWrittenError: A job failed.
        """
        if self._thread is not None:
            self._thread.join()
        self.report()

    def _drain(self) -> None:
        while (queued := self._next()) is not None:
            step, job = queued
            try:
                job()
            except Exception as error:
                with self._changed:
                    self._error = self._error or error
                    self._unheard.append((step, f"{type(error).__name__}: {error}"))
            with self._changed:
                self._done += 1
                self._changed.notify_all()

    def _next(self) -> tuple[int, Job] | None:
        with self._changed:
            self._busy = bool(self._jobs)
            if not self._busy:
                return None
            self._changed.notify_all()
            return self._jobs.popleft()


def _message(name: str, failures: list[tuple[int, str]]) -> str:
    return f"{name} failed {len(failures)} time(s). The first cause: {failures[0][1]}"


def _warn(name: str, unheard: list[tuple[int, str]]) -> None:
    if unheard:
        warnings.warn(_message(name, unheard), RuntimeWarning, stacklevel=2)
