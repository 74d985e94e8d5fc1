"""What is not finite is said, once, with the part of the model that it comes from."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.sinks import Memory
from keras_explain.tensorboard.report import report
from tests import check, models


def with_weight(case, value, weight=-1):
    """The case's model with a number in a weight that is not finite; the last is a bias."""
    weights = case.model.get_weights()
    weights[weight] = np.full_like(weights[weight], value)
    case.model.set_weights(weights)
    return case


def explained(explainer, model, x, target=None):
    """What is said, as warnings or as an error, and the explanation."""
    explanation = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module="shap", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The set_")
        try:
            explanation = explainer(model, x, target)
        except ValueError as error:
            return [str(error)], None
    return [str(warning.message) for warning in caught], explanation


def dense(inputs, *last):
    """A model of one Dense layer `sum` and the layers behind it."""
    x = keras.Input((inputs,))
    h = layers.Dense(3, name="sum")(x)
    for layer in last:
        h = layer(h)
    return models.filled(keras.Model(x, h))


@pytest.mark.parametrize("cls", check.each_class("CAM"))
def test_every_method_says_that_the_score_is_not_finite(cls):
    case = with_weight(models.fresh("sequential"), np.nan)
    explainer = check.explainer_for(cls, case.x, case.model)
    said, explanation = explained(explainer, case.model, case.x)
    assert len(said) == 1
    assert "NaN begins in the output of layer 'dense" in said[0]
    assert "holds NaN in its bias" in said[0]
    assert explanation is None or re.search(r"scores\b.* for all samples", said[0])


CAUSES = {
    "kernel": (lambda: with_weight(models.Case(dense(3), None), np.nan, 0).model, "NaN", "kernel"),
    "infinite": (
        lambda: with_weight(models.Case(dense(3), None), np.inf).model,
        "Infinity",
        "bias",
    ),
    "operation": (
        lambda: dense(3, layers.Lambda(lambda h: ops.log(-ops.square(h)), name="log")),
        "NaN",
        "layer 'log'.",
    ),
    "quotient": (
        lambda: dense(3, layers.Lambda(lambda h: ops.divide(h, 0 * h), name="by_zero")),
        "NaN",
        "layer 'by_zero'.",
    ),
}


@pytest.mark.parametrize(("make", "what", "where"), CAUSES.values(), ids=CAUSES)
def test_where_it_begins(make, what, where):
    said, _ = explained(kx.Saliency(), make(), 1 + np.abs(models.numbers(3)), 0)
    assert len(said) == 1
    assert what.lower() in said[0].lower()
    assert where in said[0]


def test_inside_a_nested_model():
    case = models.fresh("nested")
    norm = case.model.get_layer("backbone").get_layer("norm")
    norm.gamma.assign(np.nan * norm.gamma)
    said, _ = explained(kx.Saliency(), case.model, case.x)
    assert "layer 'backbone/norm', which holds NaN in its gamma" in said[0]


def test_only_the_samples_that_are_meant():
    model, x = dense(3, layers.Lambda(ops.log, name="log")), models.numbers(3)
    with np.errstate(invalid="ignore"):
        scores = np.log(np.asarray(model.layers[1](x)))[:, 1]
    assert 0 < np.isnan(scores).sum() < len(x)
    said, explanation = explained(kx.InputXGradient(), model, x, 1)
    assert "scores for some samples. NaN begins in the output of layer 'log'." in said[0]
    np.testing.assert_allclose(explanation.scores, scores, rtol=1e-4)


def test_a_score_that_is_finite_with_gradients_that_are_not():
    x = keras.Input((3,))
    model = keras.Model(x, ops.sum(ops.sqrt(x), axis=1, keepdims=True))
    said, _ = explained(kx.Saliency(), model, np.zeros((2, 3), "float32"))
    assert "infinite values for all" in said[0]
    assert "outputs of all layers are finite" in said[0]


