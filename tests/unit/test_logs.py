"""Log streams as files, and CloudWatch Logs on them."""

from __future__ import annotations

import asyncio
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.kernel.logs import Logs
from penstock.services.logs import api, rules
from penstock.store.records import Change, TagsGone, TagsPut

ACCOUNT, REGION, GROUP = "123456789012", "us-east-1", "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs")


class Tags:
    """A store that keeps what is written, or fails."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.full = False

    async def commit_async(self, change: Change) -> None:
        if self.full:
            raise OSError("no space left")
        self.rows += change.rows


@pytest.fixture
def tags() -> Tags:
    return Tags()


@pytest.fixture
def ask(logs: Logs, tags: Tags):
    """Calls an operation by its function's name."""

    def ask(operation: str, **params: Any) -> dict[str, Any]:
        app: Any = SimpleNamespace(logs=logs, store=tags)
        caller = Caller(account=ACCOUNT, arn=f"arn:aws:iam::{ACCOUNT}:user/u")
        ask.call = Call(
            app=app,
            caller=caller,
            service="logs",
            operation=operation,
            region=REGION,
            params=params,
            request_id="r",
            now=1000.0,
        )
        answer = getattr(api, operation)(ask.call) or {}
        return answer if ask.call.later is None else asyncio.run(ask.call.later())

    return ask


def fill(logs: Logs, stream: str, *lines: tuple[int, str], group: str = GROUP) -> str:
    path = logs.path(ACCOUNT, REGION, group, stream)
    logs.append_events(path, list(lines))
    return path


# --- the files


@pytest.mark.parametrize(
    "stream",
    [
        "job/algo-1-1700",
        "a",
        "a/b",
        "a.log",
        "a.log/b",
        "group.json",
        "group.json/x",
        "..",
        "../../x",
        "/x",
        "x//y",
        "x/",
        "é/ü",
        "s" * 400 + "/t.u",
        "%",
        "%2F",
    ],
)
def test_a_stream_of_any_name_is_listed_under_its_name_and_stays_in_the_folder(logs: Logs, tmp_path: Path, stream: str):
    path = fill(logs, stream, (1, "hello"))
    assert list(logs.streams(ACCOUNT, REGION, GROUP)) == [stream]
    assert Path(path).resolve().is_relative_to(logs.group_folder(ACCOUNT, REGION, GROUP).resolve())


def test_streams_that_are_made_at_once_are_all_there_and_their_group_too(logs: Logs):
    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            paths = list(pool.map(lambda n, g=f"/new/{number}": logs.path("1", "r", g, f"job-{n}/algo-1"), range(8)))
            assert all(Path(path).exists() for path in paths)
    assert len(logs.groups("1", "r")) == 50


def test_streams_whose_names_begin_alike_do_not_meet(logs: Logs):
    for name in ("a", "a/b", "a.log/b", "ab/c"):
        fill(logs, name, (1, name))
    assert sorted(logs.streams(ACCOUNT, REGION, GROUP, "a/")) == ["a/b"]
    assert sorted(logs.streams(ACCOUNT, REGION, GROUP, "a")) == ["a", "a.log/b", "a/b", "ab/c"]


def test_a_line_without_an_end_waits_and_then_comes_once(logs: Logs):
    path = fill(logs, "s", (1, "one"))
    with open(path, "a") as file:
        file.write("2 tw")
    lines, place = logs.read(path)
    assert [line.text for line in lines] == ["one"]
    with open(path, "a") as file:
        file.write("o\n")
    assert [line.text for line in logs.read(path, place)[0]] == ["two"]
    assert [line.text for line in logs.read_back(path)[0]] == ["one", "two"]


def test_a_text_of_several_lines_is_one_event(logs: Logs):
    path = fill(logs, "s", (1, "a\nb"), (2, "c"))
    assert [line.text for line in logs.read(path)[0]] == ["a\nb", "c"]


def test_reading_back_crosses_the_pieces_of_a_large_file(logs: Logs):
    path = fill(logs, "s", *((n, f"line {n} " + "x" * 50) for n in range(5000)))
    lines, begin, end = logs.read_back(path, limit=3000)
    assert [line.time_ms for line in lines] == list(range(2000, 5000))
    assert (begin, end) == (lines[0].place, Path(path).stat().st_size)
    assert [line.time_ms for line in logs.read_back(path, begin, limit=1)[0]] == [1999]


