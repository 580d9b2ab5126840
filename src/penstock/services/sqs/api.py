"""Operations on queues: their life, attributes, permissions and tags."""

from __future__ import annotations

import json
import re
from typing import Any

from penstock.kernel import tags
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sqs import rules
from penstock.services.sqs.moves.state import tasks_of
from penstock.services.sqs.state import QUEUE, feeds, is_fifo, leave, messages_of, new_parent, queue_of, url_of
from penstock.store.records import Document, TagsGone, TagsPut

LABEL = re.compile(r"[A-Za-z0-9_\-]{1,80}")
ACTIONS = frozenset({
    "*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl",
    "ListDeadLetterSourceQueues", "PurgeQueue",
})  # fmt: skip


# --- life
def create_queue(call: Call) -> dict[str, Any]:
    """Makes a queue; one that is there with the same attributes is as good.

    Differs: the name of a deleted queue is free at once, and not after a minute.
    """
    name, given = call.params["QueueName"], dict(call.params.get("Attributes") or {})
    fifo = given.get("FifoQueue") == "true"
    rules.check_name(name, fifo)
    rules.check_attributes(given, fifo)
    known = QUEUE.find(call, name)
    if known is not None:
        _check_same(known, given)
        return {"QueueUrl": url_of(call, known)}
    held = {key: rules.kept(key, value) for key, value in given.items() if value != ""}
    body = {"Attributes": held, "_messages": new_parent(), "_sequence": 0}
    queue = QUEUE.create(call, name, body=body)
    _check_redrive(call, queue, given)
    if wanted := call.params.get("tags"):
        call.row(TagsPut(arn=queue.arn, tags=_tags(wanted)))
    call.wake(queue.ref, call.now + 60.0)
    return {"QueueUrl": url_of(call, queue)}


def _check_same(queue: Document, given: dict[str, str]) -> None:
    """Raises: ServiceError QueueNameExists for another value of an attribute than the queue's."""
    held = queue.body["Attributes"]
    for name, value in given.items():
        default = str(rules.NUMBERS[name][2]) if name in rules.NUMBERS else {"SqsManagedSseEnabled": "true"}.get(name, "")
        if rules.kept(name, value) != held.get(name, default):
            raise ServiceError(
                "QueueNameExists", f"A queue already exists with the same name and a different value for attribute {name}"
            )


def get_queue_url(call: Call) -> dict[str, Any]:
    """Gives the URL of a queue."""
    if call.params.get("QueueOwnerAWSAccountId", call.account) != call.account:
        raise QUEUE.error(QUEUE.missing, call, call.params["QueueName"])
    return {"QueueUrl": url_of(call, QUEUE.get(call))}


def list_queues(call: Call) -> dict[str, Any]:
    """Lists the URLs of queues, by name."""
    if prefix := call.params.get("QueueNamePrefix"):
        call.params["NamePrefix"] = prefix
    _check_most(call)
    answer = QUEUE.page(call, "QueueUrls", order="name", descending=False, show=lambda queue: {"url": url_of(call, queue)})
    return _only_if_paged(call, answer, [one["url"] for one in answer["QueueUrls"]], "QueueUrls")


def delete_queue(call: Call) -> None:
    """Deletes a queue; its messages can be received no more."""
    queue = queue_of(call)
    leave(call, queue)
    call.delete(queue)
    call.row(TagsGone(arn=queue.arn))
    for task in tasks_of(call, queue):
        call.delete(task)
    call.tell(queue.body["_messages"])


def purge_queue(call: Call) -> None:
    """Deletes all messages of a queue.

    Differs: at once; a second purge within a minute is taken.
    """
    queue = queue_of(call)
    leave(call, queue)
    QUEUE.save(call, queue, _messages=new_parent())


def list_dead_letter_source_queues(call: Call) -> dict[str, Any]:
    """Lists the URLs of the queues whose dead letters go to this one."""
    target = queue_of(call).arn
    _check_most(call)
    answer = QUEUE.page(
        call, "queueUrls", order="name", descending=False, keep=lambda queue: feeds(queue, target),
        show=lambda queue: {"url": url_of(call, queue)},
    )  # fmt: skip
    return _only_if_paged(call, answer, [one["url"] for one in answer["queueUrls"]], "queueUrls")


