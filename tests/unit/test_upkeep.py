"""What is let go of: old events, points and log streams."""

from __future__ import annotations

import dataclasses
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel import upkeep
from penstock.kernel.clock import FakeClock
from penstock.runs.logs import LogPump
from penstock.store.records import Change, Event, Points

DAY = 86400.0


def look(world: Any) -> float | None:
    document = world.app.store.get(upkeep.UPKEEP)
    return float(world.step(document))


def begin(world: Any, **settings: float) -> float:
    world.app.clock = FakeClock()
    world.app.settings = dataclasses.replace(world.app.settings, **settings)
    upkeep.begin(world.app.store, world.app.clock.now())
    return float(world.app.clock.now())


def event(number: int, moment: float) -> Event:
    return Event(id=f"e{number}", source="s", detail_type="T", account="1", region="r", time=moment)


def test_events_and_points_are_kept_for_as_long_as_the_settings_say(world: Any) -> None:
    now = begin(world, keep_events_days=7, keep_points_days=30)
    moments = [now - days * DAY for days in (40, 20, 8, 6, 0)]
    points = Points(series="s", points=[(moment, 1.0, 0.0) for moment in moments])
    events = [event(number, moment) for number, moment in enumerate(moments)]
    world.app.store.commit(Change(rows=[points], events=events))
    while look(world) == upkeep.SOON_S:
        pass
    assert [found.id for found in world.app.store.events(0)] == ["e3", "e4"]
    assert [found[0] for found in world.app.store.points("s")] == moments[1:]


def test_a_look_deletes_a_slice_and_comes_again_until_all_is_gone(world: Any) -> None:
    now = begin(world)
    world.app.store.commit(Change(events=[event(n, now - 9 * DAY) for n in range(upkeep.SLICE + 1)]))
    assert look(world) == upkeep.SOON_S
    assert len(world.app.store.events(0, limit=10_000)) == 1
    assert look(world) == upkeep.SOON_S
    assert look(world) == upkeep.REST_S
    assert world.app.store.events(0) == []


def test_nothing_goes_where_the_settings_say_for_ever(world: Any) -> None:
    begin(world, keep_events_days=0, keep_points_days=0)
    world.app.store.commit(Change(events=[event(1, 1.0)], rows=[Points(series="s", points=[(1.0, 1.0, 0.0)])]))
    assert look(world) == upkeep.REST_S
    assert len(world.app.store.events(0)) == len(world.app.store.points("s")) == 1


def test_a_log_stream_goes_after_its_groups_retention_and_others_stay(world: Any) -> None:
    now = begin(world)
    logs = world.app.logs
    for group in ("/kept/short", "/kept/for-ever"):
        for stream, age_days in (("job/old", 8), ("job/new", 1)):
            os.utime(logs.path("1", "us-east-1", group, stream), (now, now - age_days * DAY))
    logs.change_group("1", "us-east-1", "/kept/short", retention=7)
    assert look(world) == upkeep.REST_S
    assert list(logs.streams("1", "us-east-1", "/kept/short")) == ["job/new"]
    assert sorted(logs.streams("1", "us-east-1", "/kept/for-ever")) == ["job/new", "job/old"]
    world.app.settings = dataclasses.replace(world.app.settings, keep_logs_days=0.5)
    look(world)
    assert list(logs.streams("1", "us-east-1", "/kept/for-ever")) == []


def test_a_stream_that_a_program_writes_to_stays_however_long_it_is_silent(world: Any) -> None:
    now = begin(world, keep_logs_days=1)
    path = Path(world.app.logs.path("1", "us-east-1", "/jobs", "job/quiet"))
    pump = LogPump(path)
    os.utime(path, (now, now - 40 * DAY))
    look(world)
    pump.note("still here")
    assert path.read_text().endswith(" still here\n")
    pump.close()
    os.utime(path, (now, now - 40 * DAY))
    look(world)
    assert not path.exists()


def test_a_stream_deleted_while_it_was_opened_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "job.log", fcntl.flock
    path.touch()

    def late(fd: int, how: int) -> None:
        monkeypatch.undo()
        path.unlink()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    pump = LogPump(path)
    pump.note("here")
    pump.close()
    assert path.read_text().endswith(" here\n")
