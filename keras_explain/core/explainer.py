"""`Explainer`: a frozen configuration that explains any model, and its one `__call__`."""

import abc
import contextlib
import contextvars
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, final

import keras
import numpy as np
from keras import ops, tree

from keras_explain import backend
from keras_explain.core import arrays, checks
from keras_explain.core.config import Config, deserialize, known_classes
from keras_explain.core.data import baselines, inputs
from keras_explain.core.model import finite
from keras_explain.core.model.forward import Forward
from keras_explain.core.model.opened import OpenModel
from keras_explain.core.model.probe import Probe
from keras_explain.core.model.targets import as_target
from keras_explain.core.names import nearest, snake_name
from keras_explain.core.record.explanation import Explanation
from keras_explain.core.run import attribute as in_graph
from keras_explain.core.run import chunks, stream
from keras_explain.core.run.functions import stepped
from keras_explain.core.run.plan import Pass, Plan, Share
from keras_explain.core.run.reductions import Reduction, Sum

Tensor = Any
Nest = Any


class Explainer(Config, abc.ABC):
    """A method that explains a model's score, as a frozen, keyword-only configuration.

    A subclass is a dataclass without a decorator. It defines `step`, and where it needs them
    `passes`, `reduce` and `finish`; conversion, targets, chunks, compiling and wrapping are done
    here, once.
    """

    home = "explainers"

    reduce: ClassVar[Reduction] = Sum()

    @final
    def __call__(
        self,
        model: keras.Model,
        x: Nest,
        target: Any = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool | None = None,
        data_format: Any = None,
    ) -> Explanation:
        """Explains the score of a target for each sample.

        Args:
            model: Any built Keras model. It is not changed.
            x: An array `[B, ...]`, or the nest of arrays (list, tuple, dict) that the model takes.
            target: None (the predicted class; the only output where there is one), an int, ints
                `[B]`, ints `[B, K]` (K classes a sample), or a `keras_explain.targets.Target`. The
                score of a class is its logit.
            batch_size: How many rows go through the model at once; by default what suits the
                input's size. It changes the result by float32 rounding only.
            seed: The same seed gives the same values, whatever the batch size.
            progress: Whether a bar shows how far long work has come; by default where a person
                watches, on a terminal or in a notebook.
            data_format: Where the channels of the input are: `"channels_last"`, `"channels_first"`
                or `"no_channels"` (pictures `[B, H, W]`), or a nest of these like `x`. By default
                the layers that the input meets say; where they do not, it is as Keras is
                configured.

        Returns:
            An `Explanation`.

        Raises:
            ValueError: The input, the target or the configuration does not fit the model.
        """
        _check_seed(seed)
        call = Call(self, model, x, target, data_format)
        result = call.run(batch_size, seed, progress)
        result["extras"] |= call.encoded
        if result.pop("as_it_is"):
            _warn_of_no_logit()
        good = finite.finite_rows(result)
        if not good.all() and not _IS_REHEARSAL.get():
            finite.warn(type(self).__name__, call.forward.opened, call.x, call.target, result)
        if not _IS_REHEARSAL.get():
            _warn_of_zeros(self, result["values"], good)
            _warn_of_rounding(self, result["values"], result["extras"]["reliable"], good)
            _warn_of_unsure(self, result["extras"])
        return Explanation(explainer=self, x=call.x, **result)

    @final
    @backend.as_written
    def attribute(
        self,
        model: keras.Model,
        x: Nest,
        target: Any = None,
        seed: Any = 0,
        *,
        index: Any = None,
        data_format: Any = None,
    ) -> Nest:
        """The values alone, as tensors in the user's own graph, differentiable by weights and `x`.

        For a training step, a `tf.function` or an exported signature: nothing is converted on the
        host, checked by its numbers, or warned of. Outside of a graph it is a compiled function.

        Args:
            model: Any built Keras model.
            x: The model's input, a nest of tensors or arrays `[B, ...]`.
            target: As in a call, with one class for each row; also a tensor, ints `[]` or `[B]` (-1
                is the predicted class). A graph can't raise: rows of a class that the model does
                not have are NaN there.
            index: With an object of `kx.targets`, its classes, if they are a tensor: the 0/1 labels
                of a one-unit head are `target=kx.targets.Label(), index=y`.
            seed: What is random depends on it alone. A number draws what a call draws; a tensor, of
                an int, which may be another one in each step, draws numbers of its own.
            data_format: As in a call.

        Returns:
            float32 tensors, the `values` of an `Explanation`.

        Raises:
            ValueError: A part of the method is work on the host, as of those that hide features;
                or the classes are not one for each row.
        """
        if not backend.is_tensor(seed):
            _check_seed(seed)
        tensors = in_graph.as_tensors(x)
        of = None if backend.is_tensor(target) else target
        example = x if tensors is None else in_graph.example_of(tensors)
        call = Call(self, model, example, of, data_format)
        tensors = backend.to_tensors(call.x) if tensors is None else tensors
        classes = target if index is None else index
        return in_graph.attribute(call.explainer, call.forward, tensors, classes, seed)

    @final
    def stream(
        self,
        model: keras.Model,
        batches: Any,
        target: Any = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool | None = None,
        data_format: Any = None,
    ) -> Iterator[Explanation]:
        """Explains batches one after the other, as they come; nothing of them is kept.

        All of them joined are what one call with all samples gives.

        Args:
            model: Any built Keras model.
            batches: A `tf.data.Dataset`, a `keras.utils.PyDataset` or any iterable of `x`,
                `(x, y)` or `(x, y, sample_weight)`, which are told apart as Keras does: several
                inputs are a dict, or `((a, b),)`.
            target: None, an int or a `keras_explain.targets.Target`, for all samples; `"label"`
                for the class in `y` (ints `[B]` or `[B, 1]`, one-hot or soft labels `[B, C]`); or a
                function of `y`, in NumPy, to whatever explainers take for one batch.
            batch_size: How many rows go through the model at once, as when called.
            seed: For each batch: what is random is the same for all of them.
            progress: Whether a bar shows how many samples are done, as when called.
            data_format: As when called.

        Yields:
            An `Explanation` a batch.

        Raises:
            ValueError: As when called, with a note that names the batch. There are no batches, or
                the explainer has a row (of a baseline, of label maps) for each sample.

        Example:
            ```python
            parts = kx.IntegratedGradients().stream(model, dataset, target="label")
            for i, part in enumerate(parts):
                part.save(f"part-{i}.npz")
            ```
        """

        def explain(x: Nest, of: Any) -> Explanation:
            options = {"batch_size": batch_size, "seed": seed, "data_format": data_format}
            return self(model, x, of, progress=False, **options)

        return stream.explained(explain, type(self).__name__, batches, target, progress)

    # What a method defines

    @abc.abstractmethod
    def step(self, probe: Probe, x: Nest, target: Tensor, pass_: Pass) -> Nest:
        """The method's formula for one chunk, in `keras.ops`.

        Args:
            probe: The opened model.
            x: The point to explain, `[n, ...]`: the input, or its embeddings for token ids.
            target: Ints `[n, 1]`, to be handed to the probe.
            pass_: For each name in `passes`, the chunk's share `[n, ...]`.
        """

    def passes(self, seed: int) -> dict[str, Any]:
        """Small data for each of the passes over a sample, `[passes, ...]`; none for one pass."""
        return {}

    def finish(self, probe: Probe, total: Nest, x: Nest) -> Nest:
        """The attributions, from the reduced passes and the point `x`."""
        return total

    def extras(self, total: Nest) -> dict[str, Tensor]:
        """More results a sample, such as a map at its own resolution."""
        return {}

    @property
    def plan(self) -> Plan:
        """How the method works, apart from its formula."""
        return Plan()

    def encode(self, x: Any) -> tuple[Nest, dict[str, np.ndarray]]:
        """The numbers that the model takes, of what a user passed, and extras to keep of it."""
        return x, {}

    def check(self, x: Nest) -> None:
        """Raises a `ValueError` where the configuration does not suit the input."""

    def suited(self, x: Nest) -> "Explainer":
        """The same, checked, with what is given for the inputs as one for each leaf of `x`."""
        self.check(x)
        return self

    # Inside another method

    @final
    def within(self, probe: Probe, x: Nest, target: Tensor, passes: dict[str, Tensor]) -> Nest:
        """The whole method as a step of another one, at the point `x` `[n, ...]`.

        Args:
            probe: The opened model.
            x: The point.
            target: Ints `[n, 1]`.
            passes: This method's passes for each row, `[n, passes, ...]`.

        Raises:
            ValueError: What it does on the host can't be part of a step.
        """
        if self.plan.error is not None:
            raise ValueError(
                "Expected a number of passes for an explainer that is a step of another one. "
                f"Received: {self!r}."
            )
        if self.plan.on_the_host:
            raise ValueError(
                "Expected an explainer that can be a step of another one, as those by gradients "
                f"can. Received: {type(self).__name__}, part of whose work is not in the graph. "
                "Explain with it by itself; where it has an argument `explainer`, put the other "
                "one there."
            )
        if not passes:
            return self.finish(probe, stepped(self, probe, x, target, Pass()), x)

        reduce = self.reduce.plain

        def stats_of(i: Any) -> dict[str, Any]:
            pass_ = tree.map_structure(lambda p: ops.take(p, i, axis=1), passes)
            value = stepped(self, probe, x, target, Pass(pass_))
            return reduce.of_one(value)

        leaf = tree.flatten(passes)[0]
        count = ops.shape(leaf)[1] if leaf.shape[1] is None else leaf.shape[1]
        stats = backend.reduced(stats_of, reduce.merge, count)
        return self.finish(probe, reduce.result(stats), x)


