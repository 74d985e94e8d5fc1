"""Beside the shap package: Shapley values agree with its own, and its plots draw explanations."""

import os

os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling takes longer than these tests

import functools
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from matplotlib import pyplot as plt
from scipy import stats

import keras_explain as kx
from keras_explain import ExactShapley, KernelSHAP, ShapleySampling, features
from keras_explain.explainers.partition_shap import PartitionSHAP
from tests import naive

shap = pytest.importorskip("shap")

NAMES = ["radius", "texture", "perimeter", "area", "smoothness"]


# Shapley values of a network trained on real data


class Trained:
    """A network that tells benign from malignant tumours by the first columns of the table."""

    def __init__(self, columns):
        from sklearn.datasets import load_breast_cancer
        from sklearn.preprocessing import StandardScaler

        table, labels = load_breast_cancer(return_X_y=True)
        table = StandardScaler().fit_transform(table)[:, :columns].astype("float32")
        keras.utils.set_random_seed(0)
        stack = [layers.Dense(12, activation="tanh"), layers.Dense(1, activation="sigmoid")]
        self.model = keras.Sequential([keras.Input((columns,)), *stack])
        self.model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
        history = self.model.fit(table, labels, batch_size=64, epochs=8, verbose=0)
        assert history.history["accuracy"][-1] > 0.9
        self.x, self.background = table[[0, 50, 100, 200]], table[300:316]

    def logit(self, rows):
        """In NumPy: the package is not part of what it is compared with."""
        kernel, bias, out, last = self.model.get_weights()
        hidden = np.tanh(np.asarray(rows, np.float64) @ kernel + bias)
        return (hidden @ out + last)[:, 0]


trained = functools.cache(Trained)


def assert_agree(explanation, values, base, tolerance):
    """Differences are at most a share of the largest value, ranks correlate above 0.95."""
    naive.close(explanation.values, values, tolerance)
    np.testing.assert_allclose(explanation.extras["base_values"], base, rtol=1e-4)
    for row, expected in zip(explanation.values, values, strict=True):
        assert stats.spearmanr(row, expected).statistic > 0.95


@functools.cache
def exact():
    of = trained(10)
    explainer = shap.explainers.Exact(of.logit, shap.maskers.Independent(of.background))
    return explainer(of.x, silent=True)


def test_exact_values_are_those_of_shap():
    of, expected = trained(10), exact()
    explanation = ExactShapley(background=of.background)(of.model, of.x)
    assert_agree(explanation, expected.values, expected.base_values, 1e-4)


def test_the_regression_over_all_coalitions_is_exact():
    of, expected = trained(10), exact()
    explanation = KernelSHAP(background=of.background)(of.model, of.x)
    assert_agree(explanation, expected.values, expected.base_values, 1e-4)


def test_sampled_orders_are_within_their_standard_error():
    of, expected = trained(10), exact()
    explanation = ShapleySampling(samples=100, background=of.background)(of.model, of.x)
    assert_agree(explanation, expected.values, expected.base_values, 0.05)
    off = np.abs(explanation.values - expected.values)
    assert (off < 5 * explanation.extras["standard_error"] + 1e-5).all()


def assert_agree_but_for_sampling(ours, theirs):
    """The means over runs `[runs, n, M]` differ as far as the runs among themselves say."""
    mean, error = zip(
        *((np.mean(runs, 0), np.var(runs, 0, ddof=1) / len(runs)) for runs in (ours, theirs)),
        strict=True,
    )
    off = np.sqrt(np.mean((mean[0] - mean[1]) ** 2, axis=-1))
    expected = np.sqrt(np.mean(error[0] + error[1], axis=-1))
    assert (off < 2 * expected).all()
    assert (expected < 0.05 * np.abs(mean[1]).max(axis=-1)).all()
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert stats.spearmanr(one, other).statistic > 0.95


def test_thirty_features_by_regression():
    of = trained(30)
    explainer = shap.KernelExplainer(of.logit, of.background)
    ours, theirs = [], []
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002
        theirs.append(explainer.shap_values(of.x, nsamples=2108, l1_reg=False, silent=True))
        explanation = KernelSHAP(background=of.background)(of.model, of.x, seed=seed)
        ours.append(explanation.values)
    assert_agree_but_for_sampling(ours, theirs)
    base = explanation.extras["base_values"]
    np.testing.assert_allclose(base, np.full(4, explainer.expected_value), rtol=1e-4)


def test_thirty_features_by_orders():
    of = trained(30)
    masker = shap.maskers.Independent(of.background)
    ours, theirs = [], []
    for seed in range(4):
        explainer = shap.explainers.Permutation(of.logit, masker, seed=seed)
        theirs.append(explainer(of.x, max_evals=30 * 61, silent=True).values)
        sampling = ShapleySampling(samples=30, background=of.background)
        ours.append(sampling(of.model, of.x, seed=seed).values)
    assert_agree_but_for_sampling(ours, theirs)


# Explanations as shap's


