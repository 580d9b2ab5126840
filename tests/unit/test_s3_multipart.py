"""Multipart uploads and the collector, through the dispatcher."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from penstock.blobs import checksums
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import engine, state

BUCKET, KEY = "data-bucket", "big"
MIB = 1 << 20
FIRST, SECOND = os.urandom(5 * MIB + 1), os.urandom(100_000)


@pytest.fixture
def s3(world: Any) -> Any:
    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, "Key": KEY, **params})

    world("s3", "CreateBucket", Bucket=BUCKET)
    return s3


def refused(code: str) -> Any:
    return pytest.raises(ServiceError, match=f"^{code}:")


def begin(s3: Any, *datas: bytes, **params: Any) -> tuple[str, list[dict[str, Any]]]:
    upload = s3("CreateMultipartUpload", **params)["UploadId"]
    parts = []
    for number, data in enumerate(datas, 1):
        answer = s3("UploadPart", UploadId=upload, PartNumber=number, Body=data)
        parts.append(
            {"PartNumber": number, **{n: v for n, v in answer.items() if n == "ETag" or n.startswith("Checksum")}}
        )
    return upload, parts


def complete(s3: Any, upload: str, parts: list[dict[str, Any]], **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = s3("CompleteMultipartUpload", UploadId=upload, MultipartUpload={"Parts": parts}, **params)
    return answer


def body(answer: dict[str, Any]) -> bytes:
    given = answer["Body"]
    return given if isinstance(given, bytes) else b"".join(given)


def test_parts_become_one_object(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND, ContentType="text/csv", Metadata={"a": "1"}, Tagging="t=1")
    done = complete(s3, upload, parts)
    got = s3("GetObject")
    digests = hashlib.md5(FIRST).digest() + hashlib.md5(SECOND).digest()
    assert done["ETag"] == got["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert body(got) == FIRST + SECOND
    assert (got["ContentType"], got["Metadata"], got["TagCount"]) == ("text/csv", {"a": "1"}, 1)
    assert done["Location"].endswith(f"/{KEY}")


def test_nothing_is_there_before_it_is_complete(s3: Any) -> None:
    begin(s3, FIRST)
    with refused("NoSuchKey"):
        s3("HeadObject")


def test_ranges_cross_parts(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    complete(s3, upload, parts)
    whole, cut = FIRST + SECOND, len(FIRST)
    assert body(s3("GetObject", Range=f"bytes={cut - 3}-{cut + 2}")) == whole[cut - 3 : cut + 3]
    got = s3("GetObject", PartNumber=2)
    assert (body(got), got["PartsCount"]) == (SECOND, 2)
    assert got["ContentRange"] == f"bytes {cut}-{len(whole) - 1}/{len(whole)}"


def test_a_tiny_upload_is_one_part(s3: Any) -> None:
    upload, parts = begin(s3, b"tiny")
    assert complete(s3, upload, parts)["ETag"].endswith('-1"')
    assert body(s3("GetObject")) == b"tiny"


def test_a_part_sent_again_replaces_the_first(s3: Any) -> None:
    upload, _ = begin(s3, b"old")
    etag = s3("UploadPart", UploadId=upload, PartNumber=1, Body=b"new")["ETag"]
    complete(s3, upload, [{"PartNumber": 1, "ETag": etag}])
    assert body(s3("GetObject")) == b"new"


def test_only_listed_parts_count(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    complete(s3, upload, parts[1:])
    assert body(s3("GetObject")) == SECOND


def test_the_whole_has_the_crc_of_its_bytes(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    crc = checksums.compute("CRC64NVME", [FIRST, SECOND])
    assert complete(s3, upload, parts, ChecksumCRC64NVME=crc)["ChecksumCRC64NVME"] == crc
    head = s3("HeadObject", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (crc, "FULL_OBJECT")


def test_a_wrong_checksum_of_the_whole_is_refused(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    with refused("BadDigest"):
        complete(s3, upload, parts, ChecksumCRC64NVME=checksums.compute("CRC64NVME", [b"other"]))


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_a_composite_is_the_checksum_of_checksums(s3: Any, algorithm: str) -> None:
    upload, parts = begin(s3, FIRST, SECOND, ChecksumAlgorithm=algorithm)
    member = f"Checksum{algorithm}"
    assert parts[0][member] == checksums.compute(algorithm, [FIRST])
    done = complete(s3, upload, parts)
    pieces = [base64.b64decode(part[member]) for part in parts]
    assert done[member] == checksums.compute(algorithm, [b"".join(pieces)]) + "-2"
    assert done["ChecksumType"] == "COMPOSITE"


def test_a_composite_needs_the_checksum_of_each_part(s3: Any) -> None:
    upload, parts = begin(s3, SECOND, ChecksumAlgorithm="SHA256")
    with pytest.raises(ServiceError, match="was missing for part 1"):
        complete(s3, upload, [{"PartNumber": 1, "ETag": parts[0]["ETag"]}])


def test_a_crc32_can_be_of_the_full_object(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    assert complete(s3, upload, parts)["ChecksumCRC32"] == checksums.compute("CRC32", [FIRST, SECOND])


def test_a_sha_cannot_be_of_the_full_object(s3: Any) -> None:
    with refused("InvalidRequest"):
        s3("CreateMultipartUpload", ChecksumAlgorithm="SHA256", ChecksumType="FULL_OBJECT")


def test_a_part_is_held_against_its_checksum(s3: Any) -> None:
    upload, _ = begin(s3)
    with refused("BadDigest"):
        s3("UploadPart", UploadId=upload, PartNumber=1, Body=b"x", ChecksumCRC32=checksums.compute("CRC32", [b"y"]))


def test_parts_come_in_ascending_order(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    with refused("InvalidPartOrder"):
        complete(s3, upload, parts[::-1])


def test_a_part_that_is_not_there_is_named(s3: Any) -> None:
    upload, parts = begin(s3, SECOND)
    for wrong in ({"PartNumber": 2, "ETag": parts[0]["ETag"]}, {"PartNumber": 1, "ETag": '"other"'}):
        with refused("InvalidPart") as told:
            complete(s3, upload, [wrong])
        assert told.value.members["PartNumber"] == wrong["PartNumber"]


def test_only_the_last_part_may_be_small(s3: Any) -> None:
    upload, parts = begin(s3, SECOND, FIRST)
    with refused("EntityTooSmall") as told:
        complete(s3, upload, parts)
    assert told.value.members["ProposedSize"] == len(SECOND)


def test_an_empty_list_is_malformed(s3: Any) -> None:
    upload, _ = begin(s3, SECOND)
    with refused("MalformedXML"):
        complete(s3, upload, [])


@pytest.mark.parametrize("number", [0, 10_001])
def test_part_numbers_have_limits(s3: Any, number: int) -> None:
    upload, _ = begin(s3)
    with pytest.raises(ServiceError, match="between 1 and 10000"):
        s3("UploadPart", UploadId=upload, PartNumber=number, Body=b"x")


def test_completing_again_gives_the_same_answer(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    assert complete(s3, upload, parts) == complete(s3, upload, parts)


def test_completing_may_ask_for_nothing_to_be_there(s3: Any) -> None:
    s3("PutObject", Body=b"x")
    upload, parts = begin(s3, SECOND)
    with refused("PreconditionFailed"):
        complete(s3, upload, parts, IfNoneMatch="*")


def test_an_aborted_upload_is_gone(world: Any, s3: Any) -> None:
    upload, parts = begin(s3, FIRST)
    s3("AbortMultipartUpload", UploadId=upload)
    for operation in ("AbortMultipartUpload", "ListParts"):
        with refused("NoSuchUpload"):
            s3(operation, UploadId=upload)
    with refused("NoSuchUpload"):
        complete(s3, upload, parts)
    freed = world.app.blobs.collect(world.app.clock.now() + 10, world.app.store.blob_used)
    assert freed == len(FIRST)


def test_an_upload_belongs_to_its_key(s3: Any) -> None:
    upload, _ = begin(s3)
    with refused("NoSuchUpload"):
        s3("UploadPart", Key="other", UploadId=upload, PartNumber=1, Body=b"x")


def test_a_part_that_comes_after_the_end_is_refused(world: Any, s3: Any) -> None:
    upload, parts = begin(s3, SECOND)
    late = world.call()
    late.other("s3", "UploadPart", Bucket=BUCKET, Key=KEY, UploadId=upload, PartNumber=2, Body=b"late")
    complete(s3, upload, parts)
    with pytest.raises(Exception, match=upload):
        world.app.store.commit(late.change)
    assert world.app.store.upload_parts(upload) == []


def test_parts_can_be_copied(s3: Any) -> None:
    s3("PutObject", Key="source", Body=FIRST)
    upload, _ = begin(s3)
    source = f"{BUCKET}/source"
    one = s3("UploadPartCopy", UploadId=upload, PartNumber=1, CopySource=source)["CopyPartResult"]
    two = s3("UploadPartCopy", UploadId=upload, PartNumber=2, CopySource=source, CopySourceRange="bytes=10-19")
    parts = [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 2, "ETag": two["CopyPartResult"]["ETag"]}]
    complete(s3, upload, parts)
    assert body(s3("GetObject")) == FIRST + FIRST[10:20]
    assert s3("HeadObject", ChecksumMode="ENABLED")["ChecksumCRC64NVME"]


def test_a_part_that_is_a_whole_object_is_the_same_blob(world: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3("PutObject", Key="source", Body=FIRST)
    upload, _ = begin(s3)
    monkeypatch.setattr(world.app.blobs, "receive", None)
    copied = s3("UploadPartCopy", UploadId=upload, PartNumber=1, CopySource=f"{BUCKET}/source")["CopyPartResult"]
    monkeypatch.undo()
    complete(s3, upload, [{"PartNumber": 1, "ETag": copied["ETag"]}])
    assert body(s3("GetObject")) == FIRST
    source = s3("HeadObject", Key="source", ChecksumMode="ENABLED")["ChecksumCRC64NVME"]
    assert s3("HeadObject", ChecksumMode="ENABLED")["ChecksumCRC64NVME"] == source


@pytest.mark.parametrize("text", ["bytes=0-", "0-5", "bytes=5-2", f"bytes=0-{len(SECOND)}"])
def test_a_copied_range_must_lie_inside(s3: Any, text: str) -> None:
    s3("PutObject", Key="source", Body=SECOND)
    upload, _ = begin(s3)
    with refused("InvalidArgument"):
        s3("UploadPartCopy", UploadId=upload, PartNumber=1, CopySource=f"{BUCKET}/source", CopySourceRange=text)


def test_a_multipart_object_is_copied_as_a_row(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    complete(s3, upload, parts)
    s3("CopyObject", Key="copy", CopySource=f"{BUCKET}/{KEY}")
    s3("DeleteObject")
    assert body(s3("GetObject", Key="copy")) == FIRST + SECOND


def test_parts_are_listed_in_pages(s3: Any) -> None:
    upload, parts = begin(s3, b"a", b"b", b"c")
    page = s3("ListParts", UploadId=upload, MaxParts=2)
    assert [part["PartNumber"] for part in page["Parts"]] == [1, 2]
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == (True, 2)
    page = s3("ListParts", UploadId=upload, PartNumberMarker=2)
    assert [(part["PartNumber"], part["ETag"]) for part in page["Parts"]] == [(3, parts[2]["ETag"])]
    assert page["IsTruncated"] is False


def test_uploads_are_listed_by_key_in_pages(s3: Any) -> None:
    made = {(key, s3("CreateMultipartUpload", Key=key)["UploadId"]) for key in ("b", "a/1", "a/2", "b", "c")}
    seen, marker = [], {}
    while True:
        page = s3("ListMultipartUploads", MaxUploads=2, **marker)
        seen += [(upload["Key"], upload["UploadId"]) for upload in page["Uploads"]]
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert seen == sorted(made)
    folded = s3("ListMultipartUploads", Delimiter="/", Prefix="")
    assert [entry["Prefix"] for entry in folded["CommonPrefixes"]] == ["a/"]
    assert [upload["Key"] for upload in folded["Uploads"]] == ["b", "b", "c"]
    assert [upload["Key"] for upload in s3("ListMultipartUploads", Prefix="a/")["Uploads"]] == ["a/1", "a/2"]


def test_attributes_tell_the_parts(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND, ChecksumAlgorithm="SHA256")
    complete(s3, upload, parts)
    told = s3("GetObjectAttributes", ObjectAttributes=["ObjectParts"], MaxParts=1)["ObjectParts"]
    assert (told["TotalPartsCount"], told["IsTruncated"]) == (2, True)
    assert told["Parts"] == [
        {"PartNumber": 1, "Size": len(FIRST), "ChecksumSHA256": parts[0]["ChecksumSHA256"]},
    ]


def test_a_part_is_read_with_its_own_checksum(s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND, ChecksumAlgorithm="SHA256")
    complete(s3, upload, parts)
    for number, part in enumerate(parts, 1):
        got = s3("GetObject", PartNumber=number, ChecksumMode="ENABLED")
        assert (got["ChecksumSHA256"], got["ChecksumType"]) == (part["ChecksumSHA256"], "COMPOSITE")


def test_parts_without_a_chosen_checksum_are_only_counted(s3: Any) -> None:
    complete(s3, *begin(s3, FIRST, SECOND))
    told = s3("GetObjectAttributes", ObjectAttributes=["ObjectParts"])["ObjectParts"]
    assert told == {"TotalPartsCount": 2}


# --- the collector


def collect_all(world: Any) -> int:
    collector = world.app.store.get(state.COLLECTOR)
    for looks in range(1, 400):
        if world.step(collector) == engine.WAIT_S:
            return looks
    raise AssertionError("the collector never rests")


def test_the_collector_frees_what_was_deleted_an_hour_ago(world: Any, s3: Any) -> None:
    s3("PutObject", Key="gone", Body=FIRST)
    s3("PutObject", Key="kept", Body=SECOND * 2)
    s3("DeleteObject", Key="gone")
    sha256 = hashlib.sha256(FIRST).hexdigest()
    collect_all(world)
    assert world.app.blobs.path(sha256)  # too young
    os.utime(world.app.blobs.path(sha256), (1000, 1000))
    os.utime(world.app.blobs.path(hashlib.sha256(SECOND * 2).hexdigest()), (1000, 1000))
    collect_all(world)
    assert world.app.blobs.path(sha256) is None
    assert body(s3("GetObject", Key="kept")) == SECOND * 2


def test_the_collector_aborts_forgotten_uploads(world: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, _ = begin(s3, SECOND)
    collect_all(world)
    assert s3("ListParts", UploadId=upload)["Parts"]
    later = world.app.clock.now() + engine.UPLOAD_S + 60
    monkeypatch.setattr(type(world.app.clock), "now", lambda _: later)
    collect_all(world)
    with refused("NoSuchUpload"):
        s3("ListParts", UploadId=upload)


def test_a_look_goes_through_a_page_of_uploads_and_the_next_goes_on(
    world: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "UPLOADS", 2)
    for number in range(5):
        s3("CreateMultipartUpload", Key=f"k{number}")
    later = world.app.clock.now() + engine.UPLOAD_S + 60
    monkeypatch.setattr(type(world.app.clock), "now", lambda _: later)
    left = [5]
    while left[-1]:
        assert world.step(world.app.store.get(state.COLLECTOR)) in (0.05, engine.WAIT_S)
        left.append(len(s3("ListMultipartUploads").get("Uploads") or []))
    assert sorted(set(left)) == [0, 1, 3, 5]
    collect_all(world)
    assert world.app.store.get(state.COLLECTOR).body == {}


def test_a_lifecycle_rule_shortens_the_patience(world: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {
        "Status": "Enabled",
        "Filter": {"Prefix": "tmp/"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    s3("PutBucketLifecycleConfiguration", LifecycleConfiguration={"Rules": [rule]})
    short, long = (s3("CreateMultipartUpload", Key=key)["UploadId"] for key in ("tmp/a", "a"))
    later = world.app.clock.now() + 86400 + 60
    monkeypatch.setattr(type(world.app.clock), "now", lambda _: later)
    collect_all(world)
    left = [upload["UploadId"] for upload in s3("ListMultipartUploads")["Uploads"]]
    assert (short in left, long in left) == (False, True)


def test_the_parts_of_an_object_are_kept_from_the_collector_once_its_first_bytes_are_read(world: Any, s3: Any) -> None:
    upload, parts = begin(s3, FIRST, SECOND)
    s3("CompleteMultipartUpload", UploadId=upload, MultipartUpload={"Parts": parts})
    second = world.app.blobs.path(hashlib.sha256(SECOND).hexdigest())
    os.utime(second, (0, 0))
    body = iter(s3("GetObject")["Body"])
    read = next(body)
    assert os.stat(second).st_mtime == 0  # a read of ten thousand parts begins with its first byte
    read += next(body)
    assert os.stat(second).st_mtime > 0
    assert read + b"".join(body) == FIRST + SECOND


@pytest.mark.parametrize(("given", "told"), [
    ({"MaxParts": -1}, "Argument max-parts must be an integer between 0 and 2147483647"),
    ({"MaxParts": 1 << 31}, "Provided max-parts not an integer or within integer range"),
    ({"PartNumberMarker": -1}, "Argument part-number-marker must be an integer between 0 and 2147483647"),
    ({"PartNumberMarker": 1 << 31}, "Provided part-number-marker not an integer or within integer range"),
])  # fmt: skip
def test_numbers_that_are_none_are_told_as_the_query_calls_them(s3: Any, given: dict[str, int], told: str) -> None:
    upload = s3("CreateMultipartUpload", Key="k")["UploadId"]
    with pytest.raises(ServiceError, match=f"^InvalidArgument: {told}"):
        s3("ListParts", Key="k", UploadId=upload, **given)
