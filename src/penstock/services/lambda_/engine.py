"""The engine's looks at functions: the environment of a function's runtime is made ready before it is Active."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.runs.base import ImageError, Images
from penstock.services.lambda_ import rules
from penstock.services.lambda_.state import FUNCTION
from penstock.store.records import Document

IMAGE_LOOK_S = 0.1


def ready(call: Call, function: Document) -> float | None:
    """Ends a function's creation, or its update, when its runtime can be had."""
    if function.status != "Pending" and function.body["LastUpdateStatus"] != "InProgress":
        return None
    images: Images = call.app.images
    uri, lacking = rules.image_of(function.body["Runtime"]), ""
    try:
        if images.look(uri) is None:
            return IMAGE_LOOK_S
        lacking = images.lacks(uri)
    except ImageError as fault:
        lacking = str(fault)
    end(call, function, lacking)
    return None


def end(call: Call, function: Document, fault: str) -> None:
    """Shows that a function is ready, or why it cannot be."""
    why, code = (fault, "InvalidRuntime") if fault else (None, None)
    if function.status == "Pending":
        FUNCTION.move(call, function, "Failed" if fault else "Active", StateReason=why, StateReasonCode=code)
    else:
        FUNCTION.save(
            call, function, LastUpdateStatus="Failed" if fault else "Successful", LastUpdateStatusReason=why,
            LastUpdateStatusReasonCode=code,
        )  # fmt: skip


def give_up(call: Call, function: Document) -> None:
    end(call, function, "We encountered an internal error. Please try again.")


STEPS = {FUNCTION.kind: ready}
GIVE_UP = {FUNCTION.kind: give_up}
