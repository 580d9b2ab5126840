"""The operations on log groups, streams and events."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.kernel.logs import LogLine, Logs, Stream
from penstock.services.logs import rules
from penstock.services.logs.state import (
    BAD_PLACE,
    CONFLICT,
    GROUP_NAME,
    GROUP_THERE,
    NO_GROUP,
    NO_STREAM,
    STREAM_THERE,
    group_arn,
    group_name,
    invalid,
    missing,
    plain_name,
)
from penstock.store.records import Change, Row, TagsGone, TagsPut

PAGE_BYTES = 1 << 20
HELD_S, AGAIN_S = 10.0, 0.01
"""How long a call waits for another that makes or drops the same group, and when it looks again."""
SHORT = 1000
"""Lines read at a time from each stream that is merged."""


# --- groups
def create_log_group(call: Call) -> None:
    name = str(call.params["logGroupName"])
    if not GROUP_NAME.fullmatch(name):
        raise invalid(
            f"Value '{name}' at 'logGroupName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {GROUP_NAME.pattern}"
        )
    about = {
        key: call.params[given]
        for given, key in (("kmsKeyId", "kms"), ("logGroupClass", "class"))
        if given in call.params
    }
    place = (call.account, call.region, name)
    rows: list[Row] = [TagsGone(arn=group_arn(call, name))]  # of a group of that name of which only the tags were written
    if tags := call.params.get("tags"):
        rows.append(TagsPut(arn=group_arn(call, name), tags=tags))
    logs = _logs(call)

    def check() -> None:
        if logs.about_group(*place) is not None:
            raise ServiceError("ResourceAlreadyExistsException", GROUP_THERE)

    call.later = _holding(call, place, rows, check, lambda: logs.make_group(*place, created_ms=int(call.now * 1000), **about))


def delete_log_group(call: Call) -> None:
    """Deletes a group with its streams; its tags go first, so that who is told of a failure can ask again."""
    name, logs = _group(call), _logs(call)
    place = (call.account, call.region, name)
    rows: list[Row] = [TagsGone(arn=group_arn(call, name))]

    def check() -> None:
        _group(call)

    call.later = _holding(call, place, rows, check, lambda: logs.drop_group(*place))


def _holding(
    call: Call, place: tuple[str, str, str], rows: list[Row], check: Callable[[], None], act: Callable[[], None]
) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What makes or drops a group beside the event loop: holds it, checks, commits the rows, and acts once they are durable.

    Whatever fails or dies on the way, nothing was acknowledged, and the same call does it again.
    """

    async def perform() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        held = await _hold(_logs(call), place)
        try:
            await loop.run_in_executor(None, check)
            await call.app.store.commit_async(Change(rows=rows))
            await loop.run_in_executor(None, act)
        finally:
            await loop.run_in_executor(None, held.close)
        return {}

    return perform


@slow
def describe_log_groups(call: Call) -> dict[str, Any]:
    prefix, pattern = call.params.get("logGroupNamePrefix", ""), call.params.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
    named = {plain_name(call, given) for given in call.params.get("logGroupIdentifiers", ())}
    wanted_class = call.params.get("logGroupClass")
    shown = [
        _show_group(call, about)
        for about in _logs(call).groups(call.account, call.region)
        if about["name"].startswith(prefix)
        and pattern.lower() in about["name"].lower()
        and (not named or about["name"] in named)
        and (not wanted_class or about.get("class", "STANDARD") == wanted_class)
    ]
    return _page(call, "logGroups", shown, "logGroupName")


@slow
def put_retention_policy(call: Call) -> None:
    """Keeps the group's retention; upkeep drops streams by it.

    Differs: a stream goes as a whole, when its last line is older than the retention.
    """
    _logs(call).change_group(call.account, call.region, _group(call), retention=call.params["retentionInDays"])


@slow
def delete_retention_policy(call: Call) -> None:
    _logs(call).change_group(call.account, call.region, _group(call), retention=None)


async def _hold(logs: Logs, place: tuple[str, str, str]) -> ExitStack:
    """Holds a group, once whoever holds it has done. Raises: ServiceError OperationAbortedException where that takes long."""
    loop, held = asyncio.get_running_loop(), ExitStack()
    end = loop.time() + HELD_S
    while True:
        try:
            await loop.run_in_executor(None, held.enter_context, logs.holding(*place))
            return held
        except (BlockingIOError, FileNotFoundError):  # held, or dropped at this moment
            if loop.time() > end:
                raise ServiceError("OperationAbortedException", CONFLICT) from None
        await asyncio.sleep(AGAIN_S)


# --- tags
def tag_log_group(call: Call) -> None:
    call.row(TagsPut(arn=group_arn(call, _group(call)), tags=call.params["tags"]))


def untag_log_group(call: Call) -> None:
    call.row(TagsGone(arn=group_arn(call, _group(call)), keys=call.params["tags"]))


