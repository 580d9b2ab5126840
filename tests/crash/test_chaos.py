"""kill -9 of every member of the family at random moments: each execution ends right, and no result is published twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.runs import sandbox
from tests.crash import workload
from tests.crash.chaos import ATTEMPT, rage
from tests.crash.families import MEMBERS, PLAIN, Clan, raise_clan, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
SEED = int(os.environ.get("PENSTOCK_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
KILLS, SECONDS = 12, 60


@pytest.fixture(scope="module")
def clan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clan]:
    with raise_clan(tmp_path_factory.mktemp("clan"), cpus="8", memory_bytes=str(16 << 30)) as made:
        yield made


def test_executions_end_right_whoever_is_killed(tmp_path: Path) -> None:
    with raise_clan(tmp_path, cpus="8", memory_bytes=str(16 << 30)) as clan:
        chaos = rage(clan, SEED, KILLS, SECONDS)  # the seed is printed: PENSTOCK_TEST_SEED tells the story again
        assert chaos.settle() == []
        assert workload.failures(clan.log()) == []
        print(dict(chaos.kills), len(chaos.executions), "executions,", chaos.losses(), "second attempts")
        assert len(chaos.executions) >= 2
        assert sum(chaos.kills.values()) >= 5  # a slow machine leaves time for fewer


def hold(clan: Clan, name: str, text: str = "import time; print('up', flush=True); time.sleep(600)") -> str:
    """A processing job that runs until it is stopped; gives its run's name."""
    sm, s3 = clan.client("sagemaker"), clan.client("s3")
    s3.create_bucket(Bucket="held")
    s3.put_object(Bucket="held", Key=f"{name}/program.py", Body=text)
    sm.create_processing_job(
        ProcessingJobName=name,
        RoleArn=clan.keys["role_arn"],
        AppSpecification={
            "ImageUri": PLAIN, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/program.py"],
        },
        ProcessingResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
        },
        ProcessingInputs=[workload.source("code", f"s3://held/{name}/program.py")],
    )  # fmt: skip
    return str(until(lambda: next((run for run in clan.supervisors() if f".{name}." in run), None), f"{name} runs"))


def status(clan: Clan, name: str) -> str:
    return str(clan.client("sagemaker").describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"])


def lose(clan: Clan, run: str) -> None:
    """Kills a run's supervisor once its program runs."""
    until(lambda: (clan.data / "runs" / run / "running").exists(), f"{run} runs")
    assert clan.strike(run)


def test_a_job_lost_twice_fails_with_aws_words_for_a_fault_of_the_service(clan: Clan) -> None:
    run = hold(clan, "lost-twice")
    lose(clan, run)
    until(lambda: run in clan.supervisors(), "the second attempt")
    lose(clan, run)
    until(lambda: status(clan, "lost-twice") == "Failed", "the job fails")
    job = clan.client("sagemaker").describe_processing_job(ProcessingJobName="lost-twice")
    assert job["FailureReason"].startswith("InternalServerError")
    assert ATTEMPT in "".join(path.read_text() for path in (clan.data / "logs").rglob("*lost-twice*/*"))


RESUMES = """
import os, time
folder = "/opt/ml/checkpoints"
print("found", sorted(os.listdir(folder)), flush=True)
if not os.path.exists(folder + "/epoch-1"):
    open(folder + "/epoch-1", "w").write("weights")
    time.sleep(600)
"""


def test_a_second_attempt_finds_the_checkpoints_that_went_up_while_the_first_one_ran(clan: Clan) -> None:
    sm, s3, role = clan.client("sagemaker"), clan.client("s3"), clan.keys["role_arn"]
    s3.create_bucket(Bucket="checkpoints")
    sm.create_training_job(
        TrainingJobName="resumes", RoleArn=role, StoppingCondition={"MaxRuntimeInSeconds": 3600},
        AlgorithmSpecification={
            "TrainingImage": "python:3.11", "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-c", RESUMES]},
        OutputDataConfig={"S3OutputPath": "s3://checkpoints/out"},
        CheckpointConfig={"S3Uri": "s3://checkpoints/resumes"},
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
    )  # fmt: skip
    until(lambda: s3.list_objects_v2(Bucket="checkpoints", Prefix="resumes/").get("Contents"), "the checkpoint in S3")
    (run,) = [name for name in clan.supervisors() if ".resumes." in name]
    lose(clan, run)
    until(lambda: sm.describe_training_job(TrainingJobName="resumes")["TrainingJobStatus"] != "InProgress", "the end")
    assert sm.describe_training_job(TrainingJobName="resumes")["TrainingJobStatus"] == "Completed"
    log = "".join(path.read_text() for path in (clan.data / "logs").rglob("*resumes*/*"))
    assert "found []" in log
    assert "found ['epoch-1']" in log


