"""logs: the log of an execution, a step or a job, whole or followed."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import typer
from botocore.exceptions import ClientError

from penstock import Refused
from penstock.cli import dag, world
from penstock.cli.clients import Clients, answering
from penstock.cli.world import DataOption
from penstock.settings import Settings

LOOK_S = 0.3


def logs(
    of: Annotated[
        str, typer.Argument(help="An execution's id or ARN, or the name of a training, processing, transform or tuning job or a function.")
    ],
    step: Annotated[str | None, typer.Option("--step", "-s", help="Only this step of the execution.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job or execution ends; a function's until you stop it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data: DataOption = None,
) -> None:
    """Print the log of an execution's steps, of a job or of a function."""
    settings, about = world.listing(data)
    clients = Clients(settings, about)
    with answering(f"what was looked at goes on after `{world.typed('up', settings)}`."):
        read(clients, Reader(clients, as_json), of, step, follow, settings)


def read(
    clients: Clients, reader: Reader, of: str, step: str | None, follow: bool, settings: Settings | None = None
) -> None:
    """Prints the logs there are, until the end where they are followed; tells why there is none, and what is waited for."""
    arn = execution_of(clients, of)
    told: set[str] = set()
    while True:
        found = logs_of(clients, arn, step, settings) if arn else logs_named(clients, of, settings)
        for log in found.logs:
            reader.read(log)
        for remark in found.waits:
            if remark not in told:
                print(f"penstock: {remark}", file=sys.stderr)
        told.update(found.waits)
        if not follow or found.over:
            break
        time.sleep(LOOK_S)
    if reader.quiet:
        remark = f"ended without a log. {found.why}".strip() if found.over else "has written no log yet"
        print(f"penstock: {of} {remark}", file=sys.stderr)


class Log(NamedTuple):
    """A job's streams, and what its lines begin with."""

    step: str
    group: str
    job: str
    trial: bool = False

    @property
    def label(self) -> str:
        return ": ".join(word for word in (self.step, self.job if self.trial else "") if word)


class Found(NamedTuple):
    """Whether what was asked for has ended, its logs, what failed in it, and what it waits for."""

    over: bool
    logs: list[Log]
    why: str
    waits: tuple[str, ...] = ()


class Reader:
    """Prints what is new in streams, each from where it last stood."""

    def __init__(self, clients: Clients, as_json: bool):
        self.clients, self.as_json = clients, as_json
        self._places: dict[tuple[str, str], str] = {}
        self.quiet = True
        """Whether nothing was printed."""

    def read(self, log: Log) -> None:
        client = self.clients["logs"]
        try:
            streams = [
                s["logStreamName"]
                for s in self.clients.every(
                    "logs", "describe_log_streams", logGroupName=log.group, **({"logStreamNamePrefix": f"{log.job}/"} if log.job else {})
                )
            ]
        except client.exceptions.ResourceNotFoundException:
            return
        for stream in streams:
            while True:
                place = self._places.get((log.group, stream))
                answer = client.get_log_events(
                    logGroupName=log.group,
                    logStreamName=stream,
                    startFromHead=True,
                    **({"nextToken": place} if place else {}),
                )
                self._places[log.group, stream] = answer["nextForwardToken"]
                for event in answer["events"]:
                    self._print(log, stream, event)
                if not answer["events"] or answer["nextForwardToken"] == place:
                    break

    def _print(self, log: Log, stream: str, event: dict[str, Any]) -> None:
        self.quiet = False
        if self.as_json:
            print(
                json.dumps(
                    {
                        "step": log.step or None,
                        "stream": stream,
                        "timestamp": event["timestamp"],
                        "message": event["message"],
                    }
                ),
                flush=True,
            )
        else:
            print(f"{log.label + ': ' if log.label else ''}{event['message']}", flush=True)


def execution_of(clients: Clients, of: str) -> str | None:
    """The ARN of the execution meant by an ARN or an id; None when no execution has it."""
    if ":pipeline/" in of:
        return of
    for pipeline in clients.every("sagemaker", "list_pipelines"):
        for execution in clients.every("sagemaker", "list_pipeline_executions", PipelineName=pipeline["PipelineName"]):
            if execution["PipelineExecutionArn"].endswith(f"/{of}"):
                return str(execution["PipelineExecutionArn"])
    return None


