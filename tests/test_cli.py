"""The command `keras-explain`, on tiny models and without a network."""

import csv
import dataclasses
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import unittest.mock
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.figure import Figure
from PIL import Image
from skimage import io

import keras_explain as kx
from keras_explain import cli
from keras_explain.cli import classes, main, objects, options, results, samples
from keras_explain.cli.calls import calls
from keras_explain.cli.errors import CommandError, UsageError
from keras_explain.core.names import snake_name
from tests import logs
from tests.process import run_python

SIDE = 16
NAMES = ("crane, bird", "crane, machine", "red fox")
DOCS = Path(__file__).parents[1] / "docs" / "cli.md"


def run(*arguments):
    return main([str(argument) for argument in arguments])


def told(capsys, *arguments, code=0):
    """What is printed by a run that ends with a code: on stdout, or on stderr where it fails."""
    assert run(*arguments) == code
    done = capsys.readouterr()
    return done.err if code else done.out


def usage(capsys, *arguments):
    """What argparse says of a command line that it does not take."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def filled(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1]))))
    return model


def network(channels=3, side=SIDE, classes=3):
    x = keras.Input((side, side, channels), name="picture")
    h = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    h = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(h))
    return filled(keras.Model(x, layers.Dense(classes, activation="softmax")(h)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with models and inputs that all tests share and none changes."""
    home = tmp_path_factory.mktemp("home")
    network().save(home / "rgb.keras")
    network(channels=1).save(home / "gray.keras")
    network(side=None).save(home / "any.keras")
    (home / "names.txt").write_text("\n".join(NAMES) + "\n")
    (home / "photos").mkdir()
    for name in ("b.png", "a.png"):
        Image.fromarray(photo(name)).save(home / "photos" / name)
    (home / "photos" / "notes.txt").write_text("no picture")
    (home / "photos" / "._a.png").write_bytes(b"of a Mac's file system")
    rng = np.random.default_rng(0)
    np.save(home / "table.npy", (5 * rng.normal(size=(3, 4))).astype("float32"))
    x = keras.Input((4,))
    filled(keras.Model(x, layers.Dense(1, activation="sigmoid")(x))).save(home / "binary.keras")
    filled(
        keras.Model(x, [layers.Dense(2, name="left")(x), layers.Dense(3, name="right")(x)])
    ).save(home / "two.keras")
    return home


@pytest.fixture(scope="module", autouse=True)
def loaded_once(home):
    """Each shared model is loaded once, so that what is traced for it serves all tests."""
    load = keras.saving.load_model
    once = functools.cache(lambda path: load(path, compile=False))

    def load_model(path, **options):
        return once(Path(path)) if Path(path).parent == home else load(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.saving, "load_model", load_model)
        yield


def photo(name, height=SIDE, width=SIDE):
    rng = np.random.default_rng(ord(name[0]))
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def explained(home, tmp_path, capsys):
    """Runs `explain` on the shared photos or other inputs, and gives the folder and what is said.

    Figures take time: by default there are none.
    """

    def explained(
        *arguments,
        model="rgb.keras",
        inputs=("photos",),
        preprocess="none",
        figures="none",
        code=0,
    ):
        start = ("explain", home / model, *(home / name for name in inputs))
        how = ("--preprocess", preprocess) if preprocess else ()
        where = ("--figures", figures, "-o", tmp_path / "out")
        return tmp_path / "out", told(capsys, *start, *how, *where, *arguments, code=code)

    return explained


def table(folder):
    with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# The command line


