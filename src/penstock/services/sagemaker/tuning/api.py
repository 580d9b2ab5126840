"""The operations on tuning jobs."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import invalid
from penstock.services.sagemaker import nouns, orders
from penstock.services.sagemaker.roles import require_role
from penstock.services.sagemaker.tuning import rules, summaries
from penstock.services.sagemaker.tuning.events import tell
from penstock.services.sagemaker.tuning.state import JOB
from penstock.store.records import Document


def create_hyper_parameter_tuning_job(call: Call) -> dict[str, Any]:
    """Checks what is to be searched, and has the search begin.

    Raises: ServiceError (ValidationException) for ranges, strategies and objectives that do not fit together, and for
        a role, an image or a parent that is not there.
    Differs: Autotune and AutoParameters are refused. Of several InstanceConfigs the first is taken. Hyperband is one bracket of
        successive halving. ConvergenceDetected means that 20 trials in a row were no better.
    """
    body = dict(call.params)
    rules.check(body)
    for definition in rules.definitions(body):
        require_role(call, definition["RoleArn"])
        if image := definition["AlgorithmSpecification"].get("TrainingImage"):
            orders.check_image(call, image)
    for parent in body.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", []):
        found = JOB.find(call, parent["HyperParameterTuningJobName"])
        if found is None or found.status not in nouns.FINAL:
            raise invalid(f"The parent tuning job {parent['HyperParameterTuningJobName']} is not there, or has not ended.")
    document = JOB.create(call, body=body, status="InProgress")
    document.body |= {"_trials": [], **rules.counters([])}
    tell(call, document)
    call.wake(document.ref)
    return {"HyperParameterTuningJobArn": document.arn}


def describe_hyper_parameter_tuning_job(call: Call) -> dict[str, Any]:
    return JOB.describe(JOB.get(call))


def list_hyper_parameter_tuning_jobs(call: Call) -> dict[str, Any]:
    def show(document: Document) -> dict[str, Any]:
        config = document.body["HyperParameterTuningJobConfig"]
        return {**JOB.describe(document), "Strategy": config["Strategy"], "ResourceLimits": config["ResourceLimits"]}

    return JOB.page(call, "HyperParameterTuningJobSummaries", show=show)


@slow
def list_training_jobs_for_hyper_parameter_tuning_job(call: Call) -> dict[str, Any]:
    """A tuning job's training jobs, by name unless asked otherwise; by objective only those that have one."""
    given, tuning = call.params, JOB.get(call)
    order = given.get("SortBy", "Name")
    wanted, status = order == "FinalObjectiveMetricValue", given.get("StatusEquals")
    found = [
        one
        for one in summaries.of_trials(call, tuning)
        if (not wanted or summaries.value_of(one) is not None) and status in (None, one["TrainingJobStatus"])
    ]
    return pages.cut(
        call,
        "TrainingJobSummaries",
        found,
        lambda one: [*summaries.sort_key(one, order), one["TrainingJobName"]],
        descending=given.get("SortOrder") == "Descending",
    )


def stop_hyper_parameter_tuning_job(call: Call) -> None:
    """Raises: ServiceError (ValidationException) for a job that has ended."""
    document = JOB.get(call)
    if document.status in nouns.FINAL:
        raise invalid(f"The request was rejected because the hyperparameter tuning job is in status {document.status}.")
    if document.status == "InProgress":
        JOB.move(call, document, "Stopping")
        tell(call, document)
        call.wake(document.ref)


def delete_hyper_parameter_tuning_job(call: Call) -> None:
    """Deletes an ended tuning job; its training jobs stay.

    Raises: ServiceError (ResourceInUse) for one that has not ended.
    """
    orders.delete(call, JOB, JOB.get(call))

