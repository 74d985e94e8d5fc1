"""When terms change while a model trains, and how strong they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from keras_explain.training.live import LiveTerm


def ramp_at(epoch: int, epochs: int, warmup: float, ramp: float) -> float:
    """How much of a term's strength counts in an epoch.

    Args:
        epoch: The epoch, from 0.
        epochs: How many there are.
        warmup: The fraction of them before the term begins.
        ramp: The fraction in which it grows from 0 to 1.
    """
    since = epoch + 1 - warmup * epochs
    if since <= 0:
        return 0.0
    return float(np.clip(since / max(ramp * epochs, 1), 0, 1))


class TermsCallback(keras.callbacks.Callback):
    """Tells terms when training and its epochs begin and end; `Regularized.fit` adds it.

    It comes before the user's callbacks, so that they see the terms' scalars, and what they save
    has the state that the next epoch begins with.
    """

    def __init__(self, terms: Sequence[LiveTerm]) -> None:
        super().__init__()
        self._terms = terms

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Training begins."""
        for term in self._terms:
            term.begin_training()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch begins."""
        for term in self._terms:
            term.begin_epoch(epoch, self.params["epochs"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch ends: the scalars of all terms are added to `logs`."""
        for term in self._terms:
            scalars = term.end_epoch(epoch, self.params["epochs"], logs or {})
            if logs is not None:
                logs.update({f"{term.name}/{name}": value for name, value in scalars.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Training ends."""
        for term in self._terms:
            term.end_training(self.params["epochs"])
