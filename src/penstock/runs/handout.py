"""Sockets handed from one process to another over a Unix socket: what supervisors send and the server's processes receive.

A supervisor makes one connection an instance to `<data>/sockets/front.sock` (and `doorway.sock`), and keeps it while the run lives; its
end means the end of the run. The first message brings the listening socket that was opened inside the sandbox:

    {"run": name, "instance": "algo-1", "kind": "listen", "attempt": 1}     and one descriptor

A front that wants to connect *to* the program writes the line `{"dial": n}` on that connection, and gets

    {"run": name, "instance": "algo-1", "kind": "dial", "attempt": 1}       and n unconnected TCP sockets (at most 64 a message)

which connect to 127.0.0.1 inside the sandbox.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

LIMIT = 64
"""Descriptors in one message (the kernel takes 253)."""


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors (close-on-exec); None when the supervisor is gone.

    Raises BlockingIOError where the connection does not block and nothing is there.
    """
    line, descriptors, _, _ = socket.recv_fds(connection, 64 * 1024, LIMIT, socket.MSG_CMSG_CLOEXEC)
    if not line:
        return None
    return json.loads(line), descriptors


def send(connection: socket.socket, info: dict[str, Any], descriptors: list[int]) -> None:
    """Sends one message; a message with descriptors is never merged with its neighbours."""
    socket.send_fds(connection, [json.dumps(info).encode() + b"\n"], descriptors)


def connect(path: str | Path, wait: bool = True) -> socket.socket:
    """A connection to a Unix socket, however long its path is.

    Takes: `wait`, whether to wait for a listener that has too many before us.
    Raises: OSError; BlockingIOError for such a listener where nothing is to wait.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.setblocking(wait)
    folder = -1
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    except OSError:
        connection.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)
    return connection


def listen(path: str | Path, backlog: int = 512) -> socket.socket:
    """A listening Unix socket (mode 0600) in place of one that a dead process left there."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # Bound beside and renamed over: at every moment a client finds a socket, and it is never open to others.
    fresh = f"{os.path.basename(path)[:80]}.{os.getpid()}"
    try:
        Path(path).with_name(fresh).unlink(missing_ok=True)
        listening.bind(f"/proc/self/fd/{folder}/{fresh}")
        os.chmod(Path(path).with_name(fresh), 0o600)
        listening.listen(backlog)
        os.rename(Path(path).with_name(fresh), path)
    except OSError:
        listening.close()
        raise
    finally:
        os.close(folder)
    return listening
