"""Lambda steps, look by look; the dispatcher is the test's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.functions.base import Outcome
from penstock.kernel import invocations
from penstock.store.records import Document, Query
from tests.conftest import World
from tests.unit.test_lambda import Dispatched, Lambda, zipped

OUTPUTS = {"text": "String", "count": "Integer", "share": "Float", "good": "Boolean"}
RETURNED = {"text": "t", "count": "3", "share": 1, "good": "True", "more": [1]}


class Invoking:
    """A pipeline with a Lambda step and a Fail step that tells its outputs; what the function comes to is the test's."""

    def __init__(self, world: World):
        self.world = world
        self.lam = Lambda(world)
        self.dispatched = world.app.functions = Dispatched()
        self.lam.create()
        self.lam.settle()
        self.arn = "arn:aws:lambda:us-east-1:123456789012:function:f"

    def start(self, outputs: dict[str, str] = OUTPUTS, told: str = "", **members: Any) -> str:
        step = {
            "Name": "L", "Type": "Lambda", "FunctionArn": self.arn, "Arguments": {"x": {"Get": "Parameters.P"}},
            "OutputParameters": [{"OutputName": name, "OutputType": kind} for name, kind in outputs.items()], **members,
        }  # fmt: skip
        reads = [{"Get": f"Steps.L.OutputParameters['{name}']"} for name in ([told] if told else outputs)]
        fail = {"Name": "F", "Type": "Fail", "Arguments": {"ErrorMessage": {"Std:Join": {"On": "|", "Values": reads}}}}
        text = json.dumps({
            "Version": "2020-12-01", "Steps": [step, fail], "Parameters": [{"Name": "P", "Type": "Integer", "DefaultValue": 7}],
        })  # fmt: skip
        token = "a" * 32
        self("CreatePipeline", PipelineName="p", PipelineDefinition=text, RoleArn=self.lam.role, ClientRequestToken=token)
        return self.again()

    def again(self) -> str:
        token = f"{len(self.dispatched.begun):032d}"
        arn = self("StartPipelineExecution", PipelineName="p", ClientRequestToken=token)["PipelineExecutionArn"]
        self.look(arn)
        return str(arn)

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.world("sagemaker", operation, **params)

    def look(self, arn: str) -> None:
        for kind in (invocations.KIND, "sagemaker.pipeline-execution"):
            for document in self.world.app.store.page(Query(kind=kind)):
                if kind == invocations.KIND or document.arn == arn:
                    self.world.step(document)

    def invocation(self) -> Document | None:
        return next(iter(self.world.app.store.page(Query(kind=invocations.KIND))), None)

    def come(self, arn: str, **outcome: Any) -> None:
        """The function comes to an outcome, and the engine looks."""
        if "returns" in outcome:
            outcome["payload"] = json.dumps(outcome.pop("returns")).encode()
        self.dispatched.known[self.dispatched.begun[-1].key] = Outcome(**outcome)
        self.look(arn)
        self.look(arn)

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        listed = self("ListPipelineExecutionSteps", PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {each["StepName"]: each for each in listed}


@pytest.fixture
def invoking(world: World) -> Invoking:
    return Invoking(world)


def test_a_function_gets_the_inputs_and_its_outputs_are_typed_for_later_steps(invoking: Invoking) -> None:
    arn = invoking.start()
    invoking.look(arn)
    assert json.loads(invoking.dispatched.begun[-1].payload) == {"x": 7}
    assert invoking.steps(arn)["L"]["StepStatus"] == "Executing"
    invoking.come(arn, returns=RETURNED)
    steps = invoking.steps(arn)
    assert steps["L"]["StepStatus"] == "Succeeded"
    assert steps["L"]["Metadata"]["Lambda"] == {
        "Arn": invoking.arn,
        "OutputParameters": [
            {"Name": "text", "Value": "t"}, {"Name": "count", "Value": "3"}, {"Name": "share", "Value": "1.0"},
            {"Name": "good", "Value": "true"},
        ],
    }  # fmt: skip
    assert steps["F"]["FailureReason"] == "t|3|1.0|true"
    assert invoking.invocation() is None


@pytest.mark.parametrize(("returns", "told"), [
    ({"text": "t"}, "the output 'count' of type Integer is missing; it returned text"),
    ({**RETURNED, "count": "three"}, "the output 'count' is declared as Integer, and it returned \"three\""),
    ({**RETURNED, "text": {"a": 1}}, "the output 'text' is declared as String, and it returned {\"a\": 1}"),
    ("all well", 'a dictionary with text, count, share, good is wanted, and it returned "all well"'),
])  # fmt: skip
def test_what_a_function_returns_against_its_declaration_fails_the_step(invoking: Invoking, returns: Any, told: str) -> None:
    arn = invoking.start()
    invoking.look(arn)
    invoking.come(arn, returns=returns)
    assert invoking.steps(arn)["L"]["FailureReason"] == (
        f"ClientError: What the function {invoking.arn} returned is not what step 'L' declares: {told}"
    )


def test_an_output_that_is_not_declared_has_no_value_and_the_sentence_says_which_are_there(invoking: Invoking) -> None:
    arn = invoking.start(told="more")
    invoking.look(arn)
    invoking.come(arn, returns=RETURNED)
    reason = invoking.steps(arn)["F"]["FailureReason"]
    assert "Steps.L.OutputParameters['more']" in reason
    assert "count" in reason


def test_an_error_of_the_function_fails_the_step_with_its_message(invoking: Invoking) -> None:
    arn = invoking.start()
    invoking.look(arn)
    invoking.come(arn, payload=b'{"errorType": "ValueError", "errorMessage": "no good"}', error="Unhandled")
    assert invoking.steps(arn)["L"]["FailureReason"] == (
        f"ClientError: Failed to invoke lambda function {invoking.arn}. Error Details: ValueError: no good"
    )
    assert invoking("DescribePipelineExecution", PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Failed"


def test_a_function_that_is_not_there_fails_the_step(invoking: Invoking) -> None:
    invoking.lam("DeleteFunction", FunctionName="f")
    arn = invoking.start()
    invoking.look(arn)
    invoking.look(arn)
    reason = invoking.steps(arn)["L"]["FailureReason"]
    assert "Error Details: ResourceNotFoundException: Function not found:" in reason


@pytest.mark.parametrize(("outcome", "status"), [
    ({"returns": RETURNED}, "Stopped"),
    ({"payload": b'{"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"}', "error": "Unhandled"}, "Failed"),
])  # fmt: skip
def test_a_stop_waits_for_the_function(invoking: Invoking, outcome: dict[str, Any], status: str) -> None:
    arn = invoking.start()
    invoking.look(arn)
    invoking("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="b" * 32)
    invoking.look(arn)
    assert invoking.steps(arn)["L"]["StepStatus"] == "Stopping"
    assert invoking("DescribePipelineExecution", PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    invoking.come(arn, **outcome)
    assert invoking.steps(arn)["L"]["StepStatus"] == status
    assert invoking("DescribePipelineExecution", PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopped"
    assert "F" not in invoking.steps(arn)


def test_a_cached_result_stands_for_the_function_until_its_code_changes(invoking: Invoking) -> None:
    first = invoking.start(CacheConfig={"Enabled": True, "ExpireAfter": "PT1H"})
    invoking.look(first)
    invoking.come(first, returns=RETURNED)
    second = invoking.again()
    steps = invoking.steps(second)
    assert steps["L"]["CacheHitResult"] == {"SourcePipelineExecutionArn": first}
    assert steps["F"]["FailureReason"] == "t|3|1.0|true"
    assert len(invoking.dispatched.begun) == 1
    invoking.lam("UpdateFunctionCode", FunctionName="f", ZipFile=zipped(app__py="x = 1"))
    invoking.lam.settle()
    third = invoking("StartPipelineExecution", PipelineName="p", ClientRequestToken="c" * 32)["PipelineExecutionArn"]
    invoking.look(third)
    assert invoking.steps(third)["L"]["StepStatus"] == "Executing"


def test_a_step_ends_after_ten_minutes_however_long_the_function_runs(invoking: Invoking) -> None:
    arn = invoking.start()
    invoking.look(arn)
    document = invoking.invocation()
    assert document is not None
    assert document.body["until"] - document.created == 600.0
    document.body["until"] = 0.0
    call = invoking.world.call()
    call.put(document)
    invoking.world.app.store.commit(call.change)
    invoking.look(arn)
    assert "did not end within the 10 minutes" in invoking.steps(arn)["L"]["FailureReason"]


def test_a_lambda_step_without_a_function_is_refused(invoking: Invoking) -> None:
    text = json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "L", "Type": "Lambda", "Arguments": {}}]})
    with pytest.raises(Exception, match="Step 'L' is missing its 'FunctionArn'"):
        invoking("CreatePipeline", PipelineName="q", PipelineDefinition=text, RoleArn=invoking.lam.role, ClientRequestToken="d" * 32)
