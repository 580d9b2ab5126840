"""Jobs in real sandboxes, seen through boto3."""

from __future__ import annotations

import io
import json
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Boto, Family

pytestmark = pytest.mark.sandbox
BUCKET = "jobs-journey"
PLAIN = "python:3.11"
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
XGBOOST = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
WAIT_S = 180


class Shop:
    """A bucket, and jobs made in it."""

    def __init__(self, boto: Boto):
        self.boto, self.sm, self.s3, self.logs = boto, boto("sagemaker"), boto("s3"), boto("logs")
        self.s3.create_bucket(Bucket=BUCKET)
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"job-{self.count}-{int(time.time())}"

    def put(self, key: str, data: bytes | str) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def archive(self, uri: str) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}

    def code(self, **files: bytes | str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in files.items():
                data = textwrap.dedent(text).encode() if isinstance(text, str) else text
                info = tarfile.TarInfo(name.replace("__", "."))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return self.put(f"code/{self.count}/sourcedir.tar.gz", packed.getvalue())

    def train(self, hyper: dict[str, str] | None = None, image: str = PLAIN, wait: bool = True, **more: Any) -> Any:
        name = self.name()
        given: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": self.boto.role,
            "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
            "HyperParameters": hyper or {},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        }
        self.sm.create_training_job(**{**given, **more})
        return self.ended(name) if wait else name

    def component(self, job: str) -> Any:
        """The trial component of a job that has ended: it is entered a moment later."""
        until = time.time() + WAIT_S
        while not (found := self.sm.list_trial_components(SourceArn=job)["TrialComponentSummaries"]):
            assert time.time() < until, "the job is not entered"
            time.sleep(0.05)
        return self.sm.describe_trial_component(TrialComponentName=found[0]["TrialComponentName"])

    def script(
        self, text: str, hyper: dict[str, str] | None = None, wait: bool = True, program: str = "train.py", **more: Any
    ) -> Any:
        """A training job of one script."""
        uri = self.code(**{program.replace(".", "__"): text})
        own = {"sagemaker_program": json.dumps(program), "sagemaker_submit_directory": json.dumps(uri)}
        return self.train({**own, **(hyper or {})}, wait=wait, **more)

    def process(self, text: str, image: str = PLAIN, **more: Any) -> Any:
        name = self.name()
        code = self.put(f"{name}/code.py", textwrap.dedent(text))
        given: dict[str, Any] = {
            "ProcessingJobName": name,
            "RoleArn": self.boto.role,
            "AppSpecification": {
                "ImageUri": image, "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/code.py"],
                "ContainerArguments": ["--n", "1"],
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
            },
        }  # fmt: skip
        inputs = [source("code", code, "/opt/ml/processing/code"), *more.pop("ProcessingInputs", [])]
        self.sm.create_processing_job(**{**given, "ProcessingInputs": inputs, **more})
        return self.ended(name, "processing")

    def ended(self, name: str, kind: str = "training") -> dict[str, Any]:
        return self.seen(name, lambda job: job["Status"] in ("Completed", "Failed", "Stopped"), kind)

    def seen(self, name: str, wanted: Callable[[dict[str, Any]], bool], kind: str = "training") -> dict[str, Any]:
        noun, until = kind.title() + "Job", time.monotonic() + WAIT_S
        while time.monotonic() < until:
            job: dict[str, Any] = getattr(self.sm, f"describe_{kind}_job")(**{f"{noun}Name": name})
            job["Status"] = job[f"{noun}Status"]
            if wanted(job):
                job["log"] = self.log(name, kind)
                return job
            time.sleep(0.03)
        raise AssertionError(f"{name} is still {job['Status']}\n{self.log(name, kind)}")

    def log(self, name: str, kind: str, host: str = "algo-1") -> str:
        group = f"/aws/sagemaker/{kind.title()}Jobs"
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/{host}-")[
                "logStreams"
            ]
        except self.logs.exceptions.ResourceNotFoundException:
            return ""
        names = [stream["logStreamName"] for stream in streams]
        pages = [self.logs.get_log_events(logGroupName=group, logStreamName=each, startFromHead=True) for each in names]
        return "\n".join(event["message"] for page in pages for event in page["events"])


