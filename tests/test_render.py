"""`plots.render`: numbers to colours, against the naive formula and by hand-made cases."""

import matplotlib
import numpy as np
import pytest

from keras_explain.core.data.layout import Layout
from keras_explain.plots import ranges, render

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
BGR_MEAN = np.array([103.939, 116.779, 123.68])


@pytest.fixture(scope="module")
def photos():
    """A lit scene, a dim one and a bright one: `[3, 24, 32, 3]`, with black and white somewhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :32]
    scene = 127 + 90 * np.sin(x / 5)[..., None] * np.cos(y / 4)[..., None] * [1, 0.5, -1]
    photos = np.stack([scene, scene * 0.3, 255 - scene * 0.3]) + rng.normal(0, 8, (3, 24, 32, 3))
    photos[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    return photos.clip(0, 255).round().astype(np.uint8)


def maps_of(seed=0, shape=(3, 6, 5)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class TestToUint8:
    @pytest.mark.parametrize(
        ("name", "preprocess"),
        [
            ("unit", lambda p: p / 255),
            ("byte", lambda p: p),
            ("symmetric", lambda p: p / 127.5 - 1),
            ("half", lambda p: p / 255 - 0.5),
            ("torch", lambda p: (p / 255 - MEAN) / STD),
            ("caffe", lambda p: p[..., ::-1] - BGR_MEAN),
        ],
    )
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_undoes_preprocessing(self, photos, name, preprocess, dtype):
        x = preprocess(photos.astype(np.float64)).astype(dtype)
        assert ranges.guess_range(x) == name
        back = ranges.to_uint8(x)
        assert back.dtype == np.uint8
        np.testing.assert_allclose(back.astype(int), photos, atol=1)

    @pytest.mark.parametrize("model", ["mobilenet_v2", "resnet", "densenet"])
    def test_undoes_what_keras_applications_do(self, photos, model):
        import keras

        preprocess = getattr(keras.applications, model).preprocess_input
        x = preprocess(photos.astype(np.float32))
        np.testing.assert_allclose(ranges.to_uint8(x).astype(int), photos, atol=1)

    def test_a_dim_or_dark_batch_stays_so(self, photos):
        dim = photos[1:2]
        dim = dim - dim.min()
        assert dim.max() < 120
        for x in (dim / 255, dim / 127.5 - 1, (dim / 255 - MEAN) / STD, dim[..., ::-1] - BGR_MEAN):
            np.testing.assert_allclose(ranges.to_uint8(x).astype(int), dim, atol=1)

    def test_overshoot_of_resampling_is_clipped(self, photos):
        x = photos / 255.0
        x[0, 0, 0], x[0, 0, 1] = -0.04, 1.04
        back = ranges.to_uint8(x)
        np.testing.assert_allclose(back.astype(int), photos, atol=1)

    def test_uint8_stays_whatever_it_holds(self):
        x = np.random.default_rng(0).integers(0, 3, (2, 9, 9, 3)).astype(np.uint8)
        np.testing.assert_array_equal(ranges.to_uint8(x), x)

    def test_bool_is_black_and_white(self):
        x = np.eye(8, dtype=bool)[None]
        np.testing.assert_array_equal(ranges.to_uint8(x)[..., 0], 255 * x.astype(np.uint8))

    @pytest.mark.parametrize(
        ("x", "name"),
        [
            (np.array([0.0, 16.0]), "minmax"),  # scikit-learn's digits
            (np.array([-0.42, 2.82]), "minmax"),  # MNIST less its mean, in its deviations
            (np.array([-7.0, 300.0]), "minmax"),
            (np.array([0.0, 255.0]), "byte"),
            (np.array([0.1, 0.3]), "unit"),
            (np.array([-1.0, -0.6]), "symmetric"),
            (np.array([0.0, 0.0]), "unit"),
        ],
    )
    def test_range_of_grey_pictures(self, x, name):
        assert ranges.guess_range(x.reshape(1, 2, 1, 1)) == name

    def test_anything_else_is_stretched_over_the_whole_batch(self):
        x = np.zeros((2, 8, 8, 1))
        x[0, 0, 0], x[0, 0, 1], x[1, 0, 0], x[1, 0, 1] = -40, 0, 60, 10
        levels = ranges.to_uint8(x)[:, 0, :2, 0]
        expected = np.rint((np.array([[-40, 0], [60, 10]]) + 40) / 100 * 255)
        np.testing.assert_array_equal(levels, expected)

    def test_a_constant_batch_out_of_all_ranges_is_black(self):
        assert ranges.to_uint8(np.full((2, 8, 8, 1), -77.0)).max() == 0

    def test_grey_stays_grey(self, photos):
        grey = photos[..., :1] / 255
        for x in (grey, grey[..., 0]):
            back = ranges.to_uint8(x)
            np.testing.assert_array_equal(back, np.repeat(photos[..., :1], 3, -1))

    def test_channels_first(self, photos):
        x = np.moveaxis(photos / 127.5 - 1, -1, 1)
        first = Layout(4, 1)
        np.testing.assert_allclose(ranges.to_uint8(x, None, first).astype(int), photos, atol=1)
        assert ranges.to_uint8(np.zeros((2, 31, 8, 9)), None, first).shape == (2, 8, 9, 3)
        for to_image in (lambda x: x / 2 + 0.5, lambda x: np.moveaxis(x, 1, -1) / 2 + 0.5):
            made = ranges.to_uint8(x, to_image, first).astype(int)
            np.testing.assert_allclose(made, photos, atol=1)

    def test_few_rows_of_many_channels_are_not_channels_first(self):
        assert ranges.to_uint8(np.zeros((2, 4, 4, 64))).shape == (2, 4, 4, 3)

    def test_fourth_channel_is_left_out(self, photos):
        x = np.concatenate([photos, np.full_like(photos[..., :1], 99)], -1)
        np.testing.assert_array_equal(ranges.to_uint8(x), photos)

    @pytest.mark.parametrize("scale", [255.0, 1.0])
    def test_other_numbers_of_channels_are_averaged(self, photos, scale):
        x = photos[..., :2] / scale
        expected = photos[..., :2].mean(-1)
        np.testing.assert_allclose(ranges.to_uint8(x)[..., 1], expected, atol=0.51)

    def test_non_finite_pixels_do_not_move_the_range(self, photos):
        x = photos.astype(np.float32) / 127.5 - 1
        x[1, 5, 5], x[1, 5, 6], x[1, 5, 7] = np.nan, np.inf, -np.inf
        back = ranges.to_uint8(x)
        assert back[1, 5, 5:8, 0].tolist() == [0, 255, 0]
        np.testing.assert_array_equal(back[0], photos[0])
        assert ranges.to_uint8(np.full((1, 8, 8), np.nan)).max() == 0

    @pytest.mark.parametrize("shape", [(4, 7), (7,), (1, 2, 3, 4, 5)])
    def test_what_is_not_pictures_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"Expected pictures of shape .* Received: .*shape"):
            ranges.to_uint8(np.zeros(shape))


class TestToImage:
    def test_result_in_0_1_or_0_255(self, photos):
        x = photos / 255 * 7 + 3  # no default would find this out
        np.testing.assert_array_equal(ranges.to_uint8(x, lambda x: (x - 3) / 7), photos)
        np.testing.assert_array_equal(ranges.to_uint8(x, lambda x: (x - 3) / 7 * 255), photos)
        np.testing.assert_array_equal(ranges.to_uint8(x, lambda x: photos), photos)

    def test_dim_result_is_not_stretched(self):
        x = np.full((1, 8, 8, 1), 5.0)
        assert (ranges.to_uint8(x, lambda x: x * 2) == 10).all()
        assert (ranges.to_uint8(x, lambda x: x / 50) == 26).all()

    def test_makes_pictures_of_rows(self):
        x = np.arange(2 * 64, dtype=np.float32).reshape(2, 64)
        pictures = ranges.to_uint8(x, lambda x: x.reshape(-1, 8, 8))
        np.testing.assert_array_equal(pictures[..., 0], x.reshape(2, 8, 8))

    @pytest.mark.parametrize(
        "to_image", [lambda x: x[:2], lambda x: x.reshape(3, -1), lambda x: x[0, 0], np.mean]
    )
    def test_wrong_shape(self, photos, to_image):
        with pytest.raises(ValueError, match=r"Expected `to_image` .*\[3, H, W, C\].*Received"):
            ranges.to_uint8(photos, to_image)

    @pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 400.0), (-100.0, 200.0)])
    def test_wrong_range(self, low, high):
        x = np.zeros((1, 8, 8))
        x[0, 0, :2] = low, high
        with pytest.raises(ValueError, match=r"in \[0, 1\] or \[0, 255\].*Received: values from"):
            ranges.to_uint8(x, lambda x: x)


class TestToMaps:
    def test_sums_signed_over_channels(self):
        values = maps_of(shape=(2, 6, 5, 3))
        maps = render.to_maps(values)
        assert maps.dtype == np.float32
        expected = [[[sum(map(float, p)) for p in row] for row in m] for m in values]
        np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)

    def test_maps_pass_through(self):
        maps = maps_of()
        np.testing.assert_array_equal(render.to_maps(maps), maps)

    def test_other_ranks_are_refused(self):
        with pytest.raises(ValueError, match=r"Expected attributions of shape .*\(4, 7\)"):
            render.to_maps(np.zeros((4, 7)))


class TestLimit:
    def test_is_a_percentile_of_the_absolute_values_of_the_batch(self):
        maps = maps_of(shape=(4, 50, 50))
        ordered = np.sort(np.abs(maps).ravel())
        limit = render.limit_of(maps, 99.5)
        assert ordered[int(0.994 * ordered.size)] < limit < ordered[int(0.996 * ordered.size)]
        assert render.limit_of(maps, 100) == ordered[-1]

    def test_an_outlier_does_not_move_it(self):
        maps = maps_of(shape=(4, 50, 50))
        plain = render.limit_of(maps)
        maps[0, 0, 0] = -1e6
        assert render.limit_of(maps) == pytest.approx(plain, rel=0.05)

    def test_falls_back_to_the_maximum_of_sparse_maps(self):
        maps = np.zeros((2, 40, 40), np.float32)
        maps[1, 3, 4] = -2.5
        assert render.limit_of(maps) == 2.5

    def test_zero_and_non_finite(self):
        assert render.limit_of(np.zeros((2, 4, 4))) == 0
        assert render.limit_of(np.full((2, 4, 4), np.nan)) == 0
        maps = np.ones((1, 4, 4), np.float32)
        maps[0, 0] = [np.nan, np.inf, -np.inf, 1]
        assert render.limit_of(maps) == 1


class TestColorize:
    def test_ends_and_centre_of_the_diverging_table(self):
        maps = np.array([[[-2, 0, 2], [-9, -0.0, 9], [-np.inf, 0, np.inf]]], np.float32)
        coloured = render.colorize(maps, 2.0)
        table = render.colour_table(True)[:-1]
        assert len(table) % 2 == 1
        for row in coloured[0]:
            np.testing.assert_array_equal(row, table[[0, len(table) // 2, -1]])
        white = np.rint(255 * np.array(matplotlib.colormaps["RdBu_r"](0.5)[:3]))
        np.testing.assert_allclose(coloured[0, 0, 1], white, atol=1)

    def test_signs_look_apart_and_alike_in_strength(self):
        blue, white, red = render.colorize([[[-1.0, 0.0, 1.0]]], 1.0)[0, 0].astype(int)
        assert blue[2] > blue[0] + 50
        assert red[0] > red[2] + 50
        assert white.min() > 230

    def test_ends_of_the_sequential_table(self):
        coloured = render.colorize(np.array([[[0, 3, 8]]]), 3.0)[0, 0]
        inferno = np.rint(255 * matplotlib.colormaps["inferno"]([0.0, 1.0, 1.0])[:, :3])
        np.testing.assert_array_equal(coloured, inferno)

    def test_signed_can_be_said(self):
        maps = np.abs(maps_of())
        signed = render.colorize(maps, 1.0, signed=True)
        np.testing.assert_array_equal(signed, render.colorize(np.copysign(maps, 1), 1.0, True))
        assert (signed != render.colorize(maps, 1.0)).any()
        negative = render.colorize(-maps, 1.0, signed=False)
        assert (negative == render.colour_table(False)[0]).all()

    @pytest.mark.parametrize("signed", [True, False])
    def test_against_a_loop(self, signed):
        maps = maps_of() if signed else np.abs(maps_of())
        coloured = render.colorize(maps, 1.5, signed)
        table = render.colour_table(signed)[:-1]
        low = -1.5 if signed else 0.0
        for place in np.ndindex(maps.shape):
            share = (min(max(float(maps[place]), low), 1.5) - low) / (1.5 - low)
            nearest = table[[int(share * (len(table) - 1)), int(np.ceil(share * (len(table) - 1)))]]
            assert coloured[place].tolist() in nearest.tolist()

    def test_zero_maps_have_the_colour_of_zero(self):
        zeros = np.zeros((1, 3, 3))
        assert (render.colorize(zeros, 0.0) == render.colour_table(False)[0]).all()
        middle = render.colour_table(True)[len(render.colour_table(True)) // 2 - 1]
        assert (render.colorize(zeros, 0.0, signed=True) == middle).all()

    @pytest.mark.parametrize("signed", [True, False])
    def test_nan_has_a_colour_of_its_own(self, signed):
        maps = np.array([[[np.nan, 0.5]]])
        coloured = render.colorize(maps, 1.0, signed)
        assert tuple(coloured[0, 0, 0]) == render.NAN_COLOUR
        others = render.colour_table(signed)[:-1].astype(int)
        assert np.abs(others - render.NAN_COLOUR).max(axis=1).min() > 30

    def test_each_picture_is_coloured_as_if_alone(self):
        maps = maps_of()
        limit = render.limit_of(maps)
        together = render.colorize(maps, limit, True)
        for i in range(len(maps)):
            np.testing.assert_array_equal(
                together[i : i + 1], render.colorize(maps[i : i + 1], limit, True)
            )

    @pytest.mark.parametrize("signed", [True, False])
    def test_brightness_falls_or_rises_evenly(self, signed):
        luma = render.colour_table(signed)[:-1] @ [0.299, 0.587, 0.114]
        side = luma[: len(luma) // 2 + 1] if signed else luma
        assert (np.diff(side) >= -1).all()  # one level of rounding
        assert side[-1] - side[0] > 120


class TestOverlay:
    def test_zero_leaves_the_greyed_picture(self, photos):
        laid = render.overlay(photos, np.zeros(photos.shape[:3]), 1.0)
        assert (laid[..., 0] == laid[..., 1]).all()
        assert (laid[..., 0] == laid[..., 2]).all()
        luma = photos @ np.array([0.299, 0.587, 0.114])
        order = np.argsort(luma.ravel())
        assert (np.diff(laid[..., 0].ravel()[order].astype(int)) >= -1).all()
        assert np.corrcoef(laid[..., 0].ravel(), luma.ravel())[0, 1] > 0.97

    @pytest.mark.parametrize("signed", [True, False])
    def test_more_opaque_the_larger_the_value(self, signed):
        grey = np.full((1, 1, 11, 3), 128, np.uint8)
        values = np.linspace(0, 1, 11)[None, None]
        plain = render.overlay(grey, np.zeros_like(values), 1.0, signed)[0, 0].astype(int)
        laid = render.overlay(grey, values, 1.0, signed)[0, 0].astype(int)
        away = np.abs(laid - plain).sum(-1)
        assert away[0] == 0
        assert (np.diff(away) >= 0).all()
        assert (np.diff(away[:5]) > 0).all()
        assert away[-1] > 100

    @pytest.mark.parametrize("signed", [True, False])
    def test_against_a_loop(self, photos, signed):
        maps = (
            maps_of(shape=photos.shape[:3]) if signed else np.abs(maps_of(shape=photos.shape[:3]))
        )
        laid = render.overlay(photos, maps, 1.5, signed, strength=0.8)
        blend, table = render._BLENDS[signed], render.colour_table(signed)[:-1].astype(float)
        for place in list(np.ndindex(maps.shape))[::7]:
            steps = (len(table) - 1) // (2 if signed else 1)
            share = round(min(max(float(maps[place]) / 1.5, -1.0), 1.0) * steps) / steps
            red, green, blue = map(int, photos[place])
            tone = (round(0.299 * red + 0.587 * green + 0.114 * blue) / 255) ** render._TONE
            vivid = np.sign(share) * (blend.vivid + (1 - blend.vivid) * abs(share))
            level = ((vivid + 1) / 2 if signed else vivid) * (len(table) - 1)
            backdrop = 255 * (blend.black + (blend.white - blend.black) * tone)
            a = 0.8 * abs(share) ** blend.power
            away = [
                np.abs(
                    laid[place]
                    - (1 - a) * backdrop
                    - a * table[nearest] * (blend.shade + (1 - blend.shade) * tone)
                ).max()
                for nearest in {int(level), int(np.ceil(level))}
            ]
            assert min(away) <= 1

    def test_greys_by_luma(self):
        colours = 255 * np.eye(3, dtype=np.uint8).reshape(1, 1, 3, 3)
        greys = np.array([76, 150, 29], np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=-1)
        zeros = np.zeros((1, 1, 3))
        np.testing.assert_array_equal(
            render.overlay(colours, zeros, 1.0), render.overlay(greys, zeros, 1.0)
        )

    def test_strength(self, photos):
        maps = maps_of(shape=photos.shape[:3])
        untouched = render.overlay(photos, maps * 0, 1.0, signed=True)
        np.testing.assert_array_equal(render.overlay(photos, maps, 1.0, strength=0.0), untouched)
        full = render.overlay(photos, np.ones_like(maps), 1.0, signed=True, strength=1.0)
        white = photos.min(-1) == 255
        assert white.any()
        assert (full[white] == render.colour_table(True)[-2]).all()

    @pytest.mark.parametrize("signed", [True, False])
    def test_the_object_stays_visible_under_the_largest_values(self, signed):
        picture = np.zeros((1, 4, 4, 3), np.uint8)
        picture[:, 1:3, 1:3] = 255
        laid = render.overlay(picture, np.ones((1, 4, 4)), 1.0, signed).astype(int)
        assert laid[0, 1, 1].sum() - laid[0, 0, 0].sum() > 60

    def test_each_picture_is_drawn_as_if_alone(self, photos):
        maps = maps_of(shape=photos.shape[:3])
        together = render.overlay(photos, maps, 1.3, True)
        for i in range(len(maps)):
            alone = render.overlay(photos[i : i + 1], maps[i : i + 1], 1.3, True)
            np.testing.assert_array_equal(together[i : i + 1], alone)

    def test_nan(self, photos):
        maps = np.zeros(photos.shape[:3])
        maps[1, 2, 3] = np.nan
        laid = render.overlay(photos, maps, 1.0)
        assert tuple(laid[1, 2, 3]) == render.NAN_COLOUR
        plain = render.overlay(photos, np.zeros_like(maps), 1.0)
        assert (laid != plain).any(-1).sum() <= 1

    def test_zero_limit_leaves_the_picture(self, photos):
        maps = np.zeros(photos.shape[:3])
        np.testing.assert_array_equal(
            render.overlay(photos, maps, render.limit_of(maps)), render.overlay(photos, maps, 1.0)
        )

    def test_other_size_is_refused(self, photos):
        with pytest.raises(ValueError, match=r"pictures' size.*\(3, 7, 7\).*\(3, 24, 32, 3\)"):
            render.overlay(photos, np.zeros((3, 7, 7)), 1.0)


class TestMostOf:
    @pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 0.99, 1.0])
    def test_the_fewest_places_that_hold_the_share(self, keep):
        maps = maps_of()
        taken = render.most_of(maps, keep)
        for values, mine in zip(maps.astype(float), taken, strict=True):
            positive = sorted(values[values > 0])[::-1]
            held = np.cumsum(positive)
            fewest = 1 + int(np.argmax(held >= keep * held[-1] * (1 - 1e-12)))
            assert mine.sum() == fewest
            assert values[mine].min() == positive[fewest - 1]

    def test_equal_places_are_taken_together(self):
        maps = np.array([[[3.0, 1, 1], [1, 1, -9]]])
        expected = [[[True, False, False], [False, False, False]]]
        np.testing.assert_array_equal(render.most_of(maps, 0.4), expected)
        np.testing.assert_array_equal(render.most_of(maps, 0.5), maps > 0)

    def test_a_feature_counts_once(self):
        features = np.array([[[0, 1, 1, 1, 1], [2, 3, 3, 3, 3]]])
        maps = np.array([3.0, 2, 2, 0])[features]
        largest = maps == 3
        np.testing.assert_array_equal(render.most_of(maps, 0.42, features), largest)
        np.testing.assert_array_equal(render.most_of(maps, 0.43, features), maps > 0)
        np.testing.assert_array_equal(render.most_of(maps, 0.42), maps > 0)
        np.testing.assert_allclose(render.shares_of(features), [[[1] + [0.25] * 4] * 2])

    def test_none_where_nothing_is_positive(self):
        maps = np.array([[[0.0, -1], [np.nan, -np.inf]], [[1, 0], [np.nan, np.inf]]])
        taken = render.most_of(maps, 1.0)
        assert not taken[0].any()
        np.testing.assert_array_equal(taken[1], [[True, False], [False, False]])


class TestProsAndCons:
    @pytest.fixture
    def blocks(self):
        """Four quarters of 20 x 20: for, less for, against, nothing."""
        quarters = np.kron([[0, 1], [2, 3]], np.ones((20, 20), int))[None]
        return np.array([0.5, 0.25, -0.4, 0.0])[quarters], quarters

    def test_two_flat_colours_where_most_is(self, blocks):
        maps, _ = blocks
        grey = np.full((1, 40, 40, 3), 128, np.uint8)
        tinted = render.pros_and_cons(grey, maps, 0.7)[0].astype(int)
        plain = render.overlay(grey, maps * 0, 1.0, True)[0, 0, 0].astype(int)
        against, pro = (np.rint(0.4 * plain + 0.6 * c) for c in render.sign_colours())
        np.testing.assert_array_equal(tinted[10, 10], pro)
        np.testing.assert_array_equal(tinted[30, 10], against)
        np.testing.assert_array_equal(tinted[10, 30], plain)
        np.testing.assert_array_equal(tinted[30, 30], plain)

    def test_outlines_of_sides_and_of_features(self, blocks):
        maps, quarters = blocks
        grey = np.full((1, 40, 40, 3), 128, np.uint8)
        for features, between_the_pros in ((None, False), (quarters, True)):
            tinted = render.pros_and_cons(grey, maps, 1.0, features)[0]
            line = (tinted == render._OUTLINE).all(-1)
            assert line[20, 10]
            assert line[30, 20]
            assert line[10, 20] == between_the_pros

    def test_no_outlines_around_single_pixels(self):
        maps = maps_of(shape=(1, 30, 30))
        grey = np.full((1, 30, 30, 3), 128, np.uint8)
        tinted = render.pros_and_cons(grey, maps, 0.5)
        assert not (tinted == render._OUTLINE).all(-1).any()
        assert (tinted != tinted[0, 0, 0]).any()

    def test_signs_can_be_told_apart(self):
        against, pro = (colour.astype(int) for colour in render.sign_colours())
        assert against[2] > against[0] + 80
        assert pro[0] > pro[2] + 80


class TestMasked:
    def test_the_rest_is_pale_and_grey(self, photos):
        maps = np.zeros(photos.shape[:3])
        maps[:, 6:18, 8:24] = 1
        maps[:, :4] = -5
        shown = render.masked(photos, maps, 0.5)
        np.testing.assert_array_equal(shown[:, 8:18, 10:24], photos[:, 8:18, 10:24])
        rest = shown[:, 20:]
        assert (rest == rest[..., :1]).all()
        assert rest.min() >= 170
        assert np.corrcoef(rest[0, ..., 0].ravel(), photos[0, 20:].mean(-1).ravel())[0, 1] > 0.9
        assert (shown[:, 6, 8:24] == render._OUTLINE).all()

    def test_nothing_for_it_is_all_pale(self, photos):
        shown = render.masked(photos, -np.ones(photos.shape[:3]), 0.5)
        assert (shown == shown[..., :1]).all()


class TestEnlarge:
    @pytest.mark.parametrize(
        ("size", "at_least", "factor"),
        [((8, 8), 128, 16), ((28, 20), 128, 5), ((224, 224), 128, 1), ((100, 128), 128, 1)],
    )
    def test_by_the_smallest_whole_factor(self, size, at_least, factor):
        pictures = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
        large = render.enlarge(pictures, at_least)
        assert large.shape == (2, size[0] * factor, size[1] * factor, 3)
        for y, x in ((0, 0), (0, factor - 1), (factor - 1, 0), (factor - 1, factor - 1)):
            np.testing.assert_array_equal(large[:, y::factor, x::factor], pictures)


def test_tables_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        render.colour_table(True)[0] = 0
