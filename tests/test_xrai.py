"""XRAI against the paper's greedy algorithm with plain masks, and its parts one by one."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import sparse
from skimage.segmentation import felzenszwalb

import keras_explain as kx
from keras_explain.explainers import xrai
from tests import naive

QUICK = {"explainer": kx.InputXGradient(), "scales": (50, 300)}


def naive_regions(cuts, by):
    """Masks `[H, W]` of all regions, each with the pixels not further from it than `by`."""
    masks = []
    for labels in cuts:
        places = np.stack(np.indices(labels.shape), axis=-1).astype(float)
        for number in np.unique(labels):
            inside = places[labels == number]
            apart = np.linalg.norm(places[:, :, None] - inside, axis=-1)
            masks.append(apart.min(axis=-1) <= by)
    return masks


def naive_added(map_, masks, least=1.0):
    """The paper's loop: the mask whose new pixels have the greatest mean is added next."""
    covered = np.zeros(map_.shape, bool)
    values, order = np.zeros(map_.shape), np.full(map_.shape, -1)
    for number in range(len(masks)):
        new = [mask & ~covered for mask in masks]
        gains = [map_[n].mean() if n.sum() >= max(least, 1) else -np.inf for n in new]
        best = int(np.argmax(gains))
        if gains[best] == -np.inf:
            break
        values[new[best]], order[new[best]] = gains[best], number
        covered |= masks[best]
    if not covered.all():
        values[~covered], order[~covered] = map_[~covered].mean(), order.max() + 1
    return values, order


def blocks(size=24, *, channels=3):
    """Pictures of a bright square and a dark one on grey, with a little noise."""
    pictures = np.random.default_rng(0).normal(scale=0.01, size=(3, size, size, channels))
    for i, at in enumerate((2, 6, 11)):
        pictures[i, at : at + 8, 3:11] += 1
        pictures[i, 13:22, 14 : 14 + 3 * i + 3] -= 1
    return pictures.astype(np.float32)


@pytest.fixture(scope="module")
def model():
    stack = [layers.Conv2D(4, 3, activation="tanh"), layers.Flatten(), layers.Dense(3)]
    return naive.randomize(keras.Sequential([keras.Input((24, 24, 3)), *stack]))


def expected_of(explainer, pictures, maps):
    """The values and segments that naive loops make of summed attributions `[B, H, W]`."""
    zoom = pictures.shape[1] / 224
    added = []
    for picture, map_ in zip(pictures, maps, strict=True):
        cuts = xrai.cut(picture, explainer.scales, explainer.min_size)
        masks = naive_regions(cuts, explainer.dilation * zoom)
        added.append(naive_added(map_.astype(float), masks, explainer.min_size / 3 * zoom**2))
    return [np.stack(arrays) for arrays in zip(*added, strict=True)]


# The parts


@pytest.mark.parametrize("least", [1.0, 6.0])
@pytest.mark.parametrize("seed", range(3))
def test_regions_are_added_in_order_of_their_gains(seed, least):
    rng = np.random.default_rng(seed)
    map_ = rng.normal(size=(9, 7))
    masks = rng.random((12, 9, 7)) < rng.uniform(0.05, 0.4, (12, 1, 1))
    regions = sparse.csr_matrix(masks.reshape(12, -1).astype(np.int8))
    values, order = xrai.add_regions(map_.astype(np.float32), regions, least)
    expected, expected_order = naive_added(map_, masks, least)
    naive.close(values, expected, 1e-6)
    np.testing.assert_array_equal(order, expected_order)
    assert order.dtype == np.int32


def test_a_region_with_a_greater_mean_comes_first_whatever_its_size():
    map_ = np.array([[3.0, 1.0, 1.0, -2.0]])
    masks = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]], np.int8)
    values, order = xrai.add_regions(map_, sparse.csr_matrix(masks), 1)
    assert values.tolist() == [[3, 1, 1, -2]]
    assert order.tolist() == [[0, 1, 1, 2]]


def test_the_values_of_a_region_sum_to_those_of_the_map():
    rng = np.random.default_rng(0)
    map_, masks = rng.normal(size=(9, 7)), rng.random((12, 63)) < 0.2
    values, order = xrai.add_regions(map_, sparse.csr_matrix(masks.astype(np.int8)), 1)
    for number in range(order.max() + 1):
        naive.close(values[order == number].sum(), map_[order == number].sum(), 1e-5)


