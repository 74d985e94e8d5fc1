"""The contract of every explainer, on every kind of model (see `check.py` and `models.py`)."""

import copy
import gc
import pickle
import random
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

import keras_explain as kx
from tests import check, models

CLASSES = {cls.__name__: cls for cls in check.explainer_classes()}
# One of each sort: passes over the input, and a map of a layer.
SORTS = ["IntegratedGradients", "GradCAM"]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", models.COMMON)
def test_contract(name, kind):
    case = models.get(kind)
    explainer = check.explainer_for(CLASSES[name], case.x)
    if (name, kind) in check.REFUSED:
        with pytest.raises(ValueError, match=check.REFUSED[name, kind]):
            explainer(case.model, case.x, case.target)
    else:
        check.check_explainer(explainer, case.model, case.x, case.target)


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("kind", models.NASTY)
def test_contract_on_nasty_models(name, kind):
    case = models.get(kind)
    explainer = check.explainer_for(CLASSES[name], case.x)
    check.check_explainer(explainer, case.model, case.x, case.target)


# The check itself: it takes in every class, and finds what breaks the contract


def test_every_public_class_is_checked():
    assert CLASSES.keys() >= {"GradCAM", "GradientSHAP", "IntegratedGradients", "Saliency"}
    assert "Explainer" not in CLASSES


def test_a_class_with_an_unknown_argument_fails_and_says_what_to_add():
    class _NeedsData(kx.Saliency):
        data: object

    with pytest.raises(AssertionError, match=r"Add _NeedsData to ARGUMENTS .* \{'data'\}"):
        check.explainer_for(_NeedsData, models.numbers(5))


class _Double(kx.Saliency):
    def finish(self, probe, total, x):
        return ops.cast(total, "float64")


class _Infinite(kx.Saliency):
    def finish(self, probe, total, x):
        return total / ops.zeros_like(total)


class _OtherShape(kx.Saliency):
    def finish(self, probe, total, x):
        return ops.sum(total, axis=-1)


class _DependsOnTheBatch(kx.Saliency):
    def finish(self, probe, total, x):
        return total - ops.mean(total, axis=0, keepdims=True)


class _DependsOnThePosition(kx.Saliency):
    def finish(self, probe, total, x):
        return total * (1 + ops.cast(probe.row, "float32"))[:, None]


class _Unseeded(kx.Saliency):
    def passes(self, seed):
        return {"factor": np.random.default_rng().random(3, dtype="float32")}

    def step(self, probe, x, target, pass_):
        return super().step(probe, x, target, {}) * pass_["factor"][:, None]


class _GloballySeeded(_Unseeded):
    def passes(self, seed):
        return {"factor": np.array([random.random()], "float32")}


class _AlwaysClassZero(kx.Saliency):
    def step(self, probe, x, target, pass_):
        return super().step(probe, x, target * 0, pass_)


class _IgnoresTheModel(kx.Saliency):
    def step(self, probe, x, target, pass_):
        probe.scores(x, target)
        return x * (1 + ops.cast(target, "float32"))


class _LeavesAttributes(kx.Saliency):
    def step(self, probe, x, target, pass_):
        probe._opened.model.layers[1].__dict__["seen"] = True
        return super().step(probe, x, target, pass_)


class _ChangesTheInput(kx.Saliency):
    def check(self, x):
        x[0] += 0.01


class _RunsLayers(kx.Saliency):
    def check(self, x):
        layers.ReLU()(x)


BROKEN = [
    _Double,
    _Infinite,
    _OtherShape,
    _DependsOnTheBatch,
    _DependsOnThePosition,
    _Unseeded,
    _GloballySeeded,
    _AlwaysClassZero,
    _IgnoresTheModel,
    _LeavesAttributes,
    _ChangesTheInput,
    _RunsLayers,
]


