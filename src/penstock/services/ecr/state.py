"""The repository's declaration, and the sentences of ECR's errors."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.pages import Paging
from penstock.kernel.resource import Resource
from penstock.runs.base import Held
from penstock.store.records import Document

PAGES = Paging(sizes=("maxResults",), following="nextToken", default=100, code="InvalidParameterException")

REPOSITORY = Resource(
    "ecr.repository",
    key="repositoryName",
    path="repository/{name}",
    arn="repositoryArn",
    created="createdAt",
    updated="",
    paging=PAGES,
    without=frozenset({"tags"}),
)

REMOVAL = "ecr.removal"
"""The images of a repository that was deleted with them: the engine takes them from this machine, then the document goes."""


def repository_of(call: Call) -> Document:
    """The repository that a call names, in the caller's registry.

    Raises: ServiceError RepositoryNotFoundException; another account's registry holds nothing for the caller.
    """
    name, registry = call.params["repositoryName"], call.params.get("registryId", call.account)
    found = REPOSITORY.find(call, name) if registry == call.account else None
    if found is None:
        raise no_repository(name, registry)
    return found


def no_repository(name: str, registry: str) -> ServiceError:
    sentence = f"The repository with name '{name}' does not exist in the registry with id '{registry}'"
    return ServiceError("RepositoryNotFoundException", sentence)


def refused(sentence: str) -> ServiceError:
    return ServiceError("InvalidParameterException", f"Invalid parameter at '{sentence}")


def images_of(call: Call, repository: str) -> list[Held]:
    """The images of a repository that this machine holds, the newest first."""
    images = call.app.images
    held: list[Held] = images.held() if images else []
    mine = [
        one
        for one in held
        if (one.account, one.region, one.repository) == (call.account, call.region, repository) and one.tag
    ]
    return sorted(mine, key=lambda one: (-one.made, one.tag))