@pytest.mark.parametrize("by", [0.0, 1.0, 2.5])
def test_regions_are_widened_by_a_disk(by):
    cuts = [np.random.default_rng(seed).integers(0, 4, (9, 11)) for seed in range(2)]
    received = xrai.widened(cuts, by).toarray().reshape(8, 9, 11)
    np.testing.assert_array_equal(received, naive_regions(cuts, by))


def test_a_picture_is_cut_where_it_changes():
    picture = blocks()[0]
    (labels,) = xrai.cut(picture, (50,), 150)
    assert len({labels[3, 4], labels[15, 15], labels[0, 0]}) == 3
    assert (labels[2:10, 3:11] == labels[3, 4]).all()
    assert xrai.cut(np.zeros((9, 9, 3)), (50,), 150)[0].max() == 0


def test_the_cut_is_of_what_is_seen_whatever_its_range():
    picture = blocks()[0]
    for other in (2 * picture - 7, (100 * picture).astype(np.float64)):
        for a, b in zip(
            xrai.cut(picture, (50, 300), 9), xrai.cut(other, (50, 300), 9), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_each_sample_has_its_own_black_and_white(model):
    x = blocks() * np.array([1, 2, 3], np.float32).reshape(3, 1, 1, 1)
    low, high = (
        np.broadcast_to(extreme(x, axis=(1, 2, 3), keepdims=True), x.shape)
        for extreme in (np.min, np.max)
    )
    for baseline, given in ((xrai.Darkest(), low), (xrai.Lightest(), high)):
        received = kx.IntegratedGradients(steps=3, baseline=baseline)(model, x, 1)
        expected = kx.IntegratedGradients(steps=3, baseline=given)(model, x, 1)
        np.testing.assert_array_equal(received.values, expected.values)
        naive.close(received.extras["base_values"], expected.extras["base_values"], 1e-6)


# The whole


def test_by_default_it_is_integrated_gradients_from_black_and_white():
    stack = [layers.Flatten(), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    model = naive.randomize(keras.Sequential([keras.Input((24, 24, 3)), *stack]))
    net, x = naive.Net([model]), blocks()
    rule = naive.gauss_legendre(50)
    maps = np.mean(
        [
            naive.integrated_gradients(
                lambda z: net.gradient(z, 1), x, np.broadcast_to(end, x.shape), rule
            ).sum(axis=-1)
            for end in (x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True))
        ],
        axis=0,
    )
    explanation = kx.XRAI(scales=(50, 300))(model, x, 1)
    values, segments = expected_of(explanation.explainer, x, maps)
    naive.close(explanation.values, values)
    np.testing.assert_array_equal(explanation.extras["segments"], segments)
    assert explanation.values.dtype == np.float32
    assert explanation.extras["segments"].dtype == np.int32
    assert segments.max() > 2


def test_many_classes_and_small_batches(model):
    x, many = blocks(), np.array([[0, 1], [2, 2], [1, 0]])
    explainer = kx.XRAI(**QUICK)
    explanation = explainer(model, x, many, batch_size=2)
    maps = kx.InputXGradient()(model, x, many).values.sum(axis=-1)
    assert explanation.values.shape == (3, 2, 24, 24)
    for k in range(2):
        values, segments = expected_of(explainer, x, maps[:, k])
        naive.close(explanation.values[:, k], values)
        np.testing.assert_array_equal(explanation.extras["segments"][:, k], segments)


def test_a_picture_is_cut_once(model, monkeypatch):
    seen = []
    monkeypatch.setattr(xrai, "cut", lambda *args: seen.append(args) or [np.eye(24, dtype=int)])
    x = blocks() + 0.5
    explainer = kx.XRAI(**QUICK, dilation=4.5)
    for classes in (1, [[0, 1, 2]] * 3, 2):
        explainer(model, x, classes)
    assert len(seen) == 3


@pytest.mark.parametrize("shape", [(24, 24), (24, 24, 1), (24, 20, 5)])
def test_gray_and_many_channels(shape):
    net = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
    naive.randomize(net)
    x = blocks(channels=5)[:, :, : shape[1], : (*shape, 1)[2]].reshape(3, *shape)
    explanation = kx.XRAI(**QUICK)(net, x, 1)
    maps = kx.InputXGradient()(net, x, 1).values
    pictures = x if len(shape) == 3 else x[..., None]
    zoom = np.sqrt(shape[0] * shape[1]) / 224
    for i, map_ in enumerate(maps.sum(axis=-1) if len(shape) == 3 else maps):
        regions = xrai.widened(xrai.cut(pictures[i], (50, 300), 150), 5 * zoom)
        expected, _ = xrai.add_regions(map_, regions, 50 * zoom**2)
        naive.close(explanation.values[i], expected)


def test_more_channels_that_say_no_more_than_three_are_cut_alike():
    picture = blocks()[0].astype(np.float64)
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0][:3]
    plain, wide = (felzenszwalb(xrai._three_channels(p), 50) for p in (picture, picture @ turned))
    np.testing.assert_array_equal(wide, plain)


