"""Regions of the input, with a tree for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain import backend

Tensor = Any
Function = Callable[[Tensor], Tensor]


def clusters(
    features: npt.NDArray[np.float32], count: int, seed: int
) -> dict[str, npt.NDArray[Any]]:
    """The centres of k-means on standardised columns `[R, D]`, and the columns' scale `[D]`."""
    from sklearn.cluster import KMeans

    scale = features.std(axis=0)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    found = KMeans(count, n_init=10, random_state=seed).fit(features / scale)
    return {"centre": found.cluster_centers_.astype(np.float32), "scale": scale}


def nearest(features: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """The nearest centre of each row `[n, D]`, ints `[n]`."""
    scaled = features / scale
    squared = ops.sum(ops.square(centre), axis=1) - 2 * ops.matmul(scaled, ops.transpose(centre))
    return ops.argmin(squared, axis=1)


def numbered(function: Function, features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The region of each row by a user's function, ints `[n]`.

    Raises:
        ValueError: The function returns anything else.
    """
    regions = backend.to_numpy(function(ops.convert_to_tensor(features)))
    whole = regions.astype(np.int64)
    if regions.shape != (len(features),) or (whole != regions).any() or whole.min() < 0:
        raise ValueError(
            "Expected `regions` to return a region for each row [n, D], whole numbers [n] from 0. "
            f"Received: {regions.dtype}{list(regions.shape)}, such as {regions.ravel()[:5]}."
        )
    return whole


def total(penalties: Tensor, over: str) -> Tensor:
    """One penalty of those of all regions `[R]`.

    Args:
        penalties: A penalty per region.
        over: `"sum"`, `"max"`, or `"sparsemax"`: their mean, weighted by
            `sparsemax(penalties)` (Martins & Astudillo, "From Softmax to Sparsemax", ICML 2016).
    """
    if penalties.shape[0] == 1 or over == "sum":
        return ops.sum(penalties)
    if over == "max":
        return ops.max(penalties)
    return ops.sum(sparsemax(penalties) * penalties)


def sparsemax(z: Tensor) -> Tensor:
    """The point of the probability simplex that is nearest to `z`, `[R]`.

    Written here, since `keras.ops.sparsemax` returns zeros for many inputs, such as
    `[0.3, 0.5, 0.1, 0.2, 0.9]` (Keras 3.15).
    """
    above = ops.sum(ops.relu(z - z[:, None]), axis=1)  # by how much others are larger, in all
    support = ops.cast(above < 1, z.dtype)
    threshold = (ops.sum(support * z) - 1) / ops.sum(support)
    return ops.maximum(z - threshold, 0)