def test_a_moment_is_found_in_a_large_file_by_bisecting(logs: Logs):
    path = fill(logs, "s", *((n, "x" * 200) for n in range(20_000)))
    lines, _ = logs.read(path, since_ms=15_000, limit=2)
    assert [line.time_ms for line in lines] == [15_000, 15_001]


def test_a_page_ends_before_a_megabyte_and_the_next_goes_on(logs: Logs):
    path = fill(logs, "s", *((n, "x" * 1000) for n in range(1500)))
    first, place = logs.read(path)
    second, _ = logs.read(path, place)
    assert len(first) < 1100
    assert [line.time_ms for line in first + second] == list(range(1500))


# --- the operations


def test_the_forward_token_is_stable_at_the_end_and_then_gives_what_follows(logs: Logs, ask):
    path = fill(logs, "job/algo-1-1", (1, "one"), (2, "two"))
    first = ask("get_log_events", logGroupName=GROUP, logStreamName="job/algo-1-1", startFromHead=True)
    assert [event["message"] for event in first["events"]] == ["one", "two"]
    token = first["nextForwardToken"]
    again = ask("get_log_events", logGroupName=GROUP, logStreamName="job/algo-1-1", nextToken=token)
    assert (again["events"], again["nextForwardToken"]) == ([], token)
    logs.append(path, 0.003, "three")
    more = ask("get_log_events", logGroupName=GROUP, logStreamName="job/algo-1-1", nextToken=token)
    assert [event["message"] for event in more["events"]] == ["three"]


def test_without_start_from_head_the_last_events_come_and_the_backward_token_leads_to_the_first(logs: Logs, ask):
    fill(logs, "s", *((n, str(n)) for n in range(1, 8)))
    page = ask("get_log_events", logGroupName=GROUP, logStreamName="s", limit=3)
    assert [event["message"] for event in page["events"]] == ["5", "6", "7"]
    page = ask("get_log_events", logGroupName=GROUP, logStreamName="s", limit=3, nextToken=page["nextBackwardToken"])
    assert [event["message"] for event in page["events"]] == ["2", "3", "4"]


def test_start_time_is_inclusive_and_end_time_is_not(logs: Logs, ask):
    fill(logs, "s", (10, "a"), (20, "b"), (30, "c"))
    page = ask("get_log_events", logGroupName=GROUP, logStreamName="s", startFromHead=True, startTime=10, endTime=30)
    assert [event["message"] for event in page["events"]] == ["a", "b"]


def test_streams_are_listed_by_prefix_and_by_last_event(logs: Logs, ask):
    fill(logs, "job-1/algo-1-1", (5, "x"))
    fill(logs, "job-1/algo-2-1", (9, "x"))
    fill(logs, "job-10/algo-1-1", (7, "x"))
    by_name = ask("describe_log_streams", logGroupName=GROUP, logStreamNamePrefix="job-1/", orderBy="LogStreamName")
    assert [s["logStreamName"] for s in by_name["logStreams"]] == ["job-1/algo-1-1", "job-1/algo-2-1"]
    assert "nextToken" not in by_name
    by_time = ask("describe_log_streams", logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=2)
    assert [s["lastEventTimestamp"] for s in by_time["logStreams"]] == [9, 7]
    rest = ask(
        "describe_log_streams",
        logGroupName=GROUP,
        orderBy="LastEventTime",
        descending=True,
        nextToken=by_time["nextToken"],
    )
    assert [s["logStreamName"] for s in rest["logStreams"]] == ["job-1/algo-1-1"]


@pytest.mark.parametrize(
    ("operation", "params", "sentence"),
    [
        ("describe_log_streams", {"logGroupName": "/none"}, "The specified log group does not exist."),
        ("get_log_events", {"logGroupName": "/none", "logStreamName": "s"}, "The specified log group does not exist."),
        (
            "get_log_events",
            {"logGroupName": GROUP, "logStreamName": "none"},
            "The specified log stream does not exist.",
        ),
        (
            "put_log_events",
            {"logGroupName": GROUP, "logStreamName": "none", "logEvents": []},
            "The specified log stream does not exist.",
        ),
        (
            "delete_log_stream",
            {"logGroupName": GROUP, "logStreamName": "none"},
            "The specified log stream does not exist.",
        ),
    ],
)
def test_what_is_not_there_is_told_in_aws_words(logs: Logs, ask, operation: str, params: dict[str, Any], sentence: str):
    fill(logs, "s", (1, "x"))
    with pytest.raises(ServiceError) as caught:
        ask(operation, **params)
    assert (caught.value.code, caught.value.message) == ("ResourceNotFoundException", sentence)


