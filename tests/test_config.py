"""Explainers, targets and baselines as values: equal, hashable, printable, serialisable."""

import copy
import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain import baselines
from keras_explain.core.config import deserialize, serialize
from keras_explain.core.names import snake_name
from tests import check, models

X = models.numbers(5)
EXPLAINERS = {cls.__name__: check.explainer_for(cls, X) for cls in check.explainer_classes()} | {
    "layer": kx.GradCAM(layer="backbone/conv_last"),
    "array": kx.IntegratedGradients(baseline=np.arange(5.0)),
    "object": kx.IntegratedGradients(steps=7, baseline=kx.baselines.Blur(sigma=2.5)),
    "mean": kx.IntegratedGradients(baseline=kx.baselines.Mean(X)),
    "list": kx.IntegratedGradients(baseline=[0.5, np.ones(3, "float32")]),
    "dict": kx.GradientSHAP(background={"a": X, "b": X[:, :2].astype("int32")}),
    "inner": kx.SmoothGrad(explainer=kx.VarGrad(explainer=kx.GradCAM(layer="conv")), noise=0.3),
}
TARGETS = {
    "class": kx.targets.Class(3),
    "predicted": kx.targets.Class(),
    "classes": kx.targets.Class([1, 2, 3], of="probability", output="kind"),
    "columns": kx.targets.Class([[1, 2], [3, 0]]),
    "label": kx.targets.Label(np.array([0, 1])),
    "regression": kx.targets.Regression(output=1),
    "channel": kx.targets.Neuron("conv", 2),
    "unit": kx.targets.Neuron("conv", unit=(1, 2, 3)),
    "region": kx.targets.Region(1, mask=np.eye(4, dtype=bool)),
    "function": kx.targets.Function(keras.activations.relu),
}
BASELINES = {
    "zeros": kx.baselines.Zeros(),
    "constant": kx.baselines.Constant(0.5),
    "given": kx.baselines.Given(np.arange(5.0)),
    "mean": kx.baselines.Mean(X),
    "blur": kx.baselines.Blur(3.0),
}
ALL = {
    f"{group}-{name}": value
    for group, values in {"explainer": EXPLAINERS, "target": TARGETS, "baseline": BASELINES}.items()
    for name, value in values.items()
}


def each(values):
    return pytest.mark.parametrize("config", values.values(), ids=values)


def assert_equal_but_not_the_same(a, b):
    assert a is not b
    assert type(a) is type(b)
    assert a == b
    assert hash(a) == hash(b)
    assert repr(a) == repr(b)


# Identity


@each(ALL)
def test_equal_to_a_copy(config):
    for other in (copy.copy(config), copy.deepcopy(config), config.replace()):
        assert_equal_but_not_the_same(other, config)


@each({k: v for k, v in ALL.items() if k != "target-function"})
def test_equal_after_pickling(config):
    assert_equal_but_not_the_same(pickle.loads(pickle.dumps(config)), config)


def test_different_from_all_others():
    assert len(set(ALL.values())) == len(ALL)
    for i, a in enumerate(ALL.values()):
        for j, b in enumerate(ALL.values()):
            assert (a == b) == (i == j)


@each(ALL)
def test_different_from_what_is_no_configuration(config):
    assert config != repr(config)
    assert config != 3
    assert config is not None
    assert (config == None) is False  # noqa: E711


def test_a_subclass_is_different():
    class _Mine(kx.Saliency):
        pass

    assert _Mine() != kx.Saliency()
    assert kx.targets.Label(1) != kx.targets.Class(1)


def test_numbers_of_different_type_are_different_structures():
    """1 == True == 1.0 in Python, but what is compiled for one need not be right for another."""
    assert kx.Saliency(absolute=True).structure != kx.Saliency(absolute=1).structure
    assert (
        kx.IntegratedGradients(baseline=1).structure
        != kx.IntegratedGradients(baseline=1.5).structure
    )


@each(ALL)
def test_frozen(config):
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.anything = 1


# Arrays


def arrays_in(value):
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [a for item in value for a in arrays_in(item)] if isinstance(value, list | tuple) else []


@each({k: v for k, v in ALL.items() if arrays_in(v)})
def test_arrays_are_read_only(config):
    for array in arrays_in(config):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert len(config.arrays()) == len(arrays_in(config))


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), lambda c: c.replace()],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_arrays_of_copies_are_read_only(copied):
    assert not copied(kx.GradientSHAP(background=X)).background.flags.writeable


def test_arrays_are_copied():
    background = X.copy()
    explainer = kx.GradientSHAP(background=background)
    background[:] = 0
    np.testing.assert_array_equal(explainer.background, X)
    assert background.flags.writeable


def test_a_read_only_view_of_an_array_that_changes_is_copied():
    background = X.copy()
    view = background[:]
    view.setflags(write=False)
    explainer = kx.GradientSHAP(background=view)
    background[:] = 0
    np.testing.assert_array_equal(explainer.background, X)


