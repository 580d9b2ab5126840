"""up, down, reset, doctor: the server itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import Refused, presence, server
from penstock.cli import checks, world
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption, JsonOption
from penstock.runs import runner
from penstock.runs.base import RUNNING, STARTING
from penstock.runs.folder import RunFolder
from penstock.settings import Settings

console = screen()
STOP_S = 30.0
END_S = 10.0


class UpAlready(Refused):
    """The server that was to be started is there."""

    code = 1


def up(
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API; 0 takes a free one, for the proxy too if none is given.", show_default="4600")
    ] = None,
    doorway_port: Annotated[
        int | None, typer.Option(help="Port of the forward proxy; 0 takes a free one.", show_default="4601")
    ] = None,
    fronts: Annotated[int | None, typer.Option(help="Processes that answer the API.", show_default="1")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what clients need as a JSON object.")] = False,
) -> None:
    """Start the server: in front of you, or with --detach in the background.

    Where one is up on the folder already, it is left as it is and told of: exit code 0 with --detach, 1 without.
    """
    if port == 0 and doorway_port is None:
        doorway_port = world.doorway_beside()  # who has no free port in mind has none for the proxy
    settings = world.settings_of(data, host=host, port=port, doorway_port=doorway_port, fronts=fronts)
    about = presence.running(settings.data)
    if detach:
        world.tell_other_port(about, port)
        if about is None:
            warn_of_engine(settings)
        show(about or world.ensure_up(settings, quiet=True), settings, as_json, already=bool(about))
        return
    if about:
        raise UpAlready(f"A server is up already, at {about['url']} (pid {about['pid']}); `{world.typed('down', settings)}` stops it.")
    warn_of_engine(settings)
    command = world.server_command(settings, *(["--json"] if as_json else []))
    os.execv(command[0], command)  # noqa: S606 - the process that the person started is the server


def warn_of_engine(settings: Settings) -> None:
    """A line where the container engine that was chosen is not there; the server starts all the same."""
    if settings.docker:
        try:
            server.try_containers(settings)
        except Refused as why:
            print(f"penstock: {why} Images that only it has are refused until it does.", file=sys.stderr)


def show(about: dict[str, Any], settings: Settings, as_json: bool, already: bool = False) -> None:
    keys = world.credentials(settings)
    if as_json:
        print(
            json.dumps({**about, "credentials": {k: v for k, v in keys.items() if k != "proxy_token"}}, indent=2),
            flush=True,
        )
        return
    since = "was up already" if already else "is up"
    console.print(f"[bold]Penstock[/bold] {since} at [bold cyan]{about['url']}[/bold cyan]   (data: {theirs(settings.data)})")
    console.print(f"  account      {keys['account']}, region {theirs(settings.region)}")
    console.print(f"  access key   {keys['access_key_id']}   (secret: `{theirs(world.typed('env', settings))}`)")
    console.print(f"  role         {theirs(keys['role_arn'])}")
    console.print(
        f"  next         [green]{theirs(world.typed('exec', settings))} -- python your_pipeline.py[/green]   or   "
        f"[green]{theirs(world.typed('demo', settings))}[/green]"
    )


def down(
    data: DataOption = None,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also end running jobs; otherwise they go on, and the next start finds them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the server."""
    settings = world.settings_of(data)
    about = presence.running(settings.data)
    if about is None and not presence.held(settings.data):
        if not jobs or not (ended := end_runs(settings)):
            raise Refused(f"No server is up on {settings.data}.")
        if as_json:
            return tell_down(settings, as_json)
        return console.print(f"No server was up; {ended} run(s) that it had left are ended.")
    if about:
        with suppress(ProcessLookupError):  # killed a moment ago; its children are about to end
            os.kill(int(about["pid"]), signal.SIGTERM)
    if not presence.await_gone(settings.data, STOP_S):
        raise Refused(f"The server does not end; see {settings.data / 'server.log'}.")
    if jobs:
        end_runs(settings)
    tell_down(settings, as_json)


def tell_down(settings: Settings, as_json: bool = False) -> None:
    going_on = runs_that_go_on(settings)
    if as_json:
        print(json.dumps({"jobs_that_go_on": going_on}))
        return
    console.print(
        "The server is down."
        + (f" {going_on} running job(s) go on; `{world.typed('down', settings)} --jobs` would have ended them." if going_on else "")
    )


def runs_of(settings: Settings) -> list[RunFolder]:
    folder = settings.data / "runs"
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [RunFolder(path) for path in paths if (path / "spec.json").exists()]


def goes_on(folder: RunFolder) -> bool:
    """Whether a supervisor holds the run."""
    state = folder.look()
    return state is not None and state.phase in (STARTING, RUNNING) and (folder.path / "lock").exists()


def runs_that_go_on(settings: Settings) -> int:
    """How many jobs go on without a server. A function's worker is none: the server ended it, or it ends soon."""
    return sum(goes_on(folder) and not _serves_function(folder) for folder in runs_of(settings))


def _serves_function(folder: RunFolder) -> bool:
    with suppress(FileNotFoundError):  # removed a moment ago
        return folder.order().spec.share == "functions"
    return False


def end_runs(settings: Settings) -> int:
    """Ends the runs that go on without a server, and the runner that a killed server left behind; gives how many there were."""
    live = [folder for folder in runs_of(settings) if goes_on(folder)]
    for folder in live:
        folder.ask_stop("stopped")
    deadline = time.monotonic() + END_S
    while any(map(goes_on, live)) and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(OSError, ValueError):
        runner.ask(settings.data, {"op": "quit"})
    return len(live)


def reset(
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="Also the environments of images, which take seconds to build again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete all state of the data folder: jobs, objects, models, credentials. What is not Penstock's stays."""
    settings = world.settings_of(data)
    if presence.held(settings.data):
        raise Refused("The server is up: `penstock down` first.")
    if not settings.data.exists():
        raise Refused(f"There is no folder {settings.data}.")
    if not presence.is_data_folder(settings.data):
        raise Refused(f"{settings.data} is no data folder of Penstock's: nothing was deleted.")
    entries = sorted(settings.data.iterdir())
    kept = [path for path in entries if not presence.is_part(path) or (path.name == "images" and not images)]
    if as_json and not yes:
        raise Refused("--json asks nothing: give --yes, too.")
    if not yes:
        typer.confirm(f"Delete Penstock's state in {settings.data}{_but_for(kept)}?", abort=True)
    end_runs(settings)
    for path in entries:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(
                missing_ok=True
            )
    if as_json:
        print(json.dumps({"data": str(settings.data), "kept": [path.name for path in kept]}))
        return
    console.print(f"{theirs(settings.data)} is empty{theirs(_but_for(kept))}.")


def _but_for(kept: list[Path]) -> str:
    """What is not deleted, as the rest of a sentence."""
    names = ["its images" if path.name == "images" else path.name for path in kept]
    return f" but for {', '.join(names)}" if names else ""


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
            console.print(f" {mark}  {check.name:<12} {theirs(check.sentence)}")
            if check.remedy:
                console.print(f"                  [bold]{theirs(check.remedy)}[/bold]")
    raise typer.Exit(1 if any(c.state == "bad" for c in found) else 0)
