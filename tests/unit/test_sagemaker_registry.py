"""The model registry, by boto3 and (where one change holds several calls) without HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.services.sagemaker.registry import rules
from tests.refusals import refused

SPECIFICATION = {
    "Containers": [{"Image": "1.dkr.ecr.us-east-1.amazonaws.com/x:1", "ModelDataUrl": "s3://b/model.tar.gz"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["text/csv"],
}


@pytest.fixture
def registry(client: Any) -> Any:
    """A SageMaker client of an account that has the group "g"."""
    client("sagemaker").create_model_package_group(ModelPackageGroupName="g", ModelPackageGroupDescription="d")
    return client("sagemaker")


def register(registry: Any, **more: Any) -> str:
    arn: str = registry.create_model_package(ModelPackageGroupName="g", InferenceSpecification=SPECIFICATION, **more)[
        "ModelPackageArn"
    ]
    return arn


def events_of(house: Any, arn: str) -> list[dict[str, Any]]:
    """The details of a package's events, as the outbox has them."""
    found, last = [], 0
    while page := house.app.store.events(last):
        found += [event.detail for event in page if event.resources == [arn]]
        last = page[-1].seq
    return found


# --- groups
def test_a_group_is_described_with_who_made_it(registry: Any, client: Any) -> None:
    group = registry.describe_model_package_group(ModelPackageGroupName="g")
    assert group["ModelPackageGroupArn"] == f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/g"
    assert (group["ModelPackageGroupStatus"], group["ModelPackageGroupDescription"]) == ("Completed", "d")
    assert group["CreatedBy"]["IamIdentity"]["Arn"].endswith("assumed-role/SageMakerExecutionRole/penstock")
    by_arn = registry.describe_model_package_group(ModelPackageGroupName=group["ModelPackageGroupArn"])
    assert by_arn["ModelPackageGroupName"] == "g"


def test_a_groups_name_is_taken_once(registry: Any) -> None:
    code, message = refused(registry.create_model_package_group, ModelPackageGroupName="g")
    assert code == "ValidationException"
    assert "already exists" in message


def test_a_missing_group_does_not_exist(registry: Any, client: Any) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/none"
    sentence = ("ValidationException", f"ModelPackageGroup {arn} does not exist.")
    assert refused(registry.describe_model_package_group, ModelPackageGroupName="none") == sentence
    assert refused(registry.create_model_package, ModelPackageGroupName="none") == sentence
    assert registry.list_model_packages(ModelPackageGroupName="none")["ModelPackageSummaryList"] == []


def test_a_group_with_versions_cannot_be_deleted(registry: Any) -> None:
    arn = register(registry)
    assert refused(registry.delete_model_package_group, ModelPackageGroupName="g")[0] == "ConflictException"
    registry.delete_model_package(ModelPackageName=arn)
    registry.delete_model_package_group(ModelPackageGroupName="g")
    assert registry.list_model_package_groups()["ModelPackageGroupSummaryList"] == []


def test_a_groups_policy_is_kept(registry: Any) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    assert refused(registry.get_model_package_group_policy, ModelPackageGroupName="g")[0] == "ValidationException"
    registry.put_model_package_group_policy(ModelPackageGroupName="g", ResourcePolicy=policy)
    assert registry.get_model_package_group_policy(ModelPackageGroupName="g")["ResourcePolicy"] == policy
    registry.delete_model_package_group_policy(ModelPackageGroupName="g")
    assert refused(registry.get_model_package_group_policy, ModelPackageGroupName="g")[0] == "ValidationException"


# --- versions
def test_versions_count_up_in_their_group(registry: Any, client: Any) -> None:
    prefix = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package/g"
    assert [register(registry), register(registry)] == [f"{prefix}/1", f"{prefix}/2"]
    group_arn = registry.describe_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupArn"]
    assert registry.create_model_package(ModelPackageGroupName=group_arn)["ModelPackageArn"] == f"{prefix}/3"


def test_a_deleted_versions_number_is_not_given_again(registry: Any) -> None:
    registry.delete_model_package(ModelPackageName=register(registry))
    assert register(registry).endswith("/g/2")


