"""Names: the snake case of a class, and what to suggest for a name that does not exist."""

import difflib
import re
from collections.abc import Iterable


def snake_name(name: str) -> str:
    """`"GradCAMPlusPlus"` -> `"grad_cam_plus_plus"`, as Keras names its layers."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: the names close to `name`, else all the valid ones."""
    valid = list(valid)
    spelled = {other.lower(): other for other in valid}
    close = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(spelled[found]) for found in close)}?"
    return f"Valid names: {', '.join(map(repr, valid)) or 'none'}."
