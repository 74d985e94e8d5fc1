"""`SurrogateTree`: what it is grown from, how it is pruned, what it measures and what it reads."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from sklearn.tree import DecisionTreeClassifier

from keras_explain.trees import SurrogateTree
from tests.process import run_python


def table(rows=300, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def noisy(x, seed=0, classes=2):
    """Classes that a tree can tell in part."""
    rng = np.random.default_rng(seed)
    y = np.digitize(x[:, 0] + x[:, 1] ** 2 + rng.normal(size=len(x)) * 0.5, [0.5, 1.5])
    return np.minimum(y, classes - 1)


def hidden(x, units=6):
    return layers.Dense(units, "tanh", kernel_initializer=keras.initializers.GlorotUniform(3))(x)


def head(units, activation=None, scale=3.0):
    kernel = keras.initializers.RandomNormal(stddev=scale, seed=5)
    return layers.Dense(units, activation, kernel_initializer=kernel)


def functional(shape, body, **options):
    inputs = keras.Input(shape, **options)
    return keras.Model(inputs, body(inputs))


def classifier(units=1, activation="sigmoid", columns=3):
    return functional((columns,), lambda x: head(units, activation)(hidden(x)))


# The same once more, naively: trees are nested dicts


def nested(cart, node=0):
    """scikit-learn's tree."""
    nodes = cart.tree_
    made = {"class": int(cart.classes_[np.argmax(nodes.value[node, 0])])}
    if nodes.children_left[node] != -1:
        made["feature"], made["threshold"] = int(nodes.feature[node]), float(nodes.threshold[node])
        made["left"] = nested(cart, nodes.children_left[node])
        made["right"] = nested(cart, nodes.children_right[node])
    return made


def goes_left(node, row):
    return float(row[node["feature"]]) <= node["threshold"]


def pruned(node, rows):
    """A node after reduced-error pruning on `rows` of (x, class), and its errors."""
    as_leaf = sum(label != node["class"] for _, label in rows)
    if "left" not in node:
        return node, as_leaf
    left, errors_left = pruned(node["left"], [r for r in rows if goes_left(node, r[0])])
    right, errors_right = pruned(node["right"], [r for r in rows if not goes_left(node, r[0])])
    if as_leaf <= errors_left + errors_right:
        return {"class": node["class"]}, as_leaf
    return node | {"left": left, "right": right}, errors_left + errors_right


def way(node, row):
    """The class that a row gets, and how many questions it was asked."""
    questions = 0
    while "left" in node:
        node = node["left"] if goes_left(node, row) else node["right"]
        questions += 1
    return node["class"], questions


def length(node, rows):
    return sum(way(node, row)[1] for row in rows) / len(rows)


def same(a, b):
    """Whether two trees answer alike at every node, thresholds to float32 rounding."""
    if ("left" in a) != ("left" in b) or a["class"] != b["class"]:
        return False
    if "left" not in a:
        return True
    close = np.isclose(a["threshold"], b["threshold"], rtol=1e-6, atol=1e-7)
    asked = a["feature"] == b["feature"] and close
    return asked and same(a["left"], b["left"]) and same(a["right"], b["right"])


def grown(x, y, least=5, seed=0, leaves=None):
    """By scikit-learn, best split first; depth first, it would choose others between ties."""
    return DecisionTreeClassifier(
        min_samples_leaf=least, max_leaf_nodes=leaves or len(x), random_state=seed
    ).fit(x, y)


def by_hand():
    """x0 <= 0: class 0. Else x1 <= 0: class 1. Else x0 <= 2: class 0, above it class 1."""
    x = np.array([[-1, 0]] * 4 + [[1, -1]] * 3 + [[1, 1]] * 2 + [[3, 1]], np.float32)
    y = np.array([0] * 4 + [1] * 3 + [0] * 2 + [1])
    return (
        SurrogateTree(
            feature=np.array([0, -1, 1, -1, 0, -1, -1], np.int32),
            threshold=np.array([0, 0, 0, 0, 2, 0, 0], np.float32),
            left=np.array([1, -1, 3, -1, 5, -1, -1], np.int32),
            right=np.array([2, -1, 4, -1, 6, -1, -1], np.int32),
            label=np.array([0, 0, 1, 1, 0, 0, 1], np.int32),
            counts=np.array([[6, 4], [4, 0], [2, 4], [0, 3], [2, 1], [2, 0], [0, 1]]),
            feature_names=("a", "b"),
            class_names=("0", "1"),
        ),
        x,
        y,
    )


