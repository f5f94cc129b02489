"""The table of return codes and the tree of errors."""

from __future__ import annotations

import copy
import pickle
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given
from specification import BACK_END_NAMES, CODES_OF_CHAPTER_3

import face_async
from face_async import errors
from face_async.errors import (
    CODES,
    AlreadyExistsError,
    AuthError,
    CallError,
    DeadlineError,
    DuplicateFaceError,
    FaceError,
    FaceLimitError,
    FaceLimitRefusal,
    GroupLimitError,
    GroupLimitRefusal,
    ImageError,
    ImageRefusedError,
    InvalidParameterError,
    LimitError,
    NotFoundError,
    PersonLimitError,
    PersonLimitRefusal,
    RateLimitedError,
    RequestTooLargeError,
    RequestTooLargeRefusal,
    ResponseError,
    Retry,
    ReturnCode,
    ServiceError,
    TransportError,
    UnavailableError,
    UnsupportedError,
    printable,
    service_error,
)

LATER_DOCUMENTS = {24, -1313}

PROMISED: dict[type[ServiceError], set[int]] = {
    AuthError: {4, 5, 6, 9, 10, 11, 12, 13, 14},
    RateLimitedError: {15},
    NotFoundError: {16, -1303, -1305, -1306, -1307},
    AlreadyExistsError: {-1302},
    DuplicateFaceError: {-1312},
    ImageError: {*range(-1109, -1100), -1300, -1308, -1400, -1403},
    InvalidParameterError: {3, 21, -1301, -1304, -1313},
    UnavailableError: {24, 107, 108, 213, -1200},
    FaceLimitRefusal: {-1309},
    PersonLimitRefusal: {-1310},
    GroupLimitRefusal: {-1311},
    RequestTooLargeRefusal: {23},
}

RETRIES = {
    Retry.LATER: {107, 108},
    Retry.SLOWER: {15},
    Retry.SMALLER: {23},
    Retry.CLOCK: {9},
    Retry.HOPELESS: {4, 5, 6, 10, 11, 12, 14, 16, 24},
    Retry.AMBIGUOUS: {13, 213, -1200},
}

BOTH_SIDES = [
    (FaceLimitError, FaceLimitRefusal, -1309),
    (PersonLimitError, PersonLimitRefusal, -1310),
    (GroupLimitError, GroupLimitRefusal, -1311),
    (RequestTooLargeError, RequestTooLargeRefusal, 23),
]


def family(root: type[FaceError] = FaceError) -> list[type[FaceError]]:
    """Return every error class of the package that is loaded, in a fixed order."""
    found: dict[type[FaceError], None] = {root: None}
    for child in root.__subclasses__():
        if child.__module__.partition(".")[0] == "face_async":
            found.update(dict.fromkeys(family(child)))
    return list(found)


def raised(kind: type[FaceError]) -> FaceError:
    """Return an error with no attribute at its default."""
    if issubclass(kind, ServiceError):
        data = {"fail_flag": 2, "seen": [1, {"x": "y"}]}
        told: dict[str, object] = {"data": data, "session_id": "s-1", "maybe_applied": True, "attempts": 3}
        error: FaceError = kind(-1303, "not here", endpoint="compare", **told)
    elif issubclass(kind, TransportError) or kind in {CallError, UnsupportedError}:
        error = kind("the peer is gone", endpoint="addface", maybe_applied=True, attempts=2)
    elif issubclass(kind, ResponseError):
        place = {"status": 302, "path": "$.data.confidence", "location": "https://elsewhere"}
        error = kind("not a number", endpoint="verify", maybe_applied=True, attempts=2, **place)
    else:
        error = kind("a message")
    error.add_note("and a note")
    return error


# The table


def test_every_code_of_chapter_3_has_a_row_and_only_later_documents_add_to_them():
    assert set(CODES_OF_CHAPTER_3) | LATER_DOCUMENTS == set(CODES)


def test_a_row_stands_under_its_own_number():
    assert list(CODES.values()) == list(CODES)
    assert set(CODES.values()) == set(ReturnCode) - {ReturnCode.OK}


def test_zero_and_negative_codes_bear_the_back_ends_own_names():
    assert {int(code): code.name for code in ReturnCode if code <= 0} == BACK_END_NAMES


def test_the_promised_classes_cover_the_table_without_overlap():
    promised = [code for codes in PROMISED.values() for code in codes]
    assert sorted(promised) == sorted(CODES)