def source(name: str, uri: str, path: str, **more: Any) -> dict[str, Any]:
    place = {"S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File", **more}
    return {"InputName": name, "S3Input": place}


def channel(name: str, uri: str, **more: Any) -> dict[str, Any]:
    place = {"S3DataType": "S3Prefix", "S3Uri": uri, **more}
    return {"ChannelName": name, "DataSource": {"S3DataSource": place}, "ContentType": "text/csv"}


@pytest.fixture(scope="module")
def shop(family: Family) -> Iterator[Shop]:
    boto = family.boto()
    yield Shop(boto)
    boto.close()


# --- processing


def test_a_program_finds_its_inputs_and_its_outputs_go_to_s3(shop: Shop):
    shop.put("in/a.csv", "1,2\n")
    out = {"S3Uri": f"s3://{BUCKET}/processed", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": "EndOfJob"}
    job = shop.process(
        """
        import json, os, sys
        config = json.load(open("/opt/ml/config/processingjobconfig.json"))
        print("arguments", sys.argv[1:], "in", os.getcwd(), "mine", os.environ["MINE"], config["ProcessingJobName"])
        os.remove("/opt/ml/processing/in/a.csv") if open("/opt/ml/processing/in/a.csv").read() == "1,2\\n" else sys.exit(9)
        os.makedirs("/opt/ml/processing/out/deep")
        open("/opt/ml/processing/out/deep/b.csv", "w").write("3,4")
        open("/opt/ml/output/message", "w").write("well done")
        """,
        ProcessingInputs=[source("in", f"s3://{BUCKET}/in/", "/opt/ml/processing/in")],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "o", "S3Output": out}]},
        Environment={"MINE": "yours"},
    )
    assert (job["Status"], job["ExitMessage"]) == ("Completed", "well done"), job
    assert f"arguments ['--n', '1'] in / mine yours {job['ProcessingJobName']}" in job["log"]
    assert shop.get(f"s3://{BUCKET}/processed/deep/b.csv") == b"3,4"
    assert shop.get(f"s3://{BUCKET}/in/a.csv") == b"1,2\n"  # what the job did to its copy stays its own
    assert job["log"].splitlines()[0].startswith("python:3.11 runs as Python 3.11")


def test_a_broken_program_fails_with_its_traceback_and_code(shop: Shop):
    job = shop.process("import sys\nprint('before')\n{}['key']")
    assert job["Status"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: See job logs for more information, exit code: 1\nTraceback")
    assert job["FailureReason"].endswith("KeyError: 'key'")
    assert "before" in job["log"]
    assert "KeyError: 'key'" in job["log"]


def test_a_program_that_is_not_there_is_told(shop: Shop):
    given = {"ImageUri": PLAIN, "ContainerEntrypoint": ["no-such-program"]}
    job = shop.process("", AppSpecification=given)
    assert job["Status"] == "Failed"
    assert "no-such-program" in job["FailureReason"]


# --- script mode


def test_a_script_trains_with_its_arguments_and_leaves_model_and_outputs(shop: Shop):
    shop.put("train/a.csv", "1\n2\n")
    job = shop.script(
        """
        import argparse, json, os
        parser = argparse.ArgumentParser()
        parser.add_argument("--alpha", type=float)
        parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
        parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
        args = parser.parse_args()
        rows = open(os.path.join(args.train, "a.csv")).read().split()
        print("loss=%s;" % (args.alpha * len(rows)))
        json.dump({"alpha": args.alpha}, open(os.path.join(args.model_dir, "model.json"), "w"))
        open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "report.txt"), "w").write(os.getcwd())
        """,
        {"alpha": "0.5"},
        InputDataConfig=[channel("train", f"s3://{BUCKET}/train")],
        AlgorithmSpecification={
            "TrainingImage": PLAIN, "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*?);"}],
        },
    )  # fmt: skip
    assert (job["Status"], job["SecondaryStatus"]) == ("Completed", "Completed"), job.get("FailureReason")
    model = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert model == f"s3://{BUCKET}/out/{job['TrainingJobName']}/output/model.tar.gz"
    assert shop.archive(model) == {"model.json": b'{"alpha": 0.5}'}
    assert shop.archive(model.replace("model.tar.gz", "output.tar.gz")) == {"report.txt": b"/opt/ml/code"}
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("loss", 1.0)]
    assert job["TrainingTimeInSeconds"] >= 1
    component = shop.component(job["TrainingJobArn"])
    assert component["Metrics"][0]["Last"] == 1.0
    (made,) = shop.sm.list_associations(SourceArn=component["TrialComponentArn"])["AssociationSummaries"]
    assert shop.sm.describe_artifact(ArtifactArn=made["DestinationArn"])["Source"]["SourceUri"] == model


