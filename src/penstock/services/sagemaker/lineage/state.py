"""The declarations of actions, artifacts, contexts and associations.

Of the three, the type is the document's parent and the source's URI its label, so that lists by either are one question. An
association's parent is the ARN it comes from, its label the ARN it leads to, its status its type.
"""

from __future__ import annotations

from penstock.kernel.resource import Resource

_TAKEN = "{noun} names must be unique within an AWS account and region. {noun} with name ({{name}}) already exists."


def _declared(noun: str, key: str) -> Resource:
    low = noun.lower()
    return Resource(
        f"sagemaker.{low}",
        key=key,
        path=low + "/{name}",
        arn=f"{noun}Arn",
        missing=("ResourceNotFound", f"{noun} '{{arn}}' does not exist."),
        exists=("ValidationException", _TAKEN.format(noun=noun)),
    )


ACTION = _declared("Action", "ActionName")
CONTEXT = _declared("Context", "ContextName")
ARTIFACT = _declared("Artifact", "_name")
"""Its name is a digest of its source: there is one artifact for a source."""
ASSOCIATION = Resource("sagemaker.association", key="_name", path="", arn="_arn", created="CreationTime", updated="")
FORGOTTEN = "sagemaker.forgotten-lineage"
"""The kind of what is left of a deleted entity while its associations go: its label is the ARN, its moment that of the deletion."""
NOUNS = {
    ACTION.kind: "Action",
    CONTEXT.kind: "Context",
    ARTIFACT.kind: "Artifact",
    "sagemaker.trial-component": "TrialComponent",
    "sagemaker.experiment": "Experiment",
}
"""What may be associated, by kind: its LineageType, and the beginning of its members' names."""
