"""Every mistake has a message of its own: what was expected, what was received, what to do."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from tests import models

ROWS = models.ROWS


@contextlib.contextmanager
def complaint(error, *words):
    """Asserts an error whose message has these words."""
    with pytest.raises(error) as raised:
        yield
    message = str(raised.value)
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} are not in: {message}"


def explain(kind, explainer=None, x=None, target=None, **options):
    case = models.get(kind)
    explainer = kx.Saliency() if explainer is None else explainer
    return explainer(case.model, case.x if x is None else x, target, **options)


# Layers


def test_an_unknown_layer_with_a_name_near_it():
    with complaint(ValueError, "'conv_c'", "Did you mean", "'conv_a'", "'conv_b'"):
        explain("functional", kx.GradCAM(layer="conv_c"))


def test_an_unknown_layer_with_no_name_near_it():
    names = [layer.name for layer in models.get("functional").model.layers]
    with complaint(ValueError, "'zzz'", *map(repr, names)):
        explain("functional", kx.GradCAM(layer="zzz"))


def test_an_unknown_path_into_a_nested_model():
    with complaint(ValueError, "'backbone/conv_lst'", "'backbone/conv_last'"):
        explain("nested", kx.GradCAM(layer="backbone/conv_lst"))


def test_an_unknown_layer_of_a_neuron():
    with complaint(ValueError, "'backbone/conv_lost'", "'backbone/conv_last'"):
        explain("nested", target=kx.targets.Neuron("backbone/conv_lost", 0))


def twins():
    """Two nested models that have a layer of the same name."""
    x = keras.Input(models.PICTURE)
    h = x
    for name in ("first", "second"):
        inside = keras.Input(models.PICTURE)
        out = layers.Conv2D(3, 3, padding="same", name="conv")(inside)
        h = keras.Model(inside, out, name=name)(h)
    return models.made(x, models.softmax(models.quarters(h)))


def test_a_layer_name_that_two_paths_end_in():
    model, x = twins(), models.numbers(*models.PICTURE)
    with complaint(ValueError, "'conv'", "'first/conv'", "'second/conv'"):
        kx.GradCAM(layer="conv")(model, x)
    assert kx.GradCAM(layer="first/conv")(model, x).values.any()


def test_a_layer_that_takes_no_part():
    class Idle(models.Subclassed):
        def __init__(self):
            super().__init__()
            self.idle = layers.Dense(2, name="idle")
            self.idle.build((None, 3))

    model, x = Idle(), models.numbers(*models.PICTURE)
    model(x)
    with complaint(ValueError, "'idle'", "no part"):
        kx.GradCAM(layer="idle")(model, x)


@pytest.mark.parametrize("layer", ["head", "flatten"])
def test_a_layer_without_spatial_extent(layer):
    x = keras.Input(models.PICTURE)
    h = layers.Flatten(name="flatten")(models.conv("conv")(x))
    model = models.made(x, models.softmax(h))
    with complaint(ValueError, f"'{layer}'", "spatial extent", "(None, ", "'conv'"):
        kx.GradCAM(layer=layer)(model, models.numbers(*models.PICTURE))


def test_a_model_without_any_spatial_layer():
    with complaint(ValueError, "spatial extent", "'model'"):
        explain("tabular", kx.GradCAM())


# Gradients that are cut off


@keras.saving.register_keras_serializable("tests")
class _Rounded(layers.Layer):
    def call(self, x):
        return ops.round(x)


CUTS = {
    "round": lambda name: layers.Lambda(ops.round, name=name),
    "argmax": lambda name: layers.Lambda(
        lambda h: ops.cast(ops.argmax(h, axis=-1)[..., None], "float32"), name=name
    ),
    "cast": lambda name: layers.Lambda(
        lambda h: ops.cast(ops.cast(h, "int32"), "float32"), name=name
    ),
    "stop_gradient": lambda name: layers.Lambda(ops.stop_gradient, name=name),
    "compare": lambda name: layers.Lambda(lambda h: ops.cast(h > 0, "float32"), name=name),
    "layer": lambda name: _Rounded(name=name),
}


def cut(make):
    """A CNN with a cut between its convolutions."""
    x = keras.Input(models.PICTURE)
    h = make("scissors")(models.conv("before", activation=None)(x))
    model = models.made(x, models.softmax(models.quarters(models.conv("after")(h))))
    head = model.get_layer("head").kernel
    head.assign(ops.abs(head))  # so that the map of the layer after the cut is not zero
    return model


@pytest.mark.parametrize("make", CUTS.values(), ids=CUTS)
def test_a_map_whose_gradient_is_cut_off(make):
    model, x = cut(make), models.numbers(*models.PICTURE)
    with complaint(ValueError, "gradient", "'before'", "cut off", "'scissors'"):
        kx.GradCAM(layer="before")(model, x)
    assert kx.GradCAM(layer="after")(model, x).values.any()


@pytest.mark.parametrize("make", CUTS.values(), ids=CUTS)
def test_an_input_whose_gradient_is_cut_off(make):
    with complaint(ValueError, "gradient", "input", "cut off", "'scissors'"):
        kx.Saliency()(cut(make), models.numbers(*models.PICTURE))


def test_a_cut_inside_a_nested_model():
    inside = keras.Input(models.PICTURE)
    inner = keras.Model(inside, _Rounded(name="scissors")(inside), name="inner")
    x = keras.Input(models.PICTURE)
    model = models.made(x, models.softmax(models.quarters(inner(x))))
    with complaint(ValueError, "'inner/scissors'"):
        kx.IntegratedGradients()(model, models.numbers(*models.PICTURE))


def test_one_of_two_inputs_that_is_cut_off():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    h = layers.Concatenate()([a, _Rounded(name="scissors")(b)])
    model = models.made({"a": a, "b": b}, layers.Dense(2)(h))
    with complaint(ValueError, "'b'", "'scissors'"):
        kx.Saliency()(model, {"a": models.numbers(3), "b": models.numbers(3)})


def test_a_score_that_does_not_depend_on_the_layer():
    x = keras.Input(models.PICTURE)
    h, other = models.conv("used")(x), models.conv("other")(x)
    y = {"a": models.softmax(models.quarters(h)), "b": models.quarters(other)}
    model = models.made(x, y)
    with complaint(ValueError, "depends on", "'other'"):
        kx.GradCAM(layer="other")(
            model, models.numbers(*models.PICTURE), kx.targets.Class(0, output="a")
        )


# Targets


def test_a_target_out_of_range():
    for target in (4, [0, 1, 2, 4], kx.targets.Class(4, of="probability")):
        for explainer in (kx.Saliency(), kx.IntegratedGradients(steps=2)):
            with complaint(ValueError, "target", "4"):
                explain("tabular", explainer, target=target)


def test_a_label_as_target_of_a_one_unit_head():
    with complaint(ValueError, "1", "Label"):
        explain("tokens_int", target=[0, 1, 1, 0])


def test_a_label_out_of_range():
    with complaint(ValueError, "2"):
        explain("tokens_int", target=kx.targets.Label([0, 1, 2, 0]))


def test_a_channel_out_of_range():
    with complaint(ValueError, "4"):
        explain("sequential", target=kx.targets.Neuron("conv", 4))


@pytest.mark.parametrize("target", [-1, [0, 1, -2, 0], kx.targets.Label(-1)])
def test_a_negative_target(target):
    with complaint(ValueError, "target", "-", "None"):
        explain("tabular", target=target)


LARGE = {
    "wraps_to_1": 2**32 + 1,
    "wraps_to_0": np.uint64(2**63),
    "wraps_to_predicted": np.uint32(2**32 - 1),
    "wraps_below_0": 2**31,
    "array": np.array([1, 0, 2**32, 1]),
    "unsigned": np.array([1, 0, 2**32 - 1, 1], "uint32"),
    "several": np.array([[1, 2**32 + 1]] * ROWS),
    "wider_than_numpy": 2**70,
    "listed": [1, 0, 2**63, 1],
}


@pytest.mark.parametrize("index", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("of", [kx.targets.Class, kx.targets.Label, kx.targets.Regression])
def test_a_target_that_would_wrap(index, of):
    for explainer in (kx.Saliency(), kx.FeatureAblation()):
        with complaint(ValueError, "class index"):
            explain("tabular", explainer, target=of(index))


def test_a_channel_or_region_that_would_wrap():
    with complaint(ValueError, "class index", str(2**32 + 1)):
        explain("sequential", target=kx.targets.Neuron("conv", 2**32 + 1))
    with complaint(ValueError, "class index", str(2**32 - 1)):
        explain("segmentation", target=kx.targets.Region(np.uint32(2**32 - 1)))


@pytest.mark.parametrize(
    "target", [[True, 2, 0, 1], [[0], [1, 2]], np.array([1, 0, 2, 1], object), ["1", "0", "2", "1"]]
)
def test_a_list_that_is_no_index(target):
    for of in (kx.targets.Class, kx.targets.Label):
        with complaint(ValueError, "class index", "dtype"):
            explain("tabular", target=of(target))


@pytest.mark.parametrize("unit", [3, (), (0, 1.0, 2), (0, True, 2), (0, "1", 2), [[0, 1, 2]]])
def test_a_unit_that_is_no_position(unit):
    with pytest.raises(ValueError, match=r"class index|position of a unit"):
        kx.targets.Neuron("conv", unit=unit)


def test_a_unit_that_would_wrap():
    with complaint(ValueError, "position of a unit", str(2**32)):
        explain("sequential", target=kx.targets.Neuron("conv", unit=(2**32, 0, 0)))


@pytest.mark.parametrize("target", [[1, 2], np.zeros((3, 2), int), np.zeros((4, 1, 1), int)])
def test_a_wrong_number_of_targets(target):
    with complaint(ValueError, f"[{ROWS}]", f"[{ROWS}, K]", str(np.shape(target))):
        explain("tabular", target=target)


@pytest.mark.parametrize("target", [[], np.zeros((4, 0), int)])
def test_no_targets(target):
    with complaint(ValueError, "target", str(np.shape(target))):
        explain("tabular", target=np.asarray(target, int))


@pytest.mark.parametrize("target", [[1.0, 2.0, 3.0, 0.0], np.eye(4), np.array(True)])
def test_a_target_that_is_no_index(target):
    with complaint(ValueError, "int", "argmax", np.asarray(target).dtype.name):
        explain("tabular", target=target)


@pytest.mark.parametrize("target", ["cat", 1.5, {"kind": 1}])
def test_a_target_of_another_type(target):
    with complaint(TypeError, "target", repr(target)):
        explain("tabular", target=target)


def test_a_class_of_something_else_than_logit_or_probability():
    with complaint(ValueError, "'logit'", "'probability'", "'score'"):
        kx.targets.Class(0, of="score")


def test_an_output_that_is_not_named():
    with complaint(ValueError, "'kind'", "'size'", "output="):
        explain("outputs_dict")
    with complaint(ValueError, "'head'", "'size'"):
        explain("outputs_list", target=2)


@pytest.mark.parametrize(("output", "words"), [("kinds", ["'kind'"]), ("z", ["'kind'", "'size'"])])
def test_an_unknown_output(output, words):
    with complaint(ValueError, repr(output), *words):
        explain("outputs_dict", target=kx.targets.Class(0, output=output))


def test_an_output_by_a_position_that_there_is_not():
    with complaint(ValueError, "2", "0", "1"):
        explain("outputs_list", target=kx.targets.Class(0, output=2))


def test_a_region_of_a_classifier():
    with complaint(ValueError, "segmentation", "(None, 4)"):
        explain("sequential", target=kx.targets.Region(1))


def test_a_class_of_a_segmentation():
    for target in (None, 1, kx.targets.Label(1)):
        with complaint(ValueError, "(None, 8, 8, 4)", "Region"):
            explain("segmentation", target=target)


def test_a_mask_of_another_shape():
    with complaint(ValueError, "(8, 8)", "(4, 4)"):
        explain("segmentation", target=kx.targets.Region(1, mask=np.ones((4, 4), bool)))


def test_a_neuron_without_channel_or_unit():
    with complaint(ValueError, "channel", "unit"):
        kx.targets.Neuron("conv")


@pytest.mark.parametrize("unit", [(8, 0, 0), (0, 0), (0, -1, 0)])
def test_a_unit_outside_of_the_layer(unit):
    with complaint(ValueError, "(8, 8, 4)", str(unit), "'conv'"):
        explain("sequential", target=kx.targets.Neuron("conv", unit=unit))


def test_a_function_that_returns_another_shape():
    with complaint(ValueError, "[B]", "(None, 4)"):
        explain("tabular", target=kx.targets.Function(lambda y: y))
    with complaint(ValueError, "[B]", "()"):
        explain("tabular", target=kx.targets.Function(lambda y: ops.sum(y)))


def test_a_function_that_is_none():
    with complaint(TypeError, "function", "3"):
        kx.targets.Function(3)


# Inputs


def test_a_single_picture():
    with complaint(ValueError, "(B, 8, 8, 3)", "(8, 8, 3)", "x[None]"):
        explain("sequential", x=models.numbers(*models.PICTURE)[0])


def test_a_missing_channel_axis():
    x = keras.Input((8, 8, 1))
    model = models.made(x, models.softmax(models.quarters(models.conv("conv")(x))))
    with complaint(ValueError, "(B, 8, 8, 1)", "(4, 8, 8)", "x[..., None]"):
        kx.Saliency()(model, models.numbers(8, 8))


def test_a_picture_of_another_size():
    with complaint(ValueError, "(B, 8, 8, 3)", "(4, 9, 8, 3)"):
        explain("sequential", x=models.numbers(9, 8, 3))


def test_a_number_as_input():
    with complaint(ValueError, "[B, ...]"):
        explain("tabular", x=1.0)


def test_lists_of_numbers_as_input():
    with complaint(ValueError, "array", "np.asarray"):  # it may take a list of inputs
        explain("subclassed", x=[[1.0, 2.0, 3.0, 4.0, 5.0]])


def test_a_wrong_number_of_inputs():
    picture = models.numbers(*models.PICTURE)
    for x in (picture, [picture], [picture] * 3):
        with complaint(ValueError, "2", "(None, 8, 8, 3)", str(len(x) if x is not picture else 1)):
            explain("inputs_list", x=x)


def test_a_dict_with_other_names():
    picture = models.numbers(*models.PICTURE)
    with complaint(ValueError, "'a'", "'b'", "'c'"):
        explain("inputs_dict", x={"a": picture, "c": picture})
    with complaint(ValueError, "'a'", "'b'"):
        explain("inputs_dict", x={"a": picture})


def test_inputs_of_different_length():
    a = models.numbers(*models.PICTURE)
    with complaint(ValueError, "rows", "(4, 8, 8, 3)", "(3, 8, 8, 3)"):
        explain("inputs_list", x=[a, a[:3]])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite(number):
    x = models.numbers(5)
    x[2, 3] = number
    with complaint(ValueError, "finite", "1 of 4", "row 2"):
        explain("tabular", x=x)


def test_an_empty_batch():
    with complaint(ValueError, "at least one", "(0, 5)"):
        explain("tabular", x=np.zeros((0, 5), "float32"))


def test_text_as_input():
    with complaint(ValueError, "numbers", "<U3"):
        explain("tokens_int", x=np.array(["the", "cat", "sat", "mat"]))


@pytest.mark.parametrize(
    ("x", "word"),
    [
        (np.zeros((ROWS, 5), "datetime64[D]"), "datetime64"),
        (np.zeros((ROWS, 5), "timedelta64[D]"), "timedelta64"),
        (np.array([[np.datetime64("2020", "s")] * 5] * ROWS, object), "datetime64"),
        (np.ones((ROWS, 5), "complex64"), "complex64"),
        (np.array([[2j] * 5] * ROWS, object), "complex"),
    ],
    ids=["dates", "durations", "date_objects", "complex", "complex_objects"],
)
def test_what_numpy_would_make_numbers_of(x, word):
    with complaint(ValueError, "real numbers", word):
        explain("tabular", x=x)


@pytest.mark.parametrize("kind", ["tokens_float", "tokens_int", "mixed_inputs", "attention"])
def test_token_ids_that_are_no_whole_numbers(kind):
    x = models.get(kind).x
    ids = (x["text"] if isinstance(x, dict) else x).astype("float32")
    ids[1, 0] = 2.5
    for explainer in (kx.Saliency(), kx.FeatureAblation()):
        with complaint(ValueError, "whole numbers", "2.5", "row 1"):
            explain(kind, explainer, x=x | {"text": ids} if isinstance(x, dict) else ids)


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: kx.KernelSHAP(background=rows),
        lambda rows: kx.GradientSHAP(background=rows),
        lambda rows: kx.IntegratedGradients(baseline=rows),
        lambda rows: kx.DeepLIFT(baseline=kx.baselines.Given(rows[0])),
    ],
)
def test_token_ids_that_take_the_place_of_others_are_whole(make):
    case = models.get("tokens_int")
    rows = case.x.astype("float32")
    rows[0, 1] += 0.5
    with complaint(ValueError, "whole numbers as token ids in `ba", ".5 in row"):
        make(rows)(case.model, case.x)


def test_numbers_that_become_token_ids_need_not_be_whole():
    x = keras.Input((3,))
    h = layers.Embedding(9, 4)(layers.Discretization([-0.5, 0.5, 1.5])(x))
    model = models.made(x, models.softmax(layers.Flatten()(h)))
    x = np.array([[-1.2, 1.7, -2.3], [1.2, -1.7, 2.4]], "float32")  # each in another bin than 0
    assert kx.FeatureAblation()(model, x).values.all()


# Models


def test_a_model_that_was_never_built():
    model = keras.Sequential([layers.Dense(3)], name="young")
    with complaint(ValueError, "built", "'young'", "build(input_shape)"):
        kx.Saliency()(model, models.numbers(5))


def test_a_subclassed_model_that_was_never_called():
    with complaint(ValueError, "built", "'subclassed'"):
        kx.Saliency()(models.Subclassed(), models.numbers(*models.PICTURE))


@pytest.mark.parametrize("model", ["model.keras", layers.Dense(3), lambda x: x, None])
def test_something_else_than_a_model(model):
    with complaint(TypeError, "keras.Model", type(model).__name__):
        kx.Saliency()(model, models.numbers(5))


# Configurations


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (8, 8, 3), (0, 8, 8, 3), (3, 4, 8, 3)])
def test_a_background_of_another_shape(shape):
    with complaint(ValueError, "background", "(N, 8, 8, 3)", str(shape)):
        explain("sequential", kx.GradientSHAP(background=np.zeros(shape, "float32")))


def test_backgrounds_of_different_length():
    x = models.get("inputs_list").x
    with complaint(ValueError, "background", "(3, 8, 8, 3)", "(2, 8, 8, 3)"):
        explain("inputs_list", kx.GradientSHAP(background=[x[0][:3], x[1][:2]]))


def test_a_background_for_one_of_two_inputs():
    x = models.get("inputs_list").x
    with complaint(ValueError, "background", "(N, 8, 8, 3)"):
        explain("inputs_list", kx.GradientSHAP(background=x[0]))


def test_a_background_that_is_not_finite():
    background = np.full((2, 5), np.nan, "float32")
    with complaint(ValueError, "background", "finite"):
        explain("tabular", kx.GradientSHAP(background=background, samples=2))


def test_a_baseline_that_is_not_finite():
    for baseline in (np.nan, np.full(5, np.inf, "float32")):
        with complaint(ValueError, "baseline", "finite"):
            explain("tabular", kx.IntegratedGradients(baseline=baseline))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (3, 8, 8, 3), (5,)])
def test_a_baseline_of_another_shape(shape):
    with complaint(ValueError, "baseline", "(8, 8, 3)", str(shape)):
        explain("sequential", kx.IntegratedGradients(baseline=np.zeros(shape, "float32")))


def test_a_baseline_of_another_type():
    with complaint(TypeError, "baseline", "'black'"):
        explain("sequential", kx.IntegratedGradients(baseline="black"))


def test_a_wrong_number_of_baselines():
    with complaint(ValueError, "2 inputs", "3"):
        explain("inputs_list", kx.IntegratedGradients(baseline=[0.0, 0.0, 1.0]))


def test_a_mean_of_data_of_another_shape():
    baseline = kx.baselines.Mean(np.ones((9, 4), "float32"))
    with complaint(ValueError, "(N, 5)", "(4,)"):
        explain("tabular", kx.IntegratedGradients(baseline=baseline))


def test_a_blur_of_a_table():
    with complaint(ValueError, "spatial", "(4, 5)"):
        explain("tabular", kx.IntegratedGradients(baseline=kx.baselines.Blur()))


def test_a_blur_of_no_width():
    with complaint(ValueError, "sigma", "0"):
        explain("sequential", kx.IntegratedGradients(baseline=kx.baselines.Blur(0.0)))


@pytest.mark.parametrize("steps", [0, -1, 2.5, "many"])
def test_steps_that_are_no_count(steps):
    with complaint(ValueError, "step", str(steps)):
        kx.IntegratedGradients(steps=steps)


NOISY = [kx.SmoothGrad, kx.SquareGrad, kx.VarGrad]


def shap(**options):
    return kx.GradientSHAP(background=np.zeros((2, 5)), **options)


@pytest.mark.parametrize("samples", [0, -3, 1.5])
@pytest.mark.parametrize("make", [*NOISY, shap])
def test_samples_that_are_no_count(make, samples):
    with complaint(ValueError, "sample", str(samples)):
        make(samples=samples)


@pytest.mark.parametrize("noise", [-0.1, np.nan])
@pytest.mark.parametrize("make", [*NOISY, shap])
def test_negative_noise(make, noise):
    with complaint(ValueError, "noise", str(noise)):
        make(noise=noise)


def test_an_unknown_explainer():
    with complaint(ValueError, "'grad_cm'", "Did you mean", "'grad_cam'"):
        kx.get("grad_cm")
    with complaint(ValueError, "'zzz'", "'grad_cam'", "'saliency'", "'integrated_gradients'"):
        kx.get("zzz")
    with complaint(ValueError, "'salience'", "'saliency'"):
        kx.SmoothGrad(explainer="salience")


def test_an_explainer_that_needs_an_argument():
    with complaint((TypeError, ValueError), "'background'"):
        kx.get("gradient_shap")


@pytest.mark.parametrize("identifier", [3, None, kx.GradCAM, {"config": {}}])
def test_something_else_than_an_explainer(identifier):
    with complaint(TypeError, "explainer", repr(identifier)):
        kx.get(identifier)


def test_a_description_of_an_unknown_class():
    with complaint(ValueError, "'GradCan'"):
        kx.get({"class_name": "GradCan", "config": {}})


def test_a_description_of_something_else_than_an_explainer():
    with complaint((TypeError, ValueError), "explainer"):
        kx.get({"class_name": "Zeros", "config": {}})


def test_positional_arguments():
    with complaint(TypeError, "positional"):
        kx.Saliency(True)
    with complaint(TypeError, "positional"):
        kx.IntegratedGradients(50)
    with complaint(TypeError, "positional"):
        kx.Saliency()(models.get("tabular").model, models.numbers(5), 0, 8)


def test_unknown_arguments():
    with complaint(TypeError, "layr"):
        kx.GradCAM(layr="conv")


def test_the_abstract_class():
    with complaint(TypeError, "abstract"):
        kx.Explainer()


# The call


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"])
def test_a_batch_size_that_is_no_count(size):
    with complaint(ValueError, "batch_size", str(size)):
        explain("tabular", batch_size=size)


@pytest.mark.parametrize("explainer", [kx.Saliency(), kx.SmoothGrad(samples=2)], ids=repr)
@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_seed_that_is_no_count(explainer, seed):
    with complaint((TypeError, ValueError), "seed", str(seed)):
        explain("tabular", explainer, seed=seed)


# Gradients of zero: no error, but a warning


def test_zero_everywhere_is_warned_of():
    x = keras.Input((5,))
    model = models.made(x, layers.Dense(3)(layers.ReLU()(layers.Dense(4)(x) * 0 - 1)))
    with pytest.warns(UserWarning, match="Saliency is zero everywhere"):
        values = kx.Saliency()(model, models.numbers(5)).values
    assert not values.any()
