"""cost: what AWS would have billed for an execution, step by step; the end of `penstock run` says the sum."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from penstock import Refused, server
from penstock.cli import dag, world
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption
from penstock.services.sagemaker.pipelines import bills
from penstock.services.sagemaker.pipelines.explain import find_execution
from penstock.settings import Settings

console = screen()


def cost(
    execution: Annotated[str, typer.Argument(help="An execution's id or ARN.")],
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
    data: DataOption = None,
) -> None:
    """Tell what AWS would have billed for each step of an execution: billable seconds, times instances, times their price."""
    settings, _ = world.listing(data)
    told = billed(settings, execution)
    if told is None:
        raise Refused(f"There is no execution {execution!r}; `{world.typed('executions', settings)}` lists them.")
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for step in told["steps"]:
        console.print(f"[bold]{theirs(step['step'])}[/bold]  {_why(step)}", soft_wrap=True)
        for job in step["jobs"]:
            for use in job["uses"]:
                ran = "" if use["ran_s"] == use["billable_s"] else f" (ran {use['ran_s']:.0f} s)"
                console.print(
                    f"    {use['instances']} x {theirs(use['instance_type'])}, {use['billable_s']:.0f} s{ran}: {money(use['usd'])}"
                    f"  [dim]{theirs(job['job'].rpartition('/')[2])}[/dim]", soft_wrap=True,
                )  # fmt: skip
    print_total(told)


def _why(step: dict[str, Any]) -> str:
    if step["cached"]:
        return "$0  [dim]an earlier result was taken[/dim]"
    return money(step["usd"]) if step["jobs"] or step["status"] not in dag.ENDED else "$0"


def billed(settings: Settings, execution: str) -> dict[str, Any] | None:
    """The bill of an execution; None where there is none of that id or ARN."""
    with server.at_store(settings) as app:
        found = find_execution(app.store, execution)
        return None if found is None else bills.bill(app.store, found)


def print_total(told: dict[str, Any]) -> None:
    """The bill's sum, as the end of `penstock run` shows it, too."""
    unknown = f"; there is no price for {theirs(', '.join(told['unknown']))}" if told["unknown"] else ""
    open_ = "" if told["status"] in dag.ENDED else " so far"
    console.print(f"AWS would have billed{open_} [bold]{money(told['usd'])}[/bold]{unknown}.", soft_wrap=True)
    if any(job["uses"] for step in told["steps"] for job in step["jobs"]):
        words = "The seconds are those of this machine; AWS's instances take others."
        console.print(f"{words} Prices: {told['prices']}", style="dim", soft_wrap=True)


def money(usd: float | None) -> str:
    return "unknown" if usd is None else "$0" if not usd else f"${usd:.6f}" if usd < 0.01 else f"${usd:.2f}"
