"""The operations on pipelines and executions, in AWS's words."""
# ruff: noqa: E501  (tables of cases)

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.kernel.errors import ServiceError
from penstock.store.records import Change, ObjectPut, ObjectRow, Query

ROLE = "arn:aws:iam::123456789012:role/penstock-execution"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/Flowers"
TOKEN = "t" * 32
PARAMETERS = [
    {"Name": "Text", "Type": "String", "DefaultValue": "a"},
    {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Flag", "Type": "Boolean", "DefaultValue": False},
]
STOP = {"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}}


def define(*steps: Any, **members: Any) -> str:
    return json.dumps(
        {"Version": "2020-12-01", "Metadata": {}, "Parameters": PARAMETERS, "Steps": list(steps), **members}
    )


class Service:
    """SageMaker's operations in a world that has the role."""

    def __init__(self, world: Any):
        self.world, self.count = world, 0
        world("iam", "CreateRole", RoleName="penstock-execution", AssumeRolePolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
        }))  # fmt: skip

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return dict(self.world("sagemaker", operation, **params))

    def token(self) -> str:
        self.count += 1
        return f"{self.count:032}"

    def create(self, name: str = "Flowers", **members: Any) -> str:
        if "PipelineDefinitionS3Location" not in members:
            members.setdefault("PipelineDefinition", define(STOP))
        members.setdefault("ClientRequestToken", self.token())
        return str(self("CreatePipeline", PipelineName=name, **{"RoleArn": ROLE, **members})["PipelineArn"])

    def start(self, name: str = "Flowers", **members: Any) -> str:
        members.setdefault("ClientRequestToken", self.token())
        return str(self("StartPipelineExecution", PipelineName=name, **members)["PipelineExecutionArn"])

    def end(self, arn: str) -> None:
        document = self.world.app.store.by_arn(arn)
        while self.world.step(document) == 0.0:
            pass

    def refused(self, operation: str, **params: Any) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self(operation, **params)
        return caught.value


@pytest.fixture
def service(world: Any) -> Service:
    return Service(world)


# --- pipelines
def test_a_pipeline_is_described_as_it_was_created(service: Service) -> None:
    definition = define(STOP)
    arn = service.create(
        PipelineDefinition=definition, PipelineDescription="d", PipelineDisplayName="Shown", Tags=[{"Key": "team", "Value": "ml"}],
        ParallelismConfiguration={"MaxParallelExecutionSteps": 5},
    )  # fmt: skip
    assert arn == ARN
    shown = service("DescribePipeline", PipelineName="Flowers")
    assert shown["PipelineDefinition"] == definition
    assert shown["PipelineStatus"] == "Active"
    assert (shown["PipelineDescription"], shown["PipelineDisplayName"], shown["RoleArn"]) == ("d", "Shown", ROLE)
    assert shown["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 5}
    assert shown["CreatedBy"]["IamIdentity"]["Arn"].endswith("assumed-role/SageMakerExecutionRole/test")
    assert not {"LastRunTime", "_id", "Tags", "ClientRequestToken"} & shown.keys()
    assert service("ListTags", ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "ml"}]
    assert service("DescribePipeline", PipelineName=arn)["PipelineName"] == "Flowers"


def test_a_name_taken_is_refused_in_the_words_that_the_sdk_matches(service: Service) -> None:
    service.create()
    fault = service.refused(
        "CreatePipeline", PipelineName="Flowers", PipelineDefinition=define(), RoleArn=ROLE, ClientRequestToken=TOKEN
    )
    assert (fault.code, "already exists" in fault.message) == ("ValidationException", True)


@pytest.mark.parametrize(
    "operation",
    ["DescribePipeline", "UpdatePipeline", "DeletePipeline", "StartPipelineExecution", "ListPipelineExecutions"],
)
def test_a_missing_pipeline_is_told_by_its_arn(service: Service, operation: str) -> None:
    token = {} if operation.startswith(("Describe", "List", "Update")) else {"ClientRequestToken": TOKEN}
    fault = service.refused(operation, PipelineName="Flowers", **token)
    assert (fault.code, fault.message) == ("ResourceNotFound", f"Pipeline '{ARN}' does not exist.")


