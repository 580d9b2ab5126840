"""Functions, versions, aliases, layers and policies, as a client sees them; no function runs here."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sqlite3
import struct
import threading
import urllib.request
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from penstock import server
from penstock.containers.penstock_lambda.host import unpack
from penstock.functions.base import Gone, Outcome
from penstock.kernel import invocations
from penstock.kernel.clock import FakeClock
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_ import archives, rules
from penstock.services.lambda_.invoking.engine import HEARTBEAT_S, recover
from penstock.store.records import Change, Document, ObjectPut, Part, Query
from tests.conftest import Boto, House, World
from tests.refusals import refusal

CODE = "def handler(event, context):\n    return event\n"


def zipped(**files: str) -> bytes:
    """An archive; two underscores in a name stand for a dot."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for name, text in files.items():
            packed.writestr(name.replace("__", "."), text)
    return held.getvalue()


ZIP = zipped(app__py=CODE)


class Lambda:
    """A function's life in a world without HTTP; the engine's looks are by hand."""

    def __init__(self, world: World):
        self.world = world
        self.role = world("iam", "ListRoles")["Roles"][0]["Arn"]

    def __call__(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.world("lambda", operation, **params)

    def create(self, name: str = "f", **members: Any) -> dict[str, Any]:
        given = {
            "FunctionName": name,
            "Runtime": "python3.12",
            "Handler": "app.handler",
            "Role": self.role,
            "Code": {"ZipFile": ZIP},
        }
        return self("CreateFunction", **(given | members))

    def document(self, name: str = "f") -> Document:
        found = next(d for d in self.world.app.store.page(Query(kind="lambda.function")) if d.name == name)
        return found

    def settle(self, name: str = "f") -> None:
        """What the engine does when the runtime is there."""
        document = self.document(name)
        call = self.world.app.step_call(document, self.world.app.clock.now())
        self.world.app.modules("lambda", "engine")[0].end(call, document, "")
        self.world.app.store.commit(call.change)


@pytest.fixture
def lam(world: World) -> Lambda:
    return Lambda(world)


def test_a_function_is_shown_with_its_defaults_and_pending(lam: Lambda) -> None:
    made = lam.create(Environment={"Variables": {"A_B": "1"}})
    assert made["FunctionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert (made["State"], made["StateReasonCode"], made["Version"]) == ("Pending", "Creating", "$LATEST")
    assert (made["Timeout"], made["MemorySize"], made["CodeSize"]) == (3, 128, len(ZIP))
    assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(ZIP).digest()).decode()
    lam.settle()
    found = lam("GetFunctionConfiguration", FunctionName="f")
    assert found["State"] == "Active"
    assert "StateReason" not in found
    assert found["Environment"] == {"Variables": {"A_B": "1"}}


@pytest.mark.parametrize("name", ["f", "123456789012:function:f", "arn:aws:lambda:us-east-1:123456789012:function:f"])
def test_a_function_is_found_by_its_name_or_arn(lam: Lambda, name: str) -> None:
    lam.create()
    assert lam("GetFunctionConfiguration", FunctionName=name)["FunctionName"] == "f"


@pytest.mark.parametrize(("members", "told"), [
    ({"Runtime": "nodejs20.x"}, "The runtime nodejs20.x is not run here"),
    ({"Runtime": "python3.7"}, "The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda"),
    ({"Runtime": "PYTHON3.9"}, "Value PYTHON3.9 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["),
    ({"Timeout": 901}, "less than or equal to 900"),
    ({"MemorySize": 10241}, "less than or equal to 10240"),
    ({"Role": "arn:aws:iam::123456789012:role/nobody"}, "The role defined for the function cannot be assumed by Lambda."),
    ({"Code": {"ZipFile": b"no zip"}}, "Could not unzip uploaded file"),
    ({"Code": {}}, "Please provide a source for the function code."),
    ({"Code": {"S3Bucket": "nowhere", "S3Key": "x"}}, "S3 Error Code: NoSuchBucket"),
    ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
    ({"Environment": {"Variables": {"LONG": "x" * 5000}}}, "exceeded the 4KB limit"),
    ({"Environment": {"Variables": {"NUL": "a\0b"}}}, "contains the key 'NUL'"),
    ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:none:1"]}, "does not exist."),
    ({"Handler": None}, "Handler is mandatory"),
])  # fmt: skip
def test_what_no_function_can_be_is_refused(lam: Lambda, members: dict[str, Any], told: str) -> None:
    given = {name: value for name, value in members.items() if value is not None}
    if "Handler" in members:
        code, message = refusal(
            lambda: lam("CreateFunction", FunctionName="f", Runtime="python3.12", Role=lam.role, Code={"ZipFile": ZIP})
        )
    else:
        code, message = refusal(lambda: lam.create(**given))
    assert code == "InvalidParameterValueException"
    assert told in message


def test_an_archive_that_claims_too_much_is_refused(lam: Lambda) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("app.py", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert "Unzipped size must be smaller than" in refusal(lambda: lam.create(Code={"ZipFile": held.getvalue()}))[1]


def test_an_archive_of_too_many_members_is_refused_before_they_are_read(lam: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 20)
    many = zipped(**{f"f{number}": "" for number in range(21)})
    lie = many[:-14] + struct.pack("<HH", 1, 1) + many[-10:]  # the end record says that there is one
    monkeypatch.setattr(archives.zipfile, "ZipFile", None)
    for each in (many, lie):
        assert "Unzipped size must be smaller than" in refusal(lambda code=each: lam.create(Code={"ZipFile": code}))[1]


@pytest.mark.parametrize("comment", [b"", b"x" * 60_000])
def test_archives_with_comments_and_zip64_records_are_taken(lam: Lambda, monkeypatch: pytest.MonkeyPatch, comment: bytes) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)  # more need a record of 64 bits
    for count, name in ((1, "f"), (3, "g")):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as packed:
            for number in range(count):
                packed.writestr(f"{number}.py", CODE)
            packed.comment = comment
        assert lam.create(name, Code={"ZipFile": held.getvalue()})["CodeSize"] == len(held.getvalue())


def test_code_from_s3_that_is_too_large_is_not_read(lam: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    lam.world("s3", "CreateBucket", Bucket="large")
    lam.world("s3", "PutObject", Bucket="large", Key="k", Body=bytes(1001))
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 1000)
    told = refusal(lambda: lam.create(Code={"S3Bucket": "large", "S3Key": "k"}))[1]
    assert "Unzipped size must be smaller than" in told  # and not: could not unzip


def test_code_comes_from_s3_and_can_be_fetched_again(client: Boto) -> None:
    client("s3").create_bucket(Bucket="code-of-lambda")
    client("s3").put_object(Bucket="code-of-lambda", Key="a/code.zip", Body=ZIP)
    client("lambda").create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role=client.role, Tags={"a": "b"},
        Code={"S3Bucket": "code-of-lambda", "S3Key": "a/code.zip"},
    )  # fmt: skip
    found = client("lambda").get_function(FunctionName="f")
    assert found["Tags"] == {"a": "b"}
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(found["Code"]["Location"]) as answer:
        assert answer.read() == ZIP
    assert all("awslambda" not in bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"])


def test_no_account_can_hold_the_bucket_of_anothers_code(client: Boto, house: House) -> None:
    region = "eu-west-3"
    other, client = Boto(house.url, house.account(), region), Boto(house.url, client.keys, region)
    mine, name = f"awslambda-{region}-tasks", archives.bucket_of(region)
    other("s3").create_bucket(Bucket=mine, CreateBucketConfiguration={"LocationConstraint": region})
    given = {"FunctionName": "f", "Runtime": "python3.12", "Handler": "app.handler", "Role": client.role}
    client("lambda").create_function(**given, Code={"ZipFile": ZIP})
    assert other("s3").list_objects_v2(Bucket=mine)["KeyCount"] == 0
    location = client("lambda").get_function(FunctionName="f")["Code"]["Location"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(location) as answer:
        assert answer.read() == ZIP
    path = location.partition("?")[0].partition(f"{name}/")[2]
    s3, told = other("s3"), []
    for act in (
        lambda: s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region}),
        lambda: s3.put_object(Bucket=name, Key=path, Body=b"x"), lambda: s3.get_object(Bucket=name, Key=path),
        lambda: s3.delete_bucket(Bucket=name),
    ):  # fmt: skip
        with pytest.raises(ClientError) as refused:
            act()
        told.append(refused.value.response["Error"]["Code"])
    assert told == ["InvalidBucketName", "AccessDenied", "AccessDenied", "AccessDenied"]
    for each in (other, client):
        each.close()


