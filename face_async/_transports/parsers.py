"""Readers of answers: llhttp by httptools where it is installed (extra ``speed``), else h11."""

from __future__ import annotations

from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from face_async._transports.answers import merged
from face_async._transports.base import Answer, BadResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HEAD_BYTES = 100 * 1024
"""The longest head of an answer that is read; httpcore has the same limit."""


class BrokenAnswerError(Exception):
    """What came is not HTTP, or not all of an answer."""


class Parser(ABC):
    """Reads the answers on one connection, one after another.

    Attributes:
        whole: Whether the present answer is complete.
        reusable: Whether the connection may serve another request then: kept by the server, and nothing came behind.
    """

    whole: bool
    reusable: bool

    def __init__(self) -> None:
        self._status = 0
        self._size = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        """Make ready for the answer to the next request."""
        self.whole = self.reusable = False
        self._status = self._size = 0

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Read what has come, and return whether the answer is complete.

        Raises:
            BrokenAnswerError: It is not HTTP.
            BadResponse: It must not be read on.
        """

    @abstractmethod
    def end(self) -> bool:
        """Return whether the answer is complete now that the server has closed the connection."""

    def take(self) -> Answer:
        """Return the complete answer, and let go of it."""
        pieces = self._pieces
        answer = Answer(self._status, self._headers, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self.forget()
        return answer

    def forget(self) -> None:
        """Let go of what was read."""
        self._headers, self._pieces = {}, []

    def _take_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
            raise BrokenAnswerError
        self._status, self._headers = status, merged(headers)
        BadResponse.check_encoding(self._headers.get("content-encoding", "identity"), status)
        try:
            BadResponse.check_size(int(self._headers.get("content-length", "0")), status)
        except ValueError:  # of more digits than Python reads
            raise BrokenAnswerError from None

    def _take_piece(self, data: bytes) -> None:
        self._size += len(data)
        BadResponse.check_size(self._size, self._status)
        self._pieces.append(data)


def new_parser() -> Parser:
    """Return the fastest parser there is."""
    try:
        return HttptoolsParser()
    except ImportError:
        return H11Parser()


# h11 has to know of a request before it reads an answer. What was sent is not its business: all bodies are bodiless.
_REQUEST = h11.Request(method="POST", target="/", headers=[("Host", "h"), ("Content-Length", "0")])
_END = h11.EndOfMessage()


class H11Parser(Parser):
    """A parser in Python, which httpx brings along."""

    def __init__(self) -> None:
        super().__init__()
        self._state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def begin(self) -> None:
        super().begin()
        if self._state.our_state is h11.DONE:
            self._state.start_next_cycle()
        self._state.send(_REQUEST)
        self._state.send(_END)

    def feed(self, data: bytes) -> bool:
        try:
            self._state.receive_data(data)
            while self._read(self._state.next_event()):
                pass
        except h11.RemoteProtocolError:
            raise BrokenAnswerError from None
        return self.whole

    def end(self) -> bool:
        try:
            self.feed(b"")
        except BrokenAnswerError:
            return False
        self.reusable = False
        return self.whole

    def _read(self, event: object) -> bool:
        """Take in one event, and return whether there may be another one."""
        if isinstance(event, h11.Data):
            self._take_piece(bytes(event.data))
        elif isinstance(event, h11.Response):
            self._take_head(event.status_code, event.headers)
        elif isinstance(event, h11.EndOfMessage):
            self.whole = True
            self.reusable = self._state.their_state is h11.DONE and not self._state.trailing_data[0]
            return False
        elif not isinstance(event, h11.InformationalResponse):
            if event is not h11.NEED_DATA:
                raise BrokenAnswerError
            return False
        return True


class HttptoolsParser(Parser):
    """A parser in C; its methods ``on_...`` are what that calls."""

    def __init__(self) -> None:
        import httptools  # noqa: PLC0415 - an extra

        super().__init__()
        self._parser = httptools.HttpResponseParser(self)
        self._error = httptools.HttpParserError, httptools.HttpParserUpgrade
        self._head: list[tuple[bytes, bytes]] = []
        self._unheard = 0

    def begin(self) -> None:
        super().begin()
        self._unheard = 0

    def feed(self, data: bytes) -> bool:
        self._unheard += len(data)
        try:
            self._parser.feed_data(data)
        except self._error as error:
            cause = error.__context__  # what a method of ours has raised
            if not self.whole:
                raise (cause if isinstance(cause, BadResponse) else BrokenAnswerError()) from None
            self.reusable = False  # what came behind the answer is no answer
        if self._unheard > MAX_HEAD_BYTES and not self.whole:
            raise BrokenAnswerError  # a head, a chunk's extension or a trailer without end
        return self.whole

    def end(self) -> bool:
        # llhttp would have to be told of the end, and httptools does not tell it. It ends answers of no known length.
        headers = self._headers
        self.whole = self._status > 0 and not {"content-length", "transfer-encoding"} & headers.keys()
        return self.whole

    def on_message_begin(self) -> None:
        if self.whole:
            self.reusable = False
            raise BrokenAnswerError

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # others are trailers
            self._head.append((name, value))

    def on_headers_complete(self) -> None:
        self._unheard = 0
        status = self._parser.get_status_code()
        head, self._head = self._head, []
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise BrokenAnswerError
        if status >= HTTPStatus.OK:  # others come before the answer
            self._take_head(status, head)

    def on_body(self, data: bytes) -> None:
        self._unheard = 0
        self._take_piece(data)

    def on_message_complete(self) -> None:
        if self._status:
            self.whole = True
            self.reusable = self._parser.should_keep_alive()
