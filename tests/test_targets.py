"""What a target explains, against NumPy: its score, and the gradient of the score by the input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from tests import models

FEATURES, UNITS = 5, 4
SIGNED = kx.Saliency(absolute=False)
X = models.numbers(FEATURES, seed=3)


class Net:
    """`L = tanh(x A + a) B + b` in float64, with the derivatives of each unit."""

    def __init__(self, units, seed):
        rng = np.random.default_rng(seed)
        self.A, self.a = rng.normal(size=(FEATURES, 7)), rng.normal(size=7)
        self.B, self.b = rng.normal(size=(7, units)), rng.normal(size=units)
        hidden = np.tanh(X @ self.A + self.a)  # [B, 7]
        self.logits = hidden @ self.B + self.b  # [B, C]
        self.slopes = np.einsum("fh,bh,hc->bcf", self.A, 1 - hidden**2, self.B)  # [B, C, F]

    def build(self, head):
        """A model with these weights, whose output `head` makes of the last Dense layer's."""
        x = keras.Input((FEATURES,))
        h = layers.Dense(7, activation="tanh")(x)
        model = keras.Model(x, head(h))
        model.set_weights([self.A, self.a, self.B, self.b])
        return model

    @property
    def probabilities(self):
        """The softmax, and its derivatives."""
        p = np.exp(self.logits) / np.exp(self.logits).sum(axis=1, keepdims=True)
        mean = np.einsum("bc,bcf->bf", p, self.slopes)
        return p, p[..., None] * (self.slopes - mean[:, None])

    @property
    def sigmoids(self):
        p = 1 / (1 + np.exp(-self.logits))
        return p, (p * (1 - p))[..., None] * self.slopes


NET, ONE = Net(UNITS, seed=400), Net(1, seed=102)


def dense(activation=None, units=UNITS, **options):
    return layers.Dense(units, activation=activation, **options)


class Raw(keras.Model):
    """A subclassed model that ends in an operation."""

    def __init__(self, net, last):
        super().__init__()
        units = net.logits.shape[1]
        self.hidden, self.head, self.last = dense("tanh", 7), dense(None, units), last
        self(X)
        self.set_weights([net.A, net.a, net.B, net.b])

    def call(self, x):
        return self.last(self.head(self.hidden(x)))


def nested(head):
    """The head as a model inside the model."""
    inside = keras.Input((7,))
    return keras.Model(inside, head(inside))


SOFTMAX = {
    "fused": lambda: NET.build(dense("softmax")),
    "layer": lambda: NET.build(lambda h: layers.Softmax()(dense()(h))),
    "activation": lambda: NET.build(lambda h: layers.Activation("softmax")(dense()(h))),
    "operation": lambda: NET.build(lambda h: ops.softmax(dense()(h))),
    "raw": lambda: Raw(NET, ops.softmax),
    "raw_tensorflow": lambda: Raw(NET, tf.nn.softmax),
    "nested": lambda: NET.build(nested(dense("softmax"))),
    "reshaped": lambda: NET.build(
        lambda h: layers.Flatten()(layers.Reshape((2, 1, 2))(dense("softmax")(h)))
    ),
    "channels_first": lambda: NET.build(
        lambda h: layers.Flatten()(
            layers.Softmax(axis=1)(layers.Reshape((UNITS, 1, 1))(dense()(h)))
        )
    ),
    "dropout_after": lambda: NET.build(lambda h: layers.Dropout(0.5)(dense("softmax")(h))),
    "cast": lambda: NET.build(
        lambda h: layers.Activation("linear", dtype="float32")(
            dense("softmax", dtype="mixed_bfloat16")(h)
        )
    ),
}
LOG_SOFTMAX = {
    "fused": lambda: NET.build(dense("log_softmax")),
    "activation": lambda: NET.build(lambda h: layers.Activation("log_softmax")(dense()(h))),
    "raw": lambda: Raw(NET, ops.log_softmax),
}
SIGMOID = {
    "fused": lambda: NET.build(dense("sigmoid")),
    "activation": lambda: NET.build(lambda h: layers.Activation("sigmoid")(dense()(h))),
    "raw": lambda: Raw(NET, ops.sigmoid),
}
LOGITS = {
    "fused": lambda: NET.build(dense()),
    "raw": lambda: Raw(NET, lambda logits: logits),
    "linear": lambda: NET.build(lambda h: layers.Activation("linear")(dense()(h))),
}
ONE_UNIT = {
    "fused": lambda: ONE.build(dense("sigmoid", 1)),
    "activation": lambda: ONE.build(lambda h: layers.Activation("sigmoid")(dense(None, 1)(h))),
    "raw": lambda: Raw(ONE, ops.sigmoid),
    "no_axis": lambda: Raw(ONE, lambda logits: ops.sigmoid(ops.squeeze(logits, axis=-1))),
    "logit": lambda: ONE.build(dense(None, 1)),
    "logit_no_axis": lambda: Raw(ONE, lambda logits: logits[:, 0]),
}


