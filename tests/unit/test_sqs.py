"""SQS, by boto3 over HTTP; its clock by a world."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ReadTimeoutError

from penstock.kernel.clock import FakeClock
from penstock.kernel.errors import ServiceError
from penstock.services.sqs import rules
from penstock.store.records import Change, Document, Query, Ref
from tests.conftest import Boto, House, World
from tests.refusals import code_of


@pytest.fixture
def sqs(client: Boto) -> Any:
    return client("sqs")


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="q")["QueueUrl"])


@pytest.fixture
def fifo(sqs: Any) -> str:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    return str(sqs.create_queue(QueueName="q.fifo", Attributes=attributes)["QueueUrl"])


def until(holds: Callable[[], object]) -> None:
    """Waits for a condition that must come true."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def bodies(answer: dict[str, Any]) -> list[str]:
    return [message["Body"] for message in answer.get("Messages", [])]


# --- queues
def test_a_queue_is_named_by_a_url_of_the_server(client: Boto, sqs: Any, url: str) -> None:
    assert url == f"{client.url}/{client.account}/q"
    assert sqs.get_queue_url(QueueName="q")["QueueUrl"] == url
    assert sqs.send_message(QueueUrl=f"https://sqs.us-east-1.amazonaws.com/{client.account}/q", MessageBody="a")["MessageId"]
    assert code_of(sqs.get_queue_url, QueueName="no") == "AWS.SimpleQueueService.NonExistentQueue"
    for wrong in (f"{client.url}/999999999999/q", "http://nowhere", "http://["):
        assert code_of(sqs.send_message, QueueUrl=wrong, MessageBody="a").endswith("NonExistentQueue")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.purge_queue(QueueUrl=url + "x")


def test_a_queue_made_again_is_the_same_unless_an_attribute_is_another(sqs: Any, url: str) -> None:
    assert sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "30"})["QueueUrl"] == url
    assert code_of(sqs.create_queue, QueueName="q", Attributes={"VisibilityTimeout": "31"}) == "QueueAlreadyExists"
    for name, attributes, code in (
        ("a b", {}, "InvalidParameterValue"), ("a.fifo", {}, "InvalidParameterValue"),
        ("a", {"FifoQueue": "true"}, "InvalidParameterValue"), ("a", {"DelaySeconds": "901"}, "InvalidAttributeValue"),
        ("a", {"Delay": "1"}, "InvalidAttributeName"), ("a", {"RedrivePolicy": "{"}, "InvalidAttributeValue"),
        ("a", {"ContentBasedDeduplication": "true"}, "InvalidAttributeName"), ("a", {"Policy": "[]"}, "InvalidAttributeValue"),
    ):  # fmt: skip
        assert code_of(sqs.create_queue, QueueName=name, Attributes=attributes) == code


def test_queues_are_listed_by_prefix_in_pages_and_gone_when_deleted(sqs: Any) -> None:
    urls = [sqs.create_queue(QueueName=f"list-{n}")["QueueUrl"] for n in range(3)]
    first = sqs.list_queues(QueueNamePrefix="list-", MaxResults=2)
    rest = sqs.list_queues(QueueNamePrefix="list-", MaxResults=2, NextToken=first["NextToken"])
    assert first["QueueUrls"] + rest["QueueUrls"] == urls
    sqs.delete_queue(QueueUrl=urls[0])
    assert sqs.list_queues(QueueNamePrefix="list-")["QueueUrls"] == urls[1:]
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix="none") or not sqs.list_queues(QueueNamePrefix="none")["QueueUrls"]
    assert code_of(sqs.list_queues, MaxResults=0) == "InvalidParameterValue"


