"""The scores of an input of which features are hidden, for whoever asks for them."""

from dataclasses import replace
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops, tree

from keras_explain.core import arrays
from keras_explain.core.data.inputs import check_finite
from keras_explain.core.explainer import Call
from keras_explain.core.hiding.engine import seen_by_row
from keras_explain.core.hiding.perturbation import Hides
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.core.run.reductions import Each, Reduction

Tensor = Any
Nest = Any

MANY = 2**28
"""So many entries of what is visible are in the graph at a time: an int32 counts them."""


class Hidden:
    """An input whose features can be hidden, and the model's scores of what is left.

    Args:
        model: As an explainer takes it, as the following ones.
        x: The input.
        target: What is scored; of several classes, each.
        features: What is hidden together. As in `FeatureAblation`, as the following ones.
        groups: In its place, numbers of what belongs together.
        baseline: What takes the place of hidden features.
        background: In its place, rows, over which the scores are averaged.
        batch_size: How many rows go through the model at once.
        data_format: Where the channels of the input are.

    Attributes:
        labels: The feature of each place, a nest like `x` of int32 `[B, *places]`; -1 for what is
            never hidden. The numbers of a sample go on from input to input.
        counts: How many features each sample has, ints `[B]`.

    Example:
        `Hidden(model, x).scores([[True, False, True]])` are the scores without the second column.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Nest,
        target: Any = None,
        *,
        features: Any = None,
        groups: Any = None,
        baseline: Any = 0.0,
        background: Any = None,
        batch_size: int | None = None,
        data_format: Any = None,
    ) -> None:
        asked = _Visible(features=features, groups=groups, baseline=baseline, background=background)
        self._call = Call(asked, model, x, target, data_format)
        self._batch_size = batch_size
        explainer: Any = self._call.explainer
        self._hiding, self._cut = explainer.hiding, explainer.cut(self._call.forward)
        labels = self._cut.labels
        leaves = [labels[str(i)] for i in range(len(labels))]
        self.labels = tree.pack_sequence_as(self._call.x, leaves)
        self.counts = self._cut.counts

    def scores(self, visible: Any) -> np.ndarray:
        """The scores where only some features are visible.

        Args:
            visible: Booleans, or how much of a feature is seen, in [0, 1], `[B, passes, M]`, or
                `[passes, M]` for all samples, M at least the most features that a sample has;
                samples with fewer have no part in the rest.

        Returns:
            float32 `[B, passes, K]`, K the number of classes of the target.

        Raises:
            ValueError: `visible` is something else, or a score is not finite; or something is seen
                in part where NaN is.
        """
        visible = self._checked(visible)
        if visible.ndim == 2:
            return self._scores({"present": visible})
        rows = self._call.forward.batch_size(self._batch_size, scores_alone=True)
        at_once = max(1, MANY // (rows * visible.shape[-1]))
        found = []
        for i in range(0, visible.shape[1], at_once):
            some = visible[:, i : i + at_once]
            position = np.arange(some[0].size, dtype=np.int32).reshape(some.shape[1:])
            own = {"visible": some.reshape(len(some), -1)}
            found.append(self._scores({"position": position}, own))
        return np.concatenate(found, axis=1)

    def _scores(self, passes: dict[str, Any], own: dict[str, Any] | None = None) -> np.ndarray:
        rows = np.arange(len(self.counts), dtype=np.int32)
        own = {"labels": self._cut.labels, **(own or {})}
        share = Share(rows, self._hiding.against(passes), own)
        found = self._call.run(self._batch_size, seed=0, shares=[share])["values"]
        return np.swapaxes(found, 1, 2) if found.ndim == 3 else found[..., None]

    def _checked(self, visible: Any) -> np.ndarray:
        visible = arrays.plain(visible, "`visible`")
        samples, most = len(self.counts), max(self.counts)
        fits = visible.shape[:-2] in ((), (samples,)) and visible.ndim > 1
        if not fits or visible.shape[-1] < most or 0 in visible.shape:
            raise ValueError(
                f"Expected what is visible as [passes, {most}] or [{samples}, passes, {most}], for "
                f"up to {most} features of a sample. Received: shape {visible.shape}."
            )
        if visible.dtype == bool:
            return visible
        if visible.dtype.kind not in "iuf" or not ((visible >= 0) & (visible <= 1)).all():
            raise ValueError(
                "Expected what is visible as booleans, or shares from 0 to 1. "
                f"Received: {visible.dtype} {visible.ravel()[:8]}."
            )
        background = self._hiding.background
        for name, nest in (("`x`", self._call.x), ("`background`", background)):
            for leaf in [] if nest is None else tree.flatten(nest):
                check_finite(leaf, f"{name}, of which a part is seen")
        return visible.astype(np.float32)


class _Visible(Hides):
    """The scores of what is visible, pass by pass, as values `[n, K, passes]`."""

    reduce: ClassVar[Reduction] = Each()

    @property
    def plan(self) -> Plan:
        ragged = frozenset({"present", "visible", "position"})
        return replace(super().plan, unit=None, missing=True, ragged=ragged)

    def step(self, probe: Probe, x: Nest, target: Tensor, pass_: Pass) -> Tensor:
        if "present" in pass_.once:
            return self.hiding.scores_of_present(probe, target, pass_)
        visible, labels = pass_.shared["visible"], pass_.shared["labels"]  # [samples, passes * M]
        first = ops.shape(visible)[1] * pass_.sample[:, None]
        present = ops.take(ops.reshape(visible, (-1,)), first + pass_["position"])  # [n, M]
        seen = [seen_by_row(present, labels[str(i)], pass_) for i in range(len(labels))]
        return self.hiding.scores(probe, target, pass_, seen)

    def afterwards(self, x: Nest, result: dict[str, Any], share: Share) -> dict[str, Any]:
        super().afterwards(x, result, share)
        scores = self.hiding.averaged(result["values"])
        return {"values": np.swapaxes(scores, 1, 2).astype(np.float32)}
