"""Event source mappings, look by look: messages go to a function in batches; what the function did is by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.functions.base import THROTTLED, Outcome
from penstock.kernel import invocations, queues
from penstock.kernel.clock import FakeClock
from penstock.services.lambda_.sources.batches import KIND
from penstock.services.lambda_.sources.engine import succeeded
from penstock.store.records import Change, Document, Query, Ref
from tests.conftest import World
from tests.refusals import refusal
from tests.unit.test_lambda import Dispatched, Lambda


class Mapped:
    """A world with a queue that a function gets."""

    def __init__(self, world: World, fifo: bool = False, **attributes: str):
        self.world, self.clock = world, FakeClock()
        world.app.clock = self.clock
        self.lam = Lambda(world)
        self.lam.create()
        self.lam.settle()
        name = "q.fifo" if fifo else "q"
        given = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        self.url = world("sqs", "CreateQueue", QueueName=name, Attributes=given | attributes)["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:{world.account}:{name}"

    def map(self, **given: Any) -> dict[str, Any]:
        return self.lam("CreateEventSourceMapping", EventSourceArn=self.arn, FunctionName="f", **given)

    def send(self, *bodies: str, **given: Any) -> None:
        for body in bodies:
            self.world("sqs", "SendMessage", QueueUrl=self.url, MessageBody=body, **given)

    def stored(self, kind: str) -> list[Document]:
        return self.world.app.store.page(Query(kind=kind, account=self.world.account, limit=1000))

    def look(self) -> None:
        """All looks at the mapping that are due now."""
        for _ in range(100):
            (mapping,) = self.stored("lambda.event-source")
            if self.world.step(mapping) != 0.0:
                return
            if not self.stored("lambda.event-source"):
                return
        raise AssertionError("it is looked at again and again")

    def asked(self) -> list[Document]:
        """The invocations that wait, oldest first."""
        return [one for one in self.stored(invocations.KIND) if one.status == invocations.WAITING]

    def records(self, invocation: Document) -> list[dict[str, Any]]:
        return list(json.loads(invocation.body["payload"])["Records"])

    def bodies(self, invocation: Document) -> list[str]:
        return [record["body"] for record in self.records(invocation)]

    def answer(self, invocation: Document, answer: Any = None, error: str = "") -> None:
        invocation.status = invocations.FAILED if error else invocations.SUCCEEDED
        invocation.body |= {"answer": json.dumps(answer), "error": error}
        self.world.app.store.commit(Change(puts=[invocation]))
        self.look()

    def left(self) -> int:
        return len(self.stored("sqs.message"))

    def shown(self) -> dict[str, Any]:
        (mapping,) = self.lam("ListEventSourceMappings")["EventSourceMappings"]
        return dict(mapping)


@pytest.fixture
def mapped(world: World) -> Mapped:
    return Mapped(world)


def test_messages_come_to_the_function_as_aws_writes_them_and_are_deleted(mapped: Mapped) -> None:
    assert mapped.map()["State"] == "Creating"
    mapped.look()
    assert mapped.shown()["State"] == "Enabled"
    attributes = {"n": {"DataType": "Number", "StringValue": "1"}, "b": {"DataType": "Binary", "BinaryValue": b"x"}}
    mapped.send("hello", MessageAttributes=attributes)
    mapped.look()
    (invocation,) = mapped.asked()
    (record,) = mapped.records(invocation)
    assert (record["body"], record["eventSource"], record["eventSourceARN"]) == ("hello", "aws:sqs", mapped.arn)
    assert (record["awsRegion"], record["attributes"]["ApproximateReceiveCount"]) == ("us-east-1", "1")
    assert record["messageAttributes"]["n"]["stringValue"] == "1"
    assert record["messageAttributes"]["b"] == {"binaryValue": "eA==", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"}
    assert mapped.left() == 1
    mapped.answer(invocation)
    assert mapped.left() == 0
    assert not mapped.stored(invocations.KIND)
    assert mapped.shown()["LastProcessingResult"] == "OK"


def test_everybody_who_watches_a_queue_is_woken_however_many_they_are(mapped: Mapped) -> None:
    call = mapped.world.call()
    refs = [Ref("k", mapped.world.account, "us-east-1", f"w{number}") for number in range(2001)]
    for ref in refs:
        queues.watch(call, mapped.arn, ref)
    mapped.world.app.store.commit(call.change)
    queue = queues.find(mapped.world.call(), mapped.arn)
    assert queue is not None
    assert sorted(queues.watchers(mapped.world.call(), queue)) == sorted(refs)


def test_a_sent_message_wakes_the_mapping(mapped: Mapped) -> None:
    mapped.map()
    mapped.look()
    call = mapped.world.call()
    call.other("sqs", "SendMessage", QueueUrl=mapped.url, MessageBody="a", DelaySeconds=7)
    (wake,) = call.change.wakes
    assert (wake.kind, wake.due) == ("lambda.event-source", mapped.clock.now() + 7)


def test_batches_are_of_the_size_that_is_asked_for(mapped: Mapped) -> None:
    mapped.map(BatchSize=3)
    mapped.send(*map(str, range(7)))
    mapped.look()
    assert sorted(len(mapped.bodies(each)) for each in mapped.asked()) == [1, 3, 3]


def test_a_window_gathers_more_than_ten(mapped: Mapped) -> None:
    mapped.map(BatchSize=25, MaximumBatchingWindowInSeconds=20)
    mapped.send(*map(str, range(12)))
    mapped.look()
    assert not mapped.asked()
    mapped.clock.move(19)
    mapped.send("late")
    mapped.look()
    assert not mapped.asked()
    mapped.clock.move(1)
    mapped.look()
    (one,) = mapped.asked()
    assert len(mapped.bodies(one)) == 13
    mapped.send(*map(str, range(25)))
    mapped.look()
    assert len(mapped.asked()) == 2  # full before its time
    mapped.answer(one)
    assert mapped.left() == 25


def test_a_look_writes_and_deletes_little_however_large_a_batch_is(mapped: Mapped) -> None:
    mapped.map(BatchSize=250, MaximumBatchingWindowInSeconds=20)
    for start in range(0, 250, 10):
        entries = [{"Id": str(n), "MessageBody": f"{start + n} " + "x" * 500} for n in range(10)]
        mapped.world("sqs", "SendMessageBatch", QueueUrl=mapped.url, Entries=entries)
    mapped.look()
    (invocation,) = mapped.asked()
    assert len(set(mapped.bodies(invocation))) == 250
    (mapping,) = mapped.stored("lambda.event-source")
    assert len(json.dumps(mapping.body)) < 2000
    invocation.status, invocation.body["answer"] = invocations.SUCCEEDED, "null"
    mapped.world.app.store.commit(Change(puts=[invocation]))
    left = []
    while mapped.world.step(mapping) == 0.0:
        left.append(mapped.left())
    assert left == [150, 50]
    assert mapped.left() == 0
    assert not mapped.stored(KIND)
    assert mapped.shown()["LastProcessingResult"] == "OK"


@pytest.mark.parametrize("fifo", [False, True])
def test_an_invocation_gets_no_more_than_it_may_weigh(world: World, fifo: bool) -> None:
    mapped = Mapped(world, fifo=fifo)
    mapped.map()
    mapped.send(*(f"{n}" + "é" * 500_000 for n in range(10)), **({"MessageGroupId": "g"} if fifo else {}))
    mapped.look()
    batches = sorted(mapped.asked(), key=lambda batch: mapped.bodies(batch)[0][0])  # of one moment, with names by chance
    for batch in batches:
        assert len(batch.body["payload"].encode()) <= 6_291_456
    assert len(mapped.bodies(batches[0])) == 6
    if fifo:
        assert len(batches) == 1  # the group waits
        mapped.answer(batches[0])
        mapped.look()
        batches += mapped.asked()
    seen = [record for batch in batches for record in mapped.records(batch)]
    assert [record["body"][0] for record in seen] == list("0123456789")
    assert {record["attributes"]["ApproximateReceiveCount"] for record in seen} == {"1"}


def test_a_disabled_mapping_keeps_nothing_of_what_it_gathered(mapped: Mapped) -> None:
    uuid = mapped.map(BatchSize=300, MaximumBatchingWindowInSeconds=300)["UUID"]
    mapped.send(*map(str, range(15)))
    mapped.look()
    assert len(mapped.stored(KIND)) == 2
    mapped.lam("UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    mapped.look()
    assert not mapped.stored(KIND)
    assert mapped.left() == 15


def test_what_a_function_fails_is_seen_again_and_goes_to_the_dead_letters(mapped: Mapped) -> None:
    dead = mapped.world("sqs", "CreateQueue", QueueName="dead")["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": mapped.arn.replace(":q", ":dead"), "maxReceiveCount": 2})
    mapped.world("sqs", "SetQueueAttributes", QueueUrl=mapped.url, Attributes={"RedrivePolicy": policy})
    mapped.map()
    mapped.send("bad")
    for _ in range(2):
        mapped.look()
        (invocation,) = mapped.asked()
        mapped.answer(invocation, {"errorMessage": "no"}, "Unhandled")
        assert not mapped.asked()  # hidden for its time
        mapped.clock.move(30)
    assert "PROBLEM" in mapped.shown()["LastProcessingResult"]
    mapped.look()
    assert not mapped.asked()
    (got,) = mapped.world("sqs", "ReceiveMessage", QueueUrl=dead)["Messages"]
    assert got["Body"] == "bad"


def test_only_what_the_function_names_as_failed_is_seen_again(mapped: Mapped) -> None:
    mapped.map(FunctionResponseTypes=["ReportBatchItemFailures"])
    mapped.send("a", "b", "c")
    mapped.look()
    (invocation,) = mapped.asked()
    failed = next(record["messageId"] for record in mapped.records(invocation) if record["body"] == "b")
    mapped.answer(invocation, {"batchItemFailures": [{"itemIdentifier": failed}]})
    assert mapped.left() == 1
    mapped.clock.move(30)
    mapped.look()
    assert [mapped.bodies(each) for each in mapped.asked()] == [["b"]]


@pytest.mark.parametrize(("payload", "left"), [
    ("", "ab"), ("null", "ab"), ("{}", "ab"), ('{"batchItemFailures": []}', "ab"),
    ('{"batchItemFailures": [{"itemIdentifier": "a"}]}', "b"),
    ('{"batchItemFailures": [{"itemIdentifier": ""}]}', ""), ('{"batchItemFailures": [{"itemIdentifier": "z"}]}', ""),
    ('{"batchItemFailures": [{"item": "a"}]}', ""), ('{"batchItemFailures": 3}', ""), ("[1]", ""), ("{", ""),
])  # fmt: skip
def test_an_answer_that_makes_no_sense_fails_the_whole_batch(payload: str, left: str) -> None:
    assert [name for name, _ in succeeded([["a", "1"], ["b", "2"]], payload)] == list(left)


def test_a_function_has_so_many_batches_at_a_time(mapped: Mapped) -> None:
    mapped.map(BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    mapped.send("a", "b", "c")
    mapped.look()
    one, two = mapped.asked()
    mapped.answer(one)
    assert len(mapped.asked()) == 2
    assert two.name in {each.name for each in mapped.asked()}


def test_a_group_of_a_fifo_queue_waits_for_its_first_batch(world: World) -> None:
    mapped = Mapped(world, fifo=True)
    mapped.map(BatchSize=1)
    mapped.send("1", "2", MessageGroupId="g")
    mapped.look()
    (first,) = mapped.asked()
    assert mapped.bodies(first) == ["1"]
    mapped.answer(first)
    mapped.look()  # the deletion has woken it again
    assert [mapped.bodies(each) for each in mapped.asked()] == [["2"]]
    uuid = mapped.shown()["UUID"]
    for wrong in ({"BatchSize": 11}, {"MaximumBatchingWindowInSeconds": 1}):
        told = refusal(lambda wrong=wrong: mapped.lam("UpdateEventSourceMapping", UUID=uuid, **wrong))
        assert told[0] == "InvalidParameterValueException"


def test_a_disabled_mapping_takes_nothing_until_it_is_enabled(mapped: Mapped) -> None:
    uuid = mapped.map(Enabled=False)["UUID"]
    mapped.send("a")
    mapped.look()
    assert (mapped.shown()["State"], mapped.asked()) == ("Disabled", [])
    assert mapped.lam("UpdateEventSourceMapping", UUID=uuid, Enabled=True, BatchSize=5)["State"] == "Enabling"
    mapped.look()
    assert (mapped.shown()["State"], mapped.shown()["BatchSize"], len(mapped.asked())) == ("Enabled", 5, 1)


def test_a_throttled_batch_is_given_up_when_its_messages_are_seen_again(mapped: Mapped) -> None:
    mapped.world.app.functions = dispatched = Dispatched()
    mapped.map()
    mapped.send("a")
    mapped.look()
    (invocation,) = mapped.asked()
    began, pause_s = mapped.clock.now(), mapped.world.step(invocation)
    while mapped.asked():
        assert mapped.clock.now() - began <= 30  # the queue's VisibilityTimeout
        dispatched.known[dispatched.begun[-1].key] = Outcome(refused=THROTTLED)
        mapped.clock.move(min(pause_s or 0.0, mapped.world.step(invocation) or 0.0))
        pause_s = mapped.world.step(invocation)
    mapped.look()
    assert mapped.clock.now() - began == 30
    (again,) = mapped.asked()
    assert mapped.bodies(again) == ["a"]
    assert len(mapped.stored("lambda.event-source")[0].body["_running"]) == 1


def test_a_deleted_mapping_gives_up_what_its_function_has_not_begun(mapped: Mapped) -> None:
    mapped.world.app.functions = Dispatched()
    uuid = mapped.map(BatchSize=1)["UUID"]
    mapped.send("a", "b")
    mapped.look()
    begun, _ = mapped.asked()
    mapped.world.step(begun)
    mapped.lam("DeleteEventSourceMapping", UUID=uuid)
    mapped.look()
    assert [one.name for one in mapped.asked()] == [begun.name]
    mapped.answer(begun)
    assert not mapped.stored("lambda.event-source")
    assert mapped.left() == 1


def test_a_deleted_mapping_goes_when_its_function_has_finished(mapped: Mapped) -> None:
    mapped.world.app.functions = Dispatched()
    uuid = mapped.map()["UUID"]
    mapped.send("a")
    mapped.look()
    (invocation,) = mapped.asked()
    mapped.world.step(invocation)
    assert mapped.lam("DeleteEventSourceMapping", UUID=uuid)["State"] == "Deleting"
    mapped.look()
    assert refusal(lambda: mapped.lam("UpdateEventSourceMapping", UUID=uuid, Enabled=False))[0] == "ResourceInUseException"
    invocation.status = invocations.SUCCEEDED
    mapped.world.app.store.commit(Change(puts=[invocation]))
    mapped.look()
    assert not mapped.stored("lambda.event-source")
    assert not mapped.stored("sqs.watch")
    assert mapped.left() == 0
    assert refusal(lambda: mapped.lam("GetEventSourceMapping", UUID=uuid))[0] == "ResourceNotFoundException"


def test_what_cannot_be_mapped_is_refused(mapped: Mapped) -> None:
    def create(**given: Any) -> tuple[str, str]:
        whole = {"EventSourceArn": mapped.arn, "FunctionName": "f"} | given
        return refusal(lambda: mapped.lam("CreateEventSourceMapping", **whole))

    bad = "InvalidParameterValueException"
    assert create(FunctionName="none") == (bad, "Function does not exist")
    code, told = create(EventSourceArn=mapped.arn + "x")
    assert (code, "NonExistentQueue" in told) == (bad, True)
    assert create(BatchSize=11) == (bad, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
    assert create(EventSourceArn="arn:aws:kinesis:us-east-1:123456789012:stream/s")[0] == "NotImplemented"
    assert create(FilterCriteria={"Filters": [{"Pattern": "{}"}]})[0] == "NotImplemented"
    mapped.lam("UpdateFunctionConfiguration", FunctionName="f", Timeout=60)
    assert create() == (bad, "Queue visibility timeout: 30 seconds is less than Function timeout: 60 seconds")
    mapped.world("sqs", "SetQueueAttributes", QueueUrl=mapped.url, Attributes={"VisibilityTimeout": "60"})
    mapped.map()
    assert create()[0] == "ResourceConflictException"
