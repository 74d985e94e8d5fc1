"""The computation between a point and a score, as steps that a method takes backwards by rules.

`Computation` reads the traced graph, so fused and shared layers, nested models, functional and raw
operations are all alike to it. What one rule handles as a whole is one `Step`: an operation, an
elementwise function made of several operations (such as swish), a weighted sum with its bias and
the BatchNormalization behind it (`Affine`), or a layer whose inside has no rules.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops, tree

from keras_explain.core.graph import kernels, paths, traced
from keras_explain.core.graph.operations import (
    AFFINE,
    ALIASES,
    ARRANGING,
    BEFORE_ONLY,
    CONSTANTS,
    ELEMENTWISE,
    PRODUCTS,
    WEIGHTED,
)
from keras_explain.core.graph.steps import Affine, Call, Message, Step, send

Tensor = Any
Rule = Callable[[Step, list[Message]], Sequence[Message]]


class Computation:
    """The steps that lead from some tensors to a result.

    Args:
        result: The explained scores.
        sources: The point: tensors.
        calls: The calls of layers in between.
        opaque: Whether a call is taken as one step.
        by_value: Whether operations are taken for what they do to numbers: what only stops or
            replaces gradients is looked through, and those that one rule handles are joined.
        held: Types of operations whose results are taken as constants.
        shown: Types of operations that no custom gradient may hide: one that takes the place of
            theirs is looked through.
        samples: The number of rows of the model's input; one of them may make several rows later.
    """

    def __init__(
        self,
        result: Tensor,
        sources: list[Tensor],
        calls: Collection[Call] = (),
        opaque: Callable[[Call], bool] = lambda call: False,
        by_value: bool = True,
        held: Collection[str] = (),
        shown: Collection[str] = (),
        samples: Tensor = None,
    ) -> None:
        self.samples = samples
        self._constants = CONSTANTS | set(held)
        self.result, self.sources, self.calls = result, sources, calls
        self._by_value = by_value
        self._ids = set(map(id, sources))
        self._aliases = ALIASES if by_value else frozenset()
        self._shown = shown
        self._opaque = {
            id(tensor): step
            for step in map(self._layer, filter(opaque, calls))
            for tensor in step.outputs
        }
        self._ends = self._ids | self._opaque.keys()
        self._owners = _owners(calls)
        self._active = set(self._ids)
        self.steps = list(self._steps())

    def backward(self, start: Message, rule: Rule) -> list[Message]:
        """Sends a message from the result back to each source; zeros where none arrives.

        Args:
            start: The message at the result.
            rule: Takes a step and the messages that came back to its outputs (None for none), and
                returns one for each of its inputs. Messages that meet are added.
        """
        messages = {id(self._same(self.result)): start}
        for step in reversed(self.steps):
            upstream = [messages.get(id(tensor)) for tensor in step.outputs]
            if any(message is not None for message in upstream):
                for tensor, back in zip(step.inputs, rule(step, upstream), strict=True):
                    send(messages, self._same(tensor), back)
        return [
            ops.zeros_like(source) if id(source) not in messages else messages[id(source)]
            for source in self.sources
        ]

    def twins(self, other: "Computation") -> dict[int, Tensor]:
        """By the id of each tensor, the same one of another run of the model."""
        found: dict[int, Tensor] = {}
        done: set[int] = set()
        stack = [(self.result, other.result), *zip(self.sources, other.sources, strict=True)]
        while stack:
            copy, two = stack.pop()
            one, two = self._same(copy), other._same(two)
            found[id(copy)] = two
            if id(one) in done:
                continue
            done.add(id(one))
            found[id(one)] = two
            if id(one) in self._ids or id(one) not in self._active:
                continue
            made, alike = self._node(one), other._node(two)
            if made.type != alike.type or len(made.inputs) != len(alike.inputs):
                raise ValueError(
                    "Expected a model that does the same operations for every input. Received: "
                    f"one that does {made.type!r} ({one.name}) for the input and "
                    f"{alike.type!r} for the reference."
                )
            stack += zip(made.outputs, alike.outputs, strict=True)
            stack += zip(made.inputs, alike.inputs, strict=True)
        return found

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the point."""
        return id(self._same(tensor)) in self._active

    @property
    def keeps_rows(self) -> bool:
        """Whether no step is known to move the samples' axis into another one, or could."""
        sums = [step for step in self.steps if isinstance(step, Affine) and not step.absorbed]
        inside = {id(op) for step in sums for op in step.ops}
        others = [step for step in self.steps if id(step.op) not in inside]
        return all(map(_keeps_rows, [*sums, *others]))

    def ends(self) -> tuple[set[Affine], set[Affine]]:
        """The weighted sums that no other one leads to, and those that lead to no other one."""
        sums = {step for step in self.steps if isinstance(step, Affine) and not step.absorbed}
        behind: set[int] = set()
        first = set(sums)
        for step in self.steps:
            if any(id(self._same(tensor)) in behind for tensor in step.inputs):
                first.discard(step)
            elif step not in sums and step.type != "Layer":
                continue
            behind |= {id(tensor) for tensor in step.outputs}
        ahead: set[int] = set()
        last = set(sums)
        for step in reversed(self.steps):
            if any(id(tensor) in ahead for tensor in step.outputs):
                last.discard(step)
            elif step not in sums:
                continue
            ahead |= {id(self._same(tensor)) for tensor in step.inputs}
        return first, last

    # Reading the graph

    def _same(self, tensor: Tensor) -> Tensor:
        """The tensor that this one is a copy of."""
        while id(tensor) not in self._ends and self._is_copy(tensor):
            tensor = tensor.op.inputs[tensor.value_index]
        return tensor

    def _is_copy(self, tensor: Tensor) -> bool:
        op, i = tensor.op, tensor.value_index
        if op.type in self._aliases or op.type != "IdentityN" or not self._shown:
            return op.type in self._aliases
        arguments = [*op.inputs[:i], *op.inputs[i + 1 :]]
        return any(inner.type in self._shown for inner in paths.between([op.inputs[i]], arguments))

    def _node(self, tensor: Tensor) -> Any:
        """What made a tensor: an operation, or a layer that is taken as one step."""
        return self._opaque.get(id(tensor), tensor.op)

    def _operands(self, node: Any) -> list[Tensor]:
        return [self._same(tensor) for tensor in node.inputs]

    def _layer(self, call: Call) -> Step:
        """A call as one step: of what it is given, and of a point that lies inside it."""
        given = {id(tensor): tensor for tensor in (*call.inputs, *self.sources)}
        outputs = [t for t in tree.flatten(call.output) if id(t) not in given]
        ops_ = paths.between(outputs, list(given.values()))
        read = {id(tensor) for op in ops_ for tensor in op.inputs}
        inputs = [tensor for key, tensor in given.items() if key in read]
        return Step("Layer", ops_, inputs, outputs, call)

    def _steps(self) -> Iterator[Step]:
        order = paths.order([self._same(self.result)], self._ids, self._node, self._operands)
        readers = [node for node in order if node.type not in CONSTANTS]
        uses = Counter(id(self._same(tensor)) for node in readers for tensor in node.inputs)
        roots: dict[int, Tensor] = {}
        made_by: dict[int, Step] = {}
        for node in order:
            operands = self._operands(node)
            positions = [i for i, tensor in enumerate(operands) if id(tensor) in self._active]
            if not positions or node.type in self._constants:
                continue
            inputs = [operands[i] for i in positions]
            if isinstance(node, Step):
                inputs = [node.inputs[i] for i in positions]
                step = replace(node, ops=paths.between(node.outputs, inputs), inputs=inputs)
            else:
                call = self._owners.get(id(node))
                step = Step(node.type, [node], inputs, list(node.outputs), call, positions)
                if self._by_value:
                    fixed = _fixed(step)
                    step = fixed or _affine(step, made_by, uses) or _function(step, roots) or step
            self._active |= {id(tensor) for tensor in step.outputs}
            made_by |= {id(tensor): step for tensor in step.outputs}
            yield step


