"""The format of the Explain tab's events: what is written is read, and what is broken is said."""

import json

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies
from hypothesis.extra import numpy as arrays

import keras_explain as kx
from keras_explain.sinks import events, maps
from tests import logs

FLOATS = strategies.floats(-1e6, 1e6, width=32)
MAPS = arrays.arrays(
    np.float32, strategies.tuples(*[strategies.integers(1, 6)] * 2), elements=FLOATS
)
HEADER = {
    "kind": "pictures",
    "samples": "id",
    "classes": [1],
    "scores": [2.0],
    "predicted": 1,
    "probability": 0.5,
    "limit": 1.0,
    "signed": True,
}
SHAPES = {"a": (3,), "b": (9, 4), "c": (1,)}
LEAF = {"class": 0, "rows": 1, "counts": [1]}
SAMPLES = {"kind": "table", "count": 1, "labels": [0], "shape": [2], "values": [[1.0, 2.0]]}


def step_of(ends, bits):
    return (ends[1] - ends[0]) / (2**bits - 1)


def dequantised(codes, ends, bits):
    png = events.png(codes)
    return ends[0] + (ends[1] - ends[0]) * logs.decoded(png, bits) / (2**bits - 1)


class TestQuantising:
    @hypothesis.given(MAPS, strategies.sampled_from([8, 16]))
    @hypothesis.settings(deadline=None, max_examples=60)
    def test_values_return_within_half_a_step_and_zero_exactly(self, values, bits):
        codes, ends = events.quantise(values, bits)
        found = dequantised(codes, ends, bits)
        size = max(abs(ends[0]), abs(ends[1]))
        assert np.abs(found - values).max() <= step_of(ends, bits) / 2 + 1e-9 * size
        assert np.abs(found[values == 0]).sum() <= 1e-9 * size
        assert ends[0] <= values.min()
        assert ends[1] >= values.max()

    def test_the_range_is_hardly_wider_than_the_values(self):
        values = np.random.default_rng(0).normal(size=(20, 20))
        _, (lo, hi) = events.quantise(values, 8)
        assert hi - lo <= np.ptp(values) * 1.02

    def test_a_constant_map(self):
        codes, ends = events.quantise(np.full((2, 3), 7.0), 16)
        assert ends == (7, 7)
        assert (dequantised(codes, ends, 16) == 7).all()

    def test_what_is_not_a_number_is_marked_and_infinities_are_cut(self):
        values = np.array([[np.nan, np.inf, -np.inf, -1, 0, 2]])
        codes, ends = events.quantise(values, 16)
        found = dequantised(codes, ends, 16)[0]
        assert np.isnan(found).tolist() == [True] + [False] * 5
        assert found[1:].tolist() == pytest.approx([2, -1, -1, 0, 2], abs=1e-4)

    def test_nothing_finite(self):
        codes, ends = events.quantise(np.full((2, 2), np.nan), 16)
        assert ends == (0, 0)
        assert np.isnan(dequantised(codes, ends, 16)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 4), (5, 6, 3)])
@pytest.mark.parametrize("slope", ["noise", "across", "down"])
def test_a_png_is_read_as_it_was_written(shape, slope):
    ramp = np.arange(max(shape), dtype=np.uint8)
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if slope != "noise":
        axis = 1 if slope == "across" else 0
        along = ramp[: shape[axis]].reshape([-1 if i == axis else 1 for i in range(len(shape))])
        picture = np.broadcast_to(along, shape).copy()
    read = tf.io.decode_png(events.png(picture)).numpy()
    assert (read.reshape(shape) == picture).all()
    assert events.png_size(events.png(picture)) == shape[:2]


