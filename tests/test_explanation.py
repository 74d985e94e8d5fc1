"""The record that explainers return: its fields, its text, and its file."""

import dataclasses
import io
import itertools
import json
import shutil
import struct
import zipfile
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
    names = {"base_values", "convergence_delta", "value_error", "reliable"}
    assert explanation.extras.keys() == names
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
        "class_name": "explainers/Saliency",
        "config": {"layer": None, "call": None, "absolute": True},
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
    with pytest.raises(ValueError, match=r"'explainers/Gone'.*import its module"):
        kx.Explanation.load(tmp_path / "e.npz")


def test_a_function_that_can_not_be_found_again(tmp_path):
    explanation = explained("tabular", target=kx.targets.Function(lambda y: y[:, 0]))
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.values, explanation.values)
    with pytest.raises(ValueError, match=r"lambda.*was not saved"):
        explained("tabular", target=loaded.target)


# Its samples


def assert_equal(a, b):
    """Asserts that two explanations are equal, bit by bit."""
    assert is_equal(a, b)
    for field in ("values", "x", "extras"):
        tree.assert_same_structure(getattr(a, field), getattr(b, field))
    for field in ("units", "channels", "over", "layer_channels"):
        assert getattr(a, field) == getattr(b, field)


@pytest.fixture(scope="module")
def eight():
    """Eight rows of a table, of which three are of one class."""
    x = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")
    return kx.Saliency()(models.get("tabular").model, x, [0, 1, 1, 2, 3, 1, 0, 2])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (0, [0]),
        (np.int64(5), [5]),
        (-1, [7]),
        (slice(2, 4), [2, 3]),
        (slice(None, None, -3), [7, 4, 1]),
        (slice(5, 5), []),
        ([], []),
        ([6, 0, 0, -2], [6, 0, 0, 6]),
        (np.array([3, 1]), [3, 1]),
        ([True, False] * 4, [0, 2, 4, 6]),
        (np.zeros(8, bool), []),
    ],
    ids=repr,
)
def test_some_samples(rows, expected, eight):
    some = eight[rows]
    assert len(some) == len(expected)
    for name in ("values", "scores", "x"):
        np.testing.assert_array_equal(getattr(some, name), getattr(eight, name)[expected])
    np.testing.assert_array_equal(some.extras["reliable"], eight.extras["reliable"][expected])
    assert some.target.index.tolist() == eight.target.index[expected].tolist()
    assert some.explainer is eight.explainer
    assert np.asarray(some).shape == (len(expected), 5)


@pytest.mark.parametrize(
    "rows", [8, -9, 1.0, True, None, "a", (0, 1), [[0]], [True], np.ones((8, 5), bool)], ids=repr
)
def test_samples_that_there_are_not(rows, eight):
    with pytest.raises(IndexError, match=r"Expected some of 8 samples.*mask.*Received: "):
        eight[rows]


def test_one_by_one(eight):
    ones = list(eight)
    assert [len(one) for one in ones] == [1] * 8
    for i, one in enumerate(ones):
        assert_equal(one, eight[i])
    assert_equal(kx.Explanation.join(ones), eight)


def test_a_copy_does_not_keep_the_whole(eight):
    assert eight[2:4].values.base is None
    some = eight[2:4]
    some.values[:] = 0
    assert eight.values.any(axis=1).all()


@pytest.mark.parametrize("name", RECORDS)
def test_cut_and_joined_and_filed(name, tmp_path):
    explanation = RECORDS[name]()
    last, first, rest = explanation[-1], explanation[0], explanation[1:-1]
    assert_equal(kx.Explanation.join([first, rest, last]), explanation)
    both = kx.Explanation.join(iter([last, first]))
    assert_equal(both, explanation[[-1, 0]])
    for i, part in enumerate((first, both, explanation[:0])):
        part.save(tmp_path / f"{i}.npz")
        loaded = kx.Explanation.load(tmp_path / f"{i}.npz")
        assert parts(loaded) == parts(part)
        assert loaded.target == part.target


