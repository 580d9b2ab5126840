"""Moves of executions and steps, each with its event in the same change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.pipelines.state import ENDED, EXECUTION
from penstock.store.records import Document

SOURCE = "aws.sagemaker"
EXECUTION_CHANGE = "SageMaker Model Building Pipeline Execution Status Change"
STEP_CHANGE = "SageMaker Model Building Pipeline Execution Step Status Change"


def iso(moment: float, timespec: str = "seconds") -> str:
    """A moment as AWS writes it in events: 2021-03-15T16:10:11Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def move_execution(call: Call, execution: Document, status: str, **members: Any) -> None:
    """Moves an execution, and tells of it."""
    previous = execution.status
    EXECUTION.move(call, execution, status, **members)
    tell_execution(call, execution, previous)


def tell_execution(call: Call, execution: Document, previous: str = "") -> None:
    """Emits the event of an execution's status."""
    body = execution.body
    detail = {
        "pipelineExecutionDisplayName": body.get("PipelineExecutionDisplayName"),
        "currentPipelineExecutionStatus": execution.status,
        "previousPipelineExecutionStatus": previous or None,
        "executionStartTime": iso(execution.created),
        "executionEndTime": iso(call.now) if execution.status in ENDED else None,
        "pipelineExecutionDescription": body.get("PipelineExecutionDescription"),
        "failureReason": body.get("FailureReason"),
        "pipelineArn": body["PipelineArn"],
        "pipelineExecutionArn": execution.arn,
    }
    _emit(call, EXECUTION_CHANGE, detail, execution)


def tell_step(call: Call, execution: Document, step: Document, kind: str, previous: str = "") -> None:
    """Emits the event of a step's status."""
    body = step.body
    detail = {
        "metadata": {_lower(name): _lowered(value) for name, value in body.get("Metadata", {}).items()},
        "stepStartTime": iso(body["StartTime"]),
        "stepEndTime": iso(body["EndTime"]) if "EndTime" in body else None,
        "stepName": body["StepName"],
        "stepType": kind,
        "stepDisplayName": body.get("StepDisplayName"),
        "stepDescription": body.get("StepDescription"),
        "previousStepStatus": previous or None,
        "currentStepStatus": step.status,
        "failureReason": body.get("FailureReason"),
        "cacheHitResult": _lowered(body["CacheHitResult"]) if "CacheHitResult" in body else None,
        "pipelineArn": execution.body["PipelineArn"],
        "pipelineExecutionArn": execution.arn,
    }
    _emit(call, STEP_CHANGE, detail, execution)


def _emit(call: Call, change: str, detail: dict[str, Any], execution: Document) -> None:
    known = {name: value for name, value in detail.items() if value is not None}
    call.emit(SOURCE, change, known, [execution.body["PipelineArn"], execution.arn])


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _lowered(value: dict[str, Any]) -> dict[str, Any]:
    return {_lower(name): inner for name, inner in value.items()}
