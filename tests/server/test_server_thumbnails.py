"""Thumbnails: small pictures of faces, kept where that is asked for, and gone with the face."""

from __future__ import annotations

import io

import httpx
import pytest
from pagekit import served_page
from PIL import Image
from serverkit import APPID, calling, part

from face_async.images import decoding
from face_async.portraits import draw_portrait
from face_async.server import Store, StoreError, open_storage
from face_async.server.recognition import recognizer
from face_async.server.recognition.thumbnails import keeping_thumbnails
from face_async.server.refusal import Refusal
from face_async.server.storage.copying import copy_storage


def kept(store) -> int:
    with store.reading() as db:
        return db.execute("SELECT count(*) FROM thumbnails").fetchone()[0]


def keeping(store, **options):
    return calling(store, recognizer="fingerprint", keep_thumbnails=True, **options)


@pytest.mark.anyio
async def test_each_face_that_is_added_has_a_thumbnail_until_it_is_deleted(store):
    """Whoever deletes the face, or the person."""
    async with keeping(store) as caller:
        first = (await caller.new_person("ada", image=draw_portrait(1)))["face_id"]
        second, third = (await caller.add_faces("ada", draw_portrait(2), draw_portrait(3)))["face_ids"]
        for face_id in (first, second, third):
            with Image.open(io.BytesIO(store.thumbnail(APPID, face_id))) as image:
                assert image.format == "JPEG"
                assert 0 < max(image.size) <= 160
        await caller.ok("delface", person_id="ada", face_ids=[first])
        with pytest.raises(Refusal, match="-1305"):
            store.thumbnail(APPID, first)
        assert kept(store) == 2
        await caller.ok("delperson", person_id="ada")
        assert kept(store) == 0


@pytest.mark.anyio
async def test_none_is_kept_unless_that_is_asked_for(store):
    """And none of a picture that is only looked at."""
    async with calling(store, recognizer="fingerprint") as caller:
        face_id = (await caller.new_person("ada", image=draw_portrait(1)))["face_id"]
        with pytest.raises(Refusal, match="-1305"):
            store.thumbnail(APPID, face_id)
    async with keeping(store) as caller:
        await caller.ok("identify", part("group_id", "staff"), part("image", draw_portrait(1)))
    assert kept(store) == 0


@pytest.mark.anyio
async def test_another_appid_s_thumbnails_are_not_seen(store):
    async with keeping(store) as caller:
        face_id = (await caller.new_person("ada", image=draw_portrait(1)))["face_id"]
    with pytest.raises(Refusal, match="-1305"):
        store.thumbnail(f"{APPID}0", face_id)


@pytest.mark.anyio
async def test_copies_have_the_thumbnails(store, tmp_path):
    async with keeping(store) as caller:
        face_id = (await caller.new_person("ada", image=draw_portrait(1)))["face_id"]
    with open_storage(str(tmp_path / "copy.db")) as copy:
        assert copy_storage(store, copy)["thumbnails"] == 1
        assert copy.thumbnail(APPID, face_id) == store.thumbnail(APPID, face_id)


def test_a_database_that_is_away_is_logged_once_for_all_thumbnails(monkeypatch, caplog):
    """As for calls; a list of people asks for many."""

    def away(*_):
        raise StoreError("the database is locked")

    with served_page() as served, httpx.Client(base_url=served.url) as browser:
        browser.get(served.links[-1])
        monkeypatch.setattr(Store, "thumbnail", away)
        assert [503] * 5 == [browser.get(f"/ui/thumbnails/{number}").status_code for number in range(5)]
    assert ["a thumbnail could not be read: the database is locked"] == caplog.messages


def test_the_page_alone_shows_them():
    """They are no part of the API: only whoever has opened the page gets them."""
    with served_page(keep_thumbnails=True) as served, httpx.Client(base_url=served.url) as browser:
        served.enroll("ada", 1)
        (face_id,) = served.ask("get_face_ids", "ada")
        assert browser.get(f"/ui/thumbnails/{face_id}").status_code == 401
        browser.get(served.links[-1])
        shown = browser.get(f"/ui/thumbnails/{face_id}")
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
        assert shown.headers["cache-control"] == "no-store"
        assert browser.get("/ui/thumbnails/1").status_code == 204


@pytest.mark.parametrize(("name", "count"), [("faces", 1), ("fingerprint", 1), ("one's own", 2)])
def test_a_picture_is_decoded_once_for_its_face_and_its_thumbnail(monkeypatch, name, count):
    """A recognizer of one's own does not tell what it has decoded."""
    if name == "faces":
        pytest.importorskip("onnxruntime")
    decode, decoded = decoding.decode, []
    monkeypatch.setattr(decoding, "decode", lambda *args, **options: decoded.append(1) or decode(*args, **options))
    chosen = FindFaceAlone() if name == "one's own" else recognizer(name)
    face = keeping_thumbnails(chosen).find_face(draw_portrait(1, size=640))
    assert len(decoded) == count
    with Image.open(io.BytesIO(face.thumbnail)) as image:
        assert max(image.size) == 160


class FindFaceAlone:
    def find_face(self, picture):
        return recognizer("fingerprint").find_face(picture)


def test_a_thumbnail_is_cut_around_the_face_as_it_is_seen():
    """Upright, whatever the picture's EXIF says, and inside of the picture."""
    portrait = Image.open(io.BytesIO(draw_portrait(1, size=640)))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.rotate(90, expand=True).save(turned, "JPEG", exif=exif)
    with_thumbnails = keeping_thumbnails(recognizer("fingerprint"))
    face = with_thumbnails.find_face(turned.getvalue())
    with Image.open(io.BytesIO(face.thumbnail)) as cut:
        straight = portrait.resize(cut.size).convert("L").tobytes()
        seen = cut.convert("L").tobytes()
    assert sum(abs(a - b) for a, b in zip(seen, straight, strict=True)) / len(seen) < 12
