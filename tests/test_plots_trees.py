"""Trees as text, in Graphviz's language and as figures: words, places, widths, colours."""

import html
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle

from keras_explain.plots import tree_words, trees
from keras_explain.trees.surrogate_tree import SurrogateTree
from tests import check
from tests.test_plots import assert_tidy, texts_of

MINUS = "\N{MINUS SIGN}"
LONG = "a name that is as long as they come, of the second_visit-number"
WORD = "onewordthatislongerthananyboxcanbedrawn" * 2
HOSTILE = 'a "quoted" \\ <b>name</b> & \\N &lt; {x|y} $x$ é\n"]; 7 -> 8 ["'


def leaf(*counts, label=None):
    """An answer, from how many rows of each class come to it."""
    return {"counts": np.array(counts), "label": int(np.argmax(counts)) if label is None else label}


def asks(column, threshold, left, right):
    """A question, above two others or answers."""
    counts = left["counts"] + right["counts"]
    below = {"column": column, "threshold": threshold, "left": left, "right": right}
    return leaf(*counts) | below


def made(root, *, features=("age", "body mass"), classes=("well", "ill"), agreement=0.9531):
    """The tree of nested nodes, as arrays."""
    nodes, waiting = [], [root]
    for node in waiting:  # grows while it is walked through
        waiting += [node["left"], node["right"]] if "left" in node else []
    numbers = {id(node): number for number, node in enumerate(waiting)}
    for node in waiting:
        children = [numbers[id(node[side])] if "left" in node else -1 for side in ("left", "right")]
        nodes.append((node.get("column", -1), node.get("threshold", -2.0), *children))
    feature, threshold, left, right = zip(*nodes, strict=True)
    return SurrogateTree(
        feature=np.array(feature, np.int32),
        threshold=np.array(threshold, np.float32),
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        label=np.array([node["label"] for node in waiting], np.int32),
        counts=np.array([node["counts"] for node in waiting], np.int64),
        agreement=agreement,
        feature_names=tuple(features),
        class_names=tuple(classes),
    )


def small(**options):
    """Three leaves; 100 rows, of which 60, 30 and 10 come to them."""
    young = asks(1, -1.5, leaf(54, 6), leaf(0, 30))
    return made(asks(0, 50.0, young, leaf(9, 1)), **options)


def grown(leaves, *, classes=2, columns=4, seed=0, name="feature", answer="class"):
    """A random tree."""
    rng = np.random.default_rng(seed)
    waiting = [
        leaf(*rng.integers(0, 90, classes) + np.eye(classes, dtype=int)[0]) for _ in range(leaves)
    ]
    while len(waiting) > 1:
        at = rng.integers(len(waiting) - 1)
        pair = waiting[at : at + 2]
        waiting[at : at + 2] = [asks(rng.integers(columns), rng.normal() * 1e3, *pair)]
    return made(
        waiting[0],
        features=[f"{name} {i}" for i in range(columns)],
        classes=[f"{answer} {i}" for i in range(classes)],
    )


def chain(leaves, name="feature"):
    """A tree of which each question has an answer at the left."""
    root = leaf(3, 1)
    for place in range(leaves - 1):
        root = asks(place % 2, float(place), leaf(5, 2), root)
    return made(root, features=[f"{name} {i}" for i in range(2)])


