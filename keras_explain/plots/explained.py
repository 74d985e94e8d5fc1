"""What the figures need of an explanation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from keras_explain.core.data.kinds import Kind
from keras_explain.core.data.layout import Layout
from keras_explain.core.model.targets import Class, Region
from keras_explain.plots import notes, ranges, render
from keras_explain.plots.places import layer_of, layouts_of, matches, over_pictures, pairs_of
from keras_explain.plots.sheet import number

if TYPE_CHECKING:
    from keras_explain.core.record.explanation import Explanation

ToImage = Callable[[Any], Any] | None
ClassNames = Sequence[str] | Mapping[int, str] | None
FeatureNames = Sequence[str] | Mapping[str, Sequence[str]] | None
Caption = tuple[str, str]  # class, score

RANKS: dict[Kind, tuple[int, ...]] = {
    "picture": (3, 4),
    "table": (1, 2),
    "tokens": (2,),
    "series": (2, 3),
}
"""Of which ranks an input can be drawn as a kind, where the user says which."""


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """The first samples of one input of an explanation: n samples, K targets each."""

    kind: Kind
    name: str  # of the input among several; "" of the only one
    layout: Layout  # of the input as it was given
    given: npt.NDArray[Any]  # [n, ...]
    values: npt.NDArray[np.float32]  # [n * K, ...], the channels last
    classes: list[str]  # [n * K]; "" where the target names no class or unit
    scores: npt.NDArray[np.float32]  # [n * K]
    targets: int  # K
    elsewhere: npt.NDArray[np.float64] | None  # [n * K]: the sum of the values of other inputs
    base_values: npt.NDArray[np.float32] | None  # [n * K]
    reliable: npt.NDArray[np.bool_]  # [n * K]
    gaps: npt.NDArray[np.float64] | None  # [n * K]: what the values leave unexplained
    errors: npt.NDArray[np.float64] | None  # [n * K]: by which share they are off
    features: npt.NDArray[Any] | None  # [n * K, ...]: the feature of each place, -1 for none
    words: npt.NDArray[Any] | None  # [n, T]
    is_signed: bool  # whether signs say what raises the score and what lowers it

    def __str__(self) -> str:
        return f"inputs {self.x.shape} with {self.targets} target(s)"

    @functools.cached_property
    def x(self) -> npt.NDArray[Any]:
        """The input with its channels last, `[n, ...]`."""
        return self.given if self.layout.channels is None else self.layout.last(self.given)

    @functools.cached_property
    def maps(self) -> render.Maps:
        """The values of pictures, summed over channels, `[n * K, H, W]`."""
        return render.to_maps(self.values)

    @property
    def told(self) -> npt.NDArray[np.float32]:
        """The values of the rows that can be told from zero, of which colour scales are made."""
        return self.values[self.reliable]

    @property
    def told_maps(self) -> render.Maps:
        """The maps of these rows."""
        return self.maps[self.reliable]

    def captions(self) -> list[Caption]:
        """Class and score of each row, and gap and error where they are large."""
        return [
            (name, _joined(number(score), *self._shares(row)))
            for row, (name, score) in enumerate(zip(self.classes, self.scores, strict=True))
        ]

    def _shares(self, row: int) -> tuple[str, str]:
        known = self.reliable[row]
        shares = (None if of is None or not known else of[row] for of in (self.gaps, self.errors))
        return notes.of_shares(*shares)

    def notes(self) -> list[str]:
        """What is said in place of values that can't be told from zero; "" of all others."""
        pairs = zip(self.reliable, self.values, strict=True)
        return ["" if known else notes.unreliable(values) for known, values in pairs]

    def numbered_captions(self) -> list[Caption]:
        """The same with notes, and with the sample where several have several targets each."""
        several = self.targets > 1 and len(self.scores) > self.targets
        return [
            (_joined(f"sample {self.sample(row)}" if several else "", name), _joined(score, note))
            for row, ((name, score), note) in enumerate(
                zip(self.captions(), self.notes(), strict=True)
            )
        ]

    def pictures(self, to_image: ToImage) -> render.Pictures:
        """The inputs as pictures, each K times, `[n * K, H, W, 3]`."""
        pictures = ranges.to_uint8(self.given, to_image, self.layout)
        return pictures.repeat(self.targets, axis=0)

    def sample(self, row: int) -> int:
        """The sample of a row."""
        return row // self.targets


