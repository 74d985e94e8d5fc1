"""Which call of a layer a map is made of, where none is named, or whether the named one fits."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from keras_explain.core.graph import paths
from keras_explain.core.graph.steps import Call
from keras_explain.core.graph.tokens import is_read_singly, is_weighted, meet
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.outputs import Outputs
from keras_explain.core.model.overlay import Overlay

Tensor = Any
Nest = Any


@dataclass(frozen=True, eq=False)
class Choice:
    """The choice of a call among those of a forward pass.

    Args:
        opened: The model.
        outputs: What the forward pass gave.
        scores: The scores that it led to.
        point: Where it was taken.
        overlay: The inputs that the map may lie over.
    """

    opened: OpenModel
    outputs: Outputs
    scores: Tensor
    point: Nest
    overlay: Overlay

    def named(self, layer: str, number: int | None, *, tokens: bool) -> Call:
        """The call of a layer that was asked for.

        Raises:
            ValueError: Its output is no map, or with `tokens` is not of tokens.
        """
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

    def last_of_tokens(self) -> Call:
        """The last call with an output `[n, T, C]` of tokens that all paths to the score cross.

        Where the score is read from single tokens (class tokens), these are the last ones before
        the last attention: later, no token speaks for another one.
        """
        calls = self._leading(c for c in self.outputs.calls if self.outputs.has_tokens(c))
        last = next(calls, None)
        if last is None:
            raise ValueError(
                "Expected a model with a layer of tokens, [B, T, C], as `reshape` asks for. "
                f"Received: {self.opened.model.name!r}, in which no such layer leads to the score."
            )
        if not is_read_singly(last.output, self.scores):
            return self._crossed(last, self.outputs.has_tokens)
        return next((c for c in (last, *calls) if meet(c.output, self.scores)), last)

    def last_spatial(self) -> Call:
        """The last call with a map over an input that all paths from there to the score cross."""
        last = next(self._leading(filter(self._fits, self.outputs.calls)), None)
        if last is None:
            raise ValueError(
                f"Expected a model with a layer whose output has a spatial extent above 1. Received"
                f": {self.opened.model.name!r}, in which no such layer leads to the score."
                f"{self._in_loops()}"
            )
        return self._crossed(last, self._fits)

    def _fits(self, call: Call) -> bool:
        """Whether a call has a map with the spatial axes of an input."""
        ranks = {len(x.shape) for x in tree.flatten(self.overlay.inputs)}
        if not self.outputs.has_map(call):
            return False
        return bool(ranks & {len(call.output.shape), len(call.output.shape) - 1})

    def _in_loops(self) -> str:
        """What to say of layers that are called once for each time step."""
        nodes = self.opened.nodes.items()
        around = [path for path, node in nodes if isinstance(node, keras.layers.TimeDistributed)]
        if not around:
            return ""
        return (
            f" What is inside of {', '.join(map(repr, around))} runs in a loop, where it can't be "
            "read: explain that layer by itself, on one step of the input."
        )

    def _leading(self, calls: Iterable[Call]) -> Iterator[Call]:
        """Those of the calls that lead to the scores, the last first."""
        return (c for c in reversed(list(calls)) if paths.depends_on(self.scores, c.output))

    def _crossed(self, last: Call, fits: Callable[[Call], bool]) -> Call:
        """The last call that fits and that all paths from the input it lies over cross.

        It is `last`, with a warning, where there is none behind a layer with weights.
        """
        sources = tree.flatten(self.point)
        crossings = [paths.crossings(self.scores, source) for source in sources]

        def is_crossed(call: Call) -> bool:
            over = [i for i, tensors in enumerate(crossings) if id(call.output) in tensors]
            return bool(over) and self.overlay.behind(call.output)[0] in over

        calls = (c for c in reversed(self.outputs.calls) if fits(c) and is_crossed(c))
        call = next(calls, None)
        if call is not last and not (call and is_weighted(call.output, sources)):
            warnings.warn(
                "Expected a layer that all paths from the input to the score cross, to map what it "
                f"finds. Received: none; the map is of {last.path!r}, beside which other branches "
                "lead to the score. Choose `layer`, such as one where they meet.",
                stacklevel=2,
            )
            call = last
        return next(c for c in self.outputs.calls if c.output is call.output)
