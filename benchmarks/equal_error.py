"""Error against passes and against seconds, for the methods that draw samples.

`python -m benchmarks --only equal_error` measures what `benchmarks.tasks` has data for, beside the
libraries that are installed and, where the environment variable `BEFORE` names one, an earlier
checkout; it draws `equal_error.png`. What was measured is kept in the folder that `EQUAL_ERROR`
names, so that an interrupted run goes on.
"""

import collections
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from benchmarks import calibration
from benchmarks.rivals import BEFORE, METHODS, Prepare, UnsuitedError, Work
from benchmarks.tasks import Task, folder, relative_errors, tasks
from benchmarks.timing import seconds
from benchmarks.truths import truth

HERE = Path(__file__).resolve().parents[1]
SEEDS = 3
BUDGETS = {
    "shapley": (128, 256, 512, 1024, 2048),
    "rise": (256, 1024, 4096),
    "lime": (256, 512, 1024, 2048),
    "smoothgrad": (16, 64, 256),
    "gradient_shap": (32, 128, 512),
}
OF_A_PHOTO = {"shapley": (256, 1024), "rise": (256, 1024), "lime": (256, 1024)} | {
    "smoothgrad": (16, 64)
}
NOT_OF_A_PHOTO = {  # a pass takes its time, and other tasks show what these can
    "keras_explain, process",
    "keras_explain, scaled process",
    "shap KernelExplainer, selecting",
    "shap SamplingExplainer",
    "xplique KernelShap",
}
TITLES = {
    "shapley": "Shapley values",
    "rise": "RISE",
    "lime": "LIME",
    "smoothgrad": "SmoothGrad",
    "gradient_shap": "GradientSHAP",
}
OURS, FORMER = "keras_explain", "keras_explain, before"


@dataclasses.dataclass(frozen=True)
class Run:
    """What one explanation of all rows of a task took, and its mean relative error."""

    task: str
    method: str
    contestant: str
    budget: int
    seed: int
    passes: float
    error: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """A contestant's figures by its budgets: means over seeds, and the least seconds.

    The first run with a budget, which compiles, is never the fastest.
    """

    passes: np.ndarray
    errors: np.ndarray
    seconds: np.ndarray

    def times(self, ours: "Curve", of: str) -> str:
        """How many times as much of `of` it needs as ours, each to the error that it reaches.

        That is the median over its budgets, with ours interpolated between its own.
        """
        cost, our_cost = getattr(self, of), getattr(ours, of)
        order = np.argsort(ours.errors)
        errors, costs = np.log(ours.errors[order]), np.log(our_cost[order])
        met = np.exp(np.interp(np.log(self.errors), errors, costs))
        inside = (self.errors >= ours.errors.min()) & (self.errors <= ours.errors.max())
        if inside.any():
            return f"{np.median((cost / met)[inside]):.1f}"
        if (self.errors > ours.errors.max()).any():
            worst = self.errors > ours.errors.max()
            return f"> {(cost / met)[worst].max():.1f}"
        return ""


def table(_: int = 0) -> None:
    """Measures, prints and draws."""
    runs, notes = measured(tasks())
    sources = ", ".join(f"{name}: {make().source}" for name, make in tasks().items())
    print(f"### Equal error\n\nData: {sources}.\n")
    for method in METHODS:
        print("\n".join(rows(method, runs)), end="\n\n")
    small = [make() for name, make in tasks().items() if name != "photo"]
    print("#### Intervals of 90 % that hold\n")
    print("\n".join(calibration.rows(small)), end="\n\n")
    print('#### "auto", to a relative standard error of 0.05\n')
    print("\n".join(calibration.auto_rows(small)), end="\n\n")
    print("\n".join(f"Did not run: {note}" for note in notes))
    draw(runs, HERE / "benchmarks" / "equal_error.png")


# Measuring