def test_base_values_that_are_not_finite():
    x = keras.Input((3,))
    model = models.filled(keras.Model(x, layers.Dense(2)(ops.log(x))))
    said, explanation = explained(kx.GuidedBackprop(), model, 1 + np.abs(models.numbers(3)), 0)
    assert said == []
    said, explanation = explained(kx.DeepLIFT(), model, 1 + np.abs(models.numbers(3)), 0)
    assert np.isfinite(explanation.scores).all()
    assert re.search("base_values, .*convergence_delta|convergence_delta, .*base_values", said[0])


def test_an_unused_weight_is_not_the_cause():
    """One output of two is broken: the other is explained, and nothing is said."""
    case = models.fresh("outputs_dict")
    case.model.get_layer("size").bias.assign([np.nan, np.nan])
    said, explanation = explained(kx.Saliency(), case.model, case.x, case.target)
    assert said == []
    assert explanation.values.any()


def masked(number):
    """A model whose last two classes are masked."""
    x = keras.Input((3,))
    z = layers.Dense(4, name="z")(x)
    return models.filled(keras.Model(x, ops.softmax(ops.where(np.arange(4) < 2, z, number))))


OF_LOGITS = [kx.IntegratedGradients(steps=3), kx.DeepLIFT(), kx.LRP(), kx.KernelSHAP()]


@pytest.mark.parametrize(
    ("explainer", "target"),
    [
        *((explainer, target) for explainer in OF_LOGITS for target in (None, 1)),
        (kx.IntegratedGradients(steps=3), kx.targets.Class(0, of="probability")),
        (kx.KernelSHAP(), kx.targets.Class(0, of="probability")),
    ],
    ids=repr,
)
def test_classes_that_are_masked_by_infinity_are_no_trouble(explainer, target):
    x, model, plain = models.numbers(3), masked(-np.inf), masked(-1e9)
    said, explanation = explained(explainer, model, x, target)
    assert said == []
    expected = explainer(plain, x, target)
    np.testing.assert_allclose(explanation.values, expected.values, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(explanation.target.index, expected.target.index)


def test_a_masked_class_itself_has_no_score():
    said, _ = explained(kx.Saliency(), masked(-np.inf), models.numbers(3), 3)
    assert "scores for all samples. Infinity begins" in said[0]


def test_the_predicted_class_is_not_one_beside_nan():
    model = dense(3)
    model.layers[1].bias.assign([0.0, np.nan, 0.0])
    said, explanation = explained(kx.Saliency(), model, models.numbers(3))
    np.testing.assert_array_equal(explanation.target.index, 1)
    assert "scores for all samples" in said[0]
    assert explained(kx.Saliency(), model, models.numbers(3), 0)[0] == []


def test_no_pass_more_where_all_is_finite():
    model = dense(3)
    kx.Saliency()(model, models.numbers(3))
    assert not [key for key in model.__dict__["__kx__"]._functions if key[0] == "finite"]


def test_a_training_that_diverged(tmp_path):
    """It is said once, the log is written, and training goes on."""
    case = with_weight(models.fresh("sequential"), np.nan)
    case.model.compile("sgd", "sparse_categorical_crossentropy")
    memory = Memory()
    logger = kx.callbacks.ExplanationLogger(
        {"map": kx.GradCAM(), "ig": kx.IntegratedGradients(steps=2)},
        case.x,
        [0, 1, 2, 3],
        sinks=[memory, kx.sinks.TensorBoard(tmp_path)],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        case.model.fit(case.x, np.arange(4), epochs=3, verbose=0, callbacks=[logger])
    texts = [str(warning.message) for warning in caught]
    assert logger.failures == {}
    for name in ("GradCAM", "IntegratedGradients"):
        assert sum(text.startswith(f"{name} has NaN or infinite") for text in texts) == 1
    assert not any("zero everywhere" in text for text in texts)
    assert len(memory.records) == 6
    assert np.isnan(memory.records[-1].scalars["score"])
    report(tmp_path, tmp_path / "report.html")
