"""The official Python client, unchanged, against the local server: all its calls, by file, buffer and URL."""

from __future__ import annotations

import warnings
from urllib.parse import quote

import pytest
import serverkit
from serverkit import APPID, BUCKET, CREDENTIALS, on_a_socket

from face_async.portraits import draw_portrait

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it imports is its own affair
    from qcloud_image import CIBuffer, CIBuffers, CIFile, CIFiles, CIUrl, CIUrls, Client
    from qcloud_image.conf import Conf

# It opens pictures and never closes them.
pytestmark = [
    pytest.mark.usefixtures("unclosed_files"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed file.*:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two persons, two shots each, as files whose names are not ASCII."""
    folder = tmp_path_factory.mktemp("照片")
    for person in (1, 2):
        for shot in range(3):
            (folder / f"人{person}-{shot}.jpg").write_bytes(draw_portrait(person, shot=shot))
    return folder


@pytest.fixture(scope="module")
def web(photographs):
    """The same pictures by URL."""
    with serverkit.web(photographs) as address:
        yield address


@pytest.fixture(params=["by its address", "as its http_proxy"])
def client(web, monkeypatch, request):
    """A client that reaches the server; the environment alone can do that, with no line of code."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with on_a_socket(url_allow_list=[web]) as address:
        if request.param == "by its address":
            monkeypatch.setattr(Conf, "_Conf__SERVICE_ADDR", address)  # it has no option for that
        else:
            monkeypatch.setenv("http_proxy", f"http://{address}")
        yield Client(APPID, CREDENTIALS.secret_id, CREDENTIALS.secret_key, BUCKET)


@pytest.fixture(params=["file", "buffer", "url"])
def image(request, photographs, web):
    """How a picture is handed over: one, or several."""

    def name(person: int, shot: int) -> str:
        return f"人{person}-{shot}.jpg"

    one = {
        "file": lambda *which: CIFile(photographs / name(*which)),
        "buffer": lambda *which: CIBuffer((photographs / name(*which)).read_bytes()),
        "url": lambda *which: CIUrl(f"http://{web}/{quote(name(*which))}"),
    }[request.param]
    several = {"file": CIFiles, "buffer": CIBuffers, "url": CIUrls}[request.param]
    return one, several


def ok(answer: dict) -> dict:
    assert (answer["code"], answer["message"], answer["httpcode"]) == (0, "OK", 200)
    return answer["data"]


def test_all_thirteen_calls_work(client, image):
    """As its own documentation shows them."""
    one, several = image
    created = ok(client.face_newperson("ada", ["职员", "staff"], one(1, 0), "埃达", "总部"))
    assert (created["suc_group"], created["suc_face"]) == (2, 1)
    added = ok(client.face_addface("ada", several([one(1, 1), one(2, 0)]), "more"))
    assert added["added"] == 2
    assert ok(client.face_setinfo("ada", "Lady Ada"))["person_id"] == "ada"
    info = ok(client.face_getinfo("ada"))
    assert (info["person_name"], info["tag"], info["group_ids"]) == ("Lady Ada", "总部", ["职员", "staff"])
    assert ok(client.face_getgroupids())["group_ids"] == ["职员", "staff"]
    assert ok(client.face_getpersonids("staff"))["person_ids"] == ["ada"]
    faces = ok(client.face_getfaceids("ada"))["face_ids"]
    assert faces == [created["face_id"], *added["face_ids"]]
    assert ok(client.face_getfaceinfo(faces[0]))["face_info"]["face_id"] == faces[0]
    assert ok(client.face_verify("ada", one(1, 0)))["ismatch"]
    assert ok(client.face_identify("staff", one(1, 0)))["candidates"][0]["person_id"] == "ada"
    assert ok(client.face_compare(one(1, 0), one(1, 0)))["similarity"] == pytest.approx(100, abs=0.01)
    assert ok(client.face_delface("ada", faces[1:]))["deleted"] == 2
    assert ok(client.face_delperson("ada"))["deleted"] == 1


def test_comparing_a_file_with_a_url_works(client, photographs, web):
    """It sends one multipart body with imageA and urlB."""
    data = ok(client.face_compare(CIFile(photographs / "人1-0.jpg"), CIUrl(f"http://{web}/{quote('人1-0.jpg')}")))
    assert data["similarity"] == pytest.approx(100, abs=0.01)


def test_the_faces_of_a_picture_are_described(client, image):
    """Its calls of the later revision: detect, by a number as mode; shape has no points here."""
    one, _ = image
    for mode in (0, 1):
        (face,) = ok(client.face_detect(one(1, 0), mode))["face"]
        assert face["face_id"].isdecimal()
    assert client.face_shape(one(1, 0))["code"] == -1104


def test_what_is_not_offered_is_refused_in_words_that_it_understands(client, image):
    """Identity checks on the same paths, which are another product: code 3, and no "response is not json"."""
    one, _ = image
    answers = [client.face_idcardcompare("1", "name", one(1, 0)), client.face_livegetfour()]
    assert [(answer["code"], answer["httpcode"]) for answer in answers] == [(3, 200)] * 2


def test_other_products_are_refused(client, image):
    """On other paths of the same host, with the same signature; nothing is forwarded to anybody."""
    one, several = image
    answers = [
        client.porn_detect(several([one(1, 0)])),
        client.tag_detect(one(1, 0)),
        client.idcard_detect(several([one(1, 0)])),
        client.namecard_detect(several([one(1, 0)])),
    ]
    assert {answer["httpcode"] for answer in answers} <= {403, 404, 0}  # 0: it refuses the picture's kind by itself
    assert {403, 404} & {answer["httpcode"] for answer in answers}


def test_refusals_reach_it(client, image):
    """With the codes of the specification."""
    one, _ = image
    assert client.face_getinfo("nobody")["code"] == -1303
    assert client.face_identify("nowhere", one(1, 0))["code"] == -1306
    failed = client.face_compare(one(1, 0), CIBuffer(b"GIF89a"))
    assert (failed["code"], failed["data"]["fail_flag"]) == (-1400, 2)
