"""logs: the log of an execution, a step or a job, whole or followed."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from penstock import Refused
from penstock.cli import dag, world
from penstock.cli.clients import Clients
from penstock.cli.world import DataOption

LOOK_S = 0.3


def logs(
    of: Annotated[str, typer.Argument(help="An execution's id or ARN, or the name of a training, processing or transform job.")],
    step: Annotated[str | None, typer.Option("--step", "-s", help="Only this step of the execution.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job or execution ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data: DataOption = None,
) -> None:
    """Print the log of an execution's steps, or of a job."""
    settings = world.settings_of(data)
    clients = Clients(settings, world.ensure_up(settings, quiet=True))
    reader = Reader(clients, as_json)
    arn = execution_of(clients, of)
    while True:
        over, jobs = jobs_of(clients, arn, step) if arn else (True, [job_named(clients, of)])
        if arn is None:
            over = job_over(clients, *jobs[0][1:])
        for name, group, job in jobs:
            reader.read(name if arn else "", group, job)
        if not follow or over:
            break
        time.sleep(LOOK_S)
    if not jobs and not follow:
        print(f"penstock: {of} has no job that writes a log yet", file=sys.stderr)


class Reader:
    """Prints what is new in streams, each from where it last stood."""

    def __init__(self, clients: Clients, as_json: bool):
        self.clients, self.as_json = clients, as_json
        self._places: dict[tuple[str, str], str] = {}

    def read(self, label: str, group: str, job: str) -> None:
        client = self.clients["logs"]
        try:
            streams = [
                s["logStreamName"]
                for s in self.clients.every(
                    "logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=f"{job}/"
                )
            ]
        except client.exceptions.ResourceNotFoundException:
            return
        for stream in streams:
            while True:
                place = self._places.get((group, stream))
                answer = client.get_log_events(
                    logGroupName=group,
                    logStreamName=stream,
                    startFromHead=True,
                    **({"nextToken": place} if place else {}),
                )
                self._places[group, stream] = answer["nextForwardToken"]
                for event in answer["events"]:
                    self._print(label, stream, event)
                if not answer["events"] or answer["nextForwardToken"] == place:
                    break

    def _print(self, label: str, stream: str, event: dict[str, Any]) -> None:
        if self.as_json:
            print(
                json.dumps(
                    {
                        "step": label or None,
                        "stream": stream,
                        "timestamp": event["timestamp"],
                        "message": event["message"],
                    }
                ),
                flush=True,
            )
        else:
            print(f"{label + ': ' if label else ''}{event['message']}", flush=True)


def execution_of(clients: Clients, of: str) -> str | None:
    """The ARN of the execution meant by an ARN or an id; None when no execution has it."""
    if ":pipeline/" in of:
        return of
    for pipeline in clients.every("sagemaker", "list_pipelines"):
        for execution in clients.every("sagemaker", "list_pipeline_executions", PipelineName=pipeline["PipelineName"]):
            if execution["PipelineExecutionArn"].endswith(f"/{of}"):
                return str(execution["PipelineExecutionArn"])
    return None


def jobs_of(clients: Clients, arn: str, step: str | None) -> tuple[bool, list[tuple[str, str, str]]]:
    """Whether the execution has ended, and (step, log group, job) of those that have a job."""
    status = clients["sagemaker"].describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
    found = list(
        clients.every("sagemaker", "list_pipeline_execution_steps", PipelineExecutionArn=arn, SortOrder="Ascending")
    )
    if step is not None and status in dag.ENDED and not any(s["StepName"] == step for s in found):
        raise Refused(
            f"The execution ran no step {step!r}; it ran {', '.join(s['StepName'] for s in found) or 'none'}."
        )
    jobs = []
    for each in found:
        for kind, group in dag.LOG_GROUPS.items():
            if (job := each.get("Metadata", {}).get(kind)) and step in (None, each["StepName"]):
                jobs.append((each["StepName"], group, job["Arn"].rpartition("/")[2]))
    return status in dag.ENDED, jobs


def job_named(clients: Clients, name: str) -> tuple[str, str, str]:
    """Raises: Refused when nothing has that name."""
    sagemaker = clients["sagemaker"]
    for kind, describe in (
        ("TrainingJob", sagemaker.describe_training_job),
        ("ProcessingJob", sagemaker.describe_processing_job),
        ("TransformJob", sagemaker.describe_transform_job),
    ):
        try:
            describe(**{f"{kind}Name": name})
        except sagemaker.exceptions.ClientError:
            continue
        return "", dag.LOG_GROUPS[kind], name
    raise Refused(f"No execution, training, processing or transform job is called {name!r}.")


def job_over(clients: Clients, group: str, job: str) -> bool:
    kind = next(k for k, g in dag.LOG_GROUPS.items() if g == group)
    describe = getattr(clients["sagemaker"], f"describe_{kind.removesuffix('Job').lower()}_job")
    return describe(**{f"{kind}Name": job})[f"{kind}Status"] in ("Completed", "Failed", "Stopped")
