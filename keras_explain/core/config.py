"""Frozen configurations: hashable, comparable, printable, serialisable, and bindable to tensors.

Explainers, targets and baselines are all of this kind. A configuration may hold arrays and other
configurations. `structure` describes it with arrays replaced by their shapes (the key of a compiled
function), `arrays` lists them, and `bind` puts a graph's tensors in their place.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Self, dataclass_transform

import keras
import numpy as np

from keras_explain.core import arrays
from keras_explain.core.names import nearest


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array: what is left of it in a configuration's `structure`."""

    shape: tuple[int, ...]
    dtype: str


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    eq_default=False,
    field_specifiers=(dataclasses.field,),
)
class Config:
    """A frozen dataclass whose subclasses need no decorator.

    Arrays (also inside lists, tuples and dicts) are copied read-only, and compared and hashed by
    content; a layer object is kept as its name. Fields are keyword-only
    unless the class says `kw_only=False`. A field of `dataclasses.field(compare=False)` is data
    that comes with a configuration: kept as it is, and neither compared, shown nor described.
    """

    home: ClassVar[str] = ""
    """The module of `keras_explain` that classes of a kind are found in; descriptions name it."""

    def __init_subclass__(cls, kw_only: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=kw_only, eq=False, repr=False)(cls)
        if kw_only and "__init__" in vars(cls):
            cls.__init__ = _asking(cls)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        for name, value in self._items():
            object.__setattr__(self, name, _freeze(value, f"`{name}`"))

    def __getstate__(self) -> dict[str, Any]:
        return dict(self._items())  # without what is cached, which has types that can't be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        for field in _fields(self):
            object.__setattr__(self, field.name, _freeze(state[field.name], field.name))

    def _items(self) -> Iterator[tuple[str, Any]]:
        for field in _fields(self):
            yield field.name, getattr(self, field.name)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values for the named fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def mapped(self, fn: Callable[[str, Any], Any]) -> Self:
        """A copy with `fn(name, value)` in place of each field's value, taken as it is."""
        copy = object.__new__(type(self))
        for name, value in self._items():
            object.__setattr__(copy, name, fn(name, value))
        return copy

    def over_samples(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """A copy with `change(array)` for each array that has a row for each sample of the input.

        By default there is none. An explainer's `baseline` is taken care of where it is read.
        """
        return self

    # Identity

    @functools.cached_property
    def _content(self) -> tuple:
        return self._describe(_digest)

    @functools.cached_property
    def structure(self) -> tuple:
        """A hashable description with each array replaced by its `ArraySpec`."""
        return self._describe(lambda a: ArraySpec(a.shape, a.dtype.name))

    def _describe(self, of_array: Callable[[np.ndarray], Any]) -> tuple:
        return (type(self), *((name, _describe(value, of_array)) for name, value in self._items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={_show(getattr(self, field.name))}"
            for field in _fields(self)
            if _describe(getattr(self, field.name), _digest)
            != _describe(_freeze(field.default, field.name), _digest)
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    # Arrays as inputs of a compiled function

    def arrays(self) -> list[np.ndarray]:
        """Every array in the configuration, in a fixed order."""
        found: list[np.ndarray] = []

        def note(array: np.ndarray) -> np.ndarray:
            found.append(array)
            return array

        _map_arrays(self, note)
        return found

    def bind(self, tensors: list[Any]) -> Self:
        """A copy with `tensors` in place of `arrays()`."""
        remaining = iter(tensors)
        return _map_arrays(self, lambda _: next(remaining))

    # Serialisation

    def get_config(self) -> dict[str, Any]:
        """The fields as plain values: numbers, strings, lists, dicts."""
        return _plain_fields(self, _plain_array, keras.saving.serialize_keras_object)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The configuration that `get_config` described."""
        return cls(**{name: _deserialize(value) for name, value in config.items()})


def _fields(config: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(config) if field.compare]


def _asking(cls: Any) -> Callable[..., None]:
    """The constructor of a class, which says what it needs."""
    init = cls.__init__
    names = [field.name for field in dataclasses.fields(cls)]
    fields = [field for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        unknown = [name for name in given if name not in names]
        if unknown:
            raise TypeError(
                f"Expected an argument of {cls.__name__}. Received: {unknown[0]!r}. "
                f"{nearest(unknown[0], names)}"
            )
        missing = [field.name for field in fields if field.name not in given]
        if missing and not args:
            raise TypeError(
                f"Expected {', '.join(map(repr, missing))}, without which there is no "
                f"{cls.__name__}. Received: {', '.join(map(repr, given)) or 'nothing'}. Give "
                f"`{cls.__name__}({missing[0]}=...)`; help({cls.__name__}) says what it is."
            )
        init(self, *args, **given)

    return __init__


def serialize(
    config: Config,
    array: Callable[[np.ndarray], Any] | None = None,
    function: Callable[[Callable], Any] | None = None,
) -> dict[str, Any]:
    """`{"class_name": ..., "config": ...}`, from which `deserialize` makes an equal object.

    Args:
        config: The configuration.
        array: What stands for an array; by default its numbers.
        function: What stands for a function; by default what Keras serialises it to.
    """
    name = full_name(type(config))
    if array is None:
        return {"class_name": name, "config": config.get_config()}
    function = function or keras.saving.serialize_keras_object
    return {"class_name": name, "config": _plain_fields(config, array, function)}


def full_name(cls: type[Config]) -> str:
    """The name of a class with its home, such as `"explainers/GradCAM"`."""
    return f"{cls.home}/{cls.__name__}" if cls.home else cls.__name__


def deserialize(description: dict[str, Any]) -> Config:
    """The configuration that `serialize` described; its class may be named without its home.

    Raises:
        ValueError: No such class is known, or more than one; import the module that defines it
            first.
    """
    name = description["class_name"]
    if not isinstance(name, str):
        raise ValueError(f"Expected the name of a class. Received: {name!r}.")
    _load_home(name.rpartition("/")[0])
    known = {full_name(cls): cls for cls in _concrete(Config)}
    fitting = [full for full in known if name in (full, known[full].__name__)]
    if len(fitting) > 1:
        raise ValueError(
            f"Expected a class with its home: {', '.join(map(repr, fitting))}. Received: {name!r}."
        )
    if not fitting:
        names = known if "/" in name else [cls.__name__ for cls in known.values()]
        raise ValueError(
            f"Expected the name of an explainer, target or baseline class. Received: {name!r}. "
            f"{nearest(name, names)} If it is a class of your own, import its module first."
        )
    return known[fitting[0]].from_config(description.get("config", {}))


def known_classes(base: type) -> dict[str, Any]:
    """The concrete subclasses of `base` by name: the package's own, and those defined elsewhere."""
    _load_home("explainers")
    return {cls.__name__: cls for cls in _concrete(base)}


def _load_home(home: str) -> None:
    """Loads the package's own classes of a kind: a class is known once its module is loaded."""
    for name in ("explainers", home):
        if name.isidentifier() and find_spec(f"keras_explain.{name}"):
            import_module(f"keras_explain.{name}")


def _concrete(base: type) -> list[Any]:
    """The subclasses that can be made; of two that were defined under one name, the later last."""
    found: list[Any] = []
    cls: Any
    for cls in base.__subclasses__():
        if not getattr(cls, "__abstractmethods__", None) and not cls.__name__.startswith("_"):
            found.append(cls)
        found += _concrete(cls)
    return found


def _is_array(value: Any) -> bool:
    return arrays.is_array(value) and not isinstance(value, Config)


def _freeze(value: Any, name: str) -> Any:
    if isinstance(value, keras.Layer):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and _is_frozen(value):
        return value
    if arrays.is_table(value):
        value = arrays.named_columns(value, name) or value  # a model takes one array, or each
    if _is_array(value):
        array = np.array(arrays.plain(value, name))
        array.setflags(write=False)
        return array
    if isinstance(value, dict):
        return {key: _freeze(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item, f"{name}[{i}]") for i, item in enumerate(value))
    return value


def _is_frozen(array: np.ndarray) -> bool:
    plain = array.dtype.kind in "biufU" and array.dtype.isnative
    return plain and array.flags.owndata and not array.flags.writeable


def _describe(value: Any, of_array: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, Config):
        return value._describe(of_array)
    if isinstance(value, np.ndarray):
        return of_array(value)
    if isinstance(value, dict):
        return ("dict", *((key, _describe(item, of_array)) for key, item in value.items()))
    if isinstance(value, tuple):
        return ("tuple", *(_describe(item, of_array) for item in value))
    return (type(value), value)


def _digest(array: np.ndarray) -> tuple:
    content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
    return (array.shape, array.dtype.str, content)


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value):
        return "(" + ", ".join(map(_show, value)) + ")"
    return repr(value)


def _map_arrays(value: Any, fn: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, Config):
        return value.mapped(lambda _, item: _map_arrays(item, fn))
    if isinstance(value, np.ndarray):
        return fn(value)
    if isinstance(value, dict):
        return {key: _map_arrays(item, fn) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_map_arrays(item, fn) for item in value)
    return value


def _plain_fields(config: Config, array: Callable, function: Callable) -> dict[str, Any]:
    return {name: _plain(value, array, function) for name, value in config._items()}


def _plain(value: Any, array: Callable, function: Callable) -> Any:
    if isinstance(value, Config):
        return serialize(value, array, function)
    if isinstance(value, np.ndarray):
        return array(value)
    if isinstance(value, dict):
        return {key: _plain(item, array, function) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item, array, function) for item in value]
    return function(value) if callable(value) else value


def _plain_array(array: np.ndarray) -> dict[str, Any]:
    dtype = array.dtype.str if array.dtype.kind == "U" else array.dtype.name
    return {"class_name": "array", "config": {"value": array.tolist(), "dtype": dtype}}


def _deserialize(value: Any) -> Any:
    if _is_array(value) or callable(value):
        return value
    if isinstance(value, dict) and value.get("class_name") == "array":
        return np.array(value["config"]["value"], dtype=value["config"]["dtype"])
    if isinstance(value, dict) and value.get("class_name") == "function":
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, dict) and set(value) == {"class_name", "config"}:
        return deserialize(value)
    if isinstance(value, dict):
        return {key: _deserialize(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_deserialize(item) for item in value]
    return value
