"""`Explanation`: what an explainer returns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import tree

from keras_explain.core.config import deserialize, serialize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_explain.core.explainer import Explainer
    from keras_explain.core.targets import Target

Nest = Any
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """The attributions of a batch, raw and signed, with all that they were made from.

    Attributes:
        values: float32 `[B, ...]`: of the input's shape (`[B, H, W, C]`), `[B, H, W]` for class
            activation maps, `[B, T]` for token ids; `[B, K, ...]` where the target was `[B, K]`. A
            nest of arrays where the input is one.
        scores: float32 `[B]` (or `[B, K]`): the explained score, a logit for a class.
        target: The `Target`, with what was explained in `target.index`, ints `[B]` (or `[B, K]`).
        x: The input.
        explainer: The `Explainer`.
        extras: More arrays `[B, ...]` by name, such as `"convergence_delta"`.
    """

    values: Nest
    scores: np.ndarray
    target: Target
    x: Nest
    explainer: Explainer
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        shapes = tree.map_structure(lambda leaf: leaf.shape, self.values)
        return f"Explanation({self.explainer}, values={shapes}, target={self.target})"

    def plot(self, **options: Any) -> Figure:
        """A matplotlib figure: input, map and overlay of each sample.

        Args:
            **options: As `keras_explain.plots.plot` takes: `class_names`, `to_image`, ...
        """
        from keras_explain import plots

        return plots.plot(self, **options)

    def save(self, path: str | Path) -> None:
        """Writes the explanation to an `.npz` file, which `Explanation.load` reads.

        Raises:
            ValueError: `path` does not end in `.npz`.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Expected a path that ends in '.npz'. Received: {str(path)!r}.")
        arrays: dict[str, np.ndarray] = {"scores": self.scores}
        header = {
            "format": FORMAT,
            "explainer": serialize(self.explainer),
            "target": serialize(self.target),
            "values": _store("values", self.values, arrays),
            "x": _store("x", self.x, arrays),
            "extras": _store("extras", self.extras, arrays),
        }
        arrays["header"] = np.array(json.dumps(header))
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads an explanation that `save` wrote.

        Raises:
            ValueError: The file is not an explanation, or of a later format.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if "header" not in arrays:
            raise ValueError(
                f"Expected a file written by Explanation.save. Received: {str(path)!r}."
            )
        header = json.loads(str(arrays["header"]))
        if header["format"] > FORMAT:
            raise ValueError(
                f"Expected an explanation of format {FORMAT} or before. Received: format "
                f"{header['format']} in {str(path)!r}. Update keras-explanations to read it."
            )
        return cls(
            values=_restore(header["values"], arrays),
            scores=arrays["scores"],
            target=deserialize(header["target"]),  # type: ignore[arg-type]
            x=_restore(header["x"], arrays),
            explainer=deserialize(header["explainer"]),  # type: ignore[arg-type]
            extras=_restore(header["extras"], arrays),
        )


def _store(name: str, nest: Nest, arrays: dict[str, np.ndarray]) -> Any:
    """Files the arrays of a nest under names, which take their place in what is returned."""
    if isinstance(nest, dict):
        return {key: _store(f"{name}/{key}", item, arrays) for key, item in nest.items()}
    if isinstance(nest, (list, tuple)):
        return [_store(f"{name}/{i}", item, arrays) for i, item in enumerate(nest)]
    arrays[name] = nest
    return name


def _restore(names: Any, arrays: dict[str, np.ndarray]) -> Nest:
    if isinstance(names, dict):
        return {key: _restore(item, arrays) for key, item in names.items()}
    if isinstance(names, list):
        return [_restore(item, arrays) for item in names]
    return arrays[names]
