"""The language of the page: Chinese for a browser that prefers it, English for all others."""

from __future__ import annotations

import gettext
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

ENGLISH, CHINESE = "en", "zh-CN"  # as HTML names them

TEXT_IN_SCRIPT = re.compile(r'\bt\("((?:[^"\\]|\\.)*)"')
"""A call of the scripts' function that translates."""

_CATALOGS = Path(__file__).parents[2] / "locale"
_CHOICE = re.compile(r"\s*([a-z]{2,3}|\*)(?:-[a-z0-9-]+)?\s*(?:;\s*q=([0-9.]{1,5}))?\s*", re.IGNORECASE)


def language_of(request: Request) -> str:
    """Return the one of the page's languages that the browser prefers, by its Accept-Language."""
    choices = [_CHOICE.fullmatch(part) for part in request.headers.get("accept-language", "").split(",")]
    weights = {match[1].lower(): _weight(match[2]) for match in reversed(choices) if match}
    return CHINESE if weights.get("zh", 0) > weights.get("en", 0) else ENGLISH


@cache
def translations(language: str) -> gettext.NullTranslations:
    """Return the catalog of a language; that of English gives every message back as it is."""
    return gettext.translation("face_async", _CATALOGS, [language.replace("-", "_")], fallback=True)


def texts_of_scripts(scripts: Iterable[str], language: str) -> dict[str, str]:
    """Return the texts of the page's scripts with their translations; {} where all stay as they are."""
    known = translations(language).gettext
    found = {text for script in scripts for text in TEXT_IN_SCRIPT.findall(script)}
    return {text: known(text) for text in sorted(found) if known(text) != text}


def _weight(quality: str | None) -> float:
    try:
        return float(quality or 1)
    except ValueError:
        return 0.0
