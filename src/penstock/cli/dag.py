"""The live view of an execution: its steps in order, their states and durations, the last line of each log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from penstock.cli.clients import Clients

LOOK_S = 0.25
LAST_LINES = 10
TAB = "#011"
"""How a tab stands in a log of CloudWatch's, and so in ours."""
ENDED = {"Succeeded", "Failed", "Stopped"}
MARKS = {
    "Succeeded": ("✔", "green"),
    "Failed": ("✘", "bold red"),
    "Stopped": ("■", "yellow"),
    "Stopping": ("■", "yellow"),
    "Executing": ("●", "cyan"),
    "Starting": ("○", "cyan"),
    "": ("·", "dim"),
    "Skipped": ("-", "dim"),
}
LOG_GROUPS = {
    "TrainingJob": "/aws/sagemaker/TrainingJobs",
    "ProcessingJob": "/aws/sagemaker/ProcessingJobs",
    "TransformJob": "/aws/sagemaker/TransformJobs",
}


@dataclass(slots=True)
class Node:
    """A step as the definition has it, and as it stands."""

    name: str
    type: str
    depth: int
    after: list[str] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    last_line: str = ""
    read: bool = False
    """Whether its log was read to the end."""

    @property
    def status(self) -> str:
        return str(self.shown.get("StepStatus", ""))

    @property
    def cached(self) -> bool:
        """Whether its result is that of an earlier execution."""
        return "CacheHitResult" in self.shown

    def seconds(self, now: float) -> float | None:
        started = self.shown.get("StartTime")
        if started is None:
            return None
        ended = self.shown.get("EndTime")
        return float((ended.timestamp() if ended else now) - started.timestamp())


def last_line(lines: list[str]) -> str:
    """The last line that stands for itself: one that begins with blanks goes on with what an earlier one said."""
    whole = [line for line in lines if line.strip() and not line.startswith((" ", "\t", TAB))]
    return (whole or lines)[-1].strip()


def nodes_of(definition: dict[str, Any]) -> list[Node]:
    """The steps in an order in which each stands below what it needs; branches of a condition are one deeper."""
    nodes: dict[str, Node] = {}

    def walk(steps: list[dict[str, Any]], depth: int, parent: str | None) -> None:
        for step in steps:
            text = json.dumps(
                step.get("Arguments", {}) if step["Type"] != "Condition" else step["Arguments"].get("Conditions", [])
            )
            after = set(re.findall(r'"Steps\.([A-Za-z0-9_-]+)\.', text)) | set(step.get("DependsOn", []))
            after |= {parent} if parent else set()
            nodes[step["Name"]] = Node(step["Name"], step["Type"], depth, sorted(after))
            if step["Type"] == "Condition":
                for branch in ("IfSteps", "ElseSteps"):
                    walk(step["Arguments"].get(branch, []), depth + 1, step["Name"])

    walk(definition["Steps"], 0, None)
    return list(_ordered(nodes))


def _ordered(nodes: dict[str, Node]) -> Iterator[Node]:
    given: set[str] = set()
    waiting = list(nodes.values())
    while waiting:
        ready = [node for node in waiting if all(name in given or name not in nodes for name in node.after)] or waiting[
            :1
        ]
        yield ready[0]
        given.add(ready[0].name)
        waiting.remove(ready[0])


