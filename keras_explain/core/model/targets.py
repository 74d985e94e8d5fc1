"""Targets: which number of a model's output is explained.

A target turns the outputs of a batch of `rows` into scores `[rows, K]`. Its `index` (None, an int,
ints `[B]` or ints `[B, K]`) is data: another class needs no new compiled function.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import arrays, checks
from keras_explain.core.config import Config

if TYPE_CHECKING:
    from keras_explain.core.model.outputs import Outputs

__all__ = ["Class", "Function", "Label", "Neuron", "Region", "Regression", "Target"]

Tensor = Any
Index = int | list | tuple | np.ndarray | np.generic | None
LARGEST = 2**31 - 1
"""The largest class number: in the graph, an index is int32."""
PREDICTED = -1
"""In an index: the class that the model predicts for the row."""


class Target(Config, abc.ABC, kw_only=False):
    """A score of a model's outputs, `[rows, K]`. Subclasses define `scores`."""

    home = "targets"

    index: Index = None

    @property
    def takes_index(self) -> bool:
        """Whether the index says what is explained."""
        return True

    @abc.abstractmethod
    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        """The scores of a batch.

        Args:
            outputs: The model's outputs and recorded layers.
            index: Ints `[rows, K]`; `PREDICTED` asks for the predicted class.

        Returns:
            Scores `[rows, K]`, the index with predictions filled in `[rows, K]`, and the number of
            classes or units that an index may name (None where it names nothing).
        """

    def rows(self, batch: int) -> tuple[np.ndarray, bool]:
        """The index as ints `[batch, K]`, and whether the caller gave an axis K."""
        if self.index is None:
            return np.full((batch, 1), PREDICTED, np.int32), False
        index = _whole(self.index)
        if index.ndim > 2 or (index.ndim > 0 and index.shape[0] != batch) or 0 in index.shape:
            raise ValueError(
                f"Expected one target for all samples, or one for each of the {batch} samples: an "
                f"int, ints [{batch}], or ints [{batch}, K]. "
                f"Received: target of shape {index.shape}."
            )
        if index.min() < 0 or index.max() > LARGEST:
            outside = index.min() if index.min() < 0 else index.max()
            raise ValueError(
                f"A target is a class index from 0 to {LARGEST}. Received: {int(outside)}. "
                "The predicted class is explained with target=None."
            )
        columns = index.reshape(-1, 1) if index.ndim < 2 else index
        return np.broadcast_to(columns, (batch, columns.shape[1])).astype(np.int32), index.ndim == 2

    def check(self, index: np.ndarray, units: int | None) -> None:
        """Raises a `ValueError` where an index names a unit that the model does not have."""
        if units is not None and index.max() >= units:
            raise ValueError(
                f"Expected a target below {units}, the number of units of what is explained. "
                f"Received: {int(index.max())}."
                + (
                    " A 0/1 label of a one-unit binary head is `keras_explain.targets.Label(y)`."
                    if units == 1
                    else ""
                )
            )

    def without_index(self) -> Self:
        """What of the target is part of a compiled function: all but the index, which is data."""
        blank = copy.copy(self)
        object.__setattr__(blank, "index", None)
        return blank


class Class(Target, kw_only=False):
    """The score of a class: an output unit, before the last softmax or sigmoid.

    Args:
        index: The class: an int, ints `[B]`, ints `[B, K]`; None for the predicted class, or for
            the only unit of a one-unit output.
        of: `"logit"` looks through a softmax, log-softmax or sigmoid at the end of the model
            (fused, a layer of its own, a raw operation, or written by hand). An output without one
            is explained as it is, with a warning where a softmax or sigmoid leads to it, as to the
            mean of two. `"probability"` explains the probability: the output, if it is within
            [0, 1] whatever the input; if it ends in a weighted sum, as of a Dense layer, its
            softmax (one unit: sigmoid). Of anything else it is an error.
        output: Which output, where the model has several: its name, key or position.

    Example:
        `explainer(model, x, target=kx.targets.Class(3, of="probability"))`
    """

    of: Literal["logit", "probability"] = "logit"
    output: str | int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of not in ("logit", "probability"):
            raise ValueError(f"Expected `of` 'logit' or 'probability'. Received: {self.of!r}.")

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        return _pick(_classes(outputs.units(self.output, self.of).values), index)


class Label(Class, kw_only=False):
    """The score of a label: as `Class`, but right for binary heads too.

    For a one-unit output, label 1 is the unit's logit and label 0 its negative (of a probability,
    also one that has no logit: p and 1 - p). For more units, the label is the class.
    """

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        units = outputs.units(self.output, self.of)
        y = _classes(units.values)
        if y.shape[-1] != 1:
            return _pick(y, index)
        return _pick(ops.concatenate([_classes(units.negative), y], axis=-1), index)

    def check(self, index: np.ndarray, units: int | None) -> None:
        if units is not None and index.max() >= units:
            raise ValueError(
                f"Expected labels below {units}, the number of classes of the output. Received: "
                f"{int(index.max())}. A regression has no labels: explain it with target=None, "
                "or in a callback with target='predicted'."
            )


