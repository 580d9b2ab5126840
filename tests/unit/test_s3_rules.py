"""The pure rules of S3."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules


@pytest.mark.parametrize("name", ["abc", "sagemaker-us-east-1-123456789012", "a.b-c.d", "1" * 63])
def test_a_good_bucket_name_is_taken(name: str) -> None:
    assert rules.bucket_named_well(name)


@pytest.mark.parametrize(
    "name",
    [
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "a..b",
        "-ab",
        "ab-",
        "192.168.5.4",
        "xn--abc",
        "abc-s3alias",
        "abc--ol-s3",
        "a b",
        "",
    ],
)
def test_a_bad_bucket_name_is_refused(name: str) -> None:
    assert not rules.bucket_named_well(name)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (None, None),
        ("bytes=0-3", (0, 4)),
        ("bytes=6-", (6, 4)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        ("bytes=5-99", (5, 5)),
        ("bytes=9-9", (9, 1)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
    ],
)
def test_a_range_of_ten_bytes(text: str | None, span: tuple[int, int] | None) -> None:
    assert rules.find_range(text, 10) == span


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-0", 0), ("bytes=-1", 0)]
)
def test_a_range_outside_is_not_satisfiable(text: str, size_bytes: int) -> None:
    with pytest.raises(ServiceError) as told:
        rules.find_range(text, size_bytes)
    assert (told.value.code, told.value.status) == ("InvalidRange", 416)
    assert told.value.members == {"RangeRequested": text, "ActualObjectSize": size_bytes}


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 40), st.integers(0, 40))
def test_a_cut_touches_exactly_the_bytes_of_the_range(sizes: list[int], start: int, length: int) -> None:
    whole = [(index, at) for index, size in enumerate(sizes) for at in range(size)]
    cut = rules.cut(sizes, start, length)
    assert [(index, at) for index, begin, size in cut for at in range(begin, begin + size)] == whole[
        start : start + length
    ]
    assert all(size for _, _, size in cut)


ETAG, NOW = "abc", 1000.5


@pytest.mark.parametrize(
    ("conditions", "fault"),
    [
        (rules.Conditions(), None),
        (rules.Conditions(match='"abc"'), None),
        (rules.Conditions(match="*"), None),
        (rules.Conditions(match='"x", "abc"'), None),
        (rules.Conditions(match='"x"'), (412, "If-Match")),
        (rules.Conditions(none_match='W/"abc"'), (304, "If-None-Match")),
        (rules.Conditions(none_match='"x"'), None),
        (rules.Conditions(modified_since=1000.0), (304, "If-Modified-Since")),
        (rules.Conditions(modified_since=999.0), None),
        (rules.Conditions(unmodified_since=999.0), (412, "If-Unmodified-Since")),
        (rules.Conditions(unmodified_since=1000.0), None),
        (rules.Conditions(match="abc", unmodified_since=1.0), None),
        (rules.Conditions(none_match="x", modified_since=2000.0), None),
        (rules.Conditions(none_match="abc", modified_since=1.0), (304, "If-None-Match")),
    ],
)
def test_conditions_hold_or_name_their_fault(conditions: rules.Conditions, fault: tuple[int, str] | None) -> None:
    assert conditions.fault(ETAG, NOW) == fault


def test_a_multipart_etag_is_the_md5_of_the_md5s() -> None:
    etags = [hashlib.md5(piece).hexdigest() for piece in (b"a", b"b")]
    whole = hashlib.md5(bytes.fromhex(etags[0]) + bytes.fromhex(etags[1])).hexdigest()
    assert rules.etag_of_parts(etags) == f"{whole}-2"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("bucket/key", ("bucket", "key", None)),
        ("/bucket/a%20b/%C3%A9", ("bucket", "a b/é", None)),
        ("bucket/a%3Fb?versionId=v1", ("bucket", "a?b", "v1")),
        ("bucket/a+b", ("bucket", "a+b", None)),
    ],
)
def test_a_copy_source_is_read(text: str, source: tuple[str, str, str | None]) -> None:
    assert rules.copy_source(text) == source


@pytest.mark.parametrize("text", ["bucket", "", "/", "bucket/"])
def test_a_copy_source_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(ServiceError, match="Copy Source must mention"):
        rules.copy_source(text)


def test_a_key_may_have_1024_bytes() -> None:
    rules.check_key("é" * 512)
    with pytest.raises(ServiceError) as told:
        rules.check_key("é" * 512 + "a")
    assert (told.value.code, told.value.members) == ("KeyTooLongError", {"Size": 1025, "MaxSizeAllowed": 1024})


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([{"Key": "a", "Value": ""}, {"Key": "a", "Value": ""}], "InvalidTag"),
        ([{"Key": str(n), "Value": ""} for n in range(11)], "BadRequest"),
        ([{"Key": "a" * 129, "Value": ""}], "InvalidTag"),
        ([{"Key": "a", "Value": "v" * 257}], "InvalidTag"),
        ([{"Key": "aws:a", "Value": ""}], "InvalidTag"),
    ],
)
def test_bad_tags_are_refused(pairs: list[dict[str, str]], code: str) -> None:
    with pytest.raises(ServiceError) as told:
        rules.tags_of(pairs, 10)
    assert told.value.code == code


def test_tags_come_as_a_query() -> None:
    assert rules.tags_of_query("a=1&b%20c=d%26e&f=") == {"a": "1", "b c": "d&e", "f": ""}
