"""The record that explainers return: its fields, its text, and its file."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import tree

import keras_explain as kx
from tests import check, models


@keras.saving.register_keras_serializable("tests")
def first_less_second(y):
    return y[:, 0] - y[:, 1]


def explained(kind, explainer=None, target=None):
    case = models.get(kind)
    target = case.target if target is None else target
    return (explainer or kx.Saliency())(case.model, case.x, target)


def background_of(kind):
    return tree.map_structure(lambda leaf: leaf[:2], models.get(kind).x)


# The record


def test_fields():
    explainer = kx.IntegratedGradients(steps=3)
    case = models.get("tabular")
    explanation = explainer(case.model, case.x, 1)
    assert explanation.explainer is explainer
    assert isinstance(explanation.target, kx.targets.Class)
    np.testing.assert_array_equal(explanation.target.index, [1] * models.ROWS)
    np.testing.assert_array_equal(explanation.x, case.x)
    assert explanation.extras.keys() == {"base_values", "convergence_delta"}
    assert len(explanation) == models.ROWS


def test_extras_say_how_complete_the_values_are():
    explanation = explained("tabular", kx.IntegratedGradients(steps=2, baseline=0.3))
    total = explanation.values.sum(axis=1, dtype="float64")
    expected = total - (explanation.scores - explanation.extras["base_values"])
    np.testing.assert_allclose(explanation.extras["convergence_delta"], expected, atol=1e-6)


def test_frozen():
    explanation = explained("tabular")
    for field in dataclasses.fields(explanation):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(explanation, field.name, None)


def test_a_changed_copy_is_made_by_replace():
    explanation = explained("tabular")
    other = dataclasses.replace(explanation, values=-explanation.values)
    np.testing.assert_array_equal(other.values, -explanation.values)
    assert other.scores is explanation.scores


def test_ten_thousand_values_are_not_in_the_text():
    text = repr(explained("sequential", kx.SmoothGrad(samples=2, noise=0.25)))
    assert "SmoothGrad(samples=2, noise=0.25)" in text
    assert "(4, 8, 8, 3)" in text
    assert "Class(index=int" in text
    assert len(text) < 200


def test_text_of_a_nest():
    text = repr(explained("inputs_dict", kx.GradientSHAP(background=background_of("inputs_dict"))))
    assert "'a': (4, 8, 8, 3)" in text
    assert "'b': (4, 8, 8, 3)" in text
    assert len(text) < 300


# The file

RECORDS = {
    "picture": lambda: explained("sequential"),
    "map": lambda: explained("sequential", kx.GradCAM(layer="conv")),
    "extras": lambda: explained("tabular", kx.IntegratedGradients(steps=2)),
    "list": lambda: explained("inputs_list"),
    "dict": lambda: explained("inputs_dict"),
    "tokens": lambda: explained("tokens_int"),
    "classes": lambda: explained("tabular", target=[[0, 3], [1, 1], [2, 0], [3, 2]]),
    "output": lambda: explained("outputs_dict", target=kx.targets.Class(0, output="kind")),
    "array": lambda: explained("tabular", kx.GradientSHAP(background=models.numbers(5), samples=2)),
    "arrays": lambda: explained(
        "inputs_dict", kx.GradientSHAP(background=background_of("inputs_dict"), samples=2)
    ),
    "baseline": lambda: explained(
        "sequential", kx.IntegratedGradients(steps=2, baseline=kx.baselines.Blur(2.0))
    ),
    "nested_explainer": lambda: explained(
        "sequential", kx.VarGrad(samples=2, explainer=kx.SmoothGrad(samples=2))
    ),
    "probability": lambda: explained("tabular", target=kx.targets.Label(1, of="probability")),
    "neuron": lambda: explained("functional", target=kx.targets.Neuron("conv_b", unit=(1, 2, 3))),
    "region": lambda: explained(
        "segmentation", target=kx.targets.Region(1, mask=np.eye(8, dtype=bool))
    ),
    "function": lambda: explained("tabular", target=kx.targets.Function(first_less_second)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_load_reads_what_save_wrote(name, tmp_path):
    explanation = RECORDS[name]()
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    assert loaded.explainer == explanation.explainer
    assert type(loaded.target) is type(explanation.target)
    assert loaded.target == explanation.target
    assert loaded.extras.keys() == explanation.extras.keys()
    for field in ("values", "x", "extras", "scores"):
        a, b = getattr(loaded, field), getattr(explanation, field)
        tree.assert_same_structure(a, b)
        for p, q in zip(tree.flatten(a), tree.flatten(b), strict=True):
            assert p.dtype == q.dtype
            np.testing.assert_array_equal(p, q)
    assert repr(loaded) == repr(explanation)


def test_a_tuple_of_inputs_stays_a_tuple(tmp_path):
    case = models.get("inputs_list")
    explanation = kx.Saliency()(case.model, tuple(case.x))
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    assert isinstance(loaded.values, tuple)
    assert isinstance(loaded.x, tuple)


class Sides(keras.Model):
    def call(self, x):
        return x["side"] ** 2 - x["side/left"] ** 2


def test_names_of_inputs_may_hold_slashes(tmp_path):
    x = {"side/left": models.numbers(3), "side": models.numbers(3, seed=1)}
    model = Sides()
    model(x)
    explanation = kx.Saliency()(model, x)
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    assert loaded.values.keys() == x.keys()
    tree.map_structure(np.testing.assert_array_equal, loaded.values, explanation.values)


def test_what_was_loaded_explains_again(tmp_path):
    RECORDS["array"]().save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    model = models.get("tabular").model
    again = loaded.explainer(model, loaded.x, loaded.target)
    check.assert_same(again, loaded, exactly=True)


@pytest.mark.parametrize("form", [str, Path])
def test_a_path_is_a_string_or_a_path(form, tmp_path):
    path = form(tmp_path / "e.npz")
    explained("tabular").save(path)
    assert len(kx.Explanation.load(path)) == models.ROWS


def test_a_file_holds_no_pickled_objects(tmp_path):
    RECORDS["classes"]().save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
        assert all(file[name].dtype != object for name in file.files)
    assert header["explainer"] == {
        "class_name": "Saliency",
        "config": {"layer": None, "absolute": True},
    }


def test_a_path_without_npz(tmp_path):
    with pytest.raises(ValueError, match=r"'\.npz'.*e\.txt"):
        explained("tabular").save(tmp_path / "e.txt")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind(tmp_path):
    np.savez(tmp_path / "e.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match=r"Explanation\.save.*e\.npz"):
        kx.Explanation.load(tmp_path / "e.npz")


@pytest.mark.parametrize("write", [lambda p: p.write_text("no"), lambda p: np.save(p, [1.0])])
def test_a_file_that_is_no_archive(tmp_path, write):
    path = tmp_path / "e.npy"
    write(path)
    with pytest.raises(ValueError, match=r"Explanation\.save.*e\.npy"):
        kx.Explanation.load(path)


def test_arrays_of_the_configuration_are_filed_as_arrays(tmp_path):
    background = np.random.default_rng(0).normal(size=(2000, 5)).astype("float32")
    explained("tabular", kx.GradientSHAP(background=background, samples=2)).save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        assert len(file["header"]) < 2000
    loaded = kx.Explanation.load(tmp_path / "e.npz").explainer
    np.testing.assert_array_equal(loaded.background, background)


def test_a_file_of_a_later_format(tmp_path):
    explained("tabular").save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes()) | {"format": 99}
    header = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "e.npz", header=header, **arrays)
    with pytest.raises(ValueError, match=r"format 99.*Update"):
        kx.Explanation.load(tmp_path / "e.npz")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"e\.npz"):
        kx.Explanation.load(tmp_path / "e.npz")


def test_an_explainer_whose_class_is_gone(tmp_path):
    class Gone(kx.Saliency):
        pass

    explained("tabular", Gone()).save(tmp_path / "e.npz")
    Gone.__name__ = "_Gone"  # as if it were not imported
    with pytest.raises(ValueError, match=r"'Gone'.*import its module"):
        kx.Explanation.load(tmp_path / "e.npz")


def test_a_function_that_can_not_be_found_again(tmp_path):
    explanation = explained("tabular", target=kx.targets.Function(lambda y: y[:, 0]))
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.values, explanation.values)
    with pytest.raises(ValueError, match=r"lambda.*was not saved"):
        explained("tabular", target=loaded.target)
