"""One name, one meaning; and one spelling, the American one."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

import face_async
from face_async import FaceApi

PACKAGE = Path(face_async.__file__).parent
PROJECT = Path(__file__).parents[1]

# A verb has one name wherever it stands: it is a method of the session, its handler in the server and its command.
VERBS = {"compare", "identify", "verify"}
VERBS_STAND_IN = {"cli", "server"}

# The session for programs without async has the names of what it stands for.
TWINS = {"FaceSession", "Outcomes"}


def defined(text: str) -> set[str]:
    """Return the classes and the public functions that a module defines at its top."""
    body = ast.parse(text).body
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return classes | {name for name in functions if not name.startswith("_")}


def doubles() -> dict[str, list[str]]:
    """Return the names that several modules define, and where."""
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in defined(path.read_text("utf-8")):
            places[name].append(path.relative_to(PACKAGE).as_posix())
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def test_no_two_modules_give_one_name_to_two_things():
    assert {name: where for name, where in doubles().items() if name not in VERBS | TWINS} == {}


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_name_may_stand_twice_only_where_it_is_the_same_verb(name):
    """Once in a room, and only while it does stand twice."""
    assert hasattr(FaceApi, name)
    assert sorted(VERBS_STAND_IN) == [where.partition("/")[0] for where in doubles()[name]]


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_class_for_programs_without_async_is_called_as_its_twin(name):
    assert 2 == len(doubles()[name])
    assert any(where.startswith("sync/") for where in doubles()[name])


def test_classes_and_public_functions_are_found_wherever_they_are_alike():
    """Guard of the guard."""
    text = "class _A: ...\ndef b(): ...\nasync def c(): ...\ndef _d(): ...\nclass E:\n    def f(self): ..."
    assert defined(text) == {"_A", "b", "c", "E"}


BRITISH = re.compile(
    r"""
    \w(?:al|an|ar|er|gn|il|im|in|on|or|ron|st|ul)is(?:e|ed|es|er|ing|ation|ations)\b  # recognise, organisation
    | (?:arm|behavi|col|fav|harb|hon|hum|lab|neighb|rum|vap)our
    | enrol(?!l) | fulfil(?!l) | (?:cent|fib|lit|theat)re\b | (?:def|lic|off)ence | grey | (?:catal|dial)ogue
    | (?:label|model|signal|travel)l(?:ed|er|ing)(?!by) | artefact | programme(?!d|r) | sceptic | whilst
    """,
    re.VERBOSE | re.IGNORECASE,
)


def british(text: str) -> list[str]:
    return [text[max(0, found.start() - 20) : found.end() + 10] for found in BRITISH.finditer(text)]


def test_the_spelling_is_american():
    written = [PACKAGE.rglob("*.*"), PROJECT.glob("*.md"), PROJECT.glob("tests/**/*.py"), PROJECT.glob("benchmarks/*")]
    files = {path for path in chain(*written) if path.suffix in {".css", ".html", ".md", ".py"}} - {Path(__file__)}
    assert len(files) > 100
    assert {str(path): words for path in files if (words := british(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    ("word", "is_british"),
    [
        *[(word, True) for word in ("enrolment", "Recogniser", "initialise", "serialisation", "neighbours", "centre")],
        *[
            (word, False)
            for word in (
                "enrollment",
                "raised",
                "otherwise",
                "promised",
                "noise",
                "centred",
                "arising",
                "aria-labelledby",
            )
        ],
    ],
)
def test_the_spelling_is_judged_rightly(word, is_british):
    """Guard of the guard."""
    assert bool(british(word)) == is_british
