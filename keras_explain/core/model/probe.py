"""An opened model: scores, activations and gradients in one forward pass.

A `Probe` lives while one function is traced. It runs the user's model on the rows of a chunk under
`intercept`, so it sees every layer's output, also inside nested, shared and subclassed models, and
differentiates a target's score by the input or by a recorded output.

The *point* is what is differentiated and moved: the input itself, or, for token ids, the output
of the `Embedding` that they enter, or the output of a layer that was asked for. The calls whose
outputs make a point are its *sites*.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data import baselines, layout
from keras_explain.core.data.layout import Layout
from keras_explain.core.graph import chance, decisions, paths, traced
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.expressions import stand_in
from keras_explain.core.graph.operations import ALIASES, ROUTING, WEIGHTED
from keras_explain.core.graph.steps import Call, maker, where
from keras_explain.core.model.intercept import intercept
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.outputs import Outputs, Site
from keras_explain.core.model.targets import Target

Tensor = Any
Nest = Any


@dataclass(frozen=True)
class Sites:
    """Where a model is explained.

    Args:
        inputs: For each leaf of the input, the Embedding calls that it enters as token ids.
        layer: The calls of the layer that is explained in place of the input.
        ids: For each leaf of the input, whether its numbers themselves are looked up.
        channels: For each leaf, where the layers that it meets say that its channels are.
    """

    inputs: list[list[Site]]
    layer: list[Site] = field(default_factory=list)
    ids: list[bool] = field(default_factory=list)
    channels: list[set[int | None]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Features:
    """A layer's output in one forward pass, and the scores `[n, K]` that it leads to.

    `activation` and `gradient` have the channels last, and tokens arranged by `reshape`.
    """

    probe: "Probe"
    scores: Tensor
    call: Call
    reshape: Callable[[Tensor, str], Tensor] | None = None

    @property
    def channels(self) -> int:
        """The axis of the channels of the output as it is: -1, 1, or 2 behind time."""
        assert self.probe.outputs is not None
        return -1 if self.reshape is not None else self.probe.outputs.channels(self.call)

    @functools.cached_property
    def activation(self) -> Tensor:
        """The output, `[n, ..., C]`."""
        return self.arranged(self.output)

    @property
    def output(self) -> Tensor:
        """The output as it is, without rows that only fill its batch."""
        assert self.probe.outputs is not None
        return self.probe.outputs.cut(self.call.output)

    @functools.cached_property
    def gradient(self) -> Tensor:
        """The derivative of the scores by the output, `[n, ..., C]`."""
        gradient = backend.gradients(self.scores, [self.call.output])[0]
        if gradient is None:
            name = f"layer {self.call.path!r}"
            raise ValueError(self.probe._cut_message(self.scores, self.call.output, name))
        assert self.probe.outputs is not None
        return self.arranged(self.probe.outputs.cut(gradient))

    def arranged(self, tensor: Tensor) -> Tensor:
        """A tensor like the output, `[n, ..., C]`."""
        if self.reshape is not None:
            return self.reshape(tensor, self.call.path)
        return tensor if self.channels == -1 else ops.moveaxis(tensor, self.channels, -1)


@dataclass(frozen=True, eq=False)
class Moved:
    """A tensor of the point in a forward pass.

    `original` is what it is for the user's input, `integer` whether that held integers.
    """

    tensor: Tensor
    original: Tensor
    integer: bool = False


class Probe:
    """A model opened for the rows of one chunk, inside one traced function.

    Args:
        opened: The model.
        inputs: The model's input, a nest of tensors `[n, ...]`.
        target: What is explained; None where no score is needed.
        sites: Where it is explained, other than at `inputs` themselves.
        row: The position of each row in the user's batch, ints `[n]`.
        facts: Where what is learned while tracing is noted.
        integer: For each leaf of the user's input, whether it held integers.
        layouts: For each leaf of the input, where its places and channels are.
    """

    def __init__(
        self,
        opened: OpenModel,
        inputs: Nest,
        target: Target | None,
        sites: Sites,
        row: Tensor,
        facts: dict[str, Any],
        integer: list[bool] | None = None,
        layouts: Sequence[Layout] = (),
    ) -> None:
        self.inputs = inputs
        self.layouts = layouts
        self.row = row
        self.facts = facts
        self._integer = integer
        self._opened, self._target, self._sites = opened, target, sites
        self.outputs: Outputs | None = None
        self._first: tuple[Tensor, Tensor] | None = None
        self._start: Nest | None = None
        self._scored: tuple[Nest, Tensor, Tensor] | None = None

    def begin(self, point: Nest) -> None:
        """Says where the explained score, and a predicted class, are taken: here, not elsewhere."""
        self._start = point

    @property
    def sides(self) -> list[tuple[int, ...]]:
        """For each leaf of the input, the lengths of the axes of its places."""
        leaves = zip(self.layouts, tree.flatten(self.inputs), strict=True)
        return [layout.sides(leaf.shape) for layout, leaf in leaves]

    # Points

    def baseline(self, baseline: Any) -> Nest:
        """What a user gave as baseline, for each row of the input."""
        return baselines.apply(baseline, self.inputs, self.row, self.layouts)

    def point(self, inputs: Nest) -> Nest:
        """Where inputs lie in the explained space.

        This is the inputs themselves, their embeddings `[n, T, D]`, or the output of the explained
        layer (a list of outputs, where it has or makes several).
        """
        if not (any(self._sites.inputs) or self._sites.layer):
            return tree.map_structure(_number, inputs)
        outputs = self._run(inputs)
        if self._sites.layer:
            self.outputs = outputs
            self._note_layer([outputs.call_at(site) for site in self._sites.layer])
            flat = [t for site in self._sites.layer for t in outputs.at_site(site)]
            return flat[0] if len(flat) == 1 else flat
        leaves = [
            ops.cast(ops.concatenate([outputs.at_site(s)[0] for s in sites], axis=-1), "float32")
            if sites
            else _number(leaf)
            for leaf, sites in zip(tree.flatten(inputs), self._sites.inputs, strict=True)
        ]
        return tree.pack_sequence_as(inputs, leaves)

    @property
    def takes_any_rows(self) -> bool:
        """Whether the model can be run on fewer points than there are inputs."""
        beside = any(self._sites.inputs) or self._sites.layer or self._opened.fixed_batch
        beside = beside or self.facts.get("decides", False)
        return not beside and all(x.dtype != "bool" for x in tree.flatten(self.inputs))

    def collapse(self, values: Nest) -> Nest:
        """Attributions to a point as attributions to the input: embeddings summed to `[n, T]`."""
        sites = self._sites.inputs
        if self._sites.layer or not any(sites) or len(tree.flatten(values)) != len(sites):
            return values
        leaves = [
            _per_entry(leaf, x) if sites else leaf
            for leaf, x, sites in zip(
                tree.flatten(values), tree.flatten(self.inputs), sites, strict=True
            )
        ]
        return tree.pack_sequence_as(values, leaves)

    # Scores and gradients

    def scores(self, point: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` at a point, for classes `target` (ints `[n, K]`)."""
        return self._score(point, point, target)

    def score_inputs(self, inputs: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` of other inputs, which the whole model runs on, for classes `target`.

        Of token ids, what else the model makes of them (masks, lengths) is that of the new ids.
        """
        self.outputs = self._run(inputs)
        return self._evaluated(target)[0]

    def scores_with(self, call: Call, output: Tensor, point: Nest, target: Tensor) -> Tensor:
        """The scores `[n, K]` at a point where one call has another output.

        Nothing but what follows from it is computed again.

        Args:
            call: A call with one output, of a forward pass at such a point.
            output: What takes the output's place.
            point: Where to evaluate.
            target: Ints `[n, K]`.
        """
        self.outputs = self._forward(point, {(call.path, call.number): [output]})
        return self._evaluated(target)[0]

    def _evaluated(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The scores and classes in the last forward pass."""
        assert self._target is not None
        assert self.outputs is not None
        scores, index, units = self._target.scores(self.outputs, target)
        self.facts |= {"units": units, **self.outputs.facts}
        made, calls = self.outputs.operations, self.outputs.calls
        chance.check([scores], made, calls, self._opened.fixed_batch)
        return scores, index

    def begun(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The score and the class at the point of `begin`."""
        if self._first is None:
            self.scores(self._start, target)
        assert self._first is not None
        return self._first

    def _score(self, point: Nest, given: Nest, target: Tensor) -> Tensor:
        """The scores at `point`, which is `given`, or a copy of it to differentiate by."""
        known = self._scored
        if known is not None and known[0] is point and known[1] is target:
            return known[2]
        asked = target
        if self._start is not None and given is not self._start:
            target = self.begun(target)[1]
        self.outputs = self._forward(point, moves=given is not self._start)
        scores, index = self._evaluated(target)
        if self._sites.layer and not any(
            paths.depends_on(scores, leaf) for leaf in tree.flatten(point)
        ):
            raise ValueError(
                self._cut_message(
                    scores, tree.flatten(point)[0], f"layer {self._sites.layer[0].path!r}"
                )
            )
        if self._first is None:
            self._first = (scores, index)
        self._scored = (point, asked, scores)
        return scores

    def gradient(self, point: Nest, target: Tensor, weight: Tensor | None = None) -> Nest:
        """The derivative of the score by the point, of the point's shape.

        Args:
            point: Where to evaluate.
            target: Ints `[n, K]`.
            weight: Numbers `[n]` that multiply the score, and so the derivative, for nothing.
        """
        self._check_numbers(point)
        given, point = point, tree.map_structure(backend.own, point)
        scores = self._score(point, given, target)
        if weight is not None:
            scores = scores * per_row(weight, scores)
        leaves = tree.flatten(point)
        grads = backend.gradients(scores, leaves)
        if any(grad is None for grad in grads):
            grads = self._explain_none(scores, leaves, grads)
        return tree.pack_sequence_as(point, grads)

    def _check_numbers(self, point: Nest) -> None:
        for path, leaf in tree.flatten_with_path(point):
            if leaf.dtype == "string":
                name = "/".join(map(str, path))
                raise ValueError(
                    f"Expected numbers behind the text input {name!r} to take a gradient by. "
                    "Received: a model in which no layer makes them of it alone. Use a method that "
                    "hides features, such as KernelSHAP with a `background`."
                )

    def computation(self, point: Nest, target: Tensor, **options: Any) -> Computation:
        """What leads from a point to the score, to be taken backwards by a method's own rules.

        Its sources are the leaves of the point.

        Args:
            point: Where to evaluate.
            target: Ints `[n, K]`.
            **options: As for `Computation`.
        """
        self._check_numbers(point)
        sources = tree.map_structure(backend.own, point)
        scores = self._score(sources, point, target)
        assert self.outputs is not None
        samples = self._opened.fixed_batch or ops.shape(tree.flatten(sources)[0])[0]
        calls = self.outputs.calls
        return Computation(scores, tree.flatten(sources), calls, samples=samples, **options)

    def at(
        self,
        layer: str | None,
        point: Nest,
        target: Tensor,
        reshape: Callable[[Tensor, str], Tensor] | None = None,
        number: int | None = None,
    ) -> Features:
        """A layer's output and the score's derivative by it, channels last.

        Args:
            layer: The layer's name or path; None for the last one that fits.
            point: Where to evaluate.
            target: Ints `[n, K]`.
            reshape: For layers of tokens: takes `[n, T, C]` and the layer's path, and returns
                `[n, ..., C]`. Then a layer fits if its output is `[n, T, C]`; without it, if its
                output has a spatial extent above 1.
            number: Which of the layer's calls it is; None for the last.
        """
        scores = self.scores(point, target)
        assert self.outputs is not None
        tokens = reshape is not None
        if layer is not None:
            call = self._spatial(layer, tokens, number)
        else:
            call = (self._last_tokens if tokens else self._last_spatial)(scores, point)
        self.facts["mapped"] = self._behind(call.output)
        return Features(self, scores, call, reshape)

    def inside(
        self, layer: str, point: Nest, target: Tensor, number: int | None = None
    ) -> tuple[Nest, Nest]:
        """A layer's output as it is, and the score's derivative by it.

        Both are a list where the layer is called more than once (and `number` names no call), or
        has several outputs.
        """
        scores = self.scores(point, target)
        assert self.outputs is not None
        calls = self.outputs.calls_of(layer, number)
        self._note_layer(calls)
        for call in calls:
            _site(call)
        flat = [tensor for call in calls for tensor in tree.flatten(call.output)]
        grads = backend.gradients(scores, flat)
        for tensor, grad in zip(flat, grads, strict=True):
            if grad is None:
                raise ValueError(self._cut_message(scores, tensor, f"layer {calls[0].path!r}"))
        flat, grads = ([self.outputs.cut(t) for t in tensors] for tensors in (flat, grads))
        return (flat[0], grads[0]) if len(flat) == 1 else (flat, grads)

    def output_of(self, layer: str, point: Nest, number: int | None = None) -> Nest:
        """A layer's output alone, as in `inside`."""
        outputs = self._forward(point)
        calls = outputs.calls_of(layer, number)
        flat = [outputs.cut(t) for call in calls for t in tree.flatten(call.output)]
        return flat[0] if len(flat) == 1 else flat

    def broken_calls(self) -> Tensor:
        """For each call of a layer whether its output holds NaN, and infinity: `[calls, 2]`.

        The layers' paths are noted in the facts.
        """
        found = []
        self.facts["paths"] = []
        for call in self._run(self.inputs, {}).calls:
            parts = [t for t in tree.flatten(call.output) if t.dtype.is_floating]
            flat = [ops.reshape(ops.cast(part, "float32"), (-1,)) for part in parts]
            tests = [[ops.any(test(part)) for part in flat] for test in (ops.isnan, ops.isinf)]
            if flat:
                found.append(ops.stack([ops.any(ops.stack(one)) for one in tests]))
                self.facts["paths"].append(call.path)
        return ops.stack(found) if found else ops.zeros((0, 2), "bool")

    # Shapes

    def upsample(self, maps: Tensor) -> Tensor:
        """Maps `[n, h, w]` (or `[n, t]`, `[n, d, h, w]`) at the input's size, bilinearly."""
        return resize(maps, self._size(self.under(maps), len(maps.shape) - 1))

    def over_each(self, maps: Tensor) -> dict[int, Tensor]:
        """Maps at the size of each input that leads to them and has as many axes of places."""
        first, spatial = self.under(maps), len(maps.shape) - 1
        behind = self.facts["mapped"] if "mapped" in self.facts else self._behind(maps)
        alike = [i for i in behind if len(self.layouts[i].axes) == spatial]
        return {i: resize(maps, self._size(i, spatial)) for i in dict.fromkeys([first, *alike])}

    def _size(self, leaf: int, spatial: int) -> tuple[int, ...]:
        """The lengths of so many axes of an input: of its places, or of all that it has."""
        shape = tuple(tree.flatten(self.inputs)[leaf].shape)
        return shape[1:] if len(shape) == spatial + 1 else self.layouts[leaf].sides(shape)

    def under(self, maps: Tensor) -> int:
        """The position of the input's leaf that maps of a layer are laid over.

        It is one with their number of spatial axes, which leads to the layer, if there is one.
        """
        spatial = len(maps.shape) - 1
        behind = self.facts["mapped"] if "mapped" in self.facts else self._behind(maps)
        over = self.facts["over"] = self._below(spatial, behind)
        if over is None:
            raise ValueError(
                f"Expected an input with {spatial} spatial axes to lay the map over. Received: "
                f"inputs of shape {[tuple(x.shape) for x in tree.flatten(self.inputs)]}. Choose a "
                "`layer` whose output keeps the input's spatial axes, or for tokens [B, T, C] give "
                "their grid, as in `reshape=(14, 14)`."
            )
        return over

    def _below(self, spatial: int, behind: list[int]) -> int | None:
        """The input below maps of so many axes: one that leads to them, with as many of places."""
        parts = zip(self.layouts, self._sites.inputs, tree.flatten(self.inputs), strict=True)
        leaves = [(i, (at, ids)) for i, (at, ids, x) in enumerate(parts) if x.dtype != "string"]
        suited = [i for i, (at, _) in leaves if at.rank in (spatial + 1, spatial + 2)]
        alike = [i for i, (at, ids) in leaves if len(at.axes) == spatial and (at.rank > 2 or ids)]
        several = [i for i in alike if i in behind]
        if len({self.sides[i] for i in several}) > 1:
            first, *others = (_input_name(self.inputs, i) for i in several)
            warnings.warn(
                f"The map lies over the {first}. It depends on the {' and '.join(others)} too, of "
                "another size: where these are not aligned, name a layer before they meet.",
                stacklevel=2,
            )
        return min(suited, key=lambda i: (i not in behind, i not in alike, i), default=None)

    def _note_layer(self, calls: list[Call]) -> None:
        """Notes where values at a layer lie."""
        assert self.outputs is not None
        if len(calls) > 1 or tree.is_nested(calls[0].output):
            return
        output = calls[0].output
        self.facts["layer_channels"] = self.outputs.channels(calls[0])
        if len(output.shape) > 2:
            self.facts["over"] = self._below(len(output.shape) - 2, self._behind(output))

    def _behind(self, tensor: Tensor) -> list[int]:
        """The positions of the input's leaves that a tensor (of the model) depends on."""
        leaves = enumerate(tree.flatten(self.inputs))
        return [i for i, x in leaves if paths.depends_on(tensor, x)]

    def noise(self, keys: Tensor, point: Nest) -> Nest:
        """Standard normal noise of the point's shape, one draw a key (`[n, 2]`)."""
        leaves = tree.flatten(point)
        return tree.pack_sequence_as(
            point,
            [
                self._noise(ops.add(keys, [0, 7919 * i]), i, tuple(leaf.shape))
                for i, leaf in enumerate(leaves)
            ],
        )

    def _noise(self, keys: Tensor, leaf: int, shape: tuple[int, ...]) -> Tensor:
        """Noise of a leaf of the point, which does not depend on where its channels are."""
        if self._sites.layer or len(shape) != self.layouts[leaf].rank:
            return backend.random_normal(keys, shape[1:])
        layout = self.layouts[leaf]
        axes = [*layout.axes, *(() if layout.channels is None else (layout.channels,))]
        drawn = backend.random_normal(keys, tuple(shape[axis] for axis in axes))
        return drawn if layout.channels is None else layout.back(drawn)

    # The forward pass

    def _forward(
        self,
        point: Nest,
        more: dict[tuple[str, int], list[Tensor]] | None = None,
        moves: bool = True,
    ) -> Outputs:
        """Runs the model at a point, with the decisions of the input.

        Args:
            point: Where to evaluate.
            more: Other outputs of calls.
            moves: Whether the point may be another one than that of the input.
        """
        inputs, replaced = self._placed(point)
        return self._run(inputs, replaced | (more or {}), list(replaced), moves)

    def _placed(self, point: Nest) -> tuple[Nest, dict[tuple[str, int], list[Tensor]]]:
        """The model's input at a point, and the outputs of the calls that make the point."""
        replaced: dict[tuple[str, int], list[Tensor]] = {}
        if self._sites.layer:
            flat = tree.flatten(point)
            each = len(flat) // len(self._sites.layer)
            for i, site in enumerate(self._sites.layer):
                replaced[site.path, site.number] = flat[i * each : (i + 1) * each]
            return self.inputs, replaced
        leaves = []
        for x, leaf, sites in zip(
            tree.flatten(self.inputs), tree.flatten(point), self._sites.inputs, strict=True
        ):
            edges = np.cumsum([site.width for site in sites])[:-1]
            parts = ops.split(leaf, [int(e) for e in edges], axis=-1) if len(sites) > 1 else [leaf]
            for site, part in zip(sites, parts, strict=False):
                replaced[site.path, site.number] = [part]
            leaves.append(x if sites or x.dtype == "bool" else leaf)
        return tree.pack_sequence_as(self.inputs, leaves), replaced

    def _run(
        self,
        inputs: Nest,
        replaced: dict[tuple[str, int], list[Tensor]] | None = None,
        sites: list[tuple[str, int]] | None = None,
        moves: bool = True,
    ) -> Outputs:
        """Runs the model.

        Args:
            inputs: Its input.
            replaced: Outputs of calls.
            sites: The calls that make the point, which the inputs lie at. Then the model decides
                as it does for the user's input.
            moves: As for `_forward`.
        """
        calls: list[Call] = []
        moved: list[Moved] = []
        hook = self._recorder(replaced or {}, sites or [], calls, moved)
        padded, rows = self._padded(inputs)
        model = self._opened.model
        nodes = [model, *self._opened.nodes.values()]
        before = len(traced.operations())
        with intercept(nodes, hook, self._opened.zero_states()):
            raw = model(padded, training=False)
        made = traced.operations()[before:]
        if sites is not None:
            moved = self._moved(inputs, padded) + moved
            raw, calls = self._decided(raw, calls, made, moved, moves)
        leaves = tree.flatten(padded)
        return Outputs(self._opened, raw, calls, rows, made, leaves, self.layouts)

    def _recorder(
        self,
        replaced: dict[tuple[str, int], list[Tensor]],
        sites: list[tuple[str, int]],
        calls: list[Call],
        moved: list[Moved],
    ) -> Callable:
        """A hook that replaces outputs of calls, and notes the calls and what moved at sites."""
        counts: dict[str, int] = {}

        def hook(node: Any, call: Callable, *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if node is self._opened.model:
                return output
            path = self._opened.paths[id(node)]
            number = counts[path] = counts.get(path, -1) + 1
            if (path, number) in replaced:
                parts, _ = self._padded(replaced[path, number])
                for part, original in zip(parts, tree.flatten(output), strict=True):
                    stand_in(part, original)
                if (path, number) in sites:
                    moved.extend(map(Moved, parts, tree.flatten(output)))
                output = tree.pack_sequence_as(output, parts)
            seen = [t for t in tree.flatten((args, kwargs)) if traced.is_here(t)]
            if all(map(traced.is_here, tree.flatten(output))):
                calls.append(Call(path, node, number, seen, output))
            return output

        return hook

    def _padded(self, inputs: Nest) -> tuple[Nest, Tensor | None]:
        size = self._opened.fixed_batch
        if size is None:
            return inputs, None
        rows = ops.shape(tree.flatten(inputs)[0])[0]

        def pad(x: Tensor) -> Tensor:
            x = ops.take(x, ops.minimum(ops.arange(size), ops.shape(x)[0] - 1), axis=0)
            return ops.reshape(x, (size, *x.shape[1:]))

        return tree.map_structure(pad, inputs), rows

    def _moved(self, inputs: Nest, padded: Nest) -> list[Moved]:
        """The leaves of the input that are not those of the user's."""
        flat = zip(*map(tree.flatten, (inputs, padded, self.inputs)), strict=True)
        integer = self._integer or [False] * len(tree.flatten(inputs))
        return [
            Moved(leaf, self._padded(own)[0], integer[i])
            for i, (given, leaf, own) in enumerate(flat)
            if given is not own
        ]

    def _decided(
        self,
        raw: Nest,
        calls: list[Call],
        made: list[Any],
        moved: list[Moved],
        moves: bool,
    ) -> tuple[Nest, list[Call]]:
        """Outputs and calls with the decisions of the input.

        Args:
            raw: The model's output.
            calls: The calls of its layers.
            made: The operations of the pass.
            moved: The tensors of the point.
            moves: Whether it may be another one than that of the input.
        """
        point = [part.tensor for part in moved]
        integers = [part.tensor for part in moved if part.integer]
        found = decisions.Decisions(made, point, integers)
        if found.loops and moves:
            raise _undecided(found.loops[0], calls)
        if not found.found:
            return raw, calls
        self.facts["decides"] = True
        places = decisions.pin(found.found, point, [part.original for part in moved])

        def placed(nest: Nest) -> Nest:
            return tree.map_structure(lambda t: places.get(id(t), t), nest)

        calls = [replace(c, inputs=placed(c.inputs), output=placed(c.output)) for c in calls]
        return placed(raw), calls

    # Layers with a map

    def _spatial(self, layer: str, tokens: bool, number: int | None) -> Call:
        assert self.outputs is not None
        call = self.outputs.calls_of(layer, number)[-1]
        fits = self.outputs.has_tokens if tokens else self.outputs.has_map
        if not fits(call):
            what = "of tokens, [B, T, C]" if tokens else "of a spatial extent above 1, [B, ..., C]"
            fitting = [c.path for c in self.outputs.calls if fits(c)]
            received = [tuple(t.shape) for t in tree.flatten(call.output)]
            raise ValueError(
                f"Expected a layer with one output {what}. "
                f"Received: layer={layer!r}, whose output has shape {received}. "
                + (f"The last that fit: {', '.join(map(repr, fitting[-3:]))}." if fitting else "")
            )
        return call

    def _last_tokens(self, scores: Tensor, point: Nest) -> Call:
        """The last call with an output `[n, T, C]` of tokens that all paths to the score cross.

        Where the score is read from single tokens (class tokens), these are the last ones before
        the last attention: later, no token speaks for another one.
        """
        assert self.outputs is not None
        calls = self._leading([c for c in self.outputs.calls if self.outputs.has_tokens(c)], scores)
        last = next(calls, None)
        if last is None:
            raise ValueError(
                "Expected a model with a layer of tokens, [B, T, C], as `reshape` asks for. "
                f"Received: {self._opened.model.name!r}, in which no such layer leads to the score."
            )
        if not _is_read_by_token(last.output, scores):
            return self._crossed(last, self.outputs.has_tokens, scores, point)
        return next((c for c in (last, *calls) if _meet(c.output, scores)), last)

    def _last_spatial(self, scores: Tensor, point: Nest) -> Call:
        """The last call with a map over an input that all paths from there to the score cross."""
        assert self.outputs is not None
        last = next(self._leading(filter(self._fits, self.outputs.calls), scores), None)
        if last is None:
            raise ValueError(
                f"Expected a model with a layer whose output has a spatial extent above 1. Received"
                f": {self._opened.model.name!r}, in which no such layer leads to the score."
                f"{self._in_loops()}"
            )
        return self._crossed(last, self._fits, scores, point)

    def _fits(self, call: Call) -> bool:
        """Whether a call has a map with the spatial axes of an input."""
        assert self.outputs is not None
        ranks = {len(x.shape) for x in tree.flatten(self.inputs)}
        if not self.outputs.has_map(call):
            return False
        return bool(ranks & {len(call.output.shape), len(call.output.shape) - 1})

    def _in_loops(self) -> str:
        """What to say of layers that are called once for each time step."""
        nodes = self._opened.nodes.items()
        around = [path for path, node in nodes if isinstance(node, keras.layers.TimeDistributed)]
        if not around:
            return ""
        return (
            f" What is inside of {', '.join(map(repr, around))} runs in a loop, where it can't be "
            "read: explain that layer by itself, on one step of the input."
        )

    def _leading(self, calls: Iterable[Call], scores: Tensor) -> Iterator[Call]:
        """Those of the calls that lead to the scores, the last first."""
        return (c for c in reversed(list(calls)) if paths.depends_on(scores, c.output))

    def _crossed(
        self, last: Call, fits: Callable[[Call], bool], scores: Tensor, point: Nest
    ) -> Call:
        """The last call that fits and that all paths from the input it lies over cross.

        It is `last`, with a warning, where there is none behind a layer with weights.
        """
        assert self.outputs is not None
        sources = tree.flatten(point)

        crossings = [paths.crossings(scores, source) for source in sources]

        def is_crossed(call: Call) -> bool:
            over = [i for i, tensors in enumerate(crossings) if id(call.output) in tensors]
            return bool(over) and self._behind(call.output)[0] in over

        calls = (c for c in reversed(self.outputs.calls) if fits(c) and is_crossed(c))
        call = next(calls, None)
        if call is not last and not (call and _is_weighted(call.output, sources)):
            warnings.warn(
                "Expected a layer that all paths from the input to the score cross, to map what it "
                f"finds. Received: none; the map is of {last.path!r}, beside which other branches "
                "lead to the score. Choose `layer`, such as one where they meet.",
                stacklevel=2,
            )
            call = last
        return next(c for c in self.outputs.calls if c.output is call.output)

    # A gradient that is None

    def _explain_none(self, scores: Tensor, leaves: list, grads: list) -> list:
        """Zeros where the score does not depend on an input beside others; else an error."""
        alone = all(grad is None for grad in grads)
        for i, (leaf, grad) in enumerate(zip(leaves, grads, strict=True)):
            if grad is not None:
                continue
            layer = self._sites.layer
            name = f"layer {layer[0].path!r}" if layer else _input_name(self.inputs, i)
            continuous = bool(layer) or not (self._integer or [])[i]
            if alone or (continuous and paths.depends_on(scores, leaf)):
                raise ValueError(self._cut_message(scores, leaf, name))
            if not continuous:
                warnings.warn(
                    f"The {name} holds integers or booleans without an Embedding, and no gradient "
                    "leads to it: its attributions are zero.",
                    stacklevel=2,
                )
            grads[i] = ops.zeros_like(leaf)
        return grads

    def _cut_message(self, scores: Tensor, source: Tensor, name: str) -> str:
        if not (self.facts.get("decides") or paths.depends_on(scores, source)):
            return f"Expected a score that depends on the {name}. Received: one that does not."
        cut = self._cutting_call(scores, source)
        where = f"at {cut.path!r} ({type(cut.node).__name__})" if cut else "by a raw operation"
        return (
            f"Expected a gradient of the score by the {name}. Received: none, since it is cut off "
            f"{where}, which has no derivative. Explain a layer after it, replace the operation by "
            "a differentiable one, or use a method without gradients."
        )

    def _cutting_call(self, scores: Tensor, source: Tensor) -> Call | None:
        """The innermost last call with a derivative behind it and none before it."""
        assert self.outputs is not None
        calls = [
            call
            for call in self.outputs.calls
            if any(paths.depends_on(t, source) for t in call.inputs)
        ]
        for call in calls:
            after = _any_gradient(scores, tree.flatten(call.output))
            before = _any_gradient(scores, [t for t in call.inputs if t.dtype.is_floating])
            if after and not before:
                return call
        return None


def find_sites(
    opened: OpenModel, inputs: Nest, layer: str | None, number: int | None = None
) -> Sites:
    """Where a model is explained: at a layer, or at the Embeddings that token ids enter.

    It is traced for this only where it has such layers, or such as have the channels elsewhere
    than is assumed.
    """
    leaves, nodes = tree.flatten(inputs), list(opened.nodes.values())
    sites = Sites([[] for _ in leaves], channels=[set() for _ in leaves])
    is_text = [leaf.dtype.kind == "U" for leaf in leaves]
    embeds = any(isinstance(node, keras.layers.Embedding) for node in nodes)
    told = layout.is_told(nodes, inputs)
    if layer is None and not embeds and not told and not any(is_text):
        return sites

    def trace(inputs: Nest, row: Tensor) -> Tensor:
        nowhere = Sites([[] for _ in leaves])
        outputs = Probe(opened, inputs, None, nowhere, row, {})._run(inputs)
        calls = outputs.calls
        embeds = [c for c in calls if isinstance(c.node, keras.layers.Embedding)]
        for leaf, found, text in zip(tree.flatten(inputs), sites.inputs, is_text, strict=True):
            if text:
                found += _first_numbers(leaf, tree.flatten(inputs), calls)
            else:
                found += [_site(c) for c in embeds if _enters(leaf, c)]
            sites.ids.append(any(_is_looked_up(leaf, c) for c in embeds))
        if layer is not None:
            sites.layer.extend(_site(call) for call in outputs.calls_of(layer, number))
        if told:
            for leaf, said in zip(outputs.inputs, sites.channels, strict=True):
                said |= layout.channels_of(leaf, calls)
        return row

    backend.compile(trace, specs(inputs), backend.int_spec(None))
    return sites


def _undecided(op: Any, calls: list[Call]) -> ValueError:
    return ValueError(
        "Expected decisions on the input (masks, lengths, conditions) outside of loops and "
        "branches, since they are to be those of the input while it is moved. Received: one inside "
        f"of {op.type!r} ({op.name}), in {where(maker(op, calls))}. Decide before the loop, "
        "explain a layer after it, or use a method that does not move the input."
    )


def _site(call: Call) -> Site:
    for tensor in tree.flatten(call.output):
        if not keras.backend.is_float_dtype(tensor.dtype):
            raise ValueError(
                "Expected a layer whose output holds floating-point numbers to explain. "
                f"Received: layer={call.path!r}, whose output is of dtype {tensor.dtype.name}."
            )
    shape = tree.flatten(call.output)[0].shape
    return Site(call.path, call.number, shape[-1])


def _first_numbers(leaf: Tensor, leaves: list[Tensor], calls: list[Call]) -> list[Site]:
    """The calls that first make numbers of a leaf of texts, and of no other one.

    One-hot categories may be integers.
    """
    found: list[Call] = []
    for call in calls:
        outputs = tree.flatten(call.output)
        coded = getattr(call.node, "output_mode", "int") != "int"
        are_numbers = coded or keras.backend.is_float_dtype(outputs[0].dtype)
        if len(outputs) == 1 and are_numbers and _enters(leaf, call):
            behind = [c.output for c in found]
            if not any(paths.depends_on(outputs[0], output) for output in behind):
                found.append(call)
    alone = [c for c in found if not any(_enters(x, c) for x in leaves if x is not leaf)]
    return [Site(c.path, c.number, c.output.shape[-1]) for c in alone] if alone == found else []


def _enters(leaf: Tensor, call: Call) -> bool:
    return any(paths.depends_on(tensor, leaf) for tensor in call.inputs)


def _is_looked_up(leaf: Tensor, call: Call) -> bool:
    """Whether a layer takes entries of a leaf as they are, and not what is computed of them."""
    kept = ALIASES | ROUTING | {"Cast", "LookupTableFindV2"}
    return any(paths.depends_on(tensor, leaf, through=kept) for tensor in call.inputs)


def _per_entry(values: Tensor, x: Tensor) -> Tensor:
    """Attributions to what is made of each entry of `x`, summed over what it was made."""
    if len(values.shape) > len(x.shape):
        values = ops.sum(values, axis=-1)
    elif x.dtype == "string":  # [n, V] of [n, 1]: one-hot categories
        values = ops.sum(values, axis=-1, keepdims=True)
    if x.dtype == "string" and tuple(values.shape[1:]) != tuple(x.shape[1:]):
        raise ValueError(
            f"Expected numbers for each text {tuple(x.shape)}, to attribute to. Received: "
            f"{tuple(values.shape)}, as a TextVectorization makes of words. Explain what is behind "
            "it: `keras.Model(vectorizer.output, model.outputs)` with `vectorizer(texts)` as x."
        )
    return values


def per_row(value: Tensor, leaf: Tensor) -> Tensor:
    """Numbers `[n]` with the axes that let them multiply a leaf `[n, ...]`."""
    return ops.reshape(value, (-1,) + (1,) * (len(leaf.shape) - 1))


def between(start: Nest, end: Nest, share: Tensor) -> Nest:
    """The points `start + share * (end - start)` of nests `[n, ...]`, for shares `[n]`."""
    return tree.map_structure(lambda a, b: a + per_row(share, a) * (b - a), start, end)


def specs(nest: Nest) -> Nest:
    """Signatures of arrays whose first axis is rows."""
    return tree.map_structure(lambda array: backend.spec(array), nest)


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear interpolation of `[n, *spatial]` to `[n, *size]`, for any number of axes."""
    if len(size) == 2:
        return _resize_2d(maps[..., None], size)[..., 0]
    for axis, length in enumerate(size, start=1):
        maps = ops.moveaxis(maps, axis, 1)
        shape = maps.shape[1:]
        rest = int(np.prod(shape[1:]))
        flat = ops.reshape(maps, (-1, shape[0], rest, 1))
        flat = _resize_2d(flat, (length, rest))
        maps = ops.moveaxis(ops.reshape(flat, (-1, length, *shape[1:])), 1, axis)
    return maps


def _resize_2d(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return ops.image.resize(images, size, interpolation="bilinear", data_format="channels_last")


def _number(x: Tensor) -> Tensor:
    return ops.cast(x, "float32") if x.dtype == "bool" else x


def _is_read_by_token(tokens: Tensor, scores: Tensor) -> bool:
    """Whether all that leads from tokens `[n, T, C]` to the scores are single ones of them."""
    users = [op for op in paths.operations_between(scores, tokens) if _takes(op, tokens)]
    shapes = [tuple(op.outputs[0].shape) for op in users]
    return all(
        op.type in ("StridedSlice", "Slice", "GatherV2") and (len(shape) == 2 or shape[1] == 1)
        for op, shape in zip(users, shapes, strict=True)
    )


def _meet(tokens: Tensor, scores: Tensor) -> bool:
    """Whether tokens are multiplied with each other on the way to the scores, as in attention."""
    operations = paths.operations_between(scores, tokens)
    made = {id(t) for op in operations for t in op.outputs} | {id(tokens)}
    return any(
        op.type in ("Einsum", "MatMul", "BatchMatMulV2", "BatchMatMulV3")
        and all(id(t) in made for t in op.inputs)
        for op in operations
    )


def _is_weighted(tensor: Tensor, sources: list[Tensor]) -> bool:
    """Whether a product with weights, or of other numbers, leads from a source to a tensor."""
    return any(op.type in WEIGHTED for x in sources for op in paths.operations_between(tensor, x))


def _takes(op: Any, tensor: Tensor) -> bool:
    return any(t is tensor for t in op.inputs)


def _any_gradient(scores: Tensor, tensors: list[Tensor]) -> bool:
    here = [t for t in tensors if traced.is_here(t)]
    return bool(here) and any(grad is not None for grad in backend.gradients(scores, here))


def _input_name(inputs: Nest, position: int) -> str:
    paths = tree.flatten_with_path(inputs)
    path = "/".join(map(str, paths[position][0]))
    return f"input {path!r}" if path else "input"
