"""The deletion of keys, when their owners have waited long enough."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.kms.state import ALIAS, GRANT, KEY
from penstock.store.records import Document

BATCH = 100


def step(call: Call, key: Document) -> float | None:
    """Deletes a key whose day has come: some of its aliases and grants at a time, the key last."""
    if key.status != "PendingDeletion":
        return None
    left = float(key.body["DeletionDate"]) - call.now
    if left > 0:
        return left
    hanging = [*ALIAS.all(call, key.name, BATCH), *GRANT.all(call, key.name, BATCH)]
    for one in hanging:
        call.delete(one)
    if hanging:
        return 0.0
    KEY.delete(call, key.name)
    return None


STEPS = {"kms.key": step}
