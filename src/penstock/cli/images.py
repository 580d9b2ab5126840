"""image list|pull|add|build|rm|prune: the environments that image URIs become."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock import Refused, server
from penstock.cli import world
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption, JsonOption
from penstock.runs import sandbox
from penstock.runs.base import ImageError, Input, Mount
from penstock.runs.images.build import Build, Workshop
from penstock.services.sagemaker import contract
from penstock.settings import Settings

app = typer.Typer(help="What image URIs become on this machine.", no_args_is_help=True)
console = screen()


class Failed(Refused):
    """An image that could not be made."""

    code = 1


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False, data: DataOption = None
) -> None:
    """List the images: what each holds, and which are built."""
    known = server.images_of(world.settings_of(data)).known()
    if as_json:
        print(json.dumps(known, indent=2, default=str))
        return
    rows = [["image", "framework", "python", "state", "libraries"]]
    for row in known:
        libraries = row.get("libraries") or {}
        text = (
            ", ".join(f"{name} {version}" for name, version in list(libraries.items())[:5])
            if isinstance(libraries, dict)
            else str(libraries)
        )
        rows.append([*(str(row.get(name)) for name in ("uri", "framework", "python", "state")), text])
    show_rows(rows)


def show_rows(rows: list[list[str]], styles: Sequence[str | None] = ()) -> None:
    """Prints rows, each in its style; a program gets them as they are, since rich makes blanks of tabs."""
    aligned = console.is_terminal
    for line, style in zip_longest(lines(rows, aligned), styles):
        console.print(line, soft_wrap=True, markup=False, style=style) if aligned else print(line)


def lines(rows: list[list[str]], aligned: bool) -> list[str]:
    """A line a row, no name broken: in columns for a person, between tabs for a program."""
    if not aligned:
        return ["\t".join(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


@app.command()
def pull(
    uris: Annotated[list[str], typer.Argument(help="Image URIs, or their last part (sagemaker-xgboost:1.7-1).")],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, as each is there.")] = False,
    data: DataOption = None,
) -> None:
    """Build the environments of images now, so that no job waits for them."""
    images = server.images_of(world.settings_of(data))
    for uri in uris:
        try:
            with progress(as_json).status(f"{theirs(uri)} ...") as status:
                found = images.pull(uri, lambda line: status.update(theirs(f"{uri}: {line}")))  # noqa: B023
        except ImageError as fault:
            raise Failed(str(fault)) from None
        if as_json:
            print(json.dumps({"uri": uri, "note": found.note}), flush=True)
        else:
            console.print(f"[green]✔[/green] {theirs(found.note or uri)}", soft_wrap=True)


@app.command()
def add(
    uri: Annotated[str, typer.Argument(help="The URI that pipelines will name.")],
    requirements: Annotated[
        Path, typer.Option("--requirements", "-r", help="A requirements file.", exists=True, dir_okay=False)
    ],
    python: Annotated[str | None, typer.Option(help="The Python version.", show_default="3.11")] = None,
    base: Annotated[str | None, typer.Option("--from", help="An image to build upon.", show_default=False)] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Add an image of your own: a URI, and the requirements that it stands for."""
    images = server.images_of(world.settings_of(data))
    try:
        images.add(uri, requirements=requirements.read_text().splitlines(), python=python, base_uri=base)
    except ImageError as fault:
        raise Refused(str(fault)) from None
    if as_json:
        print(json.dumps({"uri": uri}))
        return
    console.print(
        f"{uri} is known now; it is built when first used, or by `penstock image pull {uri}`.", soft_wrap=True, markup=False
    )


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="The folder that COPY takes from.", exists=True, file_okay=False)],
    tag: Annotated[str, typer.Option("--tag", "-t", help="The URI that pipelines will name.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The Dockerfile.", show_default="DIR/Dockerfile", dir_okay=False)
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Option("--build-arg", help="NAME=VALUE of an ARG.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--no-cache", help="Make every layer anew.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Build an image from a Dockerfile; starts a server if none is up."""
    settings = world.settings_of(data)
    given = dict(word.partition("=")[::2] for word in arguments or ())
    dockerfile = file or folder / "Dockerfile"
    if not dockerfile.exists():
        raise Refused(f"There is no {dockerfile}.")
    world.ensure_up(settings, quiet=as_json)
    try:
        made = Build(_workshop(settings, fresh), folder, dockerfile, given, partial(_tell, progress(as_json))).make(tag)
    except ImageError as fault:
        raise Failed(f"{dockerfile}: {fault}") from None
    if as_json:
        print(json.dumps({"uri": tag, "layers": len(made.layers), "size_bytes": made.size_bytes}))
        return
    console.print(f"[green]✔[/green] {theirs(tag)}: {len(made.layers)} layers, {made.size_bytes / 1e6:.0f} MB", soft_wrap=True)


def progress(as_json: bool) -> Console:
    """Where it is told what is being done: on stderr, where stdout is a program's."""
    return screen(stderr=True) if as_json else console


def _tell(out: Console, line: str) -> None:
    out.print(line, soft_wrap=True, markup=False, style="yellow" if line.startswith("warning: ") else None)


def _workshop(settings: Settings, fresh: bool) -> Workshop:
    """Where images are built: the running server's sandboxes, with its doorway and the machine's package indexes."""
    images = server.images_of(settings)
    packages, folders = images.packages()
    bundle = settings.data / "ca" / "bundle.pem"
    env = contract.run_environment(
        region=settings.region, key=None, hosts=(), certificates=bundle.exists(), image={}, packages=packages, own={},
        given={}, cpus=1,
    )  # fmt: skip
    for name in ("OMP_NUM_THREADS", "AWS_REGION", "AWS_DEFAULT_REGION"):
        del env[name]
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), contract.DOORWAY)
    return Workshop(
        data=settings.data,
        setup=sandbox.setup(str(settings.data / "sockets")),
        images=images,
        env={**env, **proxies, "PIP_NO_CACHE_DIR": "1", "PYTHONDONTWRITEBYTECODE": ""},
        inputs=[Input(target=contract.CERTIFICATES, blob=str(bundle))] if bundle.exists() else [],
        mounts=[Mount(each, each) for each in folders],
        fresh=fresh,
    )


@app.command("rm")
def remove(
    uris: Annotated[list[str], typer.Argument(help="URIs of images that you built or added.")],
    data: DataOption = None,
) -> None:
    """Forget images of your own; `image prune` gives their room back."""
    images = server.images_of(world.settings_of(data))
    for uri in uris:
        if not images.remove(uri):
            raise Refused(f"{uri} is no image that was built or added here.")
        console.print(f"{uri} is gone.", soft_wrap=True, markup=False)


@app.command()
def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Also environments that no job uses now; they are built again when needed.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Give back the room of layers and environments that no image stands on."""
    settings = world.settings_of(data)
    freed = server.images_of(settings).prune(settings.data / "runs", everything)
    console.print(f"{freed / 1e6:.0f} MB were given back.")
