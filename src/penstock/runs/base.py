"""What an executor promises, and the records that describe a run. `ExecutorContract` in tests/contract holds drivers to it.

Standard library only: the runner and its supervisors import this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class Mount:
    """A host path made visible inside. `mode`: "ro" (read-only bind) or "overlay" (writable, changes stay in the run)."""

    source: str
    target: str
    mode: str = "ro"


@dataclass(slots=True)
class Input:
    """Bytes that lie in the run's root before the program starts: at `target`, either a blob (hard link, writable by copy-up)
    or text that is written out."""

    target: str
    blob: str | None = None
    """Host path of a blob file."""
    data: bytes | None = None
    mode: int = 0o644


@dataclass(slots=True)
class Output:
    """What is taken out of the run's root after the program ended: the regular files under `source` (links are not followed).

    `kind` "files": each file is one result, `key` its path below source. "tar.gz": one result, a gzip'd tar of the folder,
    its key "". Taken also after a failure when `always`. A missing or empty source gives no result (tar.gz: an empty archive
    when `required`).
    """

    name: str
    source: str
    kind: str = "files"
    always: bool = False
    required: bool = False
    continuous: bool = False
    """Told while the program runs: new and changed files are results of `look` (checkpoints, S3UploadMode Continuous)."""


@dataclass(slots=True)
class Result:
    """One file taken out: hashed, durable in the blob folder (or `inline`, at most 64 KB)."""

    output: str
    key: str
    sha256: str
    md5: str
    size_bytes: int
    inline: bytes | None = None


@dataclass(slots=True)
class Instance:
    """One of the machines that a run pretends to have: its host name (`algo-1`), and what differs from the others."""

    host: str = "algo-1"
    env: dict[str, str] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    log: str = ""
    """The append-only file its stdout and stderr go to, one line a line: `<epoch milliseconds> <text>`."""


@dataclass(slots=True)
class RunSpec:
    """A program to run: all that a supervisor needs, by value, so that it can be written down and read on another machine."""

    name: str
    """Unique for ever; `[A-Za-z0-9._-]{1,200}`. Starting a name again gives the run that is there."""
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """The whole environment; nothing is inherited."""
    cwd: str = "/"
    mounts: list[Mount] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    """For every instance."""
    folders: list[str] = field(default_factory=list)
    """Made (empty, writable) before the start."""
    outputs: list[Output] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=lambda: [Instance()])
    blobs: str = ""
    """The blob folder results go to (`<blobs>/<sha[:2]>/<sha>`)."""
    cpus: float = 1.0
    """Per instance."""
    memory_bytes: int = 1 << 30
    disk_bytes: int = 30 << 30
    processes: int = 8192
    """Per instance, threads included; held where a cgroup counts them."""
    log_bytes: int = 1 << 30
    """What an instance's log keeps; the program goes on."""
    gpus: int = 0
    timeout_s: float = 86400.0
    """Then SIGTERM, and SIGKILL after `grace_s`; the run's reason is "timeout"."""
    grace_s: float = 120.0
    network: bool = True
    """Whether Penstock's two ports are reachable inside. Other networks never are, but by the doorway."""
    alone_s: float = 0.0
    """Ended when it has called for so long and no server was there (0: never)."""
    doors: dict[str, int] = field(default_factory=dict)
    """Further ports on 127.0.0.1 that are answered from outside, by the name of the socket file of whoever answers there."""
    port: int | None = None
    """Set for a program that serves: sockets that can connect to it inside are handed to the router."""
    share: str = "jobs"
    """Which capacity it counts against: "jobs", "replicas" or "functions"."""
    party: str = ""
    """Whose turn it is when many wait: an execution's ARN; fair between parties."""
    message_file: str = ""
    """A file inside whose first 1,024 characters are the failure's message (`/opt/ml/output/failure`)."""
    labels: dict[str, str] = field(default_factory=dict)
    """What the caller wants to find again in the exit record; not read by the executor."""
    layers: list[str] = field(default_factory=list)
    """Folders on the host that the root stands on, the uppermost first; what lies below a writable mount's target covers the mount."""
    own_local: bool = False
    """Whether /usr/local and /usr/src are the root's own, and writable, instead of the host's."""
    container: str = ""
    """An image of Docker's store: its root stands on that instead, and a container engine runs it (see `runs.docker`)."""
    warm: list[str] = field(default_factory=list)
    """A Python inside, and modules: a Python of that path that waits with them imported may become the program (see `spares`)."""
    keep: bool = False
    """Whether what the (only) instance wrote stays in the run's folder, as `layer`, when it ended well."""


WAITING, STARTING, RUNNING, ENDED, LOST = "waiting", "starting", "running", "ended", "lost"


