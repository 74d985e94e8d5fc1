"""What an input is: a table, token ids, a series, pictures or volumes, by its shape."""

from typing import Literal

Kind = Literal["table", "tokens", "series", "picture", "volume"]

SMALLEST_SIDE = 8
"""The least side of pictures `[B, H, W]`: smaller ones are rather series."""

_LONGEST = 2


def kind_of(shape: tuple[int, ...], *, are_tokens: bool = False) -> Kind:
    """The kind of an input of shape `[B, ...]`.

    `[B, A, C]` may be a series of C channels or pictures without channels: pictures, where no side
    is below 8 or more than twice the other.

    Args:
        shape: The input's shape.
        are_tokens: Whether numbers `[B, T]` are token ids.
    """
    if len(shape) <= 2:
        return "tokens" if are_tokens else "table"
    if len(shape) == 3:
        sides = sorted(shape[1:])
        square = sides[0] >= SMALLEST_SIDE and sides[1] <= _LONGEST * sides[0]
        return "picture" if square else "series"
    return "picture" if len(shape) == 4 else "volume"