def _owners(calls: Collection[Call]) -> dict[int, Call]:
    """By the id of each operation, the innermost call that made it."""
    owners: dict[int, Call] = {}
    for call in calls:  # inner calls end, and are recorded, before outer ones
        for op in paths.between(tree.flatten(call.output), call.inputs):
            owners.setdefault(id(op), call)
    return owners


def _keeps_rows(step: Step) -> bool:
    """Whether samples that a step folds into another axis are unfolded in it too."""
    types = Counter(op.type for op in step.ops)
    reshapes = [op for op in step.ops if op.type == "Reshape"]
    before = [_per_row(op.inputs[0]) for op in reshapes]
    after = [_per_row(op.outputs[0]) for op in reshapes]
    folds = None in before + after or math.prod(before) != math.prod(after)  # type: ignore[arg-type]
    if folds or types["SpaceToBatchND"] != types["BatchToSpaceND"]:
        return False
    return not any(map(_repeats_rows, step.ops))


def _per_row(tensor: Tensor) -> int | None:
    """How many numbers a row of a tensor has, where it is known."""
    return None if tensor.shape.rank is None else tensor.shape[1:].num_elements()


def _repeats_rows(op: Any) -> bool:
    """Whether an operation puts rows beside each other, or could."""
    if op.type == "Tile":
        repeats = traced.constant(op.inputs[1])
        return repeats is None or repeats[0] != 1
    if op.type != "ConcatV2":
        return False
    axis, rank = traced.constant(op.inputs[-1]), op.outputs[0].shape.rank
    return axis is None or rank is None or axis % rank == 0


