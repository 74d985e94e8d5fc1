"""The report: one file that asks for nothing, with all that the log has. test_page.py opens it."""

import base64
import builtins
import hashlib
import html.parser
import json
import os
import re

import numpy as np
import pytest

import keras_explain as kx
from keras_explain.sinks import events
from keras_explain.sinks.trees import TreeLog
from keras_explain.tensorboard import report as module
from keras_explain.tensorboard.local import local_reader
from tests import logs

IMPORTED = re.compile(
    r"""^(?:import\s+(?:[^"';]*\sfrom\s+)?|export\s[^"';]*\sfrom\s+)["']([^"']+)["']""",
    re.MULTILINE,
)


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text of its scripts and styles, as a browser takes them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.data, self._open = [], [], {}, (None, {})
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs))

    def handle_data(self, data):
        tag, attrs = self._open
        if tag == "script" and attrs["type"] == "application/json":
            self.data[attrs["id"].removeprefix("keras-explain-")] = json.loads(data)
        elif tag == "script":
            self.scripts.append((attrs["type"], data))

    def handle_endtag(self, tag):
        self._open = (None, {})


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    top = tmp_path_factory.mktemp("logs")
    logs.write(top / "first")
    logs.write(top / "</script><script>alert(1)</script>", steps=2)
    return top