def test_bytes_are_pictures_too(model):
    x = (blocks() * 60 + 128).astype(np.uint8)
    received = kx.XRAI(**QUICK)(model, x, 1)
    expected = kx.XRAI(**QUICK)(model, x.astype("float32"), 1)
    np.testing.assert_array_equal(received.values, expected.values)


def test_channels_first_pictures():
    shape = (3, 24, 24)
    net = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
    kernel = naive.randomize(net).get_weights()[0][:, 1].reshape(shape)
    x = np.ascontiguousarray(np.moveaxis(blocks(), -1, 1))
    keras.config.set_image_data_format("channels_first")
    try:
        explanation = kx.XRAI(**QUICK)(net, x, 1)
    finally:
        keras.config.set_image_data_format("channels_last")
    values, _ = expected_of(explanation.explainer, blocks(), (x * kernel).sum(axis=1))
    naive.close(explanation.values, values)


INNER = {
    "map": kx.GradCAM(),
    "noisy": kx.SmoothGrad(samples=2, explainer=kx.InputXGradient()),
    "names": ["saliency", kx.IntegratedGradients(steps=2), kx.GradCAM()],
}


@pytest.mark.parametrize("name", INNER)
def test_of_any_explainer_or_the_mean_of_several(model, name):
    x = blocks()
    explainer = kx.XRAI(**QUICK | {"explainer": INNER[name]})
    explanation = explainer(model, x, 1, seed=0)
    maps = []
    for inner in explainer.explainer:
        values = inner(model, x, 1, seed=0).values
        maps.append(values.sum(axis=-1) if values.ndim == 4 else values)
    values, _ = expected_of(explainer, x, np.mean(maps, axis=0))
    naive.close(explanation.values, values)


def test_the_file_keeps_it(model, tmp_path):
    explanation = kx.XRAI(**QUICK)(model, blocks(), 1)
    explanation.save(tmp_path / "e.npz")
    loaded = kx.Explanation.load(tmp_path / "e.npz")
    assert loaded.explainer == explanation.explainer
    np.testing.assert_array_equal(loaded.extras["segments"], explanation.extras["segments"])
    again = kx.get({"class_name": "XRAI", "config": kx.XRAI().get_config()})
    assert again == kx.XRAI()


def test_it_is_drawn(model):
    kx.XRAI(**QUICK)(model, blocks(), [[0, 1]] * 3).plot()


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": ()}, "`scales` above 0"),
        ({"scales": (50, 0)}, "`scales` above 0"),
        ({"min_size": -1}, "`min_size` to be a number of 0 or more"),
        ({"dilation": -1}, "`dilation` to be a number of 0 or more"),
        ({"explainer": ()}, "one explainer or more"),
        ({"explainer": kx.Saliency(layer="conv")}, "explainers of the input's pixels"),
        ({"explainer": kx.XRAI()}, "explainers of the input's pixels"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        kx.XRAI(**options)


def test_it_can_not_be_averaged_over_noise(model):
    """Regions are grown after the graph, so what is averaged would be without them."""
    with pytest.raises(ValueError, match="XRAI"):
        kx.SmoothGrad(explainer=kx.XRAI(**QUICK), samples=2)(model, blocks(), 1)


@pytest.mark.parametrize("shape", [(5,), (24, 2), (4, 4, 4, 1)])
def test_what_is_no_picture(shape):
    net = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
    words = rf"one input of pictures.* Received: \(3, {shape[0]}"
    with pytest.raises(ValueError, match=words):
        kx.XRAI()(net, naive.inputs(shape), 1)