def test_help_loads_nothing_heavy():
    code = """
import sys
from keras_explain.cli import main
for arguments in (["--version"], ["--help"], ["explain", "--help"]):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code == 0
assert main([]) == 2
heavy = {"tensorflow", "keras", "numpy", "matplotlib", "PIL", "tensorboard"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    assert first == f"keras-explain {kx.__version__}"
    assert all(f"\n    {name} " in done.stdout for name in ("explain", "methods", "report"))
    assert done.stderr.startswith("usage: keras-explain")


@pytest.mark.slow
def test_as_a_module_a_reader_that_leaves_and_tensorflows_noise_are_no_trouble():
    command = [sys.executable, "-m", "keras_explain.cli", "methods"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    with running.stderr:
        assert running.stderr.read() == b""
    assert running.wait(60) == 0


def written_examples():
    """The command lines in help texts and docs."""
    texts = [options.parser().format_help(), options._EXPLAIN_EXAMPLES]
    lines = "\n".join([*texts, DOCS.read_text("utf-8")]).replace("\\\n", " ").splitlines()
    found = [line.strip() for line in lines if line.strip().startswith("keras-explain ")]
    return [line for line in found if "COMMAND" not in line]


def test_every_example_can_be_typed(monkeypatch):
    found = written_examples()
    assert len(found) > 12
    for line in found:
        arguments = options.joined(shlex.split(line, comments=True)[1:])
        if arguments != ["--version"]:
            given = options.parser().parse_args(arguments)
            for call in getattr(given, "method", None) or []:
                objects.check(call)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explane"], "invalid choice: 'explane'"),
        (["explain", "m.keras"], "required: INPUT"),
        (["explain", "m", "x", "--seed", "-1"], "a whole number of 0 or more, received '-1'"),
        (["explain", "m", "x", "--batch-size", "0"], "a whole number of 1 or more, received '0'"),
        (["explain", "m", "x", "--size", "big"], "as in 224x224, received 'big'"),
        (["explain", "m", "x", "-m", "grad cam"], "expected a method such as grad_cam"),
        (["explain", "m", "x", "-m", "grad_cam(3)"], "received 'grad_cam(3)'"),
        (["explain", "m", "x", "-m", "grad_cam, 3"], "received 'grad_cam, 3'"),
        (["explain", "m", "x", "-m", "a.b()"], "received 'a.b()'"),
        (["explain", "m", "x", "--meth", "grad_cam"], "unrecognized arguments: --meth"),
        (["report"], "required: LOGDIR"),
        (["report", "logs", "--max-steps", "1"], "a whole number of 2 or more, received '1'"),
    ],
)
def test_a_command_line_that_cant_be_meant(capsys, arguments, said):
    assert said in usage(capsys, *arguments)


def test_a_range_that_begins_with_minus_is_no_option():
    for given in (["--preprocess", "-1..1"], ["--preprocess=-1..1"]):
        parsed = options.parser().parse_args(options.joined(["explain", "m", "x", *given]))
        assert parsed.preprocess == "-1..1"


def test_what_libraries_write_to_stderr_is_shown_where_they_fail_alone(monkeypatch, capfd):
    def noisy(name):
        os.write(2, b"noise of " + name.encode())
        if name.endswith("broken"):
            raise ImportError("no such library")
        return name

    monkeypatch.setattr(importlib, "import_module", noisy)
    assert cli._module("fine", verbose=False) == "keras_explain.cli.fine"
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        cli._module("broken", verbose=False)
    assert capfd.readouterr().err == "noise of keras_explain.cli.broken"
    cli._module("fine", verbose=True)
    assert capfd.readouterr().err == "noise of keras_explain.cli.fine"


# methods


def explainer_names():
    every = [getattr(kx, name) for name in kx.__all__]
    kinds = [v for v in every if isinstance(v, type) and issubclass(v, kx.Explainer)]
    return sorted(snake_name(kind.__name__) for kind in kinds if kind is not kx.Explainer)


def test_methods_lists_every_one_with_its_parameters(capsys):
    out = told(capsys, "methods")
    listed = re.findall(r"^(\w+)\(", out, re.MULTILINE)
    assert set(explainer_names()) <= set(listed)
    assert len(listed) == len(set(listed))
    assert "grad_cam(layer=None, reshape=None, relu=True, call=None)\n    Where in the" in out
    listed = "gradient_shap(background, layer=None, call=None, error=None, max_passes=None,"
    assert f"{listed}\n    samples=50, noise=0.0)" in out


@pytest.mark.parametrize("name", explainer_names())
def test_a_method_tells_what_each_parameter_means(capsys, name):
    out = told(capsys, "methods", name)
    cls = objects.explainer_class(name)
    for field in dataclasses.fields(cls):
        assert re.search(rf"^  {field.name} (=|\(must).*\n      \S", out, re.MULTILINE), field.name
    example = re.search(r'--method "(.*)"', out)[1]
    objects.check(*calls(example))
    assert "As in `" not in out.partition("Parameters:")[2]


def test_an_unknown_method_has_near_names(capsys):
    err = told(capsys, "methods", "gradcam", code=2)
    assert "Received: 'gradcam'. Did you mean 'grad_cam'" in err


# Methods as they are written


def made(text, load=np.load):
    [call] = calls(text)
    return objects.make(call, load)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grad_cam", kx.GradCAM()),
        ("GradCAM()", kx.GradCAM()),
        ("grad_cam(layer=conv_1)", kx.GradCAM(layer="conv_1")),
        ("grad_cam(layer=backbone/conv_1)", kx.GradCAM(layer="backbone/conv_1")),
        ("grad_cam(layer='conv-1')", kx.GradCAM(layer="conv-1")),
        ("grad_cam(layer=blur)", kx.GradCAM(layer="blur")),
        ("grad_cam(layer='conv.png')", kx.GradCAM(layer="conv.png")),
        ("grad_cam(reshape=(14, 14), relu=False)", kx.GradCAM(reshape=(14, 14), relu=False)),
        (
            "integrated_gradients(steps=64, baseline=-1.5)",
            kx.IntegratedGradients(steps=64, baseline=-1.5),
        ),
        (
            "integrated_gradients(baseline=Blur(5))",
            kx.IntegratedGradients(baseline=kx.baselines.Blur(5)),
        ),
        ("occlusion(baseline=mean)", kx.Occlusion(baseline=kx.baselines.Mean())),
        (
            "smooth_grad(explainer=integrated_gradients(steps=3), samples=2)",
            kx.SmoothGrad(explainer=kx.IntegratedGradients(steps=3), samples=2),
        ),
        (
            "lime(features=Segments(method=quickshift), regression=lasso)",
            kx.LIME(features=kx.features.Segments(method="quickshift"), regression="lasso"),
        ),
        (
            "lrp(rules=[('conv*', Gamma(0.5)), ('*', Epsilon())])",
            kx.LRP(rules=[("conv*", kx.rules.Gamma(0.5)), ("*", kx.rules.Epsilon())]),
        ),
        (
            "lrp(rules={'first': flat, '*': z_plus})",
            kx.LRP(rules={"first": kx.rules.Flat(), "*": kx.rules.ZPlus()}),
        ),
        ("lrp(rules=epsilon_plus_flat)", kx.LRP(rules="epsilon_plus_flat")),
    ],
)
def test_a_method_is_what_it_says(text, expected):
    assert made(text) == expected


def test_several_methods_with_commas():
    found = [objects.make(call, np.load) for call in calls("grad_cam, saliency(absolute=False)")]
    assert found == [kx.GradCAM(), kx.Saliency(absolute=False)]


def test_a_background_is_read_from_a_file(tmp_path):
    rows = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "rows.npy", rows)
    explainer = made(f"gradient_shap(background='{tmp_path}/rows.npy', samples=3)")
    assert explainer == kx.GradientSHAP(background=rows, samples=3)
    asked = []
    made("kernel_shap(background=some/rows.npy)", lambda path: asked.append(path) or rows)
    assert asked == ["some/rows.npy"]


def test_every_default_can_be_written():
    """What `methods` lists can be typed; two defaults are objects that have no name outside."""
    for cls in objects.explainers().values():
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING or cls is kx.XRAI:
                continue
            required = [f for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
            more = "".join(f", {f.name}='conv'" for f in required)
            explainer = made(f"{snake_name(cls.__name__)}({field.name}={field.default!r}{more})")
            assert explainer == cls(**{f.name: "conv" for f in required})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grad_kam", "Did you mean 'grad_cam'"),
        ("integrated_gradients(step=3)", "Received: 'step'. Did you mean 'steps'?"),
        ("integrated_gradients(steps=0)", "Expected `steps` to be a whole number of 1 or more."),
        ("integrated_gradients(steps=many)", "Received: steps='many'"),
        ("integrated_gradients(baseline=Blurr(3))", "Received: 'Blurr'. Did you mean 'Blur'"),
        ("integrated_gradients(baseline=Blur(sigm=3))", "Did you mean 'sigma'?"),
        ("lime(distance=far)", "'cosine', 'hamming'"),
        ("gradient_shap", "Write gradient_shap(background=train100.npy)."),
        ("gradient_shap(samples=3)", "Write gradient_shap(background=train100.npy)."),
        ("smooth_grad(explainer=saliency(True))", "with their names, such as layer=..."),
        ("lime(features=__import__('os'))", "Received: '__import__'"),
        ("lime(features=Segments().method)", "Received: Segments().method"),
    ],
)
def test_a_method_that_cant_be_meant(text, said):
    with pytest.raises(objects.UsageError, match=re.escape(said)):
        made(text)


def test_a_wrong_method_is_told_before_the_model_is_loaded(capsys):
    err = told(capsys, "explain", "missing.keras", "x.png", "-m", "grad_cam(relo=1)", code=2)
    assert err.startswith("keras-explain: error: Expected a parameter of grad_cam.")


# explain: pictures


def test_pictures_give_values_scores_and_figures(explained, home):
    folder, out = explained(
        *("-m", "grad_cam", "-m", "integrated_gradients(steps=4)"),
        *("--class-names", home / "names.txt", "--target", "red fox", "--target", "0"),
        preprocess="-1..1",
        figures="grid",
    )
    files = {
        "a.png",
        "b.png",
        "grad_cam.npz",
        "integrated_gradients.npz",
        "scores.csv",
        "scores.json",
    }
    assert {path.name for path in folder.iterdir()} == files
    assert sorted(re.findall(r"^Wrote (.*)$", out, re.MULTILINE)) == sorted(
        str(folder / file) for file in files
    )
    x = np.stack([photo("a"), photo("b")]).astype("float32") / 127.5 - 1
    model = keras.saving.load_model(home / "rgb.keras")
    for explainer in (kx.GradCAM(), kx.IntegratedGradients(steps=4)):
        expected = explainer(model, x, [[2, 0], [2, 0]])
        name = snake_name(type(explainer).__name__)
        found = kx.Explanation.load(folder / f"{name}.npz")
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.x, x, atol=1e-6)
        assert found.explainer == explainer
        rows = [row for row in table(folder) if row["method"] == name]
        assert [(row["input"], row["class_name"]) for row in rows] == [
            (picture, NAMES[number]) for picture in "ab" for number in (2, 0)
        ]
        scores = np.array([float(row["score"]) for row in rows]).reshape(2, 2)
        np.testing.assert_allclose(scores, expected.scores, rtol=1e-6)
        known = [row["reliable"] == "True" for row in rows]
        assert known == expected.extras["reliable"].ravel().tolist()
        columns = ("convergence_delta", "value_error", "relative_error", "passes")
        pairs = [("base_value", "base_values"), *zip(columns, columns, strict=True)]
        for column, extra in pairs:
            cells = [row[column] for row in rows]
            if extra in expected.extras:
                found = np.array(cells, float).reshape(2, 2)
                np.testing.assert_allclose(found, expected.extras[extra], rtol=1e-6, atol=1e-6)
            else:
                assert cells == [""] * 4
    check_predictions(json.loads((folder / "scores.json").read_text("utf-8")), model(x).numpy())
    assert io.imread(folder / "a.png")[..., :3].std() > 20


def check_predictions(summary, outputs):
    assert summary["methods"]["integrated_gradients"] == "IntegratedGradients(steps=4)"
    assert summary["preprocess"] == "-1..1"
    for one, row in zip(summary["inputs"], outputs, strict=True):
        order = np.argsort(-row)
        assert [best["class"] for best in one["predicted"]] == order.tolist()
        np.testing.assert_allclose([b["output"] for b in one["predicted"]], row[order], rtol=1e-6)
        assert one["file"].endswith(f"photos/{one['input']}.png")
        assert [row["class"] for row in one["explained"]] == [2, 0, 2, 0]


def test_figures_show_the_pictures_as_they_were(explained, tmp_path):
    """A picture in -1..1 that is light all over can't be told from one in 0..1."""
    colours = {"a": (230, 180, 150), "b": (150, 230, 180)}
    for name, colour in colours.items():
        Image.new("RGB", (SIDE, SIDE), colour).save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in colours]
    folder, _ = explained(inputs=files, preprocess="-1..1", figures="grid")
    for name in colours:
        figure = io.imread(folder / f"{name}.png")[..., :3]
        shares = {other: (figure == c).all(axis=-1).mean() for other, c in colours.items()}
        assert shares.pop(name) > 0.1
        assert max(shares.values()) == 0


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ("grid", {"a.png", "b.png"}),
        ("each", {f"{p}.{m}.png" for p in "ab" for m in ("saliency", "grad_cam")}),
        ("none", set()),
    ],
)
def test_figures_of_pictures(explained, figures, names):
    folder, _ = explained("-m", "saliency, grad_cam", figures=figures)
    assert {path.name for path in folder.glob("*.png")} == names


