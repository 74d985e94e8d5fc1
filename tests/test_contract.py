"""The contract of every explainer, on every kind of model (see `check.py` and `models.py`)."""

import random
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

import keras_explain as kx
from tests import check, models

CLASSES = {cls.__name__: cls for cls in check.explainer_classes()}
# One of each sort for the nasty kinds: passes over the input, and, where it is about layers, a map.
SORTS = [("IntegratedGradients", kind) for kind in models.NASTY] + [
    ("GradCAM", kind) for kind in models.NASTY if kind not in models.NOT_ABOUT_LAYERS
]


# Methods meet a kind of model in the code of their engine: one method of each engine meets every
# kind, and each of the others an eighth of them: eight together meet all. CI tries the rest.
LEADERS = ("DeepLIFT", "GradCAM", "IntegratedGradients", "KernelSHAP", "LRP")
OTHERS = [name for name in CLASSES if name not in LEADERS]


def is_quick(name, kind):
    return name in LEADERS or kind in list(models.COMMON)[OTHERS.index(name) % 8 :: 8]


PAIRS = [
    pytest.param(name, kind, marks=[] if is_quick(name, kind) else pytest.mark.slow)
    for name in CLASSES
    for kind in models.COMMON
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_contract(name, kind):
    case = models.get(kind)
    explainer = check.explainer_for(CLASSES[name], case.x, case.model)
    if (name, kind) in check.REFUSED:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Expected a layer that all paths"
            )  # before it refuses
            with pytest.raises(ValueError, match=check.REFUSED[name, kind]):
                explainer(case.model, case.x, case.target)
    else:
        check.check_explainer(explainer, case.model, case.x, case.target)


@pytest.mark.parametrize(("name", "kind"), SORTS)
def test_contract_on_nasty_models(name, kind):
    case = models.get(kind)
    explainer = check.explainer_for(CLASSES[name], case.x, case.model)
    check.check_explainer(explainer, case.model, case.x, case.target)


class Moody(layers.Layer):
    """It fails when asked to."""

    def call(self, x):
        if self.fails:
            raise RuntimeError("in a bad mood")
        return x


@pytest.mark.parametrize("name", CLASSES)
def test_a_model_that_fails_midway_is_as_it_was(name):
    moody = Moody()
    moody.fails = False
    x = keras.Input(models.PICTURE)
    h = layers.GlobalAveragePooling2D()(moody(models.conv("conv")(x)))
    model = models.made(x, models.softmax(h))
    pictures = models.numbers(*models.PICTURE)
    explainer = check.explainer_for(CLASSES[name], pictures, model)
    moody.fails = True
    before = check.state_of(model)
    with pytest.raises(RuntimeError, match="in a bad mood"):
        explainer(model, pictures)
    check.assert_states_equal(check.state_of(model), before)


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
    def passes(self, seed):
        return {"none": np.zeros(1, "float32")}

    def step(self, probe, x, target, pass_):
        return x * (1 + ops.cast(target, "float32"))


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
    _ChangesTheInput,
    _RunsLayers,
]


@pytest.mark.parametrize("cls", BROKEN)
def test_the_check_finds(cls):
    case = models.fresh("tabular")
    with pytest.raises(AssertionError):
        check.check_explainer(cls(), case.model, case.x)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.bias.assign_add(ops.ones((7,))),
        lambda layer: layer.__dict__.update(seen=True),
    ],
    ids=["weights", "attributes"],
)
def test_the_check_finds_what_is_left_in_a_model(change):
    class _Changes(kx.Saliency):
        def check(self, x):
            change(case.model.layers[1])

    case = models.fresh("tabular")
    with pytest.raises(AssertionError):
        check.check_explainer(_Changes(), case.model, case.x)


# What goes in


def test_arrays_and_tensors_are_explained_alike():
    case = models.get("tabular")
    expected = kx.Saliency()(case.model, case.x)
    for x in (ops.convert_to_tensor(case.x), case.x.astype("float64")):
        check.assert_same(kx.Saliency()(case.model, x), expected, exactly=True)


def test_large_integers_are_explained_as_numbers():
    """Milliseconds since 1970, say, which 32 bits can't hold."""
    x = keras.Input((5,))
    model = models.made(x, layers.Dense(3)(layers.Rescaling(1e-12)(x)))
    times = 1_700_000_000_000 + 100_000_000_000 * np.arange(20).reshape(4, 5)
    explanation = kx.InputXGradient()(model, times, 1)
    expected = kx.InputXGradient()(model, times.astype("float32"), 1)
    check.assert_same(explanation, expected)
    np.testing.assert_allclose(explanation.scores, model(times.astype("float32"))[:, 1], rtol=1e-5)


def test_booleans_are_explained_as_numbers():
    model, x = models.get("tabular").model, models.numbers(5) > 0
    explanation = kx.Saliency()(model, x)
    check.assert_same(explanation, kx.Saliency()(model, x.astype("float32")), exactly=True)


@pytest.mark.filterwarnings("ignore:.* is zero everywhere for some samples")
def test_read_only_arrays_are_taken():
    case = models.get("tabular")
    x = case.x.copy()
    x.setflags(write=False)
    for name in (name for name in check.QUICK if (name, "tabular") not in check.REFUSED):
        assert check.explainer_for(CLASSES[name], x, case.model)(case.model, x).values.any()


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