def test_arrays_are_compared_by_content():
    a, b = kx.GradientSHAP(background=X), kx.GradientSHAP(background=X.copy())
    assert_equal_but_not_the_same(a, b)
    other = X.copy()
    other[-1, -1] += 1
    assert a != kx.GradientSHAP(background=other)
    assert a != kx.GradientSHAP(background=X.astype("float64"))
    assert a != kx.GradientSHAP(background=X.reshape(X.shape[::-1]))


@pytest.mark.parametrize("as_other", [ops.convert_to_tensor, keras.Variable], ids=["tensor", "var"])
def test_tensors_become_arrays(as_other):
    explainer = kx.GradientSHAP(background=as_other(X))
    assert isinstance(explainer.background, np.ndarray)
    assert explainer == kx.GradientSHAP(background=X)


def test_numpy_scalars_become_numbers():
    explainer = kx.IntegratedGradients(steps=np.int64(8), baseline=np.float64(0.5))
    assert explainer == kx.IntegratedGradients(steps=8, baseline=0.5)
    assert type(explainer.steps) is int


def test_lists_become_tuples():
    assert kx.IntegratedGradients(baseline=[1.0, 2.0]).baseline == (1.0, 2.0)
    assert kx.targets.Class([1, 2]) == kx.targets.Class((1, 2))


def test_a_dict_is_copied():
    background = {"a": X}
    explainer = kx.GradientSHAP(background=background)
    background["b"] = X
    assert explainer.background.keys() == {"a"}


def test_arrays_that_differ_share_a_structure():
    """What is compiled for one background serves another of its shape."""
    a, b = kx.GradientSHAP(background=X), kx.GradientSHAP(background=X + 1)
    assert a != b
    assert a.structure == b.structure
    assert a.structure != kx.GradientSHAP(background=X[:2]).structure
    assert len(a.arrays()) == 1


# Layers


def test_a_layer_object_is_stored_by_name():
    layer = layers.Dense(3, name="mine")
    assert kx.GradCAM(layer=layer) == kx.GradCAM(layer="mine")
    assert kx.targets.Neuron(layer, 1) == kx.targets.Neuron("mine", 1)
    assert repr(kx.GradCAM(layer=layer)) == "GradCAM(layer='mine')"


def test_a_layer_object_of_a_nested_model_is_explained():
    case = models.get("nested")
    layer = case.model.get_layer("backbone").get_layer("conv_first")
    by_object = kx.GradCAM(layer=layer)(case.model, case.x)
    by_path = kx.GradCAM(layer="backbone/conv_first")(case.model, case.x)
    check.assert_same(by_object, by_path, exactly=True)


# replace


def test_replace_changes_the_named_fields_only():
    explainer = kx.IntegratedGradients(steps=8, baseline=0.5)
    assert explainer.replace(steps=9) == kx.IntegratedGradients(steps=9, baseline=0.5)
    assert explainer == kx.IntegratedGradients(steps=8, baseline=0.5)
    assert kx.targets.Class(3, of="probability").replace(index=1) == kx.targets.Class(
        1, of="probability"
    )
    neuron = kx.targets.Neuron("conv", 2)
    assert neuron.replace(index=3) == kx.targets.Neuron("conv", 3)
    assert kx.baselines.Blur(3.0).replace(sigma=1.0) == kx.baselines.Blur(1.0)


def test_replace_checks_again():
    with pytest.raises(ValueError, match="steps=0"):
        kx.IntegratedGradients().replace(steps=0)
    with pytest.raises(TypeError, match="stepps"):
        kx.IntegratedGradients().replace(stepps=1)


def test_replace_of_a_mean_keeps_the_mean():
    mean = kx.baselines.Mean(X)
    assert mean.replace() == mean
    np.testing.assert_allclose(mean.data, X.mean(axis=0, keepdims=True), rtol=1e-6)


# repr


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (kx.Saliency(), "Saliency()"),
        (kx.Saliency(absolute=False), "Saliency(absolute=False)"),
        (kx.IntegratedGradients(steps=8), "IntegratedGradients(steps=8)"),
        (
            kx.SmoothGrad(explainer=kx.GradCAM(layer="conv"), samples=3),
            "SmoothGrad(explainer=GradCAM(layer='conv'), samples=3)",
        ),
        (kx.targets.Class(3), "Class(index=3)"),
        (kx.targets.Neuron("conv", 3), "Neuron(index=3, layer='conv')"),
        (kx.baselines.Blur(), "Blur()"),
    ],
    ids=str,
)
def test_repr_shows_what_differs_from_the_defaults(config, text):
    assert repr(config) == text


def test_repr_shows_arrays_by_shape():
    assert repr(kx.GradientSHAP(background=X)) == "GradientSHAP(background=float32[4, 5])"
    assert len(repr(EXPLAINERS["dict"])) < 120