def test_a_method_alone_has_the_figure_that_python_draws_of_it(explained, monkeypatch):
    monkeypatch.setattr(kx.plots, "grid", lambda *_, **__: pytest.fail("a grid of one"))
    folder, _ = explained("-m", "saliency", inputs=["photos/a.png"], figures="grid")
    assert (folder / "a.png").exists()


def test_the_first_inputs_have_figures_and_all_have_values(home, tmp_path, capsys):
    arguments = ("--preprocess", "none", "--max-figures", "1", "-o", tmp_path)
    assert run("explain", home / "rgb.keras", home / "photos", *arguments) == 0
    err = capsys.readouterr().err
    assert err.startswith("keras-explain: warning: 1 of 2 inputs have no figure;")
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png"}
    assert len(kx.Explanation.load(tmp_path / "grad_cam.npz")) == 2
    arguments = ("--preprocess", "none", "--figures", "none", "-o", tmp_path / "none")
    assert run("explain", home / "rgb.keras", home / "photos", *arguments) == 0
    assert capsys.readouterr().err == ""


def test_nothing_is_replaced_without_force(explained):
    folder, _ = explained(figures="grid")
    (folder / "a.png").write_text("mine")
    (folder / "grad_cam.npz").unlink()
    _, err = explained(figures="grid", code=1)
    assert "scores.csv', which is there already (and 3 more)" in err
    assert (folder / "a.png").read_text() == "mine"
    assert not (folder / "grad_cam.npz").exists()
    explained("--force", figures="grid")
    assert (folder / "grad_cam.npz").exists()
    assert io.imread(folder / "a.png").ndim == 3


