"""A small network that predicts the path length: what penalties by a surrogate share."""

from __future__ import annotations

import abc
import functools
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
STEPS = 300  # of Adam, at each fit
LEARNING_RATE = 0.01
NOISE = (0.05, 1.0)  # the smallest and the largest, in standard deviations of a weight tensor


class Surrogate(Penalty):
    """The path length as a small network predicts it, from something that changes with the weights.

    The measured path length has no gradient: it is learned from pairs (v, path lengths), where v is
    what a subclass looks at. With one hidden layer and the positive output of a softplus,

        Omega = scale * softplus(tanh(v kernel + bias) out + shift),    `[R]`,

    one output for each region. Pairs come from the latest refits, and, made at each fit of the
    surrogate, from *augmentation*: other weights, which the model is given for a moment to measure
    their path length. Omega is 0 until the first fit.

    Args:
        fit_every: How many refits lie between two fits of the surrogate.
        kept: How many of the latest refits it learns from.
        noisy: How many weights are made at each fit by noise around the weights of now.
        restarts: How many are made by permuting the entries of each weight tensor, which for
            weights drawn independently of each other is a fresh draw.
        weight_decay: The weight of the squared kernels of the surrogate in its fit.
        seed: Seed of what is drawn.
    """

    fit_every: int = 25
    kept: int = 50
    noisy: int = 60
    restarts: int = 30
    weight_decay: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("fit_every", self.fit_every)
        checks.count("kept", self.kept, least=3)
        checks.count("noisy", self.noisy, least=0)
        checks.count("restarts", self.restarts, least=0)
        checks.share("weight_decay", self.weight_decay)

    @abc.abstractmethod
    def size(self, sizes: Sizes) -> int:
        """How long the vector is that the surrogate looks at."""

    @abc.abstractmethod
    def seen(self, weights: Floats, outputs: Floats) -> Floats:
        """What it looks at: a model's weights, or its probabilities for the probe rows."""

    @abc.abstractmethod
    def seen_in(self, step: Step) -> Tensor:
        """The same in the graph."""

    def augmented(self, network: Network, recent: Floats, stream: int) -> Floats:
        """Weights to measure besides those of the refits, `[n, weights]`.

        Args:
            network: The model.
            recent: What was looked at in the latest refits, `[k, size]`.
            stream: Of random numbers.
        """
        return np.concatenate(
            [
                _noisy(network.weights(), network.ends, self.noisy, self.seed, stream),
                _permuted(network.weights(), network.ends, self.restarts, self.seed, stream),
            ]
        )

    # State

    def state(self, sizes: Sizes) -> Arrays:
        size, regions = self.size(sizes), sizes.regions
        shapes = {
            "seen": (self.kept, size),
            "lengths": (self.kept, regions),
            "predicted": (self.kept, regions),
            "kernel": (size, UNITS),
            "bias": (UNITS,),
            "out": (UNITS, regions),
            "shift": (regions,),
            "scale": (regions,),
        }
        arrays: Arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        arrays["predicted"][:] = np.nan
        return arrays | {"count": np.zeros((), np.int32)}

    def refit(self, network: Network, state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        count = int(state["count"])
        outputs = network.outputs() if self.probe_rows else np.zeros(0, np.float32)
        now = self.seen(network.weights(), outputs)
        new = {name: state[name].copy() for name in ("seen", "lengths", "predicted")}
        new["seen"][count % self.kept] = now
        new["lengths"][count % self.kept] = [t.average_path_length for t in network.trees()]
        new["predicted"][count % self.kept] = (
            backend.to_numpy(_predicted(state, now)) if state["scale"].any() else np.nan
        )
        new["count"] = np.asarray(count + 1, np.int32)
        due = (count + 1) % self.fit_every == 0
        return new | (self._fitted(network, new) if due else {})

    def _fitted(self, network: Network, state: Arrays) -> Arrays:
        count = int(state["count"])
        order = np.arange(max(count - self.kept, 0), count) % self.kept
        seen, lengths = state["seen"][order], state["lengths"][order]
        made = self.augmented(network, seen, count)
        found = [network.at(weights) for weights in made]
        pairs = [(self.seen(w, outputs), y) for w, (outputs, y) in zip(made, found, strict=True)]
        x = np.concatenate([np.resize(seen, state["seen"].shape), *[v[None] for v, _ in pairs]])
        y = np.concatenate(
            [np.resize(lengths, state["lengths"].shape), *[p[None] for _, p in pairs]]
        )
        return fit(x, y, self.weight_decay, self.seed)

    def penalty(self, state: Mapping[str, Tensor], step: Step) -> Tensor:
        return _predicted(state, self.seen_in(step))

    def scalars(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        known = np.isfinite(state["predicted"]).all(axis=1)
        return honest_fit(state["predicted"][known], state["lengths"][known])


def _predicted(state: Mapping[str, Tensor], v: Tensor) -> Tensor:
    hidden = ops.tanh(ops.matmul(v[None], state["kernel"]) + state["bias"])
    return state["scale"] * ops.softplus(ops.matmul(hidden, state["out"]) + state["shift"])[0]


def fit(x: Floats, y: Floats, weight_decay: float, seed: int) -> Arrays:
    """Least squares. Rows span a space of fewer dimensions than they have columns..."""
    centre, scale = x.mean(axis=0), np.maximum(y.mean(axis=0), 1e-3)
    _, strength, axes = np.linalg.svd(x - centre, full_matrices=False)
    axes = axes.T / max(np.sqrt(np.mean(np.square(strength)) / len(x)), 1e-12)
    model, weights, slots = _regressor(axes.shape[1], y.shape[1], weight_decay, seed)
    model.set_weights(weights)
    model.optimizer.set_weights(slots) if False else [
        v.assign(s) for v, s in zip(model.optimizer.variables, slots)
    ]
    points = (x - centre) @ axes
    for _ in range(STEPS):
        model.train_on_batch(points, y / scale)
    kernel, bias, out, shift = model.get_weights()
    kernel = axes @ kernel
    return {
        "kernel": kernel,
        "bias": bias - centre @ kernel,
        "out": out,
        "shift": shift,
        "scale": scale,
    }


@functools.lru_cache(maxsize=4)
def _regressor(inputs: int, outputs: int, weight_decay: float, seed: int) -> Any:
    def dense(units: int, activation: str) -> Any:
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed + units),
            kernel_regularizer=keras.regularizers.L2(weight_decay),
            dtype="float32",
        )

    model = keras.Sequential(
        [keras.Input((inputs,), dtype="float32"), dense(UNITS, "tanh"), dense(outputs, "softplus")]
    )
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    slots = [backend.to_numpy(v) for v in model.optimizer.variables]
    return model, model.get_weights(), slots


