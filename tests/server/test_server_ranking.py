"""Whose faces a picture is most like: exactly, in little memory, in galleries of every size."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from gallerykit import COSINE, EUCLID, WIDTH, rows_of, unit

from face_async.server.storage.gallery import BLOCK_ROWS, Gallery
from face_async.server.storage.ranking import rank, rank_all


def plain(embeddings, persons, alive, probe, *, recognizer):
    """Return what a comparison with every face, one after the other, says: persons, faces, similarities."""
    keys = np.flatnonzero(alive)
    similarities = recognizer.similarities(probe, embeddings[keys])
    distances = np.square(embeddings[keys].astype(np.float64) - probe).sum(axis=1)
    if recognizer is COSINE:
        distances = np.zeros(len(keys))
    best = {}
    for place in np.lexsort((keys, distances, -similarities)):
        best.setdefault(int(persons[keys[place]]), (int(keys[place]), float(similarities[place])))
    return [(person, face, similarity) for person, (face, similarity) in list(best.items())[:5]]


def said(gallery, probe, recognizer, top=5):
    return [(face.person, face.face, -face.unlikeness) for face in rank(gallery, probe, recognizer, top)]


def scattered(rng, count):
    """Faces of all distances; each person has about 10."""
    return unit(rng, count) * rng.uniform(0, 1.5, (count, 1)).astype(np.float32), rng.integers(0, count // 10, count)


def far_away(rng, count):
    """Nobody is similar at all: every similarity to a probe of length 3 is 0."""
    return unit(rng, count), rng.integers(0, count // 10, count)


def copies(rng, count):
    """The same few pictures over and over, so that most distances are equal."""
    return unit(rng, 7)[rng.integers(0, 7, count)], rng.integers(0, count // 10, count)


def one_crowd(rng, count):
    """One person has the nearest thousands, so that a short list must be widened to hold five persons."""
    embeddings, persons = scattered(rng, count)
    near = rng.permutation(count)[: count // 2]
    embeddings[near] *= np.float32(0.01)
    persons[near] = 1
    return embeddings, persons


def indistinct(rng, count):
    """Far from the origin, and nearer to each other than 32-bit products can tell."""
    return 1_000 + np.float32(1e-3) * unit(rng, count), rng.integers(0, count // 10, count)


@pytest.mark.parametrize("recognizer", [EUCLID, COSINE], ids=["euclidean", "any"])
@pytest.mark.parametrize("kind", [scattered, far_away, copies, one_crowd, indistinct])
def test_the_ranking_is_that_of_a_comparison_with_every_face(kind, recognizer, seed, full):
    """Whatever the faces are, in galleries of several blocks, after some faces have gone."""
    rng = np.random.default_rng(seed)
    for _ in range(20 if full else 2):
        embeddings, persons = kind(rng, 2 * BLOCK_ROWS + int(rng.integers(1, 1_000)))
        gone = rng.permutation(len(persons))[:500]
        alive = np.ones(len(persons), bool)
        alive[gone] = False
        gallery = Gallery().extended(rows_of(embeddings, persons)).followed(1, gone.tolist(), [])
        assert gallery.count == alive.sum()
        for probe in (embeddings[0], embeddings.mean(axis=0), unit(rng, 1)[0], 3 * unit(rng, 1)[0]):
            assert plain(embeddings, persons, alive, probe, recognizer=recognizer) == said(gallery, probe, recognizer)


@pytest.mark.parametrize("recognizer", [EUCLID, COSINE], ids=["euclidean", "any"])
@pytest.mark.parametrize("kind", [scattered, copies, one_crowd])
def test_faces_are_ranked_in_all_galleries_together(kind, recognizer, seed, rng):
    """As in a comparison with every face, however the faces lie in large, small and empty galleries; some in two."""
    numbers = np.random.default_rng(seed)
    embeddings, persons = kind(numbers, 12_000)
    rows_of_all = rows_of(embeddings, persons)
    galleries, start = [Gallery()], 0
    while start < len(persons):
        count = rng.choice([1, 3, 100, 511, 513, 3_000])
        galleries.append(Gallery().extended(rows_of_all[max(0, start - 1) : start + count]))
        start += count
    gone = numbers.permutation(len(persons))[:500]
    alive = np.ones(len(persons), bool)
    alive[gone] = False
    galleries = [gallery.followed(1, gone.tolist(), []) for gallery in galleries]
    probes = [embeddings[0], embeddings.mean(axis=0), unit(numbers, 1)[0]]
    ranked, size = rank_all(iter(galleries), probes, recognizer, 5)
    assert size == sum(gallery.count for gallery in galleries)
    for probe, faces in zip(probes, ranked, strict=True):
        found = [(face.person, face.face, -face.unlikeness) for face in faces]
        assert found == plain(embeddings, persons, alive, probe, recognizer=recognizer)


def test_32_bit_products_alone_would_rank_wrongly(seed):
    """So the test above could fail: where faces are indistinct, the nearest by 32-bit products are other ones."""
    embeddings, persons = indistinct(np.random.default_rng(seed), 2_000)
    probe = embeddings[0]
    rough = np.square(embeddings).sum(axis=1) - 2 * embeddings @ probe
    expected = {face for _, face, _ in plain(embeddings, persons, np.ones(2_000, bool), probe, recognizer=EUCLID)}
    assert not expected <= set(np.argsort(rough, kind="stable")[:100].tolist())


def test_few_persons_and_none():
    """Fewer persons than are asked for are all there are."""
    gallery = Gallery().extended(rows_of(np.eye(3, WIDTH, dtype=np.float32), [8, 9, 8]))
    for recognizer in (EUCLID, COSINE):
        assert [person for person, _, _ in said(gallery, np.eye(1, WIDTH, 2, dtype=np.float32)[0], recognizer)] == [
            8,
            9,
        ]
        assert said(Gallery(), np.zeros(WIDTH, np.float32), recognizer) == []
        assert said(gallery.followed(1, [0, 1, 2], []), np.zeros(WIDTH, np.float32), recognizer) == []


def test_numbers_beyond_32_bits_do_not_hide_a_face():
    """A recognizer of one's own may store whatever it likes."""
    gallery = Gallery().extended(rows_of(np.full((1, WIDTH), 1e30, np.float32), [8]))
    assert [person for person, _, _ in said(gallery, np.full(WIDTH, 1e30, np.float32), COSINE)] == [8]


