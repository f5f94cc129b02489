"""Fill a store with persons and faces: ``python fill.py DB RECOGNIZER PICTURE GROUPS PERSONS FACES``.

PICTURE shows what the recognizer makes of a face; the rest are numbers: of groups, of persons in each, and of faces of
each person. Faces are random numbers, as large as a real face's. They are written past the store, which would take an
hour for a million of them.
"""

from __future__ import annotations

import sqlite3
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from clients import APPID, GROUP, PERSON

COLUMNS = "x, y, width, height, gender, age, expression, glass, pitch, yaw, roll"
SPARE_PERSONS = 10_000
"""Persons without faces, to add some to."""


def group_name(number: int) -> str:
    """Return the name of a group of persons with faces."""
    return GROUP if number == 0 else f"{GROUP}{number}"


def spare_name(number: int) -> str:
    """Return the id of a person without a face."""
    return f"spare{number % SPARE_PERSONS}"


def main() -> None:
    """Fill the store."""
    path, name, picture, *counts = sys.argv[1:]
    groups, persons, faces = map(int, counts)
    recognition = import_module("face_async.server.recognition")
    recognizer = recognition.recognizer(name)
    portrait = recognizer.find_face(Path(picture).read_bytes()).embedding
    import_module("face_async.server").Store(path).close()
    rng = np.random.default_rng(1)
    with sqlite3.connect(path) as db:
        for group in range(groups):
            fill_group(db, group, persons, group_name(group))
            first = group * persons + 1
            for person in range(first, first + persons):
                stored = rng.normal(size=(faces, portrait.size)).astype("<f4")
                stored *= np.linalg.norm(portrait) / np.linalg.norm(stored, axis=1, keepdims=True)
                add_faces(db, person, recognizer.name, stored)
        insert = "INSERT INTO persons (appid, person_id, name, tag) VALUES (?, ?, '', '')"
        db.executemany(insert, [(APPID, spare_name(number)) for number in range(SPARE_PERSONS)])
    recognizer.close()


def fill_group(db: sqlite3.Connection, number: int, persons: int, name: str) -> None:
    """Make a group and its persons."""
    db.execute("INSERT INTO groups (id, appid, group_id) VALUES (?, ?, ?)", (number + 1, APPID, name))
    keys = range(number * persons + 1, (number + 1) * persons + 1)
    db.executemany(
        "INSERT INTO persons (id, appid, person_id, name, tag) VALUES (?, ?, ?, '', '')",
        [(key, APPID, PERSON if key == 1 else f"filled{key}") for key in keys],
    )
    db.executemany("INSERT INTO memberships (grp, person) VALUES (?, ?)", [(number + 1, key) for key in keys])


def add_faces(db: sqlite3.Connection, person: int, recognizer: str, embeddings: np.ndarray) -> None:
    """Give a person faces."""
    columns = f"face_id, person, tag, {COLUMNS}, recognizer, embedding"
    db.executemany(
        f"INSERT INTO faces ({columns}) VALUES (?, ?, '', 0, 0, 100, 100, 50, 30, 0, 0, 0, 0, 0, ?, ?)",  # noqa: S608 - constants
        [
            (f"1{person:012}{number:06}", person, recognizer, embedding.tobytes())
            for number, embedding in enumerate(embeddings)
        ],
    )


if __name__ == "__main__":
    main()
