import keras
import numpy as np
import pytest

from benchmarks import calibration, equal_error, truths
from benchmarks.rivals import METHODS, UnsuitedError
from benchmarks.tasks import Task, relative_errors

WEIGHTS = np.array([1.0, -2.0, 0.5], "float32")


@pytest.fixture
def task(monkeypatch, tmp_path):
    """A linear network, of which every value is known."""
    monkeypatch.setenv("EQUAL_ERROR", str(tmp_path))
    monkeypatch.delenv("BEFORE", raising=False)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([WEIGHTS[:, None], np.ones(1)])
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    return Task("line", "made", model, x[:2], np.zeros(2, int), x[2:])


def _known(task):
    part = WEIGHTS * task.x
    return {
        "shapley": part,
        "rise": part / 2,
        "smoothgrad": np.tile(WEIGHTS, (2, 1)),
        "squaregrad": np.tile(WEIGHTS**2, (2, 1)),
        "gradient_shap": WEIGHTS * (task.x - task.background.mean(axis=0)),
        "sobol": part**2 / (part**2).sum(axis=1, keepdims=True),
    }


@pytest.mark.parametrize(
    "method", ["shapley", "rise", "smoothgrad", "squaregrad", "gradient_shap", "sobol"]
)
def test_the_truth_of_a_linear_network(task, method):
    found, accuracy = truths.truth(task, method)
    np.testing.assert_allclose(found, _known(task)[method], rtol=2e-3)
    assert (accuracy < 2e-3).all()


@pytest.mark.parametrize(
    ("method", "contestant"),
    [(m, c) for m in ("shapley", "lime", "rise", "smoothgrad") for c in METHODS[m]],
)
def test_contestants_come_to_the_truth(task, method, contestant):
    try:
        values, passes = METHODS[method][contestant](task, 512)(0)
    except (ImportError, UnsuitedError) as reason:
        pytest.skip(str(reason))
    assert 0 < passes <= 2 * 512 + 2
    assert relative_errors(values, truths.truth(task, method)[0]).max() < 0.2


def test_times_are_of_our_cost_at_the_error_that_another_reaches():
    budgets = np.array([100.0, 400.0, 1600.0])
    ours = equal_error.Curve(budgets, np.array([0.4, 0.2, 0.1]), budgets / 100)
    theirs = equal_error.Curve(4 * budgets, ours.errors, budgets / 10)
    assert theirs.times(ours, "passes") == "4.0"
    assert theirs.times(ours, "seconds") == "10.0"
    worse = equal_error.Curve(budgets, np.array([2.0, 1.0, 0.5]), budgets)
    assert worse.times(ours, "passes") == "> 16.0"


def test_what_is_measured_is_kept_written_and_drawn(task, tmp_path, monkeypatch):
    names = ("lime", "rise")
    ours = {m: {"keras_explain": METHODS[m]["keras_explain"]} for m in names}
    monkeypatch.setattr(equal_error, "METHODS", ours)
    monkeypatch.setattr(equal_error, "BUDGETS", {"lime": (16, 64), "rise": (16, 64)})
    monkeypatch.setattr(equal_error, "NAMES", {"line": "Line"})
    runs, notes = equal_error.measured({"line": lambda: task})
    assert len(runs) == 2 * 2 * equal_error.SEEDS
    assert not notes
    again, _ = equal_error.measured({"line": lambda: pytest.fail("measured again")})
    assert again == runs
    *_, row = equal_error.rows("lime", runs)
    assert row.startswith("| line | keras_explain | ")
    equal_error.draw(runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_an_interval_holds_what_is_within_it():
    errors = np.array([1.0, 1.0, np.nan])
    found = calibration.held(np.array([0.0, 0.0, 0.0]), errors, np.array([1.6, -1.7, 0.0]))
    np.testing.assert_array_equal(found, [1, 0, np.nan])
