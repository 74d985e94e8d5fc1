"""The networks and the data that are timed."""

import keras
import numpy as np
from sklearn.datasets import load_digits

L = keras.layers


def mobilenet(batch: int = 8) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """MobileNetV2 at 224 x 224 with random weights and logits as output, pictures, targets.

    Its BatchNormalization statistics are set to those of the pictures: with untouched ones the
    logits of all pictures agree to many digits, and no completeness gap means anything.
    """
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    x = _digit_pictures(batch, 224) * 2 - 1
    layers = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
    model(x, training=True)
    return model, x, np.arange(batch)


def small_cnn(batch: int = 64) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A small CNN at 32 x 32, trained for a moment on handwritten digits."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    h = L.Conv2D(32, 3, activation="relu")(inputs)
    h = L.Conv2D(32, 3, activation="relu")(h)
    h = L.MaxPooling2D()(h)
    h = L.Conv2D(64, 3, activation="relu")(h)
    h = L.Dense(64, activation="relu")(L.Flatten()(h))
    model = keras.Model(inputs, L.Dense(10)(h))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = _digit_pictures(1000, 32), load_digits().target[:1000]
    model.fit(x, y, epochs=3, batch_size=64, verbose=0)
    return model, x[:batch], y[:batch]


SUBJECTS = {"MobileNetV2, 224 x 224, batch 8": mobilenet, "small CNN, 32 x 32, batch 64": small_cnn}


def fashion_sized() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """60,000 pictures of 28 x 28 as in Fashion-MNIST, and an untrained CNN for them."""
    keras.utils.set_random_seed(0)
    digits = _digit_pictures(1797, 28)[..., :1]
    rng = np.random.default_rng(0)
    row = rng.integers(len(digits), size=60_000)
    x = digits[row] + rng.normal(0, 0.1, (60_000, 28, 28, 1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(32, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(64, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(128, activation="relu"),
            L.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, x, load_digits().target[row]


def _digit_pictures(count: int, size: int) -> np.ndarray:
    digits = load_digits().images[:count, ..., None].astype("float32") / 16
    pictures = keras.ops.image.resize(digits, (size, size), interpolation="bilinear")
    return np.repeat(np.asarray(pictures), 3, axis=-1)
