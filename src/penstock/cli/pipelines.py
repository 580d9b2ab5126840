"""run: a script that defines pipelines, then the pipeline, drawn while it runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from penstock import Refused
from penstock.cli import costs, dag, world
from penstock.cli.clients import Clients, answering
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption, PortOption
from penstock.settings import Settings

console = screen()


def run(
    script: Annotated[Path, typer.Argument(help="A Python script that upserts a pipeline with any AWS client.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments for the script.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A pipeline parameter: Name=value. Repeatable.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Which pipeline to start, when the script upserts several.")
    ] = None,
    python: Annotated[
        str, typer.Option(help="The interpreter for the script.", show_default="the python on PATH")
    ] = "python",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as a JSON object; nothing is drawn.")
    ] = False,
    data: DataOption = None,
    port: PortOption = None,
) -> None:
    """Run a script, start the pipeline it upserted (unless the script did), and draw it live.

    Exit code: 0 when the execution succeeded, 1 when it failed or was stopped, 2 when there was nothing to run, 3 when the server
    stopped answering: the execution goes on after `penstock up`.
    """
    given = pairs(parameter)
    parameters = [{"Name": name, "Value": value} for name, value in given.items()]
    settings = world.settings_at(data, port)
    about = world.ensure_up(settings, quiet=as_json)
    clients = Clients(settings, about)
    began = run_script(settings, about, script, arguments, python, as_json)
    arns = started(clients, began, pipeline)
    if not arns:
        name = pipeline or only_upserted(clients, began, script)
        arns = [start(clients, name, parameters)]
    elif parameters:
        console.print("[yellow]The script started the pipeline itself: the parameters given here had no say.[/yellow]")
    results = [follow(clients, arn, as_json, settings) for arn in arns]
    for arn, result in zip(arns, results, strict=True):
        told = costs.billed(settings, arn)
        if as_json:
            result["Cost"] = told
        elif told is not None:
            costs.print_total(told)
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 else results, indent=2, default=str))
    raise typer.Exit(0 if all(r["PipelineExecutionStatus"] == "Succeeded" for r in results) else 1)


def run_script(
    settings: Settings, about: dict[str, Any], script: Path, arguments: list[str] | None, python: str, quiet: bool
) -> float:  # fmt: skip
    """Runs a script that upserts pipelines; gives the moment at which it began.

    Raises: Refused where it cannot be run, or fails.
    """
    if not script.exists():
        raise Refused(f"There is no script {script}.")
    if script.suffix not in ("", ".py"):
        raise Refused(f"{script} is no Python script: its name does not end in .py.")
    began = time.time()
    try:
        ran = subprocess.run(
            [_python(python), str(script), *(arguments or [])],
            env=world.program_environment(settings, about),
            stdout=sys.stderr if quiet else None,
        )
    except OSError as fault:
        raise Refused(f"{python!r} cannot be run: {fault.strerror}.") from None
    if ran.returncode:
        raise Refused(f"{script} ended with exit code {ran.returncode}.{_sdk_hint(script, _python(python))}")
    return began


def follow(clients: Clients, arn: str, as_json: bool, settings: Settings | None = None) -> dict[str, Any]:
    """The execution until its end, drawn unless JSON is wanted, and why it failed."""
    name = arn.rpartition("/")[2]
    remark = f"{arn} goes on after `{world.typed('up', settings)}`; look at it with `{world.typed('logs', settings)} {name}`."
    try:
        with answering(remark):
            if as_json:
                view = dag.View(clients, arn)
                while not view.look():
                    time.sleep(dag.LOOK_S)
                return dag.summary(view)
            execution = dag.follow(clients, arn, console)
    except (KeyboardInterrupt, SystemExit):
        Console(highlight=False, stderr=as_json).print(
            f"The execution goes on. To stop it: [green]{theirs(world.typed('stop', settings))} {theirs(name)}[/green]",
            soft_wrap=True,
        )
        raise
    if reason := execution.get("FailureReason"):
        console.print(reason, style="red", soft_wrap=True, markup=False)
        console.print(f"The logs: [green]{theirs(world.typed('logs', settings))} {theirs(name)}[/green]", soft_wrap=True)
    return execution


def started(clients: Clients, since: float, pipeline: str | None) -> list[str]:
    """The executions that began since a moment, of that pipeline or of any."""
    found = []
    for each in clients.every("sagemaker", "list_pipelines", SortBy="CreationTime"):
        if pipeline not in (None, each["PipelineName"]):
            continue
        last = each.get("LastExecutionTime")
        if last is not None and last.timestamp() >= since - 1:
            executions = clients.every("sagemaker", "list_pipeline_executions", PipelineName=each["PipelineName"])
            found += [e["PipelineExecutionArn"] for e in executions if e["StartTime"].timestamp() >= since]
    return found


def only_upserted(clients: Clients, since: float, script: Path) -> str:
    """The one pipeline that was written since a moment; where a script changed none, the one that is there and that it names.

    Raises: Refused when it is none or several.
    """
    listed = list(clients.every("sagemaker", "list_pipelines"))
    names = sorted(p["PipelineName"] for p in listed if p["LastModifiedTime"].timestamp() >= since)
    if len(names) > 1:
        raise Refused(f"{script} upserted {', '.join(names)}: name one with --pipeline.")
    return str(names[0]) if names else _named(sorted(p["PipelineName"] for p in listed), script)


def _named(there: list[str], script: Path) -> str:
    """The one pipeline that a script names, which changed none: its create had a token that was used before, say."""
    text = script.read_text(errors="replace")
    named = [name for name in there if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    if len(named) == 1:
        told = f"{script} changed no pipeline (a create with a token that was used before changes nothing): {named[0]}, as it is there."
        Console(stderr=True).print(f"[yellow]{escape(told)}[/yellow]", soft_wrap=True)
        return named[0]
    hint = f" Name one that is there with --pipeline: {', '.join(there)}." if there else ""
    raise Refused(f"{script} upserted no pipeline and started none.{hint}")


def start(clients: Clients, name: str, parameters: list[dict[str, str]]) -> str:
    """Starts a pipeline; gives the execution's ARN.

    Raises: Refused with the service's sentence.
    """
    sagemaker = clients["sagemaker"]
    try:
        return str(
            sagemaker.start_pipeline_execution(PipelineName=name, PipelineParameters=parameters)["PipelineExecutionArn"]
        )
    except sagemaker.exceptions.ClientError as fault:
        message = str(fault.response["Error"]["Message"])
        if "Unknown parameter" in message:
            message = f"{message.rstrip('.')}. {name} has {', '.join(parameters_of(clients, name)) or 'no parameters'}."
        raise Refused(message) from None


def parameters_of(clients: Clients, name: str) -> list[str]:
    """The names of a pipeline's parameters."""
    told = clients["sagemaker"].describe_pipeline(PipelineName=name)
    return [each["Name"] for each in json.loads(told["PipelineDefinition"]).get("Parameters", [])]


def pairs(texts: list[str] | None) -> dict[str, str]:
    """Parameters as -p gives them.

    Raises: Refused.
    """
    given: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Refused(f"-p takes Name=value, not {text!r}.")
        if name in given:
            raise Refused(f"Duplicate parameter name '{name}'.")
        given[name] = value
    return given


def _sdk_hint(script: Path, python: str) -> str:
    """What to do where a script imports the SageMaker SDK and its Python has none; empty otherwise."""
    if not script.is_file() or not re.search(r"^\s*(import|from)\s+sagemaker\b", script.read_text(errors="replace"), re.M):
        return ""
    look = "import importlib.util as u, sys; sys.exit(u.find_spec('sagemaker') is None)"
    if subprocess.run([python, "-c", look], stderr=subprocess.DEVNULL).returncode == 0:
        return ""
    return (
        f" Its Python ({shutil.which(python) or python}) has no SageMaker SDK: name one that has with --python, "
        "such as that of an environment with `pip install 'sagemaker<3'`."
    )


def _python(name: str) -> str:
    return sys.executable if name == "python" and shutil.which("python") is None else name
