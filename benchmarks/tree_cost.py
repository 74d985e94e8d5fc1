"""What tree regularization costs: time per step and epoch, and memory.

    python -m benchmarks.tree_cost

trains plain and regularized networks by turns in one process, and before that measures the peak
memory of each in a process of its own.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_explain as kx
from benchmarks.timing import interleaved, ratio

L = keras.layers
PENALTIES: dict[str, Callable[[], kx.trees.Penalty]] = {
    "distillation": kx.trees.TreeDistillation,
    "path length": kx.trees.PathLength,
    "output surrogate": kx.trees.OutputSurrogate,
    "weight surrogate": kx.trees.WeightSurrogate,
}
# rows, columns, widths, batch size
SUBJECTS = {
    "350 x 2, 100-100-10": (350, 2, (100, 100, 10), 100),
    "10,000 x 14, 64-32": (10_000, 14, (64, 32), 100),
    "10,000 x 100, 700-700-600 (a million weights)": (10_000, 100, (700, 700, 600), 100),
}
LARGEST = list(SUBJECTS)[-1]
STEPS = 20  # at a turn


def data(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, columns)).astype("float32")
    return x, (x[:, 0] * x[:, 1] + 0.3 * rng.normal(size=rows) > 0).astype("int32")


def model(subject: str, penalty: str, refit_every: int = 1) -> tuple[keras.Model, tuple, int]:
    """A compiled network, alone or regularized from the first epoch on."""
    rows, columns, widths, batch = SUBJECTS[subject]
    keras.utils.set_random_seed(0)
    hidden = [L.Dense(width, "relu") for width in widths]
    net = keras.Sequential([keras.Input((columns,)), *hidden, L.Dense(1, "sigmoid")])
    x, y = data(rows, columns)
    if penalty != "plain":
        net = kx.TreeRegularization(
            net,
            reference=x,
            penalty=PENALTIES[penalty](),
            warmup=0.0,
            refit_every=refit_every,
        )
    net.compile("adam", "binary_crossentropy")
    return net, (x, y), batch


def suits(subject: str, penalty: str) -> bool:
    """The surrogate over weights refuses large networks."""
    return penalty != "weight surrogate" or subject != LARGEST


def times(subjects: list[str], rounds: int, epochs: int) -> None:
    print("| network | penalty | step | epoch | amortised, refit every epoch | every other epoch |")
    print("|---|---|---|---|---|---|")
    for subject in subjects:
        penalties = [name for name in PENALTIES if suits(subject, name)]
        made = {name: model(subject, name) for name in ("plain", *penalties)}
        seldom = {f"{name}, seldom": model(subject, name, refit_every=2) for name in penalties}
        works = {}
        for name, (net, rows, batch) in (made | seldom).items():
            net.fit(*rows, batch_size=batch, epochs=12, verbose=0)  # compiles, fits surrogates
            works[name] = lambda n=net, r=rows, b=batch: n.fit(
                *r, batch_size=b, epochs=epochs, verbose=0
            )
        steps = {
            name: lambda n=net, b=batch, r=rows: some_steps(n, r, b)
            for name, (net, rows, batch) in made.items()
        }
        whole, alone = interleaved(works, rounds), interleaved(steps, 10 * rounds)
        for name in penalties:
            print(
                f"| {subject} | {name} | {ratio(alone, name, 'plain'):.2f} | "
                f"{statistics.median(whole[name]) / epochs:.3f} s | "
                f"{ratio(whole, name, 'plain'):.2f} | "
                f"{ratio(whole, f'{name}, seldom', 'plain'):.2f} |",
                flush=True,
            )


def some_steps(net: keras.Model, rows: tuple, batch: int) -> None:
    """Steps without `fit` and its callbacks."""
    x, y = rows
    for _ in range(STEPS):
        net.train_on_batch(x[:batch], y[:batch])


def memory(name: str) -> None:
    """Prints the peak memory of training in this process, in MB.

    A process begins with the peak of the one that started it, which should be small.
    """
    net, rows, batch = model(LARGEST, name)
    net.fit(*rows, batch_size=batch, epochs=3, verbose=0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memories() -> None:
    print(f"Peak memory of a process that trains {LARGEST}:")
    for name in ("plain", "distillation"):
        command = [sys.executable, "-m", "benchmarks.tree_cost", "--memory", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"- {name}: {float(done.stdout.split()[-1]):.0f} MB", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tree_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", choices=list(SUBJECTS), nargs="+", help="some of the networks")
    parser.add_argument("--memory", choices=["plain", *PENALTIES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    memories()
    times(options.only or list(SUBJECTS), options.rounds, options.epochs)


if __name__ == "__main__":
    main()
