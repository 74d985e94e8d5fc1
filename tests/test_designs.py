"""Coalitions in which each feature is present in half: nested, even, and of no two alike."""

import itertools

import numpy as np
import pytest

from keras_explain.core.hiding import designs


@pytest.mark.parametrize("count", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("seed", range(3))
def test_fewer_samples_are_the_beginning_of_more(count, seed):
    whole = designs.folded(seed, 1000, count)
    for samples in (1, 2, 3, 66, 128, 999):
        np.testing.assert_array_equal(designs.folded(seed, samples, count), whole[:samples])


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_each_odd_sample_hides_what_the_one_before_shows(count):
    present = designs.folded(3, 64, count)
    assert present.dtype == bool
    np.testing.assert_array_equal(present[1::2], ~present[::2])


@pytest.mark.parametrize("count", [2, 7, 16, 31, 32])
@pytest.mark.parametrize("seed", range(5))
def test_all_pairs_of_features_are_seen_equally_often(count, seed):
    """From twice as many samples as features on, the next power of two: both, one, other, none."""
    samples = 2 * 2 ** (count - 1).bit_length()
    present = designs.folded(seed, samples, count)
    for i, j in zip(*np.triu_indices(count, 1), strict=True):
        seen = np.bincount(2 * present[:, i] + present[:, j], minlength=4)
        np.testing.assert_array_equal(seen, samples // 4)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("seed", range(10))
def test_no_coalition_is_seen_twice_before_all_were_seen(count, seed):
    present = designs.folded(seed, 2 * 2**count, count)
    numbers = present @ (1 << np.arange(count))
    for part in (numbers[: 2**count], numbers[2**count :]):
        np.testing.assert_array_equal(np.sort(part), np.arange(2**count))


@pytest.mark.parametrize("count", [11, 12, 20])
@pytest.mark.parametrize("seed", range(5))
def test_no_feature_goes_together_with_an_interaction(count, seed):
    signs = 2.0 * designs.folded(seed, 1024, count) - 1
    i, j, k = np.array(list(itertools.combinations(range(count), 3))).T
    together = np.abs((signs[:, i] * signs[:, j] * signs[:, k]).T @ signs) / len(signs)
    for one in (i, j, k):
        together[np.arange(len(one)), one] = 0
    assert together.max() < 0.6


def test_seeds_give_other_samples():
    drawn = [designs.folded(seed, 64, 9) for seed in range(200)]
    share = np.mean(drawn, axis=0)
    np.testing.assert_allclose(share, 0.5, atol=5 * 0.5 / np.sqrt(200))
    assert len(np.unique(np.reshape(drawn, (200, -1)), axis=0)) == 200


def test_a_mean_over_them_is_unbiased():
    """Of a product of four features, which some of the designs see too often, others never."""
    found = [designs.folded(seed, 16, 8)[:, :4].all(axis=1).mean() for seed in range(2000)]
    np.testing.assert_allclose(np.mean(found), 1 / 16, atol=4 * np.std(found) / np.sqrt(2000))
    assert np.std(found) > 0.01


def test_few_samples_are_drawn_independently():
    present = designs.halves(0, 39, 20)
    assert present.shape == (39, 20)
    assert (present[1::2] == present[:-1:2]).any()
    np.testing.assert_array_equal(designs.halves(0, 40, 20), designs.folded(0, 40, 20))


@pytest.mark.parametrize(("count", "first"), [(1, 64), (16, 64), (17, 128), (49, 256)])
def test_stops_are_powers_of_two_from_four_samples_a_feature_on(count, first):
    assert designs.stops(count, 1000) == [
        *(n for n in (64, 128, 256, 512) if n >= first),
        1000,
    ]
    assert designs.stops(count, first) == [first]
    assert designs.stops(count, 50) == [50]
