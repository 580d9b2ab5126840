"""The doorway: a forward proxy for programs that name AWS's hosts, and a job's only way to the internet.

`CONNECT <aws host>:443` is answered with a certificate of the local authority, and the bytes go to the front, which takes service
and bucket from the Host header. Other hosts are tunnelled for callers it knows (the token in the proxy's URL, or a run's own
socket), to ports 80 and 443 only, and never to loopback, link-local, private or metadata addresses.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from penstock import Refused, guests, hosts
from penstock.authority import Authority
from penstock.settings import Settings

log = logging.getLogger("penstock.doorway")

HEAD_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
CONNECT_S = 15.0
LOOK_S = 0.05
UPSTREAM_LOOK_S = 2.0
"""How long a name is looked up where an upstream proxy will do so too: only to refuse what is ours."""
FORBIDDEN = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # Azure's own services, at a public address
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # among them Oracle's metadata service
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
    )
)
PRIVATE_NAMES = (".internal", ".local", ".localhost", ".localdomain", ".home.arpa")
"""Kept for private networks; the clouds' metadata services are among them."""
STAND_INS = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))
"""Nobody's networks, kept for documentation: where names lead in test beds whose gateway reads the name."""


class Closed(Exception):
    """The caller is told no: a status and a sentence."""

    def __init__(self, status: str, sentence: str):
        self.status = status
        super().__init__(sentence)


