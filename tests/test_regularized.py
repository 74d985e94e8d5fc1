"""`Regularized`: terms of the loss, a user's own among them, and what goes with them."""

import copy
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.config import deserialize, serialize
from keras_explain.training.schedule import TermsCallback
from tests import check

SAVED = Path(__file__).parent / "data" / "tree_regularization.keras"
ROWS = 96
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.8).astype(np.float32)


class LogitPenalty(kx.terms.Term):
    def loss(self, batch):
        return ops.mean(ops.square(batch.y_pred))


class UnitPenalty(kx.terms.Term):
    """Of a layer's units, around a centre that is fitted to the model between epochs."""

    layer: str = "hidden"

    @property
    def layers(self):
        return (self.layer,)

    def state(self, model):
        return {"centre": np.zeros(5), "refits": np.zeros((), int)}

    def refit(self, model, state):
        bias = ops.convert_to_numpy(model.get_layer("hidden").bias)
        return {"centre": bias + 1, "refits": state["refits"] + 1}

    def loss(self, batch):
        return ops.mean(ops.square(batch.outputs[self.layer] - batch.state["centre"]))

    def scalars(self, state):
        return {"refits": float(state["refits"])}


def network(*, seed=3):
    """A network that returns logits."""
    keras.utils.set_random_seed(seed)
    large = keras.initializers.RandomNormal(stddev=1.0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, "tanh", kernel_initializer=large, name="hidden"),
            layers.Dense(1, kernel_initializer=large),
        ]
    )


def compiled(model, rate=0.1, **options):
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, **options)
    return model


def regularized(*terms, rate=0.1, **options):
    return compiled(kx.Regularized(network(), list(terms)), rate, **options)


def fit(model, **options):
    given = {"batch_size": ROWS, "epochs": 2, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, **given).history


def tree_term(**options):
    return kx.terms.Tree(**({"reference": X, "warmup": 0.0} | options))


def logits(model):
    return model.predict(X, verbose=0).astype(np.float64)


def equal(weights, others):
    return all((a == b).all() for a, b in zip(weights, others, strict=True))


class TestTwoTerms:
    @pytest.mark.parametrize("jit_compile", check.first_of([False, True], 1))
    def test_are_both_in_the_loss_and_in_the_logs(self, jit_compile):
        model = regularized(
            tree_term(), LogitPenalty(strength=0.25), rate=0.0, jit_compile=jit_compile
        )
        history = fit(model, epochs=1, validation_data=(X, Y))
        tree = kx.TreeRegularization(network(), reference=X, warmup=0.0)
        alone = fit(compiled(tree, rate=0.0), epochs=1)
        mine = 0.25 * np.mean(logits(model) ** 2)
        assert history["logit_penalty/penalty"] == pytest.approx([mine], rel=1e-5)
        assert {"tree/apl", "tree/leaves", "tree/fidelity"} < set(history)
        assert history["tree/penalty"] == pytest.approx(alone["tree/penalty"], rel=1e-5)
        task = history["val_loss"][0]
        expected = task + mine + alone["tree/penalty"][0]
        assert history["loss"] == pytest.approx([expected], rel=1e-5)
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(task, rel=1e-6)

    def test_a_step_goes_down_both(self):
        """The gradient by the last bias, by hand."""
        plain, model = compiled(network()), regularized(LogitPenalty(strength=0.5))
        squared = regularized(LogitPenalty(strength=0.5), LogitPenalty(strength=0.25, name="b"))
        start = logits(plain)
        moved = []
        for one in (plain, model, squared):
            fit(one, epochs=1)
            moved.append(one.trainable_variables[3].numpy()[0])
        slope = 2 * start.mean()
        assert moved[1] - moved[0] == pytest.approx(-0.1 * 0.5 * slope, rel=1e-4)
        assert moved[2] - moved[0] == pytest.approx(-0.1 * 0.75 * slope, rel=1e-4)

    def test_have_their_own_schedules(self):
        late = LogitPenalty(strength=0.1, warmup=0.5, name="late")
        history = fit(regularized(LogitPenalty(strength=0.1), late, rate=0.0), epochs=4)
        first, second = history["logit_penalty/penalty"], history["late/penalty"]
        assert first == pytest.approx([first[0]] * 4)
        assert second == pytest.approx([0, 0, first[0], first[0]])

    def test_are_saved_and_go_on(self, tmp_path):
        model = regularized(tree_term(refit_every=2), UnitPenalty(strength=0.3, name="units"))
        fit(model)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded) is kx.Regularized
        assert equal(model.get_weights(), loaded.get_weights())
        found = {name: live.term for name, live in loaded.terms.items()}
        assert found == {name: live.term for name, live in model.terms.items()}
        with pytest.raises(ValueError, match="Expected `reference`"):
            fit(loaded)
        loaded.terms["tree"].reference = X
        assert fit(loaded) == fit(model)
        assert equal(model.get_weights(), loaded.get_weights())
        assert loaded.terms["tree"].tree.to_dict() == model.terms["tree"].tree.to_dict()

    def test_copies_train_by_themselves(self):
        model = regularized(UnitPenalty())
        other = copy.deepcopy(model)
        assert fit(other) == fit(model)

    def test_the_plain_model_is_in_it(self):
        model = regularized(tree_term(), LogitPenalty())
        fit(model, epochs=1)
        assert (model.predict(X, verbose=0) == model.model.predict(X, verbose=0)).all()


