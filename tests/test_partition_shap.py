"""PartitionSHAP: Owen values by their definition, hierarchies, budgets, and shap's own maskers."""

import functools
import os

os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than these tests

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.cluster import hierarchy

from keras_explain import features
from keras_explain.explainers import partition_shap
from keras_explain.explainers.partition_shap import PartitionSHAP
from tests import naive

shap = pytest.importorskip("shap")

SHAPE = (6,)
ENOUGH = 10_000


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def network(shape, outputs=3):
    stack = [layers.Flatten(), layers.Dense(6, activation="tanh"), layers.Dense(outputs)]
    return naive.randomize(keras.Sequential([keras.Input(shape), *stack]))


@pytest.fixture(scope="module")
def table():
    return network(SHAPE)


@pytest.fixture(scope="module")
def pictures():
    return network((4, 5, 1))


X = numbers(3, *SHAPE)
BACKGROUND = numbers(5, *SHAPE, seed=1)


# Owen values by their definition


def owen(value, tree):
    """The Owen values of nested pairs of features; `value` is of a set of them."""
    found, value = {}, functools.cache(value)

    def members(node):
        return {node} if isinstance(node, int) else members(node[0]) | members(node[1])

    def go(node, others, weight):
        if isinstance(node, int):
            change = value(others | {node}) - value(others)
            found[node] = found.get(node, 0.0) + weight * change
            return
        for one, other in (node, node[::-1]):
            go(one, others, weight / 2)
            go(one, others | members(other), weight / 2)

    go(tree, frozenset(), 1.0)
    return np.array([found[i] for i in range(len(found))])


def pairs_of(linkage):
    """A hierarchy of SciPy's as nested pairs."""
    nodes = list(range(len(linkage) + 1))
    for left, right, *_ in linkage:
        nodes.append((nodes[int(left)], nodes[int(right)]))
    return nodes[-1]


def halves(places):
    """Places `[(row, column), ...]`, by number, halved along the longest side."""
    if len(places) == 1:
        return next(iter(places))
    sides = [[at[axis] for at in places.values()] for axis in range(2)]
    extents = [max(side) - min(side) for side in sides]
    axis = int(np.argmax(extents))
    middle = (max(sides[axis]) + min(sides[axis])) / 2
    first = {i: at for i, at in places.items() if at[axis] <= middle}
    return halves(first), halves({i: at for i, at in places.items() if i not in first})


def grid(*sides):
    return dict(enumerate(np.ndindex(sides)))


def scores_of(model, target):
    """The mean score of rows, float64."""
    return lambda rows: float(naive.Net([model]).score(np.asarray(rows), target).mean())


def check(explanation, model, x, fills, labels, tree, target):
    """Compares with Owen values where features, by the labels of places, are filled."""
    for row, sample in enumerate(x):
        score = scores_of(model, target)

        def value(present, sample=sample, score=score):
            seen = np.isin(labels, [-1, *present]).reshape(sample.shape)
            return score([np.where(seen, sample, fill) for fill in fills])

        values = owen(value, tree)
        expected = np.where(labels < 0, 0, values[labels])
        naive.close(explanation.values[row], expected.reshape(explanation.values[row].shape))
        naive.close(explanation.extras["base_values"][row], value(set()))
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-5


CLUSTERING = hierarchy.linkage(numbers(6, 2, seed=4), "average")


@pytest.mark.parametrize("target", [0, 2])
def test_a_given_hierarchy(table, target):
    explainer = PartitionSHAP(samples=ENOUGH, clustering=CLUSTERING, baseline=0.3)
    explanation = explainer(table, X, target)
    check(explanation, table, X, [0.3], np.arange(6), pairs_of(CLUSTERING), target)


def test_columns_are_halved_without_a_background(table):
    explanation = PartitionSHAP(samples=ENOUGH)(table, X, 1)
    tree = (((0, 1), 2), ((3, 4), 5))
    check(explanation, table, X, [0.0], np.arange(6), tree, 1)


