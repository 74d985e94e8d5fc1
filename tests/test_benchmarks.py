import dataclasses

import keras
import numpy as np
import pytest

import benchmarks.__main__ as tables
import keras_explain as kx
from benchmarks import architectures, contestants, deep_shap

L = keras.layers


@pytest.fixture(scope="module")
def subject():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    h = L.Conv2D(4, 3, use_bias=False)(inputs)
    h = L.ReLU()(L.BatchNormalization(momentum=0.0, beta_initializer="normal")(h))
    model = keras.Model(inputs, L.Dense(3, bias_initializer="ones")(L.Flatten()(h)))
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    model(x, training=True)
    return model, x, np.arange(6) % 3


def test_the_gap_is_the_missing_share_of_the_larger_of_change_and_values(subject):
    model, x, y = subject
    whole = kx.DeepLIFT()(model, x, y)
    assert (architectures.gap(whole) < 1e-6).all()
    extras = whole.extras | {"convergence_delta": np.full(6, -0.5, "float32")}
    change = np.abs(whole.scores - extras["base_values"])
    size = np.abs(whole.values).sum(axis=(1, 2, 3))
    found = architectures.gap(dataclasses.replace(whole, extras=extras))
    np.testing.assert_allclose(found, 0.5 / np.maximum(change, size), rtol=1e-5)


def test_lrp_loses_relevance_to_biases_until_they_are_removed(subject):
    model, x, y = subject
    weights = model.get_weights()
    lrp = kx.LRP(rules="epsilon")
    assert architectures.gap(lrp(model, x, y)).max() > architectures.BOUND
    before = np.asarray(model(x))
    architectures.remove_biases(model)
    after = np.asarray(model(x))
    found = lrp(model, x, y)
    assert architectures.gap(found).max() < architectures.BOUND
    assert (np.ptp(after, axis=0) > 0.1 * np.ptp(before, axis=0)).all()
    assert "dense" in architectures.most_lost(model, found)
    model.set_weights(weights)


def test_all_cases_of_the_table_of_architectures_are_made(subject):
    model, x, _ = subject
    weights = model.get_weights()
    found = {case.name: gap for case, gap, _ in architectures.gaps(model, x[:2], x[2:4])}
    assert set(found) == {case.name for case in architectures.CASES}
    assert all(
        found[case.name] < architectures.BOUND for case in architectures.CASES if case.bounded
    )
    model.set_weights(weights)


def test_a_table_has_a_row_per_method_and_network(subject, monkeypatch, capsys):
    names = ("Saliency", "LRP, epsilon_plus", "CAM")
    monkeypatch.setattr(tables, "SUBJECTS", {"tiny": lambda: subject})
    monkeypatch.setattr(tables, "METHODS", {n: contestants.METHODS[n] for n in names})
    tables.next_calls(1)
    tables.functions(1)
    rows = [
        line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "tiny" in line
    ]
    assert [row[1].strip() for row in rows] == 2 * ["Saliency", "LRP, epsilon_plus"]
    assert [row[2].strip() for row in rows[2:]] == ["1", "1"]
    assert [row[3].strip() for row in rows[2:]] == ["0", "0"]


def test_difference_is_a_share_of_the_largest_value():
    a, b = np.array([[1.0, -4.0]]), np.array([[1.5, -4.0]])
    assert deep_shap.difference(a, b) == 0.125
    with pytest.raises(ValueError, match=r"equal shapes. Received: \(1, 2\) and \(2, 1\)"):
        deep_shap.difference(a, b.T)
