"""What every explainer keeps on any model: `check_explainer`.

A new explainer class comes under it by being exported. The tables below say of the classes what
can't be seen from outside.
"""

import contextlib
import dataclasses
import inspect
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops, tree
from keras.src.random.seed_generator import global_seed_generator

import keras_explain as kx
from keras_explain import backend
from keras_explain.core.model.finite import MAY_BE_UNKNOWN

# The classes that hide features: values have the shape of each input without channels.
HIDING = {
    *("FeatureAblation", "Occlusion", "RISE", "LIME", "KernelSHAP", "ShapleySampling"),
    *("ExactShapley", "PartitionSHAP", "SobolAttribution", "HSICAttribution"),
    *("MeaningfulPerturbation", "ExtremalPerturbation"),
}


def coarse(x: Any, cells: int = 2) -> Any:
    """A few features of each input; padding is no mask, without which averages are not defined."""
    by_rank = {2: kx.features.Columns(), 3: kx.features.Windows(2 if cells == 2 else 1)}

    def of(leaf: Any) -> kx.features.Features:
        if np.issubdtype(leaf.dtype, np.integer) and leaf.ndim == 2:
            return kx.features.Tokens(mask=3)
        return by_rank.get(leaf.ndim, kx.features.Grid(cells))

    return tree.map_structure(of, x)


# Of a class that needs arguments, or is quick with them: these, for a model (or None) and `x`.
ARGUMENTS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    **{
        name: lambda model, x: {"features": coarse(x)}
        for name in (
            *("FeatureAblation", "LIME", "ExactShapley"),
            *("PartitionSHAP", "SobolAttribution", "HSICAttribution"),
        )
    },
    # Where no more than two features act together, all orders and their reverse agree.
    "ShapleySampling": lambda model, x: {"features": coarse(x, cells=8)},
    "KernelSHAP": lambda model, x: {"features": coarse(x), "samples": None},
    "RISE": lambda model, x: {"features": _tokens_alone(x)},
    "DeepSHAP": lambda model, x: {"background": tree.map_structure(lambda leaf: leaf[:3], x)},
    "GradientSHAP": lambda model, x: {"background": tree.map_structure(lambda leaf: leaf[:3], x)},
    "InternalInfluence": lambda model, x: {"layer": middle_layer(model, x)},
    "LayerConductance": lambda model, x: {"layer": middle_layer(model, x)},
    "XRAI": lambda model, x: {"explainer": [kx.IntegratedGradients(steps=2), kx.Saliency()]},
}


def _tokens_alone(x: Any) -> Any:
    """Coarse features where there are token ids, which RISE has no grid for."""
    found = coarse(x)
    return found if isinstance(found, kx.features.Tokens) else None