def test_looks_of_something_else(explained, home, tmp_path):
    _, err = explained("--show", "waterfall", "--vocabulary", home / "names.txt", code=2)
    assert "Received: --vocabulary, --show waterfall." in err
    arguments = {"inputs": ["table.npy"], "model": "binary.keras", "preprocess": None}
    folder, err = explained("--show", "map", **arguments, figures="each", code=1)
    assert "Expected `show` of rows of a table" in err
    assert "The values are written all the same" in err
    assert (folder / "integrated_gradients.npz").exists()
    assert not list(folder.glob("*.png"))


def test_names_that_a_file_system_might_mix_up(explained, tmp_path):
    for name in ("x/cat.png", "y/cat.png", "y/Cat.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photo("c")).save(tmp_path / name)
    folder, _ = explained(inputs=[tmp_path / "x", tmp_path / "y"], figures="grid")
    assert {path.name for path in folder.glob("*.png")} == {"cat.png", "Cat_2.png", "cat_3.png"}


def test_the_seed_and_several_of_one_method(explained):
    of_table = {"inputs": ["table.npy"], "model": "binary.keras", "preprocess": None}
    one = "hsic_attribution(samples=8)"
    folder, _ = explained("-m", f"{one}, hsic_attribution(samples=9)", "--seed", "1", **of_table)
    first = kx.Explanation.load(folder / "hsic_attribution.npz").values
    assert kx.Explanation.load(folder / "hsic_attribution_2.npz").explainer.samples == 9
    explained("-m", one, "--seed", "2", "--batch-size", "1", "--force", **of_table)
    again = kx.Explanation.load(folder / "hsic_attribution.npz").values
    assert not np.allclose(first, again, atol=1e-6)


# How pictures are read


def x_of(folder):
    return kx.Explanation.load(folder / "grad_cam.npz").x


def test_orientation_transparency_depth_and_palette(explained, tmp_path):
    pixels = photo("p")
    upright = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "1turned.png", exif=exif)
    see_through = np.dstack([pixels, np.zeros((SIDE, SIDE), np.uint8)])
    see_through[0, 0, 3] = 255
    Image.fromarray(see_through).save(tmp_path / "2clear.png")
    deep = pixels[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "3deep.png")
    palette = upright.quantize(8)
    palette.save(tmp_path / "4palette.gif")
    files = [tmp_path / n for n in ("1turned.png", "2clear.png", "3deep.png", "4palette.gif")]
    folder, _ = explained(inputs=files)
    turned, clear, grey, few = x_of(folder)
    np.testing.assert_array_equal(turned, pixels)
    np.testing.assert_array_equal(clear[0, 0], pixels[0, 0])
    assert (clear[1:] == 255).all()
    np.testing.assert_array_equal(grey, pixels[..., :1].repeat(3, axis=-1))
    np.testing.assert_array_equal(few, np.asarray(palette.convert("RGB")))


def test_pictures_take_the_models_size_and_channels(explained, tmp_path):
    wide = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    wide[:, SIDE : 2 * SIDE] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    folder, _ = explained(inputs=[tmp_path / "wide.png"], model="gray.keras")
    stretched = x_of(folder)
    assert stretched.shape == (1, SIDE, SIDE, 1)
    assert 0.2 < (stretched == 0).mean() < 0.8
    assert ((stretched > 0) & (stretched < 255)).any()  # smoothed, not picked
    folder, _ = explained(
        "--crop", "--force", inputs=[tmp_path / "wide.png"], model="gray.keras", preprocess="0..1"
    )
    np.testing.assert_array_equal(x_of(folder), np.ones((1, SIDE, SIDE, 1)))


def test_a_model_of_channels_first(explained, tmp_path):
    x = keras.Input((3, SIDE, SIDE))
    h = layers.Conv2D(4, 3, data_format="channels_first")(x)
    y = layers.Dense(3)(layers.GlobalAveragePooling2D(data_format="channels_first")(h))
    filled(keras.Model(x, y)).save(tmp_path / "first.keras")
    _, err = explained(model=tmp_path / "first.keras", code=1)
    assert "say --data-format channels_first" in err
    folder, _ = explained(
        "--data-format", "channels_first", model=tmp_path / "first.keras", figures="grid"
    )
    explanation = kx.Explanation.load(next(folder.glob("*.npz")))
    assert explanation.channels == (1,)
    assert explanation.values.shape == (2, SIDE, SIDE)
    np.testing.assert_array_equal(np.moveaxis(x_of(folder), 1, -1)[0], photo("a.png"))
    assert (folder / "a.png").exists()


def test_where_the_channels_are_is_what_the_option_says(explained, tmp_path):
    x = keras.Input((3, 8, 8))  # of which no layer says where its channels are
    filled(keras.Model(x, layers.Dense(2)(layers.Flatten()(x)))).save(tmp_path / "flat.keras")
    np.save(tmp_path / "x.npy", np.ones((2, 3, 8, 8), np.float32))
    arguments = {"inputs": [tmp_path / "x.npy"], "model": tmp_path / "flat.keras"}
    folder, _ = explained("--data-format", "channels_first", **arguments)
    assert kx.Explanation.load(folder / "integrated_gradients.npz").channels == (1,)


def test_a_model_of_any_size(explained, tmp_path):
    Image.fromarray(photo("t", 24, 12)).save(tmp_path / "tall.png")
    folder, _ = explained(inputs=[tmp_path / "tall.png"], model="any.keras")
    assert x_of(folder).shape == (1, 24, 12, 3)
    _, err = explained(inputs=["photos", tmp_path / "tall.png"], model="any.keras", code=2)
    assert "Expected --size for pictures of different sizes" in err
    folder, _ = explained(
        *("--size", "20x10", "--force"), inputs=["photos", tmp_path / "tall.png"], model="any.keras"
    )
    assert x_of(folder).shape == (3, 20, 10, 3)


