"""The computation between a point and a score, as steps that a method takes backwards by rules.

`Computation` reads the traced graph, so fused and shared layers, nested models, functional and raw
operations are all alike to it. What one rule handles as a whole is one `Step`: an operation, an
elementwise function made of several operations (such as swish), a weighted sum with its bias and
the BatchNormalization behind it (`Affine`), or a layer whose inside has no rules.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.operations import (
    AFFINE,
    ALIASES,
    ARRANGING,
    CONSTANTS,
    ELEMENTWISE,
    KEEP_SIGN,
    KERNEL_AXES,
    LINEAR,
    NOT_NEGATIVE,
    PRODUCTS,
    WEIGHTED,
)

Tensor = Any
Message = Any
Rule = Callable[["Step", list[Message]], Sequence[Message]]


@dataclass(frozen=True)
class Call:
    """One call of a layer or functional operation during a forward pass."""

    path: str
    node: Any
    number: int
    inputs: list[Tensor]
    output: Any


@dataclass(eq=False)
class Step:
    """A part of a computation that is handled as a whole.

    Args:
        type: The type of its operation; `"Function"` for an elementwise function of one tensor
            that is made of several operations, `"Layer"` for a layer taken as one.
        ops: Its operations, in their order.
        inputs: The tensors that depend on the point of which it is a function.
        outputs: The tensors it makes.
        call: The innermost layer that it belongs to; None where that is the model itself.
        positions: Of a single operation: which of its operands the inputs are.
    """

    type: str
    ops: list[Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    call: Call | None
    positions: list[int] | None = None

    @property
    def op(self) -> Any:
        """Its last operation."""
        return self.ops[-1]

    @property
    def is_linear(self) -> bool:
        """Whether it is linear, but for a constant, in its inputs together."""
        alone = len(self.inputs) == 1
        if self.type in ("Mul", "RealDiv"):
            return alone and (self.type == "Mul" or self.positions == [0])
        if self.type in ("SelectV2", "Select"):
            return 0 not in (self.positions or ())
        return self.type in LINEAR or (alone and self.type in PRODUCTS)

    @property
    def is_literal(self) -> bool:
        """Whether its other operands are numbers from the code, not learned ones."""
        positions = self.positions or ()
        others = [t for i, t in enumerate(self.op.inputs) if i not in positions]
        return all(map(_is_literal, others))

    @property
    def is_continuous(self) -> bool:
        """Whether its inputs and outputs are floating-point numbers."""
        return all(tensor.dtype.is_floating for tensor in (*self.inputs, *self.outputs))

    @property
    def keeps_shape(self) -> bool:
        """Whether its inputs and outputs have one shape."""
        return _same_shape([*self.inputs, *self.outputs])

    def pull(self, upstream: list[Tensor | None]) -> list[Any]:
        """Its vector-Jacobian product: for each of its inputs, a tensor or None."""
        if self.positions is None:
            pull_one = backend.pull if self.type == "Layer" else _by_value
            return _pull(self.ops, self.inputs, self.outputs, upstream, pull_one)
        back = backend.pull(self.op, upstream)
        return [back[i] for i in self.positions]

    def replay(self, inputs: Sequence[Tensor]) -> "Step":
        """The same step for other inputs."""
        if self.positions is not None:
            operands = list(self.op.inputs)
            for i, tensor in zip(self.positions, inputs, strict=True):
                operands[i] = tensor
            outputs = backend.replay(self.op, operands)
            return replace(self, ops=[outputs[0].op], inputs=list(inputs), outputs=outputs)
        new = {id(old): tensor for old, tensor in zip(self.inputs, inputs, strict=True)}
        ops_ = []
        for op in self.ops:
            outputs = backend.replay(op, [new.get(id(t), t) for t in op.inputs])
            new |= {id(old): tensor for old, tensor in zip(op.outputs, outputs, strict=True)}
            ops_.append(outputs[0].op)
        outputs = [new[id(tensor)] for tensor in self.outputs]
        return replace(self, ops=ops_, inputs=list(inputs), outputs=outputs)

    @property
    def where(self) -> str:
        """Where in the model it is, for messages."""
        if self.call is None:
            return "the model's own call"
        return f"layer {self.call.path!r} ({type(self.call.node).__name__})"


@dataclass(eq=False)
class Affine(Step):
    """A weighted sum `z = x w + b`, with a scale per channel that follows it merged into w and b.

    Its x is what the layer is given: what only pads and reshapes it for the product belongs to it.

    Args:
        product: The operation that multiplies x by the kernel.
        operands: The positions of x and of the kernel in it.
        scale: What the product is multiplied by, `[C]`; None for nothing.
        bias: What is added then, of a shape that broadcasts to z; None for nothing.
        absorbed: Whether a later step contains this one.
    """

    product: Any = None
    operands: tuple[int, int] = (0, 1)
    scale: Tensor | None = None
    bias: Tensor | None = None
    absorbed: bool = False

    @property
    def is_linear(self) -> bool:
        return True

    @property
    def x(self) -> Tensor:
        """The input."""
        return self.inputs[0]

    @property
    def z(self) -> Tensor:
        """The output."""
        return self.outputs[0]

    @property
    def w(self) -> Tensor:
        """The kernel times the scale."""
        weight = self.product.inputs[self.operands[1]]
        return weight if self.scale is None else weight * _in_kernel(self, self.scale)

    @property
    def is_not_negative(self) -> bool:
        """Whether x is known to be 0 or more."""
        return _is_not_negative(self.x)

    def sum(self, x: Tensor, w: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The sum `x w` of other inputs and weights, and its vector-Jacobian product by x."""
        new, done = {id(self.x): x}, []
        for op in self.ops:
            operands = [new.get(id(t), t) for t in op.inputs]
            if op.type in AFFINE:  # merged into the weights
                outputs = [next(new[id(t)] for t in op.inputs if id(t) in new)]
            else:
                if op is self.product:
                    operands[self.operands[1]] = w
                outputs = backend.replay(op, operands)
                done.append(outputs[0].op)
            new |= {id(old): tensor for old, tensor in zip(op.outputs, outputs, strict=True)}
        z = new[id(self.z)]
        return z, lambda upstream: _pull(done, [x], [z], [upstream], _by_value)[0]


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
        samples: Tensor = None,
    ) -> None:
        self.samples = samples
        self._constants = CONSTANTS | set(held)
        self.result, self.sources, self.calls = result, sources, calls
        self._by_value = by_value
        self._ids = set(map(id, sources))
        self._aliases = ALIASES if by_value else frozenset()
        self._opaque = {
            id(tensor): call
            for call in calls
            if opaque(call)
            for tensor in tree.flatten(call.output)
        }
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
                    _send(messages, tensor, back)
        return [
            ops.zeros_like(source) if id(source) not in messages else messages[id(source)]
            for source in self.sources
        ]

    def twins(self, other: "Computation") -> dict[int, Tensor]:
        """By the id of each tensor, the same one of another run of the model."""
        found: dict[int, Tensor] = {}
        stack = [(self.result, other.result), *zip(self.sources, other.sources, strict=True)]
        while stack:
            one, two = stack.pop()
            one, two = self._same(one), other._same(two)
            if id(one) in found:
                continue
            found[id(one)] = two
            if id(one) in self._ids or id(one) not in self._active:
                continue
            if one.op.type != two.op.type or len(one.op.inputs) != len(two.op.inputs):
                raise ValueError(
                    "Expected a model that does the same operations for every input. Received: "
                    f"one that does {one.op.type!r} ({one.op.name}) for the input and "
                    f"{two.op.type!r} for the reference."
                )
            stack += zip(one.op.outputs, two.op.outputs, strict=True)
            stack += zip(one.op.inputs, two.op.inputs, strict=True)
        return found

    def ends(self) -> tuple[set[Affine], set[Affine]]:
        """The weighted sums that no other one leads to, and those that lead to no other one."""
        sums = {step for step in self.steps if isinstance(step, Affine) and not step.absorbed}
        behind: set[int] = set()
        first = set(sums)
        for step in self.steps:
            if any(id(tensor) in behind for tensor in step.inputs):
                first.discard(step)
            elif step not in sums:
                continue
            behind |= {id(tensor) for tensor in step.outputs}
        ahead: set[int] = set()
        last = set(sums)
        for step in reversed(self.steps):
            if any(id(tensor) in ahead for tensor in step.outputs):
                last.discard(step)
            elif step not in sums:
                continue
            ahead |= {id(tensor) for tensor in step.inputs}
        return first, last

    # Reading the graph

    def _same(self, tensor: Tensor) -> Tensor:
        """The tensor that this one is a copy of."""
        while id(tensor) not in self._ids and tensor.op.type in self._aliases:
            tensor = tensor.op.inputs[tensor.value_index]
        return tensor

    def _node(self, tensor: Tensor) -> Any:
        return self._opaque.get(id(tensor), tensor.op)

    def _order(self) -> list[Any]:
        """The operations and opaque calls that the result is made by, in an order that works."""
        order, done, opened = [], set(), set()
        stack = [self._same(self.result)]
        while stack:
            tensor = stack[-1]
            node = self._node(tensor)
            if id(tensor) in self._ids or id(node) in done:
                stack.pop()
            elif id(node) in opened:
                done.add(id(node))
                order.append(node)
                stack.pop()
            else:
                opened.add(id(node))
                stack += [self._same(t) for t in node.inputs]
        return order

    def _steps(self) -> Iterator[Step]:
        order = self._order()
        readers = [node for node in order if getattr(node, "type", None) not in CONSTANTS]
        uses = Counter(id(self._same(tensor)) for node in readers for tensor in node.inputs)
        uses[id(self._same(self.result))] += 1
        roots: dict[int, Tensor] = {}
        made_by: dict[int, Step] = {}
        for node in order:
            operands = [self._same(tensor) for tensor in node.inputs]
            positions = [i for i, tensor in enumerate(operands) if id(tensor) in self._active]
            if not positions or getattr(node, "type", None) in self._constants:
                continue
            inputs = [operands[i] for i in positions]
            if isinstance(node, Call):
                outputs = tree.flatten(node.output)
                step = Step("Layer", _between(outputs, inputs), inputs, outputs, node)
            else:
                call = self._owners.get(id(node))
                step = Step(node.type, [node], inputs, list(node.outputs), call, positions)
                if self._by_value:
                    step = _affine(step, made_by, uses) or _function(step, roots) or step
            self._active |= {id(tensor) for tensor in step.outputs}
            made_by |= {id(tensor): step for tensor in step.outputs}
            yield step


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
    return Step("Function", _between([output], [root]), [root], [output], step.call)


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
    operands = WEIGHTED[step.type]
    if step.type == "Einsum" and len(step.op.inputs) != 2:
        return None
    if step.positions == [operands[1]]:
        if step.type not in PRODUCTS:
            return None
        operands = operands[::-1]
    x = step.inputs[0]
    before = made_by.get(id(x))
    while before is not None and before.type in ARRANGING and uses[id(x)] == 1:
        x = before.inputs[0]
        before = made_by.get(id(x))
    return Affine(
        type=step.type,
        ops=_between(step.outputs, [x]),
        inputs=[x],
        outputs=step.outputs,
        call=step.call,
        product=step.op,
        operands=operands,
    )