class Attribution(Explainer, abc.ABC):
    """A method that attributes the score to the input, or with `layer=` to a layer's output.

    The values have the shape of what is explained. A layer that is called more than once, or has
    several outputs, gives a list.

    Args:
        layer: The layer whose output is explained in place of the input.
        call: Which call of a layer that is called more than once, from 0 on. By default all.
    """

    layer: Any = None
    call: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.call_of(self.layer, self.call)

    @property
    def plan(self) -> Plan:
        return Plan(layer=self.layer, call=self.call)


class Call:
    """An explainer with what it is called with, converted and checked.

    Attributes:
        x: The input, a nest of arrays.
        encoded: Extras to keep of what was passed as input.
        target: What is scored.
        explainer: The explainer, with what it was given as it suits this input.
        forward: The model's scores.
    """

    def __init__(
        self, explainer: Explainer, model: keras.Model, x: Nest, target: Any, data_format: Any
    ) -> None:
        columns = arrays.names_of(x)
        x, self.encoded = (x, {}) if inputs.takes_text(model) else explainer.encode(x)
        self.x = inputs.checked(model, x, missing=explainer.plan.missing)
        self.target = as_target(target)
        converted = with_data(explainer, model, self.x, columns)
        self.explainer = converted.suited(self.x)
        plan, what = self.explainer.plan, (OpenModel.of(model), self.x, self.target)
        self.forward = Forward(*what, plan.layer, plan.call, data_format=data_format)
        _check_ids(converted, self.x, self.forward.sites.ids)

    def run(
        self,
        batch_size: int | None,
        seed: int,
        progress: bool | None = False,
        shares: list[Share] | None = None,
    ) -> dict[str, Any]:
        """As `chunks.run`; where a score is not finite, the error says where that begins."""
        try:
            return chunks.run(
                self.explainer, self.forward, self.target, batch_size, seed, progress, shares
            )
        except finite.NotFiniteError as error:
            cause = finite.cause(self.forward.opened, self.x, self.target, error.sample)
            raise ValueError(f"{error} {cause}.") from None


