"""A model read on the host, batch by batch: its outputs, its logits, its layers' activations."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data import inputs
from keras_explain.core.graph import chance, traced
from keras_explain.core.graph.ending import ending_of
from keras_explain.core.model.opened import Compiled, OpenModel

Tensor = Any
Nest = Any


def groups(rows: int, size: int) -> Iterator[slice]:
    """Groups of rows of about equal length, at most `size`."""
    count = math.ceil(rows / size)
    edges = [round(rows * i / count) for i in range(count + 1)]
    return (slice(a, b) for a, b in itertools.pairwise(edges))


def rows_at_once(
    x: Nest, asked: int | None, fixed: int | None, *, scores_alone: bool = False
) -> int:
    """How many rows go through a model at once: `asked`, or the power of two that suits `x`.

    It is the one nearest `2**21 / elements per row`, within 8..256. For tables it may be 4096, or
    without gradients, which keep what layers give, 16384.

    Args:
        x: The input, a nest of arrays `[B, ...]`.
        asked: What the user says.
        fixed: The batch size that the model insists on.
        scores_alone: Whether no gradients are taken.

    Raises:
        ValueError: The number asked for is none.
    """
    if asked is None:
        leaves = tree.flatten(x)
        is_table = all(leaf.ndim == 2 and leaf.dtype.kind == "f" for leaf in leaves)
        elements = sum(max(1, leaf[0].size) for leaf in leaves)
        largest = (14 if scores_alone else 12) if is_table else 8
        asked = 2 ** min(largest, max(3, round(math.log2(2**21 / elements))))
    if not isinstance(asked, (int, np.integer)) or isinstance(asked, bool) or asked < 1:
        raise ValueError(f"Expected a batch_size of 1 or more. Received: {asked}.")
    return min(asked, fixed or asked)


def joined(
    read: Callable[[np.ndarray], Sequence[Tensor]], rows: int, size: int, fixed: int | None = None
) -> list[np.ndarray]:
    """What is read of some rows at a time, of all.

    Args:
        read: Of the positions of some rows, tensors `[n * k, ...]` with k numbers for each.
        rows: How many there are.
        size: How many are read at once, at most.
        fixed: How many have to be read at once: rows are repeated, and cut off again.
    """
    found = []
    for group in groups(rows, size):
        at = np.arange(rows, dtype=np.int32)[group]
        filled = np.resize(at, fixed) if fixed else at
        parts = [np.asarray(part) for part in read(filled)]
        found.append([part[: len(part) // len(filled) * len(at)] for part in parts])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


class Seen(NamedTuple):
    """A forward pass in the graph.

    Attributes:
        x: The model's input.
        y: What it returns.
        layers: What layers return in their last call, by the names that they were asked by.
    """

    x: Nest
    y: Nest
    layers: dict[str, Nest]


class ModelReader:
    """Reads a model as it is now, in its own precision, by one compiled function a question.

    Masks of time steps, states and fixed batch sizes are seen to; what the model writes is dropped.

    Args:
        model: A built model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        OpenModel.of(model)  # raises where the model is not built

    def outputs(self, x: Nest, batch_size: int | None = None) -> Nest:
        """What the model returns, float32 `[B, ...]`."""
        return self.read(x, "outputs", lambda seen: (seen.y, None), batch_size=batch_size)

    def logits(self, x: Nest, batch_size: int | None = None) -> Nest:
        """Each output's logits, float32 `[B, ...]`; of probabilities without, what leads to them.

        Raises:
            ValueError: An output is neither.
        """

        def logits(seen: Seen) -> tuple[Nest, None]:
            return tree.map_structure(lambda y: ending_of(y).class_logits, seen.y), None

        return self.read(x, "logits", logits, batch_size=batch_size)

    def activations(self, x: Nest, layer: str, batch_size: int | None = None) -> Nest:
        """What a layer, by name or path, returns in its last call, float32 `[B, ...]`."""
        return self.read(
            x, "activations", lambda seen: (seen.layers[layer], None), (layer,), batch_size
        )

    def read(
        self,
        x: Nest,
        key: str,
        of: Callable[[Seen], tuple[Nest, Any]],
        layers: Sequence[str] = (),
        batch_size: int | None = None,
    ) -> Nest:
        """What `of` makes of each batch in the graph, of all rows.

        Args:
            x: Inputs of the model, a nest of arrays `[B, ...]`.
            key: What stands for `of`, by which its compiled function is found again.
            of: Returns tensors `[n * k, ...]`, with k numbers for each row, and what is learned
                while it is traced.
            layers: The layers that it looks at.
            batch_size: How many rows go through the model at once.

        Raises:
            ValueError: The input is not what the model takes, a layer is not there, or the model
                draws random numbers.
        """
        x = inputs.checked(self.model, x)
        function, fixed = self.compiled(x, key, of, layers), OpenModel.of(self.model).fixed_batch
        structure: list[Nest] = []

        def read(at: np.ndarray) -> list[Tensor]:
            found = function.call(tree.map_structure(lambda leaf: leaf[at], x))
            structure[:] = [found]
            return tree.flatten(found)

        size = rows_at_once(x, batch_size, fixed)
        parts = joined(read, len(tree.flatten(x)[0]), size, fixed)
        return tree.pack_sequence_as(structure[0], parts)

    def compiled(
        self,
        x: Nest,
        key: str,
        of: Callable[[Seen], tuple[Nest, Any]],
        layers: Sequence[str] = (),
    ) -> Compiled:
        """The function of a batch that `read` calls; `x` may be tensors."""
        opened, specs = OpenModel.of(self.model), tree.map_structure(backend.spec, x)
        paths = {layer: opened.resolve(layer) for layer in layers}
        learned: list[Any] = []

        def read(x: Nest) -> Nest:
            before = len(traced.operations())
            with keras.StatelessScope(opened.zero_states()):  # what the model writes is dropped
                y, found = opened.call(x, dict.fromkeys(paths.values()), training=False)
            made = traced.operations()[before:]
            chance.check(tree.flatten((y, found)), made, (), opened.fixed_batch)
            result, known = of(Seen(x, y, {layer: found[path] for layer, path in paths.items()}))
            learned.append(known)
            return tree.map_structure(_float32, result)

        signature = str(tree.map_structure(lambda spec: (spec.shape, spec.dtype), specs))
        return opened.compiled(
            ("read", key, signature, *paths.values()),
            lambda: Compiled(backend.compile(read, specs), learned[-1]),
        )


def _float32(tensor: Tensor) -> Tensor:
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
    return ops.cast(tensor, "float32") if is_float else tensor