@pytest.mark.parametrize(("kind", "codes"), PROMISED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_code_gives_exactly_its_promised_class(kind, codes):
    assert {code: type(service_error(code, endpoint="identify")) for code in codes} == dict.fromkeys(codes, kind)


def test_codes_that_may_be_tried_again_are_these_and_no_others():
    assert {retry: {code for code, row in CODES.items() if row.retry is retry} for retry in RETRIES} == RETRIES
    assert {row.retry for row in CODES.values()} == set(Retry) - {Retry.AWAY}, "which HTTP statuses alone mean"


@pytest.mark.parametrize("code", [1, 2, 7, 400, -1, -1314, -1402, 10**30])
def test_an_unknown_code_stays_a_plain_service_error(code):
    error = service_error(code, "what is this", endpoint="identify")
    assert type(error) is ServiceError
    assert (error.code, error.name) == (code, f"UNKNOWN_{code}")
    assert "what is this" in str(error)


def test_the_table_cannot_be_written_to():
    with pytest.raises(TypeError):
        CODES[0] = CODES[3]  # type: ignore[index]
    with pytest.raises(AttributeError):
        CODES[3].name = "OTHER"  # type: ignore[misc]


# What an error says


@pytest.mark.parametrize("code", CODES)
def test_a_service_error_names_endpoint_code_name_and_meaning(code):
    row = CODES[code]
    assert str(service_error(code, row.name, endpoint="verify")) == f"verify: {code} {row.name}: {row.meaning}"


def test_a_service_error_quotes_what_the_server_says_beyond_the_name():
    error = service_error(3, "account abnormal,errorno is:2", endpoint="verify")
    assert str(error).endswith(" (the server says: account abnormal,errorno is:2)")


def test_a_service_error_keeps_data_and_session_of_a_failed_answer():
    error = service_error(-1101, "m", endpoint="compare", data={"fail_flag": 1}, session_id="s")
    assert (error.data, error.session_id, error.message, error.attempts) == ({"fail_flag": 1}, "s", "m", 1)


def test_a_service_error_without_data_has_an_empty_mapping():
    assert service_error(15, endpoint="verify").data == {}


def test_the_data_of_an_error_is_its_own():
    data = {"fail_flag": 1}
    error = service_error(-1101, endpoint="compare", data=data)
    data.clear()
    assert error.data == {"fail_flag": 1}


def test_a_response_error_says_where_the_answer_is_wrong():
    error = ResponseError("not a number", endpoint="identify", status=200, path="$.data.candidates[0].confidence")
    assert "identify" in str(error)
    assert "$.data.candidates[0].confidence" in str(error)
    assert "not a number" in str(error)


HOSTILE = "\x1b[2J\x07\r\n\t\x00\x7f\x9b31m\u202e\u2028\ud800"


def test_control_characters_of_a_server_are_escaped_when_printed_and_kept_when_asked_for():
    error = service_error(-1303, HOSTILE, endpoint="verify")
    assert str(error).isprintable()
    assert r"\x1b[2J\x07\r\n\t\x00\x7f\x9b31m\u202e\u2028\ud800" in str(error)
    assert error.message == HOSTILE


def test_an_unknown_code_is_escaped_alike():
    assert str(service_error(999, HOSTILE, endpoint="verify")).isprintable()


def test_text_of_other_languages_is_printed_as_it_is():
    assert printable("个体不存在 é 🙂") == "个体不存在 é 🙂"


@pytest.mark.parametrize(("length", "shown"), [(199, 199), (200, 200), (201, 201), (10**6, 201)])
def test_a_long_message_is_cut_and_the_cut_is_shown(length, shown):
    text = printable("x" * length)
    assert len(text) == shown
    assert text.endswith("…") == (length > 200)


@given(st.text())
def test_no_message_of_a_server_reaches_a_terminal_raw(message):
    assert str(service_error(-1303, message, endpoint="verify")).isprintable()


# Every error travels between processes


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", family())
def test_every_error_pickles_with_all_it_carries(kind, protocol):
    error = raised(kind)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert (type(again), str(again), again.args, vars(again)) == (kind, str(error), error.args, vars(error))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", family())
def test_every_error_copies_with_all_it_carries(kind, duplicate):
    error = raised(kind)
    again = duplicate(error)
    assert again is not error
    assert (type(again), str(again), again.args, vars(again)) == (kind, str(error), error.args, vars(error))


@pytest.mark.parametrize("code", CODES)
def test_the_error_of_every_code_pickles(code):
    error = service_error(code, "m", endpoint="verify", data={"a": [1]}, session_id="s")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (type(error), vars(error))


def test_every_error_can_be_imported_from_the_package():
    own = {kind.__name__ for kind in family() if kind.__module__ == errors.__name__}
    assert own - set(face_async.__all__) == set()


# Doubt


@pytest.mark.parametrize("kind", family(CallError))
def test_an_error_in_doubt_is_a_new_one_that_keeps_everything(kind):
    certain = raised(kind)
    certain.maybe_applied = False
    certain.args = (str(certain).partition("; the effect")[0],)
    before = (str(certain), dict(vars(certain)))
    doubtful = certain.in_doubt()
    assert (str(certain), vars(certain)) == before
    assert vars(doubtful) == {**vars(certain), "maybe_applied": True}
    assert str(doubtful) == f"{certain}; the effect may have happened, look before repeating it"
    assert type(doubtful) is kind
    assert doubtful.in_doubt() is doubtful


# The tree


def drawn() -> dict[str, str]:
    """Read the tree in the module's docstring: child -> parent."""
    parents: dict[str, str] = {}
    stack: list[str] = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r" {4}((?:[│├└ ][─ ]{2} )*)((?:[A-Z]\w+(?:Error|Refusal)\b(?:, )?)+)", line):
            depth, names = len(found[1]) // 4, found[2].split(", ")
            del stack[depth:]
            parents.update(dict.fromkeys(names, stack[-1] if stack else ""))
            stack.append(names[-1])
    return parents


