"""explain: why the steps of an execution hit the cache or missed it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from penstock import Refused, server
from penstock.cli import world
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption
from penstock.services.sagemaker.pipelines import explain as pipelines

console = screen()
MARKS = {
    "hit": "[green]hit[/green]",
    "reused": "[green]reused[/green]",
    "off": "[dim]off[/dim]",
    "none": "[dim]none[/dim]",
    "did not run": "[dim]did not run[/dim]",
}
WORDS = {
    "hit": "an earlier result was taken",
    "first": "nothing to compare with yet",
    "changed": "an attribute of the key differs",
    "expired": "the result is too old",
    "refused": "the bytes at an input changed",
    "gone": "the result is not there any more",
    "off": "caching is not on",
    "none": "the type is never cached",
    "reused": "not selected",
    "waiting": "not begun",
}
"""What each outcome means, said below the steps."""
SIDES = {"before": "[red]-[/red]", "now": "[green]+[/green]"}


def explain(
    execution: Annotated[str, typer.Argument(help="An execution's id or ARN.")],
    step: Annotated[str | None, typer.Argument(help="Only this step.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list, an object a step.")] = False,
    data: DataOption = None,
) -> None:
    """Tell why each step of an execution hit the cache or missed it, attribute by attribute.

    hit: an earlier result was taken. All others were run, if they were: first, nothing to compare with yet; changed, an attribute
    of the key differs; expired, the result is too old; refused, the bytes at an input changed; gone, the result is not there any
    more; off, caching is not on; none, the type is never cached. reused: not selected. waiting: not begun. did not run: the
    execution ended without it.
    """
    settings, _ = world.listing(data)
    with server.at_store(settings) as app:
        found = pipelines.find_execution(app.store, execution)
        if found is None:
            raise Refused(f"There is no execution {execution!r}; `{world.typed('executions', settings)}` lists them.")
        try:
            told = pipelines.explain(app.store, found, step)
        except LookupError:
            raise Refused(f"The definition of {found.arn} has no step {step!r}.") from None
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for each in told:
        _print(each)
    words = {each["outcome"]: WORDS[each["outcome"]] for each in told if each["outcome"] in WORDS}
    if words:
        console.print("; ".join(f"{word}: {means}" for word, means in words.items()) + ".", style="dim", soft_wrap=True)


def _print(told: dict[str, Any]) -> None:
    mark = MARKS.get(told["outcome"], f"[yellow]{told['outcome']}[/yellow]")
    mode = f" [dim]({told['mode']})[/dim]" if "mode" in told else ""
    console.print(f"[bold]{theirs(told['step'])}[/bold]  {mark}{mode}  {theirs(told['why'])}.", soft_wrap=True)
    for difference in told.get("differences", []):
        console.print(f"    {theirs(difference['attribute'])}", soft_wrap=True)
        for side, sign in SIDES.items():
            if difference.get(side) is not None:
                console.print(f"      {sign} {theirs(json.dumps(difference[side]))}", soft_wrap=True)
    for number, attempt in enumerate(told.get("attempts", []), 1):
        pause_s = attempt["again"] - attempt["at"]
        console.print(
            f"    attempt {number}: {theirs(attempt['exception'])}, again after {pause_s:g} s. {theirs(attempt['reason'])}", soft_wrap=True
        )
    if "unkept" in told:
        console.print(f"    {theirs(told['unkept'])}.", soft_wrap=True)