def test_a_failing_script_tells_why_in_aws_form(shop: Shop):
    job = shop.script("def f():\n    raise ValueError('the data is bad')\nf()\n", {"alpha": "1"})
    assert job["Status"] == "Failed"
    assert job["FailureReason"].startswith(
        'AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "Traceback'
    )
    assert "ValueError: the data is bad" in job["FailureReason"]
    assert "train.py --alpha 1" in job["FailureReason"]
    assert job["FailureReason"].endswith(", exit code: 1")
    assert "the data is bad" in job["log"]


def test_a_failure_file_is_the_reason(shop: Shop):
    job = shop.script("import sys\nopen('/opt/ml/output/failure', 'w').write('no rows left')\nsys.exit(3)")
    assert job["FailureReason"] == "AlgorithmError: no rows left, exit code: 3"


def test_requirements_of_the_code_are_installed_for_the_job(shop: Shop):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("greeting.py", "WORD = 'hello from a wheel'")
        packed.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        packed.writestr(
            "greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr("greeting-1.0.dist-info/RECORD", "")
    uri = shop.code(
        **{"train__py": "import greeting; print(greeting.WORD)", "greeting-1.0-py3-none-any__whl": wheel.getvalue()},
        requirements__txt="./greeting-1.0-py3-none-any.whl\n",
    )
    own = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(uri)}
    job = shop.train(own)
    assert job["Status"] == "Completed", job["log"]
    assert "hello from a wheel" in job["log"]


def test_a_shell_script_is_an_entry_point(shop: Shop):
    job = shop.script(
        '#!/bin/bash\npython -c "print(6 * 7)"\necho "$SM_HP_NAME" > /opt/ml/model/name\n',
        {"name": '"Ada"'},
        program="run.sh",
    )
    assert job["Status"] == "Completed", job["log"]
    assert "42" in job["log"]
    assert shop.archive(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"name": b"Ada\n"}


# --- limits and stops


def test_a_stopped_script_hears_of_it_and_its_model_is_kept(shop: Shop):
    name = shop.script(
        """
        import signal, sys, time
        def leave(*_):
            open("/opt/ml/model/last", "w").write("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        time.sleep(60)
        """,
        wait=False,
    )
    shop.seen(name, lambda job: "ready" in shop.log(name, "training"))
    shop.sm.stop_training_job(TrainingJobName=name)
    job = shop.ended(name)
    assert (job["Status"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert shop.archive(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"last": b"saved"}
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]][-3:] == ["Stopping", "Uploading", "Stopped"]


