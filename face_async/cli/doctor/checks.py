"""What the doctor says of one thing, and its checks of the installation and the environment."""

from __future__ import annotations

import enum
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import field, frozen

from face_async._version import __version__
from face_async.cli.exits import Exit
from face_async.cli.options import ACCOUNT_VARIABLES, BASE_URL_VARIABLE, configured_service
from face_async.session import DEFAULT_BASE_URL, FaceSession
from face_async.signature import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {
    "cli": "",
    "server": "the embedded local server, face-async serve and demo need it",
    "recognition": "without it the local server cannot recognize real faces",
    "speed": "only http='reqwest' and uvloop need it",
}
"""The extras that the doctor tells of, and what each is for."""

_HTTP_VARIABLE = "FACE_ASYNC_HTTP"
_KNOWN_VARIABLES = frozenset({*ACCOUNT_VARIABLES, BASE_URL_VARIABLE, _HTTP_VARIABLE})
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)[^;]*(?:;.*extra == ['\"]([\w-]+)['\"])?")


class Verdict(enum.StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@frozen
class Check:
    """What the doctor says of one thing.

    Attributes:
        topic: What it is about, in a word.
        verdict: How it is.
        said: What was found; never a secret.
        mend: What to do about it, "" when nothing need be done.
        exit: The exit code that it deserves when it is wrong.
    """

    topic: str
    verdict: Verdict
    said: str
    mend: str = ""
    exit: Exit = field(default=Exit.USAGE, kw_only=True)

    @property
    def fields(self) -> dict[str, str]:
        """All of it for programs."""
        return {"topic": self.topic, "verdict": self.verdict.value, "said": self.said, "mend": self.mend}


def ok(topic: str, said: str, mend: str = "") -> Check:
    """Return a check of something that is as it should be."""
    return Check(topic, Verdict.OK, said, mend)


def warning(topic: str, said: str, mend: str) -> Check:
    """Return a check of something that works, but need not go on working."""
    return Check(topic, Verdict.WARNING, said, mend)


def wrong(topic: str, said: str, mend: str, code: Exit) -> Check:
    """Return a check of something that does not work."""
    return Check(topic, Verdict.WRONG, said, mend, exit=code)


def check_installation() -> Iterator[Check]:
    """Yield what is installed: versions, then a check for each extra."""
    wanted = _requirements()
    core = ", ".join(f"{name} {_version(name)}" for name in wanted.get("", ()))
    yield ok("version", f"face_async {__version__}, Python {platform.python_version()}{core and ', '}{core}")
    if not wanted:
        yield warning("extras", "face_async is not installed as a package", "pip install face_async to have them told")
        return
    for extra, purpose in EXTRAS.items():
        missing = [name for name in wanted[extra] if _version(name) is None]
        if not missing:
            yield ok(f"extra {extra}", ", ".join(f"{name} {_version(name)}" for name in wanted[extra]))
        else:
            yield ok(f"extra {extra}", f"not installed, {', '.join(missing)} missing; {purpose}")


def check_variables(base_url: str | None) -> list[Check]:
    """Return what the environment says: which variables are set, and whether they can be used."""
    known = [name for name in sorted(_KNOWN_VARIABLES) if os.environ.get(name)]
    unknown = sorted(name for name in os.environ if name.startswith("FACE_ASYNC_") and name not in _KNOWN_VARIABLES)
    checks = [_check_account(known)]
    if unknown:
        checks.append(
            warning(
                "variables",
                f"nobody reads {', '.join(unknown)}",
                f"the names are {', '.join(sorted(_KNOWN_VARIABLES))}",
            )
        )
    if os.environ.get(_HTTP_VARIABLE, "httpx") not in {"", "httpx", "reqwest"}:
        checks.append(
            wrong("variables", f"{_HTTP_VARIABLE} is neither httpx nor reqwest", "unset it, or set one", Exit.USAGE)
        )
    if known or base_url:
        checks.append(_check_address(base_url))
    return checks


def _check_account(known: list[str]) -> Check:
    try:
        service = configured_service()
    except ValueError as error:
        # What is wrong with a value is said without the value.
        return wrong("variables", f"set: {', '.join(known) or 'none'}", str(error), Exit.USAGE)
    if service is None and BASE_URL_VARIABLE in known:
        mend = f"set {', '.join(ACCOUNT_VARIABLES)} as well, or unset it"
        return wrong("variables", f"{BASE_URL_VARIABLE} is set, and no account", mend, Exit.USAGE)
    if service is None:
        return ok("variables", "none set: commands use the embedded local server")
    return ok("variables", f"set: {', '.join(known)}")


def _check_address(base_url: str | None) -> Check:
    if not base_url:
        return warning(
            "base_url",
            f"not set, so {DEFAULT_BASE_URL}, which its vendor has retired",
            f"set {BASE_URL_VARIABLE} to a server of your own (face-async serve)",
        )
    problem = _problem_of_address(base_url)
    if problem:
        return wrong("base_url", problem, f"set {BASE_URL_VARIABLE} to scheme://host:port", Exit.USAGE)
    plain = ", unencrypted, but on this machine" if urlsplit(base_url).scheme == "http" else ""
    return ok("base_url", f"{base_url}{plain}")


def _problem_of_address(base_url: str) -> str:
    try:
        _ = urlsplit(base_url).port  # which is not looked at before somebody connects
        FaceSession("1", "b", Credentials("a", "b"), base_url=base_url)
    except ValueError as error:
        # A URL with more in it than an address may hold a password.
        return str(error) if not set(base_url) & set("@?#") else "it is no http or https address alone"
    return ""


def _requirements() -> dict[str, list[str]]:
    """Return the names of the packages that each extra wants, those that are always wanted under ""."""
    try:
        lines = requires("face_async") or []
    except PackageNotFoundError:
        return {}
    wanted: dict[str, list[str]] = {"": [], **{extra: [] for extra in EXTRAS}}
    for name, extra in (found.groups(default="") for found in map(_REQUIREMENT.match, lines) if found):
        wanted.setdefault(extra, []).append(name)
    return wanted


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
