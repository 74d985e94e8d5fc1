"""GradientSHAP (expected gradients)."""

from dataclasses import replace
from typing import Any, Literal

from keras import ops, tree

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.core.data import background
from keras_explain.core.explainer import Attribution
from keras_explain.core.model.points import between
from keras_explain.core.model.probe import Probe
from keras_explain.core.run import sureness
from keras_explain.core.run.plan import Pass, Plan
from keras_explain.core.run.reductions import BalancedMean
from keras_explain.core.sampled import Sampled
from keras_explain.explainers.smooth import noisy


class GradientSHAP(Sampled, Attribution):
    """Integrated Gradients in expectation over a background: approximate Shapley values.

    `values = E[(x - x') * dS_c(x' + a (x - x')) / dx]`, x' a row of the background, a in [0, 1]

    Each of the `samples` takes one row (in random order, none again before all were taken) and one
    a (stratified over [0, 1]). Without noise, the values sum in expectation to the score less the
    mean score of the rows taken, which is in `extras["base_values"]` `[B]`; the gap is in
    `extras["convergence_delta"]` `[B]`. `extras["standard_error"]` leaves out what a regression on
    x - x' explains of a value, since rows are taken equally often; that positions are stratified
    it does not know, so it is up to twice the true error.

    Args:
        background: Rows `[N, ...]` that stand for "a feature is not known", of the input's nest.
        samples: The number of gradients a sample, or `"auto"`; with fewer than N, as many rows are
            used.
        error: With `"auto"`: the relative standard error to be reached; by default 0.05.
        max_passes: With `"auto"`: the most passes over a sample, by default 16384; at most a
            thirty-second of them is left out.
        noise: The standard deviation of Gaussian noise added to x, as a share of each sample's own
            range. With noise the values do not sum to the score, and no delta is given.

    Reference:
        - [Erion et al., 2021](https://arxiv.org/abs/1906.10670), equation 3
        - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874)
    """

    background: Any
    samples: int | Literal["auto"] = 50
    noise: float = 0.0

    @property
    def reduce(self) -> BalancedMean:  # type: ignore[override]
        return BalancedMean(ops.shape(tree.flatten(self.background)[0])[0])

    @property
    def plan(self) -> Plan:
        return replace(
            super().plan,
            unit="score",
            measured_from=None if self.noise else "shared references",
            references=self._references,
            stops=self._stops,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("noise", self.noise)

    def check(self, x: Any) -> None:
        background.check(self.background, x)

    def passes(self, seed: int) -> dict[str, Any]:
        rows = background.size(self.background)
        count = self._stops[-1] if self.is_auto else self.count
        return {
            "reference": backend.random_rows(seed, rows, count),
            "alpha": backend.random_strata(seed, count),
            "key": backend.random_keys(seed, count),
        }

    def step(self, probe: Probe, x: Any, target: Any, pass_: Pass) -> Any:
        if self.noise:
            x = noisy(probe, x, self.noise, pass_)
        start = probe.point(background.rows(self.background, probe.inputs, pass_["reference"]))
        gradient = probe.gradient(between(start, x, pass_["alpha"]), target)
        apart = tree.map_structure(lambda a, b: b - a, start, x)
        value = tree.map_structure(lambda g, d: g * d, gradient, apart)
        return {"value": value, "apart": apart}

    def finish(self, probe: Probe, total: Any, x: Any) -> Any:
        return total["value"]

    @property
    def _stops(self) -> list[int]:
        """Half of the positions are what half as many are."""
        return sureness.halved(self.limit) if self.is_auto else []

    def _references(self, probe: Probe, passes: dict[str, Any]) -> Any:
        return background.rows(self.background, probe.inputs, passes["reference"])
