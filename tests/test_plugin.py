"""The Explain tab's routes: of good logs, of broken ones, and of a real TensorBoard."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard import default, program
from tensorboard.backend import application
from werkzeug import test as werkzeug

import keras_explain as kx
from keras_explain.plots import ranges
from keras_explain.sinks import Memory, TensorBoard, events
from keras_explain.tensorboard.local import local_reader
from keras_explain.tensorboard.plugin import Loader
from keras_explain.tensorboard.reader import Cache
from keras_explain.tensorboard.restarts import surviving
from tests import logs
from tests.server import server, wait_for

ROUTE = "/data/plugin/keras_explain/"


class Client:
    """Asks a TensorBoard in this process, which has read everything once."""

    def __init__(self, log_dir):
        board = program.TensorBoard(plugins=[*default.get_static_plugins(), Loader()])
        board.configure(
            argv=[
                "tensorboard",
                f"--logdir={log_dir}",
                "--load_fast=false",
                "--reload_interval=0",
                "--reload_task=blocking",
            ]
        )
        ingester = board._make_data_ingester()
        ingester.start()
        app = application.TensorBoardWSGIApp(
            board.flags,
            board.plugin_loaders,
            ingester.data_provider,
            deprecated_multiplexer=ingester.deprecated_multiplexer,
        )
        self._client = werkzeug.Client(app)

    def __call__(self, route, **query):
        address = route if route.startswith("/data/") else ROUTE + route
        return self._client.get(address, query_string=query)

    def json(self, route, status=200, **query):
        answer = self(route, **query)
        assert answer.status_code == status, answer.data
        assert answer.content_type.startswith("application/json")
        return json.loads(answer.data, parse_constant=pytest.fail)

    def step(self, run, step):
        answer = self("step", run=run, step=step)
        assert answer.status_code == 200, answer.data
        return logs.opened(answer.data)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """Runs at the top and nested, scalars of Keras's callback, and a run of something else."""
    top = tmp_path_factory.mktemp("logs")
    logs.write(top)
    logs.write(top / "nested" / "deep", steps=2, methods=["occlusion"])
    logs.write_restarted(top / "restarted")
    logs.write_restarted(top / "fewer", methods=["grad_cam"], **logs.fewer(2))
    logs.write_resumed(top / "resumed")
    logs.write_scalars(top / "train", "epoch_loss", [3.0, float("nan"), 1.0])
    logs.write_scalars(top / "validation", "epoch_loss", [4.0])
    logs.write_scalars(top / "other", "epoch_loss", [5.0])
    logs.write_scalars(top / "nested" / "deep" / "train", "loss", [6.0])
    return top


@pytest.fixture(scope="module")
def client(log_dir):
    return Client(log_dir)


