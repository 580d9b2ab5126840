"""Runs of real images, as containers of Docker or of Podman's service that speaks Docker's API (extra `docker`).

The same supervisor, with another inside: `attempt` has a container where `supervisor` has bubblewrap. `daemon` finds the engine and
speaks to it, `archives` moves files in and out, `sockets` has the ports of Penstock inside, `store` makes environments of images, and
`sweep` removes containers that nobody watches any more.
"""

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
