"""Surrogate trees as TensorBoard events."""

from __future__ import annotations

import functools
import os
from typing import Any

import tensorflow as tf

from keras_explain.sinks.tensorboard import events_in


class TreeLog:
    """Writes trees to `<log_dir>/explain`, for TensorBoard's Text and Images tabs.

    The tags are `tree/text`, and `tree/picture` or, for each region, `tree/picture/<region>`.

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
    tf.summary.text("tree/text", "\n".join("    " + line for line in text.splitlines()), step=step)
    trees = getattr(tree, "trees", None)
    named = {"": tree} if trees is None else {f"/{i}": t for i, t in enumerate(trees)}
    for region, one in named.items():
        tf.summary.image(f"tree/picture{region}", drawing.picture(one)[None], step=step, max_outputs=1)
