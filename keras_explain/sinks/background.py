"""Work for one thread, in order, through a bounded queue."""

from __future__ import annotations

import collections
import threading
import warnings
import weakref
from collections.abc import Callable

Job = Callable[[], None]


class Background:
    """Runs jobs one after another on a thread that lives only while there are any.

    The thread is not a daemon: at exit the interpreter waits until the queue is empty, and no
    longer, since the thread ends then, whether or not anyone calls `join`.

    An error in a job does not stop those after it. It is raised at the next `submit` or `join`,
    or warned about when the object goes away before that: at the latest at interpreter exit.

    Args:
        name: What is done, for the thread's name and the messages.
        capacity: How many jobs may wait. `submit` blocks while there are as many.
    """

    def __init__(self, name: str, capacity: int = 16) -> None:
        self.name = name
        self._capacity = capacity
        self._changed = threading.Condition()
        self._jobs: collections.deque[Job] = collections.deque()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._errors: list[Exception] = []
        self._unheard: list[str] = []  # an error's frames would keep this object alive
        weakref.finalize(self, _warn, name, self._unheard)

    def submit(self, job: Job) -> None:
        """Queues a job.

        Raises:
            RuntimeError: If an earlier job failed. This one is queued all the same.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) < self._capacity)
            self._jobs.append(job)
            if not self._busy:
                self._thread = threading.Thread(target=self._drain, name=self.name)
                self._thread.start()
                self._busy = True
        self._raise()

    def join(self) -> None:
        """Waits until all jobs are done and the thread has ended.

        Raises:
            RuntimeError: If a job failed.
        """
        if self._thread is not None:
            self._thread.join()
        self._raise()

    def _drain(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception as error:
                self._errors.append(error)
                self._unheard.append(_cause(error))

    def _next(self) -> Job | None:
        with self._changed:
            self._busy = bool(self._jobs)
            if not self._busy:
                return None
            self._changed.notify_all()
            return self._jobs.popleft()

    def _raise(self) -> None:
        heard = [self._unheard.pop(0) for _ in range(len(self._unheard))]
        if heard:
            error = self._errors[0]
            del self._errors[: len(heard)]
            raise RuntimeError(_message(self.name, heard)) from error


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _message(name: str, causes: list[str]) -> str:
    return f"{name} failed {len(causes)} time(s). The first cause: {causes[0]}"


def _warn(name: str, unheard: list[str]) -> None:
    if unheard:
        warnings.warn(_message(name, unheard), RuntimeWarning, stacklevel=2)