SPOT = """
import os, signal, sys, time
folder = "/opt/ml/checkpoints"
print("found", sorted(os.listdir(folder)), flush=True)
def notice(*_):
    open(folder + "/last", "w").write("on notice")
    print("noticed", flush=True)
    time.sleep(3)
    sys.exit(1)
signal.signal(signal.SIGTERM, notice)
if not os.listdir(folder):
    open(folder + "/epoch-1", "w").write("weights")
    time.sleep(600)
"""


def test_an_interrupted_spot_job_goes_on_from_its_checkpoints_whoever_is_killed_in_the_middle(clan: Clan) -> None:
    sm, s3 = clan.client("sagemaker"), clan.client("s3")
    s3.create_bucket(Bucket="spot")
    s3.put_object(Bucket="spot", Key="code/spot.py", Body=SPOT)
    sm.create_training_job(
        TrainingJobName="spot", RoleArn=clan.keys["role_arn"], EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600},
        AlgorithmSpecification={
            "TrainingImage": "python:3.11", "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "/opt/ml/input/data/code/spot.py"]},
        InputDataConfig=[{"ChannelName": "code", "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://spot/code/"}}}],
        OutputDataConfig={"S3OutputPath": "s3://spot/out"},
        CheckpointConfig={"S3Uri": "s3://spot/checkpoints"},
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
    )  # fmt: skip

    def log() -> str:
        return "".join(path.read_text() for path in (clan.data / "logs").rglob("*spot*/*"))

    until(lambda: s3.list_objects_v2(Bucket="spot", Prefix="checkpoints/").get("Contents"), "the checkpoint in S3")
    assert clan.penstock("fault", "add", "spot-interruption", "spot").returncode == 0
    until(lambda: "noticed" in log(), "the interruption")
    clan.kill("engine")  # the program has been told, and has not ended
    job = until(
        lambda: next(filter(lambda told: told["TrainingJobStatus"] != "InProgress",
                            [sm.describe_training_job(TrainingJobName="spot")]), None), "the end")  # fmt: skip
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == ("Completed", None)
    statuses = [each["Status"] for each in job["SecondaryStatusTransitions"]]
    assert [status for status in statuses if status != "Downloading"] == [
        "Starting", "Training", "Interrupted", "Starting", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert "found ['epoch-1', 'last']" in log()
    assert 0 < job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]


def test_a_keeper_started_again_finds_the_runs_that_went_on(clan: Clan) -> None:
    run = hold(clan, "goes-on")
    supervisor = clan.supervisors()[run]
    clan.kill("keeper")
    assert [clan.member(name) for name in MEMBERS] == [None] * len(MEMBERS)
    clan.up()
    assert clan.supervisors()[run] == supervisor
    clan.client("sagemaker").stop_processing_job(ProcessingJobName="goes-on")
    until(lambda: status(clan, "goes-on") == "Stopped", "the job stops")


def test_the_server_can_be_started_at_once_after_its_keeper_was_killed(clan: Clan) -> None:
    os.kill(clan.keeper, signal.SIGKILL)
    clan.up()
    assert clan.client("sagemaker").list_processing_jobs()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_killed_runner_comes_back_and_starts_what_is_asked_for(clan: Clan) -> None:
    before = clan.member("runner")
    assert clan.kill("runner")
    hold(clan, "after-the-runner")
    assert clan.member("runner") not in (None, before)
    clan.client("sagemaker").stop_processing_job(ProcessingJobName="after-the-runner")
    until(lambda: status(clan, "after-the-runner") == "Stopped", "the job stops")


def test_a_call_of_a_job_waits_while_the_server_is_away(clan: Clan) -> None:
    """The socket was born in the sandbox: while no front is there, its calls wait in the backlog."""
    program = """
import socket, time
def ask():
    with socket.create_connection(("127.0.0.1", 4600), 60) as api:
        api.sendall(b"GET /_penstock/health HTTP/1.1\\r\\nHost: 127.0.0.1:4600\\r\\nConnection: close\\r\\n\\r\\n")
        return api.recv(64)
assert b" 200 " in ask()
open("/opt/ml/processing/ready", "w").close()
print("ready", flush=True)
end = time.monotonic() + 4
count = 0
while time.monotonic() < end:
    assert b" 200 " in ask()
    count += 1
print("asked", count, flush=True)
"""
    hold(clan, "asks", program)
    log = until(lambda: next((clan.data / "logs").rglob("*asks*/*"), None), "the log")
    until(lambda: " ready" in log.read_text(), "the program's first call")
    clan.kill("keeper")
    clan.up()
    until(lambda: status(clan, "asks") in ("Completed", "Failed"), "the job ends")
    assert status(clan, "asks") == "Completed", log.read_text()


def test_nothing_is_left_after_all_this(clan: Clan) -> None:
    deadline = time.monotonic() + 20
    while (left := [*clan.run_folders(), *clan.job_keys(), *clan.mounts()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert workload.failures(clan.log()) == []