@pytest.mark.parametrize("rows", [5, 3])
def test_columns_are_clustered_by_correlation_over_a_background(rows, table):
    background = BACKGROUND[:rows]
    explanation = PartitionSHAP(samples=ENOUGH, background=background)(table, X, 1)
    distances = 1 - np.corrcoef(background.T.astype(np.float64))[np.triu_indices(6, 1)]
    tree = pairs_of(hierarchy.linkage(distances, "single"))
    check(explanation, table, X, background, np.arange(6), tree, 1)


def test_groups_and_what_is_never_hidden(table):
    explainer = PartitionSHAP(samples=ENOUGH, groups=[0, 0, 3, -1, 3, 5], background=BACKGROUND)
    explanation = explainer(table, X, 1)
    labels = np.array([0, 0, 1, -1, 1, 2])
    check(explanation, table, X, BACKGROUND, labels, (0, (1, 2)), 1)  # at 0.5, 3 and 5
    np.testing.assert_array_equal(explanation.extras["features"], [labels] * 3)


def test_pictures_are_halved_along_their_longest_side(pictures):
    x = numbers(2, 4, 5, 1, seed=2)
    explanation = PartitionSHAP(samples=ENOUGH)(pictures, x, 1)
    assert explanation.values.shape == (2, 4, 5)
    check(explanation, pictures, x, [0.0], np.arange(20), halves(grid(4, 5)), 1)


def test_series_and_windows():
    model, x = network((6, 2)), numbers(2, 6, 2)
    explainer = PartitionSHAP(samples=ENOUGH, features=features.Windows(2))
    labels = np.repeat([0, 1, 2], 2)
    explanation = explainer(model, x, 1)
    assert explanation.values.shape == (2, 6)
    check_places(explanation, model, x, labels, ((0, 1), 2))
    each = PartitionSHAP(samples=ENOUGH)(model, x, 1)
    check_places(each, model, x, np.arange(6), (((0, 1), 2), ((3, 4), 5)))


def check_places(explanation, model, x, labels, tree):
    for row, sample in enumerate(x):

        def value(present, sample=sample):
            return scores_of(model, 1)([sample * np.isin(labels, list(present))[:, None]])

        naive.close(explanation.values[row], owen(value, tree)[labels])


def test_token_ids_and_padding():
    ids = keras.Input((None,), dtype="int32")
    h = ops.sum(layers.Embedding(9, 4)(ids), axis=1)
    model = naive.randomize(keras.Model(ids, layers.Dense(3)(layers.Dense(4, "tanh")(h))))
    x = np.array([[3, 4, 5, 0], [6, 0, 0, 0], [7, 8, 3, 2]])
    what = features.Tokens(mask=1)
    explanation = PartitionSHAP(samples=ENOUGH, features=what)(model, x, 1)

    def value_of(row):
        def value(present):
            masked = [t if i in present or t == 0 else 1 for i, t in enumerate(x[row])]
            return float(model(np.array([masked]))[0, 1])

        return value

    naive.close(explanation.values[0, :3], owen(value_of(0), ((0, 1), 2)))
    naive.close(explanation.values[1, :1], owen(value_of(1), 0))
    naive.close(explanation.values[2], owen(value_of(2), ((0, 1), (2, 3))))
    assert not explanation.values[x == 0].any()
    many = PartitionSHAP(samples=2, features=what)(
        model, np.tile(x, (7, 1)), np.tile([0, 2], (21, 1))
    )
    for i, index in enumerate((0, 2)):  # rows of other lengths and classes stay in their places
        one = PartitionSHAP(samples=2, features=what)(model, x, index)
        naive.close(many.values[:, i], np.tile(one.values, (7, 1)))