def test_wrong_inputs(explained, tmp_path, home):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    np.save(tmp_path / "words.npy", np.array(["a"], object), allow_pickle=True)
    for name, said in {
        "missing.png": "does not exist",
        "empty": "Expected pictures in the folder",
        "broken.png": "Expected a picture, as Pillow reads it",
        "words.npy": "Expected an array of numbers",
    }.items():
        _, err = explained(inputs=[tmp_path / name], code=1)
        assert said in err
        assert name in err
    _, err = explained(inputs=["photos", "table.npy"], code=2)
    assert "Received: both" in err
    _, err = explained(inputs=["photos"], model="binary.keras", code=1)
    assert "give the input as a .npy array" in err
    _, err = explained("--size", "8", code=2)
    assert "Expected --size 16x16" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["0..1", "-1..1", "none", "-2.5..2.5", "ResNet50", "vgg16"])
def test_preprocessing(explained, how):
    folder, _ = explained(preprocess=how)
    x = np.stack([photo("a"), photo("b")]).astype("float32")
    mean = np.array([103.939, 116.779, 123.68], "float32")
    expected = {
        "0..1": x / 255,
        "-1..1": x / 127.5 - 1,
        "none": x,
        "-2.5..2.5": x / 51 - 2.5,
    }.get(how, x[..., ::-1] - mean)
    np.testing.assert_allclose(x_of(folder), expected, atol=1e-4)


def test_preprocessing_must_be_said_where_the_file_does_not(explained, tmp_path):
    _, err = explained(preprocess=None, code=2)
    assert "Expected --preprocess" in err
    _, err = explained(preprocess="resnet5", code=2)
    assert "Received: 'resnet5'. Did you mean 'resnet50'" in err.replace("ResNet50", "resnet50")
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255)])
    filled(keras.Sequential([inner, *network().layers[1:]])).save(tmp_path / "scales.keras")
    folder, _ = explained(preprocess=None, model=tmp_path / "scales.keras")
    assert x_of(folder).max() > 200


# explain: arrays


def test_a_table_with_names(explained, home, tmp_path):
    (tmp_path / "columns.txt").write_text("age\nincome\nheight\nweight\n")
    (tmp_path / "yes.json").write_text('["no", "yes"]')
    folder, out = explained(
        *("-m", "kernel_shap"),
        *("--feature-names", tmp_path / "columns.txt", "--class-names", tmp_path / "yes.json"),
        *("--target", "no", "--show", "waterfall"),
        inputs=["table.npy"],
        model="binary.keras",
        preprocess=None,
        figures="grid",
    )
    assert {p.name for p in folder.glob("*.png")} == {
        f"table_{i}.kernel_shap.png" for i in range(3)
    }
    x = np.load(home / "table.npy")
    model = keras.saving.load_model(home / "binary.keras")
    expected = kx.KernelSHAP()(model, x, kx.targets.Label(0))
    found = kx.Explanation.load(folder / "kernel_shap.npz")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-6, atol=1e-6)
    assert [(row["class"], row["class_name"]) for row in table(folder)] == [("0", "no")] * 3
    likely = model(x).numpy()[:, 0]
    assert likely.min() < 0.5 < likely.max()
    lines = [
        f"table_{i}: predicted yes ({p:.3g}); explained no"
        if p > 0.5
        else f"table_{i}: predicted no ({1 - p:.3g})"
        for i, p in enumerate(likely)
    ]
    assert out.splitlines()[:3] == lines
    explained(
        *("--class-names", tmp_path / "yes.json", "--force"),
        inputs=["table.npy"],
        model="binary.keras",
        preprocess=None,
    )
    classes = [row["class"] for row in table(folder)]
    assert classes == [str(int(p > 0.5)) for p in likely]


def test_one_sample_without_names(explained, home, tmp_path):
    np.save(tmp_path / "row.npy", np.load(home / "table.npy")[0])
    folder, out = explained(
        inputs=[tmp_path / "row.npy"], model="binary.keras", preprocess=None, figures="grid"
    )
    assert {path.name for path in folder.iterdir()} == {
        *("row.integrated_gradients.png", "integrated_gradients.npz", "scores.csv", "scores.json")
    }
    [row] = table(folder)
    assert (row["class"], row["class_name"]) == ("", "")
    assert out.startswith("row: predicted the output ")


def test_an_output_without_an_axis_of_classes(explained, home, tmp_path):
    x = keras.Input((4,))
    y = layers.Reshape(())(layers.Dense(1)(x))
    model = filled(keras.Model(x, y))
    model.save(tmp_path / "numbers.keras")
    _, out = explained(inputs=["table.npy"], model=tmp_path / "numbers.keras", preprocess=None)
    numbers = model(np.load(home / "table.npy")).numpy()
    assert numbers.shape == (3,)
    lines = [f"table_{i}: predicted the output ({number:.3g})" for i, number in enumerate(numbers)]
    assert out.splitlines()[:3] == lines


def test_token_ids_have_their_words(explained, tmp_path, monkeypatch):
    ids = keras.Input((5,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(6, 3)(ids))
    filled(keras.Model(ids, layers.Dense(2)(h))).save(tmp_path / "text.keras")
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 3, 0, 0]]))
    words = ["", "<unknown>", "very", "good", "bad", "film"]
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n")
    asked = []

    def plot(explanation, **looks):
        asked.append(looks)
        return types.SimpleNamespace(savefig=lambda file, dpi, format: None)

    monkeypatch.setattr(kx.plots, "plot", plot, raising=False)
    folder, _ = explained(
        *("--vocabulary", tmp_path / "words.txt"),
        inputs=[tmp_path / "ids.npy"],
        model=tmp_path / "text.keras",
        preprocess=None,
        figures="grid",
    )
    assert kx.Explanation.load(folder / "integrated_gradients.npz").values.shape == (1, 5)
    assert asked == [{"vocabulary": words}]


