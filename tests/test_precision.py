"""Values that float32 can't tell from zero: what is flagged, and above all what is not."""

import functools
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.run import precision
from tests import check

CLASSES = {cls.__name__: cls for cls in check.explainer_classes()}
# What is not in units of the score, and not made by differences of scores either; and relevance
# that biases take no part in, whatever the network does with its input.
OTHER_UNITS = {"EigenCAM", "InternalInfluence", "DeepTaylor"}
# Weights of channels, masks, Owen values and shares of variance.
MADE_OF_DIFFERENCES = [
    *("AblationCAM", "ScoreCAM", "MeaningfulPerturbation", "ExtremalPerturbation"),
    *("PartitionSHAP", "SobolAttribution", "HSICAttribution"),
]
X = np.random.default_rng(0).uniform(0.1, 1, (3, 12, 12, 3)).astype("float32")
BIASES = np.array([3, 1, -2], "float32")
TABLE = np.array([[0.5, -1, 2], [-1, 2, 0.25], [1, 1, -3]], "float32")
GRADIENTS = (kx.Saliency(), kx.InputXGradient(), kx.IntegratedGradients(steps=2))
ENGINES = (
    *GRADIENTS,
    kx.LRP(rules="epsilon"),
    kx.DeepLIFT(),
    kx.Occlusion(),
)


@pytest.fixture(scope="module")
def pictures():
    """A model, and a function that sets how much its scores depend on the input."""
    keras.utils.set_random_seed(0)
    x = keras.Input(X.shape[1:])
    h = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu")(x))
    model = keras.Model(x, layers.Dense(3, name="out")(h))
    kernel = np.abs(model.get_layer("out").get_weights()[0])

    def depend(share):
        model.get_layer("out").set_weights([share * kernel, BIASES])
        return model

    return depend


@pytest.mark.parametrize("cls", check.each_class())
def test_every_explainer_tells_a_network_that_ignores_its_input(cls, pictures):
    name = cls.__name__
    explainer = check.explainer_for(CLASSES[name], X, pictures(1.0))
    if name == "XRAI":
        explainer = kx.XRAI(explainer=kx.IntegratedGradients(steps=2))
    assert flags(explainer, pictures(1.0), X, 0).tolist() == [True] * 3
    if name not in OTHER_UNITS:
        assert warned(explainer, pictures(1e-9), X, 0).tolist() == [False] * 3


@pytest.mark.parametrize("name", MADE_OF_DIFFERENCES)
def test_what_is_made_of_scores_that_differ_by_rounding_is_zero(name, pictures):
    explainer = check.explainer_for(CLASSES[name], X, pictures(1.0))
    model = pictures(1e-6)
    seen = [float(model(scale * X)[0, 0]) for scale in (0, 0.3, 0.6, 1)]
    assert 0 < np.ptp(seen) < 3 * precision.ROUNDING
    with pytest.warns(UserWarning, match="is zero everywhere for all"):
        assert not explainer(model, X, 0).values.any()