def measured(made: dict[str, Callable[[], Task]]) -> tuple[list[Run], list[str]]:
    """All runs, and what could not be measured; contestants take turns."""
    kept = folder() / "runs.jsonl"
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    runs = [Run(**json.loads(line)) for line in lines]
    known = {(run.task, run.method, run.contestant, run.budget, run.seed) for run in runs}
    failures: dict[tuple[str, str, str], str] = {}
    keras.utils.set_random_seed(0)
    with _Former(os.environ.get("BEFORE")) as former:
        for case in _cases(made, former.is_there):
            task, method, contestant, budget, seed = case
            if case in known or (task, method, contestant) in failures:
                continue
            try:
                if contestant == FORMER:
                    found = former.ask(task, method, budget, seed)
                else:
                    found = measure(made, task, method, contestant, budget, seed)
            except UnsuitedError:
                continue
            except Exception as error:  # of another library: it is said, and the rest goes on
                if contestant == OURS:
                    raise
                failures[task, method, contestant] = f"{type(error).__name__}: {error}"
                continue
            runs.append(Run(*case, *found))
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(runs[-1])) + "\n")
    return runs, [f"{' '.join(case)}: {text}" for case, text in failures.items()]


def _cases(made: dict[str, Callable], with_former: bool) -> Iterator[tuple]:
    for task in made:
        for method, makers in METHODS.items():
            names, budgets, seeds = [*makers, *[FORMER] * with_former], BUDGETS, SEEDS
            if task == "photo":
                names = [name for name in names if name not in NOT_OF_A_PHOTO]
                budgets, seeds = OF_A_PHOTO, 2
            for seed in range(seeds):
                for budget in budgets.get(method, ()):
                    for contestant in names:
                        yield task, method, contestant, budget, seed


def measure(
    made: dict[str, Callable[[], Task]],
    name: str,
    method: str,
    contestant: str,
    budget: int,
    seed: int,
) -> tuple[float, float, float]:
    """Passes, error and seconds of one run."""
    task = _task(made[name])
    prepare = BEFORE[method] if contestant == FORMER else METHODS[method][contestant]
    work = _work(prepare, task, budget)
    values: list[tuple[np.ndarray, float]] = []
    time = seconds(lambda: values.append(work(seed)))
    ((found, passes),) = values
    true, own = truth(task, method)
    off = np.sqrt(np.maximum(relative_errors(found, true) ** 2 - own**2, 0))
    return passes, float(off.mean()), time


@functools.cache
def _task(make: Callable[[], Task]) -> Task:
    return make()


@functools.cache
def _work(prepare: Prepare, task: Task, budget: int) -> Work:
    return prepare(task, budget)


