"""`TreeRegularization`: `fit` in full, its logs, saving, resuming, and what it refuses."""

import contextlib
import copy
import dataclasses
import json
import warnings
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_explain as kx
from keras_explain.sinks.event_file import EventFile, WriteError
from keras_explain.trees import (
    OutputSurrogate,
    PathLength,
    RegionalTree,
    SurrogateTree,
    TreeDistillation,
    WeightSurrogate,
)
from tests import check
from tests.process import run_python

ROWS = 96


def table(rows=ROWS, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)


X = table()
Y = (X[:, 0] + X[:, 1] ** 2 > 0.8).astype(np.float32)
SCALARS = ["apl", "fidelity", "leaves", "penalty"]


def network(units=1, activation="sigmoid", *middle, seed=3):
    keras.utils.set_random_seed(seed)
    large = keras.initializers.RandomNormal(stddev=1.0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, "tanh", kernel_initializer=large, name="hidden"),
            *middle,
            layers.Dense(units, activation, kernel_initializer=large),
        ]
    )


def wrapped(net=None, optimizer=None, compiled=None, **options):
    """A compiled model, whose penalty counts from the first epoch on."""
    net = network() if net is None else net
    model = kx.TreeRegularization(net, **({"reference": X, "warmup": 0.0} | options))
    model.compile(
        keras.optimizers.SGD(0.1) if optimizer is None else optimizer,
        "binary_crossentropy" if net.output_shape[-1] == 1 else "sparse_categorical_crossentropy",
        **(compiled or {}),
    )
    return model


def fit(model, x=X, y=Y, **options):
    given = {"batch_size": 32, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(x, y, **(given | options)).history


def at_rest(**options):
    """A model that `fit` leaves as it is."""
    return wrapped(optimizer=keras.optimizers.SGD(0.0), **options)


def equal(weights, others):
    return all((a == b).all() for a, b in zip(weights, others, strict=True))


def close(weights, others, tolerance=1e-5):
    return all(
        np.allclose(a, b, rtol=tolerance, atol=tolerance)
        for a, b in zip(weights, others, strict=True)
    )


def task_loss(net, x=X, y=Y, **options):
    net.compile(loss="binary_crossentropy")
    return net.evaluate(x, y, verbose=0, **options)


def omega(net, x=X, leaves=6, **options):
    """Cross-entropy with the small tree, naively."""
    root = SurrogateTree.fit(net, x, max_leaf_nodes=leaves, **options)
    answers = root.predict(x)
    p = net.predict(x, verbose=0).astype(np.float64)
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    return -np.log(p[np.arange(len(x)), answers]).mean()


class Counter(layers.Layer):
    """Counts its forward passes, as they are run, and notes those of training as traced."""

    traces: ClassVar[list] = []

    def build(self, shape):
        self.passes = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=None):
        self.traces.append(training)
        self.passes.assign_add(1.0)
        return x


@pytest.fixture(scope="module")
def reference_run():
    """What `fit` gives from arrays, by its defaults: weights, history and trees."""
    model = wrapped()
    history = fit(model)
    return model.model.get_weights(), history, model.tree.to_dict()


@pytest.mark.slow
class TestStrengthZero:
    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls):
        """Weights, optimizer and history: plain, with strength 0, in warm-up, regularised."""
        found = {}
        options = {
            "zero": {"strength": 0.0},
            "warmup": {"warmup": 1.0},
            "full": {"warmup": 0.0},
        }
        # The first `fit` of a process shuffles in an order of its own, whatever the seed.
        for name in (*reversed(options), "plain"):
            net = network(1, "sigmoid", layers.BatchNormalization(), layers.Dropout(0.4), Counter())
            model = net
            if name != "plain":
                model = kx.TreeRegularization(net, reference=X, **options[name])
            model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
            keras.utils.set_random_seed(7)
            Counter.traces.clear()
            expected = pytest.warns(RuntimeWarning, match="before the penalty began")
            with expected if name == "warmup" else contextlib.nullcontext():
                history = fit(model, epochs=3, shuffle=True, validation_split=0.25)
            optimizer = [v.numpy() for v in model.optimizer.variables]
            passes = net.layers[-2].passes.numpy()
            traces = Counter.traces.count(True)
            found[name] = net.get_weights(), optimizer, history, passes, traces
        return found

    def test_gives_the_weights_of_the_plain_model(self, runs):
        assert equal(runs["plain"][0], runs["zero"][0])
        assert equal(runs["plain"][1], runs["zero"][1])
        assert runs["plain"][2] == runs["zero"][2]
        assert not close(runs["plain"][0], runs["full"][0], 1e-4)

    def test_so_does_warm_up(self, runs):
        assert equal(runs["plain"][0], runs["warmup"][0])
        assert equal(runs["plain"][1], runs["warmup"][1])
        history = runs["warmup"][2]
        assert {k: v for k, v in history.items() if not k.startswith("tree/")} == runs["plain"][2]
        assert history["tree/penalty"] == [0, 0, 0]

    def test_no_further_forward_pass(self, runs):
        """Three batches to train on and one to validate on, three times."""
        assert runs["plain"][3] == 12
        assert runs["zero"][3] == 12
        assert runs["full"][3] == 12  # its step needs no second one

    def test_no_further_trace(self, runs):
        assert runs["plain"][4] == runs["zero"][4] == runs["full"][4] > 0

    def test_has_no_scalars_but_a_tree(self, runs):
        assert not [key for key in runs["zero"][2] if key.startswith("tree/")]
        model = wrapped(strength=0.0)
        assert model.tree.to_dict() == SurrogateTree.fit(model.model, X).to_dict()


