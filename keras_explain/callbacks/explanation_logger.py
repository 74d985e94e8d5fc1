"""The callback that explains a fixed set of samples while a model trains."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeGuard

import keras
import numpy as np

from keras_explain.callbacks import checks, naming, predictions, progress, samples, scalars
from keras_explain.callbacks.pictures import Pictures
from keras_explain.callbacks.steps import Steps
from keras_explain.core.explainer import rehearsal
from keras_explain.core.record.explanation import Explanation
from keras_explain.plots import render
from keras_explain.sinks import Record, Sink, TensorBoard, maps


@dataclasses.dataclass
class _Run:
    """What is known during one `fit`."""

    shown: Pictures
    rehearsing: bool = True
    begun: bool = False  # whether its first epoch has
    step: int = 0
    ranks: dict[str, scalars.Maps] = dataclasses.field(default_factory=dict)
    latest: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


class ExplanationLogger(keras.callbacks.Callback):
    """Explains the same samples again and again while the model trains.

    One callback serves every explainer. Per explainer and sample, TensorBoard's Images tab shows
    the input and the map over it, and there are scalars that say how good and how stable the maps
    are. The scalars are put into `logs` as `explain/<explainer>/<scalar>`, so callbacks placed
    after this one can monitor them, and `History` has them.

    | scalar             | what                                                               |
    |--------------------|--------------------------------------------------------------------|
    | `completeness_gap` | sum of abs(convergence delta) / sum of abs(score - baseline score) |
    | `relative_error`   | mean of norm of standard error / norm of values                    |
    | `value_error`      | mean of the estimated error of an integral's values, relative      |
    | `drift`            | mean of 1 - rank correlation with the maps of the step before      |
    | `concentration`    | mean Gini coefficient of abs(map)                                  |
    | `score`            | mean score of the explained class                                  |
    | `scale`            | the limit of the colours, the same for all samples                 |
    | a metric's name    | mean of what the metric returns                                    |

    `completeness_gap` is there for explainers that have a convergence delta, `relative_error` for
    those that draw samples, `value_error` for Integrated Gradients, `drift` from the second
    explained step on.

    All explainers are run once when training starts: that compiles them, and brings a mistake in
    the configuration to light as an error, whatever `on_error` says. Neither the model nor any
    random state is changed.

    A copy, by `copy.deepcopy` (as KerasTuner makes one for each trial) or `pickle`, has seen no
    training, and logs to `<log_dir>/copy_1/explain`, or the next number that is free.

    Args:
        explainers: One explainer, a list, or a dict of name -> explainer. Names as strings, such
            as `"grad_cam"`, work. In a list, an explainer's name in the log is its class name in
            snake case, and a second one of the same class gets `_2`.
        x: The samples: an array `[B, ...]`, the nest that the model takes, or batches of
            `x`, `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, any iterable. The first `max_samples` are taken, once.
        y: Their classes: ints `[B]` or `[B, 1]`, or one-hot or soft labels `[B, C]`. `None` takes
            the `y` of the batches, where they hold classes.
        log_dir: The directory that TensorBoard is started on; events go to `<log_dir>/explain`.
        target: What is explained: `None` (the label where there are labels, else the predicted
            class), `"label"`, `"predicted"`, or anything that an explainer takes.
        update_freq: `"epoch"`, or an int `N` for every `N` batches. The step is the epoch, or the
            number of batches that this object has seen; it never falls from one `fit` to the next,
            and goes on where a training is resumed.
        metrics: Functions or objects called as
            `metric(model, x, target, explainer, explanation=explanation)` that return one number
            per sample, `[B]`.
        sinks: Where the results go, as a list of `keras_explain.sinks.Sink`; `None` is
            `[TensorBoard(log_dir)]`, and `[]` leaves the scalars in `logs` alone.
        class_names: A name per class, for descriptions and tables: a list, or a dict by number.
        feature_names: Names of the columns of a table, or of the channels of a series.
        vocabulary: The word of each token id, as a sequence, a mapping or a function; `None` takes
            that of an explainer's `features=Tokens(...)`.
        max_samples: How many samples to explain at most.
        to_image: A function from inputs to pictures `[B, H, W, C]` or `[B, H, W]`, in [0, 1] or
            [0, 255]; `None` guesses the range of inputs `[B, H, W, C]`. With it, inputs of any rank
            are shown as pictures.
        batch_size: How many rows go through the model at once.
        data_format: Where the channels of the inputs are, as an explainer takes it; by default the
            model's layers say.
        seed: Seed of explainers that draw random numbers: the same at every step.
        on_error: What happens when something fails while the model trains. `"warn"` says so once
            for each thing that fails, and goes on with the rest; `"raise"` stops. All failures are
            kept in `failures`.

    Attributes:
        failures: What has failed in this training: name -> a list of `(step, message)`, with an
            entry for each record that was not written.

    Example:

    ```python
    model.fit(x, y, epochs=10, callbacks=[
        kx.callbacks.ExplanationLogger(["grad_cam", kx.Saliency()], x_val, y_val, log_dir="logs"),
        keras.callbacks.EarlyStopping("explain/grad_cam/drift", mode="min", start_from_epoch=1),
    ])
    ```
    """

    def __init__(
        self,
        explainers: Any,
        x: Any,
        y: Any = None,
        *,
        log_dir: str | os.PathLike[str] = "logs",
        target: Any = None,
        update_freq: Literal["epoch"] | int = "epoch",
        metrics: Sequence[Callable[..., Any]] = (),
        sinks: Sequence[Sink] | None = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        feature_names: Sequence[str] | None = None,
        vocabulary: Sequence[str] | Mapping[int, str] | Callable[[int], str] | None = None,
        max_samples: int = 8,
        to_image: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        data_format: Any = None,
        seed: int = 0,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__()
        checks.options(update_freq, max_samples, on_error)
        self.explainers = naming.named_explainers(explainers)
        self.metrics = naming.named_metrics(metrics)
        self.samples = samples.read(x, y, max_samples, need_labels=checks.is_label(target))
        self.target = checks.target(target, self.samples)
        self.update_freq = update_freq
        self.sinks = [TensorBoard(log_dir)] if sinks is None else checks.sinks(sinks)
        self.class_names = naming.class_names(class_names)
        self.feature_names = None if feature_names is None else tuple(map(str, feature_names))
        self.vocabulary = naming.vocabulary(vocabulary, self.explainers.values())
        self.to_image, self.data_format = to_image, data_format
        self.batch_size, self.seed, self.on_error = batch_size, seed, on_error
        self.failures: dict[str, list[tuple[int, str]]] = {}
        self._steps = Steps()
        self._ranks: dict[str, scalars.Maps] = {}  # of the latest maps of this model
        self._run: _Run

    def __getstate__(self) -> dict[str, Any]:
        """What a copy begins with: it has no model, and has seen no training."""
        kept = {key: value for key, value in self.__dict__.items() if key != "_run"}
        return kept | {
            "_model": None,
            "params": None,
            "failures": {},
            "_steps": Steps(),
            "_ranks": {},
        }

    def set_model(self, model: keras.Model) -> None:
        """Maps of one model are not compared with those of another."""
        if model is not self.model:
            self._ranks = {}
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the sinks, and explains once without logging it. Every error is raised."""
        shown = Pictures(self.samples.x, self.to_image)
        self._run = _Run(shown)
        # An untrained model's maps may be zero; what is not finite is said at the first step.
        with contextlib.ExitStack() as opened, rehearsal():
            for sink in self.sinks:
                self._tell(sink, sink.open, list(self.explainers))
                opened.callback(sink.close)
            self._explain(step=0)
            opened.pop_all()
        self._run = _Run(shown, rehearsing=False, ranks=self._ranks)
        self.failures = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Goes on with the batches of a training that was stopped."""
        counted = self._run.begun or self._steps.resume(epoch, self._batches)
        self._run.begun = True
        if isinstance(self.update_freq, int) and not counted:
            _warn(
                f"training goes on at epoch {epoch}, but how many batches an epoch has is not "
                "known, so steps are counted from 0, and take the place of those logged before. "
                "Give `fit` `steps_per_epoch=`, or this training a `log_dir` of its own."
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins to count: one compiled execution may run several batches."""
        self._steps.begin(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains every so many batches."""
        if isinstance(self.update_freq, int):
            step = self._steps.end(batch, self._batches, self.update_freq)
            if step is not None:
                self._explain(step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Explains, unless batches are counted, and adds the latest scalars to `logs`."""
        if self.update_freq == "epoch":
            self._explain(self._steps.of_epoch(epoch))
        if logs is not None:
            for name, values in self._run.latest.items():
                logs.update({f"explain/{name}/{key}": value for key, value in values.items()})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the sinks, and sums up what has failed more than once."""
        with contextlib.ExitStack() as closing:
            for sink in self.sinks:
                closing.callback(self._tell, sink, sink.close)
        for what, failures in self.failures.items():
            if len(failures) > 1:
                step, message = failures[-1]
                _warn(f"{what} failed {len(failures)} times, lastly at step {step}: {message}")

    @property
    def _batches(self) -> int | None:
        """How many batches an epoch has, where Keras knows it."""
        batches: int | None = (self.params or {}).get("steps")
        return batches

    def _explain(self, step: int) -> None:
        """One step: every explainer, every sink."""
        self._run.step = step
        predicted = None
        with self._guard("predicting classes"):
            predicted = predictions.predict(
                self.model, self.samples.x, self.target, self.batch_size, self.class_names
            )
        try:
            for name in self.explainers:
                with self._guard(f"explainer {name!r}"):
                    record = self._record(name, predicted)
                    self._check_shown(record)
                    self._write(record)
        finally:
            for sink in self._open_sinks():
                self._tell(sink, sink.flush)

    def _record(self, name: str, predicted: predictions.Predictions | None) -> Record:
        """Runs an explainer, and measures what it returns."""
        previous, self._run.latest[name] = self._run.ranks.get(name), {}
        explanation = self._run_explainer(name)
        flat = scalars.flat_maps(explanation)
        ranks = self._run.ranks[name] = scalars.centred_ranks(flat)
        pictures, over, reliable = self._run.shown.under(explanation) or (None, None, None)
        shown = flat if over is None else over
        limit = render.limit_of(shown)
        values = scalars.measure(explanation, flat, ranks, previous) | {"scale": limit}
        values |= self._metrics_of(name, explanation)
        self._run.latest[name] = values
        return Record(
            step=self._run.step,
            name=name,
            explanation=explanation,
            scalars=values,
            limit=limit,
            signed=render.is_signed(shown),
            pictures=pictures,
            maps=over,
            reliable=reliable,
            labels=self.samples.labels,
            predicted=predicted.classes if self._are_classes(predicted) else None,
            explained=predictions.explained_classes(explanation, predicted),
            class_names=self.class_names,
            probabilities=predicted.probabilities if self._are_classes(predicted) else None,
            feature_names=self.feature_names,
            vocabulary=self.vocabulary,
            to_image=self.to_image,
        )

    def _are_classes(
        self, predicted: predictions.Predictions | None
    ) -> TypeGuard[predictions.Predictions]:
        """Without labels or class names, the only unit of an output may be a regression."""
        known = self.samples.labels is not None or self.class_names is not None
        return predicted is not None and (known or predicted.units > 1)

    def _run_explainer(self, name: str) -> Explanation:
        explain, run = self.explainers[name], self._run
        begin = time.perf_counter()
        with progress.announced(f"Explaining with {name}", run.seconds.get(name, 0)):
            explanation = explain(
                self.model,
                self.samples.x,
                self.target,
                batch_size=self.batch_size,
                seed=self.seed,
                progress=False,
                data_format=self.data_format,
            )
        run.seconds[name] = time.perf_counter() - begin
        return explanation

    def _metrics_of(self, name: str, explanation: Explanation) -> dict[str, float]:
        explainer, x, found = self.explainers[name], self.samples.x, {}
        for key, metric in self.metrics.items():
            with self._guard(f"metric {key!r} of explainer {name!r}"):
                values = metric(
                    self.model, x, explanation.target, explainer, explanation=explanation
                )
                found[key] = float(np.mean(np.asarray(values, np.float64)))
        return found

    def _write(self, record: Record) -> None:
        for sink in self._open_sinks():
            self._tell(sink, sink.write, record)

    def _check_shown(self, record: Record) -> None:
        """Says so, at the start, of an explainer that the Explain tab will not have."""
        logged = any(isinstance(sink, TensorBoard) for sink in self.sinks)
        if self._run.rehearsing and logged and not maps.is_shown(record):
            _warn(checks.unseen(record))

    def _open_sinks(self) -> Sequence[Sink]:
        return () if self._run.rehearsing else self.sinks

    def _tell(self, sink: Sink, action: Callable[..., None], *args: Any) -> None:
        with self._guard(f"sink {type(sink).__name__}"):
            action(*args)

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        """Raises what happens inside, or says so once and goes on."""
        try:
            yield
        except Exception as error:
            when = "the start of training" if self._run.rehearsing else f"step {self._run.step}"
            if self._run.rehearsing or self.on_error == "raise":
                error.add_note(f"ExplanationLogger: {what} failed at {when}.")
                raise
            self._note(what, error)

    def _note(self, what: str, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        failures = self.failures.setdefault(what, [])
        first = not failures
        failures += getattr(error, "failures", None) or [(self._run.step, message)]
        if first:
            _warn(f"{what} failed at step {failures[0][0]}, training goes on. {message}")


def _warn(message: str) -> None:
    warnings.warn(f"ExplanationLogger: {message}", RuntimeWarning, stacklevel=2)