def honest_fit(predicted: Floats, true: Floats) -> dict[str, float]:
    from scipy.stats import spearmanr

    ranks, shares = [np.nan], [np.nan]
    for p, t in zip(predicted.T, true.T, strict=True):
        if len(t) > 2 and np.ptp(t) > 0:
            shares.append(1 - np.mean(np.square(p - t)) / np.var(t))
            if np.ptp(p) > 0:
                ranks.append(float(spearmanr(p, t).statistic))
    return {
        "surrogate_rank_correlation": float(np.nanmean(ranks)) if len(ranks) > 1 else np.nan,
        "surrogate_r2": float(np.nanmean(shares)) if len(shares) > 1 else np.nan,
    }


def _noisy(weights: Floats, parts, count: int, seed: int, stream: int) -> Floats:
    spread = np.concatenate([np.full(part.size, part.std()) for part in np.split(weights, parts)])
    low, high = np.log(NOISE)
    level = np.exp(low + (high - low) * backend.random_uniform(seed, (count, 1), 3 * stream))
    noise = backend.random_uniform(seed, (count, weights.size), 3 * stream + 1) - 0.5
    return (weights + np.sqrt(12) * level * spread * noise).astype(np.float32)


def _permuted(weights: Floats, parts, count: int, seed: int, stream: int) -> Floats:
    out = np.empty((count, weights.size), np.float32)
    for i in range(count):
        order = backend.random_permutation(seed, weights.size, (stream * 1000 + i) * 3 + 2)
        begin = 0
        for part in np.split(np.arange(weights.size), parts):
            o = order[(order >= part[0]) & (order <= part[-1])]
            out[i, part] = weights[o]
    return out