def arrays_of(folder, *shapes, model=(None, 4)):
    """The samples of arrays `0.npy`, `1.npy`, ... of these shapes."""
    paths = [folder / f"{number}.npy" for number in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        np.save(path, np.zeros(shape, np.float32))
    source = types.SimpleNamespace(shape=model)
    found = samples.samples_of(paths, samples.Preparation(source, None, False, None))
    assert found.files == [paths[int(name.partition("_")[0])] for name in found.names]
    return found.names


def test_rows_have_numbers_of_as_many_digits_as_the_last_one(tmp_path):
    assert arrays_of(tmp_path, (10, 4)) == [f"0_{i}" for i in range(10)]
    assert arrays_of(tmp_path, (11, 4)) == [f"0_{i:02d}" for i in range(11)]
    assert arrays_of(tmp_path, (2, 4), (4,), (1, 4)) == ["0_0", "0_1", "1", "2"]


def test_an_array_of_another_shape(explained, tmp_path):
    with pytest.raises(CommandError, match=r"of one shape. Received: '.*1.npy' of shape \(1, 5\)"):
        arrays_of(tmp_path, (1, 4), (1, 5), model=(None, None))
    np.save(tmp_path / "wide.npy", np.zeros((2, 5)))
    _, err = explained(inputs=[tmp_path / "wide.npy"], model="binary.keras", code=1)
    assert "Expected samples [B, 4]" in err
    assert "(2, 5)" in err


# Classes


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        ([], "best"),
        (["predicted"], "best"),
        (["top2"], "best two"),
        (["1"], [[1], [1]]),
        (["2,0"], [[2, 0], [2, 0]]),
        (["RED_FOX"], [[2], [2]]),
        (["crane, machine", "2"], [[1, 2], [1, 2]]),
        (["machine"], [[1], [1]]),
    ],
)
def test_targets(explained, home, arguments, classes):
    targets = [part for word in arguments for part in ("--target", word)]
    folder, out = explained(*targets, "--class-names", home / "names.txt")
    summary = json.loads((folder / "scores.json").read_text("utf-8"))
    best = [[c["class"] for c in one["predicted"]] for one in summary["inputs"]]
    expected = {"best": [b[:1] for b in best], "best two": [b[:2] for b in best]}
    found = [[row["class"] for row in one["explained"]] for one in summary["inputs"]]
    assert found == (expected[classes] if isinstance(classes, str) else classes)
    words = ["crane, class 0", "crane, class 1", "red fox"]  # of two, the first name is the same
    for line, one, numbers in zip(out.splitlines(), summary["inputs"], found, strict=False):
        likeliest = one["predicted"][0]
        number, share = likeliest["class"], likeliest["output"]
        more = f"; explained {', '.join(words[n] for n in numbers)}" if numbers != [number] else ""
        assert line == f"{one['input']}: predicted {words[number]} ({share:.3g}){more}"


def test_the_whole_name_of_a_class_is_better_than_one_of_several():
    given = types.SimpleNamespace(target=["Crane"], output_name=None)
    names = ["crane, bird", "crane", "red fox"]
    assert classes.target_of(given, np.zeros((2, 3)), names).index.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("3", "Expected a class from 0 to 2. Received: --target 3."),
        ("4294967297", "Expected a class from 0 to 2. Received: --target 4294967297."),
        ("red fix", "Did you mean 'red fox'?"),
        ("crane", "which the classes 0, 1 have"),
        ("top4", "Expected --target top1 to top3"),
        ("-1", "Received: '-1'"),
    ],
)
def test_targets_that_cant_be_meant(explained, home, target, said):
    _, err = explained(f"--target={target}", "--class-names", home / "names.txt", code=2)
    assert said in err


def test_names_must_fit_the_classes(explained, tmp_path):
    _, err = explained("--target", "fox", code=2)
    assert "since the classes have no names" in err
    (tmp_path / "two.txt").write_text("a\nb\n")
    _, err = explained("--class-names", tmp_path / "two.txt", code=1)
    assert "Expected a name for each of the 3 classes. Received: 2 names" in err
    _, err = explained("--class-names", tmp_path / "none.txt", code=1)
    assert "none.txt" in err


@pytest.mark.parametrize(("output", "units"), [("right", 3), ("0", 2)])
def test_one_of_several_outputs(explained, home, output, units):
    folder, _ = explained(
        *("--output-name", output, "--target", str(units - 1)),
        inputs=["table.npy"],
        model="two.keras",
        preprocess=None,
    )
    found = kx.Explanation.load(folder / "integrated_gradients.npz")
    model, x = keras.saving.load_model(home / "two.keras"), np.load(home / "table.npy")
    left, right = model(x)
    expected = (left if units == 2 else right).numpy()[:, units - 1]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6, atol=1e-6)


def test_the_only_output_of_a_dict_needs_no_name_and_has_no_other():
    only = {"a": np.ones(2)}
    assert classes._chosen(only, None, types.SimpleNamespace(output_name=None)) is only["a"]
    with pytest.raises(UsageError, match="one of a"):
        classes._chosen(only, None, types.SimpleNamespace(output_name="b"))


def test_each_class_has_its_own_row():
    extras = {"reliable": np.array([[True, False]])}
    x, target = np.ones((1, 3)), kx.targets.Class(np.array([[0, 2]]))
    one = kx.Explanation(np.ones((1, 2, 3)), np.ones((1, 2)), target, x, kx.Saliency(), extras)
    found = results.Result({"a": one}, samples.Samples(["x"], [Path("x")], x), None, None)
    rows = [(row["class"], row["reliable"]) for row in found._rows(0)]
    assert rows == [(0, True), (2, False)]


def test_several_outputs_must_be_told_apart(explained):
    _, err = explained(inputs=["table.npy"], model="two.keras", code=2)
    assert "Expected --output-name, one of left, right" in err
    _, err = explained("--output-name", "2", inputs=["table.npy"], model="two.keras", code=2)
    assert "Received: 2." in err


# Models


@pytest.fixture
def tiny_net(monkeypatch, tmp_path):
    """A network of `keras.applications` that is tiny; its weights are in the file that is given."""

    def build(*, weights="imagenet", classes=1000, **options):
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://example.org")
        return network(classes=classes)

    family = types.ModuleType("keras.applications.tiny_net")
    family.preprocess_input = lambda x: x / 100 - 1
    monkeypatch.setattr(keras.applications, "TinyNet", build, raising=False)
    monkeypatch.setattr(keras.applications, "tiny_net", family, raising=False)
    network(classes=1000).save_weights(tmp_path / "tiny.weights.h5")
    return tmp_path / "tiny.weights.h5"


