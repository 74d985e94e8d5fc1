"""Times this checkout beside another one, such as the commit before a change.

`python -m benchmarks.beside ../before` runs each method in turn in two processes, one for each
checkout, round after round, and prints how many times as long it takes here as there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("other", nargs="?", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds per row")
    parser.add_argument("--network", default="", help="part of a network's name")
    parser.add_argument("--method", default=[""], nargs="+", help="parts of methods' names")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve()
        return
    print("| network | method | first call | next calls | seconds here |")
    print("| --- | --- | --- | --- | --- |")
    with _Checkout(options.other) as other, _Checkout(HERE) as here:
        for network, method in here.rows():
            if options.network in network and any(part in method for part in options.method):
                print(_compared(network, method, other, here, options.rounds), flush=True)


def _compared(network: str, method: str, other: "_Checkout", here: "_Checkout", rounds: int) -> str:
    first = [checkout.ask(network, method) for checkout in (other, here)]
    times = [[checkout.ask() for checkout in (other, here)] for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in times)
    seconds = statistics.median(b for _, b in times)
    return f"| {network} | {method} | {first[1] / first[0]:.2f} | {ratio:.2f} | {seconds:.3f} |"


class _Checkout:
    """A process that times the methods of one checkout."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "_Checkout":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def rows(self) -> list[list[str]]:
        """The networks and methods that there are."""
        return self._answer("rows")

    def ask(self, *row: str) -> float:
        """The seconds that the first call of a row takes; without one, a further call of it."""
        return self._answer(row)

    def _answer(self, question: object) -> "list[list[str]] | float":
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    """Answers the questions that come in, one a line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    from benchmarks import perturbation
    from benchmarks.contestants import METHODS, suits
    from benchmarks.subjects import SUBJECTS
    from benchmarks.timing import seconds

    rows = {
        (network, method): (make, makers["keras_explain"])
        for networks, methods in (
            (SUBJECTS, METHODS),
            (perturbation.SUBJECTS, perturbation.METHODS),
        )
        for network, make in networks.items()
        for method, makers in methods.items()
    }
    made: dict[str, tuple] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if question == "rows":
            answer: object = list(rows)
        else:
            if question:
                make, prepare = rows[tuple(question)]
                made = {question[0]: made.get(question[0]) or make()}
                data = made[question[0]]
                work = prepare(*data) if suits(question[1], data[0]) else list
            answer = seconds(work)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