@pytest.mark.parametrize("kind", ["sequential", "tabular", "tokens_int", "series"])
def test_some_samples_are_drawn_as_the_whole_is(kind):
    explanation = explained(kind, kx.InputXGradient())
    figure, of_two = explanation[2].plot(), explanation[[2]].plot()
    assert [t.get_text() for t in figure.texts] == [t.get_text() for t in of_two.texts]
    some, whole = explanation[[2, 0]].to_shap(), explanation.to_shap()
    np.testing.assert_array_equal(some.values, whole.values[[2, 0]])
    with pytest.raises(ValueError, match=r"at least one sample.*Received: one of none"):
        explanation[:0].plot()
    assert explanation[:0]._repr_html_() is None


# What an explainer has for each sample

TABLE = models.numbers(5, seed=3)
NAMED = {name: TABLE[:, i] for i, name in enumerate("abcde")}
PICTURES = models.numbers(*models.PICTURE, seed=4)
MAPS = np.arange(4)[:, None, None] + np.arange(64).reshape(8, 8) // 9 % 4 * np.arange(1, 9)
PAIR = {"a": PICTURES, "b": 0.5}
BY_SAMPLE = {
    "array": ("sequential", kx.IntegratedGradients(steps=2, baseline=PICTURES)),
    "given": ("tabular", kx.IntegratedGradients(steps=2, baseline=kx.baselines.Given(TABLE))),
    "numbers": ("tabular", kx.IntegratedGradients(steps=2, baseline=TABLE.tolist())),
    "columns": ("tabular", kx.IntegratedGradients(steps=2, baseline=NAMED)),
    "dict": ("inputs_dict", kx.IntegratedGradients(steps=2, baseline=PAIR)),
    "list": ("inputs_list", kx.IntegratedGradients(steps=2, baseline=[0.5, PICTURES])),
    "inside": (
        "tabular",
        kx.SmoothGrad(samples=2, explainer=kx.IntegratedGradients(steps=2, baseline=TABLE)),
    ),
    "hidden": ("tabular", kx.FeatureAblation(baseline=TABLE)),
    "maps": ("sequential", kx.FeatureAblation(features=kx.features.Segments(labels=MAPS))),
    "maps_by_input": (
        "inputs_dict",
        kx.FeatureAblation(
            features={"a": kx.features.Segments(labels=MAPS), "b": kx.features.Grid(2)}
        ),
    ),
}


@pytest.mark.parametrize("name", BY_SAMPLE)
def test_what_an_explainer_has_for_each_sample_is_cut_too(name):
    kind, explainer = BY_SAMPLE[name]
    explanation, model = explained(kind, explainer), models.get(kind).model
    for rows in ([2, 0], [3], [1, 1]):
        some = explanation[rows]
        assert some.explainer != explainer
        check.assert_same(some.explainer(model, some.x, some.target), explanation[rows])


@pytest.mark.parametrize("name", BY_SAMPLE)
def test_and_joined(name):
    kind, explainer = BY_SAMPLE[name]
    explanation, model = explained(kind, explainer), models.get(kind).model
    joined = kx.Explanation.join([explanation[3][[0, 0]], explanation[0], explanation[1:3]])
    again = joined.explainer(model, joined.x, joined.target)
    check.assert_same(again, explanation[[3, 3, 0, 1, 2]])
    with pytest.raises(ValueError, match="read-only"):
        joined.explainer.arrays()[0][:] = 0


@pytest.mark.parametrize("baseline", [TABLE[:1], TABLE[0], 0.5, kx.baselines.Mean(TABLE)], ids=repr)
def test_what_serves_all_samples_stays(baseline):
    explanation = explained("tabular", kx.IntegratedGradients(steps=2, baseline=baseline))
    assert explanation[[2, 1]].explainer == explanation.explainer
    assert kx.Explanation.join([explanation[:1], explanation]).explainer == explanation.explainer


