"""Methods that draw samples: how sure they are, and when a sample has enough."""

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.explainer import Attribution
from keras_explain.core.run import sureness
from keras_explain.core.run.reductions import PairedMean
from keras_explain.core.sampled import Sampled

WEIGHTS = np.array([[1.0, -2.0], [2.0, 0.5], [-3.0, 1.0]], np.float32)
X = np.array([[0.01, 0.02, 0.01], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]], np.float32)


class Shaken(Sampled, Attribution):
    """The gradient plus noise times the input: the larger the input, the less sure it is."""

    samples: int | str = 40
    most = 1000
    reduce = PairedMean()

    @property
    def plan(self):
        stops = sureness.doubled(8, self.limit) if self.is_auto else ()
        return replace(super().plan, stops=stops)

    def passes(self, seed):
        n = self.limit if self.is_auto else self.samples
        return {"noise": np.random.default_rng(seed).normal(size=n).astype(np.float32)}

    def step(self, probe, x, target, pass_):
        return probe.gradient(x, target) + x * ops.reshape(pass_["noise"], (-1, 1))


@pytest.fixture(scope="module")
def linear():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="scores")(inputs))
    model.get_layer("scores").set_weights([WEIGHTS, np.zeros(2)])
    return model


def by_hand(x, c, count, seed=0):
    """Values and standard errors `[3]` of a row, from pairs of draws."""
    noise = np.random.default_rng(seed).normal(size=count).astype(np.float32).astype(np.float64)
    values = WEIGHTS[:, c] + x * noise.mean()
    pairs = noise[: count // 2 * 2].reshape(-1, 2).mean(axis=1)
    squares = 2 * np.sum((pairs - noise.mean()) ** 2)
    squares += sum((noise[count // 2 * 2 :] - noise.mean()) ** 2)
    pairs = count / 2
    return values, np.abs(x) * np.sqrt(squares / (2 * pairs * (pairs - 1)))


@pytest.mark.parametrize("samples", [4, 9, 40])
@pytest.mark.parametrize("batch_size", [None, 1, 2, 5, 6])
def test_standard_errors_of_pairs(linear, samples, batch_size):
    found = Shaken(samples=samples)(linear, X, [[0, 1]] * 3, batch_size=batch_size)
    assert found.extras["passes"].tolist() == [[samples] * 2] * 3
    for n, k in np.ndindex(3, 2):
        values, error = by_hand(X[n], k, samples)
        np.testing.assert_allclose(found.values[n, k], values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.extras["standard_error"][n, k], error, rtol=1e-4)
        relative = np.linalg.norm(error) / np.linalg.norm(values)
        np.testing.assert_allclose(found.extras["relative_error"][n, k], relative, rtol=1e-4)


def test_each_sample_takes_as_many_as_it_needs(linear):
    found = Shaken(samples="auto", error=0.1)(linear, X, 0)
    passes = found.extras["passes"]
    assert passes[0] == 8 < passes[1] < 1000
    assert (found.extras["relative_error"] <= 0.1).all()
    for n in range(3):
        fixed = Shaken(samples=int(passes[n]))(linear, X, 0)
        np.testing.assert_allclose(found.values[n], fixed.values[n], rtol=1e-6)
        error = fixed.extras["standard_error"][n]
        np.testing.assert_allclose(found.extras["standard_error"][n], error, rtol=1e-4)
        before = Shaken(samples=int(passes[n]) // 2)(linear, X, 0).extras["relative_error"][n]
        assert passes[n] == 8 or before > 0.1
        alone = Shaken(samples="auto", error=0.1)(linear, X[n : n + 1], 0)
        assert alone.extras["passes"] == passes[n]


def test_the_maximum_is_said(linear):
    explainer = Shaken(samples="auto", error=1e-3, max_passes=50)
    with pytest.warns(UserWarning, match="has not reached the relative standard error"):
        found = explainer(linear, X, 0)
    assert found.extras["passes"].tolist() == [50, 50, 50]
    assert (found.extras["relative_error"] > 1e-3).all()


def test_all_classes_of_a_sample_are_sure(linear):
    found = Shaken(samples="auto", error=0.1)(linear, X[:2], [[0, 1]] * 2)
    assert (found.extras["relative_error"] <= 0.1).all()


def test_what_has_no_error_is_unknown(linear):
    found = Shaken(samples=1)(linear, X, 0)
    assert np.isnan(found.extras["standard_error"]).all()
    assert np.isnan(found.extras["relative_error"]).all()


def test_a_sample_that_never_varies_is_sure(linear):
    found = Shaken(samples="auto")(linear, np.zeros((2, 3), np.float32), 0)
    assert not found.extras["relative_error"].any()
    assert found.extras["passes"].tolist() == [8, 8]


def test_relative_errors():
    result = {
        "values": {"a": np.array([[3.0, 0.0], [0, 0], [1, 1], [0, 0]]), "b": np.zeros((4, 1))},
        "standard_error": {
            "a": np.array([[0.3, 0.4], [0, 0], [np.nan, 0.5], [0.1, 0]]),
            "b": np.array([[0.0], [0], [np.nan], [0]]),
        },
        "scores": np.zeros(4),
    }
    found = sureness.of(result, 7)
    np.testing.assert_allclose(found["relative_error"], [0.5 / 3, 0, 0.5, np.inf], rtol=1e-6)
    assert found["passes"].tolist() == [7] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            ({"samples": "auto", "error": error}, "`error` as a share between 0 and 1")
            for error in (0, -0.1, 1, 5, np.nan, "small", True)
        ),
        ({"samples": "auto", "max_passes": 0}, "`max_passes` to be a whole number"),
        ({"samples": "many"}, 'a whole number, or "auto"'),
        ({"samples": 0}, "whole number of 1 or more"),
        ({"samples": None}, "whole number of 1 or more"),
        ({"samples": 9, "error": 0.1}, '`error` with samples="auto"'),
        ({"max_passes": 9}, '`max_passes` with samples="auto"'),
    ],
)
def test_bad_configurations(options, said):
    with pytest.raises(ValueError, match=said):
        Shaken(**options)


def test_no_number_of_passes_in_a_graph(linear):
    with pytest.raises(ValueError, match="a number of passes, as they are a loop"):
        Shaken(samples="auto").attribute(linear, X, 0)
    with pytest.raises(ValueError, match="a number of passes for an explainer that is a step"):
        kx.SmoothGrad(explainer=Shaken(samples="auto"))(linear, X, 0)


@pytest.mark.parametrize("most", [1, 20, 32, 63, 64, 999, 1000, 4096])
def test_stops(most):
    halved, doubled = sureness.halved(most), sureness.doubled(min(32, most), most)
    assert all(2 * a == b for a, b in itertools.pairwise(halved))
    assert halved[0] < 64
    assert 31 / 32 * most <= halved[-1] <= most
    assert doubled[0] == min(32, most)
    assert doubled[-1] == most
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(doubled))
