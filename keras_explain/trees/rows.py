"""What the rows of a tree are: read from a model on the host, and in a compiled training step."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data import inputs
from keras_explain.core.graph import traced
from keras_explain.core.graph.ending import ending_of, logits_of
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.intercept import mask_of
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.reading import ModelReader, Seen
from keras_explain.core.model.targets import Label

Tensor = Any
Nest = Any


class Table(NamedTuple):
    """Rows in a graph.

    Attributes:
        features: What a tree asks about, float32 `[n, D]`.
        logits: The model's scores, float32 `[n, C]`; C is 2 where the model has one unit, whose
            logit stands beside a 0.
        weight: 1 for each row and 0 for masked time steps, float32 `[n]`.
    """

    features: Tensor
    logits: Tensor
    weight: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows on the host.

    Attributes:
        features: What a tree asks about, float32 `[n, D]`.
        classes: What the model predicts, ints `[n]`.
        probabilities: The model's probabilities, float32 `[n, C]`.
        sample: Which input each row is of, ints `[n]`.
        shape: The shape of the predictions: `(B,)`, or `(B, T)` for one at each time step.
    """

    features: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    sample: npt.NDArray[np.int64]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, x: Any, predicted: Any, units: int | None = None) -> Self:
        """Rows `[n, D]` and their classes.

        Raises:
            ValueError: They are no table and its classes.
        """
        features = backend.to_numpy(x).astype(np.float32)
        classes = backend.to_numpy(predicted)
        if classes.dtype.kind not in "biuf":
            raise ValueError(
                "Expected classes as numbers from 0: `np.unique(names, return_inverse=True)[1]`. "
                f"Received: an array of dtype {classes.dtype}."
            )
        whole = classes.astype(np.int64)
        if features.ndim != 2 or classes.shape != (len(features),) or not len(features):
            raise ValueError(
                "Expected rows [N, D] and their classes, ints [N]. "
                f"Received: shapes {features.shape} and {classes.shape}."
            )
        inputs.check_finite(features, "rows")
        if (whole != classes).any() or whole.min() < 0 or whole.max() >= (units or np.inf):
            raise ValueError(
                f"Expected classes counted from 0{f' and below {units}' if units else ''}. "
                f"Received: {np.unique(classes)[:10].tolist()}."
            )
        one_hot = np.eye(units or max(2, whole.max() + 1), dtype=np.float32)[whole]
        return cls(features, whole, one_hot, np.arange(len(whole)), whole.shape)

    @property
    def units(self) -> int:
        """How many classes there are."""
        return self.probabilities.shape[1]

    def same_as(self, other: Rows) -> bool:
        """Whether other rows have the same features and classes, and so the same tree."""
        return np.array_equal(self.classes, other.classes) and np.array_equal(
            self.features, other.features
        )

    def take(self, which: Any) -> Self:
        """Some of the rows."""
        return dataclasses.replace(
            self,
            features=self.features[which],
            classes=self.classes[which],
            probabilities=self.probabilities[which],
            sample=self.sample[which],
        )

    def split(self, share: float, seed: int) -> tuple[Self, Self]:
        """All but a share of the samples, and that share; a sample's rows stay together."""
        samples = np.unique(self.sample)
        order = samples[backend.random_permutation(seed, len(samples))]
        kept_back = np.isin(self.sample, order[: int(share * len(samples))])
        return self.take(~kept_back), self.take(kept_back)


