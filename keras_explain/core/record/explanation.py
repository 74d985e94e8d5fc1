"""`Explanation`: what an explainer returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import tree

from keras_explain.core.config import deserialize, serialize
from keras_explain.core.record import archive
from keras_explain.core.record import rows as rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explain.core.explainer import Explainer
    from keras_explain.core.model.targets import Target

Nest = Any
FORMAT = 2  # 1 named classes without their homes


@dataclass(frozen=True, eq=False)
class Explanation:
    """The attributions of a batch, raw and signed, with all that they were made from.

    `len`, an index, a slice, a mask and iteration go over the samples, and `np.asarray` gives the
    values.

    Attributes:
        values: float32 `[B, ...]`: of the input's shape (`[B, H, W, C]`), `[B, H, W]` for class
            activation maps, `[B, T]` for token ids; `[B, K, ...]` where the target was `[B, K]`. A
            nest of arrays where the input is one.
        scores: float32 `[B]` (or `[B, K]`): the explained score, a logit for a class.
        target: The `Target`, with what was explained in `target.index`, ints `[B]` (or `[B, K]`).
        x: The input.
        explainer: The `Explainer`.
        extras: More arrays `[B, ...]` by name, such as `"convergence_delta"`. Always `"reliable"`,
            booleans of the scores' shape in the nest of the values: False where float32 can't tell
            any value from zero, beside the size of the score.
        units: The number of units of the explained output, where it is known; a binary head has 1.
        channels: For each leaf of `x` the axis of its channels: -1, 1, or 2 where time is before
            them; None where it has none. Of an explanation without it (of an old file, or made by
            hand) it is as Keras is configured.
        over: Where the values are no nest like `x`: the position of the leaf of `x` that they lie
            over, a map of a layer, or values at one. None where they are of no single input.
        layer_channels: Of values at a layer, the axis of its channels.
    """

    values: Nest
    scores: np.ndarray
    target: Target
    x: Nest
    explainer: Explainer
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    units: int | None = None
    channels: tuple[int | None, ...] | None = None
    over: int | None = None
    layer_channels: int | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Explanation:
        """The explanation of one sample or of some, copied; it keeps the axis B.

        So `explanation[0]` is an explanation of one sample, that can be drawn, saved and joined as
        any other; its bare values are `explanation.values[0]`. What the target and the explainer
        have for each sample (classes, baselines, label maps) is cut too.

        Args:
            rows: An int, a slice, a mask of booleans `[B]`, or an array of ints.

        Raises:
            IndexError: There is no such sample.

        Example:
            `explanation[explanation.scores < 0].plot()`
        """
        return rows_of.taken(self, rows_of.picked(rows, len(self)))

    def __iter__(self) -> Iterator[Explanation]:
        """The samples one by one, each an explanation with B = 1."""
        return (self[i] for i in range(len(self)))

    @staticmethod
    def join(parts: Iterable[Explanation]) -> Explanation:
        """One explanation of the samples of several, in their order.

        Args:
            parts: Explanations by one explainer, of one kind of target and of inputs of one shape,
                such as those of `Explainer.stream`.

        Raises:
            ValueError: There are none, or they differ in more than their samples: the explainer,
                the target's kind, shapes (of texts of other lengths), names of extras.
            TypeError: One of them is no explanation.

        Example:
            `kx.Explanation.join(explainer.stream(model, batches))`
        """
        return rows_of.joined(list(parts))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, for `np.asarray`.

        Raises:
            TypeError: They are a nest of arrays.
        """
        if not isinstance(self.values, np.ndarray):
            names = ", ".join(map(repr, self.values)) if isinstance(self.values, dict) else "a list"
            raise TypeError(
                "Expected an explanation of one input, to make an array of its values. "
                f"Received: values of several ({names}). Take one: `explanation.values[...]`."
            )
        return np.array(self.values, dtype, copy=copy)

    def __repr__(self) -> str:
        shapes = tree.map_structure(lambda leaf: leaf.shape, self.values)
        return f"Explanation({self.explainer}, values={shapes}, target={self.target})"

    def plot(self, kind: str | None = None, **options: Any) -> Figure:
        """A matplotlib figure: pictures, rows of a table, text or series, as the input is.

        Args:
            kind: What the input is taken for: `"picture"`, `"table"`, `"text"` or `"series"`. By
                default, its shape and dtype say.
            **options: As `keras_explain.plots.plot` takes: `class_names`, `show`, `feature_names`,
                `vocabulary`, ...

        Raises:
            ValueError: The input can't be drawn, or not so.
        """
        from keras_explain import plots

        return plots.plot(self, kind, **options)  # type: ignore[arg-type]

    def _repr_html_(self) -> str | None:
        """Token ids as coloured words, in notebooks; None for anything else, which has a repr."""
        from keras_explain import plots

        return plots.to_html(self)

    def to_shap(self, feature_names: Any = None, class_names: Any = None) -> Any:
        """A `shap.Explanation`, which `shap.plots` draws (`waterfall`, `beeswarm`, `text`, ...).

        Values are float64. K targets are shap's outputs, an axis at the end, named by class.
        `base_values` are 0 where the method measures from none. The values of a method that is
        additive still add up: several places that are one feature are one column of a table or
        series, named `"a + b"`, whose number is their mean (of one-hot columns the position of the
        1), and share its value equally in pictures. Maps `[B, H, W]` become `[B, H, W, 1]`,
        pictures bytes as `plot` shows them, and tokens words.

        Args:
            feature_names: A name for each column, or a dict of these by input.
            class_names: A sequence or dict of the classes' names.

        Returns:
            A `shap.Explanation`; of several inputs a dict by input name, whose values add up
            together (inputs in a list are named "0", "1", ...).

        Raises:
            ImportError: The shap package is not installed.
            ValueError: The values are not those of the input or its places.
        """
        from keras_explain.plots.to_shap import to_shap

        return to_shap(self, feature_names, class_names)

    def save(self, path: str | Path) -> None:
        """Writes the explanation to an `.npz` file, which `Explanation.load` reads.

        Of a function in the target or the explainer only the name is kept, unless it is registered
        with `keras.saving.register_keras_serializable`.

        Raises:
            ValueError: `path` does not end in `.npz`, or the parts do not fit together.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Expected a path that ends in '.npz'. Received: {str(path)!r}.")
        _check(self)
        arrays: dict[str, np.ndarray] = {"scores": self.scores}

        def filed(array: np.ndarray) -> dict[str, Any]:
            name = f"configuration/{len(arrays)}"
            arrays[name] = array
            return {"filed array": name}

        header = {
            "format": FORMAT,
            "explainer": serialize(self.explainer, filed, _named),
            "target": serialize(self.target, filed, _named),
            "values": _store("values", self.values, arrays),
            "x": _store("x", self.x, arrays),
            "extras": _store("extras", self.extras, arrays),
            "units": self.units,
            "channels": self.channels,
            "over": self.over,
            "layer_channels": self.layer_channels,
        }
        archive.write(path, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads an explanation that `save` wrote.

        Whatever the file holds, no code of it is run, and what is read is checked.

        Raises:
            OSError: The file can't be opened.
            ValueError: It is no explanation, broken, or of a later format.
        """
        try:
            return _explanation(cls, *archive.read(path))
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # of the file as a whole
            what = str(error) if isinstance(error, ValueError) else repr(error)
            raise ValueError(
                f"Expected a file written by Explanation.save. Received: {str(path)!r}. {what}"
            ) from error


