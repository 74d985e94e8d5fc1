"""LRP, DeepLIFT and guided backpropagation once more: the papers' formulas in float64 NumPy.

A `Graph` reads a Keras model as parts. Whatever is linear is a dense matrix W `[in, out]` of one
sample's flat numbers, found by applying a float64 copy of the layer to unit vectors, so that a rule
is the formula of its paper for `z = x W + b`, whatever the kind of the layer. Nothing here uses the
package or automatic differentiation.
"""

import functools
import itertools
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# Numbers


def flat(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def divided(a, b):
    """a / b, where 0 / 0 is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def stab(z, epsilon=1e-6):
    """`z` moved away from 0 by a share of the root mean square of the sample's units."""
    size = np.sqrt(np.mean(flat(z) ** 2, axis=1)).reshape(-1, *(1 for _ in z.shape[1:]))
    return z + epsilon * size * np.where(z < 0, -1, 1)


def positive(x):
    return np.maximum(x, 0)


def negative(x):
    return np.minimum(x, 0)


def summed_to(x, shape):
    """The sum over the axes along which an array of `shape` was broadcast to x."""
    x = x.sum(axis=tuple(range(1, 1 + x.ndim - len(shape))))
    axes = tuple(i for i in range(1, x.ndim) if shape[i] == 1 and x.shape[i] > 1)
    return x.sum(axis=axes, keepdims=True).reshape(len(x), *shape[1:])


# LRP's rules: of x `[B, in]`, the layer and the relevance `[B, out]`, the relevance `[B, in]`


def shared(z, bias, relevance, epsilon=1e-6):
    """Relevance by the shares of z `[B, in, out]` in its sums with the bias."""
    return (z * divided(relevance, stab(z.sum(axis=1) + bias, epsilon))[:, None]).sum(axis=2)


def parts_of(x, layer):
    return x[:, :, None] * layer.kernel[None]


def epsilon(epsilon=1e-6):
    return lambda x, layer, r: shared(parts_of(x, layer), layer.bias, r, epsilon)


def z_plus():
    return lambda x, layer, r: shared(positive(parts_of(x, layer)), 0, r)


def alpha_beta(alpha, beta):
    def rule(x, layer, r):
        z = parts_of(x, layer)
        excited = shared(positive(z), positive(layer.bias), r)
        return alpha * excited - beta * shared(negative(z), negative(layer.bias), r)

    return rule


def gamma(gamma=0.25):
    def rule(x, layer, r):
        z, total = parts_of(x, layer), 0
        up = z.sum(axis=1) + layer.bias > 0
        for part, mine in ((positive, up), (negative, ~up)):
            total += shared(z + gamma * part(z), layer.bias + gamma * part(layer.bias), mine * r)
        return total

    return rule


def w_square():
    return lambda x, layer, r: r @ divided(layer.kernel**2, (layer.kernel**2).sum(axis=0)).T


def flat_rule():
    return lambda x, layer, r: r @ divided(layer.ones, layer.ones.sum(axis=0)).T


def z_box(low=None, high=None):
    """Bounds are numbers, or arrays that broadcast to one sample `[...]` of the layer's input."""

    def bound(x, layer, given, of_sample):
        if given is None:
            return np.broadcast_to(of_sample(x, axis=1, keepdims=True), x.shape)
        return np.broadcast_to(given, (len(x), *layer.shapes[0])).reshape(x.shape)

    def rule(x, layer, r):
        w = layer.kernel[None]
        z = parts_of(x, layer) - bound(x, layer, low, np.min)[:, :, None] * positive(w)
        return shared(z - bound(x, layer, high, np.max)[:, :, None] * negative(w), 0, r)

    return rule


def pass_on():
    return lambda x, layer, r: r


# Parts: `forward`, and what `backward` sends back to each of their inputs:
# - `gradient(inputs, output, upstream)`
# - `relevance(inputs, output, relevance, rule)`
# - `multipliers(inputs, references, upstream)`: DeepLIFT's rescale rule


class Linear:
    """`z = x W + b`. Of a `fixed` one the relevance goes by the epsilon rule, whatever is asked."""

    def __init__(self, kernel, bias, shapes, ones=None, fixed=False):
        self.kernel, self.bias, self.shapes, self.ones = kernel, bias, shapes, ones
        self.fixed = fixed
        self.moves = fixed and np.isin(kernel, (0, 1)).all() and (kernel.sum(axis=0) <= 1).all()

    def forward(self, x):
        return (flat(x) @ self.kernel + self.bias).reshape(len(x), *self.shapes[1])

    def gradient(self, inputs, output, upstream):
        return [(flat(upstream) @ self.kernel.T).reshape(inputs[0].shape)]

    def relevance(self, inputs, output, relevance, rule):
        if self.moves:
            return self.gradient(inputs, output, relevance)
        rule = epsilon() if self.fixed else rule
        return [rule(flat(inputs[0]), self, flat(relevance)).reshape(inputs[0].shape)]

    def multipliers(self, inputs, references, upstream):
        return self.gradient(inputs, None, upstream)

    def scaled(self, part):
        """With a scale and shift per channel behind it."""
        wide = np.broadcast_to(part.scale, self.shapes[1]).reshape(-1)
        shift = np.broadcast_to(part.shift, self.shapes[1]).reshape(-1)
        return Linear(self.kernel * wide, self.bias * wide + shift, self.shapes, self.ones)


class Elementwise:
    """Some function of each number."""

    def __init__(self, fn, name):
        self.forward, self.name = fn, name

    def slope(self, x):
        """Central differences; at 0, where a ReLU has a kink, those from below."""
        after = np.where(x == 0, 0, 1e-6)
        return (self.forward(x + after) - self.forward(x - 1e-6)) / (after + 1e-6)

    def gradient(self, inputs, output, upstream):
        return [upstream * self.slope(inputs[0])]

    def relevance(self, inputs, output, relevance, rule):
        return [relevance]

    def multipliers(self, inputs, references, upstream):
        return [upstream * ratio(self.forward, self.slope, inputs[0], references[0])]


class Scale(Elementwise):
    """A scale and a shift per channel; that of the model's own input passes relevance on."""

    def __init__(self, scale, shift, name, of_input=False):
        super().__init__(lambda x: x * scale + shift, name)
        self.scale, self.shift, self.of_input = scale, shift, of_input

    def relevance(self, inputs, output, relevance, rule):
        if self.of_input:
            return [relevance]
        return [inputs[0] * self.scale * divided(relevance, stab(output))]


def ratio(fn, slope, x, r):
    """The rescale rule's multiplier (f(x) - f(r)) / (x - r), or the derivative."""
    near = np.abs(x - r) <= 1e-5 * (np.abs(x) + np.abs(r))
    return np.where(near, slope(x), divided(fn(x) - fn(r), np.where(near, 1, x - r)))


class Winner:
    """The largest of some of the inputs: members `[in, out]`."""

    def __init__(self, members, shapes):
        self.members, self.shapes = members > 0, shapes

    def _chosen(self, x):
        return np.where(self.members, flat(x)[:, :, None], -np.inf).argmax(axis=1)  # [B, out]

    def forward(self, x):
        values = np.take_along_axis(flat(x), self._chosen(x), axis=1)
        return values.reshape(len(x), *self.shapes[1])

    def _sent(self, x, chosen, amounts):
        back = np.zeros(flat(x).shape)
        for row, to, amount in zip(back, chosen, flat(amounts), strict=True):
            np.add.at(row, to, amount)
        return [back.reshape(x.shape)]

    def gradient(self, inputs, output, upstream):
        return self._sent(inputs[0], self._chosen(inputs[0]), upstream)

    def relevance(self, inputs, output, relevance, rule):
        return self.gradient(inputs, output, relevance)

    def multipliers(self, inputs, references, upstream):
        x, r = inputs[0], references[0]
        change = flat(self.forward(x)) - flat(self.forward(r))
        chosen = np.where(change >= 0, self._chosen(x), self._chosen(r))
        moved = np.take_along_axis(flat(x) - flat(r), chosen, axis=1)
        share = np.where(moved == 0, 1, divided(change, moved))
        return self._sent(x, chosen, flat(upstream) * share)


class Larger:
    """The largest (sign 1) or least (-1) of several tensors."""

    def __init__(self, sign):
        self.sign = sign

    def _stacked(self, tensors):
        stack = self.sign * np.stack([flat(t) for t in tensors], axis=1)  # [B, tensors, n]
        count, n = stack.shape[1:]
        return Winner(np.tile(np.eye(n), (count, 1)), (None, (n,))), stack.reshape(len(stack), -1)

    def forward(self, *tensors):
        winner, stack = self._stacked(tensors)
        return self.sign * winner.forward(stack).reshape(tensors[0].shape)

    def _apart(self, back, tensors):
        return [b.reshape(tensors[0].shape) for b in np.split(back[0], len(tensors), axis=1)]

    def gradient(self, inputs, output, upstream):
        winner, stack = self._stacked(inputs)
        return self._apart(winner.gradient([stack], None, upstream), inputs)

    def relevance(self, inputs, output, relevance, rule):
        return self.gradient(inputs, output, relevance)

    def multipliers(self, inputs, references, upstream):
        winner, stack = self._stacked(inputs)
        back = winner.multipliers([stack], [self._stacked(references)[1]], upstream)
        return self._apart(back, inputs)


class Sum:
    """Several tensors with a factor each."""

    def __init__(self, *factors):
        self.factors = factors

    def forward(self, *tensors):
        return sum(f * t for f, t in zip(self.factors, tensors, strict=True))

    def gradient(self, inputs, output, upstream):
        back = zip(self.factors, inputs, strict=True)
        return [summed_to(f * upstream, t.shape) for f, t in back]

    def relevance(self, inputs, output, relevance, rule):
        each = divided(relevance, stab(output))
        return [t * back for t, back in zip(inputs, self.gradient(inputs, 0, each), strict=True)]

    def multipliers(self, inputs, references, upstream):
        return self.gradient(inputs, None, upstream)


class Product:
    """Two tensors multiplied, as an einsum says; None: entry by entry.

    A gate, the first or the second of them, is held constant by LRP.
    """

    def __init__(self, spec=None, gate=None):
        self.spec, self.gate = spec, gate

    def forward(self, a, b):
        return a * b if self.spec is None else np.einsum(self.spec, a, b)

    def _back(self, a, b, upstream):
        if self.spec is None:
            return [summed_to(upstream * b, a.shape), summed_to(upstream * a, b.shape)]
        operands, out = self.spec.split("->")
        one, two = operands.split(",")
        to_a = np.einsum(f"{out},{two}->{one}", upstream, b)
        return [to_a, np.einsum(f"{one},{out}->{two}", a, upstream)]

    def gradient(self, inputs, output, upstream):
        return self._back(*inputs, upstream)

    def relevance(self, inputs, output, relevance, rule):
        back = self._back(*inputs, divided(relevance, stab(output)))
        shares = [0.5, 0.5] if self.gate is None else [float(self.gate == 1), float(not self.gate)]
        return [s * t * g for s, t, g in zip(shares, inputs, back, strict=True)]

    def multipliers(self, inputs, references, upstream):
        halfway = [(x + r) / 2 for x, r in zip(inputs, references, strict=True)]
        return self._back(*halfway, upstream)


class Join:
    """Concatenation along an axis."""

    def __init__(self, axis):
        self.axis = axis

    def forward(self, *tensors):
        return np.concatenate(tensors, axis=self.axis)

    def gradient(self, inputs, output, upstream):
        edges = np.cumsum([t.shape[self.axis] for t in inputs])[:-1]
        return np.split(upstream, edges, axis=self.axis)

    def relevance(self, inputs, output, relevance, rule):
        return self.gradient(inputs, output, relevance)

    def multipliers(self, inputs, references, upstream):
        return self.gradient(inputs, None, upstream)


class Softmax:
    """u = x - max(x), e = exp(u), y = e (1 / sum e), along the last axis."""

    name = "softmax"

    def forward(self, x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def gradient(self, inputs, output, upstream):
        return [output * (upstream - (upstream * output).sum(axis=-1, keepdims=True))]

    def relevance(self, inputs, output, relevance, rule):
        return [relevance]

    def multipliers(self, inputs, references, upstream):
        (x, r), n = (inputs[0], references[0]), inputs[0].shape[-1]
        rows = [t.reshape(-1, n) for t in (x, r)]
        top = Winner(np.ones((n, 1)), (None, (1,)))
        u, v = (t - top.forward(t) for t in rows)
        up = np.broadcast_to(upstream, x.shape).reshape(-1, n)
        to_e, to_inverse = Product().multipliers(
            [np.exp(u), inverse(u)], [np.exp(v), inverse(v)], up
        )
        sums = [np.exp(t).sum(axis=-1, keepdims=True) for t in (u, v)]
        to_e = to_e + to_inverse * ratio(lambda s: 1 / s, lambda s: -1 / s**2, *sums)
        to_u = to_e * ratio(np.exp, np.exp, u, v)
        to_top = top.multipliers([rows[0]], [rows[1]], -to_u.sum(axis=-1, keepdims=True))[0]
        return [(to_u + to_top).reshape(x.shape)]


def inverse(u):
    return 1 / np.exp(u).sum(axis=-1, keepdims=True)


class Norm:
    """(x - mean) / sqrt(variance + epsilon) of groups, times gamma, plus beta.

    Args:
        mean: A function of `[B, ...]` that gives each entry its group's mean.
        centers: Whether the mean is taken off.
    """

    def __init__(self, mean, gamma, beta, epsilon, centers=True):
        self.mean, self.gamma, self.beta, self.epsilon = mean, gamma, beta, epsilon
        self.centered = (lambda x: x - mean(x)) if centers else (lambda x: x)

    def _inverse(self, x):
        return 1 / np.sqrt(self.mean(self.centered(x) ** 2) + self.epsilon)

    def forward(self, x):
        return self.centered(x) * self._inverse(x) * self.gamma + self.beta

    def gradient(self, inputs, output, upstream):
        return self.multipliers(inputs, inputs, upstream)

    def relevance(self, inputs, output, relevance, rule):
        each = self.gamma * self._inverse(inputs[0]) * divided(relevance, stab(output))
        return [inputs[0] * self.centered(each)]

    def multipliers(self, inputs, references, upstream):
        x, r = inputs[0], references[0]
        both = self.centered(x) + self.centered(r)
        m = upstream * self.gamma
        variances = [self.mean(self.centered(t) ** 2) for t in (x, r)]
        slope = ratio(
            lambda v: (v + self.epsilon) ** -0.5,
            lambda v: -0.5 * (v + self.epsilon) ** -1.5,
            *variances,
        )
        to_centered = m * (self._inverse(x) + self._inverse(r)) / 2
        to_centered += self.mean(m * both / 2) * slope * both
        return [self.centered(to_centered)]


class Opaque:
    """A chain of parts as one step: `x * VJP(R / y)`, for LRP; for DeepLIFT the gradient."""

    def __init__(self, *parts):
        self.parts = parts

    def _values(self, x):
        values = [x]
        for part in self.parts:
            values.append(part.forward(values[-1]))
        return values

    def forward(self, x):
        return self._values(x)[-1]

    def gradient(self, inputs, output, upstream):
        values = self._values(inputs[0])
        for part, x, y in zip(self.parts[::-1], values[-2::-1], values[:0:-1], strict=True):
            upstream = part.gradient([x], y, upstream)[0]
        return [upstream]

    def relevance(self, inputs, output, relevance, rule):
        return [inputs[0] * self.gradient(inputs, output, divided(relevance, stab(output)))[0]]

    def multipliers(self, inputs, references, upstream):
        return self.gradient(inputs, None, upstream)


class Lookup:
    """Token ids become rows of a table; what arrives here is kept for the ids."""

    def __init__(self, table):
        self.table = table

    def forward(self, ids):
        return self.table[np.asarray(ids, int)]

    def gradient(self, inputs, output, upstream):
        return [upstream.sum(axis=-1)]

    def relevance(self, inputs, output, relevance, rule):
        return self.gradient(inputs, output, relevance)


# Models


@dataclass
class Node:
    """One part of a layer's call, with the positions of the nodes that it takes."""

    part: object
    sources: list
    name: str


class Graph:
    """A Functional or Sequential model up to its logits.

    Args:
        model: The model; the last activation, if it is a softmax or sigmoid, is left out.
        opaque: Names of layers that are one step.
    """

    def __init__(self, model, opaque=()):
        self.nodes, self.opaque = [], opaque
        known = {id(tensor): self._add(None, [], "input") for tensor in model.inputs}
        self.inputs = list(range(len(known)))
        self.output = self._find(model.outputs[0], known)
        if getattr(self.nodes[self.output].part, "name", "") in ("softmax", "sigmoid"):
            self.output = self.nodes[self.output].sources[0]

    def _add(self, part, sources, name):
        self.nodes.append(Node(part, sources, name))
        return len(self.nodes) - 1

    def _find(self, tensor, known):
        if id(tensor) not in known:
            layer, call, _ = tensor._keras_history
            given = layer._inbound_nodes[call].input_tensors
            sources = [self._find(t, known) for t in given]
            if isinstance(layer, keras.Model):
                inner = {id(t): s for t, s in zip(layer.inputs, sources, strict=True)}
                known[id(tensor)] = self._find(layer.outputs[0], inner)
            else:
                known[id(tensor)] = self._layer(layer, given, tensor, sources)
        return known[id(tensor)]

    def _layer(self, layer, given, tensor, sources):
        parts = parts_from(layer, [t.shape for t in given], tensor.shape)
        if layer.name in self.opaque:
            return self._add(Opaque(*parts), sources, layer.name)
        for part in parts:
            before = self.nodes[sources[0]]
            name = layer.name
            if isinstance(part, Product):
                part = Product(part.spec, self._gate(sources, [t.shape for t in given]))
            if isinstance(part, Scale) and getattr(before.part, "ones", None) is not None:
                part, sources, name = before.part.scaled(part), before.sources, before.name
            elif isinstance(part, Scale):
                part = Scale(part.scale, part.shift, part.name, self._is_raw(sources[0]))
            sources = [self._add(part, sources, name)]
        return sources[0]

    def _is_raw(self, i):
        """Whether a node is the input, or the input moved and scaled."""
        part = self.nodes[i].part
        moved = isinstance(part, Scale) or getattr(part, "moves", False)
        return part is None or (moved and self._is_raw(self.nodes[i].sources[0]))

    def _gate(self, sources, shapes):
        """Which of two factors is held constant: a broadcast one, or one out of a sigmoid."""
        for i, (source, shape) in enumerate(zip(sources, shapes, strict=True)):
            node = self.nodes[source]
            while isinstance(node.part, Linear) and node.part.moves:
                node = self.nodes[node.sources[0]]
            if getattr(node.part, "name", "") in ("sigmoid", "hard_sigmoid", "softmax"):
                return i
            if any(n == 1 < m for n, m in zip(shape, shapes[1 - i], strict=True)):
                return i
        return None

    # Forward and backward

    def values(self, x):
        """The output of every node; x is an array, or a list of one for each input."""
        given = iter(x if isinstance(x, list) else [x])
        found = []
        for node in self.nodes:
            inputs = [found[i] for i in node.sources]
            value = np.asarray(next(given), np.float64) if node.part is None else None
            found.append(node.part.forward(*inputs) if node.part else value)
        return found

    def scores(self, x):
        """The logits `[B, C]`."""
        return self.values(x)[self.output]

    def score(self, x, target):
        scores = self.scores(x)
        return scores[np.arange(len(scores)), target]

    def backward(self, start, step):
        """What arrives at every node (None: nothing); `step(i, node, arrived)` sends it on."""
        arrived = [None] * len(self.nodes)
        arrived[self.output] = start
        for i in range(self.output, -1, -1):
            node = self.nodes[i]
            if node.part is None or arrived[i] is None:
                continue
            for source, back in zip(node.sources, step(i, node, arrived[i]), strict=True):
                arrived[source] = back if arrived[source] is None else arrived[source] + back
        return arrived

    def at(self, arrived, layer=None):
        """What arrived at a layer's output, or at the input (a list, where there are several)."""
        if layer is not None:
            return arrived[max(i for i, node in enumerate(self.nodes) if node.name == layer)]
        found = [arrived[i] for i in self.inputs]
        return found[0] if len(found) == 1 else found


def one_hot(scores, target):
    hot = np.zeros_like(scores)
    hot[np.arange(len(scores)), target] = 1
    return hot


# A layer as its parts


def parts_from(layer, shapes, shape):
    """The parts of one call of a layer or functional operation."""
    kind, shapes, shape = type(layer).__name__, [s[1:] for s in shapes], tuple(shape[1:])
    if kind in SEVERAL:
        return [SEVERAL[kind](layer)]
    if kind in ("Matmul",):
        return [Product("bti,bis->bts")]
    if kind in NORMS:
        return [NORMS[kind](layer)]
    if kind == "Embedding":
        return [Lookup(np.asarray(layer.get_weights()[0], np.float64))]
    if kind.startswith("SeparableConv"):
        return [*halves(layer, shapes[0]), *activation_of(layer)]
    if kind in ("Dense", "EinsumDense") or "Conv" in kind:
        return [linear(layer, shapes[0], shape), *activation_of(layer)]
    if kind in ("BatchNormalization", "Rescaling", "Normalization"):
        fn = copied(layer, shapes[0])
        ends = [fn(np.full((1, *shapes[0]), number))[0] for number in (0.0, 1.0)]
        return [Scale(ends[1] - ends[0], ends[0], kind)]
    if "MaxPool" in kind:
        return [Winner(units(copied(layer, shapes[0]), shapes[0]), (shapes[0], shape))]
    if kind in FIXED or kind.startswith(("Average", "Global", "ZeroPadding", "Cropping", "UpSam")):
        kernel = units(copied(layer, shapes[0]), shapes[0])
        return [Linear(kernel, np.zeros(kernel.shape[1]), (shapes[0], shape), fixed=True)]
    if kind in NOTHING:
        return []
    return activation_of(layer, shapes[0])


FIXED = {"Flatten", "Reshape", "Permute", "RepeatVector", "Resizing", "Mean"}
NOTHING = {"Dropout", "SpatialDropout2D", "GaussianNoise", "Identity", "ActivityRegularization"}
SEVERAL = {
    "Add": lambda layer: Sum(1, 1),
    "Subtract": lambda layer: Sum(1, -1),
    "Average": lambda layer: Sum(0.5, 0.5),
    "Maximum": lambda layer: Larger(1),
    "Minimum": lambda layer: Larger(-1),
    "Multiply": lambda layer: Product(),
    "Concatenate": lambda layer: Join(layer.axis),
    "Dot": lambda layer: Product("bti,bsi->bts"),
}


def copied(layer, shape):
    """A float64 copy of a layer, without its activation, as a function of arrays."""
    if not isinstance(layer, keras.Layer):
        return lambda x: np.asarray(layer.call(np.asarray(x, np.float64)))
    pools = "Pooling" in type(layer).__name__  # in float32 alone, for volumes
    config = layer.get_config() | {"dtype": "float32" if pools else "float64"}
    if "activation" in config and not isinstance(layer, layers.Activation):
        config["activation"] = None
    copy = type(layer).from_config(config)
    copy.build((None, *shape))
    copy.set_weights(layer.get_weights())
    return lambda x: np.asarray(copy(np.asarray(x, np.float64)), np.float64)


def units(fn, shape):
    """`fn` of every unit vector, `[in, out]`."""
    n = int(np.prod(shape))
    return flat(fn(np.eye(n).reshape(n, *shape)))


def linear(layer, shape, out):
    fn = copied(layer, shape)
    bias = flat(fn(np.zeros((1, *shape))))[0]
    of_ones = type(layer).from_config(
        layer.get_config() | {"dtype": "float64", "activation": None, "use_bias": False}
        if hasattr(layer, "use_bias")
        else layer.get_config() | {"dtype": "float64", "activation": None, "bias_axes": None}
    )
    of_ones.build((None, *shape))
    of_ones.set_weights([np.ones_like(w) for w in of_ones.get_weights()])
    ones = units(lambda x: np.asarray(of_ones(x)), shape)
    return Linear(units(fn, shape) - bias, bias, (shape, out), ones)


def halves(layer, shape):
    """A separable convolution as a depthwise and a pointwise one."""
    rank = len(shape) - 1
    same = {k: getattr(layer, k) for k in ("strides", "padding", "dilation_rate")}
    depthwise = getattr(layers, f"DepthwiseConv{rank}D")(
        layer.kernel_size, depth_multiplier=layer.depth_multiplier, use_bias=False, **same
    )
    pointwise = getattr(layers, f"Conv{rank}D")(layer.filters, 1, use_bias=layer.use_bias)
    between = depthwise.compute_output_shape((None, *shape))[1:]
    depthwise.build((None, *shape))
    pointwise.build((None, *between))
    weights = layer.get_weights()
    depthwise.set_weights(weights[:1])
    pointwise.set_weights(weights[1:])
    out = tuple(pointwise.compute_output_shape((None, *between))[1:])
    return [linear(depthwise, shape, between), linear(pointwise, between, out)]


def activation_of(layer, shape=()):
    """The activation of a layer, or the layer as one."""
    fn = getattr(layer, "activation", None)
    whole = not isinstance(layer, keras.Layer) or fn is None or isinstance(layer, layers.Activation)
    name = getattr(fn, "__name__", None) or type(layer).__name__.lower()
    name = "relu6" if getattr(layer, "max_value", None) == 6 else name
    if whole and fn is None:
        fn = copied(layer, shape)
    if name == "linear":
        return []
    if name == "softmax":
        return [Softmax()]
    return [Elementwise(lambda x: np.asarray(fn(np.asarray(x, np.float64)), np.float64), name)]


def layer_norm(layer):
    def mean(x):
        return np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)

    return Norm(mean, *map(np.float64, layer.get_weights()), layer.epsilon)


def group_norm(layer):
    def mean(x):
        groups = x.reshape(len(x), -1, layer.groups, x.shape[-1] // layer.groups)
        return np.broadcast_to(groups.mean(axis=(1, 3), keepdims=True), groups.shape).reshape(
            x.shape
        )

    return Norm(mean, *map(np.float64, layer.get_weights()), layer.epsilon)


def rms_norm(layer):
    def mean(x):
        return np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)

    scale = np.float64(layer.get_weights()[0])
    return Norm(mean, scale, 0.0, layer.epsilon, centers=False)


NORMS = {
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "RMSNormalization": rms_norm,
}


# The methods


def gradient(graph, x, target, layer=None):
    """Of the logit of `target` (an int, or ints `[B]`)."""
    values = graph.values(x)

    def step(i, node, upstream):
        return node.part.gradient([values[s] for s in node.sources], values[i], upstream)

    return graph.at(graph.backward(one_hot(values[graph.output], target), step), layer)


def guided(graph, x, target, layer=None, *, mask=True):
    """Springenberg et al., 2015; without the forward mask, Zeiler and Fergus, 2014."""
    values = graph.values(x)

    def step(i, node, upstream):
        inputs = [values[s] for s in node.sources]
        if getattr(node.part, "name", "") not in ("relu", "relu6"):
            return node.part.gradient(inputs, values[i], upstream)
        open_ = (inputs[0] > 0) & ((node.part.name == "relu") | (inputs[0] < 6))
        return [positive(upstream) * (open_ if mask else 1)]

    return graph.at(graph.backward(one_hot(values[graph.output], target), step), layer)


@dataclass
class Relevance:
    """The relevance at the point, the explained scores, and what each layer lost, `[B]`."""

    values: object
    scores: np.ndarray
    lost: dict


def lrp(graph, x, target, rules=None, layer=None, default=None):
    """Layer-wise relevance propagation with a rule for each named layer."""
    values, lost = graph.values(x), {}
    scores = values[graph.output]

    def step(i, node, relevance):
        rule = (rules or {}).get(node.name, default or epsilon())
        back = node.part.relevance([values[s] for s in node.sources], values[i], relevance, rule)
        gap = flat(relevance).sum(axis=1) - sum(flat(b).sum(axis=1) for b in back)
        lost[node.name] = lost.get(node.name, 0) + gap
        return back

    start = one_hot(scores, target)
    found = graph.at(graph.backward(start * scores, step), layer)
    return Relevance(found, (start * scores).sum(axis=1), lost)


def deep_lift(graph, x, reference, target, layer=None):
    """Shrikumar et al., 2017, with the rescale rule: multipliers times differences."""
    values, start = graph.values(x), graph.values(reference)

    def step(i, node, upstream):
        inputs = [[of[s] for s in node.sources] for of in (values, start)]
        return node.part.multipliers(*inputs, upstream)

    found = graph.backward(one_hot(values[graph.output], target), step)
    contributions = [
        m if m is None else m * (a - b) for m, a, b in zip(found, values, start, strict=True)
    ]
    return graph.at(contributions, layer)


def reveal_cancel(graph, x, reference, target):
    """Shrikumar et al., 2017, sections 3.5.1 and 3.5.2."""
    values, start = graph.values(x), graph.values(reference)
    change = [a - b for a, b in zip(values, start, strict=True)]
    parts = [signed_parts(node, change, i) for i, node in enumerate(graph.nodes)]
    for i, node in enumerate(graph.nodes):  # what is moved keeps its parts
        if isinstance(node.part, Join) or getattr(node.part, "moves", False):
            pairs = [parts[s] for s in node.sources]
            parts[i] = [node.part.forward(*(pair[k] for pair in pairs)) for k in (0, 1)]

    def step(i, node, upstream):
        """`upstream` `[B, ..., 2]`: the multipliers of the positive and of the negative part."""
        if isinstance(node.part, Join) or getattr(node.part, "moves", False):
            inputs = [change[s] for s in node.sources]
            sides = [node.part.gradient(inputs, None, upstream[..., k]) for k in (0, 1)]
            return [np.stack(pair, axis=-1) for pair in zip(*sides, strict=True)]
        if isinstance(node.part, (Linear, Sum)):
            return by_sign(node.part, [change[s] for s in node.sources], upstream)
        whole = np.where(change[i] > 0, upstream[..., 0], upstream[..., 1])
        if isinstance(node.part, Elementwise):
            x0 = start[node.sources[0]]
            return [cancelling(node.part, x0, parts[node.sources[0]], whole)]
        inputs = [[of[s] for s in node.sources] for of in (values, start)]
        return [np.stack([m, m], axis=-1) for m in node.part.multipliers(*inputs, whole)]

    hot = one_hot(values[graph.output], target)
    found = graph.backward(np.stack([hot, hot], axis=-1), step)
    whole = [
        m if m is None else np.where(d > 0, m[..., 0], m[..., 1]) * d
        for m, d in zip(found, change, strict=True)
    ]
    return graph.at(whole)


def signed_parts(node, change, i):
    """The positive and the negative part of a node's difference from the reference."""
    if isinstance(node.part, Linear):
        z = flat(change[node.sources[0]])[:, :, None] * node.part.kernel
        return [part(z).sum(axis=1).reshape(change[i].shape) for part in (positive, negative)]
    if isinstance(node.part, Sum):
        terms = [f * change[s] for f, s in zip(node.part.factors, node.sources, strict=True)]
        return [sum(map(part, terms)) for part in (positive, negative)]
    return [positive(change[i]), negative(change[i])]


def by_sign(part, changes, upstream):
    """Section 3.5.1: each input counts for the part that its term has the sign of."""
    back = []
    for k, d in enumerate(changes):
        factor = part.kernel if isinstance(part, Linear) else np.array(part.factors[k])
        up = [flat(upstream[..., side]) for side in (0, 1)]
        if isinstance(part, Linear):
            sign = np.sign(flat(d)[:, :, None] * factor)
            up = [u[:, None] for u in up]
        else:
            sign = np.sign(flat(d) * factor)
        chosen = np.where(sign > 0, up[0], np.where(sign < 0, up[1], (up[0] + up[1]) / 2))
        m = (chosen * factor).sum(axis=2) if isinstance(part, Linear) else chosen * factor
        back.append(np.repeat(m.reshape(d.shape)[..., None], 2, axis=-1))
    return back


def cancelling(part, x0, parts, upstream):
    """Section 3.5.2: the averages of both orders in which the parts can be added.

    The multiplier of a part that is empty is its limit, the mean derivative at x and reference.
    """
    (up, down), f = parts, part.forward
    both = f(x0 + up + down)
    of_up = (f(x0 + up) - f(x0) + both - f(x0 + down)) / 2
    of_down = (f(x0 + down) - f(x0) + both - f(x0 + up)) / 2
    slope = (part.slope(x0) + part.slope(x0 + up + down)) / 2
    sides = [np.where(d == 0, slope, divided(e, d)) for e, d in ((of_up, up), (of_down, down))]
    return np.stack(sides, axis=-1) * upstream[..., None]


# Kinds of layers: the shape of a sample, and what makes features of it

L = layers
WEIGHTED = {
    "dense": ((6,), lambda **o: L.Dense(5, **o)),
    "dense of series": ((4, 3), lambda **o: L.Dense(5, **o)),
    "einsum": ((4, 3), lambda **o: L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de", **o)),
    "conv1d": ((7, 2), lambda **o: L.Conv1D(3, 3, strides=2, padding="same", **o)),
    "causal": ((5, 2), lambda **o: L.Conv1D(3, 3, padding="causal", **o)),
    "conv2d": ((5, 4, 2), lambda **o: L.Conv2D(3, 3, strides=2, padding="same", **o)),
    "dilated": ((5, 4, 2), lambda **o: L.Conv2D(3, (2, 1), dilation_rate=(2, 1), **o)),
    "conv3d": ((3, 4, 3, 2), lambda **o: L.Conv3D(3, 2, padding="same", **o)),
    "conv1d transposed": ((4, 3), lambda **o: L.Conv1DTranspose(3, 3, strides=2, **o)),
    "conv2d transposed": (
        (3, 4, 3),
        lambda **o: L.Conv2DTranspose(3, 3, strides=2, padding="same", **o),
    ),
    "conv3d transposed": ((2, 2, 2, 3), lambda **o: L.Conv3DTranspose(2, 2, **o)),
    "depthwise1d": ((6, 2), lambda **o: L.DepthwiseConv1D(3, depth_multiplier=2, **o)),
    "depthwise2d": ((5, 4, 2), lambda **o: L.DepthwiseConv2D(3, padding="same", **o)),
    "separable1d": ((6, 2), lambda **o: L.SeparableConv1D(3, 3, padding="same", **o)),
    "separable2d": (
        (5, 4, 2),
        lambda **o: L.SeparableConv2D(3, 2, strides=2, depth_multiplier=2, **o),
    ),
}


def called(layer, *more):
    """Layers one after the other."""
    return lambda x: called(*more)(layer()(x)) if more else layer()(x)


def two(join, units=4):
    """Two dense layers of the input, joined."""
    return lambda x: join([L.Dense(units)(x), L.Dense(units)(x)])


def twice(x):
    same = L.Dense(x.shape[-1], activation="tanh")
    return same(same(x))


def nested(x):
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="relu"), L.Dense(3)])
    x_in = keras.Input(x.shape[1:])
    return keras.Model(x_in, inner(L.Dense(4, activation="gelu")(x_in)))(x)


