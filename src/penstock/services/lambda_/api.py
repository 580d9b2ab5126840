"""The operations on functions, their code, configuration, versions, concurrency and tags."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from penstock.functions.base import Gone
from penstock.kernel.call import Call, slow, takes
from penstock.kernel.errors import ServiceError
from penstock.runs.base import ImageError, Images
from penstock.services.lambda_ import archives, layering, rules
from penstock.services.lambda_.invoking import destinations
from penstock.services.lambda_.state import (
    ALIAS,
    FUNCTION,
    LARGE,
    LATEST,
    REQUEST_BYTES,
    VERSION,
    ZIPPED_BYTES,
    Named,
    check_revision,
    children,
    configuration_of,
    conflict,
    function_of,
    moment_text,
    named,
    new_revision,
    read_name,
    refused,
    shown,
    version_ref,
)
from penstock.store.records import Document, TagsGone, TagsPut

CODE = ("ZipFile", "S3Bucket", "S3Key", "S3ObjectVersion")
CONCURRENCY, UNRESERVED = 1000, 100
"""What an account has, and what of it no function can reserve."""
TAGS = 50


# --- functions
@slow
@takes(REQUEST_BYTES, LARGE)
def create_function(call: Call) -> dict[str, Any]:
    """Makes a function; the engine readies its runtime.

    Raises: ServiceError; with 501 for functions from container images.
    Differs: symbolic links in an archive become files. There is one architecture, the machine's.
    """
    given = call.params
    name = read_name(call, given["FunctionName"]).name
    if call.find(FUNCTION.ref(call, name)) is not None:
        raise FUNCTION.error(FUNCTION.exists, call, name)
    if given.get("PackageType") == "Image" or given["Code"].get("ImageUri"):
        raise ServiceError("NotImplemented", "Penstock does not run functions from container images (yet).", 501)
    for member in ("Runtime", "Handler"):
        if not given.get(member):
            raise refused(f"{member} is mandatory for functions created with deployment packages.")
    rules.check(given)
    _check_role(call, given["Role"])
    _check_runtime(call, given["Runtime"])
    _check_letters(call, given)
    layers = layering.resolve(call, given.get("Layers") or [])
    body: dict[str, Any] = {**copy.deepcopy(dict(rules.DEFAULTS)), "Version": LATEST, "RevisionId": new_revision()}
    rules.set_members(body, given, name)
    body |= {"Architectures": given.get("Architectures") or body["Architectures"], "LastUpdateStatus": "Successful"}
    body |= {"StateReason": "The function is being created.", "StateReasonCode": "Creating", "_published": 0}
    if layers:
        body["Layers"] = layers
    code = archives.take(call, given["Code"], _key(call, name), "the function code")
    _set_code(body, code)
    body["LastModified"] = moment_text(call.now)
    tags = given.get("Tags")
    call.params = {member: value for member, value in given.items() if member != "Tags"}
    function = FUNCTION.create(call, name, body=body, status="Pending")
    if tags:
        call.row(TagsPut(arn=function.arn, tags=tags))
    call.wake(function.ref)
    return shown(_publish(call, function, "") if given.get("Publish") else function)


def get_function(call: Call) -> dict[str, Any]:
    """Differs: the address of the code is signed by Penstock's own key, and is good for ten minutes."""
    function, found = configuration_of(call, named(call))
    answer: dict[str, Any] = {"Configuration": _described(found, call)}
    answer["Code"] = {"RepositoryType": "S3", "Location": archives.address(call, found.body["_code"], found.region)}
    if tags := call.app.store.tags(function.arn):
        answer["Tags"] = tags
    if "_reserved" in function.body:
        answer["Concurrency"] = {"ReservedConcurrentExecutions": function.body["_reserved"]}
    return answer


def get_function_configuration(call: Call) -> dict[str, Any]:
    return _described(configuration_of(call, named(call))[1], call)


def list_functions(call: Call) -> dict[str, Any]:
    """Differs: with FunctionVersion ALL a page holds the versions of its functions, so it may be longer than MaxItems."""
    page = FUNCTION.page(call, "Functions", order="name", descending=False, show=lambda function: _listed(function, call))
    if call.params.get("FunctionVersion") == "ALL":
        each = [call.find(FUNCTION.ref(call, entry["FunctionName"])) for entry in page["Functions"]]
        page["Functions"] = [
            listed for function in each if function for listed in _all_listed(call, function)
        ]
    return page


