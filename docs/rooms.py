"""Prints the rooms of the package, each with the rooms that it imports from, lowest first.

The picture in `architecture.md` is what this prints; a test compares them.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "keras_explain"


def room_of(module: str) -> str:
    """The room that `keras_explain.a.b` lies in: `core/graph`, `trees`, ..."""
    parts = module.split(".")[1:]
    if parts[:1] == ["core"] and len(parts) > 1 and (PACKAGE / "core" / parts[1]).is_dir():
        return f"core/{parts[1]}"
    return "/".join(parts[: 1 + (parts[:1] == ["core"])])


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports when it is loaded."""
    tree = ast.parse(path.read_text("utf-8"))
    later = (ast.FunctionDef, ast.AsyncFunctionDef, ast.If)  # If: for type checkers alone
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and not isinstance(statement, later):
            module = statement.module or ""
            for alias in statement.names if module.startswith("keras_explain") else ():
                inner = PACKAGE.parent / Path(*module.split("."), f"{alias.name}.py")
                is_module = inner.is_file() or inner.with_suffix("").is_dir()
                yield f"{module}.{alias.name}" if is_module else module


@functools.cache
def rooms() -> dict[str, set[str]]:
    """Each room, with those that it imports from."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if path.name != "__init__.py" or parts[1:-1] not in ((), ("core",)):
            here = room_of(".".join(part for part in parts if part != "__init__"))
            found.setdefault(here, set()).update(set(map(room_of, imported(path))) - {here, ""})
    return found


def level(room: str, above: tuple[str, ...] = ()) -> int:
    """How many rooms lie below, one upon the other."""
    if room in above:
        raise ValueError(
            f"Expected rooms above each other. Received: {' -> '.join((*above, room))}."
        )
    return max((1 + level(other, (*above, room)) for other in rooms()[room]), default=0)


def picture() -> str:
    """A line for each room."""
    order = sorted(rooms(), key=lambda room: (level(room), room))
    width = max(map(len, order))
    lines = [f"{level(r):2} {r:{width}}  {', '.join(sorted(rooms()[r]))}".rstrip() for r in order]
    return "\n".join(lines)


if __name__ == "__main__":
    print(picture())