class TestRoutes:
    def test_runs(self, client):
        answer = client.json("runs")
        assert answer["schema"] == 1
        assert answer["problems"] == []
        assert list(answer["runs"]) == ["", "fewer", "nested/deep", "restarted", "resumed"]
        top, deep = answer["runs"][""], answer["runs"]["nested/deep"]
        assert top["methods"] == ["grad_cam", "saliency"]
        assert top["steps"] == list(range(logs.STEPS))
        assert top["trees"] == [0, 4, 8]
        assert top["predictions"] is True
        assert top["scalars"] == [
            "explain/grad_cam/score",
            "explain/saliency/score",
            "train/epoch_loss",
            "validation/epoch_loss",
        ]
        assert (deep["methods"], deep["steps"]) == (["occlusion"], [0, 1])
        assert deep["scalars"] == ["explain/occlusion/score", "train/loss"]
        samples = top["samples"]
        assert (samples["kind"], samples["count"], samples["shape"]) == ("pictures", 3, [6, 5, 3])
        assert samples["labels"] == [0, 1, 0]
        assert samples["class_names"] == list(logs.NAMES)

    def test_the_maps_of_a_step_are_those_that_were_recorded(self, client):
        header, blobs = client.step("", 7)
        assert (header["schema"], header["step"], header["problems"]) == (1, 7, [])
        found = [(one["method"], one["sample"]) for one in header["maps"]]
        assert found == [(method, i) for method in logs.METHODS for i in range(logs.SAMPLES)]
        assert sum(one["count"] for one in header["maps"]) == len(blobs)
        for one in header["maps"]:
            record, sample = logs.record(7, one["method"]), one["sample"]
            (ends,) = one["range"]
            half = (ends[1] - ends[0]) / (2 ** one["bits"] - 1) / 2
            values = logs.values(one, blobs)[0]
            assert np.abs(values - record.maps[sample]).max() <= half * 1.001
            assert one["scores"] == [record.explanation.scores[sample]]
            assert (one["classes"], one["predicted"], one["probability"]) == ([0], 1, 0.75)
            assert (one["limit"], one["signed"]) == (1.5, True)

    def test_the_picture_of_an_input(self, client):
        answer = client("picture", run="", sample=2)
        assert answer.content_type == "image/png"
        assert (logs.tf.io.decode_png(answer.data).numpy() == logs.record(0).pictures[2]).all()
        assert "max-age" in answer.headers["Cache-Control"]
        assert "no-cache" in client("runs").headers["Cache-Control"]

    def test_scalars_of_the_run_and_of_the_directories_beside(self, client):
        ours = client.json("scalars", run="", tag="explain/saliency/score")
        steps = list(range(logs.STEPS))
        assert ours == {"steps": steps, "values": [step / 2 for step in steps]}
        train = client.json("scalars", run="", tag="train/epoch_loss")
        assert train == {"steps": [0, 1, 2], "values": [3.0, None, 1.0]}

    def test_trees(self, client):
        answer = client.json("tree", run="", step=4)
        trees = [{"region": None, "tree": logs.TREE}]
        assert answer == {"schema": 1, "rows": "inputs", "trees": trees}

    def test_predictions_of_all_steps(self, client):
        answer = client.json("predictions", run="nested/deep")
        assert answer["steps"] == [0, 1]
        assert answer["predicted"] == [[0, 0, 0], [1, 1, 1]]
        assert answer["probability"] == [[0.75] * 3] * 2

    @pytest.mark.parametrize(
        ("route", "query", "status"),
        [
            ("step", {"run": "nobody", "step": 0}, 404),
            ("step", {"run": "", "step": 99}, 404),
            ("step", {"run": "", "step": "x"}, 400),
            ("step", {"run": "", "step": "9" * 5000}, 400),
            ("step", {"run": "", "step": "9" * 20}, 400),
            ("step", {"run": ""}, 400),
            ("picture", {"run": "", "sample": 3}, 404),
            ("picture", {"run": "", "sample": -1}, 404),
            ("scalars", {"run": "", "tag": "epoch_loss"}, 404),
            ("tree", {"run": "", "step": 1}, 404),
            ("predictions", {"run": "../.."}, 404),
        ],
    )
    def test_what_is_not_there_is_said(self, client, route, query, status):
        error = client.json(route, status, **query)["error"]
        assert error.startswith("Expected")
        assert "Received" in error

    def test_the_page_s_files(self, client):
        answer = client("static/index.js")
        assert answer.status_code == 200
        assert answer.content_type.startswith("text/javascript")
        assert b"export" in answer.data

    @pytest.mark.parametrize(
        "path",
        [
            "../plugin.py",
            "%2e%2e/plugin.py",
            "..%2fplugin.py",
            "..\\plugin.py",
            "/etc/passwd",
            "../static/../report.js",
            "",
            "nothing.js",
            "nothing.js%00",
            "index.js%00",
            ".",
            "a" * 5000 + ".js",
            "%ff.js",
        ],
    )
    def test_other_files_are_refused(self, client, path):
        assert client("static/" + path).status_code in (301, 404)

    def test_the_tab_is_there_where_there_is_data_alone(self, client, log_dir):
        def enabled(client):
            return client("/data/plugins_listing").json["keras_explain"]["enabled"]

        assert enabled(client)
        assert not enabled(Client(log_dir / "train"))


def test_a_run_that_is_itself_the_log_directory(log_dir):
    client = Client(log_dir / "explain")
    assert list(client.json("runs")["runs"]) == [""]
    assert len(client.step("", 1)[0]["maps"]) == 6


# A training that is begun anew in a directory