def network(shape, outputs=3):
    stack = [layers.Flatten(), layers.Dense(6, activation="tanh"), layers.Dense(outputs)]
    return naive.randomize(keras.Sequential([keras.Input(shape), *stack]))


@functools.cache
def table(target=1, **options):
    x = naive.inputs((5,), rows=6)
    index = np.array(target) if isinstance(target, tuple) else target
    return kx.IntegratedGradients(steps=4)(network((5,)), x, index, **options)


BOTH = ((0, 2),) * 6


def assert_drawn():
    """Something was drawn, and can be rendered."""
    figure = plt.gcf()
    figure.canvas.draw()
    assert any(axes.has_data() for axes in figure.axes)
    plt.close("all")


def test_a_table():
    explanation = table()
    found = explanation.to_shap(feature_names=NAMES)
    assert found.values.dtype == np.float64
    np.testing.assert_array_equal(found.values, explanation.values)
    np.testing.assert_array_equal(found.data, explanation.x)
    np.testing.assert_array_equal(found.base_values, explanation.extras["base_values"])
    assert list(found.feature_names) == NAMES
    total = found.values.sum(axis=1) + found.base_values
    np.testing.assert_allclose(total, explanation.scores, atol=0.05)
    assert list(explanation.to_shap().feature_names) == [f"feature {i}" for i in range(5)]


def test_plots_of_a_table():
    found = table().to_shap(NAMES)
    for draw, shown in (
        (shap.plots.waterfall, found[0]),
        (shap.plots.bar, found),
        (shap.plots.bar, found[2]),
        (shap.plots.beeswarm, found),
    ):
        draw(shown, show=False)
        labels = [label.get_text() for axes in plt.gcf().axes for label in axes.get_yticklabels()]
        assert all(any(name in label for label in labels) for name in NAMES)
        assert_drawn()


def test_several_targets_are_outputs_of_shap():
    explanation = table(BOTH)
    found = explanation.to_shap(NAMES, class_names=["cat", "dog", "bird"])
    assert found.values.shape == (6, 5, 2)
    assert list(found.output_names) == ["cat", "bird"]
    np.testing.assert_array_equal(found.values, np.moveaxis(explanation.values, 1, -1))
    np.testing.assert_array_equal(found.base_values, explanation.extras["base_values"])
    bird = found[:, :, "bird"]
    np.testing.assert_array_equal(bird.values, explanation.values[:, 1])
    np.testing.assert_array_equal(bird.base_values, explanation.extras["base_values"][:, 1])
    shap.plots.waterfall(found[0, :, 1], show=False)
    assert_drawn()
    shap.plots.beeswarm(bird, show=False)
    assert_drawn()
    assert list(explanation.to_shap().output_names) == ["class 0", "class 2"]


def test_targets_that_differ_between_samples():
    target = ((0, 1), (1, 2)) * 3
    found = table(target).to_shap()
    assert found.values.shape == (6, 5, 2)
    assert found[1].values.shape == (5, 2)
    assert list(found[1].output_names) == ["class 1", "class 2"]
    shap.plots.waterfall(found[1, :, 0], show=False)
    assert_drawn()


def test_values_measured_from_nothing_have_a_base_of_zero():
    x = naive.inputs((5,))
    found = kx.Saliency()(network((5,)), x, 1).to_shap()
    np.testing.assert_array_equal(found.base_values, np.zeros(3))
    both = kx.Saliency()(network((5,)), x, np.array([[0, 1]] * 3)).to_shap()
    np.testing.assert_array_equal(both.base_values, np.zeros((3, 2)))


def test_columns_that_go_together_are_one():
    x = naive.inputs((5,))
    x[:, 1:4] = np.eye(3)[[2, 0, 1]]
    explanation = PartitionSHAP(groups=[0, 1, 1, 1, -1])(network((5,)), x, 1)
    found = explanation.to_shap(NAMES)
    assert list(found.feature_names) == ["radius", "texture + perimeter + area"]
    np.testing.assert_array_equal(found.values, explanation.values[:, [0, 1]])
    np.testing.assert_array_equal(found.data, np.stack([x[:, 0], [2, 0, 1]], axis=1))
    total = found.values.sum(axis=1) + found.base_values
    naive.close(total, explanation.scores)
    shap.plots.waterfall(found[0], show=False)
    assert_drawn()
    many = PartitionSHAP(groups=[0] * 5)(network((5,)), x, 1).to_shap()
    assert list(many.feature_names) == ["feature 0 + ... + feature 4"]


def test_a_series():
    x = naive.inputs((6, 2))
    explanation = PartitionSHAP(features=features.Windows(2))(network((6, 2)), x, 1)
    found = explanation.to_shap()
    assert list(found.feature_names) == ["step 0 + step 1", "step 2 + step 3", "step 4 + step 5"]
    np.testing.assert_array_equal(found.values, explanation.values[:, ::2])
    naive.close(found.data, x.reshape(3, 3, 4).mean(axis=-1))
    naive.close(found.values.sum(axis=1) + found.base_values, explanation.scores)
    each = kx.Saliency()(network((6, 2)), x, 1).to_shap()
    assert each.values.shape == (3, 12)
    assert list(each.feature_names[:2]) == ["step 0, 0", "step 0, 1"]
    shap.plots.bar(found, show=False)
    assert_drawn()


