"""Features: the parts of an input that are hidden or seen as one.

An explainer's `features=` takes one of the objects below, or (for several inputs) a list, tuple or
dict of these; `groups=[0, 0, 1]` is short for `Columns(groups=[0, 0, 1])`.
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.config import Config
from keras_explain.core.data.baselines import Baseline, Constant
from keras_explain.core.data.layout import Layout

__all__ = [
    "Columns",
    "Features",
    "Grid",
    "Patches",
    "Pixels",
    "Segments",
    "Tokens",
    "Windows",
]

Nest = Any
Labels = np.ndarray  # int32 [B, ...]: the number of each place's feature, -1 where it is none's


class Features(Config, abc.ABC, kw_only=False):
    """How an input is cut into features. Subclasses define `numbered`.

    A *place* is a position of a picture, series or volume with all its channels, or a number of a
    table. Features see inputs with the channels last, wherever the model has them.
    """

    home = "features"

    @abc.abstractmethod
    def numbered(self, x: np.ndarray) -> Labels:
        """The number of each place's feature, from 0 on in each sample; -1 for none.

        Args:
            x: One input, `[B, F]`, or `[B, *places, C]`; where there are no channels, C is 1.

        Returns:
            int32 `[B, *places]`: of the shape of `x`, or without its channels.
        """

    @property
    def joins(self) -> bool:
        """Whether a feature can be of several places."""
        return True

    @property
    def fill(self) -> Baseline | None:
        """What takes the place of hidden features, where that is not the explainer's to say."""
        return None

    def check(self, x: np.ndarray) -> None:
        """Raises a `ValueError` where the features do not suit an input, as in `numbered`."""

    def laid(self, layout: Layout) -> "Features":
        """The features, with what is given like an input of that layout in that of `numbered`."""
        return self


class Columns(Features, kw_only=False):
    """Numbers of a table, each a feature or together in groups, such as one-hot columns.

    Args:
        groups: For each number of a sample the group that it is of, ints of one sample's shape (or
            without its channels); -1 for what is never hidden. By default each is its own.

    Example:
        `kx.features.Columns(groups=[0, 1, 2, 2, 2])`: the last three are a one-hot category.
    """

    groups: Any = None

    def __post_init__(self) -> None:
        if self.groups is not None:
            object.__setattr__(self, "groups", _whole_numbers(self.groups, "groups"))
        super().__post_init__()

    @property
    def joins(self) -> bool:
        return self.groups is not None

    def laid(self, layout: Layout) -> Features:
        if self.groups is None or layout.channels is None or self.groups.ndim < layout.rank - 1:
            return self
        return Columns(layout.last(self.groups[None])[0])

    def numbered(self, x: np.ndarray) -> Labels:
        groups = self.groups
        if groups is None:
            groups = np.arange(x[0].size).reshape(x.shape[1:])
        return _for_each(_renumbered(groups), x)

    def check(self, x: np.ndarray) -> None:
        if self.groups is None:
            return
        shape = self.groups.shape
        if shape not in (x.shape[1:], places(x.shape)):
            whole = places(x.shape) if x.shape[-1] == 1 else x.shape[1:]
            raise ValueError(
                f"Expected groups of one sample's shape {whole}. Received: groups of shape {shape}."
            )
        if not (self.groups >= 0).any():
            raise ValueError("Expected a group of 0 or more. Received: groups that are all -1.")


class Pixels(Features, kw_only=False):
    """Each place, with all its channels."""

    joins = False

    def numbered(self, x: np.ndarray) -> Labels:
        shape = places(x.shape)
        return _for_each(np.arange(math.prod(shape)).reshape(shape), x)