def test_attributes_are_told_and_set(client: Boto, sqs: Any, url: str) -> None:
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert told["QueueArn"] == f"arn:aws:sqs:us-east-1:{client.account}:q"
    assert (told["VisibilityTimeout"], told["MessageRetentionPeriod"], told["ApproximateNumberOfMessages"]) == ("30", "345600", "0")
    assert "FifoQueue" not in told
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7", "Policy": '{"Statement": []}'})
    named = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout", "Policy"])["Attributes"]
    assert named == {"VisibilityTimeout": "7", "Policy": '{"Statement": []}'}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
    assert code_of(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["Nothing"]) == "InvalidAttributeName"
    assert code_of(sqs.set_queue_attributes, QueueUrl=url, Attributes={"VisibilityTimeout": "x"}) == "InvalidAttributeValue"
    assert code_of(sqs.set_queue_attributes, QueueUrl=url, Attributes={"FifoQueue": "true"}) == "InvalidAttributeName"


def test_permissions_are_statements_of_the_policy(sqs: Any, url: str) -> None:
    sqs.add_permission(QueueUrl=url, Label="one", AWSAccountIds=["111122223333"], Actions=["SendMessage"])
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert policy["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    again = {"QueueUrl": url, "Label": "one", "AWSAccountIds": ["111122223333"], "Actions": ["SendMessage"]}
    assert code_of(sqs.add_permission, **again) == "InvalidParameterValue"
    assert code_of(sqs.add_permission, **{**again, "Label": "two", "Actions": ["Fly"]}) == "InvalidParameterValue"
    sqs.remove_permission(QueueUrl=url, Label="one")
    assert code_of(sqs.remove_permission, QueueUrl=url, Label="one") == "InvalidParameterValue"
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])


def test_tags_are_put_taken_and_listed(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="tagged", tags={"a": "1"})["QueueUrl"]
    sqs.tag_queue(QueueUrl=url, Tags={"b": "2"})
    assert code_of(sqs.untag_queue, QueueUrl=url, TagKeys=[]) == "InvalidParameterValue"
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "2"}
    assert code_of(sqs.tag_queue, QueueUrl=url, Tags={"aws:b": "2"}) == "InvalidParameterValue"


