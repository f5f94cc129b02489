"""The parameters of a request, checked: codes 21, -1300, -1301, -1304, -1307 and -1313."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from attrs import frozen

from face_async.errors import ReturnCode
from face_async.limits import is_legal_id
from face_async.server.refusal import Refusal

if TYPE_CHECKING:
    from face_async.limits import ServiceLimits
    from face_async.server.request.forms import Form


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
        strict: Whether an id in JSON must be a text; otherwise an integer stands for its digits.
    """

    form: Form
    limits: ServiceLimits
    strict: bool = False

    def id(self, name: str) -> str:
        """Return a required id: -1301 when missing or empty, -1304 when too long, -1313 when illegal."""
        value = self.form.fields.get(name)
        return self._legal_id(None if value is None else self._id_text(value))

    def ids(self, name: str, *, empty: ReturnCode) -> list[str]:
        """Return a required list of ids without repetitions: -1301 when absent, ``empty`` is the code of ``[]``."""
        values = self._list(name)
        if values is None:
            raise Refusal(ReturnCode.ERROR_PARAMETER_EMPTY)
        if not values:
            raise Refusal(empty)
        return list(dict.fromkeys(self._legal_id(self._id_text(value)) for value in values))

    def groups(self) -> list[str]:
        """Return the groups to search: ``group_ids``, or else the one of ``group_id``."""
        if self.form.fields.get("group_ids") is None:
            return [self.id("group_id")]
        return self.ids("group_ids", empty=ReturnCode.ERROR_GROUPLIST_NOT_EXISTED)

    def largest_only(self) -> bool:
        """Return whether ``mode`` is 1, the largest face, and not 0, all faces, which it is when it is absent."""
        mode = self.form.fields.get("mode")
        if isinstance(mode, bool) or mode not in (None, "", "0", "1", 0, 1):
            raise Refusal(ReturnCode.PARAMETER_INVALID)
        return mode in ("1", 1)

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

    def optional_picture(self) -> bytes | PictureUrl | None:
        """Return newperson's picture, None when none was sent; 21 for one under another endpoint's name.

        To ignore that one would create a person without a face.
        """
        picture = self.picture("image", "url")
        others = (self.form.fields.get(name) for name in ("urls", "urlA", "urlB"))
        if picture is None and (self.form.pictures or any(others)):
            raise Refusal(ReturnCode.PARAMETER_INVALID)
        return picture

    def pictures(self, images: str, urls: str) -> list[bytes | PictureUrl]:
        """Return the pictures to use, in order; -1300 when there are none.

        The specification types ``urls`` as String and shows a list: both are taken.
        """
        sent = self.form.fields.get(urls)
        values = ([sent] if sent else []) if isinstance(sent, str) else self._list(urls)
        addresses = [_checked_text(value) for value in values or ()]
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

    def _list(self, name: str) -> list[object] | None:
        values = self.form.fields.get(name)
        if values is not None and not isinstance(values, list):
            raise Refusal(ReturnCode.PARAMETER_INVALID)
        return cast("list[object] | None", values)

    def _id_text(self, value: object) -> str:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return _checked_text(str(value) if is_integer and not self.strict else value)


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
