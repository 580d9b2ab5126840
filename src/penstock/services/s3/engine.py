"""The collector: one document, looked at again and again, that gives unused blobs and forgotten uploads back."""

from __future__ import annotations

import time
from typing import Any

from penstock.kernel.call import Call
from penstock.services.s3 import settings, state
from penstock.store.records import GLOBAL, Document, Query, UploadGone

WAIT_S = 3600.0
"""How long a blob must have been untouched before it can go, and how often the collector comes round."""
SLICE_S = 0.03
"""How long one look may work; then the next slice waits for its own."""
UPLOAD_S = 7 * 86400.0
"""How old an upload may become."""
SLICES = 256
UPLOADS = 100
"""So many uploads one look goes through."""


def collect(call: Call, collector: Document) -> float | None:
    """Collects a few of the blob folder's 256 slices; after the last one, drops old uploads, a page a look, and rests."""
    number = int(collector.body.get("Next", 0))
    until = time.monotonic() + SLICE_S
    while number < SLICES:
        call.app.blobs.collect(call.now - WAIT_S, call.app.store.blob_used, prefix=f"{number:02x}")
        number += 1
        if time.monotonic() > until:
            break
    after = _drop_uploads(call, collector.body.get("After")) if number >= SLICES else None
    done = number >= SLICES and after is None
    left = {} if done else {"Next": number, "After": after} if after else {"Next": number}
    if collector.body != left:
        collector.body = left
        call.put(collector)
    return WAIT_S if done else 0.05


def _drop_uploads(call: Call, after: list[Any] | None) -> list[Any] | None:
    """Aborts uploads that nobody will complete: older than a week, or than their bucket's lifecycle rule says.

    Gives where the next look goes on; None behind the last one.
    """
    query = Query(kind=state.UPLOAD, account=GLOBAL, region=GLOBAL, limit=UPLOADS)
    query.after = (after[0], after[1]) if after else None
    found = call.app.store.page(query)
    for upload in found:
        if upload.created + _patience_s(call, upload) <= call.now:
            call.delete(upload)
            call.row(UploadGone(upload_id=upload.name))
    return [found[-1].created, found[-1].name] if len(found) == UPLOADS else None


def _patience_s(call: Call, upload: Document) -> float:
    bucket = call.app.store.get(state.ref_of(upload.parent))
    lifecycle: dict[str, Any] = (settings.LIFECYCLE.value(bucket) if bucket else None) or {}
    days: list[float] = [
        rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 7)
        for rule in lifecycle.get("Rules") or []
        if rule.get("Status") == "Enabled" and rule.get("AbortIncompleteMultipartUpload")
        and upload.label.startswith(rule.get("Prefix") or (rule.get("Filter") or {}).get("Prefix") or "")
    ]  # fmt: skip
    return min([UPLOAD_S, *(86400.0 * each for each in days)])


STEPS = {state.COLLECTOR.kind: collect}
