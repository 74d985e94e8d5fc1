"""What one forward pass of a model gave: its outputs, and those of its layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_explain.core.data.layout import Layout
from keras_explain.core.graph import traced
from keras_explain.core.graph.ending import Kind, ending_of
from keras_explain.core.graph.steps import Call
from keras_explain.core.model.channels import said_after
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.names import nearest

Tensor = Any
Nest = Any

_MOVES_AXES = (keras.layers.Permute, keras.layers.Reshape, keras.layers.InputLayer)
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclass(frozen=True)
class Site:
    """A call of a layer whose output is explained: of an Embedding, or of a layer asked for.

    `width` is the length of the last axis of its (first) output.
    """

    path: str
    number: int
    width: int | None


@dataclass(frozen=True)
class Units:
    """An output's numbers `[n, ..., C]` or `[n]`, and whether they are probabilities."""

    values: Tensor
    are_probabilities: bool

    @property
    def negative(self) -> Tensor:
        """The numbers of what a unit does not stand for."""
        return 1 - self.values if self.are_probabilities else -self.values

    @property
    def middle(self) -> float:
        """The number at which a unit speaks neither for nor against what it stands for."""
        return 0.5 if self.are_probabilities else 0.0


@dataclass(frozen=True)
class Read:
    """What is known of an output that was read.

    Attributes:
        width: How many units it has.
        has_probabilities: Whether it is known what its probabilities are.
        as_it_is: Whether it is read as it is although a softmax or sigmoid leads to it.
    """

    width: int | None = None
    has_probabilities: bool = False
    as_it_is: bool = False


