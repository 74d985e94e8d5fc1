"""How simple a network gets, and what that costs: tree regularization and what it competes with.

    python -m benchmarks.tree_regularization --out docs

trains every method at 8 strengths with 5 seeds on each task (20 on breast cancer, where so few rows
are left to prune and to test on), and writes the frontiers as figures and tables. What was trained
is kept in `frontier.jsonl`, so that an interrupted run goes on. The table Adult is taken from the
file that the environment variable `ADULT` names, and left out without it.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from sklearn import datasets, metrics, model_selection, preprocessing, tree

import keras_explain as kx

L = keras.layers
KEPT = Path(__file__).with_name("frontier.jsonl")
NAMES = ("apl", "raw apl", "accuracy", "auc", "fidelity", "tree accuracy")


# The tasks


@dataclasses.dataclass(frozen=True)
class Task:
    """Data, and how a network is trained on it.

    `regions` says which region a row is of, in `keras.ops`, where the task has any.
    """

    train: tuple[np.ndarray, np.ndarray]
    prune_on: np.ndarray
    test: tuple[np.ndarray, np.ndarray]
    widths: tuple[int, ...]
    activation: str
    epochs: int
    refit_every: int
    batch_size: int = 100
    regions: Callable | None = None

    @property
    def classes(self) -> int:
        return int(self.train[1].max()) + 1

    def network(self, regularizer: Any = None) -> keras.Model:
        hidden = [L.Dense(w, self.activation, kernel_regularizer=regularizer) for w in self.widths]
        head = (
            L.Dense(1, "sigmoid", kernel_regularizer=regularizer)
            if self.classes == 2
            else L.Dense(self.classes, "softmax", kernel_regularizer=regularizer)
        )
        return keras.Sequential([keras.Input(self.train[0].shape[1:]), *hidden, head])

    def batches(self) -> tf.data.Dataset:
        """As many epochs as lie between two fits of the tree."""
        rows = tf.data.Dataset.from_tensor_slices(self.train).shuffle(len(self.train[0]))
        return rows.batch(self.batch_size).repeat(self.refit_every)

    @property
    def loss(self) -> str:
        return "binary_crossentropy" if self.classes == 2 else "sparse_categorical_crossentropy"


def parabola(seed: int) -> Task:
    """Positive above a parabola, with labels flipped near it (Wu et al., AAAI 2018)."""
    rng = np.random.default_rng(seed)
    x = rng.random((500, 2)).astype("float32")
    above = x[:, 1] - (5 * (x[:, 0] - 0.5) ** 2 + 0.4)
    flipped = (np.abs(above) < 0.2) & (rng.random(500) < 0.25)
    y = ((above > 0) ^ flipped).astype("int32")
    clean = rng.random((5000, 2)).astype("float32")
    truth = (clean[:, 1] > 5 * (clean[:, 0] - 0.5) ** 2 + 0.4).astype("int32")
    return Task((x[:350], y[:350]), x[350:], (clean, truth), (100, 100, 10), "tanh", 400, 5)


def rectangle_of(x: Any) -> Any:
    """Which of the five rectangles a point of the unit square is in."""
    ops = keras.ops
    a, b = x[:, 0], x[:, 1]
    lower = ops.where(a < 0.4, 0, ops.where(a < 0.75, 1, 2))
    upper = ops.where(a < 0.55, 3, 4)
    return ops.cast(ops.where(b < 0.5, lower, upper), "int32")


def rectangles(seed: int) -> Task:
    """Five rectangles, each with a boundary of its own (after Wu et al., AAAI 2020)."""
    rng = np.random.default_rng(seed)

    def truth(x: np.ndarray) -> np.ndarray:
        a, b = x[:, 0], x[:, 1]
        boundaries = [b > 0.25, a > 0.575, b < 0.25, a < 0.275, b > 0.75]
        return np.choose(np.asarray(rectangle_of(x)), boundaries).astype("int32")

    x, clean = rng.random((750, 2)).astype("float32"), rng.random((5000, 2)).astype("float32")
    y = truth(x) ^ (rng.random(750) < 0.25)
    test, widths = (clean, truth(clean)), (100, 100, 10)
    return Task((x[:500], y[:500]), x[500:], test, widths, "relu", 400, 5, regions=rectangle_of)


def table(x: np.ndarray, y: np.ndarray, seed: int, epochs: int) -> Task:
    """A real table: 60 % to train on, 20 % to prune on, 20 % to test on."""
    x, rest, y, rest_y = model_selection.train_test_split(
        x, y, train_size=0.6, random_state=seed, stratify=y
    )
    held_out, test, _, test_y = model_selection.train_test_split(
        rest, rest_y, test_size=0.5, random_state=seed, stratify=rest_y
    )
    scale = preprocessing.StandardScaler().fit(x)
    x, held_out, test = (scale.transform(part).astype("float32") for part in (x, held_out, test))
    widths, batch = (64, 32), 32 if len(x) < 1000 else 100
    return Task((x, y), held_out, (test, test_y), widths, "relu", epochs, 2, batch)


def breast_cancer(seed: int) -> Task:
    """Scikit-learn's: 569 tumours, 30 measures."""
    return table(*datasets.load_breast_cancer(return_X_y=True), seed, 60)


