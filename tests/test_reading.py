"""`ModelReader`: outputs, logits and activations by batch, as the model gives them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_explain.core.model.reading import ModelReader, joined, rows_at_once

X = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)


def network(activation=None, units=2, **options):
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(4, "tanh", name="hidden")
    head = layers.Dense(units, activation, name="head")
    return keras.Sequential([keras.Input((3,), **options), hidden, head])


def z_of(model, x=X):
    hidden, head = (model.get_layer(name).get_weights() for name in ("hidden", "head"))
    return np.tanh(x @ hidden[0] + hidden[1]) @ head[0] + head[1]


@pytest.mark.parametrize("batch_size", [None, 1, 4, 100])
def test_outputs_are_those_of_predict(batch_size):
    model = network("softmax")
    found = ModelReader(model).outputs(X, batch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.predict(X, verbose=0), rtol=1e-6)


def test_a_fixed_batch_size_is_filled_and_cut():
    fixed, free = network(batch_size=4), network()
    found = ModelReader(fixed).outputs(X)
    assert found.shape == (11, 2)
    np.testing.assert_allclose(found, ModelReader(free).outputs(X), rtol=1e-6)


def test_outputs_have_the_nest_of_the_model():
    inputs = {"a": keras.Input((3,), name="a"), "n": keras.Input((1,), name="n", dtype="int32")}
    outputs = {"sum": ops.sum(inputs["a"], axis=1), "n": inputs["n"] + 1}
    model = keras.Model(inputs, outputs)
    n = np.arange(11, dtype=np.int32)[:, None]
    found = ModelReader(model).outputs({"a": X, "n": n}, 4)
    np.testing.assert_allclose(found["sum"], X.sum(axis=1), rtol=1e-5)
    assert found["n"].tolist() == (n + 1).tolist()
    assert found["n"].dtype == np.int32


@pytest.mark.parametrize("activation", [None, "softmax", "log_softmax"])
def test_logits_are_in_front_of_the_activation(activation):
    model = network(activation)
    model.get_layer("head").set_weights([np.float32([[9, -9]] * 4), np.float32([200, 0])])
    np.testing.assert_allclose(ModelReader(model).logits(X, 4), z_of(model), rtol=1e-5)


def test_logits_of_a_mean_of_probabilities():
    x = keras.Input((3,))
    mean = layers.Average()([layers.Dense(2, "softmax")(x), layers.Dense(2, "softmax")(x)])
    model = keras.Model(x, mean)
    found = ModelReader(model).logits(X)
    np.testing.assert_allclose(found, np.log(model.predict(X, verbose=0)), rtol=1e-5)


def test_activations_of_a_layer_in_a_nested_model():
    inner = network()
    outer = keras.Sequential([keras.Input((3,)), inner, layers.Activation("softmax")])
    weights = inner.get_layer("hidden").get_weights()
    expected = np.tanh(X @ weights[0] + weights[1])
    for name in ("hidden", f"{inner.name}/hidden"):
        found = ModelReader(outer).activations(X, name, batch_size=5)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_it_reads_the_live_weights_by_one_trace():
    class Traced(layers.Layer):
        traces = 0

        def call(self, x):
            type(self).traces += 1
            return 1.0 * x

    head = layers.Dense(2)
    reader = ModelReader(keras.Sequential([keras.Input((3,)), Traced(), head]))
    before = reader.outputs(X, batch_size=4)
    np.testing.assert_allclose(before, X @ head.kernel.numpy(), rtol=1e-5, atol=1e-6)
    known = Traced.traces
    head.set_weights([np.ones((3, 2)), np.ones(2)])
    after = reader.outputs(X[:5], batch_size=3)
    np.testing.assert_allclose(after, X[:5] @ np.ones((3, 2)) + 1, rtol=1e-5)
    assert Traced.traces == known


def test_what_a_model_writes_is_dropped_and_states_are_zero():
    recurrent = layers.GRU(2, stateful=True)
    model = keras.Sequential([keras.Input((4, 3), batch_size=2), recurrent])
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    first = ModelReader(model).outputs(x)
    assert not recurrent.states[0].numpy().any()
    np.testing.assert_array_equal(ModelReader(model).outputs(x), first)


def test_masks_are_kept():
    steps = [keras.Input((4, 1)), layers.Masking(), layers.GRU(2)]
    model = keras.Sequential(steps)
    x = np.ones((3, 4, 1), np.float32)
    x[1, 2:] = 0
    np.testing.assert_allclose(
        ModelReader(model).outputs(x), model.predict(x, verbose=0), rtol=1e-5
    )


class TestBadInput:
    def test_a_layer_that_is_not_there(self):
        with pytest.raises(ValueError, match=r"hiden.*hidden"):
            ModelReader(network()).activations(X, "hiden")

    def test_a_layer_that_is_not_called(self):
        class Idle(keras.Model):
            def __init__(self):
                super().__init__()
                self.used, self.idle = layers.Dense(2), layers.Dense(2, name="idle")

            def build(self, shape):
                self.used.build(shape)
                self.idle.build(shape)

            def call(self, x):
                return self.used(x)

        model = Idle()
        model(X)
        with pytest.raises(ValueError, match="'idle', which was not called"):
            ModelReader(model).activations(X, "idle")

    def test_a_model_that_draws(self):
        class Drops(layers.Dropout):
            def call(self, x):
                return super().call(x, training=True)

        model = keras.Sequential([keras.Input((3,)), Drops(0.5)])
        with pytest.raises(ValueError, match="draws random numbers"):
            ModelReader(model).outputs(X)

    def test_an_unbuilt_model(self):
        with pytest.raises(ValueError, match="Expected a built model"):
            ModelReader(keras.Sequential([layers.Dense(1)]))

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
    def test_a_batch_size_that_is_none(self, wrong):
        with pytest.raises(ValueError, match="batch_size of 1 or more"):
            ModelReader(network()).outputs(X, wrong)

    def test_an_output_of_which_nothing_is_known(self):
        x = keras.Input((3,))
        with pytest.raises(ValueError, match="scores of classes"):
            ModelReader(keras.Model(x, ops.abs(layers.Dense(2)(x)))).logits(X)


class TestJoining:
    @pytest.mark.parametrize(("size", "fixed"), [(4, None), (3, 5), (100, None)])
    def test_several_numbers_for_each_row(self, size, fixed):
        sizes = []

        def read(at):
            sizes.append(len(at))
            return [at * 2, np.repeat(at, 3)]

        double, triple = joined(read, 11, size, fixed)
        assert double.tolist() == list(range(0, 22, 2))
        assert triple.tolist() == [i // 3 for i in range(33)]
        assert set(sizes) == {fixed} if fixed else max(sizes) <= size

    def test_how_many_rows_at_once(self):
        table, pictures = np.zeros((2, 8), np.float32), np.zeros((2, 64, 64, 3), np.float32)
        assert rows_at_once(table, None, None) == 4096
        assert rows_at_once(table, None, None, scores_alone=True) == 16384
        assert rows_at_once(pictures, None, None) == 128
        assert rows_at_once([table, pictures[:, :8, :8]], None, None) == 256
        assert rows_at_once(pictures, 300, None) == 300
        assert rows_at_once(pictures, 300, 7) == 7