@pytest.mark.parametrize("size", [0, 100_000])
def test_code_that_is_not_what_was_taken_in_is_not_run(lam: Lambda, size: int) -> None:
    layer = lam("PublishLayerVersion", LayerName="l", Content={"ZipFile": zipped(lib__py=f"# {'0' * size}")})
    lam.create(Layers=[layer["LayerVersionArn"]])
    app, body = lam.world.app, lam.document().body
    for code in (body["_code"], body["Layers"][0]["_code"]):
        row = app.store.object(code["Bucket"], code["Key"])
        assert row is not None
        assert archives.input_of(lam.world.call(), code, "us-east-1", "/code.zip").target == "/code.zip"
        for forged in ({"inline": b"stolen", "parts": []}, {"inline": None, "parts": [*row.parts, Part("0" * 64, 1)]}):
            app.store.commit(Change(rows=[ObjectPut(row=msgspec.structs.replace(row, **forged))]))
            with pytest.raises(ServiceError, match="not there any more"):
                archives.input_of(lam.world.call(), code, "us-east-1", "/code.zip")


def test_an_update_changes_the_revision_and_is_in_progress_until_the_engine_saw_it(lam: Lambda) -> None:
    before = lam.create()
    assert "currently in the following state: Pending" in refusal(lambda: lam("UpdateFunctionCode", FunctionName="f", ZipFile=ZIP))[1]
    lam.settle()
    after = lam("UpdateFunctionConfiguration", FunctionName="f", Timeout=10, Environment={"Variables": {}})
    assert (after["Timeout"], after["LastUpdateStatus"]) == (10, "InProgress")
    assert after["RevisionId"] != before["RevisionId"]
    assert refusal(lambda: lam("UpdateFunctionCode", FunctionName="f", ZipFile=ZIP))[0] == "ResourceConflictException"
    lam.settle()
    stale = {"FunctionName": "f", "Timeout": 11, "RevisionId": before["RevisionId"]}
    assert refusal(lambda: lam("UpdateFunctionConfiguration", **stale))[0] == "PreconditionFailedException"
    assert lam("UpdateFunctionCode", FunctionName="f", ZipFile=zipped(app__py="x = 1"), DryRun=True)["CodeSize"] != len(ZIP)
    assert lam("GetFunctionConfiguration", FunctionName="f")["CodeSize"] == len(ZIP)