def test_versions_made_at_once_are_all_different(registry: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        arns = list(pool.map(lambda _: register(registry), range(24)))
    assert sorted(int(arn.rpartition("/")[2]) for arn in arns) == list(range(1, 25))


def test_two_versions_of_one_change_are_different(world: Any) -> None:
    call = world.call()
    call.other("sagemaker", "CreateModelPackageGroup", ModelPackageGroupName="g")
    arns = [
        call.other("sagemaker", "CreateModelPackage", ModelPackageGroupName="g")["ModelPackageArn"] for _ in range(2)
    ]
    world.app.store.commit(call.change)
    assert [arn.rpartition("/")[2] for arn in arns] == ["1", "2"]
    assert len(world("sagemaker", "ListModelPackages", ModelPackageGroupName="g")["ModelPackageSummaryList"]) == 2
    assert world("sagemaker", "CreateModelPackage", ModelPackageGroupName="g")["ModelPackageArn"].endswith("/3")


def test_a_version_waits_for_approval_and_is_complete(registry: Any) -> None:
    metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/evaluation.json"}}}
    arn = register(registry, ModelMetrics=metrics, ModelPackageDescription="x", MetadataProperties={"CommitId": "abc"})
    package = registry.describe_model_package(ModelPackageName=arn)
    assert (package["ModelPackageGroupName"], package["ModelPackageVersion"]) == ("g", 1)
    assert (package["ModelApprovalStatus"], package["ModelPackageStatus"]) == ("PendingManualApproval", "Completed")
    assert package["InferenceSpecification"] == SPECIFICATION
    assert package["ModelMetrics"] == metrics
    assert package["MetadataProperties"] == {"CommitId": "abc"}
    assert package["ModelPackageStatusDetails"]["ValidationStatuses"] == []
    assert not {"ModelCard", "DriftCheckBaselines", "ClientToken", "Tags"} & set(package)
    again = registry.describe_model_package(ModelPackageName=package["ModelPackageName"])
    assert again["ModelPackageArn"] == arn


def test_a_model_cards_content_and_status_are_updated_one_by_one(registry: Any) -> None:
    arn = register(registry, ModelCard={"ModelCardContent": "{}", "ModelCardStatus": "Draft"})
    registry.update_model_package(ModelPackageArn=arn, ModelCard={"ModelCardContent": '{"a": 1}'})
    registry.update_model_package(ModelPackageArn=arn, ModelCard={"ModelCardStatus": "PendingReview"})
    card = registry.describe_model_package(ModelPackageName=arn)["ModelCard"]
    assert card == {"ModelCardContent": '{"a": 1}', "ModelCardStatus": "PendingReview"}


def test_a_client_token_registers_once(registry: Any) -> None:
    assert register(registry, ClientToken="once") == register(registry, ClientToken="once")
    assert len(registry.list_model_packages(ModelPackageGroupName="g")["ModelPackageSummaryList"]) == 1


def test_a_package_is_versioned_or_named(registry: Any) -> None:
    code, message = refused(registry.create_model_package, ModelPackageGroupName="g", ModelPackageName="n")
    assert code == "ValidationException"
    assert message.startswith("Both ModelPackageName and ModelPackageGroupName are provided in the input.")
    assert refused(registry.create_model_package) == ("ValidationException", "Missing ARN.")
    assert (
        refused(registry.create_model_package, ModelPackageGroupName="g", Tags=[{"Key": "k", "Value": "v"}])[0]
        == "ValidationException"
    )


def test_an_unversioned_package_has_a_name_of_its_own(registry: Any) -> None:
    arn = registry.create_model_package(ModelPackageName="solo", InferenceSpecification=SPECIFICATION)[
        "ModelPackageArn"
    ]
    package = registry.describe_model_package(ModelPackageName="solo")
    assert package["ModelPackageArn"] == arn
    assert not {"ModelPackageVersion", "ModelPackageGroupName", "ModelApprovalStatus"} & set(package)
    code, message = refused(registry.create_model_package, ModelPackageName="solo")
    assert code == "ValidationException"
    assert "ModelPackage already exists" in message


def test_packages_are_listed_by_group_approval_and_kind(registry: Any) -> None:
    first, second = register(registry), register(registry, ModelApprovalStatus="Approved")
    solo = registry.create_model_package(ModelPackageName="solo", InferenceSpecification=SPECIFICATION)[
        "ModelPackageArn"
    ]

    def listed(**filters: Any) -> list[str]:
        return [one["ModelPackageArn"] for one in registry.list_model_packages(**filters)["ModelPackageSummaryList"]]

    assert listed(ModelPackageGroupName="g") == [second, first]
    assert listed(ModelPackageGroupName="g", ModelApprovalStatus="PendingManualApproval") == [first]
    assert listed(ModelPackageGroupName="g", SortOrder="Ascending", SortBy="CreationTime", MaxResults=1) == [first]
    assert listed() == [solo]
    assert listed(ModelPackageType="Versioned") == [second, first]
    assert listed(ModelPackageType="Both") == [solo, second, first]
    summary = registry.list_model_packages(ModelPackageGroupName="g")["ModelPackageSummaryList"][0]
    assert set(summary) <= {
        "ModelPackageName", "ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "CreationTime",
        "ModelPackageStatus", "ModelApprovalStatus",
    }  # fmt: skip


def test_packages_page_through_a_filter_that_the_store_does_not_have(registry: Any) -> None:
    arns = [register(registry) for _ in range(5)]
    pages = registry.get_paginator("list_model_packages").paginate(
        ModelPackageType="Versioned", PaginationConfig={"PageSize": 2}
    )
    assert [one["ModelPackageArn"] for page in pages for one in page["ModelPackageSummaryList"]] == arns[::-1]


def test_an_approval_is_shown_and_told(registry: Any, house: Any) -> None:
    arn = register(registry)
    registry.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good")
    package = registry.describe_model_package(ModelPackageName=arn)
    assert (package["ModelApprovalStatus"], package["ApprovalDescription"]) == ("Approved", "good")
    made, approved = events_of(house, arn)
    assert (made["ModelApprovalStatus"], made["ModelPackageVersion"]) == ("PendingManualApproval", 1)
    assert "UpdatedModelPackageFields" not in made
    assert approved["ModelApprovalStatus"] == "Approved"
    assert approved["UpdatedModelPackageFields"] == ["ModelApprovalStatus", "ApprovalDescription"]
    assert approved["InferenceSpecification"] == SPECIFICATION
    assert approved["CreationTime"].endswith("Z")


def test_an_update_that_changes_nothing_tells_nothing(registry: Any, house: Any) -> None:
    arn = register(registry)
    registry.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="PendingManualApproval")
    assert len(events_of(house, arn)) == 1


