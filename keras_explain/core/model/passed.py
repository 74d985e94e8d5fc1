"""What a forward pass at a point gave, and what can be asked of it afterwards."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops, tree

from keras_explain import backend
from keras_explain.core.graph import chance, paths
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.steps import Call
from keras_explain.core.model import cuts
from keras_explain.core.model.outputs import Outputs
from keras_explain.core.model.targets import Target

Tensor = Any
Nest = Any


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A forward pass, and the scores that it led to.

    Attributes:
        outputs: What the model and its layers returned.
        point: Where it was taken.
        scores: `[n, K]`.
        index: The classes that were scored, ints `[n, K]`.
        units: How many units an index may name; None where it names nothing.
    """

    outputs: Outputs
    point: Nest
    scores: Tensor
    index: Tensor
    units: int | None

    @classmethod
    def scored(cls, outputs: Outputs, point: Nest, target: Target, index: Tensor) -> "ForwardPass":
        """The scores of a target in a forward pass.

        Raises:
            ValueError: They depend on random numbers.
        """
        scores, index, units = target.scores(outputs, index)
        chance.check([scores], outputs.operations, outputs.calls, outputs.opened.fixed_batch)
        return cls(outputs, point, scores, index, units)

    def check_depends(self, name: str) -> None:
        """Raises a `ValueError` where the scores do not depend on the point, by its name."""
        leaves = tree.flatten(self.point)
        if not any(paths.depends_on(self.scores, leaf) for leaf in leaves):
            raise cuts.no_gradient(self.outputs, self.scores, leaves[0], name)

    def computation(self, **options: Any) -> Computation:
        """What leads from the point to the scores; `options` as for `Computation`."""
        sources = tree.flatten(self.point)
        rows = self.outputs.opened.fixed_batch or ops.shape(sources[0])[0]
        return Computation(self.scores, sources, self.outputs.calls, samples=rows, **options)

    def gradients_at(self, calls: list[Call]) -> list[Tensor]:
        """The derivatives of the scores by all that some calls of a layer returned."""
        flat = [tensor for call in calls for tensor in tree.flatten(call.output)]
        grads = backend.gradients(self.scores, flat)
        for tensor, grad in zip(flat, grads, strict=True):
            if grad is None:
                name = f"layer {calls[0].path!r}"
                raise cuts.no_gradient(self.outputs, self.scores, tensor, name)
        return [self.outputs.cut(grad) for grad in grads]


@dataclass(frozen=True, eq=False)
class Activations:
    """A layer's output in a forward pass, and the derivative of the scores by it.

    `values` and `gradient` have the channels last, and tokens arranged by `reshape`.
    """

    passed: ForwardPass
    call: Call
    reshape: Callable[[Tensor, str], Tensor] | None = None

    @property
    def scores(self) -> Tensor:
        """The scores `[n, K]` that it leads to."""
        return self.passed.scores

    @property
    def channels(self) -> int:
        """The axis of the channels of the output as it is: -1, 1, or 2 behind time."""
        return -1 if self.reshape is not None else self.passed.outputs.channels(self.call)

    @property
    def output(self) -> Tensor:
        """The output as it is, without rows that only fill its batch."""
        return self.passed.outputs.cut(self.call.output)

    @functools.cached_property
    def values(self) -> Tensor:
        """The output, `[n, ..., C]`."""
        return self.arranged(self.output)

    @functools.cached_property
    def gradient(self) -> Tensor:
        """The derivative of the scores by the output, `[n, ..., C]`."""
        return self.arranged(self.passed.gradients_at([self.call])[0])

    def arranged(self, tensor: Tensor) -> Tensor:
        """A tensor like the output, `[n, ..., C]`."""
        if self.reshape is not None:
            return self.reshape(tensor, self.call.path)
        return tensor if self.channels == -1 else ops.moveaxis(tensor, self.channels, -1)
