"""The nouns: functions, their versions and aliases, layers; how a request names a function; the sentences of errors."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.pages import Paging
from penstock.kernel.resource import Resource
from penstock.store.records import Document, Query, Ref

LATEST = "$LATEST"
REQUEST_BYTES, ZIPPED_BYTES, LARGE = 70_167_211, 52_428_800, "RequestEntityTooLargeException"
"""What a request that carries an archive may be, and the archive in it; the error beyond."""
PAGES = Paging(
    sizes=("MaxItems",), following="NextMarker", asked="Marker", default=50, code="InvalidParameterValueException"
)  # fmt: skip
NOT_FOUND = "ResourceNotFoundException"
CONFLICT = "ResourceConflictException"

noun = partial(Resource, created="_created", updated="", paging=PAGES)
"""What the nouns have in common."""

FUNCTION = noun(
    "lambda.function",
    key="FunctionName",
    path="function:{name}",
    arn="FunctionArn",
    status="State",
    moves={"Pending": {"Active", "Failed"}, "Active": {"Pending", "Failed"}, "Failed": {"Pending", "Active"}},
    missing=(NOT_FOUND, "Function not found: {arn}", 404),
    exists=(CONFLICT, "Function already exist: {name}", 409),
)
VERSION = noun(
    "lambda.version",
    key="_name",
    path="function:{name}",
    arn="FunctionArn",
    missing=(NOT_FOUND, "Function not found: {arn}", 404),
    exists=(CONFLICT, "Function version already exist: {name}", 409),
)
ALIAS = noun(
    "lambda.alias",
    key="_name",
    path="function:{name}",
    arn="AliasArn",
    missing=(NOT_FOUND, "Cannot find alias arn: {arn}", 404),
    exists=(CONFLICT, "Alias already exists: {arn}", 409),
)
LAYER = noun(
    "lambda.layer", key="LayerName", path="layer:{name}", arn="LayerArn",
    missing=(NOT_FOUND, "Layer not found: {arn}", 404),
)  # fmt: skip
LAYER_VERSION = noun(
    "lambda.layer-version",
    key="_name",
    path="layer:{name}",
    arn="LayerVersionArn",
    missing=(NOT_FOUND, "The resource you requested does not exist.", 404),
)

FULL = re.compile(r"arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):function:(?P<rest>.+)")
PARTIAL = re.compile(r"(?:(?P<region>[a-z]{2}-[a-z-]+-\d):)?(?:(?P<account>\d{12}):)?(?:function:)?(?P<rest>.+)")
NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")


def refused(sentence: str) -> ServiceError:
    return ServiceError("InvalidParameterValueException", sentence, 400, Type="User")


def conflict(sentence: str) -> ServiceError:
    return ServiceError(CONFLICT, sentence, 409, Type="User")


def missing(sentence: str) -> ServiceError:
    return ServiceError(NOT_FOUND, sentence, 404, Type="User")


def moment_text(moment: float) -> str:
    """A moment as LastModified shows it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(moment * 1000) % 1000:03d}+0000"


def new_revision() -> str:
    return ids.request_id()


@dataclass(frozen=True, slots=True)
class Named:
    """A function as a request names it."""

    name: str
    qualifier: str = ""
    """A version, an alias, $LATEST, or nothing."""

    def arn(self, call: Call) -> str:
        bare = FUNCTION.arn_of(call, self.name)
        return f"{bare}:{self.qualifier}" if self.qualifier else bare


def read_name(call: Call, given: str, qualifier: str | None = None) -> Named:
    """A function by its name, its ARN or a part of it, with a qualifier there or beside.

    Raises: ServiceError for another account's or region's, and where two qualifiers differ.
    """
    match = FULL.fullmatch(given) or PARTIAL.fullmatch(given)
    assert match is not None
    name, _, own = match["rest"].partition(":")
    if not NAME.fullmatch(name):
        raise refused(
            f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: Member must have "
            "length less than or equal to 64"
        )
    if match["region"] and match["region"] != call.region:
        raise missing(f"Functions from '{match['region']}' are not reachable in this region ('{call.region}')")
    if match["account"] and match["account"] != call.account:
        raise ServiceError(
            "AccessDeniedException",
            f"User: {call.caller.arn} is not authorized to perform: lambda:{call.operation} on resource: {given}",
            403,
        )
    if own and qualifier and own != qualifier:
        raise refused("The derived qualifier from the function name does not match the specified qualifier.")
    return Named(name, own or qualifier or "")


def named(call: Call) -> Named:
    """The function that the call's own members name."""
    return read_name(call, call.params["FunctionName"], call.params.get("Qualifier"))


def function_of(call: Call, wanted: Named | None = None) -> Document:
    """The function itself, whatever the qualifier.

    Raises: ServiceError ResourceNotFoundException.
    """
    wanted = wanted or named(call)
    found = call.find(FUNCTION.ref(call, wanted.name))
    if found is None:
        raise missing(f"Function not found: {wanted.arn(call)}")
    return found


def version_ref(near: Document, version: str) -> Ref:
    return Ref(VERSION.kind, near.account, near.region, f"{near.name}:{version}")


def alias_ref(near: Document, alias: str) -> Ref:
    return Ref(ALIAS.kind, near.account, near.region, f"{near.name}:{alias}")


def configuration_of(call: Call, wanted: Named, chance: float = 1.0) -> tuple[Document, Document]:
    """The function, and the configuration that a qualifier means: the function's own document, or a version's.

    Takes: `chance`, below 1 where an alias may send the call to its other version.
    Raises: ServiceError ResourceNotFoundException.
    """
    function = function_of(call, wanted)
    if wanted.qualifier in ("", LATEST):
        return function, function
    version = wanted.qualifier
    if not version.isdecimal():
        alias = call.find(alias_ref(function, version))
        if alias is None:
            raise missing(f"Function not found: {wanted.arn(call)}")
        version = chosen(alias, chance)
    if version == LATEST:
        return function, function
    found = call.find(version_ref(function, version))
    if found is None:
        raise missing(f"Function not found: {wanted.arn(call)}")
    return function, found


def chosen(alias: Document, chance: float) -> str:
    """The version that an alias sends a call to, by the weights of its routing."""
    weights: dict[str, float] = (alias.body.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    for version, weight in weights.items():
        if chance < weight:
            return version
        chance -= weight
    return str(alias.body["FunctionVersion"])


def draw() -> float:
    return random.random()  # noqa: S311


def check_revision(call: Call, document: Document) -> None:
    """Raises: ServiceError PreconditionFailedException where the caller saw another revision."""
    given = call.params.get("RevisionId")
    if given is not None and given != document.body.get("RevisionId"):
        raise ServiceError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve "
            "the latest Revision Id",
            412,
            Type="User",
        )


def children(call: Call, resource: Resource, function: Document) -> list[Document]:
    """All versions or aliases of a function."""
    query = Query(kind=resource.kind, account=function.account, region=function.region, parent=function.name, limit=100_000)
    return list(call.app.store.page(query))


def shown(document: Document) -> dict[str, Any]:
    return FUNCTION.describe(document)
