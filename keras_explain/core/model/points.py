"""Points: inputs in the space that is explained.

The *point* is what is differentiated and moved: the input itself, or, for token ids, the output
of the `Embedding` that they enter, or the output of a layer that was asked for. The calls whose
outputs make a point are its *sites*.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core.data.layout import Layout
from keras_explain.core.model.outputs import Outputs
from keras_explain.core.model.running import CallKey, Placed
from keras_explain.core.model.sites import Sites

Tensor = Any
Nest = Any


@dataclass(frozen=True, eq=False)
class Space:
    """The space that is explained.

    Args:
        inputs: The user's input, a nest of tensors `[n, ...]`.
        sites: Where the model is explained, other than at the inputs themselves.
        layouts: For each leaf of the input, where its places and channels are.
    """

    inputs: Nest
    sites: Sites
    layouts: Sequence[Layout]

    @property
    def is_input(self) -> bool:
        """Whether points are inputs."""
        return not (any(self.sites.inputs) or self.sites.layer)

    def as_numbers(self, inputs: Nest) -> Nest:
        """Inputs as points, where points are inputs."""
        return tree.map_structure(_number, inputs)

    def read(self, outputs: Outputs, inputs: Nest) -> Nest:
        """The point that a forward pass on inputs came by."""
        if self.sites.layer:
            flat = [t for site in self.sites.layer for t in outputs.at_site(site)]
            return flat[0] if len(flat) == 1 else flat
        leaves = [
            ops.cast(ops.concatenate([outputs.at_site(s)[0] for s in sites], axis=-1), "float32")
            if sites
            else _number(leaf)
            for leaf, sites in zip(tree.flatten(inputs), self.sites.inputs, strict=True)
        ]
        return tree.pack_sequence_as(inputs, leaves)

    def placed(self, point: Nest, *, moves: bool) -> Placed:
        """A point as the model takes it; `moves` as for `Placed`."""
        replaced: dict[CallKey, list[Tensor]] = {}
        if self.sites.layer:
            flat = tree.flatten(point)
            each = len(flat) // len(self.sites.layer)
            for i, site in enumerate(self.sites.layer):
                replaced[site.path, site.number] = flat[i * each : (i + 1) * each]
            return Placed(self.inputs, replaced, moves)
        leaves = []
        for x, leaf, sites in zip(
            tree.flatten(self.inputs), tree.flatten(point), self.sites.inputs, strict=True
        ):
            edges = np.cumsum([site.width for site in sites])[:-1]
            parts = ops.split(leaf, [int(e) for e in edges], axis=-1) if len(sites) > 1 else [leaf]
            for site, part in zip(sites, parts, strict=False):
                replaced[site.path, site.number] = [part]
            leaves.append(x if sites or x.dtype == "bool" else leaf)
        return Placed(tree.pack_sequence_as(self.inputs, leaves), replaced, moves)

    def collapse(self, values: Nest) -> Nest:
        """Attributions to a point as attributions to the input: embeddings summed to `[n, T]`."""
        sites = self.sites.inputs
        if self.sites.layer or not any(sites) or len(tree.flatten(values)) != len(sites):
            return values
        leaves = [
            _per_entry(leaf, x) if sites else leaf
            for leaf, x, sites in zip(
                tree.flatten(values), tree.flatten(self.inputs), sites, strict=True
            )
        ]
        return tree.pack_sequence_as(values, leaves)

    def noise(self, keys: Tensor, point: Nest, *, of_passes: bool) -> Nest:
        """Standard normal noise of the point's shape, one draw a key.

        Args:
            keys: Ints `[passes, 2]`, or `[n, 2]`.
            point: The point, whose rows are samples after samples, one pass after the other.
            of_passes: Whether there is a key for each pass, not for each row.
        """
        draw = backend.random_normal if of_passes else backend.random_normal_once

        def drawn(leaf: Tensor, i: int) -> Tensor:
            noise = self._noise(draw, ops.add(keys, [0, 7919 * i]), i, tuple(leaf.shape))
            if not of_passes:
                return noise
            n, p = ops.shape(leaf)[0], ops.shape(noise)[0]
            rows = ops.broadcast_to(noise[:, None], (p, n // p, *noise.shape[1:]))
            return ops.reshape(rows, ops.shape(leaf))

        leaves = tree.flatten(point)
        return tree.pack_sequence_as(point, [drawn(leaf, i) for i, leaf in enumerate(leaves)])

    def _noise(self, draw: Callable, keys: Tensor, leaf: int, shape: tuple[int, ...]) -> Tensor:
        """Noise of a leaf of the point, which does not depend on where its channels are."""
        if self.sites.layer or len(shape) != self.layouts[leaf].rank:
            return draw(keys, shape[1:])
        layout = self.layouts[leaf]
        axes = [*layout.axes, *(() if layout.channels is None else (layout.channels,))]
        drawn = draw(keys, tuple(shape[axis] for axis in axes))
        return drawn if layout.channels is None else layout.back(drawn)


def per_row(value: Tensor, leaf: Tensor) -> Tensor:
    """Numbers `[n]` with the axes that let them multiply a leaf `[n, ...]`."""
    return ops.reshape(value, (-1,) + (1,) * (len(leaf.shape) - 1))


def between(start: Nest, end: Nest, share: Tensor) -> Nest:
    """The points `start + share * (end - start)` of nests `[n, ...]`, for shares `[n]`."""
    return tree.map_structure(lambda a, b: a + per_row(share, a) * (b - a), start, end)


def check_numbers(point: Nest) -> None:
    """Raises a `ValueError` where a point has texts, which there is no derivative by."""
    for path, leaf in tree.flatten_with_path(point):
        if leaf.dtype == "string":
            name = "/".join(map(str, path))
            raise ValueError(
                f"Expected numbers behind the text input {name!r} to take a gradient by. "
                "Received: a model in which no layer makes them of it alone. Use a method that "
                "hides features, such as KernelSHAP with a `background`."
            )


def _number(x: Tensor) -> Tensor:
    return ops.cast(x, "float32") if x.dtype == "bool" else x


def _per_entry(values: Tensor, x: Tensor) -> Tensor:
    """Attributions to what is made of each entry of `x`, summed over what it was made."""
    if len(values.shape) > len(x.shape):
        values = ops.sum(values, axis=-1)
    elif x.dtype == "string":  # [n, V] of [n, 1]: one-hot categories
        values = ops.sum(values, axis=-1, keepdims=True)
    if x.dtype == "string" and tuple(values.shape[1:]) != tuple(x.shape[1:]):
        raise ValueError(
            f"Expected numbers for each text {tuple(x.shape)}, to attribute to. Received: "
            f"{tuple(values.shape)}, as a TextVectorization makes of words. Explain what is behind "
            "it: `keras.Model(vectorizer.output, model.outputs)` with `vectorizer(texts)` as x."
        )
    return values
