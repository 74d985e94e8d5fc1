"""Penalties by a surrogate: what it predicts, what it learns, and how honest its report is."""

import itertools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from scipy.stats import spearmanr

import keras_explain as kx
from keras_explain.trees import OutputSurrogate, WeightSurrogate
from keras_explain.trees.penalties import surrogates
from keras_explain.trees.penalties.base import Network, Sizes, Step

KINDS = [WeightSurrogate, OutputSurrogate]
SMALL = {"kept": 8, "augmented_kept": 12, "noisy": 4, "restarts": 3}
RATE, STRENGTH = 0.25, 0.7


@pytest.fixture(autouse=True)
def _short_fits(request, monkeypatch):
    if request.cls is not TestLearning:
        monkeypatch.setattr(surrogates, "STEPS", 10)


each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def naive_omega(state, v):
    """The surrogate in float64, one unit at a time."""
    state = {name: np.asarray(array, np.float64) for name, array in state.items()}
    hidden = [
        np.tanh(sum(a * b for a, b in zip(v, column, strict=True)) + bias)
        for column, bias in zip(state["kernel"].T, state["bias"], strict=True)
    ]
    raw = [np.dot(hidden, column) for column in state["out"].T] + state["shift"]
    return state["scale"] * np.log1p(np.exp(raw))


def random_state(penalty, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: array if array.dtype.kind == "i" else rng.normal(size=array.shape).astype("float32")
        for name, array in penalty.state(sizes).items()
    }


def step(v):
    return Step(None, None, None, lambda: v, lambda: v)


class Tree:
    def __init__(self, length):
        self.average_path_length = length


class Simple(Network):
    """Weights whose path lengths are known functions of them, and which a test moves."""

    def __init__(self, size=6, regions=1, seed=0):
        self.sizes = Sizes(2, regions, size, size)
        self.epoch, self.asked = 0, []
        self.rng = np.random.default_rng(seed)
        self.slope = self.rng.normal(size=(size, regions))
        self.move()

    def move(self, scale=1.0):
        self.w = (scale * self.rng.normal(size=self.sizes.weights)).astype(np.float32)

    def lengths(self, w):
        return np.log1p(np.exp(w @ self.slope)).astype(np.float32)

    def trees(self, max_leaf_nodes=None):
        assert max_leaf_nodes is None
        return [Tree(float(length)) for length in self.lengths(self.w)]

    def weights(self):
        return self.w

    @property
    def ends(self):
        return [4]

    def outputs(self):
        return self.w / 2

    def at(self, weights):
        self.asked.append(weights)
        return weights / 2, self.lengths(weights)


def refitted(penalty, network, times, state=None, scale=1.0):
    """The states after each of several refits, the weights moving in between."""
    state = penalty.state(network.sizes) if state is None else state
    states = []
    for _ in range(times):
        network.move(scale)
        state = state | penalty.refit(network, state)
        states.append(state)
    return states


def table(rows=120, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)


def net(seed=3):
    keras.utils.set_random_seed(seed)
    large = keras.initializers.RandomNormal(stddev=1.0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "tanh", kernel_initializer=large),
            layers.Dense(1, "sigmoid", kernel_initializer=large),
        ]
    )


def trained(penalty, network, x, **kwargs):
    return kx.TreeRegularization(
        network, reference=x, penalty=penalty, strength=STRENGTH, warmup=0.0, **kwargs
    )


def numbers(model):
    return {
        name: ops.convert_to_numpy(v) for name, v in model.terms["tree"].part("penalty").items()
    }


# In the graph


