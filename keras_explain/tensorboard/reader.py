"""What was logged, read through a data provider of TensorBoard's."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any

from keras_explain.sinks import events

Json = Any
Keys = tuple[str, ...]  # of the blobs of one event
Steps = dict[int, dict[str, Keys]]  # step -> tag -> blobs

_EVERY = 2**31 - 1  # of the steps, without thinning them out
_AT_ONCE = 8  # questions to the provider
SCALARS = "scalars"  # TensorBoard's own plugin
_TOP = "."  # TensorBoard's name of the log directory itself
_OURS = "explain"  # the directory that the sink writes to
_BESIDE = ("train", "validation")  # those of Keras's callback
_SHOWN = (
    *("bits", "shape", "classes", "scores", "predicted", "probability", "range", "limit"),
    *("signed", "reliable", "gap", "error"),
)


class NotLoggedError(LookupError):
    """Something was asked for that the log does not have."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """What is known of a run once it was opened."""

    directory: str
    steps: Steps
    samples: Json  # the header; None where there is none that can be read
    problems: list[Json]  # with the samples


class Cache:
    """The runs opened last. Readers of one provider share it."""

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: dict[Any, _Run] = {}

    def get(self, key: Any, make: Callable[[], _Run], fits: Callable[[_Run], bool]) -> _Run:
        """What is kept, if it fits, else what `make` makes."""
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and fits(kept):
            return kept
        made = make()
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = made
            while len(self._kept) > self._capacity:
                del self._kept[next(iter(self._kept))]
        return made

    def clear(self) -> None:
        """Forgets all runs."""
        with self._lock:
            self._kept.clear()


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """Reads the Explain tab's events, and the scalars beside them.

    A *run* is a directory below the one that is read, without the `explain` at its end; "" is the
    directory itself. What is broken in a log becomes a problem `{"run", "tag", "message"}`, of maps
    with `"method"` and `"sample"`, beside what can be read.

    Args:
        provider: A `tensorboard.data.provider.DataProvider`.
        context: The context of the request.
        experiment: The experiment's id.
        cache: Keeps which events there are from one call to the next; `runs` looks anew.
    """

    provider: Any
    context: Any
    experiment: str = ""
    cache: Cache = dataclasses.field(default_factory=Cache)

    def runs(self) -> dict[str, Json]:
        """All runs: samples, methods, steps, trees and names of scalars."""
        self.cache.clear()
        logged = self._logged()
        some = {tag for tags in logged.values() for tag in _one_of_each(tags)}
        steps = self._steps(list(logged), sorted(some))
        scalars = self._scalar_tags()
        found: dict[str, Json] = {}
        problems: list[Json] = []
        for name, directory in sorted(_named(logged).items()):
            samples, said = self._samples(name, steps[directory])
            problems += said
            found[name] = {
                "samples": samples,
                "methods": sorted({method for method, _, _ in _maps(logged[directory])}),
                "steps": _having(steps[directory], events.MAPS),
                "trees": _having(steps[directory], events.TREE),
                "predictions": events.PREDICTIONS in logged[directory],
                "scalars": sorted(_scalars_of(directory, scalars)),
            }
        return {"schema": events.SCHEMA, "runs": found, "problems": problems}

    def step(self, name: str, step: int) -> bytes:
        """All maps of a step, in an envelope.

        Raises:
            NotLoggedError: There is no such run, or it has no such step.
        """
        run = self._run(name, step)
        tags = sorted(_maps(run.steps[step])) if run.samples else []
        keys = [run.steps[step][tag] for _, _, tag in tags]
        read = _each(lambda i: self._map(run, keys[i], tags[i][1]), range(len(tags)))
        maps: list[Json] = []
        blobs: list[bytes] = []
        problems = list(run.problems)
        for (method, sample, tag), found in zip(tags, read, strict=True):
            if isinstance(found, events.FormatError):
                problems.append(problem(name, tag, found))
                continue
            described, pictures = found
            place = {"method": method, "sample": sample, "first": len(blobs)}
            maps.append({**place, "count": len(pictures), **described})
            blobs += pictures
        header = {"schema": events.SCHEMA, "step": step, "maps": maps, "problems": problems}
        return events.envelope(header, blobs)

    def picture(self, name: str, sample: int) -> bytes:
        """The PNG of an input.

        Raises:
            NotLoggedError: There is no such picture.
            FormatError: It is no PNG.
        """
        keys = _latest(self._run(name).steps, events.SAMPLES)
        if not 0 <= sample < len(keys) - 1:
            raise NotLoggedError(
                f"Expected a sample whose picture was logged: run {name!r} has pictures of "
                f"{max(len(keys) - 1, 0)} samples, from 0 on. Received: {sample}."
            )
        picture = self._blob(keys[sample + 1])
        events.png_size(picture)
        return picture

    def scalars(self, name: str, tag: str) -> dict[str, Json]:
        """All points of a scalar.

        Raises:
            NotLoggedError: There is no such run or scalar.
        """
        known = _scalars_of(self._run(name).directory, self._scalar_tags())
        if tag not in known:
            raise NotLoggedError(f"Expected one of {sorted(known)}. Received: tag={tag!r}.")
        directory, logged = known[tag]
        series = self.provider.read_scalars(
            self.context,
            experiment_id=self.experiment,
            plugin_name=SCALARS,
            downsample=_EVERY,
            run_tag_filter=_filter([directory], [logged]),
        )
        points = series.get(directory, {}).get(logged, ())
        values = [float(point.value) for point in points]
        return {"steps": [point.step for point in points], "values": events.clean(values)}

    def tree(self, name: str, step: int) -> dict[str, Json]:
        """The decision trees of a step.

        Raises:
            NotLoggedError: There is no such run, or it has no tree of that step.
            FormatError: They are broken.
        """
        run = self._run(name, step)
        if events.TREE not in run.steps[step]:
            steps = _having(run.steps, events.TREE)
            raise NotLoggedError(f"Expected a step with a tree: {steps}. Received: step={step}.")
        return events.read_tree(self._blob(*run.steps[step][events.TREE][:1]))

    def predictions(self, name: str) -> dict[str, Json]:
        """The predicted classes of all samples at all steps.

        Raises:
            NotLoggedError: There is no such run.
        """
        run = self._run(name)
        count = run.samples["count"] if run.samples else 0
        steps = _having(run.steps, events.PREDICTIONS)

        def at(step: int) -> Json:
            keys = run.steps[step][events.PREDICTIONS]
            return events.read_predictions(self._blob(*keys[:1]), count)

        read = dict(zip(steps, _each(at, steps), strict=True))
        failed = {step for step in steps if isinstance(read[step], events.FormatError)}
        steps = [step for step in steps if step not in failed]
        return {
            "schema": events.SCHEMA,
            "steps": steps,
            "predicted": [read[step]["predicted"] for step in steps],
            "probability": [read[step]["probability"] for step in steps],
            "problems": [problem(name, events.PREDICTIONS, read[step]) for step in sorted(failed)],
        }

    def directories(self) -> list[str]:
        """All that have events, of whatever kind."""
        runs = self.provider.list_runs(self.context, experiment_id=self.experiment)
        return sorted(run.run_name for run in runs)

    # One run

    def _run(self, name: str, step: int | None = None) -> _Run:
        """A run, which has the step where one is asked for."""
        run = self.cache.get(
            (self.experiment, name),
            lambda: self._opened(name),
            lambda kept: step is None or step in kept.steps,
        )
        if step is not None and step not in run.steps:
            raise NotLoggedError(
                f"Expected a step of run {name!r}, such as {_ends(run.steps)}. "
                f"Received: step={step}."
            )
        return run

    def _opened(self, name: str) -> _Run:
        directories = _named(self._logged())
        if name not in directories:
            raise NotLoggedError(
                f"Expected one of the runs {sorted(directories)}. Received: {name!r}."
            )
        directory = directories[name]
        steps = self._steps([directory], None)[directory]
        return _Run(directory, steps, *self._samples(name, steps))

    def _samples(self, name: str, steps: Steps) -> tuple[Json, list[Json]]:
        """The header of a run's samples, or the problem with it."""
        keys = _latest(steps, events.SAMPLES)
        if not keys and not _having(steps, events.MAPS):
            return None, []
        try:
            header = events.read_samples(self._blob(*keys[:1]))
            if header["kind"] == "pictures" and len(keys) - 1 != header["count"]:
                raise events.FormatError(
                    f"Expected pictures of {header['count']} samples. Received: {len(keys) - 1}."
                )
        except events.FormatError as error:
            return None, [problem(name, events.SAMPLES, error)]
        return header, []

    def _map(self, run: _Run, keys: Keys, sample: int) -> tuple[Json, list[bytes]]:
        """What is to be known of the maps of one sample, and their PNGs, both checked."""
        header = events.read_map(self._blob(*keys[:1]))
        if sample >= run.samples["count"]:
            raise events.FormatError(
                f"Expected a map of one of {run.samples['count']} samples. Received: {sample}."
            )
        if header.get("samples") != run.samples.get("id"):
            raise events.FormatError(
                "Expected a map of the samples that the run shows. Received: one of other samples. "
                "Give each logger with samples of its own, and each training, a log_dir of its own."
            )
        pictures = [self._blob(key) for key in keys[1:]]
        if len(pictures) != len(header["scores"]):
            raise events.FormatError(
                f"Expected {len(header['scores'])} pictures of maps. Received: {len(pictures)}."
            )
        for picture in pictures:
            events.check_map_png(picture, header)
        return {key: header[key] for key in _SHOWN}, pictures

    # What the provider has

    def _logged(self) -> dict[str, Iterable[str]]:
        """Directory -> tags."""
        logged: dict[str, Iterable[str]] = self.provider.list_blob_sequences(
            self.context, experiment_id=self.experiment, plugin_name=events.PLUGIN
        )
        return logged

    def _steps(self, directories: list[str], tags: list[str] | None) -> dict[str, Steps]:
        """The events of some directories by step and tag."""
        found: dict[str, Steps] = {directory: {} for directory in directories}
        series = self.provider.read_blob_sequences(
            self.context,
            experiment_id=self.experiment,
            plugin_name=events.PLUGIN,
            downsample=_EVERY,
            run_tag_filter=_filter(directories, tags),
        )
        for directory, of_tags in series.items():
            for tag, data in of_tags.items():
                for datum in data:
                    keys = tuple(reference.blob_key for reference in datum.values)
                    found[directory].setdefault(int(datum.step), {})[tag] = keys
        return found

    def _scalar_tags(self) -> dict[str, Iterable[str]]:
        tags: dict[str, Iterable[str]] = self.provider.list_scalars(
            self.context, experiment_id=self.experiment, plugin_name=SCALARS
        )
        return tags

    def _blob(self, *key: str) -> bytes:
        """A blob; of no key, nothing was logged in its place."""
        if not key:
            raise events.FormatError("Expected an event that is not empty. Received: nothing.")
        from tensorboard import errors

        try:
            blob = self.provider.read_blob(self.context, blob_key=key[0])
        except (errors.NotFoundError, IndexError) as error:  # IndexError: it has fewer blobs now
            raise events.FormatError(
                f"Expected an event that is still there. Received: {error}. Reload the page."
            ) from error
        return blob if isinstance(blob, bytes) else str(blob).encode(errors="replace")


