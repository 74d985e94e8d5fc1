"""Baselines: the input that stands for "nothing here".

An explainer's `baseline=` takes a number, an array of one sample's shape or `[B, ...]`, one of the
objects below, or (for several inputs) a list, tuple or dict of these.
"""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import arrays, checks
from keras_explain.core.config import Config
from keras_explain.core.data.inputs import check_finite
from keras_explain.core.data.layout import Layout, assumed

__all__ = ["Baseline", "Blur", "Constant", "Given", "Mean", "Noise", "Zeros"]

Tensor = Any
Nest = Any


class Baseline(Config, abc.ABC, kw_only=False):
    """Makes a baseline for inputs. Subclasses define `__call__`."""

    home = "baselines"

    @abc.abstractmethod
    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        """The baseline of each sample, of a shape that broadcasts to that of `x`.

        Args:
            x: One input of the model, `[n, ...]`.
            row: The position of each sample in the user's batch, ints `[n]`.
        """

    def check(self, x: np.ndarray) -> None:
        """Raises a `ValueError` where the baseline does not suit the input `x` `[B, ...]`."""

    def along(self, axes: tuple[int, ...]) -> "Baseline":
        """The same for inputs whose places are along these axes, where it asks for them."""
        return self

    @property
    def makes_ids(self) -> bool:
        """Whether the baseline of token ids is token ids."""
        return True

    def is_shared(self, rank: int) -> bool:
        """Whether all samples of an input of this rank have one and the same baseline."""
        return False


class Zeros(Baseline, kw_only=False):
    """Zero everywhere."""

    def is_shared(self, rank: int) -> bool:
        return True

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        return ops.zeros_like(x)


class Constant(Baseline, kw_only=False):
    """One number everywhere."""

    value: float = 0.0

    def check(self, x: np.ndarray) -> None:
        if isinstance(self.value, (str, bool)) or np.ndim(self.value):
            raise TypeError(f"Expected a number as `value`. Received: value={self.value!r}.")
        check_finite(np.atleast_1d(self.value), "`baseline`")

    @property
    def makes_ids(self) -> bool:
        return float(self.value).is_integer()

    def is_shared(self, rank: int) -> bool:
        return True

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        return ops.full_like(x, self.value)


class Given(Baseline, kw_only=False):
    """An array of one sample's shape, or `[B, ...]` with one baseline a sample."""

    values: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", arrays.plain(self.values, "`values`"))
        super().__post_init__()

    def is_shared(self, rank: int) -> bool:
        return len(self.values.shape) < rank or self.values.shape[0] == 1

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        values = ops.convert_to_tensor(self.values)
        values = values if x.dtype == "string" else ops.cast(values, x.dtype)
        if len(values.shape) < len(x.shape):
            values = values[None]
        if values.shape[0] == 1:
            return ops.broadcast_to(values, ops.shape(x))
        return ops.take(values, row, axis=0)

    def check(self, x: np.ndarray) -> None:
        check_finite(np.atleast_1d(self.values), "`baseline`")
        shape = np.shape(self.values)
        if shape not in (x.shape[1:], (1, *x.shape[1:]), x.shape):
            raise ValueError(
                f"Expected a baseline of one sample's shape {x.shape[1:]}, or one a sample, "
                f"{x.shape}. Received: baseline of shape {shape}."
            )


class Category(Baseline, kw_only=False):
    """One text everywhere: the category that stands for "not known"."""

    value: str = ""

    def is_shared(self, rank: int) -> bool:
        return True

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        return backend.text_like(x, self.value)


class Mean(Baseline, kw_only=False):
    """The mean of a data set `[N, ...]`; without one, of each sample's own places, by channel.

    Args:
        data: The data set.
        axes: The axes of the places. By default, the model's layers say.
        columns: The names of the columns of a table. By default those that the data comes with.
    """

    data: Any = None
    axes: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    makes_ids = False

    def __post_init__(self) -> None:
        if self.data is not None:
            object.__setattr__(self, "columns", self.columns or arrays.names_of(self.data))
            object.__setattr__(self, "data", _mean(self.data))
        super().__post_init__()

    def arranged(self, columns: tuple[str, ...] | None) -> "Mean":
        """The same with its columns in the order of those of the input."""
        if self.columns is None or columns is None:
            return self
        order = arrays.order_of(self.columns, columns, "baseline data")
        return self.replace(data=self.data[:, order], columns=columns)

    def along(self, axes: tuple[int, ...]) -> Baseline:
        return self if self.axes or self.data is not None else self.replace(axes=axes)

    def is_shared(self, rank: int) -> bool:
        return self.data is not None

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        if self.data is None:
            axes = self.axes or assumed(x.shape).axes
            return ops.broadcast_to(ops.mean(x, axes, keepdims=True), ops.shape(x))
        return ops.broadcast_to(ops.reshape(self.data, (1, *x.shape[1:])), ops.shape(x))

    def check(self, x: np.ndarray) -> None:
        if self.data is None:
            return
        if self.data.shape[1:] != x.shape[1:] and not (self.data.ndim == 1 and x[0].size == 1):
            raise ValueError(
                f"Expected baseline data of shape (N, {', '.join(map(str, x.shape[1:]))}). "
                f"Received: rows of shape {self.data.shape[1:]}."
            )