def get(identifier: Any) -> Explainer:
    """An explainer from its class name, its snake case, or its serialised form.

    Example:
        `kx.get("grad_cam")`, `kx.get({"class_name": "GradCAM", "config": {"layer": "conv"}})`

    Raises:
        ValueError: No explainer has the name, or it has arguments without a default.
    """
    if isinstance(identifier, Explainer):
        return identifier
    known = known_classes(Explainer)
    if isinstance(identifier, dict) and "class_name" in identifier:
        explainer = deserialize(identifier)
        if isinstance(explainer, Explainer):
            return explainer
    elif isinstance(identifier, str):
        by_name = known | {snake_name(name): cls for name, cls in known.items()}
        if identifier in by_name:
            return _without_arguments(by_name[identifier])
        raise ValueError(
            f"Expected the name of an explainer. Received: {identifier!r}. "
            f"{nearest(identifier, sorted(map(snake_name, known)))}"
        )
    raise TypeError(
        "Expected an explainer, its name or its serialised form. "
        f"Received: {identifier!r} of type {type(identifier).__name__}."
    )


def _without_arguments(cls: Any) -> Explainer:
    required = [
        field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
    ]
    if required:
        raise ValueError(
            "Expected an explainer that can be made from its name alone. "
            f"Received: {cls.__name__}, which needs {', '.join(map(repr, required))}. "
            f"Give `{cls.__name__}({', '.join(f'{name}=...' for name in required)})`."
        )
    return cls()