class TestText:
    def test_lines(self):
        assert trees.to_text(small()).split("\n") == [
            "average path length 1.9, 3 leaves, depth 2, agreement 95.3 %",
            "",
            "age <= 50",
            "├── yes: body mass <= -1.5",
            "│   ├── yes: well (60 rows, 90 %)",
            "│   └── no:  ill (30 rows, 100 %)",
            "└── no:  well (10 rows, 90 %)",
        ]

    def test_branches_at_the_right(self):
        root = asks(0, 1.0, leaf(1, 0), asks(1, 2.0, leaf(0, 1), leaf(2345, 0)))
        assert trees.to_text(made(root)).split("\n")[2:] == [
            "age <= 1",
            "├── yes: well (1 row, 100 %)",
            "└── no:  body mass <= 2",
            "    ├── yes: ill (1 row, 100 %)",
            "    └── no:  well (2,345 rows, 100 %)",
        ]

    def test_one_leaf(self):
        lines = trees.to_text(made(leaf(0, 7))).split("\n")
        assert lines == [
            "average path length 0, 1 leaf, depth 0, agreement 95.3 %",
            "",
            "ill (7 rows, 100 %)",
        ]

    def test_without_agreement(self):
        first = trees.to_text(small(agreement=float("nan"))).split("\n")[0]
        assert first == "average path length 1.9, 3 leaves, depth 2"

    def test_names_given_to_the_tree(self):
        text = small().to_text(feature_names=["a", "b"], class_names=["no", "yes"])
        assert "a <= 50" in text
        assert "└── no:  yes (30 rows, 100 %)" in text

    def test_a_name_is_one_line(self):
        lines = trees.to_text(small(features=("a\nb\r\n\tc\0d", "e"))).split("\n")
        assert len(lines) == 7
        assert lines[2] == "a b c d <= 50"

    def test_a_leaf_without_rows(self):
        text = trees.to_text(made(asks(0, 1.0, leaf(0, 0), leaf(0, 2))))
        assert "yes: well (0 rows)" in text

    @pytest.mark.parametrize(
        ("counts", "text"),
        [
            ((999, 1), "99 %"),
            ((1, 999), "1 %"),
            ((2, 1), "67 %"),
            ((0, 5), "0 %"),
            ((5, 0), "100 %"),
        ],
    )
    def test_shares(self, counts, text):
        tree = made(leaf(*counts, label=0))
        assert trees.to_text(tree).endswith(f"rows, {text})")

    @pytest.mark.parametrize(
        ("agreement", "text"), [(0.99999, "99.9 %"), (1.0, "100 %"), (0.5, "50 %"), (0.0, "0 %")]
    )
    def test_agreements(self, agreement, text):
        assert f"agreement {text}\n" in trees.to_text(small(agreement=agreement))


class TestThresholds:
    def written(self, values, columns):
        root = leaf(1, 0)
        for value, column in zip(values, columns, strict=True):
            root = asks(column, value, leaf(1, 0), root)
        lines = trees.to_text(made(root)).split("\n")
        return [line.split("<= ")[1] for line in lines if "<=" in line][::-1]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (15.045, "15.05"),
            (0.5, "0.5"),
            (-2.0, "-2"),
            (-0.0, "0"),
            (123456.0, "123456"),
            (1.5e9, "1.5e+09"),
            (0.000012345, "1.234e-05"),
        ],
    )
    def test_digits(self, value, text):
        assert self.written([value], [0]) == [text]

    def test_those_of_a_feature_are_told_apart(self):
        values = np.array([1.00001, 1.00002, 1.00001, 1.00001], np.float32)
        assert self.written(values, [0, 0, 0, 1]) == ["1.00001", "1.00002", "1.00001", "1"]

    def test_as_the_numbers_are(self):
        rng = np.random.default_rng(0)
        near = np.nextafter(np.float32(3.3), np.float32(4))
        values = np.array([*rng.normal(size=20), 3.3, near, 0.0, -0.0, 1e7, 1e7 + 1], np.float32)
        texts = self.written(values, [0] * len(values))
        same = np.array(texts)[:, None] == np.array(texts)
        np.testing.assert_array_equal(same, values[:, None] == values)