class TestOmega:
    @each_kind
    def test_is_the_formula(self, kind):
        penalty, sizes = kind(**SMALL), Sizes(2, 3, 7, 7)
        state = random_state(penalty, sizes)
        v = np.random.default_rng(1).normal(size=7).astype(np.float32)
        found = ops.convert_to_numpy(penalty.penalty(state, step(ops.convert_to_tensor(v))))
        assert found.shape == (3,)
        assert found == pytest.approx(naive_omega(state, v), rel=1e-4)

    @each_kind
    def test_is_0_before_the_first_fit(self, kind):
        penalty, network = kind(**SMALL), Simple(regions=2)
        state = refitted(penalty, network, surrogates.FIRST_FIT - 1)[-1]
        v = ops.convert_to_tensor(network.w)
        assert not ops.convert_to_numpy(penalty.penalty(state, step(v))).any()
        state = refitted(penalty, network, 1, state)[-1]
        assert (ops.convert_to_numpy(penalty.penalty(state, step(v))) > 0).all()

    @each_kind
    def test_a_step_of_fit_goes_down_it(self, kind):
        x, network = table(), net()
        model = trained(kind(**SMALL), network, x)
        model.compile(keras.optimizers.SGD(RATE), lambda y, p: 0.0 * ops.mean(p, axis=-1))
        state = random_state(model.options.penalty, model.terms["tree"].sizes)
        for name, variable in model.terms["tree"].part("penalty").items():
            variable.assign(state[name])
        model.terms["tree"].state["fitted"].assign(1.0)  # so that the first epoch begins with these
        probe = model.terms["tree"].source.probe(model.options.penalty.probe_rows)
        before = [w.astype(np.float64) for w in network.get_weights()]
        history = model.fit(x, np.arange(120) % 2, batch_size=120, verbose=0).history

        def naive(w):
            if kind is WeightSurrogate:
                return naive_omega(state, np.concatenate([a.ravel() for a in w]))[0]
            logits = np.tanh(probe @ w[0] + w[1]) @ w[2] + w[3]
            p = 1 / (1 + np.exp(-logits))
            return naive_omega(state, np.concatenate([1 - p, p], axis=1).ravel())[0]

        assert history["tree/penalty"] == [pytest.approx(STRENGTH * naive(before), rel=1e-3)]
        moved = [(a - b) / (RATE * STRENGTH) for a, b in zip(before, network.weights, strict=True)]
        slope = [np.zeros_like(w) for w in before]
        for w, gradient in zip(before, slope, strict=True):
            for at in np.ndindex(w.shape):
                here = w[at]
                w[at] = here + 1e-5
                above = naive(before)
                w[at] = here - 1e-5
                gradient[at] = (above - naive(before)) / 2e-5
                w[at] = here
        scale = max(np.abs(gradient).max() for gradient in slope)
        assert scale > 1e-3
        for found, gradient in zip(moved, slope, strict=True):
            assert np.asarray(found) == pytest.approx(gradient, rel=1e-2, abs=1e-2 * scale)


# What is learned


