"""Tree regularization: a model is trained to be one that a small decision tree can mimic."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain import backend
from keras_explain.sinks.trees import TreeLog
from keras_explain.trees import regions
from keras_explain.trees.checks import check_labels, check_loss, check_model
from keras_explain.trees.network import LiveNetwork
from keras_explain.trees.options import Options
from keras_explain.trees.penalties import Penalty, TreeDistillation
from keras_explain.trees.penalties.base import Sizes, Step
from keras_explain.trees.reference import Growth, Reference
from keras_explain.trees.regional_tree import RegionalTree
from keras_explain.trees.rows import Reader, Rows
from keras_explain.trees.schedule import TreeCallback
from keras_explain.trees.surrogate_tree import SurrogateTree

Tensor = Any
Nest = Any

_LATER = object()  # the reference of a model that was loaded, until it is set again
_NO_REFERENCE = (
    "Expected `reference`, the inputs on which a tree mimics the model: as a rule the training "
    "inputs, `reference=x_train`. Received: none. It is not saved with a model: after loading, set "
    "`model.reference = x_train` again, or `model.set_reference(x_train, prune_on=x_val)`."
)
_SCALARS = ("apl", "leaves", "fidelity")


@keras.saving.register_keras_serializable(package="keras_explain")
class TreeRegularization(keras.Model):
    """A model that is trained so that a small decision tree can mimic it.

    To the loss of the task a penalty is added while training,

        loss + strength * ramp(epoch) * Omega,

    where Omega measures how far the model is from a small tree that is fitted to it, again every
    few epochs. The trees in `tree` and in the logs are the ones people read: grown without a
    limit on the reference, pruned on rows held out.

    Wu et al., "Beyond Sparsity: Tree Regularization of Deep Models for Interpretability", AAAI
    2018, https://arxiv.org/abs/1711.06178. Regions: Wu et al., "Regional Tree Regularization for
    Interpretability in Deep Neural Networks", AAAI 2020, https://arxiv.org/abs/1908.04494.

    `compile`, `fit`, `evaluate`, `predict` and `save` are as ever. At the end of an epoch, `logs`
    has

    | scalar          | what                                                                     |
    |-----------------|--------------------------------------------------------------------------|
    | `tree/apl`      | average path length of the tree over the reference rows                  |
    | `tree/leaves`   | how many leaves it has                                                   |
    | `tree/fidelity` | the share of held-out rows for which it says what the model says         |
    | `tree/penalty`  | mean of what was added to the loss, `strength * ramp * Omega`            |

    The validation loss does not contain the penalty. With `strength=0` the model is trained exactly
    as it would be alone, and there are no such scalars.

    Args:
        model: A built classifier with one output: a logit or sigmoid `[B, 1]`, logits or a softmax
            `[B, C]`, or one of these at each time step `[B, T, C]`.
        reference: The inputs on which the tree mimics the model, as a rule the training inputs. It
            is not saved with the model: after loading, set `model.reference` again.
        strength: The weight of the penalty.
        penalty: What is added, a `kx.trees.Penalty`; by default `kx.trees.TreeDistillation()`.
        prune_on: Other inputs, to prune trees on; `None` keeps 30 % of the reference back for it.
        warmup: The fraction of `fit`'s epochs before the penalty begins.
        ramp: The fraction of `fit`'s epochs in which it then grows to its full strength.
        refit_every: How many epochs lie between two fits of the tree.
        subsample: At most so many reference rows are used; `None` uses all.
        regions: How many regions of the input have a tree of their own, found by k-means, or a
            function from rows `[n, D]` to their regions, ints `[n]` from 0, in `keras.ops`.
        over_regions: How the penalties of the regions make one: `"sum"`, `"max"`, or `"sparsemax"`,
            their mean weighted by `sparsemax(penalties)`.
        layer: A layer, by name or path, whose units the tree asks about in place of the input.
        min_samples_leaf: No leaf of a tree gets fewer of the rows that it is grown on.
        feature_names: A name per column, for `tree`.
        class_names: A name per class, for `tree`.
        log_dir: The directory that TensorBoard is started on: every fitted tree is written to
            `<log_dir>/explain`, as text, as a picture and for the Explain tab. With an
            `ExplanationLogger` on the same directory, the tab shows its samples' ways through it.
            A copy of this model writes to `<log_dir>/copy_1/explain`, or the next that is free.
        batch_size: How many reference rows go through the model at once.
        seed: Seed of all that is drawn.
        name: The name of this model.

    Attributes:
        model: The model itself, to save and serve without this package.

    Raises:
        ValueError: The model is not built, is no classifier with one output, or can predict one
            class only; the reference is missing, not what the model takes, or too small.

    Example:

    ```python
    model = kx.TreeRegularization(net, strength=1.0, reference=x_train)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=100, validation_data=(x_val, y_val))
    print(model.tree.to_text(), model.tree.fidelity(x_test))
    model.model.save("plain.keras")
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        reference: Nest | None = None,
        strength: float = 1.0,
        penalty: Penalty | None = None,
        prune_on: Nest | None = None,
        warmup: float = 0.5,
        ramp: float = 0.1,
        refit_every: int = 1,
        subsample: int | None = 5_000,
        regions: int | Callable[[Tensor], Tensor] | None = None,
        over_regions: Literal["sum", "max", "sparsemax"] = "sparsemax",
        layer: str | None = None,
        min_samples_leaf: int = 5,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        check_model(model)
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        options = Options(
            strength=strength,
            penalty=TreeDistillation() if penalty is None else penalty,
            warmup=warmup,
            ramp=ramp,
            refit_every=refit_every,
            subsample=subsample,
            regions=regions,
            over_regions=over_regions,
            layer=layer,
            min_samples_leaf=min_samples_leaf,
            feature_names=None if feature_names is None else tuple(map(str, feature_names)),
            class_names=None if class_names is None else tuple(map(str, class_names)),
            log_dir=None if log_dir is None else os.fspath(log_dir),
            batch_size=batch_size,
            seed=seed,
        )
        self.model, self.options = model, options
        self._reader = Reader(model, options.layer)
        self._growth = Growth(options.min_samples_leaf, options.seed)
        self._run = _Run(options.log_dir)
        self._reference: Reference | None = None
        self._prunes_elsewhere = False
        self._state: dict[str, keras.Variable] = {}
        self.built = reference is not _LATER  # else by `build_from_config`
        if reference is None:
            raise ValueError(_NO_REFERENCE)
        if reference is not _LATER:
            self.set_reference(reference, prune_on)

    # The reference

    @property
    def reference(self) -> Nest | None:
        """The reference inputs that are used; None after loading, until they are set again."""
        return None if self._reference is None else self._reference.x

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
        options = self.options
        if prune_on is None and self._reference is not None:
            prune_on = self._reference.prune_on
        if prune_on is None and self._prunes_elsewhere:
            raise ValueError(
                "Expected the inputs to prune trees on, too, since the model had such before it "
                "was saved: `model.set_reference(x_train, prune_on=x_val)`. Received: none."
            )
        self._prunes_elsewhere = prune_on is not None
        if self._reference is not None:
            self._state["fitted"].assign(0.0)
        reference = Reference(
            self._reader, x, prune_on, options.subsample, options.batch_size, options.seed
        )
        rows, _ = reference.read()
        names = self._reader.column_names(x, rows.features.shape[1])
        if not self._state:
            self._make_state(*self._sizes_of(reference, rows))
        elif (rows.units, len(names)) != (self._sizes.classes, self._columns):
            raise ValueError(
                f"Expected a reference of {self._columns} columns and {self._sizes.classes} "
                f"classes, as before. Received: {len(names)} columns and {rows.units} classes."
            )
        self._forget_another_probe(reference.fingerprint(options.penalty.probe_rows))
        self._reference, self._run.names = reference, names
        self._run.latest = None
        self._tree_of(self._network())  # raises where a region has too few rows, or names don't fit
        self.train_function = None  # it holds the rows that were probed before

    def _forget_another_probe(self, fingerprint: float) -> None:
        """What a penalty has learned of the outputs for some rows does not hold for others."""
        known = float(backend.to_numpy(self._state["probe"]))
        self._state["probe"].assign(fingerprint)
        if self.fitted and known != np.float32(fingerprint):
            for name, array in self.options.penalty.state(self._sizes).items():
                self._part("penalty")[name].assign(array)
            self._state["fitted"].assign(0.0)

    def _sizes_of(self, reference: Reference, rows: Rows) -> tuple[Sizes, int, dict[str, Any]]:
        options, found = self.options, {}
        count = options.regions or 1
        if callable(count):
            count = int(regions.numbered(count, rows.features).max()) + 1
        elif count > 1:
            found = regions.clusters(rows.features, count, options.seed)
        weights = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        probes = options.penalty.probe_rows
        outputs = reference.outputs(probes).size if probes else 0
        return Sizes(rows.units, count, weights, outputs), rows.features.shape[1], found

    def _make_state(self, sizes: Sizes, columns: int, clusters: dict[str, Any]) -> None:
        """Creates the variables that hold trees, surrogates, regions and the schedule."""
        self.options.penalty.check(sizes)
        self._sizes, self._columns = sizes, columns
        arrays: dict[str, Any] = dict.fromkeys(("strength", "fitted", "probe"), 0.0)
        arrays |= {"measured": np.zeros(len(_SCALARS))}
        arrays |= {f"region/{name}": array for name, array in clusters.items()}
        state = self.options.penalty.state(sizes)
        arrays |= {f"penalty/{name}": array for name, array in state.items()}
        for name, array in arrays.items():
            array = np.asarray(array)
            self._state[name] = self.add_weight(
                shape=array.shape,
                initializer="zeros",
                dtype="int32" if array.dtype.kind == "i" else "float32",
                trainable=False,
                autocast=False,
                name=name.replace("/", "_"),
            )
            self._state[name].assign(array)

    def _part(self, part: str) -> dict[str, keras.Variable]:
        """The variables of `"penalty"` or `"region"`."""
        prefix = part + "/"
        return {
            name.removeprefix(prefix): variable
            for name, variable in self._state.items()
            if name.startswith(prefix)
        }

    def _region_of(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        if callable(self.options.regions):
            return regions.numbered(self.options.regions, features)
        return backend.to_numpy(regions.nearest(features, **self._part("region")))

    def _network(self) -> LiveNetwork:
        if self._reference is None:
            raise ValueError(_NO_REFERENCE)
        return LiveNetwork(
            self._reader,
            self._reference,
            self._growth,
            self._sizes,
            self._region_of,
            self.options.penalty.probe_rows,
        )

    # The tree

    @property
    def tree(self) -> SurrogateTree | RegionalTree:
        """The tree that mimics the model as it is now; with `regions=`, a tree for each."""
        return self._tree_of(self._network())

    def _tree_of(self, network: LiveNetwork) -> SurrogateTree | RegionalTree:
        known = self._run.latest
        if known is None or not network.sees_what(known[0]):
            self._run.latest = known = (network, self._named(network.measured))
        return known[1]

    def _named(self, trees: Sequence[SurrogateTree]) -> SurrogateTree | RegionalTree:
        features = self.options.feature_names or self._run.names
        named = tuple(
            dataclasses.replace(tree, reader=self._reader).named(features, self.options.class_names)
            for tree in trees
        )
        if self._sizes.regions == 1:
            return named[0]
        return RegionalTree(named, self._reader, self._region_of)

    # Training

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`.

        Raises:
            ValueError: The loss is one of regression, or takes the model's logits for
                probabilities.
        """
        check_loss(loss, of_logits=self._reader.of_logits)
        super().compile(optimizer, loss, *args, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as saved; Keras itself does so only for models with its own `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Raises:
            ValueError: There is no reference, or labels of one class only.
        """
        if not self.options.strength:
            return super().fit(*args, **kwargs)
        if self._reference is None:
            raise ValueError(_NO_REFERENCE)
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        check_labels(given.get("y"), self._sizes.classes, self._reader.output_rank)
        with _first(TreeCallback(), given.get("callbacks")) as callbacks:
            return super().fit(**given | {"callbacks": callbacks})

    def call(self, inputs: Nest, training: bool | None = None) -> Tensor:
        """What the model returns."""
        if not training or self.options.layer is None:
            return self.model(inputs, training=training)
        y, self._run.units.output = self._reader.call(inputs, training=training)
        return y

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of the task, and while training, the penalty."""
        loss = super().compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
        )
        if not training or not self.options.strength:
            return loss
        added, rows = self._term(x, y_pred)
        self._run.added.assign_add(ops.stack([added * rows, rows]))
        return loss + ops.cast(added / backend.replica()[1], loss.dtype)

    def _term(self, x: Nest, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """`strength * ramp * Omega`, not evaluated while that is 0; and the number of rows."""
        units = getattr(self._run.units, "output", None)
        features, logits, weight = self._reader.table(x, y_pred, units)
        strength = ops.convert_to_tensor(self._state["strength"])

        def term() -> Tensor:
            step = Step(
                ops.stop_gradient(features),
                logits,
                self._in_regions(features, weight),
                self._weights,
                self._probe,
            )
            omega = self.options.penalty.penalty(self._part("penalty"), step)
            return strength * regions.total(omega, self.options.over_regions)

        added = ops.cond(strength > 0, term, lambda: ops.zeros_like(strength))
        return added, ops.sum(weight)

    def _in_regions(self, features: Tensor, weight: Tensor) -> Tensor:
        """How much each row counts in each region, `[n, R]`."""
        if self._sizes.regions == 1:
            return weight[:, None]
        if callable(self.options.regions):
            region = self.options.regions(features)
        else:
            region = regions.nearest(features, **self._part("region"))
        return weight[:, None] * ops.one_hot(region, self._sizes.regions)

    def _weights(self) -> Tensor:
        """All trainable weights `[weights]`, in the graph."""
        variables = self.model.trainable_variables
        return ops.concatenate([ops.reshape(ops.cast(v, "float32"), (-1,)) for v in variables])

    def _probe(self) -> Tensor:
        """The model's probabilities for the probe rows, in the graph."""
        assert self._reference is not None
        x = self._reference.probe(self.options.penalty.probe_rows)
        y, units = self._reader.call(x, training=False)
        return ops.reshape(ops.softmax(self._reader.table(x, y, units).logits), (-1,))

    # What the callback asks for

    @property
    def fitted(self) -> bool:
        """Whether the penalty has been fitted to the model."""
        return bool(backend.to_numpy(self._state["fitted"]))

    @property
    def current_strength(self) -> float:
        """What the penalty is multiplied by in this epoch."""
        return float(backend.to_numpy(self._state["strength"]))

    def begin_epoch(self, ramp: float) -> None:
        """Sets how much of the strength counts from here on."""
        self._state["strength"].assign(self.options.strength * ramp)
        self._run.added.assign(np.zeros(2, np.float32))

    def end_epoch(self, epoch: int) -> int:
        """The epoch's step in the log: its number, or the next one if that was had before."""
        self._run.step = max(epoch, self._run.step + 1)
        return self._run.step

    def refit(self) -> int | None:
        """Fits trees and the penalty to the model as it is now.

        Returns:
            The class that is predicted for every reference row, if it is one.
        """
        network = self._network()
        state = self._part("penalty")
        known = {name: backend.to_numpy(variable) for name, variable in state.items()}
        for name, array in self.options.penalty.refit(network, known).items():
            state[name].assign(array)
        tree = self._tree_of(network)
        measured = (tree.average_path_length, tree.leaves, tree.agreement)
        self._state["measured"].assign(np.asarray(measured, np.float32))
        self._state["fitted"].assign(1.0)
        return network.collapsed()

    def scalars(self) -> dict[str, float]:
        """The scalars of the latest fit and of the epoch, by name."""
        found = dict(zip(_SCALARS, backend.to_numpy(self._state["measured"]).tolist(), strict=True))
        state = {name: backend.to_numpy(v) for name, v in self._part("penalty").items()}
        total, rows = backend.to_numpy(self._run.added)
        return {
            **found,
            "penalty": float(total / max(rows, 1)),
            **self.options.penalty.scalars(state),
        }

    def open_log(self) -> None:
        """Opens the event file, where there is to be one.

        Raises:
            OSError: It can't be written.
        """
        if self._run.log is not None:
            self._run.log.open()

    def log_tree(self, step: int) -> None:
        """Writes the tree to the event file, where there is one.

        Raises:
            NotWrittenError: One before was not written.
            ValueError: Another model has begun to log to this directory.
        """
        if self._run.log is not None:
            self._run.log.write(step, self.tree)

    def close_log(self) -> None:
        """Closes the event file, where there is one.

        Raises:
            NotWrittenError: A tree was not written.
        """
        if self._run.log is not None:
            self._run.log.close()

    # Saving and copying

    def __reduce__(self) -> Any:
        """A copy, by `copy.deepcopy` or `pickle`, logs to a directory of its own."""
        load, arguments = super().__reduce__()
        return _load_copy, (load, *arguments)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`, of the plain model."""
        return self.model.export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        if getattr(self.options.regions, "__name__", "") == "<lambda>":
            raise ValueError(
                "Expected `regions` to be a function with a name, to save a model with it. "
                "Received: a lambda."
            )
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "options": self.options.get_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        options = Options.from_config(config["options"])
        fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        return cls(model, reference=_LATER, name=config["name"], **fields)

    def get_build_config(self) -> dict[str, Any]:
        shapes = {name: list(v.shape) for name, v in self._part("region").items()}
        return {
            "sizes": self._sizes._asdict(),
            "columns": self._columns,
            "regions": shapes,
            "prune_on": self._prunes_elsewhere,
        }

    def build_from_config(self, config: dict[str, Any]) -> None:
        clusters = {name: np.zeros(shape) for name, shape in config["regions"].items()}
        self._make_state(Sizes(**config["sizes"]), config["columns"], clusters)
        self._prunes_elsewhere = config["prune_on"]
        self.built = True


def _load_copy(load: Callable[..., TreeRegularization], *arguments: Any) -> TreeRegularization:
    model = load(*arguments)
    model._run.log = copy.copy(model._run.log)
    return model


class _Run:
    """What belongs to this object alone, and is not saved with it."""

    def __init__(self, log_dir: str | None) -> None:
        self.added = keras.Variable(  # the sum over rows in this epoch, and their number
            "zeros",
            shape=(2,),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="sum",
            synchronization="on_read",
            name="penalty",
        )
        self.units = threading.local()  # of the layer, in the step that a thread traces
        self.latest: tuple[LiveNetwork, SurrogateTree | RegionalTree] | None = None
        self.names: list[str] | None = None
        self.step = -1  # of the last epoch, in the log
        self.log = None if log_dir is None else TreeLog(log_dir)


@contextlib.contextmanager
def _first(callback: keras.callbacks.Callback, others: Any) -> Iterator[Any]:
    """Callbacks with one more in front; a user's `CallbackList` has it only inside."""
    if not isinstance(others, keras.callbacks.CallbackList):
        given = others if isinstance(others, (list, tuple)) else [] if others is None else [others]
        yield [callback, *given]
        return
    callback.set_model(others.model)
    callback.set_params(others.params)
    others.callbacks.insert(0, callback)
    try:
        yield others
    finally:
        others.callbacks.remove(callback)
