"""Takes results out of a root: hashed, and durable in the blob folder.

At the end the program is dead and nothing moves while this reads; `live` looks while it is alive and may move anything. So nothing is
reached through a symbolic link: every folder is opened below its parent's descriptor, and every file must be a regular one.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import math
import os
import posixpath
import secrets
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from penstock.runs import linux
from penstock.runs.base import Output, Result

INLINE_BYTES = 64 * 1024
INLINE_TOTAL_BYTES = 8 << 20
"""All inline results of a run together; what is more goes to the blobs, however small."""
MOST_RESULTS = 100_000
"""Files that a run may leave one by one: each is a record here, and a row of the store."""
BATCH = 128
FEW = 4
"""So many files are synced one by one; more, by one sync of the file system."""
DEPTH = 200
CHUNK_BYTES = 1 << 20
PARALLEL_BYTES = 16 << 20
ARCHIVE_TIME = 315_532_800
"""1980-01-01: archives of equal content are equal, and no tool refuses the date."""
BLOB_MODE = 0o644


@dataclass(slots=True)
class Root:
    """One instance's root as its program saw it, and where its writes lie (the same where there is no overlay)."""

    merged: str
    upper: str


@dataclass(slots=True)
class Found:
    """A regular file below an output's source, open for reading; `link`: it may become the blob itself, nobody else has it."""

    key: str
    fd: int
    link: bool


@dataclass(slots=True)
class Pending:
    """A file on its way to be a blob; `temp`: the name that it has until then, if it was made for this."""

    fd: int
    sha256: str
    temp: str = ""


