"""Operations on tasks that move messages."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.services.sqs import rules
from penstock.services.sqs.moves.state import MISSING, TASK, tasks_of
from penstock.services.sqs.state import QUEUE, feeds, is_fifo, messages_of
from penstock.store.records import Document

FASTEST = 500
SHOWN_MOST = 10
"""So many tasks of a queue are kept, the newest."""


@slow
def start_message_move_task(call: Call) -> dict[str, Any]:
    """Begins to move the messages of a dead-letter queue: to another queue, or each to the one that it came from.

    Raises: ServiceError ResourceNotFoundException for a queue that is not there; InvalidParameterValue for a source that is nobody's
        dead-letter queue, or has a task that runs.
    Differs: a task moves what is in the queue when it begins, and comes by each message once: one that is in flight then stays.
    Source: the sentences are AWS's, as recorded by LocalStack's tests of move tasks, but for those of a rate and of a queue's kind.
    """
    given = call.params
    source, rate = _queue(call, "SourceArn"), given.get("MaxNumberOfMessagesPerSecond")
    if rate is not None and not 1 <= rate <= FASTEST:
        told = f"Value {rate} for parameter MaxNumberOfMessagesPerSecond is invalid. Reason: Must be between 1 and {FASTEST}, if provided."
        raise rules.unfit_value(told)
    if not any(feeds(queue, source.arn) for queue in QUEUE.all(call, limit=100_000)):
        raise rules.unfit_value("Source queue must be configured as a Dead Letter Queue.")
    if "DestinationArn" in given and is_fifo(_queue(call, "DestinationArn")) != is_fifo(source):
        raise rules.unfit_value("Source queue and destination queue must be of the same type, both standard or both FIFO.")
    before = tasks_of(call, source)
    if before and before[0].status in ("RUNNING", "CANCELLING"):
        raise rules.unfit_value(
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
        )
    for old in before[SHOWN_MOST - 1 :]:
        call.delete(old)
    call.put(source)  # of two that begin at once, one finds the other's
    shown = {name: given[name] for name in ("SourceArn", "DestinationArn", "MaxNumberOfMessagesPerSecond") if name in given}
    task = TASK.create(call, ids.request_id(), body=shown | _extent(call, source), status="RUNNING", parent=source.arn)
    call.wake(task.ref)
    return {"TaskHandle": _handle(task)}


def list_message_move_tasks(call: Call) -> dict[str, Any]:
    """Lists the last tasks of a queue, the newest first."""
    source, most = _queue(call, "SourceArn"), call.params.get("MaxResults", 1)
    if not 1 <= most <= SHOWN_MOST:
        raise rules.unfit_value(f"Value {most} for parameter MaxResults is invalid. Reason: Must be an integer from 1 to {SHOWN_MOST}.")
    return {"Results": [_show(task) for task in tasks_of(call, source, most)]}


def cancel_message_move_task(call: Call) -> dict[str, Any]:
    """Ends a task that runs; what it has moved stays where it is.

    Differs: AWS's sentence for a task that does not run is not known.
    """
    task_id, source_arn = _read_handle(call.params["TaskHandle"])
    _queue(call, "SourceArn", source_arn)
    task = TASK.get(call, task_id)
    if task.parent != source_arn:
        raise TASK.error(TASK.missing, call, task_id)
    if task.status != "RUNNING":
        raise ServiceError("UnsupportedOperation", f"A task can be cancelled while it is RUNNING; this one is {task.status}.")
    TASK.move(call, task, "CANCELLING")
    call.wake(task.ref)
    return {"ApproximateNumberOfMessagesMoved": task.body["ApproximateNumberOfMessagesMoved"]}


def _queue(call: Call, member: str, arn: str | None = None) -> Document:
    """The queue of an ARN.

    Raises: ServiceError ResourceNotFoundException.
    """
    named = call.params[member] if arn is None else arn
    queue = QUEUE.find(call, named) if named.startswith("arn:") else None
    if queue is None:
        raise ServiceError(MISSING, f"The resource that you specified for the {member} parameter doesn't exist.", 404)
    return queue


def _extent(call: Call, source: Document) -> dict[str, Any]:
    """What a new task has to move."""
    past = math.nextafter(call.now, math.inf)
    last = call.app.store.page(messages_of(source, order="name", descending=True, limit=1, bodies=False))
    return {
        "ApproximateNumberOfMessagesMoved": 0,
        "ApproximateNumberOfMessagesToMove": call.app.store.count(messages_of(source, rank_before=past)),
        "StartedTimestamp": int(call.now * 1000),
        "_until": last[0].name if last else "",
        "_after": "",
    }


def _show(task: Document) -> dict[str, Any]:
    return TASK.describe(task) | ({"TaskHandle": _handle(task)} if task.status == "RUNNING" else {})


# --- handles
def _handle(task: Document) -> str:
    return base64.b64encode(json.dumps({"taskId": task.name, "sourceArn": task.parent}).encode()).decode()


def _read_handle(handle: str) -> tuple[str, str]:
    """The task and the ARN of its queue.

    Raises: ServiceError InvalidParameterValue for what is no handle.
    """
    try:
        read = json.loads(base64.b64decode(handle, validate=True))
        task, arn = read["taskId"], read["sourceArn"]
    except (binascii.Error, ValueError, TypeError, KeyError):
        task = arn = None
    if not isinstance(task, str) or not isinstance(arn, str):
        raise rules.unfit_value("Value for parameter TaskHandle is invalid.")
    return task, arn
