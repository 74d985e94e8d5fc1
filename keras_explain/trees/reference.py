"""The reference: the rows that trees are fitted on while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import tree

from keras_explain import backend
from keras_explain.core import arrays
from keras_explain.core.data import inputs
from keras_explain.trees.rows import RowReader, Rows

Nest = Any

LATER = object()  # the reference of a model that was loaded, until it is set again
NO_REFERENCE = (
    "Expected `reference`, the inputs on which a tree mimics the model: as a rule the training "
    "inputs, `reference=x_train`. Received: none. It is not saved with a model: after loading, set "
    "`model.reference = x_train` again, or `model.set_reference(x_train, prune_on=x_val)`; of "
    "`kx.Regularized`, that of `model.terms['tree']`."
)


class Reference:
    """Reference inputs, and other inputs to prune trees on.

    Args:
        reader: How rows are read from the model.
        x: The reference inputs.
        prune_on: The other inputs; `None` keeps a share of the reference back.
        subsample: At most so many of each are used.
        batch_size: How many go through the model at once.
        seed: Draws the subsample.
    """

    def __init__(
        self,
        reader: RowReader,
        x: Nest,
        prune_on: Nest | None,
        subsample: int | None,
        batch_size: int | None,
        seed: int,
    ) -> None:
        if not all(arrays.is_array(leaf) or np.isscalar(leaf) for leaf in tree.flatten(x)):
            raise ValueError(
                "Expected arrays as `reference`, the inputs [N, ...] that the model takes. "
                f"Received: {type(x).__name__}. Of a dataset, take some batches together: "
                "`np.concatenate([x for x, y in dataset.take(100)])`."
            )
        self.reader, self._batch_size, self._seed = reader, batch_size, seed
        self.x = _sample(inputs.checked(reader.model, x, "`reference`"), subsample, seed)
        self.prune_on = None
        if prune_on is not None:
            self.prune_on = _sample(
                inputs.checked(reader.model, prune_on, "`prune_on`"), subsample, seed
            )

    def read(self) -> tuple[Rows, Rows | None]:
        """The rows of both, with what the model predicts for them now."""
        rows = self.reader.read(self.x, self._batch_size)
        if self.prune_on is None:
            return rows, None
        return rows, self.reader.read(self.prune_on, self._batch_size)

    def probe(self, rows: int) -> Nest:
        """At most so many of the reference inputs."""
        return _sample(self.x, rows, self._seed)

    def fingerprint(self, rows: int) -> float:
        """A number that differs for another probe."""
        parts = tree.flatten(self.probe(rows)) if rows else []
        weighed = (np.average(p.ravel(), weights=np.arange(1, p.size + 1)) for p in parts)
        return float(sum(weighed))

    def outputs(self, rows: int) -> npt.NDArray[np.float32]:
        """The model's probabilities for the probe, `[outputs]`."""
        return self.reader.read(self.probe(rows), masked=True).probabilities.ravel()


def by_region(
    rows: Rows,
    prune_on: Rows | None,
    regions: int,
    region_of: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]],
) -> list[tuple[Rows, Rows | None]]:
    """The rows of each region."""
    if regions == 1:
        return [(rows, prune_on)]
    of_row = region_of(rows.features)
    of_other = None if prune_on is None else region_of(prune_on.features)
    return [
        (
            rows.take(of_row == region),
            None if prune_on is None else prune_on.take(of_other == region),
        )
        for region in range(regions)
    ]


def _sample(x: Nest, count: int | None, seed: int) -> Nest:
    """At most so many inputs, drawn by the seed, in their own order."""
    size = len(tree.flatten(x)[0])
    drawn = np.sort(backend.random_permutation(seed, size)[: count or size])
    return tree.map_structure(lambda leaf: leaf[drawn], x)
