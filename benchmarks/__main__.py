"""Prints all tables as Markdown: `python -m benchmarks`."""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

import keras

from benchmarks import architectures, callback, completeness, deep_shap, equal_error, perturbation
from benchmarks.contestants import METHODS, STEPS, bare_gradients, compilations, installed, suits
from benchmarks.subjects import SUBJECTS
from benchmarks.timing import interleaved, ratio, seconds

FIRST_CALLS = ("Grad-CAM", f"Integrated Gradients, {STEPS} steps")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds per row")
    parser.add_argument("--only", choices=list(TABLES), help="print one table")
    parser.add_argument("--network", default="", help="part of a network's name, to print only its")
    parser.add_argument(
        "--method", default=[""], nargs="+", help="parts of methods' names, likewise"
    )
    parser.add_argument("--first-call", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_call:
        print(_first_call(*options.first_call))
        return
    for networks in (
        *(SUBJECTS, architectures.ARCHITECTURES, deep_shap.NETWORKS),
        perturbation.SUBJECTS,
    ):
        _keep(networks, [options.network])
    for methods in (METHODS, perturbation.METHODS):
        _keep(methods, options.method)
    print(_machine(), end="\n\n")
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options.rounds)


def next_calls(rounds: int) -> None:
    """The time of a call after the first, per method, network and library."""
    print("### Next calls\n")
    print("Median seconds; in brackets the median ratio to the bare loop. What takes more than 5")
    print("times as long as the bare loop is timed once.\n")
    _row("network", "method", "keras_explain", "bare", "xplique", "tf-explain")
    _row(*["---"] * 6)
    for subject, make in SUBJECTS.items():
        model, x, y = make()
        for method in [m for m in METHODS if suits(m, model)]:
            makers = METHODS[method]
            works = {name: m(model, x, y) for name, m in makers.items() if installed(name)}
            times = _interleaved_but_slow(works, rounds)
            cells = [
                _cell(times, name) for name in ("keras_explain", "bare", "xplique", "tf-explain")
            ]
            _row(subject, method, *cells)
    print()


