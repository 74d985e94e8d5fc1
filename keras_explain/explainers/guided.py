"""Guided backpropagation, the deconvolutional network, and Guided Grad-CAM."""

import abc
from dataclasses import replace
from typing import Any

from keras import ops, tree

from keras_explain.core.explainer import Attribution, Explainer
from keras_explain.core.graph.computation import Computation
from keras_explain.core.graph.steps import Step
from keras_explain.core.model.passed import ForwardPass
from keras_explain.core.model.probe import Probe
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.explainers.cams import GradCAM

Tensor = Any
RELUS = ("Relu", "Relu6")


def with_relus(passed: ForwardPass) -> Computation:
    """The computation of the gradient, with the ReLUs that a custom gradient would hide."""
    return passed.computation(by_value=False, shown=RELUS)


class _Backpropagation(Attribution, abc.ABC):
    """A gradient that is taken by a rule of its own at every ReLU."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unit="score per input")

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        computation = with_relus(probe.forward(x, target, own=True))
        return tree.pack_sequence_as(x, self.backward(computation))

    def backward(self, computation: Computation) -> list[Tensor]:
        """The gradient by each of the computation's sources."""
        return computation.backward(ops.ones_like(computation.result), self._back)

    def _back(self, step: Step, upstream: list[Tensor]) -> list[Tensor]:
        if step.type in RELUS:
            return [self._through_relu(step, upstream[0])]
        if not step.inside.isdisjoint(RELUS):
            raise _out_of_reach(type(self).__name__, step)
        return step.pull(upstream)

    @abc.abstractmethod
    def _through_relu(self, step: Step, upstream: Tensor) -> Tensor:
        """What goes back through a ReLU."""


def _out_of_reach(method: str, step: Step) -> ValueError:
    return ValueError(
        f"Expected ReLUs that {method} can reach. Received: one inside of {step.type!r} "
        f"({step.name}), in {step.where}: a loop, a condition or a saved function, of which the "
        "gradient is taken as a whole. Explain a layer after it (`layer=`), write it without the "
        "loop (a recurrent layer with `unroll=True`), or use Saliency."
    )


class GuidedBackprop(_Backpropagation):
    """The gradient of the score, of which only what is positive goes back through each ReLU.

    `R_in = ReLU(R_out) * 1[z > 0]` at each ReLU (for ReLU6: `0 < z < 6`), the gradient elsewhere.

    Args:
        layer: The layer whose output is explained in place of the input.

    Reference:
        - [Springenberg et al., 2015](https://arxiv.org/abs/1412.6806), section 3.4
    """

    def _through_relu(self, step: Step, upstream: Tensor) -> Tensor:
        return step.pull([ops.relu(upstream)])[0]


class Deconvnet(_Backpropagation):
    """The gradient of the score with each ReLU applied to what goes back instead.

    `R_in = ReLU(R_out)` at each ReLU, the gradient elsewhere.

    Args:
        layer: The layer whose output is explained in place of the input.

    Reference:
        - [Zeiler and Fergus, 2014](https://arxiv.org/abs/1311.2901), section 2.1
    """

    def _through_relu(self, step: Step, upstream: Tensor) -> Tensor:
        return ops.relu(upstream)


class GuidedGradCAM(Explainer):
    """Guided backpropagation where Grad-CAM finds the class: their product.

    `values = GuidedBackprop * GradCAM`, of the input's shape: the map is upsampled to the input's
    size and multiplies every channel. It is in `extras["map"]` at its own resolution. Inputs
    that do not lead to the layer have zeros.

    Args:
        layer: The layer of Grad-CAM. By default as in `GradCAM`.
        reshape: As in `GradCAM`.
        call: As in `GradCAM`.

    Reference:
        - [Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391), section 3.2
    """

    layer: Any = None
    reshape: Any = None
    call: int | None = None

    @property
    def plan(self) -> Plan:
        return Plan(unit="score")  # that of its map

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        passed = probe.forward(x, target, own=True)
        guided = tree.pack_sequence_as(x, GuidedBackprop().backward(with_relus(passed)))
        return {"guided": guided, "map": self._cam.map_of(probe, passed)}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        values, guided = {}, tree.flatten(total["guided"])
        for i, cam in probe.over_each(total["map"]).items():
            cam = probe.layouts[i].over_channels(cam, len(guided[i].shape))
            values[i] = guided[i] * cam
        leaves = [values.get(i, ops.zeros_like(leaf)) for i, leaf in enumerate(guided)]
        return tree.pack_sequence_as(x, leaves)

    def extras(self, total: Any) -> dict[str, Any]:
        return {"map": total["map"]}

    @property
    def _cam(self) -> GradCAM:
        return GradCAM(layer=self.layer, reshape=self.reshape, call=self.call)