def assert_explains(model, target, scores, slopes):
    """Asserts the scores `[B]` and the signed gradients `[B, F]` of a target."""
    explanation = SIGNED(model, X, target)
    np.testing.assert_allclose(explanation.scores, scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explanation.values, slopes, rtol=1e-4, atol=1e-5)
    return explanation


def each(heads):
    return pytest.mark.parametrize("head", heads.values(), ids=heads)


# Classes


@each(SOFTMAX | {f"log_{k}": v for k, v in LOG_SOFTMAX.items()})
def test_a_class_is_the_logit_before_a_softmax(head):
    assert_explains(head(), 2, NET.logits[:, 2], NET.slopes[:, 2])


@each(SIGMOID | {f"logits_{k}": v for k, v in LOGITS.items()})
def test_a_class_is_the_logit_before_a_sigmoid_or_nothing(head):
    assert_explains(head(), 1, NET.logits[:, 1], NET.slopes[:, 1])


@each(SOFTMAX | {f"log_{k}": v for k, v in LOG_SOFTMAX.items()})
def test_a_probability_after_a_softmax(head):
    p, slopes = NET.probabilities
    assert_explains(head(), kx.targets.Class(2, of="probability"), p[:, 2], slopes[:, 2])


@each(SIGMOID)
def test_a_probability_after_a_sigmoid(head):
    p, slopes = NET.sigmoids
    assert_explains(head(), kx.targets.Class(2, of="probability"), p[:, 2], slopes[:, 2])


@each(LOGITS)
def test_a_probability_of_a_model_of_logits_is_the_softmax(head):
    p, slopes = NET.probabilities
    assert_explains(head(), kx.targets.Class(2, of="probability"), p[:, 2], slopes[:, 2])


@each(ONE_UNIT)
def test_a_one_unit_head(head):
    model, (p, slopes) = head(), ONE.sigmoids
    for index in (None, 0):
        explanation = assert_explains(model, index, ONE.logits[:, 0], ONE.slopes[:, 0])
        np.testing.assert_array_equal(explanation.target.index, 0)
    assert_explains(model, kx.targets.Class(of="probability"), p[:, 0], slopes[:, 0])


def test_a_softmax_in_the_middle_is_no_end():
    """Mixture weights: the units after them are explained as they are, and that is said."""
    model = Raw(NET, lambda logits: 3 * ops.softmax(logits) + 1)
    p, slopes = NET.probabilities
    with pytest.warns(UserWarning, match="explained as it is"):
        assert_explains(model, 0, 3 * p[:, 0] + 1, 3 * slopes[:, 0])


def test_the_predicted_class_is_the_default():
    predicted = NET.logits.argmax(axis=1)
    assert len(set(predicted)) > 1
    rows = np.arange(models.ROWS)
    explanation = assert_explains(
        SOFTMAX["fused"](), None, NET.logits[rows, predicted], NET.slopes[rows, predicted]
    )
    np.testing.assert_array_equal(explanation.target.index, predicted)
    assert isinstance(explanation.target, kx.targets.Class)


