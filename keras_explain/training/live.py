"""A term at work: its variables, its schedule, what it does between epochs, and its logs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.training.schedule import ramp_at
from keras_explain.training.term import Arrays, Batch, Term

Tensor = Any


class LiveTerm:
    """A term at work on one model, whose wrapping model keeps its variables.

    What it does between epochs is all here; a term with data of its own (a reference, a log) has a
    subclass.

    Args:
        term: The term.
        name: Its name in `logs`.
        model: The model itself.
        retrace: To be called where the traced training step holds for the term no longer.
    """

    why_zero = ""  # what it may be due to that the penalty was 0 in all epochs

    def __init__(
        self, term: Term, name: str, model: keras.Model, retrace: Callable[[], None]
    ) -> None:
        self.term, self.name, self.model, self._retrace = term, name, model, retrace
        self.state: dict[str, keras.Variable] = {}
        self._added = keras.Variable(  # the sum over rows in this epoch, and their number
            "zeros",
            shape=(2,),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="sum",
            synchronization="on_read",
            name="penalty",
        )

    # Its variables

    @property
    def ready(self) -> bool:
        """Whether it knows what it keeps; one that was loaded may not, until it is restored."""
        return True

    def first_state(self) -> Arrays:
        """What it keeps at first."""
        return self.term.state(self.model)

    def build(self, add_weight: Callable[..., keras.Variable]) -> None:
        """Creates its variables."""

        def made(name: str, value: Any) -> keras.Variable:
            array = np.asarray(value)
            variable = add_weight(
                shape=array.shape,
                initializer="zeros",
                dtype="int32" if array.dtype.kind == "i" else "float32",
                trainable=False,
                autocast=False,
                name=f"{self.name}_{name}".replace("/", "_"),
            )
            variable.assign(array)
            return variable

        self._strength = made("strength", 0.0)
        self.state = {name: made(name, array) for name, array in self.first_state().items()}

    def build_config(self) -> dict[str, Any]:
        """What the shapes of its variables depend on, besides its configuration."""
        return {}

    def restore(self, config: dict[str, Any]) -> None:
        """Takes what `build_config` gave before the model was saved."""

    def copied(self) -> None:
        """This one is a copy, of a model that may still train."""

    def numbers(self) -> Arrays:
        """What it keeps, on the host."""
        return {name: backend.to_numpy(variable) for name, variable in self.state.items()}

    # In the training step

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose outputs it reads, by name or path."""
        return self.term.layers

    def added(self, batch: Batch) -> Tensor:
        """What is added to the loss; while the strength is 0, `loss` is not evaluated."""
        read = self.read(batch)
        strength = ops.convert_to_tensor(self._strength)

        def term() -> Tensor:
            loss = ops.cast(self.loss(batch, read), "float32")
            if loss.shape != ():
                raise ValueError(
                    f"Expected the `loss` of {type(self.term).__name__} to be one number. "
                    f"Received: shape {tuple(loss.shape)}. Take its mean over the batch."
                )
            return strength * loss

        added = ops.cond(strength > 0, term, lambda: ops.zeros_like(strength))
        rows = self.rows(batch, read)
        self._added.assign_add(ops.stack([added * rows, rows]))
        return added

    def read(self, batch: Batch) -> Any:
        """What has to be read from the step's own graph, in which `loss` is a branch."""
        return None

    def loss(self, batch: Batch, read: Any) -> Tensor:
        """The term, a number."""
        return self.term.loss(batch)

    def rows(self, batch: Batch, read: Any) -> Tensor:
        """How many rows the batch has, float32."""
        return ops.cast(ops.shape(tree.flatten(batch.y_pred)[0])[0], "float32")

    # Between epochs

    def check_loss(self, loss: Any) -> None:
        """Raises a `ValueError` where the loss of the task does not go with it."""

    def check_labels(self, y: Any) -> None:
        """Raises a `ValueError` where `fit` can't begin, with these labels or at all."""

    @property
    def fitted(self) -> bool:
        """Whether it has been fitted to the model."""
        return True

    @property
    def current_strength(self) -> float:
        """What its loss is multiplied by in this epoch."""
        return float(backend.to_numpy(self._strength))

    def begin(self, share: float) -> None:
        """Sets how much of the strength counts from here on."""
        self._strength.assign(self.term.strength * share)
        self._added.assign(np.zeros(2, np.float32))

    def refit(self) -> Any:
        """Fits what it keeps to the model as it is now."""
        for name, array in self.term.refit(self.model, self.numbers()).items():
            self.state[name].assign(array)

    def scalars(self) -> dict[str, float]:
        """The scalars of the epoch, by name."""
        return {"penalty": self.penalty, **self.term.scalars(self.numbers())}

    @property
    def penalty(self) -> float:
        """The mean over the rows of this epoch of what was added to the loss."""
        total, rows = backend.to_numpy(self._added)
        return float(total / max(rows, 1))

    # While `fit` runs

    def begin_training(self) -> None:
        """Training begins: what was said and seen in earlier ones is forgotten."""
        self._warned, self._strongest, self._most_added = False, 0.0, 0.0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Sets the strength; fits for the first time, unless an interrupted training goes on."""
        share = ramp_at(epoch, epochs, self.term.warmup, self.term.ramp)
        self._strongest = max(self._strongest, share)
        self.begin(share)
        if epoch == 0 or not self.fitted:
            self.refit_after(None)

    def end_epoch(self, epoch: int, epochs: int, logs: Mapping[str, Any]) -> dict[str, float]:
        """Refits where it is time to, and returns the scalars of the epoch.

        Args:
            epoch: The epoch, from 0.
            epochs: How many there are.
            logs: The metrics of the epoch.
        """
        if epoch + 1 == epochs or (epoch + 1) % self.term.refit_every == 0:
            self.refit_after(epoch)
        self._most_added = max(self._most_added, abs(self.penalty))
        return self.scalars()

    def refit_after(self, epoch: int | None) -> None:
        """Refits after an epoch, or before the first."""
        self.refit()

    def end_training(self, epochs: int) -> None:
        """Says so where nothing was ever added to the loss."""
        if not self._strongest:
            self.warn(
                "The training ended before the penalty began, so the model is not regularized: "
                f"warmup={self.term.warmup} of epochs={epochs} were not over ({self.name!r}). Use "
                "a smaller `warmup`, or keep `EarlyStopping` from stopping before: "
                "`start_from_epoch=`."
            )
        elif not self._most_added:
            self.warn(
                "The penalty was 0 in all epochs, so it has changed nothing "
                f"({self.name!r}){self.why_zero}."
            )

    def warn(self, message: str) -> None:
        """Says something, at most once in each training."""
        if not self._warned:
            self._warned = True
            self.say(message)

    def say(self, message: str) -> None:
        """Says something."""
        warnings.warn(message, RuntimeWarning, stacklevel=2)