class Regression(Target, kw_only=False):
    """An output unit exactly as the model returns it, whatever stands at its end.

    Args:
        index: The unit; None for the only one (of several: the largest).
        output: Which output, where the model has several: its name, key or position.
    """

    output: str | int | None = None

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        return _pick(_classes(outputs.value(self.output)), index)


class Neuron(Target, kw_only=False):
    """A unit or channel of a layer.

    Args:
        layer: The layer, its name, or a path into nested models (`"backbone/conv_last"`).
        index: An int (ints `[B]`, `[B, K]`): the channel, averaged over all positions.
        unit: A tuple of ints: the one unit at that position, such as `(row, column, channel)`, in
            the order of the layer's axes.
        call: Which call of a layer that is called more than once, from 0 on. By default the last.
    """

    index: Index = None
    layer: str = ""
    unit: tuple[int, ...] | None = None
    call: int | None = None

    def __init__(
        self,
        layer: Any,
        index: Index = None,
        unit: tuple[int, ...] | None = None,
        call: int | None = None,
    ) -> None:
        if unit is not None:
            unit = _position(unit)
        checks.call_of(layer, call)
        given = {"layer": layer, "index": index, "unit": unit, "call": call}
        for name, value in given.items():
            object.__setattr__(self, name, value)
        self.__post_init__()
        if (index is None) == (unit is None):
            raise ValueError(
                "Expected a channel, as in `Neuron(layer, 3)`, or a unit, as in "
                "`Neuron(layer, unit=(4, 4, 3))`. "
                f"Received: {'neither' if unit is None else 'both'}."
            )

    @property
    def takes_index(self) -> bool:
        return self.unit is None

    def rows(self, batch: int) -> tuple[np.ndarray, bool]:
        if self.unit is not None:
            return np.zeros((batch, 1), np.int32), False
        return super().rows(batch)

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        activation = outputs.layer(self.layer, self.call)
        if self.unit is None:
            axis = outputs.channels(outputs.calls_of(self.layer, self.call)[-1])
            activation = activation if axis == -1 else ops.moveaxis(activation, axis, -1)
            between = tuple(range(1, len(activation.shape) - 1))
            return _pick(ops.mean(activation, axis=between) if between else activation, index)
        shape = tuple(activation.shape[1:])
        if len(self.unit) != len(shape) or any(
            not 0 <= i < n for i, n in zip(self.unit, shape, strict=True)
        ):
            raise ValueError(
                f"Expected the position of a unit inside the output {shape} of layer "
                f"{self.layer!r}. Received: unit={self.unit}."
            )
        unit = activation[(slice(None), *self.unit)]
        return ops.broadcast_to(unit[:, None], ops.shape(index)), index, None


class Region(Target, kw_only=False):
    """A class in a region of a segmentation: its mean score over the region (Vinogradova 2020).

    Args:
        index: The class (channel); None for the one predicted at most positions.
        mask: Booleans of one output's spatial shape; None for the positions where the class is the
            predicted one. Methods that move the input, such as `IntegratedGradients`, need a mask
            to explain one and the same region all along.
        of: As in `Class`.
        output: Which output, where the model has several.

    Reference:
        - [Vinogradova et al., 2020](https://arxiv.org/abs/2002.11434), eq. 2, as a mean.
    """

    mask: Any = None
    of: Literal["logit", "probability"] = "logit"
    output: str | int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is None:
            return
        mask = arrays.plain(self.mask, "`mask`")
        if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "Expected a mask of booleans, of the output's spatial shape. "
                f"Received: dtype {mask.dtype}, with other numbers than 0 and 1."
            )

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        units = outputs.units(self.output, self.of)
        y = units.values
        if len(y.shape) < 3:
            raise ValueError(
                "Expected a segmentation output [B, ..., classes] with spatial axes. Received: "
                f"output of shape {tuple(y.shape)}. A class of a plain classifier is an int target."
            )
        axis = outputs.channels_of_output(self.output)
        y = y if axis == -1 else ops.moveaxis(y, axis, -1)
        spatial, classes = tuple(y.shape[1:-1]), y.shape[-1]
        y = ops.reshape(y, (-1, int(np.prod(spatial)), classes))  # [n, S, C]
        is_there = ops.cast(y > units.middle, "int32") - 1
        predicted = is_there if classes == 1 else _largest(y)[..., None]
        chosen = backend.fixed(predicted == ops.arange(classes))
        members = ops.cast(chosen, y.dtype)  # [n, S, C]
        most = ops.cast(ops.argmax(ops.sum(members, 1), -1), "int32")[:, None]
        if self.mask is not None:
            if tuple(self.mask.shape) != spatial:
                raise ValueError(
                    f"Expected a mask of the output's spatial shape {spatial}. "
                    f"Received: mask of shape {tuple(self.mask.shape)}."
                )
            members = ops.reshape(ops.cast(self.mask, y.dtype), (1, -1, 1))
        means = ops.sum(y * members, 1) / ops.maximum(ops.sum(members, 1), 1)
        return _pick(means, ops.where(index < 0, most, index))