def _explanation(
    cls: type[Explanation], header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Explanation:
    if type(header.get("format")) is not int or header["format"] > FORMAT:
        raise ValueError(
            f"Expected format {FORMAT} or before. Received: format {header.get('format')!r}. "
            "Update keras-explanations to read a later one."
        )
    made = cls(
        values=_restore("values", header["values"], arrays),
        scores=arrays["scores"],
        target=deserialize(_refiled(header["target"], arrays)),  # type: ignore[arg-type]
        x=_restore("x", header["x"], arrays),
        explainer=deserialize(_refiled(header["explainer"], arrays)),  # type: ignore[arg-type]
        extras=_restore("extras", header["extras"], arrays),
        units=header.get("units"),
        channels=None if header.get("channels") is None else tuple(header["channels"]),
        over=header.get("over"),
        layer_channels=header.get("layer_channels"),
    )
    _check(made)
    return made


def _check(explanation: Explanation) -> None:
    """Raises a `ValueError` where the parts of an explanation do not fit together."""
    from keras_explain.core.explainer import Explainer
    from keras_explain.core.model.targets import Target

    scores, units = explanation.scores, explanation.units
    _expect("an explainer", isinstance(explanation.explainer, Explainer), explanation.explainer)
    _expect("a target", isinstance(explanation.target, Target), explanation.target)
    _expect("extras by name", isinstance(explanation.extras, dict), explanation.extras)
    _expect("units as a number", units is None or (type(units) is int and units > 0), units)
    fits = _is_float(scores) and scores.ndim in (1, 2)
    _expect("float scores [B] or [B, K]", fits, scores)
    values = tree.flatten(explanation.values)
    _expect("values", len(values) > 0, explanation.values)
    for value in values:
        fits = _is_float(value) and value.shape[: scores.ndim] == scores.shape
        _expect(f"float values for scores of shape {scores.shape}", fits, value)
    for leaf in tree.flatten((explanation.x, explanation.extras)):
        fits = np.shape(leaf)[:1] == scores.shape[:1]
        _expect(f"inputs and extras of {len(scores)} rows", fits, leaf)
    if len(scores):
        explanation.target.rows(len(scores))
    leaves, channels, over = tree.flatten(explanation.x), explanation.channels, explanation.over
    fits = channels is None or (len(channels) == len(leaves) and _AXES.issuperset(channels))
    _expect("an axis of channels for each input", fits, channels)
    _expect("an axis of channels", explanation.layer_channels in _AXES, explanation.layer_channels)
    fits = over is None or (type(over) is int and 0 <= over < len(leaves))
    _expect("the position of an input", fits, over)


_AXES = frozenset({-1, 1, 2, None})


def _is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def _expect(expected: str, fits: bool, received: Any) -> None:
    if not fits:
        shown = (
            f"{received.dtype}{list(received.shape)}" if hasattr(received, "shape") else received
        )
        raise ValueError(f"Expected {expected}. Received: {shown!s:.80}.")


def _named(function: Callable[..., Any]) -> dict[str, Any]:
    registered = keras.saving.get_registered_object(keras.saving.get_registered_name(function))
    if registered is function:
        return keras.saving.serialize_keras_object(function)
    return {"lost function": getattr(function, "__qualname__", repr(function))}


def _refiled(description: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A description with the arrays that were filed, and stand-ins for functions that were not."""
    if isinstance(description, list):
        return [_refiled(item, arrays) for item in description]
    if not isinstance(description, dict):
        return description
    if set(description) == {"filed array"}:
        return arrays[description["filed array"]]
    if set(description) == {"lost function"}:
        return _LostFunction(str(description["lost function"]))
    if description.get("class_name") == "function":
        return _registered(description)
    return {key: _refiled(item, arrays) for key, item in description.items()}


def _registered(description: dict[str, Any]) -> Any:
    """A function that is registered; no module is imported because a file says so."""
    name = str(description.get("config"))
    return keras.saving.get_registered_object(name) or _LostFunction(name)


@dataclass(frozen=True)
class _LostFunction:
    """Stands for a function of which only the name was saved, or that is not registered."""

    name: str

    def __call__(self, *args: Any) -> Any:
        raise ValueError(
            f"The function {self.name!r} was not saved with the explanation, or is not registered: "
            "import the module that registers it before loading, or make a new target or "
            "explainer with it to explain again."
        )


def _store(name: str, nest: Nest, arrays: dict[str, np.ndarray]) -> Any:
    """Files the arrays of a nest under names, and describes the nest with them in their places."""
    if isinstance(nest, dict):
        items = {key: _store(f"{name}/{key}", item, arrays) for key, item in nest.items()}
        return ["dict", items]
    if isinstance(nest, (list, tuple)):
        parts = [_store(f"{name}/{i}", item, arrays) for i, item in enumerate(nest)]
        return ["tuple" if isinstance(nest, tuple) else "list", parts]
    while name in arrays:  # keys with slashes may give one name twice
        name += "_"
    arrays[name] = nest
    return name


def _restore(field: str, described: Any, arrays: dict[str, np.ndarray]) -> Nest:
    if isinstance(described, str):
        if described.partition("/")[0] != field:
            raise ValueError(f"Its header has the array {described!r} for {field!r}.")
        return arrays[described]
    kind, items = described
    if kind == "dict":
        return {key: _restore(field, item, arrays) for key, item in items.items()}
    parts = [_restore(field, item, arrays) for item in items]
    return {"tuple": tuple, "list": list}[kind](parts)
