"""Two at once: names that are taken, and scripts that upsert and start the same pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.runs import sandbox
from tests.conftest import Boto
from tests.crash import workload
from tests.crash.families import PLAIN, Clan, raise_clan, until

AT_ONCE = 8
ROLE = "{role}"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]})
COUNT = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
CREATES: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    # service, operation, parameters; what the losers are told: code, and words of the sentence
    "model": ("sagemaker", "create_model", {"ModelName": "taken", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": PLAIN}},
              "ValidationException", "Cannot create already existing model"),
    "endpoint configuration": ("sagemaker", "create_endpoint_config", {"EndpointConfigName": "taken", "ProductionVariants": [
        {"VariantName": "v", "ModelName": "given", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}]},
        "ValidationException", "Cannot create already existing endpoint configuration"),
    "package group": ("sagemaker", "create_model_package_group", {"ModelPackageGroupName": "taken"},
                      "ValidationException", "already exists"),
    "pipeline": ("sagemaker", "create_pipeline", {"PipelineName": "taken", "RoleArn": ROLE, "PipelineDefinition": json.dumps(
        {"Version": "2020-12-01", "Steps": [{"Name": "s", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}]})},
        "ValidationException", "Pipeline names must be unique within an AWS account and region"),
    "processing job": ("sagemaker", "create_processing_job", {"ProcessingJobName": "taken", "RoleArn": ROLE,
                       "AppSpecification": {"ImageUri": PLAIN, "ContainerEntrypoint": ["true"]},
                       "ProcessingResources": {"ClusterConfig": COUNT}}, "ResourceInUse", "Job name must be unique"),
    "training job": ("sagemaker", "create_training_job", {"TrainingJobName": "taken", "RoleArn": ROLE,
                     "AlgorithmSpecification": {"TrainingImage": PLAIN, "TrainingInputMode": "File"},
                     "OutputDataConfig": {"S3OutputPath": "s3://nowhere/"}, "ResourceConfig": COUNT,
                     "StoppingCondition": {"MaxRuntimeInSeconds": 60}}, "ResourceInUse", "Job name must be unique"),
    "experiment": ("sagemaker", "create_experiment", {"ExperimentName": "taken"}, "ValidationException", "Experiment names must be unique"),
    "trial": ("sagemaker", "create_trial", {"TrialName": "taken", "ExperimentName": "given"},
              "ValidationException", "Trial names must be unique"),
    "trial component": ("sagemaker", "create_trial_component", {"TrialComponentName": "taken"}, "ValidationException", "must be unique"),
    "role": ("iam", "create_role", {"RoleName": "taken", "AssumeRolePolicyDocument": TRUST}, "EntityAlreadyExists", "taken already exists"),
    "policy": ("iam", "create_policy", {"PolicyName": "taken", "PolicyDocument": POLICY}, "EntityAlreadyExists", "already exists"),
    "user": ("iam", "create_user", {"UserName": "taken"}, "EntityAlreadyExists", "taken already exists"),
    "instance profile": ("iam", "create_instance_profile", {"InstanceProfileName": "taken"}, "EntityAlreadyExists", "already exists"),
    "log group": ("logs", "create_log_group", {"logGroupName": "taken"}, "ResourceAlreadyExistsException", "already exists"),
    "log stream": ("logs", "create_log_stream", {"logGroupName": "given", "logStreamName": "taken"},
                   "ResourceAlreadyExistsException", "already exists"),
}  # fmt: skip


def at_once(act: Callable[[int], Any], count: int = AT_ONCE) -> list[Any]:
    """What each of the threads got, an answer or an error, when all began at the same moment."""
    gate, outcomes = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        gate.wait()
        try:
            outcomes[number] = act(number)
        except ClientError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.fixture
def given(client: Boto) -> Boto:
    client("sagemaker").create_experiment(ExperimentName="given")
    client("sagemaker").create_model(ModelName="given", ExecutionRoleArn=client.role, PrimaryContainer={"Image": PLAIN})
    client("logs").create_log_group(logGroupName="given")
    return client


@pytest.mark.parametrize("noun", CREATES)
def test_of_many_who_create_one_name_one_wins_and_the_others_get_aws_sentence(given: Boto, noun: str) -> None:
    service, operation, params, code, words = CREATES[noun]
    params = {name: given.role if value == ROLE else value for name, value in params.items()}
    act = getattr(given(service, max_pool_connections=AT_ONCE), operation)
    token = {"ClientRequestToken": "{number:040d}"} if noun == "pipeline" else {}
    outcomes = at_once(lambda n: act(**params, **{name: text.format(number=n) for name, text in token.items()}))
    lost = [each for each in outcomes if isinstance(each, ClientError)]
    assert len(lost) == AT_ONCE - 1, outcomes
    assert {each.response["Error"]["Code"] for each in lost} == {code}
    assert all(words in each.response["Error"]["Message"] for each in lost), lost[0]


def test_of_many_who_create_a_bucket_one_wins_and_others_are_told_whose_it_is(client: Boto) -> None:
    s3 = client("s3", max_pool_connections=AT_ONCE)
    s3_west = client.session.client("s3", region_name="us-west-2", endpoint_url=client.url)
    place = {"LocationConstraint": "us-west-2"}  # us-east-1 gives one's own bucket again
    name = f"taken-{client.account}"
    outcomes = at_once(lambda _: s3_west.create_bucket(Bucket=name, CreateBucketConfiguration=place))
    s3_west.close()
    lost = [each for each in outcomes if isinstance(each, ClientError)]
    assert [each.response["Error"]["Code"] for each in lost] == ["BucketAlreadyOwnedByYou"] * (AT_ONCE - 1)
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "us-west-2"


def test_versions_registered_at_once_are_numbered_one_after_another(client: Boto) -> None:
    sm = client("sagemaker", max_pool_connections=AT_ONCE)
    sm.create_model_package_group(ModelPackageGroupName="models")
    arns = at_once(lambda _: sm.create_model_package(ModelPackageGroupName="models")["ModelPackageArn"])
    assert sorted(int(arn.rsplit("/", 1)[1]) for arn in arns) == list(range(1, AT_ONCE + 1))


def test_one_token_starts_one_execution_however_often_it_comes(client: Boto) -> None:
    sm = client("sagemaker", max_pool_connections=AT_ONCE)
    steps = [{"Name": "s", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}]
    text = json.dumps({"Version": "2020-12-01", "Steps": steps})
    sm.create_pipeline(PipelineName="p", PipelineDefinition=text, RoleArn=client.role, ClientRequestToken="c" * 40)
    started = at_once(lambda _: sm.start_pipeline_execution(PipelineName="p", ClientRequestToken="t" * 40))
    assert len({each["PipelineExecutionArn"] for each in started}) == 1
    assert len(sm.list_pipeline_executions(PipelineName="p")["PipelineExecutionSummaries"]) == 1


# --- whole scripts


SCRIPT = """
import json, os, sys, boto3
sm = boto3.client("sagemaker")
role, text = sys.argv[1], sys.argv[2]
try:
    sm.create_pipeline(PipelineName="both", PipelineDefinition=text, RoleArn=role)
    print("created")
