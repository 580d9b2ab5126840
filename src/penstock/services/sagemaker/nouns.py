"""What the nouns of training, processing and transform jobs have in common: their declaration, and the names of their runs and logs."""

from __future__ import annotations

from penstock.kernel.resource import Resource
from penstock.store.records import Document, Ref

FINAL = frozenset({"Completed", "Failed", "Stopped"})
NOUNS = {
    "sagemaker.training-job": "training job",
    "sagemaker.processing-job": "processing job",
    "sagemaker.transform-job": "transform job",
}
MAKERS = {"_execution": "sagemaker.pipeline-execution", "_tuning": "sagemaker.tuning-job"}
"""The member of a job that says who made it (account, region, name), and what kind that is."""


def job(word: str, missing: str = "Could not find requested job with name: {name}") -> Resource:
    """The noun of a kind of job: "Training", "Processing" or "Transform". Takes: `missing`, the sentence for one that is not there."""
    return Resource(
        kind=f"sagemaker.{word.lower()}-job",
        key=f"{word}JobName",
        path=f"{word.lower()}-job/{{name}}",
        arn=f"{word}JobArn",
        status=f"{word}JobStatus",
        moves={"InProgress": FINAL | {"Stopping"}, "Stopping": FINAL},
        missing=("ValidationException", missing),
        exists=(
            "ResourceInUse",
            "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
        ),
    )


# --- names of runs and logs


def run_name(document: Document) -> str:
    """The name of a job's run: unique for ever, since a job's name may be used again after its deletion."""
    kind = document.kind.partition(".")[2]
    return f"{kind}.{document.account}.{document.region}.{document.name}.{int(document.created * 1000)}"


def run_ref(name: str) -> Ref | None:
    """The job whose run this is; None for a run of something else."""
    parts = name.split(".")
    if len(parts) != 5 or f"sagemaker.{parts[0]}" not in NOUNS:
        return None
    return Ref(f"sagemaker.{parts[0]}", parts[1], parts[2], parts[3])


def stream_name(document: Document, host: str) -> str:
    return f"{document.name}/{host}-{int(document.created)}"
