"""Selective execution: which steps run, what they go on from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines.explain import explain
from tests.unit.test_pipeline_cache import cached, finish
from tests.unit.test_pipeline_engine import TOKEN, Works, gate, pipeline, processing, works

__all__ = ["works"]
BUCKET = "s3://penstock-tests"


def output(name: str) -> dict[str, Any]:
    where = {"Std:Join": {"On": "/", "Values": [BUCKET, {"Get": "Execution.PipelineExecutionId"}, name]}}
    return {"Outputs": [{"OutputName": "o", "S3Output": {"S3Uri": where, "LocalPath": "/o", "S3UploadMode": "EndOfJob"}}]}


def reading(name: str, *others: str) -> dict[str, Any]:
    """A step that reads the outputs of others."""
    uris = {f"FROM_{other}": {"Get": f"Steps.{other}.ProcessingOutputConfig.Outputs['o'].S3Output.S3Uri"} for other in others}
    return processing(name, ProcessingOutputConfig=output(name), **({"Environment": uris} if uris else {}))


CHAIN = [reading("A"), reading("B", "A"), reading("C", "B"), reading("D", "C"), reading("Beside")]


def selected(*names: str, source: str | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {"SelectedSteps": [{"StepName": name} for name in names]}
    return {"SelectiveExecutionConfig": config | ({"SourcePipelineExecutionArn": source} if source else {})}


@pytest.fixture
def source(works: Works) -> str:
    works.create(pipeline(*CHAIN))
    arn = works.start()
    finish(works, arn)
    return arn


def test_the_selected_steps_run_on_the_results_of_the_source(works: Works, source: str) -> None:
    arn = works.start(**selected("B", "C", source=source))
    works.look(arn)
    assert works.statuses(arn) == {"A": "Succeeded", "B": "Executing"}
    reused = works.steps(arn)["A"]
    assert reused["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": source}
    assert reused["Metadata"] == works.steps(source)["A"]["Metadata"]
    assert works.job(arn, "B").body["Environment"] == {"FROM_A": f"{BUCKET}/{source.rpartition('/')[2]}/A"}
    works.end(arn, "B")
    assert works.job(arn, "C").body["Environment"] == {"FROM_B": f"{BUCKET}/{arn.rpartition('/')[2]}/B"}
    works.end(arn, "C")
    shown = works.describe(arn)
    assert shown["PipelineExecutionStatus"] == "Succeeded"
    assert shown["SelectiveExecutionConfig"] == selected("B", "C", source=source)["SelectiveExecutionConfig"]
    assert set(works.statuses(arn)) == {"A", "B", "C"}, "what comes after and beside does not run"
    assert explain(works.app.store, works.document(arn), "A")[0]["outcome"] == "reused"


def test_steps_that_need_nothing_need_no_source(works: Works) -> None:
    works.create(pipeline(reading("A"), processing("Later", "A")))
    arn = works.start(**selected("Later"))
    works.look(arn)
    assert works.statuses(arn) == {"Later": "Executing"}
    first = works.start(**selected("A"))
    works.look(first)
    works.end(first, "A")
    assert works.describe(first)["PipelineExecutionStatus"] == "Succeeded"


def test_an_execution_of_selected_steps_is_a_source_itself(works: Works, source: str) -> None:
    second = works.start(**selected("B", "C", source=source))
    finish(works, second)
    third = works.start(**selected("B", source=second))
    works.look(third)
    assert works.steps(third)["A"]["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": second}
    assert works.job(third, "B").body["Environment"] == {"FROM_A": f"{BUCKET}/{source.rpartition('/')[2]}/A"}


def test_a_failed_source_gives_the_results_that_it_has(works: Works) -> None:
    works.create(pipeline(*CHAIN[:4]))
    failed = works.start()
    works.look(failed)
    works.end(failed, "A")
    works.end(failed, "B", "Failed", FailureReason="x")
    arn = works.start(**selected("B", source=failed))
    finish(works, arn)
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"
    refused(works, "need the results of step 'B', which is Failed in the source", selected("C", source=failed))
    refused(works, "need the results of step 'C', which did not run in the source", selected("D", source=failed))


def test_a_result_of_the_cache_can_be_reused(works: Works) -> None:
    first = cached("A", ProcessingOutputConfig=output("A"))
    works.create(pipeline(first, reading("B", "A")))
    made = works.start()
    finish(works, made)
    hit = works.start()
    finish(works, hit)
    arn = works.start(**selected("B", source=hit))
    works.look(arn)
    assert works.job(arn, "B").body["Environment"] == {"FROM_A": f"{BUCKET}/{made.rpartition('/')[2]}/A"}


def test_a_selected_step_of_a_branch_runs_without_its_condition_and_with_it_by_the_outcome(works: Works) -> None:
    works.create(pipeline(gate("Gate", 1, 2, [processing("Then")], [processing("Else")])))
    alone = works.start(**selected("Then"))
    works.look(alone)
    assert works.statuses(alone) == {"Then": "Executing"}
    both = works.start(**selected("Gate", "Then"))
    works.look(both)
    assert works.statuses(both) == {"Gate": "Succeeded"}
    assert works.describe(both)["PipelineExecutionStatus"] == "Succeeded"


def test_the_outcome_of_a_condition_is_reused(works: Works) -> None:
    message = {"Std:Join": {"On": " ", "Values": ["it was", {"Get": "Steps.Gate.Outcome"}]}}
    works.create(pipeline(gate("Gate", 1, 1), {"Name": "Say", "Type": "Fail", "Arguments": {"ErrorMessage": message}}))
    first = works.start()
    works.look(first)
    second = works.start(**selected("Say", source=first))
    works.look(second)
    assert works.steps(second)["Say"]["FailureReason"] == "it was true"


def test_a_retry_keeps_the_selection_and_what_was_reused(works: Works, source: str) -> None:
    arn = works.start(**selected("B", source=source))
    works.look(arn)
    works.end(arn, "B", "Failed", FailureReason="x")
    works("RetryPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    works.end(arn, "B")
    assert works.statuses(arn) == {"A": "Succeeded", "B": "Succeeded"}
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"


def test_reused_steps_are_told_of_and_count_in_the_order(works: Works, source: str) -> None:
    arn = works.start(**selected("B", source=source))
    works.look(arn)
    told = [e.detail for e in works.events() if e.detail["pipelineExecutionArn"] == arn and "stepName" in e.detail]
    assert [(each["stepName"], each["currentStepStatus"]) for each in told] == [("A", "Succeeded"), ("B", "Executing")]
    listed = works("ListPipelineExecutionSteps", PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    assert [step["StepName"] for step in listed] == ["B", "A"]


# --- what is refused
def refused(works: Works, told: str, members: dict[str, Any], code: str = "ValidationException") -> None:
    with pytest.raises(ServiceError) as caught:
        works.start(**members)
    assert told in caught.value.message
    assert caught.value.code == code


def test_what_cannot_be_selected_is_refused_with_the_reason(works: Works, source: str) -> None:
    refused(works, "The selected step 'Z' is not defined in the pipeline; its steps are A, ", selected("Z"))
    refused(works, "step 'B' lies between 'A' and 'C' and is not selected", selected("A", "C", source=source))
    refused(works, "step 'C' lies between 'A' and 'D' and is not selected", selected("A", "D", source=source))
    refused(works, "need the results of 'A': select them too, or give a SourcePipelineExecutionArn", selected("B"))


def test_a_source_that_cannot_be_one_is_refused(works: Works, source: str) -> None:
    refused(works, "does not exist", selected("B", source=source[:-3] + "xyz"), "ResourceNotFound")
    running = works.start()
    works.look(running)
    refused(works, "has the status Executing; it must have ended", selected("B", source=running))
    works.create(pipeline(*CHAIN), name="Other")
    other = works.start("Other")
    finish(works, other)
    refused(works, "is none of pipeline 'Flowers'", selected("B", source=other))
