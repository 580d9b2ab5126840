"""The operations on layers and their versions."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call, slow, takes
from penstock.services.lambda_ import archives, layering
from penstock.services.lambda_.layering import read_layer
from penstock.services.lambda_.state import (
    LARGE,
    LAYER,
    LAYER_VERSION,
    REQUEST_BYTES,
    missing,
    moment_text,
    new_revision,
    refused,
)
from penstock.store.records import Document, Query


@slow
@takes(REQUEST_BYTES, LARGE)
def publish_layer_version(call: Call) -> dict[str, Any]:
    given = call.params
    name = read_layer(call, given["LayerName"])
    layer = LAYER.find(call, name) or LAYER.create(call, name, body={"_last": 0})
    number = layer.body["_last"] + 1
    LAYER.save(call, layer, _last=number)
    key = f"layers/{call.account}/{name}-{new_revision()}"
    body = {
        "Description": given.get("Description", ""),
        "Version": number,
        "CreatedDate": moment_text(call.now),
        "_code": archives.take(call, given["Content"], key, "the layer content"),
    }
    body |= {m: given[m] for m in ("CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo") if given.get(m)}
    made = LAYER_VERSION.create(call, f"{name}:{number}", body=body, parent=name, rank=float(number))
    return _shown(call, made)


def get_layer_version(call: Call) -> dict[str, Any]:
    return _shown(call, _version(call))


def get_layer_version_by_arn(call: Call) -> dict[str, Any]:
    layer, _, number = call.params["Arn"].rpartition(":")
    found = LAYER_VERSION.find(call, f"{read_layer(call, layer)}:{number}")
    if found is None:
        raise missing("The resource you requested does not exist.")
    return _shown(call, found)


def list_layer_versions(call: Call) -> dict[str, Any]:
    name = read_layer(call, call.params["LayerName"])
    return LAYER_VERSION.page(
        call, "LayerVersions", order="rank", parent=name, show=_summary, keep=lambda version: _fits(call, version)
    )


def list_layers(call: Call) -> dict[str, Any]:
    page = LAYER.page(call, "Layers", order="name", descending=False, keep=lambda layer: _latest(call, layer) is not None)
    for entry in page["Layers"]:
        latest = _latest(call, call.find(LAYER.ref(call, entry["LayerName"])))
        if latest is not None:
            entry["LatestMatchingVersion"] = _summary(latest)
    return page


@slow
def delete_layer_version(call: Call) -> None:
    """Functions that name it keep what they have of it."""
    found = LAYER_VERSION.find(call, f"{read_layer(call, call.params['LayerName'])}:{_number(call)}")
    if found is not None:
        call.delete(found)
        layering.drop_unused(call, [{"Arn": found.arn, "_code": found.body["_code"]}])


def _version(call: Call) -> Document:
    """Raises: ServiceError ResourceNotFoundException."""
    return LAYER_VERSION.get(call, f"{read_layer(call, call.params['LayerName'])}:{_number(call)}")


def _number(call: Call) -> int:
    """Raises: ServiceError InvalidParameterValueException."""
    number = int(call.params["VersionNumber"])
    if number < 1:
        raise refused("Layer Version Cannot be less than 1")
    return number


def _fits(call: Call, version: Document) -> bool:
    runtime, architecture = call.params.get("CompatibleRuntime"), call.params.get("CompatibleArchitecture")
    return (not runtime or runtime in version.body.get("CompatibleRuntimes", [])) and (
        not architecture or architecture in version.body.get("CompatibleArchitectures", [])
    )


def _latest(call: Call, layer: Document | None) -> Document | None:
    if layer is None:
        return None
    query = Query(
        kind=LAYER_VERSION.kind, account=call.account, region=call.region, parent=layer.name, order="rank", descending=True
    )
    return next((version for version in call.app.store.page(query) if _fits(call, version)), None)


def _summary(version: Document) -> dict[str, Any]:
    """What lists tell of a version: a description that is none is left out there."""
    return {name: value for name, value in LAYER_VERSION.describe(version).items() if value or name != "Description"}


def _shown(call: Call, version: Document) -> dict[str, Any]:
    code = version.body["_code"]
    content = {
        "Location": archives.address(call, code, version.region),
        "CodeSha256": code["Sha256"],
        "CodeSize": code["Size"],
    }
    arn = LAYER.arn_of(call, version.parent)
    return {**LAYER_VERSION.describe(version), "LayerArn": arn, "Content": content}
