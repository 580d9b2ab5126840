"""The images of deleted repositories are taken from this machine after the deletion is durable."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.ecr.state import REMOVAL
from penstock.store.records import Document


def remove(call: Call, removal: Document) -> float | None:
    """Removes the images that a deleted repository held; one that was built anew since then stays."""
    call.take_time()
    images = call.app.images
    if images is not None:
        there = {one.uri: one.digest for one in images.held()}
        for uri, digest in removal.body["Images"]:
            if there.get(uri) == digest:
                images.remove(uri)
    call.delete(removal)
    return None


STEPS = {REMOVAL: remove}
