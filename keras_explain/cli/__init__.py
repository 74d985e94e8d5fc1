"""The command `keras-explain`: explains inputs, lists the methods, writes reports of training.

The command line is read without any heavy library, so that help is there at once.
"""

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from keras_explain.cli import options
from keras_explain.cli.errors import DONE, FAILED, INTERRUPTED, MISUSED, CommandError, say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 a command line that can't be meant.
    """
    parser = options.parser()
    given = parser.parse_args(options.joined(sys.argv[1:] if argv is None else argv))
    if given.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    try:
        with _short_warnings():
            _module(given.command, given.verbose).run(given)
            sys.stdout.flush()
    except BrokenPipeError:  # as in `keras-explain methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except Exception as error:  # whatever it was, a command says so in a line
        return _failed(error, given.debug)
    return DONE


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, (CommandError, ValueError, OSError, ImportError)):
        say(f"error: {error}")
    else:
        say(f"error: {type(error).__name__}: {error}\n--debug shows where.")
    return error.code if isinstance(error, CommandError) else FAILED


def _module(command: str, verbose: bool) -> Any:
    """The module that runs a command, with what it imports."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.nullcontext() if verbose else _stderr_held():
        return importlib.import_module(f"keras_explain.cli.{command}")


@contextlib.contextmanager
def _stderr_held() -> Iterator[None]:
    """Keeps what libraries write to stderr, and shows it where they fail.

    TensorFlow writes messages before it looks at TF_CPP_MIN_LOG_LEVEL.
    """
    sys.stderr.flush()
    stderr, failed = os.dup(2), True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings as a line on stderr, without the place in the code."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