def _function(step: Step, roots: dict[int, Tensor]) -> Step | None:
    """The step as part of an elementwise function, where several operands stem from one tensor."""
    output = step.outputs[0]
    if step.type not in ELEMENTWISE or not step.keeps_shape:
        return None
    found = {id(root): root for root in (roots.get(id(t), t) for t in step.inputs)}
    if len(found) > 1:
        return None
    if step.type in AFFINE and len(step.inputs) == 1 and not step.is_literal:
        return None  # learned numbers are no part of an activation
    root: Any = next(iter(found.values()))
    roots[id(output)] = root
    if len(step.inputs) == 1 and step.inputs[0].dtype.is_floating:
        return None
    if not (root.dtype.is_floating and output.dtype.is_floating):
        return None
    return Step("Function", paths.between([output], [root]), [root], [output], step.call)


def _fixed(step: Step) -> Step | None:
    """A product with a constant kernel that only moves numbers, or adds them up."""
    operands = _operands(step)
    kind = operands and step.is_continuous and kernels.kind(step.op, operands)
    return replace(step, type=kind) if kind else None


def _operands(step: Step) -> tuple[int, int] | None:
    """The positions of x and of the kernel in a product; None if it is none."""
    operands = (0, 1) if step.type == "Mul" else WEIGHTED.get(step.type)
    if operands is None or (step.type == "Einsum" and len(step.op.inputs) != 2):
        return None
    if step.positions == [operands[1]] and step.type in PRODUCTS:
        return operands[::-1]
    return operands if step.positions == [operands[0]] else None


def _affine(step: Step, made_by: dict[int, Step], uses: Counter) -> Affine | None:
    """The step as a weighted sum, or as the end of one."""
    if len(step.inputs) > 1 or not step.is_continuous:
        return None
    if step.type in WEIGHTED:
        return _product(step, made_by, uses)
    known = made_by.get(id(step.inputs[0]))
    if isinstance(known, Affine) and uses[id(known.z)] == 1:
        return _extended(known, step)
    return None


def _product(step: Step, made_by: dict[int, Step], uses: Counter) -> Affine | None:
    operands = _operands(step)
    if operands is None:
        return None
    x = step.inputs[0]
    before = made_by.get(id(x))
    while before is not None and _is_arranged(before) and uses[id(x)] == 1:
        x = before.inputs[0]
        before = made_by.get(id(x))
    return Affine(
        type=step.type,
        ops=paths.between(step.outputs, [x]),
        inputs=[x],
        outputs=step.outputs,
        call=step.call,
        product=step.op,
        operands=operands,
    )