def reader():
    ids = keras.Input((None,), dtype="int32")
    h = ops.sum(layers.Embedding(9, 4)(ids), axis=1)
    return naive.randomize(keras.Model(ids, layers.Dense(3)(layers.Dense(4, "tanh")(h))))


WORDS = ["", "[UNK]", "good", "film", "bad"]


def split(texts):
    return [[WORDS.index(word) for word in text.split()] for text in texts]


def test_texts():
    what = features.Tokens(tokenizer=split, vocabulary=WORDS, mask=1)
    explanation = PartitionSHAP(features=what)(reader(), ["good good film", "bad"], 1)
    found = explanation.to_shap()
    np.testing.assert_array_equal(found.values, explanation.values)
    assert found.data.tolist() == [["good ", "good ", "film "], ["bad ", "", ""]]
    for shown in (found, found[0]):
        html = shap.plots.text(shown, display=False)
        assert "good" in html
        assert "film" in html
    both = PartitionSHAP(features=what)(reader(), ["good film"], [[0, 2]])
    html = shap.plots.text(both.to_shap(class_names=["dog", "cat", "bird"])[0], display=False)
    assert "bird" in html


def test_token_ids_without_words():
    explanation = PartitionSHAP()(reader(), np.array([[3, 4, 0], [5, 0, 0]]), 1)
    found = explanation.to_shap()
    assert found.data.tolist() == [["3 ", "4 ", "0 "], ["5 ", "0 ", "0 "]]
    assert "4" in shap.plots.text(found[0], display=False)


@functools.cache
def pictures():
    model = network((8, 10, 3))
    return model, np.abs(naive.inputs((8, 10, 3)))


def test_pictures_by_segments_add_up():
    model, x = pictures()
    labels = np.repeat(np.arange(10) // 4, 8).reshape(10, 8).T  # 4, 4 and 2 columns
    explanation = PartitionSHAP(features=features.Segments(labels=labels))(model, x, 1)
    found = explanation.to_shap()
    assert found.values.shape == (3, 8, 10, 1)
    sizes = np.array([32, 32, 16])[labels]
    naive.close(found.values[..., 0], explanation.values / sizes)
    naive.close(found.values.sum(axis=(1, 2, 3)) + found.base_values, explanation.scores)
    assert found.data.dtype == np.uint8
    assert found.data.shape == x.shape
    shap.plots.image(found, show=False)
    assert len(plt.gcf().axes) >= 6
    assert_drawn()


@pytest.mark.parametrize("rows", [2, 3])
def test_pictures_of_several_targets(rows):
    """With 3 rows, shap would take their channels for outputs."""
    model, x = pictures()
    target = np.array([[0, 1], [1, 2], [2, 0]])[:rows]
    explanation = kx.Saliency(absolute=False)(model, x[:rows], target)
    found = explanation.to_shap(class_names=["cat", "dog", "bird"])
    assert found.values.shape == (rows, 8, 10, 3, 2)
    shap.plots.image(found, show=False)
    titles = {axes.get_title() for axes in plt.gcf().axes} - {""}
    assert titles == ({"cat", "dog", "bird"} if rows == 2 else {"target 0", "target 1"})
    assert_drawn()


def test_pictures_with_channels_first(monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    x = np.abs(naive.inputs((3, 8, 10)))
    explanation = kx.Saliency()(network((3, 8, 10)), x, 1)
    found = explanation.to_shap()
    np.testing.assert_array_equal(found.values, np.moveaxis(explanation.values, 1, -1))
    assert found.data.shape == (3, 8, 10, 3)


def test_several_inputs_are_a_dict_by_name():
    first, second = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    h = layers.Dense(4, activation="tanh")(layers.Concatenate()([first, second]))
    model = naive.randomize(keras.Model({"a": first, "b": second}, layers.Dense(2)(h)))
    x = {"a": naive.inputs((2,)), "b": naive.inputs((3,))}
    explanation = PartitionSHAP()(model, x, 1)
    found = explanation.to_shap(feature_names={"b": ["u", "v", "w"]})
    assert list(found) == ["a", "b"]
    assert list(found["b"].feature_names) == ["u", "v", "w"]
    assert list(found["a"].feature_names) == ["feature 0", "feature 1"]
    total = sum(part.values.sum(axis=1) for part in found.values())
    naive.close(total + found["a"].base_values, explanation.scores)


def test_a_wrong_number_of_names_is_refused():
    with pytest.raises(ValueError, match=r"each of the 5 columns .* Received: 2"):
        table().to_shap(["a", "b"])


def test_without_the_shap_package_it_says_what_to_install(monkeypatch):
    explanation = table()
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match=r'pip install "keras-explanations\[shap\]"'):
        explanation.to_shap()
