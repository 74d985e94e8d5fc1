"""What tracing a function says of a model, beside the tensors that it returns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Learned:
    """What was learned of a model while a function was traced.

    Attributes:
        units: How many units of the output an index may name; None where it names nothing.
        width: How many units the output that was read has.
        has_probabilities: Whether it is known what its probabilities are.
        as_it_is: Whether it is explained as it is, although a softmax or sigmoid leads to it.
        decides: Whether the model decides by the input, so that other points need it too.
        mapped: The positions of the inputs that lead to the layer of a map; None for no such layer.
        over: The position of the input that a layer's map, or values at a layer, lie over.
        layer_channels: The axis of the channels of values at a layer.
    """

    units: int | None = None
    width: int | None = None
    has_probabilities: bool = False
    as_it_is: bool = False
    decides: bool = False
    mapped: tuple[int, ...] | None = None
    over: int | None = None
    layer_channels: int | None = None
