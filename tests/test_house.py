"""The layout of the house: who may import whom, and what never reaches which room."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from timing import PATIENCE

import face_async
from face_async.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(face_async.__file__).parent
TESTS = Path(__file__).parent
PROJECT = TESTS.parent
MAX_LINES = 500
MAX_ROOMS = 20
MAX_ARROWS = 80
MAX_FILES_IN_A_FOLDER = 14
PEOPLE_WRITE_IN = ("tests", "benchmarks", ".ci")
PROGRAMS_WRITE = {".onnx", ".mo", ".po", ".pyc"}

# The rooms of the top, floor by floor, the lowest first. A room imports only from floors below its own; inside of a
# room no imports run in a circle. This is the one place where the layout is written down.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"_version", "errors", "portraits", "signature"}),
    frozenset({"images", "limits", "_transports"}),
    frozenset({"models", "server"}),
    frozenset({"endpoints"}),
    frozenset({"_call"}),
    frozenset({"bulk"}),
    frozenset({"session"}),
    frozenset({"ingest", "local"}),
    frozenset({"testing"}),
    frozenset({"__init__"}),
    frozenset({"fleet", "sync"}),
    frozenset({"cli"}),
)
ROOMS = frozenset[str]().union(*FLOORS)

PUBLIC_PATHS = ("errors", "fleet", "images", "ingest", "local", "models", "portraits", "server", "sync", "testing")

CLIENT_ONLY = {"_call", "_transports", "bulk", "endpoints", "session", "sync", "__init__"}
HTTP_CLIENTS = {"h11", "httpcore", "httpcore2", "httptools", "httpx", "httpx2"}
SPEAKS_HTTP = {"_transports", "server", "local", "testing"}
PURE = [
    "_call.judgement",
    "_call.wire",
    "endpoints",
    "errors",
    "limits",
    "models.later",
    "models.results",
    "models.structure",
    "signature",
]
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
CODE_NAME = re.compile(r"(?i)\bcodes?\b|_codes?\b|\bcodes?_|\bmends\b|\bempty\b")
TAKES_CODE = re.compile(r"(\w+\.)*(\w*Refusal|\w+Error|Addition|envelope|service_error|ReturnCode)")
HEAVY = {
    *("PIL", "cachetools", "jinja2", "numpy", "onnxruntime", "packaging", "python_multipart"),
    *("rich", "starlette", "typer", "uvicorn"),
}


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


def room(module: str) -> str:
    first = module.partition(".")[0]
    return {"": "__init__", "__main__": "cli"}.get(first, first)  # ``python -m face_async`` is the command line


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def is_module(name: str) -> bool:
    return name in FILES


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
            # "from face_async import errors" names a file, "from face_async import FaceSession" a name in one.
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


@cache
def arrows() -> frozenset[tuple[str, str]]:
    """Who imports from whom among the rooms of the top, for typing included."""
    pairs = {(room(module), room(found.target)) for module in FILES for found in imports(module) if found.ours}
    return frozenset(pair for pair in pairs if pair[0] != pair[1])


def test_every_room_has_its_place_in_the_table_of_floors():
    assert {room(module) for module in FILES} == ROOMS


def test_the_house_is_small_enough_to_be_drawn(capsys):
    files = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in FILES.values())
    del files["."]
    fullest, count = files.most_common(1)[0]
    with capsys.disabled():
        print(  # noqa: T201 - the figures are to be seen in every run
            f"\nhouse: {len(ROOMS)} rooms, {len(arrows())} arrows, at most {count} files in a folder ({fullest})"
        )
    assert len(ROOMS) <= MAX_ROOMS
    assert len(arrows()) <= MAX_ARROWS
    assert count <= MAX_FILES_IN_A_FOLDER


def test_the_package_lists_what_may_be_imported_by_path():
    documented = set(re.findall(r"``face_async\.([a-z_.]+)``", face_async.__doc__ or ""))
    assert documented == set(PUBLIC_PATHS)
    for name in PUBLIC_PATHS:
        importlib.import_module(f"face_async.{name}")


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
        ("server.app", "from . import fetch", ("server.fetch", True, False)),
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


def test_nobody_imports_from_a_floor_above_not_even_for_typing():
    upward = [
        f"{where(module, found.line)} imports {found.target or 'face_async'}"
        for module in FILES
        for found in imports(module)
        if found.ours and room(module) != room(found.target) and floor(room(found.target)) >= floor(room(module))
    ]
    assert upward == []


def test_no_imports_run_in_a_circle():
    graph = {module: {found.target for found in imports(module) if found.ours} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(reversed(circle.args[1])))


def test_only_the_rooms_that_speak_http_import_an_http_client():
    found = {
        room(module)
        for module in FILES
        for item in imports(module)
        if not item.typing_only and item.target.partition(".")[0] in HTTP_CLIENTS and not item.ours
    }
    assert found - SPEAKS_HTTP == set()


def test_the_server_shares_no_parser_with_the_client():
    shared = [
        f"{where(module, found.line)} imports {found.target}"
        for module in FILES
        if room(module) == "server"
        for found in imports(module)
        if found.ours and room(found.target) in CLIENT_ONLY
    ]
    assert shared == []


def test_enrollments_leave_single_calls_to_the_bulk_engine():
    assert ("ingest", "_call") not in arrows()


def test_the_client_knows_no_server():
    assert {pair for pair in arrows() if pair[1] == "server"} <= {
        (name, "server") for name in ("cli", "local", "testing")
    }


@pytest.mark.parametrize("module", PURE)
def test_what_only_computes_imports_no_io_no_clock_and_no_http(module):
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
    calls = [
        f"{where(module, node.lineno)} calls {node.func.id}"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ]
    assert calls == []


def is_code(node: ast.expr, *, among: Callable[[int], bool] = lambda code: True) -> bool:
    """Return whether an expression is a return code written as a number, or such a number as a text."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    if isinstance(value, str) and re.fullmatch(r"-\d+", value):
        value = int(value)
    return type(value) is int and value in CODES and among(value)


