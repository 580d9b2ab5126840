"""STS and IAM, by boto3."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from penstock.kernel.auth import make_key
from penstock.kernel.call import Caller
from penstock.services.iam.rules import check_policy, check_trust
from penstock.services.sts.rules import trusts
from penstock.store.records import Change

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def refused(operation: Any, **params: Any) -> tuple[str, str, int]:
    """Code, sentence and status of the error that an operation ends in."""
    with pytest.raises(ClientError) as fault:
        operation(**params)
    answer = fault.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def session_of(client: Any, credentials: dict[str, Any], service: str) -> Any:
    return boto3.client(
        service, endpoint_url=client.url, region_name="us-east-1", aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"], aws_session_token=credentials.get("SessionToken"),
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )  # fmt: skip


def make_role(client: Any, name: str, trust: dict[str, Any] = TRUST, **more: Any) -> dict[str, Any]:
    role: dict[str, Any] = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust), **more)[
        "Role"
    ]
    return role


# --- sts
def test_caller_identity_is_the_assumed_role_of_the_account(client: Any) -> None:
    identity = client("sts").get_caller_identity()
    assert identity["Account"] == client.account
    assert identity["Arn"] == f"arn:aws:sts::{client.account}:assumed-role/SageMakerExecutionRole/penstock"
    role = client("iam").get_role(RoleName="SageMakerExecutionRole")["Role"]
    assert identity["UserId"] == f"{role['RoleId']}:penstock"


def test_an_assumed_role_signs_as_the_role(client: Any) -> None:
    role = make_role(client, "Trainer", Path="/teams/")
    answer = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="mine", DurationSeconds=900)
    identity = session_of(client, answer["Credentials"], "sts").get_caller_identity()
    assert (
        identity["Arn"]
        == f"arn:aws:sts::{client.account}:assumed-role/Trainer/mine"
        == answer["AssumedRoleUser"]["Arn"]
    )
    assert identity["UserId"] == f"{role['RoleId']}:mine"


def test_a_role_that_is_not_there_cannot_be_assumed(client: Any) -> None:
    arn = f"arn:aws:iam::{client.account}:role/Nobody"
    code, message, status = refused(client("sts").assume_role, RoleArn=arn, RoleSessionName="mine")
    assert (code, status) == ("AccessDenied", 403)
    assert message.endswith(f"is not authorized to perform: sts:AssumeRole on resource: {arn}")


def test_a_role_of_another_account_needs_that_accounts_trust(client: Any, house: Any) -> None:
    from conftest import Boto

    other = Boto(house.url, house.account())
    closed = make_role(other, "Closed")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": client.account}, "Action": "sts:AssumeRole"}]}
    opened = make_role(other, "Opened", trust)
    other.close()
    assert refused(client("sts").assume_role, RoleArn=closed["Arn"], RoleSessionName="mine")[0] == "AccessDenied"
    answer = client("sts").assume_role(RoleArn=opened["Arn"], RoleSessionName="mine")
    identity = session_of(client, answer["Credentials"], "sts").get_caller_identity()
    assert identity["Account"] == other.account


def test_a_session_is_not_longer_than_its_role_allows(client: Any) -> None:
    role = make_role(client, "Short")
    code, message, _ = refused(
        client("sts").assume_role, RoleArn=role["Arn"], RoleSessionName="mine", DurationSeconds=7200
    )
    assert (code, message) == (
        "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    )  # fmt: skip
    client("iam").update_role(RoleName="Short", MaxSessionDuration=7200)
    assert client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="mine", DurationSeconds=7200)["Credentials"]


def test_a_session_is_refused_when_the_key_it_was_made_of_is_gone(client: Any, house: Any) -> None:
    """As of a job that has ended while it assumed a role."""
    now = house.app.clock.now()
    caller = Caller(client.account, f"arn:aws:sts::{client.account}:assumed-role/x/y")
    root = make_key(caller, now, now + 600)
    made = make_key(caller, now, now + 600, root.name)
    house.app.store.commit(Change(puts=[root, made]))
    credentials = {"AccessKeyId": made.name, **made.body}
    assert session_of(client, credentials, "sts").get_caller_identity()["Account"] == client.account
    house.app.store.commit(Change(deletes=[house.app.store.get(root.ref)]))
    assert refused(session_of(client, credentials, "sts").get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_session_shorter_than_fifteen_minutes_is_refused(client: Any) -> None:
    sts = client("sts", parameter_validation=False)
    code, _, status = refused(sts.assume_role, RoleArn=client.role, RoleSessionName="mine", DurationSeconds=60)
    assert (code, status) == ("ValidationError", 400)


def test_a_session_token_is_the_callers_own_and_gives_no_other(client: Any) -> None:
    credentials = client("sts").get_session_token()["Credentials"]
    inner = session_of(client, credentials, "sts")
    assert inner.get_caller_identity()["Arn"] == client("sts").get_caller_identity()["Arn"]
    assert refused(inner.get_session_token)[0] == "AccessDenied"


def test_a_session_token_outlives_the_key_and_ends_with_the_user(client: Any) -> None:
    iam = client("iam")
    user = iam.create_user(UserName="passing")["User"]
    key = iam.create_access_key(UserName="passing")["AccessKey"]
    inner = session_of(client, session_of(client, key, "sts").get_session_token()["Credentials"], "sts")
    iam.delete_access_key(UserName="passing", AccessKeyId=key["AccessKeyId"])
    assert inner.get_caller_identity()["Arn"] == user["Arn"]
    iam.delete_user(UserName="passing")
    assert refused(inner.get_caller_identity)[0] == "InvalidClientTokenId"
    iam.create_user(UserName="passing")
    assert refused(inner.get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_roles_session_ends_with_the_role(client: Any) -> None:
    role = make_role(client, "Passing")
    credentials = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="mine")["Credentials"]
    inner = session_of(client, credentials, "sts")
    assert inner.get_caller_identity()["Account"] == client.account
    client("iam").delete_role(RoleName="Passing")
    assert refused(inner.get_caller_identity)[0] == "InvalidClientTokenId"
    make_role(client, "Passing")
    assert refused(inner.get_caller_identity)[0] == "InvalidClientTokenId"


def test_an_access_key_tells_its_account(client: Any) -> None:
    key = client.keys["access_key_id"]
    assert client("sts").get_access_key_info(AccessKeyId=key)["Account"] == client.account


ROLE_SESSION = "arn:aws:sts::111111111111:assumed-role/Builder/ci"


@pytest.mark.parametrize(
    ("principal", "trusted"),
    [
        ("*", True),
        ({"AWS": "111111111111"}, True),
        ({"AWS": ["arn:aws:iam::111111111111:root"]}, True),
        ({"AWS": "arn:aws:iam::111111111111:role/teams/Builder"}, True),
        ({"AWS": "arn:aws:iam::111111111111:role/Other"}, False),
        ({"AWS": "222222222222"}, False),
        ({"Service": "sagemaker.amazonaws.com"}, False),
    ],
)
def test_trust_names_accounts_roles_and_everybody(principal: Any, trusted: bool) -> None:
    policy = json.dumps({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:*"}})
    assert trusts(policy, ROLE_SESSION, "111111111111") is trusted


def test_a_denial_or_a_condition_in_a_trust_policy_does_not_allow() -> None:
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}
    deny = {"Effect": "Deny", "Principal": {"AWS": "111111111111"}, "Action": "sts:AssumeRole"}
    assert not trusts(json.dumps({"Statement": [allow, deny]}), ROLE_SESSION, "111111111111")
    conditioned = {**allow, "Condition": {"StringEquals": {"sts:ExternalId": "x"}}}
    assert not trusts(json.dumps({"Statement": [conditioned]}), ROLE_SESSION, "111111111111")


# --- roles
def test_a_role_is_shown_with_its_trust_its_path_and_its_tags(client: Any) -> None:
    made = make_role(
        client, "Shown", Path="/a/", Description="d", Tags=[{"Key": "k", "Value": "v"}], MaxSessionDuration=3700
    )
    role = client("iam").get_role(RoleName="Shown")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{client.account}:role/a/Shown"
    assert role["RoleId"].startswith("AROA")
    assert role["AssumeRolePolicyDocument"] == TRUST == made["AssumeRolePolicyDocument"]
    assert (role["Description"], role["MaxSessionDuration"]) == ("d", 3700)
    assert role["Tags"] == [{"Key": "k", "Value": "v"}]


def test_a_roles_name_is_taken_once(client: Any) -> None:
    make_role(client, "Once")
    again = refused(client("iam").create_role, RoleName="Once", AssumeRolePolicyDocument=json.dumps(TRUST))
    assert again == ("EntityAlreadyExists", "Role with name Once already exists.", 409)


def test_a_missing_role_is_no_such_entity(client: Any) -> None:
    answer = refused(client("iam").get_role, RoleName="Nobody")
    assert answer == ("NoSuchEntity", "The role with name Nobody cannot be found.", 404)


def test_a_trust_policy_that_is_no_json_is_malformed(client: Any) -> None:
    answer = refused(client("iam").create_role, RoleName="Bad", AssumeRolePolicyDocument="{not json")
    assert answer == ("MalformedPolicyDocument", "This policy contains invalid Json", 400)


def test_roles_are_listed_by_path_and_in_pages(client: Any) -> None:
    for name in ("r1", "r2", "r3"):
        make_role(client, name, Path="/paged/")
    first = client("iam").list_roles(PathPrefix="/paged/", MaxItems=2)
    assert [role["RoleName"] for role in first["Roles"]] == ["r1", "r2"]
    assert first["IsTruncated"]
    rest = client("iam").list_roles(PathPrefix="/paged/", MaxItems=2, Marker=first["Marker"])
    assert [role["RoleName"] for role in rest["Roles"]] == ["r3"]
    assert not rest["IsTruncated"]
    pages = client("iam").get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 1})
    assert [role["RoleName"] for page in pages for role in page["Roles"]] == [
        "SageMakerExecutionRole",
        "r1",
        "r2",
        "r3",
    ]


def test_inline_policies_are_kept_and_keep_their_role(client: Any) -> None:
    iam = client("iam")
    make_role(client, "Inline")
    iam.put_role_policy(RoleName="Inline", PolicyName="p", PolicyDocument=json.dumps(ALLOW))
    assert iam.get_role_policy(RoleName="Inline", PolicyName="p")["PolicyDocument"] == ALLOW
    assert iam.list_role_policies(RoleName="Inline")["PolicyNames"] == ["p"]
    assert refused(iam.delete_role, RoleName="Inline") == (
        "DeleteConflict",
        "Cannot delete entity, must delete policies first.",
        409,
    )
    iam.delete_role_policy(RoleName="Inline", PolicyName="p")
    assert refused(iam.get_role_policy, RoleName="Inline", PolicyName="p")[:2] == (
        "NoSuchEntity", "The role policy with name p cannot be found."
    )  # fmt: skip
    iam.delete_role(RoleName="Inline")
    assert refused(iam.get_role, RoleName="Inline")[0] == "NoSuchEntity"


def test_policies_of_awss_can_be_attached_and_are_counted(client: Any) -> None:
    iam = client("iam")
    make_role(client, "Attached")
    arn = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
    iam.attach_role_policy(RoleName="Attached", PolicyArn=arn)
    iam.attach_role_policy(RoleName="Attached", PolicyArn=arn)
    attached = iam.list_attached_role_policies(RoleName="Attached")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": arn}]
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert refused(iam.delete_role, RoleName="Attached")[1] == "Cannot delete entity, must detach all policies first."
    iam.detach_role_policy(RoleName="Attached", PolicyArn=arn)
    assert refused(iam.detach_role_policy, RoleName="Attached", PolicyArn=arn)[0] == "NoSuchEntity"
    iam.delete_role(RoleName="Attached")


def test_a_role_is_retagged(client: Any) -> None:
    iam = client("iam")
    make_role(client, "Tagged", Tags=[{"Key": "a", "Value": "1"}])
    iam.tag_role(RoleName="Tagged", Tags=[{"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName="Tagged", TagKeys=["a"])
    assert iam.list_role_tags(RoleName="Tagged")["Tags"] == [{"Key": "b", "Value": "2"}]
    assert refused(iam.tag_role, RoleName="Tagged", Tags=[{"Key": "aws:x", "Value": "2"}])[0] == "InvalidInput"


def test_trust_can_be_changed(client: Any) -> None:
    make_role(client, "Changed")
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
    client("iam").update_assume_role_policy(RoleName="Changed", PolicyDocument=json.dumps(trust))
    assert client("iam").get_role(RoleName="Changed")["Role"]["AssumeRolePolicyDocument"] == trust


def test_simulation_allows_what_would_happen(client: Any) -> None:
    answer = client("iam").simulate_principal_policy(
        PolicySourceArn=client.role, ActionNames=["s3:GetObject", "sagemaker:CreateModel"]
    )
    assert {result["EvalDecision"] for result in answer["EvaluationResults"]} == {"allowed"}
    assert [result["EvalActionName"] for result in answer["EvaluationResults"]] == [
        "s3:GetObject",
        "sagemaker:CreateModel",
    ]
    missing = f"arn:aws:iam::{client.account}:role/Nobody"
    assert (
        refused(client("iam").simulate_principal_policy, PolicySourceArn=missing, ActionNames=["s3:GetObject"])[0]
        == "NoSuchEntity"
    )


# --- policies
def test_a_policys_versions_count_up_and_one_is_the_default(client: Any) -> None:
    iam = client("iam")
    arn = iam.create_policy(PolicyName="Versioned", PolicyDocument=json.dumps(ALLOW))["Policy"]["Arn"]
    other = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}
    made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(other), SetAsDefault=True)[
        "PolicyVersion"
    ]
    assert (made["VersionId"], made["IsDefaultVersion"]) == ("v2", True)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v2"
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == ALLOW
    assert refused(iam.delete_policy_version, PolicyArn=arn, VersionId="v2")[0] == "DeleteConflict"
    assert refused(iam.delete_policy, PolicyArn=arn)[0] == "DeleteConflict"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy(PolicyArn=arn)
    assert refused(iam.get_policy, PolicyArn=arn)[::2] == ("NoSuchEntity", 404)


def test_a_policys_description_is_told_by_get_only_and_its_tags_always(client: Any) -> None:
    iam = client("iam")
    made = iam.create_policy(PolicyName="Told", PolicyDocument=json.dumps(ALLOW), Path="/told/", Description="d")["Policy"]
    got = iam.get_policy(PolicyArn=made["Arn"])["Policy"]
    listed = iam.list_policies(PathPrefix="/told/")["Policies"][0]
    assert (got["Description"], got["Tags"]) == ("d", [])
    assert not {"Description", "Tags"} & {*made, *listed}
    iam.create_instance_profile(InstanceProfileName="Told")
    assert iam.get_instance_profile(InstanceProfileName="Told")["InstanceProfile"]["Tags"] == []


def test_a_policy_has_at_most_five_versions(client: Any) -> None:
    iam = client("iam")
    arn = iam.create_policy(PolicyName="Many", PolicyDocument=json.dumps(ALLOW))["Policy"]["Arn"]
    for _ in range(4):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(ALLOW))
    assert refused(iam.create_policy_version, PolicyArn=arn, PolicyDocument=json.dumps(ALLOW))[::2] == (
        "LimitExceeded",
        409,
    )


def test_an_attached_policy_tells_to_whom_and_cannot_be_deleted(client: Any) -> None:
    iam = client("iam")
    arn = iam.create_policy(PolicyName="Held", PolicyDocument=json.dumps(ALLOW))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="SageMakerExecutionRole", PolicyArn=arn)
    holders = iam.list_entities_for_policy(PolicyArn=arn)
    assert [role["RoleName"] for role in holders["PolicyRoles"]] == ["SageMakerExecutionRole"]
    assert refused(iam.delete_policy, PolicyArn=arn) == (
        "DeleteConflict",
        "Cannot delete a policy attached to entities.",
        409,
    )
    local = iam.list_policies(Scope="Local", OnlyAttached=True)["Policies"]
    assert [(policy["PolicyName"], policy["AttachmentCount"]) for policy in local] == [("Held", 1)]


def test_a_policy_that_is_not_there_cannot_be_attached(client: Any) -> None:
    arn = f"arn:aws:iam::{client.account}:policy/Nothing"
    answer = refused(client("iam").attach_role_policy, RoleName="SageMakerExecutionRole", PolicyArn=arn)
    assert answer == ("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", 404)


def test_the_text_of_a_policy_that_is_not_held_is_not_made_up(client: Any) -> None:
    iam = client("iam")
    held = iam.get_policy_version(PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess", VersionId="v1")[
        "PolicyVersion"
    ]
    assert held["Document"]["Statement"][0]["Action"] == "*"
    answer = refused(iam.get_policy_version, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess", VersionId="v1")
    assert answer[2] == 501


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ({"Effect": "Allow", "Resource": "*"}, "Policy statement must contain actions."),
        ({"Effect": "Allow", "Action": "s3:*"}, "Policy statement must contain resources."),
        ({"Effect": "Perhaps", "Action": "s3:*", "Resource": "*"}, "Syntax errors in policy."),
    ],
)
def test_what_is_no_policy_is_said_to_be_none(statement: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match="MalformedPolicyDocument") as fault:
        check_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert fault.value.message == sentence  # type: ignore[attr-defined]


def test_a_trust_policy_names_no_resource() -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole", "Resource": "*"}
    with pytest.raises(Exception, match="Has prohibited field Resource"):
        check_trust(json.dumps({"Statement": statement}))


# --- users
def test_a_users_access_key_signs_until_it_is_inactive(client: Any) -> None:
    iam = client("iam")
    user = iam.create_user(UserName="ann")["User"]
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    sts = session_of(client, key, "sts")
    assert sts.get_caller_identity()["Arn"] == user["Arn"] == f"arn:aws:iam::{client.account}:user/ann"
    assert session_of(client, key, "iam").get_user()["User"]["UserName"] == "ann"
    iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refused(sts.get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_user_with_a_key_cannot_be_deleted(client: Any) -> None:
    iam = client("iam")
    iam.create_user(UserName="bob")
    key = iam.create_access_key(UserName="bob")["AccessKey"]["AccessKeyId"]
    assert refused(iam.delete_user, UserName="bob") == (
        "DeleteConflict",
        "Cannot delete entity, must delete access keys first.",
        409,
    )
    assert [one["AccessKeyId"] for one in iam.list_access_keys(UserName="bob")["AccessKeyMetadata"]] == [key]
    iam.delete_access_key(UserName="bob", AccessKeyId=key)
    iam.delete_user(UserName="bob")
    assert refused(iam.get_user, UserName="bob")[::2] == ("NoSuchEntity", 404)


def test_a_user_has_at_most_two_keys(client: Any) -> None:
    iam = client("iam")
    iam.create_user(UserName="cy")
    for _ in range(2):
        iam.create_access_key(UserName="cy")
    assert refused(iam.create_access_key, UserName="cy")[0] == "LimitExceeded"


def test_who_is_no_user_must_name_one(client: Any) -> None:
    assert refused(client("iam").get_user)[:2] == (
        "ValidationError",
        "Must specify userName when calling with non-User credentials",
    )


# --- instance profiles
def test_a_role_in_an_instance_profile_cannot_be_deleted(client: Any) -> None:
    iam = client("iam")
    make_role(client, "Machine")
    iam.create_instance_profile(InstanceProfileName="box")
    iam.add_role_to_instance_profile(InstanceProfileName="box", RoleName="Machine")
    (profile,) = iam.list_instance_profiles_for_role(RoleName="Machine")["InstanceProfiles"]
    assert profile["Arn"] == f"arn:aws:iam::{client.account}:instance-profile/box"
    assert profile["Roles"][0]["AssumeRolePolicyDocument"] == TRUST
    assert refused(iam.delete_role, RoleName="Machine")[0] == "DeleteConflict"
    assert refused(iam.delete_instance_profile, InstanceProfileName="box")[0] == "DeleteConflict"
    iam.remove_role_from_instance_profile(InstanceProfileName="box", RoleName="Machine")
    iam.delete_role(RoleName="Machine")
    iam.delete_instance_profile(InstanceProfileName="box")
    assert iam.list_instance_profiles()["InstanceProfiles"] == []
