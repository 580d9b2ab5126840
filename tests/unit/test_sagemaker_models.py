"""Models and endpoint configurations, by boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.refusals import refused

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
CONTAINER = {"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz", "Environment": {"A": "1"}}


def make_model(client: Any, name: str = "m", **more: Any) -> str:
    arn: str = client("sagemaker").create_model(
        ModelName=name, PrimaryContainer=CONTAINER, ExecutionRoleArn=client.role, **more
    )["ModelArn"]
    return arn


def variant(**more: Any) -> dict[str, Any]:
    return {"VariantName": "all", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **more}


# --- models
def test_a_model_is_described_as_it_was_created(client: Any) -> None:
    arn = make_model(client, EnableNetworkIsolation=True)
    described = client("sagemaker").describe_model(ModelName="m")
    assert described["ModelArn"] == arn == f"arn:aws:sagemaker:us-east-1:{client.account}:model/m"
    assert described["PrimaryContainer"] == {"Mode": "SingleModel", **CONTAINER}
    assert described["EnableNetworkIsolation"] is True
    assert not {"VpcConfig", "Containers", "Tags", "DeploymentRecommendation"} & set(described)


def test_a_models_name_is_taken_once(client: Any) -> None:
    arn = make_model(client)
    answer = refused(
        client("sagemaker").create_model, ModelName="m", PrimaryContainer=CONTAINER, ExecutionRoleArn=client.role
    )
    assert answer == ("ValidationException", f'Cannot create already existing model "{arn}".')


def test_a_missing_model_could_not_be_found(client: Any) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model/none"
    sentence = ("ValidationException", f'Could not find model "{arn}".')
    assert refused(client("sagemaker").describe_model, ModelName="none") == sentence
    assert refused(client("sagemaker").delete_model, ModelName="none") == sentence


def test_models_of_another_region_are_others(client: Any, house: Any) -> None:
    from conftest import Boto

    make_model(client)
    west = Boto(house.url, client.keys, region="us-west-2")
    assert west("sagemaker").list_models()["Models"] == []
    west.close()


def test_models_are_listed_newest_first_in_pages(client: Any) -> None:
    for name in ("a", "b", "c"):
        make_model(client, name)
    pages = client("sagemaker").get_paginator("list_models").paginate(PaginationConfig={"PageSize": 2})
    assert [model["ModelName"] for page in pages for model in page["Models"]] == ["c", "b", "a"]
    by_name = client("sagemaker").list_models(SortBy="Name", SortOrder="Ascending", NameContains="b")
    assert [model["ModelName"] for model in by_name["Models"]] == ["b"]


def test_a_deleted_model_leaves_its_name_and_no_tags(client: Any) -> None:
    arn = make_model(client, Tags=[{"Key": "k", "Value": "v"}])
    client("sagemaker").delete_model(ModelName="m")
    assert make_model(client) == arn
    assert client("sagemaker").list_tags(ResourceArn=arn)["Tags"] == []


def test_a_model_needs_an_image_or_a_package(client: Any) -> None:
    answer = refused(client("sagemaker").create_model, ModelName="m", PrimaryContainer={"ModelDataUrl": "s3://b/k"})
    assert answer[0] == "ValidationException"
    assert "Image" in answer[1]


def test_a_model_has_a_primary_container_or_several(client: Any) -> None:
    sagemaker = client("sagemaker")
    assert "Exactly one" in refused(sagemaker.create_model, ModelName="m")[1]
    assert (
        "Exactly one"
        in refused(sagemaker.create_model, ModelName="m", PrimaryContainer=CONTAINER, Containers=[CONTAINER])[1]
    )
    containers = [{**CONTAINER, "ContainerHostname": "one"}, {**CONTAINER, "ContainerHostname": "two"}]
    sagemaker.create_model(ModelName="m", Containers=containers, InferenceExecutionConfig={"Mode": "Serial"})
    described = sagemaker.describe_model(ModelName="m")
    assert [one["ContainerHostname"] for one in described["Containers"]] == ["one", "two"]
    assert described["InferenceExecutionConfig"] == {"Mode": "Serial"}
    assert "PrimaryContainer" not in described


def test_a_models_role_must_be_there(client: Any) -> None:
    arn = f"arn:aws:iam::{client.account}:role/Nobody"
    code, message = refused(
        client("sagemaker").create_model, ModelName="m", PrimaryContainer=CONTAINER, ExecutionRoleArn=arn
    )
    assert code == "ValidationException"
    assert message.startswith(f"Could not assume role {arn}.")
    foreign = "arn:aws:iam::000000000001:role/Nobody"
    assert (
        "Cross-account"
        in refused(
            client("sagemaker").create_model, ModelName="m", PrimaryContainer=CONTAINER, ExecutionRoleArn=foreign
        )[1]
    )


def test_a_model_of_a_package_takes_what_the_package_holds(client: Any) -> None:
    sagemaker = client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="g")
    package = sagemaker.create_model_package(
        ModelPackageGroupName="g", InferenceSpecification={"Containers": [CONTAINER]}, ModelApprovalStatus="Approved"
    )["ModelPackageArn"]
    container = {"ModelPackageName": package, "Environment": {"B": "2"}}
    sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=client.role)
    shown = sagemaker.describe_model(ModelName="m")["PrimaryContainer"]
    assert (shown["Image"], shown["ModelDataUrl"], shown["ModelPackageName"]) == (
        IMAGE,
        CONTAINER["ModelDataUrl"],
        package,
    )
    assert shown["Environment"] == {"A": "1", "B": "2"}


def test_a_package_that_is_not_approved_makes_no_model(client: Any) -> None:
    sagemaker = client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="g")
    package = sagemaker.create_model_package(
        ModelPackageGroupName="g", InferenceSpecification={"Containers": [CONTAINER]}
    )["ModelPackageArn"]
    answer = refused(sagemaker.create_model, ModelName="m", PrimaryContainer={"ModelPackageName": package})
    assert answer[0] == "ValidationException"
    assert "PendingManualApproval" in answer[1]


# --- endpoint configurations
def test_a_configuration_is_described_as_it_was_created(client: Any) -> None:
    make_model(client)
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": "s3://b/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    sagemaker = client("sagemaker")
    made = sagemaker.create_endpoint_config(
        EndpointConfigName="c", ProductionVariants=[variant()], DataCaptureConfig=capture
    )
    described = sagemaker.describe_endpoint_config(EndpointConfigName="c")
    assert described["EndpointConfigArn"] == made["EndpointConfigArn"]
    assert described["ProductionVariants"] == [variant()]
    assert described["DataCaptureConfig"] == capture
    assert [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == ["c"]


def test_a_configurations_models_must_be_there(client: Any) -> None:
    answer = refused(
        client("sagemaker").create_endpoint_config,
        EndpointConfigName="c",
        ProductionVariants=[variant(ModelName="none")],
    )
    assert answer == (
        "ValidationException",
        f'Could not find model "arn:aws:sagemaker:us-east-1:{client.account}:model/none".',
    )


@pytest.mark.parametrize(
    "variants",
    [
        [variant(), variant()],
        [variant(ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 2})],
        [{"VariantName": "all", "ModelName": "m"}],
        [{"VariantName": "all", "ModelName": "m", "InstanceType": "ml.m5.large"}],
    ],
    ids=["two of one name", "serverless with instances", "nothing to run on", "no count"],
)
def test_variants_that_do_not_hold_together_are_refused(client: Any, variants: list[dict[str, Any]]) -> None:
    make_model(client)
    answer = refused(client("sagemaker").create_endpoint_config, EndpointConfigName="c", ProductionVariants=variants)
    assert answer[0] == "ValidationException"


def test_a_serverless_variant_is_kept(client: Any) -> None:
    make_model(client)
    serverless = {
        "VariantName": "all",
        "ModelName": "m",
        "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2},
    }
    client("sagemaker").create_endpoint_config(EndpointConfigName="c", ProductionVariants=[serverless])
    described = client("sagemaker").describe_endpoint_config(EndpointConfigName="c")
    assert described["ProductionVariants"][0]["ServerlessConfig"] == serverless["ServerlessConfig"]


def test_a_configurations_name_is_taken_once_and_free_again(client: Any) -> None:
    make_model(client)
    sagemaker = client("sagemaker")
    arn = sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant()])["EndpointConfigArn"]
    answer = refused(sagemaker.create_endpoint_config, EndpointConfigName="c", ProductionVariants=[variant()])
    assert answer == ("ValidationException", f'Cannot create already existing endpoint configuration "{arn}".')
    sagemaker.delete_endpoint_config(EndpointConfigName="c")
    answer = refused(sagemaker.describe_endpoint_config, EndpointConfigName="c")
    assert answer == ("ValidationException", f'Could not find endpoint configuration "{arn}".')


def test_endpoints_are_not_there_and_say_so(client: Any) -> None:
    sagemaker = client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    missing = f'Could not find endpoint "arn:aws:sagemaker:us-east-1:{client.account}:endpoint/e".'
    assert refused(sagemaker.describe_endpoint, EndpointName="e") == ("ValidationException", missing)
    assert refused(sagemaker.delete_endpoint, EndpointName="e") == ("ValidationException", missing)
    with pytest.raises(ClientError) as fault:
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert fault.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "CreateEndpoint" in fault.value.response["Error"]["Message"]
