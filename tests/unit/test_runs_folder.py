"""A run's folder after somebody died in the middle of changing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.runs.base import ENDED, LOST, STARTING, Result, RunSpec, RunState
from penstock.runs.capacity import Capacity
from penstock.runs.folder import Order, RunFolder, Setup, left_over
from penstock.runs.local import LARGE, LocalExecutor


@pytest.fixture
def lost(tmp_path: Path) -> RunFolder:
    """A run whose first supervisor is gone."""
    (tmp_path / "runs").mkdir()
    folder = RunFolder(tmp_path / "runs" / "lost")
    folder.create(Order(RunSpec("lost"), Setup("bwrap")))
    (folder.path / "lock").write_text("1")
    (folder.path / "1").mkdir()
    return folder


def attempt(folder: RunFolder) -> tuple[str, int]:
    state = folder.look()
    assert state is not None
    return state.phase, state.attempt


def test_a_lost_run_begins_again_as_the_next_attempt(lost: RunFolder) -> None:
    assert attempt(lost) == (LOST, 1)
    left = lost.renew()
    assert attempt(lost) == (STARTING, 2)
    assert left is not None
    assert left.is_dir()
    assert not (lost.path / "1").exists()


def test_a_lost_run_tells_what_was_taken_while_it_ran_and_the_next_attempt_does_not(lost: RunFolder) -> None:
    lost.note_live(RunState("running", results=[Result("o", "a", "", "", 1, b"1")]))
    state = lost.look()
    assert state is not None
    assert [(each.key, each.inline) for each in state.results] == [("a", b"1")]
    lost.renew()
    again = lost.look()
    assert again is not None
    assert again.results == []


def test_a_run_of_many_live_results_is_looked_at_again_until_it_has_ended(lost: RunFolder) -> None:
    results = [Result("o", str(number), "", "", 1, b"1") for number in range(LARGE + 1)]
    lost.note_live(RunState("running", results=results))
    executor = LocalExecutor(lost.path.parent.parent, Capacity(1.0, 1 << 30), Setup("bwrap"))
    try:
        phases = []
        for end in (False, True):
            if end:
                lost.end(RunState(ENDED, 0, results=results))
            state = executor.look("lost")
            assert state is not None
            phases.append((state.phase, len(state.results)))
        assert phases == [(LOST, LARGE + 1), (ENDED, LARGE + 1)]
    finally:
        executor.close()


def test_a_renewal_that_was_cut_off_counts_no_loss_twice(lost: RunFolder) -> None:
    (lost.path / "attempt").write_text("2")  # and killed before the lock was taken away
    assert attempt(lost) == (LOST, 1)
    lost.renew()
    assert attempt(lost) == (STARTING, 2)


def test_what_somebody_had_put_away_or_begun_when_he_died_is_deleted_after_the_next_start(lost: RunFolder) -> None:
    runs = lost.path.parent
    (runs / ".new-begun").mkdir()
    away = lost.put_away()
    assert away is not None
    assert set(left_over(runs)) == {away, runs / ".new-begun"}
    LocalExecutor(runs.parent, Capacity(1.0, 1 << 30), Setup("bwrap")).close()
    assert left_over(runs) == []
