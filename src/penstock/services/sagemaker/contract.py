"""SageMaker's container contract: what a job's program finds in its files and its environment. Pure functions.

Source: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html,
docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html; what the training toolkit sets
(github.com/aws/sagemaker-training-toolkit, ENVIRONMENT_VARIABLES.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.kernel.errors import invalid
from penstock.kernel.inside import API as API
from penstock.kernel.inside import CERTIFICATES as CERTIFICATES
from penstock.kernel.inside import CONTAINERS as CONTAINERS
from penstock.kernel.inside import DOORWAY as DOORWAY
from penstock.kernel.inside import run_environment as run_environment
from penstock.runs.base import Input, RunState

HOMOGENEOUS = "homogeneousCluster"
REASON_CHARS = 1024


@dataclass(frozen=True, slots=True)
class Host:
    """One instance of a job."""

    name: str
    instance_type: str
    group: str = HOMOGENEOUS


def hosts_of(resources: Mapping[str, Any]) -> list[Host]:
    """The hosts of a ResourceConfig or ClusterConfig: algo-1 … n, over all its instance groups."""
    groups = resources.get("InstanceGroups") or [{**resources, "InstanceGroupName": HOMOGENEOUS}]
    hosts: list[Host] = []
    for group in groups:
        for _ in range(int(group.get("InstanceCount", 1))):
            kind = group.get("InstanceType", "ml.m5.xlarge")
            hosts.append(Host(f"algo-{len(hosts) + 1}", kind, group["InstanceGroupName"]))
    return hosts


def resource_config(hosts: Sequence[Host], current: Host) -> dict[str, Any]:
    """resourceconfig.json as the host `current` finds it."""
    groups: dict[str, dict[str, Any]] = {}
    for host in hosts:
        entry = {"instance_group_name": host.group, "instance_type": host.instance_type, "hosts": []}
        groups.setdefault(host.group, entry)["hosts"].append(host.name)
    return {
        "current_host": current.name,
        "current_instance_type": current.instance_type,
        "current_group_name": current.group,
        "hosts": [host.name for host in hosts],
        "instance_groups": list(groups.values()),
        "network_interface_name": "eth0",
    }


def json_input(target: str, value: Any) -> Input:
    """A JSON file."""
    return Input(target=target, data=json.dumps(value).encode())


def refuse_nul(value: Any, path: str = "") -> None:
    """Raises: ServiceError (ValidationException) for a NUL character anywhere in an operation's parameters.

    No environment, command line or path can hold one; what makes a sandbox of them would take it for an end.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise invalid(f"Value at '{path}' failed to satisfy constraint: Member must not contain a NUL character")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_nul(name, path)
            refuse_nul(inner, f"{path}.{name}" if path else name[:1].lower() + name[1:])
    elif isinstance(value, Sequence):
        for number, inner in enumerate(value, 1):
            refuse_nul(inner, f"{path}.{number}.member")


# --- how it ended


def ending_of(state: RunState) -> tuple[str, str]:
    """The status of an ended run's job, and a training job's secondary status."""
    if state.reason == "timeout":
        return "Stopped", "MaxRuntimeExceeded"
    if state.reason == "stopped":
        return "Stopped", "Stopped"
    if state.exit_code == 0 and state.reason in ("", "exit"):
        return "Completed", "Completed"
    return "Failed", "Failed"


def common_reason(state: RunState) -> str | None:
    """Why a run failed, where its own program has nothing to tell."""
    if state.reason == "memory":
        return MEMORY_REASON
    if state.reason == "disk":
        return reason(DISK_REASON, f" {state.message}" if state.message else "")
    if state.reason == "room":
        return reason("InternalServerError: ", state.message)
    if state.reason == "sandbox" and ("execvp" in state.message or NOT_STARTED in state.message):
        words = state.message.removeprefix("bwrap: ").removeprefix("penstock: ")
        return reason("ClientError: CannotStartContainerError: ", words)
    if state.reason == "sandbox":
        return reason("InternalServerError: The sandbox could not be made: ", state.message)
    return None


def last_words(tail: Sequence[str], limit: int) -> str:
    """The end of a failed program's log that says why: its last traceback if it is there, and the last lines."""
    lines = [line.rstrip() for line in tail if line.strip()]
    starts = [place for place, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    return clip("\n".join(lines[starts[-1] :] if starts else lines), limit)


def clip(text: str, limit: int) -> str:
    """The end of a text that is too long: that is where the reason stands."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]


def reason(head: str, words: str, end: str = "") -> str:
    """A FailureReason of at most 1,024 characters, of which the words give way."""
    return head + clip(words, max(0, REASON_CHARS - len(head) - len(end))) + end


MEMORY_REASON = (
    "ClientError: Please use an instance type with more memory, or reduce the size of job data processed on an "
    "instance."
)
DISK_REASON = "ClientError: The job needs more disk space than it has; raise VolumeSizeInGB."
NOT_STARTED = "the container could not be started"
"""What a run's message says of a real image without such a program."""
INTERNAL_REASON = "InternalServerError: We encountered an internal error. Please try again."