@slow
@takes(REQUEST_BYTES, LARGE)
def update_function_code(call: Call) -> dict[str, Any]:
    """Raises: ServiceError ResourceConflictException while another update is in progress."""
    given = call.params
    function = function_of(call)
    check_revision(call, function)
    if given.get("ImageUri"):
        raise ServiceError("NotImplemented", "Penstock does not run functions from container images (yet).", 501)
    _check_ready(function)
    code = archives.take(call, given, _key(call, function.name), "the function code")
    if given.get("DryRun"):
        call.change.rows.clear()
        tried: dict[str, Any] = {**function.body, "CodeSha256": code["Sha256"], "CodeSize": code["Size"]}
        return {name: value for name, value in tried.items() if name[0] != "_"}
    if not _used(call, function):
        archives.drop(call, function.body["_code"])
    _set_code(function.body, code)
    if given.get("Architectures"):
        function.body["Architectures"] = given["Architectures"]
    _begin_update(call, function)
    return shown(_publish(call, function, "") if given.get("Publish") else function)


@slow
def update_function_configuration(call: Call) -> dict[str, Any]:
    """Raises: ServiceError ResourceConflictException while another update is in progress."""
    given = call.params
    function = function_of(call)
    check_revision(call, function)
    rules.check(given)
    if given.get("Role"):
        _check_role(call, given["Role"])
    if given.get("Runtime"):
        _check_runtime(call, given["Runtime"])
    _check_ready(function)
    _check_letters(call, given)
    if given.get("Layers") is not None:
        layers = layering.resolve(call, given["Layers"])
        layering.drop_unused(call, function.body.pop("Layers", None) or (), but=[function])
        function.body |= {"Layers": layers} if layers else {}
    if given.get("Environment") is not None and not given["Environment"].get("Variables"):
        function.body.pop("Environment", None)
    rules.set_members(function.body, given, function.name)
    _begin_update(call, function)
    return shown(function)


@slow
def delete_function(call: Call) -> None:
    """Deletes a function with all that belongs to it, or one of its versions. What waits for it asynchronously is dropped.

    Raises: ServiceError ResourceConflictException for a version that an alias names.
    """
    wanted = named(call)
    function = function_of(call, Named(wanted.name))
    if wanted.qualifier == LATEST:
        raise refused("$LATEST version cannot be deleted without deleting the function.")
    aliases = children(call, ALIAS, function)
    if wanted.qualifier:
        version = call.find(version_ref(function, wanted.qualifier))
        if version is None:
            return
        users = [alias.arn for alias in aliases if wanted.qualifier in _targets(alias)]
        if users:
            raise conflict(f"Version was not able to be deleted: it is used by the aliases {users}")
        call.delete(version)
        layering.drop_unused(call, version.body.get("Layers") or (), but=[version])
        if not _used(call, version, but=version.name):
            archives.drop(call, version.body["_code"])
        _end_workers(call, function, wanted.qualifier)
        return
    for each in [*aliases, *(versions := _versions(call, function)), function]:
        call.delete(each)
    for code in {each.body["_code"]["Key"]: each.body["_code"] for each in [*versions, function]}.values():
        archives.drop(call, code)
    held = [*versions, function]
    layering.drop_unused(call, [layer for each in held for layer in each.body.get("Layers") or ()], but=held)
    call.row(TagsGone(arn=function.arn))
    _end_workers(call, function)


def _end_workers(call: Call, function: Document, version: str = "") -> None:
    """Has workers of what was deleted end, once it is."""
    if call.app.functions is None:
        return

    async def tell() -> dict[str, Any]:
        await call.app.functions.drop(Gone(function.account, function.region, function.name, version))
        return {}

    call.later = tell


# --- versions
def publish_version(call: Call) -> dict[str, Any]:
    function = function_of(call)
    check_revision(call, function)
    if function.status == "Pending" or function.body["LastUpdateStatus"] == "InProgress":
        _check_ready(function)
    wanted = call.params.get("CodeSha256")
    if wanted and wanted != function.body["CodeSha256"]:
        raise refused(
            f"CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({function.body['CodeSha256']}). Please "
            "try again with the CodeSHA256 in $LATEST."
        )
    return shown(_publish(call, function, call.params.get("Description", "")))


