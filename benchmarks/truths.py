"""What each sampling method comes to with endless samples, by long runs that are not ours.

Where 12 features make 4,096 coalitions, all are taken, and the truth is exact. Every other truth is
the mean of two runs, which also say how sure it is. LIME's ridge is 1 at 1,000 samples and grows
with them. Nothing of `keras_explain` is used.
"""

import math
import os
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import qmc

from benchmarks.tasks import Task, folder, relative_errors

NOISE, KEEP, CELLS = 0.15, 0.5, 7
RIDGE, WIDTH = 1 / 1000, 0.25
EXACT = 12  # features of which all coalitions are looked at


def truth(task: Task, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The values, and the relative error of these themselves `[rows]`, made once."""
    path = folder() / f"{task.name}-{method}.npz"
    if not path.exists():
        halves = [TRUTHS[method](task, half) for half in range(2)]
        value = np.mean(halves, axis=0)
        part = path.with_suffix(".part.npz")
        np.savez(part, value=value, accuracy=relative_errors(halves[0], value))
        os.replace(part, path)
    kept = np.load(path)
    return kept["value"], kept["accuracy"]


def shapley(task: Task, half: int) -> np.ndarray:
    """All coalitions, or the regression of KernelSHAP on pairs drawn by its weights."""
    if task.count <= EXACT:
        return _exact_shapley(task)
    M, rng = task.count, np.random.default_rng(100 + half)
    pairs = 2**21 if task.labels is None else 2**17 // task.effort
    size = min(pairs, 2**14)
    weight = np.array([1 / (k * (M - k)) for k in range(1, M)])
    games = [task.game(row) for row in range(len(task.x))]
    ends = np.array([game(np.array([np.zeros(M), np.ones(M)])) for game in games])
    gram, toward = np.zeros((M, M)), np.zeros((len(games), M))
    for _ in range(pairs // size):
        sizes = 1 + rng.choice(M - 1, size, p=weight / weight.sum())
        order = rng.random((size, M), dtype=np.float32).argsort(axis=1).argsort(axis=1)
        for z in ((order < sizes[:, None]).astype(np.float32), (order >= sizes[:, None]) * 1.0):
            gram += z.T @ z
            toward += [z.T @ (game(z) - end[0]) for game, end in zip(games, ends, strict=True)]
    inverse = np.linalg.inv(gram)
    free, gain = toward @ inverse, ends[:, 1] - ends[:, 0]
    off = (free.sum(axis=1) - gain) / inverse.sum()
    return task.placed(free - off[:, None] * inverse.sum(axis=1))


def _exact_shapley(task: Task) -> np.ndarray:
    z, M = _all(task), task.count
    without = np.arange(M)
    share = np.array([1 / (M * math.comb(M - 1, k)) for k in without])
    size = z.sum(axis=1).astype(int)
    there, absent = np.append(0, share)[size], np.append(share, 0)[size]
    weight = np.where(z == 1, there[:, None], -absent[:, None])
    return task.placed(np.array([task.game(row)(z) @ weight for row in range(len(task.x))]))


def lime(task: Task, half: int) -> np.ndarray:
    """The weighted ridge regression on coalitions drawn evenly."""
    count = 2**20 if task.labels is None else 2**18 // task.effort
    games, total = [task.game(row) for row in range(len(task.x))], 0
    gram, toward = np.zeros(2 * (task.count + 1,)), np.zeros((task.count + 1, len(games)))
    for z in _coalitions(task, half, count):
        w = np.exp(-(((1 - np.sqrt(z.mean(axis=1, dtype=float))) / WIDTH) ** 2) / 2)
        ones = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        weighted = (ones * w[:, None]).T
        gram += weighted @ ones
        toward += np.stack([weighted @ game(z) for game in games], axis=1)
        total += len(z)
    ridge = np.diag([*np.ones(task.count), 0]) * total * RIDGE
    return task.placed(np.linalg.solve(gram + ridge, toward)[:-1].T)


def rise(task: Task, half: int) -> np.ndarray:
    """The covariance of score and mask; of what is linear in the masks it is known."""
    if task.labels is not None:
        return _rise_of_pictures(task, half)
    found = []
    for z in _coalitions(task, half, 2**20):
        scores = np.stack([task.game(row)(z) for row in range(len(task.x))], axis=1)
        centred = (z - z.mean(axis=0)).astype(float)
        found.append(np.linalg.solve(centred.T @ centred, centred.T @ scores).T * (1 - KEEP))
    return np.mean(found, axis=0)


def _rise_of_pictures(task: Task, half: int) -> np.ndarray:
    side, rows = task.x.shape[1], len(task.x)
    points = qmc.Sobol((CELLS + 2) ** 2 + 2, seed=300 + half)
    size, total = 2**13 // task.effort, 2**17 // task.effort
    mean = _blocks(task.labels)
    sums: list[np.ndarray] = []
    for _ in range(total // size):
        drawn = points.random(size)
        cells = (drawn[:, :-2] < KEEP).reshape(size, CELLS + 2, CELLS + 2).astype(np.float32)
        down, across = (_tents(side, offset).astype(np.float32) for offset in drawn[:, -2:].T)
        masks = down @ cells @ across.transpose(0, 2, 1)
        scores = np.stack(
            [task.score(masks[..., None] * task.x[r], task.target[r]) for r in range(rows)]
        )
        m = masks.reshape(size, -1)
        f = (m @ mean).astype(float)
        new = [m.sum(axis=0), f.T @ f, f.T @ m, scores.sum(axis=1), scores @ f, scores @ m]
        sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
    m, ff, fm, s, sf, sm = (part / total for part in sums)
    f = m @ mean
    slopes = np.linalg.solve(ff - np.outer(f, f), (sf - np.outer(s, f)).T)
    residual = sm - np.outer(s, m) - slopes.T @ (fm - np.outer(f, m))
    linear = slopes.T @ _covariance(side, mean)
    return ((linear + residual) / KEEP).reshape(rows, side, side)


def _tents(side: int, offset: np.ndarray) -> np.ndarray:
    """How much each place of an axis has of each cell, `[n, side, CELLS + 2]`."""
    place = np.arange(side) * (CELLS / side) + offset[:, None]
    return np.maximum(0, 1 - abs(place[..., None] - np.arange(CELLS + 2)))


def _blocks(labels: np.ndarray) -> np.ndarray:
    """What a map is multiplied by for its means over patches, `[places, patches]`."""
    blocks = np.eye(labels.max() + 1, dtype=np.float32)[labels.reshape(-1)]
    return blocks / blocks.sum(axis=0)


def _covariance(side: int, mean: np.ndarray) -> np.ndarray:
    """That of the means over patches with each place, `[patches, places]`."""
    tents = _tents(side, (np.arange(4000) + 0.5) / 4000)
    along = np.tensordot(tents, tents, ([0, 2], [0, 2])) / len(tents)
    of_patches = mean.T.reshape(-1, side, side)
    both = along @ of_patches @ along
    return KEEP * (1 - KEEP) * both.reshape(len(of_patches), -1)


def _noisy(task: Task, half: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean gradient at noisy copies, and the mean of the squares."""
    rng, first, second = np.random.default_rng(400 + half), [], []
    count, size = (
        (2**18, 2**15) if task.labels is None else (2**15 // task.effort, 2**10 // task.effort)
    )
    for x, target in zip(task.x, task.target, strict=True):
        found = np.zeros((2, *x.shape))
        for _ in range(count // size):
            noise = rng.standard_normal((size // 2, *x.shape), np.float32) * NOISE * np.ptp(x)
            both = task.gradient(np.concatenate([x + noise, x - noise]), target)
            found += [both.sum(axis=0) / count, (both**2).sum(axis=0) / count]
        first.append(found[0])
        second.append(found[1])
    return np.array(first), np.array(second)


def vargrad(task: Task, half: int) -> np.ndarray:
    """The variance."""
    first, second = _noisy(task, half)
    return second - first**2


def gradient_shap(task: Task, half: int) -> np.ndarray:
    """The mean over all rows of the background, and 512 points on the way to each."""
    found = []
    for x, target in zip(task.x, task.target, strict=True):
        way = (np.arange(512) + 0.25 + 0.5 * half) / 512
        way = way.reshape(-1, *(1 for _ in x.shape))
        along = [task.gradient(b + way * (x - b), target).mean(axis=0) * (x - b)
                 for b in task.background]  # fmt: skip
        found.append(np.mean(along, axis=0))
    return np.array(found)


def sobol(task: Task, half: int) -> np.ndarray:
    """Jansen's estimate of the total indices."""
    M, found = task.count, []
    count = 2**15 if task.labels is None else 2**12 // task.effort
    a, b = np.split(qmc.Sobol(2 * M, seed=500 + half).random(count), 2, axis=1)
    for row in range(len(task.x)):
        game = task.game(row)
        at_a, at_b = game(a), game(b)
        swapped = [game(np.where(np.arange(M) == i, b, a)) for i in range(M)]
        variance = np.var([at_a, at_b])
        found.append([np.mean((s - at_a) ** 2) / (2 * variance) for s in swapped])
    return task.placed(np.array(found))


def hsic(task: Task, half: int) -> np.ndarray:
    """The independence criterion, less what chance alone adds to it."""
    (z,) = _coalitions(task, half, 2**13)
    n, found = len(z), []
    for row in range(len(task.x)):
        scores = task.game(row)(z).astype(np.float32)
        apart = (scores[:, None] - scores) ** 2
        kernel = np.exp(-apart / (2 * np.median(apart[np.triu_indices(n, 1)])))
        signs = (z - z.mean(axis=0)).astype(np.float32)
        traces = 2 * (signs * (kernel @ signs)).sum(axis=0, dtype=float) / n**2
        chance = 0 if task.count <= EXACT else (1 - kernel.mean(dtype=float)) / (2 * n)
        found.append(traces - chance)
    return task.placed(np.array(found))


TRUTHS: dict[str, Callable[[Task, int], np.ndarray]] = {
    **{"shapley": shapley, "lime": lime, "rise": rise, "gradient_shap": gradient_shap},
    "smoothgrad": lambda task, half: _noisy(task, half)[0],
    "squaregrad": lambda task, half: _noisy(task, half)[1],
    **{"vargrad": vargrad, "sobol": sobol, "hsic": hsic},
}


def _all(task: Task) -> np.ndarray:
    """Every coalition, `[2^M, M]`."""
    numbers = np.arange(2**task.count)[:, None]
    return (numbers >> np.arange(task.count) & 1).astype(np.float32)


def _coalitions(task: Task, half: int, count: int) -> Iterator[np.ndarray]:
    """Coalitions drawn evenly, in parts; all, where they are few."""
    if task.count <= EXACT:
        yield _all(task)
        return
    points, size = qmc.Sobol(task.count, seed=200 + half), min(count, 2**13)
    for _ in range(count // size):
        yield (points.random(size) < 0.5).astype(np.float32)
