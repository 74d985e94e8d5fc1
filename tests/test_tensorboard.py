"""The TensorBoard sink: what is on disk, and what a real TensorBoard makes of it."""

import contextlib
import ctypes
import gc
import itertools
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_explain.callbacks import ExplanationLogger
from keras_explain.sinks import Memory, NotWrittenError, TensorBoard, event_file, pairs, wording
from keras_explain.sinks.event_file import EventFile
from keras_explain.tensorboard.local import local_reader
from tests import logs
from tests.process import run_python
from tests.server import server, wait_for

CLASSES = ("up", "down")
EXPLAINERS = {
    "saliency": "saliency",
    "signed": {"class_name": "Saliency", "config": {"absolute": False}},
}

FOR_THE_TAB = {f"keras_explain/maps/{name}/{sample}" for name in EXPLAINERS for sample in range(3)}
FOR_THE_TAB |= {"keras_explain/samples", "keras_explain/predictions"}


def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(16, 7, 6, 3)).astype(np.float32)
    return x, np.arange(16) % 2


def fit(callbacks, epochs=3):
    x, y = data()
    model = keras.Sequential(
        [keras.Input((7, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.fit(x, y, batch_size=8, epochs=epochs, callbacks=callbacks, verbose=0)


def logger(log_dir, *sinks, **options):
    x, y = data()
    return ExplanationLogger(
        **(
            {
                "explainers": EXPLAINERS,
                "x": x,
                "y": y,
                "max_samples": 3,
                "class_names": CLASSES,
                "sinks": [TensorBoard(log_dir), *sinks],
            }
            | options
        )
    )


def events(directory):
    """Tag -> step -> tensor, and tag -> metadata."""
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()
    tags = accumulator.Tags()["tensors"]
    tensors = {
        tag: {e.step: tf.make_ndarray(e.tensor_proto) for e in accumulator.Tensors(tag)}
        for tag in tags
    }
    return tensors, {tag: accumulator.SummaryMetadata(tag) for tag in tags}


def picture(tensor):
    width, height, png = tensor
    decoded = tf.io.decode_png(png).numpy()
    assert decoded.shape[:2] == (int(height), int(width))
    return decoded


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A log directory that a real `fit` wrote, what was recorded, and `History`."""
    keras.utils.set_random_seed(0)
    log_dir, memory = tmp_path_factory.mktemp("logs"), Memory()
    other = keras.callbacks.TensorBoard(log_dir, write_graph=False)
    history = fit([logger(log_dir, memory), other], epochs=4).history
    return log_dir, memory, history


class TestEvents:
    def test_pictures_are_exactly_those_of_the_recorded_maps_at_every_epoch(self, trained):
        log_dir, memory, _ = trained
        tensors, metadata = events(log_dir / "explain")
        assert len(memory.records) == 2 * 4
        for record in memory.records:
            expected = pairs.pairs(record)
            for sample in range(3):
                tag = f"explain/{record.name}/{sample}"
                assert list(tensors[tag]) == [0, 1, 2, 3]
                assert (picture(tensors[tag][record.step]) == expected[sample]).all()
                assert metadata[tag].plugin_data.plugin_name == "images"
        drawn = [picture(t) for t in tensors["explain/signed/0"].values()]
        assert any((drawn[0] != other).any() for other in drawn[1:])

    def test_scalars_are_those_of_history(self, trained):
        log_dir, _, history = trained
        tensors, _ = events(log_dir / "explain")
        ours = {key: values for key, values in history.items() if key.startswith("explain/")}
        assert len(ours) == 2 * 4
        for key, values in ours.items():
            first = 1 if key.endswith("drift") else 0
            assert list(tensors[key]) == list(range(first, 4))
            assert [float(v) for v in tensors[key].values()] == pytest.approx(values, rel=1e-6)

    def test_nothing_else_is_written(self, trained):
        tensors, _ = events(trained[0] / "explain")
        scalars = ("drift", "concentration", "score", "scale")
        expected = {f"explain/{n}/{s}" for n in EXPLAINERS for s in (*scalars, 0, 1, 2)}
        assert set(tensors) == expected | {"explain/predictions"} | FOR_THE_TAB

    def test_descriptions_are_those_of_the_first_step(self, trained):
        log_dir, memory, _ = trained
        _, metadata = events(log_dir / "explain")
        for record in memory.records[:2]:
            for sample in range(3):
                description = metadata[f"explain/{record.name}/{sample}"].summary_description
                assert description == wording.description(record, sample)
                true, predicted = (
                    CLASSES[classes[sample]] for classes in (record.labels, record.predicted)
                )
                assert f"step 0: true {true}, predicted {predicted}" in description

    def test_one_table_of_predictions_per_step(self, trained):
        log_dir, memory, _ = trained
        texts = events(log_dir / "explain")[0]["explain/predictions"]
        assert list(texts) == [0, 1, 2, 3]
        for step, text in texts.items():
            records = [record for record in memory.records if record.step == step]
            assert text.item().decode() == wording.table(records)
        rows = texts[3].item().decode().split("\n")
        assert len(rows) == 2 + 3
        score = memory.records[-1].explanation.scores[1]
        assert f"score {score:.4g}".replace(".", "\\.").replace("-", "\\-") in rows[3]

    def test_beside_the_callback_of_keras_in_the_same_directory(self, trained):
        log_dir, _, history = trained
        assert sorted(path.name for path in log_dir.iterdir()) == ["explain", "train"]
        tensors, _ = events(log_dir / "train")
        assert [float(v) for v in tensors["epoch_loss"].values()] == pytest.approx(
            history["loss"], rel=1e-6
        )

    def test_steps_of_batches(self, tmp_path):
        memory = Memory()
        fit([logger(tmp_path, memory, update_freq=2)], epochs=3)
        tensors, _ = events(tmp_path / "explain")
        assert list(tensors["explain/signed/score"]) == [2, 4, 6]
        for record in memory.records:
            tag = f"explain/{record.name}/2"
            assert (picture(tensors[tag][record.step]) == pairs.pairs(record)[2]).all()

    def test_without_pictures_scalars_table_and_maps_alone(self, tmp_path):
        fit([logger(tmp_path, target=[[0, 1]] * 3)], epochs=1)
        tensors, _ = events(tmp_path / "explain")
        scalars = ("concentration", "score", "scale")
        expected = {f"explain/{name}/{scalar}" for name in EXPLAINERS for scalar in scalars}
        assert set(tensors) == expected | {"explain/predictions"} | FOR_THE_TAB
        assert "up (score" in tensors["explain/predictions"][0].item().decode()


class TestLife:
    def test_nothing_is_opened_before_the_first_record(self, tmp_path):
        log_dir = tmp_path / "logs"
        sink = TensorBoard(log_dir)
        sink.flush()
        sink.close()
        assert not log_dir.exists()

    def test_a_closed_sink_opens_again(self, tmp_path):
        again = logger(tmp_path)
        fit([again], epochs=1)
        fit([again], epochs=2)
        files = list((tmp_path / "explain").iterdir())
        assert len(files) == 2
        tensors, _ = events(tmp_path / "explain")
        assert list(tensors["explain/signed/score"]) == [0, 1, 2]

    def test_two_loggers_in_one_directory_share_its_event_file(self, tmp_path):
        x, y = data()
        memory = Memory()
        first = logger(tmp_path, memory)
        second = ExplanationLogger({"other": "saliency"}, x[5:7], y[5:7], log_dir=tmp_path)
        fit([first, second], epochs=3)
        assert len(list((tmp_path / "explain").iterdir())) == 1
        tensors, _ = events(tmp_path / "explain")
        assert list(tensors["explain/other/1"]) == [0, 1, 2]
        assert list(tensors["explain/signed/2"]) == [0, 1, 2]
        assert (picture(tensors["explain/signed/2"][2]) == pairs.pairs(memory.records[-1])[2]).all()

    def test_what_was_explained_is_on_disk_after_an_interrupt(self, tmp_path):
        class Interrupt(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 2:
                    raise KeyboardInterrupt

        memory = Memory()
        kept = logger(tmp_path, memory)  # nothing that is freed closes the file
        with pytest.raises(KeyboardInterrupt):
            fit([kept, Interrupt()], epochs=9)
        wait_for(lambda: not writers())
        tensors, _ = events(tmp_path / "explain")
        assert list(tensors["explain/signed/2"]) == [0, 1, 2]
        assert (picture(tensors["explain/signed/2"][2]) == pairs.pairs(memory.records[-1])[2]).all()
        assert list(tensors["explain/predictions"]) == [0, 1, 2]
        kept.on_train_end()

    def test_a_thread_lives_no_longer_than_its_work(self, tmp_path):
        before = set(threading.enumerate())
        fit([logger(tmp_path)], epochs=2)
        assert set(threading.enumerate()) == before

    @pytest.mark.slow
    def test_a_process_that_dies_of_an_error_still_writes_and_ends(self, tmp_path):
        code = f"""
            import numpy as np
            from keras_explain.sinks import Record, TensorBoard
            from keras_explain.sinks.background import Background
            class Explanation: scores, extras = np.ones(2), {{}}
            sink = TensorBoard({str(tmp_path)!r})
            for step in range(30):
                sink.write(Record(
                    step, "mine", Explanation, {{"score": step / 2}}, 1.0, False,
                    np.zeros((2, 64, 64, 3), np.uint8), np.ones((2, 64, 64), np.float32),
                ))
                sink.flush()
            other = Background("other work")
            other.submit(lambda: 1 / 0)
            raise ValueError("training failed")
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert "training failed" in run.stderr
        assert run.returncode == 1
        assert "other work failed 1 time(s). The first cause: ZeroDivisionError" in run.stderr
        tensors, _ = events(tmp_path / "explain")
        assert list(tensors["explain/mine/1"]) == list(range(30))
        assert list(tensors["explain/predictions"]) == list(range(30))
        assert float(tensors["explain/mine/score"][29]) == 14.5


def written(directory, tag):
    """The steps of a tag's events as they are in each file, one file after another."""
    return [
        [
            event.step
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
            if value.tag == tag
        ]
        for path in sorted((directory / "explain").iterdir())
    ]


class TestWrites:
    """What a sink writes, of records without a training."""

    def test_samples_once_in_a_file_and_predictions_once_a_step(self, tmp_path):
        """Also where two loggers take turns, and again in the next file, which may be the last."""
        one, other = TensorBoard(tmp_path), TensorBoard(tmp_path)
        for last in (2, 4):
            for step in range(last - 2, last):
                for name in ("a", "b"):
                    one.write(logs.record(step, name))
                other.write(logs.record(step, "other", **logs.fewer(2)))
                one.flush()
                other.flush()
            one.close()
        assert written(tmp_path, "keras_explain/samples") == [[0, 0], [2, 2]]
        steps = [[0, 0, 1, 1], [2, 2, 3, 3]]
        assert written(tmp_path, "keras_explain/predictions") == steps
        assert written(tmp_path, "keras_explain/maps/b/1") == [[0, 1], [2, 3]]

    def test_a_step_ends_where_the_next_one_begins(self, tmp_path):
        records = [[logs.record(step, name) for name in ("a", "b")] for step in range(3)]
        sink = TensorBoard(tmp_path)
        for record in itertools.chain(*records):
            sink.write(record)
        sink.close()
        texts = events(tmp_path / "explain")[0]["explain/predictions"]
        assert {step: text.item().decode() for step, text in texts.items()} == {
            step: wording.table(records[step]) for step in range(3)
        }

    def test_a_closed_sink_takes_its_names_again(self, tmp_path):
        one, other = TensorBoard(tmp_path), TensorBoard(tmp_path)
        for step, sink in enumerate([one, other, one]):
            sink.write(logs.record(step))
            sink.close()
        assert steps_in(tmp_path, "explain/predictions") == [0, 1, 2]

    def test_a_directory_and_a_link_to_it_share_a_file(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        one, other = TensorBoard(tmp_path), TensorBoard(tmp_path / "link")
        one.write(logs.record(0))
        other.write(logs.record(0, "other"))
        other.flush()
        one.close()
        other.close()
        assert written(tmp_path, "keras_explain/samples") == [[0]]


def steps_in(directory, tag="explain/signed/2"):
    return list(events(directory / "explain")[0].get(tag, ()))


class Between(keras.callbacks.Callback):
    """Does something before an epoch: epoch -> a function."""

    def __init__(self, sink, **actions):
        super().__init__()
        self.sink, self.actions = sink, actions

    def on_epoch_begin(self, epoch, logs=None):
        self.sink._place.events.wait()
        self.actions.get(f"epoch_{epoch}", lambda: None)()


@contextlib.contextmanager
def full_disk():
    """No file of this process can have more than a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestBrokenDisk:
    def test_a_log_directory_that_is_deleted_is_made_anew(self, tmp_path):
        keeps = logger(tmp_path / "logs")
        remove = Between(keeps.sinks[0], epoch_2=lambda: shutil.rmtree(tmp_path / "logs"))
        fit([keeps, remove], epochs=4)
        assert steps_in(tmp_path / "logs") == [2, 3]
        assert keeps.failures == {}
        tensors, _ = events(tmp_path / "logs" / "explain")
        assert len(tensors["keras_explain/samples"]) == 1
        (run,) = local_reader(str(tmp_path / "logs")).runs()["runs"].values()
        assert (run["steps"], run["samples"]["count"]) == ([2, 3], 3)

    @pytest.mark.parametrize(
        ("how", "files", "steps"),
        [
            ("unlink", 1, [1, 2]),
            ("truncate", 2, [1, 2]),
            ("replace", 2, [1, 2]),
            ("append", 2, [0, 1, 2]),
        ],
    )
    def test_an_event_file_that_is_no_longer_what_was_written_is_given_up(
        self, tmp_path, how, files, steps
    ):
        def spoil():
            (path,) = (tmp_path / "explain").iterdir()
            if how == "replace":
                (tmp_path / "explain" / "other").write_text("other")
                (tmp_path / "explain" / "other").replace(path)
            elif how == "append":
                path.write_bytes(path.read_bytes() + b"other")
            else:
                path.unlink() if how == "unlink" else os.truncate(path, 10)

        keeps = logger(tmp_path)
        fit([keeps, Between(keeps.sinks[0], epoch_1=spoil)], epochs=3)
        assert len(list((tmp_path / "explain").iterdir())) == files
        assert steps_in(tmp_path) == steps
        assert keeps.failures == {}

    def test_a_disk_that_is_full_for_a_moment_costs_what_was_written_then(self, tmp_path):
        keeps = logger(tmp_path)
        with contextlib.ExitStack() as stack:
            between = Between(
                keeps.sinks[0],
                epoch_1=lambda: stack.enter_context(full_disk()),
                epoch_2=lambda: stack.close(),
            )
            with pytest.warns(RuntimeWarning) as said:
                fit([keeps, between], epochs=4)
        assert steps_in(tmp_path) == [0, 2, 3]
        assert steps_in(tmp_path, "explain/predictions") == [0, 2, 3]
        first, last = (str(warning.message) for warning in said)
        assert "sink TensorBoard failed at step 1, training goes on." in first
        assert "File too large" in first
        assert "failed 3 times, lastly at step 1" in last
        (failures,) = keeps.failures.values()
        assert [step for step, _ in failures] == [1, 1, 1]  # two records and the table
        assert len(list((tmp_path / "explain").iterdir())) == 2
        (run,) = local_reader(str(tmp_path)).runs()["runs"].values()
        assert (run["steps"], run["samples"]["count"]) == ([0, 2, 3], 3)

    def test_a_training_that_can_not_begin_leaves_no_file(self, tmp_path):
        wrong = logger(tmp_path, explainers=["grad_cam"])
        with pytest.raises(ValueError, match="spatial extent"):
            fit([wrong])
        assert list((tmp_path / "explain").iterdir()) == []

    def test_the_directory_is_where_training_began(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        keeps = logger("logs")
        leave = Between(keeps.sinks[0], epoch_1=lambda: monkeypatch.chdir("elsewhere"))
        fit([keeps, leave], epochs=3)
        assert steps_in(tmp_path / "logs") == [0, 1, 2]
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_nothing_half_written_is_left_by_a_disk_that_stays_full(self, tmp_path):
        with full_disk(), pytest.raises(OSError, match=r"Expected a `log_dir`.*File too large"):
            fit([logger(tmp_path)], epochs=1)
        assert list((tmp_path / "explain").iterdir()) == []

    def test_where_errors_are_raised_training_stops(self, tmp_path):
        strict = logger(tmp_path, on_error="raise")
        with contextlib.ExitStack() as stack:
            full = Between(strict.sinks[0], epoch_1=lambda: stack.enter_context(full_disk()))
            with pytest.raises(NotWrittenError, match="Writing explanations to"):
                fit([strict, full], epochs=9)
        with contextlib.suppress(NotWrittenError):
            strict.sinks[0].close()

    @pytest.mark.parametrize("on_error", ["warn", "raise"])
    @pytest.mark.parametrize("where", ["a file", "a file in the way", "nowhere"])
    def test_an_impossible_directory_is_an_error_at_the_start(self, tmp_path, where, on_error):
        (tmp_path / "file").write_text("")
        (tmp_path / "explain").write_text("")
        log_dir = {
            "a file": tmp_path / "file",
            "a file in the way": tmp_path,
            "nowhere": "/proc/nowhere",
        }[where]
        epochs = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: pytest.fail("began"))
        with pytest.raises(OSError, match=r"Expected a `log_dir` in which files can be made"):
            fit([logger(log_dir, on_error=on_error), epochs])

    @pytest.mark.parametrize("wrong", [None, 3, ["logs"]])
    def test_a_log_dir_that_is_no_name(self, wrong):
        with pytest.raises(TypeError, match=r"Expected `log_dir` to be the name of a directory"):
            TensorBoard(wrong)

    @pytest.mark.parametrize(
        "wrong", ["logs", Memory(), [Memory], ["logs"], [None], [Memory(), 3], {"a": Memory()}]
    )
    def test_what_is_no_list_of_sinks(self, wrong):
        with pytest.raises(TypeError, match=r"Expected `sinks` to be a list"):
            ExplanationLogger("saliency", data()[0], sinks=wrong)

    def test_a_file_in_which_nothing_is_for_certain_goes_away(self, tmp_path):
        file = EventFile(str(tmp_path))
        file.scalar("tag", 0.5, 0)
        file.give_up()
        assert list(tmp_path.iterdir()) == []

    def test_files_follow_each_other_whatever_the_clock_says(self, tmp_path, monkeypatch):
        monkeypatch.setattr(event_file, "_NUMBERS", itertools.count())
        for step, now in enumerate([2e9, 1e9, *[2e9] * 10]):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            file = EventFile(str(tmp_path / "explain"))
            file.scalar("tag", 0.5, step)
            file.flush()
            file.close()
        assert steps_in(tmp_path, "tag") == list(range(12))


class TestTwoLoggers:
    def test_of_one_name_in_one_directory_say_so(self, tmp_path):
        one, two = logger(tmp_path), logger(tmp_path)
        with pytest.warns(RuntimeWarning) as said:
            fit([one, two], epochs=2)
        first, last = (str(warning.message) for warning in said)
        assert "Expected one logger of 'saliency'" in first
        assert "failed 4 times" in last
        assert two.failures == {}
        assert steps_in(tmp_path) == [0, 1]

    def test_one_after_the_other_is_a_new_training(self, tmp_path):
        one, two = logger(tmp_path), logger(tmp_path)
        interrupt = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit([one, interrupt])
        fit([two], epochs=2)
        fit([one], epochs=2)
        assert one.failures == two.failures == {}


class TestKilled:
    def test_a_step_is_on_disk_before_the_next_is_written(self, tmp_path, monkeypatch):
        """Of the steps that were explained, the last alone is not there, however slow the disk."""
        slow = EventFile.flush
        monkeypatch.setattr(EventFile, "flush", lambda self: (time.sleep(0.02), slow(self)))
        found = []

        class Look(Memory):
            def flush(self):
                step = self.records[-1].step
                found.append(step - len(steps_in(tmp_path, "explain/predictions")))

        fit([logger(tmp_path, Look(), update_freq=1)], epochs=4)
        assert len(found) == 8
        assert max(found) <= 1

    @pytest.mark.slow
    def test_by_the_operating_system(self, tmp_path):
        code = f"""
            import os, signal
            from tests.test_tensorboard import fit, logger, keras
            class Kill(keras.callbacks.Callback):
                def on_train_batch_end(self, batch, logs=None):
                    if batch == 1 and self.params["epochs"] == 6 and self.epoch == 4:
                        os.kill(os.getpid(), signal.SIGKILL)
                def on_epoch_begin(self, epoch, logs=None):
                    self.epoch = epoch
            fit([logger({str(tmp_path)!r}, update_freq=1), Kill()], epochs=6)
        """
        killed = run_python(code)
        assert killed.returncode == -9, killed.stderr
        steps = steps_in(tmp_path, "explain/predictions")
        assert steps in (list(range(1, 10)), list(range(1, 11)))  # killed after step 10
        (run,) = local_reader(str(tmp_path)).runs()["runs"].values()
        assert set(run["steps"]) >= set(range(1, 10))


class MallInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = (("counts", ctypes.c_size_t * 10),)


def bytes_in_use():
    """What all code of this process has allocated, beside what Python keeps for its objects."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("only glibc says how much is in use")
    mallinfo.restype = MallInfo
    gc.collect()
    counts = mallinfo().counts
    return counts[7] + counts[4]  # uordblks + hblkhd


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps(tmp_path):
    """TensorFlow keeps a tensor of each number that it is given, 1.3 KiB, so it is given none."""
    sink, steps = TensorBoard(tmp_path), iter(range(10_000))

    def explain(count):
        for step in itertools.islice(steps, count):
            scalars = {str(i): step + i / 10 for i in range(8)}
            sink.write(logs.record(step, samples=1, scalars=scalars))
            sink.flush()
        sink._place.events.wait()
        return bytes_in_use()

    before, after = explain(30), explain(100)
    sink.close()
    assert (after - before) / 100 < 1024


def writers():
    return [t for t in threading.enumerate() if t.name.startswith("Writing explanations")]


@pytest.fixture(scope="module")
def servers(trained, tmp_path_factory):
    """Real TensorBoards on free ports, by loader: functions from a route to its JSON or bytes."""
    log_dir, _, _ = trained
    with contextlib.ExitStack() as stack:
        started = {
            loader: stack.enter_context(server(log_dir, loader, tmp_path_factory.mktemp(loader)))
            for loader in ("false", "true")
        }
        yield {loader: wait_for(ready) for loader, ready in started.items()}


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["false", "true"])
def test_a_real_tensorboard_serves_pictures_scalars_and_text(trained, servers, loader):
    _, memory, history = trained
    record, get = memory.records[-1], servers[loader]
    tags = wait_for(lambda: get("plugin/images/tags").get("explain"))
    names = [f"explain/{name}/{sample}" for name in EXPLAINERS for sample in range(3)]
    assert sorted(tags) == names
    first = memory.records[1]
    assert "true down" in tags["explain/signed/1"]["description"]
    words = wording.description(first, 1).split(",")[0]
    assert words in tags["explain/signed/1"]["description"]

    shown = get("plugin/images/images", run="explain", tag="explain/signed/1", sample=0)
    assert [image["step"] for image in shown] == [0, 1, 2, 3]
    png = get(f"plugin/images/individualImage?{shown[-1]['query']}&x")
    assert (tf.io.decode_png(png).numpy() == pairs.pairs(record)[1]).all()

    scalars = get("plugin/scalars/tags")["explain"]
    assert sorted(scalars) == sorted(key for key in history if key.startswith("explain/"))
    values = get("plugin/scalars/scalars", run="explain", tag="explain/signed/drift")
    assert [step for _, step, _ in values] == [1, 2, 3]
    assert [value for _, _, value in values] == pytest.approx(
        history["explain/signed/drift"], rel=1e-6
    )

    assert get("plugin/text/tags")["explain"] == ["explain/predictions"]
    texts = get("plugin/text/text", run="explain", tag="explain/predictions")
    assert [text["step"] for text in texts] == [0, 1, 2, 3]
    assert texts[0]["text"].count("<tr>") == 1 + 3
    assert "<td>up" in texts[0]["text"]
