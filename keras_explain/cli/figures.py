"""Pictures of what was found out."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_explain import files, plots
from keras_explain.cli.errors import CommandError, UsageError
from keras_explain.cli.files import lines_of
from keras_explain.cli.samples import Samples
from keras_explain.core.record.explanation import Explanation

DOTS_PER_INCH = 150


@dataclasses.dataclass(frozen=True, eq=False)
class Figures:
    """The figures of each sample, or of the first ones of many."""

    samples: Samples
    options: argparse.Namespace
    names: list[str] | None
    methods: list[str]
    looks: dict[str, Any]

    def paths(self) -> list[Path]:
        """All that is going to be written."""
        return [path for i in range(self._count) for path in self._paths(i).values()]

    def write(self, explanations: dict[str, Explanation]) -> Iterator[Path]:
        """Draws and writes the figures.

        Raises:
            CommandError: Some can't be drawn; the others are written all the same.
        """
        failed: dict[Path, CommandError] = {}
        for i in range(self._count):
            ones = {name: e[i] for name, e in explanations.items()}
            for method, path in self._paths(i).items():
                try:
                    figure = self._figure(i, ones, method)
                except CommandError as error:
                    failed[path] = error
                    continue
                with files.written(path) as file:
                    figure.savefig(file, dpi=DOTS_PER_INCH, format="png")
                yield path
        left = len(self.samples.names) - self._count
        if left and self.options.figures != "none":
            warnings.warn(
                f"{left} of {len(self.samples.names)} inputs have no figure; --max-figures says "
                "how many have one.",
                stacklevel=2,
            )

        if failed:
            path, first = next(iter(failed.items()))
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise CommandError(f"{path} was not drawn{more}. {first}") from first

    @property
    def _count(self) -> int:
        most = 0 if self.options.figures == "none" else self.options.max_figures
        return min(most, len(self.samples.names))

    def _paths(self, i: int) -> dict[str, Path]:
        """The figures of a sample by method; all methods are `""`."""
        name = self.samples.names[i]
        if self.samples.pictures is not None and self.options.figures == "grid":
            return {"": self.options.output / f"{name}.png"}
        return {m: self.options.output / f"{name}.{m}.png" for m in self.methods}

    def _figure(self, i: int, ones: dict[str, Explanation], method: str) -> Any:
        given = {**self.looks, "class_names": self.names, "to_image": self.samples.to_image(i)}
        given = {name: value for name, value in given.items() if value is not None}
        try:
            if method == "" and len(ones) > 1:
                return plots.grid(ones, **given)
            return plots.plot(ones[method or next(iter(ones))], **given)
        except ValueError as error:
            raise CommandError(
                f"{error}\nThe values are written all the same; --figures none leaves figures out."
            ) from error


def looks_of(options: argparse.Namespace, are_pictures: bool) -> dict[str, Any]:
    """How the figures look, in the words of `plots.plot`.

    Raises:
        UsageError: Pictures can't be drawn so.
    """
    looks = {"show": options.show}
    for name in ("feature_names", "vocabulary"):
        path = getattr(options, name)
        looks[name] = None if path is None else lines_of(path)
    wrong = [f"--{name.replace('_', '-')}" for name in looks if name != "show" and looks[name]]
    wrong += ["--show waterfall"] if options.show == "waterfall" else []
    if are_pictures and wrong:
        raise UsageError(
            "Expected options of pictures: --show overlay, map, signed or masked. "
            f"Received: {', '.join(wrong)}."
        )
    return looks
