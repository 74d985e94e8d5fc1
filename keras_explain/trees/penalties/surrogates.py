"""A small network that predicts the path length: what the penalties by a surrogate share."""

from __future__ import annotations

import abc
import functools
import threading
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_explain import backend
from keras_explain.core import checks
from keras_explain.trees.penalties.base import Floats, Network, Penalty, Sizes, Step

Tensor = Any
Arrays = dict[str, npt.NDArray[Any]]

UNITS = 25  # of the hidden layer, as in the paper
FIRST_FIT = 5  # refits before it
STEPS = 300  # of Adam, at each fit
LEARNING_RATE = 0.01
NOISE = (0.05, 1.0)  # the least and the most, in standard deviations of a tensor

_STREAMS = 4  # of random numbers at each fit
_FITTING = threading.Lock()  # the networks that `_regressor` keeps are shared


class Surrogate(Penalty):
    """The path length as a small network, the surrogate, predicts it.

    A measured path length has no gradient. It is learned from pairs (v, path lengths), where v is
    what a subclass looks at, by a network of one hidden layer with a positive output,

        Omega(v) = scale * softplus(tanh(v kernel + bias) out + shift),

    one output for each region. Pairs come from the latest refits, and from *augmentation* at each
    fit of the surrogate: other weights, which the model is given for a moment to measure its path
    lengths. The surrogate is fitted for the first time at the fifth refit; until then Omega is 0.

    The logs have its honest fit, on weights that came after it was fitted: `surrogate_r2`, and
    `surrogate_rank_correlation` (Spearman's). Both are NaN until there are three, and where all
    their path lengths are the same.

    Args:
        fit_every: How many refits lie between two fits of the surrogate.
        kept: From how many of the latest refits it learns, and is judged.
        augmented_kept: From how many of the latest augmented weights it learns.
        noisy: How many of these are made at a fit by noise around the weights of now.
        restarts: How many are made by permuting the entries of each weight tensor, which for
            weights drawn independently of each other is a fresh draw.
        weight_decay: What the squared kernels of the surrogate are multiplied by in its loss.
        seed: Seed of what is drawn.
    """

    fit_every: int = 25
    kept: int = 50
    augmented_kept: int = 240
    noisy: int = 40
    restarts: int = 20
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("fit_every", self.fit_every)
        checks.count("kept", self.kept, least=3)
        checks.count("augmented_kept", self.augmented_kept)
        checks.count("noisy", self.noisy, least=0)
        checks.count("restarts", self.restarts, least=0)
        checks.share("weight_decay", self.weight_decay)

    # What a subclass says

    @abc.abstractmethod
    def size(self, sizes: Sizes) -> int:
        """How many numbers the surrogate looks at."""

    @abc.abstractmethod
    def seen(self, weights: Floats, outputs: Floats) -> Floats:
        """What it looks at `[size]`, of a model's weights and its probabilities for the probe."""

    @abc.abstractmethod
    def seen_in(self, step: Step) -> Tensor:
        """The same in the graph."""

    def augmented(self, network: Network, recent: Floats, stream: int) -> Floats:
        """Weights to measure besides those of the refits, `[n, weights]`.

        Args:
            network: The model.
            recent: What was seen at the latest refits, `[k, size]`.
            stream: The first of the streams of random numbers that are free.
        """
        weights, ends, seed = network.weights(), network.ends, self.seed
        noisy = noisy_weights(weights, ends, self.noisy, seed, stream)
        return np.concatenate([noisy, permuted(weights, ends, self.restarts, seed, stream + 2)])

    # The protocol of a penalty

    def state(self, sizes: Sizes) -> Arrays:
        size, regions = self.size(sizes), sizes.regions
        shapes = {
            "seen": (self.kept, size),
            "lengths": (self.kept, regions),
            "predicted": (self.kept, regions),
            "augmented": (self.augmented_kept, size),
            "augmented_lengths": (self.augmented_kept, regions),
            "kernel": (size, UNITS),
            "bias": (UNITS,),
            "out": (UNITS, regions),
            "shift": (regions,),
            "scale": (regions,),  # 0 until the first fit
        }
        arrays: Arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        arrays["predicted"][:] = np.nan
        counts = ("refits", "augmentations")
        return arrays | {name: np.zeros((), np.int32) for name in counts}

    def refit(self, network: Network, state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        outputs = network.outputs() if self.probe_rows else np.zeros(0, np.float32)
        now = self.seen(network.weights(), outputs)
        predicted = np.full(network.sizes.regions, np.nan, np.float32)
        if state["scale"].any():
            predicted = backend.to_numpy(omega(state, now))
        lengths = [tree.average_path_length for tree in network.trees()]
        rings = {"seen": now[None], "lengths": [lengths], "predicted": predicted[None]}
        new = _pushed(state, rings, "refits")
        refits = int(new["refits"])
        if refits != FIRST_FIT and refits % self.fit_every:
            return new
        new |= self._augment(network, dict(state) | new)
        return new | self._fitted(dict(state) | new)

    def _augment(self, network: Network, state: Arrays) -> Arrays:
        """The ring of augmented weights, with those of now."""
        recent = _filled(state["seen"], state["refits"])
        weights = self.augmented(network, recent, _STREAMS * int(state["refits"]))
        if not len(weights):
            return {}
        found = [(vector, *network.at(vector)) for vector in weights]
        rings = {
            "augmented": [self.seen(vector, outputs) for vector, outputs, _ in found],
            "augmented_lengths": [lengths for *_, lengths in found],
        }
        return _pushed(state, rings, "augmentations")

    def _fitted(self, state: Arrays) -> Arrays:
        """The arrays of the surrogate, fitted to all pairs."""
        refits, made = state["refits"], state["augmentations"]
        v, lengths = _filled(state["seen"], refits), _filled(state["lengths"], refits)
        if made:
            v = np.concatenate([v, _filled(state["augmented"], made)])
            lengths = np.concatenate([lengths, _filled(state["augmented_lengths"], made)])
        rows = self.kept + self.augmented_kept  # of one number, so that nothing is traced again
        v, lengths = (np.resize(a, (rows, a.shape[1])) for a in (v, lengths))
        return fit(v, lengths, self.weight_decay, self.seed)

    def penalty(self, state: Mapping[str, Tensor], step: Step) -> Tensor:
        return omega(state, self.seen_in(step))

    def scalars(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        known = np.isfinite(state["predicted"]).all(axis=1)
        return honest_fit(state["predicted"][known], state["lengths"][known])


def omega(state: Mapping[str, Tensor], v: Tensor) -> Tensor:
    """What the surrogate predicts for a vector `[size]`: a path length per region, `[R]`."""
    hidden = ops.tanh(ops.matmul(v[None], state["kernel"]) + state["bias"])
    return state["scale"] * ops.softplus(ops.matmul(hidden, state["out"]) + state["shift"])[0]


# Rings


def _pushed(state: Mapping[str, npt.NDArray[Any]], rows: dict[str, Any], count: str) -> Arrays:
    """Rings with further rows in place of the oldest, and the count of all rows so far."""
    before, new = int(state[count]), {name: state[name].copy() for name in rows}
    for name, added in rows.items():
        places = (before + np.arange(len(added))) % len(new[name])
        new[name][places[-len(new[name]) :]] = added[-len(new[name]) :]
    return new | {count: np.asarray(before + len(added), np.int32)}


def _filled(ring: npt.NDArray[Any], count: Any) -> npt.NDArray[Any]:
    return ring[: int(count)]


# Augmentation


def noisy_weights(weights: Floats, ends: list[int], count: int, seed: int, stream: int) -> Floats:
    """Weights plus noise in proportion to each tensor's standard deviation, `[count, weights]`.

    The proportion is drawn for each, on a logarithmic scale.
    """
    tensors = np.split(weights, ends)
    spread = np.concatenate([np.full(tensor.size, tensor.std()) for tensor in tensors])
    low, high = np.log(NOISE)
    level = np.exp(low + (high - low) * backend.random_uniform(seed, (count, 1), stream))
    noise = backend.random_uniform(seed, (count, weights.size), stream + 1) - 0.5
    return (weights + np.sqrt(12) * level * spread * noise).astype(np.float32)


def permuted(weights: Floats, ends: list[int], count: int, seed: int, stream: int) -> Floats:
    """Weights whose entries change places within each tensor, `[count, weights]`."""
    keys = backend.random_uniform(seed, (count, weights.size), stream)
    orders = [np.argsort(part, axis=1) for part in np.split(keys, ends, axis=1)]
    tensors = np.split(weights, ends)
    return np.concatenate([t[order] for t, order in zip(tensors, orders, strict=True)], axis=1)


def mixtures(recent: Floats, count: int, seed: int, stream: int) -> Floats:
    """Means of weights `[k, weights]` by shares drawn from Dirichlet(1), `[count, weights]`."""
    drawn = -np.log1p(-backend.random_uniform(seed, (count, len(recent)), stream))
    shares = drawn / np.maximum(drawn.sum(axis=1, keepdims=True), 1e-12)
    return (shares @ recent).astype(np.float32)


# The fit


def fit(v: Floats, lengths: Floats, weight_decay: float, seed: int) -> Arrays:
    """The surrogate of least squares for pairs, with weight decay, by Adam.

    Rows span no more dimensions than there are of them, and a kernel with weight decay lies in
    their span: the network is fitted to their coordinates there, then written for `v` itself.

    Args:
        v: What is seen, `[n, size]`.
        lengths: Path lengths, `[n, R]`.
        weight_decay: What squared kernels are multiplied by in the loss.
        seed: Draws the first weights.

    Returns:
        `kernel` `[size, UNITS]`, `bias` `[UNITS]`, `out` `[UNITS, R]`, `shift` `[R]` and `scale`
        `[R]`.
    """
    centre, scale = v.mean(axis=0), np.maximum(lengths.mean(axis=0), 1e-3)
    across, triangle = np.linalg.qr((v - centre).T)
    left, spread, axes = np.linalg.svd(triangle.T, full_matrices=False)
    unit = max(float(np.sqrt(np.mean(np.square(spread)) / len(v))), 1e-12)
    strategy = keras.Sequential(name="surrogate").distribute_strategy
    with _FITTING:
        model, start = _regressor(len(spread), lengths.shape[1], weight_decay, seed, strategy)
        for variable, value in zip(_variables(model), start, strict=True):
            variable.assign(value)
        for _ in range(STEPS):
            model.train_on_batch(left * spread / unit, lengths / scale)
        kernel, bias, out, shift = model.get_weights()
    kernel = across @ axes.T @ kernel / unit
    new = {"kernel": kernel, "bias": bias - centre @ kernel, "out": out, "shift": shift}
    return {name: array.astype(np.float32) for name, array in (new | {"scale": scale}).items()}


@functools.lru_cache(maxsize=4)
def _regressor(
    inputs: int, outputs: int, weight_decay: float, seed: int, strategy: Any
) -> tuple[keras.Model, list[npt.NDArray[Any]]]:
    """A network to be fitted, and what its variables begin with; compiled once per strategy.

    Variables that were made under one strategy can't be trained under another.
    """
    layers = [
        keras.layers.Dense(
            units,
            activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed + i),
            kernel_regularizer=keras.regularizers.L2(weight_decay),
            dtype="float32",
            name=f"surrogate_{i}",
        )
        for i, (units, activation) in enumerate([(UNITS, "tanh"), (outputs, "softplus")])
    ]
    model = keras.Sequential([keras.Input((inputs,)), *layers], name="surrogate")
    adam = keras.optimizers.Adam(LEARNING_RATE, name="surrogate_adam")
    model.compile(adam, "mean_squared_error", jit_compile=False)
    adam.build(model.trainable_variables)
    return model, [backend.to_numpy(variable) for variable in _variables(model)]


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def honest_fit(predicted: Floats, lengths: Floats) -> dict[str, float]:
    """Rank correlation and R^2 of predictions `[n, R]`, the mean over regions.

    A region whose path lengths, or for the correlation predictions, are all the same doesn't count.
    """
    from scipy.stats import spearmanr

    ranks, shares = [], []
    for guess, true in zip(predicted.T, lengths.T, strict=True):
        if len(true) < 3 or not np.ptp(true):
            continue
        shares.append(1 - np.mean(np.square(guess - true)) / np.var(true))
        if np.ptp(guess):
            ranks.append(spearmanr(guess, true).statistic)
    return {
        "surrogate_rank_correlation": float(np.mean(ranks)) if ranks else float("nan"),
        "surrogate_r2": float(np.mean(shares)) if shares else float("nan"),
    }
