"""The operations on event source mappings."""

from __future__ import annotations

from typing import Any

from penstock.kernel import ids, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, unserved
from penstock.services.lambda_.sources.state import SOURCE
from penstock.services.lambda_.state import CONFLICT, FUNCTION, configuration_of, read_name, refused
from penstock.store.records import Document, TagsGone, TagsPut

BATCH = 10
LARGEST = 10_000
GIVEN = ("BatchSize", "MaximumBatchingWindowInSeconds", "FunctionResponseTypes", "ScalingConfig")
QUEUE_GONE = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified "
    "queue does not exist"
)
TAKEN = (
    'An event source mapping with SQS arn (" {arn} ") and function (" {function} ") already exists. Please update or delete the existing '
    "mapping with UUID {uuid}"
)


def create_event_source_mapping(call: Call) -> dict[str, Any]:
    """Has a function invoked with the messages of a queue.

    Raises: ServiceError; with 501 for sources that are no queues, and for filters.
    Differs: five batches are with the function at a time where ScalingConfig says nothing; AWS begins with five and takes more.
    """
    given = call.params
    arn = given.get("EventSourceArn") or ""
    if not arn and not given.get("SelfManagedEventSource"):
        raise refused("Unrecognized event source.")
    if arn.split(":")[2:3] != ["sqs"] or (given.get("FilterCriteria") or {}).get("Filters"):
        raise unserved("lambda", "CreateEventSourceMapping of this kind")
    if call.find(FUNCTION.ref(call, read_name(call, given["FunctionName"]).name)) is None:
        raise refused("Function does not exist")
    queue = queues.find(call, arn)
    if queue is None:
        raise refused(QUEUE_GONE)
    function = _function(call, queue, given["FunctionName"])
    for known in SOURCE.all(call, arn):
        if known.body["FunctionArn"] == function:
            told = TAKEN.format(arn=arn, function=given["FunctionName"], uuid=known.name)
            raise ServiceError(CONFLICT, told, 409, Type="User")
    body = {"BatchSize": BATCH, "MaximumBatchingWindowInSeconds": 0, **{name: given[name] for name in GIVEN if name in given}}
    _check_batches(queue, body)
    own = {"_enabled": given.get("Enabled", True), "_running": {}, "_batches": 0}
    shown = {"EventSourceArn": arn, "FunctionArn": function, "StateTransitionReason": "USER_INITIATED"}
    untagged = {name: value for name, value in given.items() if name != "Tags"}  # Lambda's tags are a map
    call.params = untagged
    made = SOURCE.create(call, ids.request_id(), body=body | shown | own, status="Creating", parent=arn)
    if tags := given.get("Tags"):
        call.row(TagsPut(arn=made.arn, tags=tags))
    queues.watch(call, arn, made.ref)
    call.wake(made.ref)
    return SOURCE.describe(made)


def get_event_source_mapping(call: Call) -> dict[str, Any]:
    return SOURCE.describe(SOURCE.get(call))


def list_event_source_mappings(call: Call) -> dict[str, Any]:
    """Lists mappings, of a queue or a function where one is named."""
    named = call.params.get("FunctionName")
    function = read_name(call, named).arn(call) if named else None
    return SOURCE.page(
        call, "EventSourceMappings", descending=False, parent=call.params.get("EventSourceArn"),
        keep=lambda mapping: function in (None, mapping.body["FunctionArn"]),
    )  # fmt: skip


def update_event_source_mapping(call: Call) -> dict[str, Any]:
    """Changes a mapping; what its function has already goes on."""
    given, mapping = call.params, _still(call)
    if (given.get("FilterCriteria") or {}).get("Filters"):
        raise unserved("lambda", "UpdateEventSourceMapping with filters")
    queue = queues.find(call, mapping.parent)
    changed = {name: given[name] for name in GIVEN if name in given}
    if queue is not None:
        _check_batches(queue, mapping.body | changed)
    if "FunctionName" in given and queue is not None:
        changed["FunctionArn"] = _function(call, queue, given["FunctionName"])
    status = "Updating"
    if "Enabled" in given and given["Enabled"] != mapping.body["_enabled"]:
        changed["_enabled"], status = given["Enabled"], "Enabling" if given["Enabled"] else "Disabling"
    if mapping.status in ("Enabled", "Disabled"):
        SOURCE.move(call, mapping, status, **changed)
    else:
        SOURCE.save(call, mapping, **changed)
    call.wake(mapping.ref)
    return SOURCE.describe(mapping)


def delete_event_source_mapping(call: Call) -> dict[str, Any]:
    """Ends a mapping: it takes no more messages, and goes when its function has finished those that it has."""
    mapping = _still(call)
    SOURCE.move(call, mapping, "Deleting")
    queues.unwatch(call, mapping.ref)
    call.row(TagsGone(arn=mapping.arn))
    call.wake(mapping.ref)
    return SOURCE.describe(mapping)


def _still(call: Call) -> Document:
    """The mapping, unless it is being deleted."""
    mapping = SOURCE.get(call)
    if mapping.status == "Deleting":
        raise ServiceError(
            "ResourceInUseException", "Cannot update the event source mapping because it is in use.", 400, Type="User"
        )
    return mapping


def _function(call: Call, queue: Document, given: str) -> str:
    """The function's ARN, with the qualifier that was given.

    Raises: ServiceError where it is not there, or may run for longer than the queue hides a message.
    """
    wanted = read_name(call, given)
    _, configuration = configuration_of(call, wanted)
    hidden_s, runs_s = int(queue.body["Attributes"].get("VisibilityTimeout", 30)), int(configuration.body.get("Timeout", 3))
    if hidden_s < runs_s:
        raise refused(f"Queue visibility timeout: {hidden_s} seconds is less than Function timeout: {runs_s} seconds")
    return wanted.arn(call)


def _check_batches(queue: Document, body: dict[str, Any]) -> None:
    size, window_s = body["BatchSize"], body["MaximumBatchingWindowInSeconds"]
    fifo = queue.name.endswith(".fifo")
    if size > (BATCH if fifo else LARGEST):
        raise refused(f"Unsupported batch size {size} for this queue: it can be at most {BATCH if fifo else LARGEST}.")
    if fifo and window_s:
        raise refused("Batching window is not supported for FIFO queues.")
    if size > BATCH and not window_s:
        raise refused("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
