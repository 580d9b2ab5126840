"""The operations on aliases."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.lambda_.state import (
    ALIAS,
    LATEST,
    check_revision,
    function_of,
    missing,
    named,
    new_revision,
    refused,
    version_ref,
)
from penstock.store.records import Document


def create_alias(call: Call) -> dict[str, Any]:
    given = call.params
    function = function_of(call)
    name = given["Name"]
    if name.isdecimal():
        raise refused(f"Value '{name}' at 'name' failed to satisfy constraint: an alias must not be a number.")
    _check_versions(call, function, given["FunctionVersion"], given.get("RoutingConfig"))
    body = {
        "Name": name,
        "FunctionVersion": given["FunctionVersion"],
        "Description": given.get("Description", ""),
        "RevisionId": new_revision(),
        "_function": function.name,
    }
    if (given.get("RoutingConfig") or {}).get("AdditionalVersionWeights"):
        body["RoutingConfig"] = given["RoutingConfig"]
    return _shown(ALIAS.create(call, f"{function.name}:{name}", body=body, parent=function.name))


def get_alias(call: Call) -> dict[str, Any]:
    return _shown(_alias(call))


def list_aliases(call: Call) -> dict[str, Any]:
    function = function_of(call)
    wanted = call.params.get("FunctionVersion")
    return ALIAS.page(
        call, "Aliases", order="name", descending=False, parent=function.name, show=_shown,
        keep=(lambda alias: alias.body["FunctionVersion"] == wanted) if wanted else None,
    )  # fmt: skip


def update_alias(call: Call) -> dict[str, Any]:
    given = call.params
    name = f"{named(call).name}:{given['Name']}"
    alias = ALIAS.find(call, name)
    if alias is None:
        raise missing(f"Alias not found: {ALIAS.arn_of(call, name)}")
    check_revision(call, alias)
    version = given.get("FunctionVersion", alias.body["FunctionVersion"])
    routing = given.get("RoutingConfig", alias.body.get("RoutingConfig"))
    _check_versions(call, function_of(call), version, routing)
    if not (routing or {}).get("AdditionalVersionWeights"):
        routing = None
    description = given.get("Description", alias.body["Description"])
    return _shown(
        ALIAS.save(
            call, alias, FunctionVersion=version, RoutingConfig=routing, Description=description, RevisionId=new_revision()
        )
    )


def delete_alias(call: Call) -> None:
    function = function_of(call)
    if (alias := ALIAS.find(call, f"{function.name}:{call.params['Name']}")) is not None:
        call.delete(alias)


def _alias(call: Call) -> Document:
    return ALIAS.get(call, f"{named(call).name}:{call.params['Name']}")


def _shown(alias: Document) -> dict[str, Any]:
    return ALIAS.describe(alias)


def _check_versions(call: Call, function: Document, version: str, routing: dict[str, Any] | None) -> None:
    """Raises: ServiceError for versions that are not there, and weights that cannot be."""
    weights = (routing or {}).get("AdditionalVersionWeights") or {}
    for each in (version, *weights):
        if each != LATEST and call.find(version_ref(function, each)) is None:
            raise missing(f"Function not found: {function.arn}:{each}")
    if weights and (version == LATEST or LATEST in weights):
        raise refused("$LATEST is not supported for an alias pointing to more than 1 version")
    if len(weights) > 1:
        raise refused("Number of items in AdditionalVersionWeights cannot be greater than 1")
    if version in weights:
        raise refused(f"Invalid function version {version}. Function version {version} is already included in routing configuration.")