# Fields that are set wherever a class has them: few passes are enough here.
FEW = {"samples": 3, "steps": 3, "masks": 12, "designs": 4}
# The classes whose values depend on `seed`.
RANDOM = {
    *("GradientSHAP", "SmoothGrad", "SquareGrad", "VarGrad"),
    *("RISE", "LIME", "ShapleySampling", "SobolAttribution", "HSICAttribution"),
}
# The classes whose values are one map `[B, H, W]` over the input, and not of its shape.
MAPS = {
    *("CAM", "EigenCAM", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM"),
    *("AblationCAM", "ScoreCAM", "XRAI"),
}
# The classes whose values do not depend on the target.
CLASSLESS = {"EigenCAM"}
# The classes whose values have the shape of the output of their `layer`.
LAYERS = {"InternalInfluence", "LayerConductance"}
# One class of each sort, for what does not depend on a method's own formula.
QUICK = (
    *("Saliency", "IntegratedGradients", "GradCAM", "EigenCAM", "Deconvnet", "DeepLIFT", "LRP"),
    *("ScoreCAM", "LayerConductance", "KernelSHAP", "Occlusion", "MeaningfulPerturbation"),
)
# The extras that are numbers of something.
COUNTS = {"segments", "features", "passes", "solver"}
# What a class can't explain, and words of the error that says so.
REFUSED = {(name, "tabular"): "layer whose output has a spatial extent" for name in MAPS}
REFUSED |= {
    ("CAM", kind): "linear in the global average of layer"
    for kind in (
        *("subclassed", "fixed_batch", "uint8", "inputs_dict", "series", "tokens_int"),
        *("mixed_bfloat16", "called_twice", "volume"),
    )
}
REFUSED[("GuidedGradCAM", "tabular")] = "layer whose output has a spatial extent"
REFUSED |= {("BlurIG", kind): "inputs with spatial axes" for kind in ("tabular", "tokens_int")}
REFUSED |= {
    ("XRAI", kind): "one input of pictures"
    for kind in ("tabular", "tokens_int", "series", "inputs_dict", "volume")
}


def explainer_classes() -> list[type[kx.Explainer]]:
    """The public classes."""
    exported = (getattr(kx, name) for name in kx.__all__)
    found = (e for e in exported if inspect.isclass(e) and issubclass(e, kx.Explainer))
    return [cls for cls in found if not inspect.isabstract(cls)]


def first_of(cases: Iterable[Any], quick: int) -> list[Any]:
    """Cases as parameters of a test, of which all but the first few run in CI alone."""

    def slow(case: Any) -> Any:
        return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)

    return [case if i < quick else slow(case) for i, case in enumerate(cases)]


def each_class(*but: str) -> list[Any]:
    """The public classes as parameters of a test; those that are not in `QUICK` run in CI alone."""
    return [
        pytest.param(cls, id=cls.__name__, marks=[] if cls.__name__ in QUICK else pytest.mark.slow)
        for cls in explainer_classes()
        if cls.__name__ not in but
    ]


def explainer_for(
    cls: type[kx.Explainer], x: Any, model: keras.Model | None = None
) -> kx.Explainer:
    """An explainer of the class that suits the model and its input, and is quick."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {name: value for name, value in FEW.items() if name in fields}
    arguments |= ARGUMENTS.get(cls.__name__, lambda model, x: {})(model, x)
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    missing = set(required) - arguments.keys()
    assert not missing, f"Add {cls.__name__} to ARGUMENTS in tests/check.py, with {missing}."
    return cls(**arguments)


def check_explainer(
    explainer: kx.Explainer, model: keras.Model, x: Any, target: Any = None
) -> None:
    """Asserts the contract of one explainer on one model.

    Args:
        explainer: The explainer.
        model: The model; left as it was.
        x: At least 3 rows for it.
        target: A `Target` without an index, where the model has several outputs.
    """
    target = kx.targets.Class() if target is None else target
    outputs, shapes = outputs_of(model, x), layer_shapes(explainer, model, x)
    given, before = tree.map_structure(np.copy, x), state_of(model)
    call = Call(explainer, model, x, target)

    with same_random_state():
        first = call()
    check_record(first, x, shapes)
    assert_states_equal(state_of(model), before)
    with nothing_traced():
        check_seeds(call, first)
        check_batches(call, first)
        check_classes(call, first, outputs)
        check_live_weights(call, first)
    assert_states_equal(state_of(model), before)
    tree.map_structure(np.testing.assert_array_equal, x, given)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of an explainer, to be repeated with some things changed."""

    explainer: kx.Explainer
    model: keras.Model
    x: Any
    target: kx.targets.Target

    def __call__(self, index: Any = None, *, rows: slice = slice(None), **options: Any) -> Any:
        x = tree.map_structure(lambda leaf: leaf[rows], self.x)
        target = self.target.replace(index=index)
        with warnings.catch_warnings():  # a map may be zero: Grad-CAM's, of another class
            warnings.filterwarnings("ignore", ".* is zero everywhere")
            warnings.filterwarnings("ignore", "Expected a layer that all paths")  # two branches
            warnings.filterwarnings("ignore", ".* has NaN or infinite values")  # it is asserted
            return self.explainer(self.model, x, target, **options)