def _check_most(call: Call) -> None:
    most = call.params.get("MaxResults")
    if most is not None and not 1 <= most <= 1000:
        raise rules.unfit_value(f"Value {most} for parameter MaxResults is invalid. Reason: Must be an integer from 1 to 1000.")


def _only_if_paged(call: Call, answer: dict[str, Any], urls: list[str], member: str) -> dict[str, Any]:
    """SQS gives a token only where a page was asked for."""
    if "MaxResults" not in call.params:
        answer.pop("NextToken", None)
    return answer | {member: urls}


# --- attributes
def get_queue_attributes(call: Call) -> dict[str, Any]:
    """Tells a queue's attributes, and how many messages it has."""
    queue, names = queue_of(call), call.params.get("AttributeNames") or []
    for name in names:
        if name not in rules.READABLE:
            raise ServiceError("InvalidAttributeName", f"Unknown Attribute {name}.")
    shown = _shown(queue)
    everything = "All" in names
    if everything or any(name in rules.COUNTED for name in names):
        shown |= {name: str(count) for name, count in _count_messages(call, queue).items()}
    asked = {name: value for name, value in shown.items() if everything or name in names}
    return {"Attributes": asked} if asked else {}


def _shown(queue: Document) -> dict[str, str]:
    held = queue.body["Attributes"]
    shown = {
        "QueueArn": queue.arn,
        "CreatedTimestamp": str(int(queue.created)),
        "LastModifiedTimestamp": str(int(queue.body["LastModifiedTimestamp"])),
        "SqsManagedSseEnabled": "false" if "KmsMasterKeyId" in held else "true",
        **{name: str(rules.NUMBERS[name][2]) for name in rules.SHOWN_ALWAYS},
    }
    if "KmsMasterKeyId" in held:
        shown["KmsDataKeyReusePeriodSeconds"] = str(rules.NUMBERS["KmsDataKeyReusePeriodSeconds"][2])
    if is_fifo(queue):
        shown |= {"ContentBasedDeduplication": "false", "DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}
    return {**shown, **held}


def _count_messages(call: Call, queue: Document) -> dict[str, int]:
    """How many messages can be received, are received and not deleted, and are delayed."""
    kept_from = call.now - rules.number(queue.body["Attributes"], "MessageRetentionPeriod")
    count = call.app.store.count
    every = count(messages_of(queue, created_after=kept_from))
    later = count(messages_of(queue, created_after=kept_from, rank_after=call.now))
    delayed = count(messages_of(queue, created_after=kept_from, rank_after=call.now, status="sent")) if later else 0
    return dict(zip(rules.COUNTED, (every - later, later - delayed, delayed), strict=True))


def set_queue_attributes(call: Call) -> None:
    """Changes attributes of a queue; an empty text takes one away."""
    queue, given = queue_of(call), call.params["Attributes"]
    if "FifoQueue" in given and not is_fifo(queue):
        raise ServiceError("InvalidAttributeName", "Unknown Attribute FifoQueue.")
    held = queue.body["Attributes"] | given
    rules.check_attributes(given, is_fifo(queue))
    rules.check_attributes({name: held[name] for name in rules.FIFO_ONLY if name in held}, is_fifo(queue))
    _check_redrive(call, queue, given)
    QUEUE.save(call, queue, Attributes={name: rules.kept(name, value) for name, value in held.items() if value != ""})
    call.tell(queue.body["_messages"])


def _check_redrive(call: Call, queue: Document, given: dict[str, str]) -> None:
    """Raises: ServiceError for a dead-letter queue that is not there, is of the other kind, or does not let this one."""
    policy = given.get("RedrivePolicy")
    found = rules.redrive(policy)
    if not policy or found is None:
        return
    target = QUEUE.find(call, found[0])
    why = ""
    if target is None:
        raise rules.unfit_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist.")
    if target.region != queue.region:
        why = "Dead-letter target must be in the same region as the source."
    elif is_fifo(target) != is_fifo(queue):
        kind = "FIFO" if is_fifo(queue) else "standard"
        why = f"Dead-letter queue must be same type of queue as the source: {kind}."
    elif not rules.allows(target.body["Attributes"].get("RedriveAllowPolicy"), queue.arn):
        why = "The dead-letter queue's RedriveAllowPolicy does not allow this source queue."
    if why:
        raise rules.unfit_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: {why}")


# --- permissions
def add_permission(call: Call) -> None:
    """Adds a statement to the queue's policy.

    Differs: policies are kept and shown, and not enforced.
    """
    queue, label = queue_of(call), call.params["Label"]
    accounts, actions = call.params["AWSAccountIds"], call.params["Actions"]
    if not LABEL.fullmatch(label):
        raise rules.unfit_value(f"Value {label[:80]} for parameter Label is invalid. Reason: Must be alphanumeric, 1 to 80 characters.")
    if unknown := [action for action in actions if action not in ACTIONS]:
        raise rules.unfit_value(
            f"Value SQS:{unknown[0]} for parameter ActionName is invalid. Reason: Please refer to the appropriate WSDL for a list "
            "of valid actions."
        )
    if not actions:
        raise ServiceError("MissingParameter", "The request must contain the parameter Actions.")
    if not accounts or not all(re.fullmatch(r"\d{12}", account) for account in accounts):
        raise rules.unfit_value(f"Value {accounts} for parameter PrincipalId is invalid. Reason: Unable to verify.")
    policy = _policy(queue)
    if any(statement.get("Sid") == label for statement in policy["Statement"]):
        raise rules.unfit_value(f"Value {label} for parameter Label is invalid. Reason: Already exists.")
    if len(policy["Statement"]) >= 20:
        raise ServiceError("OverLimit", "A policy may have at most 20 statements.", 403)
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    named = [f"SQS:{action}" for action in actions]
    policy["Statement"].append({
        "Sid": label, "Effect": "Allow", "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
        "Action": named[0] if len(named) == 1 else named, "Resource": queue.arn,
    })  # fmt: skip
    _keep_policy(call, queue, policy)


def remove_permission(call: Call) -> None:
    """Removes a statement from the queue's policy."""
    queue, label = queue_of(call), call.params["Label"]
    policy = _policy(queue)
    left = [statement for statement in policy["Statement"] if statement.get("Sid") != label]
    if len(left) == len(policy["Statement"]):
        raise rules.unfit_value(f"Value {label[:80]} for parameter Label is invalid. Reason: can't find label on existing policy.")
    _keep_policy(call, queue, policy | {"Statement": left})


def _policy(queue: Document) -> dict[str, Any]:
    fresh: dict[str, Any] = {"Version": "2012-10-17", "Id": f"{queue.arn}/SQSDefaultPolicy", "Statement": []}
    policy: dict[str, Any] = fresh | json.loads(queue.body["Attributes"].get("Policy") or "{}")
    if isinstance(policy["Statement"], dict):
        policy["Statement"] = [policy["Statement"]]
    return policy


def _keep_policy(call: Call, queue: Document, policy: dict[str, Any]) -> None:
    held = {name: value for name, value in queue.body["Attributes"].items() if name != "Policy"}
    QUEUE.save(call, queue, Attributes=held | ({"Policy": json.dumps(policy)} if policy["Statement"] else {}))


# --- tags
def tag_queue(call: Call) -> None:
    queue = queue_of(call)
    given = _tags(call.params["Tags"])
    if len({**call.app.store.tags(queue.arn), **given}) > tags.MOST:
        raise rules.unfit_value(f"Too many tags added for queue {queue.name}.")
    call.row(TagsPut(arn=queue.arn, tags=given))


def untag_queue(call: Call) -> None:
    queue = queue_of(call)
    if not call.params["TagKeys"]:
        raise rules.unfit_value("Tag keys must be between 1 and 128 characters in length.")
    call.row(TagsGone(arn=queue.arn, keys=call.params["TagKeys"]))


def list_queue_tags(call: Call) -> dict[str, Any]:
    found = call.app.store.tags(queue_of(call).arn)
    return {"Tags": found} if found else {}


def _tags(given: dict[str, str]) -> dict[str, str]:
    if not given:
        raise ServiceError("MissingParameter", "The request must contain the parameter Tags.")
    for key, value in given.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise rules.unfit_value("Tag keys must be between 1 and 128 characters in length, and values at most 256.")
    return tags.parse([{"Key": key, "Value": value} for key, value in given.items()], "InvalidParameterValue")


