"""Pictures cut into segments that are alike in colour, by scikit-image."""

import functools
from typing import Any

import numpy as np

OPTIONS: dict[str, dict[str, Any]] = {
    "slic": {"n_segments": 50, "compactness": 10, "sigma": 1},
    "quickshift": {"kernel_size": 4, "max_dist": 200, "ratio": 0.2},
    "felzenszwalb": {"scale": 100, "sigma": 0.5, "min_size": 50},
}


@functools.lru_cache(maxsize=64)
def segments(
    data: bytes,
    shape: tuple[int, ...],
    dtype: str,
    method: str,
    options: tuple[tuple[str, Any], ...],
) -> np.ndarray:
    """The segments of a picture; kept, as a callback asks for the same ones in every epoch."""
    from skimage import segmentation

    picture = np.frombuffer(data, dtype).reshape(shape).astype(np.float64)
    low, high = picture.min(), picture.max()
    return getattr(segmentation, method)((picture - low) / ((high - low) or 1), **dict(options))


def coloured(x: np.ndarray) -> np.ndarray:
    """Pictures of three channels: grey ones thrice, of others the first three."""
    return np.repeat(x[..., :1], 3, axis=-1) if x.shape[-1] < 3 else x[..., :3]
