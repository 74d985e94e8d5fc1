"""When trees are fitted while a model trains, and how strong their penalty is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_explain.sinks import NotWrittenError

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
        """Forgets earlier trainings, and opens the event file."""
        self._warned, self._strongest, self._most_added = False, 0.0, 0.0
        self._lost: list[tuple[int, str]] = []  # steps whose trees were not written, and why
        self.model.open_log()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the strength; fits the first tree, unless an interrupted training goes on."""
        options = self.model.options
        ramp = ramp_at(epoch, self.params["epochs"], options.warmup, options.ramp)
        self._strongest = max(self._strongest, ramp)
        self.model.begin_epoch(ramp)
        if epoch == 0 or not self.model.fitted:
            self._refit(None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Fits trees to the model as it is now, and adds the scalars to `logs`."""
        options, last = self.model.options, epoch + 1 == self.params["epochs"]
        step = self.model.end_epoch(epoch)
        if last or (epoch + 1) % options.refit_every == 0:
            self._refit(epoch, step)
        scalars = self.model.scalars()
        self._most_added = max(self._most_added, scalars["penalty"])
        if logs is not None:
            logs.update({f"tree/{name}": value for name, value in scalars.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file; says so where nothing was ever added to the loss."""
        self._log(-1, self.model.close_log)
        if len(self._lost) > 1:
            step, cause = self._lost[-1]
            self._say(f"{len(self._lost)} trees were not logged, lastly at step {step}: {cause}")
        if not self._strongest:
            self._warn(
                "The training ended before the penalty began, so the model is not regularized: "
                f"warmup={self.model.options.warmup} of epochs={self.params['epochs']} were not "
                "over. Use a smaller `warmup`, or keep `EarlyStopping` from stopping before: "
                "`start_from_epoch=`."
            )
        elif not self._most_added:
            self._warn(
                "The penalty was 0 in all epochs, so it has changed nothing: the trees had no "
                "question to save, or a surrogate was never fitted, which takes five fits of the "
                "tree (more epochs, or a smaller `refit_every`)."
            )

    def _refit(self, epoch: int | None, step: int | None = None) -> None:
        """Fits trees after an epoch, or before the first; warns where that makes no sense."""
        when = "before training" if epoch is None else f"after epoch {epoch}"
        try:
            only_class = self.model.refit()
        except FloatingPointError as error:  # a callback such as TerminateOnNaN may end it well
            self._warn(f"No tree was fitted {when}. {error}")
            return
        if step is not None:
            self._log(step, self.model.log_tree, step)
        if only_class is not None and epoch is not None and self.model.current_strength:
            self._warn(
                f"The model predicts class {only_class} for every reference row {when}. The tree "
                "of a constant is as simple as it is useless. If the model was no constant before "
                "the penalty began, it has collapsed: use a smaller `strength`, a longer `warmup` "
                "or a longer `ramp`."
            )

    def _log(self, step: int, action: Callable[..., None], *args: Any) -> None:
        """Training goes on where the log can't be written, which is said once."""
        try:
            action(*args)
        except (NotWrittenError, ValueError) as error:
            first = not self._lost
            self._lost += getattr(error, "failures", [(step, str(error))])
            if first:
                self._say(f"A tree was not logged, training goes on. {error}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            self._say(message)

    def _say(self, message: str) -> None:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
