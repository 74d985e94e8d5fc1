"""What becomes of tokens, and of other features, on the way to a score."""

from collections.abc import Sequence
from typing import Any

from keras_explain.core.graph import paths
from keras_explain.core.graph.operations import WEIGHTED

Tensor = Any


def is_read_singly(tokens: Tensor, scores: Tensor) -> bool:
    """Whether all that leads from tokens `[n, T, C]` to the scores are single ones of them."""
    found = paths.between([scores], [tokens], paths.is_continuous)
    users = [op for op in found if any(t is tokens for t in op.inputs)]
    shapes = [tuple(op.outputs[0].shape) for op in users]
    return all(
        op.type in ("StridedSlice", "Slice", "GatherV2") and (len(shape) == 2 or shape[1] == 1)
        for op, shape in zip(users, shapes, strict=True)
    )


def meet(tokens: Tensor, scores: Tensor) -> bool:
    """Whether tokens are multiplied with each other on the way to the scores, as in attention."""
    operations = paths.between([scores], [tokens], paths.is_continuous)
    made = {id(t) for op in operations for t in op.outputs} | {id(tokens)}
    return any(
        op.type in ("Einsum", "MatMul", "BatchMatMulV2", "BatchMatMulV3")
        and all(id(t) in made for t in op.inputs)
        for op in operations
    )


def is_weighted(tensor: Tensor, sources: Sequence[Tensor]) -> bool:
    """Whether a product with weights, or of other numbers, leads from a source to a tensor."""
    found = paths.between([tensor], sources, paths.is_continuous)
    return any(op.type in WEIGHTED for op in found)
