"""The Explain page in a real browser: in TensorBoard on real logs, in a report, on hostile logs."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse

import keras
import numpy as np
import pytest
from playwright import sync_api

import keras_explain as kx
from tests import mock_log
from tests.server import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("The browser tests need chromium.", allow_module_level=True)

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SERVE = """
import sys, time
from tensorboard import default, program
from keras_explain.tensorboard.plugin import Loader
board = program.TensorBoard(plugins=[*default.get_static_plugins(), Loader()])
board.configure(argv=[None, "--logdir", sys.argv[1], "--port", "0"])
print(board.launch(), flush=True)
time.sleep(3600)
"""
CLASSES = ("up", "down", "<b>side</b>")
EPOCHS, SAMPLES, METHODS = 4, 4, ("input_x_gradient", "saliency")
SHOWN = """() => [...document.querySelectorAll("canvas.map")].filter((map) => map.width > 1).map(
    (map) => [...map.getContext("2d").getImageData(0, 0, map.width, map.height).data].join()
)"""


# Whether a word, a bar or a stripe of a series has a colour other than grey.
COLOURED = """() => {
    const series = document.querySelector("canvas.series");
    const pixels = series?.getContext("2d").getImageData(0, 0, series.width, series.height).data;
    const found = [...document.querySelectorAll(".word, .fill")].map((node) =>
        getComputedStyle(node).backgroundColor.match(/[\\d.]+/g).map(Number));
    for (let i = 0; pixels && i < pixels.length; i += 4) {
        if (pixels[i + 3] > 128) found.push(pixels.slice(i, i + 3)); // edges of lines are coarse
    }
    return found.some(([red, green, blue, opacity = 1]) =>
        opacity && Math.max(red, green, blue) - Math.min(red, green, blue) > 40);
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield launched
        launched.close()


def fit(log_dir, seed, memory):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(24, 6, 9, 3)).astype(np.float32), np.arange(24) % 3
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((6, 9, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    logger = kx.callbacks.ExplanationLogger(
        [kx.InputXGradient(), kx.Saliency()],
        x[:SAMPLES],
        y[:SAMPLES],
        target=[[0, 1]] * SAMPLES,
        class_names=CLASSES,
        sinks=[kx.sinks.TensorBoard(log_dir), memory],
    )
    model.fit(x, y, epochs=EPOCHS, callbacks=[logger], verbose=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A log directory of two runs that real fits wrote, and what was recorded of the first."""
    log_dir, memories = tmp_path_factory.mktemp("logs"), [kx.sinks.Memory(), kx.sinks.Memory()]
    for seed, memory in enumerate(memories):
        fit(log_dir / f"run {seed}", seed, memory)
    return log_dir, memories


@pytest.fixture(scope="module")
def tensorboard(trained):
    """The address of a real TensorBoard with the plugin."""
    command = [sys.executable, "-c", SERVE, str(trained[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process.stdout.readline().decode().strip()
        process.terminate()


class Page:
    """A page and what went wrong in it."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(viewport={"width": 1300, "height": 900}, **options)
        self.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))
        self.view = self.page

    def _hear(self, message):
        if message.type == "error" or "Content Security" in message.text:
            self.errors.append(message.text)

    def go(self, url, framed=False):
        self.page.goto(url)
        if framed:
            self.view = self.page.wait_for_selector("iframe").content_frame()
        self.view.wait_for_selector("[data-ready]")
        self.settle()

    def settle(self):
        self.view.wait_for_selector('.explain:not([aria-busy="true"])')
        self.view.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")

    def set(self, selector, value):
        """Chooses an option, or moves a range input."""
        box = self.view.locator(selector)
        if box.evaluate("(node) => node.tagName") == "SELECT":
            box.select_option(value)
        else:
            box.evaluate(
                "(node, value) => { node.value = value;"
                " for (const kind of ['input', 'change']) node.dispatchEvent(new Event(kind)); }",
                value,
            )
        self.settle()

    def press(self, key):
        self.page.keyboard.press(key)
        self.settle()

    def click(self, selector):
        self.view.locator(selector).first.click()
        self.settle()

    def step(self):
        return int(self.view.locator(".explain").get_attribute("data-step"))

    def wait_for_step(self, step):
        self.view.wait_for_selector(f'.explain[data-step="{step}"]')
        self.settle()

    def shown(self):
        return self.view.evaluate(SHOWN)

    def text(self, selector):
        return self.view.locator(selector).all_inner_texts()

    def download(self, label):
        self.view.locator("summary", has_text="Download").click()
        with self.page.expect_download() as download:
            self.view.get_by_role("button", name=label).click()
        return download.value


@contextlib.contextmanager
def opened(browser, url, framed=False, errors=(), **options):
    """A page that must have no errors but those that are expected, and no others."""
    page = Page(browser, **options)
    try:
        page.go(url, framed)
        yield page
        unexpected = [e for e in page.errors if not any(part in e for part in errors)]
        assert not unexpected
    finally:
        page.context.close()


def in_tensorboard(browser, address, **values):
    """The tab of TensorBoard."""
    parts = [f"p.keras_explain.{name}={urllib.parse.quote(v)}" for name, v in values.items()]
    return opened(browser, f"{address}#{'&'.join(['keras_explain', *parts])}", framed=True)


def frame_alone(browser, address, **values):
    """What TensorBoard has in the tab's frame, which is much faster."""
    link = "&".join(f"{name}={urllib.parse.quote(v)}" for name, v in values.items())
    return opened(browser, f"{address}data/plugin_entry.html?name=keras_explain#{link}")


def drawn_of(memory, method, step, sample, index):
    """A recorded map, without its channels."""
    record = next(r for r in memory.records if (r.name, r.step) == (method, step))
    values = record.explanation.values[sample, index]
    return values if values.ndim == 2 else values.sum(-1)


SLIDER = 'input[aria-label="Step"]'
SAMPLE = 'select[aria-label="Sample whose path is shown"]'
PATH = ".node.path .question"


class TestInTensorBoard:
    def test_the_slider_changes_all_pictures_and_the_keys_do_too(self, browser, tensorboard):
        with in_tensorboard(browser, tensorboard) as page:
            assert page.step() == EPOCHS - 1  # the newest
            newest = page.shown()
            assert len(newest) == SAMPLES * len(METHODS)
            page.set(SLIDER, "0")
            assert page.step() == 0
            first = page.shown()
            assert all(a != b for a, b in zip(newest, first, strict=True))
            page.set('input[aria-label="Exact step"]', "2")
            assert page.step() == 2
            page.view.locator(".cell").first.focus()
            page.press("ArrowRight")
            assert page.step() == 3
            assert page.shown() == newest
            page.press("Home")
            assert page.shown() == first
            page.press("End")
            page.press("ArrowLeft")
            assert page.step() == 2

    def test_play_goes_on_to_the_end_and_stops(self, browser, tensorboard):
        with frame_alone(browser, tensorboard, speed="30", step="0") as page:
            page.press("Space")
            page.wait_for_step(EPOCHS - 1)
            page.view.wait_for_selector('button[aria-label="Play"]')
            page.set('select[aria-label="Steps a second"]', "1")
            page.click('button[aria-label="Play"]')  # from the start again
            page.view.wait_for_selector('button[aria-label="Pause"]')
            page.click('button[aria-label="Pause"]')
            assert page.view.locator('button[aria-label="Play"]').count() == 1

    def test_values_are_those_that_were_recorded(self, browser, tensorboard, trained, tmp_path):
        with frame_alone(browser, tensorboard, step="1", explained="1") as page:
            maps = json.loads(page.download("JSON").path().read_text())["maps"]
            arrays = page.download(".npz")
            arrays.save_as(tmp_path / "maps.npz")
        memory = trained[1][0]
        assert [(m["method"], m["sample"]) for m in maps] == [
            (method, sample) for method in METHODS for sample in range(SAMPLES)
        ]
        with np.load(tmp_path / "maps.npz") as loaded:
            for one in maps:
                expected = drawn_of(memory, one["method"], 1, one["sample"], 1)
                span = expected.max() - expected.min()
                np.testing.assert_allclose(one["values"], expected, atol=span / 2**15)
                same = loaded[one["method"]][one["sample"]]
                np.testing.assert_array_equal(same, np.float32(one["values"]))
                assert one["class"] == 1
            assert loaded["step"] == [1]
            assert (loaded["saliency.samples"] == range(SAMPLES)).all()

    def test_classes_switch(self, browser, tensorboard):
        with frame_alone(browser, tensorboard) as page:
            first = page.shown()
            page.set('select[aria-label="Explained class"]', "1")
            assert all(a != b for a, b in zip(first, page.shown(), strict=True))
            assert page.text(".caption")[0].startswith("down")
            page.set('select[aria-label="Explained class"]', "true")
            captions = page.text(".caption")
            assert captions[0].startswith("up")
            assert captions[2].startswith("down")
            message = page.text(".grid .message")
            assert "<b>side</b> was not explained here." in message

    def test_two_runs_at_the_same_step(self, browser, tensorboard):
        with frame_alone(browser, tensorboard, step="2") as page:
            alone = page.shown()
            page.set('select[aria-label="Compare with run"]', "run 1")
            both = page.shown()
            assert len(both) == 2 * len(alone)
            assert page.text("th .runs")[0] == "run 0 | run 1"
            page.set('select[aria-label="Run"]', "run 1")
        with frame_alone(browser, tensorboard, step="2", scale="map", versus="run 1") as page:
            both = page.shown()
            page.set('select[aria-label="Compare with run"]', "none")
            assert page.shown() == both[::2]
            page.set('select[aria-label="Run"]', "run 1")
            assert page.shown() == both[1::2]

    def test_a_link_restores_what_is_seen(self, browser, tensorboard):
        with in_tensorboard(browser, tensorboard) as page:
            page.set(SLIDER, "1")
            page.set('select[aria-label="Explained class"]', "1")
            page.set('input[aria-label="Threshold"]', "30")
            page.click("label:has-text('Absolute')")
            page.set('select[aria-label="Absolute colours"]', "inferno")
            page.page.wait_for_url("**sequential=inferno*")
            url, shown = page.page.url, page.shown()
            assert url.split("#")[1].startswith("keras_explain&p.keras_explain.")
        with opened(browser, url, framed=True) as page:
            assert page.step() == 1
            assert page.shown() == shown

    def test_dark_follows_tensorboard(self, browser, tensorboard):
        colour = "() => getComputedStyle(document.body).backgroundColor"
        with in_tensorboard(browser, tensorboard) as page:
            light = page.view.evaluate(colour)
            page.page.evaluate("() => document.body.classList.toggle('dark-mode')")
            page.view.wait_for_selector('html[data-theme="dark"]')
            assert page.view.evaluate(colour) != light
            page.page.evaluate("() => document.body.classList.toggle('dark-mode')")
            page.view.wait_for_selector('html[data-theme="light"]')
            assert page.view.evaluate(colour) == light

    def test_filters(self, browser, tensorboard, trained):
        memory = trained[1][0]
        record = next(r for r in memory.records if r.step == 3)
        right = record.predicted == record.labels
        rows = '() => [...document.querySelectorAll("tbody tr")].map((r) => +r.dataset.sample)'
        with frame_alone(browser, tensorboard) as page:
            for outcome, expected in (("correct", right), ("wrong", ~right)):
                page.set('select[aria-label="Samples by prediction"]', outcome)
                assert page.view.evaluate(rows) == np.flatnonzero(expected).tolist()
            page.set('select[aria-label="Samples by prediction"]', "all")
            page.set('select[aria-label="Class of the samples"]', "1")
            assert page.view.evaluate(rows) == np.flatnonzero(record.labels == 1).tolist()
            page.set('select[aria-label="Samples by prediction"]', "ever")
            steps = [r.predicted[1] for r in memory.records if r.name == METHODS[0]]
            assert len(page.view.evaluate(rows)) == int(len(set(steps)) > 1)

    def test_an_enlarged_map_tells_its_values_by_keyboard(self, browser, tensorboard, trained):
        with frame_alone(browser, tensorboard, step="2") as page:
            page.view.locator(".cell").first.focus()
            page.press("Enter")
            page.press("ArrowRight")
            page.press("ArrowLeft")
            assert page.text(".zoom p.where") == ["x 3, y 3"]
            told = [float(value) for value in page.text(".zoom td")[: len(METHODS)]]
            expected = [drawn_of(trained[1][0], m, 2, 0, 0)[3, 3] for m in METHODS]
            np.testing.assert_allclose(told, expected, rtol=2e-3, atol=1e-5)
            page.press(",")
            assert page.step() == 1  # it follows the slider
            assert "step 1" in page.text(".zoom h2")[0]
            page.press("Escape")
            assert not page.view.locator(".zoom").is_visible()

    def test_views_and_the_swipe(self, browser, tensorboard):
        with frame_alone(browser, tensorboard) as page:
            page.click("text=Side by side")
            assert page.view.locator(".tile.input").count() == SAMPLES * len(METHODS)
            page.click("label:has-text('Swipe')")
            tile = page.view.locator(".tile.swipe").first
            box = tile.bounding_box()
            page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40, steps=4)
            page.page.mouse.up()
            page.settle()
            assert page.view.locator('input[aria-label="Swipe"]').input_value() == "25"
            left = tile.locator(".map").first.evaluate("(map) => getComputedStyle(map).clipPath")
            assert left == "inset(0px 75% 0px 0px)"
            assert not page.view.locator(".zoom").is_visible()  # a drag is no click

    def test_charts_show_the_step(self, browser, tensorboard, trained):
        with frame_alone(browser, tensorboard, step="1") as page:
            chart = page.view.locator(".chart", has=page.view.locator("h3", has_text="score"))
            chart.locator(".marker").wait_for(state="attached")
            records = [r for r in trained[1][0].records if r.step == 1]
            told = [float(value) for value in chart.locator(".value").all_inner_texts()]
            expected = [r.scalars["score"] for r in records]
            np.testing.assert_allclose(told, expected, rtol=1e-2)
            before = chart.locator(".marker").get_attribute("x1")
            page.set(SLIDER, "3")
            assert chart.locator(".marker").get_attribute("x1") != before
            chart.locator(".plot").click(position={"x": 3, "y": 30})
            page.settle()
            assert page.step() == 0

    def test_everything_has_a_name_and_is_reached_by_keyboard(self, browser, tensorboard):
        nameless = """() => [...document.querySelectorAll("button, select, input, summary")].filter(
            (node) => !(node.ariaLabel || node.labels?.[0]?.textContent || node.textContent).trim()
        ).map((node) => node.outerHTML)"""
        with frame_alone(browser, tensorboard, mode="swipe") as page:
            assert page.view.evaluate(nameless) == []
            positive = "() => document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length"
            assert page.view.evaluate(positive) == 0

    def test_the_picture_of_the_table(self, browser, tensorboard):
        with frame_alone(browser, tensorboard) as page:
            data = page.download("PNG").path().read_bytes()
        width, height = np.frombuffer(data[16:24], ">u4")
        assert data[:4] == b"\x89PNG"
        assert width > 900
        assert height > 900
        assert len(data) > 20_000