class Patches(Features, kw_only=False):
    """Blocks of places side by side; at the far edges they may be smaller.

    Args:
        size: The length of a block, or one for each spatial axis, such as `(16, 32)`.
    """

    size: Any = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for length in self.size if isinstance(self.size, tuple) else (self.size,):
            checks.count("size", length)

    def numbered(self, x: np.ndarray) -> Labels:
        return _for_each(_blocks(places(x.shape), per_axis("size", self.size, places(x.shape))), x)

    def check(self, x: np.ndarray) -> None:
        per_axis("size", self.size, places(x.shape))


class Grid(Features, kw_only=False):
    """Blocks of places, so many along each spatial axis, of about equal length.

    Args:
        cells: The number of blocks along each axis (fewer where it is shorter).
    """

    cells: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("cells", self.cells)

    def numbered(self, x: np.ndarray) -> Labels:
        along = [np.arange(n) * min(self.cells, n) // n for n in places(x.shape)]
        return _for_each(_crossed(along), x)


class Windows(Features, kw_only=False):
    """Stretches of a series side by side, with all their channels; the last may be shorter.

    Args:
        length: Their number of time steps; by default a 20th of the series.
    """

    length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None:
            checks.count("length", self.length)

    def numbered(self, x: np.ndarray) -> Labels:
        steps = x.shape[1]
        length = self.length or math.ceil(steps / 20)
        return _for_each(np.arange(steps) // length, x)

    def check(self, x: np.ndarray) -> None:
        if x.ndim not in (2, 3):
            raise ValueError(
                f"Expected series [B, T, C] or [B, T] for Windows. Received: x of shape {x.shape}. "
                "Of pictures and volumes, blocks are `Patches`."
            )


class Segments(Features, kw_only=False):
    """Segments of a picture that are alike in colour (superpixels), or a label map of your own.

    Args:
        method: `"slic"` (about 50 segments by default), `"quickshift"` or `"felzenszwalb"`, as
            scikit-image has them. Each picture is scaled to [0, 1] by its own range for it.
        options: Arguments of the method, such as `{"n_segments": 100, "compactness": 20}`.
        labels: In place of a method: ints `[H, W]`, or one map a sample, `[B, H, W]`; -1 for what
            is never hidden.
    """

    method: Literal["slic", "quickshift", "felzenszwalb"] = "slic"
    options: Any = None
    labels: Any = None

    def __post_init__(self) -> None:
        if self.method not in _OPTIONS:
            raise ValueError(
                f"Expected `method` to be one of {', '.join(map(repr, _OPTIONS))}. "
                f"Received: method={self.method!r}."
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", _whole_numbers(self.labels, "labels"))
        super().__post_init__()

    def numbered(self, x: np.ndarray) -> Labels:
        if self.labels is None:
            return np.stack([_renumbered(self._cut(picture)) for picture in _coloured(x)])
        if self.labels.ndim == 2:
            return _for_each(_renumbered(self.labels), x)
        return np.stack([_renumbered(labels) for labels in self.labels])

    def _cut(self, picture: np.ndarray) -> np.ndarray:
        if not np.isfinite(picture).all():
            raise ValueError(
                "Expected pictures without NaN to cut them into segments. Received: NaN. Give "
                "`features=keras_explain.features.Patches(8)`, or segments as a label map."
            )
        options = tuple(sorted({**_OPTIONS[self.method], **(self.options or {})}.items()))
        what = picture.tobytes(), picture.shape, picture.dtype.str
        return _segments(*what, self.method, options)

    def check(self, x: np.ndarray) -> None:
        size = places(x.shape)
        if x.ndim != 4:
            raise ValueError(
                f"Expected pictures [B, H, W, C] or [B, H, W] to segment. Received: x of shape "
                f"{x.shape}. Of series there are `Windows`, of tables `Columns`, of volumes `Grid`."
            )
        if self.labels is None:
            return
        if self.labels.shape not in (size, (len(x), *size)):
            raise ValueError(
                f"Expected a label map of shape {size}, or one a sample, {(len(x), *size)}. "
                f"Received: labels of shape {self.labels.shape}."
            )
        maps = self.labels if self.labels.ndim == 3 else self.labels[None]
        if any(len(np.unique(labels)) < 2 for labels in maps):
            raise ValueError(
                "Expected a label map with at least two segments. Received: one that is all equal: "
                "nothing in the picture could be told apart."
            )


class Tokens(Features, kw_only=False):
    """Each token of a text, padding apart.

    Args:
        mask: The id that takes the place of a hidden token, such as that of `[MASK]` or `[UNK]`; by
            default the explainer's `baseline` does.
        padding: The id that fills up short texts. It is never hidden, and its values are 0. None
            where no id is padding, as of categories of a table.
        tokenizer: Turns texts into ids `[B, T]`: a built `keras.layers.TextVectorization`, or any
            function of a list of strings. With it, texts are passed as `x`; the explanation's `x`
            are their ids, and `extras["tokens"]` `[B, T]` the words.
        vocabulary: The word of each id, as a sequence, a mapping or a function; by default the
            tokenizer's own `get_vocabulary()`, where it has one.
    """

    mask: int | None = None
    padding: int | None = 0
    tokenizer: Any = None
    vocabulary: Any = None
    joins = False

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, keras.Layer):
            object.__setattr__(self, "tokenizer", LayerTokenizer(self.tokenizer))
        for name in ("mask", "padding"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or int(value) != value):
                raise ValueError(f"Expected `{name}` to be a token id. Received: {name}={value!r}.")
        if self.tokenizer is not None and not callable(self.tokenizer):
            raise TypeError(
                "Expected `tokenizer` to be a TextVectorization layer or a function of a list of "
                f"strings. Received: {self.tokenizer!r}."
            )
        super().__post_init__()

    @property
    def fill(self) -> Baseline | None:
        return None if self.mask is None else Constant(float(self.mask))

    def numbered(self, x: np.ndarray) -> Labels:
        there = np.ones(x.shape, bool) if self.padding is None else x != self.padding
        return np.where(there, np.cumsum(there, axis=1) - 1, -1).astype(np.int32)

    def check(self, x: np.ndarray) -> None:
        if x.ndim != 2:
            raise ValueError(f"Expected token ids [B, T]. Received: x of shape {x.shape}.")

    def ids(self, texts: Any) -> np.ndarray:
        """The ids `[B, T]` of texts, short ones padded at the end.

        Raises:
            ValueError: The tokenizer returns no ids, or not those of every text.
        """
        if self.tokenizer is None:
            raise ValueError(
                "Expected a tokenizer to explain texts: `Tokens(tokenizer=...)` with a "
                "TextVectorization layer or a function of a list of strings to ids [B, T]. "
                "Received: tokenizer=None. Of a model that takes texts itself, explain the part "
                "behind its TextVectorization, with that layer as tokenizer."
            )
        found = self.tokenizer(texts)
        ids = [] if found is None else [np.asarray(row).reshape(-1) for row in found]
        length = max(map(len, ids), default=0)
        if len(ids) != len(texts) or length == 0 or any(row.dtype.kind not in "iuf" for row in ids):
            raise ValueError(
                f"Expected a tokenizer that returns ids [B, T] for {len(texts)} texts. "
                f"Received: {_brief(found)}."
            )
        fill = self.padding or 0
        padded = [np.pad(row, (0, length - len(row)), constant_values=fill) for row in ids]
        return np.stack(padded).astype(np.int32)

    @property
    def known_vocabulary(self) -> Any:
        """The word of each id: the vocabulary, or the tokenizer's own."""
        if self.vocabulary is None and hasattr(self.tokenizer, "get_vocabulary"):
            return self.tokenizer.get_vocabulary()
        return self.vocabulary

    def words(self, ids: np.ndarray) -> np.ndarray:
        """The word of each id, strings of the shape of `ids`; the id itself where none is known."""
        word_of = word_finder(self.known_vocabulary)
        words = ["" if id_ == self.padding else word_of(int(id_)) for id_ in ids.flat]
        return np.array(words, dtype=str).reshape(ids.shape)


def word_finder(vocabulary: Any) -> Callable[[int], str]:
    """A function of an id to its word, of a sequence, a mapping or a function; None spells ids."""
    if vocabulary is None:
        return str
    if callable(vocabulary):
        return lambda id_: str(vocabulary(id_))
    if not hasattr(vocabulary, "get"):
        vocabulary = dict(enumerate(vocabulary))
    return lambda id_: str(vocabulary.get(id_, id_))


class LayerTokenizer:
    """A tokenizer that is a layer: a configuration would keep its name alone."""

    def __init__(self, layer: keras.Layer) -> None:
        self.layer = layer
        self.__name__ = self.__qualname__ = layer.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerTokenizer) and other.layer is self.layer

    def __hash__(self) -> int:
        return id(self.layer)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.layer(keras.ops.convert_to_tensor(texts)))

    def get_vocabulary(self) -> list[str]:
        """The words by id, where the layer has them."""
        return self.layer.get_vocabulary()


