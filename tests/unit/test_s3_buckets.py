"""Buckets and their settings, through the dispatcher."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.kernel.errors import ServiceError
from penstock.store.records import Stale

BUCKET = "data-bucket"


@pytest.fixture
def s3(world: Any) -> Any:
    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, **params})

    return s3


def refused(code: str) -> Any:
    return pytest.raises(ServiceError, match=f"^{code}:")


def test_a_bucket_is_there_once_made(s3: Any) -> None:
    assert s3("CreateBucket")["Location"] == f"/{BUCKET}"
    assert s3("HeadBucket")["BucketRegion"] == "us-east-1"
    assert s3("GetBucketLocation") == {}


def test_a_missing_bucket_is_named(s3: Any) -> None:
    for operation in ("HeadBucket", "GetBucketLocation", "DeleteBucket", "ListObjectsV2", "GetBucketPolicy"):
        with refused("NoSuchBucket") as told:
            s3(operation)
        assert (told.value.status, told.value.members) == (404, {"BucketName": BUCKET})


def test_a_bad_name_is_refused(s3: Any) -> None:
    with refused("InvalidBucketName"):
        s3("CreateBucket", Bucket="Bad_Name")


def test_a_bucket_lies_in_its_region(world: Any, s3: Any) -> None:
    world.region = "eu-west-1"
    s3("CreateBucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3("GetBucketLocation") == {"LocationConstraint": "eu-west-1"}
    world.region = "us-east-1"
    assert s3("HeadBucket")["BucketRegion"] == "eu-west-1"


@pytest.mark.parametrize(
    ("region", "constraint", "code"),
    [
        ("us-east-1", "us-east-1", "InvalidLocationConstraint"),
        ("eu-west-1", None, "IllegalLocationConstraintException"),
        ("eu-west-1", "us-west-2", "IllegalLocationConstraintException"),
    ],
)
def test_a_region_must_fit_its_endpoint(world: Any, s3: Any, region: str, constraint: str | None, code: str) -> None:
    world.region = region
    given = {"CreateBucketConfiguration": {"LocationConstraint": constraint}} if constraint else {}
    with refused(code):
        s3("CreateBucket", **given)


def test_us_east_1_lets_an_owner_make_a_bucket_again(world: Any, s3: Any) -> None:
    s3("CreateBucket")
    s3("CreateBucket")
    world.region = "us-west-2"
    with refused("BucketAlreadyOwnedByYou") as told:
        s3("CreateBucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    assert told.value.status == 409


def test_a_name_is_taken_for_all_accounts(world: Any, s3: Any) -> None:
    s3("CreateBucket")
    world.account = "999999999999"
    with refused("BucketAlreadyExists"):
        s3("CreateBucket")
    with refused("AccessDenied"):
        s3("HeadBucket")
    assert s3("ListBuckets")["Buckets"] == []


def test_buckets_are_listed_by_name_in_pages(s3: Any) -> None:
    for name in ("bbb", "aaa", "ccc", "aab"):
        s3("CreateBucket", Bucket=name)
    first = s3("ListBuckets", MaxBuckets=3)
    assert [bucket["Name"] for bucket in first["Buckets"]] == ["aaa", "aab", "bbb"]
    rest = s3("ListBuckets", MaxBuckets=3, ContinuationToken=first["ContinuationToken"])
    assert [bucket["Name"] for bucket in rest["Buckets"]] == ["ccc"]
    assert [bucket["Name"] for bucket in s3("ListBuckets", Prefix="aa")["Buckets"]] == ["aaa", "aab"]


def test_only_an_empty_bucket_is_deleted(s3: Any) -> None:
    s3("CreateBucket")
    s3("PutObject", Key="k", Body=b"x")
    with refused("BucketNotEmpty") as told:
        s3("DeleteBucket")
    assert told.value.status == 409
    s3("DeleteObject", Key="k")
    s3("DeleteBucket")
    with refused("NoSuchBucket"):
        s3("HeadBucket")


def test_a_hidden_version_keeps_a_bucket(s3: Any) -> None:
    s3("CreateBucket")
    s3("PutBucketVersioning", VersioningConfiguration={"Status": "Enabled"})
    s3("PutObject", Key="k", Body=b"x")
    s3("DeleteObject", Key="k")
    with pytest.raises(ServiceError, match="You must delete all versions"):
        s3("DeleteBucket")


def test_open_uploads_go_with_their_bucket(world: Any, s3: Any) -> None:
    s3("CreateBucket")
    upload = s3("CreateMultipartUpload", Key="k")["UploadId"]
    s3("UploadPart", Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3("DeleteBucket")
    s3("CreateBucket")
    assert s3("ListMultipartUploads")["Uploads"] == []
    assert world.app.store.upload_parts(upload) == []


def test_a_put_into_a_bucket_that_is_deleted_meanwhile_fails(world: Any, s3: Any) -> None:
    s3("CreateBucket")
    call = world.call()
    call.other("s3", "PutObject", Bucket=BUCKET, Key="k", Body=b"x")
    s3("DeleteBucket")
    with pytest.raises(Exception, match=BUCKET):
        world.app.store.commit(call.change)
    assert world.app.store.object(BUCKET, "k") is None


def test_an_object_put_while_its_bucket_is_deleted_keeps_the_bucket(world: Any, s3: Any) -> None:
    s3("CreateBucket")
    deletion = world.call()
    deletion.other("s3", "DeleteBucket", Bucket=BUCKET)
    s3("PutObject", Key="k", Body=b"x")
    with pytest.raises(Stale):
        world.app.store.commit(deletion.change)
    with refused("BucketNotEmpty"):
        s3("DeleteBucket")


# --- settings

RULE = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/*"},
        ],
    }
)


@pytest.mark.parametrize(
    ("noun", "put", "got", "code"),
    [
        ("BucketPolicy", {"Policy": POLICY}, {"Policy": POLICY}, "NoSuchBucketPolicy"),
        ("BucketCors", {"CORSConfiguration": {"CORSRules": [RULE]}}, {"CORSRules": [RULE]}, "NoSuchCORSConfiguration"),
        (
            "BucketTagging",
            {"Tagging": {"TagSet": [{"Key": "a", "Value": "1"}]}},
            {"TagSet": [{"Key": "a", "Value": "1"}]},
            "NoSuchTagSet",
        ),
        (
            "BucketWebsite",
            {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}},
            {"IndexDocument": {"Suffix": "i"}},
            "NoSuchWebsiteConfiguration",
        ),
    ],
)
def test_a_setting_is_missing_kept_and_taken_away(
    s3: Any, noun: str, put: dict[str, Any], got: dict[str, Any], code: str
) -> None:
    s3("CreateBucket")
    with refused(code):
        s3(f"Get{noun}")
    s3(f"Put{noun}", **put)
    assert s3(f"Get{noun}") == got
    s3(f"Delete{noun}")
    with refused(code):
        s3(f"Get{noun}")


def test_a_new_bucket_is_closed_encrypted_and_without_acls(s3: Any) -> None:
    s3("CreateBucket")
    assert s3("GetPublicAccessBlock")["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    rule = s3("GetBucketEncryption")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3("GetBucketOwnershipControls")["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}
    ]
    assert s3("GetBucketAcl")["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert s3("GetBucketVersioning") == s3("GetBucketNotificationConfiguration") == s3("GetBucketLogging") == {}
    assert s3("GetBucketRequestPayment") == {"Payer": "BucketOwner"}


def test_the_public_access_block_can_go(s3: Any) -> None:
    s3("CreateBucket")
    s3("DeletePublicAccessBlock")
    with refused("NoSuchPublicAccessBlockConfiguration"):
        s3("GetPublicAccessBlock")


def test_encryption_goes_back_to_the_default(s3: Any) -> None:
    s3("CreateBucket")
    kms = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    s3("PutBucketEncryption", ServerSideEncryptionConfiguration=kms)
    assert s3("GetBucketEncryption")["ServerSideEncryptionConfiguration"] == kms
    s3("DeleteBucketEncryption")
    rule = s3("GetBucketEncryption")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_a_policy_must_be_json(s3: Any) -> None:
    s3("CreateBucket")
    with refused("MalformedPolicy"):
        s3("PutBucketPolicy", Policy="{")


def test_settings_do_not_show_among_what_the_bucket_is(s3: Any) -> None:
    s3("CreateBucket")
    s3("PutBucketPolicy", Policy=POLICY)
    assert set(s3("ListBuckets")["Buckets"][0]) == {"Name", "CreationDate", "BucketRegion", "BucketArn"}
