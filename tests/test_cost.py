"""How many multiplications a model's scores take: against numbers counted by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_explain.core.model.forward import Forward
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.targets import as_target


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((6,), lambda: layers.Dense(5), 6 * 5),
        ((8, 8, 3), lambda: layers.Conv2D(4, 3), 36 * 4 * 27),
        ((8, 8, 4), lambda: layers.Conv2D(6, 3, groups=2, padding="same"), 64 * 6 * 18),
        ((8, 8, 4), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), 36 * 8 * 9),
        ((4, 4, 5), lambda: layers.Conv2DTranspose(3, 2), 16 * 5 * 12),
        ((4, 5, 6, 2), lambda: layers.Conv3D(3, 2), 60 * 3 * 16),
        ((7, 6), lambda: layers.Conv1D(4, 3), 5 * 4 * 18),
        ((7, 6), lambda: layers.Dot(axes=2), 7 * 7 * 6),
        ((7, 6), lambda: layers.MultiHeadAttention(2, 3), 4 * 7 * 6 * 6 + 2 * 2 * 7 * 7 * 3),
    ],
)
def test_layers(shape, layer, expected):
    x, layer = keras.Input(shape), layer()
    if isinstance(layer, layers.Dot):
        y = layer([x, x])
    elif isinstance(layer, layers.MultiHeadAttention):
        y = layer(x, x)
    else:
        y = layer(x)
    y = layers.Flatten()(y)
    model = keras.Model(x, layers.Dense(2)(y))
    rows = np.zeros((3, *shape), np.float32)
    found = Forward(OpenModel.of(model), rows, as_target(1)).multiplications
    assert found == expected + 2 * y.shape[-1]
