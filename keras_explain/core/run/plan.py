"""How a method works, apart from its formula, and what its formula is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from keras import ops, tree

from keras_explain.core.model.forward import Forward
from keras_explain.core.model.probe import Probe

Tensor = Any
Nest = Any
Unit = Literal["score", "difference", "score per input"]


@dataclass(frozen=True, eq=False)
class Pass:
    """What a step is given beside the point, for a chunk of `n` rows: passes x samples.

    `pass_[name]` is what changes with each pass, by its name in `Explainer.passes`, for each row,
    `[n, ...]`.

    Attributes:
        each: The same, by name.
        once: The same once for each pass, `[passes, ...]` by name.
        shared: What all passes over a sample share, `[samples, ...]` by name: what `Plan.prepare`
            made, and `Share.own`.
        inputs: The samples' inputs, `[samples, ...]`.
        scores: Where a plan takes all classes at once, the samples' own scores `[samples, K]`.
        sample: Which of the samples each row is of, ints `[n]`.
        ahead: What `Plan.ahead` made; None where nothing was made ahead.
    """

    each: dict[str, Any] = field(default_factory=dict)
    once: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    inputs: Nest = None
    scores: Tensor = None
    sample: Tensor = None
    ahead: Any = None

    @classmethod
    def one(cls, i: Tensor, passes: dict[str, Any], n: Tensor, *others: Any) -> "Pass":
        """Pass number `i` over `n` rows; `others` are the fields from `shared` on."""
        once = tree.map_structure(lambda leaf: ops.take(leaf, [i], axis=0), passes)
        each = tree.map_structure(lambda leaf: ops.repeat(leaf, n, axis=0), once)
        return cls(each, once, *others)

    def __getitem__(self, name: str) -> Any:
        return self.each[name]

    def for_rows(self, of_samples: Nest) -> Nest:
        """What is of samples, `[samples, ...]`, for each row, `[n, ...]`."""
        return tree.map_structure(lambda leaf: ops.take(leaf, self.sample, axis=0), of_samples)


@dataclass(frozen=True, eq=False)
class Share:
    """Samples that take the same passes.

    Attributes:
        rows: Their positions in the user's batch, ints `[n]`.
        passes: Small data for each pass over a sample, `[passes, ...]`; none for one pass.
        own: Data of each sample that passes may use, `[n, ...]`, such as a picture's regions.
        kept: What is no data of the graph, for `Plan.search` and `Plan.afterwards`.
        stops: After how many passes a sample may be done, where `Plan.error` says when it is:
            rising numbers, of which the last is that of all passes. Empty: after all.
        repeats: How many passes are one to the user, as those with each row of a background.
    """

    rows: np.ndarray
    passes: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)
    kept: Any = None
    stops: Sequence[int] = ()
    repeats: int = 1

    def between(self, start: int, stop: int) -> "Share":
        """The same with some of its passes."""
        return replace(self, passes=tree.map_structure(lambda p: p[start:stop], self.passes))

    def cut(self, some: slice | np.ndarray) -> "Share":
        """The same for some of the samples."""
        return self._of(lambda leaf: leaf[some])

    def repeated(self, times: int) -> "Share":
        """The same with each sample so many times."""
        return self._of(lambda leaf: np.repeat(leaf, times, axis=0))

    def _of(self, fn: Callable[[np.ndarray], np.ndarray]) -> "Share":
        own = tree.map_structure(fn, self.own)
        return replace(self, rows=fn(self.rows), own=own)

    @property
    def size(self) -> int:
        """The number of passes."""
        leaves = tree.flatten(self.passes)
        return len(leaves[0]) if leaves else 1


Reduced = Callable[[dict[str, Any]], Nest]
"""Makes passes, as `Explainer.passes` describes them, and reduces them to arrays `[1, ...]`."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How a method works, apart from its formula. A method of one pass needs none.

    Attributes:
        values: What the values are of: `"point"` (of token ids they are summed over embeddings), or
            `"input"`, as they are.
        classes: Whether a step takes `"one"` class, `[n, 1]`, or `"all"` of a sample, `[n, K]`; its
            values have an axis K after that of the rows then.
        layer: The layer whose output is explained in place of the input.
        call: Which of that layer's calls is explained; None for all.
        measured_from: What the attributions are measured from, where they sum to the score less a
            base value: the score of `references`, one row for each sample (`"own reference"`) or
            rows whose mean score counts (`"shared references"`), or the `"base_values"` among the
            extras. `extras["convergence_delta"]` follows.
        unit: What the values are in units of, by which they are told from rounding: `"score"`,
            `"difference"` where each value is a difference of scores, `"score per input"` as a
            gradient is, or None. See `precision.reliable`.
        signed: Whether the sign of a value says what raises the score and what lowers it.
        ahead: `ahead(probe, x, target)`: what a step needs of the rows whatever the pass, such as
            a forward pass on them, and zeros like what the step returns. Many rows then take their
            passes one at a time, in a loop of the graph; a step finds what was made in
            `pass_.ahead`, or makes it.
        missing: Whether NaN in the input goes to the model alone, and into no sum or product.
        ragged: Names of passes whose second axis has another length for other samples.
        shares: `shares(forward, seed)`: the samples of `forward.x` by the passes that they take; by
            default all take `Explainer.passes(seed)`.
        passes: `passes(prepared)`: the passes, in place of `Explainer.passes`, of what `prepare`
            returns, by the static shapes of which they go.
        prepare: `prepare(probe, x, target)`: what all passes over a sample share, tensors
            `[n, ...]` by name, computed once; a step finds it in `pass_.shared`.
        search: `search(x, share, reduced)`: `"values"` and extras, arrays `[1, ...]`, of one row by
            passes that are chosen as their values come in. Of the share's own passes, only
            their kind and their number (the most there can be) count.
        stops: The `Share.stops` of all samples, where there are no `shares`.
        error: The relative standard error at which a sample has passes enough; None where it takes
            all of them.
        references: `references(probe, passes)`: inputs, of the nest of `probe.inputs`, that the
            attributions are measured from.
        value_error: `value_error(probe, total, x)`: an estimate of how far off each value is, like
            what `Explainer.finish` returns. `extras["value_error"]` is its size beside theirs.
        afterwards: `afterwards(x, result, share)`: parts of the result made anew in NumPy, after
            the graph. `x` has its channels last (an axis of length 1, where there are none);
            `result` is `"values"`, `"scores"`, `"index"` and the extras, arrays `[rows, ...]` (for
            all classes `[rows, K, ...]`).
    """

    values: Literal["point", "input"] = "point"
    classes: Literal["one", "all"] = "one"
    layer: str | None = None
    call: int | None = None
    measured_from: Literal["own reference", "shared references", "base values"] | None = None
    unit: Unit | None = None
    signed: bool = True
    missing: bool = False
    ragged: frozenset[str] = frozenset()
    shares: Callable[[Forward, int], list[Share]] | None = None
    passes: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    prepare: Callable[[Probe, Nest, Tensor], dict[str, Tensor]] | None = None
    ahead: Callable[[Probe, Nest, Tensor], tuple[Any, Nest]] | None = None
    search: Callable[[Nest, Share, Reduced], dict[str, Any]] | None = None
    stops: Sequence[int] = ()
    error: float | None = None
    references: Callable[[Probe, dict[str, Tensor]], Nest] | None = None
    value_error: Callable[[Probe, Nest, Nest], Nest] | None = None
    afterwards: Callable[[Nest, dict[str, Any], Share], dict[str, Any]] | None = None

    @property
    def on_the_host(self) -> bool:
        """Whether a part of the work is not in the graph, or is not done within a step."""
        alone = self.shares, self.prepare, self.search, self.afterwards
        return any(part is not None for part in alone)
