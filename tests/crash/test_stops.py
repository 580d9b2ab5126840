"""A stop in the middle of everything: of jobs, at each turn of their lives, and of executions, in each type of step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.families import PLAIN, Clan, raise_clan, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
BUCKET = "stops"
GRACE_S = 1.0
CPUS = 4
HOLD = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
POLITE = """
import signal, sys, time
def end(*_):
    print("told to end", flush=True)
    open("/opt/ml/processing/out/last-words.txt", "w").write("done")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
QUICK = "print('quick')"
LARGEST = "ml.m5.xlarge"
"""As large as all that this family may use."""


class Desk:
    """Jobs and pipelines of one family, and what became of them."""

    def __init__(self, clan: Clan):
        self.clan, self.role = clan, clan.keys["role_arn"]
        self.sm, self.s3 = clan.client("sagemaker"), clan.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        for name, text in {"hold": HOLD, "stubborn": STUBBORN, "polite": POLITE, "quick": QUICK}.items():
            self.s3.put_object(Bucket=BUCKET, Key=f"{name}/program.py", Body=text)
            self.s3.put_object(Bucket=BUCKET, Key=f"{name}/sourcedir.tar.gz", Body=workload.pack(program__py=text))

    def processing(self, program: str, kind: str = "ml.t3.medium", image: str = PLAIN) -> dict[str, Any]:
        out = {"S3Uri": f"s3://{BUCKET}/out", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
        return {
            "RoleArn": self.role,
            "AppSpecification": {
                "ImageUri": image, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/program.py"],
            },
            "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": kind, "VolumeSizeInGB": 1}},
            "ProcessingInputs": [workload.source("code", f"s3://{BUCKET}/{program}/program.py")],
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": out}]},
        }  # fmt: skip

    def training(self, program: str, kind: str = "ml.t3.medium") -> dict[str, Any]:
        archive = f"s3://{BUCKET}/{program}/sourcedir.tar.gz"
        return {
            "RoleArn": self.role,
            "AlgorithmSpecification": {"TrainingImage": PLAIN, "TrainingInputMode": "File"},
            "HyperParameters": {"sagemaker_program": "program.py", "sagemaker_submit_directory": archive},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
            "ResourceConfig": {"InstanceType": kind, "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }

    def process(self, name: str, program: str, **more: Any) -> str:
        self.sm.create_processing_job(ProcessingJobName=name, **self.processing(program, **more))
        return name

    def train(self, name: str, program: str, **more: Any) -> str:
        self.sm.create_training_job(TrainingJobName=name, **self.training(program, **more))
        return name

    def job(self, name: str) -> dict[str, Any]:
        """The Describe answer of a job, whichever kind it is, with its status as Status."""
        try:
            found = self.sm.describe_processing_job(ProcessingJobName=name)
            return {**found, "Status": found["ProcessingJobStatus"]}
        except self.sm.exceptions.ClientError:
            found = self.sm.describe_training_job(TrainingJobName=name)
            return {**found, "Status": found["TrainingJobStatus"]}

    def ended(self, name: str) -> dict[str, Any]:
        until(lambda: self.job(name)["Status"] in ("Completed", "Failed", "Stopped"), f"{name} ends")
        return self.job(name)

    def log(self, name: str) -> str:
        return "".join(path.read_text() for path in (self.clan.data / "logs").rglob(f"*{name}*/*") if path.is_file())

    def await_up(self, name: str) -> None:
        until(lambda: " up\n" in self.log(name), f"the program of {name} is up")

    # --- executions

    def start(self, name: str, *steps: dict[str, Any]) -> str:
        text = json.dumps({"Version": "2020-12-01", "Steps": steps})
        self.sm.create_pipeline(PipelineName=name, PipelineDefinition=text, RoleArn=self.role)
        return str(self.sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"])

    def stop(self, arn: str) -> None:
        self.sm.stop_pipeline_execution(PipelineExecutionArn=arn)

    def steps(self, arn: str) -> dict[str, str]:
        listed = self.sm.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        return {step["StepName"]: step["StepStatus"] for step in listed}

    def step_job(self, arn: str, step: str) -> str:
        """The name of a step's job, once it is begun."""

        def found() -> str:
            listed = self.sm.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
            return next(
                (m["Arn"].rpartition("/")[2] for s in listed if s["StepName"] == step for m in s["Metadata"].values()),
                "",
            )

        return str(until(found, f"{step} begins"))

    def execution(self, arn: str) -> str:
        """The last status of an execution."""

        def status() -> str:
            return str(self.sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"])

        until(lambda: status() in ("Succeeded", "Failed", "Stopped"), f"{arn} ends")
        return status()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("stops")
    with raise_clan(folder, cpus=str(CPUS), memory_bytes=str(32 << 30), grace_s=str(GRACE_S)) as clan:
        yield Desk(clan)


def step(name: str, kind: str, arguments: dict[str, Any], *after: str) -> dict[str, Any]:
    return {"Name": name, "Type": kind, "Arguments": arguments, "DependsOn": list(after)}


# --- jobs


@pytest.mark.parametrize("make", ["process", "train"])
def test_a_running_job_is_stopped(desk: Desk, make: str) -> None:
    name = getattr(desk, make)(f"running-{make}", "hold")
    desk.await_up(name)
    stop(desk, name)
    job = desk.ended(name)
    assert job["Status"] == "Stopped"
    assert "FailureReason" not in job


def stop(desk: Desk, name: str) -> None:
    kind = "training" if "TrainingJobName" in desk.job(name) else "processing"
    getattr(desk.sm, f"stop_{kind}_job")(**{f"{kind.title()}JobName": name})


@pytest.mark.parametrize("make", ["process", "train"])
def test_a_job_that_waits_for_capacity_is_stopped_and_never_starts(desk: Desk, make: str) -> None:
    first = desk.process(f"in-the-way-of-{make}", "hold", kind=LARGEST)
    desk.await_up(first)
    name = getattr(desk, make)(f"waiting-{make}", "hold", kind=LARGEST)
    if make == "train":
        until(lambda: "waiting" in desk.job(name)["SecondaryStatusTransitions"][-1]["StatusMessage"], "it waits")
    stop(desk, name)
    job = desk.ended(name)
    assert job["Status"] == "Stopped"
    assert "ProcessingStartTime" not in job
    assert "TrainingStartTime" not in job
    stop(desk, first)
    desk.ended(first)
    assert " up\n" not in desk.log(name)


@pytest.mark.parametrize("make", ["process", "train"])
def test_a_job_stopped_at_once_after_its_creation_ends_as_stopped(desk: Desk, make: str) -> None:
    for number in range(6):
        name = getattr(desk, make)(f"at-once-{make}-{number}", "hold")
        threading.Event().wait(number * 0.02)  # a little later each time: starting, downloading, running
        stop(desk, name)
    for number in range(6):
        assert desk.ended(f"at-once-{make}-{number}")["Status"] == "Stopped"


def test_a_polite_program_hears_of_the_stop_and_has_its_last_words(desk: Desk) -> None:
    name = desk.process("polite", "polite")
    desk.await_up(name)
    stop(desk, name)
    assert desk.ended(name)["Status"] == "Stopped"
    assert "told to end" in desk.log(name)


def test_a_program_that_does_not_hear_is_killed_after_its_grace(desk: Desk) -> None:
    name = desk.process("stubborn", "stubborn")
    desk.await_up(name)
    stop(desk, name)
    assert desk.job(name)["Status"] == "Stopping"
    job = desk.ended(name)
    assert job["Status"] == "Stopped"
    assert desk.clan.strays(name) == []


def test_an_ended_job_cannot_be_stopped(desk: Desk) -> None:
    name = desk.process("over", "quick")
    assert desk.ended(name)["Status"] == "Completed"
    with pytest.raises(desk.sm.exceptions.ClientError, match="Completed"):
        stop(desk, name)


def test_a_job_whose_image_is_being_built_is_stopped(tmp_path: Any) -> None:
    with raise_clan(tmp_path, images=False, grace_s=str(GRACE_S)) as clan:
        fresh = Desk(clan)
        name = fresh.process("unbuilt", "hold")
        stop(fresh, name)
        assert fresh.ended(name)["Status"] == "Stopped"
        assert " up\n" not in fresh.log(name)


# --- executions


@pytest.mark.parametrize("kind", ["Processing", "Training"])
def test_an_execution_is_stopped_while_a_job_runs(desk: Desk, kind: str) -> None:
    arguments = getattr(desk, kind.lower())("hold")
    arn = desk.start(f"run-{kind}", step("hold", kind, arguments), step("next", kind, arguments, "hold"))
    job = desk.step_job(arn, "hold")
    desk.await_up(job)
    desk.stop(arn)
    assert desk.execution(arn) == "Stopped"
    assert desk.steps(arn) == {"hold": "Stopped"}  # and nothing after it was begun
    assert desk.job(job)["Status"] == "Stopped"


def test_an_execution_is_stopped_while_a_job_waits_for_capacity(desk: Desk) -> None:
    first = desk.process("in-the-way-of-all", "hold", kind=LARGEST)
    desk.await_up(first)
    arn = desk.start("waits", step("waits", "Training", desk.training("hold", LARGEST)))
    job = desk.step_job(arn, "waits")
    until(lambda: "waiting" in desk.job(job)["SecondaryStatusTransitions"][-1]["StatusMessage"], "it waits")
    desk.stop(arn)
    assert desk.execution(arn) == "Stopped"
    assert desk.job(job)["Status"] == "Stopped"
    stop(desk, first)
    desk.ended(first)


def test_a_stop_of_a_stubborn_step_ends_after_its_grace(desk: Desk) -> None:
    arn = desk.start("stubborn", step("stubborn", "Processing", desk.processing("stubborn")))
    desk.await_up(desk.step_job(arn, "stubborn"))
    desk.stop(arn)
    assert desk.sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    assert desk.steps(arn)["stubborn"] in ("Stopping", "Executing")
    assert desk.execution(arn) == "Stopped"
    assert desk.steps(arn) == {"stubborn": "Stopped"}


def test_a_stop_before_conditions_and_registrations_begins_none_of_them(desk: Desk) -> None:
    """A gate, a model, a registration take no time: a stop comes before them or after them, and is never half obeyed."""
    package = {"ModelPackageGroupName": "stopped", "InferenceSpecification": {
        "Containers": [{"Image": PLAIN}], "SupportedContentTypes": ["a/b"], "SupportedResponseMIMETypes": ["a/b"]}}  # fmt: skip
    register = step("register", "RegisterModel", package)
    model = step("model", "Model", {"ExecutionRoleArn": desk.role, "PrimaryContainer": {"Image": PLAIN}})
    always = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}
    gate = step("gate", "Condition", {"Conditions": [always], "IfSteps": [register, model], "ElseSteps": []}, "quick")
    whole = {"quick", "gate", "register", "model"}
    for number in range(6):
        arn = desk.start(f"gate-{number}", step("quick", "Processing", desk.processing("quick")), gate)
        threading.Event().wait(number * 0.04)
        with suppress(desk.sm.exceptions.ClientError):  # it was over already
            desk.stop(arn)
        status, steps = desk.execution(arn), desk.steps(arn)
        if status == "Succeeded":
            assert (set(steps), set(steps.values())) == (whole, {"Succeeded"})
        else:
            assert status == "Stopped"
            assert set(steps) <= {"quick"}
            assert set(steps.values()) <= {"Stopped", "Succeeded"}


def test_an_ended_execution_cannot_be_stopped(desk: Desk) -> None:
    arn = desk.start("over", step("quick", "Processing", desk.processing("quick")))
    assert desk.execution(arn) == "Succeeded"
    with pytest.raises(desk.sm.exceptions.ClientError):
        desk.stop(arn)


def test_stops_of_the_engine_and_a_kill_of_it_do_not_lose_each_other(desk: Desk) -> None:
    arn = desk.start("killed-stop", step("hold", "Processing", desk.processing("stubborn")))
    desk.await_up(desk.step_job(arn, "hold"))
    desk.stop(arn)
    desk.clan.kill("engine")
    assert desk.execution(arn) == "Stopped"
    assert desk.steps(arn) == {"hold": "Stopped"}


def test_nothing_is_left_after_all_stops(desk: Desk) -> None:
    until(lambda: not [*desk.clan.run_folders(), *desk.clan.job_keys()], "all is given back")
    assert workload.failures(desk.clan.log()) == []
    assert workload.events_out_of_order(desk.clan) == []