class TestLogs:
    def test_scalars(self, reference_run):
        history = reference_run[1]
        names = sorted(key for key in history if key.startswith("tree/"))
        assert names == [f"tree/{name}" for name in SCALARS]
        assert all(len(values) == 2 for values in history.values())
        tree = reference_run[2]
        assert history["tree/apl"][-1] == pytest.approx(tree["average_path_length"])
        assert history["tree/leaves"][-1] == tree["leaves"] > 1
        assert history["tree/fidelity"][-1] == pytest.approx(tree["fidelity"])
        assert all(penalty > 0 for penalty in history["tree/penalty"])

    def test_loss_is_that_of_the_task_and_the_penalty(self):
        model = at_rest(strength=1.7)
        history = fit(model, batch_size=ROWS, epochs=1, validation_data=(X, Y))
        penalty = 1.7 * omega(model.model)
        assert penalty > 0.1
        assert history["tree/penalty"] == pytest.approx([penalty], rel=1e-5)
        assert history["loss"] == pytest.approx([task_loss(model.model) + penalty], rel=1e-5)
        assert history["val_loss"] == pytest.approx([task_loss(model.model)], rel=1e-5)
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(task_loss(model.model), rel=1e-5)

    def test_penalty_is_the_mean_over_the_batches_of_an_epoch(self):
        model = at_rest()
        history = fit(model, batch_size=32, epochs=2)
        assert history["tree/penalty"] == pytest.approx([omega(model.model)] * 2, rel=1e-5)

    def test_strength_follows_the_schedule(self):
        model = at_rest(warmup=0.25, ramp=0.5, strength=2.0)
        history = fit(model, epochs=4)
        full = 2 * omega(model.model)
        expected = [0, full / 2, full, full]
        assert history["tree/penalty"] == pytest.approx(expected, rel=1e-5)

    def test_weights_of_samples_are_for_the_task(self):
        weight = np.linspace(0, 2, ROWS).astype(np.float32)
        for options in ({"sample_weight": weight}, {"class_weight": {0: 1.0, 1: 3.0}}):
            model = at_rest()
            history = fit(model, batch_size=ROWS, epochs=1, **options)
            given = options.get("sample_weight", np.where(Y == 1, 3.0, 1.0))
            task = task_loss(model.model, sample_weight=given)
            assert history["loss"] == pytest.approx([task + omega(model.model)], rel=1e-5)

    def test_callbacks_after_see_them(self):
        seen = []

        class Watch(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                seen.append(set(logs))

        model = wrapped()
        early = keras.callbacks.EarlyStopping("tree/apl", patience=0, min_delta=100, mode="min")
        history = fit(model, epochs=4, callbacks=[early, Watch()])
        assert len(history["loss"]) == 2
        assert len(seen) == 2
        assert {f"tree/{name}" for name in SCALARS} < seen[0]

    def test_a_callback_list(self):
        model, seen = wrapped(), []
        mine = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
        several = keras.callbacks.CallbackList(
            [mine], add_history=True, model=model, epochs=1, steps=3, verbose=0
        )
        before = list(several.callbacks)
        for _ in range(2):
            assert "tree/apl" in fit(model, epochs=1, callbacks=several)
        assert several.callbacks == before
        assert "tree/apl" in seen[-1]

    def test_restored_weights_have_their_own_tree(self):
        model = wrapped(optimizer=keras.optimizers.SGD(5.0))
        early = keras.callbacks.EarlyStopping(
            "loss", patience=1, mode="max", min_delta=100, restore_best_weights=True
        )
        trees = []

        class Keep(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                trees.append(self.model.tree.to_dict())

        fit(model, epochs=4, callbacks=[early, Keep()])
        assert len(trees) == 2
        assert trees[0] != trees[1]
        assert model.tree.to_dict() == trees[0]
        assert model.tree.to_dict() == SurrogateTree.fit(model.model, X).to_dict()

    def test_explanations_beside_it(self):
        model, memory = wrapped(), kx.sinks.Memory()
        logger = kx.callbacks.ExplanationLogger(kx.Saliency(), X[:4], sinks=[memory])
        history = fit(model, callbacks=[logger])
        assert {"tree/apl", "explain/saliency/score"} <= set(history)
        here = kx.Saliency()(model.model, X[:4]).values
        assert memory.records[-1].explanation.values == pytest.approx(here, abs=1e-6)


class TestWaysToTrain:
    """Every way to feed and to run `fit` gives the same weights."""

    def check(self, model, reference_run, tolerance=1e-5, **options):
        history = fit(model, **options)
        weights, expected, tree = reference_run
        assert close(model.model.get_weights(), weights, tolerance)
        for name in SCALARS:
            there = pytest.approx(expected[f"tree/{name}"], rel=10 * tolerance)
            assert history[f"tree/{name}"] == there
        assert model.tree.to_dict()["leaves"] == tree["leaves"]

    @pytest.mark.parametrize(
        "compiled",
        [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 3}],
        ids=lambda options: next(iter(options)),
    )
    def test_compiled(self, compiled, reference_run):
        self.check(wrapped(compiled=compiled), reference_run)

    @pytest.mark.slow
    def test_xla_compiles_a_step_once(self, tmp_path):
        code = """
            import keras, numpy as np
            from keras import layers
            import keras_explain as kx
            x = np.random.default_rng(0).normal(size=(96, 3)).astype("float32")
            y = (x[:, 0] > 0).astype("float32")
            for options in (
                {}, {"penalty": kx.trees.PathLength()}, {"penalty": kx.trees.OutputSurrogate()},
                {"regions": 2}, {"regions": 2, "over_regions": "max"},
            ):
                keras.utils.set_random_seed(0)
                net = keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")])
                model = kx.TreeRegularization(net, reference=x, warmup=0.0, **options)
                model.compile("sgd", "binary_crossentropy", jit_compile=True)
                model.fit(x, y, batch_size=32, epochs=2, verbose=0)
        """
        run = run_python(code, XLA_FLAGS=f"--xla_dump_to={tmp_path}")
        assert run.returncode == 0, run.stderr
        assert len(list(tmp_path.glob("*one_step_on_data*.before_optimizations.txt"))) == 5

    def test_datasets(self, reference_run):
        batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
        self.check(wrapped(), reference_run, x=batches, y=None, batch_size=None, shuffle=None)

    def test_py_datasets(self, reference_run):
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 3

            def __getitem__(self, at):
                part = slice(32 * at, 32 * at + 32)
                return X[part], Y[part]

        self.check(wrapped(), reference_run, x=Batches(), y=None, batch_size=None)

    def test_float64_arrays_and_positional_arguments(self, reference_run):
        model = wrapped()
        model.fit(X.astype(np.float64), Y[:, None], 32, 2, 0, shuffle=False)
        assert close(model.model.get_weights(), reference_run[0])

    @pytest.mark.parametrize("head", ["subclassed", "separate"])
    def test_heads(self, head, reference_run):
        """A softmax over (0, z) is a sigmoid of z: the penalty and its gradient are the same."""

        class Two(keras.Model):
            def __init__(self, net):
                super().__init__()
                self.net = net

            def call(self, x):
                z = self.net(x)
                return ops.softmax(ops.concatenate([0 * z, z], axis=-1))

        net = network(1, None)
        if head == "separate":
            outer = keras.Sequential([keras.Input((3,)), net, layers.Activation("sigmoid")])
        else:
            outer = Two(net)
            outer(X[:2])
            outer.output_shape = (None, 2)
        self.check(wrapped(outer), reference_run, tolerance=1e-4)

    @pytest.fixture(scope="class")
    @classmethod
    def one_epoch(cls):
        model = wrapped()
        return fit(model, epochs=1)["tree/penalty"], model.model.get_weights()

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision(self, policy, one_epoch):
        keras.config.set_dtype_policy(policy)
        try:
            model = wrapped()
        finally:
            keras.config.set_dtype_policy("float32")
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16")
        penalty = fit(model, epochs=1)["tree/penalty"]
        assert penalty == pytest.approx(one_epoch[0], rel=0.02)
        start = network().get_weights()
        moved = [b - a for a, b in zip(start, model.model.get_weights(), strict=True)]
        there = [b - a for a, b in zip(start, one_epoch[1], strict=True)]
        largest = max(np.abs(a).max() for a in there)
        assert largest > 0.02
        assert close(moved, there, 0.1 * largest)

    def test_an_optimizer_that_decays_leaves_trees_alone(self):
        model = wrapped(optimizer=keras.optimizers.AdamW(0.05, weight_decay=0.1))
        ours = [v for v in model.weights if not any(v is w for w in model.model.weights)]
        states = []

        class Watch(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                states.append([v.numpy() for v in ours])

            on_train_batch_end = on_train_batch_begin

        fit(model, epochs=1, callbacks=[Watch()])
        assert len(ours) > 5
        assert not any(v.trainable for v in ours)
        assert all(equal(states[0], later) for later in states)
        assert [id(v) for v in model.trainable_variables] == [
            id(v) for v in model.model.trainable_variables
        ]
        before = model.model.get_weights()
        model.refit()
        assert equal(before, model.model.get_weights())

    def test_refits_trace_nothing(self):
        traces = []

        class Traced(kx.TreeRegularization):
            def train_step(self, data):
                traces.append(1)
                return super().train_step(data)

        model = Traced(network(), reference=X, warmup=0.0)
        model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
        fit(model, epochs=1)
        before, trees = len(traces), [model.tree.to_dict()]
        for _ in range(2):
            fit(model, epochs=2)
            trees.append(model.tree.to_dict())
        assert len(traces) == before
        assert trees[0] != trees[1]

    def test_refit_every(self):
        refits = []

        class Counted(TreeDistillation):
            def refit(self, network, state):
                refits.append(epochs[-1])
                return super().refit(network, state)

        model, epochs = wrapped(penalty=Counted(), refit_every=2), [None]
        begun = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: epochs.append(e))
        history = fit(model, epochs=5, callbacks=[begun])
        assert refits == [None, 1, 3, 4]
        assert history["tree/apl"][2] == history["tree/apl"][1]


class TestRegions:
    def halves(self, rows):
        return ops.cast(rows[:, 2] > 0.3, "int32")

    @pytest.mark.parametrize("over", ["max", "sparsemax"])
    def test_penalties_of_regions_make_one(self, over):
        model = at_rest(regions=self.halves, over_regions=over, min_samples_leaf=2)
        history = fit(model, batch_size=ROWS, epochs=1)
        here = X[:, 2] > 0.3
        parts = [
            omega(model.model, X[part], prune_on=None, min_samples_leaf=2) for part in (~here, here)
        ]
        gap = np.clip((parts[0] - parts[1] + 1) / 2, 0, 1)  # sparsemax of two numbers
        assert 0 < gap < 1
        expected = max(parts) if over == "max" else gap * parts[0] + (1 - gap) * parts[1]
        assert history["tree/penalty"] == pytest.approx([expected], rel=1e-4)

    def test_trees_of_regions(self):
        model = wrapped(regions=self.halves, feature_names="abc", class_names=["no", "yes"])
        history = fit(model)
        tree, here = model.tree, X[:, 2] > 0.3
        assert isinstance(tree, RegionalTree)
        each = [
            SurrogateTree.fit(model.model, X[part], feature_names="abc", class_names=["no", "yes"])
            for part in (~here, here)
        ]
        assert tree.to_dict() == {"trees": [one.to_dict() for one in each]}
        sizes = [np.sum(~here), np.sum(here)]
        lengths = [one.average_path_length for one in each]
        assert tree.average_path_length == pytest.approx(np.average(lengths, weights=sizes))
        assert history["tree/apl"][-1] == pytest.approx(tree.average_path_length)
        assert tree.leaves == sum(one.leaves for one in each)
        assert tree.depth == max(one.depth for one in each)
        fresh = table(200, seed=4)
        where = fresh[:, 2] > 0.3
        expected = np.where(where, each[1].predict(fresh), each[0].predict(fresh))
        assert (tree.predict(fresh) == expected).all()
        says = model.predict(fresh, verbose=0)[:, 0] > 0.5
        assert tree.fidelity(fresh) == pytest.approx(np.mean(expected == says))
        assert "a" in repr(tree.named("xyz", None))

    def test_by_k_means(self):
        model = wrapped(regions=3, min_samples_leaf=2, penalty=PathLength())
        history = fit(model)
        assert len(model.tree.trees) == 3
        assert sum(one.counts[0].sum() for one in model.tree.trees) == ROWS
        assert min(one.counts[0].sum() for one in model.tree.trees) > 5
        assert all(np.isfinite(values).all() for values in history.values())
        first = [one.counts[0].sum() for one in model.tree.trees]
        again = wrapped(regions=3, min_samples_leaf=2).tree.trees
        assert first == [one.counts[0].sum() for one in again]

    def test_fidelity_is_over_the_rows_held_out(self):
        other = table(60, seed=8)
        some = other[(other[:, 2] <= 0.3) | (np.arange(60) < 20)]
        model = wrapped(regions=self.halves, prune_on=some)
        assert model.tree.agreement == pytest.approx(model.tree.fidelity(some))
        one_sided = wrapped(regions=self.halves, prune_on=some[some[:, 2] > 0.3])
        assert one_sided.tree.agreement == pytest.approx(
            one_sided.tree.fidelity(some[some[:, 2] > 0.3])
        )

    def test_a_region_that_the_reference_has_not(self):
        model = wrapped(regions=lambda rows: self.halves(rows) + ops.cast(rows[:, 0] > 50, "int32"))
        far = X[:3] + 100
        with pytest.raises(ValueError, match="2 regions that the reference has"):
            model.tree.predict(far)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda rows: rows,
            lambda rows: rows[:, 0],
            lambda rows: -ops.ones_like(rows[:, 0]),
        ],
        ids=["shape", "fraction", "negative"],
    )
    def test_functions_that_return_no_regions(self, wrong):
        with pytest.raises(ValueError, match="Expected `regions` to return a region for each row"):
            wrapped(regions=wrong)

    def test_a_region_with_too_few_rows(self):
        with pytest.raises(ValueError, match="min_samples_leaf=5 reference rows"):
            wrapped(regions=lambda rows: ops.cast(rows[:, 0] >= np.sort(X[:, 0])[-3], "int32"))

    @pytest.mark.parametrize("wrong", ["two", 2.5, 0, -1])
    def test_no_regions(self, wrong):
        with pytest.raises((TypeError, ValueError), match="regions"):
            wrapped(regions=wrong)

    def test_k_means_of_units_is_refused(self):
        with pytest.raises(ValueError, match="function of the layer's units"):
            wrapped(regions=2, layer="hidden")