def the_same(header, blobs, expected):
    """Whether the maps of a step are those of these records."""
    found = {(one["method"], one["sample"]): logs.values(one, blobs)[0] for one in header["maps"]}
    return len(found) == sum(len(record.maps) for record in expected) and all(
        np.abs(found[record.name, sample] - map_).max() <= np.ptp(map_) / 2**16
        for record in expected
        for sample, map_ in enumerate(record.maps)
    )


def restarted(step):
    return [logs.record(step, method, seed=1) for method in logs.METHODS]


def test_a_restart_drops_the_steps_from_its_first_on(client, log_dir):
    report = local_reader(str(log_dir))
    for runs in (client.json("runs"), report.runs()):
        run = runs["runs"]["restarted"]
        assert (run["steps"], run["trees"]) == ([0, 1, 2], [0])
        assert runs["problems"] == []
    for step in range(3):
        header, blobs = client.step("restarted", step)
        assert header["problems"] == []
        assert the_same(header, blobs, restarted(step))
        assert the_same(*logs.opened(report.step("restarted", step)), restarted(step))
    client.json("step", 404, run="restarted", step=3)
    assert client.json("predictions", run="restarted")["steps"] == [0, 1, 2]
    score = client.json("scalars", run="restarted", tag="explain/saliency/score")
    assert score == {"steps": [0, 1, 2], "values": [0, 0.5, 1]}


def test_a_training_that_goes_on_repeats_a_step_and_keeps_those_before(client):
    assert client.json("runs")["runs"]["resumed"]["steps"] == [0, 1, 2, 3]
    before = [logs.record(1, method) for method in logs.METHODS]
    assert the_same(*client.step("resumed", 1), before)
    assert the_same(*client.step("resumed", 2), restarted(2))
    assert the_same(*client.step("resumed", 3), restarted(3))


def test_maps_of_the_samples_before_that_nothing_took_the_place_of(client):
    """Fewer samples and methods: the maps that are left of before are problems where they are."""
    header, _ = client.step("fewer", 1)
    assert [(one["method"], one["sample"]) for one in header["maps"]] == [
        ("grad_cam", 0),
        ("grad_cam", 1),
    ]
    assert {(one["method"], one["sample"]) for one in header["problems"]} == {
        ("grad_cam", 2),
        *(("saliency", sample) for sample in range(3)),
    }


def test_a_picture_that_a_restart_took_away_while_the_page_was_open(tmp_path):
    logs.write(tmp_path, steps=1)
    reader = local_reader(str(tmp_path))
    reader.picture("", 2)
    logs.age(tmp_path / "explain")
    logs.write(tmp_path, steps=1, **logs.fewer(2))
    object.__setattr__(reader, "provider", local_reader(str(tmp_path)).provider)
    with pytest.raises(events.FormatError, match="Reload the page"):
        reader.picture("", 2)
    reader.runs()
    with pytest.raises(LookupError, match="pictures of 2 samples"):
        reader.picture("", 2)


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ([0, 1, 2, 0, 1], [3, 4]),
        ([0, 1, 2, 3, 2, 3], [0, 1, 4, 5]),
        ([0, 0, 0], [2]),
        ([2, 5, 3], [0, 2]),
        ([], []),
    ],
)
def test_an_event_drops_those_of_its_step_and_of_later_ones(written, left):
    events = [types.SimpleNamespace(step=step) for step in written]
    assert surviving(events) == [events[i] for i in left]


def test_a_step_that_is_logged_later_is_found(tmp_path):
    logs.write(tmp_path, steps=1)
    reader = local_reader(str(tmp_path))
    assert reader.runs()["runs"][""]["steps"] == [0]
    reader.step("", 0)
    with pytest.raises(LookupError):
        reader.step("", 1)
    sink = TensorBoard(tmp_path)
    sink.write(logs.record(1))
    sink.close()
    later = local_reader(str(tmp_path))
    object.__setattr__(reader, "provider", later.provider)
    assert logs.opened(reader.step("", 1))[0]["step"] == 1


# Broken logs


def good_map(sample=0, **changes):
    header = {"kind": "pictures", "samples": "id", "scores": [1.0], "limit": 1.0, "signed": False}
    return events.map_blobs(header | changes, np.ones((1, 4, 3)))


