"""The specification's own packets, return codes and signatures, as data that owes nothing to our code.

The folder ``packets`` holds every packet as the document prints it: one folder an endpoint, one file a packet, line
feeds alone. Reading them does what their medium asks for, and no more:

* header lines, and the lines of multipart bodies, end in CRLF; JSON bodies keep the document's line feeds;
* nothing follows the closing brace of a JSON body;
* a picture is the document's row of letters: no decodable image, only bytes that must arrive.

What the document has wrong stays wrong in the files, and no test may rely on it. ``Content-Length`` is false in the
requests of newperson, verify and compare, in every multipart request, and in the responses of delface, verify and
compare: recompute it from ``Sample.body`` and ``Sample.answer``. The requests of compare name /face/identify in their
request line. verify names person1 in one form and Person1 in the other. ``Authorization`` is cut short by the
document's authors and is no signature; ``SIGNATURE_VECTORS`` holds real ones.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

PACKETS = Path(__file__).with_name("packets")


class Part(NamedTuple):
    """One part of a multipart body."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


@dataclass(frozen=True)
class Sample:
    """One request of the specification and the answer printed below it, both as whole HTTP packets."""

    endpoint: str
    form: Literal["json", "multipart"]
    request: bytes
    response: bytes

    def __str__(self) -> str:
        """Name the sample in a test's id."""
        return f"{self.endpoint}-{self.form}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request, names in lower case; its Content-Length is not to be relied on."""
        return _headers(self.request)

    @property
    def body(self) -> bytes:
        """The body of the request."""
        return _split(self.request)[1]

    @property
    def answer(self) -> bytes:
        """The JSON body of the answer."""
        return _split(self.response)[1]

    @property
    def json_fields(self) -> dict[str, object]:
        """The fields of a JSON request."""
        if self.form != "json":
            raise TypeError(f"{self} has parts, not JSON")
        return json.loads(self.body)

    @property
    def parts(self) -> list[Part]:
        """The parts of a multipart request, cut by hand at the boundary."""
        if self.form != "multipart":
            raise TypeError(f"{self} has JSON, not parts")
        delimiter = b"--" + self.headers["content-type"].partition("boundary=")[2].encode()
        before, *pieces, after = self.body.split(delimiter)
        if before or after != b"--\r\n":
            raise ValueError(f"{self} is cut at the wrong places")
        return [_part(piece.removeprefix(b"\r\n").removesuffix(b"\r\n")) for piece in pieces]


def _split(packet: bytes) -> tuple[bytes, bytes]:
    head, _, body = packet.partition(b"\r\n\r\n")
    return head, body


def _headers(packet: bytes) -> dict[str, str]:
    lines = _split(packet)[0].decode("ascii").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _part(piece: bytes) -> Part:
    head, content = _split(b"part\r\n" + piece)
    headers = _headers(head + b"\r\n\r\n")
    # The document's text parts end in a stray semicolon, name="appid"; which searching by name steps over.
    parameters = dict(re.findall(r'(\w+)="([^"]*)"', headers["content-disposition"]))
    return Part(parameters["name"], parameters.get("filename"), headers.get("content-type"), content)


def _packet(path: Path) -> bytes:
    head, _, body = path.read_text("utf-8").partition("\n\n")
    body = body.replace("\n", "\r\n") if "multipart/form-data" in head else body.removesuffix("\n")
    return (head.replace("\n", "\r\n") + "\r\n\r\n" + body).encode()


SAMPLES: tuple[Sample, ...] = tuple(
    Sample(path.parent.name, form, _packet(path), _packet(path.with_name("response.http")))
    for form in ("json", "multipart")
    for path in sorted(PACKETS.glob(f"*/{form}-request.http"))
)
"""Every request of chapter 2 with its answer: 13 endpoints, five of them in both forms."""

ANSWERS: dict[str, bytes] = {sample.endpoint: sample.answer for sample in SAMPLES}
"""The JSON body of each endpoint's answer."""

CODES_OF_CHAPTER_3 = frozenset(
    int(code) for code in re.findall(r"^\| (-?\d+)", (PACKETS / "return-codes.md").read_text("utf-8"), re.MULTILINE)
)
"""The codes of chapter 3."""


