"""Operations on experiments, trials and trial components."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import invalid
from penstock.kernel.resource import Resource
from penstock.services.sagemaker.experiments import links
from penstock.services.sagemaker.experiments.state import COMPONENT, EXPERIMENT, TRIAL
from penstock.services.sagemaker.lineage import entities
from penstock.services.sagemaker.people import author
from penstock.store.records import Document, Query

MERGED = ("Parameters", "InputArtifacts", "OutputArtifacts")


# --- experiments
def create_experiment(call: Call) -> dict[str, Any]:
    return {"ExperimentArn": _create(call, EXPERIMENT).arn}


def describe_experiment(call: Call) -> dict[str, Any]:
    return EXPERIMENT.describe(EXPERIMENT.get(call))


def list_experiments(call: Call) -> dict[str, Any]:
    return EXPERIMENT.page(call, "ExperimentSummaries", show=_experiment_summary)


def update_experiment(call: Call) -> dict[str, Any]:
    return {"ExperimentArn": _update(call, EXPERIMENT, EXPERIMENT.get(call), "DisplayName", "Description").arn}


def delete_experiment(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ValidationException) while it has trials."""
    experiment = EXPERIMENT.get(call)
    query = Query(kind=TRIAL.kind, account=call.account, region=call.region, parent=experiment.name)
    if call.app.store.count(query):
        raise invalid(f"Experiment {experiment.name} cannot be deleted while it has trials.")
    return {"ExperimentArn": EXPERIMENT.delete(call).arn}


def _experiment_summary(experiment: Document) -> dict[str, Any]:
    return _sourced(EXPERIMENT.describe(experiment), "ExperimentSource")


# --- trials
def create_trial(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ResourceNotFound) for a missing experiment."""
    experiment = EXPERIMENT.get(call, call.params["ExperimentName"])
    if experiment.version:
        call.change.reads.append(experiment)
    return {"TrialArn": _create(call, TRIAL, parent=experiment.name).arn}


def describe_trial(call: Call) -> dict[str, Any]:
    return TRIAL.describe(TRIAL.get(call))


def list_trials(call: Call) -> dict[str, Any]:
    """Lists trials, of an experiment, or those that have a component."""
    parent, keep = None, None
    if experiment := call.params.get("ExperimentName"):
        parent = EXPERIMENT.get(call, experiment).name
    if component := call.params.get("TrialComponentName"):
        trials = links.trials_of(call, COMPONENT.get(call, component).name)
        keep = lambda trial: trial.name in trials  # noqa: E731
    return TRIAL.page(call, "TrialSummaries", parent=parent, keep=keep, show=_trial_summary)


def update_trial(call: Call) -> dict[str, Any]:
    return {"TrialArn": _update(call, TRIAL, TRIAL.get(call), "DisplayName").arn}


def delete_trial(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ValidationException) while it has components."""
    trial = TRIAL.get(call)
    if links.components_of(call, trial=trial.name):
        raise invalid(f"Trial {trial.name} cannot be deleted while trial components are associated with it.")
    return {"TrialArn": TRIAL.delete(call).arn}


def _trial_summary(trial: Document) -> dict[str, Any]:
    return _sourced(TRIAL.describe(trial), "TrialSource")


# --- components
def create_trial_component(call: Call) -> dict[str, Any]:
    return {"TrialComponentArn": _create(call, COMPONENT).arn}


def describe_trial_component(call: Call) -> dict[str, Any]:
    component = COMPONENT.get(call)
    return links.completed(call, component, COMPONENT.describe(component))


def list_trial_components(call: Call) -> dict[str, Any]:
    """Lists components: all, or of a trial, an experiment, a source."""
    given, keep = call.params, None
    if given.get("TrialName") or given.get("ExperimentName"):
        if given.get("SourceArn") or (given.get("TrialName") and given.get("ExperimentName")):
            raise invalid("Only one of ExperimentName, TrialName and SourceArn can be specified.")
        if trial := given.get("TrialName"):
            names = links.components_of(call, trial=TRIAL.get(call, trial).name)
        else:
            names = links.components_of(call, experiment=EXPERIMENT.get(call, given["ExperimentName"]).name)
        keep = lambda component: component.name in names  # noqa: E731
    return COMPONENT.page(
        call, "TrialComponentSummaries", parent=given.get("SourceArn"), keep=keep, show=_component_summary
    )


def update_trial_component(call: Call) -> dict[str, Any]:
    """Changes a component: what is given is added to its parameters and artifacts, or replaces the same key."""
    component = COMPONENT.get(call)
    for member in MERGED:
        merged = {**component.body.get(member, {}), **call.params.get(member, {})}
        for key in call.params.get(f"{member}ToRemove", []):
            merged.pop(key, None)
        if merged:
            component.body[member] = merged
        else:
            component.body.pop(member, None)
    _update(call, COMPONENT, component, "DisplayName", "Status", "StartTime", "EndTime")
    return {"TrialComponentArn": component.arn}


def delete_trial_component(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ValidationException) while it is associated with a trial."""
    component = COMPONENT.get(call)
    if links.trials_of(call, component.name):
        raise invalid(f"TrialComponent {component.name} cannot be deleted while it is associated with a trial.")
    entities.forget(call, component)
    return {"TrialComponentArn": COMPONENT.delete(call).arn}


def associate_trial_component(call: Call) -> dict[str, Any]:
    """Puts a component into a trial; where it is already, nothing changes."""
    trial, component = TRIAL.get(call, call.params["TrialName"]), COMPONENT.get(call, call.params["TrialComponentName"])
    links.link(call, trial, component)
    return {"TrialComponentArn": component.arn, "TrialArn": trial.arn}


def disassociate_trial_component(call: Call) -> dict[str, Any]:
    component, trial = COMPONENT.get(call, call.params["TrialComponentName"]), TRIAL.get(call, call.params["TrialName"])
    links.unlink(call, trial, component)
    return {"TrialComponentArn": component.arn, "TrialArn": trial.arn}


def _component_summary(component: Document) -> dict[str, Any]:
    return _sourced(COMPONENT.describe(component), "TrialComponentSource")


# --- what the three have in common
def _create(call: Call, resource: Resource, parent: str = "") -> Document:
    """DisplayName is the name where none is given, as at AWS."""
    body = {"DisplayName": call.params[resource.key], **call.params, "CreatedBy": author(call)}
    return resource.create(call, body=body, parent=parent)


def _update(call: Call, resource: Resource, document: Document, *members: str) -> Document:
    given = {member: call.params[member] for member in members if member in call.params}
    return resource.save(call, document, LastModifiedBy=author(call), **given)


def _sourced(shown: dict[str, Any], member: str) -> dict[str, Any]:
    """Summaries have the source under a name of its own."""
    return {**shown, member: shown["Source"]} if "Source" in shown else shown
