"""The only access to private Keras: a model's layers by path, and their calls under a hook."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_explain.core import private

_LOCK = threading.RLock()


def nodes_by_path(model: keras.Model) -> dict[str, Any]:
    """Every layer and functional operation inside `model`, nested ones too, by its path.

    A path joins the names of the nested models and the layer with `/`. What is used in two places
    is listed once, and a name that is taken gets a number.
    """
    found: dict[str, Any] = {}
    seen = {id(model)}

    def visit(parent: Any, prefix: str) -> None:
        for child in _children(parent):
            if id(child) in seen:
                continue
            seen.add(id(child))
            path = _free(prefix + child.name, found)
            found[path] = child
            visit(child, path + "/")

    visit(model, "")
    return found


def _children(parent: Any) -> list[Any]:
    layers = _flattened(parent, recursive=False) if _is_layer(parent) else []
    operations = getattr(parent, "operations", None) or []
    return [*layers, *(op for op in operations if not _is_layer(op))]


def _flattened(layer: keras.Layer, *, recursive: bool = True) -> list[keras.Layer]:
    return list(private.of(layer, "_flatten_layers")(include_self=False, recursive=recursive))


def _is_layer(node: Any) -> bool:
    return isinstance(node, keras.Layer)


def _free(path: str, taken: dict[str, Any]) -> str:
    if path not in taken:
        return path
    number = next(n for n in range(2, len(taken) + 3) if f"{path}_{n}" not in taken)
    return f"{path}_{number}"


def fingerprint(model: keras.Model) -> list[Any]:
    """What a compiled function of the model is good for: its layers, activations and variables.

    To be compared by identity, and kept: a new object may get the `id` of one that is gone.
    """
    layers = _flattened(model)
    activations = [getattr(layer, "activation", None) for layer in layers]
    return [*layers, *activations, *model.variables]


@contextmanager
def intercept(
    nodes: Iterable[Any], hook: Callable, states: Iterable[tuple[Any, Any]] = ()
) -> Iterator[None]:
    """Runs `hook(node, call, *args, **kwargs)` in place of each node's call, in this thread.

    The hook returns the node's output: `call(*args, **kwargs)`, or what it wants seen instead.
    Meanwhile the layers compute in float32, whatever their dtype policy, and what they write is
    dropped; afterwards, also after an error, every layer is as it was. Other threads see no change.

    Args:
        nodes: The model, and the layers and operations in `nodes_by_path(model)`.
        hook: A function that returns a node's output.
        states: Variables with the values that they have meanwhile, in place of their own.
    """
    with _LOCK, ExitStack() as undo:
        thread = threading.get_ident()
        for node in nodes:
            _shadow_call(node, hook, thread, undo)
            if _is_layer(node):
                _compute_in_float32(node, thread, undo)
                _keep_losses(node, thread, undo)
                _keep_inputs_float(node, thread, undo)
        undo.enter_context(private.get("AutocastScope")("float32"))
        undo.enter_context(keras.StatelessScope(list(states)))
        yield


_LISTENERS: dict[int, tuple[threading.local, ExitStack, list[int]]] = {}


@contextmanager
def outputs_of(layer: keras.Layer) -> Iterator[list[Any]]:
    """Notes what a layer returns in this thread, and changes nothing else.

    Unlike under `intercept`, layers keep their dtype policies, and no lock is held, so it serves in
    a training step, which several threads may trace at a time (one per replica).
    """
    with _LOCK:
        heard, undo, users = _LISTENERS.setdefault(id(layer), (threading.local(), ExitStack(), []))
        if not users:
            _listen(layer, heard, undo)
        users.append(threading.get_ident())
    before, heard.outputs = getattr(heard, "outputs", None), []
    try:
        yield heard.outputs
    finally:
        heard.outputs = before
        with _LOCK:
            users.remove(threading.get_ident())
            if not users:
                undo.close()
                del _LISTENERS[id(layer)]


def _listen(layer: keras.Layer, heard: threading.local, undo: ExitStack) -> None:
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        outputs = getattr(heard, "outputs", None)
        if outputs is not None:
            outputs.append(output)
        return output

    _shadow(layer, "call", call, undo)


def stateless(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> keras.optimizers.Optimizer:
    """A copy of an optimizer, built for variables, that can be applied in a `StatelessScope`.

    TensorFlow's optimizers of Keras can't, since they hand variables on to `tf.distribute`. What
    they do so, the copy does as Keras does it for all backends.

    Raises:
        ValueError: The optimizer averages or accumulates over steps, or wraps another one.
    """
    config = optimizer.get_config()
    over_steps = ("use_ema", "gradient_accumulation_steps", "loss_scale_factor", "inner_optimizer")
    if any(config.get(name) for name in over_steps):
        raise ValueError(
            "Expected an optimizer that updates what it is given at each step. Received: "
            f"{type(optimizer).__name__} with one of {', '.join(over_steps)}."
        )
    copy = _of_all_backends(type(optimizer)).from_config(config)
    copy.build(variables)
    return copy


def _of_all_backends(kind: type) -> Any:
    """A class of optimizers in which Keras's methods for all backends come before TensorFlow's."""
    of_tensorflow, of_all = keras.optimizers.Optimizer.__bases__

    class Reordered(type(kind)):  # type: ignore[misc]
        def mro(cls) -> list[type]:
            order = super().mro()
            order.remove(of_all)
            order.insert(order.index(of_tensorflow), of_all)
            return order

    return Reordered(kind.__name__, (kind,), {})


def mask_of(tensor: Any) -> Any:
    """The mask of time steps that Keras keeps with a layer's output, or None."""
    return private.get("get_keras_mask")(tensor)


