"""The specification's own packets, in both directions, through the 13 verbs."""

from __future__ import annotations

import json
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

import pytest
from doubles import Sent, session_on
from specification import ANSWERS, SAMPLES, Sample
from verbs import CALLS, RESULTS, pictures

from face_async.endpoints import ENDPOINTS

pytestmark = pytest.mark.anyio


async def send(sample: Sample) -> tuple[object, Sent]:
    """Send a sample through its verb, and return the result and what left."""
    session, network = session_on(sample.answer)
    result = await CALLS[sample.endpoint](session, pictures(sample))
    return result, network.sent[0]


def parts_of(sent: Sent) -> list[EmailMessage]:
    packet = b"Content-Type: " + sent.headers["content-type"].encode() + b"\r\n\r\n" + sent.body
    return BytesParser(policy=HTTP).parsebytes(packet).get_payload()


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_each_verb_posts_to_the_url_of_its_section(sample):
    """POST, to the path that the specification gives, with the exact length and never chunked."""
    _, sent = await send(sample)

    assert f"https://service.image.myqcloud.com/face/{sample.endpoint}" == sent.url
    assert str(len(sent.body)) == sent.headers["content-length"]
    assert "transfer-encoding" not in sent.headers
    assert "service.image.myqcloud.com" == sent.headers["host"]


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.form == "json"], ids=str)
async def test_without_a_picture_a_verb_sends_the_samples_json(sample):
    """Calls without pictures, and calls with URLs, are JSON with exactly the sample's fields."""
    _, sent = await send(sample)

    # The sample of verify names person1 in one form and Person1 in the other.
    assert sample.json_fields == json.loads(sent.body)
    assert "application/json" == sent.headers["content-type"]


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one.form == "multipart"], ids=str)
async def test_with_a_picture_a_verb_sends_the_samples_parts(sample):
    """Calls with pictures are multipart with exactly the sample's parts, in its order."""
    _, sent = await send(sample)

    expected = [
        (part.name, part.filename, part.content_type, part.content.replace(b"Person1", b"person1"))
        for part in sample.parts
    ]
    actual = [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part["content-type"],
            part.get_payload(decode=True),
        )
        for part in parts_of(sent)
    ]
    assert expected == actual


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
async def test_each_sample_answer_becomes_its_typed_result(sample):
    """Every answer of the specification is understood whole."""
    result, _ = await send(sample)

    assert RESULTS[sample.endpoint] == result


@pytest.mark.parametrize("missing", ["verb", "result", "sample"])
def test_no_endpoint_is_forgotten(missing):
    """All 13 rows have a verb, an expected result and a sample."""
    names = {endpoint.name for endpoint in ENDPOINTS}
    known = {"verb": CALLS, "result": RESULTS, "sample": {sample.endpoint for sample in SAMPLES}}[missing]

    assert names == set(known)
    assert 13 == len(ENDPOINTS)


async def test_a_picture_and_a_url_may_be_compared_in_one_request():
    """Compare mixes both forms in one multipart body: imageA with urlB, and urlA with imageB."""
    session, network = session_on(ANSWERS["compare"])

    await session.compare(b"\xff\xd8\xffA", "http://example.com/b.jpg")
    await session.compare("http://example.com/a.jpg", b"\xff\xd8\xffB")

    names = [[part.get_param("name", header="content-disposition") for part in parts_of(one)] for one in network.sent]
    assert [["appid", "bucket", "urlB", "imageA"], ["appid", "bucket", "urlA", "imageB"]] == names


async def test_pictures_and_urls_in_one_add_face_are_refused():
    """One addface request carries one form: the error says to call once for each."""
    session, network = session_on(b"")

    with pytest.raises(ValueError, match=r"1 of the 2 images are URLs.*once for each kind"):
        await session.add_face("person0", [b"\xff\xd8\xff", "http://example.com/a.jpg"])

    assert [] == network.sent
