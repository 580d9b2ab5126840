"""Spares: sandboxes made ahead, in each a Python that waits with its image's packages imported, for one run to take.

A spare is what `supervisor` makes for a run, made before there is one: bubblewrap with all its namespaces, the filter of system calls, no
capabilities, a cgroup of its own, the image's layers as its root. The run that takes it gets a root of its own, laid and mounted as
always; the supervisor puts it into the spare's mount namespace in place of the first (pivot_root moves the waiting Python along, as it
moves everybody there), and only then tells the Python what to become (`containers/spare/start.py`). It serves one run, and nobody before
it: no program ever ran in it. What does not fit is thrown away, and the run is started as always.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
import re
import select
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

from penstock.runs import limits, linux, outputs, sandbox
from penstock.runs.base import Input, Instance, RunSpec
from penstock.runs.codec import dump, pack_spec
from penstock.runs.folder import Setup
from penstock.runs.roots import Ground, Roots
from penstock.runs.sandbox import Bound
from penstock.runs.trees import remove_tree

START = Path(__file__).parents[1] / "containers" / "spare" / "start.py"
WAITING = "/opt/penstock/spare"
PLACE = f"{WAITING}/{'x' * 1000}"
"""What the waiting Python was told to run; a script's path may be as long."""
PREFIX = "spare-"
"""Before the names of its mounts on the stage, where the run's own will be, too."""
KILL_S = 5.0
BEGIN_S = 5.0
SCRIPT_BYTES = 1 << 20
OWN = re.compile(
    r"(SM|AWS|SAGEMAKER|TRAINING_JOB|PROCESSING_JOB|PIP|UV)_\w+|CURRENT_HOST|(?i:(https?|no)_proxy)|PYTHONPATH|TAR_OPTIONS"
    r"|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS"
)
"""Variables that no package reads when it is imported: they may differ. All others are the spare's own."""
PLAIN = ("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED")
"""Variables of Python itself that a run with a spare may set."""


def fitting(spec: RunSpec) -> RunSpec | None:
    """What a spare must be for a run to take it, as a run of its own; None for a run that is always started anew.

    Two runs for which this is equal can take the same spare.
    """
    if not spec.warm or len(spec.instances) != 1 or spec.container or spec.keep or spec.own_local or spec.port is not None:
        return None
    if len(spec.command) < 2 or spec.command[1].startswith("-") or any(m.mode != "ro" for m in spec.mounts):
        return None
    python, *modules = spec.warm
    if spec.cwd != "/" or not _is_python(spec.command[0], python, spec.env.get("PATH", "")):
        return None
    env = {name: v for name, v in (spec.env | spec.instances[0].env).items() if not OWN.fullmatch(name)}
    if any(name.startswith(("PYTHON", "LD_")) and name not in PLAIN for name in env):
        return None
    return RunSpec(
        "spare", [python, *modules], env, mounts=spec.mounts, instances=[Instance(spec.instances[0].host)],
        memory_bytes=spec.memory_bytes, processes=spec.processes, layers=spec.layers,
    )  # fmt: skip


def _is_python(word: str, python: str, path: str) -> bool:
    """Whether a command's first word is the interpreter that would wait."""
    folder = posixpath.dirname(python)
    return word == python or (word in ("python", "python3") and path.partition(":")[0] == folder)


def kind_of(spec: RunSpec) -> str:
    """A short name that runs have in common which can take the same spare; empty for those that take none."""
    wanted = fitting(spec)
    return name_kind(wanted) if wanted else ""


def name_kind(wanted: RunSpec) -> str:
    """The name of what spares like this one can be taken by."""
    return hashlib.sha256(dump(pack_spec(wanted))).hexdigest()[:16]


