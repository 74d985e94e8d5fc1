"""A log on this machine, as a reader of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keras_explain.sinks import events
from keras_explain.tensorboard import restarts
from keras_explain.tensorboard.reader import SCALARS, Reader


def local_reader(directory: str, unread: list[OSError] | None = None) -> Reader:
    """A reader of all that is below a directory now.

    Args:
        directory: The directory.
        unread: Gets an error for each directory or file that can't be read, and is left out.
    """
    from tensorboard import context
    from tensorboard.backend.event_processing import plugin_event_multiplexer, tag_types

    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        size_guidance={tag_types.TENSORS: 1},  # of what is not ours
        tensor_size_guidance={events.PLUGIN: 0, SCALARS: 0},
    )
    for folder in _with_events(directory, [] if unread is None else unread):
        multiplexer.AddRun(folder, os.path.relpath(folder, directory))
    multiplexer.Reload()
    return Reader(restarts.provider(multiplexer, directory), context.RequestContext())


def _with_events(top: str, unread: list[OSError]) -> Iterator[str]:
    """The directories with files of events, each once, links followed; notes what can't be read."""
    seen = set()
    for folder, below, files in os.walk(top, onerror=unread.append, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(below)
        logs = [os.path.join(folder, name) for name in files if "tfevents" in name]
        if real not in seen and logs and all(_can_be_read(log, unread) for log in logs):
            yield folder
        seen.add(real)


def _can_be_read(path: str, unread: list[OSError]) -> bool:
    try:
        with open(path, "rb"):
            return True
    except OSError as error:
        unread.append(error)
        return False