@pytest.mark.parametrize("operation", [
    "DescribePipelineExecution", "ListPipelineExecutionSteps", "ListPipelineParametersForExecution", "DescribePipelineDefinitionForExecution",
    "UpdatePipelineExecution", "StopPipelineExecution", "RetryPipelineExecution",
])  # fmt: skip
def test_a_missing_execution_is_told_by_its_arn(service: Service, operation: str) -> None:
    token = {"ClientRequestToken": TOKEN} if operation.startswith(("Stop", "Retry")) else {}
    fault = service.refused(operation, PipelineExecutionArn=f"{ARN}/execution/abc", **token)
    assert fault.code == "ResourceNotFound"
    assert f"{ARN}/execution/abc' does not exist" in fault.message


@pytest.mark.parametrize(("definition", "told"), [
    ("{", "Unable to parse pipeline definition. Malformed JSON"),
    (define({"Name": "S", "Type": "Magic"}), "Unable to parse pipeline definition. Step 'S' has the unknown type"),
])  # fmt: skip
def test_a_faulty_definition_is_refused_at_creation_and_at_update(service: Service, definition: str, told: str) -> None:
    fault = service.refused(
        "CreatePipeline", PipelineName="P", PipelineDefinition=definition, RoleArn=ROLE, ClientRequestToken=TOKEN
    )
    assert fault.code == "ValidationException"
    assert fault.message.startswith(told)
    service.create()
    assert service.refused("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=definition).message.startswith(
        told
    )


def test_a_definition_is_needed_and_only_one(service: Service) -> None:
    place = {"Bucket": "penstock-tests", "ObjectKey": "p.json"}
    given = {"PipelineName": "P", "RoleArn": ROLE, "ClientRequestToken": TOKEN}
    assert "Either PipelineDefinition" in service.refused("CreatePipeline", **given).message
    both = service.refused("CreatePipeline", **given, PipelineDefinition=define(), PipelineDefinitionS3Location=place)
    assert "Only one of" in both.message


def test_a_role_that_is_not_there_is_refused(service: Service) -> None:
    fault = service.refused(
        "CreatePipeline", PipelineName="P", PipelineDefinition=define(), RoleArn=ROLE + "-x", ClientRequestToken=TOKEN
    )
    assert "Could not assume role" in fault.message


def test_a_definition_is_read_from_s3(service: Service) -> None:
    service.world("s3", "CreateBucket", Bucket="penstock-tests")
    place = {"Bucket": "penstock-tests", "ObjectKey": "p.json"}
    given = {
        "PipelineName": "Flowers",
        "RoleArn": ROLE,
        "PipelineDefinitionS3Location": place,
        "ClientRequestToken": TOKEN,
    }
    assert (
        "Unable to read the pipeline definition at s3://penstock-tests/p.json"
        in service.refused("CreatePipeline", **given).message
    )
    data = define(STOP).encode()
    row = ObjectRow(bucket="penstock-tests", key="p.json", inline=data, size_bytes=len(data), etag="e", modified=1.0)
    service.world.app.store.commit(Change(rows=[ObjectPut(row=row)]))
    service("CreatePipeline", **given)
    assert service("DescribePipeline", PipelineName="Flowers")["PipelineDefinition"] == define(STOP)