def test_a_group_whose_tags_cannot_be_written_is_not_there_and_is_made_when_asked_again(ask, tags: Tags):
    tags.full = True
    with pytest.raises(OSError, match="no space"):
        ask("create_log_group", logGroupName="mine", tags={"k": "v"})
    assert ask("describe_log_groups")["logGroups"] == []
    tags.full = False
    ask("create_log_group", logGroupName="mine", tags={"k": "v"})
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:mine"
    assert tags.rows == [TagsGone(arn=arn), TagsPut(arn=arn, tags={"k": "v"})]


def test_a_group_whose_tags_cannot_be_dropped_stays_and_is_dropped_when_asked_again(logs: Logs, ask, tags: Tags):
    fill(logs, "s", (1, "x"))
    tags.full = True
    with pytest.raises(OSError, match="no space"):
        ask("delete_log_group", logGroupName=GROUP)
    assert ask("get_log_events", logGroupName=GROUP, logStreamName="s")["events"]
    tags.full = False
    ask("delete_log_group", logGroupName=GROUP)
    assert ask("describe_log_groups")["logGroups"] == []


@pytest.mark.parametrize("operation", ["create_log_group", "delete_log_group"])
def test_who_finds_a_group_held_waits_and_then_is_told_of_the_conflict(
    logs: Logs, ask, monkeypatch: pytest.MonkeyPatch, operation: str
):
    fill(logs, "s", (1, "x"))
    monkeypatch.setattr(api, "HELD_S", 0.05)
    with logs.holding(ACCOUNT, REGION, GROUP), pytest.raises(ServiceError) as caught:
        ask(operation, logGroupName=GROUP)
    assert caught.value.code == "OperationAbortedException"


def test_no_stream_is_made_in_a_group_that_is_being_dropped(logs: Logs, ask):
    fill(logs, "s", (1, "x"))
    with logs.holding(ACCOUNT, REGION, GROUP), pytest.raises(ServiceError, match="log group does not exist"):
        ask("create_log_stream", logGroupName=GROUP, logStreamName="t")


def test_of_many_who_make_one_stream_one_wins(logs: Logs):
    logs.make_group(ACCOUNT, REGION, GROUP)

    def make(_: int) -> bool:
        try:
            logs.make_stream(ACCOUNT, REGION, GROUP, "a/b")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(32))) == [False] * 31 + [True]


def test_what_a_crash_leaves_of_a_dropped_group_is_listed_nowhere_and_goes(logs: Logs, monkeypatch: pytest.MonkeyPatch):
    fill(logs, "s", (1, "x"))
    with monkeypatch.context() as crashed:
        crashed.setattr(shutil, "rmtree", lambda *_, **__: None)
        logs.drop_group(ACCOUNT, REGION, GROUP)
    assert logs.groups(ACCOUNT, REGION) == []
    assert len(list(logs.folder.rglob("*.log"))) == 1
    logs.make_group(ACCOUNT, REGION, GROUP)
    assert list(logs.streams(ACCOUNT, REGION, GROUP)) == []
    logs.drop_old(0.0)
    assert list(logs.folder.rglob("*.log")) == []


