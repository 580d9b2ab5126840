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
    _gathered    the records of the batch that waits for more, and since when: {"since", "records"}
    _running     the batches that the function has: {invocation: [[message id, receipt handle], ...]}
    _batches     how many there were
"""