def operations(x):
    h = L.Dense(4)(x)
    h = keras.ops.relu(h) + L.Dense(4)(x)
    return keras.ops.tanh(keras.ops.maximum(h, L.Dense(4)(x)) - h) * L.Dense(4)(x)


def squeezed(x):
    """A gate, as in squeeze-and-excitation."""
    h = L.Conv2D(3, 2)(x)
    gate = L.Dense(3, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(h))
    return L.Multiply()([h, gate])


def residual(x):
    h = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(x))
    return L.ReLU()(L.Add()([x, h]))


def unmerged(x):
    h = L.BatchNormalization()(L.Dense(4, activation="relu")(x))
    return L.Dense(3)(L.BatchNormalization()(h))


PICTURE, SERIES, ROW = (4, 6, 2), (6, 2), (4,)
JOINING = {
    "add": (ROW, two(lambda t: L.Add()(t))),
    "subtract": (ROW, two(lambda t: L.Subtract()(t))),
    "average": (ROW, two(lambda t: L.Average()(t))),
    "maximum": (ROW, two(lambda t: L.Maximum()(t))),
    "minimum": (ROW, two(lambda t: L.Minimum()(t))),
    "multiply": (ROW, two(lambda t: L.Multiply()(t))),
    "dot": (SERIES, two(lambda t: L.Dot(axes=2)(t))),
    "matmul": (
        SERIES,
        two(lambda t: keras.ops.matmul(t[0], L.Permute((2, 1))(t[1]))),
    ),
    "concatenate": (SERIES, two(lambda t: L.Concatenate(axis=1)(t))),
    "residual": (PICTURE, residual),
    "gate": (PICTURE, squeezed),
    "twice": (ROW, twice),
    "nested": (ROW, nested),
    "operations": (ROW, operations),
    "unmerged": (ROW, unmerged),
}
MOVING = {
    "max1d": (SERIES, called(lambda: L.MaxPooling1D(3, strides=2, padding="same"))),
    "max2d": (PICTURE, called(lambda: L.MaxPooling2D(2, strides=1))),
    "max3d": ((4, 2, 4, 2), called(lambda: L.MaxPooling3D(2))),
    "average1d": (SERIES, called(lambda: L.AveragePooling1D(3, padding="same"))),
    "average2d": (PICTURE, called(lambda: L.AveragePooling2D(3, strides=1, padding="same"))),
    "average3d": ((4, 2, 4, 2), called(lambda: L.AveragePooling3D(2))),
    "global max1d": (SERIES, called(lambda: L.GlobalMaxPooling1D())),
    "global max2d": (PICTURE, called(lambda: L.GlobalMaxPooling2D(keepdims=True))),
    "global average1d": (SERIES, called(lambda: L.GlobalAveragePooling1D())),
    "global average2d": (PICTURE, called(lambda: L.GlobalAveragePooling2D())),
    "global average3d": ((2, 2, 3, 2), called(lambda: L.GlobalAveragePooling3D())),
    "flatten": (PICTURE, called(lambda: L.Flatten())),
    "reshape": (PICTURE, called(lambda: L.Reshape((8, 6)))),
    "permute": (PICTURE, called(lambda: L.Permute((3, 1, 2)), lambda: L.Conv2D(2, 2))),
    "repeat": (ROW, called(lambda: L.RepeatVector(3))),
    "padding1d": (SERIES, called(lambda: L.ZeroPadding1D(2), lambda: L.Conv1D(2, 3))),
    "padding2d": (PICTURE, called(lambda: L.ZeroPadding2D(((1, 0), (0, 2))))),
    "cropping1d": (SERIES, called(lambda: L.Cropping1D((1, 2)))),
    "cropping2d": (PICTURE, called(lambda: L.Cropping2D(((1, 0), (0, 2))))),
    "upsampling1d": (SERIES, called(lambda: L.UpSampling1D(2))),
    "upsampling2d": (PICTURE, called(lambda: L.UpSampling2D((2, 1)))),
    "upsampling bilinear": (PICTURE, called(lambda: L.UpSampling2D(2, interpolation="bilinear"))),
    "resizing": (PICTURE, called(lambda: L.Resizing(3, 5))),
    "dropout": (ROW, called(lambda: L.Dropout(0.5))),
}
ACTIVATIONS = {
    "relu": lambda: L.ReLU(),
    "relu6": lambda: L.ReLU(max_value=6.0),
    "shifted relu": lambda: L.ReLU(negative_slope=0.1, threshold=0.3),
    "leaky": lambda: L.LeakyReLU(negative_slope=0.2),
    "prelu": lambda: L.PReLU(),
    "elu": lambda: L.ELU(),
    **{
        name: lambda name=name: L.Activation(name)
        for name in (
            *("gelu", "silu", "sigmoid", "tanh", "softplus", "softsign", "selu", "exponential"),
            *("hard_sigmoid", "hard_silu", "hard_tanh", "softmax", "mish"),
        )
    },
}
NORMALIZING = {
    "batch": (SERIES, called(lambda: L.BatchNormalization())),
    "layer": (SERIES, called(lambda: L.LayerNormalization())),
    "group": (PICTURE, called(lambda: L.GroupNormalization(2), lambda: L.Conv2D(2, 2))),
    "groups": ((3, 2, 4), called(lambda: L.GroupNormalization(2))),
    "rms": (SERIES, called(lambda: L.RMSNormalization())),
    "normalization": (
        SERIES,
        called(lambda: L.Normalization(mean=[0.5, -0.2], variance=[2.0, 0.5])),
    ),
    "rescaling": (SERIES, called(lambda: L.Rescaling(-0.5, offset=0.3))),
    "batch of its own": (
        ROW,
        called(
            lambda: L.Dense(4, activation="relu"),
            lambda: L.BatchNormalization(),
            lambda: L.Activation("gelu"),
        ),
    ),
    "behind dense": (
        ROW,
        called(lambda: L.Dense(6), lambda: L.LayerNormalization(), lambda: L.Activation("gelu")),
    ),
}
KINDS = {
    "weighted": {
        k: (s, called(lambda f=f: f(activation="gelu"))) for k, (s, f) in WEIGHTED.items()
    },
    "joining": JOINING,
    "moving": MOVING,
    "activations": {k: (ROW, called(lambda: L.Dense(5), f)) for k, f in ACTIVATIONS.items()},
    "normalizing": NORMALIZING,
}


