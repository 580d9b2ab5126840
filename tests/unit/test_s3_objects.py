"""Objects, through the dispatcher: bytes, conditions, ranges, checksums, copies, deletions, versions."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest

from penstock.blobs import checksums
from penstock.kernel.errors import ServiceError
from penstock.store.records import Stale, Unmet

BUCKET = "data-bucket"
BIG = os.urandom(200_000)


@pytest.fixture
def s3(world: Any) -> Any:
    """Calls an S3 operation in the test's bucket, and commits."""

    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, **params})

    s3("CreateBucket")
    return s3


def body(answer: dict[str, Any]) -> bytes:
    given = answer["Body"]
    return given if isinstance(given, bytes) else b"".join(given)


def refused(code: str) -> Any:
    return pytest.raises(ServiceError, match=f"^{code}:")


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# --- bytes


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("Ã\x84MÃ\x84ZÃ\x95Ã\x91 S3", "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?="),  # AWS's own example
        (
            "=?UTF-8?Q?=C3=83=C2=84M=C3=83=C2=84Z=C3=83=C2=95=C3=83=C2=91_S3?=",
            "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?=",
        ),
        ("=?UTF-8?B?w6k=?= =?UTF-8?Q?=C3=A9?=", "=?UTF-8?B?w6nDqQ==?="),
        ("Hello World\xe9", "=?UTF-8?Q?Hello_World=C3=A9?="),
        ("=?nonsense?Q?x?=", "=?nonsense?Q?x?="),
    ],
)
def test_user_metadata_travels_as_rfc_2047_says(s3: Any, given: str, shown: str) -> None:
    s3("PutObject", Key="k", Body=b"", Metadata={"NAME": given})
    assert s3("HeadObject", Key="k")["Metadata"] == {"name": shown}


def test_metadata_that_no_header_can_hold_is_counted(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"", Metadata={"a": "=?UTF-8?Q?x=0D=0Ay?=", "b": "c"})
    head = s3("HeadObject", Key="k")
    assert (head["Metadata"], head["MissingMeta"]) == ({"b": "c"}, 1)


@pytest.mark.parametrize("value", ["a\r\nb: c", "é€"])
def test_an_answers_header_cannot_be_told_what_none_can_hold(s3: Any, value: str) -> None:
    s3("PutObject", Key="k", Body=b"")
    with refused("InvalidArgument"):
        s3("GetObject", Key="k", ResponseContentDisposition=value)


