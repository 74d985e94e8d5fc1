"""Reductions: the passes of a row in any chunks are the passes at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops, tree

from keras_explain.core.run.reductions import Each, Mean, MeanSquare, Sum, Variance, Weighted
from tests import naive

NUMPY = {
    Sum: lambda v: v.sum(axis=0),
    Mean: lambda v: v.mean(axis=0),
    MeanSquare: lambda v: (v**2).mean(axis=0),
    Variance: lambda v: v.var(axis=0),
}
KINDS = pytest.mark.parametrize("kind", NUMPY, ids=lambda kind: kind.__name__)
ROWS = (4, 3)


def tensors(values):
    return tree.map_structure(ops.convert_to_tensor, values)


def reduced(kind, chunks):
    """The result over chunks `[passes, rows, ...]`, merged from the left."""
    reduction = kind()
    stats = reduction.merged(reduction.of(tensors(chunk)) for chunk in chunks)
    return tree.map_structure(ops.convert_to_numpy, reduction.result(stats))


def in_chunks(values, edges):
    return [chunk for chunk in np.split(values, sorted(set(edges))) if len(chunk)]


@KINDS
def test_one_chunk(kind):
    values = naive.inputs(ROWS, rows=7)
    naive.close(reduced(kind, [values]), NUMPY[kind](values.astype(np.float64)), 1e-6)


@KINDS
def test_one_pass(kind):
    values = naive.inputs(ROWS, rows=1)
    np.testing.assert_allclose(reduced(kind, [values]), NUMPY[kind](values), rtol=1e-6)


@KINDS
@naive.few
@given(
    passes=st.integers(2, 30),
    edges=st.lists(st.integers(1, 29), max_size=6),
    mean=st.sampled_from([0.0, 3.0, -50.0]),
    seed=st.integers(0, 2**16),
)
def test_any_chunks_are_the_whole(kind, passes, edges, mean, seed):
    values = naive.inputs(ROWS, passes, seed) + np.float32(mean)
    expected = NUMPY[kind](values.astype(np.float64))
    naive.close(reduced(kind, in_chunks(values, edges)), expected, 1e-4)


@KINDS
def test_the_order_of_merging_does_not_matter(kind):
    values, reduction = naive.inputs(ROWS, rows=12), kind()
    a, b, c = (reduction.of(tensors(chunk)) for chunk in np.split(values, [2, 7]))
    left = reduction.merge(reduction.merge(a, b), c)
    right = reduction.merge(a, reduction.merge(b, c))
    other = reduction.merge(c, reduction.merge(b, a))
    expected = NUMPY[kind](values.astype(np.float64))
    for stats in (left, right, other):
        naive.close(ops.convert_to_numpy(reduction.result(stats)), expected, 1e-6)


@KINDS
def test_nests_are_reduced_leaf_by_leaf(kind):
    values = {"a": naive.inputs((4,), rows=9), "b": [naive.inputs((2, 3), rows=9, seed=1)]}
    chunks = [tree.map_structure(lambda v, i=i: v[i : i + 4], values) for i in (0, 4, 8)]
    result = reduced(kind, chunks)
    assert set(result) == {"a", "b"}
    naive.close(result["a"], NUMPY[kind](values["a"].astype(np.float64)), 1e-6)
    naive.close(result["b"][0], NUMPY[kind](values["b"][0].astype(np.float64)), 1e-6)


@pytest.mark.parametrize("size", [1, 7, 64, 500])
@pytest.mark.parametrize("mean", [1e3, -1e4])
def test_the_variance_keeps_its_digits_around_a_large_mean(size, mean):
    """What the difference of the mean square and the squared mean does not."""
    values = (naive.inputs(ROWS, rows=500) + mean).astype(np.float32)
    exact = values.astype(np.float64).var(axis=0)
    result = reduced(Variance, [values[i : i + size] for i in range(0, 500, size)])
    np.testing.assert_allclose(result, exact, rtol=1e-2)
    difference = (values**2).mean(axis=0) - values.mean(axis=0) ** 2
    assert np.abs(difference / exact - 1).max() > 0.02


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_variance_is_never_negative_and_of_equal_numbers_zero(size):
    values = np.full((8, *ROWS), 0.1, np.float32)
    result = reduced(Variance, [values[i : i + size] for i in range(0, 8, size)])
    assert (result >= 0).all()
    np.testing.assert_allclose(result, 0, atol=1e-14)


@KINDS
def test_the_result_is_of_the_values_type(kind):
    assert reduced(kind, [naive.inputs(ROWS, rows=3)]).dtype == np.float32


def test_merging_keeps_the_shapes_and_types():
    """One compiled function serves the statistics of every chunk."""
    for kind in NUMPY:
        a, b = (kind().of(tensors(naive.inputs(ROWS, rows=n))) for n in (2, 5))
        merged = kind().merge(a, b)
        tree.assert_same_structure(merged, a)
        for one, two in zip(tree.flatten(merged), tree.flatten(a), strict=True):
            assert one.shape == two.shape
            assert one.dtype == two.dtype


@naive.few
@given(edges=st.lists(st.integers(1, 29), max_size=6), seed=st.integers(0, 2**16))
def test_each_keeps_every_pass_in_order(edges, seed):
    values = naive.inputs(ROWS, 30, seed)
    np.testing.assert_array_equal(
        reduced(Each, in_chunks(values, edges)), values.transpose(1, 0, *range(2, values.ndim))
    )


@naive.few
@given(edges=st.lists(st.integers(1, 29), max_size=6), seed=st.integers(0, 2**16))
def test_weighted_sums_scores_by_weights_and_classes(edges, seed):
    weight, score = naive.inputs((4, 5, 3), 30, seed), naive.inputs((4, 2), 30, seed + 1)
    parts = zip(in_chunks(weight, edges), in_chunks(score, edges), strict=True)
    result = reduced(Weighted, [{"weight": [w], "score": s} for w, s in parts])
    products = weight.astype(np.float64)[:, :, None] * score[..., None, None]
    naive.close(result["sum"][0], products.sum(axis=0))
    naive.close(result["weight"][0], weight.astype(np.float64).sum(axis=0))
    naive.close(result["score"], score.astype(np.float64).sum(axis=0))
    assert result["count"] == 30
