"""`keras-explain methods`."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import shutil
import textwrap
from typing import Any

from keras_explain.cli.errors import PROGRAM, tell
from keras_explain.cli.files import load_modules
from keras_explain.cli.objects import EXAMPLES, explainer_class, explainers
from keras_explain.core.names import snake_name


def run(options: argparse.Namespace) -> None:
    """Lists all methods, or tells all about one."""
    load_modules(options.imports)
    if options.name is None:
        tell("\n".join(_listed(cls) for _, cls in sorted(explainers().items())))
    else:
        tell(_told(explainer_class(options.name)))


def _listed(cls: Any) -> str:
    parameters = [name if value is None else f"{name}={value}" for name, value in _defaults(cls)]
    call = f"{snake_name(cls.__name__)}({', '.join(parameters)})"
    return _wrapped(call, 0, hanging=4) + "\n" + _wrapped(_summary(cls), 4)


def _defaults(cls: Any) -> list[tuple[str, str | None]]:
    """The parameters with their defaults, None for what must be given; these come first."""
    pairs = [
        (field.name, None if field.default is dataclasses.MISSING else repr(field.default))
        for field in dataclasses.fields(cls)
    ]
    return sorted(pairs, key=lambda pair: pair[1] is not None)


def _summary(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0]


def _wrapped(text: str, indent: int, hanging: int = 0) -> str:
    width = min(100, shutil.get_terminal_size().columns)
    first = " " * indent
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=first + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _told(cls: Any) -> str:
    """All about a method: what its docstring says, and its parameters with their defaults."""
    body, _ = _sections(cls)
    parts = [f"{snake_name(cls.__name__)} (in Python: keras_explain.{cls.__name__})", body]
    if not cls.__module__.startswith("keras_explain."):
        parts[0] = f"{snake_name(cls.__name__)} ({cls.__module__}.{cls.__name__})"
    parts.append("Parameters:")
    for name, value in _defaults(cls):
        said = _parameter(cls, name)
        lines = f"  {name}{' (must be given)' if value is None else f' = {value}'}"
        parts[-1] += f"\n{lines}" + (f"\n{_wrapped(said, 6)}" if said else "")
    if not dataclasses.fields(cls):
        parts[-1] += " none"
    example = f'  {PROGRAM} explain model.keras photo.jpg --method "{_example(cls)}"'
    return "\n\n".join([*parts, f"Example:\n{example}"])


def _example(cls: Any) -> str:
    """A method with a parameter, such as `grad_cam(relu=True)`."""
    name, pairs = snake_name(cls.__name__), _defaults(cls)
    required = [f"{name}={EXAMPLES.get(name, '...')}" for name, value in pairs if value is None]
    numbers = [f"{n}={v}" for n, v in pairs if v is not None and v.isdigit()]
    arguments = required or numbers[:1]
    return f"{name}({', '.join(arguments)})" if arguments else name


def _sections(cls: Any) -> tuple[str, dict[str, str]]:
    """A docstring without its `Args:`, and what these say, by parameter."""
    body, said, inside, name = [], dict[str, str](), False, ""
    for line in (inspect.getdoc(cls) or "").splitlines():
        inside = line == "Args:" or (inside and (not line or line.startswith(" ")))
        entry = re.match(r" {4}(\w+): (.*)", line)
        if not inside:
            body.append(line)
        elif entry:
            name = entry[1]
            said[name] = entry[2]
        elif name and line:
            said[name] += " " + line.strip()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(body)).strip(), said


def _parameter(cls: Any, name: str) -> str:
    """What is said of a parameter, with what is said elsewhere in place of "As in `GradCAM`"."""
    said = _said_of(cls, name)
    known = {other.__name__: other for other in explainers().values()}
    pointed = re.match(r"As in `(\w+)`(?:[.;,] *|$)(.*)", said)
    if pointed is None or pointed[1] not in known:
        return said
    more = pointed[2][:1].upper() + pointed[2][1:]
    return f"{_parameter(known[pointed[1]], name)} {more}".strip()


def _said_of(cls: Any, name: str) -> str:
    """What a class says of a parameter, one of its bases, or the class that their docs point to."""
    for base in cls.__mro__:
        if name in (said := _sections(base)[1]):
            return said[name]
    for base in cls.__mro__:
        pointed = re.search(r"is said in `(\w+)`", base.__doc__ or "")
        if pointed and name in (said := _sections(explainer_class(pointed[1]))[1]):
            return said[name]
    return ""
