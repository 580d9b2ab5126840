"""Executions, look by look: on a real store, with the real registry and S3, and jobs that end when the test says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.experiments import jobs as components
from penstock.services.sagemaker.pipelines import jobs
from penstock.services.sagemaker.pipelines.state import EXECUTION
from penstock.services.sagemaker.processing.state import JOB as PROCESSING
from penstock.services.sagemaker.training.state import JOB as TRAINING
from penstock.store.records import Change, Document, ObjectPut, ObjectRow, Query, Stale

DATA = Path(__file__).parents[1] / "data"
ROLE = "arn:aws:iam::123456789012:role/penstock-execution"
TOKEN = "0123456789" * 4


class Works:
    """A world in which jobs run for as long as the test wants."""

    def __init__(self, world: Any):
        self.world, self.app = world, world.app
        for resource, noun in ((PROCESSING, "ProcessingJob"), (TRAINING, "TrainingJob")):
            for verb, function in (("Create", self._create), ("Describe", self._describe), ("Stop", self._stop)):
                self.app._functions["sagemaker", verb + noun] = function(resource)

    def _create(self, resource: Any) -> Callable[[Call], dict[str, Any]]:
        def create(call: Call) -> dict[str, Any]:
            job = resource.create(call, status="InProgress")
            components.begin(call, job)
            return {resource.arn: job.arn}

        return create

    def _describe(self, resource: Any) -> Callable[[Call], dict[str, Any]]:
        return lambda call: dict(resource.describe(resource.get(call)))

    def _stop(self, resource: Any) -> Callable[[Call], None]:
        return lambda call: resource.move(call, resource.get(call), "Stopping") and None

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return dict(self.world("sagemaker", operation, **params))

    # --- telling a story
    def create(self, definition: Any, name: str = "Flowers", **members: Any) -> None:
        text = definition if isinstance(definition, str) else json.dumps(definition)
        members.setdefault("ClientRequestToken", TOKEN + name)
        self("CreatePipeline", PipelineName=name, PipelineDefinition=text, RoleArn=ROLE, **members)

    def start(self, name: str = "Flowers", parameters: dict[str, str] | None = None, **members: Any) -> str:
        given = [{"Name": key, "Value": value} for key, value in (parameters or {}).items()]
        members.setdefault("ClientRequestToken", f"{TOKEN}{time.monotonic_ns()}")
        return str(
            self("StartPipelineExecution", PipelineName=name, PipelineParameters=given, **members)[
                "PipelineExecutionArn"
            ]
        )

    def document(self, arn: str) -> Document:
        found = self.app.store.by_arn(arn)
        assert found is not None
        return found

    def look(self, arn: str) -> float | None:
        """Looks until no look is wanted at once."""
        while (again := self.world.step(self.document(arn))) == 0.0:
            pass
        return again

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        listed = self("ListPipelineExecutionSteps", PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {step["StepName"]: step for step in listed}

    def statuses(self, arn: str) -> dict[str, str]:
        return {name: step["StepStatus"] for name, step in self.steps(arn).items()}

    def job(self, arn: str, step: str) -> Document:
        return self.document(next(iter(self.steps(arn)[step]["Metadata"].values()))["Arn"])

    def end(self, arn: str, step: str, status: str = "Completed", **members: Any) -> None:
        """Ends a step's job, and lets the execution look."""
        job = self.job(arn, step)
        job.status = status
        job.body |= {"TrainingJobStatus" if job.kind == TRAINING.kind else "ProcessingJobStatus": status, **members}
        call = self.world.call()
        components.end(call, job)
        call.put(job)
        self.app.store.commit(call.change)
        self.look(arn)

    def put_file(self, key: str, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        row = ObjectRow(bucket="penstock-tests", key=key, inline=data, size_bytes=len(data), etag="e", modified=1.0)
        self.app.store.commit(Change(rows=[ObjectPut(row=row)]))

    def describe(self, arn: str) -> dict[str, Any]:
        return self("DescribePipelineExecution", PipelineExecutionArn=arn)

    def events(self) -> list[Any]:
        return [event for event in self.app.store.events(0) if "Model Building Pipeline" in event.detail_type]


@pytest.fixture
def works(world: Any) -> Works:
    world("s3", "CreateBucket", Bucket="penstock-tests")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    world("iam", "CreateRole", RoleName="penstock-execution", AssumeRolePolicyDocument=policy)
    return Works(world)


def processing(name: str, *needs: str, **arguments: Any) -> dict[str, Any]:
    return {"Name": name, "Type": "Processing", "DependsOn": list(needs), "Arguments": {
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        "AppSpecification": {"ImageUri": "python:3"}, "RoleArn": ROLE, **arguments,
    }}  # fmt: skip


def gate(name: str, left: Any, right: Any, then: Any = (), otherwise: Any = (), needs: Any = ()) -> dict[str, Any]:
    condition = {"Type": "Equals", "LeftValue": left, "RightValue": right}
    arguments = {"Conditions": [condition], "IfSteps": list(then), "ElseSteps": list(otherwise)}
    return {"Name": name, "Type": "Condition", "DependsOn": list(needs), "Arguments": arguments}


def pipeline(*steps: Any, **members: Any) -> dict[str, Any]:
    return {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps), **members}