class TestGraphviz:
    def test_exactly(self):
        tree = small()
        assert trees.to_graphviz(tree) == tree.to_graphviz()
        nodes, edges, title = parsed(trees.to_graphviz(tree))
        assert title == "average path length 1.9 · 3 leaves · depth 2 · agreement 95.3 %"
        assert {node: label for node, (label, _) in nodes.items()} == {
            0: "age\n≤ 50",
            1: f"body mass\n≤ {MINUS}1.5",
            3: "well\n60 rows\n90 %",
            4: "ill\n30 rows\n100 %",
            2: "well\n10 rows\n90 %",
        }
        assert edges == [
            (0, 1, "yes", 9.0),
            (0, 2, "no", 1.0),
            (1, 3, "yes", 6.0),
            (1, 4, "no", 3.0),
        ]

    def test_colours(self):
        nodes, _, _ = parsed(trees.to_graphviz(small()))
        fills = {node: np.array(to_rgb(fill)) for node, (_, fill) in nodes.items()}
        assert (fills[0] == fills[1]).all()
        for node, label, share in ((3, 0, 0.9), (4, 1, 1.0)):
            strength = 0.1 + 0.3 * share
            expected = 1 - strength * (1 - np.array(to_rgb(tree_words.COLOURS[label])))
            np.testing.assert_allclose(fills[node], expected, atol=0.5 / 255 + 1e-9)

    def test_one_leaf(self):
        nodes, edges, _ = parsed(trees.to_graphviz(made(leaf(0, 7))))
        assert {node: label for node, (label, _) in nodes.items()} == {0: "ill\n7 rows\n100 %"}
        assert edges == []

    def test_hostile_names(self):
        tree = small(features=(HOSTILE, "b"), classes=(HOSTILE, "c"))
        nodes, edges, _ = parsed(trees.to_graphviz(tree))
        name = HOSTILE.replace("\n", " ")
        assert nodes[0][0] == f"{name}\n≤ 50"
        assert nodes[2][0] == f"{name}\n10 rows\n90 %"
        assert (len(nodes), len(edges)) == (5, 4)


# A statement of DOT: one or two numbers or a word, and attributes, words or in quotes.
STRING = r'"(?:[^"\\]|\\.)*"'
ATTRIBUTES = rf"\[(\w+=(?:{STRING}|[\w.]+)(?:, \w+=(?:{STRING}|[\w.]+))*)\]"
STATEMENT = re.compile(rf"    (graph|node|edge|\d+)(?: -> (\d+))? {ATTRIBUTES};")


def parsed(dot):
    """Nodes `{number: (label, fill)}`, edges `[(from, to, label, width)]`, and the title."""
    first, *statements, last = dot.split("\n")
    assert (first, last) == ("digraph tree {", "}")
    nodes, edges, title = {}, [], None
    for line in statements:
        matched = STATEMENT.fullmatch(line)
        assert matched, line
        start, end, written = matched.groups()
        found = re.findall(rf"(\w+)=({STRING}|[\w.]+)", written)
        attributes = {name: unescaped(value) for name, value in found}
        if end is not None:
            width = float(attributes["penwidth"])
            edges.append((int(start), int(end), attributes["label"], width))
        elif start.isdigit():
            nodes[int(start)] = attributes["label"], attributes["fillcolor"]
        elif start == "graph":
            title = attributes["label"]
    return nodes, edges, title


def unescaped(value):
    """What Graphviz shows of a word or string."""
    if not value.startswith('"'):
        return value
    meant = {"n": "\n", '"': '"', "\\": "\\"}
    return html.unescape(re.sub(r"\\(.)", lambda found: meant[found[1]], value[1:-1]))


