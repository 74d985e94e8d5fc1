"""How many multiplications a traced graph takes for a row."""

import math
from collections.abc import Callable
from typing import Any

from keras_explain.core.graph import traced
from keras_explain.core.graph.operations import CONVOLUTIONS, WEIGHTED

Op = Any


def multiplications(function: Any) -> int:
    """Those of all weighted sums of a traced function for one row, as far as static shapes say.

    An axis of unknown length counts once, as does the body of a loop: it is the least that there
    can be.
    """
    return _of_graph(function.graph)


def _of_graph(graph: Any) -> int:
    operations = graph.get_operations()
    own = sum(_COUNTS[op.type](op) for op in operations if op.type in _COUNTS)
    return own + sum(_of_graph(body) for op in operations for body in traced.bodies(op))


def _size(shape: Any) -> int:
    return math.prod(length or 1 for length in shape)


def _of_product(op: Op) -> int:
    a = op.inputs[0].shape
    name = "transpose_a" if op.type == "MatMul" else "adj_x"
    summed = a[-2 if op.get_attr(name) else -1] or op.inputs[1].shape[-2] or 1
    return _size(op.outputs[0].shape) * summed


def _of_convolution(op: Op) -> int:
    """Each number of the output (transposed: of the input) meets a part of the kernel."""
    position, kernel = WEIGHTED[op.type]
    backwards = position > 0
    numbers = _size(op.inputs[position].shape if backwards else op.outputs[0].shape)
    shape = op.inputs[kernel].shape
    if op.type == "DepthwiseConv2dNative":
        return numbers * _size(shape[:2])
    return numbers * _size(shape[:-1])


def _of_einsum(op: Op) -> int:
    terms = op.get_attr("equation").decode().split("->")[0].split(",")
    pairs = zip(terms, op.inputs, strict=True)
    lengths = {
        name: length
        for term, tensor in pairs
        for name, length in zip(term, tensor.shape, strict=False)
    }
    return _size(lengths.values())


_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3")
_COUNTS: dict[str, Callable[[Op], int]] = {
    **dict.fromkeys(_PRODUCTS, _of_product),
    **dict.fromkeys(CONVOLUTIONS, _of_convolution),
    "Einsum": _of_einsum,
}
