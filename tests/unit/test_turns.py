"""Clients that write one document at the same time: each gets its turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.kernel.call import Call, slow
from penstock.kernel.turns import Turns
from penstock.services.sagemaker.experiments.state import EXPERIMENT
from penstock.store.records import Change, Document, Ref
from penstock.wire import models

QUIET_S = 0.25
REF = Ref("sagemaker.experiment", "1", "us-east-1", "e")


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
def slow_update(house: Any) -> Any:
    """DescribeAction, made an operation that reads an experiment, and writes it when nobody else did for a moment: whoever is
    slower than the others loses every race."""
    operation = models.service("sagemaker").operations["DescribeAction"]
    races: list[bool] = []

    @slow
    def describe_action(call: Call) -> dict[str, Any]:
        experiment = EXPERIMENT.get(call, call.params["ActionName"])
        deadline, lost = time.monotonic() + QUIET_S, False
        while time.monotonic() < deadline and not lost:
            lost = call.app.store.get(experiment.ref).version != experiment.version
            time.sleep(0.001)
        races.append(lost)
        EXPERIMENT.save(call, experiment, Description="slow")
        return {"ActionName": experiment.name}

    key = (operation.service.name, operation.name)
    house.app.function(operation)
    before = house.app._functions[key]
    house.app._functions[key] = describe_action
    yield races
    house.app._functions[key] = before


def test_a_client_that_is_slower_than_the_others_gets_its_turn(
    house: Any, client: Any, slow_update: list[bool], make_client: Callable[[], Any]
) -> None:
    client("sagemaker").create_experiment(ExperimentName="e", Description="new")
    over = threading.Event()

    def hammer() -> int:
        sagemaker, count = make_client(), 0
        while not over.is_set():
            sagemaker.update_experiment(ExperimentName="e", Description=f"fast {count}")
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        hammering = [pool.submit(hammer) for _ in range(2)]
        while client("sagemaker").describe_experiment(ExperimentName="e")["Description"] == "new":
            pass
        try:
            make_client().describe_action(ActionName="e")
        finally:
            over.set()
        assert all(each.result(60) > 0 for each in hammering)
    assert slow_update[0], "the first race was lost"
    assert len(slow_update) <= 4, "and then it was its turn"


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
