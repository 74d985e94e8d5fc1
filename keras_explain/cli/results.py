"""What was found out, as lines and files."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_explain import __version__, files
from keras_explain.cli.samples import Samples
from keras_explain.core.model.targets import Class
from keras_explain.core.record.explanation import Explanation
from keras_explain.plots import notes

Row = dict[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
BEST = 5  # classes a prediction is told by


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What was found out."""

    explanations: dict[str, Explanation]
    samples: Samples
    outputs: np.ndarray | None  # [B, C]
    names: list[str] | None

    def lines(self) -> Iterator[str]:
        """What was predicted and explained, a line an input."""
        method, first = next(iter(self.explanations.items()))
        for i, name in enumerate(self.samples.names):
            rows = self._rows_of(i, method, first[i])
            explained = [row["class"] for row in rows]
            said = f"explained {', '.join(map(self._named, explained))}"
            for best in self._best(i)[:1]:
                more = "" if explained == [best["class"]] else f"; {said}"
                said = f"predicted {self._named(best['class'])} ({_short(best['output'])}){more}"
            yield f"{name}: {said}"

    def _best(self, i: int) -> list[dict[str, Any]]:
        """The likeliest classes of a sample: what the model returns for them."""
        if self.outputs is None:
            return []
        row = self.outputs[i]
        if len(row) == 1:  # a binary head without names, or a regression
            return [{"class": None, "name": None, "output": _finite(row[0])}]
        order = np.argsort(-row, kind="stable")[:BEST]
        return [
            {"class": int(c), "name": self._class_name(int(c)), "output": _finite(row[c])}
            for c in order
        ]

    def _rows(self, i: int) -> list[Row]:
        """A row for each method, and for each class of a sample that it explained."""
        return [
            row
            for method, explanation in self.explanations.items()
            for row in self._rows_of(i, method, explanation[i])
        ]

    def _rows_of(self, i: int, method: str, one: Explanation) -> Iterator[Row]:
        scores, shape = np.ravel(one.scores), np.shape(one.scores)
        index = np.broadcast_to(np.asarray(one.target.index), shape).ravel()
        extras = [one.extras.get(name) for name in ("base_values", "convergence_delta")]
        base, delta = (None if e is None else np.ravel(e) for e in extras)
        known = np.ravel(notes.reliable(one))
        sure = {name: one.extras.get(name) for name in ("relative_error", "value_error", "passes")}
        single = one.units == 1 and type(one.target) is Class
        for k, (number, score) in enumerate(zip(index, scores, strict=True)):
            yield {
                "input": self.samples.names[i],
                "method": method,
                "class": None if single else int(number),
                "class_name": None if single else self._class_name(int(number)),
                "score": _finite(score),
                "base_value": None if base is None else _finite(base[k]),
                "convergence_delta": None if delta is None else _finite(delta[k]),
                "reliable": bool(known[k]),
                **{n: None if e is None else _finite(np.ravel(e)[k]) for n, e in sure.items()},
            }

    @staticmethod
    def paths(folder: Path, methods: Iterable[str]) -> list[Path]:
        """All that `write` writes."""
        values = [folder / f"{method}.npz" for method in methods]
        return [*values, folder / "scores.csv", folder / "scores.json"]

    def write(self, options: argparse.Namespace) -> Iterator[Path]:
        """Writes the raw values of each method, and the scores as a table and with all else."""
        options.output.mkdir(parents=True, exist_ok=True)
        *values, table, everything = self.paths(options.output, self.explanations)
        for file, explanation in zip(values, self.explanations.values(), strict=True):
            explanation.save(file)
            yield file
        rows = [self._rows(i) for i in range(len(self.samples.names))]
        with files.written(table, text=True) as opened:
            writer = csv.DictWriter(opened, list(rows[0][0]))
            writer.writeheader()
            writer.writerows(_cells(row) for sample in rows for row in sample)
        yield table
        with files.written(everything, text=True) as opened:
            opened.write(json.dumps(self._summed_up(rows, options), indent=2) + "\n")
        yield everything

    def _summed_up(self, rows: list[list[Row]], options: argparse.Namespace) -> dict[str, Any]:
        return {
            "keras_explain": __version__,
            "model": options.model,
            "weights": options.weights,
            "preprocess": self.samples.scale,
            "seed": options.seed,
            "methods": {name: repr(e.explainer) for name, e in self.explanations.items()},
            "inputs": [
                {
                    "input": name,
                    "file": str(self.samples.files[i]),
                    "predicted": self._best(i),
                    "explained": [
                        {key: value for key, value in row.items() if key != "input"}
                        for row in rows[i]
                    ],
                }
                for i, name in enumerate(self.samples.names)
            ],
        }

    def _class_name(self, number: int) -> str | None:
        return None if self.names is None else self.names[number]

    def _named(self, number: int | None) -> str:
        """A class in a line: by the first of its names, with its number where others have it."""
        if number is None:
            return "the output"
        first = [name.partition(",")[0] for name in self.names or ()]
        name = first[number] if first else ""
        if name and first.count(name) == 1:
            return name
        return f"{name and name + ', '}class {number}"


def _cells(row: Row) -> Row:
    """A row as spreadsheets may read it: no text in it is taken for a formula, and run."""
    return {key: _cell(value) if isinstance(value, str) else value for key, value in row.items()}


def _cell(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()  # of file names that are not UTF-8
    is_number = re.fullmatch(r"[-+]?\d+([.,]\d+)?", text)
    return f"'{text}" if text.startswith(_FORMULA) and not is_number else text


def _short(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.3g}"


def _finite(value: Any) -> float | None:
    """A float32 with the digits that it has, as JSON can hold it."""
    return float(str(np.float32(value))) if math.isfinite(value) else None
