"""Records, the background thread, wording, pictures and the memory sink."""

import dataclasses
import gc
import threading
import time
import types

import numpy as np
import pytest

from keras_explain.plots import render
from keras_explain.sinks import Memory, NotWrittenError, Record, pairs, wording
from keras_explain.sinks.background import Background


def explanation(scores, values=None):
    return types.SimpleNamespace(scores=np.asarray(scores, np.float32), values=values, extras={})


def record(step=0, name="grad_cam", scores=(1.5, -2.0), pictures=True, **changes):
    rng = np.random.default_rng(step)
    maps = rng.normal(size=(2, 8, 6)).astype(np.float32)
    fields = {
        "explanation": explanation(scores, maps),
        "scalars": {"score": float(np.mean(scores)), "scale": 1.25},
        "limit": 1.25,
        "signed": True,
        "pictures": rng.integers(0, 255, (2, 8, 6, 3), np.uint8) if pictures else None,
        "maps": maps if pictures else None,
        "labels": np.array([0, 1]),
        "predicted": np.array([1, 1]),
        "explained": np.array([[0], [1]]),
    }
    return Record(step=step, name=name, **(fields | changes))


class TestBackground:
    def test_jobs_run_in_order_on_one_thread_that_ends(self):
        done, threads = [], set()
        background = Background("test", capacity=3)
        for number in range(50):
            background.submit(
                lambda number=number: (done.append(number), threads.add(threading.get_ident()))
            )
        background.join()
        assert done == list(range(50))
        assert threading.get_ident() not in threads
        assert "test" not in {thread.name for thread in threading.enumerate()}

    def test_never_more_than_one_job_at_a_time(self):
        running, most = [], []

        def job():
            running.append(None)
            most.append(len(running))
            time.sleep(0.001)
            running.pop()

        background = Background("test", capacity=2)
        for number in range(20):
            background.submit(job)
            if number % 5 == 0:
                background.join()
        background.join()
        assert most == [1] * 20

    def test_submit_blocks_while_the_queue_is_full(self):
        gate, submitted = threading.Event(), []
        background = Background("test", capacity=2)

        def fill():
            for number in range(6):
                background.submit(gate.wait)
                submitted.append(number)

        filler = threading.Thread(target=fill)
        filler.start()
        filler.join(timeout=0.3)
        # One job is being run, two are waiting, and the next submit does not return.
        assert submitted == [0, 1, 2]
        gate.set()
        filler.join()
        background.join()
        assert submitted == list(range(6))

    def test_errors_are_raised_by_join_with_their_cause(self):
        background = Background("test")
        done = []
        background.submit(lambda: 1 / 0)
        with pytest.raises(RuntimeError, match=r"test failed .*ZeroDivisionError") as raised:
            background.join()
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        background.submit(lambda: done.append(1))
        background.join()
        assert done == [1]

    def test_an_error_does_not_stop_the_jobs_after_it_and_is_reported_once(self):
        background = Background("test")
        done = []

        def fail():
            raise OSError("no space left")

        background.submit(fail, 3)
        background.submit(lambda: 1 / 0, 4)
        background.submit(lambda: done.append(1), 5)
        background.wait()
        assert done == [1]
        with pytest.raises(NotWrittenError, match=r"failed 2 time.*: OSError: no") as raised:
            background.report()
        assert raised.value.failures == [
            (3, "OSError: no space left"),
            (4, "ZeroDivisionError: division by zero"),
        ]
        assert isinstance(raised.value.__cause__, OSError)  # the first
        background.report()

    def test_wait_ends_with_what_was_queued_before(self):
        gate, later, done = threading.Event(), threading.Event(), []
        background = Background("test")
        background.submit(done.clear)
        background.wait()  # what was done before counts no more
        background.submit(gate.wait)
        waiting = threading.Thread(target=lambda: (background.wait(), done.append("waited")))
        waiting.start()
        waiting.join(0.1)
        assert done == []
        background.submit(later.wait)
        gate.set()
        waiting.join()
        assert done == ["waited"]
        later.set()
        background.join()

    def test_an_error_that_nobody_asked_for_is_warned_about_when_it_goes_away(self):
        background = Background("test")
        background.submit(lambda: 1 / 0)
        background._thread.join()
        del background
        with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
            gc.collect()