# Layers to be taken as one step, `odd_*`, all of them linear


class Odd(L.Layer):
    """A layer `odd` whose call is a function of a Dense layer and what it is given."""

    def __init__(self, fn, **options):
        super().__init__(name=f"odd_{next(NUMBERS)}", **options)
        self.fn, self.dense = fn, L.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build((None, keras.tree.flatten(shape)[-1]))

    def call(self, x):
        return self.fn(self.dense, x)


class Keeping(L.Layer):
    def call(self, x):
        self.kept = x
        return 1.0 * x


NUMBERS = itertools.count()


def odd(fn):
    """It, behind a nonlinear layer."""
    return lambda x: Odd(fn)(L.Dense(4, activation="tanh")(x))


def behind_a_stop(x):
    return Odd(lambda dense, h: dense(h))(keras.ops.stop_gradient(L.Dense(4, "tanh")(x)))


def two_of_the_same(x):
    h = L.Dense(4, activation="tanh")(x)
    return Odd(lambda dense, pair: dense(pair[0]) - 3 * pair[1])([h, h])


def with_what_it_is_given(x):
    return L.Concatenate()(odd(lambda dense, h: (h, dense(h)))(x))


def called_twice(x):
    same = Odd(lambda dense, h: dense(h))
    return same(L.Activation("tanh")(same(x)))


