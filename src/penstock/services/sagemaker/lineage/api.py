"""Operations on lineage: actions, artifacts, contexts, associations, and the query along them."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError, invalid
from penstock.kernel.resource import Resource
from penstock.services.sagemaker.lineage import entities, graph
from penstock.services.sagemaker.lineage.state import ACTION, ARTIFACT, ASSOCIATION, CONTEXT
from penstock.services.sagemaker.people import author
from penstock.store.records import Document

VERTICES = pages.Paging(default=1000)


# --- actions
def create_action(call: Call) -> dict[str, Any]:
    return {"ActionArn": _create(call, ACTION, call.params["ActionName"], "ActionType").arn}


def describe_action(call: Call) -> dict[str, Any]:
    return ACTION.describe(ACTION.get(call))


def list_actions(call: Call) -> dict[str, Any]:
    return _list(call, ACTION, "ActionSummaries", "ActionType")


def update_action(call: Call) -> dict[str, Any]:
    return {"ActionArn": _update(call, ACTION, ACTION.get(call), "Description", "Status").arn}


def delete_action(call: Call) -> dict[str, Any]:
    """Deletes an action, and with it what associates it."""
    return {"ActionArn": _delete(call, ACTION, ACTION.get(call)).arn}


# --- artifacts
def create_artifact(call: Call) -> dict[str, Any]:
    """Makes the artifact of a source; where the source has one, that is the answer, and nothing changes.

    Source: docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-entities.html: one artifact for a source URI.
    """
    name = entities.artifact_name(call.params["Source"])
    known = ARTIFACT.find(call, name)
    return {"ArtifactArn": (known or _create(call, ARTIFACT, name, "ArtifactType")).arn}


def describe_artifact(call: Call) -> dict[str, Any]:
    return ARTIFACT.describe(_artifact(call))


def list_artifacts(call: Call) -> dict[str, Any]:
    return _list(call, ARTIFACT, "ArtifactSummaries", "ArtifactType")


def update_artifact(call: Call) -> dict[str, Any]:
    return {"ArtifactArn": _update(call, ARTIFACT, _artifact(call), "ArtifactName").arn}


def delete_artifact(call: Call) -> dict[str, Any]:
    """Deletes an artifact, by its ARN or its source, and with it what associates it."""
    return {"ArtifactArn": _delete(call, ARTIFACT, _artifact(call)).arn}


def _artifact(call: Call) -> Document:
    """The artifact that an ARN, or a source, means."""
    given = call.params
    if "ArtifactArn" not in given and "Source" not in given:
        raise invalid("Either ArtifactArn or Source must be provided.")
    return ARTIFACT.get(call, given["ArtifactArn"] if "ArtifactArn" in given else entities.artifact_name(given["Source"]))


# --- contexts
def create_context(call: Call) -> dict[str, Any]:
    return {"ContextArn": _create(call, CONTEXT, call.params["ContextName"], "ContextType").arn}


def describe_context(call: Call) -> dict[str, Any]:
    return CONTEXT.describe(CONTEXT.get(call))


def list_contexts(call: Call) -> dict[str, Any]:
    return _list(call, CONTEXT, "ContextSummaries", "ContextType")


def update_context(call: Call) -> dict[str, Any]:
    return {"ContextArn": _update(call, CONTEXT, CONTEXT.get(call), "Description").arn}


def delete_context(call: Call) -> dict[str, Any]:
    """Deletes a context, and with it what associates it."""
    return {"ContextArn": _delete(call, CONTEXT, CONTEXT.get(call)).arn}


# --- associations
def add_association(call: Call) -> dict[str, Any]:
    """Associates two entities: artifacts, actions, contexts, trial components, experiments.

    Raises: ServiceError (ResourceNotFound) for one that is not there.
    Differs: where they are associated already, nothing changes, whatever the type.
    """
    source, destination = (entities.find(call, call.params[f"{side}Arn"]) for side in ("Source", "Destination"))
    entities.associate(call, source, destination, call.params.get("AssociationType"))
    return {"SourceArn": source.arn, "DestinationArn": destination.arn}


def delete_association(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ResourceNotFound) where the two are not associated."""
    source, destination = call.params["SourceArn"], call.params["DestinationArn"]
    known = entities.association(call, source, destination)
    if known is None:
        raise ServiceError("ResourceNotFound", f"There is no association between '{source}' and '{destination}'.")
    call.delete(known)
    return {"SourceArn": source, "DestinationArn": destination}