def opened(explanation: Explanation, max_samples: int, class_names: ClassNames) -> Explained:
    """Takes the first samples of the one input that is pictures.

    Raises:
        ValueError: If it is not an explanation of pictures.
    """
    inputs = every_input(explanation, max_samples, class_names)
    pictures = [explained for explained in inputs if explained.kind == "picture"]
    if len(pictures) == 1:
        return pictures[0]
    raise ValueError(
        "Expected an explanation of one input of pictures: x of shape [B, H, W, C] or [B, H, W] "
        "(sides of at least 8) and values of that shape or [B, H, W], with an axis K after B for "
        f"K targets. Received: {_shapes(explanation)}. {_advice(explanation)}"
    )


def opened_together(
    explanations: Mapping[Any, Explanation], max_samples: int, class_names: ClassNames
) -> dict[Any, Explained]:
    """Opens several explanations of the same pictures and the same number of targets.

    Raises:
        ValueError: If one is not of pictures, and as `together` does.
    """
    every = {key: opened(e, max_samples, class_names) for key, e in explanations.items()}
    together(every)
    return every


def together(every: Mapping[Any, Explained]) -> None:
    """Checks that explanations can stand in the same rows.

    Raises:
        ValueError: If there is none, or one has other inputs or another number of targets than the
            first.
    """
    if not every:
        raise ValueError("Expected at least one explanation to draw. Received: none.")
    (name, first), *others = every.items()
    for other_name, other in others:
        if other.targets != first.targets or not np.array_equal(other.x, first.x):
            raise ValueError(
                "Expected explanations of the same inputs (equal in value and order), with as many "
                "targets each. Received: "
                f"{name!r} of {first} and {other_name!r} of {other}."
            )


def every_input(
    explanation: Explanation,
    max_samples: int,
    class_names: ClassNames,
    kind: Kind | None = None,
    feature_names: FeatureNames = None,
) -> list[Explained]:
    """Takes the first samples of each input that has values of its own.

    Args:
        explanation: An explanation.
        max_samples: How many samples are taken at most.
        class_names: A name for each class.
        kind: What the inputs are taken for; those which can't be are left out. By default each
            input says itself.
        feature_names: Names of columns: whole numbers with names are no token ids.

    Raises:
        ValueError: If there is no sample or no such input, or one array of values that may be of
            several.
    """
    if not len(explanation):
        raise ValueError("Expected an explanation of at least one sample. Received: one of none.")
    if max_samples < 1:
        raise ValueError(f"Expected `max_samples` of 1 or more. Received: {max_samples}.")
    over = over_pictures(explanation)
    kinds = kinds_of(explanation, kind, feature_names)
    if not any(kinds):
        raise ValueError(_nothing_fits(explanation, kind))
    places = [place for place, of in enumerate(kinds) if of is not None]
    classes = _classes(over, max_samples, class_names)
    return [_one_input(over, place, kinds[place], max_samples, classes) for place in places]


def kinds_of(
    explanation: Explanation, kind: Kind | None = None, feature_names: FeatureNames = None
) -> list[Kind | None]:
    """The kind of each input; None where it has no values of its own, or can't be of that kind."""
    over = over_pictures(explanation)
    by_target, at_layer = np.ndim(over.scores) == 2, layer_of(over) is not None
    kinds, leaves = _kinds(over, kind, feature_names), len(keras.tree.flatten(over.values))
    if leaves not in (1, len(kinds)):
        return [None] * len(kinds)
    parts = zip(pairs_of(over.x, over.values), kinds, layouts_of(over), strict=True)
    fitting = [
        of is not None
        and over.over in (None, place)
        and matches(x, values, by_target, _as(of, layout))
        and not (at_layer and x.ndim < 3)
        for place, ((x, values), of, layout) in enumerate(parts)
    ]
    unclear = sum(fitting) > leaves
    return [of if fits and not unclear else None for of, fits in zip(kinds, fitting, strict=True)]


