"""Operations on instance profiles."""

from __future__ import annotations

from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.iam import holders
from penstock.services.iam.rules import encoded
from penstock.services.iam.state import PROFILE, ROLE, conflict, nothing
from penstock.store.records import Document


def create_instance_profile(call: Call) -> dict[str, Any]:
    """Makes an instance profile. Raises: ServiceError EntityAlreadyExists."""
    name, path = call.params["InstanceProfileName"], call.params.get("Path", "/")
    body = {**call.params, "Path": path, "InstanceProfileId": "AIPA" + ids.word(17, ids.UPPER), "Roles": []}
    profile = PROFILE.create(call, body=body, arn=PROFILE.arn_of(call, path + name), label=path)
    return {"InstanceProfile": _shown(call, profile)}


def get_instance_profile(call: Call) -> dict[str, Any]:
    profile = PROFILE.get(call)
    return {"InstanceProfile": {"Tags": [], **holders.show_tagged(call, PROFILE, profile), **_shown(call, profile)}}


def list_instance_profiles(call: Call) -> dict[str, Any]:
    prefix = call.params.get("PathPrefix", "/")
    return PROFILE.page(
        call,
        "InstanceProfiles",
        order="name",
        descending=False,
        keep=lambda profile: profile.label.startswith(prefix),
        show=lambda profile: _shown(call, profile),
    )


def list_instance_profiles_for_role(call: Call) -> dict[str, Any]:
    name = ROLE.get(call).name
    return PROFILE.page(
        call,
        "InstanceProfiles",
        order="name",
        descending=False,
        keep=lambda profile: profile.parent == name,
        show=lambda profile: _shown(call, profile),
    )


def add_role_to_instance_profile(call: Call) -> None:
    """Raises: ServiceError LimitExceeded for a second role."""
    profile, role = PROFILE.get(call), ROLE.get(call, call.params["RoleName"])
    if profile.parent:
        raise ServiceError("LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1", 409)
    profile.parent = role.name
    call.put(profile)


def remove_role_from_instance_profile(call: Call) -> None:
    """Raises: ServiceError NoSuchEntity for a role that is not in the profile."""
    profile, name = PROFILE.get(call), call.params["RoleName"]
    if profile.parent != name:
        raise nothing(f"The role with name {name} cannot be found.")
    profile.parent = ""
    call.put(profile)


def delete_instance_profile(call: Call) -> None:
    """Raises: ServiceError DeleteConflict while it has a role."""
    profile = PROFILE.get(call)
    if profile.parent:
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    PROFILE.delete(call)


def tag_instance_profile(call: Call) -> None:
    holders.put_tags(call, PROFILE.get(call))


def untag_instance_profile(call: Call) -> None:
    holders.delete_tags(call, PROFILE.get(call))


def list_instance_profile_tags(call: Call) -> dict[str, Any]:
    return holders.page_tags(call, PROFILE.get(call))


def _shown(call: Call, profile: Document) -> dict[str, Any]:
    """The profile with its role as it is now; its parent is the role's name."""
    role = ROLE.find(call, profile.parent) if profile.parent else None
    roles = [ROLE.describe(role)] if role else []
    for one in roles:
        one["AssumeRolePolicyDocument"] = encoded(one["AssumeRolePolicyDocument"])
    return {**PROFILE.describe(profile), "Roles": roles}
