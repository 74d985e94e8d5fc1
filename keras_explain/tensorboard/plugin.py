"""The plugin that TensorBoard loads: routes to what was logged, and the page's files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.plugins import base_plugin

from keras_explain.sinks import events
from keras_explain.tensorboard import restarts
from keras_explain.tensorboard.reader import Cache, NotLoggedError, Reader

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_STEP_SECONDS = 10  # that a browser may keep an answer
_PICTURE_SECONDS = 60

Answer = tuple[Any, str, int]  # content, type, seconds that it may be kept


class Loader(base_plugin.TBLoader):
    """Loads the plugin. All of its steps are kept, unless the user says otherwise."""

    def fix_flags(self, flags: Any) -> None:
        if flags.samples_per_plugin is not None:
            flags.samples_per_plugin.setdefault(events.PLUGIN, 0)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        return Plugin(context)


class Plugin(base_plugin.TBPlugin):
    """The Explain tab."""

    plugin_name = events.PLUGIN

    def __init__(self, context: base_plugin.TBContext) -> None:
        slow = context.multiplexer  # None under the fast loader
        self._provider = (
            context.data_provider if slow is None else restarts.provider(slow, context.logdir)
        )
        self._cache = Cache()

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        answers = {
            "/runs": _runs,
            "/step": _step,
            "/picture": _picture,
            "/scalars": _scalars,
            "/tree": _tree,
            "/predictions": _predictions,
            "/static/*": _static,
        }
        return {route: self._app(answer) for route, answer in answers.items()}

    def is_active(self) -> bool:
        return False  # it is where there is data of its own, of which TensorBoard knows by itself

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Explain")

    def _app(self, answer: Callable[[Reader, Any], Answer]) -> Callable[..., Any]:
        from werkzeug import wrappers

        return wrappers.Request.application(functools.partial(self._respond, answer))

    def _respond(self, answer: Callable[[Reader, Any], Answer], request: Any) -> Any:
        from tensorboard import errors, plugin_util
        from tensorboard.backend import http_util

        respond = functools.partial(http_util.Respond, request)
        environ = request.environ
        reader = Reader(
            self._provider,
            plugin_util.context(environ),
            plugin_util.experiment_id(environ),
            self._cache,
        )
        try:
            content, of_type, seconds = answer(reader, request)
        except NotLoggedError as error:
            return respond(_error(error), "application/json", 404)
        except events.FormatError as error:
            return respond(_error(error), "application/json", 422)
        except ValueError as error:
            return respond(_error(error), "application/json", 400)
        except errors.PublicError as error:
            return respond(_error(error), "application/json", error.http_code)
        return respond(content, of_type, expires=seconds)


def _runs(reader: Reader, request: Any) -> Answer:
    return _json(reader.runs())


def _step(reader: Reader, request: Any) -> Answer:
    content = reader.step(_text(request, "run"), _number(request, "step"))
    return content, "application/octet-stream", _STEP_SECONDS


def _picture(reader: Reader, request: Any) -> Answer:
    content = reader.picture(_text(request, "run"), _number(request, "sample"))
    return content, "image/png", _PICTURE_SECONDS


def _scalars(reader: Reader, request: Any) -> Answer:
    return _json(reader.scalars(_text(request, "run"), _text(request, "tag")))


def _tree(reader: Reader, request: Any) -> Answer:
    return _json(reader.tree(_text(request, "run"), _number(request, "step")))


def _predictions(reader: Reader, request: Any) -> Answer:
    return _json(reader.predictions(_text(request, "run")))


def _static(reader: Reader, request: Any) -> Answer:
    asked = request.path.rpartition("/static/")[2]
    there = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}
    if asked not in there:
        raise NotLoggedError(f"Expected a file of the page. Received: {asked[:80]!r}.")
    return there[asked].read_bytes(), _TYPES[there[asked].suffix], 0


def _json(answer: Any) -> Answer:
    return events.dumps(answer), "application/json", 0


def _error(error: Exception) -> bytes:
    return events.dumps({"error": str(error)})


def _text(request: Any, name: str) -> str:
    value: str | None = request.args.get(name)
    if value is None:
        raise ValueError(
            f"Expected `{name}=` in the address. Received: {request.query_string[:80]!r}."
        )
    return value


def _number(request: Any, name: str) -> int:
    text = _text(request, name)
    if not text.removeprefix("-").isdecimal() or len(text) > 19:
        raise ValueError(f"Expected `{name}` to be a whole number. Received: {text[:80]!r}.")
    return int(text)