@dataclass(slots=True)
class RunState:
    """The truth about a run, read from the world."""

    phase: str
    """waiting (for capacity) | starting | running | ended (an exit record is there) | lost (no record, no supervisor)."""
    exit_code: int | None = None
    """Of the first instance that failed, else 0; 128 + n for a signal n."""
    reason: str = ""
    """"" | "exit" | "timeout" | "stopped" | "memory" | "disk" | "room" (none on the server's disk) | "sandbox" (not made, or not
    limited)."""
    message: str = ""
    """From `message_file`, or what went wrong in the sandbox's making."""
    tail: list[str] = field(default_factory=list)
    """The last lines of the failing instance's log, for failures."""
    started: float = 0.0
    """When the program started (not the wait before it)."""
    ended: float = 0.0
    results: list[Result] = field(default_factory=list)
    """Of an ended run all; of a running or lost one what its continuous outputs gave so far."""
    usage: dict[str, float] = field(default_factory=dict)
    """cpu_s, peak_memory_bytes, where known."""
    attempt: int = 1


class Executor(Protocol):
    """Starts programs and tells what became of them. Every call is idempotent by name and returns within milliseconds."""

    def start(self, spec: RunSpec) -> RunState:
        """Admits the run when all its instances fit, else it waits (phase "waiting") and starts by itself later."""
        ...

    def look(self, name: str) -> RunState | None:
        """None: never started, or forgotten."""
        ...

    def stop(self, name: str, reason: str = "stopped") -> None:
        """SIGTERM, then SIGKILL after the run's grace. Results marked `always` are still taken."""
        ...

    def retry(self, name: str, spec: RunSpec | None = None) -> RunState:
        """A second attempt of a lost run, in a clean folder; with other inputs, where a spec is given."""
        ...

    def forget(self, name: str) -> None:
        """Gives the folder back. The blobs stay."""
        ...

    def names(self) -> list[str]: ...

    def listen(self, heard: Callable[[str], None]) -> None:
        """`heard(name)` is called (from any thread) whenever a run's phase changed."""
        ...

    def close(self) -> None: ...


class Images(Protocol):
    """Image URIs to Python environments."""

    def look(self, uri: str) -> Environment | None:
        """The environment if it is ready, None if it is being built (asking starts the building). Raises ImageError."""
        ...

    def listen(self, heard: Callable[[str], None]) -> None:
        """`heard(uri)` is called (from any thread) when an image became ready or failed."""
        ...

    def known(self) -> list[dict[str, Any]]: ...

    def check(self, uri: str) -> None:
        """Builds nothing. Raises ImageError for a URI that nothing stands for."""
        ...

    def asks(self, uri: str) -> bool:
        """Whether `check` has to ask somebody who may take his time."""
        ...

    def lacks(self, uri: str) -> str:
        """Why an image has another Python here than it asks for; empty where it has its own, or may get it yet.

        Raises: ImageError.
        """
        ...

    def held(self) -> list[Held]:
        """The images that were built on this machine."""
        ...

    def remove(self, uri: str) -> bool:
        """Forgets an image that a person built or added; whether there was one."""
        ...

    def packages(self) -> tuple[dict[str, str], list[str]]:
        """Where jobs get packages: variables for pip and uv (they may hold credentials), and folders to mount, read-only."""
        ...


@dataclass(slots=True)
class Environment:
    """What an image URI became on this machine."""

    uri: str
    framework: str
    """"sklearn", "xgboost", "python", "algorithm-xgboost" …: which container behaviour applies."""
    version: str
    """The framework's version tag, e.g. "1.2-1"."""
    python: str
    """The interpreter's path inside the sandbox."""
    mounts: list[Mount] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """PATH and what the real image's ENV sets."""
    note: str = ""
    """The first line of the job's log: which image became what, and in what it differs."""
    layers: tuple[str, ...] = ()
    """Folders that the run's root stands on, the uppermost first: what a Dockerfile's instructions wrote, and the environment."""
    cwd: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    """The image's own program, where it was built with one."""
    command: list[str] = field(default_factory=list)
    """What the program gets where a job says nothing else, or the program where there is no entry point."""
    own_local: bool = False
    """Whether /usr/local and /usr/src are the image's, not the machine's."""
    container: str = ""
    """The image's id in Docker's store, where it runs as a container; there is no Python of ours in it then."""
    metrics: list[dict[str, str]] = field(default_factory=list)
    """`Name` and `Regex` of the metrics a built-in algorithm publishes; used where the job runs no script of its own."""


@dataclass(slots=True)
class Held:
    """An image that was built on this machine, as a registry would show it."""

    uri: str
    account: str
    """Of the registry in its URI; empty where there is none."""
    region: str
    repository: str
    tag: str
    manifest: str
    digest: str
    size_bytes: int
    made: float


class ImageError(Exception):
    """An image that cannot be had: the sentence says why and what to do."""
