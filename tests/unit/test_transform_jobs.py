"""Transform jobs from creation to their end, in one process, with a stand-in for the executor."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from penstock.kernel.errors import ServiceError
from penstock.runs.base import Result
from penstock.services.sagemaker.transform import rules
from penstock.store.records import Document, Ref
from tests.conftest import World
from tests.unit.test_jobs_engine import BUCKET, IMAGE, ROLE, Jobs

OTHER = IMAGE.replace("1.2-1", "1.0-1")


class Transforms(Jobs):
    """A world with a bucket, models and transform jobs."""

    def model(self, name: str = "model", *containers: dict[str, Any], **more: Any) -> None:
        given = containers or ({"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/m/model.tar.gz"},)
        self.world(
            "sagemaker", "CreateModel", ModelName=name, ExecutionRoleArn=ROLE, **more,
            **({"PrimaryContainer": given[0]} if len(given) == 1 else {"Containers": list(given)}),
        )  # fmt: skip

    def transform(self, name: str = "job", **more: Any) -> Document:
        params: dict[str, Any] = {
            "TransformJobName": name,
            "ModelName": "model",
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/"}},
                "ContentType": "text/csv",
            },
            "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        for member in ("TransformInput", "TransformOutput"):
            params[member] |= more.pop(member, {})
        self.world("sagemaker", "CreateTransformJob", **{**params, **more})
        return self.document("transform-job", name)

    def config(self, instance: int = 0) -> dict[str, Any]:
        inputs = {each.target: each for each in self.runs.spec.instances[instance].inputs}
        found: dict[str, Any] = json.loads(inputs[rules.CONFIG].data or b"")
        return found


@pytest.fixture
def shop(world: World) -> Transforms:
    made = Transforms(world)
    made.put("m/model.tar.gz")
    made.put("m/model.tar.gz.old")
    made.model()
    return made


def answer(key: str, text: str) -> Result:
    data = text.encode()
    sha, md5 = hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()
    return Result("answers", key, sha, md5, len(data), data)


def test_a_job_is_described_with_awss_defaults_and_listed(shop: Transforms) -> None:
    shop.transform(Tags=[{"Key": "k", "Value": "v"}])
    job = shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")
    assert job["TransformJobStatus"] == "InProgress"
    assert job["DataProcessing"] == {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
    assert (job["TransformInput"]["SplitType"], job["TransformOutput"]["AssembleWith"]) == ("None", "None")
    assert not [name for name in job if name.startswith("_") or name == "Tags"]
    listed = shop.world("sagemaker", "ListTransformJobs", NameContains="jo")["TransformJobSummaries"]
    assert [each["TransformJobName"] for each in listed] == ["job"]
    tags = shop.world("sagemaker", "ListTags", ResourceArn=job["TransformJobArn"])["Tags"]
    assert tags == [{"Key": "k", "Value": "v"}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ModelName": "none"}, "Could not find model"),
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB must not be greater than 100"),
        ({"MaxPayloadInMB": 20, "MaxConcurrentTransforms": 6}, "must not exceed 100 MB; it is 120"),
        ({"DataProcessing": {"InputFilter": "$[1:]"}, "TransformInput": {"ContentType": "image/png"}}, "ContentType"),
        ({"DataProcessing": {"JoinSource": "Input"}, "TransformOutput": {"Accept": "image/png"}}, "Accept"),
        ({"DataProcessing": {"JoinSource": "Input"}, "MaxPayloadInMB": 0}, "needs a MaxPayloadInMB"),
        ({"DataProcessing": {"JoinSource": "Input"}, "TransformInput": {"SplitType": "RecordIO"}}, "SplitType"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(shop: Transforms, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        shop.transform(**more)


def test_a_name_is_given_once_and_a_multi_model_is_no_model_of_a_job(shop: Transforms) -> None:
    shop.transform()
    with pytest.raises(ServiceError, match="Job name must be unique"):
        shop.transform()
    shop.model("multi", {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/m/"})
    with pytest.raises(ServiceError, match="multi-model"):
        shop.transform("other", ModelName="multi")


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        ("in/a.csv", "in/", "a.csv.out"),
        ("in/a.csv", "in", "a.csv.out"),
        ("in/a.csv", "in/a.csv", "a.csv.out"),
        ("in/deep/a.csv", "in/", "deep/a.csv.out"),
        ("in/part-1.csv", "in/part", "part-1.csv.out"),
        ("a.csv", "", "a.csv.out"),
        ("deep/a.csv", "", "deep/a.csv.out"),
    ],
)
def test_answers_are_named_by_what_follows_the_prefix(key: str, prefix: str, name: str) -> None:
    assert rules.answer_name(key, prefix) == name


def test_the_driver_is_told_all_and_instances_share_the_keys(shop: Transforms) -> None:
    for name in ("a", "b", "c"):
        shop.put(f"in/{name}.csv")
    document = shop.transform(
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2}, Environment={"X": "1"},
        BatchStrategy="SingleRecord", TransformInput={"SplitType": "Line"},
        ModelClientConfig={"InvocationsMaxRetries": 0},
    )  # fmt: skip
    shop.world.step(document)
    shares = [[each["uri"] for each in shop.config(number)["objects"]] for number in (0, 1)]
    assert shares == [[f"s3://{BUCKET}/in/a.csv", f"s3://{BUCKET}/in/c.csv"], [f"s3://{BUCKET}/in/b.csv"]]
    config = shop.config()
    assert (config["split"], config["strategy"], config["retries"], config["timeout_s"]) == (
        "Line",
        "SingleRecord",
        0,
        600,
    )
    (container,) = config["containers"]
    assert container["archive"].endswith("/model.tar.gz")
    assert container["env"].items() >= {"X": "1", "SAGEMAKER_BATCH": "true", "SM_MODEL_DIR": "/opt/ml/model"}.items()


def test_the_second_container_of_a_pipeline_has_its_own_environment_model_and_code(shop: Transforms) -> None:
    shop.put("in/a.csv")
    shop.put("code/sourcedir.tar.gz")
    env = {"SAGEMAKER_PROGRAM": "i.py", "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{BUCKET}/code/sourcedir.tar.gz"}
    shop.model(
        "two", {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/m/model.tar.gz"},
        {"Image": OTHER, "ModelDataUrl": f"s3://{BUCKET}/m/model.tar.gz", "Environment": env},
    )  # fmt: skip
    shop.world.step(shop.transform(ModelName="two"))
    first, second = shop.config()["containers"]
    assert (first["model_dir"], second["model_dir"]) == ("/opt/ml/model", "/opt/ml/model-2")
    assert (first["python"], second["python"]) == ("/env/bin/python", "/env-2/bin/python")
    assert second["env"]["PATH"] == "/env-2/bin"
    assert "source" not in first
    targets = {each.target for each in shop.runs.spec.inputs}
    assert {f"{second['source']}/sourcedir.tar.gz", first["archive"], second["archive"]} <= targets


@pytest.mark.parametrize(
    ("container", "said"),
    [
        (
            {"ModelDataUrl": f"s3://{BUCKET}/none/model.tar.gz"},
            "Could not find model data at s3://data/none/model.tar.gz.",
        ),
        ({"ModelDataUrl": f"s3://{BUCKET}/m/model.tar"}, "Could not find model data at s3://data/m/model.tar."),
        ({"ModelDataUrl": "s3://no-such-bucket/x"}, "Could not find model data at s3://no-such-bucket/x. "),
    ],
)
def test_model_data_that_is_not_there_fails_the_job(shop: Transforms, container: dict[str, Any], said: str) -> None:
    shop.put("in/a.csv")
    shop.model("bad", {"Image": IMAGE, **container})
    shop.world.step(shop.transform(ModelName="bad"))
    job = shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")
    assert (job["TransformJobStatus"], job["FailureReason"].startswith(f"ClientError: {said}")) == ("Failed", True)


def test_inputs_that_are_not_there_fail_the_job(shop: Transforms) -> None:
    shop.world.step(shop.transform())
    job = shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")
    assert job["FailureReason"].startswith('ClientError: No S3 objects found under S3 URL "s3://data/in/"')


def test_answers_go_where_the_job_says_and_its_end_is_told(shop: Transforms) -> None:
    shop.put("in/a.csv")
    document = shop.transform(TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out/deep/"})
    shop.world.step(document)
    shop.runs.say(
        phase="ended", exit_code=0, reason="exit", started=5.0, ended=9.0, results=[answer("a.csv.out", "1\n")]
    )
    shop.world.step(document)
    assert shop.get("out/deep/a.csv.out") == b"1\n"
    job = shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")
    assert (job["TransformJobStatus"], job["TransformEndTime"]) == ("Completed", 9.0)


def test_answers_have_the_keys_names_also_where_no_file_can_have_them(shop: Transforms) -> None:
    for key in ("in/a//b.csv", "in/x", "in/x.out/y", "in/../up"):
        shop.put(key)
    document = shop.transform()
    shop.world.step(document)
    told = {each["uri"]: each["target"].removeprefix(f"{rules.ANSWERS}/") for each in shop.config()["objects"]}
    files = list(told.values())
    assert not [file for file in files if any(other.startswith(file + "/") for other in files)]
    shop.runs.say(phase="running", started=5.0, results=[answer(told[f"s3://{BUCKET}/in/a//b.csv"], "b")])
    shop.world.step(document)
    assert shop.get("out/a//b.csv.out") == b"b"
    shop.runs.say(phase="ended", exit_code=0, reason="exit", results=[answer(file, uri) for uri, file in told.items()])
    shop.world.step(document)
    for key in ("x", "x.out/y", "../up"):
        assert shop.get(f"out/{key}.out") == f"s3://{BUCKET}/in/{key}".encode()
    job = shop.document("transform-job", "job")
    assert "_keys" not in job.body


def test_a_failure_says_the_drivers_sentence_and_where_the_log_is(shop: Transforms) -> None:
    shop.put("in/a.csv")
    document = shop.transform()
    shop.world.step(document)
    shop.runs.say(phase="ended", exit_code=1, reason="exit", message="ClientError: x failed: " + "y" * 2000)
    shop.world.step(document)
    reason = shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")["FailureReason"]
    assert len(reason) == 1024
    assert reason.endswith(" See job logs for more information: /aws/sagemaker/TransformJobs, job/")


def test_a_second_attempt_leaves_out_what_is_published_and_there_is_no_third(shop: Transforms) -> None:
    for name in ("a", "b", "c"):
        shop.put(f"in/{name}.csv")
    document = shop.transform()
    shop.world.step(document)
    shop.runs.say(phase="running", started=5.0, results=[answer("a.csv.out", "1\n")])
    shop.world.step(document)
    assert shop.get("out/a.csv.out") == b"1\n"
    shop.runs.say(phase="lost", results=[answer("a.csv.out", "1\n"), answer("b.csv.out", "2\n")])
    assert shop.world.step(document) == 0.0  # what was taken last is there before the next attempt leaves it out
    shop.world.step(document)
    assert [each["uri"] for each in shop.config()["objects"]] == [f"s3://{BUCKET}/in/c.csv"]
    assert shop.get("out/b.csv.out") == b"2\n"
    shop.runs.say(phase="lost", attempt=2)
    shop.world.step(document)
    job = shop.world.app.store.get(Ref("sagemaker.transform-job", "123456789012", "us-east-1", "job"))
    assert job is not None
    assert (job.status, job.body["FailureReason"].partition(":")[0]) == ("Failed", "InternalServerError")
    assert "_published" not in job.body


def test_a_stopped_job_keeps_the_answers_that_are_whole(shop: Transforms) -> None:
    shop.put("in/a.csv")
    document = shop.transform()
    shop.world.step(document)
    shop.runs.say(phase="running", started=5.0)
    shop.world("sagemaker", "StopTransformJob", TransformJobName="job")
    shop.world.step(document)
    assert ("stop", document.body["_run"]) in shop.runs.calls
    shop.runs.say(phase="ended", exit_code=143, reason="stopped", results=[answer("a.csv.out", "1\n")])
    shop.world.step(document)
    assert shop.world("sagemaker", "DescribeTransformJob", TransformJobName="job")["TransformJobStatus"] == "Stopped"
    assert shop.get("out/a.csv.out") == b"1\n"