GOOD = events.samples_blobs(
    {"kind": "pictures", "id": "id", "count": 2, "shape": [4, 3, 3]},
    np.zeros((2, 4, 3, 3), np.uint8),
)
HUGE = b'{"schema":1,"x":"' + b"x" * events.LARGEST_MAP_HEADER + b'"}'


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([HUGE], "at most"),
        ([b"{nonsense"], "as JSON"),
        ([json.dumps({"schema": 7}).encode()], "schema 7"),
        ([], "empty"),
        (good_map()[:1], "1 pictures of maps. Received: 0"),
        ([*good_map(), good_map()[1]], "1 pictures of maps. Received: 2"),
        ([good_map()[0], b"<script>"], "a PNG"),
        ([good_map()[0], events.png(np.zeros((900, 3), np.uint8))], "3 x 4 pixels"),
        (good_map(samples="others"), "log_dir of its own"),
    ],
)
def test_a_broken_map_is_a_problem_and_the_others_are_there(tmp_path, broken, message):
    logs.write_blobs(
        tmp_path / "explain",
        (events.SAMPLES, 0, GOOD),
        (events.map_tag("good", 0), 0, good_map()),
        (events.map_tag("bad", 1), 0, broken),
        (events.map_tag("beyond", 2), 0, good_map()),
    )
    client = Client(tmp_path)
    assert client.json("runs")["problems"] == []
    header, blobs = client.step("", 0)
    assert [one["method"] for one in header["maps"]] == ["good"]
    assert len(blobs) == 1
    problem, beyond = header["problems"]
    assert message in problem.pop("message")
    assert problem == {
        "run": "",
        "tag": "keras_explain/maps/bad/1",
        "method": "bad",
        "sample": 1,
    }
    assert "one of 2 samples" in beyond["message"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([b'{"schema":9}'], "schema 9"),
        (GOOD[:2], "pictures of 2 samples. Received: 1"),
        ([], "empty"),
        (None, "empty"),
    ],
)
def test_broken_samples_are_a_problem_and_other_runs_are_there(tmp_path, broken, message):
    bad = [(events.SAMPLES, 0, broken)] if broken is not None else []
    maps = (events.map_tag("a", 0), 0, good_map())
    logs.write_blobs(tmp_path / "bad" / "explain", *bad, maps)
    logs.write_blobs(tmp_path / "good" / "explain", (events.SAMPLES, 0, GOOD), maps)
    client = Client(tmp_path)
    answer = client.json("runs")
    assert answer["runs"]["bad"]["samples"] is None
    assert answer["runs"]["good"]["samples"]["count"] == 2
    (problem,) = answer["problems"]
    assert problem.keys() == {"run", "tag", "message"}
    assert (problem["run"], problem["tag"]) == ("bad", "keras_explain/samples")
    assert message in problem["message"]
    header, _ = client.step("bad", 0)
    assert header["maps"] == []
    assert header["problems"] == [problem]
    assert len(client.step("good", 0)[0]["maps"]) == 1


def test_broken_pictures_trees_and_predictions_are_said(tmp_path):
    logs.write_blobs(
        tmp_path,
        (events.SAMPLES, 0, [*GOOD[:2], b"<svg onload=alert(1)>"]),
        (events.TREE, 0, [b'{"schema":1,"trees":[{"tree":{"root":1}}]}']),
        (events.PREDICTIONS, 0, events.prediction_blobs({"predicted": [1], "probability": [1]})),
        (
            events.PREDICTIONS,
            1,
            events.prediction_blobs({"predicted": [1, 0], "probability": [1, 0]}),
        ),
    )
    client = Client(tmp_path)
    assert client("picture", run="", sample=0).status_code == 200
    assert "a PNG" in client.json("picture", 422, run="", sample=1)["error"]
    assert "`features`" in client.json("tree", 422, run="", step=0)["error"]
    answer = client.json("predictions", run="")
    assert (answer["steps"], len(answer["problems"])) == ([1], 1)