def list_versions_by_function(call: Call) -> dict[str, Any]:
    function = function_of(call)
    page = VERSION.page(
        call, "Versions", order="rank", descending=False, parent=function.name, show=lambda each: _listed(each, call)
    )
    if not call.params.get("Marker"):
        page["Versions"].insert(0, _listed(function, call, f"{function.arn}:{LATEST}"))
    return page


# --- concurrency
def put_function_concurrency(call: Call) -> dict[str, Any]:
    given = named(call)
    if given.qualifier:
        raise refused(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please "
            "specify either a function name or an unqualified function ARN."
        )
    function = function_of(call, Named(given.name, LATEST))
    wanted = int(call.params["ReservedConcurrentExecutions"])
    others = sum(
        int(each.body.get("_reserved", 0)) for each in FUNCTION.all(call, limit=100_000) if each.name != function.name
    )
    if wanted > CONCURRENCY - UNRESERVED - others:
        raise refused(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
            f"minimum value of [{UNRESERVED}]."
        )
    FUNCTION.save(call, function, _reserved=wanted)
    return {"ReservedConcurrentExecutions": wanted}


def get_function_concurrency(call: Call) -> dict[str, Any]:
    function = function_of(call)
    return {"ReservedConcurrentExecutions": function.body["_reserved"]} if "_reserved" in function.body else {}


def delete_function_concurrency(call: Call) -> None:
    FUNCTION.save(call, function_of(call), _reserved=None)


def get_account_settings(call: Call) -> dict[str, Any]:
    found = FUNCTION.all(call, limit=100_000)
    reserved = sum(int(each.body.get("_reserved", 0)) for each in found)
    return {
        "AccountLimit": {
            "TotalCodeSize": 80_530_636_800,
            "CodeSizeUnzipped": archives.UNPACKED_BYTES,
            "CodeSizeZipped": ZIPPED_BYTES,
            "ConcurrentExecutions": CONCURRENCY,
            "UnreservedConcurrentExecutions": CONCURRENCY - reserved,
        },
        "AccountUsage": {"TotalCodeSize": sum(each.body["CodeSize"] for each in found), "FunctionCount": len(found)},
    }


# --- tags
def tag_resource(call: Call) -> None:
    """Raises: ServiceError InvalidParameterValueException."""
    arn, tags = _tagged(call), call.params["Tags"]
    if not tags:
        raise refused("An error occurred and the request cannot be processed.")
    if len(call.app.store.tags(arn) | tags) > TAGS:
        raise refused("Number of tags exceeds resource tag limit.")
    call.row(TagsPut(arn=arn, tags=tags))


def untag_resource(call: Call) -> None:
    call.row(TagsGone(arn=_tagged(call), keys=call.params["TagKeys"]))


def list_tags(call: Call) -> dict[str, Any]:
    return {"Tags": call.app.store.tags(_tagged(call))}


def _tagged(call: Call) -> str:
    """Raises: ServiceError ResourceNotFoundException."""
    arn = str(call.params["Resource"])
    wanted = read_name(call, arn)
    if wanted.qualifier:
        raise refused("Tags on function aliases and versions are not supported. Please specify a function ARN.")
    return function_of(call, wanted).arn


# --- what they share
def _check_role(call: Call, arn: str) -> None:
    """Raises: ServiceError for a role that is not there, or another account's.

    Differs: the role's trust policy need not name lambda.amazonaws.com.
    """
    if arn.split(":")[4] != call.account:
        raise ServiceError("AccessDeniedException", "Cross-account pass role is not allowed.", 403)
    found = call.app.store.by_arn(arn)
    if found is None or found.kind != "iam.role":
        raise refused("The role defined for the function cannot be assumed by Lambda.")


def _check_letters(call: Call, given: Mapping[str, Any]) -> None:
    """Raises: ServiceError for a dead-letter queue that is not there, or another account's or region's."""
    target = (given.get("DeadLetterConfig") or {}).get("TargetArn")
    if target and (target.split(":")[2] not in ("sqs", "sns") or not destinations.reachable(call, target)):
        raise refused(f"The provided dead-letter queue {target} is none that the function can reach.")


def _all_listed(call: Call, function: Document) -> list[dict[str, Any]]:
    """A function as it is now, then its versions."""
    latest = _listed(function, call, f"{function.arn}:{LATEST}")
    return [latest, *(_listed(version, call) for version in _versions(call, function))]