class Spare:
    """One spare, and what its supervisor holds of it."""

    def __init__(self, wanted: RunSpec, setup: Setup, ground: Ground, means: limits.Means, own: limits.Cell):
        """Makes it, in a cgroup beside the supervisor's. Raises OSError where it cannot be made."""
        self.wanted, self.setup, self._ground, self._means, self._own = wanted, setup, ground, means, own
        self.cell = limits.Cell(means, f"{own.name}.spare")
        self.pid = 0
        self.process = self.status = self._order = self._line = -1
        self.told = b""
        """What bubblewrap said of itself."""
        self.vain = False
        """Known in the end: its imports said something, so that each program of its kind is started anew."""
        self._output: tuple[int, int] | None = None
        self._scratch = ground.stage / f"{PREFIX}scratch"
        self._roots: Roots | None = None
        self._kept: list[str] = []
        """What its root shows of the host: the same as that of the run's root."""
        with contextlib.ExitStack() as undone:
            undone.callback(self.drop)
            self._make()
            undone.pop_all()

    def _make(self) -> None:
        ground, wanted = self._ground, self.wanted
        host = wanted.instances[0].host
        start = Input(f"{WAITING}/sitecustomize.py", data=START.read_bytes())
        spec = dataclasses.replace(wanted, inputs=[start], env=wanted.env | {"PYTHONPATH": WAITING})
        self._roots = roots = Roots(spec, ground, self._scratch, PREFIX)
        roots.lay()
        ground.enter()
        roots.mount()
        self._kept = [*sandbox.system_folders(), *(mount.target for mount in wanted.mounts)]
        self.cell.enter()
        try:
            self.cell.count(wanted.processes)
            self.cell.limit(wanted.memory_bytes, 1.0)
            self._start(spec, roots.merged[host].merged, roots.bound[host])
        finally:
            self._own.enter()
        # Not before its own program is read, which is not in the root that it gets.
        if not select.select([self._line], [], [], BEGIN_S)[0] or not os.read(self._line, 1):
            raise OSError("the spare does not begin")
        self.cell.rest(True)  # what it imports must not be in the way of runs

    def _start(self, spec: RunSpec, root: str, bound: list[Bound]) -> None:
        """Starts bubblewrap with the waiting Python."""
        options = sandbox.bwrap_arguments(
            spec, spec.instances[0], root, bound, self.setup.disable_userns, self._ground.house.as_root
        )
        self._output = os.pipe2(os.O_CLOEXEC)
        self._order = os.memfd_create("order")
        ours, waiting = socket.socketpair()
        ours.setblocking(False)
        self._line = ours.detach()
        python, *modules = spec.command
        command = [python, PLACE, str(waiting.fileno()), str(self._order), *modules]
        try:
            with limits.oom_as_program(), self._ground.as_job():
                self.pid, self.status = sandbox.start_bwrap(
                    self.setup.bwrap, options, self._ground.house.calls, command, self._output[1], (waiting.fileno(), self._order)
                )
        finally:
            waiting.close()
        self.process = os.pidfd_open(self.pid)

    def fits(self, spec: RunSpec) -> bool:
        return fitting(spec) == self.wanted

    def give_output(self) -> tuple[int, int]:
        """The pipe that its program writes to; it is the taker's from now on."""
        assert self._output is not None
        output, self._output = self._output, None
        return output

    def become(self, spec: RunSpec, roots: Roots) -> None:
        """Makes the run's root the spare's, and the waiting Python the run's program. Raises OSError while it is none yet."""
        host = spec.instances[0].host
        if host not in roots.assembled or roots.bound[host]:
            raise OSError("bubblewrap would have to mount something of the root")
        first = self._first()
        self._check(first)
        self.cell.rest(False)
        if not self.cell.limit(spec.memory_bytes, spec.cpus):
            raise OSError("the spare has more memory than the run may have")
        exchange_root(first, roots.merged[host].merged, self._kept)
        order = {"command": spec.command, "env": spec.env | spec.instances[0].env | {"PWD": spec.cwd}, "cwd": spec.cwd}
        with open(self._order, "wb", closefd=False) as file:
            file.write(json.dumps(order).encode())
        os.write(self._line, b"!")
        os.close(self._order)
        self._order = -1

    def give(self) -> tuple[int, int, int, bytes]:
        """Bubblewrap's pid and pidfd, where it tells of itself, and what it told: the taker's from now on."""
        process, status, self.process, self.status = self.process, self.status, -1, -1
        return self.pid, process, status, self.told

    def _first(self) -> int:
        """The pid of the sandbox's pid 1. Raises OSError where it is not made, or gone."""
        with contextlib.suppress(BlockingIOError):
            self.told += os.read(self.status, 4096)
        if b"child-pid" not in self.told or b"exit-code" in self.told:
            raise ProcessLookupError("the spare is not there")
        return int(json.loads(self.told.splitlines()[0])["child-pid"])

    def _check(self, first: int) -> None:
        """Raises OSError where the Python has died, and bubblewrap has not told of it yet."""
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/stat").read_text().rpartition(") ")[2].startswith(("Z", "X")):
            raise ProcessLookupError("the spare was killed")

    def drop(self) -> None:
        """Gives back all it has, and ends it where nobody took it."""
        if self._line >= 0:
            with contextlib.suppress(OSError):
                self.vain = b"-" in os.read(self._line, 16)
        if self.process >= 0:
            self._kill()
        for fd in (self.process, self.status, self._order, self._line, *(self._output or ())):
            if fd >= 0:
                os.close(fd)
        self.process = self.status = self._order = self._line = -1
        self._output = None
        if self._roots is not None:
            self._roots.unmount()
            self._roots = None
        remove_tree(self._scratch)
        self.cell.remove()

    def _kill(self) -> None:
        """Kills its pid 1, and so all in it, before bubblewrap: their cgroup is empty then."""
        with contextlib.suppress(OSError):
            os.kill(self._first(), signal.SIGKILL)
            select.select([self.process], [], [], KILL_S)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def mentions(root: outputs.Root, spec: RunSpec) -> bool:
    """Whether a run's script names one of the packages that a spare has imported."""
    script = posixpath.normpath(posixpath.join(spec.cwd, spec.command[1]))
    text = outputs.read_start(root, script, SCRIPT_BYTES) or outputs.read_start(root, f"{script}/__main__.py", SCRIPT_BYTES)
    return any(module.partition(".")[0].encode() in text for module in spec.warm[1:])


def exchange_root(first: int, root: str, kept: Iterable[str]) -> None:
    """Puts the overlay at `root` here in the place of the root of a sandbox's mount namespace, and of all who live in it.

    Takes: `first`, the sandbox's pid 1; `kept`, the mounts in its root that go along, beside /proc and /dev: the interpreter that
    waits lies in one, and has its path still. Nothing of the old root is left in the namespace.
    Raises: OSError; whatever was done by then, the sandbox is of no use.
    """
    with contextlib.ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        tree = keep(linux.clone_mount(root))
        here, own = keep(os.open(".", os.O_PATH | os.O_CLOEXEC)), keep(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        linux.join(keep(os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)), linux.NEWNS)
        try:
            linux.place_mount(tree, "/mnt")
            for target in ("/proc", "/dev", *kept):
                linux.mount(target, f"/mnt{target}", None, linux.MS_MOVE)
            os.chdir("/mnt")
            linux.pivot_here()
        finally:
            linux.join(own, linux.NEWNS)
            os.fchdir(here)
