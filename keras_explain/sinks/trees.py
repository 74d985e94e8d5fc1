"""Surrogate trees as TensorBoard events."""

from __future__ import annotations

import functools
import os
from typing import Any

from keras_explain.sinks import events
from keras_explain.sinks.event_file import EventFile
from keras_explain.sinks.event_log import Place, directory_name

_NAME = "tree"


class TreeLog:
    """Writes trees to `<log_dir>/explain`, for TensorBoard's Text, Images and Explain tabs.

    The tags are `tree/text`, `tree/picture` (or for each region, `tree/picture/<region>`), and
    `keras_explain/tree`.

    Args:
        log_dir: The directory that TensorBoard is started on.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = directory_name(log_dir)
        self._place = Place(self.log_dir)

    def __getstate__(self) -> dict[str, Any]:
        """A copy writes to a place of its own, as one of the TensorBoard sink does."""
        return self.__dict__ | {"_place": Place(self.log_dir, copied=True)}

    def open(self) -> None:
        """Begins an event file.

        Raises:
            OSError: It can't be written.
        """
        self._place.open()
        self._place.events.own(_NAME, self)

    def write(self, step: int, tree: Any) -> None:
        """Queues a tree, to be drawn and written by a background thread.

        Raises:
            NotWrittenError: Something queued before was not written. This tree is queued.
            ValueError: Another model has begun to log to this directory.
        """
        self._place.events.check_owner(_NAME, self)
        self._place.events.submit(functools.partial(_write, step, tree), step)
        self._place.events.report()

    def close(self) -> None:
        """Waits until all is written.

        Raises:
            NotWrittenError: Something queued before was not written.
        """
        self._place.events.close()


def _write(step: int, tree: Any, file: EventFile) -> None:
    from keras_explain.plots import trees as drawing

    text = tree.to_text()
    file.text("tree/text", "\n".join("    " + line for line in text.splitlines()), step)
    of_region = dict(enumerate(tree.trees)) if hasattr(tree, "trees") else {None: tree}
    for region, one in of_region.items():
        tag = "tree/picture" if region is None else f"tree/picture/{region}"
        file.picture(tag, drawing.picture(one), step)
    described = [{"region": region, "tree": one.to_dict()} for region, one in of_region.items()]
    description = {"trees": described, "rows": "inputs" if None in of_region else "regions"}
    if tree.reader is not None and tree.reader.asks_about != "inputs":
        description["rows"] = tree.reader.asks_about
    file.blobs(events.TREE, events.tree_blobs(description), step)
