"""``verify`` and ``compare``: recognize one person."""

from __future__ import annotations

from gettext import gettext as _
from typing import Annotated, TypeAlias

import typer

from face_async import SAME_PERSON
from face_async.cli.exits import Exit
from face_async.cli.options import (
    AsJson,
    BaseUrl,
    Db,
    PersonId,
    RecognizerName,
    RecognizerOption,
    Threshold,
    ask,
)
from face_async.cli.output import fields_of, say, say_json
from face_async.errors import printable

Image: TypeAlias = Annotated[str, typer.Argument(metavar="IMAGE", help="A picture's file, or its URL.")]


def verify(
    person_id: PersonId,
    image: Image,
    *,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=100,
            help=f"The confidence from which on it is the person; without it the service decides: {SAME_PERSON:g}.",
        ),
    ] = None,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Tell whether a picture shows a person; the exit code is 1 if it does not."""
    result = ask(lambda session: session.verify(person_id, image), db=db, base_url=base_url, recognizer=recognizer)
    matches = result.is_match if threshold is None else result.confidence >= threshold
    if as_json:
        say_json({"person_id": person_id, "image": image, **fields_of(result), "same_person": matches})
    else:
        said = _("yes: {image} shows {person}") if matches else _("no: {image} does not show {person}")
        verdict = said.format(image=printable(image), person=printable(person_id))
        bound = "" if threshold is None else _(" (from {threshold:g} on it is)").format(threshold=threshold)
        say(
            _("{verdict}, confidence {confidence:.1f} of 100{bound}").format(
                verdict=verdict, confidence=result.confidence, bound=bound
            )
        )
    raise typer.Exit(Exit.OK if matches else Exit.NO)


def compare(
    image_a: Image,
    image_b: Image,
    *,
    threshold: Threshold = SAME_PERSON,
    db: Db = None,
    base_url: BaseUrl = None,
    recognizer: RecognizerOption = RecognizerName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Compare the faces of two pictures; the exit code is 1 if they seem to show two persons."""
    result = ask(lambda session: session.compare(image_a, image_b), db=db, base_url=base_url, recognizer=recognizer)
    same = result.similarity >= threshold
    if as_json:
        say_json({"images": [image_a, image_b], **fields_of(result), "same_person": same})
    else:
        say(
            _("{verdict}: similarity {similarity:.1f} of 100").format(
                verdict=_("the same person") if same else _("two persons"), similarity=result.similarity
            )
        )
    raise typer.Exit(Exit.OK if same else Exit.NO)
