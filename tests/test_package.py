"""The package as a whole: what importing it costs, who may import whom, and its public names."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import keras_explain
from tests.process import run_python

PACKAGE = Path(keras_explain.__file__).parent
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")
}
FLOOR = Path(__file__).parent / "floor.txt"

# What each part may import from the others, itself apart. `__init__` re-exports and `cli` uses all.
MAY_IMPORT = {
    "backend": set(),
    "files": set(),
    "core": {"backend", "files"},
    "explainers": {"backend", "core"},
    "metrics": {"backend", "core"},
    "plots": {"backend", "core"},
    "sinks": {"backend", "core", "plots"},
    "callbacks": {"backend", "core", "plots", "sinks"},
    "layers": {"backend", "core", "sinks"},
    "training": {"backend", "core"},
    "trees": {"backend", "core", "sinks", "training"},
    "terms": {"training", "trees"},
    "tensorboard": {"files", "sinks"},
}
FREE = {"__init__", "cli"}
BELOW = {"private", "graph"}
"""What in the core imports nothing else of the package, so that the backend may."""
LAZILY = {
    ("core/record/explanation.py", "plots"),
    ("core/config.py", "explainers"),  # a class is known by name once its module is loaded
    ("trees/*", "plots"),
}
MAY_IMPORT_TENSORFLOW = {"backend.py", "core/graph/traced.py", "sinks/event_file.py"}
OF_GRAPHS = {"op", "graph", "consumers", "node_def", "get_attr"}
PRIVATE_KERAS = "core/model/intercept.py"
PRINTING = {"print", "builtins.print", "sys.stdout", "sys.__stdout__"}
BY_NAME = {"attrgetter", "delattr", "getattr", "hasattr", "methodcaller", "setattr"}
NAMEDTUPLE = {"_asdict", "_fields", "_make", "_replace"}


# What a source does. Each function takes its text, and is itself tested on made-up sources.


@functools.cache
def nodes(source: str) -> list[ast.AST]:
    """All that a source is made of."""
    return list(ast.walk(ast.parse(source)))


def imports(source: str, path: str) -> Iterator[tuple[str, bool]]:
    """The dotted names of all that is imported, and whether inside a function."""
    inside = {
        child
        for node in nodes(source)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    for node in nodes(source):
        for name in _imported(node, path):
            yield name, node in inside


def _imported(node: ast.AST, path: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute(node, path)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def _absolute(node: ast.ImportFrom, path: str) -> str:
    if not node.level:
        return node.module
    package = ["keras_explain", *Path(path).parts[:-1]]
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _called(node: ast.Call) -> str | None:
    return getattr(node.func, "attr", None) or getattr(node.func, "id", None)


def part(path: str) -> str:
    """The part of the package that a file belongs to: "core" for core/explainer.py."""
    return Path(path).parts[0].removesuffix(".py")


def forbidden_parts(source: str, path: str) -> list[str]:
    """The parts of this package that a file imports though it may not."""
    here = part(path)
    if here in FREE:
        return []
    found = []
    for name, lazily in imports(source, path):
        top, _, rest = name.partition(".")
        if top != "keras_explain":
            continue
        other, _, inside = rest.partition(".")
        other = other or "__init__"
        if here == "backend" and other == "core" and inside.partition(".")[0] in BELOW:
            continue
        allowed = {here, *MAY_IMPORT[here]}
        if lazily and {(path, other), (f"{here}/*", other)} & LAZILY:
            continue
        if other not in allowed:
            found.append(other)
    return found


def libraries(source: str, path: str, *names: str) -> list[str]:
    """What is imported from the named libraries (`keras.src` means it and all inside)."""
    return [
        name
        for name, _ in imports(source, path)
        if any(f"{name}.".startswith(f"{library}.") for library in names)
    ]


def foreign_names(source: str, inherited: set[str] = frozenset()) -> set[str]:
    """The names with one leading underscore that a source uses and does not define itself.

    Attributes, and strings in `getattr` and its like or in a look-up such as `__dict__["_name"]`.
    On `self`, the `inherited` names are no foreign ones.
    """
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Attribute):
            found |= {node.attr} - (inherited if _on_self(node) else set())
        elif isinstance(node, ast.Call) and _called(node) in BY_NAME:
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found.add(node.slice.value)
    private = {name for name in found if isinstance(name, str) and re.match(r"_[^_]", name)}
    return private - defined_names(source) - NAMEDTUPLE


@functools.cache
def defined_names(source: str) -> set[str]:
    """The names that a source defines itself: functions, classes, variables and own attributes."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            found.update(_stored(node))
    return found


