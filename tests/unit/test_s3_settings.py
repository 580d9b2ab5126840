"""What a bucket is told of itself: what S3 refuses of it, and what it shows again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from penstock.kernel.errors import ServiceError

BUCKET = "data-bucket"
ARN = f"arn:aws:s3:::{BUCKET}"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
TOPIC = "arn:aws:sns:us-east-1:123456789012:t"


@pytest.fixture
def s3(world: Any) -> Any:
    """Calls an S3 operation in the test's bucket, and commits."""

    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, **copy.deepcopy(params)})

    s3("CreateBucket")
    return s3


def refused(code: str) -> Any:
    return pytest.raises(ServiceError, match=f"^{code}:")


def statement(**members: Any) -> str:
    full = {"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "s3:GetObject", "Resource": f"{ARN}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**full, **members}]})


ANYBODY = statement(Principal="*")


@pytest.mark.parametrize(
    "policy",
    [
        "{", "[]", '{"Version": "2012-10-17"}', '{"Statement": []}', '{"Statement": [], "More": 1}',
        statement(Condition=["x"]), statement(Condition={"StringEquals": 1}),
        statement(Effect="Maybe"), statement(Principal=None), statement(Action="sqs:SendMessage"),
        statement(Resource="arn:aws:s3:::other/*"), statement(Resource=None), json.dumps({"Id": "x" * 21_000}),
    ],
)  # fmt: skip
def test_a_bad_policy_is_malformed(s3: Any, policy: str) -> None:
    with refused("MalformedPolicy"):
        s3("PutBucketPolicy", Policy=policy)


def test_a_public_policy_needs_the_block_gone(s3: Any) -> None:
    with refused("AccessDenied"):
        s3("PutBucketPolicy", Policy=ANYBODY)
    s3("PutBucketPolicy", Policy=statement())
    assert s3("GetBucketPolicyStatus")["PolicyStatus"] == {"IsPublic": False}
    s3("DeletePublicAccessBlock")
    s3("PutBucketPolicy", Policy=ANYBODY)
    assert s3("GetBucketPolicyStatus")["PolicyStatus"] == {"IsPublic": True}
    s3("PutBucketPolicy", Policy=statement(Principal="*", Condition={"StringEquals": {"aws:SourceVpc": "vpc-1"}}))
    assert s3("GetBucketPolicyStatus")["PolicyStatus"] == {"IsPublic": False}


