"""The page of the Explain tab with a whole log in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_explain import files
from keras_explain.sinks import events
from keras_explain.tensorboard.local import local_reader
from keras_explain.tensorboard.reader import NotLoggedError, Reader, problem

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*\(?\s*)(["'])\./([\w-]+\.js)\2""")
_START = 'import { render } from "keras_explain/index.js";\nrender();\n'


def report(
    log_dir: str | os.PathLike[str], path: str | os.PathLike[str], *, max_steps: int | None = None
) -> None:
    """Writes the page of TensorBoard's Explain tab, with all that it shows, to one HTML file.

    The file opens from disk, without a server and without a network: it holds the page, and the
    maps of every run below the directory.

    Args:
        log_dir: A directory that `ExplanationLogger` has written to, itself or below it.
        path: The file to write. One that is there is replaced; a folder that is not, is made.
        max_steps: How many steps of each run are kept at most, evenly spaced, the first and the
            last among them. None keeps all.

    Raises:
        ValueError: There is no such directory, no explanations are in it, or `path` is a directory.

    Warns:
        UserWarning: A directory or file in it can't be read, and is left out.
    """
    if max_steps is not None and max_steps < 2:
        raise ValueError(f"Expected `max_steps` of 2 or more. Received: {max_steps}.")
    directory = os.fspath(log_dir)
    if not os.path.isdir(directory):
        raise ValueError(
            f"Expected a directory of logs. Received: {directory!r}, which is "
            f"{'a file' if os.path.exists(directory) else 'not there'}."
        )
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"Expected a file to write. Received: {str(path)!r}, a directory.")
    unread: list[OSError] = []
    reader = local_reader(directory, unread)
    answer = reader.runs()
    for error in unread:
        answer["problems"].append(problem(os.path.relpath(error.filename, directory), "", error))
        warnings.warn(f"The report leaves out what can't be read: {error}", stacklevel=2)
    if not answer["runs"]:
        raise ValueError(_nothing(directory, reader.directories()))
    for run in answer["runs"].values():
        for key in ("steps", "trees"):
            run[key] = _thinned(run[key], max_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written(path, text=True) as file:
        file.writelines(_page(reader, answer))


def _nothing(directory: str, others: Sequence[str]) -> str:
    """What to say of a log without explanations, where some directories have other events."""
    expected = f"Expected explanations in {directory!r} or below it. Received:"
    train = f"`keras_explain.callbacks.ExplanationLogger(..., log_dir={directory!r})`"
    if not others:
        return f"{expected} none. Train with {train}."
    found = ", ".join(map(repr, others[:3])) + (", ..." if len(others) > 3 else "")
    return (
        f"{expected} events without maps, in {found}. {train} writes maps, but none of values that "
        "lie over no input, such as those at a layer: leave `layer=` out there."
    )


def _thinned(steps: Sequence[int], most: int | None) -> list[int]:
    """At most so many of the steps, evenly spaced."""
    if most is None or len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


# The page


def _page(reader: Reader, answer: dict[str, Any]) -> Iterator[str]:
    modules = _modules()
    source = (_HERE / "report.js").read_text("utf-8")
    scripts = [("importmap", modules), ("text/javascript", source), ("module", _START)]
    styles = [path.read_text("utf-8") for path in sorted(_STATIC.glob("*.css"))]
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">\n'
    yield "<title>Explanations</title>\n"
    yield from (f"<style>\n{style}</style>\n" for style in styles)
    yield "</head>\n<body>\n"
    yield from _data(reader, answer)
    for kind, script in scripts:
        yield f'<script type="{kind}">{script}</script>\n'
    yield "</body>\n</html>\n"


def _modules() -> str:
    """The page's modules as an import map: nothing is fetched, so they load from a file, too.

    A module imports another of the same directory as "./name.js", which becomes the bare name
    "keras_explain/name.js" that the map knows.
    """
    found = {}
    for path in sorted(_STATIC.glob("*.js")):
        source = _IMPORT.sub(r"\1\2keras_explain/\3\2", path.read_text("utf-8"))
        encoded = base64.b64encode(source.encode()).decode()
        found[f"keras_explain/{path.name}"] = f"data:text/javascript;base64,{encoded}"
    return json.dumps({"imports": found})


def _policy(scripts: list[tuple[str, str]]) -> str:
    """Lets the page's own scripts run, and nothing be asked of a network."""
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for _, script in scripts)
    return (
        f"default-src 'none'; script-src {hashes} data:; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# The data


def _data(reader: Reader, answer: dict[str, Any]) -> Iterator[str]:
    """An element for each answer that the page may ask for."""
    problems = list(answer["problems"])
    for number, (name, run) in enumerate(answer["runs"].items()):
        yield from _pictures(reader, name, run, number, problems)
        yield from _trees(reader, name, run, number, problems)
        for step in run["steps"]:
            yield _element(f"{number}-step-{step}", _base64(reader.step(name, step)))
        if run["predictions"]:
            yield _element(f"{number}-predictions", reader.predictions(name))
        series = [[tag, reader.scalars(name, tag)] for tag in run["scalars"]]
        yield _element(f"{number}-scalars", series)
    yield _element("runs", {**answer, "problems": problems})
    yield _element("numbers", [[name, number] for number, name in enumerate(answer["runs"])])


def _pictures(
    reader: Reader, name: str, run: dict[str, Any], number: int, problems: list[Any]
) -> Iterator[str]:
    samples = run["samples"]
    if samples is None or samples["kind"] != "pictures":
        return
    for sample in range(samples["count"]):
        try:
            picture = reader.picture(name, sample)
        except events.FormatError as error:
            problems.append(problem(name, events.SAMPLES, error))
            continue
        yield _element(f"{number}-picture-{sample}", _base64(picture))


def _trees(
    reader: Reader, name: str, run: dict[str, Any], number: int, problems: list[Any]
) -> Iterator[str]:
    for step in run["trees"]:
        try:
            tree = reader.tree(name, step)
        except (events.FormatError, NotLoggedError) as error:
            problems.append(problem(name, events.TREE, error))
            continue
        yield _element(f"{number}-tree-{step}", tree)


def _element(name: str, value: Any) -> str:
    """JSON that no browser takes for markup."""
    text = events.dumps(value).decode().replace("<", "\\u003c")
    return f'<script type="application/json" id="keras-explain-{name}">{text}</script>\n'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
