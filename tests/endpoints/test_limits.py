"""The limits of chapter 2, each at, below and above."""

from __future__ import annotations

import attrs
import pytest

from face_async.errors import (
    FaceLimitError,
    GroupLimitError,
    ImageRefusedError,
    LimitError,
    RequestTooLargeError,
    ServiceError,
)
from face_async.limits import (
    GIF_MAGIC,
    ServiceLimits,
    check_face_ids,
    check_group_ids,
    check_id,
    check_image,
    check_image_count,
    check_request_size,
    check_text,
    is_legal_id,
)

LIMITS = ServiceLimits()
SMALL = ServiceLimits(
    max_groups_per_appid=3, max_faces_per_person=2, max_request_bytes=10, max_id_bytes=4, max_text_bytes=5
)


def test_the_defaults_are_the_specifications():
    assert (LIMITS.max_groups_per_appid, LIMITS.max_persons_per_group, LIMITS.max_faces_per_person) == (5000, 10000, 20)


def test_the_two_readings_of_one_and_a_half_megabytes():
    assert LIMITS.max_request_bytes == int(1.5 * 1024 * 1024)
    assert LIMITS.planned_request_bytes == int(1.5 * 1000 * 1000)


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(ServiceLimits)])
def test_a_limit_is_at_least_one(field):
    assert getattr(attrs.evolve(LIMITS, **{field: 1}), field) == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=field):
            attrs.evolve(LIMITS, **{field: wrong})


def test_what_is_planned_can_always_be_sent():
    """A limit that is lowered for a proxy lowers what requests are planned for."""
    assert ServiceLimits(max_request_bytes=1_000_000).planned_request_bytes == 1_000_000
    assert ServiceLimits(max_request_bytes=2_000_000).planned_request_bytes == 1_500_000
    assert attrs.evolve(SMALL, planned_request_bytes=7).planned_request_bytes == 7


def test_limits_never_change():
    with pytest.raises(AttributeError):
        LIMITS.max_faces_per_person = 21


# Ids

ILLEGAL = [" ", "\t", "\n", "\r", "\v", "\f", "/", "\x00", "\x1f", "\x7f", "\u00a0", "\u2028", "\u3000"]


@pytest.mark.parametrize("char", ILLEGAL, ids=ascii)
@pytest.mark.parametrize("pattern", ["{}", "{}ab", "a{}b", "ab{}"])
def test_an_id_has_no_white_space_slash_or_control_character(char, pattern):
    value = pattern.format(char)
    assert not is_legal_id(value)
    with pytest.raises(ValueError, match="must not contain white space, slashes or control characters") as refused:
        check_id("person_id", value, LIMITS)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "value", ["a", "person0", "tencent-beijing", "1009550071676600319", "人脸", "a.b_c~d\\e", "🙂"]
)
def test_any_other_id_is_legal(value):
    assert is_legal_id(value)
    check_id("person_id", value, LIMITS)


@pytest.mark.parametrize("value", ["a" * 127, "a" * 128, "é" * 64, "脸" * 42 + "ab"])
def test_an_id_may_have_128_bytes(value):
    check_id("person_id", value, LIMITS)


@pytest.mark.parametrize("value", ["a" * 129, "é" * 64 + "a", "脸" * 43, "a" * 10**6])
def test_an_id_over_128_bytes_is_too_long_and_is_not_repeated(value):
    with pytest.raises(ValueError, match=r"^person_id has [\d,]+ bytes in UTF-8, more than the 128 allowed$"):
        check_id("person_id", value, LIMITS)


def test_the_limit_of_ids_follows_the_configuration():
    check_id("face_id", "abcd", SMALL)
    with pytest.raises(ValueError, match="more than the 4 allowed"):
        check_id("face_id", "abcde", SMALL)


def test_an_id_is_not_empty():
    with pytest.raises(ValueError, match=r"^group_id must not be empty$"):
        check_id("group_id", "", LIMITS)


@pytest.mark.parametrize("check", [check_id, check_text])
@pytest.mark.parametrize("value", [None, 7, 1.5, b"person0", True, ["person0"]])
def test_ids_and_texts_are_strings_and_nothing_is_converted(check, value):
    with pytest.raises(TypeError, match=rf"^person_id must be a str, not {type(value).__name__}$"):
        check("person_id", value, LIMITS)


@pytest.mark.parametrize("check", [check_id, check_text])
def test_lone_surrogates_are_refused_as_values_not_as_a_codec_failure(check):
    with pytest.raises(ValueError, match="lone surrogates") as refused:
        check("tag", "a\ud800", LIMITS)
    assert type(refused.value) is ValueError


# Names and tags


@pytest.mark.parametrize("value", ["", " ", "a/b", "line\nbreak", "x" * 1_023, "x" * 1_024, "é" * 512])
def test_a_text_may_be_empty_or_anything_up_to_1024_bytes(value):
    check_text("tag", value, LIMITS)


@pytest.mark.parametrize("value", ["x" * 1_025, "é" * 512 + "x"])
def test_a_text_over_1024_bytes_is_too_long(value):
    with pytest.raises(ValueError, match=r"^tag has 1,025 bytes in UTF-8, more than the 1,024 allowed$"):
        check_text("tag", value, LIMITS)


