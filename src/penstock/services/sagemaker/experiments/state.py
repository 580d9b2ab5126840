"""The declarations of experiments, trials, components, and of the link between a trial and a component.

Names are not told apart by case (the reference of CreateExperiment says so). A trial's parent is its experiment. A link
"<trial>|<component>" has the trial as parent, the component as label and the trial's experiment as status, so that each list
is one question.
"""

from __future__ import annotations

from penstock.kernel.resource import Resource

_TAKEN = "{noun} names must be unique within an AWS account and region. {noun} with name ({{name}}) already exists."


def _declared(noun: str, kind: str, path: str) -> Resource:
    return Resource(
        kind,
        key=f"{noun}Name",
        path=path + "/{name}",
        arn=f"{noun}Arn",
        missing=("ResourceNotFound", f"{noun} '{{arn}}' does not exist."),
        exists=("ValidationException", _TAKEN.format(noun=noun)),
        folded=True,
    )


EXPERIMENT = _declared("Experiment", "sagemaker.experiment", "experiment")
TRIAL = _declared("Trial", "sagemaker.trial", "experiment-trial")
COMPONENT = _declared("TrialComponent", "sagemaker.trial-component", "experiment-trial-component")
LINK = Resource("sagemaker.trial-link", key="_name", path="", arn="_arn", created="_created", updated="")
