"""The records of a mapping's batches, kept beside it: a document for each ten that were received, until their batch is finished.

So what a look writes is as large as what came, however many messages a batch has by then.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.kernel.call import Call
from penstock.store.records import Document, Query

KIND = "lambda.source-records"
"""Its parent is the mapping, its label the batch. Its body: `receipts`, [[message id, receipt handle], ...], and `texts`, their
records as JSON."""
MOST = 10_000
SLICE = 10
"""Documents that a look at a mapping deletes: those of a hundred messages."""
PAYLOAD = '{{"Records": [{}]}}'
BETWEEN = ", "


def text_of(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def weigh(texts: list[str]) -> int:
    """How many bytes records have, with what stands between them."""
    return sum(len(text.encode()) + len(BETWEEN) for text in texts)


def keep(call: Call, mapping: Document, batch: int, number: int, records: list[dict[str, Any]], texts: list[str]) -> None:
    """Writes records of a batch."""
    receipts = [[record["messageId"], record["receiptHandle"]] for record in records]
    call.put(
        Document(
            kind=KIND, account=mapping.account, region=mapping.region, name=f"{mapping.name}/{batch}/{number:05d}",
            parent=mapping.name, label=str(batch), created=call.now, body={"receipts": receipts, "texts": texts},
        )
    )  # fmt: skip


def kept(call: Call, mapping: Document, batch: int | None = None, limit: int = MOST, bodies: bool = True) -> list[Document]:
    """What is kept of a batch, or of all, in the order in which it came; not what this very change puts or deletes."""
    query = Query(
        kind=KIND, account=mapping.account, region=mapping.region, parent=mapping.name, order="name", limit=limit, bodies=bodies,
        label=None if batch is None else str(batch),
    )  # fmt: skip
    return [piece for piece in call.app.store.page(query) if not call.was_deleted(piece.ref)]


def drop(call: Call, mapping: Document, batch: int | None = None) -> bool:
    """Forgets some of what is kept of a batch, or of all; gives whether there was any."""
    found = kept(call, mapping, batch, limit=SLICE, bodies=False)
    for piece in found:
        call.delete(piece)
    return bool(found)