def test_a_baseline_of_one_number_for_each_sample():
    x = keras.Input((1,))
    model = models.made(x, keras.layers.Dense(1)(keras.ops.square(x)))
    baseline = np.array([0.0, 1.0, 2.0, 3.0])
    explanation = kx.IntegratedGradients(steps=5, baseline=baseline)(model, models.numbers(1))
    some = kx.Explanation.join([explanation[3], explanation[:2]])
    assert some.explainer.baseline.tolist() == [3.0, 0.0, 1.0]
    check.assert_same(some.explainer(model, some.x), explanation[[3, 0, 1]])


# Several joined


def test_explanations_that_are_not_joined(eight):
    model, join = models.get("tabular").model, kx.Explanation.join
    x = eight.x
    with pytest.raises(ValueError, match=r"at least one explanation to join. Received: none"):
        join([])
    with pytest.raises(TypeError, match=r"Expected explanations to join. Received: a ndarray"):
        join([eight, x])
    others = {
        "the explainer": kx.InputXGradient()(model, x),
        "the target": kx.Saliency()(model, x, kx.targets.Label(1)),
        "the shape of scores": kx.Saliency()(model, x, np.ones((8, 1), int)),
        "channels": explained("series"),
        "units": dataclasses.replace(eight, units=3),
        "the shape of values": dataclasses.replace(eight, values=eight.values[:, :3]),
        "over": dataclasses.replace(eight, over=0),
        "layer_channels": dataclasses.replace(eight, layer_channels=-1),
        "the shape of extras": dataclasses.replace(eight, extras={}),
        "the shape of x": dataclasses.replace(eight, x=x[:, :3]),
        "whether the target has an index": dataclasses.replace(
            eight, target=kx.targets.Class(None)
        ),
    }
    for what, other in others.items():
        with pytest.raises(ValueError, match=rf"agree in {what}, .*in part 0 and .* in part 1"):
            join([eight, other])


def test_explainers_with_other_numbers_are_not_joined():
    model, x = models.get("tabular").model, models.numbers(5)
    baselines = [TABLE, TABLE[0]]
    explanations = [kx.IntegratedGradients(steps=2, baseline=b)(model, x, 1) for b in baselines]
    with pytest.raises(ValueError, match="agree in the explainer"):
        kx.Explanation.join(explanations)


def test_columns_of_ints_in_some_batches_are_float32(eight):
    ints = dataclasses.replace(eight, x=eight.x.astype("int32"))
    joined = kx.Explanation.join([eight, ints])
    assert joined.x.dtype == np.float32
    np.testing.assert_array_equal(joined.x[8:], ints.x)


def test_texts_of_other_lengths_are_joined(eight):
    short, long = np.array([["a"]] * 8), np.array([["abcdef"]] * 8)
    pair = [dataclasses.replace(eight, extras={"tokens": words}) for words in (short, long)]
    joined = kx.Explanation.join(pair)
    assert joined.extras["tokens"][[0, 8], 0].tolist() == ["a", "abcdef"]


def test_a_target_that_was_one_number_for_all(eight):
    by_hand = dataclasses.replace(eight, target=kx.targets.Class(2))
    assert by_hand[3].target.index == 2
    joined = kx.Explanation.join([by_hand, eight[1:3]])
    assert joined.target.index.tolist() == [2] * 8 + [1, 1]


# Broken and hostile files


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An explanation of one row, and its file."""
    case = models.get("tabular")
    explanation = kx.Saliency()(case.model, case.x[:1], 1)
    path = tmp_path_factory.mktemp("small") / "e.npz"
    explanation.save(path)
    return explanation, path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def with_header(small, path, header):
    """The small file with another header: a dict, or the bytes of its JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    array = io.BytesIO()
    np.save(array, np.frombuffer(text, np.uint8))
    return zipped(path, members(small[1]) | {"header.npy": array.getvalue()})


def header_of(path):
    with np.load(path) as file:
        return json.loads(file["header"].tobytes())


def is_equal(a, b):
    return a.explainer == b.explainer and a.target == b.target and parts(a) == parts(b)


