"""What a connection of our own writes and reads: heads that nothing can break out of, answers read by two parsers."""

from __future__ import annotations

import sys

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_server import http

from face_async._transports.base import MAX_ANSWER_BYTES, BadResponse, TransportFailure
from face_async._transports.parsers import MAX_HEAD_BYTES, BrokenAnswerError, H11Parser, HttptoolsParser, new_parser
from face_async._transports.pool import request_head
from face_async._transports.target import host_of, target_of

PARSERS = [H11Parser, HttptoolsParser]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# What is written

names = st.text(max_size=12) | st.sampled_from(["Host", "Authorization", "X-A", "a:", "a b", "a\r\nb", "", "é"])
values = st.text(max_size=40) | st.sampled_from(
    ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "a\x0bb", "\r\n\r\nGET /", "é", "\ud800"]
)


def read_by_server(head: bytes) -> h11.Request:
    """Return the one request that a server reads in these bytes, and assert that there is no other."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return request


@given(headers=st.dictionaries(names, values, max_size=4))
def test_no_header_can_be_taken_for_anything_but_a_header(headers):
    """A server reads exactly what was given, or nothing is sent; the refusal repeats nothing."""
    headers = {name: value for name, value in headers.items() if name.lower() not in {"host", "content-length"}}
    headers |= {"Host": "h", "Content-Length": "0"}
    head, refused = None, None
    try:
        head = request_head("/face/x", headers)
    except TransportFailure as failure:
        refused = failure
    if head is None:
        assert refused.unsent
        assert not [value for value in headers.values() if len(value) > 2 and value in str(refused)]
        return
    request = read_by_server(head)
    assert {name.lower(): value.strip(" \t") for name, value in headers.items()} == {
        name.decode(): value.decode() for name, value in request.headers
    }


@given(path=st.text(max_size=60))
def test_no_path_can_break_out_of_the_request_line(path):
    """Whatever stands in a URL behind its host, the request line has three words."""
    try:
        target = target_of(f"http://h/{path}")
    except ValueError:
        return
    request = read_by_server(request_head(target.path, {"Host": "h", "Content-Length": "0"}))
    assert request.target == target.path.encode("ascii")
    assert request.target.startswith(b"/")


@given(host=st.text(min_size=1, max_size=30))
def test_no_host_can_break_out_of_its_header(host):
    """A host is a name or an address in printable ASCII, or the URL is refused."""
    try:
        found = host_of(f"https://{host}")
    except ValueError:
        return
    assert found.isascii()
    assert found.isprintable()
    assert not set(found) & set(" /@\\?#,;\"'")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://Example.COM/a", "example.com", 443),
        ("http://example.com:80", "example.com", 80),
        ("http://example.com:8600", "example.com:8600", 8600),
        ("https://[::1]:1/x", "[::1]:1", 1),
        ("https://[0:0::1]", "[::1]", 443),
        ("https://bücher.example", "xn--bcher-kva.example", 443),
    ],
)
def test_a_host_is_called_by_its_name_in_ascii(url, host, port):
    """The port is left out where it is the scheme's own."""
    assert (host, port) == (host_of(url), target_of(url).port)


@pytest.mark.parametrize(
    "url",
    ["http://a b/", "http://[::g]/", "http://a:99999/", "http:///x", "ftp://h/", "h", "http://h\u2100/", "http://-/"],
)
def test_a_url_without_a_host_to_call_is_refused(url):
    """The error is a ValueError that names base_url."""
    with pytest.raises(ValueError, match="base_url cannot be called"):
        host_of(url)


# What is read


@pytest.fixture(params=PARSERS)
def parser(request):
    if request.param is HttptoolsParser:
        pytest.importorskip("httptools")
    return request.param()


def read(parser, *pieces: bytes, ends: bool = False):
    """Return an answer that comes in these pieces, and whether its connection may be used again."""
    parser.begin()
    whole = [parser.feed(piece) for piece in pieces]
    if ends:
        whole.append(parser.end())
    assert whole == [False] * (len(whole) - 1) + [True]
    return parser.take(), parser.reusable


