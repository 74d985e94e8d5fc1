"""The tree term at work: the reference, the trees, what the penalty has learned, and the log."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain import backend
from keras_explain.training.live import LiveTerm
from keras_explain.training.term import Arrays, Batch
from keras_explain.trees import regions
from keras_explain.trees.checks import check_labels, check_loss
from keras_explain.trees.growing import Growth
from keras_explain.trees.log import TrainingLog
from keras_explain.trees.network import LiveNetwork
from keras_explain.trees.penalties.base import Sizes, Step
from keras_explain.trees.reference import LATER, NO_REFERENCE, Reference
from keras_explain.trees.regional_tree import RegionalTree
from keras_explain.trees.rows import RowReader, Rows, Table
from keras_explain.trees.surrogate_tree import SurrogateTree

if TYPE_CHECKING:
    from keras_explain.trees.term import Tree

Tensor = Any
Nest = Any

_SCALARS = ("apl", "leaves", "fidelity")


class LiveTree(LiveTerm):
    """The tree term at work on one model.

    Args:
        term: The term.
        name: Its name in `logs`.
        model: The model itself.
        retrace: To be called where the traced training step holds for the term no longer.
    """

    why_zero = (
        ": the trees had no question to save, or a surrogate was never fitted, which takes five "
        "fits of the tree (more epochs, or a smaller `refit_every`)"
    )
    term: Tree
    sizes: Sizes
    columns: int

    def __init__(
        self, term: Tree, name: str, model: keras.Model, retrace: Callable[[], None]
    ) -> None:
        super().__init__(term.replace(reference=LATER, prune_on=None), name, model, retrace)
        self.reader = RowReader(model, term.layer)
        self.source: Reference | None = None
        self._growth = Growth(term.min_samples_leaf, term.seed)
        self._log = TrainingLog(term.log_dir, self.say)
        self._prunes_elsewhere = False
        self._latest: tuple[LiveNetwork, SurrogateTree | RegionalTree] | None = None
        self._names: list[str] | None = None
        if term.reference is not LATER:
            self.set_reference(term.reference, term.prune_on)

    # The reference

    @property
    def reference(self) -> Nest | None:
        """The reference inputs that are used; None after loading, until they are set again."""
        return None if self.source is None else self.source.x

    @reference.setter
    def reference(self, x: Nest) -> None:
        self.set_reference(x)

    def set_reference(self, x: Nest, prune_on: Nest | None = None) -> None:
        """Sets the reference inputs, and those that trees are pruned on.

        Args:
            x: The reference inputs.
            prune_on: The others; `None` leaves them as they are.

        Raises:
            ValueError: They are not what the model takes, too few, or not as wide as before; or
                there is nothing to prune on after loading, where there was before saving.
        """
        if prune_on is None and self.source is not None:
            prune_on = self.source.prune_on
        if prune_on is None and self._prunes_elsewhere:
            raise ValueError(
                "Expected the inputs to prune trees on, too, since the model had such before it "
                "was saved: `model.set_reference(x_train, prune_on=x_val)`. Received: none."
            )
        self._prunes_elsewhere = prune_on is not None
        term = self.term
        source = Reference(self.reader, x, prune_on, term.subsample, term.batch_size, term.seed)
        rows, _ = source.read()
        names = self.reader.column_names(x, rows.features.shape[1])
        if not self.state:
            self._measure(source, rows)
        elif (rows.units, len(names)) != (self.sizes.classes, self.columns):
            raise ValueError(
                f"Expected a reference of {self.columns} columns and {self.sizes.classes} "
                f"classes, as before. Received: {len(names)} columns and {rows.units} classes."
            )
        is_another = self.source is not None
        self.source, self._names, self._latest = source, names, None
        if self.state:
            self._follow(is_another)

    def _measure(self, source: Reference, rows: Rows) -> None:
        """Notes what shapes depend on."""
        term, count = self.term, self.term.regions or 1
        self._clusters: Arrays = {}
        if callable(count):
            count = int(regions.numbered(count, rows.features).max()) + 1
        elif count > 1:
            self._clusters = regions.clusters(rows.features, count, term.seed)
        weights = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        probes = term.penalty.probe_rows
        outputs = source.outputs(probes).size if probes else 0
        self.sizes = Sizes(rows.units, count, weights, outputs)
        self.columns = rows.features.shape[1]

    def _follow(self, is_another: bool) -> None:
        """What was fitted to other rows is forgotten."""
        if is_another:
            self.state["fitted"].assign(0.0)
        known, probe = float(backend.to_numpy(self.state["probe"])), self._fingerprint
        self.state["probe"].assign(probe)
        if self.fitted and known != np.float32(probe):
            for name, array in self.term.penalty.state(self.sizes).items():
                self.part("penalty")[name].assign(array)
            self.state["fitted"].assign(0.0)
        self.tree_of(self.network())  # raises where a region has too few rows, or names don't fit
        self._retrace()  # the step holds the rows that were probed before

    @property
    def _fingerprint(self) -> float:
        """Of the rows for which a penalty has learned the model's outputs."""
        return 0.0 if self.source is None else self.source.fingerprint(self.term.penalty.probe_rows)

    # Its variables

    @property
    def ready(self) -> bool:
        return self.source is not None

    def first_state(self) -> Arrays:
        """Trees, surrogates and regions."""
        self.term.penalty.check(self.sizes)
        arrays: dict[str, Any] = {"fitted": 0.0, "probe": self._fingerprint}
        arrays |= {"measured": np.zeros(len(_SCALARS))}
        arrays |= {f"region/{name}": array for name, array in self._clusters.items()}
        state = self.term.penalty.state(self.sizes)
        return arrays | {f"penalty/{name}": array for name, array in state.items()}

    def build(self, add_weight: Callable[..., keras.Variable]) -> None:
        super().build(add_weight)
        if self.source is not None:
            self.tree_of(self.network())  # raises where a region has too few rows

    def build_config(self) -> dict[str, Any]:
        shapes = {name: list(v.shape) for name, v in self.part("region").items()}
        return {
            "sizes": self.sizes._asdict(),
            "columns": self.columns,
            "regions": shapes,
            "prune_on": self._prunes_elsewhere,
        }

    def restore(self, config: dict[str, Any]) -> None:
        self._clusters = {name: np.zeros(shape) for name, shape in config["regions"].items()}
        self.sizes, self.columns = Sizes(**config["sizes"]), config["columns"]
        self._prunes_elsewhere = config["prune_on"]

    def copied(self) -> None:
        self._log = self._log.elsewhere()

    def part(self, part: str) -> dict[str, keras.Variable]:
        """The variables of `"penalty"` or `"region"`."""
        prefix = part + "/"
        return {
            name.removeprefix(prefix): variable
            for name, variable in self.state.items()
            if name.startswith(prefix)
        }

    # The tree

    @property
    def tree(self) -> SurrogateTree | RegionalTree:
        """The tree that mimics the model as it is now; with `regions=`, a tree for each."""
        return self.tree_of(self.network())

    def network(self) -> LiveNetwork:
        """The model with its weights of now."""
        if self.source is None:
            raise ValueError(NO_REFERENCE)
        return LiveNetwork(
            self.reader,
            self.source,
            self._growth,
            self.sizes,
            self._region_of,
            self.term.penalty.probe_rows,
        )

    def tree_of(self, network: LiveNetwork) -> SurrogateTree | RegionalTree:
        """The tree, fitted again where the model has other predictions than at the last time."""
        known = self._latest
        if known is None or not network.sees_what(known[0]):
            self._latest = known = (network, self._named(network.measured))
        return known[1]

    def _named(self, trees: Sequence[SurrogateTree]) -> SurrogateTree | RegionalTree:
        features = self.term.feature_names or self._names
        named = tuple(
            dataclasses.replace(tree, reader=self.reader).named(features, self.term.class_names)
            for tree in trees
        )
        if self.sizes.regions == 1:
            return named[0]
        return RegionalTree(named, self.reader, self._region_of)

    def _region_of(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        if callable(self.term.regions):
            return regions.numbered(self.term.regions, features)
        return backend.to_numpy(regions.nearest(features, **self.part("region")))

    # In the training step

    def read(self, batch: Batch) -> Table:
        """The rows of the batch."""
        return self.reader.table(batch.x, batch.y_pred, batch.outputs.get(self.term.layer or ""))

    def rows(self, batch: Batch, read: Table) -> Tensor:
        return ops.sum(read.weight)

    def loss(self, batch: Batch, read: Table) -> Tensor:
        step = Step(
            ops.stop_gradient(read.features),
            read.logits,
            self._in_regions(read.features, read.weight),
            self._weights,
            self._probe,
        )
        omega = self.term.penalty.penalty(self.part("penalty"), step)
        return regions.total(omega, self.term.over_regions)

    def _in_regions(self, features: Tensor, weight: Tensor) -> Tensor:
        """How much each row counts in each region, `[n, R]`."""
        if self.sizes.regions == 1:
            return weight[:, None]
        if callable(self.term.regions):
            region = self.term.regions(features)
        else:
            region = regions.nearest(features, **self.part("region"))
        return weight[:, None] * ops.one_hot(region, self.sizes.regions)

    def _weights(self) -> Tensor:
        """All trainable weights `[weights]`, in the graph."""
        variables = self.model.trainable_variables
        return ops.concatenate([ops.reshape(ops.cast(v, "float32"), (-1,)) for v in variables])

    def _probe(self) -> Tensor:
        """The model's probabilities for the probe rows, in the graph."""
        assert self.source is not None
        x = self.source.probe(self.term.penalty.probe_rows)
        y, units = self.reader.call(x, training=False)
        return ops.reshape(ops.softmax(self.reader.table(x, y, units).logits), (-1,))

    # Between epochs

    def check_loss(self, loss: Any) -> None:
        check_loss(loss, of_logits=self.reader.of_logits)

    def check_labels(self, y: Any) -> None:
        if self.source is None:
            raise ValueError(NO_REFERENCE)
        check_labels(y, self.sizes.classes, self.reader.output_rank)

    @property
    def fitted(self) -> bool:
        return bool(backend.to_numpy(self.state["fitted"]))

    def refit(self) -> int | None:
        """Fits trees and the penalty to the model as it is now.

        Returns:
            The class that is predicted for every reference row, if it is one.
        """
        network, state = self.network(), self.part("penalty")
        known = {name: backend.to_numpy(variable) for name, variable in state.items()}
        for name, array in self.term.penalty.refit(network, known).items():
            state[name].assign(array)
        tree = self.tree_of(network)
        measured = (tree.average_path_length, tree.leaves, tree.agreement)
        self.state["measured"].assign(np.asarray(measured, np.float32))
        self.state["fitted"].assign(1.0)
        return network.collapsed()

    def scalars(self) -> dict[str, float]:
        measured = backend.to_numpy(self.state["measured"]).tolist()
        state = {name: backend.to_numpy(v) for name, v in self.part("penalty").items()}
        return {
            **dict(zip(_SCALARS, measured, strict=True)),
            "penalty": self.penalty,
            **self.term.penalty.scalars(state),
        }

    # While `fit` runs

    def begin_training(self) -> None:
        super().begin_training()
        self._log.open()

    def end_epoch(self, epoch: int, epochs: int, logs: Mapping[str, Any]) -> dict[str, float]:
        self._log.begin_step(epoch)
        return super().end_epoch(epoch, epochs, logs)

    def refit_after(self, epoch: int | None) -> None:
        """Fits trees after an epoch, or before the first; warns where that makes no sense."""
        when = "before training" if epoch is None else f"after epoch {epoch}"
        try:
            only_class = self.refit()
        except FloatingPointError as error:  # a callback such as TerminateOnNaN may end it well
            self.warn(f"No tree was fitted {when}. {error}")
            return
        if epoch is None:
            return
        self._log.write(self._latest[1] if self._latest else self.tree)
        if only_class is not None and self.current_strength:
            self.warn(
                f"The model predicts class {only_class} for every reference row {when}. The tree "
                "of a constant is as simple as it is useless. If the model was no constant before "
                "the penalty began, it has collapsed: use a smaller `strength`, a longer `warmup` "
                "or a longer `ramp`."
            )

    def end_training(self, epochs: int) -> None:
        self._log.close()
        super().end_training(epochs)
