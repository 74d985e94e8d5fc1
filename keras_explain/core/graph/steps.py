"""The parts of a computation, each of which a rule handles as a whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops, tree

from keras_explain.core.graph import paths, traced
from keras_explain.core.graph.operations import (
    AFFINE,
    ALIASES,
    KEEP_SIGN,
    KERNEL_AXES,
    LINEAR,
    NOT_NEGATIVE,
    PRODUCTS,
    ROUTING,
    SELECTIONS,
)

Tensor = Any
Message = Any


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
    def name(self) -> str:
        """The name of its last operation in the graph."""
        return self.op.name

    @property
    def arguments(self) -> list[Tensor]:
        """All that its last operation takes."""
        return list(self.op.inputs)

    @property
    def others(self) -> list[Tensor]:
        """Those of them that do not depend on the point."""
        positions = self.positions or ()
        return [t for i, t in enumerate(self.arguments) if i not in positions]

    @property
    def inside(self) -> set[str]:
        """The types of operations in the loops, branches or functions that it runs."""
        return traced.types_inside(self.op)

    @property
    def is_linear(self) -> bool:
        """Whether it is linear, but for a constant, in its inputs together."""
        alone = len(self.inputs) == 1
        if self.type in ("Mul", "RealDiv"):
            return alone and (self.type == "Mul" or self.positions == [0])
        if self.type in SELECTIONS:
            return 0 not in (self.positions or ())
        return self.type in LINEAR or (alone and self.type in PRODUCTS)

    @property
    def selects(self) -> bool:
        """Whether it lets some entries through, by a mask that does not depend on the point."""
        if self.type in SELECTIONS:
            return self.is_linear
        return self.type == "Mul" and len(self.others) == 1 and _is_mask(self.others[0])

    @property
    def is_literal(self) -> bool:
        """Whether its other operands are numbers from the code, not learned ones."""
        return all(map(traced.is_literal, self.others))

    @property
    def is_continuous(self) -> bool:
        """Whether its inputs and outputs are floating-point numbers."""
        return all(tensor.dtype.is_floating for tensor in (*self.inputs, *self.outputs))

    @property
    def keeps_shape(self) -> bool:
        """Whether its inputs and outputs have one shape."""
        return is_of_one_shape([*self.inputs, *self.outputs])

    def pull(self, upstream: list[Tensor | None]) -> list[Any]:
        """Its vector-Jacobian product: for each of its inputs, a tensor or None."""
        if self.positions is None:
            pull_one = traced.pull if self.type == "Layer" else _by_value
            return _pull(self.ops, self.inputs, self.outputs, upstream, pull_one)
        back = traced.pull(self.op, upstream)
        return [back[i] for i in self.positions]

    def replay(self, inputs: Sequence[Tensor]) -> "Step":
        """The same step for other inputs."""
        if self.positions is not None:
            operands = list(self.op.inputs)
            for i, tensor in zip(self.positions, inputs, strict=True):
                operands[i] = tensor
            outputs = traced.replay(self.op, operands)
            return replace(self, ops=[outputs[0].op], inputs=list(inputs), outputs=outputs)
        made = traced.replayed(self.ops, self.inputs, inputs)
        ops_ = [made[id(op.outputs[0])].op for op in self.ops]
        outputs = [made[id(tensor)] for tensor in self.outputs]
        return replace(self, ops=ops_, inputs=list(inputs), outputs=outputs)

    @property
    def where(self) -> str:
        """Where in the model it is, for messages."""
        return where(self.call)


def where(call: Call | None) -> str:
    """A call's place in the model, for messages; None is outside of any layer."""
    if call is None:
        return "the model's own call"
    return f"layer {call.path!r} ({type(call.node).__name__})"


def maker(op: Any, calls: Iterable[Call]) -> Call | None:
    """The innermost call that an operation belongs to; it need not depend on the call's inputs."""

    def behind(tensors: Any) -> bool:
        flat = tree.flatten(tensors)
        return any(paths.depends_on(t, made) for t in flat for made in op.outputs)

    return next((c for c in calls if behind(c.output) and not behind(c.inputs)), None)


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

    @property
    def channel_axis(self) -> int | None:
        """The axis of the kernel that holds the last axis of the product; None for none."""
        op = self.product
        if op.type == "Einsum":
            operands, result = op.get_attr("equation").decode().split("->")
            labels = operands.split(",")[self.operands[1]]
            return labels.index(result[-1]) - len(labels) if result[-1] in labels else None
        if self.operands[0] == 1:
            return None
        if any(name in op.node_def.attr and op.get_attr(name) for name in ("transpose_b", "adj_y")):
            return -2
        return KERNEL_AXES.get(op.type)

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
                outputs = traced.replay(op, operands)
                done.append(outputs[0].op)
            new |= {id(old): tensor for old, tensor in zip(op.outputs, outputs, strict=True)}
        z = new[id(self.z)]
        return z, lambda upstream: _pull(done, [x], [z], [upstream], _by_value)[0]


def _in_kernel(step: Affine, scale: Tensor) -> Tensor:
    """Numbers per output channel, shaped to multiply a kernel."""
    weight = step.product.inputs[step.operands[1]]
    if step.product.type == "DepthwiseConv2dNative":  # [..., C, M], whose outputs are C * M
        return ops.reshape(scale, tuple(weight.shape[-2:]))
    axis = step.channel_axis
    assert axis is not None
    return ops.reshape(scale, (-1,) + (1,) * (-axis - 1))


def _is_mask(tensor: Tensor) -> bool:
    """Whether numbers are made of booleans."""
    op = tensor.op
    while op.type in ROUTING | ALIASES:
        op = op.inputs[0].op
    return op.type == "Cast" and op.inputs[0].dtype.is_bool


def _is_not_negative(tensor: Tensor) -> bool:
    op = tensor.op
    while op.type in KEEP_SIGN | ALIASES and op.type not in ("ConcatV2", "Pack"):
        op = op.inputs[tensor.value_index if op.type == "IdentityN" else 0].op
    if op.type in ("ConcatV2", "Pack"):
        return all(_is_not_negative(t) for t in op.inputs if t.dtype.is_floating)
    return op.type in NOT_NEGATIVE


def send(messages: dict[int, Message], tensor: Tensor, message: Message) -> None:
    """Adds a message to what has come back to a tensor, by its id."""
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
        send(messages, tensor, message)
    for op in reversed(operations):
        back = [messages.get(id(tensor)) for tensor in op.outputs]
        if all(message is None for message in back):
            continue
        for tensor, message in zip(op.inputs, pull_one(op, back), strict=True):
            send(messages, tensor, message)
    return [messages.get(id(tensor)) for tensor in inputs]


def _by_value(op: Any, back: list[Tensor | None]) -> list[Tensor | None]:
    return back if op.type in ALIASES else traced.pull(op, back)


def is_of_one_shape(tensors: list[Tensor]) -> bool:
    """Whether all have the same static shape."""
    shapes = [tensor.shape for tensor in tensors]
    return all(s.rank is not None and s.as_list() == shapes[0].as_list() for s in shapes)