class TestOwnTerms:
    def test_state_is_fitted_between_epochs(self):
        model = regularized(UnitPenalty(strength=2.0, refit_every=2), rate=0.0)
        hidden = model.model.get_layer("hidden")
        history = fit(model, epochs=4)
        units = np.tanh(X.astype(np.float64) @ hidden.kernel.numpy() + hidden.bias.numpy())
        expected = 2 * np.mean((units - hidden.bias.numpy() - 1) ** 2)
        assert history["unit_penalty/penalty"] == pytest.approx([expected] * 4, rel=1e-5)
        assert history["unit_penalty/refits"] == [1, 2, 2, 3]  # the first before training

    def test_layers_by_path_in_a_nested_model(self):
        class Units(kx.terms.Term):
            path: str

            @property
            def layers(self):
                return (self.path,)

            def loss(self, batch):
                return ops.mean(ops.square(batch.outputs[self.path]))

        flat, inner = network(), network()
        nested = keras.Sequential([keras.Input((3,)), inner])
        paths = {"hidden": flat, f"{inner.name}/hidden": nested}
        models = [compiled(kx.Regularized(net, [Units(path=path)])) for path, net in paths.items()]
        first, second = map(fit, models)
        assert first == second
        assert min(first["units/penalty"]) > 0

    def test_a_step_by_hand(self):
        model = regularized(LogitPenalty(strength=0.5), UnitPenalty(), rate=0.0)
        task = float(model.evaluate(X, Y, verbose=0))
        assert float(model.train_on_batch(X, Y)) == pytest.approx(task)  # not begun
        model.begin_epoch(0.5)
        model.refit()
        assert model.terms["unit_penalty"].state["refits"].numpy() == 1
        model.reset_metrics()
        found = float(model.train_on_batch(X, Y))
        penalties = [live.penalty for live in model.terms.values()]
        assert penalties[0] == pytest.approx(0.25 * np.mean(logits(model) ** 2), rel=1e-5)
        assert min(penalties) > 0
        assert found == pytest.approx(task + sum(penalties), rel=1e-5)

    def test_its_penalty_is_that_of_the_epoch_alone(self):
        one, two = (regularized(LogitPenalty(strength=0.5)) for _ in range(2))
        fit(one, epochs=1)
        expected = 0.5 * np.mean(logits(one) ** 2)
        penalties = fit(two, epochs=2)["logit_penalty/penalty"]
        assert penalties[1] == pytest.approx(expected, rel=1e-5)
        assert penalties[0] != pytest.approx(expected, rel=0.01)

    def test_one_that_takes_away_adds_something(self):
        class Reward(kx.terms.Term):
            def loss(self, batch):
                return -ops.mean(ops.square(batch.y_pred))

        assert max(fit(regularized(Reward(strength=0.1)))["reward/penalty"]) < 0  # and no warning

    def test_one_that_adds_nothing_is_warned_about_by_name(self):
        class Nothing(kx.terms.Term):
            def loss(self, batch):
                return 0.0 * ops.mean(batch.y_pred)

        with pytest.warns(RuntimeWarning, match=r"0 in all epochs.*'nothing'") as said:
            fit(regularized(Nothing(), LogitPenalty()))
        assert len(said) == 1


class TestStrengthZero:
    def test_and_no_terms_is_the_plain_training(self):
        terms = [[], [LogitPenalty(strength=0.0), tree_term(strength=0)]]
        models = [compiled(network())] + [regularized(*some) for some in terms]
        found = []
        for model in models:
            keras.utils.set_random_seed(1)
            found.append((fit(model, shuffle=True, batch_size=32), model))
        for history, model in found[1:]:
            assert history == found[0][0]
            assert equal(model.model.get_weights(), found[0][1].get_weights())

    def test_needs_no_callback(self, monkeypatch):
        monkeypatch.delattr(TermsCallback, "__init__")
        fit(regularized(LogitPenalty(strength=0)), epochs=1)