def test_runs_of_one_name_methods_of_other_steps_and_samples_that_change(tmp_path):
    """A directory and its `explain`; what was logged last of the samples counts."""
    others = events.samples_blobs({"kind": "table", "id": "x", "count": 1, "shape": [2]})
    logs.write_blobs(
        tmp_path / "run",
        (events.SAMPLES, 0, GOOD),
        (events.map_tag("a", 0), 0, good_map()),
        (events.SAMPLES, 2, others),
        (events.map_tag("b", 0), 3, good_map()),
    )
    logs.write_blobs(tmp_path / "run" / "explain", (events.SAMPLES, 1, GOOD))
    runs = local_reader(str(tmp_path)).runs()["runs"]
    assert list(runs) == ["run", "run/explain"]
    assert (runs["run"]["steps"], runs["run"]["samples"]["count"]) == ([0, 3], 1)
    assert (runs["run/explain"]["steps"], runs["run/explain"]["samples"]["count"]) == ([], 2)


def test_the_runs_opened_last_are_kept():
    cache, made = Cache(capacity=2), []

    def get(key, fits=True):
        return cache.get(key, lambda: made.append(key) or key, lambda kept: fits)

    for key, fits in [("a", True), ("b", True), ("a", False), ("c", True), ("a", True)]:
        assert get(key, fits) == key
    assert made == ["a", "b", "a", "c"]
    get("b")
    assert made[4:] == ["b"]


def test_a_run_of_trees_alone(tmp_path):
    logs.write_blobs(tmp_path, (events.TREE, 3, events.tree_blobs({"trees": []})))
    client = Client(tmp_path)
    run = client.json("runs")["runs"][""]
    assert (run["samples"], run["methods"], run["steps"], run["trees"]) == (None, [], [], [3])
    assert run["predictions"] is False
    assert client.json("runs")["problems"] == []
    assert client.json("tree", run="", step=3) == {"schema": 1, "trees": []}
    assert client.json("predictions", run="")["steps"] == []


# What the callback writes of each kind of input


def fit(log_dir, model, x, memory=None, epochs=1, **options):
    y = np.arange(len(x)) % 2
    sinks = [TensorBoard(log_dir), *([memory] if memory else [])]
    logger = kx.callbacks.ExplanationLogger(
        kx.InputXGradient(), x, y, max_samples=3, sinks=sinks, **options
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=epochs, callbacks=[logger], verbose=0)
    reader = local_reader(str(log_dir))
    return reader.runs()["runs"][""]["samples"], *logs.opened(reader.step("", epochs - 1))


def same(described, blobs, values):
    """Whether a map is the values `[K, ...]`, within half a step."""
    found = logs.values(described, blobs)
    widest = max(hi - lo for lo, hi in described["range"])
    return found.shape == values.shape and np.abs(found - values).max() <= widest / 2**16


def dense(*layers, shape, **options):
    return keras.Sequential([keras.Input(shape, **options), *layers, keras.layers.Dense(2)])


RNG = np.random.default_rng(0)


def test_a_table(tmp_path):
    x, memory = RNG.normal(size=(8, 4)).astype(np.float32), Memory()
    names = ["a", "b", "c", "<d>"]
    samples, header, blobs = fit(tmp_path, dense(shape=(4,)), x, memory, feature_names=names)
    assert (samples["kind"], samples["feature_names"]) == ("table", names)
    assert np.array(samples["values"]) == pytest.approx(x[:3])
    values = memory.records[-1].explanation.values
    assert all(same(one, blobs, values[i : i + 1]) for i, one in enumerate(header["maps"]))


def test_series_with_several_classes_per_sample(tmp_path):
    x, memory = RNG.normal(size=(8, 9, 2)).astype(np.float32), Memory()
    model = dense(keras.layers.Flatten(), shape=(9, 2))
    target = np.tile([[0, 1]], (8, 1))
    samples, header, blobs = fit(tmp_path, model, x, memory, target=target)
    assert (samples["kind"], samples["shape"]) == ("series", [9, 2])
    values = memory.records[-1].explanation.values
    assert values.shape == (3, 2, 9, 2)
    assert header["maps"][1]["classes"] == [0, 1]
    assert all(same(one, blobs, values[i]) for i, one in enumerate(header["maps"]))