BACK_END_NAMES: dict[int, str] = {
    0: "OK",
    -1101: "SDK_IMAGE_FACEDETECT_FAILED",
    -1102: "SDK_IMAGE_DECODE_FAILED",
    -1103: "SDK_FEAT_PROCESSFAILED",
    -1104: "SDK_FACE_SHAPE_FAILED",
    -1105: "SDK_FACE_GENDER_FAILED",
    -1106: "SDK_FACE_EXPRESSION_FAILED",
    -1107: "SDK_FACE_AGE_FAILED",
    -1108: "SDK_FACE_POSE_FAILED",
    -1109: "SDK_FACE_GLASS_FAILED",
    -1200: "STORAGE_ERROR",
    -1300: "ERROR_IMAGE_EMPTY",
    -1301: "ERROR_PARAMETER_EMPTY",
    -1302: "ERROR_PERSON_EXISTED",
    -1303: "ERROR_PERSON_NOT_EXISTED",
    -1304: "ERROR_PARAMETER_TOO_LONG",
    -1305: "ERROR_FACE_NOT_EXISTED",
    -1306: "ERROR_GROUP_NOT_EXISTED",
    -1307: "ERROR_GROUPLIST_NOT_EXISTED",
    -1308: "ERROR_DOWNLOAD_IMAGE_FAILED",
    -1309: "ERROR_FACE_NUM_EXCEED",
    -1310: "ERROR_PERSON_NUM_EXCEED",
    -1311: "ERROR_GROUP_NUM_EXCEED",
    -1312: "ERROR_SAME_FACE_ADDED",
    -1313: "ERROR_PARAMETER_INVALID",
    -1400: "ERROR_IMAGE_FORMAT_INVALID",
    -1403: "ERROR_IMAGE_DOWNLOAD_FAILED",
}
"""Code -> what the back end was seen to write in ``message``."""


class SignatureVector(NamedTuple):
    """A signature made by other means than ours, from the four values below."""

    form: str
    original: str
    authorization: str


SIGNED_APPID = "123456"
SIGNED_BUCKET = "test"
SIGNED_SECRET_ID = "AKIDexampleSecretId"
SIGNED_SECRET_KEY = "exampleSecretKey"

SIGNATURE_VECTORS: tuple[SignatureVector, ...] = (
    SignatureVector(
        "Python, PHP",
        "a=123456&b=test&k=AKIDexampleSecretId&e=1500000030&t=1500000000&r=123456789&f=",
        "UD4lCgfQWS0kyjgiLaZuAVBKEfJhPTEyMzQ1NiZiPXRlc3Qmaz1BS0lEZXhhbXBsZVNlY3JldElkJmU9MTUwMDAwMDAzMCZ0PTE1MDAwMDAwMDAmcj0xMjM0NTY3ODkmZj0=",
    ),
    SignatureVector(
        "document (u=0)",
        "a=123456&b=test&k=AKIDexampleSecretId&e=1500000030&t=1500000000&r=123456789&u=0&f=",
        "LUPdpXaqbIk1z+xHYsafIFq9/ghhPTEyMzQ1NiZiPXRlc3Qmaz1BS0lEZXhhbXBsZVNlY3JldElkJmU9MTUwMDAwMDAzMCZ0PTE1MDAwMDAwMDAmcj0xMjM0NTY3ODkmdT0wJmY9",
    ),
    SignatureVector(
        "Java, C++",
        "a=123456&b=test&k=AKIDexampleSecretId&t=1500000000&e=1500000300",
        "SjP0rgm31sCGnLZPLI3cV858Ky1hPTEyMzQ1NiZiPXRlc3Qmaz1BS0lEZXhhbXBsZVNlY3JldElkJnQ9MTUwMDAwMDAwMCZlPTE1MDAwMDAzMDA=",
    ),
    SignatureVector(
        "Node",
        "a=123456&k=AKIDexampleSecretId&e=1500000100&t=1500000000&r=12345&u=0&f=",
        "ufRHtyMEvFoc/R3/fQta7QYAgsFhPTEyMzQ1NiZrPUFLSURleGFtcGxlU2VjcmV0SWQmZT0xNTAwMDAwMTAwJnQ9MTUwMDAwMDAwMCZyPTEyMzQ1JnU9MCZmPQ==",
    ),
)
"""What the document and each official client sign: the order and the set of fields differ, the layout does not."""
