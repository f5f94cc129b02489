"""Faces of random numbers for galleries, and recognizers that compare them."""

from __future__ import annotations

import numpy as np

from face_async.limits import ServiceLimits
from face_async.server import Face

APPID = "123456"
LIMITS = ServiceLimits(max_faces_per_person=10_000, max_persons_per_group=1_000_000)
WIDTH = 16


class Euclid:
    """75 at distance 0.6, nothing from 1.2 on; as real recognizers, in 32-bit floats."""

    name = "euclid"
    is_euclidean = True

    def similarities(self, probe, gallery):
        apart = gallery - probe
        distances = np.sqrt(np.einsum("ij,ij->i", apart, apart, dtype=np.float64))
        return np.interp(distances, (0.0, 0.6, 1.2), (100.0, 75.0, 0.0))

    def find_face(self, picture):
        raise NotImplementedError

    def close(self):
        pass


class Cosine(Euclid):
    """One whose similarity is not a matter of distance, and that knows of no such question."""

    name = "cosine"

    def __getattribute__(self, name):
        if name == "is_euclidean":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def similarities(self, probe, gallery):
        lengths = np.linalg.norm(gallery.astype(np.float64), axis=1) * np.linalg.norm(probe.astype(np.float64))
        products = np.einsum("ij,j->i", gallery.astype(np.float64), probe.astype(np.float64))
        return 50 + 50 * products / np.maximum(lengths, 1e-12)


EUCLID, COSINE = Euclid(), Cosine()


def enroll(store, person_id, embedding, *groups, recognizer=EUCLID):
    face = Face(0, 0, 1.0, 1.0, embedding=np.asarray(embedding, np.float32))
    store.add_person(
        APPID, person_id, groups or ["g"], name="", tag="", face=face, recognizer=recognizer, limits=LIMITS
    )


def rows_of(embeddings, persons, first=0):
    pairs = zip(embeddings, persons, strict=True)
    return [(first + key, int(person), one.astype("<f4").tobytes()) for key, (one, person) in enumerate(pairs)]


def unit(rng, count, width=WIDTH):
    made = rng.standard_normal((count, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)