def _stored(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id}
    return {node.attr} if _on_self(node) else set()


def _on_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls"}


def mentions(source: str, *names: str) -> list[int]:
    """The lines with one of these names or dotted names in the code."""
    return [
        node.lineno
        for node in nodes(source)
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names
    ]


def graph_reads(source: str) -> list[str]:
    """What a source reads of single operations or graphs, and leaves to those who know them."""
    return [
        ast.unparse(node)
        for node in nodes(source)
        if isinstance(node, ast.Attribute)
        and (node.attr in OF_GRAPHS or ast.unparse(node) == "op.inputs")
    ]


# The rules, on the package


def each_source(test):
    return pytest.mark.parametrize("path", sorted(SOURCES))(test)


@each_source
def test_imports_only_the_parts_it_may(path):
    assert part(path) in FREE | MAY_IMPORT.keys(), f"Say in MAY_IMPORT what {path} may import."
    assert forbidden_parts(SOURCES[path], path) == []


@each_source
def test_what_the_backend_stands_on_imports_nothing_else(path):
    if re.match(f"core/({'|'.join(BELOW)})[./]", path):
        ours = libraries(SOURCES[path], path, "keras_explain")
        assert {name.split(".")[2] for name in ours} <= BELOW


@each_source
def test_tensorflow_is_known_in_few_places(path):
    if path not in MAY_IMPORT_TENSORFLOW:
        assert libraries(SOURCES[path], path, "tensorflow") == []


@each_source
def test_only_intercept_touches_private_keras(path):
    if path != PRIVATE_KERAS:
        ours = set().union(*map(defined_names, SOURCES.values()))
        assert libraries(SOURCES[path], path, "keras.src") == []
        assert mentions(SOURCES[path], "keras.src") == []
        assert foreign_names(SOURCES[path], ours) == set()


@each_source
def test_only_the_graph_room_knows_operations(path):
    if not path.startswith("core/graph/"):
        assert graph_reads(SOURCES[path]) == []


@each_source
def test_nothing_is_printed(path):
    if part(path) != "cli":
        assert mentions(SOURCES[path], *PRINTING) == []


# The same functions on made-up sources: each rule can be broken


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("core/model/probe.py", "from keras_explain.plots import render", ["plots"]),
        ("core/model/probe.py", "from keras_explain import backend, plots", ["plots"]),
        ("core/model/probe.py", "import keras_explain.explainers.saliency", ["explainers"]),
        ("core/model/probe.py", "import keras_explain as kx", ["__init__"]),
        ("core/model/probe.py", "from ...callbacks import x", ["callbacks"]),
        ("core/model/probe.py", "from ... import sinks", ["sinks"]),
        ("core/model/probe.py", "from . import names", []),
        ("core/model/probe.py", "from .names import nearest", []),
        ("core/model/probe.py", "def f():\n    from keras_explain import plots", ["plots"]),
        ("core/record/explanation.py", "def f():\n    from keras_explain import plots", []),
        ("core/record/explanation.py", "from keras_explain import plots", ["plots"]),
        ("core/config.py", "def f():\n    import_module('keras_explain.explainers')", []),
        ("core/config.py", "import keras_explain.explainers", ["explainers"]),
        ("core/record/explanation.py", "def f():\n    from keras_explain import sinks", ["sinks"]),
        ("trees/tree.py", "def f():\n    from keras_explain.plots import trees", []),
        ("trees/tree.py", "from keras_explain.plots import trees", ["plots"]),
        ("trees/tree.py", "def f():\n    from keras_explain.explainers import x", ["explainers"]),
        ("metrics/auc.py", "from keras_explain.explainers.rise import RISE", ["explainers"]),
        ("callbacks/x.py", "import_module('keras_explain.explainers')", ["explainers"]),
        ("backend.py", "from keras_explain.core import names", ["core"]),
        ("backend.py", "from keras_explain.core import rules", ["core"]),
        ("backend.py", "from keras_explain.core.graph import traced", []),
        ("tensorboard/plugin.py", "from keras_explain.core import names", ["core"]),
        ("cli.py", "from keras_explain.explainers import x", []),
    ],
)
def test_forbidden_imports_are_found(path, source, found):
    assert forbidden_parts(source, path) == found


def test_libraries_are_found():
    source = "import tensorflow as tf\ndef f():\n  from tensorflow import io\nimport tensorflows"
    assert libraries(source, "x.py", "tensorflow") == ["tensorflow", "tensorflow.io"]
    assert libraries("from keras import src, ops", "x.py", "keras.src") == ["keras.src"]