def test_an_update_with_a_definition_makes_a_version(service: Service) -> None:
    service.create()
    second = define(STOP, gate := {"Name": "G", "Type": "Condition", "Arguments": {"Conditions": []}})
    assert gate["Name"] in second
    updated = service("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=second, PipelineDescription="new")
    assert updated == {"PipelineArn": ARN, "PipelineVersionId": 2}
    assert service("UpdatePipeline", PipelineName="Flowers", PipelineDescription="newer")["PipelineVersionId"] == 2
    assert service("DescribePipeline", PipelineName="Flowers")["PipelineDefinition"] == second
    assert service("DescribePipeline", PipelineName="Flowers", PipelineVersionId=1)["PipelineDefinition"] == define(
        STOP
    )
    service("UpdatePipelineVersion", PipelineArn=ARN, PipelineVersionId=1, PipelineVersionDisplayName="first")
    listed = service("ListPipelineVersions", PipelineName="Flowers")["PipelineVersionSummaries"]
    assert [(v["PipelineVersionId"], v.get("PipelineVersionDisplayName")) for v in listed] == [(2, None), (1, "first")]
    arn = service.start(PipelineVersionId=1)
    assert service("DescribePipelineExecution", PipelineExecutionArn=arn)["PipelineVersionId"] == 1
    assert "Version 9" in service.refused("DescribePipeline", PipelineName="Flowers", PipelineVersionId=9).message


def test_pipelines_are_listed_by_prefix_and_in_order(service: Service) -> None:
    for name in ("b-one", "a-two", "b-three"):
        service.create(name)
    names = lambda **given: [p["PipelineName"] for p in service("ListPipelines", **given)["PipelineSummaries"]]  # noqa: E731
    assert names(SortBy="Name", SortOrder="Ascending") == ["a-two", "b-one", "b-three"]
    assert names(PipelineNamePrefix="b", SortBy="Name", SortOrder="Descending") == ["b-three", "b-one"]
    service.start("b-one")
    listed = service("ListPipelines", PipelineNamePrefix="b-o")["PipelineSummaries"][0]
    assert listed["LastExecutionTime"] > 0


def test_a_pipeline_is_deleted_with_its_executions_once_none_runs(service: Service) -> None:
    service.create()
    arn = service.start()
    fault = service.refused("DeletePipeline", PipelineName="Flowers", ClientRequestToken=TOKEN)
    assert (fault.code, arn in fault.message) == ("ConflictException", True)
    service.end(arn)
    assert service("DeletePipeline", PipelineName="Flowers", ClientRequestToken=TOKEN) == {"PipelineArn": ARN}
    left = [
        k
        for k in ("pipeline", "pipeline-version", "pipeline-execution", "pipeline-step")
        if service.world.app.store.count(Query(kind=f"sagemaker.{k}"))
    ]
    assert left == []
    service.create()
    assert service("ListPipelineExecutions", PipelineName="Flowers")["PipelineExecutionSummaries"] == []


# --- executions
def test_an_execution_has_an_id_a_name_and_all_parameters(service: Service) -> None:
    service.create()
    arn = service.start(
        PipelineParameters=[{"Name": "Count", "Value": "7"}, {"Name": "Flag", "Value": "True"}],
        PipelineExecutionDescription="d",
    )
    assert arn.startswith(f"{ARN}/execution/")
    word = arn.rpartition("/")[2]
    assert len(word) == 12
    assert word == word.lower()
    shown = service("DescribePipelineExecution", PipelineExecutionArn=arn)
    assert shown["PipelineExecutionDisplayName"].startswith("execution-")
    assert (shown["PipelineArn"], shown["PipelineExecutionStatus"], shown["PipelineExecutionDescription"]) == (
        ARN,
        "Executing",
        "d",
    )
    assert not any(name.startswith("_") for name in shown)
    listed = service("ListPipelineParametersForExecution", PipelineExecutionArn=arn)["PipelineParameters"]
    assert {p["Name"]: p["Value"] for p in listed} == {"Text": "a", "Count": "7", "Flag": "true"}
    assert service("DescribePipeline", PipelineName="Flowers")["LastRunTime"] == shown["CreationTime"]


@pytest.mark.parametrize(("given", "told"), [
    ([{"Name": "Nope", "Value": "1"}], "Unknown parameter 'Nope'"),
    ([{"Name": "Count", "Value": "x"}], "Unexpected type for parameter 'Count'"),
    ([{"Name": "Text", "Value": ""}], "too short"),
    ([{"Name": "Text", "Value": "a"}, {"Name": "Text", "Value": "b"}], "Duplicate parameter name 'Text'"),
])  # fmt: skip
def test_faulty_parameters_start_nothing(service: Service, given: Any, told: str) -> None:
    service.create()
    fault = service.refused(
        "StartPipelineExecution", PipelineName="Flowers", PipelineParameters=given, ClientRequestToken=TOKEN
    )
    assert (fault.code, told in fault.message) == ("ValidationException", True)
    assert service("ListPipelineExecutions", PipelineName="Flowers")["PipelineExecutionSummaries"] == []


def test_the_same_token_starts_one_execution(service: Service) -> None:
    service.create()
    assert service.start(ClientRequestToken=TOKEN) == service.start(ClientRequestToken=TOKEN)
    assert len(service("ListPipelineExecutions", PipelineName=ARN)["PipelineExecutionSummaries"]) == 1
    with pytest.raises(ServiceError):
        service.start(ClientRequestToken=TOKEN, PipelineExecutionDescription="other")


def test_an_alias_names_a_version_and_comes_over_to_another(service: Service) -> None:
    service.create(PipelineVersionAliases=["live", "first"])
    service("UpdatePipeline", PipelineName="Flowers", PipelineDefinition=define(STOP | {"Name": "Other"}))
    assert service("DescribePipeline", PipelineName="Flowers", PipelineVersionAlias="live")["PipelineDefinition"] == define(STOP)
    old = service.start(PipelineVersionAlias="live")
    assert service("DescribePipelineExecution", PipelineExecutionArn=old)["PipelineVersionId"] == 1
    service("UpdatePipelineVersion", PipelineArn=ARN, PipelineVersionId=2, PipelineVersionAliasOperations={"Add": ["live"]})
    listed = service("ListPipelineVersions", PipelineName="Flowers")["PipelineVersionSummaries"]
    assert [each.get("PipelineVersionAliases") for each in listed] == [["live"], ["first"]]
    new = service.start(PipelineVersionAlias="live")
    shown = service("DescribePipelineExecution", PipelineExecutionArn=new)
    assert (shown["PipelineVersionId"], shown["PipelineVersionAliases"]) == (2, ["live"])
    found = service("ListPipelineExecutions", PipelineName="Flowers", PipelineVersionAlias="first")
    assert [each["PipelineExecutionArn"] for each in found["PipelineExecutionSummaries"]] == [old]


def test_wrong_uses_of_aliases_are_refused(service: Service) -> None:
    service.create()
    one = {"PipelineArn": ARN, "PipelineVersionId": 1}
    fault = service.refused("DescribePipeline", PipelineName="Flowers", PipelineVersionAlias="live")
    assert (fault.code, fault.message) == ("ResourceNotFound", f"No version of pipeline '{ARN}' has the alias 'live'.")
    both = {"PipelineVersionId": 1, "PipelineVersionAlias": "live", "ClientRequestToken": TOKEN}
    assert "Only one of" in service.refused("StartPipelineExecution", PipelineName="Flowers", **both).message
    gone = {"PipelineVersionAliasOperations": {"Remove": ["live"]}}
    assert "does not have the alias 'live'" in service.refused("UpdatePipelineVersion", **one, **gone).message
    for names in ("abcde", "fghij"):
        service("UpdatePipelineVersion", **one, PipelineVersionAliasOperations={"Add": list(names)})
    eleventh = {"PipelineVersionAliasOperations": {"Add": ["k"]}}
    assert "at most 10 aliases" in service.refused("UpdatePipelineVersion", **one, **eleventh).message


def test_an_execution_can_be_renamed(service: Service) -> None:
    service.create()
    arn = service.start()
    service(
        "UpdatePipelineExecution",
        PipelineExecutionArn=arn,
        PipelineExecutionDisplayName="nightly",
        PipelineExecutionDescription="x",
    )
    shown = service("DescribePipelineExecution", PipelineExecutionArn=arn)
    assert (shown["PipelineExecutionDisplayName"], shown["PipelineExecutionDescription"]) == ("nightly", "x")


def test_executions_are_listed_in_pages_newest_first(service: Service) -> None:
    service.create()
    started = [service.start() for _ in range(5)]
    listed: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = service("ListPipelineExecutions", PipelineName="Flowers", MaxResults=2, **token)
        listed += [e["PipelineExecutionArn"] for e in page["PipelineExecutionSummaries"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert sorted(listed) == sorted(started)
    assert len(listed) == 5
    every = service(
        "ListPipelineExecutions", PipelineName="Flowers", SortBy="PipelineExecutionArn", SortOrder="Ascending"
    )
    assert [e["PipelineExecutionArn"] for e in every["PipelineExecutionSummaries"]] == sorted(started)
    assert (
        service("ListPipelineExecutions", PipelineName="Flowers", CreatedBefore=1.0)["PipelineExecutionSummaries"] == []
    )


def test_boto3_reads_what_is_answered(client: Any) -> None:
    sagemaker = client("sagemaker")
    definition = define(STOP)
    made = sagemaker.create_pipeline(PipelineName="Flowers", PipelineDefinition=definition, RoleArn=client.role)
    started = sagemaker.start_pipeline_execution(
        PipelineName="Flowers", PipelineParameters=[{"Name": "Count", "Value": "2"}]
    )
    shown = sagemaker.describe_pipeline_execution(PipelineExecutionArn=started["PipelineExecutionArn"])
    assert shown["PipelineArn"] == made["PipelineArn"]
    assert shown["CreationTime"].tzinfo is not None
    assert sagemaker.describe_pipeline(PipelineName="Flowers")["PipelineDefinition"] == definition
    assert (
        sagemaker.list_pipeline_executions(PipelineName="Flowers")["PipelineExecutionSummaries"][0]["StartTime"]
        == shown["CreationTime"]
    )
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_pipeline(PipelineName="Flowers", PipelineDefinition=definition, RoleArn=client.role)
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_pipeline(PipelineName="Nobody")
