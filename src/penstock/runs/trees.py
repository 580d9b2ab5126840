"""Trees that programs have written: measured and deleted, however deep, wide and closed they are. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
from pathlib import Path

NAME_BYTES = 4096
LONG = 2000
"""A path longer than this is moved up before it is too long for the kernel (4,096)."""
TRIES = 3


def measure_tree(folder: str | os.PathLike[str]) -> tuple[float, int]:
    """Bytes on disk below a folder, of which every name counts a block, and the number of names.

    Endless where paths are longer than the kernel takes: what lies there can only be reached step by step.
    """
    total: float = 0
    names, folders = 0, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    names += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        total += NAME_BYTES
                    else:
                        total += max(NAME_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return math.inf, names
    return total, names


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Deletes a tree, folders without permissions too (an overlay leaves such ones); what cannot be deleted stays.

    Nothing is followed, nothing recurs: a program may have nested ten thousand folders.
    """
    top = os.fspath(path)
    if os.path.islink(top) or not os.path.isdir(top):
        with contextlib.suppress(OSError):
            os.unlink(top)
        return
    moved = 0
    todo = [(top, 0)]
    while todo:
        folder, tried = todo.pop()
        if tried and (_remove_folder(folder) or tried > TRIES):
            continue
        todo.append((folder, tried + 1))
        for below in _empty(folder):
            if len(os.fsencode(below)) > LONG:
                moved += 1
                below = _move(below, f"{top}/.deep-{moved}")
            todo.append((below, 0))


def _remove_folder(folder: str) -> bool:
    """Whether the folder is gone, or cannot go; not where something is in it still."""
    try:
        os.rmdir(folder)
    except OSError as error:
        return error.errno not in (errno.ENOTEMPTY, errno.EEXIST)
    return True


def _empty(folder: str) -> list[str]:
    """Deletes what lies in a folder, but for the folders, which it gives."""
    folders = []
    with contextlib.suppress(OSError):
        if os.stat(folder, follow_symlinks=False).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(folder, stat.S_IRWXU)
        with os.scandir(folder) as entries:  # not listed first: a million names are hundreds of megabytes
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
    return folders


def _move(folder: str, target: str) -> str:
    """Moves a folder up; gives where it is now."""
    try:
        with contextlib.suppress(OSError):
            os.chmod(folder, stat.S_IRWXU)
        Path(folder).rename(target)
    except OSError:
        return folder
    return target
