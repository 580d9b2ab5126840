"""S3 as boto3 and its transfers see it, over HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from penstock.kernel import ids

MIB = 1 << 20
BIG = os.urandom(11 * MIB + 5)


@pytest.fixture
def s3(client: Any) -> Any:
    return client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{ids.word(16)}"
    s3.create_bucket(Bucket=name)
    return name


def refused(code: str, status: int) -> Any:
    return _Refused(code, status)


class _Refused:
    def __init__(self, code: str, status: int):
        self.wanted = (code, status)

    def __enter__(self) -> _Refused:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if not isinstance(error, ClientError):
            return False
        self.error = error.response["Error"]
        assert (self.error["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]) == self.wanted
        return True


@pytest.mark.parametrize("size_bytes", [0, 5, 65_537, 3 * MIB])
def test_bytes_go_up_and_down(s3: Any, bucket: str, size_bytes: int) -> None:
    data = BIG[:size_bytes]
    put = s3.put_object(Bucket=bucket, Key="a/é b+c.bin", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/é b+c.bin")
    assert got["Body"].read() == data


def test_transfers_use_parts_and_ranges(s3: Any, bucket: str) -> None:
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(BIG), bucket, "big", Config=config, ExtraArgs={"Metadata": {"a": "b"}})
    head = s3.head_object(Bucket=bucket, Key="big", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert (head["ContentLength"], head["Metadata"]) == (len(BIG), {"a": "b"})
    down = io.BytesIO()
    s3.download_fileobj(bucket, "big", down, Config=config)
    assert down.getvalue() == BIG


def test_managed_copies_use_parts(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=BIG)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.copy({"Bucket": bucket, "Key": "a"}, bucket, "b", Config=config)
    s3.copy({"Bucket": bucket, "Key": "a"}, bucket, "c")
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == BIG
    assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == BIG


def test_a_body_of_unknown_length_is_taken(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(BIG), ChecksumAlgorithm="SHA256")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"]
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["Body"].read() == BIG


def test_a_range_is_partial_content(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range="bytes=2-4")
    assert (got["Body"].read(), got["ContentRange"]) == (b"234", "bytes 2-4/10")
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-")


def test_conditions_are_answered_by_status(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    with refused("304", 304):
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)
    with refused("304", 304):
        s3.head_object(Bucket=bucket, Key="k", IfModifiedSince=s3.head_object(Bucket=bucket, Key="k")["LastModified"])
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"')
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"y", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_missing_things_have_exceptions_of_their_own(s3: Any, bucket: str) -> None:
    with pytest.raises(s3.exceptions.NoSuchKey) as told:
        s3.get_object(Bucket=bucket, Key="gone")
    assert told.value.response["Error"]["Key"] == "gone"
    with pytest.raises(s3.exceptions.NoSuchBucket) as told:
        s3.list_objects_v2(Bucket="no-such-bucket-here")
    assert told.value.response["Error"]["BucketName"] == "no-such-bucket-here"
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="gone")
    with refused("404", 404):
        s3.head_bucket(Bucket="no-such-bucket-here")


def test_another_owner_is_refused(s3: Any, bucket: str) -> None:
    with refused("403", 403):
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="999999999999")


def test_pages_of_a_listing(s3: Any, bucket: str) -> None:
    keys = [f"d{n % 3}/k {n:02}+é" for n in range(25)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == sorted(keys)
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == sorted(keys)
    folded = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [entry["Prefix"] for entry in folded["CommonPrefixes"]] == ["d0/", "d1/", "d2/"]


def test_deletions_in_one_request(s3: Any, bucket: str) -> None:
    for key in ("a", "b<&>", "é"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ("a", "b<&>", "é")]})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a", "b<&>", "é"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_read_and_write(client: Any, bucket: str, version: str) -> None:
    s3 = client("s3", signature_version=version)
    params = {"Bucket": bucket, "Key": "p q"}
    url = s3.generate_presigned_url("put_object", params | {"ContentType": "text/y"})
    other = urllib.request.Request(url, data=b"presigned", method="PUT", headers={"content-type": "text/z"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(other)
    with refused.value as answer:
        assert answer.code == 403
    request = urllib.request.Request(url, data=b"presigned", method="PUT", headers={"content-type": "text/y"})
    with urllib.request.urlopen(request) as put:
        assert put.status == 200
    url = s3.generate_presigned_url("get_object", params | {"ResponseContentType": "text/x"})
    with urllib.request.urlopen(url) as got:
        assert (got.read(), got.headers["content-type"]) == (b"presigned", "text/x")
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(url.replace("p%20q", "other"))
    assert told.value.code == 403
    told.value.close()


def test_buckets_and_their_settings(s3: Any, bucket: str, client: Any) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": "111122223333"},
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{bucket}",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    rules = [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "t/"}, "Expiration": {"Days": 3}}]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Grantee"]["Type"] == "CanonicalUser"


def test_a_bucket_elsewhere_is_told(client: Any) -> None:
    s3 = client("s3")
    name = f"test-{ids.word(16)}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "eu-west-1"
    with refused("BucketAlreadyOwnedByYou", 409):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_versions_over_the_wire(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"1"
    assert s3.delete_object(Bucket=bucket, Key="k")["DeleteMarker"] is True
    listed = s3.list_object_versions(Bucket=bucket)
    assert (len(listed["Versions"]), len(listed["DeleteMarkers"])) == (2, 1)


def test_object_tags_and_attributes_over_the_wire(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "b", "Value": "2"}]})
    assert s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "1"
    told = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize", "ETag"])
    assert (told["ObjectSize"], told["ETag"]) == (1, hashlib.md5(b"x").hexdigest())


def test_multipart_lists_over_the_wire(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="é k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="é k", UploadId=upload, PartNumber=1, Body=b"x")
    (part,) = s3.list_parts(Bucket=bucket, Key="é k", UploadId=upload)["Parts"]
    assert (part["PartNumber"], part["Size"]) == (1, 1)
    (listed,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert (listed["UploadId"], listed["Key"]) == (upload, "é k")
    s3.abort_multipart_upload(Bucket=bucket, Key="é k", UploadId=upload)
    with pytest.raises(s3.exceptions.NoSuchUpload):
        s3.list_parts(Bucket=bucket, Key="é k", UploadId=upload)


@pytest.fixture
def resource(client: Any, bucket: str) -> Iterator[Any]:
    made = client.session.resource("s3", endpoint_url=client.url)
    yield made
    made.meta.client.close()


def test_the_resource_interface_empties_a_bucket(resource: Any, bucket: str) -> None:
    made = resource.Bucket(bucket)
    for key in ("a", "b/c"):
        made.put_object(Key=key, Body=b"x")
    assert [each.key for each in made.objects.filter(Prefix="b/")] == ["b/c"]
    made.objects.all().delete()
    made.delete()
    assert made.creation_date is None


def test_a_presigned_url_of_the_old_form_ends(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=-5)
    assert "AWSAccessKeyId=" in url
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(url)
    with told.value as answer:
        assert (answer.code, b"Request has expired" in answer.read()) == (403, True)


def test_an_empty_continuation_token_is_refused(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError, match="The continuation token provided is incorrect"):
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="")


def test_metadata_in_a_presigned_url_of_the_old_form_is_kept(s3: Any, bucket: str) -> None:
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k", "Metadata": {"venue": "a b"}})
    typed = {"content-type": ""}  # urllib would name one, which is not what was signed
    urllib.request.urlopen(urllib.request.Request(url, data=b"x", method="PUT", headers=typed)).close()
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"venue": "a b"}


def test_a_form_that_is_put_is_an_object(client: Any, bucket: str) -> None:
    s3 = client("s3", signature_version="s3v4")
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"})
    urllib.request.urlopen(urllib.request.Request(url, data=b"Action=x", method="PUT")).close()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"Action=x"


def test_answers_have_the_status_and_type_of_s3(s3: Any, bucket: str) -> None:
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObjectAcl",
              "Resource": f"arn:aws:s3:::{bucket}/*"}]}  # fmt: skip
    answers = [
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy)),
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
    ]
    assert [answer["ResponseMetadata"]["HTTPStatusCode"] for answer in answers] == [204, 204, 200]
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/xml"
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": []})
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)


def test_tags_of_the_system_are_refused_in_words_of_their_own(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError, match="Your TagKey cannot be prefixed with aws:"):
        s3.put_object(Bucket=bucket, Key="k", Tagging="aws:a=b")
    with pytest.raises(ClientError, match="System tags cannot be added/updated by requester"):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "aws:a", "Value": "b"}]})


def test_a_delete_marker_is_no_object_for_any_method(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    marker = {"Bucket": bucket, "Key": "k", "VersionId": s3.delete_object(Bucket=bucket, Key="k")["VersionId"]}
    with pytest.raises(ClientError) as put:
        s3.put_object_tagging(**marker, Tagging={"TagSet": []})
    with pytest.raises(ClientError) as got:
        s3.get_object_tagging(**marker)
    assert [told.value.response["Error"]["Method"] for told in (put, got)] == ["PUT", "GET"]


def test_a_page_of_versions_that_ends_with_a_folder_names_no_version(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a/1", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key)
    page = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=1)
    assert (page["NextKeyMarker"], "NextVersionIdMarker" in page) == ("a/", False)
    page = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=1, KeyMarker="a/")
    assert (page["NextKeyMarker"], page["NextVersionIdMarker"]) == ("b", page["Versions"][0]["VersionId"])


def test_the_checksum_of_parts_is_told_without_their_number_among_the_attributes(s3: Any, bucket: str) -> None:
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]
    part = s3.upload_part(**upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]
    made = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    shown = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum"])["Checksum"]
    assert f"{shown['ChecksumSHA256']}-1" == made["ChecksumSHA256"]
