"""Explainers, and what their parameters take, made of their text."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_explain.explainers  # noqa: F401 (so that their classes are known)
from keras_explain.cli.calls import Call, Node, called
from keras_explain.cli.errors import PROGRAM, UsageError
from keras_explain.cli.files import PICTURES
from keras_explain.core import rules
from keras_explain.core.config import known_classes
from keras_explain.core.data import baselines
from keras_explain.core.explainer import Explainer
from keras_explain.core.hiding import features
from keras_explain.core.names import nearest, snake_name

EXAMPLES = {"background": "train100.npy", "layer": "conv_last"}


def explainers() -> dict[str, Any]:
    """The explainer classes by their names in snake case, also those of imported modules."""
    return {snake_name(name): cls for name, cls in known_classes(Explainer).items()}


def explainer_class(name: str) -> Any:
    """The class of a name.

    Raises:
        UsageError: There is none.
    """
    known = explainers()
    found = {**known, **{cls.__name__: cls for cls in known.values()}}.get(name)
    if found is None:
        raise UsageError(
            f"Expected the name of a method. Received: {name!r}. {nearest(name, sorted(known))} "
            f"`{PROGRAM} methods` lists them."
        )
    return found


def check(call: Call) -> None:
    """Raises a `UsageError` where there is no such method, or no such parameter."""
    arguments(explainer_class(called(call.node)), call.node)


def make(call: Call, load: Callable[[str], Any]) -> Explainer:
    """The explainer that a call means.

    Args:
        call: The method with its parameters.
        load: Reads a file or folder that stands for an array.

    Raises:
        UsageError: There is no such method or parameter, or a value can't be.
    """
    return _Builder(call.text, load).made(explainer_class(called(call.node)), call.node)


def arguments(cls: Any, node: Node) -> dict[str, ast.expr]:
    """The values that a call gives to the fields of a class.

    Raises:
        UsageError: It has no such field, or one that must be given is not.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    placed = [name for name, field in fields.items() if not field.kw_only]
    values = list(node.args) if isinstance(node, ast.Call) else []
    if len(values) > len(placed):
        raise UsageError(
            f"Expected parameters of {called(node)} with their names, such as "
            f"{next(iter(fields), 'name')}=... Received: {ast.unparse(node)}."
        )
    given = dict(zip(placed, values, strict=False))
    given |= {str(k.arg): k.value for k in (node.keywords if isinstance(node, ast.Call) else [])}
    for name in given:
        if name not in fields:
            raise UsageError(
                f"Expected a parameter of {called(node)}. Received: {name!r}. "
                f"{nearest(name, fields)}"
            )
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in given:
            raise UsageError(
                f"Expected {called(node)} with its parameter {name!r}. Received: "
                f"{ast.unparse(node)}. Write {called(node)}({name}={EXAMPLES.get(name, '...')})."
            )
    return given


@dataclasses.dataclass(frozen=True)
class _Builder:
    """Makes objects of the package from their text, and of nothing else."""

    text: str
    load: Callable[[str], Any]

    def made(self, cls: Any, node: Node) -> Any:
        """An object of a class.

        Raises:
            UsageError: A parameter does not exist, or its value can't be.
        """
        hints = typing.get_type_hints(cls)
        values = {
            name: self.value(value, name == "layer" or _is_literal(hints.get(name)))
            for name, value in arguments(cls, node).items()
        }
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{called(node)}: {error}") from error

    def value(self, node: ast.expr, as_text: bool = False) -> Any:
        """What an expression stands for: a number, a text, an object, or several of these."""
        if isinstance(node, ast.Constant):
            return self._text(node.value, as_text) if isinstance(node.value, str) else node.value
        if isinstance(node, (ast.Tuple, ast.List)):
            return [self.value(item, as_text) for item in node.elts]
        if isinstance(node, ast.Dict) and all(node.keys):
            keys = [self.value(key, as_text=True) for key in node.keys if key]
            return dict(zip(keys, map(self.value, node.values), strict=True))
        if isinstance(node, ast.Call):
            return self.made(self._class(ast.unparse(node.func)), node)
        if isinstance(node, ast.Name) and not as_text and node.id in _classes():
            return self.made(self._class(node.id), node)
        return self._number_or_word(node, as_text)

    def _number_or_word(self, node: ast.expr, as_text: bool) -> Any:
        with contextlib.suppress(ValueError):
            return ast.literal_eval(node)
        written = ast.get_source_segment(self.text, node) or ""
        if not re.fullmatch(r"\w+([./]\w+)*", written):
            raise UsageError(
                "Expected a number, a word, a text in quotes, or an object such as Blur(sigma=10). "
                f"Received: {written}."
            )
        return self._text(written, as_text)

    def _text(self, text: str, as_text: bool) -> Any:
        is_file = Path(text).suffix.lower() in (".npy", *PICTURES) or text.endswith(("/", os.sep))
        return self.load(text) if is_file and not as_text else text

    @staticmethod
    def _class(name: str) -> Any:
        known = _classes()
        if name not in known:
            raise UsageError(
                "Expected an object that a parameter takes, such as Blur(sigma=10). "
                f"Received: {name!r}. {nearest(name, known)}"
            )
        return known[name]


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _classes() -> dict[str, Any]:
    """What can stand inside a method: explainers, baselines, features and rules, by their names."""
    bases: list[type] = [Explainer, baselines.Baseline, features.Features, rules.Rule]
    known: dict[str, Any] = {}
    for base in bases:
        known |= known_classes(base)
    return {snake_name(name): cls for name, cls in known.items()} | known
