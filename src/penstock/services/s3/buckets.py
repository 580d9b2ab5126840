"""Buckets: made, found, listed, deleted."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import acls, rules, state
from penstock.store.records import GLOBAL, BucketEmpty, Document, ObjectQuery, Query, TagsGone, UploadGone

MAX_BUCKETS = 10_000


def create_bucket(call: Call) -> dict[str, Any]:
    """Makes a bucket; its name is taken for every account and region.

    Raises: ServiceError InvalidBucketName, BucketAlreadyExists, BucketAlreadyOwnedByYou, InvalidLocationConstraint,
        IllegalLocationConstraintException.
    """
    name = call.params["Bucket"]
    if not rules.bucket_named_well(name):
        raise ServiceError("InvalidBucketName", "The specified bucket is not valid.", 400, BucketName=name)
    region = _region(call)
    if call.params.get("ObjectLockEnabledForBucket"):
        raise ServiceError("NotImplemented", state.UNIMPLEMENTED, 501, Header="x-amz-bucket-object-lock-enabled")
    if found := call.find(state.ref_of(name)):
        _refuse_again(call, found, region)
    else:
        _make(call, name, region)
    location = f"/{name}" if region == "us-east-1" else f"http://{name}.s3.amazonaws.com/"
    return {"Location": location, "BucketArn": f"arn:aws:s3:::{name}"}


def _region(call: Call) -> str:
    """The region a new bucket is to lie in."""
    asked = (call.params.get("CreateBucketConfiguration") or {}).get("LocationConstraint")
    if call.region == "us-east-1":
        if asked == "us-east-1":
            sentence = "The specified location-constraint is not valid"
            raise ServiceError("InvalidLocationConstraint", sentence, 400, LocationConstraint=asked)
        return "eu-west-1" if asked == "EU" else asked or "us-east-1"
    if asked != call.region and not (asked == "EU" and call.region == "eu-west-1"):
        what = f"The {asked} location constraint" if asked else "The unspecified location constraint"
        sentence = f"{what} is incompatible for the region specific endpoint this request was sent to."
        raise ServiceError("IllegalLocationConstraintException", sentence)
    return call.region


def _refuse_again(call: Call, found: Document, region: str) -> None:
    """Only us-east-1 lets its owner make a bucket again."""
    if found.parent != call.account:
        sentence = (
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
            "Please select a different name and try again."
        )
        raise ServiceError("BucketAlreadyExists", sentence, 409, BucketName=found.name)
    if (call.region, region, found.body["BucketRegion"]) != ("us-east-1",) * 3:
        sentence = "Your previous request to create the named bucket succeeded and you already own it."
        raise ServiceError("BucketAlreadyOwnedByYou", sentence, 409, BucketName=found.name)


def _make(call: Call, name: str, region: str) -> None:
    ownership = call.params.get("ObjectOwnership")
    settings: dict[str, Any] = {}
    if ownership:
        settings["OwnershipControls"] = {"Rules": [{"ObjectOwnership": ownership}]}
    if tags := (call.params.get("CreateBucketConfiguration") or {}).get("Tags"):
        settings["Tagging"] = {"TagSet": tags}
    bucket = Document(
        kind=state.BUCKET, account=GLOBAL, region=GLOBAL, name=name, arn=f"arn:aws:s3:::{name}", parent=call.account,
        created=call.now, body={"Name": name, "BucketRegion": region, "_settings": settings},
    )  # fmt: skip
    if grants := _grants(call, bucket):
        bucket.body["_acl"] = grants
    call.put(bucket)
    if call.find(state.COLLECTOR) is None:
        call.put(Document(**state.COLLECTOR._asdict(), created=call.now))
        call.wake(state.COLLECTOR, call.now + 60.0)


def _grants(call: Call, bucket: Document) -> list[dict[str, Any]] | None:
    """The grants that a new bucket is to have. Raises: ServiceError InvalidBucketAclWith…"""
    try:
        return acls.asked(call, bucket)
    except ServiceError as fault:
        if fault.code == "AccessControlListNotSupported":
            sentence = "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"
            raise ServiceError("InvalidBucketAclWithObjectOwnership", sentence) from None
        if fault.code == "AccessDenied":
            sentence = "Bucket cannot have public ACLs set with BlockPublicAccess enabled"
            raise ServiceError("InvalidBucketAclWithBlockPublicAccessError", sentence) from None
        raise


def head_bucket(call: Call) -> dict[str, Any]:
    """Tells that a bucket is there and may be used, and its region."""
    bucket = state.bucket_of(call)
    headers = {"content-type": "application/xml"}
    return {"BucketRegion": bucket.body["BucketRegion"], "BucketArn": bucket.arn, "AccessPointAlias": False, "_headers": headers}


def get_bucket_location(call: Call) -> dict[str, Any]:
    """Tells a bucket's region; us-east-1 is told by nothing."""
    region = state.bucket_of(call).body["BucketRegion"]
    return {} if region == "us-east-1" else {"LocationConstraint": region}


def list_buckets(call: Call) -> dict[str, Any]:
    """Lists the account's buckets of all regions by name."""
    params = call.params
    size, region = params.get("MaxBuckets") or MAX_BUCKETS, params.get("BucketRegion")
    query = Query(
        kind=state.BUCKET, account=GLOBAL, region=GLOBAL, parent=call.account, order="name", limit=size + 1,
        name_prefix=params.get("Prefix"),
    )  # fmt: skip
    if token := params.get("ContinuationToken"):
        last = pages.unseal(token)[0]
        query.after = (last, last)
    found = call.app.store.page(query)
    shown = [_summary(bucket) for bucket in found[:size] if region in (None, bucket.body["BucketRegion"])]
    answer: dict[str, Any] = {"Buckets": shown, "Owner": state.owner_of(call.account)}
    if params.get("Prefix"):
        answer["Prefix"] = params["Prefix"]
    if len(found) > size:
        answer["ContinuationToken"] = pages.seal([found[size - 1].name, ""])
    return answer


def _summary(bucket: Document) -> dict[str, Any]:
    return {
        "Name": bucket.name, "CreationDate": state.seconds(bucket.created), "BucketRegion": bucket.body["BucketRegion"],
        "BucketArn": bucket.arn,
    }  # fmt: skip


def delete_bucket(call: Call) -> None:
    """Deletes an empty bucket, and with it the uploads that are open in it.

    Raises: ServiceError BucketNotEmpty.
    """
    bucket = state.bucket_of(call)
    page = call.app.store.objects(ObjectQuery(bucket=bucket.name, limit=1, versions=True))
    if page.rows:
        last = page.rows[0]
        hidden = last.marker or not last.latest
        sentence = "The bucket you tried to delete is not empty"
        if hidden:
            sentence += ". You must delete all versions in the bucket."
        raise ServiceError("BucketNotEmpty", sentence, 409, BucketName=bucket.name)
    for upload in call.app.store.page(Query(kind=state.UPLOAD, parent=bucket.name, limit=100_000)):
        call.delete(upload)
        call.row(UploadGone(upload_id=upload.name))
    call.delete(bucket)
    call.row(BucketEmpty(bucket=bucket.name))  # nobody may put an object between our look and the commit
    call.row(TagsGone(arn=bucket.arn))
