"""HTTP/1.1 as a model server needs it: kept-alive connections, a thread each; bodies by length or in chunks."""

import os
import socket
import sys
import threading
import traceback
from typing import Callable, Dict, List, NamedTuple, Optional

HEAD_BYTES = 64 * 1024
BACKLOG = 256
REASONS = {
    200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
    411: "Length Required", 413: "Payload Too Large", 415: "Unsupported Media Type", 500: "Internal Server Error",
    503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip


class Request(NamedTuple):
    """One request; the names of headers are lower case."""

    method: str
    path: str
    headers: Dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """One answer."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"


Answer = Callable[[Request], Reply]


class Malformed(Exception):
    """What was sent is no HTTP that is understood here."""


def listen(address: str) -> socket.socket:
    """A listening socket: `unix:/path`, or `host:port`."""
    if address.startswith("unix:"):
        path = address[len("unix:") :]
        if os.path.exists(path):  # of a server that was here before
            os.unlink(path)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
    else:
        host, _, port = address.rpartition(":")
        listening = socket.socket(socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
    listening.listen(BACKLOG)
    return listening


def serve(listening: socket.socket, answer: Answer) -> None:
    """Answers until the socket is closed."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=converse, args=(connection, answer), daemon=True).start()


def converse(connection: socket.socket, answer: Answer) -> None:
    """Answers one connection's requests, one after another, until its client goes."""
    with connection:
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(connection)
        try:
            while True:
                request = reader.read()
                if request is None:
                    return
                reply = _answered(request, answer)
                keep = request.headers.get("connection", "").lower() != "close"
                _send(connection, reply, keep)
                if not keep:
                    return
        except Malformed as error:
            _send(connection, Reply(400, str(error).encode()), False)
        except OSError:
            return


def _answered(request: Request, answer: Answer) -> Reply:
    try:
        return answer(request)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Reply(500, f"{type(error).__name__}: {error}".encode())


def _send(connection: socket.socket, reply: Reply, keep: bool) -> None:
    reason = REASONS.get(reply.status, "Unknown")
    head = (
        f"HTTP/1.1 {reply.status} {reason}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(reply.body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    ).encode("latin-1")
    if len(reply.body) < HEAD_BYTES:
        connection.sendall(head + reply.body)
        return
    connection.sendall(head)
    connection.sendall(reply.body)


class Reader:
    """Reads the requests of one connection."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._rest = b""

    def read(self) -> Optional[Request]:
        """The next request, None where the client is gone.

        Raises: Malformed.
        """
        while b"\r\n\r\n" not in self._rest:
            if len(self._rest) > HEAD_BYTES:
                raise Malformed("The request's head is too long.")
            piece = self._connection.recv(65536)
            if not piece:
                return None
            self._rest += piece
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3:
            raise Malformed("No request line.")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(words[0], words[1].partition("?")[0], headers, self._body(headers))

    def _body(self, headers: Dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        try:
            length = int(headers.get("content-length") or 0)
        except ValueError:
            raise Malformed("Content-Length is no number.") from None
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        """So many bytes, received into one buffer."""
        if len(self._rest) >= length:
            taken, self._rest = self._rest[:length], self._rest[length:]
            return taken
        buffer = bytearray(length)
        at = len(self._rest)
        buffer[:at] = self._rest
        self._rest = b""
        with memoryview(buffer) as view:
            while at < length:
                got = self._connection.recv_into(view[at:])
                if not got:
                    raise OSError("the client went away in its request")
                at += got
        return bytes(buffer) if length < HEAD_BYTES else buffer  # type: ignore[return-value]

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            piece = self._connection.recv(65536)
            if not piece:
                raise OSError("the client went away in its request")
            self._rest += piece
        line, self._rest = self._rest.split(b"\r\n", 1)
        return line

    def _chunks(self) -> bytes:
        parts: List[bytes] = []
        while True:
            try:
                size = int(self._line().split(b";")[0], 16)
            except ValueError:
                raise Malformed("A chunk's size is no number.") from None
            if not size:
                while self._line():
                    pass
                return b"".join(parts)
            parts.append(self._exactly(size))
            self._exactly(2)