def test_the_limit_of_texts_follows_the_configuration():
    check_text("tag", "abcde", SMALL)
    with pytest.raises(ValueError, match="more than the 5 allowed"):
        check_text("tag", "abcdef", SMALL)


# Lists of ids

lists = pytest.mark.parametrize(("check", "name"), [(check_group_ids, "group_ids"), (check_face_ids, "face_ids")])


@lists
@pytest.mark.parametrize("ids", [["a"], ["a", "b"], ("a", "b", "c")])
def test_a_list_of_ids_names_one_or_more(check, name, ids):
    check(ids, SMALL)


@lists
@pytest.mark.parametrize("ids", [[], ()])
def test_a_list_of_ids_is_not_empty(check, name, ids):
    with pytest.raises(ValueError, match=rf"^{name} must name at least one$"):
        check(ids, SMALL)


@lists
@pytest.mark.parametrize("ids", ["staff", b"staff", ""])
def test_a_single_string_is_no_list_of_ids(check, name, ids):
    with pytest.raises(TypeError, match=rf"^{name} must be a list of str, not a single"):
        check(ids, LIMITS)


@lists
def test_a_list_of_ids_names_none_twice(check, name):
    with pytest.raises(ValueError, match=rf"^{name} must not name one twice$"):
        check(["a", "b", "a"], SMALL)


@lists
@pytest.mark.parametrize(
    ("wrong", "error"), [("", ValueError), ("a/b", ValueError), ("abcde", ValueError), (1, TypeError)]
)
def test_a_wrong_id_is_named_by_its_place(check, name, wrong, error):
    with pytest.raises(error, match=rf"^{name}\[1\] "):
        check(["a", wrong], SMALL)


@pytest.mark.parametrize("count", [2, 3])
def test_a_person_may_enter_as_many_groups_as_an_appid_may_have(count):
    check_group_ids([str(index) for index in range(count)], SMALL)


def test_more_groups_than_an_appid_may_have_are_refused():
    with pytest.raises(GroupLimitError, match=r"^4 groups are more than the 3"):
        check_group_ids(list("abcd"), SMALL)


def test_the_limit_of_groups_is_5000():
    ids = [f"g{index}" for index in range(5_000)]
    check_group_ids(ids, LIMITS)
    with pytest.raises(GroupLimitError, match=r"^5,001 groups are more than the 5,000"):
        check_group_ids([*ids, "one"], LIMITS)


def test_faces_to_delete_are_not_limited_in_number():
    check_face_ids([f"f{index}" for index in range(6_000)], LIMITS)


# Images and requests


@pytest.mark.parametrize("count", [1, 19, 20])
def test_one_request_carries_up_to_20_images(count):
    check_image_count(count, LIMITS)


@pytest.mark.parametrize("count", [21, 1_000])
def test_more_than_20_images_are_refused(count):
    with pytest.raises(FaceLimitError, match=rf"^{count} images are more than the 20 faces"):
        check_image_count(count, LIMITS)


@pytest.mark.parametrize("count", [0, -1])
def test_no_image_at_all_is_a_wrong_argument(count):
    with pytest.raises(ValueError, match="at least one image"):
        check_image_count(count, LIMITS)


def test_the_limit_of_images_follows_the_configuration():
    check_image_count(2, SMALL)
    with pytest.raises(FaceLimitError, match="3 images are more than the 2 faces"):
        check_image_count(3, SMALL)


@pytest.mark.parametrize("size", [0, 1_500_000, 1_572_863, 1_572_864])
def test_a_body_up_to_one_and_a_half_mebibytes_is_sent(size):
    check_request_size(size, LIMITS)


def test_a_larger_body_is_refused():
    with pytest.raises(RequestTooLargeError, match=r"1,572,865 bytes, more than the 1,572,864 allowed"):
        check_request_size(1_572_865, LIMITS)


def test_the_limit_of_bytes_follows_the_configuration():
    check_request_size(10, SMALL)
    with pytest.raises(RequestTooLargeError):
        check_request_size(11, SMALL)


@pytest.mark.parametrize("head", [b"GIF87a", b"GIF89a", GIF_MAGIC, b"GIF89a\x01\x00\x01\x00"])
def test_a_gif_is_refused_by_its_first_bytes_whatever_its_name(head):
    with pytest.raises(ImageRefusedError, match=r"^photo\.jpg is a GIF"):
        check_image("photo.jpg", 100, head)


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"G", b"gif89a", b" GIF89a", b"xxx"]
)
def test_anything_else_is_left_to_the_server(head):
    check_image("picture.gif", 100, head)


def test_an_empty_image_is_refused():
    with pytest.raises(ImageRefusedError, match=r"^images\[3\] is empty$"):
        check_image("images[3]", 0, b"")


def test_an_image_of_one_byte_is_not_empty():
    check_image("image", 1, b"x")


def test_a_limit_that_we_check_is_never_taken_for_an_answer_of_the_server():
    with pytest.raises(LimitError) as refused:
        check_image_count(21, LIMITS)
    assert not isinstance(refused.value, ServiceError)
