"""Applies a change inside an open transaction: the one place where a write becomes rows."""

from __future__ import annotations

from penstock.store import documents, objects, series, work
from penstock.store.records import (
    BucketEmpty,
    Change,
    ObjectDelete,
    ObjectMeta,
    ObjectPut,
    OldGone,
    Points,
    Row,
    TagsGone,
    TagsPut,
    Token,
    UploadGone,
    UploadPart,
)
from penstock.store.statements import Run

SEEN_PUT = "INSERT INTO recent_changes (id, at) VALUES (:id, :at) ON CONFLICT DO NOTHING"
SEEN_GONE = "DELETE FROM recent_changes WHERE at < :before"


def apply(run: Run, change: Change, now: float) -> None:
    """Writes all of a change: deletes first, so that a name can be given anew in the same change.

    Raises: Stale, Taken, Unmet; what was written until then is the caller's to roll back.
    """
    for seen in change.reads:
        documents.check(run, seen)
    for gone in change.deletes:
        documents.delete(run, gone)
    for given in change.puts:
        documents.put(run, given)
    for row in change.rows:
        _apply_row(run, row, now)
    for wake in change.wakes:
        work.put(run, wake)
    for event in change.events:
        series.put_event(run, event)


def apply_once(run: Run, change: Change, now: float, change_id: str) -> None:
    """Writes a change, unless one of this id was written before: then it was sent again after a lost answer."""
    if run(SEEN_PUT, {"id": change_id, "at": now}).rowcount:
        apply(run, change, now)


def forget(run: Run, before: float) -> None:
    """Lets go of the ids of changes that nobody sends again any more."""
    run(SEEN_GONE, {"before": before})


def _apply_row(run: Run, row: Row, now: float) -> None:
    match row:
        case ObjectPut():
            objects.put(run, row)
        case ObjectDelete():
            objects.delete(run, row)
        case ObjectMeta():
            objects.set_meta(run, row)
        case BucketEmpty():
            objects.check_empty(run, row)
        case UploadPart():
            objects.put_part(run, row)
        case UploadGone():
            objects.drop_parts(run, row)
        case Points():
            series.put_points(run, row)
        case OldGone():
            series.drop_old(run, row)
        case TagsPut():
            documents.put_tags(run, row)
        case TagsGone():
            documents.drop_tags(run, row)
        case Token():
            documents.put_token(run, row, now)


def count_up(change: Change) -> None:
    """Tells the caller's records of the versions they have now that the change is durable."""
    for given in change.puts:
        given.version += 1