def test_a_clients_own_group_and_stream_live_from_creation_to_deletion(ask):
    ask("create_log_group", logGroupName="mine", tags={"k": "v"})
    with pytest.raises(ServiceError, match="already exists"):
        ask("create_log_group", logGroupName="mine")
    ask("create_log_stream", logGroupName="mine", logStreamName="s")
    with pytest.raises(ServiceError, match="already exists"):
        ask("create_log_stream", logGroupName="mine", logStreamName="s")
    now_ms, day_ms = int(ask.call.now * 1000), 86_400_000
    moments = (now_ms - 15 * day_ms, now_ms, now_ms + day_ms)
    events = [{"timestamp": moment, "message": "a\nb"} for moment in moments]
    told = ask("put_log_events", logGroupName="mine", logStreamName="s", logEvents=events)
    assert told["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
    kept = ask("get_log_events", logGroupName="mine", logStreamName="s")["events"]
    assert [(event["timestamp"], event["message"]) for event in kept] == [(now_ms, "a\nb")]
    ask("put_retention_policy", logGroupName="mine", retentionInDays=7)
    assert ask("describe_log_groups", logGroupNamePrefix="mi")["logGroups"][0]["retentionInDays"] == 7
    ask("delete_log_group", logGroupName="mine")
    assert ask("describe_log_groups")["logGroups"] == []


def test_events_of_several_streams_are_filtered_in_order_of_time_over_pages(logs: Logs, ask):
    fill(logs, "a", (1, "ERROR one"), (3, "fine"), (5, "ERROR five"))
    fill(logs, "b", (2, "ERROR two"), (4, "ERROR four"))
    seen: list[str] = []
    token: dict[str, str] = {}
    for _ in range(5):
        page = ask("filter_log_events", logGroupName=GROUP, filterPattern="ERROR", limit=2, **token)
        seen += [event["message"] for event in page["events"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert seen == ["ERROR one", "ERROR two", "ERROR four", "ERROR five"]


def test_every_event_has_an_id_of_its_own(logs: Logs, ask):
    fill(logs, "a", (1, "x"), (1, "x"))
    fill(logs, "b", (1, "x"))
    ids = [event["eventId"] for event in ask("filter_log_events", logGroupName=GROUP)["events"]]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("token", ["x", "f/", "f/-1", "c/1", "f/1x"])
def test_a_token_of_nobodys_is_refused(logs: Logs, ask, token: str):
    fill(logs, "s", (1, "x"))
    with pytest.raises(ServiceError, match="The specified nextToken is invalid"):
        ask("get_log_events", logGroupName=GROUP, logStreamName="s", nextToken=token)


@pytest.mark.parametrize(
    ("pattern", "line", "wanted"),
    [
        ("", "anything", True),
        ("ERROR", "an ERROR", True),
        ("ERROR", "an error", False),
        ("a b", "b then a", True),
        ('"a b"', "b a", False),
        ('"a b"', "a b", True),
        ("?x ?y", "only y", True),
        ("?x ?y", "none", False),
        ("ERROR -Exiting", "ERROR Exiting", False),
        ("ERROR -Exiting", "ERROR", True),
        ('"say \\"hi\\""', 'say "hi"', True),
    ],
)
def test_filter_patterns_mean_what_they_mean_at_aws(pattern: str, line: str, wanted: bool):
    assert rules.parse(pattern)(line) is wanted


EVENT = json.dumps(
    {"level": "ERROR", "took": 3.5, "user": {"id": 7, "names": ["ann", "bob"]}, "gone": None, "done": True, "a b": "x"}
)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ("{ $.level = ERR* }", True),
        ('{ $.level = "E*R" }', True),
        ('{ $.level = "error" }', False),
        ('{ $.level != "INFO" }', True),
        ('{ $.none != "INFO" }', False),
        ("{ $.took > 3 }", True),
        ("{ $.took <= 3.4e0 }", False),
        ("{ $.user.id = 7 }", True),
        ('{ $.user.names[1] = "bob" }', True),
        ('{ $.user.names[2] = "bob" }', False),
        ("{ $.gone IS NULL }", True),
        ("{ $.done IS TRUE }", True),
        ("{ $.done IS FALSE }", False),
        ("{ $.none NOT EXISTS }", True),
        ("{ $.level NOT EXISTS }", False),
        ('{ $.level = "INFO" || ($.took > 1 && $.user.id != 8) }', True),
        ('{ ($.level = "INFO" || $.took > 1) && $.user.id = 8 }', False),
        ('{ $.level = "[E]RROR" }', False),
    ],
)
def test_patterns_of_json_fields_mean_what_they_mean_at_aws(pattern: str, wanted: bool):
    assert rules.parse(pattern)(EVENT) is wanted
    assert not rules.parse(pattern)("no JSON")


def test_a_number_beyond_all_floats_is_compared():
    assert rules.parse("{ $.a > 1 }")('{"a": 1' + "0" * 400 + "}")


@pytest.mark.parametrize(
    "pattern", ["{", "{ }", "{ $.a }", "{ $.a = }", "{ $.a > b }", "{ ($.a = 1 }", "{ $.a = 1 $.b = 2 }", "{ $.a = %x% }",
                "{ $.a IS MAYBE }", "{ a = 1 }", "{" + "(" * 5000 + "$.a = 1" + ")" * 5000 + "}"],
    ids=range(11),
)  # fmt: skip
def test_a_pattern_of_json_fields_that_is_none_is_refused(pattern: str):
    with pytest.raises(ServiceError, match="Invalid filter pattern"):
        rules.parse(pattern)


@pytest.mark.parametrize("pattern", ["[a, b]", "%re.*%"])
def test_patterns_that_are_not_served_are_refused_by_name(pattern: str):
    with pytest.raises(ServiceError, match="are not served"):
        rules.parse(pattern)