def test_versions_are_what_the_function_was_and_are_not_made_twice(lam: Lambda) -> None:
    lam.create()
    lam.settle()
    first = lam("PublishVersion", FunctionName="f", Description="one")
    again = lam("PublishVersion", FunctionName="f", Description="one")
    assert (first["Version"], again["Version"], first["FunctionArn"][-4:]) == ("1", "1", ":f:1")
    lam("UpdateFunctionCode", FunctionName="f", ZipFile=zipped(app__py="x = 1"))
    lam.settle()
    assert lam("PublishVersion", FunctionName="f")["Version"] == "2"
    listed = lam("ListVersionsByFunction", FunctionName="f")["Versions"]
    assert [each["Version"] for each in listed] == ["$LATEST", "1", "2"]
    every = lam("ListFunctions", FunctionVersion="ALL")["Functions"]
    assert [each["FunctionArn"].rpartition(":")[2] for each in every] == ["$LATEST", "1", "2"]
    assert lam("GetFunctionConfiguration", FunctionName="f", Qualifier="1")["CodeSha256"] == first["CodeSha256"]


def test_aliases_name_versions_and_share_calls_between_two(lam: Lambda) -> None:
    lam.create()
    lam.settle()
    lam("PublishVersion", FunctionName="f", Description="one")
    lam("PublishVersion", FunctionName="f", Description="two")
    weights = {"AdditionalVersionWeights": {"2": 0.1}}
    made = lam("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1", RoutingConfig=weights)
    assert made["AliasArn"].endswith(":function:f:live")
    assert lam("GetAlias", FunctionName="f", Name="live")["RoutingConfig"] == weights
    assert lam("GetFunctionConfiguration", FunctionName="f:live")["Version"] == "1"
    assert refusal(lambda: lam("DeleteFunction", FunctionName="f", Qualifier="2"))[0] == "ResourceConflictException"
    assert "RoutingConfig" not in lam("UpdateAlias", FunctionName="f", Name="live", FunctionVersion="2", RoutingConfig={})
    lam("DeleteFunction", FunctionName="f", Qualifier="1")
    assert refusal(lambda: lam("CreateAlias", FunctionName="f", Name="x", FunctionVersion="1"))[0] == "ResourceNotFoundException"
    lam("DeleteAlias", FunctionName="f", Name="live")
    assert lam("ListAliases", FunctionName="f")["Aliases"] == []


def test_a_deleted_function_leaves_nothing(lam: Lambda) -> None:
    lam.create(Publish=True, Tags={"a": "b"})
    lam("DeleteFunction", FunctionName="f")
    assert refusal(lambda: lam("GetFunction", FunctionName="f")) == (
        "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:123456789012:function:f"
    )  # fmt: skip
    assert lam("ListFunctions", FunctionVersion="ALL")["Functions"] == []
    assert lam.create()["Version"] == "$LATEST"


def test_layers_have_versions_and_functions_keep_them(lam: Lambda) -> None:
    content = {"ZipFile": zipped(python__lib="")}
    one = lam("PublishLayerVersion", LayerName="libs", Content=content, CompatibleRuntimes=["python3.12"])
    assert (one["Version"], one["LayerArn"][-10:]) == (1, "layer:libs")
    two = lam("PublishLayerVersion", LayerName="libs", Content=content, CompatibleRuntimes=["python3.9"])
    assert [each["Version"] for each in lam("ListLayerVersions", LayerName="libs")["LayerVersions"]] == [2, 1]
    assert lam("ListLayers")["Layers"][0]["LatestMatchingVersion"]["Version"] == 2
    assert (one["Description"], "Description" in lam("ListLayerVersions", LayerName="libs")["LayerVersions"][0]) == ("", False)
    made = lam.create(Layers=[one["LayerVersionArn"]])
    assert made["Layers"][0]["Arn"] == one["LayerVersionArn"]
    assert lam.create("g", Layers=[two["LayerVersionArn"]])["Layers"]  # whatever runtimes it names
    lam("DeleteFunction", FunctionName="g")
    lam("DeleteLayerVersion", LayerName="libs", VersionNumber=1)
    assert refusal(lambda: lam("GetLayerVersion", LayerName="libs", VersionNumber=1))[0] == "ResourceNotFoundException"
    assert lam("PublishLayerVersion", LayerName="libs", Content=content)["Version"] == 3