def test_a_gallery_never_changes(seed):
    """Whoever compares with one sees it as it was, whatever its successors are given and have lost."""
    rng = np.random.default_rng(seed)
    embeddings, persons = scattered(rng, 3_000)
    stored = rows_of(embeddings, persons)
    gallery = Gallery().extended(stored[:1_000])
    probe = embeddings[0]
    before = said(gallery, probe, EUCLID)
    later = gallery
    for step in range(1_000, 3_000, 100):
        later = later.followed(step, list(range(step - 1_000, step - 990)), stored[step : step + 100])
    assert said(gallery, probe, EUCLID) == before
    alive = np.ones(3_000, bool)
    for step in range(1_000, 3_000, 100):
        alive[step - 1_000 : step - 990] = False
    assert said(later, probe, EUCLID) == plain(embeddings, persons, alive, probe, recognizer=EUCLID)


@pytest.mark.parametrize(
    ("recognizer", "megabytes"), [(EUCLID, 1), (COSINE, 3 * BLOCK_ROWS * 128 * 8 / 1e6)], ids=["euclidean", "any"]
)
def test_a_comparison_takes_the_memory_of_a_block(recognizer, megabytes, seed, full):
    """Not that of a gallery, however many compare at once; of any recognizer, what it takes for a block."""
    rng = np.random.default_rng(seed)
    faces, callers = (200_000, 48) if full else (60_000, 8)
    embeddings = unit(rng, faces, 128)
    gallery = Gallery().extended(rows_of(embeddings, range(faces)))
    threads = [threading.Thread(target=rank, args=(gallery, embeddings[n], recognizer, 5)) for n in range(callers)]
    tracemalloc.start()
    try:
        rank(gallery, embeddings[0], recognizer, 5)
        assert tracemalloc.get_traced_memory()[1] / 1e6 < megabytes < embeddings.nbytes / 1e6
        tracemalloc.reset_peak()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracemalloc.get_traced_memory()[1] / 1e6 < callers * megabytes
    finally:
        tracemalloc.stop()