class TestMemory:
    def test_history_is_by_explainer_in_order(self):
        memory = Memory()
        records = [record(s, n, scores=(s, s)) for s in (0, 2) for n in ("a", "b")]
        for one in records:
            memory.write(one)
        memory.flush()
        memory.close()
        assert memory.records == records
        assert memory.history() == {
            "a": [(0, records[0].explanation), (2, records[2].explanation)],
            "b": [(0, records[1].explanation), (2, records[3].explanation)],
        }
        memory.clear()
        assert memory.history() == {}


class TestPairs:
    def test_input_gap_and_map_side_by_side_in_whole_pixels(self):
        one = record()
        drawn = pairs.pairs(one)
        over = render.overlay(one.pictures, one.maps, one.limit, signed=True)
        factor = 16  # 8 x 16 = 128
        assert drawn.shape == (2, 128, 2 * 96 + 4, 3)
        assert drawn.dtype == np.uint8
        for sample in range(2):
            for row in range(0, 128, 5):
                for column in range(0, 96, 7):
                    at = row // factor, column // factor
                    assert (drawn[sample, row, column] == one.pictures[sample][at]).all()
                    assert (drawn[sample, row, 100 + column] == over[sample][at]).all()
        assert (drawn[:, :, 96:100] == 255).all()

    def test_one_scale_for_all_samples(self):
        one = record()
        alone = pairs.pairs(dataclasses.replace(one, pictures=one.pictures[1:], maps=one.maps[1:]))
        assert (pairs.pairs(one)[1] == alone[0]).all()
        wider = record(limit=10.0)
        assert (pairs.pairs(one) != pairs.pairs(wider)).any()

    def test_nothing_is_drawn_without_pictures(self):
        assert pairs.pairs(record(pictures=False)) is None


class TestWording:
    def test_description_says_which_step_it_is_of(self):
        line = wording.description(record(step=7, class_names=("cat", "dog")), 0)
        assert line.startswith("step 7: true cat, predicted dog, explained cat (score 1\\.5)")
        assert "explain/predictions" in line

    def test_description_without_classes_has_the_score_alone(self):
        line = wording.description(record(labels=None, predicted=None, explained=None), 1)
        assert line.startswith("step 0: score \\-2")

    def test_table_has_a_row_per_sample_and_a_column_per_explainer(self):
        first, second = record(), record(name="saliency", scores=(3.0, 4.0))
        assert wording.table([first, second]).split("\n") == [
            r"| sample | true | predicted | grad\_cam | saliency |",
            "| --- | --- | --- | --- | --- |",
            r"| 0 | 0 | 1 | 0 (score 1\.5) | 0 (score 3) |",
            r"| 1 | 1 | 1 | 1 (score \-2) | 1 (score 4) |",
        ]

    def test_several_classes_per_sample(self):
        several = record(scores=[[1.0, 2.0], [3.0, 4.0]], explained=np.array([[0, 1], [1, 0]]))
        assert "| 0 (score 1), 1 (score 2) |" in wording.table([several])

    def test_names_can_not_break_the_table_nor_become_markup(self):
        named = record(class_names=("a|b", "<b>*x*</b>\n# y"))
        lines = wording.table([named]).split("\n")
        assert len(lines) == 4
        assert r"a\|b" in lines[2]
        assert r"\<b\>\*x\*\</b\> \# y" in lines[3]

    def test_a_class_beyond_the_names_keeps_its_number(self):
        assert record(class_names=("cat",)).class_name(0) == "cat"
        assert record(class_names=("cat",)).class_name(1) == "1"
