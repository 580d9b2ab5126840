"""Callback steps, look by look: a token goes out by a queue, and comes back by an operation."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from penstock.kernel.errors import ServiceError
from penstock.store.records import Document, Query
from tests.conftest import World

ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
CALLBACK: dict[str, Any] = {
    "Name": "Ask",
    "Type": "Callback",
    "Arguments": {"number": {"Get": "Parameters.N"}, "text": "a", "list": [1, {"b": True}]},
    "OutputParameters": [
        {"OutputName": name, "OutputType": kind}
        for name, kind in (("n", "Integer"), ("f", "Float"), ("ok", "Boolean"), ("s", "String"))
    ],
    "CacheConfig": {"Enabled": True, "ExpireAfter": "P1D"},
}
CHECKS = {
    "Name": "Check",
    "Type": "Condition",
    "Arguments": {
        "Conditions": [
            {"Type": "GreaterThan", "LeftValue": {"Get": "Steps.Ask.OutputParameters['n']"}, "RightValue": 41},
            {"Type": "Equals", "LeftValue": {"Get": "Steps.Ask.OutputParameters['ok']"}, "RightValue": True},
        ],
        "IfSteps": [
            {
                "Name": "Told",
                "Type": "Fail",
                "Arguments": {"ErrorMessage": {"Std:Join": {"On": " ", "Values": [{"Get": "Steps.Ask.OutputParameters['s']"}, "it was"]}}},
            }
        ],
        "ElseSteps": [],
    },
}


class Asked:
    """A world with a queue, and a pipeline that asks by it."""

    def __init__(self, world: World):
        self.world = world
        self.url = world("sqs", "CreateQueue", QueueName="answers")["QueueUrl"]

    def define(self, *steps: dict[str, Any], **callback: Any) -> None:
        definition = {
            "Version": "2020-12-01",
            "Parameters": [{"Name": "N", "Type": "Integer", "DefaultValue": 5}],
            "Steps": [{**CALLBACK, "SqsQueueUrl": self.url, **callback}, *steps],
        }
        self.world(
            "sagemaker", "CreatePipeline", PipelineName="asks", PipelineDefinition=json.dumps(definition), RoleArn=ROLE,
            ClientRequestToken="t" * 32,
        )  # fmt: skip

    def start(self) -> str:
        arn = self.world("sagemaker", "StartPipelineExecution", PipelineName="asks", ClientRequestToken="s" * 32)
        self.look()
        return str(arn["PipelineExecutionArn"])

    def look(self) -> None:
        (execution,) = self.stored("sagemaker.pipeline-execution")
        self.world.step(execution)

    def stored(self, kind: str) -> list[Document]:
        return self.world.app.store.page(Query(kind=kind, account=self.world.account))

    def message(self) -> dict[str, Any]:
        (got,) = self.world("sqs", "ReceiveMessage", QueueUrl=self.url)["Messages"]
        self.world("sqs", "DeleteMessage", QueueUrl=self.url, ReceiptHandle=got["ReceiptHandle"])
        return dict(json.loads(got["Body"]))

    def succeed(self, token: str, **outputs: str) -> Any:
        given = [{"Name": name, "Value": value} for name, value in outputs.items()]
        return self.world("sagemaker", "SendPipelineExecutionStepSuccess", CallbackToken=token, OutputParameters=given)

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        listed = self.world("sagemaker", "ListPipelineExecutionSteps", PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {step["StepName"]: step for step in listed}

    def status(self, arn: str) -> str:
        return str(self.world("sagemaker", "DescribePipelineExecution", PipelineExecutionArn=arn)["PipelineExecutionStatus"])


@pytest.fixture
def asked(world: World) -> Asked:
    return Asked(world)


def refusal(do: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(ServiceError) as fault:
        do(*given, **named)
    return fault.value.code


def test_the_message_has_the_token_and_what_the_step_says(asked: Asked) -> None:
    asked.define()
    arn = asked.start()
    message = asked.message()
    token = message.pop("token")
    assert (len(token), token.isalnum()) == (10, True)
    arguments = {"number": 5, "text": "a", "list": [1, {"b": True}]}
    assert message == {"pipelineExecutionArn": arn, "arguments": arguments, "status": "Executing"}
    step = asked.steps(arn)["Ask"]
    assert (step["StepStatus"], step["Metadata"]) == ("Executing", {"Callback": {"CallbackToken": token, "SqsQueueUrl": asked.url}})
    asked.look()  # again, without harm
    assert not asked.world("sqs", "ReceiveMessage", QueueUrl=asked.url)
    assert asked.status(arn) == "Executing"


def test_outputs_come_back_with_the_types_that_the_step_declares(asked: Asked) -> None:
    asked.define(CHECKS)
    arn = asked.start()
    token = asked.message()["token"]
    assert refusal(asked.succeed, token, n="many") == "ValidationException"
    assert asked.succeed(token, n="42", ok="true", f="0.5", s="so", more="x") == {"PipelineExecutionArn": arn}
    asked.look()
    steps = asked.steps(arn)
    assert steps["Ask"]["StepStatus"] == "Succeeded"
    shown = {each["Name"]: each["Value"] for each in steps["Ask"]["Metadata"]["Callback"]["OutputParameters"]}
    assert shown == {"n": "42", "ok": "true", "f": "0.5", "s": "so", "more": "x"}
    assert steps["Check"]["Metadata"]["Condition"]["Outcome"] == "True"
    assert steps["Told"]["FailureReason"] == "so it was"


def test_an_output_that_did_not_come_fails_the_step_that_reads_it(asked: Asked) -> None:
    asked.define(CHECKS)
    arn = asked.start()
    asked.succeed(asked.message()["token"], n="42")
    asked.look()
    told = asked.steps(arn)["Check"]["FailureReason"]
    assert "OutputParameters.ok" in told
    assert "has n" in told


@pytest.mark.parametrize(
    ("path", "told"),
    [("['s']", '{"inner": 1}'), ("['s'].inner", 'ClientError: The reference .* has no value: .* OutputParameters.s is "{')],
)
def test_a_nested_output_is_one_text_and_who_reads_into_it_fails(asked: Asked, path: str, told: str) -> None:
    asked.define({"Name": "Reads", "Type": "Fail", "Arguments": {"ErrorMessage": {"Get": f"Steps.Ask.OutputParameters{path}"}}})
    arn = asked.start()
    asked.succeed(asked.message()["token"], s='{"inner": 1}')
    asked.look()
    assert re.match(told, asked.steps(arn)["Reads"]["FailureReason"])


def test_a_failure_is_told_as_it_came(asked: Asked) -> None:
    asked.define()
    arn = asked.start()
    token = asked.message()["token"]
    asked.world("sagemaker", "SendPipelineExecutionStepFailure", CallbackToken=token, FailureReason="nobody is in")
    asked.look()
    assert asked.steps(arn)["Ask"]["FailureReason"] == "nobody is in"
    assert asked.status(arn) == "Failed"
    asked.world("sagemaker", "RetryPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="r" * 32)
    asked.look()
    again = asked.message()["token"]
    assert again != token
    asked.succeed(again)
    asked.look()
    assert asked.status(arn) == "Succeeded"


def test_a_token_is_good_once_and_while_its_execution_runs(asked: Asked) -> None:
    asked.define({"Name": "Fails", "Type": "Fail", "Arguments": {"ErrorMessage": "x"}})
    assert refusal(asked.succeed, "AAAAAAAAAA") == "ResourceNotFound"
    assert refusal(asked.succeed, "short") == "ValidationException"
    asked.start()
    token = asked.message()["token"]
    asked.succeed(token)
    assert refusal(asked.succeed, token) == "ConflictException"
    assert refusal(asked.world, "sagemaker", "SendPipelineExecutionStepFailure", CallbackToken=token) == "ConflictException"


def test_a_stop_sends_another_message_and_waits_for_the_token(asked: Asked) -> None:
    asked.define()
    arn = asked.start()
    token = asked.message()["token"]
    asked.world("sagemaker", "StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="x" * 32)
    asked.look()
    asked.look()
    message = asked.message()  # one
    assert (message["token"], message["status"], message["arguments"]["number"]) == (token, "Stopping", 5)
    assert (asked.status(arn), asked.steps(arn)["Ask"]["StepStatus"]) == ("Stopping", "Stopping")
    asked.succeed(token)
    asked.look()
    assert asked.status(arn) == "Stopped"
    assert refusal(asked.succeed, token) == "ConflictException"


def test_a_stop_whose_queue_is_gone_ends(asked: Asked) -> None:
    asked.define()
    arn = asked.start()
    asked.world("sqs", "DeleteQueue", QueueUrl=asked.url)
    asked.world("sagemaker", "StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="x" * 32)
    asked.look()
    assert asked.status(arn) == "Stopped"


def test_a_queue_that_is_not_there_fails_the_step(asked: Asked) -> None:
    asked.define(SqsQueueUrl="https://sqs.us-east-1.amazonaws.com/123456789012/none")
    arn = asked.start()
    queue = "https://sqs.us-east-1.amazonaws.com/123456789012/none"
    told = f"ClientError: Failed to invoke sqs:SendMessage. Error Details: The specified queue does not exist: {queue}"
    assert asked.steps(arn)["Ask"]["FailureReason"] == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SqsQueueUrl": None}, "SqsQueueUrl"),
        ({"OutputParameters": [{"OutputName": "a", "OutputType": "List"}]}, "OutputType"),
        ({"OutputParameters": [{"OutputName": "a", "OutputType": "String"}] * 2}, "two output parameters"),
        ({"OutputParameters": [{"OutputName": str(n), "OutputType": "String"} for n in range(51)]}, "at most 50"),
        ({"Arguments": {"a": {"Get": "Parameters.No"}}}, "'No', which is not defined"),
    ],
)
def test_what_no_callback_step_can_be_is_refused(asked: Asked, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ServiceError, match=told):
        asked.define(**given)


def test_nothing_is_left_of_a_deleted_pipeline(asked: Asked) -> None:
    asked.define()
    asked.start()
    asked.succeed(asked.message()["token"])
    asked.look()
    asked.world("sagemaker", "DeletePipeline", PipelineName="asks", ClientRequestToken="d" * 32)
    assert not asked.stored("sagemaker.pipeline-callback")
