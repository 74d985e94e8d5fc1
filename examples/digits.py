"""Train a small network on handwritten digits, and watch why it decides as it does.

The digits are those that scikit-learn ships, so nothing is downloaded. Writes TensorBoard logs and
one picture of all epochs:

    python examples/digits.py --out demo
    tensorboard --logdir demo/logs --samples_per_plugin images=1000
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes on the machine

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_explain as kx

L = keras.layers


def data() -> list[np.ndarray]:
    """Pictures `[N, 16, 16, 1]` in [0, 1] and labels, for training and for testing."""
    digits = load_digits()
    x = np.asarray(keras.ops.image.resize(digits.images[..., None] / 16, (16, 16)), "float32")
    return train_test_split(x, digits.target, test_size=0.2, random_state=0)


def network() -> keras.Model:
    """A small CNN; averaging its last maps is what Grad-CAM suits best."""
    return keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            L.Conv2D(32, 3, padding="same", activation="relu"),
            L.Conv2D(32, 3, padding="same", activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(64, 3, padding="same", activation="relu"),
            L.Conv2D(64, 3, padding="same", activation="relu"),
            L.GlobalAveragePooling2D(),
            L.Dense(10, activation="softmax"),
        ]
    )


def main() -> None:
    """Trains, logs and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where to write")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, x_test, y, y_test = data()
    _, one_of_each = np.unique(y_test, return_index=True)
    shown = one_of_each[[0, 2, 3, 5, 8]]

    history = kx.sinks.Memory()
    logger = kx.callbacks.ExplanationLogger(
        [
            kx.GradCAM(),
            kx.IntegratedGradients(steps=32),
            kx.GradientSHAP(background=x[:100], samples=32),
        ],
        x_test[shown],
        y_test[shown],
        sinks=[kx.sinks.TensorBoard(options.out / "logs"), history],
    )
    model = network()
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(
            f"epoch {epoch}: test accuracy {logs['val_accuracy']:.3f}", flush=True
        )
    )
    model.fit(
        x,
        y,
        epochs=options.epochs,
        batch_size=32,
        validation_data=(x_test, y_test),
        callbacks=[keras.callbacks.TensorBoard(options.out / "logs"), logger, report],
        verbose=0,
    )
    figure = kx.plots.epochs(history.history())
    figure.savefig(options.out / "epochs.png", dpi=100)
    print(f"Wrote {options.out / 'logs'} and {options.out / 'epochs.png'}.")


if __name__ == "__main__":
    main()
