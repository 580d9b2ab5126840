"""serve: the server's own process; `up` becomes it, or starts it in the background."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Annotated, Any

import typer

from penstock.cli import family, world
from penstock.cli.world import DataOption
from penstock.keeper import Keeper


def serve(
    data: DataOption = None,
    host: str | None = None,
    port: int | None = None,
    doorway_port: int | None = None,
    fronts: int | None = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    ready_fd: int | None = None,
) -> None:
    """Be the server until told to end. Tells that it is ready on a descriptor, or to the person."""
    settings = world.settings_of(data, host=host, port=port, doorway_port=doorway_port, fronts=fronts)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )

    def ready(about: dict[str, Any]) -> None:
        if ready_fd is None:
            family.show(about, settings, as_json)
            return
        os.write(ready_fd, json.dumps(about).encode() + b"\n")
        os.close(ready_fd)

    Keeper(settings, up=world.typed("up", settings)).run(ready)
    if ready_fd is None and not as_json:
        family.tell_down(settings)
