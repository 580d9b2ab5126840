"""Files into a container before it starts and out of it afterwards, as the archives that an engine's API takes and gives.

An archive and no mounts: a container's user is often another than the server's, and neither could write, read or delete what the other
has; an input that is written to must not change a blob; and a volume of the image lies where nothing can be mounted.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import NotFound

from penstock.runs.base import Input
from penstock.runs.inputs import inside
from penstock.runs.lookout import FILE_BYTES
from penstock.runs.outputs import DEPTH, TooMuch

PIECE_BYTES = 1 << 20
OWN = ("/opt/ml", "/opt/penstock")
"""Below these folders are made for everybody to write in; what is above them is the image's."""


def put_files(
    client: APIClient, container: str, layers: Iterable[str], folders: Iterable[str], inputs: Iterable[Input]
) -> None:  # fmt: skip
    """Lays layers, empty folders and inputs into a container, in one stream.

    Raises: OSError; ValueError for a target that is not plain.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    failures: list[Exception] = []

    def write() -> None:
        try:
            with open(writing, "wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _fill(tar, layers, folders, inputs)
        except (OSError, ValueError) as fault:
            failures.append(fault)

    thread = threading.Thread(target=write, name="inputs", daemon=True)
    thread.start()
    try:
        with open(reading, "rb") as stream:
            client.put_archive(container, "/", stream)
    except OSError as fault:
        thread.join()
        if not failures or isinstance(failures[0], BrokenPipeError):
            raise fault
    thread.join()
    if failures:
        raise failures[0]


def _fill(tar: tarfile.TarFile, layers: Iterable[str], folders: Iterable[str], inputs: Iterable[Input]) -> None:
    made: set[str] = set()
    top = tarfile.TarInfo("./")  # Podman makes it 0555, and root in a container has no right beyond the mode
    top.type, top.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(top)
    for layer in layers:
        for folder, _, names in os.walk(layer):
            for name in names:
                source = os.path.join(folder, name)
                _add(tar, made, "/" + os.path.relpath(source, layer), source=source)
    for name in folders:
        _add_folders(tar, made, str(inside(Path("/"), name)))
    for each in inputs:
        _add(tar, made, str(inside(Path("/"), each.target)), source=each.blob, data=each.data or b"", mode=each.mode)


def _add(
    tar: tarfile.TarFile, made: set[str], target: str, *, source: str | None = None, data: bytes = b"", mode: int = 0o644
) -> None:
    _add_folders(tar, made, posixpath.dirname(target))
    member = tarfile.TarInfo(target.lstrip("/"))
    member.mode = mode
    if source is None:
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
        return
    with open(source, "rb") as file:
        about = os.fstat(file.fileno())
        member.size, member.mtime = about.st_size, int(about.st_mtime)
        tar.addfile(member, file)


def _add_folders(tar: tarfile.TarFile, made: set[str], folder: str) -> None:
    """A folder and those above it, down from /opt/ml; an own folder elsewhere (a channel's local path) is made alone."""
    parts = [folder, *map(str, Path(folder).parents)]
    for path in reversed(parts):
        ours = any(path == own or path.startswith(own + "/") for own in OWN)
        if path not in made and path != "/" and (ours or path == folder):
            made.add(path)
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(member)


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file that is read from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class Shadow:
    """What was taken out of one container, at the same paths below a folder: regular files and folders, nothing else.

    No link is ever made there, so nothing that a program named can lead out of it.
    """

    def __init__(self, root: Path, limit_bytes: int):
        """Takes: `limit_bytes`, what a run may leave in all."""
        self.root, self._left_bytes = root, limit_bytes
        self._left_names = max(limit_bytes // FILE_BYTES, 1)

    def fetch(self, client: APIClient, container: str, source: str) -> None:
        """Copies a file or a folder out; a file that is there already and did not change is left as it is.

        Raises: TooMuch; OSError where the archive is torn.
        """
        try:
            pieces, _ = client.get_archive(container, source, PIECE_BYTES)
        except NotFound:
            return
        above = inside(self.root, posixpath.dirname(source.rstrip("/")) or "/")
        stream = io.BufferedReader(_Stream(pieces), PIECE_BYTES)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    self._take(tar, member, above)
        except (tarfile.TarError, EOFError) as fault:
            raise OSError(f"what the engine gave of {source} is no whole archive: {fault}") from None
        finally:
            with contextlib.suppress(OSError):
                pieces.close()

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, above: Path) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or not parts or len(parts) > DEPTH:
            return
        self._left_names -= 1
        if self._left_names < 0:
            raise TooMuch("Its outputs are too many files.")
        target = above.joinpath(*parts)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
        elif member.islnk():
            self._link(above.joinpath(*(p for p in member.linkname.split("/") if p not in ("", ".", ".."))), target)
        elif member.isreg() and (data := tar.extractfile(member)) is not None:
            self._write(member, data, target)

    def _link(self, first: Path, target: Path) -> None:
        """Another name of a file that was taken: a copy, since an output may be linked into the store."""
        if first.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._pay(first.stat().st_size)
            shutil.copy2(first, target)

    def _write(self, member: tarfile.TarInfo, data: Any, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            about = target.stat()
            if (about.st_size, about.st_mtime) == (member.size, float(member.mtime)):
                return
            target.unlink()
        with open(target, "xb") as file:
            while piece := data.read(PIECE_BYTES):
                self._pay(len(piece))
                file.write(piece)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        os.utime(target, (member.mtime, member.mtime))

    def _pay(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise TooMuch("Its outputs are more than it may write.")
