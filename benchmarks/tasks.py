"""Networks with a truth for every method that samples: what `equal_error` measures on.

The tables and pictures come from files that environment variables name, or without them from
scikit-learn: `ADULT` (UCI's `adult.data`), `FASHION` (an .npz file of pictures `x` and labels `y`),
and `MOBILENET` and `PHOTO` (weights of MobileNetV2 with 1001 classes, and a picture).
Networks and truths are kept in the folder that `EQUAL_ERROR` names.
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_explain as kx

L = keras.layers
ROWS = 6


def folder() -> Path:
    """Where networks, truths and measurements are kept."""
    found = Path(os.environ.get("EQUAL_ERROR", Path(tempfile.gettempdir()) / "equal_error"))
    found.mkdir(parents=True, exist_ok=True)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network, rows that are explained, and what hides their features: 0.

    Args:
        source: Where the rows are from.
        target: The output of each row.
        background: Other rows.
        labels: Which feature a pixel is of, `[H, W]`; None for a table.
        effort: A divisor of how long the long runs are, for a network that takes its time.
    """

    name: str
    source: str
    model: keras.Model
    x: np.ndarray
    target: np.ndarray
    background: np.ndarray
    labels: np.ndarray | None = None
    effort: int = 1

    @property
    def count(self) -> int:
        """The number of features."""
        return self.x.shape[1] if self.labels is None else int(self.labels.max()) + 1

    @property
    def hidden(self) -> dict[str, Any]:
        """Options of the methods that hide features."""
        if self.labels is None:
            return {}
        return {"features": kx.features.Patches(len(self.labels) // 7)}

    @functools.cached_property
    def _compiled(self) -> Callable:
        spec = tf.TensorSpec([None, *self.x.shape[1:]], tf.float32)

        @tf.function(autograph=False, input_signature=[spec, tf.TensorSpec([], tf.int32)])
        def score(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            return tf.gather(self.model(x, training=False), target, axis=1)

        return score

    @functools.cached_property
    def gradient(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """The gradients of some points for an output, float64."""
        spec = tf.TensorSpec([None, *self.x.shape[1:]], tf.float32)

        @tf.function(autograph=False, input_signature=[spec, tf.TensorSpec([], tf.int32)])
        def gradient(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(x)
                score = tf.gather(self.model(x, training=False), target, axis=1)
            return tape.gradient(score, x)

        return lambda x, target: self._in_parts(gradient, x, target)

    def score(self, x: np.ndarray, target: int) -> np.ndarray:
        """The scores of some points, float64."""
        return self._in_parts(self._compiled, x, target)

    def _in_parts(self, function: Callable, x: np.ndarray, target: int) -> np.ndarray:
        size = max(16, 2**22 // int(np.prod(x.shape[1:])))
        parts = (tf.constant(x[i : i + size], tf.float32) for i in range(0, len(x), size))
        return np.concatenate([np.asarray(function(part, int(target)), float) for part in parts])

    def game(self, row: int) -> Callable[[np.ndarray], np.ndarray]:
        """The score of a row by which features are present, of `[n, count]`."""

        def score(present: np.ndarray) -> np.ndarray:
            size = 2**12 // self.effort
            parts = (present[i : i + size] for i in range(0, len(present), size))
            return np.concatenate(
                [self.score(self.spread(part) * self.x[row], self.target[row]) for part in parts]
            )

        return score

    def spread(self, present: np.ndarray) -> np.ndarray:
        """Of features `[n, count]`, at each value of a row."""
        present = np.asarray(present, np.float32)
        return present if self.labels is None else present[:, self.labels][..., None]

    def placed(self, values: np.ndarray) -> np.ndarray:
        """Values of features `[n, count]`, as explanations have them."""
        return values if self.labels is None else np.asarray(values)[:, self.labels]


def relative_errors(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The L2 norm of what values are off, as a share of the truth's, of each row."""
    off = (np.asarray(values, float) - truth).reshape(len(truth), -1)
    return np.linalg.norm(off, axis=1) / np.linalg.norm(truth.reshape(len(truth), -1), axis=1)


def cancer() -> Task:
    """An MLP on 30 columns, standardised."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = _standardised(x, len(x))[order]
    model = _trained("cancer", _mlp, x[:400], y[order][:400], 15)
    return Task("cancer", "scikit-learn", model, x[400 : 400 + ROWS], np.zeros(ROWS, int), x[:50])


def adult() -> Task:
    """An MLP on 12 columns, standardised."""
    x, y, source = _adult() if "ADULT" in os.environ else _made()
    x = _standardised(x, 10_000)
    name = "adult" if "ADULT" in os.environ else "made-table"
    model = _trained(name, _mlp, x[:10_000], y[:10_000], 10)
    rows = x[10_000 : 10_000 + ROWS]
    return Task(name, source, model, rows, np.zeros(ROWS, int), x[:50])


def cnn() -> Task:
    """A CNN on pictures of 28 x 28, 49 patches of 4 x 4."""
    name = "fashion" if "FASHION" in os.environ else "digits"
    x, y, source = _fashion() if "FASHION" in os.environ else _digits()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order].astype(int)
    model = _trained(name, _cnn, x[:800], y[:800], 30)
    rows = x[800:804]
    target = np.asarray(model(rows)).argmax(axis=1)
    return Task(name, source, model, rows, target, x[:20], _patches(28))


def photo() -> Task:
    """MobileNetV2, its logits, on a photo of 224 x 224, 49 patches of 32 x 32."""
    options = {"classes": 1001, "classifier_activation": None}
    model = keras.applications.MobileNetV2(weights=None, **options)
    model.load_weights(os.environ["MOBILENET"])
    loaded = keras.utils.load_img(os.environ["PHOTO"], target_size=(224, 224))
    x = np.asarray(loaded, "float32")[None] / 127.5 - 1
    target = np.asarray(model(x)).argmax(axis=1)
    name = Path(os.environ["PHOTO"]).name
    return Task(f"photo-{name}", name, model, x, target, 0 * x, _patches(224), effort=64)


def tasks() -> dict[str, Callable[[], Task]]:
    """Those whose data are there."""
    found: dict[str, Callable[[], Task]] = {"cancer": cancer, "adult": adult, "cnn": cnn}
    if "MOBILENET" in os.environ and "PHOTO" in os.environ:
        found["photo"] = photo
    return found


# The data


def _adult() -> tuple[np.ndarray, np.ndarray, str]:
    from sklearn.preprocessing import OrdinalEncoder

    rows = np.loadtxt(os.environ["ADULT"], str, delimiter=",", max_rows=12_000)
    rows = np.char.strip(rows)
    words = OrdinalEncoder().fit_transform(rows[:, [1, 5, 6, 7, 8, 9, 13]])
    x = np.concatenate([rows[:, [0, 4, 10, 11, 12]].astype(float), words], axis=1)
    return x, np.char.startswith(rows[:, 14], ">").astype(int), "Adult"


def _made() -> tuple[np.ndarray, np.ndarray, str]:
    from sklearn.datasets import make_classification

    made = make_classification(12_000, 12, n_informative=8, n_clusters_per_class=4, random_state=0)
    return *made, "a made table"


def _fashion() -> tuple[np.ndarray, np.ndarray, str]:
    data = np.load(os.environ["FASHION"])
    return (data["x"][..., None] / 255).astype("float32"), data["y"], "Fashion-MNIST"


def _digits() -> tuple[np.ndarray, np.ndarray, str]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x = tf.image.resize(data.images[..., None] / 16, (28, 28)).numpy()
    return x, data.target, "scikit-learn's digits"


def _standardised(x: np.ndarray, rows: int) -> np.ndarray:
    return ((x - x[:rows].mean(axis=0)) / x[:rows].std(axis=0)).astype("float32")


def _patches(side: int) -> np.ndarray:
    at = np.arange(side) // (side // 7)
    return at[:, None] * 7 + at


# The networks


def _mlp(x: np.ndarray) -> list:
    return [L.Dense(64, "relu"), L.Dense(32, "relu"), L.Dense(1)]


def _cnn(x: np.ndarray) -> list:
    convolutions = [L.Conv2D(16, 3, activation="relu"), L.MaxPooling2D()]
    convolutions += [L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D()]
    return [*convolutions, L.Flatten(), L.Dense(64, "relu"), L.Dense(10)]


def _trained(name: str, make: Callable, x: np.ndarray, y: np.ndarray, epochs: int) -> keras.Model:
    """A network, trained once."""
    path = folder() / f"{name}.keras"
    if not path.exists():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input(x.shape[1:]), *make(x)])
        binary = model.output_shape[-1] == 1
        losses = keras.losses
        loss = losses.BinaryCrossentropy if binary else losses.SparseCategoricalCrossentropy
        model.compile("adam", loss(from_logits=True))
        model.fit(x, y, epochs=epochs, verbose=0)
        model.save(path)
    return keras.models.load_model(path, compile=False)