RULE: dict[str, Any] = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "Expiration": {"Days": 1}}
CORS: dict[str, Any] = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
TOLD: dict[str, Any] = {"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}
TO: dict[str, Any] = {
    "Role": "arn:aws:iam::123456789012:role/r",
    "Rules": [{"Status": "Enabled", "Destination": {"Bucket": ARN}}],
}


@pytest.mark.parametrize(
    ("operation", "member", "value", "code"),
    [
        ("PutBucketVersioning", "VersioningConfiguration", {}, "IllegalVersioningConfigurationException"),
        ("PutBucketVersioning", "VersioningConfiguration", {"Status": "On"}, "MalformedXML"),
        ("PutBucketVersioning", "VersioningConfiguration", {"MFADelete": "Enabled"}, "NotImplemented"),
        ("PutBucketLifecycleConfiguration", "LifecycleConfiguration", {"Rules": []}, "MalformedXML"),
        ("PutBucketLifecycleConfiguration", "LifecycleConfiguration", {"Rules": [RULE, RULE]}, "InvalidArgument"),
        (
            "PutBucketLifecycleConfiguration", "LifecycleConfiguration",
            {"Rules": [RULE | {"Expiration": {"Days": 0}}]}, "InvalidArgument",
        ),
        (
            "PutBucketLifecycleConfiguration", "LifecycleConfiguration",
            {"Rules": [RULE | {"Expiration": {"Date": 1_700_000_001.0}}]}, "InvalidArgument",
        ),
        (
            "PutBucketLifecycleConfiguration", "LifecycleConfiguration", {"Rules": [RULE | {"Expiration": None}]},
            "InvalidRequest",
        ),
        (
            "PutBucketLifecycleConfiguration", "LifecycleConfiguration", {"Rules": [RULE | {"ID": "x" * 256}]},
            "InvalidArgument",
        ),
        ("PutBucketCors", "CORSConfiguration", {"CORSRules": []}, "MalformedXML"),
        (
            "PutBucketCors", "CORSConfiguration", {"CORSRules": [CORS | {"AllowedMethods": ["PATCH"]}]},
            "InvalidRequest",
        ),
        ("PutBucketCors", "CORSConfiguration", {"CORSRules": [CORS | {"AllowedOrigins": ["*a*"]}]}, "InvalidRequest"),
        ("PutBucketCors", "CORSConfiguration", {"CORSRules": [CORS | {"ExposeHeaders": ["x-*"]}]}, "InvalidRequest"),
        ("PutBucketCors", "CORSConfiguration", {"CORSRules": [CORS | {"ExposeHeaders": ["a\nb"]}]}, "MalformedXML"),
        (
            "PutBucketEncryption", "ServerSideEncryptionConfiguration",
            {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "é"}}]},
            "InvalidArgument",
        ),
        (
            "PutBucketEncryption", "ServerSideEncryptionConfiguration",
            {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256", "KMSMasterKeyID": "k"}}]},
            "InvalidArgument",
        ),
        ("PutBucketWebsite", "WebsiteConfiguration", {"ErrorDocument": {"Key": "e"}}, "InvalidArgument"),
        ("PutBucketWebsite", "WebsiteConfiguration", {"IndexDocument": {"Suffix": "a/b"}}, "InvalidArgument"),
        (
            "PutBucketLogging", "BucketLoggingStatus",
            {"LoggingEnabled": {"TargetBucket": "no-such-bucket", "TargetPrefix": ""}}, "InvalidTargetBucketForLogging",
        ),
        ("PutBucketAccelerateConfiguration", "AccelerateConfiguration", {}, "MalformedXML"),
        ("PutBucketRequestPayment", "RequestPaymentConfiguration", {"Payer": "Nobody"}, "MalformedXML"),
        ("PutBucketReplication", "ReplicationConfiguration", TO, "InvalidRequest"),
        ("PutBucketOwnershipControls", "OwnershipControls", {"Rules": []}, "MalformedXML"),
        (
            "PutBucketNotificationConfiguration", "NotificationConfiguration",
            {"QueueConfigurations": [TOLD | {"QueueArn": "nobody"}]}, "InvalidArgument",
        ),
        (
            "PutBucketNotificationConfiguration", "NotificationConfiguration",
            {"QueueConfigurations": [TOLD], "TopicConfigurations": [{"TopicArn": TOPIC, "Events": ["s3:ObjectCreated:Put"]}]},
            "InvalidArgument",
        ),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused(s3: Any, operation: str, member: str, value: Any, code: str) -> None:
    with refused(code):
        s3(operation, **{member: value})


def test_filters_may_keep_notifications_apart(s3: Any) -> None:
    def named(prefix: str) -> dict[str, Any]:
        return TOLD | {"Filter": {"Key": {"FilterRules": [{"Name": "Prefix", "Value": prefix}]}}}

    s3(
        "PutBucketNotificationConfiguration",
        NotificationConfiguration={"QueueConfigurations": [named("a"), named("b")]},
    )
    shown = s3("GetBucketNotificationConfiguration")["QueueConfigurations"]
    assert len({each["Id"] for each in shown}) == 2
    with refused("InvalidArgument"):
        s3(
            "PutBucketNotificationConfiguration",
            NotificationConfiguration={"QueueConfigurations": [named("a"), named("ab")]},
        )


def test_a_lifecycle_filter_of_several_conditions_needs_its_and(s3: Any) -> None:
    rule = {"Status": "Enabled", "Expiration": {"Days": 1}, "Filter": {"Prefix": "a", "Tag": {"Key": "k", "Value": "v"}}}
    with refused("MalformedXML"):
        s3("PutBucketLifecycleConfiguration", LifecycleConfiguration={"Rules": [rule]})


def test_a_lifecycle_rule_without_an_id_gets_one(s3: Any) -> None:
    s3("PutBucketLifecycleConfiguration", LifecycleConfiguration={"Rules": [RULE | {"ID": None}]})
    assert s3("GetBucketLifecycleConfiguration")["Rules"][0]["ID"]


INVENTORY: dict[str, Any] = {
    "Id": "one", "IsEnabled": True, "IncludedObjectVersions": "All", "Schedule": {"Frequency": "Daily"},
    "Destination": {"S3BucketDestination": {"Bucket": ARN, "Format": "CSV"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("noun", "value"),
    [
        ("Analytics", {"Id": "one", "StorageClassAnalysis": {}}),
        ("Metrics", {"Id": "one"}),
        ("Inventory", INVENTORY),
        (
            "IntelligentTiering",
            {"Id": "one", "Status": "Enabled", "Tierings": [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}]},
        ),
    ],
)
def test_settings_by_id_are_kept_listed_and_taken_away(s3: Any, noun: str, value: dict[str, Any]) -> None:
    member = f"{noun}Configuration"
    with refused("NoSuchConfiguration"):
        s3(f"GetBucket{member}", Id="one")
    with refused("InvalidArgument"):
        s3(f"PutBucket{member}", Id="two", **{member: value})
    s3(f"PutBucket{member}", Id="one", **{member: value})
    assert s3(f"GetBucket{member}", Id="one")[member] == value
    assert s3(f"ListBucket{member}s")[f"{member}List"] == [value]
    s3(f"DeleteBucket{member}", Id="one")
    assert s3(f"ListBucket{member}s")[f"{member}List"] == []


# --- encryption


def test_a_bucket_encrypts_what_asks_for_nothing(s3: Any) -> None:
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"},
        "BucketKeyEnabled": True,
    }
    s3("PutBucketEncryption", ServerSideEncryptionConfiguration={"Rules": [rule]})
    put = s3("PutObject", Key="k", Body=b"")
    assert put["SSEKMSKeyId"] == "arn:aws:kms:us-east-1:123456789012:key/k"
    head = s3("HeadObject", Key="k")
    assert (head["ServerSideEncryption"], head["BucketKeyEnabled"]) == ("aws:kms", True)
    assert s3("PutObject", Key="k", Body=b"", ServerSideEncryption="AES256")["ServerSideEncryption"] == "AES256"
    assert "SSEKMSKeyId" not in s3("HeadObject", Key="k")


@pytest.mark.parametrize(
    "given",
    [{"ServerSideEncryption": "ROT13"}, {"SSEKMSKeyId": "k"}, {"ServerSideEncryption": "AES256", "SSEKMSKeyId": "k"}],
)
def test_a_wrong_encryption_is_refused(s3: Any, given: dict[str, str]) -> None:
    with refused("InvalidArgument"):
        s3("PutObject", Key="k", Body=b"", **given)


@pytest.mark.parametrize("operation", ["GetObject", "HeadObject", "PutObject", "UploadPart", "CreateMultipartUpload"])
def test_keys_of_the_client_are_not_there_and_say_so(s3: Any, operation: str) -> None:
    with pytest.raises(ServiceError) as told:
        s3(operation, Key="k", SSECustomerAlgorithm="AES256", PartNumber=1, UploadId="u")
    assert (told.value.status, told.value.members["Header"]) == (501, "x-amz-server-side-encryption-customer-algorithm")


# --- grants


def test_a_bucket_has_no_acls_until_its_owner_turns_them_on(s3: Any) -> None:
    with refused("AccessControlListNotSupported"):
        s3("PutBucketAcl", ACL="public-read")
    with refused("InvalidBucketAclWithObjectOwnership"):
        s3("CreateBucket", Bucket="another-bucket", ACL="public-read")
    s3("PutBucketOwnershipControls", OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]})
    with refused("AccessDenied"):
        s3("PutBucketAcl", ACL="public-read")
    s3("DeletePublicAccessBlock")
    s3("PutBucketAcl", ACL="public-read")
    assert [grant["Permission"] for grant in s3("GetBucketAcl")["Grants"]] == ["FULL_CONTROL", "READ"]
    with refused("InvalidBucketAclWithObjectOwnership"):
        s3("PutBucketOwnershipControls", OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})


