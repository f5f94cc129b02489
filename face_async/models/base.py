"""What all models have in common: as a dictionary, and as pydantic and FastAPI take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from attrs import NOTHING, AttrsInstance, fields, resolve_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attrs import Attribute
    from pydantic_core import CoreSchema

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
"""What the json module can write."""

SHOWN_AS = "shown as"
"""Key of an attribute's metadata: the type that stands for it in JSON, if not its own."""


class _SchemaHandler(Protocol):
    """What pydantic hands over to ask for the schema of a type."""

    def generate_schema(self, source_type: object, /) -> CoreSchema: ...


class Model:
    """Base of all result models.

    ``dict(model)`` has the attributes that ``repr`` shows: neither how the answer came (``meta``) nor any picture.
    pydantic validates models and their JSON, and describes them, wherever one stands as the type of a field; FastAPI
    takes them as a return value, and as the type of one. Neither library is needed otherwise.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[str, object]]:
        for attribute in _shown(type(self)):
            value = getattr(self, attribute.name)
            yield attribute.name, _as_json(value) if SHOWN_AS in attribute.metadata else value

    def to_dict(self) -> dict[str, Json]:
        """Return the model as JSON has it: attributes by their names, models in it as dictionaries, errors as text."""
        return {name: _as_json(value) for name, value in self}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: _SchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic asks for this, and then it is there

        def build(values: object, from_dict: Callable[[object], Mapping[str, object]]) -> Model:
            return values if isinstance(values, cls) else cls(**from_dict(values))

        resolve_types(cast("type[AttrsInstance]", cls))
        described = core_schema.typed_dict_schema(
            {
                attribute.name: core_schema.typed_dict_field(
                    handler.generate_schema(attribute.metadata.get(SHOWN_AS, attribute.type)),
                    required=attribute.default is NOTHING,
                )
                for attribute in _shown(cls)
            },
            cls=cls,
            ref=f"{cls.__module__}.{cls.__qualname__}",
        )
        return core_schema.no_info_wrap_validator_function(
            build,
            described,
            serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=described),
        )


def _shown(kind: type[Model]) -> list[Attribute[object]]:
    """Return the attributes of a model that are shown."""
    return [attribute for attribute in fields(cast("type[AttrsInstance]", kind)) if attribute.repr]


def _as_json(value: object) -> Json:
    match value:
        case Model():
            return value.to_dict()
        case tuple():
            return [_as_json(each) for each in cast("tuple[object, ...]", value)]
        case Mapping():
            return {str(key): _as_json(each) for key, each in cast("Mapping[object, object]", value).items()}
        case Exception():
            return str(value)
        case _:
            return cast("Json", value)