def _check_runtime(call: Call, runtime: str) -> None:
    """Raises: ServiceError where the machine has no interpreter of the runtime's version, and can have none."""
    images: Images | None = call.app.images
    if images is None:
        return
    try:
        lacking = images.lacks(rules.image_of(runtime))
    except ImageError as fault:
        raise refused(f"The runtime {runtime} cannot be had on this machine: {fault}") from None
    if lacking:
        raise refused(f"The runtime {runtime} cannot be had on this machine: {lacking}")


def _check_ready(function: Document) -> None:
    """Raises: ServiceError ResourceConflictException."""
    if function.status == "Pending":
        raise conflict(
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        )
    if function.body["LastUpdateStatus"] == "InProgress":
        raise conflict(
            f"The operation cannot be performed at this time. An update is in progress for resource: {function.arn}"
        )


def _begin_update(call: Call, function: Document) -> None:
    body = function.body
    body |= {"LastModified": moment_text(call.now), "RevisionId": new_revision(), "LastUpdateStatus": "InProgress"}
    body |= {"LastUpdateStatusReason": "The function is being created.", "LastUpdateStatusReasonCode": "Creating"}
    FUNCTION.save(call, function)
    call.wake(function.ref)


def _key(call: Call, name: str) -> str:
    return f"snapshots/{call.account}/{name}-{new_revision()}"


def _set_code(body: dict[str, Any], code: dict[str, Any]) -> None:
    body |= {"CodeSha256": code["Sha256"], "CodeSize": code["Size"], "_code": code}


def _versions(call: Call, function: Document) -> list[Document]:
    return sorted(children(call, VERSION, function), key=lambda version: version.rank)


def _used(call: Call, holder: Document, but: str = "") -> bool:
    """Whether a version (or the function) has the same archive."""
    key = holder.body["_code"]["Key"]
    near = holder if holder.kind == FUNCTION.kind else call.find(FUNCTION.ref(call, holder.parent))
    others = [] if near is None else [*children(call, VERSION, near), near]
    return any(each.body["_code"]["Key"] == key for each in others if each.name not in (but, holder.name))


def _publish(call: Call, function: Document, description: str) -> Document:
    """A version of what the function is now; the last one where nothing changed since."""
    last = call.find(version_ref(function, str(function.body["_published"])))
    description = description or function.body["Description"]
    if last is not None and last.body["_stamp"] == _stamp_of(function) and last.body["Description"] == description:
        return last
    number = function.body["_published"] + 1
    FUNCTION.save(call, function, _published=number, RevisionId=new_revision())
    body = {name: value for name, value in copy.deepcopy(function.body).items() if not name.startswith(("_published", "_res"))}
    body |= {"Version": str(number), "Description": description, "RevisionId": new_revision(), "_stamp": _stamp_of(function)}
    body |= {"State": "Active", "LastUpdateStatus": "Successful"}
    for member in ("StateReason", "StateReasonCode", "LastUpdateStatusReason", "LastUpdateStatusReasonCode", "_policies"):
        body.pop(member, None)
    call.params = {**call.params, "Tags": None}
    made = VERSION.create(
        call, f"{function.name}:{number}", body=body, status="Active", parent=function.name, rank=float(number)
    )
    made.body["FunctionName"] = function.name
    return made


def _stamp_of(function: Document) -> dict[str, Any]:
    """What a version is the same by."""
    told = (*rules.SETTABLE, "Layers", "VpcConfig", "CodeSha256", "Architectures", "LoggingConfig")
    return {name: function.body.get(name) for name in told}


def _targets(alias: Document) -> list[str]:
    weights = (alias.body.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    return [alias.body["FunctionVersion"], *weights]


def _described(document: Document, call: Call) -> dict[str, Any]:
    """A configuration as it is shown: under the qualifier it was asked for by."""
    wanted = named(call)
    described = shown(document)
    if wanted.qualifier:
        described["FunctionArn"] = wanted.arn(call)
    return described


def _listed(document: Document, call: Call, arn: str = "") -> dict[str, Any]:
    """In lists neither states nor reasons are shown."""
    hidden = ("State", "StateReason", "StateReasonCode")
    described = {
        name: value
        for name, value in shown(document).items()
        if name not in hidden and not name.startswith("LastUpdateStatus")
    }
    return described | ({"FunctionArn": arn} if arn else {})
