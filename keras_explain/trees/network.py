"""A model that trains, as its penalty and its trees see it on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_explain import backend
from keras_explain.trees.growing import Grown, Growth
from keras_explain.trees.penalties.base import Floats, Network, Sizes
from keras_explain.trees.reference import Reference, by_region
from keras_explain.trees.rows import RowReader
from keras_explain.trees.surrogate_tree import SurrogateTree

RegionOf = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.int64]]


class LiveNetwork(Network):
    """A model with its weights of now.

    Args:
        reader: How rows are read from the model.
        reference: The rows that trees are fitted on.
        growth: How trees are grown.
        sizes: What shapes depend on.
        region_of: The region of each row.
        probe_rows: How many reference rows are probed.
    """

    def __init__(
        self,
        reader: RowReader,
        reference: Reference,
        growth: Growth,
        sizes: Sizes,
        region_of: RegionOf,
        probe_rows: int = 0,
    ) -> None:
        self.sizes = sizes
        self._reader, self._reference, self._growth = reader, reference, growth
        self._region_of, self._probe_rows = region_of, probe_rows
        self.rows, self.prune_on = reference.read()

    @functools.cached_property
    def measured(self) -> list[SurrogateTree]:
        """The trees that people read: of each region, grown without a limit, and pruned."""
        return self._pruned(None)

    def trees(self, max_leaf_nodes: int | None = None) -> list[SurrogateTree]:
        return self.measured if max_leaf_nodes is None else self._pruned(max_leaf_nodes)

    def _pruned(self, max_leaf_nodes: int | None) -> list[SurrogateTree]:
        return [SurrogateTree.of(grown.pruned(max_leaf_nodes), self.rows) for grown in self._grown]

    @functools.cached_property
    def _grown(self) -> list[Grown]:
        parts = by_region(self.rows, self.prune_on, self.sizes.regions, self._region_of)
        found = []
        for region, (rows, other) in enumerate(parts):
            try:
                found.append(self._growth.grown(rows, other))
            except ValueError as error:
                if len(parts) > 1:
                    error.add_note(f"This is about region {region} of {len(parts)}.")
                raise
        return found

    def weights(self) -> Floats:
        arrays = [backend.to_numpy(v).ravel() for v in self._reader.model.trainable_variables]
        weights = np.concatenate(arrays).astype(np.float32)
        if weights.size != self.sizes.weights:
            raise ValueError(
                f"Expected {self.sizes.weights} trainable weights, as when the penalty was made. "
                f"Received: {weights.size}, since layers were frozen or unfrozen. Make a new "
                "TreeRegularization of `model.model`."
            )
        return weights

    @property
    def ends(self) -> list[int]:
        sizes = [int(np.prod(v.shape)) for v in self._reader.model.trainable_variables]
        return np.cumsum(sizes)[:-1].tolist()

    def outputs(self) -> Floats:
        return self._reference.outputs(self._probe_rows)

    def at(self, weights: Floats) -> tuple[Floats, Floats]:
        variables = self._reader.model.trainable_variables
        before = [backend.to_numpy(v) for v in variables]
        try:
            for variable, part in zip(variables, np.split(weights, self.ends), strict=True):
                variable.assign(part.reshape(variable.shape))
            return self._here()
        finally:
            for variable, array in zip(variables, before, strict=True):
                variable.assign(array)

    def _here(self) -> tuple[Floats, Floats]:
        there = LiveNetwork(
            self._reader,
            self._reference,
            self._growth,
            self.sizes,
            self._region_of,
            self._probe_rows,
        )
        outputs = there.outputs() if self._probe_rows else np.zeros(0, np.float32)
        lengths = [tree.average_path_length for tree in there.measured]
        return outputs, np.asarray(lengths, np.float32)

    def sees_what(self, other: LiveNetwork) -> bool:
        """Whether another one has the same rows and predictions, and so the same trees."""
        if self.prune_on is None or other.prune_on is None:
            return self.prune_on is other.prune_on and self.rows.same_as(other.rows)
        return self.prune_on.same_as(other.prune_on) and self.rows.same_as(other.rows)

    def collapsed(self) -> int | None:
        """The class that is predicted for all reference rows, if it is one."""
        found: npt.NDArray[Any] = np.unique(self.rows.classes)
        return int(found[0]) if len(found) == 1 else None
