"""Whether a score is an affine function of the average of a layer's output."""

from collections.abc import Collection
from typing import Any

from keras_explain.core.graph import paths, traced
from keras_explain.core.graph.operations import AFFINE, ALIASES, MIXING, ROUTING, WEIGHTED

Tensor = Any

_PRODUCTS = frozenset(WEIGHTED) | {"Mul"}
_LINEAR = (
    ALIASES - {"StopGradient"}
    | (AFFINE - {"RealDiv"} | MIXING | ROUTING | _PRODUCTS)
    | {"Cast", "Select", "SelectV2"}
)


def not_affine(score: Tensor, output: Tensor, positions: Collection[int]) -> str | None:
    """The first operation that keeps a score from being an affine function of an average.

    Args:
        score: The score.
        output: A tensor that it depends on.
        positions: The axes of the tensor that the average is over.

    Returns:
        The operation's type and name, for messages; None where there is none.
    """
    averaged = {id(output): False}  # by the id of a tensor, whether it was averaged
    for op in paths.between([score], [output], paths.is_continuous):
        given = [averaged[id(t)] for t in op.inputs if id(t) in averaged]
        averages = not any(given) and _averages(op, output, set(positions))
        linear = averages or (all(given) and _is_linear(op, len(given), averaged))
        if not linear and (any(given) or op.type not in ("Identity", "Cast")):
            return f"{op.type!r} ({op.name!r})"
        averaged |= {id(t): linear for t in op.outputs}
    return None


def _averages(op: Any, output: Tensor, positions: set[int]) -> bool:
    """Whether an operation averages the output over all its positions."""
    shape = output.shape
    if op.type == "Mean":
        axes = traced.constant(op.inputs[1])
        return axes is not None and {int(i) % len(shape) for i in axes.flat} == positions
    if op.type not in ("AvgPool", "AvgPool3D"):
        return False
    window = [shape[i] if i in positions else 1 for i in range(len(shape))]
    whole = all(op.outputs[0].shape[i] == 1 for i in positions)
    return whole and list(op.get_attr("ksize")) == window


def _is_linear(op: Any, given: int, averaged: dict[int, bool]) -> bool:
    if op.type == "RealDiv":
        return given == 1 and id(op.inputs[0]) in averaged
    return op.type in _LINEAR and (op.type not in _PRODUCTS or given == 1)