def _is_arranged(before: Step) -> bool:
    """Whether a step arranges numbers for a product, and does not unfold rows after another one."""
    if before.type != "Reshape":
        return before.type in ARRANGING - {"BatchToSpaceND"}
    given, made = before.inputs[0], before.outputs[0]
    of_given, of_made = _per_row(given), _per_row(made)
    if of_given is None or of_made is None:
        ranks = given.shape.rank, made.shape.rank
        return None in ranks or ranks[0] >= ranks[1]
    return of_given >= of_made


def _extended(known: Affine, step: Step) -> Affine | None:
    """A weighted sum with what follows it, where that moves no channel, or scales and shifts it."""
    scale, bias, z = known.scale, known.bias, step.outputs[0]
    if step.type in AFFINE and step.keeps_shape and not _is_of_an_activation(step):
        factor, shift = _factor_and_shift(step)
        if factor is not None:
            channels = _per_channel(factor, known)
            if channels is None:
                return None
            scale = channels if scale is None else channels * scale
            bias = None if bias is None else factor * bias
        if shift is not None:
            bias = shift if bias is None else shift + bias
    elif (
        step.call is not known.call
        or step.type not in ARRANGING - BEFORE_ONLY
        or not (bias is None or _is_flat(bias, known.z, z))
    ):
        return None
    known.absorbed = True
    ops_ = paths.between(step.outputs, known.inputs)
    return replace(known, ops=ops_, outputs=[z], scale=scale, bias=bias, absorbed=False)


def _factor_and_shift(step: Step) -> tuple[Any, Any]:
    """What an affine operation multiplies by, and what it adds."""
    if step.type == "Neg":
        return -ops.ones((1,)), None
    first = step.positions == [0]
    constant = step.op.inputs[1 if first else 0]
    if step.type == "BiasAdd" and _channels_first(step.op):
        return None, ops.reshape(constant, (-1, *(1 for _ in step.outputs[0].shape[2:])))
    if step.type == "Mul":
        return constant, None
    if step.type == "RealDiv":
        return 1 / constant, None
    if step.type == "Sub":
        return (None, -constant) if first else (-ops.ones((1,)), constant)
    return None, constant


def _per_channel(factor: Tensor, known: Affine) -> Tensor | None:
    """A factor of the sum as numbers `[C]`, if it is one for each of the product's channels."""
    if _channels_first(known.product):
        return _per_first_channel(factor, known)
    channels, shape = known.product.outputs[0].shape[-1], known.z.shape.as_list()
    after = known.ops[known.ops.index(known.product) :]
    if known.channel_axis is None or any(op.type == "Transpose" for op in after):
        return None
    axes = [i for i in range(1, len(shape)) if None not in shape[i:]]
    axis = next((i for i in axes if math.prod(shape[i:]) == channels), None)
    padded = [1] * (len(shape) - len(factor.shape)) + factor.shape.as_list()
    if axis is None or any(n != 1 for n in padded[:axis]):
        return None
    return ops.reshape(ops.broadcast_to(ops.reshape(factor, padded[axis:]), shape[axis:]), (-1,))


def _per_first_channel(factor: Tensor, known: Affine) -> Tensor | None:
    """The same where the product is `[n, C, ...]`, and what follows it moves nothing."""
    shape = known.product.outputs[0].shape.as_list()
    padded = [1] * (len(shape) - len(factor.shape)) + factor.shape.as_list()
    one_each = all(n == 1 for axis, n in enumerate(padded) if axis != 1)
    if known.channel_axis is None or not one_each or known.z.shape.as_list() != shape:
        return None
    return ops.broadcast_to(ops.reshape(factor, (-1,)), shape[1:2])


def _is_flat(bias: Tensor, z: Tensor, arranged: Tensor) -> bool:
    """Whether a bias broadcasts alike to a sum and to another arrangement of it."""
    alike = z.shape[-1] == arranged.shape[-1]
    return alike and all(n == 1 for n in bias.shape.as_list()[:-1])


def _is_of_an_activation(step: Step) -> bool:
    """Whether an affine operation has numbers from the code, as in `relu6(x + 3) / 6`."""
    scales = (keras.layers.Rescaling, keras.layers.Normalization)
    of_layer = step.call is not None and isinstance(step.call.node, scales)
    return not of_layer and step.is_literal


def _channels_first(op: Any) -> bool:
    return op.node_def.attr["data_format"].s.startswith(b"NC")