# --- messages
def test_a_message_is_received_with_what_was_sent_and_its_checksums(sqs: Any, url: str) -> None:
    attributes = {
        "n": {"DataType": "Number.int", "StringValue": "12"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        "my.text": {"DataType": "String", "StringValue": "é"},
    }
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="hé\n", MessageAttributes=attributes, MessageSystemAttributes=trace)
    assert sent["MD5OfMessageBody"] == hashlib.md5("hé\n".encode()).hexdigest()
    asked = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    (got,) = sqs.receive_message(QueueUrl=url, **asked)["Messages"]  # botocore holds the body against its MD5
    assert (got["MessageId"], got["Body"], got["MessageAttributes"]) == (sent["MessageId"], "hé\n", attributes)
    assert got["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert got["Attributes"]["ApproximateReceiveCount"] == "1"
    assert got["Attributes"]["AWSTraceHeader"] == trace["AWSTraceHeader"]["StringValue"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"], VisibilityTimeout=0)
    (some,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["my.*", "n.*"], AttributeNames=["SenderId"])["Messages"]
    assert sorted(some["MessageAttributes"]) == ["my.text", "n"]
    assert list(some["Attributes"]) == ["SenderId"]


def test_the_checksum_of_attributes_is_awss() -> None:
    given = {"timestamp": {"DataType": "Number.java.lang.Long", "StringValue": "1493147359900"}}
    assert rules.md5_of_attributes(given) == "2e2e4876d8e0bd6b8c2c8f556831c349"


def test_a_received_message_is_hidden_until_it_is_deleted(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="a")
    (got,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert not bodies(sqs.receive_message(QueueUrl=url))
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (counts["ApproximateNumberOfMessages"], counts["ApproximateNumberOfMessagesNotVisible"]) == ("0", "1")
    sqs.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
    late = {"QueueUrl": url, "ReceiptHandle": got["ReceiptHandle"], "VisibilityTimeout": 1}
    assert code_of(sqs.change_message_visibility, **late) == "InvalidParameterValue"
    assert code_of(sqs.delete_message, QueueUrl=url, ReceiptHandle="nothing") == "ReceiptHandleIsInvalid"


def test_what_no_message_may_be_is_refused(sqs: Any, url: str) -> None:
    send = sqs.send_message
    assert code_of(send, QueueUrl=url, MessageBody="\x01") == "InvalidMessageContents"
    assert code_of(send, QueueUrl=url, MessageBody="x" * ((1 << 20) + 1)) == "InvalidParameterValue"
    assert code_of(send, QueueUrl=url, MessageBody="") == "MissingParameter"
    assert code_of(send, QueueUrl=url, MessageBody="a", DelaySeconds=901) == "InvalidParameterValue"
    assert code_of(send, QueueUrl=url, MessageBody="a", MessageDeduplicationId="a b") == "InvalidParameterValue"
    for attributes in (
        {"aws.x": {"DataType": "String", "StringValue": "a"}}, {"a": {"DataType": "Text", "StringValue": "a"}},
        {"a": {"DataType": "String", "StringValue": ""}}, {"a": {"DataType": "Number", "StringValue": "x"}},
        {f"a{n}": {"DataType": "String", "StringValue": "a"} for n in range(11)},
    ):  # fmt: skip
        assert code_of(send, QueueUrl=url, MessageBody="a", MessageAttributes=attributes) == "InvalidParameterValue"
    for wrong in ({"MaxNumberOfMessages": 11}, {"WaitTimeSeconds": 21}, {"VisibilityTimeout": 43_201}):
        assert code_of(sqs.receive_message, QueueUrl=url, **wrong) == "InvalidParameterValue"
    assert sqs.send_message(QueueUrl=url, MessageBody="x" * (1 << 20))["MessageId"]


def test_batches_tell_what_became_of_each_entry(sqs: Any, url: str) -> None:
    entries = [{"Id": "a", "MessageBody": "1"}, {"Id": "b", "MessageBody": "\x01"}, {"Id": "c", "MessageBody": "3"}]
    sent = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in sent["Successful"]] == ["a", "c"]
    assert [(one["Id"], one["Code"], one["SenderFault"]) for one in sent["Failed"]] == [("b", "InvalidMessageContents", True)]
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(message["Body"] for message in got) == ["1", "3"]
    hidden = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"], "VisibilityTimeout": 100} for n, one in enumerate(got)]
    assert len(sqs.change_message_visibility_batch(QueueUrl=url, Entries=hidden)["Successful"]) == 2
    done = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(got)]
    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=[*done, {"Id": "x", "ReceiptHandle": "none"}])
    assert (len(deleted["Successful"]), deleted["Failed"][0]["Code"]) == (2, "ReceiptHandleIsInvalid")
    start = "AWS.SimpleQueueService."
    assert code_of(sqs.send_message_batch, QueueUrl=url, Entries=[]) == start + "EmptyBatchRequest"
    assert code_of(sqs.send_message_batch, QueueUrl=url, Entries=[entries[0]] * 2) == start + "BatchEntryIdsNotDistinct"
    assert code_of(sqs.send_message_batch, QueueUrl=url, Entries=[{"Id": "a b", "MessageBody": "1"}]) == start + "InvalidBatchEntryId"
    many = [{"Id": str(n), "MessageBody": "1"} for n in range(11)]
    assert code_of(sqs.send_message_batch, QueueUrl=url, Entries=many) == start + "TooManyEntriesInBatchRequest"
    long = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
    assert code_of(sqs.send_message_batch, QueueUrl=url, Entries=long) == start + "BatchRequestTooLong"


def test_an_emptied_queue_is_empty_and_goes_on(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="a")
    sqs.purge_queue(QueueUrl=url)
    sqs.send_message(QueueUrl=url, MessageBody="b")
    assert bodies(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)) == ["b"]


def test_eight_consumers_get_every_message_once(client: Boto, sqs: Any, url: str) -> None:
    for start in range(0, 40, 10):
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(start + n)} for n in range(10)])
    got: list[str] = []

    def consume() -> None:
        while found := bodies(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=3)):
            got.extend(found)

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(int, got)) == list(range(40))


