"""A real TensorBoard on a free port, asked over HTTP."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request

# TensorBoard as its command starts it, with the plugin of this tree, installed or not.
PROGRAM = """
import sys
from tensorboard import default, main_lib, program
from keras_explain.tensorboard.plugin import Loader
main_lib.global_init()
server = program.TensorBoard(plugins=[*default.get_static_plugins(), Loader()])
server.configure(sys.argv)
sys.exit(server.main())
"""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def server(log_dir, loader, place):
    """Starts a TensorBoard, and gives a function that returns nothing until it is up."""
    log = place / "log.txt"
    command = [sys.executable, "-c", PROGRAM, "--logdir", str(log_dir), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, f"--load_fast={loader}"], stdout=output, stderr=output
        )
    try:
        yield lambda: _asker(_address(log, process))
    finally:
        process.terminate()
        process.wait(timeout=30)


def _asker(address):
    return address and (lambda route, **query: _get(address, route, query))


def _address(log, process):
    assert process.poll() is None, log.read_text()
    return next((word for word in log.read_text().split() if word.startswith("http://")), None)


def _get(address, route, query):
    url = f"{address}data/{route}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        body = answer.read()
        return json.loads(body) if "json" in answer.headers["Content-Type"] else body