@slow
def list_associations(call: Call) -> dict[str, Any]:
    """Lists associations by where they come from, where they lead to, types and time; the newest first."""
    given = call.params
    source, destination, order = given.get("SourceArn"), given.get("DestinationArn"), given.get("SortBy", "CreationTime")
    wanted = [(member, given[member]) for member in ("SourceType", "DestinationType", "AssociationType") if member in given]

    def keep(known: Document) -> bool:
        return all(known.body.get(member) == value for member, value in wanted)

    if order == "CreationTime":
        return ASSOCIATION.page(
            call, "AssociationSummaries", parent=source, label=destination, keep=keep if wanted else None, show=lambda known: known.body
        )
    found = [
        known.body
        for known in entities.associations(call, source, destination)
        if keep(known) and given.get("CreatedAfter", 0.0) <= known.created <= given.get("CreatedBefore", known.created)
    ]
    return pages.cut(
        call, "AssociationSummaries", found, lambda one: [one[order], one["SourceArn"], one["DestinationArn"]],
        descending=given.get("SortOrder", "Descending") == "Descending",
    )  # fmt: skip


@slow
def query_lineage(call: Call) -> dict[str, Any]:
    """Walks from an entity along its associations.

    Raises: ServiceError (ResourceNotFound) for a start that is not there.
    Source: with IncludeEdges the starts are vertices too: the SDK's own test of its drawings counts them.
    Differs: without StartArns it is refused; a page has all vertices (1,000) unless MaxResults says otherwise.
    """
    given, starts = call.params, call.params.get("StartArns")
    if not starts:
        raise invalid("StartArns must name an entity.")
    begun = {start: entities.find(call, start) for start in starts}
    reached = graph.walk(call, starts, given.get("Direction", "Both"), given.get("MaxDepth", graph.DEPTH))
    filters = given.get("Filters", {})
    among = {**(begun if given.get("IncludeEdges") else {}), **reached.entities}
    kept = [entity for entity in among.values() if graph.fits(entity, filters)]
    answer = pages.cut(call, "Vertices", kept, lambda one: [one.created, one.arn], show=graph.vertex, paging=VERTICES)
    there = {vertex["Arn"] for vertex in answer["Vertices"]} | set(starts)
    edges = [graph.edge(edge) for edge in reached.edges.values() if {edge.parent, edge.label} <= there]
    return {**answer, "Edges": edges if given.get("IncludeEdges", True) else []}  # the SDK reads them without asking


# --- what the three have in common
def _create(call: Call, resource: Resource, name: str, kind: str) -> Document:
    return entities.create(call, resource, name, call.params, call.params[kind])


def _list(call: Call, resource: Resource, output: str, kind: str) -> dict[str, Any]:
    """The newest first; by type and by the source's URI."""
    return resource.page(call, output, parent=call.params.get(kind), label=call.params.get("SourceUri"))


def _update(call: Call, resource: Resource, document: Document, *members: str) -> Document:
    """Sets members that are given, and merges properties."""
    given = {member: call.params[member] for member in members if member in call.params}
    properties = {**document.body.get("Properties", {}), **call.params.get("Properties", {})}
    for name in call.params.get("PropertiesToRemove", []):
        properties.pop(name, None)
    return resource.save(call, document, LastModifiedBy=author(call), Properties=properties or None, **given)


def _delete(call: Call, resource: Resource, document: Document) -> Document:
    entities.forget(call, document)
    return resource.delete(call, document.name)
