"""A model that trains with further terms in its loss."""

from __future__ import annotations

import contextlib
import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_explain import backend
from keras_explain.core import config as configs
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.names import snake_name
from keras_explain.training.live import LiveTerm
from keras_explain.training.schedule import TermsCallback
from keras_explain.training.term import Batch, Term

Tensor = Any
Nest = Any


@keras.saving.register_keras_serializable(package="keras_explain")
class Regularized(keras.Model):
    """A model that is trained with further terms in its loss.

    While it trains, its loss is

        loss + sum over terms of strength * ramp(epoch) * term.

    `compile`, `fit`, `evaluate`, `predict` and `save` are as ever. At the end of an epoch, `logs`
    has what each term has added, `<name>/penalty`, and what else it reports. The validation loss
    is that of the task alone. A term of strength 0 is left out: the model is then trained exactly
    as it would be without it.

    Args:
        model: A built model with Keras's own `train_step` and `compute_loss`.
        terms: The terms, of `kx.terms` or your own.
        name: The name of this model.

    Attributes:
        model: The model itself, to save and serve without this package.

    Raises:
        TypeError: This is no model, or these are no terms.
        ValueError: The model is not built or trains by a step of its own; two terms have one name;
            or a term does not go with the model.

    Example:

    ```python
    tree = kx.terms.Tree(reference=x_train)
    model = kx.Regularized(net, [tree, LogitPenalty(strength=0.01)])
    model.compile("adam", "binary_crossentropy")
    model.fit(x_train, y_train, epochs=100)
    print(model.terms["tree"].tree.to_text())
    ```
    """

    def __init__(
        self, model: keras.Model, terms: Sequence[Term], *, name: str | None = None
    ) -> None:
        _check(model)
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.model = model
        self._live = {
            name: term.live(name, model, self._retrace) for name, term in _named(terms).items()
        }
        self._seen = threading.local()  # layers' outputs, in the step that a thread traces
        self.built = all(live.ready for live in self._live.values())  # else when it is restored
        if self.built:
            self._build_terms()

    def _build_terms(self) -> None:
        for live in self._live.values():
            live.build(self.add_weight)

    def _retrace(self) -> None:
        self.train_function = None

    @property
    def terms(self) -> Mapping[str, Any]:
        """The terms at work, by name: what they have fitted, and their data."""
        return types.MappingProxyType(self._live)

    @property
    def _active(self) -> list[LiveTerm]:
        return [live for live in self._live.values() if live.term.strength]

    # Training

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`.

        Raises:
            ValueError: The loss does not go with a term.
        """
        for live in self._live.values():
            live.check_loss(loss)
        super().compile(optimizer, loss, *args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as saved; Keras itself does so only for models with its own `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Raises:
            ValueError: A term can't begin: it lacks its data, or the labels do not go with it.
        """
        active = self._active
        if not active:
            return super().fit(*args, **kwargs)
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        for live in active:
            live.check_labels(given.get("y"))
        with _first(TermsCallback(active), given.get("callbacks")) as callbacks:
            return super().fit(**given | {"callbacks": callbacks})

    def call(self, inputs: Nest, training: bool | None = None) -> Tensor:
        """What the model returns."""
        layers = [layer for live in self._active for layer in live.layers] if training else []
        if not layers:
            return self.model(inputs, training=training)
        opened = OpenModel.of(self.model)
        paths = {layer: opened.resolve(layer) for layer in layers}
        y, found = opened.call(inputs, dict.fromkeys(paths.values()), training=training)
        self._seen.outputs = {layer: found[path] for layer, path in paths.items()}
        return y

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of the task, and while training, the terms."""
        loss = super().compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
        )
        if not training:
            return loss
        outputs = getattr(self._seen, "outputs", {})
        for live in self._active:
            batch = Batch(self.model, x, y, y_pred, sample_weight, outputs, live.state)
            added = live.added(batch)
            loss = loss + ops.cast(added / backend.replica()[1], loss.dtype)
        return loss

    # Between epochs, in a loop of one's own; `fit` does it itself

    def begin_epoch(self, share: float) -> None:
        """Sets how much of the terms' strengths counts from here on."""
        for live in self._active:
            live.begin(share)

    def refit(self) -> Any:
        """Fits what the terms keep to the model as it is now."""
        for live in self._active:
            live.refit()

    # Saving and copying

    def __reduce__(self) -> Any:
        """A copy, by `copy.deepcopy` or `pickle`, logs to a directory of its own."""
        load, arguments = super().__reduce__()
        return _load_copy, (load, *arguments)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`, of the plain model."""
        return self.model.export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "terms": [configs.serialize(live.term) for live in self._live.values()],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        terms: list[Any] = [configs.deserialize(term) for term in config["terms"]]
        return cls(model, terms, name=config["name"])

    def get_build_config(self) -> dict[str, Any]:
        return {name: live.build_config() for name, live in self._live.items()}

    def build_from_config(self, config: dict[str, Any]) -> None:
        if self.built:
            return
        for name, live in self._live.items():
            live.restore(config[name])
        self._build_terms()
        self.built = True


def _check(model: Any) -> None:
    """Raises where a model can't be trained inside another one."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: {model.name!r}, which has no weights yet. Call "
            "it once on data, or `model.build(input_shape)`."
        )
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"Expected a model with Keras's own `{name}`. Received: {type(model).__name__}, "
                f"whose `{name}` would not run here. Put what it adds into its loss or its layers."
            )


def _named(terms: Any) -> dict[str, Term]:
    """Terms by their names in `logs`."""
    if not isinstance(terms, (list, tuple)):
        raise TypeError(
            "Expected a list of terms, such as `[kx.terms.Tree(reference=x)]`. "
            f"Received: {type(terms).__name__}."
        )
    found: dict[str, Term] = {}
    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(
                "Expected terms such as `kx.terms.Tree(reference=x)`, or of a subclass of "
                f"`kx.terms.Term`. Received: {term!r} of type {type(term).__name__}."
            )
        name = term.name or snake_name(type(term).__name__)
        if name in found:
            raise ValueError(
                "Expected terms of different names, by which `logs` tell them apart. Received: "
                f"{name!r} twice. Give one of them a `name=`."
            )
        found[name] = term
    return found


def _load_copy(load: Callable[..., Regularized], *arguments: Any) -> Regularized:
    model = load(*arguments)
    for live in model.terms.values():
        live.copied()
    return model


@contextlib.contextmanager
def _first(callback: keras.callbacks.Callback, others: Any) -> Iterator[Any]:
    """Callbacks with one more in front; a user's `CallbackList` has it only inside."""
    if not isinstance(others, keras.callbacks.CallbackList):
        given = others if isinstance(others, (list, tuple)) else [] if others is None else [others]
        yield [callback, *given]
        return
    callback.set_model(others.model)
    callback.set_params(others.params)
    others.callbacks.insert(0, callback)
    try:
        yield others
    finally:
        others.callbacks.remove(callback)
