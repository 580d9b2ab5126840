"""The noun: a training job, its statuses and its secondary statuses with AWS's words for them."""

from __future__ import annotations

from typing import Any

from penstock.services.sagemaker import nouns

JOB = nouns.job("Training", "Requested resource not found.")
GROUP = "/aws/sagemaker/TrainingJobs"
MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "Interrupted": "Training job interrupted: the spot instances were taken back",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}
WAITING = "Insufficient capacity, waiting"


def move_on(body: dict[str, Any], status: str, moment: float, message: str = "") -> None:
    """Goes to another secondary status: the last transition ends, a new one begins."""
    message = message or MESSAGES[status]
    transitions = body.setdefault("SecondaryStatusTransitions", [])
    if transitions and transitions[-1]["Status"] == status:
        transitions[-1]["StatusMessage"] = message
    else:
        if transitions:
            transitions[-1]["EndTime"] = max(moment, transitions[-1]["StartTime"])
        transitions.append({"Status": status, "StartTime": moment, "StatusMessage": message})
        if status in nouns.FINAL or status in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
            transitions[-1]["EndTime"] = moment
    body["SecondaryStatus"] = status
