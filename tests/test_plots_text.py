"""Coloured words: as a figure and as HTML."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import keras_explain as kx
from keras_explain import plots
from keras_explain.plots import render, sheet
from keras_explain.plots.text import _PALE
from tests import models
from tests.test_plots import assert_tidy, bars_of, texts_of

WORDS = ["", "the", "film", "was", "not", "bad"]
IDS = np.array([[1, 2, 3, 4, 5], [5, 4, 0, 0, 0]], np.int32)
VALUES = np.array([[0.1, 0.0, -0.2, 3.0, -4.0], [1.0, 2.0, 0.0, 0.0, 0.0]], np.float32)


def explained(x=IDS, values=VALUES, classes=None, **extras):
    values = np.asarray(values, np.float32)
    classes = np.arange(len(x)) if classes is None else np.asarray(classes)
    scores, target = np.ones(classes.shape, np.float32), kx.targets.Class(classes)
    return kx.Explanation(values, scores, target, x, kx.IntegratedGradients(), extras)


def boxes_of(figure):
    return [(b.get_x(), b.get_y(), b.get_facecolor()[:3]) for b in figure.axes[0].patches]


def luminance(colour):
    channels = np.asarray(colour, float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """The ratio of the Web Content Accessibility Guidelines; 4.5 can be read."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


