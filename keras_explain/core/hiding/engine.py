"""The model's scores where parts of the input are hidden: one engine for all that ask.

A pass hides something of every sample of a chunk, and the model runs on what is left. What takes
the place of what is hidden is a baseline, or the rows of a background, over which scores are
averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data import background as backgrounds
from keras_explain.core.data import baselines
from keras_explain.core.data.baselines import Baseline
from keras_explain.core.model.finite import NotFiniteError
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass

Tensor = Any
Nest = Any


@dataclass(frozen=True, eq=False)
class Hiding:
    """What takes the place of what is hidden, and the scores of what is left.

    Attributes:
        baselines: The baseline of each leaf of the input.
        background: In their place, rows `[N, ...]`.
    """

    baselines: Sequence[Baseline] = ()
    background: Nest = None

    # On the host

    @property
    def rows(self) -> int:
        """In how many ways the place of what is hidden is taken."""
        return 1 if self.background is None else backgrounds.size(self.background)

    def against(self, passes: dict[str, Any]) -> dict[str, Any]:
        """Each pass with each row of the background."""
        if self.background is None:
            return passes
        count = len(tree.flatten(passes)[0])
        repeated = tree.map_structure(lambda leaf: np.repeat(leaf, self.rows, axis=0), passes)
        return repeated | {"reference": np.tile(np.arange(self.rows, dtype=np.int32), count)}

    def averaged(self, scores: np.ndarray) -> np.ndarray:
        """Of the scores `[n, passes * rows, K]` of `against`, float64 `[n, passes, K]`."""
        scores = scores.astype(np.float64)
        return scores.reshape(len(scores), -1, self.rows, scores.shape[-1]).mean(axis=2)

    def check_finite(self, x: Nest, rows: np.ndarray, whole: np.ndarray, values: Nest) -> None:
        """Raises where the score of an input, or what came of hiding parts of it, is not finite.

        Args:
            x: The samples' inputs, arrays `[n, ...]`.
            rows: The samples' positions in the user's batch, ints `[n]`.
            whole: Their scores, `[n, ...]`.
            values: A nest of arrays `[n, ...]`.
        """
        bad = ~_finite_rows(whole)
        if bad.any():
            _check_missing("`x`", x, rows)
            raise NotFiniteError(
                "Expected a finite score to explain. Received: NaN or infinity for sample "
                f"{int(rows[bad.argmax()])} itself.",
                int(rows[bad.argmax()]),
            )
        bad = ~np.all([_finite_rows(leaf) for leaf in tree.flatten(values)], axis=0)
        if bad.any():
            if self.background is not None:
                _check_missing("`background`", self.background)
            raise ValueError(
                "Expected finite scores where features are hidden. Received: NaN or infinity for "
                f"sample {int(rows[bad.argmax()])}: the model is not defined there, as an "
                "average over no tokens is not. Choose another `baseline`; for token ids a mask "
                "that is no padding, such as `features=keras_explain.features.Tokens(mask=1)`; a "
                "text must have a token."
            )

    # In the graph

    def prepare(self, probe: Probe) -> dict[str, Any]:
        """What all passes over a sample share: its baselines, one for each leaf."""
        leaves = tree.flatten(probe.inputs)
        made = baselines.apply(list(self.baselines), leaves, probe.row, probe.layouts)
        return {"fill": made}

    def fill_of_rows(self, probe: Probe, pass_: Pass) -> Nest:
        """What takes the place of what is hidden, for each row of a step: a nest like the input."""
        if self.background is not None:
            return backgrounds.rows(self.background, probe.inputs, pass_["reference"])
        return tree.pack_sequence_as(probe.inputs, pass_.for_rows(pass_.shared["fill"]))

    def scores(
        self, probe: Probe, target: Tensor, pass_: Pass, visible: Sequence[Tensor]
    ) -> Tensor:
        """The scores `[n, K]` of the inputs where only a part is visible.

        Args:
            probe: The opened model.
            target: Ints `[n, K]`.
            pass_: What `step` received.
            visible: For each leaf of the input how much of each place is seen, booleans or shares
                in [0, 1], `[passes, samples, *places]`, where either axis may be 1.
        """
        inputs, leaves = tree.flatten(pass_.inputs), []
        for x, f, v, layout in zip(inputs, self._fill(pass_), visible, probe.layouts, strict=True):
            seen = layout.over_channels(v, len(x.shape), lead=2)
            leaves.append(ops.reshape(_mixed(x[None], f, seen), (-1, *x.shape[1:])))
        return probe.score_inputs(tree.pack_sequence_as(probe.inputs, leaves), target)

    def scores_of_present(self, probe: Probe, target: Tensor, pass_: Pass) -> Tensor:
        """The scores `[n, K]` where the features in `pass_["present"]` `[n, M]` are visible."""
        visible = [seen(pass_, str(i)) for i in range(len(pass_.shared["labels"]))]
        return self.scores(probe, target, pass_, visible)

    def _fill(self, pass_: Pass) -> list[Tensor]:
        """For each leaf `[passes, samples, ...]`, where either axis may be 1."""
        if self.background is None:
            return [leaf[None] for leaf in pass_.shared["fill"]]
        rows = backgrounds.rows(self.background, pass_.inputs, pass_.once["reference"])
        return [leaf[:, None] for leaf in tree.flatten(rows)]


def looked_up(present: Tensor, labels: Tensor) -> Tensor:
    """Whether the feature of each place is present, `[n, *places]`; what is of none is there.

    Args:
        present: `[n, M]`.
        labels: The feature of each place, `[n, *places]`; -1 for none.
    """
    always = ops.ones_like(present[:, :1])
    present = ops.concatenate([present, always], axis=1)
    n, width = ops.shape(present)[0], ops.shape(present)[1]
    first = ops.reshape(width * ops.arange(n), (-1,) + (1,) * (len(labels.shape) - 1))
    position = first + ops.where(labels < 0, width - 1, labels)
    return ops.take(ops.reshape(present, (-1,)), position, axis=0)


def seen(pass_: Pass, leaf: str) -> Tensor:
    """Which places of a leaf are there, by `pass_["present"]`: `[passes, samples, *places]`.

    Where all samples have the same features, the axis of the samples is 1.

    Args:
        pass_: What `step` received.
        leaf: The position of the leaf among the inputs.
    """
    labels = pass_.shared["labels"][leaf]
    places = tuple(labels.shape[1:])

    def once() -> Tensor:
        present = pass_.once["present"]
        by_feature = ops.transpose(
            ops.concatenate([ops.ones_like(present[:, :1]), present], axis=1)
        )
        found = ops.take(by_feature, ops.reshape(labels[0], (-1,)) + 1, axis=0)
        return ops.reshape(ops.transpose(found), (-1, 1, *places))

    def each() -> Tensor:
        return seen_by_row(pass_["present"], labels, pass_)

    return ops.cond(ops.all(labels == labels[:1]), once, each)


def seen_by_row(present: Tensor, labels: Tensor, pass_: Pass) -> Tensor:
    """Which places are there, `[passes, samples, *places]`, of what each row `[n, M]` has."""
    found = looked_up(present, pass_.for_rows(labels))
    return ops.reshape(found, (-1, ops.shape(labels)[0], *labels.shape[1:]))


def for_rows(array: Tensor, pass_: Pass) -> Tensor:
    """What is of passes and samples, `[passes, samples, ...]` (either axis may be 1), of rows."""
    counts = [ops.shape(tree.flatten(of)[0])[0] for of in (pass_.once, pass_.inputs)]
    return ops.reshape(ops.broadcast_to(array, (*counts, *array.shape[2:])), (-1, *array.shape[2:]))


def _mixed(x: Tensor, fill: Tensor, visible: Tensor) -> Tensor:
    if visible.dtype == "bool":
        return backend.choose(visible, x, fill)
    if not keras.backend.is_float_dtype(x.dtype):
        return backend.choose(visible >= 0.5, x, fill)
    return fill + visible * (x - fill)


def _finite_rows(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array).reshape(len(array), -1).all(axis=1)


def _check_missing(name: str, nest: Nest, rows: np.ndarray | None = None) -> None:
    """Raises where NaN is in what a model was given that does not know what to do with it."""
    for leaf in tree.flatten(nest):
        found = np.isnan(leaf) if leaf.dtype.kind == "f" else np.zeros(leaf.shape, bool)
        if found.any():
            row = int(np.nonzero(found)[0][0])
            raise ValueError(
                f"Expected finite numbers as {name}, since the model makes NaN of NaN. "
                f"Received: NaN in row {row if rows is None else int(rows[row])}."
            )