def test_several_inputs_are_parted_first():
    first, second = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    h = layers.Dense(4, activation="tanh")(layers.Concatenate()([first, second]))
    model = naive.randomize(keras.Model({"a": first, "b": second}, layers.Dense(2)(h)))
    x = {"a": numbers(1, 2), "b": numbers(1, 3)}
    explanation = PartitionSHAP(samples=ENOUGH)(model, x, 1)

    def value(present):
        seen = np.isin(np.arange(5), list(present))
        masked = {"a": x["a"] * seen[:2], "b": x["b"] * seen[2:]}
        return float(model(masked)[0, 1])

    expected = owen(value, ((0, 1), ((2, 3), 4)))
    naive.close(explanation.values["a"][0], expected[:2])
    naive.close(explanation.values["b"][0], expected[2:])


# Against shap's own maskers


def test_it_agrees_with_shap_on_a_table(table):
    masker = shap.maskers.Partition(BACKGROUND, clustering="correlation")
    explainer = shap.explainers.Partition(lambda rows: table(rows).numpy(), masker)
    expected = explainer(X, max_evals=ENOUGH, silent=True)
    explanation = PartitionSHAP(samples=ENOUGH, background=BACKGROUND)(
        table, X, np.tile(np.arange(3), (3, 1))
    )
    naive.close(explanation.values, np.moveaxis(expected.values, -1, 1))
    base = np.broadcast_to(expected.base_values, (3, 3))
    naive.close(explanation.extras["base_values"], base)


@pytest.mark.parametrize("samples", [2, 3, 20, 45, 90, ENOUGH])
def test_it_agrees_with_shap_on_pictures(pictures, samples):
    x = numbers(2, 4, 5, 1, seed=2)
    masker = shap.maskers.Image(np.full((4, 5, 1), 0.2))
    explainer = shap.explainers.Partition(lambda rows: pictures(rows).numpy()[:, 1], masker)
    expected = explainer(x, max_evals=samples, batch_size=16, silent=True)
    explanation = PartitionSHAP(samples=samples, baseline=0.2)(pictures, x, 1)
    naive.close(explanation.values, expected.values[..., 0])


def test_missing_numbers_are_clustered_as_shap_does():
    background = numbers(40, 6, seed=5).astype(np.float64)
    background[::7, 2] = np.nan
    found = partition_shap._by_correlation(background)
    expected = shap.utils.hclust(background, metric="correlation")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_constant_columns_are_clustered_last():
    background = numbers(40, 6, seed=5).astype(np.float64) + numbers(40, 1, seed=6)
    background[:, 1] = 0.1  # which is not exactly the mean of 40 of it
    background[:, 4] = np.nan
    found = partition_shap._by_correlation(background)
    assert np.isfinite(found).all()
    assert [{1, 4} & set(row[:2]) != set() for row in found] == [False] * 3 + [True] * 2
    assert found[3:, 2].tolist() == [1, 1]


# Budgets


def test_what_there_is_no_budget_for_shares_equally(pictures):
    x = numbers(2, 4, 5, 1, seed=2)
    explanation = PartitionSHAP(samples=3)(pictures, x, 1)
    for half in (explanation.values[:, :, :3], explanation.values[:, :, 3:]):
        np.testing.assert_allclose(half, np.broadcast_to(half[:, :1, :1], half.shape), rtol=1e-6)
    assert (explanation.values[:, 0, 0] != explanation.values[:, 0, 4]).all()
    for samples in (1, 2):
        whole = PartitionSHAP(samples=samples)(pictures, x, 1)
        score = whole.scores - whole.extras["base_values"]
        naive.close(whole.values, np.tile(score[:, None, None] / 20, (1, 4, 5)))


@pytest.mark.parametrize("samples", [1, 3, 10, 40, 100])
def test_it_is_additive_on_any_budget_and_keeps_to_it(pictures, samples, monkeypatch):
    x, rows = numbers(2, 4, 5, 1, seed=2), []
    search = PartitionSHAP.search

    def counting(self, x, share, reduced):
        def counted(passes):
            rows.append(len(passes["present"]))
            return reduced(passes)

        return search(self, x, share, counted)

    monkeypatch.setattr(PartitionSHAP, "search", counting)
    explanation = PartitionSHAP(samples=samples)(pictures, x, 1)
    assert max(2, samples) * 2 <= sum(rows) <= 2 * (max(2, samples) + 1)
    total = explanation.values.sum(axis=(1, 2), dtype=np.float64)
    naive.close(total, explanation.scores - explanation.extras["base_values"])
    assert np.abs(explanation.extras["convergence_delta"]).max() < 1e-5


