"""The names of TensorFlow and Keras that are private: one that is gone is told in a sentence."""

import inspect

import keras
import pytest
import tensorflow as tf
from keras import ops

from keras_explain import backend
from keras_explain.core import private
from keras_explain.core.graph import traced
from keras_explain.core.model import intercept
from tests import naive


@pytest.fixture(autouse=True)
def looked_up_anew():
    private.get.cache_clear()
    yield
    private.get.cache_clear()


def owner(name):
    where = (private.TENSORFLOW | private.KERAS)[name][0]
    module, _, inside = where.partition(":")
    found = __import__(module, fromlist=["_"])
    return getattr(found, inside) if inside else found


INSTANCE = {"_dtype_policy"}  # is set by `Layer.__init__`


@pytest.mark.parametrize("name", sorted((private.TENSORFLOW | private.KERAS).keys() - INSTANCE))
def test_each_name_is_where_the_table_says(name):
    assert private.get(name) is inspect.getattr_static(owner(name), name)


CHAIN = naive.perceptron.__wrapped__()
MODEL = keras.Model(CHAIN.inputs, CHAIN.outputs)


def opened():
    with intercept.intercept([MODEL, *MODEL.layers], lambda node, call, *args: call(*args)):
        pass


def in_a_graph(fn):
    with tf.Graph().as_default():
        fn(tf.exp(tf.zeros((2, 3))))


def with_a_loop(x):
    loop = tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y * 2), [0, x])[1]
    while loop.op.type == "Identity":
        loop = loop.op.inputs[0]
    return traced.bodies(loop.op)


USES = {
    "get_gradient_function": lambda: in_a_graph(lambda x: traced.pull(x.op, [x])),
    "record_gradient": lambda: in_a_graph(lambda x: traced.replay(x.op, x.op.inputs)),
    "_update_input": lambda: in_a_graph(lambda x: traced.redirect(x, tf.exp(x))),
    "_get_function": lambda: in_a_graph(with_a_loop),
    "_run_functions_eagerly": lambda: backend._let_threads_inline.__wrapped__(),
    "get_keras_mask": lambda: intercept.mask_of(ops.ones((2, 3))),
    **dict.fromkeys(("AutocastScope", "Functional", "_convert_inputs_to_tensors"), opened),
    **dict.fromkeys(("_flatten_layers",), lambda: intercept.nodes_by_path(MODEL)),
    "_clear_losses": opened,
}


@pytest.mark.parametrize("name", sorted(USES))
def test_a_release_that_lacks_one_is_told(monkeypatch, name):
    monkeypatch.delattr(owner(name), name)
    library = "TensorFlow" if name in private.TENSORFLOW else "Keras"
    with pytest.raises(ImportError, match=f"Expected a {library} in which.*{name}.*which has none"):
        USES[name]()


def test_an_attribute_that_a_layer_lacks_is_told():
    model = naive.perceptron.__wrapped__()
    del model.layers[0]._dtype_policy
    with (
        pytest.raises(ImportError, match="compute in float32, by '_dtype_policy'"),
        intercept.intercept(model.layers, print),
    ):
        pass


def test_each_name_has_a_use_that_is_tried():
    assert USES.keys() | INSTANCE == private.TENSORFLOW.keys() | private.KERAS.keys()
