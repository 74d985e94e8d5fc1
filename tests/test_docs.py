"""What the documentation shows is so."""

import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import keras_explain as kx

DOCS = Path(__file__).parents[1] / "docs"


def test_a_method_of_ones_own_is_what_its_page_says(capsys):
    text = (DOCS / "own_method.md").read_text("utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "own_method.md", "exec"), names)
    np.testing.assert_allclose(names["tensors"], names["explanation"].values, rtol=1e-6)
    assert "0" in capsys.readouterr().out
    x = layers.Input((3,))
    quadratic = keras.Model(
        x, ops.sum(ops.square(x) * np.arange(1.0, 4.0, dtype="float32"), axis=1, keepdims=True)
    )
    explained = names["CompleteMidpoint"](baseline=0.5)(quadratic, np.ones((2, 3), np.float32))
    np.testing.assert_allclose(explained.values, [[0.75, 1.5, 2.25]] * 2, rtol=1e-6)
    np.testing.assert_allclose(explained.extras["base_values"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(explained.extras["convergence_delta"], 0, atol=1e-6)


def test_the_rooms_lie_above_each_other_as_the_picture_shows():
    spec = importlib.util.spec_from_file_location("rooms", DOCS / "rooms.py")
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    rooms.PACKAGE = Path(kx.__file__).parent  # which may be installed elsewhere
    assert rooms.picture() in (DOCS / "architecture.md").read_text("utf-8")