def cards_of(figure):
    """Left, top, right, bottom of the boxes, in inches."""
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    sides = [(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in boxes]
    return [(x, y, x + width, y + height) for x, y, width, height in sides]


def card_of(figure, word):
    """The box that a text stands in."""
    (text,) = [t for t in figure.axes[0].texts if t.get_text() == word]
    x, y = text.get_position()
    (card,) = [c for c in cards_of(figure) if c[0] < x < c[2] and c[1] < y < c[3]]
    return card


def edges_of(figure):
    """`(start, end, width)` of the edges."""
    paths = [p for p in figure.axes[0].patches if isinstance(p, PathPatch)]
    ends = [(p.get_path().vertices[[0, -1]], p.get_linewidth()) for p in paths]
    return [(start, end, width) for (start, end), width in ends]


def middle(card):
    return (card[0] + card[2]) / 2


def assert_readable(figure):
    """Boxes lie on the sheet and apart, texts in a box apart from others, edges below no text."""
    assert_tidy(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, inch = figure.axes[0], figure.dpi
    cards = np.array(cards_of(figure))
    assert (cards >= 0).all()
    assert (cards[:, [2, 3]] <= figure.get_size_inches()).all()
    x0, y0, x1, y1 = cards.T
    beside = (x1[:, None] < x0 - 0.02) | (x1 < x0[:, None] - 0.02)
    above = (y1[:, None] < y0 - 0.02) | (y1 < y0[:, None] - 0.02)
    assert (beside | above | np.eye(len(cards), dtype=bool)).all()
    boxes = [text.get_window_extent(canvas.get_renderer()).extents / inch for text in axes.texts]
    boxes = [(a, figure.get_figheight() - d, c, figure.get_figheight() - b) for a, b, c, d in boxes]
    for a, b, c, d in boxes:
        inside = (x0 < a) & (c < x1) & (y0 < b) & (d < y1)
        outside = (c < x0) | (x1 < a) | (d < y0) | (y1 < b)
        assert (inside | outside).all()
    for patch in (p for p in axes.patches if isinstance(p, PathPatch)):
        x, y = along(patch.get_path().vertices)
        half = patch.get_linewidth() / 2 / 72
        for a, b, c, d in boxes:
            assert not ((a - half < x) & (x < c + half) & (b - half < y) & (y < d + half)).any()


def along(vertices):
    """Points of the cubic Bezier curve `[4, 2]`."""
    t = np.linspace(0, 1, 200)[:, None]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    return sum(w * v for w, v in zip(weights, vertices, strict=True)).T


class TestPlot:
    def test_words(self):
        figure = small().plot()
        assert isinstance(figure, Figure)
        assert texts_of(figure) == [
            *("Average path length 1.9", "3 leaves · depth 2 · agreement 95.3 % · 100 rows"),
            *("well", "ill"),
            *("age", "≤ 50"),
            *("body mass", f"≤ {MINUS}1.5"),
            *("well", "60 rows · 90 %"),
            *("ill", "30 rows · 100 %"),
            *("well", "10 rows · 90 %"),
            *("yes", "no"),
        ]
        assert plt.get_fignums() == []

    def test_one_leaf(self):
        figure = trees.plot(made(leaf(0, 7)))
        title = ["Average path length 0", "1 leaf · depth 0 · agreement 95.3 % · 7 rows"]
        assert texts_of(figure) == [*title, "ill", "ill", "7 rows · 100 %"]
        assert edges_of(figure) == []
        (card,) = cards_of(figure)
        assert middle(card) == pytest.approx(figure.get_figwidth() / 2)
        assert_readable(figure)

    def test_leaves_stand_evenly_and_questions_above_their_middle(self):
        figure = small().plot()
        words = ("60 rows · 90 %", "30 rows · 100 %", "10 rows · 90 %", f"≤ {MINUS}1.5", "≤ 50")
        first, second, third, below, root = (card_of(figure, word) for word in words)
        apart = middle(second) - middle(first)
        assert apart > 0
        assert middle(third) - middle(second) == pytest.approx(apart)
        assert middle(below) == pytest.approx((middle(first) + middle(second)) / 2)
        assert middle(root) == pytest.approx((middle(below) + middle(third)) / 2)
        assert root[3] < below[1] == third[1] < below[3] < first[1] == second[1]

    def test_edges_lead_from_box_to_box_as_wide_as_their_rows(self):
        figure = small().plot()
        words = (f"≤ {MINUS}1.5", "10 rows · 90 %", "60 rows · 90 %", "30 rows · 100 %")
        parents = ["≤ 50", "≤ 50", *[f"≤ {MINUS}1.5"] * 2]
        edges = edges_of(figure)
        assert [width for *_, width in edges] == pytest.approx([9.0, 1.0, 6.0, 3.0])
        for (start, end, _), word, parent in zip(edges, words, parents, strict=True):
            to, out = card_of(figure, word), card_of(figure, parent)
            np.testing.assert_allclose(end, [middle(to), to[1]])
            assert start[0] == pytest.approx(middle(out), abs=5 / 72)
            assert start[1] == pytest.approx(out[3])

    def test_edges_begin_beside_each_other(self):
        figure = small().plot()
        (yes, _, first), (no, _, second), *_ = edges_of(figure)
        total, at = (first + second) / 72, middle(card_of(figure, "≤ 50"))
        assert yes[0] == pytest.approx(at - total / 2 + first / 2 / 72)
        assert no[0] == pytest.approx(at + total / 2 - second / 2 / 72)
        assert edges_of(trees.plot(made(asks(0, 0.0, leaf(999, 0), leaf(0, 1)))))[1][2] >= 0.5

    def test_yes_and_no_stand_outside_where_the_first_edges_end(self):
        figure = small().plot()
        (_, left, _), (_, right, _), *_ = edges_of(figure)
        yes, no = (text.get_position() for text in figure.axes[0].texts[-2:])
        assert yes[0] < left[0] < right[0] < no[0]
        assert left[1] - 0.15 < yes[1] == no[1] < left[1]

    def test_colours(self):
        figure = small().plot()
        boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
        _, _, well, ill, other = (to_hex(box.get_facecolor()) for box in boxes)
        nodes, _, _ = parsed(small().to_graphviz())
        assert [well, ill, other] == [nodes[node][1] for node in (3, 4, 2)]
        assert well == other != ill

    def test_bars_of_classes(self):
        figure = small().plot()
        card = card_of(figure, "60 rows · 90 %")
        bars = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
        bars = [p for p in bars if card[0] < p.get_x() < card[2] and card[1] < p.get_y() < card[3]]
        assert [to_hex(bar.get_facecolor()) for bar in bars] == list(tree_words.COLOURS[:2])
        well, ill = (bar.get_width() for bar in bars)
        assert well / (well + ill) == pytest.approx(0.9)
        assert bars[1].get_x() == pytest.approx(bars[0].get_x() + well)

    def test_legend_has_the_classes_of_the_rows(self):
        root = asks(0, 1.0, leaf(3, 0, 1, 0), leaf(0, 0, 1, 0))
        figure = trees.plot(made(root, classes=["a", "b", "c", "d"]))
        assert texts_of(figure)[2:4] == ["a", "c"]
        keys = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)][:2]
        assert [to_hex(key.get_facecolor()) for key in keys] == [
            tree_words.COLOURS[0],
            tree_words.COLOURS[2],
        ]

    def test_colours_cycle(self):
        assert len(set(tree_words.COLOURS)) == 10
        tree = made(leaf(*[0] * 12, 3), classes=[f"{i}" for i in range(13)])
        box = next(p for p in trees.plot(tree).axes[0].patches if isinstance(p, FancyBboxPatch))
        again = next(
            p for p in trees.plot(made(leaf(0, 0, 3), classes="abc")).axes[0].patches
            if isinstance(p, FancyBboxPatch)
        )  # fmt: skip
        assert box.get_facecolor() == again.get_facecolor()

    @pytest.mark.parametrize(
        ("leaves", "name"),
        check.first_of(
            [
                *[(1, LONG), (2, "x"), (2, LONG), (30, WORD)],
                *[(6, "x"), (7, WORD), (14, LONG), (30, LONG)],
            ],
            quick=4,
        ),
    )
    def test_readable(self, leaves, name):
        classes = 2 if leaves < 11 else 10
        tree = grown(leaves, classes=classes, seed=leaves, name=name, answer=name)
        assert_readable(trees.plot(tree))

    @pytest.mark.parametrize("tree", [chain(12, LONG), small(features=("", "$"))])
    def test_readable_whatever_the_shape(self, tree):
        assert_readable(trees.plot(tree))

    def test_numbers_are_never_cut(self):
        root = asks(0, -1.234567e-8, leaf(12345678, 1), leaf(1, 12345678))
        for _ in range(11):
            root = asks(0, -1.234567e-8, root, leaf(0, 1))
        figure = trees.plot(made(root))
        assert texts_of(figure).count("12,345,679 rows") == 2
        assert texts_of(figure).count(f"≤ {MINUS}1.235e{MINUS}08") == 12
        assert_readable(figure)

    def test_hostile_names(self):
        tree = small(features=(HOSTILE, "b"), classes=(HOSTILE, "c"))
        figure = trees.plot(tree)
        assert_readable(figure)
        shown = texts_of(figure)
        assert not any("\n" in text for text in shown)
        assert shown[4].startswith('a "quoted" \\ <b>name</b>')