class TestReport:
    def test_it_opens_from_disk_and_does_the_same(self, browser, trained, tmp_path):
        kx.report(trained[0], tmp_path / "report.html")
        url = (tmp_path / "report.html").as_uri()
        asked = []
        with opened(browser, url, color_scheme="dark") as page:
            page.page.on("request", lambda request: asked.append(request.url))
            assert page.view.locator('html[data-theme="dark"]').count() == 1
            newest = page.shown()
            assert len(newest) == SAMPLES * len(METHODS)
            page.set(SLIDER, "0")
            first = page.shown()
            assert all(a != b for a, b in zip(newest, first, strict=True))
            page.set('select[aria-label="Compare with run"]', "run 1")
            assert len(page.shown()) == 2 * len(newest)
            page.page.wait_for_url("**#*versus=run%201*")
            link, both = page.page.url, page.shown()
            maps = json.loads(page.download("JSON").path().read_text())["maps"]
            assert len(maps) == len(both)
            page.page.emulate_media(color_scheme="light")
            page.view.wait_for_selector('html[data-theme="light"]')
        with opened(browser, link) as page:
            assert page.shown() == both
        assert not [request for request in asked if request.startswith("http")]


def signed(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pictures_log(**header):
    log = mock_log.Log(one=mock_log.run("pictures", 2, [0, 1], ["a", "b"], **header))
    for step in (0, 1):
        maps = [
            mock_log.one_map(m, s, signed(1, 8, 8, seed=step)) for m in ("a", "b") for s in (0, 1)
        ]
        log.steps["one", step] = mock_log.envelope(step, maps)
    log.pictures = {("one", sample): mock_log.picture() for sample in (0, 1)}
    return log


class TestHostile:
    def test_markup_in_every_text_stays_text(self, browser):
        bad = "<img src=x onerror=\"document.title='hacked'\"><script>alert(1)</script>"
        names = [bad, bad]
        log = pictures_log(class_names=names, labels=[0, 1])
        log.runs = {bad: log.runs["one"], "__proto__": log.runs["one"]}
        log.runs[bad]["methods"] = [bad]
        log.runs[bad]["scalars"] = [f"explain/{bad}/{bad}"]
        log.problems = [{"run": bad, "tag": bad, "message": bad}]
        maps = [mock_log.one_map(bad, sample, signed(1, 8, 8)) for sample in (0, 1)]
        for step in (0, 1):
            log.steps[bad, step] = mock_log.envelope(step, maps, problems=[{"message": bad}])
        log.pictures = {(bad, sample): mock_log.picture() for sample in (0, 1)}
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.text(".grid .title") == [bad]
            assert page.text(".truth")[0] == bad
            page.click(".cell")
            assert bad in page.text(".zoom h2")[0]
            assert len(page.shown()) == 3
            assert page.view.locator("script:not([src]), img[onerror]").count() == 0
            assert page.page.title() == "Explanations"

    def test_a_broken_map_is_a_message_and_the_rest_works(self, browser):
        log = pictures_log()
        good = signed(1, 8, 8)
        _, [png] = mock_log.one_map("a", 0, good)
        huge = png[:16] + b"\x7f\xff\xff\xff" * 2 + png[24:]
        broken = {
            "cut": ({}, [png[:40]]),
            "missing": ({"first": 99}, [png]),
            "no range": ({"range": [[None, "x"]]}, [png]),
            "nonsense": ({"range": 3, "classes": "x", "scores": None, "shape": {}}, [b"hello"]),
            "huge": ({}, [huge]),
            "shape": ({"shape": [4, 4]}, [png]),
            "bits": ({"bits": 7}, [png]),
        }
        log.runs["one"]["methods"] = ["good", *broken]
        header, _ = mock_log.one_map("a", 0, good)
        maps = [mock_log.one_map("good", 0, good)]
        maps += [
            (header | {"method": name} | more, blobs) for name, (more, blobs) in broken.items()
        ]
        log.steps["one", 1] = mock_log.envelope(1, maps)
        with mock_log.served(log) as url, opened(browser, url) as page:
            row = page.view.locator("tbody tr").first
            messages = [text for text in row.locator(".message").all_inner_texts() if text]
            assert len(messages) == len(broken)
            assert "missing" in messages[1]
            assert "Expected 8 or 16 bits. Received: 7." in messages[-1]
            assert len(page.shown()) == 1
            page.set(SLIDER, "0")  # the good step has none of these methods
            assert "Nothing was logged at step 0." in page.text(".message")

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xff\xff\xffno", mock_log.envelope(1, [], schema=9)]
    )
    def test_a_broken_step_is_said_and_another_one_is_shown(self, browser, content):
        log = pictures_log()
        log.steps["one", 1] = content
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.view.locator("details.problems").count() == 1
            assert page.text(".grid .message")[0].startswith("Expected")
            page.set(SLIDER, "0")
            assert len(page.shown()) == 4
            assert page.view.locator("details.problems").count() == 0

    def test_runs_that_are_not_as_they_should_be(self, browser):
        log = pictures_log()
        worse = mock_log.run("pictures", 10**9, [0], ["a"])
        wrong = {"samples": {"schema": 7}, "methods": ["a"], "steps": [0]}
        log.runs |= {"wrong": wrong, "none": {}, "many": worse, "null": None}
        log.steps["many", 0] = mock_log.envelope(0, [])
        with mock_log.served(log) as url, opened(browser, url, errors=["404"]) as page:
            page.click(".problems summary")
            assert len(page.text(".problems li")) == 3
            assert len(page.shown()) == 4
            page.set('select[aria-label="Run"]', "many")
            assert page.view.locator("tbody tr").count() == 1000

    def test_a_missing_picture_is_a_message(self, browser):
        log = pictures_log()
        del log.pictures["one", 0]
        log.pictures["one", 1] = b"no picture"
        with mock_log.served(log) as url, opened(browser, url, errors=["404"]) as page:
            page.view.locator(".tile .message", has_text="broken or missing").first.wait_for()
            assert len(page.shown()) == 4

    def test_a_link_that_is_no_state(self, browser):
        link = "#step=1e99&mode=<b>&opacity=zzz&hidden={&run=%E0%A4%A&constructor=1&sample=-5"
        with mock_log.served(pictures_log()) as url, opened(browser, url + link) as page:
            assert len(page.shown()) == 4


