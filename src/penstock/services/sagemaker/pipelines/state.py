"""The nouns: pipelines, their versions, executions, and the steps of executions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from penstock.kernel.resource import Resource
from penstock.services.sagemaker.pipelines.definition import Definition, parse
from penstock.store.records import Ref

UNIQUE = "Pipeline names must be unique within an AWS account and region. Pipeline with name ({name}) already exists."

PIPELINE = Resource(
    "sagemaker.pipeline",
    key="PipelineName",
    path="pipeline/{name}",
    arn="PipelineArn",
    status="PipelineStatus",
    moves={"Active": {"Deleting"}},
    missing=("ResourceNotFound", "Pipeline '{arn}' does not exist."),
    exists=("ValidationException", UNIQUE),
    without=frozenset(
        {"Tags", "ClientRequestToken", "PipelineDefinition", "PipelineDefinitionS3Location", "PipelineVersionAliases"}
    ),
)
"""Its body's `_version` is the latest version's number, `_id` a word that no other pipeline ever has, `_aliases` the number
of the version that each alias names."""

VERSION = Resource(
    "sagemaker.pipeline-version",
    key="_name",
    path="pipeline-version/{name}",
    arn="_arn",
    updated="",
    missing=("ResourceNotFound", "Pipeline version '{name}' does not exist."),
)
"""Never changed but for its display name and description: a definition under "<pipeline's _id>.<number>"."""

EXECUTION = Resource(
    "sagemaker.pipeline-execution",
    key="PipelineExecutionArn",
    path="pipeline/{pipeline}/execution/{name}",
    arn="PipelineExecutionArn",
    status="PipelineExecutionStatus",
    moves={
        "Executing": {"Stopping", "Failed", "Succeeded"},
        "Stopping": {"Stopped", "Failed"},
        "Failed": {"Executing"},  # RetryPipelineExecution
        "Stopped": {"Executing"},
    },
    missing=("ResourceNotFound", "Pipeline execution '{arn}' does not exist."),
)
"""Its name is the id; its parent the pipeline's name. Its body's own members:

    _pipeline     the pipeline's name
    _version      the name of the version's document
    _parameters   every parameter's value, typed
    _steps        what became of each step that was begun: {name: {"status", "began", "attempt", "job": [kind, name],
                  "outcome", "outputs" of a Lineage step, "retries": {policy: how often}, "due": when it tries again}}
    _begun        how many steps were begun: the rank of the next
    _attempt      how often the execution was retried
    _selected     the steps that are part of it, where some were selected
    _cache        how its steps are cached
    _woven        how far its lineage is entered, once it has ended: [attempt, number of the source, name to go on after]
"""

STEP = Resource("sagemaker.pipeline-step", key="StepName", path="pipeline-step/{name}", arn="_arn", updated="")
"""A begun step, as ListPipelineExecutionSteps shows it: "<execution id>/<step name>", its parent the execution's id."""

ATTEMPTS = "_attempts"
"""The member of a step's body that tells of its failed attempts: exception, reason, moment, moment of the next."""

ENDED = frozenset({"Succeeded", "Failed", "Stopped"})
RUNNING = frozenset({"Starting", "Executing", "Stopping"})
MAX_PARALLEL = 50
"""How many steps of an execution run at a time, where nobody says otherwise."""


@lru_cache(maxsize=32)
def definition_of(store: Any, version: Ref) -> Definition:
    """The definition of a version (its name is used once, for ever); versions never change, so it is parsed once.

    Takes: `store`, a Store. Raises: LookupError where the version was deleted.
    """
    document = store.get(version)
    if document is None:
        raise LookupError(version.name)
    return parse(document.body["PipelineDefinition"])
