"""A log that is made up: the page's routes answered from memory, under TensorBoard's policy."""

import contextlib
import http.server
import json
import threading
import urllib.parse
from pathlib import Path

import numpy as np

import keras_explain
from keras_explain.sinks import events

STATIC = Path(keras_explain.__file__).parent / "tensorboard" / "static"
POLICY = (
    "default-src 'self'; font-src 'self' data:; frame-ancestors *; img-src 'self' data: blob:; "
    "object-src 'none'; style-src 'self' https://www.gstatic.com data: 'unsafe-inline'; "
    "connect-src 'self' data:; script-src 'self'"
)
ENTRY = b'<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><body>'
ENTRY += b'<script type="module" src="boot.js"></script>'
BOOT = b'import { render } from "./static/index.js";\nrender();'
TYPES = {".js": "text/javascript", ".css": "text/css"}
JSON, PNG, BINARY = "application/json", "image/png", "application/octet-stream"


class Log:
    """Answers of one run or more; everything in it can be replaced by something worse."""

    def __init__(self, **runs):
        self.runs = runs
        self.problems = []
        self.steps = {}  # (run, step) -> bytes
        self.pictures = {}  # (run, sample) -> bytes
        self.scalars = {}  # (run, tag) -> answer
        self.trees = {}  # (run, step) -> answer
        self.asked = []

    def answer(self, route, query):
        """Status, type and content."""
        self.asked.append((route, query))
        run = query.get("run", "")
        place = int(query.get("step", query.get("sample", 0)))
        found = {
            "runs": lambda: {"schema": 1, "runs": self.runs, "problems": self.problems},
            "step": lambda: self.steps[run, place],
            "picture": lambda: self.pictures[run, place],
            "scalars": lambda: self.scalars.get((run, query["tag"]), {"steps": [], "values": []}),
            "tree": lambda: self.trees[run, place],
        }
        try:
            content = found[route]()
        except KeyError:
            return 404, JSON, json.dumps({"error": f"Expected something logged. Got {query}."})
        if isinstance(content, bytes):
            return 200, PNG if route == "picture" else BINARY, content
        return 200, JSON, json.dumps(content)


def run(kind, count, steps, methods, **header):
    """What `runs` tells of a run."""
    samples = {"schema": 1, "kind": kind, "count": count, "labels": None, "class_names": None}
    samples |= {"shape": [8, 8, 3], "feature_names": None, "words": None, "values": None}
    scalars = header.pop("scalars", [])
    trees = header.pop("trees", [])
    return {
        "samples": samples | header,
        "methods": methods,
        "steps": steps,
        "trees": trees,
        "scalars": scalars,
        "predictions": False,
    }


def one_map(method, sample, values, bits=8, classes=(0,), **more):
    """A map's header, and its blobs; `values` are `[K, ...]`."""
    quantised = [events.quantise(each.reshape(-1, each.shape[-1]), bits) for each in values]
    header = {
        "method": method,
        "sample": sample,
        "bits": bits,
        "shape": list(values.shape[1:]),
        "classes": list(classes),
        "scores": [float(k) for k in range(len(values))],
        "predicted": 0,
        "probability": 0.5,
        "range": [limits for _, limits in quantised],
        "limit": float(np.abs(values).max()),
        "signed": bool((values < 0).any()),
    }
    return header | more, [events.png(codes) for codes, _ in quantised]


def envelope(step, maps, **more):
    """All maps of a step, as the plugin sends them."""
    headers, blobs = [], []
    for header, pictures in maps:
        headers.append({"first": len(blobs), "count": len(pictures)} | header)
        blobs += pictures
    sizes = [len(blob) for blob in blobs]
    header = {"schema": 1, "step": step, "blobs": sizes, "maps": headers, "problems": []}
    return events.envelope(header | more, blobs)


def picture(size=8):
    """A grey picture."""
    return events.png(np.full((size, size, 3), 120, np.uint8))


@contextlib.contextmanager
def served(log):
    """Serves the log and the page on a free port; gives the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, kind, content = _found(log, urllib.parse.urlsplit(self.path))
            content = content if isinstance(content, bytes) else content.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _found(log, url):
    path = url.path.strip("/")
    if path == "":
        return 200, "text/html", ENTRY
    if path == "boot.js":
        return 200, "text/javascript", BOOT
    if path.startswith("static/"):
        file = STATIC / path.removeprefix("static/")
        return 200, TYPES[file.suffix], file.read_bytes()
    return log.answer(path, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True)))
