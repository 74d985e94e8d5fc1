"""What goes wrong by no fault of the code, and how it is told."""

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