class View:
    """One execution, looked at through the API until it ends."""

    def __init__(self, clients: Clients, arn: str):
        self.clients, self.arn = clients, arn
        self.execution: dict[str, Any] = {}
        definition = clients["sagemaker"].describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
        self.nodes = nodes_of(json.loads(definition["PipelineDefinition"]))
        self._streams: dict[str, str] = {}

    def look(self) -> bool:
        """Reads how things stand; True once the execution has ended."""
        self.execution = self.clients["sagemaker"].describe_pipeline_execution(PipelineExecutionArn=self.arn)
        found = {
            step["StepName"]: step
            for step in self.clients.every("sagemaker", "list_pipeline_execution_steps", PipelineExecutionArn=self.arn)
        }
        for node in self.nodes:
            node.shown = found.get(node.name, {})
            if node.status and not node.read:
                node.read = node.status in ENDED  # once more after the end: its last lines came in between
                self._read_log(node)
        return self.execution["PipelineExecutionStatus"] in ENDED

    def _read_log(self, node: Node) -> None:
        """Keeps the last line of the step's log; an absent log is no error."""
        for kind, group in LOG_GROUPS.items():
            job = node.shown.get("Metadata", {}).get(kind)
            if not job:
                continue
            try:
                answer = self.clients["logs"].get_log_events(
                    logGroupName=group,
                    logStreamName=self._stream(node.name, group, job["Arn"].rpartition("/")[2]),
                    limit=LAST_LINES,
                    startFromHead=False,
                )
            except (self.clients["logs"].exceptions.ResourceNotFoundException, IndexError):
                return
            if answer["events"]:
                node.last_line = last_line([event["message"] for event in answer["events"]])

    def _stream(self, step: str, group: str, job: str) -> str:
        if step not in self._streams:
            found = self.clients["logs"].describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")
            self._streams[step] = str(found["logStreams"][0]["logStreamName"])
        return self._streams[step]

    def draw(self) -> RenderableType:
        """The picture of how things stand."""
        now = time.time()
        status = str(self.execution.get("PipelineExecutionStatus", "Executing"))
        over = status in ENDED
        table = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
        for column in ("mark", "step", "type", "state", "time"):
            table.add_column(column, no_wrap=True, justify="right" if column == "time" else "left")
        table.add_column("log")  # the only one that may be narrowed: what it loses is not lost, the others' words are
        for node in self.nodes:
            shown = node.status or ("Skipped" if over else "")
            mark, style = MARKS.get(shown, MARKS[""])
            icon: RenderableType = (
                Spinner("dots", style=style) if shown in ("Executing", "Starting") else Text(mark, style)
            )
            seconds = node.seconds(now)
            table.add_row(
                icon,
                Text("  " * node.depth + node.name, "bold" if node.status else "dim"),
                Text(node.type, "dim"),
                Text({"": "waiting", "Skipped": "not run"}.get(shown, shown) + " (cached)" * node.cached, style),
                "" if seconds is None else f"{seconds:.1f} s",
                Text(self._remark(node), "red" if node.status == "Failed" else "dim", no_wrap=True, overflow="ellipsis"),
            )
        name = self.arn.split("/")[-3] if "/execution/" in self.arn else ""
        style = MARKS.get(status, MARKS[""])[1]
        head = Text.assemble(
            ("Pipeline ", "bold"), (name, "bold"), "  ", (self.arn.rpartition("/")[2], "dim"), "  ", (status, style)
        )
        return Group(head, table)

    def _remark(self, node: Node) -> str:
        if reason := node.shown.get("FailureReason"):
            return str(reason).replace("\n", " ")
        if outcome := node.shown.get("Metadata", {}).get("Condition", {}).get("Outcome"):
            return (
                f"-> {outcome}: {node.shown['StepDescription']}" if "StepDescription" in node.shown else f"-> {outcome}"
            )
        if package := node.shown.get("Metadata", {}).get("RegisterModel", {}).get("Arn"):
            return str(package).partition(":model-package/")[2]
        return node.last_line.replace(TAB, "  ")


def follow(clients: Clients, arn: str, console: Console) -> dict[str, Any]:
    """Draws the execution until it ends; where the output is no terminal, a line a change of state."""
    view = View(clients, arn)
    if not console.is_terminal:
        return _tell(view, console)
    with Live(console=console, refresh_per_second=12, get_renderable=view.draw, transient=False):
        while not view.look():
            time.sleep(LOOK_S)
    tell_reasons(view, console)
    return view.execution


def tell_reasons(view: View, console: Console) -> None:
    """Why each failed step failed, whole: the table may have had no room for it."""
    for node in view.nodes:
        if node.status == "Failed" and (reason := node.shown.get("FailureReason")):
            console.print(f"{MARKS['Failed'][0]} {node.name}: {reason}", style="red", soft_wrap=True, markup=False)


def _tell(view: View, console: Console) -> dict[str, Any]:
    told: dict[str, str] = {}
    over = False
    while not over:
        over = view.look()
        for node in view.nodes:
            if node.status and told.get(node.name) != node.status:
                told[node.name] = node.status
                seconds = node.seconds(time.time())
                remark = view._remark(node) if node.status in ENDED else ""
                state = node.status + " (cached)" * node.cached
                console.print(
                    f"{node.name:<24} {state:<18} {'' if seconds is None else f'{seconds:6.1f} s'}  {remark}".rstrip(),
                    soft_wrap=True,
                    markup=False,
                )
        if not over:
            time.sleep(LOOK_S)
    console.print(f"{view.execution['PipelineExecutionStatus']}: {view.arn}", soft_wrap=True, markup=False)
    return view.execution


def summary(view: View) -> dict[str, Any]:
    """What --json prints."""
    return {
        "PipelineExecutionArn": view.arn,
        "PipelineExecutionStatus": view.execution["PipelineExecutionStatus"],
        "FailureReason": view.execution.get("FailureReason"),
        "Steps": [
            {
                "StepName": n.name,
                "StepType": n.type,
                "StepStatus": n.status or "NotRun",
                "Cached": n.cached,
                "Seconds": n.seconds(time.time()),
                "FailureReason": n.shown.get("FailureReason"),
                "Metadata": n.shown.get("Metadata"),
            }
            for n in view.nodes
        ],
    }
