"""What steps make: the operation behind each type of step, and the jobs, models and packages that come of it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.shapes import fit
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.store.records import Document, Ref

NAME_MOST = 63
SUMMARIES = 100
"""How many of a tuning job's training jobs a definition may refer to."""
STEP_NAME_MOST = 20
"""How much of the step's name is in its job's name."""


@dataclass(frozen=True, slots=True)
class Maker:
    """How a type of step makes its job: its kind, the noun in operations' names, and where its ARN is shown."""

    kind: str
    """Of the document that is made."""
    noun: str
    metadata: str
    describe_by: str = ""
    """The member by which Describe finds it, when that is not its name but its ARN."""
    stoppable: bool = True
    name_most: int = NAME_MOST

    @property
    def create(self) -> str:
        return f"Create{self.noun}"

    @property
    def name(self) -> str:
        return f"{self.noun}Name"

    @property
    def arn(self) -> str:
        return f"{self.noun}Arn"


MAKERS = {
    "Processing": Maker("sagemaker.processing-job", "ProcessingJob", "ProcessingJob"),
    "Training": Maker("sagemaker.training-job", "TrainingJob", "TrainingJob"),
    "Tuning": Maker("sagemaker.tuning-job", "HyperParameterTuningJob", "TuningJob", name_most=32),
    "Transform": Maker("sagemaker.transform-job", "TransformJob", "TransformJob"),
    "Model": Maker("sagemaker.model", "Model", "Model", stoppable=False),
    "RegisterModel": Maker(
        "sagemaker.model-package", "ModelPackage", "RegisterModel", describe_by="ModelPackageName", stoppable=False
    ),
    "EndpointConfig": Maker("sagemaker.endpoint-config", "EndpointConfig", "EndpointConfig", stoppable=False),
}
OUTCOMES = {"": "Succeeded", "Completed": "Succeeded", "Failed": "Failed", "TimedOut": "Failed", "Stopped": "Stopped"}
"""What a step becomes when what it made has this status; every other status means that it still runs."""


ASKED_AT_ONCE = 400


def name_job(execution: Document, step: Step, given: str | None = None, attempt: int = 1) -> str:
    """The job's name: pipelines-<execution id>-<step's name>-<ten letters>, or with the prefix that the arguments give.

    The same for the same attempt, so that a look that is repeated makes no second job.
    """
    seed = f"{execution.arn}/{step.name}/{execution.body.get('_attempt', 0)}"
    if attempt > 1:
        seed += f"/{attempt}"
    word = re.sub(r"[^A-Za-z0-9]", "", base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode())[:10]
    most = MAKERS[step.type].name_most
    if most < NAME_MOST:
        return f"{execution.name}-{clean(step.name, most - len(execution.name) - len(word) - 2)}-{word}"
    if given:
        return f"{clean(given, NAME_MOST - 24)}-{execution.name}-{word}"
    return f"pipelines-{execution.name}-{clean(step.name, STEP_NAME_MOST)}-{word}"


def make(call: Call, execution: Document, step: Step, arguments: dict[str, Any], name: str) -> Document:
    """Creates what the step makes, in the call's change, with the way back to the execution.

    Raises: ServiceError; then nothing of it is in the change.
    """
    maker = MAKERS[step.type]
    given = fit("sagemaker", maker.create, arguments)
    with call.attempt():
        if step.type == "RegisterModel":
            _prepare_package(call, execution, given)
        else:
            given[maker.name] = name
        arn = call.other("sagemaker", maker.create, **given)[maker.arn]
    made = next(put for put in reversed(call.change.puts) if put.arn == arn)
    made.body["_execution"] = [execution.account, execution.region, execution.name]
    made.body["_step"] = step.name
    return made


def attempt(call: Call, operation: str, **params: Any) -> dict[str, Any] | None:
    """Calls an operation that may fail; then nothing of it is in the change, and None is given."""
    try:
        with call.attempt():
            return call.other("sagemaker", operation, **params)
    except ServiceError:
        return None


def describe(call: Call, kind: str, job: Document) -> dict[str, Any]:
    """The Describe answer of what a step made.

    Raises: ServiceError.
    """
    maker = MAKERS[kind]
    params = {maker.describe_by: job.arn} if maker.describe_by else {maker.name: job.name}
    described = call.other("sagemaker", f"Describe{maker.noun}", **params)
    if kind == "Tuning":
        described["TrainingJobSummaries"] = _best_first(call, described)
    return described


def _best_first(call: Call, tuning: dict[str, Any]) -> list[dict[str, Any]]:
    """The training jobs of a tuning job that have an objective, the best first."""
    best = tuning.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric", {})
    listed: list[dict[str, Any]] = call.other(
        "sagemaker",
        "ListTrainingJobsForHyperParameterTuningJob",
        HyperParameterTuningJobName=tuning["HyperParameterTuningJobName"],
        SortBy="FinalObjectiveMetricValue",
        SortOrder="Descending" if best.get("Type") == "Maximize" else "Ascending",
        MaxResults=SUMMARIES,
    )["TrainingJobSummaries"]
    return listed


def find(call: Call, execution: Document, entry: dict[str, Any]) -> Document | None:
    """The job of a begun step."""
    kind, name = entry["job"]
    return call.find(Ref(kind, execution.account, execution.region, name))


def statuses(call: Call, execution: Document, entries: Iterable[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """The statuses of begun steps' jobs, as they are stored, by kind and name; of a job that is not there, nothing."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        kind, name = entry["job"]
        names.setdefault(kind, []).append(name)
    found: dict[tuple[str, str], str] = {}
    for kind, each in names.items():
        for at in range(0, len(each), ASKED_AT_ONCE):
            part = each[at : at + ASKED_AT_ONCE]
            told = call.app.store.statuses(kind, execution.account, execution.region, part)
            found |= {(kind, name): status for name, status in told.items()}
    return found


def _prepare_package(call: Call, execution: Document, given: dict[str, Any]) -> None:
    """Makes the group where it is missing, and says which execution registered the package."""
    group = given.get("ModelPackageGroupName")
    if isinstance(group, str):
        # A group may be named by its ARN: then it is there already, or the registration fails with the right sentence.
        if (
            not group.startswith("arn:")
            and attempt(call, "DescribeModelPackageGroup", ModelPackageGroupName=group) is None
        ):
            call.other("sagemaker", "CreateModelPackageGroup", ModelPackageGroupName=group)
        given.pop("ModelPackageName", None)
    properties = given.setdefault("MetadataProperties", {})
    if isinstance(properties, dict):
        properties.setdefault("GeneratedBy", execution.arn)


def clean(name: str, most: int) -> str:
    """A part of a job's name: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:most].strip("-") or "step"
