"""The rows of an explanation: some of them cut out, and those of several joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import tree

from keras_explain.core import arrays
from keras_explain.core.config import Config
from keras_explain.core.data.baselines import Given

if TYPE_CHECKING:
    from keras_explain.core.model.targets import Target
    from keras_explain.core.record.explanation import Explanation

Nest = Any
Change = Callable[[np.ndarray], np.ndarray]

# Some rows


def picked(rows: Any, count: int) -> np.ndarray:
    """The positions that an index of `count` rows means, ints `[n]`.

    Raises:
        IndexError: It is no int, slice, mask or array of ints, or one out of range.
    """
    try:
        found = np.atleast_1d(np.arange(count)[rows])
    except IndexError as error:
        raise _no_index(rows, count) from error
    if found.ndim > 1:
        raise _no_index(rows, count)
    return found


def _no_index(rows: Any, count: int) -> IndexError:
    return IndexError(
        f"Expected some of {count} samples: a number from {-count} to {count - 1}, a slice, a mask "
        f"of booleans [{count}], or an array of such numbers. Received: {rows!r:.80}."
    )


def taken(explanation: Explanation, rows: np.ndarray) -> Explanation:
    """The explanation of some rows, whose positions are given."""
    parts = (explanation.values, explanation.scores, explanation.x, explanation.extras)
    values, scores, x, extras = tree.map_structure(lambda leaf: leaf[rows], parts)
    target, index = explanation.target, np.asarray(explanation.target.index)
    target = target.replace(index=index[rows]) if index.ndim else target
    explainer = over_samples(
        explanation.explainer, explanation.x, lambda a: a if len(a) == 1 else a[rows]
    )
    return dataclasses.replace(
        explanation,
        values=values,
        scores=scores,
        x=x,
        extras=extras,
        target=target,
        explainer=explainer,
    )


# Several joined


def joined(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of the rows of several.

    Raises:
        ValueError: There are none, or they differ in more than their rows.
        TypeError: One is no explanation.
    """
    _check_parts(parts)
    if len(parts) == 1:
        return parts[0]
    explainer = _joined_explainer(parts)
    together = {
        name: _concatenated(name, [getattr(part, name) for part in parts])
        for name in ("scores", "values", "x", "extras")
    }
    target = _joined_target(parts)
    return dataclasses.replace(parts[0], **together, target=target, explainer=explainer)


def _check_parts(parts: Sequence[Explanation]) -> None:
    from keras_explain.core.record.explanation import Explanation

    if not parts:
        raise ValueError("Expected at least one explanation to join. Received: none.")
    for part in parts:
        if not isinstance(part, Explanation):
            raise TypeError(f"Expected explanations to join. Received: a {type(part).__name__}.")
    for name in ("units", "channels", "over", "layer_channels"):
        _check_alike(name, [getattr(part, name) for part in parts])


def _check_alike(name: str, found: Sequence[Any], hint: str = "") -> None:
    """Raises a `ValueError` unless what was found in each part is the same."""
    for i, other in enumerate(found):
        if other != found[0]:
            raise ValueError(
                f"Expected explanations that agree in {name}, to join them. Received: {found[0]} "
                f"in part 0 and {other} in part {i}.{hint}"
            )


_UNPADDED = " Nothing is padded here: keep them in a list, or pad all texts to one length."


def _concatenated(name: str, nests: Sequence[Nest]) -> Nest:
    shapes = [tree.map_structure(_row_shape, nest) for nest in nests]
    _check_alike(f"the shape of {name}", shapes, "" if name == "extras" else _UNPADDED)
    return tree.map_structure(_concatenated_leaves, *nests)


def _row_shape(leaf: np.ndarray) -> str:
    return f"{'text' if leaf.dtype.kind == 'U' else 'numbers'} {['B', *leaf.shape[1:]]}".replace(
        "'", ""
    )


def _concatenated_leaves(*leaves: np.ndarray) -> np.ndarray:
    """In 32 bits still, where a column has ints in some batches and fractions in others."""
    together = np.concatenate(leaves)
    widened = together.dtype == np.float64 and all(leaf.dtype != np.float64 for leaf in leaves)
    return together.astype(np.float32) if widened else together