class TestFigure:
    def test_words_of_a_vocabulary_without_padding(self):
        for vocabulary in (WORDS, dict(enumerate(WORDS)), WORDS.__getitem__):
            texts = texts_of(explained().plot(vocabulary=vocabulary))
            assert texts[3:8] == WORDS[1:]
            assert texts[10:12] == ["bad", "not"]
            assert len(texts) == 14

    def test_ids_without_a_vocabulary_and_missing_words(self):
        assert texts_of(explained().plot())[3:8] == list("12345")
        assert texts_of(explained().plot(vocabulary={4: "not"}))[3:8] == ["1", "2", "3", "not", "5"]

    def test_words_of_the_tokenizer(self):
        explanation = explained(
            tokens=np.array([["a", "b", "c", "d", "e"], ["f", "g", "", "", ""]])
        )
        texts = texts_of(explanation.plot())
        assert texts[3:8] == list("abcde")
        assert texts[10:12] == ["f", "g"]
        assert texts_of(explanation.plot(vocabulary=WORDS))[3:8] == WORDS[1:]

    def test_words_of_two_texts(self):
        words = [np.array([[letter] * 5] * 2) for letter in "ab"]
        explanation = dataclasses.replace(
            explained(tokens=words[0], tokens_reply=words[1]),
            x={"reply": IDS, "post": IDS},
            values={"reply": VALUES, "post": VALUES},
        )
        texts = texts_of(explanation.plot())
        assert texts[texts.index("post") + 3] == "a"
        assert texts[texts.index("reply") + 3] == "b"

    def test_only_padding_at_the_end_is_left_out(self):
        ids = np.array([[0, 1, 0, 2, 0, 0]], np.int32)
        for values, shown in ((np.eye(6)[4:5], "01020"), (np.zeros((1, 6)), "0102")):
            figure = explained(ids, values).plot()
            assert len(boxes_of(figure)) == len(shown)
            assert texts_of(figure)[3 : 3 + len(shown)] == list(shown)

    def test_nothing_but_padding(self):
        figure = explained(0 * IDS, 0 * VALUES).plot()
        assert texts_of(figure).count("no tokens") == 2
        assert_tidy(figure)

    def test_colours_by_value_on_one_scale(self):
        figure = explained().plot()
        colours = np.array([colour for _, _, colour in boxes_of(figure)])
        expected = render.colorize(VALUES[None], 4 / _PALE, signed=True)[0] / 255
        np.testing.assert_allclose(colours[:5], expected[0], atol=1e-6)
        np.testing.assert_allclose(colours[5:], expected[1, :2], atol=1e-6)
        (bar,) = bars_of(figure)
        np.testing.assert_allclose(bar[0, [0, -1]] / 255, render_ends(4.0), atol=1e-6)
        assert texts_of(figure)[-2:] == [sheet.number(-4, 2), "4.0"]

    def test_values_above_zero_have_half_the_bar(self):
        figure = explained(values=np.abs(VALUES)).plot()
        assert texts_of(figure)[-2:] == ["0", "4.0"]
        (bar,) = bars_of(figure)
        white = render.colorize([[[0.0]]], 1.0, signed=True)[0, 0, 0]
        np.testing.assert_array_equal(bar[0, 0], white)

    def test_words_can_be_read_on_all_colours(self):
        (bar,) = bars_of(explained().plot())
        assert min(contrast(colour / 255, to_rgb(sheet.INK)) for colour in bar[0]) >= 4.5

    def test_signs_look_apart(self):
        blue, red = 255 * render_ends(1.0)
        assert blue[2] > blue[0] + 60
        assert red[0] > red[2] + 60

    def test_lines_are_wrapped(self):
        ids = np.tile(IDS[:1], (1, 40))
        figure = explained(ids, np.tile(VALUES[:1], (1, 40))).plot(vocabulary=WORDS)
        tops = sorted({round(y, 6) for _, y, _ in boxes_of(figure)})
        assert len(boxes_of(figure)) == 200
        assert 5 < len(tops) < 30
        np.testing.assert_allclose(np.diff(tops), np.diff(tops)[0], rtol=1e-4)
        for top in tops:
            lefts = [x for x, y, _ in boxes_of(figure) if round(y, 6) == top]
            assert lefts == sorted(lefts)
        assert_tidy(figure)

    def test_a_word_that_is_too_long_for_a_line_is_cut(self):
        figure = explained().plot(vocabulary=["", "x" * 500, "b", "c", "d", "e"])
        assert any(t.startswith("xxx") and t.endswith("x…") for t in texts_of(figure))
        assert_tidy(figure)

    def test_words_that_have_no_shape(self):
        words = ["", " ", "a\nb", "\u202ex", "$x$", "  "]
        texts = texts_of(explained().plot(vocabulary=words))
        assert texts[3:8] == ["␣", "a\\nb", "\\u202ex", "$x$", "␣␣"]

    def test_a_panel_for_each_target(self):
        values = np.stack([VALUES, -VALUES], axis=1)
        figure = explained(values=values, classes=[[0, 1], [2, 3]]).plot(vocabulary=WORDS)
        texts = texts_of(figure)
        expected = [f"sample {i // 2} · class {i}" for i in range(4)]
        assert [t for t in texts if "class" in t] == expected
        assert texts.count("film") == 2
        assert texts.count("bad") == 4
        assert_tidy(figure)

    def test_ids_that_are_floats(self):
        assert (
            texts_of(explained(IDS.astype(np.float32)).plot("text", vocabulary=WORDS))[3] == "the"
        )

    def test_too_few_words(self):
        with pytest.raises(ValueError, match=r"every id in `vocabulary`.*5 words, and id 5"):
            explained().plot(vocabulary=WORDS[:5])

    def test_nan(self):
        values = VALUES.copy()
        values[0, 1] = np.nan
        figure = explained(values=values).plot()
        nan = np.array(render.NAN_COLOUR) / 255
        np.testing.assert_allclose(boxes_of(figure)[1][2], nan, atol=1e-6)
        assert "rgba(128,128,128" in explained(values=values)._repr_html_()


def render_ends(limit):
    """The colours of the limits."""
    return render.colorize([[[-limit, limit]]], limit / _PALE, signed=True)[0, 0] / 255