class RowReader:
    """Reads the rows of trees from a model.

    Args:
        model: A built classifier.
        layer: The layer whose units are asked about in place of the input.
    """

    def __init__(self, model: keras.Model, layer: str | None = None) -> None:
        self.model = model
        self._reader = ModelReader(model)
        self.layer = None if layer is None else OpenModel.of(model).resolve(layer)
        self._layers = () if self.layer is None else (self.layer,)
        self._ending: str | None = None  # what the output is, once the model was read
        self.output_rank = 2
        self.of_logits = False

    def call(self, x: Nest, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """The model's output, and that of the layer in its last call."""
        y, found = OpenModel.of(self.model).call(x, self._layers, **kwargs)
        return y, found.get(self.layer or "")

    def table(self, x: Nest, y: Tensor, units: Tensor | None = None) -> Table:
        """The rows of a batch, in the graph or eagerly.

        Args:
            x: The model's input.
            y: What the model returned for it.
            units: What the layer returned, where there is one.
        """
        if tree.is_nested(y):
            raise ValueError(
                "Expected a model with one output of class scores. "
                f"Received: {len(tree.flatten(y))} outputs."
            )
        if self._ending is None and not traced.is_here(y):
            self._learn(x)
        logits = _class_logits(y, self._ending)
        per_step = len(logits.shape) == 3
        features = self._features(x, units, per_step)
        mask = mask_of(y) if per_step else None
        logits = ops.reshape(logits, (-1, logits.shape[-1]))
        weight = ops.ones_like(logits[:, 0])
        if mask is not None:
            weight = ops.cast(ops.reshape(mask, (-1,)), "float32")
        return Table(features, logits, weight)

    def _features(self, x: Nest, units: Tensor | None, per_step: bool) -> Tensor:
        if units is not None:
            parts = [_unit_rows(units, per_step, self._channels_first)]
        else:
            parts = [_input_rows(leaf, per_step) for leaf in self._in_order(x)]
        parts = [ops.cast(part, "float32") for part in parts]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)

    def _in_order(self, x: Nest) -> list[Any]:
        """The inputs in the model's order, also those that are passed by name."""
        declared = getattr(self.model, "inputs", None) or []
        if isinstance(x, dict) and declared and not isinstance(self.model.input, dict):
            return [x[tensor.name] for tensor in declared]
        return tree.flatten(x)

    # On the host

    def read(self, x: Nest, batch_size: int | None = None, *, masked: bool = False) -> Rows:
        """The rows of inputs, with what the model predicts for them now.

        Args:
            x: Inputs of the model, `[B, ...]`.
            batch_size: How many go through the model at once.
            masked: Whether masked time steps are kept.

        Raises:
            ValueError: The inputs are not what the model takes, or nothing that a tree can ask
                about.
            FloatingPointError: The model's scores are not finite.
        """
        x = inputs.checked(self.model, x)
        if self.layer is None and any(Forward(OpenModel.of(self.model), x, Label()).are_tokens):
            raise ValueError(
                "Expected inputs whose numbers can be asked about. Received: token ids, whose "
                "order means nothing. Name a layer: `layer=` takes its units in their place."
            )
        self._learn(x)
        count = len(tree.flatten(x)[0])
        features, logits, weight = self._reader.read(
            x, "rows", self._rows, self._layers, batch_size
        )
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "Expected finite scores of the model, to fit a tree to its predictions. Received: "
                f"NaN or infinity in {int((~np.isfinite(logits)).any(axis=1).sum())} of "
                f"{len(logits)} rows. Has the training diverged?"
            )
        shape = (count, len(logits) // count) if self.output_rank == 3 else (count,)
        sample = np.repeat(np.arange(count), len(logits) // count)
        probabilities = backend.to_numpy(ops.softmax(logits))
        rows = Rows(features, logits.argmax(axis=1), probabilities, sample, shape)
        return rows if masked else rows.take(weight > 0)

    @property
    def _channels_first(self) -> bool:
        node = OpenModel.of(self.model).nodes[self.layer or ""]
        return getattr(node, "data_format", None) == "channels_first"

    @property
    def asks_about(self) -> str:
        """`"inputs"`, where a tree asks about the columns of samples as they are; else of what."""
        if self.layer is not None:
            return f"the units of layer {self.layer!r}"
        return "time steps" if self.output_rank == 3 else "inputs"

    def column_names(self, x: Nest, columns: int) -> list[str]:
        """A name per column: of a data frame, of time steps, of a layer's units, or a number."""
        if self.layer is not None:
            return [f"{self.layer}[{i}]" for i in range(columns)]
        leaves = tree.flatten(x)
        if len(leaves) == 1 and hasattr(leaves[0], "columns"):
            return [str(name) for name in leaves[0].columns]
        shape = np.shape(leaves[0])
        if len(leaves) == 1 and len(shape) == 3 and columns != shape[2]:
            return [f"x{i}[{t}]" for t in range(shape[1]) for i in range(shape[2])]
        return [f"x{i}" for i in range(columns)]

    def _rows(self, seen: Seen) -> tuple[tuple[Tensor, ...], tuple[str, int]]:
        """The rows of a batch, and what the output is."""
        table = self.table(seen.x, seen.y, seen.layers.get(self.layer or ""))
        return tuple(table), (ending_of(seen.y).name, len(seen.y.shape))

    def _learn(self, x: Nest) -> None:
        function = self._reader.compiled(x, "rows", self._rows, self._layers)
        self._ending, rank = function.learned
        self.output_rank = 3 if rank == 3 else 2
        self.of_logits = self._ending == "Logits"


def _class_logits(y: Tensor, name: str | None) -> Tensor:
    """The scores of two classes or more, float32 `[B, C]` or `[B, T, C]`.

    Args:
        y: The output.
        name: What it is known to be, where it is no tensor of a graph.
    """
    if len(y.shape) not in (1, 2, 3):
        raise ValueError(
            "Expected a model that returns class scores [B, C], or [B, T, C] for time steps. "
            f"Received: an output of shape {tuple(y.shape)}."
        )
    logits, name = _logits(y, name)
    logits = ops.cast(logits if len(logits.shape) > 1 else logits[:, None], "float32")
    units = logits.shape[-1]
    if units == 1 and name in ("Softmax", "LogSoftmax"):
        raise ValueError(
            "Expected a model of at least two classes. Received: a softmax over one unit, which is "
            "always 1. For two classes use a sigmoid, or a softmax over two units."
        )
    if units > 1 and name in ("Sigmoid", "LogSigmoid"):
        raise ValueError(
            "Expected a model that predicts one class: a softmax, or logits. Received: a sigmoid "
            f"over {units} units, which predicts any number of labels. Use a model per label."
        )
    return logits if units > 1 else ops.concatenate([ops.zeros_like(logits), logits], axis=-1)


def _logits(y: Tensor, name: str | None) -> tuple[Tensor, str]:
    if not traced.is_here(y):
        assert name is not None
        return logits_of(y if len(y.shape) > 1 else y[:, None], name), name
    ending = ending_of(y)
    return ending.class_logits, ending.name


def _input_rows(leaf: Tensor, per_step: bool) -> Tensor:
    """An input as rows: `[B, D]`, or a row for each time step, or one for each series."""
    shape = tuple(leaf.shape)
    if len(shape) == 3 and per_step:
        return ops.reshape(leaf, (-1, shape[2]))
    if len(shape) == 3 and None not in shape[1:] and not per_step:
        return ops.reshape(leaf, (-1, shape[1] * shape[2]))
    if len(shape) <= 2 and not per_step:
        return ops.reshape(leaf, (-1, shape[1] if len(shape) == 2 else 1))
    advice = "Name a layer: `layer=` takes its units in place of the input."
    if len(shape) > 3:
        raise ValueError(
            "Expected rows of a table or a series, since a tree over pixels explains nothing. "
            f"Received: an input of shape {shape}. {advice}"
        )
    raise ValueError(
        f"Expected inputs [B, D], or [B, T, D] of a known length. Received: shape {shape} for "
        f"{'a prediction at each time step' if per_step else 'one prediction'}. {advice}"
    )


def _unit_rows(units: Tensor, per_step: bool, channels_first: bool) -> Tensor:
    """A layer's output as rows of its units, averaged over positions."""
    if tree.is_nested(units) or len(units.shape) < 2:
        raise ValueError("Expected a layer with one output [B, ..., C].")
    if channels_first:
        units = ops.moveaxis(units, 1, -1)
    axes = list(range(2 if per_step else 1, len(units.shape) - 1))
    if per_step and len(units.shape) < 3:
        raise ValueError(
            "Expected a layer with an output at each time step, as the model has. "
            f"Received: a layer that returns shape {tuple(units.shape)}."
        )
    return ops.reshape(ops.mean(units, axis=axes) if axes else units, (-1, units.shape[-1]))
