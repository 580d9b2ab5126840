"""The nouns: groups and streams live in the folder of logs, not in the store; here are their names and sentences."""

from __future__ import annotations

import re

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError

GROUP_NAME = re.compile(r"[\.\-_/#A-Za-z0-9]{1,512}")
NO_GROUP = "The specified log group does not exist."
NO_STREAM = "The specified log stream does not exist."
GROUP_THERE = "The specified log group already exists"
STREAM_THERE = "The specified log stream already exists"
CONFLICT = "Multiple concurrent requests to update the same resource were in conflict."
BAD_PLACE = "The specified nextToken is invalid."


def group_arn(call: Call, group: str) -> str:
    return f"arn:aws:logs:{call.region}:{call.account}:log-group:{group}"


def missing(sentence: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", sentence)


def invalid(sentence: str) -> ServiceError:
    return ServiceError("InvalidParameterException", sentence)


def group_name(call: Call) -> str:
    """The group that a call names, by logGroupName or logGroupIdentifier (a name or an ARN).

    Raises: ServiceError when it names none.
    """
    given = call.params.get("logGroupName") or call.params.get("logGroupIdentifier")
    if not given:
        raise invalid("Value at 'logGroupName' failed to satisfy constraint: Member must not be null")
    return plain_name(call, str(given))


def plain_name(call: Call, given: str) -> str:
    """A group's name from its name or ARN (with or without ":*").

    Raises: ServiceError for an ARN of another account or region.
    """
    if given.startswith("arn:"):
        place, _, given = given.partition(":log-group:")
        if place.split(":")[2:] != ["logs", call.region, call.account]:
            raise missing(NO_GROUP)
        given = given.removesuffix(":*")
    return given
