"""The pages that reports are made of: one HTML file with everything in it, to be opened, mailed or printed as it is.

Templates escape whatever they show. A page is rendered piece by piece, so that a long one takes no more memory than
its largest piece.
"""

from __future__ import annotations

import base64
import gettext
from functools import cache
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from face_async import __version__
from face_async.cli.pictures import smaller_copy
from face_async.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jinja2 import Environment

    from face_async.cli.pictures import Box, Copy, PictureSource


@frozen
class Rank:
    """A candidate on a card.

    Attributes:
        kind: ``same``: the right person; ``other``: the best candidate, but the wrong person; ``further``: the rest.
        note: Further words, in small type.
        picture: One of this person's pictures, None when none is at hand.
    """

    name: str
    confidence: float  # 0 to 100
    kind: Literal["same", "other", "further"]
    note: str = ""
    picture: PictureSource | None = field(default=None, repr=False)


@frozen
class Card:
    """A picture that was to be recognized, beside the candidates.

    Attributes:
        title: The person whom it shows, or the picture's file name.
        verdict: The result, in a word.
        tone: The color of that word.
        ranks: The candidates, best first.
        note: Further words below the title, in small type.
        caption: The words below the picture.
        box: Where the face is in it, None when that is not known.
        reason: Why there is no candidate.
        threshold: The confidence from which on it is the same person; None shows no mark.
    """

    title: str
    verdict: str
    tone: Literal["good", "bad", "open"]
    ranks: Sequence[Rank]
    note: str = ""
    picture: PictureSource | None = field(default=None, repr=False)
    caption: str = ""
    box: Box | None = None
    reason: str = ""  # nobody was found
    threshold: float | None = None


@frozen
class Section:
    """A part of a page; it is left out when its count is 0.

    Attributes:
        count: The number beside the heading.
        pieces: Its content, as HTML: what :func:`card` or :func:`failed_pictures` returned.
        lead: A sentence above the content.
        kind: How the pieces are laid out.
    """

    title: str
    count: int
    pieces: Iterable[str]
    lead: str = ""
    kind: Literal["cards", "reasons"] = "cards"


def page(
    title: str, summary: Mapping[str, object], sections: Iterable[Section], *, command: str, remark: str = ""
) -> Iterator[str]:
    """Yield a page as pieces of HTML: a summary of numbers by their names, the sections, and a remark at the foot."""
    return (
        _environment()
        .get_template("page.html")
        .generate(
            language=_language(),
            title=title,
            summary=summary,
            sections=sections,
            command=command,
            version=__version__,
            remark=remark,
        )
    )


def card(shown: Card) -> str:
    """Return a card as HTML."""
    return _environment().get_template("card.html").render(card=shown)


def failed_pictures(reason: str, count: int, pictures: Sequence[tuple[Path | None, str]]) -> str:
    """Return the first pictures that failed for one reason as HTML, each with the words below it; all are counted."""
    return _environment().get_template("failed_pictures.html").render(reason=reason, count=count, pictures=pictures)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - slow, and only reports need it

    environment = Environment(
        loader=PackageLoader("face_async.cli.html"),
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
        finalize=_without_control_characters,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_callables(gettext.gettext, gettext.ngettext, newstyle=False)  # type: ignore[attr-defined]  # by the extension
    functions: dict[str, object] = environment.globals  # pyright: ignore[reportAssignmentType]  # more than the default
    functions.update(base64=_base64, percent=_percent, smaller_copy=smaller_copy)
    return environment


def _language() -> str:
    """Return the language of the page, as HTML names it."""
    return "en" if gettext.gettext("nobody") == "nobody" else "zh-CN"


def _without_control_characters(value: object) -> object:
    """Return a value as it may be shown; what is HTML already stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))


def _base64(copy: Copy) -> str:
    return base64.b64encode(copy.jpeg).decode()


def _percent(confidence: float) -> str:
    return f"{min(100.0, max(0.0, confidence)):.1f}%"
