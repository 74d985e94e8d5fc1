"""An opened model, as a method asks it: scores, gradients, layers, at points of its own choice.

A `Probe` lives while one function is traced. Its rooms do the work: `points` says what a point is,
`running` runs the model there, `passed` is what that gave, `choice` finds the layer of a map, and
`overlay` lays the map over the input.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from keras import tree

from keras_explain import backend
from keras_explain.core.data import baselines
from keras_explain.core.graph.steps import Call
from keras_explain.core.model import cuts
from keras_explain.core.model.choice import Choice
from keras_explain.core.model.learned import Learned
from keras_explain.core.model.outputs import Outputs
from keras_explain.core.model.overlay import Overlay, input_names
from keras_explain.core.model.passed import Activations, ForwardPass
from keras_explain.core.model.points import Space, check_numbers, per_row
from keras_explain.core.model.running import CallKey, Runner
from keras_explain.core.model.sites import Sites, layer_values, site_of
from keras_explain.core.model.targets import Target

Tensor = Any
Nest = Any


class Probe:
    """A model opened for the rows of one chunk, inside one traced function.

    Args:
        runner: The model, and its input, a nest of tensors `[n, ...]`.
        sites: Where it is explained, other than at the input itself.
        target: What is explained.
        row: The position of each row in the user's batch, ints `[n]`.
        learned: What functions that were traced before this one have learned.
    """

    def __init__(
        self, runner: Runner, sites: Sites, target: Target, row: Tensor, learned: Learned
    ) -> None:
        self.inputs, self.layouts, self.row = runner.inputs, runner.layouts, row
        self.learned, self._runner, self._target = learned, runner, target
        self.space = Space(self.inputs, sites, self.layouts)
        self.overlay = Overlay(self.inputs, self.layouts, sites.inputs)
        self._start: Nest | None = None
        self._first: ForwardPass | None = None

    def begin(self, point: Nest) -> None:
        """Says where the explained score, and a predicted class, are taken: here, not elsewhere."""
        self._start = point

    def begun(self, target: Tensor) -> ForwardPass:
        """The forward pass at the point of `begin`."""
        return self._first or self.forward(self._start, target)

    # Points

    def baseline(self, baseline: Any) -> Nest:
        """What a user gave as baseline, for each row of the input."""
        return baselines.apply(baseline, self.inputs, self.row, self.layouts)

    def point(self, inputs: Nest) -> Nest:
        """Where inputs lie in the explained space.

        This is the inputs themselves, their embeddings `[n, T, D]`, or the output of the explained
        layer (a list of outputs, where it has or makes several).
        """
        if self.space.is_input:
            return self.space.as_numbers(inputs)
        outputs = self._runner.run(inputs)
        if sites := self.space.sites.layer:
            self._learn(**self.overlay.of_values(outputs, map(outputs.call_at, sites)))
        return self.space.read(outputs, inputs)

    @property
    def takes_any_rows(self) -> bool:
        """Whether the model can be run on fewer points than there are inputs."""
        beside = not self.space.is_input or self._runner.opened.fixed_batch or self.learned.decides
        return not beside and all(x.dtype != "bool" for x in tree.flatten(self.inputs))

    # Scores and gradients

    def forward(self, point: Nest, target: Tensor, *, own: bool = False) -> ForwardPass:
        """A forward pass at a point.

        Args:
            point: Where to evaluate.
            target: The classes to score, ints `[n, K]`.
            own: Whether it is taken at a copy of the point, to differentiate by.
        """
        is_start = point is self._start
        if self._start is not None and not is_start:
            target = self.begun(target).index
        if own:
            check_numbers(point)
            point = tree.map_structure(backend.own, point)
        passed = self._scored(self._run(point, moves=not is_start), point, target)
        if self.space.sites.layer:
            passed.check_depends(self._named(1)[0][0])
        if is_start and self._first is None:
            self._first = passed
        return passed

    def scores(self, point: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` at a point, for classes `target` (ints `[n, K]`)."""
        return self.forward(point, target).scores

    def score_inputs(self, inputs: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` of other inputs, which the whole model runs on, for classes `target`.

        Of token ids, what else the model makes of them (masks, lengths) is that of the new ids.
        """
        return self._scored(self._runner.run(inputs), inputs, target).scores

    def scores_with(self, call: Call, output: Tensor, point: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` at a point where one call has another output.

        Nothing but what follows from it is computed again. The call, of a forward pass at such a
        point, has one output.
        """
        outputs = self._run(point, {(call.path, call.number): [output]})
        return self._scored(outputs, point, target).scores

    def gradient(self, point: Nest, target: Tensor, weight: Tensor | None = None) -> Nest:
        """The derivative of the score by the point, of the point's shape.

        Args:
            point: Where to evaluate.
            target: Ints `[n, K]`.
            weight: Numbers `[n]` that multiply the score, and so the derivative, for nothing.
        """
        passed = self.forward(point, target, own=True)
        scores, leaves = passed.scores, tree.flatten(passed.point)
        if weight is not None:
            scores = scores * per_row(weight, scores)
        grads = backend.gradients(scores, leaves)
        if any(grad is None for grad in grads):
            grads = cuts.filled(grads, passed.outputs, scores, leaves, *self._named(len(leaves)))
        return tree.pack_sequence_as(point, grads)

    # Layers

    def activations(
        self,
        passed: ForwardPass,
        layer: str | None,
        reshape: Callable[[Tensor, str], Tensor] | None = None,
        number: int | None = None,
    ) -> Activations:
        """A layer's output in a forward pass and the score's derivative by it, channels last.

        Args:
            passed: The forward pass.
            layer: The layer's name or path; None for the last one that fits.
            reshape: For layers of tokens: takes `[n, T, C]` and the layer's path, and returns
                `[n, ..., C]`. Then a layer fits if its output is `[n, T, C]`; without it, if its
                output has a spatial extent above 1.
            number: Which of the layer's calls it is; None for the last.
        """
        choice = Choice(
            self._runner.opened, passed.outputs, passed.scores, passed.point, self.overlay
        )
        tokens = reshape is not None
        if layer is not None:
            call = choice.named(layer, number, tokens=tokens)
        else:
            call = choice.last_of_tokens() if tokens else choice.last_spatial()
        self._learn(mapped=self.overlay.behind(call.output))
        return Activations(passed, call, reshape)

    def inside(
        self, layer: str, point: Nest, target: Tensor, number: int | None = None
    ) -> tuple[Nest, Nest]:
        """A layer's output as it is, and the score's derivative by it.

        Both are a list where the layer is called more than once (and `number` names no call), or
        has several outputs.
        """
        passed = self.forward(point, target)
        calls = passed.outputs.calls_of(layer, number)
        self._learn(**self.overlay.of_values(passed.outputs, calls))
        for call in calls:
            site_of(call)
        grads = passed.gradients_at(calls)
        return layer_values(passed.outputs, calls), grads[0] if len(grads) == 1 else grads

    def output_of(self, layer: str, point: Nest, number: int | None = None) -> Nest:
        """A layer's output alone, as in `inside`."""
        outputs = self._run(point)
        return layer_values(outputs, outputs.calls_of(layer, number))

    def outputs(self) -> Outputs:
        """What the model and its layers return for the inputs."""
        return self._runner.run(self.inputs)

    # Maps over the input

    def upsample(self, maps: Tensor) -> Tensor:
        """Maps `[n, h, w]` (or `[n, t]`, `[n, d, h, w]`) at the input's size, bilinearly."""
        return self.overlay.resized(maps, self.under(maps))

    def over_each(self, maps: Tensor) -> dict[int, Tensor]:
        """Maps at the size of each input that leads to them and has as many axes of places."""
        return self.overlay.over_each(maps, self.under(maps), self._behind(maps))

    def under(self, maps: Tensor) -> int:
        """The position of the input's leaf that maps of a layer are laid over.

        It is one with their number of spatial axes, which leads to the layer, if there is one.
        """
        over = self.overlay.under(maps, self._behind(maps))
        self._learn(over=over)
        return over

    def _behind(self, maps: Tensor) -> Sequence[int]:
        mapped = self.learned.mapped
        return self.overlay.behind(maps) if mapped is None else mapped

    # The forward pass

    def _run(
        self,
        point: Nest,
        replaced: dict[CallKey, list[Tensor]] | None = None,
        *,
        moves: bool = True,
    ) -> Outputs:
        outputs = self._runner.run_at(self.space.placed(point, moves=moves), replaced)
        self._learn(decides=self.learned.decides or outputs.decides)
        return outputs

    def _scored(self, outputs: Outputs, point: Nest, target: Tensor) -> ForwardPass:
        passed = ForwardPass.scored(outputs, point, self._target, target)
        self._learn(units=passed.units, **asdict(outputs.read))
        return passed

    def _named(self, leaves: int) -> tuple[list[str], list[bool]]:
        """What each leaf of the point is called, and whether it stands for integers."""
        if layer := self.space.sites.layer:
            return [f"layer {layer[0].path!r}"] * leaves, [False] * leaves
        return input_names(self.inputs), list(self._runner.integer)

    def _learn(self, **what: Any) -> None:
        self.learned = replace(self.learned, **what)
