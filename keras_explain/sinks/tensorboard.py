"""Records as TensorBoard events: pictures, scalars, a table of predictions, and maps."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_explain.sinks import events, maps, pairs, wording
from keras_explain.sinks.background import Background
from keras_explain.sinks.base import Record, Sink

_BLOB_SEQUENCE: Any = 3  # the number of summary.proto's DATA_CLASS_BLOB_SEQUENCE


class TensorBoard(Sink):
    """Writes records to `<log_dir>/explain`, for the tabs of TensorBoard.

    | tag                              | what                                                     |
    |----------------------------------|---------------------------------------------------------|
    | `explain/<explainer>/<sample>`   | picture: the input, and the map over it                 |
    | `explain/<explainer>/<scalar>`   | every scalar of the record                              |
    | `explain/predictions`            | text: per step, a table of true, predicted and explained |
    | `keras_explain/...`              | samples, maps and predictions, for the Explain tab       |

    Drawing, compressing and writing are done by one background thread, which also flushes the file
    after every record. It lives only while there is work. Several sinks on one `log_dir`
    share it, and the event file. Pictures are left out where the input is not a picture, or where
    several classes per sample are explained; maps, where values lie over no input.

    Args:
        log_dir: The directory that TensorBoard is started on.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "logs") -> None:
        self.log_dir = os.fspath(log_dir)
        self._events = events_in(os.path.join(self.log_dir, "explain"))
        self._step: list[Record] = []

    def write(self, record: Record) -> None:
        """Queues the record; blocks while the queue is full.

        Raises:
            RuntimeError: If something written earlier failed.
        """
        if self._step and self._step[0].step != record.step:
            self.flush()
        self._step.append(record)
        first = len(self._step) == 1
        self._events.submit(functools.partial(_write_record, self._events, record, first))

    def flush(self) -> None:
        """Ends a step: its table is queued, and flushed like all before it.

        Raises:
            RuntimeError: If something written earlier failed.
        """
        records, self._step = self._step, []
        if records:
            self._events.submit(functools.partial(_write_table, records))

    def close(self) -> None:
        """Waits for the background thread, which closes the file and ends.

        Raises:
            RuntimeError: If something written earlier failed.
        """
        try:
            self.flush()
        finally:
            self._events.close()


class _Events:
    """The event file of one directory: opened by the first job, written by one thread.

    There is one of these per directory, since TensorBoard stops reading a file once it has seen a
    later one beside it.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._background = Background(f"Writing explanations to {directory!r}")
        self._writer: Any = None
        self.samples: set[bytes] = set()  # the headers of those that the open file has

    def submit(self, job: Callable[[], None]) -> None:
        self._background.submit(functools.partial(self._run, job))

    def close(self) -> None:
        try:
            self._background.submit(self._close)
        finally:
            self._background.join()

    def _run(self, job: Callable[[], None]) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._directory)
        with self._writer.as_default():  # flushes the file at its end
            job()

    def _close(self) -> None:
        writer, self._writer, self.samples = self._writer, None, set()
        if writer is not None:
            writer.close()


_OPEN: weakref.WeakValueDictionary[str, _Events] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def events_in(directory: str) -> _Events:
    """The event file of a directory, which all that write to it share."""
    key = os.path.realpath(directory)
    with _LOCK:
        events = _OPEN.get(key)
        if events is None:
            events = _OPEN[key] = _Events(directory)
        return events


def _write_record(file: _Events, record: Record, first: bool) -> None:
    tag = f"explain/{record.name}"
    for name, value in record.scalars.items():
        tf.summary.scalar(f"{tag}/{name}", value, step=record.step)
    pictures = pairs.pairs(record)
    for sample, picture in enumerate(() if pictures is None else pictures):
        text = wording.description(record, sample)
        write_picture(f"{tag}/{sample}", picture, record.step, text)
    shown = maps.shown(record)
    if shown is not None:
        _write_maps(file, record, shown, first)


def write_picture(tag: str, picture: np.ndarray, step: int, text: str | None = None) -> None:
    """Writes a picture `[H, W, 3]` and what it shows to the file that is open."""
    tf.summary.image(tag, picture[None], step=step, max_outputs=1, description=text)


def write_text(tag: str, text: str, step: int) -> None:
    """Writes Markdown to the file that is open."""
    tf.summary.text(tag, text, step=step)


def _write_table(records: list[Record]) -> None:
    write_text("explain/predictions", wording.table(records), records[0].step)


def _write_maps(file: _Events, record: Record, shown: maps.Shown, first: bool) -> None:
    """The maps of a record; before the first of a file its samples, of a step its predictions."""
    header, *pictures = maps.samples(record, shown)
    if header not in file.samples:
        write_blobs(events.SAMPLES, [header, *pictures], record.step)
        file.samples.add(header)
    predictions = maps.predictions(record, shown) if first else None
    if predictions is not None:
        write_blobs(events.PREDICTIONS, predictions, record.step)
    for sample in range(len(shown.x)):
        tag = events.map_tag(record.name, sample)
        write_blobs(tag, maps.maps(record, shown, sample), record.step)


def write_blobs(tag: str, blobs: events.Blobs, step: int) -> None:
    """Writes an event of the Explain tab to the file that is open."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(
            plugin_name=events.PLUGIN, content=events.content()
        ),
        data_class=_BLOB_SEQUENCE,
    )
    tf.summary.write(tag, tf.constant(blobs, tf.string, [len(blobs)]), step, metadata)
