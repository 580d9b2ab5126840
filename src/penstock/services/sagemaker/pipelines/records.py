"""Lineage steps: entities and associations that a definition asks for are made when the step is reached, all of them or none.

Source: sagemaker.workflow.lineage_step of the SDK (version 2.257): `Steps.<name>.ActionArns['<entity>']`, `ArtifactArns`, `ContextArns`.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, invalid

TYPE = "Lineage"
NOUNS = {"Actions": "Action", "Artifacts": "Artifact", "Contexts": "Context"}


def enter(call: Call, arguments: dict[str, Any]) -> dict[str, Any]:
    """Makes what the arguments ask for; gives the step's outputs: the ARNs by name, and the associations.

    Raises: ServiceError, whose sentence names the operation; then nothing of it is in the change.
    """
    made: dict[str, Any] = {}
    with call.attempt():
        for member, noun in NOUNS.items():
            for given in arguments.get(member) or []:
                arn = _ask(call, f"Create{noun}", given)[f"{noun}Arn"]
                made.setdefault(f"{noun}Arns", {})[given.get(f"{noun}Name") or given["Source"]["SourceUri"]] = arn
        for given in arguments.get("Associations") or []:
            ends = {f"{side}Arn": _arn(given.get(side), made) for side in ("Source", "Destination")}
            kind = {"AssociationType": given["AssociationType"]} if "AssociationType" in given else {}
            made.setdefault("Associations", []).append(_ask(call, "AddAssociation", {**ends, **kind}))
    return made


def _arn(given: Any, made: dict[str, Any]) -> str:
    """The ARN of an association's end: given, or of an entity of the step's own, by its name and type."""
    if isinstance(given, dict) and isinstance(given.get("Arn"), str):
        return str(given["Arn"])
    if not isinstance(given, dict) or given.get("Type") not in NOUNS.values() or not isinstance(given.get("Name"), str):
        raise invalid("An association's Source and Destination need an Arn, or a Name and a Type: Action, Artifact or Context.")
    noun, name = given["Type"], given["Name"]
    if name not in made.get(f"{noun}Arns", {}):
        raise invalid(f"The {noun} '{name}' is none of the step's own; one that is there already is named by its Arn.")
    return str(made[f"{noun}Arns"][name])


def _ask(call: Call, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return call.other("sagemaker", operation, **given)
    except ServiceError as fault:
        told = f"Failed to invoke sagemaker:{operation}. Error Details: {fault.message}"
        raise ServiceError(fault.code, told, fault.status) from None
