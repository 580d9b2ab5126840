"""The server killed in the middle of functions: an event is carried out, a Lambda step ends with what its function returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel import invocations
from penstock.runs import sandbox
from penstock.store.records import Query
from tests.crash.families import Clan, raise_clan, until
from tests.unit.test_lambda import zipped

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
CODE = """
import time, uuid
def handler(event, context):
    print("begun", event["name"])
    time.sleep(event.get("sleep", 0))
    if event.get("fail"):
        raise ValueError(event["fail"])
    print("ended", event["name"])
    return {"name": event["name"], "mark": uuid.uuid4().hex}
"""


def create(clan: Clan) -> str:
    lam = clan.client("lambda")
    made = lam.create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role=clan.keys["role_arn"], Timeout=60,
        Code={"ZipFile": zipped(app__py=CODE)},
    )  # fmt: skip
    until(lambda: lam.get_function_configuration(FunctionName="f")["State"] == "Active", "the function is active")
    return str(made["FunctionArn"])


def lines(clan: Clan) -> list[str]:
    logs = clan.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/f")["logGroups"]:
        return []
    return [each["message"] for each in logs.filter_log_events(logGroupName="/aws/lambda/f")["events"]]


def send(clan: Clan, **event: Any) -> None:
    clan.client("lambda").invoke(FunctionName="f", InvocationType="Event", Payload=json.dumps(event).encode())


def has_ended(clan: Clan, name: str) -> bool:
    """Whether the function's log has its last line of an event by now; read from the folder, as the server may be down."""
    return any(f"ended {name}" in file.read_text(errors="replace") for file in (clan.data / "logs").rglob("*") if file.is_file())


def left(clan: Clan) -> int:
    """Invocations that have not ended."""
    reads = clan.reads()
    try:
        return len(reads.page(Query(kind=invocations.KIND)))
    finally:
        reads.close()


def test_events_and_steps_end_as_their_functions_do_whoever_is_killed(tmp_path: Path) -> None:
    with raise_clan(tmp_path, lambda_retry_s="0.2") as clan:
        arn = create(clan)
        send(clan, name="a", sleep=2)
        until(lambda: "begun a" in lines(clan), "the worker has the event")
        clan.kill("engine")
        late = has_ended(clan, "a")
        send(clan, name="b")  # tried again by the client until there is an engine
        send(clan, name="c", fail="no")
        until(lambda: left(clan) == 0, "every event has ended")
        said = lines(clan)
        assert said.count("begun a") == said.count("ended a") in ((1, 2) if late else (1,))
        assert said.count("ended b") == 1
        assert said.count("begun c") == 3
        execution = start_step(clan, arn)
        until(lambda: "begun step" in lines(clan), "the worker has the step's event")
        clan.kill_all()
        late = has_ended(clan, "step")  # its answer may have been there, and lost: an attempt may run twice, as at AWS
        clan.up_again()
        sm = clan.client("sagemaker")
        status = until(
            lambda: (got := sm.describe_pipeline_execution(PipelineExecutionArn=execution)["PipelineExecutionStatus"])
            != "Executing" and got,
            "the execution ends",
        )  # fmt: skip
        assert status == "Succeeded"
        steps = sm.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
        assert steps[0]["Metadata"]["Lambda"]["OutputParameters"] == [{"Name": "name", "Value": "step"}]
        said = lines(clan)
        assert said.count("begun step") == said.count("ended step") in ((1, 2) if late else (1,))


def start_step(clan: Clan, function: str) -> str:
    """An execution of one Lambda step."""
    step = {
        "Name": "L", "Type": "Lambda", "FunctionArn": function, "Arguments": {"name": "step", "sleep": 2},
        "OutputParameters": [{"OutputName": "name", "OutputType": "String"}],
    }  # fmt: skip
    definition = json.dumps({"Version": "2020-12-01", "Steps": [step]})
    clan.client("sagemaker").create_pipeline(
        PipelineName="p", PipelineDefinition=definition, RoleArn=clan.keys["role_arn"]
    )
    return str(clan.client("sagemaker").start_pipeline_execution(PipelineName="p")["PipelineExecutionArn"])


def test_idle_workers_end_with_the_server_and_those_a_killed_one_left_when_it_is_said(tmp_path: Path) -> None:
    with raise_clan(tmp_path) as clan:
        create(clan)
        for end in (clan.kill_all, lambda: clan.penstock("down")):
            clan.client("lambda").invoke(FunctionName="f", Payload=b'{"name": "idle"}')
            assert clan.supervisors()
            end()
            if end == clan.kill_all:
                done = clan.penstock("down", "--jobs")
                assert (done.returncode, "are ended" in done.stdout) == (0, True)
                assert "No server is up" in clan.penstock("down", "--jobs").stderr
            until(lambda: not clan.supervisors(), "no worker is left")
            clan.up_again()
        assert "CancelledError" not in clan.log()