def _mean(data: Any) -> np.ndarray:
    if isinstance(data, (dict, list, tuple)) and any(map(arrays.is_array, tree.flatten(data))):
        raise TypeError(
            "Expected the data of one input, [N, ...], as Mean takes it. Received: a "
            f"{type(data).__name__} of arrays. Of several inputs give each its own: "
            "`baseline={name: Mean(data[name]), ...}`."
        )
    rows = arrays.plain(data, "baseline data")
    if rows.dtype.kind == "U" or rows.ndim == 0 or len(rows) == 0:
        raise ValueError(
            "Expected numbers [N, ...] as baseline data. "
            f"Received: dtype {rows.dtype}, shape {rows.shape}."
        )
    check_finite(rows, "baseline data")
    return np.asarray(np.mean(rows, axis=0, keepdims=True, dtype=np.float64), np.float32)


class Noise(Baseline, kw_only=False):
    """Gaussian noise of each place's surroundings: their mean and their standard deviation.

    `m + s * g`, `g ~ N(0, 1)`, with m and s the mean and standard deviation of x under a Gaussian
    window around the place.

    Args:
        sigma: The window's standard deviation in places.
        seed: The same seed draws the same noise.
        axes: The axes of the places. By default, the model's layers say.
    """

    sigma: float = 10.0
    seed: int = 0
    axes: tuple[int, ...] | None = None
    makes_ids = False

    def along(self, axes: tuple[int, ...]) -> Baseline:
        return self if self.axes else self.replace(axes=axes)

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        around = Blur(self.sigma, self.axes)
        middle = Mean(axes=self.axes)(x, row)  # no digits are lost in the difference of squares
        mean = around(x - middle, row)
        variance = around(ops.square(x - middle), row) - ops.square(mean)
        mean, deviation = mean + middle, ops.sqrt(ops.maximum(variance, 0.0))
        keys = ops.add(ops.zeros_like(ops.stack([row, row], axis=1)), [self.seed, 104729])
        return mean + deviation * backend.random_normal(keys, tuple(x.shape[1:]))

    def check(self, x: np.ndarray) -> None:
        checks.count("seed", self.seed, least=0, most=2**31 - 1)
        Blur(self.sigma, self.axes).check(x)


class Blur(Baseline, kw_only=False):
    """The picture, series or volume itself, blurred by a Gaussian along its spatial axes.

    Args:
        sigma: The Gaussian's standard deviation in pixels.
        axes: The axes to blur. By default those of the places, as the model's layers say.
    """

    sigma: float = 10.0
    axes: tuple[int, ...] | None = None
    makes_ids = False

    def along(self, axes: tuple[int, ...]) -> Baseline:
        return self if self.axes else self.replace(axes=axes)

    def __call__(self, x: Tensor, row: Tensor) -> Tensor:
        from scipy.ndimage import gaussian_filter1d

        blurred = x
        for axis in self.axes or assumed(x.shape).axes:
            kernel = gaussian_filter1d(np.eye(x.shape[axis]), self.sigma, axis=0, mode="nearest")
            moved = ops.tensordot(blurred, ops.cast(kernel, x.dtype), [[axis], [1]])
            blurred = ops.moveaxis(moved, -1, axis)
        return blurred

    def check(self, x: np.ndarray) -> None:
        if not isinstance(self.sigma, (int, float)) or not self.sigma > 0:
            raise ValueError(f"Expected a sigma above 0. Received: sigma={self.sigma!r}.")
        if self.axes is not None:
            checks.several("axes", self.axes)
        if not self.axes and x.ndim < 3:
            raise ValueError(
                "Expected an input with spatial axes [B, ..., C] to blur. "
                f"Received: x of shape {x.shape}. Use a number or an array as baseline."
            )
        if self.axes and not all(0 < axis < x.ndim for axis in self.axes):
            raise ValueError(f"Expected axes of x, from 1 to {x.ndim - 1}. Received: {self.axes}.")


def get(baseline: Any) -> Baseline:
    """What a user gave as baseline of one input, as a `Baseline`."""
    if isinstance(baseline, Baseline):
        return baseline
    if isinstance(baseline, str):
        return Category(baseline)
    if isinstance(baseline, (int, float)) and not isinstance(baseline, bool):
        return Constant(float(baseline)) if baseline else Zeros()
    if hasattr(baseline, "shape"):
        return Constant(baseline) if not np.shape(baseline) else _given(baseline)
    raise TypeError(
        "Expected a baseline: a number, an array of one sample's shape or [B, ...], or one of "
        f"`keras_explain.baselines`. Received: {baseline!r} of type {type(baseline).__name__}."
    )


