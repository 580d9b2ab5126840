"""Deleting objects: one, or up to a thousand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.kernel.notices import notice
from penstock.services.s3 import locks, rules, state
from penstock.store.records import Document, ObjectDelete, ObjectPut, ObjectRow, Seen

MAX_KEYS = 1000


def delete_object(call: Call) -> dict[str, Any]:
    """Deletes an object; one that is not there is no error. In a bucket with versions it is hidden by a delete marker.

    Raises: ServiceError InvalidArgument; PreconditionFailed, when IfMatch, IfMatchSize or IfMatchLastModifiedTime does not hold.
    """
    params = call.params
    bucket = state.writable_bucket(call)
    locks.check_bypass(call)
    given = {
        "Key": params["Key"], "VersionId": params.get("VersionId"), "ETag": params.get("IfMatch"),
        "Size": params.get("IfMatchSize"), "LastModifiedTime": params.get("IfMatchLastModifiedTime"),
    }  # fmt: skip
    return _delete(call, bucket, given)


@slow
def delete_objects(call: Call) -> dict[str, Any]:
    """Deletes up to a thousand objects; a failure is told for each, and `Quiet` tells failures only.

    Raises: ServiceError MalformedXML, InvalidArgument.
    """
    bucket = state.writable_bucket(call)
    locks.check_bypass(call)
    wanted = call.params["Delete"].get("Objects") or []
    if not 1 <= len(wanted) <= MAX_KEYS:
        sentence = "The XML you provided was not well-formed or did not validate against our published schema"
        raise ServiceError("MalformedXML", sentence)
    deleted, errors = [], []
    for given in wanted:
        try:
            result = _delete(call, bucket, given)
        except ServiceError as fault:
            named = {name: given[name] for name in ("Key", "VersionId") if given.get(name)}
            errors.append({**named, "Code": fault.code, "Message": fault.message})
        else:
            deleted.append(_told(given, result))
    shown: dict[str, Any] = {"Errors": errors} if errors else {}
    if not call.params["Delete"].get("Quiet"):
        shown["Deleted"] = deleted
    return shown


def _told(given: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"Key": given["Key"]}
    if given.get("VersionId"):
        told["VersionId"] = given["VersionId"]
    if result.get("DeleteMarker"):
        told |= {"DeleteMarker": True, "DeleteMarkerVersionId": result["VersionId"]}
    return told


def _delete(call: Call, bucket: Document, given: Mapping[str, Any]) -> dict[str, Any]:
    key, version_id = given["Key"], given.get("VersionId")
    rules.check_key(key)
    seen = _check_conditions(call, bucket, given)
    if version_id:
        rules.check_version_id(version_id)
        row = call.app.store.object(bucket.name, key, version_id)
        call.row(ObjectDelete(bucket=bucket.name, key=key, version_id=version_id, seen=seen))
        if row is not None:
            notice(call, bucket, "ObjectRemoved:Delete", row, call.operation)
        marker = {"DeleteMarker": True} if row is not None and row.marker else {}
        return {"VersionId": version_id, **marker}
    if not state.versioning(bucket):
        call.row(ObjectDelete(bucket=bucket.name, key=key, seen=seen))
        if (bucket.body.get("_settings") or {}).get("NotificationConfiguration"):
            row = call.app.store.object(bucket.name, key)
            if row is not None:
                notice(call, bucket, "ObjectRemoved:Delete", row, call.operation)
        return {}
    new = state.new_version_id(bucket)
    marker_row = ObjectRow(bucket=bucket.name, key=key, version_id=new, modified=call.now, marker=True)
    call.row(ObjectPut(row=marker_row, seen=seen))
    notice(call, bucket, "ObjectRemoved:DeleteMarkerCreated", marker_row, call.operation)
    return {"VersionId": new, "DeleteMarker": True}


def _check_conditions(call: Call, bucket: Document, given: Mapping[str, Any]) -> Seen | None:
    """What the conditions were held against, and what must be there still when the deletion is written: else it runs again."""
    if all(given.get(name) is None for name in ("ETag", "Size", "LastModifiedTime")):
        return None
    row = call.app.store.object(bucket.name, given["Key"], given.get("VersionId"))
    if row is None or row.marker or _goes(call, given["Key"], given.get("VersionId") or None):
        raise state.no_such_key(given["Key"])
    if given.get("ETag") is not None and not rules.matches(given["ETag"], row.etag):
        raise rules.unmet("If-Match")
    if given.get("Size") is not None and given["Size"] != row.size_bytes:
        raise rules.unmet("x-amz-if-match-size")
    moment = given.get("LastModifiedTime")
    if moment is not None and state.seconds(moment) != state.seconds(row.modified):
        raise rules.unmet("x-amz-if-match-last-modified-time")
    return Seen.of(row)


def _goes(call: Call, key: str, version_id: str | None) -> bool:
    """Whether this request deletes it already: the same key twice among many."""
    rows = [row.row if isinstance(row, ObjectPut) else row for row in call.change.rows]
    return any(
        isinstance(row, (ObjectDelete, ObjectRow)) and row.key == key and version_id in (None, row.version_id)
        for row in rows
    )