class TestLearning:
    def test_a_known_function_of_the_weights(self):
        penalty = WeightSurrogate(kept=40, augmented_kept=60, noisy=30, restarts=30, fit_every=40)
        network = Simple(regions=2)
        state = refitted(penalty, network, 40)[-1]
        others = network.rng.normal(size=(50, 6))
        predicted = np.stack([surrogates.omega(state, v.astype(np.float32)) for v in others])
        true = network.lengths(others)
        for region in range(2):
            assert spearmanr(predicted[:, region], true[:, region]).statistic > 0.9

    def test_more_columns_than_rows(self):
        rng = np.random.default_rng(0)
        v, slope = rng.normal(size=(30, 200)).astype(np.float32), rng.normal(size=200)
        lengths = np.log1p(np.exp(v @ slope / 5))[:, None].astype(np.float32)
        state = surrogates.fit(v, lengths, 1e-4, 0)
        predicted = np.array([naive_omega(state, row)[0] for row in v])
        assert np.corrcoef(predicted, lengths[:, 0])[0, 1] > 0.95
        # Nothing was seen across the rows, so nothing is predicted there.
        across = np.linalg.svd(v - v.mean(axis=0))[2][40]
        assert across @ state["kernel"] == pytest.approx(0, abs=1e-4)

    def test_where_the_vectors_lie_makes_no_difference(self):
        v = table()
        lengths = np.log1p(np.exp(v @ np.array([1.0, -2.0, 0.5], "f")))[:, None]
        here = surrogates.fit(v, lengths, 1e-4, 0)
        there = surrogates.fit(v + 5, lengths, 1e-4, 0)
        for row in v[:20]:
            assert naive_omega(there, row + 5) == pytest.approx(naive_omega(here, row), rel=1e-3)

    @each_kind
    def test_the_same_once_more(self, kind):
        first, second = (refitted(kind(**SMALL), Simple(), 5)[-1] for _ in range(2))
        np.testing.assert_equal(first, second)
        other = refitted(kind(**SMALL, seed=1), Simple(), 5)[-1]
        assert not np.array_equal(first["kernel"], other["kernel"])

    def test_path_lengths_that_are_all_0(self):
        state = surrogates.fit(table(), np.zeros((120, 1), np.float32), 0.01, 0)
        assert all(np.isfinite(array).all() for array in state.values())
        assert naive_omega(state, table()[0]) == pytest.approx(0, abs=1e-3)

    def test_vectors_that_are_all_the_same(self):
        state = surrogates.fit(np.ones((10, 4), "f"), np.full((10, 1), 2, np.float32), 0.01, 0)
        assert naive_omega(state, np.ones(4)) == pytest.approx(2, rel=0.05)

    def test_draws_nothing_from_the_generators_of_others(self):
        surrogates._regressor.cache_clear()
        keras.utils.set_random_seed(5)
        expected = random.random(), np.random.random(), float(tf.random.uniform(()))  # noqa: NPY002
        keras.utils.set_random_seed(5)
        refitted(WeightSurrogate(**SMALL), Simple(), 5)
        found = random.random(), np.random.random(), float(tf.random.uniform(()))  # noqa: NPY002
        assert found == expected

    def test_is_compiled_once(self):
        penalty, network = WeightSurrogate(**SMALL), Simple()
        surrogates._regressor.cache_clear()
        refitted(penalty, network, 5)
        strategy = keras.Sequential().distribute_strategy
        key = (6, 1, penalty.weight_decay, penalty.seed, strategy)
        model, _ = surrogates._regressor(*key)
        function = model.train_function
        refitted(penalty, network, 5)
        assert surrogates._regressor.cache_info().misses == 1
        assert model.train_function is function


# The state