# The parts of the contract


def check_record(explanation: kx.Explanation, x: Any, at_layer: list[tuple[int, ...]]) -> None:
    """Shapes, dtypes, and numbers that are finite and not all zero."""
    leaves, rows = tree.flatten(x), len(tree.flatten(x)[0])
    values = tree.flatten(explanation.values)
    if type(explanation.explainer).__name__ in MAPS:
        assert len(values) == 1, "Expected one map."
        sizes = [leaf.shape[: max(2, leaf.ndim - 1)] for leaf in leaves]
        assert values[0].shape in sizes, f"Expected a map of the input's size, one of {sizes}."
    elif type(explanation.explainer).__name__ in HIDING:
        tree.assert_same_structure(explanation.values, x)
        sizes = [leaf.shape[: max(2, leaf.ndim - 1)] for leaf in leaves]
        assert [value.shape for value in values] == sizes
    elif type(explanation.explainer).__name__ in LAYERS:
        assert [value.shape for value in values] == [(rows, *shape) for shape in at_layer]
    else:
        tree.assert_same_structure(explanation.values, x)
        shapes = [value.shape for value in values]
        expected = [leaf.shape for leaf in leaves]
        assert shapes == expected, "Is it a map? Then add its class to MAPS in tests/check.py."
    tree.assert_same_structure(explanation.x, x)
    extras = dict(explanation.extras)
    check_reliable(values, tree.flatten(extras.pop("reliable")), rows)
    floats = [extra for name, extra in extras.items() if name not in COUNTS]
    assert all(array.dtype == np.float32 for array in [*values, *tree.flatten(floats)])
    known = [extra for name, extra in extras.items() if name not in MAY_BE_UNKNOWN]
    assert all(np.isfinite(array).all() for array in tree.flatten(known))
    for array in [*values, explanation.scores, *tree.flatten(extras)]:
        assert array.dtype in (np.float32, np.int32)
        assert len(array) == rows
    assert all(np.isfinite(array).all() for array in [*values, explanation.scores])
    assert any(value.any() for value in values)
    assert explanation.scores.shape == (rows,)
    assert explanation.scores.dtype == np.float32
    assert np.shape(explanation.target.index) == (rows,)
    assert len(explanation) == rows


def check_reliable(values: list[np.ndarray], reliable: list[np.ndarray], rows: int) -> None:
    """No map of a healthy model is taken for rounding; one that is zero says nothing."""
    for leaf, known in zip(values, reliable, strict=True):
        assert known.dtype == bool
        np.testing.assert_array_equal(known, leaf.reshape(rows, -1).any(axis=1))


def check_seeds(call: Call, first: kx.Explanation) -> None:
    """Another seed gives other values if, and only if, the method is random."""
    difference = distance(call(seed=1).values, first.values)
    if type(call.explainer).__name__ in RANDOM:
        assert difference > 1e-3
    else:
        hint = "Does it draw at random? Then add its class to RANDOM in tests/check.py."
        assert difference == 0, hint


def check_batches(call: Call, first: kx.Explanation) -> None:
    """A row is explained alike alone, in a batch, and whatever `batch_size` is."""
    assert_same(call(batch_size=3), first)
    parts = [call(rows=slice(1, 2)), call(rows=slice(1, 3), batch_size=1)]
    assert_same(kx.Explanation.join(parts), first[[1, 1, 2]])


