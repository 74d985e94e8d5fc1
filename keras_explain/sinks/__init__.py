"""Where a callback's records go: TensorBoard, memory.

Nothing here is loaded before it is used: the tab in TensorBoard reads the events without Keras.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_explain.sinks.base import NotWrittenError as NotWrittenError
    from keras_explain.sinks.base import Record as Record
    from keras_explain.sinks.base import Sink as Sink
    from keras_explain.sinks.memory import Memory as Memory
    from keras_explain.sinks.tensorboard import TensorBoard as TensorBoard

__all__ = ["Memory", "NotWrittenError", "Record", "Sink", "TensorBoard"]

_HOMES = {
    "Memory": "memory",
    "NotWrittenError": "base",
    "Record": "base",
    "Sink": "base",
    "TensorBoard": "tensorboard",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
