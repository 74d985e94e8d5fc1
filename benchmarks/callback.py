"""What the callback adds to an epoch of Fashion-MNIST size."""

import statistics
import tempfile
import time

import keras
import numpy as np

import keras_explain as kx
from benchmarks.subjects import fashion_sized


def epochs(rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch `"without"` and `"with"` the callback, in turn, and of its `"start"`.

    Each is the second of two epochs, so the time that the first one's events take to be written
    in the background counts.
    """
    model, x, y = fashion_sized()
    times: dict[str, list[float]] = {"without": [], "with": [], "start": []}
    with tempfile.TemporaryDirectory() as logs:
        for _ in range(rounds):
            times["without"].append(_fit(model, x, y).epoch)
            clock = _fit(model, x, y, _logger(x, y, logs))
            times["with"].append(clock.epoch)
            times["start"].append(clock.start)
    return times


def behind(rounds: int) -> list[float]:
    """Seconds from the end of an explained step until all of it is on disk."""
    model, x, y = fashion_sized()
    times = []
    with tempfile.TemporaryDirectory() as logs:
        logger = _logger(x, y, logs)
        logger.set_model(model)
        logger.on_train_begin()
        for step in range(rounds):
            logger.on_epoch_end(step)
            begin = time.perf_counter()
            logger.sinks[0].close()  # which waits
            times.append(time.perf_counter() - begin)
    return times


def added(times: dict[str, list[float]]) -> float:
    """The share that the callback adds to an epoch, by medians."""
    return statistics.median(times["with"]) / statistics.median(times["without"]) - 1


class _Clock(keras.callbacks.Callback):
    """The moments at which training begins and epochs end, after what other callbacks did."""

    def __init__(self) -> None:
        super().__init__()
        self.created = time.perf_counter()
        self.begun = 0.0
        self.ends: list[float] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.ends.append(time.perf_counter())

    @property
    def epoch(self) -> float:
        return self.ends[1] - self.ends[0]

    @property
    def start(self) -> float:
        return self.begun - self.created


def _fit(
    model: keras.Model, x: np.ndarray, y: np.ndarray, *callbacks: keras.callbacks.Callback
) -> _Clock:
    clock = _Clock()
    model.fit(x, y, batch_size=128, epochs=2, callbacks=[*callbacks, clock], verbose=0)
    return clock


def _logger(x: np.ndarray, y: np.ndarray, logs: str) -> kx.callbacks.ExplanationLogger:
    explainers = [
        kx.GradCAM(),
        kx.IntegratedGradients(steps=32),
        kx.GradientSHAP(background=x[:100], samples=32),
    ]
    return kx.callbacks.ExplanationLogger(explainers, x[:8], y[:8], log_dir=logs)