def _shadow_call(node: Any, hook: Callable, thread: int, undo: ExitStack) -> None:
    name = "quantized_call" if getattr(node, "quantization_mode", None) else "call"
    original = getattr(node, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **kwargs)
        return hook(node, original, *args, **kwargs)

    _shadow(node, name, call, undo)


class _Float32(keras.DTypePolicy):
    """A float32 policy in one thread, and in all others a layer's own one, whatever is asked."""

    def __init__(self, elsewhere: keras.DTypePolicy, thread: int) -> None:
        self._thread, self._elsewhere = thread, elsewhere
        super().__init__("float32")

    def __getattribute__(self, name: str) -> Any:
        of = super().__getattribute__
        if threading.get_ident() == of("_thread"):
            return of(name)
        return getattr(of("_elsewhere"), name)


def _compute_in_float32(layer: keras.Layer, thread: int, undo: ExitStack) -> None:
    own = private.of(layer, "_dtype_policy")
    is_float = keras.backend.is_float_dtype(layer.compute_dtype)
    if is_float and layer.quantization_mode is None:
        _shadow(layer, "_dtype_policy", _Float32(own, thread), undo)


def _keep_inputs_float(layer: keras.Layer, thread: int, undo: ExitStack) -> None:
    """Lets float32 pass where a Functional model would cast it to its input's integer dtype."""
    if not isinstance(layer, private.get("Functional")):
        return
    name = "_convert_inputs_to_tensors"
    convert = private.of(layer, name)

    def converted(flat: list[Any]) -> list[Any]:
        if threading.get_ident() != thread:
            return convert(flat)
        return [
            x if x is not None and keras.backend.standardize_dtype(x.dtype) == "float32" else y
            for x, y in zip(flat, convert(flat), strict=True)
        ]

    _shadow(layer, name, converted, undo)


def _shadow(node: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Sets an instance attribute past Keras's tracking, to be put back."""
    if name in node.__dict__:
        undo.callback(node.__dict__.__setitem__, name, node.__dict__[name])
    else:
        undo.callback(node.__dict__.pop, name, None)
    node.__dict__[name] = value


def _keep_losses(layer: keras.Layer, thread: int, undo: ExitStack) -> None:
    """Leaves the losses of the last call, which a call begins by clearing."""
    clear = private.of(layer, "_clear_losses")

    def cleared() -> None:
        if threading.get_ident() != thread:
            clear()

    _shadow(layer, "_clear_losses", cleared, undo)
