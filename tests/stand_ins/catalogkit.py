"""The catalog of translations, beside what in the sources is to be translated.

``python tests/stand_ins/catalogkit.py`` brings the catalog up to date: it adds what is new, without a translation,
takes out what is no longer used, and compiles it.
"""

from __future__ import annotations

import ast
import io
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment
from typer.main import get_command

import face_async
from face_async.cli._app import app
from face_async.cli.doctor.checks import CheckVerdict
from face_async.cli.identify.identification import Verdict
from face_async.images import KINDS
from face_async.server.page.language import TEXT_IN_SCRIPT
from face_async.server.page.routes import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = Path(face_async.__file__).parent
PO = PACKAGE / "locale" / "zh_CN" / "LC_MESSAGES" / "face_async.po"
MO = PO.with_suffix(".mo")

LIBRARY = "library"
"""The context of messages that are translated when they are printed: see ``translated``."""

# Where the messages come from that a user of the command may see. In these modules every text of words is one.
LIBRARY_MODULES = (
    *(
        "_call",
        "_transports",
        "bulk",
        "cli/doctor",
        "cli/exits.py",
        "errors.py",
        "fleet",
        "images",
        "ingest",
        "limits.py",
        "local.py",
        "session.py",
    ),
    *(
        "server/background.py",
        "server/deploy/__init__.py",
        "server/operations/accounts.py",
        "server/page/access.py",
        "server/processes.py",
        "server/settings.py",
    ),
    *("server/recognition/__init__.py", "server/request/cors.py", "server/storage", "signature.py"),
)
_WORDS = re.compile(r"[a-z]{2,}[,:;]? [a-z{]|\} [a-z]{2,}")
_CODE = re.compile(
    r"\b(SELECT|UPDATE|INSERT|CREATE|PRAGMA|DELETE|WHERE|BEGIN|ALTER|LIMIT|VALUES|FROM)\b"
    r"|tuple\[|Content-Disposition|status code: "
)
# Errors that only a fault in a program can cause.
_OF_PROGRAMMERS = {"AssertionError", "AttributeError", "NotImplementedError", "RuntimeError", "TypeError", "cast"}
_ELSEWHERE = {"logger", "logging", "typer", "warnings"}  # logs, and help texts, which are translated as a whole
# In these modules for other readers: logs, names of threads and columns, and what only programs meet.
_NOT_SHOWN = {
    *("_call/observation.py", "_call/settle.py", "_call/telemetry.py", "bulk/once.py", "ingest/queries.py"),
    *("server/storage/failures.py",),
}
_NO_MESSAGES = {
    "<LimitLedger: {0} keys known, {1} in use, {2} reserved, {3} waiting>",
    "<Reservation of {0} for {1}: {2}>",
    "async with ingest(...) as run:",
    "async with session.identify_many(...) as outcomes:",
    "async with verify(...) as differences:",
    "face_async storage",
    "face_async worker {0}",
    "file objects",
    "name with the shard's number",
    "network trash folder",
    "not executed",
    "person_id, group_ids, name, tag, listing, before",
    "sharded group",
    "source, size, stamp, tag, sha256, state, face_id, code, reason, origin",
    "system volume information",
    "temporary items",
    "the run of {0}",
    "use 'async with', or await aclose() at the end",
    "{0}: its block was left before {1}",
    "bold red",
    "bold yellow",
    "extra recognition",
    "invalid path",
    "is empty, or was",
    "multipart/form-data; boundary={0}",
    "specified bucket does not exist",
    "dict[str, str]",
}

# What no single text of the library says, and the words of others that come in its messages.
_OTHERS = {
    *("{0} for group {1}", "{0} for person {1}", "{0} for face {1}", "group {0}", "person {0}", "face {0}"),
    *("extra {0}", "is {0}", "stranger {0}", "all groups", "the file", "the image {0}", KINDS),
    *("No such file or directory", "Permission denied", "Is a directory", "Not a directory"),
    *("File exists", "No space left on device", "Read-only file system", "File name too long", "Too many open files"),
    *("Connection refused", "Connection reset by peer", "Connection timed out", "Network is unreachable"),
    *("No route to host", "Name or service not known", "No address associated with hostname"),
    *("Temporary failure in name resolution", "All connection attempts failed", "Operation not permitted"),
    *("Connect call failed {0}", "{0} (while attempting to bind on address {1})", "Address already in use"),
    *("error while attempting to bind on address {0}", "address already in use"),
    *("this machine's is {0} s behind the server's", "this machine's is {0} s ahead of the server's"),
    *("certificate verify failed", "self-signed certificate", "unable to get local issuer certificate"),
    *("certificate has expired", "[Errno {0}] {1}", "database is locked", "file is not a database"),
}

