"""Data as people have it: tables of mixed types, columns, sparse matrices, odd dtypes."""

import dataclasses
import datetime
import decimal
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers, ops, tree

import keras_explain as kx
from keras_explain.callbacks import samples
from keras_explain.core import arrays
from keras_explain.core.data import inputs
from keras_explain.trees import SurrogateTree
from tests import check, models
from tests.test_bad_input import complaint

ROWS = 8


def frame():
    """A table as people have it; its third row lacks nothing."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "years": rng.integers(20, 60, ROWS),
            "income": rng.normal(size=ROWS),
            "vip": rng.random(ROWS) > 0.5,
            "kids": pd.Series(rng.integers(0, 3, ROWS), dtype="Int64"),
            "member": pd.Series(rng.random(ROWS) > 0.5, dtype="boolean"),
            "score": pd.Series(list(rng.normal(size=ROWS)), dtype=object),
        }
    )


def numbers_of(table):
    return np.stack([table[c].to_numpy(dtype="float64") for c in table], axis=1).astype("float32")


def by_column(table):
    return {name: numbers_of(table)[:, [i]] for i, name in enumerate(table)}


def table_model():
    x = keras.Input((6,))
    return models.made(x, models.softmax(layers.Dense(7, activation="tanh")(x / 10)))


def column_model(shape=(1,)):
    """A model with an input for each column, numbers `[B, 1]` or `[B]`."""
    x = {name: keras.Input(shape, name=name) for name in frame()}
    h = layers.Concatenate()([layers.Reshape((1,))(column) for column in x.values()])
    return models.made(x, models.softmax(layers.Dense(7, activation="tanh")(h / 10)))


# Conversion


NUMBERS = np.array([[1.0, 2.0], [3.0, 4.0]])
ALIKE = {
    "lists": [[1, 2], [3, 4]],
    "data frame": pd.DataFrame(NUMBERS),
    "names that are there twice": pd.DataFrame(NUMBERS, columns=["a", "a"]),
    "objects": pd.DataFrame(NUMBERS, dtype=object),
    "decimals": np.array([[decimal.Decimal(1), 2], [3, decimal.Decimal(4)]], object),
    "categories that are numbers": pd.DataFrame(NUMBERS).astype("category"),
    "sparse": scipy.sparse.csr_matrix(NUMBERS),
    "sparse array": scipy.sparse.coo_array(NUMBERS),
    "sparse columns": pd.DataFrame(NUMBERS).astype(pd.SparseDtype("float")),
    "sparse tensor": tf.sparse.from_dense(NUMBERS),
    "tensor": tf.constant(NUMBERS),
    "bfloat16": tf.constant(NUMBERS, tf.bfloat16),
    "float16": NUMBERS.astype("float16"),
    "long double": NUMBERS.astype(np.longdouble),
    "variable": keras.Variable(NUMBERS),
    "variable of TensorFlow": tf.Variable(NUMBERS),
    "swapped bytes": NUMBERS.astype(">f8"),
    "matrix": NUMBERS.view(np.matrix),
    "not masked": np.ma.array(NUMBERS),
    "by columns": np.asfortranarray(NUMBERS),
}


@pytest.mark.parametrize("given", ALIKE.values(), ids=ALIKE)
def test_the_same_numbers(given):
    found = arrays.plain(given, "`x`")
    assert type(found) is np.ndarray
    assert found.dtype.isnative
    np.testing.assert_array_equal(found.astype(np.float64), NUMBERS)


@pytest.mark.parametrize(
    "given",
    [
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1.0, None], dtype="Float64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([1, None], dtype=object),
        np.array([1, pd.NA], object),
        np.ma.array([1, 2], mask=[False, True]),
        [1, None],
    ],
    ids=repr,
)
def test_what_is_missing_is_nan(given):
    np.testing.assert_array_equal(arrays.plain(given, "`x`"), [1.0, np.nan])


def test_kinds_are_kept():
    assert arrays.plain(pd.get_dummies(pd.Series(["a", "b"])), "`x`").dtype == bool
    assert arrays.plain(pd.DataFrame({"a": [1], "b": [True]}), "`x`").dtype == np.int64
    assert arrays.plain(np.array([b"a"]), "`x`").tolist() == ["a"]


def with_column(values):
    return frame().assign(other=values)


REFUSED = {
    "text": (with_column(list("abcdefgh")), ["'other'", "str", "get_dummies", "dict(df)"]),
    "category": (with_column(pd.Categorical(list("abcdabcd"))), ["'other'", "category"]),
    "date": (with_column(pd.date_range("2020", periods=ROWS)), ["'other'", "datetime64", "days"]),
    "zone": (
        with_column(pd.date_range("2020", periods=ROWS, tz="UTC")),
        ["'other'", "datetime64", "days"],
    ),
    "duration": (with_column(pd.to_timedelta(range(ROWS), "D")), ["'other'", "timedelta64"]),
    "complex": (with_column(1j), ["'other'", "complex128"]),
    "lists": (with_column([[1]] * ROWS), ["'other'", "list", "np.stack"]),
    "numbers and text": (with_column([1, "a"] * 4), ["'other'", "object"]),
    "gaps": (pd.DataFrame({"other": ["a", None]}), ["'other'", "1 of 2", "fillna"]),
    "dates of Python": (np.array([datetime.date(2020, 1, 1)], object), ["date", "days"]),
    "ragged lists": ([[1.0], [2.0, 3.0]], ["one length", "pad_sequences"]),
    "ragged tensor": (tf.ragged.constant([[1.0], [2.0, 3.0]]), ["to_tensor"]),
    "structured": (np.zeros(2, [("a", int), ("b", float)]), ["'a'", "np.stack"]),
    "symbolic": (keras.KerasTensor((2, 3)), ["KerasTensor"]),
    "object": (object(), ["object"]),
    "no columns": (pd.DataFrame(index=range(3)), ["without any"]),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted(given, words):
    with complaint(ValueError, "Expected", "`x`", "Received", *words):
        arrays.plain(given, "`x`")


# Every way that data comes in


# One of each way in which an explainer reads its data.
PAIRS = [
    *[(cls, "table") for cls in (kx.GradientSHAP, kx.DeepSHAP, kx.FeatureAblation)],
    *[(cls, "columns") for cls in (kx.GradientSHAP, kx.KernelSHAP)],
    *[(cls, "scalars") for cls in (kx.Saliency, kx.DeepSHAP, kx.Occlusion, kx.PartitionSHAP)],
]


def quick(cls, background, model, x):
    names = {field.name for field in dataclasses.fields(cls)}
    options = {name: value for name, value in check.FEW.items() if name in names}
    options |= check.ARGUMENTS.get(cls.__name__, lambda model, x: {})(model, x)
    options.pop("features", None)
    if cls is kx.KernelSHAP:
        options["samples"] = 30
    return cls(**options | ({"background": background} if "background" in names else {}))


@pytest.mark.parametrize(("cls", "kind"), PAIRS)
def test_a_data_frame_is_its_numbers(cls, kind):
    """As `x` and as a background, of a model of one table and one of columns."""
    table = frame()
    if kind == "table":
        model, x, plain = MODELS[kind], table, numbers_of(table)
    else:
        model, x = MODELS[kind], dict(table) if kind == "scalars" else table
        plain = {k: v if kind == "columns" else v[:, 0] for k, v in by_column(table).items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is zero everywhere")
        expected = quick(cls, plain, model, plain)(model, plain)
        found = quick(cls, table, model, plain)(model, x)
    check.assert_same(found, expected, exactly=True)
    tree.map_structure(np.testing.assert_array_equal, found.x, plain)


MODELS = {"table": table_model(), "columns": column_model(), "scalars": column_model(())}


def test_columns_beside_those_that_the_model_takes():
    table = with_column(list("abcdefgh"))
    explainer = kx.FeatureAblation(background=table)
    expected = kx.FeatureAblation(background=frame())(MODELS["columns"], dict(frame()))
    check.assert_same(explainer(MODELS["columns"], table), expected, exactly=True)
    with complaint(ValueError, "'other'", "columns of `x`", "`background`"):
        kx.FeatureAblation(background=table)(MODELS["table"], frame())


def test_baselines_of_a_data_frame():
    table, model = frame(), MODELS["table"]
    for given in (table.mean(numeric_only=False), 2 * table):
        plain = numbers_of(pd.DataFrame(given).T if given.ndim == 1 else given)
        expected = kx.IntegratedGradients(steps=2, baseline=plain)(model, table)
        found = kx.IntegratedGradients(steps=2, baseline=given)(model, table)
        check.assert_same(found, expected)
    rows = numbers_of(table)
    found = kx.DeepLIFT(baseline=kx.baselines.Mean(table))(model, table)
    check.assert_same(found, kx.DeepLIFT(baseline=rows.mean(0))(model, table))


def test_baselines_of_columns():
    table, model = frame(), MODELS["columns"]
    expected = kx.IntegratedGradients(
        steps=2, baseline={name: float(table[name].mean()) for name in table}
    )(model, table)
    means = {name: kx.baselines.Mean(table[name]) for name in table}
    for given in (means, dict(table.mean(numeric_only=False))):
        found = kx.IntegratedGradients(steps=2, baseline=given)(model, dict(table))
        check.assert_same(found, expected)
    found = kx.IntegratedGradients(steps=2, baseline=2 * table)(model, dict(table))
    expected = kx.IntegratedGradients(steps=2, baseline=2 * numbers_of(table))(
        MODELS["table"], table
    )
    np.testing.assert_allclose(found.values["income"][:, 0], expected.values[:, 1], rtol=1e-3)


def test_lists_of_numbers():
    model, x = models.get("tabular").model, models.numbers(5)
    check.assert_same(kx.Saliency()(model, x.tolist()), kx.Saliency()(model, x), exactly=True)
    found = kx.Saliency()(MODELS["scalars"], frame().to_dict("list"))
    check.assert_same(found, kx.Saliency()(MODELS["scalars"], dict(frame())), exactly=True)


def test_a_sparse_input_of_keras():
    x = keras.Input((5,), sparse=True)
    model = models.made(x, layers.Dense(3)(x))
    rows = scipy.sparse.coo_array(np.maximum(models.numbers(5), 0))
    expected = kx.InputXGradient()(model, rows.toarray(), 1)
    check.assert_same(kx.InputXGradient()(model, rows, 1), expected, exactly=True)


def test_a_file_in_memory_is_not_changed(tmp_path):
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", ">f4", (4, 5))
    rows[:] = models.numbers(5)
    given = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = models.get("tabular").model
    explainer = kx.GradientSHAP(background=given, samples=3)
    check.assert_same(explainer(model, given), explainer(model, np.array(given)), exactly=True)


def test_numbers_that_float32_cannot_hold():
    with complaint(ValueError, "float32", "1e+300", "`x`"):
        kx.Saliency()(models.get("tabular").model, np.full((2, 5), 1e300))
    with complaint(ValueError, "float32", "`background`"):
        kx.FeatureAblation(background=np.full((2, 5), 1e300))(
            models.get("tabular").model, models.numbers(5)
        )


def test_integers_beyond_32_bits_are_floats():
    model = models.get("tabular").model
    for number in (2**31 - 1, -(2**31)):
        assert inputs.converted(model, np.full((1, 5), number), "`x`").dtype == np.int32
    for number in (2**31, -(2**31) - 1):
        found = inputs.converted(model, np.full((1, 5), number), "`x`")
        np.testing.assert_array_equal(found, np.full((1, 5), number, np.float32))


def test_missing_numbers_are_refused_by_their_place():
    table = frame()
    table.loc[2, "kids"] = pd.NA
    for model, x in ((MODELS["table"], table), (MODELS["columns"], dict(table))):
        with complaint(ValueError, "finite", "1 of 8", "row 2"):
            kx.Saliency()(model, x)
    for explainer in (kx.FeatureAblation(background=table), kx.DeepSHAP(background=table)):
        with complaint(ValueError, "finite", "`background`", "row 2"):
            explainer(MODELS["table"], frame())


def test_a_dict_for_a_sequential():
    model, x = models.filled(keras.Sequential([keras.Input((5,)), layers.Dense(3)])), frame()
    with complaint(ValueError, "one array of shape (B, 5)", "'a'", "x['a']"):
        kx.Saliency()(model, {"a": models.numbers(5)})
    with complaint(ValueError, "one array of shape (B, 5)", "'years'", "np.stack"):
        kx.Saliency()(model, dict(x))


def test_a_baseline_by_a_name_that_is_not_known():
    explainer = kx.IntegratedGradients(baseline={"typo": 0.0})
    with complaint(ValueError, "'typo'", "without names"):
        explainer(models.get("tabular").model, models.numbers(5))
    with complaint(ValueError, "'typo'", "'years'"):
        explainer(MODELS["columns"], frame())


def test_a_callback_takes_a_data_frame():
    table = frame()
    found = samples.read(table, table["kids"], 3)
    np.testing.assert_allclose(found.x, numbers_of(table)[:3], rtol=1e-6)
    np.testing.assert_array_equal(found.labels, table["kids"][:3])
    found = samples.read(dict(table), None, 3)
    np.testing.assert_allclose(found.x["score"], numbers_of(table)[:3, 5], rtol=1e-6)
    with complaint(ValueError, "'other'", "`x`"):
        samples.read(with_column(list("abcdefgh")), None, 3)


def test_a_tree_is_fitted_on_a_data_frame():
    rows = pd.concat([frame()] * 5, ignore_index=True)
    found = SurrogateTree.fit(MODELS["table"], rows, min_samples_leaf=2, seed=1)
    expected = SurrogateTree.fit(MODELS["table"], numbers_of(rows), min_samples_leaf=2, seed=1)
    np.testing.assert_array_equal(found.threshold, expected.threshold)
    model = kx.TreeRegularization(table_model(), reference=rows, min_samples_leaf=2)
    with complaint(ValueError, "'other'", "`reference`"):
        kx.TreeRegularization(table_model(), reference=with_column(list("abcdefgh")))
    assert model.model.built


def test_a_background_of_columns_is_kept():
    explainer = kx.FeatureAblation(background=frame())
    again = kx.get({"class_name": "FeatureAblation", "config": explainer.get_config()})
    assert again == explainer
    assert explainer == kx.FeatureAblation(background=frame())
    assert explainer != kx.FeatureAblation(background=frame() * 2)


def test_a_background_inside_of_another_explainer():
    inner, table = kx.GradientSHAP(background=frame(), samples=3), frame()
    plain = kx.GradientSHAP(background=numbers_of(table), samples=3)
    found = kx.SmoothGrad(explainer=inner, samples=2)(MODELS["table"], table)
    expected = kx.SmoothGrad(explainer=plain, samples=2)(MODELS["table"], table)
    check.assert_same(found, expected, exactly=True)
    assert found.explainer.explainer == inner
    assert ops.shape(found.values) == (ROWS, 6)


# Numbers that are missing, where the model knows what to do with them


def imputing_model():
    x = keras.Input((5,))
    h = layers.Lambda(lambda x: ops.where(ops.isnan(x), 0.5, x))(x)
    return models.made(x, layers.Dense(3)(layers.Dense(4, activation="tanh")(h)))


HIDING = [
    kx.FeatureAblation(),
    kx.Occlusion(patch=1),
    kx.ExactShapley(),
    kx.KernelSHAP(),
    kx.ShapleySampling(samples=2),
]


@pytest.mark.parametrize("explainer", HIDING, ids=lambda e: type(e).__name__)
def test_a_model_that_imputes_is_explained_with_gaps(explainer):
    model, x = imputing_model(), models.numbers(5)
    x[1, 2] = x[3, 0] = np.nan
    found = explainer(model, x, 1)
    expected = explainer(model, np.where(np.isnan(x), 0.5, x).astype("float32"), 1)
    check.assert_same(found, expected)
    rows = models.numbers(5, seed=1)
    rows[0, 1] = np.nan
    filled = np.where(np.isnan(rows), 0.5, rows)
    found = explainer.replace(background=rows)(model, x, 1)
    check.assert_same(found, explainer.replace(background=filled)(model, x, 1))


def test_gaps_are_refused_where_the_model_does_not_know_them():
    x = models.numbers(5)
    x[1, 2] = np.nan
    with complaint(ValueError, "finite", "`x`", "NaN in row 1"):
        kx.FeatureAblation()(models.get("tabular").model, x)


def test_gradients_and_gaps_do_not_meet():
    x = models.numbers(5)
    x[1, 2] = np.nan
    for explainer in (kx.Saliency(), kx.InputXGradient(), kx.IntegratedGradients(), kx.RISE()):
        with complaint(ValueError, "finite", "row 1"):
            explainer(imputing_model(), x)


# Other errors of our own


def test_a_model_without_a_call():
    class Nothing(keras.Model):
        def __init__(self):
            super().__init__(name="nothing")
            self.net = models.get("tabular").model

    with complaint(ValueError, "`call`", "'nothing'", "`net`"):
        kx.Saliency()(Nothing(), models.numbers(5))


def test_a_network_in_a_loop():
    x = keras.Input((3, 8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), models.conv("conv"), layers.Flatten()])
    h = layers.Flatten()(layers.TimeDistributed(inner, name="frames")(x))
    model = models.made(x, models.softmax(h))
    with complaint(ValueError, "'frames'", "loop", "by itself"):
        kx.GradCAM()(model, models.numbers(3, 8, 8, 3))


@pytest.mark.parametrize("cls", [kx.GradientSHAP, kx.DeepSHAP])
def test_an_explainer_without_its_background(cls):
    with complaint(TypeError, "Expected 'background'", f"{cls.__name__}(background=...)"):
        cls()
    with complaint(TypeError, "Expected 'layer'", "'steps'"):
        kx.LayerConductance(steps=3)


@pytest.mark.parametrize("name", ["steps", "samples", "masks", "designs"])
def test_a_count_beyond_memory(name):
    for cls in check.explainer_classes():
        if name in {field.name for field in dataclasses.fields(cls)}:
            needed = {"background": np.ones((1, 5))} if cls is kx.GradientSHAP else {}
            needed |= {"layer": "x"} if cls.__name__ in check.LAYERS else {}
            with complaint(ValueError, f"`{name}`", "at most", str(2**40)):
                cls(**{name: 2**40} | needed)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda y: None, "NoneType"),
        (lambda y: ops.argmax(y, -1), "int"),
        (lambda y: 3.0, "float"),
        (lambda y: np.zeros(4), "ndarray"),
        (lambda y: "a", "str"),
    ],
)
def test_a_function_that_returns_no_scores(function, word):
    case = models.get("tabular")
    for explainer in (kx.Saliency(), kx.FeatureAblation()):
        with complaint(ValueError, "function", word, "keras.ops"):
            explainer(case.model, case.x, kx.targets.Function(function))


def test_ids_that_no_embedding_has():
    ids, case = 20, models.get("tokens_int")
    wrong = np.full((2, 7), ids)
    for explainer in (kx.Saliency(), kx.FeatureAblation(), kx.IntegratedGradients(steps=2)):
        with complaint(ValueError, "token ids from 0 to 19", str(ids)):
            explainer(case.model, wrong)
    for explainer in (
        kx.GradientSHAP(background=wrong, samples=2),
        kx.FeatureAblation(background=wrong),
        kx.FeatureAblation(baseline=float(ids)),
        kx.IntegratedGradients(baseline=wrong[0]),
        kx.SmoothGrad(explainer=kx.IntegratedGradients(baseline=float(ids))),
    ):
        with complaint(ValueError, "token ids from 0 to 19", str(ids)):
            explainer(case.model, case.x)


def test_ids_that_are_computed_and_no_embedding_has():
    inputs = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(4, 2)(inputs + 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    kx.Saliency()(model, np.array([[0, 1, 2]]), 0)
    with pytest.raises(ValueError, match="can be computed for these rows") as caught:
        kx.Saliency()(model, np.array([[0, 1, 3]]), 0)
    assert "is not in [0, 4)" in str(caught.value.__cause__)


def test_ids_that_only_some_embeddings_have():
    inputs = keras.Input((3,), dtype="int32")
    each = [keras.layers.Embedding(size, 2)(inputs) for size in (9, 5, 7)]
    hidden = keras.layers.Flatten()(keras.layers.Concatenate()(each))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    kx.Saliency()(model, np.array([[0, 1, 4]]), 0)
    with complaint(ValueError, "token ids from 0 to 4", "5 in row 0"):
        kx.Saliency()(model, np.array([[0, 1, 5]]), 0)


def test_numbers_of_which_a_table_makes_ids():
    inputs = keras.Input((3,), dtype="int64")
    ids = keras.layers.IntegerLookup(vocabulary=[100, 200, 300])(inputs)
    hidden = keras.layers.Flatten()(keras.layers.Embedding(4, 2)(ids))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    assert kx.Saliency()(model, np.array([[100, 300, 900]]), 0).values.shape == (1, 3)


def test_ids_that_are_counted_from_the_last():
    case = models.get("tokens_int")
    last = np.stack([np.arange(13, 20)] * 2)
    expected = kx.FeatureAblation()(case.model, last, 0).values
    np.testing.assert_array_equal(kx.FeatureAblation()(case.model, last - 20, 0).values, expected)
    with complaint(ValueError, "token ids from 0 to 19", "-21 in row 1"):
        kx.FeatureAblation()(case.model, np.array([[0] * 7, [-21] * 7]))


def test_an_explanation_is_an_array_of_its_values():
    case = models.get("tabular")
    explanation = kx.Saliency()(case.model, case.x)
    np.testing.assert_array_equal(np.asarray(explanation), explanation.values)
    assert np.asarray(explanation, "float64").dtype == np.float64
    several = models.get("inputs_dict")
    with complaint(TypeError, "one input", "'a'", "'b'"):
        np.asarray(kx.Saliency()(several.model, several.x))


def test_class_names_as_one_string():
    case = models.get("sequential")
    explanation = kx.Saliency()(case.model, case.x)
    with complaint(TypeError, "`class_names`", "'cats'"):
        explanation.plot(class_names="cats")
    with complaint(ValueError, "`class_names`", "'cats'"):
        kx.callbacks.ExplanationLogger(kx.Saliency(), case.x, class_names="cats")


@pytest.mark.parametrize(
    "explainer",
    [
        kx.DeepTaylor(high=np.ones((9, 9))),
        kx.IntegratedGradients(baseline=kx.baselines.Constant("a")),
        kx.IntegratedGradients(baseline=kx.baselines.Given([1, 2])),
        kx.IntegratedGradients(baseline=kx.baselines.Blur("a")),
        kx.IntegratedGradients(baseline=kx.baselines.Blur(axes=3)),
        kx.IntegratedGradients(baseline=kx.baselines.Noise(seed=-1)),
    ],
    ids=repr,
)
def test_bounds_and_baselines_that_cannot_be(explainer):
    case = models.get("sequential")
    with complaint((TypeError, ValueError), "Expected", "Received"):
        explainer(case.model, case.x)


@pytest.mark.parametrize("mask", ["a", np.full((8, 8), 0.5), [["a"]], {}])
def test_a_region_that_is_no_mask(mask):
    with complaint(ValueError, "Expected", "mask", "Received"):
        kx.targets.Region(1, mask=mask)


def test_what_is_no_function_or_no_names():
    case = models.get("sequential")
    explanation = kx.Saliency()(case.model, case.x)
    with complaint(TypeError, "`to_image`", "3"):
        explanation.plot(to_image=3)
    with complaint(TypeError, "`class_names`", "5"):
        explanation.plot(class_names=5)


def test_shares_that_are_no_numbers():
    for cls, name in (
        (kx.RISE, "keep"),
        (kx.GuidedIG, "fraction"),
        (kx.ExtremalPerturbation, "area"),
    ):
        for value in (None, "a", (2, 2)):
            with complaint(ValueError, f"`{name}`", repr(value)):
                cls(**{name: value})


# Tables, lists and names that could be taken for others


def shuffled():
    return frame()[["vip", "score", "years", "member", "kids", "income"]]


AGAINST = {
    "background": lambda table: kx.KernelSHAP(background=table),
    "inside": lambda table: kx.SmoothGrad(explainer=kx.GradientSHAP(background=table, samples=2)),
    "mean": lambda table: kx.IntegratedGradients(baseline=kx.baselines.Mean(table)),
    "rows": lambda table: kx.DeepLIFT(baseline=table.assign(income=9.0)),
}


@pytest.mark.parametrize("make", AGAINST.values(), ids=AGAINST)
def test_columns_are_found_by_their_names(make):
    model, table = table_model(), frame()
    expected = make(table)(model, table, 1)
    check.assert_same(make(shuffled())(model, table, 1), expected, exactly=True)
    with complaint(ValueError, "columns of `x`", "'years'", "'age'"):
        make(table.rename(columns={"years": "age"}))(model, table, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda parts: kx.KernelSHAP(background=parts),
        lambda parts: kx.DeepSHAP(background=parts),
        lambda parts: kx.IntegratedGradients(baseline=parts),
        lambda parts: kx.FeatureAblation(features=[kx.features.Columns()] * len(parts)),
    ],
)
def test_several_inputs_by_name_take_no_list(make):
    model, x = column_model(), by_column(frame())
    with complaint(ValueError, "by name", "'years'", "Received: a "):
        make(list(x.values()))(model, x, 1)


def test_the_mean_of_data_with_gaps_says_where_they_are():
    rows = np.ones((5, 3), "float32")
    rows[3, 1] = np.nan
    with complaint(ValueError, "baseline data", "1 of 5 rows, the first at row 3"):
        kx.baselines.Mean(rows)


def test_what_the_fuzz_found():
    table = models.get("tabular")
    with complaint(ValueError, "clustering", "<U"):
        kx.PartitionSHAP(clustering="a")(table.model, table.x)
    bounds = kx.DeepTaylor(low=(np.full(5, -4.0),), high=(np.full(5, 4.0),))
    one = kx.DeepTaylor(low=-4.0, high=4.0)(table.model, table.x)
    check.assert_same(bounds(table.model, table.x), one)
    picture = np.full((1, 8, 8, 3), np.nan, "float32")
    with complaint(ValueError, "pictures without NaN", "Patches(8)"):
        kx.features.Segments().numbered(picture)