def test_customer_properties_are_added_and_removed(registry: Any) -> None:
    arn = register(registry, CustomerMetadataProperties={"a": "1", "b": "2"})
    registry.update_model_package(
        ModelPackageArn=arn, CustomerMetadataProperties={"b": "3", "c": "4"}, CustomerMetadataPropertiesToRemove=["a"]
    )
    assert registry.describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"] == {"b": "3", "c": "4"}


def test_a_version_gets_further_specifications_and_a_stage(registry: Any) -> None:
    arn = register(registry)
    further = {"Name": "neo", "Containers": [{"Image": "1.dkr.ecr.us-east-1.amazonaws.com/neo:1"}]}
    stage = {"Stage": "Production", "StageStatus": "Ready"}
    registry.update_model_package(
        ModelPackageArn=arn,
        AdditionalInferenceSpecificationsToAdd=[further],
        ModelLifeCycle=stage,
        SourceUri="s3://b/x",
    )
    package = registry.describe_model_package(ModelPackageName=arn)
    assert package["AdditionalInferenceSpecifications"] == [further]
    assert (package["ModelLifeCycle"], package["SourceUri"]) == (stage, "s3://b/x")


def test_a_missing_package_does_not_exist(registry: Any, client: Any) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package/g/7"
    sentence = ("ValidationException", f"ModelPackage {arn} does not exist.")
    assert refused(registry.describe_model_package, ModelPackageName=arn) == sentence
    assert refused(registry.update_model_package, ModelPackageArn=arn, ModelApprovalStatus="Approved") == sentence
    assert refused(registry.delete_model_package, ModelPackageName="g/7") == sentence


def test_many_packages_are_described_at_once(registry: Any) -> None:
    arn = register(registry)
    answer = registry.batch_describe_model_package(ModelPackageArnList=[arn, arn + "9"])
    assert answer["ModelPackageSummaries"][arn]["ModelPackageVersion"] == 1
    assert list(answer["BatchDescribeModelPackageErrorMap"]) == [arn + "9"]


def test_a_model_can_be_registered_by_its_arn(registry: Any) -> None:
    container = {"Image": "1.dkr.ecr.us-east-1.amazonaws.com/x:1", "ModelDataUrl": "s3://b/m.tar.gz"}
    model = registry.create_model(ModelName="m", PrimaryContainer=container)["ModelArn"]
    arn = registry.create_model_package(ModelPackageGroupName="g", SourceUri=model)["ModelPackageArn"]
    assert registry.describe_model_package(ModelPackageName=arn)["InferenceSpecification"]["Containers"] == [container]


def test_an_update_names_only_what_is_different() -> None:
    body = {"ModelApprovalStatus": "Approved", "CustomerMetadataProperties": {"a": "1"}}
    assert rules.update(body, {"ModelApprovalStatus": "Approved", "CustomerMetadataPropertiesToRemove": ["a"]}) == [
        "CustomerMetadataProperties"
    ]
    assert body == {"ModelApprovalStatus": "Approved"}
