"""The Runtime API as a client: plain HTTP over one socket, which is made again when the server behind it was restarted.

Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import contextlib
import json
import socket
import time
from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple

VERSION = "/2018-06-01/runtime"
AGAIN_S = 0.05


class RuntimeApi:
    """One connection to AWS_LAMBDA_RUNTIME_API."""

    def __init__(self, place: str) -> None:
        host, _, port = place.partition(":")
        self._place = host, int(port or 80)
        self._socket: Optional[socket.socket] = None
        self._file: Optional[BinaryIO] = None
        self._stand: Callable[[int], None] = lambda fd: None

    def stand_still(self) -> None:
        """From now on the function's other threads stand still while the next invocation is waited for."""
        with contextlib.suppress(ImportError, OSError, AttributeError):  # a Python without ctypes
            from .standing import until_readable

            self._stand = until_readable

    def next(self) -> Tuple[Dict[str, str], bytes]:
        """The next invocation, as soon as there is one: its headers (names in small letters) and its payload."""
        _, headers, body = self._ask("GET", "/invocation/next", b"", wait=self._stand)
        return headers, body

    def answer(self, request_id: str, body: bytes) -> None:
        """Sends what the handler returned."""
        self._ask("POST", f"/invocation/{request_id}/response", body)

    def fail(self, request_id: str, error: Dict[str, Any]) -> None:
        """Sends the error of an invocation."""
        self._ask("POST", f"/invocation/{request_id}/error", encode(error), error["errorType"])

    def fail_init(self, error: Dict[str, Any]) -> None:
        """Says that there is no handler."""
        self._ask("POST", "/init/error", encode(error), error["errorType"])

    def _ask(
        self, method: str, path: str, body: bytes, kind: str = "", wait: Callable[[int], None] = lambda fd: None
    ) -> Tuple[int, Dict[str, str], bytes]:
        told = "Lambda-Runtime-Function-Error-Type: {}\r\n".format(kind.encode("ascii", "replace").decode()) if kind else ""
        head = f"{method} {VERSION}{path} HTTP/1.1\r\nHost: {self._place[0]}\r\n{told}Content-Length: {len(body)}\r\n\r\n"
        while True:  # the server may be restarting: it asks for the answer again, or has it already
            try:
                connection, file = self._connect()
                connection.sendall(head.encode("latin-1") + body)
                wait(connection.fileno())
                return _read(file)
            except (OSError, ValueError):
                self._close()
                time.sleep(AGAIN_S)

    def _connect(self) -> Tuple[socket.socket, BinaryIO]:
        if self._socket is None or self._file is None:
            self._socket = socket.create_connection(self._place)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._file = self._socket.makefile("rb")
        return self._socket, self._file

    def _close(self) -> None:
        for each in (self._file, self._socket):
            if each is not None:
                each.close()
        self._socket = self._file = None


def _read(file: BinaryIO) -> Tuple[int, Dict[str, str], bytes]:
    status = file.readline().split(b" ", 2)
    if len(status) < 2:
        raise ValueError("the connection ended")
    headers: Dict[str, str] = {}
    while True:
        line = file.readline()
        if line in (b"\r\n", b"\n"):
            break
        if not line:
            raise ValueError("the connection ended")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    body = file.read(length) if length else b""
    if len(body) < length:
        raise ValueError("the connection ended")
    return int(status[1]), headers, body


def encode(error: Dict[str, Any]) -> bytes:
    return json.dumps(error, ensure_ascii=False).encode("utf-8", "replace")