GOOD = {
    "length": (http(b"body"), True),
    "empty": (http(b""), True),
    "chunks": (CHUNKED + b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n", True),
    "trailer": (CHUNKED + b"4\r\nbody\r\n0\r\nDate: then\r\n\r\n", True),
    "1xx": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + http(b"body"), True),
    "close": (http(b"body", 200, ("Connection", "close")), False),
    "HTTP/1.0": (http(b"body").replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(parser, name):
    """Whole, byte by byte, and in two at any place; and the connection serves on, unless the server says otherwise."""
    packet, reusable = GOOD[name]
    body = b"" if name in {"empty", "no content"} else b"body"
    for pieces in ([packet], [packet[i : i + 1] for i in range(len(packet))], *halves(packet)):
        answer, again = read(parser, *pieces)
        assert (body, reusable) == (answer.content, again)
        assert "date" not in answer.headers
        if not again:
            parser = type(parser)()


def halves(packet):
    return [[packet[:place], packet[place:]] for place in range(1, len(packet))]


def test_headers_are_found_in_lower_case_and_joined(parser):
    """A name that comes twice is one header with both values; bytes beyond ASCII harm nobody."""
    answer, _ = read(parser, http(b"", 200, ("X-A", "1"), ("RETRY-After", "7"), ("x-a", "2")))
    assert ("1, 2", "7") == (answer.headers["x-a"], answer.headers["retry-after"])
    parser.begin()
    parser.feed(b"HTTP/1.1 200 OK\r\nX: \xff\xe9\r\nContent-Length: 0\r\n\r\n")
    assert parser.take().headers["x"] == "ÿé"


def test_an_answer_without_a_length_ends_with_the_connection(parser):
    """Such a connection cannot be used again."""
    answer, again = read(parser, b"HTTP/1.1 200 OK\r\n\r\nbo", b"dy", ends=True)
    assert (b"body", False) == (answer.content, again)


@pytest.mark.parametrize("packet", [b"", b"HTTP/1.1 200 OK\r\n", http(b"body")[:-1], CHUNKED + b"4\r\nbody\r\n0\r\n"])
def test_an_answer_that_ends_early_is_not_whole(parser, packet):
    """The end of the connection completes only an answer without a length."""
    parser.begin()
    assert not (packet and parser.feed(packet))
    assert not parser.end()


@pytest.mark.parametrize("behind", [b"{", b"HTTP/1.1 200 OK\r\n\r\n", http(b"more"), b"\0"])
def test_what_comes_behind_an_answer_spoils_the_connection(parser, behind):
    """The answer is good, but nothing more may be asked on its connection."""
    answer, again = read(parser, http(b"body") + behind)
    assert (b"body", False) == (answer.content, again)


def feed_all(parser, pieces):
    for piece in pieces:
        parser.feed(piece)


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "two lengths": http(b"x", 200, ("Content-Length", "1"), ("Content-Length", "2")),
    "no number": http(b"x", 200, ("Content-Length", "1x")),
    "a sign": http(b"x", 200, ("Content-Length", "+1")),
    "5,000 digits": http(b"x", 200, ("Content-Length", "1" * 5_000)),
    "no chunk": CHUNKED + b"zz\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "200 KB of headers": http(b"", 200, *[("X", "v" * 50)] * 4_000),
    "one long header": http(b"", 200, ("X", "v" * 200_000)),
    "a name with a space": http(b"", 200, ("X Y", "v")),
}


@pytest.mark.parametrize("size", [1_000_000, 1_000])
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_http_is_refused(parser, name, size):
    """At once or in pieces."""
    packet = BROKEN[name]
    parser.begin()
    with pytest.raises(BrokenAnswerError):
        feed_all(parser, [packet[start : start + size] for start in range(0, len(packet), size)])


ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 100),
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"v" * 1_000),
    "reason": (b"HTTP/1.1 200 ", b"v" * 1_000),
    "chunk extension": (CHUNKED + b"4;", b"v" * 1_000),
    "trailer": (CHUNKED + b"0\r\nX: ", b"v" * 1_000),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 200),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_nothing_that_is_no_body_goes_on_without_end(parser, name):
    """It is given up soon after the longest head that is read."""
    start, piece = ENDLESS[name]
    parser.begin()
    with pytest.raises(BrokenAnswerError):
        feed_all(parser, [start, *[piece] * (2 * MAX_HEAD_BYTES // len(piece))])


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (http(b"", 200, ("Content-Length", str(MAX_ANSWER_BYTES + 1))), "larger"),
        (CHUNKED + b"%x\r\n" % (MAX_ANSWER_BYTES + 1) + bytes(MAX_ANSWER_BYTES + 1), "larger"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MAX_ANSWER_BYTES + 1), "larger"),
        (http(b"", 200, ("Content-Encoding", "gzip")), "encoded as 'gzip'"),
        (http(b"", 200, ("Content-Encoding", "br"), ("Content-Encoding", "identity")), "encoded as 'br, identity'"),
    ],
)
def test_an_answer_that_must_not_be_read_is_refused_with_its_status(parser, packet, said):
    """Too large, whoever says so, and any encoding."""
    parser.begin()
    with pytest.raises(BadResponse, match=said) as caught:
        parser.feed(packet)
    assert caught.value.status == 200


def outcome(kind, packet, size):
    """Return what a parser makes of bytes that come in pieces of a size."""
    parser = kind()
    parser.begin()
    try:
        for start in range(0, len(packet), size):
            if parser.feed(packet[start : start + size]):
                answer = parser.take()
                return answer.status, answer.content
    except (BrokenAnswerError, BadResponse) as error:
        return type(error)
    return None


PIECES = [packet for packet, _ in GOOD.values()] + [
    *(b"HTTP/1.1 200 OK\r\n", b"\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"),
    *(b"0\r\n\r\n", b"\n", b"\r", b":", b" ", b"\0", b"\xff", b"Content-Encoding: gzip\r\n", b"Connection: close\r\n"),
]


@given(
    packet=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=6).map(b"".join), size=st.integers(1, 64)
)
def test_whatever_comes_is_an_answer_or_one_of_two_refusals(packet, size):
    """Neither parser raises anything else, and two answers to the same bytes are the same."""
    pytest.importorskip("httptools")
    outcomes = [outcome(kind, packet, size) for kind in PARSERS]
    answers = [found for found in outcomes if isinstance(found, tuple)]
    assert len(set(answers)) <= 1


def test_httptools_is_used_where_it_is_installed(monkeypatch):
    """Without the extra, h11 does the same."""
    pytest.importorskip("httptools")
    assert isinstance(new_parser(), HttptoolsParser)
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert isinstance(new_parser(), H11Parser)
