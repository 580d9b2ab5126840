"""The experiment and the trial of a run, where its definition has a PipelineExperimentConfig.

Differs: a job's trial component has status and source while the job runs; parameters and artifacts when the execution has ended.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.jobs import attempt, clean
from penstock.store.records import Document

NAMED = ("ExperimentName", "TrialName")
NAME_MOST = 120


def configure(call: Call, execution: Document, step: Step, arguments: dict[str, Any]) -> None:
    """Puts the run's experiment into a job's arguments; makes it first, when it is the run's first job."""
    config = execution.body.get("PipelineExperimentConfig")
    if not config or step.type not in ("Processing", "Training", "Transform"):
        return
    if "_experiment" not in execution.body:
        execution.body["_experiment"] = _prepare(call, config)
    if execution.body["_experiment"]:
        named = {name: config[name] for name in NAMED if name in config}
        arguments["ExperimentConfig"] = {
            "TrialComponentDisplayName": clean(step.name, NAME_MOST),  # a step's name may hold underscores
            **(arguments.get("ExperimentConfig") or {}),
            **named,
        }


def _prepare(call: Call, config: dict[str, str]) -> bool:
    """Makes the experiment and the trial where they are missing; gives whether they are there now."""
    experiment, trial = config.get("ExperimentName"), config.get("TrialName")
    if not experiment:
        return False
    known = attempt(call, "DescribeExperiment", ExperimentName=experiment)
    if known is None and attempt(call, "CreateExperiment", ExperimentName=experiment) is None:
        return False
    if not trial or attempt(call, "DescribeTrial", TrialName=trial) is not None:
        return True
    return attempt(call, "CreateTrial", TrialName=trial, ExperimentName=experiment) is not None