def wine(seed: int) -> Task:
    """Scikit-learn's: 178 wines, 13 measures, 3 classes."""
    return table(*datasets.load_wine(return_X_y=True), seed, 60)


ADULT = os.environ.get("ADULT")


def adult(seed: int) -> Task:
    """UCI's Adult: 9,000 people, 14 columns, from the file that `ADULT` names."""
    rows = np.loadtxt(Path(ADULT), str, delimiter=",")
    rows = np.char.strip(rows[np.random.default_rng(seed).permutation(len(rows))[:9000]])
    numbers = [0, 2, 4, 10, 11, 12]
    words = [column for column in range(14) if column not in numbers]
    codes = preprocessing.OrdinalEncoder().fit_transform(rows[:, words])
    x = np.concatenate([rows[:, numbers].astype(float), codes], axis=1)
    return table(x, (np.char.startswith(rows[:, 14], ">")).astype("int32"), seed, 60)


# The methods


@dataclasses.dataclass(frozen=True)
class L1Orthogonal(keras.regularizers.Regularizer):
    """L1, and orthogonal kernels, as baseline (Schaaf et al., 2019, arXiv:1904.05394)."""

    strength: float

    def __call__(self, kernel: Any) -> Any:
        ops = keras.ops
        gram = ops.matmul(ops.transpose(kernel), kernel) - ops.eye(kernel.shape[1])
        return self.strength * (ops.sum(ops.abs(kernel)) + ops.sum(ops.square(gram)))


def _penalised(penalty: Any, regional: str | None = None) -> Callable:
    def fit(task: Task, strength: float, seed: int) -> dict[str, float]:
        regions = task.regions if regional else None
        return trained(
            task,
            seed,
            strength,
            penalty=penalty,
            regions=regions,
            over_regions=regional or "sparsemax",
        )

    return fit


def _weight_decay(regularizer: Callable) -> Callable:
    def fit(task: Task, strength: float, seed: int) -> dict[str, float]:
        return trained(task, seed, 0, regularizer=regularizer(strength))

    return fit


