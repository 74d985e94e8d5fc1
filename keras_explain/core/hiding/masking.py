"""Perturbation: what becomes of the score where features are hidden.

One engine for all methods of the family. A pass hides some features of every sample of a chunk; the
model runs on what is left. What takes the place of a hidden feature is a baseline, or the rows of a
background, over which the score is averaged.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data import background as backgrounds
from keras_explain.core.data import baselines
from keras_explain.core.data.layout import Layout
from keras_explain.core.explainer import Explainer
from keras_explain.core.hiding import features as cuts
from keras_explain.core.model.finite import NotFiniteError
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import About, Pass, Plan, Share
from keras_explain.core.run.reductions import Each, Reduction

Tensor = Any
Nest = Any

MOST = 4096  # features of coalitions: a table of all of them must fit into memory


class Perturbation(Explainer, abc.ABC):
    """A method that hides parts of the input. What the fields mean is said in `FeatureAblation`."""

    features: Any = None
    groups: Any = None
    baseline: Any = 0.0
    background: Any = None

    of_features: ClassVar[frozenset[str]] = frozenset()
    """Names of extras `[n, K, M]`: a number a feature, to be put at its places like the values."""

    @property
    def plan(self) -> Plan:
        return Plan(
            "input",
            "all",
            unit="difference",
            ragged=frozenset({"present"}),
            shares=self.shares,
            prepare=None if self.background is not None else self.filled,
            afterwards=self.afterwards,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.background is not None and not self._hides_by_zero:
            raise ValueError(
                "Expected `baseline` or `background` to take the place of hidden features. "
                f"Received: both, baseline={self.baseline!r}."
            )

    def check(self, x: Nest) -> None:
        cuts.per_input(self.features, self.groups, x)
        if self.background is None:
            baselines.check(self.baseline, x)
        else:
            backgrounds.check(self.background, x, missing=self.plan.missing)

    def encode(self, x: Any) -> tuple[Nest, dict[str, np.ndarray]]:
        return cuts.encoded(x, self.features)

    def cut(self, x: Nest, tokens: Sequence[bool]) -> list[cuts.Features | None]:
        """The features of each leaf of the input, channels last; None where a method needs none."""
        given = cuts.per_input(self.features, self.groups, x)
        return [
            self.default_features(leaf, are_ids) if part is None else part
            for part, leaf, are_ids in zip(given, tree.flatten(x), tokens, strict=True)
        ]

    def default_features(self, x: np.ndarray, are_tokens: bool) -> cuts.Features | None:
        """The features of an input of which the user said nothing; its channels are last."""
        return self.default_tokens() if are_tokens else cuts.default(x)

    def default_tokens(self) -> cuts.Tokens:
        """Token ids may be codes of categories: id 0 is padding where hiding it changes nothing."""
        by_zero = self.background is None and self._hides_by_zero
        return cuts.Tokens(padding=0 if by_zero else None)

    @property
    def _hides_by_zero(self) -> bool:
        return isinstance(self.baseline, (int, float)) and self.baseline == 0

    @abc.abstractmethod
    def perturbations(self, x: Nest, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        """What is hidden in each pass, `[passes, ...]` by name.

        Args:
            x: The input of some samples, its channels last, as for `Features.numbered`.
            labelled: The leaves of `x` that are cut into features, by their positions `"0"`, ...
            count: How many features each of these samples has, those of all leaves together.
            seed: What is random depends on it alone.
        """

    def shares(self, x: Nest, about: About, seed: int) -> list[Share]:
        """The samples by how many features they have."""
        layouts = about.layouts
        leaves = [layout.last(x) for layout, x in zip(layouts, tree.flatten(x), strict=True)]
        x = tree.pack_sequence_as(x, leaves)
        labels = {
            str(i): _numbered(part, leaves[i], layouts[i])
            for i, part in enumerate(self.cut(x, about.tokens))
            if part is not None
        }
        labels, counts = _continued(labels, len(leaves[0]))
        shares = []
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count).astype(np.int32)
            some, own = tree.map_structure(lambda leaf, rows=rows: leaf[rows], (x, labels))
            passes = self.perturbations(some, set(labels), int(count), seed)
            shares.append(Share(rows, self._against_background(passes), {"labels": own}))
        return shares

    def afterwards(self, x: Nest, result: dict[str, Any], share: Share) -> dict[str, Any]:
        """Checks that all scores were finite; more in subclasses."""
        whole = ~np.isfinite(result["scores"]).reshape(len(share.rows), -1).all(axis=1)
        if whole.any():
            _check_missing("`x`", x, share.rows)
            raise NotFiniteError(
                "Expected a finite score to explain. Received: NaN or infinity for sample "
                f"{int(share.rows[whole.argmax()])} itself.",
                int(share.rows[whole.argmax()]),
            )
        leaves = [leaf.reshape(len(leaf), -1) for leaf in tree.flatten(result["values"])]
        bad = ~np.all([np.isfinite(leaf).all(axis=1) for leaf in leaves], axis=0)
        if bad.any():
            if self.background is not None:
                _check_missing("`background`", self.background)
            raise ValueError(
                "Expected finite scores where features are hidden. Received: NaN or infinity for "
                f"sample {int(share.rows[bad.argmax()])}: the model is not defined there, as an "
                "average over no tokens is not. Choose another `baseline`; for token ids a mask "
                "that is no padding, such as `features=keras_explain.features.Tokens(mask=1)`; a "
                "text must have a token."
            )
        return {}

    def _against_background(self, passes: dict[str, Any]) -> dict[str, Any]:
        """Each pass with each row of the background."""
        if self.background is None:
            return passes
        rows, count = backgrounds.size(self.background), len(tree.flatten(passes)[0])
        repeated = tree.map_structure(lambda leaf: np.repeat(leaf, rows, axis=0), passes)
        return repeated | {"reference": np.tile(np.arange(rows, dtype=np.int32), count)}

    def feature_maps(self, x: Nest, values: Nest, share: Share) -> dict[str, Nest]:
        """`{"features": int32 [n, K, *places]}` where a feature is of several places, else `{}`."""
        no_tokens = [False] * len(tree.flatten(x))  # tokens and columns alike are of one place
        if not any(part is not None and part.joins for part in self.cut(x, no_tokens)):
            return {}
        maps = [
            np.broadcast_to(share.own["labels"][str(i)][:, None], value.shape)
            for i, value in enumerate(tree.flatten(values))
        ]
        return {"features": tree.pack_sequence_as(x, maps)}

    def filled(self, probe: Probe, x: Nest, target: Tensor) -> dict[str, Tensor]:
        """What takes the place of hidden features of each sample, where it is a baseline."""
        leaves = tree.flatten(probe.inputs)
        parts = cuts.per_input(self.features, None, probe.inputs)
        given = baselines.per_input(self.baseline, probe.inputs)
        fills = [
            g if p is None or p.fill is None else p.fill for g, p in zip(given, parts, strict=True)
        ]
        return {"fill": baselines.apply(fills, leaves, probe.row, probe.layouts)}

    def fill_of(self, probe: Probe, pass_: Pass) -> Nest:
        """What takes the place of hidden features, for each row of a step: a nest like the input.

        Args:
            probe: The opened model.
            pass_: What `step` received.
        """
        if self.background is not None:
            return backgrounds.rows(self.background, probe.inputs, pass_["reference"])
        return tree.pack_sequence_as(probe.inputs, pass_.for_rows(pass_.shared["fill"]))

    def hidden_scores(
        self, probe: Probe, target: Tensor, pass_: Pass, visible: list[Tensor]
    ) -> Tensor:
        """The scores `[n, K]` of the inputs where only a part is visible.

        Args:
            probe: The opened model.
            target: Ints `[n, K]`.
            pass_: What `step` received.
            visible: For each leaf of the input how much of each place is seen, booleans or shares
                in [0, 1], `[passes, samples, *places]`, where either axis may be 1.
        """
        inputs = tree.flatten(pass_.inputs)
        if self.background is None:
            fill = [leaf[None] for leaf in pass_.shared["fill"]]
        else:
            position = pass_.once["reference"]
            rows = backgrounds.rows(self.background, pass_.inputs, position)
            fill = [leaf[:, None] for leaf in tree.flatten(rows)]
        leaves = []
        for x, f, v, layout in zip(inputs, fill, visible, probe.layouts, strict=True):
            seen_of = layout.over_channels(v, len(x.shape), lead=2)
            leaves.append(ops.reshape(_mixed(x[None], f, seen_of), (-1, *x.shape[1:])))
        return probe.score_inputs(tree.pack_sequence_as(probe.inputs, leaves), target)


def _numbered(part: cuts.Features, x: np.ndarray, layout: Layout) -> np.ndarray:
    """The features of an input with its channels last, at its places as the model has them."""
    part = part.laid(layout)
    part.check(x)
    labels = part.numbered(x)
    return layout.back(labels) if labels.ndim == x.ndim else labels


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


def _mixed(x: Tensor, fill: Tensor, visible: Tensor) -> Tensor:
    if visible.dtype == "bool":
        return backend.choose(visible, x, fill)
    if not keras.backend.is_float_dtype(x.dtype):
        return backend.choose(visible >= 0.5, x, fill)
    return fill + visible * (x - fill)


class ByFeature(Perturbation, abc.ABC):
    """A method that makes a value for each feature of the scores of its passes, in NumPy."""

    reduce: ClassVar[Reduction] = Each()

    @abc.abstractmethod
    def values_of(
        self, passes: np.ndarray, scores: np.ndarray, whole: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The attributions.

        Args:
            passes: The array that `perturbations` returned, `[passes, ...]`: of coalitions which
                features are present.
            scores: The score of each pass, float64 `[n, passes, K]`, over a background its mean.
            whole: The score of the input itself, float64 `[n, K]`.

        Returns:
            Values of the features, `[n, K, M]`, and extras `[n, K, ...]`.
        """

    def afterwards(self, x: Nest, result: dict[str, Any], share: Share) -> dict[str, Any]:
        super().afterwards(x, result, share)
        rows = 1 if self.background is None else backgrounds.size(self.background)
        scores = result["values"].astype(np.float64)  # [n, passes * rows, K]
        scores = scores.reshape(len(scores), -1, rows, scores.shape[-1]).mean(axis=2)
        whole = result["scores"].astype(np.float64)
        (passes,) = (leaf for name, leaf in share.passes.items() if name != "reference")
        values, extras = self.values_of(passes[::rows], scores, whole)
        labels = share.own["labels"]

        def at_places(numbers: np.ndarray) -> Nest:
            leaves = [placed(numbers, labels[str(i)]) for i in range(len(labels))]
            return tree.pack_sequence_as(x, leaves)

        extras = {
            name: at_places(extra) if name in self.of_features else np.asarray(extra, np.float32)
            for name, extra in extras.items()
        }
        values = at_places(values)
        return {"values": values, **extras, **self.feature_maps(x, values, share)}