# What a user gives


def default(x: np.ndarray) -> Features:
    """The features of an input, other than token ids and as in `numbered`, by default."""
    by_axes = {1: Columns, 2: Columns, 3: Windows, 4: Segments}
    return by_axes[x.ndim]() if x.ndim in by_axes else Grid(4)


def per_input(features: Any, groups: Any, x: Nest) -> list[Features | None]:
    """What a user gave as features of each leaf of `x`; None where nothing was said.

    Raises:
        ValueError: Both `features` and `groups` are given, or not one for each input.
        TypeError: They are not features.
    """
    if features is not None and groups is not None:
        raise ValueError(
            "Expected `features`, or `groups` for `features=Columns(groups=...)`. Received: both."
        )
    leaves = tree.flatten(x)
    if groups is not None:
        nested = len(leaves) > 1 or isinstance(groups, dict)
        parts = _matched(groups, x) if nested else [groups]
        return [None if part is None else Columns(part) for part in parts]
    parts = _matched(features, x) if isinstance(features, (dict, tuple, list)) else [features]
    for part in parts:
        if part is not None and not isinstance(part, Features):
            raise TypeError(
                "Expected features: an object of `keras_explain.features`, or one for each input. "
                f"Received: {_brief(part)}. Numbers of groups are `groups=`; a label map is "
                "`keras_explain.features.Segments(labels=...)`."
            )
    return parts if len(parts) == len(leaves) else parts * len(leaves)


