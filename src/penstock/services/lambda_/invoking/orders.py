"""From a configuration to the order that a dispatcher carries out."""

from __future__ import annotations

from penstock.functions.base import Order
from penstock.services.lambda_.state import FUNCTION
from penstock.store.records import Document


def order_of(
    function: Document, found: Document, arn: str, payload: bytes, request_id: str, *, key: str = "", client_context: str = "",
    tail: bool = False, quiet: bool = False,
) -> Order:  # fmt: skip
    """Takes: `function`, and `found`, the version of it that is meant; `arn`, as it was invoked."""
    body = found.body
    return Order(
        request_id=request_id, account=function.account, region=function.region, function=function.name,
        version=body["Version"] if found.kind != FUNCTION.kind else "$LATEST",
        stamp=body["RevisionId"] if found.kind != FUNCTION.kind else f"{body['CodeSha256']}/{body['LastModified']}",
        arn=arn, payload=payload or b"{}", timeout_s=float(body["Timeout"]), limit=function.body.get("_reserved"),
        client_context=client_context, tail=tail, key=key, quiet=quiet,
    )  # fmt: skip