WORDS = ["", "<i>", "two", "three"]


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        (WORDS, [["two", "", "three"], ["<i>"] * 5, []]),
        (None, [["2", "0", "3"], ["1"] * 5, []]),
    ],
)
def test_the_words_of_a_text(tmp_path, vocabulary, words):
    ids = np.array([[2, 0, 3, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]] * 3, np.int32)
    layers = [keras.layers.Embedding(4, 3), keras.layers.GlobalAveragePooling1D()]
    model = dense(*layers, shape=(5,), dtype="int32")
    samples, header, _ = fit(tmp_path, model, ids, vocabulary=vocabulary)
    assert (samples["kind"], samples["words"]) == ("text", words)
    assert header["maps"][0]["shape"] == [5]


def test_an_explainer_s_tokens_know_the_words():
    known = kx.Occlusion(features=kx.features.Tokens(vocabulary=WORDS))
    ids = np.ones((2, 5), np.int32)
    logger = kx.callbacks.ExplanationLogger([kx.InputXGradient(), known], ids)
    assert list(logger.vocabulary) == WORDS
    assert kx.callbacks.ExplanationLogger(known, ids, vocabulary=str).vocabulary is str
    ones = [kx.Occlusion(features=kx.features.Tokens(vocabulary=v)) for v in (None, WORDS, "abc")]
    assert list(kx.callbacks.ExplanationLogger(ones, ids).vocabulary) == WORDS


def test_pictures_with_several_classes_per_sample(tmp_path):
    x, memory = RNG.uniform(size=(8, 8, 9, 3)).astype(np.float32), Memory()
    model = dense(keras.layers.Flatten(), shape=(8, 9, 3))
    target = np.tile([[0, 1]], (8, 1))
    options = {"target": target, "to_image": lambda x: 1 - x}
    samples, header, blobs = fit(tmp_path, model, x, memory, **options)
    assert samples["kind"] == "pictures"
    values = memory.records[-1].explanation.values.sum(-1)
    assert same(header["maps"][2], blobs, values[2])
    picture = local_reader(str(tmp_path)).picture("", 2)
    assert (logs.tf.io.decode_png(picture).numpy() == ranges.to_uint8(1 - x[:3])[2]).all()


def test_several_inputs_without_a_picture_are_one_table(tmp_path):
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((9, 1), name="b")}
    joined = keras.layers.Concatenate()([inputs["a"], keras.layers.Flatten()(inputs["b"])])
    model = keras.Model(inputs, keras.layers.Dense(2)(joined))
    x = {"a": RNG.normal(size=(8, 2)).astype("f"), "b": RNG.normal(size=(8, 9, 1)).astype("f")}
    memory, y = Memory(), np.arange(8) % 2
    logger = kx.callbacks.ExplanationLogger(
        kx.InputXGradient(), x, y, max_samples=2, sinks=[TensorBoard(tmp_path), memory]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, callbacks=[logger], verbose=0)
    reader = local_reader(str(tmp_path))
    samples = reader.runs()["runs"][""]["samples"]
    assert (samples["kind"], samples["shape"]) == ("table", [11])
    assert samples["feature_names"] == ["a 0", "a 1", *(f"b {i}" for i in range(9))]
    header, blobs = logs.opened(reader.step("", 0))
    values = memory.records[0].explanation.values
    expected = np.concatenate([values["a"], values["b"].reshape(2, 9)], axis=1)
    assert same(header["maps"][1], blobs, expected[1:2])


