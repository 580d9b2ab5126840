"""Queues, Callback steps and mapped functions while fronts and engine are killed: nothing acknowledged is lost, every token comes back."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import sandbox
from tests.crash.families import Clan, raise_clan, until
from tests.unit.test_lambda import zipped

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
MESSAGES, DEPTH = 30, 3
CODE = """
import boto3, json
sm = boto3.client("sagemaker")

def handler(event, context):
    for record in event["Records"]:
        asked = json.loads(record["body"])
        doubled = [{"Name": "n", "Value": str(2 * asked["arguments"]["n"])}]
        try:
            sm.send_pipeline_execution_step_success(CallbackToken=asked["token"], OutputParameters=doubled)
        except sm.exceptions.ConflictException:
            pass  # it was here before
"""


def definition(url: str) -> str:
    """Steps one after another, each of which has the last one's number doubled."""
    steps = []
    for number in range(DEPTH):
        before: Any = {"Get": f"Steps.S{number - 1}.OutputParameters['n']"} if number else 1
        outputs = [{"OutputName": "n", "OutputType": "Integer"}]
        steps.append({
            "Name": f"S{number}", "Type": "Callback", "Arguments": {"n": before}, "SqsQueueUrl": url, "OutputParameters": outputs,
        })  # fmt: skip
    return json.dumps({"Version": "2020-12-01", "Steps": steps})


def send_and_receive(clan: Clan, url: str) -> tuple[list[str], list[str]]:
    """What was acknowledged, and what was received in long polls meanwhile, both while others kill."""
    sent: list[str] = []
    got: list[str] = []
    over = threading.Event()

    def receive() -> None:
        sqs = clan.client("sqs")
        while not over.is_set() or got[-1:] != ["last"]:
            answer = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10, MaxNumberOfMessages=3)
            for message in answer.get("Messages", ()):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                got.append(message["Body"])

    receiving = threading.Thread(target=receive)
    receiving.start()
    sqs = clan.client("sqs")
    for number in range(MESSAGES):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
        sent.append(str(number))
        if number in (10, 20):
            clan.kill("front" if number == 10 else "engine")
    until(lambda: set(sent) <= set(got), "every acknowledged message is received")
    over.set()
    sqs.send_message(QueueUrl=url, MessageBody="last")
    receiving.join(60)
    assert not receiving.is_alive()
    return sent, got[:-1]


def test_nothing_acknowledged_is_lost_and_every_token_comes_back(tmp_path: Path) -> None:
    with raise_clan(tmp_path, fronts="2") as clan:
        sqs, lam, sm = (clan.client(name) for name in ("sqs", "lambda", "sagemaker"))
        role = clan.keys["role_arn"]
        lam.create_function(FunctionName="answers", Runtime="python3.11", Handler="app.handler", Role=role, Timeout=8,
                            Code={"ZipFile": zipped(app__py=CODE)})  # fmt: skip
        hidden_s = {"asked": "8", "plain": "3"}  # for so long waits what a killed process had received
        url, plain = (
            sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": seconds})["QueueUrl"]
            for name, seconds in hidden_s.items()
        )
        sent, got = send_and_receive(clan, plain)
        assert set(got) == set(sent)

        lam.get_waiter("function_active_v2").wait(FunctionName="answers", WaiterConfig={"Delay": 0.1, "MaxAttempts": 1800})
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        lam.create_event_source_mapping(EventSourceArn=arn, FunctionName="answers")
        sm.create_pipeline(PipelineName="asks", PipelineDefinition=definition(url), RoleArn=role)
        execution = sm.start_pipeline_execution(PipelineName="asks")["PipelineExecutionArn"]

        def begun() -> set[str]:
            steps = sm.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
            return {step["StepName"] for step in steps}

        for number in range(DEPTH):  # each finds a step whose message is on its way, and what came of the steps before
            until(lambda number=number: f"S{number}" in begun(), f"step S{number} begins")
            clan.kill("engine")
            until(lambda: clan.member("engine"), "another engine")

        def ended() -> str:
            status = sm.describe_pipeline_execution(PipelineExecutionArn=execution)["PipelineExecutionStatus"]
            return "" if status == "Executing" else str(status)

        assert until(ended, "the execution ends") == "Succeeded"
        steps = sm.list_pipeline_execution_steps(PipelineExecutionArn=execution)["PipelineExecutionSteps"]
        told = {step["StepName"]: step["Metadata"]["Callback"]["OutputParameters"] for step in steps}
        assert told == {f"S{number}": [{"Name": "n", "Value": str(2 << number)}] for number in range(DEPTH)}
