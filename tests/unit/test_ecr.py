"""Repositories and their images, by boto3."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.runs.images import LocalImages
from penstock.runs.images.built import Built
from penstock.services.ecr.state import REMOVAL
from penstock.store.records import Query, Stale
from tests.refusals import code_of

POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})
LIFECYCLE = json.dumps(
    {
        "rules": [
            {
                "rulePriority": 1,
                "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3},
                "action": {"type": "expire"},
            }
        ]
    }
)


@pytest.fixture
def ecr(client: Any) -> Any:
    return client("ecr")


@pytest.fixture
def images(house: Any, client: Any, tmp_path: Path) -> Iterator[LocalImages]:
    """Two tags of one image, and a tag of another, in the account's repository `own`."""
    made = LocalImages(tmp_path)
    for tag, keys in (("1", ["a" * 64]), ("2", ["b" * 64]), ("latest", ["b" * 64])):
        uri = f"{client.account}.dkr.ecr.us-east-1.amazonaws.com/own:{tag}"
        made.shelf.keep(Built(uri, {}, "python", "", "python:3.11", keys, sizes=[7], size_bytes=9, made=5.0))
    house.app.images = made
    yield made
    house.app.images = None


def test_a_repository_is_described_as_ecr_describes_it(client: Any, ecr: Any) -> None:
    made = ecr.create_repository(
        repositoryName="team/own", tags=[{"Key": "k", "Value": "v"}], imageScanningConfiguration={"scanOnPush": True}
    )["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:us-east-1:{client.account}:repository/team/own"
    assert made["repositoryUri"] == f"{client.account}.dkr.ecr.us-east-1.amazonaws.com/team/own"
    assert (made["registryId"], made["imageTagMutability"]) == (client.account, "MUTABLE")
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert ecr.describe_repositories(repositoryNames=["team/own"])["repositories"] == [made]
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [{"Key": "k", "Value": "v"}]
    assert code_of(ecr.create_repository, repositoryName="team/own") == "RepositoryAlreadyExistsException"


def test_a_repository_that_is_not_there_is_not_found(client: Any, ecr: Any) -> None:
    for name in (
        "describe_images",
        "list_images",
        "delete_repository",
        "get_lifecycle_policy",
        "get_repository_policy",
    ):
        assert code_of(getattr(ecr, name), repositoryName="none") == "RepositoryNotFoundException"
    assert code_of(ecr.describe_repositories, repositoryNames=["none"]) == "RepositoryNotFoundException"
    ecr.create_repository(repositoryName="mine")
    elsewhere = code_of(ecr.describe_repositories, registryId="999999999999", repositoryNames=["mine"])
    assert elsewhere == "RepositoryNotFoundException"


def test_repositories_are_listed_by_name_in_pages(ecr: Any) -> None:
    for name in ("b", "a", "c"):
        ecr.create_repository(repositoryName=f"repo-{name}")
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2})
    found = [[one["repositoryName"] for one in page["repositories"]] for page in pages]
    assert found == [["repo-a", "repo-b"], ["repo-c"]]


def test_policies_are_kept_shown_and_deleted(ecr: Any) -> None:
    ecr.create_repository(repositoryName="own")
    assert code_of(ecr.get_lifecycle_policy, repositoryName="own") == "LifecyclePolicyNotFoundException"
    assert (
        code_of(ecr.put_lifecycle_policy, repositoryName="own", lifecyclePolicyText="{" * 100)
        == "InvalidParameterException"
    )
    deep = "[" * 10_000  # the model's longest
    assert code_of(ecr.put_lifecycle_policy, repositoryName="own", lifecyclePolicyText=deep) == "InvalidParameterException"
    assert code_of(ecr.set_repository_policy, repositoryName="own", policyText=deep) == "InvalidParameterException"
    ecr.put_lifecycle_policy(repositoryName="own", lifecyclePolicyText=LIFECYCLE)
    kept = ecr.get_lifecycle_policy(repositoryName="own")
    assert kept["lifecyclePolicyText"] == LIFECYCLE
    gone = ecr.delete_lifecycle_policy(repositoryName="own")
    assert (gone["lifecyclePolicyText"], gone["lastEvaluatedAt"]) == (LIFECYCLE, kept["lastEvaluatedAt"])
    assert code_of(ecr.delete_lifecycle_policy, repositoryName="own") == "LifecyclePolicyNotFoundException"
    assert code_of(ecr.get_repository_policy, repositoryName="own") == "RepositoryPolicyNotFoundException"
    vague = json.dumps({"Statement": [{"Effect": "Allow", "Action": "ecr:*"}]})
    assert code_of(ecr.set_repository_policy, repositoryName="own", policyText=vague) == "InvalidParameterException"
    assert code_of(ecr.list_tags_for_resource, resourceArn="own") == "InvalidParameterException"
    ecr.set_repository_policy(repositoryName="own", policyText=POLICY)
    assert ecr.get_repository_policy(repositoryName="own")["policyText"] == POLICY
    assert ecr.delete_repository_policy(repositoryName="own")["policyText"] == POLICY
    assert "lifecyclePolicyText" not in ecr.describe_repositories()["repositories"][0]


