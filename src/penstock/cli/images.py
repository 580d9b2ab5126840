"""image list|pull|add: the environments that image URIs become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from penstock import Refused, server
from penstock.cli import world
from penstock.cli.world import DataOption
from penstock.runs.base import ImageError

app = typer.Typer(help="What image URIs become on this machine.", no_args_is_help=True)
console = Console(highlight=False)


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False, data: DataOption = None
) -> None:
    """List the images: what each holds, and which are built."""
    known = server.images_of(world.settings_of(data)).known()
    if as_json:
        print(json.dumps(known, indent=2, default=str))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "framework", "python", "libraries", "state"):
        table.add_column(column, overflow="fold")
    for row in known:
        libraries = row.get("libraries") or {}
        text = (
            ", ".join(f"{name} {version}" for name, version in list(libraries.items())[:5])
            if isinstance(libraries, dict)
            else str(libraries)
        )
        table.add_row(
            str(row.get("uri")), str(row.get("framework")), str(row.get("python")), text, str(row.get("state"))
        )
    console.print(table)


@app.command()
def pull(
    uris: Annotated[list[str], typer.Argument(help="Image URIs, or their last part (sagemaker-xgboost:1.7-1).")],
    data: DataOption = None,
) -> None:
    """Build the environments of images now, so that no job waits for them."""
    images = server.images_of(world.settings_of(data))
    for uri in uris:
        try:
            with console.status(f"{uri} ...") as status:
                found = images.pull(uri, lambda line: status.update(f"{uri}: {line}"))  # noqa: B023
        except ImageError as fault:
            raise Refused(str(fault)) from None
        console.print(f"[green]✔[/green] {found.note or uri}", soft_wrap=True)


@app.command()
def add(
    uri: Annotated[str, typer.Argument(help="The URI that pipelines will name.")],
    requirements: Annotated[
        Path, typer.Option("--requirements", "-r", help="A requirements file.", exists=True, dir_okay=False)
    ],
    python: Annotated[str | None, typer.Option(help="The Python version.", show_default="3.11")] = None,
    base: Annotated[str | None, typer.Option("--from", help="An image to build upon.", show_default=False)] = None,
    data: DataOption = None,
) -> None:
    """Add an image of your own: a URI, and the requirements that it stands for."""
    images = server.images_of(world.settings_of(data))
    try:
        images.add(uri, requirements=requirements.read_text().splitlines(), python=python, base_uri=base)
    except ImageError as fault:
        raise Refused(str(fault)) from None
    console.print(
        f"{uri} is known now; it is built when first used, or by `penstock image pull {uri}`.", soft_wrap=True
    )
