"""The results as dictionaries, and as pydantic and FastAPI take them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import attrs
import fastapi
import httpx
import pydantic
import pytest
from fastapi.encoders import jsonable_encoder
from verbs import RESULTS

from face_async import (
    AddFaceResult,
    AddGroupIdsResult,
    Candidate,
    DelGroupIdsResult,
    DetectedFace,
    DetectResult,
    FaceBox,
    GroupsResult,
    IdentifiedFace,
    IdentifyResult,
    Meta,
    MultiIdentifyResult,
    models,
)
from face_async.errors import service_error

CANDIDATE = Candidate(person_id="ada", face_id="1", confidence=91.5, tag="hq")
IDENTIFIED = IdentifyResult(session_id="s", candidates=[CANDIDATE])
ADDED = AddFaceResult(added=1, face_ids=("1", ""), ret_codes=(0, -1101), images=(b"a picture", Path("b.jpg")))
SAMPLES = [
    *(result for result in RESULTS.values() if isinstance(result, models.Model)),
    CANDIDATE,
    ADDED,
    *ADDED.faces,
    DetectResult(faces=(DetectedFace(face_id="1", x=1, y=2, width=3, height=4.5),), image_width=9, image_height=9),
    MultiIdentifyResult(
        faces=(IdentifiedFace(candidates=[CANDIDATE], box=FaceBox(x=1, y=2, width=3, height=4)),), session_id="s"
    ),
    AddGroupIdsResult(person_id="ada", added=1, group_ids=("staff",)),
    DelGroupIdsResult(person_id="ada", deleted=1, group_ids=("staff",)),
    GroupsResult(candidates=(CANDIDATE,), by_group={"staff": IDENTIFIED}, errors={}),
    Meta(status=200, attempts=2),
]
each_sample = pytest.mark.parametrize("model", SAMPLES, ids=lambda model: type(model).__name__)
DATA_CLASSES = [kind for kind in vars(models).values() if isinstance(kind, type) and attrs.has(kind)]


def test_every_data_class_of_the_models_is_a_model():
    """And each has a sample here, but the base of the results."""
    assert [] == [kind for kind in DATA_CLASSES if not issubclass(kind, models.Model)]
    nested = {DetectedFace, FaceBox, IdentifiedFace, models.Result}
    assert set(DATA_CLASSES) - nested == {type(model) for model in SAMPLES}


@each_sample
def test_a_model_is_a_dictionary_that_json_can_write(model):
    """It has every attribute that repr shows, all the way down."""
    found = model.to_dict()
    assert found == json.loads(json.dumps(found))
    assert list(found) == [attribute.name for attribute in attrs.fields(type(model)) if attribute.repr]


def test_no_picture_and_nothing_about_the_call_is_in_a_dictionary():
    assert {"session_id": "", "added": 1, "face_ids": ["1", ""], "ret_codes": [0, -1101]} == ADDED.to_dict()
    assert {"code": -1101, "face_id": None} == ADDED.faces[1].to_dict()


def test_errors_are_texts_in_a_dictionary():
    error = service_error(-1306, endpoint="identify")
    result = GroupsResult(candidates=(), by_group={}, errors={"gone": error})
    assert {"candidates": [], "by_group": {}, "errors": {"gone": str(error)}} == result.to_dict()
    again = pydantic.TypeAdapter(GroupsResult).validate_python(result.to_dict())
    assert {"gone": str(error)} == {group: str(each) for group, each in again.errors.items()}


@each_sample
def test_pydantic_writes_reads_and_describes_a_model(model):
    """As the type of a field: JSON is what to_dict returns, and comes back equal; a model passes as it is."""
    adapter = pydantic.TypeAdapter(type(model))
    assert model.to_dict() == json.loads(adapter.dump_json(model)) == adapter.dump_python(model, mode="json")
    assert model == adapter.validate_json(adapter.dump_json(model)) == adapter.validate_python(model.to_dict())
    assert model is adapter.validate_python(model)
    for mode in ("serialization", "validation"):
        schema = adapter.json_schema(mode=mode)
        assert (type(model).__name__, set(model.to_dict())) == (schema["title"], set(schema["properties"]))
        required = {each.name for each in attrs.fields(type(model)) if each.repr and each.default is attrs.NOTHING}
        assert required == set(schema.get("required", ()))


def test_pydantic_says_where_json_is_no_model():
    """By its place, as for pydantic's own models; what the class itself checks is checked, too."""
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(IdentifyResult).validate_python({"candidates": [{"person_id": "ada", "face_id": "1"}]})
    assert [("missing", ("candidates", 0, "confidence"))] == [(e["type"], e["loc"]) for e in caught.value.errors()]
    with pytest.raises(pydantic.ValidationError, match="ret_codes"):
        pydantic.TypeAdapter(AddFaceResult).validate_python({"added": 2, "face_ids": ["1"], "ret_codes": [0]})


class Visit(pydantic.BaseModel):
    door: str
    found: IdentifyResult | None


def web_application() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/typed")
    async def typed() -> IdentifyResult:
        return IDENTIFIED

    @app.get("/untyped")
    async def untyped():
        return IDENTIFIED

    @app.get("/nested")
    async def nested():
        return {"found": [IDENTIFIED]}

    @app.get("/field")
    async def field() -> Visit:
        return Visit(door="north", found=IDENTIFIED)

    return app


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/typed", IDENTIFIED.to_dict()),
        ("/untyped", IDENTIFIED.to_dict()),
        ("/nested", {"found": [IDENTIFIED.to_dict()]}),
        ("/field", {"door": "north", "found": IDENTIFIED.to_dict()}),
    ],
)
async def test_fastapi_returns_results_with_and_without_an_annotation(path, expected):
    transport = httpx.ASGITransport(web_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as browser:
        assert expected == (await browser.get(path)).json()


@each_sample
def test_fastapis_encoder_takes_every_model(model):
    assert model.to_dict() == jsonable_encoder(model)


def test_fastapi_describes_results_by_their_names():
    schemas = web_application().openapi()["components"]["schemas"]
    assert {"Candidate", "IdentifyResult", "Visit"} <= set(schemas)
    assert schemas["IdentifyResult"]["properties"]["candidates"]["items"] == {"$ref": "#/components/schemas/Candidate"}


def test_pydantic_is_imported_by_nobody_who_does_not_use_it():
    code = "import sys, face_async; sys.exit(any(name.startswith('pydantic') for name in sys.modules))"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