def list_tags_log_group(call: Call) -> dict[str, Any]:
    return {"tags": call.app.store.tags(group_arn(call, _group(call)))}


def tag_resource(call: Call) -> None:
    call.row(TagsPut(arn=group_arn(call, _tagged(call)), tags=call.params["tags"]))


def untag_resource(call: Call) -> None:
    call.row(TagsGone(arn=group_arn(call, _tagged(call)), keys=call.params["tagKeys"]))


def list_tags_for_resource(call: Call) -> dict[str, Any]:
    return {"tags": call.app.store.tags(group_arn(call, _tagged(call)))}


# --- streams
@slow
def create_log_stream(call: Call) -> None:
    group, stream = _group(call), call.params["logStreamName"]
    try:
        _logs(call).make_stream(call.account, call.region, group, stream)
    except FileExistsError:
        raise ServiceError("ResourceAlreadyExistsException", STREAM_THERE) from None
    except (BlockingIOError, FileNotFoundError):
        raise missing(NO_GROUP) from None


@slow
def delete_log_stream(call: Call) -> None:
    group = _group(call)
    try:
        _logs(call).drop_stream(call.account, call.region, group, call.params["logStreamName"])
    except FileNotFoundError:
        raise missing(NO_STREAM) from None


@slow
def describe_log_streams(call: Call) -> dict[str, Any]:
    """Differs: a listing by LastEventTime takes that moment from the file's end, so it is never behind."""
    group, prefix = _group(call), call.params.get("logStreamNamePrefix", "")
    by_time = call.params.get("orderBy") == "LastEventTime"
    if by_time and prefix:
        raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    logs = _logs(call)
    names = sorted(logs.streams(call.account, call.region, group, prefix), reverse=bool(call.params.get("descending")))
    if not by_time:  # only the streams of this page are opened
        page = _page(call, "logStreams", [{"logStreamName": name} for name in names], "logStreamName")
        found = (logs.about(call.account, call.region, group, entry["logStreamName"]) for entry in page["logStreams"])
        page["logStreams"] = [_show_stream(call, group, about) for about in found if about]
        return page
    every = [about for name in names if (about := logs.about(call.account, call.region, group, name))]
    every.sort(key=lambda about: (about.last_ms, about.name), reverse=bool(call.params.get("descending")))
    return _page(call, "logStreams", [_show_stream(call, group, about) for about in every], "logStreamName")


