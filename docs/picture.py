"""Runs `penstock demo` for real and draws what the terminal showed at its end into docs/demo.svg.

.venv/bin/python docs/picture.py [options of penstock demo]
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from penstock.cli import app, dag, demo, pipelines

COLUMNS = 136


def main() -> None:
    console = Console(record=True, width=COLUMNS, force_terminal=True, highlight=False, color_system="truecolor")
    console.status = lambda *_: nullcontext()  # type: ignore[assignment, method-assign] # its frames would be recorded one by one

    def follow(clients: Any, arn: str, _: Console) -> dict[str, Any]:
        view = dag.View(clients, arn)
        while not view.look():
            time.sleep(dag.LOOK_S)
        console.print(view.draw())  # the last frame alone
        return view.execution

    demo.Console = lambda **_: console  # type: ignore[assignment, misc]
    pipelines.console, dag.follow = console, follow
    console.print("$ [bold]penstock demo[/bold]")
    try:
        typer.main.get_command(app)(["demo", *sys.argv[1:]])
    except SystemExit as end:
        if end.code:
            raise
    drawn = console.export_svg(title="penstock demo", unique_id="demo")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S)  # nothing is loaded from elsewhere
    (Path(__file__).parent / "demo.svg").write_text(drawn)


if __name__ == "__main__":
    main()
