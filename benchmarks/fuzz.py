"""Hostile calls of every explainer: each gives finite values, or an error of our own.

`python -m benchmarks.fuzz --calls 5000`
"""

import argparse
import collections
import dataclasses
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, tree

import keras_explain as kx

ROWS = 3
PACKAGE = str(Path(kx.__file__).parent)
FOREIGN = (
    "tensorflow",
    "Traceback",
    "{{function_node",
    "numpy.",
    "operands could not",
    "_concrete",
)
FEW = {"steps": 2, "samples": 12, "masks": 8, "designs": 2}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, and an input that it takes."""

    model: keras.Model
    x: Any


def subjects() -> dict[str, Subject]:
    """A small model of every kind of input."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=(ROWS, *shape)).astype("float32")

    def model(x: Any, h: Any) -> keras.Model:
        return keras.Model(x, layers.Dense(3, activation="softmax")(layers.Dense(4, "tanh")(h)))

    picture = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3, activation="relu", name="inside")(picture)
    table, series = keras.Input((5,)), keras.Input((12, 2))
    inside = layers.Dense(4, activation="relu", name="inside")(table)
    steps = layers.Conv1D(4, 3, activation="relu", name="inside")(series)
    ids = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(9, 4, name="inside")(ids)
    a, b = keras.Input((1,), name="a"), keras.Input((8, 8, 1), name="b")
    both = layers.Concatenate()([a, layers.Flatten()(layers.Conv2D(2, 3, name="inside")(b))])
    age, job = keras.Input((1,), name="age"), keras.Input((1,), name="job", dtype="string")
    code = layers.StringLookup(vocabulary=["clerk", "cook"])(job)
    coded = layers.Flatten()(layers.Embedding(3, 2, name="inside")(code))
    jobs = np.array([["clerk"], ["cook"], ["clerk"]])
    return {
        "picture": Subject(model(picture, layers.Flatten()(conv)), numbers(8, 8, 3)),
        "table": Subject(model(table, inside), numbers(5)),
        "series": Subject(model(series, layers.Flatten()(steps)), numbers(12, 2)),
        "tokens": Subject(model(ids, layers.Flatten()(embedded)), rng.integers(1, 9, (ROWS, 6))),
        "inputs": Subject(model({"a": a, "b": b}, both), {"a": numbers(1), "b": numbers(8, 8, 1)}),
        "texts": Subject(
            model({"age": age, "job": job}, layers.Concatenate()([age, coded])),
            {"age": numbers(1), "job": jobs},
        ),
    }


# What goes wrong with one array


def spoiled(array: np.ndarray, rng: np.random.Generator) -> Any:
    """An array as it should not be, or in a form that should do as well."""
    number = array.astype("float64") if array.dtype.kind in "if" else np.zeros(array.shape)
    forms: list[Callable[[], Any]] = [
        lambda: array,
        lambda: array.tolist(),
        lambda: array.astype(object),
        lambda: keras.ops.convert_to_tensor(array),
        lambda: number.astype(rng.choice(["float16", "float64", ">f4", "int8", "bool", "uint64"])),
        lambda: number + rng.choice([np.nan, np.inf, 1e300, 0.5, 1e9, -3.0]),
        lambda: number.astype("complex64"),
        lambda: number.astype("datetime64[s]"),
        lambda: array[:0],
        lambda: array[:1],
        lambda: array[0],
        lambda: array[..., None],
        lambda: array[..., :-1],
        lambda: np.full(array.shape, "a"),
        lambda: np.full(array.shape, None),
        lambda: array.ravel(),
        lambda: {"typo": array},
        lambda: [array, array],
        lambda: [array],
        lambda: (),
        lambda: {},
        lambda: None,
        lambda: "text",
        lambda: ["text"] * ROWS,
        lambda: rng.choice([0.0, 1.0, -7.5, np.nan, 2.0**70]),
        lambda: True,
        lambda: [[1.0], [2.0, 3.0]],
        lambda: object(),
        lambda: 3 + 4j,
    ]
    return forms[rng.integers(len(forms))]()


def spoiled_nest(x: Any, rng: np.random.Generator) -> Any:
    """A nest with one part spoiled, or spoiled as a whole."""
    if not isinstance(x, dict):
        return spoiled(x, rng)
    name = list(x)[rng.integers(len(x))]
    changed = x | {name: spoiled(x[name], rng)}
    shapes = [changed, list(changed.values()), {name: changed[name]}, changed | {"more": x[name]}]
    return shapes[0] if rng.random() < 0.7 else shapes[rng.integers(len(shapes))]


