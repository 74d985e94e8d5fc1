"""Bars and waterfalls of rows of tables: their lengths, names and numbers."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

import keras_explain as kx
from keras_explain.plots import render, sheet
from tests import models
from tests.test_plots import assert_tidy, texts_of

MINUS = "\N{MINUS SIGN}"
NAMES = ["age", "sum", "size", "year"]


def explained(values, *, x=None, scores=None, **extras):
    """An explanation of rows `[B, F]` with values `[B, F]` or `[B, K, F]`."""
    values = np.asarray(values, np.float32)
    batch = values.shape[:-1]
    x = np.arange(len(values) * values.shape[-1]).reshape(len(values), -1) + 0.5 if x is None else x
    scores = np.ones(batch, np.float32) if scores is None else np.asarray(scores, np.float32)
    target = kx.targets.Class(np.arange(np.prod(batch)).reshape(batch))
    extras = {name: np.asarray(extra) for name, extra in extras.items()}
    return kx.Explanation(values, scores, target, x, kx.IntegratedGradients(), extras)


def bars_of(figure):
    """`(top, left, right, colour)` of the bars, from top to bottom; without the key below."""
    boxes = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    boxes = [b for b in boxes if b.get_height() > 0.1]
    made = [(b.get_y(), b.get_x(), b.get_x() + b.get_width(), b.get_facecolor()[:3]) for b in boxes]
    return sorted(made, key=lambda bar: bar[:2])


def zero_of(figure):
    """Where the line at zero stands."""
    (line,) = [c for c in figure.axes[0].collections if np.allclose(c.get_color()[0, :3], INK)]
    return line.get_segments()[0][0, 0]


INK = to_rgb(sheet.INK)


class TestBars:
    def test_lengths_sides_and_colours_by_value(self):
        figure = explained([[1.0, -3.0, 2.0, -0.5]]).plot()
        zero = zero_of(figure)
        bars = bars_of(figure)
        against, pro = (np.asarray(colour) / 255 for colour in render.sign_colours())
        inch = (bars[0][2] - bars[0][1]) / 3
        for (_, left, right, colour), value in zip(bars, [-3, 2, 1, -0.5], strict=True):
            assert [left, right] == pytest.approx(sorted([zero, zero + value * inch]))
            np.testing.assert_allclose(colour, pro if value > 0 else against, atol=1e-6)
        assert_tidy(figure)

    def test_words(self):
        explanation = explained([[1.0, -3.0, 2.0, -0.5]])
        texts = texts_of(explanation.plot(feature_names=NAMES, class_names=["cat"]))
        assert texts == [
            "IntegratedGradients",
            *("cat", "1.00"),
            *("sum", "= 1.50", f"{MINUS}3.00"),
            *("size", "= 2.50", "+2.00"),
            *("age", "= 0.500", "+1.00"),
            *("year", "= 3.50", f"{MINUS}0.500"),
            *("lowers the score", "raises the score"),
        ]

    def test_values_without_a_sign_raise_and_lower_nothing(self):
        model, x = models.get("tabular").model, models.get("tabular").x
        for explainer in (kx.Saliency(), kx.SquareGrad(samples=2), kx.SobolAttribution()):
            texts = texts_of(explainer(model, x).plot())
            assert texts[-1] == "how much it matters"
            assert not any(text.startswith("+") or text == "raises the" for text in texts)
        texts = texts_of(kx.Saliency(absolute=False)(model, x).plot())
        assert texts[-2:] == ["lowers the score", "raises the score"]

    def test_the_others_are_summed(self):
        values = np.arange(1, 61, dtype=np.float32)[None] * np.where(np.arange(60) % 2, -1, 1)
        figure = explained(values).plot(max_features=4)
        texts = texts_of(figure)
        assert [t for t in texts if t.startswith("feature")] == [
            f"feature {i}" for i in (59, 58, 57, 56)
        ]
        rest = sheet.number(values[0, :56].sum())
        assert texts[texts.index("56 other features") + 1] == rest
        assert len(bars_of(figure)) == 5
        assert "1 other feature" in texts_of(explained([[1.0, 2.0]]).plot(max_features=1))
        assert not any("other" in t for t in texts_of(explained([[1.0, 2.0]]).plot(max_features=2)))

    def test_one_scale_for_all_rows(self):
        figure = explained([[4.0, 0.1], [1.0, 0.1], [2.0, 0.1]]).plot()
        longest = sorted((right - left for _, left, right, _ in bars_of(figure)), reverse=True)[:3]
        np.testing.assert_allclose(np.array(longest) / longest[0], [1, 0.5, 0.25], rtol=1e-5)

    def test_columns_of_one_feature_are_one_bar(self):
        groups = [[0, 1, 1, 0], [0, 0, 1, -1]]
        values = [[1.0, -3.0, -3.0, 1.0], [1.0, 1.0, 3.0, 0.0]]
        texts = texts_of(explained(values, features=groups).plot(feature_names=NAMES))
        assert texts[3:6] == ["sum, size", "= 1.50, 2.50", f"{MINUS}3.00"]
        assert texts[6:9] == ["age, year", "= 0.500, 3.50", "+1.00"]
        assert texts[11:14] == ["size", "= 6.50", "+3.00"]
        assert texts[14:17] == ["age, sum", "= 4.50, 5.50", "+1.00"]
        assert len(texts) == 19

    def test_of_one_hot_columns_the_category_is_named(self):
        x = np.array([[0.0, 1.0, 0.0, 7.0], [1.0, 0.0, 1.0, 7.0]])
        values, groups = [[2.0, 2.0, 2.0, 1.0]] * 2, [[0, 0, 0, 1]] * 2
        explanation = explained(values, x=x, features=groups)
        texts = texts_of(explanation.plot(feature_names=["a", "b", "c", "age"]))
        assert texts[2:7] == ["1.00", "b", "+2.00", "age", "= 7"]
        assert texts[9:12] == ["1.00", "a, b, c", "= 1, 0, 1"]

    def test_features_of_several_targets(self):
        values = [[[1.0, 1.0, 2.0], [5.0, 5.0, -3.0]]]
        figure = explained(values, features=[[[0, 0, 1], [0, 0, 1]]]).plot()
        assert texts_of(figure).count("feature 0, feature 1") == 2
        assert {"+1.00", "+2.00", "+5.00", f"{MINUS}3.00"} <= set(texts_of(figure))

    def test_a_panel_for_each_target(self):
        explanation = explained([[[1.0, 2.0], [3.0, -4.0]], [[1.0, 1.0], [1.0, 1.0]]])
        figure = explanation.plot()
        texts = texts_of(figure)
        expected = [f"sample {i // 2} · class {i}" for i in range(4)]
        assert [t for t in texts if "class" in t] == expected
        assert texts.count("= 0.500") == 2
        assert texts.count("= 2.50") == 2
        assert_tidy(figure)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (np.float32(3), "= 3"),
            (np.float32(-3.25), f"= {MINUS}3.25"),
            (np.float32(1e9), "= 1.00e+09"),
            (np.float32(np.nan), "= nan"),
            (np.int32(-7), f"= {MINUS}7"),
            (np.bool_(True), "= True"),
        ],
    )
    def test_values_of_features(self, value, text):
        figure = explained([[1.0]], x=np.array([[value]])).plot("table")
        assert text in texts_of(figure)

    @pytest.mark.parametrize("values", [[[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, -np.inf]]])
    def test_zero_and_non_finite_values(self, values):
        figure = explained(values).plot()
        assert_tidy(figure)
        for _, left, right, _ in bars_of(figure):
            assert np.isfinite([left, right]).all()
        numbers = texts_of(figure)
        assert {"+" * int(v > 0) + sheet.number(v) for v in values[0]} <= set(numbers)

    @pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (8, 60)])
    def test_tidy(self, rows, columns):
        values = np.random.default_rng(0).normal(size=(rows, columns)) ** 3
        names = [
            f"a name that is as long as they come, number {i}, and longer" for i in range(columns)
        ]
        assert_tidy(explained(values).plot(feature_names=names))

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_tidy_whatever_the_numbers(self, scale):
        values = scale * np.random.default_rng(0).normal(size=(2, 4))
        for signed in (values, np.abs(values), -np.abs(values)):
            explanation = explained(signed, base_values=scale * np.ones(2))
            assert_tidy(explanation.plot())
            assert_tidy(explanation.plot(show="waterfall"))

    def test_rows_without_an_axis(self):
        explanation = explained([[1.0], [2.0]])
        flat = dataclasses.replace(
            explanation,
            x=explanation.x[:, 0],
            values=explanation.values[:, 0],
            scores=explanation.scores[:, 0] if explanation.scores.ndim == 2 else explanation.scores,
        )
        assert texts_of(flat.plot()) == texts_of(explanation.plot())


class TestWaterfall:
    def test_leads_from_the_base_value_to_the_score(self):
        values, base = np.array([[1.0, -3.0, 2.0, -0.5]]), 4.0
        score = base + values.sum()
        explanation = explained(values, scores=[score], base_values=[base])
        figure = explanation.plot(show="waterfall", feature_names=NAMES)
        at = [base, 1.0, 3.0, 4.0, 3.5]
        start, *bars, end = bars_of(figure)
        inch = (bars[0][2] - bars[0][1]) / 3
        origin = bars[0][2]
        for (_, left, right, _), low, high in zip(bars, at, at[1:], strict=False):
            expected = sorted(origin + (np.array([low, high]) - base) * inch)
            assert [left, right] == pytest.approx(expected)
        assert (start[1] + start[2]) / 2 == pytest.approx(origin)
        assert (end[1] + end[2]) / 2 == pytest.approx(origin + (score - base) * inch)
        texts = texts_of(figure)
        assert texts[3:5] == ["base value", "4.00"]
        assert texts[-4:-2] == ["score", "3.50"]
        assert "not attributed" not in texts
        assert_tidy(figure)

    def test_what_is_missing_is_said(self):
        explanation = explained([[1.0, 2.0]], scores=[5.0], base_values=[1.0])
        texts = texts_of(explanation.plot(show="waterfall"))
        assert texts[texts.index("not attributed") + 1] == "+1.00"
        near = explained([[1.0, 2.0]], scores=[4.01], base_values=[1.0])
        assert "not attributed" not in texts_of(near.plot(show="waterfall"))

    def test_other_inputs_have_a_bar(self):
        explanation = explained([[1.0, 2.0]], scores=[8.0], base_values=[1.0])
        row, text = explanation.values, np.array([[3.0, 3, 1]], np.float32)
        features = {"row": np.array([[0, 1]]), "text": np.array([[2, 2, 3]])}
        both = dataclasses.replace(
            explanation,
            x={"row": explanation.x, "text": np.ones((1, 3), np.int32)},
            values={"row": row, "text": text},
            extras=explanation.extras | {"features": features},
        )
        for options in ({}, {"kind": "table", "feature_names": {"row": ["a", "b"]}}):
            texts = texts_of(both.plot(show="waterfall", **options))
            assert texts[texts.index("other inputs") + 1] == "+4.00"
            assert "not attributed" not in texts

    def test_without_base_values(self):
        with pytest.raises(ValueError, match=r"'base_values'.*IntegratedGradients.*show='bar'"):
            explained([[1.0, 2.0]]).plot(show="waterfall")

    def test_of_an_explainer(self):
        case = models.get("tabular")
        explanation = kx.IntegratedGradients(steps=64)(case.model, case.x)
        figure = explanation.plot(show="waterfall")
        texts = texts_of(figure)
        assert texts.count("score") == len(explanation)
        base = explanation.extras["base_values"]
        assert {sheet.number(b) for b in base} <= set(texts)
        assert "not attributed" not in texts
        assert_tidy(figure)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"feature_names": ["a"]}, r"each of the 2 columns in `feature_names`. Received: 1"),
            ({"max_features": 0}, r"`max_features` of 1 or more. Received: 0"),
            ({"max_samples": 0}, r"`max_samples` of 1 or more. Received: 0"),
            ({"show": "pie"}, r"'bar', 'waterfall'. Received: 'pie'"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            explained([[1.0, 2.0]]).plot(**options)
