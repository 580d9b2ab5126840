"""QueryLineage: what is reached from an entity along its associations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.lineage import entities
from penstock.services.sagemaker.lineage.state import NOUNS
from penstock.store.records import Document

DEPTH = 10
REACHED = 10_000
"""Vertices at which a walk ends."""


@dataclass(slots=True)
class Reached:
    """What a walk found: entities by their ARNs, without those it began at, and the associations it went along."""

    entities: dict[str, Document] = field(default_factory=dict)
    edges: dict[str, Document] = field(default_factory=dict)


def walk(call: Call, starts: list[str], direction: str, depth: int) -> Reached:
    """Goes from the starts to what contributed to them (Ascendants), what came of them (Descendants), or each way (Both)."""
    found = Reached()
    if direction in ("Ascendants", "Both"):
        _walk(call, starts, True, depth, found)
    if direction in ("Descendants", "Both"):
        _walk(call, starts, False, depth, found)
    for start in starts:
        found.entities.pop(start, None)
    return found


def _walk(call: Call, starts: list[str], up: bool, depth: int, found: Reached) -> None:
    level, seen = list(starts), set(starts)
    for _ in range(depth):
        following: list[str] = []
        for arn in level:
            for edge in entities.associations(call, destination=arn) if up else entities.associations(call, source=arn):
                found.edges[edge.name] = edge
                other = edge.parent if up else edge.label
                if other not in seen and len(seen) < REACHED:
                    seen.add(other)
                    following.append(other)
        level = following
    for arn in seen:
        if (entity := call.app.store.by_arn(arn)) is not None:
            found.entities[arn] = entity


def vertex(entity: Document) -> dict[str, Any]:
    """An entity as a vertex; a job's trial component has the job's type."""
    kind = entities.type_of(entity)
    return {"Arn": entity.arn, "Type": kind.removeprefix(entities.SOURCES), "LineageType": NOUNS[entity.kind]}


def edge(association: Document) -> dict[str, Any]:
    members = ("SourceArn", "DestinationArn", "AssociationType")
    return {member: association.body[member] for member in members if member in association.body}


def fits(entity: Document, filters: dict[str, Any]) -> bool:
    """Whether an entity is what the filters want; all of them must hold."""
    shown = vertex(entity)
    properties = entity.body.get("Properties", {})
    return (
        ("Types" not in filters or shown["Type"] in filters["Types"])
        and ("LineageTypes" not in filters or shown["LineageType"] in filters["LineageTypes"])
        and entity.created <= filters.get("CreatedBefore", entity.created)
        and entity.created >= filters.get("CreatedAfter", entity.created)
        and entity.updated <= filters.get("ModifiedBefore", entity.updated)
        and entity.updated >= filters.get("ModifiedAfter", entity.updated)
        and all(properties.get(name) == value for name, value in filters.get("Properties", {}).items())
    )
