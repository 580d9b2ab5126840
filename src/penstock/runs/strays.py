"""Has what a lost run left at a container engine removed, without the engine's client: by a process of its own. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def sweep_at_start(address: str, runs: Path) -> None:
    """Has removed what a crash left at the engine that is chosen; where none is any more, at the one that was, until that was done once."""
    note = runs.parent / "container-engine"
    if address:
        note.write_text(address)
        begin_sweep(address, runs)
    elif note.exists():
        begin_sweep(note.read_text(), runs, note)


def begin_sweep(address: str, runs: Path, note: Path | None = None) -> None:
    """Has a process of its own remove the containers that nobody watches; for the runner, which neither waits nor has the client.

    Takes: `note`, a file that is removed once all is done.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.Popen(
        [sys.executable, "-m", "penstock.runs.docker.sweep", address, str(runs), *([str(note)] if note else [])],
        env=environment, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
