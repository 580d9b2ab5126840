"""Archived objects are read after they were restored, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.kernel.clock import FakeClock
from penstock.kernel.errors import ServiceError
from tests.conftest import Boto, World

BUCKET = "archived"


@pytest.mark.parametrize("kind", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_read_and_copied_once_it_is_restored(client: Boto, kind: str) -> None:
    s3, bucket = client("s3"), f"{BUCKET}-{client.account}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass=kind)
    with pytest.raises(s3.exceptions.InvalidObjectState) as told:
        s3.get_object(Bucket=bucket, Key="k")
    assert told.value.response["Error"] == {
        "Code": "InvalidObjectState", "Message": "The operation is not valid for the object's storage class", "StorageClass": kind,
    }  # fmt: skip
    with pytest.raises(s3.exceptions.ObjectNotInActiveTierError):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
    assert "Restore" not in s3.head_object(Bucket=bucket, Key="k")
    statuses = [
        s3.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Days": days})["ResponseMetadata"]["HTTPStatusCode"]
        for days in (1, 2)
    ]
    assert statuses == [202, 200]
    assert s3.head_object(Bucket=bucket, Key="k")["Restore"].startswith('ongoing-request="false", expiry-date="')
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k")
    copy = s3.head_object(Bucket=bucket, Key="c")
    assert not {"Restore", "StorageClass"} & set(copy)


def test_what_was_restored_is_away_again_after_its_days(world: World) -> None:
    def s3(operation: str, **params: Any) -> dict[str, Any]:
        return world("s3", operation, Bucket=BUCKET, Key="k", **params)

    clock = world.app.clock = FakeClock()
    world("s3", "CreateBucket", Bucket=BUCKET)
    s3("PutObject", Body=b"x", StorageClass="GLACIER")
    s3("RestoreObject", RestoreRequest={"Days": 1})
    clock.move(86_400)
    assert s3("GetObject")["Body"] == b"x"
    clock.move(86_400)
    with pytest.raises(ServiceError, match="InvalidObjectState"):
        s3("GetObject")
    assert "Restore" not in s3("HeadObject")


def test_what_is_not_archived_is_not_restored(world: World) -> None:
    world("s3", "CreateBucket", Bucket=BUCKET)
    world("s3", "PutObject", Bucket=BUCKET, Key="k", Body=b"x", StorageClass="GLACIER_IR")
    assert world("s3", "GetObject", Bucket=BUCKET, Key="k")["Body"] == b"x"
    with pytest.raises(ServiceError, match="Restore is not allowed for the object's current storage class"):
        world("s3", "RestoreObject", Bucket=BUCKET, Key="k", RestoreRequest={"Days": 1})