@pytest.fixture(scope="module")
def text(log_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    kx.report(log_dir, path)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_has_what_the_log_has(page, log_dir):
    reader = local_reader(str(log_dir))
    runs = reader.runs()
    assert page.data["runs"] == runs
    numbers = dict(page.data["numbers"])
    assert list(numbers) == list(runs["runs"])
    first = numbers["first"]
    for step in range(logs.STEPS):
        envelope = base64.b64decode(page.data[f"{first}-step-{step}"])
        assert envelope == reader.step("first", step)
    for sample in range(logs.SAMPLES):
        picture = base64.b64decode(page.data[f"{first}-picture-{sample}"])
        assert picture == reader.picture("first", sample)
    scalars = dict(page.data[f"{first}-scalars"])
    assert list(scalars) == runs["runs"]["first"]["scalars"]
    assert scalars["explain/saliency/score"]["values"][3] == 1.5
    assert page.data[f"{first}-tree-8"] == reader.tree("first", 8)
    assert page.data[f"{first}-predictions"] == reader.predictions("first")


def test_it_refers_to_nothing_outside(page, text):
    for tag, attrs in page.elements:
        assert tag in {"html", "head", "meta", "title", "style", "body", "script"}
        assert not {"src", "href"} & attrs.keys()
    modules = [base64.b64decode(url.partition(",")[2]).decode() for url in imports(page).values()]
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for part in [markup, *modules, *(script for _, script in page.scripts)]:
        found = set(re.findall(r"https?://[^\s\"'`)]+", part))
        assert found <= {"http://www.w3.org/2000/svg"}  # the name of a namespace
    assert all(path.read_text("utf-8") in text for path in module._STATIC.glob("*.css"))
    assert "@import" not in text
    assert "url(" not in markup


def imports(page):
    return json.loads(dict(page.scripts)["importmap"])["imports"]


def test_modules_import_each_other_by_names_of_the_map(page):
    known = imports(page)
    assert set(known) == {f"keras_explain/{path.name}" for path in module._STATIC.glob("*.js")}
    for url in known.values():
        kind, _, encoded = url.partition(",")
        assert kind == "data:text/javascript;base64"
        source = base64.b64decode(encoded).decode()
        asked = IMPORTED.findall(source)
        assert set(asked) <= set(known)
    assert re.findall(r'from "(.*)"', dict(page.scripts)["module"]) == ["keras_explain/index.js"]


def test_the_policy_lets_these_scripts_run_and_no_others(page):
    (policy,) = (attrs["content"] for tag, attrs in page.elements if "http-equiv" in attrs)
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    hashes = set(re.findall(r"'sha256-([^']+)'", policy))
    digests = (hashlib.sha256(script.encode()).digest() for _, script in page.scripts)
    assert hashes == {base64.b64encode(digest).decode() for digest in digests}
    assert [kind for kind, _ in page.scripts] == ["importmap", "text/javascript", "module"]


def test_names_can_not_become_markup(page, text):
    assert "<b>dog" not in text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    samples = page.data["runs"]["runs"]["first"]["samples"]
    assert samples["class_names"] == list(logs.NAMES)


def test_steps_can_be_thinned_out(log_dir, tmp_path):
    path = tmp_path / "report.html"
    kx.report(log_dir / "first", path, max_steps=4)
    page = Page(path.read_text("utf-8"))
    assert page.data["runs"]["runs"][""]["steps"] == [0, 4, 7, 11]
    kept = sorted(key for key in page.data if key.startswith("0-step"))
    assert kept == ["0-step-0", "0-step-11", "0-step-4", "0-step-7"]
    kx.report(log_dir / "first", path, max_steps=2)
    run = Page(path.read_text("utf-8")).data["runs"]["runs"][""]
    assert (run["steps"], run["trees"]) == ([0, 11], [0, 8])


def test_what_is_broken_is_a_problem_in_the_report(tmp_path):
    samples = events.samples_blobs(
        {"kind": "pictures", "id": "id", "count": 2, "shape": [4, 3, 3]},
        np.zeros((2, 4, 3, 3), np.uint8),
    )
    logs.write_blobs(
        tmp_path,
        (events.SAMPLES, 0, [samples[0], b"no picture", samples[2]]),
        (events.TREE, 0, [b"no tree"]),
        (events.map_tag("a", 0), 0, [b"no map"]),
    )
    kx.report(tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    said = [problem["tag"] for problem in page.data["runs"]["problems"]]
    assert said == ["keras_explain/samples", "keras_explain/tree"]
    assert base64.b64decode(page.data["0-picture-1"]) == samples[2]
    header, _ = logs.opened(base64.b64decode(page.data["0-step-0"]))
    assert "as JSON" in header["problems"][0]["message"]


def test_a_table_has_no_pictures(tmp_path):
    header = {"kind": "table", "id": "x", "count": 1, "shape": [2], "values": [[1, 2]]}
    logs.write_blobs(
        tmp_path,
        (events.SAMPLES, 0, events.samples_blobs(header)),
        (events.map_tag("a", 0), 0, [b"no map"]),
    )
    kx.report(tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert sorted(page.data) == ["0-scalars", "0-step-0", "numbers", "runs"]
    assert page.data["runs"]["runs"][""]["samples"]["values"] == [[1, 2]]


def test_a_run_of_trees_alone(tmp_path):
    trees = TreeLog(tmp_path)
    trees.write(3, logs.SURROGATE)
    trees.close()
    kx.report(tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    (run,) = page.data["runs"]["runs"].values()
    assert (run["samples"], run["steps"], run["trees"]) == (None, [], [3])
    assert page.data["0-tree-3"]["trees"] == [{"region": None, "tree": logs.TREE}]
    assert page.data["runs"]["problems"] == []


def test_a_training_begun_anew_and_a_folder_that_is_made(tmp_path):
    logs.write_restarted(tmp_path)
    path = tmp_path / "new" / "folder" / "report.html"
    kx.report(tmp_path, path)
    page = Page(path.read_text("utf-8"))
    assert page.data["runs"]["runs"][""]["steps"] == [0, 1, 2]
    header, blobs = logs.opened(base64.b64decode(page.data["0-step-2"]))
    found = logs.values(header["maps"][0], blobs)[0]
    expected = logs.record(2, seed=1).maps[0]
    assert np.abs(found - expected).max() <= np.ptp(expected) / 2**16  # half a step of 16 bits


def test_mistakes_are_said_and_leave_no_file(tmp_path):
    (tmp_path / "empty").mkdir()
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match=r"Expected a directory of logs.*not there"):
        kx.report(tmp_path / "nothing", path)
    with pytest.raises(ValueError, match=r"Expected explanations in .*ExplanationLogger"):
        kx.report(tmp_path / "empty", path)
    with pytest.raises(ValueError, match="max_steps"):
        kx.report(tmp_path, path, max_steps=1)
    with pytest.raises(ValueError, match="Expected a file to write"):
        kx.report(tmp_path, tmp_path / "empty")
    logs.write_scalars(tmp_path / "empty" / "train", "epoch_loss", [1.0])
    with pytest.raises(ValueError, match=r"Received: events without maps, in 'train'\."):
        kx.report(tmp_path / "empty", tmp_path / "new" / "report.html")
    for name in "abc":
        logs.write_scalars(tmp_path / "empty" / name, "loss", [1.0])
    with pytest.raises(ValueError, match=r"in 'a', 'b', 'c', \.\.\.\. `"):
        kx.report(tmp_path / "empty", path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_a_report_that_fails_keeps_the_one_before(log_dir, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")
    monkeypatch.setattr(module, "_data", lambda *_: iter([1 / 1, None]))
    with pytest.raises(TypeError):
        kx.report(log_dir, path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [
        ("report.html", "before")
    ]


@pytest.fixture
def partly_readable(tmp_path, monkeypatch):
    """A log of which a directory, and a file in another one, are another user's."""
    for name in ("mine", "theirs", "half"):
        logs.write(tmp_path / "logs" / name, steps=1)
    (theirs,) = (tmp_path / "logs" / "half").rglob("*tfevents*")
    logs.write(tmp_path / "logs" / "half", steps=1)  # beside it, and readable
    scan, opened = os.scandir, builtins.open

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    def scandir(path):
        return refused(path) if "theirs" in str(path) else scan(path)

    def open_(path, *args, **kwargs):
        return refused(path) if str(path) == str(theirs) else opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(builtins, "open", open_)
    return tmp_path / "logs", theirs


def test_what_can_not_be_read_is_left_out_and_said(partly_readable, tmp_path):
    log_dir, refused = partly_readable
    with pytest.warns(UserWarning, match="leaves out what can't be read.*Permission") as caught:
        kx.report(log_dir, tmp_path / "report.html")
    assert sorted(re.findall("(theirs|half)", " ".join(str(w.message) for w in caught))) == [
        "half",
        "theirs",
    ]
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert list(page.data["runs"]["runs"]) == ["mine"]
    problems = [problem["run"] for problem in page.data["runs"]["problems"]]
    assert sorted(problems) == [str(refused.relative_to(log_dir)), "theirs"]


def test_a_directory_that_is_linked_into_itself_is_read_once(tmp_path):
    logs.write(tmp_path / "logs" / "run", steps=1)
    (tmp_path / "logs" / "run" / "again").symlink_to(tmp_path / "logs", target_is_directory=True)
    kx.report(tmp_path / "logs", tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert list(page.data["runs"]["runs"]) == ["run"]


def test_a_directory_that_is_a_link_is_read(tmp_path):
    logs.write(tmp_path / "elsewhere", steps=1)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    kx.report(tmp_path / "logs", tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert list(page.data["runs"]["runs"]) == ["run"]