def trained(
    task: Task, seed: int, strength: float, regularizer: Any = None, **options: Any
) -> dict[str, float]:
    """Trains a network, and measures it."""
    keras.utils.set_random_seed(seed)
    model = kx.TreeRegularization(
        task.network(regularizer),
        reference=task.train[0],
        prune_on=task.prune_on,
        strength=strength,
        seed=seed,
        **options,
    )
    steps = -(-len(task.train[0]) // task.batch_size) * task.refit_every
    model.compile(
        keras.optimizers.Adam(1e-3), task.loss, steps_per_execution=steps, jit_compile=False
    )
    rounds = task.epochs // task.refit_every  # as one epoch of `fit`, which is much faster
    model.fit(task.batches(), epochs=rounds, verbose=0)
    return measured(task, model)


def measured(task: Task, model: kx.TreeRegularization) -> dict[str, float]:
    """All figures of one network; on test rows, but for the path lengths."""
    x, y = task.test
    p = np.asarray(model.predict_on_batch(x))
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    surrogate = model.tree
    return {
        "apl": surrogate.average_path_length,
        "raw apl": unpruned(task, model),
        "accuracy": float(np.mean(p.argmax(axis=1) == y)),
        "auc": auc(y, p),
        "fidelity": surrogate.fidelity(x),
        "tree accuracy": float(np.mean(surrogate.predict(x) == y)),
    }


def unpruned(task: Task, model: kx.TreeRegularization) -> float:
    """The path length of one tree for all rows, before it is pruned."""
    x = task.train[0]
    p = np.asarray(model.predict_on_batch(x))
    classes = p.argmax(axis=1) if p.shape[1] > 1 else p[:, 0] > 0.5
    cart = tree.DecisionTreeClassifier(min_samples_leaf=5, random_state=0).fit(x, classes)
    return float(cart.decision_path(x).sum(axis=1).mean() - 1)


def auc(y: np.ndarray, p: np.ndarray) -> float:
    """The area under the ROC curve; of several classes, the mean over one against the rest."""
    scores = p[:, 1] if p.shape[1] == 2 else p
    return float(metrics.roc_auc_score(y, scores, multi_class="ovr"))


def cart(task: Task, leaves: float, seed: int) -> dict[str, float]:
    """A plain decision tree on the labels."""
    grown = tree.DecisionTreeClassifier(
        min_samples_leaf=5, max_leaf_nodes=int(leaves), random_state=seed
    ).fit(*task.train)
    x, y = task.test
    length = float(grown.decision_path(task.train[0]).sum(axis=1).mean() - 1)
    accuracy = float(np.mean(grown.predict(x) == y))
    return {
        "apl": length,
        "raw apl": length,
        "accuracy": accuracy,
        "auc": auc(y, grown.predict_proba(x)),
        "fidelity": 1.0,
        "tree accuracy": accuracy,
    }


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make networks simple, and the strengths it is tried at."""

    fit: Callable[[Task, float, int], dict[str, float]]
    strengths: tuple[float, ...]
    is_baseline: bool = False


METHODS = {
    "distillation": Method(
        _penalised(kx.trees.TreeDistillation()), (0.1, 0.5, 1, 1.25, 1.5, 3, 6, 12)
    ),
    "path length": Method(
        _penalised(kx.trees.PathLength()), (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
    ),
    "output surrogate": Method(
        _penalised(kx.trees.OutputSurrogate(fit_every=20)),
        (0.02, 0.04, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15),
    ),
    "weight surrogate": Method(
        _penalised(kx.trees.WeightSurrogate(fit_every=20)), (0.1, 0.2, 0.5, 1, 2, 3, 5, 10)
    ),
    "none": Method(_weight_decay(lambda _: None), (0,), True),
    "L1": Method(
        _weight_decay(keras.regularizers.L1),
        (2e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3),
        True,
    ),
    "L2": Method(
        _weight_decay(keras.regularizers.L2),
        (1e-4, 3e-4, 6e-4, 1.2e-3, 1.5e-3, 2e-3, 4e-3, 1e-2),
        True,
    ),
    "L1-orthogonal": Method(
        _weight_decay(L1Orthogonal), (1e-6, 1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3), True
    ),
    "CART": Method(cart, (2, 3, 4, 5, 6, 8, 10, 14), True),
}
REGIONAL = {
    f"distillation, {over}": Method(
        _penalised(kx.trees.TreeDistillation(), over), METHODS["distillation"].strengths
    )
    for over in ("sum", "max", "sparsemax")
}


FOUR_LEAVES = {
    "distillation, 4 leaves": Method(
        _penalised(kx.trees.TreeDistillation(max_leaf_nodes=4)), METHODS["distillation"].strengths
    )
}


def _at(strengths: dict[str, tuple[float, ...]]) -> dict[str, Method]:
    return {
        name: dataclasses.replace(METHODS[name], strengths=of_method)
        for name, of_method in strengths.items()
    }


# Tables take other strengths to go from no effect to one class.
TABLES = METHODS | _at(
    {
        "output surrogate": (0.04, 0.1, 0.2, 0.3, 0.5, 1, 2, 3),
        "weight surrogate": (0.5, 1, 2, 5, 10, 30, 100, 300),
        "L1": (5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1),
        "L2": (4e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5),
        "L1-orthogonal": (5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1),
    }
)
SMALL_TABLES = TABLES | _at({"path length": (0.5, 1, 1.5, 2, 2.5, 3, 5, 8)})


# The frontier


TASKS = {
    "parabola": (parabola, METHODS),
    "rectangles": (rectangles, METHODS | REGIONAL),
    "breast cancer": (breast_cancer, SMALL_TABLES | FOUR_LEAVES),
    "wine": (wine, SMALL_TABLES),
    "adult": (adult, TABLES),
}
SEEDS = dict.fromkeys(TASKS, 5) | {"breast cancer": 20}
Results = dict[str, dict[float, dict[str, float]]]  # method -> strength -> mean figures


class Kept:
    """What was trained, in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.runs = {tuple(key): figures for key, figures in map(json.loads, lines)}

    def add(self, key: tuple, figures: dict[str, float]) -> None:
        self.runs[key] = figures
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, figures]) + "\n")


def train_all(seeds: dict[str, int], methods: list[str], kept: Kept) -> None:
    """Trains what is not kept yet, one seed after another."""
    for seed in range(max(seeds.values())):
        for task in [task for task, count in seeds.items() if seed < count]:
            of_seed = TASKS[task][0](seed)
            for name, method in TASKS[task][1].items():
                for strength in method.strengths if name in methods else ():
                    key = (task, name, strength, seed)
                    if key not in kept.runs:
                        kept.add(key, method.fit(of_seed, strength, seed))


