"""`ExplanationLogger`: what it explains, when, and what it says."""

import contextlib
import dataclasses
import gc
import itertools
import math
import sys
import threading
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_explain as kx
from keras_explain import backend, targets
from keras_explain.callbacks import ExplanationLogger, naming, progress, samples, scalars
from keras_explain.callbacks.pictures import Pictures
from keras_explain.core.record.explanation import Explanation
from keras_explain.plots import ranges, render
from keras_explain.sinks import Memory, Sink
from tests.process import run_python

CLASSES = 3
SCALARS = ["concentration", "score", "scale"]


def data(rows=24, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % CLASSES
    x = rng.normal(size=(rows, 6, 5, 1)).astype(np.float32)
    x[np.arange(rows), 2 * y] += 2.0
    return x, y


def classifier(units=CLASSES, activation="softmax", dropout=0.0, **options):
    model = keras.Sequential(
        [
            keras.Input((6, 5, 1)),
            keras.layers.Conv2D(4, 3, activation="gelu", padding="same", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
    model.compile("sgd", loss, **options)
    return model


def fit(callbacks, model=None, epochs=3, rows=24, **options):
    x, y = data(rows)
    return (model or classifier()).fit(
        x, y, batch_size=8, epochs=epochs, callbacks=callbacks, verbose=0, **options
    )


def explain(logger, model=None, epochs=1):
    """What Keras does with the callback in `fit`, without training."""
    logger.set_model(model or classifier())
    logger.on_train_begin()
    for epoch in range(epochs):
        logger.on_epoch_begin(epoch)
        logger.on_epoch_end(epoch, {})
    logger.on_train_end()


class Fake:
    """An explainer of another make: `values(call, x)` and `scores(call, x)` are given."""

    def __init__(self, values=lambda call, x: x * (call + 1), scores=None, extras=None):
        self.values, self.scores, self.extras = values, scores, extras
        self.calls = []

    def __call__(self, model, x, target=None, **options):
        call = len(self.calls)
        self.calls.append({"x": x, "target": target, **options})
        rows = len(keras.tree.flatten(x)[0])
        scores = np.ones(rows) if self.scores is None else self.scores(call, x)
        return Explanation(
            values=self.values(call, x),
            scores=np.asarray(scores, np.float32),
            target=targets.as_target(target).replace(index=np.zeros(rows, int)),
            x=x,
            explainer=self,
            extras={} if self.extras is None else self.extras(call, x),
        )


class Failing(Fake):
    """Fails at the given calls; call 0 is the one at the start of training."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def __call__(self, model, x, target=None, **options):
        explanation = super().__call__(model, x, target, **options)
        if len(self.calls) - 1 in self.at:
            raise ZeroDivisionError(f"call {len(self.calls) - 1}")
        return explanation


# What the scalars should be, one number at a time


def naive_rank(values):
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def naive_drift(maps, previous):
    total = 0.0
    for now, before in zip(maps, previous, strict=True):
        constant = [len(set(row)) == 1 for row in (now.tolist(), before.tolist())]
        if all(constant):
            continue
        if any(constant):
            total += 1
            continue
        a, b = naive_rank(now.tolist()), naive_rank(before.tolist())
        mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
        top = sum((i - mean_a) * (j - mean_b) for i, j in zip(a, b, strict=True))
        below = math.sqrt(sum((i - mean_a) ** 2 for i in a) * sum((j - mean_b) ** 2 for j in b))
        total += 1 - top / below
    return total / len(maps)


def naive_gini(maps):
    """Half the relative mean absolute difference."""
    total = 0.0
    for row in np.abs(maps).tolist():
        if sum(row) > 0:
            differences = sum(abs(a - b) for a in row for b in row)
            total += differences / (2 * len(row) * sum(row))
    return total / len(maps)


class TestScalars:
    def test_drift_against_a_naive_loop_with_ties_and_constant_maps(self):
        rng = np.random.default_rng(1)
        maps = rng.integers(-3, 4, (6, 12)).astype(float)
        previous = rng.integers(-3, 4, (6, 12)).astype(float)
        maps[0] = previous[0] = 2.0  # both constant
        maps[1] = -1.0  # one is
        previous[2] = 0.0  # the other is
        ranks = [scalars.centred_ranks(m) for m in (maps, previous)]
        expected = naive_drift(maps, previous)
        assert scalars.drift(*ranks) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("maps", "previous", "expected"),
        [
            ([[1, 2, 3]], [[10, 20, 30]], 0.0),
            ([[1, 2, 3]], [[3, 2, 1]], 2.0),
            ([[0, 0, 0]], [[5, 5, 5]], 0.0),
            ([[0, 0, 0]], [[5, 5, 6]], 1.0),
            ([[1, 2]], [[7, 7]], 1.0),
            ([[4.0]], [[9.0]], 0.0),
        ],
    )
    def test_drift_by_hand(self, maps, previous, expected):
        ranks = [scalars.centred_ranks(np.array(m, float)) for m in (maps, previous)]
        assert scalars.drift(*ranks) == pytest.approx(expected, abs=1e-15)

    def test_concentration_against_a_naive_loop(self):
        maps = np.random.default_rng(2).normal(size=(5, 11))
        maps[3] = 0
        assert scalars.concentration(maps) == pytest.approx(naive_gini(maps), abs=1e-12)

    @pytest.mark.parametrize(
        ("maps", "expected"),
        [([[1, -1, 1, 1]], 0.0), ([[0, 0, 0, -5]], 0.75), ([[0, 0]], 0.0), ([[3.0]], 0.0)],
    )
    def test_concentration_by_hand(self, maps, expected):
        assert scalars.concentration(np.array(maps, float)) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("delta", "scores", "base", "expected"),
        [
            ([0.5, -0.5], [2.0, -1.0], [1.0, 0.0], 0.5),
            ([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], 0.0),
            ([0.0, 0.1], [1.0, 1.0], [1.0, 1.0], math.inf),
        ],
    )
    def test_completeness_gap_by_hand(self, delta, scores, base, expected):
        explanation = Fake(
            scores=lambda call, x: scores,
            extras=lambda call, x: {
                "convergence_delta": np.array(delta, np.float32),
                "base_values": np.array(base, np.float32),
            },
        )(None, np.ones((2, 3), np.float32))
        assert scalars.completeness_gap(explanation) == pytest.approx(expected)

    def test_completeness_gap_of_integrated_gradients_from_its_values(self):
        model, (x, y) = classifier(), data(6)
        explanation = kx.IntegratedGradients(steps=3)(model, x, y)
        logits = kx.targets.Class(y)
        change = [
            float(kx.Saliency()(model, x[i : i + 1], int(y[i])).scores[0])
            - float(kx.Saliency()(model, 0 * x[i : i + 1] + 1e-30, int(y[i])).scores[0])
            for i in range(6)
        ]
        gaps = [abs(explanation.values[i].sum() - change[i]) for i in range(6)]
        expected = sum(gaps) / sum(map(abs, change))
        assert isinstance(explanation.target, type(logits))
        assert scalars.completeness_gap(explanation) == pytest.approx(expected, rel=1e-4)

    def test_maps_sum_the_channels_of_pictures_and_join_the_leaves_of_a_nest(self):
        rng = np.random.default_rng(3)
        picture, table = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(2, 7))
        x = {"b": picture, "a": table}
        explanation = Fake(values=lambda call, x: x)(None, x)
        maps = scalars.flat_maps(explanation)
        assert maps.shape == (2, 7 + 30)
        for sample in range(2):
            expected = [*table[sample]]
            for row in range(6):
                for column in range(5):
                    expected.append(sum(picture[sample, row, column]))
            np.testing.assert_allclose(maps[sample], expected, rtol=1e-5, atol=1e-6)

    def test_maps_over_one_of_several_inputs_have_its_channels(self):
        values = np.random.default_rng(3).normal(size=(2, 6, 5, 3)).astype(np.float32)
        explanation = Fake(values=lambda call, x: values)(None, {"a": np.ones((2, 3)), "b": values})
        explanation = dataclasses.replace(explanation, over=1)
        expected = values.astype(np.float64).sum(axis=-1).reshape(2, 30)
        np.testing.assert_allclose(scalars.flat_maps(explanation), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("axis", [1, 3])
    def test_maps_sum_the_channels_of_a_layer_where_they_are(self, axis):
        values = np.random.default_rng(4).normal(size=(2, 3, 4, 5))
        x, (explainer, one) = np.ones((2, 6, 6, 1)), (kx.InputXGradient(layer="conv"), np.ones(2))
        explanation = Explanation(
            values, one, targets.Class([0, 0]), x, explainer, layer_channels=axis
        )
        expected = values.sum(axis).reshape(2, -1)
        np.testing.assert_allclose(scalars.flat_maps(explanation), expected, rtol=1e-12)

    def test_maps_of_several_classes_are_rows_of_their_own(self):
        values = np.random.default_rng(4).normal(size=(2, 3, 6, 5)).astype(np.float32)
        explanation = Fake(values=lambda call, x: values, scores=lambda call, x: np.ones((2, 3)))
        maps = scalars.flat_maps(explanation(None, values))
        assert (maps == values.reshape(6, 30)).all()


class TestSamples:
    def test_arrays_are_copied_and_cut(self):
        x, y = data(10)
        taken = samples.read(x, y, 4)
        assert (taken.x == x[:4]).all()
        assert taken.labels.tolist() == [0, 1, 2, 0]
        assert (len(taken), taken.total) == (4, 10)
        x[:] = 0
        assert taken.x.any()

    @pytest.mark.parametrize("nest", [list, tuple, dict])
    def test_nests_keep_their_structure(self, nest):
        a, b = np.arange(12).reshape(6, 2), np.arange(6)
        given = {"one": a, "two": b} if nest is dict else nest([a, b])
        taken = samples.read(given, None, 2).x
        assert type(taken) is nest
        assert [leaf.tolist() for leaf in keras.tree.flatten(taken)] == [[[0, 1], [2, 3]], [0, 1]]

    @pytest.mark.parametrize("weights", [False, True])
    @pytest.mark.parametrize("kind", ["dataset", "py_dataset", "generator", "list_iterator"])
    def test_batches_of_several_kinds(self, kind, weights):
        x, y = data(20)
        more = (np.ones(20),) if weights else ()
        batches = [tuple(a[i : i + 3] for a in (x, y, *more)) for i in range(0, 20, 3)]
        given = {
            "dataset": lambda: tf.data.Dataset.from_tensor_slices((x, y, *more)).batch(3),
            "py_dataset": lambda: Batches(batches),
            "generator": lambda: (batch for batch in batches),
            "list_iterator": lambda: iter(batches),
        }[kind]()
        taken = samples.read(given, None, 8)
        assert (taken.x == x[:8]).all()
        assert taken.labels.tolist() == y[:8].tolist()

    def test_fewer_batches_than_are_taken_at_most(self):
        x, y = data(5)
        taken = samples.read(Batches([(x[:3], y[:3]), (x[3:], y[3:])]), None, 8)
        assert (taken.x == x).all()

    def test_an_endless_py_dataset(self):
        x, y = data(3)
        taken = samples.read(Endless(x, y), None, 8)
        assert (taken.x == np.concatenate([x, x, x[:2]])).all()

    def test_a_generator_is_not_read_further_than_needed(self):
        x, y = data(20)
        read = []
        samples.read((read.append(i) or (x[i : i + 4], y[i : i + 4]) for i in range(5)), None, 8)
        assert read == [0, 1]

    def test_batches_without_y_and_with_nests(self):
        x, _ = data(12)
        dataset = tf.data.Dataset.from_tensor_slices({"a": x, "b": x[:, 0, 0, 0]}).batch(5)
        taken = samples.read(dataset, None, 8)
        assert taken.labels is None
        assert (taken.x["a"] == x[:8]).all()
        assert (taken.x["b"] == x[:8, 0, 0, 0]).all()

    def test_given_labels_win_over_those_of_the_batches(self):
        x, y = data(12)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
        assert samples.read(dataset, 2 - y[:8], 8).labels.tolist() == (2 - y[:8]).tolist()

    def test_a_y_of_batches_that_holds_no_classes_is_an_error_only_where_it_is_needed(self):
        x, _ = data(6)
        dataset = tf.data.Dataset.from_tensor_slices((x, np.linspace(0, 1, 6))).batch(3)
        assert samples.read(dataset, None, 4).labels is None
        with pytest.raises(ValueError, match="one class per sample"):
            samples.read(dataset, None, 4, need_labels=True)

    @pytest.mark.parametrize(
        "y",
        [
            np.array([2, 0, 1]),
            np.array([[2], [0], [1]]),
            np.array([2.0, 0.0, 1.0]),
            np.array([[2.0], [0.0], [1.0]], np.float32),
            np.eye(3)[[2, 0, 1]],
            np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3]]),
            tf.constant([2, 0, 1]),
            [2, 0, 1],
        ],
        ids=lambda y: f"{type(y).__name__}-{np.shape(y)}",
    )
    def test_classes_of_several_kinds(self, y):
        assert samples.class_labels(y).tolist() == [2, 0, 1]

    @pytest.mark.parametrize("y", [[0, 1, 1], [True, False], [[0.0], [1.0]]])
    def test_binary_classes(self, y):
        assert samples.class_labels(y).tolist() == [int(v) for v in np.ravel(y)]

    @pytest.mark.parametrize(
        "y",
        [
            [0.5, 1.0],
            [-1, 0],
            [[0.0, 0.0], [0.0, 1.0]],
            [[1, 1, 0], [0, 1, 0]],
            np.zeros((2, 4, 4), int),
            ["cat", "dog"],
            {"a": [0, 1]},
            [math.nan, 1.0],
            [math.inf, 1.0],
            [2**32 + 1, 0],
            np.array([2**63, 0], np.uint64),
            [1e30, 0.0],
            np.array([1, 0], object),
        ],
        ids=str,
    )
    def test_what_holds_no_classes(self, y):
        with pytest.raises(ValueError, match=r"one class per sample.*Received.*target="):
            samples.class_labels(y)

    def test_bad_lengths(self):
        x, y = data(6)
        with pytest.raises(ValueError, match=r"Expected 6 labels.*Received: 5"):
            samples.read(x, y[:5], 4)
        with pytest.raises(ValueError, match=r"arrays of one length.*5, 6"):
            samples.read([x, x[:5]], None, 4)
        with pytest.raises(ValueError, match="at least one sample"):
            samples.read(x[:0], None, 4)
        with pytest.raises(ValueError, match="at least one sample"):
            samples.read(iter([]), None, 4)
        with pytest.raises(ValueError, match="Expected `x` to be an array"):
            samples.read(3, None, 4)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Endless(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return self.x, self.y


class TestNames:
    def test_of_one_a_list_and_a_dict(self):
        cam, fake = kx.GradCAM(), Fake()
        assert naming.named_explainers(cam) == {"grad_cam": cam}
        assert naming.named_explainers("grad_cam") == {"grad_cam": cam}
        assert naming.named_explainers([cam, fake, kx.GradCAM(layer="conv"), fake]) == {
            "grad_cam": cam,
            "fake": fake,
            "grad_cam_2": kx.GradCAM(layer="conv"),
            "fake_2": fake,
        }
        assert naming.named_explainers({"mine": "saliency", "b": cam}) == {
            "mine": kx.Saliency(),
            "b": cam,
        }

    def test_of_classes(self):
        assert naming.class_names(["a", 1]) == ("a", "1")
        assert naming.class_names({1: "b", 0: "a"}) == ("a", "b")

    def test_of_a_config(self):
        config = {"class_name": "GradCAM", "config": {"layer": "conv"}}
        assert naming.named_explainers(config) == {"grad_cam": kx.GradCAM(layer="conv")}
        assert naming.named_explainers({"a": config}) == {"a": kx.GradCAM(layer="conv")}

    def test_of_metrics(self):
        def drop(*_, explanation):
            return 0

        class MeanDrop:
            def __call__(self, *_, explanation):
                return 0

        named = MeanDrop()
        named.name = "other"
        metrics = [drop, MeanDrop(), named, drop]
        assert list(naming.named_metrics(metrics)) == ["drop", "mean_drop", "other", "drop_2"]
        assert list(naming.named_metrics(drop)) == ["drop"]

    def test_errors(self):
        with pytest.raises(ValueError, match="grad_cam"):
            naming.named_explainers("grad_cm")
        with pytest.raises(TypeError, match=r"Expected an explainer.*GradCAM"):
            naming.named_explainers(kx.GradCAM)
        with pytest.raises(TypeError, match="Received: 3 of type int"):
            naming.named_explainers([3])
        with pytest.raises(ValueError, match="at least one explainer"):
            naming.named_explainers([])
        with pytest.raises(ValueError, match="not empty"):
            naming.named_explainers({"": Fake()})
        with pytest.raises(TypeError, match="Expected metrics"):
            naming.named_metrics(["deletion"])

        def drift(*_, explanation):
            return 0

        with pytest.raises(ValueError, match=r"names other than.*Received: \['drift'\]"):
            naming.named_metrics([drift])


def keys(*names, scalars=SCALARS):
    return {f"explain/{name}/{scalar}" for name in names for scalar in scalars}


class TestLogs:
    def test_keys_and_values_are_exactly_those_of_the_recorded_explanations(self):
        memory, (x, y) = Memory(), data(5)
        explainers = [kx.IntegratedGradients(steps=4), kx.Saliency(absolute=False)]
        logs = fit([ExplanationLogger(explainers, x, y, sinks=[memory])]).history
        ours = {key for key in logs if key.startswith("explain/")}
        assert ours == keys("integrated_gradients", "saliency", scalars=[*SCALARS, "drift"]) | {
            "explain/integrated_gradients/completeness_gap",
            "explain/integrated_gradients/value_error",
        }
        for name, history in memory.history().items():
            maps = [np.asarray(e.values).sum(-1).reshape(5, -1) for _, e in history]
            assert [step for step, _ in history] == [0, 1, 2]
            expected = {
                "concentration": [naive_gini(m) for m in maps],
                "drift": [naive_drift(b, a) for a, b in itertools.pairwise(maps)],
                "score": [e.scores.mean() for _, e in history],
                "scale": [render.limit_of(m) for m in maps],
            }
            for key, values in expected.items():
                assert logs[f"explain/{name}/{key}"] == pytest.approx(values, rel=1e-6)

    def test_the_first_step_has_no_drift(self):
        seen = []
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[])
        peek = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
        fit([logger, peek], epochs=2)
        assert "explain/fake/drift" not in seen[0]
        assert "explain/fake/drift" in seen[1]
        assert {"loss"} | keys("fake") == set(seen[0])

    def test_other_keys_stay_as_they_are(self):
        plain = fit([], model=trained_alike()).history
        logged = fit(
            [ExplanationLogger("saliency", data(4)[0], sinks=[])], model=trained_alike()
        ).history
        assert {key: logged[key] for key in plain} == plain

    def test_early_stopping_monitors_a_scalar(self):
        rising = Fake(scores=lambda call, x: np.full(len(x), min(call, 3)))
        logger = ExplanationLogger(rising, data(4)[0], sinks=[])
        stop = keras.callbacks.EarlyStopping("explain/fake/score", mode="max", patience=2)
        logs = fit([logger, stop], epochs=20).history
        assert logs["explain/fake/score"] == [1, 2, 3, 3, 3]

    def test_early_stopping_on_drift_waits_for_the_second_epoch(self):
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[])
        stop = keras.callbacks.EarlyStopping(
            "explain/fake/drift", mode="min", patience=1, start_from_epoch=1
        )
        with pytest.warns(UserWarning, match="Early stopping conditioned on metric"):
            logs = fit([logger, stop], epochs=20).history
        assert len(logs["loss"]) == 3

    def test_model_checkpoint_monitors_a_scalar(self, tmp_path):
        peak = Fake(scores=lambda call, x: np.full(len(x), -abs(call - 2)))
        logger = ExplanationLogger(peak, data(4)[0], sinks=[])
        path = str(tmp_path / "{epoch}.keras")
        save = keras.callbacks.ModelCheckpoint(
            path, monitor="explain/fake/score", mode="max", save_best_only=True
        )
        fit([logger, save], epochs=4)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["1.keras", "2.keras"]

    def test_metrics_are_called_with_the_explanation_and_logged_by_name(self):
        calls = []

        def share(model, x, target, explainer, explanation=None):
            calls.append((model, x, target, explainer, explanation))
            return np.arange(len(x)) + len(calls)

        model, memory, saliency = classifier(), Memory(), kx.Saliency()
        logger = ExplanationLogger(saliency, *data(4), metrics=[share], sinks=[memory])
        logs = fit([logger], model, epochs=2).history
        assert logs["explain/saliency/share"] == [2 + 1.5, 3 + 1.5]
        last = memory.records[-1]
        assert calls[-1][0] is model
        assert calls[-1][2] is last.explanation.target
        assert calls[-1][3] is saliency
        assert calls[-1][4] is last.explanation
        assert last.scalars["share"] == 4.5

    def test_no_sinks_no_files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        fit([ExplanationLogger("saliency", data(4)[0], sinks=[])], epochs=1)
        assert list(tmp_path.iterdir()) == []


def trained_alike():
    keras.utils.set_random_seed(7)
    return classifier(dropout=0.5)


def reset_random_state():
    keras.utils.clear_session()  # Keras 3.11 keeps its global seed generator otherwise
    keras.utils.set_random_seed(3)


class TestTraining:
    @pytest.mark.parametrize("update_freq", ["epoch", 2])
    def test_weights_are_those_of_training_without_it(self, update_freq):
        x, y = data(6)
        plain, logged = trained_alike(), trained_alike()
        explainers = [kx.SmoothGrad(explainer=kx.Saliency(), samples=3), "saliency"]
        reset_random_state()
        fit([], plain)
        after_plain = np.random.random(), keras.random.uniform((2,)).numpy()  # noqa: NPY002
        reset_random_state()
        fit([ExplanationLogger(explainers, x, y, sinks=[], update_freq=update_freq)], logged)
        after = np.random.random(), keras.random.uniform((2,)).numpy()  # noqa: NPY002
        for a, b in zip(plain.get_weights(), logged.get_weights(), strict=True):
            assert (a == b).all()
        assert after[0] == after_plain[0]
        assert (after[1] == after_plain[1]).all()

    def test_every_epoch_is_explained_with_its_own_weights(self):
        memory, model, (x, y) = Memory(), classifier(), data(4)
        expected = []
        again = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: expected.append(kx.Saliency()(model, x, y).values)
        )
        fit([ExplanationLogger("saliency", x, y, sinks=[memory]), again], model)
        history = [e.values for _, e in memory.history()["saliency"]]
        assert (np.array(history) == np.array(expected)).all()
        assert (history[0] != history[1]).any()

    def test_the_same_callback_with_another_model_has_no_drift_at_first(self):
        memory = Memory()
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[memory])
        fit([logger], epochs=2)
        fit([logger], epochs=2)
        assert [record.step for record in memory.records] == [0, 1, 2, 3]
        assert ["drift" in record.scalars for record in memory.records] == [False, True] * 2

    def test_two_at_once(self):
        first, second = Memory(), Memory()
        x, y = data(6)
        one = ExplanationLogger({"first": "saliency"}, x[:3], y[:3], sinks=[first])
        two = ExplanationLogger({"second": "saliency"}, x[3:], y[3:], sinks=[second])
        logs = fit([one, two], epochs=2).history
        assert keys("first", "second") < set(logs)
        assert (first.records[0].explanation.x == x[:3]).all()
        assert (second.records[0].explanation.x == x[3:]).all()

    def test_epochs_are_steps_after_a_restored_backup(self, tmp_path):
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    raise KeyboardInterrupt

        memory, model = Memory(), classifier()
        logger = ExplanationLogger("saliency", data(4)[0], sinks=[memory])
        with pytest.raises(KeyboardInterrupt):
            fit([logger, Stop(), keras.callbacks.BackupAndRestore(tmp_path)], model, epochs=4)
        fit([logger, keras.callbacks.BackupAndRestore(tmp_path)], model, epochs=4)
        assert [record.step for record in memory.records] == [0, 1, 2, 3, 4]
        again = ExplanationLogger("saliency", data(4)[0], sinks=[memory := Memory()])
        fit([again], model, epochs=4, initial_epoch=1)
        assert [record.step for record in memory.records] == [1, 2, 3]

    def test_with_validation_and_a_data_set(self):
        x, y = data(24)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        memory, model = Memory(), classifier()
        logger = ExplanationLogger("saliency", dataset, sinks=[memory], max_samples=10)
        model.fit(
            dataset, validation_data=dataset, epochs=2, callbacks=[logger], verbose=0, shuffle=False
        )
        assert (memory.records[1].explanation.x == x[:10]).all()
        assert memory.records[1].labels.tolist() == y[:10].tolist()

    def test_beside_a_training_step_compiled_by_xla(self):
        memory, model = Memory(), classifier(jit_compile=True)
        fit([ExplanationLogger("saliency", *data(4), sinks=[memory])], model, epochs=2)
        first, second = (record.explanation.values for record in memory.records)
        assert (second == kx.Saliency()(model, *data(4)).values).all()
        assert (first != second).any()

    @pytest.mark.slow
    def test_under_a_mirrored_strategy(self):
        """In a process of its own, whose processor is split in two devices."""
        code = """
            import keras, numpy as np, tensorflow as tf
            cpu = tf.config.list_physical_devices("CPU")[0]
            split = [tf.config.LogicalDeviceConfiguration()] * 2
            tf.config.set_logical_device_configuration(cpu, split)
            import keras_explain as kx
            from keras_explain.callbacks import ExplanationLogger
            from keras_explain.sinks import Memory
            with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
                model = keras.Sequential(
                    [keras.Input((5, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
                )
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                model.compile("sgd", loss)
            rng = np.random.default_rng(0)
            x, y = rng.normal(size=(16, 5, 4, 1)).astype("float32"), np.arange(16) % 3
            memory = Memory()
            explainers = [kx.Saliency(absolute=False), kx.IntegratedGradients(steps=2)]
            logger = ExplanationLogger(explainers, x[:5], y[:5], sinks=[memory])
            history = model.fit(x, y, batch_size=8, epochs=2, callbacks=[logger], verbose=0)
            assert model.distribute_strategy.num_replicas_in_sync == 2
            kernel = model.layers[-1].kernel.numpy()
            expected = kernel.T[y[:5]].reshape(5, 5, 4, 1)
            values = dict(memory.history()["saliency"])[1].values
            np.testing.assert_allclose(values, expected, rtol=1e-5)
            assert len(history.history["explain/integrated_gradients/score"]) == 2
        """
        run = run_python(code)
        assert run.returncode == 0, run.stderr


class TestUpdateFreq:
    @pytest.mark.parametrize(
        ("every", "at_once", "steps"),
        [
            (1, 1, list(range(1, 13))),
            (4, 1, [4, 8, 12]),
            (5, 1, [5, 10]),
            (100, 1, []),
            (1, 3, [3, 6, 9, 12]),
            (4, 3, [6, 9, 12]),
            (6, 3, [6, 12]),
        ],
    )
    def test_every_n_batches_over_epochs(self, every, at_once, steps):
        # Two epochs of 6 batches.
        memory = Memory()
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[memory], update_freq=every)
        fit([logger], classifier(steps_per_execution=at_once), epochs=2, rows=48)
        assert [record.step for record in memory.records] == steps

    def test_steps_are_the_batches_that_the_logger_has_seen(self):
        memory, model = Memory(), classifier()
        fit([], model, epochs=2)
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[memory], update_freq=3)
        fit([logger], model, epochs=2)
        assert [record.step for record in memory.records] == [3, 6]

    def test_logs_have_the_latest_scalars(self):
        counting = Fake(scores=lambda call, x: np.full(len(x), call))
        logger = ExplanationLogger(counting, data(4)[0], sinks=[], update_freq=2)
        # Batches 2, 4 of 5, then 6, 8, 10.
        logs = fit([logger], epochs=2, rows=40).history
        assert logs["explain/fake/score"] == [2, 5]

    def test_an_epoch_without_an_explained_step_logs_nothing_new(self):
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[], update_freq=5)
        logs = fit([logger], epochs=3).history
        assert len(logs["explain/fake/score"]) == 2


class TestSteps:
    """Steps grow, whatever trains the model, and however often `fit` is called."""

    def steps(self, model, update_freq="epoch", fits=3, **options):
        memory = Memory()
        logger = ExplanationLogger(
            Fake(), data(4)[0], sinks=[memory], update_freq=update_freq, on_error="raise"
        )
        for _ in range(fits):
            fit([logger], model, **({"epochs": 1} | options))
        return [record.step for record in memory.records], memory

    def test_of_fit_called_again_and_again(self):
        steps, memory = self.steps(classifier())
        assert steps == [0, 1, 2]
        assert ["drift" in record.scalars for record in memory.records] == [False, True, True]

    @pytest.mark.parametrize(("every", "expected"), [(2, [2, 4, 6, 8]), (5, [5])])
    def test_of_batches_of_fit_called_again_and_again(self, every, expected):
        assert self.steps(classifier(), every)[0] == expected

    @pytest.mark.parametrize("kind", ["none", "two", "accumulating", "own", "scaled"])
    def test_whatever_the_optimizer_is(self, kind):
        x, _ = data(4)
        assert self.steps(trained_by(kind, x), 2, fits=2)[0] == [2, 4, 6]
        assert self.steps(trained_by(kind, x), fits=2, epochs=2)[0] == [0, 1, 2, 3]

    def test_an_execution_at_the_end_of_an_epoch_may_be_short(self):
        model = classifier(steps_per_execution=4)  # 3 batches an epoch
        assert self.steps(model, 3, fits=1, epochs=2)[0] == [3, 6]

    @pytest.mark.parametrize("update_freq", ["epoch", 2])
    def test_a_training_that_is_resumed_goes_on_where_it_was_stopped(self, update_freq):
        whole, _ = self.steps(classifier(), update_freq, fits=1, epochs=4)
        before, _ = self.steps(classifier(), update_freq, fits=1, epochs=2)
        after, _ = self.steps(classifier(), update_freq, fits=1, epochs=4, initial_epoch=2)
        assert before + after == whole

    def test_batches_before_a_resumed_training_that_can_not_be_known_are_said(self):
        x, y = data(24)
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[memory := Memory()], update_freq=2)
        endless = ((x[:8], y[:8]) for _ in iter(int, 1))
        options = {"initial_epoch": 1, "epochs": 2, "steps_per_epoch": 3, "shuffle": False}
        classifier().fit(endless, callbacks=[logger], verbose=0, **options)
        assert [record.step for record in memory.records] == [4, 6]
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[], update_freq=2)
        logger.set_model(classifier())
        logger.set_params({"steps": None})
        logger.on_train_begin()
        with pytest.warns(RuntimeWarning, match=r"goes on at epoch 1.*steps_per_epoch="):
            logger.on_epoch_begin(1)
        logger.on_epoch_begin(2)

    def test_of_a_loop_that_calls_callbacks_itself(self):
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[memory := Memory()], update_freq=2)
        logger.set_model(classifier())
        logger.on_train_begin()
        for batch in (0, 1, 2, 0, 0, 7, 8, 9):  # whatever is passed, each call is one batch
            logger.on_train_batch_begin(batch)
            logger.on_train_batch_end(batch)
        assert [record.step for record in memory.records] == [2, 4, 6, 8]


class TwoOptimizers(keras.Model):
    """As a GAN has: each batch both step, or the second alone."""

    def __init__(self, x):
        super().__init__()
        self.part = classifier()
        self.part(x)
        self.first, self.second = keras.optimizers.SGD(), keras.optimizers.SGD()
        self.built = True

    def call(self, x):
        return self.part(x)

    def train_step(self, data):
        for optimizer in (self.first, self.second):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.part(data[0]) ** 2)
            weights = self.part.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def trained_by(kind, x):
    """A model whose optimizer does not count batches."""
    if kind in ("none", "two"):
        model = TwoOptimizers(x)
        model.compile(optimizer=None if kind == "none" else model.first, loss="mse")
        return model
    optimizer = {
        "accumulating": lambda: keras.optimizers.SGD(gradient_accumulation_steps=2),
        "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), 1e38),
        "own": keras.optimizers.SGD,
    }[kind]()
    model = classifier()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    if kind == "own":
        model.train_step = lambda data: {"loss": tf.reduce_mean(model(data[0]))}
    return model


class TestTargets:
    def calls(self, y=None, target=None, model=None, x=None, **options):
        fake = Fake()
        x = data(4)[0] if x is None else x
        explain(ExplanationLogger(fake, x, y, target=target, sinks=[], **options), model)
        assert len(fake.calls) == 2
        assert fake.calls[0]["target"] == fake.calls[1]["target"]
        return fake.calls[1]

    @pytest.mark.parametrize("target", [None, "label"])
    def test_labels(self, target):
        y = np.array([2, 1, 0, 1])
        assert self.calls(np.eye(3)[y], target)["target"] == targets.Label(y)

    def test_predicted(self):
        assert self.calls()["target"] is None
        assert self.calls([0, 1, 2, 0], "predicted")["target"] is None

    def test_what_an_explainer_takes(self):
        assert self.calls(target=2)["target"] == targets.Class(2)
        assert self.calls(target=[0, 1, 2, 0])["target"] == targets.Class([0, 1, 2, 0])
        of = targets.Class(1, of="probability")
        assert self.calls(target=of)["target"] == of

    def test_a_target_per_given_sample_is_cut_with_the_samples(self):
        call = self.calls(target=[0, 1, 2, 0, 1, 2], x=data(6)[0], max_samples=4)
        assert call["target"] == targets.Class(np.array([0, 1, 2, 0]))
        of = targets.Class(np.ones((6, 2), int), of="probability")
        call = self.calls(target=of, x=data(6)[0], max_samples=4)
        assert call["target"] == targets.Class(np.ones((4, 2), int), of="probability")

    def test_other_arguments_are_handed_on_the_same_at_every_step(self):
        fake, given = Fake(), {"batch_size": 3, "seed": 5, "data_format": "channels_first"}
        explain(ExplanationLogger(fake, data(4)[0], sinks=[], **given), epochs=3)
        given["progress"] = False
        assert [{key: call[key] for key in given} for call in fake.calls] == [given] * 4

    def test_a_binary_head_explains_the_label(self):
        memory, model, (x, _) = Memory(), classifier(1, "sigmoid"), data(4)
        logger = ExplanationLogger(
            "saliency", x, [[1], [0], [1], [0]], sinks=[memory], class_names=["no", "yes"]
        )
        explain(logger, model)
        record = memory.records[0]
        logits = keras.Model(model.inputs[0], model.layers[-2].output)(x) @ model.layers[-1].kernel
        logits = np.asarray(logits + model.layers[-1].bias)[:, 0]
        np.testing.assert_allclose(record.explanation.scores, logits * [1, -1, 1, -1], rtol=1e-5)
        assert record.explained[:, 0].tolist() == [1, 0, 1, 0]
        assert record.predicted.tolist() == (logits > 0).astype(int).tolist()

    def test_predicted_classes_of_a_classifier(self):
        memory, model, (x, y) = Memory(), classifier(), data(6)
        explain(ExplanationLogger("saliency", x, y, sinks=[memory]), model)
        expected = np.asarray(model(x)).argmax(1)
        assert memory.records[0].predicted.tolist() == expected.tolist()
        assert memory.records[0].explained[:, 0].tolist() == y.tolist()

    def test_outputs_that_are_no_probabilities_and_no_logits_have_none(self):
        memory, model, (x, y) = Memory(), classifier(activation="relu"), data(6)
        explain(ExplanationLogger(Fake(), x, y, sinks=[memory]), model)
        assert memory.records[0].probabilities is None
        assert memory.records[0].predicted.tolist() == np.asarray(model(x)).argmax(1).tolist()

    def test_one_unit_without_labels_is_no_class(self):
        memory, model = Memory(), classifier(1, None)
        explain(ExplanationLogger("saliency", data(4)[0], sinks=[memory]), model)
        assert memory.records[0].predicted is None
        assert memory.records[0].explained is None

    def test_several_outputs_are_predicted_where_the_target_is(self):
        x, _ = data(4)
        inputs = keras.Input((6, 5, 1))
        flat = keras.layers.Flatten()(inputs)
        outputs = {
            "a": keras.layers.Dense(CLASSES, activation="softmax", name="a")(flat),
            "b": keras.layers.Dense(2, activation="softmax", name="b")(flat),
        }
        model, memory = keras.Model(inputs, outputs), Memory()
        logger = ExplanationLogger(
            "saliency", x, target=targets.Class(1, output="b"), sinks=[memory]
        )
        explain(logger, model)
        expected = np.asarray(model(x)["b"]).argmax(1)
        assert memory.records[0].predicted.tolist() == expected.tolist()


class TestPictures:
    def records(self, x, model, explainers="saliency", **options):
        memory = Memory()
        logger = ExplanationLogger(explainers, x, sinks=[memory], **options)
        explain(logger, model)
        return memory.records

    def test_inputs_as_they_are_shown_and_their_maps(self):
        x, _ = data(4)
        (record,) = self.records(x, classifier())
        assert (record.pictures == ranges.to_uint8(x)).all()
        assert (record.maps == render.to_maps(record.explanation.values)).all()
        assert record.limit == render.limit_of(record.maps) == record.scalars["scale"]
        assert record.signed is False

    def test_signed_maps(self):
        (record,) = self.records(data(4)[0], classifier(), kx.Saliency(absolute=False))
        assert record.signed is True

    def test_to_image(self):
        x, _ = data(4)
        (record,) = self.records(x, classifier(), to_image=lambda x: 0 * x + 0.2)
        assert (record.pictures == 51).all()

    def test_several_classes_per_sample_have_scalars_alone(self):
        (record,) = self.records(data(4)[0], classifier(), target=np.ones((4, 2), int))
        assert record.pictures is None
        assert record.maps is None
        assert record.explained.tolist() == [[1, 1]] * 4
        assert set(record.scalars) == set(SCALARS)

    def test_tables_have_scalars_alone(self):
        model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(CLASSES)])
        x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
        (record,) = self.records(x, model, "saliency")
        assert record.pictures is None
        assert record.scalars["scale"] == render.limit_of(record.explanation.values)

    def test_inputs_without_channels_are_shown_where_to_image_is_given(self):
        model = keras.Sequential(
            [keras.Input((6, 5)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        )
        x = data(4)[0][..., 0]
        assert self.records(x, model)[0].pictures is None
        (record,) = self.records(x, model, to_image=lambda x: x > 0)
        assert (record.pictures == np.where(x > 0, 255, 0)[..., None]).all()
        assert (record.maps == record.explanation.values).all()

    @pytest.mark.filterwarnings("ignore:GradCAM is zero everywhere")
    @pytest.mark.parametrize("explainer", ["saliency", "grad_cam"])
    def test_the_first_picture_of_a_nest(self, explainer):
        table, image = keras.Input((3,), name="a"), keras.Input((6, 5, 1), name="b")
        conv = keras.layers.Conv2D(2, 3, activation="gelu")(image)
        both = keras.layers.Concatenate()([keras.layers.Flatten()(conv), table])
        model = keras.Model({"a": table, "b": image}, keras.layers.Dense(CLASSES)(both))
        x = {"a": np.ones((4, 3), np.float32), "b": data(4)[0]}
        (record,) = self.records(x, model, kx.get(explainer))
        assert (record.pictures == ranges.to_uint8(x["b"])).all()
        values = record.explanation.values
        expected = values if explainer == "grad_cam" else values["b"][..., 0]
        assert (record.maps == expected).all()
        assert record.limit == render.limit_of(expected)  # whatever the values of the table are

    def test_whether_a_picture_can_be_told_from_zero_is_what_its_own_values_say(self):
        x = {"a": np.ones((4, 3), np.float32), "b": data(4)[0]}
        known = {"a": np.zeros(4, bool), "b": np.array([True, False, True, True])}
        fake = Fake(values=lambda call, x: x, extras=lambda call, x: {"reliable": known})
        _, _, reliable = Pictures(x, None).under(fake(None, x))
        assert reliable.tolist() == known["b"].tolist()

    def test_a_to_image_that_changes_the_size_is_an_error(self):
        with pytest.raises(ValueError, match="Expected values of the size of the pictures"):
            self.records(data(4)[0], classifier(), to_image=lambda x: np.abs(x[:, :3]) * 0)


class TestErrors:
    def fit(self, **options):
        fit([ExplanationLogger(**({"x": data(4)[0], "sinks": []} | options))])

    @pytest.mark.parametrize("number", [2, 2**32 + 1, "1", 0.5])
    def test_names_of_numbers_that_are_no_classes(self, number):
        with pytest.raises(ValueError, match="class from 0 to 1"):
            ExplanationLogger("saliency", data(4)[0], class_names={0: "a", number: "b"})

    @pytest.mark.parametrize("on_error", ["warn", "raise"])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"explainers": kx.GradCAM(layer="cnov")}, "conv"),
            ({"explainers": "saliency", "y": [0, 1, 2, 7]}, "below 3.*Received: 7"),
            ({"explainers": "saliency", "target": 3}, "below 3.*Received: 3"),
            ({"explainers": "saliency", "class_names": ["a"]}, "each of the 3 classes"),
            ({"explainers": "saliency", "x": data(4)[0][:, :3]}, "Received: shape"),
            ({"explainers": "saliency", "x": data(4)[0] * np.nan}, "finite"),
            ({"explainers": Failing(range(99))}, r"call \d"),
            ({"explainers": "saliency", "metrics": [lambda *a, explanation: 1 / 0]}, "division"),
            ({"explainers": "saliency", "to_image": lambda x: x[0]}, "to_image"),
        ],
    )
    def test_a_mistake_raises_at_the_start_of_training(self, options, message, on_error):
        epochs = []
        count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: epochs.append(e))
        logger = ExplanationLogger(
            **({"x": data(4)[0], "sinks": [], "on_error": on_error} | options)
        )
        with pytest.raises((ValueError, ZeroDivisionError), match=message):
            fit([logger, count])
        assert epochs == []

    def test_what_failed_is_named(self):
        with pytest.raises(ZeroDivisionError) as raised:
            self.fit(explainers={"mine": Failing({0})})
        assert "explainer 'mine' failed at the start of training" in raised.value.__notes__[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target": "label"}, "no `y`"),
            ({"target": "lable"}, "Did you mean 'label'"),
            ({"y": [0.5, 0.1, 0.2, 0.3]}, "one class per sample"),
            ({"y": [0, 1]}, "Expected 4 labels"),
            ({"update_freq": 0}, "`update_freq` to be 'epoch' or an int above 0"),
            ({"update_freq": "batch"}, "update_freq='batch'"),
            ({"update_freq": True}, "update_freq=True"),
            ({"max_samples": 0}, "`max_samples` to be an int above 0"),
            ({"on_error": "ignore"}, "'warn' or 'raise'"),
            ({"explainers": "grad_cm"}, "grad_cam"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            ExplanationLogger(**({"explainers": "saliency", "x": data(4)[0]} | options))

    def test_warn_says_so_once_and_goes_on_with_the_rest(self):
        memory = Memory()
        explainers = {"bad": Failing({2, 3}), "good": Fake()}
        logger = ExplanationLogger(explainers, data(4)[0], sinks=[memory])
        with pytest.warns(RuntimeWarning, match="explainer 'bad'") as caught:
            logs = fit([logger], epochs=4).history
        first, last = [str(w.message) for w in caught]
        assert "failed at step 1" in first
        assert "ZeroDivisionError: call 2" in first
        assert "failed 2 times, lastly at step 2: ZeroDivisionError: call 3" in last
        assert logger.failures == {
            "explainer 'bad'": [(1, "ZeroDivisionError: call 2"), (2, "ZeroDivisionError: call 3")]
        }
        steps = {name: [step for step, _ in h] for name, h in memory.history().items()}
        assert steps == {"bad": [0, 3], "good": [0, 1, 2, 3]}
        assert len(logs["explain/bad/score"]) == 2
        assert len(logs["explain/good/score"]) == 4

    def test_failures_are_those_of_the_last_training(self):
        logger, model = ExplanationLogger(Failing({1}), data(4)[0], sinks=[]), classifier()
        with pytest.warns(RuntimeWarning, match="call 1"):
            explain(logger, model)
        assert logger.failures
        explain(logger, model)
        assert logger.failures == {}

    def test_what_failed_once_is_said_once(self):
        logger = ExplanationLogger(Failing({1}), data(4)[0], sinks=[])
        with pytest.warns(RuntimeWarning, match="call 1") as caught:
            fit([logger])
        assert len(caught) == 1

    def test_drift_is_measured_from_the_last_step_that_succeeded(self):
        values = [[1, 2, 3], [1, 2, 3], [9, 9, 9], [3, 2, 1]]
        fake = Failing({2})
        fake.values = lambda call, x: np.array([values[call]], np.float32)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)])
        model.compile("sgd", "mse")
        x = np.ones((1, 3), np.float32)
        logger = ExplanationLogger(fake, x, sinks=[])
        with pytest.warns(RuntimeWarning, match="call 2"):
            logs = model.fit(x, x, epochs=3, callbacks=[logger], verbose=0).history
        assert logs["explain/failing/drift"] == [2.0]

    def test_raise_stops(self):
        memory = Memory()
        logger = ExplanationLogger(
            {"bad": Failing({2}), "good": Fake()}, data(4)[0], sinks=[memory], on_error="raise"
        )
        with pytest.raises(ZeroDivisionError, match="call 2") as raised:
            fit([logger], epochs=4)
        assert "explainer 'bad' failed at step 1" in raised.value.__notes__[0]
        assert [(r.name, r.step) for r in memory.records] == [("bad", 0), ("good", 0)]

    def test_a_metric_that_fails_leaves_the_rest_of_its_explainer(self):
        calls = []

        def share(model, x, target, explainer, explanation=None):
            calls.append(1)
            return 1 / (len(calls) - 2)

        memory = Memory()
        logger = ExplanationLogger("saliency", data(4)[0], sinks=[memory], metrics=[share])
        with pytest.warns(RuntimeWarning, match="metric 'share' of explainer 'saliency'.*step 0"):
            logs = fit([logger]).history
        assert logs["explain/saliency/share"] == [1.0, 0.5]
        assert len(logs["explain/saliency/score"]) == 3

    def test_a_sink_that_fails_leaves_the_others(self):
        class Full(Sink):
            closed = 0

            def write(self, record):
                raise OSError("disk full")

            def flush(self):
                pass

            def close(self):
                self.closed += 1
                raise OSError("still full")

        full, memory = Full(), Memory()
        logger = ExplanationLogger(Fake(), data(4)[0], sinks=[full, memory])
        with pytest.warns(RuntimeWarning, match="sink Full") as caught:
            logs = fit([logger], epochs=2).history
        assert "disk full" in str(caught[0].message)
        assert "failed 3 times" in str(caught[1].message)
        assert "still full" in str(caught[1].message)
        assert len(memory.records) == 2
        assert len(logs["explain/fake/score"]) == 2
        assert full.closed == 1

        strict = ExplanationLogger(Fake(), data(4)[0], sinks=[full, memory], on_error="raise")
        with pytest.raises(OSError, match="disk full"):
            fit([strict])

    def test_every_sink_is_closed_even_if_one_fails(self):
        class Bad(Memory):
            def __init__(self):
                super().__init__()
                self.closed = False

            def close(self):
                self.closed = True
                raise OSError("bad")

        sinks = [Bad(), Bad()]
        with pytest.raises(OSError, match="bad"):
            fit([ExplanationLogger(Fake(), data(4)[0], sinks=sinks, on_error="raise")], epochs=1)
        assert [sink.closed for sink in sinks] == [True, True]

    def test_maps_that_are_not_numbers_do_not_stop_anything(self):
        broken = Fake(values=lambda call, x: x * (np.nan if call > 1 else 1.0))
        memory = Memory()
        logs = fit([ExplanationLogger(broken, data(4)[0], sinks=[memory])], epochs=2).history
        assert math.isfinite(logs["explain/fake/concentration"][0])
        assert math.isnan(logs["explain/fake/concentration"][1])
        assert math.isnan(logs["explain/fake/drift"][0])

    def test_interrupts_are_not_caught(self):
        class Interrupted(Fake):
            def __call__(self, *args, **kwargs):
                explanation = super().__call__(*args, **kwargs)
                if len(self.calls) == 3:
                    raise KeyboardInterrupt
                return explanation

        with pytest.raises(KeyboardInterrupt):
            fit([ExplanationLogger(Interrupted(), data(4)[0], sinks=[])])


class TestProgress:
    class Terminal:
        def __init__(self, watched):
            self.text, self.watched = "", watched

        def write(self, text):
            self.text += text

        def flush(self):
            pass

        def isatty(self):
            return self.watched

    @pytest.mark.parametrize(
        ("watched", "expected", "said"),
        [(True, 12.3, True), (True, 4.0, False), (True, 0, False), (False, 60, False)],
    )
    def test_a_line_only_where_someone_watches_and_it_takes_long(
        self, monkeypatch, watched, expected, said
    ):
        terminal = self.Terminal(watched)
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.announced("Explaining with rise", expected):
            during = terminal.text
        assert ("Explaining with rise, about 12 s" in during) is said
        assert terminal.text.endswith("\r\033[K") is said

    def test_what_an_explainer_took_the_last_time_is_expected(self, monkeypatch):
        clock = itertools.accumulate(itertools.count(0, 10))  # 0, 10, 30, 60, ...
        announced, explainers = [], {"a": Fake(), "b": Fake()}
        monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
        monkeypatch.setattr(
            progress,
            "announced",
            lambda *said: announced.append(said) or contextlib.nullcontext(),
        )
        explain(ExplanationLogger(explainers, data(4)[0], sinks=[]), epochs=2)
        expected = [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 50), ("b", 70)]
        assert announced == [(f"Explaining with {name}", took) for name, took in expected]

    def test_nothing_is_printed_by_short_work(self, capsys):
        fit([ExplanationLogger("saliency", data(4)[0], sinks=[])])
        assert capsys.readouterr() == ("", "")


def test_no_thread_is_left(tmp_path):
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit([ExplanationLogger(["saliency", Fake()], data(4)[0], log_dir=tmp_path)])
    assert set(threading.enumerate()) == before


@pytest.mark.slow
def test_nothing_is_compiled_and_nothing_grows_after_the_start(tmp_path, monkeypatch):
    """60 explained steps with changing weights, all explainers, events on disk."""
    compiled = []
    compile_ = backend.compile
    monkeypatch.setattr(backend, "compile", lambda *a: compiled.append(a) or compile_(*a))
    model, (x, y) = classifier(), data(5)
    explainers = [kx.Saliency(), kx.GradCAM(), kx.IntegratedGradients(steps=4)]
    explainers += [kx.GradientSHAP(background=x, samples=4), kx.SmoothGrad(samples=4)]
    logger = ExplanationLogger(explainers, x, y, log_dir=tmp_path)
    logger.set_model(model)
    logger.on_train_begin()
    assert compiled
    compiled.clear()

    def alive_after(epochs):
        for epoch in epochs:
            model.layers[-1].kernel.assign_add(model.layers[-1].kernel * 0.01)
            logger.on_epoch_end(epoch, {})
        logger.sinks[0]._place.events.wait()
        gc.collect()
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return {
            kind: kinds.count(kind) for kind in ("FuncGraph", "Explanation", "Record", "ndarray")
        } | {"all": len(kinds)}

    before, after = alive_after(range(20)), alive_after(range(20, 60))
    logger.on_train_end()
    assert compiled == []
    assert after.pop("all") - before.pop("all") < 40  # not one object per step
    assert after == before
