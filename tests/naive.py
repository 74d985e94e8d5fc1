"""The papers' formulas in float64 NumPy, and small Keras models to try them on.

A `Net` reads the weights of a chain of Keras layers and runs it with plain loops and
backpropagation written by hand. Nothing here uses the package, TensorFlow or automatic
differentiation.
"""

import functools

import keras
import numpy as np
from hypothesis import Phase, settings

few = settings(
    derandomize=True, deadline=None, max_examples=15, database=None, phases=[Phase.generate]
)
"""For property tests: a handful of examples, always the same, and no search for a smaller one."""

# Comparison


def close(actual, expected, tolerance=1e-5):
    """Both are equal up to a share of the largest expected magnitude."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * (scale or 1.0))


# Layers: forward(x) and backward(x, upstream), both float64


class Affine:
    def __init__(self, kernel, bias=0.0):
        self.kernel, self.bias = kernel, bias

    def forward(self, x):
        return x @ self.kernel + self.bias

    def backward(self, x, upstream):
        return upstream @ self.kernel.T


class Convolution:
    def __init__(self, kernel, bias, strides, padding):
        self.kernel, self.bias, self.strides, self.same = kernel, bias, strides, padding == "same"

    def _edges(self, x):
        """What is added before and after each axis, as TensorFlow's "same" padding does."""
        edges = [(0, 0)]
        for n, k, s in zip(x.shape[1:-1], self.kernel.shape, self.strides, strict=False):
            missing = max((-(-n // s) - 1) * s + k - n, 0) if self.same else 0
            edges.append((missing // 2, missing - missing // 2))
        return [*edges, (0, 0)]

    def _windows(self, padded):
        sizes = self.kernel.shape[: padded.ndim - 2]
        return windows(padded.shape[1:-1], sizes, self.strides)

    def forward(self, x):
        x = np.pad(x, self._edges(x))
        found = list(self._windows(x))
        y = np.zeros((len(x), *np.add(found[-1][0], 1), self.kernel.shape[-1]))
        for at, window in found:
            y[(slice(None), *at)] = np.tensordot(x[window], self.kernel, x.ndim - 1) + self.bias
        return y

    def backward(self, x, upstream):
        edges = self._edges(x)
        grad = np.zeros_like(np.pad(x, edges))
        for at, window in self._windows(grad):
            grad[window] += np.tensordot(upstream[(slice(None), *at)], self.kernel, ((1,), (-1,)))
        return grad[tuple(slice(a, n - b) for (a, b), n in zip(edges, grad.shape, strict=True))]


class Pooling:
    def __init__(self, kind, sizes, strides):
        self.kind, self.sizes, self.strides = kind, sizes, strides

    def _shares(self, x):
        """The share `[B, n, C]` of each position of a window in its output."""
        flat = x.reshape(len(x), -1, x.shape[-1])
        if self.kind == "average":
            return np.full(flat.shape, 1 / flat.shape[1])
        return (np.arange(flat.shape[1])[None, :, None] == flat.argmax(1)[:, None]) * 1.0

    def forward(self, x):
        found = list(windows(x.shape[1:-1], self.sizes, self.strides))
        y = np.zeros((len(x), *np.add(found[-1][0], 1), x.shape[-1]))
        for at, window in found:
            part = x[window].reshape(len(x), -1, x.shape[-1])
            y[(slice(None), *at)] = (part * self._shares(part)).sum(axis=1)
        return y

    def backward(self, x, upstream):
        grad = np.zeros_like(x)
        for at, window in windows(x.shape[1:-1], self.sizes, self.strides):
            part = x[window]
            share = self._shares(part) * upstream[(slice(None), *at)][:, None]
            grad[window] += share.reshape(part.shape)
        return grad


class GlobalPooling:
    def __init__(self, kind):
        self.kind = kind

    def _whole(self, x):
        return Pooling(self.kind, x.shape[1:-1], x.shape[1:-1])

    def forward(self, x):
        return self._whole(x).forward(x).reshape(len(x), -1)

    def backward(self, x, upstream):
        shape = (len(x), *(1 for _ in x.shape[1:-1]), x.shape[-1])
        return self._whole(x).backward(x, upstream.reshape(shape))


class Flattening:
    def forward(self, x):
        return x.reshape(len(x), -1)

    def backward(self, x, upstream):
        return upstream.reshape(x.shape)


class Scaling:
    """Batch normalization with its moving statistics."""

    def __init__(self, gamma, beta, mean, variance, epsilon):
        self.scale = gamma / np.sqrt(variance + epsilon)
        self.shift = beta - mean * self.scale

    def forward(self, x):
        return x * self.scale + self.shift

    def backward(self, x, upstream):
        return upstream * self.scale


class Pointwise:
    def __init__(self, name):
        self.fn, self.derivative = {
            "linear": (lambda x: x, np.ones_like),
            "relu": (lambda x: x * (x > 0), lambda x: (x > 0) * 1.0),
            "softplus": (lambda x: np.logaddexp(0, x), sigmoid),
            "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
            "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        }[name]

    def forward(self, x):
        return self.fn(x)

    def backward(self, x, upstream):
        return upstream * self.derivative(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def windows(shape, sizes, strides):
    """Each output position with the slices of `[B, *shape, C]` that it sees."""
    counts = [(n - k) // s + 1 for n, k, s in zip(shape, sizes, strides, strict=True)]
    for at in np.ndindex(*counts):
        spans = (slice(i * s, i * s + k) for i, k, s in zip(at, sizes, strides, strict=True))
        yield at, (slice(None), *spans)


# Networks


class Net:
    """A chain of Keras layers up to its logits; a last softmax or sigmoid is left out."""

    def __init__(self, layers):
        named = [(leaf.name, part) for leaf in _leaves(layers) for part in _parts(leaf)]
        if named[-1][1] in ("softmax", "log_softmax", "sigmoid"):
            named.pop()
        self.names = [name for name, _ in named]
        self.parts = [Pointwise(p) if isinstance(p, str) else p for _, p in named]

    def _values(self, x):
        values = [np.asarray(x, np.float64)]
        for part in self.parts:
            values.append(part.forward(values[-1]))
        return values

    def scores(self, x):
        """The logits `[B, C]`."""
        return self._values(x)[-1]

    def score(self, x, target):
        """One logit a row, `[B]`."""
        return self.scores(x)[np.arange(len(x)), target]

    def backward(self, x, upstream, layer=None):
        """`upstream` `[B, C]` at the logits taken back to the input, or to a layer's output."""
        start, values = self._after(layer), self._values(x)
        for part, value in zip(self.parts[start:][::-1], values[start:-1][::-1], strict=True):
            upstream = part.backward(value, upstream)
        return upstream

    def gradient(self, x, target, layer=None):
        """The derivative of the logit of `target` (an int, or ints `[B]`)."""
        upstream = np.zeros_like(self.scores(x))
        upstream[np.arange(len(x)), target] = 1
        return self.backward(x, upstream, layer)

    def activation(self, x, layer):
        """The output of a layer, with its activation."""
        return self._values(x)[self._after(layer)]

    def _after(self, layer):
        return 0 if layer is None else len(self.names) - self.names[::-1].index(layer)


def _leaves(layers):
    for layer in layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer.layers)
        elif not isinstance(layer, (keras.layers.InputLayer, keras.layers.Dropout)):
            yield layer


def _parts(layer):
    """A layer as the parts it is made of; an activation is its name."""
    kind = type(layer).__name__
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    if kind == "Dense":
        return [Affine(*weights), layer.activation.__name__]
    if kind.startswith("Conv"):
        bias = weights[1] if layer.use_bias else 0.0
        convolution = Convolution(weights[0], bias, layer.strides, layer.padding)
        return [convolution, layer.activation.__name__]
    if kind.startswith("Global"):
        return [GlobalPooling("max" if "Max" in kind else "average")]
    if "Pooling" in kind:
        return [Pooling("max" if "Max" in kind else "average", layer.pool_size, layer.strides)]
    if kind == "BatchNormalization":
        return [Scaling(*weights, layer.epsilon)]
    if kind == "Flatten":
        return [Flattening()]
    return [{"ReLU": "relu", "Softmax": "softmax"}.get(kind) or layer.activation.__name__]


# Formulas


def central_differences(fn, x, step=1e-5):
    """The derivative of `fn` (`[B, ...]` -> `[B]`, rows apart) by each element, in float64."""
    x = np.array(x, np.float64)
    grad = np.zeros_like(x)
    for at in np.ndindex(*x.shape[1:]):
        where = (slice(None), *at)
        shifted = np.zeros_like(x)
        shifted[where] = step
        grad[where] = (fn(x + shifted) - fn(x - shifted)) / (2 * step)
    return grad


def midpoints(steps):
    """Nodes and weights of the Riemann sum over [0, 1]."""
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


def gauss_legendre(steps):
    """Nodes and weights over [0, 1]: the roots of Legendre's polynomial by Newton's method."""
    t = np.cos(np.pi * (np.arange(steps) + 0.75) / (steps + 0.5))
    for _ in range(100):
        p, before = np.ones_like(t), np.zeros_like(t)
        for k in range(1, steps + 1):
            p, before = ((2 * k - 1) * t * p - (k - 1) * before) / k, p
        slope = steps * (t * p - before) / (t * t - 1)
        t = t - p / slope
    return (t + 1) / 2, 1 / ((1 - t * t) * slope**2)


def averaged_gradient(gradient, x, start, rule):
    """`gradient(point)` averaged along the straight line by nodes and weights."""
    x, start = np.asarray(x, np.float64), np.asarray(start, np.float64)
    total = np.zeros_like(x)
    for node, weight in zip(*rule, strict=True):
        total += weight * gradient(start + node * (x - start))
    return total


def integrated_gradients(gradient, x, start, rule):
    """Sundararajan et al., 2017, equation 1."""
    x, start = np.asarray(x, np.float64), np.asarray(start, np.float64)
    return (x - start) * averaged_gradient(gradient, x, start, rule)


def grad_cam(net, x, target, layer):
    """Selvaraju et al., 2017, equations 1 and 2, at the layer's resolution."""
    activation, gradient = net.activation(x, layer), net.gradient(x, target, layer)
    result = np.zeros(activation.shape[:-1])
    for k in range(activation.shape[-1]):
        weight = gradient[..., k].reshape(len(x), -1).mean(axis=1)
        result += weight.reshape(-1, *(1 for _ in result.shape[1:])) * activation[..., k]
    return np.maximum(result, 0)


def speaking(net, x, layer):
    """For each row the class that its Grad-CAM says most for, `[B]`: its map is not zero."""
    classes = range(net.scores(x).shape[1])
    mass = [grad_cam(net, x, c, layer).reshape(len(x), -1).sum(axis=1) for c in classes]
    return np.argmax(mass, axis=0)


def bilinear(maps, size):
    """`[B, *spatial]` at another size: linear along each axis between the pixels' centres."""
    for axis, length in enumerate(size, start=1):
        n = maps.shape[axis]
        rows = []
        for i in range(length):
            at = min(max((i + 0.5) * n / length - 0.5, 0), n - 1)
            low = min(int(at), max(n - 2, 0))
            high = min(low + 1, n - 1)
            a, b = np.take(maps, low, axis), np.take(maps, high, axis)
            rows.append(a + (at - low) * (b - a))
        maps = np.stack(rows, axis)
    return maps


# Keras models with random weights, and inputs for them


def randomize(model, seed=0):
    """Random weights and biases of either sign; variances positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        value = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        if variable.name in ("moving_variance", "gamma"):
            value = rng.uniform(0.5, 2.0, shape)
        elif len(shape) == 1:
            value = rng.normal(scale=0.3, size=shape)
        variable.assign(value.astype("float32"))
    return model


def inputs(shape, rows=3, seed=0):
    """Numbers of either sign, `[rows, *shape]` float32."""
    return np.random.default_rng(seed).normal(size=(rows, *shape)).astype(np.float32)


@functools.cache
def network(
    shape=(8, 6, 2), *, activation="softplus", pool="average", head="softmax", classes=4, seed=0
):
    """Convolution, pooling, convolution with another stride and padding, and a dense head."""
    rank = len(shape) - 1
    layer = functools.partial(getattr, keras.layers)
    pooling = f"{'Max' if pool == 'max' else 'Average'}Pooling{rank}D"
    strides = (2, 1, 1)[:rank]
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer(f"Conv{rank}D")(3, 2, activation=activation, name="conv_a"),
            layer(pooling)(2, strides=1, name="pool"),
            keras.layers.BatchNormalization(name="norm"),
            layer(f"Conv{rank}D")(
                4, 3, strides=strides, padding="same", activation=activation, name="conv_b"
            ),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(classes, activation=head, name="scores"),
        ]
    )
    return randomize(model, seed)


@functools.cache
def perceptron(features=5, *, hidden=6, activation="tanh", head=None, classes=3, seed=0):
    """One hidden layer."""
    model = keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(hidden, activation=activation),
            keras.layers.Dense(classes, activation=head),
        ]
    )
    return randomize(model, seed)
