"""IAM's nouns."""

from __future__ import annotations

from functools import partial

from penstock.kernel.errors import ServiceError
from penstock.kernel.pages import MARKERS
from penstock.kernel.resource import Resource

HIDDEN = frozenset({"Tags", "PermissionsBoundary"})

noun = partial(
    Resource, arn="Arn", regional=False, created="CreateDate", updated="", paging=MARKERS, tags_code="InvalidInput", tags_folded=True
)
"""What the nouns have in common."""

ROLE = noun(
    "iam.role",
    key="RoleName",
    path="role{name}",
    without=HIDDEN,
    missing=("NoSuchEntity", "The role with name {name} cannot be found.", 404),
    exists=("EntityAlreadyExists", "Role with name {name} already exists.", 409),
)
USER = noun(
    "iam.user",
    key="UserName",
    path="user{name}",
    without=HIDDEN,
    missing=("NoSuchEntity", "The user with name {name} cannot be found.", 404),
    exists=("EntityAlreadyExists", "User with name {name} already exists.", 409),
)
POLICY = noun(
    "iam.policy",
    key="PolicyName",
    path="policy{name}",
    updated="UpdateDate",
    without=frozenset({"Tags", "PolicyDocument"}),
    missing=("NoSuchEntity", "Policy {name} was not found.", 404),
    exists=("EntityAlreadyExists", "A policy called {name} already exists. Duplicate names are not allowed.", 409),
)
PROFILE = noun(
    "iam.instance-profile",
    key="InstanceProfileName",
    path="instance-profile{name}",
    missing=("NoSuchEntity", "Instance Profile {name} cannot be found.", 404),
    exists=("EntityAlreadyExists", "Instance Profile {name} already exists.", 409),
)


def conflict(sentence: str) -> ServiceError:
    """DeleteConflict: something still hangs on what is to be deleted."""
    return ServiceError("DeleteConflict", sentence, 409)


def nothing(sentence: str) -> ServiceError:
    """NoSuchEntity."""
    return ServiceError("NoSuchEntity", sentence, 404)