@pytest.mark.parametrize(
    "index",
    [
        [3, 0, 1, 1],
        (3, 0, 1, 1),
        np.array([3, 0, 1, 1], "uint8"),
        np.array([3, 0, 1, 1], "int64"),
        tf.constant([3, 0, 1, 1]),
        kx.targets.Class([3, 0, 1, 1]),
    ],
    ids=lambda index: type(index).__name__,
)
def test_a_class_a_row(index):
    rows, classes = np.arange(models.ROWS), [3, 0, 1, 1]
    explanation = assert_explains(
        SOFTMAX["fused"](), index, NET.logits[rows, classes], NET.slopes[rows, classes]
    )
    np.testing.assert_array_equal(explanation.target.index, classes)


@pytest.mark.parametrize("index", [2, np.int64(2), np.array(2), tf.constant(2)])
def test_one_class_for_all_rows(index):
    assert_explains(SOFTMAX["fused"](), index, NET.logits[:, 2], NET.slopes[:, 2])


def test_several_classes_a_row():
    index = np.array([[0, 3], [1, 1], [2, 0], [3, 2]])
    rows = np.arange(models.ROWS)[:, None]
    explanation = assert_explains(
        SOFTMAX["fused"](), index, NET.logits[rows, index], NET.slopes[rows, index]
    )
    np.testing.assert_array_equal(explanation.target.index, index)


# Labels


@each(ONE_UNIT)
def test_a_label_of_a_one_unit_head(head):
    labels = np.array([1, 0, 0, 1])
    sign = 2 * labels - 1
    model = head()
    explanation = assert_explains(
        model, kx.targets.Label(labels), sign * ONE.logits[:, 0], sign[:, None] * ONE.slopes[:, 0]
    )
    np.testing.assert_array_equal(explanation.target.index, labels)
    p, slopes = ONE.sigmoids
    assert_explains(
        model,
        kx.targets.Label(labels, of="probability"),
        np.where(labels, p[:, 0], 1 - p[:, 0]),
        sign[:, None] * slopes[:, 0],
    )


def test_both_labels_of_a_one_unit_head_at_once():
    labels = np.tile([0, 1], (models.ROWS, 1))
    sign = np.array([-1, 1])
    scores, slopes = sign * ONE.logits, sign[:, None] * ONE.slopes
    assert_explains(ONE_UNIT["fused"](), kx.targets.Label(labels), scores, slopes)


def test_the_predicted_label_of_a_one_unit_head():
    explanation = SIGNED(ONE_UNIT["fused"](), X, kx.targets.Label())
    assert len(set(np.sign(ONE.logits[:, 0]))) == 2
    np.testing.assert_array_equal(explanation.target.index, ONE.logits[:, 0] > 0)
    np.testing.assert_allclose(explanation.scores, np.abs(ONE.logits[:, 0]), rtol=1e-4)


def test_a_label_of_many_units_is_the_class():
    labels = [1, 0, 3, 2]
    rows = np.arange(models.ROWS)
    target = kx.targets.Label(labels)
    assert_explains(SOFTMAX["fused"](), target, NET.logits[rows, labels], NET.slopes[rows, labels])


# Regression


@each({"fused": SOFTMAX["fused"], "raw": SOFTMAX["raw"]})
def test_a_regression_looks_through_nothing(head):
    p, slopes = NET.probabilities
    assert_explains(head(), kx.targets.Regression(1), p[:, 1], slopes[:, 1])


def test_a_regression_of_sigmoids():
    p, slopes = ONE.sigmoids
    assert_explains(ONE_UNIT["fused"](), kx.targets.Regression(), p[:, 0], slopes[:, 0])


def test_a_regression_of_log_softmax():
    p, slopes = NET.probabilities
    target = kx.targets.Regression(3)
    assert_explains(
        LOG_SOFTMAX["fused"](), target, np.log(p[:, 3]), slopes[:, 3] / p[:, 3][:, None]
    )


# Neurons