def _each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """What a function returns, or the `FormatError` that it raises, for each of some items.

    Several at a time: TensorBoard's fast loader takes some 40 ms for a question asked alone.
    """

    def tried(item: Any) -> Any:
        try:
            return function(item)
        except events.FormatError as error:
            return error

    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(tried, items))


def _filter(runs: list[str], tags: list[str] | None) -> Any:
    from tensorboard.data import provider

    return provider.RunTagFilter(runs=runs, tags=tags)


def _named(logged: Mapping[str, Any]) -> dict[str, str]:
    """Run -> directory. A directory keeps its `explain` where the name is taken without it."""
    named: dict[str, str] = {}
    for directory in sorted(logged):
        name = _without_ours(directory)
        named[directory if name in named else name] = directory
    return named


def _without_ours(directory: str) -> str:
    before, _, last = directory.rpartition("/")
    return before if last == _OURS else directory.removesuffix(_TOP) or ""


def _scalars_of(directory: str, logged: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, str]]:
    """The scalars of a run by the name that they are shown with: directory and tag."""
    above = _without_ours(directory)
    found = {}
    for beside in _BESIDE:
        place = f"{above}/{beside}" if above else beside
        found.update({f"{beside}/{tag}": (place, tag) for tag in logged.get(place, ())})
    for place in (above or _TOP, directory):
        found.update({tag: (place, tag) for tag in logged.get(place, ())})
    return found


