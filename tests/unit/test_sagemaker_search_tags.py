"""Search and tags: the rules alone, then by boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.services.sagemaker.search import demanded, matches, sort_key, values

JOB = {
    "TrainingJobName": "job-1",
    "CreationTime": 1_700_000_000.0,
    "BillableTimeInSeconds": 12,
    "EnableNetworkIsolation": False,
    "HyperParameters": {"max.depth": "5", "eta": "0.2"},
    "FinalMetricDataList": [{"MetricName": "validation:auc", "Value": 0.9}, {"MetricName": "train.loss", "Value": 0.3}],
    "InputDataConfig": [
        {"ChannelName": "train", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/train"}}},
        {"ChannelName": "test", "DataSource": {"S3DataSource": {"S3Uri": "s3://b/test"}}},
    ],
    "Parameters": {"lr": {"NumberValue": 0.1}, "kind": {"StringValue": "tree"}},
    "Tags": [{"Key": "team", "Value": "blue"}],
}


def one(name: str, operator: str | None = None, value: str | None = None) -> dict[str, str]:
    given = {"Name": name, "Operator": operator, "Value": value}
    return {key: text for key, text in given.items() if text is not None}


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        (one("TrainingJobName", "Equals", "job-1"), True),
        (one("TrainingJobName", value="job-1"), True),
        (one("TrainingJobName", "Equals", "job"), False),
        (one("TrainingJobName", "NotEquals", "job-2"), True),
        (one("TrainingJobName", "Contains", "ob-"), True),
        (one("TrainingJobName", "In", "a,job-1"), True),
        (one("TrainingJobName", "In", "a,b"), False),
        (one("RoleArn", "Exists"), False),
        (one("RoleArn", "NotExists"), True),
        (one("BillableTimeInSeconds", "GreaterThan", "11"), True),
        (one("BillableTimeInSeconds", "GreaterThan", "12"), False),
        (one("BillableTimeInSeconds", "LessThanOrEqualTo", "12"), True),
        (one("BillableTimeInSeconds", "Equals", "12.0"), True),
        (one("CreationTime", "GreaterThan", "2023-11-14T00:00:00Z"), True),
        (one("CreationTime", "LessThan", "2023-11-14"), False),
        (one("EnableNetworkIsolation", "Equals", "false"), True),
        (one("HyperParameters.max.depth", "GreaterThan", "4"), True),
        (one("HyperParameters.eta", "LessThan", "0.15"), False),
        (one("Metrics.validation:auc", "GreaterThanOrEqualTo", "0.9"), True),
        (one("Metrics.train.loss", "LessThan", "0.4"), True),
        (one("InputDataConfig.DataSource.S3DataSource.S3Uri", "Contains", "test"), True),
        (one("Parameters.lr", "GreaterThan", "0.05"), True),
        (one("Parameters.kind", "Equals", "tree"), True),
        (one("Tags.team", "Equals", "blue"), True),
        (one("Tags.team", "Equals", "red"), False),
        (one("Tags.Key", "Equals", "team"), True),
    ],
)
def test_a_filter_fits_by_its_operator(condition: dict[str, str], fits: bool) -> None:
    assert matches(JOB, {"Filters": [condition]}) is fits


def test_conditions_are_joined_by_and_unless_or_is_asked() -> None:
    yes, no = one("TrainingJobName", "Equals", "job-1"), one("TrainingJobName", "Equals", "x")
    assert not matches(JOB, {"Filters": [yes, no]})
    assert matches(JOB, {"Filters": [yes, no], "Operator": "Or"})
    assert matches(JOB, {"SubExpressions": [{"Filters": [no, yes], "Operator": "Or"}, {"Filters": [yes]}]})
    assert matches(JOB, {})


def test_nested_filters_ask_one_item_for_all() -> None:
    def nested(channel: str, uri: str) -> dict[str, Any]:
        filters = [
            one("InputDataConfig.ChannelName", "Equals", channel),
            one("InputDataConfig.DataSource.S3DataSource.S3Uri", "Contains", uri),
        ]
        return {"NestedFilters": [{"NestedPropertyName": "InputDataConfig", "Filters": filters}]}

    assert matches(JOB, nested("train", "s3://b/train"))
    assert not matches(JOB, nested("train", "s3://b/test"))


def test_a_name_that_is_not_there_has_no_values_and_sorts_first() -> None:
    assert list(values(JOB, "No.Such")) == []
    assert sort_key(JOB, "No.Such") < sort_key(JOB, "BillableTimeInSeconds")


# --- by boto3
@pytest.fixture
def registry(client: Any) -> Any:
    sagemaker = client("sagemaker")
    for name in ("g1", "g2", "g3"):
        sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=[{"Key": "n", "Value": name}])
    return sagemaker


def found(sagemaker: Any, resource: str, *filters: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    expression = {"SearchExpression": {"Filters": list(filters)}} if filters else {}
    results = sagemaker.search(Resource=resource, **expression, **more)["Results"]
    return [next(iter(result.values())) for result in results]


def test_groups_are_found_by_name_and_by_tag(registry: Any) -> None:
    (group,) = found(registry, "ModelPackageGroup", one("ModelPackageGroupName", "Equals", "g2"))
    assert group["Tags"] == [{"Key": "n", "Value": "g2"}]
    (tagged,) = found(registry, "ModelPackageGroup", one("Tags.n", "Equals", "g3"))
    assert tagged["ModelPackageGroupName"] == "g3"
    assert found(registry, "ModelPackageGroup", one("ModelPackageGroupName", "Equals", "none")) == []


def test_what_is_found_comes_in_order_and_in_pages(registry: Any) -> None:
    asked = {"Resource": "ModelPackageGroup", "SortBy": "ModelPackageGroupName", "SortOrder": "Ascending"}
    pages = list(registry.get_paginator("search").paginate(**asked, PaginationConfig={"PageSize": 2}))
    names = [result["ModelPackageGroup"]["ModelPackageGroupName"] for page in pages for result in page["Results"]]
    assert names == ["g1", "g2", "g3"]
    assert [page["TotalHits"]["Value"] for page in pages] == [3, 3]
    (last,) = found(registry, "ModelPackageGroup", SortBy="ModelPackageGroupName", SortOrder="Descending", MaxResults=1)
    assert last["ModelPackageGroupName"] == "g3"


def test_components_are_found_by_their_parents(client: Any) -> None:
    sagemaker = client("sagemaker")
    sagemaker.create_experiment(ExperimentName="e")
    sagemaker.create_trial(TrialName="t", ExperimentName="e")
    for name in ("c1", "c2"):
        sagemaker.create_trial_component(TrialComponentName=name)
    sagemaker.associate_trial_component(TrialName="t", TrialComponentName="c1")
    (component,) = found(sagemaker, "ExperimentTrialComponent", one("Parents.ExperimentName", "Equals", "e"))
    assert component["TrialComponentName"] == "c1"
    assert component["Parents"] == [{"TrialName": "t", "ExperimentName": "e"}]
    by_both = [one("TrialComponentName", "Equals", "c2"), one("Parents.TrialName", "Equals", "t")]
    assert found(sagemaker, "ExperimentTrialComponent", *by_both) == []


def test_a_search_of_what_is_not_served_says_so(client: Any) -> None:
    with pytest.raises(ClientError) as fault:
        client("sagemaker").search(Resource="FeatureGroup")
    assert fault.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_tags_are_added_changed_and_removed(registry: Any, client: Any) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/g1"
    answer = registry.add_tags(ResourceArn=arn, Tags=[{"Key": "n", "Value": "new"}, {"Key": "a", "Value": "1"}])
    assert answer["Tags"] == [{"Key": "a", "Value": "1"}, {"Key": "n", "Value": "new"}]
    registry.delete_tags(ResourceArn=arn, TagKeys=["n", "none"])
    assert registry.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]


def test_tags_need_a_resource_of_the_account(registry: Any, client: Any) -> None:
    for account in (client.account, "000000000001"):
        with pytest.raises(ClientError) as fault:
            registry.list_tags(ResourceArn=f"arn:aws:sagemaker:us-east-1:{account}:model/none")
        assert fault.value.response["Error"]["Code"] == "ValidationException"


def test_tags_of_another_account_cannot_be_read(registry: Any, client: Any, house: Any) -> None:
    from conftest import Boto

    other = Boto(house.url, house.account())
    with pytest.raises(ClientError, match="Resource does not exist"):
        other("sagemaker").list_tags(ResourceArn=f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/g1")
    other.close()


@pytest.mark.parametrize(
    "tags",
    [
        [{"Key": "aws:mine", "Value": "x"}],
        [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}],
        [{"Key": f"k{n}", "Value": "x"} for n in range(50)],
    ],
    ids=["the service's own", "given twice", "one too many"],
)
def test_tags_that_break_a_rule_are_refused(registry: Any, client: Any, tags: list[dict[str, str]]) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/g1"
    with pytest.raises(ClientError) as fault:
        registry.add_tags(ResourceArn=arn, Tags=tags)
    assert fault.value.response["Error"]["Code"] == "ValidationException"
    assert registry.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "n", "Value": "g1"}]


def test_the_aws_prefix_is_refused_at_creation_too(client: Any) -> None:
    with pytest.raises(ClientError, match="reserved"):
        client("sagemaker").create_experiment(ExperimentName="e", Tags=[{"Key": "aws:x", "Value": "y"}])


def test_fifty_tags_come_in_one_page(registry: Any, client: Any) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:{client.account}:model-package-group/g1"
    registry.add_tags(ResourceArn=arn, Tags=[{"Key": f"k{n:02}", "Value": "x"} for n in range(49)])
    answer = registry.list_tags(ResourceArn=arn)
    assert len(answer["Tags"]) == 50
    assert "NextToken" not in answer


def test_a_name_that_must_be_narrows_the_question() -> None:
    wanted = one("TrainingJobName", "Equals", "job-1")
    assert demanded({"Filters": [wanted]}, "TrainingJobName") == "job-1"
    assert demanded({"Filters": [wanted], "Operator": "Or"}, "TrainingJobName") is None
    assert demanded({"Filters": [one("TrainingJobName", "NotEquals", "job-1")]}, "TrainingJobName") is None


def test_the_versions_of_a_group_are_found(registry: Any) -> None:
    for group in ("g1", "g1", "g2"):
        registry.create_model_package(ModelPackageGroupName=group)
    wanted = one("ModelPackageGroupName", "Equals", "g1")
    packages = found(registry, "ModelPackage", wanted, SortBy="ModelPackageVersion", SortOrder="Ascending")
    assert [(one["ModelPackageGroupName"], one["ModelPackageVersion"]) for one in packages] == [("g1", 1), ("g1", 2)]
    assert len(found(registry, "ModelPackage", one("ModelApprovalStatus", "Equals", "PendingManualApproval"))) == 3