def test_values_at_a_layer_that_lie_over_no_input_are_left_out_and_said(tmp_path):
    ids = np.array([[1, 2, 3, 0], [3, 0, 0, 0]], np.int32)
    embedding = keras.layers.Embedding(4, 3, name="e")
    model = dense(embedding, keras.layers.Flatten(), shape=(4,), dtype="int32")
    model.compile("sgd", "mse")
    explainers = {
        "at": kx.IntegratedGradients(steps=2, layer="e"),
        "over": kx.IntegratedGradients(steps=2),
    }

    def fit(log_dir, explainers, sinks=None):
        logger = kx.callbacks.ExplanationLogger(
            explainers, ids, np.zeros(2, int), log_dir=log_dir, sinks=sinks
        )
        model.fit(ids, np.zeros((2, 2)), epochs=2, callbacks=[logger], verbose=0)

    with pytest.warns(RuntimeWarning, match="no maps in TensorBoard's Explain tab") as warned:
        fit(tmp_path / "both", explainers)
    (said,) = [str(one.message) for one in warned]
    assert "explainer 'at'" in said
    assert "(4, 3)" in said
    assert "layer 'e'" in said
    assert local_reader(str(tmp_path / "both")).runs()["runs"][""]["methods"] == ["over"]
    with pytest.warns(RuntimeWarning, match="no maps in TensorBoard's Explain tab"):
        fit(tmp_path / "at", {"at": explainers["at"]})
    with pytest.raises(ValueError, match=r"events without maps, in 'explain'.*leave `layer=`"):
        kx.report(tmp_path / "at", tmp_path / "report.html")
    fit(tmp_path / "none", {"at": explainers["at"]}, sinks=[Memory()])


def test_probabilities_are_those_of_the_predicted_classes(tmp_path):
    memory, x = Memory(), RNG.normal(size=(8, 4)).astype(np.float32)
    model = dense(shape=(4,))
    fit(tmp_path, model, x, memory)
    record = memory.records[-1]
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(x[:3])))
    assert record.probabilities == pytest.approx(expected.max(axis=1), rel=1e-5)
    assert record.predicted.tolist() == expected.argmax(axis=1).tolist()


# Loading


def test_the_distribution_tells_tensorboard_of_the_plugin():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    (entry,) = project["project"]["entry-points"]["tensorboard_plugins"].values()
    module, _, name = entry.partition(":")
    assert getattr(importlib.import_module(module), name) is Loader


@pytest.mark.parametrize(("given", "kept"), [({}, 0), ({"keras_explain": 5}, 5)])
def test_every_step_is_kept_unless_the_user_says_otherwise(given, kept):
    flags = types.SimpleNamespace(samples_per_plugin=dict(given))
    Loader().fix_flags(flags)
    assert flags.samples_per_plugin == {"keras_explain": kept}


WITHOUT_TENSORFLOW = """
import json, sys
for name in ("keras", "tensorflow", "tensorboard.compat.notf"):
    sys.modules[name] = None
from keras_explain.tensorboard.local import local_reader
reader = local_reader(sys.argv[1])
runs = reader.runs()["runs"]
reader.step("", runs[""]["steps"][-1]), reader.picture("", 0), reader.tree("", 4)
json.dump(runs[""]["steps"], sys.stdout)
"""


def test_logs_are_read_where_there_is_no_tensorflow(log_dir):
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_TENSORFLOW, str(log_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(range(logs.STEPS))


@pytest.fixture(scope="module")
def servers(log_dir, tmp_path_factory):
    """One for each loader, where there is no TensorFlow. Those of test_page.py have it."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "tensorflow.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(hidden), *filter(None, [os.environ.get("PYTHONPATH")])])
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        started = {
            loader: stack.enter_context(server(log_dir, loader, tmp_path_factory.mktemp(loader)))
            for loader in ("false", "true")
        }
        yield {loader: wait_for(ready) for loader, ready in started.items()}


@pytest.mark.parametrize("loader", ["false", "true"])
def test_a_real_tensorboard_answers_as_the_routes_do(client, servers, loader):
    get, route = servers[loader], ROUTE.removeprefix("/data/")
    expected = client.json("runs")
    wait_for(lambda: get(f"{route}runs")["runs"] == expected["runs"])
    assert get(f"{route}runs") == expected
    for run, step in [("", 11), ("restarted", 1), ("fewer", 1), ("resumed", 1), ("resumed", 2)]:
        found = get(f"{route}step", run=run, step=step)
        assert found == client("step", run=run, step=step).data
    assert get(f"{route}picture", run="", sample=1) == client("picture", run="", sample=1).data
    for name, query in {
        "tree": {"run": "", "step": 8},
        "predictions": {"run": "restarted"},
        "scalars": {"run": "restarted", "tag": "explain/saliency/score"},
    }.items():
        assert get(route + name, **query) == client.json(name, **query)
