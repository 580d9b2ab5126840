"""The engine loop, on a real store: with a fake clock where time matters, in threads where they matter."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.kernel.call import Call, Long
from penstock.kernel.clock import FakeClock, SystemClock
from penstock.kernel.engine import FLYING, GIVE_UP_TRIES, STALE_TRIES, Engine, Step
from penstock.store.records import Change, Document, Event, Stale, StoreFailed, Taken, Wake
from penstock.store.sqlite import SqliteStore, SqliteWork
from penstock.store.writer import Writer


@dataclass
class SmallCall:
    """What the engine asks of a call."""

    now: float
    change: Change = field(default_factory=Change)
    patient: bool = False
    afterwards: list[Callable[[], None]] = field(default_factory=list)


def make_call(document: Document, now: float) -> Call:
    return cast(Call, SmallCall(now))


def doc(name: str = "a", kind: str = "k", **members: Any) -> Document:
    return Document(kind=kind, account="1", region="r", name=name, **members)


def wake(name: str = "a", due: float = 0.0, kind: str = "k") -> Wake:
    return Wake(kind=kind, account="1", region="r", name=name, due=due)


class World:
    """A store, its work, a clock, and engines on them."""

    def __init__(self, path: Path):
        self.writer = Writer(path)
        self.store = SqliteStore(path, self.writer)
        self.work = SqliteWork(self.store, self.writer)
        self.clock = FakeClock()
        self.engines: list[Engine] = []

    def engine(
        self, step: Step | None, clock: Any = None, workers: int = 4, give_up: Step | None = None
    ) -> Engine:  # fmt: skip
        steps, last = {"k": step} if step else {}, {"k": give_up} if give_up else {}
        engine = Engine(steps, self.store, self.work, clock or self.clock, make_call, workers, last)
        self.engines.append(engine)
        return engine

    def put(self, *names: str, due: float = 0.0) -> None:
        self.store.commit(Change(puts=[doc(name) for name in names], wakes=[wake(name, due) for name in names]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "state.db")
    yield world
    for engine in world.engines:
        engine.stop()
    world.store.close()


def count(call: Call, document: Document) -> None:
    document.body["n"] = document.body.get("n", 0) + 1
    call.change.puts.append(document)


def body(world: World, name: str = "a") -> dict[str, Any]:
    found = world.store.get(doc(name).ref)
    assert found is not None
    return found.body


# --- with a fake clock, in this thread


def test_a_due_wake_runs_its_documents_step_once(world: World) -> None:
    world.put("a", "b")
    assert world.engine(count).drain() == 2
    assert (body(world, "a"), body(world, "b"), world.work.next_due()) == ({"n": 1}, {"n": 1}, None)


def test_what_a_step_leaves_for_afterwards_is_done_once_its_change_is_durable_and_only_then(world: World) -> None:
    seen: list[dict[str, Any]] = []

    def step(call: Call, document: Document) -> None:
        count(call, document)
        call.afterwards.append(lambda: seen.append(body(world)))
        if document.body["n"] == 1 and not seen and not raced:
            raced.append(1)
            world.store.commit(Change(puts=[world.store.get(document.ref) or document]))  # so this one's change is lost

    raced: list[int] = []
    world.put("a")
    world.engine(step).drain()
    assert seen == [{"n": 1}]


def test_what_fails_afterwards_fails_no_step(world: World) -> None:
    def fail() -> None:
        raise OSError("no such folder")

    def step(call: Call, document: Document) -> None:
        count(call, document)
        call.afterwards.append(fail)

    world.put("a")
    assert world.engine(step).drain() == 1
    assert (body(world), world.work.next_due()) == ({"n": 1}, None)


def test_a_wake_that_is_not_due_waits(world: World) -> None:
    world.put("a", due=world.clock.now() + 10)
    engine = world.engine(count)
    assert engine.drain() == 0
    world.clock.move(10)
    assert engine.drain() == 1


def test_a_step_that_says_when_is_looked_at_again_then(world: World) -> None:
    def poll(call: Call, document: Document) -> float | None:
        count(call, document)
        return 5.0 if document.body["n"] < 3 else None

    world.put("a")
    engine = world.engine(poll)
    assert engine.drain() == 1
    world.clock.move(4.9)
    assert engine.drain() == 0
    world.clock.move(0.1)
    assert engine.drain() == 1
    world.clock.move(5)
    assert engine.drain() == 1
    assert world.work.next_due() is None


def test_again_at_once_goes_on_until_done(world: World) -> None:
    def climb(call: Call, document: Document) -> float | None:
        count(call, document)
        return 0.0 if document.body["n"] < 20 else None

    world.put("a")
    assert world.engine(climb).drain() == 20


def test_a_wake_of_a_document_that_is_gone_ends(world: World) -> None:
    world.store.commit(Change(wakes=[wake()]))
    assert world.engine(count).drain() == 1
    assert world.work.next_due() is None


def test_a_stale_step_runs_again_at_once_on_the_new_document(world: World) -> None:
    world.put("a")
    seen = []

    def step(call: Call, document: Document) -> None:
        seen.append(document.version)
        if len(seen) == 1:
            other = world.store.get(document.ref)
            assert other is not None
            world.store.commit(Change(puts=[other]))
        count(call, document)

    assert world.engine(step).drain() == 1
    assert seen == [1, 2]
    assert body(world) == {"n": 1}


def test_a_step_that_sees_itself_that_somebody_wrote_in_between_runs_again_at_once(world: World) -> None:
    seen = []

    def step(call: Call, document: Document) -> None:
        seen.append(1)
        if len(seen) < 3:
            raise Stale(document.ref)
        count(call, document)

    world.put("a")
    world.engine(step).drain()
    assert (body(world), len(seen)) == ({"n": 1}, 3)


def test_a_step_that_stays_stale_backs_off(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a")
    runs = []

    def step(call: Call, document: Document) -> None:
        runs.append(1)
        call.change.puts.append(doc("a"))  # as if it were new: Taken, always

    world.engine(step).drain()
    assert len(runs) == STALE_TRIES
    assert world.work.next_due() == world.clock.now() + 1
    assert caplog.records[-1].exc_info is not None
    assert caplog.records[-1].exc_info[0] is Taken


def test_errors_are_logged_and_tried_again_with_growing_pauses(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a")

    def step(call: Call, document: Document) -> None:
        call.change.puts.append(doc("never"))
        raise KeyError("a bug")

    engine, pauses = world.engine(step), []
    for _ in range(8):
        assert engine.drain() == 1
        due = world.work.next_due()
        assert due is not None
        pauses.append(due - world.clock.now())
        world.clock.move(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert world.store.get(doc("never").ref) is None
    assert "a bug" in caplog.text
    assert "Traceback" in caplog.text


def test_a_step_that_fails_for_ever_is_given_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a")
    looks: list[str] = []

    def step(call: Call, document: Document) -> None:
        looks.append("step")
        raise KeyError("a bug")

    def give_up(call: Call, document: Document) -> None:
        looks.append("give up")
        document.status = "Failed"
        call.change.puts.append(document)

    engine = world.engine(step, give_up=give_up)
    while (due := world.work.next_due()) is not None:
        world.clock.move(max(0.0, due - world.clock.now()))
        engine.drain()
    assert looks == ["step"] * GIVE_UP_TRIES + ["give up"]
    found = world.store.get(doc().ref)
    assert found is not None
    assert found.status == "Failed"
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("error", "gives_up"),
    [(OSError(28, "no space"), False), (StoreFailed("full"), False), (FileNotFoundError(2, "a blob"), True)],
    ids=["disk", "store", "bug"],
)
def test_what_the_machine_lacks_is_waited_for(world: World, error: Exception, gives_up: bool) -> None:
    world.put("a")
    given_up: list[str] = []

    def step(call: Call, document: Document) -> None:
        raise error

    engine = world.engine(step, give_up=lambda call, document: given_up.append(document.name))
    for _ in range(GIVE_UP_TRIES + 3):
        engine.drain()
        world.clock.move(60.0)
    assert bool(given_up) is gives_up
    assert (world.work.next_due() is None) is gives_up


def test_giving_up_that_fails_itself_is_tried_again(world: World) -> None:
    world.put("a")

    def fail(call: Call, document: Document) -> None:
        raise KeyError("a bug")

    engine = world.engine(fail, give_up=fail)
    for _ in range(GIVE_UP_TRIES + 3):
        engine.drain()
        due = world.work.next_due()
        assert due is not None
        assert due > world.clock.now()
        world.clock.move(60.0)


def test_a_step_that_returned_starts_its_tries_anew(world: World) -> None:
    world.put("a")
    outcomes = iter([True, True, False, True])

    def step(call: Call, document: Document) -> float:
        if next(outcomes):
            raise ValueError("not yet")
        return 0.0

    engine = world.engine(step)
    for pause in (1.0, 2.0, 1.0):
        engine.drain()
        assert world.work.next_due() == world.clock.now() + pause
        world.clock.move(pause)


def test_an_exit_in_a_step_does_not_end_the_engine(world: World) -> None:
    world.put("a")

    def step(call: Call, document: Document) -> None:
        raise SystemExit(1)

    world.engine(step).drain()
    assert world.work.next_due() == world.clock.now() + 1


def test_a_kind_without_a_step_is_told_once_and_left(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a", "b")
    engine = world.engine(None)
    engine.drain()
    world.clock.move(60)
    engine.drain()
    assert [r.getMessage() for r in caplog.records] == ["There is no step for documents of kind k."]
    assert world.work.next_due() == world.clock.now() + 60


def test_a_nudge_has_the_document_looked_at(world: World) -> None:
    world.store.commit(Change(puts=[doc()]))
    engine = world.engine(count)
    engine.nudge(doc().ref)
    assert engine.drain() == 1


def test_a_nudge_ends_the_wait_for_the_next_look(world: World) -> None:
    world.put("a", due=world.clock.now() + 20)
    engine = world.engine(count)
    engine.nudge(doc().ref)
    assert engine.drain() == 1
    assert world.work.next_due() is None


def test_a_wake_that_comes_while_a_nudged_look_runs_is_not_lost(world: World) -> None:
    world.store.commit(Change(puts=[doc()]))
    dues = [3.0, 0.0]

    def step(call: Call, document: Document) -> None:
        if dues:
            world.store.commit(Change(wakes=[wake(due=call.now + dues.pop())]))
        count(call, document)

    engine = world.engine(step)
    engine.nudge(doc().ref)
    assert engine.drain() == 2
    assert world.work.next_due() == world.clock.now() + 3


def test_a_nudged_look_that_fails_is_tried_again_after_a_pause(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a", due=world.clock.now() + 20)
    failures = [1]

    def step(call: Call, document: Document) -> None:
        if failures:
            failures.pop()
            raise KeyError("a bug")
        count(call, document)

    engine = world.engine(step)
    engine.nudge(doc().ref)
    assert engine.drain() == 1
    assert world.work.next_due() == world.clock.now() + 1
    world.clock.move(1)
    assert engine.drain() == 1
    assert body(world) == {"n": 1}


def test_a_store_that_fails_costs_a_pause_not_the_wake(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("a")
    finish, failures = world.work.finish, [True]

    def failing(held: Wake, again: float | None, change: Change) -> Future[None]:
        if failures:
            failures.pop()
            future: Future[None] = Future()
            future.set_exception(StoreFailed("database or disk is full"))
            return future
        return finish(held, again, change)

    world.work.finish = failing  # type: ignore[method-assign]
    engine = world.engine(count)
    engine.drain()
    assert "disk is full" in caplog.text
    world.clock.move(1)
    assert engine.drain() == 1
    assert body(world) == {"n": 1}


def test_a_wake_that_the_store_does_not_take_back_is_given_back_as_soon_as_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("penstock.kernel.engine.RETRY_S", 0.01)
    world.put("a")
    retry, failures = world.work.retry, [1, 2, 3]

    def failing(held: Wake, again: float) -> Future[None]:
        if failures:
            failures.pop()
            future: Future[None] = Future()
            future.set_exception(StoreFailed("database or disk is full"))
            return future
        return retry(held, again)

    def step(call: Call, document: Document) -> None:
        raise OSError(28, "no space")

    world.work.retry = failing  # type: ignore[method-assign]
    engine = world.engine(step)
    engine.drain()  # returns when the wake is given back
    assert failures == []
    assert world.work.next_due() == world.clock.now() + 1


# --- in threads


def run_until(world: World, step: Step, done: threading.Event, clock: Any = None, workers: int = 4) -> Engine:
    engine = world.engine(step, clock or SystemClock(), workers)
    engine.start()
    assert done.wait(10)
    return engine


def test_a_commit_wakes_a_waiting_engine(world: World) -> None:
    done = threading.Event()
    engine = world.engine(lambda call, document: done.set(), SystemClock())
    engine.start()
    world.put("a")
    assert done.wait(10)


def test_a_nudge_while_a_step_runs_has_it_run_once_more(world: World) -> None:
    began, go_on, twice = threading.Event(), threading.Event(), threading.Event()

    def step(call: Call, document: Document) -> None:
        began.set()
        assert go_on.wait(60)
        count(call, document)
        if document.body["n"] == 2:
            twice.set()

    world.store.commit(Change(puts=[doc()]))
    engine = world.engine(step, SystemClock())
    engine.nudge(doc().ref)  # kept until the engine starts
    engine.start()
    assert began.wait(60)
    engine.nudge(doc().ref)
    go_on.set()
    assert twice.wait(60)
    engine.stop()
    assert body(world) == {"n": 2}


def test_an_engine_that_waits_for_a_moment_hears_of_an_earlier_one(world: World) -> None:
    done = threading.Event()
    engine = world.engine(lambda call, document: done.set() if document.name == "now" else None, SystemClock())
    engine.start()
    world.put("later", due=SystemClock().now() + 3600)
    world.put("now")
    assert done.wait(10)


def test_a_chain_of_documents_each_waking_the_next_runs_to_its_end(world: World) -> None:
    done = threading.Event()

    def step(call: Call, document: Document) -> None:
        n = int(document.name)
        if n == 50:
            done.set()
            return
        call.change.puts.append(doc(str(n + 1)))
        call.change.wakes.append(wake(str(n + 1), call.now))

    world.put("0")
    run_until(world, step, done)


def test_a_document_is_never_in_two_steps_at_once(world: World) -> None:
    inside: set[str] = set()
    clashes: list[str] = []
    lock, done = threading.Lock(), threading.Event()

    def step(call: Call, document: Document) -> float | None:
        with lock:
            if document.name in inside:
                clashes.append(document.name)
            inside.add(document.name)
        call.change.wakes.append(wake(document.name, 0.0))  # while it is leased
        count(call, document)
        with lock:
            inside.discard(document.name)
        if document.body["n"] >= 30:
            call.change.wakes.clear()
            done.set()
        return None

    world.put("a", "b", "c")
    engine = run_until(world, step, done, workers=8)
    engine.stop()
    assert clashes == []


def test_more_wakes_than_fly_at_once_are_all_run(world: World) -> None:
    names = [f"n{i}" for i in range(300)]
    left, done, lock = set(names), threading.Event(), threading.Lock()

    def step(call: Call, document: Document) -> None:
        count(call, document)
        with lock:
            left.discard(document.name)
            if not left:
                done.set()

    world.put(*names)
    run_until(world, step, done).stop()
    assert all(body(world, name) == {"n": 1} for name in names)


def test_long_work_holds_up_no_other_step(world: World) -> None:
    going, others, ended = threading.Event(), threading.Semaphore(0), threading.Event()
    count = FLYING + 8

    def step(call: Call, document: Document) -> None:
        if not document.name.startswith("long"):
            others.release()
            return
        if not call.patient:
            raise Long
        assert going.wait(60)
        if document.name == "long-0":
            ended.set()

    world.put(*(f"long-{n}" for n in range(count)))
    world.engine(step, SystemClock(), workers=1).start()
    world.put("a", "b", due=1.0)
    for _ in "ab":
        assert others.acquire(timeout=60)
    assert not ended.is_set()
    going.set()
    assert ended.wait(60)


def test_stop_waits_for_the_step_that_runs_and_keeps_its_change(world: World) -> None:
    began, go_on = threading.Event(), threading.Event()

    def step(call: Call, document: Document) -> None:
        began.set()
        assert go_on.wait(10)
        count(call, document)

    world.put("a")
    engine = run_until(world, step, began)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    go_on.set()
    stopper.join(10)
    assert body(world) == {"n": 1}


def test_a_new_engine_runs_what_an_earlier_one_held(world: World) -> None:
    world.put("a")
    assert len(world.work.claim(world.clock.now(), 3600, 10)) == 1  # and dies
    done = threading.Event()
    run_until(world, lambda call, document: done.set(), done)


def test_a_lease_that_ran_out_while_its_step_runs_does_not_start_it_twice(world: World) -> None:
    began, go_on, runs = threading.Event(), threading.Event(), list[int]()

    def step(call: Call, document: Document) -> None:
        runs.append(1)
        began.set()
        assert go_on.wait(10)
        call.change.events.append(Event(id="e", source="s", detail_type="d", account="1", region="r", time=0.0))
        count(call, document)

    world.put("a")
    engine = run_until(world, step, began, clock=world.clock)
    world.clock.move(61)
    world.put("b", due=world.clock.now() + 1e6)  # its transaction claims the lease that ran out
    world.put("c", due=world.clock.now() + 1e6)  # the engine has heard of that by now
    go_on.set()
    engine.stop()
    assert len(world.store.events(0)) == 1
    assert body(world) == {"n": 1}


def test_errors_in_looking_for_work_do_not_end_the_loop(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    done, next_due, failed = threading.Event(), world.work.next_due, threading.Event()

    def failing() -> float | None:
        if not failed.is_set():
            failed.set()
            raise Stale(doc().ref)
        return next_due()

    world.work.next_due = failing  # type: ignore[method-assign]
    engine = world.engine(lambda call, document: done.set(), SystemClock())
    engine.start()
    assert failed.wait(10)
    world.put("a")
    assert done.wait(10)
    assert "could not look for work" in caplog.text


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_a_clock_that_jumps_keeps_nobody_from_what_is_told(world: World, jump_s: float) -> None:
    """A wake for later lies a day ahead after the clock was set back; an end that is heard of is looked at now."""
    world.store.commit(Change(puts=[doc()], wakes=[wake(due=world.clock.now() + 20)]))
    engine = world.engine(count)
    world.clock.move(jump_s)
    engine.nudge(doc().ref)
    assert engine.drain() == 1
    assert body(world) == {"n": 1}
