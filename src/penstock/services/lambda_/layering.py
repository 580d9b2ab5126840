"""The layers that a function names, held against what there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_ import archives, rules
from penstock.services.lambda_.state import FUNCTION, LAYER_VERSION, VERSION, missing, refused
from penstock.store.records import Document, Query, Ref

LAYER_ARN = re.compile(r"arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)")


def read_layer(call: Call, given: str) -> str:
    """A layer's name, from its name or its ARN.

    Raises: ServiceError for another account's or region's.
    """
    match = LAYER_ARN.fullmatch(given)
    if match is None:
        return given
    if match["region"] != call.region:
        raise missing(f"Layers from '{match['region']}' are not reachable in this region ('{call.region}')")
    if match["account"] != call.account:
        raise ServiceError(
            "AccessDeniedException",
            f"User: {call.caller.arn} is not authorized to perform: lambda:{call.operation} on resource: {given}",
            403,
        )
    return match["name"]


def resolve(call: Call, arns: Sequence[str]) -> list[dict[str, Any]]:
    """The layers as a configuration shows them, in their order; the runtimes that they name are for lists alone.

    Raises: ServiceError for one that is not there, or is there twice.
    """
    if len(arns) > rules.LAYERS:
        raise refused(f"Cannot reference more than {rules.LAYERS} layers.")
    found: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for arn in arns:
        named, _, number = arn.rpartition(":")
        match = LAYER_ARN.fullmatch(named)
        if match and match["region"] != call.region:
            raise refused(
                "Layers are not in the same region as the function. Layers are expected to be in region "
                f"{call.region}."
            )
        layer = LAYER_VERSION.find(call, f"{read_layer(call, named)}:{number}") if match else None
        if layer is None:
            raise refused(f"Layer version {arn} does not exist.")
        if layer.parent in names:
            raise refused(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{names[layer.parent]} and {arn} are versions of the same layer."
            )
        names[layer.parent] = arn
        call.put(layer)  # who deletes it meanwhile must see that it is used
        found.append({"Arn": arn, "CodeSize": layer.body["_code"]["Size"], "_code": layer.body["_code"]})
    return found


def drop_unused(call: Call, layers: Iterable[Mapping[str, Any]], but: Sequence[Document] = ()) -> None:
    """Drops the archives of layers that are deleted and that no function and no version uses any more.

    Takes: `layers`, as configurations hold them; `but`, the functions and versions that have just ceased to use them.
    """
    gone = {layer["_code"]["Key"]: layer["_code"] for layer in layers if call.find(_ref(call, layer["Arn"])) is None}
    if not gone:
        return
    ceased = {document.ref for document in but}
    for kind in (FUNCTION.kind, VERSION.kind):
        for holder in call.app.store.page(Query(kind=kind, account=call.account, region=call.region, limit=100_000)):
            if holder.ref not in ceased:
                for layer in holder.body.get("Layers") or ():
                    gone.pop(layer["_code"]["Key"], None)
    for code in gone.values():
        archives.drop(call, code)


def _ref(call: Call, arn: str) -> Ref:
    return LAYER_VERSION.ref(call, ":".join(arn.rsplit(":", 2)[1:]))
