"""Compiled functions: kept in the model, bounded, forgotten when it is rebuilt, gone with it."""

import copy
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_explain as kx
from keras_explain.core.model import opened as opened_models
from tests import check, models

SIGNED = kx.Saliency(absolute=False)


def small():
    """A model of its own, of two Dense layers on five numbers."""
    x = keras.Input((5,))
    h = layers.Dense(7, activation="tanh", name="hidden")(x)
    return models.made(x, layers.Dense(3, activation="softmax", name="head")(h))


X = models.numbers(5)


def opened(model):
    return model.__dict__["__kx__"]


def assert_like_fresh(model, make, explainer=SIGNED, target=1):
    """Asserts that a model is explained as one that `make` makes, with the same weights."""
    other = make()
    other.set_weights(model.get_weights())
    received, expected = explainer(model, X, target), explainer(other, X, target)
    check.assert_same(received, expected)
    return received


def traces_of(function):
    """How often layers ran in Python while a function ran: 0 where all was compiled before."""
    try:
        with check.nothing_traced():
            function()
    except AssertionError:
        return True
    return False


# Kept with the model


def test_the_cache_is_the_model_s_own():
    model = small()
    SIGNED(model, X)
    assert opened(model).model is model
    assert "__kx__" not in model.get_config()
    assert not any("__kx__" in str(path) for path in vars(model._tracker))
    other = copy.copy(model)
    SIGNED(other, X)
    assert opened(other) is not opened(model)


def test_an_inner_model_has_a_cache_of_its_own():
    case = models.fresh("nested")
    inner = case.model.get_layer("backbone")
    SIGNED(case.model, case.x)
    kx.GradCAM()(inner, case.x, kx.targets.Neuron("conv_last", 1))
    assert opened(inner).model is inner
    assert not traces_of(lambda: SIGNED(case.model, case.x))


def test_another_signature_is_another_function():
    model = small()
    SIGNED(model, X)
    before = len(opened(model)._functions)
    SIGNED(model, X.astype("int32"))
    assert len(opened(model)._functions) > before
    assert not traces_of(lambda: SIGNED(model, X))


# Bounded


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(opened_models, "CACHED_FUNCTIONS", 3)
    model = small()
    for power in range(5):
        SIGNED(model, X, kx.targets.Function(lambda y, p=power: y[:, 0] ** p + y[:, 1]))
        assert len(opened(model)._functions) <= 3


def test_the_least_recently_used_function_makes_room(monkeypatch):
    model = small()
    kx.Saliency()(model, X)
    monkeypatch.setattr(opened_models, "CACHED_FUNCTIONS", len(opened(model)._functions) + 1)
    kx.InputXGradient()(model, X)
    kx.Saliency()(model, X)
    SIGNED(model, X)  # makes room
    assert not traces_of(lambda: kx.Saliency()(model, X))
    assert not traces_of(lambda: SIGNED(model, X))
    assert traces_of(lambda: kx.InputXGradient()(model, X))


@pytest.mark.parametrize("bound", [1, 2])
def test_a_cache_that_is_too_small_costs_time_only(bound, monkeypatch):
    explainer = kx.IntegratedGradients(steps=3)
    expected = explainer(small(), X, 1)
    monkeypatch.setattr(opened_models, "CACHED_FUNCTIONS", bound)
    model = small()
    for _ in range(2):
        check.assert_same(explainer(model, X, 1), expected)
    assert len(opened(model)._functions) <= bound


def test_functions_that_made_room_are_freed(monkeypatch):
    monkeypatch.setattr(opened_models, "CACHED_FUNCTIONS", 1)
    model = small()
    kx.Saliency()(model, X)
    (function,) = opened(model)._functions.values()
    reference = weakref.ref(function)
    del function
    kx.InputXGradient()(model, X)
    gc.collect()
    assert reference() is None


# Forgotten when the model is another one


def with_hidden(activation):
    def make():
        model = small()
        model.get_layer("hidden").activation = activation
        return model

    return make


def test_a_replaced_activation_changes_the_result():
    model = small()
    before = SIGNED(model, X, 1)
    for activation in (keras.activations.linear, keras.activations.relu):
        model.get_layer("hidden").activation = activation
        after = assert_like_fresh(model, with_hidden(activation))
        assert check.distance(after.values, before.values) > 1e-2