def encoded(x: Any, features: Any) -> tuple[Nest, dict[str, np.ndarray]]:
    """An input with its texts as token ids, and the words, `{"tokens": [B, T]}`."""
    if isinstance(x, str):
        raise ValueError(f"Expected a list of texts. Received: one text. Explain `[{_brief(x)}]`.")
    if _are_texts(x):
        tokens = features if isinstance(features, Tokens) else Tokens()
        ids = tokens.ids([_as_str(text) for text in backend.to_numpy(x).reshape(-1)])
        return ids, {"tokens": tokens.words(ids)}
    if isinstance(x, dict):
        keys = list(x)
    elif isinstance(x, (list, tuple)):
        keys = list(range(len(x)))
    else:
        return x, {}
    if not any(_are_texts(x[key]) for key in keys):
        return x, {}
    new: dict[Any, Any] = {}
    extras: dict[str, np.ndarray] = {}
    for key in keys:
        new[key], more = encoded(x[key], _part(features, key))
        extras |= {name if name not in extras else f"{name}_{key}": v for name, v in more.items()}
    return (new if isinstance(x, dict) else type(x)(new.values())), extras


def _part(features: Any, key: Any) -> Any:
    if isinstance(features, dict):
        return features.get(key)
    many = isinstance(features, tuple) and isinstance(key, int) and key < len(features)
    return features[key] if many else features


