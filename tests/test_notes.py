"""What is said beside maps: that they are below float precision, or leave a gap unexplained."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_explain as kx
from keras_explain import plots
from keras_explain.core.run.precision import ROUNDING, gaps
from keras_explain.plots import notes, ranges, render
from keras_explain.plots.table import _MUTED
from keras_explain.sinks import events, maps, pairs, wording
from tests import logs, test_plots_series, test_plots_table, test_plots_text, test_sinks
from tests.test_plots import H, W, assert_tidy, cells_of, texts_of

WORDS = {"below float precision"}
PICTURES = np.random.default_rng(0).uniform(0, 1, (3, H, W, 3)).astype("float32")


def explained(values, x=PICTURES, **extras):
    """Of three rows the second is below float precision, and the third zero."""
    values = np.array(values, "float32")
    values[1] *= 1e-9
    values[2] = 0
    extras = {"reliable": np.array([True, False, False])} | extras
    target = kx.targets.Class(np.arange(3))
    return kx.Explanation(values, np.ones(3, "float32"), target, x, kx.Saliency(), extras)


def pictures(**extras):
    return explained(np.random.default_rng(1).normal(size=(3, H, W)), **extras)


class TestGaps:
    def test_a_gap_is_a_share_of_the_change(self):
        found = gaps(np.float32([4, 4]), np.float32([2, 8]), np.float32([-0.5, 1]))
        np.testing.assert_array_equal(found, [0.25, 0.25])

    def test_what_is_within_rounding_is_no_gap(self):
        least = 5 * ROUNDING
        scores, base = np.float64([5, 5, 0, 0]), np.float64([5, 5, 0, 0])
        found = gaps(scores, base, np.array([least / 2, 2 * least, 0, 1]))
        np.testing.assert_allclose(found, [0, 2, 0, np.inf])

    def test_one_is_said_above_a_tenth(self):
        shares = (None, np.nan, 0.1, 0.101, 0.344, 9.99, np.inf)
        said = [notes.of_shares(share, None)[0] for share in shares]
        assert said == ["", "", "", "gap 10 %", "gap 34 %", "gap 999 %", "gap > 999 %"]


class TestFigures:
    def test_a_pale_picture_with_words_takes_the_place_of_a_map(self):
        explanation = pictures()
        figure = plots.plot(explanation)
        drawn = ranges.to_uint8(PICTURES)
        first, *others = cells_of(figure)
        limit = render.limit_of(explanation.values[:1])  # of what can be told from zero
        np.testing.assert_array_equal(
            first[1], render.colorize(explanation.values[:1], limit, True)[0]
        )
        for row, cells in enumerate(others, start=1):
            assert (cells[1] == cells[1][0, 0]).all()
            np.testing.assert_array_equal(cells[2], render.faded(drawn)[row])
        texts = texts_of(figure)
        assert texts.count("below float") == texts.count("precision") == 2
        assert texts.count("zero") == texts.count("everywhere") == 2
        assert_tidy(figure)

    @pytest.mark.parametrize("show", ["signed", "masked"])
    def test_whatever_is_shown(self, show):
        figure = plots.plot(pictures(), show=show)
        assert texts_of(figure).count("below float") == 1

    def test_grids_and_epochs_have_them_too(self):
        one = pictures()
        assert "below float" in texts_of(plots.grid({"a": one}))
        figure = plots.epochs({"a": [(0, one), (1, one)]}, max_samples=3)
        assert texts_of(figure).count("below float") == 2
        assert_tidy(figure)

    def test_old_explanations_are_drawn_as_before(self):
        explanation = pictures()
        del explanation.extras["reliable"]
        assert not {"below float", "zero"} & set(texts_of(plots.plot(explanation)))

    def test_bars_are_grey(self):
        figure = explained(np.ones((3, 4)), x=np.ones((3, 4))).plot()
        colours = [colour for *_, colour in test_plots_table.bars_of(figure)]
        assert texts_of(figure).count("1.00 · below float precision") == 1
        grey = test_plots_table.to_rgb(_MUTED)
        assert sum(np.allclose(colour, grey) for colour in colours) == 4

    def test_words_have_no_colour(self):
        explanation = explained(test_plots_text.VALUES[[0, 0, 0]], test_plots_text.IDS[[0, 0, 0]])
        figure = explanation.plot()
        colours = np.array([colour for _, _, colour in test_plots_text.boxes_of(figure)])
        white = render.colorize([[[0.0]]], 1.0, signed=True)[0, 0, 0] / 255
        np.testing.assert_allclose(colours[5:], np.tile(white, (10, 1)))
        assert not np.allclose(colours[4], white)
        html = plots.to_html(explanation)
        assert html.count(",0.000)") == 11  # one value of the first is 0
        assert "below float precision" in html

    def test_lines_are_grey(self):
        x, values = test_plots_series.waves(samples=3)
        figure = explained(values, x).plot()
        _, *others = [colours for _, colours in test_plots_series.strips_of(figure)]
        for colours in others:
            assert np.ptp(colours, axis=0).max() == 0
        assert texts_of(figure).count("1.00 · below float precision") == 1

    def test_gaps_stand_behind_the_score(self):
        extras = {"base_values": np.zeros(3), "convergence_delta": np.float32([0.34, 5, 0.05])}
        figure = plots.plot(pictures(**extras))
        texts = texts_of(figure)
        assert "1.00 · gap 34 %" in texts
        assert sum("gap" in text for text in texts) == 1  # the others are small, or noise anyway
        assert_tidy(figure)

    @pytest.mark.parametrize("name", ["relative_error", "value_error"])
    def test_errors_stand_behind_the_score(self, name):
        figure = plots.plot(pictures(**{name: np.float32([0.124, 12, 0.09])}))
        texts = texts_of(figure)
        assert "1.00 · error 12 %" in texts
        assert sum("error" in text for text in texts) == 1  # the others are small, or noise anyway

    def test_an_error_that_is_not_known_is_said(self):
        figure = plots.plot(pictures(relative_error=np.float32([np.nan, 0.05, 0.05])))
        assert "1.00 · error unknown" in texts_of(figure)

    def test_each_of_several_inputs_has_its_own_error(self):
        values = {"a": np.ones((1, 3)), "b": np.full((1, 3), 0.01)}
        errors = {"a": np.full((1, 3), 0.02), "b": np.full((1, 3), 0.004)}
        extras = {"standard_error": errors, "relative_error": np.float32([0.02])}
        x, scores = {"a": np.ones((1, 3)), "b": np.ones((1, 3))}, np.ones(1, "float32")
        several = kx.Explanation(values, scores, kx.targets.Class([0]), x, kx.Saliency(), extras)
        texts = [text for text in texts_of(several.plot()) if "error" in text]
        assert [text.split(" · ")[-1] for text in texts] == ["error 40 %"]

    def test_each_of_several_inputs_is_told_by_itself(self):
        values = {"a": np.ones((1, 3)), "b": np.full((1, 3), 1e-12)}
        reliable = {"a": np.array([True]), "b": np.array([False])}
        x, scores = {"a": np.ones((1, 3)), "b": np.ones((1, 3))}, np.ones(1, "float32")
        args = (values, scores, kx.targets.Class([0]), x, kx.Saliency(), {"reliable": reliable})
        texts = texts_of(kx.Explanation(*args).plot())
        said = [text for text in texts if "1.00" in text]
        assert sum("below" in text for text in said) == 1
        assert list(map(bool, notes.reliable(kx.Explanation(*args)))) == [True]


class TestLogged:
    def test_the_picture_says_it(self):
        known = np.array([True, False])
        record = test_sinks.record(reliable=known)
        told, plain = pairs.pairs(record), pairs.pairs(test_sinks.record())
        np.testing.assert_array_equal(told[0], plain[0])
        width = (told.shape[2] - pairs.GAP) // 2
        np.testing.assert_array_equal(told[1, :, :width], plain[1, :, :width])
        right = told[1, :, -width:]
        assert np.ptp(right, axis=-1).max() <= np.ptp(pairs.INK)  # grey
        assert (right < 100).any()  # words
        assert (right.min(axis=-1) >= 100).mean() > 0.8

    def test_descriptions_and_tables_say_it(self):
        record = test_sinks.record(reliable=np.array([True, False]))
        record.explanation.extras.update(
            base_values=np.float32([0.5, 0]),
            convergence_delta=np.float32([0.5, 0]),
            relative_error=np.float32([0.3, 0.3]),
        )
        assert "score 1\\.5, gap 50 %, error 30 %" in wording.description(record, 0)
        assert "score \\-2, below float precision" in wording.description(record, 1)
        assert "below float precision" in wording.table([record])

    def test_events_say_it(self):
        record = logs.record(0, reliable=np.array([True, False, True]))
        record.explanation.extras.update(
            base_values=record.explanation.scores - 1,
            convergence_delta=np.float32([0.5, 0, 0]),
            relative_error=np.float32([0.25, np.nan, 0]),
        )
        headers = [
            events.read_map(maps.maps(record, maps.shown(record), sample)[0]) for sample in range(3)
        ]
        assert [header["reliable"] for header in headers] == [[True], [False], [True]]
        assert [header["gap"] for header in headers] == [[pytest.approx(0.5)], [0], [0]]
        assert [header["error"] for header in headers] == [[0.25], [None], [0]]

    def test_events_of_before_are_read(self):
        header = json.loads(maps.maps(logs.record(0), maps.shown(logs.record(0)), 0)[0])
        assert header["gap"] is header["reliable"] is header["error"] is None
        del header["gap"], header["reliable"], header["error"]
        read = events.read_map(json.dumps(header).encode())
        assert read["gap"] is read["reliable"] is read["error"] is None

    def test_a_training_logs_it(self, tmp_path):
        x = keras.Input((4, 4, 1))
        model = keras.Model(x, layers.Dense(1, name="out")(layers.Flatten()(x)))
        model.get_layer("out").set_weights([np.full((16, 1), 1e-10, "float32"), np.ones(1)])
        model.compile("sgd", "mse")
        memory, rows = kx.sinks.Memory(), np.ones((2, 4, 4, 1), "float32")
        explainers = [kx.InputXGradient(), kx.IntegratedGradients(steps=1)]
        logger = kx.callbacks.ExplanationLogger(explainers, rows, sinks=[memory])
        with pytest.warns(UserWarning, match="below float precision"):
            model.fit(rows, np.ones(2), epochs=2, verbose=0, callbacks=[logger])
        assert [record.reliable.tolist() for record in memory.records] == [[False, False]] * 4
        for record in memory.records:
            assert "below float precision" in wording.description(record, 0)
            assert not maps.shown(record).reliable.any()