class TestMaps:
    def test_small_maps_and_those_with_gaps_are_fine_and_large_ones_coarse(self):
        def bits(values, kind="pictures"):
            return events.read_map(events.map_blobs(HEADER | {"kind": kind}, values)[0])["bits"]

        large = np.ones((1, 65, 64), np.float32)
        assert bits(large) == 8
        assert bits(large[:, :64]) == bits(large, "series") == 16
        assert bits(np.where(np.arange(64) == 3, np.nan, large)) == 16

    def test_eight_samples_by_three_methods_of_224_pixels_are_below_one_and_a_half_megabytes(self):
        noise = np.random.default_rng(0).normal(size=(1, 224, 224))  # nothing compresses worse
        assert sum(map(len, events.map_blobs(HEADER, noise))) * 24 < 1.5e6

    def test_headers_return(self):
        header, png = events.map_blobs(HEADER, np.ones((1, 4, 3)))
        read = events.read_map(header)
        assert read | HEADER == read | {"kind": "pictures"}
        assert read["shape"] == [4, 3]
        events.check_map_png(png, read)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 2}, "schema 1. Received: schema 2"),
            ({"bits": 12}, "`bits` of 8 or 16. Received: 12"),
            ({"shape": [10**5, 10**5]}, "`shape`"),
            ({"shape": [2, -1]}, "`shape`"),
            ({"shape": [1, 2, 3]}, "`shape`"),
            ({"scores": "x"}, "`scores`"),
            ({"scores": [0] * 10_001, "range": [[0, 1]] * 10_001, "classes": None}, "`scores`"),
            ({"classes": [1, 2]}, "`classes` for 1 scores"),
            ({"classes": ["<b>"]}, "`classes`"),
            ({"range": [[0]]}, "`range`"),
            ({"range": [[0, float("nan")]]}, "`range`"),
            ({"limit": None}, "`limit`"),
            ({"signed": "yes"}, "`signed`"),
            ({"predicted": "<script>"}, "`predicted`"),
            ({"probability": "high"}, "`probability`"),
            ({"reliable": [1]}, "`reliable` for 1 scores"),
            ({"reliable": [True, True]}, "`reliable`"),
            ({"gap": ["<b>"]}, "`gap`"),
        ],
    )
    def test_what_is_broken_in_a_header_is_said(self, change, message):
        header = json.loads(events.map_blobs(HEADER, np.ones((1, 4, 3)))[0])
        with pytest.raises(events.FormatError) as raised:
            events.read_map(json.dumps(header | change).encode())
        assert message in str(raised.value)

    @pytest.mark.parametrize(
        "blob",
        [b"", b"\xff\x00", b"[1]", b"{", b"[" * 10**5, b'{"schema":1,"x":"' + b"x" * 2**20 + b'"}'],
    )
    def test_what_is_no_header_is_said(self, blob):
        with pytest.raises(events.FormatError, match="the header of a map"):
            events.read_map(blob)

    def test_a_picture_of_another_size_is_refused(self):
        with pytest.raises(events.FormatError, match=r"a PNG of 3 x 4 pixels. Received: \(3, 4\)"):
            events.check_map_png(events.png(np.ones((3, 4), np.uint8)), {"shape": [4, 3]})
        with pytest.raises(events.FormatError, match="Expected a PNG"):
            events.check_map_png(b"GIF89a", {"shape": [4, 3]})


class TestSamples:
    def test_headers_return(self):
        (blob,) = events.samples_blobs(SAMPLES)
        assert events.read_samples(blob) == {
            "schema": 1,
            "words": None,
            "class_names": None,
            "feature_names": None,
            **SAMPLES,
        }

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "video"}, "`kind`"),
            ({"count": 0}, "`count`"),
            ({"labels": [0, 1]}, "`labels` for each of 1 samples"),
            ({"labels": ["x"]}, "`labels`"),
            ({"values": [[1.0]]}, "`values` of the shape [1, 2]"),
            ({"values": [["1", "2"]]}, "`values`"),
            ({"words": [[1]]}, "`words`"),
            ({"class_names": {"a": 1}}, "`class_names`"),
            ({"feature_names": [None]}, "`feature_names`"),
        ],
    )
    def test_what_is_broken_is_said(self, change, message):
        with pytest.raises(events.FormatError) as raised:
            events.read_samples(*events.samples_blobs(SAMPLES | change))
        assert message in str(raised.value)

    def test_numbers_that_json_does_not_have_become_null(self):
        (blob,) = events.samples_blobs(SAMPLES | {"values": [[float("nan"), 1.0]]})
        assert json.loads(blob)["values"] == [[None, 1.0]]
        assert events.read_samples(blob)["values"] == [[None, 1.0]]
        infinite = blob.replace(b"null", b"1e999", 1) if blob.count(b"null") == 1 else blob
        assert None in events.read_samples(infinite)["values"][0]


@pytest.mark.parametrize("number", [2**63 - 1, 1 - 2**63, 2**63, -(2**63), 10**400])
def test_whole_numbers_beyond_64_bits_become_null(number):
    assert events.clean({"a": [number]}) == {"a": [number if abs(number) < 2**63 else None]}