def flags(explainer, model, x, target=None):
    """What is said of maps that need no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return explainer(model, x, target).extras["reliable"]


def warned(explainer, model, x, target=None):
    """What is said of maps some of which are below float precision, or zero."""
    with pytest.warns(UserWarning, match="is (below float precision|zero everywhere)"):
        return explainer(model, x, target).extras["reliable"]


@functools.cache
def dense(units, activation):
    x = keras.Input((3,))
    return keras.Model(x, layers.Dense(units, activation, name="out")(x))


def linear(kernel, bias, activation=None):
    """`x @ kernel + bias`: the same model again and again, with other weights."""
    model = dense(len(bias), activation)
    model.get_layer("out").set_weights([np.float32(kernel), np.float32(bias)])
    return model


ONE = np.array([[1.0], [-2], [0.5]])


@pytest.mark.parametrize("explainer", ENGINES)
@pytest.mark.parametrize(
    ("size", "bias"),
    [
        (1e-12, 0),  # small, and exact beside a score that is as small
        (1e12, 0),
        (0.1, 1e3),
        (2e5, 1e6),  # a regression, such as prices
        (1e-4, 1),
    ],
)
def test_no_false_alarm(explainer, size, bias):
    assert flags(explainer, linear(size * ONE, [bias]), TABLE).all()


@pytest.mark.parametrize("explainer", ENGINES)
def test_a_large_constant_hides_what_depends_on_the_input(explainer):
    assert flags(explainer, linear(1e-3 * ONE, [0]), TABLE).all()
    assert not warned(explainer, linear(1e-3 * ONE, [1e6]), TABLE).any()


@pytest.mark.parametrize("explainer", [e for e in ENGINES if not isinstance(e, kx.LRP)])
def test_a_score_that_happens_to_be_zero_hides_nothing(explainer):
    kernel = 1e-9 * ONE
    balanced = np.array([[1, 1, 2], [2, 0.5, -2]], "float32")  # scores of 0
    assert not (balanced @ kernel.astype("float32")).any()
    assert flags(explainer, linear(kernel, [0]), balanced).all()


def test_a_base_value_counts_as_the_score_does():
    x = keras.Input((3,))
    tiny = layers.Dense(1, kernel_initializer=keras.initializers.Constant(1e-12))(x)
    step = 5 * (ops.tanh(1e3 * x[:, :1]) - 1)  # 0 here, -10 at the baseline, and flat
    model = keras.Model(x, tiny + step)
    explainer = kx.IntegratedGradients(steps=2, baseline=-1)
    assert not warned(explainer, model, np.abs(TABLE)).any()


@pytest.mark.parametrize("width", [20_000])
def test_very_many_small_shares_are_no_rounding(width):
    x = keras.Input((width,))
    model = keras.Model(x, layers.Dense(1, "linear", kernel_initializer="ones", name="out")(x))
    model.get_layer("out").set_weights([np.full((width, 1), 1e-7, "float32"), np.ones(1)])
    assert flags(kx.InputXGradient(), model, np.ones((1, width), "float32")).all()


def test_very_many_steps_of_rounding_are_rounding():
    x = keras.Input((64,))
    model = keras.Model(x, layers.Dense(1, name="out")(x))
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.05, (64, 1)).astype("float32")
    model.get_layer("out").set_weights([kernel, np.float32([1e6])])
    found = kx.FeatureAblation()
    with pytest.warns(UserWarning, match="below float precision"):
        found = found(model, rng.normal(size=(2, 64)).astype("float32"))
    assert np.abs(found.values).sum() > 1
    assert not found.extras["reliable"].any()


@pytest.mark.parametrize("explainer", GRADIENTS)
def test_a_row_near_zero_says_nothing_of_how_far_the_input_can_change(explainer):
    rows = np.float32(1e-9) + np.zeros((1, 3), "float32")
    if isinstance(explainer, kx.Saliency):
        assert flags(explainer, linear(ONE, [1]), rows).all()
    else:  # which says what these numbers do, and they do nothing
        assert not warned(explainer, linear(ONE, [1]), rows).any()


def test_a_gradient_counts_by_the_size_of_the_input():
    model = linear(1e-8 * ONE, [1])
    assert not warned(kx.Saliency(), model, TABLE).any()
    assert flags(kx.Saliency(), model, 1e6 * TABLE).all()
    bytes_ = np.array([[200, 255, 3]], "uint8")
    assert flags(kx.Saliency(), linear(1e-7 * ONE, [1]), bytes_).all()


def test_a_saturated_probability_is_flagged_and_a_small_one_is_not():
    model = linear(np.concatenate([ONE, -ONE, 0 * ONE], axis=1), [17, 0, 0], "softmax")
    rows = 0.01 * TABLE
    probability = kx.targets.Class(0, of="probability")
    assert not warned(kx.IntegratedGradients(), model, rows, probability).any()
    assert flags(kx.IntegratedGradients(), model, rows, 0).all()
    small = kx.targets.Class(1, of="probability")  # 4e-8
    assert flags(kx.IntegratedGradients(), model, rows, small).all()


@pytest.mark.parametrize("explainer", [*GRADIENTS, kx.Occlusion(), kx.KernelSHAP()])
def test_each_class_is_judged_by_its_own_score(explainer):
    model = linear(np.concatenate([ONE, 1e-10 * ONE], axis=1), [5, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explainer(model, TABLE, [[0, 1]] * 3).extras["reliable"]
        one = explainer(model, TABLE, [0, 1, 0]).extras["reliable"]
    assert found.tolist() == [[True, False]] * 3
    assert one.tolist() == [True, False, True]


@pytest.mark.parametrize("explainer", [*GRADIENTS, kx.Occlusion(), kx.KernelSHAP()])
def test_each_input_is_judged_by_itself(explainer):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(1, name="out")(ops.concatenate([a, b], 1)))
    kernel = np.concatenate([ONE, 1e-10 * ONE]).astype("float32")
    model.get_layer("out").set_weights([kernel, np.ones(1, "float32")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explainer(model, {"a": TABLE, "b": TABLE}).extras["reliable"]
    assert found["a"].all()
    assert not found["b"].any()


@pytest.mark.parametrize("size", [1.0, 1e-10])
def test_a_layer_is_judged_by_the_size_of_its_output(size):
    x = keras.Input((3,))
    h = layers.Dense(4, use_bias=False, kernel_initializer="ones", name="h")(x)
    model = keras.Model(x, layers.Dense(1, name="out")(h))
    kernel = np.full((4, 1), 1e-8, "float32")
    model.get_layer("h").set_weights([np.full((3, 4), size, "float32")])
    model.get_layer("out").set_weights([kernel / np.float32(size), np.ones(1, "float32")])
    inside = kx.Saliency(layer="h")
    if size == 1:
        assert not warned(inside, model, TABLE).any()
    else:  # its gradient is large, and so what other inputs could do
        assert flags(inside, model, TABLE).all()
    assert flags(inside, model, 1e8 * TABLE).all()


@pytest.mark.parametrize("explainer", GRADIENTS[:2])
def test_token_ids_are_judged_by_their_embeddings_and_not_by_how_large_they_are(explainer):
    x = keras.Input((4,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(1000, 2, embeddings_initializer="ones")(x))
    model = keras.Model(x, layers.Dense(1, name="out")(h))
    ids = np.array([[3, 1, 2, 900]], "int32")
    for size, judge in ((1e-9, warned), (1e-3, flags)):
        model.get_layer("out").set_weights([np.full((8, 1), size, "float32"), np.ones(1)])
        assert judge(explainer, model, ids).all() == (judge is flags)


@pytest.mark.parametrize("explainer", [kx.SquareGrad(samples=4), kx.VarGrad(samples=4)])
def test_squares_are_judged_by_their_roots(explainer):
    x = keras.Input((3,))
    h = layers.Dense(4, "tanh", kernel_initializer="glorot_uniform")(x)
    model = keras.Model(x, layers.Dense(1, name="out")(h))
    for size, bias, judge in ((1e-7, 0, flags), (1e-9, 1, warned)):
        kernel = size * np.array([[1], [-1], [2], [0.5]], "float32")
        model.get_layer("out").set_weights([kernel, np.float32([bias])])
        assert judge(explainer, model, TABLE).all() == (judge is flags)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_half_precision_is_explained_in_float32(policy):
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(1, dtype=policy, name="out")(x))
    model.get_layer("out").set_weights([1e-4 * ONE, np.ones(1)])  # below half precision
    for explainer in ENGINES:
        assert flags(explainer, model, TABLE).all()


def test_a_map_of_zeros_can_not_be_told_from_zero_and_has_a_warning_of_its_own():
    for explainer in ENGINES:
        with pytest.warns(UserWarning, match="is zero everywhere") as seen:
            found = explainer(linear(0 * ONE, [1]), TABLE)
        assert not found.extras["reliable"].any()
        assert len(seen) == 1


def test_what_is_not_finite_is_not_called_rounding():
    with pytest.warns(UserWarning, match="NaN") as seen:
        found = kx.IntegratedGradients(steps=2)(linear(np.nan * ONE, [1]), TABLE)
    assert found.extras["reliable"].all()
    assert not any("below float precision" in str(warning.message) for warning in seen)
    assert precision.rounding(np.float32([5, np.inf, np.nan])[None], axis=0).tolist()[1:] == [0, 0]


def test_the_warning_has_no_numbers_so_that_it_is_shown_once():
    said = []
    for bias in (1e6, 2e6):
        with pytest.warns(UserWarning, match="Saliency is below float precision") as seen:
            kx.Saliency()(linear(ONE * 1e-3, [bias]), TABLE)
        said.append(str(seen[0].message))
    assert said[0] == said[1]


def test_an_explainer_of_the_user_is_judged_if_it_says_its_unit():
    class Doubled(kx.Explainer):
        def step(self, probe, x, target, pass_):
            return 2 * probe.gradient(x, target)

    class Declared(Doubled):
        @property
        def plan(self):
            return replace(super().plan, unit="score per input")

    model = linear(1e-10 * ONE, [1])
    assert flags(Doubled(), model, TABLE).all()
    assert not warned(Declared(), model, TABLE).any()
    assert not warned(kx.SmoothGrad(explainer=Declared(), samples=2), model, TABLE).any()


def test_the_flag_is_saved_with_the_explanation(tmp_path):
    with pytest.warns(UserWarning, match="below float precision"):
        found = kx.Saliency()(linear(ONE * 1e-3, [1e6]), TABLE)
    found.save(tmp_path / "found.npz")
    loaded = kx.Explanation.load(tmp_path / "found.npz").extras["reliable"]
    assert loaded.dtype == bool
    assert not loaded.any()


def test_a_mean_gradient_that_a_normalization_makes_zero_is_zero():
    x = keras.Input(X.shape[1:])
    h = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    h = layers.Flatten()(layers.GroupNormalization(groups=-1)(h))  # takes the mean off
    model = keras.Model(x, layers.Dense(1, bias_initializer="ones")(h))
    with pytest.warns(UserWarning, match="GradCAM is zero everywhere for all"):
        found = kx.GradCAM(layer="conv", relu=False)(model, X)
    assert not found.values.any()
    assert flags(kx.HiResCAM(layer="conv"), model, X).all()


@pytest.mark.slow
def test_a_score_that_a_far_token_hardly_reaches_is_flagged_and_one_map_of_all_tokens_is_not():
    x = keras.Input((40, 3))
    half = keras.initializers.Identity(0.5)
    h = layers.SimpleRNN(3, recurrent_initializer=half)(layers.ZeroPadding1D((0, 40))(x))
    far = keras.Model(x, layers.Dense(1, bias_initializer="ones")(h))
    near = keras.Model(x, layers.Dense(1)(layers.SimpleRNN(3, recurrent_initializer=half)(x)))
    rows = np.random.default_rng(0).normal(size=(2, 40, 3)).astype("float32")
    assert not warned(kx.IntegratedGradients(steps=2), far, rows).any()
    assert flags(kx.IntegratedGradients(steps=2), near, rows).all()