def _extended(known: Affine, step: Step) -> Affine | None:
    """A weighted sum with what follows it, where that moves no channel, or scales and shifts it."""
    if _channels_first(known.product):
        return None
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
    elif step.type not in ARRANGING or not (bias is None or _is_flat(bias, known.z, z)):
        return None
    known.absorbed = True
    ops_ = _between(step.outputs, known.inputs)
    return replace(known, ops=ops_, outputs=[z], scale=scale, bias=bias, absorbed=False)


def _factor_and_shift(step: Step) -> tuple[Any, Any]:
    """What an affine operation multiplies by, and what it adds."""
    if step.type == "Neg":
        return -ops.ones((1,)), None
    first = step.positions == [0]
    constant = step.op.inputs[1 if first else 0]
    if step.type == "Mul":
        return constant, None
    if step.type == "RealDiv":
        return 1 / constant, None
    if step.type == "Sub":
        return (None, -constant) if first else (-ops.ones((1,)), constant)
    return None, constant


def _per_channel(factor: Tensor, known: Affine) -> Tensor | None:
    """A factor of the sum as numbers `[C]`, if it is one for each of the product's channels."""
    channels, shape = known.product.outputs[0].shape[-1], known.z.shape.as_list()
    after = known.ops[known.ops.index(known.product) :]
    if _channel_axis(known) is None or any(op.type == "Transpose" for op in after):
        return None
    axes = [i for i in range(1, len(shape)) if None not in shape[i:]]
    axis = next((i for i in axes if math.prod(shape[i:]) == channels), None)
    padded = [1] * (len(shape) - len(factor.shape)) + factor.shape.as_list()
    if axis is None or any(n != 1 for n in padded[:axis]):
        return None
    return ops.reshape(ops.broadcast_to(ops.reshape(factor, padded[axis:]), shape[axis:]), (-1,))


