"""Surrogate trees as TensorBoard events."""

from __future__ import annotations

import functools
import os
from typing import Any

from keras_explain.sinks import events
from keras_explain.sinks.tensorboard import events_in, write_blobs, write_picture, write_text


class TreeLog:
    """Writes trees to `<log_dir>/explain`, for TensorBoard's Text, Images and Explain tabs.

    The tags are `tree/text`, `tree/picture` (or for each region, `tree/picture/<region>`), and
    `keras_explain/tree`.

    Args:
        log_dir: The directory that TensorBoard is started on.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._events = events_in(os.path.join(os.fspath(log_dir), "explain"))

    def write(self, step: int, tree: Any) -> None:
        """Queues a tree, to be drawn and written by a background thread."""
        self._events.submit(functools.partial(_write, step, tree))

    def close(self) -> None:
        """Waits until all is written.

        Raises:
            RuntimeError: If something written earlier failed.
        """
        self._events.close()


def _write(step: int, tree: Any) -> None:
    from keras_explain.plots import trees as drawing

    text = tree.to_text()
    write_text("tree/text", "\n".join("    " + line for line in text.splitlines()), step)
    of_region = dict(enumerate(tree.trees)) if hasattr(tree, "trees") else {None: tree}
    for region, one in of_region.items():
        tag = "tree/picture" if region is None else f"tree/picture/{region}"
        write_picture(tag, drawing.picture(one), step)
    described = [{"region": region, "tree": one.to_dict()} for region, one in of_region.items()]
    description = {"trees": described, "rows": "inputs" if None in of_region else "regions"}
    if tree.reader is not None and tree.reader.asks_about != "inputs":
        description["rows"] = tree.reader.asks_about
    write_blobs(events.TREE, events.tree_blobs(description), step)
