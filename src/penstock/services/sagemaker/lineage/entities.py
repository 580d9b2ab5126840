"""Entities and associations: found, made where they are missing, and told of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.resource import Resource
from penstock.services.sagemaker.lineage.state import ARTIFACT, ASSOCIATION, FORGOTTEN, NOUNS
from penstock.services.sagemaker.people import author
from penstock.store.records import Document, Query, Ref

PAGE = 1000
"""So many associations are read at a time."""
SLICE = 100
"""So many are deleted in one change."""
SOURCES = "SageMaker"
"""What the SourceType of a job's trial component begins with; as a vertex it has the rest as its type."""


def find(call: Call, arn: str) -> Document:
    """The entity of an ARN, in this account and region.

    Raises: ServiceError (ResourceNotFound).
    """
    found = next((put for put in call.change.puts if put.arn == arn), None) or call.app.store.by_arn(arn)
    if found is None or found.kind not in NOUNS or (found.account, found.region) != (call.account, call.region):
        raise ServiceError("ResourceNotFound", f"The lineage entity '{arn}' does not exist.")
    return found


def create(call: Call, resource: Resource, name: str, given: dict[str, Any], kind: str) -> Document:
    """A new entity of a type, whose source is in what is given.

    Raises: ServiceError where its name is taken.
    """
    body = {**given, "CreatedBy": author(call), "LastModifiedBy": author(call)}
    return resource.create(call, name, body=body, parent=kind, label=given["Source"]["SourceUri"])


def artifact_name(source: dict[str, Any]) -> str:
    """The name of the one artifact of a source."""
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:32]


def artifact(call: Call, uri: str, kind: str, name: str = "", properties: dict[str, str] | None = None) -> Document:
    """The artifact of a URI, made where there is none."""
    source = {"SourceUri": uri}
    known = ARTIFACT.find(call, artifact_name(source))
    if known is not None:
        return known
    given: dict[str, Any] = {"Source": source, "ArtifactType": kind}
    given |= {"ArtifactName": name} if name else {}
    given |= {"Properties": properties} if properties else {}
    return create(call, ARTIFACT, artifact_name(source), given, kind)


def associate(call: Call, source: Document, destination: Document, kind: str | None) -> None:
    """Associates two entities; where they are associated already, nothing changes."""
    ref = _ref(source, destination)
    known = call.find(ref)
    if known is not None and known.created >= max(source.created, destination.created):
        return
    if known is not None:  # of an entity of the same ARN, which was deleted
        call.delete(known)
    for read in (source, destination):  # both must still be there when this is written
        if read.version and call.was_put(read.ref) is None:
            call.change.reads.append(read)
    body: dict[str, Any] = {"CreationTime": call.now, "CreatedBy": author(call)}
    for side, entity in (("Source", source), ("Destination", destination)):
        body |= {f"{side}Arn": entity.arn, f"{side}Type": type_of(entity), f"{side}Name": name_of(entity)}
    if kind:
        body["AssociationType"] = kind
    call.put(
        Document(
            kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, parent=source.arn, label=destination.arn,
            status=kind or "", created=call.now, body={member: value for member, value in body.items() if value},
        )
    )  # fmt: skip


def association(call: Call, source: str, destination: str) -> Document | None:
    """What associates two ARNs."""
    name = f"{source}|{destination}"
    return call.find(Ref(ASSOCIATION.kind, call.account, call.region, _digest(name)))


def associations(call: Call, source: str | None = None, destination: str | None = None) -> Iterator[Document]:
    """The associations that come from an ARN, or lead to one; all where none is named. They are read page by page."""
    query = _query(call, source, destination)
    query.order, query.limit = "name", PAGE
    while page := call.app.store.page(query):
        yield from page
        if len(page) < PAGE:
            return
        query.after = (page[-1].name, page[-1].name)


def forget(call: Call, entity: Document) -> None:
    """Deletes what associates an entity that goes; of much, the engine deletes what is more than a slice."""
    if not forget_some(call, entity.arn, call.now):
        return
    ref = Ref(FORGOTTEN, call.account, call.region, _digest(entity.arn))
    left = call.find(ref) or Document(kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, label=entity.arn)
    left.created = call.now
    call.put(left)
    call.wake(ref)


def forget_some(call: Call, arn: str, before: float) -> bool:
    """Deletes a slice of an ARN's associations from before a moment, the oldest first; whether there may be more."""
    found: dict[Ref, Document] = {}
    for query in (_query(call, arn, None), _query(call, None, arn)):
        query.limit = SLICE
        found |= {known.ref: known for known in call.app.store.page(query) if known.created <= before}
    for known in list(found.values())[:SLICE]:
        call.delete(known)
    return len(found) >= SLICE


def _query(call: Call, source: str | None, destination: str | None) -> Query:
    return Query(kind=ASSOCIATION.kind, account=call.account, region=call.region, parent=source, label=destination)


def type_of(entity: Document) -> str:
    """The type of an entity: its own, or its source's."""
    noun = NOUNS[entity.kind]
    return str(entity.body.get(f"{noun}Type") or entity.body.get("Source", {}).get("SourceType") or noun)


def name_of(entity: Document) -> str:
    """The name that an entity shows; an artifact may have none."""
    return str(entity.body.get(f"{NOUNS[entity.kind]}Name", ""))


def _ref(source: Document, destination: Document) -> Ref:
    return Ref(ASSOCIATION.kind, source.account, source.region, _digest(f"{source.arn}|{destination.arn}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
