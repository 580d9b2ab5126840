"""The noun: a task that moves messages."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.kernel.resource import Resource
from penstock.store.records import Document, Query

MISSING = "ResourceNotFoundException"
TASK = Resource(
    "sqs.move-task",
    key="_id",
    path="{name}",
    arn="_arn",
    status="Status",
    moves={"RUNNING": {"COMPLETED", "CANCELLING", "FAILED"}, "CANCELLING": {"CANCELLED"}},
    missing=(MISSING, "Task does not exist.", 404),
    created="_started",
    updated="",
)
"""Its parent is the ARN of the queue whose messages it moves. Its body's own members:

    _until   the name of the last message that was there when it began
    _after   the name of the last message that it came by
"""


def tasks_of(call: Call, source: Document, most: int = 100) -> list[Document]:
    """A queue's tasks, the newest first."""
    query = Query(
        kind=TASK.kind, account=source.account, region=source.region, parent=source.arn, descending=True, limit=most
    )  # fmt: skip
    return call.app.store.page(query)