def check_classes(call: Call, first: kx.Explanation, outputs: dict[Any, np.ndarray]) -> None:
    """The prediction is explained by default; several classes as one call each would."""
    output = outputs[getattr(call.target, "output", None)]
    index, count = first.target.index, output.shape[-1]
    if isinstance(call.target, kx.targets.Class):
        np.testing.assert_array_equal(index, output.argmax(axis=-1))
    assert_same(call(index), first)
    other = (np.asarray(index) + 1) % count
    together, alone = call(np.stack([other, index], axis=1)), call(other)
    assert_same(column(together, 0), alone)
    assert_same(column(together, 1), first)
    np.testing.assert_array_equal(together.target.index, np.stack([other, index], axis=1))
    if type(call.explainer).__name__ in CLASSLESS:
        assert distance(alone.values, first.values) < 2e-5
    elif count > 1:
        assert distance(alone.values, first.values) > 1e-3


def check_live_weights(call: Call, first: kx.Explanation) -> None:
    """Weights are read when explaining, not when tracing; equal ones give equal values."""
    with other_weights(call.model):
        assert distance(call(first.target.index).values, first.values) > 1e-3
    assert_same(call(), first, exactly=True)


# Explanations compared


def distance(a: Any, b: Any) -> float:
    """The largest difference between two nests, as a share of the largest number in `b`."""
    a, b = tree.flatten(a), tree.flatten(b)
    scale = max(np.abs(leaf).max(initial=0) for leaf in b) or 1.0
    return float(max(np.abs(p - q).max() for p, q in zip(a, b, strict=True)) / scale)


def assert_same(
    received: kx.Explanation, expected: kx.Explanation, *, exactly: bool = False
) -> None:
    """Asserts equal values, scores and extras, to float32 rounding."""
    limit = 0 if exactly else 2e-5
    assert received.extras.keys() == expected.extras.keys()
    for name in ("values", "scores"):
        assert distance(getattr(received, name), getattr(expected, name)) <= limit, name
    for name, nest in received.extras.items():  # small differences of large numbers among them
        for extra, other in zip(
            tree.flatten(nest), tree.flatten(expected.extras[name]), strict=True
        ):
            unknown = np.isnan(other) if name in MAY_BE_UNKNOWN else np.zeros(other.shape, bool)
            assert (np.isnan(extra) == unknown).all(), name
            scale = np.abs(expected.scores).max() + np.abs(other).max(where=~unknown, initial=0)
            apart = extra.astype("float32") - other
            assert np.abs(apart).max(where=~unknown, initial=0) <= limit * scale, name


def column(explanation: kx.Explanation, k: int) -> kx.Explanation:
    """Of K classes explained at once, one."""
    values, scores, extras = tree.map_structure(
        lambda leaf: leaf[:, k], (explanation.values, explanation.scores, explanation.extras)
    )
    return dataclasses.replace(explanation, values=values, scores=scores, extras=extras)


# Models observed


