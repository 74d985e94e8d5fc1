"""Lines of series: where they run, and that their colours are those of their values."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

import keras_explain as kx
from keras_explain.plots import render
from keras_explain.plots.series import _GREY, around
from tests import models
from tests.test_plots import assert_tidy, bars_of, texts_of

T = 20
NAN = np.array(render.NAN_COLOUR) / 255


def explained(x, values, classes=None):
    values = np.asarray(values, np.float32)
    classes = np.arange(len(x)) if classes is None else np.asarray(classes)
    target = kx.targets.Class(classes)
    return kx.Explanation(
        values, np.ones(classes.shape, np.float32), target, np.asarray(x), kx.IntegratedGradients()
    )


def waves(samples=1, channels=1, steps=T):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, samples, steps, channels)).astype(np.float32)


def strips_of(figure):
    """The lines of the strips, from top to bottom: segments `[T, 3, 2]` and colours `[T, 3]`."""
    wide = [
        c
        for c in figure.axes[0].collections
        if isinstance(c, LineCollection) and c.get_linewidth()[0] == 2
    ]
    return [(np.array(c.get_segments()), c.get_color()[:, :3]) for c in wide]


def colours_of(values, limit):
    """The colours of the values over grey, by `render`."""
    grey = np.full((1, 1, np.size(values), 3), _GREY, np.uint8)
    return render.overlay(grey, np.asarray(values)[None, None], limit, signed=True)[0, 0] / 255


class TestLines:
    def test_runs_through_the_numbers(self):
        x, values = waves()
        ((segments, _),) = strips_of(explained(x, values).plot())
        points = segments[:, 1]
        steps = np.diff(points[:, 0])
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        assert steps[0] > 0
        down = points[:, 1]
        share = (x[0, :, 0] - x.min()) / (x.max() - x.min())
        np.testing.assert_allclose((down.max() - down) / np.ptp(down), share, atol=1e-5)

    def test_each_step_has_the_colour_of_its_value(self):
        x, values = waves(samples=2, channels=3)
        strips = strips_of(explained(x, values).plot())
        limit = render.limit_of(values)
        assert len(strips) == 6
        for i, (_, colours) in enumerate(strips):
            np.testing.assert_allclose(
                colours, colours_of(values[i // 3, :, i % 3], limit), atol=1e-6
            )

    def test_the_pieces_join_in_the_middle(self):
        points = np.random.default_rng(0).normal(size=(5, 2))
        pieces = around(points)
        np.testing.assert_array_equal(pieces[:, 1], points)
        np.testing.assert_array_equal(pieces[1:, 0], pieces[:-1, 2])
        np.testing.assert_allclose(pieces[1:, 0], (points[1:] + points[:-1]) / 2)
        np.testing.assert_array_equal([pieces[0, 0], pieces[-1, 2]], points[[0, -1]])

    def test_a_value_of_a_step_colours_all_channels(self):
        x, values = waves(channels=3)
        strips = strips_of(explained(x, values[..., 0]).plot())
        assert len(strips) == 3
        for _, colours in strips:
            np.testing.assert_array_equal(colours, strips[0][1])

    def test_large_values_look_apart_and_zero_is_grey(self):
        blue, grey, red = 255 * colours_of([-1.0, 0.0, 1.0], 1.0)
        assert np.ptp(grey) == 0
        assert blue[2] > blue[0] + 60
        assert red[0] > red[2] + 60

    def test_without_an_axis_of_channels(self):
        x, values = waves()
        plain = strips_of(explained(x, values).plot())
        flat = strips_of(explained(x[..., 0], values[..., 0]).plot("series"))
        np.testing.assert_array_equal(plain[0][0], flat[0][0])
        np.testing.assert_array_equal(plain[0][1], flat[0][1])

    def test_samples_share_the_axis_of_a_channel(self):
        x, values = waves(samples=2)
        x[1] *= 0.1
        one, other = (segments[:, 1, 1] for segments, _ in strips_of(explained(x, values).plot()))
        assert np.ptp(other) == pytest.approx(np.ptp(one) * np.ptp(x[1]) / np.ptp(x[0]), rel=1e-4)

    def test_several_targets(self):
        x, values = waves(samples=2, channels=2)
        several = np.stack([values, -values], axis=1)
        figure = explained(x, several, [[0, 1], [2, 3]]).plot()
        strips = strips_of(figure)
        assert len(strips) == 8
        for k, sign in ((0, 1), (1, -1)):
            _, colours = strips[2 * k]
            limit = render.limit_of(several)
            np.testing.assert_allclose(
                colours, colours_of(sign * values[0, :, 0], limit), atol=1e-6
            )
        assert [t for t in texts_of(figure) if "class" in t] == [
            f"sample {i // 2} · class {i}" for i in range(4)
        ]


class TestSheet:
    def test_words(self):
        x, values = waves(channels=2)
        figure = explained(x, values).plot(feature_names=["left", "right"], class_names=["step"])
        texts = texts_of(figure)
        assert texts[:3] == ["IntegratedGradients", "step", "1.00"]
        assert {"left", "right", "time", "0"} <= set(texts)
        assert len(bars_of(figure)) == 1
        assert_tidy(figure)

    def test_the_strongest_channels_are_drawn_in_order(self):
        x, values = waves(samples=2, channels=9)
        values *= np.array([1, 9, 1, 8, 1, 7, 1, 1, 1])
        figure = explained(x, values).plot(max_channels=3)
        names = [t for t in texts_of(figure) if t.startswith("channel")]
        assert names == ["channel 1", "channel 3", "channel 5"] * 2
        assert "6 other channels not drawn" in texts_of(figure)
        assert_tidy(figure)

    def test_the_axis_of_time(self):
        x, values = waves(steps=150)
        figure = explained(x, values).plot()
        ticks = [
            t for t in figure.axes[0].texts if t.get_text().isdigit() and t.get_ha() == "center"
        ]
        ((segments, _),) = strips_of(figure)
        assert len(ticks) >= 4
        for tick in ticks:
            at = segments[int(tick.get_text()), 1, 0]
            assert tick.get_position()[0] == pytest.approx(at)

    @pytest.mark.parametrize(
        ("samples", "channels", "steps"),
        [(1, 1, 150), (8, 1, 30), (2, 6, 30), (1, 1, 1), (1, 2, 2)],
    )
    def test_tidy(self, samples, channels, steps):
        x, values = waves(samples, channels, steps)
        names = [f"a sensor with a long name, number {i}" for i in range(channels)]
        assert_tidy(explained(1e4 * x, values).plot(feature_names=names))

    def test_constant_and_non_finite_series(self):
        x, values = waves(samples=3)
        x[0] = 2
        x[1, 3], x[2] = np.nan, np.nan
        values[0, 4] = np.nan
        figure = explained(x, values).plot()
        (first, *_) = [c for c in figure.axes[0].collections if len(c.get_color()) == T]
        np.testing.assert_allclose(first.get_color()[4, :3], NAN, atol=1e-6)
        assert_tidy(figure)
        assert_tidy(explained(x[:1], 0 * values[1:2]).plot())

    def test_of_an_explainer(self):
        case = models.get("series")
        explanation = kx.Saliency()(case.model, case.x)
        assert len(strips_of(explanation.plot())) == len(explanation) * case.x.shape[2]


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"feature_names": ["a"]}, r"each of the 2 channels in `feature_names`. Received: 1"),
            ({"max_channels": 0}, r"`max_channels` of 1 or more. Received: 0"),
        ],
    )
    def test_bad_options(self, options, message):
        x, values = waves(channels=2)
        with pytest.raises(ValueError, match=message):
            explained(x, values).plot(**options)
