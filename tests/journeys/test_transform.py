"""Transform jobs in real sandboxes, seen through boto3."""

from __future__ import annotations

import gzip
import io
import os
import signal
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Boto, Family
from tests.programs import Desk

pytestmark = pytest.mark.sandbox
BUCKET = "transform-journey"
PLAIN = "python:3.11"
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
WAIT_S = 180
LINEAR = """
    import numpy as np
    from sklearn.linear_model import LinearRegression

    def model_fn(model_dir):
        rows = np.eye(2)
        return LinearRegression(fit_intercept=False).fit(rows, np.array([1.0, 10.0]))
    """
DOUBLING = """
    def model_fn(model_dir):
        return open(model_dir + "/factor").read()

    def input_fn(body, content_type):
        assert content_type == "text/csv", content_type
        return [float(line) for line in body.split()]

    def predict_fn(data, model):
        return [value * float(model) for value in data]

    def output_fn(prediction, accept):
        return "".join(f"{value:g}\\n" for value in prediction), "text/csv"
    """


class Shop:
    """A bucket, and models and transform jobs made in it."""

    def __init__(self, boto: Boto):
        self.boto, self.sm, self.s3, self.logs = boto, boto("sagemaker"), boto("s3"), boto("logs")
        self.s3.create_bucket(Bucket=BUCKET)
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"job-{self.count}-{int(time.time() * 1000)}"

    def put(self, key: str, data: bytes | str) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def archive(self, **files: str | bytes) -> str:
        """A model.tar.gz in S3; `__` in a name is a dot, `___` a slash."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in files.items():
                data = textwrap.dedent(text).encode() if isinstance(text, str) else text
                info = tarfile.TarInfo(name.replace("___", "/").replace("__", "."))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return self.put(f"models/{self.name()}/model.tar.gz", packed.getvalue())

    def container(self, image: str, data: str | None, **env: str) -> dict[str, Any]:
        return {"Image": image, "Environment": env} | ({"ModelDataUrl": data} if data else {})

    def scripted(self, image: str, script: str, **files: str | bytes) -> dict[str, Any]:
        """A container whose script is in its model's archive, as a repacked model has it."""
        data = self.archive(code___inference__py=script, **files)
        return self.container(
            image, data, SAGEMAKER_PROGRAM="inference.py", SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/model/code"
        )

    def model(self, *containers: dict[str, Any]) -> str:
        name = self.name()
        given = {"PrimaryContainer": containers[0]} if len(containers) == 1 else {"Containers": list(containers)}
        self.sm.create_model(ModelName=name, ExecutionRoleArn=self.boto.role, **given)
        return name

    def start(self, model: str, uri: str, count: int = 1, **more: Any) -> str:
        name = self.name()
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}
        given: dict[str, Any] = {
            "TransformJobName": name,
            "ModelName": model,
            "TransformInput": {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
            "TransformOutput": {
                "S3OutputPath": f"s3://{BUCKET}/out/{name}", "Accept": "text/csv", "AssembleWith": "Line",
            },
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": count},
        }  # fmt: skip
        for member in ("TransformInput", "TransformOutput"):
            given[member] |= more.pop(member, {})
        self.sm.create_transform_job(**{**given, **more})
        return name

    def run(self, model: str, uri: str, **more: Any) -> dict[str, Any]:
        return self.ended(self.start(model, uri, **more))

    def ended(self, name: str) -> dict[str, Any]:
        """The job's description at its end, with its answers."""
        self.until(lambda: self.describe(name)["TransformJobStatus"] in ("Completed", "Failed", "Stopped"), name)
        return {**self.describe(name), "answers": self.answers(name)}

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sm.describe_transform_job(TransformJobName=name)
        return found

    def until(self, holds: Callable[[], bool], name: str) -> None:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if holds():
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.describe(name)}\n{self.log(name)}")

    def answers(self, name: str) -> dict[str, str]:
        prefix = f"out/{name}/"
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [each["Key"] for each in found]
        return {
            key.removeprefix(prefix): self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in keys
        }

    def log(self, name: str) -> str:
        group = "/aws/sagemaker/TransformJobs"
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:  # no transform job has written anything yet
            return ""
        pages = [
            self.logs.get_log_events(logGroupName=group, logStreamName=each["logStreamName"], startFromHead=True)
            for each in streams
        ]
        return "\n".join(event["message"] for page in pages for event in page["events"])


