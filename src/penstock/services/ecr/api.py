"""Operations on repositories: making, finding and deleting them, their settings, policies and tags."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Any

from penstock.kernel import jsontext, tags
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Held
from penstock.services.ecr.state import REMOVAL, REPOSITORY, images_of, no_repository, refused, repository_of
from penstock.store.records import Document, TagsGone, TagsPut

TOKEN_S = 12 * 3600.0
LIFECYCLE, EVALUATED, POLICY = "_lifecycle", "_evaluated", "_policy"


def create_repository(call: Call) -> dict[str, Any]:
    """Makes a repository.

    Raises: ServiceError RepositoryAlreadyExistsException.
    Differs: images that were built here under its address before are in it at once.
    """
    given = call.params
    name, registry = given["repositoryName"], given.get("registryId", call.account)
    if registry != call.account:
        raise refused(f"registryId' failed to satisfy constraint: '{registry} is not the caller's registry'")
    if REPOSITORY.find(call, name):
        sentence = f"The repository with name '{name}' already exists in the registry with id '{call.account}'"
        raise ServiceError("RepositoryAlreadyExistsException", sentence)
    made = REPOSITORY.create(call, body=_complete(call, given))
    if given_tags := given.get("tags"):
        parsed = tags.parse(given_tags, "InvalidTagParameterException")
        tags.check_count(parsed, "TooManyTagsException")
        call.row(TagsPut(arn=made.arn, tags=parsed))
    return {"repository": REPOSITORY.describe(made)}


def _complete(call: Call, given: dict[str, Any]) -> dict[str, Any]:
    """A repository as it is shown: with what ECR fills in."""
    name = given["repositoryName"]
    return {
        "imageTagMutability": "MUTABLE",
        "imageScanningConfiguration": {"scanOnPush": False},
        "encryptionConfiguration": {"encryptionType": "AES256"},
        **given,
        "registryId": call.account,
        "repositoryUri": f"{call.account}.dkr.ecr.{call.region}.amazonaws.com/{name}",
    }


def describe_repositories(call: Call) -> dict[str, Any]:
    """The repositories named, or all of them by name."""
    registry = call.params.get("registryId", call.account)
    if names := call.params.get("repositoryNames"):
        found = [(name, REPOSITORY.find(call, name) if registry == call.account else None) for name in names]
        if absent := [name for name, document in found if document is None]:
            raise no_repository(absent[0], registry)
        return {"repositories": [REPOSITORY.describe(document) for _, document in found if document]}
    if registry != call.account:
        return {"repositories": []}
    return REPOSITORY.page(call, "repositories", order="name", descending=False)


@slow
def delete_repository(call: Call) -> dict[str, Any]:
    """Deletes a repository, and with `force` the images in it.

    Raises: ServiceError RepositoryNotEmptyException.
    """
    repository = repository_of(call)
    if held := images_of(call, repository.name):
        if not call.params.get("force"):
            raise ServiceError(
                "RepositoryNotEmptyException",
                f"The repository with name '{repository.name}' in registry with id '{call.account}' cannot be deleted "
                "because it still contains images",
            )
        _have_removed(call, held)
    REPOSITORY.delete(call, repository.name)
    return {"repository": REPOSITORY.describe(repository)}


def _have_removed(call: Call, held: Sequence[Held]) -> None:
    """Has the engine take images from this machine, once the repository's end is durable."""
    removal = Document(
        kind=REMOVAL,
        account=call.account,
        region=call.region,
        name=secrets.token_hex(16),
        created=call.now,
        body={"Images": [[one.uri, one.digest] for one in held]},
    )
    call.put(removal)
    call.wake(removal.ref)


def get_authorization_token(call: Call) -> dict[str, Any]:
    """A password for the registry's address.

    Differs: nothing takes it: no registry listens at the address, images are made by `penstock image build`.
    """
    token = base64.b64encode(f"AWS:{secrets.token_urlsafe(48)}".encode()).decode()
    registries = call.params.get("registryIds") or [call.account]
    return {
        "authorizationData": [
            {
                "authorizationToken": token,
                "expiresAt": call.now + TOKEN_S,
                "proxyEndpoint": f"https://{registry}.dkr.ecr.{call.region}.amazonaws.com",
            }
            for registry in registries
        ]
    }


def describe_registry(call: Call) -> dict[str, Any]:
    """Differs: a registry replicates nothing."""
    return {"registryId": call.account, "replicationConfiguration": {"rules": []}}


# --- settings
def put_image_scanning_configuration(call: Call) -> dict[str, Any]:
    """Differs: kept and shown; nothing is scanned."""
    return _set(call, "imageScanningConfiguration", call.params["imageScanningConfiguration"])


def put_image_tag_mutability(call: Call) -> dict[str, Any]:
    """Differs: kept and shown; `penstock image build` moves a tag also where it is IMMUTABLE."""
    filters = call.params.get("imageTagMutabilityExclusionFilters")
    answer = _set(call, "imageTagMutability", call.params["imageTagMutability"])
    if filters is None:
        return answer
    return answer | _set(call, "imageTagMutabilityExclusionFilters", filters)


