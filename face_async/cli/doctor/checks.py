"""The result of a check, and the checks of the installation and the environment."""

from __future__ import annotations

import enum
import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import field, frozen
from packaging.requirements import Requirement

from face_async import __version__
from face_async.cli.exits import Exit
from face_async.cli.language import LANGUAGE_VARIABLE
from face_async.cli.options import SERVER_VARIABLES, trust
from face_async.session import (
    ACCOUNT_VARIABLES,
    BASE_URL_VARIABLE,
    DEFAULT_BASE_URL,
    HTTP_LIBRARIES,
    HTTP_VARIABLE,
    SESSION_VARIABLES,
    ProjectAccess,
    check_base_url,
    is_unprotected,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {
    "cli": "face-async needs it",
    "server": "the embedded local server, face-async serve and demo need it",
    "recognition": "without it the local server cannot recognize real faces",
    "postgres": "face-async serve --db postgresql://… needs it",
    "speed": "httptools and uvloop make a session with http='asyncio' cheaper",
}
"""The extras that the doctor checks -> what needs each."""

_KNOWN_VARIABLES = frozenset(SESSION_VARIABLES)


class CheckVerdict(enum.StrEnum):
    """The verdict of a check."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@frozen
class CheckResult:
    """The result of one check.

    Attributes:
        topic: The subject of the check, in a word or two.
        said: What the check has seen; never a secret.
        mend: What to do about it, "" when there is nothing to do.
        exit: The exit code when the verdict is wrong.
    """

    topic: str
    verdict: CheckVerdict
    said: str
    mend: str = ""
    exit: Exit = field(default=Exit.USAGE, kw_only=True)


def ok(topic: str, said: str, mend: str = "") -> CheckResult:
    """Return the result for something that is as it should be."""
    return CheckResult(topic, CheckVerdict.OK, said, mend)


def warning(topic: str, said: str, mend: str) -> CheckResult:
    """Return the result for something that works, but may soon fail."""
    return CheckResult(topic, CheckVerdict.WARNING, said, mend)


def wrong(topic: str, said: str, mend: str, code: Exit) -> CheckResult:
    """Return the result for something that does not work."""
    return CheckResult(topic, CheckVerdict.WRONG, said, mend, exit=code)


def check_installation() -> Iterator[CheckResult]:
    """Yield what is installed: versions, then a result for each extra."""
    try:
        requirements = [Requirement(line) for line in requires("face_async") or ()]
    except PackageNotFoundError:
        requirements = []
    core = ", ".join(f"{needed.name} {_version(needed)}" for needed in requirements if _applies(needed, ""))
    yield ok("version", f"face_async {__version__}, Python {platform.python_version()}{core and ', '}{core}")
    if not requirements:
        yield warning("extras", "face_async is not installed as a package", "pip install face_async to see the extras")
        return
    for extra, purpose in EXTRAS.items():
        needed = [each for each in requirements if _applies(each, extra) and not _applies(each, "")]
        missing = [f"{each.name}{each.specifier}" for each in needed if not _is_installed(each)]
        installed = ", ".join(f"{each.name} {_version(each)}" for each in needed)
        yield ok(f"extra {extra}", f"not installed, wants {', '.join(missing)}; {purpose}" if missing else installed)


def check_variables(base_url: str | None) -> Iterator[CheckResult]:
    """Check which environment variables are set, and whether their values can be used."""
    known = [name for name in sorted(_KNOWN_VARIABLES) if os.environ.get(name)]
    unknown = sorted(
        {name for name in os.environ if name.startswith("FACE_ASYNC_")}
        - _KNOWN_VARIABLES
        - SERVER_VARIABLES
        - {LANGUAGE_VARIABLE}
    )
    yield _check_account(known)
    if unknown:
        mend = f"the names are {', '.join(sorted(_KNOWN_VARIABLES))}"
        yield warning("variables", f"not known: {', '.join(unknown)}", mend)
    if (library := os.environ.get(HTTP_VARIABLE)) and library not in HTTP_LIBRARIES:
        mend = "unset it, or set it to one of these"
        yield wrong("variables", f"{HTTP_VARIABLE} is none of {', '.join(HTTP_LIBRARIES)}", mend, Exit.USAGE)
    if base_url or any(name in known for name in ACCOUNT_VARIABLES):
        yield _check_address(base_url)


def _check_account(known: list[str]) -> CheckResult:
    try:
        project = ProjectAccess.from_env()
    except ValueError as error:
        # The error names the variable, and does not repeat its value.
        return wrong("variables", f"set: {', '.join(known) or 'none'}", str(error), Exit.USAGE)
    if project is None and BASE_URL_VARIABLE in known:
        mend = f"set {', '.join(ACCOUNT_VARIABLES)} as well, or unset it"
        return wrong("variables", f"{BASE_URL_VARIABLE} is set, and no account", mend, Exit.USAGE)
    said = "none set: commands use the embedded local server" if project is None else f"set: {', '.join(known)}"
    return ok("variables", said)


def _check_address(base_url: str | None) -> CheckResult:
    if not base_url:
        return warning(
            "base_url",
            f"not set, so {DEFAULT_BASE_URL}, which its vendor has retired",
            f"set {BASE_URL_VARIABLE} to a server of your own (face-async serve)",
        )
    try:
        _ = urlsplit(base_url).port  # checked here, as a session does so only when it connects
        check_base_url(base_url, allow_insecure=trust().insecure)
    except ValueError as error:
        # A URL with more in it than an address may hold a password.
        problem = str(error) if not set(base_url) & set("@?#") else "it is no http or https address alone"
        return wrong("base_url", problem, f"set {BASE_URL_VARIABLE} to scheme://host:port", Exit.USAGE)
    if is_unprotected(base_url):
        mend = "everybody on the way can read pictures and signatures: use https"
        return warning("base_url", f"{base_url}, unencrypted, to another machine", mend)
    plain = ", unencrypted, but on this machine" if urlsplit(base_url).scheme == "http" else ""
    return ok("base_url", f"{base_url}{plain}")


def _applies(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement is one of an extra on this machine; "" stands for no extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_installed(requirement: Requirement) -> bool:
    installed = _version(requirement)
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def _version(requirement: Requirement) -> str | None:
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None