def logs_of(clients: Clients, arn: str, step: str | None, settings: Settings | None = None) -> Found:
    """The logs of an execution's steps, or of one.

    Raises: Refused when the execution ended and ran no such step, or its pipeline has none.
    """
    status = clients["sagemaker"].describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
    steps = list(
        clients.every("sagemaker", "list_pipeline_execution_steps", PipelineExecutionArn=arn, SortOrder="Ascending")
    )
    meant = [each for each in steps if step in (None, each["StepName"])]
    if step is not None and status in dag.ENDED and not meant:
        raise Refused(
            f"The execution ran no step {step!r}; it ran {', '.join(s['StepName'] for s in steps) or 'none'}."
        )
    if step is not None and not meant:
        names = steps_of(clients, arn)
        if step not in names:
            raise Refused(f"The execution has no step {step!r}; it has {', '.join(names)}.")
    logs: list[Log] = []
    for each in meant:
        for kind, job in each.get("Metadata", {}).items():
            if kind in dag.LOG_GROUPS:
                logs.append(Log(each["StepName"], dag.LOG_GROUPS[kind], job["Arn"].rpartition("/")[2]))
            elif kind == "TuningJob":
                logs += trials(clients, each["StepName"], job["Arn"].rpartition("/")[2])
    reasons = [f"{each['StepName']}: {each['FailureReason']}" for each in meant if each.get("FailureReason")]
    return Found(status in dag.ENDED, logs, " ".join(reasons), () if status in dag.ENDED else waits_of(meant, settings))


def steps_of(clients: Clients, arn: str) -> list[str]:
    """The names of the steps that an execution's definition has."""
    told = clients["sagemaker"].describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
    return [node.name for node in dag.nodes_of(json.loads(told["PipelineDefinition"]))]


def waits_of(steps: list[dict[str, Any]], settings: Settings | None = None) -> tuple[str, ...]:
    """A sentence on each Callback step that waits for its token: nothing else ends it, a stop of the execution neither."""
    tokens = {
        step["StepName"]: step["Metadata"]["Callback"]["CallbackToken"]
        for step in steps
        if step.get("StepStatus") not in dag.ENDED and "CallbackToken" in step.get("Metadata", {}).get("Callback", {})
    }
    return tuple(
        f"{name} waits for its token: {world.typed('exec', settings)} -- aws sagemaker send-pipeline-execution-step-success (or -failure) "
        f"--callback-token {token}"
        for name, token in tokens.items()
    )


def trials(clients: Clients, step: str, tuning: str) -> list[Log]:
    """The logs of a tuning job: those of its training jobs, in the order they were made."""
    found = clients.every(
        "sagemaker",
        "list_training_jobs_for_hyper_parameter_tuning_job",
        HyperParameterTuningJobName=tuning,
        SortBy="CreationTime",
        SortOrder="Ascending",
    )
    return [Log(step, dag.LOG_GROUPS["TrainingJob"], each["TrainingJobName"], trial=True) for each in found]


def logs_named(clients: Clients, name: str, settings: Settings | None = None) -> Found:
    """The logs of the job of that name.

    Raises: Refused when nothing has that name.
    """
    sagemaker = clients["sagemaker"]
    for kind, describe in (
        ("TrainingJob", sagemaker.describe_training_job),
        ("ProcessingJob", sagemaker.describe_processing_job),
        ("TransformJob", sagemaker.describe_transform_job),
        ("HyperParameterTuningJob", sagemaker.describe_hyper_parameter_tuning_job),
    ):
        try:
            told = describe(**{f"{kind}Name": name})
        except sagemaker.exceptions.ClientError:
            continue
        group = dag.LOG_GROUPS.get(kind)
        logs = [Log("", group, name)] if group else trials(clients, "", name)
        return Found(told[f"{kind}Status"] in ("Completed", "Failed", "Stopped"), logs, told.get("FailureReason", ""))
    with suppress(ClientError):
        function = clients["lambda"].get_function_configuration(FunctionName=name)["FunctionName"]
        return Found(False, [Log("", f"/aws/lambda/{function}", "")], "")
    hint = f"`{world.typed('executions', settings)}` lists executions."
    raise Refused(f"No execution, training, processing, transform or tuning job, and no function, is called {name!r}; {hint}")
