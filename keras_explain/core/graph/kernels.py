"""Products with kernels that are constant in the graph, and what they do to numbers.

`keras.ops.image.extract_patches` is a convolution with an identity matrix, and a look-up may be a
product with one-hot rows. They move numbers as a reshape does, and no weight of theirs was learned.
A product with a mask leaves some numbers out.
"""

import math
from typing import Any

import numpy as np

from keras_explain.core.graph import traced


def kind(op: Any, operands: tuple[int, int]) -> str | None:
    """What a product with a constant kernel is: a `"Routing"`, a `"Mixing"`, or like any other.

    It is routing where each output is one entry of the input or 0, and mixing where it is a sum of
    entries times numbers of 0 or more, as a mean is, or one entry times a number.

    Args:
        op: The operation.
        operands: The positions of the input and of the kernel in it.
    """
    kernel = traced.literal(op.inputs[operands[1]])
    if op.type == "Mul":
        masks = kernel is not None and np.isin(kernel, (0, 1)).all() and not kernel.all()
        return "Routing" if masks else None
    read = None if kernel is None else _by_output(op, operands[1], kernel)
    if read is None:
        return None
    if np.all(np.count_nonzero(read, axis=0) <= 1):
        return "Routing" if np.isin(read, (0, 1)).all() else "Mixing"
    return "Mixing" if np.all(read >= 0) else None


def _by_output(op: Any, position: int, kernel: np.ndarray) -> np.ndarray | None:
    """A kernel as `[what an output reads, outputs]`; None where that is not known."""
    if op.type == "Einsum":
        return _of_einsum(op, position, kernel)
    if op.type in ("Conv2D", "Conv3D"):
        return kernel.reshape(-1, kernel.shape[-1])
    if op.type == "DepthwiseConv2dNative":
        return kernel.reshape(math.prod(kernel.shape[:2]), -1)
    if op.type.startswith("Conv"):
        return _of_transposed(op, kernel)
    names = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))[position]
    flips = any(name in op.node_def.attr and op.get_attr(name) for name in names)
    return _apart(kernel, [-1 if flips == bool(position) else -2])


def _of_einsum(op: Any, position: int, kernel: np.ndarray) -> np.ndarray | None:
    terms, result = op.get_attr("equation").decode().replace(" ", "").split("->")
    own, other = terms.split(",")[position], terms.split(",")[1 - position]
    rest = "0123456789"[: kernel.ndim - len(own.replace("...", ""))]
    own = own.replace("...", rest)
    if len(set(own)) < len(own):
        return None
    read = _apart(kernel, [i for i, label in enumerate(own) if label not in result + rest])
    sums_input = any(label not in own + result for label in other.replace("...", ""))
    return np.concatenate([read, read]) if sums_input else read  # more than one entry, then


def _of_transposed(op: Any, kernel: np.ndarray) -> np.ndarray:
    """Of `[*spatial, outputs, inputs]`: an output reads every stride-th place of the kernel."""
    spatial = slice(2, None) if op.get_attr("data_format").startswith(b"NC") else slice(1, -1)
    strides = op.get_attr("strides")[spatial]
    if any(n != 1 for n in op.get_attr("dilations")):
        strides = [1] * len(strides)
    rank, shape = len(strides), kernel.shape
    pads = [(0, -n % s) for n, s in zip(shape, strides, strict=False)]
    kernel = np.pad(kernel, [*pads, (0, 0), (0, 0)])
    split = [k for n, s in zip(kernel.shape, strides, strict=False) for k in (n // s, s)]
    return _apart(kernel.reshape(*split, *shape[rank:]), [*range(0, 2 * rank, 2), -1])


def _apart(kernel: np.ndarray, axes: list[int]) -> np.ndarray:
    """A kernel as `[entries along some axes, others]`."""
    kernel = np.moveaxis(kernel, axes, range(len(axes)))
    return kernel.reshape(math.prod(kernel.shape[: len(axes)]), -1)