def reading_what_another_kept(x):
    keeping = Keeping()
    h = L.Dense(4, activation="tanh")(keeping(x))
    return Odd(lambda dense, h: dense(h) - 3 * keeping.kept)(h)


def nothing_at_all(x):
    return L.Dropout(0.5, name=f"odd_{next(NUMBERS)}")(L.Dense(4, "tanh")(x))


ODD = {
    "plain": (ROW, odd(lambda dense, h: dense(h))),
    "twice": (ROW, called_twice),
    "same inputs": (ROW, two_of_the_same),
    "gives its input": (ROW, with_what_it_is_given),
    "ends in a copy": (ROW, odd(lambda dense, h: tf.identity(dense(h)))),
    "behind a stop": (ROW, behind_a_stop),
    "reads elsewhere": (ROW, reading_what_another_kept),
    "nothing": (ROW, nothing_at_all),
}


@dataclass
class Branches:
    """A model with an input and a branch for each of some kinds of layers, and one head."""

    model: keras.Model
    features: keras.Model
    x: list

    def contributions(self, x, target):
        """What each branch adds to the logit of a class, a list of `[B]`."""
        kernel = np.asarray(self.model.get_layer("scores").kernel, np.float64)[:, target]
        found = [np.asarray(f, np.float64) for f in keras.tree.flatten(self.features(x))]
        edges = np.cumsum([f.shape[1] for f in found])[:-1]
        return [f @ k for f, k in zip(found, np.split(kernel, edges), strict=True)]


