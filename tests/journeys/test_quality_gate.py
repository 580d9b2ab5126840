"""The main job, from an unmodified script to an approved model, with the clients that users have.

The words and the order are those of a SageMaker project's README: create, execute, monitor, approve, clean up.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import clients
from tests.conftest import Boto, Family
from tests.programs import EXAMPLE, SNIPPET, Programs, Told

pytestmark = [pytest.mark.sandbox, pytest.mark.clients, pytest.mark.timeout(600)]
GROUP = "mlops-pipeline-models"
STEPS = ["PreprocessData", "TrainModel", "EvaluateModel", "CheckAccuracy", "RegisterModel-RegisterModel"]


@pytest.fixture(scope="module")
def aws_v2() -> str:
    """The AWS CLI v2, where this machine has it (Debian's awscli is one): PyPI has v1 alone, which knows no `logs tail`."""
    found = shutil.which("aws")
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout if found else ""
    if not said.startswith("aws-cli/2"):
        pytest.skip("there is no AWS CLI v2 on PATH")
    return str(found)


@pytest.fixture(scope="module")
def created(programs: Programs, example: Path) -> Told:
    """`python create_pipeline.py`."""
    told = programs("v2/python", "create_pipeline.py", cwd=example)
    assert told.code == 0, told
    return told


@pytest.fixture(scope="module")
def execution(created: Told, programs: Programs, example: Path) -> str:
    """The execution that the README's snippet starts, watched to its end by `monitor_pipeline.py <arn>`."""
    started = programs("v2/python", "-c", SNIPPET)
    assert started.out.startswith("Execution ARN: arn:aws:sagemaker:us-east-1:"), started
    arn = started.out.removeprefix("Execution ARN: ").strip()
    watched = programs("v2/python", "monitor_pipeline.py", arn, cwd=example)
    assert watched.code == 0, watched
    shown = [line.split()[0] for line in watched.out.splitlines() if " Succeeded" in line]
    assert shown == [*STEPS, "Execution"]
    return arn


def steps(boto: Boto, arn: str) -> dict[str, Any]:
    found = boto("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return {step["StepName"]: step for step in found}


def job(step: dict[str, Any]) -> tuple[str, str]:
    """Kind and name of the job that a step made."""
    ((kind, made),) = step["Metadata"].items()
    return kind, made["Arn"].rpartition("/")[2]


def streams(boto: Boto, name: str) -> list[str]:
    found = boto("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
    )
    return [stream["logStreamName"] for stream in found["logStreams"]]


def report(boto: Boto, arn: str) -> dict[str, float]:
    """The metrics that the evaluation script wrote."""
    _, name = job(steps(boto, arn)["EvaluateModel"])
    outputs = boto("sagemaker").describe_processing_job(ProcessingJobName=name)["ProcessingOutputConfig"]["Outputs"]
    bucket, _, key = outputs[0]["S3Output"]["S3Uri"].removeprefix("s3://").partition("/")
    written = json.load(boto("s3").get_object(Bucket=bucket, Key=f"{key}/evaluation.json")["Body"])
    return {name: metric["value"] for name, metric in written["metrics"].items()}


def last_execution(boto: Boto, pipeline: str) -> dict[str, Any]:
    sagemaker = boto("sagemaker")
    arn = sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"][0]
    return sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn["PipelineExecutionArn"])


# --- the README's story


def test_the_script_creates_the_pipeline(created: Told, boto: Boto):
    arn = f"arn:aws:sagemaker:us-east-1:{boto.account}:pipeline/MLOpsPipeline"
    assert f"Pipeline ARN: {arn}" in created.out
    definition = json.loads(boto("sagemaker").describe_pipeline(PipelineName="MLOpsPipeline")["PipelineDefinition"])
    assert [step["Name"] for step in definition["Steps"]] == STEPS[:4]


def test_the_snippets_parameters_reach_the_jobs(execution: str, boto: Boto):
    sagemaker, found = boto("sagemaker"), steps(boto, execution)
    processing = sagemaker.describe_processing_job(ProcessingJobName=job(found["PreprocessData"])[1])
    training = sagemaker.describe_training_job(TrainingJobName=job(found["TrainModel"])[1])
    assert processing["ProcessingResources"]["ClusterConfig"]["InstanceType"] == "ml.t3.medium"
    assert training["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"


def test_the_metrics_are_those_of_a_model_that_learned(execution: str, boto: Boto):
    metrics = report(boto, execution)
    assert 0.85 < metrics["accuracy"] < 0.95
    assert 0.7 < metrics["auc"] < 0.9  # a model that guesses has 0.5


def test_the_model_is_listed_and_approved_with_the_aws_cli(execution: str, programs: Programs, boto: Boto):
    package = steps(boto, execution)[STEPS[4]]["Metadata"]["RegisterModel"]["Arn"]
    listing = ["sagemaker", "list-model-packages", "--model-package-group-name", GROUP, "--model-approval-status"]
    pending = programs.seen(*listing, "PendingManualApproval")["ModelPackageSummaryList"]
    assert package in [each["ModelPackageArn"] for each in pending]
    approving = ["sagemaker", "update-model-package", "--model-package-arn", package]
    assert programs.seen(*approving, "--model-approval-status", "Approved") == {"ModelPackageArn": package}
    approved = programs.seen(*listing, "Approved")["ModelPackageSummaryList"]
    assert [each["ModelPackageArn"] for each in approved] == [package]


def test_the_package_holds_the_model_and_the_metrics_that_the_jobs_wrote(execution: str, boto: Boto):
    found = steps(boto, execution)
    package = boto("sagemaker").describe_model_package(
        ModelPackageName=found[STEPS[4]]["Metadata"]["RegisterModel"]["Arn"]
    )
    training = boto("sagemaker").describe_training_job(TrainingJobName=job(found["TrainModel"])[1])
    model = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert model == training["ModelArtifacts"]["S3ModelArtifacts"]
    for uri in (model, package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        assert boto("s3").head_object(Bucket=bucket, Key=key)["ContentLength"] > 100


def test_the_built_in_algorithm_tells_its_metrics_in_the_log_and_in_the_job(
    execution: str, programs: Programs, boto: Boto
):
    _, name = job(steps(boto, execution)["TrainModel"])
    events = programs.seen(
        "logs", "filter-log-events", "--log-group-name", "/aws/sagemaker/TrainingJobs", "--log-stream-name-prefix", f"{name}/"
    )["events"]  # fmt: skip
    assert any(event["message"].startswith("[99]#011train-auc:") for event in events)
    metrics = boto("sagemaker").describe_training_job(TrainingJobName=name)["FinalMetricDataList"]
    assert {"train:auc", "validation:auc"} <= {metric["MetricName"] for metric in metrics}


def test_aws_logs_tail_shows_them_too(execution: str, programs: Programs, boto: Boto, aws_v2: str):
    kind, name = job(steps(boto, execution)["TrainModel"])
    told = programs.own(
        "exec", "--", aws_v2, "logs", "tail", f"/aws/sagemaker/{kind}s", "--log-stream-names", *streams(boto, name)
    )
    assert told.code == 0, told
    assert "[99]#011train-auc:" in told.out


# --- the same by other clients


@pytest.mark.parametrize(
    ("client", "script", "pipeline"),
    [
        ("cli/python", "boto3_pipeline.py", "MLOpsPipeline-boto3"),
        ("v3/python", "create_pipeline_v3.py", "MLOpsPipeline-v3"),
    ],
    ids=["raw boto3", "SageMaker SDK v3"],
)
def test_the_same_pipeline_by(client: str, script: str, pipeline: str, programs: Programs, example: Path, boto: Boto):
    told = programs(client, script, cwd=example)
    assert told.code == 0, told
    assert "Execution Succeeded" in told.out
    ended = last_execution(boto, pipeline)
    found = steps(boto, ended["PipelineExecutionArn"])
    assert {step["StepStatus"] for step in found.values()} == {"Succeeded"}
    assert len(found) == 5
    assert 0.85 < report(boto, ended["PipelineExecutionArn"])["accuracy"] < 0.95


def test_the_same_pipeline_from_a_notebook(programs: Programs, example: Path, tmp_path: Path):
    words = ["nbconvert", "--to", "notebook", "--execute", "pipeline.ipynb", "--output-dir", tmp_path]
    told = programs("v2/jupyter", *words, cwd=example)
    assert told.code == 0, told
    outputs = [cell.get("outputs") for cell in json.loads((tmp_path / "pipeline.ipynb").read_text())["cells"]]
    shown = json.dumps(outputs)
    assert "RegisterModel-RegisterModel Succeeded" in shown
    assert "'accuracy': {'value': 0." in shown


# --- the gate


def test_a_gate_that_stays_shut_registers_nothing_and_says_why(
    created: Told, programs: Programs, example: Path, boto: Boto
):
    before = boto("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    path = clients.environment("v2") / "bin"
    told = programs.own("run", "create_pipeline.py", "-p", "AccuracyThreshold=0.999", cwd=example, path=path)
    assert told.code == 0, told
    after = boto("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    assert after == before
    arn = last_execution(boto, "MLOpsPipeline")["PipelineExecutionArn"]
    found = steps(boto, arn)
    assert list(reversed(found)) == STEPS[:4]
    assert found["CheckAccuracy"]["Metadata"] == {"Condition": {"Outcome": "False"}}
    why = found["CheckAccuracy"]["StepDescription"]
    assert f"{report(boto, arn)['accuracy']}" in why
    assert "0.999" in why
    (line,) = (line for line in told.out.splitlines() if line.startswith("CheckAccuracy"))
    assert "False" in line
    assert why in line


def test_run_starts_what_the_script_upserted_with_parameters_of_its_own(programs: Programs, example: Path, boto: Boto):
    path = clients.environment("v2") / "bin"
    told = programs.own("run", "create_pipeline.py", "-p", "AccuracyThreshold=0.8", "--json", cwd=example, path=path)
    assert told.code == 0, told
    result = json.loads(told.out)
    assert [step["StepStatus"] for step in result["Steps"]] == ["Succeeded"] * 5
    given = boto("sagemaker").list_pipeline_parameters_for_execution(
        PipelineExecutionArn=result["PipelineExecutionArn"]
    )
    assert {"Name": "AccuracyThreshold", "Value": "0.8"} in given["PipelineParameters"]


# --- a script that is broken


def test_a_broken_script_fails_its_step_with_its_own_traceback(
    created: Told, programs: Programs, tmp_path: Path, boto: Boto
):
    broken = Path(shutil.copytree(EXAMPLE, tmp_path / "broken"))
    text = (broken / "evaluate.py").read_text()
    (broken / "evaluate.py").write_text(text.replace("model.load_model(", "model.load_modle("))
    path = clients.environment("v2") / "bin"
    told = programs.own("run", "create_pipeline.py", cwd=broken, path=path)
    assert told.code == 1, told
    assert "AttributeError" in told.out
    ended = last_execution(boto, "MLOpsPipeline")
    assert ended["PipelineExecutionStatus"] == "Failed"
    step = steps(boto, ended["PipelineExecutionArn"])["EvaluateModel"]
    assert step["StepStatus"] == "Failed"
    assert "exit code: 1" in step["FailureReason"]
    assert "AttributeError: 'Booster' object has no attribute 'load_modle'" in step["FailureReason"]
    logs = programs.own("logs", ended["PipelineExecutionArn"].rpartition("/")[2], "--step", "EvaluateModel")
    assert 'evaluate.py", line' in logs.out
    assert "AttributeError: 'Booster' object has no attribute 'load_modle'" in logs.out


# --- the variables of `penstock env`


def test_the_variables_typed_into_aws_configure_serve_the_aws_cli_and_boto3(programs: Programs, tmp_path: Path):
    found, bin_ = programs.variables, clients.environment("cli") / "bin"
    env = {"HOME": str(tmp_path), "PATH": programs.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"}

    def aws(*words: str, typed: str | None = None, program: str = "aws") -> str:
        done = subprocess.run(
            [bin_ / program, *words], env=env, input=typed, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    typed = [found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], found["AWS_REGION"], "json"]
    aws("configure", typed="\n".join(typed) + "\n")
    aws("configure", "set", "endpoint_url", found["AWS_ENDPOINT_URL"])
    assert "assumed-role" in json.loads(aws("sts", "get-caller-identity"))["Arn"]
    (tmp_path / "words").write_text("some words")
    aws("s3", "mb", "s3://configured")
    aws("s3", "cp", str(tmp_path / "words"), "s3://configured/words")
    assert aws("s3", "cp", "s3://configured/words", "-") == "some words"
    assert aws(
        "-c", "import boto3; print(boto3.client('sagemaker').list_pipelines()['PipelineSummaries'])", program="python"
    )


def test_a_shell_that_evaluates_the_variables_leads_the_sdk_here(programs: Programs, family: Family):
    shell = f'eval "$({family.command} env)" && exec {clients.environment("v2")}/bin/python -c "$SCRIPT"'
    script = "import sagemaker; print(sagemaker.Session().default_bucket(), sagemaker.get_execution_role())"
    env = programs.environ | {"PENSTOCK_DATA": str(family.data), "SCRIPT": script}
    done = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True, timeout=60)
    account = family.keys["account"]
    assert done.stdout.split()[-2:] == [f"sagemaker-us-east-1-{account}", family.keys["role_arn"]], done.stderr


# --- the end of it


def test_the_clean_up_removes_all_that_the_project_made(execution: str, programs: Programs, example: Path, boto: Boto):
    sagemaker = boto("sagemaker")
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
    sagemaker.create_model(
        ModelName="mlops-pipeline-model", ExecutionRoleArn=boto.role, PrimaryContainer={"Image": image}
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName="mlops-pipeline-config",
        ProductionVariants=[
            {"VariantName": "AllTraffic", "ModelName": "mlops-pipeline-model", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
        ],
    )  # fmt: skip
    told = programs("v2/python", "cleanup_week8.py", cwd=example)
    assert told.code == 0, told
    assert "MLOpsPipeline" not in [each["PipelineName"] for each in sagemaker.list_pipelines()["PipelineSummaries"]]
    assert sagemaker.list_models(NameContains="mlops-pipeline")["Models"] == []
    assert sagemaker.list_endpoint_configs(NameContains="mlops-pipeline")["EndpointConfigs"] == []
    bucket = f"sagemaker-us-east-1-{boto.account}"
    for prefix in ("mlops-pipeline/", "MLOpsPipeline/"):
        assert boto("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)["KeyCount"] == 0
    assert sagemaker.list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"] != []
    again = programs("v2/python", "cleanup_week8.py", "--packages", cwd=example)
    assert again.code == 0, again
    assert GROUP not in [
        each["ModelPackageGroupName"] for each in sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    ]
