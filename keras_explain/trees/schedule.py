"""When trees are fitted while a model trains, and how strong their penalty is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from keras_explain.trees.regularization import TreeRegularization


def ramp_at(epoch: int, epochs: int, warmup: float, ramp: float) -> float:
    """How much of the penalty's strength counts in an epoch.

    Args:
        epoch: The epoch, from 0.
        epochs: How many there are.
        warmup: The fraction of them before the penalty begins.
        ramp: The fraction in which it grows from 0 to 1.
    """
    since = epoch + 1 - warmup * epochs
    if since <= 0:
        return 0.0
    return float(np.clip(since / max(ramp * epochs, 1), 0, 1))


class TreeCallback(keras.callbacks.Callback):
    """Fits trees between epochs, and reports them in `logs`; `TreeRegularization.fit` adds it.

    It comes before the user's callbacks, so that they see its scalars, and what they save has the
    tree that the next epoch begins with.
    """

    model: TreeRegularization

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets earlier warnings."""
        self._warned = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the strength; fits the first tree, unless training goes on from a saved one."""
        options = self.model.options
        ramp = ramp_at(epoch, self.params["epochs"], options.warmup, options.ramp)
        self.model.begin_epoch(ramp)
        if not self.model.fitted:
            self._refit(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Fits trees to the model as it is now, and adds the scalars to `logs`."""
        options, last = self.model.options, epoch + 1 == self.params["epochs"]
        if last or (epoch + 1) % options.refit_every == 0:
            self._refit(epoch + 1)
        if logs is not None:
            logs.update({f"tree/{name}": value for name, value in self.model.scalars().items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        self.model.close_log()

    def _refit(self, epoch: int) -> None:
        """Fits trees before an epoch; says so, once a training, where that makes no sense."""
        try:
            only_class = self.model.refit(epoch)
        except FloatingPointError as error:  # a callback such as TerminateOnNaN may end it well
            self._warn(f"No tree was fitted before epoch {epoch}. {error}")
            return
        if only_class is not None and self.model.current_strength:
            self._warn(
                f"The model predicts class {only_class} for every reference row since epoch "
                f"{max(epoch - 1, 0)}: it has collapsed to a constant, whose tree is as simple as "
                "it is useless. Use a smaller `strength`, a longer `warmup`, or a longer `ramp`."
            )

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(message, RuntimeWarning, stacklevel=2)
