"""Why a gradient does not exist: what cuts it off, or that the score does not depend on it."""

import warnings
from collections.abc import Sequence
from typing import Any

from keras import ops, tree

from keras_explain import backend
from keras_explain.core.graph import paths, traced
from keras_explain.core.graph.steps import Call
from keras_explain.core.model.outputs import Outputs

Tensor = Any


def filled(
    grads: list[Tensor | None],
    outputs: Outputs,
    scores: Tensor,
    leaves: list[Tensor],
    names: Sequence[str],
    integer: Sequence[bool],
) -> list[Tensor]:
    """Gradients, with zeros where the score does not depend on a leaf beside others.

    Args:
        grads: The derivatives of the scores by each leaf of the point.
        outputs: What the forward pass gave.
        scores: The scores.
        leaves: The point.
        names: What each leaf is called.
        integer: Whether each leaf stands for integers of the user's.

    Raises:
        ValueError: There is no gradient at all, or it is cut off.
    """
    alone = all(grad is None for grad in grads)
    found = []
    for grad, leaf, name, whole in zip(grads, leaves, names, integer, strict=True):
        if grad is None:
            if alone or (not whole and paths.depends_on(scores, leaf)):
                raise no_gradient(outputs, scores, leaf, name)
            if whole:
                warnings.warn(
                    f"The {name} holds integers or booleans without an Embedding, and no gradient "
                    "leads to it: its attributions are zero.",
                    stacklevel=2,
                )
        found.append(ops.zeros_like(leaf) if grad is None else grad)
    return found


def no_gradient(outputs: Outputs, scores: Tensor, source: Tensor, name: str) -> ValueError:
    """What to say where the scores have no gradient by a source."""
    if not (outputs.decides or paths.depends_on(scores, source)):
        return ValueError(
            f"Expected a score that depends on the {name}. Received: one that does not."
        )
    cut = _cutting_call(outputs, scores, source)
    where = f"at {cut.path!r} ({type(cut.node).__name__})" if cut else "by a raw operation"
    return ValueError(
        f"Expected a gradient of the score by the {name}. Received: none, since it is cut off "
        f"{where}, which has no derivative. Explain a layer after it, replace the operation by "
        "a differentiable one, or use a method without gradients."
    )


def _cutting_call(outputs: Outputs, scores: Tensor, source: Tensor) -> Call | None:
    """The innermost last call with a derivative behind it and none before it."""
    for call in outputs.calls:
        if any(paths.depends_on(t, source) for t in call.inputs):
            after = _any_gradient(scores, tree.flatten(call.output))
            before = _any_gradient(scores, [t for t in call.inputs if t.dtype.is_floating])
            if after and not before:
                return call
    return None


def _any_gradient(scores: Tensor, tensors: list[Tensor]) -> bool:
    here = [t for t in tensors if traced.is_here(t)]
    return bool(here) and any(grad is not None for grad in backend.gradients(scores, here))