def _set(call: Call, member: str, value: Any) -> dict[str, Any]:
    repository = REPOSITORY.save(call, repository_of(call), **{member: value})
    return {"registryId": call.account, "repositoryName": repository.name, member: value}


# --- policies
def put_lifecycle_policy(call: Call) -> dict[str, Any]:
    """Keeps a lifecycle policy.

    Raises: ServiceError InvalidParameterException for one that is no JSON with rules.
    Differs: kept and shown; images stay until they are deleted.
    """
    text = call.params["lifecyclePolicyText"]
    rules = _read(text, "LifecyclePolicyText").get("rules")
    if not isinstance(rules, list) or not rules or not all(_is_rule(rule) for rule in rules):
        raise refused("LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure'")
    repository = REPOSITORY.save(call, repository_of(call), **{LIFECYCLE: text, EVALUATED: call.now})
    return _shown(call, repository, "lifecyclePolicyText", text)


def _is_rule(rule: Any) -> bool:
    return isinstance(rule, dict) and {"rulePriority", "selection", "action"} <= set(rule)


def get_lifecycle_policy(call: Call) -> dict[str, Any]:
    return _lifecycle(call, repository_of(call))


def delete_lifecycle_policy(call: Call) -> dict[str, Any]:
    repository = repository_of(call)
    shown = _lifecycle(call, repository)
    REPOSITORY.save(call, repository, **{LIFECYCLE: None, EVALUATED: None})
    return shown


def _lifecycle(call: Call, repository: Document) -> dict[str, Any]:
    if LIFECYCLE not in repository.body:
        raise ServiceError(
            "LifecyclePolicyNotFoundException",
            f"Lifecycle policy does not exist for the repository with name '{repository.name}' in the registry with id "
            f"'{call.account}'",
        )
    shown = _shown(call, repository, "lifecyclePolicyText", repository.body[LIFECYCLE])
    evaluated = repository.body.get(EVALUATED)
    return shown if evaluated is None else {**shown, "lastEvaluatedAt": evaluated}


def set_repository_policy(call: Call) -> dict[str, Any]:
    """Keeps a policy.

    Raises: ServiceError InvalidParameterException for one without statements that say whom they let do what.
    Differs: kept and shown; a repository is its own account's.
    """
    text = call.params["policyText"]
    statements = _read(text, "PolicyText").get("Statement")
    listed = statements if isinstance(statements, list) else [statements]
    if not all(_is_statement(one) for one in listed):
        raise refused("PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'")
    repository = REPOSITORY.save(call, repository_of(call), **{POLICY: text})
    return _shown(call, repository, "policyText", text)


def _is_statement(given: Any) -> bool:
    pairs = (("Action", "NotAction"), ("Principal", "NotPrincipal"))
    return (
        isinstance(given, dict)
        and given.get("Effect") in ("Allow", "Deny")
        and all(any(member in given for member in pair) for pair in pairs)
    )


def get_repository_policy(call: Call) -> dict[str, Any]:
    repository = repository_of(call)
    return _shown(call, repository, "policyText", _policy(call, repository))


def delete_repository_policy(call: Call) -> dict[str, Any]:
    repository = repository_of(call)
    text = _policy(call, repository)
    REPOSITORY.save(call, repository, **{POLICY: None})
    return _shown(call, repository, "policyText", text)


def _policy(call: Call, repository: Document) -> str:
    if POLICY not in repository.body:
        raise ServiceError(
            "RepositoryPolicyNotFoundException",
            f"Repository policy does not exist for the repository with name '{repository.name}' in the registry with "
            f"id '{call.account}'",
        )
    return str(repository.body[POLICY])


def _shown(call: Call, repository: Document, member: str, text: str) -> dict[str, Any]:
    return {"registryId": call.account, "repositoryName": repository.name, member: text}


def _read(text: str, member: str) -> dict[str, Any]:
    try:
        read = jsontext.read(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise refused(f"{member}' failed to satisfy constraint: 'Invalid JSON syntax'")
    return read


# --- tags
def tag_resource(call: Call) -> None:
    """Sets tags of a repository."""
    arn = _tagged(call)
    given = tags.parse(call.params["tags"], "InvalidTagParameterException")
    tags.check_count({**call.app.store.tags(arn), **given}, "TooManyTagsException")
    call.row(TagsPut(arn=arn, tags=given))


def untag_resource(call: Call) -> None:
    call.row(TagsGone(arn=_tagged(call), keys=list(call.params["tagKeys"])))


def list_tags_for_resource(call: Call) -> dict[str, Any]:
    return {"tags": tags.listed(call.app.store.tags(_tagged(call)))}


def _tagged(call: Call) -> str:
    arn = str(call.params["resourceArn"])
    if not arn.startswith("arn:"):
        raise refused("resourceArn' failed to satisfy constraint: 'Invalid ARN'")
    if REPOSITORY.find(call, arn) is None:
        raise no_repository(arn.rpartition(":repository/")[2], call.account)
    return arn