@pytest.fixture(scope="module")
def shop(family: Family) -> Iterator[Shop]:
    boto = family.boto()
    yield Shop(boto)
    boto.close()


@pytest.fixture(scope="module")
def linear(shop: Shop) -> str:
    """A model: the first column, and ten times the second."""
    return shop.model(shop.scripted(SKLEARN, LINEAR))


def test_every_object_below_the_prefix_gets_its_answers_under_its_own_name(shop: Shop, linear: str) -> None:
    for key, text in (("a.csv", "1,2\n3,4\n"), ("deep/er/b.csv", "0,1\n"), ("empty.csv", ""), ("z.csv", "5,6")):
        shop.put(f"in/names/{key}", text)
    job = shop.run(linear, f"s3://{BUCKET}/in/names/", count=2)
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    numbers = {key: [float(line) for line in text.split()] for key, text in job["answers"].items()}
    assert numbers == {"a.csv.out": [21, 43], "deep/er/b.csv.out": [10], "empty.csv.out": [], "z.csv.out": [65]}
    assert job["TransformStartTime"] <= job["TransformEndTime"]


def test_a_model_of_the_built_in_xgboost_predicts_what_follows_the_id_and_is_joined_with_it(shop: Shop) -> None:
    shop.put("train/rows.csv", "".join(f"{n % 2},{n % 2},{n}\n" for n in range(40)))
    name = shop.name()
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/train/"}}
    shop.sm.create_training_job(
        TrainingJobName=name, RoleArn=shop.boto.role,
        AlgorithmSpecification={"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
        HyperParameters={"num_round": "5", "objective": "binary:logistic"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": source, "ContentType": "text/csv"}],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )  # fmt: skip
    shop.sm.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 10 * WAIT_S}
    )
    data = shop.sm.describe_training_job(TrainingJobName=name)["ModelArtifacts"]["S3ModelArtifacts"]
    model = shop.model(shop.container(XGBOOST, data))
    packed = shop.put("in/joined.csv.gz", gzip.compress(b"id-1,1,7\nid-2,0,8\nid-3,1,9\n"))
    job = shop.run(
        model, packed, TransformInput={"CompressionType": "Gzip"},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    rows = [line.split(",") for line in job["answers"]["joined.csv.gz.out"].splitlines()]
    assert [(row[0], float(row[1]) > 0.5) for row in rows] == [("id-1", True), ("id-2", False), ("id-3", True)]


def test_the_containers_of_a_pipeline_answer_one_after_another_each_in_its_own_environment(shop: Shop) -> None:
    first = shop.scripted(SKLEARN, LINEAR)
    first["Environment"]["SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"] = "text/csv"
    second = shop.scripted(PLAIN, DOUBLING, factor="2")
    job = shop.run(shop.model(first, second), shop.put("in/pipeline.csv", "1,2\n3,4\n"), BatchStrategy="SingleRecord")
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert job["answers"] == {"pipeline.csv.out": "42\n86\n"}


def test_a_file_with_a_bad_record_gets_no_answers_the_others_do_and_the_job_says_why(shop: Shop, linear: str) -> None:
    shop.put("in/bad/a.csv", "1,2\n")
    shop.put("in/bad/b.csv", "1,2,3\n")
    job = shop.run(linear, f"s3://{BUCKET}/in/bad", ModelClientConfig={"InvocationsMaxRetries": 0})
    assert job["TransformJobStatus"] == "Failed"
    assert list(job["answers"]) == ["a.csv.out"]
    assert job["FailureReason"].startswith(
        "AlgorithmError: s3://transform-journey/in/bad/b.csv failed: Bad HTTP status"
    )
    assert "X has 3 features, but LinearRegression is expecting 2" in job["FailureReason"]
    assert f"/aws/sagemaker/TransformJobs, {job['TransformJobName']}/" in job["FailureReason"]


@pytest.mark.parametrize(
    ("script", "files", "said"),
    [
        ("def model_fn(model_dir):\n    return open(model_dir + '/absent')\n", {}, "FileNotFoundError"),
        ("import no_such_module\n", {}, "No module named 'no_such_module'"),
        ("x = 1\n", {}, "Please provide a model_fn implementation"),
    ],
)
def test_a_model_that_cannot_be_loaded_fails_the_job_with_its_own_words(
    shop: Shop, script: str, files: dict[str, str], said: str
) -> None:
    job = shop.run(shop.model(shop.scripted(PLAIN, script, **files)), shop.put("in/one.csv", "1\n"))
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: The container cannot serve the model: ")
    assert said in job["FailureReason"]


def test_model_data_that_is_not_there_is_named(shop: Shop) -> None:
    model = shop.model(
        shop.container(PLAIN, f"s3://{BUCKET}/models/none/model.tar.gz", SAGEMAKER_PROGRAM="inference.py")
    )
    job = shop.run(model, shop.put("in/one.csv", "1\n"))
    assert job["FailureReason"] == f"ClientError: Could not find model data at s3://{BUCKET}/models/none/model.tar.gz."


SERVE = """
    #!/usr/bin/env python
    import http.server, os

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(b"")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            weights = open("/opt/ml/model/weights").read().encode()
            self.answer(weights + body.upper())

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.HTTPServer(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
    """


def test_an_image_of_ones_own_serves_by_its_program_serve(shop: Shop, family: Family, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11\nENV PATH=/opt/program:$PATH\nCOPY --chmod=755 serve /opt/program/\n"
    )
    (tmp_path / "serve").write_text(textwrap.dedent(SERVE).lstrip())
    uri = f"{shop.boto.account}.dkr.ecr.us-east-1.amazonaws.com/own-server:1"
    built = family.penstock("image", "build", str(tmp_path), "--tag", uri)
    assert built.returncode == 0, built.stderr
    model = shop.model(shop.container(uri, shop.archive(weights="w-")))
    job = shop.run(model, shop.put("in/own.csv", "a\n"), TransformInput={"SplitType": "None"})
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert job["answers"] == {"own.csv.out": "w-A\n"}


def test_a_job_whose_supervisor_is_killed_goes_on_at_the_file_that_was_open(shop: Shop, family: Family) -> None:
    script = """
        import time

        def model_fn(model_dir):
            return None

        def transform_fn(model, body, content_type, accept):
            print("asked for", body.strip(), flush=True)
            if "wait" in body:
                time.sleep(600)
            return body.upper()
        """
    model = shop.model(shop.scripted(PLAIN, script))
    shop.put("in/killed/a.csv", "first\n")
    shop.put("in/killed/b.csv", "wait\n")
    name = shop.start(model, f"s3://{BUCKET}/in/killed/")
    shop.until(lambda: "asked for wait" in shop.log(name), name)
    shop.until(lambda: "a.csv.out" in shop.answers(name), name)
    shop.put("in/killed/b.csv", "second\n")
    kill_supervisor(family, name)
    job = shop.ended(name)
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert job["answers"] == {"a.csv.out": "FIRST\n", "b.csv.out": "SECOND\n"}
    log = shop.log(name)
    assert log.count("asked for first") == 1
    assert "attempt 2 begins" in log


def kill_supervisor(family: Family, job: str) -> None:
    """Kills the process that holds the lock of a job's run."""
    (run,) = [path for path in (family.data / "runs").iterdir() if f".{job}." in path.name]
    lock = (run / "lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "POSIX" and words[5].split(":")[-1] == str(lock):
            os.kill(int(words[4]), signal.SIGKILL)
            return
    raise ProcessLookupError(job)


START = """
import json, os, time
import boto3, sagemaker
role = sagemaker.get_execution_role()
bucket = sagemaker.Session().default_bucket()

def put(key, body):
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"

def get(uri):
    bucket, _, key = uri[len("s3://"):].partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()

def until(found, seconds=180):
    end = time.time() + seconds
    while not (result := found()):
        assert time.time() < end, "waited in vain"
        time.sleep(0.05)
    return result
"""


@pytest.mark.clients
def test_the_v2_sdk_transforms_by_a_model_and_in_a_pipeline(v2: Desk) -> None:
    """`model.transformer()` of a model with a script in S3; a Transform step whose output the next step would take."""
    told = v2(
        START
        + """
from sagemaker.inputs import TransformInput
from sagemaker.model import Model
from sagemaker.sklearn import SKLearnModel
from sagemaker.transformer import Transformer
from sagemaker.workflow.parameters import ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.steps import TransformStep

here = os.path.dirname(os.path.abspath(__file__))
data = put("transform/in/rows.csv", "1,2\\n3,4\\n")
import io, tarfile
packed = io.BytesIO()
tarfile.open(fileobj=packed, mode="w:gz").close()
model = SKLearnModel(put("transform/model.tar.gz", packed.getvalue()), role, "inference.py", framework_version="1.2-1",
                     source_dir=here, sagemaker_session=sagemaker.Session())
transformer = model.transformer(1, "ml.m5.large", strategy="MultiRecord", assemble_with="Line", accept="text/csv",
                                output_path=f"s3://{bucket}/transform/out")
transformer.transform(data, content_type="text/csv", split_type="Line", input_filter="$[0:1]", join_source="Input",
                      wait=False, logs=False)
sagemaker_client = boto3.client("sagemaker")
name = transformer.latest_transform_job.name
until(lambda: sagemaker_client.describe_transform_job(TransformJobName=name)["TransformJobStatus"] != "InProgress")
job = sagemaker_client.describe_transform_job(TransformJobName=name)
attached = Transformer.attach(name, sagemaker_session=sagemaker.Session())

given = ParameterString("Data", default_value=data)
again = Transformer(job["ModelName"], 1, "ml.m5.large", output_path=f"s3://{bucket}/transform/step", accept="text/csv",
                    assemble_with="Line", sagemaker_session=PipelineSession())
step = TransformStep("Score", step_args=again.transform(given, content_type="text/csv", split_type="Line"))
pipeline = Pipeline("transforming", parameters=[given], steps=[step])
pipeline.upsert(role_arn=role)
execution = pipeline.start()
until(lambda: execution.describe()["PipelineExecutionStatus"] != "Executing")
(shown,) = execution.list_steps()
print(json.dumps({
    "job": job["TransformJobStatus"], "reason": job.get("FailureReason"), "attached": attached.output_path,
    "out": get(f"s3://{bucket}/transform/out/rows.csv.out") if job["TransformJobStatus"] == "Completed" else "",
    "status": shown["StepStatus"], "why": shown.get("FailureReason"), "arn": shown["Metadata"]["TransformJob"]["Arn"],
    "step": get(f"s3://{bucket}/transform/step/rows.csv.out"),
}))
""",
        inference__py=textwrap.dedent(LINEAR),
    ).result
    assert (told["job"], told["status"]) == ("Completed", "Succeeded"), told
    rows = [[float(field) for field in line.split(",")] for line in told["out"].splitlines()]
    assert rows == [[1, 2, pytest.approx(21)], [3, 4, pytest.approx(43)]]
    assert [float(line) for line in told["step"].split()] == [pytest.approx(21), pytest.approx(43)]
    assert ":transform-job/pipelines-" in told["arn"]
    assert told["attached"].endswith("/transform/out")


@pytest.mark.clients
def test_the_v3_sdk_transforms_by_a_model(v3: Desk, linear: str, shop: Shop) -> None:
    told = v3(
        """
import json, sys
from sagemaker.core.transformer import Transformer
model, data, out = sys.argv[1:]
transformer = Transformer(model, 1, "ml.m5.large", strategy="MultiRecord", assemble_with="Line", accept="text/csv", output_path=out)
transformer.transform(data, content_type="text/csv", split_type="Line", wait=True, logs=False)
job = transformer.latest_transform_job.refresh()
print(json.dumps({"status": job.transform_job_status, "split": job.transform_input.split_type}))
""",
        linear,
        shop.put("in/v3/rows.csv", "1,2\n3,4\n"),
        f"s3://{BUCKET}/out/v3",
    ).result
    assert told == {"status": "Completed", "split": "Line"}
    assert [float(line) for line in shop.answers("v3")["rows.csv.out"].split()] == [
        pytest.approx(21),
        pytest.approx(43),
    ]
