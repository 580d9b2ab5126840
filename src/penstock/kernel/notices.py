"""What a bucket tells of its objects: EventBridge's events and S3's own records, in the transaction of the change.

EventBridge's go to the outbox as they are (`aws.s3`, "Object Created"). A record for a queue, topic or function is an
event of the source `penstock.s3`: its one resource is the destination, its detail is the whole message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote_plus

from penstock.kernel.call import Call
from penstock.store.records import Document, ObjectRow
from penstock.wire.values import iso8601

SOURCE = "penstock.s3"
"""The source of what is not for EventBridge, but for a destination that a notification names."""
TARGETS = {
    "QueueConfigurations": "QueueArn", "TopicConfigurations": "TopicArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
}  # fmt: skip
"""The lists of a notification configuration, and the member of each that names the destination."""
DETAIL_TYPES = {
    "ObjectCreated": "Object Created", "ObjectRemoved": "Object Deleted",
    "ObjectTagging:Put": "Object Tags Added", "ObjectTagging:Delete": "Object Tags Deleted",
    "ObjectAcl": "Object ACL Updated", "ObjectRestore:Post": "Object Restore Initiated",
    "ObjectRestore:Completed": "Object Restore Completed",
}  # fmt: skip


def notice(call: Call, bucket: Document, name: str, row: ObjectRow, reason: str) -> None:
    """Tells of an event ("ObjectCreated:Put") of an object, to whomever the bucket's notifications name.

    Takes: `reason` the operation as EventBridge's events name it ("PutObject").
    Differs: events are told of puts, copies, completed uploads, deletions, tags, ACLs and restores; S3's further kinds never happen.
    """
    settings = bucket.body.get("_settings") or {}
    wanted = settings.get("NotificationConfiguration")
    if not wanted:
        return
    if wanted.get("EventBridgeConfiguration") is not None:
        kind = DETAIL_TYPES.get(name) or DETAIL_TYPES[name.partition(":")[0]]
        _emit(call, bucket, "aws.s3", kind, _detail(call, bucket, name, row, reason), bucket.arn)
    for given, arn in destinations(wanted):
        if asks_for(given, name, row.key):
            record = _record(call, bucket, name, row, given.get("Id", ""))
            _emit(call, bucket, SOURCE, f"s3:{name}", {"Records": [record]}, arn)


def destinations(wanted: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Gives each configuration of a notification, with the ARN of its destination."""
    for member, target in TARGETS.items():
        for given in wanted.get(member) or []:
            yield given, given.get(target, "")


def asks_for(given: Mapping[str, Any], name: str, key: str) -> bool:
    """Tells whether one configuration asks for that event of that key."""
    events = given.get("Events") or []
    if f"s3:{name}" not in events and f"s3:{name.partition(':')[0]}:*" not in events:
        return False
    prefix, suffix = affixes(given)
    return key.startswith(prefix) and key.endswith(suffix)


def affixes(given: Mapping[str, Any]) -> tuple[str, str]:
    """Gives the prefix and suffix that a configuration's filter asks for."""
    rules = ((given.get("Filter") or {}).get("Key") or {}).get("FilterRules") or []
    found = {str(rule.get("Name", "")).lower(): rule.get("Value") or "" for rule in rules}
    return found.get("prefix", ""), found.get("suffix", "")


def test_message(call: Call, bucket: Document, arn: str) -> None:
    """Tells a queue or topic that it will be told: S3 does so when a configuration is put."""
    told = {
        "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": _time(call.now), "Bucket": bucket.name,
        "RequestId": call.request_id, "HostId": f"penstock/{call.request_id}",
    }  # fmt: skip
    _emit(call, bucket, SOURCE, "s3:TestEvent", told, arn)


def _emit(call: Call, bucket: Document, source: str, kind: str, detail: dict[str, Any], resource: str) -> None:
    call.emit(source, kind, detail, [resource])
    event = call.change.events[-1]
    event.account, event.region = bucket.parent, bucket.body["BucketRegion"]  # the bucket's, whoever wrote into it


def _detail(call: Call, bucket: Document, name: str, row: ObjectRow, reason: str) -> dict[str, Any]:
    known: dict[str, Any] = {"key": row.key}
    if name.startswith(("ObjectCreated", "ObjectRestore")):
        known["size"] = row.size_bytes
    if row.etag:
        known["etag"] = row.etag
    if row.version_id != "null":
        known["version-id"] = row.version_id
    if name.startswith(("ObjectCreated", "ObjectRemoved")):
        known["sequencer"] = _sequencer(call.now)
    detail: dict[str, Any] = {
        "version": "0", "bucket": {"name": bucket.name}, "object": known, "request-id": call.request_id,
        "requester": call.account,
    }  # fmt: skip
    if name.startswith(("ObjectCreated", "ObjectRemoved")):
        detail |= {"source-ip-address": "127.0.0.1", "reason": reason}
    if name.startswith("ObjectRestore"):
        detail["source-storage-class"] = row.meta.get("StorageClass", "STANDARD")
    if name == "ObjectRestore:Completed":
        detail["restore-expiry-time"] = iso8601(row.meta["_restored"])
    if name.startswith("ObjectRemoved"):
        marked = name.endswith("DeleteMarkerCreated")
        detail["deletion-type"] = "Delete Marker Created" if marked else "Permanently Deleted"
    return detail


def _record(call: Call, bucket: Document, name: str, row: ObjectRow, configuration: str) -> dict[str, Any]:
    known: dict[str, Any] = {"key": quote_plus(row.key, safe="/")}
    if name.startswith("ObjectCreated"):
        known["size"] = row.size_bytes
    if row.etag:
        known["eTag"] = row.etag
    if row.version_id != "null":
        known["versionId"] = row.version_id
    known["sequencer"] = _sequencer(call.now)
    return {
        "eventVersion": "2.1" if name.startswith("ObjectCreated") else "2.3" if "Tagging" in name or "Acl" in name else "2.1",
        "eventSource": "aws:s3", "awsRegion": bucket.body["BucketRegion"], "eventTime": _time(call.now),
        "eventName": name, "userIdentity": {"principalId": f"AWS:{call.caller.user_id or call.account}"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": call.request_id, "x-amz-id-2": f"penstock/{call.request_id}"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": configuration,
            "bucket": {"name": bucket.name, "ownerIdentity": {"principalId": bucket.parent}, "arn": bucket.arn},
            "object": known,
        },
    }  # fmt: skip


def _sequencer(moment: float) -> str:
    """A text that grows with time."""
    return f"{int(moment * 1_000_000):018X}"


def _time(moment: float) -> str:
    return iso8601(int(moment * 1000) / 1000)