class Doorway:
    """The proxy of one data folder."""

    def __init__(
        self,
        settings: Settings,
        token: str,
        front: tuple[str, int],
        upstream: str | None = None,
        registries: Collection[tuple[str, int]] = (),
        direct: str = "",
    ):
        """Takes: `direct`, the hosts that are reached without the upstream proxy, as NO_PROXY names them."""
        self.opened = {*registries, *targets_of(settings.private_targets)}
        self.direct = [entry.strip().lstrip("*.").lower() for entry in direct.split(",") if entry.strip()]
        self.connections: set[asyncio.Task[None] | None] = set()  # the loop itself holds them by weak references only
        self.settings, self.token, self.front = settings, token, front
        self.authority = Authority(settings.data / "ca")
        self.upstream = urlsplit(upstream) if upstream else None
        self.front_socket = settings.data / "sockets" / "front.sock"

    async def run(self, listening: socket.socket, handouts: Path) -> None:
        """Serves the host's port, and the listening sockets that supervisors hand out, until cancelled."""
        server = await asyncio.start_server(self._for(None), sock=listening, limit=HEAD_BYTES)
        async with server:
            await asyncio.gather(server.serve_forever(), guests.serve(handouts, self._take))

    async def _take(self, info: dict[str, Any], guest: socket.socket) -> asyncio.Server:
        return await asyncio.start_server(self._for(info["run"]), sock=guest, limit=HEAD_BYTES)

    def _for(self, run: str | None):  # type: ignore[no-untyped-def]
        held: set[asyncio.StreamWriter] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if run is not None and len(held) >= guests.CONNECTIONS:
                writer.transport.abort()
                return
            held.add(writer)
            self.connections.add(task := asyncio.current_task())
            try:
                await self._serve(run, reader, writer)
            except Closed as no:
                body = f"{no}\n".encode()
                writer.write(
                    f"HTTP/1.1 {no.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as fault:
                log.debug("a connection ended: %r", fault)
            finally:
                await _close(writer)
                held.discard(writer)
                self.connections.discard(task)

        return connected

    async def _serve(self, run: str | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_S)
        line, _, rest = head.partition(b"\r\n")
        try:
            method, target, _version = line.decode("ascii").split(" ")
        except ValueError:
            raise Closed("400 Bad Request", "That is no HTTP request.") from None
        headers = dict(_fields(rest))
        if method == "CONNECT":
            host, port = _address(target, 443)
        else:
            host, port = _address_of_url(target)
        if hosts.is_aws(host):
            await self._aws(
                run, host, port, b"" if method == "CONNECT" else _forwarded(method, target, rest), reader, writer
            )
            return
        self._known(run, headers)
        there, back = await self._outside(host, port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(_forwarded(method, target, rest))
        await _pipe(reader, writer, there, back)

    async def _aws(
        self,
        run: str | None,
        host: str,
        port: int,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """One of AWS's hosts: its bytes go to the front, with the Host header as they came. Without a head: a tunnel."""
        if not head:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            if port == 443:
                await writer.start_tls(self.authority.context(host))
        there, back = await self._to_front(run)
        back.write(head)
        await _pipe(reader, writer, there, back)

    async def _to_front(self, run: str | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the front; a run's is handed over, so that the front knows whose it is.

        Raises: OSError when no front takes it for `CONNECT_S`.
        """
        if run is None:
            return await asyncio.open_connection(*self.front)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._give(run, theirs)
            return await asyncio.open_connection(sock=ours)
        except OSError:
            ours.close()
            raise

    async def _give(self, run: str, connection: socket.socket) -> None:
        """Hands a run's connection to the front, which may be about to start again."""
        deadline = asyncio.get_running_loop().time() + CONNECT_S
        while True:
            try:
                return guests.give(self.front_socket, {"run": run, "kind": "connection"}, connection)
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(LOOK_S)

    def _known(self, run: str | None, headers: dict[str, str]) -> None:
        """Raises: Closed for a caller that neither is a run nor gives the token, or may not out."""
        if run is not None:
            if not self.settings.internet:
                raise Closed("403 Forbidden", "This server lets no job reach the internet (PENSTOCK_INTERNET=0).")
            return
        given = headers.get("proxy-authorization", "")
        try:
            _, _, password = base64.b64decode(given.partition(" ")[2]).decode().partition(":")
        except ValueError:
            password = ""
        if not hmac.compare_digest(password.encode(), self.token.encode()):
            raise Closed(
                '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="penstock"',
                "Only programs started by `penstock exec` may go out here.",
            )

    async def _outside(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises: Closed for a port or an address that is nobody's business.

        The registries of this machine's install settings, and what the settings open, have whatever address and port.
        """
        named = (host, port) in self.opened
        if not named and port not in (80, 443):
            raise Closed("403 Forbidden", f"The doorway leads to ports 80 and 443 only, not to {port}.")
        addresses = await self._addresses(host, port)
        inside = any(forbidden(each) or is_own(each) for each in addresses) or (not addresses and is_private_name(host))
        if not named and inside:
            raise Closed(
                "403 Forbidden",
                f"{host} is an address of this machine or its network: the doorway does not lead there "
                "(PENSTOCK_PRIVATE_TARGETS can open it).",
            )
        if self.upstream is not None and not self._goes_direct(host):
            return await self._by_upstream(host, port)
        fault: Exception | None = None
        for address in addresses:  # those that were checked, not the name again
            try:
                return await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_S)
            except (OSError, TimeoutError) as failed:
                fault = failed
        raise Closed("502 Bad Gateway", f"{host}: {fault}")

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the name stands for; behind an upstream proxy, which resolves names itself, maybe nothing.

        Raises: Closed for a name that is none, or that nobody knows.
        """
        looking = asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.wait_for(looking, UPSTREAM_LOOK_S if self.upstream else CONNECT_S)
        except UnicodeError:
            raise Closed("400 Bad Request", f"{host!r} is no host name.") from None
        except (OSError, TimeoutError) as fault:
            if self.upstream:
                return []
            raise Closed("502 Bad Gateway", f"{host}: {fault}") from None
        return [str(address[0]) for *_, address in found]

    def _goes_direct(self, host: str) -> bool:
        """Whether the upstream proxy is not meant for the host."""
        return any(entry in ("", host) or host.endswith(f".{entry}") for entry in self.direct)

    async def _by_upstream(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises: Closed with what the upstream proxy said, or that it is not there."""
        assert self.upstream is not None
        secure = self.upstream.scheme == "https"
        credentials = ""
        if self.upstream.username:
            pair = f"{unquote(self.upstream.username)}:{unquote(self.upstream.password or '')}".encode()
            credentials = f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}\r\n"
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(
                    self.upstream.hostname, self.upstream.port or (443 if secure else 80), ssl=secure or None
                ),
                CONNECT_S,
            )
            writer.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials}\r\n".encode())
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
            raise Closed(
                "502 Bad Gateway", f"the upstream proxy {self.upstream.hostname} does not answer: {fault}"
            ) from None
        if b" 200 " not in answer.partition(b"\r\n")[0] + b" ":
            await _close(writer)
            raise Closed(
                "502 Bad Gateway", f"the upstream proxy said {answer.partition(bytes([13]))[0].decode('latin-1')}"
            )
        return reader, writer


def forbidden(address: str) -> bool:
    """Whether an IP address belongs to this machine, its network, or nobody."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    unknown = not ip.is_global and not any(ip in net for net in STAND_INS if net.version == ip.version)
    return unknown or any(ip in net for net in FORBIDDEN if net.version == ip.version)


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's: a public one of its own leads past the firewall in front of it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as looking:
        looking.connect((address, 9))  # sends nothing: asks which address we would come from
        return bool(looking.getsockname()[0] == address)
    return False


def is_private_name(host: str) -> bool:
    """Whether a name means nothing outside a private network; told of names that only an upstream proxy can look up."""
    return "." not in host or host.endswith(PRIVATE_NAMES)


def _fields(text: bytes):  # type: ignore[no-untyped-def]
    for line in text.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            yield name.strip().lower().decode("latin-1"), value.strip().decode("latin-1")


def _address(target: str, default: int) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    try:
        return (_plain(host.strip("[]")), int(port)) if host else (_plain(target), default)
    except ValueError:
        raise Closed("400 Bad Request", f"{target!r} is no host and port.") from None


def _address_of_url(target: str) -> tuple[str, int]:
    try:
        parts = urlsplit(target)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise Closed("400 Bad Request", f"{target!r} is no address.") from None
    if parts.scheme != "http" or not host:
        raise Closed("400 Bad Request", "This is a forward proxy: CONNECT host:port, or GET http://host/path.")
    return _plain(host), port


def _plain(host: str) -> str:
    """The name as all compare it: a dot at its end means the same host."""
    return host.lower().removesuffix(".")


def _forwarded(method: str, target: str, rest: bytes) -> bytes:
    """The request head as the far server wants it: a path instead of an address, nothing meant for proxies."""
    path = "/" + target.partition("://")[2].partition("/")[2]
    kept = [line for line in rest.split(b"\r\n") if line and not line.lower().startswith((b"proxy-", b"connection:"))]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *kept, b"Connection: close", b"", b""])


async def _pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: asyncio.StreamReader, back: asyncio.StreamWriter
) -> None:
    """Copies both ways until both sides have ended."""
    try:
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
    finally:
        await _close(back)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        else:
            sink.close()  # TLS knows no half-closed connection
    except OSError:
        sink.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 1)


def targets_of(text: str) -> set[tuple[str, int]]:
    """The hosts and ports that a list names: `git.corp, feast.corp:6566`; without a port, 80 and 443.

    Raises: Refused for what is neither.
    """
    found: set[tuple[str, int]] = set()
    for entry in filter(None, (each.strip() for each in text.split(","))):
        host, colon, port = entry.rpartition(":")
        if not colon:
            found |= {(_plain(entry), 80), (_plain(entry), 443)}
        elif port.isdigit() and host:
            found.add((_plain(host.strip("[]")), int(port)))
        else:
            raise Refused(f"PENSTOCK_PRIVATE_TARGETS: {entry!r} is no host and port")
    return found
