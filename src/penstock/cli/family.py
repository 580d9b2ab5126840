"""up, down, reset, doctor: the server itself."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from penstock import Refused, keeper
from penstock.cli import checks, world
from penstock.cli.world import DataOption

console = Console(highlight=False)


def up(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 takes a free one.", show_default="4600")] = None,
    doorway_port: Annotated[
        int | None, typer.Option(help="Port of the forward proxy; 0 takes a free one.", show_default="4601")
    ] = None,
    fronts: Annotated[int | None, typer.Option(help="Processes that answer the API.", show_default="1")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what clients need as a JSON object.")] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the server: in front of you, or with --detach in the background."""
    settings = world.settings_of(data, host=host, port=port, doorway_port=doorway_port, fronts=fronts)
    if detach:
        if about := keeper.running(settings.data):
            raise Refused(f"A server is up already, at {about['url']} (pid {about['pid']}).")
        show(world.start_detached(settings, quiet=True), settings, as_json)
        return
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )

    def ready(about: dict[str, Any]) -> None:
        if ready_fd is not None:
            os.write(ready_fd, json.dumps(about).encode() + b"\n")
            os.close(ready_fd)
        else:
            show(about, settings, as_json)

    keeper.Keeper(settings).run(ready)


def show(about: dict[str, Any], settings: Any, as_json: bool) -> None:
    keys = world.credentials(settings)
    if as_json:
        print(
            json.dumps({**about, "credentials": {k: v for k, v in keys.items() if k != "proxy_token"}}, indent=2),
            flush=True,
        )
        return
    console.print(f"[bold]Penstock[/bold] is up at [bold cyan]{about['url']}[/bold cyan]   (data: {settings.data})")
    console.print(f"  account      {keys['account']}, region {settings.region}")
    console.print(f"  access key   {keys['access_key_id']}   (secret: `penstock env`)")
    console.print(f"  role         {keys['role_arn']}")
    console.print(
        "  next         [green]penstock exec -- python your_pipeline.py[/green]   or   [green]penstock demo[/green]"
    )


def down(
    data: DataOption = None,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also end running jobs; otherwise they go on, and the next start finds them.")
    ] = False,
) -> None:
    """Stop the server."""
    settings = world.settings_of(data)
    about = keeper.running(settings.data)
    if about is None:
        raise Refused(f"No server is up on {settings.data}.")
    with suppress(ProcessLookupError):  # killed a moment ago; its children are about to end
        os.kill(int(str(about["pid"])), signal.SIGTERM)
    if not world.wait_gone(settings.data, 30):
        raise Refused(f"The server (pid {about['pid']}) does not end; see {settings.data / 'server.log'}.")
    left = keeper.end_runs(settings, kill=jobs)
    console.print(
        "The server is down."
        + (f" {left} running job(s) go on; `penstock down --jobs` would end them." if left else "")
    )


def reset(
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Also the environments of images, which take seconds to build again.")
    ] = False,
) -> None:
    """Delete all state of the data folder: jobs, objects, models, credentials."""
    settings = world.settings_of(data)
    if keeper.running(settings.data):
        raise Refused("The server is up: `penstock down` first.")
    if not settings.data.exists():
        raise Refused(f"There is no folder {settings.data}.")
    kept = () if images else ("images",)
    parts = [path for path in sorted(settings.data.iterdir()) if path.name not in kept]
    if not yes:
        typer.confirm(f"Delete everything in {settings.data}{' but its images' if kept else ''}?", abort=True)
    keeper.end_runs(settings, kill=True)
    for path in parts:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(
            missing_ok=True
        )
    console.print(f"{settings.data} is empty{' but for its images' if kept else ''}.")


def doctor(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
) -> None:
    """Look at the machine: what Penstock needs, what is there, and what to do where something is missing."""
    found = checks.examine(world.settings_of(data))
    if as_json:
        print(
            json.dumps(
                [{"name": c.name, "state": c.state, "sentence": c.sentence, "remedy": c.remedy} for c in found],
                indent=2,
            )
        )
    else:
        for check in found:
            mark = {"good": "[green]ok[/green]", "poor": "[yellow]--[/yellow]", "bad": "[red]no[/red]"}[check.state]
            console.print(f" {mark}  {check.name:<12} {check.sentence}")
            if check.remedy:
                console.print(f"                  [bold]{check.remedy}[/bold]")
    raise typer.Exit(1 if any(c.state == "bad" for c in found) else 0)