def with_data(
    config: Any, model: keras.Model, x: Nest, columns: tuple[str, ...] | None = None
) -> Any:
    """A configuration whose background, also of one inside it, is converted as `x` is.

    Its columns come in the order of the `columns` that `x` was given with.
    """
    if isinstance(config, tuple):
        return tuple(with_data(item, model, x, columns) for item in config)
    if not isinstance(config, Explainer):
        return config

    def converted(name: str, value: Any) -> Any:
        if name == "background" and value is not None:
            return inputs.rows_like(model, value, x, "`background`", columns)
        if name == "baseline":
            return baselines.settled(value, x, columns)
        return with_data(value, model, x, columns)

    return config.mapped(converted)


def _check_ids(explainer: Any, x: Nest, counts: list[float | None]) -> None:
    """Raises a `ValueError` where what takes the place of token ids is none."""
    while isinstance(explainer, Explainer):
        rows = checks.flat(getattr(explainer, "background", None))
        given = getattr(explainer, "baseline", None)
        parts = [] if given is None else baselines.per_input(given, x)
        numbers = [getattr(part, "values", getattr(part, "value", None)) for part in parts]
        for name, arrays_ in (("`background`", rows), ("`baseline`", numbers)):
            for array, count in zip(arrays_, counts, strict=False):
                if count is not None and isinstance(array, (np.ndarray, float, int)):
                    inputs.check_ids(np.asarray(array), count, name)
        explainer = getattr(explainer, "explainer", None)


def _check_seed(seed: Any) -> None:
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not whole or seed < 0:
        raise ValueError(
            f"Expected a whole number of 0 or more as `seed`. Received: seed={seed!r}."
        )


_IS_REHEARSAL = contextvars.ContextVar("is rehearsal", default=False)


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """In this thread, nothing is said of values that are zero, below precision or not finite."""
    before = _IS_REHEARSAL.set(True)
    try:
        yield
    finally:
        _IS_REHEARSAL.reset(before)


def _warn_of_no_logit() -> None:
    warnings.warn(
        "The model's output is explained as it is: a softmax or sigmoid leads to it, but there is "
        "no logit that stands for it, as for the mean of two probabilities there is none. Where "
        'that is meant, say so: by `keras_explain.targets.Class`, of="probability", or by '
        "`keras_explain.targets.Regression`. `keras_explain.targets.Function` takes any formula.",
        stacklevel=3,
    )


def _warn_of_rounding(
    explainer: Explainer, values: Nest, reliable: Nest, among: np.ndarray
) -> None:
    pairs = zip(tree.flatten(values), tree.flatten(reliable), strict=True)
    if any(leaf[among][~known[among]].any() for leaf, known in pairs):
        # Without numbers, as in the next one.
        warnings.warn(
            f"{type(explainer).__name__} is below float precision for some samples, which "
            '`extras["reliable"]` names: beside the size of the score, float32 does not tell their '
            "values from zero. The score hardly depends on what is explained, or is saturated, as "
            "a probability near 1 is: then explain the logit.",
            stacklevel=3,
        )


def _warn_of_unsure(explainer: Explainer, extras: dict[str, Any]) -> None:
    goal = explainer.plan.error
    if goal is None:
        return
    reliable, error = np.any(tree.flatten(extras["reliable"]), axis=0), extras["relative_error"]
    if np.any((reliable | np.isnan(error)) & ~(error <= goal)):
        warnings.warn(
            f"{type(explainer).__name__} has not reached the relative standard error that it was "
            'asked for, for some samples: `extras["relative_error"]` says what was reached. Allow '
            "a larger `error`, or more passes by `max_passes`.",
            stacklevel=3,
        )


def _warn_of_zeros(explainer: Explainer, values: Nest, among: np.ndarray) -> None:
    leaves = [leaf.reshape(len(leaf), -1) for leaf in tree.flatten(values)]
    zero = np.all([~leaf.any(axis=1) for leaf in leaves], axis=0)[among]
    if zero.any():
        # Without numbers, so that Python shows it once, and not at every epoch of a training.
        warnings.warn(
            f"{type(explainer).__name__} is zero everywhere for {'all' if zero.all() else 'some'} "
            "samples: nothing in the input, or in the layer, speaks for the score; or its gradient "
            "vanishes (dead or saturated units), the input is its own baseline, or no draw has "
            "shown what matters.",
            stacklevel=3,
        )
