"""Archived objects: what lies in a cold storage class is read after RestoreObject only.

Source: docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.notices import notice
from penstock.services.s3 import state
from penstock.store.records import ObjectRow

COLD = frozenset(("GLACIER", "DEEP_ARCHIVE"))
DAY_S = 86_400


def restore_object(call: Call) -> dict[str, Any]:
    """Makes an archived object readable for some days; again, for another while from now.

    Raises: ServiceError NoSuchKey, InvalidObjectState, MalformedXML; with 501 for a SELECT.
    Differs: the object can be read at once; AWS takes minutes to days.
    """
    bucket = state.writable_bucket(call)
    row = state.find_row(call, bucket)
    given = call.params.get("RestoreRequest") or {}
    if given.get("Type") or given.get("SelectParameters"):
        raise ServiceError("NotImplemented", state.UNIMPLEMENTED, 501)
    if _class_of(row) not in COLD:
        raise ServiceError("InvalidObjectState", "Restore is not allowed for the object's current storage class", 403)
    if int(given.get("Days") or 0) < 1:
        raise ServiceError("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
    again = _is_restored(call, row)
    ends = (call.now // DAY_S + 1 + int(given["Days"])) * DAY_S
    meta = {**row.meta, "_restored": ends}
    call.row(state.said_anew(row, meta))
    row.meta = meta
    for what in ("Post", "Completed"):
        notice(call, bucket, f"ObjectRestore:{what}", row, "RestoreObject")
    return {"_status": 200 if again else 202}


def check_read(call: Call, row: ObjectRow) -> None:
    """Raises: ServiceError InvalidObjectState for the bytes of an archived object."""
    if _is_away(call, row):
        told = "The operation is not valid for the object's storage class"
        raise ServiceError("InvalidObjectState", told, 403, StorageClass=_class_of(row))


def check_copy(call: Call, row: ObjectRow) -> None:
    """Raises: ServiceError ObjectNotInActiveTierError for a copy of an archived object."""
    if _is_away(call, row):
        told = "The source object of the COPY action is not in the active tier and is only stored in Amazon S3 Glacier."
        raise ServiceError("ObjectNotInActiveTierError", told, 403)


def shown(call: Call, row: ObjectRow) -> dict[str, str]:
    """What HeadObject tells of a restored object."""
    if not _is_restored(call, row):
        return {}
    return {"Restore": f'ongoing-request="false", expiry-date="{formatdate(row.meta["_restored"], usegmt=True)}"'}


def _class_of(row: ObjectRow) -> str:
    return str(row.meta.get("StorageClass", "STANDARD"))


def _is_away(call: Call, row: ObjectRow) -> bool:
    return _class_of(row) in COLD and not _is_restored(call, row)


def _is_restored(call: Call, row: ObjectRow) -> bool:
    return bool(row.meta.get("_restored", 0.0) > call.now)
