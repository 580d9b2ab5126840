"""The noun: a mapping from a queue to a function."""

from __future__ import annotations

from penstock.kernel.resource import Resource
from penstock.services.lambda_.state import NOT_FOUND, PAGES

SOURCE = Resource(
    "lambda.event-source",
    key="UUID",
    path="event-source-mapping:{name}",
    arn="EventSourceMappingArn",
    status="State",
    moves={
        "Creating": {"Enabled", "Disabled", "Deleting"},
        "Enabling": {"Enabled", "Disabling", "Deleting"},
        "Enabled": {"Disabling", "Updating", "Deleting"},
        "Disabling": {"Disabled", "Enabling", "Deleting"},
        "Disabled": {"Enabling", "Updating", "Deleting"},
        "Updating": {"Enabled", "Disabled", "Deleting"},
    },
    missing=(NOT_FOUND, "The resource you requested does not exist.", 404),
    created="_created",
    updated="LastModified",
    paging=PAGES,
)
"""Its parent is the queue's ARN. Its body's own members:

    _enabled     whether it is to take messages
    _gathered    what there is of the batch that waits for more: {"since", "count", "bytes", "pieces"}; its records are in `batches`
    _running     the batches that the function has or has finished: {invocation: number of the batch}
    _ending      those of them that it has finished, while their messages are deleted: {invocation: {"delete", "failed", "told"}}
    _batches     how many there were
"""
