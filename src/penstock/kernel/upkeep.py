"""Upkeep: one document, looked at once an hour, that lets go of what nobody is told any more.

    events    the outbox, after `keep_events_days`
    points    metric points, after `keep_points_days`
    logs      streams of groups with a retention, and all of them after `keep_logs_days` where that is set

A look deletes a slice, so that it never holds the writer; it looks again soon while there is more.
"""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.store.base import Store
from penstock.store.records import GLOBAL, Change, Document, OldGone, Ref, Wake

UPKEEP = Ref("kernel.upkeep", GLOBAL, GLOBAL, "upkeep")
REST_S = 3600.0
SOON_S = 0.2
SLICE = 2000
"""Rows that one look deletes of each."""
DAY_S = 86400.0


def begin(store: Store, now: float) -> None:
    """At the engine's start: makes the document where there is none, and has it looked at."""
    puts = [] if store.get(UPKEEP) else [Document(**UPKEEP._asdict(), created=now)]
    store.commit(Change(puts=puts, wakes=[Wake(**UPKEEP._asdict(), due=now + 60.0)]))


def look(call: Call, upkeep: Document) -> float | None:
    """Deletes a slice of what is too old; the log streams only when nothing else is left."""
    settings, more = call.app.settings, False
    for what, days in (("events", settings.keep_events_days), ("points", settings.keep_points_days)):
        before = call.now - days * DAY_S
        oldest = call.app.store.oldest(what)
        if days and oldest is not None and oldest < before:
            call.row(OldGone(what=what, before=before, limit=SLICE))
            more = True
    if more:
        return SOON_S
    call.take_time()
    call.app.logs.drop_old(call.now, settings.keep_logs_days)
    return REST_S


STEPS = {UPKEEP.kind: look}