def test_grants_of_objects_come_by_name_header_or_body(s3: Any) -> None:
    s3("PutBucketOwnershipControls", OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]})
    s3("DeletePublicAccessBlock")
    s3(
        "PutObject",
        Key="k",
        Body=b"",
        GrantRead=f'id="{"a" * 64}", uri="http://acs.amazonaws.com/groups/global/AllUsers"',
    )
    shown = s3("GetObjectAcl", Key="k")
    assert [grant["Permission"] for grant in shown["Grants"]] == ["READ", "READ"]
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "b" * 64}, "Permission": "WRITE_ACP"}
    s3("PutObjectAcl", Key="k", AccessControlPolicy={"Owner": shown["Owner"], "Grants": [grant]})
    assert s3("GetObjectAcl", Key="k")["Grants"] == [grant]
    s3("PutObjectAcl", Key="k", ACL="private")
    assert [each["Permission"] for each in s3("GetObjectAcl", Key="k")["Grants"]] == ["FULL_CONTROL"]
    for given, code in (
        ({"ACL": "nobody"}, "InvalidArgument"),
        ({"GrantRead": 'emailAddress="a@b.c"'}, "UnresolvableGrantByEmailAddress"),
        ({"GrantRead": 'uri="x"'}, "InvalidArgument"),
        ({"ACL": "private", "GrantRead": f'id="{"a" * 64}"'}, "InvalidRequest"),
        ({}, "MissingSecurityHeader"),
        ({"AccessControlPolicy": {"Grants": []}}, "MalformedACLError"),
    ):
        with refused(code):
            s3("PutObjectAcl", Key="k", **given)


@pytest.mark.parametrize(("operation", "params", "code"), [
    ("GetObjectLockConfiguration", {}, "ObjectLockConfigurationNotFoundError"),
    ("GetObjectRetention", {"Key": "k"}, "InvalidRequest"),
    ("GetObjectLegalHold", {"Key": "k"}, "InvalidRequest"),
    ("DeleteObject", {"Key": "k", "BypassGovernanceRetention": True}, "InvalidArgument"),
])  # fmt: skip
def test_a_bucket_without_object_lock_says_so(s3: Any, operation: str, params: dict[str, Any], code: str) -> None:
    with refused(code):
        s3(operation, **params)


@pytest.mark.parametrize("rule", [
    {"Transitions": [{"Days": 1}]},
    {"Transitions": [{"StorageClass": "GLACIER"}]},
    {"NoncurrentVersionTransitions": [{"StorageClass": "GLACIER"}]},
    {"NoncurrentVersionTransitions": [{"NoncurrentDays": 30}]},
])  # fmt: skip
def test_a_transition_says_when_and_where_to(s3: Any, rule: dict[str, Any]) -> None:
    with refused("MalformedXML"):
        s3("PutBucketLifecycleConfiguration", LifecycleConfiguration={"Rules": [{"Status": "Enabled", "Filter": {}, **rule}]})
