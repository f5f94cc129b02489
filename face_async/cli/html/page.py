"""The page that reports are made of: one HTML file with everything in it, to be opened, mailed or printed as it is.

A page is made of pieces of text, so that a long one can be written piece by piece.
"""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from face_async._version import __version__
from face_async.cli.pictures import smaller_copy
from face_async.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from face_async.cli.pictures import Box, Copy, Picture

_PROBE_SIDE = 320  # pixels: more than twice what the page shows, for sharp screens
_FACE_SIDE = 96

# The policy is a second lock: the page needs nothing from anywhere, and now cannot ask for it.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<dl>
{figures}
</dl>
</header>
<main>
"""

_FOOT = """</main>
<footer>Made by <code>{command}</code> {version}. Confidence is 0 to 100; the bars show it. {remark}</footer>
</body>
</html>
"""


@frozen
class Rank:
    """A candidate on a card.

    Attributes:
        name: Whom to call it.
        note: What else to say, in small.
        confidence: 0 to 100.
        kind: ``same``: it is the one; ``other``: it is taken for the one and is not; ``further``: the rest.
        picture: One of this person's pictures, None when none is at hand.
    """

    name: str
    confidence: float
    kind: Literal["same", "other", "further"]
    note: str = ""
    picture: Picture | None = field(default=None, repr=False)


@frozen
class Card:
    """A picture that was to be recognized, beside the candidates.

    Attributes:
        title: What it shows, or where it lies.
        note: What else to say of it, in small.
        verdict: How it went, in a word.
        tone: How to show that word.
        picture: The picture.
        caption: What to write below it.
        box: Where the face is in it, None when that is not known.
        ranks: The candidates, best first.
        reason: What to say when there is none.
        threshold: From which confidence on it is the same person; None shows no mark.
    """

    title: str
    verdict: str
    tone: Literal["good", "bad", "open"]
    ranks: Sequence[Rank]
    note: str = ""
    picture: Picture | None = field(default=None, repr=False)
    caption: str = ""
    box: Box | None = None
    reason: str = "nobody was found"
    threshold: float | None = None


def head(title: str, figures: Mapping[str, object]) -> str:
    """Return how a page begins: its title and the figures to see first."""
    return _HEAD.format(
        title=text(title),
        style=files("face_async.cli.html").joinpath("page.css").read_text("utf-8"),
        figures="\n".join(
            f"<div><dt>{text(name)}</dt><dd>{text(figure)}</dd></div>" for name, figure in figures.items()
        ),
    )


def foot(command: str, remark: str = "") -> str:
    """Return how a page ends: the command that made it, and what else there is to say."""
    return _FOOT.format(command=text(command), version=text(__version__), remark=text(remark))


def section(
    title: str, count: int, pieces: Iterable[str], *, lead: str = "", kind: Literal["cards", "reasons"] = "cards"
) -> Iterator[str]:
    """Yield a section of cards or of reasons; nothing when it would be empty."""
    if count:
        yield f"<section>\n<h2>{text(title)} <span>{count:,}</span></h2>\n"
        yield f'<p class="lead">{text(lead)}</p>\n' if lead else ""
        yield f'<div class="{kind}">\n'
        yield from pieces
        yield "</div>\n</section>\n"


def card(shown: Card) -> str:
    """Return a card."""
    note = f"<small>{text(shown.note)}</small>" if shown.note else ""
    return f"""<article class="{shown.tone}">
<header><h3>{text(shown.title)}{note}</h3><span class="verdict">{text(shown.verdict)}</span></header>
{figure(shown.picture, shown.caption, description=f"to be recognized: {shown.title}", box=shown.box)}
{_candidates(shown)}
</article>
"""


def figure(
    picture: Picture | None, caption: str, *, description: str, box: Box | None = None, side: int = _PROBE_SIDE
) -> str:
    """Return a picture with its caption, and a frame around the face."""
    copy = None if picture is None else smaller_copy(picture, side)
    drawn = "" if box is None or copy is None else f'<span class="box" style="{_place(box, copy)}"></span>'
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure><span class="frame">{_image(copy, description)}{drawn}</span>{below}</figure>'


def reason_group(reason: str, count: int, figures: Sequence[str]) -> str:
    """Return pictures that failed for one reason, to be folded up."""
    shown = f", the first {len(figures):,} shown" if len(figures) < count else ""
    return f"""<details open><summary>{text(reason[:1].upper() + reason[1:])} <span>{count:,}{shown}</span></summary>
<div class="strip">
{"".join(figures)}
</div></details>
"""


def text(value: object) -> str:
    """Return a value as text for a page: no markup, no control characters."""
    return escape(printable(str(value)))


def _place(box: Box, copy: Copy) -> str:
    shares = {
        "left": box.x / copy.width,
        "top": box.y / copy.height,
        "width": box.width / copy.width,
        "height": box.height / copy.height,
    }
    return ";".join(f"{name}:{100 * share:.1f}%" for name, share in shares.items())


def _candidates(shown: Card) -> str:
    if not shown.ranks:
        return f'<p class="none">{text(shown.reason)}</p>'
    # Blanks in place of pictures show where one is missing; where all are, they would only take room.
    pictured = any(rank.picture is not None for rank in shown.ranks)
    items = "".join(_item(rank, shown.threshold, pictured=pictured) for rank in shown.ranks)
    return f"<ol>\n{items}</ol>" if pictured else f'<ol class="bare">\n{items}</ol>'


def _item(rank: Rank, threshold: float | None, *, pictured: bool) -> str:
    copy = None if rank.picture is None else smaller_copy(rank.picture, _FACE_SIDE)
    image = _image(copy, f"enrolled: {rank.name}") if pictured else ""
    note = f" <small>{text(rank.note)}</small>" if rank.note else ""
    mark = "" if threshold is None else f'<i style="left:{_percent(threshold)}"></i>'
    return f"""<li class="{rank.kind}">{image}
<span class="name">{text(rank.name)}{note}</span><span class="number">{rank.confidence:.1f}</span>
<span class="bar"><span style="width:{_percent(rank.confidence)}"></span>{mark}</span></li>
"""


def _percent(confidence: float) -> str:
    return f"{min(100.0, max(0.0, confidence)):.1f}%"


def _image(copy: Copy | None, description: str) -> str:
    if copy is None:
        return f'<span class="blank" role="img" aria-label="{text(description)} (no picture)"></span>'
    return f'<img alt="{text(description)}" src="data:image/jpeg;base64,{base64.b64encode(copy.jpeg).decode()}">'
