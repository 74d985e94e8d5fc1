"""Tree regularization: a model is trained to be one that a small decision tree can mimic."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras

from keras_explain.training.regularized import Regularized
from keras_explain.trees.live import LiveTree
from keras_explain.trees.regional_tree import RegionalTree
from keras_explain.trees.surrogate_tree import SurrogateTree
from keras_explain.trees.term import Tree

Nest = Any


@keras.saving.register_keras_serializable(package="keras_explain")
class TreeRegularization(Regularized):
    """A model that is trained so that a small decision tree can mimic it.

    It is `kx.Regularized` with one term, `kx.terms.Tree`, which says what is added to the loss, and
    what `logs` have at the end of an epoch.

    `compile`, `fit`, `evaluate`, `predict` and `save` are as ever. The validation loss does not
    contain the penalty. With `strength=0` the model is trained exactly as it would be alone, and
    there are no scalars of the tree.

    Args:
        model: A built classifier with one output: a logit or sigmoid `[B, 1]`, logits or a softmax
            `[B, C]`, or one of these at each time step `[B, T, C]`.
        name: The name of this model.
        **options: The arguments of `kx.terms.Tree`: `reference`, which is needed, `strength`,
            `penalty`, `prune_on`, `warmup`, `ramp`, `refit_every`, `subsample`, `regions`,
            `over_regions`, `layer`, `min_samples_leaf`, `feature_names`, `class_names`, `log_dir`,
            `batch_size`, `seed`.

    Attributes:
        model: The model itself, to save and serve without this package.

    Raises:
        ValueError: The model is not built, is no classifier with one output, or can predict one
            class only; the reference is missing, not what the model takes, or too small.

    Example:

    ```python
    model = kx.TreeRegularization(net, strength=1.0, reference=x_train)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=100, validation_data=(x_val, y_val))
    print(model.tree.to_text(), model.tree.fidelity(x_test))
    model.model.save("plain.keras")
    ```
    """

    def __init__(self, model: keras.Model, *, name: str | None = None, **options: Any) -> None:
        super().__init__(model, [Tree(**options)], name=name)

    @property
    def _tree(self) -> LiveTree:
        (live,) = self.terms.values()
        return live

    @property
    def options(self) -> Tree:
        """What it is configured with, apart from the model and the data."""
        return self._tree.term

    @property
    def tree(self) -> SurrogateTree | RegionalTree:
        """The tree that mimics the model as it is now; with `regions=`, a tree for each."""
        return self._tree.tree

    @property
    def reference(self) -> Nest | None:
        """The reference inputs that are used; None after loading, until they are set again."""
        return self._tree.reference

    @reference.setter
    def reference(self, x: Nest) -> None:
        self.set_reference(x)

    def set_reference(self, x: Nest, prune_on: Nest | None = None) -> None:
        """Sets the reference inputs, and those that trees are pruned on.

        Args:
            x: The reference inputs.
            prune_on: The others; `None` leaves them as they are.

        Raises:
            ValueError: They are not what the model takes, too few, or not as wide as before; or
                there is nothing to prune on after loading, where there was before saving.
        """
        self._tree.set_reference(x, prune_on)

    @property
    def fitted(self) -> bool:
        """Whether the penalty has been fitted to the model."""
        return self._tree.fitted

    @property
    def current_strength(self) -> float:
        """What the penalty is multiplied by in this epoch."""
        return self._tree.current_strength

    def refit(self) -> int | None:
        """Fits trees and the penalty to the model as it is now.

        Returns:
            The class that is predicted for every reference row, if it is one.
        """
        return self._tree.refit()

    def scalars(self) -> dict[str, float]:
        """The scalars of the latest fit and of the epoch, by name."""
        return self._tree.scalars()

    # Saving

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        (term,) = config.pop("terms")
        return config | {"options": term["config"]}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        term = Tree.from_config(config["options"])
        options = {field.name: getattr(term, field.name) for field in dataclasses.fields(term)}
        del options["name"]
        return cls(model, name=config["name"], **options)

    def get_build_config(self) -> dict[str, Any]:
        return self._tree.build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        super().build_from_config({self._tree.name: config})
