"""State that outlives a call, and random numbers, in a model that is explained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from tests import check, models

STEPS, WIDTH = 5, 3
X = models.numbers(STEPS, WIDTH)


def cells():
    return layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])


RECURRENT = {
    "LSTM": lambda stateful: layers.LSTM(4, stateful=stateful),
    "SimpleRNN": lambda stateful: layers.SimpleRNN(4, stateful=stateful, unroll=True),
    "stacked": lambda stateful: layers.RNN(cells(), stateful=stateful),
    "Bidirectional": lambda stateful: layers.Bidirectional(layers.GRU(2, stateful=stateful)),
    "nested": lambda stateful: keras.Sequential(
        [keras.Input((STEPS, WIDTH), batch_size=2), layers.LSTM(4, stateful=stateful)]
    ),
}


def recurrent(kind, stateful):
    x = keras.Input((STEPS, WIDTH), batch_size=2)
    return models.made(x, layers.Dense(2)(RECURRENT[kind](stateful)(x)))


@pytest.mark.parametrize("kind", check.first_of(RECURRENT, 1))
def test_a_stateful_layer_is_explained_from_a_state_of_zeros(kind):
    model, twin = recurrent(kind, stateful=True), recurrent(kind, stateful=False)
    model.predict(X, batch_size=2, verbose=0)  # leaves a state
    before = check.state_of(model)
    result, expected = (kx.Saliency()(each, X, 0) for each in (model, twin))
    check.assert_same(result, expected)
    check.assert_states_equal(check.state_of(model), before)
    check.assert_same(kx.Saliency()(model, X[2:3], 0), result[2:3])


def test_a_stateful_convolution_is_explained_from_a_state_of_zeros():
    def made(stateful):
        x = keras.Input((2, 4, 4, 1), batch_size=2)
        return models.made(x, layers.Flatten()(layers.ConvLSTM2D(2, 3, stateful=stateful)(x)))

    x, model = models.numbers(2, 4, 4, 1), made(stateful=True)
    model.predict(x, batch_size=2, verbose=0)
    explainer = kx.IntegratedGradients(steps=2)
    check.assert_same(explainer(model, x, 0), explainer(made(stateful=False), x, 0))


def test_a_subclassed_stateful_model_takes_any_number_of_rows():
    class Remembering(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm, self.dense = layers.LSTM(4, stateful=True), layers.Dense(2)

        def call(self, x):
            return self.dense(self.lstm(x))

    model = Remembering()
    model(X[:2])
    whole = kx.Saliency()(model, X[:3], 0)
    check.assert_same(kx.Saliency()(model, X[2:3], 0), whole[2:3])


def test_a_state_is_named_as_an_input_of_the_model():
    x, h, c = keras.Input((STEPS, WIDTH)), keras.Input((4,)), keras.Input((4,))
    lstm, dense = layers.LSTM(4), layers.Dense(2)
    model = models.made([x, h, c], dense(lstm(x, initial_state=[h, c])))
    state = [models.numbers(4, seed=seed) for seed in (1, 2)]
    explainer = kx.IntegratedGradients(steps=16, baseline=[0.0, *state])
    result = explainer(model, [X, *state], 0)
    assert not any(values.any() for values in result.values[1:])
    change = model([X, *state])[:, 0] - model([0 * X, *state])[:, 0]
    np.testing.assert_allclose(result.values[0].sum((1, 2)), change, atol=1e-5)


def test_trees_read_a_stateful_model_from_a_state_of_zeros():
    def made(stateful):
        x = keras.Input((STEPS, WIDTH), batch_size=2)
        return models.made(x, models.softmax(layers.GRU(4, stateful=stateful)(x)))

    model = made(stateful=True)
    model.predict(X, batch_size=2, verbose=0)
    rows, expected = (
        kx.trees.rows.RowReader(each).read(X) for each in (model, made(stateful=False))
    )
    np.testing.assert_allclose(rows.probabilities, expected.probabilities, atol=1e-6)


# Random numbers


class Drawing(layers.Layer):
    def __init__(self, draw, **kwargs):
        super().__init__(**kwargs)
        self.draw = draw

    def call(self, x):
        return x + self.draw(x)


SEED = keras.random.SeedGenerator(3)
GENERATOR = tf.random.Generator.from_seed(1)
SHARED = np.array([1, 2])
DRAWS = {
    "of Keras": lambda x: keras.random.normal(ops.shape(x), seed=SEED),
    "by a seed": lambda x: keras.random.uniform(ops.shape(x), seed=3),
    "by TensorFlow": lambda x: tf.random.normal((4,)),
    "of a generator": lambda x: GENERATOR.normal((4,)),
    "stateless": lambda x: tf.random.stateless_normal(tf.shape(x), SHARED),
    "of categories": lambda x: ops.cast(keras.random.categorical(x, 4), "float32"),
    "shuffled": lambda x: tf.random.shuffle(x),
    "in a loop": lambda x: ops.fori_loop(0, 2, lambda i, y: y + tf.random.normal((4,)), x),
    "in a branch": lambda x: tf.cond(
        tf.reduce_sum(x) > 0, lambda: tf.random.normal(tf.shape(x)), lambda: x
    ),
}


def drawing(draw):
    x = keras.Input((4,))
    return models.made(x, layers.Dense(2)(Drawing(draw, name="drawing")(x)))


@pytest.mark.parametrize("kind", DRAWS)
def test_a_draw_for_each_row_is_an_error_that_names_its_layer(kind):
    with pytest.raises(ValueError, match=r"draws random numbers by .* layer 'drawing' \(Drawing\)"):
        kx.Saliency()(drawing(DRAWS[kind]), models.numbers(4), 0)


@pytest.mark.parametrize(
    "explainer",
    [
        kx.IntegratedGradients(steps=2),
        kx.LRP(),
        kx.FeatureAblation(),
        kx.InternalInfluence(layer="dense", steps=2),
    ],
    ids=repr,
)
def test_every_family_of_methods_says_so(explainer):
    class MonteCarlo(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = layers.Dropout(0.5, name="dropout")

        def call(self, x):
            return self.dropout(x, training=True)

    x = keras.Input((4,))
    model = models.made(x, layers.Dense(2)(MonteCarlo()(layers.Dense(5, name="dense")(x))))
    with pytest.raises(ValueError, match=r"dropout' \(Dropout\).*training=True"):
        explainer(model, models.numbers(4), 0)


def test_trees_say_so():
    model = drawing(DRAWS["of Keras"])
    with pytest.raises(ValueError, match="draws random numbers"):
        kx.trees.rows.RowReader(model).read(models.numbers(4))


KEPT = {
    "one draw": lambda x: keras.random.normal((4,), seed=SEED),
    "one draw by a seed": lambda x: tf.random.stateless_normal((1, 4), SHARED),
    "nothing of it": lambda x: 0 * x + keras.random.normal(ops.shape(x), seed=SEED).shape[1],
}


@pytest.mark.parametrize("kind", KEPT)
def test_one_draw_for_all_rows_is_part_of_the_model(kind):
    model, x = drawing(KEPT[kind]), models.numbers(4)
    whole = kx.IntegratedGradients(steps=4)(model, x, 0)
    check.assert_same(kx.IntegratedGradients(steps=4)(model, x[2:3], 0), whole[2:3])
    np.testing.assert_allclose(whole.extras["convergence_delta"], 0, atol=1e-5)


def test_layers_that_draw_in_training_alone_are_explained():
    x = keras.Input((8, 8, 3))
    y = x
    for layer in (
        *(layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomZoom(0.2)),
        *(layers.RandomContrast(0.2), layers.RandomTranslation(0.1, 0.1), layers.RandomCrop(6, 6)),
        *(layers.GaussianNoise(0.1), layers.Dropout(0.5), layers.SpatialDropout2D(0.5)),
    ):
        y = layer(y)
    model = models.made(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    assert kx.Saliency()(model, models.numbers(8, 8, 3), 0).values.any()
