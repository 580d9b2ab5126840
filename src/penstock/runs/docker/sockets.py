"""The ports of Penstock inside a container: born in its network by a holder, and handed out.

No engine lets an outsider open a socket in a container's network, and a job's image has no program of ours. So a second container, the
holder, is started first: an empty image with the host's Python in it, read-only. The job's container joins its network.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import socket
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import ImageNotFound
from docker.types import Mount, Ulimit

import penstock
from penstock.runs import handout
from penstock.runs.network import Namespace
from penstock.runs.sandbox import SYSTEM

IMAGE = "penstock-holder"
INSIDE = "/penstock"
HOLDER_S = 30.0
"""How long a holder has to open its ports."""
HOLDER_BYTES = 128 << 20
PORTS = {"net.ipv4.ip_unprivileged_port_start": "0"}
"""Programs in containers listen on 80, as root; here they are root without capabilities."""
LIMITS = [Ulimit(name=name, soft=most, hard=most) for name, most in (("nofile", 16384), ("nproc", 8192), ("core", 0))]
"""Named, since an engine's own may be more than what it may set itself."""
SAFE: dict[str, Any] = {
    "cap_drop": ["ALL"], "privileged": False, "ulimits": LIMITS, "log_config": {"Type": "none", "Config": {}}, "ipc_mode": "private",
}  # fmt: skip
"""What every container of ours has."""


@dataclass(slots=True)
class HeldNamespace(Namespace):
    """The network of a holder: what is wanted of it is asked of the holder."""

    container: str = ""
    connection: socket.socket | None = field(default=None)
    network: int = -1
    """The descriptor of the namespace."""

    def make_sockets(self, count: int) -> list[socket.socket]:
        """Unconnected sockets that were born inside."""
        assert self.connection is not None
        self.connection.sendall(b"%d\n" % count)
        return [socket.socket(fileno=fd) for fd in _receive(self.connection)]

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        if self.network >= 0:
            os.close(self.network)
        for listening in self.listening.values():
            listening.close()


def make_holder(
    client: APIClient, folder: Path, host: str, ports: dict[str, int], labels: dict[str, str], hosts: dict[str, str]
) -> HeldNamespace:
    """Makes a holder, which `hold` starts: whoever gets it removes it, whatever comes of its start.

    Takes: an empty folder for its socket; `ports` by who answers there; `hosts`, further names by their addresses.
    Raises: OSError; what the engine's client raises.
    """
    return HeldNamespace(host, -1, container=_create(client, folder, host, list(ports.values()), labels, hosts))


def hold(client: APIClient, folder: Path, held: HeldNamespace, ports: dict[str, int]) -> None:
    """Starts a holder and takes what it opened.

    Raises: OSError; what the engine's client raises.
    """
    listening = handout.listen(folder / "holder.sock", 1)
    os.chmod(folder, 0o755)  # noqa: S103  the folder of the run above it is closed to all others
    os.chmod(folder / "holder.sock", 0o666)  # noqa: S103  root in a container has no right to what is another user's
    with listening:
        listening.settimeout(HOLDER_S)
        client.start(held.container)
        try:
            held.connection, _ = listening.accept()
            held.connection.settimeout(HOLDER_S)
            held.network, *opened = _receive(held.connection)
        except (OSError, ValueError) as fault:
            said = client.inspect_container(held.container)["State"]
            raise OSError(f"the ports of Penstock could not be opened in a container ({said.get('Error') or fault})") from None
        held.listening = {name: socket.socket(fileno=fd) for name, fd in zip(ports, opened, strict=True)}


def _receive(connection: socket.socket) -> list[int]:
    line, descriptors, _, _ = socket.recv_fds(connection, 64, handout.LIMIT, socket.MSG_CMSG_CLOEXEC)
    if not line or json.loads(line) != len(descriptors):
        raise OSError("the holder of the container's network is gone")
    return descriptors


def _create(
    client: APIClient, folder: Path, host: str, ports: list[int], labels: dict[str, str], hosts: dict[str, str]
) -> str:
    program = Path(penstock.__file__).parent / "containers" / "holder"
    mounts = [Mount(f"{INSIDE}/holder", str(program), "bind", True), Mount(f"{INSIDE}/socket", str(folder), "bind", True)]
    mounts += [Mount(path, path, "bind", True) for path in _host_folders()]
    config = client.create_host_config(
        **SAFE, network_mode="none", security_opt=["no-new-privileges", "label=disable"], mounts=mounts, read_only=True,
        mem_limit=HOLDER_BYTES, pids_limit=8, extra_hosts=hosts, sysctls=PORTS,
    )  # fmt: skip
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    command = [python, "-I", "-S", f"{INSIDE}/holder", f"{INSIDE}/socket/holder.sock", *map(str, ports)]
    made = client.create_container(
        ensure_image(client), entrypoint=command, hostname=host, labels=labels, host_config=config
    )
    return str(made["Id"])


def _host_folders() -> list[str]:
    """What the host's Python needs of the host."""
    folders = ["/usr", *(f"/{name}" for name in SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"))]
    prefix = os.path.realpath(sys.base_prefix)
    return folders if prefix == "/usr" or prefix.startswith("/usr/") else [*folders, prefix]


def ensure_image(client: APIClient) -> str:
    """The id of the holder's image, which is empty but for the links that the host's root has."""
    try:
        return str(client.inspect_image(IMAGE)["Id"])
    except ImageNotFound:
        pass
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in SYSTEM:
            if os.path.islink(f"/{name}"):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, posixpath.relpath(os.path.realpath(f"/{name}"), "/")
                tar.addfile(member)
        member = tarfile.TarInfo(INSIDE.lstrip("/"))
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    client.import_image_from_data(archive.getvalue(), repository=IMAGE)
    return str(client.inspect_image(IMAGE)["Id"])