# Configurations and calls


SCALARS: list[Any] = [
    0,
    1,
    2,
    3,
    -1,
    0.5,
    2.5,
    2**40,
    True,
    None,
    "a",
    np.nan,
    [],
    (2, 2),
    {},
    b"x",
]
LAYERS = ["inside", "typo", None, 3, "dense"]
TARGETS: list[Any] = [
    *[None, 0, 2, 3, -1, 2**32, 1.5, "a", [0, 1, 2], [[0, 1]] * ROWS, [], np.eye(3), True],
    *[kx.targets.Label(1), kx.targets.Regression(0), kx.targets.Class(1, of="probability")],
    *[kx.targets.Neuron("inside", 0), kx.targets.Neuron("typo", 0), kx.targets.Region(0)],
    *[kx.targets.Function(lambda y: y[:, 0]), kx.targets.Function(lambda y: None)],
    *[kx.targets.Function(lambda y: y), kx.targets.Function(lambda y: 3)],
]


def classes() -> list[Any]:
    """The public explainers."""
    found = (getattr(kx, name) for name in kx.__all__)
    found = (c for c in found if inspect.isclass(c) and issubclass(c, kx.Explainer))
    return [c for c in found if not inspect.isabstract(c)]


def made(cls: Any, x: Any, rng: np.random.Generator) -> Any:
    """An explainer, mostly with one field that may be wrong."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    given = {name: few for name, few in FEW.items() if name in fields}
    if "layer" in fields and fields["layer"].default is dataclasses.MISSING:
        given["layer"] = "inside"
    if "background" in fields and (not hasattr(cls, "baseline") or rng.random() < 0.5):
        given["background"] = x
    if fields and rng.random() < 0.5:
        name = list(fields)[rng.integers(len(fields))]
        given[name] = changed(name, x, rng)
    return cls(**given)


def changed(name: str, x: Any, rng: np.random.Generator) -> Any:
    """A value of a field, right or wrong."""
    if name in ("background", "baseline", "low", "high"):
        return spoiled_nest(x, rng)
    if name == "layer":
        return LAYERS[rng.integers(len(LAYERS))]
    return SCALARS[rng.integers(len(SCALARS))]


def call(subject: Subject, rng: np.random.Generator) -> Callable[[], kx.Explanation]:
    """A call that is drawn at random, mostly with one thing wrong."""
    known = classes()
    cls = known[rng.integers(len(known))]
    x = spoiled_nest(subject.x, rng) if rng.random() < 0.5 else subject.x
    target = TARGETS[rng.integers(len(TARGETS))] if rng.random() < 0.2 else None
    options: dict[str, Any] = {"progress": False}
    if rng.random() < 0.1:
        name = rng.choice(["batch_size", "seed"])
        options[str(name)] = SCALARS[rng.integers(len(SCALARS))]
    return lambda: made(cls, subject.x, rng)(subject.model, x, target, **options)


def verdict(run: Callable[[], kx.Explanation]) -> tuple[str, str]:
    """`"value"` or `"error"`, or what is wrong with it, and its words."""
    try:
        explanation = run()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ours = where.filename.startswith(PACKAGE) and isinstance(error, (TypeError, ValueError))
        said = str(error)
        words = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {said}"
        if not ours or any(word in said for word in FOREIGN):
            return "foreign error", words
        return ("error", words) if "Received" in said else ("unclear error", words)
    leaves = tree.flatten(explanation.values)
    rows = {len(leaf) for leaf in leaves}
    finite = all(np.isfinite(leaf).all() for leaf in [*leaves, explanation.scores])
    right = rows == {len(explanation.scores)} and all(leaf.dtype == np.float32 for leaf in leaves)
    return ("value" if finite and right else "broken value"), repr(explanation)


def verdicts(calls: int, seed: int) -> Iterator[tuple[int, str, str, str]]:
    """The number, the subject, the verdict and the words of each call."""
    every = subjects()
    for i in range(calls):
        rng = np.random.default_rng((seed, i))
        name = list(every)[rng.integers(len(every))]
        with warnings.catch_warnings(action="ignore"):
            yield i, name, *verdict(call(every[name], rng))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    for i, name, found, words in verdicts(options.calls, options.seed):
        counts[found] += 1
        if found not in ("value", "error"):
            print(f"{i} {name}: {found}: {words[:300]!r}", flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