class TestPathLength:
    def test_of_constant_predictions_is_0(self):
        tree = SurrogateTree.from_predictions(table(), np.ones(300, int))
        assert (tree.average_path_length, tree.leaves, tree.depth) == (0, 1, 0)
        assert (tree.predict(table()) == 1).all()
        assert tree.agreement == 1

    def test_of_a_constant_model_is_0(self):
        model = functional((3,), lambda x: layers.Dense(1, bias_initializer="ones")(0.0 * x))
        tree = SurrogateTree.fit(model, table())
        assert (tree.average_path_length, tree.label.tolist()) == (0, [1])

    def test_of_one_split_is_1(self):
        x = table()
        tree = SurrogateTree.from_predictions(x, x[:, 1] > 0.3)
        assert (tree.average_path_length, tree.leaves, tree.depth) == (1, 2, 1)
        assert tree.feature[0] == 1

    def test_of_xor_is_2(self):
        x = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 40, axis=0).astype(np.float32)
        model = functional((2,), lambda x: ops.sigmoid(-(x[:, :1] - 0.5) * (x[:, 1:] - 0.5)))
        tree = SurrogateTree.fit(model, x)
        assert (tree.average_path_length, tree.leaves, tree.depth) == (2, 4, 2)
        assert tree.fidelity(np.unique(x, axis=0)) == 1

    def test_of_an_unbalanced_tree_is_exact(self):
        tree, x, y = by_hand()
        assert tree.depths.tolist() == [0, 1, 1, 2, 2, 3, 3]
        assert tree.leaf_of(x).tolist() == [1] * 4 + [3] * 3 + [5] * 2 + [6]
        assert tree.average_path_length == pytest.approx((4 * 1 + 3 * 2 + 3 * 3) / 10)
        assert (tree.leaves, tree.depth) == (4, 3)
        assert tree.predict(x).tolist() == y.tolist()
        assert list(tree.path_to(6)) == [0, 2, 4, 6]

    def test_is_over_all_reference_rows_with_their_questions(self):
        x = table()
        tree = SurrogateTree.from_predictions(x, noisy(x), seed=2)
        assert tree.leaves > 2
        assert tree.average_path_length == pytest.approx(length(tree.to_dict()["root"], x))
        assert tree.counts[0].sum() == len(x)


