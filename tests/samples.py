"""The specification's own packets, code table and signatures, as data that owes nothing to our code.

Every packet stands as the document prints it, with three silent repairs that its medium asks for:

* header lines, and the lines of multipart bodies, end in CRLF; JSON bodies keep the document's line feeds;
* nothing follows the closing brace of a JSON body;
* a picture is the document's row of letters: no decodable image, only bytes that must arrive.

The figures of ``Content-Length`` are kept, and no test may rely on them: they are wrong for the bodies of
newperson, verify and compare, for every multipart body, and for the answers of delface, verify and compare.
Recompute them from ``Sample.body`` and ``Sample.answer``. The samples' ``Authorization`` is cut short by its authors
and is no signature; ``SIGNATURE_VECTORS`` holds real ones.
"""

# ruff: noqa: RUF001 - the specification is Chinese, and so is its punctuation

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Form = Literal["json", "multipart"]


class Part(NamedTuple):
    """One part of a multipart body; a plain tuple to whoever prefers one."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


@dataclass(frozen=True)
class Sample:
    """One request of the specification and the answer printed below it, both as whole HTTP packets."""

    endpoint: str
    section: str
    form: Form
    request: bytes
    response: bytes

    def __str__(self) -> str:
        """Name the sample in a test's id."""
        return f"{self.endpoint}-{self.form}"

    @property
    def path(self) -> str:
        """The path of the request line."""
        return self.request.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request, names in lower case; its Content-Length is not to be relied on."""
        return _headers(self.request)

    @property
    def body(self) -> bytes:
        """The body of the request."""
        return _split(self.request)[1]

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return int(self.response.split(b" ", 2)[1])

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


def _packet(text: str) -> bytes:
    head, _, body = text.strip("\n").partition("\n\n")
    if "multipart/form-data" in head:
        body = (body + "\n").replace("\n", "\r\n")
    return (head.replace("\n", "\r\n") + "\r\n\r\n" + body).encode()


def _samples(endpoint: str, section: str, *, answer: str, json: str, multipart: str = "") -> list[Sample]:
    made = [Sample(endpoint, section, "json", _packet(json), _packet(answer))]
    if multipart:
        made.append(Sample(endpoint, section, "multipart", _packet(multipart), _packet(answer)))
    return made


SAMPLES: tuple[Sample, ...] = (
    *_samples(
        "newperson",
        "2.1",
        json="""
POST /face/newperson HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 187
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "group_ids":[ "tencent", "qq" ],
  "person_id":"person0",
  "url":"http://test-123456.image.myqcloud.com/test.jpg"
}
""",
        multipart="""
POST /face/newperson HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 735
Content-Type: multipart/form-data;boundary=--------------acebdf13572468

----------------acebdf13572468
Content-Disposition: form-data; name="appid";

123456
----------------acebdf13572468
Content-Disposition: form-data; name="bucket";

test
----------------acebdf13572468
Content-Disposition: form-data; name="group_ids[0]";

tencent
----------------acebdf13572468
Content-Disposition: form-data; name="group_ids[1]";

qq
----------------acebdf13572468
Content-Disposition: form-data; name="person_id";

person0
----------------acebdf13572468
Content-Disposition: form-data; name="image"; filename="test.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468--
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 204
Content-Type: application/json

