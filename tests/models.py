"""Tiny models, one of each kind that users bring, with inputs for them.

`get(name)` is a `Case` that is made once, so that what is compiled for a model serves all tests;
`fresh(name)` makes another one with equal weights. Every explainer is tried on the `COMMON` kinds,
which differ in what a method's own code gets to see; on the `NASTY` ones, which differ in how a
model is opened, one of each sort.
"""

import functools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx

ROWS = 4
PICTURE = (8, 8, 3)
CLASSES = 4


@dataclass(frozen=True)
class Case:
    """A model, an input of `ROWS` rows for it, and which output is explained."""

    model: keras.Model
    x: Any
    target: kx.targets.Target = kx.targets.Class()


# Nasty kinds whose layers are like those of others.
NOT_ABOUT_LAYERS = {
    "compiled_by_xla",
    "dropout_batchnorm",
    "inputs_list",
    "mixed_float16",
    "outputs_dict",
    "outputs_list",
    "policy_map",
    "softmax_layer",
    "tokens_float",
    "uint8_input",
    "with_lambda",
}
Make = Callable[[], Case]
COMMON: dict[str, Make] = {}
NASTY: dict[str, Make] = {}


def common(make: Make) -> Make:
    COMMON[make.__name__] = functools.cache(make)
    return COMMON[make.__name__]


def nasty(make: Make) -> Make:
    NASTY[make.__name__] = functools.cache(make)
    return NASTY[make.__name__]


def get(name: str) -> Case:
    """The case that all tests share; they leave it as it is."""
    return (COMMON | NASTY)[name]()


def fresh(name: str) -> Case:
    """A case of its own, with equal weights."""
    return (COMMON | NASTY)[name].__wrapped__()


# Data and weights


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers, float32 `[ROWS, *shape]`."""
    return np.random.default_rng(seed).normal(size=(ROWS, *shape)).astype("float32")


def tokens(length: int, vocabulary: int) -> np.ndarray:
    """Token ids `[ROWS, length]`; the rows end in 0, 1, 2, ... paddings."""
    ids = np.random.default_rng(0).integers(1, vocabulary, (ROWS, length))
    return np.where(np.arange(length) < length - np.arange(ROWS)[:, None], ids, 0)


def filled(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with weights that depend on `seed` alone."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(_values(weight.path.rpartition("/")[2], weight.shape, rng))
    return model


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    normal = rng.normal(size=shape)
    if name in ("gamma", "moving_variance"):
        return 1 + 0.2 * np.abs(normal)
    if name in ("beta", "bias", "moving_mean"):
        return 0.1 * normal
    return normal if name == "embeddings" else 1.5 * normal / np.sqrt(np.prod(shape[:-1]))


def made(inputs: Any, outputs: Any, seed: int = 0) -> keras.Model:
    return filled(keras.Model(inputs, outputs, name="model"), seed)


def conv(name: str, **options: Any) -> layers.Layer:
    return layers.Conv2D(4, 3, **{"activation": "relu", "padding": "same", "name": name} | options)


def softmax(h: Any) -> Any:
    return layers.Dense(CLASSES, activation="softmax", name="head")(h)


def quarters(h: Any) -> Any:
    """Means over the quarters of a picture: unlike one mean, they tell places apart."""
    return layers.Flatten()(layers.AveragePooling2D(4)(h))


# Pictures


@nasty
def sequential() -> Case:
    stack = [
        conv("conv"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(CLASSES, "softmax"),
    ]
    return Case(filled(keras.Sequential([keras.Input(PICTURE), *stack])), numbers(*PICTURE))


@nasty
def functional() -> Case:
    x = keras.Input(PICTURE)
    h = conv("conv_a")(x)
    h = ops.relu(h + conv("conv_b", activation="tanh")(h))
    return Case(made(x, softmax(quarters(h)), seed=1), numbers(*PICTURE))


def backbone() -> keras.Model:
    x = keras.Input(PICTURE)
    h = layers.BatchNormalization(name="norm")(conv("conv_first")(x))
    return keras.Model(x, conv("conv_last")(h), name="backbone")


@nasty
def nested() -> Case:
    """Transfer learning: a frozen backbone under a new head."""
    frozen = backbone()
    frozen.trainable = False
    x = keras.Input(PICTURE)
    h = frozen(x, training=False)
    return Case(made(x, softmax(layers.GlobalAveragePooling2D()(h))), numbers(*PICTURE))


@common
def nested_twice() -> Case:
    encoder = keras.Sequential([keras.Input(PICTURE), backbone(), layers.ReLU()], name="encoder")
    x = keras.Input(PICTURE)
    return Case(made(x, softmax(layers.GlobalAveragePooling2D()(encoder(x)))), numbers(*PICTURE))


class Subclassed(keras.Model):
    """Raw operations, a model inside, and a `call` without a `training` argument."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.conv, self.backbone, self.head = conv("conv"), backbone(), layers.Dense(CLASSES)

    def call(self, x):
        h = ops.relu(self.conv(x) + self.backbone(x))
        return ops.softmax(self.head(ops.mean(h, axis=(1, 2))))


