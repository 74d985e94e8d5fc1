"""A model's layers by path and its compiled functions, kept with the model."""

import operator
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from keras_explain.core.model.intercept import fingerprint, nodes_by_path, outputs_of
from keras_explain.core.names import nearest

Tensor = Any
CACHE = "__kx__"
CACHED_FUNCTIONS = 64
_OPENING = threading.Lock()


def _without_call(model: keras.Model) -> str:
    inside = [name for name, part in vars(model).items() if isinstance(part, keras.Model)]
    advice = ", ".join(f"`{name}`" for name in inside) or "none is an attribute of it"
    return (
        f"Expected a model with a `call`, which says what its output is. Received: {model.name!r} "
        f"of type {type(model).__name__}, which has none. Explain the model inside it: {advice}."
    )


@dataclass
class Compiled:
    """A compiled function (if one is left to call) and what was learned while it was traced."""

    call: Any
    learned: Any


class OpenModel:
    """A model's layers by path and its compiled functions; kept in `model.__dict__`."""

    def __init__(self, model: keras.Model) -> None:
        if type(model).call is keras.Model.call:
            raise ValueError(_without_call(model))
        if not getattr(model, "built", False):
            raise ValueError(
                f"Expected a built model. Received: {model.name!r}, which has no weights yet. Call "
                "it once on data, or `model.build(input_shape)`."
            )
        self.model = model
        self.nodes = nodes_by_path(model)
        self.paths = {id(node): path for path, node in self.nodes.items()}
        self.fingerprint = fingerprint(model)
        self._functions: dict[Any, Compiled] = {}
        self._lock = threading.RLock()

    @classmethod
    def of(cls, model: keras.Model) -> "OpenModel":
        """The model's own record, made anew when its layers, activations or variables changed."""
        if not isinstance(model, keras.Model):
            raise TypeError(f"Expected a keras.Model. Received: {type(model).__name__}.")
        with _OPENING:
            known = model.__dict__.get(CACHE)
            if known is None or known.model is not model or not known.is_current():
                known = model.__dict__[CACHE] = cls(model)
            return known

    def is_current(self) -> bool:
        """Whether the model has the layers, activations and variables that were compiled."""
        now = fingerprint(self.model)
        return len(now) == len(self.fingerprint) and all(map(operator.is_, now, self.fingerprint))

    def compiled(self, key: Any, build: Callable[[], Compiled]) -> Compiled:
        """The function of `key`, built on first use; the least recently used one makes room."""
        with self._lock:
            function = self._functions.pop(key, None) or build()
            self._functions[key] = function
            if len(self._functions) > CACHED_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
            return function

    def resolve(self, layer: str) -> str:
        """The path of a layer given by path, or by a name that only one path ends in.

        Raises:
            ValueError: No layer, or more than one, has the name.
        """
        if not isinstance(layer, str):
            raise TypeError(
                "Expected a layer, its name or its path. "
                f"Received: layer={layer!r} of type {type(layer).__name__}."
            )
        if layer in self.nodes:
            return layer
        ends = [path for path in self.nodes if path.endswith("/" + layer)]
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise ValueError(
                f"Expected the path of one layer. Received: layer={layer!r}, which ends several "
                f"paths: {', '.join(map(repr, ends))}. Use one of these."
            )
        raise ValueError(
            f"Expected the name or path of a layer of {self.model.name!r}. "
            f"Received: layer={layer!r}. {nearest(layer, self.nodes)}"
        )

    def call(self, x: Any, layers: Iterable[str] = (), **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The model's output, and what layers, given by path, return in their last call.

        Raises:
            ValueError: A layer takes no part in the forward pass.
        """
        with ExitStack() as listening:
            heard = {
                layer: listening.enter_context(outputs_of(self.nodes[layer])) for layer in layers
            }
            y = self.model(x, **kwargs)
        for layer, outputs in heard.items():
            if not outputs:
                raise ValueError(
                    "Expected a layer that takes part in the model's forward pass. "
                    f"Received: layer={layer!r}, which was not called."
                )
        return y, {layer: outputs[-1] for layer, outputs in heard.items()}

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that a model made with `Input(batch_size=...)` insists on."""
        inputs = tree.flatten(getattr(self.model, "inputs", None) or self._states)
        return inputs[0].shape[0] if inputs else None

    def zero_states(self) -> list[tuple[Any, Tensor]]:
        """The states of stateful recurrent layers, each with zeros to take its place."""
        return [(state, ops.zeros(state.shape, state.dtype)) for state in self._states]

    @property
    def _states(self) -> list[Any]:
        stateful = [node for node in self.nodes.values() if getattr(node, "stateful", False)]
        return tree.flatten([getattr(node, "states", None) or [] for node in stateful])
