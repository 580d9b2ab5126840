"""A run's network: namespaces of its own, sockets born inside and handed out to the server.

A socket stays in the namespace it was made in, whoever holds it. The supervisor keeps the listening sockets open itself, so a job's calls
wait in the backlog while the server restarts, and hands them to whoever listens on front.sock and doorway.sock when the first call has
come, again after each restart. Most jobs never call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.runs import handout, linux

SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
BACKLOG = 512
RETRY_S = 0.05
NETWORK = "10.86.0."
BRIDGE = "penstock0"


@dataclass(slots=True)
class Namespace:
    """One instance's network: its descriptor, its address as others see it, its listening sockets by who answers them."""

    host: str
    fd: int
    address: str = "127.0.0.1"
    listening: dict[str, socket.socket] = field(default_factory=dict)

    def make_sockets(self, count: int) -> list[socket.socket]:
        """Unconnected sockets that were born inside."""
        if self.fd >= 0:
            linux.join(self.fd, linux.NEWNET)
        return [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]

    def close(self) -> None:
        for listening in self.listening.values():
            listening.close()
        if self.fd >= 0:
            os.close(self.fd)


def enter_namespace() -> None:
    """Moves the caller into a network namespace of its own, where only the loopback is."""
    linux.unshare(linux.NEWNET)
    _raise_loopback()


def name_namespaces(hosts: list[str]) -> list[Namespace]:
    """The namespace the caller is in, for one host; for several, new ones, joined (the caller stays in the last)."""
    if len(hosts) == 1:
        return [Namespace(hosts[0], -1)]
    made = []
    for number, host in enumerate(hosts, 1):
        enter_namespace()
        fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        made.append(Namespace(host, fd, address_of(number, len(hosts))))
    wire(made)
    return made


def open_ports(namespaces: list[Namespace], ports: dict[str, int]) -> None:
    """Opens the listening sockets; `ports`: by the name of the socket file (without .sock) whose owner answers there."""
    for namespace in namespaces:
        if namespace.fd >= 0:
            linux.join(namespace.fd, linux.NEWNET)
        for name, port in ports.items():
            namespace.listening[name] = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


def address_of(number: int, count: int) -> str:
    """The address of the instance with that number, from 1."""
    return f"{NETWORK}{number}" if count > 1 else "127.0.0.1"


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    # Programs written for containers are root there and listen on 80; here they are root without capabilities.
    with contextlib.suppress(OSError), open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as knob:
        knob.write("0")


def wire(namespaces: list[Namespace]) -> None:
    """Wires the namespaces in a child, since pyroute2 is large; eth0 is the interface inside, as at AWS. Raises OSError."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            _wire(namespaces)
            status = 0
        except Exception as error:
            os.write(2, f"penstock: the instances' network could not be made: {error!r}\n".encode())
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise OSError("the network between the instances could not be made")


def _wire(namespaces: list[Namespace]) -> None:
    from pyroute2 import IPRoute  # in the child only: importing it takes longer than the rest of a start

    first, *others = namespaces
    linux.join(first.fd, linux.NEWNET)
    with IPRoute() as hub:
        hub.link("add", ifname=BRIDGE, kind="bridge")
        bridge = hub.link_lookup(ifname=BRIDGE)[0]
        hub.link("set", index=bridge, state="up")
        for number, other in enumerate(namespaces):
            hub.link("add", ifname=f"port{number}", kind="veth", peer={"ifname": f"peer{number}"})
            hub.link("set", index=hub.link_lookup(ifname=f"port{number}")[0], master=bridge, state="up")
            peer = hub.link_lookup(ifname=f"peer{number}")[0]
            if other is first:
                hub.link("set", index=peer, ifname="eth0")
                _raise_interface(hub, first)
            else:
                hub.link("set", index=peer, net_ns_fd=other.fd)
    for number, other in enumerate(others, 1):
        linux.join(other.fd, linux.NEWNET)
        with IPRoute() as there:
            there.link("set", index=there.link_lookup(ifname=f"peer{number}")[0], ifname="eth0")
            _raise_interface(there, other)


def _raise_interface(route: Any, namespace: Namespace) -> None:
    index = route.link_lookup(ifname="eth0")[0]
    route.addr("add", index=index, address=namespace.address, prefixlen=24)
    route.link("set", index=index, state="up")


def hosts_text(hosts: list[str]) -> str:
    """/etc/hosts: all instances by name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    return "\n".join([*lines, *(f"{address_of(n, len(hosts))} {host}" for n, host in enumerate(hosts, 1))]) + "\n"


class Handout:
    """Keeps one instance's sockets handed out to one process of the server, across that process's restarts.

    Takes: `at_once`, whether not to wait for the first call: the server is to call the program.
    """

    def __init__(
        self, path: str, namespace: Namespace, listening: socket.socket, info: dict[str, Any], at_once: bool = False
    ):
        self._path, self._namespace, self._listening, self._info = path, namespace, listening, info
        self._at_once = at_once
        self._connection: socket.socket | None = None
        self.wanted = False
        """Whether somebody calls, and nobody was there to take it."""

    def wait(self, selector: selectors.BaseSelector) -> None:
        """Waits for the first call."""
        if self._at_once:
            self.wanted = True
        else:
            selector.register(self._listening, selectors.EVENT_READ, lambda: self._called(selector))

    def _called(self, selector: selectors.BaseSelector) -> None:
        selector.unregister(self._listening)
        self.wanted = not self.offer(selector)

    def offer(self, selector: selectors.BaseSelector) -> bool:
        """Connects and hands the listening socket over; False when nobody is there (try again soon)."""
        try:
            connection = handout.connect(self._path)
        except OSError:
            return False
        try:
            handout.send(connection, self._info | {"kind": "listen"}, [self._listening.fileno()])
        except OSError:
            connection.close()
            return False
        connection.setblocking(False)
        self._connection, self.wanted = connection, False
        selector.register(connection, selectors.EVENT_READ, self.hear(selector))
        return True

    def hear(self, selector: selectors.BaseSelector) -> Callable[[], None]:
        """What to do when the server says something on the connection, or is gone."""

        def heard() -> None:
            connection = self._connection
            if connection is None:
                return
            try:
                said = connection.recv(4096)
                if said:
                    self._answer(connection, said)
                    return
            except (BlockingIOError, InterruptedError):
                return
            except (OSError, ValueError):
                pass
            selector.unregister(connection)
            connection.close()
            self._connection = None
            self.wait(selector)

        return heard

    def _answer(self, connection: socket.socket, said: bytes) -> None:
        """`{"dial": n}`: n sockets that connect into the namespace."""
        wanted = sum(int(_number(line)) for line in said.splitlines() if line.startswith(b'{"dial"'))
        while wanted > 0:
            batch = self._namespace.make_sockets(min(wanted, handout.LIMIT))
            handout.send(connection, self._info | {"kind": "dial"}, [s.fileno() for s in batch])
            for made in batch:
                made.close()
            wanted -= len(batch)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _number(line: bytes) -> str:
    return "".join(c for c in line.decode() if c.isdigit()) or "0"
