"""Whether the standard errors of the methods that draw samples are right.

Of 90 % intervals, `value +- 1.645 standard errors`, 90 % should hold the truth. And `"auto"` should
end where the true error is about what it was asked for.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import keras_explain as kx
from benchmarks.tasks import Task, relative_errors
from benchmarks.truths import NOISE, truth

SEEDS = 5
HALF_WIDTH = 1.645  # of an interval that holds in 90 %, in standard errors


@dataclasses.dataclass(frozen=True)
class Case:
    """A method, what its truth is called, and the numbers of samples that it is tried with."""

    make: Callable[[Task, Any], kx.Explainer]
    truth: str
    counts: tuple[int, ...]


def _kernel_shap(solver: Any) -> Callable[[Task, Any], kx.Explainer]:
    return lambda task, samples: kx.KernelSHAP(samples=samples, solver=solver, **task.hidden)


CASES = {
    **{
        f"KernelSHAP, {solver}": Case(_kernel_shap(solver), "shapley", (128, 512, 2048))
        for solver in ("regression", "gaussian_process", "scaled_gaussian_process")
    },
    "ShapleySampling": Case(
        lambda t, n: kx.ShapleySampling(samples=n, **t.hidden), "shapley", (4, 16, 64)
    ),
    "LIME": Case(lambda t, n: kx.LIME(samples=n, **t.hidden), "lime", (256, 1024, 4096)),
    "RISE": Case(lambda t, n: kx.RISE(masks=n), "rise", (256, 1024, 4096)),
    "SobolAttribution": Case(
        lambda t, n: kx.SobolAttribution(designs=n, **t.hidden), "sobol", (16, 64, 256)
    ),
    "HSICAttribution": Case(
        lambda t, n: kx.HSICAttribution(samples=n, **t.hidden), "hsic", (256, 1024, 4096)
    ),
    "SmoothGrad": Case(
        lambda t, n: kx.SmoothGrad(samples=n, noise=NOISE), "smoothgrad", (16, 64, 256)
    ),
    "SquareGrad": Case(
        lambda t, n: kx.SquareGrad(samples=n, noise=NOISE), "squaregrad", (16, 64, 256)
    ),
    "VarGrad": Case(lambda t, n: kx.VarGrad(samples=n, noise=NOISE), "vargrad", (16, 64, 256)),
    "GradientSHAP": Case(
        lambda t, n: kx.GradientSHAP(background=t.background, samples=n),
        "gradient_shap",
        (32, 128, 512),
    ),
}


def held(values: np.ndarray, errors: np.ndarray, true: np.ndarray, own: Any = 0) -> np.ndarray:
    """Which intervals hold the truth, which has an error of its own; NaN where none is known."""
    both = np.hypot(np.asarray(errors, float), own)
    inside = np.abs(np.asarray(values, float) - true) <= HALF_WIDTH * both
    return np.where(np.isnan(both), np.nan, inside)


def share_held(case: Case, task: Task, count: int) -> str:
    """Over seeds, rows and features."""
    (true, accuracy), explainer = truth(task, case.truth), case.make(task, count)
    size = np.sqrt((true.reshape(len(true), -1) ** 2).mean(axis=1))
    own = (accuracy * size).reshape(-1, *(1 for _ in true.shape[1:])) + 1e-9
    shares = []
    for seed in range(SEEDS):
        found = explainer(task.model, task.x, task.target, seed=seed)
        shares.append(held(found.values, found.extras["standard_error"], true, own))
    known = ~np.isnan(shares)
    return f"{np.mean(np.array(shares)[known]):.0%}" if known.any() else "unknown"


def rows(tasks: list[Task]) -> Iterator[str]:
    """A table as Markdown: the share of the intervals that hold."""
    yield "| method | numbers of samples | " + " | ".join(task.name for task in tasks) + " |"
    yield "| --- " * (2 + len(tasks)) + "|"
    for name, case in CASES.items():
        cells = [
            ", ".join(share_held(case, task, count) for count in case.counts) for task in tasks
        ]
        yield f"| {name} | {', '.join(map(str, case.counts))} | " + " | ".join(cells) + " |"


def auto_rows(tasks: list[Task]) -> Iterator[str]:
    """A table as Markdown: the passes of "auto", the error that it says, and the true one.

    The errors are relative, root mean squares over rows and seeds.
    """
    yield "| method | " + " | ".join(task.name for task in tasks) + " |"
    yield "| --- " * (1 + len(tasks)) + "|"
    for name, case in CASES.items():
        cells = [_auto(case, task) for task in tasks]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _auto(case: Case, task: Task) -> str:
    explainer, true = case.make(task, "auto"), truth(task, case.truth)[0]
    found = [explainer(task.model, task.x, task.target, seed=seed) for seed in range(SEEDS)]
    passes = np.concatenate([one.extras["passes"] for one in found])
    said = np.concatenate([one.extras["relative_error"] for one in found])
    off = np.concatenate([relative_errors(one.values, true) for one in found])
    squares = (float(np.sqrt(np.nanmean(errors**2))) for errors in (said, off))
    return f"{passes.min()} to {passes.max()}; " + ", ".join(f"{one:.3f}" for one in squares)
