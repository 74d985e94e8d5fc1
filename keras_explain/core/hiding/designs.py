"""Coalitions in which each feature is present in half: which draws of them, and how many."""

import numpy as np

from keras_explain import backend
from keras_explain.core.run import sureness

PER_FEATURE = 2
"""From so many samples a feature on, a design is better than independent draws."""

BLOCKS = 16

FEW = 10
"""Of so many features all coalitions are one design."""


def halves(seed: int, samples: int, count: int) -> np.ndarray:
    """Which of `count` features are present in each sample, booleans `[samples, count]`."""
    if samples < PER_FEATURE * count:
        return backend.random_uniform(seed, (samples, count)) < 0.5
    return folded(seed, samples, count)


def folded(seed: int, samples: int, count: int) -> np.ndarray:
    """Independent designs one after the other, each of four samples a feature: a nested sequence.

    In one design a feature may go together with an interaction of others, of which it then seems to
    have a part; in the next one it does not.
    """
    size = _first(count) if count > FEW else max(_first(count), 2**count)
    parts = [
        _fraction(seed, min(size, samples - start), count, 3 * number)
        for number, start in enumerate(range(0, samples, size))
    ]
    return np.concatenate(parts)


def _fraction(seed: int, samples: int, count: int, stream: int) -> np.ndarray:
    """A random fraction of the two-level factorial design, folded over: a nested sequence.

    Feature j is present in sample i where the bits of i that a generator g_j picks have the parity
    of a random bit. All generators pick the lowest bit, so each odd sample is the complement of the
    one before it. The next bits of the generators number the features in random order, so that no
    two features go together once samples are twice as many; the others are random, but such that no
    coalition is seen twice before all were seen.
    """
    width = max(1, (samples - 1).bit_length())
    generators = backend.random_uniform(seed, (width, count), stream) < 0.5
    order = backend.random_permutation(seed, count, stream + 1)
    named = _bits(order, (count - 1).bit_length()).T[: width - 1]
    generators[0], generators[1 : 1 + len(named)] = True, named
    _make_independent(generators[:count])
    odd = backend.matmul(_bits(np.arange(samples), width), generators.astype(np.float32)) % 2
    return (odd == 1) != (backend.random_uniform(seed, (count,), stream + 2) < 0.5)


def stops(count: int, most: int) -> list[int]:
    """After how many samples of `halves(seed, most, count)` their error may be asked for."""
    return sureness.doubled(_first(count), most)


def _first(count: int) -> int:
    """The power of two from four samples a feature on."""
    return 2 ** max(6, (2 * PER_FEATURE * count - 1).bit_length())


def block_size(samples: int) -> int:
    """Of up to 16 blocks of consecutive samples, by which their error is told: even, for pairs."""
    return 2 * -(-samples // (2 * BLOCKS))


def _make_independent(rows: np.ndarray) -> None:
    """Changes an element of each row of booleans that is the sum, modulo 2, of some before it."""
    echelon: dict[int, np.ndarray] = {}  # by the first place of each where no later one is true
    for row in rows:
        left = row.copy()
        for place, reduced in echelon.items():
            left ^= left[place] & reduced
        if not left.any():
            free = next(place for place in range(len(row)) if place not in echelon)
            row[free] ^= True
            left[free] = True
        echelon[int(left.argmax())] = left


def _bits(numbers: np.ndarray, width: int) -> np.ndarray:
    """The lowest bits of whole numbers, float32 `[n, width]`."""
    return (numbers[:, None] >> np.arange(width) & 1).astype(np.float32)
