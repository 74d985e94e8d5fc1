"""What goes wrong by no fault of the code, and how it is told."""

import os
import sys

PROGRAM = "keras-explain"
APPLICATION = "keras.applications:"
DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


class CommandError(Exception):
    """What a user can mend: it is told without a traceback."""

    code = FAILED


class UsageError(CommandError):
    """A command line that can't be meant."""

    code = MISUSED


def say(text: str) -> None:
    """Writes to stderr, under the program's name."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def tell(text: str) -> None:
    """Writes a line to stdout, and goes on where nobody reads it any more (`| head`).

    What its encoding does not have, such as names of files that are not UTF-8, is written as
    escapes.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
