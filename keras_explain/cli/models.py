"""The model, and what it makes of pictures before it looks at them."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_explain.cli.errors import APPLICATION, CommandError, UsageError
from keras_explain.core.names import nearest


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model, and where it comes from."""

    model: Any
    application: str | None = None  # of keras.applications
    trained: bool = True

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """The shape `[B, ...]` of its input; None where it does not say.

        Raises:
            CommandError: It has several inputs.
        """
        inputs = getattr(self.model, "inputs", None) or []
        if len(inputs) > 1:
            raise CommandError(
                "Expected a model with one input. Received: one with the inputs "
                f"{', '.join(repr(t.name) for t in inputs)}. Explain it in Python: "
                "explainer(model, {name: array, ...})."
            )
        return tuple(inputs[0].shape) if inputs else None


def source_of(options: argparse.Namespace) -> Source:
    """The model that the command line names.

    Raises:
        CommandError: It can't be had.
    """
    if options.model.startswith(APPLICATION):
        return _application(options)
    for name in ("weights", "classes"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"Expected --{name} with {APPLICATION}NAME. Received: the model file "
                f"{options.model!r}, which has its own."
            )
    return Source(_loaded(Path(options.model), options.trust))


def _loaded(path: Path, trust: bool) -> Any:
    if not path.exists():
        known = {f"{APPLICATION}{name}": name for name in _applications()}
        near = [full for full, name in known.items() if name.lower() == path.name.lower()]
        hint = f" Did you mean {near[0]}?" if near else ""
        raise CommandError(
            f"Expected a .keras file, or {APPLICATION}NAME. Received: {str(path)!r}, which does "
            f"not exist.{hint}"
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        hint = "A layer of your own is registered by --import MODULE."
        if "safe_mode" in str(error):
            hint = "If the file is your own, --trust loads it, and runs the code in it."
        raise CommandError(
            f"Expected a model that Keras can load. Received: {str(path)!r}: {error}\n{hint}"
        ) from error


def _applications() -> dict[str, Any]:
    """The networks of `keras.applications`, by name."""
    return {
        name: value
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and name[0].isupper()
    }


def _application(options: argparse.Namespace) -> Source:
    name = options.model.removeprefix(APPLICATION)
    known = _applications()
    if name not in known:
        raise UsageError(
            f"Expected a network of keras.applications. Received: {name!r}. {nearest(name, known)}"
        )
    weights = options.weights or "imagenet"
    if weights == "imagenet":
        if options.classes is not None:
            raise UsageError(
                "Expected --classes with a file of weights. Received: the ImageNet weights of "
                "Keras, which have 1000 classes."
            )
        return Source(_with_imagenet_weights(name, known[name]), name)
    model = known[name](weights=None, classes=options.classes or 1000)
    if weights == "none":
        warnings.warn(
            "The weights are random: what is explained has nothing to do with the inputs.",
            stacklevel=2,
        )
        return Source(model, name, trained=False)
    _load_weights(model, name, Path(weights))
    return Source(model, name)


def _with_imagenet_weights(name: str, builder: Callable[..., Any]) -> Any:
    try:
        return builder(weights="imagenet")
    except Exception as error:
        raise CommandError(
            f"Expected the ImageNet weights of {name}, which Keras downloads once. Received: "
            f"{error}\nWithout a network, --weights FILE takes weights from the disk; --weights "
            "none tries all out with random ones."
        ) from error


def _load_weights(model: Any, name: str, path: Path) -> None:
    if not path.is_file():
        raise CommandError(
            "Expected --weights to be imagenet, none or a file. "
            f"Received: {str(path)!r}, which is no file."
        )
    try:
        model.load_weights(path)
    except Exception as error:
        raise CommandError(
            f"Expected weights of {name} with {model.output_shape[-1]} classes. Received: "
            f"{str(path)!r}: {error}\n--classes says how many classes they have."
        ) from error


def scale_of(source: Source, how: str | None) -> str:
    """How pictures are preprocessed: as the command line says, or the model itself.

    Args:
        source: The model.
        how: A range such as `"0..1"`, `"none"`, or a network of `keras.applications`; None for what
            the model says.

    Raises:
        UsageError: The model does not say.
    """
    if how is not None:
        return how
    if source.application is not None:
        return source.application
    if _scales(source.model):
        return "none"
    raise UsageError(
        "Expected --preprocess, since a .keras file does not say how its pictures were scaled in "
        "training. Received: none. Write --preprocess 0..1 or -1..1, `none` for 0..255, or the "
        "network of keras.applications whose preprocessing was used, such as ResNet50."
    )


def preprocessing(how: str) -> Callable[[np.ndarray], np.ndarray]:
    """What makes the model's input of float32 pictures in [0, 255].

    Raises:
        UsageError: `how` is nothing of the kind.
    """
    if how == "none":
        return lambda pictures: pictures
    number = r"([-+]?\d+\.?\d*|[-+]?\.\d+)"
    if ends := re.fullmatch(rf"{number}\.\.{number}", how):
        low, high = float(ends[1]), float(ends[2])
        return lambda pictures: pictures * ((high - low) / 255) + low
    known = {**_applications(), **{_short(m): m for m in _families()}}
    if how not in known:
        raise UsageError(
            "Expected --preprocess to be a range such as 0..1, none, or a network of "
            f"keras.applications. Received: {how!r}. {nearest(how, known)}"
        )
    return _family(how).preprocess_input


def _families() -> list[ModuleType]:
    """The modules of `keras.applications` that preprocess pictures for a network."""
    modules = [m for m in vars(keras.applications).values() if isinstance(m, ModuleType)]
    return [m for m in modules if hasattr(m, "preprocess_input") and "utils" not in m.__name__]


def _short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _family(name: str) -> ModuleType:
    """The module of a network, or of that name."""
    families = _families()
    for module in families:
        if _short(module) == name or hasattr(module, name):
            return module
    # MobileNetV3's module names no network.
    plain = {_short(m).replace("_", ""): m for m in families}
    return plain[max((p for p in plain if name.lower().startswith(p)), key=len)]


def _scales(model: Any) -> bool:
    """Whether a model scales its pictures itself."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    layers = getattr(model, "layers", [])
    return any(isinstance(layer, kinds) or _scales(layer) for layer in layers)