# --- long polls
def test_a_long_poll_ends_when_a_message_comes(house: House, client: Boto, sqs: Any, url: str) -> None:
    got: list[str] = []

    def poll() -> None:
        got.extend(bodies(client("sqs", read_timeout=60).receive_message(QueueUrl=url, WaitTimeSeconds=20)))

    waiting = threading.Thread(target=poll)
    waiting.start()
    until(lambda: house.front.waits.waiting)
    sqs.send_message(QueueUrl=url, MessageBody="late")
    waiting.join(60)
    assert got == ["late"]
    assert not house.front.waits.waiting


def test_a_long_poll_of_a_client_that_went_away_takes_nothing(house: House, client: Boto, sqs: Any, url: str) -> None:
    impatient = client("sqs", read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        impatient.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    until(lambda: not house.front.waits.waiting)
    sqs.send_message(QueueUrl=url, MessageBody="a")
    assert bodies(sqs.receive_message(QueueUrl=url)) == ["a"]


def test_a_long_poll_ends_when_a_message_becomes_visible_again(client: Boto, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="again")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=1)
    assert bodies(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)) == ["again"]
    sqs.send_message(QueueUrl=url, MessageBody="delayed", DelaySeconds=1)
    assert bodies(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)) == ["delayed"]
    assert not bodies(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1))


