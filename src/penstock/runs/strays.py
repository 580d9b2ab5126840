"""Has what a lost run left at a container engine removed, without the engine's client: by a process of its own. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def begin_sweep(address: str, runs: Path) -> None:
    """Has a process of its own remove the containers that nobody watches; for the runner, which neither waits nor has the client."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.Popen(
        [sys.executable, "-m", "penstock.runs.docker.sweep", address, str(runs)],
        env=environment, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