def _given(values: Any) -> Given:
    given = object.__new__(Given)  # a graph's tensor too, which the constructor would copy
    object.__setattr__(given, "values", values)
    return given


def _listed(nest: Nest) -> str:
    return f" ({', '.join(map(repr, nest))})" if isinstance(nest, dict) else ""


def settled(baseline: Any, x: Nest, columns: tuple[str, ...] | None = None) -> Any:
    """A baseline of which the columns of a table, or lists of numbers, are an array.

    They are in the order of the `columns` that `x` was given with.

    To be asked for on the host, before `per_input` is in a graph.
    """
    if not isinstance(x, np.ndarray):
        return baseline
    if isinstance(baseline, dict):
        table = arrays.stacked(baseline, "`baseline`", columns)
        return baseline if table is None else table
    if isinstance(baseline, (list, tuple)) and len(baseline) != 1:
        return arrays.plain(baseline, "`baseline`")
    return baseline.arranged(columns) if isinstance(baseline, Mean) else baseline


def per_input(baseline: Any, x: Nest) -> list[Baseline]:
    """The baseline of each leaf of `x`; one that is not a nest serves every leaf."""
    leaves = tree.flatten(x)
    return [
        _of_one_number(get(p), leaf) for p, leaf in zip(_parts(baseline, x), leaves, strict=True)
    ]


def _parts(baseline: Any, x: Nest) -> list[Any]:
    leaves = tree.flatten(x)
    if not isinstance(baseline, (list, tuple, dict)):
        return [baseline] * len(leaves)
    if isinstance(baseline, dict) and not isinstance(x, dict):
        raise ValueError(
            "Expected a baseline without names, as the input has none. "
            f"Received: baselines of {', '.join(map(repr, baseline))}."
        )
    parts = checks.flat(baseline)
    if len(parts) == len(leaves):
        checks.same_names("baselines", baseline, x)
        return parts
    if isinstance(baseline, dict) or len(leaves) > 1:
        raise ValueError(
            f"Expected one baseline for each of the {len(leaves)} inputs{_listed(x)}. "
            f"Received: {len(parts)}{_listed(baseline)}."
        )
    return [arrays.plain(baseline, "`baseline`")]


def _of_one_number(baseline: Baseline, leaf: Any) -> Baseline:
    """With the last axis of an input `[B, 1]`, for values `[B]`."""
    if isinstance(baseline, Given) and tuple(leaf.shape[1:]) == (1,):
        values = baseline.values
        return _given(values[:, None]) if len(values.shape) == 1 != values.shape[0] else baseline
    return baseline


def check(baseline: Any, x: Nest) -> None:
    """Raises where a baseline does not suit the input `x` (a nest of arrays `[B, ...]`)."""
    for part, leaf in zip(per_input(baseline, x), tree.flatten(x), strict=True):
        _check_text(part, leaf)
        part.check(leaf)


def _check_text(baseline: Baseline, x: np.ndarray) -> None:
    given = baseline.values.dtype.kind if isinstance(baseline, Given) else ""
    is_text = isinstance(baseline, Category) or given == "U"
    if x.dtype.kind == "U" and not is_text:
        raise ValueError(
            f"Expected a text as the baseline of an input of texts. Received: {baseline!r}. Give a "
            "`background` of rows where the method takes one, or a category that stands for "
            "\"not known\", as in `baseline={'age': 0.0, 'job': 'clerk'}`."
        )
    if is_text and x.dtype.kind != "U":
        value = baseline.value if isinstance(baseline, Category) else "texts"
        raise TypeError(
            "Expected a baseline of numbers: a number, an array of one sample's shape or [B, ...], "
            f"or one of `keras_explain.baselines`. Received: {value!r}."
        )


def is_shared(baseline: Any, x: Nest) -> bool:
    """Whether all samples have one and the same baseline."""
    parts = zip(per_input(baseline, x), tree.flatten(x), strict=True)
    return all(part.is_shared(len(leaf.shape)) for part, leaf in parts)


def apply(baseline: Any, x: Nest, row: Tensor, layouts: Sequence[Layout]) -> Nest:
    """The baseline of inputs `x`, which are laid out so; of the same nest and shapes."""
    leaves = []
    for given, leaf, layout in zip(per_input(baseline, x), tree.flatten(x), layouts, strict=True):
        part = given.along(layout.axes)
        if keras.backend.is_int_dtype(leaf.dtype) and not part.makes_ids:
            raise ValueError(
                f"Expected a baseline of token ids for an input of token ids. Received: {part!r}."
            )
        made = part(leaf, row)
        leaves.append(made if leaf.dtype == "string" else ops.cast(made, leaf.dtype))
    return tree.pack_sequence_as(x, leaves)
