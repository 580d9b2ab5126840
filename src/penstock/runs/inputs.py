"""Lays what a program finds when it starts: hard links to blobs in one layer, text and folders in another."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from penstock.runs.base import Input
from penstock.runs.sandbox import copy_bytes


def plain(target: str) -> str:
    """An absolute path of the sandbox, as it lies below a root. Raises ValueError for a path that is not plain."""
    if (
        not target.startswith("/")
        or "\0" in target
        or (posixpath.normpath(target) != target.rstrip("/") and target != "/")
    ):
        raise ValueError(f"not a plain absolute path: {target!r}")
    return target.strip("/")


def inside(root: Path, target: str) -> Path:
    """Where an absolute path of the sandbox lies below `root`. Raises ValueError for a path that is not plain."""
    return root / plain(target)


class Layer:
    """A layer that is being laid: folders and texts, the job's own from the start."""

    def __init__(self, top: str, owner: int | None):
        """Makes the layer. Takes: `owner`, the job's user, where that is another than the server's."""
        self.top, self._owner = top, owner
        self._made: dict[str, None] = {}
        self._texts: list[str] = []
        self._lay("")

    def lay_folder(self, path: str) -> None:
        """Makes an empty folder, with those above it. Raises ValueError for a path that is not plain."""
        self._lay(plain(path))

    def lay_text(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Raises ValueError for a path that is not plain, OSError when there is no room."""
        below = plain(path)
        self._lay(posixpath.dirname(below))
        self._texts.append(below)
        fd = os.open(f"{self.top}/{below}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if self._owner is not None:
                os.fchown(fd, self._owner, self._owner)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Deletes the layer, which nobody else wrote to."""
        for below in dict.fromkeys(self._texts):
            os.unlink(f"{self.top}/{below}")
        for below in reversed(self._made):
            os.rmdir(f"{self.top}/{below}")

    def _lay(self, below: str) -> None:
        if below in self._made:
            return
        if below:
            self._lay(posixpath.dirname(below))
        path = f"{self.top}/{below}"
        os.mkdir(path, 0o755)
        if self._owner is not None:
            os.chown(path, self._owner, self._owner)
        self._made[below] = None


def lay_blobs(inputs: Iterable[Input], lower: Path) -> None:
    """Lays the inputs that are blobs. Raises ValueError for a target that is not plain, OSError when there is no blob."""
    made: set[Path] = set()
    for given in inputs:
        if given.blob is not None:
            _lay_blob(given, inside(lower, given.target), made)


def _lay_blob(given: Input, target: Path, made: set[Path]) -> None:
    """A hard link; where that cannot be (another file system, 65,000 links, an executable) a reflink or a copy."""
    assert given.blob is not None
    _make_parent(target, made)
    if not given.mode & 0o111:
        try:
            os.link(given.blob, target)
            return
        except FileExistsError:
            target.unlink()
            os.link(given.blob, target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP):
                raise
    copy_bytes(given.blob, str(target))
    os.chmod(target, given.mode)


def _make_parent(target: Path, made: set[Path]) -> None:
    if target.parent not in made:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.add(target.parent)