def _joined_target(parts: Sequence[Explanation]) -> Target:
    targets = [part.target for part in parts]
    _check_alike("the target", [target.without_index() for target in targets])
    if all(target.index is None for target in targets):
        return targets[0]
    _check_alike("whether the target has an index", [t.index is not None for t in targets])
    indices = [np.broadcast_to(np.asarray(p.target.index), p.scores.shape) for p in parts]
    return targets[0].replace(index=np.concatenate(indices))


def _joined_explainer(parts: Sequence[Explanation]) -> Any:
    rows: list[list[np.ndarray]] = []  # of each part, its arrays with a row for each sample
    others = []
    for part in parts:
        own: list[np.ndarray] = []
        rows.append(own)

        def noted(array: np.ndarray, own: list[np.ndarray] = own) -> np.ndarray:
            own.append(array)
            return array[:0]

        others.append(over_samples(part.explainer, part.x, noted))
    _check_alike("the explainer", others)
    together = iter([_joined_rows(arrays, parts) for arrays in zip(*rows, strict=True)])
    return over_samples(parts[0].explainer, parts[0].x, lambda _: next(together))


def _joined_rows(found: Sequence[np.ndarray], parts: Sequence[Explanation]) -> np.ndarray:
    if all(len(array) == 1 and np.array_equal(array, found[0]) for array in found):
        return found[0]
    pairs = zip(found, parts, strict=True)
    return np.concatenate([np.broadcast_to(a, (len(p), *a.shape[1:])) for a, p in pairs])


# What of an explainer belongs to single samples


def over_samples(explainer: Any, x: Nest, change: Change) -> Any:
    """An explainer with `change(array)` for each array that has a row for each sample of `x`.

    These are baselines and label maps, also of an explainer inside it. An array `[1, ...]`, whose
    row serves all samples, is one too.

    Args:
        explainer: The explainer.
        x: The input that it explained.
        change: A function of the array.
    """
    changed = False

    def noted(array: np.ndarray) -> np.ndarray:
        nonlocal changed
        changed = True
        rows = np.array(change(array))
        rows.setflags(write=False)
        return rows

    found = _mapped(explainer, x, noted)
    return found if changed else explainer


def _mapped(config: Any, x: Nest, change: Change) -> Any:
    if isinstance(config, tuple):
        return tuple(_mapped(item, x, change) for item in config)
    if isinstance(config, dict):
        return {key: _mapped(item, x, change) for key, item in config.items()}
    if not isinstance(config, Config):
        return config

    def of_field(name: str, value: Any) -> Any:
        return (_baseline if name == "baseline" else _mapped)(value, x, change)

    return config.over_samples(change).mapped(of_field)


def _baseline(value: Any, x: Nest, change: Change) -> Any:
    if isinstance(value, Given):
        return value.mapped(lambda _, values: _baseline(values, x, change))
    if isinstance(value, dict):
        leaves = x if isinstance(x, dict) else dict.fromkeys(value, x[:, :1])  # columns of a table
        return {key: _baseline(part, leaves[key], change) for key, part in value.items()}
    if isinstance(value, tuple):
        return _listed_baseline(value, x, change)
    if not isinstance(value, np.ndarray):
        return value
    leaf = tree.flatten(x)[0]
    has_rows = value.ndim == leaf.ndim or (value.ndim == 1 and leaf.shape[1:] == (1,))
    return change(value) if has_rows else value


def _listed_baseline(value: tuple, x: Nest, change: Change) -> Any:
    """Baselines of several inputs, or the numbers of one."""
    if isinstance(x, (list, tuple)) and len(x) == len(value):
        return tuple(_baseline(part, leaf, change) for part, leaf in zip(value, x, strict=True))
    if len(value) == 1:
        return (_baseline(value[0], x, change),)
    numbers = arrays.plain(value, "`baseline`")
    rows = _baseline(numbers, x, change)
    return value if rows is numbers else rows
