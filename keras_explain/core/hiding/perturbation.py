"""What the methods that hide parts of the input have in common: their fields and their passes."""

import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from keras import tree

from keras_explain.core.data import background as backgrounds
from keras_explain.core.data import baselines
from keras_explain.core.data.baselines import Zeros
from keras_explain.core.explainer import Explainer
from keras_explain.core.hiding import given
from keras_explain.core.hiding.cut import Cut, placed
from keras_explain.core.hiding.engine import Hiding
from keras_explain.core.hiding.features import Features, Tokens
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.core.run.reductions import Each, Reduction

Tensor = Any
Nest = Any

MOST = 4096  # features of coalitions: a table of all of them must fit into memory


class Hides(Explainer, abc.ABC):
    """What can be hidden, and what takes its place, as `FeatureAblation` says."""

    features: Any = None
    groups: Any = None
    baseline: Any = 0.0
    background: Any = None

    @property
    def plan(self) -> Plan:
        return Plan(
            "input",
            "all",
            unit="difference",
            prepare=None if self.background is not None else self.prepare,
            afterwards=self.afterwards,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        by_zero = isinstance(self.baseline, (int, float)) and self.baseline == 0
        if self.background is not None and not by_zero:
            raise ValueError(
                "Expected `baseline` or `background` to take the place of hidden features. "
                f"Received: both, baseline={self.baseline!r}."
            )

    def encode(self, x: Any) -> tuple[Nest, dict[str, np.ndarray]]:
        return given.encoded(x, self.features)

    # What a user gave, resolved once

    def suited(self, x: Nest) -> Self:
        """The same with features (None where nothing was said) and baselines for each leaf."""
        features = tuple(given.per_input(self.features, self.groups, x))
        fill: Any = self.baseline
        if self.background is None:
            fill = tuple(baselines.per_input(self.baseline, x))
            baselines.check(self.baseline, x)
        else:
            backgrounds.check(self.background, x, missing=self.plan.missing)
        new = {"features": features, "groups": None, "baseline": fill}
        return self.mapped(lambda name, value: new.get(name, value))

    @property
    def hiding(self) -> Hiding:
        """The engine."""
        if self.background is not None:
            return Hiding(background=self.background)
        pairs = zip(self.features, self.baseline, strict=True)
        return Hiding(
            [base if part is None or part.fill is None else part.fill for part, base in pairs]
        )

    def cut(self, forward: Forward) -> Cut:
        """The features of an input."""
        leaves = tree.flatten(forward.channels_last(forward.x))
        features = [
            self.default_features(leaf, are_ids) if part is None else part
            for part, leaf, are_ids in zip(self.features, leaves, forward.are_tokens, strict=True)
        ]
        return Cut.of(features, leaves, forward.layouts)

    def default_features(self, x: np.ndarray, are_tokens: bool) -> Features | None:
        """The features of an input of which the user said nothing; its channels are last.

        None where a method needs none.
        """
        return self.default_tokens() if are_tokens else given.default(x)

    def default_tokens(self) -> Tokens:
        """Token ids may be codes of categories: id 0 is padding where hiding it changes nothing."""
        by_zero = self.background is None and all(isinstance(b, Zeros) for b in self.baseline)
        return Tokens(padding=0 if by_zero else None)

    # What a run needs

    def prepare(self, probe: Probe, x: Nest, target: Tensor) -> dict[str, Any]:
        """What takes the place of hidden features of each sample, where it is a baseline."""
        return self.hiding.prepare(probe)

    def afterwards(self, x: Nest, result: dict[str, Any], share: Share) -> dict[str, Any]:
        """Checks that all scores were finite; more in subclasses."""
        self.hiding.check_finite(x, share.rows, result["scores"], result["values"])
        return {}


class Perturbation(Hides, abc.ABC):
    """A method that explains by hiding parts of the input."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, ragged=frozenset({"present"}), shares=self.shares)

    @abc.abstractmethod
    def perturbations(self, x: Nest, labelled: set[str], count: int, seed: int) -> dict[str, Any]:
        """What is hidden in each pass, `[passes, ...]` by name.

        Args:
            x: The input of some samples, its channels last, as for `Features.numbered`.
            labelled: The leaves of `x` that are cut into features, by their positions `"0"`, ...
            count: How many features each of these samples has, those of all leaves together.
            seed: What is random depends on it alone.
        """

    def shares(self, forward: Forward, seed: int) -> list[Share]:
        """The samples by how many features they have."""
        cut, shares, x = self.cut(forward), [], forward.channels_last(forward.x)
        for count in np.unique(cut.counts):
            rows = np.flatnonzero(cut.counts == count).astype(np.int32)
            some, own = tree.map_structure(lambda leaf, rows=rows: leaf[rows], (x, cut.labels))
            passes = self.perturbations(some, set(cut.labels), int(count), seed)
            each = self.hiding.rows
            stops = [each * stop for stop in self.stops(int(count))]
            passes = self.hiding.against(passes)
            shares.append(Share(rows, passes, {"labels": own}, cut, stops, each))
        return shares

    def stops(self, count: int) -> Sequence[int]:
        """After how many passes a sample of `count` features may be done, as `Share.stops` says."""
        return ()

    def feature_maps(self, x: Nest, values: Nest, share: Share) -> dict[str, Nest]:
        """`{"features": int32 [n, K, *places]}` where a feature is of several places, else `{}`."""
        if not share.kept.joins:
            return {}
        maps = [
            np.broadcast_to(share.own["labels"][str(i)][:, None], value.shape)
            for i, value in enumerate(tree.flatten(values))
        ]
        return {"features": tree.pack_sequence_as(x, maps)}


class ByFeature(Perturbation, abc.ABC):
    """A method that makes a value for each feature of the scores of its passes, in NumPy."""

    of_features: ClassVar[frozenset[str]] = frozenset()
    """Names of extras `[n, K, M]`: a number a feature, to be put at its places like the values."""

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
        hiding, labels = self.hiding, share.own["labels"]
        (passes,) = (leaf for name, leaf in share.passes.items() if name != "reference")
        scores, whole = hiding.averaged(result["values"]), result["scores"].astype(np.float64)
        values, extras = self.values_of(passes[:: hiding.rows], scores, whole)
        extras = {
            name: placed(extra, labels, x)
            if name in self.of_features
            else np.asarray(extra, np.float32)
            for name, extra in extras.items()
        }
        values = placed(values, labels, x)
        return {"values": values, **extras, **self.feature_maps(x, values, share)}


class Coalitions(ByFeature, abc.ABC):
    """A method that looks at coalitions: which features are present, and what the score is then."""

    @abc.abstractmethod
    def coalitions(self, count: int, seed: int) -> np.ndarray:
        """Which of `count` features are present in each pass, `[passes, count]`.

        Booleans, or shares in [0, 1] of how much of them is. What is drawn is a sequence, of which
        fewer samples are the beginning.
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
        return self.hiding.scores_of_present(probe, target, pass_)
