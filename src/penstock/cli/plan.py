"""plan: what a pipeline would do, take and cost at AWS, before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from penstock import Refused, server
from penstock.cli import pipelines, world
from penstock.cli.clients import Clients
from penstock.cli.costs import money
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines import plan as plans
from penstock.services.sagemaker.pipelines.checks import Malformed
from penstock.services.sagemaker.pipelines.definition import parse
from penstock.services.sagemaker.pipelines.state import PIPELINE
from penstock.settings import Settings
from penstock.store.records import Document

console = screen()
STYLES = {"runs": "cyan", "unknown": "yellow", "decided": "yellow", "fails": "red", "hit": "green", "skipped": "dim", "at once": "dim"}
WORDS = {"unknown": "runs, or hit", "decided": "decided later"}
BELOW = ("after", "instances", "type", "last time", "at AWS")
"""Columns that give way in a narrow terminal, the first first."""
GAP = 2


def plan(
    what: Annotated[str, typer.Argument(metavar="SCRIPT|PIPELINE", help="A script that upserts a pipeline, or a pipeline's name.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments for the script.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A pipeline parameter: Name=value. Repeatable.")
    ] = None,
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline to plan, when the script upserts several.")] = None,
    python: Annotated[
        str, typer.Option(help="The interpreter for the script.", show_default="the python on PATH")
    ] = "python",
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    data: DataOption = None,
) -> None:
    """Tell what a pipeline would do: its steps, what the cache has of them, their instances, time and price at AWS.

    Nothing is started, unless the script itself starts its pipeline. Times are those of earlier runs on this machine.
    """
    given = pipelines.pairs(parameter)
    settings = world.settings_of(data)
    about = world.ensure_up(settings, quiet=as_json)
    name = what
    if Path(what).suffix == ".py":
        clients = Clients(settings, about)
        began = pipelines.run_script(settings, about, Path(what), arguments, python, as_json)
        if pipelines.started(clients, began, pipeline):
            Console(stderr=True).print("[yellow]The script started the pipeline itself: it runs.[/yellow]")
        name = pipeline or pipelines.only_upserted(clients, began, Path(what))
    told = planned(settings, name, given)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _draw(told)


def planned(settings: Settings, name: str, given: dict[str, str]) -> dict[str, Any]:
    """The plan of a pipeline of the person's own account.

    Raises: Refused with a sentence.
    """
    account = world.credentials(settings)["account"]
    with server.at_store(settings) as app:
        stand_in = Document(kind=PIPELINE.kind, account=account, region=settings.region, name=name)
        call = app.step_call(stand_in, app.clock.now())
        call.patient = True
        found = PIPELINE.find(call, name)
        if found is None:
            there = ", ".join(sorted(each.name for each in PIPELINE.all(call))[:20]) or "none"
            what = f"{name} is no script (*.py) and no pipeline" if Path(name).is_file() else f"There is no script and no pipeline {name!r}"
            raise Refused(f"{what}. The pipelines: {there}.")
        version = plans.version_of(call, found)
        try:
            return plans.plan(call, found, version, given)
        except Malformed as fault:
            known = ", ".join(parse(version.body["PipelineDefinition"]).parameters) or "no parameters"
            raise Refused(f"{str(fault).rstrip('.')}. {name} has {known}.") from None
        except ServiceError as fault:
            raise Refused(fault.message) from None


def _draw(told: dict[str, Any]) -> None:
    console.print(f"[bold]Pipeline {theirs(told['pipeline'])}[/bold]  version {told['version']}  [dim]cache {told['cache']}[/dim]")
    if told["parameters"]:
        values = ", ".join(f"{name}={value}" for name, value in told["parameters"].items())
        console.print(theirs(values), style="dim", soft_wrap=True)
    rows = [_row(step) for step in told["steps"]]
    shown = _fitting(rows, console.width)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for column in shown:
        table.add_column(column, justify="right" if column in ("last time", "at AWS") else "left", no_wrap=True)
    for row, step in zip(rows, told["steps"], strict=True):
        style = STYLES[step["expected"]]
        table.add_row(*(f"[{style}]{row[column]}[/{style}]" if column == "expected" else theirs(row[column]) for column in shown))
    console.print(table)
    if not all(step["reached"] for step in told["steps"]):
        console.print("? in a branch that is decided later: the step may not be reached.", style="dim", soft_wrap=True)
    for row, step in zip(rows, told["steps"], strict=True):
        below = "; ".join(f"{column} {row[column]}" for column in row if column not in shown and row[column])
        console.print(f"[bold]{theirs(step['step'])}[/bold]  {theirs(step['why'])}.", soft_wrap=True, end="")
        console.print(f"  [dim]({theirs(below)})[/dim]" if below else "", soft_wrap=True)
    _total(told)


def _row(step: dict[str, Any]) -> dict[str, str]:
    return {
        "step": ("" if step["reached"] else "? ") + step["step"],
        "type": step["type"],
        "after": ", ".join(step["after"]),
        "expected": WORDS.get(step["expected"], step["expected"]),
        "instances": _instances(step),
        "last time": "" if not step["jobs"] else "never run" if step["last_s"] is None else f"{step['last_s']:.0f} s",
        "at AWS": "" if not step["jobs"] else money(step["usd"]),
    }


def _fitting(rows: list[dict[str, str]], width: int) -> list[str]:
    """The columns that have room side by side with no word broken; the others stand with the steps' reasons below."""
    widths = {column: max(map(cell_len, (column, *(row[column] for row in rows)))) for column in (rows[0] if rows else ())}
    for column in BELOW:
        if sum(widths.values()) + GAP * (len(widths) - 1) > width:
            widths.pop(column, None)
    return list(widths)


def _instances(step: dict[str, Any]) -> str:
    if not step["jobs"]:
        return ""
    uses = [f"{use['instances'] or '?'} x {use['instance_type'] or '?'}" for use in step["uses"]] or ["?"]
    return ", ".join(uses) + (f", up to {step['jobs']} jobs" if step["type"] == "Tuning" else "")


def _total(told: dict[str, Any]) -> None:
    most = f", with the branches that are decided later at most {money(told['usd_most'])}" if told["usd_most"] > told["usd"] else ""
    console.print(f"[bold]At AWS: {money(told['usd'])}[/bold]{most}.", soft_wrap=True)
    if told["unknown"]:
        console.print(f"[yellow]Not known, and not in it: {theirs(', '.join(told['unknown']))}.[/yellow]", soft_wrap=True)
    for kind in told["unpriced"]:
        console.print(f"[yellow]There is no price for {theirs(kind)}.[/yellow]", soft_wrap=True)
    console.print(f"Prices: {told['prices']}", style="dim", soft_wrap=True)
