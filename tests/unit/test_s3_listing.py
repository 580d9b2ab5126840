"""Listings, through the dispatcher."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.kernel.errors import ServiceError
from penstock.store.records import Change, ObjectPut, ObjectRow

BUCKET = "data-bucket"
KEYS = ["a", "a/b", "a/c/d", "b/x", "b/y", "b0", "é/1", "z"]


def fill(world: Any, keys: list[str]) -> None:
    rows = [ObjectPut(row=ObjectRow(bucket=BUCKET, key=key, inline=b"x", size_bytes=1, etag="e")) for key in keys]
    world.app.store.commit(Change(rows=list(rows)))


@pytest.fixture
def s3(world: Any) -> Any:
    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, **params})

    s3("CreateBucket")
    fill(world, KEYS)
    return s3


def names(answer: dict[str, Any]) -> list[str]:
    return [entry["Key"] for entry in answer["Contents"]]


def folders(answer: dict[str, Any]) -> list[str]:
    return [entry["Prefix"] for entry in answer["CommonPrefixes"]]


def test_keys_come_in_utf8_order(s3: Any) -> None:
    answer = s3("ListObjectsV2")
    assert names(answer) == sorted(KEYS, key=str.encode)
    assert (answer["KeyCount"], answer["IsTruncated"], answer["MaxKeys"]) == (8, False, 1000)


def test_a_prefix_chooses(s3: Any) -> None:
    assert names(s3("ListObjectsV2", Prefix="b/")) == ["b/x", "b/y"]
    assert names(s3("ListObjectsV2", Prefix="nothing")) == []


def test_a_delimiter_folds(s3: Any) -> None:
    answer = s3("ListObjectsV2", Delimiter="/")
    assert (names(answer), folders(answer)) == (["a", "b0", "z"], ["a/", "b/", "é/"])
    assert answer["KeyCount"] == 6
    answer = s3("ListObjectsV2", Delimiter="/", Prefix="a/")
    assert (names(answer), folders(answer)) == (["a/b"], ["a/c/"])


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_give_the_whole(s3: Any, delimiter: str) -> None:
    whole = s3("ListObjectsV2", Delimiter=delimiter)
    for size in (1, 2, 3, 5):
        seen: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = s3("ListObjectsV2", Delimiter=delimiter, MaxKeys=size, **token)
            assert page["KeyCount"] == len(names(page)) + len(folders(page)) <= size
            seen += names(page) + folders(page)
            if not page["IsTruncated"]:
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        assert sorted(seen) == sorted(names(whole) + folders(whole))


def test_the_first_form_pages_by_marker(s3: Any) -> None:
    page = s3("ListObjects", Delimiter="/", MaxKeys=2)
    assert (names(page), folders(page), page["NextMarker"]) == (["a"], ["a/"], "a/")
    page = s3("ListObjects", Delimiter="/", Marker=page["NextMarker"])
    assert (names(page), folders(page)) == (["b0", "z"], ["b/", "é/"])
    assert "NextMarker" not in s3("ListObjects", MaxKeys=2)
    assert names(s3("ListObjects", Marker="b0")) == ["z", "é/1"]


def test_start_after_skips(s3: Any) -> None:
    answer = s3("ListObjectsV2", StartAfter="b/x")
    assert (names(answer), answer["StartAfter"]) == (["b/y", "b0", "z", "é/1"], "b/x")
    token = s3("ListObjectsV2", MaxKeys=1)["NextContinuationToken"]
    answer = s3("ListObjectsV2", StartAfter="z", ContinuationToken=token)
    assert ("StartAfter" in answer, "b/y" in names(answer)) == (False, True)


def test_no_keys_asked_for_gives_none(s3: Any) -> None:
    answer = s3("ListObjectsV2", MaxKeys=0)
    assert (answer["Contents"], answer["KeyCount"], answer["IsTruncated"]) == ([], 0, False)


@pytest.mark.parametrize("given", [{"MaxKeys": -1}, {"ContinuationToken": "nonsense"}])
def test_nonsense_is_refused(s3: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match=r"^InvalidArgument:"):
        s3("ListObjectsV2", **given)


def test_keys_can_be_encoded(world: Any, s3: Any) -> None:
    fill(world, ["sp ace+plus"])
    answer = s3("ListObjectsV2", EncodingType="url", Prefix="sp a")
    assert (names(answer), answer["Prefix"], answer["EncodingType"]) == (["sp%20ace%2Bplus"], "sp%20a", "url")
    assert folders(s3("ListObjectsV2", EncodingType="url", Delimiter="/"))[-1] == "%C3%A9/"


def test_owners_come_when_asked_for(s3: Any) -> None:
    assert "Owner" not in s3("ListObjectsV2")["Contents"][0]
    assert s3("ListObjectsV2", FetchOwner=True)["Contents"][0]["Owner"]["ID"]
    assert s3("ListObjects")["Contents"][0]["Owner"]["ID"]


def test_what_is_listed_is_what_was_put(s3: Any) -> None:
    etag = s3("PutObject", Key="n", Body=b"12345", StorageClass="STANDARD_IA")["ETag"]
    (entry,) = s3("ListObjectsV2", Prefix="n")["Contents"]
    head = s3("HeadObject", Key="n")
    assert (entry["ETag"], entry["Size"], entry["StorageClass"]) == (etag, 5, "STANDARD_IA")
    assert (entry["LastModified"], entry["ChecksumAlgorithm"]) == (head["LastModified"], ["CRC64NVME"])


def test_versions_come_in_pages(s3: Any) -> None:
    s3("PutBucketVersioning", VersioningConfiguration={"Status": "Enabled"})
    for data in (b"1", b"2", b"3"):
        s3("PutObject", Key="v", Body=data)
    s3("DeleteObject", Key="v")
    seen, marker = [], {"KeyMarker": "b0", "VersionIdMarker": ""}
    while marker:
        page = s3("ListObjectVersions", MaxKeys=2, **marker)
        seen += [each["VersionId"] for each in page["Versions"] + page["DeleteMarkers"] if each["Key"] == "v"]
        more = page["IsTruncated"]
        marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]} if more else {}
    assert len(seen) == len(set(seen)) == 4


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.sets(st.text("ab/é", min_size=1, max_size=4), max_size=12), prefix=st.text("ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "b"]), size=st.integers(1, 4),
)  # fmt: skip
def test_any_listing_is_what_the_keys_say(world: Any, keys: set[str], prefix: str, delimiter: str, size: int) -> None:
    from penstock.kernel import ids

    bucket = f"bucket-{ids.word(12)}"
    world("s3", "CreateBucket", Bucket=bucket)
    rows = [ObjectPut(row=ObjectRow(bucket=bucket, key=key, inline=b"", etag="e")) for key in keys]
    world.app.store.commit(Change(rows=list(rows)))
    wanted: set[tuple[str, bool]] = set()
    for key in keys:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            wanted.add((key, False) if at < 0 else (key[: at + 1], True))
    seen: list[tuple[str, bool]] = []
    token: dict[str, str] = {}
    while True:
        page = world("s3", "ListObjectsV2", Bucket=bucket, Prefix=prefix, Delimiter=delimiter, MaxKeys=size, **token)
        seen += [(name, False) for name in names(page)] + [(name, True) for name in folders(page)]
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    assert sorted(seen) == sorted(wanted)
