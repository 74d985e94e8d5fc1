"""Saliency and Input x Gradient against hand-written backpropagation in float64."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
from tests import naive

SIGNED = kx.Saliency(absolute=False)
NETWORKS = {
    "relu, max": {"activation": "relu", "pool": "max"},
    "softplus, average": {"activation": "softplus"},
    "tanh, max": {"activation": "tanh", "pool": "max"},
    "relu, average": {"activation": "relu", "head": None},
    "series": {"shape": (9, 2)},
    "volume": {"shape": (5, 4, 4, 1), "activation": "relu"},
}
CLASSES = np.array([0, 3, 1])


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def case(request):
    """A model, the same in NumPy, and an input with numbers of either sign."""
    model = naive.network(**request.param)
    return model, naive.Net([model]), naive.inputs(model.input_shape[1:])


def chain(*stack, shape=(4,), seed=0):
    """A Sequential model with random weights, and the same in NumPy."""
    model = naive.randomize(keras.Sequential([keras.Input(shape), *stack]), seed)
    return model, naive.Net([model])


def test_the_naive_backpropagation_is_the_slope_of_the_naive_score(case):
    _, net, x = case
    slope = naive.central_differences(lambda v: net.score(v, CLASSES), x)
    naive.close(net.gradient(x, CLASSES), slope, 1e-7)


def test_the_naive_network_is_the_model(case):
    model, net, x = case
    y = net.scores(x)
    if model.layers[-1].activation is keras.activations.softmax:
        y = naive.softmax(y)
    naive.close(ops.convert_to_numpy(model(x, training=False)), y)


# The formulas


def test_saliency_is_the_gradient(case):
    model, net, x = case
    explanation = SIGNED(model, x, CLASSES)
    gradient = net.gradient(x, CLASSES)
    assert (gradient < 0).any()
    naive.close(explanation.values, gradient)
    naive.close(explanation.scores, net.score(x, CLASSES))
    assert explanation.values.dtype == np.float32


def test_saliency_is_its_magnitude_by_default():
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    naive.close(kx.Saliency()(model, x, CLASSES).values, np.abs(net.gradient(x, CLASSES)))


def test_input_x_gradient_is_the_product(case):
    model, net, x = case
    naive.close(kx.InputXGradient()(model, x, CLASSES).values, x * net.gradient(x, CLASSES))


def test_the_predicted_class_is_explained_without_a_target():
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    explanation = SIGNED(model, x)
    predicted = net.scores(x).argmax(axis=1)
    assert explanation.target.index.tolist() == predicted.tolist()
    naive.close(explanation.values, net.gradient(x, predicted))


def test_one_class_for_all():
    model = naive.network()
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    naive.close(SIGNED(model, x, 2).values, net.gradient(x, 2))


def test_many_classes_at_once():
    model = naive.network(activation="relu", pool="max")
    net, x = naive.Net([model]), naive.inputs((8, 6, 2))
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = SIGNED(model, x, many)
    expected = np.stack([net.gradient(x, many[:, k]) for k in range(2)], axis=1)
    naive.close(explanation.values, expected)
    naive.close(explanation.scores, np.take_along_axis(net.scores(x), many, axis=1))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_rows_keep_their_places_in_small_batches(batch_size):
    model = naive.network()
    x = naive.inputs((8, 6, 2), rows=5)
    target = np.array([0, 1, 2, 3, 0])
    values = SIGNED(model, x, target, batch_size=batch_size).values
    naive.close(values, naive.Net([model]).gradient(x, target))


def test_explained_weights_are_the_present_ones():
    model, _ = chain(layers.Dense(5, activation="tanh"), layers.Dense(3))
    x = naive.inputs((4,))
    before = SIGNED(model, x, 0).values
    naive.randomize(model, seed=1)
    after = SIGNED(model, x, 0).values
    naive.close(after, naive.Net([model]).gradient(x, 0))
    assert np.abs(after - before).max() > 0.1


def test_integer_pictures_are_explained_as_numbers():
    model = naive.network()
    x = np.random.default_rng(0).integers(0, 4, (3, 8, 6, 2)).astype(np.uint8)
    net = naive.Net([model])
    naive.close(SIGNED(model, x, 1).values, net.gradient(x, 1))
    naive.close(kx.InputXGradient()(model, x, 1).values, x * net.gradient(x, 1))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_every_precision_explains_the_weights(policy):
    stack = [
        layers.Conv2D(3, 3, activation="tanh", dtype=policy),
        layers.BatchNormalization(dtype=policy),
        layers.Flatten(dtype=policy),
        layers.Dense(3, activation="softmax", dtype=policy),
    ]
    model, net = chain(*stack, shape=(5, 4, 2))
    x = naive.inputs((5, 4, 2))
    explanation = SIGNED(model, x, 2)
    naive.close(explanation.values, net.gradient(x, 2))
    naive.close(explanation.scores, net.score(x, 2))


@pytest.fixture(scope="module")
def perceptron():
    """A model to change the weights of."""
    return chain(layers.Dense(6, activation="tanh"), layers.Dense(3))[0]


@naive.few
@given(seed=st.integers(0, 2**16), scale=st.floats(0.1, 20), target=st.integers(0, 2))
def test_any_weights_and_inputs(perceptron, seed, scale, target):
    model = naive.randomize(perceptron, seed)
    x = naive.inputs((4,), seed=seed) * np.float32(scale)
    naive.close(SIGNED(model, x, target).values, naive.Net([model]).gradient(x, target), 1e-4)


# What a score is


class Raw(keras.Model):
    """Ends in an operation of a subclassed `call`."""

    def __init__(self, fn, units=3):
        super().__init__()
        self.hidden = layers.Dense(5, activation="tanh")
        self.head = layers.Dense(units)
        self.fn = fn

    def call(self, x):
        return self.fn(self.head(self.hidden(x)))


def ending(kind, units=3):
    """A model whose last activation is written in another way, with the same weights."""
    hidden = layers.Dense(5, activation="tanh")
    fused = {"softmax": "softmax", "log_softmax": "log_softmax", "sigmoid": "sigmoid"}
    apart = {
        "softmax layer": layers.Softmax(),
        "activation layer": layers.Activation("softmax"),
        "sigmoid layer": layers.Activation("sigmoid"),
        "float32 softmax": layers.Activation("softmax", dtype="float32"),
    }
    raw = {
        "raw softmax": ops.softmax,
        "raw log-softmax": ops.log_softmax,
        "raw sigmoid": ops.sigmoid,
        "raw reshape": lambda y: ops.reshape(ops.softmax(y), (-1, units)),
        "raw cast": lambda y: ops.cast(ops.softmax(ops.cast(y, "float32")), "float64"),
    }
    if kind in raw:
        model = Raw(raw[kind], units)
        model(np.zeros((1, 4), "float32"))
    elif kind == "functional operation":
        x = keras.Input((4,))
        model = keras.Model(x, ops.softmax(layers.Dense(units)(hidden(x))))
    else:
        stack = [hidden, layers.Dense(units, activation=fused.get(kind))]
        model = keras.Sequential([keras.Input((4,)), *stack, *filter(None, [apart.get(kind)])])
    return naive.randomize(model)


ENDINGS = [
    "softmax",
    "log_softmax",
    "softmax layer",
    "activation layer",
    "float32 softmax",
    "functional operation",
    "raw softmax",
    "raw log-softmax",
    "raw reshape",
    "raw cast",
    "sigmoid",
    "sigmoid layer",
    "raw sigmoid",
]


@pytest.fixture(scope="module")
def logits():
    """The model that ends in logits, in NumPy."""
    return naive.Net([ending("linear")])


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_class_score_is_the_logit_however_the_model_ends(kind, logits):
    x = naive.inputs((4,))
    explanation = SIGNED(ending(kind), x, CLASSES % 3)
    naive.close(explanation.values, logits.gradient(x, CLASSES % 3))
    naive.close(explanation.scores, logits.score(x, CLASSES % 3))


@pytest.mark.parametrize("kind", ["softmax", "softmax layer", "raw softmax", "linear"])
def test_a_probability_can_be_asked_for(kind, logits):
    x = naive.inputs((4,))
    p = naive.softmax(logits.scores(x))
    upstream = p[:, [2]] * (np.eye(3)[2] - p)  # of p_2 by the logits
    explanation = SIGNED(ending(kind), x, kx.targets.Class(2, of="probability"))
    naive.close(explanation.values, logits.backward(x, upstream))
    naive.close(explanation.scores, p[:, 2])
    assert np.abs(explanation.values - logits.gradient(x, 2)).max() > 0.1


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid layer", "raw sigmoid"])
def test_a_unit_of_independent_classes(kind, logits):
    x = naive.inputs((4,))
    p = naive.sigmoid(logits.scores(x))
    upstream = p * (1 - p) * np.eye(3)[1]
    explanation = SIGNED(ending(kind), x, kx.targets.Class(1, of="probability"))
    naive.close(explanation.values, logits.backward(x, upstream))
    naive.close(explanation.scores, p[:, 1])


def test_a_softmax_inside_the_model_stays():
    stack = [keras.Input((4,)), layers.Dense(5, activation="softmax"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential(stack))
    x = naive.inputs((4,))
    (a, b, c, d) = (w.astype(np.float64) for w in model.get_weights())

    def score(x):
        return (naive.softmax(x @ a + b) @ c + d)[:, 1]

    explanation = SIGNED(model, x, 1)
    naive.close(explanation.values, naive.central_differences(score, x))
    naive.close(explanation.scores, score(x))


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid layer", "raw sigmoid", "linear"])
def test_a_binary_head(kind):
    model, net = ending(kind, units=1), naive.Net([ending("linear", units=1)])
    x = naive.inputs((4,))
    gradient, p = net.gradient(x, 0), naive.sigmoid(net.scores(x))
    labels = np.array([0, 1, 0])
    sign = np.array([-1.0, 1.0, -1.0])[:, None]
    probability = kx.targets.Class(of="probability")
    naive.close(SIGNED(model, x).values, gradient)
    naive.close(SIGNED(model, x, 0).values, gradient)
    naive.close(SIGNED(model, x, kx.targets.Label(labels)).values, sign * gradient)
    naive.close(SIGNED(model, x, kx.targets.Label(0)).scores, -net.score(x, 0))
    naive.close(SIGNED(model, x, probability).values, p * (1 - p) * gradient)
    label = SIGNED(model, x, kx.targets.Label(labels, of="probability"))
    naive.close(label.values, sign * p * (1 - p) * gradient)
    naive.close(label.scores, np.where(labels, p[:, 0], 1 - p[:, 0]))


def test_an_output_as_it_is_returned():
    model = ending("softmax")
    x = naive.inputs((4,))
    as_is = SIGNED(model, x, kx.targets.Regression(1))
    probability = SIGNED(model, x, kx.targets.Class(1, of="probability"))
    naive.close(as_is.values, probability.values)
    naive.close(as_is.scores, ops.convert_to_numpy(model(x))[:, 1])


def test_one_output_of_several():
    x = keras.Input((4,))
    h = layers.Dense(5, activation="tanh")(x)
    animal = layers.Dense(3, activation="softmax", name="animal")(h)
    age = layers.Dense(1, name="age")(h)
    model = naive.randomize(keras.Model(x, {"animal": animal, "age": age}))
    of_animal, of_age = (
        naive.Net([model.layers[1], model.get_layer(name)]) for name in ("animal", "age")
    )
    x = naive.inputs((4,))
    target = kx.targets.Class(2, output="animal")
    naive.close(SIGNED(model, x, target).values, of_animal.gradient(x, 2))
    target = kx.targets.Regression(output="age")
    naive.close(SIGNED(model, x, target).values, of_age.gradient(x, 0))
    target = kx.targets.Function(lambda y: 2 * y["age"][:, 0])
    naive.close(SIGNED(model, x, target).values, 2 * of_age.gradient(x, 0))


def test_a_neuron_and_a_channel():
    model = naive.network()
    net = naive.Net(model.layers[:4])  # up to conv_b
    x = naive.inputs((8, 6, 2))
    unit = np.zeros_like(net.scores(x))
    unit[:, 1, 2, 3] = 1
    target = kx.targets.Neuron("conv_b", unit=(1, 2, 3))
    naive.close(SIGNED(model, x, target).values, net.backward(x, unit))
    channel = np.zeros_like(unit)
    channel[..., 2] = 1 / np.prod(unit.shape[1:3])
    naive.close(SIGNED(model, x, kx.targets.Neuron("conv_b", 2)).values, net.backward(x, channel))


# Inputs of other kinds


class Sentence:
    """Token ids -> embeddings -> mean -> tanh -> logits, in NumPy from the embeddings on."""

    def __init__(self, model):
        self.table = np.asarray(model.layers[0].get_weights()[0], np.float64)
        self.net = naive.Net(model.layers[1:])

    def per_token(self, ids, target):
        return self.net.gradient(self.table[ids], target)


@pytest.fixture(scope="module")
def sentence():
    stack = [
        layers.Embedding(9, 4),
        layers.Conv1D(5, 2, activation="tanh"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *stack])
    naive.randomize(model)
    return model, Sentence(model), np.random.default_rng(0).integers(0, 9, (3, 6))


def test_tokens_are_explained_at_their_embeddings(sentence):
    model, own, ids = sentence
    gradient = own.per_token(ids, 1)
    naive.close(SIGNED(model, ids, 1).values, gradient.sum(axis=-1))
    product = (own.table[ids] * gradient).sum(axis=-1)
    naive.close(kx.InputXGradient()(model, ids, 1).values, product)


def test_the_magnitude_of_a_token_is_taken_before_it_is_summed(sentence):
    model, own, ids = sentence
    naive.close(kx.Saliency()(model, ids, 1).values, np.abs(own.per_token(ids, 1)).sum(axis=-1))


@pytest.mark.parametrize("nest", [list, dict])
def test_several_inputs_get_a_map_each(nest):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    head = layers.Dense(2)(layers.Dense(5, activation="tanh")(layers.Concatenate()([a, b])))
    model = keras.Model([a, b] if nest is list else {"a": a, "b": b}, head)
    naive.randomize(model)
    net = naive.Net(model.layers[-2:])
    xa, xb = naive.inputs((4,)), naive.inputs((3,), seed=1)
    gradient = net.gradient(np.concatenate([xa, xb], axis=1), 1)
    values = SIGNED(model, [xa, xb] if nest is list else {"a": xa, "b": xb}, 1).values
    assert type(values) is nest
    of_a, of_b = values if nest is list else (values["a"], values["b"])
    naive.close(of_a, gradient[:, :4])
    naive.close(of_b, gradient[:, 4:])


def test_a_layer_used_twice():
    x = keras.Input((4,))
    shared = layers.Dense(4, activation="tanh")
    model = naive.randomize(keras.Model(x, layers.Dense(2)(shared(shared(x)))))
    net = naive.Net([shared, shared, model.layers[-1]])
    x = naive.inputs((4,))
    naive.close(SIGNED(model, x, 1).values, net.gradient(x, 1))


# Axioms


def bias_free():
    stack = [
        layers.Conv2D(3, 3, activation="relu", use_bias=False),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(6, activation="relu", use_bias=False),
        layers.Dense(3, activation="softmax", use_bias=False),
    ]
    return chain(*stack, shape=(8, 6, 2))


def test_input_x_gradient_sums_to_the_score_of_a_relu_network_without_biases():
    model, net = bias_free()
    x = naive.inputs((8, 6, 2))
    explanation = kx.InputXGradient()(model, x, CLASSES % 3)
    total = explanation.values.sum(axis=(1, 2, 3))
    naive.close(total, net.score(x, CLASSES % 3))
    assert np.abs(total).min() > 0.01


def test_with_biases_the_sum_lacks_their_share():
    model, net = chain(layers.Dense(6, activation="relu"), layers.Dense(3))
    x = naive.inputs((4,))
    total = kx.InputXGradient()(model, x, 0).values.sum(axis=1)
    (_, b, c, d) = (w.astype(np.float64) for w in model.get_weights())
    active = net.parts[0].forward(x.astype(np.float64)) > 0
    share = (active * b) @ c[:, 0] + d[0]
    naive.close(total, net.score(x, 0) - share)
    assert np.abs(share).min() > 0.01


def test_a_linear_model_is_its_weights():
    model, _ = chain(layers.Dense(3, activation="softmax"))
    x, kernel = naive.inputs((4,)), model.get_weights()[0]
    np.testing.assert_array_equal(SIGNED(model, x, 2).values, np.tile(kernel[:, 2], (3, 1)))
    np.testing.assert_array_equal(kx.InputXGradient()(model, x, 2).values, x * kernel[:, 2])


def test_a_feature_without_influence_gets_zero():
    model, _ = chain(layers.Dense(5, activation="tanh"), layers.Dense(3))
    weights = model.get_weights()
    weights[0][1] = 0
    model.set_weights(weights)
    values = SIGNED(model, naive.inputs((4,)), 0).values
    assert (values[:, 1] == 0).all()
    assert (values[:, [0, 2, 3]] != 0).all()


def test_two_networks_of_one_function_have_one_gradient():
    """The hidden units permuted, each split in two halves."""
    model, _ = chain(layers.Dense(5, activation="tanh"), layers.Dense(3))
    other, _ = chain(layers.Dense(10, activation="tanh"), layers.Dense(3))
    a, b, c, d = model.get_weights()
    twice = np.tile(np.array([3, 0, 4, 1, 2]), 2)
    other.set_weights([a[:, twice], b[twice], c[twice] / 2, d])
    x = naive.inputs((4,))
    naive.close(SIGNED(other, x, 1).values, SIGNED(model, x, 1).values)


def test_the_gradient_of_a_weighted_sum_of_scores_is_the_weighted_sum():
    model = naive.network(head=None)
    x = naive.inputs((8, 6, 2))
    mixed = SIGNED(model, x, kx.targets.Function(lambda y: 2 * y[:, 0] - 3 * y[:, 1])).values
    naive.close(mixed, 2 * SIGNED(model, x, 0).values - 3 * SIGNED(model, x, 1).values)


def test_a_score_without_slope_gives_zeros_and_one_warning():
    model, _ = chain(layers.Dense(5, activation="relu"), layers.Dense(3))
    weights = model.get_weights()
    weights[1][:] = -100
    model.set_weights(weights)
    with pytest.warns(UserWarning, match="Saliency is zero everywhere for all") as seen:
        values = kx.Saliency()(model, naive.inputs((4,)), 0).values
    assert len(seen) == 1
    assert not values.any()