def codes_as_numbers(module: ast.Module) -> list[int]:
    """Return the lines on which a return code stands as a number.

    A negative one has no other meaning, wherever it stands. A positive one has it where something is called a code: the
    first argument of what takes one, a keyword, a comparison, a member of a collection or key of a mapping of them.
    """
    found: list[ast.expr] = []
    for node in ast.walk(module):
        match node:
            case ast.UnaryOp() | ast.Constant(value=str()):
                found += [node] if is_code(node, among=lambda code: code < 0) else []
            case ast.Call(args=[first, *_]) if TAKES_CODE.fullmatch(ast.unparse(node.func)):
                found.append(first)
            case ast.keyword(arg=str(name), value=value) if CODE_NAME.search(name):
                found.append(value)
            case ast.Compare(left=left, comparators=others) if any(
                CODE_NAME.search(ast.unparse(each)) for each in (left, *others)
            ):
                found += [left, *others, *(member for each in others for member in members(each))]
            case ast.Assign(targets=[target], value=value) if CODE_NAME.search(ast.unparse(target)):
                found += [value, *members(value)]
            case ast.AnnAssign(target=target, value=ast.expr() as value) if CODE_NAME.search(ast.unparse(target)):
                found += [value, *members(value)]
            case ast.Subscript(value=ast.Name(id="CODES"), slice=index):
                found.append(index)
            case _:
                pass
    return sorted({node.lineno for node in found if is_code(node)})


def members(node: ast.expr) -> list[ast.expr]:
    """Return what a literal collection holds, a mapping's keys, a choice's branches."""
    match node:
        case ast.Set(elts=elements) | ast.Tuple(elts=elements) | ast.List(elts=elements):
            return elements
        case ast.Call(args=arguments):
            return [each for argument in arguments for each in members(argument)]
        case ast.Dict(keys=keys):
            return [key for key in keys if key is not None]
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case _:
            return []