def _one_input(
    explanation: Explanation, place: int, kind: Any, max_samples: int, classes: list[str]
) -> Explained:
    pairs = pairs_of(explanation.x, explanation.values)
    x, values = pairs[place]
    scores = np.asarray(explanation.scores)
    rows = functools.partial(_rows, scores=scores, max_samples=max_samples)
    layout = _as(kind, layouts_of(explanation)[place])
    base_values = explanation.extras.get("base_values")
    features = _features(explanation, place, values)
    words = _words(explanation, place, x)
    others = [i for i in range(len(pairs)) if i != place and values is not pairs[i][1]]
    elsewhere = [
        _sums(rows(pairs[i][1]), rows(_features(explanation, i, pairs[i][1]))) for i in others
    ]
    return Explained(
        kind=kind,
        name=_names(explanation.x)[place],
        layout=layout,
        given=x[:max_samples],
        values=_channels_last(rows(values), layout),
        classes=classes,
        scores=rows(scores),
        targets=scores.size // len(scores),
        elsewhere=np.sum(elsewhere, axis=0) if elsewhere else None,
        base_values=rows(base_values),
        reliable=rows(notes.reliable(explanation, _part(place, explanation))),
        gaps=rows(notes.completeness_gaps(explanation)),
        errors=rows(notes.errors(explanation, _part(place, explanation))),
        features=None if features is None else _channels_last(rows(features), layout),
        words=None if words is None else words[:max_samples],
        is_signed=explanation.explainer.plan.signed,
    )


def _part(place: int, explanation: Explanation) -> int:
    """The position of an input's values in their nest; one array goes with every input."""
    return place if len(keras.tree.flatten(explanation.values)) > 1 else 0


def _joined(*parts: str) -> str:
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)


def _as(kind: Kind, layout: Layout) -> Layout:
    """The layout of what is taken for a kind: `[B, A, C]` may be pictures, or series."""
    if layout.rank != 3 or layout.kind() == kind:
        return layout
    return Layout(3, None if kind == "picture" else -1)


def _channels_last(rows: Any, layout: Layout) -> Any:
    """Values `[n * K, ...]` of an input's shape or of its places, with the channels last."""
    return layout.last(rows) if layout.channels is not None and rows.ndim == layout.rank else rows


def _rows(array: Any, scores: Any, max_samples: int) -> Any:
    """Rows `[n * K, ...]` of `[B, ...]` or `[B, K, ...]`."""
    if array is None:
        return None
    first = array[:max_samples]
    return first.reshape(-1, *first.shape[scores.ndim :])


def _kinds(
    explanation: Explanation, kind: Kind | None, feature_names: FeatureNames
) -> list[Kind | None]:
    """What each input is by its shape and dtype, or is said to be."""
    inputs, names = list(map(np.asarray, keras.tree.flatten(explanation.x))), _names(explanation.x)
    if kind is not None:
        return [kind if x.ndim in RANKS[kind] else None for x in inputs]
    tables = any(x.ndim == 2 and x.dtype.kind not in "iu" for x in inputs)

    def are_tokens(place: int, x: Any) -> bool:
        if x.ndim == 2 and _words(explanation, place, x) is not None:
            return True
        if isinstance(feature_names, Mapping):
            named = names[place] in feature_names
        else:
            named = feature_names is not None and not tables
        return x.ndim == 2 and x.dtype.kind in "iu" and not named

    layouts = layouts_of(explanation)
    return [layouts[i].kind(are_tokens=are_tokens(i, x)) for i, x in enumerate(inputs)]


