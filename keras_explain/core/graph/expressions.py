"""How tensors of a traced graph are written: what they are other names, places or sums of."""

from typing import Any

import numpy as np

from keras_explain.core.graph import traced
from keras_explain.core.graph.operations import ALIASES, ELEMENTWISE

Tensor = Any


def entries(tensor: Tensor) -> list[Tensor]:
    """What a tensor that routing made, or an alias, has its entries from."""
    inputs = list(tensor.op.inputs)
    match tensor.op.type:
        case "IdentityN":
            return [inputs[tensor.value_index]]
        case "ConcatV2":
            return inputs[:-1]
        case "Pack":
            return inputs
        case "Split":
            return inputs[1:]
        case "PadV2":
            return [inputs[0], inputs[2]]
    return inputs[:1]


def stand_in(tensor: Tensor, original: Tensor) -> None:
    """Notes that a tensor takes the place of another one, of which it is known how it is made."""
    tensor.kx_stands_for = original


def stood_for(tensor: Tensor) -> Tensor:
    """The tensor whose place another one takes; else the tensor itself."""
    return getattr(tensor, "kx_stands_for", tensor)


def origin(tensor: Tensor) -> Tensor:
    """What a tensor is another name, or another shape, of."""
    reshaped = ALIASES | {"Reshape", "Squeeze", "ExpandDims"}
    while tensor.op.type in reshaped or _adds_axes(tensor.op):
        tensor = entries(tensor)[0]
    return tensor


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one by other names, or both the exponential of one."""
    a, b = _named(a), _named(b)
    if a.op.type == b.op.type == "Exp":
        a, b = (_named(tensor.op.inputs[0]) for tensor in (a, b))
    return a is b


def is_constant(tensor: Tensor, number: float) -> bool:
    """Whether a tensor is a constant, and each entry this number."""
    value = traced.constant(tensor)
    return value is not None and value.size > 0 and bool(np.all(value == number))


def is_rest(b: Tensor, a: Tensor) -> bool:
    """Whether `b` is `1 - a`."""
    op = _named(b).op
    return op.type == "Sub" and is_constant(op.inputs[0], 1) and is_same(op.inputs[1], a)


def reduced_axes(op: Any) -> tuple[int, ...] | None:
    """The axes of a reduction, from the front; None where they are not known."""
    axes = traced.constant(op.inputs[1])
    if axes is None or op.inputs[0].shape.rank is None:
        return None
    rank = len(op.inputs[0].shape)
    return tuple(sorted(int(axis) % rank for axis in np.ravel(axes)))


def sum_of(total: Tensor) -> tuple[Tensor, tuple[int, ...]] | None:
    """What `total` sums, and over which axes, if it can be broadcast to all that it is the sum of.

    That is, the axes are kept with length 1.
    """
    op = origin(total).op
    axes = reduced_axes(op) if op.type == "Sum" else None
    if not axes:
        return None
    kept = [1 if i in axes else n for i, n in enumerate(op.inputs[0].shape)]
    return (op.inputs[0], axes) if list(total.shape) == kept else None


def slices(op: Any) -> tuple[Any, ...] | None:
    """The Python index that a `StridedSlice` or `Slice` takes; None where it is not constant."""
    found = [traced.constant(tensor) for tensor in op.inputs[1:]]
    values = [value for value in found if value is not None]
    if len(values) < len(found):
        return None
    if op.type == "Slice":
        begin, size = values
        stops = [None if n < 0 else b + n for b, n in zip(begin, size, strict=True)]
        return tuple(map(slice, begin, stops))
    masks = ("new_axis_mask", "ellipsis_mask", "shrink_axis_mask", "begin_mask", "end_mask")
    new, dots, shrink, no_begin, no_end = (op.get_attr(mask) for mask in masks)
    index: list[Any] = []
    for i, (begin, end, stride) in enumerate(zip(*values, strict=True)):
        bit = 1 << i
        if new & bit:
            index.append(None)
        elif dots & bit:
            index.append(...)
        elif shrink & bit:
            index.append(int(begin))
        else:
            first, last = None if no_begin & bit else begin, None if no_end & bit else end
            index.append(slice(first, last, stride))
    return tuple(index)


def alike(tensor: Tensor, *, grows: bool) -> list[tuple[Tensor, int | None]]:
    """What operations make of a tensor `[n, ...]` that has its axes, or one more of length 1.

    Args:
        tensor: The tensor.
        grows: Whether an axis may be added.

    Returns:
        Tensors with the axis that was added, 1 or -1; None for none.
    """
    found: list[tuple[Tensor, int | None]] = []
    shape = tuple(tensor.shape[1:])
    for op in tensor.consumers():
        for made in op.outputs[:1]:
            after = tuple(made.shape[1:]) if made.shape.rank else ()
            if op.type in _KEEP_AXES and len(after) == len(shape):
                found.append((made, None))
            elif op.type in ("Reshape", "ExpandDims") and grows:
                axis = {(*shape, 1): -1, (1, *shape): 1}.get(after)
                found += [] if axis is None else [(made, axis)]
    return found


_KEEP_AXES = ELEMENTWISE | ALIASES | {"BiasAdd", "Pad", "PadV2", "MirrorPad"}


def _named(tensor: Tensor) -> Tensor:
    while tensor.op.type in ALIASES:
        tensor = entries(tensor)[0]
    return tensor


def _adds_axes(op: Any) -> bool:
    index = slices(op) if op.type == "StridedSlice" else None
    return index is not None and all(i in (None, ..., slice(None, None, 1)) for i in index)
