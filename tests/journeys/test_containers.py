"""Jobs of real images, as containers of Docker or Podman; skipped, with the reason, where no engine can be had."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import sandbox
from tests import engines
from tests.conftest import Boto, Family

IMAGE = f"{engines.IMAGE}:latest"
PROGRAM = r"""
import datetime, hashlib, hmac, json, os, signal, socket, sys, urllib.error, urllib.request
def load(path): return json.load(open(path))
def signed(operation):
    e, now = os.environ, datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    body, host = f"Action={operation}&Version=2011-06-15", e["AWS_ENDPOINT_URL"].split("//")[1]
    heads = {"content-type": "application/x-www-form-urlencoded", "host": host, "x-amz-date": now,
             "x-amz-security-token": e["AWS_SESSION_TOKEN"]}
    names, sha = ";".join(sorted(heads)), lambda text: hashlib.sha256(text.encode()).hexdigest()
    lines = "".join(f"{name}:{heads[name]}\n" for name in sorted(heads))
    scope = f"{now[:8]}/{e['AWS_REGION']}/sts/aws4_request"
    key = ("AWS4" + e["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in scope.split("/"): key = hmac.digest(key, part.encode(), "sha256")
    told = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n" + sha(f"POST\n/\n\n{lines}\n{names}\n{sha(body)}")
    heads["authorization"] = (f"AWS4-HMAC-SHA256 Credential={e['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, "
                              f"Signature={hmac.new(key, told.encode(), 'sha256').hexdigest()}")
    request = urllib.request.Request(e["AWS_ENDPOINT_URL"] + "/", body.encode(), heads)
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read().decode()
hyper = load("/opt/ml/input/config/hyperparameters.json")
if "fail" in hyper:
    print("about to fail")
    open("/opt/ml/output/failure", "w").write("no such luck")
    sys.exit(3)
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return True
report = {
    "hyper": hyper, "data": open("/opt/ml/input/data/train/x.csv").read(),
    "host": load("/opt/ml/input/config/resourceconfig.json")["current_host"], "address": socket.gethostbyname("algo-1"),
    "capabilities": [status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs")], "mine": os.environ["MINE"],
    "networks": sorted(os.listdir("/sys/class/net")), "identity": "assumed-role" in signed("GetCallerIdentity"),
    "others": refused(22) and refused(int(os.environ["OUTSIDE"])), "pid": os.getpid(),
}
json.dump(report, open("/opt/ml/model/report.json", "w"))
print("made by a container", flush=True)
if "hold" in hyper:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    print("holding", flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def contained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """A family with a container engine."""
    if not sandbox.probe().ok:
        pytest.skip(sandbox.probe().sentence)
    folder = tmp_path_factory.mktemp("containers")
    with engines.engine(folder, PROGRAM) as address:
        made = Family(folder / "data", {}, {})
        os.environ["PENSTOCK_DOCKER"] = address
        try:
            up = made.penstock("up", "--detach", "--port", "0", "--doorway-port", "0", "--json")
            assert up.returncode == 0, up.stderr
            made.about = json.loads(up.stdout)
            made.keys = json.loads((made.data / "credentials.json").read_text())
            yield made
            made.penstock("down", "--jobs")
        finally:
            del os.environ["PENSTOCK_DOCKER"]


@pytest.fixture
def boto(contained: Family) -> Iterator[Boto]:
    made = contained.boto()
    made("s3").create_bucket(Bucket="containers") if "containers" not in str(made("s3").list_buckets()["Buckets"]) else None
    made("s3").put_object(Bucket="containers", Key="in/x.csv", Body=b"1,2\n")
    yield made
    made.close()


def begin(boto: Boto, name: str, image: str = IMAGE, **hyper: str) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://containers/in/"}}
    boto("sagemaker").create_training_job(
        TrainingJobName=name, RoleArn=boto.role, HyperParameters=hyper,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": source}],
        OutputDataConfig={"S3OutputPath": "s3://containers/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300}, Environment={"MINE": "yes", "OUTSIDE": boto.url.rpartition(":")[2]},
    )  # fmt: skip


def ended(boto: Boto, name: str) -> Any:
    waiter = boto("sagemaker").get_waiter("training_job_completed_or_stopped")
    try:
        waiter.wait(TrainingJobName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 2400})
    finally:
        told = boto("sagemaker").describe_training_job(TrainingJobName=name)
    return told


def logged(boto: Boto, name: str) -> list[str]:
    stream = boto("logs").describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=name)
    found = boto("logs").get_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream["logStreams"][0]["logStreamName"], startFromHead=True
    )
    return [each["message"] for each in found["events"]]


def test_a_job_of_a_real_image_runs_by_the_container_contract(boto: Boto) -> None:
    begin(boto, "whole", depth="3")
    told = ended(boto, "whole")
    assert told["TrainingJobStatus"] == "Completed", told.get("FailureReason")
    bucket, _, key = told["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    archive = io.BytesIO(boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=archive) as tar:
        report = json.load(tar.extractfile("report.json"))  # type: ignore[arg-type]
    assert report == {
        "hyper": {"depth": "3"}, "data": "1,2\n", "host": "algo-1", "address": "127.0.0.1", "mine": "yes",
        "capabilities": ["0000000000000000", "0000000000000000", "1"], "networks": ["lo"], "identity": True, "others": True,
        "pid": 1,
    }  # fmt: skip
    first, last = logged(boto, "whole")
    assert first.startswith(f"{IMAGE} runs as a container of ")
    assert last == "made by a container"


def test_a_failure_of_a_container_is_told_by_its_code_and_its_file(boto: Boto) -> None:
    begin(boto, "fails", fail="yes")
    with pytest.raises(Exception, match="Failed"):
        ended(boto, "fails")
    told = boto("sagemaker").describe_training_job(TrainingJobName="fails")
    assert "exit code: 3" in told["FailureReason"] or "no such luck" in told["FailureReason"]
    assert logged(boto, "fails")[1:] == ["about to fail"]


def test_an_image_in_no_store_is_refused_with_the_command_that_brings_it(boto: Boto) -> None:
    with pytest.raises(Exception, match=r"not found.* pull nobody/knows:1"):
        begin(boto, "none", image="nobody/knows:1")


long = pytest.mark.skipif("PENSTOCK_TEST_DOCKER" not in os.environ, reason="it takes a while: `make docker` runs it")


def containers(family: Family) -> list[str]:
    from penstock.runs.docker import daemon

    with daemon.reach(os.environ["PENSTOCK_DOCKER"]).client() as client:
        return [each["State"] for each in client.containers(all=True, filters={"label": f"penstock.runs={family.data}/runs"})]


@long
def test_a_container_outlives_the_server_and_is_stopped_and_removed_by_the_next(contained: Family, boto: Boto) -> None:
    begin(boto, "holds", hold="yes")
    while "holding" not in "".join(_lines(boto, "holds")):
        time.sleep(0.1)
        told = boto("sagemaker").describe_training_job(TrainingJobName="holds")
        assert told["TrainingJobStatus"] == "InProgress", told["FailureReason"]
    assert contained.penstock("down").returncode == 0
    assert sorted(containers(contained)) == ["running", "running"]
    up = contained.penstock("up", "--detach", "--port", "0", "--doorway-port", "0", "--json")
    contained.about = json.loads(up.stdout)
    again = contained.boto()
    again("sagemaker").stop_training_job(TrainingJobName="holds")
    assert ended(again, "holds")["TrainingJobStatus"] == "Stopped"
    assert logged(again, "holds")[-1] == "told to end"
    deadline = time.monotonic() + 60
    while containers(contained):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again.close()


def _lines(boto: Boto, name: str) -> list[str]:
    try:
        return logged(boto, name)
    except (boto("logs").exceptions.ResourceNotFoundException, IndexError):
        return []


def test_doctor_names_the_engine(contained: Family) -> None:
    found = {each["name"]: each for each in json.loads(contained.penstock("doctor", "--json").stdout)}
    assert found["containers"]["state"] == "good"
    assert os.environ["PENSTOCK_DOCKER"] in found["containers"]["sentence"]


@long
def test_what_is_removed_from_outside_is_told(contained: Family, tmp_path: Path) -> None:
    from penstock.runs.docker import daemon

    boto = contained.boto()
    begin(boto, "gone", hold="yes")
    while "holding" not in "".join(_lines(boto, "gone")):
        time.sleep(0.1)
        assert boto("sagemaker").describe_training_job(TrainingJobName="gone")["TrainingJobStatus"] == "InProgress"
    labels = ["penstock.part=program", f"penstock.runs={contained.data}/runs"]
    with daemon.reach(os.environ["PENSTOCK_DOCKER"]).client() as client:
        for each in client.containers(filters={"label": labels}):
            client.remove_container(each["Id"], force=True)
    with pytest.raises(Exception, match="Failed"):
        ended(boto, "gone")
    assert "something else removed it" in "".join(logged(boto, "gone"))
    boto.close()