class TestKinds:
    def test_nothing_logged_says_how_to_log(self, browser):
        with mock_log.served(mock_log.Log()) as url, opened(browser, url) as page:
            assert "ExplanationLogger" in page.text(".empty code")[0]

    def test_a_server_that_fails_is_said(self, browser):
        log = mock_log.Log()
        log.runs = None
        log.answer = lambda *_: (500, mock_log.JSON, json.dumps({"error": "The disk is full."}))
        with mock_log.served(log) as url, opened(browser, url, errors=["500"]) as page:
            assert "The disk is full." in page.text("[role=alert]")[0]

    def test_what_is_below_float_precision_has_words_and_no_colours(self, browser):
        log = pictures_log()
        values = signed(1, 8, 8)
        maps = [
            mock_log.one_map("a", 0, 1e-9 * values, reliable=[False], gap=[5.0]),
            mock_log.one_map("a", 1, 0 * values, reliable=[False], gap=[None]),
            mock_log.one_map("b", 0, values, reliable=[True], gap=[0.344], error=[0.128]),
            mock_log.one_map("b", 1, values, reliable=[True], gap=[0.09], error=[None]),
        ]
        log.steps["one", 1] = mock_log.envelope(1, maps)
        with mock_log.served(log) as url, opened(browser, url) as page:
            drawn = [text for text in page.text(".tile .message") if text]
            assert drawn == ["below float precision", "zero everywhere"]
            captions = page.text(".caption")
            assert captions[0] == "0 0 · below float precision"
            said = ["gap 34 % · error 13 %", "zero everywhere", "error unknown"]
            assert captions[1:] == [f"0 0 · {words}" for words in said]
            assert page.view.locator("canvas.map:visible").count() == 2
            page.click(".cell")
            assert "below float precision" in page.text(".stage .message")
            assert page.view.locator(".stage canvas.map:visible").count() == 0
            page.press("Escape")
            page.set(SLIDER, "0")  # a step that was logged before there were such fields
            assert page.view.locator("canvas.map:visible").count() == 4
            assert not any(page.text(".grid .message"))

    @pytest.mark.parametrize("kind", ["text", "table", "series"])
    def test_other_kinds_have_no_colours_below_float_precision(self, browser, kind):
        given = {
            "text": {"words": [["good", "film"]], "shape": [2]},
            "table": {"values": [[39.0, 1.0]], "feature_names": ["age", "gain"]},
            "series": {"values": [[1.0, 2.0]], "shape": [2]},
        }[kind]
        log = mock_log.Log(one=mock_log.run(kind, 1, [0], ["a"], **given))
        values = np.array([[1.0, -2.0]], np.float32)
        painted = []
        for known in (True, False):
            one = mock_log.one_map("a", 0, values, bits=16, reliable=[known])
            log.steps["one", 0] = mock_log.envelope(0, [one])
            with mock_log.served(log) as url, opened(browser, url) as page:
                painted.append(page.view.evaluate(COLOURED))
                assert ("below float precision" in page.text(".message")) == (not known)
        assert painted == [True, False]

    def test_words_are_coloured(self, browser):
        words = [["good", "<i>film</i>", "bad"]]
        log = mock_log.Log(one=mock_log.run("text", 1, [0], ["a"], words=words, shape=[5]))
        values = np.array([[2.0, 0.0, -1.0, 0.0, 0.0]], np.float32)
        log.steps["one", 0] = mock_log.envelope(0, [mock_log.one_map("a", 0, values, bits=16)])
        with mock_log.served(log) as url, opened(browser, url) as page:
            spans = page.view.locator(".word")
            assert spans.all_inner_texts() == words[0]
            colours = spans.evaluate_all("(all) => all.map((one) => one.style.backgroundColor)")
            red, clear, blue = [
                np.array(c.strip("rgba()").split(","), float) if c else None for c in colours
            ]
            assert red[0] > red[2]
            assert blue[2] > blue[0]
            assert red[3] > blue[3] > 0
            assert clear[3] == 0

    def test_rows_of_tables_are_bars_and_the_tree_has_their_path(self, browser):
        raw = [[39.0, 0.0], [20.0, 5.0]]
        run = mock_log.run(
            "table", 2, [0, 1], ["a"], values=raw, feature_names=["age", "gain"], trees=[0]
        )
        log = mock_log.Log(one=run)
        values = np.array([[1.0, -0.5]], np.float32)
        for step in (0, 1):
            maps = [mock_log.one_map("a", s, values, bits=16) for s in (0, 1)]
            log.steps["one", step] = mock_log.envelope(step, maps)
        log.trees["one", 0] = tree_answer("inputs")
        with mock_log.served(log) as url, opened(browser, url) as page:
            widths = page.view.locator("tbody tr").first.locator(".fill")
            sizes = widths.evaluate_all("(all) => all.map((one) => one.style.width)")
            assert sizes == ["50%", "25%"]
            assert page.text(".feature")[:2] == ["age", "gain"]
            assert page.text(".raw")[:2] == ["39", "0"]
            page.click("label:has-text('Decision tree')")
            path = page.view.locator(PATH)
            assert path.all_text_contents() == ["rich", "age ≤ 30"]
            page.view.locator(SAMPLE).focus()
            page.press("ArrowDown")
            assert path.all_text_contents() == ["poor", "gain ≤ 6", "age ≤ 30"]
            label = page.view.locator("svg.tree").get_attribute("aria-label")
            assert label.endswith("path: age ≤ 30, then gain ≤ 6, then class poor.")
            page.press("ArrowUp")  # the focus has stayed
            assert path.all_text_contents() == ["rich", "age ≤ 30"]

    @pytest.mark.parametrize(
        ("rows", "more", "said"),
        [
            ("the units of layer 'h'", {}, "asks about the units of layer 'h', not about the"),
            ("regions", {}, "asks about regions, not about the columns of the samples: no path"),
            (None, {}, "The log does not say what this tree asks about: no path"),
            ("inputs", {"kind": "text", "words": [["a", "b"]]}, "The samples are no rows"),
            ("inputs", {"values": [[1.0, 2.0, 3.0]]}, "2 columns, and the samples have 3"),
            ("inputs", {"values": [[None, 2.0]]}, "Not all values of this sample are numbers"),
        ],
    )
    def test_no_path_where_the_tree_asks_about_something_else(self, browser, rows, more, said):
        header = {"kind": "table", "values": [[39.0, 0.0]]} | more
        run = mock_log.run(header.pop("kind"), 1, [], ["a"], trees=[0], **header)
        log = mock_log.Log(one=run)
        log.trees["one", 0] = tree_answer(rows)
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.view.locator(".tree .node").count() == 5
            assert page.view.locator(PATH).count() == 0
            assert said in page.text(".treesection .hint")[0]

    def test_a_run_of_trees_alone_is_its_trees(self, browser):
        run = mock_log.run("table", 1, [], [], trees=[0, 5]) | {"samples": None}
        log = mock_log.Log(one=run)
        log.trees = {("one", step): tree_answer("inputs") for step in (0, 5)}
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.text(".treesection h2")[0].startswith("Decision tree of step 5")
            assert page.text(".treebar .hint") == [
                "Log samples with ExplanationLogger into the same log_dir to see their paths."
            ]
            assert "keras.callbacks.TensorBoard with the same log_dir" in page.text(".panel")[0]
            words = page.view.locator("header.toolbars").inner_text()
            hidden = ("Threshold", "Scale", "Order", "Methods", "Class", "Samples", "Raw values")
            assert not [each for each in hidden if each in words]
            assert page.view.locator(".menu button:not([hidden])", has_text="PNG").count() == 1
            page.press("ArrowLeft")
            assert page.text(".treesection h2")[0].startswith("Decision tree of step 0")

    def test_maps_and_trees_have_steps_of_their_own(self, browser):
        run = mock_log.run("table", 1, [4, 8], ["a"], values=[[39.0, 0.0]], trees=[0, 5, 10])
        log = mock_log.Log(one=run)
        values = np.array([[1.0, -0.5]], np.float32)
        for step in (4, 8):
            log.steps["one", step] = mock_log.envelope(
                step, [mock_log.one_map("a", 0, values, bits=16)]
            )
        log.trees = {("one", step): tree_answer("inputs") for step in (0, 5, 10)}
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.step() == 8
            page.click("label:has-text('Decision tree')")
            assert page.step() == 10  # the newest is followed
            page.set(SLIDER, "1")
            assert page.step() == 5
            page.click("label:has-text('Maps')")
            assert page.step() == 4
            page.set(SLIDER, "1")
            assert page.step() == 8
            assert page.view.locator(".fill").count() == 2

    def test_a_tree_is_seen_whole_or_at_full_size(self, browser):
        node = {"class": 0, "rows": 1, "counts": [1, 0]}
        for depth in range(8):
            inner = {"feature": 0, "threshold": 0.00802, "left": dict(node), "right": node}
            node = {"class": 0, "rows": depth + 2, "counts": [depth + 2, 0]} | inner
        names = ["mean concave points of all the cells", "gain"]
        log = mock_log.Log(one=mock_log.run("table", 1, [], [], trees=[0]) | {"samples": None})
        tree = TREE | {"root": node, "features": names, "rows": 9}
        log.trees["one", 0] = tree_answer("inputs", tree)
        room = "(box) => [box.scrollWidth - box.clientWidth, box.scrollHeight - box.clientHeight]"
        inside = """(boxes) => boxes.every((box) =>
            box.querySelector('text').getBBox().width <= box.querySelector('rect').getBBox().width)
        """
        with mock_log.served(log) as url, opened(browser, url) as page:
            scroll = page.view.locator(".treesection .scroll")
            assert scroll.evaluate(room) == [0, 0]
            assert page.view.locator(".node").evaluate_all(inside)
            question = page.view.locator(".question").last.text_content()
            assert question.startswith("mean concave")
            assert question.endswith("… ≤ 0.00802")
            page.click("label:has-text('Full size')")
            assert scroll.evaluate(room)[0] > 200
            assert scroll.bounding_box()["y"] + scroll.bounding_box()["height"] < 900

    def test_a_real_tree_and_the_way_of_a_sample_through_it(self, browser, tmp_path):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(80, 3)).astype(np.float32)
        y = ((x[:, 0] > 0.2) | (x[:, 1] > 0.8)).astype(np.int32)
        keras.utils.set_random_seed(0)
        net = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
        )
        model = kx.TreeRegularization(
            net, reference=x, strength=1e-3, class_names=["no", "yes"], log_dir=tmp_path / "run"
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.05), loss)
        logger = kx.callbacks.ExplanationLogger(
            [kx.InputXGradient()], x[:5], y[:5], log_dir=tmp_path / "run"
        )
        model.fit(x, y, epochs=4, callbacks=[logger], verbose=0)
        kx.report(tmp_path, tmp_path / "report.html")
        link = (tmp_path / "report.html").as_uri() + "#page=tree"
        with opened(browser, link) as page:
            for sample in range(5):
                page.set(SAMPLE, str(sample))
                label = page.view.locator("svg.tree").get_attribute("aria-label")
                assert label.endswith(f"path: {way(model.tree, x[sample])}.")