class _Former:
    """A process that measures our methods as they are in an earlier checkout."""

    def __init__(self, path: str | None) -> None:
        self.is_there = path is not None
        if path is None:
            return
        code = (
            f"import sys, keras_explain; sys.path.insert(0, {str(HERE)!r}); "
            "from benchmarks.equal_error import serve; serve()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=path,
            env=os.environ | {"PYTHONPATH": str(Path(path).resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Former":
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_there:
            self._process.terminate()
            self._process.wait()

    def ask(self, *case: str | int) -> list[float]:
        print(json.dumps(case), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def serve() -> None:
    """Answers what is asked, one line each."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    made = tasks()
    for line in sys.stdin:
        task, method, budget, seed = json.loads(line)
        found = measure(made, task, method, FORMER, budget, seed)
        print(json.dumps(found), file=answers, flush=True)


# What is written


def repeated(runs: list[Run]) -> list[Run]:
    """Those of budgets that were run more than once: the first run compiles."""
    cases = [(run.task, run.method, run.contestant, run.budget) for run in runs]
    count = collections.Counter(cases)
    return [run for run, case in zip(runs, cases, strict=True) if count[case] > 1]


def curves(runs: list[Run], task: str, method: str) -> dict[str, Curve]:
    """Those of each contestant."""
    found = {}
    some = [run for run in runs if (run.task, run.method) == (task, method)]
    for contestant in _in_order(method):
        of_one = [run for run in some if run.contestant == contestant]
        if not of_one:
            continue
        budgets = sorted({run.budget for run in of_one})
        points = [[run for run in of_one if run.budget == budget] for budget in budgets]
        passes = np.array([np.mean([run.passes for run in point]) for point in points])
        errors = np.array([np.mean([run.error for run in point]) for point in points])
        least = np.array([min(run.seconds for run in point) for point in points])
        found[contestant] = Curve(passes, errors, least)
    return found


def _in_order(method: str) -> list[str]:
    """The contestants of a method: ours, and as they were, before others."""
    return sorted([*METHODS[method], FORMER], key=lambda name: not name.startswith(OURS))


def rows(method: str, runs: list[Run]) -> Iterator[str]:
    runs, budgets = repeated(runs), BUDGETS[method]
    yield f"#### {TITLES[method]}\n"
    heads = [*map(str, budgets), "seconds at the last", "passes", "seconds"]
    yield "| task | by | " + " | ".join(heads) + " |"
    yield "| --- " * (2 + len(heads)) + "|"
    for task in [name for name in NAMES if any(run.task == name for run in runs)]:
        of_task = curves(runs, task, method)
        for contestant, curve in of_task.items():
            shown = {run.budget: "" for run in runs}
            mine = {r.budget for r in runs if (r.task, r.method, r.contestant)
                    == (task, method, contestant)}  # fmt: skip
            for budget, error in zip(sorted(mine), curve.errors, strict=True):
                shown[budget] = f"{error:.2g}"
            cells = [shown.get(budget, "") for budget in budgets]
            cells += [f"{curve.seconds[-1]:.3g}"]
            cells += [curve.times(of_task[OURS], of) for of in ("passes", "seconds")]
            yield f"| {task} | {contestant} | " + " | ".join(cells) + " |"


NAMES = {"cancer": "MLP, breast cancer", "adult": "MLP, 12 columns", "cnn": "CNN, 49 patches"} | {
    "photo": "MobileNetV2, 49 patches"
}
BOLD = {"weight": "bold"}
LINES, MARKERS = ("-", "--", ":", "-."), "osD^"
COLORS = {
    "keras_explain": "#0b3d91",
    "shap": "#d55e00",
    "shapiq": "#009e73",
    "xplique": "#8e44ad",
    "lime": "#7f6000",
    "captum": "#c2185b",
}


def draw(runs: list[Run], path: Path) -> None:
    """Error against passes and seconds: two rows of panels a method, a column a task."""
    runs = repeated(runs)
    measured_ones = {run.task for run in runs}
    names = [name for name in NAMES if name in measured_ones]
    figure = Figure(figsize=(2.9 * len(names) + 3.2, 4.2 * len(METHODS)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)  # type: ignore[union-attr]
    panels = figure.subplots(2 * len(METHODS), len(names) + 1, squeeze=False)
    for nth, method in enumerate(METHODS):
        found: dict[str, Any] = {}
        for row, of in zip(panels[2 * nth :], ("passes", "seconds"), strict=False):
            row[0].set_ylabel(f"{TITLES[method]}\nrelative error")
            row[-1].set_axis_off()
            for axes, name in zip(row, names, strict=False):
                _panel(axes, curves(runs, name, method), of)
                handles, labels = axes.get_legend_handles_labels()
                found |= dict(zip(labels, handles, strict=True))
        order = [name for name in _in_order(method) if name in found]
        legend = {"title": TITLES[method], "alignment": "left", "title_fontproperties": BOLD}
        panels[2 * nth, -1].legend(
            [found[name] for name in order],
            order,
            loc="upper left",
            frameon=False,
            fontsize=9,
            **legend,
        ).set_in_layout(False)
    for axes, name in zip(panels[0], names, strict=False):
        axes.set_title(NAMES[name], fontweight="bold")
    figure.savefig(path, dpi=100)


def _panel(axes: Any, of_task: dict[str, Curve], of: str) -> None:
    if not of_task:
        axes.set_axis_off()
        return
    for contestant, curve in of_task.items():
        axes.loglog(getattr(curve, of), curve.errors, label=contestant, **_style(contestant))
    axes.set_xlabel("passes a row" if of == "passes" else "seconds for all rows")
    axes.grid(True, which="both", lw=0.4, color="#e4e4e4")
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        subs = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 20 else (1.0, 2.0, 5.0)
        axis.set_major_locator(ticker.LogLocator(subs=subs))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def _style(contestant: str) -> dict[str, Any]:
    if contestant == OURS:
        return {"color": COLORS[OURS], "lw": 2.8, "marker": "o", "ms": 6, "zorder": 3}
    if contestant == FORMER:
        return {"color": "#6f9be0", "lw": 2, "marker": "o", "ms": 5, "ls": "--", "zorder": 2.5}
    library = _library(contestant)
    others = [name for makers in METHODS.values() for name in makers if contestant in makers]
    nth = [name for name in others if _library(name) == library].index(contestant)
    style = {"ls": LINES[nth], "marker": MARKERS[nth], "lw": 1.8 if library == OURS else 1.3}
    return {"color": COLORS[library], "ms": 4, **style}


def _library(contestant: str) -> str:
    return contestant.split()[0].rstrip(",")
