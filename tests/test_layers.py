"""Layers and neurons: what is at a layer against a model cut in two there, and the papers' sums."""

import keras
import numpy as np
import pytest
from keras import layers, ops, tree

import keras_explain as kx
from keras_explain.plots.places import over_pictures
from tests import check, models, naive

CLASSES = np.array([0, 3, 1])
AT = ["norm", "conv_b"]
BACKGROUND = naive.inputs((8, 6, 2), rows=5, seed=3)


def total(values):
    leaves = tree.flatten(values)
    return sum(leaf.reshape(len(leaf), -1).sum(axis=1, dtype=np.float64) for leaf in leaves)


@pytest.fixture(scope="module")
def picture():
    model = naive.network()
    return model, naive.Net([model]), naive.inputs((8, 6, 2))


def cut(model, layer):
    """The two models before and behind a layer of a Sequential one."""
    names = [part.name for part in model.layers]
    middle = names.index(layer) + 1
    body = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[:middle]])
    return body, keras.Sequential([keras.Input(body.output_shape[1:]), *model.layers[middle:]])


# Layer conductance and internal influence


def line(x, start, at):
    return start + at * (np.asarray(x, np.float64) - start)


def naive_conductance(net, x, target, start, layer, steps):
    """The gradient at each node times the change of the layer over the node's piece."""
    nodes, weights = naive.gauss_legendre(steps)
    ends = np.concatenate([[0], np.cumsum(weights[::-1])])
    outputs = [net.activation(line(x, start, end), layer) for end in ends]
    values = 0.0
    for i, node in enumerate(nodes[::-1]):
        gradient = net.gradient(line(x, start, node), target, layer)
        values = values + gradient * (outputs[i + 1] - outputs[i])
    return values


def conductance_integral(net, x, target, start, layer, pieces=120, step=1e-4):
    """The paper's integrand, with the layer's slope along the line by central differences."""
    values = 0.0
    for a in (np.arange(pieces) + 0.5) / pieces:
        ahead, behind = (net.activation(line(x, start, a + s), layer) for s in (step, -step))
        gradient = net.gradient(line(x, start, a), target, layer)
        values = values + gradient * (ahead - behind) / (2 * step) / pieces
    return values


@pytest.mark.parametrize("layer", AT)
def test_conductance_is_the_sum_over_the_pieces_of_the_line(picture, layer):
    model, net, x = picture
    explanation = kx.LayerConductance(layer=layer, steps=6, baseline=0.2)(model, x, CLASSES)
    naive.close(explanation.values, naive_conductance(net, x, CLASSES, 0.2, layer, 6))
    naive.close(explanation.scores, net.score(x, CLASSES))
    naive.close(explanation.extras["base_values"], net.score(np.full(x.shape, 0.2), CLASSES))


def test_conductance_is_the_papers_integral(picture):
    model, net, x = picture
    values = kx.LayerConductance(layer="conv_b")(model, x, CLASSES).values
    naive.close(values, conductance_integral(net, x, CLASSES, 0.0, "conv_b"), 1e-3)


@pytest.mark.parametrize("layer", AT)
def test_conductance_sums_to_the_change_of_the_score(picture, layer):
    model, net, x = picture
    explanation = kx.LayerConductance(layer=layer, baseline=-0.5)(model, x, CLASSES)
    change = net.score(x, CLASSES) - net.score(np.full(x.shape, -0.5), CLASSES)
    naive.close(total(explanation.values), change, 1e-3)
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-3 * np.abs(change).max()