# Typer's words: those that it gives to gettext, and those that it does not.
OF_TYPER = {
    *("[default: {}]", "[env var: {}]", "[required]", "Arguments", "Options", "Commands", "Error", "Aborted."),
    *("Try [blue]'{command_path} {help_option}'[/] for help.", "Missing command.", "No such command {name!r}."),
    *("(deprecated) ", "default: {default}", "env var: {var}", "required", "(dynamic)", "Aborted!"),
}
OF_TYPER_UNMARKED = {
    *("Missing argument {0}.", "Missing option {0}.", "Missing parameter: {0}", "No such option: {0}"),
    *("No such command {0}.", "Did you mean {0}?", "(Possible options: {0})", "Invalid value for {0}: {1}"),
    *(
        "Invalid value: {0}",
        "{0} is not one of {1}.",
        "{0} is not in the range {1}.",
        "Option {0} requires an argument.",
    ),
    *("Value {0} is not a valid {1}.", "{0} is not a valid integer.", "{0} is not a valid float."),
    *("Input should be greater than or equal to {0}", "Input should be less than or equal to {0}"),
    *("Input should be a valid integer, unable to parse string as an integer", "Input should be {0}"),
    *("Input should be a valid number, unable to parse string as a number",),
    *("Option {0} does not take a value.", "Got unexpected extra argument(s) ({0})", "{0} is not a valid int."),
    *("Got unexpected extra argument ({0})", "Got unexpected extra arguments ({0})", "{0} is not a valid boolean."),
}


_WORDS_OF_TABLES = {*CheckVerdict, *Verdict, *(verdict.capitalize() for verdict in Verdict), *VIEWS.values()}


def in_library() -> set[str]:
    """Return what is translated when it is printed, with ``{0}``, ``{1}`` and so on in place of values.

    That is what the library says, and of the command line its errors and its tables of words.
    """
    files = {file for name in LIBRARY_MODULES for file in _files(PACKAGE / name)}
    shown = {file for file in files if file.relative_to(PACKAGE).as_posix() not in _NOT_SHOWN}
    trees = [ast.parse(file.read_text("utf-8")) for file in shown]
    trees += [tree for file in (PACKAGE / "cli").rglob("*.py") for tree in _errors_and_tables(file)]
    texts = {text for tree in trees for text in _texts(tree)}
    messages = {text for text in texts if is_message(text) and not _CODE.search(text)} - _NO_MESSAGES
    helped = "\n".join(in_help())
    messages = {text for text in messages if text not in helped}
    return {_whole(text) for text in messages} | _OTHERS | OF_TYPER_UNMARKED


def _topics() -> set[str]:
    """Return the subjects of the doctor's checks."""
    files = (PACKAGE / "cli" / "doctor").glob("*.py")
    calls = [
        node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)
    ]
    named = [call.args[0] for call in calls if _name(call.func) in {"ok", "warning", "wrong", "_check_limit"}]
    return {topic.value for topic in named if isinstance(topic, ast.Constant)}


def is_message(text: str) -> bool:
    """Return whether a text has words for people in it."""
    return bool(_WORDS.search(text))


# Calls whose texts people see, even if they are a single word.
_SHOWS = {"Card", "Section", "Text", "add_task", "fail", "foreign", "say", "say_table", "tell"}
# Where texts are translated when they are printed.
_AT_THE_EDGE = {"checks.py", "checks_local.py", "checks_service.py", "exits.py"}
# Styles, names, and what is English until it is printed.
_NO_TEXTS = {
    *("bold red", "bold green", "bold yellow", "green", "red", "dim", "cards", "reasons", "good", "bad", "open"),
    *(
        '{{"images": [',
        "export {0}={1}",
        "face-async: {0}",
        "face-async: {0}\n",
        "face-async {0}",
        "face-async demo",
        "face-async identify",
    ),
    *("the image the file", *_OTHERS),
}


def not_marked(tree: ast.Module | None = None) -> list[str]:
    """Return the texts for people in the functions of the command line that ``_`` does not mark."""
    if tree is not None:
        return [text for function in _functions(tree) for text in _unmarked(function)]
    files = (file for file in (PACKAGE / "cli").rglob("*.py") if file.name not in _AT_THE_EDGE)
    return [text for file in files for text in not_marked(ast.parse(file.read_text("utf-8")))]


def _functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from node.body
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node)


def _unmarked(node: ast.AST, *, shown: bool = False) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Call(func=ast.Name(id="_")) | ast.Raise() if not _raises_line(node):
            return
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in _ELSEWHERE:
            return
        case ast.Call():
            shows = (node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)) in _SHOWS
            for child in ast.iter_child_nodes(node):
                yield from _unmarked(child, shown=shows)
        case ast.Constant(value=str()) | ast.JoinedStr():
            text = _template(node)
            if (
                is_message(text) or (shown and re.search(r"[a-z]{2,}", re.sub(r"\{.*?\}", "", text)))
            ) and text not in _NO_TEXTS:
                yield text
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _unmarked(child, shown=shown)