class Coalitions(ByFeature, abc.ABC):
    """A method that looks at coalitions: which features are present, and what the score is then."""

    @abc.abstractmethod
    def coalitions(self, count: int, seed: int) -> np.ndarray:
        """Which of `count` features are present in each pass, `[passes, count]`.

        Booleans, or shares in [0, 1] of how much of them is.
        """

    def perturbations(self, x: Nest, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        if count > MOST:
            raise ValueError(
                f"Expected at most {MOST} features for {type(self).__name__}. Received: {count}. "
                "Larger features are fewer: of pictures `keras_explain.features.Segments()` or "
                "`Patches(16)`, of series `Windows()`, of tables `groups=`."
            )
        return {"present": self.coalitions(max(1, count), seed)}

    def step(self, probe: Probe, x: Nest, target: Tensor, pass_: Pass) -> Tensor:
        visible = [seen(pass_, str(i)) for i in range(len(pass_.shared["labels"]))]
        return self.hidden_scores(probe, target, pass_, visible)


def _continued(
    labels: dict[str, np.ndarray], samples: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The numbers of several inputs' features as those of one, and how many each sample has."""
    counts, continued = np.zeros(samples, np.int32), {}
    for i, numbers in labels.items():
        first = counts.reshape(-1, *(1 for _ in numbers.shape[1:]))
        continued[i] = np.where(numbers < 0, -1, numbers + first).astype(np.int32)
        counts = counts + numbers.reshape(samples, -1).max(axis=1) + 1
    return continued, counts


def for_rows(array: Tensor, pass_: Pass) -> Tensor:
    """What is of passes and samples, `[passes, samples, ...]` (either axis may be 1), of rows."""
    counts = [ops.shape(tree.flatten(of)[0])[0] for of in (pass_.once, pass_.inputs)]
    return ops.reshape(ops.broadcast_to(array, (*counts, *array.shape[2:])), (-1, *array.shape[2:]))


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
        found = looked_up(pass_["present"], pass_.for_rows(labels))
        return ops.reshape(found, (-1, ops.shape(labels)[0], *places))

    return ops.cond(ops.all(labels == labels[:1]), once, each)


def placed(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Values of features `[n, K, M]` at each place, float32 `[n, K, *places]`; 0 at none's."""
    padded = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    flat = labels.reshape(len(labels), 1, -1)
    found = np.take_along_axis(padded, flat, axis=-1)  # -1 is the zero at the end
    return found.reshape(*values.shape[:2], *labels.shape[1:]).astype(np.float32)