@common
def subclassed() -> Case:
    model = Subclassed()
    model(numbers(*PICTURE))
    return Case(filled(model), numbers(*PICTURE))


@nasty
def softmax_layer() -> Case:
    x = keras.Input(PICTURE)
    logits = layers.Dense(CLASSES)(quarters(conv("conv")(x)))
    return Case(made(x, layers.Softmax()(logits)), numbers(*PICTURE))


@nasty
def dropout_batchnorm() -> Case:
    x = keras.Input(PICTURE)
    h = layers.BatchNormalization()(conv("conv", activation=None)(x))
    h = layers.SpatialDropout2D(0.5)(layers.ReLU()(h))
    h = layers.GaussianNoise(1.0)(layers.Dropout(0.5)(quarters(h)))
    return Case(made(x, softmax(h)), numbers(*PICTURE))


@nasty
def loaded() -> Case:
    """Saved to a file and loaded from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        nested().model.save(path)
        return Case(keras.saving.load_model(path), numbers(*PICTURE))


@common
def fixed_batch() -> Case:
    """It takes 3 rows at a time, no more and no fewer."""
    x = keras.Input(PICTURE, batch_size=3)
    h = ops.reshape(conv("conv", strides=2)(x), (3, -1))
    return Case(made(x, softmax(h)), numbers(*PICTURE))


class Decorated(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="decorated")
        self.conv, self.head = conv("conv"), layers.Dense(CLASSES, activation="softmax")

    @tf.function
    def features(self, x):
        return self.conv(x)

    @tf.function
    def call(self, x):
        return self.head(ops.mean(self.features(x), axis=(1, 2)))


@nasty
def tf_function() -> Case:
    model = Decorated()
    model.conv.build((None, *PICTURE))  # weights made inside a tf.function would stay as they are
    model.head.build((None, 4))
    model(numbers(*PICTURE))
    return Case(filled(model), numbers(*PICTURE))


def rescaled(dtype: str) -> Case:
    """Pictures that are not square, through a layer of another size and aspect."""
    x = keras.Input((8, 12, 3), dtype=dtype)
    h = conv("conv", strides=(2, 3))(layers.Rescaling(1 / 127.5, offset=-1)(x))
    pictures = (255 * np.abs(np.sin(numbers(8, 12, 3)))).astype("uint8")
    return Case(made(x, softmax(layers.Flatten()(h))), pictures)


@common
def uint8() -> Case:
    return rescaled("float32")


@nasty
def uint8_input() -> Case:
    """An Input of integers that are no token ids."""
    return rescaled("uint8")


@nasty
def compiled_by_xla() -> Case:
    case = fresh("softmax_layer")
    case.model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    return case


@nasty
def free_size() -> Case:
    x = keras.Input((None, None, 3))
    h = layers.GlobalAveragePooling2D()(conv("conv")(x))
    return Case(made(x, softmax(h)), numbers(*PICTURE))


@common
def called_twice() -> Case:
    same = layers.Conv2D(3, 3, padding="same", activation="relu", name="same")
    x = keras.Input(PICTURE)
    return Case(made(x, softmax(quarters(same(same(x)))), seed=1), numbers(*PICTURE))


@nasty
def with_lambda() -> Case:
    x = keras.Input(PICTURE)
    h = layers.Lambda(lambda h: ops.sin(3 * h), name="sine")(conv("conv")(x))
    return Case(made(x, softmax(quarters(h))), numbers(*PICTURE))


@nasty
def regularized() -> Case:
    """Layers with losses of their own: of their output, and of their weights."""
    x = keras.Input(PICTURE)
    h = conv("conv", activity_regularizer="l2", kernel_regularizer="l2")(x)
    h = layers.ActivityRegularization(l1=0.1)(quarters(h))
    model = made(x, softmax(h))
    model.compile("adam", "sparse_categorical_crossentropy")
    return Case(model, numbers(*PICTURE))


@nasty
def normalization() -> Case:
    """A layer that holds constants which are no weights."""
    x = keras.Input(PICTURE)
    h = layers.Normalization(mean=[0.1, 0.0, -0.2], variance=[1.0, 2.0, 0.5])(x)
    return Case(made(x, softmax(quarters(conv("conv")(h)))), numbers(*PICTURE))


@nasty
def with_loop() -> Case:
    """A layer that is called inside a loop of the graph."""
    x = keras.Input((6, 3))
    return Case(made(x, softmax(layers.Flatten()(Repeated()(x)))), numbers(6, 3))


class Repeated(layers.Layer):
    def __init__(self) -> None:
        super().__init__(name="repeated")
        self.dense = layers.Dense(3, activation="tanh", name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.fori_loop(0, 3, lambda i, h: self.dense(h), x)


@nasty
def segmentation() -> Case:
    x = keras.Input(PICTURE)
    y = layers.Conv2D(CLASSES, 1, activation="softmax", name="classes")(conv("conv")(x))
    return Case(made(x, y), numbers(*PICTURE), kx.targets.Region())


# Several inputs, several outputs


def two_inputs() -> tuple[list[Any], Any]:
    a, b = keras.Input(PICTURE, name="a"), keras.Input(PICTURE, name="b")
    h = layers.Concatenate()([conv("conv_a")(a), conv("conv_b")(b)])
    return [a, b], softmax(quarters(h))


@nasty
def inputs_list() -> Case:
    return Case(made(*two_inputs(), seed=1), [numbers(*PICTURE), numbers(*PICTURE, seed=1)])


@common
def inputs_dict() -> Case:
    """A dict whose keys are not in the order of the inputs."""
    (a, b), y = two_inputs()
    x = {"a": numbers(*PICTURE), "b": numbers(*PICTURE, seed=1)}
    return Case(made({"b": b, "a": a}, y, seed=1), x)


@nasty
def siamese() -> Case:
    """One layer on both inputs."""
    a, b = keras.Input(PICTURE, name="left"), keras.Input(PICTURE, name="right")
    shared = conv("shared")
    h = layers.Concatenate()([quarters(shared(a)), quarters(shared(b))])
    return Case(made([a, b], softmax(h)), [numbers(*PICTURE), numbers(*PICTURE, seed=1)])


def two_outputs() -> tuple[Any, Any, Any]:
    x = keras.Input(PICTURE)
    h = quarters(conv("conv")(x))
    return x, softmax(h), layers.Dense(2, name="size")(h)


@nasty
def outputs_dict() -> Case:
    x, kinds, size = two_outputs()
    model = made(x, {"kind": kinds, "size": size})
    return Case(model, numbers(*PICTURE), kx.targets.Class(output="kind"))


@nasty
def outputs_list() -> Case:
    x, kinds, size = two_outputs()
    return Case(made(x, [kinds, size]), numbers(*PICTURE), kx.targets.Class(output="size"))


@nasty
def mixed_inputs() -> Case:
    """Token ids beside a row of numbers."""
    text, table = keras.Input((6,), dtype="int32", name="text"), keras.Input((3,), name="table")
    h = layers.Flatten()(layers.Embedding(20, 5)(text))
    y = softmax(layers.Dense(6, activation="tanh")(layers.Concatenate()([h, table])))
    return Case(
        made({"text": text, "table": table}, y), {"text": tokens(6, 20), "table": numbers(3)}
    )


# Tables, series, volumes, tokens


@common
def tabular() -> Case:
    x = keras.Input((5,))
    return Case(made(x, softmax(layers.Dense(7, activation="tanh")(x))), numbers(5))


@common
def series() -> Case:
    x = keras.Input((12, 2))
    h = layers.Conv1D(4, 3, strides=2, activation="gelu", name="conv")(x)
    return Case(made(x, softmax(layers.Flatten()(h))), numbers(12, 2))


@common
def volume() -> Case:
    x = keras.Input((6, 4, 4, 1))
    h = layers.Conv3D(4, 3, activation="relu", name="conv")(x)
    return Case(made(x, softmax(layers.Flatten()(h))), numbers(6, 4, 4, 1))


def text(dtype: str) -> keras.Model:
    x = keras.Input((7,), dtype=dtype)
    h = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6, mask_zero=True)(x))
    h = layers.Dense(5, activation="tanh")(h)
    return made(x, layers.Dense(1, activation="sigmoid")(h))


@nasty
def tokens_float() -> Case:
    """An Embedding with a mask above an Input of floats, and a one-unit head."""
    return Case(text("float32"), tokens(7, 20))


@common
def tokens_int() -> Case:
    return Case(text("int32"), tokens(7, 20))


@nasty
def lookup() -> Case:
    """Ids that become others before they enter two Embeddings, one of them twice."""
    x = keras.Input((6,), dtype="int64")
    ids = layers.IntegerLookup(vocabulary=list(range(1, 20)))(x)
    first, second = layers.Embedding(21, 4), layers.Embedding(21, 3)
    h = layers.Concatenate()([first(ids), second(ids), first(20 - ids)])
    y = softmax(layers.Dense(6, activation="tanh")(layers.Flatten()(h)))
    return Case(made(x, y), tokens(6, 20))


@nasty
def attention() -> Case:
    x = keras.Input((6,), dtype="int32")
    h = layers.Embedding(20, 8, mask_zero=True)(x)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4, name="attention")(h, h))
    return Case(made(x, softmax(layers.GlobalAveragePooling1D()(h))), tokens(6, 20))


@nasty
def recurrent() -> Case:
    x = keras.Input((6,), dtype="int32")
    h = layers.TimeDistributed(layers.Dense(5))(layers.Embedding(20, 6, mask_zero=True)(x))
    return Case(made(x, softmax(layers.LSTM(4)(h))), tokens(6, 20))


# Dtypes


def in_policy(name: str) -> Case:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        x = keras.Input(PICTURE)
        h = layers.MaxPooling2D()(layers.BatchNormalization()(conv("conv")(x)))
        return Case(made(x, softmax(layers.Flatten()(h))), numbers(*PICTURE))
    finally:
        keras.config.set_dtype_policy(before)


@nasty
def mixed_float16() -> Case:
    return in_policy("mixed_float16")


@common
def mixed_bfloat16() -> Case:
    return in_policy("mixed_bfloat16")


@nasty
def policy_map() -> Case:
    """A nested model whose layers have different policies."""
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["wrap/conv"] = keras.DTypePolicy("mixed_bfloat16")
    x = keras.Input(PICTURE)
    y = softmax(quarters(conv("conv", dtype=policies["wrap/conv"])(x)))
    return Case(made(x, y), numbers(*PICTURE))


@nasty
def quantized() -> Case:
    case = fresh("functional")
    with warnings.catch_warnings(action="ignore"):  # Keras warns of each layer it can't quantize
        case.model.quantize("int8")
    return case