@pytest.mark.parametrize(
    "text",
    [
        "raise Refusal(21)",
        "Addition(-1312, twin)",
        "NotFoundError(16, endpoint='verify')",
        "service_error(213, endpoint='verify')",
        "parameters.ids('group_ids', empty=-1307)",
        "envelope(213, session)",
        "add(code=15)",
        "error.code == 24",
        "error.code in {9, 24}",
        "code in (9, -1313)",
        "recorded.code = -1200 if broken else 213",
        "FULL = -1309",
        "words = [(FaceLimitError, '-1309')]",
        "HOPELESS_CODES = frozenset({4, 5})",
        "MENDS_OF_CODES: Mapping[int, str] = {3: 'pay'}",
        "CODES[15]",
    ],
)
def test_the_search_for_codes_finds_every_way_to_write_one(text):
    """Guard of the guard."""
    assert codes_as_numbers(ast.parse(text)) == [1]


@pytest.mark.parametrize("text", ["top = 5", "sleep(15)", "room(16)", "error.code == ReturnCode.OK", "x[3:4]", "-1.5"])
def test_the_search_for_codes_takes_no_other_number_for_one(text):
    assert codes_as_numbers(ast.parse(text)) == []


def test_no_return_code_is_written_as_a_number_outside_the_table():
    numbers = [where(module, line) for module in FILES if module != "errors" for line in codes_as_numbers(tree(module))]
    assert numbers == []


def test_only_the_judgement_reads_what_a_code_means_for_trying_again():
    """Who looks for what happens on a code opens two files."""
    readers = {
        module
        for module in FILES
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.Attribute) and node.attr == "retry" and "code" in ast.unparse(node.value).lower())
        or (isinstance(node, ast.ImportFrom) and any(alias.name == "Retry" for alias in node.names))
    }
    assert readers - {"errors"} == {"_call.judgement"}


def test_no_file_is_too_long_to_be_read_at_once():
    """Whatever people write: sources, tests and documents."""
    folders = [PACKAGE, *(PROJECT / name for name in PEOPLE_WRITE_IN)]
    places = [PROJECT.glob("*.md"), PROJECT.glob("*.toml"), *(folder.rglob("*") for folder in folders)]
    files = {path for path in chain(*places) if path.suffix not in PROGRAMS_WRITE and path.is_file()}
    assert {Path(__file__), PROJECT / "README.md", *FILES.values()} <= files
    lengths = {path.as_posix(): path.read_bytes().count(b"\n") for path in files}
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
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    loaded = json.loads(ran.stdout)
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    rooms = {name.split(".")[1] for name in loaded if name.startswith("face_async.")}
    assert "session" in rooms
    assert rooms & {"server", "local", "ingest", "testing", "cli", "portraits"} == set()


def test_the_map_of_the_stand_ins_is_complete():
    conftest = ast.parse((TESTS / "conftest.py").read_text("utf-8"))
    kits = {path.stem for path in TESTS.glob("stand_ins/*.py") if not path.match("test_*")}
    assert kits == set(re.findall(r"^``(\w+)``", ast.get_docstring(conftest) or "", re.MULTILINE))


def test_tests_lie_in_rooms_and_what_they_share_in_one():
    """And no module that they share is called as a program that may be missing: it would be found in its place."""
    elsewhere = [path for path in TESTS.rglob("*.py") if not path.match("test_*") and path.name != "conftest.py"]
    assert {path.parent.name for path in elsewhere} == {"stand_ins", "typing"}
    markers = re.findall(r"mark\.external\((.*)\)", "\n".join(path.read_text("utf-8") for path in TESTS.rglob("*.py")))
    programs = set(re.findall(r'"([^"]+)"', " ".join(markers)))
    assert "nginx" in programs
    assert programs & {path.stem for path in elsewhere} == set()