class TestGrowing:
    @pytest.mark.parametrize("classes", [2, 3])
    def test_unpruned_it_is_cart(self, classes):
        x = table(seed=1)
        y = noisy(x, classes=classes)
        # Leaves are pure, so that pruning on the rows it was grown on takes nothing away.
        tree = SurrogateTree.from_predictions(x, y, prune_on=(x, y), min_samples_leaf=1)
        cart = grown(x, y, least=1)
        assert tree.average_path_length == cart.decision_path(x).sum(axis=1).mean() - 1
        assert (tree.leaves, tree.depth) == (cart.get_n_leaves(), cart.get_depth())
        assert same(tree.to_dict()["root"], nested(cart))
        fresh = table(2000, seed=2)
        assert (tree.predict(fresh) == cart.predict(fresh)).all()

    def test_thresholds_decide_as_those_of_scikit_learn(self):
        """Between neighbouring float32 numbers, a threshold is no float32 number itself."""
        start = np.float32([2.5, 3.1, -7.3, 12345.6])
        steps = [start]
        for _ in range(40):
            steps.append(np.nextafter(steps[-1], np.float32(np.inf)))
        x = np.concatenate(steps)[:, None]
        y = np.random.default_rng(0).integers(2, size=len(x))
        tree = SurrogateTree.from_predictions(x, y, prune_on=(x, y), min_samples_leaf=1)
        cart = grown(x, y, least=1)
        assert tree.leaves == cart.get_n_leaves() > 50
        assert tree.threshold.dtype == np.float32
        assert (tree.predict(x) == cart.predict(x)).all()
        assert (tree.predict(x) == y).all()

    def test_a_threshold_that_float32_holds_is_kept(self):
        x = np.tile(np.float32([[0], [2]]), (5, 1))
        tree = SurrogateTree.from_predictions(x, x[:, 0] > 1, prune_on=(x, x[:, 0] > 1))
        assert tree.threshold[0] == 1.0
        assert tree.predict(np.float32([[1.0]])) == 0

    def test_a_leaf_has_min_samples_leaf_rows(self):
        x = table()
        tree = SurrogateTree.from_predictions(
            x, noisy(x), prune_on=(x, noisy(x)), min_samples_leaf=30
        )
        assert tree.leaves > 2
        assert tree.counts[tree.is_leaf].sum(axis=1).min() >= 30

    def test_max_leaf_nodes_is_a_limit(self):
        x = table()
        for limit in (2, 3, 5):
            tree = SurrogateTree.from_predictions(
                x, noisy(x), prune_on=(x, noisy(x)), max_leaf_nodes=limit
            )
            assert tree.leaves <= limit
        assert tree.leaves > 2

    @pytest.mark.parametrize("kind", ["whole", "real", "noise"])
    def test_to_a_limit_it_is_as_if_grown_to_that_alone(self, kind):
        """It is the beginning of the tree without a limit, whatever ties there are."""
        cut = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            classes, (x, other) = rng.integers(2, 4), rng.normal(size=(2, rng.integers(9, 200), 3))
            x, other = (np.round(rows) if kind == "whole" else rows for rows in (x, other))
            y, labels = (
                (np.abs(rows[:, 0]) + (rows[:, 1] > 0)).astype(int) % classes for rows in (x, other)
            )
            y = rng.integers(0, classes, size=len(x)) if kind == "noise" else y
            x, other = x.astype(np.float32), other.astype(np.float32)
            least, leaves = int(rng.integers(1, 9)), int(rng.integers(2, 17))
            tree = SurrogateTree.from_predictions(
                x,
                y,
                prune_on=(other, labels),
                min_samples_leaf=least,
                max_leaf_nodes=leaves,
                class_names=range(classes),
                seed=seed,
            )
            alone = grown(x, y, least, seed, leaves)
            expected, _ = pruned(nested(alone), list(zip(other, labels, strict=True)))
            assert same(tree.to_dict()["root"], expected)
            cut += grown(x, y, least, seed).get_n_leaves() > alone.get_n_leaves()
        assert cut > 20

    def test_a_node_stands_before_those_below_it(self):
        x = table()
        tree = SurrogateTree.from_predictions(x, noisy(x), max_leaf_nodes=9)
        inner = np.flatnonzero(~tree.is_leaf)
        assert (tree.left[inner] > inner).all()
        assert (tree.right[inner] > inner).all()
        below = tree.counts[tree.left[inner]] + tree.counts[tree.right[inner]]
        assert (tree.counts[inner] == below).all()

    @pytest.mark.slow
    def test_is_the_same_in_a_fresh_process(self):
        code = """
            import json, keras, numpy as np
            from keras_explain.trees import SurrogateTree
            x = np.random.default_rng(0).integers(0, 4, size=(300, 4)).astype("float32")
            keras.utils.set_random_seed(3)
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "tanh"),
                                      keras.layers.Dense(3, "softmax")])
            print(json.dumps(SurrogateTree.fit(model, x, min_samples_leaf=1).to_dict()))
        """
        run = run_python(code)
        assert run.returncode == 0, run.stderr
        x = np.random.default_rng(0).integers(0, 4, size=(300, 4)).astype("float32")
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(9, "tanh"), layers.Dense(3, "softmax")]
        )
        here = SurrogateTree.fit(model, x, min_samples_leaf=1).to_dict()
        assert here["leaves"] > 4
        assert json.loads(run.stdout) == here


