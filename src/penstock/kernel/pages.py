"""Pages: the answer of a List operation from the members its input has, with an opaque token."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Document, Query

if TYPE_CHECKING:
    from penstock.kernel.call import Call
    from penstock.kernel.resource import Resource

ORDERS = {
    "CreationTime": "created",
    "CreatedTime": "created",
    "LastModifiedTime": "updated",
    "ModifiedTime": "updated",
    "Name": "name",
    "name": "name",
    "Status": "status",
    "PipelineExecutionArn": "name",
}


@dataclass(frozen=True, slots=True)
class Paging:
    """How a service names the members of its pages, and how many it gives where nothing is asked."""

    sizes: tuple[str, ...] = ("MaxResults", "Limit")
    following: str = "NextToken"
    """The member that a page gives, and takes, to go on."""
    asked: str = ""
    """The member that a page takes, where it has another name than what it gave."""
    more: str = ""
    """A member that says whether there are more, where the service has one."""
    default: int = 10
    """SageMaker's lists give 10."""
    code: str = "ValidationException"
    """The error of a token that is none of ours."""

    def size(self, params: dict[str, Any]) -> int:
        return int(next((params[name] for name in self.sizes if name in params), self.default))

    def place(self, params: dict[str, Any]) -> list[Any] | None:
        """Where the page that is asked for begins: after this place; None for the first."""
        token = params.get(self.asked or self.following)
        return unseal(token, self.code) if token else None

    def answer(self, output: str, shown: list[Any], following: list[Any] | None) -> dict[str, Any]:
        """A page's answer. Takes: `following`, the place of its last item when there are more."""
        result: dict[str, Any] = {output: shown}
        if self.more:
            result[self.more] = following is not None
        if following is not None:
            result[self.following] = seal(following)
        return result


TOKENS = Paging()
MARKERS = Paging(sizes=("MaxItems",), following="Marker", more="IsTruncated", default=100, code="ValidationError")
"""IAM's way."""


def seal(place: list[Any]) -> str:
    """An opaque token of a place in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def unseal(token: str, code: str = "ValidationException") -> list[Any]:
    """The place that a token stands for.

    Raises: ServiceError (ValidationException) for a token that is none of ours.
    """
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        place = None
    if not isinstance(place, list) or len(place) < 2 or not all(map(_is_place, place)):
        raise ServiceError(code, "Invalid pagination token.")
    return place


def _is_place(value: Any) -> bool:
    """Whether a list can be sorted by such a value, and a store asked for it."""
    if isinstance(value, list):
        return all(map(_is_place, value))
    return isinstance(value, str) or (isinstance(value, (int, float)) and abs(value) < 1 << 63)


def read(call: Call, query: Query, size: int, keep: Callable[[Document], bool] | None = None) -> list[Document]:
    """Up to `size` + 1 documents of the query that are kept: the last one says that there are more."""
    query.limit = size + 1 if keep is None else max(size + 1, 200)
    kept: list[Document] = []
    while True:
        documents = call.app.store.page(query)
        kept += documents if keep is None else filter(keep, documents)
        if len(kept) > size or len(documents) < query.limit:
            return kept[: size + 1]
        last = documents[-1]
        query.after = (getattr(last, query.order), last.name)


def answer(
    call: Call,
    resource: Resource,
    output: str,
    *,
    order: str,
    descending: bool,
    parent: str | None,
    label: str | None,
    show: Callable[[Document], dict[str, Any]],
    status: str | None,
    keep: Callable[[Document], bool] | None = None,
) -> dict[str, Any]:
    """One page of a resource's documents, and the token of the next."""
    given = call.params
    query = Query(
        kind=resource.kind,
        account=call.account,
        region=call.region if resource.regional else GLOBAL,
        parent=parent,
        label=label,
        status=status if status is not None else given.get("StatusEquals"),
        name_contains=given.get("NameContains"),
        name_prefix=given.get("NamePrefix"),
        created_after=given.get("CreationTimeAfter", given.get("CreatedAfter")),
        created_before=given.get("CreationTimeBefore", given.get("CreatedBefore")),
        updated_after=given.get("LastModifiedTimeAfter", given.get("LastModifiedAfter")),
        updated_before=given.get("LastModifiedTimeBefore", given.get("LastModifiedBefore")),
        order=ORDERS.get(given.get("SortBy", ""), order),
    )
    sort = given.get("SortOrder", given.get("OrderKey"))
    query.descending = descending if sort is None else str(sort).lower().startswith("desc")
    paging = resource.paging
    size = paging.size(given)
    if place := paging.place(given):
        if isinstance(place[0], list) or not isinstance(place[1], str):
            raise ServiceError(paging.code, "Invalid pagination token.")
        query.after = (place[0], place[1])
    documents = read(call, query, size, keep)
    shown, following = documents[:size], None
    if len(documents) > size:
        following = [getattr(shown[-1], query.order), shown[-1].name]
    return paging.answer(output, [show(document) for document in shown], following)


def cut(
    call: Call,
    output: str,
    items: Sequence[Any],
    key: Callable[[Any], Any],
    *,
    paging: Paging = TOKENS,
    descending: bool = False,
    show: Callable[[Any], Any] = lambda item: item,
) -> dict[str, Any]:
    """One page of a list that is no documents' (tags, attached policies, what a search found), in the order of `key`.

    Takes: `key`, a text, a number or a list of those that is unique to an item.
    """
    ordered = sorted(items, key=key, reverse=descending)
    if place := paging.place(call.params):
        try:
            ordered = [item for item in ordered if (key(item) < place[1] if descending else key(item) > place[1])]
        except TypeError:  # a token of another list
            raise ServiceError(paging.code, "Invalid pagination token.") from None
    size = paging.size(call.params)
    following = [0, key(ordered[size - 1])] if len(ordered) > size else None
    return paging.answer(output, [show(item) for item in ordered[:size]], following)
