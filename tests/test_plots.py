"""Figures of pictures: what stands where, and that the pictures are what `render` makes."""

import dataclasses
import importlib
import pkgutil
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

import keras_explain as kx
from keras_explain import plots
from keras_explain.core.data.layout import assumed
from keras_explain.plots import ranges, render, sheet
from keras_explain.plots.figure import SECTIONS
from tests import models

B, H, W, C = 3, 12, 16, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    x = rng.uniform(-1, 1, (B, H, W, C)).astype(np.float32)
    x[:, 0, :2] = [[-1], [1]]
    return x


@pytest.fixture
def explain(rng, x):
    """Makes an explanation of x: `explain(cam=..., targets=K, x=...)`."""

    def explain(x=x, *, values=None, cam=False, targets=None, index=None, explainer=None):
        batch = (len(x),) if targets is None else (len(x), targets)
        if values is None:
            size = assumed(x.shape).sides(x.shape) if cam else x.shape[1:]
            values = rng.normal(size=(*batch, *size)).astype(np.float32)
            values = np.abs(values) if cam else values
        if index is None:
            index = np.arange(np.prod(batch)).reshape(batch)
        scores = rng.normal(3, 2, batch).astype(np.float32)
        target = kx.targets.Class(index)
        return kx.Explanation(values, scores, target, x, explainer or kx.Saliency())

    return explain


def pictures_of(figure):
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def cells_of(figure, size=(H, W)):
    """The pictures without the colour bars, in rows from top to bottom."""
    images = [i for i in figure.axes[0].images if i.get_array().shape[:2] == size]
    rows = {}
    for image in images:
        left, _, _, top = image.get_extent()
        rows.setdefault(round(top, 4), {})[left] = np.asarray(image.get_array())
    return [[row[left] for left in sorted(row)] for _, row in sorted(rows.items())]