class TestDepth:
    def test_what_is_below_is_counted(self):
        figure = trees.plot(small(), max_depth=1)
        assert texts_of(figure)[1].endswith("100 rows · 2 leaves not drawn")
        words = ["age", "≤ 50", "well", "90 rows · 60 %", "… 2 leaves", "well", "10 rows · 90 %"]
        assert texts_of(figure)[4:-2] == words
        dashed = [
            p.get_linestyle() for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)
        ]
        assert dashed[0] == dashed[2] != dashed[1]
        assert_readable(figure)

    def test_nothing_but_the_root(self):
        figure = trees.plot(small(), max_depth=0)
        assert texts_of(figure)[4:] == ["well", "100 rows · 63 %", "… 3 leaves"]
        assert_readable(figure)

    def test_deeper_than_it_is(self):
        assert texts_of(trees.plot(small(), max_depth=9)) == texts_of(small().plot())

    def test_large_trees_are_cut(self):
        whole, cut = grown(trees.MOST_LEAVES), grown(3 * trees.MOST_LEAVES)
        assert len(cards_of(trees.plot(whole))) == 2 * trees.MOST_LEAVES - 1
        figure = trees.plot(cut)
        ends = (len(cards_of(figure)) + 1) // 2
        assert ends <= trees.MOST_LEAVES
        (left_out,) = re.findall(r"(\d+) leaves not drawn", texts_of(figure)[1])
        below = [int(count) for text in texts_of(figure) for count in re.findall(r"… (\d+)", text)]
        assert sum(below) == int(left_out)
        assert ends - len(below) + sum(below) == cut.leaves
        deeper = trees.plot(cut, max_depth=len({card[1] for card in cards_of(figure)}))
        assert (len(cards_of(deeper)) + 1) // 2 > trees.MOST_LEAVES

    @pytest.mark.parametrize("depth", [-1, 1.5, True])
    def test_no_depth(self, depth):
        with pytest.raises(ValueError, match=r"Expected `max_depth` to be a whole number of 0"):
            trees.plot(small(), max_depth=depth)


class TestPicture:
    @pytest.mark.parametrize("tree", [made(leaf(3, 0)), small(), grown(6)])
    def test_shape(self, tree):
        picture = trees.picture(tree)
        assert picture.dtype == np.uint8
        height, width, channels = picture.shape
        assert (width, channels) == (900, 3)
        across, down = trees.plot(tree).get_size_inches()
        assert height == pytest.approx(900 * down / across, abs=2)

    def test_red_comes_first(self):
        picture = trees.picture(small())
        for colour in tree_words.COLOURS[:2]:
            rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
            assert (picture == rgb).all(axis=-1).any()
            assert not (picture == rgb[::-1]).all(axis=-1).any()
        assert (picture[0, 0] == 255).all()

    def test_wider_for_many_leaves(self):
        tree = grown(24, answer=LONG)
        picture = trees.picture(tree)
        assert picture.shape[1] == pytest.approx(80 * trees.plot(tree).get_figwidth(), abs=1)
        assert picture.shape[1] > 900
        top = trees.picture(grown(48, answer=LONG))
        assert 900 <= top.shape[1] <= picture.shape[1]
