"""A service of people's faces in this process: it answers at once or when told, and remembers what it was asked."""

from __future__ import annotations

import itertools
from collections import defaultdict

import anyio
import anyio.lowlevel

from face_async import AddFaceResult, BulkApi, NotFoundError, ServiceLimits
from face_async.errors import service_error
from face_async.images import ImageUrl, Picture

JPEG = b"\xff\xd8\xff\xe0"


class Album(BulkApi):
    """Adds faces and lists them.

    Attributes:
        requests: Of every addface its person and its images: bytes, or the URL.
        faces: The face ids of every person.
        codes: Return codes by image, for images that are refused.
        refusals: Errors for whole requests, by an image that is in them.
        gate: While it is an unset event, addface waits.
        under_way: The persons whose addface is under way, and the most at once.
    """

    def __init__(self, **limits):
        self._limits = ServiceLimits(**limits)
        self.requests = []
        self.faces = defaultdict(list)
        self.codes = {}
        self.refusals = {}
        self.gate = None
        self.under_way = []
        self.most_of_one_person = 0
        self.missing = set()
        self._ids = itertools.count()

    @property
    def limits(self):
        return self._limits

    async def _call(self, endpoint, fields, images=None):
        await anyio.lowlevel.checkpoint()
        person = fields["person_id"]
        if person in self.missing:
            raise NotFoundError(-1303, endpoint=endpoint.name)
        if endpoint.name == "getfaceids":
            return tuple(self.faces[person])
        assert endpoint.name == "addface"
        return await self._add(person, [content(image) for image in images["images"]])

    async def _add(self, person, images):
        self.requests.append((person, images))
        self.under_way.append(person)
        self.most_of_one_person = max(self.most_of_one_person, self.under_way.count(person))
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.under_way.remove(person)
        for image in images:
            if image in self.refusals:
                raise self.refusals[image]
        codes = [self._code(person, image) for image in images]
        ids = [self.faces[person][-1 - codes[index + 1 :].count(0)] for index, code in enumerate(codes) if code == 0]
        return AddFaceResult(added=len(ids), face_ids=tuple(ids), ret_codes=tuple(codes))

    def _code(self, person, image):
        if code := self.codes.get(image):
            return code
        if len(self.faces[person]) >= self.limits.max_faces_per_person:
            return -1309
        self.faces[person].append(f"face{next(self._ids)}")
        return 0

    @property
    def packs(self):
        """How many images each addface had, by person."""
        packs = defaultdict(list)
        for person, images in self.requests:
            packs[person].append(len(images))
        return dict(packs)


def content(image):
    """Return what an image that was sent stands for."""
    if isinstance(image, Picture):
        if image.content is None:
            with image.opened() as file:
                return file.read(file.size)
        return image.content
    return image.url if isinstance(image, ImageUrl) else image


def refusal(code):
    return service_error(code, endpoint="addface")


def shots(person, count, start=0):
    """Return pairs of a person and images that are all different."""
    return [(person, JPEG + f"{person} {shot}".encode()) for shot in range(start, start + count)]


async def added(album, pairs, **options):
    async with album.add_faces(pairs, **options) as outcomes:
        return sorted(await outcomes.collect(), key=lambda outcome: outcome.index)


def errors_of(outcomes):
    return [type(outcome.error) for outcome in outcomes if outcome.error is not None]
