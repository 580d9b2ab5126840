"""The durable wake-ups, as SQL text: one row a document; the states are written down beside the table.

A wake that comes while its document's step is running is noted in `moved`: the step runs again, never twice at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.store.documents import REF, values
from penstock.store.records import Stale, Wake
from penstock.store.statements import Run

PUT = """
INSERT INTO work (kind, account, region, name, due) VALUES (:kind, :account, :region, :name, :due)
ON CONFLICT (kind, account, region, name) DO UPDATE SET
    due = CASE WHEN work.leased = 0 AND excluded.due < work.due THEN excluded.due ELSE work.due END,
    moved = CASE WHEN work.leased = 0 THEN NULL
                 WHEN work.moved IS NULL OR excluded.due < work.moved THEN excluded.due
                 ELSE work.moved END"""
CLAIM = """
UPDATE work SET leased = :until, tries = tries + 1
WHERE (kind, account, region, name) IN (
    SELECT kind, account, region, name FROM (
        SELECT * FROM (SELECT kind, account, region, name, due FROM work
                       WHERE leased = 0 AND due <= :now ORDER BY due LIMIT :limit) AS waiting
        UNION ALL
        SELECT * FROM (SELECT kind, account, region, name, due FROM work
                       WHERE leased > 0 AND leased <= :now ORDER BY leased LIMIT :limit) AS lost
    ) AS due_ones ORDER BY due LIMIT :limit)
RETURNING kind, account, region, name, due, leased, tries"""
DONE = f"DELETE FROM work WHERE {REF} AND leased = :leased AND moved IS NULL"
BACK = f"""
UPDATE work SET due = CASE WHEN moved IS NULL OR moved > :again THEN :again ELSE moved END,
    moved = NULL, leased = 0, tries = :tries
WHERE {REF} AND leased = :leased"""
SEEN_DONE = f"DELETE FROM work WHERE {REF} AND leased = 0 AND due = :seen"
SEEN_BACK = f"""
UPDATE work SET due = :again, tries = CASE WHEN :tries = 0 THEN 0 ELSE tries END
WHERE {REF} AND leased = 0 AND due = :seen"""
DUE = f"SELECT due FROM work WHERE {REF} AND leased = 0"
NEXT_DUE = """
SELECT min(moment) FROM (
    SELECT min(due) AS moment FROM work WHERE leased = 0
    UNION ALL
    SELECT min(leased) AS moment FROM work WHERE leased > 0
) AS moments"""
RELEASE_ALL = """
UPDATE work SET due = CASE WHEN moved < due THEN moved ELSE due END, moved = NULL, leased = 0 WHERE leased > 0"""

FOREVER = 1e300
"""Later than any moment."""


def put(run: Run, wake: Wake) -> None:
    """Brings a wake: the earliest due wins; beside a running step it is noted."""
    run(PUT, {**values(wake.ref), "due": wake.due})


def claim(run: Run, now: float, lease_s: float, limit: int) -> list[Wake]:
    """Leases due wakes, in one statement; the longest due first."""
    rows = run(CLAIM, {"now": now, "until": now + lease_s, "limit": limit}).fetchall()
    return sorted((_wake(row) for row in rows), key=lambda wake: wake.due)


def finish(run: Run, wake: Wake, again: float | None, tries: int = 0) -> None:
    """Gives a wake back, or removes it for None; when one came meanwhile, it stays, due at the earlier of both.

    Raises: Stale, when the lease was lost to another.
    """
    if not wake.leased:
        return _finish_unclaimed(run, wake, again, tries)
    held = {**values(wake.ref), "leased": wake.leased}
    if again is None and run(DONE, held).rowcount:
        return
    if not run(BACK, {**held, "again": FOREVER if again is None else again, "tries": tries}).rowcount:
        raise Stale(wake.ref)


def _finish_unclaimed(run: Run, wake: Wake, again: float | None, tries: int) -> None:
    """The same for a look without a claim: only for the wake that was there when it began; one that came since stays."""
    seen = {**values(wake.ref), "seen": wake.due}
    if again is None:
        run(SEEN_DONE, seen)
    elif not run(SEEN_BACK, {**seen, "again": again, "tries": tries}).rowcount:
        run(PUT, {**values(wake.ref), "due": again})


def _wake(row: Sequence[Any]) -> Wake:
    return Wake(kind=row[0], account=row[1], region=row[2], name=row[3], due=row[4], leased=row[5], tries=row[6])
