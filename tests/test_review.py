"""Inputs and configurations that once gave wrong results without a word."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.ndimage import gaussian_filter

import keras_explain as kx
from tests import check, models


def table(units=1):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])


def test_integers_beyond_32_bits_keep_their_value():
    model = table()
    model.set_weights([np.ones((2, 1)), np.zeros(1)])
    scores = kx.Saliency()(model, np.array([[3_000_000_000, 1]])).scores
    np.testing.assert_allclose(scores, [3e9], rtol=1e-6)


def test_gradient_shap_with_noise_claims_no_completeness():
    x = np.ones((2, 2), "float32")
    background = np.zeros((3, 2), "float32")
    plain = kx.GradientSHAP(background=background, samples=4)
    assert "convergence_delta" in plain(table(), x).extras
    extras = plain.replace(noise=0.1)(table(), x).extras
    assert not {"convergence_delta", "base_values"} & extras.keys()


def test_blur_along_given_axes():
    pictures = np.random.default_rng(0).normal(size=(2, 9, 7)).astype("float32")
    blurred = np.asarray(kx.baselines.Blur(2.0, axes=(1, 2))(pictures, None))
    expected = gaussian_filter(pictures.astype(float), (0, 2, 2), mode="nearest")
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.5, kx.baselines.Mean(np.ones((3, 4)))])
def test_a_baseline_that_is_no_token_id(baseline):
    layers = [keras.layers.Embedding(9, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,), dtype="int32"), *layers])
    with pytest.raises(ValueError, match="token ids"):
        kx.IntegratedGradients(steps=2, baseline=baseline)(model, np.ones((2, 4), "int32"))


def test_class_names_by_number():
    x = np.ones((2, 2), "float32")
    named = kx.callbacks.ExplanationLogger("saliency", x, class_names={1: "dog", 0: "cat"})
    assert named.class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="every class"):
        kx.callbacks.ExplanationLogger("saliency", x, class_names={1: "dog"})


# Backward passes by rules


def chain(shape, *stack):
    return models.filled(keras.Sequential([keras.Input(shape), *stack]))


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_a_dilated_convolution_behind_a_linear_layer(rule):
    """Its operations put places of a series beside the samples; a reference has one row."""
    dilated = layers.Conv1D(3, 2, dilation_rate=2, activation="relu")
    model = chain((8, 2), layers.Conv1D(3, 1), dilated, layers.Flatten(), layers.Dense(1))
    explanation = kx.DeepLIFT(rule=rule)(model, models.numbers(8, 2))
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-5
    assert np.abs(explanation.values).max() > 0.01


class Folded(layers.Layer):
    """The rows of each sample stand beside each other for a while."""

    def call(self, x):
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(ops.tanh(3 * rows), (-1, *x.shape[1:]))


@pytest.mark.parametrize("shape", [(4, 3), (1, 3)])
def test_a_reference_has_all_rows_where_samples_are_folded(shape):
    model = chain(shape, Folded(), layers.Flatten(), layers.Dense(2))
    x = models.numbers(*shape)
    for explainer in (kx.DeepLIFT(baseline=0.5), kx.DeepSHAP(background=x[:3] + 1)):
        delta = explainer(model, x, batch_size=4).extras["convergence_delta"]
        assert np.abs(delta).max() < 1e-5


def test_a_column_of_a_product_is_no_gate():
    a, b = keras.Input((4, 3)), keras.Input((3,))
    model = keras.Model([a, b], layers.Flatten()(layers.Dot((2, 1))([a, b])))
    x = [models.numbers(4, 3), models.numbers(3, seed=1)]
    halves = [v.reshape(models.ROWS, -1).sum(axis=1) for v in kx.LRP()(model, x, 0).values]
    np.testing.assert_allclose(halves[0], halves[1], rtol=1e-4)


def test_a_function_that_arranges_tokens_keeps_the_samples():
    x = keras.Input((16, 4))
    h = layers.Dense(12, activation="relu", name="tokens")(x)
    model = models.made(x, models.softmax(layers.GlobalAveragePooling1D()(h)))

    def without_a_token(tokens):
        return ops.reshape(tokens[:, 4:], (-1, 4, 4, 12))

    explainer = kx.GradCAM(reshape=without_a_token, layer="tokens")
    pictures = keras.Input((8, 8, 1))
    whole = keras.Model(pictures, model(layers.Reshape((16, 4))(pictures)))
    with pytest.raises(ValueError, match="must leave the first axis as it is"):
        explainer(whole, np.tile(models.numbers(8, 8, 1), (4, 1, 1, 1)))


@pytest.mark.parametrize(
    "explainer",
    [kx.LRP(rules=[("Convv2D", kx.rules.ZPlus())]), kx.DeepLIFT(opaque=("nope",))],
    ids=["rules", "opaque"],
)
def test_what_names_no_layer_is_an_error(explainer):
    case = models.get("nested")
    with pytest.raises(ValueError, match="which matches none"):
        explainer(case.model, case.x)


def test_a_rule_may_suit_many_models():
    case = models.get("tabular")
    both = [(layers.Conv2D, kx.rules.ZPlus()), (layers.Dense, kx.rules.Gamma())]
    expected = kx.LRP(rules=both[1:])(case.model, case.x)
    check.assert_same(kx.LRP(rules=both)(case.model, case.x), expected, exactly=True)


def test_a_nested_layer_is_named_in_many_ways():
    model = models.get("nested").model
    x, inner = models.get("nested").x, model.get_layer("backbone")
    expected = kx.LRP(rules=[("backbone/*", kx.rules.Flat())])(model, x)
    assert check.distance(expected.values, kx.LRP(rules="epsilon")(model, x).values) > 0.01
    for where in (inner, "backbone", [inner.get_layer("conv_first"), "conv_last"]):
        found = kx.LRP(rules=[(where, kx.rules.Flat())])(model, x)
        check.assert_same(found, expected)


class RawConvolution(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, 3, 4), name="kernel")

    def call(self, x):
        return ops.conv(x, self.kernel)


def test_a_raw_convolution_is_a_convolution():
    stack = [layers.ReLU(), layers.Flatten(), layers.Dense(2)]
    raw = chain(models.PICTURE, RawConvolution(), *stack)
    same = chain(models.PICTURE, layers.Conv2D(4, 3, use_bias=False), *stack)
    same.set_weights(raw.get_weights())
    x = models.numbers(*models.PICTURE)
    found = kx.LRP()(raw, x)
    check.assert_same(found, kx.LRP()(same, x))
    assert check.distance(found.values, kx.LRP(rules="epsilon")(raw, x).values) > 0.01


def test_first_is_before_what_is_opaque():
    model = chain((5, 3), layers.LSTM(4), layers.Dense(2))
    x = models.numbers(5, 3)
    with pytest.warns(UserWarning, match="one opaque step"):
        expected = kx.LRP(rules="epsilon")(model, x)
    with pytest.warns(UserWarning, match="one opaque step"):
        found = kx.LRP(rules=[("first", kx.rules.ZBox(0, 1))])(model, x)
    check.assert_same(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: kx.rules.ZBox("a", "b"),
        lambda: kx.rules.ZBox([0.0, 5.0], [1.0, 2.0]),
        lambda: kx.rules.ZBox(0, float("nan")),
        lambda: kx.rules.Epsilon("a"),
        lambda: kx.rules.Gamma(float("inf")),
        lambda: kx.rules.AlphaBeta("1", 0),
    ],
)
def test_arguments_of_rules(make):
    with pytest.raises((TypeError, ValueError), match=r"Expected .* Received"):
        make()


@pytest.mark.parametrize("explainer", [kx.Saliency(), kx.GuidedBackprop()], ids=repr)
def test_an_operation_without_a_gradient_is_named(explainer):
    small = layers.Resizing(3, 3, interpolation="area")
    model = chain(models.PICTURE, layers.Conv2D(4, 3), small, layers.Flatten(), layers.Dense(2))
    with pytest.raises(ValueError, match=r"operations with a gradient\. Received: 'ResizeArea'"):
        explainer(model, models.numbers(*models.PICTURE))


def test_values_that_are_not_finite_are_told():
    x = keras.Input((3,))
    model = models.made(x, layers.Dense(2)(x / ops.sum(x, axis=-1, keepdims=True)))
    with pytest.warns(UserWarning, match="DeepLIFT has NaN or infinite values"):
        kx.DeepLIFT()(model, np.abs(models.numbers(3)))


class Scaled(layers.Layer):
    """Divided by a sum that no gradient goes through."""

    def call(self, x):
        return x / ops.stop_gradient(ops.sum(ops.exp(x), axis=-1, keepdims=True))


def test_what_stops_gradients_has_a_reference_too():
    model = chain((4,), Scaled(), layers.Dense(2))
    explanation = kx.DeepLIFT(baseline=0.3)(model, models.numbers(4))
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-6
    assert np.abs(explanation.values).max() > 0.01


def test_category_0_is_no_padding():
    """Codes of categories that enter an Embedding are no text."""
    kind, age = keras.Input((1,), dtype="int32", name="kind"), keras.Input((1,), name="age")
    h = layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 3)(kind)), age])
    model = models.made({"kind": kind, "age": age}, layers.Dense(1)(layers.Dense(8, "tanh")(h)))
    rng = np.random.default_rng(0)
    rows = {"kind": rng.integers(0, 5, (20, 1)), "age": rng.normal(size=(20, 1)).astype("float32")}
    x = {"kind": np.array([[0], [1]]), "age": np.array([[0.5], [0.5]], "float32")}

    def mean(kind, age):
        batch = {"kind": np.broadcast_to(kind, (20, 1)), "age": np.broadcast_to(age, (20, 1))}
        return float(np.mean(model.predict(batch, verbose=0), dtype=np.float64))

    found = kx.ExactShapley(background=rows)(model, x)
    for i in range(2):
        kind, age = x["kind"][i], x["age"][i]
        none, whole = mean(rows["kind"], rows["age"]), mean(kind, age)
        alone = mean(kind, rows["age"]) - none
        last = whole - mean(rows["kind"], age)
        np.testing.assert_allclose(found.values["kind"][i], (alone + last) / 2, atol=1e-5)
        np.testing.assert_allclose(found.extras["base_values"][i], none, atol=1e-5)


def test_the_unit_of_a_binary_head_is_named_after_the_second_class():
    model = table()
    x = np.ones((2, 2), "float32")
    explanation = kx.KernelSHAP()(model, x)
    assert explanation.units == 1
    words = [text.get_text() for text in explanation.plot(class_names=["no", "yes"]).texts]
    words += [
        t.get_text()
        for axes in explanation.plot(class_names=["no", "yes"]).axes
        for t in axes.texts
    ]
    assert "yes" in words
    assert "no" not in words


def test_texts_in_any_array(tmp_path):
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(["good film", "bad film"])
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(6, 3)])
    model = keras.Sequential([*model.layers, layers.Flatten(), layers.Dense(2)])
    model.build((None, 4))
    tokens = kx.features.Tokens(mask=1, tokenizer=vectorize)
    explain = kx.FeatureAblation(features=tokens)
    texts = ["good film", "bad"]
    expected = explain(model, texts)
    assert tokens == kx.features.Tokens(mask=1, tokenizer=vectorize)
    for other in (np.array(texts), np.array(texts, object), ops.convert_to_tensor(texts)):
        np.testing.assert_array_equal(explain(model, other).values, expected.values)
    with pytest.raises(ValueError, match=r"list of texts. Received: one text"):
        explain(model, texts[0])
    expected.save(tmp_path / "text.npz")
    loaded = kx.Explanation.load(tmp_path / "text.npz")
    np.testing.assert_array_equal(loaded.extras["tokens"], expected.extras["tokens"])
    assert loaded.units == 2
    with pytest.raises(ValueError, match="Give their token ids"):
        kx.callbacks.ExplanationLogger(explain, texts).set_model(model)


def test_contradictions_are_refused():
    rows = np.zeros((3, 2), "float32")
    with pytest.raises(ValueError, match="`baseline` or `background`"):
        kx.KernelSHAP(background=rows, baseline=3.0)
    with pytest.raises(ValueError, match=r"one for each place: \[0, 0, 1\]"):
        kx.KernelSHAP(groups=[[0], [1, 2]])(table(), rows)


def test_features_may_be_named_for_some_inputs():
    case = models.get("inputs_dict")
    some = kx.FeatureAblation(features={"a": kx.features.Grid(2)})(case.model, case.x)
    both = {"a": kx.features.Grid(2), "b": kx.features.Segments()}
    every = kx.FeatureAblation(features=both)(case.model, case.x)
    np.testing.assert_array_equal(some.values["b"], every.values["b"])


def test_every_pixel_of_a_picture_can_be_hidden_alone():
    """Without a table of all coalitions, which would not fit into memory."""
    x = keras.Input((70, 60, 1))
    model = keras.Model(x, layers.Dense(1)(layers.Flatten()(x)))
    pixels, picture = kx.features.Pixels(), np.ones((1, 70, 60, 1), "float32")
    values = kx.FeatureAblation(features=pixels)(model, picture).values[0]
    weights = np.asarray(model.layers[-1].kernel).reshape(70, 60)
    np.testing.assert_allclose(values, weights, atol=1e-5)
    for refused in (kx.KernelSHAP, kx.ShapleySampling, kx.LIME, kx.SobolAttribution):
        with pytest.raises(ValueError, match=r"at most 4096 features.* Received: 4200"):
            refused(features=pixels)(model, picture)