# --- events
def put_log_events(call: Call) -> dict[str, Any]:
    """Keeps events that are not older than two weeks, nor of a moment that is hours away; tells of the others.

    Differs: events are kept in the order they came in; no sequence token is asked for.
    """
    group, stream = _group(call), call.params["logStreamName"]
    file = _file(call, group, stream)
    events = [(int(event["timestamp"]), str(event["message"])) for event in call.params["logEvents"]]
    if any(later < earlier for (earlier, _), (later, _) in itertools.pairwise(events)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    old, new = rules.in_time([moment for moment, _ in events], int(call.now * 1000))
    _logs(call).append_events(file, events[old:new])
    rejected = ({"tooOldLogEventEndIndex": old} if old else {}) | (
        {"tooNewLogEventStartIndex": new} if new < len(events) else {}
    )
    answer: dict[str, Any] = {"nextSequenceToken": str(_hash_of(stream)) + str(int(call.now * 1000))}
    return answer | ({"rejectedLogEventsInfo": rejected} if rejected else {})


@slow
def get_log_events(call: Call) -> dict[str, Any]:
    """A page of a stream, from its head or its end; the token of a place stays the same while nothing follows."""
    given = call.params
    file = _file(call, _group(call), given["logStreamName"])
    limit, since, until = int(given.get("limit", 10_000)), given.get("startTime"), given.get("endTime")
    token = given.get("nextToken", "")
    way, place = _place(token) if token else ("f" if given.get("startFromHead") else "b", None)
    logs = _logs(call)
    if way == "f":
        begin = place or 0
        lines, end = logs.read(file, begin, limit, since, until)
        begin = lines[0].place if lines else begin
    else:
        lines, begin, end = logs.read_back(file, place, limit, since, until)
    return {
        "events": [{"timestamp": line.time_ms, "message": line.text, "ingestionTime": line.time_ms} for line in lines],
        "nextForwardToken": f"f/{end:056d}/s",
        "nextBackwardToken": f"b/{begin:056d}/s",
    }


@slow
def filter_log_events(call: Call) -> dict[str, Any]:
    """Events of several streams in order of time, those that match the pattern; the token is the last event given."""
    given = call.params
    group = _group(call)
    wanted = rules.parse(given.get("filterPattern"))
    after = _unseal(given["nextToken"]) if given.get("nextToken") else None
    since = max(int(given.get("startTime", 0)), int(after[0]) if after else 0)
    limit, left = int(given.get("limit", 10_000)), PAGE_BYTES
    merged = heapq.merge(*(_events(call, group, name, since, given.get("endTime")) for name in _chosen(call, group)))
    events: list[dict[str, Any]] = []
    last: list[Any] = []
    more = False
    for time_ms, name, place, line in merged:
        if after and [time_ms, name, place] <= after:
            continue
        if len(events) >= limit or left < 0:
            more = True
            break
        left -= line.after - line.place
        last = [time_ms, name, place]
        if wanted(line.text):
            events.append(
                {
                    "logStreamName": name,
                    "timestamp": time_ms,
                    "message": line.text,
                    "ingestionTime": time_ms,
                    "eventId": _event_id(name, time_ms, place),
                }
            )
    return {"events": events, "searchedLogStreams": [], **({"nextToken": pages.seal(last)} if more else {})}


# --- what they share
def _logs(call: Call) -> Logs:
    logs: Logs = call.app.logs
    return logs


def _group(call: Call) -> str:
    name = group_name(call)
    if _logs(call).about_group(call.account, call.region, name) is None:
        raise missing(NO_GROUP)
    return name


def _tagged(call: Call) -> str:
    name = plain_name(call, call.params["resourceArn"])
    if _logs(call).about_group(call.account, call.region, name) is None:
        raise missing(NO_GROUP)
    return name


def _file(call: Call, group: str, stream: str) -> str:
    file = _logs(call).file(call.account, call.region, group, stream)
    if not file.exists():
        raise missing(NO_STREAM)
    return str(file)


def _show_group(call: Call, about: dict[str, Any]) -> dict[str, Any]:
    arn = group_arn(call, about["name"])
    shown = {
        "logGroupName": about["name"],
        "creationTime": about.get("created_ms", 0),
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "storedBytes": 0,
        "logGroupClass": about.get("class", "STANDARD"),
        "logGroupArn": arn,
    }
    for name, member in (("retention", "retentionInDays"), ("kms", "kmsKeyId")):
        if name in about:
            shown[member] = about[name]
    return shown


def _show_stream(call: Call, group: str, about: Stream) -> dict[str, Any]:
    shown = {
        "logStreamName": about.name,
        "creationTime": about.created_ms,
        "arn": f"{group_arn(call, group)}:log-stream:{about.name}",
        "storedBytes": 0,
        "uploadSequenceToken": str(_hash_of(about.name)),
    }
    if about.last_ms:
        shown |= {
            "firstEventTimestamp": about.first_ms,
            "lastEventTimestamp": about.last_ms,
            "lastIngestionTime": about.written_ms,
        }
    return shown


def _page(call: Call, output: str, entries: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """One page of a list; the token names the last entry of the page before."""
    limit = int(call.params.get("limit", 50))
    start = 0
    if token := call.params.get("nextToken"):
        last = _unseal(token)
        start = next((place + 1 for place, entry in enumerate(entries) if entry[key] == last[0]), len(entries))
    page = entries[start : start + limit]
    more = start + limit < len(entries)
    return {output: page, **({"nextToken": pages.seal([page[-1][key], ""])} if more else {})}


def _unseal(token: str) -> list[Any]:
    try:
        return pages.unseal(token, "InvalidParameterException")
    except ServiceError:
        raise invalid(BAD_PLACE) from None


def _place(token: str) -> tuple[str, int]:
    way, _, rest = token.partition("/")
    digits = rest.partition("/")[0]
    if way not in ("f", "b") or not digits.isdigit():
        raise invalid(BAD_PLACE)
    return way, int(digits)


def _chosen(call: Call, group: str) -> list[str]:
    names, prefix = call.params.get("logStreamNames"), call.params.get("logStreamNamePrefix")
    if names and prefix:
        raise invalid("Only one of logStreamNames and logStreamNamePrefix may be given.")
    if not names:
        return sorted(_logs(call).streams(call.account, call.region, group, prefix or ""))
    for name in names:
        _file(call, group, name)
    return sorted(names)


def _events(
    call: Call, group: str, name: str, since_ms: int, until_ms: int | None
) -> Iterator[tuple[int, str, int, LogLine]]:
    logs = _logs(call)
    file = logs.file(call.account, call.region, group, name)
    try:
        if file.stat().st_mtime * 1000 < since_ms - 60_000:  # nothing since; a minute for others' clocks
            return
        place = 0
        while True:
            lines, end = logs.read(str(file), place, SHORT, since_ms or None, until_ms)
            for line in lines:
                yield line.time_ms, name, line.place, line
            if end == place or len(lines) == 0:
                return
            place = end
    except FileNotFoundError:  # deleted meanwhile
        return


def _event_id(name: str, time_ms: int, place: int) -> str:
    return f"{time_ms:020d}{_hash_of(name) % 10**18:018d}{place:018d}"


def _hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
