"""Tokenizers and vocabularies: texts to ids, and ids to words."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def word_finder(vocabulary: Any) -> Callable[[int], str]:
    """A function of an id to its word, of a sequence, a mapping or a function; None spells ids."""
    if vocabulary is None:
        return str
    if callable(vocabulary):
        return lambda id_: str(vocabulary(id_))
    if not hasattr(vocabulary, "get"):
        vocabulary = dict(enumerate(vocabulary))
    return lambda id_: str(vocabulary.get(id_, id_))


class LayerTokenizer:
    """A tokenizer that is a layer: a configuration would keep its name alone."""

    def __init__(self, layer: keras.Layer) -> None:
        self.layer = layer
        self.__name__ = self.__qualname__ = layer.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerTokenizer) and other.layer is self.layer

    def __hash__(self) -> int:
        return id(self.layer)

    def __call__(self, texts: list[str]) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.layer(keras.ops.convert_to_tensor(texts)))

    def get_vocabulary(self) -> list[str]:
        """The words by id, where the layer has them."""
        return self.layer.get_vocabulary()