class BlobFolder:
    """Puts files into the blob folder by its rule (`blobs/base.py`): durable before the name is there.

    `owner`: whose the blobs become, where programs run as another user.
    """

    def __init__(self, folder: str, owner: int | None = None):
        self._folder, self._owner = folder, owner
        self._pending: list[Pending] = []

    def add(self, fd: int, sha256: str, link: bool = False, temp: str = "") -> None:
        """Takes over an open file; it is there after `flush`. `link`: the file itself may become the blob."""
        try:
            os.utime(self._path(sha256))  # is there: tells the collector that somebody is about to point at it
            self._drop(Pending(fd, sha256, temp))
            return
        except FileNotFoundError:
            pass
        self._pending.append(Pending(fd, sha256, temp) if link or temp else self._copied(fd, sha256))
        if len(self._pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Makes what was added durable, then gives it its names."""
        if len(self._pending) > FEW:
            linux.sync_filesystem(self._pending[0].fd)
        else:
            for pending in self._pending:
                os.fsync(pending.fd)
        for pending in self._pending:
            self._publish(pending)
        for folder in {os.path.dirname(self._path(pending.sha256)) for pending in self._pending}:
            _sync_folder(folder)
        self._pending = []

    def make_temp(self) -> tuple[int, str]:
        """An open temporary file beside the blobs, and its name."""
        os.makedirs(f"{self._folder}/tmp", exist_ok=True)
        path = f"{self._folder}/tmp/{os.getpid()}-{secrets.token_hex(8)}"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def _path(self, sha256: str) -> str:
        return f"{self._folder}/{sha256[:2]}/{sha256}"

    def _publish(self, pending: Pending) -> None:
        path = self._path(pending.sha256)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.fchmod(pending.fd, BLOB_MODE)
        if self._owner is not None:
            os.fchown(pending.fd, self._owner, self._owner)
        try:
            # linkat(2) of an open file: no name on the way that could mean another file. Python calls linkat, which can follow
            # /proc's link, only where a folder's descriptor is given; for an absolute path the kernel does not look at it.
            os.link(f"/proc/self/fd/{pending.fd}", path, src_dir_fd=pending.fd, follow_symlinks=True)
        except FileExistsError:
            os.utime(path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP) or pending.temp:
                raise
            copied = self._copied(pending.fd, pending.sha256)
            os.fsync(copied.fd)
            self._publish(copied)
            return
        self._drop(pending)

    def _copied(self, fd: int, sha256: str) -> Pending:
        target, temp = self.make_temp()
        try:
            linux.share_bytes(fd, target)
        except OSError:
            os.lseek(fd, 0, os.SEEK_SET)
            while os.sendfile(target, fd, None, 1 << 30):
                pass
        os.close(fd)
        return Pending(target, sha256, temp)

    def _drop(self, pending: Pending) -> None:
        os.close(pending.fd)
        if pending.temp:
            os.unlink(pending.temp)


class TooMuch(Exception):
    """Outputs that the run may not have: their holes alone are larger than its disk (they take no room until somebody reads
    them), or they are too many files."""


def take_outputs(
    outputs: list[Output], roots: list[Root], blobs: str, owner: int | None = None, limit_bytes: float = math.inf
) -> list[Result]:
    """Takes the outputs from the instances' roots; of two instances that wrote the same key, the first one's counts.

    Raises: TooMuch, before anything that large was read.
    """
    seen = [(output.kind, *_look_over(root, output.source)) for output in outputs for root in roots]
    if sum(hole_bytes for _, hole_bytes, _ in seen) > limit_bytes:
        raise TooMuch("Its outputs have holes that are larger than what it may write.")
    if sum(files for kind, _, files in seen if kind == "files") > MOST_RESULTS:
        raise TooMuch(f"Its outputs are more than {MOST_RESULTS} files; archives may hold as many as they like.")
    taker = _Taker(roots, BlobFolder(blobs, owner))
    for output in outputs:
        taker.take_archive(output) if output.kind == "tar.gz" else taker.take_files(output)
    taker.blobs.flush()
    return taker.results


def _look_over(root: Root, source: str) -> tuple[int, int]:
    """What the regular files of a source pretend to hold, their sizes beyond the room they take; and how many files there are."""
    folder = _open_folder(root.merged, source)
    if folder is not None:
        holes = [_hole(entry.name, parent) for _, parent, entry in _walk(folder, "")]
        return sum(holes), len(holes)
    above = _open_folder(root.merged, posixpath.dirname(source))
    if above is None:
        return 0, 0
    try:
        return _hole(posixpath.basename(source), above), 1
    finally:
        os.close(above)


def _hole(name: str, folder: int) -> int:
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return 0
    return max(0, about.st_size - about.st_blocks * 512) if stat.S_ISREG(about.st_mode) else 0


def read_message(roots: list[Root], path: str) -> str:
    """The first 1,024 characters of a file that the program left; empty if there is none."""
    for root in roots:
        found = _open_beneath(root.merged, path)
        if found is not None:
            with open(found, "rb") as file:
                return file.read(4096).decode("utf-8", "replace")[:1024]
    return ""


def read_start(root: Root, path: str, size_bytes: int) -> bytes:
    """The first bytes of a file in a root; nothing if there is none."""
    found = _open_beneath(root.merged, path)
    if found is None:
        return b""
    with open(found, "rb") as file:
        return file.read(size_bytes)


class _Taker:
    """Collects the results of one run."""

    def __init__(self, roots: list[Root], blobs: BlobFolder):
        self.roots, self.blobs = roots, blobs
        self.results: list[Result] = []
        self._inline_bytes = 0

    def take_files(self, output: Output) -> None:
        """Each regular file below the source is a result."""
        seen: set[str] = set()
        for root in self.roots:
            for found in find_files(root, output.source):
                if found.key in seen:
                    os.close(found.fd)
                    continue
                seen.add(found.key)
                self._take(output.name, found)

    def take_archive(self, output: Output) -> None:
        """The source as one gzip'd tar; nothing if it is missing or empty, unless it is required."""
        fd, temp = self.blobs.make_temp()
        with open(fd, "w+b", closefd=False) as file:
            members = write_archive(file, [(root.merged, output.source) for root in self.roots])
        if not members and not output.required:
            os.close(fd)
            os.unlink(temp)
            return
        self._take(output.name, Found("", fd, False), temp)

    def _take(self, name: str, found: Found, temp: str = "") -> None:
        size_bytes = os.fstat(found.fd).st_size
        if size_bytes <= INLINE_BYTES and self._inline_bytes + size_bytes <= INLINE_TOTAL_BYTES:
            self._inline_bytes += size_bytes
            data = os.pread(found.fd, size_bytes, 0)
            sha256, md5 = hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest()
            self.results.append(Result(name, key_text(found.key), sha256, md5, len(data), data))
            os.close(found.fd)
            if temp:
                os.unlink(temp)
            return
        sha256, md5 = digest(found.fd, size_bytes)
        self.results.append(Result(name, key_text(found.key), sha256, md5, size_bytes))
        self.blobs.add(found.fd, sha256, found.link, temp)


def key_text(key: str) -> str:
    """A file name that is no UTF-8 is no S3 key: its odd bytes are written as \\xNN."""
    return os.fsencode(key).decode("utf-8", "backslashreplace")


def digest(fd: int, size_bytes: int) -> tuple[str, str]:
    """SHA-256 and MD5 of an open file, in hex; of a large one on two cores."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    if size_bytes < PARALLEL_BYTES:
        for piece in _pieces(fd):
            sha256.update(piece)
            md5.update(piece)
        return sha256.hexdigest(), md5.hexdigest()
    beside = threading.Thread(target=_feed, args=(md5, fd))
    try:
        beside.start()
    except RuntimeError:  # no room for a thread: one after the other
        _feed(md5, fd)
        _feed(sha256, fd)
    else:
        _feed(sha256, fd)
        beside.join()
    return sha256.hexdigest(), md5.hexdigest()


def _feed(digest: Any, fd: int) -> None:
    for piece in _pieces(fd):
        digest.update(piece)


def _pieces(fd: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(fd, CHUNK_BYTES, at):
        yield piece
        at += len(piece)


# --- walking -----------------------------------------------------------------------------------------------------------------


def find_files(root: Root, source: str) -> Iterator[Found]:
    """The regular files below a folder of the root, by name; a file as the source is one result with its own name."""
    folder = _open_folder(root.merged, source)
    if folder is None:
        fd = _open_beneath(root.merged, source)
        if fd is not None:
            yield _found(root, source, posixpath.basename(source), fd)
        return
    for key, parent, entry in _walk(folder, ""):
        if entry.is_file(follow_symlinks=False) and (fd := _open_file(entry.name, parent)) is not None:
            yield _found(root, posixpath.join(source, key), key, fd)


def _found(root: Root, path: str, key: str, fd: int) -> Found:
    """Opens the file where its bytes lie, so that they can become a blob without being copied."""
    if root.merged == root.upper:
        return Found(key, fd, os.fstat(fd).st_nlink == 1)
    beneath = _open_beneath(root.upper, path)
    if beneath is None:
        return Found(key, fd, False)
    seen, real = os.fstat(fd), os.fstat(beneath)
    # An overlay's files have a device of their own: the upper layer's is the one that the file must lie on.
    same = (seen.st_ino, seen.st_size, seen.st_mtime_ns) == (real.st_ino, real.st_size, real.st_mtime_ns)
    if not same or real.st_dev != os.stat(root.upper).st_dev or real.st_nlink > 1:
        os.close(beneath)
        return Found(key, fd, False)
    os.close(fd)
    return Found(key, beneath, True)


def _open_beneath(top: str, path: str) -> int | None:
    """Opens a regular file below `top`, step by step: the program, if it is alive, may put a link in any folder's place."""
    parent = _open_folder(top, posixpath.dirname(path))
    if parent is None:
        return None
    try:
        return _open_file(posixpath.basename(path), parent)
    finally:
        os.close(parent)


def _open_folder(top: str, path: str) -> int | None:
    """Opens a folder below `top`, step by step; None if a step is missing or is a link."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in posixpath.normpath(path).strip("/").split("/"):
        if name in ("", "."):
            continue
        try:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        fd = below
    return fd


def _open_file(name: str, folder: int) -> int | None:
    """Opens a regular file; None for anything else (a device, a pipe, a link)."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _walk(folder: int, prefix: str, depth: int = 0) -> Iterator[tuple[str, int, os.DirEntry[str]]]:
    """Entries below an open folder (closed at the end), sorted: (path below, its parent's descriptor, entry)."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            yield prefix + entry.name, folder, entry
            if entry.is_dir(follow_symlinks=False) and depth < DEPTH:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    below = os.open(entry.name, flags, dir_fd=folder)
                    yield from _walk(below, f"{prefix}{entry.name}/", depth + 1)
    finally:
        os.close(folder)


# --- archives ----------------------------------------------------------------------------------------------------------------


def write_archive(file: IO[bytes], sources: list[tuple[str, str]]) -> int:
    """Writes the folders (root, path in it) as one gzip'd tar; gives how many members. Equal folders give equal bytes.

    Symbolic links are kept if they stay inside; devices, pipes and sockets are left out.
    """
    seen: set[str] = set()
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, filename="", mtime=0) as packed,
        tarfile.open(
            fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar,
    ):
        for top, source in sources:
            folder = _open_folder(top, source)
            for key, parent, entry in _walk(folder, "") if folder is not None else ():
                if key not in seen and _add_member(tar, key, parent, entry):
                    seen.add(key)
    return len(seen)


def _add_member(tar: tarfile.TarFile, key: str, parent: int, entry: os.DirEntry[str]) -> bool:
    member = tarfile.TarInfo(key)
    member.mtime, member.uname, member.gname = ARCHIVE_TIME, "root", "root"
    if entry.is_symlink():
        target = os.readlink(entry.name, dir_fd=parent)
        if target.startswith("/") or posixpath.normpath(posixpath.join(posixpath.dirname(key), target)).startswith(
            ".."
        ):
            return False
        member.type, member.linkname = tarfile.SYMTYPE, target
        tar.addfile(member)
    elif entry.is_dir(follow_symlinks=False):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    else:
        fd = _open_file(entry.name, parent)
        if fd is None:
            return False
        with open(fd, "rb") as file:
            about = os.fstat(fd)
            member.size, member.mode = about.st_size, 0o755 if about.st_mode & 0o100 else 0o644
            tar.addfile(member, file)
    return True


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
