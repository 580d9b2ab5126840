"""Runs groups of another suite's tests in pytest processes that may die, hang or crash, and adds up what our plugin wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PLUGINS = Path(__file__).parent / "plugins"
PYTEST = "import sys; sys.path.pop(0); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
"""Not `-m pytest`: that would put the work tree first on the path, and its packages before the installed ones."""
ATTEMPTS = 60


@dataclass
class Group:
    """Tests that share one pytest process at a time. `args` names what to collect; with `ids` only those count."""

    name: str
    args: list[str]
    ids: list[str] = field(default_factory=list)


@dataclass
class Setting:
    """How the suite's own Python is run."""

    python: str
    source: Path
    env: dict[str, str]
    options: list[str]
    limit_s: int
    deadline: float
    log: Path


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with the plugins' folder first on the path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PENSTOCK_"))}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGINS), env.get("PYTHONPATH", "")]))
    return env | {"PYTHONDONTWRITEBYTECODE": "1", "AWS_EC2_METADATA_DISABLED": "true"} | extra


def run_group(group: Group, setting: Setting) -> list[Row]:
    """Runs a group to its end, starting pytest anew after each test that took the process down."""
    done: dict[str, Row] = {}
    wanted: list[str] | None = list(group.ids) or None
    with tempfile.TemporaryDirectory() as name:
        for attempt in range(ATTEMPTS):
            record = Path(name, f"{attempt}.jsonl")
            finished = _pytest(group, setting, record, wanted)
            running, collected = _read(record, done)
            if running:
                why = "the process died" if finished else "ended from outside"
                done[running["id"]] = ended(running["id"], "failed", why)
            left = [node for node in collected or [] if node not in done]
            if not left or time.time() > setting.deadline:
                done.update({node: ended(node, "failed", "not reached: the run's deadline") for node in left})
                break
            wanted = left
    rows = list(done.values()) or [ended(group.name, "failed", "pytest did not start: see the log")]
    return [{**row, "group": group.name} for row in rows]


def ended(node: str, outcome: str, why: str) -> Row:
    """The row of a test that could not write its own."""
    return {"id": node, "outcome": outcome, "why": why, "seconds": 0, "calls": {}, "refused": {}}


def _pytest(group: Group, setting: Setting, record: Path, wanted: list[str] | None) -> bool:
    command = [
        setting.python, "-c", PYTEST, "-p", "conformance", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--no-header",
        "--continue-on-collection-errors", "--tb=short", "-o", "addopts=", f"--record={record}",
        f"--limit={setting.limit_s}", *setting.options, *group.args,
    ]  # fmt: skip
    if wanted is not None:
        only = record.with_suffix(".ids")
        only.write_text("\n".join(wanted) + "\n")
        command.append(f"--only-ids={only}")
    with setting.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=setting.source, env=setting.env, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        return _watch(process, record, setting.limit_s + 90, setting.deadline)


def _watch(process: subprocess.Popen[bytes], record: Path, patience_s: float, deadline: float) -> bool:
    """Waits for the process. Gives False if it had to be ended: silent too long, or past the deadline."""
    seen, last = -1, time.time()
    while process.poll() is None:
        time.sleep(0.2)
        size = record.stat().st_size if record.exists() else 0
        if size != seen:
            seen, last = size, time.time()
        if time.time() - last > patience_s or time.time() > deadline:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, sign)  # its own session: nothing but what we started
                    process.wait(5)
            return False
    return True


def _read(record: Path, done: dict[str, Row]) -> tuple[Row | None, list[str] | None]:
    """Takes over what the plugin wrote. Gives the test that was running, and what was collected."""
    running, collected = None, None
    for line in record.read_text().splitlines() if record.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # the process died while writing
            continue
        match row.pop("event"):
            case "test":
                done[row["id"]], running = row, None
            case "start":
                running = row
            case "collected":
                collected = row["ids"]
            case "uncollected":
                done[row["id"]] = ended(row["id"], "failed", f"not collected: {row['why'][-300:]}")
    return running, collected
