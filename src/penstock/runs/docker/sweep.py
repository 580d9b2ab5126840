"""Removes the containers of runs that nobody watches any more: `python -m penstock.runs.docker.sweep ADDRESS RUNS [NOTE]`.

A container goes on when its supervisor is killed. Nothing of it is published, and its run is lost; it is found again by its labels,
by the runner when it sees the loss, by the next attempt, and by the engine at its start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docker import APIClient
from docker.errors import APIError

from penstock import Refused
from penstock.runs.base import ENDED, LOST
from penstock.runs.docker.daemon import ANSWER_S, reach
from penstock.runs.folder import RunFolder

RUNS, RUN, ATTEMPT, PART = "penstock.runs", "penstock.run", "penstock.attempt", "penstock.part"
"""Labels: the folder of runs that a container is of, its run's name, which attempt it is, and what in it: program or holder."""
PROGRAM, HOLDER = "program", "holder"


def labels_of(folder: RunFolder, attempt: int, part: str) -> dict[str, str]:
    return {RUNS: str(folder.path.parent), RUN: folder.name, ATTEMPT: str(attempt), PART: part}


def sweep(client: APIClient, runs: Path, watched: Callable[[str, int], bool]) -> int:
    """Removes the containers of a folder of runs that `watched` (name, attempt) does not know; how many."""
    found = client.containers(all=True, filters={"label": f"{RUNS}={runs}"})
    strays = [each for each in found if not watched(each["Labels"][RUN], int(each["Labels"][ATTEMPT]))]
    for each in sorted(strays, key=lambda each: each["Labels"][PART] == HOLDER):  # Podman keeps one that another leans on
        remove(client, each["Id"])
    return len(strays)


def remove(client: APIClient, container: str) -> None:
    """Kills and removes a container with its volumes; one that is gone, or just going, is left alone."""
    try:
        client.remove_container(container, force=True, v=True)
    except APIError as fault:
        if fault.status_code not in (404, 409):
            raise


def is_watched(runs: Path, name: str, attempt: int) -> bool:
    """Whether an attempt has, or is about to have, a supervisor."""
    state = RunFolder(runs / name).look()
    return state is not None and state.phase not in (ENDED, LOST) and state.attempt == attempt


def main(address: str, runs: Path, *notes: Path) -> None:
    """Takes: files that are removed once all is done."""
    try:
        with reach(address, ANSWER_S).client() as client:
            sweep(client, runs, lambda name, attempt: is_watched(runs, name, attempt))
        for note in notes:
            note.unlink(missing_ok=True)
    except (Refused, OSError) as fault:
        print(f"penstock: containers that nobody watches could not be looked for: {fault}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
