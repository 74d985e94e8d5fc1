"""Features: the parts of an input that are hidden or seen as one.

An explainer's `features=` takes one of the objects below, or (for several inputs) a list, tuple or
dict of these; `groups=[0, 0, 1]` is short for `Columns(groups=[0, 0, 1])`.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from keras_explain.core import checks
from keras_explain.core.config import Config
from keras_explain.core.data.baselines import Baseline, Constant
from keras_explain.core.data.layout import Layout
from keras_explain.core.hiding.places import (
    Labels,
    blocks,
    brief,
    crossed,
    for_each,
    per_axis,
    places,
    renumbered,
    whole_numbers,
)
from keras_explain.core.hiding.segments import OPTIONS, coloured, segments
from keras_explain.core.hiding.words import LayerTokenizer, word_finder

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
            object.__setattr__(self, "groups", whole_numbers(self.groups, "groups"))
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
        return for_each(renumbered(groups), x)

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
        return for_each(np.arange(math.prod(shape)).reshape(shape), x)


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
        return for_each(blocks(places(x.shape), per_axis("size", self.size, places(x.shape))), x)

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
        return for_each(crossed(along), x)


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
        return for_each(np.arange(steps) // length, x)

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
        if self.method not in OPTIONS:
            raise ValueError(
                f"Expected `method` to be one of {', '.join(map(repr, OPTIONS))}. "
                f"Received: method={self.method!r}."
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", whole_numbers(self.labels, "labels"))
        super().__post_init__()

    def over_samples(self, change: Callable[[np.ndarray], np.ndarray]) -> "Segments":
        by_sample = self.labels is not None and self.labels.ndim == 3
        return self.replace(labels=change(self.labels)) if by_sample else self

    def numbered(self, x: np.ndarray) -> Labels:
        if self.labels is None:
            return np.stack([renumbered(self._cut(picture)) for picture in coloured(x)])
        if self.labels.ndim == 2:
            return for_each(renumbered(self.labels), x)
        return np.stack([renumbered(labels) for labels in self.labels])

    def _cut(self, picture: np.ndarray) -> np.ndarray:
        if not np.isfinite(picture).all():
            raise ValueError(
                "Expected pictures without NaN to cut them into segments. Received: NaN. Give "
                "`features=keras_explain.features.Patches(8)`, or segments as a label map."
            )
        options = tuple(sorted({**OPTIONS[self.method], **(self.options or {})}.items()))
        what = picture.tobytes(), picture.shape, picture.dtype.str
        return segments(*what, self.method, options)

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
                f"Received: {brief(found)}."
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