def frontier(task: str, seeds: int, kept: Kept) -> Results:
    """The mean figures over seeds of every method at every strength, and the number of seeds."""
    results: Results = {}
    for name, method in TASKS[task][1].items():
        for strength in method.strengths:
            keys = [(task, name, strength, seed) for seed in range(seeds)]
            runs = [kept.runs[key] for key in keys if key in kept.runs]
            if runs:
                means = {figure: float(np.mean([run[figure] for run in runs])) for figure in NAMES}
                results.setdefault(name, {})[strength] = means | {"seeds": len(runs)}
    return results


def hypervolume(points: list[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area of (APL, accuracy) that some point is at least as good as, up to a worst one."""
    area, best = 0.0, worst[1]
    inside = sorted((min(apl, worst[0]), accuracy) for apl, accuracy in points)
    for apl, accuracy in inside:
        if accuracy > best:
            area += (worst[0] - apl) * (accuracy - best)
            best = accuracy
    return area


def volumes(results: Results, share: float) -> dict[str, float]:
    """The hypervolume of each method, in front of the longest path and the majority's share."""
    longest = max(run["apl"] for runs in results.values() for run in runs.values())
    return {
        name: hypervolume(
            [(run["apl"], run["accuracy"]) for run in runs.values()], (longest, share)
        )
        for name, runs in results.items()
    }


def majority(task: str) -> float:
    """The share of the most frequent class."""
    _, y = TASKS[task][0](0).test
    return float(np.bincount(y).max() / len(y))


# What is written


HEAD = """# Frontiers

`python -m benchmarks.tree_regularization --out docs`: how simple networks get, and what that costs.
Means over seeds. `apl` is the average path length of the pruned tree over the training rows, and
`raw apl` that of one tree for all rows before it is pruned. On test rows (of the toys: with labels
that are right): `accuracy` and `auc` of the network, `fidelity` of the pruned tree to the network,
and the `tree accuracy`. Plain trees (CART) stand for themselves.
"""


def lines(task: str, results: Results) -> Iterator[str]:
    """A table as Markdown."""
    baselines = {name for name, method in METHODS.items() if method.is_baseline}
    yield f"## {task}\n"
    yield f"{TASKS[task][0].__doc__} Majority: {majority(task):.3f}.\n"
    yield "| method | strength | " + " | ".join(NAMES) + " | seeds |"
    yield "|---" * (3 + len(NAMES)) + "|"
    for name, runs in results.items():
        for strength, run in runs.items():
            figures = " | ".join(f"{run[figure]:.3f}" for figure in NAMES)
            label = f"{name}{' (baseline)' * (name in baselines)}"
            yield f"| {label} | {strength:g} | {figures} | {run['seeds']} |"
    yield "\nHypervolume of accuracy against APL, larger is better: " + ", ".join(
        f"{name} {volume:.3f}" for name, volume in volumes(results, majority(task)).items()
    )
    yield ""


def draw(task: str, results: Results, path: Path) -> None:
    """Accuracy and AUC of the network, and fidelity of the tree, against the path length.

    Networks far worse than the best are left out of the picture.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    dark_and_light = colormaps["tab20"].colors
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, 3), ("accuracy", "auc", "fidelity"), strict=True):
        axes.set_prop_cycle(color=[*dark_and_light[::2], *dark_and_light[1::2]])
        for name, runs in results.items():
            is_baseline = name in METHODS and METHODS[name].is_baseline
            points = sorted((run["apl"], run[what]) for run in runs.values())
            style = {"ls": ":", "lw": 1.2, "ms": 4} if is_baseline else {"lw": 2, "ms": 6}
            axes.plot(*zip(*points, strict=True), marker="o", label=name, **style)
        axes.set(xlabel="average path length of the pruned tree", ylabel=what)
        low, high = axes.get_ylim()
        axes.set_ylim(low if what == "fidelity" else max(low, high - 0.2), high)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(task)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tree_regularization", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where to write")
    parser.add_argument("--kept", type=Path, default=KEPT, help="what was trained")
    parser.add_argument("--only", choices=list(TASKS), nargs="+", help="some of the tasks")
    parser.add_argument("--methods", nargs="+", help="train some of the methods")
    parser.add_argument("--seeds", type=int, help="so many on each task")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    kept, page = Kept(options.kept), []
    tasks = [task for task in options.only or TASKS if task != "adult" or ADULT is not None]
    seeds = {task: options.seeds or SEEDS[task] for task in tasks}
    train_all(seeds, options.methods or [*METHODS, *REGIONAL, *FOUR_LEAVES], kept)
    for task, count in seeds.items():
        results = frontier(task, count, kept)
        if not results:
            continue
        name = f"frontier-{task.replace(' ', '-')}.png"
        draw(task, results, options.out / "images" / name)
        page += [*lines(task, results), f"![{task}](images/{name})\n"]
    (options.out / "frontier.md").write_text("\n".join([HEAD, *page]), "utf-8")


if __name__ == "__main__":
    main()