class TestTreeRegularization:
    def test_is_one_with_a_tree_term(self):
        options = {"penalty": kx.trees.PathLength(), "refit_every": 2, "seed": 4}
        model = compiled(kx.TreeRegularization(network(), reference=X, warmup=0.0, **options))
        other = regularized(tree_term(**options))
        assert isinstance(model, kx.Regularized)
        assert fit(model) == fit(other)
        assert equal(model.get_weights(), other.get_weights())
        assert model.options == other.terms["tree"].term == tree_term(**options)

    def test_a_file_of_before_there_were_terms(self):
        """Written by Keras 3.11."""
        model = keras.saving.load_model(SAVED)
        penalty = kx.trees.PathLength(tau=0.02, max_leaf_nodes=4)
        assert model.options == kx.terms.Tree(
            reference=X, strength=0.5, warmup=0.0, regions=2, penalty=penalty, seed=1,
            feature_names=["a", "b", "c"], min_samples_leaf=3,
        )  # fmt: skip
        assert model.predict(X[:2], verbose=0)[:, 0] == pytest.approx([0.4152073, 0.4700133])
        assert model.fitted
        assert model.current_strength == 0.5
        state = {name: v.numpy() for name, v in model.terms["tree"].state.items()}
        assert state["measured"] == pytest.approx([1, 4, 0.8888889])
        assert state["region/scale"] == pytest.approx([1.0958753, 1.0094050, 0.9597167])
        assert state["penalty/threshold"][:, 0] == pytest.approx([-0.7747863, 0.2604551])
        assert state["penalty/feature"][:, 0].tolist() == [2, 0]
        assert state["penalty/label"][:, 0].tolist() == [[0, 1], [1, 0]]
        model.reference = X
        assert [tree.leaves for tree in model.tree.trees] == [2, 2]
        assert "c <= -0.7748" in model.tree.to_text()
        penalties = fit(model, batch_size=32)["tree/penalty"]
        assert penalties == pytest.approx([0.4439980, 0.5835790], rel=1e-4)


class TestTermsAsConfigurations:
    def test_data_is_no_part_of_them(self):
        first, second = kx.terms.Tree(reference=X, prune_on=X), kx.terms.Tree(reference=X[:9])
        assert first == second != kx.terms.Tree(reference=X, seed=1)
        assert hash(first) == hash(second)
        assert repr(first) == "Tree()"
        assert first.reference is X
        assert first.replace(seed=1).reference is X
        description = serialize(first)
        assert description["class_name"] == "terms/Tree"
        assert not {"reference", "prune_on"} & set(description["config"])
        assert deserialize(description) == first
        assert pickle.loads(pickle.dumps(first)) == first

    def test_a_description_waits_for_its_reference(self):
        term = deserialize(serialize(kx.terms.Tree(reference=X)))
        model = kx.Regularized(network(), [term])
        assert not model.built
        with pytest.raises(ValueError, match="Expected `reference`"):
            kx.terms.Tree()

    @pytest.mark.parametrize(
        "wrong", [{"strength": -1.0}, {"warmup": 1.5}, {"ramp": "half"}, {"refit_every": 0}]
    )
    def test_wrong_arguments(self, wrong):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}`"):
            LogitPenalty(**wrong)


class TestBadInput:
    def test_no_terms(self):
        with pytest.raises(TypeError, match="Expected a list of terms"):
            kx.Regularized(network(), LogitPenalty())
        with pytest.raises(TypeError, match=r"Expected terms such as.*Saliency"):
            kx.Regularized(network(), [kx.Saliency()])

    def test_two_of_one_name(self):
        with pytest.raises(ValueError, match="'logit_penalty' twice"):
            kx.Regularized(network(), [LogitPenalty(), LogitPenalty(strength=2.0)])

    def test_a_loss_that_is_no_number(self):
        class Rows(kx.terms.Term):
            def loss(self, batch):
                return ops.square(batch.y_pred)

        with pytest.raises(ValueError, match=r"`loss` of Rows to be one number"):
            fit(regularized(Rows()))

    def test_a_layer_that_is_not_there(self):
        with pytest.raises(ValueError, match=r"hiden.*hidden"):
            fit(regularized(UnitPenalty(layer="hiden")))

    def test_an_unbuilt_model(self):
        with pytest.raises(ValueError, match="Expected a built model"):
            kx.Regularized(keras.Sequential([layers.Dense(1)]), [])
