"""Takes what a program writes while it runs: the files of continuous outputs, once they lie still.

The program is alive, so nothing of its own is linked: a file is copied, hashed on the way, and taken only if it did not change meanwhile.
What was taken lies in the run's folder as a record that `RunFolder.look` gives; the supervisor takes everything once more at the end. A
thread does it, so that a large file holds up neither the log nor the time limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Sequence

from penstock.runs.base import RUNNING, Output, Result, RunState
from penstock.runs.folder import RunFolder
from penstock.runs.outputs import CHUNK_BYTES, INLINE_BYTES, BlobFolder, Found, Root, find_files, key_text

LOOK_S = 1.0
STILL_S = 1.0
"""A file that was written to within this time is left for the next look."""
SHARE = 10
"""A look pauses for so many times what it took: a folder of a hundred thousand files is looked at seldom."""
INLINE_TOTAL_BYTES = 1 << 20
FILES = 10_000
"""The most files that go up while the program runs; the others go up at its end."""

Seen = tuple[int, int, int, int]


class LiveOutputs:
    """The continuous outputs of one attempt; made by its supervisor, which starts it and stops it."""

    def __init__(
        self, folder: RunFolder, attempt: int, outputs: Sequence[Output], roots: Sequence[Root], blobs: BlobFolder,
        limit_bytes: int,
    ):  # fmt: skip
        """Takes: `limit_bytes`, how much is copied in all: a program may write the same file again and again."""
        self._folder, self._attempt, self._roots, self._blobs = folder, attempt, roots, blobs
        self._outputs = [output for output in outputs if output.continuous and output.kind == "files"]
        self._left_bytes = limit_bytes
        self._seen: dict[tuple[int, str, str], Seen] = {}
        self._taken: dict[tuple[str, str], Result] = {}
        self._inline_bytes = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to look, if there is anything to look for and room for a thread."""
        if self._outputs and not self._over.is_set():
            thread = threading.Thread(target=self._loop, name="live", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def stop(self) -> None:
        """Returns when nobody looks any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> bool:
        """One look at every output; whether anything new was taken, which is then durable and in the record."""
        fresh: list[Result] = []
        for output in self._outputs:
            first: set[str] = set()  # of two instances that wrote the same key, the first one's counts, as at the end
            for number, root in enumerate(self._roots):
                for found in find_files(root, output.source):
                    with open(found.fd, "rb", closefd=True):
                        if found.key not in first and not self._over.is_set():
                            first.add(found.key)
                            fresh += filter(None, [self._take((number, output.name, found.key), found)])
        if not fresh or self._over.is_set():
            return False
        self._blobs.flush()
        self._taken |= {(result.output, result.key): result for result in fresh}
        self._folder.note_live(RunState(RUNNING, results=list(self._taken.values()), attempt=self._attempt))
        return True

    def _loop(self) -> None:
        pause_s = LOOK_S
        while not self._over.wait(pause_s):
            began = time.monotonic()
            with contextlib.suppress(
                OSError
            ):  # no room, or the program took the folder away: the next look, or the end
                self.look()
            pause_s = max(LOOK_S, SHARE * (time.monotonic() - began))

    def _take(self, at: tuple[int, str, str], found: Found) -> Result | None:
        """A file as a result, if it is new, lies still, and did not change while it was copied."""
        about = os.fstat(found.fd)
        now = _signature(about)
        busy = 0 <= time.time() - about.st_mtime < STILL_S
        if busy or self._seen.get(at) == now or about.st_size > self._left_bytes:
            return None
        if at not in self._seen and len(self._seen) >= FILES:
            return None
        result = self._copy(at[1], found, about.st_size)
        if result is None or _signature(os.fstat(found.fd)) != now:
            return None
        self._seen[at] = now
        known = self._taken.get((result.output, result.key))
        return None if known and known.sha256 == result.sha256 else result

    def _copy(self, output: str, found: Found, size_bytes: int) -> Result | None:
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        if size_bytes <= INLINE_BYTES and self._inline_bytes + size_bytes <= INLINE_TOTAL_BYTES:
            data = os.pread(found.fd, size_bytes, 0)
            sha256.update(data)
            md5.update(data)
            self._inline_bytes += size_bytes
            return Result(output, key_text(found.key), sha256.hexdigest(), md5.hexdigest(), len(data), data)
        target, temp = self._blobs.make_temp()
        at = 0
        try:
            while at < size_bytes and (piece := os.pread(found.fd, min(CHUNK_BYTES, size_bytes - at), at)):
                if self._over.is_set():
                    break
                written = os.write(target, piece)  # less than the piece where the disk is about to be full
                sha256.update(piece[:written])
                md5.update(piece[:written])
                at += written
        finally:
            self._left_bytes -= at
            if at != size_bytes:
                os.close(target)
                os.unlink(temp)
        if at != size_bytes:
            return None
        self._blobs.add(target, sha256.hexdigest(), temp=temp)
        return Result(output, key_text(found.key), sha256.hexdigest(), md5.hexdigest(), size_bytes)


def _signature(about: os.stat_result) -> Seen:
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
