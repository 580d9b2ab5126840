"""What another region has is not reached by its ARN, by boto3: the same account, from us-east-1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Boto

STOP = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}
DEFINITION = json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [STOP]})
TOKEN = "t" * 32
SCOPED = ("ValidationException", "ARN should be scoped to correct region: us-east-1")


@pytest.fixture
def west(client: Boto) -> Iterator[Boto]:
    made = Boto(client.url, client.keys, "us-west-2")
    yield made
    made.close()


def refused(operation: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as fault:
        operation(**params)
    error = fault.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_pipeline_of_another_region_is_neither_described_nor_started(client: Boto, west: Boto) -> None:
    there, here = west("sagemaker"), client("sagemaker")
    given = {"PipelineDefinition": DEFINITION, "RoleArn": client.role, "ClientRequestToken": TOKEN}
    arn = there.create_pipeline(PipelineName="p", **given)["PipelineArn"]
    execution = there.start_pipeline_execution(PipelineName=arn, ClientRequestToken=TOKEN)["PipelineExecutionArn"]
    assert refused(here.describe_pipeline, PipelineName=arn) == SCOPED
    assert refused(here.start_pipeline_execution, PipelineName=arn, ClientRequestToken=TOKEN) == SCOPED
    assert refused(here.describe_pipeline_execution, PipelineExecutionArn=execution) == SCOPED
    assert refused(here.list_pipeline_execution_steps, PipelineExecutionArn=execution) == SCOPED
    assert refused(here.list_tags, ResourceArn=arn)[0] == "ValidationException"
    assert here.list_pipelines()["PipelineSummaries"] == []
    assert there.describe_pipeline(PipelineName=arn)["PipelineName"] == "p"


def test_a_pipelines_arn_of_another_region_does_not_name_one_of_this_region(client: Boto, west: Boto) -> None:
    given = {"PipelineDefinition": DEFINITION, "RoleArn": client.role, "ClientRequestToken": TOKEN}
    here = client("sagemaker").create_pipeline(PipelineName="p", **given)["PipelineArn"]
    assert refused(client("sagemaker").describe_pipeline, PipelineName=here.replace("us-east-1", "us-west-2")) == SCOPED


def test_a_model_package_of_another_region_is_not_described(client: Boto, west: Boto) -> None:
    there, here = west("sagemaker"), client("sagemaker")
    group = there.create_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupArn"]
    package = there.create_model_package(ModelPackageGroupName=group)["ModelPackageArn"]
    assert refused(here.describe_model_package_group, ModelPackageGroupName=group) == SCOPED
    assert refused(here.describe_model_package, ModelPackageName=package) == SCOPED
    assert refused(here.update_model_package, ModelPackageArn=package, ModelApprovalStatus="Approved") == SCOPED


def test_other_services_take_no_arn_of_another_region_either(client: Boto, west: Boto) -> None:
    key = west("kms").create_key()["KeyMetadata"]["Arn"]
    assert refused(client("kms").describe_key, KeyId=key) == ("NotFoundException", "Invalid arn us-west-2")
    repository = west("ecr").create_repository(repositoryName="repo")["repository"]["repositoryArn"]
    assert refused(client("ecr").list_tags_for_resource, resourceArn=repository)[0] == "RepositoryNotFoundException"
    west("sqs").create_queue(QueueName="q")
    queue = f"arn:aws:sqs:us-west-2:{client.account}:q"
    assert refused(client("sqs").list_message_move_tasks, SourceArn=queue)[0] == "ResourceNotFoundException"
    function = f"arn:aws:lambda:us-west-2:{client.account}:function:f"
    assert refused(client("lambda").get_function, FunctionName=function) == (
        "ResourceNotFoundException", "Functions from 'us-west-2' are not reachable in this region ('us-east-1')"
    )  # fmt: skip


@pytest.mark.parametrize("there", ["us-west-2", "us-east-1"], ids=["region", "account"])
def test_a_log_groups_arn_of_elsewhere_does_not_name_one_of_here(client: Boto, there: str) -> None:
    client("logs").create_log_group(logGroupName="l", tags={"a": "b"})
    account = client.account if there == "us-west-2" else "999999999999"
    arn = f"arn:aws:logs:{there}:{account}:log-group:l"
    assert refused(client("logs").list_tags_for_resource, resourceArn=arn)[0] == "ResourceNotFoundException"
    assert refused(client("logs").filter_log_events, logGroupIdentifier=arn)[0] == "ResourceNotFoundException"


def test_resources_of_another_region_are_not_tagged(client: Boto, west: Boto) -> None:
    group = west("sagemaker").create_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupArn"]
    answer = client("resourcegroupstaggingapi").tag_resources(ResourceARNList=[group], Tags={"a": "b"})
    assert answer["FailedResourcesMap"][group]["ErrorCode"] == "InvalidParameterException"
    assert west("sagemaker").list_tags(ResourceArn=group)["Tags"] == []


def test_roles_and_buckets_are_of_no_region(client: Boto, west: Boto) -> None:
    assert west("sts").assume_role(RoleArn=client.role, RoleSessionName="mine")["Credentials"]
    client("s3").create_bucket(Bucket=f"anywhere-{client.account}")
    assert west("s3").head_bucket(Bucket=f"anywhere-{client.account}")