def _is_flat(bias: Tensor, z: Tensor, arranged: Tensor) -> bool:
    """Whether a bias broadcasts alike to a sum and to another arrangement of it."""
    alike = z.shape[-1] == arranged.shape[-1]
    return alike and all(n == 1 for n in bias.shape.as_list()[:-1])


def _is_of_an_activation(step: Step) -> bool:
    """Whether an affine operation has numbers from the code, as in `relu6(x + 3) / 6`."""
    scales = (keras.layers.Rescaling, keras.layers.Normalization)
    of_layer = step.call is not None and isinstance(step.call.node, scales)
    return not of_layer and step.is_literal


def _channel_axis(step: Affine) -> int | None:
    """The axis of the kernel that holds the last axis of the product."""
    op = step.product
    if op.type == "Einsum":
        operands, result = op.get_attr("equation").decode().split("->")
        labels = operands.split(",")[step.operands[1]]
        return labels.index(result[-1]) - len(labels) if result[-1] in labels else None
    if step.operands[0] == 1:
        return None
    if any(name in op.node_def.attr and op.get_attr(name) for name in ("transpose_b", "adj_y")):
        return -2
    return KERNEL_AXES.get(op.type)


def _channels_first(op: Any) -> bool:
    return op.node_def.attr["data_format"].s.startswith(b"NC")


