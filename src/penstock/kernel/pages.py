"""Pages: the answer of a List operation from the members its input has, with an opaque token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Document, Query

if TYPE_CHECKING:
    from penstock.kernel.call import Call
    from penstock.kernel.resource import Resource

ORDERS = {
    "CreationTime": "created", "CreatedTime": "created", "LastModifiedTime": "updated", "ModifiedTime": "updated", "Name": "name",
    "name": "name", "Status": "status", "PipelineExecutionArn": "name",
}
DEFAULT_SIZE = 10
"""SageMaker's lists give 10 where nothing is asked."""


def seal(place: list[Any]) -> str:
    """An opaque token of a place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def unseal(token: str) -> list[Any]:
    """The place that a token stands for.

    Raises: ServiceError (ValidationException) for a token that is none of ours.
    """
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        place = None
    if not isinstance(place, list):
        raise ServiceError("ValidationException", "Invalid pagination token.")
    return place


def answer(
    call: Call, resource: Resource, output: str, *, order: str, descending: bool, parent: str | None, label: str | None,
    show: Callable[[Document], dict[str, Any]], status: str | None,
) -> dict[str, Any]:
    """One page of a resource's documents, and the token of the next."""
    given = call.params
    query = Query(
        kind=resource.kind, account=call.account, region=call.region if resource.regional else GLOBAL, parent=parent, label=label,
        status=status if status is not None else given.get("StatusEquals"),
        name_contains=given.get("NameContains"), name_prefix=given.get("NamePrefix"),
        created_after=given.get("CreationTimeAfter", given.get("CreatedAfter")),
        created_before=given.get("CreationTimeBefore", given.get("CreatedBefore")),
        updated_after=given.get("LastModifiedTimeAfter", given.get("LastModifiedAfter")),
        updated_before=given.get("LastModifiedTimeBefore", given.get("LastModifiedBefore")),
        order=ORDERS.get(given.get("SortBy", ""), order),
    )
    sort = given.get("SortOrder", given.get("OrderKey"))
    query.descending = descending if sort is None else str(sort).lower().startswith("desc")
    size = int(given.get("MaxResults", given.get("Limit", DEFAULT_SIZE)))
    query.limit = size + 1
    if token := given.get("NextToken"):
        place = unseal(token)
        query.after = (place[0], place[1])
    documents = call.app.store.page(query)
    result: dict[str, Any] = {output: [show(document) for document in documents[:size]]}
    if len(documents) > size:
        last = documents[size - 1]
        result["NextToken"] = seal([getattr(last, query.order), last.name])
    return result
