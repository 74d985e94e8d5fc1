"""Figures of explanations, and the rendering that they share with the TensorBoard images.

Nothing here is loaded before it is used, and no function calls `show`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_explain.plots.pictures import epochs, grid, plot

__all__ = ["epochs", "grid", "plot"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from keras_explain.plots import pictures

    return getattr(pictures, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