def test_a_replaced_last_activation_changes_the_result():
    model, target = small(), kx.targets.Regression(1)
    before = SIGNED(model, X, target)
    model.layers[-1].activation = keras.activations.linear
    after = SIGNED(model, X, target)
    np.testing.assert_allclose(after.scores, model(X)[:, 1], rtol=1e-4)
    assert check.distance(after.values, before.values) > 1e-1


def test_an_activation_at_the_place_of_a_freed_one():
    """Python gives a freed object's id to the next one."""
    model = small()
    hidden = model.get_layer("hidden")
    hidden.activation = lambda h: 2 * h
    identity = id(hidden.activation)
    SIGNED(model, X, 1)
    hidden.activation = keras.activations.linear
    kept = []
    for _ in range(10_000):
        candidate = _threefold()
        if id(candidate) == identity:
            break
        kept.append(candidate)
    hidden.activation = candidate
    explanation = SIGNED(model, X, 1)
    del kept
    other = small()
    other.get_layer("hidden").activation = keras.activations.linear
    kernel, bias, *rest = other.get_weights()
    other.set_weights([3 * kernel, 3 * bias, *rest])
    check.assert_same(explanation, SIGNED(other, X, 1))


def _threefold():
    return lambda h: 3 * h


def test_a_layer_that_was_added_or_removed():
    def stack(*more):
        return lambda: keras.Sequential([keras.Input((5,)), layers.Dense(3), *more])

    model = models.filled(stack()())
    plain = assert_like_fresh(model, stack())
    model.add(layers.Dense(4, activation="tanh"))
    models.filled(model)
    deeper = assert_like_fresh(model, stack(layers.Dense(4, activation="tanh")))
    assert check.distance(deeper.values, plain.values) > 1e-2
    assert deeper.scores.shape == plain.scores.shape
    model.pop()
    check.assert_same(assert_like_fresh(model, stack()), SIGNED(model, X, 1))


def test_lora():
    """Two more weights in a Dense layer, enabled after the model was explained."""
    model = small()
    before = SIGNED(model, X, 1)
    head = model.get_layer("head")
    head.enable_lora(rank=2)
    check.assert_same(SIGNED(model, X, 1), before)  # the second one begins at zero
    head.lora_kernel_b.assign(ops.ones_like(head.lora_kernel_b))
    after = SIGNED(model, X, 1)
    assert check.distance(after.values, before.values) > 1e-2
    merged = small()
    merged.set_weights(
        [*small().get_weights()[:2], ops.convert_to_numpy(head.kernel), small().get_weights()[3]]
    )
    check.assert_same(after, SIGNED(merged, X, 1))


def test_quantization():
    model = small()
    before = SIGNED(model, X, 1)
    for layer in model.layers[1:]:
        layer.quantize("int8")
    after = SIGNED(model, X, 1)
    difference = check.distance(after.values, before.values)
    assert 1e-5 < difference < 0.1
    fresh = small()
    for layer in fresh.layers[1:]:
        layer.quantize("int8")
    check.assert_same(after, SIGNED(fresh, X, 1))


def test_what_was_compiled_for_the_model_before_is_freed():
    model = small()
    SIGNED(model, X)
    reference = weakref.ref(opened(model))
    model.get_layer("hidden").activation = keras.activations.relu
    SIGNED(model, X)
    gc.collect()
    assert reference() is None


# Kept when nothing of that changed


def test_training_keeps_what_is_compiled():
    model = small()
    model.compile("adam", "sparse_categorical_crossentropy")
    SIGNED(model, X, 1)
    model.fit(X, np.arange(4) % 3, verbose=0)
    assert not traces_of(lambda: SIGNED(model, X, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.layers[1], "trainable", False),
        lambda model: model.compile("sgd", "mse"),
        lambda model: model.set_weights([2 * w for w in model.get_weights()]),
        lambda model: model.predict(X, verbose=0),
        lambda model: model.summary(print_fn=lambda *args, **kwargs: None),
    ],
    ids=["freeze", "compile", "set_weights", "predict", "summary"],
)
def test_what_does_not_change_the_computation_keeps_what_is_compiled(change):
    model = small()
    SIGNED(model, X, 1)
    change(model)
    assert not traces_of(lambda: SIGNED(model, X, 1))