class TestPruning:
    @given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 3))
    @settings(max_examples=40, deadline=None)
    def test_is_reduced_error_pruning(self, seed, least, classes):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 8, size=(60, 3)).astype(np.float32)
        y = rng.integers(0, classes, size=60)
        y[:classes] = range(classes)
        other, labels = rng.integers(0, 8, size=(30, 3)), rng.integers(0, classes, size=30)
        other = other.astype(np.float32)
        tree = SurrogateTree.from_predictions(
            x, y, prune_on=(other, labels), min_samples_leaf=least, seed=seed
        )
        whole = nested(grown(x, y, least, seed))
        expected, errors = pruned(whole, list(zip(other, labels, strict=True)))
        assert same(tree.to_dict()["root"], expected)
        assert tree.agreement == pytest.approx(1 - errors / 30)
        # What it is for: shorter, and no worse on the rows held out.
        assert tree.average_path_length <= length(whole, x) + 1e-9
        held = np.mean(
            [way(whole, row)[0] == label for row, label in zip(other, labels, strict=True)]
        )
        assert tree.agreement >= held - 1e-9
        assert np.mean(tree.predict(other) == labels) == pytest.approx(tree.agreement)

    def test_ties_prune(self):
        x = np.float32([[0]] * 10 + [[1]] * 10)
        y = np.array([0] * 10 + [1] * 10)
        nothing_there = (np.float32([[0], [0]]), np.array([0, 0]))
        tree = SurrogateTree.from_predictions(x, y, prune_on=nothing_there)
        assert (tree.leaves, tree.agreement) == (1, 1)

    def test_keeps_back_three_tenths(self):
        x = table(100)
        y = (x[:, 0] > 0).astype(int)
        kwargs = {"min_samples_leaf": 70}
        assert SurrogateTree.from_predictions(x, y, **kwargs).leaves == 1  # 70 rows to grow on
        with pytest.raises(ValueError, match="70 of them to grow on"):
            SurrogateTree.from_predictions(x, y, min_samples_leaf=71)
        agreement = SurrogateTree.from_predictions(x, noisy(x)).agreement
        assert 30 * agreement == pytest.approx(round(30 * agreement))

    def test_what_is_kept_back_depends_on_the_seed_alone(self):
        x = table()
        y = noisy(x)
        trees = [SurrogateTree.from_predictions(x, y, seed=s).to_dict() for s in (0, 0, 1, 2)]
        assert trees[0] == trees[1]
        assert trees[0] != trees[2] != trees[3]

    def test_a_model_is_pruned_on_what_it_says_of_other_rows(self):
        model, x, other = classifier(), table(), table(80, seed=9)
        classes = [(model.predict(rows, verbose=0)[:, 0] > 0.5) * 1 for rows in (x, other)]
        by_model = SurrogateTree.fit(model, x, prune_on=other)
        by_classes = SurrogateTree.from_predictions(x, classes[0], prune_on=(other, classes[1]))
        assert by_model.leaves > 2
        assert by_model.to_dict() == by_classes.to_dict()
        assert by_model.fidelity(other) == pytest.approx(by_model.agreement)

    def test_the_other_rows_may_have_a_class_more(self):
        x = np.float32([[0]] * 10 + [[1]] * 10)
        y = np.array([0] * 10 + [1] * 10)
        tree = SurrogateTree.from_predictions(x, y, prune_on=(x, np.where(y == 0, 2, y)))
        assert tree.agreement == 0.5


# Heads that say the same


def _separate(x):
    return layers.Activation("softmax")(head(3)(hidden(x)))


