"""What attributes, messages and batches must be, and the checksums that clients check. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kernel import jsontext
from penstock.kernel.errors import ServiceError

MEBIBYTE = 1 << 20
NUMBERS: dict[str, tuple[int, int, int]] = {
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1024, MEBIBYTE, MEBIBYTE),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400, 300),
}
"""Attributes that are numbers: the least, the most, and what holds where none is given."""
WORDS: dict[str, tuple[str, ...]] = {
    "FifoQueue": ("true",),
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "SqsManagedSseEnabled": ("true", "false"),
}
"""Attributes that are one of a few words."""
FREE = ("Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId")
FIFO_ONLY = ("ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit")
SHOWN_ALWAYS = ("DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "VisibilityTimeout")
COUNTED = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")
TOLD = ("QueueArn", "CreatedTimestamp", "LastModifiedTimestamp", *COUNTED)
READABLE = frozenset({"All", *NUMBERS, *WORDS, *FREE, *TOLD})

SYSTEM = frozenset({
    "All", "SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber",
    "MessageDeduplicationId", "MessageGroupId", "AWSTraceHeader", "DeadLetterQueueSourceArn",
})  # fmt: skip
"""The attributes that a message has of its own."""
UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no message may hold."""
ENTRY_ID = re.compile(r"[A-Za-z0-9_\-]{1,80}")
FIFO_ID = re.compile(r"[!-~]{1,128}")
ATTRIBUTE_NAME = re.compile(r"(?!.*\.\.)(?!\.)[A-Za-z0-9_\-.]{1,256}(?<!\.)")
ATTRIBUTE_TYPE = re.compile(r"(String|Number|Binary)(\..+)?")
OWN_NAMES = re.compile(r"(aws|amazon)\.", re.IGNORECASE)
MOST_ATTRIBUTES, MOST_ENTRIES = 10, 10


def unfit_value(sentence: str) -> ServiceError:
    return ServiceError("InvalidParameterValue", sentence)


