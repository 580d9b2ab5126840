"""What a kind of job is to the engine, and what a job wants run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.kernel.call import Call
from penstock.kernel.resource import Resource
from penstock.runs.base import Environment, Input, Instance, Mount, Output, RunState
from penstock.services.sagemaker import contract
from penstock.store.records import Document

DEFAULT_RUNTIME_S = 86400


@dataclass(slots=True)
class Program:
    """What a job wants run, in the terms of the container contract."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    """The contract's variables."""
    given: dict[str, str] = field(default_factory=dict)
    """The user's."""
    inputs: list[Input] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    """Beside those of the job's own image."""
    folders: list[str] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    message_file: str = ""
    volume_gib: int = 30
    runtime_s: int = DEFAULT_RUNTIME_S
    network: bool = True


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: where its parts are, and what to do at each turn of its life.

    All but `plan` only change the document.
    """

    resource: Resource
    group: str
    """The log group."""
    image: Callable[[Document], str]
    hosts: Callable[[Document], list[contract.Host]]
    plan: Callable[[Call, Document, Environment], Program]
    """Raises: ServiceError, where the job cannot be run as it is."""
    targets: Callable[[Document], Mapping[str, str]]
    """The S3 URI of each output, by name."""
    wait: Callable[[Call, Document], bool]
    """Shows that the job waits for capacity; whether that is news."""
    run: Callable[[Call, Document, float], bool]
    """Shows that the program runs, since a moment; whether that is news."""
    end: Callable[[Call, Document, RunState, str | None], None]
    """Moves the document to its last status. Takes the end, and a reason where it is not the program's."""
    others: Callable[[Document], Sequence[str]] = lambda document: ()
    """Further images, which must be ready before `plan` is asked."""
    restored: frozenset[str] = frozenset()
    """Outputs that begin with what lies at their targets: what is there already is not put there again."""
    keys: Callable[[Document], Mapping[str, str]] = lambda document: {}
    """The keys, below their output's URI, of results whose file cannot be named like them, by the file's name."""
    resumed: bool = False
    """Whether answers go up while it runs, and a lost run is planned anew: `plan` leaves out what is `_published`."""


def unseen(call: Call, document: Document) -> bool:
    """Shows nothing of a job that waits for capacity: it is InProgress, without the moment of its start."""
    return False


def starts(member: str) -> Callable[[Call, Document, float], bool]:
    """Shows that a job's program runs by the moment of its start alone."""

    def run(call: Call, document: Document, started: float) -> bool:
        if member in document.body:
            return False
        document.body[member] = started
        return True

    return run
