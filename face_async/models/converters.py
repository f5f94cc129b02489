"""The strict converters that build results from JSON: by cattrs, which is imported when there is a first answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

import cattrs
from attrs import fields, has
from cattrs.errors import AttributeValidationNote, BaseValidationError, ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


def diagnose(value: object, kind: type[object], path: str) -> tuple[str, str]:
    """Return what is wrong with JSON that ``fast`` cannot structure, and where in it.

    Args:
        value: The parsed JSON.
        kind: What it should have become.
        path: Where in the answer ``value`` stands.
    """
    try:
        _exact.structure(value, kind)
    except BaseValidationError as error:
        problem, _, where = cattrs.transform_error(error, path, format_exception=_say)[0].rpartition(" @ ")
        return problem, where
    except (TypeError, ValueError) as error:
        return _say(error, None), path
    raise AssertionError("the two converters disagree")  # pragma: no cover - they have the same hooks


def _say(error: BaseException, _: object) -> str:
    return "missing" if isinstance(error, KeyError) else str(error)


def _exactly(kind: type[T]) -> Callable[[object, object], T]:
    def check(value: object, _: object) -> T:
        if type(value) is not kind:  # bool is an int to isinstance
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return check


def _number(value: object, _: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise TypeError(f"expected a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("the number is too large") from None
    if not math.isfinite(number):
        raise ValueError("the number is not finite")
    return number


def _is_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple


def _array(kind: Any, converter: cattrs.Converter) -> Callable[[object, object], tuple[object, ...]]:
    item = get_args(kind)[0]
    items: Any = list[item]  # type: ignore[valid-type]  # a type computed at run time
    build = converter.get_structure_hook(items)

    def check(value: object, _: object) -> tuple[object, ...]:
        if type(value) is not list:
            raise TypeError(f"expected an array, got {type(value).__name__}")
        entries = cast("list[object]", value)
        return tuple(build(_up_to_violation(entries, item) if converter.detailed_validation else entries, items))

    return check


def _up_to_violation(entries: list[object], kind: type[object]) -> list[object]:
    """Return an array up to its first bad entry: errors for 60,000 entries would take 100 MB."""
    for index, entry in enumerate(entries):
        try:
            fast.structure(entry, kind)
        except Exception:  # noqa: BLE001 - as above
            return entries[: index + 1]
    return entries


def _object(kind: type[T], converter: cattrs.Converter) -> Callable[[object, object], T]:
    renames = {
        attribute.name: override(omit=attribute.metadata.get("ours", False), rename=attribute.metadata.get("wire"))
        for attribute in fields(cast("Any", kind))
    }
    names = {each.name: each.metadata["wire"] for each in fields(cast("Any", kind)) if "wire" in each.metadata}
    build = make_dict_structure_fn(kind, converter, **renames)  # type: ignore[arg-type]  # override's stub is narrower

    def check(value: object, _: object) -> T:
        if type(value) is not dict:
            raise TypeError(f"expected an object, got {type(value).__name__}")
        try:
            return build(cast("dict[str, Any]", value), kind)
        except ClassValidationError as error:
            _name_as_on_the_wire(error, names)
            raise

    return check


def _name_as_on_the_wire(error: ClassValidationError, names: Mapping[str, str]) -> None:
    """Let an error say where the JSON breaks, not which attribute it would have become."""
    for each in error.exceptions:
        each.__notes__ = [
            AttributeValidationNote(str(note), names.get(note.name, note.name), note.type)
            if isinstance(note, AttributeValidationNote)
            else note
            for note in getattr(each, "__notes__", ())
        ]


def _converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(_is_tuple, _array)
    converter.register_structure_hook_factory(has, _object)
    return converter


fast = _converter(detailed=False)
"""For good answers: its exceptions do not tell much."""

_exact = _converter(detailed=True)  # for bad answers: slow, but it tells the place of the fault
