"""Random numbers that a model draws where it is explained."""

import re
from collections.abc import Sequence
from typing import Any

from keras_explain.core.graph import paths, traced
from keras_explain.core.graph.steps import Call, maker, where

Tensor = Any

_DRAWS = re.compile(
    r"Random(?!GetKeyCounter|GetAlg|Dataset)|Multinomial|TruncatedNormal|Shuffle"
    r"|Stateful(StandardNormal|Uniform)|SampleDistortedBoundingBox|RngReadAndSkip"
)


def check(
    scores: Sequence[Tensor],
    operations: Sequence[Any],
    calls: Sequence[Call],
    batch: int | None = None,
) -> None:
    """Raises a `ValueError` where scores depend on random numbers.

    Those of a seed, and of a shape without the batch, are the same for each row and in each pass:
    what is explained is the model with this draw.

    Args:
        scores: The scores.
        operations: Those of the forward pass that they come from.
        calls: The calls of its layers, where they are known.
        batch: The number of rows that the model insists on.
    """
    for op in operations:
        kind = _draw(op, batch)
        if kind and any(paths.depends_on(s, tensor) for s in scores for tensor in op.outputs):
            raise ValueError(
                "Expected a model that gives the same score for the same input. Received: one that "
                f"draws random numbers by {kind!r} ({op.name}){_place(op, calls)}. Let it return "
                "the mean in place of a draw, drop `training=True` of dropout and noise layers, or "
                "make the noise an input of the model."
            )


def _place(op: Any, calls: Sequence[Call]) -> str:
    return f", in {where(maker(op, calls))}" if calls else ""


def _draw(op: Any, batch: int | None) -> str | None:
    """The type of an operation that draws, here or in a loop; None for none."""
    if _DRAWS.search(op.type):
        return None if _is_fixed(op, batch) else op.type
    inside = (made for body in traced.bodies(op) for made in body.get_operations())
    return next(filter(None, (_draw(made, batch) for made in inside)), None)


def _is_fixed(op: Any, batch: int | None) -> bool:
    """Whether it draws by a seed, and for no row its own numbers."""
    if not op.type.startswith("Stateless"):
        return False
    size = traced.constant(op.inputs[0])
    return size is not None and (batch is None or size.ndim == 0 or batch not in size[:1])
