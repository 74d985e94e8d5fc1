"""Python in a process of its own."""

import os
import subprocess
import sys
import textwrap


def run_python(code, cwd=None, **environment):
    """Runs code, and gives what it printed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
