"""Rows of a source: a picture of a person each, or what is wrong with one."""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen


@frozen
class Row:
    """One picture of one person.

    Attributes:
        person_id: The person's id.
        source: The picture's path or URL in object storage, or the URL from which the server fetches it.
        group_ids: Groups to put the person in when they are created; those of all rows of a person count.
        person_name: The person's name; the first that a row of the person gives counts.
        tag: A remark for the face; the first that a row of the person gives is the person's, too.
    """

    person_id: str
    source: str
    group_ids: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    person_name: str | None = None
    tag: str | None = None


@frozen
class BadRow:
    """A line of a manifest, or an entry of a folder, that is not a picture of a person.

    Attributes:
        file: The manifest, or the entry itself.
        line: The line of the manifest, from 1; 0 for an entry of a folder.
        reason: What is wrong with it.
    """

    file: str
    line: int
    reason: str


Found: TypeAlias = tuple[str, int, Row | str]
"""Where a row was found, and the row or what is wrong with it."""
