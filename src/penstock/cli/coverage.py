"""coverage: what is served of each service."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from penstock import Refused, server
from penstock.services import SERVICES


def coverage(
    service: Annotated[
        str | None, typer.Argument(help="One service, operation by operation.", show_default="all, a line each")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object: operation names, by service.")] = False,
) -> None:
    """Print which of AWS's operations are served."""
    if service is not None and service not in SERVICES:
        raise Refused(f"There is no service {service!r} here; there are {', '.join(SERVICES)}.")
    found = {name: server.coverage_of(name) for name in ([service] if service else SERVICES)}
    if as_json:
        print(json.dumps(found, indent=2))
    elif service:
        for operation, served in found[service].items():
            print(f"{'yes' if served else ' - '}  {operation}")
    else:
        width = max(map(len, found))
        for name, operations in found.items():
            print(f"{name:<{width}}  {sum(operations.values()):>4} of {len(operations):>4}")
