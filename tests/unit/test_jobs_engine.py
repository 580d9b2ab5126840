"""Jobs from creation to their end: operations and engine steps in one process, with a stand-in for the executor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.kernel import auth
from penstock.kernel.call import Caller
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Environment, ImageError, Result, RunSpec, RunState
from penstock.services.sagemaker import faults, jobs, nouns, specs
from penstock.store.records import Change, Document, Ref
from tests.conftest import World
from tests.refusals import refusal

BUCKET = "data"
ROLE = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


class Runs:
    """An executor whose runs are told how they go."""

    def __init__(self) -> None:
        self.specs: dict[str, RunSpec] = {}
        self.states: dict[str, RunState] = {}
        self.calls: list[tuple[str, str]] = []
        self.first = RunState("running", started=1_700_000_000.0)

    def start(self, spec: RunSpec) -> RunState:
        self.calls.append(("start", spec.name))
        self.specs.setdefault(spec.name, spec)
        return self.states.setdefault(spec.name, self.first)

    def look(self, name: str) -> RunState | None:
        return self.states.get(name)

    def stop(self, name: str, reason: str = "stopped") -> None:
        self.calls.append(("stop", name))

    def retry(self, name: str, spec: RunSpec | None = None) -> RunState:
        self.calls.append(("retry", name))
        self.specs[name] = spec or self.specs[name]
        self.states[name] = RunState("starting", attempt=self.states[name].attempt + 1)
        return self.states[name]

    def names(self) -> list[str]:
        return list(self.states)

    def forget(self, name: str) -> None:
        if name not in self.states:
            return
        self.calls.append(("forget", name))
        if self.states[name].phase not in ("ended", "lost"):
            raise ValueError(name)
        self.states.pop(name, None)

    @property
    def spec(self) -> RunSpec:
        (spec,) = self.specs.values()
        return spec

    def say(self, **state: Any) -> None:
        (name,) = self.states
        self.states[name] = RunState(**state)


class Images:
    """Knows the images whose names it is given."""

    def __init__(self) -> None:
        self.framework, self.ready = "sklearn", True

    def look(self, uri: str) -> Environment | None:
        self.check(uri)
        if not self.ready:
            return None
        expressions = [{"Name": "validation:rmse", "Regex": r"validation-rmse:(\S+)"}]
        return Environment(
            uri, self.framework, "1.2-1", "/env/bin/python", layers=("/layers/image",), env={"PATH": "/env/bin"},
            note="this image became that", metrics=expressions if self.framework == "xgboost" else [],
        )  # fmt: skip

    def asks(self, uri: str) -> bool:
        return False

    def check(self, uri: str) -> None:
        if "no-such" in uri:
            raise ImageError("Nothing stands for it.")

    def packages(self) -> tuple[dict[str, str], list[str]]:
        return {"PIP_INDEX_URL": "https://index"}, []


class Jobs:
    """A world with a bucket, and a short way to make jobs of it."""

    def __init__(self, world: World):
        self.world, self.runs, self.images = world, Runs(), Images()
        world.app.runs, world.app.images, world.app.layers = self.runs, self.images, ["/layers/common"]
        world("s3", "CreateBucket", Bucket=BUCKET)

    def put(self, key: str, text: str = "x") -> None:
        self.world("s3", "PutObject", Bucket=BUCKET, Key=key, Body=text.encode())

    def get(self, key: str) -> bytes:
        row = self.world.app.store.object(BUCKET, key)
        assert row is not None, key
        return row.inline or b""

    def train(self, name: str = "job", **more: Any) -> Document:
        params: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }
        self.world("sagemaker", "CreateTrainingJob", **{**params, **more})
        return self.document("training-job", name)

    def process(self, name: str = "job", **more: Any) -> Document:
        params: dict[str, Any] = {
            "ProcessingJobName": name,
            "RoleArn": ROLE,
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "x.py"],
                "ContainerArguments": ["a"],
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 7}
            },
        }
        self.world("sagemaker", "CreateProcessingJob", **{**params, **more})
        return self.document("processing-job", name)

    def document(self, kind: str, name: str = "job") -> Document:
        found = self.world.app.store.get(Ref(f"sagemaker.{kind}", self.world.account, self.world.region, name))
        assert found is not None
        return found

    def step(self, document: Document) -> float | None:
        return self.world.step(document)

    def events(self) -> list[dict[str, Any]]:
        return [event.detail for event in self.world.app.store.events(0) if "Job State Change" in event.detail_type]

    def log(self, document: Document, group: str, host: str = "algo-1") -> Path:
        logs = self.world.app.logs
        return Path(logs.file(document.account, document.region, group, nouns.stream_name(document, host)))


@pytest.fixture
def made(world: World) -> Jobs:
    return Jobs(world)


def result(output: str, key: str, data: bytes) -> Result:
    return Result(output, key, hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest(), len(data), data)


def channel(name: str, prefix: str, **more: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}", **more}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def files(inputs: list[Any]) -> dict[str, bytes]:
    return {given.target: given.data for given in inputs if given.data is not None}


SCRIPT = {
    "sagemaker_program": '"train.py"',
    "sagemaker_submit_directory": f'"s3://{BUCKET}/code/sourcedir.tar.gz"',
    "alpha": "0.5",
}


# --- the run of a training job


def test_one_look_starts_the_run_and_shows_that_it_trains(made: Jobs):
    document = made.train()
    assert made.step(document) == jobs.HEARTBEAT_S
    shown = made.world("sagemaker", "DescribeTrainingJob", TrainingJobName="job")
    assert (shown["TrainingJobStatus"], shown["SecondaryStatus"]) == ("InProgress", "Training")
    assert [t["Status"] for t in shown["SecondaryStatusTransitions"]] == ["Starting", "Downloading", "Training"]
    assert "TrainingStartTime" in shown
    assert not [name for name in shown if name.startswith("_")]
    assert made.runs.spec.labels == {
        "kind": document.kind,
        "account": document.account,
        "region": document.region,
        "name": "job",
    }
    assert nouns.run_ref(made.runs.spec.name) == document.ref


def test_a_run_has_the_jobs_limits_place_and_party(made: Jobs):
    document = made.train()
    document.body["_execution"] = ["123456789012", "us-east-1", "e1"]
    made.world.app.steps()[document.kind](made.world.app.step_call(document, 5.0), document)
    spec = made.runs.spec
    assert (spec.timeout_s, spec.disk_bytes, spec.cwd, spec.network) == (600, 5 << 30, "/", True)
    assert spec.party == "123456789012/us-east-1/e1"
    assert spec.memory_bytes <= 8 << 30
    assert spec.message_file == "/opt/ml/output/failure"
    assert spec.layers == ["/layers/image", "/layers/common"]


def test_script_mode_gets_its_code_its_data_and_its_arguments(made: Jobs):
    made.put("code/sourcedir.tar.gz", "archive")
    made.put("train/a.csv", "1")
    made.put("train/deep/b.csv", "2")
    made.step(
        made.train(HyperParameters=SCRIPT, InputDataConfig=[channel("train", "train/")], Environment={"MINE": "1"})
    )
    spec = made.runs.spec
    laid = files(spec.inputs)
    assert spec.command[1:] == [
        "/opt/penstock/containers/training/entry.py", f"s3://{BUCKET}/code/sourcedir.tar.gz", "train.py",
        "--alpha", "0.5",
    ]  # fmt: skip
    assert laid["/opt/penstock/source/sourcedir.tar.gz"] == b"archive"
    assert laid["/opt/ml/input/data/train/a.csv"] == b"1"
    assert laid["/opt/ml/input/data/train/deep/b.csv"] == b"2"
    assert json.loads(laid["/opt/ml/input/config/hyperparameters.json"]) == SCRIPT
    assert json.loads(laid["/opt/ml/input/config/inputdataconfig.json"])["train"]["TrainingInputMode"] == "File"
    (instance,) = spec.instances
    assert json.loads(files(instance.inputs)["/opt/ml/input/config/resourceconfig.json"])["current_host"] == "algo-1"
    assert instance.env["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert instance.env["SM_HP_ALPHA"] == "0.5"
    assert (spec.env["MINE"], spec.env["TRAINING_JOB_NAME"], spec.env["PIP_INDEX_URL"]) == ("1", "job", "https://index")
    assert spec.env["PYTHONPATH"].split(":")[0] == "/opt/ml/code"


def test_code_of_an_s3_folder_lies_in_the_code_folder(made: Jobs):
    made.put("code/train.py", "print()")
    made.step(made.train(HyperParameters={**SCRIPT, "sagemaker_submit_directory": f'"s3://{BUCKET}/code/"'}))
    assert files(made.runs.spec.inputs)["/opt/ml/code/train.py"] == b"print()"


def test_an_entrypoint_of_ones_own_is_what_runs(made: Jobs):
    own = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", "x"],
    }
    made.step(
        made.train(
            AlgorithmSpecification=own, HyperParameters=SCRIPT | {"sagemaker_submit_directory": '"/opt/ml/code"'}
        )
    )
    assert made.runs.spec.command == ["/bin/bash", "-c", "x"]


def test_the_xgboost_image_without_a_script_is_the_algorithm(made: Jobs):
    made.images.framework = "xgboost"
    made.step(made.train(HyperParameters={"num_round": "5"}))
    assert made.runs.spec.command == ["/env/bin/python", "/opt/penstock/containers/algorithm_xgboost"]


def test_hosts_share_what_is_sharded_and_all_have_the_rest(made: Jobs):
    for name in ("a", "b", "c"):
        made.put(f"shards/{name}")
    made.put("all/d")
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    channels = [channel("shards", "shards/", S3DataDistributionType="ShardedByS3Key"), channel("all", "all/")]
    document = made.train(ResourceConfig=resources, InputDataConfig=channels)
    made.step(document)
    spec = made.runs.spec
    shares = [
        sorted(path.rpartition("/")[2] for path in files(each.inputs) if "/data/" in path) for each in spec.instances
    ]
    assert shares == [["a", "c"], ["b"]]
    assert "/opt/ml/input/data/all/d" in files(spec.inputs)
    assert [each.host for each in spec.instances] == ["algo-1", "algo-2"]
    assert len({each.log for each in spec.instances}) == 2
    assert [each.env["SM_CURRENT_HOST"] for each in spec.instances] == ["algo-1", "algo-2"]


def test_the_jobs_credentials_are_its_roles_and_end_with_it(made: Jobs):
    document = made.train()
    made.step(document)
    env = made.runs.spec.env
    key = made.world.app.store.get(auth.key_ref(env["AWS_ACCESS_KEY_ID"]))
    assert key is not None
    assert key.body["_caller"]["arn"] == "arn:aws:sts::123456789012:assumed-role/SageMakerExecutionRole/SageMaker"
    assert key.body["_caller"]["run"] == made.runs.spec.name
    assert env["AWS_SESSION_TOKEN"] == key.body["SessionToken"]
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    made.step(document)
    assert made.world.app.store.get(key.ref) is None


def test_what_a_job_makes_of_its_credentials_ends_with_it(made: Jobs):
    document = made.train()
    made.step(document)
    app, name = made.world.app, made.runs.spec.env["AWS_ACCESS_KEY_ID"]
    made_of_it = []
    for _ in range(2):  # a session, and a session of that session
        call = made.world.call()
        call.caller = Caller(
            document.account, "arn:aws:sts::123456789012:assumed-role/x/y", access_key=name, run=document.body["_run"]
        )
        name = call.other("sts", "AssumeRole", RoleArn=ROLE, RoleSessionName="mine")["Credentials"]["AccessKeyId"]
        app.store.commit(call.change)
        made_of_it.append(app.store.get(auth.key_ref(name)))
    older = auth.make_key(Caller(document.account, "arn:x", run=document.body["_run"]), 1.0, 2.0)
    older.parent, older.label = older.label, ""  # as a Penstock before made them
    app.store.commit(Change(puts=[older]))
    assert {key.body["_root"] for key in made_of_it} == {made.runs.spec.env["AWS_ACCESS_KEY_ID"]}
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    made.step(document)
    assert auth.keys_of_run(app.store, document.body["_run"]) == []


def test_an_isolated_job_has_no_network_and_no_credentials(made: Jobs):
    made.step(made.train(EnableNetworkIsolation=True))
    assert made.runs.spec.network is False
    assert "AWS_ACCESS_KEY_ID" not in made.runs.spec.env


def test_certificates_are_named_where_the_server_has_them(made: Jobs):
    made.step(made.train())
    assert made.runs.spec.env["PIP_CERT"] == "/etc/ssl/certs/penstock.pem"


def test_the_logs_first_line_says_what_the_image_became_and_is_there_once(made: Jobs):
    document = made.train()
    made.step(document)
    made.runs.states.clear()
    made.step(document)
    text = made.log(document, "/aws/sagemaker/TrainingJobs").read_text()
    assert text.count("this image became that") == 1
    assert made.runs.spec.instances[0].log == str(made.log(document, "/aws/sagemaker/TrainingJobs"))


def test_an_image_that_is_being_built_is_waited_for(made: Jobs):
    made.images.ready = False
    document = made.train()
    assert made.step(document) == specs.IMAGE_LOOK_S
    assert made.runs.calls == []
    made.images.ready = True
    made.step(document)
    assert made.runs.calls[0][0] == "start"


def test_waiting_for_capacity_shows_as_starting(made: Jobs):
    made.runs.first = RunState("waiting")
    document = made.train()
    made.step(document)
    body = made.document("training-job").body
    assert body["SecondaryStatus"] == "Starting"
    assert body["SecondaryStatusTransitions"][-1]["StatusMessage"] == "Insufficient capacity, waiting"
    version = made.document("training-job").version
    made.step(document)
    assert made.document("training-job").version == version
    made.runs.say(phase="running", started=9.0)
    made.step(document)
    assert made.document("training-job").body["SecondaryStatus"] == "Training"


def test_a_job_trains_when_its_program_runs_and_not_before(made: Jobs):
    made.runs.first = RunState("starting")
    document = made.train()
    assert made.step(document) == jobs.HEARTBEAT_S
    assert (made.document("training-job").version, made.document("training-job").body["SecondaryStatus"]) == (1, "Starting")
    made.runs.say(phase="running", started=made.document("training-job").created + 3.0)
    made.step(document)
    body = made.document("training-job").body
    assert (body["SecondaryStatus"], body["TrainingStartTime"]) == ("Training", document.created + 3.0)


def test_a_look_at_a_run_that_goes_on_writes_nothing(made: Jobs):
    document = made.train()
    made.step(document)
    made.runs.say(phase="running", started=9.0)
    version = made.document("training-job").version
    made.step(document)
    assert made.document("training-job").version == version


# --- the end of a training job


def test_the_end_publishes_artifacts_times_and_status_in_one_change_and_then_cleans_up(made: Jobs):
    document = made.train()
    made.step(document)
    results = [result("model", "", b"the model"), result("output", "", b"the output")]
    made.runs.say(phase="ended", exit_code=0, started=10.0, ended=12.5, results=results)
    assert made.step(document) == 0.0  # its lineage is entered by the next look
    shown = made.world("sagemaker", "DescribeTrainingJob", TrainingJobName="job")
    assert (shown["TrainingJobStatus"], shown["SecondaryStatus"]) == ("Completed", "Completed")
    assert shown["ModelArtifacts"] == {"S3ModelArtifacts": f"s3://{BUCKET}/out/job/output/model.tar.gz"}
    assert (shown["TrainingStartTime"], shown["TrainingEndTime"], shown["TrainingTimeInSeconds"]) == (10.0, 12.5, 3)
    assert made.get("out/job/output/model.tar.gz") == b"the model"
    assert made.get("out/job/output/output.tar.gz") == b"the output"
    assert [t["Status"] for t in shown["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    assert made.runs.calls[-1] == ("forget", made.runs.spec.name)


def test_many_results_are_published_some_at_a_time_and_all_are_there(made: Jobs, monkeypatch: pytest.MonkeyPatch):
    """And the change before the last that is lost with its process is made again."""
    monkeypatch.setattr(jobs, "PUBLISHED_AT_ONCE", 3)
    document = made.train(OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": "NONE"})
    made.step(document)
    results = [result("model", f"{number:02}", b"x") for number in range(8)]
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0, results=results)
    assert made.step(document) == 0.0
    call = made.world.app.step_call(made.document("training-job"), 3.0)
    assert made.world.app.steps()[document.kind](call, made.document("training-job")) == 0.0  # and is not committed
    assert [made.step(document) for _ in range(3)] == [0.0, 0.0, None]
    listed = made.world("s3", "ListObjectsV2", Bucket=BUCKET, Prefix="out/job/output/model/")["Contents"]
    assert [entry["Key"][-2:] for entry in listed] == [f"{number:02}" for number in range(8)]
    job = made.document("training-job")
    assert (job.status, "_taken" in job.body, "ModelArtifacts" in job.body) == ("Completed", False, True)


def test_an_uncompressed_model_is_a_folder(made: Jobs):
    document = made.train(OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": "NONE"})
    made.step(document)
    assert {output.kind for output in made.runs.spec.outputs} == {"files"}
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0, results=[result("model", "a/b", b"m")])
    made.step(document)
    assert made.get("out/job/output/model/a/b") == b"m"
    assert made.document("training-job").body["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model/")


def test_a_failure_has_its_reason_and_keeps_what_was_written(made: Jobs):
    made.put("code/sourcedir.tar.gz")
    document = made.train(HyperParameters=SCRIPT)
    made.step(document)
    made.runs.say(
        phase="ended", exit_code=1, reason="exit", tail=["Traceback (most recent call last):", "ValueError: no"],
        started=1.0,
        ended=2.0, results=[result("output", "", b"half")],
    )  # fmt: skip
    made.step(document)
    body = made.document("training-job").body
    assert (body["TrainingJobStatus"], body["SecondaryStatus"]) == ("Failed", "Failed")
    assert "ValueError: no" in body["FailureReason"]
    assert "exit code: 1" in body["FailureReason"]
    assert made.get("out/job/output/output.tar.gz") == b"half"
    assert "ModelArtifacts" not in body


def test_the_time_limit_stops_a_training_job_and_says_so(made: Jobs):
    document = made.train()
    made.step(document)
    made.runs.say(
        phase="ended", exit_code=143, reason="timeout", started=1.0, ended=2.0, results=[result("model", "", b"m")]
    )
    made.step(document)
    body = made.document("training-job").body
    assert (body["TrainingJobStatus"], body["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert made.get("out/job/output/model.tar.gz") == b"m"


def test_a_bucket_that_is_gone_fails_the_job(made: Jobs):
    document = made.train(OutputDataConfig={"S3OutputPath": "s3://nobodys/out"})
    made.step(document)
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0, results=[result("model", "", b"m")])
    made.step(document)
    told = "ClientError: Artifact upload failed: The specified bucket does not exist: nobodys"
    assert made.document("training-job").body["FailureReason"] == told


def test_metrics_of_the_log_are_shown_and_kept(made: Jobs):
    algorithm = {
        "TrainingImage": IMAGE, "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
    }  # fmt: skip
    document = made.train(AlgorithmSpecification=algorithm)
    made.step(document)
    made.world.app.logs.append_events(made.runs.spec.instances[0].log, [(1000, "loss=0.9"), (2000, "loss=0.1")])
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    made.step(document)
    body = made.document("training-job").body
    assert body["FinalMetricDataList"] == [{"MetricName": "loss", "Value": 0.1, "Timestamp": 2.0}]
    assert made.world.app.store.points(f"{document.arn}/loss") == [(1.0, 0.9, 0.0), (2.0, 0.1, 1.0)]


def test_the_built_in_algorithms_own_metrics_are_found(made: Jobs):
    made.images.framework = "xgboost"
    document = made.train()
    made.step(document)
    made.world.app.logs.append_events(
        made.runs.spec.instances[0].log, [(1000, "[0]\ttrain-rmse:1\tvalidation-rmse:0.5")]
    )
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    made.step(document)
    assert made.document("training-job").body["FinalMetricDataList"][0]["Value"] == 0.5


def test_checkpoints_are_laid_out_and_brought_back(made: Jobs):
    made.put("ckpt/epoch-1", "one")
    document = made.train(CheckpointConfig={"S3Uri": f"s3://{BUCKET}/ckpt"})
    made.step(document)
    assert files(made.runs.spec.inputs)["/opt/ml/checkpoints/epoch-1"] == b"one"
    made.runs.say(phase="running", started=1.0, results=[result("checkpoints", "epoch-2", b"two")])
    assert made.step(document) == jobs.CONTINUOUS_S
    assert made.get("ckpt/epoch-2") == b"two"
    version = made.document("training-job").version
    made.step(document)
    assert made.document("training-job").version == version


# --- stopping and losing


def test_a_job_that_is_stopped_before_it_is_seen_to_train_shows_its_turns_in_their_order(made: Jobs):
    made.runs.first = RunState("starting")
    document = made.train()
    made.step(document)
    made.world("sagemaker", "StopTrainingJob", TrainingJobName="job")
    made.runs.say(phase="ended", exit_code=143, reason="stopped", started=1.0, ended=3.0)
    made.step(document)
    body = made.document("training-job").body
    turns = [each["Status"] for each in body["SecondaryStatusTransitions"]]
    assert turns == ["Starting", "Downloading", "Training", "Stopping", "Uploading", "Stopped"]


def test_a_stop_before_the_start_ends_the_job_at_once(made: Jobs):
    document = made.train()
    made.world("sagemaker", "StopTrainingJob", TrainingJobName="job")
    assert made.document("training-job").body["SecondaryStatus"] == "Stopping"
    made.step(document)
    assert made.runs.calls == []
    assert made.document("training-job").status == "Stopped"


@pytest.mark.parametrize("phase", ["waiting", "starting", "running"])
def test_a_stop_reaches_the_run_whatever_it_does(made: Jobs, phase: str):
    made.runs.first = RunState(phase, started=1.0)
    document = made.train()
    made.step(document)
    made.world("sagemaker", "StopTrainingJob", TrainingJobName="job")
    made.step(document)
    assert ("stop", made.runs.spec.name) in made.runs.calls
    made.runs.say(phase="ended", exit_code=143, reason="stopped", ended=3.0)
    made.step(document)
    body = made.document("training-job").body
    assert (body["TrainingJobStatus"], body["SecondaryStatus"]) == ("Stopped", "Stopped")


def test_an_ended_job_cannot_be_stopped(made: Jobs):
    document = made.train()
    made.step(document)
    made.runs.say(phase="ended", exit_code=0)
    made.step(document)
    assert refusal(lambda: made.world("sagemaker", "StopTrainingJob", TrainingJobName="job")) == (
        "ValidationException", "The request was rejected because the training job is in status Completed.",
    )  # fmt: skip


def test_a_lost_run_is_tried_once_more_and_then_given_up(made: Jobs):
    document = made.train()
    made.step(document)
    made.runs.say(phase="lost", attempt=1)
    made.step(document)
    assert made.runs.calls[-1][0] == "retry"
    assert "attempt 2 begins" in made.log(document, "/aws/sagemaker/TrainingJobs").read_text()
    made.runs.say(phase="lost", attempt=2)
    made.step(document)
    body = made.document("training-job").body
    assert body["TrainingJobStatus"] == "Failed"
    assert body["FailureReason"].startswith("InternalServerError")


def test_a_lost_job_goes_on_from_the_checkpoints_that_went_up_before(made: Jobs):
    document = made.train(CheckpointConfig={"S3Uri": f"s3://{BUCKET}/ckpt"})
    made.step(document)
    assert made.step(document) == jobs.CONTINUOUS_S
    made.runs.say(phase="running", started=1.0, results=[result("checkpoints", "epoch-1", b"1")])
    made.step(document)
    assert made.get("ckpt/epoch-1") == b"1"
    made.runs.say(phase="lost", attempt=1)
    made.step(document)
    assert made.runs.calls[-1][0] == "retry"
    laid = {given.target: given.data for given in made.runs.spec.inputs}
    assert laid["/opt/ml/checkpoints/epoch-1"] == b"1"


def test_a_lost_job_goes_on_from_what_was_taken_last_too(made: Jobs):
    document = made.train(CheckpointConfig={"S3Uri": f"s3://{BUCKET}/ckpt"})
    made.step(document)
    made.runs.say(phase="lost", attempt=1, results=[result("checkpoints", "epoch-1", b"1")])
    assert made.step(document) == 0.0
    assert made.get("ckpt/epoch-1") == b"1"
    made.step(document)
    assert made.runs.calls[-1][0] == "retry"
    assert files(made.runs.spec.inputs)["/opt/ml/checkpoints/epoch-1"] == b"1"


@pytest.mark.parametrize("phase", ["running", "lost"])
def test_a_bucket_that_goes_away_while_the_program_runs_fails_the_job_and_stops_the_run(made: Jobs, phase: str):
    made.world("s3", "CreateBucket", Bucket="short-lived")
    document = made.train(CheckpointConfig={"S3Uri": "s3://short-lived/ckpt"})
    made.step(document)
    made.world("s3", "DeleteBucket", Bucket="short-lived")
    made.runs.say(phase=phase, started=1.0, results=[result("checkpoints", "epoch-1", b"1")])
    made.step(document)
    body = made.document("training-job").body
    assert (body["TrainingJobStatus"], body["SecondaryStatus"]) == ("Failed", "Failed")
    assert body["FailureReason"].startswith("ClientError: Artifact upload failed: ")
    made.step(document)
    assert made.runs.calls[-1][0] == ("stop" if phase == "running" else "forget")


def test_a_job_that_cannot_be_looked_at_ends_failed_and_its_run_is_stopped(made: Jobs):
    document = made.train()
    made.world.step(document)
    made.runs.say(phase="running", started=5.0, attempt=1)
    call = made.world.app.step_call(made.document("training-job", "job"), 9.0)
    assert made.world.app.give_up()[document.kind](call, made.document("training-job", "job")) is not None
    made.world.app.store.commit(call.change)
    document = made.document("training-job", "job")
    assert (document.status, document.body["SecondaryStatus"]) == ("Failed", "Failed")
    assert document.body["FailureReason"].startswith("InternalServerError")
    assert made.world.step(document) is not None  # its run is still there
    assert made.runs.calls[-1][0] == "stop"
    made.runs.say(phase="ended", exit_code=143)
    assert made.world.step(document) is None
    assert made.runs.calls[-1][0] == "forget"


def test_every_change_of_status_is_an_event_and_wakes_the_execution(made: Jobs):
    document = made.train()
    document = made.document("training-job")
    document.body["_execution"] = ["123456789012", "us-east-1", "e1"]
    call = made.world.call()
    call.put(document)
    made.world.app.store.commit(call.change)
    made.step(document)
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    fresh = made.document("training-job")
    call = made.world.app.step_call(fresh, 5.0)
    made.world.app.steps()[fresh.kind](call, fresh)
    assert [wake.ref for wake in call.change.wakes] == [
        Ref("sagemaker.pipeline-execution", "123456789012", "us-east-1", "e1")
    ]
    (event,) = call.change.events
    assert (event.source, event.detail_type) == ("aws.sagemaker", "SageMaker Training Job State Change")
    assert event.detail["TrainingJobStatus"] == "Completed"
    assert event.resources == [fresh.arn]
    assert [detail["SecondaryStatus"] for detail in made.events()] == ["Starting", "Training"]


# --- processing jobs


def test_a_processing_job_runs_from_inputs_to_outputs(made: Jobs):
    made.put("code/x.py", "print()")
    document = made.process(
        ProcessingInputs=[
            {"InputName": "code", "S3Input": {"S3Uri": f"s3://{BUCKET}/code/x.py", "S3DataType": "S3Prefix",
                                              "LocalPath": "/opt/ml/processing/code", "S3InputMode": "File"}},
        ],
        ProcessingOutputConfig={"Outputs": [
            {"OutputName": "t", "S3Output": {"S3Uri": f"s3://{BUCKET}/p/train", "S3UploadMode": "EndOfJob",
                                                 "LocalPath": "/opt/ml/processing/train"}},
        ]},
        Environment={"MINE": "1"},
    )  # fmt: skip
    made.step(document)
    spec = made.runs.spec
    laid = files(spec.inputs)
    assert spec.command == ["python3", "x.py", "a"]
    assert laid["/opt/ml/processing/code/x.py"] == b"print()"
    config = json.loads(laid["/opt/ml/config/processingjobconfig.json"])
    assert config["ProcessingJobName"] == "job"
    assert config["AppSpecification"]["ContainerArguments"] == ["a"]
    assert json.loads(files(spec.instances[0].inputs)["/opt/ml/config/resourceconfig.json"])["hosts"] == ["algo-1"]
    assert "/opt/ml/processing/train" in spec.folders
    assert (spec.env["MINE"], spec.env["PROCESSING_JOB_NAME"], spec.disk_bytes) == ("1", "job", 7 << 30)
    made.runs.say(
        phase="ended",
        exit_code=0,
        started=3.0,
        ended=4.0,
        results=[result("t", "deep/a.csv", b"1"), result("_exit_message", "message", b"done")],
    )
    made.step(document)
    shown = made.world("sagemaker", "DescribeProcessingJob", ProcessingJobName="job")
    assert (shown["ProcessingJobStatus"], shown["ExitMessage"]) == ("Completed", "done")
    assert (shown["ProcessingStartTime"], shown["ProcessingEndTime"]) == (3.0, 4.0)
    assert made.get("p/train/deep/a.csv") == b"1"


def test_a_failed_processing_job_tells_code_and_last_lines(made: Jobs):
    document = made.process()
    made.step(document)
    made.runs.say(phase="ended", exit_code=2, reason="exit", tail=["boom"], started=1.0, ended=2.0)
    made.step(document)
    body = made.document("processing-job").body
    assert body["FailureReason"] == "AlgorithmError: See job logs for more information, exit code: 2\nboom"


def test_an_input_that_is_not_there_fails_the_job_when_it_starts(made: Jobs):
    source = {
        "S3Uri": f"s3://{BUCKET}/none",
        "LocalPath": "/opt/ml/processing/i",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    document = made.process(ProcessingInputs=[{"InputName": "i", "S3Input": source}])
    made.step(document)
    assert made.runs.calls == []
    reason = made.document("processing-job").body["FailureReason"]
    assert reason.startswith(f'ClientError: No S3 objects found under S3 URL "s3://{BUCKET}/none"')


def test_an_input_that_is_a_query_fails_the_job_when_it_starts(made: Jobs):
    where = {"Catalog": "c", "Database": "d", "OutputS3Uri": f"s3://{BUCKET}/q", "OutputFormat": "PARQUET"}
    query = {"AthenaDatasetDefinition": {"QueryString": "SELECT 1", **where}}
    document = made.process(ProcessingInputs=[{"InputName": "q", "DatasetDefinition": query}])
    made.step(document)
    assert made.runs.calls == []
    reason = made.document("processing-job").body["FailureReason"]
    assert reason.startswith("ClientError: Input q is a query to Amazon Athena, which is not on this machine")


def test_what_the_application_manages_is_left_to_it(made: Jobs):
    entry = {
        "S3Uri": f"s3://{BUCKET}/none",
        "LocalPath": "/opt/ml/processing/i",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
    }
    out = {"S3Uri": f"s3://{BUCKET}/o", "LocalPath": "/opt/ml/processing/o", "S3UploadMode": "EndOfJob"}
    document = made.process(
        ProcessingInputs=[{"InputName": "i", "AppManaged": True, "S3Input": entry}],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "o", "AppManaged": True, "S3Output": out}]},
    )
    made.step(document)
    assert not [output for output in made.runs.spec.outputs if output.name == "o"]


def test_continuous_outputs_are_published_while_the_program_runs_and_once(made: Jobs):
    out = {"S3Uri": f"s3://{BUCKET}/o", "LocalPath": "/opt/ml/processing/o", "S3UploadMode": "Continuous"}
    document = made.process(ProcessingOutputConfig={"Outputs": [{"OutputName": "o", "S3Output": out}]})
    made.step(document)
    (output,) = [output for output in made.runs.spec.outputs if output.name == "o"]
    assert (output.continuous, output.always) == (True, True)
    made.runs.say(phase="running", started=1.0, results=[result("o", "a", b"1")])
    made.step(document)
    assert made.get("o/a") == b"1"
    modified = made.world.app.store.object(BUCKET, "o/a").modified
    made.runs.say(
        phase="ended", exit_code=1, started=1.0, ended=2.0, results=[result("o", "a", b"1"), result("o", "b", b"2")]
    )
    made.step(document)
    assert made.get("o/b") == b"2"
    assert made.world.app.store.object(BUCKET, "o/a").modified == modified


# --- the operations


def test_names_are_taken_once(made: Jobs):
    for kind, create in (("training", made.train), ("processing", made.process)):
        document = create()
        assert refusal(create) == (
            "ResourceInUse",
            "Job name must be unique within an AWS account and region, and a job with this name already exists "
            f"(arn:aws:sagemaker:us-east-1:123456789012:{kind}-job/job)",
        )
        assert document.arn.endswith(f"{kind}-job/job")


def test_what_is_not_there_is_told_in_aws_words(made: Jobs):
    world = made.world
    for operation in ("DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob"):
        told = refusal(lambda operation=operation: world("sagemaker", operation, TrainingJobName="none"))
        assert told == ("ValidationException", "Requested resource not found.")
    for operation in ("DescribeProcessingJob", "StopProcessingJob"):
        told = refusal(lambda operation=operation: world("sagemaker", operation, ProcessingJobName="none"))
        assert told == ("ValidationException", "Could not find requested job with name: none")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"RoleArn": "arn:aws:iam::123456789012:role/none"},
            "Could not assume role arn:aws:iam::123456789012:role/none",
        ),
        ({"RoleArn": "arn:aws:iam::999999999999:role/x"}, "Cross-account pass role is not allowed."),
        (
            {"AlgorithmSpecification": {"TrainingImage": "no-such:1", "TrainingInputMode": "File"}},
            "Requested image no-such:1 not found",
        ),
        (
            {"InputDataConfig": [channel("train", "nothing")]},
            'No S3 objects found under S3 URL "s3://data/nothing" given in input',
        ),
        (
            {"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "Pipe"},
             "InputDataConfig": [channel("train", "x")]},
            "Channel train: input mode Pipe is not served",
        ),
        (
            {"InputDataConfig": [channel("train", "x", S3DataType="AugmentedManifestFile")]},
            "Channel train: AugmentedManifestFile is not served",
        ),
        ({"InputDataConfig": [channel("train", "x", S3Uri="s3://nobodys/x")]}, "Please ensure that the bucket exists"),
    ],
)
def test_what_aws_refuses_at_once_is_refused_and_nothing_is_kept(made: Jobs, more: dict[str, Any], sentence: str):
    code, message = refusal(lambda: made.train(**more))
    assert code == "ValidationException"
    assert sentence in message
    assert made.world("sagemaker", "ListTrainingJobs")["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"Environment": {"A": "x\0--bind\0/\0/host"}}, "environment.A"),
        ({"Environment": {"A\0--bind": "x"}}, "environment"),
        ({"HyperParameters": {"a": "\0"}}, "hyperParameters.a"),
    ],
)
def test_a_nul_character_is_refused(made: Jobs, more: dict[str, Any], where: str):
    """It would end an argument of bubblewrap, and begin an option."""
    with pytest.raises(ServiceError) as refused:
        made.train(**more)
    assert (refused.value.code, where in refused.value.message) == ("ValidationException", True)


def test_jobs_are_listed_newest_first_by_status_and_name(made: Jobs):
    for name in ("one", "two", "three"):
        made.train(name)
    listed = made.world(
        "sagemaker",
        "ListTrainingJobs",
        NameContains="o",
        StatusEquals="InProgress",
        SortBy="Name",
        SortOrder="Ascending",
    )
    assert [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]] == ["one", "two"]
    assert made.world("sagemaker", "ListTrainingJobs", StatusEquals="Completed")["TrainingJobSummaries"] == []
    made.process("four")
    assert len(made.world("sagemaker", "ListProcessingJobs")["ProcessingJobSummaries"]) == 1


def test_what_changes_nothing_is_kept_and_shown(made: Jobs):
    kept: dict[str, Any] = {
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "DebugHookConfig": {"S3OutputPath": "s3://b/debug"},
        "ProfilerConfig": {"S3OutputPath": "s3://b/profiler"},
        "ExperimentConfig": {"ExperimentName": "e"},
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        "TensorBoardOutputConfig": {"S3OutputPath": "s3://b/tb"},
    }
    made.world("sagemaker", "CreateExperiment", ExperimentName="e")
    made.train(**kept, Tags=[{"Key": "k", "Value": "v"}])
    shown = made.world("sagemaker", "DescribeTrainingJob", TrainingJobName="job")
    assert {name: shown[name] for name in kept} == kept
    assert "Tags" not in shown
    assert made.world.app.store.tags(shown["TrainingJobArn"]) == {"k": "v"}


def test_an_ended_job_can_be_deleted_and_its_name_used_again(made: Jobs):
    document = made.train()
    assert refusal(lambda: made.world("sagemaker", "DeleteTrainingJob", TrainingJobName="job"))[0] == "ResourceInUse"
    made.step(document)
    made.runs.say(phase="ended", exit_code=0)
    made.step(document)
    made.world("sagemaker", "DeleteTrainingJob", TrainingJobName="job")
    again = made.train()
    assert again.body["_run"] != document.body["_run"]


def test_recovery_looks_at_what_has_not_ended_and_clears_what_has_ended_or_was_deleted(made: Jobs):
    document = made.train()
    made.step(document)
    assert jobs.recover(made.world.app) == 1
    made.runs.say(phase="ended", exit_code=0)
    left = dict(made.runs.states)
    made.step(document)
    made.runs.states = left  # the process died before it gave the folder back
    assert jobs.recover(made.world.app) == 0
    assert (made.runs.calls[-2:], made.runs.states) == ([("forget", document.body["_run"])] * 2, {})
    made.runs.states = left | {document.body["_run"]: RunState("ended")}
    made.world("sagemaker", "DeleteTrainingJob", TrainingJobName="job")
    jobs.recover(made.world.app)
    assert made.runs.states == {}


def test_a_processing_job_tells_of_its_beginning_and_its_end_only(made: Jobs):
    document = made.process()
    made.step(document)
    made.runs.say(phase="ended", exit_code=0, started=1.0, ended=2.0)
    made.step(document)
    assert [detail["ProcessingJobStatus"] for detail in made.events()] == ["InProgress", "Completed"]


def test_updates_are_kept_and_shown(made: Jobs):
    made.train()
    made.world("sagemaker", "UpdateTrainingJob", TrainingJobName="job", RemoteDebugConfig={"EnableRemoteDebug": True})
    assert made.document("training-job").body["RemoteDebugConfig"] == {"EnableRemoteDebug": True}


def test_a_fault_on_demand_fails_a_job_before_it_runs_and_as_often_as_it_was_told(made: Jobs):
    fault = faults.make("123456789012", "f1", "capacity", "jo?", 1, 1.0)
    made.world.app.store.commit(Change(puts=[fault]))
    other, job = made.train("other"), made.train("job")
    made.step(other)
    assert made.step(job) == 0.0
    assert made.document("training-job", "job").body["FailureReason"] == faults.FAILURES["capacity"]
    assert [call for call in made.runs.calls if call[0] == "start"] == [("start", other.body["_run"])]
    assert made.world.app.store.page(faults.of_account("123456789012")) == []
    again = made.train("job2")
    made.step(again)
    assert made.runs.calls[-1] == ("start", again.body["_run"])


def test_beyond_a_quota_a_job_is_refused_until_another_has_ended(made: Jobs):
    quotas = "ml.m5.large for training job usage=2"
    made.world.app.settings = dataclasses.replace(made.world.app.settings, quotas=quotas)
    first = made.train("one")
    made.train("two")
    made.process("of-another-kind")
    code, told = refusal(lambda: made.train("three"))
    assert code == "ResourceLimitExceeded"
    assert told.startswith("The account-level service limit 'ml.m5.large for training job usage' is 2 Instances, with current "
                           "utilization of 2 Instances and a request delta of 1 Instances.")  # fmt: skip
    made.world("sagemaker", "StopTrainingJob", TrainingJobName="one")
    made.step(first)
    assert made.train("three").status == "InProgress"
