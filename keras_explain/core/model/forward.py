"""Scores of rows by one compiled forward pass, which all explainers of a target share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.config import image_data_format

from keras_explain import backend
from keras_explain.core.data import inputs, layout
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.opened import Compiled, OpenModel
from keras_explain.core.model.probe import Probe
from keras_explain.core.model.reading import joined, rows_at_once
from keras_explain.core.model.running import Runner
from keras_explain.core.model.sites import Sites, find_sites, specs
from keras_explain.core.model.targets import PREDICTED, Class, Target

Tensor = Any
Nest = Any

ROWS = backend.int_spec(None)
ONE_CLASS = backend.int_spec(None, 1)
ANY_CLASSES = backend.int_spec(None, None)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The classes whose scores are highest.

    Attributes:
        classes: Ints `[B]`. With a `targets.Label`, a one-unit output has the classes 0 and 1.
        scores: Their scores, floats `[B]`.
        width: The number of units of the output.
        has_probabilities: Whether it is known which probabilities the output stands for.
    """

    classes: np.ndarray
    scores: np.ndarray
    width: int
    has_probabilities: bool


def predict(
    model: keras.Model, x: Nest, target: Class, batch_size: int | None = None
) -> Predictions:
    """The classes that a model predicts, at the output that a target speaks of."""
    x = inputs.checked(model, x)
    forward = Forward(OpenModel.of(model), x, target)
    count = tree.flatten(x)[0].shape[0]

    def read(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        classless = np.full((len(rows), 1), PREDICTED, np.int32)
        at, row, index = forward.tensors(rows, classless)
        return forward.score(at, at, row, index)

    found = joined(read, count, forward.batch_size(batch_size))
    scores, classes = (part[:, 0] for part in found)
    learned = forward.learned
    return Predictions(classes, scores, learned.width or 1, learned.has_probabilities)


def _kind(leaf: np.ndarray) -> str:
    """The dtype, as a compiled function knows it: texts of any length are one."""
    return "U" if leaf.dtype.kind == "U" else leaf.dtype.str


class Forward:
    """A model's scores for one target and signature of input.

    Args:
        opened: The model.
        x: The checked input, a nest of arrays `[B, ...]`.
        target: What is scored. Its index is not used: it is data of each call.
        layer: The layer that is explained in place of the input.
        number: Which of its calls; None for all.
        data_format: What the user says of where the input's channels are.
    """

    def __init__(
        self,
        opened: OpenModel,
        x: Nest,
        target: Target,
        layer: str | None = None,
        number: int | None = None,
        *,
        data_format: Any = None,
    ) -> None:
        self.opened, self.x, self.target = opened, x, target.without_index()
        self.target_arrays = backend.to_tensors(self.target.arrays())
        leaves = tree.flatten(x)
        signature = tuple((leaf.shape[1:], _kind(leaf)) for leaf in leaves)
        self.layer = None if layer is None else opened.resolve(layer)
        structure, by_default = repr(tree.map_structure(lambda _: 0, x)), image_data_format()
        self._number = number
        self._input = (signature, structure, self.layer, number, by_default)
        self.sites = self._sites()
        for leaf, count in zip(leaves, self.sites.ids, strict=False):  # none without Embeddings
            if count is not None:
                inputs.check_ids(leaf, count)
        self.layouts = layout.per_input(data_format, x, self.sites.channels)
        self.key = (*self._input, self.target.structure, *self.layouts)
        self._integer = [leaf.dtype.kind != "f" for leaf in leaves]
        self.specs = specs(self._numbers(tree.map_structure(lambda leaf: leaf[:1], x)))

    def batch_size(self, asked: int | None, *, scores_alone: bool = False) -> int:
        """How many rows go through the model at once: `asked`, or what suits the input's size."""
        return rows_at_once(self.x, asked, self.opened.fixed_batch, scores_alone=scores_alone)

    def tensors(self, rows: np.ndarray, index: np.ndarray) -> tuple[Nest, Tensor, Tensor]:
        """Some rows of the input, their positions and classes, as tensors."""
        x = self._numbers(tree.map_structure(lambda leaf: leaf[rows], self.x))
        return backend.to_tensors((x, rows, index))

    @property
    def are_tokens(self) -> list[bool]:
        """For each leaf of the input, whether it holds token ids, which enter an Embedding."""
        pairs = zip(self.sites.inputs, tree.flatten(self.x), strict=True)
        return [bool(sites) and leaf.dtype.kind != "U" for sites, leaf in pairs]

    def as_numbers(self, x: Nest) -> Nest:
        """Tensors as the model takes them: integers that are no token ids as float32."""
        leaves = [
            leaf if sites or leaf.dtype in ("bool", "string") else ops.cast(leaf, "float32")
            for leaf, sites in zip(tree.flatten(x), self.sites.inputs, strict=True)
        ]
        return tree.pack_sequence_as(x, leaves)

    def channels_last(self, x: Nest) -> Nest:
        """Rows of the input with their channels last (of length 1, where there are none)."""
        leaves = zip(self.layouts, tree.flatten(x), strict=True)
        return tree.pack_sequence_as(x, [layout.last(leaf) for layout, leaf in leaves])

    def _numbers(self, x: Nest) -> Nest:
        """Integers that are no token ids, such as the bytes of pictures, as float32."""
        leaves = [
            leaf if sites or leaf.dtype.kind in "bU" else leaf.astype(np.float32, copy=False)
            for leaf, sites in zip(tree.flatten(x), self.sites.inputs, strict=True)
        ]
        return tree.pack_sequence_as(x, leaves)

    def score(self, x: Nest, at: Nest, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and classes `[n, K]` of inputs `x`, moved to the points of inputs `at`."""
        forward = self._function
        self.check(index, forward.learned)
        return forward.call(x, at, rows, index, self.target_arrays)

    @property
    def learned(self) -> Learned:
        """What was learned of the output."""
        return self._function.learned

    @property
    def multiplications(self) -> int:
        """How many multiplications the scores of a row take, or more."""
        return self._function.call.multiplications

    @property
    def sees_the_input(self) -> bool:
        """Whether scores at other points depend on the input too: on its masks, ids, branches."""
        beside = any(self.sites.inputs) or bool(self.sites.layer)
        booleans = any(leaf.dtype == bool for leaf in tree.flatten(self.x))
        return beside or booleans or self.learned.decides

    def check(self, index: Tensor, learned: Learned) -> None:
        """Raises a `ValueError` where an index names a class that there is not."""
        self.target.check(np.asarray(index), learned.units)

    def compile(
        self,
        fn: Callable[..., tuple[Nest, Any]],
        *signature: Any,
        arrays: list[Tensor],
        learned: Learned | None = None,
    ) -> Compiled:
        """Compiles `fn(probe_of, arrays, *inputs)`.

        Args:
            fn: Traced with `probe_of(x, rows)`, which opens the model, the tensors of `arrays`, and
                tensors of the signature. It returns tensors, and what is learned.
            *signature: Signatures of the inputs.
            arrays: Arrays of a configuration, which the target's follow.
            learned: What was learned before, if anything was.
        """
        own = len(arrays) - len(self.target_arrays)
        found: list[Any] = []

        def traced(*args: Any) -> Any:
            *values, tensors = args
            target = self.target.bind(tensors[own:])

            def probe_of(x: Nest, rows: Tensor, known: Learned | None = None) -> Probe:
                runner = Runner(self.opened, x, self.layouts, self._integer)
                return Probe(runner, self.sites, target, rows, known or learned or Learned())

            result, known = fn(probe_of, tensors[:own], *values)
            found.append(known)
            return result

        specs = [backend.spec(array, free_axes=0) for array in arrays]
        return Compiled(backend.compile(traced, *signature, specs), found[-1])

    def _sites(self) -> Sites:
        found = self.opened.compiled(
            ("sites", *self._input),
            lambda: Compiled(None, find_sites(self.opened, self.x, self.layer, self._number)),
        )
        return found.learned

    @property
    def _function(self) -> Compiled:
        return self.opened.compiled(("forward", *self.key), self._compiled)

    def _compiled(self) -> Compiled:
        def forward(
            probe_of: Callable, _: list, x: Nest, at: Nest, rows: Tensor, index: Tensor
        ) -> tuple[tuple[Tensor, Tensor], Learned]:
            probe = probe_of(x, rows)
            probe.begin(probe.point(at))
            passed = probe.begun(index)
            return (passed.scores, passed.index), probe.learned

        signature = (self.specs, self.specs, ROWS, ANY_CLASSES)
        return self.compile(forward, *signature, arrays=self.target_arrays)
