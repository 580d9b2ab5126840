"""The tagging API over the resources of other services, by boto3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Boto


@pytest.fixture
def tagging(client: Boto) -> Any:
    return client("resourcegroupstaggingapi")


@pytest.fixture
def arns(client: Boto) -> dict[str, str]:
    """One tagged resource of each sort."""
    group = client("sagemaker").create_model_package_group(
        ModelPackageGroupName="g", Tags=[{"Key": "team", "Value": "a"}, {"Key": "x", "Value": "1"}]
    )["ModelPackageGroupArn"]
    key = client("kms").create_key(Tags=[{"TagKey": "team", "TagValue": "b"}])["KeyMetadata"]["Arn"]
    user = client("iam").create_user(UserName="u", Tags=[{"Key": "team", "Value": "c"}])["User"]["Arn"]
    bucket = f"tagged-{client.account}"
    client("s3").create_bucket(Bucket=bucket)
    client("s3").put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    client("logs").create_log_group(logGroupName="l", tags={"team": "d"})
    logs = f"arn:aws:logs:us-east-1:{client.account}:log-group:l"
    return {"sagemaker": group, "kms": key, "iam": user, "s3": f"arn:aws:s3:::{bucket}", "logs": logs}


def found(answer: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        one["ResourceARN"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        for one in answer["ResourceTagMappingList"]
    }


def test_everything_that_is_tagged_is_found(tagging: Any, arns: dict[str, str]) -> None:
    answer = tagging.get_resources()
    assert answer["PaginationToken"] == ""
    assert set(found(answer)) == set(arns.values())
    assert found(answer)[arns["sagemaker"]] == {"team": "a", "x": "1"}
    assert tagging.get_tag_keys()["TagKeys"] == ["team", "x"]
    assert tagging.get_tag_values(Key="team")["TagValues"] == ["a", "b", "c", "d"]


def test_filters_by_tag_type_and_arn(tagging: Any, arns: dict[str, str]) -> None:
    def get(**params: Any) -> set[str]:
        return set(found(tagging.get_resources(**params)))

    assert get(TagFilters=[{"Key": "team", "Values": ["a"]}]) == {arns["sagemaker"], arns["s3"]}
    assert get(TagFilters=[{"Key": "team", "Values": ["a", "b"]}, {"Key": "x"}]) == {arns["sagemaker"]}
    assert get(ResourceTypeFilters=["kms:key", "s3"]) == {arns["kms"], arns["s3"]}
    assert get(ResourceTypeFilters=["sagemaker"]) == {arns["sagemaker"]}
    assert get(ResourceARNList=[arns["iam"]]) == {arns["iam"]}


def test_pages(tagging: Any, arns: dict[str, str]) -> None:
    pages = tagging.get_paginator("get_resources").paginate(ResourcesPerPage=2)
    listed = [one["ResourceARN"] for page in pages for one in page["ResourceTagMappingList"]]
    assert listed == sorted(arns.values())


def test_another_region_has_its_own(client: Boto, house: Any, arns: dict[str, str]) -> None:
    other = Boto(house.url, client.keys, "eu-west-1")
    assert other("resourcegroupstaggingapi").get_resources()["ResourceTagMappingList"] == []
    other.close()


def test_tags_are_set_and_taken_away_everywhere(tagging: Any, arns: dict[str, str], client: Boto) -> None:
    every = list(arns.values())
    absent = f"arn:aws:sagemaker:us-east-1:{client.account}:model/absent"
    failed = tagging.tag_resources(ResourceARNList=[*every, absent, "no-arn-at-all"], Tags={"new": "n"})
    assert set(failed["FailedResourcesMap"]) == {absent, "no-arn-at-all"}
    assert set(found(tagging.get_resources(TagFilters=[{"Key": "new", "Values": ["n"]}]))) == set(every)
    shown = client("sagemaker").list_tags(ResourceArn=arns["sagemaker"])["Tags"]
    assert {"Key": "new", "Value": "n"} in shown
    assert tagging.untag_resources(ResourceARNList=every, TagKeys=["new", "team"])["FailedResourcesMap"] == {}
    assert found(tagging.get_resources()) == {arns["sagemaker"]: {"x": "1"}}
    assert client("kms").list_resource_tags(KeyId=arns["kms"])["Tags"] == []


def test_another_accounts_resource_is_not_tagged(tagging: Any, house: Any) -> None:
    other = Boto(house.url, house.account())
    theirs = other("kms").create_key()["KeyMetadata"]["Arn"]
    assert set(tagging.tag_resources(ResourceARNList=[theirs], Tags={"a": "b"})["FailedResourcesMap"]) == {theirs}
    assert other("kms").list_resource_tags(KeyId=theirs)["Tags"] == []
    other.close()
