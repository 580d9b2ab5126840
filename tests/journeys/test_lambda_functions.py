"""Functions in real workers, seen through boto3."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Boto, Family
from tests.unit.test_lambda import zipped

pytestmark = pytest.mark.sandbox
RUNTIME = "python3.11"
CODE = """
import logging, os, sys, time
logging.getLogger().setLevel("INFO")
calls = 0

def handler(event, context):
    global calls
    calls += 1
    print("event", event)
    if event.get("raise"):
        raise ValueError(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if event.get("set"):
        return {1, 2}
    if event.get("large"):
        return "x" * event["large"]
    if event.get("memory"):
        return len(bytearray(event["memory"] << 20).replace(b"\\0", b"1"))
    time.sleep(event.get("sleep", 0))
    if event.get("who"):
        import boto3
        return boto3.client("sts").get_caller_identity()["Arn"]
    logging.info("of the logger")
    return {"calls": calls, "left": context.get_remaining_time_in_millis(), "arn": context.invoked_function_arn,
            "name": context.function_name, "memory": context.memory_limit_in_mb, "stream": context.log_stream_name,
            "id": context.aws_request_id, "task": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(),
            "custom": context.client_context and context.client_context.custom, "mine": os.environ.get("MINE")}
"""


class Functions:
    """Functions of a test, by what they are made of."""

    def __init__(self, boto: Boto):
        self.boto, self.client = boto, boto("lambda", read_timeout=120)
        self.made: list[str] = []

    def create(self, code: str = CODE, **members: Any) -> str:
        name = f"f-{uuid.uuid4().hex[:8]}"
        given = {"Runtime": RUNTIME, "Handler": "app.handler", "Role": self.boto.role, "Code": {"ZipFile": zipped(app__py=code)}}
        self.client.create_function(FunctionName=name, **(given | members))
        self.made.append(name)
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1800})
        return name

    def __call__(self, name: str, event: Any = None, **members: Any) -> tuple[Any, str, str]:
        """What a function returned, its error's kind, and the end of its log."""
        answer = self.client.invoke(FunctionName=name, Payload=json.dumps(event or {}).encode(), **members)
        log = base64.b64decode(answer.get("LogResult", "")).decode()
        return json.loads(answer["Payload"].read() or b"null"), answer.get("FunctionError", ""), log


@pytest.fixture(scope="module")
def functions(family: Family, boto: Boto) -> Iterator[Functions]:
    made = Functions(boto)
    yield made
    for name in made.made:
        made.client.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def plain(functions: Functions) -> str:
    return functions.create(Timeout=60, MemorySize=256, Environment={"Variables": {"MINE": "yes"}})


def test_a_handler_gets_event_context_and_environment_and_stays_warm(functions: Functions, plain: str) -> None:
    context = base64.b64encode(json.dumps({"custom": {"a": 1}}).encode()).decode()
    first, error, log = functions(plain, {"a": "ü"}, LogType="Tail", ClientContext=context)
    again, _, _ = functions(plain)
    assert error == ""
    assert first["arn"].endswith(f":function:{plain}")
    assert (first["name"], first["memory"], first["mine"], first["custom"]) == (plain, "256", "yes", {"a": 1})
    assert (first["task"], first["cwd"]) == ("/var/task", "/var/task")
    assert 0 < first["left"] <= 60_000
    assert (again["calls"] - first["calls"], again["stream"]) == (1, first["stream"])
    lines = log.splitlines()
    assert lines[0] == f"START RequestId: {first['id']} Version: $LATEST"
    assert "event {'a': 'ü'}" in lines
    assert any(line.startswith("[INFO]\t") and line.endswith(f"{first['id']}\tof the logger") for line in lines)
    assert lines[-2] == f"END RequestId: {first['id']}"
    assert lines[-1].startswith(f"REPORT RequestId: {first['id']}\tDuration: ")
    group = functions.boto("logs").describe_log_streams(logGroupName=f"/aws/lambda/{plain}")["logStreams"]
    assert first["stream"] in [stream["logStreamName"] for stream in group]


def test_what_a_handler_raises_is_told_in_aws_form(functions: Functions, plain: str) -> None:
    told, error, log = functions(plain, {"raise": "no good"}, LogType="Tail")
    assert (error, told["errorType"], told["errorMessage"]) == ("Unhandled", "ValueError", "no good")
    assert told["stackTrace"][0].startswith('  File "/var/task/app.py", line 11, in handler\n')
    assert "[ERROR] ValueError: no good\nTraceback (most recent call last):\n" in log


@pytest.mark.parametrize(("event", "kind", "message"), [
    ({"exit": 3}, "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"),
    ({"exit": 0}, "Runtime.ExitError", "Error: Runtime exited without providing a reason"),
    ({"set": True}, "Runtime.MarshalError", "Unable to marshal response: Object of type set is not JSON serializable"),
    ({"large": 7 << 20}, "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size (6291556 bytes)."),
    ({"memory": 600}, "Runtime.ExitError", "Error: Runtime exited with error: signal: killed"),
])  # fmt: skip
def test_an_end_without_an_answer_is_told_too(functions: Functions, plain: str, event: Any, kind: str, message: str) -> None:
    told, error, _ = functions(plain, event)
    assert (error, told["errorType"]) == ("Unhandled", kind)
    assert told["errorMessage"].endswith(message)
    assert functions(plain)[1] == ""


def test_a_time_out_ends_the_worker(functions: Functions) -> None:
    name = functions.create(Timeout=1)
    before, _, _ = functions(name)
    told, error, log = functions(name, {"sleep": 30}, LogType="Tail")
    assert (error, told["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert told["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    assert "Task timed out after 1.00 seconds" in log
    after, _, _ = functions(name)
    assert after["stream"] != before["stream"]


def test_a_handler_that_asks_for_the_next_invocation_itself_is_ended_when_its_time_is_over(functions: Functions) -> None:
    code = """
import os, time, urllib.request
def handler(event, context):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open("http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/next")
    finally:
        time.sleep(3600)
"""
    told, error, _ = functions(functions.create(code, Timeout=1))
    assert (error, told["errorType"]) == ("Unhandled", "Sandbox.Timedout")


@pytest.mark.parametrize(("code", "handler", "kind", "message"), [
    ("import nowhere", "app.handler", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nowhere'"),
    ("x =", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': "),
    ("x = 1", "app.other", "Runtime.HandlerNotFound", "Handler 'other' missing on module 'app'"),
    ("x = 1", "app", "Runtime.MalformedHandlerName", "Bad handler 'app': "),
    ("raise KeyError('k')", "app.handler", "KeyError", "'k'"),
])  # fmt: skip
def test_a_function_without_a_handler_says_so_at_every_call(
    functions: Functions, code: str, handler: str, kind: str, message: str
) -> None:
    name = functions.create(code, Handler=handler)
    for _ in range(2):
        told, error, log = functions(name, LogType="Tail")
        assert (error, told["errorType"], told["requestId"]) == ("Unhandled", kind, "")
        assert told["errorMessage"].startswith(message)
        *_, init, start, end, report = log.splitlines()
        assert f"[ERROR] {kind}: {message}" in log
        assert init.startswith("INIT_REPORT Init Duration: ")
        assert init.endswith(f" ms\tPhase: init\tStatus: error\tError Type: {kind}")
        request_id = start.removeprefix("START RequestId: ").removesuffix(" Version: $LATEST")
        assert end == f"END RequestId: {request_id}"
        assert report.startswith(f"REPORT RequestId: {request_id}\tDuration: ")
        assert report.endswith(f"\tStatus: error\tError Type: {kind}")


def test_a_program_that_ends_while_it_is_loaded_is_told_with_its_log(functions: Functions) -> None:
    name = functions.create("import os\nprint('so far', flush=True)\nos._exit(4)")
    told, error, log = functions(name, LogType="Tail")
    assert (error, told["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert told["errorMessage"].endswith("Error: Runtime exited with error: exit status 4")
    lines = log.splitlines()
    assert "so far" in lines
    assert lines[-3:-1] == ["Runtime.ExitError", lines[-5].replace("START", "END").removesuffix(" Version: $LATEST")]
    assert lines[-1].endswith("\tStatus: error\tError Type: Runtime.ExitError")


def test_boto3_in_a_function_acts_as_the_functions_role(functions: Functions, plain: str) -> None:
    role = functions.boto.role.rpartition("/")[2]
    assert functions(plain, {"who": True})[0].endswith(f":assumed-role/{role}/{plain}")


def test_layers_lie_on_the_path_and_new_code_is_served_at_once(functions: Functions) -> None:
    held = zipped(**{"python/shared__py": "VALUE = 'of the layer'", "data__txt": "beside"})
    layer = functions.client.publish_layer_version(LayerName="shared", Content={"ZipFile": held})["LayerVersionArn"]
    code = "import shared\ndef handler(event, context):\n    return [shared.VALUE, open('/opt/data.txt').read()]"
    name = functions.create(code, Layers=[layer])
    assert functions(name)[0] == ["of the layer", "beside"]
    functions.client.publish_version(FunctionName=name)
    functions.client.update_function_code(
        FunctionName=name, ZipFile=zipped(app__py="def handler(event, context):\n    return 2")
    )
    functions.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1800})
    assert functions(name)[0] == 2
    assert functions(name, Qualifier="1")[0] == ["of the layer", "beside"]


def test_calls_at_once_have_workers_of_their_own_up_to_what_is_reserved(functions: Functions) -> None:
    name = functions.create(Timeout=60)
    functions.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    with ThreadPoolExecutor(2) as pool:
        streams = {found[0]["stream"] for found in pool.map(lambda _: functions(name, {"sleep": 1.0}), range(2))}
    assert len(streams) == 2
    functions.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as told:
        functions(name)
    assert told.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
