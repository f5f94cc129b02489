"""The demo's report: one HTML page with everything in it, to be opened, mailed or printed as it is."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from face_async._version import __version__
from face_async.cli.exits import one_line
from face_async.cli.pictures import smaller_copy
from face_async.errors import printable

if TYPE_CHECKING:
    from pathlib import Path

    from face_async.cli.findings import Findings, Trial
    from face_async.cli.pictures import Picture
    from face_async.models import Candidate

_PROBE_SIDE = 360  # pixels: twice what the page shows, for sharp screens
_FACE_SIDE = 96

# The policy is a second lock: the page needs nothing from anywhere, and now cannot ask for it.
_PAGE = """<!DOCTYPE html>
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
{trials}
</main>
<footer>Made by <code>face-async demo</code> {version}. Confidence is 0 to 100; the bars show it.</footer>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --text: #1c2330; --soft: #667085; --line: #e4e7ec;
  --bar: #98a2b3; --right: #12805c; --right-soft: #d9f2e6; --wrong: #c0362c; --wrong-soft: #fde4e1; }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1c212b; --text: #e6e9ef; --soft: #98a2b3;
  --line: #2c3340; --bar: #566074; --right: #4cc38a; --right-soft: #143526; --wrong: #ff8b80; --wrong-soft: #421c1a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.6rem; line-height: 1.2; letter-spacing: -.01em; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 0 0 1.5rem; }
dl div { padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); gap: 1rem; }
article { display: grid; grid-template-columns: 8rem minmax(0, 1fr); gap: .4rem 1rem; padding: 1rem;
  align-content: start; border: 1px solid var(--line); border-radius: .8rem; background: var(--card);
  break-inside: avoid; }
article > header { grid-column: 1 / -1; display: flex; align-items: baseline; gap: .5rem; flex-wrap: wrap; }
h2 { margin: 0; font-size: 1.1rem; overflow-wrap: anywhere; }
.where { color: var(--soft); font-size: .85rem; }
.verdict { margin-left: auto; padding: .05rem .6rem; border-radius: 1rem; font-size: .85rem; font-weight: 600; }
.right .verdict { color: var(--right); background: var(--right-soft); }
.wrong .verdict { color: var(--wrong); background: var(--wrong-soft); }
figure { margin: 0; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: .5rem; }
figcaption, .none { color: var(--soft); font-size: .8rem; }
ol { display: grid; gap: .45rem; margin: 0; padding: 0; list-style: none; align-content: start; }
li { display: grid; grid-template-columns: 2.4rem minmax(0, 1fr) auto; gap: 0 .6rem; align-items: center; }
li img, li .blank { grid-row: span 2; width: 2.4rem; height: 2.4rem; object-fit: cover; border-radius: .35rem;
  background: var(--line); }
li .name { overflow-wrap: anywhere; font-size: .9rem; }
li .number { font-size: .85rem; font-variant-numeric: tabular-nums; color: var(--soft); }
li .bar { grid-column: 2 / -1; height: .35rem; border-radius: 1rem; background: var(--line); overflow: hidden; }
li .bar span { display: block; height: 100%; background: var(--bar); }
li.same .name { font-weight: 600; }
li.same .bar span { background: var(--right); }
li.other .bar span { background: var(--wrong); }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .85rem; }
"""


def write_report(path: Path, findings: Findings) -> None:
    """Write the page.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(page(findings), encoding="utf-8")


def page(findings: Findings) -> str:
    """Return the page: the summary, then each probe beside its candidates."""
    figures = {
        "people": len(findings.people),
        "faces enrolled": len(findings.faces),
        "requests": findings.stats.requests,
        "seconds": f"{findings.seconds:.1f}",
        "requests a second": f"{findings.stats.requests / findings.seconds:.0f}",
        "recognizer": findings.recognizer,
    }
    return _PAGE.format(
        title=_text(f"{findings.recognised} of {len(findings.trials)} recognised"),
        style=_STYLE,
        figures="\n".join(
            f"<div><dt>{_text(name)}</dt><dd>{_text(figure)}</dd></div>" for name, figure in figures.items()
        ),
        trials="\n".join(_article(trial, findings) for trial in findings.trials),
        version=_text(__version__),
    )


def _article(trial: Trial, findings: Findings) -> str:
    verdict = "right" if trial.right else "wrong"
    return f"""<article class="{verdict}">
<header><h2>{_text(trial.person.name)}</h2><span class="where">in {_text(trial.where)}</span>
<span class="verdict">{verdict}</span></header>
<figure>{_image(trial.probe, _PROBE_SIDE, f"to be recognised: {trial.person.name}")}
<figcaption>to be recognised</figcaption></figure>
{_candidates(trial, findings)}
</article>"""


def _candidates(trial: Trial, findings: Findings) -> str:
    if not trial.candidates:
        return f'<p class="none">{_text(one_line(trial.error) if trial.error else "nobody was found")}</p>'
    items = (_item(candidate, place, trial, findings) for place, candidate in enumerate(trial.candidates))
    return f"<ol>\n{''.join(items)}</ol>"


def _item(candidate: Candidate, place: int, trial: Trial, findings: Findings) -> str:
    name = findings.names.get(candidate.person_id, candidate.person_id)
    same = candidate.person_id == trial.person.person_id
    # Only the first candidate is an answer, so only there another person is a mistake.
    kind = "same" if same else "other" if place == 0 else "further"
    width = min(100.0, max(0.0, candidate.confidence))
    return f"""<li class="{kind}">{_image(findings.faces.get(candidate.face_id), _FACE_SIDE, f"enrolled: {name}")}
<span class="name">{_text(name)}</span><span class="number">{candidate.confidence:.1f}</span>
<span class="bar"><span style="width:{width:.1f}%"></span></span></li>
"""


def _image(picture: Picture | None, side: int, description: str) -> str:
    copy = None if picture is None else smaller_copy(picture, side)
    if copy is None:
        return f'<span class="blank" role="img" aria-label="{_text(description)} (no picture)"></span>'
    return f'<img alt="{_text(description)}" src="data:image/jpeg;base64,{base64.b64encode(copy).decode()}">'


def _text(value: object) -> str:
    return escape(printable(str(value)))
