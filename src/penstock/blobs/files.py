"""Blobs as files of one folder: `<root>/<first two hex digits>/<sha256>`, mode 0644.

A job may open its input for writing: the overlay over the link then copies it, by the mode of the link. In mode 0444 a root
without capabilities would be refused, as it never is at AWS.

A blob's modification time is when somebody last meant it to be there: whoever finds his bytes there already touches the
file, and `collect` leaves what was touched lately. So between "the blob is there" and "a row points at it" nobody need
hold a lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from penstock.blobs import checksums
from penstock.blobs.base import INLINE_BYTES, Blob, Received, Used

CHUNK_BYTES = 1 << 20
BESIDE_BYTES = 256 * 1024
"""From this size of a piece on, MD5 is computed in a thread of its own: it takes as long as all the rest."""
LEFTOVER_S = 3600.0
"""A temporary file untouched for so long belongs to nobody any more."""


class FileBlobs:
    """The driver for a local folder; any number of processes may use one folder."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = os.path.abspath(root)
        self._temp = os.path.join(self.root, "tmp")
        self._away = os.path.join(self.root, "away")
        self.hasher = ThreadPoolExecutor(2, "penstock-md5")
        self._make_folders()
        self._sweep()

    def receive(self, algorithms: tuple[str, ...] = ()) -> FileReceiver:
        """Starts to take a body; `algorithms` are the checksums wanted beside SHA-256 and MD5."""
        return FileReceiver(self, algorithms)

    def put(self, data: bytes) -> Blob:
        """Makes a blob of bytes in memory, however few."""
        sha256 = hashlib.sha256(data).hexdigest()
        temp, descriptor = self._make_temp()
        try:
            _write_all(descriptor, data)
            self._publish(temp, descriptor, sha256, len(data))
            return Blob(sha256, len(data))
        finally:
            self._drop_temp(temp, descriptor)

    def read(self, sha256: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Gives the bytes in chunks of at most 1 MiB. Raises FileNotFoundError at once, not at the first chunk."""
        descriptor = self._open(sha256)
        return _Chunks(descriptor, start, os.fstat(descriptor).st_size if length is None else start + length)

    def path(self, sha256: str) -> str | None:
        """Names the blob's file, or None when there is no such blob."""
        path = self._path(sha256)
        if not os.path.exists(path):
            self._put_back(sha256)
        return path if os.path.exists(path) else None

    def touch(self, sha256: str) -> None:
        """Tells the collector that somebody is about to point at the blob. Raises FileNotFoundError."""
        try:
            os.utime(self._path(sha256))
        except FileNotFoundError:
            self._put_back(sha256)
            os.utime(self._path(sha256))

    def join(self, parts: list[tuple[str, int]]) -> Blob:
        """Makes one blob of several; where the file system can share extents, no bytes are copied."""
        temp, descriptor = self._make_temp()
        try:
            for sha256, size_bytes in parts:
                self._append(descriptor, sha256, size_bytes)
            size_bytes = os.fstat(descriptor).st_size
            digest = hashlib.sha256()
            for piece in _Chunks(os.dup(descriptor), 0, size_bytes):
                digest.update(piece)
            self._publish(temp, descriptor, digest.hexdigest(), size_bytes)
            return Blob(digest.hexdigest(), size_bytes)
        finally:
            self._drop_temp(temp, descriptor)

    def collect(self, older_than: float, used: Used, prefix: str = "") -> int:
        """Deletes what nobody points at, one blob at a time: renamed away, looked at again, deleted or put back.

        Only one process may collect. A reader finds a blob that is away for a moment under its other name.
        """
        for sha256 in os.listdir(self._away):  # a collector died here
            self._put_back(sha256)
        freed_bytes = 0
        for sha256 in self._names(prefix):
            if self._idle(self._path(sha256), older_than) and not used(sha256):
                freed_bytes += self._remove(sha256, older_than, used)
        return freed_bytes

    # --- below: the folder's ways

    def _path(self, sha256: str) -> str:
        return f"{self.root}/{sha256[:2]}/{sha256}"

    def _open(self, sha256: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        for path in (self._path(sha256), f"{self._away}/{sha256}"):
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags)
        return os.open(self._path(sha256), flags)

    def _make_folders(self) -> None:
        if os.path.isdir(f"{self.root}/ff"):
            return
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        names = ["tmp", "away", *(f"{number:02x}" for number in range(256))]  # ff last: it says that all are there
        for name in names:
            os.makedirs(f"{self.root}/{name}", exist_ok=True)
        _sync_folder(self.root)

    def _sweep(self) -> None:
        for name in os.listdir(self._temp):
            path = f"{self._temp}/{name}"
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime < time.time() - LEFTOVER_S:
                    os.unlink(path)

    def _make_temp(self) -> tuple[str, int]:
        path = f"{self._temp}/{os.getpid()}-{secrets.token_hex(8)}"
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _drop_temp(self, temp: str, descriptor: int) -> None:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)

    def _publish(self, temp: str, descriptor: int, sha256: str, size_bytes: int) -> None:
        """Makes a complete temporary file a blob, durably. The name stands only for bytes that are on the disk."""
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o644)
        path = self._path(sha256)
        while True:
            try:
                os.link(temp, path)
                break
            except FileExistsError:
                with contextlib.suppress(FileNotFoundError):  # collected between the two: link again
                    os.utime(path)
                    if os.stat(path).st_size == size_bytes:
                        break
                    os.replace(temp, path)  # the disk lost bytes of it
                    break
        _sync_folder(os.path.dirname(path))  # also for a blob that was there: its maker may not have come so far

    def _append(self, descriptor: int, sha256: str, size_bytes: int) -> None:
        source = self._open(sha256)
        try:
            left = size_bytes
            while left:
                copied = _copy_range(source, descriptor, left)
                if not copied:
                    raise OSError(errno.EIO, f"blob {sha256} is shorter than its row says")
                left -= copied
        finally:
            os.close(source)

    def _names(self, prefix: str) -> Iterator[str]:
        for number in range(256):
            folder = f"{number:02x}"
            if folder.startswith(prefix[:2]):
                yield from (name for name in os.listdir(f"{self.root}/{folder}") if name.startswith(prefix))

    def _idle(self, path: str, older_than: float) -> bool:
        try:
            return os.stat(path).st_mtime < older_than
        except FileNotFoundError:
            return False

    def _remove(self, sha256: str, older_than: float, used: Used) -> int:
        away = f"{self._away}/{sha256}"
        os.rename(self._path(sha256), away)
        if used(sha256) or not self._idle(away, older_than):
            self._put_back(sha256)
            return 0
        stat = os.stat(away)
        os.unlink(away)
        return stat.st_size if stat.st_nlink == 1 else 0

    def _put_back(self, sha256: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(FileExistsError):
                os.link(f"{self._away}/{sha256}", self._path(sha256))
            os.unlink(f"{self._away}/{sha256}")


class FileReceiver:
    """Takes one body: in memory while it is small, then in a temporary file."""

    def __init__(self, blobs: FileBlobs, algorithms: tuple[str, ...]):
        self._blobs = blobs
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._digests = {name: checksums.start(name) for name in algorithms if name not in ("SHA256", "MD5")}
        self._algorithms = algorithms
        self._small = bytearray()
        self._size_bytes = 0
        self._temp = ""
        self._descriptor = -1

    def write(self, piece: bytes | memoryview) -> None:
        """Hashes the piece and keeps it."""
        beside = self._blobs.hasher.submit(self._md5.update, piece) if len(piece) >= BESIDE_BYTES else None
        if beside is None:
            self._md5.update(piece)
        try:
            self._take(piece)
        finally:
            if beside is not None:
                beside.result()  # the piece is its owner's again when we return

    def _take(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        for digest in self._digests.values():
            digest.update(piece)
        self._size_bytes += len(piece)
        if self._size_bytes <= INLINE_BYTES:
            self._small += piece
            return
        if self._descriptor < 0:
            self._temp, self._descriptor = self._blobs._make_temp()
            _write_all(self._descriptor, self._small)
            self._small = bytearray()
        _write_all(self._descriptor, piece)

    def finish(self) -> Received:
        """Makes the bytes durable and gives what is known of them."""
        received = Received(self._size_bytes, self._sha256.hexdigest(), self._md5.hexdigest())
        received.checksums = {name: self._checksum(name, received) for name in self._algorithms}
        if self._descriptor < 0:
            received.inline = bytes(self._small)
            return received
        try:
            self._blobs._publish(self._temp, self._descriptor, received.sha256, received.size_bytes)
        finally:
            self.abandon()
        return received

    def abandon(self) -> None:
        """Throws away what came; what `finish` made a blob stays one, for the collector."""
        if self._descriptor < 0:
            return
        self._blobs._drop_temp(self._temp, self._descriptor)
        self._descriptor = -1

    def _checksum(self, name: str, received: Received) -> str:
        if name == "SHA256":
            return checksums.encode_hex(received.sha256)
        if name == "MD5":
            return checksums.encode_hex(received.md5)
        return checksums.encode(self._digests[name].digest())


class _Chunks:
    """The bytes of an open file from `start` up to `end`; closes the file at the end, or when dropped."""

    def __init__(self, descriptor: int, start: int, end: int):
        self._descriptor, self._position, self._end = descriptor, start, end

    def __iter__(self) -> _Chunks:
        return self

    def __next__(self) -> bytes:
        wanted = min(CHUNK_BYTES, self._end - self._position)
        if self._descriptor < 0 or wanted <= 0:
            self.close()
            raise StopIteration
        piece = os.pread(self._descriptor, wanted, self._position)
        if not piece:
            self.close()
            raise StopIteration
        self._position += len(piece)
        return piece

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def _write_all(descriptor: int, piece: bytes | bytearray | memoryview) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy_range(source: int, target: int, size_bytes: int) -> int:
    """Copies at most that many bytes from one file's position to the other's, in the kernel where it can."""
    try:
        return os.copy_file_range(source, target, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    piece = os.read(source, min(size_bytes, CHUNK_BYTES))
    _write_all(target, piece)
    return len(piece)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