class Function(Target, kw_only=False):
    """A function of the model's outputs (as the model returns them) to scores `[B]`.

    Example:
        `kx.targets.Function(lambda y: y["price"][:, 0] - y["cost"][:, 0])`
    """

    index: None = None
    fn: Callable[[Any], Tensor] | None = None

    @property
    def takes_index(self) -> bool:
        return False

    def __init__(self, fn: Callable[[Any], Tensor], index: None = None) -> None:
        object.__setattr__(self, "index", None)
        object.__setattr__(self, "fn", fn)
        if index is not None:
            raise ValueError(
                f"A function of the outputs takes no index. Received: index={index!r}."
            )
        if not callable(fn):
            raise TypeError(f"Expected a function of the model's outputs. Received: {fn!r}.")

    def rows(self, batch: int) -> tuple[np.ndarray, bool]:
        return np.zeros((batch, 1), np.int32), False

    def scores(self, outputs: Outputs, index: Tensor) -> tuple[Tensor, Tensor, int | None]:
        assert self.fn is not None
        found = self.fn(outputs.values)
        if not backend.is_tensor(found) or not keras.backend.is_float_dtype(found.dtype):
            what = found.dtype.name if backend.is_tensor(found) else type(found).__name__
            raise ValueError(
                "Expected a function of the outputs that returns a tensor of floating-point "
                f"numbers, one score a sample. Received: {what}. Write it with keras.ops; whole "
                "numbers become floating-point ones by `keras.ops.cast(..., 'float32')`."
            )
        score = ops.cast(found, "float32")
        if len(score.shape) != 1:
            raise ValueError(
                "Expected a function of the outputs that returns one score a sample, [B]. "
                f"Received: scores of shape {tuple(score.shape)}."
            )
        return ops.broadcast_to(score[:, None], ops.shape(index)), index, None


def as_target(target: Any) -> Target:
    """What a user gave as target, as a `Target`."""
    if isinstance(target, Target):
        return target
    if target is None or isinstance(target, (int, list, tuple, np.generic, np.ndarray)):
        return Class(target)
    if hasattr(target, "__array__"):
        return Class(np.asarray(target))
    raise TypeError(
        "Expected a target: None, an int, ints [B], ints [B, K], or an object of "
        f"`keras_explain.targets`. Received: {target!r} of type {type(target).__name__}."
    )


def _classes(y: Tensor) -> Tensor:
    if len(y.shape) == 1:
        return y[:, None]
    if len(y.shape) == 2:
        return y
    raise ValueError(
        f"Expected an output of shape [B, classes]. Received: output of shape {tuple(y.shape)}. "
        "A class of a segmentation is `keras_explain.targets.Region(index)`; any other score is "
        "`keras_explain.targets.Function(fn)` with a function of the outputs -> [B]."
    )


def _largest(y: Tensor) -> Tensor:
    """The position of the largest number; as in NumPy, NaN is larger than all."""
    return ops.argmax(ops.where(ops.isnan(y), np.inf, y), axis=-1)


def _pick(y: Tensor, index: Tensor) -> tuple[Tensor, Tensor, int]:
    predicted = backend.fixed(ops.cast(_largest(y), "int32")[:, None])
    index = ops.where(index < 0, predicted, index)
    if index.shape[1] != 1:
        return ops.take_along_axis(y, index, axis=1), index, y.shape[-1]
    # Its gradient is traced much faster than that of a gather.
    chosen = ops.equal(index, ops.arange(y.shape[-1]))  # [n, C]
    return ops.sum(ops.where(chosen, y, 0.0), axis=1, keepdims=True), index, y.shape[-1]


def _whole(given: Any) -> np.ndarray:
    listed = tree.flatten(given) if isinstance(given, (list, tuple)) else []
    try:
        index = np.asarray(given)
    except ValueError:  # rows of different length
        index = np.asarray(listed, object)
    if index.dtype.kind not in "iu" or any(isinstance(i, bool) for i in listed):
        raise ValueError(
            "A target is a class index: an int, ints [B], or ints [B, K] for K classes each. "
            f"Received: {_brief(given)} of dtype {index.dtype}. "
            "One-hot labels become indices with `labels.argmax(-1)`."
        )
    return index


def _position(unit: Any) -> tuple[int, ...]:
    position = np.asarray(unit)
    if position.ndim != 1 or _whole(unit).size == 0:
        raise ValueError(
            "Expected the position of a unit as a tuple of ints, such as (row, column, channel). "
            f"Received: unit={_brief(unit)}."
        )
    return tuple(map(int, position))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