@pytest.fixture(scope="module")
def conv():
    """A CNN, the output `[B, 6, 6, 4]` of its convolution, and its derivative by the input."""
    x = keras.Input(models.PICTURE)
    h = layers.Conv2D(4, 3, activation="tanh", name="conv")(x)
    body = keras.Model(x, h, name="body")
    outer = keras.Input(models.PICTURE)
    pooled = layers.GlobalAveragePooling2D()(body(outer))
    model = models.made(outer, layers.Dense(3, name="head")(pooled))
    pictures = tf.constant(models.numbers(*models.PICTURE))
    kernel, bias = (tf.constant(weight) for weight in model.get_weights()[:2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(pictures)
        a = tf.tanh(tf.nn.conv2d(pictures, kernel, 1, "VALID") + bias)
        unit, means = a[:, 2, 5, 3], tf.reduce_mean(a, axis=(1, 2))
        channels = [means[:, k] for k in range(4)]
    return {
        "model": model,
        "x": pictures.numpy(),
        "means": means.numpy(),
        "slopes": np.stack([tape.gradient(c, pictures) for c in channels], axis=1),
        "unit": unit.numpy(),
        "unit_slopes": tape.gradient(unit, pictures).numpy(),
    }


@pytest.mark.parametrize("layer", ["conv", "body/conv"])
def test_a_channel_of_a_layer_is_its_mean(conv, layer):
    explanation = SIGNED(conv["model"], conv["x"], kx.targets.Neuron(layer, 2))
    np.testing.assert_allclose(explanation.scores, conv["means"][:, 2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explanation.values, conv["slopes"][:, 2], rtol=1e-4, atol=1e-6)


def test_several_channels_of_a_layer(conv):
    index = np.array([[0, 1], [3, 3], [2, 1], [1, 0]])
    explanation = SIGNED(conv["model"], conv["x"], kx.targets.Neuron("conv", index))
    rows = np.arange(models.ROWS)[:, None]
    expected = conv["means"][rows, index], conv["slopes"][rows, index]
    np.testing.assert_allclose(explanation.scores, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explanation.values, expected[1], rtol=1e-4, atol=1e-6)


def test_a_unit_of_a_layer(conv):
    explanation = SIGNED(conv["model"], conv["x"], kx.targets.Neuron("conv", unit=(2, 5, 3)))
    np.testing.assert_allclose(explanation.scores, conv["unit"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explanation.values, conv["unit_slopes"], rtol=1e-4, atol=1e-6)


def test_a_unit_of_a_dense_layer_given_as_object(conv):
    head = conv["model"].get_layer("head")
    explanation = SIGNED(conv["model"], conv["x"], kx.targets.Neuron(head, 1))
    kernel, bias = head.get_weights()
    expected = conv["means"] @ kernel[:, 1] + bias[1]
    np.testing.assert_allclose(explanation.scores, expected, rtol=1e-4, atol=1e-6)


def test_an_integrated_gradient_of_a_neuron_sums_to_its_change(conv):
    target = kx.targets.Neuron("conv", unit=(2, 5, 3))
    explanation = kx.IntegratedGradients(steps=20)(conv["model"], conv["x"], target)
    bias = conv["model"].get_weights()[1]
    total = explanation.values.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(total, conv["unit"] - np.tanh(bias[3]), rtol=1e-4, atol=1e-5)


# Regions of a segmentation


def segmentation(classes, activation):
    """A segmentation by one 1 x 1 convolution, and its logits and weights."""
    x = keras.Input((6, 5, 3))
    model = models.made(x, layers.Conv2D(classes, 1, activation=activation)(x), seed=5)
    pictures = models.numbers(6, 5, 3)
    kernel, bias = model.get_weights()
    return model, pictures, pictures.astype("float64") @ kernel[0, 0] + bias, kernel[0, 0]


def mean_in(mask, logits):
    """The mean of numbers `[B, H, W]` over booleans `[B, H, W]`."""
    return np.array([row[inside].mean() for row, inside in zip(logits, mask, strict=True)])


@pytest.mark.parametrize("activation", ["softmax", None])
@pytest.mark.parametrize("index", [0, 2, [1, 0, 2, 1]])
def test_a_class_where_it_is_predicted(activation, index):
    model, x, logits, kernel = segmentation(3, activation)
    classes = np.broadcast_to(index, models.ROWS)
    mask = logits.argmax(axis=-1) == classes[:, None, None]
    chosen = np.stack([row[..., c] for row, c in zip(logits, classes, strict=True)])
    explanation = SIGNED(model, x, kx.targets.Region(index))
    np.testing.assert_allclose(explanation.scores, mean_in(mask, chosen), rtol=1e-4)
    share = mask / mask.sum(axis=(1, 2), keepdims=True)
    expected = share[..., None] * kernel.T[classes][:, None, None, :]
    np.testing.assert_allclose(explanation.values, expected, rtol=1e-4, atol=1e-6)


def test_the_class_predicted_at_most_places():
    model, x, logits, _ = segmentation(3, "softmax")
    counts = (logits.argmax(axis=-1)[..., None] == np.arange(3)).sum(axis=(1, 2))
    explanation = SIGNED(model, x, kx.targets.Region())
    np.testing.assert_array_equal(explanation.target.index, counts.argmax(axis=1))
    assert len(set(counts.argmax(axis=1))) > 1


@pytest.mark.parametrize("of", ["logit", "probability"])
def test_a_class_in_a_mask(of):
    model, x, logits, _ = segmentation(3, "softmax")
    mask = np.zeros((6, 5), bool)
    mask[1:4, 2:] = True
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    scores = (logits if of == "logit" else p)[:, 1:4, 2:, 1].mean(axis=(1, 2))
    explanation = SIGNED(model, x, kx.targets.Region(1, mask=mask, of=of))
    np.testing.assert_allclose(explanation.scores, scores, rtol=1e-4, atol=1e-6)
    assert explanation.values[:, mask].all()
    assert not explanation.values[:, ~mask].any()


def test_several_classes_in_a_mask():
    model, x, logits, _ = segmentation(3, "softmax")
    mask = np.arange(30).reshape(6, 5) % 2 == 0
    index = np.array([[0, 1], [2, 1], [0, 0], [1, 2]])
    means = logits[:, mask].mean(axis=1)  # [B, C]
    explanation = SIGNED(model, x, kx.targets.Region(index, mask=mask))
    expected = np.take_along_axis(means, index, axis=1)
    np.testing.assert_allclose(explanation.scores, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_segmentation_with_one_channel(activation):
    model, x, logits, _ = segmentation(1, activation)
    mask = logits[..., 0] > 0
    explanation = SIGNED(model, x, kx.targets.Region())
    np.testing.assert_allclose(explanation.scores, mean_in(mask, logits[..., 0]), rtol=1e-4)


def test_a_series_that_is_labelled_step_by_step():
    x = keras.Input((9, 2))
    model = models.made(x, layers.Dense(3, activation="softmax")(x))
    series = models.numbers(9, 2)
    kernel, bias = model.get_weights()
    logits = series.astype("float64") @ kernel + bias
    mask = np.arange(9) < 4
    explanation = SIGNED(model, series, kx.targets.Region(2, mask=mask))
    np.testing.assert_allclose(explanation.scores, logits[:, mask, 2].mean(axis=1), rtol=1e-4)


# Functions of the outputs, and one of several outputs


@pytest.fixture(scope="module")
def named():
    """A model with outputs "kind" (softmax) and "size" (two numbers), as `Net` computes them."""
    x = keras.Input((FEATURES,))
    h = layers.Dense(7, activation="tanh")(x)
    kind = layers.Dense(UNITS, activation="softmax", name="kind")(h)
    size = layers.Dense(2, name="size")(h)
    net = Net(2, seed=0)
    both = {"kind": kind, "size": size}
    models_of = {"dict": keras.Model(x, both), "list": keras.Model(x, [kind, size])}
    models_of["dict"].set_weights([NET.A, NET.a, NET.B, NET.b, net.B, net.b])
    hidden = np.tanh(X @ NET.A + NET.a)
    slopes = np.einsum("fh,bh,hc->bcf", NET.A, 1 - hidden**2, net.B)
    return models_of, hidden @ net.B + net.b, slopes


def test_a_function_of_the_outputs(named):
    by_form, sizes, slopes = named
    difference = sizes[:, 0] - 2 * sizes[:, 1], slopes[:, 0] - 2 * slopes[:, 1]
    of_dict = kx.targets.Function(lambda y: y["size"][:, 0] - 2 * y["size"][:, 1])
    of_list = kx.targets.Function(lambda y: y[1][:, 0] - 2 * y[1][:, 1])
    assert_explains(by_form["dict"], of_dict, *difference)
    assert_explains(by_form["list"], of_list, *difference)


def test_a_function_sees_what_the_model_returns(named):
    p, slopes = NET.probabilities
    target = kx.targets.Function(lambda y: y["kind"][:, 1])
    explanation = assert_explains(named[0]["dict"], target, p[:, 1], slopes[:, 1])
    assert explanation.target is target


@pytest.mark.parametrize(
    ("form", "output"), [("dict", "size"), ("list", "size"), ("list", 1)], ids=str
)
def test_an_output_by_name_or_position(named, form, output):
    by_form, sizes, slopes = named
    for target in (kx.targets.Class(1, output=output), kx.targets.Regression(1, output=output)):
        assert_explains(by_form[form], target, sizes[:, 1], slopes[:, 1])


@pytest.mark.parametrize(("form", "output"), [("dict", "kind"), ("list", "kind"), ("list", 0)])
def test_an_output_s_logit_and_probability(named, form, output):
    model, (p, slopes) = named[0][form], NET.probabilities
    assert_explains(model, kx.targets.Class(0, output=output), NET.logits[:, 0], NET.slopes[:, 0])
    target = kx.targets.Label(0, of="probability", output=output)
    assert_explains(model, target, p[:, 0], slopes[:, 0])


def test_an_output_by_position_of_a_subclassed_model():
    class TwoOutputs(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return x[:, :2], self.dense(x)

    model = TwoOutputs()
    model(X)
    kernel, bias = model.get_weights()
    explanation = SIGNED(model, X, kx.targets.Class(2, output=1))
    np.testing.assert_allclose(explanation.scores, X @ kernel[:, 2] + bias[2], rtol=1e-4, atol=1e-6)
    expected = np.broadcast_to(kernel[:, 2], X.shape)
    np.testing.assert_allclose(explanation.values, expected, rtol=1e-5)


def test_other_classes_need_no_other_function(named):
    model = named[0]["dict"]
    SIGNED(model, X, kx.targets.Class(0, output="kind"))
    functions = len(model.__dict__["__kx__"]._functions)
    SIGNED(model, X, kx.targets.Class([3, 2, 1, 1], output="kind"))
    SIGNED(model, X, kx.targets.Class(output="kind"))
    assert len(model.__dict__["__kx__"]._functions) == functions


def test_a_step_that_asks_at_other_points_keeps_the_inputs_class_and_score():
    class Mirrored(kx.Explainer):
        def step(self, probe, x, target, pass_):
            there = probe.gradient(-x, target)
            return (probe.gradient(x, target) + there) / 2

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    classes, opposite = np.asarray(model(x)).argmax(1), np.asarray(model(-x)).argmax(1)
    assert (classes != opposite).any()
    found = Mirrored()(model, x)
    np.testing.assert_array_equal(found.target.index, classes)
    np.testing.assert_allclose(found.scores, np.asarray(model(x)).max(1), atol=1e-6)
    signed = kx.Saliency(absolute=False)
    expected = (signed(model, x, classes).values + signed(model, -x, classes).values) / 2
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_a_step_that_never_asks_for_a_score_still_reports_it():
    class Itself(kx.Explainer):
        def step(self, probe, x, target, pass_):
            return x

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x = np.ones((2, 4), "float32")
    found = Itself()(model, x, 1)
    np.testing.assert_allclose(found.scores, np.asarray(model(x))[:, 1], rtol=1e-5)
