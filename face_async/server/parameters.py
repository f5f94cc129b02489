"""The parameters of a request, checked: codes 21, -1300, -1301, -1304, -1307 and -1313."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from attrs import frozen

from face_async.errors import ReturnCode
from face_async.limits import is_legal_id
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from face_async.limits import ServiceLimits
    from face_async.server.forms import Form


@frozen
class PictureUrl:
    """The URL of a picture that is to be fetched."""

    value: str


@frozen
class Parameters:
    """Reads one request's parameters by name.

    Attributes:
        form: The request's body.
        limits: How long ids and texts may be.
    """

    form: Form
    limits: ServiceLimits

    def id(self, name: str) -> str:
        """Return a required id: -1301 when missing or empty, -1304 when too long, -1313 when illegal."""
        return self._legal_id(self._text(name))

    def ids(self, name: str, *, empty: ReturnCode) -> list[str]:
        """Return a required list of ids without repetitions: -1301 when absent, ``empty`` is the code of ``[]``."""
        values = self._texts(name)
        if values is None:
            raise Refusal(ReturnCode.ERROR_PARAMETER_EMPTY)
        if not values:
            raise Refusal(empty)
        return list(dict.fromkeys(self._legal_id(value) for value in values))

    def has(self, name: str) -> bool:
        """Return whether a parameter was sent."""
        return self.form.fields.get(name) is not None

    def text(self, name: str) -> str | None:
        """Return an optional text, which may be empty; -1304 when too long."""
        value = self._text(name)
        if value is not None and _size(value) > self.limits.max_text_bytes:
            raise Refusal(ReturnCode.ERROR_PARAMETER_TOO_LONG)
        return value

    def target(self) -> tuple[str, str | None]:
        """Return the appid and the bucket that the request is for. The Java client sometimes leaves the bucket out."""
        appid = self.form.fields.get("appid")
        if isinstance(appid, int) and not isinstance(appid, bool):
            return str(appid), self._text("bucket")  # PHP and Node send a number if they were configured with one
        return self.id("appid"), self._text("bucket")

    def picture(self, image: str, url: str) -> bytes | PictureUrl | None:
        """Return the picture to use, if any was sent: the URL when there are both (Spec: 2.1); 21 for several."""
        address = self._text(url)
        if address:
            return PictureUrl(address)
        pictures = self.form.pictures.get(image, [])
        if len(pictures) > 1:
            raise Refusal(ReturnCode.PARAMETER_INVALID)
        return pictures[0] if pictures else None

    def pictures(self, images: str, urls: str) -> list[bytes | PictureUrl]:
        """Return the pictures to use, in order; -1300 when there are none.

        The specification types ``urls`` as String and shows a list: both are taken.
        """
        sent = self.form.fields.get(urls)
        addresses = ([sent] if sent else []) if isinstance(sent, str) else self._texts(urls)
        if addresses:
            return [PictureUrl(address) for address in addresses]
        pictures = self.form.pictures.get(images)
        if not pictures:
            raise Refusal(ReturnCode.ERROR_IMAGE_EMPTY)
        return list(pictures)

    def _legal_id(self, value: str | None) -> str:
        if not value:
            raise Refusal(ReturnCode.ERROR_PARAMETER_EMPTY)
        if _size(value) > self.limits.max_id_bytes:
            raise Refusal(ReturnCode.ERROR_PARAMETER_TOO_LONG)
        if not is_legal_id(value):
            raise Refusal(ReturnCode.ERROR_PARAMETER_INVALID)
        return value

    def _text(self, name: str) -> str | None:
        value = self.form.fields.get(name)
        return None if value is None else _checked_text(value)

    def _texts(self, name: str) -> list[str] | None:
        values = self.form.fields.get(name)
        if values is None:
            return None
        if not isinstance(values, list):
            raise Refusal(ReturnCode.PARAMETER_INVALID)
        return [_checked_text(value) for value in cast("list[object]", values)]


def _checked_text(value: object) -> str:
    if not isinstance(value, str):
        raise Refusal(ReturnCode.PARAMETER_INVALID)
    _size(value)
    return value


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair
        raise Refusal(ReturnCode.PARAMETER_INVALID) from None