def parts(explanation):
    fields = (explanation.values, explanation.scores, explanation.x, explanation.extras)
    return [(a.dtype, a.shape, a.tobytes()) for a in tree.flatten(fields)]


def assert_refused(path):
    with pytest.raises(ValueError, match=r"Expected a file written by Explanation\.save.*\.npz"):
        kx.Explanation.load(path)


def test_any_flipped_byte_is_found_or_makes_no_difference(small, tmp_path):
    explanation, path = small
    raw, refused = path.read_bytes(), 0
    for at in range(len(raw)):
        (tmp_path / "e.npz").write_bytes(raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :])
        try:
            assert is_equal(kx.Explanation.load(tmp_path / "e.npz"), explanation)
        except ValueError as error:
            assert str(error).startswith("Expected a file written by")  # noqa: PT017
            refused += 1
    assert refused > len(raw) / 2


def test_a_file_that_was_cut_off(small, tmp_path):
    raw = small[1].read_bytes()
    for length in range(0, len(raw), 9):
        (tmp_path / "e.npz").write_bytes(raw[:length])
        assert_refused(tmp_path / "e.npz")


def test_arrays_that_were_swapped(small, tmp_path):
    contents = members(small[1])
    for a, b in itertools.combinations(contents, 2):
        swapped = contents | {a: contents[b], b: contents[a]}
        assert_refused(zipped(tmp_path / "e.npz", swapped))


def test_arrays_that_are_missing(small, tmp_path):
    contents = members(small[1])
    for name in contents:
        left = {other: content for other, content in contents.items() if other != name}
        assert_refused(zipped(tmp_path / "e.npz", left))


SALIENCY = {"class_name": "Saliency", "config": {}}
CHANGES = {
    "values_for_x": {"values": "x", "x": "values"},
    "no_values": {"values": ["dict", {}]},
    "values_of_no_kind": {"values": ["set", ["values"]]},
    "values_of_no_shape": {"values": []},
    "null": {"values": None},
    "extras_that_are_an_array": {"extras": "scores"},
    "extras_in_a_list": {"extras": ["list", []]},
    "a_target_for_the_explainer": {"explainer": {"class_name": "Class", "config": {}}},
    "an_explainer_for_the_target": {"target": SALIENCY},
    "no_such_class": {"explainer": {"class_name": "Nope", "config": {}}},
    "no_such_parameter": {"explainer": {"class_name": "Saliency", "config": {"nope": 1}}},
    "a_parameter_that_can_not_be": {
        "explainer": {"class_name": "IntegratedGradients", "config": {"steps": -1}}
    },
    "parameters_in_a_list": {"explainer": {"class_name": "Saliency", "config": []}},
    "no_description": {"explainer": []},
    "a_target_for_more_rows": {"target": {"class_name": "Class", "config": {"index": [1, 2]}}},
    "units": {"units": "many"},
    "an_input_that_there_is_not": {"over": 1},
    "an_axis_that_there_is_not": {"channels": [3]},
    "axes_of_two_inputs": {"channels": [None, None]},
    "an_axis_of_a_layer_that_there_is_not": {"layer_channels": 3},
    "format_as_text": {"format": "1"},
    "digests_in_a_list": {"digests": []},
    "a_digest_of_nothing": {"digests": {"nope": ""}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_can_not_be(name, small, tmp_path):
    header = header_of(small[1]) | CHANGES[name]
    assert_refused(with_header(small, tmp_path / "e.npz", header))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b'{"format":' + b"9" * 5000 + b"}",
        b'{"format":1,"a":"' + b"a" * 2**24 + b'"}',
    ],
    ids=lambda text: f"{text[:9]!r}{len(text)}",
)
def test_a_header_that_is_none(text, small, tmp_path):
    assert_refused(with_header(small, tmp_path / "e.npz", text))


def npy(text, data=b"", version=1):
    """An array that says of itself what it likes."""
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def described(kind, shape):
    return repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()