@pytest.mark.parametrize(
    "source",
    [
        "model._theirs()",
        "self._theirs",
        "y = getattr(y, '_theirs', None)",
        "setattr(layer, '_theirs', [])",
        "layer.__dict__['_theirs']",
        "vars(layer)['_theirs']",
    ],
)
def test_private_names_are_found(source):
    ours = "def _ours():\n    self._mine = 1\nx._ours()._mine._replace(a=1).__dict__\n"
    assert foreign_names(ours + source) == {"_theirs"}


def test_inherited_names_are_no_foreign_ones_on_self():
    assert foreign_names("self._theirs", {"_theirs"}) == set()
    assert foreign_names("other._theirs", {"_theirs"}) == {"_theirs"}


def test_names_set_on_others_are_not_our_own():
    assert foreign_names("layer._losses = []") == {"_losses"}


@pytest.mark.parametrize("source", ["x = 1\nprint(x)", "import sys\nsys.stdout.write('x')"])
def test_prints_are_found(source):
    assert mentions(source, *PRINTING) == [2]
    assert mentions("pprint(x)\nfile.write('print(x)')  # print(x)", *PRINTING) == []


@pytest.mark.parametrize(
    "read",
    ["y.op", "f().op.type", "x.graph", "x.consumers()", "a.b.node_def", "x.get_attr", "op.inputs"],
)
def test_reading_an_operation_is_found(read):
    assert graph_reads(f"from keras_explain.core.graph import steps\nfound = {read}")
    assert not graph_reads("from keras_explain.core.graph import steps\nstep.inputs, op, graph")


def test_attributes_of_a_private_module_are_found():
    assert mentions("import keras\nkeras.src.backend.x()\nkeras.srcs", "keras.src") == [2]


# What importing costs

# Keras may itself have imported some of these, wherever they are installed; they are taken away
# again, and can't be imported a second time.
WITHOUT_THE_HEAVY = """
import keras, sys
heavy = "PIL lime matplotlib pandas scipy shap skimage sklearn tensorboard".split()
for name in {*heavy, *sys.modules}:
    if name.partition(".")[0] in heavy:
        sys.modules[name] = None
import keras_explain as kx
kx.GradCAM, kx.callbacks.ExplanationLogger, kx.sinks
try:
    from matplotlib.image import imread
except ModuleNotFoundError:
    sys.stdout.write("a heavy import is found")
"""


def test_importing_loads_nothing_heavy(tmp_path):
    done = run_python(WITHOUT_THE_HEAVY, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a heavy import is found"


IMPORT_WITHOUT = """
import sys
for name in ("keras", "tensorflow"):
    sys.modules[name] = None
{statement}
"""


def test_what_tensorboard_loads_needs_neither_keras_nor_tensorflow(tmp_path):
    statement = "import keras_explain, keras_explain.sinks.events, keras_explain.tensorboard.plugin"
    done = run_python(IMPORT_WITHOUT.format(statement=statement), tmp_path)
    assert done.returncode == 0, done.stderr


# Names, version, versions of others


def test_version_is_the_distribution_s():
    assert keras_explain.__version__ == metadata.version("keras-explanations")


def test_every_public_name_is_listed_once():
    public = {
        name
        for name, value in vars(keras_explain).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("keras_explain")
    }
    assert len(set(keras_explain.__all__)) == len(keras_explain.__all__)
    assert public <= set(keras_explain.__all__)
    assert all(hasattr(keras_explain, name) for name in keras_explain.__all__)


def test_every_name_is_listed_for_type_checkers_too():
    (block,) = (node for node in ast.parse(SOURCES["__init__.py"]).body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body for alias in node.names}
    assert imported == set(keras_explain.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'GradCam'"):
        keras_explain.GradCam  # noqa: B018


def test_every_explainer_is_exported():
    for module in pkgutil.walk_packages([str(PACKAGE / "explainers")], "keras_explain.explainers."):
        importlib.import_module(module.name)
    assert set(methods(keras_explain.Explainer)) <= set(keras_explain.__all__)


def methods(cls):
    """The names of the public classes below `cls` in this package that can be made."""
    for subclass in cls.__subclasses__():
        public = subclass.__module__.startswith("keras_explain.") and subclass.__name__[0] != "_"
        if public and not inspect.isabstract(subclass):
            yield subclass.__name__
        yield from methods(subclass)


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_the_floor_is_what_the_distribution_asks_for():
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)$", FLOOR.read_text("utf-8"), re.MULTILINE))
    asked = dict(
        re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement).groups()
        for requirement in metadata.requires("keras-explanations")
        if "extra ==" not in requirement
    )
    assert asked == {name: pins[name] for name in asked}
