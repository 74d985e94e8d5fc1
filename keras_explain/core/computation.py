"""The computation between a point and a score, as steps that a method takes backwards by rules.

`Computation` reads the traced graph, so fused and shared layers, nested models, functional and raw
operations are all alike to it. What one rule handles as a whole is one `Step`: an operation, an
elementwise function made of several operations (such as swish), a weighted sum with its bias and
the BatchNormalization behind it (`Affine`), or a layer whose inside has no rules.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from keras import ops, tree

from keras_explain import backend
from keras_explain.core.operations import (
    AFFINE,
    ALIASES,
    CONSTANTS,
    ELEMENTWISE,
    KEEP_SIGN,
    KERNEL_AXES,
    LINEAR,
    NOT_NEGATIVE,
    PRODUCTS,
    ROUTING,
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
    """A weighted sum `z = x w + b`, with what per channel follows it merged into w and b.

    Args:
        product: The operation that multiplies x by the kernel.
        operands: The positions of x and of the kernel in it.
        scale: What the product is multiplied by, `[C]`; None for nothing.
        bias: What is added then, `[C]`; None for nothing.
        absorbed: Whether a later step contains this one.
        samples: The number of samples, of which x may have several rows each.
    """

    product: Any = None
    operands: tuple[int, int] = (0, 1)
    scale: Tensor | None = None
    bias: Tensor | None = None
    absorbed: bool = False
    samples: Tensor = None

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
        position, kernel = self.operands
        operands = list(self.product.inputs)
        operands[position], operands[kernel] = x, w
        y = backend.replay(self.product, operands)[0]
        done = [y.op]
        for op in self.ops[self.ops.index(self.product) + 1 :]:
            if op.type in ROUTING:
                y = backend.replay(op, [y, *list(op.inputs)[1:]])[0]
                done.append(y.op)
        return y, lambda upstream: _pull(done, [x], [y], [upstream], _by_value)[0]


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
        affine: dict[int, Affine] = {}
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
                    step = _affine(step, affine, uses) or _function(step, roots) or step
            if isinstance(step, Affine):
                step.samples = self.samples
            self._active |= {id(tensor) for tensor in step.outputs}
            yield step


def _function(step: Step, roots: dict[int, Tensor]) -> Step | None:
    """The step as part of an elementwise function, where several operands stem from one tensor."""
    output = step.outputs[0]
    if step.type not in ELEMENTWISE or not step.keeps_shape:
        return None
    found = {id(root): root for root in (roots.get(id(t), t) for t in step.inputs)}
    if len(found) > 1:
        return None
    root: Any = next(iter(found.values()))
    roots[id(output)] = root
    if len(step.inputs) == 1 and step.inputs[0].dtype.is_floating:
        return None
    if not (root.dtype.is_floating and output.dtype.is_floating):
        return None
    return Step("Function", _between([output], [root]), [root], [output], step.call)


def _affine(step: Step, affine: dict[int, Affine], uses: Counter) -> Affine | None:
    """The step as a weighted sum, or as the end of one."""
    known = affine.get(id(step.inputs[0])) if len(step.inputs) == 1 else None
    found = None
    if step.type in WEIGHTED:
        found = _product(step)
    elif known is not None and uses[id(known.z)] == 1:
        found = _extended(known, step)
    if found is not None:
        affine[id(found.z)] = found
    return found


def _product(step: Step) -> Affine | None:
    operands = WEIGHTED[step.type]
    if (
        len(step.inputs) > 1
        or not step.is_continuous
        or (step.type == "Einsum" and len(step.op.inputs) != 2)
    ):
        return None
    if step.positions == [operands[1]]:
        if step.type not in PRODUCTS:
            return None
        operands = operands[::-1]
    return Affine(
        **{f.name: getattr(step, f.name) for f in fields(step) if f.name != "positions"},
        product=step.op,
        operands=operands,
    )


def _extended(known: Affine, step: Step) -> Affine | None:
    """A weighted sum and what follows it, where this is a number per channel or a reshape."""
    channels = known.z.shape[-1]
    if channels is None or step.outputs[0].shape[-1] != channels or _channels_first(known.product):
        return None
    scale, bias = known.scale, known.bias
    if step.type in AFFINE:
        change = _per_channel(step, channels)
        if change is None or (change[0] is not None and not _can_scale(known)):
            return None
        factor, shift = change
        if factor is not None:
            scale = factor * (ops.ones((channels,)) if scale is None else scale)
            bias = None if bias is None else factor * bias
        if shift is not None:
            bias = shift + (ops.zeros((channels,)) if bias is None else bias)
    elif step.type not in ("Reshape", "Squeeze", "ExpandDims"):
        return None
    known.absorbed = True
    ops_ = _between(step.outputs, known.inputs)
    return replace(known, ops=ops_, outputs=step.outputs, scale=scale, bias=bias, absorbed=False)


def _per_channel(step: Step, channels: int) -> tuple[Any, Any] | None:
    """The factor and the summand of an affine operation, if these are numbers per channel."""
    if step.type == "Neg":
        return -1.0, None
    first = step.positions == [0]
    constant = step.op.inputs[1 if first else 0]
    shape = constant.shape.as_list()
    if any(n != 1 for n in shape[:-1]) or (shape and shape[-1] not in (1, channels)):
        return None
    flat = ops.reshape(constant, (-1,))
    if step.type == "Mul":
        return flat, None
    if step.type == "RealDiv":
        return (1 / flat, None) if first else None
    if step.type == "Sub":
        return (None, -flat) if first else (-1.0, flat)
    return None, flat


def _can_scale(known: Affine) -> bool:
    return known.product.type in KERNEL_AXES and known.operands[0] != 1


def _channels_first(op: Any) -> bool:
    return op.node_def.attr["data_format"].s.startswith(b"NC")


def _in_kernel(step: Affine, scale: Tensor) -> Tensor:
    """Numbers per output channel, shaped to multiply a kernel."""
    op, weight = step.product, step.product.inputs[step.operands[1]]
    if op.type == "DepthwiseConv2dNative":
        return ops.reshape(scale, tuple(weight.shape[-2:]))
    transposed = any(
        name in op.node_def.attr and op.get_attr(name) for name in ("transpose_b", "adj_y")
    )
    return scale[:, None] if KERNEL_AXES[op.type] == -2 or transposed else scale


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