def bars_of(figure):
    return [p for p in pictures_of(figure) if p.shape[:2] == (1, 257)]


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def assert_tidy(figure):
    """Everything lies on the sheet, pictures do not overlap, and texts do not overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.bbox.width, figure.bbox.height
    axes = figure.axes[0]
    texts = [t.get_window_extent(renderer) for t in axes.texts if t.get_text()]
    images = [i.get_window_extent(renderer) for i in axes.images]
    for boxes in (texts, images):
        x0, y0, x1, y1 = np.array([box.extents for box in boxes]).reshape(-1, 4).T
        assert (np.concatenate([x0, y0]) >= -1).all()
        assert (x1 <= width + 1).all()
        assert (y1 <= height + 1).all()
        beside = (x1[:, None] <= x0 + 1) | (x1 <= x0[:, None] + 1)
        above = (y1[:, None] <= y0 + 1) | (y1 <= y0[:, None] + 1)
        assert (beside | above | np.eye(len(boxes), dtype=bool)).all()


class TestPlot:
    def test_input_map_and_overlay_are_what_render_makes(self, explain, x):
        explanation = explain()
        figure = plots.plot(explanation)
        assert isinstance(figure, Figure)
        pictures, maps = ranges.to_uint8(x), render.to_maps(explanation.values)
        limit = render.limit_of(maps)
        expected = (
            pictures,
            render.colorize(maps, limit, True),
            render.overlay(pictures, maps, limit, True),
        )
        rows = cells_of(figure)
        assert len(rows) == B
        for row, *columns in zip(rows, *expected, strict=True):
            np.testing.assert_array_equal(row, columns)
        assert_tidy(figure)

    def test_explanation_plots_itself(self, explain):
        explanation = explain()
        ours = pictures_of(explanation.plot(max_samples=2))
        for one, other in zip(
            ours, pictures_of(plots.plot(explanation, max_samples=2)), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_words(self, explain):
        explanation = explain(index=np.array([2, 0, 1]))
        texts = texts_of(plots.plot(explanation, class_names=["cat", "dog", "owl"]))
        assert texts[:4] == ["Saliency", "input", "map", "overlay"]
        scores = [sheet.number(s) for s in explanation.scores]
        assert texts[4:10] == ["owl", scores[0], "cat", scores[1], "dog", scores[2]]
        limit = render.limit_of(render.to_maps(explanation.values))
        assert [sheet.number(-limit, 2), sheet.number(limit, 2)] * 2 == texts[10:]

    def test_classes_without_names(self, explain):
        assert {"class 0", "class 1", "class 2"} <= set(texts_of(plots.plot(explain())))
        names = {1: "dog"}
        assert {"class 0", "dog"} <= set(texts_of(plots.plot(explain(), class_names=names)))

    def test_units_and_functions(self, explain):
        explanation = explain()
        unit = dataclasses.replace(explanation, target=kx.targets.Neuron("dense", [4, 5, 6]))
        assert "unit 5" in texts_of(plots.plot(unit))
        function = dataclasses.replace(explanation, target=kx.targets.Function(lambda y: y))
        texts = texts_of(plots.plot(function))
        assert sheet.number(explanation.scores[0]) in texts
        assert not any(text.startswith(("class", "unit")) for text in texts)

    def test_cam_is_sequential_from_zero(self, explain):
        figure = plots.plot(explain(cam=True))
        bar = bars_of(figure)[0][0]
        np.testing.assert_array_equal(bar[[0, -1]], render.colour_table(False)[[0, -2]])
        assert "0" in texts_of(figure)

    def test_a_column_of_overlays_per_target(self, explain, x):
        explanation = explain(targets=4)
        figure = plots.plot(explanation)
        rows = cells_of(figure)
        assert [len(row) for row in rows] == [5] * B
        maps = explanation.values.sum(-1)
        limit = render.limit_of(maps)
        pictures = ranges.to_uint8(x)
        for k in range(4):
            expected = render.overlay(pictures, maps[:, k], limit, True)
            np.testing.assert_array_equal([row[k + 1] for row in rows], expected)
        texts = texts_of(figure)
        assert [f"class {i}" for i in range(12)] == [t for t in texts if t.startswith("class")]
        assert len(bars_of(figure)) == 1
        assert_tidy(figure)

    def test_one_target_with_an_axis_is_drawn_as_without(self, explain):
        assert [len(row) for row in cells_of(plots.plot(explain(targets=1, cam=True)))] == [3] * B

    def test_max_samples(self, explain):
        assert len(cells_of(plots.plot(explain(), max_samples=2))) == 2
        assert len(cells_of(plots.plot(explain(), max_samples=1))) == 1
        with pytest.raises(ValueError, match=r"`max_samples` of 1 or more. Received: 0"):
            plots.plot(explain(), max_samples=0)

    def test_scale_is_of_what_is_drawn(self, explain):
        explanation = explain()
        explanation.values[2] *= 100
        ours = pictures_of(plots.plot(explanation, max_samples=2))
        explanation.values[2] /= 1000
        for one, other in zip(
            ours, pictures_of(plots.plot(explanation, max_samples=2)), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_to_image(self, explain, x):
        figure = plots.plot(explain(), to_image=lambda x: x * 0 + 0.5)
        assert (cells_of(figure)[0][0] == 128).all()

    def test_zero_and_nan_maps(self, explain, x):
        values = np.zeros_like(x)
        values[1, 2, 3] = np.nan
        figure = plots.plot(explain(values=values))
        coloured = cells_of(figure)[1][1]
        assert tuple(coloured[2, 3]) == render.NAN_COLOUR
        assert (coloured[5] == render.colour_table(False)[0]).all()
        assert_tidy(figure)

    @pytest.mark.parametrize(
        ("shape", "channels"),
        [((2, 9, 10), None), ((2, 9, 10, 1), -1), ((2, 3, 9, 10), 1), ((1, 9, 10, 2), -1)],
    )
    @pytest.mark.parametrize("cam", [True, False])
    def test_kinds_of_pictures(self, explain, rng, shape, channels, cam):
        x = rng.uniform(size=shape).astype(np.float32)
        values = rng.normal(size=(len(x), 9, 10) if cam else shape).astype(np.float32)
        explanation = explain(x, values=values)
        figure = plots.plot(dataclasses.replace(explanation, channels=(channels,)))
        assert [len(row) for row in cells_of(figure, (9, 10))] == [3] * shape[0]

    def test_long_names_are_cut_and_dollars_are_dollars(self, explain):
        names = ["a very long class name that goes on and on, " * 4, "$x$ and $y$", "dog"]
        figure = plots.plot(explain(), class_names=names)
        texts = texts_of(figure)
        assert any(text.endswith("…") and text.startswith("a very long") for text in texts)
        assert "$x$ and $y$" in texts
        assert_tidy(figure)
        assert_tidy(plots.plot(explain(targets=3), class_names=names * 3))

    def test_the_picture_input_of_a_nest(self, explain, x):
        single = explain(cam=True)
        age = np.ones((B, 4), np.float32)
        both = dataclasses.replace(
            single, x={"age": age, "scan": x}, values={"age": age, "scan": single.values}
        )
        cam_only = dataclasses.replace(single, x=[age, x])
        for explanation in (both, cam_only):
            expected = pictures_of(plots.plot(single))
            for one, other in zip(pictures_of(plots.plot(explanation)), expected, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_a_section_for_each_of_two_picture_inputs(self, explain, x):
        one, other = explain(), explain()
        both = dataclasses.replace(one, x=[x, x], values=[one.values, 9 * other.values])
        figure = plots.plot(both)
        rows = cells_of(figure)
        assert len(rows) == 2 * B
        expected = [
            cells_of(plots.plot(one)),
            cells_of(plots.plot(dataclasses.replace(one, values=9 * other.values))),
        ]
        np.testing.assert_array_equal(rows, np.concatenate(expected))
        assert {"0", "1"} <= set(texts_of(figure))
        assert_tidy(figure)

    def test_a_map_that_may_be_of_two_inputs_is_refused(self, explain, x):
        explanation = dataclasses.replace(explain(cam=True), x=[x, x])
        with pytest.raises(ValueError, match=r"an input that can be drawn.*one at a time"):
            plots.plot(explanation)

    def test_values_of_another_size_are_refused(self, explain):
        with pytest.raises(ValueError, match=r"values \(3, 7, 7\)"):
            plots.plot(explain(values=np.zeros((B, 7, 7), np.float32)))

    def test_too_few_class_names(self, explain):
        with pytest.raises(ValueError, match=r"2 class names, and .* class 2"):
            plots.plot(explain(), class_names=["cat", "dog"])
        plots.plot(explain(), class_names=["cat", "dog"], max_samples=2)


class TestShow:
    """What `show` makes of pictures."""

    @pytest.fixture
    def superpixels(self, explain):
        """Quarters of the pictures, of which two speak for the class and one against it."""
        labels = np.kron([[0, 1], [2, 3]], np.ones((H // 2, W // 2))).astype(np.int32)
        values = np.array([0.5, -0.3, 0.0, 0.2], np.float32)[labels]
        explanation = explain(values=np.stack([values] * B))
        explanation.extras["features"] = np.stack([labels] * B)
        return explanation

    def test_map_alone(self, explain, x):
        explanation = explain()
        figure = plots.plot(explanation, show="map")
        maps = render.to_maps(explanation.values)
        expected = render.colorize(maps, render.limit_of(maps), True)
        np.testing.assert_array_equal([row[1] for row in cells_of(figure)], expected)
        assert [len(row) for row in cells_of(figure)] == [2] * B
        assert_tidy(figure)

    def test_signed_is_what_render_makes(self, superpixels, x):
        figure = plots.plot(superpixels, show="signed", keep=0.9)
        large = render.enlarge(ranges.to_uint8(x), 256)
        maps = render.enlarge(superpixels.values, 256)
        features = render.enlarge(superpixels.extras["features"], 256)
        expected = render.pros_and_cons(large, maps, 0.9, features)
        drawn = [row[-1] for row in cells_of(figure, expected.shape[1:3])]
        np.testing.assert_array_equal(drawn, expected)
        assert {"against", "for", "signed"} <= set(texts_of(figure))
        assert_tidy(figure)

    def test_masked_is_what_render_makes(self, superpixels, x):
        figure = plots.plot(superpixels, show="masked", keep=0.6)
        large = render.enlarge(ranges.to_uint8(x), 256)
        maps = render.enlarge(superpixels.values, 256)
        features = render.enlarge(superpixels.extras["features"], 256)
        expected = render.masked(large, maps, 0.6, features)
        drawn = [row[-1] for row in cells_of(figure, expected.shape[1:3])]
        np.testing.assert_array_equal(drawn, expected)
        assert "60% of what speaks for it" in texts_of(figure)
        assert_tidy(figure)

    def test_several_targets_share_their_superpixels(self, superpixels, explain):
        values = np.stack([superpixels.values, -superpixels.values], axis=1)
        several = explain(values=values, targets=2)
        several.extras["features"] = np.stack([superpixels.extras["features"]] * 2, axis=1)
        rows = cells_of(plots.plot(several, show="signed"), (192, 256))
        one = cells_of(plots.plot(superpixels, show="signed"), (192, 256))
        assert len(rows) == B
        np.testing.assert_array_equal([row[0] for row in rows], [row[0] for row in one])
        assert (rows[0][0] != rows[0][1]).any()

    def test_grid_and_epochs_show_it_too(self, superpixels, x):
        expected = [row[-1] for row in cells_of(plots.plot(superpixels, show="masked"), (192, 256))]
        grid = plots.grid({"a": superpixels}, show="masked")
        history = plots.epochs({"a": [(0, superpixels)]}, show="masked")
        for figure in (grid, history):
            drawn = [row[0] for row in cells_of(figure, (192, 256))]
            np.testing.assert_array_equal(drawn, expected)

    @pytest.mark.parametrize("keep", [0, -1, 1.01, float("nan")])
    def test_keep_is_a_share(self, explain, keep):
        with pytest.raises(ValueError, match=r"`keep` above 0, and 1 at most"):
            plots.plot(explain(), show="masked", keep=keep)


class TestKinds:
    """Which input is drawn as what."""

    @pytest.fixture
    def titles(self, monkeypatch):
        """The kinds of what is drawn, from top to bottom."""
        drawn = []
        for kind, section in SECTIONS.items():

            def draw(self, sheet, top, kind=kind, draw=section.draw):
                drawn.append(kind)
                return draw(self, sheet, top)

            monkeypatch.setattr(section, "draw", draw)
        return drawn

    @pytest.mark.parametrize(
        ("shape", "dtype", "kind"),
        [
            ((2, 30), "float32", "table"),
            ((2,), "float32", "table"),
            ((2, 7), "bool", "table"),
            ((2, 30), "int32", "tokens"),
            ((2, 40, 3), "float32", "series"),
            ((2, 40, 9), "float32", "series"),
            ((2, 12, 10), "float32", "picture"),
            ((2, 5, 7, 1), "float32", "picture"),
        ],
    )
    def test_by_shape_and_dtype(self, explain, titles, shape, dtype, kind):
        x = np.ones(shape, dtype)
        figure = explain(x, values=np.ones(shape, np.float32)).plot()
        assert titles == [kind]
        assert_tidy(figure)

    @pytest.mark.parametrize(
        ("shape", "kind", "drawn"),
        [
            ((2, 30), "table", "table"),
            ((2, 30), "text", "tokens"),
            ((2, 30), "series", "series"),
            ((2, 12, 10), "series", "series"),
            ((2, 40, 9), "picture", "picture"),
        ],
    )
    def test_kind_can_be_said(self, explain, titles, shape, kind, drawn):
        x = np.ones(shape, np.int32)
        explain(x, values=np.ones(shape, np.float32)).plot(kind)
        assert titles == [drawn]

    def test_numbers_with_names_are_no_tokens(self, explain, titles):
        x = np.ones((2, 3), np.int32)
        explain(x, values=x.astype(np.float32)).plot(feature_names=["a", "b", "c"])
        assert titles == ["table"]

    def test_numbers_with_words_are_tokens(self, explain, titles):
        x = np.ones((2, 3), np.float32)
        explanation = explain(x, values=x)
        explanation.extras["tokens"] = np.array([["a", "b", "c"]] * 2)
        explanation.plot()
        assert titles == ["tokens"]

    def test_a_section_for_each_input_text_above_tables(self, explain, titles, x):
        inputs = {"a": np.ones((B, 4), np.float32), "b": np.ones((B, 6), np.int32), "c": x}
        values = {"a": inputs["a"], "b": inputs["b"].astype(np.float32), "c": x}
        explanation = dataclasses.replace(explain(), x=inputs, values=values)
        names = ["age", "sum", "size", "year"]
        figure = explanation.plot(feature_names=names, vocabulary=["", "word"], show="map")
        assert titles == ["picture", "tokens", "table"]
        texts = texts_of(figure)
        assert texts.index("c") < texts.index("b") < texts.index("a")
        assert texts.count("word") == 6 * B
        assert_tidy(figure)
        explanation.plot("table", feature_names={"a": names})
        assert titles[3:] == ["table", "table"]

    def test_volumes_are_refused_with_the_slice_to_draw(self, explain, titles):
        x = np.zeros((2, 5, 8, 9, 1), np.float32)
        x[1, 3] = -1
        explanation = explain(x, values=x)
        with pytest.raises(ValueError, match="volumes of shape") as error:
            explanation.plot()
        advice = str(error.value).split("`")[1]
        assert "x[:, 3]" in advice
        eval(advice, {"dataclasses": dataclasses, "explanation": explanation})
        assert titles == ["picture"]

    def test_a_volume_beside_a_table_is_named(self, explain, titles):
        x = {"age": np.ones((2, 1), np.float32), "scan": np.ones((2, 5, 8, 9, 1), np.float32)}
        explanation = dataclasses.replace(explain(x["age"]), x=x, values=x)
        assert "scan: a volume is not drawn" in texts_of(explanation.plot())
        assert titles == ["table"]

    def test_unknown_kind(self, explain):
        with pytest.raises(ValueError, match=r"'picture', 'table', 'text' or 'series'.*'volume'"):
            explain().plot("volume")

    def test_a_kind_that_does_not_fit(self, explain):
        with pytest.raises(ValueError, match=r"an input of rows of a table, \[B, F\].*\(3, 12"):
            explain().plot("table")

    @pytest.mark.parametrize(
        ("option", "of"),
        [
            ({"vocabulary": ["a"]}, "token ids"),
            ({"max_features": 3}, "rows of a table"),
            ({"feature_names": ["a"]}, "series and rows of a table"),
            ({"max_channels": 3}, "series"),
        ],
    )
    def test_options_of_other_kinds_are_refused(self, explain, option, of):
        (name,) = option
        message = rf"pictures take to_image, show, keep. Received: {name}, .* option of {of}\."
        with pytest.raises(ValueError, match=message):
            explain().plot(**option)

    def test_shows_of_other_kinds_are_refused(self, explain):
        with pytest.raises(ValueError, match=r"`show` of pictures: 'overlay', .* 'bar'"):
            explain().plot(show="bar")
        row = np.ones((2, 3), np.float32)
        with pytest.raises(ValueError, match=r"rows of a table: 'bar', 'waterfall'.*'overlay'"):
            explain(row, values=row).plot(show="overlay")
        with pytest.raises(ValueError, match=r"series take .*: show, which is an option of pict"):
            explain(row, values=row).plot("series", show="overlay")

    def test_values_at_a_layer_are_not_those_of_a_table_as_wide(self, explain):
        row = np.ones((2, 3), np.float32)
        explanation = explain(row, values=row, explainer=kx.Saliency(layer="dense"))
        with pytest.raises(ValueError, match="values are at layer 'dense'"):
            explanation.plot()

    def test_values_of_two_calls_of_a_layer_are_not_those_of_one_input(self, explain, x):
        explanation = dataclasses.replace(explain(), values=[x, x])
        with pytest.raises(ValueError, match="an input that can be drawn"):
            explanation.plot()

    @pytest.mark.parametrize(
        ("case", "drawn"),
        [
            ("tabular", ["table"]),
            ("series", ["series"]),
            ("tokens_int", ["tokens"]),
            ("mixed_inputs", ["tokens", "table"]),
        ],
    )
    def test_what_explainers_make(self, titles, case, drawn):
        case = models.get(case)
        figure = kx.InputXGradient()(case.model, case.x).plot()
        assert titles == drawn
        assert_tidy(figure)


class TestGrid:
    def test_methods_across_each_with_its_scale(self, explain, x):
        methods = {"CAM": explain(cam=True), "IG": explain(), "large": explain()}
        methods["large"].values[:] *= 50
        figure = plots.grid(methods)
        pictures = ranges.to_uint8(x)
        rows = cells_of(figure)
        np.testing.assert_array_equal([row[0] for row in rows], pictures)
        for place, explanation in enumerate(methods.values(), 1):
            maps = render.to_maps(explanation.values)
            expected = render.overlay(pictures, maps, render.limit_of(maps))
            np.testing.assert_array_equal([row[place] for row in rows], expected)
        texts = texts_of(figure)
        assert texts[:4] == ["input", "CAM", "IG", "large"]
        assert len(bars_of(figure)) == 3
        assert_tidy(figure)

    def test_maps_alone(self, explain):
        explanation = explain()
        maps = render.to_maps(explanation.values)
        figure = plots.grid({"IG": explanation}, show="map")
        expected = render.colorize(maps, render.limit_of(maps))
        np.testing.assert_array_equal([row[1] for row in cells_of(figure)], expected)

    def test_targets_are_rows(self, explain, x):
        methods = {"CAM": explain(cam=True, targets=2), "IG": explain(targets=2)}
        rows = cells_of(plots.grid(methods, max_samples=2))
        pictures = ranges.to_uint8(x[:2])
        assert [len(row) for row in rows] == [3] * 4
        np.testing.assert_array_equal([row[0] for row in rows], pictures.repeat(2, axis=0))
        maps = methods["CAM"].values[:2].reshape(4, H, W)
        expected = render.overlay(pictures.repeat(2, axis=0), maps, render.limit_of(maps))
        np.testing.assert_array_equal([row[1] for row in rows], expected)

    def test_a_caption_is_written_once_where_all_agree(self, explain):
        one = explain()
        same = dataclasses.replace(one, values=-one.values)
        other = dataclasses.replace(one, target=kx.targets.Class(np.array([7, 8, 9])))
        assert texts_of(plots.grid({"a": one, "b": same})).count("class 0") == 1
        texts = texts_of(plots.grid({"a": one, "b": other}))
        assert "class 0" in texts
        assert "class 7" in texts

    def test_other_inputs_are_refused(self, explain, x):
        with pytest.raises(ValueError, match=r"same inputs.*'a'.*'b'"):
            plots.grid({"a": explain(), "b": explain(x * 0.5)})
        with pytest.raises(ValueError, match=r"same inputs.*1 target.*2 target"):
            plots.grid({"a": explain(), "b": explain(targets=2)})

    def test_nothing_is_refused(self):
        with pytest.raises(ValueError, match="at least one explanation"):
            plots.grid({})

    def test_unknown_show_is_refused(self, explain):
        with pytest.raises(ValueError, match=r"'signed' or 'masked'. Received: 'both'"):
            plots.grid({"a": explain()}, show="both")
        with pytest.raises(ValueError, match=r"`keep` above 0, and 1 at most. Received: 1.5"):
            plots.grid({"a": explain()}, show="masked", keep=1.5)

    @pytest.mark.parametrize("shape", [(4, 30), (4, 150, 1), (4, 5)])
    def test_what_is_not_pictures_is_refused(self, explain, shape):
        explanation = explain(np.zeros(shape, np.float32), values=np.zeros(shape, np.float32))
        with pytest.raises(
            ValueError, match=r"of pictures: x of shape \[B, H, W, C\].*Received: x"
        ):
            plots.grid({"a": explanation})

    def test_two_picture_inputs_are_refused(self, explain, x):
        explanation = dataclasses.replace(explain(), x=[x, x], values=[x, x])
        with pytest.raises(ValueError, match=r"one input of pictures.*one at a time"):
            plots.grid({"a": explanation})

    def test_many_methods_fit_the_width(self, explain):
        methods = {f"AMethodWithALongName{i}": explain(cam=True) for i in range(12)}
        figure = plots.grid(methods)
        assert figure.get_size_inches()[0] <= 10.001
        assert_tidy(figure)


class TestEpochs:
    @pytest.fixture
    def history(self, explain):
        def history(steps, index=None, names=("grad_cam", "integrated_gradients")):
            first = None
            result = {}
            for name in names:
                result[name] = []
                for step in steps:
                    chosen = np.array([3, 1, 2]) if index is None else index(step)
                    explanation = explain(cam=name == "grad_cam", index=chosen)
                    explanation.values[:] *= step + 1
                    result[name].append((step, explanation))
                    first = first or explanation
            return result

        return history

    def test_bands_of_samples_by_steps_on_one_scale_each(self, history, x):
        made = history(range(4))
        figure = plots.epochs(made)
        rows = cells_of(figure)
        pictures = ranges.to_uint8(x)
        assert [len(row) for row in rows] == [5] * (2 * B)
        for band, by_step in enumerate(made.values()):
            maps = np.stack([render.to_maps(e.values) for _, e in by_step])
            limit, signed = render.limit_of(maps), render.is_signed(maps)
            mine = rows[band * B : (band + 1) * B]
            np.testing.assert_array_equal([row[0] for row in mine], pictures)
            for place in range(4):
                expected = render.overlay(pictures, maps[place], limit, signed)
                np.testing.assert_array_equal([row[place + 1] for row in mine], expected)
        assert_tidy(figure)

    def test_words(self, history):
        made = history([1, 5])
        texts = texts_of(plots.epochs(made, class_names=["a", "b", "c", "d"]))
        for name, by_step in made.items():
            at = texts.index(name)
            heading = texts[at : at + 6]
            assert heading[3:] == ["input", "epoch 1", "5"]
            scores = [[sheet.number(s) for s in e.scores] for _, e in by_step]
            assert texts[at + 6 : at + 15] == ["d", "b", "c", *scores[0], *scores[1]]

    def test_a_class_that_changes_stands_at_every_step(self, history):
        made = history([0, 1, 2], index=lambda step: np.array([4, step, 6]), names=["ig"])
        texts = texts_of(plots.epochs(made))
        assert "class 4" in texts
        assert "class 6" in texts
        for step, explanation in made["ig"]:
            assert f"class {step} · {sheet.number(explanation.scores[1])}" in texts
            assert sheet.number(explanation.scores[0]) in texts

    def test_steps_are_spread_from_first_to_last(self, history):
        made = history(range(0, 2300, 100), names=["grad_cam"])
        texts = texts_of(plots.epochs(made, max_steps=5, step_name="batch"))
        at = texts.index("input")
        assert texts[at : at + 6] == ["input", "batch 0", "600", "1100", "1600", "2200"]
        texts = texts_of(plots.epochs(made, max_steps=1))
        assert "epoch 2200" in texts
        with pytest.raises(ValueError, match="`max_steps` of 1 or more"):
            plots.epochs(made, max_steps=0)

    def test_scale_is_over_steps_that_are_not_drawn_too(self, history, x):
        made = history(range(5), names=["ig"])
        maps = np.stack([render.to_maps(e.values) for _, e in made["ig"]])
        figure = plots.epochs(made, max_steps=2)
        first = [row[1] for row in cells_of(figure)]
        expected = render.overlay(ranges.to_uint8(x), maps[0], render.limit_of(maps), True)
        np.testing.assert_array_equal(first, expected)

    def test_an_explainer_may_miss_steps(self, history):
        made = history(range(4))
        del made["integrated_gradients"][2:]
        rows = cells_of(plots.epochs(made))
        assert [len(row) for row in rows] == [5] * B + [3] * B

    def test_a_step_that_came_twice_counts_once_the_last(self, history, x):
        made = history(range(2), names=["ig"])
        again = dataclasses.replace(made["ig"][1][1], values=made["ig"][0][1].values)
        figure = plots.epochs({"ig": [*made["ig"], (1, again)]})
        for row in cells_of(figure):
            assert len(row) == 3
            np.testing.assert_array_equal(row[1], row[2])

    def test_max_samples_and_width(self, history):
        figure = plots.epochs(history(range(30)), max_samples=2)
        assert len(cells_of(figure)) == 4
        assert figure.get_size_inches()[0] == pytest.approx(10)
        assert_tidy(figure)

    def test_maps_alone(self, history):
        made = history(range(2), names=["ig"])
        maps = np.stack([render.to_maps(e.values) for _, e in made["ig"]])
        rows = cells_of(plots.epochs(made, show="map"))
        expected = render.colorize(maps[1], render.limit_of(maps))
        np.testing.assert_array_equal([row[2] for row in rows], expected)

    def test_nothing_is_refused(self):
        for history in ({}, {"ig": []}):
            with pytest.raises(ValueError, match="at least one explanation"):
                plots.epochs(history)

    def test_other_inputs_are_refused(self, history, explain, x):
        made = history(range(2))
        made["grad_cam"][1] = (1, explain(x * 0.5, cam=True))
        with pytest.raises(ValueError, match=r"same inputs.*0.*1"):
            plots.epochs(made)
        made = {"a": [(0, explain())], "b": [(0, explain(x * 0.5))]}
        with pytest.raises(ValueError, match=r"same inputs.*'a'.*'b'"):
            plots.epochs(made)

    def test_one_step_of_one_sample(self, history):
        assert_tidy(plots.epochs(history([7], names=["a_name_too_long_for_a_sheet_so_narrow"])))


class TestFigure:
    def test_saves_at_its_size(self, explain, tmp_path):
        figure = plots.plot(explain())
        figure.savefig(tmp_path / "figure.png")
        read = imread(tmp_path / "figure.png")
        width, height = figure.get_size_inches() * figure.dpi
        assert read.shape[1] == pytest.approx(width, abs=1)
        assert read.shape[0] == pytest.approx(height, abs=1)

    def test_shows_in_notebooks(self, explain):
        assert plots.plot(explain())._repr_png_().startswith(b"\x89PNG")

    def test_looks_the_same_under_a_dark_style(self, explain):
        with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "white"}):
            figure = plots.plot(explain())
        assert to_hex(figure.get_facecolor()) == "#ffffff"
        assert to_hex(figure.axes[0].texts[0].get_color()) == sheet.INK

    def test_belongs_to_no_pyplot(self, explain):
        import matplotlib.pyplot as plt

        plots.plot(explain())
        assert plt.get_fignums() == []


class TestNumber:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0, "0"),
            (1.2, "1.20"),
            (-3.456, "\N{MINUS SIGN}3.46"),
            (99.96, "100"),
            (123.4, "123"),
            (12345.6, "12346"),
            (0.0312, "0.0312"),
            (2.5e7, "2.50e+07"),
            (np.nan, "nan"),
        ],
    )
    def test_number(self, value, text):
        assert sheet.number(value) == text


def test_the_figures_are_loaded_when_used(monkeypatch):
    """In modules made anew, for which the others make room."""
    for module in pkgutil.iter_modules(plots.__path__, "keras_explain.plots."):
        importlib.import_module(module.name)
        monkeypatch.delitem(sys.modules, module.name)
    monkeypatch.delitem(sys.modules, "keras_explain.plots")
    monkeypatch.setattr("keras_explain.plots", plots)  # put back afterwards
    fresh = importlib.import_module("keras_explain.plots")
    importlib.import_module("keras_explain.plots.render")
    assert set(fresh.__all__) <= set(dir(fresh))
    assert "keras_explain.plots.pictures" not in sys.modules
    assert callable(fresh.plot)
    assert "keras_explain.plots.pictures" in sys.modules


def test_unknown_plot():
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        _ = plots.pie
