"""`Explainer.attribute`: an explanation as a part of a user's graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from tests.process import run_python

CLASSES = np.array([0, 1, 2], np.int32)


@pytest.fixture(scope="module")
def model():
    """Smooth where rules are not: no weight is near 0, where a positive part has its kink."""
    x = layers.Input((8, 8, 3))
    y = layers.Conv2D(5, 3, activation="softplus", name="first")(x)
    y = layers.Conv2D(4, 3, activation="softplus", name="second")(y)
    y = layers.Dense(4)(layers.GlobalAveragePooling2D()(y))
    model, rng = keras.Model(x, layers.Softmax()(y)), np.random.default_rng(1)
    for weight in model.weights:
        sign = np.where(rng.random(weight.shape) < 0.7, 1, -1)
        weight.assign(sign * rng.uniform(0.1, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).random((3, 8, 8, 3), dtype=np.float32)


ROWS = np.random.default_rng(4).random((3, 8, 8, 3), dtype=np.float32)
SMOOTH = [
    kx.Saliency(absolute=False),
    kx.IntegratedGradients(steps=3),
    kx.IntegratedGradients(steps=3, layer="first"),
    kx.SmoothGrad(samples=3),
    kx.SmoothGrad(explainer=kx.IntegratedGradients(steps=2), samples=2),
    kx.GradientSHAP(background=ROWS, samples=4),
    kx.GradCAM(relu=False),
    kx.ScoreCAM(relu=False),
    kx.AblationCAM(relu=False),
    kx.DeepLIFT(),
    kx.DeepLIFT(rule="reveal_cancel"),
    kx.DeepSHAP(background=ROWS),
    kx.LRP(rules="alpha1_beta0"),
    kx.LRP(rules="alpha2_beta1"),
    kx.LRP(rules=[("*", kx.rules.Gamma(0.25))]),
]
ALONE = (kx.ScoreCAM, kx.AblationCAM, kx.GradientSHAP, kx.IntegratedGradients, kx.LRP)
"""Those whose derivatives are not those of a formula in test_derivatives."""
OTHERS = [
    kx.BlurIG(steps=3),
    kx.GuidedIG(steps=3),
    kx.GuidedBackprop(),
    kx.LayerConductance(layer="first", steps=3),
    kx.EigenCAM(),
]


@pytest.mark.parametrize("explainer", [*SMOOTH, *OTHERS], ids=repr)
def test_the_values_are_those_of_a_call(model, x, explainer):
    values = explainer(model, x, target=CLASSES, seed=5).values
    got = explainer.attribute(model, x, CLASSES, 5)
    np.testing.assert_allclose(got, values, rtol=1e-5, atol=2e-6 * np.abs(values).max())


@pytest.mark.parametrize("explainer", [e for e in SMOOTH if type(e) in ALONE], ids=repr)
def test_the_derivative_by_the_weights_is_that_of_finite_differences(model, x, explainer):
    def total():
        values = np.asarray(explainer.attribute(model, x, CLASSES, 5), np.float64)
        return np.square(values / scale).sum()

    scale = float(np.abs(explainer.attribute(model, x, CLASSES, 5)).max())
    weights = model.trainable_weights
    with tf.GradientTape() as tape:
        value = ops.sum(ops.square(explainer.attribute(model, x, CLASSES, 5) / scale))
    grads = tape.gradient(value, [w.value for w in weights])
    rng, step = np.random.default_rng(6), 1e-3
    along = [rng.normal(size=w.shape).astype(np.float32) for w in weights]
    before = [w.numpy() for w in weights]
    found = []
    for sign in (1, -1):
        for w, start, direction in zip(weights, before, along, strict=True):
            w.assign(start + sign * step * direction)
        found.append(total())
    for w, start in zip(weights, before, strict=True):
        w.assign(start)
    slope = sum(
        float(np.sum(np.asarray(g) * d)) for g, d in zip(grads, along, strict=True) if g is not None
    )
    assert slope == pytest.approx((found[0] - found[1]) / (2 * step), rel=0.02)


def test_in_a_graph_the_class_and_the_seed_are_tensors(model, x):
    explainer = kx.SmoothGrad(samples=3)

    @tf.function
    def explained(x, target, seed):
        return explainer.attribute(model, x, target, seed)

    one, other = (explained(x, tf.constant(CLASSES), tf.constant(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(explained(x, tf.constant(CLASSES), tf.constant(1)), one)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()
    predicted = model.predict(x, verbose=0).argmax(axis=1).astype(np.int32)
    alone = [explained(x, tf.constant(t), tf.constant(1)) for t in (predicted, [-1] * 3)]
    np.testing.assert_array_equal(*alone)
    assert explained.experimental_get_tracing_count() == 1


def test_noise_of_a_tensor_is_noise(model, x):
    smooth = kx.SmoothGrad(samples=400)
    a = smooth.attribute(model, x, CLASSES, tf.constant(1))
    b = smooth(model, x, target=CLASSES).values
    np.testing.assert_allclose(a, b, atol=0.05 * np.abs(b).max())


def test_rows_of_a_background_are_drawn_without_one_twice():
    drawn = np.asarray(
        kx.GradientSHAP(background=ROWS, samples=6).passes(tf.constant(1))["reference"]
    )
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [0, 1, 2]
    alpha = np.asarray(kx.GradientSHAP(background=ROWS, samples=6).passes(tf.constant(1))["alpha"])
    np.testing.assert_array_equal(np.sort(np.floor(alpha * 6)), np.arange(6))


def test_another_seed_or_batch_traces_nothing(model, x):
    explainer = kx.IntegratedGradients(steps=2)
    explainer.attribute(model, x, CLASSES, 1)
    cached = list(model.__dict__["__kx__"]._functions)
    explainer.attribute(model, x[:2], 1, 2)
    assert list(model.__dict__["__kx__"]._functions) == cached


def test_a_training_step_lowers_what_it_is_asked_to(x):
    class Even(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x, training=None):
            return self.inner(x, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            seed = ops.cast(self.optimizer.iterations, "int32")
            values = kx.SmoothGrad(samples=2).attribute(self.inner, x, ops.cast(y, "int32"), seed)
            return 1e4 * ops.mean(ops.square(values[..., 0]))

    keras.utils.set_random_seed(7)
    inner = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(3, 3, activation="softplus"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    trained = Even(inner)
    trained.compile(keras.optimizers.Adam(0.02))
    history = trained.fit(x, CLASSES, epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0] / 5
    values = kx.Saliency(absolute=False)(inner, x, target=CLASSES).values
    assert np.square(values[..., 0]).mean() < np.square(values[..., 1:]).mean() / 3


@pytest.mark.parametrize("explainer", [kx.Saliency(), kx.IntegratedGradients(steps=2)], ids=repr)
def test_xla_gives_the_same(model, x, explainer):
    compiled = tf.function(lambda x: explainer.attribute(model, x, 1), jit_compile=True)
    expected = np.asarray(explainer.attribute(model, x, 1))
    np.testing.assert_allclose(compiled(x), expected, atol=1e-5 * np.abs(expected).max())


def test_token_ids_are_explained_at_their_embeddings():
    ids = layers.Input((None,), dtype="int32")
    embedded = layers.Embedding(9, 4, mask_zero=True)(ids)
    text = keras.Model(ids, layers.Dense(2)(layers.GlobalAveragePooling1D()(embedded)))
    x = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)
    explainer = kx.IntegratedGradients(steps=2)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)])
    def explained(x):
        return explainer.attribute(text, x, 1)

    np.testing.assert_allclose(explained(x), explainer(text, x, target=1).values, atol=1e-7)


def test_several_inputs_have_a_nest_of_values():
    parts = {"a": layers.Input((3,), name="a"), "b": layers.Input((2,), name="b")}
    both = keras.Model(parts, layers.Dense(2)(layers.Concatenate()([parts["a"], parts["b"]])))
    x = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 2), np.float32)}
    values = kx.InputXGradient().attribute(both, x, 0)
    expected = kx.InputXGradient()(both, x, target=0).values
    assert set(values) == {"a", "b"}
    for key in values:
        np.testing.assert_allclose(values[key], expected[key])


def test_the_derivative_by_the_input(model, x):
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = ops.sum(kx.InputXGradient().attribute(model, given, 1))
    assert np.abs(tape.gradient(value, given)).max() > 0


@pytest.mark.parametrize(
    ("explainer", "part"),
    [
        (kx.LIME(), "into features"),
        (kx.RISE(), "into features"),
        (kx.PartitionSHAP(), "on the host"),
        (kx.XRAI(), "on the host"),
    ],
    ids=repr,
)
def test_work_on_the_host_is_refused(model, x, explainer, part):
    with pytest.raises(
        ValueError, match=f"(?s)all in the graph.*{type(explainer).__name__}.*{part}"
    ):
        explainer.attribute(model, x)


@pytest.mark.parametrize(
    "target", [tf.constant([[0, 1]] * 3), tf.constant([0.0, 1.0, 2.0]), [[0, 1]] * 3], ids=str
)
def test_a_row_has_one_class(model, x, target):
    with pytest.raises(ValueError, match=r"one class for each row.*K times"):
        kx.Saliency().attribute(model, x, target)


@pytest.mark.parametrize("target", [[0, 1], tf.constant([0, 1])], ids=["list", "tensor"])
def test_there_are_as_many_classes_as_rows(model, x, target):
    with pytest.raises(ValueError, match=r"each of 3 rows.*Received: 2"):
        kx.Saliency().attribute(model, x, target)


def test_a_background_follows_the_columns_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]})
    inputs = keras.Input((2,))
    table = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(inputs))
    rows = pandas.DataFrame({"b": [10.0], "a": [-1.0]})
    values = kx.DeepSHAP(background=rows).attribute(table, x)
    np.testing.assert_allclose(values, [[2, -7], [3, -5]], rtol=1e-6)


def test_ids_of_a_baseline_are_those_of_the_embedding():
    ids = layers.Input((3,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(5, 2)(ids))
    text = keras.Model(ids, layers.Dense(2)(pooled))
    with pytest.raises(ValueError, match="`baseline`"):
        kx.IntegratedGradients(baseline=7).attribute(text, tf.constant([[1, 2, 3]]), 0)


def test_labels_of_a_one_unit_head():
    head = keras.Sequential([layers.Input((3,)), layers.Dense(1, "sigmoid")])
    x, y = np.ones((2, 3), np.float32), np.array([0, 1], np.int32)
    explainer, labels = kx.InputXGradient(), kx.targets.Label
    in_graph = tf.function(lambda y: explainer.attribute(head, x, labels(), index=y))
    expected = explainer(head, x, labels(y)).values
    np.testing.assert_allclose(in_graph(tf.constant(y)), expected)
    np.testing.assert_allclose(explainer.attribute(head, x, labels(y)), expected)
    with pytest.raises(ValueError, match="index=y"):
        tf.function(lambda y: explainer.attribute(head, x, y))(tf.constant(y))


def test_a_class_that_there_is_not_is_an_error_or_nan(model, x):
    for target in (4, [0, 1, 4], tf.constant([0, 1, 4])):
        with pytest.raises(ValueError, match="target below 4"):
            kx.Saliency().attribute(model, x, target)
    in_graph = tf.function(lambda x, target: kx.Saliency().attribute(model, x, target))
    values = in_graph(x, tf.constant([0, 4, 1])).numpy().reshape(3, -1)
    assert np.isnan(values).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="target below 4"):
        tf.function(lambda x: kx.Saliency().attribute(model, x, 4))(x)


MIRRORED = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras_explain as kx
x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5, "softplus"), keras.layers.Dense(2)]
        )
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            values = kx.IntegratedGradients(steps=3).attribute(model, x, 1)
            loss = tf.reduce_sum(tf.square(values))
        return tape.gradient(loss, model.trainable_variables[0].value)
    if strategy.num_replicas_in_sync == 1:
        alone = step(tf.constant(x))
    else:
        parts = strategy.experimental_distribute_values_from_function(
            lambda c: tf.constant(np.split(x, 2)[c.replica_id_in_sync_group])
        )
        got = strategy.reduce("SUM", strategy.run(step, args=(parts,)), axis=None)
np.testing.assert_allclose(got, alone, rtol=1e-5)
"""


@pytest.mark.slow
def test_replicas_explain_their_own_rows(tmp_path):
    done = run_python(MIRRORED, tmp_path)
    assert done.returncode == 0, done.stderr
