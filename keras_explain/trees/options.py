"""What `TreeRegularization` is configured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_explain.core import checks
from keras_explain.core.config import Config
from keras_explain.trees.penalties import Penalty

Tensor = Any


class Options(Config):
    """What `TreeRegularization` is configured with, apart from the model and the data."""

    strength: float
    penalty: Penalty
    warmup: float
    ramp: float
    refit_every: int
    subsample: int | None
    regions: int | Callable[[Tensor], Tensor] | None
    over_regions: str
    layer: str | None
    min_samples_leaf: int
    feature_names: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    log_dir: str | None
    batch_size: int | None
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("strength", self.strength)
        if not isinstance(self.penalty, Penalty):
            raise TypeError(
                "Expected a penalty such as `kx.trees.TreeDistillation()`. "
                f"Received: penalty={self.penalty!r} of type {type(self.penalty).__name__}."
            )
        for name in ("warmup", "ramp"):
            checks.share(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise ValueError(
                    f"Expected `{name}` to be a fraction of the epochs, at most 1. "
                    f"Received: {name}={getattr(self, name)}."
                )
        checks.count("refit_every", self.refit_every)
        checks.count("min_samples_leaf", self.min_samples_leaf)
        checks.choice("over_regions", self.over_regions, ("sum", "max", "sparsemax"))
        if self.subsample is not None:
            checks.count("subsample", self.subsample)
        if self.regions is None or callable(self.regions):
            return
        checks.count("regions", self.regions)
        if self.regions > 1 and self.layer is not None:
            raise ValueError(
                "Expected `regions` to be a function of the layer's units, which change while the "
                f"model trains, so that k-means finds no lasting regions. Received: "
                f"regions={self.regions}, layer={self.layer!r}."
            )
