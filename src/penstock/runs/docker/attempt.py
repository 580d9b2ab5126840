"""One attempt at a run whose programs are containers: what a supervisor does, with a container engine where bubblewrap was."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from docker import APIClient
from docker.errors import APIError, DockerException
from docker.types import Healthcheck, Mount

from penstock.runs import endings, limits, network, outputs
from penstock.runs.base import Instance, RunState
from penstock.runs.docker.archives import Shadow, put_files
from penstock.runs.docker.daemon import ANSWER_S, HELLO_S, Daemon, reach, told_by
from penstock.runs.docker.sockets import SAFE, HeldNamespace, hold, make_holder
from penstock.runs.docker.sweep import HOLDER, PROGRAM, is_watched, labels_of, remove, sweep
from penstock.runs.live import LiveOutputs
from penstock.runs.lookout import Lookout
from penstock.runs.supervisor import Attempt, Program

DRAIN_S = 10.0
"""What the last lines of an ended container have to come."""
TRIES, TRY_S = 60, 1.0
"""How often an engine that does not answer is asked again what became of a container."""
LOST_CODE = KILLED_CODE = 137
STOPPED_CODE = 143
ROOTS = ("", "0", "root")


class OwnCell(limits.Cell):
    """Stands for the cgroups that the engine made: it set the limits, and tells whether memory ran out."""

    def __init__(self, name: str):
        super().__init__(limits.Means(), name)
        self.out_of_memory = False

    def ran_out(self) -> bool:
        return self.out_of_memory


@dataclass(slots=True)
class Contained:
    """One instance's container, and the threads that wait for it."""

    container: str
    ended: int
    """An eventfd, readable once the container has ended. Never closed: a thread may write to it as long as the process lives."""
    state: dict[str, Any] = field(default_factory=dict)
    pumping: threading.Thread | None = None


@dataclass(slots=True)
class Taken:
    """The shadows of all instances, in the place of overlays."""

    merged: dict[str, outputs.Root]
    folder: Path

    @property
    def layers(self) -> list[Path]:
        return [self.folder]

    def unmount(self) -> None:
        """Nothing is mounted."""


class SizeLookout(Lookout):
    """Asks the engine what its containers wrote, seldom where that takes long; memory is the engine's own matter."""

    def __init__(self, folder: Path, disk_bytes: int, client: APIClient, labels: dict[str, str]):
        super().__init__([folder], disk_bytes, None)
        self._client, self._labels = client, [f"{name}={value}" for name, value in labels.items()]

    def measure(self) -> list[tuple[float, int]]:
        """What each container wrote; nothing where the engine does not say."""
        with contextlib.suppress(APIError, requests.RequestException):
            found = self._client.containers(all=True, size=True, filters={"label": self._labels})
            return [(each.get("SizeRw") or 0, 0) for each in found] or [(0, 0)]
        return [(0, 0)]


class ContainerLive(LiveOutputs):
    """Continuous outputs of containers: a look copies them out first."""

    def fetch_from(self, fetch: Any) -> ContainerLive:
        self._fetch = fetch
        return self

    def look(self) -> bool:
        with contextlib.suppress(outputs.TooMuch):  # told at the end
            self._fetch()
        return super().look()


