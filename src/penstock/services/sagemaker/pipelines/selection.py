"""Selective execution: which steps run, and which results of an earlier execution they go on from.

Source: docs.aws.amazon.com/sagemaker/latest/dg/pipelines-selective-ex.html.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, invalid
from penstock.services.sagemaker.pipelines.definition import Definition
from penstock.services.sagemaker.pipelines.events import tell_step
from penstock.services.sagemaker.pipelines.state import ENDED, EXECUTION, STEP
from penstock.store.records import Document, Ref


def select(call: Call, execution: Document, definition: Definition, config: dict[str, Any]) -> None:
    """Notes in a new execution which steps are to run, and begins it with the results that they need of others.

    Raises: ServiceError for steps that are not there or not connected, and for a source that does not have what is needed.
    Differs: a step that only waits for one that is not selected (DependsOn, or the branch of a Condition step) needs no
    source and runs.
    """
    selected = list(dict.fromkeys(step["StepName"] for step in config["SelectedSteps"]))
    for name in selected:
        if name not in definition.steps:
            known = ", ".join(definition.order)
            raise invalid(f"The selected step '{name}' is not defined in the pipeline; its steps are {known}.")
    _check_connected(definition, selected)
    needed = _needed(definition, selected)
    source = _source(call, execution, config, needed)
    execution.body["_selected"] = selected
    execution.body["SelectiveExecutionConfig"] = config
    for name in needed:
        assert source is not None
        _reuse(call, execution, source, definition, name)


def _check_connected(definition: Definition, selected: Collection[str]) -> None:
    """Refuses selected steps between which others lie that are not selected."""
    after: dict[str, str] = {}
    """The steps that come after a selected one, by which."""
    for name in definition.order:
        step = definition.steps[name]
        before = [*step.needs, *([step.branch[0]] if step.branch else [])]
        if name in selected:
            for other in before:
                if other not in selected and other in after:
                    raise invalid(
                        f"The selected steps are not connected: step '{other}' lies between '{after[other]}' and '{name}' "
                        "and is not selected. Select every step between two selected steps."
                    )
        first = next((other if other in selected else after[other] for other in before if other in selected or other in after), None)
        if first is not None:
            after[name] = first


def _needed(definition: Definition, selected: Collection[str]) -> list[str]:
    """The steps that are not selected, and whose results selected steps read; in the definition's order."""
    read = {other for name in selected for other in definition.steps[name].reads}
    return [name for name in definition.order if name in read and name not in selected]


def _source(call: Call, execution: Document, config: dict[str, Any], needed: list[str]) -> Document | None:
    """The execution whose results are used, if there are any.

    Raises: ServiceError.
    """
    arn = config.get("SourcePipelineExecutionArn")
    if arn is None:
        if needed:
            told = ", ".join(f"'{name}'" for name in needed)
            raise invalid(
                f"The selected steps need the results of {told}: select them too, or give a SourcePipelineExecutionArn."
            )
        return None
    source = EXECUTION.find(call, arn)
    if source is None:
        raise ServiceError("ResourceNotFound", f"Pipeline execution '{arn}' does not exist.")
    if source.parent != execution.parent:
        raise invalid(f"The source execution '{arn}' is none of pipeline '{execution.parent}'.")
    if source.status not in ENDED:
        raise invalid(f"The source execution '{arn}' has the status {source.status}; it must have ended.")
    for name in needed:
        entry = source.body["_steps"].get(name)
        if entry is None or entry["status"] != "Succeeded":
            became = entry["status"] if entry else "did not run"
            raise invalid(
                f"The selected steps need the results of step '{name}', which {became if entry is None else 'is ' + became} "
                f"in the source execution '{arn}'."
            )
    return source


def _reuse(call: Call, execution: Document, source: Document, definition: Definition, name: str) -> None:
    """Enters a step's result in the source as this execution's own."""
    step, body = definition.steps[name], execution.body
    known = source.body["_steps"][name]
    body["_steps"][name] = {member: known[member] for member in ("status", "job", "outcome", "outputs") if member in known}
    body["_begun"] += 1
    before = call.find(Ref(STEP.kind, source.account, source.region, f"{source.name}/{name}"))
    shown = {
        "StepName": name,
        "StepDisplayName": step.display_name,
        "StepDescription": step.description,
        "StartTime": call.now,
        "EndTime": call.now,
        "StepStatus": "Succeeded",
        "Metadata": before.body.get("Metadata", {}) if before else {},
        "SelectiveExecutionResult": {"SourcePipelineExecutionArn": source.arn},
    }
    document = Document(
        kind=STEP.kind, account=execution.account, region=execution.region, name=f"{execution.name}/{name}",
        parent=execution.name, status="Succeeded", rank=body["_begun"], created=call.now,
        body={member: value for member, value in shown.items() if value != ""},
    )  # fmt: skip
    call.put(document)
    tell_step(call, execution, document, step.type)