{
  "data":{
    "person_id":"person0",
    "suc_group":2,
    "suc_face":1,
    "session_id":"",
    "face_id":"1009550071676600319",
    "group_ids":["tencent", "qq"]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "delperson",
        "2.2",
        json="""
POST /face/delperson HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 66
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person0"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 114
Content-Type: application/json

{
  "data":{
    "deleted": 1,
    "person_id": "person0",
    "session_id":""
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "addface",
        "2.3",
        json="""
POST /face/addface HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 191
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person0",
  "urls":[
    "http://test-123456.image.myqcloud.com/face1.jpg",
    "http://test-123456.image.myqcloud.com/face2.jpg"
  ]
}
""",
        multipart="""
POST /face/addface HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 641
Content-Type: multipart/form-data;boundary=--------------acebdf13572468

----------------acebdf13572468
Content-Disposition: form-data; name="appid";

123456
----------------acebdf13572468
Content-Disposition: form-data; name="bucket";

test
----------------acebdf13572468
Content-Disposition: form-data; name="person_id";

person0
----------------acebdf13572468
Content-Disposition: form-data; name="images[0]"; filename="face1.jpg"
Content-Type: image/jpeg

yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
----------------acebdf13572468
Content-Disposition: form-data; name="images[1]"; filename="face2.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468--
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 168
Content-Type: application/json

{
  "data":{
    "added":2,
    "session_id":"",
    "face_ids":["1009550071676600319","109387462576600319"],
    "ret_codes":[0, 0]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "delface",
        "2.4",
        json="""
POST /face/delface HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 125
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person0",
  "face_ids":[
    "199d1efd19ce4ee67a7ec7655f859b1a"
  ]
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 150
Content-Type: application/json

{
  "data":{
    "deleted": 1,
    "face_ids":[
      "199d1efd19ce4ee67a7ec7655f859b1a"
    ],
    "session_id":""
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "setinfo",
        "2.5",
        json="""
POST /face/setinfo HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 97
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person0",
  "person_name":"NicolasCage"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 96
Content-Type: application/json

{
  "data":{
    "person_id": "person0",
    "session_id":""
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "getinfo",
        "2.6",
        json="""
POST /face/getinfo HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 66
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person0"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 293
Content-Type: application/json

{
  "data":{
    "person_id": "person0",
    "person_name": "NicolasCage",
    "face_ids": [
      "199d1efd19ce4ee67a7ec7655f859b1a",
      "19321efd19ce4ee67a7127655f85934a"
    ],
    "group_ids":[
      "tencent"
    ],
    "tag":"",
    "session_id":""
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "getgroupids",
        "2.7",
        json="""
POST /face/getgroupids HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 41
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 136
Content-Type: application/json

{
  "data":{
    "group_ids": [
      "tencent",
      "tencent-beijing",
      "tencent-shanghai"
]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "getpersonids",
        "2.8",
        json="""
POST /face/getpersonids HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 65
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "group_id":"tencent"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 120
Content-Type: application/json

{
  "data":{
    "person_ids": [
      "person0",
      "person1",
      "person2"
]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "getfaceids",
        "2.9",
        json="""
POST /face/getfaceids HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 66
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person1"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 154
Content-Type: application/json

{
  "data":{
    "face_ids": [
      "1005338790489817087",
      "1005338790489817088",
      "1005338790489817089"
]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "getfaceinfo",
        "2.10",
        json="""
POST /face/getfaceinfo HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 76
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "face_id":"1005338790489817087"
}
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 313
Content-Type: application/json

{
  "data":{
    "face_info": {
      "face_id": "1005338790489817087",
      "x": 44,
      "y": 33,
      "height": 64.0,
      "width": 64.0,
      "pitch": 5,
      "roll": 0,
      "yaw": 6,
      "age": 37,
      "gender": 99,
      "glass": true,
      "expression": 6
}
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "verify",
        "2.11",
        json="""
POST /face/verify HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 123
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "person_id":"person1",
  "url":"http://test-123456.image.myqcloud.com/test.jpg"
}
""",
        multipart="""
POST /face/verify HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 460
Content-Type: multipart/form-data;boundary=--------------acebdf13572468

----------------acebdf13572468
Content-Disposition: form-data; name="appid";

123456
----------------acebdf13572468
Content-Disposition: form-data; name="bucket";

test
----------------acebdf13572468
Content-Disposition: form-data; name="person_id";

Person1
----------------acebdf13572468
Content-Disposition: form-data; name="image"; filename="test.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468--
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 409
Content-Type: application/json

{
  "data":{
    "session_id":"session_id",
"confidence":90.0,
"ismatch":true
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "identify",
        "2.12",
        json="""
POST /face/identify HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 123
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "group_id":"tencent",
  "url":"http://test-123456.image.myqcloud.com/test.jpg"
}
""",
        multipart="""
POST /face/identify HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 460
Content-Type: multipart/form-data;boundary=--------------acebdf13572468

----------------acebdf13572468
Content-Disposition: form-data; name="appid";

123456
----------------acebdf13572468
Content-Disposition: form-data; name="bucket";

test
----------------acebdf13572468
Content-Disposition: form-data; name="group_id";

tencent
----------------acebdf13572468
Content-Disposition: form-data; name="image"; filename="test.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468--
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 409
Content-Type: application/json

{
  "data":{
    "session_id":"session_id",
    "candidates":[
      {
        "person_id":"person3",
        "face_id":"1031567119985213439",
        "confidence":54.90695571899414,
        "tag":"new tag"
      },
      {
        "person_id":"person1",
        "face_id":"1031587105968553983",
        "confidence":54.86775207519531,
        "tag":"new tag"
      }
    ]
  },
  "code":0,
  "message":"OK"
}
""",
    ),
    *_samples(
        "compare",
        "2.13",
        # The document posts these two to /face/identify, by mistake: the endpoint is /face/compare (its own item 1).
        json="""
POST /face/compare HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 123
Content-Type: application/json

{
  "appid":"123456",
  "bucket":"test",
  "urlA":"http://test-123456.image.myqcloud.com/testA.jpg",
  "urlB":"http://test-123456.image.myqcloud.com/testB.jpg"
}
""",
        multipart="""
POST /face/compare HTTP/1.1
Authorization: FCHXdPTEwMDAwMzc5Jms9QUtJRGVRZDBrRU1yM2J4ZjhRckJi==
Host: service.image.myqcloud.com
Content-Length: 460
Content-Type: multipart/form-data;boundary=--------------acebdf13572468

----------------acebdf13572468
Content-Disposition: form-data; name="appid";

123456
----------------acebdf13572468
Content-Disposition: form-data; name="bucket";

test
----------------acebdf13572468
Content-Disposition: form-data; name="imageA"; filename="testA.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468
Content-Disposition: form-data; name="imageB"; filename="testB.jpg"
Content-Type: image/jpeg

xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
----------------acebdf13572468--
""",
        answer="""
HTTP/1.1 200 OK
Connection: keep-alive
Content-Length: 109
Content-Type: application/json

{
  "data":{
    "similarity":100.0,
    "session_id":""
  },
  "code":0,
  "message":"OK"
}
""",
    ),
)
"""Every request of chapter 2 with its answer: 13 endpoints, five of them in both forms."""


CODES_OF_CHAPTER_3: dict[int, str] = {
    3: "错误的请求",
    4: "签名为空",
    5: "签名串错误",
    6: "签名中的appid/bucket与操作目标不匹配",
    9: "签名过期",
    10: "appid不存在",
    11: "secretid不存在",
    12: "appid和secretid不匹配",
    13: "重放攻击",
    14: "签名校验失败",
    15: "操作太频繁，触发频控",
    16: "Bucket不存在",
    21: "无效参数",
    23: "请求包体过大",
    107: "鉴权服务不可用",
    108: "鉴权服务不可用",
    213: "内部错误",
    -1101: "人脸检测失败",
    -1102: "图片解码失败",
    -1103: "特征处理失败",
    -1104: "提取轮廓错误",
    -1105: "提取性别错误",
    -1106: "提取表情错误",
    -1107: "提取年龄错误",
    -1108: "提取姿态错误",
    -1109: "提取眼镜错误",
    -1200: "特征存储错误",
    -1300: "图片为空",
    -1301: "参数为空",
    -1302: "个体已存在",
    -1303: "个体不存在",
    -1304: "参数过长",
    -1305: "人脸不存在",
    -1306: "组不存在",
    -1307: "组列表不存在",
    -1308: "url图片下载失败",
    -1309: "人脸个数超过限制",
    -1310: "个体个数超过限制",
    -1311: "组个数超过限制",
    -1312: "对个体添加了几乎相同的人脸",
    -1400: "非法的图片格式",
    -1403: "图片下载失败",
}
"""Code -> meaning, the table of chapter 3 word for word."""


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