def test_a_layers_archive_goes_with_the_last_that_uses_it(lam: Lambda) -> None:
    content = {"ZipFile": zipped(python__lib="")}
    used = lam("PublishLayerVersion", LayerName="used", Content=content)
    lam("PublishLayerVersion", LayerName="unused", Content=content)
    lam.create(Layers=[used["LayerVersionArn"]])
    lam.settle()
    lam("PublishVersion", FunctionName="f")
    keys = {name: stored_code(lam, name) for name in ("used", "unused")}
    for name in keys:
        lam("DeleteLayerVersion", LayerName=name, VersionNumber=1)
    there = lambda name: lam.world.app.store.object(archives.bucket_of("us-east-1"), keys[name]) is not None  # noqa: E731
    assert (there("used"), there("unused")) == (True, False)
    lam("UpdateFunctionConfiguration", FunctionName="f", Layers=[])
    assert there("used")  # the version has it
    lam("DeleteFunction", FunctionName="f", Qualifier="1")
    assert not there("used")


def test_a_deleted_function_takes_the_archive_of_a_deleted_layer_with_it(lam: Lambda) -> None:
    layer = lam("PublishLayerVersion", LayerName="l", Content={"ZipFile": zipped(python__lib="")})
    for name in "fg":
        lam.create(name, Layers=[layer["LayerVersionArn"]])
    key = stored_code(lam, "l")
    lam("DeleteLayerVersion", LayerName="l", VersionNumber=1)
    lam("DeleteFunction", FunctionName="f")
    assert lam.world.app.store.object(archives.bucket_of("us-east-1"), key) is not None
    lam("DeleteFunction", FunctionName="g")
    assert lam.world.app.store.object(archives.bucket_of("us-east-1"), key) is None


def stored_code(lam: Lambda, layer: str) -> str:
    """The key of a layer's archive."""
    (version,) = lam.world.app.store.page(Query(kind="lambda.layer-version", parent=layer))
    return str(version.body["_code"]["Key"])


def test_layers_of_other_accounts_and_regions_are_not_taken_for_ones_own(lam: Lambda) -> None:
    made = lam("PublishLayerVersion", LayerName="libs", Content={"ZipFile": zipped(python__lib="")})
    own = made["LayerArn"]
    assert lam("GetLayerVersion", LayerName=own, VersionNumber=1)["LayerVersionArn"] == made["LayerVersionArn"]
    assert lam("GetLayerVersionByArn", Arn=made["LayerVersionArn"])["Version"] == 1
    other, far = own.replace("123456789012", "210987654321"), own.replace("us-east-1", "eu-west-1")
    for arn, code in ((other, "AccessDeniedException"), (far, "ResourceNotFoundException")):
        for operation in ("GetLayerVersion", "DeleteLayerVersion"):
            assert refusal(lambda: lam(operation, LayerName=arn, VersionNumber=1))[0] == code  # noqa: B023
        assert refusal(lambda: lam("GetLayerVersionByArn", Arn=f"{arn}:1"))[0] == code  # noqa: B023
        assert refusal(lambda: lam("ListLayerVersions", LayerName=arn))[0] == code  # noqa: B023
    assert refusal(lambda: lam.create(Layers=[f"{other}:1"]))[0] == "AccessDeniedException"
    lam.world.region = "eu-west-1"
    assert "Layers are not in the same region" in refusal(lambda: lam.create(Layers=[made["LayerVersionArn"]]))[1]