def test_the_docstrings_tree_names_every_class_of_the_module():
    own = {kind.__name__ for kind in family() if kind.__module__ == errors.__name__}
    assert set(drawn()) == own


def test_the_docstrings_tree_draws_every_class_under_a_base_of_its_own():
    bases = {kind.__name__: {base.__name__ for base in kind.__bases__} for kind in family()}
    assert {child: parent for child, parent in drawn().items() if parent and parent not in bases[child]} == {}


def codes_in(text: str) -> set[int]:
    """Read "4-6, 9-14", "-1101 to -1109 and 15"."""
    found: set[int] = set()
    for first, last in re.findall(r"(-?\d+)(?:(?:-| to )(-?\d+))?", text):
        ends = sorted((int(first), int(last or first)))
        found.update(range(ends[0], ends[1] + 1))
    return found


@pytest.mark.parametrize(("kind", "codes"), PROMISED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_class_documents_its_codes(kind, codes):
    assert codes_in(kind.__doc__.rpartition("code")[2]) == codes


def test_the_docstrings_tree_documents_the_same_codes():
    tree = errors.__doc__.partition("ServiceError ")[2]
    rows = {name: codes_in(text) for name, text in re.findall(r"[├└]── (\w+Error) +(.*)", tree)}
    refusals = "FaceLimitRefusal, PersonLimitRefusal, GroupLimitRefusal, RequestTooLargeRefusal"
    in_order = re.search(rf"{refusals}\s+(-?\d+), (-?\d+), (-?\d+), (-?\d+):", tree)
    assert in_order is not None
    rows |= {name: {int(code)} for name, code in zip(refusals.split(", "), in_order.groups(), strict=True)}
    assert rows == {kind.__name__: codes for kind, codes in PROMISED.items()}


def test_every_error_is_a_face_error_and_none_is_a_built_in_one():
    outside = {base for kind in family() for base in kind.__mro__ if base.__module__ == "builtins"}
    assert outside == {object, BaseException, Exception}


@pytest.mark.parametrize(("limit", "refusal", "code"), BOTH_SIDES)
def test_one_except_catches_the_clients_check_and_the_servers_refusal(limit, refusal, code):
    with pytest.raises(limit) as ours:
        raise limit("more than fits")
    with pytest.raises(limit) as theirs:
        raise service_error(code, endpoint="addface")
    assert not isinstance(ours.value, ServiceError)
    assert type(theirs.value) is refusal


@pytest.mark.parametrize(("limit", "refusal", "code"), BOTH_SIDES)
def test_a_servers_refusal_is_a_service_error_as_well(limit, refusal, code):
    error = service_error(code, "m", endpoint="addface", session_id="s")
    assert isinstance(error, LimitError)
    assert isinstance(error, ServiceError)
    assert (error.code, error.session_id) == (code, "s")


def test_a_limit_of_one_kind_does_not_catch_another():
    for limit, _, own in BOTH_SIDES:
        caught = {code for code, row in CODES.items() if issubclass(row.error, limit)}
        assert caught == {own}


def test_the_limits_are_these():
    ours = {kind for kind in family(LimitError) if not issubclass(kind, ServiceError)}
    assert ours >= {LimitError, *(limit for limit, _, _ in BOTH_SIDES), ImageRefusedError}


def test_a_deadline_is_a_transport_error_that_says_whether_the_effect_may_have_happened():
    error = DeadlineError("too slow", endpoint="addface", maybe_applied=True)
    assert isinstance(error, TransportError)
    assert (error.maybe_applied, error.attempts, error.endpoint) == (True, 1, "addface")