def test_an_application_with_weights_and_names_from_the_disk(
    tiny_net, home, tmp_path, capsys, monkeypatch
):
    def decode(outputs, top):
        return [[(f"n{i}", f"sea_lion_{i}", 1.0)] for i in range(len(outputs))]

    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", decode)
    out = told(
        capsys,
        *("explain", "keras.applications:TinyNet", home / "photos", "--weights", tiny_net),
        *("-o", tmp_path / "out"),
    )
    best = re.match(r"a: predicted sea lion (\d+) \(", out)[1]
    x = np.stack([photo("a"), photo("b")]).astype("float32")
    np.testing.assert_allclose(x_of(tmp_path / "out"), x / 100 - 1, atol=1e-6)
    model = network(classes=1000)
    model.load_weights(tiny_net)
    outputs = model(x_of(tmp_path / "out")).numpy()[0]
    assert int(best) == outputs.argmax()
    summed_up = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    likeliest = [one["class"] for one in summed_up["inputs"][0]["predicted"]]
    assert likeliest == np.argsort(-outputs)[:5].tolist()


def test_without_a_network_it_says_so(tiny_net, home, tmp_path, capsys, monkeypatch):
    def decode(outputs, top):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", decode)
    start = ("explain", "keras.applications:TinyNet", home / "photos", "-o", tmp_path / "out")
    start += ("--figures", "none")
    err = told(capsys, *start, code=1)
    assert "Received: URL fetch failure" in err
    assert "--weights FILE" in err
    assert run(*start, "--weights", tiny_net) == 0
    assert "class names could not be downloaded (no network)" in capsys.readouterr().err
    assert run(*start, "--weights", "none", "--force") == 0
    err = capsys.readouterr().err
    assert "warning: The weights are random" in err
    assert "class names" not in err  # random weights have no classes


def test_wrong_applications(tiny_net, home, capsys, tmp_path):
    def err(*arguments, code, model="keras.applications:TinyNet"):
        return told(capsys, "explain", model, home / "photos", *arguments, code=code)

    assert "Did you mean 'TinyNet'?" in err(model="keras.applications:TinyNett", code=2)
    assert "--classes with a file of weights" in err("--classes", "5", code=2)
    assert "which is no file" in err("--weights", tmp_path / "none.h5", code=1)
    wrong = err("--weights", tiny_net, "--classes", "5", code=1)
    assert "Expected weights of TinyNet with 5 classes" in wrong
    assert "Did you mean keras.applications:TinyNet?" in err(model="tinynet", code=1)
    mine = err("--weights", tiny_net, model=home / "rgb.keras", code=2)
    assert "which has its own" in mine


def test_every_network_of_keras_has_its_preprocessing():
    from keras_explain.cli import models

    families = {name: models._short(models._family(name)) for name in models._applications()}
    assert len(families) > 35
    assert families["MobileNetV3Small"] == "mobilenet_v3"
    assert families["EfficientNetV2B0"] == "efficientnet_v2"
    assert families["ResNet50V2"] == "resnet_v2"
    assert families["ResNet101"] == "resnet"


def test_models_that_cant_be_loaded(home, tmp_path, capsys, explained):
    (tmp_path / "broken.keras").write_text("no zip")
    _, err = explained(model=tmp_path / "broken.keras", code=1)
    assert "Expected a model that Keras can load" in err
    _, err = explained(model=tmp_path / "none.keras", code=1)
    assert "does not exist" in err
    x = keras.Input((SIDE, SIDE, 3))
    y = layers.Dense(2)(layers.Flatten()(layers.Lambda(lambda x: 2 * x)(x)))
    keras.Model(x, y).save(tmp_path / "code.keras")
    _, err = explained(model=tmp_path / "code.keras", code=1)
    assert "--trust loads it" in err
    explained("--trust", "-m", "saliency", model=tmp_path / "code.keras")
    two = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    keras.Model(two, layers.Add()(two)).save(tmp_path / "nest.keras")
    _, err = explained(model=tmp_path / "nest.keras", inputs=["table.npy"], code=1)
    assert "one with the inputs 'left', 'right'" in err


OWN = """
import keras
import keras_explain as kx
from keras import ops, tree

@keras.saving.register_keras_serializable("own_layers")
class Double(keras.layers.Layer):
    def call(self, x):
        return 2 * x

class OwnMethod(kx.Explainer):
    \"\"\"The gradient, times a number.\"\"\"
    times: float = 3.0

    def step(self, probe, x, target, pass_):
        return tree.map_structure(lambda g: self.times * g, probe.gradient(x, target))
"""