def test_a_policy_holds_statements_by_their_ids(lam: Lambda) -> None:
    lam.create()
    given = {"FunctionName": "f", "StatementId": "s1", "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
    statement = json.loads(lam("AddPermission", **given, SourceArn="arn:aws:events:us-east-1:123456789012:rule/r")["Statement"])
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": "arn:aws:events:us-east-1:123456789012:rule/r"}}
    assert refusal(lambda: lam("AddPermission", **given))[0] == "ResourceConflictException"
    assert json.loads(lam("GetPolicy", FunctionName="f")["Policy"])["Statement"] == [statement]
    assert "s2 is not found" in refusal(lambda: lam("RemovePermission", FunctionName="f", StatementId="s2"))[1]
    lam("RemovePermission", FunctionName="f", StatementId="s1")
    assert "No policy is associated" in refusal(lambda: lam("RemovePermission", FunctionName="f", StatementId="s1"))[1]
    assert refusal(lambda: lam("GetPolicy", FunctionName="f"))[0] == "ResourceNotFoundException"


def test_reserved_concurrency_leaves_a_hundred_for_the_others(lam: Lambda) -> None:
    lam.create()
    assert lam("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=900)["ReservedConcurrentExecutions"] == 900
    told = refusal(lambda: lam("PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=901))[1]
    assert "below its minimum value of [100]" in told
    assert lam("GetFunction", FunctionName="f")["Concurrency"] == {"ReservedConcurrentExecutions": 900}


ARN = "arn:aws:lambda:us-east-1:123456789012:function"
INVALID, MISSING = "InvalidParameterValueException", "ResourceNotFoundException"
PERMISSION = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
ONLY = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify "
    "either a function name or an unqualified function ARN."
)


@pytest.mark.parametrize(("operation", "params", "told"), [
    ("PutFunctionConcurrency", {"FunctionName": "no", "ReservedConcurrentExecutions": 1},
     (MISSING, f"Function not found: {ARN}:no:$LATEST")),
    ("PutFunctionConcurrency", {"FunctionName": "f:$LATEST", "ReservedConcurrentExecutions": 1}, (INVALID, ONLY)),
    ("DeleteFunction", {"FunctionName": "no", "Qualifier": "7"}, (MISSING, f"Function not found: {ARN}:no")),
    ("UpdateAlias", {"FunctionName": "f", "Name": "no"}, (MISSING, f"Alias not found: {ARN}:f:no")),
    ("GetAlias", {"FunctionName": "f", "Name": "no"}, (MISSING, f"Cannot find alias arn: {ARN}:f:no")),
    ("AddPermission", {"FunctionName": "f:$LATEST", **PERMISSION},
     (INVALID, "We currently do not support adding policies for $LATEST.")),
    ("AddPermission", {"FunctionName": "f:no", **PERMISSION}, (MISSING, f"Cannot find alias arn: {ARN}:f:no")),
    ("AddPermission", {"FunctionName": "f:42", **PERMISSION}, (MISSING, f"Function not found: {ARN}:f:42")),
    ("RemovePermission", {"FunctionName": "no", "StatementId": "s"}, (MISSING, f"No policy found for: {ARN}:no")),
    ("GetPolicy", {"FunctionName": "no"}, (MISSING, "The resource you requested does not exist.")),
    ("PutFunctionEventInvokeConfig", {"FunctionName": "no", "MaximumRetryAttempts": 0}, (MISSING, "The function doesn't exist.")),
    ("UpdateFunctionEventInvokeConfig", {"FunctionName": "f:no", "MaximumRetryAttempts": 0},
     (MISSING, "The function doesn't exist.")),
    ("UpdateFunctionEventInvokeConfig", {"FunctionName": "f", "MaximumRetryAttempts": 0},
     (MISSING, f"The function {ARN}:f:$LATEST doesn't have an EventInvokeConfig")),
    ("GetFunctionEventInvokeConfig", {"FunctionName": "no"},
     (MISSING, f"The function {ARN}:no:$LATEST doesn't have an EventInvokeConfig")),
    ("PutFunctionEventInvokeConfig", {"FunctionName": "f", "DestinationConfig": {"OnSuccess": {"Destination": f"{ARN}:no"}}},
     (INVALID, f"The destination ARN {ARN}:no is invalid.")),
    ("PutFunctionEventInvokeConfig",
     {"FunctionName": "f", "DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:iam:us-east-1:123456789012:function:f"}}},
     (INVALID, "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination="
      "arn:aws:iam:us-east-1:123456789012:function:f), onFailure=null) is invalid.")),
    ("GetLayerVersion", {"LayerName": "l", "VersionNumber": 0}, (INVALID, "Layer Version Cannot be less than 1")),
    ("DeleteLayerVersion", {"LayerName": "l", "VersionNumber": 0}, (INVALID, "Layer Version Cannot be less than 1")),
    ("TagResource", {"Resource": f"{ARN}:f", "Tags": {}}, (INVALID, "An error occurred and the request cannot be processed.")),
    ("TagResource", {"Resource": f"{ARN}:f", "Tags": {str(number): "" for number in range(51)}},
     (INVALID, "Number of tags exceeds resource tag limit.")),
    ("CreateEventSourceMapping", {"FunctionName": "no"}, (INVALID, "Unrecognized event source.")),
    ("UpdateFunctionConfiguration", {"FunctionName": "f", "Layers": [f"arn:aws:lambda:us-east-1:123456789012:layer:l{n}:1"
     for n in range(6)]}, (INVALID, "Cannot reference more than 5 layers.")),
])  # fmt: skip
def test_what_is_not_there_is_told_in_the_words_of_aws(
    lam: Lambda, operation: str, params: dict[str, Any], told: tuple[str, str]
) -> None:
    lam.create()
    lam.settle()
    assert refusal(lambda: lam(operation, **params)) == told


def test_a_version_that_is_not_there_is_deleted_all_the_same(lam: Lambda) -> None:
    lam.create()
    lam("DeleteFunction", FunctionName="f", Qualifier="7")
    assert [each["FunctionName"] for each in lam("ListFunctions")["Functions"]] == ["f"]


def test_a_layer_is_named_once(lam: Lambda) -> None:
    one, two = [
        lam("PublishLayerVersion", LayerName="l", Content={"ZipFile": zipped(python__lib="")})["LayerVersionArn"] for _ in "12"
    ]
    assert refusal(lambda: lam.create(Layers=[one, two]))[1] == (
        "Two different versions of the same layer are not allowed to be referenced in the same function. "
        f"{one} and {two} are versions of the same layer."
    )


def test_event_invoke_configurations_are_kept_by_qualifier(lam: Lambda) -> None:
    lam.create()
    lam.world("sqs", "CreateQueue", QueueName="q")
    made = lam("PutFunctionEventInvokeConfig", FunctionName="f", MaximumRetryAttempts=1)
    assert (made["MaximumRetryAttempts"], made["FunctionArn"][-9:]) == (1, "f:$LATEST")
    queue = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:q"}}
    changed = lam("UpdateFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=queue)
    assert (changed["MaximumRetryAttempts"], changed["DestinationConfig"]["OnFailure"]) == (1, queue["OnFailure"])
    wrong = {"OnSuccess": {"Destination": "arn:aws:ec2:us-east-1:123456789012:q"}}
    assert "is invalid" in refusal(lambda: lam("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=wrong))[1]
    lam.create("f-2")
    near = {"OnSuccess": {"Destination": "arn:aws:lambda:us-east-1:123456789012:function:f-2"}}
    kept = lam("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=near)
    assert kept["DestinationConfig"]["OnSuccess"] == near["OnSuccess"]
    own = {"OnSuccess": {"Destination": "arn:aws:lambda:us-east-1:123456789012:function:f:1"}}
    assert "for itself" in refusal(lambda: lam("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=own))[1]
    lam("DeleteFunctionEventInvokeConfig", FunctionName="f")
    assert refusal(lambda: lam("GetFunctionEventInvokeConfig", FunctionName="f"))[0] == "ResourceNotFoundException"


def test_a_payload_that_is_no_json_or_too_large_is_refused(client: Boto) -> None:
    client("lambda").create_function(
        FunctionName="f", Runtime="python3.12", Handler="app.handler", Role=client.role, Code={"ZipFile": ZIP}
    )
    for payload, kind, code in (
        (b"{", "RequestResponse", "InvalidRequestContentException"),
        ('{"a": 1}'.encode("utf-16"), "Event", "InvalidRequestContentException"),
        (b'"\xed\xa0\x80"', "Event", "InvalidRequestContentException"),
        (b"[" * 65_537, "RequestResponse", "InvalidRequestContentException"),
        (b"[" * 6_291_457, "RequestResponse", "RequestTooLargeException"),
        (b'"' + bytes(262_144).replace(b"\0", b"x") + b'"', "Event", "RequestTooLargeException"),
    ):
        with pytest.raises(ClientError) as told:
            client("lambda").invoke(FunctionName="f", InvocationType=kind, Payload=payload)
        assert told.value.response["Error"]["Code"] == code
    assert client("lambda").invoke(FunctionName="f", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(client("lambda").exceptions.ResourceNotFoundException):
        client("lambda").invoke(FunctionName="f:nothing")


def test_a_large_payload_is_read_beside_the_event_loop(house: House, client: Boto, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    real = rules.check_payload
    monkeypatch.setattr(rules, "check_payload", lambda *given: (threads.append(threading.current_thread().name), real(*given))[1])
    client("lambda").create_function(
        FunctionName="f", Runtime="python3.12", Handler="app.handler", Role=client.role, Code={"ZipFile": ZIP}
    )
    for size in (10, 70_000):
        client("lambda").invoke(FunctionName="f", InvocationType="Event", Payload=b'"' + b"x" * size + b'"')
    assert len(set(threads)) == 2


# --- invocations that outlive a crash


class Dispatched:
    """Stands for the dispatcher: what was begun, and what becomes of it."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.known: dict[str, Any] = {}
        self.gone: list[Gone] = []

    def begin(self, order: Any) -> None:
        self.begun.append(order)
        self.known[order.key] = True

    def look(self, key: str) -> Any:
        return self.known.get(key, False)

    def forget(self, key: str) -> None:
        del self.known[key]

    async def drop(self, gone: Gone) -> None:
        self.gone.append(gone)


@pytest.fixture
def dispatched(lam: Lambda) -> Dispatched:
    made = lam.world.app.functions = Dispatched()
    lam.create()
    lam.settle()
    return made


def invocation_of(lam: Lambda) -> Document | None:
    return next(iter(lam.world.app.store.page(Query(kind=invocations.KIND))), None)


def end(lam: Lambda, dispatched: Dispatched, **outcome: Any) -> float | None:
    """The order that was begun last comes to an outcome, and the engine looks."""
    dispatched.known[dispatched.begun[-1].key] = Outcome(**outcome)
    document = invocation_of(lam)
    assert document is not None
    return lam.world.step(document)


def test_an_event_is_tried_three_times_after_errors_with_growing_pauses(lam: Lambda, dispatched: Dispatched) -> None:
    assert lam("Invoke", FunctionName="f", InvocationType="Event", Payload=b'{"a": 1}')["StatusCode"] == 202
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    pauses = [end(lam, dispatched, payload=b'{"errorMessage": "no"}', error="Unhandled")]
    for _ in range(2):
        again = invocation_of(lam)
        assert again is not None
        again.body["due"] = 0.0
        call = lam.world.call()
        call.put(again)
        lam.world.app.store.commit(call.change)
        lam.world.step(again)
        pauses.append(end(lam, dispatched, payload=b'{"errorMessage": "no"}', error="Unhandled"))
    assert pauses[:2] == [60.0, 120.0]
    assert [order.payload for order in dispatched.begun] == [b'{"a": 1}'] * 3
    assert {order.request_id for order in dispatched.begun} == {document.name}
    assert invocation_of(lam) is None


def test_who_waits_for_an_invocation_is_told_and_ends_it(lam: Lambda, dispatched: Dispatched) -> None:
    call = lam.world.call(service="lambda")
    name = invocations.name_of("a step")
    tell = lam.document().ref
    invocations.begin(call, "f", "{}", name=name, tell=tell)
    lam.world.app.store.commit(call.change)
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    assert invocations.outcome(lam.world.call(), name) is None
    end(lam, dispatched, payload=b'{"x": 1}')
    found = invocations.outcome(lam.world.call(), name)
    assert found is not None
    assert (found.payload, found.succeeded) == ('{"x": 1}', True)
    call = lam.world.call()
    invocations.end(call, name)
    lam.world.app.store.commit(call.change)
    assert invocation_of(lam) is None


def test_an_attempt_that_was_lost_with_its_worker_is_given_again(lam: Lambda, dispatched: Dispatched) -> None:
    lam("Invoke", FunctionName="f", InvocationType="Event")
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    assert end(lam, dispatched, refused="ServiceException", lost=True) == 0.0
    lam.world.step(document)
    assert len({order.key for order in dispatched.begun}) == 2
    end(lam, dispatched, payload=b"null")
    assert invocation_of(lam) is None


def test_an_invocation_of_no_function_ends_with_the_code_of_invoke(lam: Lambda, dispatched: Dispatched) -> None:
    call = lam.world.call(service="lambda")
    invocations.begin(call, "nobody", "{}", name="n1", tell=lam.document().ref)
    lam.world.app.store.commit(call.change)
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    found = invocations.outcome(lam.world.call(), "n1")
    assert found is not None
    assert found.error == "ResourceNotFoundException"
    assert "Function not found" in found.payload


def test_a_destination_is_told_what_became_of_an_event(lam: Lambda, dispatched: Dispatched) -> None:
    lam.create("g")
    target = "arn:aws:lambda:us-east-1:123456789012:function:g"
    config = {"OnSuccess": {"Destination": target}}
    lam("PutFunctionEventInvokeConfig", FunctionName="f", DestinationConfig=config)
    lam("Invoke", FunctionName="f", InvocationType="Event", Payload=b'{"a": 1}')
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    end(lam, dispatched, payload=b'{"done": true}')
    told = invocation_of(lam)
    assert told is not None
    assert told.body["function"] == target
    record = json.loads(told.body["payload"])
    assert (record["requestContext"]["condition"], record["requestPayload"]) == ("Success", {"a": 1})
    assert record["responsePayload"] == {"done": True}


FAULT = b'{"errorMessage": "no"}'


def queue_of(lam: Lambda, name: str) -> str:
    lam.world("sqs", "CreateQueue", QueueName=name)
    return f"arn:aws:sqs:us-east-1:123456789012:{name}"


def received(lam: Lambda, name: str) -> list[dict[str, Any]]:
    asked = {"QueueUrl": f"/123456789012/{name}", "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}
    return list(lam.world("sqs", "ReceiveMessage", **asked).get("Messages", ()))


def fail(lam: Lambda, dispatched: Dispatched) -> None:
    """An event that the function fails, without another attempt."""
    lam("Invoke", FunctionName="f", InvocationType="Event", Payload=b'{"a": 1}')
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    end(lam, dispatched, payload=FAULT, error="Unhandled")


def test_events_begin_at_once_when_the_engine_is_killed_and_starts_again(lam: Lambda, dispatched: Dispatched) -> None:
    app = lam.world.app
    app.clock = FakeClock()
    for number in range(3):
        lam("Invoke", FunctionName="f", InvocationType="Event", Payload=str(number).encode())
    assert lam.world.engine(invocations.KIND).drain() == 3
    app.functions = after = Dispatched()
    after.known[dispatched.begun[0].key] = True  # its worker goes on
    assert lam.world.engine(invocations.KIND).drain() == 0  # they wait for their next looks
    assert recover(app) == 3
    lam.world.engine(invocations.KIND).drain()
    assert sorted(order.payload for order in after.begun) == [b"1", b"2"]


def test_nothing_is_left_of_an_invocation_whose_outcome_was_fetched(lam: Lambda, dispatched: Dispatched) -> None:
    app = lam.world.app
    app.clock = clock = FakeClock()
    call = lam.world.call()
    invocations.begin(call, "f", "{}", name="n1", tell=lam.document().ref)
    app.store.commit(call.change)
    engine = lam.world.engine(invocations.KIND)
    engine.drain()
    dispatched.known[dispatched.begun[0].key] = Outcome(payload=b"1")
    clock.move(HEARTBEAT_S)
    engine.drain()
    call = lam.world.call()
    assert invocations.outcome(call, "n1") is not None
    invocations.end(call, "n1")
    app.store.commit(call.change)
    engine.drain()
    with closing(sqlite3.connect(server.database(app.settings))) as read:
        assert read.execute("SELECT count(*) FROM work WHERE kind = ?", [invocations.KIND]).fetchone() == (0,)


def test_a_queue_is_told_what_became_of_an_event_and_gets_the_dead_letter(lam: Lambda, dispatched: Dispatched) -> None:
    told, dead = queue_of(lam, "told"), queue_of(lam, "dead")
    lam("UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={"TargetArn": dead})
    config = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": told}}}
    lam("PutFunctionEventInvokeConfig", FunctionName="f", **config)
    fail(lam, dispatched)
    (record,) = (json.loads(message["Body"]) for message in received(lam, "told"))
    assert (record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"]) == ("RetriesExhausted", 1)
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"] == {"errorMessage": "no"}
    (letter,) = received(lam, "dead")
    assert letter["Body"] == '{"a": 1}'
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {"RequestID": record["requestContext"]["requestId"], "ErrorCode": "200", "ErrorMessage": "no"}
    assert invocation_of(lam) is None


def test_an_event_that_is_too_old_is_not_tried_and_its_destination_is_told(lam: Lambda, dispatched: Dispatched) -> None:
    lam.world.app.clock = clock = FakeClock()
    config = {"MaximumEventAgeInSeconds": 60, "DestinationConfig": {"OnFailure": {"Destination": queue_of(lam, "told")}}}
    lam("PutFunctionEventInvokeConfig", FunctionName="f", **config)
    lam("Invoke", FunctionName="f", InvocationType="Event")
    document = invocation_of(lam)
    assert document is not None
    lam.world.step(document)
    end(lam, dispatched, refused="TooManyRequestsException")
    clock.move(61)
    lam.world.step(document)
    assert len(dispatched.begun) == 1
    (message,) = received(lam, "told")
    assert json.loads(message["Body"])["requestContext"]["condition"] == "EventAgeExceeded"
    assert "responsePayload" not in json.loads(message["Body"])
    assert invocation_of(lam) is None


@pytest.mark.parametrize("setting", ["Terminate", "Allow"])
def test_functions_that_are_each_others_destinations_are_ended_as_a_loop(lam: Lambda, dispatched: Dispatched, setting: str) -> None:
    lam.create("g", DeadLetterConfig={"TargetArn": queue_of(lam, "dead")})
    lam.settle("g")
    for name, other in ("fg", "gf"):
        to = {"OnSuccess": {"Destination": f"arn:aws:lambda:us-east-1:123456789012:function:{other}"}}
        lam("PutFunctionEventInvokeConfig", FunctionName=name, DestinationConfig=to)
        assert lam("GetFunctionRecursionConfig", FunctionName=name) == {"RecursiveLoop": "Terminate"}
        assert lam("PutFunctionRecursionConfig", FunctionName=name, RecursiveLoop=setting) == {"RecursiveLoop": setting}
    lam("Invoke", FunctionName="g", InvocationType="Event")
    while (document := invocation_of(lam)) is not None and len(dispatched.begun) < 40:
        lam.world.step(document)
        end(lam, dispatched, payload=b"{}")
    names = [order.function for order in dispatched.begun]
    if setting == "Allow":
        assert len(names) == 40
    else:
        assert (names.count("g"), names.count("f"), invocation_of(lam), len(received(lam, "dead"))) == (16, 16, None, 1)


@pytest.mark.parametrize("target", [
    "arn:aws:sqs:us-east-1:210987654321:q", "arn:aws:sqs:eu-west-1:123456789012:q", "arn:aws:sqs:us-east-1:123456789012:none",
    "arn:aws:s3:us-east-1:123456789012:accesspoint/q", "arn:aws:lambda:us-east-1:210987654321:function:g",
])  # fmt: skip
def test_what_a_function_cannot_reach_is_no_destination_of_it(lam: Lambda, target: str) -> None:
    lam.create()
    lam.settle()
    queue_of(lam, "q")
    config = {"OnSuccess": {"Destination": target}}
    given = {"FunctionName": "f", "DestinationConfig": config}
    assert refusal(lambda: lam("PutFunctionEventInvokeConfig", **given))[0] == "InvalidParameterValueException"
    letters = {"FunctionName": "f", "DeadLetterConfig": {"TargetArn": target}}
    assert refusal(lambda: lam("UpdateFunctionConfiguration", **letters))[0] == "InvalidParameterValueException"


def test_what_a_zip_names_outside_of_its_folder_stays_inside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as packed:
        for name in ("../above", "/absolute", "a/../../twice", "fine"):
            packed.writestr(name, "x")
    unpack(str(tmp_path / "code.zip"), str(tmp_path / "task"))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "code.zip", "task/above", "task/absolute", "task/a/twice", "task/fine"
    }  # fmt: skip
