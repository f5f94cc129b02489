"""The verbs, and what the service's limits leave room for: what packs and bulk verbs stand on."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

from attrs import evolve

from face_async._call.wire import encode
from face_async.bulk.fitting import MAX_SOURCE_BYTES, fitted
from face_async.bulk.ledger import LimitLedger
from face_async.endpoints import ADD_FACE, Endpoint, FaceApi, Fields, Images
from face_async.images import ImageFile, ImageSource, as_image
from face_async.images.inputs import depends_on_input, detached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from face_async.limits import ServiceLimits
    from face_async.models import AddFaceResult

ImageT = TypeVar("ImageT", bound=ImageSource)

_NAMELESS = ImageFile(b"")


class LimitedApi(FaceApi):
    """The verbs, with a ledger of what is stored and the exact size of every request."""

    @property
    @abstractmethod
    def limits(self) -> ServiceLimits:
        """The service's limits, as they are enforced before anything is sent."""

    @property
    def planned_request_bytes(self) -> int:
        """The bytes of a body up to which requests are planned."""
        return self.limits.planned_request_bytes

    async def probe(self) -> None:
        """Ask the service for anything, once, and raise whatever that raises."""
        await self.get_group_ids()

    @cached_property
    def ledger(self) -> LimitLedger:
        """What keeps persons, groups and the appid within their limits, for all bulk verbs together."""
        return LimitLedger(self, self.limits)

    def _request_size(self, endpoint: Endpoint[object], fields: Fields, images: Images) -> int:
        return encode(endpoint, fields, images, self.limits).body.size


# What bulk verbs ask of a session beside its verbs; of no use to whoever calls the verbs.


async def add_face_knowing(
    api: LimitedApi, person_id: str, images: Sequence[ImageSource], *, tag: str | None, before: Collection[str] | None
) -> AddFaceResult:
    """As :meth:`FaceApi.add_face`, for whoever keeps the ledger and knows the ids of the person's faces before."""
    return await api._add_face(person_id, images, tag=tag, before=before)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def request_size(api: LimitedApi, endpoint: Endpoint[object], fields: Fields, images: Images) -> int:
    """Return the bytes of a request's body: exact, and no file is read for it, if the pictures' sizes are known.

    Args:
        api: What the request is for.
        endpoint: What is to be called.
        fields: The text parameters.
        images: The picture parameters.
    """
    return api._request_size(endpoint, fields, images)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def room_for_image(api: LimitedApi, endpoint: Endpoint[object], fields: Fields, like: ImageFile = _NAMELESS) -> int:
    """Return how many bytes a picture may have, so that the request with it alone has the planned size.

    Args:
        api: What the request is for.
        endpoint: What is to be called.
        fields: The text parameters.
        like: A picture of the same name and media type, if it has its own.
    """
    empty = evolve(like, source=b"")
    images: Images = {"images": [empty]} if endpoint is ADD_FACE else {"image": empty}
    return api.planned_request_bytes - request_size(api, endpoint, fields, images)


def taken(api: LimitedApi, image: ImageT, *, fit: bool) -> Awaitable[ImageT] | None:
    """Return what makes an image independent of its input, None where it is: a file object is read.

    It is read as far as a request can carry it.
    """
    if not depends_on_input(image):
        return None
    most = MAX_SOURCE_BYTES if fit else api.limits.max_request_bytes
    return cast("Awaitable[ImageT]", detached(image, most))


async def fit_into(api: LimitedApi, image: ImageSource, endpoint: Endpoint[object], fields: Fields) -> ImageSource:
    """Return an image that fits into a request: as it is, or as :func:`fit_image` makes it."""
    like = image if isinstance(image, ImageFile) else _NAMELESS
    return await fitted(image, max_bytes=room_for_image(api, endpoint, fields, like))


async def sendable(
    api: LimitedApi, image: ImageSource, endpoint: Endpoint[object], fields: Fields, *, fit: bool
) -> ImageSource:
    """Return an image that can be sent more than once, made to fit into its request if asked.

    Raises:
        TypeError, ValueError: It is no image.
    """
    if fit:
        image = await fit_into(api, image, endpoint, fields)
    # A file object can be read only once; a picture keeps what it has given. Only the public type does not say so.
    return cast("ImageSource", as_image(image))
