"""What is needed of TensorFlow and Keras though it is no part of their public interface.

A name is looked up when it is first used; a release that lacks it gives an error that says so.
"""

import functools
import importlib
import operator
from typing import Any

TENSORFLOW = {
    "get_gradient_function": ("tensorflow.python.framework.ops", "differentiate an operation"),
    "record_gradient": ("tensorflow:__internal__", "show a tape what is computed again"),
    "_update_input": ("tensorflow:Operation", "lead an operation to another tensor"),
    "_get_function": ("tensorflow:Graph", "read loops and branches"),
    "_run_functions_eagerly": (
        "tensorflow.python.eager.polymorphic_function.polymorphic_function:Function",
        "open a tf.function inside of the model",
    ),
}
"""By each name the module, or what in it, that has it, and what it is needed to do."""

KERAS = {
    "AutocastScope": ("keras.src.backend", "compute in float32"),
    "get_keras_mask": ("keras.src.backend", "read the masks of time steps"),
    "Functional": ("keras.src.models.functional", "tell Functional models from others"),
    "_convert_inputs_to_tensors": (
        "keras.src.models.functional:Functional",
        "move inputs of integers",
    ),
    "_flatten_layers": ("keras:Layer", "find the layers of a model"),
    "_clear_losses": ("keras:Layer", "leave the losses of the last call"),
    "_dtype_policy": ("keras:Layer", "compute in float32"),
}
"""The same of Keras."""


@functools.cache
def get(name: str) -> Any:
    """The function, class or property of that name in one of the tables.

    Raises:
        ImportError: It is not where it was.
    """
    module, _, owner = _row(name)[0].partition(":")
    try:
        found = importlib.import_module(module)
        return operator.attrgetter(".".join(filter(None, (owner, name))))(found)
    except (ImportError, AttributeError) as error:
        raise _lack(name) from error


def of(owner: Any, name: str) -> Any:
    """The attribute of that name in one of the tables, of an object of TensorFlow's or Keras's.

    Raises:
        ImportError: It has none.
    """
    if not hasattr(owner, name):
        raise _lack(name)
    return getattr(owner, name)


def _row(name: str) -> tuple[str, str]:
    return (TENSORFLOW | KERAS)[name]


def _lack(name: str) -> ImportError:
    library = "TensorFlow" if name in TENSORFLOW else "Keras"
    where, purpose = _row(name)
    version = importlib.import_module(library.lower()).__version__
    return ImportError(
        f"Expected a {library} in which keras_explain can {purpose}, by {name!r} of "
        f"{where.replace(':', '.')}. Received: {library} {version}, which has none there. Install "
        "a version that this release of keras_explain was tested with."
    )
