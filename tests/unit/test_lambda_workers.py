"""What becomes of the workers of functions, their outcomes and their credentials; no function runs here."""

from __future__ import annotations

import asyncio

import pytest

from penstock.functions.base import Gone, Outcome
from penstock.kernel import auth, invocations
from penstock.kernel.call import Caller
from penstock.services.lambda_.api import delete_function
from penstock.services.lambda_.workers import Workers
from penstock.store.records import Change, Query
from tests.conftest import World
from tests.unit.test_lambda import Dispatched, Lambda, invocation_of


@pytest.fixture
def lam(world: World) -> Lambda:
    return Lambda(world)


@pytest.fixture
def dispatched(lam: Lambda) -> Dispatched:
    made = lam.world.app.functions = Dispatched()
    lam.create()
    lam.settle()
    return made


def test_what_an_event_returns_is_kept_for_a_destination_alone(lam: Lambda, dispatched: Dispatched) -> None:
    lam("Invoke", FunctionName="f", InvocationType="Event")
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    lam.world("sqs", "CreateQueue", QueueName="q")
    lam("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig={
        "OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:123456789012:q"}})  # fmt: skip
    lam("Invoke", FunctionName="f", InvocationType="Event")
    for each in lam.world.app.store.page(Query(kind=invocations.KIND)):
        lam.world.step(each)
    assert [order.quiet for order in dispatched.begun] == [True, False]


def test_an_outcome_is_forgotten_once_the_step_that_heard_it_is_durable(lam: Lambda, dispatched: Dispatched) -> None:
    lam("Invoke", FunctionName="f", InvocationType="Event")
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    (key,) = dispatched.known
    dispatched.known[key] = Outcome(payload=b"1")
    call = lam.world.app.step_call(document, lam.world.app.clock.now())
    lam.world.app.steps()[invocations.KIND](call, document)
    assert key in dispatched.known
    for act in call.afterwards:
        act()
    assert not dispatched.known


@pytest.mark.parametrize("qualifier", ["", "1"])
def test_workers_of_a_deleted_function_end(lam: Lambda, dispatched: Dispatched, qualifier: str) -> None:
    lam("PublishVersion", FunctionName="f")
    given = {"FunctionName": "f"} | ({"Qualifier": qualifier} if qualifier else {})
    call = lam.world.call("lambda", "DeleteFunction", **given)
    delete_function(call)

    async def told() -> None:
        assert call.later is not None
        await call.later()

    asyncio.run(told())
    assert dispatched.gone == [Gone("123456789012", "us-east-1", "f", qualifier)]


def test_keys_of_workers_that_are_not_there_go_at_the_start(lam: Lambda) -> None:
    app = lam.world.app
    runs = ["function.1.r.f.LATEST.gone", "function.1.r.f.LATEST.here", "job"]
    keys = [auth.make_key(Caller(account="1", arn="arn", run=run), 0.0, 9e9) for run in runs]
    app.store.commit(Change(puts=keys))
    Workers(app).sweep([runs[1]])
    assert [app.store.get(key.ref) is not None for key in keys] == [False, True, True]
