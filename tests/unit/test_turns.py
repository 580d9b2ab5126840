"""Clients that write one document at the same time: each gets its turn."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.kernel.call import Call, slow
from penstock.kernel.turns import Lane, Turns
from penstock.services.sagemaker.experiments.state import EXPERIMENT
from penstock.store.records import Change, Document, Ref, Stale
from penstock.wire import models

REF = Ref("sagemaker.experiment", "1", "us-east-1", "e")


def test_while_others_call_one_of_a_crowd_begins_at_each_turn_of_the_loop_and_who_went_away_holds_nobody_up() -> None:
    async def story() -> tuple[list[int], list[int]]:
        lane, begun, counts = Lane(), list[int](), [0]
        lane.make_way()

        async def one(number: int) -> None:
            await lane.turn()
            begun.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        while len(begun) < 5:
            counts.append(len(begun))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await lane.turn()  # nobody is in it any more
        return begun, [after - before for before, after in itertools.pairwise(counts)]

    begun, steps = asyncio.run(story())
    assert (begun, max(steps)) == ([0, 1, 2, 4, 5], 1)


def test_turns_are_taken_in_the_order_of_coming_and_leave_nothing() -> None:
    async def story() -> list[int]:
        turns, order = Turns(), []

        async def one(number: int) -> None:
            turn = await turns.take(REF)
            assert turns.contended(Change(puts=[document()])) == REF
            await asyncio.sleep(0)
            order.append(number)
            turn.give_back()

        tasks = [asyncio.create_task(one(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert turns.contended(Change(puts=[document()])) is None
        return order

    assert asyncio.run(story()) == [0, 1, 3, 4]


def document() -> Document:
    return Document(kind=REF.kind, account=REF.account, region=REF.region, name=REF.name)


@pytest.fixture
def slow_update(house: Any, make_client: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """DescribeAction, made an operation that reads an experiment and writes it. Between the two somebody else writes: at the
    first run to the end, at later ones until that one waits for a turn."""
    operation = models.service("sagemaker").operations["DescribeAction"]
    waiting, runs, fast = threading.Semaphore(0), [], make_client()
    take, pool = Turns.take, ThreadPoolExecutor(1)

    async def seen_take(turns: Turns, ref: Ref) -> Any:
        waiting.release()
        return await take(turns, ref)

    @slow
    def describe_action(call: Call) -> dict[str, Any]:
        experiment = EXPERIMENT.get(call, call.params["ActionName"])
        runs.append(
            pool.submit(fast.update_experiment, ExperimentName=experiment.name, Description=f"fast {len(runs)}")
        )
        if len(runs) == 1:
            runs[0].result(60)
        else:  # once for our own turn, once for the other's
            assert waiting.acquire(timeout=60)
            assert waiting.acquire(timeout=60)
        EXPERIMENT.save(call, experiment, Description="slow")
        return {"ActionName": experiment.name}

    house.app.function(operation)
    monkeypatch.setattr(Turns, "take", seen_take)
    monkeypatch.setitem(house.app._functions, (operation.service.name, operation.name), describe_action)
    with pool:
        yield runs


def test_a_client_that_is_slower_than_the_others_gets_its_turn(
    client: Any, slow_update: list[Any], make_client: Callable[[], Any]
) -> None:
    client("sagemaker").create_experiment(ExperimentName="e")
    make_client().describe_action(ActionName="e")
    assert len(slow_update) == 2, "it lost once, and then it was its turn"
    slow_update[1].result(60)
    assert client("sagemaker").describe_experiment(ExperimentName="e")["Description"] == "fast 1"


def test_who_only_reads_a_document_does_not_queue_at_it() -> None:
    async def story() -> None:
        turns = Turns()
        turn = await turns.take(REF)
        assert turns.contended(Change(reads=[document()])) is None
        assert turns.contended(Change(deletes=[document()])) == REF
        turn.give_back()
        assert turns.contended(Change(puts=[document()])) is None

    asyncio.run(story())


@pytest.mark.parametrize(("losses", "turns"), [(1, 0), (2, 1)])
def test_a_reader_takes_a_turn_only_when_it_loses_again(
    house: Any, client: Any, make_client: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, losses: int, turns: int
) -> None:
    operation = models.service("sagemaker").operations["DescribeAction"]
    taken, runs, fast = [], [], make_client()
    take = Turns.take

    async def seen_take(turns: Turns, ref: Ref) -> Any:
        taken.append(ref.name)
        return await take(turns, ref)

    @slow
    def describe_action(call: Call) -> dict[str, Any]:
        experiment = EXPERIMENT.get(call, "e")
        runs.append(experiment)
        if len(runs) <= losses:
            fast.update_experiment(ExperimentName="e", Description=f"fast {len(runs)}")
        call.change.reads.append(experiment)
        EXPERIMENT.create(call, f"e-{len(runs)}", body={})
        return {"ActionName": "e"}

    house.app.function(operation)
    monkeypatch.setattr(Turns, "take", seen_take)
    monkeypatch.setitem(house.app._functions, (operation.service.name, operation.name), describe_action)
    client("sagemaker").create_experiment(ExperimentName="e")
    client("sagemaker").describe_action(ActionName="e")
    assert (len(runs), len(taken)) == (losses + 1, turns)


def test_an_operation_that_finds_a_name_taken_since_it_read_runs_again(
    house: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = models.service("sagemaker").operations["DescribeAction"]
    runs: list[Any] = []

    def describe_action(call: Call) -> dict[str, Any]:
        experiment = EXPERIMENT.get(call, "e")
        runs.append(experiment)
        if len(runs) == 1:
            raise Stale(experiment.ref)
        return {"ActionName": "e"}

    house.app.function(operation)
    monkeypatch.setitem(house.app._functions, (operation.service.name, operation.name), describe_action)
    client("sagemaker").create_experiment(ExperimentName="e")
    client("sagemaker").describe_action(ActionName="e")
    assert len(runs) == 2


@pytest.fixture
def make_client(house: Any, client: Any) -> Any:
    made: list[Any] = []

    def make() -> Any:
        made.append(type(client)(house.url, client.keys))
        return made[-1]("sagemaker")

    yield make
    for each in made:
        each.close()


def test_eight_clients_that_write_one_document_at_once_all_succeed(client: Any, make_client: Callable[[], Any]) -> None:
    client("sagemaker").create_experiment(ExperimentName="e")
    together = threading.Barrier(8)

    def write(number: int) -> None:
        sagemaker = make_client()
        together.wait(60)
        for count in range(10):
            sagemaker.update_experiment(ExperimentName="e", Description=f"{number} {count}")

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(write, number) for number in range(8)]:
            each.result(60)