def _in_kernel(step: Affine, scale: Tensor) -> Tensor:
    """Numbers per output channel, shaped to multiply a kernel."""
    weight = step.product.inputs[step.operands[1]]
    if step.product.type == "DepthwiseConv2dNative":  # [..., C, M], whose outputs are C * M
        return ops.reshape(scale, tuple(weight.shape[-2:]))
    axis = _channel_axis(step)
    assert axis is not None
    return ops.reshape(scale, (-1,) + (1,) * (-axis - 1))


def _is_literal(tensor: Tensor) -> bool:
    seen, stack = set(), [tensor.op]
    while stack:
        op = stack.pop()
        if op.type in ("Placeholder", "ReadVariableOp"):
            return False
        if id(op) not in seen:
            seen.add(id(op))
            stack += [] if op.type in CONSTANTS else [t.op for t in op.inputs]
    return True


def _is_not_negative(tensor: Tensor) -> bool:
    op = tensor.op
    while op.type in KEEP_SIGN | ALIASES and op.type not in ("ConcatV2", "Pack"):
        op = op.inputs[tensor.value_index if op.type == "IdentityN" else 0].op
    if op.type in ("ConcatV2", "Pack"):
        return all(_is_not_negative(t) for t in op.inputs if t.dtype.is_floating)
    return op.type in NOT_NEGATIVE


def _send(messages: dict[int, Message], tensor: Tensor, message: Message) -> None:
    if message is None:
        return
    known = messages.get(id(tensor))
    messages[id(tensor)] = message if known is None else tree.map_structure(ops.add, known, message)


def _pull(
    operations: list[Any],
    inputs: list[Tensor],
    outputs: list[Tensor],
    upstream: list[Tensor | None],
    pull_one: Callable,
) -> list[Tensor | None]:
    messages: dict[int, Tensor] = {}
    for tensor, message in zip(outputs, upstream, strict=True):
        _send(messages, tensor, message)
    for op in reversed(operations):
        back = [messages.get(id(tensor)) for tensor in op.outputs]
        if all(message is None for message in back):
            continue
        for tensor, message in zip(op.inputs, pull_one(op, back), strict=True):
            _send(messages, tensor, message)
    return [messages.get(id(tensor)) for tensor in inputs]


def _by_value(op: Any, back: list[Tensor | None]) -> list[Tensor | None]:
    return back if op.type in ALIASES else backend.pull(op, back)


def _owners(calls: Collection[Call]) -> dict[int, Call]:
    """By the id of each operation, the innermost call that made it."""
    owners: dict[int, Call] = {}
    for call in calls:  # inner calls end, and are recorded, before outer ones
        for op in _between(tree.flatten(call.output), call.inputs):
            owners.setdefault(id(op), call)
    return owners


def _between(outputs: list[Tensor], inputs: list[Tensor]) -> list[Any]:
    """The operations by which some tensors are made of others, in an order that works."""
    order, done, opened = [], set(), set()
    ends = set(map(id, inputs))
    stack = list(outputs)
    while stack:
        tensor = stack[-1]
        if id(tensor) in ends or id(tensor.op) in done:
            stack.pop()
        elif id(tensor.op) in opened:
            done.add(id(tensor.op))
            order.append(tensor.op)
            stack.pop()
        else:
            opened.add(id(tensor.op))
            if tensor.op.type not in CONSTANTS:
                stack += list(tensor.op.inputs)
    return _depending(order, ends)


def _depending(order: list[Any], ends: set[int]) -> list[Any]:
    active, found = set(ends), []
    for op in order:
        if any(id(t) in active for t in op.inputs) and op.type not in CONSTANTS:
            active |= {id(t) for t in op.outputs}
            found.append(op)
    return found


def _same_shape(tensors: list[Tensor]) -> bool:
    shapes = [tensor.shape for tensor in tensors]
    return all(s.rank is not None and s.as_list() == shapes[0].as_list() for s in shapes)