class TestTrees:
    def test_a_tree_returns(self):
        (blob,) = events.tree_blobs({"trees": [{"region": 2, "tree": logs.TREE}]})
        assert events.read_tree(blob)["trees"] == [{"region": 2, "tree": logs.TREE}]

    @pytest.mark.parametrize("rows", ["inputs", "<b>regions", None])
    def test_what_a_tree_asks_about_returns(self, rows):
        (blob,) = events.tree_blobs({"trees": [], "rows": rows})
        assert events.read_tree(blob)["rows"] == rows

    @pytest.mark.parametrize("rows", [3, ["inputs"], {"a": 1}, True])
    def test_what_a_tree_asks_about_is_a_text(self, rows):
        (blob,) = events.tree_blobs({"trees": [], "rows": rows})
        with pytest.raises(events.FormatError, match="`rows` as a text"):
            events.read_tree(blob)

    @pytest.mark.parametrize(
        "root",
        [
            None,
            {"class": "<b>", "rows": 1, "counts": [1]},
            {"class": 0, "rows": 1, "counts": "x"},
            LEAF | {"feature": 9, "threshold": 1.0, "left": LEAF, "right": LEAF},
            LEAF | {"feature": 0, "threshold": 1.0},
            LEAF | {"feature": -1, "threshold": 1.0, "left": LEAF, "right": LEAF},
        ],
    )
    def test_broken_nodes_are_refused(self, root):
        (blob,) = events.tree_blobs(
            {"trees": [{"region": None, "tree": logs.TREE | {"root": root}}]}
        )
        with pytest.raises(events.FormatError, match="Expected"):
            events.read_tree(blob)

    def test_a_tree_too_deep_to_draw_is_refused(self):
        root = LEAF
        for _ in range(events.DEEPEST_TREE + 1):
            root = LEAF | {"feature": 0, "threshold": 0.0, "left": LEAF, "right": root}
        blob = json.dumps({"schema": 1, "trees": [{"tree": logs.TREE | {"root": root}}]}).encode()
        with pytest.raises(events.FormatError, match="below another"):
            events.read_tree(blob)


@pytest.mark.parametrize(
    ("tag", "pair"),
    [
        ("keras_explain/maps/grad_cam/3", ("grad_cam", 3)),
        ("keras_explain/maps/a/b/0", ("a/b", 0)),
        ("keras_explain/maps/a", None),
        ("keras_explain/maps//1", None),
        ("keras_explain/maps/a/-1", None),
        ("keras_explain/maps/a/²", None),
        ("keras_explain/maps/a/123456789", ("a", 123456789)),
        ("keras_explain/maps/a/1234567890", None),
        ("keras_explain/samples", None),
    ],
)
def test_tags(tag, pair):
    assert events.method_and_sample(tag) == pair
    assert pair is None or events.map_tag(*pair) == tag


class TestShown:
    """What of a record is shown. Explanations of real models are in test_plugin.py."""

    def test_pictures(self):
        record = logs.record(0)
        shown = maps.shown(record)
        assert shown.kind == "pictures"
        assert shown.x is record.pictures
        assert (shown.maps[:, 0] == record.maps).all()

    def test_the_same_samples_have_one_id_and_others_another(self):
        first, again = (maps.shown(logs.record(step)).digest for step in range(2))
        other = logs.record(0, pictures=np.zeros((3, 6, 5, 3), np.uint8))
        assert first == again != maps.shown(other).digest
        x, values = np.arange(6.0), np.ones((1, 1, 6))
        shapes = {maps.Shown("table", x.reshape(rows, -1), values).digest for rows in (1, 2, 3)}
        assert len(shapes) == 3  # of the same numbers

    def test_several_inputs_side_by_side(self):
        """A row can be told from zero where a part of it can; a step of a series is its mean."""
        rng = np.random.default_rng(0)
        x = {name: rng.normal(size=(2, *shape)) for name, shape in SHAPES.items()}
        values = {name: rng.normal(size=(2, shape[0])) for name, shape in SHAPES.items()}
        known = {name: np.array([name == "a", False]) for name in SHAPES}
        explanation = kx.Explanation(
            values, np.ones(2), kx.targets.Class([0, 0]), x, kx.Saliency(), {"reliable": known}
        )
        record = logs.record(0, explanation=explanation, pictures=None, maps=None)
        shown = maps.shown(record)
        assert shown.kind == "table"
        names = [*(f"a {i}" for i in range(3)), *(f"b {i}" for i in range(9)), "c"]
        assert shown.feature_names == names
        assert shown.reliable.tolist() == [[True], [False]]
        means = np.concatenate([x["a"], x["b"].mean(axis=2), x["c"]], axis=1)
        np.testing.assert_allclose(shown.x, means, rtol=1e-6)
        joined = np.concatenate(list(values.values()), axis=1)
        np.testing.assert_allclose(shown.maps[:, 0], joined, rtol=1e-6)


def test_a_header_of_many_items_is_not_walked(monkeypatch):
    def walked(text):
        raise AssertionError("It was read.")

    monkeypatch.setattr(json, "loads", walked)
    blob = b'{"schema":1,"values":[' + b"0," * 6_000_000 + b"0]}"
    for read in (events.read_samples, events.read_tree):
        with pytest.raises(events.FormatError, match="of at most 2097152 items"):
            read(blob)