class TestState:
    @each_kind
    def test_going_on_from_a_saved_state_is_exact(self, kind):
        penalty, network = kind(**SMALL, fit_every=3), Simple()
        states = refitted(penalty, network, 9)
        network = Simple()
        for _ in range(6):
            network.move()
        again = refitted(penalty, network, 3, {k: v.copy() for k, v in states[5].items()})
        for name, array in states[-1].items():
            np.testing.assert_array_equal(array, again[-1][name])

    @each_kind
    def test_shapes_stay(self, kind):
        penalty, network = kind(**SMALL, fit_every=2), Simple(regions=3)
        before = penalty.state(network.sizes)
        for state in refitted(penalty, network, 12):
            assert state.keys() == before.keys()
            for name, array in before.items():
                assert (state[name].shape, state[name].dtype) == (array.shape, array.dtype)

    def test_the_latest_refits_are_kept(self):
        penalty, network = WeightSurrogate(**SMALL, fit_every=100), Simple()
        state, seen = penalty.state(network.sizes), []
        for _ in range(11):
            network.move()
            seen.append(network.w)
            state = state | penalty.refit(network, state)
        assert state["refits"] == 11
        kept = {tuple(row) for row in state["seen"]}
        assert kept == {tuple(w) for w in seen[3:]}
        np.testing.assert_allclose(state["lengths"], network.lengths(state["seen"]), rtol=1e-6)

    def test_the_latest_augmented_weights_are_kept(self):
        penalty, network = OutputSurrogate(**SMALL, fit_every=2), Simple()
        state = refitted(penalty, network, 6)[-1]  # fits at 2, 4, 5 and 6
        assert state["augmentations"] == len(network.asked) == 4 * 7
        kept = {tuple(row) for row in state["augmented"]}
        assert kept == {tuple(w / 2) for w in network.asked[-12:]}
        lengths = network.lengths(2 * state["augmented"])
        np.testing.assert_allclose(state["augmented_lengths"], lengths, rtol=1e-5)

    def test_more_is_augmented_than_kept(self):
        penalty = WeightSurrogate(kept=3, augmented_kept=2, noisy=3, restarts=0, mixtures=0)
        network = Simple()
        state = refitted(penalty, network, 5)[-1]
        assert {tuple(w) for w in state["augmented"]} == {tuple(w) for w in network.asked[-2:]}

    @each_kind
    def test_without_augmentation(self, kind):
        without = {"noisy": 0, "restarts": 0} | ({"mixtures": 0} if kind is WeightSurrogate else {})
        network = Simple()
        state = refitted(kind(**without), network, 5)[-1]
        assert not network.asked
        assert state["scale"].all()

    @each_kind
    def test_regions(self, kind):
        sizes = Sizes(2, 3, 6, 6)
        state = kind(**SMALL).state(sizes)
        assert state["out"].shape == (surrogates.UNITS, 3)
        assert state["lengths"].shape == state["predicted"].shape == (8, 3)

    def test_a_model_that_is_too_large(self):
        penalty = WeightSurrogate(max_weights=50)
        penalty.check(Sizes(2, 1, 50, 0))
        with pytest.raises(ValueError, match=r"at most 50 .* 51\. .*TreeDistillation.*OutputSurr"):
            penalty.check(Sizes(2, 1, 51, 0))
        OutputSurrogate().check(Sizes(2, 1, 10**7, 128))
        with pytest.raises(ValueError, match="at most 10 trainable weights"):
            trained(WeightSurrogate(max_weights=10), net(), table())

    @each_kind
    @pytest.mark.parametrize(
        "wrong",
        [{"fit_every": 0}, {"kept": 2}, {"noisy": -1}, {"restarts": 0.5}, {"weight_decay": -1.0}],
        ids=str,
    )
    def test_wrong_arguments(self, kind, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            kind(**wrong)

    @each_kind
    def test_is_a_configuration(self, kind):
        penalty = kind(**SMALL)
        assert kind.from_config(penalty.get_config()) == penalty


# Augmentation


class TestAugmentation:
    weights = np.concatenate([np.full(30, 5.0), table().ravel()]).astype(np.float32)

    def test_noise_is_in_proportion_to_each_tensor(self):
        scaled = self.weights.copy()
        scaled[200:] *= 100
        noise = surrogates.noisy_weights(scaled, [30, 200], 400, 0, 0) - scaled
        assert not noise[:, :30].any()  # all entries are the same
        level = [noise[:, 30:200].std(axis=1) / scaled[30:200].std()]
        level.append(noise[:, 200:].std(axis=1) / scaled[200:].std())
        assert level[0] == pytest.approx(level[1], rel=0.2)
        low, high = surrogates.NOISE
        assert 0.8 * low < level[0].min() < 1.5 * low
        assert 0.7 * high < level[0].max() < 1.2 * high

    def test_permutations_stay_in_their_tensor(self):
        made = surrogates.permuted(self.weights, [30, 200], 5, 0, 0)
        assert made.shape == (5, 390)
        for row in made:
            for part in (slice(0, 30), slice(30, 200), slice(200, None)):
                assert sorted(row[part]) == sorted(self.weights[part])
        assert len({tuple(row) for row in made}) == 5

    def test_mixtures_are_means(self):
        recent = np.eye(4, dtype=np.float32)
        shares = surrogates.mixtures(recent, 3000, 0, 0)
        assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert (shares >= 0).all()
        # Dirichlet(1, 1, 1, 1): mean 1/4, variance 3/80.
        assert shares.mean(axis=0) == pytest.approx(1 / 4, abs=0.02)
        assert shares.var(axis=0) == pytest.approx(3 / 80, abs=0.005)

    def test_fits_draw_other_numbers(self):
        penalty, network = WeightSurrogate(**SMALL, fit_every=1, mixtures=0), Simple(size=60)
        network.move = lambda scale: None
        refitted(penalty, network, 3)
        assert len({tuple(w) for w in network.asked}) == 3 * 7


# The honest fit


class TestHonestFit:
    def test_of_a_hand_made_state(self):
        penalty, sizes = OutputSurrogate(**SMALL), Sizes(2, 2, 6, 6)
        state = penalty.state(sizes)
        state["lengths"][:5] = [[1, 3], [2, 1], [3, 2], [4, 4], [9, 9]]
        state["predicted"][:4] = [[1, 3], [2, 1], [3, 2], [6, 1.5]]
        found = penalty.scalars(state)
        # Ranks: the same; and 3, 1, 2, 4 against 4, 1, 3, 2.
        assert found["surrogate_rank_correlation"] == pytest.approx((1 + 0.4) / 2)
        assert found["surrogate_r2"] == pytest.approx(((1 - 4 / 5) + (1 - 6.25 / 5)) / 2)

    def test_is_not_known_before_three_weights_came_after_the_fit(self):
        penalty, network = OutputSurrogate(**SMALL, fit_every=100), Simple()
        for refits, state in enumerate(refitted(penalty, network, 10), 1):
            known = refits >= surrogates.FIRST_FIT + 3
            found = penalty.scalars(state)
            assert np.isfinite(found["surrogate_rank_correlation"]) == known
            assert np.isfinite(found["surrogate_r2"]) == known

    def test_is_of_predictions_made_before_the_weights_were_learned_from(self):
        penalty, network = WeightSurrogate(**SMALL, fit_every=7), Simple()
        *_, before, at = refitted(penalty, network, 7)
        place = 6
        assert np.isnan(before["predicted"][place]).all()
        expected = naive_omega(before, at["seen"][place])
        assert at["predicted"][place] == pytest.approx(expected, rel=1e-4)
        assert at["predicted"][place] != pytest.approx(naive_omega(at, at["seen"][place]), rel=1e-4)

    def test_of_path_lengths_that_are_all_the_same(self):
        found = surrogates.honest_fit(np.arange(4.0)[:, None], np.ones((4, 1)))
        assert np.isnan(list(found.values())).all()

    def test_of_predictions_that_are_all_the_same(self):
        found = surrogates.honest_fit(np.full((4, 1), 1.5), np.arange(4.0)[:, None])
        assert np.isnan(found["surrogate_rank_correlation"])
        assert found["surrogate_r2"] == pytest.approx(0)


# In a model that trains


class TestTraining:
    @each_kind
    def test_the_surrogate_changes_only_at_refits(self, kind):
        x = table()
        model = trained(kind(**SMALL, fit_every=5), net(), x, refit_every=2)
        model.compile("adam", "binary_crossentropy")
        states = []
        look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: states.append(numbers(model)))
        # Refits before the first epoch, at the end of each second, and of the last.
        history = model.fit(
            x, x[:, 0] * x[:, 1] > 0, epochs=9, verbose=0, callbacks=[look], shuffle=False
        ).history
        assert [int(state["refits"]) for state in states[::2]] == [1, 2, 3, 4, 6]
        for before, after in itertools.pairwise(states):
            same = {name: np.array_equal(before[name], after[name], True) for name in before}
            assert all(same.values()) == (before["refits"] == after["refits"])
        assert states[-1]["refits"] == 6
        penalties = np.array(history["tree/penalty"])
        assert not penalties[:8].any()  # the first fit is the fifth refit
        assert (penalties[8:] > 0).all()
        for variable in model.terms["tree"].part("penalty").values():
            assert not any(variable is trainable for trainable in model.trainable_variables)

    def test_weights_are_as_before_when_others_were_measured(self):
        network = net()
        live = trained(OutputSurrogate(**SMALL), network, table()).terms["tree"].network()
        before, outputs = network.get_weights(), live.outputs()
        other = np.zeros(live.sizes.weights, np.float32)
        found, lengths = live.at(other)
        assert found == pytest.approx(0.5)
        assert lengths == [0]
        for a, b in zip(before, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        found, _ = live.at(live.weights())
        np.testing.assert_array_equal(found, outputs)

    def test_weights_are_as_before_after_an_error(self):
        network = net()
        live = trained(WeightSurrogate(**SMALL), network, table()).terms["tree"].network()
        before = network.get_weights()
        with pytest.raises(FloatingPointError, match="finite"):
            live.at(np.full(live.sizes.weights, np.nan, np.float32))
        for a, b in zip(before, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_tensors_of_a_model(self):
        live = trained(WeightSurrogate(**SMALL), net(), table()).terms["tree"].network()
        assert live.ends == [12, 16, 20]
        kernel, bias, _, last = np.split(live.weights(), live.ends)
        assert kernel == pytest.approx(live._reader.model.layers[0].kernel.numpy().ravel())
        assert (bias.size, last.size) == (4, 1)
