"""Which input a layer's map lies over, and the map at that input's size."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain.core.data.layout import Layout
from keras_explain.core.graph import paths
from keras_explain.core.graph.steps import Call
from keras_explain.core.model.outputs import Outputs

Tensor = Any
Nest = Any


@dataclass(frozen=True, eq=False)
class Overlay:
    """The inputs that maps may lie over.

    Args:
        inputs: The model's input.
        layouts: For each leaf of it, where its places and channels are.
        sites: For each leaf, the Embeddings that it enters as token ids.
    """

    inputs: Nest
    layouts: Sequence[Layout]
    sites: Sequence[Sequence[Any]]

    @property
    def sides(self) -> list[tuple[int, ...]]:
        """For each leaf of the input, the lengths of the axes of its places."""
        leaves = zip(self.layouts, tree.flatten(self.inputs), strict=True)
        return [layout.sides(leaf.shape) for layout, leaf in leaves]

    def behind(self, tensor: Tensor) -> tuple[int, ...]:
        """The positions of the leaves that a tensor (of the model) depends on."""
        leaves = enumerate(tree.flatten(self.inputs))
        return tuple(i for i, x in leaves if paths.depends_on(tensor, x))

    def below(self, spatial: int, behind: Sequence[int]) -> int | None:
        """The leaf below a map of so many axes: one that leads to it, with as many of places.

        Args:
            spatial: The number of the map's axes, without that of the rows.
            behind: The leaves that lead to it.
        """
        parts = zip(self.layouts, self.sites, tree.flatten(self.inputs), strict=True)
        leaves = [(i, (at, ids)) for i, (at, ids, x) in enumerate(parts) if x.dtype != "string"]
        suited = [i for i, (at, _) in leaves if at.rank in (spatial + 1, spatial + 2)]
        alike = [
            i for i, (at, ids) in leaves if len(at.axes) == spatial and (at.rank > 2 or bool(ids))
        ]
        several = [i for i in alike if i in behind]
        if len({self.sides[i] for i in several}) > 1:
            first, *others = (input_names(self.inputs)[i] for i in several)
            warnings.warn(
                f"The map lies over the {first}. It depends on the {' and '.join(others)} too, of "
                "another size: where these are not aligned, name a layer before they meet.",
                stacklevel=2,
            )
        return min(suited, key=lambda i: (i not in behind, i not in alike, i), default=None)

    def under(self, maps: Tensor, behind: Sequence[int]) -> int:
        """As `below`, of maps `[n, *spatial]`.

        Raises:
            ValueError: There is no such input.
        """
        spatial = len(maps.shape) - 1
        found = self.below(spatial, behind)
        if found is None:
            raise ValueError(
                f"Expected an input with {spatial} spatial axes to lay the map over. Received: "
                f"inputs of shape {[tuple(x.shape) for x in tree.flatten(self.inputs)]}. Choose a "
                "`layer` whose output keeps the input's spatial axes, or for tokens [B, T, C] give "
                "their grid, as in `reshape=(14, 14)`."
            )
        return found

    def over_each(self, maps: Tensor, first: int, behind: Sequence[int]) -> dict[int, Tensor]:
        """Maps at the size of a leaf, and of all that lead to them and have as many axes."""
        spatial = len(maps.shape) - 1
        alike = [i for i in behind if len(self.layouts[i].axes) == spatial]
        return {i: self.resized(maps, i) for i in dict.fromkeys([first, *alike])}

    def of_values(self, outputs: Outputs, calls: Iterable[Call]) -> dict[str, int | None]:
        """Where values at calls of a layer lie, as in `Learned`; {} for several."""
        first, *others = calls
        if others or tree.is_nested(first.output):
            return {}
        channels, spatial = outputs.channels(first), len(first.output.shape) - 2
        if spatial < 1:
            return {"layer_channels": channels}
        over = self.below(spatial, self.behind(first.output))
        return {"layer_channels": channels, "over": over}

    def resized(self, maps: Tensor, leaf: int) -> Tensor:
        """Maps `[n, *spatial]` at the size of a leaf: of its places, or of all that it has."""
        shape = tuple(tree.flatten(self.inputs)[leaf].shape)
        as_it_is = len(shape) == len(maps.shape)
        return resize(maps, shape[1:] if as_it_is else self.layouts[leaf].sides(shape))


def input_names(inputs: Nest) -> list[str]:
    """What each leaf of an input is called in a message."""
    paths = ("/".join(map(str, path)) for path, _ in tree.flatten_with_path(inputs))
    return [f"input {path!r}" if path else "input" for path in paths]


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear interpolation of `[n, *spatial]` to `[n, *size]`, for any number of axes."""
    if len(size) == 2:
        return _resize_2d(maps[..., None], size)[..., 0]
    for axis, length in enumerate(size, start=1):
        maps = ops.moveaxis(maps, axis, 1)
        shape = maps.shape[1:]
        rest = int(np.prod(shape[1:]))
        flat = ops.reshape(maps, (-1, shape[0], rest, 1))
        flat = _resize_2d(flat, (length, rest))
        maps = ops.moveaxis(ops.reshape(flat, (-1, length, *shape[1:])), 1, axis)
    return maps


def _resize_2d(images: Tensor, size: tuple[int, ...]) -> Tensor:
    return ops.image.resize(images, size, interpolation="bilinear", data_format="channels_last")