def test_many_calls_compile_nothing_more():
    model = small()
    explainer = kx.IntegratedGradients(steps=3)
    explainer(model, X)
    functions = list(opened(model)._functions.values())
    for i in range(20):
        explainer(model, X + i, i % 3, batch_size=1 + i % 4, seed=i)
    assert set(map(id, opened(model)._functions.values())) == set(map(id, functions))


# Live weights, and the end of a model


@pytest.mark.parametrize(
    "kind",
    [
        "nested",
        "subclassed",
        "fixed_batch",
        "tf_function",
        "inputs_dict",
        "tokens_int",
        "mixed_bfloat16",
        "quantized",
    ],
)
def test_values_are_those_of_a_fresh_model_with_the_weights(kind):
    case, other = models.get(kind), models.fresh(kind)
    explainer = kx.IntegratedGradients(steps=3)
    explainer(case.model, case.x)
    with check.other_weights(case.model), check.other_weights(other.model):
        received, expected = explainer(case.model, case.x), explainer(other.model, case.x)
    check.assert_same(received, expected)


def test_values_follow_a_step_of_fit():
    case, other = models.fresh("dropout_batchnorm"), models.fresh("dropout_batchnorm")
    case.model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    explainer = kx.IntegratedGradients(steps=3)
    before = explainer(case.model, case.x)
    case.model.fit(case.x, np.arange(models.ROWS), verbose=0)
    optimizer = [ops.convert_to_numpy(variable) for variable in case.model.optimizer.variables]
    with check.nothing_traced():
        received = explainer(case.model, case.x)
    other.model.set_weights(case.model.get_weights())
    check.assert_same(received, explainer(other.model, case.x))
    assert check.distance(received.values, before.values) > 1e-2
    for variable, value in zip(case.model.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.fixture
def is_collected():
    """A function that takes a list with nothing but a model, and tells whether it can be freed."""
    gc.freeze()  # what is here already need not be searched

    def is_collected(models):
        reference = weakref.ref(models.pop())
        gc.collect()
        return reference() is None

    return is_collected


@pytest.mark.parametrize("cls", check.each_class())
def test_an_explained_model_is_collected(cls, is_collected):
    case = models.fresh("nested")
    explanation = check.explainer_for(cls, case.x, case.model)(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)
    assert explanation.values.any()


@pytest.mark.parametrize("kind", ["subclassed", "tf_function", "inputs_dict", "attention"])
def test_an_explained_model_of_another_kind_is_collected(kind, is_collected):
    case = models.fresh(kind)
    kx.Saliency()(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)


def test_a_model_that_failed_to_be_explained_is_collected(is_collected):
    case = models.fresh("functional")
    with pytest.raises(ValueError, match="conv_a"):
        kx.GradCAM(layer="conv_aa")(case.model, case.x)
    alone = [case.model]
    del case
    assert is_collected(alone)


def test_a_model_that_is_held_is_not_collected(is_collected):
    case = models.fresh("tabular")
    assert not is_collected([case.model])


# Copies of explained models


def _saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def _cloned(model, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


COPIES = {
    "save": _saved,
    "clone_model": _cloned,
    "copy": lambda model, folder: copy.copy(model),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", ["nested_twice", "inputs_dict"])
def test_an_explained_model_can_be_copied(kind, how, tmp_path):
    case = models.get(kind)
    expected = kx.Saliency()(case.model, case.x, case.target)
    other = COPIES[how](case.model, tmp_path)
    check.assert_same(kx.Saliency()(other, case.x, case.target), expected)
    with check.nothing_traced():
        check.assert_same(kx.Saliency()(case.model, case.x, case.target), expected, exactly=True)


def test_an_explained_model_can_be_exported(tmp_path):
    case = models.get("sequential")
    kx.Saliency()(case.model, case.x)
    case.model.export(tmp_path, verbose=False)
    served = layers.TFSMLayer(tmp_path, call_endpoint="serve")(case.x)
    np.testing.assert_allclose(served, case.model(case.x), atol=1e-6)