def way(tree, row):
    """The way of a row through a tree, as the page tells it."""
    description, said = tree.to_dict(), []
    node = description["root"]
    while "left" in node:
        left = row[node["feature"]] <= node["threshold"]
        name = description["features"][node["feature"]]
        threshold = float(f"{node['threshold']:.3g}")
        said.append(f"{name} {'≤' if left else '>'} {threshold:g}")
        node = node["left" if left else "right"]
    assert node["class"] == tree.predict(row[None])[0]
    return ", then ".join([*said, f"class {description['classes'][node['class']]}"])


def tree_answer(rows, tree=None):
    """A logged tree that asks about `rows`."""
    trees = [{"region": None, "tree": tree or TREE}]
    return {"schema": 1, "trees": trees} | ({} if rows is None else {"rows": rows})


class TestStates:
    def test_a_pasted_link_brings_back_all_that_it_does_not_say(self, browser):
        with mock_log.served(pictures_log()) as url, opened(browser, url) as page:
            first = page.shown()
            page.click("label:has-text('Absolute')")
            page.set(SLIDER, "0")
            page.click("text=Side by side")
            page.page.wait_for_url("**mode=side*")
            page.page.evaluate("() => { location.hash = 'size=small'; }")
            page.view.wait_for_selector('.grid[data-size="small"][data-mode="overlay"]')
            page.wait_for_step(1)
            assert page.shown() == first

    def test_the_menu_of_methods_by_keyboard(self, browser):
        focused = "() => document.activeElement.closest('.methods label')?.innerText"
        with mock_log.served(pictures_log()) as url, opened(browser, url) as page:
            page.view.locator("summary", has_text="Methods").focus()
            page.press("Enter")
            page.press("Tab")
            page.press("Space")
            assert page.text(".grid .title") == ["b"]
            assert page.view.evaluate(focused) == "a"
            page.press("Tab")
            page.press("Space")
            assert page.text(".empty p") == ["All methods are hidden."]
            assert page.view.locator('button[aria-label="Play"]').count() == 1
            page.press("Escape")
            assert page.view.evaluate("() => document.activeElement.innerText") == "Methods"
            assert not page.view.locator(".methods").is_visible()
            page.click("text=Show all methods")
            assert page.text(".grid .title") == ["a", "b"]

    def test_colours_of_a_method_stay_when_a_step_has_no_negative_values(self, browser):
        log = pictures_log()
        step = [mock_log.one_map(m, s, abs(signed(1, 8, 8))) for m in "ab" for s in (0, 1)]
        log.steps["one", 0] = mock_log.envelope(0, step)
        with mock_log.served(log) as url, opened(browser, url + "#scale=step") as page:
            for step in ("1", "0"):
                page.set(SLIDER, step)
                assert page.text(".scale span:first-child")[0].startswith("-")
                assert page.view.get_by_label("Signed colours").is_visible()

    def test_a_map_that_could_not_be_read_says_why(self, browser):
        log = pictures_log()
        tag = "keras_explain/maps/a/0"
        problem = {"run": "one", "tag": tag, "message": "Expected a PNG. Received: soup."}
        maps = [mock_log.one_map("b", sample, signed(1, 8, 8)) for sample in (0, 1)]
        log.steps["one", 1] = mock_log.envelope(1, maps, problems=[problem])
        with mock_log.served(log) as url, opened(browser, url) as page:
            messages = [text for text in page.text(".grid .message") if text]
            assert messages == [problem["message"], "Nothing was logged at step 1."]
            page.click(".problems summary")
            assert page.text(".problems li") == [f"one: {tag}: {problem['message']}"]

    def test_a_map_without_numbers_says_so(self, browser):
        log = pictures_log()
        nothing = np.full((1, 8, 8), np.nan, np.float32)
        maps = [mock_log.one_map("a", 0, nothing, bits=16, limit=None)]
        log.steps["one", 1] = mock_log.envelope(1, maps)
        with mock_log.served(log) as url, opened(browser, url) as page:
            assert page.text(".caption")[0].endswith(", no number")
            assert page.text(".tile .message")[0] == "No value of this map is a number."
            assert page.view.locator("canvas.map:visible").count() == 0

    def test_charts_have_one_axis_and_a_dot_for_a_single_value(self, browser):
        log = pictures_log()
        log.runs["one"]["scalars"] = ["train/once", "train/epoch_loss"]
        log.scalars["one", "train/once"] = {"steps": [1], "values": [3.0]}
        log.scalars["one", "train/epoch_loss"] = {"steps": [0, 1, 2], "values": [3, 2, 1]}
        places = (
            "(all) => all.map((one) => one.getBoundingClientRect()).map((b) => b.x + b.width / 2)"
        )
        with mock_log.served(log) as url, opened(browser, url) as page:
            page.view.wait_for_selector(".curve[d*=L]", state="attached")
            dot = page.view.locator(".dot:not([d=''])")
            dot.wait_for(state="attached")
            assert dot.get_attribute("d").startswith("M160.0 ")
            marked = page.view.locator(".marker").evaluate_all(places)
            assert len(marked) == 2
            assert marked[0] == marked[1]

    def test_values_lie_beside_the_enlarged_map(self, browser):
        boxes = """() => [".stage", ".zoom .values", ".zoom"].map(
            (name) => document.querySelector(name).getBoundingClientRect()
        ).map(({left, right, top, bottom}) => ({left, right, top, bottom}))"""
        for mode in ("overlay", "side"):
            link = f"#mode={mode}"
            with mock_log.served(pictures_log()) as url, opened(browser, url + link) as page:
                page.click(".cell")
                stage, values, dialog = page.view.evaluate(boxes)
                assert values["left"] >= stage["right"]
                assert max(values["bottom"], stage["bottom"]) <= dialog["bottom"]
                assert values["right"] <= dialog["right"]

    def test_series_are_lines_whose_values_can_be_read(self, browser):
        raw = [np.linspace(0, 1, 12).reshape(6, 2).tolist()]
        log = mock_log.Log(one=mock_log.run("series", 1, [0], ["a"], values=raw, shape=[6, 2]))
        values = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
        log.steps["one", 0] = mock_log.envelope(0, [mock_log.one_map("a", 0, values, bits=16)])
        with mock_log.served(log) as url, opened(browser, url) as page:
            page.click(".cell")
            box = page.view.locator(".stage canvas").bounding_box()
            page.page.mouse.move(box["x"] + box["width"] * 2.5 / 6, box["y"] + box["height"] - 20)
            assert page.text(".zoom p.where") == ["channel 1, moment 2: 0.455"]
            assert float(page.text(".zoom td")[0]) == pytest.approx(5, abs=1e-3)