@pytest.mark.parametrize("cls", BROKEN)
def test_the_check_finds(cls):
    case = models.fresh("tabular")
    with pytest.raises(AssertionError):
        check.check_explainer(cls(), case.model, case.x)


def test_the_check_finds_changed_weights():
    class _ChangesWeights(kx.Saliency):
        def check(self, x):
            case.model.layers[1].bias.assign_add(ops.ones((7,)))

    case = models.fresh("tabular")
    with pytest.raises(AssertionError):
        check.check_explainer(_ChangesWeights(), case.model, case.x)


# Live weights, and the end of a model


@pytest.mark.parametrize(
    "kind",
    [
        "nested",
        "subclassed",
        "fixed_batch",
        "tf_function",
        "inputs_dict",
        "tokens_int",
        "mixed_bfloat16",
        "quantized",
    ],
)
def test_values_are_those_of_a_fresh_model_with_the_weights(kind):
    case, other = models.get(kind), models.fresh(kind)
    explainer = kx.IntegratedGradients(steps=3)
    explainer(case.model, case.x)
    with check.other_weights(case.model), check.other_weights(other.model):
        received, expected = explainer(case.model, case.x), explainer(other.model, case.x)
    check.assert_same(received, expected)


def test_values_follow_a_step_of_fit():
    case, other = models.fresh("dropout_batchnorm"), models.fresh("dropout_batchnorm")
    case.model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    explainer = kx.IntegratedGradients(steps=3)
    before = explainer(case.model, case.x)
    case.model.fit(case.x, np.arange(models.ROWS), verbose=0)
    optimizer = [ops.convert_to_numpy(variable) for variable in case.model.optimizer.variables]
    with check.nothing_traced():
        received = explainer(case.model, case.x)
    other.model.set_weights(case.model.get_weights())
    check.assert_same(received, explainer(other.model, case.x))
    assert check.distance(received.values, before.values) > 1e-2
    for variable, value in zip(case.model.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.fixture
def is_collected():
    """A function that takes a list with nothing but a model, and tells whether it can be freed."""
    gc.freeze()  # what is here already need not be searched

    def is_collected(models):
        reference = weakref.ref(models.pop())
        gc.collect()
        return reference() is None

    yield is_collected
    gc.unfreeze()


@pytest.mark.parametrize("name", CLASSES)
def test_an_explained_model_is_collected(name, is_collected):
    case = models.fresh("nested")
    explanation = check.explainer_for(CLASSES[name], case.x)(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)
    assert explanation.values.any()


@pytest.mark.parametrize("kind", ["subclassed", "tf_function", "inputs_dict", "attention"])
def test_an_explained_model_of_another_kind_is_collected(kind, is_collected):
    case = models.fresh(kind)
    kx.Saliency()(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)


def test_a_model_that_failed_to_be_explained_is_collected(is_collected):
    case = models.fresh("functional")
    with pytest.raises(ValueError, match="conv_a"):
        kx.GradCAM(layer="conv_aa")(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)


def test_a_model_that_is_held_is_not_collected(is_collected):
    case = models.fresh("tabular")
    assert not is_collected([case.model])


# Explainers and models that fail midway


class _FailsInStep(kx.Explainer):
    def step(self, probe, x, target, pass_):
        probe.gradient(x, target)
        raise RuntimeError("halfway")


class _FailsInFinish(kx.IntegratedGradients):
    def finish(self, probe, total, x):
        raise RuntimeError("halfway")


@pytest.mark.parametrize(
    "kind", ["nested", "subclassed", "tf_function", "mixed_float16", "regularized", "tokens_int"]
)
def test_a_failing_explainer_leaves_the_model_as_it_was(kind):
    case = models.get(kind)
    before, policy = check.state_of(case.model), keras.config.dtype_policy().name
    for failing in (_FailsInStep(), _FailsInFinish(steps=2)):
        with pytest.raises(RuntimeError, match="halfway"):
            failing(case.model, case.x, case.target)
    check.assert_states_equal(check.state_of(case.model), before)
    assert keras.config.dtype_policy().name == policy


@keras.saving.register_keras_serializable("tests")
class _Moody(layers.Layer):
    """It fails when asked to."""

    def call(self, x):
        if getattr(self, "fails", False):
            raise RuntimeError("not now")
        return x


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_failing_layer_leaves_the_model_as_it_was(policy):
    moody = _Moody(dtype=policy)
    x = keras.Input(models.PICTURE)
    h = models.conv("conv", activity_regularizer="l2", dtype=policy)(x)
    model = models.made(x, models.softmax(models.quarters(moody(h))))
    model(models.numbers(*models.PICTURE))  # Keras notes in the layers that they were called
    moody.fails = True
    before = check.state_of(model)
    with pytest.raises(RuntimeError, match="not now"):
        kx.GradCAM()(model, models.numbers(*models.PICTURE))
    check.assert_states_equal(check.state_of(model), before)
    moody.fails = False
    assert kx.GradCAM()(model, models.numbers(*models.PICTURE)).values.any()


# Copies of explained models


def _saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def _cloned(model, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


COPIES = {
    "save": _saved,
    "clone_model": _cloned,
    "copy": lambda model, folder: copy.copy(model),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", ["nested_twice", "inputs_dict"])
def test_an_explained_model_can_be_copied(kind, how, tmp_path):
    case = models.get(kind)
    expected = kx.Saliency()(case.model, case.x, case.target)
    other = COPIES[how](case.model, tmp_path)
    check.assert_same(kx.Saliency()(other, case.x, case.target), expected)
    with check.nothing_traced():
        check.assert_same(kx.Saliency()(case.model, case.x, case.target), expected, exactly=True)


def test_an_explained_model_can_be_exported(tmp_path):
    case = models.get("sequential")
    kx.Saliency()(case.model, case.x)
    case.model.export(tmp_path, verbose=False)
    served = layers.TFSMLayer(tmp_path, call_endpoint="serve")(case.x)
    np.testing.assert_allclose(served, case.model(case.x), atol=1e-6)


# What goes in


def test_arrays_and_tensors_are_explained_alike():
    case = models.get("tabular")
    expected = kx.Saliency()(case.model, case.x)
    for x in (ops.convert_to_tensor(case.x), case.x.astype("float64")):
        check.assert_same(kx.Saliency()(case.model, x), expected, exactly=True)


def test_read_only_arrays_are_taken():
    case = models.get("tabular")
    x = case.x.copy()
    x.setflags(write=False)
    for name in CLASSES.keys() - {"GradCAM"}:
        assert check.explainer_for(CLASSES[name], x)(case.model, x).values.any()


def test_a_model_of_free_size_is_explained_at_two_sizes():
    model = models.get("free_size").model
    for shape in ((6, 10, 3), (12, 8, 3)):
        x = models.numbers(*shape)
        assert kx.GradCAM()(model, x).values.shape == (models.ROWS, *shape[:2])
        assert kx.Saliency()(model, x).values.shape == x.shape


def test_a_tuple_is_a_nest_of_inputs():
    case = models.get("inputs_list")
    values = kx.Saliency()(case.model, tuple(case.x)).values
    assert isinstance(values, tuple)
    expected = kx.Saliency()(case.model, case.x).values
    tree.map_structure(np.testing.assert_array_equal, list(values), expected)


def test_a_row_may_have_many_targets():
    case = models.get("sequential")
    index = np.tile(np.arange(models.CLASSES), (models.ROWS, 3))
    explanation = kx.Saliency()(case.model, case.x, index)
    assert explanation.values.shape == (models.ROWS, 12, *models.PICTURE)
    for k in (0, 7, 11):
        alone = kx.Saliency()(case.model, case.x, int(index[0, k]))
        check.assert_same(check.column(explanation, k), alone)