# --- FIFO
@pytest.mark.parametrize(("entry", "told"), [
    ({}, "The request must contain the parameter MessageGroupId."),
    ({"MessageGroupId": "g"}, "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId"),
])  # fmt: skip
def test_a_batch_of_a_fifo_queue_is_refused_whole(world: World, entry: dict[str, Any], told: str) -> None:
    url = world("sqs", "CreateQueue", QueueName="batch.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    right = {"Id": "1", "MessageBody": "b", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    with pytest.raises(ServiceError, match=f"^InvalidParameterValue: {told}"):
        world("sqs", "SendMessageBatch", QueueUrl=url, Entries=[right, {"Id": "2", "MessageBody": "b", **entry}])
    assert messages(world) == []


def test_a_fifo_queue_keeps_the_order_of_each_group(sqs: Any, fifo: str) -> None:
    for group, body in (("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")):
        sqs.send_message(QueueUrl=fifo, MessageBody=body, MessageGroupId=group)
    (first,) = sqs.receive_message(QueueUrl=fifo)["Messages"]
    assert first["Body"] == "a1"
    assert bodies(sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10)) == ["b1", "b2"]  # a waits for its first
    sqs.delete_message(QueueUrl=fifo, ReceiptHandle=first["ReceiptHandle"])
    (second,) = sqs.receive_message(QueueUrl=fifo, AttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert (second["Body"], second["Attributes"]["MessageGroupId"]) == ("a2", "a")
    assert second["Attributes"]["SequenceNumber"] == "3".zfill(20)


def test_a_fifo_queue_takes_an_id_once(sqs: Any, fifo: str) -> None:
    one = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")
    two = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")
    assert one["MessageId"] == two["MessageId"]
    assert one["SequenceNumber"] == two["SequenceNumber"]
    other = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="own")
    assert other["MessageId"] != one["MessageId"]
    assert bodies(sqs.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10)) == ["x", "x"]
    assert code_of(sqs.send_message, QueueUrl=fifo, MessageBody="x") == "MissingParameter"
    assert code_of(sqs.send_message, QueueUrl=fifo, MessageBody="x", MessageGroupId="g", DelaySeconds=3) == "InvalidParameterValue"
    sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="own", MessageDeduplicationId="own", DelaySeconds=0)
    plain = sqs.create_queue(QueueName="plain.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    assert code_of(sqs.send_message, QueueUrl=plain, MessageBody="x", MessageGroupId="g") == "InvalidParameterValue"


# --- dead letters
def test_what_was_received_too_often_goes_to_the_dead_letter_queue(client: Boto, sqs: Any, url: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert json.loads(told)["maxReceiveCount"] == 2
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    sent = sqs.send_message(QueueUrl=url, MessageBody="bad")
    assert bodies(sqs.receive_message(QueueUrl=url)) == bodies(sqs.receive_message(QueueUrl=url)) == ["bad"]
    assert not bodies(sqs.receive_message(QueueUrl=url))
    (got,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["All"], WaitTimeSeconds=5)["Messages"]
    assert got["MessageId"] == sent["MessageId"]
    assert got["Attributes"]["DeadLetterQueueSourceArn"].endswith(":q")
    gone = json.dumps({"deadLetterTargetArn": arn + "x", "maxReceiveCount": 2})
    assert code_of(sqs.set_queue_attributes, QueueUrl=url, Attributes={"RedrivePolicy": gone}) == "InvalidParameterValue"
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": '{"redrivePermission": "denyAll"}'})
    assert code_of(sqs.set_queue_attributes, QueueUrl=url, Attributes={"RedrivePolicy": policy}) == "InvalidParameterValue"


# --- by the clock
def messages(world: World) -> list[Document]:
    return world.app.store.page(Query(kind="sqs.message", account=world.account, region=world.region, limit=1000))


def test_delays_visibility_and_retention_go_by_the_clock(world: World) -> None:
    clock = world.app.clock = FakeClock()
    url = world("sqs", "CreateQueue", QueueName="q", Attributes={"MessageRetentionPeriod": "3600", "DelaySeconds": "5"})["QueueUrl"]
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="a")
    assert not world("sqs", "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20)  # a step does not wait
    told = world("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesDelayed"])
    assert told["Attributes"] == {"ApproximateNumberOfMessagesDelayed": "1"}
    clock.move(5)
    (got,) = world("sqs", "ReceiveMessage", QueueUrl=url)["Messages"]
    clock.move(29)
    assert not world("sqs", "ReceiveMessage", QueueUrl=url)
    clock.move(1)
    (again,) = world("sqs", "ReceiveMessage", QueueUrl=url, VisibilityTimeout=100)["Messages"]
    assert again["ReceiptHandle"] != got["ReceiptHandle"]
    world("sqs", "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=10)
    clock.move(1)
    with pytest.raises(ServiceError, match="beyond the limit"):
        world("sqs", "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=43_200)
    clock.move(9)
    world("sqs", "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=got["ReceiptHandle"], VisibilityTimeout=5)
    assert not world("sqs", "ReceiveMessage", QueueUrl=url)
    clock.move(5)
    assert world("sqs", "ReceiveMessage", QueueUrl=url)
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="b")
    world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])  # an old receipt is one, too
    assert [one.body["text"] for one in messages(world)] == ["b"]
    clock.move(3600)
    assert not world("sqs", "ReceiveMessage", QueueUrl=url)
    queue = next(iter(world.app.store.page(Query(kind="sqs.queue", account=world.account))))
    world.step(queue)
    assert not messages(world)


@pytest.mark.parametrize("fifo", [False, True])
def test_a_receiver_meets_twenty_dead_letters_and_the_queue_lets_the_rest_go(world: World, fifo: bool) -> None:
    clock, sent = FakeClock(), 130
    world.app.clock = clock
    end, given = (".fifo", {"FifoQueue": "true", "ContentBasedDeduplication": "true"}) if fifo else ("", {})
    dead = world("sqs", "CreateQueue", QueueName=f"dead{end}", Attributes=given)["QueueUrl"]
    url = world("sqs", "CreateQueue", QueueName=f"q{end}", Attributes=given)["QueueUrl"]
    for n in range(sent):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=str(n), **({"MessageGroupId": str(n)} if fifo else {}))
    for message in (seen := messages(world)):
        message.body["count"] = 1
    world.app.store.commit(Change(puts=seen))
    policy = json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:{world.account}:dead{end}", "maxReceiveCount": 1})
    world("sqs", "SetQueueAttributes", QueueUrl=url, Attributes={"RedrivePolicy": policy})
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="alive", **({"MessageGroupId": "alive"} if fifo else {}))

    call = world.call()
    assert not call.other("sqs", "ReceiveMessage", QueueUrl=url)
    assert len(call.change.deletes) == 20
    assert "sqs.queue" in {wake.kind for wake in call.change.wakes}
    world.app.store.commit(call.change)
    queue = world.app.store.page(Query(kind="sqs.queue", account=world.account, name_prefix=f"q{end}"))[0]
    looks = 1
    while world.step(queue) == 0.0:
        looks += 1
    assert looks < 10
    (got,) = world("sqs", "ReceiveMessage", QueueUrl=url)["Messages"]  # the few at the front go with it
    assert got["Body"] == "alive"
    told = world("sqs", "GetQueueAttributes", QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert told == {"ApproximateNumberOfMessages": str(sent)}


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_no_more_messages_are_read_than_are_received(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fifo = name.endswith(".fifo")
    given = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
    url = world("sqs", "CreateQueue", QueueName=name, Attributes=given)["QueueUrl"]
    for n in range(60):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=str(n), **({"MessageGroupId": str(n)} if fifo else {}))
    for _ in range(2):
        world("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10)  # these are in flight
    read: list[Document] = []
    store, real_page, real_get = world.app.store, world.app.store.page, world.app.store.get

    def page(query: Query) -> list[Document]:
        read.extend(found := real_page(query))
        return found

    def get(ref: Ref) -> Document | None:
        read.extend([found] if (found := real_get(ref)) else [])
        return found

    monkeypatch.setattr(store, "page", page)
    monkeypatch.setattr(store, "get", get)
    world("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=3)
    assert len([one for one in read if one.kind == "sqs.message"]) == 3


def test_an_id_is_forgotten_after_five_minutes(world: World) -> None:
    clock = world.app.clock = FakeClock()
    given = {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    url = world("sqs", "CreateQueue", QueueName="q.fifo", Attributes=given)["QueueUrl"]
    sent = {"QueueUrl": url, "MessageBody": "a", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = world("sqs", "SendMessage", **sent)["MessageId"]
    assert world("sqs", "SendMessage", **{**sent, "MessageGroupId": "other"})["MessageId"] != first  # ids are a group's here
    clock.move(299)
    assert world("sqs", "SendMessage", **sent)["MessageId"] == first
    clock.move(1)
    assert world("sqs", "SendMessage", **sent)["MessageId"] != first
    (got, *_) = world("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    clock.move(31)
    with pytest.raises(ServiceError, match="has expired"):
        world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])


def test_nothing_is_left_of_a_deleted_queue(world: World) -> None:
    url = world("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    for n in range(3):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=str(n))
    world("sqs", "DeleteQueue", QueueUrl=url)
    assert not world("sqs", "ListQueues")["QueueUrls"]
    world("sqs", "CreateQueue", QueueName="q")
    assert not world("sqs", "ReceiveMessage", QueueUrl=url)
    remains = world.app.store.page(Query(kind="sqs.remains", account=world.account))
    assert world.step(remains[0]) == 0.0
    assert world.step(remains[0]) is None
    assert not messages(world)


# --- the old protocol
def test_clients_of_the_query_protocol_are_served(client: Boto, sqs: Any, url: str) -> None:
    keys = Credentials(client.keys["access_key_id"], client.keys["secret_access_key"])

    def post(body: str) -> str:
        request = AWSRequest("POST", url, data=body, headers={"content-type": "application/x-www-form-urlencoded"})
        SigV4Auth(keys, "sqs", "us-east-1").add_auth(request)
        sent = urllib.request.Request(url, body.encode(), dict(request.headers.items()))
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sent, timeout=60) as answer:
            return str(answer.read().decode())

    told = post(f"Action=SendMessage&Version=2012-11-05&QueueUrl={url}&MessageBody=old")
    assert f"<MD5OfMessageBody>{hashlib.md5(b'old').hexdigest()}</MD5OfMessageBody>" in told
    assert "<Body>old</Body>" in post(f"Action=ReceiveMessage&Version=2012-11-05&QueueUrl={url}")
