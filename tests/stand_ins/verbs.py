"""The 13 verbs as a program calls them for the specification's packets, and what comes of the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from specification import Sample

from face_async import (
    AddFaceResult,
    Candidate,
    CompareResult,
    DelFaceResult,
    DelPersonResult,
    FaceInfo,
    FaceSession,
    IdentifyResult,
    ImageFile,
    NewPersonResult,
    PersonInfo,
    SetInfoResult,
    VerifyResult,
)

# What a program writes to send each sample; pictures() gives the sample's own pictures or URLs.
CALLS: dict[str, Callable[[FaceSession, list], Awaitable[object]]] = {
    "newperson": lambda session, pictures: session.new_person("person0", ["tencent", "qq"], *pictures),
    "delperson": lambda session, _: session.del_person("person0"),
    "addface": lambda session, pictures: session.add_face("person0", pictures),
    "delface": lambda session, _: session.del_face("person0", ["199d1efd19ce4ee67a7ec7655f859b1a"]),
    "setinfo": lambda session, _: session.set_info("person0", person_name="NicolasCage"),
    "getinfo": lambda session, _: session.get_info("person0"),
    "getgroupids": lambda session, _: session.get_group_ids(),
    "getpersonids": lambda session, _: session.get_person_ids("tencent"),
    "getfaceids": lambda session, _: session.get_face_ids("person1"),
    "getfaceinfo": lambda session, _: session.get_face_info("1005338790489817087"),
    "verify": lambda session, pictures: session.verify("person1", *pictures),
    "identify": lambda session, pictures: session.identify("tencent", *pictures),
    "compare": lambda session, pictures: session.compare(*pictures),
}

RESULTS: dict[str, object] = {
    "newperson": NewPersonResult(
        person_id="person0", suc_group=2, suc_face=1, face_id="1009550071676600319", group_ids=("tencent", "qq")
    ),
    "delperson": DelPersonResult(person_id="person0", deleted=1),
    "addface": AddFaceResult(added=2, face_ids=("1009550071676600319", "109387462576600319"), ret_codes=(0, 0)),
    "delface": DelFaceResult(deleted=1, face_ids=("199d1efd19ce4ee67a7ec7655f859b1a",)),
    "setinfo": SetInfoResult(person_id="person0"),
    "getinfo": PersonInfo(
        person_id="person0",
        person_name="NicolasCage",
        face_ids=("199d1efd19ce4ee67a7ec7655f859b1a", "19321efd19ce4ee67a7127655f85934a"),
        group_ids=("tencent",),
        tag="",
    ),
    "getgroupids": ["tencent", "tencent-beijing", "tencent-shanghai"],
    "getpersonids": ["person0", "person1", "person2"],
    "getfaceids": ["1005338790489817087", "1005338790489817088", "1005338790489817089"],
    "getfaceinfo": FaceInfo(
        face_id="1005338790489817087",
        x=44,
        y=33,
        width=64.0,
        height=64.0,
        pitch=5,
        roll=0,
        yaw=6,
        age=37,
        gender=99,
        glass=True,
        expression=6,
    ),
    "verify": VerifyResult(session_id="session_id", confidence=90.0, is_match=True),
    "identify": IdentifyResult(
        session_id="session_id",
        candidates=[
            Candidate(person_id="person3", face_id="1031567119985213439", confidence=54.90695571899414, tag="new tag"),
            Candidate(person_id="person1", face_id="1031587105968553983", confidence=54.86775207519531, tag="new tag"),
        ],
    ),
    "compare": CompareResult(similarity=100.0),
}


def pictures(sample: Sample) -> list:
    """Return the pictures or URLs of a sample, as a program would hand them over."""
    if sample.form == "multipart":
        return [
            ImageFile(part.content, name=part.filename, media_type=part.content_type)
            for part in sample.parts
            if part.filename
        ]
    fields = sample.json_fields
    urls = fields.get("urls", [])
    return [*urls, *(fields[name] for name in ("url", "urlA", "urlB") if name in fields)]
