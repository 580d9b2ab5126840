"""fault add|list|clear: errors in the way of named steps and jobs, to see what retry policies do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import Refused, server
from penstock.cli import world
from penstock.cli.world import DataOption, JsonOption
from penstock.kernel import ids
from penstock.kernel.app import App
from penstock.services.sagemaker import faults
from penstock.settings import Settings
from penstock.store.records import Change, Document, Query, Wake

app = typer.Typer(help="Errors in the way of named steps and jobs, to try retry policies.", no_args_is_help=True)
AccountOption = Annotated[
    str | None, typer.Option("--account", help="The account whose jobs are meant.", show_default="the first account")
]


@app.command()
def add(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(faults.KINDS)}.")],
    target: Annotated[str, typer.Argument(help="The name of steps (or, of jobs that fail, of jobs); * and ? are wild.")],
    times: Annotated[int, typer.Option("--times", "-n", min=1, max=1000, help="How often it happens.")] = 1,
    after: Annotated[
        float, typer.Option(min=0.0, help="Of spot-interruption: seconds that the program has run by then.")
    ] = 0.0,
    gap: Annotated[
        float, typer.Option(min=0.0, help="Of spot-interruption: seconds until there is spot capacity again.")
    ] = 0.0,
    as_json: JsonOption = False,
    account: AccountOption = None,
    data: DataOption = None,
) -> None:
    """Have the next steps or jobs of that name meet an error.

    throttling, service-fault and resource-limit are what a step's call is answered; with capacity and internal-error its
    job is made, and fails. spot-interruption takes the instances from a running job with managed spot training: its program
    is stopped, its checkpoints go to S3, and it begins again with them.
    """
    if kind not in faults.INTERRUPTIONS and (after or gap):
        raise Refused("--after and --gap are for spot-interruption.")
    if kind not in faults.KINDS:
        raise Refused(f"There is no fault {kind!r}; there are {', '.join(faults.KINDS)}.")
    settings, whose = _about(data, account)
    with server.at_store(settings) as app:
        made = faults.make(whose, ids.word(6), kind, target, times, app.clock.now(), after, gap)
        app.store.commit(Change(puts=[made], wakes=_running(app, whose) if kind in faults.INTERRUPTIONS else []))
    print(json.dumps(_shown(made), indent=2) if as_json else _tell(made))


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
    account: AccountOption = None,
    data: DataOption = None,
) -> None:
    """List the faults that have not happened yet."""
    settings, whose = _about(data, account)
    with server.at_store(settings) as app:
        found = app.store.page(faults.of_account(whose))
    if as_json:
        print(json.dumps([_shown(fault) for fault in found], indent=2))
    else:
        print("\n".join(map(_tell, found)) or "There are no faults.")


@app.command()
def clear(
    number: Annotated[str | None, typer.Argument(help="Only the fault of this id.", show_default=False)] = None,
    account: AccountOption = None,
    data: DataOption = None,
) -> None:
    """Take faults back."""
    settings, whose = _about(data, account)
    with server.at_store(settings) as app:
        found = [fault for fault in app.store.page(faults.of_account(whose)) if number in (None, fault.name)]
        if number and not found:
            raise Refused(f"There is no fault {number!r}.")
        if found:
            app.store.commit(Change(deletes=found))
    print(f"{len(found)} taken back.")


def _running(app: App, account: str) -> list[Wake]:
    """A look at each training job that runs: it must know when it is to be interrupted."""
    query = Query(kind="sagemaker.training-job", account=account, status="InProgress", limit=100_000)
    return [Wake(**job.ref._asdict(), due=app.clock.now()) for job in app.store.page(query)]


def _about(data: Path | None, account: str | None) -> tuple[Settings, str]:
    """The settings of a server that is up, and the account meant."""
    settings, _ = world.listing(data)
    if account is not None and account not in server.list_accounts(settings):
        raise Refused(f"There is no account {account}.")
    return settings, account or world.credentials(settings)["account"]


def _shown(fault: Document) -> dict[str, Any]:
    return {"Id": fault.name, **fault.body}


def _tell(fault: Document) -> str:
    body = fault.body
    timing = [f", {words} {body[name]:g} s" for name, words in (("After", "after"), ("Gap", "capacity again after")) if body.get(name)]
    return f"{fault.name}  {body['Fault']} for {body['Target']}, {body['Left']} more{''.join(timing)}"
