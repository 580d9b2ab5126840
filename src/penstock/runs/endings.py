"""How a run ends where its own program has no say: what is told, and a record that waits for room on the disk."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable

from penstock.runs.base import ENDED, RunSpec, RunState
from penstock.runs.folder import RunFolder

CANNOT_RUN = 125
"""The exit code of a run whose sandbox could not be made (as with `env` and container tools)."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
WAIT_S = 1.0
WAITS = 600
"""How often an exit record that finds no room is tried again; then the run is lost."""


def not_made(failure: Exception, attempt: int) -> RunState:
    """The end of a run that could not be made, or not be watched to its end."""
    now = time.time()
    if isinstance(failure, OSError) and failure.errno in NO_ROOM:
        return RunState(
            ENDED, CANNOT_RUN, "room", "The server's disk is full.", started=now, ended=now, attempt=attempt
        )
    message = f"The sandbox could not be made: {failure}"
    return RunState(ENDED, CANNOT_RUN, "sandbox", message, started=now, ended=now, attempt=attempt)


def record(folder: RunFolder, state: RunState, make_room: Callable[[], None]) -> None:
    """Writes the exit record, on a full disk as soon as there is room: nothing that has ended is lost for that.

    Takes: `make_room`, which gives back what the run has used.
    """
    for _ in range(WAITS):
        try:
            return folder.end(state)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        make_room()
        with contextlib.suppress(OSError):
            return folder.end(state)
        time.sleep(WAIT_S)
    folder.end(state)


def sentence(state: RunState, spec: RunSpec) -> str:
    """What the run's log is told of an end that its program did not choose; empty where it did."""
    if state.reason == "memory":
        return f"the program used more than its {spec.memory_bytes >> 20} MiB of memory."
    if state.reason in ("disk", "room"):
        return state.message
    return ""