# --- queues
def check_name(name: str, fifo: bool) -> None:
    """Raises: ServiceError InvalidParameterValue for what no queue of that kind may be called."""
    if not re.fullmatch(r"[A-Za-z0-9_\-]{1,80}", name.removesuffix(".fifo")) or len(name) > 80:
        raise unfit_value("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
    if fifo != name.endswith(".fifo"):
        raise unfit_value(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo "
            "suffix and be 1 to 80 in length."
        )


def check_attributes(given: Mapping[str, str], fifo: bool) -> None:
    """Raises: ServiceError InvalidAttributeName, InvalidAttributeValue for what a queue of that kind cannot have."""
    for name, value in given.items():
        if name not in (*NUMBERS, *WORDS, *FREE) or (name in FIFO_ONLY and not fifo):
            raise ServiceError("InvalidAttributeName", f"Unknown Attribute {name}.")
        if not _fits(name, value):
            raise ServiceError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
    if given.get("FifoThroughputLimit") == "perMessageGroupId" and given.get("DeduplicationScope") == "queue":
        raise ServiceError(
            "InvalidAttributeValue", "The perMessageGroupId value is allowed only when the value for DeduplicationScope is messageGroup."
        )


def _fits(name: str, value: str) -> bool:
    if name in NUMBERS:
        least, most, _ = NUMBERS[name]
        return bool(re.fullmatch(r"\d{1,9}", value, re.ASCII)) and least <= int(value) <= most
    if name in WORDS:
        return value in WORDS[name]
    if value == "" or name == "KmsMasterKeyId":
        return True  # an empty text takes the attribute away
    try:
        document = jsontext.read(value)
    except ValueError:
        return False
    if name == "RedrivePolicy":
        return isinstance(document, dict) and redrive(value) is not None
    return isinstance(document, dict)


def redrive(policy: str | None) -> tuple[str, int] | None:
    """The ARN of the dead-letter queue and how often a message may be received, as a RedrivePolicy says; None for none."""
    try:
        document = json.loads(policy or "{}")
        arn, most = document.get("deadLetterTargetArn"), int(document.get("maxReceiveCount", 10))
    except (ValueError, TypeError, AttributeError):
        return None
    known = isinstance(arn, str) and re.fullmatch(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:\d{12}:[A-Za-z0-9_.-]+", arn)
    return (arn, most) if known and 1 <= most <= 1000 else None


def allows(policy: str | None, source_arn: str) -> bool:
    """Whether a RedriveAllowPolicy lets a queue have its dead letters in the one whose policy it is."""
    try:
        document = json.loads(policy or "{}")
    except ValueError:
        return True
    who = document.get("redrivePermission", "allowAll")
    return who == "allowAll" or (who == "byQueue" and source_arn in (document.get("sourceQueueArns") or ()))


def kept(name: str, value: str) -> str:
    """An attribute's text as it is shown again: a RedrivePolicy's count is a number, however it was written."""
    found = redrive(value) if name == "RedrivePolicy" else None
    return json.dumps({**json.loads(value), "maxReceiveCount": found[1]}) if found else value


def number(attributes: Mapping[str, str], name: str) -> int:
    """The value of an attribute that is a number."""
    return int(attributes.get(name, NUMBERS[name][2]))


# --- messages
def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(given: Mapping[str, Mapping[str, Any]]) -> str:
    """The checksum of message attributes, over names, types and values by name.

    Source: docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for name, value in sorted(given.items()):
        for text in (name, value["DataType"]):
            digest.update(struct.pack("!I", len(text.encode())) + text.encode())
        binary = value["DataType"].partition(".")[0] == "Binary"
        raw = base64.b64decode(value["BinaryValue"]) if binary else value["StringValue"].encode()
        digest.update((b"\x02" if binary else b"\x01") + struct.pack("!I", len(raw)) + raw)
    return digest.hexdigest()


def read_attributes(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Message attributes as they are kept: binary values as base64.

    Raises: ServiceError InvalidParameterValue.
    """
    if len(given) > MOST_ATTRIBUTES:
        raise unfit_value(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MOST_ATTRIBUTES}].")
    return {name: _read_attribute(name, value) for name, value in given.items()}


def _read_attribute(name: str, value: Mapping[str, Any]) -> dict[str, str]:
    if not ATTRIBUTE_NAME.fullmatch(name) or OWN_NAMES.match(name):
        raise unfit_value(
            f"The message attribute name '{name[:256]}' is invalid. Attribute name can contain A-Z, a-z, 0-9, underscore (_), hyphen (-), "
            "and period (.) characters."
        )
    kind = value.get("DataType") or ""
    if not ATTRIBUTE_TYPE.fullmatch(kind) or len(kind) > 256:
        raise unfit_value(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes is Binary, "
            "Number, and String."
        )
    if value.get("StringListValues") or value.get("BinaryListValues"):
        raise ServiceError("UnsupportedOperation", "Message attribute list values in SendMessage operation are not supported.")
    member = "BinaryValue" if kind.partition(".")[0] == "Binary" else "StringValue"
    held = value.get(member)
    if not held:
        raise unfit_value(f"Message (user) attribute '{name}' must contain a non-empty value of type '{kind.partition('.')[0]}'.")
    if isinstance(held, bytes):
        held = base64.b64encode(held).decode()
    elif UNFIT.search(held):
        raise unfit_value(f"Invalid binary character was found in the message attribute '{name}'.")
    if kind.partition(".")[0] == "Number" and not _is_number(held):
        raise unfit_value(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    return {"DataType": kind, member: held}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def from_base64(text: str) -> bytes:
    return base64.b64decode(text)


def weigh(text: str, attributes: Mapping[str, Mapping[str, str]]) -> int:
    """The bytes of a message that its size limit counts: its text, and its attributes' names, types and values."""
    size = len(text.encode())
    for name, value in attributes.items():
        held = value["StringValue"].encode() if "StringValue" in value else base64.b64decode(value["BinaryValue"])
        size += len(name.encode()) + len(value["DataType"].encode()) + len(held)
    return size


def wanted(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The message attributes whose names were asked for: "All", ".*", "prefix.*", or a name."""
    if any(name in ("All", ".*") for name in names):
        return dict(given)
    starts = tuple(name.removesuffix(".*") for name in names if name.endswith(".*"))
    return {name: value for name, value in given.items() if name in names or (starts and name.startswith(starts))}


# --- receipts
def write_receipt(message: str, count: int) -> str:
    """The handle by which a receipt of a message is named."""
    return base64.urlsafe_b64encode(f"{message} {count}".encode()).decode()


def read_receipt(handle: str) -> tuple[str, int] | None:
    """The message and the count of a receipt; None for what is no handle."""
    try:
        message, _, count = base64.urlsafe_b64decode(handle.encode()).decode().partition(" ")
        return (message, int(count)) if message and count.isdecimal() else None
    except (binascii.Error, ValueError):
        return None


# --- batches
def check_entries(entries: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raises: ServiceError for a batch that is empty or too large, or whose ids do not tell its entries apart."""
    if not entries:
        raise ServiceError("EmptyBatchRequest", f"There should be at least one {name}RequestEntry in the request.")
    if len(entries) > MOST_ENTRIES:
        raise ServiceError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MOST_ENTRIES}. You have sent {len(entries)}.",
        )
    seen: set[str] = set()
    for entry in entries:
        if not ENTRY_ID.fullmatch(entry["Id"]):
            raise ServiceError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.",
            )
        if entry["Id"] in seen:
            raise ServiceError("BatchEntryIdsNotDistinct", f"Id {entry['Id']} repeated.")
        seen.add(entry["Id"])
