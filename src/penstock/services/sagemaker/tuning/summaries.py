"""A tuning job's training jobs as its lists show them."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.training.state import JOB as TRAINING
from penstock.services.sagemaker.tuning import rules
from penstock.store.records import Document, Ref

SHOWN = (
    "TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime", "TrainingEndTime", "TrainingJobStatus",
    "FailureReason",
)  # fmt: skip
ORDERS = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}


def of_trials(call: Call, tuning: Document) -> list[dict[str, Any]]:
    """A summary of each training job that is still there, in the order of their making."""
    found = []
    for entry in tuning.body["_trials"]:
        job = call.find(Ref(TRAINING.kind, tuning.account, tuning.region, entry["job"]))
        if job is not None:
            found.append(of_trial(tuning, entry, job))
    return found


def of_trial(tuning: Document, entry: dict[str, Any], job: Document) -> dict[str, Any]:
    """One training job: what it was given, and what came of it."""
    definition = rules.definitions(tuning.body)[entry["d"]]
    goal = rules.objective(tuning.body, definition)
    shown = {member: job.body[member] for member in SHOWN if member in job.body}
    shown |= {"TunedHyperParameters": entry["v"], "ObjectiveStatus": rules.objective_status(entry)}
    if "DefinitionName" in definition:
        shown["TrainingJobDefinitionName"] = definition["DefinitionName"]
    if entry["o"] is not None:
        shown["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": goal["Type"], "MetricName": goal["MetricName"], "Value": entry["o"],
        }  # fmt: skip
    return shown


def value_of(summary: dict[str, Any]) -> float | None:
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return None if metric is None else float(metric["Value"])


def sort_key(summary: dict[str, Any], order: str) -> list[Any]:
    return [value_of(summary) if order == "FinalObjectiveMetricValue" else summary[ORDERS[order]]]