class Page(HTMLParser):
    """Tags with their attributes, and the texts of the `span`s."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.words, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open[-1] == "span":
            self.words.append(data)


def spans_of(page):
    return [attributes for tag, attributes in page.tags if tag == "span"]


class TestHTML:
    def test_words_with_their_values(self):
        page = Page(plots.to_html(explained(), vocabulary=WORDS, class_names=["pos", "neg"]))
        assert page.open == []
        assert page.words == [*WORDS[1:], "bad", "not"]
        titles = [float(span["title"]) for span in spans_of(page)]
        np.testing.assert_allclose(titles, [*VALUES[0], 1, 2], rtol=1e-3)
        assert "IntegratedGradients" in page.texts
        assert {"pos ", "neg "} <= set(page.texts)

    def test_colours_are_the_more_opaque_the_larger(self):
        page = Page(explained()._repr_html_())
        pattern = r"background-color:rgba\((\d+),(\d+),(\d+),([\d.]+)\)"
        made = [re.search(pattern, span["style"]).groups() for span in spans_of(page)]
        np.testing.assert_allclose(
            [float(opacity) for *_, opacity in made],
            0.5 * np.abs([*VALUES[0], 1, 2]) / 4,
            atol=6e-4,
        )
        against, pro = (tuple(colour) for colour in render.sign_colours())
        sides = [tuple(map(int, colour)) for *colour, _ in made]
        assert sides[3] == sides[5] == pro
        assert sides[4] == against

    @pytest.mark.parametrize(
        ("page", "ink"), [((1, 1, 1), "#24292f"), ((0.07, 0.07, 0.07), "#ddd")]
    )
    def test_words_can_be_read_on_light_and_dark_pages(self, page, ink):
        html = explained()._repr_html_()
        assert not re.search(r"[;\"]color:", html)
        for colour in render.sign_colours():
            mixed = 0.5 * colour / 255 + 0.5 * np.array(page)
            assert contrast(mixed, to_rgb(ink)) >= 4.5

    def test_everything_is_escaped(self):
        nasty = ['<script>alert("1")</script>', "</span>", "&amp;", '" onload="x', "<img src=x>"]
        explanation = explained(tokens=np.array([nasty, nasty]))
        html = plots.to_html(explanation, class_names=["<b>bold", "</div>"])
        page = Page(html)
        assert page.words == [*nasty, *nasty[:2]]
        assert {tag for tag, _ in page.tags} <= {"div", "p", "b", "small", "br", "span"}
        assert all(set(attributes) <= {"style", "title"} for _, attributes in page.tags)
        assert "<b>bold " in page.texts

    def test_asks_nothing_of_the_network(self):
        html = explained()._repr_html_()
        assert not re.search(r"https?:|url\(|src=|href=|<script|<link|@import", html)

    def test_of_several_inputs_names_the_others(self):
        row = np.ones((2, 3), np.float32)
        both = dataclasses.replace(
            explained(), x={"row": row, "text": IDS}, values={"row": row, "text": VALUES}
        )
        page = Page(both._repr_html_())
        assert "not shown: row" in page.texts
        assert "text" in page.texts
        assert len(page.words) == 7

    def test_samples_that_are_left_out_are_counted(self):
        page = Page(plots.to_html(explained(), max_samples=1))
        assert len(page.words) == 5
        assert "1 more not shown" in page.texts

    def test_nothing_but_padding(self):
        assert Page(explained(0 * IDS, 0 * VALUES)._repr_html_()).texts.count("no tokens") == 2

    @pytest.mark.parametrize("shape", [(2, 3), (2, 20, 1), (2, 9, 9), (2, 4, 4, 4, 1)])
    def test_none_for_other_kinds(self, shape):
        x = np.ones(shape, np.float32)
        assert explained(x, x)._repr_html_() is None

    def test_none_for_values_that_are_not_of_the_tokens(self):
        explanation = explained(values=np.ones((2, 5, 3)))
        at_layer = dataclasses.replace(explanation, explainer=kx.Saliency(layer="dense"))
        assert at_layer._repr_html_() is None

    @pytest.mark.parametrize("case", ["tokens_int", "tabular"])
    def test_of_an_explainer(self, case):
        case = models.get(case)
        html = kx.InputXGradient()(case.model, case.x)._repr_html_()
        if case.x.dtype.kind != "i":
            assert html is None
        else:
            assert Page(html).words == [str(i) for row in case.x for i in np.trim_zeros(row, "b")]
