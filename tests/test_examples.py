"""The examples run, and write what they say."""

import contextlib
import importlib.util
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from skimage import io

import keras_explain as kx
from tests.server import server, wait_for

EXAMPLES = Path(__file__).parents[1] / "examples"
METHODS = ("grad_cam", "integrated_gradients", "gradient_shap")


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def untrained():
    """Early Grad-CAM maps may be all zero, which is worth a warning to a user, not here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is zero everywhere")
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch, untrained():
        patch.setattr("sys.argv", ["digits.py", "--out", str(out), "--epochs", "2"])
        example("digits").main()
    return out


@pytest.mark.slow
def test_the_demo_draws_a_band_for_each_explainer(demo):
    sheet = io.imread(demo / "epochs.png")
    assert sheet.shape[0] > sheet.shape[1] > 300
    bands = np.array_split(sheet[..., :3].astype(float), len(METHODS))
    assert all(band.std() > 20 for band in bands)


@pytest.mark.slow
def test_a_tensorboard_on_the_demos_logs_lists_pictures_and_scalars(demo, tmp_path):
    with server(demo / "logs", "false", tmp_path) as ready:
        get = wait_for(ready)
        pictures = wait_for(lambda: get("plugin/images/tags").get("explain"))
        assert sorted(pictures) == sorted(f"explain/{m}/{i}" for m in METHODS for i in range(5))
        steps = get("plugin/images/images", run="explain", tag="explain/grad_cam/0", sample=0)
        assert [image["step"] for image in steps] == [0, 1]
        scalars = get("plugin/scalars/tags")
    for method in METHODS:
        assert {f"explain/{method}/{s}" for s in ("score", "drift")} <= set(scalars["explain"])
    assert "epoch_accuracy" in scalars["validation"]


@pytest.mark.slow
def test_photos_are_explained_by_local_weights(tmp_path, monkeypatch):
    model = keras.applications.MobileNetV2(weights=None, classes=7)
    model.save_weights(tmp_path / "mobilenet.weights.h5")
    grey = (np.indices((60, 90)).sum(axis=0) % 256).astype(np.uint8)
    io.imsave(tmp_path / "grey.png", grey)
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    script = example("imagenet")
    methods = {"Saliency": kx.Saliency(), "Input x Gradient": kx.InputXGradient()}
    monkeypatch.setattr(script, "methods", lambda: methods)
    arguments = f"""imagenet.py {tmp_path}/grey.png --weights {tmp_path}/mobilenet.weights.h5
        --classes 7 --target 2 5 --labels {tmp_path}/labels.txt --out {tmp_path}/maps.png"""
    monkeypatch.setattr("sys.argv", arguments.split())
    script.main()
    assert io.imread(tmp_path / "maps.png").std() > 20


def test_an_unknown_network_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["imagenet.py", "--model", "MobileNetV9"])
    with pytest.raises(SystemExit, match="MobileNetV9"):
        example("imagenet").main()


def test_the_example_of_tree_regularization_prints_and_draws_both_trees(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", "--out", str(tmp_path), "--epochs", "4"])
        example("tree_regularization").main()
    printed = capsys.readouterr().out
    for strength in (0, 2):
        assert f"strength {strength}: the network's accuracy" in printed
        assert io.imread(tmp_path / f"tree-strength-{strength}.png")[..., :3].std() > 10
    assert printed.count("average path length") == 2
