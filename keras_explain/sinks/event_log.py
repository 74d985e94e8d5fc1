"""Where events go, and the thread that writes them."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from keras_explain.sinks.background import Background
from keras_explain.sinks.event_file import EventFile, WriteError, new_directory

Job = Callable[[EventFile], None]


class EventLog:
    """The events of one directory: a file is opened when it is needed, and written by one thread.

    There is one of these per directory, since TensorBoard stops reading a file once it has seen a
    later one beside it.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._background = Background(f"Writing explanations to {directory!r}")
        self._lock = threading.Lock()
        self._file: EventFile | None = None
        self._owners: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def open(self) -> None:
        """Begins a file, unless one is open.

        Raises:
            WriteError: It can't be written.
        """
        with self._lock:
            self._opened()

    def submit(self, job: Job, step: int) -> None:
        """Queues a job; what fails is reported later."""
        self._background.submit(functools.partial(self._run, job), step)

    def wait(self) -> None:
        """Waits for all that is queued by now."""
        self._background.wait()

    def report(self) -> None:
        """Raises a `NotWrittenError` if something failed since the last report."""
        self._background.report()

    def close(self) -> None:
        """Closes the file when all is written."""
        self._background.submit(self._close)
        self._background.join()

    def own(self, name: str, writer: Any) -> None:
        """Gives a name of records to a writer, whoever had it before."""
        self._owners[name] = writer

    def check_owner(self, name: str, writer: Any) -> None:
        """Raises a `ValueError` where another writer has taken the name."""
        if self._owners.get(name, writer) is not writer:
            raise ValueError(
                f"Expected one logger of {name!r} in a directory. Received: another one that has "
                f"begun to write to {self._directory!r}: steps of one replace those of the other. "
                "Give the loggers explainers of different names (as dicts), or a `log_dir` each."
            )

    def _run(self, job: Job) -> None:
        """Does a job; where its file fails, once more in a new one."""
        with self._lock:
            try:
                self._write(job)
            except WriteError:
                self._write(job)

    def _write(self, job: Job) -> None:
        file = self._opened()
        try:
            file.check()
            job(file)
            file.flush()
        except WriteError:
            self._file = None
            file.give_up()
            raise

    def _opened(self) -> EventFile:
        if self._file is None:
            self._file = EventFile(self._directory)
        return self._file

    def _close(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()


_OPEN: weakref.WeakValueDictionary[str, EventLog] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def events_in(directory: str) -> EventLog:
    """The events of a directory, which all that write to it share."""
    remote = "://" in directory  # a file system that Python does not know
    directory = directory if remote else os.path.abspath(directory)
    key = directory if remote else os.path.realpath(directory)
    with _LOCK:
        log = _OPEN.get(key)
        if log is None:
            log = _OPEN[key] = EventLog(directory)
        return log


class Place:
    """Where a writer's events go: `<log_dir>/explain`, or for a copy, a place of its own.

    Args:
        log_dir: The directory that TensorBoard is started on.
        copied: Whether this is of a copy.
    """

    def __init__(self, log_dir: str, copied: bool = False) -> None:
        self._log_dir = log_dir
        self.directory = None if copied else os.path.join(log_dir, "explain")

    @functools.cached_property
    def events(self) -> EventLog:
        """The events there; the place of a copy is taken now."""
        if self.directory is None:
            self.directory = os.path.join(new_directory(self._log_dir), "explain")
        return events_in(self.directory)

    def open(self) -> None:
        """Begins an event file, unless one is open.

        Raises:
            OSError: It can't be written.
        """
        try:
            self.events.open()
        except OSError as error:
            raise OSError(
                "Expected a `log_dir` in which files can be made. "
                f"Received: log_dir={self._log_dir!r}. {error}. Give another one, or make room."
            ) from error


def directory_name(log_dir: Any) -> str:
    """A directory's name as text.

    Raises:
        TypeError: It is none.
    """
    try:
        return os.fsdecode(log_dir)
    except TypeError as error:
        raise TypeError(
            "Expected `log_dir` to be the name of a directory. "
            f"Received: log_dir={log_dir!r} of type {type(log_dir).__name__}."
        ) from error
