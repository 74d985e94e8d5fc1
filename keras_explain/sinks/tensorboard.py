"""Records as TensorBoard events: pictures, scalars, a table of predictions, and maps."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from keras_explain.sinks import events, maps, pairs, wording
from keras_explain.sinks.base import Record, Sink
from keras_explain.sinks.event_file import EventFile
from keras_explain.sinks.event_log import Place, directory_name


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

    A step is on disk before anything of the one after it is written. A file that can't be written
    is given up, and a new one begun.

    A copy (of `copy.deepcopy`, as KerasTuner makes one for each trial, or unpickled) writes to a
    place of its own: `<log_dir>/copy_1/explain`, `<log_dir>/copy_2/explain`, ..., the first that is
    not there when it is opened.

    Args:
        log_dir: The directory that TensorBoard is started on.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "logs") -> None:
        self.log_dir = directory_name(log_dir)
        self._place = Place(self.log_dir)
        self._names: set[str] = set()
        self._step: list[Record] = []

    def __getstate__(self) -> dict[str, Any]:
        """What a copy begins with."""
        own = {"_place": Place(self.log_dir, copied=True), "_names": set(), "_step": []}
        return self.__dict__ | own

    @property
    def directory(self) -> str | None:
        """Where events are written; None of a copy that has not been opened yet."""
        return self._place.directory

    def open(self, names: Sequence[str] = ()) -> None:
        """Begins an event file.

        Raises:
            OSError: It can't be written.
        """
        self._place.open()
        for name in names:
            self._claim(name)

    def write(self, record: Record) -> None:
        """Queues the record, once all records of the step before are written.

        Raises:
            NotWrittenError: Something queued before was not written. This record is queued.
            ValueError: Another sink has begun to write records of this name to this directory.
        """
        file = self._place.events
        if record.name not in self._names:
            self._claim(record.name)
        file.check_owner(record.name, self)
        if self._step and self._step[0].step != record.step:
            self._end_step()
        first = not self._step
        if first:
            file.wait()
        self._step.append(record)
        file.submit(functools.partial(_write_record, record, first), record.step)
        file.report()

    def flush(self) -> None:
        """Ends a step: its table is queued, and flushed like all before it.

        Raises:
            NotWrittenError: Something queued before was not written.
        """
        self._end_step()
        self._place.events.report()

    def close(self) -> None:
        """Waits for the background thread, which closes the file and ends.

        Raises:
            NotWrittenError: Something queued before was not written.
        """
        self._end_step()
        self._names.clear()
        self._place.events.close()

    def _end_step(self) -> None:
        records, self._step = self._step, []
        if records:
            self._place.events.submit(functools.partial(_write_table, records), records[0].step)

    def _claim(self, name: str) -> None:
        self._place.events.own(name, self)
        self._names.add(name)


def _write_record(record: Record, first: bool, file: EventFile) -> None:
    tag = f"explain/{record.name}"
    for name, value in record.scalars.items():
        file.scalar(f"{tag}/{name}", value, record.step)
    pictures = pairs.pairs(record)
    for sample, picture in enumerate(() if pictures is None else pictures):
        file.picture(f"{tag}/{sample}", picture, record.step, wording.description(record, sample))
    shown = maps.shown(record)
    if shown is not None:
        _write_maps(file, record, shown, first)


def _write_table(records: list[Record], file: EventFile) -> None:
    file.text("explain/predictions", wording.table(records), records[0].step)


def _write_maps(file: EventFile, record: Record, shown: maps.Shown, first: bool) -> None:
    """The maps of a record; before the first of a file its samples, of a step its predictions."""
    header, *pictures = maps.samples(record, shown)
    if header not in file.samples:
        file.blobs(events.SAMPLES, [header, *pictures], record.step)
        file.samples.add(header)
    predictions = maps.predictions(record, shown) if first else None
    if predictions is not None:
        file.blobs(events.PREDICTIONS, predictions, record.step)
    for sample in range(len(shown.x)):
        tag = events.map_tag(record.name, sample)
        file.blobs(tag, maps.maps(record, shown, sample), record.step)
