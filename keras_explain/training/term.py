"""What a term of the loss is: a configuration, with its loss in the graph."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy.typing as npt

from keras_explain.core import checks
from keras_explain.core.config import Config

if TYPE_CHECKING:
    from keras_explain.training.live import LiveTerm

Tensor = Any
Nest = Any
Arrays = dict[str, npt.NDArray[Any]]


class Batch(NamedTuple):
    """One training step, as a term sees it in the graph.

    Attributes:
        model: The model itself.
        x: The inputs.
        y: The labels; None where there are none.
        y_pred: What the model returned for the inputs.
        sample_weight: How much the samples count in the loss of the task, or None.
        outputs: What the layers that the term names in `layers` returned.
        state: What the term keeps, by name.
    """

    model: keras.Model
    x: Nest
    y: Nest
    y_pred: Nest
    sample_weight: Nest
    outputs: Mapping[str, Tensor]
    state: Mapping[str, Tensor]


class Term(Config, abc.ABC):
    """A term of the loss of `kx.Regularized`, as a configuration.

    While a model trains, its loss gets

        strength * ramp(epoch) * loss(batch),

    and `logs` get the mean of that over the rows of each epoch, as `<name>/penalty`. A term is a
    subclass that defines `loss`:

    ```python
    class LogitPenalty(kx.terms.Term):
        def loss(self, batch):
            return ops.mean(ops.square(batch.y_pred))
    ```

    What it learns between epochs, if anything, it keeps in arrays of fixed shapes, its `state`,
    which are variables of the wrapping model: steps read them, and `refit` changes them.

    Args:
        strength: The weight of the term. With 0 the model is trained as it would be without it.
        warmup: The fraction of `fit`'s epochs before the term begins.
        ramp: The fraction of `fit`'s epochs in which it then grows to its full strength.
        refit_every: How many epochs lie between two refits.
        name: Its name in `logs`; by default that of its class, in snake case.
    """

    home = "terms"

    strength: float = 1.0
    warmup: float = 0.0
    ramp: float = 0.0
    refit_every: int = 1
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("strength", self.strength)
        for name in ("warmup", "ramp"):
            checks.share(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(
                    f"Expected `{name}` to be a fraction of the epochs, at most 1. "
                    f"Received: {name}={getattr(self, name)}."
                )
        checks.count("refit_every", self.refit_every)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, by name or path, whose outputs it reads in `batch.outputs`."""
        return ()

    def state(self, model: keras.Model) -> Arrays:
        """What it keeps between steps, before the first refit: float32 or int32."""
        return {}

    @abc.abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The term for a batch, a number, in `keras.ops`."""

    def refit(self, model: keras.Model, state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """The arrays of the state that change, for the model as it is now, between epochs."""
        return {}

    def scalars(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Further scalars for the logs, by name."""
        return {}

    def live(self, name: str, model: keras.Model, retrace: Callable[[], None]) -> LiveTerm:
        """The term at work on a model; see `LiveTerm`."""
        from keras_explain.training.live import LiveTerm

        return LiveTerm(self, name, model, retrace)
