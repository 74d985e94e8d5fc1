"""An event file of TensorBoard's that knows what it has written."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_explain.sinks import events

_BLOB_SEQUENCE: Any = 3  # the number of summary.proto's DATA_CLASS_BLOB_SEQUENCE
_FRAME = 16  # bytes that a record of a TFRecord file has beside its own
_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_NUMBERS = itertools.count()


class WriteError(OSError):
    """Events could not be written."""


class EventFile:
    """A new event file in a directory.

    What was written is in the file once `flush` returns: the file's size is compared with what it
    should be. So a full disk is noticed, and a file that was deleted or cut, all of which
    TensorFlow's summary writer passes over in silence.

    Args:
        directory: Where the file is made, with all that leads there.

    Attributes:
        samples: The headers of the samples that the file has.

    Raises:
        WriteError: It can't be written.
    """

    def __init__(self, directory: str) -> None:
        self.samples: set[bytes] = set()
        self._size = self._events = self._kept = 0
        with _write_errors():
            tf.io.gfile.makedirs(directory)
            self._path = os.path.join(directory, _next_name(tf.io.gfile.listdir(directory)))
            self._writer = tf.io.TFRecordWriter(self._path)
        try:
            self._write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))
            self.flush()
        except WriteError:
            self.give_up()
            raise

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a scalar."""
        self._summary("scalars", tag, tf.make_tensor_proto(value, tf.float32), step)

    def picture(self, tag: str, picture: np.ndarray, step: int, text: str | None = None) -> None:
        """Writes a picture `[H, W, 3]` and what it shows, in Markdown."""
        height, width = picture.shape[:2]
        parts = [str(width).encode(), str(height).encode(), events.png(picture)]
        self._summary("images", tag, tf.make_tensor_proto(parts, tf.string), step, text)

    def text(self, tag: str, text: str, step: int) -> None:
        """Writes Markdown."""
        self._summary("text", tag, tf.make_tensor_proto(text, tf.string), step)

    def blobs(self, tag: str, blobs: events.Blobs, step: int) -> None:
        """Writes an event of the Explain tab."""
        tensor = tf.make_tensor_proto(blobs, tf.string, [len(blobs)])
        plugin = {"content": events.content(), "data_class": _BLOB_SEQUENCE}
        self._summary(events.PLUGIN, tag, tensor, step, **plugin)

    def flush(self) -> None:
        """Returns when all is in the file.

        Raises:
            WriteError: It is not.
        """
        with _write_errors():
            self._writer.flush()
        self.check()
        self._kept = self._events

    def check(self) -> None:
        """Looks whether the file is as it was left by `flush`.

        Raises:
            WriteError: It is not.
        """
        with _write_errors():
            found = tf.io.gfile.stat(self._path).length
        if found != self._size:
            raise WriteError(f"{self._path} has {found} bytes in place of {self._size}")

    def close(self) -> None:
        """Closes the file, all of which was flushed; one in which nothing is goes away.

        Raises:
            WriteError: It can't be closed.
        """
        with _write_errors():
            self._writer.close()
            if self._kept <= 1:
                tf.io.gfile.remove(self._path)

    def give_up(self) -> None:
        """Closes a file that failed, which was said."""
        with contextlib.suppress(WriteError):
            self.close()

    def _summary(
        self,
        plugin: str,
        tag: str,
        tensor: Any,
        step: int,
        text: str | None = None,
        *,
        content: bytes = b"",
        data_class: Any = None,
    ) -> None:
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data={"plugin_name": plugin, "content": content},
            summary_description=text,
            data_class=data_class,
        )
        value = tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        summary = tf.compat.v1.Summary(value=[value])
        self._write(tf.compat.v1.Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        record = event.SerializeToString()
        with _write_errors():
            self._writer.write(record)
        self._size += len(record) + _FRAME
        self._events += 1


def new_directory(log_dir: str) -> str:
    """The first of `copy_1`, `copy_2`, ... that is not there, made by nobody else."""
    with _write_errors():
        tf.io.gfile.makedirs(log_dir)
        paths = (os.path.join(log_dir, f"copy_{number}") for number in itertools.count(1))
        return next(filter(_is_made, paths))


def _is_made(path: str) -> bool:
    """Makes a directory; False where it was there, which TensorFlow would not say."""
    if "://" in path:
        new = not tf.io.gfile.exists(path)
        tf.io.gfile.makedirs(path)
        return new
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def _next_name(names: list[str]) -> str:
    """A name after all others in a directory, in whose order readers take its files."""
    others = [int(found[1]) for found in map(_NAME.match, names) if found]
    second = max([int(time.time()), *(other + 1 for other in others)])
    number = next(_NUMBERS)
    return f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}.{number}.v2"


@contextlib.contextmanager
def _write_errors() -> Iterator[None]:
    """Raises a `WriteError` for an error of TensorFlow's."""
    try:
        yield
    except tf.errors.OpError as error:
        raise WriteError(error.message) from error