class TestSequencesAndLayers:
    def sequences(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(40, 6, 2)).astype(np.float32)
        here = np.arange(6)[None] < (np.arange(40) % 5 + 2)[:, None]
        x[~here] = 0
        return x, (x[..., 0] * x[..., 1] > 0).astype(np.float32), here

    def recurrent(self, units, activation):
        keras.utils.set_random_seed(0)
        large = keras.initializers.RandomNormal(stddev=2.0)
        return keras.Sequential(
            [
                keras.Input((6, 2)),
                layers.Masking(),
                layers.GRU(4, return_sequences=True, kernel_initializer=large, name="gru"),
                layers.Dense(units, activation, kernel_initializer=large),
            ]
        )

    @pytest.mark.parametrize("units", check.first_of([2, 1], 1))
    def test_masked_steps_do_not_count(self, units):
        x, y, here = self.sequences()
        y[:, 0] = 1  # the largest label of each series stands first
        net = self.recurrent(units, "sigmoid" if units == 1 else "softmax")
        model = wrapped(net, reference=x, optimizer=keras.optimizers.SGD(0.0))
        history = fit(model, x, y[..., None] if units == 1 else y, batch_size=22, epochs=1)
        small = SurrogateTree.fit(net, x, max_leaf_nodes=6)
        assert small.leaves > 1
        p = net.predict(x, verbose=0).astype(np.float64)
        p = np.concatenate([1 - p, p], axis=-1) if units == 1 else p
        entropy = -np.log(np.take_along_axis(p, small.predict(x)[..., None], axis=-1)[..., 0])
        assert history["tree/penalty"] == pytest.approx([entropy[here].mean()], rel=1e-4)
        assert model.tree.counts[0].sum() == here.sum()
        assert model.tree.to_dict() == SurrogateTree.fit(net, x).to_dict()

    def test_units_of_a_layer(self):
        model = at_rest(layer="hidden")
        history = fit(model, batch_size=ROWS, epochs=1)
        assert history["tree/penalty"] == pytest.approx(
            [omega(model.model, layer="hidden")], rel=1e-5
        )
        assert model.tree.feature_names[0] == "hidden[0]"
        assert history["loss"] == pytest.approx(
            [task_loss(model.model) + history["tree/penalty"][0]], rel=1e-5
        )

    def test_pictures_by_the_maps_of_a_layer(self):
        net = keras.Sequential(
            [
                keras.Input((6, 5, 1)),
                layers.Conv2D(3, 3, name="maps"),
                layers.Flatten(),
                layers.Dense(3, "softmax", kernel_initializer="random_normal"),
            ]
        )
        x = np.random.default_rng(0).normal(size=(60, 6, 5, 1)).astype(np.float32)
        model = wrapped(net, reference=x, layer="maps")
        history = fit(model, x, np.arange(60) % 3, epochs=1)
        assert np.isfinite(history["loss"]).all()
        assert history["tree/penalty"][0] > 0
        with pytest.raises(ValueError, match=r"tree over pixels.*layer="):
            wrapped(net, reference=x)

    def test_inputs_by_name_and_in_order_are_the_same(self):
        inputs = [keras.Input((1,), name="z"), keras.Input((2,), name="a")]
        net = keras.Model(inputs, network()(layers.Concatenate()(inputs)))
        named, listed = {"z": X[:, :1], "a": X[:, 1:]}, [X[:, :1], X[:, 1:]]
        model = wrapped(net, reference=named, optimizer=keras.optimizers.SGD(0.0))
        first = fit(model, listed, Y, batch_size=ROWS, epochs=1)
        second = fit(model, named, Y, batch_size=ROWS, epochs=1)
        assert first["tree/penalty"] == pytest.approx(second["tree/penalty"], rel=1e-6)
        assert first["tree/penalty"] == pytest.approx([omega(network())], rel=1e-5)