class Outputs:
    """The outputs of one forward pass of `rows` rows, its recorded calls and its operations.

    `inputs` are the leaves that the model ran on, and `layouts` those of the user's input;
    `decides` says whether what the model decided by its input was set to what it is for the
    user's. `read` is what is known of the output that was read last.
    """

    def __init__(
        self,
        opened: OpenModel,
        raw: Nest,
        calls: list[Call],
        rows: Tensor | None,
        operations: list[Any],
        inputs: list[Tensor],
        layouts: Sequence[Layout],
        decides: bool,
    ) -> None:
        self.opened, self._raw, self._rows = opened, raw, rows
        self.calls, self.operations = calls, operations
        self.inputs, self._layouts, self.decides = inputs, layouts, decides
        self.read = Read()

    @property
    def values(self) -> Nest:
        """The outputs as the model returns them."""
        return tree.map_structure(self.cut, self._raw)

    def value(self, output: str | int | None) -> Tensor:
        """One output as the model returns it."""
        raw = self._select(output)
        self.read = Read(_width(raw))
        return self.cut(ops.cast(raw, "float32"))

    def units(self, output: str | int | None, of: str) -> "Units":
        """One output as `"logit"` or `"probability"`, after the rule in `core/graph/ending.py`."""
        raw = self._select(output)
        ending = ending_of(raw)
        self.read = Read(
            _width(raw),
            has_probabilities=ending.kind is not Kind.UNKNOWN,
            as_it_is=of == "logit" and ending.hides_an_activation,
        )
        numbers = ending.logits if of == "logit" else ending.probabilities
        shares = of == "probability" or ending.kind is Kind.PROBABILITY
        return Units(self.cut(ops.cast(numbers, "float32")), shares)

    def layer(self, layer: str, number: int | None = None) -> Tensor:
        """The output of a layer; of its last call, where none of several is named."""
        return self.cut(self.calls_of(layer, number)[-1].output)

    def call_at(self, site: Site) -> Call:
        """The call of a site."""
        return next(c for c in self.calls if (c.path, c.number) == (site.path, site.number))

    def at_site(self, site: Site) -> list[Tensor]:
        """The outputs of a call."""
        return [self.cut(tensor) for tensor in tree.flatten(self.call_at(site).output)]

    def calls_of(self, layer: str, number: int | None = None) -> list[Call]:
        """The calls of a layer, or the one of that number."""
        path = self.opened.resolve(layer)
        here = (call for call in self.calls if all(map(traced.is_here, tree.flatten(call.output))))
        calls = [call for call in here if call.path == path]
        if not calls:
            raise ValueError(
                f"Layer {path!r} takes no part in the model's forward pass, or only inside a loop "
                "(such as a recurrent layer's), where its output can't be read. "
                f"{nearest(path, dict.fromkeys(call.path for call in self.calls))}"
            )
        if number is not None and number >= len(calls):
            raise ValueError(
                f"Expected `call` below {len(calls)}, the number of calls of layer {path!r}. "
                f"Received: call={number}."
            )
        return calls if number is None else [calls[number]]

    def has_map(self, call: Call) -> bool:
        """Whether a call has one output `[n, ..., C]` with a spatial extent above 1."""
        if not traced.is_here(call.output) or len(call.output.shape) < 3:
            return False
        around = self.opened.nodes.get(call.path.rpartition("/")[0])
        if len(call.output.shape) > 3 and isinstance(around, _ATTENTION):  # [n, T, heads, C]
            return False
        shape = tuple(call.output.shape)
        spatial = Layout(len(shape), self.channels(call)).sides(shape)
        return all(spatial) and int(np.prod(spatial)) > 1

    def has_tokens(self, call: Call) -> bool:
        """Whether a call has one output of tokens, `[n, T, C]` with T above 1."""
        return self.has_map(call) and len(call.output.shape) == 3

    def channels(self, call: Call) -> int:
        """The axis of the channels of a call's output, by the layers that lead to it.

        What says nothing keeps that of the layer before it, or of the input, except where axes are
        moved. At the end, it is as Keras is configured.
        """
        rank, taken = len(call.output.shape), set()
        before: Call | None = call
        while before is not None and not isinstance(before.node, _MOVES_AXES):
            said = said_after(before.node)
            if said is not None:
                return said
            call, before = before, self._producer(before)
            taken = set(map(id, call.inputs)) if before is None else set()
        for tensor, layout in zip(self.inputs, self._layouts, strict=False):
            if id(tensor) in taken and layout.rank == rank and layout.channels is not None:
                return layout.channels
        return 1 if rank > 3 and keras.config.image_data_format() == "channels_first" else -1

    def channels_of_output(self, output: str | int | None) -> int:
        """The same of one of the model's outputs."""
        raw = self._select(output)
        call = next((c for c in self.calls if c.output is raw), None)
        return -1 if call is None else self.channels(call)

    def _producer(self, call: Call) -> Call | None:
        inputs = set(map(id, call.inputs))
        return next((c for c in self.calls if c is not call and id(c.output) in inputs), None)

    def cut(self, tensor: Tensor) -> Tensor:
        """A tensor of the forward pass without the rows that only fill its batch."""
        return tensor if self._rows is None else tensor[: self._rows]

    def _select(self, output: str | int | None) -> Tensor:
        named = self._named()
        if output is None and len(named) == 1:
            return next(iter(named.values()))
        if output is None:
            raise ValueError(
                "Expected a target that says which output is explained, as in "
                f"`keras_explain.targets.Class(0, output={next(iter(named))!r})`, since the model "
                f"has the outputs {', '.join(map(repr, named))}."
            )
        if isinstance(output, int) and not isinstance(self._raw, dict):
            named = dict(enumerate(named.values()))
        if output not in named:
            raise ValueError(
                f"Expected the name or position of one of the model's outputs, "
                f"{', '.join(map(repr, named))}. Received: output={output!r}."
            )
        return named[output]

    def _named(self) -> dict[Any, Tensor]:
        if isinstance(self._raw, dict):
            return self._raw
        flat = tree.flatten(self._raw)
        names = getattr(self.opened.model, "output_names", None)
        return dict(
            zip(names if names and len(names) == len(flat) else range(len(flat)), flat, strict=True)
        )


def _width(output: Tensor) -> int | None:
    return output.shape[-1] if len(output.shape) > 1 else 1