# Axioms


def test_of_a_linear_model_the_weights_times_the_change():
    model = naive.randomize(keras.Sequential([keras.Input(SHAPE), layers.Dense(2)]))
    explanation = PartitionSHAP(samples=ENOUGH, baseline=0.5)(model, X, 1)
    naive.close(explanation.values, model.get_weights()[0][:, 1] * (X - 0.5))


def test_a_feature_that_does_nothing_has_none(table):
    model = keras.models.clone_model(table)
    kernel, *rest = table.get_weights()
    kernel[2] = 0
    model.set_weights([kernel, *rest])
    explanation = PartitionSHAP(samples=ENOUGH)(model, X, 1)
    np.testing.assert_allclose(explanation.values[:, 2], 0, atol=1e-7)
    assert (np.abs(explanation.values[:, [0, 1, 3, 4, 5]]) > 1e-6).all()


def test_a_constant_model_has_no_attributions():
    model = keras.Sequential([keras.Input(SHAPE), layers.Dense(2, kernel_initializer="zeros")])
    with pytest.warns(UserWarning, match="zero everywhere for all samples"):
        explanation = PartitionSHAP(samples=20)(model, X, 1)
    np.testing.assert_array_equal(explanation.values, np.zeros_like(X))


def test_one_feature_has_it_all(table):
    explanation = PartitionSHAP(groups=[0] * 6)(table, X, 1)
    change = naive.Net([table]).score(X, 1) - naive.Net([table]).score(0 * X, 1)
    naive.close(explanation.values, np.tile(change[:, None], 6))


# What it does not depend on


def test_batches_seeds_and_other_classes_make_no_difference(table):
    explainer = PartitionSHAP(samples=12, background=BACKGROUND)
    first = explainer(table, X, 1)
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"seed": 7}):
        naive.close(explainer(table, X, 1, **options).values, first.values)
    naive.close(explainer(table, X[1:2], 1).values, first.values[1:2])
    both = explainer(table, X, np.tile([2, 1], (3, 1)))
    assert both.values.shape == (3, 2, 6)
    naive.close(both.values[:, 1], first.values)
    naive.close(both.values[:, 0], explainer(table, X, 2).values)


# Bad input


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_that_make_no_sense_are_refused(samples):
    with pytest.raises(ValueError, match="`samples` to be a whole number of 1 or more"):
        PartitionSHAP(samples=samples)


def test_a_hierarchy_of_another_number_of_features_is_refused(table):
    explainer = PartitionSHAP(clustering=CLUSTERING, groups=[0, 0, 1, 1, 2, 2])
    with pytest.raises(
        ValueError, match=r"clustering of 3 features, of shape \(2, 4\). Received: .* \(5, 4\)"
    ):
        explainer(table, X)


def test_a_hierarchy_that_is_none_is_refused(table):
    twice = CLUSTERING.copy()
    twice[1, :2] = twice[0, :2]
    with pytest.raises(ValueError, match="in each row two clusters made before"):
        PartitionSHAP(clustering=twice)(table, X)


def test_a_score_that_is_not_defined_where_features_are_hidden_is_refused():
    x = keras.Input(SHAPE)
    model = naive.randomize(keras.Model(x, layers.Dense(2)(ops.log(ops.abs(x)) * x)))
    with pytest.raises(ValueError, match="Expected finite scores where features are hidden"):
        PartitionSHAP(samples=20)(model, X, 1)


def test_the_bar_counts_coalitions(table, capsys):
    PartitionSHAP(samples=10)(table, X, 1, progress=True)
    assert "PartitionSHAP" in (shown := capsys.readouterr().err)
    assert "/30" in shown