TREE = {
    "features": ["age", "gain"],
    "classes": ["poor", "rich"],
    "rows": 10,
    "average_path_length": 1.5,
    "leaves": 3,
    "depth": 2,
    "fidelity": 0.9,
    "root": {
        "class": 0,
        "rows": 10,
        "counts": [6, 4],
        "feature": 0,
        "threshold": 30.0,
        "left": {
            "class": 0,
            "rows": 6,
            "counts": [5, 1],
            "feature": 1,
            "threshold": 6.0,
            "left": {"class": 0, "rows": 5, "counts": [5, 0]},
            "right": {"class": 1, "rows": 1, "counts": [0, 1]},
        },
        "right": {"class": 1, "rows": 4, "counts": [1, 3]},
    },
}


def smooth(seed, size=224):
    """A map like Grad-CAM's: few numbers, enlarged."""
    coarse = np.random.default_rng(seed).normal(size=(9, 9))
    at = np.linspace(0, 8, size)
    rows = np.stack([np.interp(at, range(9), column) for column in coarse.T], 1)
    return np.stack([np.interp(at, range(9), row) for row in rows]).astype(np.float32)[None]


@pytest.mark.slow
def test_speed_of_many_epochs(browser):
    """Prints what 200 epochs x 16 samples x 4 methods of 224 x 224 take; asserts no times."""
    methods = ["grad_cam", "integrated_gradients", "saliency", "smooth_grad"]
    named = [(method, sample) for method in methods for sample in range(16)]
    maps = [mock_log.one_map(*name, smooth(seed)) for seed, name in enumerate(named)]
    run = mock_log.run("pictures", 16, list(range(200)), methods, shape=[224, 224, 3])
    log = mock_log.Log(big=run)
    for step in range(200):
        turned = [(maps[i][0], maps[(i + step) % 64][1]) for i in range(64)]
        log.steps["big", step] = mock_log.envelope(step, turned)
    log.pictures = {("big", sample): mock_log.picture(224) for sample in range(16)}
    with mock_log.served(log) as url:
        begin = time.perf_counter()
        with opened(browser, url + "#step=100") as page:
            first = time.perf_counter() - begin
            wait_for(lambda: len([q for r, q in log.asked if r == "step"]) >= 5)
            seen = [101, 102, 103, 102, 101, 100]
            page.view.evaluate(STEPPING, seen)
            times = page.view.evaluate(STEPPING, seen)
            page.view.evaluate(STEPPING, list(range(5, 200, 10)))  # far more than the caches hold
            session = page.context.new_cdp_session(page.page)
            session.send("Performance.enable")
            metrics = session.send("Performance.getMetrics")["metrics"]
            heap = next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize")
            assert page.step() == 195
            assert page.view.locator("tbody tr").count() == 16
    size = len(log.steps["big", 0]) / 2**20
    print(
        f"\n200 x 16 x 4, {size:.1f} MiB a step: first view {first:.2f} s; steps from the cache "
        f"{np.median(times):.0f} ms (at most {max(times):.0f}); "
        f"heap {heap / 2**20:.0f} MiB"
    )


STEPPING = """async (steps) => {
    const root = document.querySelector(".explain");
    const slider = document.querySelector('input[aria-label="Step"]');
    const times = [];
    for (const step of steps) {
        const begin = performance.now();
        slider.value = step;
        slider.dispatchEvent(new Event("input"));
        while (root.dataset.step !== String(step)) {
            const channel = new MessageChannel(); // sooner than a timeout
            await new Promise((done) => {
                channel.port1.onmessage = done;
                channel.port2.postMessage(0);
            });
        }
        times.push(performance.now() - begin);
        await new Promise((done) => setTimeout(done, 60));
    }
    return times;
}"""