def branches(kinds, seed=0):
    """One model of all kinds `{name: (shape, fn)}`, so that one trace serves them."""
    rng = np.random.default_rng(seed)
    given = [keras.Input(shape) for shape, _ in kinds.values()]
    features = [L.Flatten()(fn(x)) for x, (_, fn) in zip(given, kinds.values(), strict=True)]
    joined = L.Concatenate()(features) if len(features) > 1 else features[0]
    model = keras.Model(given, L.Dense(3, name="scores")(joined))
    x = [rng.normal(size=(3, *shape)).astype("float32") for shape, _ in kinds.values()]
    return Branches(with_weights(model, seed), keras.Model(given, features), x)


@functools.cache
def case(group):
    """The branches of a group of `KINDS`, the same in NumPy, and references: a row for each."""
    found = branches(KINDS[group])
    start = [0.5 * np.roll(x, 1, axis=0) + 0.1 for x in found.x]
    return found, Graph(found.model), start


def with_weights(model, seed=0):
    """Weights, biases and shifts of either sign, gamma too; variances positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape = tuple(weight.shape)
        value = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        if weight.name == "moving_variance":
            value = rng.uniform(0.5, 2.0, shape)
        elif weight.name in ("gamma", "scale"):
            value = rng.uniform(0.5, 2.0, shape) * rng.choice([-1, 1], shape)
        elif len(shape) == 1 or weight.name == "bias":
            value = rng.normal(scale=0.3, size=shape)
        weight.assign(value.astype("float32"))
    return model


def without_shifts(model):
    """The model with no bias and no shift: zero gives zero."""
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(np.zeros(weight.shape, "float32"))
    return model
