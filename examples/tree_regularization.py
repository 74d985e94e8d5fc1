"""Train a network that a small decision tree can mimic, and read the tree.

Breast cancer from scikit-learn: is a tumour malignant, by 30 measures of its cells? The same
network is trained without and with tree regularization. Writes both trees as pictures:

    python examples/tree_regularization.py --out demo
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes on the machine

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import keras_explain as kx

L = keras.layers


def network(x: np.ndarray) -> keras.Model:
    """A small network that predicts "benign"; it scales its inputs, so trees ask in their units."""
    scale = L.Normalization()
    scale.adapt(x)
    return keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            scale,
            L.Dense(64, activation="relu"),
            L.Dense(32, activation="relu"),
            L.Dense(1, activation="sigmoid"),
        ]
    )


def main() -> None:
    """Trains twice, prints what came of it, and draws the trees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where to write")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    cells = load_breast_cancer()
    x, x_test, y, y_test = train_test_split(
        cells.data, cells.target, test_size=0.3, random_state=0, stratify=cells.target
    )

    for strength in (0.0, 2.0):
        keras.utils.set_random_seed(0)
        model = kx.TreeRegularization(
            network(x),
            strength=strength,
            penalty=kx.trees.TreeDistillation(max_leaf_nodes=4),
            reference=x,
            feature_names=cells.feature_names,
            class_names=cells.target_names,
        )
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        model.fit(x, y, batch_size=32, epochs=options.epochs, verbose=0)
        accuracy = model.evaluate(x_test, y_test, return_dict=True, verbose=0)["accuracy"]
        tree = model.tree
        print(f"\nstrength {strength:g}: the network's accuracy on test rows is {accuracy:.3f}")
        print(f"the tree says what the network says on {tree.fidelity(x_test):.1%} of them\n")
        print(tree.to_text())
        tree.plot().savefig(options.out / f"tree-strength-{strength:g}.png")


if __name__ == "__main__":
    main()
