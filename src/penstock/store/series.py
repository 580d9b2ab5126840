"""Metric points and the outbox of events: what is only ever added to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.store.documents import text
from penstock.store.records import Event, OldGone, Points
from penstock.store.statements import Run

EVENT_COLUMNS = "seq, id, source, detail_type, account, region, time, resources, detail"
EVENTS = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > :after ORDER BY seq LIMIT :limit"
EVENT_PUT = """
INSERT INTO events (id, source, detail_type, account, region, time, resources, detail)
VALUES (:id, :source, :detail_type, :account, :region, :time, :resources, :detail)"""

POINTS = """
SELECT moment, value, step FROM points WHERE series = :series AND moment > :after ORDER BY moment, id LIMIT :limit"""
POINT_PUT = "INSERT INTO points (series, moment, value, step) VALUES (:series, :moment, :value, :step)"
NEXT_SERIES = "SELECT series FROM points WHERE series > :after ORDER BY series LIMIT 1"
FIRST_SERIES = "SELECT series FROM points WHERE series >= :after ORDER BY series LIMIT 1"

EVENTS_OLD = """
DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT :limit) AND time < :before"""
POINTS_OLD = """
DELETE FROM points WHERE id IN (SELECT id FROM points ORDER BY id LIMIT :limit) AND moment < :before"""
OLDEST = {
    "events": "SELECT time FROM events ORDER BY seq LIMIT 1", "points": "SELECT moment FROM points ORDER BY id LIMIT 1",
}  # fmt: skip
OLD = {"events": EVENTS_OLD, "points": POINTS_OLD}

_resources = msgspec.json.Decoder(list[str])
_detail = msgspec.json.Decoder(dict[str, Any])


def put_event(run: Run, event: Event) -> None:
    row = {
        "id": event.id, "source": event.source, "detail_type": event.detail_type, "account": event.account,
        "region": event.region, "time": event.time, "resources": text(event.resources), "detail": text(event.detail),
    }  # fmt: skip
    run(EVENT_PUT, row)


def event(row: Sequence[Any]) -> Event:
    """The event that a row of EVENT_COLUMNS holds."""
    return Event(
        seq=row[0], id=row[1], source=row[2], detail_type=row[3], account=row[4], region=row[5], time=row[6],
        resources=_resources.decode(row[7]), detail=_detail.decode(row[8]),
    )  # fmt: skip


def put_points(run: Run, row: Points) -> None:
    for moment, value, step in row.points:
        run(POINT_PUT, {"series": row.series, "moment": moment, "value": value, "step": step})


def drop_old(run: Run, gone: OldGone) -> None:
    """Drops the oldest that are from before the moment, in the order in which they came: no index is needed for it."""
    run(OLD[gone.what], {"before": gone.before, "limit": gone.limit})


def point(row: Sequence[Any]) -> tuple[float, float, float]:
    """A point; what the database could only keep as NULL was NaN."""
    moment, value, step = row
    return moment, math.nan if value is None else value, math.nan if step is None else step


def series_names(run: Run, prefix: str) -> list[str]:
    """The names with the prefix, by one look-up each: a series of a million points is passed over in one step."""
    names: list[str] = []
    row = run(FIRST_SERIES, {"after": prefix}).fetchone()
    while row and row[0].startswith(prefix):
        names.append(row[0])
        row = run(NEXT_SERIES, {"after": row[0]}).fetchone()
    return names