def _maps(tags: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Method, sample and tag of each tag that is of a map."""
    for tag in tags:
        pair = events.method_and_sample(tag)
        if pair is not None:
            yield (*pair, tag)


def _one_of_each(tags: Iterable[str]) -> set[str]:
    """Tags that tell all steps: of each method, the first sample's."""
    first: dict[str, str] = {}
    for method, _, tag in sorted(_maps(tags)):
        first.setdefault(method, tag)
    return {*first.values(), events.SAMPLES, events.TREE}


def _having(steps: Steps, prefix: str) -> list[int]:
    """The steps with a tag that begins so."""
    return sorted(s for s, tags in steps.items() if any(tag.startswith(prefix) for tag in tags))


def _latest(steps: Steps, tag: str) -> Keys:
    """The blobs of the last event of a tag; none where there is none."""
    having = [step for step, tags in steps.items() if tag in tags]
    return steps[max(having)][tag] if having else ()


def _ends(steps: Iterable[int]) -> str:
    every = sorted(steps)
    return f"{every[0]} or {every[-1]}" if every else "(none)"


def problem(run: str, tag: str, error: Exception) -> dict[str, Json]:
    """What could not be read, for the page to say so in its place."""
    described = {"run": run, "tag": tag, "message": str(error)}
    pair = events.method_and_sample(tag)
    return described if pair is None else {**described, "method": pair[0], "sample": pair[1]}
