"""Methods as they are written on the command line: `"occlusion(patch=32), grad_cam"`."""

from __future__ import annotations

import argparse
import ast
import dataclasses

Node = ast.Name | ast.Call


@dataclasses.dataclass(frozen=True)
class Call:
    """A method with its parameters, `name(parameter=value, ...)`, as Python reads it."""

    text: str
    """All that was written, which the node's places are of."""

    node: Node


def called(node: Node) -> str:
    """The name of what is called."""
    return node.id if isinstance(node, ast.Name) else ast.unparse(node.func)


def calls(text: str) -> list[Call]:
    """The methods of `"grad_cam, integrated_gradients(steps=64)"`.

    Raises:
        ArgumentTypeError: It is something else.
    """
    text = text.strip()
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        node = ast.Constant(None)
    nodes = node.elts if isinstance(node, ast.Tuple) else [node]
    found = [Call(text, n) for n in nodes if _is_call(n)]  # type: ignore[arg-type]
    if len(found) < len(nodes):
        raise argparse.ArgumentTypeError(
            'expected a method such as grad_cam or "integrated_gradients(steps=64)", with paths '
            f"""and other texts in quotes, as in "grad_cam(layer='conv-5')"; received {text!r}"""
        )
    return found


def _is_call(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        named = all(keyword.arg for keyword in node.keywords) and not node.args
        return isinstance(node.func, ast.Name) and named
    return isinstance(node, ast.Name)
