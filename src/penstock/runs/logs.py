"""What a program prints, into an append-only file: `<epoch milliseconds> <text>`, a line a line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from pathlib import Path

LINE_BYTES = 256 * 1024
"""CloudWatch splits longer messages; so does this."""
STREAM_BYTES = 1 << 30
TAIL_LINES = 10
TAIL_LINE_BYTES = 1000


class LogPump:
    """Moves one instance's output from a pipe to its log file: one write for all that waits.

    Differs: CloudWatch takes any amount; here a stream ends at 1 GB with a notice (the program goes on).
    """

    def __init__(self, path: Path, limit_bytes: int = STREAM_BYTES, pipe: tuple[int, int] | None = None):
        """Takes: `pipe`, where the program that writes to it was there before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_locked(path)
        self.reading, self.writing = pipe or os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reading, False)
        self._rest = b""
        self._left_bytes = limit_bytes - os.fstat(self._file).st_size
        self._last: deque[bytes] = deque(maxlen=TAIL_LINES)

    def pump(self) -> bool:
        """Moves what waits; False at the end of the output."""
        try:
            piece = os.read(self.reading, 256 * 1024)
        except BlockingIOError:
            return True
        if not piece:
            self.finish()
            return False
        *lines, self._rest = (self._rest + piece).split(b"\n")
        while len(self._rest) >= LINE_BYTES:
            lines.append(self._rest[:LINE_BYTES])
            self._rest = self._rest[LINE_BYTES:]
        self._write(lines)
        return True

    def discard(self) -> None:
        """Forgets what waits: somebody else wrote it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reading, 256 * 1024)

    def finish(self) -> None:
        """Writes a last line that had no end."""
        if self._rest:
            self._write([self._rest])
            self._rest = b""

    def note(self, text: str) -> None:
        """Writes a line of the supervisor's own."""
        self._write([text.encode()])

    def tail(self) -> list[str]:
        """The last lines written."""
        return [line.decode("utf-8", "replace") for line in self._last]

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        # Of a full log, too: they may say why the program failed.
        self._last.extend(line[:TAIL_LINE_BYTES].rstrip(b"\r") for line in lines[-TAIL_LINES:])
        if self._left_bytes <= 0:
            return
        stamp = b"%d " % (time.time() * 1000)
        pieces = [line[at : at + LINE_BYTES] for line in lines for at in range(0, len(line) or 1, LINE_BYTES)]
        data = b"".join(stamp + piece.rstrip(b"\r") + b"\n" for piece in pieces)
        self._left_bytes -= len(data)
        if self._left_bytes <= 0:
            data += stamp + b"penstock: this log is full; nothing more is kept\n"
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        os.close(self.reading)
        os.close(self._file)


def _open_locked(path: Path) -> int:
    """Opens a log to add to it, under a lock that says so: upkeep deletes logs that got no line for long, but none that is locked."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_SH)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # deleted between the opening and the lock
