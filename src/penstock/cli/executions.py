"""executions and stop: which executions there are, and the end of one."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from penstock import Refused
from penstock.cli import dag, world
from penstock.cli.clients import Clients
from penstock.cli.images import show_rows
from penstock.cli.logs import execution_of, logs_of
from penstock.cli.screen import screen
from penstock.cli.world import DataOption

console = screen()
COLOURS = {"Succeeded": "green", "Failed": "red", "Stopped": "yellow", "Stopping": "yellow"}


class Failed(Refused):
    """What was asked for could not be done any more."""

    code = 1


def executions(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline's.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="Only those that are Executing, Stopping, Stopped, Failed or Succeeded.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
    data: DataOption = None,
) -> None:
    """List executions of pipelines, the newest first."""
    clients = Clients(*world.listing(data))
    found = [{**each, "Seconds": _seconds(clients, each)} for each in find(clients, pipeline, status)[:limit]]
    if as_json:
        print(json.dumps(found, indent=2, default=str))
        return
    if not found:
        of = f" of {pipeline}" if pipeline else ""
        console.print(f"There is no execution{of}{' that is ' + status if status else ''}.", markup=False)
        return
    rows = [["execution", "pipeline", "status", "started", "took", "name"]]
    for each in found:
        rows.append(
            [
                each["PipelineExecutionArn"].rpartition("/")[2],
                each["PipelineName"],
                each["PipelineExecutionStatus"],
                each["StartTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S"),
                "" if each["Seconds"] is None else f"{each['Seconds']:.1f} s",
                each.get("PipelineExecutionDisplayName", ""),
            ]
        )
    show_rows(rows, [COLOURS.get(row[2]) for row in rows])


def find(clients: Clients, pipeline: str | None, status: str | None = None) -> list[dict[str, Any]]:
    """Executions as ListPipelineExecutions tells of them, each with its pipeline's name; the newest first.

    Raises: Refused for a pipeline that is not there, and a status that is none.
    """
    if status is not None and status not in (*COLOURS, "Executing"):
        raise Refused(f"--status takes Executing, Stopping, Stopped, Failed or Succeeded, not {status!r}.")
    names = [each["PipelineName"] for each in clients.every("sagemaker", "list_pipelines")]
    if pipeline is not None and pipeline not in names:
        raise Refused(f"There is no pipeline {pipeline!r}; there are {', '.join(sorted(names)) or 'none'}.")
    found = [
        {"PipelineName": name, **each}
        for name in names if pipeline in (None, name)
        for each in clients.every("sagemaker", "list_pipeline_executions", PipelineName=name)
        if status in (None, each["PipelineExecutionStatus"])
    ]  # fmt: skip
    return sorted(found, key=lambda each: each["StartTime"], reverse=True)


def _seconds(clients: Clients, execution: dict[str, Any]) -> float | None:
    """How long an execution took, or takes already."""
    started = execution["StartTime"]
    if execution["PipelineExecutionStatus"] not in dag.ENDED:
        return round(float((datetime.now(started.tzinfo) - started).total_seconds()), 1)
    arn = execution["PipelineExecutionArn"]
    ended = clients["sagemaker"].describe_pipeline_execution(PipelineExecutionArn=arn).get("LastModifiedTime")
    return round(float((ended - started).total_seconds()), 1) if ended else None


def stop(
    execution: Annotated[str, typer.Argument(help="An execution's id or ARN.")],
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    data: DataOption = None,
) -> None:
    """Stop an execution: no further step starts, and what runs has SIGTERM, and two minutes to end."""
    settings, about = world.listing(data)
    clients = Clients(settings, about)
    arn = execution_of(clients, execution)
    if arn is None:
        raise Refused(f"There is no execution {execution!r}; `{world.typed('executions', settings)}` lists them.")
    sagemaker = clients["sagemaker"]
    try:
        sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
        told = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    except ClientError as fault:
        raise Failed(str(fault.response["Error"]["Message"])) from None
    state = told["PipelineExecutionStatus"]
    if as_json:
        print(json.dumps({"PipelineExecutionArn": arn, "PipelineExecutionStatus": state}, indent=2))
        return
    console.print(f"{arn} is {state}.", soft_wrap=True, markup=False)
    if state == "Stopping":
        for remark in logs_of(clients, arn, None, settings).waits:
            console.print(f"{remark}; a stop does not end it.", soft_wrap=True, markup=False)
        console.print(f"Its end: {world.typed('logs', settings)} --follow {arn.rpartition('/')[2]}", soft_wrap=True, markup=False)