def test_the_time_limit_ends_a_job(shop: Shop):
    job = shop.script("import time; time.sleep(60)", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["Status"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


# --- several hosts


def test_hosts_see_each_other_share_the_data_and_one_model(shop: Shop):
    for key in ("a", "b", "c"):
        shop.put(f"shards/{key}", key)
    job = shop.script(
        """
        import json, os, socket, sys
        me, hosts = os.environ["SM_CURRENT_HOST"], json.loads(os.environ["SM_HOSTS"])
        mine = sorted(os.listdir(os.environ["SM_CHANNEL_SHARDS"]))
        assert json.load(open("/opt/ml/input/config/resourceconfig.json"))["current_host"] == me == socket.gethostname()
        if me == "algo-1":
            with socket.create_server(("", 7777)) as server:
                connection, _ = server.accept()
                with connection:
                    print("heard", connection.makefile().read())
        else:
            for _ in range(200):
                try:
                    connection = socket.create_connection((hosts[0], 7777))
                    break
                except ConnectionRefusedError:
                    __import__("time").sleep(0.02)
            with connection:
                connection.sendall(("from " + me).encode())
        open("/opt/ml/model/" + me, "w").write(" ".join(mine))
        """,
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        InputDataConfig=[channel("shards", f"s3://{BUCKET}/shards/", S3DataDistributionType="ShardedByS3Key")],
    )
    assert job["Status"] == "Completed", job["FailureReason"]
    assert "heard from algo-2" in job["log"]
    assert shop.archive(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"algo-1": b"a c", "algo-2": b"b"}


# --- refusals


def test_an_image_that_nothing_stands_for_is_refused_at_once_with_what_to_do(shop: Shop):
    with pytest.raises(shop.sm.exceptions.ClientError) as caught:
        shop.train(image="123456789012.dkr.ecr.us-east-1.amazonaws.com/no-such-repo:latest")
    told = caught.value.response["Error"]
    assert told["Code"] == "ValidationException"
    assert "no-such-repo:latest not found" in told["Message"]
    assert "penstock image add" in told["Message"]


# --- the network


ASK = """
import os, urllib.request, urllib.error
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    opener.open(os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:4600"), timeout=5)
except urllib.error.HTTPError as error:
    print("answered", error.code)
except OSError as error:
    print("unreachable", error)
"""


def test_a_job_reaches_penstock_unless_it_is_isolated(shop: Shop):
    assert "answered" in shop.process(ASK)["log"]
    assert "unreachable" in shop.process(ASK, NetworkConfig={"EnableNetworkIsolation": True})["log"]


def test_a_jobs_boto3_acts_as_the_jobs_role(shop: Shop):
    job = shop.process(
        f"""
        import boto3
        print("I am", boto3.client("sts").get_caller_identity()["Arn"])
        boto3.client("s3").put_object(Bucket="{BUCKET}", Key="from-the-job", Body=b"x")
        """,
        SKLEARN,
    )
    assert job["Status"] == "Completed", job["log"]
    assert "assumed-role/SageMakerExecutionRole/SageMaker" in job["log"]
    assert shop.get(f"s3://{BUCKET}/from-the-job") == b"x"


# --- AWS's images


def test_scikit_learns_image_trains_a_real_model(shop: Shop):
    job = shop.script(
        """
        import joblib, os, sklearn
        from sklearn.linear_model import LinearRegression
        from sagemaker_training import environment
        model = LinearRegression().fit([[0], [1]], [0, 2])
        print("sklearn", sklearn.__version__, environment.Environment().hyperparameters)
        joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
        """,
        {"n": "3"},
        image=SKLEARN,
    )
    assert job["Status"] == "Completed", job["log"]
    assert "sklearn 1.2.1 {'n': 3}" in job["log"]
    assert list(shop.archive(job["ModelArtifacts"]["S3ModelArtifacts"])) == ["model.joblib"]


def test_the_built_in_xgboost_trains_on_csv_and_shows_its_metrics(shop: Shop):
    rows = "".join(f"{n % 7},{n % 7},{n % 3}\n" for n in range(200))
    shop.put("csv/train.csv", rows)
    shop.put("csv-validation/v.csv", rows)
    job = shop.train(
        {"objective": "reg:squarederror", "num_round": "5"},
        image=XGBOOST,
        InputDataConfig=[
            channel("train", f"s3://{BUCKET}/csv/"),
            channel("validation", f"s3://{BUCKET}/csv-validation/"),
        ],
    )
    assert job["Status"] == "Completed", job["log"]
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["validation:rmse"] < 1.5
    assert list(shop.archive(job["ModelArtifacts"]["S3ModelArtifacts"])) == ["xgboost-model"]


def test_a_hyperparameter_that_is_wrong_fails_as_a_client_error(shop: Shop):
    shop.put("csv/train.csv", "1,2\n")
    job = shop.train(
        {"objective": "reg:nonsense", "num_round": "5"},
        image=XGBOOST,
        InputDataConfig=[channel("train", f"s3://{BUCKET}/csv/")],
    )
    assert job["Status"] == "Failed"
    assert "objective" in job["FailureReason"]


def test_a_log_is_followed_while_the_job_runs(shop: Shop):
    name = shop.script("import time; print('early', flush=True); time.sleep(30)", wait=False)
    job = shop.seen(name, lambda job: "early" in shop.log(name, "training"))
    assert job["Status"] == "InProgress"
    shop.sm.stop_training_job(TrainingJobName=name)
    assert shop.ended(name)["Status"] == "Stopped"
