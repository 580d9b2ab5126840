"""Lays what a program finds when it starts: hard links to blobs in the lower layer, text and folders in the upper one."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from penstock.runs.base import Input
from penstock.runs.sandbox import copy_bytes


def inside(root: Path, target: str) -> Path:
    """Where an absolute path of the sandbox lies below `root`. Raises ValueError for a path that is not plain."""
    if (
        not target.startswith("/")
        or "\0" in target
        or (posixpath.normpath(target) != target.rstrip("/") and target != "/")
    ):
        raise ValueError(f"not a plain absolute path: {target!r}")
    return root / target.lstrip("/")


def lay_inputs(inputs: Iterable[Input], lower: Path, upper: Path) -> None:
    """Lays the inputs. Raises ValueError for a target that is not plain, OSError when there is no room or no blob."""
    made: set[Path] = set()
    for given in inputs:
        if given.blob is not None:
            _lay_blob(given, inside(lower, given.target), made)
        else:
            target = inside(upper, given.target)
            _make_parent(target, made)
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, given.mode), "wb") as file:
                file.write(given.data or b"")
                os.fchmod(file.fileno(), given.mode)


def lay_folders(folders: Iterable[str], upper: Path) -> None:
    """Makes empty folders."""
    for folder in folders:
        inside(upper, folder).mkdir(parents=True, exist_ok=True)


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