except sm.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "ValidationException", error
    assert "Pipeline names must be unique within an AWS account and region" in str(error), error
    sm.update_pipeline(PipelineName="both", PipelineDefinition=text, RoleArn=role)
    print("updated")
for n in range(2):
    print(sm.start_pipeline_execution(PipelineName="both")["PipelineExecutionArn"])
"""


@pytest.fixture(scope="module")
def clan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clan]:
    probe = sandbox.probe()
    if not probe.ok:
        pytest.skip(probe.sentence)
    with raise_clan(tmp_path_factory.mktemp("races"), cpus="8", memory_bytes=str(16 << 30)) as made:
        yield made


@pytest.mark.sandbox
def test_scripts_that_upsert_and_start_the_same_pipeline_at_once_all_succeed(clan: Clan, tmp_path: Path) -> None:
    workload.prepare(clan)
    whole = workload.definition(clan.keys["role_arn"])
    lone = [step for step in whole["Steps"] if step["Name"] in ("lone", "after")]
    for parameter in whole["Parameters"]:
        parameter.setdefault("DefaultValue", "both")
    text = json.dumps({**whole, "Steps": lone})
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), clan.keys["role_arn"], text]
    started = [subprocess.Popen(clan.exec_command(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clan.environment)
               for _ in range(3)]  # fmt: skip
    told = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 3, told
    assert sorted(out.split()[0] for out, _ in told) == ["created", "updated", "updated"]
    sm = clan.client("sagemaker")
    arns = [arn for out, _ in told for arn in out.split()[1:]]
    assert len(set(arns)) == 6

    def ended() -> bool:
        states = [sm.describe_pipeline_execution(PipelineExecutionArn=a)["PipelineExecutionStatus"] for a in arns]
        return "Executing" not in states

    until(ended, "the executions end")
    for arn in arns:
        assert sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Succeeded"
    assert workload.failures(clan.log()) == []