class TestTree:
    def test_is_that_of_the_model_as_it_is(self):
        model = wrapped()
        first = model.tree
        assert model.tree is first
        assert first.to_dict() == SurrogateTree.fit(model.model, X).to_dict()
        model.model.set_weights([w[::-1] for w in model.model.get_weights()])
        assert model.tree.to_dict() == SurrogateTree.fit(model.model, X).to_dict()
        assert model.tree.to_dict() != first.to_dict()

    def test_follows_the_rows_it_is_pruned_on(self):
        other = table(40, seed=5)
        model = wrapped(prune_on=other)
        assert model.tree.to_dict() == SurrogateTree.fit(model.model, X, prune_on=other).to_dict()
        model.set_reference(X, prune_on=other[:6])
        expected = SurrogateTree.fit(model.model, X, prune_on=other[:6])
        assert model.tree.to_dict() == expected.to_dict()

    def test_follows_predictions_on_the_rows_it_is_pruned_on(self):
        """A change of the model that shows on the held-out rows alone."""
        bias = layers.Dense(1, name="logit")
        net = keras.Sequential([keras.Input((1,)), bias])
        x = np.float32([[-2]] * 20 + [[2]] * 20)
        net.set_weights([np.ones((1, 1)), np.zeros(1)])
        model = kx.TreeRegularization(net, reference=x, prune_on=np.float32([[-0.5], [2], [-2]]))
        assert model.tree.agreement == 1
        net.set_weights([np.ones((1, 1)), np.ones(1)])
        assert model.tree.agreement == pytest.approx(2 / 3)

    def test_names(self):
        model = wrapped(feature_names=["a", "b", "c"], class_names=["no", "yes"])
        assert model.tree.feature_names == ("a", "b", "c")
        assert model.tree.to_dict()["classes"] == ["no", "yes"]
        for wrong in ({"feature_names": ["a"]}, {"class_names": ["no"]}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                wrapped(**wrong)

    def test_a_sample_of_the_reference(self):
        model = wrapped(subsample=40)
        assert model.reference.shape == (40, 3)
        assert model.tree.counts[0].sum() == 40
        places = [X.tolist().index(row) for row in model.reference.tolist()]
        assert places == sorted(set(places))  # in their own order
        assert (wrapped(subsample=40).reference == model.reference).all()

    def test_the_tree_is_of_the_reference_that_was_set_last(self):
        model = wrapped()
        model.reference = X[:50]
        assert model.tree.counts[0].sum() == 50
        alone = kx.trees.SurrogateTree.fit(model.model, X[:50], min_samples_leaf=1)
        assert model.tree.counts[0].tolist() == alone.counts[0].tolist()

    def test_behaves_as_the_model(self):
        model = wrapped()
        assert (model.predict(X, verbose=0) == model.model.predict(X, verbose=0)).all()
        mine, plain = (kx.Saliency()(m, X[:5]).values for m in (model, model.model))
        assert mine == pytest.approx(plain, abs=1e-6)
        lines = []
        model.summary(print_fn=lines.append)
        assert "sequential" in "".join(lines)


# Saving


@keras.saving.register_keras_serializable("tests")
def sides(rows):
    return ops.cast(rows[:, 2] > 0.3, "int32")


class TestSaving:
    @pytest.mark.parametrize(
        "options",
        [
            {
                "penalty": PathLength(tau=0.02),
                "regions": 2,
                "layer": None,
                "feature_names": ["a", "b", "c"],
                "refit_every": 2,
                "seed": 3,
            },
            {"regions": sides, "over_regions": "max"},
        ],
        ids=["options", "function"],
    )
    @pytest.mark.slow
    def test_of_the_wrapped_model(self, options, tmp_path):
        adam = keras.optimizers.Adam(0.01)
        model = wrapped(optimizer=adam, compiled={"metrics": ["accuracy"]}, **options)
        fit(model, epochs=3)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert isinstance(loaded, kx.TreeRegularization)
        assert loaded.options == model.options
        assert equal(model.get_weights(), loaded.get_weights())
        for saved, found in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
            assert (saved.numpy() == found.numpy()).all()
        assert (loaded.predict(X, verbose=0) == model.predict(X, verbose=0)).all()
        assert loaded.reference is None
        with pytest.raises(ValueError, match=r"model.reference = x_train"):
            fit(loaded)
        with pytest.raises(ValueError, match=r"Expected `reference`"):
            assert loaded.tree
        assert loaded.evaluate(X, Y, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0))
        with pytest.raises(ValueError, match="Expected"):
            loaded.reference = X[:, :2]
        loaded.reference = X
        assert loaded.tree.to_dict() == model.tree.to_dict()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The penalty was 0 in all epochs")
            assert fit(loaded) == fit(model)
        assert equal(model.get_weights(), loaded.get_weights())

    def test_a_lambda_is_refused(self, tmp_path):
        model = wrapped(regions=lambda rows: sides(rows))
        with pytest.raises(ValueError, match="lambda"):
            model.save(tmp_path / "model.keras")

    def test_copies(self):
        model = wrapped()
        fit(model, epochs=1)
        other = copy.deepcopy(model)
        assert equal(model.get_weights(), other.get_weights())

    def test_weights_alone(self, tmp_path):
        model = wrapped()
        fit(model, epochs=1)
        model.save_weights(tmp_path / "a.weights.h5")
        other = wrapped(network(seed=9))
        other.load_weights(tmp_path / "a.weights.h5")
        assert equal(model.get_weights(), other.get_weights())
        assert other.tree.to_dict() == model.tree.to_dict()

    def test_another_reference_must_be_as_wide(self):
        model = wrapped()
        model.reference = table(50, seed=3)
        assert model.tree.counts[0].sum() == 50
        with pytest.raises(ValueError, match="Expected"):
            model.reference = X[:, :2]
        assert model.tree.counts[0].sum() == 50

    def test_resuming_gives_what_an_uninterrupted_run_gives(self, tmp_path):
        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 3:
                    raise KeyboardInterrupt

        def run(seed, *callbacks):
            model = wrapped(
                network(seed=seed),
                optimizer=keras.optimizers.Adam(0.03),
                refit_every=2,
                warmup=0.2,
            )
            return model, lambda: fit(model, epochs=5, callbacks=list(callbacks))

        whole, train = run(3)
        expected = train()
        _, train = run(3, keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
        with pytest.raises(KeyboardInterrupt):
            train()
        resumed, train = run(8, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
        found = train()
        assert found == {name: values[3:] for name, values in expected.items()}
        assert equal(whole.get_weights(), resumed.get_weights())
        assert whole.tree.to_dict() == resumed.tree.to_dict()

    @pytest.mark.slow
    def test_elsewhere(self, tmp_path):
        """Two replicas are one; the plain model needs nothing of this package."""
        model = wrapped()
        fit(model, batch_size=ROWS, epochs=2)
        model.model.save(tmp_path / "plain.keras")
        expected = model.predict(X, verbose=0)
        np.savez(tmp_path / "data.npz", X=X, Y=Y, expected=expected)
        code = f"""
            import sys
            import keras, numpy as np, tensorflow as tf
            cpu = tf.config.list_physical_devices("CPU")[0]
            two = [tf.config.LogicalDeviceConfiguration()] * 2
            tf.config.set_logical_device_configuration(cpu, two)
            data = np.load({str(tmp_path / "data.npz")!r})
            plain = keras.saving.load_model({str(tmp_path / "plain.keras")!r})
            assert (plain.predict(data["X"], verbose=0) == data["expected"]).all()
            assert not [name for name in sys.modules if name.startswith("keras_explain")]

            import keras_explain as kx

            def train():
                net = keras.models.clone_model(plain)
                net.set_weights(plain.get_weights())
                model = kx.TreeRegularization(net, reference=data["X"], warmup=0.0, layer="hidden")
                model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
                history = model.fit(data["X"], data["Y"], batch_size={ROWS}, epochs=2, verbose=0)
                return net.get_weights(), history.history

            weights, history = train()
            strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
            assert strategy.num_replicas_in_sync == 2
            with strategy.scope():
                found, there = train()
            moved = [np.abs(a - b).max() for a, b in zip(weights, plain.get_weights())]
            assert max(moved) > 0.05, moved
            for a, b in zip(weights, found, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
            for name in history:
                np.testing.assert_allclose(history[name], there[name], rtol=1e-4)
        """
        run = run_python(code)
        assert run.returncode == 0, run.stderr


class TestCollapse:
    def constant(self):
        net = network()
        weights = net.get_weights()
        net.set_weights([*weights[:3], np.float32([100.0])])
        return net

    def test_warns_once_in_each_training(self):
        model = wrapped(self.constant(), optimizer=keras.optimizers.SGD(0.0))
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                history = fit(model, epochs=3)
            messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
            assert len(messages) == 1
            assert "class 1 for every reference row" in messages[0]
        assert history["tree/apl"] == [0, 0, 0]

    def test_does_not_warn_in_warm_up(self):
        model = wrapped(self.constant(), optimizer=keras.optimizers.SGD(0.0), warmup=1.0)
        with pytest.warns(RuntimeWarning) as caught:
            assert fit(model)["tree/apl"] == [0, 0]
        assert ["before the penalty began" in str(w.message) for w in caught] == [True]


class TestBadInput:
    @pytest.mark.parametrize(
        "loss",
        [
            *("mse", "mean_absolute_error", "huber", "log_cosh", "poisson"),
            keras.losses.MeanSquaredError(),
            keras.losses.mean_absolute_percentage_error,
            ["mse"],
        ],
    )
    def test_a_loss_of_regression(self, loss):
        model = kx.TreeRegularization(network(), reference=X)
        with pytest.raises(ValueError, match=r"loss of classification.*digitize"):
            model.compile("sgd", loss)

    @pytest.mark.parametrize(
        "loss",
        [
            *("binary_crossentropy", "hinge", "kl_divergence"),
            keras.losses.BinaryFocalCrossentropy(),
            lambda y, p: ops.mean(ops.square(y - p), axis=-1),
            None,
        ],
    )
    def test_other_losses(self, loss):
        kx.TreeRegularization(network(), reference=X).compile("sgd", loss)

    def test_no_reference(self):
        with pytest.raises(ValueError, match="Expected `reference`, the inputs"):
            kx.TreeRegularization(network())

    def test_a_reference_of_another_shape(self):
        with pytest.raises(ValueError, match=r"Expected `reference` of shape \(B, 3\).*\(96, 2\)"):
            kx.TreeRegularization(network(), reference=X[:, :2])
        with pytest.raises(ValueError, match=r"Expected `prune_on` of shape \(B, 3\)"):
            kx.TreeRegularization(network(), reference=X, prune_on=X[:, :2])

    def test_too_few_rows(self):
        with pytest.raises(ValueError, match="min_samples_leaf=5 reference rows"):
            kx.TreeRegularization(network(), reference=X[:5])
        with pytest.raises(ValueError, match="min_samples_leaf=200 reference rows"):
            kx.TreeRegularization(network(), reference=X, min_samples_leaf=200)

    def test_an_unbuilt_model(self):
        with pytest.raises(ValueError, match="Expected a built model"):
            kx.TreeRegularization(keras.Sequential([layers.Dense(1)]), reference=X)

    def test_no_model(self):
        with pytest.raises(TypeError, match=r"Expected a keras.Model"):
            kx.TreeRegularization(lambda x: x, reference=X)

    def test_a_model_with_a_step_of_its_own(self):
        class Own(keras.Sequential):
            def train_step(self, data):
                return super().train_step(data)

        with pytest.raises(ValueError, match="Keras's own `train_step`"):
            kx.TreeRegularization(Own([keras.Input((3,)), layers.Dense(1)]), reference=X)
        with pytest.raises(ValueError, match="Keras's own `compute_loss`"):
            kx.TreeRegularization(wrapped(), reference=X)

    @pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
    def test_a_model_of_one_class(self):
        net = network(1, None)
        net.layers[-1].activation = keras.activations.softmax
        with pytest.raises(ValueError, match="softmax over one unit"):
            kx.TreeRegularization(net, reference=X)

    def test_a_model_of_many_labels(self):
        with pytest.raises(ValueError, match="sigmoid over 3 units"):
            kx.TreeRegularization(network(3), reference=X)

    @pytest.mark.parametrize("y", [np.zeros(ROWS), np.ones((ROWS, 1), int), np.full(ROWS, True)])
    def test_labels_of_one_class(self, y):
        model = wrapped()
        with pytest.raises(ValueError, match="labels of at least two classes"):
            fit(model, y=y)

    @pytest.mark.parametrize("dtype", ["float32", "int64"])
    def test_one_hot_labels_of_one_class(self, dtype):
        model = kx.TreeRegularization(network(3, "softmax"), reference=X)
        model.compile("sgd", "categorical_crossentropy")
        with pytest.raises(ValueError, match="labels of at least two classes"):
            fit(model, y=np.eye(3, dtype=dtype)[np.ones(ROWS, int)])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"strength": -1.0},
            {"strength": float("nan")},
            {"strength": "1"},
            {"warmup": -0.1},
            {"warmup": 1.5},
            {"warmup": "half"},
            {"ramp": 2},
            {"refit_every": 0},
            {"refit_every": 1.5},
            {"subsample": 0},
            {"min_samples_leaf": 0},
            {"over_regions": "mean"},
        ],
        ids=str,
    )
    def test_wrong_arguments(self, wrong):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}`"):
            kx.TreeRegularization(network(), reference=X, **wrong)

    @pytest.mark.parametrize("wrong", ["path_length", PathLength, 0.1], ids=str)
    def test_a_penalty_that_is_none(self, wrong):
        with pytest.raises(TypeError, match="Expected a penalty such as"):
            kx.TreeRegularization(network(), reference=X, penalty=wrong)

    def test_a_layer_that_is_not_there(self):
        with pytest.raises(ValueError, match=r"hiden.*hidden"):
            kx.TreeRegularization(network(), reference=X, layer="hiden")

    def test_numbers_of_numpy_are_numbers(self):
        options = {"strength": np.float32(0.5), "refit_every": np.int64(2), "regions": np.int64(2)}
        model = kx.TreeRegularization(network(), reference=X, **options)
        assert len(model.tree.trees) == 2
        assert dataclasses.asdict(model.options)["strength"] == 0.5


class TestLogDir:
    def events(self, log_dir, plugin):
        """Tag -> step -> what a dashboard of TensorBoard finds."""
        accumulator = EventAccumulator(str(log_dir / "explain"), size_guidance={"tensors": 0})
        accumulator.Reload()
        return {
            tag: {e.step: tf.make_ndarray(e.tensor_proto) for e in accumulator.Tensors(tag)}
            for tag in accumulator.Tags()["tensors"]
            if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == plugin
        }

    def pictures(self, log_dir):
        return {
            tag: {step: tf.io.decode_png(found[2]).numpy() for step, found in steps.items()}
            for tag, steps in self.events(log_dir, "images").items()
        }

    @pytest.mark.parametrize(
        ("options", "rows"),
        [({}, "inputs"), ({"layer": "hidden"}, "layer 'hidden'"), ({"regions": 2}, "regions")],
        ids=["inputs", "layer", "regions"],
    )
    def test_the_tab_is_told_what_a_tree_asks_about(self, tmp_path, options, rows):
        fit(wrapped(log_dir=tmp_path, **options), epochs=1)
        (steps,) = self.events(tmp_path, "keras_explain").values()
        found = json.loads(steps[0][0])
        assert rows in found["rows"]
        assert [one["region"] for one in found["trees"]] == (
            [0, 1] if rows == "regions" else [None]
        )

    def test_every_tree_is_written(self, tmp_path):
        model, texts = wrapped(log_dir=tmp_path, feature_names=["age", "dose", "sex"]), []

        class Keep(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                texts.append(self.model.tree.to_text())

        fit(model, epochs=2, callbacks=[Keep()])
        (written,) = self.events(tmp_path, "text").values()
        assert sorted(written) == [0, 1]
        for step, text in enumerate(texts):
            found = written[step].item().decode()
            assert all(line.strip() in found for line in text.splitlines())
        assert any(name in texts[-1] for name in ("age", "dose", "sex"))
        (drawn,) = self.pictures(tmp_path).values()
        assert sorted(drawn) == [0, 1]
        assert all(picture.std() > 0 for picture in drawn.values())

    def test_trees_that_can_not_be_written_are_said_once_and_training_goes_on(
        self, tmp_path, monkeypatch
    ):
        model, full = wrapped(log_dir=tmp_path), []

        def text_or_error(file, tag, text, step):
            if step:
                full.append(step)
                raise WriteError("no space left")
            write(file, tag, text, step)

        write = EventFile.text
        monkeypatch.setattr(EventFile, "text", text_or_error)
        with pytest.warns(RuntimeWarning) as said:
            assert len(fit(model, epochs=3)["tree/apl"]) == 3
        first, last = (str(warning.message) for warning in said)
        assert "A tree was not logged, training goes on." in first
        assert "2 trees were not logged, lastly at step 2: WriteError: no space left" in last
        assert full == [1, 1, 2, 2]
        (written,) = self.events(tmp_path, "text").values()
        assert sorted(written) == [0]

    def test_an_impossible_directory_is_an_error_at_the_start(self, tmp_path):
        (tmp_path / "explain").write_text("a file")
        with pytest.raises(OSError, match="Expected a `log_dir` in which files can be made"):
            fit(wrapped(log_dir=tmp_path), epochs=1)

    def test_two_models_in_one_directory_say_so(self, tmp_path):
        other = wrapped(log_dir=tmp_path)
        begin = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: other.terms["tree"].begin_training()
        )
        with pytest.warns(RuntimeWarning, match="Expected one logger of 'tree'"):
            fit(wrapped(log_dir=tmp_path), epochs=1, callbacks=[begin])

    def test_steps_grow_where_fit_is_called_again(self, tmp_path):
        model = wrapped(log_dir=tmp_path, refit_every=3)
        fit(model, epochs=4)  # trees after epochs 2 and 3
        fit(model, epochs=1)
        fit(model, epochs=4)  # after 5 + 2 and 5 + 3
        (written,) = self.events(tmp_path, "text").values()
        assert sorted(written) == [2, 3, 4, 7, 8]

    def test_pictures_of_each_region(self, tmp_path):
        model = wrapped(log_dir=tmp_path, regions=2, min_samples_leaf=2)
        fit(model, epochs=1)
        drawn = self.pictures(tmp_path)
        assert len(drawn) == 2
        assert all(picture[0].std() > 0 for picture in drawn.values())
        assert "tree/apl" in fit(model, epochs=1)


class TestNothingIsLostInSilence:
    def test_a_surrogate_that_is_never_fitted(self):
        model = wrapped(penalty=OutputSurrogate(probes=4))
        with pytest.warns(RuntimeWarning, match="0 in all epochs"):
            fit(model)

    def test_early_stopping_within_the_warm_up(self):
        model = wrapped(warmup=0.5, optimizer=keras.optimizers.SGD(0.0))
        stop = keras.callbacks.EarlyStopping("loss", patience=1)
        with pytest.warns(RuntimeWarning, match=r"warmup=0.5 of epochs=20 were not over"):
            history = fit(model, epochs=20, callbacks=[stop])
        assert len(history["loss"]) < 10

    def test_a_training_that_diverges_is_ended_by_whom_it_may_concern(self):
        model = wrapped(optimizer=keras.optimizers.SGD(float("inf")))
        with pytest.warns(RuntimeWarning, match="No tree was fitted after epoch 0"):
            history = fit(model, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()])
        assert len(history["loss"]) == 1

    def test_rows_to_prune_on_stay_and_are_asked_for_again(self, tmp_path):
        model = wrapped(prune_on=X[:30])
        model.reference = X[30:]
        assert model.tree.pruned_on == 30
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        with pytest.raises(ValueError, match=r"set_reference\(x_train, prune_on=x_val\)"):
            loaded.reference = X[30:]
        loaded.set_reference(X[30:], prune_on=X[:30])
        assert loaded.tree.to_dict() == model.tree.to_dict()

    def test_other_weights_get_another_tree_before_the_first_epoch(self):
        model = at_rest()
        fit(model, batch_size=len(X))
        *others, kernel, bias = model.model.get_weights()
        model.model.set_weights([*others, -kernel, bias])  # the other class for every row
        first, second = fit(model, batch_size=len(X))["tree/penalty"]
        assert first == pytest.approx(second)

    def test_another_reference_resets_what_was_learned_of_its_outputs(self, tmp_path):
        model = wrapped(penalty=OutputSurrogate(probes=4, noisy=2, restarts=2))
        fit(model, epochs=6)
        assert model.terms["tree"].state["penalty/scale"].numpy().all()
        model.save(tmp_path / "model.keras")
        for rows, kept in ((X, True), (X[5:], False)):
            loaded = keras.models.load_model(tmp_path / "model.keras")
            loaded.reference = rows
            assert loaded.terms["tree"].state["penalty/scale"].numpy().any() == kept

    def test_the_same_rows_in_another_order_are_another_reference(self):
        rows = np.round(8 * X) / 8  # whose sums are exact in any order
        first, second = wrapped(), wrapped()
        first.reference, second.reference = rows, rows[::-1]
        found = [model.terms["tree"].source.fingerprint(len(X)) for model in (first, second)]
        assert found[0] != pytest.approx(found[1], rel=1e-6)

    def test_layers_that_are_frozen_change_the_weights(self):
        model = wrapped(penalty=WeightSurrogate())
        model.model.layers[0].trainable = False
        model.compile("sgd", "binary_crossentropy")
        with pytest.raises(ValueError, match="frozen or unfrozen"):
            fit(model)

    def test_every_row_counts_alike_in_the_logs(self):
        model = at_rest()
        first, _ = fit(model, batch_size=len(X))["tree/penalty"]
        parts, _ = fit(model, batch_size=len(X) - 7)["tree/penalty"]
        assert parts == pytest.approx(first, rel=1e-5)

    def test_the_plain_model_is_exported(self, tmp_path):
        model = wrapped()
        model.export(tmp_path / "exported", verbose=False)
        exported = tf.saved_model.load(tmp_path / "exported")
        np.testing.assert_allclose(exported.serve(X[:5]), model.model(X[:5]), rtol=1e-5)

    def test_a_region_without_rows_is_named(self):
        with pytest.raises(ValueError, match="min_samples_leaf") as caught:
            wrapped(regions=lambda rows: ops.cast(ops.ones_like(rows[:, 0]), "int32"))
        assert caught.value.__notes__ == ["This is about region 0 of 2."]

    def test_a_dataset_is_no_reference(self):
        with pytest.raises(ValueError, match=r"Expected arrays as `reference`.*Dataset"):
            wrapped(reference=tf.data.Dataset.from_tensor_slices(X).batch(8))
