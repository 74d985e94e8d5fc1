"""What counts in a log directory in which a training was begun anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Restarted:
    """A multiplexer of TensorBoard's that has the events which the fast loader has.

    The slow loader keeps all of them, and its data provider takes the first of a step, which is one
    of the training before.

    Args:
        multiplexer: A `plugin_event_multiplexer.EventMultiplexer`.
    """

    def __init__(self, multiplexer: Any) -> None:
        self._multiplexer = multiplexer

    def Tensors(self, run: str, tag: str) -> list[Any]:  # noqa: N802, TensorBoard's name
        """The events of a tag that count."""
        return surviving(self._multiplexer.Tensors(run, tag))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._multiplexer, name)


def surviving(events: Iterable[Any]) -> list[Any]:
    """The events of one tag that count: each drops those before it of the same or a later step.

    Args:
        events: Objects with a `step`, as they were written.

    Returns:
        Those that are left, by step.
    """
    kept: list[Any] = []
    for event in events:
        while kept and kept[-1].step >= event.step:
            kept.pop()
        kept.append(event)
    return kept


def provider(multiplexer: Any, directory: str) -> Any:
    """A data provider of the events that count.

    Args:
        multiplexer: A `plugin_event_multiplexer.EventMultiplexer`.
        directory: What it reads.

    Returns:
        A `tensorboard.data.provider.DataProvider`.
    """
    from tensorboard.backend.event_processing import data_provider

    return data_provider.MultiplexerDataProvider(Restarted(multiplexer), directory)