def _raw(x):
    return ops.softmax(head(3)(hidden(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(6, "tanh", kernel_initializer=keras.initializers.GlorotUniform(3))
        self.last = head(3)

    def call(self, x):
        return ops.softmax(self.last(self.first(x)))


def subclassed():
    model = Subclassed()
    model(table(2))
    return model


def two_units(activation):
    """Two scores whose difference is that of `head(1)`."""

    def body(x):
        z = head(1)(hidden(x))
        return layers.Activation(activation)(ops.concatenate([-0.5 * z, 0.5 * z], axis=-1))

    return functional((3,), body)


BINARY = {
    "logit": lambda: classifier(1, None),
    "sigmoid": lambda: classifier(1, "sigmoid"),
    "separate": lambda: functional(
        (3,), lambda x: layers.Activation("sigmoid")(head(1)(hidden(x)))
    ),
    "squeezed": lambda: functional(
        (3,), lambda x: ops.squeeze(head(1, "sigmoid")(hidden(x)), axis=-1)
    ),
    "sliced": lambda: functional((3,), lambda x: head(1, "sigmoid")(hidden(x))[:, 0]),
    "softmax": lambda: two_units("softmax"),
    "log_softmax": lambda: two_units("log_softmax"),
    "logits": lambda: two_units(None),
}
MULTICLASS = {
    "softmax": lambda: classifier(3, "softmax"),
    "logits": lambda: classifier(3, None),
    "separate": lambda: functional((3,), _separate),
    "raw": lambda: functional((3,), _raw),
    "subclassed": subclassed,
}


class TestHeads:
    @pytest.mark.parametrize("name", BINARY)
    def test_binary(self, name):
        x = table()
        model = BINARY[name]()
        tree = SurrogateTree.fit(model, x)
        logit = classifier(1, None).predict(x, verbose=0)[:, 0]
        assert 50 < (logit > 0).sum() < 250
        expected = SurrogateTree.from_predictions(x, logit > 0)
        assert tree.leaves > 2
        assert tree.to_dict() == expected.to_dict()

    @pytest.mark.parametrize("name", MULTICLASS)
    def test_multiclass(self, name):
        x = table()
        tree = SurrogateTree.fit(MULTICLASS[name](), x)
        predicted = classifier(3, None).predict(x, verbose=0).argmax(axis=1)
        assert set(predicted) == {0, 1, 2}
        expected = SurrogateTree.from_predictions(x, predicted)
        assert tree.leaves > 3
        assert tree.to_dict() == expected.to_dict()

    def test_a_class_that_is_never_predicted_has_a_place(self):
        model = functional(
            (2,),
            lambda x: ops.softmax(ops.concatenate([x, ops.zeros_like(x[:, :1]) - 100], axis=1)),
        )
        tree = SurrogateTree.fit(model, table(columns=2))
        assert tree.counts.shape[1] == 3
        assert tree.class_names == ("0", "1", "2")

    def test_batch_size_changes_nothing(self):
        model, x = classifier(3, "softmax"), table()
        trees = [SurrogateTree.fit(model, x, batch_size=size).to_dict() for size in (7, 300)]
        assert trees[0] == trees[1]

    def test_a_fixed_batch_size(self):
        inputs = keras.Input((3,), batch_size=8)
        model = keras.Model(inputs, head(1, "sigmoid")(hidden(inputs)))
        x = table(301)
        assert SurrogateTree.fit(model, x).to_dict() == (
            SurrogateTree.fit(classifier(), x).to_dict()
        )

    def test_the_model_stays_as_it_is(self):
        model = keras.Sequential(
            [
                keras.Input((3,)),
                layers.BatchNormalization(),
                layers.Dropout(0.5),
                layers.Dense(1, "sigmoid"),
            ]
        )
        before = model.get_weights()
        first = SurrogateTree.fit(model, table()).to_dict()
        assert first == SurrogateTree.fit(model, table()).to_dict()
        assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.fixture(scope="module")
def model():
    return classifier(3, "softmax")


@pytest.fixture(scope="module")
def tree(model):
    return SurrogateTree.fit(model, table())


class TestUse:
    def test_predict_and_fidelity_on_new_rows(self, model, tree):
        fresh = table(500, seed=7)
        root = tree.to_dict()["root"]
        answers = np.array([way(root, row)[0] for row in fresh])
        assert (tree.predict(fresh) == answers).all()
        says = model.predict(fresh, verbose=0).argmax(axis=1)
        assert 0.5 < np.mean(answers == says) < 1
        assert tree.fidelity(fresh) == pytest.approx(np.mean(answers == says))

    def test_fidelity_of_a_tree_of_predictions(self):
        x = table()
        tree = SurrogateTree.from_predictions(x, noisy(x))
        assert tree.fidelity(x, noisy(x)) == np.mean(tree.predict(x) == noisy(x)) < 1
        with pytest.raises(ValueError, match="knows no model"):
            tree.fidelity(x)

    def test_to_dict_is_json(self, tree):
        described = tree.to_dict()
        assert json.loads(json.dumps(described)) == described
        assert described["rows"] == 300
        assert described["leaves"] == tree.leaves
        assert described["depth"] == tree.depth
        assert described["average_path_length"] == tree.average_path_length
        assert described["fidelity"] == tree.agreement
        nodes = [described["root"]]
        for node in nodes:  # grows
            assert node["rows"] == sum(node["counts"])
            nodes += [node["left"], node["right"]] if "left" in node else []
        assert len(nodes) == 2 * tree.leaves - 1

    def test_names(self, tree):
        assert tree.feature_names == ("x0", "x1", "x2")
        assert tree.class_names == ("0", "1", "2")
        named = tree.named(["a", "b", "c"], class_names=["no", "yes", "maybe"])
        assert named.to_dict()["features"] == ["a", "b", "c"]
        assert tree.to_dict(class_names="xyz")["classes"] == ["x", "y", "z"]
        assert tree.feature_names == ("x0", "x1", "x2")

    def test_wrong_numbers_of_names(self, model, tree):
        with pytest.raises(ValueError, match=r"Expected 3 names as `feature_names`.*2 names"):
            tree.named(["a", "b"])
        with pytest.raises(ValueError, match=r"Expected 3 names as `class_names`.*1 names"):
            tree.to_dict(class_names=["a"])
        with pytest.raises(ValueError, match="feature_names"):
            SurrogateTree.fit(model, table(), feature_names=["a"])

    def test_names_of_a_data_frame(self, model):
        class Frame:
            """What the library may ask of a data frame."""

            def __init__(self, values):
                self.values, self.columns = values, ["age", "sex", "dose"]
                self.shape = values.shape

            def __array__(self, dtype=None, copy=None):
                return self.values if dtype is None else self.values.astype(dtype)

            def __len__(self):
                return len(self.values)

        frame = Frame(table())
        tree = SurrogateTree.fit(model, frame)
        assert tree.feature_names == ("age", "sex", "dose")
        assert (tree.predict(frame) == tree.predict(frame.values)).all()
        by_predictions = SurrogateTree.from_predictions(frame, noisy(frame.values))
        assert by_predictions.feature_names == ("age", "sex", "dose")
        assert SurrogateTree.fit(model, frame, feature_names="abc").feature_names == (*"abc",)

    def test_repr(self):
        x = np.float32([[0]] * 10 + [[1]] * 10)
        tree = SurrogateTree.from_predictions(x, x[:, 0].astype(int))
        assert repr(tree) == (
            "SurrogateTree(average_path_length=1, leaves=2, depth=1, agreement=1)"
        )


class TestSequences:
    def series(self, rows=60, steps=5, seed=0):
        return np.random.default_rng(seed).normal(size=(rows, steps, 2)).astype(np.float32)

    def test_every_time_step_is_a_row(self):
        model = functional((5, 2), lambda x: head(3, "softmax")(hidden(x)))
        x = self.series()
        tree = SurrogateTree.fit(model, x, prune_on=x)
        steps = x.reshape(-1, 2)
        says = model.predict(x, verbose=0).argmax(axis=-1)
        expected = SurrogateTree.from_predictions(
            steps, says.ravel(), prune_on=(steps, says.ravel())
        )
        assert tree.leaves > 2
        assert tree.to_dict() == expected.to_dict()
        assert tree.predict(x).shape == (60, 5)
        assert (tree.predict(x).ravel() == expected.predict(steps)).all()
        assert tree.fidelity(x) == pytest.approx(np.mean(tree.predict(x) == says))
        assert tree.feature_names == ("x0", "x1")

    def test_lengths_may_be_free(self):
        model = functional((None, 2), lambda x: head(1, "sigmoid")(hidden(x)))
        x = self.series()
        assert SurrogateTree.fit(model, x).counts[0].sum() == 300
        assert SurrogateTree.fit(model, x).predict(x[:, :3]).shape == (60, 3)

    def masked(self):
        return keras.Sequential(
            [
                keras.Input((5, 2)),
                layers.Masking(),
                layers.GRU(4, return_sequences=True, kernel_initializer="random_normal"),
                head(1, "sigmoid", scale=6.0),
            ]
        )

    def test_masked_steps_are_not_counted(self):
        model, x = self.masked(), self.series()
        lengths = np.arange(60) % 4 + 2
        here = np.arange(5)[None] < lengths[:, None]
        x[~here] = 0
        tree = SurrogateTree.fit(model, x, prune_on=x)
        says = model.predict(x, verbose=0)[..., 0] > 0.5
        expected = SurrogateTree.from_predictions(
            x[here], says[here], prune_on=(x[here], says[here])
        )
        assert tree.counts[0].sum() == lengths.sum()
        assert tree.leaves > 2
        assert tree.to_dict() == expected.to_dict()
        assert tree.predict(x).shape == (60, 5)
        assert tree.fidelity(x) == pytest.approx(np.mean((tree.predict(x) == says)[here]))

    def test_steps_of_a_series_are_held_back_together(self):
        """Each series has a number of its own: none that was grown on helps with the others."""
        x = np.repeat(np.arange(20, dtype=np.float32)[:, None, None], 10, axis=1)
        alternating = functional((10, 1), lambda x: ops.sigmoid(ops.cos(np.pi * x)))
        tree = SurrogateTree.fit(alternating, x, min_samples_leaf=1)
        shared = SurrogateTree.from_predictions(
            x.reshape(-1, 1), x.reshape(-1).astype(int) % 2 == 0, min_samples_leaf=1
        )
        assert shared.agreement == 1
        assert tree.agreement < 1

    def test_a_series_with_one_prediction_is_a_row(self):
        model = functional((5, 2), lambda x: head(1, "sigmoid")(hidden(layers.Flatten()(x))))
        x = self.series(200)
        tree = SurrogateTree.fit(model, x)
        flat = x.reshape(200, 10)
        expected = SurrogateTree.from_predictions(flat, model.predict(x, verbose=0)[:, 0] > 0.5)
        assert tree.counts.tolist() == expected.counts.tolist()
        assert tree.feature.tolist() == expected.feature.tolist()
        assert tree.feature_names[:3] == ("x0[0]", "x1[0]", "x0[1]")
        assert tree.predict(x).shape == (200,)


class TestLayers:
    def test_units_of_a_dense_layer(self):
        inputs = keras.Input((3,))
        units = layers.Dense(4, "tanh", name="units")(inputs)
        model = keras.Model(inputs, head(1, "sigmoid")(units))
        x = table()
        tree = SurrogateTree.fit(model, x, layer="units")
        values = keras.Model(inputs, units).predict(x, verbose=0)
        expected = SurrogateTree.from_predictions(values, model.predict(x, verbose=0)[:, 0] > 0.5)
        assert tree.counts.tolist() == expected.counts.tolist()
        assert tree.feature.tolist() == expected.feature.tolist()
        assert tree.feature_names == tuple(f"units[{i}]" for i in range(4))
        assert tree.fidelity(x) == pytest.approx(
            expected.fidelity(values, tree.reader.read(x).classes)
        )

    def test_maps_are_averaged(self):
        inputs = keras.Input((6, 5, 1))
        maps = layers.Conv2D(3, 3, name="maps")(inputs)
        model = keras.Model(inputs, head(2, "softmax")(layers.Flatten()(maps)))
        x = np.random.default_rng(0).normal(size=(120, 6, 5, 1)).astype(np.float32)
        tree = SurrogateTree.fit(model, x, layer="maps")
        values = keras.Model(inputs, maps).predict(x, verbose=0).mean(axis=(1, 2))
        expected = SurrogateTree.from_predictions(
            values, model.predict(x, verbose=0).argmax(axis=1)
        )
        assert tree.counts.shape[1] == 2
        assert tree.counts.tolist() == expected.counts.tolist()
        assert tree.threshold == pytest.approx(expected.threshold, abs=1e-5)

    def test_a_path_leads_into_nested_models(self):
        inner = keras.Sequential(
            [keras.Input((3,)), layers.Dense(4, "tanh", name="units")], name="body"
        )
        model = functional((3,), lambda x: head(1, "sigmoid")(inner(x)))
        tree = SurrogateTree.fit(model, table(), layer="body/units")
        assert tree.feature_names[0] == "body/units[0]"

    def test_units_at_each_time_step(self):
        inputs = keras.Input((5, 2))
        units = layers.Dense(3, name="units")(inputs)
        model = keras.Model(inputs, head(1, "sigmoid")(units))
        x = TestSequences().series()
        tree = SurrogateTree.fit(model, x, layer="units")
        assert tree.counts[0].sum() == 300
        assert len(tree.feature_names) == 3

    def test_tokens_by_the_units_of_a_layer(self):
        inputs = keras.Input((4,), dtype="int32")
        mean = layers.GlobalAveragePooling1D(name="mean")(layers.Embedding(9, 3)(inputs))
        model = keras.Model(inputs, head(1, "sigmoid")(mean))
        x = np.random.default_rng(0).integers(0, 9, size=(100, 4))
        assert SurrogateTree.fit(model, x, layer="mean").counts[0].sum() == 100

    def test_several_inputs_are_columns_side_by_side(self):
        inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((1,), name="a")}
        joined = layers.Concatenate()([inputs["a"], inputs["b"]])
        model = keras.Model(inputs, head(1, "sigmoid")(hidden(joined)))
        x = table()
        named = {"b": x[:, 1:], "a": x[:, :1]}
        tree = SurrogateTree.fit(model, named)
        expected = SurrogateTree.from_predictions(x, model.predict(named, verbose=0)[:, 0] > 0.5)
        assert tree.counts.tolist() == expected.counts.tolist()
        assert tree.leaves > 2
        says = model.predict(named, verbose=0)[:, 0] > 0.5
        assert tree.fidelity(named) == pytest.approx(np.mean(tree.predict(named) == says))


class TestBadInput:
    def test_tokens(self):
        model = functional(
            (4,),
            lambda x: layers.Dense(1)(layers.Flatten()(layers.Embedding(9, 3)(x))),
            dtype="int32",
        )
        with pytest.raises(ValueError, match=r"token ids.*layer="):
            SurrogateTree.fit(model, np.ones((30, 4), int))

    def test_pictures(self):
        model = functional((6, 5, 1), lambda x: layers.Dense(1)(layers.Flatten()(x)))
        with pytest.raises(ValueError, match=r"tree over pixels explains nothing.*layer="):
            SurrogateTree.fit(model, np.ones((30, 6, 5, 1)))

    def test_two_outputs(self):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(2)(inputs)])
        with pytest.raises(ValueError, match=r"one output of class scores.*2 outputs"):
            SurrogateTree.fit(model, table())

    def test_a_map_of_predictions(self):
        model = functional((6, 5, 1), layers.Conv2D(2, 1, name="map"))
        with pytest.raises(ValueError, match=r"class scores \[B, C\]"):
            SurrogateTree.fit(model, np.ones((30, 6, 5, 1)), layer="map")

    @pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
    def test_a_softmax_of_one_unit(self):
        model = functional((3,), layers.Dense(1))
        model.layers[-1].activation = keras.activations.softmax
        with pytest.raises(ValueError, match="softmax over one unit"):
            SurrogateTree.fit(model, table())

    def test_a_sigmoid_of_many_units(self):
        with pytest.raises(ValueError, match="sigmoid over 3 units"):
            SurrogateTree.fit(classifier(3, "sigmoid"), table())

    def test_an_unbuilt_model(self):
        with pytest.raises(ValueError, match="built"):
            SurrogateTree.fit(keras.Sequential([layers.Dense(1)]), table())

    def test_no_model(self):
        with pytest.raises((TypeError, ValueError), match=r"keras.Model"):
            SurrogateTree.fit("model", table())

    def test_too_few_rows(self):
        with pytest.raises(ValueError, match=r"min_samples_leaf=5 .*5 rows, 4 of them"):
            SurrogateTree.fit(classifier(), table(5))

    def test_other_shapes(self):
        with pytest.raises(ValueError, match="Expected `x` of shape"):
            SurrogateTree.fit(classifier(), table(columns=4))
        with pytest.raises(ValueError, match="Expected `x` of shape"):
            SurrogateTree.fit(classifier(), table(), prune_on=table(columns=2))
        tree = SurrogateTree.from_predictions(table(), noisy(table()))
        with pytest.raises(ValueError, match=r"Expected rows \[N, 3\]"):
            tree.predict(table(columns=4))

    def test_numbers_that_are_not_finite(self):
        x = table()
        x[3, 1] = np.nan
        with pytest.raises(ValueError, match="row 3"):
            SurrogateTree.fit(classifier(), x)
        with pytest.raises(ValueError, match="row 3"):
            SurrogateTree.from_predictions(x, noisy(table()))

    def test_a_layer_that_is_not_there(self):
        with pytest.raises(ValueError, match="layer"):
            SurrogateTree.fit(classifier(), table(), layer="nowhere")

    @pytest.mark.parametrize("y", [[0.5] * 300, [-1] * 300, [[0]] * 300, [0] * 299])
    def test_predictions_that_are_no_classes(self, y):
        with pytest.raises(ValueError, match="classes"):
            SurrogateTree.from_predictions(table(), np.array(y))

    @pytest.mark.parametrize("wrong", [{"min_samples_leaf": 0}, {"max_leaf_nodes": 1}])
    def test_counts(self, wrong):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}`"):
            SurrogateTree.from_predictions(table(), noisy(table()), **wrong)