def test_conductance_of_a_layer_that_changes_nothing_is_integrated_gradients():
    stack = [layers.Identity(name="same"), layers.Dense(6, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential([keras.Input((5,)), *stack]))
    x = naive.inputs((5,))
    conductance = kx.LayerConductance(layer="same", steps=9, baseline=0.3)(model, x, 1)
    straight = kx.IntegratedGradients(steps=9, baseline=0.3)(model, x, 1)
    naive.close(conductance.values, straight.values)


def squares():
    """The sum of the squares of a linear layer, and the layer's kernel."""
    x = keras.Input((4,))
    y = layers.Dense(3, use_bias=False, name="linear")(x)
    model = keras.Model(x, ops.sum(ops.square(y), axis=-1, keepdims=True))
    return model, naive.randomize(model).get_weights()[0]


def test_known_values():
    model, kernel = squares()
    x = naive.inputs((4,))
    y = x.astype(np.float64) @ kernel
    naive.close(kx.LayerConductance(layer="linear", steps=2)(model, x).values, y**2)
    naive.close(kx.InternalInfluence(layer="linear", steps=2)(model, x).values, y)


@pytest.mark.parametrize("layer", AT)
def test_influence_is_the_gradient_averaged_along_the_line(picture, layer):
    model, net, x = picture
    explanation = kx.InternalInfluence(layer=layer, steps=7, baseline=0.2)(model, x, CLASSES)
    expected = 0.0
    for node, weight in zip(*naive.gauss_legendre(7), strict=True):
        expected = expected + weight * net.gradient(line(x, 0.2, node), CLASSES, layer)
    naive.close(explanation.values, expected)
    assert explanation.extras.keys() == {"reliable"}


def test_many_classes_and_small_batches(picture):
    model, net, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = kx.LayerConductance(layer="norm", steps=4)(model, x, many, batch_size=3)
    for k in range(2):
        expected = naive_conductance(net, x, many[:, k], 0.0, "norm", 4)
        naive.close(explanation.values[:, k], expected)
    assert explanation.extras["convergence_delta"].shape == (3, 2)


def test_what_goes_past_the_layer_is_missed():
    x_in = keras.Input((4,))
    through = layers.Dense(3, activation="tanh", name="through")(x_in)
    past = layers.Dense(3, activation="tanh", name="past")(x_in)
    model = naive.randomize(keras.Model(x_in, layers.Dense(2)(through + past)))
    x = naive.inputs((4,))
    both = [kx.LayerConductance(layer=name)(model, x, 1) for name in ("through", "past")]
    change = both[0].scores - both[0].extras["base_values"]
    for one, other in (both, both[::-1]):
        naive.close(one.extras["convergence_delta"], total(one.values) - change, 1e-4)
        naive.close(one.extras["convergence_delta"], -total(other.values), 1e-3)


def test_a_shared_layer_has_values_at_each_of_its_calls():
    case = models.get("siamese")
    explanation = kx.LayerConductance(layer="shared")(case.model, case.x, 1)
    assert [values.shape for values in explanation.values] == [(models.ROWS, 8, 8, 4)] * 2
    change = explanation.scores - explanation.extras["base_values"]
    naive.close(total(explanation.values), change, 2e-2)  # ReLUs
    for values in explanation.values:
        assert np.abs(total(values)).min() > 1e-3


def test_a_layer_called_on_itself_has_the_whole_change_at_each_call():
    case = models.fresh("called_twice")
    case.model.get_layer("same").activation = keras.activations.tanh
    explanation = kx.LayerConductance(layer="same")(case.model, case.x, 1)
    change = explanation.scores - explanation.extras["base_values"]
    for values in explanation.values:
        naive.close(total(values), change, 1e-3)


@pytest.fixture(scope="module")
def sentence():
    stack = [
        layers.Embedding(9, 4, name="embedding"),
        layers.Conv1D(5, 2, activation="tanh", name="conv"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    ]
    model = naive.randomize(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    ids = np.random.default_rng(0).integers(1, 9, (3, 6))
    return model, naive.Net(model.layers[1:]), model.layers[0].get_weights()[0], ids


@pytest.mark.parametrize("layer", ["conv", "embedding"])
def test_tokens_keep_the_axes_of_the_layer(sentence, layer):
    model, net, table, ids = sentence
    values = kx.LayerConductance(layer=layer, steps=5, baseline=2)(model, ids, 1).values
    start = np.broadcast_to(table[2], (3, 6, 4))
    at = None if layer == "embedding" else layer
    naive.close(values, naive_conductance(net, table[ids], 1, start, at, 5))


def test_inside_another_explainer(sentence):
    model, _, _, ids = sentence
    inner = kx.LayerConductance(layer="conv", steps=3)
    around = kx.SmoothGrad(explainer=inner, samples=2, noise=0.0)
    naive.close(around(model, ids, 1).values, inner(model, ids, 1).values)


# Gradients at a layer: the head alone, explained at what the body makes of the input

EXPLAINERS = {
    "Saliency": lambda at, made: kx.Saliency(**at),
    "InputXGradient": lambda at, made: kx.InputXGradient(**at),
    "IntegratedGradients": lambda at, made: kx.IntegratedGradients(
        steps=5, baseline=made(np.full_like(BACKGROUND[:1], 0.2))[0], **at
    ),
    "GradientSHAP": lambda at, made: kx.GradientSHAP(background=made(BACKGROUND), samples=7, **at),
    "SmoothGrad": lambda at, made: kx.SmoothGrad(
        explainer=kx.InputXGradient(**at), samples=3, noise=0.2
    ),
}


@pytest.mark.parametrize("name", EXPLAINERS)
def test_it_is_the_head_at_what_the_body_makes(picture, name):
    model, _, x = picture
    body, head = cut(model, "norm")

    def made(x):
        return ops.convert_to_numpy(body(x, training=False))

    expected = EXPLAINERS[name]({}, made)(head, made(x), CLASSES)
    explanation = EXPLAINERS[name]({"layer": "norm"}, lambda x: x)(model, x, CLASSES)
    naive.close(explanation.values, expected.values)
    naive.close(explanation.scores, expected.scores)
    assert explanation.extras.keys() == expected.extras.keys()
    for extra, values in expected.extras.items():
        np.testing.assert_allclose(explanation.extras[extra], values, atol=1e-5)


def test_the_formulas_at_a_layer(picture):
    model, net, x = picture
    gradient, y = net.gradient(x, CLASSES, "conv_a"), net.activation(x, "conv_a")
    naive.close(kx.Saliency(layer="conv_a", absolute=False)(model, x, CLASSES).values, gradient)
    naive.close(kx.InputXGradient(layer="conv_a")(model, x, CLASSES).values, y * gradient)
    start = np.full(x.shape, 0.3)
    head, start_y = naive.Net(model.layers[1:]), net.activation(start, "conv_a")
    expected = naive.integrated_gradients(
        lambda z: head.gradient(z, CLASSES), y, start_y, naive.midpoints(100)
    )
    explanation = kx.IntegratedGradients(layer="conv_a", baseline=0.3)(model, x, CLASSES)
    naive.close(explanation.values, expected, 1e-4)
    naive.close(total(explanation.values), net.score(x, CLASSES) - net.score(start, CLASSES), 1e-4)
    naive.close(explanation.extras["base_values"], net.score(start, CLASSES))


def test_several_classes_at_a_layer(picture):
    model, net, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explainer = kx.Saliency(layer=model.get_layer("conv_b"), absolute=False)
    values = explainer(model, x, many, batch_size=2).values
    for k in range(2):
        naive.close(values[:, k], net.gradient(x, many[:, k], "conv_b"))


@pytest.mark.parametrize("layer", ["conv_last", "encoder/backbone/conv_last"])
def test_a_nested_layer(layer):
    case = models.get("nested_twice")
    backbone = case.model.get_layer("encoder").get_layer("backbone")
    net = naive.Net([backbone, *case.model.layers[-2:]])
    body, net_head = naive.Net([backbone]), naive.Net(case.model.layers[-2:])
    relu = body.scores(case.x) > 0
    explanation = kx.Saliency(layer=layer, absolute=False)(case.model, case.x, 1)
    features = body.scores(case.x) * relu
    naive.close(explanation.values, net_head.gradient(features, 1) * relu)
    assert net.scores(case.x).shape == (models.ROWS, models.CLASSES)
    conductance = kx.LayerConductance(layer=layer)(case.model, case.x, 1)
    assert conductance.values.shape == features.shape


def test_a_nested_model_is_a_layer():
    case = models.get("nested_twice")
    whole = kx.IntegratedGradients(layer="backbone", steps=4)(case.model, case.x, 1)
    last = kx.IntegratedGradients(layer="conv_last", steps=4)(case.model, case.x, 1)
    naive.close(whole.values, last.values)


@pytest.mark.parametrize("cls", [kx.InputXGradient, kx.IntegratedGradients])
def test_an_embedding_is_a_layer_whose_axes_are_kept(sentence, cls):
    model, _, _, ids = sentence
    at_layer, default = cls(layer="embedding")(model, ids, 1), cls()(model, ids, 1)
    assert at_layer.values.shape == (3, 6, 4)
    naive.close(at_layer.values.sum(axis=-1), default.values)
    assert at_layer.extras.keys() == default.extras.keys()


def test_a_shared_layer_is_explained_at_all_of_its_calls():
    """In the order in which Keras runs them, which need not be that of the inputs."""
    case = models.get("siamese")
    net, head = naive.Net([case.model.get_layer("shared")]), case.model.layers[-1]
    kernel = head.get_weights()[0][:, 1].astype(np.float64).reshape(2, 2, 2, 4)
    gradients = np.kron(kernel, np.ones((1, 4, 4, 1))) / 16  # of the means of quarters
    outputs = [net.scores(x) for x in case.x]
    calls = [y for layer, y in check.calls_of(case.model, case.x) if layer.name == "shared"]
    order = [int(np.abs(calls[0] - outputs[i][:3]).max() > 1e-3) for i in (0, 1)]
    assert sorted(order) == [0, 1]
    saliency = kx.Saliency(layer="shared", absolute=False)(case.model, case.x, 1)
    integrated = kx.IntegratedGradients(layer="shared", steps=2)(case.model, case.x, 1)
    start = net.scores(np.zeros_like(case.x[0]))
    for i in (0, 1):
        y, gradient = outputs[i], np.tile(gradients[i], (models.ROWS, 1, 1, 1))
        naive.close(saliency.values[order[i]], gradient)
        naive.close(integrated.values[order[i]], gradient * (y - start))


def test_a_model_of_fixed_batch_size():
    case = models.get("fixed_batch")
    net = naive.Net([case.model.get_layer("conv"), layers.Flatten(), case.model.layers[-1]])
    explanation = kx.InputXGradient(layer="conv")(case.model, case.x, 1)
    naive.close(
        explanation.values, net.activation(case.x, "conv") * net.gradient(case.x, 1, "conv")
    )
    influence = kx.InternalInfluence(layer="conv", steps=2)(case.model, case.x, 1)
    naive.close(influence.values, net.gradient(case.x, 1, "conv"))


# Errors

AT_LAYER = [kx.Saliency, kx.IntegratedGradients, kx.InternalInfluence, kx.LayerConductance]


@pytest.mark.parametrize("cls", AT_LAYER)
def test_a_layer_that_there_is_not(picture, cls):
    model, _, x = picture
    with pytest.raises(ValueError, match=r"layer='conv_c'.*conv_b"):
        cls(layer="conv_c")(model, x, 1)


@pytest.mark.parametrize("cls", AT_LAYER)
def test_a_layer_behind_the_score(cls):
    case = models.get("softmax_layer")
    name = case.model.layers[-1].name
    with pytest.raises(ValueError, match=f"depends on the layer '{name}'"):
        cls(layer=name)(case.model, case.x, 1)


@pytest.mark.parametrize("cls", AT_LAYER)
def test_a_layer_of_integers(cls):
    case = models.get("lookup")
    with pytest.raises(ValueError, match="output holds floating-point numbers"):
        cls(layer="integer_lookup")(case.model, case.x, 1)


@pytest.mark.parametrize("cls", AT_LAYER)
def test_a_layer_inside_a_loop(cls):
    case = models.get("with_loop")
    with pytest.raises(ValueError, match=r"'repeated/dense' takes no part .* inside a loop"):
        cls(layer="dense")(case.model, case.x, 1)


@pytest.mark.parametrize("cls", [kx.InternalInfluence, kx.LayerConductance])
def test_wrong_options(cls):
    with pytest.raises(ValueError, match="`steps` to be a whole number of 1 or more"):
        cls(layer="conv", steps=0)
    with pytest.raises(TypeError, match="layer"):
        cls()


# Neurons: as of a model that ends there

GRADIENTS = {
    "Saliency": kx.Saliency(),
    "InputXGradient": kx.InputXGradient(),
    "IntegratedGradients": kx.IntegratedGradients(steps=4, baseline=0.2),
    "GradientSHAP": kx.GradientSHAP(background=BACKGROUND, samples=5),
    "SmoothGrad": kx.SmoothGrad(samples=2),
    "BlurIG": kx.BlurIG(steps=4),
    "GuidedIG": kx.GuidedIG(steps=4, max_distance=0.2),
    "XRAI": kx.XRAI(explainer=kx.InputXGradient()),
    "LayerConductance": kx.LayerConductance(layer="conv_a", steps=3),
    "layer": kx.IntegratedGradients(layer="conv_a", steps=3),
}
OF_CHANNEL = kx.targets.Neuron("conv_b", 2), lambda y: ops.mean(y, axis=(1, 2))[:, 2]
OF_UNIT = kx.targets.Neuron("norm", unit=(2, 1, 0)), lambda y: y[:, 2, 1, 0]
NEURONS = [(name, *OF_CHANNEL) for name in GRADIENTS] + [
    (name, *OF_UNIT) for name in ("InputXGradient", "IntegratedGradients", "LayerConductance")
]


@pytest.mark.parametrize(
    ("name", "target", "score"),
    NEURONS,
    ids=[f"{name}-{target.layer}" for name, target, _ in NEURONS],
)
def test_a_neuron_is_the_score_of_a_model_that_ends_there(picture, name, target, score):
    model, _, x = picture
    body, _ = cut(model, target.layer)
    explainer = GRADIENTS[name]
    received = explainer(model, x, target)
    expected = explainer(body, x, kx.targets.Function(score))
    naive.close(received.values, expected.values)
    naive.close(received.scores, expected.scores)
    for extra, values in expected.extras.items():
        np.testing.assert_allclose(received.extras[extra], values, atol=1e-5)


def test_several_channels_of_a_layer(picture):
    model, _, x = picture
    many = np.array([[0, 1], [3, 3], [2, 0]])
    explanation = kx.Saliency(absolute=False)(model, x, kx.targets.Neuron("conv_b", many))
    body, _ = cut(model, "conv_b")
    head = naive.Net([body, layers.GlobalAveragePooling2D()])
    for k in range(2):
        naive.close(explanation.values[:, k], head.gradient(x, many[:, k]))
        naive.close(explanation.scores[:, k], head.score(x, many[:, k]))


# What becomes of an explanation at a layer: its file, its figure, a callback


@pytest.mark.parametrize("kind", ["siamese", "nested_twice"])
def test_the_file_keeps_it(kind, tmp_path):
    case, layer = models.get(kind), {"siamese": "shared", "nested_twice": "conv_last"}[kind]
    explanation = kx.LayerConductance(layer=layer, steps=2)(case.model, case.x, 1)
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    assert loaded.explainer == explanation.explainer
    tree.assert_same_structure(loaded.values, explanation.values)
    for a, b in zip(*(tree.flatten(e.values) for e in (loaded, explanation)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("targets", [1, [[0, 1]] * models.ROWS], ids=["one", "several"])
def test_maps_at_a_layer_are_drawn_over_the_picture(targets):
    case = models.get("uint8")
    explanation = kx.InputXGradient(layer="conv")(case.model, case.x, targets)
    drawn = over_pictures(explanation)
    lead = np.ndim(explanation.scores)
    maps = explanation.values.sum(axis=-1).reshape(-1, 4, 4)
    expected = naive.bilinear(maps, (8, 12)).reshape(*explanation.scores.shape, 8, 12)
    assert explanation.values.shape[lead:] == (4, 4, 4)
    naive.close(drawn.values, expected)
    assert explanation.plot().axes


def test_what_can_not_be_drawn_says_so():
    case = models.get("uint8")
    at_flat = kx.InputXGradient(layer=case.model.layers[-2].name)(case.model, case.x, 1)
    with pytest.raises(ValueError, match=r"values are at layer 'flatten.*\[B, h, w, C\]"):
        at_flat.plot()
    case = models.get("siamese")
    at_both = kx.Saliency(layer="shared")(case.model, case.x, 1)
    with pytest.raises(ValueError, match="values are at layer 'shared'"):
        at_both.plot()


def test_a_callback_logs_explanations_at_layers():
    case = models.fresh("uint8")
    case.model.compile("sgd", "sparse_categorical_crossentropy")
    memory = kx.sinks.Memory()
    explainers = {
        "maps": kx.LayerConductance(layer="conv", steps=2),
        "flat": kx.InputXGradient(layer=case.model.layers[-2].name),
        "noisy": kx.SmoothGrad(explainer=kx.Saliency(layer="conv"), samples=2),
    }
    logger = kx.callbacks.ExplanationLogger(
        explainers, case.x, [0, 1, 2, 3], sinks=[memory], on_error="raise"
    )
    case.model.fit(case.x, np.arange(4), epochs=1, verbose=0, callbacks=[logger])
    records = {record.name: record for record in memory.records}
    for name in ("maps", "noisy"):
        assert records[name].maps.shape == (models.ROWS, 8, 12)
        assert records[name].maps.any()
    assert records["flat"].maps is None
    assert records["flat"].scalars["concentration"] > 0


def test_the_shapes_that_the_contract_asks_for_are_the_layers():
    case = models.get("siamese")
    shapes = check.layer_shapes(kx.InternalInfluence(layer="shared"), case.model, case.x)
    assert shapes == [(8, 8, 4), (8, 8, 4)]
    assert check.middle_layer(case.model, case.x) in [layer.name for layer in case.model.layers]
