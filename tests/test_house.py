"""The layout of the house: who may import whom, and what never reaches which room."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import face_async

PACKAGE = Path(face_async.__file__).parent
MAX_LINES = 430

# A file imports from floors below its own, and from its own floor where no circle arises. Inside server/ the second
# number orders the rooms. A row may stand before its file does.
FLOORS: dict[str, tuple[int, int]] = {
    "_version": (1, 0),
    "errors": (1, 0),
    "images": (1, 0),
    "models": (1, 0),
    "portraits": (1, 0),
    "signature": (1, 0),
    "_accounts": (2, 0),
    "_recompress": (2, 0),
    "_endpoints": (2, 0),
    "_hops": (2, 0),
    "_multipart": (2, 0),
    "_retry": (2, 0),
    "_throttle": (2, 0),
    "fitting": (2, 0),
    "limits": (2, 0),
    "_reconcile": (3, 0),
    "_reqwest": (3, 0),
    "_transport": (3, 0),
    "_wire": (3, 0),
    "ledger": (3, 0),
    "_caller": (4, 0),
    "_packs": (4, 0),
    "bulk": (4, 0),
    "outcomes": (4, 0),
    "sharding": (4, 0),
    "session": (5, 0),
    "server.refusal": (5, 0),
    "server._face": (5, 1),
    "server.envelope": (5, 1),
    "server._dlib": (5, 2),
    "server._embedder": (5, 2),
    "server._fingerprint": (5, 2),
    "server.recognition": (5, 3),
    "server.fetch": (5, 4),
    "server.forms": (5, 4),
    "server.gallery": (5, 4),
    "server.guard": (5, 4),
    "server.schema": (5, 4),
    "server.parameters": (5, 5),
    "server.pictures": (5, 5),
    "server.store": (5, 5),
    "server.handlers": (5, 6),
    "server._fault": (5, 7),
    "server.faults": (5, 7),
    "server.app": (5, 8),
    "server.background": (5, 9),
    "server": (5, 10),
    "local": (6, 0),
    "testing": (6, 0),
    "pytest_plugin": (6, 0),
    "ingest": (6, 0),
    "ingest.*": (6, 0),
    "cli": (7, 0),
    "cli.*": (7, 0),
    "__main__": (7, 0),
    "": (7, 1),  # face_async/__init__.py
}

CLIENT_ONLY = {
    "_accounts",
    "_caller",
    "_endpoints",
    "_hops",
    "_multipart",
    "_packs",
    "_recompress",
    "_reconcile",
    "_reqwest",
    "_retry",
    "_throttle",
    "_transport",
    "_wire",
    "bulk",
    "fitting",
    "ledger",
    "outcomes",
    "session",
    "sharding",
}
HTTP_CLIENTS = {"h11", "httpcore", "httpx", "pyreqwest"}
SPEAKS_HTTP = {"_reqwest", "_transport", "server.fetch", "local", "testing"}
PURE = ["_endpoints", "_wire", "errors", "limits", "models", "signature"]
IMPURE_MODULES = HTTP_CLIENTS | {
    "aiohttp",
    "anyio",
    "asyncio",
    "concurrent",
    "datetime",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "trio",
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
HEAVY = {"PIL", "dlib", "face_recognition_models", "numpy", "python_multipart", "rich", "starlette", "typer", "uvicorn"}


@dataclass(frozen=True)
class Import:
    """One imported module: within face_async by its name below the package, otherwise by its full name."""

    target: str
    ours: bool
    typing_only: bool
    line: int


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


FILES: dict[str, Path] = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module: str) -> tuple[int, int] | None:
    if module in FLOORS:
        return FLOORS[module]
    return next((place for row, place in FLOORS.items() if "*" in row and fnmatchcase(module, row)), None)


def is_module(name: str) -> bool:
    return name in FILES or name in FLOORS


class Imports(ast.NodeVisitor):
    """Collect the imports of one file: at its top, inside functions, for typing only, and by importlib."""

    def __init__(self, module: str, *, is_package: bool) -> None:
        self.package = ["face_async", *module.split(".")] if module else ["face_async"]
        if not is_package:
            self.package.pop()
        self.typing_only = False
        self.found: list[Import] = []

    def add(self, name: str, line: int) -> None:
        root, _, rest = name.partition(".")
        ours = root == "face_async"
        self.found.append(Import(rest if ours else name, ours, self.typing_only, line))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            # "from face_async import _wire" names a file, "from face_async import FaceSession" a name in one.
            deeper = f"{source}.{alias.name}"
            is_file = source.split(".")[0] == "face_async" and is_module(deeper.partition(".")[2])
            self.add(deeper if is_file else source, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            self.add(str(node.args[0].value), node.lineno)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self.generic_visit(node)
            return
        before, self.typing_only = self.typing_only, True
        for statement in node.body:
            self.visit(statement)
        self.typing_only = before
        for statement in node.orelse:
            self.visit(statement)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    visitor = Imports(module, is_package=FILES[module].name == "__init__.py")
    visitor.visit(tree(module))
    return tuple(visitor.found)


def where(module: str, line: int) -> str:
    return f"{FILES[module].relative_to(PACKAGE.parent)}:{line}"


def test_every_file_has_its_place_in_the_table_of_floors():
    assert [module for module in FILES if floor(module) is None] == []


def test_rows_of_the_table_that_have_no_file_yet():
    """Nothing is wrong with them; the report lists them."""
    waiting = [row for row in FLOORS if not any(fnmatchcase(module, row) for module in FILES)]
    if waiting:
        pytest.skip(f"not there: {', '.join(waiting)}")


def test_the_graph_sees_the_imports_that_are_there():
    """Guard of the guards: an empty graph would pass everything below."""
    assert Import("errors", ours=True, typing_only=False, line=11) in {
        Import(found.target, found.ours, found.typing_only, 11) for found in imports("limits")
    }
    assert any(found.typing_only for found in imports("errors"))


def resolved(source: str, text: str, *, is_package: bool = False) -> list[tuple[str, bool, bool]]:
    visitor = Imports(source, is_package=is_package)
    visitor.visit(ast.parse(text))
    return [(found.target, found.ours, found.typing_only) for found in visitor.found]


@pytest.mark.parametrize(
    ("source", "text", "target"),
    [
        ("limits", "import face_async.errors", ("errors", True, False)),
        ("limits", "from face_async import errors", ("errors", True, False)),
        ("limits", "from face_async import FaceSession", ("", True, False)),
        ("limits", "from .errors import FaceError", ("errors", True, False)),
        ("limits", "from . import errors", ("errors", True, False)),
        ("server.app", "from ..errors import CODES", ("errors", True, False)),
        ("server.app", "from . import store", ("server.store", True, False)),
        ("limits", "if TYPE_CHECKING:\n    from face_async.errors import Code", ("errors", True, True)),
        ("limits", "def late():\n    import face_async.session", ("session", True, False)),
        ("limits", "importlib.import_module('face_async.session')", ("session", True, False)),
        ("limits", "import os.path", ("os.path", False, False)),
        ("limits", "from os import path", ("os", False, False)),
    ],
)
def test_the_graph_understands_every_way_to_import(source, text, target):
    assert resolved(source, text) == [target]


def test_a_package_imports_relative_to_itself():
    assert resolved("server", "from .app import create_app", is_package=True) == [("server.app", True, False)]


def may_import(source: str, target: str) -> bool:
    here, there = floor(source), floor(target)
    if here is None or there is None:
        return False
    inside_one_package = source.partition(".")[0] == target.partition(".")[0]
    return there[0] < here[0] or (there[0] == here[0] and (there[1] <= here[1] or not inside_one_package))


def test_nobody_imports_from_a_floor_above_not_even_for_typing():
    upward = [
        f"{where(module, found.line)} imports {found.target or 'face_async'}"
        for module in FILES
        for found in imports(module)
        if found.ours and not may_import(module, found.target)
    ]
    assert upward == []


def test_no_imports_run_in_a_circle():
    graph = {
        module: {found.target for found in imports(module) if found.ours and not found.typing_only} for module in FILES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(reversed(circle.args[1])))


def test_only_the_rooms_that_speak_http_import_an_http_client():
    found = {
        module
        for module in FILES
        for item in imports(module)
        if not item.typing_only and item.target.partition(".")[0] in HTTP_CLIENTS and not item.ours
    }
    assert found - SPEAKS_HTTP == set()


def test_the_server_shares_no_parser_with_the_client():
    shared = [
        f"{where(module, found.line)} imports {found.target}"
        for module in FILES
        if module.partition(".")[0] == "server"
        for found in imports(module)
        if found.ours and found.target.partition(".")[0] in CLIENT_ONLY | {""}
    ]
    assert shared == []


def test_the_client_knows_no_server():
    above = {module for module in FILES if (place := floor(module)) and place[0] >= 6 and module}
    knows = [
        f"{where(module, found.line)} imports {found.target}"
        for module in set(FILES) - above
        if module.partition(".")[0] != "server"
        for found in imports(module)
        if found.ours and found.target.partition(".")[0] in {"server", "local", "ingest", "testing", "cli"}
    ]
    assert knows == []


@pytest.mark.parametrize("module", PURE)
def test_what_only_computes_imports_no_io_no_clock_and_no_http(module):
    if module not in FILES:
        pytest.skip("not there")
    impure = [
        f"{where(module, found.line)} imports {found.target}"
        for found in imports(module)
        if not found.ours
        and not found.typing_only
        and (found.target.partition(".")[0] in IMPURE_MODULES or found.target.startswith("urllib.request"))
    ]
    assert impure == []


@pytest.mark.parametrize("module", PURE)
def test_what_only_computes_opens_and_prints_nothing(module):
    if module not in FILES:
        pytest.skip("not there")
    calls = [
        f"{where(module, node.lineno)} calls {node.func.id}"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ]
    assert calls == []


def test_no_file_is_too_long_to_be_read_at_once():
    lengths = {where(module, 1): len(path.read_text(encoding="utf-8").splitlines()) for module, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_import_face_async_loads_no_server_no_command_line_and_no_picture_library():
    # httpx itself loads rich where it is installed, for its own command line: what it loads is not on our account.
    program = """if True:
        import json, sys
        import anyio, attrs, cattrs, httpx
        theirs = set(sys.modules)
        import face_async
        print(json.dumps(sorted(set(sys.modules) - theirs)))
    """
    # -I: neither the working directory nor the environment decides what is imported.
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(ran.stdout)
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    rooms = {name.split(".")[1] for name in loaded if name.startswith("face_async.")}
    assert "session" in rooms
    assert rooms & {"server", "local", "ingest", "testing", "pytest_plugin", "cli", "portraits"} == set()