# Serialisation


@each(ALL)
def test_get_config_is_plain_and_complete(config):
    description = config.get_config()
    assert description.keys() == set(config.get_config())
    through_json = json.loads(json.dumps(description))
    assert_equal_but_not_the_same(type(config).from_config(through_json), config)


@each(ALL)
def test_serialized_form_names_the_class(config):
    description = json.loads(json.dumps(serialize(config)))
    home, name = description["class_name"].split("/")
    assert getattr(getattr(kx, home), name) is type(config)
    assert_equal_but_not_the_same(deserialize(description), config)
    without_home = description | {"class_name": name}  # as it was described before
    assert_equal_but_not_the_same(deserialize(without_home), config)


@each(EXPLAINERS)
def test_get_of_a_serialized_form(config):
    description = {"class_name": type(config).__name__, "config": config.get_config()}
    assert_equal_but_not_the_same(kx.get(description), config)


@pytest.mark.parametrize("cls", check.explainer_classes())
def test_get_by_name(cls):
    required = [f for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    if not required:
        assert kx.get(cls.__name__) == cls()
        assert kx.get(snake_name(cls.__name__)) == cls()


@each(EXPLAINERS)
def test_get_of_an_explainer_is_the_explainer(config):
    assert kx.get(config) is config


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Saliency", "saliency"),
        ("GradCAM", "grad_cam"),
        ("GradCAMPlusPlus", "grad_cam_plus_plus"),
        ("GradientSHAP", "gradient_shap"),
        ("InputXGradient", "input_x_gradient"),
        ("HiResCAM", "hi_res_cam"),
        ("XGradCAM", "x_grad_cam"),
        ("KernelSHAP", "kernel_shap"),
        ("LRP", "lrp"),
        ("CAM", "cam"),
        ("DeepLIFT", "deep_lift"),
        ("RISE", "rise"),
        ("VarGrad", "var_grad"),
    ],
)
def test_snake_names(name, snake):
    assert snake_name(name) == snake


def test_a_class_of_one_s_own_is_known_by_name():
    class MySaliency(kx.Saliency):
        power: int = 2

        def finish(self, probe, total, x):
            return total**self.power

    assert kx.get("my_saliency") == MySaliency()
    assert (
        repr(kx.get({"class_name": "MySaliency", "config": {"power": 3}})) == "MySaliency(power=3)"
    )
    case = models.get("tabular")
    expected = kx.Saliency()(case.model, case.x).values ** 2
    np.testing.assert_allclose(
        kx.get("my_saliency")(case.model, case.x).values, expected, rtol=1e-5
    )


def test_two_classes_of_one_name_are_told_apart_by_their_homes():
    class Namesake(baselines.Baseline, kw_only=False):
        value: float = 1.0

        def __call__(self, x, row):
            return x * 0 + self.value

    first = Namesake(2.0)

    class Namesake(kx.Saliency):
        value: float = 3.0

    for config, home in ((first, "baselines"), (Namesake(), "explainers")):
        description = serialize(config)
        assert description["class_name"] == f"{home}/Namesake"
        assert deserialize(description) == config
    with pytest.raises(ValueError, match=r"class with its home: '.*/Namesake', '.*/Namesake'"):
        deserialize({"class_name": "Namesake"})


@pytest.mark.parametrize(
    "name", ["os/Saliency", "targets/Saliency", "../Saliency", "/Saliency", ""]
)
def test_a_class_is_at_its_home_alone(name):
    with pytest.raises(ValueError, match="Expected the name of an explainer"):
        deserialize({"class_name": name, "config": {}})


def test_an_explainer_by_name_inside_another():
    assert kx.SmoothGrad(explainer="grad_cam") == kx.SmoothGrad(explainer=kx.GradCAM())


# Equal configurations explain alike, and share what is compiled


def test_equal_explainers_share_what_is_compiled():
    case = models.fresh("tabular")
    for _ in range(2):
        kx.GradientSHAP(background=X.copy(), samples=3)(case.model, case.x)
        with check.nothing_traced():
            kx.GradientSHAP(background=X + 1, samples=3)(case.model, case.x)


def test_another_background_gives_other_values():
    case = models.get("tabular")
    a = kx.GradientSHAP(background=X, samples=3)(case.model, case.x)
    b = kx.GradientSHAP(background=X + 1, samples=3)(case.model, case.x)
    assert check.distance(b.values, a.values) > 1e-2


def test_what_was_read_back_explains_alike():
    case = models.get("tabular")
    for explainer in (EXPLAINERS["array"], EXPLAINERS["mean"], EXPLAINERS["GradientSHAP"]):
        again = kx.get(json.loads(json.dumps(serialize(explainer))))
        check.assert_same(again(case.model, case.x), explainer(case.model, case.x), exactly=True)