def test_layers_and_methods_of_ones_own(tmp_path, monkeypatch, explained, capsys):
    (tmp_path / "own_things.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import own_things

    x = keras.Input((4,))
    model = filled(keras.Model(x, layers.Dense(2)(own_things.Double()(x))))
    model.save(tmp_path / "own.keras")
    arguments = ("--import", "own_things", "-m", "own_method(times=2)")
    folder, _ = explained(*arguments, inputs=["table.npy"], model=tmp_path / "own.keras")
    found = kx.Explanation.load(folder / "own_method.npz")
    kernel = model.weights[0].numpy()
    np.testing.assert_allclose(found.values, 4 * kernel.T[found.target.index], rtol=1e-5)
    assert "own_things.OwnMethod" in told(capsys, "methods", "own_method", "--import", "own_things")
    assert "no_such_module" in told(capsys, "methods", "--import", "no_such_module", code=1)


# What goes wrong inside


def test_an_explainers_own_error_is_told_in_a_line(explained):
    _, err = explained("-m", "grad_cam(layer=conf)", code=1)
    assert err.count("\n") == 1
    assert "'conv'" in err
    assert "Traceback" not in err


def test_an_unexpected_error_names_its_type_and_debug_shows_it(monkeypatch, capsys, tmp_path):
    def broken(*_, **__):
        raise KeyError("gone")

    monkeypatch.setattr(kx, "report", broken, raising=False)
    arguments = ("report", tmp_path, "-o", tmp_path / "r.html")
    assert told(capsys, *arguments, code=1).startswith("keras-explain: error: KeyError: 'gone'")
    assert "in broken" in told(capsys, *arguments, "--debug", code=1)
    interrupted = unittest.mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(kx, "report", interrupted)
    assert "interrupted" in told(capsys, *arguments, code=130)


# report


def test_report_writes_and_replaces_only_when_asked(capsys, tmp_path):
    logs.write(tmp_path / "logs", steps=4, methods=["grad_cam"])
    page = tmp_path / "new" / "page.html"

    def steps():
        return set(re.findall(r"0-step-\d+", page.read_text("utf-8")))

    assert told(capsys, "report", tmp_path / "logs", "-o", page) == f"Wrote {page}\n"
    assert steps() == {f"0-step-{step}" for step in range(4)}
    page.write_text("mine")
    err = told(capsys, "report", tmp_path / "logs", "-o", page, code=1)
    assert "is there already" in err
    assert page.read_text() == "mine"
    told(capsys, "report", tmp_path / "logs", "-o", page, "--force", "--max-steps", "2")
    assert steps() == {"0-step-0", "0-step-3"}


def test_report_reads_logs_without_tensorflow(tmp_path):
    code = f"""
import sys
from keras_explain.cli import main
assert main(["report", {str(tmp_path)!r}, "-o", {str(tmp_path / "page.html")!r}]) == 1
assert "tensorboard" in sys.modules
assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("keras-explain: error: Expected explanations in")
    assert not (tmp_path / "page.html").exists()


def test_report_needs_logs_and_a_file(monkeypatch, capsys, tmp_path):
    assert "no directory" in told(capsys, "report", tmp_path / "none", code=1)
    assert "is a directory" in told(capsys, "report", tmp_path, "-o", tmp_path, "--force", code=1)
    (tmp_path / "file").touch()
    err = told(capsys, "report", tmp_path, "-o", tmp_path / "file" / "r.html", code=1)
    assert "Expected explanations in" in err  # before a folder is made


# What people have: names, folders and spreadsheets

TABLE = {"inputs": ["table.npy"], "model": "binary.keras", "preprocess": None}


def test_a_method_that_has_no_waterfall_stops_no_other(explained):
    folder, err = explained(
        *("-m", "saliency", "-m", "integrated_gradients(steps=2)", "--show", "waterfall"),
        **TABLE,
        figures="each",
        code=1,
    )
    assert "table_0.saliency.png was not drawn (and 2 more). Expected an explanation that" in err
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == {f"table_{i}.integrated_gradients.png" for i in range(3)}
    assert (folder / "saliency.npz").exists()


@pytest.mark.parametrize("target", ["", " ", ",", " , "])
def test_a_target_that_says_no_class(target, explained, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\nb\nc\n")  # the first class has no name
    _, err = explained("--target", target, "--class-names", names, code=2)
    assert f"Expected --target to say a class. Received: {target!r}." in err


NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.mark.skipif(sys.platform != "linux", reason="file systems that have such names")
def test_names_of_files_that_are_not_utf8(explained, home, tmp_path, capsys):
    path = tmp_path / f"{NOT_UTF8}.npy"
    shutil.copy(home / "table.npy", path)
    to = tmp_path / f"out-{NOT_UTF8}"
    out = told(capsys, "explain", home / "binary.keras", path, "-o", to, "--max-figures", "1")
    assert r"caf\udce9_0: " in out
    assert r"out-caf\udce9/caf\udce9_0.integrated_gradients.png" in out
    assert (to / f"{NOT_UTF8}_0.integrated_gradients.png").exists()
    assert table(to)[0]["input"] == r"caf\udce9_0"
    summed_up = json.loads((to / "scores.json").read_text("utf-8"))
    assert summed_up["inputs"][0]["file"] == str(path)


def test_no_cell_of_a_table_is_a_formula(explained, tmp_path):
    names, meant = ["=1+1", "@SUM(A1)", "-5.5"], ["'=1+1", "'@SUM(A1)", "-5.5"]
    (tmp_path / "names.json").write_text(json.dumps(names))
    folder, _ = explained("--class-names", tmp_path / "names.json", "--target", "0,1,2")
    rows = table(folder)
    assert [row["class_name"] for row in rows] == meant * 2
    assert all(float(row["score"]) is not None for row in rows)
    (first, _) = json.loads((folder / "scores.json").read_text("utf-8"))["inputs"]
    assert [row["class_name"] for row in first["explained"]] == names


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("-1+1", "'-1+1"),
        ("+3", "+3"),
        ("-0,5", "-0,5"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_texts_that_begin_like_formulas(text, cell):
    assert results._cell(text) == cell


def test_a_folder_that_can_not_be_written_is_said_before_all_work(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(kx.IntegratedGradients, "__call__", lambda *_, **__: 1 / 0)
    for out in ("file", "file/below/it"):
        assert run("explain", home / "binary.keras", home / "table.npy", "-o", tmp_path / out) == 1
    monkeypatch.setattr(os, "access", lambda *_: False)
    new = tmp_path / "new"
    assert run("explain", home / "binary.keras", home / "table.npy", "-o", new) == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert not new.exists()


def test_all_is_written_where_nobody_reads_what_is_told(home, tmp_path, monkeypatch):
    class Gone(types.SimpleNamespace):
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys, "stdout", Gone())
    arguments = ("--figures", "none", "-o", tmp_path / "out")
    assert run("explain", home / "binary.keras", home / "table.npy", *arguments) == 0
    assert len(table(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "é\nb".encode("latin-1")),
        ("names.json", b"[" * 100_000),
        ("names.json", b"['a']"),
    ],
)
def test_names_that_can_not_be_read(name, content, explained, tmp_path):
    (tmp_path / name).write_bytes(content)
    _, err = explained("--class-names", tmp_path / name, code=1)
    assert "Expected a text file in UTF-8 with a name a line, or a JSON list of names" in err


def test_a_figure_that_fails_leaves_the_one_before(explained, monkeypatch):
    folder, _ = explained(**TABLE, figures="each")
    path = folder / "table_0.integrated_gradients.png"
    before = path.read_bytes()

    def half(self, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    _, err = explained("--force", **TABLE, figures="each", code=1)
    assert "No space left" in err
    assert path.read_bytes() == before
    assert not list(folder.glob(".*"))