def first_calls(rounds: int) -> None:
    """The time of the first call in a new process, where tracing counts."""
    print("### First calls\n\nSeconds in a process of its own, tracing included; medians.\n")
    _row("network", "method", "keras_explain", "bare", "ratio")
    _row(*["---"] * 5)
    for subject in SUBJECTS:
        for method in [m for m in FIRST_CALLS if m in METHODS]:
            times: dict[str, list[float]] = {"keras_explain": [], "bare": []}
            for _ in range(max(1, rounds // 2)):
                for name in times:
                    times[name].append(_in_new_process(subject, method, name))
            a, b = (statistics.median(times[name]) for name in times)
            _row(subject, method, f"{a:.2f}", f"{b:.2f}", f"{ratio(times, *times):.2f}")
    print()


def goal(rounds: int) -> None:
    """The number of points, and the time, to a completeness gap of 1 %."""
    print("### Integrated Gradients to a completeness gap of 1 %\n")
    _row("network", "sum", "points", "seconds of as many gradients")
    _row(*["---"] * 4)
    for subject, make in SUBJECTS.items():
        model, x, y = make()
        x, y = x[:8], y[:8]
        one = bare_gradients(model, x, y, 1)
        each = statistics.median(interleaved({"one": one}, rounds)["one"])
        for name, points in completeness.points_to_goal(model, x, y).items():
            shown = ("above 96", "") if points is None else (points, f"{points * each:.2f}")
            _row(subject, name, *shown)
    print()


def epochs(rounds: int) -> None:
    """What the callback costs in training."""
    print("### The callback, 60,000 pictures of 28 x 28, 3 explainers, 8 samples\n")
    times = callback.epochs(rounds)
    without, with_ = (statistics.median(times[name]) for name in ("without", "with"))
    _row("epoch without", "epoch with", "added", "start of training", "on disk after")
    _row(*["---"] * 5)
    start, behind = (statistics.median(of) for of in (times["start"], callback.behind(rounds)))
    share = f"{callback.added(times):.1%}"
    _row(f"{without:.2f} s", f"{with_:.2f} s", share, f"{start:.2f} s", f"{behind:.2f} s")
    print()


def functions(rounds: int) -> None:
    """How many functions each method compiles."""
    print("### Functions compiled\n")
    _row("network", "method", "by the first call", "by a later one with other classes and rows")
    _row(*["---"] * 4)
    for subject, make in SUBJECTS.items():
        model, x, y = make()
        for method in [m for m in METHODS if suits(m, model)]:
            first, later = compilations(METHODS[method]["keras_explain"], model, x, y)
            _row(subject, method, first, later)
    print()


def gaps(rounds: int) -> None:
    """What each backward method leaves unexplained, by architecture."""
    print("### Completeness by architecture\n")
    _row("architecture", *[case.name for case in architectures.CASES])
    _row(*["---"] * (1 + len(architectures.CASES)))
    beyond: list[str] = []
    for name in architectures.ARCHITECTURES:
        model, x, background = architectures.calibrated(name)
        found = {}
        for case, gap, explained in architectures.gaps(model, x, background):
            found[case.name] = f"{gap:.0e}"
            if case.bounded and not gap <= architectures.BOUND:
                beyond.append(f"{name}, {case.name}: {architectures.most_lost(model, explained)}")
        _row(name, *[found[case.name] for case in architectures.CASES])
        del model
        keras.backend.clear_session()
    print("\nBeyond the bound:", "; ".join(beyond) or "none.", end="\n\n")


def shap(rounds: int) -> None:
    """DeepSHAP beside shap's DeepExplainer."""
    print("### DeepSHAP and shap's DeepExplainer\n")
    if not installed("shap"):
        print("shap is not installed.\n")
        return
    print("Seconds of a next call, medians; of all classes, or of each sample's predicted one.\n")
    _row("network", "classes", "keras_explain", "shap", "times as fast", "largest difference")
    _row(*["---"] * 6)
    for name, make in deep_shap.NETWORKS.items():
        for classes, prepare in deep_shap.CONTESTS.items():
            ours, theirs = prepare(*make())
            difference = deep_shap.difference(ours(), theirs())
            times = interleaved({"keras_explain": ours, "shap": theirs}, rounds)
            a, b = (statistics.median(times[key]) for key in times)
            faster = ratio(times, "shap", "keras_explain")
            _row(name, classes, f"{a:.3f}", f"{b:.3f}", f"{faster:.1f}", f"{difference:.0e}")
    print()


def masks(rounds: int) -> None:
    """The perturbation family beside plain forward passes of as many rows."""
    print("### Perturbation\n")
    print(
        "Median seconds; in brackets the median ratio to as many plain forward passes. What takes"
    )
    print("more than 5 times as long is timed once.\n")
    names = ("keras_explain", "bare", "xplique", "tf-explain", "lime")
    _row("network", "method", *names)
    _row(*["---"] * (2 + len(names)))
    for subject, make in perturbation.SUBJECTS.items():
        model, x, y = make()
        for method, makers in perturbation.METHODS.items():
            works = {name: m(model, x, y) for name, m in makers.items() if installed(name)}
            works["bare"] = perturbation.bare(model, x, y, perturbation.passes_of(method, x))
            times = _interleaved_but_slow(works, rounds)
            _row(subject, method, *[_cell(times, name) for name in names])
    print()


def kernel_shap(rounds: int) -> None:
    """KernelSHAP of a table beside shap's KernelExplainer."""
    print("### KernelSHAP and shap's KernelExplainer\n")
    if not installed("shap"):
        print("shap is not installed.\n")
        return
    print(
        "Median seconds of 64 rows of the breast cancer table, all 30 columns, as many samples.\n"
    )
    model, x = perturbation.breast_cancer()
    names = list(perturbation.kernel_shap(model, x, x[-1:]))
    _row("background", *names, "times as fast", "rank correlation")
    _row(*["---"] * (3 + len(names)))
    for size in (1, 50):
        works = perturbation.kernel_shap(model, x, x[-size:])
        correlation = perturbation.rank_correlation(*[works[name]() for name in names[:2]])
        times = _interleaved_but_slow(works, rounds, names[0])
        cells = [f"{statistics.median(times[name]):.3f}" for name in names]
        faster = ", ".join(f"{ratio(times, name, names[0]):.1f}" for name in names[1:])
        _row(size, *cells, faster, f"{correlation:.4f}")
    print()


TABLES = {
    **{"next": next_calls, "first": first_calls, "functions": functions, "goal": goal},
    **{"architectures": gaps, "shap": shap, "masks": masks, "kernel_shap": kernel_shap},
    **{"callback": epochs, "equal_error": equal_error.table},
}


def _interleaved_but_slow(
    works: dict[str, Callable[[], object]], rounds: int, measure: str = "bare"
) -> dict[str, list[float]]:
    """The times of every contestant; of those that take 5 times as long as one, of one round."""
    interleaved(works, 1)
    once = interleaved(works, 1)
    slow = {name for name in works if once[name][0] > 5 * once[measure][0]}
    times = interleaved({n: w for n, w in works.items() if n not in slow}, rounds)
    return times | {name: once[name] for name in slow}


def _keep(named: dict, parts: list[str]) -> None:
    for name in [n for n in named if not any(part in n for part in parts)]:
        del named[name]


def _first_call(subject: str, method: str, name: str) -> float:
    work = METHODS[method][name](*SUBJECTS[subject]())
    return seconds(work)


def _in_new_process(*case: str) -> float:
    command = [sys.executable, "-m", "benchmarks", "--first-call", *case]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _cell(times: dict[str, list[float]], name: str) -> str:
    if name not in times:
        return ""
    return f"{statistics.median(times[name]):.3f} ({ratio(times, name, 'bare'):.2f})"


def _row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def _machine() -> str:
    packages = ("tensorflow", "keras", "xplique", "tf-explain", "shap", "shapiq", "lime", "captum")
    found = [f"{p} {importlib.metadata.version(p)}" for p in packages if installed(p)]
    system = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return ", ".join([system, *found])


if __name__ == "__main__":
    main()