def _raises_line(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _name(node.exc.func) == "fail"


def _errors_and_tables(file: Path) -> Iterator[ast.AST]:
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and not (isinstance(node.exc, ast.Call) and _name(node.exc.func) == "fail"):
            yield node
    yield from (node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value)


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


def in_commands() -> set[str]:
    """Return what the command line and the page mark by ``_``, and the words of their tables."""
    return (
        _WORDS_OF_TABLES
        | _topics()
        | {
            node.args[0].value
            for file in [*(PACKAGE / "cli").rglob("*.py"), *(PACKAGE / "server" / "page").rglob("*.py")]
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "_"
            and isinstance(node.args[0], ast.Constant)
        }
    )


@cache
def in_help() -> set[str]:
    """Return the texts of help: of all commands, their arguments and options, and the titles of their families."""
    group = get_command(app)
    found: list[str | None] = [group.help, group.epilog]
    for command in [group, *group.commands.values()]:
        found += [command.help, getattr(command, "rich_help_panel", None)]
        context = command.make_context("", [], resilient_parsing=True)
        found += [getattr(parameter, "help", None) for parameter in command.get_params(context)]
    return {text for text in found if text} | {"Usage: "}


def in_templates() -> set[str]:
    """Return the texts of the page and of reports."""
    environment = Environment(extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True)
    files = [*PACKAGE.glob("server/page/templates/*.html"), *PACKAGE.glob("cli/html/templates/*.html")]
    found = [message for file in files for _, _, message in environment.extract_translations(file.read_text("utf-8"))]
    firsts = (message[0] if isinstance(message, tuple) else message for message in found)  # the rest are values
    return {message for message in firsts if message is not None}


def in_scripts() -> set[str]:
    """Return the texts of the page's scripts."""
    files = PACKAGE.glob("server/page/assets/*.js")
    return {text for file in files for text in TEXT_IN_SCRIPT.findall(file.read_text("utf-8"))}


def messages() -> set[tuple[str | None, str]]:
    """Return the context and the text of all that is to be translated."""
    plain = in_commands() | in_help() | in_templates() | in_scripts() | OF_TYPER
    return {(None, text) for text in plain} | {(LIBRARY, text) for text in in_library()}


def catalog() -> Catalog:
    """Return the Chinese catalog as it stands."""
    with PO.open("rb") as file:
        found = read_po(file, locale="zh_CN")
    found.creation_date = datetime(
        2026, 1, 1, tzinfo=UTC
    )  # which is compiled, too: the same sources give the same file
    return found


def compiled(translations: Catalog) -> bytes:
    """Return a catalog as gettext reads it."""
    file = io.BytesIO()
    write_mo(file, translations)
    return file.getvalue()


def fields_of(text: str) -> list[str]:
    """Return the places for values in a text, in their order by name."""
    return sorted(
        f"{name}:{spec}!{conversion}" for _, name, spec, conversion in Formatter().parse(text) if name is not None
    )


def _files(place: Path) -> Iterable[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts of a tree, without docstrings, and without what only programmers and logs see."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Call(func=ast.Name(id=name)) if name in _OF_PROGRAMMERS:
            return
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))) if name in _ELSEWHERE:
            return
        case ast.Constant(value=str()) | ast.JoinedStr():
            yield _template(node)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _texts(child)


def _template(node: ast.Constant | ast.JoinedStr) -> str:
    """Return a text with numbers in place of its values; a text that is a template itself has names there."""
    pieces = [node] if isinstance(node, ast.Constant) else node.values
    count = 0
    text = ""
    for piece in pieces:
        literal = piece.value if isinstance(piece, ast.Constant) else None
        if literal is not None and re.search(r"\{\w+(:,)?\}", literal):
            for before, name, *_ in Formatter().parse(literal):
                text += before + ("" if name is None else f"{{{count}}}")
                count += name is not None
        elif literal is not None:
            text += literal.replace("{", "{{").replace("}", "}}")
        else:
            text += f"{{{count}}}"
            count += 1
    return text


def _whole(text: str) -> str:
    """Return a text that follows another one as a template of both; a separator is none of its words."""
    text = re.sub("^[;:] ", "", text)
    if not text.startswith((" ", ", ")):
        return text
    return "{0}" + re.sub(r"\{(\d+)\}", lambda match: f"{{{int(match[1]) + 1}}}", text)


_HEADER = b"""# The messages of face_async in Chinese; "python tests/stand_ins/catalogkit.py" keeps their list.
msgid ""
msgstr ""
"Language: zh_CN\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""


def _update() -> None:
    listed, wanted = catalog(), messages()
    known = {(message.context, message.id) for message in listed if message.id}
    for context, text in known - wanted:
        listed.delete(text, context)
    for context, text in wanted - known:
        listed.add(text, context=context)
    with PO.open("wb") as file:
        file.write(_HEADER)
        write_po(file, listed, width=120, sort_output=True, omit_header=True)
    MO.write_bytes(compiled(catalog()))


if __name__ == "__main__":
    _update()
