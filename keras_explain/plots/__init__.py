"""Figures of explanations, and the rendering that they share with the TensorBoard images.

Nothing here is loaded before it is used, and no function calls `show`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_explain.plots.figure import plot
    from keras_explain.plots.pictures import epochs, grid
    from keras_explain.plots.text import to_html

__all__ = ["epochs", "grid", "plot", "to_html"]

_HOMES = {"epochs": "pictures", "grid": "pictures", "plot": "figure", "to_html": "text"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
