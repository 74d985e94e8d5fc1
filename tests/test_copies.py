"""What a user holds can be copied and pickled, and a copy that logs has a place of its own."""

import copy
import pickle
import threading
from concurrent import futures

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_explain as kx
from keras_explain.callbacks import ExplanationLogger
from keras_explain.sinks import Memory, TensorBoard
from keras_explain.tensorboard.local import local_reader
from tests import check

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda one: pickle.loads(pickle.dumps(one))}
EXPLAINERS = {cls.__name__: cls for cls in check.explainer_classes()}
X = np.random.default_rng(0).normal(size=(8, 6, 5, 1)).astype(np.float32)
Y = np.arange(8) % 3


@pytest.fixture(params=COPIES.values(), ids=COPIES)
def copied(request):
    return request.param


def classifier():
    model = keras.Sequential(
        [keras.Input((6, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(*callbacks, model=None, **options):
    (model or classifier()).fit(X, Y, callbacks=list(callbacks), verbose=0, **options)


def logger(log_dir, **options):
    return ExplanationLogger(
        ["saliency", kx.IntegratedGradients(steps=2)], X[:3], Y[:3], log_dir=log_dir, **options
    )


def scores(directory):
    """Step -> score of every event in a directory, as they were written."""
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()
    return [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in accumulator.Tensors("explain/saliency/score")
    ]


def recorded(memory):
    return [(r.step, r.scalars["score"]) for r in memory.records if r.name == "saliency"]


MODEL = classifier()


class TestConfigurations:
    @pytest.mark.parametrize("name", EXPLAINERS)
    def test_explainers(self, copied, name):
        explainer = check.explainer_for(EXPLAINERS[name], X, MODEL)
        assert copied(explainer) == explainer
        assert hash(copied(explainer)) == hash(explainer)

    @pytest.mark.parametrize(
        "one",
        [
            kx.targets.Class([0, 1, 2], of="probability"),
            kx.targets.Label(Y),
            kx.targets.Neuron("dense", 1),
            kx.targets.Region(1, mask=np.ones((6, 5))),
            kx.targets.Regression(),
            kx.targets.Function(len),
            kx.baselines.Noise(),
            kx.features.Tokens(vocabulary=["a", "b"]),
            kx.trees.TreeDistillation(),
        ],
        ids=lambda one: type(one).__name__,
    )
    def test_targets_baselines_features_and_penalties(self, copied, one):
        assert copied(one) == one  # which caches what they are told apart by
        assert copied(one) == one

    def test_a_function_that_is_no_plain_one(self, copied):
        tokens = kx.features.Tokens(tokenizer=str.split)
        assert hash(tokens) == hash(copied(tokens))
        assert copied(tokens) == tokens

    def test_a_tokenizer_that_is_a_layer(self, copied):
        layer = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
        tokens = kx.features.Tokens(tokenizer=layer)
        assert (copied(tokens).ids(["a b", "b"]) == tokens.ids(["a b", "b"])).all()

    def test_explanations_and_trees(self, copied):
        model = classifier()
        explanation = kx.IntegratedGradients(steps=2)(model, X, Y)
        found = copied(explanation)
        assert (found.values == explanation.values).all()
        assert (found.target, found.explainer) == (explanation.target, explanation.explainer)
        assert (copied(model)(X) == model(X)).numpy().all()  # with all that is compiled

    def test_records(self, copied):
        memory = Memory()
        fit(logger("unused", sinks=[memory]))
        (first, _), _ = found = copied(memory).records, None
        assert first.scalars == memory.records[0].scalars
        found[0].clear()
        assert len(memory.records) == 2


class TestLoggers:
    @pytest.fixture(params=[copy.deepcopy, pytest.param(COPIES["pickle"], marks=pytest.mark.slow)])
    @classmethod
    def copied(cls, request):
        return request.param

    def test_a_copy_has_no_model_and_has_seen_no_training(self, copied, tmp_path):
        memory = Memory()
        used = logger(tmp_path, sinks=[memory])
        fit(used, epochs=2)
        fresh = copied(used)
        assert fresh.model is None
        fresh.sinks[0].clear()
        fit(fresh, epochs=2)
        assert [step for step, _ in recorded(fresh.sinks[0])] == [0, 1]
        assert "drift" not in fresh.sinks[0].records[0].scalars
        assert len(memory.records) == 4

    @pytest.mark.slow
    def test_copies_trained_one_after_another(self, copied, tmp_path):
        """As KerasTuner does: a copy for each trial, of a logger that is never trained."""
        memories = []
        original = logger(tmp_path, sinks=[TensorBoard(tmp_path), Memory()])
        for _ in range(2):
            trial = copied(original)
            assert trial.sinks[0].directory is None
            fit(trial, epochs=2)
            memories.append(trial.sinks[1])
        fit(copied(trial), epochs=1)  # of a copy
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["copy_1", "copy_2", "copy_3"]
        for name, memory in zip(names[:2], memories, strict=True):
            assert len(list((tmp_path / name / "explain").iterdir())) == 1
            np.testing.assert_allclose(
                scores(tmp_path / name / "explain"), recorded(memory), rtol=1e-6
            )
        fit(original)
        assert original.sinks[0].directory == str(tmp_path / "explain")
        assert sorted(local_reader(str(tmp_path)).runs()["runs"]) == ["", *names]

    def test_copies_trained_at_the_same_time(self, copied, tmp_path):
        original = logger(tmp_path, sinks=[TensorBoard(tmp_path), Memory()])
        trials = [original, *(copied(original) for _ in range(3))]
        at_once = threading.Barrier(len(trials))

        def train(trial):
            model = classifier()
            at_once.wait()
            fit(trial, model=model, epochs=4)
            return trial.sinks[0].directory, recorded(trial.sinks[1])

        with futures.ThreadPoolExecutor(len(trials)) as pool:
            found = dict(pool.map(train, trials))
        expected = {f"copy_{number}/explain" for number in (1, 2, 3)} | {"explain"}
        assert set(found) == {str(tmp_path / name) for name in expected}
        for directory, memory in found.items():
            assert [step for step, _ in memory] == [0, 1, 2, 3]
            np.testing.assert_allclose(scores(directory), memory, rtol=1e-5)

    def test_one_that_is_in_training(self, copied, tmp_path):
        copies = []

        class Copy(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                copies.append(copied(used))

        used = logger(tmp_path)
        fit(used, Copy(), epochs=2)
        fit(copies[0])
        assert [step for step, _ in scores(tmp_path / "explain")] == [0, 1]
        assert [step for step, _ in scores(tmp_path / "copy_1" / "explain")] == [0]


def test_a_copied_tree_regularization_logs_to_a_place_of_its_own(copied, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    net.compile("sgd", "binary_crossentropy")
    model = kx.TreeRegularization(net, reference=x, log_dir=tmp_path, warmup=0.0)
    model.compile("sgd", "binary_crossentropy")
    found = copied(model)
    found.reference = x
    for one in (model, found):
        one.fit(x, y, epochs=1, verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy_1", "explain"]
    assert (found.model.get_weights()[0] == model.model.get_weights()[0]).all()