def test_settings_and_tags_are_kept(ecr: Any) -> None:
    arn = ecr.create_repository(repositoryName="own")["repository"]["repositoryArn"]
    ecr.put_image_tag_mutability(repositoryName="own", imageTagMutability="IMMUTABLE")
    ecr.put_image_scanning_configuration(repositoryName="own", imageScanningConfiguration={"scanOnPush": True})
    shown = ecr.describe_repositories()["repositories"][0]
    assert (shown["imageTagMutability"], shown["imageScanningConfiguration"]) == ("IMMUTABLE", {"scanOnPush": True})
    ecr.tag_resource(resourceArn=arn, tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    ecr.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecr.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "b", "Value": "2"}]


def test_a_token_is_for_the_registry_of_the_account(client: Any, ecr: Any) -> None:
    [data] = ecr.get_authorization_token()["authorizationData"]
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")
    assert data["proxyEndpoint"] == f"https://{client.account}.dkr.ecr.us-east-1.amazonaws.com"


def test_images_that_were_built_here_are_in_their_repository(images: LocalImages, client: Any, ecr: Any) -> None:
    ecr.create_repository(repositoryName="own")
    listed = ecr.list_images(repositoryName="own")["imageIds"]
    assert sorted(one["imageTag"] for one in listed) == ["1", "2", "latest"]
    shown = {tuple(one["imageTags"]): one for one in ecr.describe_images(repositoryName="own")["imageDetails"]}
    assert set(shown) == {("1",), ("2", "latest")}
    assert shown["1",]["imageSizeInBytes"] == 9
    [one] = ecr.describe_images(repositoryName="own", imageIds=[{"imageTag": "1"}])["imageDetails"]
    assert one["imageDigest"] == shown["1",]["imageDigest"]
    assert code_of(ecr.describe_images, repositoryName="own", imageIds=[{"imageTag": "9"}]) == "ImageNotFoundException"
    ecr.create_repository(repositoryName="other")
    assert ecr.list_images(repositoryName="other")["imageIds"] == []


def test_a_manifest_is_told_by_tag(images: LocalImages, ecr: Any) -> None:
    ecr.create_repository(repositoryName="own")
    answer = ecr.batch_get_image(repositoryName="own", imageIds=[{"imageTag": "1"}, {"imageTag": "9"}])
    [image] = answer["images"]
    assert json.loads(image["imageManifest"])["layers"][0]["digest"] == f"sha256:{'a' * 64}"
    assert answer["failures"][0]["failureCode"] == "ImageNotFound"


def test_a_deleted_image_is_known_no_more(images: LocalImages, client: Any, ecr: Any) -> None:
    ecr.create_repository(repositoryName="own")
    answer = ecr.batch_delete_image(repositoryName="own", imageIds=[{"imageTag": "1"}, {"imageTag": "9"}])
    assert [one["imageTag"] for one in answer["imageIds"]] == ["1"]
    assert [one["failureCode"] for one in answer["failures"]] == ["ImageNotFound"]
    assert images.shelf.find(f"{client.account}.dkr.ecr.us-east-1.amazonaws.com/own:1") is None
    assert code_of(ecr.delete_repository, repositoryName="own") == "RepositoryNotEmptyException"


def test_a_repositorys_images_go_after_it_is_deleted_but_for_those_built_anew(
    world: Any, images: LocalImages, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "account", client.account)
    monkeypatch.setattr(world.app, "images", images)
    world("ecr", "CreateRepository", repositoryName="own")
    lost = world.call()
    lost.other("ecr", "DeleteRepository", repositoryName="own", force=True)
    world("ecr", "PutImageTagMutability", repositoryName="own", imageTagMutability="IMMUTABLE")
    with pytest.raises(Stale):
        world.app.store.commit(lost.change)
    assert len(images.held()) == 3, "a deletion that was not written took images"

    world("ecr", "DeleteRepository", repositoryName="own", force=True)
    anew = f"{client.account}.dkr.ecr.us-east-1.amazonaws.com/own:1"
    images.shelf.keep(Built(anew, {}, "python", "", "python:3.11", ["c" * 64], sizes=[7], size_bytes=9, made=6.0))
    query = Query(kind=REMOVAL, account=client.account, region="us-east-1")
    [removal] = world.app.store.page(query)
    world.step(removal)
    assert [one.uri for one in images.held()] == [anew]
    assert world.app.store.page(query) == []