def count_reads(works: Works, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question that the store is asked from now on."""
    asked: list[str] = []
    for name in ("get", "by_arn", "page", "count", "object", "objects", "tags"):
        question = getattr(works.app.store, name)

        def counted(*given: Any, question: Any = question, name: str = name, **more: Any) -> Any:
            asked.append(name)
            return question(*given, **more)

        monkeypatch.setattr(works.app.store, name, counted)
    return asked


def run_flowers(works: Works, accuracy: Any, **parameters: str) -> str:
    works.create((DATA / "pipeline_v2_flowers.json").read_text())
    arn = works.start(parameters=parameters)
    works.look(arn)
    works.end(arn, "Prepare")
    works.end(arn, "Train", ModelArtifacts={"S3ModelArtifacts": "s3://penstock-tests/models/model.tar.gz"})
    outputs = works.job(arn, "Evaluate").body["ProcessingOutputConfig"]["Outputs"]
    place = outputs[0]["S3Output"]["S3Uri"].removeprefix("s3://penstock-tests/")
    works.put_file(f"{place}/evaluation.json", {"metrics": {"accuracy": {"value": accuracy}}})
    works.end(arn, "Evaluate")
    return arn


# --- the whole story
def test_a_pipeline_runs_to_its_end_and_registers_the_model(works: Works) -> None:
    arn = run_flowers(works, 0.9)
    shown = works.describe(arn)
    assert shown["PipelineExecutionStatus"] == "Succeeded", works.steps(arn)
    assert works.statuses(arn) == dict.fromkeys(
        ("Create-CreateModel", "Register-RegisterModel", "Gate", "Evaluate", "Train", "Prepare"), "Succeeded"
    )
    steps = works.steps(arn)
    assert steps["Gate"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    assert steps["Prepare"]["StepDisplayName"] == "Prepare the flowers"
    package = works(
        "DescribeModelPackage", ModelPackageName=steps["Register-RegisterModel"]["Metadata"]["RegisterModel"]["Arn"]
    )
    assert package["ModelPackageGroupName"] == "flowers"
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert (
        package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == "s3://penstock-tests/models/model.tar.gz"
    )
    assert package["MetadataProperties"]["GeneratedBy"] == arn
    assert works.job(arn, "Create-CreateModel").body["PrimaryContainer"]["ModelDataUrl"].endswith("model.tar.gz")


def test_the_steps_are_listed_newest_first_with_their_jobs(works: Works) -> None:
    arn = run_flowers(works, 0.9)
    listed = works("ListPipelineExecutionSteps", PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    assert [step["StepName"] for step in listed][-3:] == ["Evaluate", "Train", "Prepare"]
    assert listed[-1]["AttemptCount"] == 1
    assert listed[-1]["EndTime"] >= listed[-1]["StartTime"]
    first = works("ListPipelineExecutionSteps", PipelineExecutionArn=arn, SortOrder="Ascending", MaxResults=2)
    assert [step["StepName"] for step in first["PipelineExecutionSteps"]] == ["Prepare", "Train"]
    rest = works(
        "ListPipelineExecutionSteps", PipelineExecutionArn=arn, SortOrder="Ascending", NextToken=first["NextToken"]
    )
    assert rest["PipelineExecutionSteps"][0]["StepName"] == "Evaluate"


def test_a_job_gets_its_arguments_with_values_of_the_right_types(works: Works) -> None:
    works.create((DATA / "pipeline_v2_flowers.json").read_text())
    arn = works.start(parameters={"InstanceCount": "2", "ProcessingInstanceType": "ml.t3.medium", "Verbose": "True"})
    works.look(arn)
    job = works.job(arn, "Prepare")
    execution = arn.rpartition("/")[2]
    assert job.body["ProcessingResources"]["ClusterConfig"]["InstanceCount"] == 2
    assert job.body["ProcessingResources"]["ClusterConfig"]["InstanceType"] == "ml.t3.medium"
    assert job.body["AppSpecification"]["ContainerArguments"] == ["--verbose", "true"]
    train = next(o for o in job.body["ProcessingOutputConfig"]["Outputs"] if o["OutputName"] == "train")
    assert train["S3Output"]["S3Uri"] == f"s3://penstock-tests/Flowers/{execution}/Prepare/output/train"
    assert job.name.startswith(f"pipelines-{execution}-Prepare-")
    assert job.body["_execution"] == ["123456789012", "us-east-1", execution]


def test_text_is_made_a_number_where_the_model_wants_one(works: Works) -> None:
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": {"Get": "Parameters.Count"}, "VolumeSizeInGB": 1}
    step = processing("A", ProcessingResources={"ClusterConfig": cluster}, Environment={"N": {"Get": "Parameters.N"}})
    works.create(pipeline(step, Parameters=[
        {"Name": "Count", "Type": "String", "DefaultValue": "3"}, {"Name": "N", "Type": "Integer", "DefaultValue": 7}]))  # fmt: skip
    arn = works.start()
    works.look(arn)
    body = works.job(arn, "A").body
    assert (body["ProcessingResources"]["ClusterConfig"]["InstanceCount"], body["Environment"]) == (3, {"N": "7"})


def test_the_model_is_not_registered_below_the_threshold(works: Works) -> None:
    arn = run_flowers(works, 0.9, Threshold="0.999")
    shown = works.describe(arn)
    assert shown["PipelineExecutionStatus"] == "Failed"
    assert shown["FailureReason"] == "Step failure: One or multiple steps failed."
    steps = works.steps(arn)
    assert steps["Gate"]["Metadata"]["Condition"]["Outcome"] == "False"
    assert (
        steps["Gate"]["StepDescription"] == '0.9 >= 0.999 and not ("ml.m5.large" in ["ml.none"]) and (1 == 1) is false'
    )
    assert steps["TooWeak"]["FailureReason"] == "Accuracy below 0.999"
    assert steps["TooWeak"]["Metadata"]["Fail"]["ErrorMessage"] == "Accuracy below 0.999"
    assert "Register-RegisterModel" not in steps
    listed = works("ListPipelineExecutions", PipelineName="Flowers")["PipelineExecutionSummaries"][0]
    assert listed["PipelineExecutionFailureReason"] == "Step failure: One or multiple steps failed."


def test_a_gate_that_does_not_pass_and_has_no_else_ends_well(works: Works) -> None:
    works.create(pipeline(gate("Gate", 1, 2, [processing("Never")])))
    arn = works.start()
    assert works.look(arn) is None
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert works.statuses(arn) == {"Gate": "Succeeded"}


def test_every_change_of_status_is_told_in_the_shape_of_aws(works: Works) -> None:
    arn = run_flowers(works, 0.9)
    told = [event for event in works.events() if "Step" not in event.detail_type]
    assert [event.detail["currentPipelineExecutionStatus"] for event in told] == ["Executing", "Succeeded"]
    assert told[1].detail["previousPipelineExecutionStatus"] == "Executing"
    assert told[1].resources == ["arn:aws:sagemaker:us-east-1:123456789012:pipeline/Flowers", arn]
    steps = [e.detail for e in works.events() if e.detail.get("stepName") == "Train"]
    assert [(d.get("previousStepStatus"), d["currentStepStatus"]) for d in steps] == [
        (None, "Executing"),
        ("Executing", "Succeeded"),
    ]
    assert steps[1]["metadata"]["trainingJob"]["arn"].startswith(
        "arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-"
    )
    assert steps[1]["stepType"] == "Training"
    assert steps[1]["stepEndTime"].endswith("Z")


def test_a_run_makes_an_experiment_a_trial_and_components(works: Works) -> None:
    arn = run_flowers(works, 0.9)
    execution = arn.rpartition("/")[2]
    assert works.describe(arn)["PipelineExperimentConfig"] == {"ExperimentName": "flowers", "TrialName": execution}
    components = works("ListTrialComponents", TrialName=execution)["TrialComponentSummaries"]
    assert {c["DisplayName"] for c in components} == {"Prepare", "Train", "Evaluate"}
    assert {c["Status"]["PrimaryStatus"] for c in components} == {"Completed"}
    assert works.job(arn, "Train").body["ExperimentConfig"]["TrialName"] == execution


def test_mlflows_settings_are_shown_with_the_experiment_of_the_start(works: Works) -> None:
    server = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/own"
    definition = pipeline(processing("A"))
    definition["MlflowConfig"] = {"MlflowResourceArn": server, "MlflowExperimentName": "first"}
    works.create(definition)
    shown = [works.describe(works.start(**given))["MLflowConfig"] for given in ({}, {"MlflowExperimentName": "other"})]
    assert shown == [{"MlflowResourceArn": server, "MlflowExperimentName": name} for name in ("first", "other")]


def test_a_step_with_an_underscore_in_its_name_has_a_component_too(works: Works) -> None:
    definition = pipeline(processing("get_data"))
    definition["PipelineExperimentConfig"] = {"ExperimentName": "e", "TrialName": "t"}
    works.create(definition)
    arn = works.start()
    works.look(arn)
    assert works.statuses(arn) == {"get_data": "Executing"}
    (component,) = works("ListTrialComponents", TrialName="t")["TrialComponentSummaries"]
    assert component["DisplayName"] == "get-data"


# --- order and width
def test_a_step_is_begun_only_when_all_it_needs_has_succeeded(works: Works) -> None:
    works.create(pipeline(processing("C", "A", "B"), processing("A"), processing("B")))
    arn = works.start()
    works.look(arn)
    assert set(works.statuses(arn)) == {"A", "B"}
    works.end(arn, "A")
    assert "C" not in works.statuses(arn)
    works.end(arn, "B")
    assert works.statuses(arn)["C"] == "Executing"


def test_no_more_steps_run_at_a_time_than_the_execution_allows(works: Works) -> None:
    works.create(
        pipeline(*(processing(f"S{n}") for n in range(5))), ParallelismConfiguration={"MaxParallelExecutionSteps": 4}
    )
    arn = works.start(ParallelismConfiguration={"MaxParallelExecutionSteps": 2})
    works.look(arn)
    assert list(works.statuses(arn).values()) == ["Executing"] * 2
    works.end(arn, "S0")
    assert sorted(works.statuses(arn).values()) == ["Executing", "Executing", "Succeeded"]
    works(
        "UpdatePipelineExecution", PipelineExecutionArn=arn, ParallelismConfiguration={"MaxParallelExecutionSteps": 9}
    )
    works.look(arn)
    assert len(works.statuses(arn)) == 5


def test_a_fan_out_of_fifty_is_begun_in_batches_and_followed_by_one_read_a_job(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    works.create(pipeline(*(processing(f"S{n}") for n in range(50))))
    arn = works.start()
    assert works.world.step(works.document(arn)) == 0.0
    works.look(arn)
    assert len({works.job(arn, name).name for name in works.statuses(arn)}) == 50
    reads = count_reads(works, monkeypatch)
    works.look(arn)
    assert len(reads) <= 50 + 5


def test_a_thousand_steps_are_created_and_started_by_a_few_reads(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(pipeline(*(processing(f"S{n}", *([f"S{n - 1}"] if n else [])) for n in range(1000))))
    reads = count_reads(works, monkeypatch)
    works.create(text)
    arn = works.start()
    works.look(arn)
    assert len(reads) <= 60
    assert works.statuses(arn) == {"S0": "Executing"}


def test_what_stands_behind_a_branch_not_taken_is_never_shown(works: Works) -> None:
    steps = [gate("Gate", 1, 1, [processing("Then")], [processing("Else"), gate("Inner", 1, 1, [processing("Deep")])])]
    works.create(
        pipeline(
            *steps,
            processing("AfterThen", "Then"),
            processing("AfterElse", "Else"),
            processing("AfterThat", "AfterElse"),
        )
    )
    arn = works.start()
    works.look(arn)
    works.end(arn, "Then")
    works.end(arn, "AfterThen")
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert set(works.statuses(arn)) == {"Gate", "Then", "AfterThen"}


def test_the_outcome_of_a_condition_can_be_joined(works: Works) -> None:
    message = {"Std:Join": {"On": ": ", "Values": ["Gate says", {"Get": "Steps.Gate.Outcome"}]}}
    works.create(pipeline(gate("Gate", 1, 2), {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": message}}))
    arn = works.start()
    works.look(arn)
    assert works.steps(arn)["Stop"]["FailureReason"] == "Gate says: false"


def test_a_fail_step_without_a_message_has_no_reason(works: Works) -> None:
    works.create(pipeline({"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": ""}}))
    arn = works.start()
    works.look(arn)
    assert "FailureReason" not in works.steps(arn)["Stop"]
    assert works.steps(arn)["Stop"]["Metadata"] == {"Fail": {"ErrorMessage": ""}}


# --- what goes wrong
def test_a_failed_job_fails_its_step_and_others_go_on_to_their_end(works: Works) -> None:
    works.create(pipeline(processing("Bad"), processing("Good"), processing("AfterGood", "Good")))
    arn = works.start()
    works.look(arn)
    works.end(arn, "Bad", "Failed", FailureReason="AlgorithmError: exit code 1")
    assert works.describe(arn)["PipelineExecutionStatus"] == "Executing"
    works.end(arn, "Good")
    assert works.statuses(arn) == {"Bad": "Failed", "Good": "Succeeded"}
    assert works.steps(arn)["Bad"]["FailureReason"] == "ClientError: AlgorithmError: exit code 1"
    assert works.describe(arn)["FailureReason"] == "Step failure: One or multiple steps failed."


def test_a_job_that_cannot_be_created_fails_its_step_and_leaves_nothing(works: Works) -> None:
    works.create(pipeline(processing("A", AppSpecification={"ImageUri": "python:3", "ContainerArguments": [""] * 101})))
    arn = works.start()
    works.look(arn)
    step = works.steps(arn)["A"]
    assert step["StepStatus"] == "Failed"
    assert step["FailureReason"].startswith(
        "ClientError: Failed to invoke sagemaker:CreateProcessingJob. Error Details: "
    )
    assert step["Metadata"] == {}
    assert works.app.store.count(Query(kind=PROCESSING.kind)) == 0


def test_a_refused_registration_leaves_no_group_behind(works: Works) -> None:
    register = {"Name": "R", "Type": "RegisterModel", "Arguments": {
        "ModelPackageGroupName": "fresh", "ModelApprovalStatus": {"Get": "Parameters.Approval"}}}  # fmt: skip
    works.create(pipeline(register, Parameters=[{"Name": "Approval", "Type": "String", "DefaultValue": "Perhaps"}]))
    arn = works.start()
    works.look(arn)
    assert "CreateModelPackage" in works.steps(arn)["R"]["FailureReason"]
    assert works("ListModelPackageGroups")["ModelPackageGroupSummaryList"] == []


@pytest.mark.parametrize(("content", "told"), [
    (None, r"evaluation\.json does not exist; s3://penstock-tests/out/ has other\.json"),
    (b"not json", "not in valid JSON format"),
    ({"metrics": {"auc": 1}}, r"'metrics\.accuracy' is not there: metrics has auc"),
])  # fmt: skip
def test_a_property_file_that_cannot_be_read_fails_the_gate_and_says_what_is_there(
    works: Works, content: Any, told: str
) -> None:
    output = {
        "OutputName": "o",
        "S3Output": {"S3Uri": "s3://penstock-tests/out", "LocalPath": "/o", "S3UploadMode": "EndOfJob"},
    }
    evaluate = processing("Evaluate", ProcessingOutputConfig={"Outputs": [output]})
    evaluate["PropertyFiles"] = [{"PropertyFileName": "F", "OutputName": "o", "FilePath": "evaluation.json"}]
    accuracy = {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.F"}, "Path": "metrics.accuracy"}}
    works.create(pipeline(evaluate, gate("Gate", accuracy, 1)))
    works.put_file("out/other.json", {})
    if content is not None:
        works.put_file("out/evaluation.json", content)
    arn = works.start()
    works.look(arn)
    works.end(arn, "Evaluate")
    assert works.statuses(arn)["Gate"] == "Failed"
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(works.steps(arn)["Gate"]["FailureReason"])


@pytest.mark.parametrize(("kind", "told"), [
    ("EMR", "ClientError: A step of the type EMR needs Amazon EMR, which is not on this machine: Penstock does not run it."),
    ("AutoML", "ClientError: A step of the type AutoML needs SageMaker Autopilot, which is not on this machine: "
               "Penstock does not run it."),
    ("EMRServerless", "ClientError: A step of the type EMRServerless needs Amazon EMR Serverless, which is not on this machine: "
                      "Penstock does not run it."),
    ("Endpoint", "ClientError: A step of the type Endpoint is not run yet: Penstock serves no endpoints yet."),
    ("ForEach", "ClientError: A step of the type ForEach is not run yet."),
])  # fmt: skip
def test_a_step_of_a_type_that_is_not_run_is_taken_in_a_definition_and_fails_at_once(works: Works, kind: str, told: str) -> None:
    works.create(pipeline({"Name": "Other", "Type": kind, "Arguments": {"ClusterId": "j-1"}}))
    arn = works.start()
    works.look(arn)
    assert works.steps(arn)["Other"]["FailureReason"] == told
    assert works.describe(arn)["PipelineExecutionStatus"] == "Failed"


@pytest.mark.parametrize(("kind", "check"), [("QualityCheck", "DATA_QUALITY"), ("ClarifyCheck", "MODEL_BIAS")])
def test_a_check_is_taken_and_says_what_it_waits_for(works: Works, kind: str, check: str) -> None:
    step = processing("Check") | {"Type": kind, "CheckType": check, "SkipCheck": False, "RegisterNewBaseline": False}
    works.create(pipeline(step))
    arn = works.start()
    works.look(arn)
    told = f"ClientError: A step of the type {kind} is not run yet: its engine comes with model monitoring."
    assert works.steps(arn)["Check"]["FailureReason"] == told


def test_a_step_makes_an_endpoint_configuration_for_real(works: Works) -> None:
    variant = {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    works.create(pipeline(
        {"Name": "Config", "Type": "EndpointConfig", "Arguments": {"ProductionVariants": [variant], "EndpointConfigName": "mine"}},
    ))  # fmt: skip
    arn = works.start()
    works.look(arn)
    assert 'Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/m"' in works.steps(arn)["Config"]["FailureReason"]
    works("CreateModel", ModelName="m", PrimaryContainer={"Image": "python:3.11"}, ExecutionRoleArn=ROLE)
    again = works.start()
    works.look(again)
    step = works.steps(again)["Config"]
    assert step["StepStatus"] == "Succeeded", step
    name = step["Metadata"]["EndpointConfig"]["Arn"].rpartition("/")[2]
    assert name.startswith("mine-")
    described = works("DescribeEndpointConfig", EndpointConfigName=name)
    assert described["ProductionVariants"][0]["ModelName"] == "m"


def test_a_step_for_the_case_of_a_failure_is_passed_over_and_one_for_any_case_runs(works: Works) -> None:
    works.create(pipeline(
        processing("A"), {**processing("B"), "DependsOn": [{"Step": "A", "Trigger": "Failed"}]},
        {**processing("C"), "DependsOn": [{"Step": "A", "Trigger": "Any"}]}, {**processing("D"), "DependsOn": ["B"]},
    ))  # fmt: skip
    arn = works.start()
    works.look(arn)
    works.end(arn, "A")
    works.look(arn)
    works.end(arn, "C")
    works.look(arn)
    assert works.statuses(arn) == {"A": "Succeeded", "C": "Succeeded"}
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"


def test_a_job_stopped_by_somebody_else_fails_its_step(works: Works) -> None:
    works.create(pipeline(processing("A")))
    arn = works.start()
    works.look(arn)
    works.end(arn, "A", "Stopped")
    assert works.statuses(arn) == {"A": "Failed"}


# --- stopping and trying again
def test_a_stop_stops_the_running_jobs_and_begins_nothing_more(works: Works) -> None:
    works.create(pipeline(processing("A"), processing("B"), processing("C", "A")))
    arn = works.start()
    works.look(arn)
    works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    assert works.statuses(arn) == {"A": "Stopping", "B": "Stopping"}
    assert works.job(arn, "A").status == "Stopping"
    works.end(arn, "A", "Completed")
    works.end(arn, "B", "Stopped")
    assert works.statuses(arn) == {"A": "Succeeded", "B": "Stopped"}
    assert works.describe(arn)["PipelineExecutionStatus"] == "Stopped"


def test_a_stop_before_anything_was_begun_stops_at_once(works: Works) -> None:
    works.create(pipeline(processing("A")))
    arn = works.start()
    works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    assert works.describe(arn)["PipelineExecutionStatus"] == "Stopped"
    assert works.statuses(arn) == {}


def test_a_stop_twice_is_fine_and_a_stop_after_the_end_is_refused(works: Works) -> None:
    works.create(pipeline(processing("A")))
    arn = works.start()
    for token in ("a" * 32, "b" * 32):
        works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=token)
    works.look(arn)
    with pytest.raises(ServiceError, match="has the status Stopped"):
        works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="c" * 32)


def test_a_stop_and_a_look_at_once_do_not_both_win(works: Works) -> None:
    works.create(pipeline(processing("A")))
    arn = works.start()
    execution = works.document(arn)
    call = works.app.step_call(execution, works.app.clock.now())
    works.app.steps()[EXECUTION.kind](call, execution)
    works("StopPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    with pytest.raises(Stale):
        works.app.store.commit(call.change)
    assert works.app.store.count(Query(kind=PROCESSING.kind)) == 0


def test_an_execution_that_cannot_be_looked_at_ends_failed_with_its_steps_and_stops_its_jobs(works: Works) -> None:
    works.create(pipeline(processing("A"), processing("B", "A")))
    arn = works.start()
    works.look(arn)
    execution = works.document(arn)
    call = works.app.step_call(execution, works.app.clock.now())
    works.app.give_up()[execution.kind](call, execution)
    works.app.store.commit(call.change)
    assert works.describe(arn)["PipelineExecutionStatus"] == "Failed"
    assert works.describe(arn)["FailureReason"].startswith("InternalServerError")
    assert works.statuses(arn) == {"A": "Failed"}
    assert works.steps(arn)["A"]["FailureReason"].startswith("InternalServerError")
    assert works.job(arn, "A").status == "Stopping"
    told = [(event.detail_type.rpartition(" ")[0], event.detail) for event in works.events()][-2:]
    assert [detail.get("currentStepStatus") or detail["currentPipelineExecutionStatus"] for _, detail in told] == [
        "Failed"
    ] * 2


def test_an_execution_that_is_given_up_stops_its_tuning_jobs(works: Works) -> None:
    goal = {"Type": "Maximize", "MetricName": "score"}
    ranges = {"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1"}]}
    limits = {"MaxParallelTrainingJobs": 1, "MaxNumberOfTrainingJobs": 2}
    step = {"Name": "Tune", "Type": "Tuning", "Arguments": {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random", "HyperParameterTuningJobObjective": goal, "ResourceLimits": limits, "ParameterRanges": ranges,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": "python:3", "TrainingInputMode": "File"}, "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": "s3://penstock-tests/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        },
    }}  # fmt: skip
    works.create(pipeline(step))
    arn = works.start()
    works.look(arn)
    execution = works.document(arn)
    call = works.app.step_call(execution, works.app.clock.now())
    works.app.give_up()[execution.kind](call, execution)
    works.app.store.commit(call.change)
    assert works.job(arn, "Tune").status == "Stopping"


def test_a_failed_execution_goes_on_where_it_failed(works: Works) -> None:
    works.create(pipeline(processing("A"), processing("B", "A"), processing("C", "B")))
    arn = works.start()
    works.look(arn)
    works.end(arn, "A")
    works.end(arn, "B", "Failed", FailureReason="x")
    first = works.job(arn, "B").name
    works("RetryPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    works.look(arn)
    assert works.statuses(arn) == {"A": "Succeeded", "B": "Executing"}
    assert works.job(arn, "B").name != first
    assert "FailureReason" not in works.describe(arn)
    works.end(arn, "B")
    works.end(arn, "C")
    assert works.describe(arn)["PipelineExecutionStatus"] == "Succeeded"
    with pytest.raises(ServiceError, match="Failed or Stopped"):
        works("RetryPipelineExecution", PipelineExecutionArn=arn, ClientRequestToken="d" * 32)


def test_a_look_that_was_lost_makes_the_same_job_again(works: Works) -> None:
    works.create(pipeline(processing("A")))
    arn = works.start()
    execution = works.document(arn)
    lost = works.app.step_call(execution, works.app.clock.now())
    works.app.steps()[EXECUTION.kind](lost, execution)
    works.look(arn)
    assert works.job(arn, "A").name in [put.name for put in lost.change.puts]


def test_job_names_are_names_whatever_the_step_is_called(works: Works) -> None:
    works.create(pipeline(processing("_a_very_long-Step_name_with__underscores_and_more_than_sixty-4x")))
    arn = works.start()
    works.look(arn)
    (name,) = works.statuses(arn)
    assert works.job(arn, name).name.startswith(f"pipelines-{arn.rpartition('/')[2]}-a-very-long-Step-nam-")
    assert len(works.job(arn, name).name) <= jobs.NAME_MOST


def test_a_definition_may_give_its_jobs_a_prefix(works: Works) -> None:
    works.create(pipeline(processing("A", ProcessingJobName="nightly")))
    arn = works.start()
    works.look(arn)
    assert works.job(arn, "A").name.startswith(f"nightly-{arn.rpartition('/')[2]}-")


def test_an_execution_goes_on_with_the_definition_it_was_started_with(works: Works) -> None:
    works.create(pipeline(processing("A"), processing("B", "A")))
    arn = works.start()
    works.look(arn)
    works("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=json.dumps(pipeline(processing("Z"))))
    works.end(arn, "A")
    assert set(works.statuses(arn)) == {"A", "B"}
    told = works("DescribePipelineDefinitionForExecution", PipelineExecutionArn=arn)
    assert '"B"' in told["PipelineDefinition"]
