"""`keras-explain report`."""

from __future__ import annotations

import argparse
import sys
import types

import keras_explain
from keras_explain.cli.errors import CommandError, tell
from keras_explain.cli.files import check_free


def run(options: argparse.Namespace) -> None:
    """Writes the report."""
    if not options.log_dir.is_dir():
        raise CommandError(
            f"Expected a log directory, as of ExplanationLogger(log_dir=...). "
            f"Received: {str(options.log_dir)!r}, which is no directory."
        )
    check_free([options.output], options.force)
    _spare_tensorflow()
    keras_explain.report(options.log_dir, options.output, max_steps=options.max_steps)
    tell(f"Wrote {options.output}")


def _spare_tensorflow() -> None:
    """Lets TensorBoard read files without TensorFlow, which takes seconds to load.

    It does so where it finds a module of this name.
    """
    if "tensorflow" not in sys.modules:
        name = "tensorboard.compat.notf"
        sys.modules.setdefault(name, types.ModuleType(name))
