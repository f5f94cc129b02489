"""``identify``, ``verify``, ``compare``: who is it, is it, are they?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from attrs import frozen
from rich.text import Text

from face_async.cli.exits import Exit, exit_code, one_line
from face_async.cli.options import AsJson, BaseUrl, Db, PersonId, Recognizer, RecognizerName, ask
from face_async.cli.output import fields_of, foreign, say, say_json, say_table, tell
from face_async.errors import FaceError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from face_async.models import Candidate
    from face_async.session import FaceSession

# From 75 on the vendor speaks of about the same person; the local server's scale has dlib's usual threshold there.
SAME_PERSON = 75.0

Image: TypeAlias = Annotated[str, typer.Argument(metavar="IMAGE", help="A picture's file, or its URL.")]
Threshold = Annotated[
    float, typer.Option("--threshold", min=0, max=100, help="From which confidence on it is the same person.")
]


@frozen
class Found:
    """Whom one picture may show, or why that is not known."""

    image: str
    candidates: Sequence[Candidate] = ()
    error: FaceError | ValueError | None = None

    def known(self, threshold: float) -> bool:
        """Whether the first candidate is convincing."""
        return bool(self.candidates) and self.candidates[0].confidence >= threshold


def identify(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Pictures' files, or their URLs.")],
    *,
    group_ids: Annotated[
        list[str], typer.Option("--group", "-g", metavar="GROUP", help="Where to search; may be repeated.")
    ],
    threshold: Threshold = SAME_PERSON,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: Recognizer = RecognizerName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell whom of one or more groups each picture shows; the exit code is 1 unless all are recognised."""

    async def search(session: FaceSession) -> list[Found]:
        if len(group_ids) == 1:
            return await _in_one_group(session, images, group_ids[0])
        return [await _in_groups(session, image, group_ids) for image in images]

    findings = ask(search, db=db, base_url=base_url, recognizer=recognizer)
    if as_json:
        say_json({"images": [_as_json(found, threshold) for found in findings]})
    else:
        _say_findings(findings, threshold)
    for found in findings:
        if found.error is not None:
            tell(f"{printable(found.image)}: {one_line(found.error)}")
    raise typer.Exit(max(_exit_code(found, threshold) for found in findings))


def verify(
    person_id: PersonId,
    image: Image,
    *,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: Recognizer = RecognizerName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell whether a picture shows a person; the exit code is 1 if it does not."""
    result = ask(lambda session: session.verify(person_id, image), db=db, base_url=base_url, recognizer=recognizer)
    if as_json:
        say_json({"person_id": person_id, "image": image, **fields_of(result)})
    else:
        said = "yes: {} shows {}" if result.is_match else "no: {} does not show {}"
        say(f"{said.format(printable(image), printable(person_id))}, confidence {result.confidence:.1f} of 100")
    raise typer.Exit(Exit.OK if result.is_match else Exit.NO)


def compare(
    image_a: Image,
    image_b: Image,
    *,
    threshold: Threshold = SAME_PERSON,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: Recognizer = RecognizerName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell how alike the faces of two pictures are; the exit code is 1 if they rather show two persons."""
    result = ask(lambda session: session.compare(image_a, image_b), db=db, base_url=base_url, recognizer=recognizer)
    same = result.similarity >= threshold
    if as_json:
        say_json({"images": [image_a, image_b], **fields_of(result), "same_person": same})
    else:
        say(f"{'the same person' if same else 'two persons'}: similarity {result.similarity:.1f} of 100")
    raise typer.Exit(Exit.OK if same else Exit.NO)


async def _in_one_group(session: FaceSession, images: Sequence[str], group_id: str) -> list[Found]:
    async with session.identify_many(images, group_id, ordered=True) as outcomes:
        return [
            Found(images[outcome.index], outcome.result.candidates if outcome.result else (), outcome.error)
            async for outcome in outcomes
        ]


async def _in_groups(session: FaceSession, image: str, group_ids: Sequence[str]) -> Found:
    try:
        result = await session.identify_in_groups(image, group_ids)
    except (FaceError, ValueError) as problem:
        return Found(image, error=problem)
    # A group that could not be searched may be the one that the person is in: then the answer is not known.
    error = next(iter(result.errors.values()), None)
    return Found(image, result.candidates, error)


def _exit_code(found: Found, threshold: float) -> Exit:
    if found.error is not None:
        return exit_code(found.error)
    return Exit.OK if found.known(threshold) else Exit.NO


def _as_json(found: Found, threshold: float) -> dict[str, object]:
    return {
        "image": found.image,
        "recognised": found.known(threshold),
        "candidates": [
            {
                "person_id": candidate.person_id,
                "face_id": candidate.face_id,
                "confidence": candidate.confidence,
                "tag": candidate.tag,
            }
            for candidate in found.candidates
        ],
        "error": None if found.error is None else one_line(found.error),
    }


def _say_findings(findings: Sequence[Found], threshold: float) -> None:
    rows: list[tuple[str | Text, ...]] = []
    for found in findings:
        if not found.candidates and found.error is None:
            rows.append((found.image, Text("nobody", "dim"), "", "", ""))
        for place, candidate in enumerate(found.candidates):
            style = "dim" if candidate.confidence < threshold else "bold green" if place == 0 else ""
            rows.append(
                (
                    found.image if place == 0 else "",
                    foreign(candidate.person_id, style),
                    Text(f"{candidate.confidence:.1f}", style),
                    candidate.face_id,
                    candidate.tag,
                )
            )
    if rows:
        say_table(("picture", "person", "confidence", "face", "tag"), rows)
