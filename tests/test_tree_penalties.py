"""The penalties of tree regularization: their values, their gradients in `fit`, their sums."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_explain as kx
from keras_explain.training.schedule import ramp_at
from keras_explain.trees import PathLength, Penalty, SurrogateTree, TreeDistillation, arrays
from keras_explain.trees.penalties.base import Sizes, Step
from keras_explain.trees.regions import clusters, nearest, sparsemax, total


def table(rows=120, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def by_hand(flipped=False):
    """x0 <= 0: class 0. Else x1 <= 0: class 2. Else x0 <= 2: class 1, above it class 0."""
    label = np.array([0, 0, 1, 2, 1, 1, 0], np.int32)
    return SurrogateTree(
        feature=np.array([0, -1, 1, -1, 0, -1, -1], np.int32),
        threshold=np.array([0, 0, 0, 0, 2, 0, 0], np.float32),
        left=np.array([1, -1, 3, -1, 5, -1, -1], np.int32),
        right=np.array([2, -1, 4, -1, 6, -1, -1], np.int32),
        label=(label + 1) % 3 if flipped else label,
        counts=np.ones((7, 3), np.int64),
        feature_names=("a", "b"),
        class_names=("0", "1", "2"),
    )


def stump(feature=1):
    return SurrogateTree(
        feature=np.array([feature, -1, -1], np.int32),
        threshold=np.array([0.5, 0, 0], np.float32),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        label=np.array([0, 2, 1], np.int32),
        counts=np.ones((3, 3), np.int64),
        feature_names=("a", "b"),
        class_names=("0", "1", "2"),
    )


def leaf():
    return SurrogateTree(
        feature=np.array([-1], np.int32),
        threshold=np.zeros(1, np.float32),
        left=np.array([-1], np.int32),
        right=np.array([-1], np.int32),
        label=np.array([1], np.int32),
        counts=np.ones((1, 3), np.int64),
        feature_names=("a", "b"),
        class_names=("0", "1", "2"),
    )


def random_tree(seed, leaves=12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(150, 4)).astype(np.float32)
    y = rng.integers(0, 3, size=150)
    return SurrogateTree.from_predictions(
        x, y, prune_on=(x, y), min_samples_leaf=2, max_leaf_nodes=leaves, seed=seed
    )


# The formulas once more, in float64 and one row at a time


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def naive_way(node, row):
    """The nodes that a row comes to, described by `to_dict`."""
    found = [node]
    while "left" in node:
        side = "left" if float(row[node["feature"]]) <= node["threshold"] else "right"
        node = node[side]
        found.append(node)
    return found


def naive_distillation(root, x, p, weight):
    terms = [
        -w * np.log(p_n[naive_way(root, row)[-1]["class"]])
        for row, p_n, w in zip(x, p, weight, strict=True)
    ]
    return sum(terms) / max(sum(weight), 1)


def naive_path_length(root, x, p, weight, tau):
    rows = max(sum(weight), 1)
    came = {}
    for row, p_n, w in zip(x, p, weight, strict=True):
        for node in naive_way(root, row):
            share, sum_p, _ = came.get(id(node), (0.0, np.zeros(p.shape[1]), node))
            came[id(node)] = (share + w / rows, sum_p + w / rows * p_n, node)

    def impurity(node):
        share, sum_p, _ = came.get(id(node), (0.0, np.zeros(p.shape[1]), node))
        return share * (1 - np.sum((sum_p / share) ** 2)) if share > 0 else 0.0

    def leaves(node):
        if "left" not in node:
            return [node]
        return leaves(node["left"]) + leaves(node["right"])

    omega = 0.0
    for share, _, node in came.values():
        if "left" in node:
            gain = impurity(node) - sum(map(impurity, leaves(node)))
            omega += share * (1 - np.exp(-gain / tau))
    return omega


def naive_sparsemax(z):
    """The nearest point of the simplex, by bisection for what is taken from each number."""
    low, high = min(z) - 1, max(z)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(max(number - middle, 0) for number in z) > 1:
            low = middle
        else:
            high = middle
    return np.maximum(np.asarray(z) - low, 0)


def step(x, logits, weight=None):
    weight = np.ones((len(x), 1)) if weight is None else weight
    return Step(
        ops.convert_to_tensor(x, "float32"),
        ops.convert_to_tensor(logits, "float32"),
        ops.convert_to_tensor(weight, "float32"),
        lambda: pytest.fail("no weights were needed"),
        lambda: pytest.fail("no probe was needed"),
    )


def value(penalty, trees, taken, leaves=None):
    state = arrays.of(trees, leaves or penalty.max_leaf_nodes, 3)
    return ops.convert_to_numpy(penalty.penalty(state, taken))


class TestArrays:
    @pytest.mark.parametrize("seed", range(4))
    def test_rows_come_to_the_leaf_of_the_tree(self, seed):
        tree = random_tree(seed)
        assert tree.leaves > 4
        x = table(200, 4, seed)
        asked = ~tree.is_leaf
        for i, (feature, threshold) in enumerate(
            zip(tree.feature[asked], tree.threshold[asked], strict=True)
        ):
            x[3 * i, feature] = threshold  # a row on it, and one beside it on either side
            x[3 * i + 1, feature] = np.nextafter(threshold, np.float32(np.inf))
            x[3 * i + 2, feature] = np.nextafter(threshold, np.float32(-np.inf))
        outer = np.flatnonzero(tree.is_leaf)
        for places in (tree.leaves, 20):
            one_hot = ops.convert_to_numpy(arrays.leaf_of(arrays.of([tree], places, 3), x))
            assert one_hot.shape == (200, 1, places)
            assert (one_hot.sum(axis=-1) == 1).all()
            assert (outer[one_hot[:, 0].argmax(axis=1)] == tree.leaf_of(x)).all()

    def test_trees_of_several_regions(self):
        trees, x = [by_hand(), leaf(), stump()], table(80, 2)
        made = arrays.of(trees, 6, 3)
        one_hot = ops.convert_to_numpy(arrays.leaf_of(made, x))
        for region, tree in enumerate(trees):
            labels = made["label"][region][one_hot[:, region].argmax(axis=1)].argmax(axis=1)
            assert (labels == tree.predict(x)).all()

    def test_shapes_do_not_depend_on_the_trees(self):
        kinds = [
            {name: (a.shape, a.dtype) for name, a in made.items()}
            for made in (
                arrays.empty(2, 5, 3),
                arrays.of([leaf(), leaf()], 5, 3),
                arrays.of([by_hand(), stump()], 5, 3),
            )
        ]
        assert kinds[0] == kinds[1] == kinds[2]

    def test_an_empty_tree_is_one_leaf(self):
        one_hot = ops.convert_to_numpy(arrays.leaf_of(arrays.empty(2, 4, 3), table(7, 2)))
        assert (one_hot == np.eye(4)[0]).all()


class TestValues:
    def taken(self, regions=1):
        rng = np.random.default_rng(0)
        x, logits = table(60, 2, 5), rng.normal(size=(60, 3)) * 2
        x[:5, 0] = 0.0  # on the threshold
        weight = (rng.integers(0, regions + 1, size=(60, 1)) == np.arange(regions)) * 1.0
        return x, logits, weight

    @pytest.mark.parametrize("tree", [by_hand(), stump(), leaf()], ids=["hand", "stump", "leaf"])
    def test_distillation(self, tree):
        x, logits, weight = self.taken()
        expected = naive_distillation(tree.to_dict()["root"], x, softmax(logits), weight[:, 0])
        found = value(TreeDistillation(), [tree], step(x, logits, weight))
        assert found == pytest.approx([expected], rel=1e-5)

    @pytest.mark.parametrize("tau", [0.003, 0.01, 0.3])
    @pytest.mark.parametrize("tree", [by_hand(), stump()], ids=["hand", "stump"])
    def test_path_length(self, tree, tau):
        x, logits, weight = self.taken()
        expected = naive_path_length(tree.to_dict()["root"], x, softmax(logits), weight[:, 0], tau)
        assert 0 < expected < 3
        found = value(PathLength(tau=tau), [tree], step(x, logits, weight))
        assert found == pytest.approx([expected], rel=1e-3)

    def test_of_regions(self):
        x, logits, weight = self.taken(regions=3)
        trees = [by_hand(), by_hand(flipped=True), stump()]
        roots = [tree.to_dict()["root"] for tree in trees]
        p = softmax(logits)
        found = value(TreeDistillation(), trees, step(x, logits, weight))
        assert found == pytest.approx(
            [naive_distillation(r, x, p, w) for r, w in zip(roots, weight.T, strict=True)],
            rel=1e-5,
        )
        found = value(PathLength(), trees, step(x, logits, weight))
        assert found == pytest.approx(
            [naive_path_length(r, x, p, w, 0.01) for r, w in zip(roots, weight.T, strict=True)],
            rel=1e-3,
        )

    @pytest.mark.parametrize("penalty", [TreeDistillation(), PathLength()], ids=repr)
    def test_a_region_without_rows_is_0_and_has_a_gradient(self, penalty):
        x, logits, weight = self.taken(regions=2)
        weight[:, 1] = 0
        trees = [by_hand(), by_hand()]
        assert value(penalty, trees, step(x, logits, weight))[1] == 0
        logits = tf.constant(logits, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            state = arrays.of(trees, penalty.max_leaf_nodes, 3)
            omega = ops.sum(penalty.penalty(state, step(x, logits, weight)))
        gradient = tape.gradient(omega, logits).numpy()
        assert np.isfinite(gradient).all()
        assert gradient[weight[:, 0] == 1].any()
        assert not gradient[weight[:, 0] == 0].any()

    def test_path_length_of_one_leaf_is_0(self):
        assert value(PathLength(), [leaf()], step(*self.taken())) == [0]

    @pytest.mark.parametrize("seed", range(3))
    def test_path_length_tends_to_the_average_path_length(self, seed):
        tree, x = random_tree(seed), table(400, 4, seed)
        sure = 40.0 * np.eye(3)[tree.predict(x)]
        mean = tree.depths[tree.leaf_of(x)].mean()
        gaps = [
            mean - value(PathLength(tau=tau), [tree], step(x, sure))[0]
            for tau in (1.0, 0.1, 0.01, 1e-4, 1e-6)
        ]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[0] > 0.5
        # A question between two leaves of the same answer is worth nothing at any tau.
        worth = sum(
            np.mean([node in set(tree.path_to(int(leaf))) for leaf in tree.leaf_of(x)])
            for node in np.flatnonzero(~tree.is_leaf)
            if len(set(tree.label[self.leaves_below(tree, node)])) > 1
        )
        assert value(PathLength(tau=1e-6), [tree], step(x, sure))[0] == pytest.approx(
            worth, rel=1e-3
        )

    def leaves_below(self, tree, node):
        return [n for n in np.flatnonzero(tree.is_leaf) if node in set(tree.path_to(int(n)))]


# Gradients, as they arrive at the weights in a compiled `fit`


class Squares(Penalty):
    """Sum of the squared weights times what was learned on the host."""

    def state(self, sizes):
        return {"scale": np.zeros((), np.float32)}

    def refit(self, network, state):
        assert network.weights().shape == (network.sizes.weights,)
        return {"scale": np.float32(0.3)}

    def penalty(self, state, step):
        return state["scale"] * ops.sum(ops.square(step.weights()))[None]


class Probed(Penalty):
    """Mean of the squared probabilities for 9 rows of the reference."""

    @property
    def probe_rows(self):
        return 9

    def state(self, sizes):
        return {"seen": np.zeros(sizes.outputs, np.float32)}

    def refit(self, network, state):
        return {"seen": network.outputs()}

    def penalty(self, state, step):
        return ops.mean(ops.square(step.probe()))[None]

    def scalars(self, state):
        return {"seen": float(state["seen"].mean())}


def network(units, activation, seed=3):
    keras.utils.set_random_seed(seed)
    large = keras.initializers.RandomNormal(stddev=1.0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "tanh", kernel_initializer=large),
            layers.Dense(units, activation, kernel_initializer=large),
        ]
    )


def naive_probabilities(weights, x):
    hidden = np.tanh(x @ weights[0] + weights[1])
    logits = hidden @ weights[2] + weights[3]
    if logits.shape[1] == 1:
        logits = np.concatenate([0 * logits, logits], axis=1)
    return softmax(logits)


def central_differences(function, weights, h=1e-5):
    found = [np.zeros_like(w) for w in weights]
    for w, gradient in zip(weights, found, strict=True):
        for at in np.ndindex(w.shape):
            here = w[at]
            w[at] = here + h
            above = function(weights)
            w[at] = here - h
            gradient[at] = (above - function(weights)) / (2 * h)
            w[at] = here
    return found


def nothing(y, y_pred):
    return 0.0 * ops.mean(y_pred, axis=-1)


RATE = 0.25
STRENGTH = 0.7
# The slope of the naive formula at given weights, for a fitted tree and the probe rows.
NAIVE = {
    "distillation": (
        TreeDistillation(max_leaf_nodes=4),
        lambda root, x, probe: (
            lambda w: naive_distillation(root, x, naive_probabilities(w, x), np.ones(len(x)))
        ),
    ),
    "path_length": (
        PathLength(tau=0.1, max_leaf_nodes=5),
        lambda root, x, probe: (
            lambda w: naive_path_length(root, x, naive_probabilities(w, x), np.ones(len(x)), 0.1)
        ),
    ),
    "squares": (Squares(), lambda *_: lambda w: 0.3 * sum((a**2).sum() for a in w)),
    "probed": (
        Probed(),
        lambda root, x, probe: lambda w: (naive_probabilities(w, probe) ** 2).mean(),
    ),
}
HEADS = {"sigmoid": (1, "sigmoid"), "softmax": (3, "softmax"), "logits": (3, None)}


class TestGradients:
    @pytest.mark.parametrize(
        ("name", "head"),
        [
            ("distillation", "sigmoid"),
            ("distillation", "logits"),
            ("path_length", "softmax"),
            ("path_length", "sigmoid"),
            ("squares", "sigmoid"),
            ("probed", "softmax"),
        ],
    )
    def test_a_step_of_fit_goes_down_the_penalty(self, name, head):
        penalty, naive = NAIVE[name]
        x, net = table(), network(*HEADS[head])
        limit = getattr(penalty, "max_leaf_nodes", None)
        # Softly labelled trees: the penalty is to have a slope.
        root = SurrogateTree.fit(net, x, max_leaf_nodes=limit).to_dict()["root"]
        assert "left" in root
        model = kx.TreeRegularization(
            net, reference=x, penalty=penalty, strength=STRENGTH, warmup=0.0
        )
        model.compile(keras.optimizers.SGD(RATE), nothing)
        before = [w.astype(np.float64) for w in net.get_weights()]
        history = model.fit(x, np.arange(120) % 2, batch_size=120, verbose=0).history
        change = [
            (b - a) / (RATE * STRENGTH) for b, a in zip(before, net.get_weights(), strict=True)
        ]
        drawn = np.sort(np.random.default_rng((0, 0)).permutation(120)[:9])
        omega = naive(root, x.astype(np.float64), x[drawn].astype(np.float64))
        assert history["tree/penalty"] == pytest.approx([STRENGTH * omega(before)], rel=1e-3)
        assert history["loss"] == pytest.approx(history["tree/penalty"], rel=1e-5)
        slopes = central_differences(omega, before)
        largest = max(np.abs(slope).max() for slope in slopes)
        assert largest > 1e-2
        for found, slope in zip(change, slopes, strict=True):
            assert np.isfinite(found).all()
            assert found == pytest.approx(slope, rel=1e-2, abs=1e-3 * largest + 1e-6)

    def test_what_a_penalty_reports_is_in_the_logs(self):
        x, net = table(), network(2, "softmax")
        model = kx.TreeRegularization(net, reference=x, penalty=Probed())
        model.compile("sgd", "sparse_categorical_crossentropy")
        history = model.fit(x, np.arange(120) % 2, epochs=1, verbose=0).history
        assert history["tree/seen"] == pytest.approx([0.5])

    def test_no_gradient_goes_to_the_questions(self):
        """The units of a layer are held fixed where the tree asks about them."""
        x, net = table(), network(1, "sigmoid")
        model = kx.TreeRegularization(
            net, reference=x, warmup=0.0, layer=net.layers[0].name, penalty=PathLength(tau=0.1)
        )
        tree = SurrogateTree.fit(net, x, layer=net.layers[0].name, max_leaf_nodes=16)
        before = [w.astype(np.float64) for w in net.get_weights()]
        model.compile(keras.optimizers.SGD(RATE), nothing)
        model.fit(x, np.arange(120) % 2, batch_size=120, verbose=0)
        units = np.tanh(x @ before[0] + before[1]).astype(np.float32)
        root = tree.to_dict()["root"]

        def omega(weights):
            p = naive_probabilities(weights, x)
            return naive_path_length(root, units, p, np.ones(120), 0.1)

        slopes = central_differences(omega, [w.copy() for w in before])
        for b, a, slope in zip(before, net.get_weights(), slopes, strict=True):
            assert (b - a) / RATE == pytest.approx(slope, rel=1e-2, abs=1e-2 * np.abs(slope).max())


class TestRegions:
    @given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=6))
    @settings(max_examples=60, deadline=None)
    def test_sums(self, penalties):
        given = ops.convert_to_tensor(penalties, "float32")
        assert float(total(given, "sum")) == pytest.approx(sum(penalties), rel=1e-5)
        assert float(total(given, "max")) == pytest.approx(max(penalties))
        weights = naive_sparsemax(penalties)
        assert weights.sum() == pytest.approx(1)
        expected = float(weights @ np.asarray(penalties))
        assert float(total(given, "sparsemax")) == pytest.approx(expected, rel=1e-4, abs=1e-5)

    def test_sparsemax_is_the_nearest_point_of_the_simplex(self):
        rng = np.random.default_rng(0)
        z = rng.normal(size=4)
        point = naive_sparsemax(z)
        others = rng.dirichlet(np.ones(4), size=4000)
        assert np.sum((point - z) ** 2) <= np.sum((others - z) ** 2, axis=1).min()
        assert ops.convert_to_numpy(sparsemax(ops.convert_to_tensor(z))) == pytest.approx(
            point, abs=1e-6
        )

    def test_rows_belong_to_the_nearest_centre_of_scaled_columns(self):
        x = table(90) * np.float32([1, 100, 0.01]) + np.repeat(
            np.float32([[0], [4], [8]]), 30, axis=0
        )
        found = clusters(x, 3, seed=0)
        scaled, centres = x / found["scale"], found["centre"]
        naive = [
            min(range(3), key=lambda i, row=row: ((row - centres[i]) ** 2).sum()) for row in scaled
        ]
        assert ops.convert_to_numpy(nearest(x, **found)).tolist() == naive
        for region in range(3):
            mean = scaled[np.array(naive) == region].mean(axis=0)
            assert centres[region] == pytest.approx(mean, abs=1e-3)
        again = clusters(x, 3, seed=0)
        assert (again["centre"] == centres).all()

    def test_a_constant_column_is_no_region(self):
        x = table()
        x[:, 1] = 7
        assert np.isfinite(clusters(x, 2, seed=0)["centre"]).all()


class TestRamp:
    @pytest.mark.parametrize(
        ("warmup", "ramp", "expected"),
        [
            (0.0, 0.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            (0.5, 0.1, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
            (0.5, 0.0, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
            (0.2, 0.4, [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
            (0.0, 1.0, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
            (1.0, 0.5, [0] * 10),
        ],
    )
    def test_of_ten_epochs(self, warmup, ramp, expected):
        found = [ramp_at(epoch, 10, warmup, ramp) for epoch in range(10)]
        assert found == pytest.approx(expected)

    @given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
    def test_grows_from_0_to_1(self, epochs, warmup, ramp):
        found = [ramp_at(epoch, epochs, warmup, ramp) for epoch in range(epochs)]
        assert found == sorted(found)
        assert 0 <= found[0] <= found[-1] <= 1
        before = [r for epoch, r in enumerate(found) if epoch + 1 <= warmup * epochs]
        assert not any(before)


class TestConfiguration:
    def test_state_has_the_shapes_that_refits_keep(self):
        x, net = table(), network(3, "softmax")
        model = kx.TreeRegularization(net, reference=x)
        for penalty in (TreeDistillation(), PathLength(), Squares()):
            sizes = Sizes(3, 1, 31, 0)
            before = {k: np.shape(v) for k, v in penalty.state(sizes).items()}
            changed = penalty.refit(model.terms["tree"].network(), penalty.state(sizes))
            assert {k: np.shape(v) for k, v in changed.items()} == before

    @pytest.mark.parametrize(
        ("kind", "wrong"),
        [
            (TreeDistillation, {"max_leaf_nodes": 1}),
            (TreeDistillation, {"max_leaf_nodes": 2.5}),
            (PathLength, {"max_leaf_nodes": 1}),
            (PathLength, {"tau": 0.0}),
            (PathLength, {"tau": -1.0}),
            (PathLength, {"tau": "0.1"}),
        ],
    )
    def test_wrong_arguments(self, kind, wrong):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}`"):
            kind(**wrong)

    def test_are_configurations(self):
        penalty = PathLength(tau=0.02)
        assert penalty == PathLength(tau=0.02) != PathLength()
        assert repr(penalty) == "PathLength(tau=0.02)"
        assert PathLength.from_config(penalty.get_config()) == penalty
        with pytest.raises(TypeError):
            Penalty()
