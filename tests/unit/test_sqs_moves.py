"""Tasks that move dead letters: by boto3 over HTTP, and look by look."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.kernel.clock import FakeClock
from penstock.store.records import Change, Document, Query
from tests.conftest import Boto, World
from tests.refusals import refusal

UNKNOWN = "arn:aws:sqs:us-east-1:{}:none"


class Queues:
    """A world with a queue whose dead letters go to another, and a third."""

    def __init__(self, world: World, fifo: bool = False):
        self.world, self.end = world, ".fifo" if fifo else ""
        self.clock = world.app.clock = FakeClock()
        self.given = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        self.dead = self.make("dead")
        self.work = self.make("work", RedrivePolicy=json.dumps({"deadLetterTargetArn": self.arn("dead"), "maxReceiveCount": 1}))
        self.other = self.make("other")

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.world("sqs", operation, **params)

    def make(self, name: str, **attributes: str) -> str:
        return str(self("CreateQueue", QueueName=name + self.end, Attributes=self.given | attributes)["QueueUrl"])

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:us-east-1:{self.world.account}:{name}{self.end}"

    def kill(self, *bodies: str) -> None:
        """Has messages come to the dead-letter queue, as they do."""
        for body in bodies:
            group = {"MessageGroupId": "g"} if self.end else {}
            self("SendMessage", QueueUrl=self.work, MessageBody=body, **group)
            assert self.bodies(self.work, VisibilityTimeout=0) == [body]
            assert not self.bodies(self.work)

    def bodies(self, url: str, **given: Any) -> list[str]:
        return [message["Body"] for message in self("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10, **given).get("Messages", [])]

    def start(self, **given: Any) -> str:
        return str(self("StartMessageMoveTask", SourceArn=self.arn("dead"), **given)["TaskHandle"])

    def tasks(self, most: int = 10) -> list[dict[str, Any]]:
        return list(self("ListMessageMoveTasks", SourceArn=self.arn("dead"), MaxResults=most)["Results"])

    def look(self) -> float | None:
        return self.world.step(self.stored()[0])

    def stored(self) -> list[Document]:
        return self.world.app.store.page(Query(kind="sqs.move-task", descending=True))

    def messages(self, name: str) -> list[Document]:
        (queue,) = [one for one in self.world.app.store.page(Query(kind="sqs.queue")) if one.arn == self.arn(name)]
        return self.world.app.store.page(Query(kind="sqs.message", parent=queue.body["_messages"], order="name"))


@pytest.fixture
def queues(world: World) -> Queues:
    return Queues(world)


# --- what is moved
@pytest.mark.parametrize("fifo", [False, True])
def test_dead_letters_go_back_to_where_they_came_from_as_new_messages(world: World, fifo: bool) -> None:
    queues = Queues(world, fifo)
    queues.kill("a", "b")
    before = {message.body["id"] for message in queues.messages("dead")}
    queues.clock.move(60)
    queues.start()
    (task,) = queues.tasks()
    assert (task["Status"], task["ApproximateNumberOfMessagesToMove"], task["ApproximateNumberOfMessagesMoved"]) == ("RUNNING", 2, 0)
    assert queues.look() is None
    (task,) = queues.tasks()
    assert (task["Status"], task["ApproximateNumberOfMessagesMoved"], task["SourceArn"]) == ("COMPLETED", 2, queues.arn("dead"))
    assert not {"TaskHandle", "DestinationArn", "FailureReason"} & set(task)
    assert not queues.messages("dead")
    names = ["ApproximateReceiveCount", "DeadLetterQueueSourceArn", "SentTimestamp"]
    got = queues("ReceiveMessage", QueueUrl=queues.work, MaxNumberOfMessages=10, AttributeNames=names)["Messages"]
    assert [message["Body"] for message in got] == ["a", "b"]
    assert not before & {message["MessageId"] for message in got}
    assert got[0]["Attributes"] == {"ApproximateReceiveCount": "1", "SentTimestamp": str(int(queues.clock.now() * 1000))}


def test_a_destination_may_be_named(queues: Queues) -> None:
    queues.kill("a")
    queues.start(DestinationArn=queues.arn("other"))
    queues.look()
    assert queues.tasks()[0]["DestinationArn"] == queues.arn("other")
    assert (queues.bodies(queues.other), queues.bodies(queues.work)) == (["a"], [])


def test_what_comes_after_a_task_began_and_what_is_in_flight_stays(queues: Queues) -> None:
    queues.kill("a", "b")
    (held,) = queues("ReceiveMessage", QueueUrl=queues.dead)["Messages"]
    queues.start(DestinationArn=queues.arn("other"))
    queues.kill("c")
    queues.look()
    assert queues.tasks()[0]["Status"] == "COMPLETED"
    assert queues.bodies(queues.other) == ["b"]
    assert [message.body["text"] for message in queues.messages("dead")] == ["a", "c"]
    queues("DeleteMessage", QueueUrl=queues.dead, ReceiptHandle=held["ReceiptHandle"])


def test_a_queue_that_was_emptied_has_nothing_to_move(queues: Queues) -> None:
    queues.kill("a")
    queues.start()
    queues("PurgeQueue", QueueUrl=queues.dead)
    queues.kill("b")
    queues.look()
    assert (queues.tasks()[0]["Status"], queues.bodies(queues.work)) == ("COMPLETED", [])


def test_many_are_moved_some_at_a_look_and_each_once(queues: Queues) -> None:
    queues.kill("a")
    (one,) = queues.messages("dead")
    more = [Document(kind=one.kind, account=one.account, region=one.region, name=f"{one.parent}/0{n:03d}", parent=one.parent, status="sent",
                     rank=one.rank, created=one.created, body={**one.body, "text": str(n)}) for n in range(50)]  # fmt: skip
    queues.world.app.store.commit(Change(puts=more))
    queues.start(DestinationArn=queues.arn("other"))
    assert [queues.look(), queues.look(), queues.look()] == [0.0, 0.0, None]
    assert sorted(message.body["text"] for message in queues.messages("other")) == sorted([*map(str, range(50)), "a"])
    assert (queues.tasks()[0]["ApproximateNumberOfMessagesMoved"], queues.messages("dead")) == (51, [])


def test_a_rate_is_kept(queues: Queues) -> None:
    queues.kill("a", "b", "c", "d")
    queues.start(DestinationArn=queues.arn("other"), MaxNumberOfMessagesPerSecond=2)
    seen = []
    for _ in range(4):
        assert queues.look() in (0.5, None)
        seen.append((len(queues.messages("other")), queues.tasks()[0]["Status"]))
        queues.clock.move(0.5)
    assert seen == [(1, "RUNNING"), (2, "RUNNING"), (3, "RUNNING"), (4, "COMPLETED")]


# --- how tasks end
def test_a_cancelled_task_leaves_what_it_has_not_moved(queues: Queues) -> None:
    queues.kill("a", "b")
    handle = queues.start(DestinationArn=queues.arn("other"), MaxNumberOfMessagesPerSecond=1)
    assert queues.tasks()[0]["TaskHandle"] == handle
    queues.look()
    assert queues("CancelMessageMoveTask", TaskHandle=handle) == {"ApproximateNumberOfMessagesMoved": 1}
    assert queues.tasks()[0]["Status"] == "CANCELLING"
    queues.look()
    assert (queues.tasks()[0]["Status"], queues.bodies(queues.dead)) == ("CANCELLED", ["b"])
    assert refusal(queues, "CancelMessageMoveTask", TaskHandle=handle)[0] == "UnsupportedOperation"
    queues.start()  # another may begin


def test_a_task_fails_where_its_destination_is_gone_or_nobody_knows_it(queues: Queues) -> None:
    queues.kill("a")
    queues.start(DestinationArn=queues.arn("other"))
    queues("DeleteQueue", QueueUrl=queues.other)
    queues.look()
    queues("SendMessage", QueueUrl=queues.dead, MessageBody="sent here")
    queues.clock.move(1)
    queues.start()
    queues.look()
    (late, early) = queues.tasks()
    assert (early["Status"], early["FailureReason"]) == ("FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    assert (late["Status"], late["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert late["ApproximateNumberOfMessagesMoved"] == 1
    assert queues.bodies(queues.dead) == ["sent here"]


def test_ten_tasks_of_a_queue_are_kept_and_none_of_a_deleted_one(queues: Queues) -> None:
    for _ in range(12):
        queues.start()
        queues.look()
        queues.clock.move(1)
    assert [len(queues.tasks()), len(queues.tasks(1)), len(queues.stored())] == [10, 1, 10]
    starts = [task["StartedTimestamp"] for task in queues.tasks()]
    assert starts == sorted(starts, reverse=True)
    queues("DeleteQueue", QueueUrl=queues.dead)
    assert not queues.stored()


# --- what is refused
def test_what_no_task_can_be_is_refused_in_awss_words(queues: Queues) -> None:
    none, account = UNKNOWN.format(queues.world.account), queues.world.account
    gone = "The resource that you specified for the {} parameter doesn't exist."
    assert refusal(queues, "StartMessageMoveTask", SourceArn=none) == ("ResourceNotFoundException", gone.format("SourceArn"))
    assert refusal(queues.start, DestinationArn=none) == ("ResourceNotFoundException", gone.format("DestinationArn"))
    told = "Source queue must be configured as a Dead Letter Queue."
    assert refusal(queues, "StartMessageMoveTask", SourceArn=queues.arn("work")) == ("InvalidParameterValue", told)
    assert refusal(queues.start, MaxNumberOfMessagesPerSecond=501)[0] == "InvalidParameterValue"
    queues("CreateQueue", QueueName="one.fifo", Attributes={"FifoQueue": "true"})
    assert "same type" in refusal(queues.start, DestinationArn=f"arn:aws:sqs:us-east-1:{account}:one.fifo")[1]
    queues.start()
    told = "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
    assert refusal(queues.start) == ("InvalidParameterValue", told)
    assert refusal(queues.tasks, 11)[0] == "InvalidParameterValue"


def test_a_handle_names_a_task_of_a_queue(queues: Queues) -> None:
    def handle(**named: Any) -> str:
        return base64.b64encode(json.dumps({"taskId": "t", "sourceArn": queues.arn("dead")} | named).encode()).decode()

    for wrong in ("foobared", handle(taskId=1), base64.b64encode(b"[]").decode()):
        told = ("InvalidParameterValue", "Value for parameter TaskHandle is invalid.")
        assert refusal(queues, "CancelMessageMoveTask", TaskHandle=wrong) == told
    assert refusal(queues, "CancelMessageMoveTask", TaskHandle=handle()) == ("ResourceNotFoundException", "Task does not exist.")
    other = handle(sourceArn=UNKNOWN.format("123456789012"))
    assert refusal(queues, "CancelMessageMoveTask", TaskHandle=other)[1].startswith("The resource that you specified for the SourceArn")


def test_of_two_tasks_that_begin_at_once_one_is_refused(queues: Queues) -> None:
    first, second = queues.world.call(), queues.world.call()
    for call in (first, second):
        call.other("sqs", "StartMessageMoveTask", SourceArn=queues.arn("dead"))
    queues.world.app.store.commit(first.change)
    with pytest.raises(Exception, match=r"sqs\.queue"):
        queues.world.app.store.commit(second.change)


def test_a_client_starts_a_task_and_sees_it(client: Boto) -> None:
    sqs = client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    sqs.create_queue(QueueName="work", Attributes={"RedrivePolicy": policy})
    handle = sqs.start_message_move_task(SourceArn=arn)["TaskHandle"]
    (task,) = sqs.list_message_move_tasks(SourceArn=arn)["Results"]
    assert (task["TaskHandle"], task["ApproximateNumberOfMessagesToMove"]) == (handle, 0)
    with pytest.raises(ClientError) as fault:
        sqs.start_message_move_task(SourceArn=arn + "x")
    assert fault.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert fault.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
