"""Queues as other services see them: how a document is woken when messages come. Sending, receiving and deleting are SQS's operations.

    watch      the document is woken whenever there may be something to receive
    unwatch    not any more
    give_back  messages that were received in this very change are as if they were not
    due        when the next of the messages that are there can be received
"""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.store.records import Document, Query, Ref

QUEUE = "sqs.queue"
MESSAGE = "sqs.message"
WATCH = "sqs.watch"
"""A document that is woken when messages come: its parent is the queue's ARN, its body's `wakes` the document's Ref."""
PAGE = 1000


def watch(call: Call, queue_arn: str, watcher: Ref) -> None:
    call.put(
        Document(
            kind=WATCH, account=watcher.account, region=watcher.region, name=watcher.name, parent=queue_arn,
            created=call.now, body={"wakes": list(watcher)},
        )
    )  # fmt: skip


def unwatch(call: Call, watcher: Ref) -> None:
    found = call.find(Ref(WATCH, watcher.account, watcher.region, watcher.name))
    if found is not None:
        call.delete(found)


def watchers(call: Call, queue: Document) -> list[Ref]:
    """Who is woken when messages come into a queue."""
    query = Query(kind=WATCH, account=queue.account, region=queue.region, parent=queue.arn, limit=PAGE)
    found = page = call.app.store.page(query)
    while len(page) == PAGE:
        query.after = (page[-1].created, page[-1].name)
        page = call.app.store.page(query)
        found += page
    return [Ref(*watch.body["wakes"]) for watch in found]


def give_back(call: Call, ids: set[str]) -> None:
    """Messages that this very change receives are as if nobody had received them, not even counted."""
    call.change.puts = [put for put in call.change.puts if put.kind != MESSAGE or put.body["id"] not in ids]


def due(call: Call, queue: Document) -> float | None:
    """When the next message can be received, of those that are there and cannot be now."""
    query = Query(
        kind=MESSAGE, account=queue.account, region=queue.region, parent=queue.body["_messages"], order="rank", limit=1,
        rank_after=call.now,
    )  # fmt: skip
    first = call.app.store.page(query)
    return first[0].rank if first else None


def find(call: Call, arn: str) -> Document | None:
    """The queue of an ARN, of the call's account and region."""
    _, _, service, region, account, name = (arn.split(":", 5) + [""] * 6)[:6]
    if (service, region, account) != ("sqs", call.region, call.account):
        return None
    return call.find(Ref(QUEUE, account, region, name))
