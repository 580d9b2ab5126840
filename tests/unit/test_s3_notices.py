"""Notifications: what becomes of an object is told in the transaction that does it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.kernel import staging
from penstock.runs.base import Result

BUCKET = "data-bucket"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"


@pytest.fixture
def s3(world: Any) -> Any:
    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, **{"Bucket": BUCKET, **params})

    s3("CreateBucket")
    return s3


def told(world: Any) -> list[Any]:
    return list(world.app.store.events(0))


def configure(s3: Any, **configuration: Any) -> None:
    s3("PutBucketNotificationConfiguration", NotificationConfiguration=configuration)


def test_nobody_is_told_where_nobody_asked(world: Any, s3: Any) -> None:
    s3("PutObject", Key="k", Body=b"x")
    assert told(world) == []


def test_eventbridge_is_told_in_its_own_shape(world: Any, s3: Any) -> None:
    configure(s3, EventBridgeConfiguration={})
    etag = s3("PutObject", Key="a b", Body=b"x")["ETag"].strip('"')
    s3("PutObjectTagging", Key="a b", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3("DeleteObject", Key="a b")
    s3("DeleteObject", Key="never there")
    events = told(world)
    assert [(event.source, event.detail_type) for event in events] == [
        ("aws.s3", "Object Created"), ("aws.s3", "Object Tags Added"), ("aws.s3", "Object Deleted"),
    ]  # fmt: skip
    detail = events[0].detail
    assert events[0].resources == [f"arn:aws:s3:::{BUCKET}"]
    assert (detail["bucket"], detail["reason"], detail["requester"]) == ({"name": BUCKET}, "PutObject", "123456789012")
    assert {name: detail["object"][name] for name in ("key", "size", "etag")} == {"key": "a b", "size": 1, "etag": etag}
    assert events[2].detail["deletion-type"] == "Permanently Deleted"


def test_a_queue_is_tested_then_told_what_its_filter_lets_through(world: Any, s3: Any) -> None:
    key = {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "Suffix", "Value": ".csv"}]}
    wanted = {"Id": "mine", "QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": key}}
    configure(s3, QueueConfigurations=[wanted])
    for name in ("in/a b.csv", "in/a.txt", "out/a.csv"):
        s3("PutObject", Key=name, Body=b"xy")
    s3("DeleteObject", Key="in/a b.csv")
    test, made = told(world)
    assert (test.resources, test.detail["Event"]) == ([QUEUE], "s3:TestEvent")
    record = made.detail["Records"][0]
    assert (record["eventName"], record["s3"]["configurationId"]) == ("ObjectCreated:Put", "mine")
    assert (record["s3"]["object"]["key"], record["s3"]["object"]["size"]) == ("in/a+b.csv", 2)


def test_what_a_job_publishes_is_told_too(world: Any, s3: Any) -> None:
    configure(s3, EventBridgeConfiguration={})
    call = world.call()
    staging.publish(call, f"s3://{BUCKET}/out", [Result("o", "a", "0" * 64, "1" * 32, 1, b"x")])
    world.app.store.commit(call.change)
    assert [event.detail["object"]["key"] for event in told(world)] == ["out/a"]


def test_versions_copies_and_uploads_are_told_by_their_names(world: Any, s3: Any) -> None:
    s3("PutBucketVersioning", VersioningConfiguration={"Status": "Enabled"})
    configure(s3, LambdaFunctionConfigurations=[
        {"LambdaFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f", "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]},
    ])  # fmt: skip
    version = s3("PutObject", Key="k", Body=b"x")["VersionId"]
    s3("CopyObject", Key="c", CopySource=f"{BUCKET}/k")
    upload = s3("CreateMultipartUpload", Key="m")["UploadId"]
    part = s3("UploadPart", Key="m", UploadId=upload, PartNumber=1, Body=b"x")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3("CompleteMultipartUpload", Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    s3("DeleteObjects", Delete={"Objects": [{"Key": "k"}, {"Key": "k", "VersionId": version}]})
    records = [event.detail["Records"][0] for event in told(world)]
    assert [record["eventName"] for record in records] == [
        "ObjectCreated:Put", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload",
        "ObjectRemoved:DeleteMarkerCreated", "ObjectRemoved:Delete",
    ]  # fmt: skip
    assert records[0]["s3"]["object"]["versionId"] == records[4]["s3"]["object"]["versionId"] == version


def test_a_restore_is_told_when_it_begins_and_when_it_is_done(world: Any, s3: Any) -> None:
    configure(s3, EventBridgeConfiguration={})
    s3("PutObject", Key="k", Body=b"x", StorageClass="GLACIER")
    s3("RestoreObject", Key="k", RestoreRequest={"Days": 1})
    _, began, done = told(world)
    assert (began.detail_type, done.detail_type) == ("Object Restore Initiated", "Object Restore Completed")
    assert done.detail["source-storage-class"] == "GLACIER"
    assert done.detail["restore-expiry-time"].endswith("T00:00:00Z")