def _words(explanation: Explanation, place: int, x: Any) -> Any:
    """The words `[B, T]` of token ids; of several texts, the input's name is in the extra's."""
    extras, name = explanation.extras, _names(explanation.x)[place]
    words = extras.get(f"tokens_{name}", extras.get("tokens"))
    return words if words is not None and words.shape == x.shape else None


def _features(explanation: Explanation, place: int, values: Any) -> Any:
    """The number of the feature of each of an input's values; None where each is its own."""
    parts = keras.tree.flatten(explanation.extras.get("features", []))
    several = len(parts) == len(keras.tree.flatten(explanation.x))
    return parts[place] if several and np.shape(parts[place]) == values.shape else None


def _names(x: Any) -> list[str]:
    """The path of each input in its nest; "" of the only one."""
    paths = [path for path, _ in keras.tree.flatten_with_path(x)]
    return ["/".join(map(str, path)) for path in paths]


def _sums(values: Any, features: Any) -> npt.NDArray[np.float64]:
    """The sum of the values of each row; places that are one feature count once."""
    weights = 1.0 if features is None else render.shares_of(features)
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    return (finite * weights).reshape(len(values), -1).sum(axis=1)


def _nothing_fits(explanation: Explanation, kind: Kind | None) -> str:
    what = "an input that can be drawn" if kind is None else f"an input of {_SHAPES[kind]}"
    return (
        f"Expected {what}, with values of its shape or of its places, and an axis K after B for "
        f"K targets. Received: {_shapes(explanation)}. {_advice(explanation)}"
    )


_SHAPES: dict[Kind, str] = {
    "picture": "pictures, [B, H, W, C] or [B, H, W]",
    "table": "rows of a table, [B, F]",
    "tokens": "token ids, [B, T]",
    "series": "series, [B, T, C] or [B, T]",
}


def _shapes(explanation: Explanation) -> str:
    pairs = pairs_of(explanation.x, explanation.values)
    return ", ".join(f"x {np.shape(x)} with values {np.shape(v)}" for x, v in pairs)


def _advice(explanation: Explanation) -> str:
    layer = layer_of(explanation)
    if layer is not None:
        return (
            f"The values are at layer {layer!r}; they can be drawn over pictures, where the layer "
            "has one output of maps, [B, h, w, C]."
        )
    if keras.tree.is_nested(explanation.x):
        return (
            "Of a model with several inputs, plot one at a time: "
            "`dataclasses.replace(explanation, x=explanation.x[0], values=explanation.values[0], "
            "channels=explanation.channels[:1])`."
        )
    return "`kind` says what an input is taken for."


def _classes(explanation: Explanation, max_samples: int, class_names: ClassNames) -> list[str]:
    """What each score of the first samples is of, by name or number, `[n * K]`.

    The only unit of a binary head speaks for the second of two classes.
    """
    target, shape = explanation.target, np.shape(explanation.scores)
    if target.index is None:
        return [""] * np.zeros(shape)[:max_samples].size
    if explanation.units == 1 and type(target) is Class:
        two = class_names is not None and len(class_names) == 2
        name = _class(1, class_names, "class") if two else _class(0, class_names, "unit")
        return [name] * np.zeros(shape)[:max_samples].size
    word = "class" if isinstance(target, (Class, Region)) else "unit"
    indices = np.broadcast_to(target.index, shape)[:max_samples].flat
    return [_class(int(index), class_names, word) for index in indices]


def _class(index: int, class_names: ClassNames, word: str) -> str:
    if isinstance(class_names, str) or not hasattr(class_names or (), "__len__"):
        raise TypeError(
            "Expected `class_names` as a list, or a dict by number. "
            f"Received: {type(class_names).__name__}, {class_names!r}."
        )
    if class_names is None or (isinstance(class_names, Mapping) and index not in class_names):
        return f"{word} {index}"
    if not isinstance(class_names, Mapping) and index >= len(class_names):
        raise ValueError(
            f"Expected a name for every class. Received: {len(class_names)} class names, and an "
            f"explanation of class {index}."
        )
    return str(class_names[index])