PICKLE = b"cos\nsystem\n(S'exit 1'\ntR."
ARRAYS = {
    "far_too_large": npy(described("<f4", (10**12,))),
    "below_nothing": npy(described("<f4", (-2, 5))),
    "of_empty_texts": npy(described("<U0", (10**12,))),
    "pickled": npy(described("|O", (1,)), PICKLE),
    "a_pickle": PICKLE,
    "nested_signs": npy(b"-" * 9000 + b"1"),
    "nested_brackets": npy(b"(" * 9000),
    "a_large_description": npy(b"{" * 10**6, version=2),
    "fields": npy(described([("a", "<f4")], (1,)), bytes(4)),
    "longer_than_it_says": npy(described("<f4", (1, 5)), bytes(21)),
    "of_other_rows": npy(described("<f4", (3, 5)), bytes(60)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_can_not_be(name, small, tmp_path):
    header = header_of(small[1])
    del header["digests"]  # as in a file of an earlier version
    path = with_header(small, tmp_path / "e.npz", header)
    assert_refused(zipped(path, members(path) | {"x.npy": ARRAYS[name]}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(small, tmp_path):
    path = shutil.copy(small[1], tmp_path / "e.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", archive.read("values.npy"))
    assert_refused(path)


def test_sizes_that_no_file_of_its_size_has(small, tmp_path):
    raw = bytearray(small[1].read_bytes())
    at = raw.index(b"PK\x01\x02") + 24  # the size of the first array, once more at the end
    raw[at : at + 4] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "e.npz").write_bytes(raw)
    assert_refused(tmp_path / "e.npz")


def test_a_file_of_an_earlier_version(small, tmp_path):
    header = header_of(small[1])
    del header["digests"]
    loaded = kx.Explanation.load(with_header(small, tmp_path / "e.npz", header))
    assert is_equal(loaded, small[0])


def test_no_module_is_imported_because_a_file_says_so(small, tmp_path):
    function = {"class_name": "function", "config": "system", "module": "os"}
    target = {"class_name": "Function", "config": {"fn": function, "index": None}}
    header = header_of(small[1]) | {"target": target}
    loaded = kx.Explanation.load(with_header(small, tmp_path / "e.npz", header))
    with pytest.raises(ValueError, match="'system' was not saved"):
        loaded.target.fn("exit 1")


def test_parts_that_do_not_fit_are_not_saved(small, tmp_path):
    explanation, path = small[0], tmp_path / "e.npz"
    explanation.save(path)
    for change in (
        {"values": np.zeros((2, 5), np.float32)},
        {"x": np.zeros((2, 5), np.float32)},
        {"extras": {"more": np.zeros(3)}},
        {"scores": np.zeros(1, np.int32)},
    ):
        with pytest.raises(ValueError, match=r"Expected .* Received: "):
            dataclasses.replace(explanation, **change).save(path)
    assert is_equal(kx.Explanation.load(path), explanation)


def test_objects_are_not_saved(small, tmp_path):
    explanation = dataclasses.replace(small[0], x=np.array([["a", None]], object))
    with pytest.raises(ValueError, match=r"Expected arrays of numbers or texts.*'x' of dtype obj"):
        explanation.save(tmp_path / "e.npz")
    assert not list(tmp_path.iterdir())


def test_keys_that_give_one_name_twice(small, tmp_path):
    nest = {"a": {"b": np.zeros((1, 2), np.float32)}, "a/b": np.ones((1, 3), np.float32)}
    explanation = dataclasses.replace(small[0], values=nest, x=nest, channels=(None, None))
    explanation.save(tmp_path / "e.npz")
    assert is_equal(kx.Explanation.load(tmp_path / "e.npz"), explanation)


def test_a_file_is_replaced_only_by_a_whole_one(small, tmp_path, monkeypatch):
    explanation, path = small[0], tmp_path / "e.npz"
    explanation.save(path)
    before = path.read_bytes()

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="No space left"):
        explanation.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