def outputs_of(model: keras.Model, x: Any) -> dict[Any, np.ndarray]:
    """The model's outputs by name, computed without this package; None: the first one."""
    rows = len(tree.flatten(x)[0])
    size = (tree.flatten(getattr(model, "inputs", None) or [x])[0].shape[0]) or rows
    positions = np.minimum(np.arange(-(-rows // size) * size), rows - 1).reshape(-1, size)
    parts = [
        model(
            tree.map_structure(lambda leaf, p=p: ops.convert_to_tensor(leaf[p]), x), training=False
        )
        for p in positions
    ]
    whole = tree.map_structure(
        lambda *leaves: ops.convert_to_numpy(ops.cast(ops.concatenate(leaves), "float32"))[:rows],
        *parts,
    )
    names = model.output_names if hasattr(model, "output_names") else [0]
    named = whole if isinstance(whole, dict) else dict(zip(names, tree.flatten(whole), strict=True))
    return named | {None: next(iter(named.values()))}


def calls_of(model: keras.Model, x: Any) -> list[tuple[keras.Layer, Any]]:
    """The calls of a model's layers with their outputs for 3 rows, seen without this package."""
    calls, call = [], keras.Layer.__call__

    def noting(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        output = call(layer, *args, **kwargs)
        calls.append((layer, output))
        return output

    with mock.patch.object(keras.Layer, "__call__", noting):
        outputs_of(model, tree.map_structure(lambda leaf: leaf[:3], x))
    return [(layer, output) for layer, output in calls if layer is not model]


def middle_layer(model: keras.Model | None, x: Any) -> str:
    """The name of a layer halfway through a model, whose output is numbers."""
    if model is None:
        return "layer"
    names = [layer.name for layer, output in calls_of(model, x) if _is_numbers(layer, output)]
    return names[(len(names) - 1) // 2]


def _is_numbers(layer: keras.Layer, output: Any) -> bool:
    one = not isinstance(layer, keras.Model) and ops.is_tensor(output)
    return one and keras.backend.is_float_dtype(output.dtype)


def layer_shapes(explainer: kx.Explainer, model: keras.Model, x: Any) -> list[tuple[int, ...]]:
    """The shapes of a row of the outputs of each call of the layer whose shape values have."""
    if type(explainer).__name__ not in LAYERS:
        return []
    calls = calls_of(model, x)
    return [output.shape[1:] for layer, output in calls if layer.name == explainer.layer]


# What is compiled for a model, and Keras's note that a layer was called.
UNOBSERVED = ("__kx__", "_called")


def state_of(model: keras.Model) -> list[Any]:
    """All that a model and its layers consist of."""
    layers = model._flatten_layers()
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    return [
        *({k: v for k, v in vars(layer).items() if k not in UNOBSERVED} for layer in layers),
        *({id(loss): loss for loss in layer._losses} for layer in layers),
        *({"policy": layer.dtype_policy.name, "call": layer.call} for layer in layers),
        *({"value": ops.convert_to_numpy(variable)} for variable in variables),
    ]


def assert_states_equal(after: list[Any], before: list[Any]) -> None:
    assert len(after) == len(before)
    for new, old in zip(after, before, strict=True):
        assert new.keys() == old.keys()
        for name, value in old.items():
            equal = np.array_equal if isinstance(value, np.ndarray) else _is_same
            assert equal(new[name], value), f"{name} is {new[name]!r}, and was {value!r}."


def _is_same(a: Any, b: Any) -> bool:
    return a is b or (inspect.ismethod(b) and a == b) or (isinstance(b, str) and a == b)


@contextlib.contextmanager
def other_weights(model: keras.Model) -> Iterator[None]:
    """Changes the weights, and puts them back."""
    weights = [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]
    before = [weight.numpy() for weight in weights]
    for weight, old in zip(weights, before, strict=True):
        weight.assign(1.2 * old + 0.01)
    try:
        yield
    finally:
        for weight, old in zip(weights, before, strict=True):
            weight.assign(old)


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Asserts that what runs inside draws from none of the global generators."""

    def seeded() -> Any:
        keras.utils.set_random_seed(1)
        return global_seed_generator().state

    def draws() -> list[float]:
        return [random.random(), np.random.random(), float(tf.random.normal(()))]  # noqa: NPY002

    global_seed_generator()  # where there is none yet, making it draws a number from Python
    seeded()
    expected, of_keras = draws(), seeded()
    before = ops.convert_to_numpy(of_keras)
    yield
    assert draws() == expected
    assert global_seed_generator().state is of_keras
    np.testing.assert_array_equal(ops.convert_to_numpy(of_keras), before)


@contextlib.contextmanager
def nothing_traced() -> Iterator[None]:
    """Asserts that what runs inside compiles nothing, and calls no layer in Python."""
    calls = []

    def noted(function: Callable) -> Callable:
        def noting(*args: Any, **kwargs: Any) -> Any:
            calls.append(args[0])
            return function(*args, **kwargs)

        return noting

    with (
        mock.patch.object(keras.Layer, "__call__", noted(keras.Layer.__call__)),
        mock.patch.object(backend, "compile", noted(backend.compile)),
    ):
        yield
    assert calls == []