@pytest.mark.parametrize("data", [b"", b"a", BIG[:65_536], BIG[:65_537], BIG])
def test_an_object_comes_back_with_its_md5_as_etag(s3: Any, data: bytes) -> None:
    put = s3("PutObject", Key="k", Body=data)
    got = s3("GetObject", Key="k")
    assert body(got) == data
    assert put["ETag"] == got["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert got["ContentLength"] == len(data)


@pytest.mark.parametrize("key", ["a/b", "é/ü", "a b+c", "../x", "//", "a\x01b", "😀", ".", "k" * 1024])
def test_any_text_is_a_key(s3: Any, key: str) -> None:
    s3("PutObject", Key=key, Body=b"x")
    assert body(s3("GetObject", Key=key)) == b"x"
    assert [entry["Key"] for entry in s3("ListObjectsV2")["Contents"]] == [key]


def test_an_overwrite_wins_whole(s3: Any) -> None:
    s3("PutObject", Key="k", Body=BIG, Metadata={"a": "1"})
    s3("PutObject", Key="k", Body=b"small")
    got = s3("GetObject", Key="k")
    assert (body(got), got.get("Metadata")) == (b"small", None)


def test_what_was_said_of_an_object_is_told_again(s3: Any) -> None:
    said = {"ContentType": "text/csv", "CacheControl": "no-cache", "Metadata": {"a": "b"}, "ContentEncoding": "gzip"}
    s3("PutObject", Key="k", Body=b"x", StorageClass="STANDARD", **said)
    head = s3("HeadObject", Key="k")
    assert {name: head.get(name) for name in said} == said
    assert (head["ServerSideEncryption"], head.get("StorageClass")) == ("AES256", None)
    assert "ChecksumCRC64NVME" not in head


def test_an_answer_can_be_told_to_say_otherwise(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x", ContentType="text/csv")
    got = s3("GetObject", Key="k", ResponseContentType="text/plain", ResponseContentDisposition="attachment")
    assert (got["ContentType"], got["ContentDisposition"]) == ("text/plain", "attachment")


@pytest.mark.parametrize("operation", ["GetObject", "HeadObject"])
def test_a_missing_key_is_named(s3: Any, operation: str) -> None:
    with refused("NoSuchKey") as told:
        s3(operation, Key="gone")
    assert (told.value.message, told.value.status) == ("The specified key does not exist.", 404)
    assert told.value.members == {"Key": "gone"}


def test_another_accounts_bucket_is_refused(world: Any, s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x")
    world.account = "999999999999"
    for operation in ("GetObject", "PutObject", "DeleteObject"):
        with refused("AccessDenied"):
            s3(operation, Key="k")


def test_the_expected_owner_is_held_against_the_owner(world: Any, s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x", ExpectedBucketOwner=world.account)
    with refused("AccessDenied") as told:
        s3("HeadObject", Key="k", ExpectedBucketOwner="999999999999")
    assert told.value.status == 403


@pytest.mark.parametrize(
    "given", [{"SSECustomerAlgorithm": "AES256"}, {"ObjectLockMode": "COMPLIANCE"}, {"IfNoneMatch": '"x"'}]
)
def test_what_is_not_there_says_so(s3: Any, given: dict[str, str]) -> None:
    with refused("NotImplemented") as told:
        s3("PutObject", Key="k", Body=b"x", **given)
    assert told.value.status == 501


def test_too_much_metadata_is_refused(s3: Any) -> None:
    with refused("MetadataTooLarge"):
        s3("PutObject", Key="k", Body=b"x", Metadata={"a": "b" * 2048})


def test_an_acl_for_others_is_refused(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x", ACL="bucket-owner-full-control")
    with refused("AccessControlListNotSupported"):
        s3("PutObject", Key="k", Body=b"x", ACL="public-read")


# --- checksums


def test_an_object_has_a_crc64_where_nothing_is_asked(s3: Any) -> None:
    put = s3("PutObject", Key="k", Body=BIG)
    head = s3("HeadObject", Key="k", ChecksumMode="ENABLED")
    crc = checksums.compute("CRC64NVME", [BIG])
    assert put["ChecksumCRC64NVME"] == head["ChecksumCRC64NVME"] == crc
    assert head["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize("data", [b"small", BIG])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256", "XXHASH64"])
def test_a_checksum_that_is_given_is_held_and_kept(s3: Any, algorithm: str, data: bytes) -> None:
    member = f"Checksum{algorithm}"
    s3("PutObject", Key="k", Body=data, **{member: checksums.compute(algorithm, [data])})
    assert s3("GetObject", Key="k", ChecksumMode="ENABLED")[member] == checksums.compute(algorithm, [data])
    with refused("BadDigest"):
        s3("PutObject", Key="k", Body=data + b"!", **{member: checksums.compute(algorithm, [data])})


def test_a_checksum_can_be_asked_for(s3: Any) -> None:
    put = s3("PutObject", Key="k", Body=BIG, ChecksumAlgorithm="SHA256")
    assert put["ChecksumSHA256"] == b64(hashlib.sha256(BIG).digest())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ChecksumCRC32": "nonsense"}, "Value for x-amz-checksum-crc32 header is invalid."),
        ({"ChecksumCRC32": "y/Q5Jg==", "ChecksumSHA1": "x"}, "Expecting a single x-amz-checksum- header."),
    ],
)
def test_a_checksum_that_is_none_is_refused(s3: Any, given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ServiceError, match=sentence):
        s3("PutObject", Key="k", Body=b"x", **given)


def test_a_range_has_no_checksum_of_the_whole(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"0123456789")
    assert "ChecksumCRC64NVME" not in s3("GetObject", Key="k", ChecksumMode="ENABLED", Range="bytes=0-3")
    assert "ChecksumCRC64NVME" in s3("GetObject", Key="k", ChecksumMode="ENABLED", Range="bytes=0-9")


def test_content_md5_is_held_against_the_body(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x", ContentMD5=b64(hashlib.md5(b"x").digest()))
    with refused("BadDigest"):
        s3("PutObject", Key="k", Body=b"y", ContentMD5=b64(hashlib.md5(b"x").digest()))
    with refused("InvalidDigest"):
        s3("PutObject", Key="k", Body=b"y", ContentMD5="short")


# --- ranges and conditions


@pytest.mark.parametrize("data", [b"0123456789" * 10, BIG])
def test_a_range_is_told_and_given(s3: Any, data: bytes) -> None:
    s3("PutObject", Key="k", Body=data)
    got = s3("GetObject", Key="k", Range="bytes=10-49")
    assert body(got) == data[10:50]
    assert (got["ContentRange"], got["ContentLength"]) == (f"bytes 10-49/{len(data)}", 40)


def test_the_only_part_is_the_whole(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"abc")
    got = s3("GetObject", Key="k", PartNumber=1)
    assert (body(got), got["ContentRange"], got.get("PartsCount")) == (b"abc", "bytes 0-2/3", None)
    with refused("InvalidPartNumber"):
        s3("GetObject", Key="k", PartNumber=2)
    with refused("InvalidRequest"):
        s3("GetObject", Key="k", PartNumber=1, Range="bytes=0-1")


def test_a_read_may_have_conditions(s3: Any) -> None:
    etag = s3("PutObject", Key="k", Body=b"x")["ETag"]
    assert body(s3("GetObject", Key="k", IfMatch=etag)) == b"x"
    with refused("NotModified") as told:
        s3("GetObject", Key="k", IfNoneMatch=etag)
    assert told.value.status == 304
    with refused("PreconditionFailed") as told:
        s3("HeadObject", Key="k", IfMatch='"other"')
    assert (told.value.status, told.value.members) == (412, {"Condition": "If-Match"})


def test_a_write_may_ask_for_nothing_to_be_there(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"first", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3("PutObject", Key="k", Body=b"second", IfNoneMatch="*")
    assert body(s3("GetObject", Key="k")) == b"first"


def test_of_two_writers_who_ask_for_nothing_to_be_there_one_wins(world: Any, s3: Any) -> None:
    calls = [world.call(), world.call()]
    for number, call in enumerate(calls):
        call.other("s3", "PutObject", Bucket=BUCKET, Key="k", Body=b"%d" % number, IfNoneMatch="*")
    world.app.store.commit(calls[1].change)
    with pytest.raises(Unmet):
        world.app.store.commit(calls[0].change)
    assert body(s3("GetObject", Key="k")) == b"1"


def test_a_write_may_ask_for_an_etag(s3: Any) -> None:
    etag = s3("PutObject", Key="k", Body=b"1")["ETag"]
    s3("PutObject", Key="k", Body=b"2", IfMatch=etag)
    with refused("PreconditionFailed"):
        s3("PutObject", Key="k", Body=b"3", IfMatch=etag)
    with refused("NoSuchKey"):
        s3("PutObject", Key="gone", Body=b"3", IfMatch=etag)


# --- copies


def test_a_copy_is_a_row(world: Any, s3: Any) -> None:
    s3("PutObject", Key="a", Body=BIG, Metadata={"m": "1"}, ContentType="text/csv", Tagging="t=1")
    result = s3("CopyObject", Key="b", CopySource=f"{BUCKET}/a")["CopyObjectResult"]
    got = s3("GetObject", Key="b")
    assert (body(got), got["Metadata"], got["ContentType"], got["TagCount"]) == (BIG, {"m": "1"}, "text/csv", 1)
    assert result["ETag"] == got["ETag"]
    rows = [world.app.store.object(BUCKET, key) for key in ("a", "b")]
    assert rows[0].parts == rows[1].parts != []


def test_a_copy_outlives_its_source(world: Any, s3: Any) -> None:
    s3("PutObject", Key="a", Body=BIG)
    s3("CopyObject", Key="b", CopySource=f"{BUCKET}/a")
    s3("DeleteObject", Key="a")
    world.app.blobs.collect(world.app.clock.now() + 10, world.app.store.blob_used)
    assert body(s3("GetObject", Key="b")) == BIG


def test_a_copy_may_replace_what_is_said(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x", Metadata={"m": "1"}, ContentType="text/csv")
    s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a", MetadataDirective="REPLACE", Metadata={"m": "2"})
    head = s3("HeadObject", Key="a", ChecksumMode="ENABLED")
    assert (head["Metadata"], head["ContentType"]) == ({"m": "2"}, "binary/octet-stream")
    assert head["ChecksumCRC64NVME"]


def test_a_copy_onto_itself_must_change_something(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x")
    with pytest.raises(ServiceError, match="illegal because it is trying to copy an object to itself"):
        s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a")
    with refused("InvalidStorageClass"):
        s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a", StorageClass="STANDARD2")


def test_a_copy_onto_itself_may_change_the_encryption(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x", ServerSideEncryption="aws:kms")
    assert s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a")["ServerSideEncryption"] == "AES256"
    with refused("InvalidRequest"):
        s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a")
    default = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3("PutBucketEncryption", ServerSideEncryptionConfiguration=default)
    s3("CopyObject", Key="a", CopySource=f"{BUCKET}/a")


def test_a_copy_has_conditions_on_its_source(s3: Any) -> None:
    etag = s3("PutObject", Key="a", Body=b"x")["ETag"]
    s3("CopyObject", Key="b", CopySource=f"{BUCKET}/a", CopySourceIfMatch=etag)
    with refused("PreconditionFailed"):
        s3("CopyObject", Key="b", CopySource=f"{BUCKET}/a", CopySourceIfNoneMatch=etag)
    with refused("NoSuchKey"):
        s3("CopyObject", Key="b", CopySource=f"{BUCKET}/gone")
    with refused("NoSuchBucket"):
        s3("CopyObject", Key="b", CopySource="no-such-bucket/a")


def test_a_copy_can_be_given_another_checksum(s3: Any) -> None:
    s3("PutObject", Key="a", Body=BIG)
    s3("CopyObject", Key="b", CopySource=f"{BUCKET}/a", ChecksumAlgorithm="SHA256")
    head = s3("HeadObject", Key="b", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == b64(hashlib.sha256(BIG).digest())
    assert "ChecksumCRC64NVME" not in head


# --- deletions


def test_a_deletion_is_told_once_and_never_fails(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x")
    assert s3("DeleteObject", Key="k") == s3("DeleteObject", Key="k") == {}
    with refused("NoSuchKey"):
        s3("GetObject", Key="k")


def test_many_deletions_are_told_one_by_one(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x")
    answer = s3("DeleteObjects", Delete={"Objects": [{"Key": "a"}, {"Key": "k" * 1025}]})
    assert answer["Deleted"] == [{"Key": "a"}]
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("k" * 1025, "KeyTooLongError")]
    assert s3("ListObjectsV2")["KeyCount"] == 0


def test_quiet_deletions_tell_failures_only(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x")
    assert s3("DeleteObjects", Delete={"Objects": [{"Key": "a"}], "Quiet": True}) == {}


def test_more_than_a_thousand_deletions_are_refused(s3: Any) -> None:
    with refused("MalformedXML"):
        s3("DeleteObjects", Delete={"Objects": [{"Key": str(n)} for n in range(1001)]})


def test_a_deletion_may_have_a_condition(s3: Any) -> None:
    s3("PutObject", Key="a", Body=b"x")
    with refused("PreconditionFailed"):
        s3("DeleteObject", Key="a", IfMatch='"other"')
    assert s3("ListObjectsV2")["KeyCount"] == 1


@pytest.mark.parametrize("status", ["", "Enabled"])
def test_a_deletions_condition_is_held_until_it_is_written(world: Any, s3: Any, status: str) -> None:
    if status:
        s3("PutBucketVersioning", VersioningConfiguration={"Status": status})
    etag = s3("PutObject", Key="k", Body=b"seen")["ETag"]
    lost = world.call()
    lost.other("s3", "DeleteObject", Bucket=BUCKET, Key="k", IfMatch=etag)
    s3("PutObject", Key="k", Body=b"later")
    with pytest.raises(Stale):
        world.app.store.commit(lost.change)
    assert body(s3("GetObject", Key="k")) == b"later"


def test_a_key_that_is_named_twice_with_a_condition_goes_once(s3: Any) -> None:
    etag = s3("PutObject", Key="k", Body=b"x")["ETag"]
    answer = s3("DeleteObjects", Delete={"Objects": [{"Key": "k", "ETag": etag}] * 2})
    assert (answer["Deleted"], [error["Code"] for error in answer["Errors"]]) == ([{"Key": "k"}], ["NoSuchKey"])


def test_tags_and_grants_that_are_set_at_once_are_both_kept(world: Any, s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x")
    lost = world.call()
    lost.other("s3", "PutObjectTagging", Bucket=BUCKET, Key="k", Tagging={"TagSet": []})
    s3("PutObjectTagging", Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    with pytest.raises(Stale):
        world.app.store.commit(lost.change)
    assert s3("GetObjectTagging", Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]


# --- versions


@pytest.fixture
def versions(s3: Any) -> Any:
    s3("PutBucketVersioning", VersioningConfiguration={"Status": "Enabled"})
    return s3


def test_every_put_is_a_version(versions: Any) -> None:
    first = versions("PutObject", Key="k", Body=b"1")["VersionId"]
    second = versions("PutObject", Key="k", Body=b"2")["VersionId"]
    assert body(versions("GetObject", Key="k")) == b"2"
    assert body(versions("GetObject", Key="k", VersionId=first)) == b"1"
    listed = versions("ListObjectVersions")["Versions"]
    assert [(each["VersionId"], each["IsLatest"]) for each in listed] == [(second, True), (first, False)]


def test_a_deletion_hides_and_can_be_taken_back(versions: Any) -> None:
    versions("PutObject", Key="k", Body=b"1")
    marker = versions("DeleteObject", Key="k")
    assert marker["DeleteMarker"] is True
    with refused("NoSuchKey"):
        versions("GetObject", Key="k")
    with refused("MethodNotAllowed"):
        versions("GetObject", Key="k", VersionId=marker["VersionId"])
    assert [each["VersionId"] for each in versions("ListObjectVersions")["DeleteMarkers"]] == [marker["VersionId"]]
    versions("DeleteObject", Key="k", VersionId=marker["VersionId"])
    assert body(versions("GetObject", Key="k")) == b"1"


def test_an_unknown_version_is_told(versions: Any) -> None:
    versions("PutObject", Key="k", Body=b"1")
    with refused("NoSuchVersion"):
        versions("GetObject", Key="k", VersionId="v" * 32)
    with refused("InvalidArgument"):
        versions("GetObject", Key="k", VersionId="none")


def test_an_old_version_is_tagged_in_its_place(versions: Any) -> None:
    old = versions("PutObject", Key="k", Body=b"1")["VersionId"]
    new = versions("PutObject", Key="k", Body=b"2")["VersionId"]
    versions("PutObjectTagging", Key="k", VersionId=old, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert versions("GetObjectTagging", Key="k", VersionId=old)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert versions("GetObjectTagging", Key="k") == {"TagSet": [], "VersionId": new}
    assert [each["VersionId"] for each in versions("ListObjectVersions")["Versions"]] == [new, old]


def test_suspended_versioning_overwrites_the_null_version(versions: Any) -> None:
    kept = versions("PutObject", Key="k", Body=b"1")["VersionId"]
    versions("PutBucketVersioning", VersioningConfiguration={"Status": "Suspended"})
    for data in (b"2", b"3"):
        assert "VersionId" not in versions("PutObject", Key="k", Body=data)
    assert versions("HeadObject", Key="k")["VersionId"] == "null"
    listed = versions("ListObjectVersions")["Versions"]
    assert [each["VersionId"] for each in listed] == ["null", kept]


# --- tags and attributes


def test_tags_of_an_object_are_set_shown_and_taken_away(s3: Any) -> None:
    s3("PutObject", Key="k", Body=BIG, Tagging="a=1")
    s3("PutObjectTagging", Key="k", Tagging={"TagSet": [{"Key": "b", "Value": "2"}]})
    assert s3("GetObjectTagging", Key="k")["TagSet"] == [{"Key": "b", "Value": "2"}]
    assert s3("HeadObject", Key="k")["TagCount"] == 1
    s3("DeleteObjectTagging", Key="k")
    assert s3("GetObjectTagging", Key="k")["TagSet"] == []
    assert body(s3("GetObject", Key="k")) == BIG


def test_attributes_are_shown_as_asked(s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"abc")
    shown = s3("GetObjectAttributes", Key="k", ObjectAttributes=["ETag", "ObjectSize", "StorageClass", "Checksum"])
    assert (shown["ETag"], shown["ObjectSize"], shown["StorageClass"]) == (
        hashlib.md5(b"abc").hexdigest(),
        3,
        "STANDARD",
    )
    assert shown["Checksum"]["ChecksumType"] == "FULL_OBJECT"
    assert "ObjectParts" not in shown