def _are_texts(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, str) for item in value)
    if not hasattr(value, "dtype"):
        return False
    if value.dtype == "string":  # of TensorFlow, and of pandas
        return True
    if getattr(value.dtype, "kind", "") not in ("U", "S", "O"):
        return False
    return all(isinstance(item, (str, bytes)) for item in np.asarray(value).flat)


def _as_str(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


def _matched(given: Any, x: Nest) -> list[Any]:
    """Of a nest of one part for each input, the parts in the order of the inputs."""
    if isinstance(given, dict) and isinstance(x, dict) and set(given) <= set(x):
        given = {key: given.get(key) for key in x}
    checks.same_names("features", given, x)
    if not isinstance(given, (dict, tuple, list)):
        raise TypeError(
            f"Expected features or groups for each of the {len(tree.flatten(x))} inputs, in a list "
            f"or a dict. Received: {_brief(given)}."
        )
    parts = [given[key] for key in sorted(given)] if isinstance(given, dict) else list(given)
    if len(parts) != len(tree.flatten(x)):
        raise ValueError(
            f"Expected features or groups for each of the {len(tree.flatten(x))} inputs. "
            f"Received: {len(parts)}."
        )
    return parts


# Places


def places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an input `[B, F]` or `[B, *places, C]` without its samples and channels."""
    return tuple(shape[1:] if len(shape) <= 2 else shape[1:-1])


def per_axis(name: str, value: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    """A number for each spatial axis of an input whose places are so many along each."""
    axes = len(sides)
    values = value if isinstance(value, tuple) else (value,) * axes
    if len(values) != axes:
        raise ValueError(
            f"Expected `{name}` to be a number, or one for each of {axes} spatial axes. "
            f"Received: {name}={value!r} for places of shape {sides}."
        )
    return values


def _blocks(shape: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    return _crossed([np.arange(n) // length for n, length in zip(shape, size, strict=True)])


def _crossed(along: list[np.ndarray]) -> np.ndarray:
    """The number of each cell of a grid, of the numbers along its axes."""
    numbers = np.zeros((), np.int64)
    for axis in along:
        numbers = numbers[..., None] * (axis.max() + 1) + axis
    return numbers


def _renumbered(groups: np.ndarray) -> np.ndarray:
    """Groups numbered from 0 on, without gaps."""
    known, numbers = np.unique(groups, return_inverse=True)
    missing = int(np.count_nonzero(known < 0))
    numbers = numbers.reshape(groups.shape) - missing
    return np.maximum(numbers, -1).astype(np.int32)


def _for_each(labels: np.ndarray, x: np.ndarray) -> Labels:
    return np.broadcast_to(labels.astype(np.int32), (len(x), *labels.shape))


def _whole_numbers(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"Expected `{name}` to be whole numbers, one for each place: [0, 0, 1] joins the first "
            f"two. Received: {_brief(value)}."
        )
    return array


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# Segments

_OPTIONS: dict[str, dict[str, Any]] = {
    "slic": {"n_segments": 50, "compactness": 10, "sigma": 1},
    "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2},
    "felzenszwalb": {"scale": 100, "sigma": 0.5, "min_size": 50},
}


@functools.lru_cache(maxsize=64)
def _segments(
    data: bytes,
    shape: tuple[int, ...],
    dtype: str,
    method: str,
    options: tuple[tuple[str, Any], ...],
) -> np.ndarray:
    """The segments of a picture; kept, as a callback asks for the same ones in every epoch."""
    from skimage import segmentation

    picture = np.frombuffer(data, dtype).reshape(shape).astype(np.float64)
    low, high = picture.min(), picture.max()
    return getattr(segmentation, method)((picture - low) / ((high - low) or 1), **dict(options))


def _coloured(x: np.ndarray) -> np.ndarray:
    """Pictures of three channels: grey ones thrice, of others the first three."""
    return np.repeat(x[..., :1], 3, axis=-1) if x.shape[-1] < 3 else x[..., :3]
