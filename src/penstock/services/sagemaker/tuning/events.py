"""The events of tuning jobs."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.sagemaker import telling
from penstock.store.records import Document


def tell(call: Call, document: Document) -> None:
    """Tells of a change of status: an event, and a look of the execution whose step this is."""
    name = "SageMaker HyperParameter Tuning Job State Change"
    call.emit("aws.sagemaker", name, telling.event_detail(document), [document.arn])
    telling.wake_maker(call, document)
