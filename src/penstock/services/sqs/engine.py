"""What queues let go of: messages whose time is over, ids that are forgotten, and what is left of emptied queues."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.sqs import rules
from penstock.services.sqs.messages.receiving import sweep
from penstock.services.sqs.messages.sending import DEDUPLICATED_S, announce
from penstock.services.sqs.state import DEDUPLICATION, MESSAGE, QUEUE, REMAINS
from penstock.store.records import Document, Query

REST_S = 600.0
SLICE = 200
"""Documents that one look deletes."""


def look(call: Call, queue: Document) -> float | None:
    """Deletes some of the messages that were kept for long enough, and lets dead ones go: nobody could receive them any more."""
    kept_s = rules.number(queue.body["Attributes"], "MessageRetentionPeriod")
    parent = queue.body["_messages"]
    gone = _old(call, queue, MESSAGE, parent, call.now - kept_s) + _old(call, queue, DEDUPLICATION, parent, call.now - DEDUPLICATED_S)
    swept = sweep(call, queue)
    if swept:
        announce(call, queue, call.now)  # what stood behind them can be received
    return 0.0 if swept or gone >= SLICE else REST_S


def empty(call: Call, remains: Document) -> float | None:
    """Deletes some of what was in a queue that was deleted or emptied; itself at last."""
    for kind in (MESSAGE, DEDUPLICATION):
        if _old(call, remains, kind, remains.name, None):
            return 0.0
    call.delete(remains)
    return None


def _old(call: Call, near: Document, kind: str, parent: str, before: float | None) -> int:
    query = Query(
        kind=kind, account=near.account, region=near.region, parent=parent, created_before=before, limit=SLICE, bodies=False
    )  # fmt: skip
    found = call.app.store.page(query)
    for document in found:
        call.delete(document)
    return len(found)


STEPS = {QUEUE.kind: look, REMAINS: empty}