class ContainerAttempt(Attempt):
    """Makes a container an instance, follows it, and takes what it left."""

    daemon: Daemon
    client: APIClient
    quick: APIClient
    """For what the loop asks: it has a log to move and a time to keep, and asks again."""

    def _make(self) -> None:
        """Creates everything, up to the containers' start."""
        self.contained: dict[str, Contained] = {}
        self.scratch.mkdir()
        self.daemon = reach(self.order.setup.docker, ANSWER_S)
        self.client, self.quick = self.daemon.client(), self.daemon.client(HELLO_S)
        runs, own = self.folder.path.parent, self.folder.name
        sweep(self.client, runs, lambda name, attempt: name != own and is_watched(runs, name, attempt))
        for instance in self.spec.instances:
            self._prepare(0, instance)
            self.programs[-1].cell = OwnCell(self.cell.name)
        try:
            self._make_network()
            user = str((self.client.inspect_image(self.spec.container).get("Config") or {}).get("User") or "")
            for number, instance in enumerate(self.spec.instances):
                self._create(number, instance, user)
        except APIError as fault:
            raise OSError(f"{self.daemon.name} says: {told_by(fault)}") from None
        self.roots = Taken({}, self.scratch)  # type: ignore[assignment]

    def _make_network(self) -> None:
        hosts = [instance.host for instance in self.spec.instances]
        ports = self._ports()
        if not ports and len(hosts) == 1 and self.spec.port is None:  # nobody comes in or goes out
            self.namespaces = [network.Namespace(hosts[0], -1)]
            return
        labels, made = labels_of(self.folder, self.order.attempt, HOLDER), []
        for number, host in enumerate(hosts, 1):
            folder = self.scratch / f"holder-{number}"
            folder.mkdir()
            names = {name: network.address_of(n, len(hosts)) for n, name in enumerate(hosts, 1)}
            held = make_holder(self.client, folder, host, ports, labels, names)
            self.namespaces.append(held)  # before its start, which may fail
            hold(self.client, folder, held, ports)
            held.address = network.address_of(number, len(hosts))
            made.append(held)
        if len(hosts) > 1:
            _wire(made)
        self._prepare_handouts()

    def _create(self, number: int, instance: Instance, user: str) -> None:
        """One container, with its inputs in it."""
        held = self.namespaces[number]
        joins = f"container:{held.container}" if isinstance(held, HeldNamespace) else "none"
        spec, options = self.spec, {}
        if joins == "none" or self.daemon.podman:  # Docker's has the name of the one whose network it joins
            options["hostname"] = instance.host
        env = {**spec.env, **instance.env}
        if user.split(":")[0] not in ROOTS and env.get("HOME") == "/root":
            del env["HOME"]  # the engine knows this user's
        config = self.client.create_host_config(
            **SAFE, network_mode=joins, security_opt=["no-new-privileges"], mem_limit=spec.memory_bytes, memswap_limit=spec.memory_bytes,
            pids_limit=spec.processes, cpu_shares=max(2, int(spec.cpus * 512)), shm_size=max(64 << 20, spec.memory_bytes // 2),
            mounts=list(self._mounts()),
        )  # fmt: skip
        made = self.client.create_container(
            spec.container, entrypoint=spec.command[:1], command=spec.command[1:], environment=env, working_dir=spec.cwd,
            labels=labels_of(self.folder, self.order.attempt, PROGRAM), host_config=config,
            healthcheck=Healthcheck(test=["NONE"]), **options,
        )  # fmt: skip
        self.contained[instance.host] = Contained(made["Id"], os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        put_files(self.client, made["Id"], spec.layers, spec.folders, [*spec.inputs, *instance.inputs])

    def _mounts(self) -> Iterator[Mount]:
        """Folders of packages, and the names of the instances: Podman's own are the host's."""
        for mount in self.spec.mounts:
            yield Mount(mount.target, mount.source, "bind", read_only=True)
        if self.daemon.podman:
            hosts = self.scratch / "hosts"
            hosts.write_text(network.hosts_text([instance.host for instance in self.spec.instances]))
            hosts.chmod(0o644)
            yield Mount("/etc/hosts", str(hosts), "bind", read_only=True)

    # --- starting

    def _launch(self, program: Program) -> None:
        contained = self.contained[program.instance.host]
        if self.folder.stop_reason():  # while its files were copied: nothing has begun
            contained.state = {"ExitCode": STOPPED_CODE}
            os.eventfd_write(contained.ended, 1)
            self.selector.register(contained.ended, selectors.EVENT_READ, lambda: self._reap(program, contained.ended))
            program.drained = True
            return
        self.selector.register(program.pump.reading, selectors.EVENT_READ, lambda: self._pump(program))
        self.selector.register(contained.ended, selectors.EVENT_READ, lambda: self._reap(program, contained.ended))
        try:
            # Before the start, or the first lines are lost; Podman makes the program's world here already.
            frames = self.daemon.client(None).attach(contained.container, stdout=True, stderr=True, stream=True)
            contained.pumping = _begin("output", _pump, frames, program.pump.writing)
            self.client.start(contained.container)
        except APIError as fault:
            program.made = False
            program.pump.note(f"penstock: the container could not be started: {told_by(fault)}")
            contained.state = {"ExitCode": endings.CANNOT_RUN}
            os.eventfd_write(contained.ended, 1)
            return
        program.pid = int(self.client.inspect_container(contained.container)["State"].get("Pid") or 0) or -1
        self._mark_started()
        _begin("end", _await_end, self.daemon, contained)

    def _look_out(self) -> Lookout:
        labels = labels_of(self.folder, self.order.attempt, PROGRAM)
        return SizeLookout(self.scratch, self.spec.disk_bytes, self.quick, labels)

    def _look_live(self, roots: list[outputs.Root], blobs: outputs.BlobFolder) -> LiveOutputs:
        client, sources = self.daemon.client(), [each.source for each in self.spec.outputs if each.continuous]
        folders = {host: self.scratch / "live" / host for host in self.contained}
        for folder in folders.values():
            folder.mkdir(parents=True)

        def fetch() -> None:
            for host, folder in folders.items():
                self._fetch(client, Shadow(folder, self.spec.disk_bytes), host, sources)

        roots = [outputs.Root(str(folder), str(folder)) for folder in folders.values()]
        live = ContainerLive(self.folder, self.order.attempt, self.spec.outputs, roots, blobs, self.spec.disk_bytes)
        return live.fetch_from(fetch)

    def _fetch(self, client: APIClient, shadow: Shadow, host: str, sources: Iterable[str]) -> None:
        for source in dict.fromkeys(sources):
            shadow.fetch(client, self.contained[host].container, source)

    def _owner(self) -> int | None:
        return None  # this process stays who it is

    # --- ending

    def _reap(self, program: Program, status: int) -> None:
        """A container has ended, or was never started; of its output nothing more is waited for."""
        contained = self.contained[program.instance.host]
        self.selector.unregister(contained.ended)
        if not contained.state:
            program.pump.note("penstock: the container is gone; something else removed it.")
        if (contained.pumping is None or contained.pumping.is_alive()) and not program.drained:
            self.selector.unregister(program.pump.reading)
            program.pump.finish()
            program.drained = True
        assert isinstance(program.cell, OwnCell)
        code = int(contained.state.get("ExitCode", LOST_CODE))
        # Podman does not always see it; a SIGKILL that nobody here sent is the kernel's.
        unasked = self.daemon.podman and code == KILLED_CODE and bool(contained.state) and not self.reason and not self.failed
        program.cell.out_of_memory = bool(contained.state.get("OOMKilled")) or unasked
        self._note_end(program, code)

    def _send_term(self, program: Program) -> bool:
        return program.pid != 0 and _hears_term(program.pid) and self._signal(program, "SIGTERM")

    def _kill(self, program: Program) -> None:
        self._signal(program, "SIGKILL")

    def _signal(self, program: Program, name: str) -> bool:
        """Whether the engine took it, or the container has just ended; else it is tried again."""
        try:
            self.quick.kill(self.contained[program.instance.host].container, name)
        except APIError:
            return True
        except requests.RequestException:
            return False
        return True

    def _conclude(self) -> RunState:
        """Copies what is wanted out of the containers, then takes it as of any run."""
        assert self.lookout is not None
        if self.live is not None:
            self.live.stop()
        bad = bool(self.reason or self.failed)
        sources = [each.source for each in self.spec.outputs if each.always or not bad]
        sources += [self.spec.message_file] if bad and self.spec.message_file else []
        try:
            for host in self.contained:
                folder = self.scratch / "left" / host
                folder.mkdir(parents=True)
                self.roots.merged[host] = outputs.Root(str(folder), str(folder))
                self._fetch(self.client, Shadow(folder, self.spec.disk_bytes), host, sources)
        except outputs.TooMuch as much:
            if not self.reason:
                self.reason, self.lookout.sentence = "disk", str(much)
        return super()._conclude()

    def _close(self) -> None:
        super()._close()
        ids = [each.container for each in getattr(self, "contained", {}).values()]
        ids += [each.container for each in self.namespaces if isinstance(each, HeldNamespace)]
        with contextlib.suppress(APIError, requests.RequestException):  # what is left is swept
            for container in ids:
                remove(self.client, container)


def _hears_term(pid: int) -> bool:
    """Whether a container's first process has a handler of SIGTERM yet: the kernel drops the signal before. Yes where that is not told."""
    try:
        caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return True
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _wire(made: list[HeldNamespace]) -> None:
    """Joins the networks of several instances. Raises OSError where this user may not."""
    plain = [network.Namespace(each.host, each.network, each.address) for each in made]
    network.wire(plain)


def _begin(name: str, act: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=act, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _pump(frames: Iterator[bytes], writing: int) -> None:
    """Moves a container's output into the log's pipe, which holds up a program that prints faster than can be written."""
    with contextlib.suppress(OSError, DockerException):
        for frame in frames:
            view = memoryview(frame)
            while view:
                view = view[os.write(writing, view) :]
    os.close(writing)


def _await_end(daemon: Daemon, contained: Contained) -> None:
    """Waits until a container has ended, through an engine's restart too, and tells the loop."""
    client = daemon.client(None)
    for _ in range(TRIES):
        try:
            client.wait(contained.container, timeout=None)
            found = client.inspect_container(contained.container)["State"]
            if found.get("ExitCode") == KILLED_CODE:  # maybe since somebody removes it, who is not done yet
                time.sleep(TRY_S)
                found = client.inspect_container(contained.container)["State"]
            if not found.get("Running"):
                contained.state = found
                break
        except APIError as fault:
            if fault.status_code == 404:  # somebody removed it
                break
        except requests.RequestException:
            client = daemon.client(None)
        time.sleep(TRY_S)
    if contained.pumping is not None:
        contained.pumping.join(DRAIN_S)
    os.eventfd_write(contained.ended, 1)
