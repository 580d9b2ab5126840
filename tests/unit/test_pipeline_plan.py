"""What a plan expects of a pipeline that is not started, and what AWS would have billed for one that ran."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.services.sagemaker import costs
from penstock.services.sagemaker.pipelines import bills, plan
from penstock.services.sagemaker.pipelines.definition import Malformed
from penstock.services.sagemaker.pipelines.state import PIPELINE
from penstock.store.records import Change
from tests.unit.test_pipeline_cache import BUCKET, cached, channel, finish, put, run, training
from tests.unit.test_pipeline_engine import Works, pipeline, processing, works

__all__ = ["works"]


def planned(works: Works, name: str = "Flowers", **given: str) -> dict[str, Any]:
    call = works.world.call()
    found = PIPELINE.get(call, name)
    told = plan.plan(call, found, plan.version_of(call, found), given)
    assert not call.change, "a plan writes nothing"
    return told | {"by": {step["step"]: step for step in told["steps"]}}


def expected(told: dict[str, Any]) -> dict[str, str]:
    return {name: step["expected"] for name, step in told["by"].items()}


def reads(step: str) -> dict[str, Any]:
    """A Training step that reads what a processing step made."""
    uri = {"Get": f"Steps.{step}.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"}
    return training("Train", InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": {
        "S3DataType": "S3Prefix", "S3Uri": uri}}}])  # fmt: skip


def makes(name: str, **more: Any) -> dict[str, Any]:
    out = {"OutputName": "out", "S3Output": {"S3Uri": f"s3://{BUCKET}/{name}", "LocalPath": "/opt/ml/processing/out",
                                             "S3UploadMode": "EndOfJob"}}  # fmt: skip
    return cached(name, ProcessingOutputConfig={"Outputs": [out]}, **more)


# --- before


def test_a_step_that_never_ran_has_no_time_and_no_price(works: Works) -> None:
    works.create(pipeline(processing("Clean")))
    told = planned(works)
    step = told["by"]["Clean"]
    assert (step["expected"], step["last_s"], step["usd"]) == ("runs", None, None)
    assert [(use["instance_type"], use["instances"]) for use in step["uses"]] == [("ml.m5.large", 1)]
    assert (told["usd"], told["unknown"]) == (0.0, ["Clean"])


def test_the_price_of_a_step_is_of_the_time_of_its_earlier_runs(works: Works) -> None:
    works.create(pipeline(processing("Clean")))
    for start, end in ((100.0, 200.0), (0.0, 300.0)):
        arn = works.start()
        works.look(arn)
        works.end(arn, "Clean", ProcessingStartTime=start, ProcessingEndTime=end)
    told = planned(works)
    step = told["by"]["Clean"]
    assert (step["runs"], step["last_s"]) == (2, 300.0)
    assert step["usd"] == pytest.approx(0.115 * 200 / 3600)
    assert told["unknown"] == []


def test_what_the_cache_has_costs_nothing_and_what_reads_it_is_resolved_with_it(works: Works) -> None:
    run(works, makes("Clean"), reads("Clean"))
    told = planned(works)
    assert expected(told) == {"Clean": "hit", "Train": "hit"}
    assert (told["usd"], told["unknown"]) == (0.0, [])


def test_what_reads_a_step_that_runs_is_known_at_run_time_and_its_instances_are_told(works: Works) -> None:
    data = put(works, "data.csv", b"1")
    run(works, makes("Clean", inputs={"data": data}), reads("Clean"))
    put(works, "data.csv", b"2")
    told = planned(works)
    assert expected(told) == {"Clean": "runs", "Train": "unknown"}
    assert "the bytes at" in told["by"]["Clean"]["why"]
    assert told["by"]["Train"]["why"] == "its key is known at run time: it reads what Clean makes"
    assert told["by"]["Train"]["uses"][0]["instance_type"] == "ml.m5.large"


def test_a_parameter_is_in_the_key_and_in_the_instances(works: Works) -> None:
    kind = [{"Name": "Kind", "Type": "String", "DefaultValue": "ml.m5.large"}, {"Name": "Count", "Type": "Integer", "DefaultValue": 1}]
    step = training("Train", ResourceConfig={
        "InstanceCount": {"Get": "Parameters.Count"}, "InstanceType": {"Get": "Parameters.Kind"}, "VolumeSizeInGB": 1})  # fmt: skip
    works.create(pipeline(step, Parameters=kind))
    use = planned(works, Kind="ml.c5.xlarge", Count="3")["by"]["Train"]["uses"][0]
    assert (use["instance_type"], use["instances"]) == ("ml.c5.xlarge", 3)
    with pytest.raises(Malformed, match="Unknown parameter 'Kin'"):
        planned(works, Kin="x")


def test_an_unknown_type_of_instance_is_told(works: Works) -> None:
    works.create(pipeline(training("Train", ResourceConfig={
        "InstanceCount": 1, "InstanceType": "ml.trn2.48xlarge", "VolumeSizeInGB": 1})))  # fmt: skip
    told = planned(works)
    assert (told["unpriced"], told["unknown"]) == (["ml.trn2.48xlarge"], ["Train"])


def test_a_spot_step_is_priced_by_the_part_that_is_billed(works: Works) -> None:
    spot = {"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}}
    works.create(pipeline(training("Train", **spot) | {"CacheConfig": {"Enabled": False}}))
    arn = works.start()
    works.look(arn)
    works.end(arn, "Train", TrainingTimeInSeconds=1000, BillableTimeInSeconds=300)
    step = planned(works)["by"]["Train"]
    assert (step["uses"][0]["ran_s"], step["uses"][0]["billable_s"]) == (1000, 300.0)
    assert step["usd"] == pytest.approx(0.115 * 300 / 3600)


def test_branches_that_are_decided_now_are_left_out_and_others_may_be_taken(works: Works) -> None:
    parameters = [{"Name": "Big", "Type": "Boolean", "DefaultValue": True}]

    def story(left: Any, name: str) -> dict[str, Any]:
        condition = {"Type": "Equals", "LeftValue": left, "RightValue": True}
        steps = [
            makes("Clean"),
            {"Name": "Gate", "Type": "Condition", "Arguments": {
                "Conditions": [condition], "IfSteps": [processing("Then")], "ElseSteps": [processing("Otherwise")]}},
        ]  # fmt: skip
        works.create(pipeline(*steps, Parameters=parameters), name)
        return planned(works, name)

    now = story({"Get": "Parameters.Big"}, "Now")
    assert expected(now) == {"Clean": "runs", "Gate": "at once", "Then": "runs", "Otherwise": "skipped"}
    later = story({"Get": "Steps.Clean.ProcessingJobStatus"}, "Later")
    assert (later["by"]["Gate"]["expected"], later["by"]["Then"]["reached"], later["by"]["Otherwise"]["reached"]) == (
        "decided", False, False,
    )  # fmt: skip


def test_steps_without_instances_and_those_that_are_not_run_are_told(works: Works) -> None:
    function = {"Name": "Function", "Type": "Lambda", "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f", "Arguments": {}}
    callback = {"Name": "Ask", "Type": "Callback", "SqsQueueUrl": "https://sqs.us-east-1.amazonaws.com/123456789012/q", "Arguments": {}}
    foreign = {"Name": "Cluster", "Type": "EMR", "Arguments": {"ClusterId": "j-1", "StepConfig": {}}}
    works.create(pipeline(function, callback, foreign))
    told = planned(works)
    assert expected(told) == {"Function": "runs", "Ask": "runs", "Cluster": "fails"}
    assert (told["usd"], told["unknown"]) == (0.0, [])


def test_the_table_says_of_when_and_where_its_prices_are() -> None:
    table = costs.prices()
    assert table.date in table.header("us-east-1")
    assert "there are none of eu-west-1 here" in table.header("eu-west-1")
    assert "storage" in table.header("us-east-1")
    assert all(price > 0 and name.startswith("ml.") for name, price in table.hour.items())


# --- after


def test_a_bill_has_what_each_job_used_failed_attempts_included_and_nothing_for_hits(works: Works) -> None:
    again = [{"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 1, "MaxAttempts": 2}]
    step = training("Train", ResourceConfig={"InstanceCount": 2, "InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 1})
    works.create(pipeline(cached("Clean"), step | {"RetryPolicies": again}))
    arn = works.start()
    works.look(arn)
    works.end(arn, "Clean", ProcessingStartTime=1.0, ProcessingEndTime=61.2)
    times = {"TrainingTimeInSeconds": 90, "BillableTimeInSeconds": 90}
    works.end(arn, "Train", "Failed", FailureReason="InternalServerError: x", **times)
    execution = works.document(arn)
    execution.body["_steps"]["Train"]["due"] = 0.0
    works.app.store.commit(Change(puts=[execution]))
    works.look(arn)
    works.end(arn, "Train", **times)
    told = bills.bill(works.app.store, works.document(arn))
    by = {each["step"]: each for each in told["steps"]}
    assert by["Clean"]["usd"] == pytest.approx(0.115 * 61 / 3600)
    assert (len(by["Train"]["jobs"]), by["Train"]["usd"]) == (2, pytest.approx(2 * 2 * 0.23 * 90 / 3600))
    assert told["usd"] == pytest.approx(by["Clean"]["usd"] + by["Train"]["usd"])
    second = works.start()
    finish(works, second)
    told = bills.bill(works.app.store, works.document(second))
    assert (told["usd"], [each["cached"] for each in told["steps"]]) == (0.0, [True, True])
    json.dumps(told)


def test_a_bill_names_the_types_without_a_price(works: Works) -> None:
    kind = {"InstanceCount": 1, "InstanceType": "ml.trn2.48xlarge", "VolumeSizeInGB": 1}
    works.create(pipeline(training("Train", ResourceConfig=kind, InputDataConfig=[channel(put(works, "d", b"1"))])))
    arn = works.start()
    works.look(arn)
    works.end(arn, "Train", TrainingTimeInSeconds=90, BillableTimeInSeconds=90)
    told = bills.bill(works.app.store, works.document(arn))
    assert (told["usd"], told["unknown"], told["steps"][0]["usd"]) == (0.0, ["ml.trn2.48xlarge"], None)
